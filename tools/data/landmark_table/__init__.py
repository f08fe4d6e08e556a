"""Finds which point of the open head each landmark of MediaPipe is, on renders whose geometry is known."""
