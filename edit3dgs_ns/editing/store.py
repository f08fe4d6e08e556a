"""The edited images on disk: one PNG and one JSON record per edited view, never half-written.

    <folder>/manifest.json                    the settings that all edits in this folder share
    <folder>/notes.json                       decisions that were made on the way, if there were any
    <folder>/00003_00120.png                  round 3, training image 120
    <folder>/00003_00120.json                 its record; it is written last, and without it there is no edit

Files appear under their names complete: they are written beside, flushed to the disk, and renamed. File names
    are made from numbers only, and records are looked up by those names: nothing in a record is ever used as
    a path.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from edit3dgs_ns.editing.editor import check_finite
from edit3dgs_ns.errors import UserError
from edit3dgs_ns.files import write_durably
from edit3dgs_ns.untrusted import parse_json

logger = logging.getLogger(__name__)

_MANIFEST = "manifest.json"
_NOTES = "notes.json"
_TEMPORARY = ".part"
_RECORD = re.compile(r"(\d{5,9})_(\d{5,9})\.json")
_OVERSHOOT = 0.5
"""By which values may leave [0, 1] before they are clipped."""
_IMAGE = re.compile(r"(\d{5,9})_(\d{5,9})\.png")


@dataclass(frozen=True, order=True)
class EditKey:
    """An edited view: the round and the index of the training image."""

    round: int
    view: int

    @property
    def stem(self) -> str:
        """File name without its ending."""
        return f"{self.round:05d}_{self.view:05d}"


class EditStore:
    """Edits made with one set of settings.

    Opening one's own removes what a killed writer left behind.

    Args:
        folder: where it is; made if it is not there.
        settings: JSON values that all edits share: prompt, editor, seed, ...
        is_own: whether it is written here; else nothing in the folder is changed: another process may be writing it.

    Raises:
        ValueError: the folder holds edits made with other settings; the message names the first that differ.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any], *, is_own: bool = True):
        self.folder = Path(folder)
        self.settings = json.loads(json.dumps(dict(settings)))
        if is_own:
            self.folder.mkdir(parents=True, exist_ok=True)
        self._check_manifest(is_own)
        if is_own:
            self._sweep()
        self._records = self._read_records()
        notes = self.folder / _NOTES
        self._notes: dict[str, Any] = _read_object(notes) if notes.is_file() else {}

    @classmethod
    def for_settings(cls, root: Path, settings: Mapping[str, Any]) -> EditStore:
        """The store for these settings among several in `root`: a folder of its own, named by their hash."""
        return cls(Path(root) / settings_hash(settings), settings)

    def __len__(self) -> int:
        return len(self._records)

    def __contains__(self, key: EditKey) -> bool:
        return key in self._records

    def edits(self) -> list[EditKey]:
        """All edits, by round and view."""
        return sorted(self._records)

    def record(self, key: EditKey) -> dict[str, Any]:
        """The record that was stored with the edit."""
        return dict(self._records[key])

    def latest(self, before_round: int | None = None) -> dict[int, EditKey]:
        """The newest edit of every view, of the rounds before `before_round`."""
        return {key.view: key for key in self.edits() if before_round is None or key.round < before_round}

    def put(
        self,
        key: EditKey,
        image: Float[np.ndarray, "height width 3"],
        record: Mapping[str, Any] | None = None,
    ) -> None:
        """Store an edited view; once this returns it survives a crash.

        Args:
            image: in [0, 1]; stored with 8 bits.
            record: JSON values to keep with it.

        Raises:
            UserError: this is no image, the image or the record holds a number that is not finite, or the disk is full, cannot be
                written or gives back something else than was written. Nothing is stored then.
        """
        _check_image(image, key)
        buffer = io.BytesIO()
        Image.fromarray(np.round(np.clip(image, 0, 1) * 255).astype(np.uint8)).save(buffer, format="PNG")
        data = buffer.getvalue()
        entry = {
            **dict(record or {}),
            "round": key.round,
            "view": key.view,
            "sha256": hashlib.sha256(data).hexdigest(),
        }
        try:
            text = _to_json(entry)
        except ValueError as error:  # JSON has no NaN
            raise UserError(f"Edit {key.stem}: its record cannot be stored: {error}.") from error
        self._records.pop(key, None)  # a former edit is gone as soon as its image is replaced
        try:
            write_durably(self._path(key, "png"), data)
            self._checked_bytes(key, entry)
            write_durably(self._path(key, "json"), text)
        except OSError as error:
            raise UserError(
                f"{self._path(key, 'png')}: this edit cannot be stored ({error.strerror or error}). Make room or name another "
                "--output-dir, then go on with --load-dir: no edit that was stored before is lost."
            ) from error
        self._records[key] = entry

    def get(self, key: EditKey) -> UInt8[np.ndarray, "height width 3"]:
        """The edited view.

        Raises:
            KeyError: it is not in the store.
            UserError: its file was changed or lost since.
        """
        if key not in self._records:
            raise KeyError(f"{self.folder} holds no edit {key.stem}.")
        with Image.open(io.BytesIO(self._checked_bytes(key, self._records[key]))) as image:
            return np.asarray(image.convert("RGB"))

    def take_note(self, name: str, value: Mapping[str, Any]) -> None:
        """Keep a decision that all further edits depend on; once this returns it survives a crash."""
        self._notes[name] = dict(value)
        write_durably(self.folder / _NOTES, _to_json(self._notes))

    def note(self, name: str) -> dict[str, Any] | None:
        """What was kept under a name."""
        return self._notes.get(name)

    def discard(self, key: EditKey) -> None:
        """Remove an edit; one that is not there is none to remove."""
        if self._records.pop(key, None) is not None:
            # Without its record an image is no edit, and is swept away.
            self._path(key, "json").unlink(missing_ok=True)
            self._path(key, "png").unlink(missing_ok=True)

    def copy_from(self, other: EditStore) -> int:
        """Take over all edits of a store with the same settings that are not here yet.

        Returns:
            How many were taken.

        Raises:
            ValueError: the settings differ.
        """
        if other.settings != self.settings:
            raise UserError(
                f"{other.folder} holds edits made with other settings than {self.folder}: "
                f"{_first_difference(other.settings, self.settings)}."
            )
        for name in other._notes.keys() - self._notes.keys():
            self.take_note(name, other._notes[name])
        new = [key for key in sorted(other._records) if key not in self]
        for key in new:
            entry = other.record(key)
            write_durably(self._path(key, "png"), other._checked_bytes(key, entry))
            write_durably(self._path(key, "json"), _to_json(entry))
            self._records[key] = entry
        return len(new)

    def _path(self, key: EditKey, ending: str) -> Path:
        if key.round < 0 or key.view < 0:
            raise UserError(f"{key}: expected numbers of at least 0.")
        return self.folder / f"{key.stem}.{ending}"

    def _checked_bytes(self, key: EditKey, entry: Mapping[str, Any]) -> bytes:
        """The file of an edit, if it is the one that was written.

        Raises:
            UserError: it is not, or cannot be read.
        """
        path = self._path(key, "png")
        try:
            data = path.read_bytes()
            what = "was changed" if hashlib.sha256(data).hexdigest() != entry["sha256"] else ""
        except OSError as error:
            what = f"cannot be read ({error.strerror})"
        if what:
            raise UserError(
                f"The stored edit {path} {what} since it was written, and is not trained on. Go on with --load-dir: this view is "
                "then edited anew. If it happens again, the disk is failing."
            )
        return data

    def _check_manifest(self, is_own: bool) -> None:
        path = self.folder / _MANIFEST
        if not path.is_file():
            if is_own:
                content = {"hash": settings_hash(self.settings), "settings": self.settings}
                write_durably(path, _to_json(content))
            return
        stored = _read_object(path).get("settings", {})
        if stored != self.settings:
            raise UserError(
                f"{self.folder} holds edits made with other settings: {_first_difference(stored, self.settings)}. "
                "Use the same settings, another folder, or delete it."
            )

    def _sweep(self) -> None:
        """Remove what a killed write left: unfinished files, and images whose record was never written."""
        for path in self.folder.glob(f"*{_TEMPORARY}"):
            path.unlink()
        for path in self.folder.glob("*.png"):
            if _IMAGE.fullmatch(path.name) and not path.with_suffix(".json").exists():
                path.unlink()

    def _read_records(self) -> dict[EditKey, dict[str, Any]]:
        records = {}
        for path in sorted(self.folder.glob("*.json")):
            match = _RECORD.fullmatch(path.name)
            if match is None:
                continue
            key = EditKey(int(match[1]), int(match[2]))
            entry = self._intact(path)
            if entry is not None:
                records[key] = entry
        return records

    def _intact(self, record: Path) -> dict[str, Any] | None:
        """The record, if it can be read and its image is the one it was written for. A damaged edit is made
        anew: say so."""
        try:
            entry = _read_object(record)
            data = record.with_suffix(".png").read_bytes()
        except (OSError, ValueError) as error:
            logger.warning("The stored edit %s is damaged and will be made again: %s", record, error)
            return None
        if hashlib.sha256(data).hexdigest() != entry.get("sha256"):
            logger.warning(
                "The stored edit %s is damaged and will be made again: the image was changed.",
                record.with_suffix(".png"),
            )
            return None
        return entry


def _check_image(image: Float[np.ndarray, "height width 3"], key: EditKey) -> None:
    """Raises a UserError for anything but a float image with values in [0, 1]; editors may overshoot a little."""
    if image.ndim != 3 or image.shape[-1] != 3 or not image.size:
        raise UserError(f"Edit {key.stem}: expected an image (height, width, 3), found {image.shape}.")
    if image.dtype.kind != "f":
        raise UserError(f"Edit {key.stem}: expected floats in [0, 1], found {image.dtype}.")
    check_finite(image, key.view)
    low, high = float(image.min()), float(image.max())
    if low < -_OVERSHOOT or high > 1 + _OVERSHOOT:
        raise UserError(
            f"Edit {key.stem}: expected an image with values in [0, 1], found {low:.4g} to {high:.4g}. The editor returns another "
            "range, like 0 to 255: it has to divide."
        )


def settings_hash(settings: Mapping[str, Any]) -> str:
    """A short name for a set of settings, independent of their order."""
    return hashlib.sha256(json.dumps(dict(settings), sort_keys=True).encode()).hexdigest()[:12]


def _to_json(content: Mapping[str, Any]) -> bytes:
    return (json.dumps(content, indent=1, sort_keys=True, allow_nan=False) + "\n").encode()


def _read_object(path: Path) -> dict[str, Any]:
    try:
        content = parse_json(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path} is not valid JSON: {error}.") from error
    if not isinstance(content, dict):
        raise UserError(f"{path}: expected a JSON object, found a {type(content).__name__}.")
    return content


def _first_difference(one: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    for name in sorted({*one, *other}):
        if one.get(name) != other.get(name):
            return f"{name} was {one.get(name)!r} and is now {other.get(name)!r}"
    return "nothing differs"
