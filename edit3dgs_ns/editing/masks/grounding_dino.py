"""Boxes for words: Grounding DINO ("Marrying DINO with Grounded Pre-Training", ECCV 2024), run by either of two libraries.

Everything around the network is the same for both: how views are scaled, how phrases become a caption, which boxes count. A
caption is the phrases, each ended by a full stop: the network keeps what stands between full stops apart.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from edit3dgs_ns.editing.masks import grounding_dino_package as package
from edit3dgs_ns.editing.masks.grounded_sam_cache import Box
from edit3dgs_ns.editing.masks.grounded_sam_files import CHECKPOINTS, fingerprint, locate, read_checkpoint
from edit3dgs_ns.editing.masks.grounded_sam_options import DETECTOR, OPTION, OTHERWISE, TOKENIZER, Backend
from edit3dgs_ns.editing.masks.grounding_dino_weights import config_of, to_official, to_transformers
from edit3dgs_ns.errors import MissingFileError, UserError
from edit3dgs_ns.untrusted import parse_json

if TYPE_CHECKING:
    from transformers import GroundingDinoForObjectDetection

_MODEL_FILES = ("config.json", "*.safetensors", "*.safetensors.index.json", "preprocessor_config.json")
_WORD_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt")
_SEPARATORS = ("[CLS]", "[SEP]", "[PAD]", ".", "?")
_LONGER_SIDE = 1333 / 800
"""No view gets longer than this times the shorter side asked for."""
_LONGEST_CAPTION = 256
"""In words and parts of words; the network cuts off the rest without a word."""


class Network(Protocol):
    """Grounding DINO as such: pixels and captions in, logits of boxes and boxes out."""

    def __call__(self, pixels: Mapping[str, Tensor], captions: list[str]) -> tuple[Tensor, Tensor]:
        """Logits (views, queries, words) and boxes (views, queries, 4: centre, width, height over the image's)."""
        ...


class GroundingDino:
    """Finds boxes for phrases.

    Args:
        network: the network, on `device`.
        tokenizer: BERT's.
        processor: scales and normalises views.
        box_threshold: confidence that a box needs.
        text_threshold: confidence that a word of a phrase needs for a box to be called by it.
        device: where the network is.
        version: says which weights these are.
    """

    def __init__(
        self,
        network: Network,
        tokenizer: Any,
        processor: Any,
        *,
        box_threshold: float,
        text_threshold: float,
        device: torch.device,
        version: str,
    ):
        self._network, self._tokenizer, self._processor = network, tokenizer, processor
        self._box_threshold, self._text_threshold, self._device = box_threshold, text_threshold, device
        self.settings: dict[str, Any] = {
            "detector": version,
            "shorter_side": processor.size["shortest_edge"],
            "box_threshold": box_threshold,
            "text_threshold": text_threshold,
        }
        """What decides the boxes besides the views and the phrases, as JSON values."""

    def check(self, phrases: Sequence[str]) -> None:
        """Raise a ValueError for phrases that make no caption: without a word the detector knows, or too many."""
        for phrase in phrases:
            if not self._words([phrase])[0]:
                raise UserError(f"{phrase!r} has no word that a detector could look for.")
        length = len(self._tokenizer(caption_of(phrases))["input_ids"])
        if length > _LONGEST_CAPTION:
            raise UserError(
                f"{length} words or parts of words are more than a detector takes ({_LONGEST_CAPTION})."
            )

    @torch.no_grad()
    def detect(
        self, images: UInt8[np.ndarray, "views height width 3"], phrases: Sequence[str]
    ) -> list[tuple[Box, ...]]:
        """The boxes of every view, the surest first."""
        pixels = self._processor(images=list(images), return_tensors="pt").to(self._device)
        logits, boxes = self._network(pixels, [caption_of(phrases)] * len(images))
        size = (images.shape[1], images.shape[2])
        return [
            self._boxes(logits[view].sigmoid().cpu(), boxes[view].cpu(), phrases, size)
            for view in range(len(images))
        ]

    def _boxes(
        self,
        words: Float[Tensor, "queries words"],
        boxes: Float[Tensor, "queries 4"],
        phrases: Sequence[str],
        size: tuple[int, int],
    ) -> tuple[Box, ...]:
        of_phrases = torch.stack([words[:, places].amax(dim=1) for places in self._words(phrases)], dim=1)
        scores = words.amax(dim=1)
        called = of_phrases > self._text_threshold
        taken = ((scores > self._box_threshold) & called.any(dim=1)).nonzero()[:, 0]
        found = []
        for query in taken[scores[taken].argsort(descending=True, stable=True)].tolist():
            names = tuple(phrase for phrase, yes in zip(phrases, called[query].tolist(), strict=True) if yes)
            found.append(Box(_corners(boxes[query].tolist(), size), round(float(scores[query]), 4), names))
        return tuple(found)

    def _words(self, phrases: Sequence[str]) -> list[list[int]]:
        """For each phrase the places of its words in the caption."""
        separators = set(self._tokenizer.convert_tokens_to_ids(list(_SEPARATORS)))
        places: list[list[int]] = [[] for _ in phrases]
        phrase = 0
        for place, token in enumerate(self._tokenizer(caption_of(phrases))["input_ids"]):
            if token not in separators:
                places[min(phrase, len(phrases) - 1)].append(place)
            elif place > 0:
                phrase += 1
        return places


def caption_of(phrases: Sequence[str]) -> str:
    """Phrases as Grounding DINO reads them: "the eyes. the mouth."."""
    return " ".join(f"{phrase.strip().lower()}." for phrase in phrases)


def load_detector(
    detector: str,
    *,
    backend: Backend = "transformers",
    tokenizer: str = TOKENIZER,
    box_threshold: float = 0.35,
    text_threshold: float = 0.25,
    resolution: int | None = None,
    device: str | torch.device = "cpu",
) -> GroundingDino:
    """Grounding DINO from the hub, a folder in transformers' format, or a checkpoint file of its authors.

    Args:
        detector: hub id, folder or checkpoint file.
        backend: the library that runs it.
        tokenizer: hub id or folder of BERT's words, used with a checkpoint file only.
        box_threshold, text_threshold, device: see `GroundingDino`.
        resolution: shorter side of the scaled views in pixels; the model's own, or 800, if not given.

    Raises:
        FileNotFoundError: weights or words are not there.
        ValueError: they are not Grounding DINO's, or damaged; or the backend is not installed.
    """
    if backend == "groundingdino":
        package.check_installed()
    option = f"{OPTION}.detector"
    source = locate(option, detector, (*_MODEL_FILES, *_WORD_FILES), DETECTOR)
    if source.is_dir():
        files, words = _check_folder(option, source), source
    else:
        files = [source]
        words = locate(f"{OPTION}.tokenizer", tokenizer, ("config.json", *_WORD_FILES), TOKENIZER)
    splitter = _tokenizer(words, option if source.is_dir() else f"{OPTION}.tokenizer")
    weights = None if source.is_dir() else read_checkpoint(source, option)
    try:
        model = _model(source, weights)
    except (RuntimeError, KeyError, TypeError, AttributeError, ValueError, OSError) as error:
        raise UserError(
            f"{option} {source}: these are not the weights of a Grounding DINO ({str(error).strip()[:400]}). Expected a folder "
            f"in transformers' format such as {DETECTOR}, or a checkpoint such as groundingdino_swint_ogc.pth. {OTHERWISE}"
        ) from error
    device = torch.device(device)
    run = _with_transformers if backend == "transformers" else _with_package
    vocabulary = json.dumps(splitter.get_vocab(), sort_keys=True)
    return GroundingDino(
        run(model, splitter, device),
        splitter,
        _processor(source, resolution),
        box_threshold=box_threshold,
        text_threshold=text_threshold,
        device=device,
        version=f"{fingerprint(files)}-{hashlib.sha256(vocabulary.encode()).hexdigest()[:8]}-{backend}",
    )


def _with_transformers(
    model: GroundingDinoForObjectDetection, tokenizer: Any, device: torch.device
) -> Network:
    nn.Module.to(model, device)  # transformers wraps `to` in a way that type checkers cannot follow

    def network(pixels: Mapping[str, Tensor], captions: list[str]) -> tuple[Tensor, Tensor]:
        words = tokenizer(captions, padding=True, return_tensors="pt").to(device)
        result = model(**pixels, **words)
        return result.logits, result.pred_boxes

    return network


def _with_package(model: GroundingDinoForObjectDetection, tokenizer: Any, device: torch.device) -> Network:
    theirs = package.build(model.config, tokenizer)
    _fill(theirs, to_official(model.state_dict(), list(theirs.state_dict())))
    theirs.to(device)

    def network(pixels: Mapping[str, Tensor], captions: list[str]) -> tuple[Tensor, Tensor]:
        return package.outputs(theirs, pixels["pixel_values"], pixels["pixel_mask"], captions)

    return network


def _model(source: Path, weights: Mapping[str, Tensor] | None) -> GroundingDinoForObjectDetection:
    """Transformers' model of a folder, or of the weights of a checkpoint."""
    from transformers import GroundingDinoForObjectDetection

    with _quiet_transformers():
        if weights is not None:
            model = GroundingDinoForObjectDetection(config_of(weights))
            _fill(model, to_transformers(weights))
            return model.eval()
        model, report = GroundingDinoForObjectDetection.from_pretrained(
            source, use_safetensors=True, local_files_only=True, output_loading_info=True
        )
        wrong = [*report["missing_keys"], *report["mismatched_keys"]]
        if wrong:
            raise UserError(f"no {wrong[0]} and {len(wrong) - 1} more")
        return model.eval()


def _fill(model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Load weights; a tensor that a model has under several names is needed under one of them only."""
    missing, _ = model.load_state_dict(weights, strict=False)
    own = model.state_dict()
    loaded = {own[name].data_ptr() for name in weights if name in own}
    missing = [
        name
        for name in missing
        if own[name].data_ptr() not in loaded and not name.endswith("relative_position_index")
    ]
    if missing:
        raise UserError(f"no {missing[0]}" + (f" and {len(missing) - 1} more" if len(missing) > 1 else ""))


def _check_folder(option: str, folder: Path) -> list[Path]:
    """The files that make the model, in a fixed order."""
    if not (folder / "config.json").is_file():
        found = [path.name for path in sorted(folder.iterdir()) if path.suffix in CHECKPOINTS]
        hint = f" Did you mean {folder / found[0]}?" if found else ""
        raise MissingFileError(
            f"{option} {folder}: config.json is missing. Expected a folder in transformers' format, or a checkpoint file."
            f"{hint} {OTHERWISE}"
        )
    try:
        kind = parse_json((folder / "config.json").read_text(encoding="utf-8")).get("model_type")
    except (ValueError, AttributeError) as error:
        raise UserError(
            f"{option} {folder / 'config.json'} is no JSON object: {error}. {OTHERWISE}"
        ) from error
    if kind != "grounding-dino":
        raise UserError(
            f"{option} {folder}: config.json describes a model of type {kind!r}; expected 'grounding-dino', for example "
            f"{DETECTOR}. {OTHERWISE}"
        )
    weights = sorted(folder.glob("*.safetensors"))
    if not weights:
        raise MissingFileError(f"{option} {folder}: there are no *.safetensors. {OTHERWISE}")
    return [folder / "config.json", *weights]


def _tokenizer(folder: Path, option: str) -> Any:
    from transformers import BertTokenizerFast

    if not ((folder / "tokenizer.json").is_file() or (folder / "vocab.txt").is_file()):
        raise MissingFileError(
            f"{option} {folder}: neither tokenizer.json nor vocab.txt is there. Expected the words of BERT, for example "
            f"{TOKENIZER}. {OTHERWISE}"
        )
    try:
        return BertTokenizerFast.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # the tokenizers library raises bare Exceptions
        raise UserError(f"{option} {folder}: the words cannot be read: {error}. {OTHERWISE}") from error


def _processor(source: Path, resolution: int | None) -> Any:
    from transformers import GroundingDinoImageProcessor

    own = source.is_dir() and (source / "preprocessor_config.json").is_file()
    processor = GroundingDinoImageProcessor.from_pretrained(source) if own else GroundingDinoImageProcessor()
    if resolution is not None:
        processor.size = {"shortest_edge": resolution, "longest_edge": round(resolution * _LONGER_SIDE)}
    return processor


@contextmanager
def _quiet_transformers() -> Iterator[None]:
    from transformers.utils import logging as transformers_logging

    former = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity(logging.ERROR)
    try:
        yield
    finally:
        transformers_logging.set_verbosity(former)


def _corners(box: Sequence[float], size: tuple[int, int]) -> tuple[float, float, float, float]:
    """Left, top, right, bottom in pixels, within the image, of a box given by centre and size over the image's."""
    x, y, width, height = box
    (rows, columns) = size
    left, right = ((x + side * width / 2) * columns for side in (-1, 1))
    top, bottom = ((y + side * height / 2) * rows for side in (-1, 1))
    clipped = (max(left, 0.0), max(top, 0.0), min(right, columns), min(bottom, rows))
    return tuple(round(float(number), 2) for number in clipped)  # type: ignore[return-value]
