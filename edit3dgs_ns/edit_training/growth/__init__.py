"""Form that an edit adds to an avatar or takes from it: what edited views show where the avatar has nothing, Gaussians there, and
Gaussians gone from where edited views show the background.
"""
