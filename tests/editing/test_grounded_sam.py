"""Masks from words: what is asked for, what is kept on disk, what is said, and what is refused before long work."""

from __future__ import annotations

import json

import numpy as np
import pytest

from edit3dgs_ns.editing.masks import grounded_sam_cache as cache_module
from edit3dgs_ns.editing.masks.grounded_sam import GroundedSamMasks, asked_for, load_grounded_sam
from edit3dgs_ns.editing.masks.grounded_sam_cache import Box, Found, MaskCache, default_folder
from edit3dgs_ns.editing.masks.grounded_sam_options import GroundedSamOptions
from edit3dgs_ns.editing.masks.regions import KeepMasks

SIZE = 24


class ColourDetector:
    """Stands in for Grounding DINO: "red", "green" and "blue" things are where a channel is above a half."""

    def __init__(self, threshold: float = 0.3):
        self.settings = {"detector": "colours", "box_threshold": threshold}
        self.seen: list[int] = []

    def check(self, phrases):
        if any("colourless" in phrase for phrase in phrases):
            raise ValueError("'colourless' has no word")

    def detect(self, images, phrases):
        self.seen.append(len(images))
        return [
            tuple(
                Box(tuple(map(float, (x.min(), y.min(), x.max() + 1, y.max() + 1))), 0.5, (phrase,))
                for phrase in phrases
                for y, x in [np.nonzero(image[..., ("red", "green", "blue").index(phrase.split()[-1])] > 127)]
                if len(x)
            )
            for image in images
        ]


class Fills:
    """Stands in for SAM 2: a mask is its box."""

    def __init__(self):
        self.settings = {"segmenter": "fills"}

    def segment(self, images, boxes):
        masks = np.zeros((len(images), *images.shape[1:3]), bool)
        for mask, of_view in zip(masks, boxes, strict=True):
            assert of_view, "a view without boxes is not segmented"
            for left, top, right, bottom in (map(int, box.corners) for box in of_view):
                mask[top:bottom, left:right] = True
        return list(masks)


def _views() -> np.ndarray:
    """Four views: a red patch, a green one, both, nothing."""
    views = np.zeros((4, SIZE, SIZE, 3), np.float32)
    views[[0, 2], 2:6, 3:9, 0] = 1
    views[[1, 2], 10:20, 12:14, 1] = 0.8
    views[:, 0, 0, 2] = np.arange(4) / 10
    return views


def _source(folder, detector=None, **options):
    return GroundedSamMasks(detector or ColourDetector(), Fills(), folder, **options)


def test_masks_are_those_of_the_phrases_and_none_where_nothing_is_found(tmp_path):
    masks = _source(tmp_path).masks(_views(), [7, 8, 9, 10], ["red", "green"])
    patch, bar = np.zeros((2, SIZE, SIZE), np.float32)
    patch[2:6, 3:9], bar[10:20, 12:14] = 1, 1
    for mask, expected in zip(masks, (patch, bar, patch + bar), strict=False):
        assert mask.dtype == np.float32
        np.testing.assert_array_equal(mask, expected)
    assert masks[3] is None


def test_no_image_is_searched_twice_whatever_its_number_and_the_run(tmp_path):
    first = ColourDetector()
    masks = _source(tmp_path, first, views_per_forward=3).masks(_views(), range(4), ["red"])
    assert first.seen == [3, 1], "in parts of three"
    again = ColourDetector()
    source = _source(tmp_path, again)
    for order in ([3, 2, 1, 0], [2, 2]):
        for place, mask in zip(order, source.masks(_views()[order], order, ["red"]), strict=True):
            assert (mask is None) == (masks[place] is None)
            assert mask is None or (mask == masks[place]).all()
    assert again.seen == [], "what was not found is remembered too"
    changed = _views()[:1] * 0.9
    source.masks(changed, [0], ["red"])
    assert again.seen == [1]


def test_the_same_image_twice_in_a_batch_is_searched_once(tmp_path):
    detector = ColourDetector()
    _source(tmp_path, detector).masks(_views()[[0, 0, 0]], [0, 1, 2], ["red"])
    assert detector.seen == [1]


def test_other_words_weights_or_thresholds_are_another_search(tmp_path):
    _source(tmp_path).masks(_views(), range(4), ["red"])
    for phrases, detector in ((["green"], ColourDetector()), (["red"], ColourDetector(0.4))):
        _source(tmp_path, detector).masks(_views(), range(4), phrases)
        assert detector.seen == [4]
    settings = [json.loads(path.read_text()) for path in tmp_path.glob("*/settings.json")]
    assert len(settings) == 3
    assert {entry["box_threshold"] for entry in settings} == {0.3, 0.4}
    assert all(
        entry["segmenter"] == "fills" and entry["phrases"] in (["red"], ["green"]) for entry in settings
    )


def test_what_was_found_survives_a_run_that_is_broken_off(tmp_path):
    class Breaks(ColourDetector):
        def detect(self, images, phrases):
            if self.seen:
                raise KeyboardInterrupt
            return super().detect(images, phrases)

    with pytest.raises(KeyboardInterrupt):
        _source(tmp_path, Breaks(), views_per_forward=2).masks(_views(), range(4), ["red"])
    rest = ColourDetector()
    _source(tmp_path, rest).masks(_views(), range(4), ["red"])
    assert rest.seen == [2]


@pytest.mark.parametrize("damage", ["cut off", "no picture", "no boxes", "another size"])
def test_a_damaged_file_is_made_again(tmp_path, damage, caplog):
    cache = MaskCache(tmp_path, {"a": 1})
    image = (_views()[0] * 255).astype(np.uint8)
    found = Found(image[..., 0] > 0, (Box((1.5, 2.0, 3.0, 4.0), 0.5, ("red",)),))
    cache.put(image, found)
    assert cache.get(image).boxes == found.boxes and (cache.get(image).mask == found.mask).all()
    path = next(cache.folder.glob("*.png"))
    if damage == "cut off":
        path.write_bytes(path.read_bytes()[:-40])
    elif damage == "no picture":
        path.write_text("nothing")
    elif damage == "no boxes":
        cache_module.Image.fromarray(found.mask).save(path)
    else:
        cache.put(image, Found(found.mask[:5], found.boxes))
    assert cache.get(image) is None
    assert path.name in caplog.text and "will be made again" in caplog.text
    cache.put(image, found)
    assert cache.get(image) is not None


def test_the_cache_is_where_the_user_keeps_caches(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_folder() == tmp_path / "edit3dgs" / "masks"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/home/someone")
    assert str(default_folder()) == "/home/someone/.cache/edit3dgs/masks"


def test_names_of_the_rig_become_words_and_other_words_stay():
    assert asked_for(["eyes", "scalp", "hair", "teeth_upper", "bust_cap", "red hat"]) == (
        "the eyes",
        "the hair",
        "the upper teeth",
        "bust cap",
        "red hat",
    )


def test_a_view_without_the_thing_is_edited_whole_and_that_is_said_once(tmp_path, caplog):
    keep = KeepMasks(_source(tmp_path), ["red"], name="grounded-sam")
    for _ in range(2):
        masks = keep.masks(_views(), range(4))
    assert [mask.any() for mask in masks] == [True, False, True, False]
    assert caplog.text.count("Not found in view 1: red") == 1 and "view 3" not in caplog.text
    assert keep.settings()["segmenter"] == "fills", "other weights are another edit"


def test_that_one_of_two_phrases_is_missing_is_said_once(tmp_path, caplog):
    source = _source(tmp_path)
    for _ in range(2):
        source.masks(_views(), range(4), ["red", "green"])
    assert caplog.text.count("'green' was not found in view 0, only red") == 1
    assert caplog.text.count("'red' was not found in view 1, only green") == 1


def test_phrases_that_cannot_be_looked_for_are_refused(tmp_path):
    _source(tmp_path).check([])
    with pytest.raises(ValueError, match="colourless"):
        _source(tmp_path).check(["colourless"])


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("box_threshold", 0.0, r"grounded-sam.box-threshold 0.0: expected a number between 0 and 1"),
        ("text_threshold", 1.5, r"grounded-sam.text-threshold 1.5"),
        ("views_per_forward", 0, r"grounded-sam.views-per-forward 0: expected at least 1"),
        ("resolution", 3, r"grounded-sam.resolution 3: expected at least 32"),
    ],
)
def test_numbers_out_of_range_are_refused_before_anything_is_read(option, value, message):
    with pytest.raises(ValueError, match=message):
        load_grounded_sam(GroundedSamOptions(**{option: value}))
