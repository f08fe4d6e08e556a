"""An avatar and its motion as one HTML page that plays them in a browser: NumPy alone, without nerfstudio and torch."""
