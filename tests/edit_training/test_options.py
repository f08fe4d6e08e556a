"""Options as an older config.yml holds them, and what is refused of them before anything is loaded."""

import json
import math
from dataclasses import replace

import pytest
import yaml
from PIL import Image

from edit3dgs_ns.edit_training.checks import check_editor
from edit3dgs_ns.edit_training.options import EditorConfig
from edit3dgs_ns.editing.diffusion.families import FAMILIES
from edit3dgs_ns.errors import UserError


def test_the_timestep_of_an_older_config_becomes_its_noise_level():
    """Runs used to say timestep 600 of Stable Diffusion's schedule, and 1000 for never."""
    text = yaml.dump(EditorConfig(share_prediction_until=0.3))
    for found, level in (("0.3", 0.3), ("600", 0.69555), ("1000", 1.0), ("0", 0.0)):
        older = text.replace("share_prediction_until: 0.3", f"share_prediction_until: {found}")
        config = yaml.load(older, Loader=yaml.Loader)
        assert abs(config.share_prediction_until - level) < 1e-4
        assert config.views_per_key == 5


@pytest.fixture
def model_of(tmp_path):
    """A folder that looks like a model of a family, whose weights nobody may read: they are empty."""

    def make(class_name: str, **index) -> str:
        family = FAMILIES[class_name]
        folder = tmp_path / class_name
        for part in (*family.weights, *family.others):
            (folder / part).mkdir(parents=True)
            (folder / part / "model.safetensors").touch()
        (folder / "model_index.json").write_text(json.dumps({"_class_name": class_name, **index}))
        return str(folder)

    return make


@pytest.mark.parametrize(
    ("class_name", "options", "message"),
    [
        ("FluxKontextPipeline", {"image_guidance_scale": 1.5}, "image-guidance-scale 1.5: .* is FLUX.1 Kontext, which has no"),
        ("Flux2KleinPipeline", {"guidance_scale": 4.0}, "guidance-scale 4: .* is FLUX.2 klein, which has no"),
        ("QwenImageEditPipeline", {"resolution": 512}, "resolution 512: Qwen-Image-Edit edits at one size"),
        ("LongCatImageEditPipeline", {"correspondence": "epipolar"}, "correspondence epipolar needs .* is LongCat-Image-Edit"),
    ],
)  # fmt: skip
def test_what_a_family_has_no_use_for_is_refused_by_name_before_weights_are_read(
    model_of, class_name, options, message
):
    config = EditorConfig(model=model_of(class_name, is_distilled=True))
    check_editor(config)
    with pytest.raises(UserError, match=rf"--pipeline\.editor\.{message}"):
        check_editor(replace(config, **options))


def test_a_weight_that_only_some_models_of_a_family_have(model_of):
    check_editor(EditorConfig(model=model_of("Flux2KleinPipeline", is_distilled=False), guidance_scale=4.0))


@pytest.mark.parametrize(
    "options",
    [
        {"guidance_scale": math.nan},
        {"image_guidance_scale": math.inf},
        {"guidance_scale": -1.0},
        {"steps": 0},
        {"steps": 10**6},
        {"resolution": -8},
        {"resolution": 10**6},
    ],
)
def test_numbers_that_nothing_can_be_edited_with_are_refused(options):
    name = next(iter(options)).replace("_", "-")
    with pytest.raises(UserError, match=rf"--pipeline\.editor\.{name} .*expected a number from"):
        check_editor(EditorConfig(model="demo", **options))


def test_references_are_images_of_a_size_that_can_be_used(model_of, tmp_path):
    config = EditorConfig(model=model_of("Flux2KleinPipeline"))
    text, line, good = (tmp_path / name for name in ("words.png", "line.png", "hat.png"))
    text.write_text("a hat")
    Image.new("L", (900, 1)).save(line)
    Image.new("L", (90, 60)).save(good)
    check_editor(replace(config, reference=(good,)))
    for path, message in (
        (text, "cannot be read as an image"),
        (line, "900 x 1 pixels"),
        (tmp_path, "no such file"),
    ):
        with pytest.raises((UserError, FileNotFoundError), match=rf"reference {path}.*{message}"):
            check_editor(replace(config, reference=(good, path)))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"steps": -3}, "-3 steps"),
        ({"guidance_scale": math.nan}, "scales .nan"),
        ({"resolution": -8}, "resolution -8"),
        ({"share_prediction_until": 600}, "share_prediction_until 600"),
        ({"steps": "many"}, "many"),
    ],
)
def test_a_models_own_defaults_are_checked(model_of, content, message):
    folder = model_of("FluxKontextPipeline")
    with open(f"{folder}/edit3dgs.json", "w") as file:
        json.dump(content, file)
    with pytest.raises(UserError, match=rf"edit3dgs.json: .*{message}.*steps"):
        check_editor(EditorConfig(model=folder))
