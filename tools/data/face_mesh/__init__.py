"""The face tracker that `edit3dgs export --webcam` puts into its pages."""
