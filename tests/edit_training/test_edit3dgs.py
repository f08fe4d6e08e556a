"""`ns-train edit3dgs` on a tiny capture with a tiny random diffusion model: what it edits, keeps, resumes and
refuses."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.edit_runs import (
    PROMPT,
    GreenEditor,
    PulledPlug,
    checkpoint_of,
    differing_leaves,
    history_of,
    same_run,
    shows_head,
    store_of,
    train,
)
from tests.tiny_capture import write_tiny_capture


@pytest.fixture(scope="module")
def edited(make_config):
    """The trainer of a whole run."""
    return train(make_config())


def test_edits_are_made_stored_shown_and_trained_on(edited, small_avatar):
    trainer = edited
    run, pipeline = trainer.base_dir, trainer.pipeline
    store, history = store_of(run), history_of(run)
    assert len(store) == 6 and history["edited_images"] == 6
    assert (history["rounds"], history["rounds_planned"], history["finished"], history["prompt"]) == (
        3,
        3,
        True,
        PROMPT,
    )
    assert trainer._start_step + trainer.config.max_num_iterations == pipeline.total_steps == 3 * 2 + 2

    # What is trained on now is what is in the store, and nothing else.
    replaced = pipeline.datamanager.replaced_indices()
    assert replaced == sorted({key.view for key in store.edits()})
    assert {i for step in range(50) for i in pipeline.datamanager.batch_indices(step)} == set(replaced)
    for view, key in store.latest().items():
        np.testing.assert_array_equal(pipeline.datamanager.train_image(view).numpy(), store.get(key))

    # A batch shares a timestep, and noise falls.
    timesteps = pipeline.datamanager.train_dataset.metadata["timesteps"]
    assert all(len({int(timesteps[view]) for view in b["views"]}) == 1 for b in history["batches"])
    assert [b["noise"] for b in history["batches"]] == pytest.approx([0.98, 0.64, 0.3])
    assert len(list((run / "edit_grids").glob("*.png"))) == 3

    # The rig and the number of Gaussians are the avatar's; the colours are not.
    before, after = checkpoint_of(small_avatar)["pipeline"], checkpoint_of(run)["pipeline"]
    for name in before:
        if name.startswith("_model.head.") or name == "_model.binding":
            assert torch.equal(before[name], after[name]), name
    assert not torch.equal(
        before["_model.gauss_params.features_dc"], after["_model.gauss_params.features_dc"]
    )
    assert not any(word in name for name in after for word in ("unet", "vae", "text_encoder"))


def test_the_avatar_takes_on_the_edit_in_views_that_were_never_edited(make_config, monkeypatch):
    from edit3dgs_ns.edit_training.pipeline import EditPipeline

    monkeypatch.setattr(EditPipeline, "_load_editor", lambda self: GreenEditor())
    config = make_config(rounds=2, edit_every=20, final_steps=10)
    config.optimizers["features_dc"]["optimizer"].lr = 0.05
    trainer = train(config)
    rounds, datamanager = trainer.pipeline._loop.rounds, trainer.pipeline.datamanager
    unseen = next(v for v in range(len(datamanager.train_dataset)) if v not in datamanager.replaced_indices())
    original = datamanager.original_image(unseen).numpy() / 255
    head = shows_head(original)[..., 0] > 0
    red, green, blue = rounds.requests.render(unseen)[head].mean(axis=0)
    assert green > 1.3 * red and green > 1.3 * blue
    assert original[head].mean(axis=0)[0] > original[head].mean(axis=0)[1]


def test_requests_carry_the_whole_batch(make_config, monkeypatch):
    from edit3dgs_ns.editing.diffusion.instruct_pix2pix import InstructPix2Pix

    requests = []
    edit = InstructPix2Pix.edit

    def record(self, request, *args, **kwargs):
        requests.append(request)
        return edit(self, request, *args, **kwargs)

    monkeypatch.setattr(InstructPix2Pix, "edit", record)
    trainer = train(make_config(rounds=2))
    datamanager = trainer.pipeline.datamanager
    assert [r.num_views for r in requests] == [2, 2]
    for request in requests:
        for position, view in enumerate(request.view_ids):
            original = datamanager.original_image(view).numpy() / 255
            np.testing.assert_allclose(request.originals[position], original, atol=1e-6)
            camera = datamanager.train_dataset.cameras[view]
            np.testing.assert_allclose(request.c2w[position, :3], camera.camera_to_worlds.numpy(), atol=1e-6)
            np.testing.assert_allclose(request.K[position, 0, 0], float(camera.fx), rtol=1e-5)
        assert np.abs(request.images - request.originals).max() > 0.01


def test_batches_over_timesteps_with_parts_kept_are_recorded_and_stored_apart(make_config, edited):
    options = {"rounds": 2, "timesteps_per_edit": 2, "views_per_edit": 1, "correspondence": "rig"}
    trainer = train(make_config(keep="eyes,mouth", keep_from=0.25, **options))
    datamanager, (folder,) = trainer.pipeline.datamanager, (trainer.base_dir / "edits").iterdir()
    settings = store_of(trainer.base_dir).settings
    assert settings["keep"] == {"masks": "rig", "keep": ["eyes", "mouth"], "only": []}
    assert (settings["keep_from"], settings["timesteps_per_edit"]) == (0.25, 2)
    assert folder.name != next((edited.base_dir / "edits").iterdir()).name
    timestep_of = datamanager.train_dataset.metadata["timesteps"]
    for batch in history_of(trainer.base_dir)["batches"]:
        assert batch["timesteps"] == [int(timestep_of[view]) for view in batch["views"]]
        assert len(set(batch["timesteps"])) == 2
    for key in store_of(trainer.base_dir).edits():
        record = store_of(trainer.base_dir).record(key)
        assert record["timestep"] == int(timestep_of[key.view])


def test_an_unknown_part_ends_the_run_before_the_editor_is_loaded(make_config, monkeypatch):
    from edit3dgs_ns.editing.diffusion import loading

    monkeypatch.setattr(loading, "load_editor", lambda *a, **k: pytest.fail("the diffusion model was loaded"))
    with pytest.raises(ValueError, match=r"--pipeline.editor.keep eyes,hat.*eyelids"):
        make_config(keep="eyes,hat").pipeline.setup(device="cpu", test_mode="val")


def test_without_an_avatar_one_is_trained_first(make_config, monkeypatch):
    from edit3dgs_ns.edit_training.fit import EditFit

    end, trained = EditFit.end, []

    def remember(self):
        trained.append([parameter.requires_grad for parameter in self._model.head.pose.values()])
        end(self)

    monkeypatch.setattr(EditFit, "end", remember)
    trainer = train(make_config(avatar=None, base_steps=3, rounds=1))
    history = history_of(trainer.base_dir)
    assert history["base_steps"] == 3 and history["batches"][0]["step"] == 3
    assert trainer.step + 1 == 3 + 2 + 2
    assert not any(trained[0]), "the motion is frozen while edits are fitted"
    assert all(parameter.requires_grad for parameter in trainer.pipeline.model.head.pose.values())


@pytest.mark.parametrize(
    ("options", "stored"),
    [
        pytest.param({"correspondence": "none", "views_per_forward": 1}, 1, id="first-round"),
        pytest.param({}, 3, id="second-round-of-views-that-depend"),
        pytest.param({"rounds_at_once": 2}, 3, id="two-rounds-in-flight"),
    ],
)
def test_a_run_that_crashed_in_mid_round_ends_like_one_that_did_not(
    make_config, edited, monkeypatch, options, stored
):
    """In its first round, before any training step, in its second, and in both at once; no stored edit is made again."""
    from edit3dgs_ns.editing.store import EditStore

    put, made = EditStore.put, []

    def put_until(limit):
        def replacement(self, key, image, record=None):
            if len(made) == limit:
                raise PulledPlug
            put(self, key, image, record)
            made.append(key)

        return replacement

    undisturbed = train(make_config(**options)) if options else edited
    monkeypatch.setattr(EditStore, "put", put_until(stored))
    config = make_config(**options)
    with pytest.raises(PulledPlug):
        train(config)
    crashed = config.get_base_dir()
    assert len(store_of(crashed)) == stored
    monkeypatch.setattr(EditStore, "put", put_until(None))
    resumed = train(make_config(**options, load_dir=crashed / "nerfstudio_models"))
    assert len(made) == len(set(made)) == 6
    assert history_of(resumed.base_dir)["rounds"] == 3 and history_of(resumed.base_dir)["finished"]
    same_run(resumed.base_dir, undisturbed.base_dir)


def test_a_round_whose_record_was_never_written_is_recorded_on_resume(make_config, edited, monkeypatch):
    """Killed between the last edit of a round and its record."""
    from edit3dgs_ns.edit_training.history import History

    add = History.add

    def dying(self, batch):
        if batch["round"] == 1:
            raise PulledPlug
        add(self, batch)

    monkeypatch.setattr(History, "add", dying)
    config = make_config()
    with pytest.raises(PulledPlug):
        train(config)
    monkeypatch.undo()
    resumed = train(make_config(load_dir=config.get_base_dir()))
    same_run(resumed.base_dir, edited.base_dir)
    grids = [sorted(p.name for p in (t.base_dir / "edit_grids").iterdir()) for t in (resumed, edited)]
    assert grids[0][-2:] == grids[1][-2:] == ["round_0001.png", "round_0002.png"]


def test_rounds_added_to_a_finished_run_are_as_far_apart_as_the_others(make_config, edited):
    """The final steps that were done count for no round: not once the run goes on, and not when it is resumed from there again."""
    run, steps = edited, [0, 2, 4]
    for rounds, added in ((5, [8, 10]), (6, [14])):
        run, steps = train(make_config(rounds=rounds, load_dir=run.base_dir)), steps + added
        assert [batch["step"] for batch in history_of(run.base_dir)["batches"]] == steps
        assert run.step + 1 == run.pipeline.total_steps == steps[-1] + 2 + 2
    unchanged = train(make_config(rounds=6, load_dir=run.base_dir))
    assert unchanged.pipeline.total_steps == run.pipeline.total_steps
    assert not differing_leaves(*(checkpoint_of(trainer.base_dir) for trainer in (run, unchanged)))


def test_a_crash_in_the_very_first_round_can_be_resumed(make_config, monkeypatch):
    from edit3dgs_ns.editing.store import EditStore

    put, made = EditStore.put, []

    def stop(self, key, image, record=None):
        if made:
            raise PulledPlug
        put(self, key, image, record)
        made.append(key)

    monkeypatch.setattr(EditStore, "put", stop)
    config = make_config(views_per_forward=1, avatar=None, base_steps=1)
    with pytest.raises(PulledPlug):
        train(config)
    monkeypatch.undo()
    resumed = train(make_config(avatar=None, base_steps=1, load_dir=config.get_base_dir()))
    assert len(store_of(resumed.base_dir)) == 6
    first = made[0]
    np.testing.assert_array_equal(
        store_of(config.get_base_dir()).get(first), store_of(resumed.base_dir).get(first)
    )


def test_the_change_of_a_round_is_the_mean_over_its_views_whatever_their_sizes(tmp_path):
    """Images of several sizes are edited in groups; one of three views counts a third of the round."""
    from types import SimpleNamespace

    from edit3dgs_ns.edit_training.history import History
    from edit3dgs_ns.edit_training.rounds import EditRounds
    from edit3dgs_ns.editing.editor import EditResult
    from edit3dgs_ns.editing.schedule import Batch
    from edit3dgs_ns.editing.store import EditStore

    sizes, darker = {0: 8, 1: 4, 2: 4}, {0: 0.5, 1: 0.1, 2: 0.2}
    cameras = SimpleNamespace(height=torch.tensor([8, 4, 4]), width=torch.tensor([8, 4, 4]))

    def make(batch, views, anchors):
        images = np.ones((len(views), sizes[views[0]], sizes[views[0]], 3), np.float32)
        return SimpleNamespace(
            images=images, originals=images, view_ids=tuple(views), anchors=(), timesteps=(0,) * len(views),
            noise=0.5, seed=0, keep_mask=None,
        )  # fmt: skip

    def edit(request, progress, finished):
        by = np.array([darker[view] for view in request.view_ids], np.float32)
        return EditResult(images=request.images - by[:, None, None, None])

    datamanager = SimpleNamespace(
        train_dataset=SimpleNamespace(cameras=cameras), device="cpu", replaced_indices=list,
        replace_image=lambda view, image: None, restrict_to=lambda views: None,
    )  # fmt: skip
    editor = SimpleNamespace(edit=edit, views_depend=False, settings={})
    history = History(tmp_path / "edit_history.json", "darker", 1, 0, {})
    rounds = EditRounds(
        datamanager,
        SimpleNamespace(make=make),
        editor,
        EditStore(tmp_path / "edits", {}),
        history,
        rounds=1,
        judge=False,
    )
    rounds._show = lambda batch, step: None
    rounds.run([Batch(round=0, views=(0, 1, 2), timesteps=(0, 0, 0), noise=0.5, seed=0)], 0)
    assert history.batches[0]["change"] == pytest.approx((0.5 + 0.1 + 0.2) / 3, abs=1e-4)


def test_a_damaged_edit_is_made_again_on_resume(make_config, edited, tmp_path):
    run = shutil.copytree(edited.base_dir, tmp_path / "run")
    victim = next((run / "edits").glob("*/00000_*.png"))
    victim.write_bytes(b"")
    resumed = train(make_config(load_dir=run))
    assert len(store_of(resumed.base_dir)) == 6
    assert (resumed.base_dir / "edits" / victim.parent.name / victim.name).stat().st_size > 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prompt": None}, "--prompt"),
        ({"prompt": "  "}, "--prompt"),
        ({"model": "/no/such/model"}, r"(?s)/no/such/model.*--pipeline.editor.model demo"),
        ({"avatar": Path("/no/such/run")}, r"--pipeline.avatar /no/such/run"),
        ({"avatar": None, "base_steps": 0}, "base-steps"),
        ({"rounds": 0}, "--pipeline.rounds"),
        ({"noise_first": 0.2}, "noise-first"),
        ({"keep_from": 0.9, "keep_until": 0.1}, "keep-from"),
        ({"timesteps_per_edit": 0}, "timesteps-per-edit"),
        ({"views_per_forward": 0}, "--pipeline.editor.views-per-forward 0"),
        ({"views_per_key": 0}, "--pipeline.editor.views-per-key 0"),
        ({"self_attention_below": -1}, "--pipeline.editor.self-attention-below -1"),
        ({"share_prediction_until": -1}, "--pipeline.editor.share-prediction-until -1"),
        ({"share_prediction_until": 600}, "--pipeline.editor.share-prediction-until 600"),
        ({"reference": (Path("hat.png"),)}, "--pipeline.editor.reference"),
    ],
)
def test_mistakes_are_named_before_anything_is_read(make_config, options, message, monkeypatch):
    from edit3dgs_ns.dataparsers.nersemble import NersembleDataParser

    config = make_config(**options)
    monkeypatch.setattr(NersembleDataParser, "__init__", lambda *a, **k: pytest.fail("the data was read"))
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        config.pipeline.setup(device="cpu", test_mode="val")


def test_no_weights_and_no_network(make_config, monkeypatch, tmp_path):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(FileNotFoundError, match=r"(?s)timbrooks/instruct-pix2pix.*HF_HUB_OFFLINE.*demo"):
        make_config(model="timbrooks/instruct-pix2pix").pipeline.setup(device="cpu", test_mode="val")


def test_an_avatar_of_another_capture_is_refused(make_config, tmp_path):
    other = write_tiny_capture(tmp_path / "other", size=16, cameras=3, timesteps=1, samples=1).union
    with pytest.raises(
        ValueError, match=r"(?s)--pipeline.avatar .*timesteps of the motion: 6 in the avatar, 3 in the data"
    ):
        make_config(data=other).pipeline.setup(device="cpu", test_mode="val")


def test_an_avatar_of_another_head_is_refused(small_avatar, make_config, tmp_path):
    content = checkpoint_of(small_avatar)
    shape = content["pipeline"]["_model.head.shape"]
    run = tmp_path / "someone_else"
    for change, message in (
        ({"_model.head.shape": shape + 1}, "another person"),
        ({"_model.head.static_offset": torch.zeros(7, 3)}, "vertices of the head: 7 in the avatar"),
        ({"_model.head.shape": shape[:-1]}, "shape coefficients"),
    ):
        (run / "nerfstudio_models").mkdir(parents=True, exist_ok=True)
        torch.save(
            content | {"pipeline": content["pipeline"] | change},
            run / "nerfstudio_models" / "step-000000001.ckpt",
        )
        with pytest.raises(ValueError, match=message):
            make_config(avatar=run).pipeline.setup(device="cpu", test_mode="val")


def test_a_checkpoint_with_code_in_it_is_not_run(make_config, tmp_path):
    class Trap:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "sprung",))

    path = tmp_path / "step-000000001.ckpt"
    torch.save({"pipeline": {"x": Trap()}}, path)
    with pytest.raises(ValueError, match="more than tensors"):
        make_config(avatar=path).pipeline.setup(device="cpu", test_mode="val")
    assert not (tmp_path / "sprung").exists()


def test_run_folder_config_and_checkpoint_folder_all_name_an_avatar(small_avatar):
    from edit3dgs_ns.splats.checkpoints import find_checkpoint

    places = [
        small_avatar,
        small_avatar / "config.yml",
        small_avatar / "nerfstudio_models",
        next((small_avatar / "nerfstudio_models").iterdir()),
    ]
    assert len({find_checkpoint(place, "--pipeline.avatar", "a run") for place in places}) == 1


def test_resuming_something_else_is_refused(make_config, edited, small_avatar):
    with pytest.raises(ValueError, match=r"--pipeline\.avatar instead of --load-dir"):
        train(make_config(load_dir=small_avatar / "nerfstudio_models"))
    with pytest.raises(ValueError, match="prompt"):
        train(make_config(prompt="turn her skin green", load_dir=edited.base_dir))
    with pytest.raises(FileNotFoundError, match="--load-dir"):
        train(make_config(load_dir=edited.base_dir / "edits"))


def test_an_unknown_instruction_gets_a_warning_that_lists_the_known(make_config, capsys):
    make_config(prompt="give him a hat").pipeline.setup(device="cpu", test_mode="val")
    printed = " ".join(capsys.readouterr().out.split())
    assert "give him a hat" in printed and PROMPT in printed


def test_public_attributes_are_cheap_and_the_diffusion_model_is_not_among_them(make_config):
    pipeline = make_config().pipeline.setup(device="cpu", test_mode="val")
    for name in dir(pipeline):
        if not name.startswith("_"):
            value = getattr(pipeline, name)
            assert type(value).__name__ != "InstructPix2Pix"
    assert not any("unet" in name for name, _ in pipeline.named_modules())


def test_the_edited_run_opens_for_evaluation_without_the_diffusion_model(edited, monkeypatch):
    from nerfstudio.utils.eval_utils import eval_setup

    from edit3dgs_ns.editing.diffusion import loading

    trainer = edited
    monkeypatch.setattr(loading, "load_editor", lambda *a, **k: pytest.fail("the diffusion model was loaded"))
    config, pipeline, _, _ = eval_setup(trainer.base_dir / "config.yml", test_mode="test")
    assert config.method_name == "edit3dgs" and pipeline._editor is None
    expected = trainer.pipeline.model.gauss_params["means"]
    torch.testing.assert_close(pipeline.model.gauss_params["means"], expected)
    metrics = pipeline.get_average_eval_image_metrics()
    assert np.isfinite(metrics["psnr"])


@pytest.mark.slow
def test_ns_train_after_kill_9_in_mid_round(small_capture, tiny_editor, small_avatar, tmp_path):
    """The real command, really killed: every edit that was finished is still there and is not made again."""
    command = [
        *(str(Path(sys.executable).with_name("ns-train")), "edit3dgs", "--prompt", PROMPT),
        *("--output-dir", str(tmp_path), "--machine.device-type", "cpu"),
        *(
            "--pipeline.avatar",
            str(small_avatar),
            "--pipeline.editor.model",
            str(tiny_editor),
            "--pipeline.editor.steps",
            "40",
        ),
        *("--pipeline.editor.views-per-forward", "1", "--pipeline.rounds", "2", "--pipeline.edit-every", "1"),
        *("--pipeline.final-steps", "0", "--pipeline.views-per-edit", "3"),
    ]
    data = ["nersemble-data", "--data", str(small_capture)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [*command, "--timestamp", "killed", *data],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    run = tmp_path / small_capture.name / "edit3dgs" / "killed"
    deadline = time.monotonic() + 900
    while (
        time.monotonic() < deadline and process.poll() is None and not list(run.glob("edits/*/00000_*.json"))
    ):
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    before = {
        path.name: path.read_bytes()
        for path in run.glob("edits/*/*.png")
        if path.with_suffix(".json").exists()
    }
    assert before, "the run ended before its first edit"
    result = subprocess.run(
        [*command, "--timestamp", "resumed", "--load-dir", str(run / "nerfstudio_models"), *data],
        env=environment,
        capture_output=True,
        text=True,
        timeout=1200,
    )
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    store = store_of(run.with_name("resumed"))
    assert len(store) == 6 and history_of(run.with_name("resumed"))["finished"]
    after = {path.name: path.read_bytes() for path in store.folder.glob("*.png")}
    assert all(after[name] == content for name, content in before.items())
