"""What a web page shows of a run: its Gaussians, those from before its edits, the head's rig, the motion and the camera."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from edit3dgs_ns.edit_training.versions import RunHistory
from edit3dgs_ns.errors import UserError
from edit3dgs_ns.flame.assets import FlameAssets
from edit3dgs_ns.rendering.trajectories import head_centre, seen_degrees
from edit3dgs_ns.rendering.views import front_camera
from edit3dgs_ns.runs.trained_run import TrainedRun, pose_matrices
from edit3dgs_ns.splats.checkpoints import model_state, read_checkpoint
from edit3dgs_ns.splats.rigged_gaussians import RiggedGaussians
from edit3dgs_ns.tracking.arkit_actions import arkit_actions
from edit3dgs_ns.web.avatar import web_gaussians, web_motion, web_rig
from edit3dgs_ns.web.scene import WebCamera, WebScene

_BEYOND = 5.0
"""Degrees that the page can be turned beyond the capture's cameras."""


@torch.no_grad()
def web_scene(
    run: TrainedRun,
    fps: float,
    degrees: float | None = None,
    before: RiggedGaussians | None = None,
) -> WebScene:
    """The scene of a run; see `rendering.web_page.export_page`.

    Args:
        run: the avatar, moving as the page is to play it.
        fps: frames per second of its motion.
        degrees: how far the page can be turned; None: as far as the capture's cameras stand, and a little beyond.
        before: the avatar before its edits.
    """
    model = run.pipeline.model
    return WebScene(
        gaussians=web_gaussians(avatar_of(run)),
        rig=web_rig(model.head, run.expression_names, *_actions(run.head)),
        motion=web_motion(model.head.shown_motion(), model.head.flame.num_expr),
        camera=_camera(run, degrees),
        fps=fps,
        before=None if before is None else web_gaussians(before),
        antialiased=model.config.rasterize_mode == "antialiased",
    )


def avatar_of(run: TrainedRun) -> RiggedGaussians:
    """The avatar of a run that is loaded, moving as the run does."""
    model = run.pipeline.model
    params = dict(model.gauss_params.items())
    return RiggedGaussians(params, model.binding, model.head, model.appearance, int(model.sh_degree_reached))


def before_edits(load_config: Path, assets: FlameAssets) -> RiggedGaussians | None:
    """The avatar as it was trained, from the run's history; None for one that was never edited.

    Args:
        load_config: the run's config.yml.
        assets: the head model.
    """
    history = RunHistory(load_config.expanduser().parent)
    chain = history.chain()
    if len(chain) < 2:
        return None
    checkpoint = history.checkpoint(chain[0].number)
    return RiggedGaussians.from_state(model_state(read_checkpoint(checkpoint, "the history's")), assets)


def _actions(assets: FlameAssets) -> tuple[Tensor, Tensor]:
    """Expression and jaw of ARKit's actions on a head."""
    try:
        actions = arkit_actions(assets)
    except UserError:  # a mesh on which the points of a face are not known: it has no actions
        return torch.zeros(0, assets.exprdirs.shape[2]), torch.zeros(0, 3)
    return actions.expr, actions.jaw


def _camera(run: TrainedRun, degrees: float | None) -> WebCamera:
    """The camera in front, turning about the point on its axis that is nearest to the middle of the head."""
    front = front_camera(run)
    c2w = pose_matrices(front)[0]
    position, ahead = c2w[:3, 3], -c2w[:3, 2]
    distance = max(float((head_centre(run) - position) @ ahead), 0.05)
    half = float(front.width[0]) / (2 * float(front.fx[0])), float(front.height[0]) / (2 * float(front.fy[0]))
    target = position + distance * ahead
    aside = (seen_degrees(run, c2w, target) if degrees is None else degrees) / 2
    upwards = 90.0 if degrees is not None else _seen_upwards(run, target, c2w[:3, 1])
    reach = tuple(
        math.radians(min(angle + (_BEYOND if degrees is None else 0), 180)) for angle in (aside, upwards)
    )
    return WebCamera(position=position, target=target, up=c2w[:3, 1], tangents=half, reach=reach)  # type: ignore[arg-type]


def _seen_upwards(run: TrainedRun, target: Float[np.ndarray, " 3"], up: Float[np.ndarray, " 3"]) -> float:
    """The largest angle of a training camera above or below the front one, degrees."""
    offsets = pose_matrices(run.split("train").cameras)[:, :3, 3] - target
    rise = offsets @ up / np.linalg.norm(offsets, axis=1)
    return math.degrees(math.asin(float(np.abs(rise).max())))
