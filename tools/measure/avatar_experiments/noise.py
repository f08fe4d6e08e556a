"""A capture whose tracker was wrong: the same images, with perturbed expression and pose parameters."""

from __future__ import annotations

import io
import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from edit3dgs_ns.files import write_durably

SPLITS = ("train", "val", "test")
_PICTURES = {"file_path": "images", "fg_mask_path": "fg_masks"}
_JOINTS = {"rotation": 1, "neck_pose": 1, "jaw_pose": 1, "eyes_pose": 2}


def perturbed(
    frame: dict[str, np.ndarray], rng: np.random.Generator, degrees: float, expression: float
) -> dict[str, np.ndarray]:
    """The parameters of one timestep with errors.

    Args:
        frame: arrays of a VHAP frame file; poses axis-angle in radians.
        rng: where the errors come from.
        degrees: length of the error of each joint's axis-angle vector, in a random direction.
        expression: standard deviation of the error of each expression coefficient.
    """
    result = dict(frame)
    for name, joints in _JOINTS.items():
        error = _unit_vectors(rng, joints) * np.radians(degrees)
        result[name] = (frame[name] + error.reshape(frame[name].shape)).astype(np.float32)
    noise = rng.normal(0.0, expression, frame["expr"].shape)
    result["expr"] = (frame["expr"] + noise).astype(np.float32)
    return result


def _unit_vectors(rng: np.random.Generator, count: int) -> Float[np.ndarray, "count 3"]:
    directions = rng.normal(size=(count, 3))
    return directions / np.linalg.norm(directions, axis=1, keepdims=True)


def write_noisy_capture(
    capture: Path, out: Path, degrees: float = 1.0, expression: float = 0.1, seed: int = 0
) -> Path:
    """Write a capture with the images of another (hard links where possible) and perturbed parameters.

    Args:
        capture: folder with transforms_{train,val,test}.json.
        out: folder to write; what is in it is replaced.

    Returns:
        `out`, a capture of its own.
    """
    rng = np.random.default_rng(seed)
    for folder in ("flame_param", *_PICTURES.values()):
        (out / folder).mkdir(parents=True, exist_ok=True)
    written: dict[Path, str] = {}
    for split in SPLITS:
        content = json.loads((capture / f"transforms_{split}.json").read_text(encoding="utf-8"))
        for frame in content["frames"]:
            source = (capture / frame["flame_param_path"]).resolve()
            if source not in written:
                written[source] = f"flame_param/{len(written):05d}.npz"
                values = perturbed(_read(source), rng, degrees, expression)
                write_durably(out / written[source], _npz(values))
            frame["flame_param_path"] = written[source]
            for key, folder in _PICTURES.items():
                frame[key] = _link(capture / frame[key], out, folder)
        write_durably(out / f"transforms_{split}.json", json.dumps(content).encode())
    canonical = capture / "canonical_flame_param.npz"
    if canonical.is_file():
        write_durably(out / canonical.name, canonical.read_bytes())
    return out


def _link(picture: Path, out: Path, folder: str) -> str:
    """Make a picture of `<sequence>/<folder>/<name>` part of `out`; returns its path there."""
    name = f"{folder}/{picture.resolve().parents[1].name}_{picture.name}"
    target = out / name
    if not target.exists():
        try:
            os.link(picture, target)
        except OSError:  # another file system
            shutil.copyfile(picture, target)
    return name


def _read(path: Path) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}


def _npz(values: dict[str, Any]) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **values)
    return buffer.getvalue()
