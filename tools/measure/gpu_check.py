"""`make gpu-check`: all that needs a GPU, in at most eight minutes, without a network: a table, and outputs/gpu_check.json.

    missing      what this machine lacks, by name; nothing else is run where it lacks something
    kernels      gsplat's kernels against the CPU rasterizer: the tests marked `cuda`
    training     500 steps of `rigged-splatfacto-fast` on a small synthetic capture: milliseconds a step, PSNR of a test image
    edit         one batch of 4 views at 512 x 512 in half precision at Stable Diffusion's size, random weights: alone and together
    frames       of an avatar of 86,000 Gaussians at 802 x 550: frames a second, and the most memory that takes

Each part is written as soon as it is done. A part that fails says why, and the next one runs.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from edit3dgs_ns.files import write_durably

ROOT = Path(__file__).resolve().parents[2]
MIB = 2**20


@dataclass(frozen=True)
class Size:
    """How large everything is: the real sizes by default, small ones to try the check itself."""

    device: str = "cuda"
    steps: int = 500
    capture: int = 256
    cameras: int = 8
    frames: int = 6
    edit_pixels: int = 512
    edit_scale: int = 1
    edit_steps: int = 20
    gaussians: int = 86_000
    shown: int = 100


def missing() -> list[str]:
    """What this machine lacks; empty where everything can run."""
    import torch

    if not torch.cuda.is_available():
        why = "this torch is built for the CPU" if torch.version.cuda is None else "torch sees no CUDA device"
        return [f"a CUDA device: {why} (`edit3dgs doctor` says more)"]
    lacks = []
    if shutil.which("nvcc") is None and not Path("/usr/local/cuda/bin/nvcc").is_file():
        lacks.append("nvcc, with which gsplat compiles its kernels at the first use: install a CUDA toolkit")
    if not any(shutil.which(name) for name in ("c++", "g++", "clang++")):
        lacks.append("a C++ compiler, for the same")
    return lacks


def kernels(size: Size) -> dict[str, Any]:
    """The tests that need a CUDA device."""
    command = [sys.executable, "-m", "pytest", "-q", "-m", "cuda", "-p", "no:xdist", "tests/splats"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    counted = {kind: int(number) for number, kind in re.findall(r"(\d+) (passed|failed|error)", done.stdout)}
    if done.returncode != 0 or not counted.get("passed"):
        raise RuntimeError(done.stdout[-2000:])
    return {"tests": counted["passed"]}


def training(size: Size) -> dict[str, Any]:
    """A short training through `ns-train`, and the test images afterwards."""
    programs = Path(sys.executable).parent
    with tempfile.TemporaryDirectory(prefix="edit3dgs-gpu-") as folder:
        data, out = Path(folder) / "capture", Path(folder) / "out"
        shape = ["--resolution", str(size.capture), str(size.capture), "--samples", "2"]
        _run(
            [
                programs / "edit3dgs",
                "capture",
                data,
                *shape,
                "--cameras",
                size.cameras,
                "--frames",
                size.frames,
            ]
        )
        device = "cuda" if size.device.startswith("cuda") else "cpu"
        started = time.perf_counter()
        said = _run([
            programs / "ns-train", "rigged-splatfacto-fast", "--machine.device-type", device,
            "--max-num-iterations", size.steps, "--pipeline.model.resolution-schedule", max(size.steps // 3, 1),
            "--output-dir", out, "--experiment-name", "avatar", "--timestamp", "run",
            "--vis", "tensorboard", "nersemble-data", "--data", data,
        ])  # fmt: skip
        seconds = time.perf_counter() - started
        step = re.findall(r"Trainer\.train_iteration: ([\d.]+)", said)
        result = out / "eval.json"
        config = out / "avatar" / "rigged-splatfacto-fast" / "run" / "config.yml"
        _run([programs / "ns-eval", "--load-config", config, "--output-path", result])
        psnr = json.loads(result.read_text())["results"]["psnr"]
    return {
        "milliseconds_a_step": round(1e3 * float(step[-1]), 1) if step else None,
        "steps": size.steps,
        "seconds_with_start": round(seconds, 1),
        "psnr": round(psnr, 2),
    }


def edit(size: Size) -> dict[str, Any]:
    """A batch of views, each alone and together; see `benchmarks.sd_size`."""
    figures = {}
    for kind in ("none", "rig"):
        said = _run([
            sys.executable, "-m", "tools.measure.benchmarks.sd_size", "--correspondence", kind, "--device", size.device,
            "--pixels", size.edit_pixels, "--scale", size.edit_scale, "--steps", size.edit_steps,
        ])  # fmt: skip
        figures[kind] = json.loads(said.splitlines()[-1])
    alone, together = figures["none"], figures["rig"]
    return {
        "seconds_alone": alone["seconds"],
        "seconds_together": together["seconds"],
        "agreement_time_ratio": round(together["seconds"] / alone["seconds"], 3),
        "agreement_memory_ratio": round(together["peak_mib"] / alone["peak_mib"], 3),
        "peak_mib": together["peak_mib"],
        "evaluations": together["evaluations"],
        "dtype": together["dtype"],
    }


def frames(size: Size) -> dict[str, Any]:
    """Frames of a moving avatar as the viewer asks for them."""
    import torch

    from tools.measure.benchmarks import avatar_frame
    from tools.measure.benchmarks.attention_memory import peak, start_measuring

    device = torch.device(size.device)
    model = avatar_frame.make_model(size.gaussians).to(device)
    camera = avatar_frame.cameras_around(model, 1).to(device)

    def show(count: int) -> float:
        started = time.perf_counter()
        for number in range(count):
            camera.times = torch.full((1, 1), number * 0.37 % 1.0, device=device)
            with torch.no_grad():
                model.get_outputs(camera)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter() - started

    show(3)  # compiles
    start_measuring(device)
    seconds = show(size.shown)
    return {
        "frames_per_second": round(size.shown / seconds, 1),
        "peak_mib": round(peak(device) / MIB),
        "gaussians": size.gaussians,
    }


PARTS: dict[str, Callable[[Size], dict[str, Any]]] = {
    "kernels": kernels,
    "training": training,
    "edit": edit,
    "frames": frames,
}


def check(size: Size, out: Path, only: list[str], console: Console) -> int:
    """Runs the parts; returns 0 if none failed, 2 where the machine lacks something."""
    report: dict[str, Any] = {"machine": _machine(size.device)}
    lacks = missing() if size.device.startswith("cuda") else []
    if lacks:
        report["missing"] = lacks
        _write(out, report)
        for name in lacks:
            console.print(f"missing: {name}", soft_wrap=True, markup=False)
        return 2
    started = time.perf_counter()
    table = Table("part", "figure", "measured", title="gpu-check", title_justify="left")
    for name in only:
        console.log(f"{name} ...")
        try:
            report[name] = PARTS[name](size)
        except Exception as error:  # the next part is worth as much without it
            report[name] = {"error": f"{type(error).__name__}: {str(error)[-2000:]}"}
        for key, value in report[name].items():
            table.add_row(name, key, str(value)[:200])
        report["seconds"] = round(time.perf_counter() - started, 1)
        _write(out, report)
    console.print(table)
    console.print(f"{report['seconds']} s. Written to {out}")
    return 1 if any("error" in report[name] for name in only) else 0


def _machine(device: str) -> dict[str, Any]:
    import torch

    from edit3dgs_ns.machine.system import cuda_device_name

    return {"device": cuda_device_name() or device, "torch": torch.__version__, "cuda": torch.version.cuda}


def _write(out: Path, report: dict[str, Any]) -> None:
    out.parent.mkdir(parents=True, exist_ok=True)
    write_durably(out, (json.dumps(report, indent=2) + "\n").encode())


def _run(command: list[Any]) -> str:
    words = [str(word) for word in command]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(
            f"{' '.join(words)[:300]} ended with {done.returncode}:\n{(done.stdout + done.stderr)[-1500:]}"
        )
    return done.stdout


def main(arguments: list[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--out", type=Path, default=ROOT / "outputs" / "gpu_check.json")
    options = parser.parse_args(arguments)
    return check(Size(), options.out, options.only, Console())


if __name__ == "__main__":
    sys.exit(main())
