"""When memory is short the work is parted, comes out the same, and says so once."""

import logging

import numpy as np
import pytest
import torch

from edit3dgs_ns.editing.diffusion.loading import load_editor
from edit3dgs_ns.editing.diffusion.memory import ForwardLimit
from tests.fake_correspondence import FakeCorrespondence


def _small_device(module, rows):
    """The module runs out of memory with more rows than that."""

    def check(_, args):
        if len(args[0]) > rows:
            raise torch.OutOfMemoryError(f"Tried to allocate {len(args[0])} rows")

    return module.register_forward_pre_hook(check)


@pytest.mark.parametrize(("rows", "views"), [(12, 4), (6, 2), (3, 1), (1, 1)])
def test_forwards_are_halved_until_they_fit(tiny_editor_folder, make_request, caplog, rows, views):
    request = make_request(views=5, steps=3)
    expected = load_editor(tiny_editor_folder).edit(request)
    editor = load_editor(tiny_editor_folder)
    _small_device(editor.unet, rows)
    with caplog.at_level(logging.WARNING):
        result = editor.edit(request)
        first = len(caplog.records)
        editor.edit(request)
    np.testing.assert_allclose(result.images, expected.images, atol=1e-4)
    assert result.unet_evaluations == expected.unet_evaluations
    assert len(caplog.records) == first == {12: 0, 6: 1, 3: 2, 1: 3}[rows], "said when it changes, not again"


@pytest.mark.parametrize("needs_features", [False, True])
def test_key_views_are_parted_by_branch(
    make_sharing_editor,
    make_request,
    caplog,
    needs_features,
):
    request = make_request(views=6, steps=3)
    correspondence = FakeCorrespondence(needs_features, random=True)
    expected = make_sharing_editor(correspondence).edit(request)
    editor = make_sharing_editor(correspondence)
    _small_device(editor.unet, 3)  # three key views in one branch
    result = editor.edit(request)
    np.testing.assert_allclose(result.images, expected.images, atol=1e-4)
    assert result.unet_evaluations == expected.unet_evaluations
    assert "one by one" in caplog.text


def test_too_many_key_views_name_the_option(make_sharing_editor, make_request):
    editor = make_sharing_editor(FakeCorrespondence())
    _small_device(editor.unet, 2)
    with pytest.raises(torch.OutOfMemoryError, match="views-per-key"):
        editor.edit(make_request(views=6, steps=1))
    assert not any("_SelfAttention" in type(p).__name__ for p in editor.unet.attn_processors.values())


def test_an_image_that_never_fits_names_the_options(tiny_editor_folder, make_request):
    editor = load_editor(tiny_editor_folder)
    _small_device(editor.unet, 0)
    with pytest.raises(torch.OutOfMemoryError, match=r"1 rows(.|\n)*--pipeline.editor.resolution"):
        editor.edit(make_request(views=2, steps=1))


def test_the_autoencoder_is_parted_too(tiny_editor_folder, make_request):
    request = make_request(views=5, steps=1)
    expected = load_editor(tiny_editor_folder).edit(request).images
    editor = load_editor(tiny_editor_folder)
    for module in (editor.vae.encoder, editor.vae.decoder):
        _small_device(module, 1)
    np.testing.assert_allclose(editor.edit(request).images, expected, atol=1e-4)


def test_other_errors_are_not_swallowed():
    def fail(views):
        raise ValueError("something else")

    with pytest.raises(ValueError, match="something else"):
        ForwardLimit(4).each([0, 1], fail)


def test_every_view_is_done_exactly_once():
    done, attempts = [], []

    def forward(views):
        attempts.append(len(views))
        if len(views) > 3:
            raise torch.OutOfMemoryError("too many")
        done.extend(views)

    limit = ForwardLimit(10)
    limit.each(range(17), forward)
    assert done == list(range(17)) and attempts[:3] == [10, 5, 3] and limit.views == 3
