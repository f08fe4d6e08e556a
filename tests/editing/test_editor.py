"""Requests and results: checked when made, and fit to travel."""

import dataclasses
import pickle

import numpy as np
import pytest

from edit3dgs_ns.editing.editor import EditResult, KeepOptions


def test_request_and_result_survive_pickling(make_request):
    request = make_request(views=2, c2w=np.tile(np.eye(4, dtype=np.float32), (2, 1, 1)), timesteps=(3, 5))
    copy = pickle.loads(pickle.dumps(request))
    for field in dataclasses.fields(request):
        np.testing.assert_equal(getattr(copy, field.name), getattr(request, field.name))
    result = EditResult(images=request.images, settings={"steps": 3}, unet_evaluations=6, seconds=1.5)
    assert pickle.loads(pickle.dumps(result)).settings == {"steps": 3}


def test_request_holds_only_arrays_and_plain_values(make_request):
    plain = (str, int, float, bool, tuple, np.ndarray, type(None))
    request = make_request()
    values = {field.name: getattr(request, field.name) for field in dataclasses.fields(request)}
    values |= vars(values.pop("keep_options"))
    assert all(isinstance(value, plain) for value in values.values())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"prompt": "  "}, "prompt is empty"),
        ({"images": np.zeros((3, 32, 32, 3), dtype=np.uint8)}, "float32"),
        ({"images": np.zeros((32, 32, 3), dtype=np.float32)}, "images"),
        ({"images": np.zeros((2, 32, 32, 3), dtype=np.float32)}, "differ in shape"),
        ({"originals": np.full((3, 32, 32, 3), 255, dtype=np.float32)}, "0, 1"),
        ({"originals": np.full((3, 32, 32, 3), np.nan, dtype=np.float32)}, "0, 1"),
        ({"c2w": np.zeros((3, 3, 4), dtype=np.float32)}, "c2w"),
        ({"K": np.zeros((2, 3, 3), dtype=np.float32)}, "K has shape"),
        ({"view_ids": (1, 1, 2)}, "view_ids"),
        ({"timesteps": (1, 2)}, "timesteps"),
        ({"canonical": np.zeros((3, 16, 16, 3), dtype=np.float32)}, "canonical has shape"),
        ({"keep_mask": np.zeros((3, 16, 16), dtype=np.float32)}, "keep_mask has shape"),
        ({"keep_mask": np.full((3, 32, 32), 2, dtype=np.float32)}, "keep_mask: expected values"),
        ({"keep_mask": np.full((3, 32, 32), np.nan, dtype=np.float32)}, "keep_mask: expected values"),
        ({"keep_options": KeepOptions(keep_strength=1.5)}, "keep_strength"),
        ({"keep_options": KeepOptions(keep_from=0.8, keep_until=0.5)}, "keep_from"),
        ({"noise": 0.0}, "noise"),
        ({"noise": 1.5}, "noise"),
        ({"steps": 0}, "steps"),
        ({"guidance_scale": float("nan")}, "guidance_scale"),
        ({"image_guidance_scale": -1.0}, "image_guidance_scale"),
    ],
)
def test_a_wrong_request_is_refused_by_name(make_request, change, message):
    with pytest.raises(ValueError, match=message):
        make_request(**change)
