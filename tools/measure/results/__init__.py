"""`make results`: what the README claims, and whether it is what was measured."""
