"""A capture of an avatar: rendered views in the layout of a real capture, for avatars that came without theirs.

`ns-viewer`, `ns-render` and `ns-train edit3dgs` need cameras and images. The images are renders, so nothing can be learnt about the
person from them, and figures measured on them mean nothing; but edits start from renders anyway.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from edit3dgs_ns.capture.cameras import FRONT_CAMERA, Camera, arc_cameras, arc_indices
from edit3dgs_ns.capture.layout import SPLITS, frame_entry, png_bytes, split_of, transforms_text
from edit3dgs_ns.errors import UserError
from edit3dgs_ns.files import write_atomically
from edit3dgs_ns.flame.rotations import axis_angle_to_matrix
from edit3dgs_ns.splats.binding import local_to_world
from edit3dgs_ns.splats.ply import BoundGaussians
from edit3dgs_ns.splats.rasterize import rasterize
from edit3dgs_ns.splats.rig import TrackedHead
from edit3dgs_ns.splats.views import viewmats_from_c2w

_MARGIN = 1.3
"""The image's height or width in head sizes."""


@dataclass(frozen=True)
class ViewSettings:
    """Which views of an avatar are rendered."""

    cameras: int = 8
    """In front of the head, 1 to 16; the front camera is held out, unless it is the only one."""
    timesteps: int = 8
    """Spread over the motion; between them as many are held out, seen from the front."""
    resolution: tuple[int, int] = (512, 512)
    """Width and height in pixels."""

    def check(self) -> None:
        """Raises a ValueError for settings that make no capture."""
        if self.cameras < 1 or self.timesteps < 1 or min(self.resolution) < 16:
            width, height = self.resolution
            raise UserError(
                f"--cameras {self.cameras} --timesteps {self.timesteps} --resolution {width} {height}: expected at least one "
                "camera, one timestep and 16 pixels."
            )


def write_avatar_capture(
    folder: Path,
    gaussians: BoundGaussians,
    head: TrackedHead,
    settings: ViewSettings,
    *,
    motion_file: str,
    head_name: str,
    progress: Callable[[Iterator[int], int], Iterator[int]] = lambda steps, total: steps,
) -> None:
    """Writes images, masks and transforms files.

    Args:
        folder: the capture; made if it does not exist.
        gaussians: of the avatar.
        head: with the avatar's motion.
        settings: which views.
        motion_file: the npz with all timesteps, relative to `folder`.
        head_name: goes into the transforms files: "open-head", or another name for FLAME.
        progress: wraps the timesteps that are being rendered.

    Raises:
        ValueError: settings that make no capture.
    """
    settings.check()
    trained, held_out = choose_timesteps(head.num_timesteps, settings.timesteps)
    numbers = arc_indices(settings.cameras)
    cameras = dict(zip(numbers, cameras_around(head, trained, settings), strict=True))
    frames: dict[str, list[dict[str, Any]]] = {split: [] for split in SPLITS}
    steps = sorted(trained + held_out)
    for timestep in progress(iter(steps), len(steps)):
        shown = {FRONT_CAMERA: cameras[FRONT_CAMERA]} if timestep in held_out else cameras
        for number, image in zip(shown, render(gaussians, head, timestep, list(shown.values())), strict=True):
            entry = frame_entry("", "", timestep, timestep, number, cameras[number], single=True)
            del entry["flame_param_path"]  # named once, for all
            write_atomically(folder / entry["file_path"], png_bytes(image[..., :3]))
            write_atomically(folder / entry["fg_mask_path"], png_bytes(image[..., 3]))
            frames[split_of(number, timestep in held_out, settings.cameras)].append(entry)
    for split, entries in frames.items():
        text = transforms_text(entries, cameras, head_name, motion_file)
        write_atomically(folder / f"transforms_{split}.json", text.encode())


def choose_timesteps(available: int, wanted: int) -> tuple[list[int], list[int]]:
    """Timesteps spread over a motion, and the held-out ones halfway between them."""
    trained = sorted({round(place) for place in np.linspace(0, available - 1, min(wanted, available))})
    between = {(a + b) // 2 for a, b in pairwise(trained)}
    return trained, sorted(between - set(trained))


def cameras_around(head: TrackedHead, timesteps: list[int], settings: ViewSettings) -> list[Camera]:
    """The arc of a capture's cameras in front of the face, where it mostly looks, a metre away."""
    with torch.no_grad():
        vertices = head.vertices(torch.tensor(timesteps, device=head.shape.device)).cpu().double().numpy()
        turns = axis_angle_to_matrix(head.pose["rotation"][timesteps]).cpu().double().numpy()
    # The rotation nearest to the mean of rotation matrices (Moakher 2002, "Means and averaging in the group of rotations").
    u, _, vt = np.linalg.svd(turns.mean(axis=0))
    world_from_face = u @ np.diag([1.0, 1.0, np.sign(np.linalg.det(u @ vt))]) @ vt
    seen = vertices @ world_from_face  # in the axes of the face
    low, high = seen.min(axis=(0, 1)), seen.max(axis=(0, 1))
    height = max(high[1] - low[1], 1.2 * (high[0] - low[0]))
    width, rows = settings.resolution
    arc = arc_cameras(settings.cameras, width, rows, np.zeros(3), _MARGIN * height)
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = world_from_face, world_from_face @ (low + high) / 2
    return [Camera(pose @ camera.c2w, camera.K, camera.width, camera.height) for camera in arc]


@torch.no_grad()
def render(
    gaussians: BoundGaussians, head: TrackedHead, timestep: int, cameras: list[Camera]
) -> Float[np.ndarray, "views height width 4"]:
    """RGB on white and coverage, in [0, 1], of cameras of one size at one timestep."""
    device = head.shape.device

    def on_device(arrays: list[np.ndarray]) -> Tensor:
        return torch.from_numpy(np.stack(arrays)).float().to(device)

    frames = head.frames_at(timestep / max(head.num_timesteps - 1, 1))
    world = local_to_world(gaussians.means, gaussians.quats, gaussians.scales, gaussians.binding, frames)
    image, alpha, _ = rasterize(
        world.means,
        world.quats,
        world.scales,
        torch.sigmoid(gaussians.opacities[:, 0]),
        torch.cat([gaussians.features_dc[:, None], gaussians.features_rest], dim=1),
        viewmats_from_c2w(on_device([camera.c2w for camera in cameras])),
        on_device([camera.K for camera in cameras]),
        cameras[0].width,
        cameras[0].height,
        sh_degree=gaussians.sh_degree,
        backgrounds=torch.ones(len(cameras), 3, device=device),
    )
    return torch.cat([image, alpha], dim=-1).clamp(0, 1).cpu().numpy()
