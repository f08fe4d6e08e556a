"""How edits are fitted: with which loss, until when, and what of the avatar does not move meanwhile."""

from __future__ import annotations

import json
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

from edit3dgs_ns.editing.editor import EditResult
from tests.edit_runs import GreenEditor, PulledPlug, checkpoint_of, history_of, store_of, train

LIGHT = "_model.appearance.light"


@pytest.fixture
def with_editor(monkeypatch):
    """Runs use this editor."""
    from edit3dgs_ns.edit_training.pipeline import EditPipeline

    return lambda editor: monkeypatch.setattr(EditPipeline, "_load_editor", lambda self: editor)


def _gaussians(run_or_model: Any) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in run_or_model.gauss_params.items()}


# -- what is held -----------------------------------------------------------------------------------------------------


def test_light_and_motion_stay_as_they_were(make_config, small_avatar, with_editor):
    with_editor(GreenEditor())
    after = checkpoint_of(train(make_config(rounds=1)).base_dir)["pipeline"]
    before = checkpoint_of(small_avatar)["pipeline"]
    assert before[LIGHT].any()
    assert torch.equal(before[LIGHT], after[LIGHT])
    for name in before:
        if name.startswith("_model.head."):
            assert torch.equal(before[name], after[name]), name


def test_light_is_trained_on_demand(make_config, small_avatar, with_editor):
    with_editor(GreenEditor())
    after = checkpoint_of(train(make_config(rounds=1, edit_light=True)).base_dir)["pipeline"]
    assert not torch.equal(checkpoint_of(small_avatar)["pipeline"][LIGHT], after[LIGHT])


@pytest.mark.parametrize("base_steps", [0, 3])
def test_gaussians_outside_of_the_edited_part_stay_bit_for_bit(
    make_config, with_editor, monkeypatch, base_steps
):
    """Also after a training of their own in the same run, when Adam is in full swing."""
    from edit3dgs_ns.edit_training.fit import EditFit

    begin, seen = EditFit.begin, {}

    def remember(self, optimizers):
        if self._restore is None:
            seen["before"] = _gaussians(self._model)
        begin(self, optimizers)

    monkeypatch.setattr(EditFit, "begin", remember)
    with_editor(GreenEditor())
    options = {"avatar": None, "base_steps": base_steps} if base_steps else {}
    trainer = train(make_config(only="hair", hold_outside=True, rounds=2, **options))
    model = trainer.pipeline.model
    held = torch.from_numpy(trainer.pipeline._edit.fit.held_faces)[model.binding]
    assert 0.05 < held.float().mean() < 0.95
    for name, after in _gaussians(model).items():
        assert torch.equal(seen["before"][name][held], after[held]), name
        state = trainer.optimizers.optimizers[name].state[model.gauss_params[name]]
        assert not state["exp_avg"][held].any() and not state["exp_avg_sq"][held].any(), name
    moved = (seen["before"]["features_dc"] != _gaussians(model)["features_dc"]).any(dim=1)
    assert moved[~held].float().mean() > 0.1
    assert not model.gauss_params["means"]._backward_hooks  # let go when training is over


def test_the_border_of_the_part_is_free(make_config, with_editor):
    from edit3dgs_ns.training.model_setup import head_assets

    with_editor(GreenEditor())
    config = make_config(only="nose", hold_outside=True, hold_border=0.02)
    pipeline = config.pipeline.setup(device="cpu", test_mode="val")
    head = pipeline.model.head
    held = pipeline._edit.fit.held_faces
    nose = head_assets(pipeline.datamanager.train_dataset.metadata).face_regions["nose"]
    middles = head.canonical_vertices()[head.faces].mean(dim=1).detach()
    distance = torch.cdist(middles, middles[nose]).amin(dim=1).numpy()
    np.testing.assert_array_equal(held, distance > 0.02)
    assert (~held).sum() > len(nose)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hold_outside": True}, "--pipeline.hold-outside needs a part.*--pipeline.editor.only"),
        ({"hold_outside": True, "only": "hair", "densify": True}, "--pipeline.hold-outside with --pipeline.densify"),
        ({"hold_border": -0.1}, "--pipeline.hold-border -0.1"),
        ({"stop_when_converged": 2.0}, "--pipeline.stop-when-converged 2.0"),
        ({"timesteps": -1}, "--pipeline.timesteps -1"),
        ({"edit_loss_weight": 1.5}, "--pipeline.edit-loss-weight 1.5"),
        ({"edit_loss": "lpips"}, r"(?s)--pipeline.edit-loss lpips.*alexnet-owt.*--pipeline.edit-loss ssim"),
    ],
)  # fmt: skip
def test_mistakes_are_named_before_anything_is_read(make_config, options, message, monkeypatch, tmp_path):
    from edit3dgs_ns.dataparsers.nersemble import NersembleDataParser

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(NersembleDataParser, "__init__", lambda *a, **k: pytest.fail("the data was read"))
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        make_config(**options).pipeline.setup(device="cpu", test_mode="val")


# -- the loss ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def random_alexnet(monkeypatch, tmp_path):
    """Weights of LPIPS' network seem to be there; they are random, and too large to really write them."""
    import torchvision
    from torchmetrics.functional.image import lpips

    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    (folder / "alexnet-owt-7be5be79.pth").touch()
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    torch.manual_seed(0)
    features = torchvision.models.alexnet(weights=None).features
    monkeypatch.setattr(lpips, "_get_tv_model_features", lambda net, pretrained: features)


def test_lpips_is_used_where_its_weights_are(random_alexnet, make_config, with_editor, capsys):
    with_editor(GreenEditor())
    trainer = train(make_config(rounds=1))
    assert history_of(trainer.base_dir)["loss"] == "0.5 L1 + 0.5 LPIPS"
    assert " ".join(capsys.readouterr().out.split()).count("fitted with 0.5 L1 + 0.5 LPIPS") == 1
    assert store_of(trainer.base_dir).settings["loss"] == "0.5 L1 + 0.5 LPIPS"
    assert not any("net" in name for name in checkpoint_of(trainer.base_dir)["pipeline"])


def test_lpips_has_the_gradient_of_its_value(random_alexnet):
    from edit3dgs_ns.edit_training.loss import make_edit_loss

    loss = make_edit_loss("lpips", 0.8, ssim_weight=0.2)
    torch.manual_seed(1)
    image, target = torch.rand(2, 48, 48, 3) * 0.8 + 0.1, torch.rand(2, 48, 48, 3)
    image.requires_grad_(True)
    value = loss(image, target)
    value.backward()
    direction = torch.nn.functional.normalize(image.grad.flatten(), dim=0).reshape(image.shape)
    with torch.no_grad():
        l1 = (image - target).abs().mean()
        assert value > 0.2 * l1 and loss(target, target) == 0
        step = 0.05
        slope = (loss(image + step * direction, target) - loss(image - step * direction, target)) / (2 * step)
    assert float(slope) == pytest.approx(float(image.grad.norm()), rel=0.1)


def test_without_weights_it_is_ssim_and_the_log_says_so_once(
    make_config, with_editor, capsys, monkeypatch, tmp_path
):
    from edit3dgs_ns.splats import losses

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with_editor(GreenEditor())
    trainer = train(make_config(rounds=1, edit_loss_weight=0.4))
    printed = " ".join(capsys.readouterr().out.split())
    assert (
        printed.count("fitted with 0.6 L1 + 0.4 (1 - SSIM)") == 1 and "LPIPS' weights are not on" in printed
    )
    loss = trainer.pipeline._edit.fit.loss
    a, b = torch.rand(2, 20, 20, 3), torch.rand(2, 20, 20, 3)
    torch.testing.assert_close(loss(a, b), losses.image_loss(a, b, 0.4))


def test_a_damaged_file_of_weights_is_named(monkeypatch, tmp_path):
    from edit3dgs_ns.edit_training.loss import make_edit_loss

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    path = tmp_path / "hub" / "checkpoints" / "alexnet-owt-7be5be79.pth"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"nothing")
    with pytest.raises(ValueError, match=r"alexnet-owt-7be5be79.pth cannot be read"):
        make_edit_loss("auto", None, 0.2)


def test_edits_are_fitted_with_the_loss_and_the_base_training_is_not(make_config, with_editor, monkeypatch):
    from edit3dgs_ns.edit_training.loss import EditLoss

    used = []
    call = EditLoss.__call__
    monkeypatch.setattr(EditLoss, "__call__", lambda self, *images: used.append(1) or call(self, *images))
    with_editor(GreenEditor())
    trainer = train(make_config(avatar=None, base_steps=3, rounds=1, final_steps=1))
    assert len(used) == 2 + 1
    assert trainer.pipeline.model._image_loss is None  # the avatar may be trained by something else now


# -- until when -------------------------------------------------------------------------------------------------------


class _Settling:
    """Darkens what it is shown while it may use much noise, and hardly any more below that."""

    settings: ClassVar[dict[str, Any]] = {"editor": "settling"}
    views_depend = False

    def __init__(self) -> None:
        self.views = 0

    def unknown_instruction(self, prompt: str) -> None:
        """Knows every prompt."""

    def edit(self, request, progress=None, finished=None):
        self.views += request.num_views
        return EditResult(images=request.images * np.float32(0.8 if request.noise > 0.7 else 0.99))


ENDS_AFTER = 5
"""Six rounds fall from 0.98 to 0.3: the first three are above 0.7, and two in a row have to be calm."""


@pytest.mark.parametrize("steps_per_save", [1, 500])
def test_a_run_ends_when_edits_have_stopped_changing_and_stays_ended(
    make_config, with_editor, monkeypatch, steps_per_save
):
    """Killed in its final steps, with its newest checkpoint from before or after it has converged, it does not begin again."""
    from edit3dgs_ns.training.trainer import ResumableTrainer

    options = {"rounds": 6, "stop_when_converged": 0.03}
    editor = _Settling()
    with_editor(editor)
    train_iteration = ResumableTrainer.train_iteration

    def crash(self, step):
        if step == ENDS_AFTER * 2 + 1:
            raise PulledPlug
        return train_iteration(self, step)

    monkeypatch.setattr(ResumableTrainer, "train_iteration", crash)
    config = make_config(**options)
    config.steps_per_save = steps_per_save
    with pytest.raises(PulledPlug):
        train(config)
    monkeypatch.setattr(ResumableTrainer, "train_iteration", train_iteration)
    views = editor.views
    resumed = train(make_config(**options, load_dir=config.get_base_dir()))
    assert editor.views == views == ENDS_AFTER * 2
    history = history_of(resumed.base_dir)
    assert (history["rounds"], history["rounds_planned"], history["converged_after"]) == (5, 6, 5)
    assert history["finished"]
    calm = [batch["correction"] < 0.03 for batch in history["batches"]]
    assert calm == [False, False, False, True, True]
    assert resumed.step + 1 == resumed.pipeline.total_steps == ENDS_AFTER * 2 + 2
    saved = torch.load(
        resumed.base_dir / "nerfstudio_models" / f"step-{resumed.step:09d}.ckpt", weights_only=True
    )
    assert saved["pipeline"]["_extra_state"]["schedule"]["ended_after"] == ENDS_AFTER
    assert resumed.pipeline._plan.learning_rate_factor(ENDS_AFTER * 2 + 1) < 0.5


def test_without_a_threshold_all_rounds_are_done(make_config, with_editor):
    with_editor(_Settling())
    trainer = train(make_config(rounds=6, final_steps=0, edit_every=1))
    history = history_of(trainer.base_dir)
    assert history["rounds"] == 6 and history["converged_after"] is None


# -- which timesteps --------------------------------------------------------------------------------------------------


def test_farthest_first_edits_a_cover_and_the_rest_of_the_capture_costs_nothing(make_config, with_editor):
    from edit3dgs_ns.flame.expression_space import expression_space

    editor = _Settling()
    with_editor(editor)
    trainer = train(make_config(rounds=2, timestep_order="farthest-first"))
    datamanager, head = trainer.pipeline.datamanager, trainer.pipeline.model.head
    edited = [batch["timesteps"][0] for batch in history_of(trainer.base_dir)["batches"]]
    motion = datamanager.train_dataset.metadata["flame_motion"]
    places = expression_space(head.flame.shaped(head.shape, head.static_offset), motion)
    known = torch.tensor(sorted(datamanager.indices_by_timestep()))
    assert set(edited) < set(known.tolist())
    first = known[(places[known] - places[known].mean(dim=0)).norm(dim=1).argmin()]
    second = known[(places[known] - places[first]).norm(dim=1).argmax()]
    assert edited == [int(first), int(second)]
    assert editor.views == 4
    # Nothing but edited images is trained on; the other timesteps change with the Gaussians that all share.
    used = {i for step in range(50) for i in datamanager.batch_indices(step)}
    assert used == set(datamanager.replaced_indices()) and len(used) == 4


def test_mixed_training_warns_of_images_that_no_round_reaches(make_config, with_editor, capsys):
    with_editor(GreenEditor())
    make_config(train_on="mixed", rounds=2).pipeline.setup(device="cpu", test_mode="val")
    printed = " ".join(capsys.readouterr().out.split())
    assert "no round edits 8 of the 12 training images" in printed
    make_config(train_on="mixed", rounds=12).pipeline.setup(device="cpu", test_mode="val")
    assert "no round edits" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "value"),
    [("train_on", "mixed"), ("hold_outside", True), ("edit_light", True), ("edit_loss_weight", 0.7),
     ("noise_last", 0.5), ("anchors", 1), ("guidance_scale", 9.0), ("timestep_order", "farthest-first"),
     ("timesteps", 2)],
)  # fmt: skip
def test_every_option_that_changes_edits_is_known_to_store_and_checkpoint(
    make_config, with_editor, name, value
):
    from edit3dgs_ns.edit_training.settings import check_same_run
    from edit3dgs_ns.editing.store import settings_hash

    with_editor(GreenEditor())
    one, other = (
        make_config(only="hair", **options).pipeline.setup(device="cpu", test_mode="val")
        for options in ({}, {name: value})
    )
    assert settings_hash(one._edit.settings) != settings_hash(other._edit.settings)
    check_same_run(one.get_extra_state(), one._edit.settings)
    with pytest.raises(ValueError, match="--load-dir: the run to resume has"):
        check_same_run(one.get_extra_state(), other._edit.settings)
    assert json.loads(json.dumps(one._edit.settings)) == one._edit.settings
