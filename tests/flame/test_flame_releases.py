"""FLAME 2020, 2023 and 2023 Open: files with their keys, shapes and types become heads with teeth, driven by VHAP's parameters."""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from edit3dgs_ns.flame import FlameAssets, FlameModel, FlameMotion, load_assets
from edit3dgs_ns.flame.regions import region_faces, region_vertices
from edit3dgs_ns.splats.rig import TrackedHead

from .flame_files import DIRECTIONS, FACES, VERTICES, flame_arrays, flame_table, write_flame

WITH_TEETH = VERTICES + 120


@pytest.fixture(scope="module", params=[2020, 2023, "open"])
def model_file(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_flame(tmp_path_factory.mktemp(f"flame{request.param}"), request.param)


@pytest.fixture(scope="module")
def assets(model_file: Path) -> FlameAssets:
    return load_assets(model_file)


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


def test_teeth_need_no_masks_but_named_regions_do(assets: FlameAssets, tmp_path: Path) -> None:
    bare = load_assets(write_flame(tmp_path, "open", masks=False))
    for name in ("v_template", "faces", "shapedirs", "weights"):
        np.testing.assert_array_equal(getattr(bare, name), getattr(assets, name))
    np.testing.assert_array_equal(region_faces(bare, "teeth"), region_faces(assets, "teeth"))
    assert len(region_vertices(assets, "lips")) == 254 and len(region_vertices(assets, "eyes")) == 2 * 546
    TrackedHead(FlameModel.from_assets(bare), tracked(WITH_TEETH))
    with pytest.raises(ValueError, match=r"no region 'lips' .*teeth.*FLAME_masks\.pkl.*beside FLAME's file"):
        region_faces(bare, "lips")


# -- the ZIP that FLAME's site serves -------------------------------------------------------------------------------------


def zipped(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


SMALL = pickle.dumps(flame_table(), protocol=2)


@pytest.mark.parametrize("where", ["", "FLAME2023/", "../../", "/"])
def test_a_zip_is_read_without_extracting_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """Wherever in the archive the model is, even at a path that would lead out of a folder."""
    others = {
        f"{where}readme.pdf": b"%PDF",
        "__MACOSX/._flame2023_Open.pkl": b"\0",
        f"{where}FLAME_masks.pkl": b"\0",
    }
    (tmp_path / "in" / "it").mkdir(parents=True)
    path = zipped(tmp_path / "in" / "it" / "FLAME2023.zip", {**others, f"{where}flame2023_Open.pkl": SMALL})
    monkeypatch.setenv("FLAME_MODEL_PATH", str(path))
    assets = load_assets()
    assert assets.num_vertices == 30 and assets.source == path and assets.name == "flame"
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == [path]


def test_of_several_models_in_a_zip_the_open_one_is_read(tmp_path: Path) -> None:
    other = pickle.dumps(flame_table(num_vertices=31), protocol=2)
    path = zipped(
        tmp_path / "a.zip",
        {"flame2023_no_jaw.pkl": other, "flame2023.pkl": other, "x/flame2023_open.pkl": SMALL},
    )
    assert load_assets(path).num_vertices == 30
    assert load_assets(zipped(tmp_path / "b.zip", {"my_head.pkl": SMALL})).num_vertices == 30


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"readme.txt": b"x"}, r"found no \.pkl file; expected one of flame2023_Open\.pkl"),
        ({"a.pkl": SMALL, "b.pkl": SMALL}, r"found a\.pkl, b\.pkl; expected one of"),
        ({"flame2023_Open.pkl": b"cos\nsystem\n(S'true'\ntR."}, r"flame2023_Open\.pkl: refused.*os\.system"),
        ({"flame2023_Open.pkl": bytes(2000)}, r"flame2023_Open\.pkl is 0 MB uncompressed; FLAME's models have"),
    ],
)  # fmt: skip
def test_zips_without_a_readable_model_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, members: dict[str, bytes], message: str
) -> None:
    monkeypatch.setattr("edit3dgs_ns.flame.loading._MOST_BYTES", 1000 if len(members) == 1 else 1 << 20)
    with pytest.raises(ValueError, match=rf"a\.zip: {message}"):
        load_assets(zipped(tmp_path / "a.zip", members))


def test_a_damaged_zip_is_refused(tmp_path: Path) -> None:
    path = zipped(tmp_path / "a.zip", {"flame2023_Open.pkl": SMALL})
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(ValueError, match=r"a\.zip: not a readable ZIP.*FLAME 2023 Open"):
        load_assets(path)
    damaged = bytearray(zipped(path, {"flame2023_Open.pkl": SMALL}).read_bytes())
    damaged[200:260] = bytes(60)
    path.write_bytes(damaged)
    with pytest.raises(ValueError, match=r"a\.zip: not a readable ZIP"):
        load_assets(path)


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
