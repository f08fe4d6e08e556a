"""Judges edited views before they are stored: what is broken, unchanged, moved, or unlike the other views."""
