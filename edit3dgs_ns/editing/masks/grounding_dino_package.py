"""A thin adapter to `groundingdino-py`, the package of Grounding DINO's authors.

What stands in the way of the package as it is, and what is done here:

- It builds its language model by downloading BERT and wraps it in a class that calls methods which transformers 5 removed
  (`get_head_mask`). BERT's weights are in the checkpoint anyway, and transformers' own `BertModel` takes the same inputs: it is
  put in the wrapper's place.
- It knows four backbones by name. Backbone and transformer are built from the shapes of the weights here.
- Its requirements name opencv-python, which fights the headless one that Nerfstudio pins, and supervision, which only its
  drawing functions use. It runs without both: `GROUNDINGDINO_INSTALL`.
- Its deformable attention is plain PyTorch (releases 0.4.0 and later), and so runs on any device.
"""

from __future__ import annotations

import contextlib
import importlib
import warnings
from collections.abc import Iterator
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from edit3dgs_ns.editing.masks.grounded_sam_options import GROUNDINGDINO_INSTALL, OPTION
from edit3dgs_ns.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import GroundingDinoConfig

PACKAGE = "groundingdino-py"
_CHANNELS = 256
"""The package's sine embeddings have this length, independent of its options."""


def build(config: GroundingDinoConfig, tokenizer: Any) -> nn.Module:
    """The package's Grounding DINO of this architecture, with random weights.

    Args:
        config: the architecture, in transformers' words.
        tokenizer: splits captions into BERT's words.

    Raises:
        ValueError: the package is not installed, or cannot build this architecture.
    """
    check_installed()
    _check_architecture(config)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what PyTorch and timm will change one day
        model = _model(config, tokenizer)
    model.get_submodule("bert").register_module("pooler", None)  # asked for at construction and never used
    return model.eval()


def _check_architecture(config: GroundingDinoConfig) -> None:
    """Raise a ValueError for what the package has no setting for; no published checkpoint needs it."""
    one_size = config.encoder_ffn_dim == config.decoder_ffn_dim
    one_head_count = config.encoder_attention_heads == config.decoder_attention_heads
    swin = getattr(config.backbone_config, "model_type", None) == "swin"
    if not (config.d_model == _CHANNELS and swin and one_size and one_head_count and config.two_stage):
        raise UserError(
            f"{OPTION}.detector-backend groundingdino cannot build this architecture: it knows two-stage detectors of "
            f"{_CHANNELS} channels on a Swin backbone, with encoder and decoder of one size. Use "
            f"{OPTION}.detector-backend transformers."
        )


def check_installed() -> None:
    """Raise a ValueError that says what to install when the package cannot be imported."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            importlib.import_module("groundingdino.models.GroundingDINO.groundingdino")
    except ImportError as error:
        raise UserError(
            f"{OPTION}.detector-backend groundingdino needs the package {PACKAGE}, which cannot be imported ({error}). Install "
            f"it without its own requirements, which bring a second OpenCV: {GROUNDINGDINO_INSTALL}\n"
            f"Or let transformers run the same weights: {OPTION}.detector-backend transformers."
        ) from error


def outputs(
    model: nn.Module, pixel_values: Tensor, pixel_mask: Tensor, captions: list[str]
) -> tuple[Tensor, Tensor]:
    """Logits (views, queries, words) and boxes (views, queries, 4: centre, width and height over the image's)."""
    from groundingdino.util.misc import NestedTensor

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = model(NestedTensor(pixel_values, ~pixel_mask.bool()), captions=captions)
    return result["pred_logits"], result["pred_boxes"]


def _model(config: GroundingDinoConfig, tokenizer: Any) -> nn.Module:
    from groundingdino.models.GroundingDINO.backbone.backbone import Joiner
    from groundingdino.models.GroundingDINO.backbone.position_encoding import PositionEmbeddingSineHW
    from groundingdino.models.GroundingDINO.backbone.swin_transformer import SwinTransformer
    from groundingdino.models.GroundingDINO.groundingdino import GroundingDINO
    from groundingdino.models.GroundingDINO.transformer import build_transformer

    swin = config.backbone_config
    trunk = SwinTransformer(
        pretrain_img_size=swin.image_size,  # read only with absolute positions, which Grounding DINO has not
        embed_dim=swin.embed_dim,
        depths=list(swin.depths),
        num_heads=list(swin.num_heads),
        window_size=swin.window_size,
        out_indices=(1, 2, 3),
    )
    heat = config.positional_embedding_temperature
    position = PositionEmbeddingSineHW(
        config.d_model // 2, temperatureH=heat, temperatureW=heat, normalize=True
    )
    backbone = Joiner(trunk, position)
    backbone.num_channels = trunk.num_features[1:]
    with _own_language_model(config, tokenizer):
        return GroundingDINO(
            backbone,
            build_transformer(_arguments(config)),
            num_queries=config.num_queries,
            iter_update=True,
            query_dim=4,
            num_feature_levels=config.num_feature_levels,
            nheads=config.encoder_attention_heads,
            two_stage_type="standard",
            dec_pred_bbox_embed_share=config.decoder_bbox_embed_share,
            two_stage_class_embed_share=False,
            two_stage_bbox_embed_share=config.two_stage_bbox_embed_share,
            max_text_len=config.max_text_len,
        )


def _arguments(config: GroundingDinoConfig) -> SimpleNamespace:
    """What the package's config files say of the transformer."""
    return SimpleNamespace(
        hidden_dim=config.d_model,
        dropout=0.0,
        nheads=config.encoder_attention_heads,
        num_queries=config.num_queries,
        dim_feedforward=config.encoder_ffn_dim,
        enc_layers=config.encoder_layers,
        dec_layers=config.decoder_layers,
        pre_norm=False,
        query_dim=4,
        transformer_activation=config.activation_function,
        num_patterns=0,
        num_feature_levels=config.num_feature_levels,
        enc_n_points=config.encoder_n_points,
        dec_n_points=config.decoder_n_points,
        two_stage_type="standard",
        embed_init_tgt=config.embedding_init_target,
        use_text_enhancer=True,
        use_fusion_layer=True,
        use_checkpoint=False,
        use_transformer_ckpt=False,
        use_text_cross_attention=True,
        text_dropout=0.0,
        fusion_dropout=0.0,
        fusion_droppath=config.fusion_droppath,
    )


@contextlib.contextmanager
def _own_language_model(config: GroundingDinoConfig, tokenizer: Any) -> Iterator[None]:
    """While a model is built, the package takes tokenizer and BERT from here."""
    from groundingdino.models.GroundingDINO import groundingdino as module
    from groundingdino.util import get_tokenlizer as loaders
    from transformers import BertModel

    own = (
        (loaders, "get_tokenlizer", lambda name: tokenizer),
        (loaders, "get_pretrained_language_model", lambda name: BertModel(config.text_config)),
        (module, "BertModelWarper", lambda bert_model: bert_model),
    )
    former = [(place, name, getattr(place, name)) for place, name, _ in own]
    for place, name, function in own:
        setattr(place, name, function)
    try:
        yield
    finally:
        for place, name, function in former:
            setattr(place, name, function)
