"""What is killed: an edit of a tiny avatar with a tiny editor, its history, an export and a video, in one process.

Everything is begun anew or gone on with, whatever is there, as a user would after a crash: by the same commands.
"""

from __future__ import annotations

import copy
import functools
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tools.measure.checkout import make_tests_importable

PHASES = ("training", "saving", "editing", "storing", "history", "export", "video")
STEPS_PER_SAVE = 5


def prepare(folder: Path) -> None:
    """The capture, the avatar and the editor that all runs share."""
    from tests.edit_runs import PROMPT, train
    from tests.tiny_capture import write_tiny_capture
    from tests.tiny_editor import save_tiny_editor

    write_tiny_capture(folder / "capture", size=64, cameras=4, timesteps=2, samples=1)
    settings = {
        "instructions": {"older": [PROMPT]},
        "steps": 3,
        "guidance_scale": 2.0,
        "image_guidance_scale": 1.0,
    }
    save_tiny_editor(folder / "editor", settings=settings)
    from edit3dgs_ns.method_configs.rigged_splatfacto_fast import rigged_splatfacto_fast

    config = copy.deepcopy(rigged_splatfacto_fast.config)
    _common(config, folder, folder / "avatar", steps_per_save=1000)
    config.max_num_iterations = 6
    train(config)


def work(shared: Path, folder: Path, say: Callable[[str], None]) -> None:
    """Everything, from what is there to the end.

    Args:
        shared: of `prepare`.
        folder: of this run.
        say: told of the beginning and the end ("-" before the name) of every phase.
    """
    _watch(say)
    config = edit_config(shared, folder)
    run = config.get_base_dir()
    if not _is_finished(run):
        from tests.edit_runs import train

        if list(run.glob("nerfstudio_models/step-*.ckpt")):
            config.load_dir = run / "nerfstudio_models"
        train(config)
    _there_and_back(run)
    from edit3dgs_ns.commands import main as cli

    def command(phase: str, *words: object) -> None:
        say(phase)
        status = cli.run([str(word) for word in words])
        assert status == 0, f"{words[0]} ended with {status}"
        say(f"-{phase}")

    load = ("--load-config", run / "config.yml", "--overwrite")
    command("export", "export", *load, "--output", folder / "export")
    command("export", "export", *load, "--output", folder / "avatar.html", "--format", "html")
    command("video", "orbit", *load, "--output", folder / "orbit.mp4", "--seconds", "0.4", "--fps", "10")


def edit_config(shared: Path, folder: Path) -> Any:
    """An edit that begins with a round, grows Gaussians between its rounds and saves on the way."""
    from edit3dgs_ns.method_configs.edit3dgs import edit3dgs
    from tests.edit_runs import PROMPT

    config = copy.deepcopy(edit3dgs.config)
    _common(config, shared, folder / "runs", steps_per_save=STEPS_PER_SAVE)
    pipeline = config.pipeline
    pipeline.model.prompt = PROMPT
    (pipeline.avatar,) = (shared / "avatar").glob("*/rigged-splatfacto-fast/run")
    pipeline.editor.model, pipeline.editor.keep = str(shared / "editor"), "none"
    pipeline.rounds, pipeline.edit_every, pipeline.final_steps, pipeline.views_per_edit = 3, 5, 4, 2
    pipeline.judge = False  # a random model makes noise, which would be refused
    pipeline.densify = True
    # Each view by itself, so that finished ones are not made again.
    pipeline.editor.correspondence, pipeline.editor.views_per_forward = "none", 1
    return config


def _common(config: Any, shared: Path, output: Path, steps_per_save: int) -> None:
    from tests.tiny_capture import UNION

    config.output_dir, config.timestamp, config.steps_per_save = output, "run", steps_per_save
    config.machine.device_type = "cpu"
    config.pipeline.datamanager.dataparser.data = shared / "capture" / UNION
    model = config.pipeline.model
    model.warmup_length, model.refine_every, model.densify_grad_thresh, model.reset_alpha_every = (
        2,
        4,
        1e-6,
        1000,
    )
    model.max_gaussians = 20_000


def _is_finished(run: Path) -> bool:
    path = run / "edit_history.json"
    return path.is_file() and bool(json.loads(path.read_text())["finished"])


def _there_and_back(run: Path) -> None:
    """Undoes the edit and takes the undo back."""
    from edit3dgs_ns.edit_training.versions import RunHistory

    history = RunHistory(run)
    edited = history.versions[-1].number
    if history.current.number == edited:
        history.undo()
    history.revert_to(edited)


def _watch(say: Callable[[str], None]) -> None:
    """Says when one of the phases begins and ends."""
    from edit3dgs_ns.edit_training import history, judged_edits, versions
    from edit3dgs_ns.editing.store import EditStore
    from edit3dgs_ns.training.trainer import ResumableTrainer

    for phase, owner, name in (
        ("training", ResumableTrainer, "train_iteration"),
        ("saving", ResumableTrainer, "save_checkpoint"),
        ("editing", judged_edits.JudgedEdits, "edit"),
        ("storing", EditStore, "put"),
        ("history", history.History, "save"),
        ("history", versions.RunHistory, "_append"),
        ("history", versions.RunHistory, "revert_to"),
        ("history", versions, "_take_over"),
    ):
        setattr(owner, name, _said(getattr(owner, name), phase, say))


def _said(function: Callable[..., Any], phase: str, say: Callable[[str], None]) -> Callable[..., Any]:
    @functools.wraps(function)
    def saying(*args: Any, **kwargs: Any) -> Any:
        say(phase)
        result = function(*args, **kwargs)
        say(f"-{phase}")
        return result

    return saying


def load_everything() -> None:
    """What all runs import, so that a process that was split off begins at once.

    With one thread: several add up in an order of their own, so that not even two runs that nobody kills would agree.
    """
    os.environ["OMP_NUM_THREADS"] = os.environ["NUMBA_NUM_THREADS"] = "1"
    import av
    import diffusers
    import nerfstudio.scripts.train
    import torch
    import transformers

    make_tests_importable()
    import edit3dgs_ns.commands.main
    import edit3dgs_ns.method_configs.edit3dgs
    import edit3dgs_ns.method_configs.rigged_splatfacto_fast
    import edit3dgs_ns.splats.cpu_rasterizer

    assert (
        av and diffusers and nerfstudio.scripts.train and transformers and edit3dgs_ns
    )  # imported for their sake
    torch.set_num_threads(1)
