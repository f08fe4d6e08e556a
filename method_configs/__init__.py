"""Nerfstudio method configurations, one file per `ns-train` method."""
