"""tools/data/demo_clip on toys: what captions claim, stopping and going on, the whole way to a CLIP that is used."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from edit3dgs_ns.evaluation.clip import Clip
from tools.data.demo_clip import __main__ as tool
from tools.data.demo_clip import captions, data, evaluate, model, train
from tools.data.demo_clip.captions import Caption, Facts, agrees, candidates, draw_caption, looks, truth_table
from tools.data.demo_clip.export import MAX_MEGABYTES
from tools.data.demo_clip.settings import Settings, Workspace
from tools.data.demo_editor.state import load_state

WOMAN = Facts(look="older", male=False, hair="long", mouth_open=True, eyes_shut=False, smiling=False)


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A work folder with a few rendered toys."""
    root = tmp_path_factory.mktemp("work")
    run("data", Workspace(root))
    return Workspace(root)


def run(stage: str, work: Workspace, *more: str) -> int:
    common = ["--tiny", "--work", str(work.root), "--out", str(work.root / "out"), "--processes", "1"]
    return tool.main([stage, *common, "--scenes", "24", "--heldout", "8", "--minutes", "60", *more])


# -- captions ---------------------------------------------------------------------------------------------------------


def test_a_caption_is_true_of_what_agrees_with_all_it_says() -> None:
    assert agrees(Facts(), WOMAN) and agrees(Facts(look="older"), WOMAN) and agrees(WOMAN, WOMAN)
    for wrong in (
        {"look": "plain"},
        {"male": True},
        {"hair": "short"},
        {"mouth_open": False},
        {"smiling": True},
    ):
        assert not agrees(Facts(**wrong), WOMAN)  # type: ignore[arg-type]
        assert not agrees(replace(WOMAN, **wrong), WOMAN)  # type: ignore[arg-type]
    table = truth_table(
        [Caption("", Facts(male=True)), Caption("", Facts(look="older"))], [WOMAN, replace(WOMAN, male=True)]
    )
    assert table.tolist() == [[False, True], [True, True]]


@pytest.mark.parametrize("look", looks())
def test_drawn_captions_are_true_and_many(look: str) -> None:
    rng = np.random.default_rng(0)
    picture = replace(WOMAN, look=look)
    drawn = [draw_caption(picture, rng) for _ in range(200)]
    assert all(agrees(caption.claims, picture) and caption.claims.look == look for caption in drawn)
    assert len({caption.text for caption in drawn}) > 15
    assert not any(" man" in caption.text for caption in drawn)
    assert all("{" not in caption.text for caption in drawn)


@pytest.mark.parametrize("look", looks())
def test_of_twelve_candidates_the_first_alone_is_true(look: str) -> None:
    picture = replace(WOMAN, look=look)
    chosen = candidates(picture, 12, np.random.default_rng(1))
    assert len({caption.text for caption in chosen}) == 12
    assert truth_table(chosen, [picture]).tolist() == [[True] + [False] * 11]
    said = {caption.claims.look for caption in chosen}
    assert len(said) == min(len(looks()), 12)  # every other look is there, as far as there is room
    assert any(caption.claims == Facts(look=look, male=True) for caption in chosen)


def test_all_words_of_captions_are_whole_tokens(tmp_path: Path) -> None:
    tokenizer = model.make_tokenizer(tmp_path, Settings())
    assert all(len(tokenizer.tokenize(word)) == 1 for word in captions.caption_words())
    longest = max(
        (
            draw_caption(replace(WOMAN, look=look), np.random.default_rng(s)).text
            for look in looks()
            for s in range(40)
        ),
        key=len,
    )
    assert len(tokenizer(longest)["input_ids"]) <= Settings().max_tokens


# -- data -------------------------------------------------------------------------------------------------------------


def test_facts_of_a_person_are_those_of_the_rig() -> None:
    from edit3dgs_ns.synthetic.identity import random_identity
    from edit3dgs_ns.synthetic.motion import face

    genders = set()
    for seed in range(6):
        identity = random_identity(seed)
        head = identity.head
        facts = data._facts(identity, face(head, {"eyeBlinkLeft": 1.0, "eyeBlinkRight": 1.0}, jaw=0.3))
        assert (facts.mouth_open, facts.eyes_shut, facts.smiling) == (True, True, False)
        calm = data._facts(identity, face(head, {"mouthSmileLeft": 0.9, "mouthSmileRight": 0.9}))
        assert (calm.mouth_open, calm.eyes_shut, calm.smiling) == (False, False, True)
        assert facts.hair == calm.hair and facts.hair in captions.HAIR
        # Beards are drawn for men alone.
        assert facts.male or identity.appearance.beard == 0
        genders.add(facts.male)
    assert genders == {True, False}


def test_shards_are_rendered_once_and_know_their_looks(
    work: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = data.shards(work.train_shards)
    images, facts = data.load(paths)
    assert len(paths) == 6 and images.shape == (24 * len(looks()), 36, 36, 3)
    assert [picture.look for picture in facts[: len(looks())]] == list(looks())
    before = [path.stat().st_mtime_ns for path in paths]
    paths[2].unlink()
    assert data.write_shards(work.train_shards, 0, 24, Settings.tiny()) == 4
    after = [path.stat().st_mtime_ns for path in data.shards(work.train_shards)]
    assert [a == b for a, b in zip(before, after, strict=True)] == [True, True, False, True, True, True]
    again, _ = data.load(data.shards(work.train_shards))
    np.testing.assert_array_equal(again, images)
    monkeypatch.setattr(data, "looks", lambda: ("plain", "new"))
    with pytest.raises(ValueError, match="the capture now has plain, new"):
        data.load(paths[:1])
    with pytest.raises(FileNotFoundError, match="`data` stage"):
        data.load([])


def test_held_out_people_are_others() -> None:
    assert data.HELDOUT_SEED > 1_000_000
    assert not np.array_equal(
        data.render_scene(0, Settings.tiny())[0], data.render_scene(data.HELDOUT_SEED, Settings.tiny())[0]
    )


def test_augmented_pictures_are_of_the_models_range_and_vary(work: Workspace) -> None:
    images, _ = data.load(data.shards(work.train_shards)[:1])
    settings = Settings.tiny()
    same = np.repeat(images[:1], 6, axis=0)
    out = model.augmented(same, settings, torch.Generator().manual_seed(0))
    assert out.shape == (6, 3, settings.resolution, settings.resolution)
    assert float(out.std(dim=0).mean()) > 0.02
    low, high = model.normalised(torch.zeros(1, 3, 1, 1)), model.normalised(torch.ones(1, 3, 1, 1))
    assert bool((out >= low - 1e-5).all()) and bool((out <= high + 1e-5).all())


# -- training ---------------------------------------------------------------------------------------------------------


def test_loss_is_siglips() -> None:
    """Against the sum written out."""
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.nn.functional.normalize(torch.randn(n, 5, generator=generator), dim=1) for n in (3, 4))
    true = torch.tensor(
        [[True, False, False, True], [False, True, False, False], [False, False, False, True]]
    )
    scale, bias = torch.tensor(1.2), torch.tensor(-0.7)
    expected = 0.0
    for i in range(3):
        for j in range(4):
            z = 1.0 if true[i, j] else -1.0
            logit = float(np.exp(1.2)) * float(a[i] @ b[j]) - 0.7
            expected += float(np.log1p(np.exp(-z * logit))) / 3
    assert float(train.sigmoid_loss(a, b, true, scale, bias)) == pytest.approx(expected, rel=1e-5)


def test_the_whole_way(work: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    run("train", work, "--steps", "10")
    assert load_state(work.state)["step"] == 10  # type: ignore[index]
    run("train", work, "--steps", "250")
    assert load_state(work.state)["step"] == 250  # type: ignore[index]
    run("export", work)
    out = work.root / "out"
    assert sum(path.stat().st_size for path in out.rglob("*")) < MAX_MEGABYTES * 1e6
    assert not [path for path in work.root.iterdir() if path.name.startswith(".out")]

    tokenizer, trained = train.load_trained(work, Settings.tiny())
    clip = Clip(out)
    assert "demo CLIP" in clip.note
    text = "a photo of the face of an old man"
    with torch.no_grad():
        expected = model.embed_captions(trained, tokenizer, [text]).numpy()
    np.testing.assert_allclose(clip.embed_texts([text]), expected, atol=2e-2)  # half precision

    code = run("evaluate", work)
    assert "out of 12" in capsys.readouterr().out
    found = json.loads((out / "edit3dgs.json").read_text())["accuracy_of_twelve_captions"]
    assert found > 3 / 12  # a CLIP that has learnt nothing: 1 / 12
    assert code == (0 if found >= evaluate.GOAL else 1)


def test_exporting_before_training_says_so(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="`train` stage"):
        run("export", Workspace(tmp_path))


def test_the_shipped_sizes_stay_small(tmp_path: Path) -> None:
    settings = Settings()
    clip = model.make_clip(model.make_tokenizer(tmp_path, settings), settings)
    assert 2 * sum(p.numel() for p in clip.parameters()) < MAX_MEGABYTES * 1e6
