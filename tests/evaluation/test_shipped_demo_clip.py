"""The embedded demo CLIP: what is shipped is a CLIP of transformers, small, and knows people that it was never trained on."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from safetensors import safe_open
from transformers import CLIPModel, CLIPProcessor

from edit3dgs_ns.evaluation.clip import Clip
from edit3dgs_ns.evaluation.clip_files import DEMO_FOLDER
from tools.data.demo_clip import data, evaluate
from tools.data.demo_clip.captions import PLAIN, Facts, looks, usual_caption
from tools.data.demo_clip.settings import Settings

PEOPLE = 5
FIRST = data.HELDOUT_SEED + 5000
"""Neither trained on nor among the people of the tool's own evaluation."""


@pytest.fixture(scope="module")
def clip() -> Clip:
    return Clip("demo")


@pytest.fixture(scope="module")
def people() -> tuple[np.ndarray, list[Facts]]:
    """Every look of a few people, and what is true of each picture."""
    scenes = [data.render_scene(FIRST + i, Settings()) for i in range(PEOPLE)]
    facts = [Facts(**{**vars(known), "look": look}) for _, known in scenes for look in looks()]
    return np.concatenate([pictures for pictures, _ in scenes]), facts


def test_it_is_small_and_of_half_precision() -> None:
    files = [path for path in DEMO_FOLDER.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 15e6
    assert {path.suffix for path in files} <= {".json", ".safetensors", ".txt"}  # nothing that is unpickled
    with safe_open(DEMO_FOLDER / "model.safetensors", "pt") as weights:
        kinds = {weights.get_tensor(name).dtype for name in weights.keys() if "position_ids" not in name}  # noqa: SIM118
    assert kinds == {torch.float16}


def test_its_figures_say_what_they_were_made_with(clip: Clip) -> None:
    note = json.loads((DEMO_FOLDER / "edit3dgs.json").read_text())
    assert "demo CLIP" in clip.note and "synthetic" in clip.note
    assert note["accuracy_of_twelve_captions"] >= evaluate.GOAL


def test_transformers_reads_it_as_its_own(clip: Clip, people: tuple[np.ndarray, list[Facts]]) -> None:
    """Against CLIPModel's own forward pass, with CLIPProcessor preparing pictures and captions."""
    pictures, texts = list(people[0][:3]), ["a photo of a man", "a bronze statue of a woman, smiling"]
    model = CLIPModel.from_pretrained(DEMO_FOLDER, torch_dtype=torch.float32).eval()
    processor = CLIPProcessor.from_pretrained(DEMO_FOLDER)
    with torch.no_grad():
        out = model(**processor(text=texts, images=pictures, return_tensors="pt", padding=True))
    np.testing.assert_allclose(clip.embed_images(pictures), out.image_embeds, atol=1e-5)
    np.testing.assert_allclose(clip.embed_texts(texts), out.text_embeds, atol=1e-5)


def test_it_knows_people_that_it_was_never_trained_on(
    clip: Clip, people: tuple[np.ndarray, list[Facts]]
) -> None:
    """A sample; the accuracy in edit3dgs.json is of the tool's 64 people."""
    found = evaluate.accuracy(evaluate.evaluate(clip, *people))
    assert found >= 0.75  # of twelve captions; chance is 0.08


def test_directions_of_edits_are_their_captions(clip: Clip, people: tuple[np.ndarray, list[Facts]]) -> None:
    """CLIP-S of true edits, averaged over the people, is highest for the edit's own caption."""
    pictures = clip.embed_images(list(people[0])).reshape(PEOPLE, len(looks()), -1)
    texts = clip.embed_texts([usual_caption(look, None).text for look in looks()])
    plain = looks().index(PLAIN)
    edits = [i for i in range(len(looks())) if i != plain]
    changes = pictures[:, edits] - pictures[:, [plain]]
    wanted = texts[edits] - texts[plain]
    unit = [rows / np.linalg.norm(rows, axis=-1, keepdims=True) for rows in (changes, wanted)]
    scores = (unit[0] @ unit[1].T).mean(axis=0)
    assert (scores.argmax(axis=1) == np.arange(len(edits))).mean() >= 8 / 9
    assert (np.diag(scores) > 0.2).all()
