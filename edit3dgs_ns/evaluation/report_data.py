"""Results of an evaluation as plain data: figures of a run, of each setting, and of each frame."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import PurePath
from typing import Any, Literal

import numpy as np

SETTINGS: dict[str, str] = {
    "novel_view": "Novel view",
    "self_reenactment": "Self-reenactment",
    "cross_reenactment": "Cross-identity reenactment",
}
"""The settings of the paper by their key: a held-out camera, a sequence not trained on, another actor's motion."""


@dataclass(frozen=True)
class Figure:
    """A measured value and its reference."""

    value: float | None
    """None (or NaN) where it could not be measured."""
    beside: float | None = None
    """The same metric of the unedited avatar, or of another reference: see `Metric.beside`."""
    beside_of: str = ""
    """Name of the reference, where it is not the metric's."""


@dataclass(frozen=True)
class Metric:
    """Name, format and definition of a figure."""

    title: str
    definition: str
    better: Literal["higher", "lower", ""] = ""
    digits: int = 3
    unit: str = ""
    beside: str = ""
    """Name of the reference in `Figure.beside`."""


METRICS: dict[str, Metric] = {
    "clip_s": Metric(
        "CLIP-S",
        "cosine of the image's change and the captions' change in CLIP's space, mean over frames (StyleGAN-NADA, 2022; "
        "Instruct-NeRF2NeRF, 2023)",
        "higher",
    ),
    "clip_c": Metric(
        "CLIP-C",
        "cosine of the image's change in neighbouring frames of one camera path, mean over steps (Instruct-NeRF2NeRF, 2023)",
        "higher",
    ),
    "identity": Metric("identity similarity", "cosine of the embeddings before and after the edit", "higher"),
    "flicker": Metric(
        "temporal flicker",
        "mean absolute colour difference (0 to 1) of corresponding surface points in neighbouring frames, matched through the "
        "rig (after Lai et al., ECCV 2018)",
        "lower",
        digits=4,
        beside="unedited",
    ),
    "jaw_degrees": Metric(
        "expression error: jaw",
        "angle between the jaw of the rig and the jaw of the unedited avatar fitted to the edited render; beside it the same of an "
        "image of the right expression, the unedited render or the true edit: the fit's own error",
        "lower",
        digits=1,
        unit="°",
        beside="unedited",
    ),
    "lips_mm": Metric(
        "expression error: lips",
        "the same fit: mean distance of the lips' vertices",
        "lower",
        digits=1,
        unit=" mm",
        beside="unedited",
    ),
    "lids_mm": Metric(
        "expression error: lids",
        "the same fit: mean distance of the eyelids' vertices",
        "lower",
        digits=1,
        unit=" mm",
        beside="unedited",
    ),
    "gaze_degrees": Metric(
        "expression error: gaze",
        "the same fit: angle between the gaze directions, where an eye is open",
        "lower",
        digits=1,
        unit="°",
        beside="unedited",
    ),
    "truth_psnr": Metric(
        "PSNR to the true edit",
        "peak signal-to-noise ratio of the edited render and the capture's true edited image",
        "higher",
        digits=2,
        unit=" dB",
        beside="unedited",
    ),
    "truth_ssim": Metric(
        "SSIM to the true edit",
        "structural similarity (Wang et al., 2004) of the same images",
        "higher",
        beside="unedited",
    ),
    "truth_lpips": Metric(
        "LPIPS to the true edit",
        "perceptual distance (Zhang et al., CVPR 2018, AlexNet) of the same images",
        "lower",
        beside="unedited",
    ),
    "change_on_head": Metric(
        "change on the head", "mean absolute difference (0 to 1) of edited and unedited renders, on the head"
    ),
    "change_on_background": Metric("change of the background", "the same, off the head", "lower", digits=4),
    "view_disagreement": Metric(
        "view disagreement",
        "mean absolute colour difference (0 to 1) of corresponding surface points in neighbouring cameras at one timestep",
        "lower",
        digits=4,
        beside="unedited",
    ),
    "edit_minutes": Metric(
        "minutes of editing", "time of the diffusion model's rounds, from the run's history", "lower", 1
    ),
    "edited_images": Metric("edited images", "images that the diffusion model has edited", digits=0),
    "peak_memory_gb": Metric(
        "peak memory", "largest memory of the run while it edited, from its history", "lower", 2, " GB"
    ),
    "gaussians": Metric("Gaussians", "in the edited avatar", digits=0, beside="unedited"),
    "megabytes": Metric(
        "size", "the edited avatar's parameters, float32", "lower", 2, " MB", beside="unedited"
    ),
    "fps": Metric(
        "frames per second",
        "renders at the capture's resolution on this machine, median, posing included",
        "higher",
        1,
        beside="unedited",
    ),
    "psnr": Metric("PSNR", "peak signal-to-noise ratio, white background included", "higher", 2, " dB"),
    "ssim": Metric("SSIM", "structural similarity (Wang et al., 2004)", "higher"),
    "lpips": Metric("LPIPS", "perceptual distance (Zhang et al., CVPR 2018, AlexNet)", "lower"),
}
"""Every figure that a report may hold, in the order of the table."""


@dataclass
class SettingReport:
    """One setting of one run."""

    frames: int
    figures: dict[str, Figure] = field(default_factory=dict)
    series: dict[str, list[float]] = field(default_factory=dict)
    """Value of every frame, in order; NaN where a frame has none (figures of steps: the first of each path)."""


@dataclass
class RunReport:
    """One run."""

    name: str
    run: str
    prompt: str
    source_caption: str
    target_caption: str
    editor: str
    figures: dict[str, Figure] = field(default_factory=dict)
    settings: dict[str, SettingReport] = field(default_factory=dict)
    """By key of SETTINGS."""
    base_quality: dict[str, dict[str, float]] = field(default_factory=dict)
    """Of the unedited avatar against the capture, by key of SETTINGS."""


@dataclass
class Report:
    """Everything that `edit3dgs evaluate` has measured."""

    clip: str
    identity: str
    runs: list[RunReport]
    notes: list[str] = field(default_factory=list)
    """Notes on the figures; the first one is on the CLIP."""

    def title(self, key: str) -> str:
        """Title of a figure with the network that it depends on."""
        network = {"clip_s": self.clip, "clip_c": self.clip, "identity": self.identity}.get(key)
        name = None if network is None else PurePath(network).name
        return METRICS[key].title if name is None else f"{METRICS[key].title} ({name})"

    def to_json(self) -> str:
        """The report as JSON; null for values that could not be measured."""
        return json.dumps(_plain(asdict(self)), indent=1, allow_nan=False) + "\n"


def mean(values: Sequence[float] | np.ndarray) -> float | None:
    """Mean of the finite values; None without any."""
    known = [float(value) for value in values if math.isfinite(value)]
    return float(np.mean(known)) if known else None


def formatted(metric: Metric, figure: Figure | None) -> str:
    """The figure as text, such as "0.0123 (unedited 0.0100)"; "–" where it was not measured."""
    if figure is None or figure.value is None or not math.isfinite(figure.value):
        return "–"
    text = f"{figure.value:,.{metric.digits}f}{metric.unit}"
    if metric.beside and figure.beside is not None and math.isfinite(figure.beside):
        text += f" ({figure.beside_of or metric.beside} {figure.beside:,.{metric.digits}f})"
    return text


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return float(f"{value:.5g}") if math.isfinite(value) else None
    return value
