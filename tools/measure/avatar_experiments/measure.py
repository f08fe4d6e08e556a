"""How good a trained avatar is, and what of the PSNR that a wrong tracker costs fine-tuning brings back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

TASKS = {"held_out_camera": "val", "unseen_sequence": "test"}
"""Figures and the split that each is measured on."""


def measure(config: Path, images: int) -> dict[str, Any]:
    """PSNR and SSIM of a finished run on at most `images` images of each split, spread evenly."""
    from edit3dgs_ns.evaluation.image_metrics import image_quality
    from edit3dgs_ns.runs.trained_run import TrainedRun

    run = TrainedRun(config)
    result: dict[str, Any] = {"gaussians": int(run.pipeline.model.num_points)}
    for task, name in TASKS.items():
        split = run.split(name)
        chosen = sorted({int(i) for i in np.linspace(0, len(split) - 1, min(images, len(split))).round()})
        pairs = ((run.render(split.cameras[i : i + 1]).rgb, split.image(i)) for i in chosen)
        result[task] = asdict(image_quality(pairs))
    return result


def recovered_share(rows: Mapping[str, Mapping[str, Any]]) -> float | None:
    """Of the PSNR on the held-out camera that the perturbation costs, the share that fine-tuning brings back."""
    if not {"default", "noisy", "noisy_no_tuning"} <= set(rows):
        return None
    clean, tuned, untuned = (
        rows[name]["held_out_camera"]["psnr"] for name in ("default", "noisy", "noisy_no_tuning")
    )
    return (tuned - untuned) / (clean - untuned)


def table(rows: Mapping[str, Mapping[str, Any]]) -> str:
    """The rows as a Markdown table: the first in full, of the others the difference to it."""
    lines = [
        "| | held-out camera: PSNR, SSIM | unseen sequence: PSNR, SSIM | Gaussians |",
        "|---|---|---|---|",
    ]
    base = next(iter(rows.values()), None)
    for row in rows.values():
        cells = [_cell(row[task], None if row is base else base[task]) for task in TASKS]  # type: ignore[index]
        lines.append(f"| {row['what']} | {cells[0]} | {cells[1]} | {row['gaussians']:,} |")
    return "\n".join(lines)


def _cell(figures: Mapping[str, float], base: Mapping[str, float] | None) -> str:
    text = f"{figures['psnr']:.2f} dB, {figures['ssim']:.4f}"
    if base is None:
        return text
    return f"{text} ({figures['psnr'] - base['psnr']:+.2f}, {figures['ssim'] - base['ssim']:+.4f})"
