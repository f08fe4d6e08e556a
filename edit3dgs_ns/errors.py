"""Errors that a user can cause, and correct.

Raised where the message can name the flag or the file, what was found there and what to do. The commands show the message
alone and end with exit code 2; any other exception is a bug and keeps its traceback.
"""

from __future__ import annotations

import errno

_OF_PLACES = {
    errno.ENAMETOOLONG, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.ENOTDIR, errno.EISDIR
}  # fmt: skip
"""What can be wrong with a place that the user has named, whoever notices it first."""


def message_of(error: BaseException) -> str | None:
    """What a user is told instead of a traceback; None for what is a bug."""
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, OSError) and error.errno in _OF_PLACES and error.filename is not None:
        return f"{error.filename}: {error.strerror}."
    return None


class UserError(ValueError):
    """A mistake in an option, a file or a folder that the user can correct."""


class MissingFileError(UserError, FileNotFoundError):
    """A file or folder that an option or another file names is not there."""


class ExistingFileError(UserError, FileExistsError):
    """A file or folder is in the way of what is to be written."""
