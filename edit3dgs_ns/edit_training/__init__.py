"""`ns-train edit3dgs`: rounds of edits and the fit of an avatar to them.

The editors are in `editing/`, which never imports nerfstudio.
"""
