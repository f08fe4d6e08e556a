"""The parts of tools/train_demo_clip.py."""
