"""Metrics of avatars and their edits, reports, comparison grids and videos. Never imports nerfstudio."""
