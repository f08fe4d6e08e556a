"""CLIP embeddings, CLIP-S and CLIP-C against a computation of their own: transformers' own forward pass, PIL and plain loops."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edit3dgs_ns.evaluation import clip_files
from edit3dgs_ns.evaluation.clip import Clip
from edit3dgs_ns.evaluation.clip_files import clip_note, find_clip
from edit3dgs_ns.evaluation.clip_scores import direction_consistency, direction_similarity
from tests.tiny_clip import SIZE, save_tiny_clip

SOURCE, TARGET = "a photo of a man", "a photo of an old man with green skin"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_clip(tmp_path_factory.mktemp("clip"), note="A random CLIP.")


def pictures(count: int, height: int, width: int, seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (count, height // 8, width // 8, 3)).astype(np.uint8)
    return [np.kron(image, np.ones((8, 8, 1), np.uint8)) for image in coarse]


class Oracle:
    """transformers' CLIP, one picture or caption at a time, pictures prepared by PIL and numpy as CLIP's paper's code does."""

    MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)

    def __init__(self, folder: Path):
        from transformers import CLIPModel, CLIPTokenizer

        self.model = CLIPModel.from_pretrained(folder).eval()
        self.tokenizer = CLIPTokenizer.from_pretrained(folder)

    def run(self, caption: str, picture: np.ndarray) -> tuple[list[float], list[float]]:
        """(text, image) embeddings of unit length."""
        import torch

        height, width = picture.shape[:2]
        scale = SIZE / min(height, width)
        size = (int(width * scale), int(height * scale))
        scaled = np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.BICUBIC), np.float64)
        top, left = (size[1] - SIZE) // 2, (size[0] - SIZE) // 2
        pixels = (scaled[top : top + SIZE, left : left + SIZE] / 255 - self.MEAN) / self.STD
        tokens = self.tokenizer([caption], return_tensors="pt")
        with torch.no_grad():
            output = self.model(
                input_ids=tokens["input_ids"],
                attention_mask=tokens["attention_mask"],
                pixel_values=torch.from_numpy(pixels).permute(2, 0, 1)[None].float(),
            )
        return output.text_embeds[0].tolist(), output.image_embeds[0].tolist()

    def image(self, picture: np.ndarray) -> list[float]:
        return self.run("a", picture)[1]

    def text(self, caption: str) -> list[float]:
        return self.run(caption, np.zeros((SIZE, SIZE, 3), np.uint8))[0]


def cosine(a: list[float], b: list[float]) -> float:
    dot = sum(x * y for x, y in zip(a, b, strict=True))
    return dot / math.sqrt(sum(x * x for x in a)) / math.sqrt(sum(y * y for y in b))


def minus(a: list[float], b: list[float]) -> list[float]:
    return [x - y for x, y in zip(a, b, strict=True)]


@pytest.mark.parametrize("size", [(48, 48), (72, 56)], ids=["square", "tall"])
def test_scores_are_those_of_an_independent_computation(folder: Path, size: tuple[int, int]) -> None:
    before, after = pictures(5, *size, seed=1), pictures(5, *size, seed=2)
    oracle = Oracle(folder)
    changes = [minus(oracle.image(b), oracle.image(a)) for a, b in zip(before, after, strict=True)]
    text = minus(oracle.text(TARGET), oracle.text(SOURCE))
    expected_s = [cosine(change, text) for change in changes]
    expected_c = [cosine(changes[i], changes[i + 1]) for i in range(4)]

    clip = Clip(folder, batch=3)
    a, b = clip.embed_images(before), clip.embed_images(after)
    source, target = clip.embed_texts([SOURCE, TARGET])
    np.testing.assert_allclose(direction_similarity(a, b, source, target), expected_s, atol=2e-4)
    np.testing.assert_allclose(direction_consistency(a, b), expected_c, atol=2e-4)
    assert np.std(expected_s) > 0.01  # a CLIP that sees nothing would pass everything


def test_embeddings_do_not_depend_on_the_batch(folder: Path) -> None:
    images = [*pictures(3, 48, 48), *pictures(2, 40, 64)]
    together = Clip(folder, batch=16).embed_images(images)
    alone = np.concatenate([Clip(folder, batch=1).embed_images([image]) for image in images])
    np.testing.assert_allclose(together, alone, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-5)
    assert Clip(folder).embed_images([]).shape == (0, Clip(folder).size)


def test_captions_of_several_lengths_and_one_that_is_too_long(folder: Path) -> None:
    clip = Clip(folder)
    captions = [SOURCE, TARGET, "a", "photo of " * 60]
    together = clip.embed_texts(captions)
    alone = np.concatenate([clip.embed_texts([caption]) for caption in captions])
    np.testing.assert_allclose(together, alone, atol=1e-5)


def test_fingerprint_changes_with_weights_and_preparation(folder: Path, tmp_path: Path) -> None:
    own = Clip(folder).fingerprint
    assert Clip(folder).fingerprint == own
    assert Clip(save_tiny_clip(tmp_path / "other", seed=1)).fingerprint != own
    copy = shutil.copytree(folder, tmp_path / "copy")
    settings = json.loads((copy / "preprocessor_config.json").read_text())
    (copy / "preprocessor_config.json").write_text(json.dumps({**settings, "do_center_crop": False}))
    assert Clip(copy).fingerprint != own


def test_directions_by_hand() -> None:
    east, north = np.array([1.0, 0.0]), np.array([0.0, 1.0])
    before = np.array([[0.0, 0.0], [1.0, 1.0], [0.0, 0.0], [2.0, 0.0]])
    after = before + np.array([[1.0, 0.0], [1.0, 1.0], [-3.0, 0.0], [0.0, 0.0]])
    source, target = north, north + 0.5 * east
    np.testing.assert_allclose(
        direction_similarity(before, after, source, target), [1, math.sqrt(0.5), -1, 0], atol=1e-12
    )
    np.testing.assert_allclose(
        direction_consistency(before, after), [math.sqrt(0.5), -math.sqrt(0.5), 0], atol=1e-12
    )
    with pytest.raises(ValueError, match="mean the same"):
        direction_similarity(before, after, source, source)
    assert len(direction_consistency(before[:1], after[:1])) == 0


def test_note_of_our_own_models_is_read(folder: Path) -> None:
    assert Clip(folder).note == "A random CLIP."
    assert clip_note("somebody/clip") == ""


@pytest.mark.parametrize(
    ("remove", "named"),
    [
        (("tokenizer.json", "vocab.json"), "tokenizer"),
        (("model.safetensors",), "safetensors"),
        (("preprocessor_config.json",), "preprocessor_config.json"),
        (("config.json",), "config.json"),
    ],
)
def test_a_folder_that_is_not_whole_is_refused(
    folder: Path, tmp_path: Path, remove: tuple[str, ...], named: str
) -> None:
    copy = shutil.copytree(folder, tmp_path / "copy")
    for name in remove:
        (copy / name).unlink(missing_ok=True)
    with pytest.raises(FileNotFoundError, match=named) as caught:
        find_clip(str(copy))
    assert "--clip" in str(caught.value) and "missing" in str(caught.value)


def test_another_kind_of_model_and_a_broken_one_are_refused(folder: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(folder, tmp_path / "copy")
    settings = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**settings, "model_type": "bert"}))
    with pytest.raises(ValueError, match="model_type 'bert'"):
        find_clip(copy)
    (copy / "config.json").write_text("{")
    with pytest.raises(ValueError, match="not valid JSON"):
        find_clip(copy)
    shutil.copyfile(folder / "config.json", copy / "config.json")
    (copy / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(ValueError, match="cannot be loaded as a CLIP"):
        Clip(copy)


def test_what_is_no_clip_at_all(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert find_clip("openai/clip-vit-large-patch14") == "openai/clip-vit-large-patch14"
    for wrong, message in (("no-such-folder", "no such folder"), (str(tmp_path / "gone"), "no such folder")):
        with pytest.raises(FileNotFoundError, match=message):
            find_clip(wrong)
    with pytest.raises(ValueError, match="is empty"):
        find_clip(" ")
    monkeypatch.setattr(clip_files, "DEMO_FOLDER", tmp_path / "demo")
    with pytest.raises(FileNotFoundError, match=r"tools\.data\.demo_clip all"):
        find_clip("demo")


def test_a_model_that_cannot_be_had_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a network and without a cache; the hub is never asked."""
    from transformers import CLIPTokenizerFast

    def fail(*args: object, **options: object) -> None:
        raise OSError("We couldn't connect to 'https://huggingface.co'")

    monkeypatch.setattr(CLIPTokenizerFast, "from_pretrained", fail)
    with pytest.raises(FileNotFoundError, match="hf download somebody/some-clip"):
        Clip("somebody/some-clip")


def test_words_that_a_small_clip_was_never_shown(folder: Path, tmp_path: Path) -> None:
    assert (
        Clip(folder).unknown_words("a photo of a unicorn") == []
    )  # whoever made it has not said which words it knows
    copy = shutil.copytree(folder, tmp_path / "copy")
    (copy / "edit3dgs.json").write_text(json.dumps({"note": "x", "words": ["a", "photo", "of", "man"]}))
    clip = Clip(copy)
    assert clip.unknown_words("A photo of a man.") == []
    assert clip.unknown_words("a photo of a man with a hat, a hat") == ["with", "hat"]
