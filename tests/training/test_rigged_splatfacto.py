"""`rigged-splatfacto` through Nerfstudio's own classes: train, resume, evaluate, render, view; on the CPU, without a download."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.data.scene_box import OrientedBox
from nerfstudio.engine.trainer import Trainer
from nerfstudio.utils.eval_utils import eval_setup
from PIL import Image

from edit3dgs_ns.method_configs.rigged_splatfacto_fast import rigged_splatfacto_fast
from edit3dgs_ns.splats.world_splats import GAUSSIAN_PARAMETERS
from edit3dgs_ns.training.model import RiggedSplatfactoModel
from tests.tiny_capture import TinyCapture

STEPS = 24


@pytest.fixture(scope="module", autouse=True)
def offline(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No weights on this machine and no way to get any: building LPIPS would fail."""
    patch = pytest.MonkeyPatch()
    patch.setenv("TORCH_HOME", str(tmp_path_factory.mktemp("no_weights")))
    for name in ("http_proxy", "https_proxy", "HTTPS_PROXY", "HTTP_PROXY"):
        patch.setenv(name, "http://127.0.0.1:9")
    yield
    patch.undo()


def make_config(capture: Path, output: Path, **changes: Any) -> Any:
    """A run of a few steps that densifies on the way."""
    config = copy.deepcopy(rigged_splatfacto_fast.config)
    config.output_dir, config.max_num_iterations = output, STEPS
    config.machine.device_type = "cpu"
    config.pipeline.datamanager.dataparser.data = capture
    config.steps_per_eval_image = 10
    model = config.pipeline.model
    model.warmup_length, model.refine_every, model.sh_degree_interval, model.max_gaussians = 4, 10, 5, 12_600
    model.densify_grad_thresh = 1e-5
    for name, value in changes.items():
        setattr(config, name, value)
    config.set_timestamp()
    return config


def train(config: Any) -> Trainer:
    config.save_config()
    trainer = config.setup(local_rank=0, world_size=1)
    trainer.setup()
    trainer.train()
    return trainer


@pytest.fixture(scope="module")
def run(tiny_capture: TinyCapture, tmp_path_factory: pytest.TempPathFactory) -> Trainer:
    """A trained run; tests must not change its files or its model."""
    torch.manual_seed(0)
    return train(make_config(tiny_capture.union, tmp_path_factory.mktemp("runs")))


@pytest.fixture
def model(run: Trainer) -> RiggedSplatfactoModel:
    return run.pipeline.model.eval()  # type: ignore[return-value]


def checkpoint(run: Trainer) -> Path:
    (path,) = run.checkpoint_dir.glob("*.ckpt")
    return path


def test_training_learns_and_densifies(run: Trainer, tiny_capture: TinyCapture) -> None:
    trained: Any = run.pipeline.model.eval()
    fresh = make_config(tiny_capture.union, Path("unused")).pipeline.setup(device="cpu")
    camera, batch = run.pipeline.datamanager.next_eval_image(0)
    after, _ = trained.get_image_metrics_and_images(trained.get_outputs_for_camera(camera), batch)
    before, _ = fresh.model.get_image_metrics_and_images(
        fresh.model.eval().get_outputs_for_camera(camera), batch
    )
    assert after["psnr"] > before["psnr"] + 3 and after["ssim"] > before["ssim"]
    assert set(after) == {"psnr", "ssim"}  # no LPIPS without its weights
    num_faces = len(trained.head.faces)
    assert num_faces < trained.num_points <= 12_600
    assert set(trained.binding.tolist()) == set(range(num_faces))
    assert int(trained.sh_degree_reached) == 3


def test_optimizers_hold_the_live_parameters(run: Trainer) -> None:
    _check_attached(run)


def _check_attached(trainer: Trainer) -> None:
    """Optimizers hold exactly the tensors that are rendered, and moments of their shape."""
    model: Any = trainer.pipeline.model
    groups = model.get_param_groups()
    assert set(groups) == set(trainer.optimizers.optimizers)
    for name, optimizer in trainer.optimizers.optimizers.items():
        held = optimizer.param_groups[0]["params"]
        assert len(held) == len(groups[name]) and all(a is b for a, b in zip(held, groups[name], strict=True))
        for parameter in held:
            assert optimizer.state[parameter]["exp_avg"].shape == parameter.shape
    assert all(len(model.gauss_params[name]) == len(model.binding) for name in GAUSSIAN_PARAMETERS)


def test_checkpoint_is_plain_data_without_flame(run: Trainer) -> None:
    state = torch.load(checkpoint(run), weights_only=True)
    names = set(state["pipeline"])
    assert {
        "_model.gauss_params.means",
        "_model.binding",
        "_model.head.pose.expr",
        "_model.head.shape",
    } <= names
    assert not [
        n for n in names if any(word in n for word in ("template", "dirs", "regressor", "lpips", "J_"))
    ]


def test_resume_goes_on_with_the_same_tensors(
    run: Trainer, tiny_capture: TinyCapture, tmp_path: Path
) -> None:
    config = make_config(tiny_capture.union, tmp_path, load_dir=run.checkpoint_dir, max_num_iterations=3)
    resumed = config.setup(local_rank=0, world_size=1)
    resumed.setup()
    model: Any = resumed.pipeline.model
    saved = torch.load(checkpoint(run), weights_only=True)
    _check_attached(resumed)
    torch.testing.assert_close(
        model.gauss_params["means"].detach(), saved["pipeline"]["_model.gauss_params.means"]
    )
    assert resumed._start_step == STEPS and int(model.sh_degree_reached) == 3
    before = {name: parameter.detach().clone() for name, parameter in model.gauss_params.items()}
    resumed.train()
    _check_attached(resumed)
    assert all((model.gauss_params[name] != before[name]).any() for name in GAUSSIAN_PARAMETERS)
    rates = resumed.optimizers.optimizers["means"].param_groups[0]["lr"]
    assert rates < run.optimizers.config["means"]["optimizer"].lr


def test_ns_eval(run: Trainer, tmp_path: Path) -> None:
    from nerfstudio.scripts.eval import ComputePSNR

    ComputePSNR(load_config=run.base_dir / "config.yml", output_path=tmp_path / "eval.json").main()
    results = json.loads((tmp_path / "eval.json").read_text())["results"]
    assert results["psnr"] > 10 and 0 < results["ssim"] < 1 and "lpips" not in results


def test_ns_render_dataset(run: Trainer, tiny_capture: TinyCapture, tmp_path: Path) -> None:
    from nerfstudio.scripts.render import DatasetRender

    DatasetRender(
        load_config=run.base_dir / "config.yml", output_path=tmp_path, rendered_output_names=["rgb"], split="test",
        image_format="png",
    ).main()  # fmt: skip
    images = sorted((tmp_path / "test" / "rgb").glob("*.png"))
    assert len(images) == tiny_capture.cameras * tiny_capture.timesteps
    with Image.open(images[0]) as image:
        assert image.size == (48, 48) and image.convert("RGB").getpixel((0, 0)) == (255, 255, 255)


def test_loading_for_inference_keeps_the_avatar(run: Trainer, model: RiggedSplatfactoModel) -> None:
    _, pipeline, _, step = eval_setup(run.base_dir / "config.yml", test_mode="val")
    assert step == STEPS - 1 and pipeline.model.num_points == model.num_points
    camera, _ = run.pipeline.datamanager.next_eval_image(0)
    for name, image in model.get_outputs_for_camera(camera).items():
        torch.testing.assert_close(pipeline.model.get_outputs_for_camera(camera)[name], image)


# -- rendering --------------------------------------------------------------------------------------------------------


def camera_at(run: Trainer, time: float | None) -> Cameras:
    camera = run.pipeline.datamanager.train_camera([0])
    camera.times = None if time is None else torch.tensor([[time]])
    return camera


def test_outputs(run: Trainer, model: RiggedSplatfactoModel) -> None:
    outputs = model.get_outputs_for_camera(camera_at(run, 0.5))
    assert {name: tuple(image.shape) for name, image in outputs.items()} == {
        "rgb": (48, 48, 3), "depth": (48, 48, 1), "accumulation": (48, 48, 1)
    }  # fmt: skip
    inside = outputs["accumulation"] > 0.9
    assert inside.any() and 0.8 < float(outputs["depth"][inside].median()) < 1.1  # cameras stand a metre away
    assert (outputs["rgb"][outputs["accumulation"][..., 0] == 0] == 1).all()


def test_times(run: Trainer, model: RiggedSplatfactoModel) -> None:
    """Without a time the start is shown; between two timesteps the head is between them; outside it stops at the ends."""
    render = {t: model.get_outputs_for_camera(camera_at(run, t))["rgb"] for t in (None, 0.0, 1.0, 1.7)}
    torch.testing.assert_close(render[None], render[0.0])
    torch.testing.assert_close(render[1.7], render[1.0])
    step = 1 / (model.head.num_timesteps - 1)
    first, between, second = (model.head.vertices_at(t * step) for t in (0, 0.5, 1))
    torch.testing.assert_close(between, (first + second) / 2, atol=1e-3, rtol=0)
    assert (first - second).abs().max() > 5e-3
    # Times that went through float32 still mean their timestep exactly.
    for index in range(model.head.num_timesteps):
        time = float(torch.tensor(index * step, dtype=torch.float32))
        exact = model.head.vertices(torch.tensor([index]))[0]
        torch.testing.assert_close(model.head.vertices_at(time), exact, atol=0, rtol=0)


def test_gaussians_for_viewer_and_export_are_in_the_world(run: Trainer, model: RiggedSplatfactoModel) -> None:
    model.get_outputs_for_camera(camera_at(run, 1.0))
    expected = model.gaussians_at(1.0)
    torch.testing.assert_close(model.means, expected.means)
    torch.testing.assert_close(model.scales.exp(), expected.scales)
    torch.testing.assert_close(model.quats, expected.quats)
    low, high = model.head.vertices_at(1.0).aminmax(dim=0)
    assert ((model.means > low - 0.05) & (model.means < high + 0.05)).all()
    assert model.shs_0.shape == (model.num_points, 3) and model.shs_rest.shape == (model.num_points, 15, 3)


def test_crop(run: Trainer, model: RiggedSplatfactoModel) -> None:
    whole = model.get_outputs_for_camera(camera_at(run, 0.0))["accumulation"].sum()
    half = OrientedBox.from_params((0.5, 0.0, 0.0), (0.0, 0.0, 0.0), (1.0, 2.0, 2.0))  # x > 0
    nothing = OrientedBox.from_params((9.0, 9.0, 9.0), (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    part = model.get_outputs_for_camera(camera_at(run, 0.0), obb_box=half)["accumulation"].sum()
    empty = model.get_outputs_for_camera(camera_at(run, 0.0), obb_box=nothing)
    model.set_crop(None)
    assert 0.2 * whole < part < 0.8 * whole
    assert empty["accumulation"].sum() == 0 and (empty["rgb"] == 1).all()


def test_the_viewer_may_look_at_every_attribute(run: Trainer) -> None:
    from nerfstudio.viewer.utils import parse_object
    from nerfstudio.viewer.viewer_elements import ViewerElement

    held = len(run.pipeline.datamanager._train_images)  # type: ignore[attr-defined]
    parse_object(run.pipeline, ViewerElement, "Custom Elements")
    assert len(run.pipeline.datamanager._train_images) == held  # type: ignore[attr-defined]


def test_another_motion_can_drive_the_avatar(tiny_capture: TinyCapture) -> None:
    model = make_config(tiny_capture.union, Path("unused")).pipeline.setup(device="cpu").model
    motion = model.head.motion()
    model.head.set_motion(motion.slice(4, 6))
    assert model.head.num_timesteps == 2
    expected = model.head.flame.shaped(motion.shape, motion.static_offset).posed(motion.pose([5]))[0]
    torch.testing.assert_close(model.head.vertices_at(1.0), expected)


def test_cameras_of_different_times_are_refused(run: Trainer, model: RiggedSplatfactoModel) -> None:
    cameras = run.pipeline.datamanager.train_camera([0, 1])
    cameras.times = torch.tensor([[0.0], [0.5]])
    with pytest.raises(ValueError, match="share one time"):
        model.get_outputs(cameras)


# -- gradients and errors ---------------------------------------------------------------------------------------------


def test_only_timesteps_that_were_trained_are_fine_tuned(run: Trainer, tiny_capture: TinyCapture) -> None:
    tracked = run.pipeline.datamanager.train_dataset.metadata["flame_motion"]
    tuned = run.pipeline.model.head.motion()  # type: ignore[union-attr]
    unseen = slice(2 * tiny_capture.timesteps, None)
    for name in ("expr", "jaw_pose", "translation"):
        torch.testing.assert_close(getattr(tuned, name)[unseen], getattr(tracked, name)[unseen])
    assert (tuned.expr[: 2 * tiny_capture.timesteps] != tracked.expr[: 2 * tiny_capture.timesteps]).any()
    torch.testing.assert_close(tuned.shape, tracked.shape)


def test_fine_tuning_can_be_switched_off(tiny_capture: TinyCapture) -> None:
    config = make_config(tiny_capture.union, Path("unused"))
    config.pipeline.model.fine_tune_motion = False
    model = config.pipeline.setup(device="cpu").model
    assert set(model.get_param_groups()) == {*GAUSSIAN_PARAMETERS, "light"}


def test_data_without_flame_is_refused(tiny_capture: TinyCapture) -> None:
    config = make_config(tiny_capture.union, Path("unused"))
    pipeline = config.pipeline
    datamanager = pipeline.datamanager.setup(device="cpu")
    metadata = {**datamanager.train_dataset.metadata, "flame_motion": None}
    with pytest.raises(ValueError, match=r"FLAME parameters.*nersemble-data"):
        pipeline.model.setup(
            scene_box=datamanager.train_dataset.scene_box, num_train_data=1, metadata=metadata
        )


def test_parameters_of_another_head_are_refused(tiny_capture: TinyCapture) -> None:
    config = make_config(tiny_capture.union, Path("unused"))
    datamanager = config.pipeline.datamanager.setup(device="cpu")
    motion = datamanager.train_dataset.metadata["flame_motion"]
    wide = type(motion)(
        **{**vars(motion), "expr": torch.zeros(len(motion), 100), "static_offset": torch.zeros(5143, 3)}
    )
    metadata = {**datamanager.train_dataset.metadata, "flame_motion": wide}
    with pytest.raises(ValueError, match=r"100 expression coefficients.*5143 vertices.*FLAME_MODEL_PATH"):
        config.pipeline.model.setup(
            scene_box=datamanager.train_dataset.scene_box, num_train_data=1, metadata=metadata
        )


def test_a_checkpoint_of_something_else_is_refused(model: RiggedSplatfactoModel) -> None:
    with pytest.raises(ValueError, match="no rigged avatar"):
        model.load_state_dict({"gauss_params.means": torch.zeros(3, 3)})


@pytest.mark.parametrize(("name", "value"), [("sh_degree", 0), ("use_bilateral_grid", True)])
def test_unsupported_splatfacto_options_are_refused(tiny_capture: TinyCapture, name: str, value: Any) -> None:
    config = make_config(tiny_capture.union, Path("unused"))
    setattr(config.pipeline.model, name, value)
    with pytest.raises(ValueError, match="rigged-splatfacto"):
        config.pipeline.setup(device="cpu")
