"""Shared by all tests: captures, trained runs and models, each made once a session and only where a test asks for it.

Tests of the core run without Nerfstudio, so that fixtures import what they need.
"""

from __future__ import annotations

import copy
import itertools
import json
import logging
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from tests.tiny_capture import TinyCapture, write_tiny_capture

# How long an example takes says nothing on a machine that does other work too.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")


@pytest.fixture(autouse=True)
def log_messages_are_captured() -> None:
    """A command run in this process takes our log messages for the screen; the next test wants them in `caplog`."""
    ours = logging.getLogger("edit3dgs_ns")
    ours.propagate = True
    ours.handlers.clear()
    for (
        name,
        logger,
    ) in logging.root.manager.loggerDict.items():  # a library's dictConfig switches off what exists
        if name.startswith("edit3dgs_ns") and isinstance(logger, logging.Logger):
            logger.disabled = False


@pytest.fixture(scope="session")
def tiny_capture(tmp_path_factory: pytest.TempPathFactory) -> TinyCapture:
    """48 x 48 pixels, 4 cameras, 3 sequences of 3 timesteps (the last one unseen). Read only: copy it to change it."""
    root: Path = tmp_path_factory.mktemp("tiny_capture")
    return write_tiny_capture(root)


@pytest.fixture(scope="session")
def torch_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every built-in method of Nerfstudio downloads AlexNet for LPIPS: here is one, randomly initialised."""
    import torch
    import torchvision

    home = tmp_path_factory.mktemp("torch_home")
    weights = home / "hub" / "checkpoints" / "alexnet-owt-7be5be79.pth"
    weights.parent.mkdir(parents=True)
    torch.save(torchvision.models.alexnet(weights=None).state_dict(), weights)
    return home


@pytest.fixture(scope="session")
def config(tiny_capture, tmp_path_factory) -> Path:
    """config.yml of an avatar whose parts have colours of their own. Read only; what plays its motion lies beside its run."""
    from tests.coloured_avatar import import_coloured_avatar

    return import_coloured_avatar(tiny_capture.union, tmp_path_factory.mktemp("avatars"))


@pytest.fixture(scope="session")
def run(config):
    """The avatar of `config`, as a TrainedRun. Read only."""
    from edit3dgs_ns.runs.trained_run import TrainedRun

    return TrainedRun(config)


@pytest.fixture(scope="session")
def office(tiny_capture, torch_home, tmp_path_factory) -> tuple[Path, Any]:
    """config.yml of a scene of `ns-train splatfacto`, and Nerfstudio's model of it. Read only."""
    from tests.office_scene import train_office

    return train_office(tiny_capture.union, tmp_path_factory.mktemp("scenes"), torch_home)


@pytest.fixture(scope="session")
def office_place(tmp_path_factory) -> Path:
    """The file that says where the office stands around the head."""
    from tests.office_scene import SCALE, SHIFT

    path = tmp_path_factory.mktemp("places") / "place.json"
    path.write_text(json.dumps({"scale": SCALE, "translation": SHIFT}))
    return path


@pytest.fixture(scope="session")
def in_office(config, office, office_place, tmp_path_factory) -> Path:
    """config.yml of a run that plays a motion in the office, and beside it its video. Read only."""
    from tests.command_line import edit3dgs

    folder = tmp_path_factory.mktemp("reenacted")
    (folder / "take.json").write_text(
        json.dumps({"fps": 30, "frames": [{"jawOpen": 0.5 * k} for k in range(3)]})
    )
    options = ("--motion", folder / "take.json", "--output", folder / "v.mp4", "--beside", config)
    scene = ("--background", office[0], "--background-transform", office_place)
    assert edit3dgs("reenact", "--load-config", config, *options, *scene, "--run-name", "office") == 0
    run = config.parent.with_name(f"{config.parent.name}-office")
    shutil.copyfile(folder / "v.mp4", run / "v.mp4")
    return run / "config.yml"


@pytest.fixture(scope="session")
def small_capture(tmp_path_factory) -> Path:
    """Three training views of each of four timesteps, 40 pixels."""
    return write_tiny_capture(
        tmp_path_factory.mktemp("capture"), size=40, cameras=4, timesteps=2, samples=1
    ).union


@pytest.fixture(scope="session")
def tiny_editor(tmp_path_factory) -> Path:
    """Folder of a randomly initialised InstructPix2Pix."""
    from tests.edit_runs import PROMPT
    from tests.tiny_editor import save_tiny_editor

    settings = {
        "instructions": {"older": [PROMPT]},
        "steps": 3,
        "guidance_scale": 2.0,
        "image_guidance_scale": 1.0,
    }
    return save_tiny_editor(tmp_path_factory.mktemp("editor"), settings=settings)


@pytest.fixture(scope="session")
def small_avatar(small_capture, tmp_path_factory) -> Path:
    """The run folder of an avatar of `small_capture`, trained for a few steps."""
    from edit3dgs_ns.method_configs.rigged_splatfacto_fast import rigged_splatfacto_fast
    from tests.edit_runs import train

    config = copy.deepcopy(rigged_splatfacto_fast.config)
    config.output_dir, config.timestamp = tmp_path_factory.mktemp("avatar"), "run"
    config.max_num_iterations, config.machine.device_type = 8, "cpu"
    config.pipeline.datamanager.dataparser.data = small_capture
    return train(config).base_dir


@pytest.fixture(scope="session")
def make_config(small_capture, tiny_editor, small_avatar, tmp_path_factory):
    """Configs of short runs; options by their name below `pipeline` or `pipeline.editor`."""
    from edit3dgs_ns.method_configs.edit3dgs import edit3dgs
    from tests.edit_runs import PROMPT

    numbers = itertools.count()
    output_dir = tmp_path_factory.mktemp("edits")

    def make(
        prompt: str | None = PROMPT, data: Path = small_capture, load_dir: Path | None = None, **options
    ):
        config = copy.deepcopy(edit3dgs.config)
        config.output_dir, config.timestamp, config.load_dir = output_dir, f"run{next(numbers)}", load_dir
        config.machine.device_type = "cpu"
        pipeline = config.pipeline
        pipeline.model.prompt = prompt
        pipeline.datamanager.dataparser.data = data
        pipeline.avatar, pipeline.editor.model = small_avatar, str(tiny_editor)
        pipeline.rounds, pipeline.edit_every, pipeline.final_steps, pipeline.views_per_edit = 3, 2, 2, 2
        pipeline.editor.keep = "none"
        pipeline.judge = False  # a random model makes noise, which would be refused
        pipeline.edit_expression = "off"  # nor has it an expression
        for name, value in options.items():
            target = pipeline.editor if hasattr(pipeline.editor, name) else pipeline
            setattr(target, name, value)
        return config

    return make
