"""`python -m edit3dgs_ns` is `edit3dgs`."""

from edit3dgs_ns.commands.main import main

main()
