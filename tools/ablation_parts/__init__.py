"""Parts of tools/ablation.py."""
