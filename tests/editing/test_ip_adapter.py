"""A reference image for InstructPix2Pix, by a tiny random IP-Adapter in its authors' format."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from edit3dgs_ns.editing.agreement.sharing import SharingOptions
from edit3dgs_ns.editing.diffusion.loading import load_editor
from edit3dgs_ns.editing.diffusion.model_folder import check_model
from edit3dgs_ns.errors import UserError
from tests.plane_views import plane_request


@pytest.fixture(scope="module")
def adapter(tiny_editor_folder, tmp_path_factory):
    """Weights for the tiny InstructPix2Pix, beside their image encoder."""
    from safetensors.torch import save_file
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    torch.manual_seed(3)
    folder = tmp_path_factory.mktemp("adapter")
    config = CLIPVisionConfig(
        hidden_size=16, intermediate_size=16, projection_dim=24, num_hidden_layers=1, num_attention_heads=2,
        image_size=32, patch_size=16,
    )  # fmt: skip
    CLIPVisionModelWithProjection(config).save_pretrained(folder / "image_encoder")
    unet = load_editor(tiny_editor_folder).unet
    weights = {
        "image_proj.proj.weight": torch.randn(4 * 32, 24),
        "image_proj.proj.bias": torch.zeros(4 * 32),
        "image_proj.norm.weight": torch.ones(32),
        "image_proj.norm.bias": torch.zeros(32),
    }
    for number, name in enumerate(unet.attn_processors):
        if name.endswith("attn2.processor"):
            width = unet.get_submodule(name.removesuffix(".processor")).to_k.out_features
            for part in ("to_k_ip", "to_v_ip"):
                weights[f"ip_adapter.{number}.{part}.weight"] = torch.randn(width, 32)
    save_file(weights, folder / "tiny.safetensors")
    return folder / "tiny.safetensors"


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    path = tmp_path_factory.mktemp("reference") / "hat.png"
    Image.fromarray(np.random.default_rng(2).integers(0, 256, (40, 50, 3), np.uint8)).save(path)
    return path


def test_the_edit_is_that_of_diffusers_with_the_adapter(tiny_editor_folder, adapter, reference, make_request):
    from diffusers import StableDiffusionInstructPix2PixPipeline

    request = make_request(views=1, steps=3)
    request.originals[:] = np.round(request.originals * 255) / 255
    editor = load_editor(tiny_editor_folder, scheduler="shipped", references=[reference], ip_adapter=adapter)
    pipeline = StableDiffusionInstructPix2PixPipeline.from_pretrained(tiny_editor_folder, safety_checker=None)
    pipeline.load_ip_adapter(str(adapter.parent), subfolder="", weight_name=adapter.name)
    pipeline.set_progress_bar_config(disable=True)
    own = pipeline(
        request.prompt,
        image=Image.fromarray((request.originals[0] * 255).round().astype(np.uint8)),
        ip_adapter_image=Image.open(reference),
        num_inference_steps=3,
        guidance_scale=7.5,
        image_guidance_scale=1.5,
        generator=torch.Generator().manual_seed(request.view_seed(0)),
        output_type="np",
    ).images[0]
    result = editor.edit(request).images[0]
    np.testing.assert_allclose(result, own, atol=1e-4)
    plain = load_editor(tiny_editor_folder, scheduler="shipped")
    assert np.abs(plain.edit(request).images[0] - result).max() > 1e-3
    assert "reference" in editor.settings and "reference" not in plain.settings


def test_attention_is_shared_beside_the_adapter(tiny_editor_folder, adapter, reference):
    """However the views go through the UNet, the result is the same."""
    request = plane_request((0.0, 10.0, 20.0), (1.0,) * 3, steps=2)
    sharing = SharingOptions("rig", self_attention_below=0)
    options = {"references": [reference], "ip_adapter": adapter, "sharing": sharing}
    whole, split = (
        load_editor(tiny_editor_folder, views_per_forward=n, **options).edit(request).images for n in (3, 1)
    )
    np.testing.assert_allclose(split, whole, atol=1e-4)


def test_what_an_adapter_lacks_is_named(tiny_editor_folder, adapter, reference, tmp_path):
    with pytest.raises(UserError, match=r"takes one --pipeline\.editor\.reference; found 0"):
        check_model(tiny_editor_folder, (), adapter)
    with pytest.raises(FileNotFoundError, match=r"expected a file of safetensors"):
        check_model(tiny_editor_folder, (reference,), tmp_path / "adapter.bin")
    (tmp_path / "alone.safetensors").write_bytes(adapter.read_bytes())
    with pytest.raises(FileNotFoundError, match="image_encoder"):
        check_model(tiny_editor_folder, (reference,), tmp_path / "alone.safetensors")
    with pytest.raises(UserError, match=r"--pipeline\.editor\.ip-adapter"):
        check_model(tiny_editor_folder, (reference,))
