"""An avatar in a scene of `ns-train splatfacto`: read as Nerfstudio left it, drawn in one pass, in videos, runs and the viewer.

The scene is a run of Nerfstudio's own method on one timestep of the tiny capture, trained for three steps; as gsplat needs a GPU,
the CPU rasterizer stands in for it.
"""

from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import numpy as np
import pytest
import torch
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.utils.eval_utils import eval_setup

from edit3dgs_ns import cli
from edit3dgs_ns.backgrounds import OPTION, drawn_otherwise, read_background, scene_name
from edit3dgs_ns.checkpoint_files import read_checkpoint
from edit3dgs_ns.finished_run import FinishedRun
from edit3dgs_ns.placement import OPTION as TRANSFORM_OPTION
from edit3dgs_ns.placement import read_placement
from edit3dgs_ns.scene_options import SceneOptions
from edit3dgs_ns.splats.ply import write_splat_ply
from edit3dgs_ns.splats.rasterize import rasterize
from edit3dgs_ns.splats.views import viewmats_from_c2w
from tests.edit_runs import train
from tests.tiny_capture import TinyCapture

SCALE, SHIFT = 0.4, (0.05, 0.0, -0.1)
ROUNDED = 4e-3
"""Rounding of float32 can carry a Gaussian over the rasterizer's limit of 1/255 in a pixel or two."""


def edit3dgs(*arguments: object) -> int:
    return cli.run([str(argument) for argument in arguments])


def stand_in_for_gsplat(*args: Any, packed: bool, sparse_grad: bool, **options: Any) -> Any:
    return rasterize(**options)


@pytest.fixture(scope="module")
def without_a_gpu() -> Any:
    """Splatfacto on the CPU."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("nerfstudio.models.splatfacto.rasterization", stand_in_for_gsplat)
        patch.setattr("nerfstudio.models.splatfacto.get_viewmat", viewmats_from_c2w)  # theirs is compiled
        patch.setattr(torch.Tensor, "cuda", lambda self: self)
        yield


@pytest.fixture(scope="module")
def office(
    tiny_capture: TinyCapture, torch_home: Path, tmp_path_factory: pytest.TempPathFactory, without_a_gpu: Any
) -> tuple[Path, Any]:
    """config.yml of a scene, and Nerfstudio's model of it, with colours that depend on the direction."""
    from nerfstudio.configs.method_configs import method_configs

    from edit3dgs_ns.dataparsers.nersemble import NersembleDataParserConfig

    config: Any = copy.deepcopy(method_configs["splatfacto"])
    config.pipeline.datamanager.dataparser = NersembleDataParserConfig(data=tiny_capture.union, timestep=1)
    config.pipeline.model.random_init, config.pipeline.model.num_random = True, 200
    config.pipeline.model.random_scale, config.pipeline.model.num_downscales = 1.0, 0
    config.output_dir, config.experiment_name = tmp_path_factory.mktemp("scenes"), "office"
    config.machine.device_type, config.vis, config.max_num_iterations = "cpu", "tensorboard", 3
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TORCH_HOME", str(torch_home))
        trainer = train(config)
    model = trainer.pipeline.model.eval()
    with torch.no_grad():
        model.gauss_params["features_rest"].normal_(0, 0.4, generator=torch.Generator().manual_seed(1))
        model.gauss_params["opacities"] += 2
        model.gauss_params["scales"] -= 1.5  # single spots, before, beside and behind the head
    model.step = 3000  # all degrees are in use
    trainer.save_checkpoint(3000)
    return trainer.base_dir / "config.yml", model


@pytest.fixture(scope="module")
def placed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("places") / "place.json"
    path.write_text(json.dumps({"scale": SCALE, "translation": SHIFT}))
    return path


def front_at(run: FinishedRun, time: float) -> Cameras:
    camera = run.split("val").cameras[0:1]
    camera.times = torch.tensor([[time]])
    return camera


@torch.no_grad()
def expected_picture(avatar: Any, scene: Any, camera: Cameras) -> torch.Tensor:
    """All Gaussians of both in one list, of Nerfstudio's model as it has them."""
    gaussians, colors = avatar.shown_at(float(camera.times))
    filled = torch.cat([colors, torch.zeros(len(colors), 16 - colors.shape[1], 3)], dim=1)
    theirs = torch.cat([scene.features_dc[:, None], scene.features_rest], dim=1)
    image, _, _ = rasterize(
        torch.cat([gaussians.means, SCALE * scene.means + torch.tensor(SHIFT)]),
        torch.cat([gaussians.quats, scene.quats]),
        torch.cat([gaussians.scales, SCALE * scene.scales.exp()]),
        torch.cat([torch.sigmoid(avatar.gauss_params["opacities"]), torch.sigmoid(scene.opacities)])[:, 0],
        torch.cat([filled, theirs]),
        viewmats_from_c2w(camera.camera_to_worlds), camera.get_intrinsics_matrices(), 48, 48,
        sh_degree=3, backgrounds=torch.ones(1, 3),
    )  # fmt: skip
    return image[0].clamp(0, 1)


# -- reading --------------------------------------------------------------------------------------------------------------


@torch.no_grad()
def test_a_run_of_splatfacto_looks_as_nerfstudio_draws_it(office: tuple[Path, Any], run: FinishedRun) -> None:
    config, theirs = office
    newest = read_checkpoint(config.parent / "nerfstudio_models" / "step-000003000.ckpt", OPTION)
    assert "np.float64" in repr(newest["schedulers"]) or "float64" in repr(
        [type(rate) for s in newest["schedulers"].values() for rate in s["_last_lr"]]
    ), "such numbers are what makes PyTorch refuse these checkpoints"
    camera = front_at(run, 0.0)
    expected = theirs.get_outputs(camera)["rgb"]
    assert float(expected.std()) > 0.05
    for place in (config, config.parent, config.parent / "nerfstudio_models"):
        backdrop = read_background(SceneOptions(place))
        assert backdrop is not None and scene_name(place) == "office"
        seen, _, _ = rasterize(
            *backdrop.placed.tensors,
            viewmats_from_c2w(camera.camera_to_worlds), camera.get_intrinsics_matrices(), 48, 48,
            sh_degree=3, backgrounds=theirs.background_color[None],
        )  # fmt: skip
        torch.testing.assert_close(seen[0].clamp(0, 1), expected, atol=1e-4, rtol=0)


def test_a_scene_trained_without_directions_shows_the_sigmoid_of_its_colours(
    office: tuple[Path, Any], tmp_path: Path
) -> None:
    path, changed = copied(office[0], tmp_path)
    changed["_model.gauss_params.features_rest"] = torch.zeros(200, 0, 3)
    save(path, changed)
    backdrop = read_background(SceneOptions(path))
    assert backdrop is not None and backdrop.scene.sh_degree == 0
    shown = backdrop.scene.colors[:, 0] * 0.28209479177387814 + 0.5
    torch.testing.assert_close(shown, torch.sigmoid(changed["_model.gauss_params.features_dc"]))


def test_places_in_the_datas_coordinates_undo_nerfstudios_normalisation(
    office: tuple[Path, Any], tmp_path: Path
) -> None:
    path, state = copied(office[0], tmp_path)
    turn = np.array([[1.0, 0, 0, 0.2], [0, 0, -1, 0], [0, 1, 0, 0.7]])  # y up -> z up
    (path.parent / "dataparser_transforms.json").write_text(
        json.dumps({"transform": turn.tolist(), "scale": 0.3})
    )
    (tmp_path / "t.json").write_text(json.dumps({"scale": 2, "coordinates": "data"}))
    backdrop = read_background(SceneOptions(path, tmp_path / "t.json"))
    assert backdrop is not None
    data = backdrop.placed.gaussians.means.double() / 2
    normalised = 0.3 * (data @ torch.from_numpy(turn[:, :3]).T + torch.from_numpy(turn[:, 3]))
    torch.testing.assert_close(normalised.float(), state["_model.gauss_params.means"])


def test_a_scene_that_wants_another_rasterizer_is_told(office: tuple[Path, Any], tmp_path: Path) -> None:
    backdrop = read_background(SceneOptions(office[0]))
    assert backdrop is not None and drawn_otherwise(backdrop, "classic") is None
    note = drawn_otherwise(backdrop, "antialiased")
    assert note is not None and "rasterize-mode classic, the avatar with antialiased" in note
    # What the file names is not run.
    path, _ = copied(office[0], tmp_path)
    trap = tmp_path / "sprung"
    path.write_text(
        f"!!python/object/apply:pathlib.Path.touch\n- !!python/object/apply:pathlib.Path [{trap}]\n"
    )
    backdrop = read_background(SceneOptions(path))
    assert backdrop is not None and drawn_otherwise(backdrop, "classic") is None and not trap.exists()


def copied(config: Path, folder: Path) -> tuple[Path, dict[str, Any]]:
    """A copy of a run: its config.yml, and the pipeline in its newest checkpoint, the only one left."""
    run = folder / "lab" / "splatfacto" / "run"
    shutil.copytree(config.parent, run)
    for path in sorted((run / "nerfstudio_models").iterdir())[:-1]:
        path.unlink()
    (path,) = (run / "nerfstudio_models").iterdir()
    return run / "config.yml", dict(read_checkpoint(path, OPTION)["pipeline"])


def save(config: Path, pipeline: dict[str, Any]) -> None:
    (path,) = (config.parent / "nerfstudio_models").iterdir()
    torch.save({"step": 3000, "pipeline": pipeline}, path)


# -- videos and runs ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def derived(
    config: Path, office: tuple[Path, Any], placed: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """config.yml of a run that plays a motion in the scene, and beside it its video."""
    folder = tmp_path_factory.mktemp("reenacted")
    (folder / "take.json").write_text(
        json.dumps({"fps": 30, "frames": [{"jawOpen": 0.5 * k} for k in range(3)]})
    )
    options = ("--motion", folder / "take.json", "--output", folder / "v.mp4", "--beside", config)
    scene = ("--background", office[0], "--background-transform", placed)
    assert edit3dgs("reenact", "--load-config", config, *options, *scene, "--run-name", "office") == 0
    run = config.parent.with_name(f"{config.parent.name}-office")
    shutil.copyfile(folder / "v.mp4", run / "v.mp4")
    return run / "config.yml"


@torch.no_grad()
def test_a_reenactment_in_a_scene_is_one_picture_of_all_gaussians(
    derived: Path, office: tuple[Path, Any], run: FinishedRun
) -> None:
    _, pipeline, _, _ = eval_setup(derived, test_mode="test")  # as ns-viewer and ns-render open it
    with av.open(str(derived.parent / "v.mp4")) as video:
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
    record = json.loads((derived.parent / "reenactment.json").read_text())
    assert record["background"] == str(office[0])


def test_ns_render_shows_the_scene_of_a_derived_run(derived: Path, run: FinishedRun, tmp_path: Path) -> None:
    from nerfstudio.scripts.render import DatasetRender
    from PIL import Image

    DatasetRender(
        load_config=derived, output_path=tmp_path, split="val", rendered_output_names=["rgb"], image_format="png"
    ).main()  # fmt: skip
    (first, *_) = sorted((tmp_path / "val").glob("**/*.png"))
    with Image.open(first) as file:
        image = np.asarray(file.convert("RGB")).astype(float) / 255
    shown = FinishedRun(derived)
    camera = run.split("val").cameras[0:1]
    np.testing.assert_allclose(image, shown.colours(camera)[0], atol=0.01)
    shown.pipeline.model.backdrop = None
    assert np.abs(image - shown.colours(camera)[0]).max() > 0.2


def test_orbit_in_a_splat_file(config: Path, office: tuple[Path, Any], placed: Path, tmp_path: Path) -> None:
    backdrop = read_background(SceneOptions(office[0]))
    assert backdrop is not None
    colors = backdrop.scene.colors
    logits = torch.logit(backdrop.scene.opacities)[:, None]
    write_splat_ply(tmp_path / "s.ply", backdrop.scene.gaussians, logits, colors[:, 0], colors[:, 1:])
    videos = []
    for name, path in (("run", office[0]), ("ply", tmp_path / "s.ply")):
        videos.append(tmp_path / f"{name}.mp4")
        options = ("--seconds", 1, "--fps", 3, "--time", 0, "--output", videos[-1])
        scene = ("--background", path, "--background-transform", placed)
        assert edit3dgs("orbit", "--load-config", config, *options, *scene) == 0
    assert videos[0].read_bytes() == videos[1].read_bytes()


# -- derive ---------------------------------------------------------------------------------------------------------------


def test_one_moment_for_ns_export(config: Path, run: FinishedRun, tmp_path: Path) -> None:
    try:
        from nerfstudio.scripts.exporter import ExportGaussianSplat
    except (ImportError, OSError) as error:
        pytest.skip(f"ns-export needs open3d, which needs the system's libusb-1.0: {error}")
    from plyfile import PlyData

    from edit3dgs_ns.avatar_export import export_splat

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


def test_a_moment_between_two_timesteps(config: Path, run: FinishedRun) -> None:
    model = run.pipeline.model
    time = 3.5 / (model.head.num_timesteps - 1)
    assert edit3dgs("derive", "--load-config", config, "--time", time, "--run-name", "between") == 0
    derived = config.parent.with_name(f"{config.parent.name}-between") / "config.yml"
    _, pipeline, _, _ = eval_setup(derived)
    with torch.no_grad():
        torch.testing.assert_close(pipeline.model.means, model.gaussians_at(time).means)
    assert pipeline.plays == f"time {time:g} of its own motion"
    with pytest.raises(ValueError, match=r"shows time .* no captured image does"):
        FinishedRun.of_capture(derived)


def test_the_avatars_own_motion_in_a_scene(config: Path, office: tuple[Path, Any], placed: Path) -> None:
    scene = ("--background", office[0], "--background-transform", placed)
    assert edit3dgs("derive", "--load-config", config, *scene) == 0
    derived = FinishedRun(config.parent.with_name(f"{config.parent.name}-in-office") / "config.yml")
    camera = front_at(derived, 1.0)
    expected = expected_picture(derived.pipeline.model, office[1], camera)
    np.testing.assert_allclose(derived.colours(camera)[0], expected, atol=ROUNDED)
    with torch.no_grad():
        own, played = FinishedRun(config).pipeline.model, derived.pipeline.model
        torch.testing.assert_close(own.gaussians_at(1.0).means, played.gaussians_at(1.0).means)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((), "--timestep or --time, or --background"),
        (("--timestep", 1, "--time", 0.5), "give one of them"),
        (("--timestep", 99), "has the timesteps 0 to"),
        (("--time", 1.5), "expected a place on the motion"),
    ],
)
def test_moments_that_are_not_there(
    config: Path, options: tuple[object, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert edit3dgs("derive", "--load-config", config, "--run-name", "bad", *options) == 2
    assert "".join(message.split()) in said(capsys)
    assert not config.parent.with_name(f"{config.parent.name}-bad").exists()


def said(capsys: pytest.CaptureFixture[str]) -> str:
    """Without the panel's borders and breaks."""
    return "".join(capsys.readouterr().err.replace("│", " ").split())


# -- what is refused before an avatar is loaded ---------------------------------------------------------------------------


def _not_a_number(pipeline: dict[str, Any]) -> None:
    pipeline["_model.gauss_params.scales"][17, 1] = torch.nan


def _no_gaussians(pipeline: dict[str, Any]) -> None:
    for name in [name for name in pipeline if "gauss_params" in name]:
        del pipeline[name]


def _too_few(pipeline: dict[str, Any]) -> None:
    pipeline["_model.gauss_params.quats"] = pipeline["_model.gauss_params.quats"][:-1]


def _too_high_a_degree(pipeline: dict[str, Any]) -> None:
    pipeline["_model.gauss_params.features_rest"] = torch.zeros(200, 24, 3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_not_a_number, "scales of Gaussian 17 are"),
        (_no_gaussians, "is no run of splatfacto: it has no means, scales"),
        (_too_few, "is damaged: quats (199, 4) instead of (200, 4)"),
        (_too_high_a_degree, "has 25 spherical harmonics a Gaussian; expected 1, 4, 9 or 16"),
    ],
)
def test_runs_that_hold_no_scene(office: tuple[Path, Any], change: Any, message: str, tmp_path: Path) -> None:
    path, pipeline = copied(office[0], tmp_path)
    change(pipeline)
    save(path, pipeline)
    with pytest.raises(ValueError) as error:
        read_background(SceneOptions(path))
    assert message in str(error.value) and f"{OPTION} {path.parent}" in str(error.value)


def test_mistakes_are_named_before_anything_is_rendered_or_written(
    config: Path, office: tuple[Path, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    (tmp_path / "sheared.json").write_text(json.dumps({"matrix": np.diag([1, 2, 1, 1.0]).tolist()}))
    (tmp_path / "data.json").write_text('{"coordinates": "data", "scale": 1}')
    (tmp_path / "s.ply").write_bytes(b"ply\n")
    cases: list[tuple[tuple[object, ...], str]] = [
        (("--background", tmp_path / "nowhere"), "no such file or folder"),
        (("--background", empty), "no checkpoint (step-*.ckpt)"),
        (("--background", config), "holds a head avatar"),
        (("--background", tmp_path / "none.ply"), "none.ply: no such file"),
        (("--background", tmp_path / "s.ply"), "its header does not end"),
        ((TRANSFORM_OPTION, tmp_path / "data.json"), "give --background as well"),
        (("--background", office[0], TRANSFORM_OPTION, tmp_path / "sheared.json"), "stretches by 2, 1, 1"),
        (
            ("--background", tmp_path / "s.ply", TRANSFORM_OPTION, tmp_path / "data.json"),
            "does not say how its data",
        ),
    ]
    for options, message in cases:
        video = tmp_path / "video.mp4"
        arguments = ("--load-config", config, "--output", video, *options)
        assert edit3dgs("orbit", *arguments) == cli.USER_ERROR_EXIT_CODE
        assert "".join(message.split()) in said(capsys)
        assert not video.exists()


# -- the viewer -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def stage(derived: Path) -> Any:
    """Of the derived run, as the viewer makes it."""
    from edit3dgs_ns.model_setup import head_assets
    from edit3dgs_ns.viewer.layers import Palette
    from edit3dgs_ns.viewer.stage import Stage
    from edit3dgs_ns.viewer.timeline import Timeline

    _, pipeline, _, _ = eval_setup(derived, test_mode="test")
    model = pipeline.model
    assets = head_assets(pipeline.datamanager.train_dataset.metadata)
    palette = Palette.of(assets.face_regions, len(model.head.faces))
    return Stage(model, palette, [], Timeline(3), backdrop=model.backdrop, clock=lambda: 0.0)


@torch.no_grad()
def test_the_window_shows_the_scene_around_everything(stage: Any, run: FinishedRun) -> None:
    camera = front_at(run, 0.0)
    splats = stage.outputs(camera)
    assert torch.equal(splats["rgb"], stage.model.get_outputs_for_camera(camera)["rgb"])
    away = stage.model.get_outputs(camera)["accumulation"][..., 0] < 0.004
    assert 0.1 < float(away.float().mean()) < 0.9
    for show in ("Mesh", "Both", "Regions"):
        stage.show = show
        outputs = stage.outputs(camera)
        torch.testing.assert_close(outputs["rgb"][away], splats["rgb"][away], atol=0.02, rtol=0)
        assert (outputs["rgb"] - splats["rgb"])[~away].abs().max() > 0.1
    stage.show, stage.backdrop = "Splats", None
    assert float(stage.outputs(camera)["rgb"][away].min()) > 0.98, "white"


def test_a_scene_is_placed_by_hand_and_saved(
    stage: Any, office: tuple[Path, Any], run: FinishedRun, tmp_path: Path
) -> None:
    import viser

    from edit3dgs_ns.viewer.background import BackgroundPanel

    drawn: list[int] = []
    server = viser.ViserServer(host="127.0.0.1", port=7420, verbose=False)
    try:
        panel = BackgroundPanel(server, stage, tmp_path, lambda: drawn.append(1))
        begin = stage.backdrop.head_from_scene
        assert panel._translation.value == pytest.approx(SHIFT) and panel._scale.value == pytest.approx(SCALE)
        panel._translation.value, panel._rotation.value, panel._scale.value = (
            (1.0, 2.0, 3.0),
            (-90.0, 0, 0),
            0.5,
        )
        panel._moved()
        placed = stage.backdrop.head_from_scene
        assert drawn and not np.allclose(placed.matrix, begin.matrix)
        np.testing.assert_allclose(placed.matrix @ [0, 0, 1, 1], [1, 2.5, 3, 1])  # z up -> y up
        panel.save()
        saved = tmp_path / "background_office.json"
        np.testing.assert_allclose(
            read_placement(saved).head_from_background.matrix, placed.matrix, atol=1e-9
        )
        assert (
            "background\\_office" in panel._said.content and "background\\-transform" in panel._said.content
        )

        panel._show.value = False
        panel._moved()
        assert stage.backdrop is None
        panel._show.value = True
        panel.add(str(office[0].parent))  # stands where the controls say
        np.testing.assert_allclose(stage.backdrop.head_from_scene.matrix, placed.matrix, atol=1e-9)
        panel._from.value = str(tmp_path / "nothing.ply")
        panel._try_to_add()
        assert "no such file" in panel._said.content and stage.backdrop is not None
    finally:
        server.stop()


def test_a_run_in_a_scene_is_not_edited_in_the_viewer(derived: Path) -> None:
    from edit3dgs_ns.edit_job import EditJob
    from edit3dgs_ns.viewer.editing import Editing

    _, pipeline, _, _ = eval_setup(derived, test_mode="test")
    viewer = SimpleNamespace(
        pipeline=pipeline, log_filename=derived.parent / "log", train_lock=None, trainer=None
    )
    anything: Any = None
    editing = Editing(anything, viewer, anything, {}, lambda: None)  # type: ignore[arg-type]
    assert "edit the avatar in its own run" in editing.edit(EditJob("Make him look older", "demo"))
