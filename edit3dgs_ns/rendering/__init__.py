"""Trajectories, driving motions and scenes, rendered to images, videos and web pages."""
