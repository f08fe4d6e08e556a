"""Randomly initialised models of today's editing pipelines: the real classes, a few channels each, saved in diffusers' folder
format."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.tiny_editor import tiny_tokenizer


def save_tiny_family(name: str, folder: Path) -> Path:
    """Build and save one of `FAMILIES`."""
    import torch

    torch.manual_seed(0)
    _BUILDERS[name](folder)
    return folder


def _tiny_vae(channels: int, **options: Any) -> Any:
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        block_out_channels=(32, 32),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=channels,
        norm_num_groups=8,
        sample_size=32,
        **options,
    )


def _clip_config(vocabulary: int, **options: Any) -> Any:
    from transformers import CLIPTextConfig

    return CLIPTextConfig(
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
        hidden_size=32,
        intermediate_size=37,
        num_attention_heads=4,
        num_hidden_layers=3,
        vocab_size=vocabulary,
        max_position_embeddings=16,
        **options,
    )


def _save_sdxl(folder: Path, *, scheduler: Any = None, **options: Any) -> None:
    import diffusers
    from transformers import CLIPTextModel, CLIPTextModelWithProjection

    tokenizer = tiny_tokenizer(folder / "words")
    unet = diffusers.UNet2DConditionModel(
        block_out_channels=(32, 64),
        layers_per_block=1,
        sample_size=16,
        in_channels=8,
        out_channels=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=(2, 4),
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        transformer_layers_per_block=(1, 1),
        projection_class_embeddings_input_dim=6 * 8 + 32,
        cross_attention_dim=64,
        norm_num_groups=8,
    )
    config = _clip_config(len(tokenizer), projection_dim=32)
    diffusers.StableDiffusionXLInstructPix2PixPipeline(
        vae=_tiny_vae(4, scaling_factor=0.13),
        text_encoder=CLIPTextModel(config),
        text_encoder_2=CLIPTextModelWithProjection(config),
        tokenizer=tokenizer,
        tokenizer_2=tokenizer,
        unet=unet,
        scheduler=scheduler
        or diffusers.EulerDiscreteScheduler(
            beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", timestep_spacing="leading"
        ),
        add_watermarker=False,
        **options,
    ).save_pretrained(folder, safe_serialization=True)


def _save_cosxl(folder: Path) -> None:
    import diffusers

    scheduler = diffusers.EDMEulerScheduler(
        sigma_min=0.002,
        sigma_max=120.0,
        sigma_data=1.0,
        prediction_type="v_prediction",
        sigma_schedule="exponential",
    )
    _save_sdxl(folder, scheduler=scheduler, is_cosxl_edit=True)


def _flow_scheduler() -> Any:
    from diffusers import FlowMatchEulerDiscreteScheduler

    return FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True)


def _save_kontext(folder: Path) -> None:
    import diffusers
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import CLIPTextModel, T5Config, T5EncoderModel, T5TokenizerFast

    clip_tokenizer = tiny_tokenizer(folder / "words")
    pieces = ["<pad>", "</s>", "<unk>", "\u2581", *"abcdefghijklmnopqrstuvwxyz"]
    backend = Tokenizer(models.Unigram([(piece, -1.0) for piece in pieces], unk_id=2))
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    t5 = T5Config(vocab_size=len(pieces), d_model=32, d_kv=8, d_ff=37, num_layers=2, num_heads=4)
    transformer = diffusers.FluxTransformer2DModel(
        in_channels=32,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=32,
        pooled_projection_dim=32,
        axes_dims_rope=(4, 4, 8),
        guidance_embeds=True,
    )
    diffusers.FluxKontextPipeline(
        scheduler=_flow_scheduler(),
        vae=_tiny_vae(
            8, shift_factor=0.1, scaling_factor=0.4, use_quant_conv=False, use_post_quant_conv=False
        ),
        text_encoder=CLIPTextModel(_clip_config(len(clip_tokenizer))),
        tokenizer=clip_tokenizer,
        text_encoder_2=T5EncoderModel(t5),
        tokenizer_2=T5TokenizerFast(tokenizer_object=backend),
        transformer=transformer,
    ).save_pretrained(folder, safe_serialization=True)


_CHAT = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def _qwen_tokenizer(folder: Path) -> Any:
    """Qwen's byte tokenizer with no merges."""
    import json

    from tokenizers import pre_tokenizers
    from transformers import Qwen2TokenizerFast

    folder.mkdir(parents=True, exist_ok=True)
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    (folder / "vocab.json").write_text(json.dumps({letter: n for n, letter in enumerate(letters)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    tokenizer = Qwen2TokenizerFast(str(folder / "vocab.json"), str(folder / "merges.txt"))
    vision = ["<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"]
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>", *vision]})
    tokenizer.chat_template = _CHAT
    return tokenizer


def _flux2_parts(guidance_embeds: bool = False) -> dict[str, Any]:
    """Transformer, autoencoder and scheduler of FLUX.2; the text encoder gives 3 layers of 16 channels."""
    import diffusers
    import torch

    vae = diffusers.AutoencoderKLFlux2(
        block_out_channels=(32, 32),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=8,
        sample_size=32,
    )
    vae.bn.running_mean.copy_(torch.randn(16) / 5)
    vae.bn.running_var.copy_(torch.rand(16) + 0.5)
    transformer = diffusers.Flux2Transformer2DModel(
        in_channels=16,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=48,
        timestep_guidance_channels=32,
        axes_dims_rope=(4, 4, 4, 4),
        guidance_embeds=guidance_embeds,
    )
    return {"vae": vae, "transformer": transformer, "scheduler": _flow_scheduler()}


def _save_klein(folder: Path, *, is_distilled: bool = True) -> None:
    import diffusers
    from transformers import Qwen3Config, Qwen3ForCausalLM

    tokenizer = _qwen_tokenizer(folder / "words")
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=28,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
    )
    diffusers.Flux2KleinPipeline(
        text_encoder=Qwen3ForCausalLM(config),
        tokenizer=tokenizer,
        is_distilled=is_distilled,
        **_flux2_parts(),
    ).save_pretrained(folder, safe_serialization=True)


def _save_klein_base(folder: Path) -> None:
    _save_klein(folder, is_distilled=False)


def _save_flux2(folder: Path) -> None:
    import diffusers
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import (
        Mistral3Config,
        Mistral3ForConditionalGeneration,
        PixtralImageProcessor,
        PixtralProcessor,
        PreTrainedTokenizerFast,
    )

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE({letter: n for n, letter in enumerate(letters)}, []))
    backend.pre_tokenizer, backend.decoder = pre_tokenizers.ByteLevel(), decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="<pad>")
    tokenizer.add_special_tokens({"additional_special_tokens": ["[IMG]", "[IMG_BREAK]", "[IMG_END]"]})
    template = (
        "{% for m in messages %}{{ m.role }}: {% for c in m.content %}{{ c.text }}{% endfor %}\n{% endfor %}"
    )
    size = {"hidden_size": 16, "intermediate_size": 16, "num_attention_heads": 2, "head_dim": 8}
    config = Mistral3Config(
        text_config={
            "model_type": "mistral",
            "vocab_size": len(tokenizer),
            "num_hidden_layers": 31,
            "num_key_value_heads": 1,
            **size,
        },
        vision_config={"model_type": "pixtral", "num_hidden_layers": 1, "image_size": 32, **size},
        image_token_index=tokenizer.convert_tokens_to_ids("[IMG]"),
    )
    parts = _flux2_parts(guidance_embeds=True)
    diffusers.Flux2Pipeline(
        text_encoder=Mistral3ForConditionalGeneration(config),
        tokenizer=PixtralProcessor(PixtralImageProcessor(), tokenizer, chat_template=template),
        **parts,
    ).save_pretrained(folder, safe_serialization=True)


def _vision_parts(folder: Path) -> tuple[Any, Any, Any]:
    """Qwen2.5-VL, its tokenizer and its processor."""
    from transformers import (
        Qwen2_5_VLConfig,
        Qwen2_5_VLForConditionalGeneration,
        Qwen2VLImageProcessor,
        Qwen2VLProcessor,
    )
    from transformers.models.qwen2_vl.video_processing_qwen2_vl import Qwen2VLVideoProcessor

    tokenizer = _qwen_tokenizer(folder / "words")
    number = tokenizer.convert_tokens_to_ids
    config = Qwen2_5_VLConfig(
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": 32,
            "intermediate_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "rope_scaling": {"type": "mrope", "mrope_section": [1, 1, 2]},
        },
        vision_config={
            "depth": 2,
            "hidden_size": 32,
            "intermediate_size": 32,
            "num_heads": 2,
            "out_hidden_size": 32,
            "fullatt_block_indexes": [1],
        },
        image_token_id=number("<|image_pad|>"),
        video_token_id=number("<|video_pad|>"),
        vision_start_token_id=number("<|vision_start|>"),
        vision_end_token_id=number("<|vision_end|>"),
    )
    processor = Qwen2VLProcessor(
        image_processor=Qwen2VLImageProcessor(min_pixels=28 * 28, max_pixels=56 * 56),
        tokenizer=tokenizer,
        video_processor=Qwen2VLVideoProcessor(),
    )
    return Qwen2_5_VLForConditionalGeneration(config), tokenizer, processor


def _save_qwen(folder: Path, pipeline: str = "QwenImageEditPipeline") -> None:
    import diffusers

    text_encoder, tokenizer, processor = _vision_parts(folder)
    vae = diffusers.AutoencoderKLQwenImage(
        base_dim=16,
        z_dim=4,
        dim_mult=[1, 2],
        num_res_blocks=1,
        temperal_downsample=[False],
        latents_mean=[0.1, -0.2, 0.3, 0.0],
        latents_std=[0.5, 1.5, 1.0, 2.0],
    )
    transformer = diffusers.QwenImageTransformer2DModel(
        in_channels=16,
        out_channels=4,
        num_layers=2,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=32,
        axes_dims_rope=(4, 6, 6),
    )
    getattr(diffusers, pipeline)(
        scheduler=_flow_scheduler(),
        vae=vae,
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        processor=processor,
        transformer=transformer,
    ).save_pretrained(folder, safe_serialization=True)


def _save_qwen_plus(folder: Path) -> None:
    _save_qwen(folder, "QwenImageEditPlusPipeline")


def _save_longcat(folder: Path) -> None:
    import diffusers

    text_encoder, tokenizer, processor = _vision_parts(folder)
    transformer = diffusers.LongCatImageTransformer2DModel(
        in_channels=64,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=32,
        pooled_projection_dim=32,
        axes_dims_rope=(4, 6, 6),
    )
    diffusers.LongCatImageEditPipeline(
        scheduler=_flow_scheduler(),
        vae=_tiny_vae(16, shift_factor=0.1, scaling_factor=0.4),
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        text_processor=processor,
        transformer=transformer,
    ).save_pretrained(folder, safe_serialization=True)


_BUILDERS = {
    "sdxl": _save_sdxl,
    "cosxl": _save_cosxl,
    "kontext": _save_kontext,
    "klein": _save_klein,
    "klein-base": _save_klein_base,
    "flux2": _save_flux2,
    "qwen": _save_qwen,
    "qwen-plus": _save_qwen_plus,
    "longcat": _save_longcat,
}
FAMILY_NAMES = tuple(_BUILDERS)
"""Names for `save_tiny_family`."""
