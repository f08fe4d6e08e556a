"""The CPU rasterizer on 50,000 Gaussians on a head-sized surface, 512 x 512 pixels, SH degree 3.

What is measured, in this order:

    speedup_vs_torch_ref           seconds of metal-gauss' `torch_ref.render`, forward and backward, against ours, same threads
    ns_per_pair_*                  CPU time of the loops over (pixel, Gaussian) pairs, on one thread, by evaluated pair
    fraction_of_limit_*            the same, as a fraction of what `limit` reaches with the arithmetic of a pair alone
    thread_speedup                 forward + backward, everything, one thread against two
    bitwise_equal_across_threads   images and all gradients, one and two threads, one camera and three
    first_call_s, cached_call_s    the first forward + backward of a process, imports of torch not counted: nothing compiled yet
                                   on this machine, and compiled by an earlier process
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from rich.console import Console
from torch import Tensor

from tools.measure.benchmarks import common

ROOT = Path(__file__).resolve().parents[3]
REFERENCE = "metal-gauss"
REFERENCE_GB = 22.5
"""Memory that the reference's forward pass keeps for its backward pass, measured."""
SMALL_CHUNKS = {"tile": 16, "slab": 64, "tile_chunk": 8}
"""Options with which the reference is several times faster and needs 12 GB: measured too, for the table."""


@dataclass(frozen=True)
class Surface:
    """Gaussians on an ellipsoid of the size of a head, at the origin, and a camera 0.6 m in front of it."""

    means: Float[Tensor, "N 3"]
    quats: Float[Tensor, "N 4"]
    scales: Float[Tensor, "N 3"]
    opacities: Float[Tensor, " N"]
    sh: Float[Tensor, "N 16 3"]
    viewmats: Float[Tensor, "C 4 4"]
    Ks: Float[Tensor, "C 3 3"]
    size: int

    def leaves(self) -> list[Tensor]:
        """What takes gradients."""
        return [self.means, self.quats, self.scales, self.opacities, self.sh]

    def trainable(self) -> Surface:
        """A copy whose `leaves` collect gradients."""
        names = ("means", "quats", "scales", "opacities", "sh")
        return replace(self, **{name: getattr(self, name).clone().requires_grad_() for name in names})

    def render(self) -> Float[Tensor, "C H W 3"]:
        """The picture, on white."""
        from edit3dgs_ns.splats.rasterize import rasterize

        white = torch.ones(len(self.viewmats), 3)
        return rasterize(
            *self.leaves(), self.viewmats, self.Ks, self.size, self.size, sh_degree=3, backgrounds=white
        )[0]


def head_surface(gaussians: int = 50_000, size: int = 512, cameras: int = 1, seed: int = 0) -> Surface:
    """Median scale 1.2 mm at 0.6 m; focal length 1000 pixels at 512 x 512; opacities as after a training, most above 0.5."""
    g = torch.Generator().manual_seed(seed)
    directions = torch.nn.functional.normalize(torch.randn(gaussians, 3, generator=g), dim=-1)
    focal = 1000.0 * size / 512
    viewmats = torch.eye(4).repeat(cameras, 1, 1)
    for c in range(cameras):
        angle = torch.tensor(0.4 * c)
        viewmats[c, 0, 0] = viewmats[c, 2, 2] = angle.cos()
        viewmats[c, 0, 2], viewmats[c, 2, 0] = angle.sin(), -angle.sin()
        viewmats[c, 2, 3] = 0.6
    return Surface(
        means=directions * torch.tensor([0.08, 0.11, 0.09]),
        quats=torch.randn(gaussians, 4, generator=g),
        scales=0.0012 * torch.exp(0.4 * torch.randn(gaussians, 3, generator=g)),
        opacities=torch.sigmoid(1.5 + 1.5 * torch.randn(gaussians, generator=g)),
        sh=0.2 * torch.randn(gaussians, 16, 3, generator=g),
        viewmats=viewmats,
        Ks=torch.tensor([[focal, 0, size / 2], [0, focal, size / 2], [0, 0, 1.0]]).repeat(cameras, 1, 1),
        size=size,
    )


def measure(
    console: Console,
    machine: dict[str, Any],
    known_machine: dict[str, Any],
    gaussians: int = 50_000,
    size: int = 512,
) -> dict[str, Any]:
    """The section `rasterizer`. Adds to `machine`: `torch_ref`, `limit_ns_per_pair`.

    Args:
        console: where to say what is going on.
        machine: the record of this machine; `threads` are used where no other number is named.
        known_machine: the record of an earlier run, whose time of the reference is used if the machine is the same.
        gaussians: of the scene. The reference and the first calls always draw 50,000.
        size: of the image, pixels.
    """
    machine["torch_ref"] = _reference(console, machine, known_machine)
    surface = head_surface(gaussians, size)
    console.log("Rasterizer: one thread and two")
    one, many = measure_threads(surface, machine["threads"])
    console.log("Rasterizer: pairs and kernels")
    figures = measure_pairs(surface)
    machine["limit_ns_per_pair"] = figures.pop("limits")
    console.log("Rasterizer: first call in a new process, twice")
    first, cached = first_calls()
    return {
        "speedup_vs_torch_ref": round(machine["torch_ref"]["seconds"] / many, 1),
        **figures,
        "thread_speedup": round(one / many, 3),
        "bitwise_equal_across_threads": all(
            bitwise_equal(head_surface(gaussians, size, cameras)) for cameras in (1, 3)
        ),
        "first_call_s": round(first, 2),
        "cached_call_s": round(cached, 2),
        "speedup_vs_torch_ref_in_small_chunks": round(machine["torch_ref"]["seconds_small_chunks"] / many, 1),
        "ns_per_pair_of_everything": round(one / figures["pairs_evaluated"] * 1e9, 3),
        "seconds_torch_ref": machine["torch_ref"]["seconds"],
        "seconds_forward_backward": round(many, 4),
        "seconds_one_thread": round(one, 4),
    }


def measure_pairs(surface: Surface, rounds: int = 15) -> dict[str, Any]:
    """Nanoseconds per evaluated pair on one thread, beside the machine's limit; and the pairs."""
    from edit3dgs_ns.splats import cpu_rasterizer as cpu
    from edit3dgs_ns.splats import cpu_tiles
    from tools.measure.benchmarks.limit import limit_ns_per_pair
    from tools.measure.benchmarks.pairs import count_pairs

    recorded: dict[str, tuple[Callable[..., None], tuple[Any, ...]]] = {}

    class Recording:
        """`cpu_tiles`, remembering what its two loops were called with."""

        def __getattr__(self, name: str) -> Any:
            kernel = getattr(cpu_tiles, name)
            if name not in ("blend_forward", "blend_backward"):
                return kernel

            def call(*arguments: Any) -> None:
                recorded[name] = kernel, arguments
                kernel(*arguments)

            return call

    with common.threads(1):
        passes = _passes(surface)
        passes[0]()  # compiles
        passes[1]()
        before, cpu.tiles = cpu.tiles, Recording()  # type: ignore[assignment]
        try:
            passes[0]()
            passes[1]()
        finally:
            cpu.tiles = before
        loops = [common.cpu_seconds(lambda k=k, a=a: k(*a), rounds) for k, a in recorded.values()]
        limits = {name: limit_ns_per_pair(name) for name in ("forward", "backward")}
    records, start, pairs = recorded["blend_forward"][1][:3]
    evaluated, contributing = count_pairs(records, start, start[1:], pairs, surface.size, surface.size)
    result: dict[str, Any] = {}
    for name, seconds in zip(limits, loops, strict=True):
        result[f"ns_per_pair_{name}"] = round(seconds / evaluated * 1e9, 3)
    for name, limit in limits.items():
        result[f"fraction_of_limit_{name}"] = round(limit / result[f"ns_per_pair_{name}"], 3)
        result[f"limit_ns_per_pair_{name}"] = round(limit, 3)
    result |= {"pairs_evaluated": evaluated, "pairs_contributing": contributing}
    result["limits"] = {name: round(value, 3) for name, value in limits.items()}
    return result


def _passes(surface: Surface) -> tuple[Callable[[], None], Callable[[], None]]:
    """Forward and backward of the whole rasterizer, as functions that share one image."""
    scene = surface.trainable()
    weight = torch.randn(
        len(surface.viewmats), surface.size, surface.size, 3, generator=torch.Generator().manual_seed(1)
    )
    images: list[Tensor] = []

    def forward() -> None:
        images[:] = [scene.render()]

    def backward() -> None:
        for leaf in scene.leaves():
            leaf.grad = None
        images.pop().backward(weight)

    return forward, backward


def measure_threads(surface: Surface, threads: int, rounds: int = 25) -> tuple[float, float]:
    """Seconds of forward + backward on one thread and on several, taken in turns."""
    forward, backward = _passes(surface)

    def run(count: int) -> None:
        with common.threads(count):
            forward()
            backward()

    run(threads)
    one, many = common.alternate([lambda: run(1), lambda: run(threads)], rounds)
    return one, many


def bitwise_equal(surface: Surface) -> bool:
    """Whether one thread and two give the same images and gradients, bit for bit."""
    results = []
    for count in (1, 2):
        with common.threads(count):
            scene = surface.trainable()
            image = scene.render()
            image.backward(torch.linspace(-1, 1, image.numel()).reshape(image.shape).sin())
            results.append([image.detach(), *(leaf.grad for leaf in scene.leaves())])
    return all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def _reference(console: Console, machine: dict[str, Any], known_machine: dict[str, Any]) -> dict[str, Any]:
    """Seconds of the reference, from the earlier record if that is of this machine and these versions.

    `seconds` with its own options, `seconds_small_chunks` with SMALL_CHUNKS.

    Raises:
        ModuleNotFoundError: the reference is not installed.
        MemoryError: less memory than it needs is free.
    """
    try:
        release = version(REFERENCE)
    except PackageNotFoundError:
        raise ModuleNotFoundError(
            f"The reference rasterizer {REFERENCE} is not installed; it comes with the development tools: "
            "make setup, or pip install --constraint constraints.txt --editable '.[dev]'"
        ) from None
    known = known_machine.get("torch_ref", {})
    if common.same_machine(known_machine, machine) and known.get("version") == release:
        console.log(
            f"Rasterizer: the reference took {known['seconds']} s here before (--fresh measures again)"
        )
        return known
    available = common.available_gb()
    if available is not None and available < REFERENCE_GB:
        raise MemoryError(
            f"The reference rasterizer needs {REFERENCE_GB} GB of memory, {available:.1f} GB are free: close other "
            "programs, or measure the other sections with --only"
        )
    console.log("Rasterizer: the reference, one image forward and backward; a minute or two")
    seconds = [
        round(_in_new_process("reference", str(machine["threads"]), size), 2) for size in ("own", "small")
    ]
    return {"version": release, "seconds": seconds[0], "seconds_small_chunks": seconds[1]}


def _time_reference(threads: int, chunks: str) -> float:
    from metal_gauss import torch_ref

    adjustment = Path("/proc/self/oom_score_adj")
    if adjustment.exists():
        adjustment.write_text("1000")  # if memory runs out after all, this process ends and no other
    options: dict[str, Any] = dict(SMALL_CHUNKS) if chunks == "small" else {}
    surface = head_surface()
    scene, size = surface.trainable(), surface.size
    with common.threads(threads):
        start = time.perf_counter()
        image = torch_ref.render(
            *scene.leaves(),
            surface.Ks[0],
            surface.viewmats[0],
            size,
            size,
            background=(1.0, 1.0, 1.0),
            **options,
        )[0]
        image.backward(torch.ones_like(image))
        return time.perf_counter() - start


def first_calls() -> tuple[float, float]:
    """Seconds of the first forward + backward in a process: with an empty cache, and again with what that one compiled."""
    with tempfile.TemporaryDirectory(prefix="edit3dgs-numba-") as cache:
        first, cached = (_in_new_process("first-call", NUMBA_CACHE_DIR=cache) for _ in range(2))
    return first, cached


def _time_first_call() -> float:
    surface = head_surface().trainable()
    start = time.perf_counter()
    surface.render().sum().backward()
    return time.perf_counter() - start


def _in_new_process(*arguments: str, **environment: str) -> float:
    """Seconds that this module's `main` measures there.

    Raises:
        RuntimeError: the process failed.
    """
    command = [sys.executable, "-m", "tools.measure.benchmarks.rasterizer", *arguments]
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True
    )
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr[-3000:]}")
    return float(done.stdout)


if __name__ == "__main__":
    print(
        _time_first_call() if sys.argv[1] == "first-call" else _time_reference(int(sys.argv[2]), sys.argv[3])
    )
