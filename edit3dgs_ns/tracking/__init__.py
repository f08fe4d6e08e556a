"""Tracks a head model in a video: landmarks, the fit of the model's parameters, and the capture they make."""
