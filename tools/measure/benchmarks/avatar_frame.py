"""One frame of an avatar of 86,000 Gaussians, 802 x 550 pixels (a NeRSemble view), as `ns-viewer` asks for it.

Everything from the time of the frame to its picture: expression and pose at that time, FLAME, triangle frames, every
Gaussian carried along with its face, spherical harmonics, rasterization of colour and depth. `rig_fraction` is the share
of what moves: FLAME and binding. The avatar is `rigged-splatfacto`'s model on the embedded head, its Gaussians
random.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from rich.console import Console

from tools.measure.benchmarks import common

GAUSSIANS, WIDTH, HEIGHT, VIEWS = 86_000, 550, 802, 4
DISTANCE, FOCAL = 1.0, 2000.0
"""Metres from the head, and pixels: the head fills about two thirds of the height."""
TIMESTEPS = 30


def measure(console: Console, threads: int, gaussians: int = GAUSSIANS, rounds: int = 15) -> dict[str, Any]:
    """The section `avatar_frame`; the table shows single parts as well."""
    console.log(f"Avatar: frames of {gaussians:,} Gaussians")
    model = make_model(gaussians)
    times = iter(range(1_000_000))

    def at() -> float:
        """Another time for every call: nothing may be kept from the frame before."""
        return next(times) * 0.37 % 1.0

    with common.threads(threads), torch.no_grad():
        camera, cameras = cameras_around(model, 1), cameras_around(model, VIEWS)

        def show(view: Any) -> None:
            view.times = torch.full((len(view), 1), at())
            model.get_outputs(view)

        parts = [lambda: show(camera), lambda: pose(model, at()), lambda: show(cameras)]
        for part in parts:
            part()
        frame, rig, views = common.alternate(parts, rounds)
    return {
        "fps": round(1 / frame, 2),
        "rig_fraction": round(rig / frame, 4),
        "gaussians": gaussians,
        "width": WIDTH,
        "height": HEIGHT,
        "frame_ms": round(frame * 1e3, 2),
        "rig_ms": round(rig * 1e3, 2),
        f"frame_ms_of_{VIEWS}_views_in_one_call": round(views / VIEWS * 1e3, 2),
    }


def pose(model: Any, time: float) -> Any:
    """FLAME and binding alone: from the time to the Gaussians in world coordinates."""
    from edit3dgs_ns.splats.binding import local_to_world

    frames = model.head.frames_of(model.head.pose_at(time))
    params = model.gauss_params
    return local_to_world(params["means"], params["quats"], params["scales"], model.binding, frames)


def make_model(gaussians: int) -> Any:
    """An avatar of the embedded head that talks and nods, Gaussians spread evenly over its faces."""
    from edit3dgs_ns.training.compiling import open_head_avatar

    g = torch.Generator().manual_seed(0)

    def talk(motion: Any) -> None:
        motion.expr[:] = 0.5 * torch.randn(motion.expr.shape, generator=g)
        motion.jaw_pose[:, 0] = 0.1 * torch.rand(TIMESTEPS, generator=g)
        motion.rotation[:, 1] = 0.2 * torch.randn(TIMESTEPS, generator=g)

    model = open_head_avatar(TIMESTEPS, talk)
    model.binding = torch.arange(gaussians) % len(model.head.faces)
    sizes = model.head.rest_frames().size[model.binding]
    values = {
        "means": 0.4 * torch.randn(gaussians, 3, generator=g) * torch.tensor([1.0, 0.3, 1.0]),
        "scales": torch.log(0.0012 / sizes)[:, None] + 0.4 * torch.randn(gaussians, 3, generator=g),
        "quats": torch.randn(gaussians, 4, generator=g),
        "opacities": 1.5 + 1.5 * torch.randn(gaussians, 1, generator=g),
        "features_dc": 0.5 * torch.randn(gaussians, 3, generator=g),
        "features_rest": 0.2 * torch.randn(gaussians, 15, 3, generator=g),
    }
    for name, value in values.items():
        model.gauss_params[name].data = value
    model.sh_degree_reached.fill_(3)
    return model.eval()


def cameras_around(
    model: Any, count: int, width: int = WIDTH, height: int = HEIGHT, focal: float = FOCAL
) -> Any:
    """Cameras in front of the head, 20 degrees apart, as Nerfstudio describes them."""
    from nerfstudio.cameras.cameras import Cameras

    centre = model.head.canonical_vertices().detach().mean(0)
    poses = []
    for k in range(count):
        angle = math.radians(20 * (k - (count - 1) / 2))
        sin, cos = math.sin(angle), math.cos(angle)
        place = centre + DISTANCE * torch.tensor([sin, 0.0, cos])
        rotation = torch.tensor([[cos, 0, sin], [0, 1, 0], [-sin, 0, cos]])
        poses.append(torch.cat([rotation, place[:, None]], dim=1))
    return Cameras(
        torch.stack(poses), focal, focal, width / 2, height / 2, width, height, times=torch.zeros(count, 1)
    )
