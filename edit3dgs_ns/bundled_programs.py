"""ffmpeg and libusb from the wheels that bundle them, put where Nerfstudio and open3d look for them.

`ns-render` asks `shutil.which("ffmpeg")` before it writes a video, and open3d, which `ns-export` imports before any plugin, is
linked against libusb-1.0. Few machines have both, so the set-up brings them (`imageio-ffmpeg`, `libusb-package`). What the system
has is preferred: nothing is linked there.
"""

import atexit
import ctypes
import os
import shutil
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from pathlib import Path

FFMPEG = "ffmpeg.exe" if os.name == "nt" else "ffmpeg"
LIBUSB = "libusb-1.0.so.0"


def provide_bundled_programs() -> None:
    """Make an `ffmpeg` program and libusb-1.0 available to this process; libusb also to later ones of this environment."""
    provide_ffmpeg()
    provide_libusb()


def provide_ffmpeg() -> Path | None:
    """Return the `ffmpeg` on the PATH; without one, the bundled program is appended to this process's PATH.

    Returns:
        The program, or None if neither the system nor a wheel for this platform has one.
    """
    if found := shutil.which("ffmpeg"):
        return Path(found)
    bundled = _bundled_ffmpeg()
    # The wheel's file is called after its version, and Nerfstudio looks for the bare name.
    link = _link_to(bundled, FFMPEG, [bundled.parent]) if bundled else None
    if link is None:
        return None
    os.environ["PATH"] = os.pathsep.join(filter(None, [os.environ.get("PATH"), str(link.parent)]))
    return link


def provide_libusb() -> Path | str | None:
    """Load libusb-1.0 into this process; without the system's, from the wheel, linked where open3d's loader looks.

    Returns:
        The library's name if the system has it, the link or the wheel's file otherwise, or None where there is none. Only Linux
        builds of open3d ask for it.
    """
    if not sys.platform.startswith("linux"):
        return None
    if _loads(LIBUSB):
        return LIBUSB
    bundled = _bundled_libusb()
    if bundled is None or not _loads(str(bundled)):
        return None
    # `ns-export` imports open3d before it imports us. Its RUNPATH holds the folder that it is installed in.
    return _link_to(bundled, LIBUSB, [Path(sysconfig.get_path("platlib"))], fallback=False) or bundled


def _bundled_ffmpeg() -> Path | None:
    try:
        import imageio_ffmpeg

        program = Path(imageio_ffmpeg.get_ffmpeg_exe())
    except (
        ImportError,
        RuntimeError,
    ):  # RuntimeError: the installed wheel holds no program for this platform
        return None
    return program if program.is_file() else None


def _bundled_libusb() -> Path | None:
    try:
        import libusb_package
    except ImportError:
        return None
    path = libusb_package.get_library_path()
    return Path(path) if path else None


def _loads(library: str) -> bool:
    try:
        ctypes.CDLL(library, mode=ctypes.RTLD_GLOBAL)
    except OSError:
        return False
    return True


def _link_to(target: Path, name: str, folders: list[Path], *, fallback: bool = True) -> Path | None:
    """Link `target` as `name` in the first folder that can be written; with `fallback`, in a temporary one at last."""
    for folder in _with_temporary(folders) if fallback else iter(folders):
        link = folder / name
        try:
            if link.exists() and link.samefile(target):
                return link
            _replace_link(target, link)
        except OSError:
            continue
        return link
    return None


def _with_temporary(folders: list[Path]) -> Iterator[Path]:
    yield from folders
    temporary = Path(tempfile.mkdtemp(prefix="edit3dgs-"))
    atexit.register(shutil.rmtree, temporary, ignore_errors=True)
    yield temporary


def _replace_link(target: Path, link: Path) -> None:
    # Another process may do the same: the link appears complete or not at all.
    partial = link.with_name(f"{link.name}.{os.getpid()}")
    try:
        partial.symlink_to(target)
    except OSError:  # Windows gives symbolic links to administrators only
        os.link(target, partial)
    os.replace(partial, link)


if __name__ == "__main__":
    provide_bundled_programs()
