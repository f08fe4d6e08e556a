"""Edit animatable 3D Gaussian head avatars with words."""
