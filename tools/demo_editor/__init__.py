"""Makes the embedded demo editor: data, VAE, UNet, evaluation, export (see tools/train_demo_editor.py)."""
