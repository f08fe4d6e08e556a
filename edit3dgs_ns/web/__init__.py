"""An avatar, its rig and its motion as one HTML page that poses and plays them in a browser, without nerfstudio."""
