"""The Python API, on files of the package's own making: no test here needs Nerfstudio."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
import yaml

import edit3dgs_ns
from edit3dgs_ns import Avatar, Camera, Editor, Motion
from edit3dgs_ns.api.parameters import parameters_named
from edit3dgs_ns.editing.editor import EditRequest, EditResult
from edit3dgs_ns.errors import ExistingFileError, MissingFileError, UserError
from edit3dgs_ns.flame.assets import OPEN_HEAD_PATH
from edit3dgs_ns.flame.loading import load_assets
from edit3dgs_ns.flame.motion import FlameMotion
from edit3dgs_ns.flame.motion_files import RecordedMotion
from edit3dgs_ns.splats.avatar_files import write_avatar
from edit3dgs_ns.splats.ply import BoundGaussians, read_splat_ply
from edit3dgs_ns.splats.run_config import read_run_config

FRONT = Camera.look_at((0.0, 0.0, 1.0), width=48, height=40)
PUBLIC = ["Avatar", "Camera", "EditResult", "Editor", "Motion", "load_editor"]


class GreenEditor:
    """What the package's own test editors promise of `Editor`, with a known result: everything turns greener."""

    settings: ClassVar[dict[str, Any]] = {"editor": "green"}
    views_depend = False
    request: EditRequest | None = None

    def unknown_instruction(self, prompt: str) -> str | None:
        """Knows one prompt."""
        return None if prompt == "Turn her green" else f"never taught {prompt}"

    def edit(self, request: EditRequest, progress: Any = None, finished: Any = None) -> EditResult:
        """Where the head is, red and blue fade."""
        self.request = request
        head = (request.originals.min(axis=-1, keepdims=True) < 0.97).astype(np.float32)
        return EditResult(request.originals * np.array([0.3, 1.0, 0.3], np.float32) ** head)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An avatar of random colours that opens its mouth over three timesteps, as GaussianAvatars saves one."""
    head = load_assets(OPEN_HEAD_PATH)
    count = len(head.faces)
    gaussians = BoundGaussians(
        means=torch.zeros(count, 3),
        scales=torch.full((count, 3), -0.7),
        quats=torch.tensor([[1.0, 0, 0, 0]]).repeat(count, 1),
        features_dc=torch.randn(count, 3, generator=torch.Generator().manual_seed(0)),
        features_rest=torch.zeros(count, 3, 3),
        opacities=torch.full((count, 1), 3.0),
        binding=torch.arange(count),
    )
    motion = FlameMotion.zeros(3, head.shapedirs.shape[2], head.exprdirs.shape[2])
    motion.jaw_pose[:, 0] = torch.tensor([0.0, 0.15, 0.3])
    place = tmp_path_factory.mktemp("coloured") / "avatar"
    write_avatar(place, gaussians, motion)
    return place


@pytest.fixture(scope="module")
def avatar(folder: Path) -> Avatar:
    """Read only."""
    return Avatar.load(folder, device="cpu")


def test_the_public_names_are_exactly_these() -> None:
    assert edit3dgs_ns.__all__ == PUBLIC
    assert edit3dgs_ns.api.__all__ == PUBLIC
    assert set(PUBLIC) <= set(dir(edit3dgs_ns))
    with pytest.raises(AttributeError, match="avatar"):
        _ = edit3dgs_ns.avatar


def test_importing_the_package_loads_nothing_heavy_and_the_api_needs_no_nerfstudio(folder: Path) -> None:
    code = (
        "import sys; sys.modules['nerfstudio'] = None\n"
        "import edit3dgs_ns; assert 'torch' not in sys.modules and 'numpy' not in sys.modules\n"
        "from edit3dgs_ns import Avatar, Camera, Editor, Motion, load_editor\n"
        f"image = Avatar.load({str(folder)!r}, device='cpu').render(Camera.look_at((0, 0, 1), width=32, height=32))\n"
        "assert image.shape == (32, 32, 3) and image.min() < 0.9 < image[0, 0].min(), image\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_render_shows_the_head_on_white_and_follows_the_motion(avatar: Avatar) -> None:
    shut, opened = avatar.render(FRONT, 0), avatar.render(FRONT, 2)
    assert shut.shape == (40, 48, 3) and shut.dtype == np.float32
    assert shut.min() >= 0 and shut.max() <= 1
    assert (shut[0, 0] == 1).all() and shut[20, 24].min() < 0.9
    assert np.abs(shut - opened).max() > 0.1
    assert np.array_equal(avatar.render_views([FRONT, FRONT], 2)[1], opened)


def test_a_pose_replaces_what_is_named(avatar: Avatar) -> None:
    again = avatar.pose(0, jaw=(0.3, 0.0, 0.0))
    assert np.allclose(avatar.render(FRONT, again), avatar.render(FRONT, 2), atol=1e-5)
    names = avatar.head.expression_names
    assert names is not None
    smiling = avatar.pose(2, expression={names[4]: 0.7, 1: 0.2})
    assert smiling.expr[0, 4] == pytest.approx(0.7) and smiling.expr[0, 1] == pytest.approx(0.2)
    assert smiling.expr.count_nonzero() == 2 and smiling.jaw_pose[0, 0] == pytest.approx(0.3)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"timestep": 3}, "timesteps 0 to 2"),
        ({"timestep": -1}, "timesteps 0 to 2"),
        ({"jaw": (0.3,)}, "jaw .*expected 3 finite"),
        ({"eyes": (0.0, np.nan, 0, 0, 0, 0)}, "eyes .*expected 6 finite"),
        ({"expression": {"happy": 1.0}}, "'happy'.*none of this name"),
        ({"expression": {9999: 1.0}}, "9999: .*coefficients 0 to"),
    ],
)
def test_a_pose_that_cannot_be_is_refused(avatar: Avatar, arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        avatar.pose(**arguments)


def test_an_edit_shows_in_the_images_and_the_fitted_avatar_comes_closer(avatar: Avatar) -> None:
    editor: Editor = GreenEditor()
    before = avatar.render(FRONT)
    batch = avatar.edit(editor, "Turn her green", [FRONT], fit_steps=40)
    after = batch.avatar.render(FRONT)
    assert np.array_equal(batch.originals[0], before) and batch.timesteps == (0,)
    assert np.abs(after - batch.images[0]).mean() < 0.8 * np.abs(before - batch.images[0]).mean()
    assert np.array_equal(avatar.render(FRONT), before)
    assert torch.equal(batch.avatar.gaussians.binding, avatar.gaussians.binding)


def test_an_editor_is_told_which_surface_point_every_pixel_shows(avatar: Avatar) -> None:
    editor = GreenEditor()
    with pytest.warns(UserWarning, match="never taught Paint him"):
        batch = avatar.edit(editor, "Paint him", [FRONT], timestep=1, fit_steps=0, seed=7)
    request = editor.request
    assert request is not None and request.canonical is not None and request.seed == 7
    assert np.isnan(request.canonical[0, 0, 0]).all()  # background
    assert np.abs(request.canonical[0, 20, 24]).max() < 0.2  # a place on the head, metres
    assert np.array_equal(batch.avatar.render(FRONT, 1), batch.originals[0])


def test_what_is_saved_and_exported_renders_as_before(avatar: Avatar, tmp_path: Path) -> None:
    want = avatar.render(FRONT, 2)
    assert np.array_equal(Avatar.load(avatar.save(tmp_path / "a.ckpt"), device="cpu").render(FRONT, 2), want)
    avatar.export(tmp_path / "pair")
    assert np.array_equal(Avatar.load(tmp_path / "pair", device="cpu").render(FRONT, 2), want)
    (splat,) = avatar.export(tmp_path / "open.ply", timestep=2)
    assert len(read_splat_ply(splat, "--splat")) == len(avatar)
    for path in ("a.ckpt", "open.ply"):
        with pytest.raises(ExistingFileError, match="there already"):
            avatar.save(tmp_path / path) if path.endswith("ckpt") else avatar.export(tmp_path / path)
    with pytest.raises(UserError, match=r"ends with \.ckpt"):
        avatar.save(tmp_path / "a.pt")


def test_a_motion_of_arkit_coefficients_plays(avatar: Avatar, tmp_path: Path) -> None:
    take = tmp_path / "take.json"
    take.write_text('{"fps": 30, "frames": [{"jawOpen": 0.0}, {"jawOpen": 0.9}]}')
    motion = Motion.load(take, avatar)
    assert len(motion) == 2 and motion.fps == 30
    talking = avatar.playing(motion)
    assert talking.num_timesteps == 2 and avatar.num_timesteps == 3
    assert np.abs(talking.render(FRONT, 1) - talking.render(FRONT, 0)).max() > 0.1


def test_cameras_look_where_they_are_told() -> None:
    camera = Camera.look_at((0.3, 0.1, 0.8), (0.0, 0.05, 0.0), width=64, height=32, fov=60)
    local = np.linalg.inv(camera.c2w) @ [0.0, 0.05, 0.0, 1.0]
    assert np.allclose(local[:2], 0) and local[2] == pytest.approx(-np.linalg.norm([0.3, 0.05, 0.8]))
    edge = camera.K @ [0.0, np.tan(np.radians(30)), 1.0]
    assert edge[1] == pytest.approx(32) and camera.K[0, 2] == 32
    for wrong in ({"position": (0, 1, 0), "target": (0, 0, 0)}, {"position": (0, 0, 1), "fov": 180}):
        with pytest.raises(UserError, match=r"expected|Move"):
            Camera.look_at(**wrong)  # type: ignore[arg-type]


def test_cameras_come_from_a_capture(tiny_capture: Any) -> None:
    cameras = Camera.from_transforms(tiny_capture.union)
    assert len(cameras) == tiny_capture.cameras - 1  # one is held out
    assert {camera.width for camera in cameras} == {tiny_capture.size}
    (held_out,) = Camera.from_transforms(tiny_capture.union / "transforms_val.json")
    assert all(not np.allclose(held_out.c2w, camera.c2w) for camera in cameras)


def test_a_place_without_an_avatar_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match=r"no avatar here.*config\.yml"):
        Avatar.load(tmp_path)
    with pytest.raises(MissingFileError, match="nowhere"):
        Avatar.load(tmp_path / "nowhere")


def test_a_config_is_read_as_plain_data(tmp_path: Path) -> None:
    """Tags that would run code in Python's own loader are text here."""
    path, proof = tmp_path / "config.yml", tmp_path / "proof"
    path.write_text(
        "!!python/object:no.such.Class\n"
        f"evil: !!python/object/apply:os.system ['touch {proof}']\n"
        "pipeline: !!python/object:no.such.Pipeline\n"
        "  model: !!python/object:no.such.Model {rasterize_mode: antialiased}\n"
        "  datamanager: {dataparser: {flame_model: !!python/object/apply:pathlib.PosixPath [/, heads, flame.pkl]}}\n"
    )
    config = read_run_config(path)
    assert config.rasterize_mode == "antialiased" and config.flame_model == Path("/heads/flame.pkl")
    assert not proof.exists()
    path.write_text("[1, 2")
    with pytest.raises(UserError, match="no readable config"):
        read_run_config(path)
    path.write_text(yaml.dump({"a": 1}))
    with pytest.raises(UserError, match=r"no pipeline\.model"):
        read_run_config(path)


def test_messages_of_the_api_name_parameters(avatar: Avatar, tmp_path: Path) -> None:
    for call in (
        lambda: avatar.cameras(17),
        lambda: avatar.cameras(0, width=3),
        lambda: Motion.load(tmp_path / "nowhere.csv", avatar),
        lambda: avatar.playing(Motion(RecordedMotion(avatar.gaussians.head.motion(), tmp_path)), smooth=-1),
        lambda: edit3dgs_ns.load_editor(tmp_path / "nowhere", device="cpu"),
    ):
        with pytest.raises(ValueError, match=r"^(?!.*--)") as error:
            call()
        assert "--" not in str(error.value)
    assert parameters_named("--neutral-frame 3 goes with `edit3dgs export --output X`, --motion") == (
        "neutral_frame 3 goes with `edit3dgs export --output X`, path"
    )
