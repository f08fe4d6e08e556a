"""A small capture in the on-disk layout of VHAP, written by the tests themselves: a head, ray cast, simply shaded.

The head is the open one, or that of FLAME_MODEL_PATH.

Independent of `edit3dgs_ns.capture`, so that the plugin's tests do not rest on it.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import trimesh
from PIL import Image

from edit3dgs_ns.flame.assets import FlameAssets
from edit3dgs_ns.flame.loading import load_assets
from edit3dgs_ns.flame.model import FlameModel

SEQUENCES = ("EMO-1", "EXP-2", "SEN-01")
UNION = "UNION10_test"


@dataclass(frozen=True)
class TinyCapture:
    """What `write_tiny_capture` wrote."""

    root: Path
    union: Path
    cameras: int
    timesteps: int
    """Per sequence; the last sequence is the test split."""
    size: int


def write_tiny_capture(
    root: Path, size: int = 48, cameras: int = 4, timesteps: int = 3, samples: int = 2, offset: bool = True
) -> TinyCapture:
    """Two training sequences and an unseen one, one folder each, and the combined set beside them.

    Camera `cameras // 2` is the front camera: validation on the training timesteps.
    """
    assets = load_assets()
    model = FlameModel.from_assets(assets)
    rng = np.random.default_rng(7)
    static = {
        "shape": rng.normal(0, 0.3, assets.shapedirs.shape[2]).astype(np.float32) * 0,
        "static_offset": (np.zeros((1, len(assets.v_template), 3)) if offset else np.zeros((1, 0, 3))).astype(
            np.float32
        ),
    }
    rig = [_camera(azimuth, 0.08, size) for azimuth in np.linspace(-0.7, 0.7, cameras)]
    colors = _face_colors(assets)
    total = timesteps * len(SEQUENCES)
    splits: dict[str, list[dict[str, Any]]] = {"train": [], "val": [], "test": []}
    for number, sequence in enumerate(SEQUENCES):
        own: dict[str, list[dict[str, Any]]] = {"train": [], "val": [], "test": []}
        folder = root / sequence
        for name in ("images", "fg_masks", "flame_param"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        for t in range(timesteps):
            index = number * timesteps + t
            frame = {**static, **_pose(index, total, assets)}
            np.savez(folder / "flame_param" / f"{t:05d}.npz", **frame)
            vertices = _vertices(model, frame)
            mesh = trimesh.Trimesh(vertices, assets.faces, process=False)
            for cam, (c2w, focal) in enumerate(rig):
                stem = f"{t:05d}_{cam:02d}.png"
                image, mask = _render(mesh, colors, c2w, focal, size, samples)
                Image.fromarray(image).save(folder / "images" / stem)
                Image.fromarray(mask).save(folder / "fg_masks" / stem)
                entry = {
                    "timestep_index": index,
                    "timestep_id": f"{t:05d}",
                    "camera_index": cam,
                    "camera_id": f"{cam:02d}",
                    "cx": size / 2,
                    "cy": size / 2,
                    "fl_x": focal,
                    "fl_y": focal,
                    "w": size,
                    "h": size,
                    "camera_angle_x": 2 * math.atan(size / 2 / focal),
                    "camera_angle_y": 2 * math.atan(size / 2 / focal),
                    "transform_matrix": c2w.tolist(),
                    "file_path": f"images/{stem}",
                    "fg_mask_path": f"fg_masks/{stem}",
                    "flame_param_path": f"flame_param/{t:05d}.npz",
                }
                unseen = number == len(SEQUENCES) - 1
                split = "test" if unseen else "val" if cam == cameras // 2 else "train"
                own["val" if cam == cameras // 2 else "train"].append({**entry, "timestep_index": t})
                union_paths = {k: f"../{sequence}/{v}" for k, v in entry.items() if k.endswith("_path")}
                splits[split].append(
                    {**{k: v for k, v in entry.items() if k != "timestep_id"}, **union_paths}
                )
        _write_transforms(folder, own)
    _write_transforms(root / UNION, splits)
    return TinyCapture(root, root / UNION, cameras, timesteps, size)


def _write_transforms(folder: Path, splits: dict[str, list[dict[str, Any]]]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for split, frames in splits.items():
        content = {
            "timestep_indices": sorted({f["timestep_index"] for f in frames}),
            "camera_indices": sorted({f["camera_index"] for f in frames}),
            "frames": frames,
        }
        (folder / f"transforms_{split}.json").write_text(json.dumps(content))


def _pose(index: int, total: int, assets: FlameAssets) -> dict[str, np.ndarray]:
    """A smooth motion: jaw, smile, blinking, nodding; phases differ between sequences."""
    phase = 2 * math.pi * index / total
    smile, brows = 0.5 + 0.5 * math.sin(2 * phase), 0.5 - 0.5 * math.cos(3 * phase)
    blink = max(0.0, math.sin(5 * phase)) ** 4
    if assets.expression_names is None:  # FLAME's have no names
        expr = np.zeros(assets.exprdirs.shape[2], np.float32)
        expr[:3] = smile, brows, blink
    else:
        expr = np.zeros(len(assets.expression_names), np.float32)
        for name, value in {
            "mouthSmileLeft": smile,
            "mouthSmileRight": smile,
            "browInnerUp": brows,
            "eyeBlinkLeft": blink,
            "eyeBlinkRight": blink,
        }.items():
            expr[assets.expression_index(name)] = value

    def row(*values: float) -> np.ndarray:
        return np.array([values], np.float32)

    gaze = 0.2 * math.sin(3 * phase)
    return {
        "expr": expr[None],
        "rotation": row(0.05 * math.sin(phase), 0.15 * math.cos(phase), 0.0),
        "neck_pose": row(0.05 * math.cos(2 * phase), 0.0, 0.0),
        "jaw_pose": row(0.12 - 0.12 * math.cos(4 * phase), 0.0, 0.0),
        "eyes_pose": row(0.0, gaze, 0.0, 0.0, gaze, 0.0),
        "translation": row(0.0, 0.005 * math.sin(phase), 0.0),
    }


def _vertices(model: FlameModel, frame: dict[str, np.ndarray]) -> np.ndarray:
    tensors = {k: torch.from_numpy(v) for k, v in frame.items() if k not in ("shape", "static_offset")}
    offset = torch.from_numpy(frame["static_offset"][0]) if frame["static_offset"].size else None
    return model(torch.from_numpy(frame["shape"]), offset, **tensors)[0].numpy()


def _camera(azimuth: float, elevation: float, size: int) -> tuple[np.ndarray, float]:
    target = np.array([0.0, -0.02, -0.03])
    back = np.array(
        [
            math.sin(azimuth) * math.cos(elevation),
            math.sin(elevation),
            math.cos(azimuth) * math.cos(elevation),
        ]
    )
    right = np.cross([0.0, 1.0, 0.0], back)
    right /= np.linalg.norm(right)
    c2w = np.eye(4)
    c2w[:3, 0], c2w[:3, 1], c2w[:3, 2], c2w[:3, 3] = right, np.cross(back, right), back, target + back
    return c2w, size / 0.42


def _face_colors(assets: FlameAssets) -> np.ndarray:
    """Skin with freckles, and other colours by region: enough detail that sharpness can be measured."""
    centres = assets.v_template[assets.faces].mean(axis=1)
    tone = 0.06 * np.sin(centres @ np.array([400.0, 330.0, 290.0]))[:, None]
    colors = np.array([0.78, 0.58, 0.48]) + tone
    for region, color in {
        "scalp": (0.25, 0.16, 0.1),
        "lips": (0.72, 0.3, 0.32),
        "brows": (0.2, 0.13, 0.1),
        "eyes": (0.93, 0.93, 0.92),
        "iris": (0.25, 0.4, 0.5),
        "pupil": (0.03, 0.03, 0.03),
        "teeth": (0.95, 0.92, 0.85),
        "mouth": (0.45, 0.15, 0.15),
        "tongue": (0.7, 0.35, 0.35),
    }.items():
        if region in assets.face_regions:
            colors[assets.face_regions[region]] = np.array(color)
    for region in ("teeth", "tongue"):
        if region in assets.face_regions:
            colors[assets.face_regions[region]] = {"teeth": (0.95, 0.92, 0.85), "tongue": (0.7, 0.35, 0.35)}[
                region
            ]
    return colors.clip(0, 1)


def _render(
    mesh: trimesh.Trimesh, colors: np.ndarray, c2w: np.ndarray, focal: float, size: int, samples: int
) -> tuple[np.ndarray, np.ndarray]:
    """Image on white and mask, uint8; `samples` x `samples` rays a pixel."""
    fine = size * samples
    axis = (np.arange(fine) + 0.5) / samples - size / 2
    x, y = np.meshgrid(axis, -axis)
    directions = np.stack([x / focal, y / focal, -np.ones_like(x)], axis=-1).reshape(-1, 3) @ c2w[:3, :3].T
    origins = np.broadcast_to(c2w[:3, 3], directions.shape)
    hit = mesh.ray.intersects_first(origins, directions)
    normals = mesh.face_normals
    light = np.clip(normals @ np.array([0.3, 0.6, 0.75]) / np.linalg.norm([0.3, 0.6, 0.75]), 0, 1)
    shaded = colors * (0.55 + 0.45 * light[:, None])
    image = (
        np.where((hit >= 0)[:, None], shaded[hit], 1.0)
        .reshape(size, samples, size, samples, 3)
        .mean(axis=(1, 3))
    )
    mask = (hit >= 0).reshape(size, samples, size, samples).mean(axis=(1, 3))
    return (image * 255).round().astype(np.uint8), (mask * 255).round().astype(np.uint8)
