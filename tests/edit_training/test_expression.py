"""Edits of expression: what edited views changed becomes an offset of the motion; colours do not. The edits are true ones."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

from edit3dgs_ns.api.avatar import Avatar
from edit3dgs_ns.capture.cameras import Camera
from edit3dgs_ns.dataparsers.nersemble import NersembleDataParserConfig
from edit3dgs_ns.edit_training.expression.follower import ExpressionFollower
from edit3dgs_ns.edit_training.expression.scaling import scale_expression
from edit3dgs_ns.edit_training.versions import RunHistory
from edit3dgs_ns.editing.editor import EditRequest, EditResult
from edit3dgs_ns.errors import UserError
from edit3dgs_ns.flame.expression_offset import ExpressionOffset
from edit3dgs_ns.runs.importing import import_avatar
from edit3dgs_ns.runs.trained_run import TrainedRun
from edit3dgs_ns.splats.avatar_files import write_avatar
from edit3dgs_ns.synthetic.expression_edits import EXPRESSION_EDITS
from edit3dgs_ns.training.frozen_copy import frozen_avatar
from tests.coloured_avatar import HEAD, coloured_gaussians
from tests.command_line import edit3dgs, said
from tests.edit_runs import PulledPlug, checkpoint_of, history_of, same_run, train
from tests.tiny_capture import write_tiny_capture

NAMES = HEAD.expression_names
assert NAMES is not None
PAINT = {"skin": 0.6, "lips": -0.3, "brows": -1.5, "eyes": 1.5, "iris": -1.0, "teeth": 1.6, "mouth": -1.6}
"""Brightness of the parts of a drawn face (SH coefficients of degree 0)."""


def smile() -> ExpressionOffset:
    return ExpressionOffset.of_actions(EXPRESSION_EDITS["smile"].actions, NAMES)


@pytest.fixture(scope="module")
def union(tmp_path_factory) -> Path:
    """Three cameras of each of four timesteps, 96 pixels."""
    folder = tmp_path_factory.mktemp("faces")
    return write_tiny_capture(folder, size=96, cameras=4, timesteps=2, samples=1).union


@pytest.fixture(scope="module")
def drawn(union, tmp_path_factory) -> Path:
    """config.yml of a face drawn in shades of grey."""
    folder = tmp_path_factory.mktemp("drawn")
    gaussians = coloured_gaussians()
    shade = torch.full((len(HEAD.faces),), 0.6)
    for name, value in PAINT.items():
        shade[torch.from_numpy(HEAD.face_regions[name])] = value
    gaussians = replace(gaussians, features_dc=shade[:, None].expand(-1, 3).contiguous())
    outputs = NersembleDataParserConfig(data=union).setup().get_dataparser_outputs("train")
    write_avatar(folder / "face", gaussians, outputs.metadata["flame_motion"])
    return import_avatar(folder / "face", data=union, output_dir=folder / "runs")


class Schedule:
    """Of one round for each timestep."""

    due_rounds = 4

    def batch(self, number: int) -> Any:
        """Its timestep."""
        return type("Batch", (), {"timesteps": (number,)})


@torch.no_grad()
def found_in(
    drawn: Path,
    offset: ExpressionOffset | None,
    tint: tuple[float, ...],
    mode: str = "auto",
    timesteps: int = 3,
):
    """What is found in renders of the drawn face under an offset, tinted on the head."""
    pipeline = TrainedRun(drawn).pipeline
    unedited, datamanager = frozen_avatar(pipeline.model), pipeline.datamanager
    edited = frozen_avatar(pipeline.model)
    edited.head.set_offset(offset)

    def shown(model, index: int) -> torch.Tensor:
        return model.get_outputs(datamanager.train_camera([index]))["rgb"]

    datamanager.use_originals(lambda view: (255 * shown(unedited, view)).round().byte().numpy())
    for views in list(datamanager.indices_by_timestep().values())[:timesteps]:
        for view in views:
            image = shown(edited, view)
            head = (image.amin(dim=-1, keepdim=True) < 0.97).float()
            datamanager.replace_image(view, image * torch.tensor(tint) ** head)
    follower = ExpressionFollower(mode, datamanager, Schedule())  # type: ignore[arg-type]
    assert follower.is_due(last=False) == (timesteps >= 3 and mode != "off")
    found = follower.look(unedited)
    assert follower.decided and not follower.is_due(last=True)
    return found, unedited


def at_rest(model, offset: ExpressionOffset | None, region: str) -> np.ndarray:
    """Places of a region of the resting head under an offset."""
    head = model.head
    pose = type(head.pose_at(0.0))(**{name: torch.zeros_like(head.pose[name][:1]) for name in head.pose})
    head.set_offset(offset)
    vertices = head.vertices_of(pose).detach().numpy()[HEAD.vertex_regions[region]]
    head.set_offset(None)
    return vertices


def test_a_smile_is_found_under_other_colours(drawn: Path) -> None:
    """The resting lips within 30 % of the true displacement, though the edit has painted the head as well."""
    found, model = found_in(drawn, smile(), (0.9, 1.0, 0.8))
    assert found is not None and found.accepted and found.moved > 3
    rest = at_rest(model, None, "lips")
    true, fitted = at_rest(model, smile(), "lips") - rest, at_rest(model, found.offset, "lips") - rest
    assert np.linalg.norm(fitted - true) < 0.3 * np.linalg.norm(true)
    blinks = [NAMES.index(name) for name in ("eyeBlinkLeft", "eyeBlinkRight")]
    assert (found.offset.expr[blinks] >= 0).all()
    assert found.record()["accepted"] and "mouthSmileLeft" in found.record()["offset"]


def test_an_edit_of_colours_is_none_of_expression(drawn: Path) -> None:
    found, _ = found_in(drawn, None, (0.4, 1.0, 0.5))
    assert found is None or not found.accepted


def test_auto_wants_three_timesteps(drawn: Path) -> None:
    assert found_in(drawn, smile(), (1.0, 1.0, 1.0), timesteps=2)[0] is None


def test_figures_of_the_truth_itself_are_perfect(drawn: Path) -> None:
    """No error of displacement for the true offset, all of it for none; blinks close as without."""
    from tools.measure.form.expression import figures_of

    run = TrainedRun(drawn)
    assert figures_of(run, "smile")["displacement_error"] == 1.0
    run.pipeline.model.head.set_offset(smile())
    figures = figures_of(run, "smile")
    assert figures["displacement_error"] == 0.0 and figures["displacement_error_brows"] is None
    assert figures["jaw_correlation"] == 1.0
    assert abs(figures["lids_closed_mm"] - figures["lids_closed_unedited_mm"]) < 0.2


# -- runs --------------------------------------------------------------------------------------------------------------


class SmilingEditor:
    """Returns what the avatar shows with a smile: the true edit of its renders."""

    settings: ClassVar[dict[str, Any]] = {"editor": "smiling"}
    views_depend = False
    source: ClassVar[Path]

    def unknown_instruction(self, prompt: str) -> None:
        """Knows every prompt."""

    def edit(self, request: EditRequest, progress: Any = None, finished: Any = None) -> EditResult:
        """Of the originals; the current renders do not matter."""
        avatar = Avatar.load(self.source, device="cpu")
        avatar.gaussians.head.set_offset(smile())
        height, width = request.originals.shape[1:3]
        cameras = [
            Camera(c2w.astype(float), K.astype(float), width, height)
            for c2w, K in zip(request.c2w, request.K, strict=True)
        ]
        images = [avatar.render(c, t) for c, t in zip(cameras, request.timesteps, strict=True)]
        return EditResult(np.stack(images).astype(np.float32))


def make_smiling() -> SmilingEditor:
    """The factory."""
    return SmilingEditor()


@pytest.fixture(scope="module")
def smiling_options(drawn, union) -> dict[str, Any]:
    """Options of a run that edits the drawn face in four rounds."""
    SmilingEditor.source = drawn
    return {
        "avatar": drawn.parent,
        "data": union,
        "model": "python:tests.edit_training.test_expression:make_smiling",
        "prompt": "Make him smile",
        "rounds": 4,
        "edit_expression": "on",
        "correspondence": "none",
    }


@pytest.fixture(scope="module")
def smiling(make_config, smiling_options) -> Path:
    """The folder of such a run. Read only: copy it to change it."""
    return train(make_config(**smiling_options)).base_dir


def offset_in(run: Path) -> tuple[torch.Tensor, float]:
    """Of its checkpoint."""
    state = checkpoint_of(run)["pipeline"]
    return state["_model.head.expression_offset"], float(state["_model.head.offset_scale"])


def test_a_run_keeps_the_offset_and_says_so(smiling: Path, capsys) -> None:
    offset, scale = offset_in(smiling)
    assert scale == 1.0 and offset.max() > 0.3
    history = history_of(smiling)
    noted = [batch["expression"] for batch in history["batches"] if "expression" in batch]
    assert len(noted) == 1 and noted[0]["accepted"] and noted[0]["moved_mm"] > 2
    strongest = next(iter(noted[0]["offset"]))
    assert history["expression"]["scale"] == 1.0
    assert edit3dgs("history", smiling) == 0
    assert strongest[:8] in capsys.readouterr().out


def test_a_run_that_crashed_after_the_fit_ends_like_one_that_did_not(
    make_config, smiling_options, smiling, monkeypatch
) -> None:
    from edit3dgs_ns.editing.store import EditStore

    put = EditStore.put

    def put_until(self, key, image, record=None):
        if key.round == 3:
            raise PulledPlug
        put(self, key, image, record)

    monkeypatch.setattr(EditStore, "put", put_until)
    config = make_config(**smiling_options)
    with pytest.raises(PulledPlug):
        train(config)
    monkeypatch.undo()
    resumed = train(make_config(**smiling_options, load_dir=config.get_base_dir() / "nerfstudio_models"))
    same_run(resumed.base_dir, smiling)


def test_it_is_scaled_and_undone_exactly(smiling: Path, tmp_path: Path, capsys) -> None:
    """Half of it is the same avatar with another scale; undo is the avatar before the edit, bit for bit."""
    import shutil

    run = tmp_path / "run"
    shutil.copytree(smiling, run)
    before = RunHistory(run).current
    assert edit3dgs("history", run, "--expression-scale", "0.5") == 0
    assert "x 0.5" in capsys.readouterr().out
    history = RunHistory(run)
    assert history.current.parent == before.parent and history.current.prompt == before.prompt
    states = [
        torch.load(history.checkpoint(v.number), weights_only=True)["pipeline"]
        for v in (before, history.current)
    ]
    changed = [
        name
        for name, value in states[0].items()
        if isinstance(value, torch.Tensor) and not torch.equal(value, states[1][name])
    ]
    assert changed == ["_model.head.offset_scale"] and offset_in(run)[1] == 0.5
    assert scale_expression(RunHistory(run), 1.0).sha256 is not None and offset_in(run)[1] == 1.0
    undone = RunHistory(run).undo()
    assert undone.number == before.parent
    for scale, message in ((3.0, "from 0 to 2"), (0.5, "has no offset of expression")):
        with pytest.raises(UserError, match=message):
            scale_expression(RunHistory(run), scale)
    assert edit3dgs("history", run, "--undo", "--expression-scale", "0.5") != 0
    assert "--undo and --expression-scale: give one of them" in said(capsys)


def test_older_runs_are_resumed_without_it(smiling: Path) -> None:
    """Their settings do not name the option, and `auto` is not listed."""
    from edit3dgs_ns.edit_training.settings import check_same_run

    manifest = next((smiling / "edits").iterdir()) / "manifest.json"
    settings = json.loads(manifest.read_text())["settings"]
    assert settings.pop("edit_expression") == "on"
    check_same_run({"settings": settings}, {**settings, "edit_expression": "auto"})
