"""Settings of a synthetic capture; saved beside it as capture.json, so that it can be continued and rendered
again.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np

from edit3dgs_ns.capture.cameras import Camera, arc_cameras, arc_indices
from edit3dgs_ns.errors import ExistingFileError, MissingFileError, UserError
from edit3dgs_ns.untrusted import parse_json

SETTINGS_FILE = "capture.json"
TARGET = (0.0, -0.012, -0.028)
"""What the cameras aim at, metres."""
EXTENT = 0.375
"""Metres of the image's height: the head with hair, and some of the shoulders."""
RENDERER_VERSION = 1
"""Goes up whenever the images of the same settings change: finished images of another version are not kept."""


@dataclass(frozen=True)
class CaptureSettings:
    """Everything that the files of a capture depend on, besides the head model."""

    seed: int = 0
    """Which person."""
    width: int = 256
    """Pixels."""
    height: int = 256
    """Pixels."""
    cameras: int = 16
    """1 to 16, always with the frontal one."""
    frames: int = 24
    """Timesteps of each sequence."""
    samples: int = 6
    """Rays through each pixel."""

    def validate(self) -> None:
        """Check ranges.

        Raises:
            ValueError: names the option, what was found and what was expected.
        """
        limits = {
            "seed": (0, 2**31 - 1),
            "width": (16, 8192),
            "height": (16, 8192),
            "cameras": (1, 16),
            "frames": (1, 5000),
            "samples": (1, 64),
        }
        for name, (low, high) in limits.items():
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
                raise UserError(f"{name}: found {value!r}, expected a whole number from {low} to {high}.")

    def rig(self) -> dict[int, Camera]:
        """The cameras by their number, which file names carry."""
        cameras = arc_cameras(self.cameras, self.width, self.height, np.array(TARGET), EXTENT)
        return dict(zip(arc_indices(self.cameras), cameras, strict=True))


def settings_text(settings: CaptureSettings, flame_model_path: Path | None) -> str:
    """capture.json's content."""
    from edit3dgs_ns.synthetic.canonical import canonical_head

    source = canonical_head(flame_model_path).assets.source
    record = {
        "settings": asdict(settings),
        "head": hashlib.sha256(Path(source).read_bytes()).hexdigest(),
        "look": RENDERER_VERSION,
    }
    return json.dumps(record, indent=2) + "\n"


def read_settings(capture: Path) -> CaptureSettings:
    """The settings of a capture that `write_capture` made.

    Raises:
        FileNotFoundError: no capture.json there.
        ValueError: it is not one of ours.
    """
    path = Path(capture) / SETTINGS_FILE
    if not path.is_file():
        raise MissingFileError(
            f"{path} is missing: {capture} was not written by `edit3dgs capture`. "
            "Name the folder that command was given."
        )
    try:
        record = parse_json(path.read_text())["settings"]
        settings = CaptureSettings(**{field.name: record[field.name] for field in fields(CaptureSettings)})
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise UserError(
            f"{path}: not the settings of a capture ({type(error).__name__}: {error}). "
            "Write the capture again."
        ) from error
    settings.validate()
    return settings


def check_capture_folder(out: Path, settings: CaptureSettings, overwrite: bool) -> None:
    """Raises a FileExistsError for a folder that a capture of these settings cannot be written to; loads no head model."""
    if out.exists() and not out.is_dir():
        raise ExistingFileError(f"{out} is a file. Name a folder for the capture.")
    if (out / SETTINGS_FILE).is_file():
        if not overwrite and read_settings(out) != settings:
            raise ExistingFileError(
                f"{out} holds a capture of other settings. Name another folder, or add --overwrite to replace it."
            )
    elif out.is_dir() and any(out.iterdir()):
        raise ExistingFileError(
            f"{out} is not empty and holds no capture of ours ({SETTINGS_FILE} is missing). Name a new folder."
        )
