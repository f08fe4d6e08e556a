"""`edit3dgs export --format html`: a page that plays what the model shows."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from edit3dgs_ns.capture.driver import read_driver
from edit3dgs_ns.commands import main as cli
from edit3dgs_ns.edit_training.versions import RunHistory
from edit3dgs_ns.flame.arkit import ARKIT_NAMES, ArkitRecording, arkit_motion
from edit3dgs_ns.flame.retarget import retarget
from edit3dgs_ns.rendering.views import front_camera
from edit3dgs_ns.rendering.web_scene import before_edits, web_scene
from edit3dgs_ns.runs.trained_run import TrainedRun, pose_matrices
from edit3dgs_ns.web.page import packed_avatar
from edit3dgs_ns.web.scene import STEPS, WebScene, unpacked
from tests.web_scenes import looking_at, pose_at, posed, shown


@pytest.fixture(scope="module")
def config(small_avatar: Path) -> Path:
    return small_avatar / "config.yml"


@pytest.fixture
def edited_run(small_avatar: Path, tmp_path: Path) -> Path:
    """The folder of a run whose avatar was made redder by an "edit"."""
    run = Path(shutil.copytree(small_avatar, tmp_path / "run"))
    (newest,) = (run / "nerfstudio_models").glob("*.ckpt")
    content = torch.load(newest, weights_only=True)
    content["pipeline"]["_model.gauss_params.features_dc"][:, 0] += 0.3
    made = tmp_path / "step-000000099.ckpt"
    torch.save(content, made)
    RunHistory(run).add(made, "Turn it red", parent=0)
    return run


def enriched(run: TrainedRun) -> TrainedRun:
    """The same avatar with all that an avatar can have: spherical harmonics, light on turning faces, offsets by expression."""
    model, generator = run.pipeline.model, torch.Generator().manual_seed(3)

    def normal(*shape: int) -> torch.Tensor:
        return 0.2 * torch.randn(*shape, generator=generator)

    count = model.num_points
    model.sh_degree_reached.fill_(2)
    model.gauss_params["features_rest"].data = normal(count, 15, 3)
    model.gauss_params["expression_means"] = nn.Parameter(normal(count, 2, 3))
    model.gauss_params["expression_colors"] = nn.Parameter(normal(count, 2, 3))
    model.appearance.code_basis = normal(len(model.appearance.code_mean), 2)
    model.appearance.light.data = normal(8, 3)
    model.appearance.set_rest(model.head.rest_frames())
    return run


def exported(config: Path, output: Path, *words: str) -> WebScene:
    """The avatar in the page that a command line writes."""
    command = ["export", "--load-config", str(config), "--format", "html", "--output", str(output), *words]
    assert cli.run(command) == 0
    page = output if output.suffix else output / "avatar.html"
    return unpacked(packed_avatar(page.read_text()))


def test_the_page_shows_what_the_model_shows(config: Path) -> None:
    run = enriched(TrainedRun(config))
    scene = web_scene(run, fps=25.0)
    stored = unpacked(scene.centred().packed())
    head, origin = run.pipeline.model.head, torch.from_numpy(scene.camera.target).float()
    assert len(stored.motion) == head.num_timesteps and stored.gaussians.code_basis.shape[1] == 2
    for frame in range(head.num_timesteps):
        with torch.no_grad():
            world, colors = run.pipeline.model.shown_at(frame / (head.num_timesteps - 1))
        found, found_colors = shown(stored, pose_at(stored.motion, frame))
        away = (found.means + origin - world.means).norm(dim=1)
        assert away.max() < 5e-5  # metres
        wrong = (found_colors - colors).abs().flatten(1).amax(dim=1)
        assert wrong.quantile(0.99) < 0.02 and wrong.mean() < 4e-3
    np.testing.assert_allclose(
        stored.gaussians.opacities, torch.sigmoid(run.pipeline.model.gauss_params["opacities"][:, 0]).detach(), atol=2e-4
    )  # fmt: skip


def test_it_knows_arkits_actions(config: Path) -> None:
    run = TrainedRun(config)
    rig = web_scene(run, fps=25.0).rig
    recording = ArkitRecording(
        Path("live"),
        ARKIT_NAMES,
        np.random.default_rng(0).uniform(0, 1, (1, 52)).astype(np.float32),
        None,
        (),
        0,
    )
    motion, _ = arkit_motion(recording, run.head)
    np.testing.assert_allclose(recording.amounts @ rig.action_expr, motion.expr, atol=1e-6)
    np.testing.assert_allclose(recording.amounts @ rig.action_jaw, motion.jaw_pose, atol=1e-6)


def test_an_edited_avatar_brings_the_former_one(edited_run: Path, tmp_path: Path) -> None:
    scene = exported(edited_run / "config.yml", tmp_path / "both.html")
    former = before_edits(edited_run / "config.yml", TrainedRun(edited_run / "config.yml").head)
    assert former is not None and scene.before is not None
    colors = former.params["features_dc"].detach().numpy()
    np.testing.assert_allclose(scene.before.colors[:, 0], colors, atol=STEPS["colors"])
    redder = scene.gaussians.colors[:, 0] - scene.before.colors[:, 0]
    np.testing.assert_allclose(redder, np.tile([0.3, 0, 0], (len(redder), 1)), atol=2 * STEPS["colors"])
    assert "“Turn it red”" in (tmp_path / "both.html").read_text()
    assert exported(edited_run / "config.yml", tmp_path / "one.html", "--no-before").before is None


def test_it_looks_from_the_camera_in_front(config: Path) -> None:
    run = TrainedRun(config)
    camera, front = web_scene(run, fps=25.0).camera, front_camera(run)
    expected = pose_matrices(front)[0]
    np.testing.assert_allclose(looking_at(camera.position, camera.target, camera.up), expected, atol=1e-5)
    np.testing.assert_allclose(camera.tangents, [20 / float(front.fx[0]), 20 / float(front.fy[0])], rtol=1e-5)
    assert (
        0.3 < camera.reach[0] < 1.2 and 0.1 < camera.reach[1] < 0.6
    )  # tiny_capture's cameras stand within 0.7 and 0.08
    assert web_scene(run, fps=25.0, degrees=360).camera.reach == pytest.approx((np.pi, np.pi / 2))
    vertices = run.pipeline.model.head.vertices_at(0.0).detach().numpy()
    assert np.linalg.norm(camera.target - (vertices.min(0) + vertices.max(0)) / 2) < 0.15


def test_export_writes_a_page(config: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    timesteps = TrainedRun(config).pipeline.model.head.num_timesteps
    scene = exported(config, tmp_path / "folder")
    assert len(scene.motion) == timesteps and scene.fps == 25.0 and scene.before is None
    said = " ".join(capfd.readouterr().out.split())
    size = (tmp_path / "folder" / "avatar.html").stat().st_size
    assert f"{timesteps} frames, {size / 1e6:.1f} MB" in said and size < 10e6

    named = exported(config, tmp_path / "own.html", "--fps", "50", "--title", "A <b>name</b>")
    assert named.fps == 50.0
    assert "<title>A &lt;b&gt;name&lt;/b&gt;</title>" in (tmp_path / "own.html").read_text()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "own.html"]


def test_another_motion_moves_it(config: Path, small_capture: Path, tmp_path: Path) -> None:
    """As `edit3dgs reenact` would: the capture's unseen part, on this avatar's head."""
    words = ("--motion", str(small_capture), "--motion-part", "test")
    scene = exported(config, tmp_path / "test.html", *words)
    run = TrainedRun(config)
    head = run.pipeline.model.head
    driver = read_driver(small_capture, run.head, "test")
    played, _ = retarget(driver.recorded, head.motion(), run.head)
    origin = web_scene(run, fps=25.0).camera.target
    run.play(played)
    expected = head.vertices(torch.arange(len(played))).detach().numpy()
    for frame in range(len(played)):
        found = posed(scene.rig, pose_at(scene.motion, frame)) + origin
        np.testing.assert_allclose(found, expected[frame], atol=2e-5)
    assert len(played) == 2 and np.ptp(expected, axis=0).max() > 1e-3


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--motion", "nowhere"], "--motion nowhere: no such file or folder"),
        (["--motion-part", "test"], "Name the capture by --motion"),
        (["--fps", "0"], "expected a positive number"),
        (["--format", "ply", "--no-before"], "--no-before: only for --format html"),
        (["--degrees", "400"], "an angle from 1 to 360"),
        (["--timestep", "1"], "--timestep: only for --format ply"),
        (["--load-config", "none/config.yml"], "no such file"),
    ],
)
def test_export_says_what_is_wrong(
    words: list[str], message: str, config: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    if "--load-config" not in words:
        words = ["--load-config", str(config), *words]
    command = ["export", "--format", "html", *words, "--output", str(tmp_path / "out")]
    assert cli.run(command) == cli.USER_ERROR_EXIT_CODE
    assert message in capfd.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_page_that_is_there_stays(config: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "avatar.html").write_text("something of the user's")
    command = ["export", "--format", "html", "--load-config", str(config), "--output", str(tmp_path)]
    assert cli.run(command) == cli.USER_ERROR_EXIT_CODE
    assert "is there already" in capfd.readouterr().err
    assert (tmp_path / "avatar.html").read_text() == "something of the user's"
    exported(config, tmp_path, "--overwrite")


def test_what_drives_the_page_is_in_it(config: Path, tmp_path: Path) -> None:
    exported(config, tmp_path, "--stream", "ws://127.0.0.1:8765", "--webcam")
    page = (tmp_path / "avatar.html").read_text()
    assert '<meta id="stream" content="ws://127.0.0.1:8765">' in page
    assert 'data-file="face_mesh.js"' in page and "connect-src blob: ws://127.0.0.1:8765;" in page
