"""The JSON and npz files of a capture, as VHAP exports them and GaussianAvatars reads them."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from jaxtyping import Float
from PIL import Image

from edit3dgs_ns.capture.cameras import FRONT_CAMERA, Camera

SPLITS = ("train", "val", "test")


def png_bytes(image: np.ndarray) -> bytes:
    """A PNG of a float image in [0, 1] (rounded to 8 bits) or of uint8 labels."""
    if image.dtype != np.uint8:
        image = np.rint(np.clip(image, 0.0, 1.0) * 255.0).astype(np.uint8)
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, format="png", compress_level=4)
    return stream.getvalue()


FLAME_ROWS = ("translation", "rotation", "neck_pose", "jaw_pose", "eyes_pose", "expr")
"""Keys of a per-frame npz that hold one row."""


def flame_param_bytes(
    frame: Mapping[str, np.ndarray],
    shape: Float[np.ndarray, " betas"],
    static_offset: Float[np.ndarray, "vertices 3"],
) -> bytes:
    """One frame's FLAME parameters as an npz with VHAP's keys and shapes.

    Args:
        frame: a vector for each of FLAME_ROWS: metres and radians (axis-angle).
        shape: shape coefficients.
        static_offset: metres.
    """
    rows = {name: np.asarray(frame[name], np.float32)[None] for name in FLAME_ROWS}
    stream = io.BytesIO()
    np.savez(stream, **rows, shape=np.asarray(shape, np.float32), static_offset=static_offset[None])
    return stream.getvalue()


def first_held_out(timesteps: int) -> int:
    """The timestep from which a single sequence is held out for test: the last fifth."""
    return timesteps - timesteps // 5


def split_of(camera: int, held_out: bool, num_cameras: int) -> str:
    """The split of an image: test is the held-out motion, val the front camera on the rest, train all others.

    The only camera of a monocular capture is trained on, and val stays empty, as in VHAP's exports.
    """
    if held_out:
        return "test"
    return "val" if camera == FRONT_CAMERA and num_cameras > 1 else "train"


def frame_entry(
    prefix: str, folder: str, timestep: int, index: int, number: int, camera: Camera, single: bool
) -> dict[str, Any]:
    """One entry of `frames`.

    Args:
        prefix: "" inside the sequence's own folder, "../" in a combined set.
        folder: the sequence's folder.
        timestep: number in the file names.
        index: timestep_index.
        number: the camera's number in file names; its camera_index too, so that 8 is always the front.
        single: also write the keys that combined sets lack.
    """
    base = f"{prefix}{folder}/" if prefix else ""
    fx, fy = float(camera.K[0, 0]), float(camera.K[1, 1])
    entry: dict[str, Any] = {
        "timestep_index": index,
        "camera_index": number,
        "camera_id": f"{number:02d}",
        "cx": float(camera.K[0, 2]),
        "cy": float(camera.K[1, 2]),
        "fl_x": fx,
        "fl_y": fy,
        "h": camera.height,
        "w": camera.width,
        "camera_angle_x": 2 * math.atan(camera.width / (2 * fx)),
        "camera_angle_y": 2 * math.atan(camera.height / (2 * fy)),
        "transform_matrix": camera.c2w.tolist(),
        "file_path": f"{base}images/{timestep:05d}_{number:02d}.png",
        "fg_mask_path": f"{base}fg_masks/{timestep:05d}_{number:02d}.png",
        "flame_param_path": f"{base}flame_param/{timestep:05d}.npz",
    }
    if single:
        entry |= {"timestep_index_original": timestep, "timestep_id": f"frame_{timestep:05d}"}
    return entry


def transforms_text(
    entries: Iterable[dict[str, Any]],
    cameras: dict[int, Camera],
    head: str,
    motion_file: str | None = None,
    *,
    principal_point: bool = False,
    fps: float | None = None,
) -> str:
    """A transforms file.

    Args:
        entries: the frames.
        cameras: one of them gives the shared intrinsics.
        head: "open-head", or another name for FLAME.
        motion_file: the npz of all timesteps, where frames have no file of their own.
        fps: timesteps a second, if they are those of a video.
        principal_point: say that cy counts from the top edge. Without it, readers take the images' centres.
    """
    frames = list(entries)
    first = next(iter(cameras.values()))
    fx, fy = float(first.K[0, 0]), float(first.K[1, 1])
    content = {
        "cx": float(first.K[0, 2]),
        "cy": float(first.K[1, 2]),
        "fl_x": fx,
        "fl_y": fy,
        "h": first.height,
        "w": first.width,
        "camera_angle_x": 2 * math.atan(first.width / (2 * fx)),
        "camera_angle_y": 2 * math.atan(first.height / (2 * fy)),
        "head": head,
        "timestep_indices": sorted({f["timestep_index"] for f in frames}),
        "camera_indices": sorted({f["camera_index"] for f in frames}),
        "frames": frames,
    }
    if fps is not None:
        content["fps"] = fps
    if principal_point:
        content["cy_from"] = "top"
    if motion_file is not None:
        content["flame_param_path"] = motion_file
    return json.dumps(content, indent=1) + "\n"
