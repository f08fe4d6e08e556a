"""The ablation's measures against what they must give on pictures whose answer is known, and its bookkeeping."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from edit3dgs_ns.capture.cameras import arc_cameras
from edit3dgs_ns.capture.rays import build_intersector
from edit3dgs_ns.synthetic.canonical import LABELS
from edit3dgs_ns.synthetic.scene import Scene
from edit3dgs_ns.synthetic.settings import EXTENT, TARGET, CaptureSettings, settings_text
from tools.measure.ablation import __main__ as ablation
from tools.measure.ablation import rows as rows_module
from tools.measure.ablation.edited_views import Batch, ViewMeasures
from tools.measure.ablation.expression import JawGauge, elsewhere
from tools.measure.ablation.pictures import write_sheets
from tools.measure.ablation.plan import ARMS, Arm, Effort, Job, jobs
from tools.measure.ablation.points import disagreement, sighting, surface_points
from tools.measure.ablation.rows import KEYS, Place, Task, _claim, read_row
from tools.measure.ablation.summary import figures, summary
from tools.measure.ablation.truth import HUES, Picture, TrueHead, hue_errors

SETTINGS = CaptureSettings(seed=12, width=96, height=96, cameras=5, frames=3, samples=2)
SEQUENCE = "012_EMO-1"


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> TrueHead:
    folder = tmp_path_factory.mktemp("ablation")
    (folder / "capture.json").write_text(settings_text(SETTINGS, None))
    return TrueHead(folder, folder / "cache")


# -- the looks of an open edit -----------------------------------------------------------------------------------


def test_hue_errors_are_those_of_interpolated_pictures() -> None:
    rng = np.random.default_rng(0)
    knots = rng.integers(0, 256, (6, 4, 5, 3), dtype=np.uint8)
    result = rng.random((4, 5, 3)).astype(np.float32)
    around = np.concatenate([knots, knots[:1]]) / 255
    expected = []
    for place in np.arange(HUES) / HUES * 6:
        picture = [np.interp(place, np.arange(7), around[:, i, j, c]) for i, j, c in np.ndindex(4, 5, 3)]
        expected.append(np.mean((result.ravel() - picture) ** 2))
    np.testing.assert_allclose(hue_errors(result, knots), expected, rtol=1e-4)


def test_the_hue_of_a_true_picture_is_found(head: TrueHead) -> None:
    pictures: list[Picture] = [(SEQUENCE, 0, 8), (SEQUENCE, 1, 0)]
    for hue in (0.04, 0.5, 0.77):
        results = [head.render(picture, "bright_hair", hue) for picture in pictures]
        found = head.nearest_hue(results, pictures, "bright_hair")
        assert found is not None and abs(found - hue) < 0.03
    assert head.nearest_hue(results, pictures, "green_skin") is None


# -- the same point of the head in different pictures ------------------------------------------------------------


def test_two_cameras_see_a_point_in_one_place_of_the_head(head: TrueHead) -> None:
    """Where a picture shows the place on the template of what it sees, all pictures agree on each point."""
    scene = head.scene(SEQUENCE, 1)
    points = surface_points(head.identity.baked, count=1500)
    template = np.zeros((len(scene.vertices), 3))
    template[: len(scene.head_vertices)] = head.identity.head.assets.v_template
    true = np.einsum("pk,pkx->px", points.weights, template[scene.baked.faces[points.face]])
    on_head = (scene.baked.faces[points.face] < len(scene.head_vertices)).all(axis=1)
    intersector = build_intersector(scene.vertices, scene.baked.faces)
    cameras = arc_cameras(2, 192, 192, np.array(TARGET), EXTENT)
    for camera in cameras:
        hits = scene.trace(camera.c2w, camera.K, 192, 192, 1)
        places = np.full((192 * 192, 3), np.nan)
        places[hits.fragments.pixel] = hits.points
        seen = sighting(points, scene, camera, intersector)
        chosen = seen.visible & on_head
        assert chosen.sum() > 100
        column, row = seen.pixels[chosen].astype(int).T
        distance = np.linalg.norm(places[row * 192 + column] - true[chosen], axis=1)
        assert np.nanquantile(distance, 0.9) < 0.004  # a pixel is 2 mm wide


def test_disagreement_is_the_mean_difference_of_common_points() -> None:
    colors = np.full((3, 40, 3), np.nan)
    colors[0], colors[1] = 0.2, 0.5
    colors[2, :35] = 0.3
    assert disagreement(colors, [(0, 1)]) == pytest.approx(0.3)
    assert disagreement(colors, [(0, 1), (0, 2)]) == pytest.approx(0.2)
    colors[2, 10:] = np.nan  # too few points in common
    assert disagreement(colors, [(0, 1), (0, 2)]) == pytest.approx(0.3)
    assert np.isnan(disagreement(colors, [(1, 2)]))


def test_measures_of_the_truth_and_of_views_that_disagree(head: TrueHead) -> None:
    places: list[Picture] = [(SEQUENCE, t, camera) for t in (0, 1) for camera in (4, 8)]
    originals = np.stack([head.hits(p).shade(head.identity.appearance).rgb for p in places])
    true = np.stack([head.render(p, "face_paint", 0.25) for p in places])
    measures = ViewMeasures(head)
    perfect = measures.measure(Batch([0, 1, 2, 3], places, originals, true), "face_paint")
    assert perfect["expression_error"] < 0.02 and perfect["jaw_error_degrees"] < 1.5
    assert perfect["view_disagreement"] == pytest.approx(perfect["true_view_disagreement"], abs=0.01)
    mixed = np.stack(
        [head.render(p, "face_paint", hue) for p, hue in zip(places, (0.0, 0.5, 0.0, 0.5), strict=True)]
    )
    apart = measures.measure(Batch([0, 1, 2, 3], places, originals, mixed), "face_paint")
    assert apart["view_disagreement"] > perfect["view_disagreement"] + 0.1
    # Every view has a true look of its own, so that the expression is as good as before.
    assert apart["expression_error"] < 0.02
    assert perfect["change_outside_mask"] > 0.1
    nothing = measures.measure(Batch([0, 1, 2, 3], places, originals, originals), "older")
    assert nothing["view_disagreement"] == nothing["time_disagreement"] == nothing["change_outside_mask"] == 0


# -- expression --------------------------------------------------------------------------------------------------


def test_the_jaw_is_measured_in_any_look(head: TrueHead) -> None:
    picture: Picture = (SEQUENCE, 0, 8)
    gauge, appearance = JawGauge(head), head.appearance("green_skin", None)
    frame, camera = head.frame(picture), head.replay.cameras[8]
    for opened in (0.0, 0.12, 0.23):
        jaw = frame.jaw_pose + np.array([opened, 0, 0], np.float32)
        scene = Scene(head.identity, replace(frame, jaw_pose=jaw))
        image = scene.trace(camera.c2w, camera.K, camera.width, camera.height, 2).shade(appearance).rgb
        assert gauge.error(image, picture, appearance) == pytest.approx(opened, abs=0.025)


def test_elsewhere_keeps_clear_of_eyes_mouth_and_clothes() -> None:
    labels = np.full((64, 64), LABELS["skin"], np.uint8)
    labels[:2], labels[60:] = LABELS["background"], LABELS["clothes"]
    labels[30, 30] = LABELS["lips"]
    where = elsewhere(labels)
    assert not where[:2].any() and not where[60:].any()
    assert not where[30, 27:34].any() and where[30, 34] and where[26, 30]


# -- what is asked of ns-train -----------------------------------------------------------------------------------


def test_every_flag_is_an_option_of_edit3dgs() -> None:
    from edit3dgs_ns.edit_training.options import EditorConfig
    from edit3dgs_ns.edit_training.pipeline import EditPipelineConfig

    known = {
        "pipeline": {f.name for f in fields(EditPipelineConfig)},
        "editor": {f.name for f in fields(EditorConfig)},
    }
    for arm in ARMS:
        words = Job(arm, "older", 1).flags("p", "avatar", "demo", Effort())
        for flag in (word for word in words if word.startswith("--pipeline.")):
            *group, name = flag.removeprefix("--").replace("-", "_").split(".")
            assert name in known[group[-1]], flag
        assert ("eyes,mouth" in words) == (arm.retention is True)
        assert ("auto" in words) == (arm.retention == "auto")


# -- rows and summary --------------------------------------------------------------------------------------------


def row(correspondence: str, retention: bool, **measures: float) -> dict[str, Any]:
    known = dict.fromkeys(KEYS, 1.0)
    return {
        **known,
        "correspondence": correspondence,
        "retention": retention,
        "prompt": "p",
        "seed": 0,
        **measures,
    }


def test_figures_compare_the_means_of_arms() -> None:
    rows = [
        row(
            "none", False, view_disagreement=0.2, time_disagreement=0.2, expression_error=0.10, psnr_unseen=20
        ),
        row(
            "none", True, view_disagreement=0.4, time_disagreement=0.2, expression_error=0.05, psnr_unseen=30
        ),
        row(
            "rig",
            True,
            view_disagreement=0.12,
            time_disagreement=0.16,
            expression_error=0.04,
            psnr_unseen=21.5,
        ),
    ]
    details = [{"true_expression_change": change} for change in (0.0, 0.3, 0.0)]
    verdicts = {figure["what"]: (figure["measured"], figure["reached"]) for figure in figures(rows, details)}
    assert verdicts["view disagreement, rig below each view alone"] == (pytest.approx(0.6), True)
    assert verdicts["time disagreement, rig below each view alone"] == (pytest.approx(0.2), False)
    assert verdicts["view disagreement, epipolar below each view alone"] == (None, None)
    retention = "expression error, with retention below without"
    assert verdicts[f"{retention} (all edits)"] == (pytest.approx(0.55), True)
    assert verdicts[f"{retention} (edits that leave eyes and teeth alone)"] == (pytest.approx(0.6), True)
    assert verdicts["PSNR (dB) on the unseen sequence, rig + retention above each view alone"] == (1.5, True)
    arms = summary(rows, details)["arms"]
    assert [(arm["correspondence"], arm["retention"]) for arm in arms] == [
        ("none", False),
        ("none", True),
        ("rig", True),
    ]
    assert summary(rows * 2, details * 2)["arms"][0]["view_disagreement"] == {"mean": 0.2, "spread": 0.0}


def task(out: Path, job: Job, version: str = "1") -> Task:
    return Task(job, Place(out, out, out, "demo"), Effort(), {"edit": job.edit, "editor": version})


def finish(task: Task) -> dict[str, Any]:
    """Stands in for `make_row`."""
    _claim(task)
    values = row(task.job.arm.correspondence, task.job.arm.retention)
    record = {
        "fingerprint": task.fingerprint,
        "row": values,
        "details": {"name": task.job.name, "true_expression_change": 0.0},
    }
    (task.folder / rows_module.RECORD).write_text(json.dumps(record))
    return record


def test_a_finished_row_is_kept_until_what_it_depends_on_changes(tmp_path: Path) -> None:
    first = task(tmp_path, Job(Arm("rig", True), "older", 0))
    assert read_row(first) is None
    _claim(first)
    (first.folder / "run").mkdir()
    _claim(first)  # broken off: goes on
    assert (first.folder / "run").is_dir()
    finish(first)
    assert read_row(first) is not None
    other = task(tmp_path, first.job, version="2")
    assert read_row(other) is None
    _claim(other)
    assert not (first.folder / "run").exists()


def test_the_file_has_the_rows_in_order_and_keeps_other_sections(tmp_path: Path) -> None:
    tasks = [task(tmp_path, job) for job in jobs(("older",), (0,))]
    result = tmp_path / "ablation.json"
    result.write_text(json.dumps({"length": {"kept": True}, "rows": []}))
    ablation.write_result(result, [finish(t) for t in reversed(tasks)], tasks)
    content = json.loads(result.read_text())
    assert content["length"] == {"kept": True}
    assert [(r["correspondence"], r["retention"]) for r in content["rows"]] == [
        (arm.correspondence, arm.retention) for arm in ARMS
    ]
    assert all(set(r) == set(KEYS) for r in content["rows"])


def test_the_demo_that_is_there_is_used_as_it_is(tmp_path: Path) -> None:
    missing = ablation.demo_of(ablation.parse(["--demo", str(tmp_path)]))
    assert missing.settings.capture == CaptureSettings(seed=ablation.PERSON)
    (tmp_path / "capture").mkdir()
    (tmp_path / "capture" / "capture.json").write_text(settings_text(SETTINGS, None))
    there = ablation.demo_of(ablation.parse(["--demo", str(tmp_path), "--editor", "other"]))
    assert there.settings.capture == SETTINGS and there.settings.editor == "other"
    # A tiny run makes a demo of its own.
    tiny = ablation.demo_of(ablation.parse(["--tiny", "--out", str(tmp_path / "out")]))
    assert tiny.files.out == tmp_path / "out" / "demo"


def test_an_unknown_edit_is_named_before_anything_is_made(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, demo = str(tmp_path / "out"), str(tmp_path / "demo")
    assert ablation.main(["--edits", "older", "younger", "--out", out, "--demo", demo]) == 2
    said = capsys.readouterr().out
    assert "--edits younger" in said and "face_paint" in said
    assert not (tmp_path / "demo").exists()


def test_the_small_sheet_shows_the_capture_and_two_arms(tmp_path: Path) -> None:
    """Each row is painted in one colour: the sheet has the colours of its own rows only, top to bottom."""
    rows = {}
    for shade, arm in enumerate(ARMS):
        paint = {
            "originals": (250, 0, 0),
            "true": (0, 250, 0),
            "edited": (0, 0, 30 * (shade + 1)),
            "novel_view": (9, 9, 9),
            "unseen": (9, 9, 9),
        }
        arrays = {
            name: np.broadcast_to(
                np.uint8(color), ((2, 2) if name in ("novel_view", "unseen") else (8,)) + (16, 16, 3)
            )
            for name, color in paint.items()
        }
        rows[arm] = tmp_path / f"{arm.name}.npz"
        np.savez(rows[arm], pictures=np.array([f"S/{t}/{c}" for t in (3, 5) for c in range(4)]), **arrays)
    written = write_sheets(tmp_path, "face_paint", 0, rows)
    small = np.asarray(Image.open(next(path for path in written if path.name.startswith("summary"))))
    column = (
        small[:, small.shape[1] - 100].reshape(-1, 3).astype(int)
    )  # through the pictures of the last camera
    runs = [
        tuple(c)
        for i, c in enumerate(column)
        if (i == 0 or tuple(column[i - 1]) != tuple(c)) and c.min() == 0
    ]
    alone, together = ARMS.index(Arm("none", False)), ARMS.index(Arm("rig", True))
    assert runs == [(250, 0, 0), (0, 0, 30 * (alone + 1)), (0, 0, 30 * (together + 1))]
    del rows[Arm("rig", True)]
    assert not [
        path for path in write_sheets(tmp_path, "face_paint", 1, rows) if path.name.startswith("summary")
    ]
