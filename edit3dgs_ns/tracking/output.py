"""Options of a tracking, and the folder that it fills: whose it is, and whether it goes on or begins anew."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from edit3dgs_ns.errors import ExistingFileError, UserError
from edit3dgs_ns.files import check_writable, write_atomically
from edit3dgs_ns.tracking.foreground import mask_files
from edit3dgs_ns.tracking.video import VideoPart, frame_files
from edit3dgs_ns.untrusted import parse_json

LANDMARKS_FILE, REPORT_FILE, PREVIEW_FILE = "landmarks.npz", "tracking.json", "tracking.mp4"
_FOLDERS = {
    "images": r"\d{5}_\d{2,}\.png",
    "fg_masks": r"\d{5}_\d{2,}\.png",
    "flame_param": r"\d{5}\.npz",
}
"""Folders that a tracking writes, and the names of its files in them."""
_LANDMARKS = r"landmarks(_\d{2,})?\.npz"
_FILES = "|".join(
    (
        _LANDMARKS,
        re.escape(PREVIEW_FILE),
        r"canonical_flame_param\.npz",
        r"transforms_(train|val|test)\.json",
    )
)
"""Names of its other files, but the report."""

FolderState = Literal["new", "goes on", "replaces"]


@dataclass(frozen=True)
class TrackingOptions:
    """What is tracked, and how."""

    part: VideoPart = field(default_factory=VideoPart)
    size: int = 512
    """Pixels of the side of the square images that are written."""
    focal: float | None = None
    """Focal length in pixels of the video's frames; None estimates it."""
    masks: Path | None = None
    """Folder of masks, one for each frame; None segments."""

    def validate(self) -> None:
        """Check ranges.

        Raises:
            UserError: names the option and the value.
        """
        self.part.validate()
        if not 64 <= self.size <= 4096:
            raise UserError(f"--size {self.size}: expected 64 to 4096 pixels.")
        if self.focal is not None and not 10 <= self.focal <= 1e5:
            raise UserError(f"--focal {self.focal}: expected pixels of the video's frames, 10 to 100000.")
        if self.masks is not None and not self.masks.is_dir():
            raise UserError(f"--masks {self.masks}: no such folder.")


def settings_of(video: Path, head: Path, options: TrackingOptions) -> dict[str, Any]:
    """What a tracking depends on, for tracking.json: another one of it is another tracking."""
    part = asdict(options.part)
    part["end"] = None if part["end"] == float("inf") else part["end"]
    return {
        "video": str(video.resolve()),
        "content": _stamp(video),
        "head": str(head.resolve()),
        "part": part,
        "size": options.size,
        "focal": options.focal,
        "masks": None if options.masks is None else [str(options.masks.resolve()), _stamp(options.masks)],
    }


def _stamp(path: Path) -> list[list[object]]:
    """Of a file, or of the images in a folder."""
    return stamps([path] if path.is_file() else sorted({*frame_files(path), *mask_files(path)}))


def stamps(files: Iterable[Path]) -> list[list[object]]:
    """Sizes and times of files: content that was replaced under the same name is noticed."""
    return [[file.name, file.stat().st_size, file.stat().st_mtime_ns] for file in files]


def check_folder(out: Path, settings: dict[str, Any], overwrite: bool) -> FolderState:
    """Whether a folder is new, holds the same tracking, or one that is to be replaced; changes nothing.

    Raises:
        ExistingFileError: it holds something else, or another tracking and `overwrite` is False.
        UserError: it cannot be made or written.
    """
    # Not Path.exists: it raises for names that are too long.
    if os.path.exists(out) and not out.is_dir():
        raise ExistingFileError(f"{out} is a file. Name a folder for the capture.")
    check_writable(out)
    if not out.is_dir() or not any(out.iterdir()):
        return "new"
    known = _recorded_settings(out)
    if known is None:
        raise ExistingFileError(f"{out} is not empty and holds no tracked video. Name a new folder.")
    if known == settings:
        return "goes on"
    if not overwrite:
        raise ExistingFileError(
            f"{out} holds another video or other options. Name another folder, or add --overwrite to replace it."
        )
    return "replaces"


def check_own(out: Path) -> None:
    """Whether everything in a tracked capture's folder was written by a tracking.

    Raises:
        ExistingFileError: names what was not.
    """
    own = {*_FOLDERS, REPORT_FILE}
    foreign = sorted(
        path.name for path in out.iterdir() if path.name not in own and not re.fullmatch(_FILES, path.name)
    )
    if foreign:
        raise ExistingFileError(
            f"{out}: {foreign[0]} was not written by a tracking, and replacing the folder would delete it. Move it away, or "
            "name another folder."
        )


def begin_folder(out: Path, settings: dict[str, Any], state: FolderState) -> None:
    """Record whose the folder is; of a tracking that is replaced, delete what it wrote and nothing else."""
    if state == "goes on":
        return
    if state == "replaces":
        for name, pattern in _FOLDERS.items():
            for path in list((out / name).glob("*")):
                if re.fullmatch(pattern, path.name):
                    path.unlink()
        for path in _own_files(out):
            path.unlink()
    write_atomically(out / REPORT_FILE, (json.dumps({"settings": settings}, indent=2) + "\n").encode())


def continued_note(out: Path) -> str:
    """What the user is told of a folder in which a run with the same settings goes on."""
    landmarks = [path.name for path in out.iterdir() if re.fullmatch(_LANDMARKS, path.name)]
    images = sum(1 for _ in (out / "images").glob("*.png"))
    cameras = f" (cameras: {len(landmarks)})" if LANDMARKS_FILE not in landmarks else ""
    found = [f"landmarks{cameras}"] * bool(landmarks) + [f"images ({images})"] * bool(images)
    return f"Continuing in {out}: {' and '.join(found)} are there." if found else f"Beginning anew in {out}."


@functools.cache
def tracker_version() -> str:
    """Digest of this package's code and tables: no number has to be raised when the fit changes."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.rglob("*")):
        if path.is_file() and path.suffix != ".pyc":
            digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def write_report(out: Path, report: dict[str, Any]) -> None:
    """Write tracking.json with the mark that the folder is whole: the tracker's version, and a digest of what was written."""
    report["finished"] = {"version": tracker_version(), "digest": _digest(out)}
    write_atomically(out / REPORT_FILE, (json.dumps(report, indent=2) + "\n").encode())


def is_finished(out: Path, settings: dict[str, Any]) -> bool:
    """Whether a folder holds the finished tracking of these settings, made by this version.

    Raises:
        SpoiltTrackingError: it was finished, and files were lost or changed since; or tracking.json is damaged.
    """
    if not out.is_dir() or not any(out.iterdir()):
        return False
    known = _recorded_settings(out)
    if known is None:
        check_own(out)
        raise SpoiltTrackingError(f"{out / REPORT_FILE}: is damaged or lost")
    if known != settings:
        return False
    mark = json.loads((out / REPORT_FILE).read_text()).get("finished")
    if not isinstance(mark, dict) or mark.get("version") != tracker_version():
        return False
    if mark.get("digest") != _digest(out):
        raise SpoiltTrackingError(f"{out}: files were lost or changed since it was written")
    return True


class SpoiltTrackingError(UserError):
    """A finished tracking whose files are no longer what was written."""


def _digest(out: Path) -> str:
    """Of all files that a tracking writes, but the preview, which is only looked at, and the report."""
    digest = hashlib.sha256()
    paths = [path for name in _FOLDERS for path in (out / name).glob("*")]
    paths += [path for path in _own_files(out) if path.name != PREVIEW_FILE]
    for path in sorted(path for path in paths if path.is_file()):
        digest.update(f"{path.relative_to(out).as_posix()}\0{path.stat().st_size}\0".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _own_files(out: Path) -> list[Path]:
    return [path for path in out.iterdir() if path.is_file() and re.fullmatch(_FILES, path.name)]


def _recorded_settings(out: Path) -> dict[str, Any] | None:
    """The settings in a folder's tracking.json; None if that is not ours."""
    try:
        settings = parse_json((out / REPORT_FILE).read_text())["settings"]
        return settings if {"video", "content", "head", "part", "size"} <= set(settings) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None
