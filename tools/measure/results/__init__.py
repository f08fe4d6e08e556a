"""`make results`: what the documentation claims, compared with what was measured."""
