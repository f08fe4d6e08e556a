"""Packed splats hold the avatar and stand upright: with splat-transform where it is installed, else with a stand-in."""

from __future__ import annotations

import gzip
import os
import shutil
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from plyfile import PlyData

from edit3dgs_ns.commands import main as cli
from edit3dgs_ns.runs.exporting import export_splat
from edit3dgs_ns.runs.packed_splats import PROGRAM, Packed, export_packed
from edit3dgs_ns.runs.trained_run import TrainedRun
from edit3dgs_ns.splats.spherical_harmonics import sh_basis

HALF_TURN = np.diag([-1.0, -1.0, 1.0])


@pytest.fixture(scope="module")
def config(small_avatar: Path) -> Path:
    return small_avatar / "config.yml"


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A splat-transform that copies its input, with its options in front; without `-g cpu` it packs no sog."""
    path = tmp_path / "bin" / PROGRAM
    path.parent.mkdir()
    path.write_text(
        "#!/bin/sh\n"
        'for last; do input="$output"; output="$last"; done\n'
        'case "$*" in *"-g cpu"*|*.spz) ;; *) echo "no GPU" >&2; exit 1;; esac\n'
        '(echo "$*"; cat "$input") > "$output"\n'
    )
    path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{path.parent}{os.pathsep}{os.environ['PATH']}")
    return path


def _columns(path: Path, *names: str) -> np.ndarray:
    vertex = PlyData.read(path)["vertex"]
    return np.stack([vertex[name] for name in names], axis=1)


def test_y_down_is_the_same_splat_turned_half_around(config: Path, tmp_path: Path) -> None:
    (up,) = export_splat(config, tmp_path / "up", timestep=1)
    words = ["--load-config", str(config), "--timestep", "1", "--output", str(tmp_path)]
    assert cli.run(["export", "--format", "ply", "--y-down", *words]) == 0
    down = tmp_path / "splat.ply"
    means = ("x", "y", "z")
    np.testing.assert_allclose(_columns(down, *means), _columns(up, *means) @ HALF_TURN, atol=1e-6)
    # The view-dependent part turns with it: seen from a turned direction, the same colour.
    rest = [f"f_rest_{i}" for i in range(45)]
    directions = torch.nn.functional.normalize(
        torch.randn(5, 3, generator=torch.Generator().manual_seed(1)), dim=1
    )
    for name, turn in ((up, np.eye(3)), (down, HALF_TURN)):
        coefficients = torch.from_numpy(_columns(name, *rest)).reshape(-1, 3, 15)
        basis = sh_basis(directions @ torch.from_numpy(turn).float(), 3)[:, 1:]
        seen = torch.einsum("dk,nck->ndc", basis, coefficients)
        expected = seen if name == up else expected
        np.testing.assert_allclose(seen, expected, atol=1e-5)


@pytest.mark.parametrize(("kind", "turn"), [("spz", np.eye(3)), ("sog", HALF_TURN)])
def test_splat_transform_is_given_what_stands_as_its_format_does(
    kind: Packed, turn: np.ndarray, config: Path, program: Path, tmp_path: Path
) -> None:
    (up,) = export_splat(config, tmp_path / "up")
    (made,) = export_packed(kind, config, tmp_path / "out")
    options, _, content = made.read_bytes().partition(b"\n")
    assert (b"--spz-version 3" in options) == (kind == "spz") and made.name == f"splat.{kind}"
    (tmp_path / "given.ply").write_bytes(content)
    given, expected = (_columns(path, "x", "y", "z") for path in (tmp_path / "given.ply", up))
    np.testing.assert_allclose(given, expected @ turn, atol=1e-6)


def test_sog_is_packed_on_the_cpu_where_there_is_no_gpu(
    config: Path, program: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    words = ["--load-config", str(config), "--format", "sog", "--output", str(tmp_path / "out")]
    assert cli.run(["export", *words]) == 0
    assert "finds no GPU" in capfd.readouterr().out
    assert (tmp_path / "out" / "splat.sog").read_bytes().startswith(b"-w -q -g cpu ")


def test_what_is_missing_or_fails_is_said(
    config: Path,
    program: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    words = ["--load-config", str(config), "--format", "spz", "--output", str(tmp_path / "out")]
    program.write_text("#!/bin/sh\necho it broke >&2\nexit 3\n")
    assert cli.run(["export", *words]) == cli.USER_ERROR_EXIT_CODE
    assert "splat-transform failed: it broke" in capfd.readouterr().err
    monkeypatch.setenv("PATH", str(tmp_path / "nowhere"))
    assert cli.run(["export", *words]) == cli.USER_ERROR_EXIT_CODE
    assert "npm install -g @playcanvas/splat-transform" in " ".join(capfd.readouterr().err.split())
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(shutil.which(PROGRAM) is None, reason="splat-transform is not installed")
def test_spz_by_splat_transform_is_upright(config: Path, tmp_path: Path) -> None:
    """Its places, read by the format's description (Niantic's spz, version 3), are the avatar's: y up, metres."""
    (path,) = export_packed("spz", config, tmp_path, timestep=2)
    content = gzip.decompress(path.read_bytes())
    magic, version, count, _, fraction = struct.unpack_from("<IIIBB", content)
    assert (magic, version) == (0x5053474E, 3)
    model = TrainedRun(config).pipeline.model
    means = model.shown_at(2 / (model.head.num_timesteps - 1))[0].means.detach().numpy()
    assert count == len(means)
    raw = np.frombuffer(content, np.uint8, 9 * count, 16).reshape(count, 3, 3).astype(np.int32)
    places = raw[..., 0] | raw[..., 1] << 8 | raw[..., 2] << 16
    found = np.where(places >= 1 << 23, places - (1 << 24), places) / (1 << fraction)
    # The program may have put them in another order.
    np.testing.assert_allclose(np.sort(found, axis=0), np.sort(means, axis=0), atol=1e-3)
