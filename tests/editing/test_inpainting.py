"""What is kept of the original stays, exactly; what is not kept is not touched."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from edit3dgs_ns.editing.diffusion.inpainting import LatentKeeper, latent_mask
from edit3dgs_ns.editing.diffusion.loading import load_editor
from edit3dgs_ns.editing.editor import KeepOptions
from edit3dgs_ns.editing.framing import Frame

CPU = torch.device("cpu")


@pytest.fixture
def loop():
    """A DDIM scheduler, and latents as they come and go in a loop of five steps."""
    from diffusers import DDIMScheduler

    scheduler = DDIMScheduler(clip_sample=False, set_alpha_to_one=False, steps_offset=1)
    scheduler.set_timesteps(5)
    original, noise, latents = torch.randn(3, 2, 4, 6, 6, generator=torch.Generator().manual_seed(0)).unbind()
    mask = torch.zeros(2, 1, 6, 6)
    mask[0, 0, :3], mask[1, 0, :, 2:4], mask[1, 0, 5, 5] = 1, 1, 0.25
    return scheduler, original, noise, latents, mask


def test_after_the_last_step_the_kept_latents_are_the_originals_exactly(loop):
    scheduler, original, noise, latents, mask = loop
    result = LatentKeeper(original, mask, noise, scheduler, KeepOptions()).apply(latents, None, 4, 5)
    kept, free = (mask == 1).expand_as(result), (mask == 0).expand_as(result)
    assert torch.equal(result[kept], original[kept]) and torch.equal(result[free], latents[free])
    torch.testing.assert_close(result[1, :, 5, 5], 0.75 * latents[1, :, 5, 5] + 0.25 * original[1, :, 5, 5])


def test_before_it_they_have_the_noise_level_of_the_next_step(loop):
    scheduler, original, noise, latents, mask = loop
    t = scheduler.timesteps[3]
    result = LatentKeeper(original, mask, noise, scheduler).apply(latents, t, 2, 5)
    alpha = scheduler.alphas_cumprod[t]
    kept = (mask == 1).expand_as(result)
    expected = alpha.sqrt() * original + (1 - alpha).sqrt() * noise
    torch.testing.assert_close(result[kept], expected[kept])


@pytest.mark.parametrize(
    ("start", "end", "active"),
    [(0.5, 1.0, [2, 3, 4]), (0.0, 1.0, [0, 1, 2, 3, 4]), (0.2, 0.6, [1, 2]), (1.0, 1.0, []), (0.0, 0.0, [])],
)
def test_the_range_of_steps(loop, start, end, active):
    scheduler, original, noise, latents, mask = loop
    keeper = LatentKeeper(original, mask, noise, scheduler, KeepOptions(keep_from=start, keep_until=end))
    following = [*scheduler.timesteps[1:], None]
    changed = [s for s in range(5) if not torch.equal(keeper.apply(latents, following[s], s, 5), latents)]
    assert changed == active


def test_strength_mixes(loop):
    scheduler, original, noise, latents, mask = loop
    result = LatentKeeper(original, mask, noise, scheduler, KeepOptions(keep_strength=0.3)).apply(
        latents, None, 4, 5
    )
    torch.testing.assert_close(result[0, :, 0, 0], 0.7 * latents[0, :, 0, 0] + 0.3 * original[0, :, 0, 0])


def test_shapes_that_do_not_fit_are_refused(loop):
    scheduler, original, noise, _, mask = loop
    with pytest.raises(ValueError, match="mask_latent"):
        LatentKeeper(original, mask[:1], noise, scheduler)


# -- the mask in latent space --------------------------------------------------------------------------------


def test_the_mask_says_how_much_of_each_latent_pixel_is_covered_and_never_reaches_the_padding():
    frame = Frame.fit(64, 40, 32)  # padded to 64 x 64: 12 pixels left and right
    mask = np.zeros((1, 64, 40), np.float32)
    mask[0, 24:33, 20:30] = 1  # canvas columns 32 to 42: 4 pixels make a latent one
    found = latent_mask(mask, frame, (16, 16), CPU)[0, 0]
    expected = torch.zeros(16, 16)
    expected[6:8, 8:10] = 1
    expected[6:8, 10], expected[8, 8:10], expected[8, 10] = 1 / 2, 1 / 4, 1 / 8
    torch.testing.assert_close(found, expected)
    everything = latent_mask(np.ones((1, 64, 40), np.float32), frame, (16, 16), CPU)[0, 0]
    assert (everything[:, 3:13] == 1).all()
    assert (everything[:, :3] == 0).all() and (everything[:, 13:] == 0).all()


def test_a_mask_of_a_smaller_image_is_scaled_along():
    frame = Frame.fit(32, 32, 8, longer_side=64)
    mask = np.zeros((1, 32, 32), np.float32)
    mask[0, 8:18, 8:16] = 1  # rows 8 to 18 of 32: latent rows 4 to 9 of 16 at 2 image pixels each
    found = latent_mask(mask, frame, (16, 16), CPU)[0, 0]
    assert found[5:8, 5:7].min() > 0.99 and found[11:].max() < 0.05 and found[:, 10:].max() < 0.05
    assert found.sum().item() == pytest.approx(5 * 4, rel=0.02)


# -- in the loop ---------------------------------------------------------------------------------------------


def test_with_all_kept_the_original_comes_back_as_the_autoencoder_has_it(tiny_editor_folder, make_request):
    editor = load_editor(tiny_editor_folder)
    request = make_request(
        views=2, keep_mask=np.ones((2, 32, 32), np.float32), keep_options=KeepOptions(keep_from=0.0)
    )
    latents = editor.vae.encode(
        2 * torch.from_numpy(request.originals).permute(0, 3, 1, 2) - 1
    ).latent_dist.mode()
    expected = (editor.vae.decode(latents).sample / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1)
    np.testing.assert_allclose(editor.edit(request).images, expected.detach().numpy(), atol=2e-5)


def test_an_empty_mask_changes_nothing(tiny_editor_folder, make_request):
    editor = load_editor(tiny_editor_folder)
    empty = make_request(views=2, keep_mask=np.zeros((2, 32, 32), np.float32))
    np.testing.assert_array_equal(editor.edit(empty).images, editor.edit(make_request(views=2)).images)


def test_what_is_decoded_is_the_original_under_the_mask_and_the_edit_elsewhere(
    tiny_editor_folder, make_request, monkeypatch
):
    editor, decoded = load_editor(tiny_editor_folder), []
    decode = editor.vae.decode
    monkeypatch.setattr(editor.vae, "decode", lambda z, **k: (decoded.append(z), decode(z, **k))[1])
    mask = np.zeros((2, 32, 32), np.float32)
    mask[:, :8] = 1
    late = make_request(
        views=2, keep_mask=mask, keep_options=KeepOptions(keep_from=0.9)
    )  # in the last step alone: nothing spreads from the mask
    kept, edited = editor.edit(late), editor.edit(make_request(views=2))
    latents = editor.vae.encode(
        2 * torch.from_numpy(late.originals).permute(0, 3, 1, 2) - 1
    ).latent_dist.mode()
    torch.testing.assert_close(decoded[0][:, :, :4], latents[:, :, :4])
    torch.testing.assert_close(decoded[0][:, :, 4:], decoded[1][:, :, 4:])
    assert (decoded[0][:, :, :4] - decoded[1][:, :, :4]).abs().mean() > 0.05
    assert kept.unet_evaluations == edited.unet_evaluations
