"""Checks of Python, the device, and the programs and libraries outside Python that some commands need."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from pathlib import Path

from edit3dgs_ns.bundled_programs import provide_ffmpeg, provide_libusb
from edit3dgs_ns.machine.finding import Finding

DEFAULT_CUDA_TOOLKIT = Path("/usr/local/cuda")


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
