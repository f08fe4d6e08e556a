"""The web page against our rasterizer: the same poses and cameras in a real Chromium and in `splats.rasterize`.

Poses are ones of the motion, expressions held over it by ARKit's names, and turned necks; a third of them from the side. Both
draw on white; compared are the pixels that the avatar covers in either image, so that an empty background cannot flatter.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Bool, Float

from edit3dgs_ns.flame.arkit import ARKIT_NAMES, gaze_of
from edit3dgs_ns.flame.model import FlamePose
from edit3dgs_ns.splats.rasterize import rasterize
from edit3dgs_ns.splats.views import viewmats_from_c2w
from edit3dgs_ns.web.scene import WebCamera, WebScene
from tools.measure.pages.browser import PageLog, chromium, new_page, screenshot, wait_for_frame

if TYPE_CHECKING:
    from edit3dgs_ns.splats.rigged_gaussians import RiggedGaussians

SIZE = (512, 512)
"""Pixels of the window."""
POSES = 30
COVERED = 0.02
"""A pixel shows the avatar where its alpha is more."""
_HELD: tuple[dict[str, float], ...] = (
    {"jawOpen": 1.0},
    {"mouthSmileLeft": 0.8, "mouthSmileRight": 0.8, "cheekSquintLeft": 0.4, "cheekSquintRight": 0.4},
    {"browInnerUp": 0.8, "eyeWideLeft": 0.7, "eyeWideRight": 0.7, "jawOpen": 0.5},
    {"eyeBlinkLeft": 1.0, "eyeBlinkRight": 1.0},
    {"mouthPucker": 1.0},
    {"browDownLeft": 1.0, "browDownRight": 1.0, "noseSneerLeft": 0.6, "noseSneerRight": 0.6},
    {"eyeLookOutLeft": 0.8, "eyeLookInRight": 0.8},
    {"eyeLookUpLeft": 0.7, "eyeLookUpRight": 0.7, "mouthLeft": 0.6},
    {"cheekPuff": 1.0, "mouthFunnel": 0.3},
    {"mouthFrownLeft": 0.9, "mouthFrownRight": 0.9, "tongueOut": 0.5},
)
_FROM_THE_SIDE = ((0.6, 0.0), (-0.6, 0.3), (0.3, -0.5))
"""Azimuth and elevation of the camera, in shares of the page's reach."""
_HIDDEN = (
    "for (const e of [document.querySelector('header'), ...['panel', 'controls'].map(byId)]) e.hidden = true"
)


@dataclass(frozen=True)
class Shot:
    """One pose from one camera."""

    frame: int
    held: dict[str, float] | None = None
    """An expression by ARKit's names; None: the motion's."""
    neck: tuple[float, float, float] | None = None
    """Axis-angle; None: the motion's."""
    side: tuple[float, float] = (0.0, 0.0)
    """Azimuth and elevation of the camera against the one in front, radians."""


@dataclass(frozen=True)
class Agreement:
    """Of page and rasterizer."""

    psnr: list[float] = field(default_factory=list)
    """Of each shot over the covered pixels, dB."""

    def report(self, page: Path) -> dict[str, float]:
        """Figures for outputs/share.json."""
        return {
            "worst_db": round(min(self.psnr), 2),
            "mean_db": round(mean(self.psnr), 2),
            "megabytes": round(page.stat().st_size / 1e6, 2),
            "poses": len(self.psnr),
        }


def shots(frames: int, camera: WebCamera, count: int = POSES) -> list[Shot]:
    """Poses of a motion of so many frames, expressions and necks, in turn."""
    made = []
    for number in range(count):
        frame = round(number * (frames - 1) / max(count - 1, 1))
        kind, turn = number % 3, number // 3
        held = _HELD[turn % len(_HELD)] if kind == 1 else None
        neck = (0.2 * math.sin(number), 0.4 * math.cos(number), 0.1) if kind == 2 else None
        share = _FROM_THE_SIDE[turn % 3] if turn % 3 == 0 or kind == 2 else (0.0, 0.0)
        side = share[0] * camera.reach[0], share[1] * camera.reach[1]
        made.append(Shot(frame, held, neck, side))
    return made


def measure_page(
    page: Path, avatar: RiggedGaussians, scene: WebScene, count: int = POSES, pictures: Path | None = None
) -> Agreement:
    """Opens a page and compares it with the avatar that it was made of.

    Args:
        page: of `edit3dgs export --format html`.
        avatar: the avatar, as it is trained and moves.
        scene: of `rendering.web_scene`, not centred: for the camera and ARKit's actions.
        count: number of poses.
        pictures: a folder for each pair of images, side by side; None: none are kept.
    """
    plan = shots(avatar.head.num_timesteps, scene.camera, count)
    results = []
    for number, (shot, seen) in enumerate(zip(plan, _seen(page, plan), strict=True)):
        expected, covered = _drawn(avatar, scene, shot)
        # In the page's image, too: what it draws beside the avatar counts.
        covered |= (seen < 1 - COVERED).any(axis=-1)
        results.append(-10 * math.log10(float(np.square(seen - expected)[covered].mean())))
        if pictures is not None:
            _save(pictures / f"{number:02d}.png", np.concatenate([expected, seen], axis=1))
    return Agreement(results)


def _seen(page: Path, plan: list[Shot]) -> Iterator[Float[np.ndarray, "height width 3"]]:
    """What Chromium shows, in [0, 1]."""
    with chromium() as browser:
        window = new_page(browser, SIZE, offline=True)
        log = PageLog(window)
        window.goto(f"{page.resolve().as_uri()}#still")
        window.locator("body[data-drawn]").wait_for()
        window.evaluate(_HIDDEN)
        wait_for_frame(window)
        for shot in plan:
            face = "null" if shot.held is None else f"player.source.fromActions({json.dumps(shot.held)})"
            neck = json.dumps(shot.neck)
            window.evaluate(f"player.view.lookFromSide({shot.side[0]}, {shot.side[1]})")
            window.evaluate(f"player.show({{time: {shot.frame}, face: {face}, neck: {neck}}})")
            yield screenshot(window) / 255
        assert not log.uncaught and not log.complaints, log.uncaught + log.complaints


@torch.no_grad()
def _drawn(
    avatar: RiggedGaussians, scene: WebScene, shot: Shot
) -> tuple[Float[np.ndarray, "height width 3"], Bool[np.ndarray, "height width"]]:
    """What our rasterizer draws on white, in [0, 1], and where the avatar is."""
    pose = shot_pose(avatar, scene, shot)
    splats = avatar.splats(pose)
    c2w, K = _camera(scene.camera, shot.side)
    image, alpha, _ = rasterize(
        *splats.tensors,
        viewmats_from_c2w(torch.from_numpy(c2w).float()[None]),
        torch.from_numpy(K).float()[None],
        *SIZE,
        sh_degree=splats.sh_degree,
        backgrounds=torch.ones(1, 3),
        rasterize_mode="antialiased" if scene.antialiased else "classic",
    )
    return image[0].clamp(0, 1).numpy(), (alpha[0, ..., 0] > COVERED).numpy()


def shot_pose(avatar: RiggedGaussians, scene: WebScene, shot: Shot) -> FlamePose:
    """The pose of a shot."""
    pose = avatar.head.pose_at(shot.frame / max(avatar.head.num_timesteps - 1, 1))
    if shot.held is not None:
        row = torch.tensor([[shot.held.get(name, 0.0) for name in ARKIT_NAMES]])
        amounts = {name: np.array([amount], np.float32) for name, amount in shot.held.items()}
        expr = row @ torch.from_numpy(scene.rig.action_expr).float()
        jaw = row @ torch.from_numpy(scene.rig.action_jaw).float()
        pose = replace(pose, expr=expr, jaw_pose=jaw, eyes_pose=gaze_of(amounts, 1))
    if shot.neck is not None:
        pose = replace(pose, neck_pose=torch.tensor([shot.neck]))
    return pose


def _camera(camera: WebCamera, side: tuple[float, float]) -> tuple[np.ndarray, np.ndarray]:
    """c2w (OpenGL axes) and intrinsics of the page's camera, turned about its target."""
    back = camera.position - camera.target
    up = camera.up / np.linalg.norm(camera.up)
    azimuth, elevation = side
    # Spherical coordinates about `up`, as OrbitControls has them.
    rise = float(back @ up)
    level = back - rise * up
    distance, polar = float(np.linalg.norm(back)), math.atan2(rise, float(np.linalg.norm(level))) + elevation
    forward = level / np.linalg.norm(level)
    aside = np.cross(up, forward)
    level = math.cos(azimuth) * forward + math.sin(azimuth) * aside
    back = distance * (math.cos(polar) * level + math.sin(polar) * up)
    z = back / distance
    x = np.cross(up, z) / np.linalg.norm(np.cross(up, z))
    c2w = np.stack([x, np.cross(z, x), z, camera.target + back], axis=1)
    width, height = SIZE
    focal = height / 2 / max(camera.tangents[1], camera.tangents[0] * height / width)
    return c2w, np.array([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1.0]])


def _save(path: Path, image: Any) -> None:
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray((255 * image).round().astype(np.uint8)).save(path)
