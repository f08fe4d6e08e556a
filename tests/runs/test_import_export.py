"""`edit3dgs import` and `edit3dgs export`: runs that every command takes, and files that come back bit for bit."""

from __future__ import annotations

import copy
import json
import re
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import trimesh
from nerfstudio.utils.eval_utils import eval_setup
from plyfile import PlyData

from edit3dgs_ns.capture.from_avatar import ViewSettings, choose_timesteps
from edit3dgs_ns.commands import main as cli
from edit3dgs_ns.dataparsers.nersemble import NersembleDataParserConfig
from edit3dgs_ns.flame.loading import load_assets
from edit3dgs_ns.flame.motion import FlameMotion
from edit3dgs_ns.runs import importing as avatar_import
from edit3dgs_ns.runs import thinning
from edit3dgs_ns.runs.exporting import export_pair, export_splat
from edit3dgs_ns.runs.importing import import_avatar
from edit3dgs_ns.runs.trained_run import TrainedRun
from edit3dgs_ns.splats.avatar_files import write_avatar
from edit3dgs_ns.splats.avatar_folder import NPZ_NAME, PLY_NAME
from edit3dgs_ns.splats.ply import BoundGaussians, read_bound_ply
from edit3dgs_ns.splats.rasterize import rasterize
from edit3dgs_ns.splats.views import viewmats_from_c2w
from tests.flame.flame_files import write_flame
from tests.gltf_reference import posed_gltf_mesh, read_gltf_splats
from tests.tiny_capture import TinyCapture

VIEWS = ViewSettings(cameras=3, timesteps=2, resolution=(48, 40))


def random_gaussians(count: int, num_faces: int, seed: int = 0) -> BoundGaussians:
    """Small spots of all colours; the first ones on every face in turn."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    return BoundGaussians(
        means=0.3 * normal(count, 3),
        scales=normal(count, 3).clamp(-1, 0.5) - 0.7,
        quats=normal(count, 4),
        features_dc=normal(count, 3),
        features_rest=0.1 * normal(count, 15, 3),
        opacities=normal(count, 1) + 1,
        binding=torch.arange(count) % num_faces,
    )


@pytest.fixture(scope="module")
def avatar(tiny_capture: TinyCapture, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """GaussianAvatars' pair of files, for the head and the motion of the tiny capture."""
    folder = tmp_path_factory.mktemp("avatars") / "somebody"
    outputs = NersembleDataParserConfig(data=tiny_capture.union).setup().get_dataparser_outputs("train")
    write_avatar(folder, random_gaussians(13_000, len(load_assets().faces)), outputs.metadata["flame_motion"])
    return folder


@pytest.fixture(scope="module")
def imported(avatar: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """config.yml of a run without a capture. Read only."""
    return import_avatar(avatar, output_dir=tmp_path_factory.mktemp("runs"), views=VIEWS)


@pytest.fixture(scope="module")
def finished(imported: Path) -> TrainedRun:
    return TrainedRun(imported)


def same_files(a: Path, b: Path) -> bool:
    return all((a / name).read_bytes() == (b / name).read_bytes() for name in (PLY_NAME, NPZ_NAME))


def test_export_gives_the_same_files_back(imported: Path, avatar: Path, tmp_path: Path) -> None:
    paths, left_out = export_pair(imported, tmp_path / "out")
    assert same_files(tmp_path / "out", avatar)
    assert paths == [tmp_path / "out" / PLY_NAME, tmp_path / "out" / NPZ_NAME] and not left_out


def test_the_run_is_like_one_that_was_trained(imported: Path, avatar: Path) -> None:
    run = imported.parent
    assert run.parent.name == "rigged-splatfacto" and run.parent.parent.name == "somebody"
    assert not [path for path in run.parent.iterdir() if path != run]
    assert ".part" not in imported.read_text()  # where it was made
    state = torch.load(next((run / "nerfstudio_models").iterdir()), weights_only=True)
    assert state["step"] == 0
    gaussians = read_bound_ply(avatar / PLY_NAME)
    torch.testing.assert_close(
        state["pipeline"]["_model.gauss_params.quats"], gaussians.quats, rtol=0, atol=0
    )
    assert int(state["pipeline"]["_model.sh_degree_reached"]) == 3
    assert set(json.loads((run / "dataparser_transforms.json").read_text())) == {"transform", "scale"}


def test_views_are_what_the_run_renders(finished: TrainedRun) -> None:
    """Every stand-in image shows its camera and its timestep: rendering them again gives the same pixels."""
    motion = finished.pipeline.model.head.num_timesteps
    trained, held_out = choose_timesteps(motion, VIEWS.timesteps)
    for name, count, timesteps in (("train", 4, trained), ("val", 2, trained), ("test", 1, held_out)):
        split = finished.split(name)
        assert len(split) == count and sorted(set(split.timesteps.tolist())) == timesteps
        for index in range(len(split)):
            picture = finished.render(split.cameras[index : index + 1])
            np.testing.assert_allclose(picture.rgb, split.image(index), atol=1.01 / 255)
            np.testing.assert_allclose(picture.alpha, split.mask(index), atol=1.01 / 255)
            assert 0.1 < picture.alpha.mean() < 0.9  # the head is in the picture, and all of it
            assert picture.alpha[[0, -1]].mean() < 0.02 and picture.alpha[:, [0, -1]].mean() < 0.02


def test_cameras_face_a_turned_head(avatar: Path) -> None:
    """Captures differ in their axes: the cameras go where the face looks."""
    from edit3dgs_ns.capture.from_avatar import cameras_around
    from edit3dgs_ns.flame.model import FlameModel
    from edit3dgs_ns.splats.rig import TrackedHead

    motion = FlameMotion.load(avatar / NPZ_NAME)
    model = FlameModel.from_assets(load_assets())
    straight = FlameMotion(**{**vars(motion), "rotation": torch.zeros_like(motion.rotation)})
    turn = torch.tensor([0.0, 2.0, 0.0])
    turned = FlameMotion(**{**vars(motion), "rotation": turn.expand_as(motion.rotation).clone()})
    heads = [TrackedHead(model, m) for m in (straight, turned)]
    first, second = ([c.c2w for c in cameras_around(h, [0, 4], ViewSettings())] for h in heads)
    root = (heads[0].canonical_vertices().T @ model.J_regressor[0]).detach().numpy()
    matrix = np.array([[np.cos(2), 0, np.sin(2)], [0, 1, 0], [-np.sin(2), 0, np.cos(2)]])
    for a, b in zip(first, second, strict=True):
        np.testing.assert_allclose(matrix @ a[:3, :3], b[:3, :3], atol=1e-5)
        moved = matrix @ (a[:3, 3] - root) + root
        np.testing.assert_allclose(moved, b[:3, 3], atol=5e-3)


def test_with_its_capture(avatar: Path, tiny_capture: TinyCapture, tmp_path: Path) -> None:
    """Nothing is rendered, the run shows the capture's images, and ns-render takes it."""
    from nerfstudio.scripts.render import DatasetRender

    config = import_avatar(avatar, data=tiny_capture.root, output_dir=tmp_path / "runs", name="me")
    assert [path.name for path in (config.parent / "imported").iterdir()] == [NPZ_NAME]
    DatasetRender(
        load_config=config,
        output_path=tmp_path / "out",
        rendered_output_names=["rgb"],
        split="val",
        image_format="png",
    ).main()
    images = list((tmp_path / "out").rglob("*.png"))
    assert len(images) == 2 * tiny_capture.timesteps  # the front camera in two sequences
    export_pair(config, tmp_path / "back")
    assert same_files(tmp_path / "back", avatar)


def test_ns_viewer_starts(imported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Up to the loop in which it waits for its user, images and all."""
    from nerfstudio.scripts.viewer import run_viewer

    viewers = []

    class Viewer(run_viewer.ViewerState):  # type: ignore[misc]
        def __init__(self, *args: Any, **kwargs: Any):
            super().__init__(*args, **kwargs)
            viewers.append(self)

    def waits(seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(run_viewer, "ViewerState", Viewer)
    monkeypatch.setattr(run_viewer, "time", types.SimpleNamespace(sleep=waits))
    viewer = run_viewer.ViewerConfigWithoutNumRays(websocket_host="127.0.0.1", websocket_port=7977)
    with pytest.raises(KeyboardInterrupt):
        run_viewer.RunViewer(load_config=imported, viewer=viewer).main()
    try:
        assert len(viewers[0].camera_handles) == 4
    finally:
        viewers[0].viser_server.stop()


def test_edit3dgs_takes_it(imported: Path, avatar: Path, tmp_path: Path) -> None:
    from edit3dgs_ns.method_configs.edit3dgs import edit3dgs
    from tests.tiny_editor import save_tiny_editor

    config = copy.deepcopy(edit3dgs.config.pipeline)
    config.datamanager.dataparser.data = imported.parent / "imported"
    config.model.prompt, config.avatar = "Make him look older", imported.parent
    config.editor.model = str(save_tiny_editor(tmp_path))
    pipeline = config.setup(device="cpu", test_mode="val")
    expected = read_bound_ply(avatar / PLY_NAME)
    for name, value in pipeline.model.gauss_params.items():
        torch.testing.assert_close(value.detach(), getattr(expected, name), rtol=0, atol=0)
    assert torch.equal(pipeline.model.binding, expected.binding)
    assert pipeline.model.head.num_timesteps == 9


def test_training_goes_on(imported: Path, tmp_path: Path) -> None:
    from edit3dgs_ns.method_configs.rigged_splatfacto import rigged_splatfacto

    config = copy.deepcopy(rigged_splatfacto.config)
    config.output_dir, config.load_dir, config.machine.device_type = tmp_path, imported.parent, "cpu"
    config.pipeline.datamanager.dataparser.data = imported.parent / "imported"
    config.max_num_iterations = 2
    config.set_timestamp()
    config.save_config()
    trainer = config.setup(local_rank=0, world_size=1)
    trainer.setup()
    before = trainer.pipeline.model.gauss_params["features_dc"].detach().clone()
    trainer.train()
    assert trainer._start_step == 1
    assert (trainer.pipeline.model.gauss_params["features_dc"] != before).any()


def test_only_what_changed_is_exported_anew(imported: Path, avatar: Path, tmp_path: Path) -> None:
    """A checkpoint with other colours: all else in the ply, and the whole npz, stay as they came."""
    run = tmp_path / "run"
    (run / "nerfstudio_models").mkdir(parents=True)
    (run / "imported").mkdir()
    (run / "config.yml").write_text(imported.read_text())
    (run / "imported" / NPZ_NAME).write_bytes((avatar / NPZ_NAME).read_bytes())
    state = torch.load(next((imported.parent / "nerfstudio_models").iterdir()), weights_only=True)
    state["pipeline"]["_model.gauss_params.features_dc"] += 1
    torch.save(state, run / "nerfstudio_models" / "step-000000001.ckpt")
    export_pair(run / "config.yml", tmp_path)
    before, after = (PlyData.read(folder / PLY_NAME)["vertex"].data for folder in (avatar, tmp_path))
    for name in before.dtype.names:
        assert (before[name].tobytes() == after[name].tobytes()) != name.startswith("f_dc")
    assert (tmp_path / NPZ_NAME).read_bytes() == (avatar / NPZ_NAME).read_bytes()


@pytest.mark.parametrize(("option", "time"), [({"timestep": 5}, 5 / 8), ({"time": 0.3}, 0.3)])
def test_baked_splat_looks_like_the_avatar(
    imported: Path, finished: TrainedRun, tmp_path: Path, option: dict[str, Any], time: float
) -> None:
    """Read by another program and drawn without FLAME, it gives the picture that the run renders at that moment."""
    (path,) = export_splat(imported, tmp_path, **option)
    vertex = PlyData.read(path)["vertex"]
    assert "binding_0" not in vertex.data.dtype.names

    def columns(*names: str) -> torch.Tensor:
        return torch.from_numpy(np.stack([vertex[name] for name in names], axis=1))

    rest = columns(*(f"f_rest_{i}" for i in range(45))).reshape(-1, 3, 15).transpose(1, 2)
    camera = finished.split("val").cameras[:1]
    camera.times = torch.tensor([[time]])
    image, _, _ = rasterize(
        columns("x", "y", "z"),
        columns(*(f"rot_{i}" for i in range(4))),
        columns(*(f"scale_{i}" for i in range(3))).exp(),
        torch.sigmoid(columns("opacity")[:, 0]),
        torch.cat([columns("f_dc_0", "f_dc_1", "f_dc_2")[:, None], rest], dim=1),
        viewmats_from_c2w(camera.camera_to_worlds),
        camera.get_intrinsics_matrices(),
        48,
        40,
        sh_degree=3,
        backgrounds=torch.ones(1, 3),
    )
    expected = finished.render(camera).rgb
    np.testing.assert_allclose(image[0].clamp(0, 1).detach().numpy(), expected, atol=2e-3)
    still = finished.split("val").image(0)
    assert np.abs(expected - still).mean() > 1e-3  # the moment matters


def test_the_most_important_gaussians_are_kept(
    imported: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """In every format; they are rows of the whole, and fewer look less like it."""
    losses = []
    for count in (3000, 9000):
        words = ["export", "--load-config", str(imported), "--max-gaussians", str(count), "--overwrite"]
        assert cli.run([*words, "--format", "ply", "--timestep", "5", "--output", str(tmp_path)]) == 0
        said = " ".join(capfd.readouterr().out.split())
        match = re.search(rf"Kept the {count} most important of 13000 Gaussians: ([\d.]+) dB against", said)
        assert match, said
        losses.append(float(match[1]))
        kept = PlyData.read(tmp_path / "splat.ply")["vertex"].data
        assert len(kept) == count
    assert 10 < losses[0] < losses[1]
    (whole,) = export_splat(imported, tmp_path / "whole", timestep=5)
    whole_rows = {row.tobytes() for row in PlyData.read(whole)["vertex"].data}
    assert {row.tobytes() for row in kept} <= whole_rows
    rng = np.random.default_rng(0)
    assert losses[1] > _agreement_of(imported, rng.permutation(13_000)[:9000]) + 3  # importance matters

    notes: list[str] = []
    export_pair(imported, tmp_path / "pair", max_gaussians=9000, report=notes.append)
    assert len(read_bound_ply(tmp_path / "pair" / PLY_NAME)) == 9000 and "Kept the 9000" in notes[0]
    export_pair(imported, tmp_path / "all", max_gaussians=20_000, report=notes.append)
    assert len(read_bound_ply(tmp_path / "all" / PLY_NAME)) == 13_000 and "All 13000" in notes[1]


def _agreement_of(imported: Path, rows: np.ndarray) -> float:
    """PSNR of other Gaussians in the views of `thin`, dB."""
    run = TrainedRun(imported)
    views = thinning._views(run, 5 / 8)[1::2]
    model = run.pipeline.model
    with torch.no_grad():
        whole = [thinning._drawn(model, view) for view in views]
        thinning._select(model, torch.from_numpy(rows))
        pairs = zip(views, whole, strict=True)
        error = np.mean([float((thinning._drawn(model, v) - w).square().mean()) for v, w in pairs])
    return float(-10 * np.log10(error))


def test_a_gltf_file_holds_the_gaussians_and_the_posed_head(
    imported: Path, finished: TrainedRun, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    words = [
        "export",
        "--load-config",
        str(imported),
        "--format",
        "glb",
        "--timestep",
        "5",
        "--output",
        str(tmp_path),
    ]
    assert cli.run(words) == 0 and "avatar.glb" in capfd.readouterr().out
    assert cli.run(words) == cli.USER_ERROR_EXIT_CODE and "is there already" in capfd.readouterr().err
    path = tmp_path / "avatar.glb"
    model = finished.pipeline.model
    with torch.no_grad():
        gaussians, colors = model.shown_at(5 / 8)
    found = read_gltf_splats(path)
    for name, expected in (
        ("means", gaussians.means),
        ("scales", gaussians.scales),
        ("quats", torch.nn.functional.normalize(gaussians.quats, dim=-1)),
        ("opacities", torch.sigmoid(model.gauss_params["opacities"][:, 0])),
        ("colors", colors),
    ):
        np.testing.assert_allclose(found[name], expected.detach(), atol=1e-6, rtol=1e-5, err_msg=name)
    posed = posed_gltf_mesh(path)
    np.testing.assert_allclose(posed, model.head.vertices_at(5 / 8).detach(), atol=1e-6)

    scene = trimesh.load(path)  # a reader that is not ours; it leaves out what it does not know
    assert [type(part).__name__ for part in scene.geometry.values()] == ["PointCloud", "Trimesh"]
    points, mesh = scene.geometry.values()
    np.testing.assert_allclose(points.vertices, gaussians.means, atol=1e-6)
    np.testing.assert_array_equal(mesh.faces, model.head.faces)


def test_ns_export_writes_the_same_splat(imported: Path, tmp_path: Path) -> None:
    from nerfstudio.scripts.exporter import ExportGaussianSplat

    ExportGaussianSplat(load_config=imported, output_dir=tmp_path / "theirs").main()
    export_splat(imported, tmp_path / "ours")
    theirs, ours = (PlyData.read(tmp_path / who / "splat.ply")["vertex"] for who in ("theirs", "ours"))
    kept = ours["opacity"] >= -5.5373  # ns-export leaves out what is all but invisible
    for name in theirs.data.dtype.names:
        np.testing.assert_allclose(theirs[name], ours[name][kept], atol=1e-6, rtol=1e-5, err_msg=name)


def test_an_avatar_of_flame(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """5143 vertices: found by the environment while importing, by its path ever after."""
    model = write_flame(tmp_path / "flame", 2023)
    motion = FlameMotion.zeros(2, 300, 100)
    motion = FlameMotion(**{**vars(motion), "static_offset": torch.zeros(5143, 3)})
    gaussians = random_gaussians(50, 10_144, seed=3)
    write_avatar(tmp_path / "avatar", gaussians, motion)
    with pytest.raises(
        ValueError, match=r"flame_param\.npz does not fit.*open_head\.npz.*5143 vertices.*--flame-model"
    ):
        import_avatar(tmp_path / "avatar", output_dir=tmp_path / "runs")
    monkeypatch.setenv("FLAME_MODEL_PATH", str(model))
    views = ViewSettings(cameras=1, timesteps=1, resolution=(16, 16))
    config = import_avatar(tmp_path / "avatar", output_dir=tmp_path / "runs", views=views)
    monkeypatch.delenv("FLAME_MODEL_PATH")
    _, pipeline, _, _ = eval_setup(config)
    assert pipeline.model.head.flame.num_vertices == 5143 and len(pipeline.model.head.faces) == 10_144
    export_pair(config, tmp_path / "back")
    assert same_files(tmp_path / "back", tmp_path / "avatar")


def test_what_the_format_cannot_hold_is_said(imported: Path, tmp_path: Path) -> None:
    state = torch.load(next((imported.parent / "nerfstudio_models").iterdir()), weights_only=True)
    count = len(state["pipeline"]["_model.binding"])
    state["pipeline"]["_model.gauss_params.expression_means"] = torch.zeros(count, 2, 3)
    (tmp_path / "nerfstudio_models").mkdir()
    (tmp_path / "config.yml").write_text("null")
    torch.save(state, tmp_path / "nerfstudio_models" / "step-000000001.ckpt")
    _, left_out = export_pair(tmp_path / "config.yml", tmp_path / "out")
    assert left_out == ["offsets of place and colour that follow the expression"]


# -- what is refused --------------------------------------------------------------------------------------------------


def test_another_capture_is_refused(avatar: Path, tiny_capture: TinyCapture, tmp_path: Path) -> None:
    with pytest.raises(
        ValueError,
        match=r"does not fit the data:\n  - timesteps of the motion: 9 in the avatar, 3 in the data",
    ):
        import_avatar(avatar, data=tiny_capture.root / "EMO-1", output_dir=tmp_path)
    assert not list(tmp_path.glob("*/*/*"))


def test_a_failed_import_leaves_nothing(
    avatar: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: Any) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(avatar_import, "_save_checkpoint", full)
    with pytest.raises(OSError, match="No space left"):
        import_avatar(avatar, output_dir=tmp_path, views=ViewSettings(1, 1, (16, 16)))
    assert not list(tmp_path.glob("*/*/*"))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["{avatar}", "--name", "../up"], "expected the name of one folder"),
        (["{avatar}", "--cameras", "17"], "1 to 16"),
        (["{avatar}", "--timesteps", "0"], r"--timesteps 0: expected a whole number from 1"),
        (["{avatar}", "--data", "somewhere", "--cameras", "3"], "--cameras: with --data nothing is rendered"),
        (["{avatar}", "--data", "{avatar}/none"], "no such folder"),
        (["{avatar}/none"], "no such file or folder"),
        (["{avatar}", "--flame-model", "none.pkl"], "none.pkl"),
    ],
)
def test_import_says_what_is_wrong(
    words: list[str], message: str, avatar: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    words = [word.replace("{avatar}", str(avatar)) for word in words]
    assert cli.run(["import", *words, "--output-dir", str(tmp_path)]) == cli.USER_ERROR_EXIT_CODE
    assert message in capfd.readouterr().err
    assert not list(tmp_path.glob("*/*/*"))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--timestep", "1"], "--timestep: only for --format ply, spz, sog or glb"),
        (["--format", "glb", "--y-down"], "--y-down: only for --format ply"),
        (["--format", "ply", "--fps", "2"], "--fps: only for --format html"),
        (["--format", "ply", "--timestep", "9"], "has the timesteps 0 to 8"),
        (["--format", "ply", "--timestep", "-1"], "expected 0 or more"),
        (["--format", "ply", "--timestep", "1", "--time", "0.5"], "give one of them"),
        (["--format", "ply", "--time", "1.5"], "0 (start) to 1 (end)"),
        (["--load-config", "none/config.yml"], "no such file"),
        (["--format", "ply", "--max-gaussians", "0"], "--max-gaussians 0: expected 1 or more"),
    ],
)
def test_export_says_what_is_wrong(
    words: list[str], message: str, imported: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    if "--load-config" not in words:
        words = ["--load-config", str(imported), *words]
    assert cli.run(["export", *words, "--output", str(tmp_path / "out")]) == cli.USER_ERROR_EXIT_CODE
    assert message in capfd.readouterr().err
    assert not (tmp_path / "out").exists()


def test_export_overwrites_when_told(
    imported: Path, avatar: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    words = ["export", "--load-config", str(imported), "--output", str(tmp_path)]
    (tmp_path / NPZ_NAME).write_text("something of the user's")
    assert cli.run(words) == cli.USER_ERROR_EXIT_CODE
    assert "is there already" in capfd.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == [NPZ_NAME]
    assert cli.run([*words, "--overwrite"]) == 0
    assert same_files(tmp_path, avatar)


def test_a_capture_with_one_file_of_motion(imported: Path, tmp_path: Path) -> None:
    """All of its timesteps are the motion's, whichever are shown; an image cannot show one beyond its end."""
    folder = imported.parent / "imported"
    outputs = NersembleDataParserConfig(data=folder).setup().get_dataparser_outputs("test")
    assert (
        outputs.metadata["timestep_indices"] == list(range(9)) and len(outputs.metadata["flame_motion"]) == 9
    )
    torch.testing.assert_close(outputs.cameras.times, outputs.metadata["timesteps"][:, None] / 8)
    damaged = tmp_path / "capture"
    for path in (folder / name for name in ("images", "fg_masks", NPZ_NAME)):
        damaged.mkdir(exist_ok=True)
        (damaged / path.name).symlink_to(path)
    for split in ("train", "val", "test"):
        content = json.loads((folder / f"transforms_{split}.json").read_text())
        for frame in content["frames"]:
            frame["timestep_index"] += 5
        (damaged / f"transforms_{split}.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"timestep_index 9, 13, but the file .* the timesteps 0 to 8"):
        NersembleDataParserConfig(data=damaged).setup().get_dataparser_outputs("train")
