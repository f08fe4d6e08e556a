"""FLAME 2020 and 2023: files with their keys, shapes and types become heads with teeth that move as parameters of VHAP say."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from edit3dgs_ns.flame import FlameAssets, FlameModel, FlameMotion, load_assets
from edit3dgs_ns.splats.rig import TrackedHead

from .flame_files import DIRECTIONS, FACES, VERTICES, flame_arrays, write_flame

WITH_TEETH = VERTICES + 120


@pytest.fixture(scope="module", params=[2020, 2023])
def model_file(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_flame(tmp_path_factory.mktemp(f"flame{request.param}"), request.param)


@pytest.fixture(scope="module")
def assets(model_file: Path) -> FlameAssets:
    return load_assets(model_file)


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> FlameModel:
    """FLAME whose masks are not there."""
    return FlameModel.from_assets(
        load_assets(write_flame(tmp_path_factory.mktemp("bare"), 2023, masks=False))
    )


def tracked(offset_rows: int, num_shape: int = 300, num_expr: int = 100, frames: int = 2) -> FlameMotion:
    rows = {
        name: torch.zeros(frames, width)
        for name, width in {"rotation": 3, "neck_pose": 3, "jaw_pose": 3}.items()
    }
    return FlameMotion(
        shape=0.1 * torch.randn(num_shape, generator=torch.Generator().manual_seed(1)),
        static_offset=torch.full((offset_rows, 3), 0.001),
        expr=torch.zeros(frames, num_expr),
        eyes_pose=torch.zeros(frames, 6),
        translation=torch.zeros(frames, 3),
        **rows,
    )


def test_counts_and_contents(assets: FlameAssets) -> None:
    table = flame_arrays()
    assert (assets.num_vertices, len(assets.faces)) == (WITH_TEETH, FACES + 168)
    assert assets.shapedirs.shape[2] == 300 and assets.exprdirs.shape[2] == DIRECTIONS - 300
    np.testing.assert_allclose(assets.v_template[:VERTICES], table["v_template"].astype(np.float32))
    np.testing.assert_allclose(assets.exprdirs[:VERTICES], table["shapedirs"][..., 300:].astype(np.float32))
    np.testing.assert_allclose(assets.J_regressor[:, :VERTICES], table["J_regressor"].astype(np.float32))
    np.testing.assert_array_equal(assets.faces[:FACES], table["f"])
    assert assets.parents.tolist() == [-1, 0, 1, 1, 1]
    assert "chumpy" not in __import__("sys").modules


def test_offsets_without_teeth_are_padded(assets: FlameAssets) -> None:
    flame = FlameModel.from_assets(assets)
    head = TrackedHead(flame, tracked(VERTICES))
    assert head.static_offset.shape == (WITH_TEETH, 3)
    assert (head.static_offset[VERTICES:] == 0).all() and (head.static_offset[:VERTICES] == 0.001).all()
    plain = flame.shaped(head.shape).v_shaped
    torch.testing.assert_close(head.canonical_vertices() - plain, head.static_offset, atol=1e-6, rtol=0)
    full = tracked(WITH_TEETH)
    assert full.with_teeth_offset(WITH_TEETH) is full


def test_coefficients_of_vhap(assets: FlameAssets) -> None:
    """300 of shape and 100 of expression are all that FLAME has; one more belongs to another model."""
    flame = FlameModel.from_assets(assets)
    TrackedHead(flame, tracked(WITH_TEETH))
    with pytest.raises(ValueError, match=r"301 shape coefficients; expected at most 300"):
        TrackedHead(flame, tracked(WITH_TEETH, num_shape=301))
    with pytest.raises(ValueError, match=r"101 expression coefficients; expected at most 100"):
        TrackedHead(flame, tracked(WITH_TEETH, num_expr=101))


def test_missing_masks_are_asked_for(bare: FlameModel) -> None:
    assert bare.num_vertices == VERTICES
    with pytest.raises(
        ValueError, match=r"static offset of 5143 vertices; expected 5023\..*FLAME_masks\.pkl"
    ):
        TrackedHead(bare, tracked(WITH_TEETH))
    TrackedHead(bare, tracked(VERTICES))


@pytest.mark.parametrize("rows", [5022, 5142, 6890])
def test_other_vertex_counts_are_not_padded(assets: FlameAssets, rows: int) -> None:
    with pytest.raises(ValueError, match=f"static offset of {rows} vertices; expected {WITH_TEETH}"):
        TrackedHead(FlameModel.from_assets(assets), tracked(rows))


def test_a_set_of_code_is_not_read(tmp_path: Path) -> None:
    """Sets of names occur in chumpy's arrays; what is in one is held to the same rules."""
    path = tmp_path / "generic_model.pkl"
    path.write_bytes(pickle.dumps({"extra": {print}}, protocol=2))
    with pytest.raises(ValueError, match=r"refused.*print"):
        load_assets(path)
