"""Stage `evaluate`: edits held-out identities with the real sampler, compares with the true edited renders."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import DiffusionPipeline, Flux2KleinPipeline
from jaxtyping import Bool, Float
from PIL import Image
from rich.table import Table

from edit3dgs_ns.editing.diffusion.detail import round_trip, with_detail
from tools.data.demo_editor.settings import EDIT_ORDER

BACKGROUND = 0.999
"""A pixel belongs to the white background when all true pictures of the scene are at least this bright there."""


@dataclass(frozen=True)
class Score:
    """Means over scenes: PSNR in dB, background error as mean absolute difference to white in [0, 1]."""

    edit: str
    psnr_input: float
    psnr_edited: float
    background_error: float

    @property
    def gain(self) -> float:
        """How much closer (dB) the edit is to the truth than the input was."""
        return self.psnr_edited - self.psnr_input


def load_pipeline(folder: Path) -> tuple[DiffusionPipeline, dict[str, Any]]:
    """The exported folder (float32, no progress bar) and its edit3dgs.json."""
    pipeline = DiffusionPipeline.from_pretrained(folder, torch_dtype=torch.float32, local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline, json.loads((folder / "edit3dgs.json").read_text())


def edit_pictures(
    pipeline: Any,
    info: dict[str, Any],
    pictures: Float[np.ndarray, "batch height width 3"],
    prompts: list[str],
    seed: int = 0,
) -> Float[np.ndarray, "batch height width 3"]:
    """Edit pictures in [0, 1], each by its own prompt, as the folder's edit3dgs.json recommends."""
    common = {
        "num_inference_steps": info["steps"],
        "generator": torch.Generator().manual_seed(seed),
        "output_type": "np",
    }
    if isinstance(pipeline, Flux2KleinPipeline):
        # It takes one picture for all prompts.
        height, width = pictures.shape[1:3]
        options = {"height": height, "width": width, "guidance_scale": 1.0} | info["text_options"] | common
        edited = [
            pipeline(prompt=prompt, image=[_as_image(picture)], **options).images[0]
            for picture, prompt in zip(pictures, prompts, strict=True)
        ]
        return np.stack(edited)
    scales = {name: info[name] for name in ("guidance_scale", "image_guidance_scale")}
    return pipeline(
        prompts, image=torch.from_numpy(pictures).permute(0, 3, 1, 2).float(), **scales, **common
    ).images


def _as_image(picture: Float[np.ndarray, "height width 3"]) -> Image.Image:
    return Image.fromarray(np.rint(picture * 255).astype(np.uint8))


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    """Peak signal-to-noise ratio in dB of pictures in [0, 1]."""
    return float(-10.0 * np.log10(np.mean((a.astype(np.float64) - b) ** 2) + 1e-12))


def background_of(scene: np.ndarray) -> Bool[np.ndarray, "height width"]:
    """White in every one of the true pictures of a scene (uint8, 7 of them)."""
    return (scene.min(axis=(0, 3)) / 255.0) >= BACKGROUND


def evaluate(
    pipeline: DiffusionPipeline,
    info: dict[str, Any],
    scenes: np.ndarray,
    sheet: Path | None = None,
    batch: int = 8,
    detail: float = 0.0,
) -> list[Score]:
    """Score every edit on the scenes (uint8 (S, 7, H, W, 3)); the wording changes from scene to scene.

    Args:
        sheet: where to put a picture with input, edited and true rows.
        detail: how much of the input's detail that the autoencoder loses is given back.
    """
    truth = scenes.astype(np.float32) / 255.0
    scores, rows = [], [truth[:4, 0]]
    for index, key in enumerate(EDIT_ORDER, start=1):
        wordings = info["instructions"][key]
        prompts = [wordings[i % len(wordings)] for i in range(len(scenes))]
        edited = np.concatenate([
            edit_pictures(pipeline, info, truth[i : i + batch, 0], prompts[i : i + batch], seed=i)
            for i in range(0, len(scenes), batch)
        ])  # fmt: skip
        if detail > 0:
            edited = restore_detail(pipeline.vae, edited, truth[:, 0], detail)
        per_scene = [(psnr(t[0], t[index]), psnr(e, t[index])) for t, e in zip(truth, edited, strict=True)]
        errors = [np.abs(e[background_of(s)] - 1.0).mean() for s, e in zip(scenes, edited, strict=True)]
        before, after = np.mean(per_scene, axis=0)
        scores.append(Score(key, float(before), float(after), float(np.mean(errors))))
        rows += [edited[:4], truth[:4, index]]
    if sheet:
        write_sheet(sheet, rows)
    return scores


def restore_detail(
    vae: Any,
    edited: Float[np.ndarray, "scenes height width 3"],
    originals: Float[np.ndarray, "scenes height width 3"],
    strength: float,
) -> Float[np.ndarray, "scenes height width 3"]:
    """The edited pictures with the originals' detail that the autoencoder loses, where little was edited."""
    after, before = (torch.from_numpy(images).permute(0, 3, 1, 2).float() for images in (edited, originals))
    reduction = 2 ** (len(vae.config.block_out_channels) - 1)
    cells = before.shape[2] // reduction, before.shape[3] // reduction
    result = with_detail(after, before, round_trip(vae, before), cells, strength)
    return result.permute(0, 2, 3, 1).numpy()


def write_sheet(path: Path, rows: list[np.ndarray]) -> None:
    """Columns: the input, then edited and true of each edit; one row per scene."""
    grid = np.concatenate([np.concatenate(list(column), axis=0) for column in rows], axis=1)
    Image.fromarray(np.rint(np.clip(grid, 0, 1) * 255).astype(np.uint8)).save(path)


def write_json(path: Path, scores: list[Score]) -> None:
    """The scores by edit."""
    from edit3dgs_ns.files import write_durably

    content = {"scores": {score.edit: {**asdict(score), "gain": score.gain} for score in scores}}
    write_durably(path, (json.dumps(content, indent=1) + "\n").encode())


def table(scores: list[Score]) -> Table:
    """The scores and their mean as a rich table."""
    out = Table(title="Demo editor on identities never trained on")
    for name in ("edit", "PSNR input -> true", "PSNR edited -> true", "gain (dB)", "background error"):
        out.add_column(name, justify="left" if name == "edit" else "right")
    mean = Score(
        "mean", *np.mean([(s.psnr_input, s.psnr_edited, s.background_error) for s in scores], axis=0).tolist()
    )
    for score in [*scores, mean]:
        out.add_row(
            score.edit,
            f"{score.psnr_input:.2f}",
            f"{score.psnr_edited:.2f}",
            f"{score.gain:+.2f}",
            f"{score.background_error:.4f}",
        )
    return out
