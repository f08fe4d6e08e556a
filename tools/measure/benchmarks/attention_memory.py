"""Peak memory of shared self-attention at Stable Diffusion's size, on the attention layer alone.

    python -m tools.measure.benchmarks.attention_memory          16 views, 64 x 64 tokens, 320 channels, 3 guidance branches

Prints one line of JSON: the peak over what was there before, in MiB, and what the tensors would take that must never be there.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import torch
from diffusers.models.attention import AttentionMixin
from diffusers.models.attention_processor import Attention

from edit3dgs_ns.editing.agreement.attention import SharedAttention
from edit3dgs_ns.editing.agreement.key_views import draw_key_views, order_around_head, runs_of
from edit3dgs_ns.editing.agreement.matching import make_correspondence
from edit3dgs_ns.editing.framing import Frame
from tools.measure.benchmarks.ball import ball_request

MIB = 2**20
PIXELS = 512
"""Side of the images; their latents are an eighth of it."""


class OneLayer(torch.nn.Module, AttentionMixin):
    """A model that is one self-attention layer."""

    def __init__(self, channels: int, heads: int):
        super().__init__()
        self.attn1 = Attention(channels, heads=heads, dim_head=channels // heads)


def run(options: argparse.Namespace) -> dict[str, float]:
    """One denoising step's worth of one layer, for all views and branches."""
    device, rows = torch.device(options.device), options.branches
    asked = ball_request(options.views, PIXELS)
    frame = Frame.fit(PIXELS, PIXELS, 64)
    grid = options.tokens, options.tokens
    correspondence = make_correspondence(options.correspondence, asked, frame, device)
    keys = draw_key_views(runs_of(order_around_head(asked.c2w, asked.timesteps), options.views_per_key), 0, 0)
    others = [view for view in range(options.views) if view not in keys]
    model = OneLayer(options.channels, options.heads).to(device)

    def features(views: int) -> torch.Tensor:
        return torch.randn(rows * views, grid[0] * grid[1], options.channels, device=device)

    before = start_measuring(device)
    started = time.perf_counter()
    with torch.no_grad(), SharedAttention(model, correspondence, grid, branches=rows) as shared:
        shared.begin_step(keys)
        with shared.key_pass():
            model.attn1(features(len(keys)))
        for begin in range(0, len(others), options.views_per_forward):
            views = others[begin : begin + options.views_per_forward]
            with shared.injected_pass(views):
                model.attn1(features(len(views)))
    tokens = grid[0] * grid[1]
    return {
        "peak_mib": round((peak(device) - before) / MIB, 1),
        "views_tokens_tokens_mib": round(options.views * tokens * tokens * 4 / MIB, 1),
        "features_of_all_views_mib": round(rows * options.views * tokens * options.channels * 4 / MIB, 1),
        "seconds": round(time.perf_counter() - started, 1),
        "key_views": len(keys),
    } | vars(options)


def start_measuring(device: torch.device) -> int:
    """Bytes in use now; forgets earlier peaks."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return torch.cuda.memory_allocated(device)
    Path("/proc/self/clear_refs").write_text("5")  # Linux: the peak begins anew
    return _status("VmRSS")


def peak(device: torch.device) -> int:
    """Most bytes in use since `start_measuring`."""
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else _status("VmHWM")


def _status(name: str) -> int:
    line = next(x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith(name))
    return 1024 * int(line.split()[1])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, default in (
        ("views", 16), ("views-per-key", 5), ("views-per-forward", 4), ("branches", 3),
        ("tokens", 64), ("channels", 320), ("heads", 8),
    ):  # fmt: skip
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--correspondence", choices=("rig", "epipolar"), default="rig")
    parser.add_argument("--device", default="cpu")
    print(json.dumps(run(parser.parse_args())))
