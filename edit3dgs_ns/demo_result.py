"""The demo's last step: sheet, video and report, rendered from the avatar before and after the edit."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float
from nerfstudio.cameras.cameras import Cameras
from rich.progress import Progress

from edit3dgs_ns.console import CONSOLE
from edit3dgs_ns.editing.store import write_atomically
from edit3dgs_ns.evaluation.camera_paths import focus_point, sway
from edit3dgs_ns.evaluation.expressions import describe, most_different
from edit3dgs_ns.evaluation.image_metrics import image_quality, mean_change
from edit3dgs_ns.evaluation.sheet import Column, Row, draw_header, draw_sheet
from edit3dgs_ns.evaluation.video import VideoWriter
from edit3dgs_ns.finished_run import FinishedRun, Split, moved_camera, pose_matrices
from edit3dgs_ns.rounds import HISTORY_FILE

if TYPE_CHECKING:
    from edit3dgs_ns.demo import Demo

SIDE = np.radians(32.0)
"""How far the sheet's side views are turned from the front."""
SWAY = np.radians(24.0)
LIFT = np.radians(6.0)
"""How far the video's camera swings to the sides, and up and down."""
NUM_EXPRESSIONS = 3
SHEET_CELL = 320
"""Greatest width of an image on the sheet, in pixels; larger renders are reduced, which smooths them."""


def write_result(demo: Demo, seconds: Mapping[str, float], start: float) -> None:
    """Render before and after and write the demo's three files.

    Args:
        seconds: what the earlier steps took, for the report.
        start: when this step began, on time.monotonic()'s clock.
    """
    from edit3dgs_ns.demo import BASE_METHOD, run_dir

    settings = demo.settings.render
    base = FinishedRun(run_dir(demo.base_dir, BASE_METHOD) / "config.yml")
    edited = FinishedRun(run_dir(demo.edit_dir, "edit3dgs") / "config.yml")
    with Progress(console=CONSOLE) as progress:
        figures = _figures(base, edited, settings.images_per_task, progress)
        _write_sheet(demo, base, edited, progress)
        _write_video(demo, base, edited, progress)
    history = json.loads((run_dir(demo.edit_dir, "edit3dgs") / HISTORY_FILE).read_text(encoding="utf-8"))
    report = {
        "base": figures["base"],
        "edit": {
            "prompt": demo.settings.prompt,
            "rounds": history["rounds"],
            "edited_images": history["edited_images"],
            **figures["change"],
        },
        "seconds": {**seconds, "render": time.monotonic() - start},
    }
    write_atomically(demo.report, (json.dumps(_rounded(report), indent=2) + "\n").encode())


# ------------------------------------------------------------------------------------------- figures


def _figures(base: FinishedRun, edited: FinishedRun, most: int, progress: Progress) -> dict[str, Any]:
    """The quality of the base avatar on held-out images, and what the edit changed in the same views."""
    quality, befores, afters, heads = {}, [], [], []
    for task, name in (("novel_view", "val"), ("self_reenactment", "test")):
        split = base.split(name)
        pairs = []
        for index in progress.track(
            _spread(len(split), most), description=f"Measuring: {task.replace('_', ' ')}"
        ):
            camera = split.cameras[index : index + 1]
            before = base.render(camera)
            pairs.append((before.rgb, split.image(index)))
            befores.append(before.rgb)
            afters.append(edited.render(camera).rgb)
            heads.append(split.mask(index) > 0.5)
        quality[task] = asdict(image_quality(pairs))
    change = mean_change(np.stack(befores), np.stack(afters), np.stack(heads))
    return {
        "base": quality,
        "change": {"change_on_head": change.on_head, "change_on_background": change.on_background},
    }


def _spread(total: int, most: int) -> list[int]:
    """At most `most` indices below `total`, spread evenly."""
    return sorted({int(i) for i in np.linspace(0, total - 1, min(total, most)).round()})


# --------------------------------------------------------------------------------------------- sheet


def _write_sheet(demo: Demo, base: FinishedRun, edited: FinishedRun, progress: Progress) -> None:
    scale = demo.settings.render.scale
    columns = []
    views = list(_sheet_views(base))
    for group, caption, camera in progress.track(views, description="Drawing the sheet"):
        camera = moved_camera(camera, scale=scale)
        columns.append(Column(caption, [run.render(camera).rgb for run in (base, edited)], group=group))
    rows = [Row("Before"), Row("After", f"“{demo.settings.prompt}”")]
    sheet = draw_sheet(columns, rows, cell_width=min(columns[0].images[0].shape[1], SHEET_CELL))
    partial = demo.sheet.with_suffix(".part.png")
    sheet.save(partial)
    partial.replace(demo.sheet)


def _sheet_views(run: FinishedRun) -> Iterator[tuple[str, str, Cameras]]:
    """(group, caption, camera): three directions at a calm moment, then unseen expressions."""
    val, test = run.split("val"), run.split("test")
    calmest = _calmest(run, val)
    front = val.cameras[calmest : calmest + 1]
    target = focus_point(pose_matrices(run.split("train").cameras))
    # Positive turns move the camera to +x: to the subject's own left, the right side of the picture.
    for caption, angle in (("right side", -SIDE), ("front", 0.0), ("left side", SIDE)):
        # A sway of four poses is at its farthest, `angle`, in the second.
        pose = sway(pose_matrices(front)[0], target, 4, angle)[1]
        yield "views not trained on", caption, moved_camera(front, c2w=pose)
    for index, caption in _expressions(run, test):
        time_ = float(test.times[index])
        yield "expressions of a sequence not trained on", caption, moved_camera(front, time=time_)


def _calmest(run: FinishedRun, split: Split) -> int:
    """The image whose expression is nearest to none."""
    motion = run.motion
    strength = np.linalg.norm(_expression_features(motion, split.timesteps), axis=1)
    return int(strength.argmin())


def _expressions(run: FinishedRun, split: Split) -> list[tuple[int, str]]:
    """Images of clearly different expressions, with captions."""
    motion = run.motion
    jaw = np.linalg.norm(motion.jaw_pose.numpy()[split.timesteps], axis=1)
    features = _expression_features(motion, split.timesteps)
    chosen = most_different(features, NUM_EXPRESSIONS, first=int(jaw.argmax()))
    moments = [(index, split.timesteps[index]) for index in chosen]
    return [
        (index, describe(motion.expr[t].numpy(), motion.jaw_pose[t].numpy(), run.expression_names))
        for index, t in moments
    ]


def _expression_features(motion: Any, timesteps: np.ndarray) -> Float[np.ndarray, "images values"]:
    """Expression, jaw and gaze as one vector; a radian counts like three units of an expression."""
    parts = [motion.expr.numpy(), 3 * motion.jaw_pose.numpy(), 3 * motion.eyes_pose.numpy()]
    return np.concatenate(parts, axis=1)[timesteps]


# --------------------------------------------------------------------------------------------- video


def _write_video(demo: Demo, base: FinishedRun, edited: FinishedRun, progress: Progress) -> None:
    """Before and after side by side, moving through the unseen sequence while the camera sways."""
    settings = demo.settings.render
    count = max(2, round(settings.video_seconds * settings.fps))
    test = base.split("test")
    front = base.split("val").cameras[0:1]
    target = focus_point(pose_matrices(base.split("train").cameras))
    poses = sway(pose_matrices(front)[0], target, count, SWAY, LIFT)
    header: Float[np.ndarray, "height width 3"] | None = None
    with VideoWriter(demo.video, fps=settings.fps) as video:
        moments = list(zip(poses, _times_through(test, count), strict=True))
        for pose, moment in progress.track(moments, description="Filming the unseen sequence"):
            camera = moved_camera(front, c2w=pose, time=moment, scale=settings.scale)
            images = [run.render(camera).rgb for run in (base, edited)]
            if header is None:
                header = draw_header(("before", f"“{demo.settings.prompt}”"), images[0].shape[1])
            video.add(np.concatenate([header, np.concatenate(images, axis=1)], axis=0))


def _times_through(split: Split, count: int) -> Float[np.ndarray, " count"]:
    """`count` times that go through the split's timesteps at an even pace."""
    times = np.unique(split.times)
    return np.interp(np.linspace(0, len(times) - 1, count), np.arange(len(times)), times)


def _rounded(value: Any) -> Any:
    """Floats with the digits that mean something."""
    if isinstance(value, Mapping):
        return {key: _rounded(item) for key, item in value.items()}
    return float(f"{value:.4g}") if isinstance(value, float) else value
