"""`make bench`: one module per section, each with `measure(console) -> dict`; and two programs that tests run."""
