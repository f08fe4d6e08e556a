"""The capture that `edit3dgs track` makes of a synthetic person's video, and the same images with the true parameters."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np

from edit3dgs_ns.capture.cameras import Camera
from edit3dgs_ns.capture.layout import (
    SPLITS,
    first_held_out,
    flame_param_bytes,
    frame_entry,
    split_of,
    transforms_text,
)
from edit3dgs_ns.files import write_durably
from edit3dgs_ns.flame.assets import FlameAssets
from edit3dgs_ns.tracking.job import TrackingResult, track_video
from edit3dgs_ns.tracking.output import TrackingOptions
from tools.measure.tracking.people import Truth


def tracked_capture(video: Path, out: Path, head: FlameAssets, size: int) -> tuple[TrackingResult, float]:
    """Tracks a video anew; also returns the seconds that everything took."""
    start = time.monotonic()
    result = track_video(video, out, head, TrackingOptions(size=size), overwrite=True)
    return result, time.monotonic() - start


def true_capture(tracked: Path, result: TrackingResult, truth: Truth, out: Path) -> Path:
    """The images and masks of a tracked capture (hard links) with the true parameters and camera; returns its folder."""
    camera = cropped(truth.camera, result.report["crop"])
    for kind in ("images", "fg_masks"):
        (out / kind).mkdir(parents=True, exist_ok=True)
        for path in (tracked / kind).glob("*.png"):
            if not (out / kind / path.name).exists():
                os.link(path, out / kind / path.name)
    motion = truth.motion
    assert motion.static_offset is not None
    shape, offset = motion.shape.numpy(), motion.static_offset.numpy()
    names = ("expr", "rotation", "neck_pose", "jaw_pose", "eyes_pose", "translation")
    for t, frame in enumerate(result.frames):
        row = {name: getattr(motion, name)[frame].numpy() for name in names}
        write_durably(out / "flame_param" / f"{t:05d}.npz", flame_param_bytes(row, shape, offset))
    rest = {name: np.zeros_like(getattr(motion, name)[0].numpy()) for name in names}
    write_durably(out / "canonical_flame_param.npz", flame_param_bytes(rest, shape, offset))
    _write_transforms(out, len(result.frames), camera, truth.head)
    return out


def cropped(camera: Camera, crop: dict) -> Camera:
    """The camera of the square that a tracking has cut out of the frames."""
    size = int(crop["size"])
    scale = size / crop["side"]
    K = camera.K.copy()
    K[0, 2], K[1, 2] = K[0, 2] - crop["left"], K[1, 2] - crop["top"]
    K[:2] *= scale
    return Camera(camera.c2w, K, size, size)


def _write_transforms(out: Path, count: int, camera: Camera, head: FlameAssets) -> None:
    held_out_from = first_held_out(count)
    entries: dict[str, list] = {split: [] for split in SPLITS}
    for t in range(count):
        entry = frame_entry("", out.name, t, t, 0, camera, single=True)
        entries[split_of(0, t >= held_out_from, 1)].append(entry)
    for split in SPLITS:
        text = transforms_text(entries[split], {0: camera}, head.name, principal_point=True)
        write_durably(out / f"transforms_{split}.json", text.encode())
