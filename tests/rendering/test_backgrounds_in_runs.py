"""An avatar in a scene, in videos and in runs of its own, drawn in one pass; `edit3dgs derive`, with and without a scene."""

from __future__ import annotations

import json
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from nerfstudio.utils.eval_utils import eval_setup

from edit3dgs_ns.runs.backgrounds import read_background
from edit3dgs_ns.runs.scene_options import SceneOptions
from edit3dgs_ns.runs.trained_run import TrainedRun
from edit3dgs_ns.splats.ply import write_splat_ply
from tests.command_line import edit3dgs, said
from tests.office_scene import ROUNDED, expected_picture, front_at

# -- videos and runs ------------------------------------------------------------------------------------------------------


@torch.no_grad()
def test_a_reenactment_in_a_scene_is_one_picture_of_all_gaussians(
    in_office: Path, office: tuple[Path, Any], run: TrainedRun
) -> None:
    _, pipeline, _, _ = eval_setup(in_office, test_mode="test")  # as ns-viewer and ns-render open it
    with av.open(str(in_office.parent / "v.mp4")) as video:
        frames = [frame.to_ndarray(format="rgb24").astype(float) for frame in video.decode(video=0)]
    assert len(frames) == 3
    for number, frame in enumerate(frames):
        camera = front_at(run, number / 2)
        expected = expected_picture(pipeline.model, office[1], camera)
        seen = pipeline.model.get_outputs_for_camera(camera)
        torch.testing.assert_close(seen["rgb"], expected, atol=ROUNDED, rtol=0)
        alone = pipeline.model.get_outputs(camera)  # what an edit would see
        changed = (seen["rgb"] - alone["rgb"]).abs().amax(dim=2) > 0.05
        assert 0.1 < float(changed.float().mean()) < 0.95, (
            "the scene shows around the head, and the head in it"
        )
        brightness = np.array([0.299, 0.587, 0.114])
        for panel in (frame[-48:, :48], frame[-48:, 48:]):  # the avatar itself, moved alike, is --beside
            assert np.abs((panel - expected.numpy() * 255) @ brightness).mean() < 6
    record = json.loads((in_office.parent / "reenactment.json").read_text())
    assert record["background"] == str(office[0])


def test_ns_render_shows_the_scene_of_a_derived_run(in_office: Path, run: TrainedRun, tmp_path: Path) -> None:
    from nerfstudio.scripts.render import DatasetRender
    from PIL import Image

    DatasetRender(
        load_config=in_office, output_path=tmp_path, split="val", rendered_output_names=["rgb"], image_format="png"
    ).main()  # fmt: skip
    (first, *_) = sorted((tmp_path / "val").glob("**/*.png"))
    with Image.open(first) as file:
        image = np.asarray(file.convert("RGB")).astype(float) / 255
    shown = TrainedRun(in_office)
    camera = run.split("val").cameras[0:1]
    np.testing.assert_allclose(image, shown.colours(camera)[0], atol=0.01)
    shown.pipeline.model.backdrop = None
    assert np.abs(image - shown.colours(camera)[0]).max() > 0.2


def test_orbit_in_a_splat_file(
    config: Path, office: tuple[Path, Any], office_place: Path, tmp_path: Path
) -> None:
    backdrop = read_background(SceneOptions(office[0]))
    assert backdrop is not None
    colors = backdrop.scene.colors
    logits = torch.logit(backdrop.scene.opacities)[:, None]
    write_splat_ply(tmp_path / "s.ply", backdrop.scene.gaussians, logits, colors[:, 0], colors[:, 1:])
    videos = []
    for name, path in (("run", office[0]), ("ply", tmp_path / "s.ply")):
        videos.append(tmp_path / f"{name}.mp4")
        options = ("--seconds", 1, "--fps", 3, "--time", 0, "--output", videos[-1])
        scene = ("--background", path, "--background-transform", office_place)
        assert edit3dgs("orbit", "--load-config", config, *options, *scene) == 0
    assert videos[0].read_bytes() == videos[1].read_bytes()


# -- derive ---------------------------------------------------------------------------------------------------------------


def test_one_moment_for_ns_export(config: Path, run: TrainedRun, tmp_path: Path) -> None:
    from nerfstudio.scripts.exporter import ExportGaussianSplat
    from plyfile import PlyData

    from edit3dgs_ns.runs.exporting import export_splat

    assert edit3dgs("derive", "--load-config", config, "--timestep", 4) == 0
    derived = config.parent.with_name(f"{config.parent.name}-timestep-4") / "config.yml"
    _, pipeline, _, _ = eval_setup(derived, test_mode="inference")
    model, last = run.pipeline.model, run.pipeline.model.head.num_timesteps - 1
    with torch.no_grad():
        expected = model.gaussians_at(4 / last)
    torch.testing.assert_close(pipeline.model.means, expected.means)
    assert not pipeline.model.needs_camera_times, "a camera path needs no times where nothing moves"
    ExportGaussianSplat(load_config=derived, output_dir=tmp_path / "theirs").main()
    export_splat(config, tmp_path / "ours", timestep=4)
    theirs, ours = (PlyData.read(tmp_path / who / "splat.ply")["vertex"] for who in ("theirs", "ours"))
    for name in theirs.data.dtype.names:
        np.testing.assert_allclose(theirs[name], ours[name], atol=1e-6, rtol=1e-5, err_msg=name)


def test_a_moment_between_two_timesteps(config: Path, run: TrainedRun) -> None:
    model = run.pipeline.model
    time = 3.5 / (model.head.num_timesteps - 1)
    assert edit3dgs("derive", "--load-config", config, "--time", time, "--run-name", "between") == 0
    derived = config.parent.with_name(f"{config.parent.name}-between") / "config.yml"
    _, pipeline, _, _ = eval_setup(derived)
    with torch.no_grad():
        torch.testing.assert_close(pipeline.model.means, model.gaussians_at(time).means)
    assert pipeline.plays == f"time {time:g} of its own motion"
    with pytest.raises(ValueError, match=r"shows time .* no captured image does"):
        TrainedRun.of_capture(derived)


def test_the_avatars_own_motion_in_a_scene(
    config: Path, office: tuple[Path, Any], office_place: Path
) -> None:
    scene = ("--background", office[0], "--background-transform", office_place)
    assert edit3dgs("derive", "--load-config", config, *scene) == 0
    derived = TrainedRun(config.parent.with_name(f"{config.parent.name}-in-office") / "config.yml")
    camera = front_at(derived, 1.0)
    expected = expected_picture(derived.pipeline.model, office[1], camera)
    np.testing.assert_allclose(derived.colours(camera)[0], expected, atol=ROUNDED)
    with torch.no_grad():
        own, played = TrainedRun(config).pipeline.model, derived.pipeline.model
        torch.testing.assert_close(own.gaussians_at(1.0).means, played.gaussians_at(1.0).means)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((), "--timestep or --time, or --background"),
        (("--timestep", 1, "--time", 0.5), "give one of them"),
        (("--timestep", 99), "has the timesteps 0 to"),
        (("--time", 1.5), "expected a normalised time"),
    ],
)
def test_moments_that_are_not_there(
    config: Path, options: tuple[object, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert edit3dgs("derive", "--load-config", config, "--run-name", "bad", *options) == 2
    assert message in said(capsys)
    assert not config.parent.with_name(f"{config.parent.name}-bad").exists()
