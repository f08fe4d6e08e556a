"""`keep auto`: eyes and mouth are kept where an edit leaves their pattern of light and dark, whatever stains them."""

from __future__ import annotations

import numpy as np
import pytest

from edit3dgs_ns.editing.masks.keep_auto import AutoKeep, Pattern, pattern_left, speaks_of_them


def eye(noise: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A face with an eye, and where it is."""
    rows, columns = np.mgrid[:64, :64]
    inside = np.hypot((columns - 32) / 14, (rows - 32) / 7) < 1
    iris = np.hypot(columns - 32, rows - 32) < 5
    image = np.full((64, 64, 3), (0.8, 0.6, 0.5))
    image[inside] = 0.9
    image[iris] = (0.2, 0.25, 0.3)
    image += np.random.default_rng(noise).normal(0, 0.01, image.shape)
    return image.clip(0, 1).astype(np.float32), inside.astype(np.float32)


STAIN = np.array([0.7, 0.95, 0.7], np.float32)
BRONZE = np.array([0.5, 0.35, 0.15], np.float32)


def test_a_stain_leaves_the_pattern_and_metal_does_not():
    image, mask = eye()
    stained = image * STAIN
    statue = np.where(mask[..., None] > 0, BRONZE + 0.2 * (image - 0.6), image * BRONZE).astype(np.float32)
    same, left, gone = (
        pattern_left(image[None], edit[None], mask[None]) for edit in (image, stained, statue)
    )
    assert same == Pattern(pytest.approx(1.0), pytest.approx(1.0))
    assert left is not None and left.is_kept and left.slope == pytest.approx(STAIN.mean(), abs=0.03)
    assert gone is not None and not gone.is_kept and gone.slope == pytest.approx(0.2, abs=0.03)


def test_another_pattern_as_strong_as_the_old_one_is_not_kept():
    image, mask = eye()
    turned = np.roll(image, 9, axis=1)
    found = pattern_left(image[None], turned[None], mask[None])
    assert found is not None and not found.is_kept


def test_most_views_decide_and_views_without_eyes_say_nothing():
    views = [eye(number) for number in range(5)]
    images, masks = (np.stack(part) for part in zip(*views, strict=True))
    edits = images * STAIN
    edits[0] = 0.5
    masks[4] = 0.0
    found = pattern_left(images, edits, masks)
    assert found is not None and found.is_kept
    assert pattern_left(images, edits, 0 * masks) is None


@pytest.mark.parametrize(
    ("prompt", "speaks"),
    [
        ("Give him blue eyes", True),
        ("Make her smile.", True),
        ("Golden TEETH", True),
        ("Turn him into a bronze statue", False),
        ("Make him look older", False),
        ("Paint his lips red and thicken his eyebrows", True),  # on the safe side
        ("Give him blond hair", False),
        ("Make her look happy", True),
        ("Let him look surprised", True),
        ("Make the person angry", True),
        ("Raise his brows", True),
        ("Give her green brows", False),
    ],
)
def test_prompts_that_speak_of_eyes_or_mouth(prompt, speaks):
    assert speaks_of_them(prompt) is speaks


class Fixed:
    """Masks of one value."""

    def __init__(self, value):
        self._value = value

    def settings(self):
        return {"value": self._value}

    def masks(self, images, view_ids):
        return None if self._value is None else np.full(images.shape[:3], self._value, np.float32)


def test_masks_follow_the_decision_and_early_edits_get_their_originals_back():
    keep = AutoKeep(Fixed(None), Fixed(1.0), Fixed(0.25))
    images, edits = np.zeros((2, 8, 8, 3), np.float32), np.ones((2, 8, 8, 3), np.float32)
    assert keep.masks(images, (0, 1)) is None
    keep.kept = False
    assert keep.masks(images, (0, 1)) is None
    keep.kept = True
    assert (keep.masks(images, (0, 1)) == 1.0).all()
    np.testing.assert_allclose(keep.put_back(images, edits, (0, 1)), 0.75)
    assert keep.settings() == {"auto": {"value": 1.0}}
