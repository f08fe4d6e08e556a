"""`edit3dgs evaluate` on avatars whose edit is known: figures that can be worked out, and mistakes that are found first."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from edit3dgs_ns.commands import main as cli
from edit3dgs_ns.dataparsers.nersemble import NersembleDataParserConfig
from edit3dgs_ns.evaluation import expression_fit
from edit3dgs_ns.evaluation.clip import Clip
from edit3dgs_ns.flame.loading import load_assets
from edit3dgs_ns.run_evaluation.job import evaluate
from edit3dgs_ns.run_evaluation.options import EvaluationOptions, check_captions
from edit3dgs_ns.run_evaluation.runs import find_edited_runs, run_names
from edit3dgs_ns.runs.importing import import_avatar
from edit3dgs_ns.runs.trained_run import TrainedRun
from edit3dgs_ns.splats.avatar_files import write_avatar
from edit3dgs_ns.splats.avatar_folder import NPZ_NAME
from tests.known_edits import edited_run, gaussians, known_avatar
from tests.speaking_video import write_speaking_video
from tests.tiny_capture import TinyCapture, write_tiny_capture
from tests.tiny_clip import save_tiny_clip

SOURCE, TARGET = "a photo of a man", "a photo of an old man"


@pytest.fixture(scope="module", autouse=True)
def short_fits() -> Iterator[None]:
    """Fits of a few steps: how well they find an expression is tested elsewhere."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(expression_fit, "FitOptions", partial(expression_fit.FitOptions, steps=6))
        yield


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_clip(tmp_path_factory.mktemp("clip"), note="A random CLIP: its figures mean nothing.")


@pytest.fixture(scope="module")
def base(tiny_capture: TinyCapture, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """config.yml of the avatar before the edit."""
    return known_avatar(tiny_capture.union, tmp_path_factory.mktemp("avatars"))


@pytest.fixture(scope="module")
def edited(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return edited_run(base, tmp_path_factory.mktemp("edits"), change=-0.15)


def options(*runs: Path, clip: Path, **more: Any) -> EvaluationOptions:
    return EvaluationOptions(
        runs=runs,
        source_caption=SOURCE,
        target_captions=(TARGET,),
        clip=str(clip),
        **{"expression_frames": 0} | more,
    )


@pytest.fixture(scope="module")
def evaluated(
    edited: Path, clip: Path, tiny_capture: TinyCapture, tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[str, Any], Path]:
    """(report.json, its folder) of a whole evaluation, with frames and another actor's motion."""
    out = tmp_path_factory.mktemp("report") / "out"
    motion = tiny_capture.root / "EMO-1"
    evaluate(options(edited, clip=clip, frames=True, motion=motion, output=out, expression_frames=1))
    return json.loads((out / "report.json").read_text()), out


def frames_of(out: Path, setting: str, which: str) -> list[np.ndarray]:
    return [
        np.asarray(Image.open(path)) for path in sorted((out / "frames").glob(f"*/{setting}/*_{which}.png"))
    ]


def test_every_setting_has_its_frames(
    evaluated: tuple[dict[str, Any], Path], tiny_capture: TinyCapture
) -> None:
    report, out = evaluated
    (run,) = report["runs"]
    t = tiny_capture.timesteps
    counts = {key: setting["frames"] for key, setting in run["settings"].items()}
    # Held-out camera: two training sequences; one unseen sequence; another actor's sequence.
    assert counts == {"novel_view": 2 * t, "self_reenactment": t, "cross_reenactment": t}
    for key, count in counts.items():
        assert len(frames_of(out, key, "before")) == len(frames_of(out, key, "after")) == count
    # Steps stay inside a sequence.
    known = [value is not None for value in run["settings"]["novel_view"]["series"]["clip_c"]]
    assert known == [False, *[True] * (t - 1)] * 2


@pytest.mark.parametrize("setting", ["novel_view", "self_reenactment", "cross_reenactment"])
def test_scores_belong_to_the_frames(
    evaluated: tuple[dict[str, Any], Path], clip: Path, setting: str
) -> None:
    """Computed once more, by hand, from the images that the command has written."""
    report, out = evaluated
    figures = report["runs"][0]["settings"][setting]["figures"]
    model = Clip(clip)
    before, after = (model.embed_images(frames_of(out, setting, which)) for which in ("before", "after"))
    texts = model.embed_texts([SOURCE, TARGET])

    def cosine(a: np.ndarray, b: np.ndarray) -> float:
        return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))

    change = after - before
    clip_s = [cosine(row, texts[1] - texts[0]) for row in change]
    steps = [i for i in range(len(change) - 1) if setting != "novel_view" or i != len(change) // 2 - 1]
    clip_c = [cosine(change[i], change[i + 1]) for i in steps]
    assert figures["clip_s"]["value"] == pytest.approx(np.mean(clip_s), abs=1e-4)
    assert figures["clip_c"]["value"] == pytest.approx(np.mean(clip_c), abs=1e-4)
    same = [cosine(a, b) for a, b in zip(before, after, strict=True)]
    assert figures["identity"]["value"] == pytest.approx(np.mean(same), abs=1e-4)


def test_figures_that_follow_from_the_edit(evaluated: tuple[dict[str, Any], Path], base: Path) -> None:
    """The edit takes 0.15 of red: a twentieth of each pixel's mean, wherever nothing is cut off at 0."""
    report, _ = evaluated
    run = report["runs"][0]
    for setting in run["settings"].values():
        figures = setting["figures"]
        assert figures["change_on_head"]["value"] == pytest.approx(0.05, abs=0.006)
        assert figures["change_on_background"]["value"] < 0.01
        # The colours sit on the surface: before and after, the same spot differs equally from one frame to the next.
        assert figures["flicker"]["value"] == pytest.approx(figures["flicker"]["beside"], rel=0.25)
    whole = run["figures"]
    assert whole["gaussians"] == {
        "value": len(load_assets().faces),
        "beside": len(load_assets().faces),
        "beside_of": "",
    }
    assert whole["megabytes"]["value"] == pytest.approx(len(load_assets().faces) * 59 * 4 / 1e6, rel=1e-3)
    assert whole["edit_minutes"]["value"] == 1.5 and whole["edited_images"]["value"] == 4
    assert whole["peak_memory_gb"]["value"] == 1.5
    assert whole["fps"]["value"] > 0 and whole["view_disagreement"]["value"] > 0
    finished = TrainedRun(base)
    split = finished.split("val")
    errors = [
        np.mean((finished.render(split.cameras[i : i + 1]).rgb - split.image(i)) ** 2)
        for i in range(len(split))
    ]
    psnr = np.mean([-10 * np.log10(error) for error in errors])
    assert run["base_quality"]["novel_view"]["psnr"] == pytest.approx(psnr, abs=0.01)
    assert set(run["base_quality"]) == {"novel_view", "self_reenactment"}


def test_the_report_says_what_it_was_made_with(evaluated: tuple[dict[str, Any], Path], clip: Path) -> None:
    report, out = evaluated
    text = (out / "report.md").read_text()
    for needed in (
        str(clip),
        "A random CLIP",
        "before_after.png",
        "over_time_self_reenactment.png",
        "Edit3DGS, Table 1",
        SOURCE,
    ):
        assert needed in text
    assert report["clip"] == str(clip) and report["runs"][0]["target_caption"] == TARGET
    with Image.open(out / "before_after.png") as grid:
        grid.load()


def test_an_edit_that_changes_nothing(base: Path, clip: Path, tmp_path: Path) -> None:
    """No direction, the same person, nothing to choose between edit and original; and --base instead of the run's own word."""
    config = edited_run(base, tmp_path / "edits", change=0.0)
    chosen = options(config, clip=clip, base=base, output=tmp_path / "out", max_frames=3, expression_frames=1)
    report, _ = evaluate(chosen)
    for setting in report.runs[0].settings.values():
        figures = setting.figures
        assert figures["clip_s"].value == 0 and figures["change_on_head"].value == 0
        assert figures["identity"].value == pytest.approx(1, abs=1e-6)
        for name in ("flicker", "jaw_degrees", "lips_mm", "lids_mm", "gaze_degrees"):
            # Both are fits to the same pictures; the gradients' sums run over threads, in whatever order they end.
            assert figures[name].value == pytest.approx(figures[name].beside, rel=1e-4)
        assert figures["lips_mm"].value is not None and figures["lips_mm"].value < 50
    assert any("every" in note for note in report.notes)


def test_captions_that_the_clip_was_never_shown_are_named(
    base: Path, clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = shutil.copytree(clip, tmp_path / "small")
    (small / "edit3dgs.json").write_text(json.dumps({"note": "Small.", "words": SOURCE.split()}))
    config = edited_run(base, tmp_path / "edits", change=0.1)
    report, path = evaluate(
        options(config, clip=small, output=tmp_path / "out", max_frames=2, expression_frames=0)
    )
    (note,) = [line for line in report.notes if "never shown" in line]
    assert "“an”, “old”" in note and TARGET in note and note in path.read_text()
    assert "“an”, “old”" in capsys.readouterr().err


def test_embeddings_are_made_once(
    edited: Path, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = options(edited, clip=clip, output=tmp_path, max_frames=2)
    first, _ = evaluate(chosen)
    asked = []
    embed = Clip.embed_images
    monkeypatch.setattr(
        Clip, "embed_images", lambda self, images: (asked.append(len(images)), embed(self, images))[1]
    )
    again, _ = evaluate(dataclasses.replace(chosen, overwrite=True))
    assert not asked
    assert [r.settings["novel_view"].series["clip_s"] for r in again.runs] == [
        r.settings["novel_view"].series["clip_s"] for r in first.runs
    ]


def test_how_far_a_driving_video_is_tracked_is_shown(
    edited: Path, clip: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("mediapipe", reason="mediapipe is not installed: see edit3dgs doctor")
    video = write_speaking_video(tmp_path / "talk.mp4", frames=10, size=96)
    words = ["evaluate", "--load-config", edited, "--motion", video, "--source-caption", SOURCE]
    words += ["--target-caption", TARGET, "--clip", clip, "--max-frames", 2, "--expression-frames", 0]
    assert cli.run([str(word) for word in [*words, "--output", tmp_path / "out"]]) == 0
    shown = capfd.readouterr().err
    for stage in ("Finding the face", "Writing images", "Fitting the head"):
        assert stage in shown
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["runs"][0]["settings"]["cross_reenactment"]["frames"] == 2


def test_several_runs_side_by_side(
    base: Path, edited: Path, clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = edited_run(base, tmp_path / "edits", change=0.3, name="bolder")
    arguments = ["evaluate", "--runs", str(edited), str(other), "--source-caption", SOURCE]
    arguments += [
        "--target-caption",
        TARGET,
        "a photo of a green man",
        "--clip",
        str(clip),
        "--max-frames",
        "2",
    ]
    assert (
        cli.run(
            [*arguments, "--expression-frames", "0", "--identity", "none", "--output", str(tmp_path / "out")]
        )
        == 0
    )
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert [run["target_caption"] for run in report["runs"]] == [TARGET, "a photo of a green man"]
    changes = [run["settings"]["novel_view"]["figures"]["change_on_head"]["value"] for run in report["runs"]]
    assert changes[1] > changes[0]
    assert "identity" not in report["runs"][0]["settings"]["novel_view"]["figures"]
    assert "CLIP-S" in capsys.readouterr().out


def test_quality_alone_needs_no_edit(base: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["evaluate", "--load-config", str(base), "--quality-only", "--max-frames", "2"]) == 0
    assert "PSNR" in capsys.readouterr().out


# -- mistakes, all found before anything is rendered ------------------------------------------------------------------


@pytest.fixture
def no_render(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise AssertionError("rendered")

    monkeypatch.setattr(TrainedRun, "render", fail)


def refused(message: str, *arguments: object, capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["evaluate", *map(str, arguments)]) == cli.USER_ERROR_EXIT_CODE
    shown = capfd.readouterr().err
    assert message in shown, shown


CAPTIONS = ("--source-caption", SOURCE, "--target-caption", TARGET)


def test_captions_are_needed(
    no_render: None, edited: Path, clip: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run = ("--load-config", edited, "--clip", clip)
    refused("--source-caption is missing", *run, capfd=capfd)
    refused("--target-caption is missing", *run, "--source-caption", SOURCE, capfd=capfd)
    refused("are both", *run, "--source-caption", SOURCE, "--target-caption", SOURCE, capfd=capfd)
    with pytest.raises(ValueError, match="3 captions for 2 runs"):
        check_captions("a", ["b", "c", "d"], 2)
    assert check_captions("a", ["b"], 2) == [("a", "b"), ("a", "b")]


def test_a_run_without_an_edit(
    no_render: None, base: Path, clip: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    refused("has not edited anything", "--load-config", base, "--clip", clip, *CAPTIONS, capfd=capfd)
    config = edited_run(base, tmp_path, 0.1)
    history = config.parent / "edit_history.json"
    history.write_text(json.dumps({"prompt": "x", "rounds": 0}))
    refused("no finished round", "--load-config", config, "--clip", clip, *CAPTIONS, capfd=capfd)
    history.write_text("{")
    refused("not valid JSON", "--load-config", config, "--clip", clip, *CAPTIONS, capfd=capfd)


def test_an_avatar_that_is_gone(
    no_render: None, base: Path, clip: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    moved = tmp_path / "moved" / "rigged-splatfacto" / "run"
    shutil.copytree(base.parent, moved)
    config = edited_run(moved / "config.yml", tmp_path / "edits", 0.1)
    shutil.rmtree(moved)
    refused("--base RUN", "--load-config", config, "--clip", clip, *CAPTIONS, capfd=capfd)


def test_a_clip_without_its_tokenizer(
    no_render: None, edited: Path, clip: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    copied = shutil.copytree(clip, tmp_path / "clip")
    for name in ("tokenizer.json", "vocab.json"):
        (copied / name).unlink(missing_ok=True)
    refused("tokenizer", "--load-config", edited, "--clip", copied, *CAPTIONS, capfd=capfd)


def test_runs_that_share_no_frames(
    no_render: None, base: Path, edited: Path, clip: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """The same person in another capture: equal in everything but the sequences' names."""
    other = write_tiny_capture(tmp_path / "capture", size=24, samples=1)
    folders = {}
    for sequence in ("EMO-1", "EXP-2", "SEN-01"):
        folders[sequence] = f"OTHER_{sequence}"
        (other.root / sequence).rename(other.root / folders[sequence])
    for path in other.union.glob("transforms_*.json"):
        text = path.read_text()
        for old, new in folders.items():
            text = text.replace(f"../{old}/", f"../{new}/")
        path.write_text(text)
    folder = tmp_path / "avatar"
    outputs = NersembleDataParserConfig(data=other.union).setup().get_dataparser_outputs("train")
    write_avatar(folder, gaussians(len(load_assets().faces)), outputs.metadata["flame_motion"])
    second = import_avatar(folder, data=other.union, output_dir=tmp_path / "runs", name="other")
    config = edited_run(second, tmp_path / "edits", 0.1)
    refused("share no held-out frames", "--runs", edited, config, "--clip", clip, *CAPTIONS, capfd=capfd)


def test_other_mistakes(
    no_render: None, edited: Path, clip: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run = ("--load-config", edited, "--clip", clip, *CAPTIONS)
    refused("neither was given", *CAPTIONS, capfd=capfd)
    refused("both were given", *run, "--runs", edited, capfd=capfd)
    refused("no such file", "--load-config", tmp_path / "gone.yml", "--clip", clip, *CAPTIONS, capfd=capfd)
    refused("no such file", *run, "--motion", tmp_path / "gone.npz", capfd=capfd)
    refused("no motion in this folder", *run, "--motion", tmp_path, capfd=capfd)
    refused("expected none or one of", *run, "--true-edit", "nothing", capfd=capfd)
    refused("--max-frames 1", *run, "--max-frames", 1, capfd=capfd)
    refused("expected clip, none", *run, "--identity", "faces", capfd=capfd)
    (tmp_path / "file").touch()
    refused("is a file", *run, "--output", tmp_path / "file", capfd=capfd)


def test_a_motion_of_another_head(
    no_render: None, edited: Path, base: Path, clip: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with np.load(base.parent / "imported" / NPZ_NAME) as file:
        table = dict(file)
    table["expr"] = np.pad(table["expr"], [(0, 0), (0, 48)])
    np.savez(tmp_path / "flame.npz", **table)
    run = ("--load-config", edited, "--clip", clip, *CAPTIONS)
    refused("another head model", *run, "--motion", tmp_path / "flame.npz", capfd=capfd)


def test_versions_of_a_run_are_compared_with_what_they_were_made_of(base: Path, tmp_path: Path) -> None:
    """A run whose history keeps versions (edited in the viewer): the current one against its parent."""
    from edit3dgs_ns.edit_training.versions import RunHistory

    run = tmp_path / "run"
    shutil.copytree(base.parent, run)
    history = RunHistory(run)
    history.keep_current()
    (first,) = (run / "nerfstudio_models").glob("*.ckpt")
    state = torch.load(first, weights_only=True)
    state["pipeline"]["_model.gauss_params.features_dc"] += 0.5
    torch.save(state, tmp_path / "step-000000009.ckpt")
    history.add(tmp_path / "step-000000009.ckpt", "Make him brighter", parent=0)
    (found,) = find_edited_runs([run])
    assert found.prompt == "Make him brighter" and found.base == run / "history" / "0000.ckpt"
    RunHistory(run).undo()
    with pytest.raises(ValueError, match="none that was edited"):
        find_edited_runs([run])


def test_names_tell_runs_apart(tmp_path: Path) -> None:
    folders = [tmp_path / name / "edit3dgs" / stamp for name, stamp in (("a", "1"), ("b", "1"), ("b", "2"))]
    assert run_names(folders) == ["a/1", "b/1", "b/2"]
    assert run_names(folders[:2]) == ["a", "b"]
    assert run_names(folders[:1]) == ["a"]


def test_help_of_every_option(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.run(["evaluate", "--help"])
    shown = capsys.readouterr().out
    for field in dataclasses.fields(EvaluationOptions):
        option = {"target_captions": "target-caption"}.get(field.name, field.name.replace("_", "-"))
        assert f"--{option}" in shown
