"""FlameMotion: files, frames, interpolation."""

import numpy as np
import pytest
import torch

from edit3dgs_ns.flame import FlameMotion
from edit3dgs_ns.flame.rotations import axis_angle_to_matrix, slerp_axis_angle

FIELDS = ("shape", "expr", "rotation", "neck_pose", "jaw_pose", "eyes_pose", "translation")


def random_motion(frames=5, offset=True, seed=0):
    g = torch.Generator().manual_seed(seed)
    widths = {"expr": 7, "rotation": 3, "neck_pose": 3, "jaw_pose": 3, "eyes_pose": 6, "translation": 3}
    rows = {k: torch.randn(frames, w, generator=g) for k, w in widths.items()}
    static = 0.01 * torch.randn(11, 3, generator=g) if offset else None
    return FlameMotion(shape=torch.randn(4, generator=g), static_offset=static, **rows)


@pytest.mark.parametrize("offset", [True, False])
def test_file_round_trip(tmp_path, offset):
    motion = random_motion(offset=offset)
    motion.save(tmp_path / "a" / "flame_param.npz")
    again = FlameMotion.load(tmp_path / "a" / "flame_param.npz")
    for name in FIELDS:
        torch.testing.assert_close(getattr(again, name), getattr(motion, name), rtol=0, atol=0)
    assert (again.static_offset is None) == (not offset)
    if offset:
        torch.testing.assert_close(again.static_offset, motion.static_offset, rtol=0, atol=0)
        assert np.load(tmp_path / "a" / "flame_param.npz")["static_offset"].shape == (1, 11, 3)
    assert [p.name for p in (tmp_path / "a").iterdir()] == ["flame_param.npz"]


def test_per_frame_files_of_vhap(tmp_path):
    motion, paths = random_motion(3), []
    for t in range(3):
        table = {name: getattr(motion, name)[t : t + 1].numpy() for name in FIELDS if name != "shape"}
        table["dynamic_offset"] = np.ones((1, 11, 3), np.float32)
        paths.append(tmp_path / f"{t:05d}.npz")
        np.savez(
            paths[-1], shape=motion.shape.numpy(), static_offset=motion.static_offset[None].numpy(), **table
        )
    joined = FlameMotion.from_frames(paths)
    assert len(joined) == 3
    for name in FIELDS:
        torch.testing.assert_close(getattr(joined, name), getattr(motion, name))


def test_broken_files_are_named(tmp_path):
    path = tmp_path / "x.npz"
    with pytest.raises(FileNotFoundError, match=r"x\.npz"):
        FlameMotion.load(path)
    path.write_bytes(b"no zip")
    with pytest.raises(ValueError, match=r"x\.npz"):
        FlameMotion.load(path)
    motion = random_motion()
    motion.save(path)
    table = dict(np.load(path))
    np.savez(path, **{k: v for k, v in table.items() if k != "jaw_pose"})
    with pytest.raises(ValueError, match=r"x\.npz.*'jaw_pose'"):
        FlameMotion.load(path)
    np.savez(path, **(table | {"rotation": table["rotation"][:2]}))
    with pytest.raises(ValueError, match=r"x\.npz.*rotation has shape \(2, 3\), expected \(5, 3\)"):
        FlameMotion.load(path)
    np.savez(path, **(table | {"expr": table["expr"] * np.nan}))
    with pytest.raises(ValueError, match="'expr' is not an array of finite numbers"):
        FlameMotion.load(path)
    np.savez(path, **(table | {"expr": np.array([{}], dtype=object)}))
    with pytest.raises(ValueError, match=r"x\.npz"):
        FlameMotion.load(path)
    with pytest.raises(ValueError, match="at least one"):
        FlameMotion.from_frames([])


@pytest.mark.parametrize("key", FIELDS)
def test_numbers_beyond_single_precision_are_refused(tmp_path, key):
    """They are finite in the file's float64, and would be infinite in use."""
    path = tmp_path / "x.npz"
    random_motion().save(path)
    table = {name: values.astype(np.float64) for name, values in np.load(path).items()}
    table[key].flat[-1] = -1e39
    np.savez(path, **table)
    where = "" if key == "shape" else ": 1 of 5 frames are not, the first is frame 4"
    with pytest.raises(ValueError, match=f"'{key}' is not an array of finite numbers{where}"):
        FlameMotion.load(path)


def test_slice_and_concat():
    motion = random_motion(6)
    joined = FlameMotion.concat([motion.slice(0, 2), motion.slice(2)])
    for name in FIELDS:
        torch.testing.assert_close(getattr(joined, name), getattr(motion, name))
    other = random_motion(2, seed=3)
    with pytest.raises(ValueError, match="another identity"):
        FlameMotion.concat([motion, other])


def test_interpolation_meets_the_frames_and_turns_evenly_between_them():
    motion = random_motion(5)
    at = motion.interpolate(torch.arange(5) / 4)
    for name in ("expr", "rotation", "neck_pose", "jaw_pose", "eyes_pose", "translation"):
        got, want = getattr(at, name), getattr(motion, name)
        if name not in ("expr", "translation"):
            got, want = (axis_angle_to_matrix(x.unflatten(1, (-1, 3))) for x in (got, want))
        torch.testing.assert_close(got, want, atol=1e-5, rtol=0)
    assert motion.interpolate(0.3).rotation.shape == (1, 3)
    torch.testing.assert_close(motion.interpolate(5.0).expr[0], motion.expr[-1])
    assert FlameMotion.zeros(1, 2, 3).interpolate(0.7).expr.shape == (1, 3)


@pytest.mark.parametrize("scale", [0.0, 1e-7, 0.1, 2.0, 3.0])
def test_slerp_moves_at_constant_speed_along_the_shortest_way(scale):
    g = torch.Generator().manual_seed(4)
    a, b = scale * torch.randn(2, 50, 3, generator=g, dtype=torch.float64)
    share = torch.full((50,), 0.25, dtype=torch.float64)
    Ra, Rb, Rm = (axis_angle_to_matrix(x) for x in (a, b, slerp_axis_angle(a, b, share)))

    def angle(R, S):
        return torch.arccos(
            (((R.transpose(-1, -2) @ S).diagonal(dim1=-2, dim2=-1).sum(-1) - 1) / 2).clamp(-1, 1)
        )

    torch.testing.assert_close(angle(Ra, Rm), 0.25 * angle(Ra, Rb), atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(angle(Rm, Rb), 0.75 * angle(Ra, Rb), atol=1e-6, rtol=1e-6)
