"""The consoles that our commands write to."""

from rich.console import Console
from rich.text import Text

CONSOLE = Console()
ERROR_CONSOLE = Console(stderr=True)


def print_error(message: str) -> None:
    """Print an error's message on stderr as it is: unwrapped, so that a path in it can be copied and searched for."""
    # Text, not a string: file names with [brackets] must not be read as markup. The terminal breaks long lines by itself.
    ERROR_CONSOLE.print(Text.assemble(("error: ", "bold red"), message), soft_wrap=True)
