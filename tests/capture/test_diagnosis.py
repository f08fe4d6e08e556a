"""One corruption of each kind: found under its own name, mended where transforms can mend it; sound captures are left alone."""

from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

from edit3dgs_ns.capture.diagnosis import diagnose
from edit3dgs_ns.capture.repair import write_repaired
from edit3dgs_ns.capture.transforms import SPLITS, readable_frames, transforms_path
from edit3dgs_ns.flame.loading import load_assets
from tests.command_line import edit3dgs
from tests.corrupted_captures import MENDED, NAMED, focal, images_of, matrices
from tests.tiny_capture import TinyCapture, write_tiny_capture

ASSETS = load_assets()


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> TinyCapture:
    """Three sequences of three timesteps from four cameras. Read only."""
    return write_tiny_capture(tmp_path_factory.mktemp("sound"), size=64, cameras=4, timesteps=3, samples=2)


@pytest.fixture
def capture(sound: TinyCapture, tmp_path: Path) -> Path:
    """A copy of the combined set's folder, with its sequences beside it."""
    shutil.copytree(sound.root, tmp_path / "capture")
    return tmp_path / "capture" / sound.union.name


def test_there_are_enough_kinds() -> None:
    assert len({kind for kind, _ in [*MENDED.values(), *NAMED.values()]}) >= 14
    assert len({kind for kind, _ in MENDED.values()}) >= 10


@pytest.mark.parametrize("name", MENDED)
def test_a_fault_is_named_and_mended(name: str, capture: Path, sound: TinyCapture, tmp_path: Path) -> None:
    kind, corrupt = MENDED[name]
    corrupt(capture)
    before = {path: path.read_bytes() for path in capture.parent.rglob("*") if path.is_file()}
    found = diagnose(readable_frames(capture), ASSETS)
    assert [fault.kind for fault in found.faults] == [kind]
    out = write_repaired(capture, tmp_path / "out", found.repairs)
    assert diagnose(readable_frames(out), ASSETS).faults == []
    assert {path: path.read_bytes() for path in capture.parent.rglob("*") if path.is_file()} == before
    true = {f"{f.image.parent.parent.name}/{f.image.name}": f for f in readable_frames(sound.union)}
    mended = {f"{f.image.parent.parent.name}/{f.image.name}": f for f in readable_frames(out)}
    assert len(mended) == len(true) - (kind in ("blurred", "doubled"))
    for key, frame in mended.items():
        assert frame.timestep_index == true[key].timestep_index
        assert frame.mask is not None and frame.mask.name == frame.image.name
        if kind == "turned":
            continue
        pixels = frame.width / true[key].width
        np.testing.assert_allclose(frame.c2w[:3, :3], true[key].c2w[:3, :3], atol=1e-6)
        assert np.linalg.norm(frame.c2w[:3, 3] - true[key].c2w[:3, 3]) < (0.02 if kind == "shifted" else 1e-6)
        assert abs(frame.fx / pixels / true[key].fx - 1) < 0.06


@pytest.mark.parametrize("name", NAMED)
def test_a_fault_is_named(name: str, capture: Path) -> None:
    kind, corrupt = NAMED[name]
    corrupt(capture)
    assert [fault.kind for fault in diagnose(readable_frames(capture), ASSETS).faults] == [kind]


def test_a_sound_capture_has_no_faults(sound: TinyCapture) -> None:
    assert diagnose(readable_frames(sound.union), ASSETS).faults == []


def with_hair_and_shoulders(folder: Path) -> None:
    """Brown hair around the head and a grey body below, both in the masks, neither in the mesh."""
    for path in images_of(folder):
        place = path.parent.parent / "fg_masks" / path.name
        mask = Image.open(place).convert("L")
        size = mask.width
        body = Image.new("L", mask.size, 0)
        body.paste(255, (size // 8, round(size * 0.8), size - size // 8, size))
        hair = mask.filter(ImageFilter.MaxFilter(13))
        image = Image.open(path).convert("RGB")
        image.paste((90, 60, 40), None, Image.composite(Image.new("L", mask.size, 0), hair, mask))
        image.paste((70, 75, 90), None, Image.composite(Image.new("L", mask.size, 0), body, mask))
        image.save(path)
        Image.fromarray(np.maximum(np.maximum(np.array(hair), np.array(body)), np.array(mask))).save(place)


def test_hair_and_shoulders_outside_of_the_mesh_are_no_fault(capture: Path) -> None:
    with_hair_and_shoulders(capture)
    assert diagnose(readable_frames(capture), ASSETS).faults == []


@pytest.mark.parametrize("name", ["focal length halved", "OpenCV axes", "cx unknown", "centimetres"])
def test_faults_are_found_with_hair_and_shoulders(name: str, capture: Path) -> None:
    kind, corrupt = MENDED[name]
    with_hair_and_shoulders(capture)
    corrupt(capture)
    assert [fault.kind for fault in diagnose(readable_frames(capture), ASSETS).faults] == [kind]


def test_one_camera_is_only_noted(capture: Path) -> None:
    for split in SPLITS:
        path = transforms_path(capture, split)
        content = json.loads(path.read_text())
        content["frames"] = [entry for entry in content["frames"] if entry["camera_index"] == 2]
        path.write_text(json.dumps(content))
    found = diagnose(readable_frames(capture), ASSETS)
    assert found.faults == [] and any("one camera" in note for note in found.notes)


def test_the_doctor_mends(capture: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    focal(2.0)(capture)
    assert edit3dgs("doctor", "--data", capture) == 1
    assert "cameras have focal lengths 2" in capsys.readouterr().out
    out = tmp_path / "out"
    assert edit3dgs("doctor", "--data", capture, "--repair", out) == 0
    shown = capsys.readouterr().out
    assert (
        f"The mended capture is in {out}." in shown and "Mended: cameras that have focal lengths 2" in shown
    )
    assert edit3dgs("doctor", "--data", out) == 0
    assert edit3dgs("doctor", "--data", capture, "--repair", out) == 2


def test_training_warns_and_goes_on(capture: Path, capfd: pytest.CaptureFixture[str]) -> None:
    from edit3dgs_ns.method_configs.rigged_splatfacto_fast import rigged_splatfacto_fast

    matrices(np.linalg.inv)(capture)
    config = copy.deepcopy(rigged_splatfacto_fast.config)
    config.pipeline.datamanager.dataparser.data = capture
    config.print_to_terminal()
    assert "Warning:" in (shown := capfd.readouterr().out) and "cameras are world-to-camera" in shown


def test_images_of_a_head_that_stands_still_are_not_doubled(capture: Path) -> None:
    (first, second, *_) = [frame for frame in readable_frames(capture) if frame.image.stem.endswith("_01")]
    shutil.copyfile(first.image, second.image)
    assert first.flame is not None and second.flame is not None
    assert [fault.kind for fault in diagnose(readable_frames(capture), ASSETS).faults] == ["doubled"]
    shutil.copyfile(first.flame, second.flame)
    assert "doubled" not in [fault.kind for fault in diagnose(readable_frames(capture), ASSETS).faults]


@pytest.mark.parametrize(
    "matrix", [np.zeros((4, 4)), np.diag([1e-20, 1e-20, 1e-20, 1]), np.full((4, 4), 1e30)]
)
def test_matrices_of_no_camera_end_nothing(matrix: np.ndarray, capture: Path) -> None:
    matrices(lambda old: matrix)(capture)
    assert {fault.kind for fault in diagnose(readable_frames(capture), ASSETS).faults} <= {"unknown"}
