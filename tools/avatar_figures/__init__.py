"""Parts of tools/avatar_experiments.py."""
