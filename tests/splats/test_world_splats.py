"""Scenes that are joined and placed: one picture of all, each hiding the other; turned scenes look turned, colours too."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from plyfile import PlyData, PlyElement
from scipy.spatial.transform import Rotation

from edit3dgs_ns.splats.binding import WorldGaussians
from edit3dgs_ns.splats.ply import bound_properties, read_splat_ply, write_splat_ply
from edit3dgs_ns.splats.rasterize import rasterize
from edit3dgs_ns.splats.similarity import Similarity
from edit3dgs_ns.splats.spherical_harmonics import plain_colors, sh_basis, sh_rotation
from edit3dgs_ns.splats.world_splats import Backdrop, WorldSplats
from tests.splats import reference
from tests.splats.scenes import Scene, make_scene

TURNED = Similarity.from_parts((0.4, -0.2, 0.7), (20.0, -130.0, 65.0), 1.7)


def splats_of(scene: Scene) -> WorldSplats:
    quats = torch.nn.functional.normalize(scene.quats, dim=-1)
    return WorldSplats(WorldGaussians(scene.means, quats, scene.scales), scene.opacities, scene.colors)


def draw(splats: WorldSplats, scene: Scene) -> torch.Tensor:
    """From the scene's cameras."""
    camera = (scene.viewmats, scene.Ks, scene.width, scene.height)
    return rasterize(*splats.tensors, *camera, sh_degree=splats.sh_degree)[0]


# -- spherical harmonics --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_the_functions_are_those_of_3dgs_and_turn_with_the_scene(degree: int) -> None:
    generator = torch.Generator().manual_seed(degree)
    directions = torch.randn(200, 3, generator=generator, dtype=torch.float64)
    directions = torch.nn.functional.normalize(directions, dim=-1)
    bases = (degree + 1) ** 2
    torch.testing.assert_close(sh_basis(directions, degree), reference.sh_basis(directions)[:, :bases])

    one, other = (torch.from_numpy(r.as_matrix()) for r in Rotation.random(2, random_state=degree))
    coefficients = torch.randn(bases, generator=generator, dtype=torch.float64)
    turned = reference.sh_basis(directions)[:, :bases] @ sh_rotation(one, degree) @ coefficients
    # What is now seen in R d was seen in d.
    expected = reference.sh_basis(directions @ one)[:, :bases] @ coefficients
    torch.testing.assert_close(turned, expected, atol=1e-12, rtol=0)
    both = sh_rotation(one, degree) @ sh_rotation(other, degree)
    torch.testing.assert_close(both, sh_rotation(one @ other, degree), atol=1e-12, rtol=0)


# -- similarities ---------------------------------------------------------------------------------------------------------

ANGLES = st.tuples(*[st.floats(-179, 179)] * 3)
PLACES = st.tuples(*[st.floats(-50, 50)] * 3)


@given(ANGLES, PLACES, st.floats(0.01, 100))
def test_similarities_are_their_matrices(degrees, translation, scale) -> None:
    similarity = Similarity.from_parts(translation, degrees, scale)
    x, y, z = np.radians(degrees)
    cos, sin = np.cos, np.sin
    about_x = np.array([[1, 0, 0], [0, cos(x), -sin(x)], [0, sin(x), cos(x)]])
    about_y = np.array([[cos(y), 0, sin(y)], [0, 1, 0], [-sin(y), 0, cos(y)]])
    about_z = np.array([[cos(z), -sin(z), 0], [sin(z), cos(z), 0], [0, 0, 1]])
    np.testing.assert_allclose(similarity.rotation, about_z @ about_y @ about_x, atol=1e-12)
    near = {"atol": 1e-9 * max(scale, 1 / scale) * 100, "rtol": 1e-9}
    np.testing.assert_allclose(Similarity.from_matrix(similarity.matrix).matrix, similarity.matrix, **near)
    np.testing.assert_allclose((similarity @ similarity.inverse()).matrix, np.eye(4), **near)
    np.testing.assert_allclose((TURNED @ similarity).matrix, TURNED.matrix @ similarity.matrix, **near)
    again = Similarity.from_parts(similarity.translation, similarity.degrees, similarity.scale)
    np.testing.assert_allclose(again.rotation, similarity.rotation, atol=1e-6)


# -- scenes ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bases", [1, 4, 9, 16])
def test_a_scene_and_its_camera_moved_alike_give_the_same_picture(bases: int) -> None:
    scene = make_scene(cameras=2, bases=bases, seed=bases)
    splats = splats_of(scene)
    # A camera elsewhere that sees everything TURNED.scale times as large and as far away.
    larger = torch.diag(torch.tensor([TURNED.scale] * 3 + [1.0], dtype=torch.float64))
    moved = replace(scene, viewmats=larger @ scene.viewmats @ torch.from_numpy(TURNED.inverse().matrix))
    expected = draw(splats, scene)
    torch.testing.assert_close(draw(splats.moved(TURNED), moved), expected, atol=1e-9, rtol=0)
    if bases > 1:  # colours must turn too
        unturned = replace(splats.moved(TURNED), colors=splats.colors)
        assert (draw(unturned, moved) - expected).abs().max() > 0.01


def test_a_joined_scene_is_the_picture_of_all_its_gaussians() -> None:
    """Of different degrees, through each other; by the slow reference."""
    head, room = make_scene(bases=4, seed=1, cameras=2), make_scene(bases=16, seed=2, cameras=2, size=0.1)
    joined = splats_of(head).joined(splats_of(room))
    filled = torch.cat([head.colors, torch.zeros(len(head.colors), 12, 3, dtype=torch.float64)], dim=1)
    names = ("means", "quats", "scales", "opacities")
    together = {name: torch.cat([getattr(head, name), getattr(room, name)]) for name in names}
    everything = replace(head, **together, colors=torch.cat([filled, room.colors]))
    expected, _, _ = reference.dense_render(everything, sh_degree=3)
    torch.testing.assert_close(draw(joined, head), expected, atol=1e-8, rtol=0)
    torch.testing.assert_close(
        draw(splats_of(room).joined(splats_of(head)), head), expected, atol=1e-8, rtol=0
    )
    assert splats_of(head).joined(None).tensors[0] is head.means


def test_each_hides_the_other_where_it_is_nearer() -> None:
    """A green head between a blue wall and a red pillar, from the front and from behind."""
    colours = torch.eye(3, dtype=torch.float64)

    def wall(x: float, z: float, width: float, colour: torch.Tensor) -> WorldSplats:
        """Opaque in its middle, far larger than the picture is high."""
        shape = torch.tensor([[width, 5.0, 1e-3]], dtype=torch.float64)
        gaussians = WorldGaussians(
            torch.tensor([[x, 0.0, z]], dtype=torch.float64), torch.tensor([[1.0, 0, 0, 0]]).double(), shape
        )
        return WorldSplats(gaussians, torch.ones(1, dtype=torch.float64), plain_colors(colour[None]))

    head = wall(0.0, 0.0, 0.12, colours[1])
    room = wall(0.0, -1.0, 50.0, colours[2]).joined(wall(0.1, 0.5, 0.02, colours[0]))
    flip = torch.diag(torch.tensor([1.0, -1, -1, 1], dtype=torch.float64))  # looks along -z
    front, behind = flip.clone(), torch.eye(4, dtype=torch.float64)
    front[2, 3] = behind[2, 3] = 2.0
    K = torch.tensor([[[80.0, 0, 32], [0, 80.0, 4], [0, 0, 1]]], dtype=torch.float64)

    def row(viewmat: torch.Tensor, x: float, z: float) -> int:
        """The column where a point shows."""
        point = viewmat @ torch.tensor([x, 0, z, 1.0], dtype=torch.float64)
        return int(80 * point[0] / point[2] + 32)

    for viewmat, seen in ((front, [1, 0, 2]), (behind, [2, 2, 2])):
        picture, _, _ = rasterize(*head.joined(room).tensors, viewmat[None], K, 64, 8, sh_degree=0)
        columns = [row(viewmat, -0.05, 0.0), row(viewmat, 0.1, 0.5), row(viewmat, 0.6, 0.0)]
        assert picture[0, 4, columns].argmax(dim=-1).tolist() == seen


def test_a_backdrop_comes_back_from_a_checkpoint(tmp_path: Path) -> None:
    splats = splats_of(make_scene(bases=9, dtype=torch.float32))
    backdrop = Backdrop(splats, TURNED, "office.ply")
    torch.save(backdrop.state(), tmp_path / "state.pt")
    read = Backdrop.from_state(torch.load(tmp_path / "state.pt", weights_only=True))
    assert read.source == "office.ply"
    for one, other in zip(read.scene.tensors, splats.tensors, strict=True):
        assert torch.equal(one, other)
    torch.testing.assert_close(read.placed.gaussians.means, splats.moved(TURNED).gaussians.means)
    shifted = read.at(Similarity.from_parts((1, 2, 3)))
    torch.testing.assert_close(
        shifted.placed.gaussians.means, splats.gaussians.means + torch.tensor([1.0, 2, 3])
    )


# -- splats in files ------------------------------------------------------------------------------------------------------


def write_with_plyfile(path: Path, columns: dict[str, np.ndarray]) -> Path:
    table = np.empty(len(columns["x"]), dtype=[(name, "f4") for name in columns])
    for name, values in columns.items():
        table[name] = values
    PlyData([PlyElement.describe(table, "vertex")]).write(path)
    return path


def columns_of(degree: int, count: int = 7) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(degree)
    names = bound_properties(3 * ((degree + 1) ** 2 - 1))[:-1]
    return {name: rng.normal(size=count).astype(np.float32) for name in names}


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_a_standard_splat_is_read_as_3dgs_means_it(degree: int, tmp_path: Path) -> None:
    columns = columns_of(degree)
    for name in ("nx", "ny", "nz"):
        del columns[name]
    columns["confidence"] = np.ones(7, np.float32)
    splats = read_splat_ply(write_with_plyfile(tmp_path / "s.ply", columns), "--background")
    assert len(splats) == 7 and splats.sh_degree == degree
    np.testing.assert_allclose(splats.opacities, 1 / (1 + np.exp(-columns["opacity"])), rtol=1e-6)
    np.testing.assert_allclose(splats.gaussians.scales[:, 1], np.exp(columns["scale_1"]), rtol=1e-6)
    np.testing.assert_array_equal(splats.gaussians.means[:, 2], columns["z"])
    lengths = np.sqrt(sum(columns[f"rot_{i}"] ** 2 for i in range(4)))
    np.testing.assert_allclose(splats.gaussians.quats[:, 0], columns["rot_0"] / lengths, rtol=1e-5)
    np.testing.assert_array_equal(splats.colors[:, 0, 2], columns["f_dc_2"])
    rest = (degree + 1) ** 2 - 1
    for k in range(rest):  # channel-major: all of red first
        np.testing.assert_array_equal(splats.colors[:, 1 + k, 1], columns[f"f_rest_{rest + k}"])


def test_what_we_write_is_what_we_read(tmp_path: Path) -> None:
    splats = splats_of(make_scene(bases=16, dtype=torch.float32))
    logits = torch.logit(splats.opacities)[:, None]
    write_splat_ply(tmp_path / "s.ply", splats.gaussians, logits, splats.colors[:, 0], splats.colors[:, 1:])
    for one, other in zip(
        read_splat_ply(tmp_path / "s.ply", "--background").tensors, splats.tensors, strict=True
    ):
        torch.testing.assert_close(one, other)


@given(st.lists(st.floats(0, 10, width=32), min_size=3, max_size=30).filter(lambda s: len(s) % 3 == 0))
def test_no_written_scale_is_under_a_thousandth_of_a_millimetre(scales: list[float]) -> None:
    """Down to 0, which collapsed triangles give; all others keep their value, read by another program."""
    given_scales = torch.tensor(scales).reshape(-1, 3)
    count = len(given_scales)
    gaussians = WorldGaussians(torch.zeros(count, 3), torch.eye(4)[:1].expand(count, 4), given_scales)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "s.ply"
        write_splat_ply(
            path, gaussians, torch.zeros(count, 1), torch.zeros(count, 3), torch.zeros(count, 0, 3)
        )
        vertex = PlyData.read(path)["vertex"]
        written = np.exp(np.stack([vertex[f"scale_{axis}"] for axis in range(3)], axis=1).astype(np.float64))
    assert written.min() >= 1e-6
    np.testing.assert_allclose(written, np.maximum(given_scales.numpy(), 1e-6), rtol=3e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.pop("opacity"), "has no property opacity"),
        (lambda c: c.pop("f_rest_8"), "has 8 properties f_rest_"),
        (lambda c: c.update(binding_0=np.zeros(7)), "has binding_0: an avatar, bound to a head"),
        (lambda c: c["y"].__setitem__(3, np.nan), "means of Gaussian 3 are .* not finite"),
        (lambda c: c["scale_0"].__setitem__(2, 99.0), r"scales \(as exponents\) of Gaussian 2"),
        (lambda c: [c[f"rot_{i}"].__setitem__(5, 0) for i in range(4)], "Gaussian 5 is a quaternion of length 0"),
    ],
)  # fmt: skip
def test_splats_that_cannot_be_drawn_are_refused(change, message: str, tmp_path: Path) -> None:
    columns = columns_of(1)
    change(columns)
    path = write_with_plyfile(tmp_path / "s.ply", columns)
    with pytest.raises(ValueError, match=message) as error:
        read_splat_ply(path, "--background")
    assert str(path) in str(error.value)
