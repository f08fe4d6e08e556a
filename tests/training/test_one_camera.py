"""A capture by one camera: what its training does by itself, and what of it is seen when the camera turns."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.ndimage import distance_transform_edt

from edit3dgs_ns.flame.regions import region_faces
from edit3dgs_ns.method_configs.rigged_splatfacto_fast import rigged_splatfacto_fast
from edit3dgs_ns.training import one_camera
from edit3dgs_ns.training.model_setup import has_one_camera, head_assets
from edit3dgs_ns.training.one_camera import NOTE, fill_unseen_of
from edit3dgs_ns.training.options import chosen
from tests.edit_runs import GreenEditor, train
from tests.tiny_capture import TinyCapture, write_tiny_capture

STEPS, SIDE, TURNED = 60, 0, 3
"""Camera 0 stands 40 degrees to one side, camera 3 as far to the other."""


@pytest.fixture(scope="module", autouse=True)
def few_settling_steps() -> Iterator[None]:
    """An avatar of so few steps is faint: what shines through is taken back, so that settling need not take long."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(one_camera, "ROUNDS", 1)
        patch.setattr(one_camera, "SETTLING_STEPS", 8)
        yield


@pytest.fixture(scope="module")
def capture(tmp_path_factory: pytest.TempPathFactory) -> TinyCapture:
    """Its training images are those of camera 0 alone."""
    made = write_tiny_capture(tmp_path_factory.mktemp("one_camera"), size=48, timesteps=2)
    path = made.union / "transforms_train.json"
    content = json.loads(path.read_text())
    content["frames"] = [frame for frame in content["frames"] if frame["camera_index"] == SIDE]
    path.write_text(json.dumps(content))
    return made


def config_of(capture: Path, output: Path, steps: int = STEPS, **options: Any) -> Any:
    config = copy.deepcopy(rigged_splatfacto_fast.config)
    config.output_dir, config.timestamp, config.max_num_iterations = output, "run", steps
    config.machine.device_type, config.steps_per_eval_image = "cpu", 0
    config.pipeline.datamanager.dataparser.data = capture
    config.pipeline.model.sh_degree_interval, config.pipeline.model.num_downscales = 10, 0
    for name, value in options.items():
        setattr(config.pipeline.model, name, value)
    return config


@pytest.fixture(scope="module")
def trained_run(capture: TinyCapture, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A trainer that is done; read only."""
    return train(config_of(capture.union, tmp_path_factory.mktemp("run")))


@pytest.fixture(scope="module")
def trained(trained_run: Any) -> Any:
    """Its pipeline."""
    return trained_run.pipeline


@pytest.fixture(scope="module")
def trained_as_before(capture: TinyCapture, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The same training with both options off."""
    options = {"view_dependence": "on", "fill_unseen": "off"}
    return train(config_of(capture.union, tmp_path_factory.mktemp("run"), **options)).pipeline


def turned_view(pipeline: Any, capture: TinyCapture) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Render, truth and mask from the camera on the other side, at the first timestep."""
    frames = json.loads((capture.root / "EMO-1" / "transforms_train.json").read_text())["frames"]
    (frame,) = (f for f in frames if f["camera_index"] == TURNED and f["timestep_index"] == 0)
    image, mask = (
        np.asarray(Image.open(capture.root / "EMO-1" / frame[key]), np.float32) / 255
        for key in ("file_path", "fg_mask_path")
    )
    model = pipeline.model.eval()
    camera = copy.deepcopy(pipeline.datamanager.train_camera([0]))
    camera.camera_to_worlds = torch.tensor(frame["transform_matrix"])[None, :3].float()
    with torch.no_grad():
        render = model.get_outputs(camera)["rgb"].numpy()
    return render, image, mask > 0.5


def test_the_unseen_side_has_nearly_its_true_colour(
    trained: Any, trained_as_before: Any, capture: TinyCapture
) -> None:
    errors = []
    for pipeline in (trained, trained_as_before):
        render, image, mask = turned_view(pipeline, capture)
        errors.append(np.abs(render - image)[mask].mean())
    assert errors[0] < 0.15
    assert errors[0] < 0.95 * errors[1]


def test_training_views_stay_as_they_are(
    capture: TinyCapture, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """What is laid onto the head model does not shine through; training goes on without it, unless it is over."""
    pipeline = train(config_of(capture.union, tmp_path_factory.mktemp("run"), fill_unseen="off")).pipeline
    model, manager = pipeline.model.eval(), pipeline.datamanager

    @torch.no_grad()
    def views() -> list[torch.Tensor]:
        cameras = (manager.train_camera([i]) for i in range(len(manager.train_dataset)))
        return [model.get_outputs(camera)["rgb"] for camera in cameras]

    def turned_error() -> float:
        render, image, mask = turned_view(pipeline, capture)
        return float(np.abs(render - image)[mask].mean())

    def most_different() -> float:
        return max(float((a - b).abs().mean()) for a, b in zip(views(), before, strict=True))

    before, error = views(), turned_error()
    values = {name: value.clone() for name, value in model.state_dict().items()}
    model.config.fill_unseen = "on"
    with pipeline.completed(keep=False):
        assert most_different() < 1.01 * one_camera.MOST_DIFFERENCE
        assert turned_error() < 0.95 * error
    assert all(torch.equal(value, values[name]) for name, value in model.state_dict().items())
    with pipeline.completed(keep=True):
        pass
    assert most_different() < 1.01 * one_camera.MOST_DIFFERENCE
    assert turned_error() < 0.95 * error


def test_only_the_end_of_a_training_waits_for_the_front_to_settle(
    trained: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settled: list[bool] = []
    monkeypatch.setattr(trained, "complete_avatar", lambda settle=True: settled.append(settle))
    for keep in (False, True):
        with trained.completed(keep=keep):
            pass
    assert settled == [False, True]


def test_nothing_floats(trained: Any, capture: TinyCapture) -> None:
    """From the other side nothing is seen beside the head."""
    render, _, mask = turned_view(trained, capture)
    away = distance_transform_edt(~mask) > 3
    assert away.sum() > 400
    assert (1 - render)[away].mean() < 0.01


def test_gaussians_of_unseen_faces_lie_on_them(trained: Any) -> None:
    """The mesh's back, which camera 0 cannot see: within a triangle's size of it."""
    model = trained.model
    rest = model.head.rest_frames()
    away = rest.rotation[..., 1] @ torch.tensor([0.64, 0.0, -0.77]) > 0.9
    scalp = torch.zeros(len(rest.size), dtype=torch.bool)
    assets = head_assets(trained.datamanager.train_dataset.metadata)
    scalp[torch.from_numpy(region_faces(assets, "scalp"))] = True
    hidden = (away & scalp)[model.binding]
    assert hidden.sum() > 20
    # All but what would shine through a face that is still faint.
    flat = model.gauss_params["means"][hidden].norm(dim=1) < 1
    opaque = torch.sigmoid(model.gauss_params["opacities"][hidden]) > 0.9
    assert (flat & opaque).float().mean() > 0.5


def test_defaults_follow_the_number_of_cameras(trained: Any, trained_as_before: Any) -> None:
    assert trained.model.one_camera and not trained.model.view_dependent and trained.model.fills_unseen
    assert int(trained.model.sh_degree_reached) == 0
    own = trained_as_before.model
    assert own.one_camera and own.view_dependent and not own.fills_unseen
    assert int(own.sh_degree_reached) == 3


def test_several_cameras_train_as_before(
    tiny_capture: TinyCapture, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pipeline = train(config_of(tiny_capture.union, tmp_path, steps=12)).pipeline
    model = pipeline.model
    assert not model.one_camera and model.view_dependent and not model.fills_unseen
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert fill_unseen_of(model, pipeline.datamanager) == 0
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert "one camera" not in capsys.readouterr().out


def test_it_is_said(capture: TinyCapture, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train(config_of(capture.union, tmp_path, steps=1))
    assert " ".join(NOTE.split()) in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(("indices", "one"), [([4, 4, 4], True), ([4, 5], False), (None, False)])
def test_one_camera_is_told_by_its_number(indices: list[int] | None, one: bool) -> None:
    metadata = {} if indices is None else {"camera_indices": torch.tensor(indices)}
    assert has_one_camera(metadata) == one


def test_what_the_user_says_is_done() -> None:
    assert [chosen(choice, True) for choice in ("auto", "on", "off")] == [True, True, False]
    assert [chosen(choice, False) for choice in ("auto", "on", "off")] == [False, True, False]


def test_an_edit_reaches_what_no_image_shows(
    capture: TinyCapture, trained_run: Any, make_config: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An editor that paints all heads green: the side that no image shows becomes green as well."""
    from edit3dgs_ns.edit_training.pipeline import EditPipeline

    monkeypatch.setattr(EditPipeline, "_load_editor", lambda self: GreenEditor())
    options = {"avatar": trained_run.base_dir, "rounds": 1, "edit_every": 100, "final_steps": 0}
    edited = train(make_config(data=capture.union, **options)).pipeline
    greenness = []
    for pipeline in (trained_run.pipeline, edited):
        render, _, mask = turned_view(pipeline, capture)
        greenness.append((render[..., 1] - render[..., [0, 2]].max(-1))[mask].mean())
    assert greenness[0] < -0.03
    assert greenness[1] > 0.05
