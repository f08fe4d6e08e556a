"""Edits of form: the geometry of what they add or take away, and how it moves with the head."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial import cKDTree
from scipy.spatial.distance import pdist

from edit3dgs_ns.synthetic.canonical import LABELS
from edit3dgs_ns.synthetic.edits import EDITS
from edit3dgs_ns.synthetic.form_edits import FORM_EDITS
from edit3dgs_ns.synthetic.motion import FACES, face
from edit3dgs_ns.synthetic.part import Part
from edit3dgs_ns.synthetic.replay import Replay
from edit3dgs_ns.synthetic.scene import Hits, Scene
from edit3dgs_ns.synthetic.true_edits import edited_person

SIZE = 72


def _scene(replay: Replay, edit: str | None, amounts: dict[str, float] | None = None, **pose) -> Scene:
    return Scene(edited_person(replay.identity, edit), face(replay.identity.head, amounts or {}, **pose))


def _front(replay: Replay, edit: str | None) -> Hits:
    camera = replay.cameras[8]
    K = camera.K * np.array([[SIZE / camera.width], [SIZE / camera.height], [1.0]])
    return _scene(replay, edit).trace(camera.c2w, K, SIZE, SIZE, 4)


def _laugh() -> dict[str, float]:
    return {name: amount for name, amount in FACES["laugh"].items() if name != "jaw"}


@pytest.fixture(scope="module")
def plain(replay: Replay) -> Hits:
    return _front(replay, None)


@pytest.fixture(scope="module")
def edited(replay: Replay) -> dict[str, Hits]:
    """The person from the front after every edit of form."""
    return {edit: _front(replay, edit) for edit in FORM_EDITS}


def _parts(scene: Scene, label: str) -> tuple[list[Part], np.ndarray]:
    """The parts of a label, and their vertices in the world."""
    parts = [part for part in scene.baked.parts if part.label == label]
    return parts, np.concatenate([scene.motion.of_part(part)[0] for part in parts])


@pytest.mark.parametrize(
    ("edit", "label"),
    [
        ("short_beard", "beard"),
        ("full_beard", "beard"),
        ("glasses", "glasses"),
        ("dark_glasses", "glasses"),
        ("knitted_hat", "hat"),
    ],
)
def test_a_part_lies_before_the_head_and_nothing_else_changes(
    plain: Hits, edited: dict[str, Hits], edit: str, label: str
) -> None:
    """Where the part covers a pixel it is nearer than what was there, if anything was, by a few centimetres at most."""
    after = edited[edit]
    part = (after.labels == LABELS[label]) & (after.new_parts > 0.99)
    assert part.sum() > 5
    # A hat presses the hair, which may leave its place; the face does not.
    gain = (plain.depth - after.depth)[part & (plain.mask == 1.0) & (plain.labels != LABELS["hair"])]
    assert gain.min() > -1e-4 and np.median(gain) > 0.0005 and gain.max() < 0.09
    face_parts = np.isin(plain.labels, [LABELS[name] for name in ("eyes", "iris", "nose", "lips")])
    own = face_parts & (after.new_parts == 0.0)
    assert own.sum() > 20
    np.testing.assert_allclose(after.depth[own], plain.depth[own], atol=1e-5)


def test_the_mask_and_the_depth_end_where_the_person_ends(edited: dict[str, Hits]) -> None:
    for edit, hits in edited.items():
        assert np.array_equal(np.isnan(hits.depth), hits.mask == 0.0), edit
        assert (hits.new_parts <= hits.mask + 1e-6).all() and hits.new_parts.max() > 0.5, edit
        assert np.nanmin(hits.depth) > 0.7 and np.nanmax(hits.depth) < 1.4, edit
        image = hits.shade(hits.scene.identity.appearance).rgb
        assert (image[hits.mask == 0.0] == 1.0).all() and image.min() >= 0.0, edit


def test_edits_of_colours_have_no_new_parts(replay: Replay, plain: Hits) -> None:
    assert not plain.new_parts.any()
    assert edited_person(replay.identity, "older").baked is replay.identity.baked


def test_a_bald_head_lies_inside_the_old_outline(plain: Hits, edited: dict[str, Hits]) -> None:
    bald = edited["bald"]
    assert (bald.mask <= plain.mask + 0.26).all() and bald.mask.sum() < 0.97 * plain.mask.sum()
    assert not (bald.labels == LABELS["hair"]).any()
    was_hair = (plain.labels == LABELS["hair"]) & (bald.labels == LABELS["skin"])
    assert was_hair.sum() > 50 and bald.new_parts[was_hair & (bald.mask == 1.0)].mean() > 0.9


def test_long_hair_falls_onto_the_shoulders_and_leaves_the_face(plain: Hits, edited: dict[str, Hits]) -> None:
    long = edited["long_hair"]
    face_ = np.isin(plain.labels, [LABELS[name] for name in ("eyes", "iris", "nose", "lips", "brows")])
    assert (long.labels[face_] != LABELS["hair"]).mean() > 0.95
    assert ((long.labels == LABELS["hair"]) & (plain.labels == LABELS["clothes"])).sum() > 10
    lowest = edited["long_hair"].scene.vertices[len(long.scene.head_vertices) :, 1].min()
    assert lowest < long.scene.head_vertices[:, 1].min() + 0.06


def test_long_hair_stays_on_shoulders_when_the_head_turns(replay: Replay) -> None:
    """Its lower ends move as little as the chest does, its roots as much as the skull."""
    still, turned = _scene(replay, "long_hair"), _scene(replay, "long_hair", neck=(0.0, 0.3, 0.0))
    hair = slice(len(still.head_vertices), None)
    way = np.linalg.norm(turned.vertices[hair] - still.vertices[hair], axis=1)
    resting = still.baked.hair.resting
    assert resting is not None
    assert way[resting == 1.0].max() < 0.002 < 0.01 < way[(resting == 0.0)].mean()


def test_glasses_keep_their_shape_and_their_place_on_the_skull(replay: Replay) -> None:
    """Whatever jaw and face do: distances among their points, and to the skull, stay."""
    still = _scene(replay, "glasses")
    moved = _scene(replay, "glasses", _laugh(), jaw=0.3, neck=(0.1, 0.2, 0.0))
    skull = still.baked.head.skull_vertices[::20]
    distances = []
    for scene in (still, moved):
        points = np.concatenate([_parts(scene, "glasses")[1][::97], scene.head_vertices[skull]])
        distances.append(pdist(points))
    np.testing.assert_allclose(distances[0], distances[1], atol=3e-4)


def test_glasses_touch_neither_brows_nor_cheeks_and_reach_the_ears(replay: Replay) -> None:
    for name in ("smile", "anger", "surprise"):
        amounts = dict(FACES[name])
        scene = _scene(replay, "glasses", amounts, jaw=amounts.pop("jaw", 0.0))
        _, points = _parts(scene, "glasses")
        regions = scene.baked.head.assets.vertex_regions
        front = points[points[:, 2] > points[:, 2].max() - 0.012]
        face_skin = np.setdiff1d(np.intersect1d(regions["skin"], regions["face"]), regions["nose"])
        assert cKDTree(front).query(scene.head_vertices[face_skin])[0].min() > 0.0006, name
        ears = scene.head_vertices[regions["ears"]]
        assert cKDTree(points).query(ears)[0].min() < 0.004


@pytest.mark.parametrize("edit", ["short_beard", "full_beard"])
def test_a_beard_moves_with_the_jaw(replay: Replay, edit: str) -> None:
    """Locks keep their distance to the skin they grow from, and those of the chin go down as far as the chin does."""
    still, opened = _scene(replay, edit), _scene(replay, edit, jaw=0.3)
    (part,), before = _parts(still, "beard")
    after = _parts(opened, "beard")[1]
    assert part.anchor is not None
    way = []
    for scene, points in ((still, before), (opened, after)):
        place = (scene.head_vertices[part.anchor.corners] * part.anchor.weights[..., None]).sum(1)
        way.append((np.linalg.norm(points - place, axis=1), place))
    joint = np.array([0.0, 0.002, -0.031])
    (rest_length, rest_place), (length, place) = way
    assert (length <= rest_length + 1e-4).all() and (length > 0.9 * rest_length - 1e-4).all()
    chin = part.vertices[:, 1] < -0.07
    assert (
        (np.linalg.norm(after - before, axis=1)[chin]).mean()
        > 0.7 * 0.3 * np.linalg.norm(rest_place[chin] - joint, axis=1).mean()
    )
    assert np.abs(place - rest_place).max() > 0.015


def test_a_beard_leaves_the_lips_free(plain: Hits, edited: dict[str, Hits]) -> None:
    lips = plain.labels == LABELS["lips"]
    for edit in ("short_beard", "full_beard"):
        assert (edited[edit].labels[lips] == LABELS["lips"]).mean() > 0.7, edit


def test_a_hat_hides_the_scalp_and_nothing_sticks_through_it(replay: Replay) -> None:
    """Seen from outside along the skull's normals, the hat comes first on the whole crown."""
    scene = _scene(replay, "knitted_hat")
    rest = scene.baked.rest
    crown = scene.baked.head.skull_vertices
    crown = crown[rest[crown, 1] > 0.10]
    centre = rest[scene.baked.head.skull_vertices].mean(axis=0)
    outward = rest[crown] - centre
    outward /= np.linalg.norm(outward, axis=1, keepdims=True)
    world = scene.motion.skull.R
    origin = (scene.motion.skull(rest[crown]) + 0.2 * outward @ world.T).astype(np.float32)
    hit = scene._intersector.run(origin, (-outward @ world.T).astype(np.float32), output=1)
    labels = scene.baked.face_label[hit["primID"]]
    assert (labels == LABELS["hat"]).all()
    assert (hit["tfar"] < 0.2).all()


@pytest.mark.parametrize(
    ("edit", "region", "least"), [("bigger_nose", "nose", 0.010), ("elf_ears", "ears", 0.02)]
)
def test_new_shapes_follow_expressions(replay: Replay, edit: str, region: str, least: float) -> None:
    """The rest of the head stays as it was, and the moved vertices keep their offset under any expression."""
    still = _scene(replay, edit).baked
    offset = still.rest - replay.identity.baked.rest
    size = np.linalg.norm(offset, axis=1)
    regions = still.head.assets.vertex_regions
    assert size[regions[region]].max() > least
    assert size[np.setdiff1d(np.arange(len(size)), regions["skin"])].max() == 0.0
    assert size[regions["lips"]].max() < 0.001
    smiling = _scene(replay, edit, _laugh()).head_vertices
    own = _scene(replay, None, _laugh()).head_vertices
    np.testing.assert_allclose(smiling - own, offset, atol=2e-3)


def test_age_thins_lips_bares_the_forehead_and_follows_expressions(
    replay: Replay, plain: Hits, edited: dict[str, Hits]
) -> None:
    """Nothing but skin, lips and what they carry moves, by a centimetre at most, and speech and smiles move it as before."""
    aged = edited["aged"]
    for label, most in (("lips", 0.85), ("hair", 0.95)):
        assert (aged.labels == LABELS[label]).sum() < most * (plain.labels == LABELS[label]).sum(), label
    still = aged.scene.baked
    offset = still.rest - replay.identity.baked.rest
    assert 0.004 < np.linalg.norm(offset, axis=1).max() < 0.02
    laughing = _scene(replay, "aged", _laugh(), jaw=0.2).head_vertices
    own = _scene(replay, None, _laugh(), jaw=0.2).head_vertices
    np.testing.assert_allclose(laughing - own, offset, atol=6e-3)
    # Old skin has a relief of its own, whatever the colours: without wrinkles it is smooth.
    look = aged.scene.identity.appearance
    creased, smooth = aged.shade(look).rgb, aged.shade(replace(look, wrinkles=0.0)).rgb
    assert 0.004 < np.abs(creased - smooth)[aged.labels == LABELS["skin"]].mean() < 0.1


def test_every_edit_of_form_has_many_wordings_of_its_own() -> None:
    words = [w.lower() for edit in (*FORM_EDITS.values(), *EDITS.values()) for w in edit.instructions]
    assert len(FORM_EDITS) >= 8 and len(set(words)) >= len(words) - 2
    for edit in FORM_EDITS.values():
        assert len(edit.instructions) >= 8
        text = " ".join(edit.instructions)
        assert all(word in text for word in ("him", "her", "them"))


def test_pictures_before_and_after_edits_of_colours_stay_what_they_were(replay: Replay, plain: Hits) -> None:
    """Mean colours of the left and the right half, as rendered before there were edits of form: trained editors and
    captures on disk depend on them.
    """
    own = replay.identity.appearance
    known = {
        None: [[0.8264, 0.7545, 0.7337], [0.8203, 0.7488, 0.7302]],
        "older": [[0.864, 0.7985, 0.7737], [0.8494, 0.7852, 0.763]],
        "green_skin": [[0.7264, 0.7538, 0.6703], [0.7226, 0.748, 0.669]],
        "blond_hair": [[0.8932, 0.8114, 0.7627], [0.8799, 0.7974, 0.755]],
        "red_lips": [[0.8246, 0.7496, 0.7305], [0.8186, 0.7438, 0.7269]],
        "bronze_statue": [[0.8487, 0.7553, 0.6684], [0.8262, 0.742, 0.6639]],
        "pale_vampire": [[0.8161, 0.7741, 0.7761], [0.8106, 0.7682, 0.7717]],
    }
    for edit, colors in known.items():
        image = plain.shade(own if edit is None else EDITS[edit].apply(own)).rgb
        halves = image.reshape(SIZE, 2, SIZE // 2, 3).mean(axis=(0, 2))
        np.testing.assert_allclose(halves, colors, atol=1e-3, err_msg=str(edit))
