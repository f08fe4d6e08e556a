"""A few images of a capture with the posed head, and how well the head projects onto the person in them.

Two measures tell right cameras from wrong ones. The silhouette of the mesh should lie on the foreground (hair and shoulders may lie
outside of the mesh, so the foreground may be larger), and a vertex should have the same colour in all images that show it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float, Int

from edit3dgs_ns.capture.cameras import Camera, project
from edit3dgs_ns.capture.images import read_image, read_mask
from edit3dgs_ns.capture.rays import build_intersector, ray_directions
from edit3dgs_ns.capture.transforms import FrameEntry, shares_one_motion_file
from edit3dgs_ns.flame.assets import FlameAssets
from edit3dgs_ns.flame.model import FlameModel
from edit3dgs_ns.flame.motion import FlameMotion
from edit3dgs_ns.splats.rig import TrackedHead

SIDE = 64
"""Pixels of the longer side at which silhouettes are compared."""
MOST_VIEWS = 16
_VERTICES = 1200
_FROM_BACKGROUND = 0.08
"""Difference of colour, of 1, from the border's from which a pixel counts as foreground where there is no mask."""
_STUDIO = 0.96
"""Share of the border with one colour, from which what differs is the person."""

CameraChange = Callable[[Camera], Camera]


@dataclass(frozen=True, eq=False)
class PosedHead:
    """The head at one timestep."""

    vertices: Float[np.ndarray, "v 3"]
    faces: Int[np.ndarray, "f 3"]

    @cached_property
    def intersector(self) -> Any:
        """An embree scene of it."""
        return build_intersector(self.vertices, self.faces)

    @cached_property
    def normals(self) -> Float[np.ndarray, "v 3"]:
        """Unit normals of the vertices."""
        a, b, c = (self.vertices[self.faces[:, corner]] for corner in range(3))
        sums = np.zeros_like(self.vertices)
        for corner in range(3):
            np.add.at(sums, self.faces[:, corner], np.cross(b - a, c - a))
        normals: np.ndarray = sums / np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-12)
        return normals


@dataclass(frozen=True, eq=False)
class HeadView:
    """One image, shrunk."""

    frame: FrameEntry
    camera: Camera
    """As the transforms say, at the size that they say."""
    head: PosedHead
    image: Float[np.ndarray, "h w 3"]
    """In [0, 1], shrunk to `SIDE`."""
    alpha: Float[np.ndarray, "h w"] | None
    """The image's own."""
    foreground: Float[np.ndarray, "h w"]
    """The mask's, the alpha channel's, or what differs from the border: in [0, 1]."""
    own_foreground: Float[np.ndarray, "h w"] | None
    """What differs from the border, where the background is of one colour."""
    size: tuple[int, int]
    """Width and height of the file's image."""

    @property
    def has_foreground(self) -> bool:
        """Whether anything tells the person from the background."""
        return self.frame.mask is not None or self.alpha is not None or self.own_foreground is not None

    def silhouette(self, camera: Camera) -> Bool[np.ndarray, "h w"]:
        """Where the mesh is."""
        h, w = self.foreground.shape
        directions = ray_directions(camera.resized(w, h), (0, 0, w, h), 1)
        origins = np.broadcast_to(camera.c2w[:3, 3].astype(np.float32), directions.shape).copy()
        hit: np.ndarray = (
            self.head.intersector.run(origins, directions, output=1)["primID"].reshape(h, w) >= 0
        )
        return hit

    def colours(
        self, camera: Camera, which: Int[np.ndarray, " n"]
    ) -> tuple[Float[np.ndarray, "n 3"], Bool[np.ndarray, " n"]]:
        """Colours of vertices, and which of them the camera sees."""
        points = self.head.vertices[which].astype(np.float64)
        h, w = self.foreground.shape
        pixels, depth = project(points, camera)
        column = pixels[:, 0] * w / camera.width - 0.5
        row = pixels[:, 1] * h / camera.height - 0.5
        seen = (depth > 0) & (column > 0) & (column < w - 1) & (row > 0) & (row < h - 1)
        seen &= np.isfinite(column) & np.isfinite(row)
        origin = camera.c2w[:3, 3]
        towards = points - origin
        distance = np.linalg.norm(towards, axis=1)
        rays = (towards / np.maximum(distance, 1e-9)[:, None]).astype(np.float32)
        origins = np.broadcast_to(origin.astype(np.float32), rays.shape).copy()
        hits = self.head.intersector.run(origins, rays, output=1)["tfar"]
        seen &= np.abs(hits - distance) < 0.004 + 1e-4 * distance
        safe = np.where(seen, column, 0).astype(np.float32), np.where(seen, row, 0).astype(np.float32)
        found = cv2.remap(self.image.astype(np.float32), *safe, interpolation=cv2.INTER_LINEAR)
        return found.reshape(-1, 3), seen


@dataclass(frozen=True)
class Fit:
    """How well the head projects onto the person, means over the views."""

    inside: float
    """Share of the mesh's silhouette that is on the foreground."""
    covered: float
    """Share of the foreground that the mesh covers."""
    consistent: float
    """1 minus the variance of a vertex's colour between images, relative to that between vertices."""

    overlap: float
    """Intersection of silhouette and foreground over their union."""
    several_cameras: bool

    @property
    def score(self) -> float:
        """About 1 is right. A foreground that is larger than the mesh (hair, shoulders) costs little.

        One camera sees a head that hardly moves in the same colours wherever it is: there the silhouette counts more.
        """
        colours, shape = (0.5, 0.1) if self.several_cameras else (0.15, 0.3)
        consistent = 1 - colours + colours * max(self.consistent, 0.0)
        return self.inside * min(1.0, self.covered / 0.35) * consistent + shape * self.overlap


def fit_of(views: Sequence[HeadView], change: CameraChange | None = None) -> Fit:
    """How well the head fits with changed cameras."""
    inside, covered, overlap, seen, colours = [], [], [], [], []
    which = np.linspace(0, len(views[0].head.vertices) - 1, _VERTICES).astype(int)
    for view in views:
        camera = view.camera if change is None else change(view.camera)
        mesh = view.silhouette(camera)
        both = float(view.foreground[mesh].sum())
        inside.append(both / max(float(mesh.sum()), 1.0))
        covered.append(both / max(float(view.foreground.sum()), 1.0))
        overlap.append(both / max(float(mesh.sum() + view.foreground.sum()) - both, 1.0))
        colour, visible = view.colours(camera, which)
        colours.append(colour)
        seen.append(visible)
    return Fit(
        float(np.mean(inside)),
        float(np.mean(covered)),
        _consistency(np.stack(colours), np.stack(seen)),
        float(np.mean(overlap)),
        len({view.frame.camera_index for view in views}) > 1,
    )


def _consistency(colours: Float[np.ndarray, "views n 3"], seen: Bool[np.ndarray, "views n"]) -> float:
    weight = seen[..., None].astype(np.float64)
    count = weight.sum(0)
    often = count[:, 0] >= 2
    if often.sum() < 30:
        return 0.0
    weight, colours, count = weight[:, often], colours[:, often], count[often]
    mean = (weight * colours).sum(0) / count
    within = (weight * (colours - mean) ** 2).sum() / weight.sum() / 3
    total = (
        (weight * (colours - (weight * colours).sum((0, 1)) / weight.sum((0, 1))) ** 2).sum()
        / weight.sum()
        / 3
    )
    return float(1 - within / max(total, 1e-9))


def sample_views(frames: Sequence[FrameEntry], assets: FlameAssets) -> list[HeadView]:
    """Views spread over cameras and timesteps; frames whose files cannot be read are left out.

    Raises:
        ValueError: the head parameters do not fit the head model.
    """
    chosen = spread(frames, MOST_VIEWS)
    heads = _posed(chosen, frames, assets)
    views = []
    for frame in chosen:
        if frame.timestep_index not in heads:
            continue
        view = read_view(frame, heads[frame.timestep_index])
        if view is not None:
            views.append(view)
    return views


def spread(frames: Sequence[FrameEntry], most: int) -> list[FrameEntry]:
    """At most some frames: of several cameras and several timesteps, seen by as many of the same cameras as can be."""
    usable = [f for f in frames if f.flame is not None and f.flame.is_file()]
    cameras: dict[int, list[FrameEntry]] = defaultdict(list)
    for frame in usable:
        cameras[frame.camera_index].append(frame)
    numbers = sorted(cameras)
    few = [numbers[i] for i in _evenly(len(numbers), 6)]
    each = max(most // max(len(few), 1), 1)
    chosen = []
    for number in few:
        own = sorted(cameras[number], key=lambda f: f.timestep_index)
        chosen += [own[i] for i in _evenly(len(own), each)]
    return chosen


def _evenly(count: int, most: int) -> list[int]:
    return sorted({round(i) for i in np.linspace(0, count - 1, min(count, most))}) if count else []


def _posed(
    chosen: Sequence[FrameEntry], frames: Sequence[FrameEntry], assets: FlameAssets
) -> dict[int, PosedHead]:
    files = {f.timestep_index: f.flame for f in chosen if f.flame is not None}
    timesteps = sorted(files)
    if not timesteps:
        return {}
    if shares_one_motion_file(frames):
        motion, rows = FlameMotion.load(files[timesteps[0]]), timesteps
        timesteps = rows = [t for t in timesteps if t < len(motion)]
    else:
        motion, rows = FlameMotion.from_frames([files[t] for t in timesteps]), list(range(len(timesteps)))
    head = TrackedHead(FlameModel.from_assets(assets), motion)
    with torch.no_grad():
        vertices = head.vertices(torch.tensor(rows)).numpy()
    return {t: PosedHead(v, assets.faces) for t, v in zip(timesteps, vertices, strict=True)}


def read_view(frame: FrameEntry, head: PosedHead) -> HeadView | None:
    """The view of a frame; None where a file cannot be read, or the matrix is none of a camera."""
    if not is_camera(frame.c2w):
        return None
    try:
        pixels, alpha = read_image(frame.image)
        mask = read_mask(frame.mask) if frame.mask is not None else alpha
    except (OSError, ValueError):
        return None
    size = pixels.shape[1], pixels.shape[0]
    image = _shrunk(pixels)
    shape = image.shape[0], image.shape[1]
    own = _by_background(image)
    bare = np.ones(shape, np.float32) if own is None else own
    foreground = bare if mask is None else _shrunk(mask, shape)
    return HeadView(
        frame,
        camera_of(frame),
        head,
        image,
        None if alpha is None else _shrunk(alpha, shape),
        foreground,
        own,
        size,
    )


def is_camera(c2w: Float[np.ndarray, "4 4"]) -> bool:
    """Whether a matrix can be inverted; `check_frames` names those that cannot."""
    return bool(np.isfinite(c2w).all() and np.linalg.cond(c2w[:3, :3]) < 1e6)


def camera_of(frame: FrameEntry) -> Camera:
    """The camera as training takes it: the principal point by the file's edge, else the centre."""
    cx, cy = frame.principal_point()
    K = np.array([[frame.fx, 0.0, cx], [0.0, frame.fy, cy], [0.0, 0.0, 1.0]])
    return Camera(frame.c2w, K, frame.width, frame.height)


def background_of(image: Float[np.ndarray, "h w 3"], share: float = 0.7) -> Float[np.ndarray, " 3"] | None:
    """The colour of the upper border, if at least a share of it has one colour."""
    border = np.concatenate([image[0], image[: len(image) // 2, 0], image[: len(image) // 2, -1]])
    colour: np.ndarray = np.median(border, axis=0)
    near = (np.abs(border - colour).max(axis=1) < _FROM_BACKGROUND).mean()
    return colour if near >= share else None


def _by_background(image: np.ndarray) -> np.ndarray | None:
    colour = background_of(image, _STUDIO)
    if colour is None:
        return None
    foreground: np.ndarray = (np.abs(image - colour).max(axis=2) > _FROM_BACKGROUND).astype(np.float32)
    return foreground


def _shrunk(pixels: np.ndarray, shape: tuple[int, int] | None = None) -> Float[np.ndarray, "h w *channels"]:
    h, w = pixels.shape[:2]
    scale = min(SIDE / max(h, w), 1.0)
    rows, columns = shape or (max(round(h * scale), 1), max(round(w * scale), 1))
    small: np.ndarray = cv2.resize(pixels, (columns, rows), interpolation=cv2.INTER_AREA)
    return small.astype(np.float32) / 255
