"""An avatar of random colours on the head of a capture: what needs no training is tested on it."""

from __future__ import annotations

from pathlib import Path

import torch

from edit3dgs_ns.dataparsers.nersemble import NersembleDataParserConfig
from edit3dgs_ns.flame.assets import OPEN_HEAD_PATH
from edit3dgs_ns.flame.loading import load_assets
from edit3dgs_ns.runs.importing import import_avatar
from edit3dgs_ns.splats.avatar_files import write_avatar
from edit3dgs_ns.splats.ply import BoundGaussians

HEAD = load_assets(OPEN_HEAD_PATH)


def coloured_gaussians(seed: int = 0) -> BoundGaussians:
    """A spot of its own colour on every face."""
    count, g = len(HEAD.faces), torch.Generator().manual_seed(seed)
    return BoundGaussians(
        means=torch.zeros(count, 3),
        scales=torch.full((count, 3), -0.7),
        quats=torch.tensor([[1.0, 0, 0, 0]]).repeat(count, 1),
        features_dc=torch.randn(count, 3, generator=g),
        features_rest=torch.zeros(count, 15, 3),
        opacities=torch.full((count, 1), 3.0),
        binding=torch.arange(count),
    )


def import_coloured_avatar(data: Path, folder: Path) -> Path:
    """config.yml of a run in `folder`, with the motion of the capture `data`."""
    outputs = NersembleDataParserConfig(data=data).setup().get_dataparser_outputs("train")
    write_avatar(folder / "somebody", coloured_gaussians(), outputs.metadata["flame_motion"])
    return import_avatar(folder / "somebody", data=data, output_dir=folder / "runs")
