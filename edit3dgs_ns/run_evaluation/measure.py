"""Measures one edited run in one setting: renders before and after, frame by frame, and compares."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from edit3dgs_ns.evaluation.clip_scores import direction_consistency, direction_similarity
from edit3dgs_ns.evaluation.identity import IdentityEmbedding, identity_similarity
from edit3dgs_ns.evaluation.image_layout import to_uint8
from edit3dgs_ns.evaluation.image_metrics import mean_change
from edit3dgs_ns.evaluation.report_data import Figure, SettingReport, mean
from edit3dgs_ns.evaluation.same_spot import SameSpots, temporal_flicker
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
class Instruments:
    """What measures."""

    embed: Embed
    """CLIP's image embeddings."""
    identity: Embed | None
    """Of the network that tells people apart; None: not asked for."""
    captions: Captions


@dataclass
class _Taken:
    """Renders of one camera path; 8 bits a channel, as embeddings read them and as a file would hold them."""

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
    instruments: Instruments,
    frames: Path | None = None,
    tick: Callable[[], None] = lambda: None,
) -> SettingReport:
    """Render all frames of a setting before and after the edit, and measure what both show.

    Args:
        base: the avatar before the edit; its maps say which surface point of the head a pixel shows, for both.
        edited: the avatar after it.
        setting: what is rendered.
        instruments: what measures.
        frames: folder that every frame is written to.
        tick: called after every frame.
    """
    report = SettingReport(frames=setting.count)
    series: dict[str, list[float]] = {}
    changes: list[tuple[float, float]] = []
    for path in setting.paths:
        with driven_by([base, edited], setting.motion):
            taken = _render(base, edited, path, frames, tick)
        for name, values in _scores(taken, instruments).items():
            series.setdefault(name, []).extend(values)
        changes += zip(taken.on_head, taken.on_background, strict=True)
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
) -> _Taken:
    maps = AvatarMaps(base.pipeline.datamanager, base.pipeline.model)
    taken = _Taken()
    last: Float[np.ndarray, "height width 3"] | None = None
    for shot in path:
        picture, after = base.render(shot.camera), edited.render(shot.camera).rgb
        here = maps.canonical_of(shot.camera)
        taken.before.append(to_uint8(picture.rgb))
        taken.after.append(to_uint8(after))
        if last is not None and last.shape == here.shape:
            _add_flicker(taken, SameSpots.between(here, last))
        else:
            taken.flicker.append(float("nan"))
            taken.flicker_before.append(float("nan"))
        _add_change(taken, picture.rgb, after, picture.alpha > 0.5)
        last = here
        if frames is not None:
            for which, image in (("before", taken.before[-1]), ("after", taken.after[-1])):
                save_picture(image, frames / f"{shot.label}_{which}.png")
        tick()
    return taken


def _add_flicker(taken: _Taken, spots: SameSpots) -> None:
    for images, values in ((taken.after, taken.flicker), (taken.before, taken.flicker_before)):
        pair = np.stack(images[-2:]).astype(np.float32) / 255
        values.append(float(temporal_flicker(pair, [spots])[0]))


def _add_change(taken: _Taken, before: np.ndarray, after: np.ndarray, head: np.ndarray) -> None:
    if head.all() or not head.any():
        taken.on_head.append(float("nan"))
        taken.on_background.append(float("nan"))
        return
    change = mean_change(before[None], after[None], head[None])
    taken.on_head.append(change.on_head)
    taken.on_background.append(change.on_background)


def _scores(taken: _Taken, instruments: Instruments) -> dict[str, list[float]]:
    """One value for each frame; of figures that belong to steps, the first frame of a path has none."""
    before, after = instruments.embed(taken.before), instruments.embed(taken.after)
    captions = instruments.captions
    scores = direction_similarity(before, after, captions.source_embedding, captions.target_embedding)
    series = {
        "clip_s": scores.tolist(),
        "clip_c": [float("nan"), *direction_consistency(before, after).tolist()],
        "flicker": taken.flicker,
        "flicker_before": taken.flicker_before,
    }
    if instruments.identity is not None:
        faces = instruments.identity(taken.before), instruments.identity(taken.after)
        series["identity"] = identity_similarity(*faces).tolist()
    return series


def save_picture(image: UInt8[np.ndarray, "height width 3"], path: Path) -> None:
    """A PNG that is either whole or not there."""
    with written_beside(path) as partial:
        Image.fromarray(image).save(partial, format="png")


def embedder_of(network: IdentityEmbedding, image_embedder: Embed, clip: object) -> Embed:
    """How a network embeds: through the cache of CLIP's embeddings where it is that CLIP."""
    return image_embedder if network is clip else network.embed_images
