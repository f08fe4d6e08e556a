"""`make ablation`: edits the demo's avatar with and without agreement and expression retention."""
