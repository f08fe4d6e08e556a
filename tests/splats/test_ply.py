"""Avatars in GaussianAvatars' files: bit for bit there and back, as plyfile (which GaussianAvatars uses) reads and writes them."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from plyfile import PlyData, PlyElement

from edit3dgs_ns.flame.assets import FlameAssets
from edit3dgs_ns.flame.motion import FlameMotion
from edit3dgs_ns.splats.avatar_files import check_avatar, read_avatar, write_avatar
from edit3dgs_ns.splats.avatar_folder import find_avatar
from edit3dgs_ns.splats.binding import WorldGaussians
from edit3dgs_ns.splats.ply import bound_properties, read_bound_ply, write_bound_ply, write_splat_ply

VERTICES, FACES = 5143, 10144
PLY, NPZ = "point_cloud.ply", "flame_param.npz"


def write_with_plyfile(path: Path, table: np.ndarray, names: list[str]) -> None:
    """As GaussianAvatars does: a structured array of float32, through plyfile."""
    elements = np.empty(len(table), dtype=[(name, "f4") for name in names])
    for number, name in enumerate(names):
        elements[name] = table[:, number]
    PlyData([PlyElement.describe(elements, "vertex")]).write(path)


def random_table(
    count: int, degree: int = 3, faces: int = FACES, seed: int = 0
) -> tuple[np.ndarray, list[str]]:
    rng = np.random.default_rng(seed)
    names = bound_properties(3 * ((degree + 1) ** 2 - 1))
    table = rng.normal(size=(count, len(names))).astype(np.float32)
    table[:, 3:6] = 0
    table[:, -1] = rng.integers(0, faces, count)
    table[0, 0] = -0.0  # bits, not values
    return table, names


def random_params(frames: int = 3, vertices: int = VERTICES, seed: int = 0) -> dict[str, np.ndarray]:
    """`flame_param.npz` with GaussianAvatars' keys, in its order."""
    rng = np.random.default_rng(seed)
    shapes = {
        "shape": (300,),
        "expr": (frames, 100),
        "rotation": (frames, 3),
        "neck_pose": (frames, 3),
        "jaw_pose": (frames, 3),
        "eyes_pose": (frames, 6),
        "translation": (frames, 3),
        "static_offset": (1, vertices, 3),
        "dynamic_offset": (frames, vertices, 3),
    }
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


@pytest.fixture
def avatar(tmp_path: Path) -> Path:
    """A small avatar folder that is in order."""
    folder = tmp_path / "avatar"
    folder.mkdir()
    write_with_plyfile(folder / PLY, *random_table(20))
    np.savez(folder / NPZ, **random_params())
    return folder


@pytest.mark.parametrize("degree", [1, 2, 3])
def test_ply_is_the_same_file_again(tmp_path: Path, degree: int) -> None:
    table, names = random_table(FACES + 500, degree)
    write_with_plyfile(tmp_path / "a.ply", table, names)
    gaussians = read_bound_ply(tmp_path / "a.ply")
    write_bound_ply(tmp_path / "b.ply", gaussians)
    assert (tmp_path / "b.ply").read_bytes() == (tmp_path / "a.ply").read_bytes()
    assert gaussians.sh_degree == degree and gaussians.binding.dtype == torch.int64
    # Channel-major: f_rest_1 is red's second coefficient.
    second = table[:, names.index("f_rest_1")]
    np.testing.assert_array_equal(gaussians.features_rest[:, 1, 0].numpy(), second)
    np.testing.assert_array_equal(gaussians.quats[:, 0].numpy(), table[:, names.index("rot_0")])


def test_avatar_is_the_same_pair_of_files_again(avatar: Path, tmp_path: Path) -> None:
    read = read_avatar(avatar)
    write_avatar(tmp_path / "out", read.gaussians, read.motion, original=avatar / NPZ)
    for name in (PLY, NPZ):
        assert (tmp_path / "out" / name).read_bytes() == (avatar / name).read_bytes()
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [NPZ, PLY]


def test_only_what_changed_is_written_anew(avatar: Path, tmp_path: Path) -> None:
    read, before = read_avatar(avatar), dict(np.load(avatar / NPZ))
    moved = dataclasses.replace(read.motion, jaw_pose=read.motion.jaw_pose + 1)
    write_avatar(tmp_path, read.gaussians, moved, original=avatar / NPZ)
    after = dict(np.load(tmp_path / NPZ))
    assert list(after) == list(before)
    np.testing.assert_array_equal(after["jaw_pose"], before["jaw_pose"] + 1)
    for name in set(before) - {"jaw_pose"}:
        assert after[name].tobytes() == before[name].tobytes() and after[name].dtype == before[name].dtype


def test_an_offset_that_was_padded_comes_back_unpadded(tmp_path: Path) -> None:
    table = random_params(vertices=5023)
    np.savez(tmp_path / NPZ, **table)
    write_with_plyfile(tmp_path / PLY, *random_table(5))
    read = read_avatar(tmp_path)
    padded = read.motion.with_teeth_offset(VERTICES)
    assert padded.static_offset is not None and len(padded.static_offset) == VERTICES
    write_avatar(tmp_path / "out", read.gaussians, padded, original=tmp_path / NPZ)
    assert (tmp_path / "out" / NPZ).read_bytes() == (tmp_path / NPZ).read_bytes()


def test_an_avatar_of_ours_has_all_that_gaussian_avatars_reads(avatar: Path, tmp_path: Path) -> None:
    read = read_avatar(avatar)
    write_avatar(tmp_path, read.gaussians, read.motion)
    table, before = dict(np.load(tmp_path / NPZ)), dict(np.load(avatar / NPZ))
    assert {name: (a.shape, a.dtype) for name, a in table.items()} == {
        n: (a.shape, a.dtype) for n, a in before.items()
    }
    assert (table["dynamic_offset"] == 0).all()
    np.testing.assert_array_equal(table["static_offset"], before["static_offset"])


def test_splat_without_binding(tmp_path: Path) -> None:
    """What a generic viewer reads: world coordinates, log scales, no binding."""
    write_with_plyfile(tmp_path / "a.ply", *random_table(7))
    g = read_bound_ply(tmp_path / "a.ply")
    world = WorldGaussians(means=g.means + 1, quats=g.quats, scales=torch.full_like(g.means, 0.01))
    write_splat_ply(tmp_path / "b.ply", world, g.opacities, g.features_dc, g.features_rest)
    vertex = PlyData.read(tmp_path / "b.ply")["vertex"]
    assert [p.name for p in vertex.properties] == bound_properties(45)[:-1]
    np.testing.assert_array_equal(vertex["x"], world.means[:, 0].numpy())
    np.testing.assert_allclose(vertex["scale_2"], np.log(0.01), rtol=1e-6)
    np.testing.assert_array_equal(vertex["f_rest_44"], g.features_rest[:, 14, 2].numpy())
    np.testing.assert_array_equal(vertex["opacity"], g.opacities[:, 0].numpy())


def test_files_are_not_overwritten_without_being_told(avatar: Path) -> None:
    read = read_avatar(avatar)
    with pytest.raises(FileExistsError, match=r"point_cloud\.ply is there already.*--overwrite"):
        write_avatar(avatar, read.gaussians, read.motion)
    write_avatar(avatar, read.gaussians, read.motion, overwrite=True)


def test_where_an_avatar_is_looked_for(avatar: Path, tmp_path: Path) -> None:
    assert find_avatar(avatar) == avatar == find_avatar(avatar / PLY)
    for iteration in (30000, 600000):
        place = tmp_path / "output" / "point_cloud" / f"iteration_{iteration}"
        place.mkdir(parents=True)
        (place / PLY).write_bytes((avatar / PLY).read_bytes())
        (place / NPZ).write_bytes((avatar / NPZ).read_bytes())
    assert find_avatar(tmp_path / "output").name == "iteration_600000"
    with pytest.raises(FileNotFoundError, match=r"nowhere: no such file or folder"):
        find_avatar(tmp_path / "nowhere")
    (avatar / NPZ).unlink()
    with pytest.raises(FileNotFoundError, match=r"flame_param\.npz: no such file"):
        find_avatar(avatar)


# -- what is refused --------------------------------------------------------------------------------------------------


def _damage(path: Path, change: str) -> None:
    data = path.read_bytes()
    end = data.index(b"end_header\n")
    header, body = data[:end], data[end:]
    edits = {
        "truncated": lambda: data[:-5],
        "header cut": lambda: data[: end // 2],
        "too long": lambda: data + b"1234",
        "empty": lambda: b"",
        "ascii": lambda: header.replace(b"binary_little_endian", b"ascii") + body,
        "no ply": lambda: b"PK" + data,
        "faces too": lambda: header + b"element face 3\n" + body,
        "double": lambda: header.replace(b"float opacity", b"double opacity") + body,
        "no binding": lambda: header.replace(b"binding_0", b"binding_x") + body,
        "no rotation": lambda: header.replace(b"rot_2", b"spin_2") + body,
        "extra": lambda: header + b"property float age\n" + body + bytes(4 * 20),
        "twice": lambda: header.replace(b"rot_3", b"rot_2") + body,
        "one f_rest less": lambda: header.replace(b"f_rest_44", b"rest_44") + body,
        "no gaussians": lambda: header.replace(b"vertex 20", b"vertex 0") + body,
    }
    path.write_bytes(edits[change]())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("truncated", r"truncated.*20 Gaussians of 63 float properties \(5040 bytes\); 5035 bytes follow"),
        ("header cut", r"'end_header' is missing"),
        ("too long", r"more in it than the header says"),
        ("empty", r"no PLY file"),
        ("ascii", r"format is 'ascii 1.0'; expected 'binary_little_endian 1.0'"),
        ("no ply", r"no PLY file"),
        ("faces too", r"header says 'element face 3'"),
        ("double", r"header says 'property double opacity'"),
        ("no binding", r"has no property binding_0.*does not move"),
        ("no rotation", r"has no property rot_2"),
        ("extra", r"and age, which would be lost"),
        ("twice", r"names a property twice"),
        ("one f_rest less", r"has 44 properties f_rest_\*; expected 9, 24, 45"),
        ("no gaussians", r"holds no Gaussians"),
    ],
)
def test_damaged_ply(avatar: Path, change: str, message: str) -> None:
    _damage(avatar / PLY, change)
    with pytest.raises(ValueError, match=r"point_cloud\.ply.*" + message):
        read_avatar(avatar)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("scale_1", np.nan, r"scale_1 of Gaussian 4 is nan \(1 such values\)"),
        ("f_rest_7", np.inf, r"f_rest_7 of Gaussian 4 is inf"),
        ("binding_0", 17.5, r"binding_0 of Gaussian 4 is 17.5.*number of a face"),
        ("binding_0", -1, r"binding_0 of Gaussian 4 is -1"),
        ("binding_0", 1e30, r"binding_0 of Gaussian 4 is 1e\+30"),
    ],
)
def test_values_that_no_avatar_has(avatar: Path, name: str, value: float, message: str) -> None:
    table, names = random_table(20)
    table[4, names.index(name)] = value
    write_with_plyfile(avatar / PLY, table, names)
    with pytest.raises(ValueError, match=r"point_cloud\.ply: " + message):
        read_avatar(avatar)


def _flame(vertices: int = VERTICES, faces: int = FACES) -> FlameAssets:
    """FLAME's counts, no FLAME."""
    zeros = np.zeros
    return FlameAssets(
        v_template=zeros((vertices, 3), np.float32),
        faces=zeros((faces, 3), np.int64),
        shapedirs=np.broadcast_to(np.float32(0), (vertices, 3, 300)),
        exprdirs=np.broadcast_to(np.float32(0), (vertices, 3, 100)),
        posedirs=np.broadcast_to(np.float32(0), (vertices, 3, 36)),
        J_regressor=zeros((5, vertices), np.float32),
        parents=np.array([-1, 0, 1, 1, 1]),
        weights=zeros((vertices, 5), np.float32),
        source=Path("flame2023.pkl"),
    )


@pytest.mark.parametrize(
    ("head", "message"),
    [
        (
            _flame(5023, 9976),
            r"flame_param\.npz.*flame2023\.pkl.*5143 vertices, the head has 5023.*give FLAME's own file",
        ),
        (_flame(5259, 10206), r"5143 vertices, the head has 5259.*--flame-model"),
        (
            dataclasses.replace(_flame(), exprdirs=np.zeros((VERTICES, 3, 52))),
            r"expr has 100 coefficients, the head 52",
        ),
        (
            dataclasses.replace(_flame(), shapedirs=np.zeros((VERTICES, 3, 10))),
            r"shape has 300 coefficients, the head 10",
        ),
        (
            _flame(VERTICES, 9976),
            r"point_cloud\.ply: Gaussian \d+ is bound to face \d+.*9976 faces \(0 to 9975\)",
        ),
    ],
)
def test_avatar_of_another_head(avatar: Path, head: FlameAssets, message: str) -> None:
    table, names = random_table(20)
    table[3, -1] = FACES - 1
    write_with_plyfile(avatar / PLY, table, names)
    with pytest.raises(ValueError, match=message):
        check_avatar(read_avatar(avatar), head)
    check_avatar(read_avatar(avatar), _flame())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"jaw_pose": None}, r"has no 'jaw_pose'; found"),
        ({"rotation": np.zeros((2, 3), np.float32)}, r"rotation has shape \(2, 3\), expected \(3, 3\)"),
        ({"eyes_pose": np.zeros((3, 3), np.float32)}, r"eyes_pose has shape \(3, 3\), expected \(3, 6\)"),
        ({"expr": np.full((3, 100), np.nan, np.float32)}, r"'expr' is not an array of finite numbers"),
        ({"static_offset": np.zeros((2, VERTICES, 3), np.float32)}, r"'static_offset' has shape"),
        ({"shape": np.array([{}], dtype=object)}, r"not a readable npz of plain arrays"),
    ],
)
def test_damaged_parameters(avatar: Path, change: dict, message: str) -> None:
    table = {**random_params(), **change}
    np.savez(avatar / NPZ, **{name: value for name, value in table.items() if value is not None})
    with pytest.raises(ValueError, match=r"flame_param\.npz: " + message):
        read_avatar(avatar)


def test_truncated_parameters(avatar: Path) -> None:
    data = (avatar / NPZ).read_bytes()
    (avatar / NPZ).write_bytes(data[: len(data) // 2])
    with pytest.raises(ValueError, match=r"flame_param\.npz: not a readable npz"):
        read_avatar(avatar)


def test_no_timesteps(avatar: Path) -> None:
    np.savez(avatar / NPZ, **random_params(frames=0))
    with pytest.raises(ValueError, match=r"flame_param\.npz: has no timestep"):
        read_avatar(avatar)


def test_motion_without_an_offset(avatar: Path, tmp_path: Path) -> None:
    """--disable_flame_static_offset leaves (V, 3) zeros; other tools leave the key out. Both are kept as they are."""
    table = random_params()
    del table["static_offset"]
    np.savez(avatar / NPZ, **table)
    read = read_avatar(avatar)
    assert isinstance(read.motion, FlameMotion) and read.num_vertices is None
    held = dataclasses.replace(read.motion, static_offset=torch.zeros(VERTICES, 3))  # as the rig holds it
    write_avatar(tmp_path / "out", read.gaussians, held, original=avatar / NPZ)
    assert (tmp_path / "out" / NPZ).read_bytes() == (avatar / NPZ).read_bytes()
