"""tools/data/demo_editor on toys: exact starting points, stopping and going on, the whole way to a loaded pipeline."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tools.data.demo_editor import __main__ as tool
from tools.data.demo_editor import (
    chance,
    data,
    evaluate,
    evaluate_further,
    export,
    flow,
    further,
    looking,
    models,
    samples,
    training,
    transformer,
    unet,
    vae,
    warm,
)
from tools.data.demo_editor.latents import Scenes
from tools.data.demo_editor.passthrough import PatchBasis
from tools.data.demo_editor.settings import EDIT_ORDER, OPEN_ORDER, Settings, Workspace
from tools.data.demo_editor.state import Average, Clock, load_state, save_state
from tools.data.demo_editor.team import Team


@pytest.fixture(scope="module")
def work(tmp_path_factory) -> Workspace:
    """A work folder with a few rendered toys."""
    root = tmp_path_factory.mktemp("work")
    tool.main(["data", "--tiny", "--work", str(root), "--scenes", "16", "--heldout", "4", "--minutes", "1"])
    return Workspace(root)


EDITS_DRAWN = len(EDIT_ORDER) + len(OPEN_ORDER) + len(further.FURTHER)
TOKENS = [torch.full((1, 4), edit) for edit in range(EDITS_DRAWN + 1)]
"""One wording per edit, whose token is the edit's number."""


CLEAN = samples.Levels(torch.ones(1000), torch.zeros(1000))
"""No noise at any timestep."""


def run(stage: str, work: Workspace, *more: str) -> None:
    tool.main(
        [
            stage,
            "--tiny",
            "--work",
            str(work.root),
            "--out",
            str(work.root / "out"),
            "--processes",
            "1",
            *more,
        ]
    )


def test_scenes_are_whole_and_rendered_once(work):
    paths = data.shards(work.train_shards)
    assert len(paths) == 4 and data.load_images(paths).shape == (16, 7, 32, 32, 3)
    before = [path.stat().st_mtime_ns for path in paths]
    assert data.write_shards(work.train_shards, 0, 16, Settings.tiny(), 1.0) == 0
    assert before == [path.stat().st_mtime_ns for path in data.shards(work.train_shards)]


def test_open_scenes_are_the_same_scenes_in_every_hue(work):
    opened = data.load_images(data.shards(work.open_shards))
    plain = data.load_images(data.shards(work.train_shards))
    assert opened.shape == (16, 3, 6, 32, 32, 3)
    white = (plain[:, 0] == 255).all(axis=-1)
    assert (opened.transpose(0, 3, 4, 1, 2, 5)[white] >= 254).all()
    assert len({opened[0, 1, hue].tobytes() for hue in range(6)}) == 6


def test_further_scenes_are_the_same_scenes_and_say_their_edits(work):
    paths, plain = data.shards(work.further_shards), data.load_images(data.shards(work.train_shards))
    images, numbers = data.load_images(paths), further.load_numbers(paths)
    assert images.shape == (16, further.SHOWN, 32, 32, 3) and numbers.shape == (16, further.SHOWN)
    keys = np.array(list(further.FURTHER))[numbers]
    assert keys[5].tolist() == further.edits_of(5) == further.edits_of(4), "one person, the same edits"
    for scene in range(16):
        for picture, key in zip(images[scene], keys[scene], strict=True):
            changes = key.partition("_")[0] in ("hair", "skin", "lips")
            assert (picture != plain[scene, 0]).any() == changes, key


def test_a_fifth_of_the_named_pairs_is_never_trained():
    """But every part and every colour is, in other pairs."""
    shown = {key for seed in range(0, 200, 2) for key in further.edits_of(seed)}
    assert shown == {*further.TRAINED, *further.FORMS}
    assert len(further.NEVER_TRAINED) / len(further.NAMED_COLORS) == pytest.approx(0.2, abs=0.02)
    for place in (0, 2):
        words = {key.partition("_")[place] for key in further.NEVER_TRAINED}
        assert words <= {key.partition("_")[place] for key in further.TRAINED}


def test_shards_that_are_not_rendered_yet_end_the_same_scenes(tmp_path):
    plain = [tmp_path / f"plain/{n}.npz" for n in range(4)]
    more = [tmp_path / f"more/{n}.npz" for n in (0, 1, 3)]
    assert data.same_scenes(more, plain) == more[:2] and data.same_scenes([], plain) == []


def test_unnamed_change_counts_the_person_where_the_truth_stays():
    before = np.full((4, 4, 3), 0.5)
    before[0] = 1.0  # background
    truth, edited = before.copy(), before.copy()
    truth[3] = 0.9
    edited[0], edited[1], edited[3] = 0.0, 0.6, 0.0
    assert evaluate_further.unnamed_change(before, edited, truth) == pytest.approx(0.05)


def test_heldout_seeds_are_apart(work):
    seeds = [
        np.load(path)["seeds"]
        for folder in (work.train_shards, work.heldout_shards)
        for path in data.shards(folder)
    ]
    assert len(np.unique(np.concatenate(seeds))) == 20
    assert max(seeds[0]) < data.HELDOUT_SEED <= min(seeds[-1])


@pytest.mark.parametrize(
    "settings", [Settings(), Settings.flow(), Settings.tiny()], ids=["shipped", "flow", "tiny"]
)
def test_encoder_is_exactly_the_projection(settings):
    rng = np.random.default_rng(0)
    pictures = np.clip(rng.normal(0, 0.5, (3, 64, 64, 3)).cumsum(axis=1) * 0.2, -1, 1)
    basis = PatchBasis.fit(pictures, settings.latent_channels, settings.vae_factor)
    network = models.make_vae(settings, basis)
    batch = torch.from_numpy(pictures).permute(0, 3, 1, 2).float()
    with torch.no_grad():
        latents = network.encode(batch).latent_dist.mode()
    np.testing.assert_allclose(latents, basis.encode(batch), atol=2e-3)
    assert float(latents.var()) == pytest.approx(1.0, abs=0.05)


@pytest.mark.parametrize("settings", [Settings(), Settings.tiny()], ids=["shipped", "tiny"])
def test_untrained_unet_returns_the_image_condition(settings, tmp_path):
    tokenizer = models.write_tokenizer(tmp_path, ["make", "older"], settings.max_tokens)
    editor = unet.Editor(tokenizer, settings).eval()
    tokens = tokenizer(["make older"], padding="max_length", return_tensors="pt").input_ids
    noise, condition = torch.randn(
        2, 1, settings.latent_channels, settings.latent_size, settings.latent_size
    ).unbind(0)
    with torch.no_grad():
        for timestep in (0, 999):
            output = editor(noise, condition, torch.tensor([timestep]), tokens)
            assert float((output - condition).abs().max()) < 0.02


def test_untrained_transformer_leads_to_the_original_at_every_noise_level(tmp_path):
    """Also of a white picture, whose tokens are larger than others, and in a longer picture than it is trained on."""
    settings = Settings.tiny_flow()
    _, editor = flow.make(Workspace(tmp_path, "_flow"), settings)
    noise, original, current = torch.randn(3, 1, settings.latent_channels, 16, 24)
    original[..., :8] = 2.0
    tokens = torch.arange(settings.max_tokens)[None]
    with torch.no_grad():
        for timestep in (999, 749, 99):
            level = (timestep + 1) / 1000
            noisy = (1 - level) * current + level * noise
            output = editor.eval()(noisy, original, torch.tensor([timestep]), tokens)
            assert float((output - original).abs().max()) < 0.02


def test_every_token_of_the_result_hears_what_the_whole_picture_says(tmp_path):
    """The mean noise that chooses a hue, and the difference of the mean colours, up to known factors."""
    settings = Settings.tiny_flow()
    _, editor = flow.make(Workspace(tmp_path, "_flow"), settings)
    places, heard = transformer._Places(settings), {}
    editor.transformer.single_transformer_blocks[0].register_forward_hook(
        lambda module, given, out: heard.update(out=out)
    )
    noisy, original = torch.randn(2, 2, settings.latent_channels, 8, 12).unbind(0)
    words = torch.arange(settings.max_tokens).repeat(2, 1)
    with torch.no_grad():
        editor.eval()(noisy, original, torch.tensor([999, 499]), words)
    tokens = heard["out"][:, settings.max_tokens : settings.max_tokens + 24, : places.free]
    for directions, expected in (
        (places.hue, noisy[:, -chance.CHOOSING :].mean(dim=(2, 3))),
        (places.trend, (noisy - original)[:, :3].mean(dim=(2, 3))),
    ):
        found = tokens @ directions
        assert torch.allclose(found, found[:, :1].expand_as(found), atol=1e-3)
        ratio = found[:, 0] / expected
        assert torch.allclose(ratio, ratio[0, 0].expand_as(ratio), rtol=1e-2)


def test_qwen_tokenizer_knows_words_whatever_their_case(tmp_path):
    from transformers import AutoTokenizer

    written = transformer.write_qwen_tokenizer(tmp_path, ["older", "make"], 12)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    for known in (written, tokenizer):
        assert known.tokenize("MAKE older make") == ["Ġmake", "Ġolder", "Ġmake"]
        text = known.apply_chat_template([{"role": "user", "content": "Make zebra"}], tokenize=False)
        assert known.decode(known(text).input_ids).strip() == "make zebra"


def test_what_the_copy_relies_on_is_not_trained(tmp_path):
    settings = Settings.tiny_flow()
    tokenizer, editor = flow.make(Workspace(tmp_path, "_flow"), settings)
    latents = torch.randn(3, 2, settings.latent_channels, 8, 8)
    tokens = tokenizer(["make older", "red"], padding="max_length", return_tensors="pt").input_ids
    editor(latents[0], latents[1], torch.tensor([999, 499]), tokens).square().mean().backward()
    network = editor.transformer
    single = network.single_transformer_blocks[0].attn
    width = settings.transformer_width
    assert network.proj_out.weight.grad is None
    assert not single.to_qkv_mlp_proj.weight.grad[: 3 * width].any()
    assert not single.to_out.weight.grad[:, :width].any() and single.to_out.weight.grad[:, width:].any()
    assert network.single_transformer_blocks[1].attn.to_out.weight.grad.any()


def test_tokenizer_makes_words_whole_and_can_spell_anything(tmp_path):
    tokenizer = models.write_tokenizer(tmp_path, ["older", "old", "make"], 12)
    assert tokenizer.tokenize("Make older old") == ["make</w>", "older</w>", "old</w>"]
    assert (
        tokenizer.decode(tokenizer("zebra é!").input_ids, skip_special_tokens=True).replace(" ", "")
        == "zebraé!"
    )


def test_state_survives_and_goes_on(work):
    """Two runs with budgets of 2 and 4 seconds spend 4 seconds together, on the same weights."""
    run("vae", work, "--minutes", str(2 / 60))
    first = load_state(work.vae_state)
    run("vae", work, "--minutes", str(4 / 60))
    second = load_state(work.vae_state)
    assert 0 < first["step"] < second["step"]
    assert 2 <= first["spent"] < 4 <= second["spent"] < 8
    run("vae", work, "--minutes", str(4 / 60))
    assert load_state(work.vae_state)["step"] == second["step"]


@pytest.mark.parametrize(
    ("editor", "network", "minutes"), [("demo", "unet", (6, 8, 1)), ("demo-flow", "flow", (2, 4, 1))]
)
def test_whole_way_to_a_pipeline(work, editor, network, minutes):
    for stage, seconds in zip(("vae", network, "decoder"), minutes, strict=True):
        run(stage, work, "--editor", editor, "--minutes", str(seconds / 60))
    run("export", work, "--editor", editor)
    pipeline, info = evaluate.load_pipeline(work.root / "out")
    # Twice as large: FLUX.2's pipeline takes no image below 64 pixels.
    scenes = data.load_images(data.shards(work.heldout_shards)).repeat(2, axis=2).repeat(2, axis=3)
    scores = evaluate.evaluate(pipeline, info, scenes, work.root / "sheet.png")
    assert [score.edit for score in scores] == list(EDIT_ORDER)
    assert list(info["instructions"]) == [*EDIT_ORDER, *OPEN_ORDER, *further.FURTHER]
    check_warm_start(work, editor, scenes[:2])
    assert all(np.isfinite([score.gain, score.background_error]).all() for score in scores)
    assert evaluate.table(scores).row_count == 7 and (work.root / "sheet.png").exists()


def check_warm_start(work: Workspace, editor: str, scenes: np.ndarray) -> None:
    """A training that begins with the exported editor, even with words between the known ones, begins with its edits."""
    folder = work.root / "out"
    known, info = evaluate.load_pipeline(folder)
    is_flow = editor == "demo-flow"
    again = Workspace(work.root / f"warm_{editor}", "_flow" if is_flow else "")
    again.root.mkdir()
    settings = Settings.tiny_flow() if is_flow else Settings.tiny()
    recipe, words = training.recipe_for(settings), models.instruction_words
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(flow if is_flow else unet, "instruction_words", lambda: sorted([*words(), "aardvark"]))
        warm.warm_start(folder, again, settings, recipe)
        started = export.build_pipeline(again, settings)
    assert started.tokenizer.get_vocab() != known.tokenizer.get_vocab()
    started.set_progress_bar_config(disable=True)
    prompts, pictures = [info["instructions"]["older"][0]] * 2, scenes[:, 0] / 255.0
    results = [evaluate.edit_pictures(some, info, pictures, prompts) for some in (known, started)]
    np.testing.assert_allclose(*results, atol=5e-3)


def test_two_processes_train_one_model(work):
    state = load_state(work.editor_state)
    spent = state["spent"] + 3 if state else 3
    tool.main(["unet", "--tiny", "--work", str(work.root), "--minutes", str(spent / 60), "--processes", "2"])
    assert load_state(work.editor_state)["spent"] >= spent


def test_unknown_state_names_the_stage(tmp_path):
    with pytest.raises(FileNotFoundError, match="`vae` stage"):
        vae.load_vae(Workspace(tmp_path), Settings.tiny())
    with pytest.raises(FileNotFoundError, match="`data` stage"):
        vae.load_basis(Workspace(tmp_path), Settings.tiny())


def test_state_file_is_replaced_whole(tmp_path):
    path = tmp_path / "state.pt"
    save_state(path, {"a": torch.ones(2)})
    save_state(path, {"a": torch.zeros(2)})
    assert [p.name for p in tmp_path.iterdir()] == ["state.pt"] and load_state(path)["a"].sum() == 0


def test_average_follows_the_weights():
    layer = torch.nn.Linear(2, 2)
    average = Average(layer, 0.9)
    with torch.no_grad():
        layer.weight.fill_(1.0)
    for _ in range(200):
        average.update(layer)
    assert torch.allclose(average.shadow["weight"], torch.ones(2, 2), atol=1e-3)


def test_clock_counts_earlier_runs():
    clock = Clock(minutes=1.0, spent=30.0)
    assert 0.5 <= clock.progress < 0.51 and not clock.save_due()


def test_team_of_one_changes_no_gradient():
    layer = torch.nn.Linear(2, 2)
    layer.weight.grad = torch.full((2, 2), 3.0)
    assert Team(1, 6).average_gradients(layer.parameters(), 5.0) == 5.0 and layer.weight.grad.sum() == 12


def test_crops_hold_the_skin_and_lie_inside():
    masks = np.zeros((3, 16, 16), bool)
    masks[0, 7:10, 6:9] = True
    masks[1, :2, 14:] = True
    for seed in range(20):
        corners = samples.crop_corners(masks, 12, np.random.default_rng(seed))
        assert corners.min() >= 0 and corners.max() <= 16 - 12
        for mask, (y, x) in zip(masks[:2], corners[:2], strict=True):
            assert mask[y : y + 12, x : x + 12].sum() == mask.sum()
    assert (samples.crop_corners(masks, 16, np.random.default_rng(0)) == 0).all()


def test_a_crop_shows_target_condition_and_skin_of_the_same_place(work):
    """A latent that holds its own row and column comes out of `draw` in step with the others."""
    size = 16
    place = np.stack(np.mgrid[:size, :size]).astype(np.float16)
    latents = np.broadcast_to(place, (5, 8, 2, size, size)).copy()
    skin = place[0][None].repeat(5, 0) >= 8
    scenes = Scenes(latents, np.zeros((0, 3, 6, 2, size, size), np.float16), skin)
    batch = samples.draw(
        scenes, TOKENS, CLEAN, np.random.default_rng(0), samples.Draw(6, 8), looking.Looking()
    )
    assert batch.target.shape == (6, 2, 8, 8)
    assert torch.equal(batch.noisy, batch.target)
    assert torch.equal(batch.skin, batch.target[:, 0] >= 8)
    given = batch.condition.flatten(1).any(dim=1)
    assert torch.equal(batch.condition[given], batch.target[given]) and given.any()


def test_phases_follow_each_other_to_the_end_of_the_budget():
    for phases in (unet.PHASES, flow.PHASES):
        seen = [phases.at(share) for share in np.linspace(0, 1, 101)]
        assert seen == sorted(seen) and set(seen) == set(range(len(phases.parts)))
        assert phases.parts[-1].crop >= 0.875 and phases.parts[-1].shrink == 1


def test_the_noise_of_all_sources_decides_the_hue():
    noise = torch.zeros(2, 5, 8, 8)
    noise[0, -2], noise[1, -1] = 0.1, 0.1
    assert chance.chosen_hue(noise[:1]) == pytest.approx(0.0)
    assert chance.chosen_hue(noise[1:]) == pytest.approx(0.25)
    assert chance.chosen_hue(noise) == pytest.approx(0.125)
    assert chance.chosen_hue(-noise) == pytest.approx(0.625)


def test_hues_between_two_pictures_are_mixed_and_the_ring_closes():
    looks = torch.arange(6.0)[:, None, None, None]
    assert chance.blend_hues(looks, 0.25).item() == pytest.approx(1.5)
    assert chance.blend_hues(looks, 11 / 12).item() == pytest.approx(2.5)
    assert chance.blend_hues(looks, 1.0).item() == 0.0


def test_every_hue_is_chosen_about_equally_often():
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(600, 1, 3, 4, 4, generator=generator)
    counts = np.histogram([chance.chosen_hue(n) for n in noise], bins=6, range=(0, 1))[0]
    assert counts.min() > 70 and counts.max() < 130


@pytest.mark.parametrize("group", samples.PAIRS)
def test_views_of_a_group_show_one_person_in_the_hue_of_its_sources(group):
    """Latents that hold person, edit and hue say what was drawn."""
    plain = np.zeros((8, 8, 3, 4, 4), np.float16)
    plain[:, :, 0] = (np.arange(8) // 2)[:, None, None, None]
    opened = np.zeros((8, 3, 6, 3, 4, 4), np.float16)
    opened[:, :, :, 0] = (np.arange(8) // 2)[:, None, None, None, None]
    opened[:, :, :, 1] = 1 + np.arange(3)[:, None, None, None]
    opened[:, :, :, 2] = np.arange(6)[:, None, None]
    scenes = Scenes(plain, opened, np.ones((8, 4, 4), bool))
    options, levels = samples.Draw(12, 4, open_share=0.5, push=1.0), flow.levels()
    batch = samples.draw(scenes, TOKENS, levels, np.random.default_rng(1), options, group)
    is_open = batch.edit >= len(EDIT_ORDER)
    assert is_open.any() and (~is_open).any()
    for first in range(0, 12, group.views):
        rows = slice(first, first + group.views)
        assert len(batch.edit[rows].unique()) == len(batch.timestep[rows].unique()) == 1
        assert len(batch.target[rows, 0].unique()) == 1, "one person"
        if is_open[first]:
            assert (batch.target[rows, 1] == batch.edit[first] - len(EDIT_ORDER) + 1).all()
            assert len(batch.target[rows, 2].unique()) == 1, "one hue"
            assert torch.allclose(batch.grey[rows, 2], torch.tensor(2.5))
        else:
            assert torch.equal(batch.grey[rows], batch.target[rows])
    assert batch.target[is_open, 2].unique().numel() > 1


def test_attention_over_sources_is_attention_over_their_tokens_together():
    """Against torch's own attention, on the tokens of the views looked at, one after the other."""
    from diffusers.models.attention_processor import Attention

    torch.manual_seed(0)
    attn, hidden = Attention(8, heads=2, dim_head=4), torch.randn(4, 5, 8)
    for group in samples.PAIRS:
        attn.set_processor(looking.GroupAttention(group))
        groups = hidden.unflatten(0, (-1, group.views))
        seen = groups[:, : group.sources].flatten(1, 2)[:, None].expand(-1, group.views, -1, -1).flatten(0, 1)

        def heads(x: torch.Tensor) -> torch.Tensor:
            return x.unflatten(-1, (2, 4)).transpose(1, 2)

        mixed = torch.nn.functional.scaled_dot_product_attention(
            heads(attn.to_q(hidden)), heads(attn.to_k(seen)), heads(attn.to_v(seen))
        )
        expected = attn.to_out[0](mixed.transpose(1, 2).flatten(2))
        assert torch.allclose(attn(hidden), expected, atol=1e-5)


def test_the_choice_is_pushed_ever_less():
    pushes = [unet.PHASES.push_at(share) for share in np.linspace(0, 1, 101)]
    top = int(np.argmax(pushes))
    assert pushes[top] > 0.2 and pushes[-1] == 0 and pushes[top:] == sorted(pushes[top:], reverse=True)
    assert all(push == 0 for share, push in zip(np.linspace(0, 1, 101), pushes, strict=True) if share < 0.6)
