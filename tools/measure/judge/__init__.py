"""`python -m tools.measure.judge`: how many bad edited views are found, and how many good ones refused."""
