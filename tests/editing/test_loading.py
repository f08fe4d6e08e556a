"""Finding weights: folders, hub ids, the embedded editor, and what is said when they are not there."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch

from edit3dgs_ns.editing.agreement.sharing import SharingOptions
from edit3dgs_ns.editing.diffusion import loading, model_folder
from edit3dgs_ns.editing.diffusion.families import FAMILIES
from edit3dgs_ns.editing.diffusion.loading import load_editor
from edit3dgs_ns.editing.diffusion.model_folder import check_model, find_model
from edit3dgs_ns.errors import UserError


def test_folder_settings_become_the_defaults(make_tiny_editor):
    settings = {
        "resolution": 64,
        "guidance_scale": 3,
        "image_guidance_scale": 1.2,
        "steps": 7,
        "instructions": {"older": ["Make him look older", "age her"], "green_skin": ["turn the skin green"]},
        "about": "a test",
    }
    editor = load_editor(make_tiny_editor(settings=settings))
    defaults = editor.defaults
    assert (defaults.resolution, defaults.guidance_scale, defaults.image_guidance_scale, defaults.steps) == (
        64,
        3.0,
        1.2,
        7,
    )
    assert editor.unknown_instruction("  make HIM look older. ") is None
    warning = editor.unknown_instruction("give him a hat")
    assert (
        warning is not None
        and "green_skin" in warning
        and "Make him look older" in warning
        and "give him a hat" in warning
    )


def test_examples_stand_for_a_long_list(make_tiny_editor):
    settings = {
        "instructions": {"hair_green": ["Give him green hair"], "hair_blue": ["Give him blue hair"]},
        "examples": {"hair in green or blue": "Give him green hair"},
    }
    editor = load_editor(make_tiny_editor(settings=settings))
    assert editor.unknown_instruction("give him blue hair") is None
    warning = editor.unknown_instruction("give him a hat")
    assert warning is not None and 'hair in green or blue: "Give him green hair"' in warning
    assert "hair_green" not in warning and "Give him blue hair" not in warning


def test_a_model_without_a_list_takes_any_sentence(tiny_editor_folder):
    assert load_editor(tiny_editor_folder).unknown_instruction("give him a hat") is None


def test_options_override(make_tiny_editor):
    editor = load_editor(
        make_tiny_editor(settings={"resolution": 64}), resolution=48, dtype="bfloat16", views_per_forward=2
    )
    assert (
        editor.defaults.resolution == 48
        and editor.settings["dtype"] == "bfloat16"
        and editor.views_per_forward == 2
    )


@pytest.mark.parametrize(
    "gone", ["model_index.json", "unet", "vae", "text_encoder", "tokenizer", "scheduler"]
)
def test_a_missing_part_is_named(tiny_editor_folder, tmp_path, gone):
    folder = shutil.copytree(tiny_editor_folder, tmp_path / "model")
    shutil.rmtree(folder / gone) if (folder / gone).is_dir() else (folder / gone).unlink()
    with pytest.raises(FileNotFoundError, match=gone) as error:
        load_editor(folder)
    assert "demo" in str(error.value) and "--pipeline.editor.model" in str(error.value)


OTHER_CLASSES = ("StableDiffusionPipeline", "FluxPipeline", "FluxKontextInpaintPipeline")


@pytest.fixture
def no_weights_are_read(monkeypatch):
    """Fails where a model is read or downloaded."""

    def fail(*_, **__):
        pytest.fail("weights were read")

    monkeypatch.setattr(loading, "_read_pipeline", fail)


@pytest.mark.parametrize("name", OTHER_CLASSES)
@pytest.mark.parametrize("check", [check_model, load_editor])
@pytest.mark.usefixtures("no_weights_are_read")
def test_a_folder_of_another_class_is_refused_by_its_name(tmp_path, name, check):
    """Before anything is said of parts: what it lacks is no damage."""
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": name}))
    with pytest.raises(UserError, match=rf"class {name}\.") as error:
        check(tmp_path)
    for part in (
        str(tmp_path),
        *FAMILIES,
        "timbrooks/instruct-pix2pix",
        "--pipeline.editor.model demo",
    ):
        assert part in str(error.value)


@pytest.mark.parametrize("name", [*OTHER_CLASSES, *FAMILIES])
def test_the_class_names_are_those_of_diffusers(name):
    import diffusers

    assert hasattr(diffusers, name)


@pytest.mark.usefixtures("no_weights_are_read")
def test_an_index_without_a_class_is_refused(tmp_path):
    (tmp_path / "model_index.json").write_text(json.dumps({"unet": ["diffusers", "UNet2DConditionModel"]}))
    with pytest.raises(UserError, match="names no class"):
        load_editor(tmp_path)


@pytest.mark.parametrize("check", [check_model, load_editor])
@pytest.mark.usefixtures("no_weights_are_read")
def test_a_hub_model_of_another_class_is_refused_before_its_weights_are_fetched(tmp_path, monkeypatch, check):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    repository = tmp_path / "models--black-forest-labs--FLUX.1-dev"
    snapshot = repository / "snapshots" / "0123"
    snapshot.mkdir(parents=True)
    (snapshot / "model_index.json").write_text(json.dumps({"_class_name": "FluxPipeline"}))
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0123")
    with pytest.raises(UserError, match=r"FLUX\.1-dev: .* class FluxPipeline"):
        check("black-forest-labs/FLUX.1-dev")


@pytest.mark.usefixtures("no_weights_are_read")
def test_a_unet_without_channels_for_the_image_is_refused_before_weights_are_read(
    tiny_editor_folder, tmp_path
):
    folder = shutil.copytree(tiny_editor_folder, tmp_path / "model")
    config = folder / "unet" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"in_channels": 4}))
    with pytest.raises(UserError, match=r"takes 4 channels, expected 8"):
        load_editor(folder)


def test_a_folder_is_checked_without_pytorch():
    """A wrong option is answered at once."""
    code = (
        "import sys; from edit3dgs_ns.editing.diffusion.model_folder import check_model; check_model('demo'); "
        "sys.exit(bool({'torch', 'diffusers', 'transformers'} & set(sys.modules)))"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_pickled_weights_are_not_read(tiny_editor_folder, tmp_path):
    import torch
    from safetensors.torch import load_file

    folder = shutil.copytree(tiny_editor_folder, tmp_path / "model")
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    torch.save(load_file(weights), folder / "unet" / "diffusion_pytorch_model.bin")
    weights.unlink()
    with pytest.raises(FileNotFoundError, match="safetensors"):
        load_editor(folder)


def test_code_from_elsewhere_is_refused(tiny_editor_folder, tmp_path):
    folder = shutil.copytree(tiny_editor_folder, tmp_path / "model")
    index = json.loads((folder / "model_index.json").read_text())
    index["unet"] = ["os", "system"]
    (folder / "model_index.json").write_text(json.dumps(index))
    with pytest.raises(ValueError, match="only diffusers and transformers"):
        load_editor(folder)


@pytest.mark.parametrize("content", ["{", "[1]", b"\xff\xfe\x00", "[" * 100_000])
def test_a_damaged_index_names_option_and_file(tmp_path, content):
    path = tmp_path / "model_index.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError, match=r"--pipeline.editor.model: .*model_index\.json.* again"):
        check_model(tmp_path)


def test_damaged_weights_say_which_model(tiny_editor_folder, tmp_path):
    folder = shutil.copytree(tiny_editor_folder, tmp_path / "model")
    weights = folder / "vae" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(UserError, match="cannot be loaded") as error:
        load_editor(folder)
    assert str(folder) in str(error.value)


def test_a_plain_diffusion_model_is_no_editor(tiny_editor_folder, make_request):
    editor = load_editor(tiny_editor_folder)
    from diffusers import UNet2DConditionModel

    from edit3dgs_ns.editing.diffusion.instruct_pix2pix import InstructPix2Pix

    config = dict(editor.unet.config) | {"in_channels": 4}
    plain = UNet2DConditionModel.from_config(config)
    with pytest.raises(ValueError, match="no InstructPix2Pix"):
        InstructPix2Pix(plain, editor.vae, editor.text_encoder, editor.tokenizer, editor.scheduler)


def test_offline_without_the_weights(tmp_path, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(FileNotFoundError) as error:
        load_editor("timbrooks/instruct-pix2pix")
    for part in ("timbrooks/instruct-pix2pix", "HF_HUB_OFFLINE", "--pipeline.editor.model demo"):
        assert part in str(error.value)


@pytest.mark.parametrize("text", ["no/such/folder/here", "/nowhere/at/all", "justaword", "./editor"])
def test_neither_folder_nor_hub_id(text):
    with pytest.raises(FileNotFoundError, match="no such folder"):
        find_model(text)


def test_demo_is_the_embedded_folder(tiny_editor_folder, monkeypatch):
    monkeypatch.setattr(model_folder, "DEMO_FOLDER", tiny_editor_folder)
    assert find_model("demo") == tiny_editor_folder
    assert load_editor("demo").settings["model"] == "demo"


def test_demo_flow_is_the_other_one(tmp_path, monkeypatch):
    assert find_model("demo-flow").name == "demo_flow_editor"
    monkeypatch.setattr(model_folder, "DEMO_FLOW_FOLDER", tmp_path)
    with pytest.raises(FileNotFoundError, match=r"demo-flow.*without its data"):
        load_editor("demo-flow")


@pytest.mark.parametrize("settings", [{"steps": "many"}, {"text_options": {"prompt": "another"}}])
def test_bad_settings_name_the_file(make_tiny_editor, settings):
    with pytest.raises(ValueError, match=r"edit3dgs\.json"):
        load_editor(make_tiny_editor(settings=settings))


@pytest.mark.parametrize("correspondence", ["none", "rig"])
def test_attention_slicing_gives_the_same(tiny_editor_folder, make_request, correspondence):
    from diffusers.models.attention_processor import SlicedAttnProcessor

    y, x = np.mgrid[:32, :32].astype(np.float32) / 320
    request = make_request(
        views=3,
        canonical=np.tile(np.stack([x, y, 0 * x], axis=-1), (3, 1, 1, 1)),
        c2w=np.tile(np.eye(4, dtype=np.float32), (3, 1, 1)),
        steps=2,
    )
    sharing = SharingOptions(correspondence, views_per_key=2)
    sliced = load_editor(tiny_editor_folder, sharing=sharing, attention_slicing=True)
    assert all(isinstance(p, SlicedAttnProcessor) for p in sliced.unet.attn_processors.values())
    expected = load_editor(tiny_editor_folder, sharing=sharing).edit(request).images
    np.testing.assert_allclose(sliced.edit(request).images, expected, atol=1e-4)


@pytest.mark.parametrize("offload", ["model", "layers"])
def test_offloaded_parts_come_when_they_are_used(tiny_editor_folder, make_request, offload, monkeypatch):
    """accelerate's hooks, with the CPU in the place of the device."""
    request = make_request(views=2, steps=2)
    expected = load_editor(tiny_editor_folder).edit(request).images
    monkeypatch.setattr(loading, "check_device", lambda device, offload: None)
    editor = load_editor(tiny_editor_folder, offload=offload)
    parts = (editor.unet, editor.vae, editor.text_encoder)
    assert all(hasattr(part, "_hf_hook") for part in parts)
    if offload == "layers":
        assert all(p.device.type == "meta" for part in parts for p in part.parameters())
    for _ in range(2):
        np.testing.assert_allclose(editor.edit(request).images, expected, atol=1e-5)


def test_offloading_frees_the_device_after_an_edit(tiny_editor_folder, make_request, monkeypatch):
    freed = []
    place = loading._place

    def record(pipeline, device, offload):
        free_memory = place(pipeline, device, offload)
        return lambda: (freed.append(True), free_memory())

    monkeypatch.setattr(loading, "check_device", lambda device, offload: None)
    monkeypatch.setattr(loading, "_place", record)
    editor = load_editor(tiny_editor_folder, offload="model")
    editor.edit(make_request(views=1, steps=1))
    with pytest.raises(RuntimeError):
        editor.edit(make_request(views=1, steps=1), progress=lambda *_: (_ for _ in ()).throw(RuntimeError))
    assert freed == [True, True]


def test_what_the_device_cannot_do_is_named(tiny_editor_folder, monkeypatch):
    import torch

    with pytest.raises(ValueError, match=r"--pipeline\.editor\.offload model"):
        load_editor(tiny_editor_folder, offload="model")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match=r"--pipeline\.editor\.device cuda"):
        load_editor(tiny_editor_folder, device="cuda")


@pytest.mark.parametrize(("name", "half"), [("InstructPix2Pix", "float16")])
def test_auto_precision_is_half_on_cuda_only(name, half):
    import torch

    family = next(family for family in FAMILIES.values() if family.title == name)
    assert loading._precision("auto", torch.device("cuda"), family) == getattr(torch, half)
    assert loading._precision("auto", torch.device("cpu"), family) == torch.float32
    assert loading._precision("bfloat16", torch.device("cuda"), family) == torch.bfloat16


@pytest.mark.parametrize("correspondence", ["none", "rig"])
def test_a_processor_with_bfloat16_halves_the_unet_alone_and_edits_the_same(
    correspondence, make_request, monkeypatch
):
    y, x = np.mgrid[:32, :32].astype(np.float32) / 320
    canonical = np.tile(np.stack([x, y, 0 * x], axis=-1), (2, 1, 1, 1))
    c2w = np.tile(np.eye(4, dtype=np.float32), (2, 1, 1))
    c2w[:, 2, 3] = 1
    request = make_request(views=2, canonical=canonical, c2w=c2w, steps=4)
    sharing = SharingOptions(correspondence)
    expected = load_editor("demo", sharing=sharing, dtype="float32").edit(request).images
    monkeypatch.setattr(loading, "multiplies_bfloat16", lambda: True)
    editor = load_editor("demo", sharing=sharing)
    assert (editor.unet.dtype, editor.vae.dtype) == (torch.bfloat16, torch.float32)
    difference = np.abs(editor.edit(request).images - expected)
    assert 0 < difference.mean() < 0.004, difference.mean()


def test_bits_in_bfloat16_do_not_depend_on_how_views_are_shared_out(make_request, monkeypatch):
    monkeypatch.setattr(loading, "multiplies_bfloat16", lambda: True)
    editor = load_editor("demo")
    request = make_request(views=3, steps=2)
    alone = [editor.edit(request.part([view])).images[0] for view in range(3)]
    np.testing.assert_array_equal(editor.edit(request).images, alone)
