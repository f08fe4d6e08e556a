"""Randomly initialised Grounding DINO and SAM 2 of the real architectures, saved as their authors publish them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

WORDS = ("the", "eyes", "eye", "left", "mouth", "hat", "red", "hair", "a", "of", "##s")
_FIXED = {"[PAD]": 0, "[UNK]": 100, "[CLS]": 101, "[SEP]": 102, "[MASK]": 103, ".": 1012, "?": 1029}
"""Where these stand among the words of BERT: transformers' Grounding DINO knows them by number."""


def save_words(folder: Path) -> Path:
    """A vocab.txt with a few words."""
    words = [f"[unused{number}]" for number in range(1030)] + list(WORDS)
    for word, number in _FIXED.items():
        words[number] = word
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.txt").write_text("\n".join(words) + "\n", encoding="utf-8")
    return folder


def tiny_config() -> Any:
    """Grounding DINO with all its parts, two layers each."""
    from transformers import GroundingDinoConfig, SwinConfig

    return GroundingDinoConfig(
        backbone_config=SwinConfig(
            window_size=5, embed_dim=32, depths=[1, 2, 1, 1], num_heads=[1, 2, 4, 8], out_indices=[2, 3, 4]
        ),
        text_config={
            "model_type": "bert",
            "vocab_size": 1030 + len(WORDS),
            "hidden_size": 128,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "intermediate_size": 48,
        },
        encoder_layers=2,
        decoder_layers=2,
        encoder_ffn_dim=64,
        decoder_ffn_dim=64,
        num_queries=20,
    )


def tiny_detector(seed: int = 0) -> Any:
    """Transformers' Grounding DINO with random weights; none of them is left at a value that hides a mistake, like 0."""
    import torch
    from transformers import GroundingDinoForObjectDetection

    torch.manual_seed(seed)
    model = GroundingDinoForObjectDetection(tiny_config())
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.05 * torch.randn_like(parameter)
        for parameter in model.model.decoder.layer_norm.parameters():
            parameter *= 0.05  # else every score is 0 or 1
    return model.eval()


def save_detector_folder(model: Any, folder: Path, shorter_side: int = 64) -> Path:
    """In transformers' format, as on the hub."""
    from transformers import BertTokenizerFast, GroundingDinoImageProcessor

    model.save_pretrained(folder)
    size = {"shortest_edge": shorter_side, "longest_edge": 2 * shorter_side}
    GroundingDinoImageProcessor(size=size).save_pretrained(folder)
    BertTokenizerFast(str(save_words(folder) / "vocab.txt")).save_pretrained(folder)
    return folder


def save_detector_checkpoint(model: Any, path: Path) -> Path:
    """As its authors publish it: their names, "module." before each, BERT's unused head, tables that follow from the rest."""
    import torch

    from edit3dgs_ns.editing.masks.grounding_dino_package import build
    from edit3dgs_ns.editing.masks.grounding_dino_weights import to_official

    theirs = build(model.config, _Numbers())
    weights = to_official(model.state_dict(), list(theirs.state_dict()))
    weights["bert.pooler.dense.weight"], weights["bert.pooler.dense.bias"] = (
        torch.zeros(128, 128),
        torch.zeros(128),
    )
    weights["bert.embeddings.position_ids"] = torch.arange(512)[None]
    weights["label_enc.weight"] = torch.zeros(3, 256)
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"model": {f"module.{name}": tensor for name, tensor in weights.items()}}, path)
    return path


class _Numbers:
    """Enough of a tokenizer for a model that is only built."""

    def convert_tokens_to_ids(self, tokens: list[str]) -> list[int]:
        return [_FIXED[token] for token in tokens]


def save_segmenter(path: Path, config: str = "configs/sam2.1/sam2.1_hiera_t.yaml", seed: int = 0) -> Path:
    """SAM 2.1 tiny, the smallest there is, as its authors publish it."""
    import torch
    from sam2.build_sam import build_sam2

    torch.manual_seed(seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"model": build_sam2(config, device="cpu").state_dict()}, path)
    return path


def put_on_hub(cache: Path, repo: str, folder: Path) -> None:
    """Files as huggingface_hub keeps them once they were downloaded."""
    place = cache / f"models--{repo.replace('/', '--')}"
    (place / "refs").mkdir(parents=True)
    (place / "refs" / "main").write_text("0" * 40)
    (place / "snapshots").mkdir()
    (place / "snapshots" / ("0" * 40)).symlink_to(folder, target_is_directory=True)
