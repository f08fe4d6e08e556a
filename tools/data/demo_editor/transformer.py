"""The flow-matching editor's parts in diffusers' and transformers' own classes, as FLUX.2 klein has them.

The transformer sees the noised latents' tokens and the original's, and starts as the velocity that leads to the original,
exactly: `start_as_copy`. It only learns the change, as the UNet does.
"""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import FlowMatchEulerDiscreteScheduler, Flux2Transformer2DModel
from jaxtyping import Float
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
from torch import Tensor, nn
from transformers import Qwen2TokenizerFast, Qwen3Config, Qwen3ForCausalLM

from tools.data.demo_editor.models import learn_merges
from tools.data.demo_editor.settings import Settings

ROPE_THETA = 23
"""Smaller than FLUX.2's: positions are few, and neighbours must be told apart by attention that is set, not learnt. Of the image's
number its third frequency turns the original, whose number is 10, by a third of a circle against the result, whose is 0."""
_PAD, _TIME_PAIR, _ORIGINAL = "<|endoftext|>", 2, 10
_CONSTANT = 512.0
"""Against the numbers of a token, which have about 1, so large that the layer norms divide by nearly the same everywhere."""
_SHARPNESS = 150.0
"""Largest attention score of the heads that are set."""
_HUE_GAIN, _TREND_GAIN = 3.0, 6.0
"""So that what the whole picture says is heard among the numbers of a token."""
LEAST_LEVEL = 0.05
"""Below this noise level the untrained transformer's velocity is not exact."""


def write_qwen_tokenizer(folder: Path, words: list[str], max_tokens: int) -> Qwen2TokenizerFast:
    """A byte tokenizer of Qwen's class that knows no capitals and makes each of the given words one token.

    Its chat template is the bare prompt.
    """
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    space = next(piece for piece, _ in pre_tokenizers.ByteLevel(add_prefix_space=False).pre_tokenize_str(" "))
    merges = learn_merges([[*(space + word)] for word in words])
    vocabulary = {token: n for n, token in enumerate([*letters, *dict.fromkeys(a + b for a, b in merges)])}
    backend = Tokenizer(models.BPE(vocabulary, merges))
    # Qwen's class sets the pre-tokenizer itself: the space before the first word is the normalizer's.
    backend.normalizer = normalizers.Sequence([normalizers.Lowercase(), normalizers.Prepend(" ")])
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    tokenizer = Qwen2TokenizerFast(
        tokenizer_object=backend, pad_token=_PAD, eos_token=_PAD, model_max_length=max_tokens
    )
    tokenizer.chat_template = "{% for message in messages %}{{ message.content }}{% endfor %}"
    tokenizer.save_pretrained(folder)
    return tokenizer


def make_qwen(tokenizer: Qwen2TokenizerFast, settings: Settings) -> Qwen3ForCausalLM:
    """A small Qwen3; the transformer reads its last `PROMPT_LAYERS` layers."""
    width = settings.text_width
    text = Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=len(tokenizer),
            hidden_size=width,
            intermediate_size=2 * width,
            num_hidden_layers=settings.text_layers,
            num_attention_heads=4,
            num_key_value_heads=4,
            head_dim=width // 4,
            max_position_embeddings=settings.max_tokens,
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id,
            bos_token_id=None,
            tie_word_embeddings=True,
        )
    )
    nn.init.normal_(text.model.embed_tokens.weight)
    return text


def prompt_layers(settings: Settings) -> tuple[int, ...]:
    """The layers of the text encoder that the transformer reads, as `Flux2KleinPipeline` counts them."""
    return tuple(range(settings.text_layers - 2, settings.text_layers + 1))


def make_flow_scheduler() -> FlowMatchEulerDiscreteScheduler:
    """Noise levels 1, 3/4, 1/2, 1/4 in four steps, not shifted to more noise as FLUX.2's: views that agree down to 1/2 keep a last
    step for their own detail."""
    return FlowMatchEulerDiscreteScheduler(shift=1.0, use_dynamic_shifting=False)


def make_transformer(settings: Settings) -> Flux2Transformer2DModel:
    """An untrained transformer that returns the velocity from the noised latents to the original; see `start_as_copy`."""
    double, single = settings.transformer_layers
    transformer = Flux2Transformer2DModel(
        in_channels=4 * settings.latent_channels,
        num_layers=double,
        num_single_layers=single,
        attention_head_dim=sum(settings.rope_axes),
        num_attention_heads=settings.transformer_heads,
        joint_attention_dim=3 * settings.text_width,
        timestep_guidance_channels=64,
        mlp_ratio=1.0,
        axes_dims_rope=settings.rope_axes,
        rope_theta=ROPE_THETA,
        guidance_embeds=False,
    )
    start_as_copy(transformer, settings)
    return transformer


@torch.no_grad()
def start_as_copy(transformer: Flux2Transformer2DModel, settings: Settings) -> None:
    """Set the weights so that the velocity is (noised - original) / noise level, whatever text is given.

    Without biases or skips, and with layer norms everywhere, that takes some care. `_Places` divides a token's numbers among the
    directions of a zero-mean space, besides a large constant, which makes the norms linear, and a mark of text. The first block's
    feedforward layers write the constant; in the first block of one stream, heads that look at the original's token of the same
    row and column subtract it from the noised one and note its coarse part, and two more note what the whole picture says: the mean
    noise of the channels that choose a hue (see `chance`), and how far the mean colour is from the original's. All other blocks
    start by adding nothing.
    """
    places = _Places(settings)
    places.embed(transformer)
    _zero_outputs(transformer)
    clock = _Clock(transformer)
    width, at = settings.transformer_width, places.constant
    ones, zeros = torch.ones(width), torch.zeros(width)
    shift = zeros.clone()
    shift[at] = 1.0
    for modulation in (
        transformer.double_stream_modulation_img,
        transformer.double_stream_modulation_txt,
    ):
        clock.always(modulation.linear, torch.cat([zeros, zeros, ones, shift, zeros, ones]))
    block = transformer.transformer_blocks[0]
    _write_constant(block.ff, places, mark=False)
    _write_constant(block.ff_context, places, mark=True)
    single = transformer.single_stream_modulation.linear
    clock.always(single, torch.cat([zeros, places.undo - 1, ones]))
    clock.show(single, places.level)
    _set_heads(transformer.single_transformer_blocks[0].attn, places, settings)
    clock.follow(transformer.norm_out.linear, places.undo)
    transformer.proj_out.weight.zero_()
    transformer.proj_out.weight[:, : places.free] = places.noised.T


def keep_passage(transformer: Flux2Transformer2DModel) -> None:
    """Take what `start_as_copy` relies on out of the training: a copy that is a little wrong is worth less than none."""
    for module in (
        transformer.x_embedder,
        transformer.proj_out,
        transformer.norm_out,
        transformer.time_guidance_embed,
        transformer.double_stream_modulation_img,
        transformer.double_stream_modulation_txt,
        transformer.single_stream_modulation,
    ):
        module.requires_grad_(False)
    block, single = transformer.transformer_blocks[0], transformer.single_transformer_blocks[0].attn
    for layer in (block.ff, block.ff_context):
        half = layer.linear_in.weight.shape[0] // 2
        _keep(layer.linear_in.weight, rows=[0, half])
        _keep(layer.linear_out.weight, columns=[0])
    single.norm_q.requires_grad_(False)
    single.norm_k.requires_grad_(False)
    heads = single.inner_dim
    _keep(single.to_qkv_mlp_proj.weight, rows=list(range(3 * heads)))
    _keep(single.to_out.weight, columns=list(range(heads)))


def _keep(weight: nn.Parameter, rows: list[int] | None = None, columns: list[int] | None = None) -> None:
    mask = torch.ones_like(weight)
    if rows is not None:
        mask[rows] = 0.0
    if columns is not None:
        mask[:, columns] = 0.0
    weight.register_hook(lambda grad: grad * mask.to(grad.dtype))


class _Places:
    """Which directions of a token's space hold what.

    The last four numbers hold the constant (twice, with both signs) and the mark of text (likewise); the others have orthonormal
    directions of zero mean.

    Attributes:
        free: how many numbers the directions have.
        noised: directions of the noised token, later of its difference to the original (free, token).
        coarse: directions of the original's first components (free, some); a third of what is left stays for the blocks' own use.
        hue: two directions for the mean noise that chooses.
        trend: three directions for the difference of the mean colours.
        level: a direction for the noise level (width).
        rest: all directions but `noised`.
        constant: place of the constant.
        mark: place of the mark.
        undo: by what a layer norm's result has to be multiplied to be what it was, and 1 at the constant.
    """

    def __init__(self, settings: Settings) -> None:
        width, token = settings.transformer_width, 4 * settings.latent_channels
        self.free = width - 4
        if self.free < token + 7:
            raise ValueError(f"A width of {width} cannot carry tokens of {token} numbers: use more heads.")
        some = torch.randn(self.free, self.free - 1, generator=torch.Generator().manual_seed(0))
        directions = torch.linalg.qr((some - some.mean(dim=0)).double())[0].float()
        count = (self.free - 3 - token) * 2 // 3 // 4 * 4
        self.noised, self.rest = directions[:, :token], directions[:, token:]
        self.hue, self.coarse = self.rest[:, :2], self.rest[:, 2 : 2 + min(count, token)]
        self.trend = self.rest[:, -4:-1]
        self.level = torch.zeros(width)
        self.level[: self.free] = self.rest[:, -1]
        self.constant, self.mark = width - 2, width - 4
        norm = width**0.5 / (2**0.5 * _CONSTANT)
        self.undo = torch.full((width,), 1 / norm)
        self.undo[self.constant :] = 1 / (norm * _CONSTANT)

    def embed(self, transformer: Flux2Transformer2DModel) -> None:
        """Image tokens go to their directions, text to all others."""
        transformer.x_embedder.weight.zero_()
        transformer.x_embedder.weight[: self.free] = self.noised
        text = transformer.context_embedder.weight
        some = torch.randn(self.rest.shape[1], text.shape[1], generator=torch.Generator().manual_seed(1))
        text.zero_()
        text[: self.free] = self.rest @ some / text.shape[1] ** 0.5


class _Clock:
    """Sets layers that see nothing but the time to given functions of the noise level, by least squares."""

    def __init__(self, transformer: Flux2Transformer2DModel) -> None:
        embed = transformer.time_guidance_embed
        first, second = embed.timestep_embedder.linear_1.weight, embed.timestep_embedder.linear_2.weight
        generator = torch.Generator().manual_seed(2)
        half = first.shape[1] // 2
        slow = (10000.0 ** (-torch.arange(half) / half) < 0.05).repeat(2)  # of a turn per thousandth
        first.copy_(3 * slow * torch.randn(first.shape, generator=generator) / slow.sum() ** 0.5)
        second.copy_(4 * torch.randn(second.shape, generator=generator) / second.shape[1] ** 0.5)
        self._levels = torch.arange(int(1000 * LEAST_LEVEL), 1001) / 1000.0
        self._features = nn.functional.silu(embed(1000 * self._levels, None)).double()

    def always(self, linear: nn.Linear, values: Float[Tensor, " out"]) -> None:
        """Let the layer give the same at all levels."""
        linear.weight.copy_(torch.outer(values, self._solve(torch.ones_like(self._levels))))

    def show(self, linear: nn.Linear, direction: Float[Tensor, " width"]) -> None:
        """Add the noise level, from -4 to 4, to the shift of a modulation, in a direction."""
        level = self._solve(8 * self._levels - 4, torch.ones_like(self._levels))
        linear.weight[: len(direction)] += torch.outer(direction, level)

    def follow(self, linear: nn.Linear, scale: Float[Tensor, " width"]) -> None:
        """Let the last norm's layer give, for 1 + its scale, `scale` divided by the noise level, and no shift."""
        linear.weight.zero_()
        one = self._solve(torch.ones_like(self._levels))
        linear.weight[: len(scale)] = torch.outer(scale, self._solve(1 / self._levels)) - one

    def _solve(
        self, wanted: Float[Tensor, " levels"], unit: Float[Tensor, " levels"] | None = None
    ) -> Float[Tensor, " features"]:
        """Weights of the features, small enough for half precision.

        Args:
            wanted: the function.
            unit: in which errors count; relative errors if not given.
        """
        unit = (wanted if unit is None else unit).double()
        features, target = self._features / unit[:, None], wanted.double() / unit
        gram = features.T @ features
        ridge = 1e-9 * gram.diagonal().mean() * torch.eye(len(gram))
        return torch.linalg.solve(gram + ridge, features.T @ target).float()


def _zero_outputs(transformer: Flux2Transformer2DModel) -> None:
    """Let every block add nothing."""
    for block in transformer.transformer_blocks:
        for layer in (
            block.attn.to_out[0],
            block.attn.to_add_out,
            block.ff.linear_out,
            block.ff_context.linear_out,
        ):
            nn.init.zeros_(layer.weight)
    for block in transformer.single_transformer_blocks:
        nn.init.zeros_(block.attn.to_out.weight)


def _write_constant(layer: nn.Module, places: _Places, *, mark: bool) -> None:
    """Let a gated feedforward layer write the constant, and the mark of text, by its first hidden number."""
    half, gate = layer.linear_in.weight.shape[0] // 2, 4.0
    for row in (0, half):
        layer.linear_in.weight[row] = 0.0
        layer.linear_in.weight[row, places.constant] = gate
    hidden = float(nn.functional.silu(torch.tensor(gate)) * gate)
    column = layer.linear_out.weight[:, 0]
    column[places.constant], column[places.constant + 1] = _CONSTANT / hidden, -_CONSTANT / hidden
    if mark:
        column[places.mark], column[places.mark + 1] = 1 / hidden, -1 / hidden


def _set_heads(attn: nn.Module, places: _Places, settings: Settings) -> None:
    """The heads that copy, and the two that average; what is left of the block's attention stays unused."""
    size, width, token = attn.head_dim, attn.inner_dim, 4 * settings.latent_channels
    sharp = (_SHARPNESS / size**0.5) ** 0.5
    attn.norm_q.weight.fill_(sharp)
    attn.norm_k.weight.fill_(sharp)
    query, key, value, out = torch.zeros(4, width, width).unbind(0)
    copies = -(-token // size)
    if copies + 2 > settings.transformer_heads:
        raise ValueError(f"{settings.transformer_heads} heads of {size} cannot copy {token} numbers.")
    for head in range(settings.transformer_heads):
        rows = slice(head * size, (head + 1) * size)
        looks = _looks(settings.rope_axes, same_place=head < copies, at_original=head != copies)
        for weight, image, text in ((query, looks[0], looks[0]), (key, looks[1], looks[2])):
            weight[rows, places.constant] = image
            weight[rows, places.mark] = text - image
    value[:token, : places.free] = places.noised.T
    out[: places.free, :token] = -places.noised
    some = places.coarse.shape[1]
    out[: places.free, :some] += places.coarse
    # A token's numbers are four positions of each channel.
    channels = places.noised.unflatten(1, (-1, 4)).mean(dim=2).T
    own, original = copies * size, (copies + 1) * size
    value[own : own + 2, : places.free] = channels[-2:]
    out[: places.free, own : own + 2] = _HUE_GAIN * settings.latent_size * places.hue
    for first, sign in ((own + 2, 1), (original, -1)):
        value[first : first + 3, : places.free] = channels[:3]
        out[: places.free, first : first + 3] = sign * _TREND_GAIN * places.trend
    attn.to_qkv_mlp_proj.weight[: 3 * width] = torch.cat([query, key, value])
    attn.to_out.weight[:, :width] = out


def _looks(axes: tuple[int, ...], *, same_place: bool, at_original: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Query, key of image tokens and key of text tokens of a head; rotations do the rest.

    Args:
        axes: how a head's numbers are divided among the axes.
        same_place: from the result to the original's token of the same row and column, and from the original and from text to the
            text's first token, of which nothing is copied; otherwise to all tokens of an image.
        at_original: to those of the original, from the result; otherwise to those of the token's own image.
    """
    starts = [sum(axes[:n]) for n in range(len(axes))]
    time = starts[0] + 2 * _TIME_PAIR
    turn = torch.tensor(_ORIGINAL * ROPE_THETA ** (-2.0 * _TIME_PAIR / axes[0]))
    query, key, text = torch.zeros(3, sum(axes)).unbind(0)
    if not same_place:
        query[time], query[time + 1] = (turn.cos(), turn.sin()) if at_original else (1.0, 0.0)
        key[time], text[time] = 1.0, -1.0
        return query, key, text
    query[time], query[time + 1], key[time] = 0.63 * turn.cos(), 0.63 * turn.sin(), 0.63
    for axis in (1, 2):
        for pair in range(3):
            query[starts[axis] + 2 * pair] = key[starts[axis] + 2 * pair] = 0.274
    query[starts[3]] = 0.387
    text[starts[3]] = 1.0
    return query, key, text
