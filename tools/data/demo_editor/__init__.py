"""Makes the embedded demo editor: data, VAE, UNet, evaluation, export (see __main__)."""
