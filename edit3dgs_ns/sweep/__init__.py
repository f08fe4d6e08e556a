"""`edit3dgs sweep`: subjects x prompts x seeds x editors, each trained, edited and evaluated, in one table."""
