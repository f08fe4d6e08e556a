"""ARKit's 52 actions on FLAME: expression and jaw that move the face as each action moves the open head's.

Solved once on the meshes. The landmarks' points are known on both heads; the open head's, each action done in full, say where
FLAME's are to go, scaled to its size. FLAME's coefficients are the least squares solution with a ridge and within limits.
Eyeballs are joints of both heads and are turned alike.
"""

from __future__ import annotations

import hashlib
import os
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from scipy.optimize import lsq_linear
from torch import Tensor

from edit3dgs_ns.errors import UserError
from edit3dgs_ns.files import written_beside
from edit3dgs_ns.flame.arkit import ARKIT_NAMES, JAW_OPEN, ArkitRecording, arkit_notes, gaze_of
from edit3dgs_ns.flame.assets import OPEN_HEAD_PATH, FlameAssets
from edit3dgs_ns.flame.loading import load_assets
from edit3dgs_ns.flame.model import FlameModel
from edit3dgs_ns.flame.motion import FlameMotion
from edit3dgs_ns.flame.motion_files import RecordedMotion
from edit3dgs_ns.tracking.detector import FIRST_IRIS
from edit3dgs_ns.tracking.landmark_table import LandmarkTable, load_landmark_table
from edit3dgs_ns.tracking.landmark_transfer import dense_table_of
from edit3dgs_ns.tracking.surface_points import JAW, NUM_POSE, SurfacePoints

NOISE = 0.0003
"""Metres that a landmark's displacement may be missed by before a coefficient moves by its own spread."""
EXPRESSION_STD = 1.0
"""Spread of FLAME's coefficients."""
MOST_EXPRESSION = 3.0
"""Beyond this, coefficients of FLAME are no faces any more."""
JAW_STD = (0.2, 0.1, 0.1)
"""Radians, of actions that move the jaw."""
JAW_STILL = 0.002
"""Radians, of all others."""
OF_THE_JAW = ("jawOpen", "jawForward", "jawLeft", "jawRight")
NOT_SEEN = ("tongueOut",)
"""No landmark shows them, and FLAME has no tongue."""
STEPS = 3
"""Gauss-Newton steps: a turning jaw is not linear."""


@dataclass(frozen=True)
class ArkitActions:
    """What each of `ARKIT_NAMES` does to a head, done in full."""

    expr: Float[Tensor, "52 E"]
    jaw: Float[Tensor, "52 3"]
    """Radians."""

    def expression(self, name: str) -> Float[Tensor, " E"]:
        """The expression of one action, without the jaw."""
        return self.expr[ARKIT_NAMES.index(name)]


def arkit_actions(head: FlameAssets) -> ArkitActions:
    """The actions on a head model; those of FLAME are kept in the user's cache folder.

    Raises:
        UserError: the points of the face cannot be found on this mesh.
    """
    if head.expression_names is not None:
        return _own_actions(head)
    path = _cache_path(head)
    kept = _kept(path, head)
    if kept is not None:
        return kept
    actions = solve_actions(head)
    try:
        with written_beside(path) as partial, partial.open("wb") as file:
            np.savez(file, expr=actions.expr.numpy(), jaw=actions.jaw.numpy())
    except (OSError, UserError):
        pass  # a cache that cannot be written costs time alone
    return actions


def arkit_on_flame(recording: ArkitRecording, head: FlameAssets) -> RecordedMotion:
    """A recording of ARKit's coefficients as a motion of FLAME, with neck and head still."""
    actions = arkit_actions(head)
    rows = [ARKIT_NAMES.index(name) for name in recording.names]
    amounts = torch.from_numpy(recording.amounts)
    motion = FlameMotion.zeros(len(amounts), head.shapedirs.shape[2], head.exprdirs.shape[2])
    motion.expr[:] = amounts @ actions.expr[rows]
    motion.jaw_pose[:] = amounts @ actions.jaw[rows]
    motion.eyes_pose[:] = gaze_of(dict(zip(recording.names, recording.amounts.T, strict=True)), len(amounts))
    solved = [name for name in recording.names if name not in NOT_SEEN]
    notes = arkit_notes(
        recording, solved, f"{len(solved)} move FLAME's expression and jaw as they move the open head's"
    )
    return RecordedMotion(motion, recording.source, fps=recording.fps, has_head_pose=False, notes=notes)


def solve_actions(head: FlameAssets) -> ArkitActions:
    """Expression and jaw for every action; see the module."""
    table = dense_table_of(head)
    open_head = load_assets(OPEN_HEAD_PATH)
    own = load_landmark_table(open_head)
    shared = [int(number) for number in table.landmarks if number < FIRST_IRIS]
    source, target = _points(open_head, own, shared), _points(head, table, shared)
    displaced, at_rest = _displacements(open_head, source)
    rest = target.positions(_no_shape(head), torch.zeros(1, NUM_POSE + head.exprdirs.shape[2]).double())[0]
    goal = rest + torch.einsum("ij,alj->ali", _similarity(at_rest, rest), displaced)
    solved = torch.zeros(len(ARKIT_NAMES), NUM_POSE + head.exprdirs.shape[2]).double()
    for number, name in enumerate(ARKIT_NAMES):
        if name not in NOT_SEEN:
            solved[number] = _solve(target, _no_shape(head), goal[number], name in OF_THE_JAW)
    return ArkitActions(solved[:, NUM_POSE:].float(), solved[:, JAW].float())


def _own_actions(head: FlameAssets) -> ArkitActions:
    """Those of a head whose expressions have the actions' names."""
    assert head.expression_names is not None
    expr, jaw = torch.zeros(len(ARKIT_NAMES), len(head.expression_names)), torch.zeros(len(ARKIT_NAMES), 3)
    for number, name in enumerate(ARKIT_NAMES):
        if name != "jawOpen" and name in head.expression_names:
            expr[number, head.expression_index(name)] = 1
    jaw[ARKIT_NAMES.index("jawOpen"), 0] = JAW_OPEN
    return ArkitActions(expr, jaw)


def _points(head: FlameAssets, table: LandmarkTable, numbers: list[int]) -> SurfacePoints:
    rows = np.array([int(np.flatnonzero(table.landmarks == number)[0]) for number in numbers])
    faces, barycentric = torch.from_numpy(table.faces[rows]), torch.from_numpy(table.barycentric[rows])
    return SurfacePoints.of(FlameModel.from_assets(head), faces, barycentric)


def _displacements(
    head: FlameAssets, points: SurfacePoints
) -> tuple[Float[Tensor, "52 L 3"], Float[Tensor, "L 3"]]:
    """How each action moves the open head's points, and where they are at rest."""
    actions = _own_actions(head)
    rows = torch.zeros(1 + len(ARKIT_NAMES), NUM_POSE + actions.expr.shape[1]).double()
    rows[1:, NUM_POSE:], rows[1:, JAW] = actions.expr.double(), actions.jaw.double()
    positions = points.positions(_no_shape(head), rows)
    return positions[1:] - positions[:1], positions[0]


def _similarity(points: Float[Tensor, "L 3"], onto: Float[Tensor, "L 3"]) -> Float[Tensor, "3 3"]:
    """Scaled rotation that lays one set of points on another best (Umeyama, 1991)."""
    a, b = points - points.mean(0), onto - onto.mean(0)
    u, s, v = torch.linalg.svd(b.T @ a)
    signs = torch.ones(3).double()
    signs[2] = torch.sign(torch.linalg.det(u @ v))
    return (s * signs).sum() / a.square().sum() * (u * signs) @ v


def _solve(
    points: SurfacePoints, shape: Tensor, goal: Float[Tensor, "L 3"], jaw: bool
) -> Float[Tensor, " D"]:
    """Jaw and expression that bring the points nearest to their goals."""
    row = torch.zeros(1, NUM_POSE + points.exprdirs.shape[-1]).double()
    unknown = torch.cat([torch.arange(JAW.start, JAW.stop), torch.arange(NUM_POSE, row.shape[1])])
    std = np.full(len(unknown), EXPRESSION_STD)
    std[:3] = JAW_STD if jaw else JAW_STILL
    limit = np.concatenate([[0.6] * 3, np.full(len(unknown) - 3, MOST_EXPRESSION)])
    for _ in range(STEPS):
        posed = points.posed(shape, row)
        coordinates = torch.eye(3, dtype=row.dtype).expand(1, len(goal), 3, 3)
        slope = posed.derivatives(coordinates)[0][0].flatten(0, 1)[:, unknown].numpy() / NOISE
        now = row[0, unknown].numpy()
        error = (goal - posed.positions[0]).flatten().numpy() / NOISE + slope @ now
        # The same sum of squares with as many rows as unknowns.
        lower = np.linalg.cholesky(slope.T @ slope + np.diag(std**-2.0))
        solution = lsq_linear(lower.T, np.linalg.solve(lower, slope.T @ error), (-limit, limit)).x
        row[0, unknown] = torch.from_numpy(solution)
    return row[0]


def _no_shape(head: FlameAssets) -> Float[Tensor, " S"]:
    return torch.zeros(head.shapedirs.shape[2]).double()


def _kept(path: Path, head: FlameAssets) -> ArkitActions | None:
    try:
        with np.load(path, allow_pickle=False) as file:
            actions = ArkitActions(torch.from_numpy(file["expr"]), torch.from_numpy(file["jaw"]))
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
    wanted = (len(ARKIT_NAMES), head.exprdirs.shape[2])
    return actions if tuple(actions.expr.shape) == wanted and len(actions.jaw) == len(ARKIT_NAMES) else None


def _cache_path(head: FlameAssets) -> Path:
    digest = hashlib.sha256(OPEN_HEAD_PATH.read_bytes())
    for values in (head.v_template, head.faces.astype(np.int64), head.exprdirs, head.weights):
        digest.update(np.ascontiguousarray(values).tobytes())
    root = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    return root / "edit3dgs" / "arkit" / f"{digest.hexdigest()[:20]}.npz"
