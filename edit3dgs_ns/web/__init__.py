"""An avatar and its motion as one HTML page that plays them in a browser: numpy alone, without nerfstudio and torch."""
