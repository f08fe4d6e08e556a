"""Parts of ``tools/bake_open_head.py``: MakeHuman's CC0 data in, the embedded open head out."""
