"""The doctor finds what is there, names what is missing, and says what to do: on faked machines."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import sys
from pathlib import Path

import huggingface_hub
import pytest
from packaging.requirements import Requirement

from edit3dgs_ns.commands import main as cli
from edit3dgs_ns.machine import examination, models, packages, system
from edit3dgs_ns.machine.finding import Finding
from edit3dgs_ns.tracking.mediapipe_install import MEDIAPIPE_INSTALL

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def bare_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Nothing on the PATH, no CUDA, an empty home, no settings."""
    for name in ("FLAME_MODEL_PATH", "HF_HOME", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name in ("CUDA_HOME", "CUDA_PATH", "CXX"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setattr(system, "cuda_device_name", lambda: None)
    monkeypatch.setattr(system, "DEFAULT_CUDA_TOOLKIT", tmp_path / "cuda")
    (tmp_path / "bin").mkdir()
    return tmp_path


def put_program(folder: Path, name: str) -> Path:
    program = folder / "bin" / name
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    return program


def put_model(cache: Path, repo: str, *files: str) -> Path:
    snapshot = cache / f"models--{repo.replace('/', '--')}" / "snapshots" / "abc"
    for name in files:
        (snapshot / name).parent.mkdir(parents=True, exist_ok=True)
        (snapshot / name).write_bytes(b"weights")
    return snapshot


def named(findings: list[Finding], name: str) -> Finding:
    return next(finding for finding in findings if finding.name == name)


def test_tested_versions_are_those_of_the_constraints() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = [Requirement(line) for line in lines if line.strip() and not line.startswith("#")]
    here = {
        pin.name.lower(): str(pin.specifier) for pin in pins if pin.marker is None or pin.marker.evaluate()
    }
    tested = packages.TESTED_VERSIONS | packages.MASK_VERSIONS
    assert {name: f"=={version}" for name, version in tested.items()} == {name: here[name] for name in tested}


def test_every_finding_that_is_not_fine_says_what_to_do() -> None:
    for finding in examination.examine():
        assert finding.found
        assert finding.status == "ok" or finding.advice, finding.name


def test_versions_missing_other_and_local_label(monkeypatch: pytest.MonkeyPatch) -> None:
    installed = dict(packages.TESTED_VERSIONS) | {
        "torch": packages.TESTED_VERSIONS["torch"] + "+cpu",
        "numba": "0.1",
    }
    del installed["gsplat"]

    def version(name: str) -> str:
        if name not in installed:
            raise importlib.metadata.PackageNotFoundError(name)
        return installed[name]

    monkeypatch.setattr(importlib.metadata, "version", version)
    findings = packages.check_packages()
    assert named(findings, "torch").status == "ok"
    assert named(findings, "numba").status == "warn"
    assert packages.TESTED_VERSIONS["numba"] in named(findings, "numba").found
    assert named(findings, "gsplat").status == "missing"
    assert not examination.can_run_demo(findings)


def test_what_tracking_needs_is_what_the_set_up_installs(monkeypatch: pytest.MonkeyPatch) -> None:
    makefile = (ROOT / "Makefile").read_text()
    (line,) = [line for line in makefile.splitlines() if line.startswith("TRACKING := ")]
    assert line.removeprefix("TRACKING := ") == MEDIAPIPE_INSTALL.removeprefix("pip install --no-deps ")
    assert all(f"{name}=={version}" in line for name, version in packages.TRACKING_VERSIONS.items())

    def version(name: str) -> str:
        return {**packages.TESTED_VERSIONS, "protobuf": "3.20.3"}.get(name, "1")

    monkeypatch.setattr(importlib.metadata, "version", version)
    finding = named(packages.check_packages(), "protobuf")
    assert finding.status == "warn" and not finding.required and MEDIAPIPE_INSTALL in finding.advice


def test_packages_for_masks_from_words_are_wanted_by_their_option_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def version(name: str) -> str:
        if name not in packages.TESTED_VERSIONS:
            raise importlib.metadata.PackageNotFoundError(name)
        return packages.TESTED_VERSIONS[name]

    monkeypatch.setattr(importlib.metadata, "version", version)
    findings = packages.check_packages()
    assert examination.can_run_demo(findings)
    segmenter, detector = named(findings, "sam2"), named(findings, "groundingdino-py")
    assert segmenter.status == detector.status == "missing"
    assert "--pipeline.masks grounded-sam" in segmenter.advice
    assert "--pipeline.grounded-sam.detector-backend groundingdino" in detector.advice
    for install in (segmenter.advice, detector.advice):
        assert "pip install" in install and "==" in install


def test_weights_for_masks_from_words(bare_machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from edit3dgs_ns.editing.masks.grounded_sam_options import GroundedSamOptions

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(bare_machine / "hub"))
    defaults = GroundedSamOptions()
    for name in (defaults.detector, defaults.segmenter):
        missing = named(models.check_weights(), name)
        assert missing.status == "missing" and "--pipeline.masks grounded-sam" in missing.advice
    put_model(bare_machine / "hub", defaults.segmenter, "sam2.1_hiera_large.pt")
    put_model(bare_machine / "hub", defaults.detector, "config.json", "tokenizer.json", "model.safetensors")
    for name in (defaults.detector, defaults.segmenter):
        assert named(models.check_weights(), name).status == "ok"


@pytest.mark.parametrize(("version", "fits"), [((3, 9, 1), False), ((3, 10, 0), True), ((3, 13, 0), False)])
def test_python_version(version: tuple[int, ...], fits: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "version_info", version)
    finding = named(system.check_machine(), "Python")
    assert (finding.status == "ok") == fits
    assert examination.can_run_demo([finding]) == fits


def test_device(bare_machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert named(system.check_machine(), "Device").status == "ok"
    put_program(bare_machine, "nvidia-smi")
    unused = named(system.check_machine(), "Device")
    assert unused.status == "warn" and "torch" in unused.advice
    monkeypatch.setattr(system, "cuda_device_name", lambda: "NVIDIA X")
    assert named(system.check_machine(), "Device").found == "CUDA: NVIDIA X"


def test_flame_unset_wrong_and_right(bare_machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    unset = named(models.check_heads(), "FLAME")
    assert unset.status == "missing" and "open head" in unset.found and examination.can_run_demo([unset])

    monkeypatch.setenv("FLAME_MODEL_PATH", str(bare_machine / "generic_model.pkl"))
    wrong = named(models.check_heads(), "FLAME")
    assert wrong.status == "missing" and "generic_model.pkl" in wrong.found
    assert not examination.can_run_demo([wrong])

    open_head = Path(models.__file__).parents[1] / "flame" / "data" / "open_head.npz"
    monkeypatch.setenv("FLAME_MODEL_PATH", str(open_head))
    right = named(models.check_heads(), "FLAME")
    assert right.status == "ok" and "vertices" in right.found


def test_weights_found_missing_and_incomplete(bare_machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(bare_machine / "hub"))
    missing = named(models.check_weights(), models.INSTRUCT_PIX2PIX)
    assert missing.status == "missing" and str(bare_machine / "hub") in missing.found

    names = ("unet/model.safetensors", "vae/model.safetensors")
    snapshot = put_model(bare_machine / "hub", models.INSTRUCT_PIX2PIX, *names)
    incomplete = named(models.check_weights(), models.INSTRUCT_PIX2PIX)
    assert incomplete.status == "warn" and "text_encoder" in incomplete.found

    (snapshot / "text_encoder").mkdir()
    blob = snapshot.parents[1] / "blobs" / "0123"
    (snapshot / "text_encoder" / "model.safetensors").symlink_to(blob)
    assert named(models.check_weights(), models.INSTRUCT_PIX2PIX).status == "warn"

    blob.parent.mkdir()
    blob.write_bytes(b"weights")
    assert named(models.check_weights(), models.INSTRUCT_PIX2PIX).status == "ok"


@pytest.mark.parametrize(
    ("name", "tool", "ready"),
    [
        ("demo editor", "tools.data.demo_editor", False),
        ("demo flow editor", "tools.data.demo_editor", True),
        ("demo CLIP", "tools.data.demo_clip", True),
    ],
)
def test_embedded_weights_that_are_not_there(
    name: str, tool: str, ready: bool, bare_machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert named(models.check_weights(), name).status == "ok"
    monkeypatch.setattr(models, "__file__", str(bare_machine / "machine" / "models.py"))
    findings = models.check_weights()
    absent = named(findings, name)
    assert absent.status == "missing" and tool in absent.advice and str(bare_machine) in absent.found
    assert importlib.util.find_spec(f"{tool}.__main__") is not None
    assert examination.can_run_demo([absent]) is ready


def test_programs_on_the_path(bare_machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert named(system.check_system(), "ffmpeg").status == "ok", "the set-up brings one"
    monkeypatch.setenv("PATH", str(bare_machine / "bin"))
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(bare_machine / "absent"))
    assert named(system.check_system(), "ffmpeg").status == "missing"
    program = put_program(bare_machine, "ffmpeg")
    assert named(system.check_system(), "ffmpeg").found == str(program)


def test_compilers_are_needed_on_cuda_only(bare_machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    on_cpu = system.check_system()
    assert named(on_cpu, "C++ compiler").status == "ok" and examination.can_run_demo(on_cpu)

    monkeypatch.setattr(system, "cuda_device_name", lambda: "NVIDIA X")
    on_cuda = system.check_system()
    assert named(on_cuda, "C++ compiler").status == "missing"
    assert named(on_cuda, "CUDA toolkit").status == "missing"
    assert not examination.can_run_demo(on_cuda)

    put_program(bare_machine, "c++")
    put_program(bare_machine, "nvcc")  # a stray nvcc: no headers beside it
    assert named(system.check_system(), "CUDA toolkit").status == "missing"
    (bare_machine / "toolkit" / "include").mkdir(parents=True)
    (bare_machine / "toolkit" / "include" / "cuda_runtime.h").touch()
    monkeypatch.setenv("CUDA_HOME", str(bare_machine / "toolkit"))
    assert examination.can_run_demo(system.check_system())


def test_exit_code_and_json(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    fine = Finding("Area", "thing", "missing", "nowhere", "get it")
    monkeypatch.setattr(examination, "examine", lambda: [fine])
    assert cli.run(["doctor", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["ready"] is True and report["findings"][0]["name"] == "thing"

    monkeypatch.setattr(
        examination, "examine", lambda: [Finding("Area", "thing", "missing", "x", "y", required=True)]
    )
    assert cli.run(["doctor", "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["ready"] is False


def test_table_shows_brackets_in_paths(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(
        examination, "examine", lambda: [Finding("Area", "thing", "ok", f"a{os.sep}[b]{os.sep}c")]
    )
    assert cli.run(["doctor"]) == 0
    assert "[b]" in capfd.readouterr().out
