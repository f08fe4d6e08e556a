"""Editors of a user's own: programs and Python objects, and how their views are made to agree."""
