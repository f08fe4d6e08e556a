"""The consoles that our commands write to."""

from rich.console import Console

CONSOLE = Console()
ERROR_CONSOLE = Console(stderr=True)
