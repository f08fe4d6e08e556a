"""Agreement between views: key views, correspondence (epipolar or by the rig), shared attention and predictions."""
