"""Figures of an edited avatar against the true edited person: colours, alpha, depth of the new parts, and what floats."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from scipy.spatial import cKDTree

from edit3dgs_ns.evaluation.image_metrics import image_quality
from edit3dgs_ns.run_evaluation.truth import spread
from edit3dgs_ns.runs.trained_run import TrainedRun
from edit3dgs_ns.synthetic.replay import trace_edited
from edit3dgs_ns.synthetic.true_edits import edited_person

STRAY = 0.02
"""Distance from the true geometry that is too far, metres."""
_VISIBLE = 0.1
"""Opacity from which a Gaussian counts."""


@dataclass(frozen=True)
class View:
    """A held-out view: what the avatars show, and what is true."""

    edited: Float[np.ndarray, "height width 3"]
    unedited: Float[np.ndarray, "height width 3"]
    true: Float[np.ndarray, "height width 3"]
    alpha_wrong: float
    """Share of the pixels."""
    depth_errors: Float[np.ndarray, " pixels"]
    """Inside the new parts, metres, absolute."""


@torch.no_grad()
def views_of(edited: TrainedRun, base: TrainedRun, edit: str, most: int) -> list[View]:
    """Views of the unseen sequence.

    Args:
        edited, base: runs of the edited avatar and of the one before.
        edit: a key of TRUE_EDITS.
        most: of the views.
    """
    split = edited.split("test")
    result = []
    for index in spread(len(split), most):
        camera = split.cameras[index : index + 1]
        outputs = edited.pipeline.model.get_outputs_for_camera(camera.to(edited.pipeline.device))
        alpha, depth = (outputs[name][..., 0].cpu().numpy() for name in ("accumulation", "depth"))
        path = Path(split.dataset.image_filenames[index])
        hits = trace_edited(path, edit)
        person = edited_person(hits.scene.identity, edit)
        inside = (hits.new_parts > 0.5) & (hits.mask > 0.9) & (alpha > 0.5)
        result.append(
            View(
                outputs["rgb"].clamp(0, 1).cpu().numpy(),
                base.render(camera).rgb,
                hits.shade(person.appearance).rgb,
                float(((alpha > 0.5) != (hits.mask > 0.5)).mean()),
                np.abs(depth - hits.depth)[inside],
            )
        )
    return result


@torch.no_grad()
def stray_gaussians(run: TrainedRun, edit: str) -> int:
    """Visible Gaussians that are far from the true edited geometry, at one timestep of the unseen sequence."""
    split, model = run.split("test"), run.pipeline.model
    index = len(split) // 2
    scene = trace_edited(Path(split.dataset.image_filenames[index]), edit).scene
    faces = scene.baked.faces
    true = np.concatenate([scene.vertices, scene.vertices[faces].mean(axis=1)])
    shown = model.gaussians_at(float(split.times[index])).means
    opaque = torch.sigmoid(model.gauss_params["opacities"][:, 0]) > _VISIBLE
    distance, _ = cKDTree(true).query(shown[opaque].cpu().numpy())
    return int((distance > STRAY).sum())


def figures_of(views: list[View]) -> dict[str, Any]:
    """Figures over all views."""
    errors = np.concatenate([view.depth_errors for view in views])
    errors = errors[np.isfinite(errors)]
    return {
        "psnr_to_true": round(image_quality((view.edited, view.true) for view in views).psnr, 2),
        "psnr_unedited": round(image_quality((view.unedited, view.true) for view in views).psnr, 2),
        "alpha_wrong": round(float(np.mean([view.alpha_wrong for view in views])), 4),
        "depth_mm": None if not len(errors) else round(1000 * float(np.median(errors)), 2),
    }


def sheet_of(views: list[View]) -> Float[np.ndarray, "height width 3"]:
    """Unedited, edited and true, one row each."""
    rows = [np.concatenate([getattr(v, name) for v in views], 1) for name in ("unedited", "edited", "true")]
    return np.concatenate(rows, 0)
