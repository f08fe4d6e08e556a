"""Avatars of coloured discs, and edits of them whose every figure can be worked out."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import torch

from edit3dgs_ns.dataparsers.nersemble import NersembleDataParserConfig
from edit3dgs_ns.flame.loading import load_assets
from edit3dgs_ns.runs.importing import import_avatar
from edit3dgs_ns.splats.avatar_files import write_avatar
from edit3dgs_ns.splats.ply import BoundGaussians

PROMPT = "Make him redder"


def gaussians(num_faces: int) -> BoundGaussians:
    """One opaque disc on every face, coloured by the face's number."""
    generator = torch.Generator().manual_seed(0)
    quats = torch.zeros(num_faces, 4)
    quats[:, 0] = 1
    return BoundGaussians(
        means=torch.zeros(num_faces, 3),
        scales=torch.tensor([-0.7, -3.0, -0.7]).repeat(num_faces, 1),
        quats=quats,
        features_dc=torch.rand(num_faces, 3, generator=generator) - 0.5,
        features_rest=torch.zeros(num_faces, 15, 3),
        opacities=torch.full((num_faces, 1), 4.0),
        binding=torch.arange(num_faces),
    )


def known_avatar(capture: Path, folder: Path) -> Path:
    """config.yml of an avatar of a capture: a disc on every face."""
    outputs = NersembleDataParserConfig(data=capture).setup().get_dataparser_outputs("train")
    write_avatar(folder / "base", gaussians(len(load_assets().faces)), outputs.metadata["flame_motion"])
    return import_avatar(folder / "base", data=capture, output_dir=folder / "runs", name="base")


def edited_run(base: Path, folder: Path, change: float, name: str = "edit", prompt: str = PROMPT) -> Path:
    """config.yml of a run like one of `ns-train edit3dgs`: the base's avatar, every Gaussian redder by `change`."""
    import yaml

    from edit3dgs_ns.method_configs.edit3dgs import edit3dgs

    config = copy.deepcopy(edit3dgs.config)
    config.output_dir, config.experiment_name, config.timestamp = folder, name, "run"
    config.machine.device_type = "cpu"
    config.pipeline.model.prompt = prompt
    config.pipeline.avatar = base.parent
    config.pipeline.datamanager.dataparser.data = yaml.load(
        base.read_text(), Loader=yaml.Loader
    ).pipeline.datamanager.dataparser.data
    config.save_config()
    run = config.get_base_dir()
    (source,) = (base.parent / "nerfstudio_models").glob("*.ckpt")
    state = torch.load(source, weights_only=True)
    state["pipeline"]["_model.gauss_params.features_dc"][:, 0] += change / 0.2820948  # SH of degree 0
    state["pipeline"]["_extra_state"] = {"prompt": prompt}
    (run / "nerfstudio_models").mkdir()
    torch.save(state, run / "nerfstudio_models" / "step-000000007.ckpt")
    history = {
        "prompt": prompt,
        "rounds": 1,
        "edited_images": 4,
        "seconds": 90.0,
        "editor": {"model": "none"},
        "batches": [{"round": 0, "peak_memory_gb": 1.25}, {"round": 1, "peak_memory_gb": 1.5}],
    }
    (run / "edit_history.json").write_text(json.dumps(history))
    return run / "config.yml"
