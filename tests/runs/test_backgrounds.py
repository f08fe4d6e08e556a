"""A scene of `ns-train splatfacto` as a background: read as Nerfstudio left it, or refused before anything is rendered."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from edit3dgs_ns.commands import main as cli
from edit3dgs_ns.runs.backgrounds import OPTION, drawn_otherwise, read_background, scene_name
from edit3dgs_ns.runs.placement import OPTION as TRANSFORM_OPTION
from edit3dgs_ns.runs.scene_options import SceneOptions
from edit3dgs_ns.runs.trained_run import TrainedRun
from edit3dgs_ns.splats.checkpoints import read_checkpoint
from edit3dgs_ns.splats.rasterize import rasterize
from edit3dgs_ns.splats.views import viewmats_from_c2w
from tests.command_line import edit3dgs, said
from tests.office_scene import front_at, without_a_gpu

# -- reading --------------------------------------------------------------------------------------------------------------


@torch.no_grad()
def test_a_run_of_splatfacto_looks_as_nerfstudio_draws_it(office: tuple[Path, Any], run: TrainedRun) -> None:
    config, theirs = office
    newest = read_checkpoint(config.parent / "nerfstudio_models" / "step-000003000.ckpt", OPTION)
    assert "np.float64" in repr(newest["schedulers"]) or "float64" in repr(
        [type(rate) for s in newest["schedulers"].values() for rate in s["_last_lr"]]
    ), "such numbers are what makes PyTorch refuse these checkpoints"
    camera = front_at(run, 0.0)
    with without_a_gpu():
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
        assert message in said(capsys)
        assert not video.exists()
