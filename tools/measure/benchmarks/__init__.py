"""`make bench`: one module per section, each with `measure(console) -> dict`; and the attention's memory, which a test reads."""
