"""Bakes the embedded open head from MakeHuman's CC0 data."""
