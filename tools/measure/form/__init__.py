"""How well edits of form arrive in an avatar, against the ray-traced truth: `python -m tools.measure.form`."""
