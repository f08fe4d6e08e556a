"""Grounding DINO with random weights of the real architecture: read in every format, run by both libraries, the same boxes."""

from __future__ import annotations

import importlib.util
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from edit3dgs_ns.editing.masks.grounding_dino import caption_of, load_detector
from edit3dgs_ns.editing.masks.grounding_dino_weights import config_of, to_official, to_transformers
from tests.tiny_grounded_sam import (
    put_on_hub,
    save_detector_checkpoint,
    save_detector_folder,
    save_words,
    tiny_detector,
)

needs_package = pytest.mark.skipif(
    importlib.util.find_spec("groundingdino") is None,
    reason="groundingdino-py is not installed: see edit3dgs doctor",
)
PHRASES = ["the eyes", "red hat"]
VIEWS = np.random.default_rng(3).integers(0, 256, (2, 48, 80, 3)).astype(np.uint8)


@pytest.fixture(scope="module")
def tiny():
    return tiny_detector()


@pytest.fixture(scope="module")
def folder(tiny, tmp_path_factory) -> Path:
    return save_detector_folder(tiny, tmp_path_factory.mktemp("grounding-dino"))


@pytest.fixture(scope="module")
def words(tmp_path_factory) -> Path:
    return save_words(tmp_path_factory.mktemp("words"))


@pytest.fixture(scope="module")
def checkpoint(tiny, tmp_path_factory) -> Path:
    pytest.importorskip("groundingdino", reason="groundingdino-py knows the names of a checkpoint")
    return save_detector_checkpoint(tiny, tmp_path_factory.mktemp("checkpoint") / "groundingdino_tiny.pth")


@pytest.fixture(scope="module")
def oracle(folder):
    """What transformers' own processor makes of its own model: scores, and boxes with the call of either threshold."""
    from transformers import GroundingDinoForObjectDetection, GroundingDinoProcessor

    model = GroundingDinoForObjectDetection.from_pretrained(folder).eval()
    processor = GroundingDinoProcessor.from_pretrained(folder)
    inputs = processor(images=list(VIEWS), text=[caption_of(PHRASES)] * 2, return_tensors="pt")
    with torch.no_grad():
        outputs = model(**inputs)

    def boxes(threshold: float):
        return processor.post_process_grounded_object_detection(
            outputs, inputs["input_ids"], threshold, 0.0, target_sizes=[VIEWS.shape[1:3]] * 2
        )

    return outputs.logits.sigmoid().amax(-1), boxes


def _threshold(oracle) -> float:
    """So that about half of the boxes count, and none is a matter of rounding."""
    scores = oracle[0].flatten().sort().values[10:30]
    widest = int(scores.diff().argmax())
    return float(scores[widest : widest + 2].mean())


def _detect(source: Path, words: Path, oracle, **options):
    options = {"box_threshold": _threshold(oracle), "text_threshold": 0.0, "resolution": 64} | options
    return load_detector(str(source), tokenizer=str(words), **options).detect(VIEWS, PHRASES)


def _assert_same(found, oracle):
    assert sum(map(len, found)) < 40, "all boxes count: the comparison says little"
    for boxes, expected in zip(found, oracle[1](_threshold(oracle)), strict=True):
        assert 0 < len(boxes) == len(expected["boxes"]), oracle[0]
        order = expected["scores"].argsort(descending=True)
        corners = expected["boxes"][order].clamp(min=0)
        corners[:, 0::2].clamp_(max=VIEWS.shape[2])
        corners[:, 1::2].clamp_(max=VIEWS.shape[1])
        np.testing.assert_allclose([box.score for box in boxes], expected["scores"][order], atol=2e-3)
        np.testing.assert_allclose([box.corners for box in boxes], corners, atol=0.05)


def test_a_folder_of_transformers_gives_the_boxes_of_its_own_processor(folder, words, oracle):
    _assert_same(_detect(folder, words, oracle), oracle)


@needs_package
@pytest.mark.parametrize("backend", ["transformers", "groundingdino"])
@pytest.mark.parametrize("kind", ["folder", "checkpoint"])
def test_both_libraries_find_the_same_boxes_from_either_format(
    kind, backend, request, words, oracle, folder, checkpoint
):
    source = folder if kind == "folder" else checkpoint
    _assert_same(_detect(source, words, oracle, backend=backend), oracle)


@needs_package
def test_the_authors_own_way_of_reading_finds_every_tensor_and_the_same_answer(tiny, checkpoint, words):
    """What `groundingdino.util.inference.load_model` does with a checkpoint, and its own wrapper of BERT."""
    from groundingdino.models.GroundingDINO.bertwarper import BertModelWarper
    from groundingdino.util.misc import clean_state_dict, nested_tensor_from_tensor_list
    from transformers import BertModel, BertTokenizerFast

    from edit3dgs_ns.editing.masks.grounding_dino_package import build

    tokenizer = BertTokenizerFast(str(words / "vocab.txt"))
    model = build(tiny.config, tokenizer)
    if hasattr(BertModel, "get_head_mask"):  # up to transformers 4
        model.bert = BertModelWarper(BertModel(tiny.config.text_config))
    weights = clean_state_dict(torch.load(checkpoint, weights_only=True)["model"])
    missing, _ = model.load_state_dict(weights, strict=False)
    assert [name for name in missing if "relative_position_index" not in name] == []
    pixels = torch.from_numpy(VIEWS).permute(0, 3, 1, 2) / 255
    with torch.no_grad():
        theirs = model.eval()(
            nested_tensor_from_tensor_list(list(pixels)), captions=["the eyes. red hat."] * 2
        )
        ours = tiny(pixel_values=pixels, **tokenizer(["the eyes. red hat."] * 2, return_tensors="pt"))
    torch.testing.assert_close(theirs["pred_boxes"], ours.pred_boxes, atol=1e-4, rtol=0)
    torch.testing.assert_close(theirs["pred_logits"], ours.logits, atol=1e-3, rtol=1e-4)


@needs_package
def test_names_and_shapes_go_both_ways(tiny, checkpoint):
    weights = torch.load(checkpoint, weights_only=True)["model"]
    weights = {name.removeprefix("module."): tensor for name, tensor in weights.items()}
    renamed, own = to_transformers(weights), tiny.state_dict()
    assert set(own) - set(renamed) == {name for name in own if name.endswith("relative_position_index")}
    assert all(torch.equal(renamed[name], own[name]) for name in renamed)
    back = to_official(renamed, list(weights))
    assert all(torch.equal(back[name], weights[name]) for name in back)
    found, expected = config_of(weights).to_dict(), tiny.config.to_dict()
    same = ("d_model", "num_queries", "num_feature_levels", "encoder_layers", "decoder_layers")
    same += ("encoder_ffn_dim", "decoder_ffn_dim", "encoder_n_points", "decoder_n_points")
    assert {name: found[name] for name in same} == {name: expected[name] for name in same}
    for part, names in (
        ("backbone_config", ("embed_dim", "depths", "num_heads", "window_size", "out_indices")),
        (
            "text_config",
            ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size"),
        ),
    ):
        assert {name: found[part][name] for name in names} == {name: expected[part][name] for name in names}


def test_shapes_tell_the_published_checkpoints_apart():
    """Swin-B of groundingdino_swinb_cogcoor.pth: window of 12, 4 heads in the first stage, 18 blocks in the third."""
    from edit3dgs_ns.editing.masks.grounding_dino_weights import _swin_of

    weights = {"backbone.0.patch_embed.proj.weight": torch.empty(128, 3, 4, 4, device="meta")}
    for stage, depth in enumerate((2, 2, 18, 2)):
        for block in range(depth):
            name = f"backbone.0.layers.{stage}.blocks.{block}.attn.relative_position_bias_table"
            weights[name] = torch.empty(23 * 23, 4 * 2**stage, device="meta")
    swin = _swin_of(weights)
    assert (swin.embed_dim, swin.window_size, swin.depths) == (128, 12, [2, 2, 18, 2])
    assert swin.num_heads == [4, 8, 16, 32]


def test_a_hub_id_means_what_the_hub_has(folder, words, tmp_path, monkeypatch, oracle):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    put_on_hub(tmp_path, "someone/grounding-dino", folder)
    put_on_hub(tmp_path, "someone/words", words)
    options = {"box_threshold": _threshold(oracle), "text_threshold": 0.0}
    detector = load_detector("someone/grounding-dino", tokenizer="someone/words", **options)
    _assert_same(detector.detect(VIEWS, PHRASES), oracle)

    with pytest.raises(FileNotFoundError) as error:
        load_detector("IDEA-Research/grounding-dino-base")
    for part in ("--pipeline.grounded-sam.detector IDEA-Research", "HF_HUB_OFFLINE", "--pipeline.masks rig"):
        assert part in str(error.value)
    with pytest.raises(
        FileNotFoundError, match=r"has no file groundingdino_swint_ogc.pth.*--pipeline.masks rig"
    ):
        load_detector("someone/words/groundingdino_swint_ogc.pth")


@needs_package
def test_one_file_of_a_hub_repository(checkpoint, words, tmp_path, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    put_on_hub(tmp_path, "someone/both", checkpoint.parent)
    found = load_detector(f"someone/both/{checkpoint.name}", tokenizer=str(words))
    by_path = load_detector(str(checkpoint), tokenizer=str(words))
    assert found.settings == by_path.settings


def test_a_box_counts_for_the_phrases_whose_words_it_matches(folder, words):
    detector = load_detector(str(folder), box_threshold=0.5, text_threshold=0.4)
    # [CLS] the eyes . red hat . [SEP]
    scores = torch.zeros(3, 256)
    scores[0, 2], scores[1, 4], scores[1, 1], scores[2, 5] = 0.9, 0.6, 0.45, 0.49
    boxes = torch.tensor([[0.5, 0.5, 0.5, 0.5], [0.9, 0.1, 0.4, 0.4], [0.5, 0.5, 0.1, 0.1]])
    first, second = detector._boxes(scores, boxes, PHRASES, (100, 200))
    assert first.phrases == ("the eyes",) and first.corners == (50, 25, 150, 75)
    assert second.phrases == ("the eyes", "red hat")
    np.testing.assert_allclose(second.corners, (140, 0, 200, 30), atol=0.01)
    silent = torch.zeros(1, 256)
    silent[0, 3] = 0.9  # the full stop: no phrase
    assert detector._boxes(silent, boxes[:1], PHRASES, (100, 200)) == ()


def test_captions_and_phrases_without_words(folder):
    assert caption_of(["The Eyes", " red hat "]) == "the eyes. red hat."
    detector = load_detector(str(folder))
    detector.check(PHRASES)
    with pytest.raises(ValueError, match="no word"):
        detector.check(["the eyes", " "])
    with pytest.raises(ValueError, match=r"more than a detector takes \(256\)"):
        detector.check(["red hat"] * 90)


def test_settings_follow_weights_thresholds_and_size(folder, tiny, tmp_path):
    first = load_detector(str(folder)).settings
    copy = shutil.copytree(folder, tmp_path / "copy")
    assert load_detector(str(copy)).settings == first, "the same weights under another name"
    other = save_detector_folder(tiny_detector(seed=1), tmp_path / "other")
    assert load_detector(str(other)).settings["detector"] != first["detector"]
    assert (
        first["shorter_side"] == 64
        and load_detector(str(folder), resolution=96).settings["shorter_side"] == 96
    )
    assert load_detector(str(folder), box_threshold=0.4).settings != first


def _without(folder: Path, target: Path, name: str) -> Path:
    shutil.copytree(folder, target)
    for path in target.glob(name):
        path.unlink()
    return target


@pytest.mark.parametrize("name", ["config.json", "*.safetensors"])
def test_a_folder_that_lacks_a_file_is_named(folder, tmp_path, name):
    broken = _without(folder, tmp_path / "broken", name)
    with pytest.raises(FileNotFoundError) as error:
        load_detector(str(broken))
    for part in ("--pipeline.grounded-sam.detector", str(broken), name, "--pipeline.masks rig"):
        assert part in str(error.value)


def test_a_folder_without_words_is_named(folder, tmp_path):
    broken = _without(_without(folder, tmp_path / "a", "vocab.txt"), tmp_path / "b", "tokenizer.json")
    with pytest.raises(FileNotFoundError, match=r"neither tokenizer.json nor vocab.txt"):
        load_detector(str(broken))


def test_weights_of_something_else_are_refused(folder, words, tmp_path):
    torch.save({"model": {"conv.weight": torch.zeros(3)}}, tmp_path / "other.pth")
    with pytest.raises(ValueError, match=r"other.pth: these are not the weights of a Grounding DINO"):
        load_detector(str(tmp_path / "other.pth"), tokenizer=str(words))
    other = shutil.copytree(folder, tmp_path / "other")
    (other / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(ValueError, match=r"type 'bert'; expected 'grounding-dino'"):
        load_detector(str(other))
    for nothing in (str(tmp_path / "nothing.pth"), "weights/nothing.pth", "nothing", "", "a/b/c"):
        with pytest.raises(FileNotFoundError, match=r"no such file or folder.*--pipeline.masks rig"):
            load_detector(nothing)


class _Harm:
    def __reduce__(self):
        return (Path.touch, (Path("harm-was-done"),))


def test_files_that_could_run_something_or_are_cut_off_are_refused(words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"model": {"a": torch.zeros(2)}, "args": _Harm()}, tmp_path / "harm.pth")
    with pytest.raises(ValueError, match=r"harm.pth: holds more than tensors"):
        load_detector("harm.pth", tokenizer=str(words))
    assert not Path("harm-was-done").exists()
    torch.save({"a": torch.zeros(9999)}, tmp_path / "whole.pth")
    (tmp_path / "half.pth").write_bytes((tmp_path / "whole.pth").read_bytes()[:5000])
    with pytest.raises(ValueError, match=r"half.pth: cannot be read, it may be cut off"):
        load_detector("half.pth", tokenizer=str(words))
    (tmp_path / "half.safetensors").write_bytes(b"\x10\x00\x00\x00")
    with pytest.raises(ValueError, match=r"half.safetensors: cannot be read"):
        load_detector("half.safetensors", tokenizer=str(words))


def test_what_the_package_cannot_build_is_refused():
    from edit3dgs_ns.editing.masks import grounding_dino_package
    from tests.tiny_grounded_sam import tiny_config

    config = tiny_config()
    config.decoder_ffn_dim = 80
    with pytest.raises(ValueError, match=r"cannot build this architecture.*detector-backend transformers"):
        grounding_dino_package._check_architecture(config)


def test_without_the_package_its_backend_says_what_to_install(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "groundingdino.models.GroundingDINO.groundingdino", None)
    with pytest.raises(ValueError, match=r"pip install --no-deps groundingdino-py==0.4.0"):
        load_detector(str(folder), backend="groundingdino")
