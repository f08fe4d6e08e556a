"""`edit3dgs doctor`: what this machine has, what is missing, and what to do about it.

Each check is a function that returns `Finding`s; a broken machine must not break a check, since that is what
the doctor is called for. The exit code depends only on findings marked `required`: what `make demo` needs.
"""

import importlib.metadata
import json
import os
import platform
import shutil
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from edit3dgs_ns.bundled_programs import provide_ffmpeg, provide_libusb
from edit3dgs_ns.console import CONSOLE
from edit3dgs_ns.evaluation.clip_files import missing_parts

Status = Literal["ok", "warn", "missing", "wrong"]

TESTED_VERSIONS = {
    "torch": "2.14.1",
    "torchvision": "0.29.1",
    "nerfstudio": "1.1.5",
    "gsplat": "1.4.0",
    "diffusers": "0.39.0",
    "transformers": "4.57.6",
    "accelerate": "1.15.0",
    "numba": "0.68.1",
    "numpy": "1.26.4",
    "trimesh": "5.2.0",
    "embreex": "4.4.0.post1",
    "av": "18.1.0" if sys.version_info >= (3, 11) else "17.1.0",
    "torchmetrics": "1.9.0",
}
"""The lines of constraints.txt that matter here. An installed package has no constraints.txt beside it, so
they are repeated; a test holds the two equal."""
MASK_VERSIONS = {"sam2": "1.1.0", "groundingdino-py": "0.4.0"}
"""The same for what only masks from words need."""

PIPELINE = ("unet", "vae", "text_encoder")
DEMO_EDITOR = ("model_index.json", *PIPELINE, "tokenizer", "scheduler")
INSTRUCT_PIX2PIX = "timbrooks/instruct-pix2pix"
CLIP = "openai/clip-vit-large-patch14"
DEFAULT_CUDA_TOOLKIT = Path("/usr/local/cuda")
FLAME_SITE = "https://flame.is.tue.mpg.de"


@dataclass(frozen=True)
class Finding:
    """One line of the report."""

    area: str
    """Group in the table, e.g. `Packages`."""
    name: str
    """What was looked for."""
    status: Status
    """`ok`: fine. `warn`: there, but untested or of no use as it is. `missing`: not there. `wrong`: there, but
    damaged or at odds with the rest (files of a capture)."""
    found: str
    """What was found, or where it was looked for."""
    advice: str = ""
    """What it is good for and what to do; empty when nothing is to be done."""
    required: bool = False
    """Whether `make demo` needs it; for a capture, whether training does."""


# ---------------------------------------------------------------------------------------------- machine


def check_machine() -> list[Finding]:
    """Python, operating system, and the device that our methods pick."""
    return [_python(), _platform(), _device(cuda_device_name())]


def _python() -> Finding:
    fits = (3, 10) <= sys.version_info[:2] < (3, 13)
    advice = "" if fits else "Install Python 3.10, 3.11 or 3.12, then: make setup PYTHON=python3.11"
    found = f"{'.'.join(map(str, sys.version_info[:3]))} ({sys.executable})"
    return Finding("Machine", "Python", "ok" if fits else "missing", found, advice, required=True)


def _platform() -> Finding:
    tested = platform.system() == "Linux" and platform.machine() == "x86_64"
    found = f"{platform.system()} {platform.machine()}, {os.cpu_count()} CPU cores"
    advice = "" if tested else "Tested on x86-64 Linux only; elsewhere some wheels may be missing."
    return Finding("Machine", "Platform", "ok" if tested else "warn", found, advice)


def _device(cuda: str | None) -> Finding:
    if cuda is not None:
        return Finding("Machine", "Device", "ok", f"CUDA: {cuda}")
    if shutil.which("nvidia-smi"):
        advice = "There is an NVIDIA driver: install a torch build for its CUDA version to use the GPU."
        return Finding("Machine", "Device", "warn", "CPU (this torch sees no CUDA device)", advice)
    advice = "Enough for the demo; a real capture with instruct-pix2pix wants an NVIDIA GPU."
    return Finding("Machine", "Device", "ok", "CPU (no CUDA device)", advice)


def cuda_device_name() -> str | None:
    """Name of the first CUDA device, or None without one or without a working torch."""
    try:
        import torch
    except (ImportError, OSError):  # a broken CUDA library is an OSError; check_packages reports the rest
        return None
    return torch.cuda.get_device_name(0) if torch.cuda.is_available() else None


# --------------------------------------------------------------------------------------------- packages


def check_packages() -> list[Finding]:
    """Installed versions against `TESTED_VERSIONS` and `MASK_VERSIONS`."""
    from edit3dgs_ns.editing.masks.grounded_sam_options import GROUNDINGDINO_INSTALL, SAM2_INSTALL

    needed = [_package(name, tested, "Run: make setup") for name, tested in TESTED_VERSIONS.items()]
    words = "For --pipeline.masks grounded-sam"
    installs = {
        "sam2": f"{words}: {SAM2_INSTALL}",
        "groundingdino-py": f"{words} with --pipeline.grounded-sam.detector-backend groundingdino: "
        f"{GROUNDINGDINO_INSTALL}",
    }
    return needed + [
        _package(name, tested, installs[name], required=False) for name, tested in MASK_VERSIONS.items()
    ]


def _package(name: str, tested: str, install: str, required: bool = True) -> Finding:
    try:
        installed = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return Finding("Packages", name, "missing", "not installed", install, required=required)
    # torch's local label (2.14.1+cpu) names the build, not another version.
    if installed.split("+")[0] == tested:
        return Finding("Packages", name, "ok", installed, required=required)
    advice = "If something fails, install the tested set: pip install -c constraints.txt -e ."
    return Finding("Packages", name, "warn", f"{installed} (tested: {tested})", advice, required=required)


# ------------------------------------------------------------------------------------------ head models


def check_heads() -> list[Finding]:
    """The embedded open head, and FLAME where `FLAME_MODEL_PATH` points."""
    return [_open_head(), _flame(os.environ.get("FLAME_MODEL_PATH"))]


def _open_head() -> Finding:
    path = Path(__file__).parents[1] / "flame" / "data" / "open_head.npz"
    if path.is_file():
        return Finding("Heads", "open head", "ok", f"embedded ({_size(path)})", required=True)
    advice = "It comes with this package: install it again, or bake it: python tools/bake_open_head.py"
    return Finding("Heads", "open head", "missing", f"no file {path}", advice, required=True)


def _flame(path: str | None) -> Finding:
    get_it = (
        f"For captures tracked with FLAME: get it at {FLAME_SITE} (FLAME 2023 Open is CC BY) and set FLAME_MODEL_PATH to its .pkl "
        "or its ZIP."
    )
    if not path:
        found = "FLAME_MODEL_PATH is not set: the embedded open head serves"
        return Finding("Heads", "FLAME", "missing", found, get_it)
    try:
        from edit3dgs_ns.flame.loading import load_assets

        assets = load_assets(Path(path))
    except Exception as error:
        # Whatever is wrong with the user's file (or with the install) is the finding.
        found = f"FLAME_MODEL_PATH={path}: {error}"
        advice = f"Point it at a FLAME model file ({FLAME_SITE}), or unset it to use the open head."
        return Finding("Heads", "FLAME", "missing", found, advice, required=True)
    found = f"{path} ({len(assets.v_template)} vertices, {len(assets.faces)} faces)"
    return Finding("Heads", "FLAME", "ok", found)


# ---------------------------------------------------------------------------------------------- weights


def check_weights() -> list[Finding]:
    """The demo's editor and CLIP, and what is in Hugging Face's cache: nothing is downloaded or loaded."""
    return [
        _embedded("demo editor", "editing/demo_editor", _missing_of_editor, required=True),
        _embedded("demo CLIP", "evaluation/demo_clip", missing_parts),
        _hub_model(
            INSTRUCT_PIX2PIX, tuple(f"{part}/*.safetensors" for part in PIPELINE), "editing real captures"
        ),
        _hub_model(CLIP, ("*.safetensors",), "the figures CLIP-S and CLIP-C of real captures"),
        *_mask_models(),
    ]


def _missing_of_editor(folder: Path) -> list[str]:
    return [part for part in DEMO_EDITOR if not (folder / part).exists()]


def _embedded(name: str, where: str, missing: Callable[[Path], list[str]], required: bool = False) -> Finding:
    """A model that comes with this package, in its folder `where`; `missing` names what the folder lacks."""
    folder = Path(__file__).parents[1] / where
    absent = missing(folder)
    if not absent:
        size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
        return Finding("Weights", name, "ok", f"embedded ({size / 1e6:.1f} MB)", required=required)
    found = f"{folder} lacks {', '.join(absent)}"
    tool = f"tools/train_{name.lower().replace(' ', '_')}.py"
    advice = f"It comes with this package: install it again, or train it: python {tool} all"
    return Finding("Weights", name, "missing", found, advice, required=required)


def _mask_models() -> list[Finding]:
    from edit3dgs_ns.editing.masks.grounded_sam_options import DETECTOR, SEGMENTER

    purpose = "masks from words (--pipeline.masks grounded-sam)"
    return [
        _hub_model(SEGMENTER, ("*.pt",), purpose),
        _hub_model(DETECTOR, ("config.json", "tokenizer.json", "*.safetensors"), purpose),
    ]


def hub_cache() -> Path:
    """Hugging Face's cache folder, by the rules of huggingface_hub (read now, not when that is imported)."""
    for variable in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        if os.environ.get(variable):
            return Path(os.environ[variable]).expanduser()
    home = os.environ.get("HF_HOME") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "huggingface"
    return Path(home).expanduser() / "hub"


def _hub_model(repo: str, parts: tuple[str, ...], purpose: str) -> Finding:
    """Look for a model in the cache: one snapshot of it must have a file for each glob of `parts`."""
    folder = hub_cache() / f"models--{repo.replace('/', '--')}"
    advice = f"For {purpose}: it downloads itself at first use, or now with: hf download {repo}"
    snapshots = sorted(folder.glob("snapshots/*"))
    if not snapshots:
        return Finding("Weights", repo, "missing", f"not in {hub_cache()}", advice)
    lacking = [[part for part in parts if not _has_weights(snapshot, part)] for snapshot in snapshots]
    if [] in lacking:
        return Finding("Weights", repo, "ok", str(folder))
    absent = ", ".join(lacking[-1])
    return Finding("Weights", repo, "warn", f"incomplete in {folder}: no {absent}", advice)


def _has_weights(snapshot: Path, part: str) -> bool:
    # exists() follows the cache's links: a link whose blob was never finished does not count.
    return any(path.exists() for path in snapshot.glob(part))


def _size(path: Path) -> str:
    return f"{path.stat().st_size / 1e6:.1f} MB"


# --------------------------------------------------------------------------------------- system libraries


def check_system() -> list[Finding]:
    """Programs and libraries outside Python that some commands need."""
    return [_ffmpeg(), _libusb(), _pyav(), *_compilers(cuda_device_name() is not None)]


def _ffmpeg() -> Finding:
    program = provide_ffmpeg()
    if program:
        return Finding("System", "ffmpeg", "ok", str(program))
    advice = "For `ns-render camera-path` (the demo does without): pip install imageio-ffmpeg"
    return Finding("System", "ffmpeg", "missing", "neither on the PATH nor bundled for this platform", advice)


def _libusb() -> Finding:
    if not sys.platform.startswith("linux"):
        return Finding("System", "libusb-1.0", "ok", "bundled with open3d on this platform")
    library = provide_libusb()
    if library:
        return Finding("System", "libusb-1.0", "ok", str(library))
    advice = "For `ns-export`, whose open3d needs it: pip install libusb-package"
    return Finding(
        "System", "libusb-1.0", "missing", "neither among the system's libraries nor bundled", advice
    )


def _pyav() -> Finding:
    advice = "It writes the demo's video. Install its own wheel: pip install --force-reinstall av"
    try:
        import av
    except ImportError as error:
        return Finding("System", "PyAV", "missing", str(error), advice, required=True)
    codecs = [name for name in ("libx264", "mpeg4") if name in av.codecs_available]
    if not codecs:
        return Finding("System", "PyAV", "missing", "has neither H.264 nor MPEG-4", advice, required=True)
    return Finding("System", "PyAV", "ok", f"writes video with {codecs[0]}", required=True)


def _compilers(cuda: bool) -> list[Finding]:
    """gsplat compiles its CUDA kernels at first use, with both. On the CPU, Numba needs neither."""
    compiler = os.environ.get("CXX") or "c++"
    get_toolkit = "install the CUDA toolkit of torch's CUDA version and set CUDA_HOME to its folder"
    rows = (
        ("C++ compiler", shutil.which(compiler), "apt install g++"),
        ("CUDA toolkit", cuda_toolkit(), get_toolkit),
    )
    findings = []
    for name, path, install in rows:
        if path is not None:
            findings.append(Finding("System", name, "ok", str(path)))
        elif cuda:
            advice = f"gsplat compiles its CUDA kernels at first use: {install}"
            findings.append(Finding("System", name, "missing", "not found", advice, required=True))
        else:
            findings.append(Finding("System", name, "ok", "not found; not needed on the CPU"))
    return findings


def cuda_toolkit() -> Path | None:
    """The toolkit's own folder, the one with include/cuda_runtime.h: a stray `nvcc` compiles nothing."""
    nvcc = shutil.which("nvcc")
    candidates = [os.environ.get("CUDA_HOME"), os.environ.get("CUDA_PATH"), str(DEFAULT_CUDA_TOOLKIT)]
    if nvcc:
        candidates.insert(2, str(Path(nvcc).resolve().parent.parent))
    for candidate in candidates:
        if candidate and (Path(candidate) / "include" / "cuda_runtime.h").is_file():
            return Path(candidate)
    return None


# ----------------------------------------------------------------------------------------------- report


def examine() -> list[Finding]:
    """All checks, in the order of the table."""
    return [*check_machine(), *check_packages(), *check_heads(), *check_weights(), *check_system()]


def can_run_demo(findings: list[Finding]) -> bool:
    """Whether nothing that `make demo` needs is missing."""
    return not any(finding.required and finding.status == "missing" for finding in findings)


def main(as_json: bool = False) -> int:
    """Examine this machine, print the report, return the exit code (0: `make demo` can run; 1: not)."""
    findings = examine()
    ready = can_run_demo(findings)
    if as_json:
        print(json.dumps({"ready": ready, "findings": [asdict(finding) for finding in findings]}, indent=2))
    else:
        _print_report(findings, ready)
    return 0 if ready else 1


def _print_report(findings: list[Finding], ready: bool) -> None:
    from rich.table import Table
    from rich.text import Text

    marks = {"ok": ("ok", "green"), "warn": ("warn", "yellow"), "missing": ("missing", "yellow")}
    table = Table(title="edit3dgs doctor", title_justify="left", header_style="bold", pad_edge=False)
    for column in ("", "What", "Found", "What to do"):
        table.add_column(column, overflow="fold")
    area = ""
    for finding in findings:
        if finding.area != area:
            area = finding.area
            table.add_section()
            table.add_row("", Text(area, style="bold"), "", "")
        mark, colour = marks[finding.status]
        colour = "red" if finding.required and finding.status == "missing" else colour
        # Text, so that a [path] is not read as markup.
        table.add_row(Text(mark, style=colour), finding.name, Text(finding.found), Text(finding.advice))
    CONSOLE.print(table)
    if ready:
        CONSOLE.print("[green]Ready:[/green] make demo can run. Yellow lines matter only for what they name.")
    else:
        CONSOLE.print("[red]Not ready:[/red] make demo needs what is marked red; do what its line says.")
