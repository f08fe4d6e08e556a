"""Trains variants of the demo's avatar and measures them on held-out images."""
