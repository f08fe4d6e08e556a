"""Avatars of captures by one camera: trained with the fast method, and compared with the frames they have not seen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Bool, Float

from edit3dgs_ns.demo.job import newest_step, run_ns_train
from edit3dgs_ns.demo.settings import CHECKPOINTS, RUN, run_dir
from tools.measure.avatar_experiments.__main__ import schedule_flags

if TYPE_CHECKING:
    from edit3dgs_ns.runs.trained_run import TrainedRun

METHOD = "rigged-splatfacto-fast"


def train_avatar(capture: Path, out: Path, steps: int, flags: Sequence[str] = ()) -> Path:
    """Trains an avatar, or goes on with it; returns its config.yml.

    Raises:
        RuntimeError: the training failed; it has said why.
    """
    run = run_dir(out, METHOD)
    done = newest_step(run / CHECKPOINTS)
    if done is None or done + 1 < steps:
        left = steps if done is None else steps - (done + 1)
        resume = [] if done is None else ["--load-dir", str(run / CHECKPOINTS)]
        code = run_ns_train([
            METHOD, "--output-dir", str(out.parent), "--experiment-name", out.name, "--timestamp", RUN,
            "--vis", "tensorboard", "--steps-per-eval-image", "0", *resume, *schedule_flags(steps),
            "--max-num-iterations", str(left), *flags, "nersemble-data", "--data", str(capture),
        ])  # fmt: skip
        if code != 0:
            raise RuntimeError(f"{out}: ns-train ended with code {code}")
    return run / "config.yml"


@dataclass(frozen=True)
class MaskedQuality:
    """Means over the held-out frames, inside the person's mask."""

    psnr: float
    ssim: float


def held_out_quality(run: TrainedRun) -> MaskedQuality:
    """PSNR and SSIM of the sequence's held-out end."""
    split = run.split("test")
    scores = []
    for i in range(len(split)):
        render = run.render(split.cameras[i : i + 1]).rgb
        scores.append(masked_scores(render, split.image(i), split.mask(i) > 0.5))
    psnr, ssim = np.mean(scores, axis=0)
    return MaskedQuality(float(psnr), float(ssim))


def masked_scores(
    render: Float[np.ndarray, "height width 3"],
    truth: Float[np.ndarray, "height width 3"],
    mask: Bool[np.ndarray, "height width"],
) -> tuple[float, float]:
    """PSNR (dB) and SSIM of the pixels of a mask; images in [0, 1]."""
    from torchmetrics.functional.image import structural_similarity_index_measure as ssim

    error = np.square(render.astype(np.float64) - truth)[mask].mean()
    a, b = (
        torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)[None].float()
        for image in (render, truth)
    )
    _, similar = ssim(a, b, data_range=1.0, return_full_image=True)
    assert isinstance(similar, torch.Tensor)
    return float(-10 * np.log10(max(error, 1e-12))), float(similar[0].mean(0).numpy()[mask].mean())
