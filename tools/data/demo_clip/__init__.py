"""Makes the embedded demo CLIP: data, captions, training, evaluation, export (see __main__)."""
