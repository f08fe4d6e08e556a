"""What the two avatar methods train, and when: rates, schedules, fine-tuning, losses on visible Gaussians only."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from edit3dgs_ns.method_configs.rigged_splatfacto import rigged_splatfacto
from edit3dgs_ns.method_configs.rigged_splatfacto_fast import rigged_splatfacto_fast
from edit3dgs_ns.splats.views import camera_extent
from edit3dgs_ns.training.model import MOTION_GROUPS
from tests.tiny_capture import TinyCapture

GAUSSIAN_AVATARS = {
    "means": 5e-3, "features_dc": 2.5e-3, "features_rest": 1.25e-4, "opacities": 0.05, "scales": 0.017, "quats": 1e-3,
    "flame_expr": 1e-3, "flame_translation": 1e-6, "flame_rotation": 1e-5, "flame_neck": 1e-5, "flame_jaw": 1e-5,
    "flame_eyes": 1e-5,
}  # fmt: skip


def config_of(method: Any, capture: Path, output: Path, steps: int = 1, **model: Any) -> Any:
    config = copy.deepcopy(method.config)
    config.output_dir, config.max_num_iterations, config.steps_per_eval_image = output, steps, 0
    config.machine.device_type = "cpu"
    config.pipeline.datamanager.dataparser.data = capture
    for name, value in model.items():
        setattr(config.pipeline.model, name, value)
    config.set_timestamp()
    return config


def set_up(config: Any) -> Any:
    trainer = config.setup(local_rank=0, world_size=1)
    trainer.setup()
    return trainer


@pytest.fixture(scope="module")
def long_run(tiny_capture: TinyCapture, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """`rigged-splatfacto`, set up and not trained."""
    return set_up(config_of(rigged_splatfacto, tiny_capture.union, tmp_path_factory.mktemp("long")))


def test_rates_are_those_of_gaussian_avatars(long_run: Any) -> None:
    extent = camera_extent(long_run.pipeline.datamanager.train_dataset.cameras.camera_to_worlds)
    assert 0.5 < extent < 1.5 and extent != 1.0
    optimizers = long_run.optimizers.optimizers
    assert set(optimizers) == set(GAUSSIAN_AVATARS)
    for name, rate in GAUSSIAN_AVATARS.items():
        (group,) = optimizers[name].param_groups
        assert group["lr"] == pytest.approx(rate * (extent if name == "means" else 1)), name
        assert group["eps"] == 1e-15
    assert set(long_run.optimizers.schedulers) == {"means"}  # all other rates are constant
    (decay,) = long_run.optimizers.schedulers["means"].lr_lambdas
    assert [decay(s) for s in (0, 300_000, 600_000)] == pytest.approx([1, 0.1, 0.01])
    # The registered configuration itself stays as it was.
    assert rigged_splatfacto.config.optimizers["means"]["optimizer"].lr == 5e-3


def test_camera_extent_by_hand() -> None:
    c2w = torch.eye(4)[:3].repeat(3, 1, 1)
    c2w[:, :, 3] = torch.tensor([[0.0, 0, 0], [3, 0, 0], [0, 3, 0]])  # middle (1, 1, 0)
    assert camera_extent(c2w) == pytest.approx(1.1 * math.sqrt(5))


def test_densification_and_opacity_resets_come_when_they_should(
    long_run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from edit3dgs_ns.splats import strategy as module

    strategy, grown, reset = long_run.pipeline.model.strategy, [], []
    assert (strategy.grow_grad2d, strategy.prune_opa) == (2e-4, 0.005)
    monkeypatch.setattr(strategy, "_update_state", lambda *_, **__: None)
    monkeypatch.setattr(strategy, "_grow_gs", lambda p, o, state, step: grown.append(step) or (0, 0))
    monkeypatch.setattr(strategy, "_prune_gs", lambda *_: 0)
    monkeypatch.setattr(module, "reset_opa", lambda value, **_: reset.append((step, value)))
    for step in range(0, 700_000, 500):
        strategy.step_post_backward({"means": []}, {}, {}, step, {})
    assert grown == list(range(12_000, 600_000, 2000))
    assert reset == [(step, 0.01) for step in range(60_000, 600_000, 60_000)]


def test_spherical_harmonics_come_one_degree_per_thousand_steps(long_run: Any) -> None:
    model = long_run.pipeline.model
    degrees = []
    for step in (0, 999, 1000, 1999, 2000, 3000, 599_999):
        model.step_cb(long_run.optimizers, step)
        degrees.append(int(model.sh_degree_reached))
    assert degrees == [0, 0, 1, 1, 2, 3, 3]


def test_every_parameter_of_the_shown_timestep_is_tuned_at_its_own_rate(
    tiny_capture: TinyCapture, tmp_path: Path
) -> None:
    """Adam's first step moves every parameter that has a gradient by its learning rate."""
    config = config_of(rigged_splatfacto_fast, tiny_capture.union, tmp_path)
    rates = {name: 1e-4 * (i + 1) for i, name in enumerate(MOTION_GROUPS)}
    for name, rate in rates.items():
        config.optimizers[name]["optimizer"].lr, config.optimizers[name]["scheduler"] = rate, None
    trainer = set_up(config)
    head = trainer.pipeline.model.head
    before = {name: parameter.detach().clone() for name, parameter in head.pose.items()}
    (shown,) = {
        int(trainer.pipeline.datamanager.train_dataset.metadata["timesteps"][i])
        for i in trainer.pipeline.datamanager.batch_indices(0)
    }
    trainer.train()
    for group, name in MOTION_GROUPS.items():
        change = (head.pose[name].detach() - before[name]).abs()
        moved = change.amax(dim=1) > 0
        assert moved.nonzero().flatten().tolist() == [shown], name
        assert float(change[shown].max()) == pytest.approx(rates[group], rel=1e-3), name


def test_corrections_have_no_common_part(tiny_capture: TinyCapture, tmp_path: Path) -> None:
    trainer = set_up(config_of(rigged_splatfacto_fast, tiny_capture.union, tmp_path, steps=12))
    model = trainer.pipeline.model
    tracked, trained = model.head.motion(), 2 * tiny_capture.timesteps
    trainer.train()
    model.step_cb(trainer.optimizers, 12)
    tuned = model.head.motion()
    for name in ("expr", "jaw_pose", "rotation"):
        correction = getattr(tuned, name) - getattr(tracked, name)
        assert correction[:trained].abs().max() > 1e-5
        torch.testing.assert_close(
            correction[:trained].mean(dim=0), torch.zeros(correction.shape[1]), atol=1e-6, rtol=0
        )
        assert (correction[trained:] == 0).all()


def test_binding_losses_ignore_what_was_not_visible(long_run: Any) -> None:
    model = long_run.pipeline.model.train()
    image = torch.rand(1, 16, 16, 3)
    seen = torch.zeros(2, model.num_points, dtype=torch.int32)
    seen[0, 5], seen[1, 9] = 3, 2
    params = {name: p.detach().clone() for name, p in model.gauss_params.items()}
    with torch.no_grad():
        model.gauss_params["means"][:] = 50.0
        model.gauss_params["scales"][:] = 3.0
        model.gauss_params["means"][[5, 9]] = torch.tensor(
            [[0.0, 4, 0], [0.5, 0, 0]]
        )  # 3 beyond the limit, and none
        model.gauss_params["scales"][[5, 9]] = math.log(0.6)
    shown, model.info = model.info, {"radii": seen}
    losses = model.get_loss_dict({"rgb": image}, {"image": image})
    model.info = shown
    with torch.no_grad():
        for name, value in params.items():
            model.gauss_params[name][:] = value
    assert losses["position_loss"].item() == pytest.approx(0.01 * 3 / 2)
    assert losses["scale_loss"].item() == pytest.approx(0, abs=1e-6)
    assert losses["main_loss"].item() == pytest.approx(0, abs=1e-5)


def test_names_and_lengths() -> None:
    long, fast = rigged_splatfacto.config, rigged_splatfacto_fast.config
    assert (long.method_name, long.max_num_iterations) == ("rigged-splatfacto", 600_000)
    assert long.pipeline.datamanager.cameras_per_step == 1
    assert fast.method_name == "rigged-splatfacto-fast" and fast.max_num_iterations <= 5000
    model = long.pipeline.model
    assert not model.relighting and model.expression_rank == 0  # GaussianAvatars has none of these
