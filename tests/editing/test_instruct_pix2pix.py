"""Our diffusion loop against diffusers' own pipeline, and the properties that a batch must have."""

import numpy as np
import pytest
import torch

from edit3dgs_ns.editing.diffusion.guidance import guidance_weights
from edit3dgs_ns.editing.diffusion.loading import load_editor
from edit3dgs_ns.editing.diffusion.model_folder import DEMO_FOLDER
from edit3dgs_ns.editing.editor import KnowsCost


def _diffusers_result(folder, request, guidance_scale, image_guidance_scale, seed):
    from diffusers import StableDiffusionInstructPix2PixPipeline

    pipeline = StableDiffusionInstructPix2PixPipeline.from_pretrained(folder, safety_checker=None)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline(
        prompt=request.prompt,
        image=torch.from_numpy(request.originals[:1]).permute(0, 3, 1, 2),
        num_inference_steps=request.steps,
        guidance_scale=guidance_scale,
        image_guidance_scale=image_guidance_scale,
        generator=torch.Generator().manual_seed(seed),
        output_type="np",
    ).images[0]


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
@pytest.mark.parametrize(
    "scheduler", ["DDIMScheduler", "EulerAncestralDiscreteScheduler", "DPMSolverMultistepScheduler"]
)
def test_pure_noise_gives_what_diffusers_gives(make_tiny_editor, make_request, prediction_type, scheduler):
    folder = make_tiny_editor(prediction_type=prediction_type, scheduler=scheduler)
    request = make_request(
        views=1, height=32, width=48, noise=1.0, seed=5, guidance_scale=4.0, image_guidance_scale=1.7
    )
    ours = load_editor(folder, scheduler="shipped").edit(request).images[0]
    np.testing.assert_allclose(ours, _diffusers_result(folder, request, 4.0, 1.7, 5), atol=1e-4)


def test_the_demo_editor_gives_what_diffusers_gives(make_request):
    scales = {"guidance_scale": 1.3, "image_guidance_scale": 1.1}
    request = make_request(
        views=1, height=256, width=256, noise=1.0, seed=5, steps=3, prompt="Turn her skin green", **scales
    )
    ours = load_editor("demo", scheduler="shipped").edit(request).images[0]
    expected = _diffusers_result(DEMO_FOLDER, request, *scales.values(), 5)
    np.testing.assert_allclose(ours, expected, atol=1e-4)


def test_converted_scheduler_is_ddim_on_the_shipped_noise_schedule(make_tiny_editor):
    shipped = make_tiny_editor(scheduler="EulerAncestralDiscreteScheduler", prediction_type="v_prediction")
    config = load_editor(shipped).scheduler.config
    assert (config.prediction_type, config.beta_schedule, config.clip_sample) == (
        "v_prediction",
        "scaled_linear",
        False,
    )


@pytest.mark.parametrize("scheduler", ["DDIMScheduler", "EulerAncestralDiscreteScheduler"])
@pytest.mark.parametrize("shared_noise", [True, False])
def test_result_does_not_depend_on_the_batch_split(make_tiny_editor, make_request, scheduler, shared_noise):
    folder = make_tiny_editor(scheduler=scheduler)
    request = make_request(views=5, noise=0.8, shared_noise=shared_noise)
    together = load_editor(folder, scheduler="shipped", views_per_forward=5).edit(request)
    for size in (1, 2):
        split = load_editor(folder, scheduler="shipped", views_per_forward=size).edit(request)
        np.testing.assert_allclose(split.images, together.images, atol=1e-4)
        assert split.unet_evaluations == together.unet_evaluations


def test_a_view_keeps_its_result_whoever_is_beside_it(tiny_editor_folder, make_request):
    editor = load_editor(tiny_editor_folder)
    batch = make_request(views=3, view_ids=(4, 9, 2), shared_noise=False)
    alone = make_request(
        views=1, view_ids=(9,), shared_noise=False, images=batch.images[1:2], originals=batch.originals[1:2]
    )
    np.testing.assert_allclose(editor.edit(batch).images[1], editor.edit(alone).images[0], atol=1e-4)


def test_same_request_same_result_and_other_seed_another(tiny_editor_folder, make_request):
    editor, prompts = load_editor(tiny_editor_folder), []
    editor.text_encoder.register_forward_pre_hook(lambda *_: prompts.append(1))
    first, again, other = (editor.edit(make_request(views=1, seed=seed)).images for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).mean() > 1e-3
    assert len(prompts) == 1  # which is encoded once for all


def test_noise_below_one_starts_from_the_current_image_and_is_conditioned_on_the_original(
    tiny_editor_folder, make_request
):
    editor = load_editor(tiny_editor_folder)
    request = make_request(views=1, noise=0.5)
    other_current = make_request(views=1, noise=0.5, images=1 - request.images)
    other_original = make_request(views=1, noise=0.5, originals=1 - request.originals)
    result = editor.edit(request).images
    assert np.abs(result - editor.edit(other_current).images).max() > 1e-3
    assert np.abs(result - editor.edit(other_original).images).max() > 1e-3
    pure = make_request(views=1, noise=1.0)
    pure_other = make_request(views=1, noise=1.0, images=1 - request.images)
    np.testing.assert_array_equal(editor.edit(pure).images, editor.edit(pure_other).images)


def test_noise_is_added_at_the_first_timestep_that_is_denoised(tiny_editor_folder, make_request):
    editor = load_editor(tiny_editor_folder)
    added, denoised = [], []
    add_noise, unet = editor.scheduler.add_noise, editor.unet

    def record_add(samples, noise, timesteps):
        added.extend(timesteps.tolist())
        return add_noise(samples, noise, timesteps)

    handle = unet.register_forward_pre_hook(lambda module, args: denoised.append(int(args[1])))
    editor.scheduler.add_noise = record_add
    result = editor.edit(make_request(views=1, noise=0.5, steps=10))
    handle.remove()
    assert added[0] == denoised[0] == result.settings["first_timestep"] <= 500
    assert len(denoised) == 5 and denoised == sorted(denoised, reverse=True)


def test_little_noise_still_takes_a_step(tiny_editor_folder, make_request):
    result = load_editor(tiny_editor_folder).edit(make_request(views=2, noise=0.01, steps=5))
    assert result.unet_evaluations == 2 * 3


@pytest.mark.parametrize(("height", "width"), [(33, 21), (802 // 16, 550 // 16), (32, 32), (7, 40)])
def test_any_size_comes_back_in_its_size(tiny_editor_folder, make_request, height, width):
    result = load_editor(tiny_editor_folder).edit(make_request(views=2, height=height, width=width, steps=2))
    assert result.images.shape == (2, height, width, 3) and result.images.dtype == np.float32
    assert result.images.min() >= 0 and result.images.max() <= 1


def test_padding_is_white_and_the_picture_in_it_whole(tiny_editor_folder, make_request):
    """What is given to the autoencoder, for a size that is no multiple of anything."""
    editor = load_editor(tiny_editor_folder)
    assert editor.size_multiple == 4
    canvases = []
    editor.vae.encoder.register_forward_pre_hook(lambda module, args: canvases.append(args[0]))
    request = make_request(views=1, height=50, width=34, steps=1)
    editor.edit(request)
    canvas = (canvases[0][0].permute(1, 2, 0).numpy() + 1) / 2
    assert canvas.shape == (52, 36, 3)
    np.testing.assert_allclose(canvas[1:51, 1:35], request.originals[0], atol=1e-6)
    canvas[1:51, 1:35] = 1
    np.testing.assert_array_equal(canvas, 1)


def test_kept_parts_are_the_originals(tiny_editor_folder, make_request):
    """With everything kept to the end, what comes out is the autoencoder's picture of the original."""
    editor = load_editor(tiny_editor_folder)
    mask = np.ones((2, 32, 32), np.float32)
    request = make_request(views=2, keep_mask=mask)
    canvas = torch.from_numpy(request.originals).permute(0, 3, 1, 2)
    with torch.no_grad():
        decoded = editor.vae.decode(editor.vae.encode(2 * canvas - 1).latent_dist.mode()).sample
    expected = (decoded / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1).numpy()
    np.testing.assert_allclose(editor.edit(request).images, expected, atol=1e-5)
    free = editor.edit(make_request(views=2)).images
    np.testing.assert_array_equal(editor.edit(make_request(views=2, keep_mask=0 * mask)).images, free)


def test_resolution_scales_to_the_model(make_tiny_editor, make_request):
    editor = load_editor(make_tiny_editor(settings={"resolution": 32}))
    sizes = []
    editor.vae.encoder.register_forward_pre_hook(lambda module, args: sizes.append(tuple(args[0].shape[-2:])))
    assert editor.edit(make_request(views=1, height=802, width=550, steps=1)).images.shape == (1, 802, 550, 3)
    assert sizes == [(32, 24)]


@pytest.mark.parametrize(("noise", "passes"), [(1.0, 1 + 4 + 1), (0.5, 2 + 2 + 1)])
def test_progress_counts_all_work_on_all_views(tiny_editor_folder, make_request, noise, passes):
    """Two by two: three views are encoded (their renders too, where noise is added to these), go through the steps, and are
    decoded, one after the other."""
    calls = []
    editor = load_editor(tiny_editor_folder, views_per_forward=2)
    editor.edit(make_request(views=3, steps=4, noise=noise), lambda *done: calls.append(done))
    total = 3 * passes
    in_pairs = [n for k in range(passes - 1) for n in (3 * k + 2, 3 * k + 3)]
    assert calls == [(done, total) for done in [*in_pairs, total - 2, total - 1, total]]


def test_the_cost_of_a_view_is_known_before_its_edit(tiny_editor_folder, make_request):
    editor = load_editor(tiny_editor_folder)
    assert isinstance(editor, KnowsCost) and 1e5 < editor.weight_bytes < 1e7
    for noise, scale in ((1.0, 6.0), (0.5, 6.0), (0.98, 1.0)):
        request = make_request(views=2, noise=noise, steps=7, guidance_scale=scale, image_guidance_scale=1.0)
        planned = editor.evaluations_per_view(noise, 7, scale, 1.0)
        assert editor.edit(request).unet_evaluations == 2 * planned > 0


def test_guidance_weights_are_equation_three_and_zero_branches_cost_nothing(tiny_editor_folder, make_request):
    text, image, nothing = torch.randn(3, 10).unbind()
    weights = guidance_weights(6.0, 1.4)
    expected = nothing + 1.4 * (image - nothing) + 6.0 * (text - image)
    torch.testing.assert_close(weights[0] * text + weights[1] * image + weights[2] * nothing, expected)
    editor = load_editor(tiny_editor_folder)
    request = make_request(views=1, guidance_scale=1.0, image_guidance_scale=1.0)
    assert editor.edit(request).unet_evaluations == request.steps
    near = make_request(views=1, guidance_scale=1.0 + 1e-6, image_guidance_scale=1.0 + 1e-7)
    np.testing.assert_allclose(editor.edit(request).images, editor.edit(near).images, atol=1e-4)


def test_long_prompt_is_cut_with_a_warning(tiny_editor_folder, make_request, caplog):
    load_editor(tiny_editor_folder).edit(make_request(views=1, steps=1, prompt="make him look older " * 8))
    assert "does not see" in caplog.text


def test_weights_do_not_ask_for_gradients(tiny_editor_folder):
    editor = load_editor(tiny_editor_folder)
    assert not any(
        p.requires_grad
        for module in (editor.unet, editor.vae, editor.text_encoder)
        for p in module.parameters()
    )


def test_views_are_handed_over_when_they_are_final(tiny_editor_folder, make_request):
    steps, kept = [], {}
    editor = load_editor(tiny_editor_folder, views_per_forward=2)

    def finished(view, image):
        kept[view] = (len(steps), image)

    result = editor.edit(make_request(views=3, steps=4), lambda done, total: steps.append(done), finished)
    worked = 2 + 4 * 2  # two parts are encoded and go through four steps
    assert [kept[view][0] for view in range(3)] == [worked + 1, worked + 2, worked + 3]
    np.testing.assert_array_equal(np.stack([kept[view][1] for view in range(3)]), result.images)


def test_a_view_that_overflows_is_handed_out_as_such_and_not_as_black(tiny_editor_folder, make_request):
    editor = load_editor(tiny_editor_folder, views_per_forward=1)
    decode, calls, given = editor.vae.decode, [], []

    def overflow(latents, **options):
        calls.append(len(latents))
        (images,) = decode(latents, **options)
        return (images / 0 if len(calls) == 3 else images,)

    editor.vae.decode = overflow
    result = editor.edit(
        make_request(views=4, view_ids=(10, 20, 30, 40), steps=1),
        finished=lambda view, image: given.append((view, bool(np.isfinite(image).all()))),
    )
    assert given == [(0, True), (1, True), (2, False), (3, True)]
    assert np.isfinite(result.images).all(axis=(1, 2, 3)).tolist() == [True, True, False, True]
