"""The measuring tool: what it perturbs, what its figures mean, that a finished row is not made again."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.tiny_capture import TinyCapture
from tools.measure.avatar_experiments import __main__ as tool
from tools.measure.avatar_experiments.measure import recovered_share, table
from tools.measure.avatar_experiments.noise import perturbed, write_noisy_capture
from tools.measure.avatar_experiments.variants import VARIANTS


def frame() -> dict[str, np.ndarray]:
    widths = {"rotation": 3, "neck_pose": 3, "jaw_pose": 3, "eyes_pose": 6, "translation": 3, "expr": 2000}
    return {name: np.full((1, width), 0.1, np.float32) for name, width in widths.items()}


def test_joints_are_off_by_one_degree_and_expressions_by_a_tenth() -> None:
    wrong = perturbed(frame(), np.random.default_rng(0), degrees=1.0, expression=0.1)
    for name in ("rotation", "neck_pose", "jaw_pose", "eyes_pose"):
        errors = np.linalg.norm((wrong[name] - frame()[name]).reshape(-1, 3), axis=1)
        np.testing.assert_allclose(np.degrees(errors), 1.0, rtol=1e-3)
    assert abs((wrong["expr"] - 0.1).std() - 0.1) < 0.01
    assert (wrong["translation"] == frame()["translation"]).all()


def test_a_noisy_capture_has_the_same_images_and_other_parameters(
    tiny_capture: TinyCapture, tmp_path: Path
) -> None:
    from edit3dgs_ns.dataparsers.nersemble import NersembleDataParserConfig

    noisy = write_noisy_capture(tiny_capture.union, tmp_path / "deep" / "noisy")
    before, after = (
        NersembleDataParserConfig(data=data).setup().get_dataparser_outputs("train")
        for data in (tiny_capture.union, noisy)
    )
    assert [p.read_bytes() for p in after.image_filenames] == [p.read_bytes() for p in before.image_filenames]
    assert [p.read_bytes() for p in after.metadata["fg_mask_filenames"]] == [
        p.read_bytes() for p in before.metadata["fg_mask_filenames"]
    ]
    change = after.metadata["flame_motion"].expr - before.metadata["flame_motion"].expr
    assert 0.08 < float(change.std()) < 0.12
    # Twice the same, so that two variants are trained on the same errors.
    again = write_noisy_capture(tiny_capture.union, tmp_path / "noisy2")
    other = NersembleDataParserConfig(data=again).setup().get_dataparser_outputs("train")
    assert (other.metadata["flame_motion"].expr == after.metadata["flame_motion"].expr).all()


def row(psnr: float, what: str = "") -> dict:
    figures = {"psnr": psnr, "ssim": 0.9}
    return {"what": what, "gaussians": 1234, "held_out_camera": figures, "unseen_sequence": figures}


def test_the_recovered_share() -> None:
    rows = {"default": row(32.0), "noisy": row(31.0), "noisy_no_tuning": row(28.0)}
    assert recovered_share(rows) == pytest.approx(0.75)
    assert recovered_share({"default": row(32.0)}) is None


def test_the_table_shows_differences_to_the_first_row() -> None:
    lines = table({"default": row(32.0, "all of it"), "no_tuning": row(31.5, "less")}).splitlines()
    assert lines[2] == "| all of it | 32.00 dB, 0.9000 | 32.00 dB, 0.9000 | 1,234 |"
    assert "31.50 dB, 0.9000 (-0.50, +0.0000)" in lines[3]


def test_what_is_measured_is_kept_and_new_settings_measure_again(
    tiny_capture: TinyCapture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained: list[str] = []
    monkeypatch.setattr(tool, "trained", lambda variant, *_: trained.append(variant.name) or row(30.0))
    command = [
        "--out",
        str(tmp_path / "runs"),
        "--capture",
        str(tiny_capture.union),
        "--only",
        "default",
        "no_tuning",
    ]
    for extra, expected in (([], 2), ([], 2), (["--steps", "7"], 4)):
        assert tool.main([*command, *extra]) == 0
        assert len(trained) == expected
    rows = json.loads((tmp_path / "runs.json").read_text())["rows"]
    assert list(rows) == ["default", "no_tuning"] and rows["default"]["settings"]["steps"] == 7


def test_flags_of_every_variant_are_understood() -> None:
    """ns-train would say so only when a variant's turn comes, hours later."""
    import tyro
    from nerfstudio.configs.method_configs import AnnotatedBaseConfigUnion

    for variant in VARIANTS:
        words = [
            tool.METHOD,
            *tool.schedule_flags(50),
            *variant.flags,
            "nersemble-data",
            "--data",
            "somewhere",
        ]
        config = tyro.cli(AnnotatedBaseConfigUnion, args=words)
        assert config.pipeline.model.stop_split_at == (0 if variant.name == "no_densify" else 50)
        assert config.optimizers["means"]["scheduler"].max_steps == 50
