"""SAM 2.1 tiny with random weights, saved as its authors publish it: read like theirs, and masks for words end to end."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from edit3dgs_ns.editing.masks import sam2_segmenter
from edit3dgs_ns.editing.masks.grounded_sam import load_grounded_sam
from edit3dgs_ns.editing.masks.grounded_sam_options import GroundedSamOptions
from edit3dgs_ns.editing.masks.grounding_dino import load_detector
from edit3dgs_ns.editing.masks.sam2_segmenter import config_of, load_segmenter
from tests.tiny_grounded_sam import put_on_hub, save_detector_folder, save_segmenter, tiny_detector

pytest.importorskip("sam2", reason="sam2 is not installed: see edit3dgs doctor")

VIEWS = np.random.default_rng(5).integers(0, 256, (2, 40, 60, 3)).astype(np.uint8)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    return save_segmenter(tmp_path_factory.mktemp("sam2") / "sam2.1_hiera_tiny.pt")


def test_masks_of_words_end_to_end_and_nothing_twice(checkpoint, tmp_path, monkeypatch):
    """What a user runs, with small weights: a batch of two, boxes from one model, masks from the other, all kept."""
    detector = str(save_detector_folder(tiny_detector(), tmp_path / "detector"))
    every = load_detector(detector, box_threshold=0.0, text_threshold=0.0).detect(VIEWS, ["the eyes"])
    options = GroundedSamOptions(
        detector=detector,
        segmenter=str(checkpoint),
        box_threshold=min(of_view[2].score for of_view in every),  # two or three boxes are enough
        text_threshold=1e-6,
        cache=tmp_path / "cache",
    )
    source = load_grounded_sam(options)
    images = VIEWS.astype(np.float32) / 255
    masks = source.masks(images, [0, 1], ["eyes"])
    assert len(list((tmp_path / "cache").glob("*/*.png"))) == 2
    boxes = source._detector.detect(VIEWS, ["the eyes"])
    assert all(boxes)

    # One by one, box by box, through the package alone.
    from sam2.sam2_image_predictor import SAM2ImagePredictor

    predictor = SAM2ImagePredictor(source._segmenter._predictor.model)
    predictor.set_image(VIEWS[0])
    expected = np.zeros(VIEWS.shape[1:3], bool)
    for box in boxes[0]:
        single, _, _ = predictor.predict(box=np.array(box.corners), multimask_output=False)
        expected |= single[0] > 0
    assert expected.any(), "the comparison would be empty"
    assert (masks[0] != expected).mean() < 0.01

    monkeypatch.setattr(source._detector, "detect", None)
    for mask, again in zip(masks, source.masks(images, [5, 6], ["eyes"]), strict=True):
        np.testing.assert_array_equal(mask, again)


def _weights(channels: int, blocks: int, *others: str) -> dict[str, torch.Tensor]:
    """The tensors that tell the published models apart, without memory."""
    names = [f"image_encoder.trunk.blocks.{number}.norm1.weight" for number in range(blocks)]
    first = {"image_encoder.trunk.patch_embed.proj.weight": torch.empty(channels, 3, 7, 7, device="meta")}
    return first | dict.fromkeys([*names, *others], torch.empty(1, device="meta"))


@pytest.mark.parametrize("size", ["t", "s", "b+", "l"])
@pytest.mark.parametrize("version", ["sam2", "sam2.1"])
def test_every_published_configuration_is_recognised_by_its_weights(size, version):
    from hydra import compose

    config = f"configs/{version}/{version}_hiera_{size}.yaml"
    model = compose(config).model
    trunk = model.image_encoder.trunk
    own = ["no_obj_embed_spatial"] if model.get("no_obj_embed_spatial") else []
    assert (
        config_of(_weights(trunk.embed_dim, sum(trunk.get("stages", (2, 3, 16, 3))), *own), Path("x.pt"))
        == config
    )


def test_other_models_are_refused():
    with pytest.raises(ValueError, match=r"some.pt.*no published size has 96 channels and 13 blocks"):
        config_of(_weights(96, 13), Path("some.pt"))
    with pytest.raises(ValueError, match=r"not the weights of SAM 2.*--pipeline.masks rig"):
        config_of({"vision_encoder.a": torch.empty(1)}, Path("some.pt"))


def test_folder_hub_id_and_safetensors_mean_the_same_weights(checkpoint, tmp_path, monkeypatch):
    """Only what is read is looked at here: building the model three times would take long."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    put_on_hub(tmp_path, "someone/sam2.1-hiera-tiny", checkpoint.parent)
    located = [
        sam2_segmenter._checkpoint(sam2_segmenter.locate("option", value, ("*.pt",), "example")).resolve()
        for value in (str(checkpoint), str(checkpoint.parent), "someone/sam2.1-hiera-tiny")
    ]
    assert set(located) == {checkpoint.resolve()}

    from safetensors.torch import save_file

    weights = torch.load(checkpoint, weights_only=True)["model"]
    (tmp_path / "safe").mkdir()
    save_file(
        {name: tensor.contiguous() for name, tensor in weights.items()},
        tmp_path / "safe" / "sam2.safetensors",
    )
    read = sam2_segmenter.read_checkpoint(sam2_segmenter._checkpoint(tmp_path / "safe"), "option")
    assert set(read) == set(weights) and all(torch.equal(read[name], weights[name]) for name in weights)


def test_missing_ambiguous_and_foreign_weights(checkpoint, tmp_path, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    with pytest.raises(FileNotFoundError) as error:
        load_segmenter("facebook/sam2.1-hiera-large")
    for part in ("--pipeline.grounded-sam.segmenter", "facebook/sam2.1-hiera-large", "--pipeline.masks rig"):
        assert part in str(error.value)
    for name in ("a.pt", "b.pt"):
        torch.save({"model": {"a": torch.zeros(1)}}, tmp_path / name)
    with pytest.raises(FileNotFoundError, match=r"found a.pt, b.pt. Name the file"):
        load_segmenter(str(tmp_path))
    with pytest.raises(ValueError, match=r"a.pt: these are not the weights of SAM 2"):
        load_segmenter(str(tmp_path / "a.pt"))
    incomplete = torch.load(checkpoint, weights_only=True)["model"]
    del incomplete["sam_mask_decoder.iou_token.weight"]
    torch.save({"model": incomplete}, tmp_path / "incomplete.pt")
    with pytest.raises(ValueError, match=r"incomplete.pt(.|\n)*sam_mask_decoder.iou_token.weight"):
        load_segmenter(str(tmp_path / "incomplete.pt"))


def test_without_the_package_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "sam2.build_sam", None)
    with pytest.raises(ValueError, match=r"pip install sam2==1.1.0(.|\n)*--pipeline.masks rig"):
        load_grounded_sam(GroundedSamOptions())
