"""Named parts of the head, and what is kept of a view."""

from __future__ import annotations

import numpy as np
import pytest

from edit3dgs_ns.editing.masks.regions import KeepMasks, RigMasks, parse_parts

REGIONS = {
    "eyes": np.array([0, 1]),
    "eyelids": np.array([2]),
    "lips": np.array([3]),
    "teeth": np.array([6]),
    "scalp": np.array([4, 5]),
}
IMAGES = np.ones((2, 64, 64, 3), np.float32)


def _rig(drawn=None) -> RigMasks:
    """A rig of eight faces; every face is drawn as a block of its own, wider in view 9."""

    def draw(view, faces):
        mask = np.zeros((64, 64), np.float32)
        for face in np.flatnonzero(faces):
            mask[8 * face : 8 * face + 8, : 16 if view == 9 else 8] = 1
        return mask

    return RigMasks(REGIONS, 8, drawn or draw)


def test_a_part_is_all_of_its_regions_that_the_rig_has():
    rig = _rig()
    np.testing.assert_array_equal(np.flatnonzero(rig.faces(["eyes"])), [0, 1])
    np.testing.assert_array_equal(np.flatnonzero(rig.faces(["mouth"])), [6])
    np.testing.assert_array_equal(np.flatnonzero(rig.faces(["hair", "lips"])), [3, 4, 5])
    assert rig.names() == ["eyelids", "eyes", "hair", "lips", "mouth", "scalp", "teeth"]


def test_an_unknown_part_is_an_error_that_lists_the_known():
    with pytest.raises(ValueError, match=r"'beard'.*eyelids, eyes, hair, lips, mouth, scalp, teeth"):
        _rig().check(["eyes", "beard"])
    with pytest.raises(ValueError, match="FLAME_masks"):
        RigMasks({}, 8, lambda view, faces: None).check(["eyes"])


def test_the_open_head_has_all_parts_that_the_options_name():
    from edit3dgs_ns.flame.assets import OPEN_HEAD_PATH
    from edit3dgs_ns.flame.loading import load_assets

    assets = load_assets(OPEN_HEAD_PATH)
    rig = RigMasks(assets.face_regions, len(assets.faces), lambda view, faces: None)
    for part in ("eyes", "mouth", "hair"):
        assert rig.faces([part]).sum() > 500
    assert not (rig.faces(["eyes"]) & rig.faces(["mouth"])).any()


def test_masks_are_those_of_the_views():
    first, second = _rig().masks(IMAGES, [3, 9], ["lips"])
    assert first.sum() == 8 * 8 and second.sum() == 8 * 16 and first[24:32, :8].all()


def test_keep_covers_the_parts_and_only_keeps_the_rest():
    kept = KeepMasks(_rig(), ("lips",)).masks(IMAGES, [3, 9])
    assert kept.shape == (2, 64, 64) and kept.sum() == 8 * 8 + 8 * 16
    local = KeepMasks(_rig(), (), ("hair",)).masks(IMAGES, [3, 9])
    assert (local[0, 32:48, :8] == 0).all() and (local[0, :28] == 1).all()
    # The edit may reach one of 64 latent pixels beyond the hair, and no farther.
    assert (local[0, 31:49, :9] == 0).all() and (local[0, 50:] == 1).all() and (local[0, :, 10:] == 1).all()
    both = KeepMasks(_rig(), ("lips",), ("hair", "mouth")).masks(IMAGES, [3, 9])
    assert (both[0, 24:32, :8] == 1).all() and (both[0, 34:46, :8] == 0).all()


def test_nothing_to_keep_is_no_mask():
    assert KeepMasks(_rig(), ()).masks(IMAGES, [3, 9]) is None


class _Blind:
    """Finds the part in view 3 only."""

    def settings(self):
        return {"blind": True}

    def check(self, phrases):
        pass

    def masks(self, images, view_ids, phrases):
        return [np.ones((64, 64), np.float32) if view == 3 else None for view in view_ids]


def test_a_view_without_the_part_is_edited_without_retention_and_that_is_said_once(caplog):
    keep = KeepMasks(_Blind(), ("hat",))
    for _ in range(2):
        first, second = keep.masks(IMAGES, [3, 4])
        assert first.all() and not second.any()
    assert caplog.text.count("Not found in view 4: hat") == 1
    assert KeepMasks(_Blind(), (), ("hat",)).masks(IMAGES, [3, 4])[1].all(), "nothing to edit: all is kept"


def test_settings_name_all_that_decides_the_masks():
    keep = KeepMasks(_Blind(), ("hat",), name="blind")
    assert keep.settings() == {"blind": True, "masks": "blind", "keep": ["hat"], "only": []}
    assert KeepMasks(_Blind(), ()).settings() is None


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("eyes,mouth", ("eyes", "mouth")),
        ("the eyes. the mouth.", ("the eyes", "the mouth")),
        (" Eyes , mouth,,eyes", ("eyes", "mouth")),
        ("none", ()),
        ("", ()),
    ],
)
def test_lists_of_parts(text, parts):
    assert parse_parts(text) == parts
