"""Writing files and folders that are either whole or not there."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edit3dgs_ns.errors import UserError


def make_folder(folder: Path) -> None:
    """Make a folder and those above it.

    Raises:
        UserError: it cannot be made: names it and the reason.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"{folder}: this folder cannot be made ({error.strerror}). Name another place."
        ) from error


def check_writable(folder: Path) -> None:
    """Check that files can be written to a folder that is there or could be made; leaves nothing behind.

    Permissions do not say it all (full or read-only disks, names that are too long): it is tried.

    Raises:
        UserError: it cannot be made or written: names it and the reason.
    """
    missing = [path for path in (folder, *folder.parents) if not os.path.lexists(path)]
    try:
        make_folder(folder)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UserError(f"{folder}: cannot be written ({error.strerror}). Name another place.") from error
    finally:
        for path in missing:
            with contextlib.suppress(OSError):  # not made, or not empty any more
                path.rmdir()


@contextmanager
def written_beside(path: Path) -> Iterator[Path]:
    """A name beside `path` to write to; renamed to `path` at the end, and removed if anything fails before.

    An OSError on the way (full disk, ...) names `path`, whatever it named before: the commands print that.
    """
    make_folder(path.parent)
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield partial
        os.replace(partial, path)
    except OSError as error:
        raise _naming(path, partial, error) from error.__cause__
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def folder_written_beside(folder: Path) -> Iterator[Path]:
    """A new folder beside `folder` to fill; takes its place at the end, and is removed if anything fails before."""
    make_folder(folder.parent)
    unfinished = folder.with_name(f".{folder.name}.{os.getpid()}.part")
    former = folder.with_name(f".{folder.name}.{os.getpid()}.former")
    unfinished.mkdir()
    try:
        yield unfinished
        if folder.exists():  # a folder that is not empty cannot be replaced in one step
            os.replace(folder, former)
        os.replace(unfinished, folder)
    except OSError as error:
        raise _naming(folder, unfinished, error) from error.__cause__
    finally:
        if former.exists() and not folder.exists():
            os.replace(former, folder)
        shutil.rmtree(unfinished, ignore_errors=True)
        shutil.rmtree(former, ignore_errors=True)


def _naming(place: Path, unfinished: Path, error: OSError) -> OSError:
    """An error of writing what is unfinished, naming what it was to become; others, and messages of ours, as they are."""
    is_of_it = error.filename is None or str(error.filename).startswith(str(unfinished))
    if error.errno is None or not is_of_it:
        return error
    return OSError(error.errno, error.strerror or os.strerror(error.errno), str(place))


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file that is either whole or not there; one of many that could be made again."""
    with written_beside(path) as partial:
        partial.write_bytes(data)


def write_durably(path: Path, data: bytes) -> None:
    """Write a file so that under its name there is, even if the power fails, the old content or the new: for what took
    long to make."""
    with written_beside(path) as partial, partial.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    """Make a rename durable. Not all systems can open a folder (Windows cannot); there the rename is still atomic."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
