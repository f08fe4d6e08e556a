"""Angles and distances between two poses, and a fit that finds a pose in a picture of other colours."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from edit3dgs_ns.evaluation.expression_error import expression_error, gaze_angle, rotation_angle
from edit3dgs_ns.evaluation.expression_fit import FitOptions, fit_expression, structure_loss
from edit3dgs_ns.flame.loading import load_assets
from edit3dgs_ns.flame.model import FlameModel, FlamePose


def pose(num_expr: int = 52, **values: list[float]) -> FlamePose:
    widths = {
        "expr": num_expr,
        "rotation": 3,
        "neck_pose": 3,
        "jaw_pose": 3,
        "eyes_pose": 6,
        "translation": 3,
    }
    rows = {name: torch.zeros(1, width) for name, width in widths.items()}
    return FlamePose(
        **rows | {name: torch.tensor([value], dtype=torch.float32) for name, value in values.items()}
    )


@pytest.mark.parametrize("seed", range(4))
def test_angles_agree_with_scipy(seed: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = rng.normal(0, [0.01, 0.3, 1.0, 1e-4][seed], (2, 3))
    expected = np.degrees((Rotation.from_rotvec(a).inv() * Rotation.from_rotvec(b)).magnitude())
    assert rotation_angle(torch.tensor(a), torch.tensor(b)) == pytest.approx(expected, rel=1e-5, abs=1e-9)
    u, v = (Rotation.from_rotvec(r).apply([0, 0, 1]) for r in (a, b))
    expected = np.degrees(np.arctan2(np.linalg.norm(np.cross(u, v)), u @ v))
    assert gaze_angle(torch.tensor(a), torch.tensor(b)) == pytest.approx(expected, rel=1e-5, abs=1e-9)


def test_rolling_an_eye_does_not_change_where_it_looks() -> None:
    assert gaze_angle(torch.zeros(3), torch.tensor([0.0, 0.0, 0.7])) == pytest.approx(0, abs=1e-6)
    assert gaze_angle(torch.zeros(3), torch.tensor([0.0, np.radians(9), 0.0])) == pytest.approx(9, abs=1e-4)


def test_errors_of_a_real_head() -> None:
    assets = load_assets()
    head = FlameModel.from_assets(assets).shaped(torch.zeros(assets.shapedirs.shape[2]))
    regions = assets.vertex_regions
    blink = [0.0] * len(assets.expression_names or ())
    blink[assets.expression_index("eyeBlinkLeft")] = 1.0
    wanted = pose(rotation=[0.1, 0.2, 0.0])
    # Where the head is turned to and how far away it is does not count.
    same = expression_error(
        head, wanted, pose(rotation=[-0.5, 0.0, 0.3], translation=[0.1, 0.0, 0.0]), regions
    )
    assert (same.jaw_degrees, same.lips_mm, same.lids_mm, same.gaze_degrees) == pytest.approx(
        (0, 0, 0, 0), abs=1e-4
    )

    found = pose(
        jaw_pose=[np.radians(10.0), 0.0, 0.0],
        eyes_pose=[0.0, np.radians(4.0), 0.0, 0.0, 0.0, 0.0],
        expr=blink,
    )
    error = expression_error(head, wanted, found, regions)
    assert error.jaw_degrees == pytest.approx(10, abs=1e-3)
    assert error.gaze_degrees == pytest.approx(2, abs=1e-3)  # the mean of 4 and 0
    distance = (head.posed(wanted) - head.posed(replace(found, rotation=wanted.rotation)))[0].norm(dim=-1)
    assert error.lids_mm == pytest.approx(1000 * float(distance[regions["eyelids"]].mean()), rel=1e-4)
    assert error.lips_mm == pytest.approx(1000 * float(distance[regions["lips"]].mean()), rel=1e-4)
    assert error.lids_mm > 0.5 and error.lips_mm > 2
    unnamed = expression_error(head, wanted, found, {})
    assert unnamed.lips_mm is None and unnamed.lids_mm is None and unnamed.jaw_degrees == error.jaw_degrees


def face(given: FlamePose, size: int = 32) -> torch.Tensor:
    """A drawing that moves with the pose: a mouth that opens with the jaw, two eyes that follow the gaze, a lid that shuts."""
    y, x = torch.meshgrid(torch.arange(size) + 0.5, torch.arange(size) + 0.5, indexing="ij")

    def spot(cx, cy, rx, ry):  # type: ignore[no-untyped-def]
        return torch.exp(-(((x - cx) / rx) ** 2) - ((y - cy) / ry) ** 2)

    jaw, gaze = given.jaw_pose[0, 0], given.eyes_pose[0]
    image = 0.9 - 0.6 * spot(16, 24, 6, 1.5 + 6 * jaw) - 0.15 * spot(16, 16, 12, 14)
    for eye, cx in enumerate((10.0, 22.0)):
        image = image - 0.4 * (1 - given.expr[0, 0]) * spot(
            cx + 10 * gaze[3 * eye + 1], 11 + 10 * gaze[3 * eye], 2, 2
        )
    return image[..., None].expand(size, size, 3)


@pytest.mark.parametrize(
    "recolour", [lambda i: i, lambda i: 1 - i, lambda i: 0.2 + 0.4 * i * i], ids=["same", "negative", "dark"]
)
def test_a_pose_is_found_whatever_the_colours(recolour) -> None:  # type: ignore[no-untyped-def]
    truth = pose(1, jaw_pose=[0.3, 0.0, 0.0], eyes_pose=[0.1, -0.15, 0.0, 0.1, -0.15, 0.0])
    start = pose(1, jaw_pose=[0.05, 0.0, 0.0])
    options = FitOptions(steps=80, rate=0.03, prior=0.0)
    where = torch.ones(32, 32)
    found = fit_expression(face, recolour(face(truth)).detach(), truth, [start], where, options)
    assert float(found.jaw_pose[0, 0]) == pytest.approx(0.3, abs=0.03)
    np.testing.assert_allclose(found.eyes_pose[0, [0, 1, 3, 4]], [0.1, -0.15, 0.1, -0.15], atol=0.03)


def test_the_best_of_several_starts_counts() -> None:
    truth = pose(1, jaw_pose=[0.3, 0.0, 0.0])
    picture, where = face(truth).detach(), torch.ones(32, 32)
    options = FitOptions(steps=1, rate=1e-4)
    starts = [pose(1), pose(1, jaw_pose=[0.3, 0.0, 0.0])]
    found = fit_expression(face, picture, truth, starts, where, options)
    assert float(found.jaw_pose[0, 0]) == pytest.approx(0.3, abs=1e-3)


def test_a_flat_patch_matches_flat_ones_alone() -> None:
    flat, where = torch.full((32, 32, 3), 0.5), torch.ones(32, 32)
    textured = torch.rand((32, 32, 3), generator=torch.Generator().manual_seed(0))
    assert float(structure_loss(flat, flat + 0.2, where, 9)) == pytest.approx(0, abs=1e-3)
    assert float(structure_loss(flat, textured, where, 9)) > 0.9
    assert float(structure_loss(textured, flat, where, 9)) > 0.9


def test_structure_is_blind_to_affine_changes_of_colour_and_to_what_has_no_weight() -> None:
    a, where = face(pose(1, jaw_pose=[0.3, 0.0, 0.0])), torch.ones(32, 32)
    b = face(pose(1))
    assert float(structure_loss(a, 0.3 * a + 0.5, where, 9)) < float(structure_loss(a, b, where, 9)) - 0.02
    upper = where.clone()
    upper[14:] = 0  # the mouth is in the lower half
    assert float(structure_loss(a, b, upper, 9)) == pytest.approx(
        float(structure_loss(a, a, upper, 9)), abs=2e-2
    )
