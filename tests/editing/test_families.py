"""Every family of editing pipelines, on tiny random models in the official folder formats: each view is what the family's own
pipeline makes of it, and together they share predictions, keep regions and start from renders."""

from __future__ import annotations

import threading
from dataclasses import replace
from importlib import import_module

import numpy as np
import pytest
import torch
from diffusers import EulerDiscreteScheduler
from PIL import Image

from edit3dgs_ns.editing.agreement.shared_predictions import SharedPredictions
from edit3dgs_ns.editing.agreement.sharing import SharingOptions
from edit3dgs_ns.editing.diffusion import loading
from edit3dgs_ns.editing.diffusion.families import canvas_of_area
from edit3dgs_ns.editing.diffusion.loading import load_editor
from edit3dgs_ns.editing.diffusion.view_runs import THREAD_NAME, Prediction, ViewRun
from edit3dgs_ns.editing.editor import EditRequest, KeepOptions, KnowsCost
from edit3dgs_ns.editing.framing import Frame, to_tensor
from edit3dgs_ns.editing.sigma_predictions import space_of
from edit3dgs_ns.errors import UserError
from tests.plane_views import plane_request
from tests.tiny_families import FAMILY_NAMES, save_tiny_family

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")
OWN_ARGUMENTS = {
    "sdxl": {"guidance_scale": 3.0, "image_guidance_scale": 1.5},
    "cosxl": {"guidance_scale": 5.0, "image_guidance_scale": 1.5},
    "kontext": {"guidance_scale": 2.5, "max_area": 64 * 64, "_auto_resize": False},
    "klein": {"guidance_scale": 1.0},
    "klein-base": {"guidance_scale": 4.0},
    "flux2": {"guidance_scale": 4.0},
    "qwen": {"true_cfg_scale": 4.0, "negative_prompt": " "},
    "qwen-plus": {"true_cfg_scale": 4.0, "negative_prompt": " "},
    "longcat": {"guidance_scale": 4.5},
}
"""What the pipeline's own `__call__` is given besides prompt, image, size and steps: the values of the model's card."""
BRANCHES = {"sdxl": 3, "cosxl": 3, "kontext": 1, "klein": 1, "klein-base": 2, "flux2": 1} | dict.fromkeys(
    ("qwen", "qwen-plus", "longcat"), 2
)
"""Guidance branches."""


@pytest.fixture(scope="session", params=FAMILY_NAMES)
def family(request, tmp_path_factory) -> tuple[str, object]:
    """Name and folder of a tiny model of each family."""
    return request.param, save_tiny_family(request.param, tmp_path_factory.mktemp(request.param))


OF_ONE_AREA = {
    "qwen": "qwenimage.pipeline_qwenimage_edit",
    "qwen-plus": "qwenimage.pipeline_qwenimage_edit_plus",
    "longcat": "longcat_image.pipeline_longcat_image_edit",
}
"""Modules of the pipelines that edit at one megapixel alone."""


@pytest.fixture
def load(family, monkeypatch):
    """Loads the family's model at the images' own size; where it has but one, that is made as small."""
    name, folder = family
    if name not in OF_ONE_AREA:
        return lambda **options: load_editor(folder, **({"resolution": 64} | options))
    module = import_module(f"diffusers.pipelines.{OF_ONE_AREA[name]}")
    dimensions = module.calculate_dimensions
    monkeypatch.setattr(module, "calculate_dimensions", lambda _, ratio: dimensions(64 * 64, ratio))

    def load_small(**options):
        options.pop("resolution", None)
        editor = load_editor(folder, **options)
        editor.family = replace(editor.family, area=64 * 64)
        return editor

    return load_small


@pytest.fixture
def request_of():
    """Requests for two views of 64 x 64 pixels, of 8 bits, that show a plane alike."""

    def make(**options) -> EditRequest:
        random = np.random.default_rng(7).integers(0, 256, (2, 2, 64, 64, 3)) / 255
        images, originals = random.astype(np.float32)
        request = plane_request((0.0, 0.0))
        return replace(
            request,
            **(
                {
                    "prompt": "make him look older",
                    "images": images,
                    "originals": originals,
                    "steps": 3,
                    "shared_noise": False,
                }
                | options
            ),
        )

    return make


def test_a_view_that_is_kept_whole_is_its_original_with_all_its_detail(load, request_of):
    request = request_of(
        keep_mask=np.ones((2, 64, 64), np.float32), keep_options=KeepOptions(keep_from=0.0), noise=0.9
    )
    plain, detailed = (load(detail=detail).edit(request).images for detail in (0.0, 1.0))
    np.testing.assert_allclose(detailed, request.originals, atol=2e-3)
    assert np.abs(plain - request.originals).mean() > 0.05


@pytest.fixture
def record_latents(monkeypatch):
    """Records what every view's pipeline is given after each step: a list by view."""
    given: dict[int, list[torch.Tensor]] = {}
    advance = ViewRun.advance

    def record(self, latents=None):
        if latents is not None:
            given.setdefault(id(self), []).append(latents.clone())
        return advance(self, latents)

    monkeypatch.setattr(ViewRun, "advance", record)
    return given


def _own(name: str, folder, request: EditRequest, view: int, references=()) -> np.ndarray:
    """What the family's own pipeline gives for a view."""
    import diffusers

    options = {"is_cosxl_edit": True} if name == "cosxl" else {}
    pipeline = diffusers.DiffusionPipeline.from_pretrained(folder, **options)
    pipeline.set_progress_bar_config(disable=True)
    image = Image.fromarray((request.originals[view] * 255).round().astype(np.uint8))
    made = pipeline(
        prompt=request.prompt,
        image=[image, *references] if references else image,
        num_inference_steps=request.steps,
        generator=torch.Generator().manual_seed(request.view_seed(view)),
        output_type="np",
        **({} if name == "longcat" else {"height": 64, "width": 64}),
        **OWN_ARGUMENTS[name],
    )
    return made.images[0]


def test_each_view_is_what_the_familys_own_pipeline_makes_of_it(family, load, request_of):
    name, folder = family
    request, told, shown = request_of(), [], []
    editor = load()
    result = editor.edit(request, lambda *at: told.append(at), lambda view, image: shown.append(view))
    for view in range(2):
        difference = np.abs(result.images[view] - _own(name, folder, request, view)).max()
        print(f"{name}: {difference:.1e}")
        assert difference < 1e-4
    assert result.images.std() > 0.01 and np.abs(result.images[0] - result.images[1]).max() > 0.01
    assert result.unet_evaluations == 2 * 3 * BRANCHES[name]
    assert isinstance(editor, KnowsCost) and editor.weight_bytes > 1e5
    assert 2 * editor.evaluations_per_view(1.0, 3, None, None) == result.unet_evaluations
    assert told == [(done, 2 * 5) for done in range(1, 11)]  # encoded, three steps, decoded
    assert shown == [0, 1]


TAKE_REFERENCES = ("klein", "klein-base", "flux2", "qwen-plus")


def test_references_are_further_images_of_the_prompt(family, load, request_of, tmp_path):
    """Where the family takes any; else they are refused by name, before a weight is read."""
    name, folder = family
    pixels = np.random.default_rng(3).integers(0, 256, (80, 96, 4), np.uint8)
    pixels[..., 3] = 255
    path = tmp_path / "hat.png"
    Image.fromarray(pixels).save(path)
    if name not in TAKE_REFERENCES:
        with pytest.raises(UserError, match=r"--pipeline\.editor\.reference") as error:
            load(references=[path])
        assert str(folder) in str(error.value) and "FLUX.2" in str(error.value)
        return
    editor, request = load(references=[path]), request_of(steps=2)
    result = editor.edit(request)
    reference = Image.fromarray(pixels[..., :3])
    own = _own(name, folder, request, 1, [reference])
    np.testing.assert_allclose(result.images[1], own, atol=1e-4)
    assert np.abs(load().edit(request).images - result.images).max() > 1e-3
    assert editor.settings["references"] != load().settings["references"] == []
    with pytest.raises(UserError, match=r"no-hat\.png"):
        load(references=[tmp_path / "no-hat.png"])


def test_views_that_agree_predict_the_same_clean_latents_for_a_surface_point(load, request_of, monkeypatch):
    apart = []
    share = SharedPredictions.__call__

    def record(self, predicted, noisy, t, keys, layer=None):
        shared = share(self, predicted, noisy, t, keys, layer)
        clean = [self._space.clean(p, noisy, t)[:, :, 6:-6, 6:-6] for p in (predicted, shared)]
        apart.append([float((c[0] - c[1]).abs().mean()) for c in clean])
        return shared

    monkeypatch.setattr(SharedPredictions, "__call__", record)
    editor = load(sharing=SharingOptions("rig", share_prediction_until=0.0))
    assert editor.views_depend
    editor.edit(request_of())
    assert len(apart) == 3
    for before, after in apart:
        assert before > 1e-3 and after < 1e-3 * before


def test_the_last_step_is_each_views_own_however_noisy_the_schedule_ends(load, request_of, monkeypatch):
    """Few steps that are shifted to much noise end above any level; all levels but 0 leave the detail to the view."""
    levels, steps = [], []
    share = SharedPredictions.__call__

    def record(self, predicted, noisy, t, keys, layer=None):
        steps.append(t)
        levels.append(self._space.noise_level(t))
        return share(self, predicted, noisy, t, keys, layer)

    monkeypatch.setattr(SharedPredictions, "__call__", record)
    every, most = (load(sharing=SharingOptions("rig", share_prediction_until=until)) for until in (0.0, 1e-4))
    every.edit(request_of(steps=3))
    assert len(steps) == 3 and levels[-1] > 0
    most.edit(request_of(steps=3))
    assert steps[3:] == steps[:2]


def test_kept_latents_are_exactly_the_originals(load, request_of, record_latents):
    keep = np.zeros((2, 64, 64), np.float32)
    keep[:, :32] = 1
    editor = load()
    editor.edit(request_of(keep_mask=keep, keep_options=KeepOptions(keep_from=0.0), noise=0.9))
    layout = _layout(editor)
    with torch.no_grad():
        originals = layout.encode(to_tensor(request_of().originals, torch.device("cpu")))
    for steps, original in zip(record_latents.values(), originals, strict=True):
        final = layout.unpack(steps[-1])[0]
        rows = layout.size[0] // 2
        # Convolutions round otherwise in other batches: the encoding here is another call than the editor's.
        torch.testing.assert_close(final[:, :rows], original[:, :rows], rtol=0, atol=2e-6)
        assert not torch.isclose(final[:, rows:], original[:, rows:]).all(dim=0).any()


INPAINTING = {
    "kontext": "FluxKontextInpaintPipeline",
    "klein": "Flux2KleinInpaintPipeline",
    "klein-base": "Flux2KleinInpaintPipeline",
    "qwen": "QwenImageEditInpaintPipeline",
}
"""The families' own pipelines for editing a part alone."""


@pytest.mark.parametrize("family", INPAINTING, indirect=True)
def test_an_edit_of_a_part_is_what_the_familys_own_inpainting_makes_of_it(
    family, load, request_of, monkeypatch
):
    """From the first step on; theirs draw the original's latents at random, where ours are the most probable ones."""
    import diffusers
    from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution

    name, folder = family
    monkeypatch.setattr(DiagonalGaussianDistribution, "sample", lambda self, generator=None: self.mode())
    if name in OF_ONE_AREA:
        edit, inpaint = (
            import_module(f"diffusers.pipelines.{OF_ONE_AREA[name]}{end}") for end in ("", "_inpaint")
        )
        monkeypatch.setattr(inpaint, "calculate_dimensions", edit.calculate_dimensions)
    keep = np.ones((2, 64, 64), np.float32)
    keep[:, :, 32:] = 0
    request = request_of(keep_mask=keep, keep_options=KeepOptions(keep_from=0.0), steps=4)
    editor = load()
    ours, late = (editor.edit(r).images[0] for r in (request, replace(request, keep_options=KeepOptions())))
    pipeline = getattr(diffusers, INPAINTING[name]).from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    image, mask = (
        Image.fromarray((array[0] * 255).round().astype(np.uint8)) for array in (request.originals, 1 - keep)
    )
    own = pipeline(
        prompt=request.prompt,
        image=image,
        mask_image=mask,
        strength=1.0,
        num_inference_steps=4,
        generator=torch.Generator().manual_seed(request.view_seed(0)),
        output_type="np",
        **OWN_ARGUMENTS[name],
    ).images[0]
    difference = np.abs(ours - own).max()
    assert difference < 1e-5 and difference < 0.1 * np.abs(late - own).max()


def test_an_edit_starts_from_the_render_with_its_noise(load, request_of, monkeypatch):
    """The first latents are the render's own at the noise level of the first step, and fewer steps are taken."""
    editor, fresh, first = load(), request_of(steps=5), []
    advance = ViewRun.advance

    def record(self, latents=None):
        event = advance(self, latents)
        if isinstance(event, Prediction) and latents is None:
            first.append(event)
        return event

    monkeypatch.setattr(ViewRun, "advance", record)
    evaluations, told = [], []
    for noise in (0.05, 0.6, 1.0):
        result = editor.edit(replace(fresh, noise=noise), lambda *at: told.append(at))
        evaluations.append(result.unet_evaluations)
        assert told[-1][0] == told[-1][1]
    assert 0 < evaluations[0] <= evaluations[1] < evaluations[2]
    layout = _layout(editor)
    with torch.no_grad():
        renders = layout.encode(to_tensor(fresh.images, torch.device("cpu")))
    for view in range(2):
        generator = torch.Generator().manual_seed(fresh.view_seed(view))
        noise = layout.noise([generator], renders.shape[1], torch.float32)[0]
        for event, amount in ((first[view], 0.05), (first[2 + view], 0.6)):
            mixed = torch.stack([renders[view].flatten(), noise.flatten()], dim=1)
            latents = layout.unpack(event.latents)[0].flatten()
            signal, share = torch.linalg.lstsq(mixed, latents[:, None]).solution.flatten().tolist()
            torch.testing.assert_close(mixed @ torch.tensor([signal, share]), latents, atol=1e-4, rtol=1e-4)
            fraction = isinstance(editor.pipeline.scheduler, EulerDiscreteScheduler)  # of the timesteps
            level = space_of(editor.pipeline.scheduler).noise_level(event.timestep) if fraction else amount
            assert share / (signal + share) == pytest.approx(level, abs=1e-4)
            assert event.timestep <= 1000 * amount


def _layout(editor):
    from edit3dgs_ns.editing.diffusion.latent_layout import LatentLayout

    return LatentLayout(
        editor.pipeline.vae,
        (64, 64),
        editor.pipeline.vae_scale_factor,
        torch.device("cpu"),
        packed=editor.family.packed,
    )


def test_packing_is_undone_to_the_bit(load):
    editor = load()
    layout = _layout(editor)
    latents = torch.randn(2, editor.family.latent_channels(editor.pipeline), *layout.size)
    assert torch.equal(layout.unpack(layout.pack(latents)), latents)


def test_anchors_stay_as_they_are_known_and_lead_the_others(load, request_of, record_latents):
    """They take no evaluation: their clean latents are given at every step, and the other view of the plane takes them over."""
    editor = load(sharing=SharingOptions("rig", share_prediction_until=0.0))
    request = request_of(anchors=(1,), noise=0.9, steps=4)
    result = editor.edit(request)
    np.testing.assert_array_equal(result.images[1], request.images[1])
    alone = load().edit(request.part([0]))
    assert result.unet_evaluations == alone.unet_evaluations > 0  # none for the anchor
    layout = _layout(editor)
    with torch.no_grad():
        known = layout.encode(to_tensor(request.images[1:], torch.device("cpu")))[0]
    other = layout.unpack(next(iter(record_latents.values()))[-1])[0]
    scale = float(known.std())
    torch.testing.assert_close(other[:, 6:-6, 6:-6], known[:, 6:-6, 6:-6], atol=3e-2 * scale, rtol=0)


def test_encoders_are_asked_once_for_a_prompt_and_an_original(family, load, request_of, monkeypatch):
    """By all views, rounds and the retention together; a text encoder that reads the original once for each."""
    editor, asked = load(), []
    pipeline = editor.pipeline
    for part in ("text_encoder", "text_encoder_2"):
        if getattr(pipeline, part, None) is not None:
            getattr(pipeline, part).register_forward_pre_hook(lambda *_, part=part: asked.append(part))
    encode = type(pipeline.vae).encode
    monkeypatch.setattr(
        type(pipeline.vae), "encode", lambda self, pixels: asked.append("vae") or encode(self, pixels)
    )
    keep = np.zeros((2, 64, 64), np.float32)
    keep[:, :32] = 1
    first = editor.edit(request_of(keep_mask=keep))
    prompts = (
        2 if family[0] in ("klein-base", *OF_ONE_AREA) else 1
    )  # and the negative one, where it is encoded
    views = 2 if family[0] in OF_ONE_AREA else 1
    assert asked.count("text_encoder") == prompts * views
    assert asked.count("vae") == 2
    again = editor.edit(request_of(keep_mask=keep))
    np.testing.assert_array_equal(again.images, first.images)
    assert asked.count("text_encoder") == prompts * views and asked.count("vae") == 2
    editor.edit(request_of(prompt="make him look young"))
    assert asked.count("text_encoder") > prompts * views and asked.count("vae") == 2


def test_half_precision_and_odd_sizes(family, load):
    """On a GPU all of it is of 16 bits; an image of any size comes back in its own."""
    images = np.random.default_rng(1).random((1, 75, 93, 3), np.float32)
    request = EditRequest("make him look older", images, images, steps=2, noise=0.8)
    editor = load(dtype="bfloat16", resolution=90)
    result = editor.edit(request)
    assert editor.settings["dtype"] == "bfloat16"
    assert result.images.shape == images.shape and np.isfinite(result.images).all()
    assert result.images.std() > 0.01


def threads_of_views() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == THREAD_NAME]


def test_a_view_that_does_not_fit_says_what_to_change(load, request_of, monkeypatch):
    editor = load()

    def full(module, *_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    handle = getattr(editor.pipeline, editor.family.denoiser).register_forward_pre_hook(full)
    with pytest.raises(torch.OutOfMemoryError, match=r"--pipeline\.editor\.offload model"):
        editor.edit(request_of())
    handle.remove()
    assert not threads_of_views()
    assert editor.edit(request_of(steps=1)).images.shape == (2, 64, 64, 3)


def test_an_error_ends_all_views(load, request_of):

    def stop(done: int, total: int) -> None:
        if done == 5:
            raise RuntimeError("enough")

    with pytest.raises(RuntimeError, match="enough"):
        load().edit(request_of(), stop)
    assert not threads_of_views()


def test_offloaded_parts_come_when_they_are_used(load, request_of, monkeypatch):
    """accelerate's hooks, with the CPU in the place of the device."""
    expected = load().edit(request_of()).images
    monkeypatch.setattr(loading, "check_device", lambda device, offload: None)
    for offload in ("model", "layers"):
        editor = load(offload=offload)
        for _ in range(2):
            np.testing.assert_allclose(editor.edit(request_of()).images, expected, atol=1e-5)


@pytest.mark.parametrize(
    "name", ["qwenimage.pipeline_qwenimage_edit", "longcat_image.pipeline_longcat_image_edit"]
)
def test_the_canvas_of_one_area_is_what_pipelines_compute_of_it(name):
    """So that they stretch nothing, whatever the images' aspect ratio."""
    dimensions = import_module(f"diffusers.pipelines.{name}").calculate_dimensions
    for width in range(300, 1700, 13):
        height, across = canvas_of_area(800, width, 1024 * 1024)
        assert dimensions(1024 * 1024, across / height)[:2] == (across, height)
        frame = Frame.inside(800, width, (height, across))
        assert frame.canvas == (height, across) and max(frame.margins) < 60
        assert frame.scaled[0] == height or frame.scaled[1] == across


def test_epipolar_agreement_is_refused_by_name(load):
    with pytest.raises(UserError, match=r"--pipeline\.editor\.correspondence epipolar"):
        load(sharing=SharingOptions("epipolar"))
