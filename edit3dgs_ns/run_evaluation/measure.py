"""Measures one edited run in one setting: renders every frame before and after the edit, and compares."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from edit3dgs_ns.evaluation.clip_scores import direction_consistency, direction_similarity
from edit3dgs_ns.evaluation.correspondence import PixelMatches, temporal_flicker
from edit3dgs_ns.evaluation.identity import IdentityEmbedding, identity_similarity
from edit3dgs_ns.evaluation.image_layout import to_uint8
from edit3dgs_ns.evaluation.image_metrics import mean_change
from edit3dgs_ns.evaluation.report_data import Figure, SettingReport, mean
from edit3dgs_ns.files import written_beside
from edit3dgs_ns.rendering.views import EvaluationView, Setting
from edit3dgs_ns.run_evaluation.runs import driven_by
from edit3dgs_ns.runs.trained_run import TrainedRun
from edit3dgs_ns.training.surface_maps import AvatarMaps

Embed = Callable[[Sequence[UInt8[np.ndarray, "height width 3"]]], Float[np.ndarray, "images size"]]


@dataclass(frozen=True)
class Captions:
    """The two captions of an edit, and their embeddings."""

    source: str
    target: str
    source_embedding: Float[np.ndarray, " size"]
    target_embedding: Float[np.ndarray, " size"]


@dataclass(frozen=True)
class Embedders:
    """Image embeddings of CLIP and of the identity network, and the edit's captions."""

    embed: Embed
    """CLIP's image embeddings."""
    identity: Embed | None
    """Of the identity network; None without one."""
    captions: Captions


@dataclass
class _PathRenders:
    """Renders of one camera path as uint8, and the figures of each frame."""

    before: list[UInt8[np.ndarray, "height width 3"]] = field(default_factory=list)
    after: list[UInt8[np.ndarray, "height width 3"]] = field(default_factory=list)
    flicker: list[float] = field(default_factory=list)
    flicker_before: list[float] = field(default_factory=list)
    on_head: list[float] = field(default_factory=list)
    on_background: list[float] = field(default_factory=list)


def measure_setting(
    base: TrainedRun,
    edited: TrainedRun,
    setting: Setting,
    embedders: Embedders,
    frames: Path | None = None,
    tick: Callable[[], None] = lambda: None,
) -> SettingReport:
    """Renders all frames of a setting before and after the edit, and measures them.

    Args:
        base: the avatar before the edit; its canonical maps give the surface points for both.
        edited: the avatar after it.
        setting: what is rendered.
        embedders: of CLIP and identity.
        frames: folder to write every frame to.
        tick: called after every frame.
    """
    report = SettingReport(frames=setting.count)
    series: dict[str, list[float]] = {}
    changes: list[tuple[float, float]] = []
    for path in setting.paths:
        with driven_by([base, edited], setting.motion):
            renders = _render(base, edited, path, frames, tick)
        for name, values in _scores(renders, embedders).items():
            series.setdefault(name, []).extend(values)
        changes += zip(renders.on_head, renders.on_background, strict=True)
    report.series = series
    for name in ("clip_s", "clip_c", "identity"):
        if name in series:
            report.figures[name] = Figure(mean(series[name]))
    report.figures["flicker"] = Figure(mean(series["flicker"]), mean(series["flicker_before"]))
    for column, name in enumerate(("change_on_head", "change_on_background")):
        report.figures[name] = Figure(mean([change[column] for change in changes]))
    return report


def _render(
    base: TrainedRun,
    edited: TrainedRun,
    path: Sequence[EvaluationView],
    frames: Path | None,
    tick: Callable[[], None],
) -> _PathRenders:
    maps = AvatarMaps(base.pipeline.datamanager, base.pipeline.model)
    renders = _PathRenders()
    last: Float[np.ndarray, "height width 3"] | None = None
    for view in path:
        before, after = base.render(view.camera), edited.render(view.camera).rgb
        here = maps.canonical_of(view.camera)
        renders.before.append(to_uint8(before.rgb))
        renders.after.append(to_uint8(after))
        if last is not None and last.shape == here.shape:
            _add_flicker(renders, PixelMatches.between(here, last))
        else:
            renders.flicker.append(float("nan"))
            renders.flicker_before.append(float("nan"))
        _add_change(renders, before.rgb, after, before.alpha > 0.5)
        last = here
        if frames is not None:
            for which, image in (("before", renders.before[-1]), ("after", renders.after[-1])):
                save_png(image, frames / f"{view.label}_{which}.png")
        tick()
    return renders


def _add_flicker(renders: _PathRenders, matches: PixelMatches) -> None:
    for images, values in ((renders.after, renders.flicker), (renders.before, renders.flicker_before)):
        pair = np.stack(images[-2:]).astype(np.float32) / 255
        values.append(float(temporal_flicker(pair, [matches])[0]))


def _add_change(renders: _PathRenders, before: np.ndarray, after: np.ndarray, head: np.ndarray) -> None:
    if head.all() or not head.any():
        renders.on_head.append(float("nan"))
        renders.on_background.append(float("nan"))
        return
    change = mean_change(before[None], after[None], head[None])
    renders.on_head.append(change.on_head)
    renders.on_background.append(change.on_background)


def _scores(renders: _PathRenders, embedders: Embedders) -> dict[str, list[float]]:
    """Values of every frame by figure; figures of steps are NaN at the first frame of a path."""
    before, after = embedders.embed(renders.before), embedders.embed(renders.after)
    captions = embedders.captions
    scores = direction_similarity(before, after, captions.source_embedding, captions.target_embedding)
    series = {
        "clip_s": scores.tolist(),
        "clip_c": [float("nan"), *direction_consistency(before, after).tolist()],
        "flicker": renders.flicker,
        "flicker_before": renders.flicker_before,
    }
    if embedders.identity is not None:
        faces = embedders.identity(renders.before), embedders.identity(renders.after)
        series["identity"] = identity_similarity(*faces).tolist()
    return series


def save_png(image: UInt8[np.ndarray, "height width 3"], path: Path) -> None:
    """Writes a PNG atomically."""
    with written_beside(path) as partial:
        Image.fromarray(image).save(partial, format="png")


def embedder_of(network: IdentityEmbedding, image_embedder: Embed, clip: object) -> Embed:
    """Embedding function of an identity network: the cached one of CLIP where it is that CLIP."""
    return image_embedder if network is clip else network.embed_images
