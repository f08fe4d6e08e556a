"""Errors that a user can cause, and correct.

Raised where the message can name the flag or the file, what was found there and what to do. The commands show the message
alone and end with exit code 2; any other exception is a bug and keeps its traceback.
"""

from __future__ import annotations


class UserError(ValueError):
    """A mistake in an option, a file or a folder that the user can correct."""


class MissingFileError(UserError, FileNotFoundError):
    """A file or folder that an option or another file names is not there."""


class ExistingFileError(UserError, FileExistsError):
    """A file or folder is in the way of what is to be written."""
