"""Scenes for web pages, and how the project's own code shows them: triangle frames, relighting and rasterizer of `splats`."""

from __future__ import annotations

import numpy as np
import torch
import trimesh

from edit3dgs_ns.splats.binding import TriangleFrames, WorldGaussians, local_to_world, triangle_frames
from edit3dgs_ns.splats.rasterize import rasterize
from edit3dgs_ns.splats.relighting import apply_gain, light_gain
from edit3dgs_ns.splats.views import viewmats_from_c2w
from edit3dgs_ns.web.scene import WebCamera, WebGaussians, WebScene

RADIUS, POSITION = 0.1, np.array([0.1, 0.05, 0.5])
"""Metres, about those of a head and its camera."""


def ball(
    frames: int = 4, degree: int = 3, rank: int = 2, subdivisions: int = 3, antialiased: bool = False
) -> WebScene:
    """A ball with spots of all colours, large and small, that turns, stretches, and changes with an "expression"."""
    rng = np.random.default_rng(5)
    mesh = trimesh.creation.icosphere(subdivisions=subdivisions, radius=RADIUS)
    faces = np.asarray(mesh.faces)
    vertices = np.stack([_moved(np.asarray(mesh.vertices), frame) for frame in range(frames)])
    count = 2 * len(faces)
    colors = rng.normal(0, 0.08, (count, (degree + 1) ** 2, 3))
    colors[:, 0] = rng.uniform(
        -1.4, 0.2, (count, 3)
    )  # nothing is brighter than white, which a browser would cut
    return WebScene(
        gaussians=WebGaussians(
            binding=rng.permutation(count) % len(faces),
            means=rng.normal(0, 0.4, (count, 3)),
            quats=rng.normal(0, 1, (count, 4)),
            scales=rng.normal(-1.0, 0.5, (count, 3)),
            opacities=rng.uniform(0.1, 1.0, count),
            colors=colors,
            mean_offsets=rng.normal(0, 0.3, (count, rank, 3)),
            color_offsets=rng.normal(0, 0.15, (count, rank, 3)),
        ),
        faces=faces,
        vertices=vertices,
        rest_normals=_frames(vertices[0], faces).rotation[..., 1].double().numpy(),
        codes=rng.normal(0, 1, (frames, rank)),
        light=rng.normal(0, 0.1, (8, 3)),
        camera=WebCamera(
            position=POSITION,
            target=np.zeros(3),
            up=looking_at(POSITION, np.zeros(3), np.array([0.1, 1.0, 0.0]))[:3, 1],
            tangents=(0.3, 0.24),
            reach=(0.9, 0.5),
        ),
        fps=25.0,
        antialiased=antialiased,
    )


def shown(scene: WebScene, frame: int) -> tuple[WorldGaussians, torch.Tensor]:
    """The Gaussians in the world and their SH coefficients at a frame, by the formulas that the model uses."""
    g, frames = scene.gaussians, _frames(scene.vertices[frame], scene.faces)
    binding, code = torch.from_numpy(g.binding), _tensor(scene.codes[frame])
    means = _tensor(g.means) + torch.einsum("nkc,k->nc", _tensor(g.mean_offsets), code)
    colors = _tensor(g.colors)
    colors[:, 0] += torch.einsum("nkc,k->nc", _tensor(g.color_offsets), code)
    gain = light_gain(_tensor(scene.light), frames.rotation[..., 1], _tensor(scene.rest_normals))
    world = local_to_world(means, _tensor(g.quats), _tensor(g.scales), binding, frames)
    return world, apply_gain(colors, gain, binding)


def picture(scene: WebScene, frame: int, width: int, height: int) -> np.ndarray:
    """What the scene's camera sees, on white: (height, width, 3) in [0, 1]."""
    gaussians, colors = shown(scene, frame)
    camera = scene.camera
    c2w = torch.from_numpy(looking_at(camera.position, camera.target, camera.up)).float()[None, :3]
    # All that the camera's own angles of view hold is in the picture, whatever its shape.
    focal = height / 2 / max(camera.tangents[1], camera.tangents[0] * height / width)
    K = torch.tensor([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1.0]])[None]
    image, _, _ = rasterize(
        gaussians.means,
        gaussians.quats,
        gaussians.scales,
        _tensor(scene.gaussians.opacities),
        colors,
        viewmats_from_c2w(c2w),
        K,
        width,
        height,
        sh_degree=round(colors.shape[1] ** 0.5) - 1,
        backgrounds=torch.ones(1, 3),
        rasterize_mode="antialiased" if scene.antialiased else "classic",
    )
    return image[0].clamp(0, 1).numpy()


def looking_at(position: np.ndarray, target: np.ndarray, up: np.ndarray) -> np.ndarray:
    """c2w, OpenGL axes."""
    back = (position - target) / np.linalg.norm(position - target)
    right = np.cross(up, back) / np.linalg.norm(np.cross(up, back))
    c2w = np.eye(4)
    c2w[:3] = np.stack([right, np.cross(back, right), back, position], axis=1)
    return c2w


def _moved(vertices: np.ndarray, frame: int) -> np.ndarray:
    turn = trimesh.transformations.rotation_matrix(0.35 * frame, [0.2, 1.0, 0.1])[:3, :3]
    return vertices * (1 + 0.1 * frame, 1, 1 - 0.05 * frame) @ turn.T + (0.01 * frame, 0, 0)


def _frames(vertices: np.ndarray, faces: np.ndarray) -> TriangleFrames:
    return triangle_frames(_tensor(vertices), torch.from_numpy(faces))


def _tensor(values: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.array(values, np.float32))
