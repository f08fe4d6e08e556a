"""Edits on an avatar that a viewer shows: what they change, what undo brings back, and what a second edit begins with."""

from __future__ import annotations

import copy
import shutil
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from edit3dgs_ns.edit_training.job import EditJob, options_of, standard_options
from edit3dgs_ns.edit_training.versions import RunHistory
from edit3dgs_ns.editing.thread_safe_editor import ThreadSafeEditor
from edit3dgs_ns.splats.checkpoints import model_state
from edit3dgs_ns.training.frozen_copy import frozen_avatar
from tests.edit_runs import PROMPT, GreenEditor, checkpoint_of, shows_head, train

JOB = EditJob(prompt="Turn his skin green", model="demo", rounds=2, views_per_edit=2)


class RecordingEditor(GreenEditor):
    """Remembers what it was asked."""

    def __init__(self):
        self.requests = []

    def edit(self, request, progress=None, finished=None):
        self.requests.append(request)
        return super().edit(request)


@pytest.fixture
def opened(small_avatar, tmp_path):
    """A copy of the avatar's run, and its pipeline as `ns-viewer` loads it."""
    return open_run(small_avatar, tmp_path)


def open_run(run: Path, into: Path):
    from nerfstudio.utils.eval_utils import eval_setup

    config = yaml.load((run / "config.yml").read_text(), Loader=yaml.Loader)
    config.output_dir = into
    shutil.copytree(run, config.get_base_dir())
    config.save_config()
    _, pipeline, _, _ = eval_setup(config.get_base_dir() / "config.yml", test_mode="test")
    return config.get_base_dir(), pipeline


def session_on(run: Path, pipeline, editor=None, job: EditJob = JOB, hold_outside: bool = False):
    from edit3dgs_ns.edit_training.session import EditSession

    history = RunHistory(run)
    standard = standard_options(pipeline.config)
    standard.edit_every, standard.final_steps, standard.edit_loss = 4, 2, "ssim"
    standard.hold_outside = hold_outside
    config = options_of(job, standard, pipeline.model, history.checkpoint(history.current.number))
    editor = ThreadSafeEditor(editor or GreenEditor())
    return EditSession(pipeline, job, config, history, editor, threading.Lock())


def state_of(pipeline) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in pipeline.model.state_dict().items()}


def same(one, other) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_an_edit_is_kept_as_a_version_and_undo_restores_the_avatar_bit_for_bit(opened):
    from edit3dgs_ns.edit_training.session import show_version

    run, pipeline = opened
    before, (file,) = state_of(pipeline), (run / "nerfstudio_models").iterdir()
    bytes_before = file.read_bytes()
    session = session_on(run, pipeline)
    assert session.total_steps == 2 * 4 + 2
    while not session.finished:
        session.advance()
        assert not pipeline.model.training, "whoever draws between two steps finds it ready"
    assert session.rounds_done == 2
    version = session.keep()
    after = state_of(pipeline)
    assert (version.number, version.parent, version.prompt) == (1, 0, JOB.prompt)
    for name in before:
        moved = not torch.equal(before[name], after[name])
        assert not (moved and (name.startswith("head.") or name == "binding")), name
    assert not torch.equal(before["gauss_params.features_dc"], after["gauss_params.features_dc"])

    # What is on disk is what is shown, and loads as any checkpoint does.
    shown = checkpoint_of(run)
    assert shown["step"] == RunHistory(run).version(0).step + 10
    assert same(model_state(shown), after)
    assert same(dict(session.before.state_dict()), before), "what it is compared with is the avatar as it was"

    history = RunHistory(run)
    show_version(pipeline, history, history.undo().number, threading.Lock())
    assert same(state_of(pipeline), before)
    (file,) = (run / "nerfstudio_models").iterdir()
    assert file.read_bytes() == bytes_before
    show_version(pipeline, history, history.revert_to(1).number, threading.Lock())
    assert same(state_of(pipeline), after)


def test_an_edit_that_is_given_up_leaves_no_trace_in_the_avatar(opened):
    run, pipeline = opened
    before = state_of(pipeline)
    session = session_on(run, pipeline)
    for _ in range(5):
        session.advance()
    assert not same(state_of(pipeline), before)
    session.abandon()
    assert same(state_of(pipeline), before)
    assert pipeline.datamanager.replaced_indices() == []
    assert [v.prompt for v in RunHistory(run).versions] == [None]
    # Begun again, the finished round comes from the disk.
    editor = RecordingEditor()
    again = session_on(run, pipeline, editor)
    while not again.finished:
        again.advance()
    assert again.rounds_done == 2 and len(editor.requests) == 0


def test_the_second_edit_begins_with_what_the_first_has_made(opened):
    run, pipeline = opened
    first = session_on(run, pipeline)
    while not first.finished:
        first.advance()
    first.keep()
    edited = frozen_avatar(pipeline.model)
    editor, datamanager = RecordingEditor(), pipeline.datamanager
    second = session_on(run, pipeline, editor, replace(JOB, prompt="Make him look older"))
    second.advance()
    (request,) = editor.requests
    for view, original in zip(request.view_ids, request.originals, strict=True):
        with torch.no_grad():
            expected = edited.get_outputs(datamanager.train_camera([view]))["rgb"].numpy()
        np.testing.assert_allclose(original, expected, atol=0.51 / 255)
        captured = datamanager.train_dataset.get_numpy_image(view) / 255
        assert np.abs(original - captured)[shows_head(captured)[..., 0] > 0].mean() > 0.02
    while not second.finished:
        second.advance()
    second.keep()
    assert [v.prompt for v in RunHistory(run).chain()] == [None, JOB.prompt, "Make him look older"]


def test_ns_train_edits_an_edited_run_again_and_can_go_back_to_each_step(
    make_config, monkeypatch, small_avatar
):
    from edit3dgs_ns.edit_training.pipeline import EditPipeline

    editor = RecordingEditor()
    monkeypatch.setattr(EditPipeline, "_load_editor", lambda self: editor)
    first = train(make_config("Turn his skin green", rounds=1)).base_dir
    editor.requests.clear()
    second = train(make_config("Make him look older", rounds=1, avatar=first)).base_dir
    chain = RunHistory(second).chain()
    assert [v.prompt for v in chain] == [None, "Turn his skin green", "Make him look older"]
    captured = [request.originals for request in editor.requests]
    assert all((images[shows_head(images)[..., 0] > 0].mean(0).argmax() == 1) for images in captured), "green"
    final = model_state(checkpoint_of(second))
    for number, run in ((0, small_avatar), (1, first)):
        RunHistory(second).revert_to(number)
        assert same(model_state(checkpoint_of(second)), model_state(checkpoint_of(run)))
    RunHistory(second).revert_to(2)
    assert same(model_state(checkpoint_of(second)), final)


def test_a_training_with_a_viewer_takes_an_edit_when_it_is_done(make_config, monkeypatch, small_avatar):
    from edit3dgs_ns.edit_training.pipeline import EditPipeline

    monkeypatch.setattr(EditPipeline, "_load_editor", lambda self: GreenEditor())
    config = make_config(rounds=1)
    config.vis = "viewer"
    trainer = train(config)
    try:
        desk = trainer.pipeline.model.controls._shown
        assert same(dict(desk.scene.before.state_dict()), model_state(checkpoint_of(small_avatar)))
        editing, trained = desk._editing, state_of(trainer.pipeline)
        job = EditJob("Make him look older", config.pipeline.editor.model, rounds=1, views_per_edit=1)
        assert editing.edit(replace(job, prompt="")) != ""
        trainer.training_state = "training"
        assert "still at work" in editing.edit(job) and "still at work" in editing.undo()
        assert editing.pause(True) == "" and trainer.training_state == "paused"
        trainer.training_state = "completed"
        assert editing.edit(job) == "" and editing.edit(job) != "", "one at a time"
        assert editing.worker.wait(120) and not editing.worker.status.failed, editing.worker.status
        prompts = [v.prompt for v in RunHistory(trainer.base_dir).chain()]
        assert prompts == [None, PROMPT, "Make him look older"]
        assert same(dict(desk.scene.before.state_dict()), trained)
        assert not same(state_of(trainer.pipeline), trained)
        assert editing.undo() == "" and editing.worker.wait(120)
        assert same(state_of(trainer.pipeline), trained)
        assert editing.revert(7) == "" and editing.worker.wait(120)
        assert editing.worker.status.failed and "no version 7" in editing.worker.status.message
    finally:
        trainer.viewer_state.viser_server.stop()


# -- what the window shows ---------------------------------------------------------------------------------------------


@pytest.fixture
def scene(opened):
    from edit3dgs_ns.training.model_setup import head_assets
    from edit3dgs_ns.viewer.layers import Palette
    from edit3dgs_ns.viewer.pose import pose_sliders
    from edit3dgs_ns.viewer.scene import ViewerScene
    from edit3dgs_ns.viewer.timeline import Timeline

    _, pipeline = opened
    model = pipeline.model
    assets = head_assets(pipeline.datamanager.train_dataset.metadata)
    head = model.head
    sliders = pose_sliders(head.pose["expr"].detach(), head.flame.exprdirs, assets.expression_names)
    scene = ViewerScene(
        model,
        Palette.of(assets.face_regions, len(head.faces)),
        sliders,
        Timeline(head.num_timesteps),
        clock=lambda: 0.0,
    )
    return scene, pipeline.datamanager.train_camera([0])


@torch.no_grad()
def test_the_window_shows_the_frame_that_the_slider_says(scene):
    scene, camera = scene
    frames = scene.timeline.frames
    for frame in (0, 3, frames - 1):
        scene.timeline.seek(frame, 0.0)
        camera.times = torch.tensor([[frame / (frames - 1)]])
        expected = scene.model.get_outputs(camera)["rgb"]
        camera.times = torch.tensor([[0.5]])  # what Nerfstudio's own clock says does not matter ...
        assert torch.equal(scene.outputs(camera)["rgb"], expected)
    camera.times = torch.tensor([[1 / 3]])
    assert torch.equal(
        scene.outputs(camera, float(camera.times))["rgb"], scene.model.get_outputs(camera)["rgb"]
    )  # ... but on a path


@torch.no_grad()
def test_a_split_shows_both_avatars_and_sliders_move_both(scene):
    scene, camera = scene
    scene.before = frozen_avatar(scene.model)
    scene.model.gauss_params["features_dc"].data += 0.5
    width = int(camera.width[0, 0])
    scene.by_hand = {"jaw": 25.0}
    images = {}
    for how in ("Before", "After", "Split"):
        scene.compare = how
        images[how] = scene.outputs(camera)["rgb"]
    half = width // 2
    assert torch.equal(images["Split"][:, :half], images["Before"][:, :half])
    assert torch.equal(images["Split"][:, half + 1 :], images["After"][:, half + 1 :])
    scene.by_hand, scene.compare = {}, "Before"
    assert not torch.equal(scene.outputs(camera)["rgb"], images["Before"])


def test_mesh_and_regions_lie_where_the_head_is(scene):
    scene, camera = scene
    splats = scene.outputs(camera)
    shown = splats["accumulation"][..., 0]
    for show in ("Mesh", "Both", "Regions"):
        scene.show = show
        outputs = scene.outputs(camera)
        assert outputs.keys() == splats.keys() and outputs["rgb"].shape == splats["rgb"].shape
        assert not torch.allclose(outputs["rgb"], splats["rgb"], atol=0.02)
        assert float(outputs["rgb"][shown < 0.01].min()) > 0.98, "white where no head is"
    scene.show = "Mesh"
    covered = scene.outputs(camera)["accumulation"][..., 0]
    assert float((covered > 0.5).float().mean()) > 0.1
    # A trained avatar lies on its mesh but for its hair.
    overlap = ((covered > 0.5) & (shown > 0.5)).sum() / (covered > 0.5).sum()
    assert float(overlap) > 0.8


def test_a_frozen_avatar_stays_as_it_was_and_shares_no_parameter(scene):
    scene, camera = scene
    model = scene.model
    frozen = frozen_avatar(model)
    own = {id(p) for p in model.parameters()}
    assert not own & {id(p) for p in frozen.parameters()}
    with torch.no_grad():
        before = model.get_outputs(camera)["rgb"]
        for parameter in model.parameters():
            parameter.data = parameter.data + 0.05
        assert torch.equal(frozen.get_outputs(camera)["rgb"], before)


def test_a_preview_touches_nothing_and_keeps_what_it_is_told_to(scene, opened):
    from edit3dgs_ns.training.model_setup import head_assets
    from edit3dgs_ns.viewer.preview import make_preview, preview_request

    scene, camera = scene
    _, pipeline = opened
    before = state_of(pipeline)
    regions = dict(head_assets(pipeline.datamanager.train_dataset.metadata).face_regions)

    def ask(job):
        return preview_request(scene.model, regions, camera, scene.pose_now(), job, noise=0.9)

    editor = RecordingEditor()
    preview = make_preview(editor, lambda: ask(replace(JOB, keep="mouth")), threading.Lock())
    (request,) = editor.requests
    assert request.keep_mask is not None and 0 < float(request.keep_mask.mean()) < 0.2
    assert request.canonical is not None and np.isfinite(request.canonical).any()
    head = shows_head(preview.render)[..., 0] > 0
    assert preview.edited[head].mean(0).argmax() == 1
    assert same(state_of(pipeline), before)
    with pytest.raises(ValueError, match="no region 'hat'"):
        ask(replace(JOB, keep="hat"))


def test_motions_are_taken_over_and_those_of_another_head_refused(scene, opened, tmp_path):
    from edit3dgs_ns.training.model_setup import head_assets
    from edit3dgs_ns.viewer.motions import OWN, Motions

    scene, _ = scene
    _, pipeline = opened
    motions = Motions(scene.model, head_assets(pipeline.datamanager.train_dataset.metadata))
    assert motions.names() == [OWN] and motions.get(OWN) == (None, scene.timeline.frames)
    own = scene.model.head.motion()
    own.slice(2, 5).save(tmp_path / "flame_param.npz")
    motion, frames = motions.get(motions.add(str(tmp_path / "flame_param.npz")))
    assert frames == 3
    scene.motion = motion
    scene.timeline.set_frames(frames, 0.0)
    for name in ("expr", "jaw_pose"):
        torch.testing.assert_close(getattr(scene.pose_now(), name), getattr(own, name)[2:3])
    # Whatever `edit3dgs reenact --motion` takes, mapped to this head as there.
    (tmp_path / "take.json").write_text('{"fps": 30, "frames": [{"jawOpen": 0.0}, {"jawOpen": 0.5}]}')
    motion, frames = motions.get(motions.add(str(tmp_path / "take.json")))
    assert frames == 2 and motion is not None
    torch.testing.assert_close(motion.jaw_pose[:, 0], torch.tensor([0.0, 0.34 * 0.5]))
    torch.testing.assert_close(motion.shape, own.shape)
    wide = copy.copy(own.slice(0, 1))
    object.__setattr__(wide, "expr", torch.ones(1, own.expr.shape[1] + 900))
    wide.save(tmp_path / "wide.npz")
    for file, message in (("wide.npz", "coefficients"), ("nothing.npz", "no such file"), ("", "Give a file")):
        with pytest.raises((ValueError, FileNotFoundError), match=message):
            motions.add(str(tmp_path / file) if file else "")


# -- what an edit leaves behind ----------------------------------------------------------------------------------------


def training_state(model) -> tuple:
    """What decides how the next training of an avatar goes."""
    parameters = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    hooked = [name for name, parameter in model.gauss_params.items() if parameter._backward_hooks]
    return model.config, copy.deepcopy(model.config), model.image_loss, parameters, hooked


@pytest.mark.parametrize("how", ["kept", "failed"])
def test_gaussians_outside_of_the_edited_part_are_held_as_the_run_says_and_then_let_go(opened, how):
    run, pipeline = opened
    model = pipeline.model
    before, trained_like = state_of(pipeline), training_state(model)
    assert any(trained_like[3].values())

    class Failing(GreenEditor):
        def edit(self, request, progress=None, finished=None):
            if model.head.pose["expr"].requires_grad or how == "failed":
                raise RuntimeError("the motion is trained" if how == "kept" else "no more memory")
            return super().edit(request)

    session = session_on(run, pipeline, Failing(), replace(JOB, only="hair", rounds=1), hold_outside=True)
    if how == "failed":
        with pytest.raises(RuntimeError, match="no more memory"):
            session.advance()
    else:
        while not session.finished:
            session.advance()
        held = torch.from_numpy(session.held_faces)[model.binding]
        session.keep()
        after = state_of(pipeline)
        for name in ("means", "features_dc", "opacities"):
            moved = (before[f"gauss_params.{name}"] != after[f"gauss_params.{name}"]).any(dim=1)
            assert not moved[held].any(), name
        assert (
            (before["gauss_params.features_dc"] != after["gauss_params.features_dc"]).any(dim=1)[~held].any()
        )
    left = training_state(model)
    assert left[0] is trained_like[0], "the config is the run's own again"
    assert left[1:] == trained_like[1:]


def test_a_run_that_held_the_outside_of_a_part_can_be_edited_as_a_whole(opened):
    run, pipeline = opened
    standard = standard_options(pipeline.config)
    standard.hold_outside, standard.editor.only = True, "hair"
    checkpoint = RunHistory(run).checkpoint(0)
    assert not options_of(JOB, standard, pipeline.model, checkpoint).hold_outside
    assert options_of(replace(JOB, only="nose"), standard, pipeline.model, checkpoint).hold_outside
