"""Recorded motions of every format are read as what they are, or refused with their name."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from edit3dgs_ns.flame.arkit import ARKIT_NAMES, GAZE, JAW_OPEN, read_arkit
from edit3dgs_ns.flame.assets import OPEN_HEAD_PATH
from edit3dgs_ns.flame.loading import load_assets
from edit3dgs_ns.flame.model import FlameModel
from edit3dgs_ns.flame.motion import FlameMotion
from edit3dgs_ns.flame.motion_files import read_motion_file
from tests.flame.helpers import oracle, random_assets

OPEN_HEAD = load_assets(OPEN_HEAD_PATH)
FLAME = dataclasses.replace(random_assets(num_shape=4, num_expr=6), name="flame")
LIVE_LINK = [
    "Timecode",
    "BlendShapeCount",
    *(n[0].upper() + n[1:] for n in ARKIT_NAMES),
    "HeadYaw",
    "LeftEyeYaw",
]


def live_link(path: Path, rows: list[dict[str, float]], seconds: float = 0.1) -> Path:
    """As Live Link Face writes it."""
    lines = [",".join(LIVE_LINK)]
    for number, row in enumerate(rows):
        second, frame = divmod(round(number * seconds * 60), 60)
        values = [f"{row.get(name[0].lower() + name[1:], 0.0):.6f}" for name in LIVE_LINK[2:]]
        lines.append(",".join([f"10:20:{30 + second:02d}:{frame:02d}.125", str(len(ARKIT_NAMES)), *values]))
    path.write_text("\n".join(lines) + "\n")
    return path


# -- npz ----------------------------------------------------------------------------------------------------------------


def benchmark(path: Path, **changes) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(3)
    table = {
        "shape": rng.normal(size=(1, 4)),
        "expression": rng.normal(size=(5, 6)),
        "rotation": rng.normal(size=(5, 3)),
        "translation": rng.normal(size=(5, 3)),
        "jaw": 0.2 * rng.normal(size=(5, 3)),
        "neck": 0.2 * rng.normal(size=(5, 3)),
        "eyes": 0.2 * rng.normal(size=(5, 6)),
        "scale": np.array([[1.7]]),
        "frames": np.arange(5),
        **changes,
    }
    np.savez(path, **{key: np.asarray(value, np.float32) for key, value in table.items()})
    return table


def test_benchmark_tracking_gives_the_benchmarks_own_vertices(tmp_path: Path) -> None:
    """Model first, then Euler rotation (intrinsic XYZ), scale and translation: as the benchmark's own code places the mesh."""
    table = benchmark(tmp_path / "flame2023_tracking_v2.npz")
    recorded = read_motion_file(tmp_path / "flame2023_tracking_v2.npz", FLAME)
    motion = recorded.motion
    vertices = FlameModel(FLAME).shaped(motion.shape).posed(motion.pose()) * recorded.scale
    zero = np.zeros(3)
    for t in range(5):
        rows = [table[name][t] for name in ("expression", "neck", "jaw", "eyes")]
        local = oracle(FLAME, table["shape"][0], None, rows[0], zero, *rows[1:], zero)
        turn = Rotation.from_euler("XYZ", table["rotation"][t]).as_matrix()
        world = 1.7 * local @ turn.T + table["translation"][t]
        np.testing.assert_allclose(vertices[t], world, atol=2e-4)


def test_benchmark_tracking_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "flame2023_tracking_v2.npz"
    benchmark(path)
    with pytest.raises(ValueError, match=r"tracking_v2\.npz was tracked with FLAME"):
        read_motion_file(path, OPEN_HEAD)
    for changes, message in (
        ({"expression": np.zeros((5, 7))}, "7 expression coefficients"),
        ({"scale": np.zeros((1, 1))}, "'scale' is 0.0"),
        ({"expression": np.zeros(6)}, r"'expression' has shape \(6,\)"),
        ({"jaw": np.zeros((4, 3))}, r"'jaw' has shape \(4, 3\), expected \(5, 3\)"),
        ({"eyes": np.full((5, 6), np.nan)}, "'eyes' is not an array of finite numbers"),
    ):
        benchmark(path, **changes)
        with pytest.raises(ValueError, match=message):
            read_motion_file(path, FLAME)


def tracked(**changes) -> dict[str, np.ndarray]:
    """As VHAP's tracker saves it."""
    rng = np.random.default_rng(1)
    widths = {"rotation": 3, "translation": 3, "neck_pose": 3, "jaw_pose": 3, "eyes_pose": 6, "expr": 6}
    table = {name: rng.normal(size=(4, width)).astype(np.float32) for name, width in widths.items()}
    return {
        **table,
        "shape": rng.normal(size=4).astype(np.float32),
        "static_offset": np.zeros((1, 37, 3), np.float32),
        "timestep_id": np.array(["00000", "00003", "00006", "00009"]),
        "n_processed_frames": np.array(4),
        "focal_length": np.array([1.5], np.float32),
        "tex_extra": np.zeros((3, 8, 8), np.float32),
        "image_size": np.array([802, 550]),
        **changes,
    }


def test_vhaps_tracking_is_read_whatever_else_is_in_it(tmp_path: Path) -> None:
    path = tmp_path / "tracked_flame_params_30.npz"
    np.savez(path, **tracked())
    motion = read_motion_file(path, FLAME).motion
    for name in ("expr", "jaw_pose", "eyes_pose", "translation"):
        np.testing.assert_array_equal(getattr(motion, name), tracked()[name])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {
                name: array[:0]
                for name, array in tracked().items()
                if array.shape[:1] == (4,) and name != "shape"
            },
            "no frames",
        ),
        (
            {"jaw_pose": np.where(np.arange(4)[:, None] == 2, np.nan, 0.0)},
            "1 of 4 frames are not, the first is frame 2",
        ),
    ],
)
def test_motions_without_frames_or_with_nans_are_refused(tmp_path: Path, changes, message) -> None:
    path = tmp_path / "tracked_flame_params_30.npz"
    np.savez(path, **tracked(**changes))
    with pytest.raises(ValueError, match=rf"tracked_flame_params_30\.npz.*{message}"):
        read_motion_file(path, FLAME)


def test_files_of_no_known_kind_are_refused_with_those_that_are(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere\.npz: no such file.*Known motions"):
        read_motion_file(tmp_path / "nowhere.npz", FLAME)
    (tmp_path / "a.bvh").write_text("HIERARCHY")
    with pytest.raises(ValueError, match=r"a\.bvh: \.bvh is no known kind"):
        read_motion_file(tmp_path / "a.bvh", FLAME)
    (tmp_path / "b.npz").write_bytes(b"PK no zip")
    with pytest.raises(ValueError, match=r"b\.npz: not a readable npz"):
        read_motion_file(tmp_path / "b.npz", FLAME)


def test_nothing_in_an_npz_is_executed(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "executed",))

    np.savez(tmp_path / "evil.npz", **tracked(expr=np.array([Evil()], dtype=object)))
    with pytest.raises(ValueError, match=r"evil\.npz"):
        read_motion_file(tmp_path / "evil.npz", FLAME)
    assert not (tmp_path / "executed").exists()


# -- ARKit --------------------------------------------------------------------------------------------------------------


def posed(motion: FlameMotion) -> np.ndarray:
    return FlameModel(OPEN_HEAD).shaped(motion.shape).posed(motion.pose()).numpy()


def test_the_open_head_has_all_of_arkits_expressions() -> None:
    assert len(ARKIT_NAMES) == len(set(ARKIT_NAMES)) == 52
    assert set(ARKIT_NAMES) == set(OPEN_HEAD.expression_names or ())


def test_live_link_face_moves_what_it_names(tmp_path: Path) -> None:
    names = ("mouthSmileLeft", "jawOpen", "eyeLookOutLeft", "eyeLookDownRight")
    path = live_link(tmp_path / "take.csv", [{}, *({name: 1.0} for name in names)])
    recorded = read_motion_file(path, OPEN_HEAD)
    assert not recorded.has_head_pose and len(recorded.motion) == 5
    rest, smile, jaw, outward, down = posed(recorded.motion)
    moved = np.linalg.norm(smile - rest, axis=1)
    left, right = OPEN_HEAD.v_template[:, 0] > 0.01, OPEN_HEAD.v_template[:, 0] < -0.01
    assert moved[left].max() > 0.008 and moved[right].max() < 0.2 * moved[left].max()
    chin = OPEN_HEAD.vertex_regions["teeth_lower"]
    assert (rest[chin, 1] - jaw[chin, 1]).mean() > 0.01
    ahead = {side: OPEN_HEAD.vertex_regions[f"eye_{side}"] for side in ("left", "right")}

    def gaze(vertices: np.ndarray, side: str) -> np.ndarray:
        pupil = np.intersect1d(ahead[side], OPEN_HEAD.vertex_regions["pupil"])
        axis = vertices[pupil].mean(0) - vertices[ahead[side]].mean(0)
        return axis / np.linalg.norm(axis)

    # Outward is to each eye's own side; the other eye stays.
    assert gaze(outward, "left")[0] - gaze(rest, "left")[0] > 0.3
    np.testing.assert_allclose(gaze(outward, "right"), gaze(rest, "right"), atol=1e-4)
    assert gaze(down, "right")[1] - gaze(rest, "right")[1] < -0.3
    assert "not used: HeadYaw, LeftEyeYaw" in " ".join(recorded.notes)


def test_mouth_close_shuts_the_mouth_that_jaw_open_opens(tmp_path: Path) -> None:
    """ARKit: "closure of the lips independent of jaw position"."""
    path = live_link(tmp_path / "take.csv", [{}, {"jawOpen": 1.0}, {"jawOpen": 1.0, "mouthClose": 1.0}])
    motion = read_motion_file(path, OPEN_HEAD).motion
    assert float(motion.jaw_pose[1, 0]) == pytest.approx(JAW_OPEN)
    vertices = posed(motion)
    lips = OPEN_HEAD.vertex_regions["lips"]
    lips = lips[np.abs(OPEN_HEAD.v_template[lips, 0]) < 0.006]
    upper, lower = lips[OPEN_HEAD.weights[lips, 2] < 0.3], lips[OPEN_HEAD.weights[lips, 2] > 0.7]
    gaps = [float(v[upper, 1].min() - v[lower, 1].max()) for v in vertices]
    assert gaps[1] > 0.02 and abs(gaps[2]) < 0.002 and abs(gaps[0]) < 0.002


def test_json_and_csv_say_the_same_in_any_spelling(tmp_path: Path) -> None:
    rows = [{"eyeBlinkLeft": 0.25 * k, "mouthLeft": 0.1 * k, "tongueOut": 0.0} for k in range(4)]
    csv = read_arkit(live_link(tmp_path / "a.csv", rows))
    short = {"eyeBlinkLeft": "eyeBlink_L", "mouthLeft": "mouthLeft", "tongueOut": "TongueOut"}
    (tmp_path / "b.json").write_text(
        json.dumps(
            {"fps": 60, "frames": [{short[k]: v for k, v in row.items()} | {"t": 1.0} for row in rows]}
        )
    )
    other = read_arkit(tmp_path / "b.json")
    assert (
        other.fps == 60
        and other.unused == ("t",)
        and other.names == ("eyeBlinkLeft", "mouthLeft", "tongueOut")
    )
    for name in other.names:
        column = csv.amounts[:, csv.names.index(name)]
        np.testing.assert_allclose(other.amounts[:, other.names.index(name)], column, atol=1e-6)


def test_frame_rate_comes_from_the_timecodes(tmp_path: Path) -> None:
    take = read_arkit(live_link(tmp_path / "a.csv", [{}] * 200, seconds=1 / 60))
    assert take.fps == 60
    assert read_arkit(live_link(tmp_path / "b.csv", [{}] * 20, seconds=1 / 60)).fps is None


def test_frames_without_a_face_are_filled_in(tmp_path: Path) -> None:
    path = live_link(tmp_path / "a.csv", [{"jawOpen": 0.2 * k} for k in range(5)])
    lines = path.read_text().splitlines()
    lines[3] = ",".join([*lines[3].split(",")[:1], "0"])  # as the app writes it
    path.write_text("\n".join(lines))
    take = read_arkit(path)
    assert take.filled == 1
    np.testing.assert_allclose(
        take.amounts[:, take.names.index("jawOpen")], [0, 0.2, 0.4, 0.6, 0.8], atol=1e-6
    )
    lines[1:] = [",".join([*line.split(",")[:1], "0"]) for line in lines[1:]]
    path.write_text("\n".join(lines))
    with pytest.raises(ValueError, match=r"a\.csv: no frame of 5 shows a face"):
        read_arkit(path)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.csv", "", "has no frames"),
        ("a.csv", "Timecode,JawOpen\n", "has no frames"),
        ("a.csv", "x,y\n1,2\n", "none of ARKit's 52 coefficients.*found x, y"),
        ("a.csv", "JawOpen,MouthClose\n0.1,nan\n", "frame 0 has 'nan' for MouthClose"),
        ("a.csv", "JawOpen\n40\n", "frame 0 has '40' for JawOpen, expected a number from 0 to 1"),
        ("a.csv", "JawOpen,JawOpen\n0,0\n", "'JawOpen' is there twice"),
        ("a.csv", "JawOpen\n0.1,0.2\n", "line 2 has 2 values for 1 columns"),
        ("a.json", "[1, 2]", "expected a list of objects"),
        ("a.json", "[{]", "not valid JSON"),
        ("a.json", '{"fps": 0, "frames": [{"jawOpen": 0}]}', '"fps" is 0'),
        ("a.json", '[{"jawOpen": "wide"}]', "frame 0 has 'wide' for jawOpen"),
    ],
)  # fmt: skip
def test_damaged_recordings_are_refused(tmp_path: Path, name: str, text: str, message: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=message) as error:
        read_arkit(tmp_path / name)
    assert name in str(error.value)


def test_flames_expressions_have_no_names_to_map_to(tmp_path: Path) -> None:
    path = live_link(tmp_path / "take.csv", [{}])
    with pytest.raises(
        ValueError, match=r"take\.csv: ARKit coefficients need a head whose expressions have ARKit's names"
    ):
        read_motion_file(path, FLAME)


def test_gaze_is_the_angle_that_the_lids_follow(tmp_path: Path) -> None:
    path = live_link(tmp_path / "take.csv", [{"eyeLookUpLeft": 0.5, "eyeLookInRight": 1.0}])
    eyes = read_motion_file(path, OPEN_HEAD).motion.eyes_pose[0]
    torch.testing.assert_close(eyes, torch.tensor([-0.5 * GAZE, 0, 0, 0, GAZE, 0]))
