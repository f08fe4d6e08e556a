"""What the pictures show, against the geometry they were made from."""

from __future__ import annotations

import dataclasses
from collections import Counter

import numpy as np
import pytest
from scipy.ndimage import binary_erosion, binary_opening

from edit3dgs_ns.capture.cameras import intrinsics, look_at, project
from edit3dgs_ns.synthetic.appearance import Light
from edit3dgs_ns.synthetic.canonical import LABELS
from edit3dgs_ns.synthetic.edits import EDITS, OPEN_EDITS, edited
from edit3dgs_ns.synthetic.motion import FACES, SEQUENCES, act, face
from edit3dgs_ns.synthetic.named_colors import NAMED_COLORS
from edit3dgs_ns.synthetic.replay import Replay
from edit3dgs_ns.synthetic.sampling import random_camera, random_light, random_scene
from edit3dgs_ns.synthetic.scene import Hits, Scene
from edit3dgs_ns.synthetic.true_edits import TRUE_EDITS

FRONT = 8


def _front(replay: Replay, name: str | None = None, **options) -> Hits:
    amounts = dict(FACES[name]) if name else {}
    jaw = amounts.pop("jaw", 0.0)
    scene = Scene(replay.identity, face(replay.identity.head, amounts, jaw=jaw, **options))
    camera = replay.cameras[FRONT]
    return scene.trace(camera.c2w, camera.K, camera.width, camera.height, 4)


@pytest.fixture(scope="module")
def neutral(replay: Replay) -> Hits:
    return _front(replay)


def _area(hits: Hits, *names: str) -> int:
    return int(np.isin(hits.labels, [LABELS[name] for name in names]).sum())


def test_projection_agrees_with_the_rays(neutral: Hits) -> None:
    """Vertices projected by K and c2w land on the mask, and their bounding box is the mask's."""
    vertices = neutral.scene.vertices
    pixels, depth = project(vertices, neutral.camera)
    assert depth.min() > 0.5
    inside = ((pixels > 0) & (pixels < [neutral.camera.width, neutral.camera.height])).all(axis=1)
    column, row = np.floor(pixels[inside]).astype(int).T
    assert (neutral.mask[row, column] > 0).mean() > 0.995
    rows, columns = np.nonzero(neutral.mask > 0)
    seen = pixels[inside]
    assert abs(columns.min() - seen[:, 0].min()) < 1.5 and abs(columns.max() - seen[:, 0].max()) < 1.5
    assert abs(rows.min() - seen[:, 1].min()) < 1.5


def test_labels_lie_where_the_regions_are(neutral: Hits) -> None:
    """The nose's tip, the lips and both irises, projected, carry their own labels."""
    head, vertices = neutral.scene.baked.head, neutral.scene.head_vertices
    regions = head.assets.vertex_regions
    rest = head.assets.v_template
    nose = regions["nose"][rest[regions["nose"], 2].argmax()]
    points = {"nose": vertices[[nose]]}
    iris = regions["pupil"]
    for side in ("left", "right"):
        points[f"iris {side}"] = vertices[np.intersect1d(iris, regions[f"eye_{side}"])].mean(0, keepdims=True)
    for name, point in points.items():
        (x, y), _ = project(point, neutral.camera)[0][0], None
        assert neutral.labels[int(y), int(x)] == LABELS[name.split()[0]], name
    # The subject's left is on the right of a frontal picture.
    assert (
        project(points["iris left"], neutral.camera)[0][0, 0]
        > project(points["iris right"], neutral.camera)[0][0, 0]
    )


def test_a_face_has_all_its_parts(neutral: Hits) -> None:
    for name in ("skin", "hair", "brows", "eyes", "iris", "nose", "lips", "ears", "neck", "clothes"):
        assert _area(neutral, name) > 3, name


def test_lids_close(replay: Replay, neutral: Hits) -> None:
    assert _area(neutral, "eyes", "iris") > 20
    assert _area(_front(replay, "shut"), "eyes", "iris") <= 0.05 * _area(neutral, "eyes", "iris")


def test_teeth_show_when_the_jaw_opens(replay: Replay, neutral: Hits) -> None:
    assert _area(neutral, "teeth", "mouth", "tongue") <= 2
    opened = _front(replay, "open")
    assert _area(opened, "teeth") >= 5
    assert _area(opened, "mouth", "tongue", "teeth") >= 30


def test_gaze_moves_the_irises(replay: Replay) -> None:
    """Positive yaw looks to the subject's left: right in the picture."""

    def centre(yaw: float) -> float:
        labels = _front(replay, gaze=(0.0, yaw)).labels
        return float(np.nonzero(labels == LABELS["iris"])[1].mean())

    assert centre(0.25) > centre(-0.25) + 0.8


def test_background_is_exactly_white_under_every_edit(replay: Replay, neutral: Hits) -> None:
    before = replay.identity.appearance
    outside = neutral.mask == 0
    for name, edit in EDITS.items():
        after = neutral.shade(edit.apply(before))
        assert (after.rgb[outside] == 1.0).all(), name
        assert after.rgb.min() >= 0.0 and after.rgb.max() <= 1.0


def test_edits_keep_geometry(replay: Replay, neutral: Hits) -> None:
    before = neutral.shade(replay.identity.appearance)
    for edit in EDITS.values():
        after = neutral.shade(edit.apply(replay.identity.appearance))
        assert np.array_equal(before.mask, after.mask) and np.array_equal(before.labels, after.labels)


@pytest.mark.parametrize(
    ("name", "changed", "kept", "least"),
    [
        ("blond_hair", "hair", ("skin", "nose", "lips", "eyes", "iris", "clothes", "neck"), 0.2),
        ("green_skin", "skin", ("hair", "eyes", "iris", "clothes"), 0.15),
        ("red_lips", "lips", ("hair", "eyes", "iris", "clothes", "neck", "ears"), 0.1),
        ("older", "hair", ("clothes",), 0.1),
        ("pale_vampire", "skin", ("clothes",), 0.03),
    ],
)
def test_an_edit_changes_its_part_and_no_other(
    replay: Replay, neutral: Hits, name: str, changed: str, kept: tuple[str, ...], least: float
) -> None:
    before = neutral.shade(replay.identity.appearance)
    after = neutral.shade(EDITS[name].apply(replay.identity.appearance))
    difference = np.abs(after.rgb - before.rgb).max(axis=2)
    assert difference[before.labels == LABELS[changed]].mean() > least
    for part in kept:
        # Pixels at the border show a share of the neighbour.
        pure = binary_erosion(before.labels == LABELS[part], iterations=2)
        if part in ("eyes", "iris"):
            pure = before.labels == LABELS[part]
            assert np.median(difference[pure]) < 0.05, part
        elif pure.any():
            # The roots of the hair tint the skin below a thin parting: look at the bulk.
            assert np.quantile(difference[pure], 0.9) < 0.004, part


@pytest.mark.parametrize(
    ("key", "labels"),
    [
        ("hair_green", ("hair",)),
        ("brows_white", ("brows",)),
        ("eyes_blue", ("iris",)),
        ("lips_purple", ("lips",)),
        ("skin_blue", ("skin", "nose", "neck", "ears")),
        ("shirt_pink", ("clothes",)),
    ],
)
def test_a_named_colour_reaches_its_part_and_no_other(
    replay: Replay, neutral: Hits, key: str, labels: tuple[str, ...]
) -> None:
    stubbly = dataclasses.replace(replay.identity.appearance, beard=0.8)
    before, after = (neutral.shade(look) for look in (stubbly, NAMED_COLORS[key].apply(stubbly)))
    difference = np.abs(after.rgb - before.rgb).max(axis=2)
    named = np.isin(before.labels, [LABELS[label] for label in labels])
    assert difference[named].mean() > 0.1
    kept = binary_erosion(~named & (before.labels != LABELS["background"]), iterations=2)
    assert np.quantile(difference[kept], 0.9) < 0.004 and difference[kept].mean() < 0.02


def test_older_is_a_strong_change_on_the_head(replay: Replay, neutral: Hits) -> None:
    before = neutral.shade(replay.identity.appearance)
    after = neutral.shade(EDITS["older"].apply(replay.identity.appearance))
    assert np.abs(after.rgb - before.rgb)[before.mask > 0.5].mean() >= 0.05


def test_bronze_has_one_hue(replay: Replay, neutral: Hits) -> None:
    """Everything turns to metal, eyes and cloth too: red over green over blue wherever it is not in shade."""
    after = neutral.shade(EDITS["bronze_statue"].apply(replay.identity.appearance)).rgb
    full = after[(neutral.mask == 1.0)]
    assert ((full[:, 0] >= full[:, 1] - 0.02) & (full[:, 1] >= full[:, 2] - 0.02)).mean() > 0.97


def test_every_edit_has_many_distinct_wordings() -> None:
    words = [w for edit in EDITS.values() for w in edit.instructions]
    assert set(EDITS) == {"older", "green_skin", "blond_hair", "red_lips", "bronze_statue", "pale_vampire"}
    assert all(len(edit.instructions) >= 8 for edit in EDITS.values())
    assert len({w.lower() for w in words}) >= len(words) - 2


def test_no_wording_asks_for_two_true_edits() -> None:
    asked = Counter(w.lower() for edit in TRUE_EDITS.values() for w in {*edit.instructions})
    twice = {wording for wording, count in asked.items() if count > 1}
    assert twice <= {w.lower() for edit in EDITS.values() for w in edit.instructions}
    assert all(len(edit.instructions) >= 10 for edit in NAMED_COLORS.values())


def test_paint_sticks_to_the_moving_head(replay: Replay) -> None:
    """Turn the head and the camera together: the picture stays (the light turns too)."""
    front = replay.cameras[FRONT]
    turn = np.array([0.0, 0.3, 0.0])
    c, s = np.cos(0.3), np.sin(0.3)
    R = np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])
    head = replay.identity.head
    still = Scene(replay.identity, face(head, {}))
    moved = Scene(replay.identity, face(head, {}, rotation=turn))
    pivot = moved.world_from_rest_t
    np.testing.assert_allclose(moved.world_from_rest_R, R @ still.world_from_rest_R, atol=1e-4)
    c2w = front.c2w.copy()
    c2w[:3, :3] = R @ front.c2w[:3, :3]
    c2w[:3, 3] = R @ (front.c2w[:3, 3] - still.world_from_rest_t) + pivot
    light = Light()
    turned = Light(
        key_direction=tuple(R @ np.array(light.key_direction)),
        fill_direction=tuple(R @ np.array(light.fill_direction)),
    )
    a = still.trace(front.c2w, front.K, 96, 96, 4).shade(replay.identity.appearance, light)
    b = moved.trace(c2w, front.K, 96, 96, 4).shade(replay.identity.appearance, turned)
    assert np.abs(a.rgb - b.rgb).mean() < 0.004


@pytest.mark.parametrize(("count", "jaw_step", "neck_step"), [(240, 0.07, 0.02), (24, 0.28, 0.20)])
def test_motion_is_smooth(replay: Replay, count: int, jaw_step: float, neck_step: float) -> None:
    for plan in SEQUENCES:
        frames = act(replay.identity.head, plan, count, seed=5)
        expr, jaw, neck = (
            np.stack([getattr(f, name) for f in frames]) for name in ("expr", "jaw_pose", "neck_pose")
        )
        assert expr.min() >= 0.0 and expr.max() <= 1.0
        assert np.abs(np.diff(jaw, axis=0)).max() < jaw_step
        assert np.abs(np.diff(neck, axis=0)).max() < neck_step
        assert jaw[:, 0].max() > 0.08 and np.abs(neck).max() > 0.05


def test_the_held_out_sequence_has_expressions_of_its_own() -> None:
    seen = {name for plan in SEQUENCES[:-1] for name in plan.faces}
    assert set(SEQUENCES[-1].faces) - seen


def test_random_draws_repeat() -> None:
    def draw(seed: int):
        rng = np.random.default_rng(seed)
        scene, light = random_scene(rng), random_light(rng)
        camera = random_camera(rng, 40, 40)
        hits = scene.trace(camera.c2w, camera.K, 40, 40, 1)
        return hits.shade(scene.identity.appearance, light)

    a, b, other = draw(1), draw(1), draw(2)
    assert np.array_equal(a.rgb, b.rgb) and not np.array_equal(a.rgb, other.rgb)
    assert 0.15 < a.mask.mean() < 0.8


def test_a_camera_that_sees_nothing_gives_white(replay: Replay) -> None:
    c2w = look_at(np.array([0.0, 0.0, 1.0]), np.array([5.0, 0.0, 1.5]))
    hits = Scene(replay.identity, face(replay.identity.head, {})).trace(
        c2w, intrinsics(16, 16, 1.0, 0.3), 16, 16, 1
    )
    render = hits.shade(replay.identity.appearance)
    assert (render.rgb == 1.0).all() and not render.mask.any() and not render.labels.any()


def test_hair_is_a_volume_with_an_irregular_outline(neutral: Hits) -> None:
    """Hair stands off the skull, and its outline has strands that an opening removes."""
    offset = np.linalg.norm(neutral.scene.identity.static_offset, axis=1)
    assert offset.max() > 0.001 and (offset == 0).mean() > 0.5
    solid = neutral.mask > 0.5
    assert (solid & ~binary_opening(solid, np.ones((5, 5)))).sum() > 5


@pytest.mark.parametrize(
    ("name", "part", "kept"),
    [("bright_hair", "hair", "skin"), ("face_paint", "skin", "hair"), ("bright_statue", "hair", None)],
)
def test_an_open_edit_shows_the_hue_asked_for(
    replay: Replay, neutral: Hits, name: str, part: str, kept: str | None
) -> None:
    before = neutral.shade(replay.identity.appearance)
    bulk = binary_erosion(before.labels == LABELS[part], iterations=2)
    for channel, hue in enumerate((0.0, 1 / 3, 2 / 3)):
        after = neutral.shade(edited(replay.identity.appearance, name, hue)).rgb
        others = [c for c in range(3) if c != channel]
        assert (after[bulk][:, [channel]] > after[bulk][:, others] + 0.05).all(axis=1).mean() > 0.9
        if kept is not None:
            pure = binary_erosion(before.labels == LABELS[kept], iterations=2)
            assert np.quantile(np.abs(after - before.rgb)[pure], 0.9) < 0.004
    assert len(OPEN_EDITS[name].instructions) >= 6


def test_an_open_edit_needs_a_hue(replay: Replay) -> None:
    with pytest.raises(ValueError, match="give a hue"):
        edited(replay.identity.appearance, "face_paint")
    with pytest.raises(ValueError, match="'younger' is no edit of colours"):
        edited(replay.identity.appearance, "younger")
