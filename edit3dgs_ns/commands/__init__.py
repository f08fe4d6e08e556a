"""The `edit3dgs` command line: one file per command, with its options, cheap checks and what it prints; `main` finds them."""
