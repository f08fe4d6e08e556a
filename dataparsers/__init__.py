"""Parsers of capture formats, one file each."""
