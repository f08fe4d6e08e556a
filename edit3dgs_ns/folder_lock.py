"""One process at a time in a folder: two that write the same run, capture or demo would spoil each other's files."""

from __future__ import annotations

import json
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from edit3dgs_ns.errors import UserError
from edit3dgs_ns.files import make_folder

LOCK_FILE = ".in_use"
_HELD: dict[Path, int] = {}
"""Locks that are held until this process ends, by folder."""


@contextmanager
def only_process(folder: Path) -> Iterator[None]:
    """Nobody else writes to a folder meanwhile; the lock's file lies beside it, so that a new folder stays empty.

    The system lets go of the lock when the process ends, however it ends. File systems without locks have none, and a folder in one
    that cannot be written has none.

    Raises:
        UserError: another process does; the message names it.
    """
    folder = Path(os.path.abspath(folder))
    path = folder.with_name(f".{folder.name}{LOCK_FILE}")
    make_folder(path.parent)
    # Of a mounted folder, what is above it may be somebody else's: there is no place for a lock then.
    has_place = os.access(path.parent, os.W_OK) or not folder.is_dir()
    handle = _lock(folder, path) if has_place else None
    try:
        yield
    finally:
        if handle is not None:
            _release(path, handle)


def hold_until_exit(folder: Path) -> None:
    """As `only_process`, until this process ends, with the lock's file in the folder; again is harmless.

    Raises:
        UserError: another process writes to the folder.
    """
    folder = folder.resolve()
    if folder in _HELD:
        return
    make_folder(folder)
    handle = _lock(folder, folder / LOCK_FILE)
    if handle is not None:
        _HELD[folder] = handle


def _lock(folder: Path, path: Path) -> int | None:
    """Locks a file; None where the file system has no locks."""
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise UserError(f"{folder}: cannot be written ({error.strerror}). Name another place.") from error
    try:
        _try_lock(handle)
    except BlockingIOError:
        os.close(handle)
        raise UserError(_taken(folder, path)) from None
    except OSError:  # this file system has no locks
        os.close(handle)
        return None
    said = {"process": os.getpid(), "machine": socket.gethostname(), "command": _command()}
    if not _is_at(path, handle):  # its former holder has removed it between our two calls
        os.close(handle)
        return _lock(folder, path)
    with suppress(OSError):  # a full disk: the lock holds, but does not say whose it is
        os.ftruncate(handle, 0)
        os.write(handle, json.dumps(said).encode())
    return handle


def _is_at(path: Path, handle: int) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False


def _try_lock(handle: int) -> None:
    """Raises BlockingIOError where another process has the lock, OSError where there are none."""
    if sys.platform == "win32":
        import msvcrt

        try:
            os.lseek(handle, 1 << 30, os.SEEK_SET)  # far beyond what is read: Windows locks bytes, not files
            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
            os.lseek(handle, 0, os.SEEK_SET)
        except OSError as error:
            raise BlockingIOError from error
    else:
        import fcntl

        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _release(path: Path, handle: int) -> None:
    with suppress(OSError):  # Windows removes no file that is open; it is in nobody's way
        path.unlink()
    os.close(handle)


def _taken(folder: Path, path: Path) -> str:
    said: dict[str, Any] = {}
    with suppress(OSError, ValueError):
        said = json.loads(path.read_text(encoding="utf-8"))
    who = "another process"
    if isinstance(said, dict) and {"process", "machine", "command"} <= said.keys():
        where = "" if said["machine"] == socket.gethostname() else f" on {str(said['machine'])[:60]}"
        who = f"process {str(said['process'])[:20]}{where} ({str(said['command'])[:80]})"
    return (
        f"{folder} is being written by {who}. Wait until it has ended, stop it, or name another place (of ns-train: "
        "--output-dir or --timestamp)."
    )


def _command() -> str:
    return " ".join([Path(sys.argv[0]).name, *sys.argv[1:2]])
