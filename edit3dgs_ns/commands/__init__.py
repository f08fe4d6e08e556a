"""The `edit3dgs` command, one file per subcommand: options, checks and printing."""
