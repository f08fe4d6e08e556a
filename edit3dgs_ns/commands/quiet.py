"""Keeps warnings that only the authors of libraries can act on off the screens of our users; our own are shown."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from pathlib import Path
from types import TracebackType

from edit3dgs_ns.console import print_error, warn
from edit3dgs_ns.errors import message_of

OURS = "edit3dgs_ns"
"""The logger that all loggers of this package are below."""


def hide_library_warnings() -> None:
    """Hides warnings and log messages of libraries in this process and those that it starts, and prints our log messages.

    Whoever asks Python for warnings (`python -W default`, PYTHONWARNINGS) gets them.
    """
    if not sys.warnoptions:
        os.environ["PYTHONWARNINGS"] = "ignore"
        warnings.simplefilter("ignore")
        # Some libraries put filters of their own before ours when they are imported.
        warnings.showwarning = _ignore
    for name in ("TRANSFORMERS_VERBOSITY", "DIFFUSERS_VERBOSITY"):
        os.environ.setdefault(name, "error")
    logging.getLogger().addHandler(logging.NullHandler())  # without any handler, Python prints to stderr
    ours = logging.getLogger(OURS)
    ours.addHandler(_WarningPrinter(logging.WARNING))
    ours.propagate = False


def quiet_nerfstudio() -> None:
    """In a program of Nerfstudio: hides library warnings, and shows a `UserError` as one message instead of a traceback.

    Nerfstudio has imported PyTorch before it asks for our methods; warnings of that time stand on the screen already.
    """
    if not Path(sys.argv[0]).stem.startswith("ns-"):
        return
    hide_library_warnings()
    show = sys.excepthook

    def show_error(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        message = message_of(error)
        if message is not None:
            print_error(message)
        else:
            show(kind, error, trace)

    sys.excepthook = show_error


def _ignore(*_: object, **__: object) -> None:
    """Takes the place of `warnings.showwarning`."""


class _WarningPrinter(logging.Handler):
    """Prints log messages as our commands print warnings."""

    def emit(self, record: logging.LogRecord) -> None:
        warn(record.getMessage())
