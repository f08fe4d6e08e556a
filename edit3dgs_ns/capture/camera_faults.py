"""What can be wrong with the cameras of a capture as a whole, and the change that puts it right.

Each `CameraFault` is tried on a few views: the one whose change makes the head project onto the person names what is wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import numpy as np
from jaxtyping import Float

from edit3dgs_ns.capture.cameras import Camera
from edit3dgs_ns.capture.head_views import SIDE, CameraChange, Fit, HeadView, fit_of, is_camera
from edit3dgs_ns.capture.transforms import FrameEntry

Edge = Literal["top", "bottom"]
GOOD, POOR = 0.72, 0.3
"""Scores: from the first on, only small changes are tried; below the second the head is not where the person is."""
_BETTER = 0.12
"""By this much a change has to raise the score before it is believed."""
_HALVINGS = 5
"""Of the steps with which a focal length, a principal point or a shift is refined."""
_NEARLY = 0.06
_AS_GOOD = 0.04
"""Changes whose scores differ by less explain the images as well."""
_UNITS = {1e-3: "millimetres", 1e-2: "centimetres", 0.1: "tenths of a metre", 0.0254: "inches", 10.0: "tens of metres",
          100.0: "hundreds of metres", 1000.0: "kilometres"}  # fmt: skip
_NEAR = (0.6, 0.7, 0.8, 1.25, 1.43, 1.67)
_FOCAL = (0.25, 0.33, 0.42, 0.5, *_NEAR, 2.0, 2.4, 3.0, 4.0)
"""Factors of the focal length that are tried, where the head nearly fits and where it does not."""
_TURNS = {1: "a quarter to the left", 2: "upside down", 3: "a quarter to the right"}


@dataclass(frozen=True)
class CameraFault:
    """Something that may be wrong with all cameras."""

    kind: str
    what: str
    """Continues "The cameras ..."."""
    change: CameraChange
    """Puts it right."""
    frame_change: Callable[[FrameEntry], FrameEntry] | None = None
    """Does the same to a frame, where more is known of it than its camera."""


def find_camera_fault(views: Sequence[HeadView]) -> tuple[CameraFault | None, Fit]:
    """The fault that best explains why the head does not project onto the person, if there is one; and the fit as it is.

    The fault has the kind "unknown" where nothing that is known explains it.
    """
    if any(np.linalg.det(view.camera.c2w[:3, :3]) < 0 for view in views):
        # Heads are nearly symmetric: that they are mirrored is known from the matrices, how is seen.
        return max(_mirrored(), key=lambda fault: fit_of(views, fault.change).score), fit_of(views)
    now = fit_of(views)
    poor = now.score < GOOD
    faults = [*(_matrix_faults() if poor else ()), *_point_faults(views)]
    faults += map(_zoomed_fault, _FOCAL if poor else _NEAR)
    faults += _place_faults(views) if poor else ()
    rated = [(fit_of(views, fault.change).score, fault) for fault in faults]
    best = max(score for score, _ in rated)
    if best > now.score + _BETTER and best > POOR:
        # Several explain it as well: a shifted head, for one, does what a principal point does. The simplest is meant.
        fault = next(fault for score, fault in rated if score > best - _AS_GOOD)
        return _refined(views, fault), now
    if now.score < POOR:
        what = "do not see the person where the head is, and nothing that is known explains it"
        return CameraFault("unknown", what, lambda camera: camera), now
    return None, now


def _refined(views: Sequence[HeadView], fault: CameraFault) -> CameraFault:
    """The focal length, principal point or shift between the steps that were tried; other faults as they are."""
    before, after = views[0].camera, fault.change(views[0].camera)
    if fault.kind == "focal length":
        factor = float(after.K[0, 0] / before.K[0, 0])
        (log,) = _climbed(views, lambda at: _zoomed_fault(float(np.exp(at[0]))), [np.log(factor)], [0.08])
        return _zoomed_fault(_simple(float(np.exp(log))))
    if fault.kind == "principal point":
        size = np.array([before.width, before.height])
        moved_by = (after.K[:2, 2] - before.K[:2, 2]) / size
        x, y = _climbed(views, lambda at: _panned_fault(views, *at), moved_by, [2 / SIDE, 2 / SIDE])
        return _panned_fault(views, x, y)
    if fault.kind == "shifted":
        shift = after.c2w[:3, 3] - before.c2w[:3, 3]
        return _shifted_fault(np.array(_climbed(views, _shifted_fault, shift, [0.02, 0.02, 0.02])))
    return fault


def _climbed(
    views: Sequence[HeadView],
    fault_at: Callable[[np.ndarray], CameraFault],
    start: Sequence[float] | np.ndarray,
    steps: Sequence[float],
) -> list[float]:
    """Where the score is best near a start: along one axis after the other, with steps that are halved."""
    at = np.array(start, float)
    best = fit_of(views, fault_at(at).change).score
    for halving in range(_HALVINGS):
        for axis, step in enumerate(steps):
            for sign in (1, -1):
                tried = at.copy()
                tried[axis] += sign * step / 2**halving
                score = fit_of(views, fault_at(tried).change).score
                if score > best:
                    at, best = tried, score
    return [float(value) for value in at]


def _simple(factor: float) -> float:
    """A power of two, if the factor nearly is one: images are halved or doubled."""
    power = 2.0 ** round(np.log2(factor))
    return power if abs(factor / power - 1) < _NEARLY else factor


def _mirrored() -> Iterator[CameraFault]:
    for axis, name in enumerate("xyz"):
        scale = np.eye(4)
        scale[axis, axis] = -1
        yield CameraFault("mirrored", f"have a mirrored {name} axis", _times(scale, right=True))
        yield CameraFault(
            "mirrored", f"stand in a world with a mirrored {name} axis", _times(scale, right=False)
        )


def _matrix_faults() -> Iterator[CameraFault]:
    yield CameraFault("inverted", "are world-to-camera; camera-to-world is expected", _inverted)
    yield CameraFault("axes", "have OpenCV's axes (y down, z forward); OpenGL's are expected", _other_axes)
    yield CameraFault(
        "inverted and axes",
        "are world-to-camera with OpenCV's axes; camera-to-world with OpenGL's axes is expected",
        lambda camera: _other_axes(_inverted(camera)),
    )
    for unit, name in _UNITS.items():
        yield CameraFault("unit", f"stand in {name}; metres are expected", in_metres(unit))
    for turns, name in _TURNS.items():
        yield CameraFault("turned", f"belong to images that lie {name}", turned(turns))


def _place_faults(views: Sequence[HeadView]) -> Iterator[CameraFault]:
    if (shift := _head_from_cameras(views)) is not None:
        yield _shifted_fault(shift)


def _shifted_fault(shift: Float[np.ndarray, " 3"]) -> CameraFault:
    distance = 100 * float(np.linalg.norm(shift))
    return CameraFault("shifted", f"look past the head by {distance:.0f} cm", moved(shift))


def _zoomed_fault(factor: float) -> CameraFault:
    what = f"have focal lengths {1 / factor:.2f} times as long as they should be"
    return CameraFault("focal length", what, zoomed(factor))


def _point_faults(views: Sequence[HeadView]) -> Iterator[CameraFault]:
    edges: tuple[Edge, ...] = ("top", "bottom")
    for edge in edges:
        frames = [view.frame for view in views]
        if all(f.cx is not None and f.cy is not None and f.cy_from is None for f in frames):
            off = max(abs(f.cy - f.height / 2) + abs(f.cx - f.width / 2) for f in frames)  # type: ignore[operator]
            if off > 1.0:
                what = f"have principal points off the centre, with cy from the {edge} edge; training takes the centre"
                yield CameraFault(
                    f"cy from {edge}", what, _file_point(views, edge), partial(_with_edge, edge=edge)
                )
    if (offset := _offset_in_image(views)) is not None:
        yield _panned_fault(views, *offset)


def _panned_fault(views: Sequence[HeadView], x: float, y: float) -> CameraFault:
    off = f"{x * views[0].camera.width:+.0f}, {y * views[0].camera.height:+.0f} pixels"
    return CameraFault(
        "principal point", f"have a principal point that should be moved by {off}", panned(x, y)
    )


# -- changes --------------------------------------------------------------------------------------------------------------


def _inverted(camera: Camera) -> Camera:
    if not is_camera(camera.c2w):
        return camera
    return Camera(np.linalg.inv(camera.c2w), camera.K, camera.width, camera.height)


def _other_axes(camera: Camera) -> Camera:
    return Camera(camera.c2w @ np.diag([1.0, -1.0, -1.0, 1.0]), camera.K, camera.width, camera.height)


def _times(matrix: Float[np.ndarray, "4 4"], right: bool) -> CameraChange:
    def change(camera: Camera) -> Camera:
        c2w = camera.c2w @ matrix if right else matrix @ camera.c2w
        return Camera(c2w, camera.K, camera.width, camera.height)

    return change


def in_metres(unit: float) -> CameraChange:
    """Positions times the metres in a unit."""

    def change(camera: Camera) -> Camera:
        c2w = camera.c2w.copy()
        c2w[:3, 3] *= unit
        return Camera(c2w, camera.K, camera.width, camera.height)

    return change


def moved(by: Float[np.ndarray, " 3"]) -> CameraChange:
    """Positions moved, metres."""

    def change(camera: Camera) -> Camera:
        c2w = camera.c2w.copy()
        c2w[:3, 3] += by
        return Camera(c2w, camera.K, camera.width, camera.height)

    return change


def zoomed(factor: float) -> CameraChange:
    """Focal lengths times a factor."""

    def change(camera: Camera) -> Camera:
        K = camera.K.copy()
        K[0, 0] *= factor
        K[1, 1] *= factor
        return Camera(camera.c2w, K, camera.width, camera.height)

    return change


def panned(x: float, y: float) -> CameraChange:
    """The principal point moved by shares of the image's width and height, to the right and down."""

    def change(camera: Camera) -> Camera:
        K = camera.K.copy()
        K[0, 2] += x * camera.width
        K[1, 2] += y * camera.height
        return Camera(camera.c2w, K, camera.width, camera.height)

    return change


def turned(quarters: int) -> CameraChange:
    """The camera of an image that was turned by quarters to the left (as `numpy.rot90` turns it)."""

    def change(camera: Camera) -> Camera:
        for _ in range(quarters):
            camera = _turned_once(camera)
        return camera

    return change


def _turned_once(camera: Camera) -> Camera:
    # A pixel at (x, y) goes to (y, w - x): right becomes up.
    (fx, _, cx), (_, fy, cy), _ = camera.K
    K = np.array([[fy, 0.0, cy], [0.0, fx, camera.width - cx], [0.0, 0.0, 1.0]])
    turn = np.array([[0.0, 1.0, 0.0, 0.0], [-1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0], [0.0, 0.0, 0.0, 1.0]])
    return Camera(camera.c2w @ turn, K, camera.height, camera.width)


def sized(width_ratio: float, height_ratio: float) -> CameraChange:
    """The camera of an image that was scaled."""

    def change(camera: Camera) -> Camera:
        K = camera.K * np.array([[width_ratio], [height_ratio], [1.0]])
        return Camera(camera.c2w, K, round(camera.width * width_ratio), round(camera.height * height_ratio))

    return change


def _with_edge(frame: FrameEntry, edge: Edge) -> FrameEntry:
    return replace(frame, cy_from=edge) if frame.cx is not None and frame.cy is not None else frame


def _file_point(views: Sequence[HeadView], edge: Edge) -> CameraChange:
    """The principal point of the files; all cameras of a capture are looked up by their matrix and focal length."""
    known = {view.camera.c2w.tobytes(): view.frame for view in views}

    def change(camera: Camera) -> Camera:
        frame = known.get(camera.c2w.tobytes())
        if frame is None:
            return camera
        x, y = frame.principal_point(edge)
        K = camera.K.copy()
        K[0, 2], K[1, 2] = x, y
        return Camera(camera.c2w, K, camera.width, camera.height)

    return change


# -- estimates ------------------------------------------------------------------------------------------------------------


def _offset_in_image(views: Sequence[HeadView]) -> tuple[float, float] | None:
    """How far the silhouettes have to go, as shares of the image's size, to lie best on the foreground; None if they are there."""
    total: np.ndarray | None = None
    for view in views:
        mesh = view.silhouette(view.camera).astype(np.float64)
        if not mesh.any() or mesh.shape != views[0].foreground.shape:
            return None
        # Outside of the foreground costs as much as inside gains.
        target = 2.0 * view.foreground - 1.0
        shape = tuple(2 * side for side in mesh.shape)
        match = np.fft.irfft2(np.fft.rfft2(target, shape) * np.conj(np.fft.rfft2(mesh, shape)), shape)
        total = match / mesh.sum() if total is None else total + match / mesh.sum()
    if total is None:
        return None
    h, w = views[0].foreground.shape
    best = np.argwhere(total >= total.max() - 0.01 * len(views))
    signed = (best + np.array([h, w])) % np.array([2 * h, 2 * w]) - np.array([h, w])
    # Hair and shoulders leave room: of all offsets that are as good, their middle.
    y, x = signed.mean(0) if len(signed) < 40 else signed[np.abs(signed).sum(1).argmin()]
    return None if abs(x) + abs(y) < 2 else (float(x / w), float(y / h))


def _head_from_cameras(views: Sequence[HeadView]) -> Float[np.ndarray, " 3"] | None:
    """How far the cameras have to move so that the rays through the foreground's centres meet in the head; needs two directions."""
    origins, directions, centres = [], [], []
    for view in views:
        rows, columns = np.nonzero(view.foreground > 0.5)
        if not len(rows):
            continue
        h, w = view.foreground.shape
        x = ((columns.mean() + 0.5) * view.camera.width / w - view.camera.K[0, 2]) / view.camera.K[0, 0]
        y = ((rows.mean() + 0.5) * view.camera.height / h - view.camera.K[1, 2]) / view.camera.K[1, 1]
        ray = view.camera.c2w[:3, :3] @ np.array([x, -y, -1.0])
        directions.append(ray / np.linalg.norm(ray))
        origins.append(view.camera.c2w[:3, 3])
        centres.append((view.head.vertices.min(0) + view.head.vertices.max(0)) / 2)
    if len(origins) < 2:
        return None
    across = np.eye(3) - np.array(directions)[:, :, None] * np.array(directions)[:, None, :]
    system = across.sum(0)
    if np.linalg.cond(system) > 100:
        return None
    # A point p + c of each view, c its head's centre: what moves is p.
    meeting = np.linalg.solve(system, (across @ (np.array(origins) - np.array(centres))[:, :, None]).sum(0))[
        :, 0
    ]
    return -meeting
