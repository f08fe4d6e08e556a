"""Detail that an autoencoder loses, given back where an edit changes little."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from edit3dgs_ns.editing.diffusion.detail import round_trip, unchanged_share, with_detail
from edit3dgs_ns.editing.diffusion.loading import load_editor
from edit3dgs_ns.editing.editor import EditRequest, KeepOptions
from edit3dgs_ns.editing.framing import Frame
from tests.tiny_editor import save_tiny_editor


def images(seed: int, *size: int) -> torch.Tensor:
    """Random ones in [0.3, 0.7]."""
    return 0.3 + 0.4 * torch.rand((2, 3, *size), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("size", [(32, 32), (37, 50)])
def test_no_change_gives_the_original_and_a_full_change_what_was_decoded(size):
    original, decoded = images(0, *size), images(1, *size)
    torch.testing.assert_close(with_detail(decoded, original, decoded, (4, 4)), original)
    everywhere = with_detail(torch.zeros_like(decoded), original, torch.ones_like(decoded), (4, 4))
    assert torch.equal(everywhere, torch.zeros_like(decoded))
    half = decoded.clone()
    half[..., size[1] // 2 :] = 0
    result = with_detail(half, original, decoded, (8, 8))
    torch.testing.assert_close(result[..., : size[1] // 4], original[..., : size[1] // 4])


def test_the_share_falls_with_the_change_and_is_smooth():
    decoded = torch.full((1, 3, 32, 32), 0.25)
    shares = [
        unchanged_share(decoded + by, decoded, (8, 8)).mean() for by in (0.0, 0.05, 0.1, 0.15, 0.25, 0.7)
    ]
    assert shares[0] == 1 and shares[-1] == shares[-2] == 0
    assert all(a > b for a, b in itertools.pairwise(shares[:-1]))
    edited = decoded.clone()
    edited[..., 16:] += 0.7
    across = unchanged_share(edited, decoded, (8, 8))[0, 0, 16]
    assert across[0] == 1 and across[-1] == 0 and across.diff().abs().max() < 0.3


def test_half_the_strength_gives_half_of_it_and_values_that_are_not_finite_stay():
    original, decoded = images(0, 16, 16), images(1, 16, 16)
    half = with_detail(decoded, original, decoded, (4, 4), 0.5)
    torch.testing.assert_close(half, (original + decoded) / 2)
    broken = decoded.clone()
    broken[0, :, 3, 3] = torch.nan
    assert with_detail(broken, original, decoded, (4, 4))[0, :, 3, 3].isnan().all()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tiny InstructPix2Pix."""
    return save_tiny_editor(tmp_path_factory.mktemp("editor"))


def test_a_view_that_is_kept_whole_is_its_original_to_the_pixel(folder):
    given = np.random.default_rng(0).random((2, 48, 32, 3), dtype=np.float32)
    kept = EditRequest(
        "make him look older", given, given, steps=2, keep_mask=np.ones((2, 48, 32), np.float32),
        keep_options=KeepOptions(keep_from=0.0),
    )  # fmt: skip
    plain, detailed = (load_editor(folder, detail=detail) for detail in (0.0, 1.0))
    assert "detail" not in plain.settings and detailed.settings["detail"] == 1.0
    told = {}
    result = detailed.edit(kept, finished=lambda view, image: told.update({view: image.copy()})).images
    np.testing.assert_allclose(result, given, atol=1e-4)
    np.testing.assert_array_equal(np.stack([told[0], told[1]]), result)
    assert np.abs(plain.edit(kept).images - given).mean() > 0.05


def test_an_edit_in_images_of_another_size_than_the_models_has_their_detail(folder):
    given = np.random.default_rng(0).random((2, 44, 60, 3), dtype=np.float32)
    request = EditRequest("make him look older", given, given, steps=2)
    plain, detailed = (load_editor(folder, resolution=32, detail=detail) for detail in (0.0, 1.0))
    frame = Frame.fit(44, 60, detailed.size_multiple, 32)
    original = torch.from_numpy(given).permute(0, 3, 1, 2)
    decoded = frame.leave(round_trip(detailed.vae, frame.enter(original)))
    edited = torch.from_numpy(plain.edit(request).images).permute(0, 3, 1, 2)
    expected = with_detail(edited, original, decoded, frame.cells(2)).permute(0, 2, 3, 1)
    np.testing.assert_allclose(detailed.edit(request).images, expected, atol=1e-5)
    assert np.abs(expected.numpy() - edited.permute(0, 2, 3, 1).numpy()).mean() > 0.003
