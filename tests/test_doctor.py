"""The doctor finds what is there, names what is missing, and says what to do: on faked machines."""

from __future__ import annotations

import importlib.metadata
import json
import os
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from edit3dgs_ns.commands import machine_doctor as doctor
from edit3dgs_ns.commands.machine_doctor import Finding

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(autouse=True)
def bare_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Nothing on the PATH, no CUDA, an empty home, no settings."""
    for name in ("FLAME_MODEL_PATH", "HF_HOME", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name in ("CUDA_HOME", "CUDA_PATH", "CXX"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setattr(doctor, "cuda_device_name", lambda: None)
    monkeypatch.setattr(doctor, "DEFAULT_CUDA_TOOLKIT", tmp_path / "cuda")
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
    tested = doctor.TESTED_VERSIONS | doctor.MASK_VERSIONS
    assert {name: f"=={version}" for name, version in tested.items()} == {name: here[name] for name in tested}


def test_every_finding_that_is_not_fine_says_what_to_do() -> None:
    for finding in doctor.examine():
        assert finding.found
        assert finding.status == "ok" or finding.advice, finding.name


def test_versions_missing_other_and_local_label(monkeypatch: pytest.MonkeyPatch) -> None:
    installed = dict(doctor.TESTED_VERSIONS) | {
        "torch": doctor.TESTED_VERSIONS["torch"] + "+cpu",
        "numba": "0.1",
    }
    del installed["gsplat"]

    def version(name: str) -> str:
        if name not in installed:
            raise importlib.metadata.PackageNotFoundError(name)
        return installed[name]

    monkeypatch.setattr(importlib.metadata, "version", version)
    findings = doctor.check_packages()
    assert named(findings, "torch").status == "ok"
    assert named(findings, "numba").status == "warn"
    assert doctor.TESTED_VERSIONS["numba"] in named(findings, "numba").found
    assert named(findings, "gsplat").status == "missing"
    assert not doctor.can_run_demo(findings)


def test_packages_for_masks_from_words_are_wanted_by_their_option_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def version(name: str) -> str:
        if name in doctor.MASK_VERSIONS:
            raise importlib.metadata.PackageNotFoundError(name)
        return doctor.TESTED_VERSIONS[name]

    monkeypatch.setattr(importlib.metadata, "version", version)
    findings = doctor.check_packages()
    assert doctor.can_run_demo(findings)
    segmenter, detector = named(findings, "sam2"), named(findings, "groundingdino-py")
    assert segmenter.status == detector.status == "missing"
    assert "--pipeline.masks grounded-sam" in segmenter.advice
    assert "--pipeline.grounded-sam.detector-backend groundingdino" in detector.advice
    for install in (segmenter.advice, detector.advice):
        assert "pip install" in install and "==" in install


def test_weights_for_masks_from_words(bare_machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from edit3dgs_ns.editing.masks.grounded_sam_options import GroundedSamOptions

    monkeypatch.setenv("HF_HOME", str(bare_machine))
    defaults = GroundedSamOptions()
    for name in (defaults.detector, defaults.segmenter):
        missing = named(doctor.check_weights(), name)
        assert missing.status == "missing" and "--pipeline.masks grounded-sam" in missing.advice
    put_model(bare_machine / "hub", defaults.segmenter, "sam2.1_hiera_large.pt")
    put_model(bare_machine / "hub", defaults.detector, "config.json", "tokenizer.json", "model.safetensors")
    for name in (defaults.detector, defaults.segmenter):
        assert named(doctor.check_weights(), name).status == "ok"


@pytest.mark.parametrize(("version", "fits"), [((3, 9, 1), False), ((3, 10, 0), True), ((3, 13, 0), False)])
def test_python_version(version: tuple[int, ...], fits: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "version_info", version)
    finding = named(doctor.check_machine(), "Python")
    assert (finding.status == "ok") == fits
    assert doctor.can_run_demo([finding]) == fits


def test_device(bare_machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert named(doctor.check_machine(), "Device").status == "ok"
    put_program(bare_machine, "nvidia-smi")
    unused = named(doctor.check_machine(), "Device")
    assert unused.status == "warn" and "torch" in unused.advice
    monkeypatch.setattr(doctor, "cuda_device_name", lambda: "NVIDIA X")
    assert named(doctor.check_machine(), "Device").found == "CUDA: NVIDIA X"


def test_flame_unset_wrong_and_right(bare_machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    unset = named(doctor.check_heads(), "FLAME")
    assert unset.status == "missing" and "open head" in unset.found and doctor.can_run_demo([unset])

    monkeypatch.setenv("FLAME_MODEL_PATH", str(bare_machine / "generic_model.pkl"))
    wrong = named(doctor.check_heads(), "FLAME")
    assert wrong.status == "missing" and "generic_model.pkl" in wrong.found
    assert not doctor.can_run_demo([wrong])

    open_head = Path(doctor.__file__).parents[1] / "flame" / "data" / "open_head.npz"
    monkeypatch.setenv("FLAME_MODEL_PATH", str(open_head))
    right = named(doctor.check_heads(), "FLAME")
    assert right.status == "ok" and "vertices" in right.found


def test_hub_cache_follows_the_settings(bare_machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert doctor.hub_cache() == bare_machine / "home" / ".cache" / "huggingface" / "hub"
    monkeypatch.setenv("XDG_CACHE_HOME", "/x")
    assert doctor.hub_cache() == Path("/x/huggingface/hub")
    monkeypatch.setenv("HF_HOME", "/h")
    assert doctor.hub_cache() == Path("/h/hub")
    monkeypatch.setenv("HF_HUB_CACHE", "/c")
    assert doctor.hub_cache() == Path("/c")


def test_weights_found_missing_and_incomplete(bare_machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HOME", str(bare_machine))
    missing = named(doctor.check_weights(), doctor.INSTRUCT_PIX2PIX)
    assert missing.status == "missing" and str(bare_machine / "hub") in missing.found

    names = ("unet/model.safetensors", "vae/model.safetensors")
    snapshot = put_model(bare_machine / "hub", doctor.INSTRUCT_PIX2PIX, *names)
    incomplete = named(doctor.check_weights(), doctor.INSTRUCT_PIX2PIX)
    assert incomplete.status == "warn" and "text_encoder" in incomplete.found

    (snapshot / "text_encoder").mkdir()
    (snapshot / "text_encoder" / "model.safetensors").symlink_to(bare_machine / "unfinished-blob")
    assert named(doctor.check_weights(), doctor.INSTRUCT_PIX2PIX).status == "warn"

    (bare_machine / "unfinished-blob").write_bytes(b"weights")
    assert named(doctor.check_weights(), doctor.INSTRUCT_PIX2PIX).status == "ok"


@pytest.mark.parametrize(
    ("name", "tool", "ready"),
    [("demo editor", "train_demo_editor.py", False), ("demo CLIP", "train_demo_clip.py", True)],
)
def test_embedded_weights_that_are_not_there(
    name: str, tool: str, ready: bool, bare_machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert named(doctor.check_weights(), name).status == "ok"
    monkeypatch.setattr(doctor, "__file__", str(bare_machine / "commands" / "machine_doctor.py"))
    findings = doctor.check_weights()
    absent = named(findings, name)
    assert absent.status == "missing" and tool in absent.advice and str(bare_machine) in absent.found
    assert (Path(__file__).parents[1] / "tools" / tool).is_file()
    assert doctor.can_run_demo([absent]) is ready


def test_programs_on_the_path(bare_machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert named(doctor.check_system(), "ffmpeg").status == "ok", "the set-up brings one"
    monkeypatch.setenv("PATH", str(bare_machine / "bin"))
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(bare_machine / "absent"))
    assert named(doctor.check_system(), "ffmpeg").status == "missing"
    program = put_program(bare_machine, "ffmpeg")
    assert named(doctor.check_system(), "ffmpeg").found == str(program)


def test_compilers_are_needed_on_cuda_only(bare_machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    on_cpu = doctor.check_system()
    assert named(on_cpu, "C++ compiler").status == "ok" and doctor.can_run_demo(on_cpu)

    monkeypatch.setattr(doctor, "cuda_device_name", lambda: "NVIDIA X")
    on_cuda = doctor.check_system()
    assert named(on_cuda, "C++ compiler").status == "missing"
    assert named(on_cuda, "CUDA toolkit").status == "missing"
    assert not doctor.can_run_demo(on_cuda)

    put_program(bare_machine, "c++")
    put_program(bare_machine, "nvcc")  # a stray nvcc: no headers beside it
    assert named(doctor.check_system(), "CUDA toolkit").status == "missing"
    (bare_machine / "toolkit" / "include").mkdir(parents=True)
    (bare_machine / "toolkit" / "include" / "cuda_runtime.h").touch()
    monkeypatch.setenv("CUDA_HOME", str(bare_machine / "toolkit"))
    assert doctor.can_run_demo(doctor.check_system())


def test_exit_code_and_json(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    fine = Finding("Area", "thing", "missing", "nowhere", "get it")
    monkeypatch.setattr(doctor, "examine", lambda: [fine])
    assert doctor.main(as_json=True) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["ready"] is True and report["findings"][0]["name"] == "thing"

    monkeypatch.setattr(
        doctor, "examine", lambda: [Finding("Area", "thing", "missing", "x", "y", required=True)]
    )
    assert doctor.main(as_json=True) == 1
    assert json.loads(capsys.readouterr().out)["ready"] is False


def test_table_shows_brackets_in_paths(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(doctor, "examine", lambda: [Finding("Area", "thing", "ok", f"a{os.sep}[b]{os.sep}c")])
    assert doctor.main() == 0
    assert "[b]" in capfd.readouterr().out
