"""Edits of expression: finds what edited views changed in expression, and makes it an offset of the avatar's motion."""
