"""Scenes for web pages, and how the project's own code shows them: triangle frames, relighting and rasterizer of `splats`.

The rig of a page is evaluated here as plainly as its description reads (`posed`); the page has its own code for that.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
import trimesh

from edit3dgs_ns.flame.arkit import ARKIT_NAMES
from edit3dgs_ns.flame.model import FlamePose
from edit3dgs_ns.flame.rotations import axis_angle_to_matrix
from edit3dgs_ns.splats.binding import TriangleFrames, WorldGaussians, local_to_world, triangle_frames
from edit3dgs_ns.splats.motion_code import motion_code, motion_features
from edit3dgs_ns.splats.rasterize import rasterize
from edit3dgs_ns.splats.relighting import apply_gain, light_gain
from edit3dgs_ns.splats.views import viewmats_from_c2w
from edit3dgs_ns.web.rig import WebMotion, WebRig
from edit3dgs_ns.web.scene import WebCamera, WebGaussians, WebScene

RADIUS, POSITION = 0.1, np.array([0.1, 0.05, 0.5])
"""Metres, about those of a head and its camera."""


NAMES = ("mouthSmileLeft", "mouthSmileRight", "browInnerUp", "jawForward")
"""Of the ball's expressions."""


def ball(
    frames: int = 4,
    degree: int = 3,
    rank: int = 2,
    subdivisions: int = 3,
    antialiased: bool = False,
    names: tuple[str, ...] | None = NAMES,
    before: bool = False,
) -> WebScene:
    """A ball with spots of all colours, large and small, with joints, correctives and expressions like a head's."""
    rng = np.random.default_rng(5)
    mesh = trimesh.creation.icosphere(subdivisions=subdivisions, radius=RADIUS)
    rig = _rig(rng, np.asarray(mesh.vertices), np.asarray(mesh.faces), names)
    motion = _motion(rng, frames)
    gaussians = _gaussians(rng, len(rig.faces), degree, rank)
    return WebScene(
        gaussians=gaussians,
        rig=rig,
        motion=motion,
        camera=WebCamera(
            position=POSITION,
            target=np.zeros(3),
            up=looking_at(POSITION, np.zeros(3), np.array([0.1, 1.0, 0.0]))[:3, 1],
            tangents=(0.3, 0.24),
            reach=(0.9, 0.5),
        ),
        fps=25.0,
        before=replace(gaussians, colors=gaussians.colors[:, :1, ::-1]) if before else None,
        antialiased=antialiased,
    )


def _rig(
    rng: np.random.Generator, vertices: np.ndarray, faces: np.ndarray, names: tuple[str, ...] | None
) -> WebRig:
    """Each joint moves what is nearest to it; expressions and correctives are smooth waves over the surface."""
    joints = RADIUS * np.array(
        [[0, -0.9, 0], [0, -0.5, 0], [0, -0.3, 0.6], [0.4, 0.4, 0.7], [-0.4, 0.4, 0.7]]
    )
    weights = np.exp(-np.linalg.norm(vertices[:, None] - joints, axis=2) / (0.2 * RADIUS))
    weights[weights < 0.02 * weights.max(axis=1, keepdims=True)] = 0
    frames = _frames(vertices, faces)
    count = len(NAMES)
    actions = 52 if names else 0
    action_expr = np.zeros((actions, count))
    action_jaw = np.zeros((actions, 3))
    for place, name in enumerate(names or ()):
        action_expr[ARKIT_NAMES.index(name), place] = 1
    if names:
        action_jaw[ARKIT_NAMES.index("jawOpen"), 0] = 0.34
    return WebRig(
        vertices=vertices,
        faces=faces,
        directions=0.1 * _waves(rng, vertices, count),
        correctives=0.05 * _waves(rng, vertices, 36),
        weights=weights / weights.sum(axis=1, keepdims=True),
        joints=joints,
        joint_directions=rng.normal(0, 0.05 * RADIUS, (count, 5, 3)),
        parents=(-1, 0, 1, 1, 1),
        normals=frames.rotation[..., 1].double().numpy(),
        names=names,
        action_expr=action_expr,
        action_jaw=action_jaw,
    )


def _waves(rng: np.random.Generator, vertices: np.ndarray, count: int) -> np.ndarray:
    """(count, V, 3), of the ball's size."""
    ways, phases = rng.normal(0, 1, (count, 3, 3)), rng.uniform(0, 6, (count, 1, 3))
    return RADIUS * np.sin(np.einsum("vc,ncd->nvd", vertices, ways) / RADIUS + phases)


def _motion(rng: np.random.Generator, frames: int) -> WebMotion:
    step = np.arange(frames)[:, None]
    return WebMotion(
        expr=rng.normal(0, 0.7, (frames, len(NAMES))),
        rotation=0.35 * step * np.array([0.2, 1.0, 0.1]),
        neck_pose=rng.normal(0, 0.2, (frames, 3)),
        jaw_pose=rng.normal(0, 0.2, (frames, 3)),
        eyes_pose=rng.normal(0, 0.2, (frames, 6)),
        translation=step * np.array([0.01, 0, 0]),
    )


def _gaussians(rng: np.random.Generator, faces: int, degree: int, rank: int) -> WebGaussians:
    count = 2 * faces
    colors = rng.normal(0, 0.08, (count, (degree + 1) ** 2, 3))
    # Nothing is brighter than white, which a browser would cut.
    colors[:, 0] = rng.uniform(-1.4, 0.2, (count, 3))
    features = len(NAMES) + 12
    return WebGaussians(
        binding=rng.permutation(count) % faces,
        means=rng.normal(0, 0.4, (count, 3)),
        quats=rng.normal(0, 1, (count, 4)),
        scales=rng.normal(-1.0, 0.5, (count, 3)),
        opacities=rng.uniform(0.1, 1.0, count),
        colors=colors,
        mean_offsets=rng.normal(0, 0.3, (count, rank, 3)),
        color_offsets=rng.normal(0, 0.15, (count, rank, 3)),
        code_mean=rng.normal(0, 0.2, features),
        code_basis=rng.normal(0, 0.5, (features, rank)),
        light=rng.normal(0, 0.1, (8, 3)),
    )


def pose_at(motion: WebMotion, frame: int) -> FlamePose:
    """One frame of a motion."""
    return FlamePose(**{name: _tensor(values[frame : frame + 1]) for name, values in vars(motion).items()})


def posed(rig: WebRig, pose: FlamePose) -> np.ndarray:
    """The vertices in a pose of one frame, joint by joint."""
    angles = torch.cat([pose.rotation, pose.neck_pose, pose.jaw_pose, pose.eyes_pose], dim=1).reshape(-1, 3)
    turns, expr = axis_angle_to_matrix(angles.double()).numpy(), pose.expr[0].double().numpy()
    vertices = rig.vertices + np.einsum("e,evc->vc", expr, rig.directions)
    joints = rig.joints + np.einsum("e,ejc->jc", expr, rig.joint_directions)
    if len(rig.correctives):
        vertices = vertices + np.einsum("p,pvc->vc", (turns[1:] - np.eye(3)).ravel(), rig.correctives)
    moved = np.zeros_like(vertices)
    for joint in range(len(joints)):
        bone, chain = vertices, joint
        while chain >= 0:  # every joint above turns the bone about its own place
            bone = (bone - joints[chain]) @ turns[chain].T + joints[chain]
            chain = rig.parents[chain]
        moved += rig.weights[:, joint, None] * bone
    return moved + pose.translation[0].double().numpy()


def shown(
    scene: WebScene, pose: FlamePose, gaussians: WebGaussians | None = None
) -> tuple[WorldGaussians, torch.Tensor]:
    """The Gaussians in the world and their SH coefficients in a pose, by the formulas that the model uses."""
    g, frames = gaussians or scene.gaussians, _frames(posed(scene.rig, pose), scene.rig.faces)
    binding = torch.from_numpy(g.binding)
    code = motion_code(motion_features(pose)[0], _tensor(g.code_mean), _tensor(g.code_basis))
    means = _tensor(g.means) + torch.einsum("nkc,k->nc", _tensor(g.mean_offsets), code)
    colors = _tensor(g.colors)
    colors[:, 0] += torch.einsum("nkc,k->nc", _tensor(g.color_offsets), code)
    gain = light_gain(_tensor(g.light), frames.rotation[..., 1], _tensor(scene.rig.normals))
    world = local_to_world(means, _tensor(g.quats), _tensor(g.scales), binding, frames)
    return world, apply_gain(colors, gain, binding)


def picture(
    scene: WebScene,
    pose: FlamePose | int,
    width: int,
    height: int,
    shown_gaussians: WebGaussians | None = None,
) -> np.ndarray:
    """What the scene's camera sees in a pose (or at a frame), on white: (height, width, 3) in [0, 1]."""
    pose = pose_at(scene.motion, pose) if isinstance(pose, int) else pose
    gaussians, colors = shown(scene, pose, shown_gaussians)
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


def _frames(vertices: np.ndarray, faces: np.ndarray) -> TriangleFrames:
    return triangle_frames(_tensor(vertices), torch.from_numpy(faces))


def _tensor(values: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.array(values, np.float32))
