"""Grounding DINO's weights under two names: those of its authors' checkpoints, and transformers'.

A checkpoint of the authors is nothing but tensors: which architecture they belong to follows from their shapes. The names
    differ by part; besides, the authors keep an attention's query, key and value in one tensor, and transformers in three.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from edit3dgs_ns.errors import UserError

if TYPE_CHECKING:
    from transformers import GroundingDinoConfig

_HEADS = 8
"""Of the detector's attention, in all published checkpoints; its shapes do not show it."""
_BERT_HEAD = 64
"""Channels of one of BERT's attention heads."""

_PARTS: Sequence[tuple[str, str]] = (
    (
        "backbone.0.patch_embed.proj.",
        "model.backbone.conv_encoder.model.embeddings.patch_embeddings.projection.",
    ),
    ("backbone.0.patch_embed.norm.", "model.backbone.conv_encoder.model.embeddings.norm."),
    ("backbone.0.layers.", "model.backbone.conv_encoder.model.encoder.layers."),
    ("backbone.0.norm1.", "model.backbone.conv_encoder.model.hidden_states_norms.stage2."),
    ("backbone.0.norm2.", "model.backbone.conv_encoder.model.hidden_states_norms.stage3."),
    ("backbone.0.norm3.", "model.backbone.conv_encoder.model.hidden_states_norms.stage4."),
    ("bert.", "model.text_backbone."),
    ("feat_map.", "model.text_projection."),
    ("input_proj.", "model.input_proj_vision."),
    ("transformer.level_embed", "model.level_embed"),
    ("transformer.tgt_embed.", "model.query_position_embeddings."),
    ("transformer.enc_output.", "model.enc_output."),
    ("transformer.enc_output_norm.", "model.enc_output_norm."),
    ("transformer.enc_out_bbox_embed.", "model.encoder_output_bbox_embed."),
    ("transformer.encoder.layers.#.", "model.encoder.layers.#.deformable_layer."),
    ("transformer.encoder.text_layers.#.", "model.encoder.layers.#.text_enhancer_layer."),
    ("transformer.encoder.fusion_layers.#.", "model.encoder.layers.#.fusion_layer."),
    ("transformer.decoder.norm.", "model.decoder.layer_norm."),
    ("transformer.decoder.ref_point_head.", "model.decoder.reference_points_head."),
    ("transformer.decoder.bbox_embed.", "model.decoder.bbox_embed."),
    ("transformer.decoder.layers.#.", "model.decoder.layers.#."),
    ("bbox_embed.", "bbox_embed."),
)
"""Beginnings of the authors' names and of transformers'; # is the number of a layer."""

_WITHIN: Mapping[str, Sequence[tuple[str, str]]] = {
    "backbone.0.layers.": (
        ("norm1", "layernorm_before"),
        ("norm2", "layernorm_after"),
        ("attn.relative", "attention.self.relative"),
        ("attn.qkv", "attention.self"),
        ("attn.proj", "attention.output.dense"),
        ("mlp.fc1", "intermediate.dense"),
        ("mlp.fc2", "output.dense"),
    ),
    "transformer.encoder.layers.#.": (
        ("norm1", "self_attn_layer_norm"),
        ("norm2", "final_layer_norm"),
        ("linear", "fc"),
    ),
    "transformer.encoder.text_layers.#.": (
        ("norm1", "layer_norm_before"),
        ("norm2", "layer_norm_after"),
        ("linear", "fc"),
    ),
    "transformer.encoder.fusion_layers.#.": (
        ("gamma_v", "vision_param"),
        ("gamma_l", "text_param"),
        ("layer_norm_v", "layer_norm_vision"),
        ("layer_norm_l", "layer_norm_text"),
        ("v_proj", "vision_proj"),
        ("l_proj", "text_proj"),
    ),
    "transformer.decoder.layers.#.": (
        ("cross_attn", "encoder_attn"),
        ("ca_text", "encoder_attn_text"),
        ("catext_norm", "encoder_attn_text_layer_norm"),
        ("norm1", "encoder_attn_layer_norm"),
        ("norm2", "self_attn_layer_norm"),
        ("norm3", "final_layer_norm"),
        ("linear", "fc"),
    ),
}
"""Within such a part: the authors' word and transformers'."""

_UNUSED = re.compile(
    r"label_enc\.|bert\.pooler\.|bert\.embeddings\.position_ids|.*relative_position_index|model\.text_backbone\.pooler\."
)
"""What a checkpoint may hold and no detection needs: left-overs of training, and tables computed anew."""
_FUSED = re.compile(r"(.*)(?:\.in_proj_|\.qkv\.)(weight|bias)")
_QKV = ("query", "key", "value")


def to_transformers(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights under the authors' names, under those of transformers' `GroundingDinoForObjectDetection`.

    Raises:
        ValueError: a name is not Grounding DINO's.
    """
    result = {}
    for name, tensor in weights.items():
        if _UNUSED.match(name):
            continue
        fused = _FUSED.fullmatch(name)
        if fused is None:
            result[_renamed(name)] = tensor
            continue
        layer = _renamed(f"{fused[1]}.qkv." if ".qkv." in name else f"{fused[1]}.").rstrip(".")
        for part, chunk in zip(_QKV, tensor.chunk(3), strict=True):
            result[f"{layer}.{part}.{fused[2]}"] = chunk.contiguous()
    return result


def to_official(weights: Mapping[str, Tensor], names: Sequence[str]) -> dict[str, Tensor]:
    """The way back from `to_transformers`.

    Args:
        weights: under transformers' names.
        names: the authors' names that are wanted.

    Raises:
        ValueError: a tensor is missing.
    """
    result = {}
    for name in names:
        if _UNUSED.match(name):
            continue
        fused = _FUSED.fullmatch(name)
        if fused is None:
            result[name] = _get(weights, _renamed(name))
            continue
        layer = _renamed(f"{fused[1]}.qkv." if ".qkv." in name else f"{fused[1]}.").rstrip(".")
        result[name] = torch.cat([_get(weights, f"{layer}.{part}.{fused[2]}") for part in _QKV])
    return result


def config_of(weights: Mapping[str, Tensor]) -> GroundingDinoConfig:
    """The architecture that weights under the authors' names belong to, read off their shapes.

    Raises:
        ValueError: they are not Grounding DINO's.
    """
    from transformers import BertConfig, GroundingDinoConfig

    levels, channels = _get(weights, "transformer.level_embed").shape
    points = _get(weights, "transformer.encoder.layers.0.self_attn.attention_weights.bias").shape[0]
    points_decoder = _get(weights, "transformer.decoder.layers.0.cross_attn.attention_weights.bias").shape[0]
    words, text_channels = _get(weights, "bert.embeddings.word_embeddings.weight").shape
    text = BertConfig(
        vocab_size=words,
        hidden_size=text_channels,
        num_hidden_layers=_count(weights, r"bert\.encoder\.layer\.(\d+)\."),
        num_attention_heads=max(text_channels // _BERT_HEAD, 1),
        intermediate_size=_get(weights, "bert.encoder.layer.0.intermediate.dense.bias").shape[0],
        max_position_embeddings=_get(weights, "bert.embeddings.position_embeddings.weight").shape[0],
    )
    ffn = _get(weights, "transformer.encoder.layers.0.linear1.bias").shape[0]
    ffn_decoder = _get(weights, "transformer.decoder.layers.0.linear1.bias").shape[0]
    return GroundingDinoConfig(
        backbone_config=_swin_of(weights),
        text_config=text.to_dict(),
        d_model=channels,
        num_feature_levels=levels,
        num_queries=_get(weights, "transformer.tgt_embed.weight").shape[0],
        encoder_layers=_count(weights, r"transformer\.encoder\.layers\.(\d+)\."),
        decoder_layers=_count(weights, r"transformer\.decoder\.layers\.(\d+)\."),
        encoder_ffn_dim=ffn,
        decoder_ffn_dim=ffn_decoder,
        encoder_attention_heads=_HEADS,
        decoder_attention_heads=_HEADS,
        encoder_n_points=points // (_HEADS * levels),
        decoder_n_points=points_decoder // (_HEADS * levels),
    )


def _swin_of(weights: Mapping[str, Tensor]) -> object:
    from transformers import SwinConfig

    stages = range(_count(weights, r"backbone\.0\.layers\.(\d+)\."))
    tables = [
        _get(weights, f"backbone.0.layers.{stage}.blocks.0.attn.relative_position_bias_table")
        for stage in stages
    ]
    return SwinConfig(
        embed_dim=_get(weights, "backbone.0.patch_embed.proj.weight").shape[0],
        depths=[_count(weights, rf"backbone\.0\.layers\.{stage}\.blocks\.(\d+)\.") for stage in stages],
        num_heads=[table.shape[1] for table in tables],
        window_size=(round(tables[0].shape[0] ** 0.5) + 1) // 2,  # the table has (2 window - 1)^2 rows
        out_indices=[2, 3, 4],
    )


def _renamed(name: str) -> str:
    """Transformers' name (or its beginning) for one of the authors'."""
    numbered = re.sub(r"(layers)\.(\d+)\.", r"\1.#.", name, count=1)
    number = re.search(r"layers\.(\d+)\.", name)
    for ours, theirs in _PARTS:
        for candidate, text in ((ours, name), (ours, numbered)):
            if not text.startswith(candidate):
                continue
            rest = text[len(candidate) :]
            for word, other in _WITHIN.get(ours, ()):
                rest = re.sub(rf"(?<![a-z]){re.escape(word)}", other, rest)
            return (theirs + rest).replace("#", number[1] if number else "#")
    raise UserError(f"{name!r} is no tensor of Grounding DINO")


def _get(weights: Mapping[str, Tensor], name: str) -> Tensor:
    if name not in weights:
        raise UserError(f"the tensor {name!r} is missing")
    return weights[name]


def _count(weights: Mapping[str, Tensor], numbered: str) -> int:
    """How many different numbers names have at the pattern's group."""
    return len({match[1] for name in weights if (match := re.match(numbered, name))})
