"""Relighting and expression-dependent offsets: trained, saved, taken over by other runs, and shown to viewers and exporters."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from edit3dgs_ns.method_configs.rigged_splatfacto_fast import rigged_splatfacto_fast
from edit3dgs_ns.splats.checkpoints import model_state
from edit3dgs_ns.training.model import RiggedSplatfactoModel
from tests.tiny_capture import TinyCapture
from tests.training.test_avatar_training import config_of, set_up

OFF = {"relighting": False, "expression_rank": 0}
ON = {"relighting": True, "expression_rank": 3}


def fresh(capture: TinyCapture, **options: Any) -> RiggedSplatfactoModel:
    """A model that was not trained."""
    config = config_of(rigged_splatfacto_fast, capture.union, Path("unused"), **options)
    return config.pipeline.setup(device="cpu").model.eval()


@pytest.fixture(scope="module")
def run(tiny_capture: TinyCapture, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Trained with everything on, densified on the way."""
    output = tmp_path_factory.mktemp("appearance")
    densify = {"warmup_length": 3, "refine_every": 5, "densify_grad_thresh": 1e-5}
    trainer = set_up(config_of(rigged_splatfacto_fast, tiny_capture.union, output, steps=14, **ON, **densify))
    trainer.train()
    return trainer


@pytest.fixture
def trained(run: Any) -> RiggedSplatfactoModel:
    return run.pipeline.model.eval()


def shown(model: RiggedSplatfactoModel, run: Any, time: float) -> torch.Tensor:
    camera = run.pipeline.datamanager.train_camera([0])
    camera.times = torch.tensor([[time]])
    return model.get_outputs_for_camera(camera)["rgb"]


def test_all_of_it_is_trained(trained: RiggedSplatfactoModel) -> None:
    assert len(trained.gauss_params["means"]) > len(trained.head.faces)
    assert (trained.appearance.light != 0).all()
    for name in ("expression_means", "expression_colors"):
        assert trained.gauss_params[name].shape == (trained.num_points, 3, 3)
        assert (trained.gauss_params[name] != 0).any()


def test_a_run_without_them_takes_over_an_avatar_that_has_them(
    run: Any, trained: RiggedSplatfactoModel, tiny_capture: TinyCapture
) -> None:
    """As `ns-train edit3dgs` does with its avatar."""
    other = fresh(tiny_capture, **OFF)
    other.load_state_dict(trained.state_dict())
    for time in (0.0, 0.4):
        torch.testing.assert_close(shown(other, run, time), shown(trained, run, time))
    assert set(other.get_param_groups()) >= {"expression_means", "expression_colors"}


def test_an_avatar_without_them_looks_the_same_in_a_run_with_them(
    run: Any, trained: RiggedSplatfactoModel, tiny_capture: TinyCapture
) -> None:
    """As one of GaussianAvatars', or of `rigged-splatfacto`."""
    plain = fresh(tiny_capture, **OFF)
    plain.gauss_params["features_dc"].data = torch.randn(plain.num_points, 3)
    state = {name: value for name, value in plain.state_dict().items() if not name.startswith("appearance.")}
    other = fresh(tiny_capture, **ON)
    other.load_state_dict(state)
    torch.testing.assert_close(shown(other, run, 0.3), shown(plain, run, 0.3))
    assert "expression_means" not in other.get_param_groups()


def test_checkpoints_of_older_versions_load(
    run: Any, trained: RiggedSplatfactoModel, tiny_capture: TinyCapture
) -> None:
    """They call the module `look`."""
    older = {name.replace("appearance.", "look."): value for name, value in trained.state_dict().items()}
    assert older["look.light"].any() and not any("appearance" in name for name in older)
    other = fresh(tiny_capture, **OFF)
    other.load_state_dict(older)
    assert torch.equal(other.appearance.light, trained.appearance.light)
    torch.testing.assert_close(shown(other, run, 0.4), shown(trained, run, 0.4))
    content = {"pipeline": {f"_model.{name}": value for name, value in older.items()}}
    assert set(model_state(content)) == set(trained.state_dict())


def test_viewer_and_exporter_see_the_colours_of_the_timestep(
    run: Any, trained: RiggedSplatfactoModel
) -> None:
    """Standard splats made of the model's public properties show the same image."""
    from edit3dgs_ns.splats.rasterize import rasterize
    from edit3dgs_ns.splats.views import viewmats_from_c2w

    expected = shown(trained, run, 0.6)
    camera = run.pipeline.datamanager.train_camera([0])
    image, _, _ = rasterize(
        trained.means, trained.quats, trained.scales.exp(), torch.sigmoid(trained.opacities[:, 0]),
        torch.cat([trained.shs_0[:, None], trained.shs_rest], dim=1),
        viewmats_from_c2w(camera.camera_to_worlds), camera.get_intrinsics_matrices(), 48, 48,
        sh_degree=3, backgrounds=torch.ones(1, 3), rasterize_mode=trained.config.rasterize_mode,
    )  # fmt: skip
    torch.testing.assert_close(image[0].clamp(0, 1), expected, atol=1e-5, rtol=0)
    assert trained.shs_rest.shape == (trained.num_points, 15, 3)


def test_light_follows_the_head(run: Any, trained: RiggedSplatfactoModel) -> None:
    """A head that turns as a whole changes its colours only if the light is trained."""
    colors = trained.shown_at(0.0)[1]
    rotation = trained.head.pose["rotation"].data.clone()
    trained.head.pose["rotation"].data[0] += torch.tensor([0.0, 0.5, 0.0])
    turned = trained.shown_at(0.0)[1]
    light = trained.appearance.light.data.clone()
    trained.appearance.light.data.zero_()
    dark = trained.shown_at(0.0)[1]
    trained.head.pose["rotation"].data[:] = rotation
    unturned = trained.shown_at(0.0)[1]
    trained.appearance.light.data[:] = light
    assert (turned - colors).abs().max() > 1e-4
    torch.testing.assert_close(dark, unturned)
