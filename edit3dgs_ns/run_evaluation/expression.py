"""Expression error of an edited avatar: the unedited avatar is fitted to its renders, and the poses are compared.

The fit has an error of its own, larger where an edit has added wrinkles that resemble shadows. So the error of the same fit on
images of the right expression is reported beside it: on the capture's true edits where there are any, else on the unedited
renders.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, fields, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from edit3dgs_ns.evaluation.expression_error import ExpressionError, expression_error
from edit3dgs_ns.evaluation.expression_fit import FitOptions, fit_expression
from edit3dgs_ns.evaluation.expressions import most_different
from edit3dgs_ns.evaluation.report_data import Figure, mean
from edit3dgs_ns.flame.model import FlamePose
from edit3dgs_ns.rendering.views import EvaluationView, Setting
from edit3dgs_ns.run_evaluation.runs import driven_by
from edit3dgs_ns.run_evaluation.truth import TrueEdit
from edit3dgs_ns.runs.trained_run import TrainedRun, moved_camera
from edit3dgs_ns.splats.views import viewmats_from_c2w
from edit3dgs_ns.training.surface_maps import AvatarMaps

_EXPRESSION_REGIONS = ("eyes", "eyelids", "lips", "mouth", "teeth", "tongue")
"""Regions whose pixels an expression is fitted to, as far as the head model names them."""
_EYES = ("eye_left", "eye_right")
"""In the order of `FlamePose.eyes_pose`."""
_OPEN_EYE = 0.03
"""Share of an eyeball's disc that has to show: shut eyes of the demo's capture leave 0.014 at most, eyes half shut 0.05."""
_REACH = 12
"""Their surroundings count too: a twelfth of the image's height on each side together."""


class ExpressionFits:
    """Fits one avatar to renders; caches the fits to its own renders, which do not depend on the edit.

    Args:
        base: the avatar before the edit.
        count: frames of a setting that are fitted, the most different ones.
        options: of the fit.
    """

    def __init__(self, base: TrainedRun, count: int, options: FitOptions | None = None):
        self._base, self.count, self._options = base, count, options
        self._own: dict[tuple[str, str, str], ExpressionError] = {}
        self._regions = base.head.vertex_regions
        self._faces = self._faces_of(*_EXPRESSION_REGIONS)

    def figures(
        self,
        edited: TrainedRun,
        setting: Setting,
        truth: TrueEdit | None = None,
        tick: Callable[[], None] = lambda: None,
    ) -> dict[str, Figure]:
        """Jaw, lips, lids and gaze: mean error over frames, and that of the same fit on images of the right expression.

        Args:
            edited: the avatar after the edit.
            setting: cameras and timesteps.
            truth: the true edit, if there is one; known for frames of the capture alone.
            tick: called after every frame.
        """
        rows: list[tuple[dict[str, float | None], dict[str, float | None]]] = []
        with driven_by([self._base, edited], setting.motion):
            views, start = self._chosen(setting)
            sure = truth if all(view.image is not None for view in views) else None
            for view in views:
                found = self._error(edited.render(view.camera).rgb, view, start)
                rows.append((asdict(found), asdict(self._own_error(setting, view, start, sure))))
                tick()
        figures = {}
        for field in fields(ExpressionError):
            known = [row for row in rows if row[0][field.name] is not None]
            if known:
                value, own = (mean([float(row[i][field.name] or 0.0) for row in known]) for i in (0, 1))
                figures[field.name] = Figure(value, own, "" if sure is None else "true edit")
        return figures

    def _own_error(
        self, setting: Setting, view: EvaluationView, start: FlamePose, truth: TrueEdit | None
    ) -> ExpressionError:
        """The fit's own error: on the true edit, or on the unedited render."""
        key = (setting.key, view.label, "" if truth is None else truth.key)
        if key not in self._own:
            if truth is None:
                image = self._base.render(view.camera).rgb
            else:
                assert view.image is not None
                image = truth.render(view.image).astype(np.float32)
            self._own[key] = self._error(image, view, start)
        return self._own[key]

    def _chosen(self, setting: Setting) -> tuple[list[EvaluationView], FlamePose]:
        """The frames that are fitted, and the mean pose of all, from which every fit starts."""
        views = [view for path in setting.paths for view in path]
        if not views:
            return [], self._pose(0.0)
        poses = [self._pose(_time(view)) for view in views]
        features = torch.cat(
            [_rows(poses, "expr"), 3 * _rows(poses, "jaw_pose"), 3 * _rows(poses, "eyes_pose")], 1
        )
        first = int(_rows(poses, "jaw_pose").norm(dim=1).argmax())
        chosen = most_different(features.cpu().numpy(), self.count, first)
        averages = {name: _rows(poses, name).mean(0, keepdim=True) for name in vars(poses[0])}
        return [views[i] for i in chosen], FlamePose(**averages)

    def _error(
        self, shown: Float[np.ndarray, "height width 3"], view: EvaluationView, start: FlamePose
    ) -> ExpressionError:
        """Error between the pose fitted to an image and the pose of the rig."""
        wanted = self._pose(_time(view))
        begin = replace(
            start, rotation=wanted.rotation, neck_pose=wanted.neck_pose, translation=wanted.translation
        )
        model = self._base.pipeline.model
        image = torch.from_numpy(shown).to(model.device)
        region = self._region(view, begin)
        camera, rows, columns = _cropped(view.camera.to(model.device), region)

        def draw(pose: FlamePose) -> Float[Tensor, "height width 3"]:
            return model.draw(camera, pose)

        found = fit_expression(
            draw, image[rows, columns], wanted, [begin], region[rows, columns], self._options
        )
        head = model.head.flame.shaped(model.head.shape, model.head.static_offset)
        return expression_error(head, wanted, found, self._regions, self._eyes_seen(view, wanted))

    def _faces_of(self, *regions: str) -> Bool[np.ndarray, " faces"]:
        """The faces of the rig in any of these regions, as far as the head model names them."""
        assets = self._base.head
        chosen = np.zeros(len(assets.faces), bool)
        for region in regions:
            chosen[assets.face_regions.get(region, [])] = True
        return chosen

    def _eyes_seen(self, view: EvaluationView, pose: FlamePose) -> tuple[bool, bool]:
        """Whether the left and the right eye are open and turned to the camera."""
        maps = AvatarMaps(self._base.pipeline.datamanager, self._base.pipeline.model)
        with maps.poses_kept():
            left, right = (self._eye_seen(maps, view, pose, name) for name in _EYES)
        return left, right

    def _eye_seen(self, maps: AvatarMaps, view: EvaluationView, pose: FlamePose, name: str) -> bool:
        if name not in self._base.head.face_regions or name not in self._regions:
            return True  # unknown: a head model without regions
        shown = maps.share_of(view.camera, self._faces_of(name)).sum()
        model = self._base.pipeline.model
        camera = view.camera.to(model.device)
        viewmat = viewmats_from_c2w(camera.camera_to_worlds)[0]
        intrinsics = camera.get_intrinsics_matrices()[0].to(viewmat)
        with torch.no_grad():
            eyeball = model.head.vertices_of(pose)[torch.as_tensor(self._regions[name], device=model.device)]
            pixels = (eyeball @ viewmat[:3, :3].T + viewmat[:3, 3]) @ intrinsics.T
        pixels = pixels[:, :2] / pixels[:, 2:]
        width, height = (pixels.amax(0) - pixels.amin(0)).tolist()
        return float(shown) >= _OPEN_EYE * np.pi / 4 * width * height

    def _region(self, view: EvaluationView, pose: FlamePose) -> Float[Tensor, "height width"]:
        """Mask of the surroundings of eyes and mouth in the starting pose; the whole head where the model names no regions."""
        model = self._base.pipeline.model
        camera = moved_camera(view.camera, time=0.0)
        with driven_by([self._base], model.head.motion().with_pose(pose)):
            if not self._faces.any():
                return torch.from_numpy((self._base.render(camera).alpha > 0.5).astype(np.float32)).to(
                    model.device
                )
            maps = AvatarMaps(self._base.pipeline.datamanager, model)
            share = torch.from_numpy(maps.share_of(camera, self._faces)).to(model.device)
        reach = 2 * (share.shape[0] // (2 * _REACH)) + 1
        shown = (share > 0.25).float()[None, None]
        return torch.nn.functional.max_pool2d(shown, reach, stride=1, padding=reach // 2)[0, 0]

    def _pose(self, time: float) -> FlamePose:
        pose = self._base.pipeline.model.head.pose_at(time)
        return FlamePose(**{name: value.detach().clone() for name, value in vars(pose).items()})


def _cropped(camera: Any, region: Float[Tensor, "height width"]) -> tuple[Any, slice, slice]:
    """The camera cropped to the box of the region, and the box's rows and columns: less to render in every step."""
    inside = (region > 0).nonzero()
    if not len(inside):
        return camera, slice(None), slice(None)
    (top, left), (bottom, right) = inside.min(dim=0).values.tolist(), inside.max(dim=0).values.tolist()
    crop = moved_camera(camera)
    crop.cx, crop.cy = crop.cx - left, crop.cy - top
    crop.width, crop.height = crop.width * 0 + (right + 1 - left), crop.height * 0 + (bottom + 1 - top)
    return crop, slice(top, bottom + 1), slice(left, right + 1)


def _rows(poses: list[FlamePose], name: str) -> Float[Tensor, "frames width"]:
    return torch.cat([getattr(pose, name) for pose in poses])


def _time(view: EvaluationView) -> float:
    return 0.0 if view.camera.times is None else float(view.camera.times.flatten()[0])
