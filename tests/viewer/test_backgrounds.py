"""An avatar in a scene in the viewer: what the window shows, and the scene placed by hand."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from nerfstudio.utils.eval_utils import eval_setup

from edit3dgs_ns.runs.placement import read_placement
from edit3dgs_ns.runs.trained_run import TrainedRun
from tests.office_scene import SCALE, SHIFT, front_at


@pytest.fixture
def scene(in_office: Path) -> Any:
    """Of the run in the office, as the viewer makes it."""
    from edit3dgs_ns.training.model_setup import head_assets
    from edit3dgs_ns.viewer.layers import Palette
    from edit3dgs_ns.viewer.scene import ViewerScene
    from edit3dgs_ns.viewer.timeline import Timeline

    _, pipeline, _, _ = eval_setup(in_office, test_mode="test")
    model = pipeline.model
    assets = head_assets(pipeline.datamanager.train_dataset.metadata)
    palette = Palette.of(assets.face_regions, len(model.head.faces))
    return ViewerScene(model, palette, [], Timeline(3), backdrop=model.backdrop, clock=lambda: 0.0)


@torch.no_grad()
def test_the_window_shows_the_scene_around_everything(scene: Any, run: TrainedRun) -> None:
    camera = front_at(run, 0.0)
    splats = scene.outputs(camera)
    assert torch.equal(splats["rgb"], scene.model.get_outputs_for_camera(camera)["rgb"])
    away = scene.model.get_outputs(camera)["accumulation"][..., 0] < 0.004
    assert 0.1 < float(away.float().mean()) < 0.9
    for show in ("Mesh", "Both", "Regions"):
        scene.show = show
        outputs = scene.outputs(camera)
        torch.testing.assert_close(outputs["rgb"][away], splats["rgb"][away], atol=0.02, rtol=0)
        assert (outputs["rgb"] - splats["rgb"])[~away].abs().max() > 0.1
    scene.show, scene.backdrop = "Splats", None
    assert float(scene.outputs(camera)["rgb"][away].min()) > 0.98, "white"


def test_a_scene_is_placed_by_hand_and_saved(
    scene: Any, office: tuple[Path, Any], run: TrainedRun, tmp_path: Path
) -> None:
    import viser

    from edit3dgs_ns.viewer.background import BackgroundPanel

    drawn: list[int] = []
    server = viser.ViserServer(host="127.0.0.1", port=7420, verbose=False)
    try:
        panel = BackgroundPanel(server, scene, tmp_path, lambda: drawn.append(1))
        begin = scene.backdrop.head_from_scene
        assert panel._translation.value == pytest.approx(SHIFT) and panel._scale.value == pytest.approx(SCALE)
        panel._translation.value, panel._rotation.value, panel._scale.value = (
            (1.0, 2.0, 3.0),
            (-90.0, 0, 0),
            0.5,
        )
        panel._moved()
        placed = scene.backdrop.head_from_scene
        assert drawn and not np.allclose(placed.matrix, begin.matrix)
        np.testing.assert_allclose(placed.matrix @ [0, 0, 1, 1], [1, 2.5, 3, 1])  # z up -> y up
        panel.save()
        saved = tmp_path / "background_office.json"
        np.testing.assert_allclose(
            read_placement(saved).head_from_background.matrix, placed.matrix, atol=1e-9
        )
        assert (
            "background\\_office" in panel._said.content and "background\\-transform" in panel._said.content
        )

        panel._show.value = False
        panel._moved()
        assert scene.backdrop is None
        panel._show.value = True
        panel.add(str(office[0].parent))  # stands where the controls say
        np.testing.assert_allclose(scene.backdrop.head_from_scene.matrix, placed.matrix, atol=1e-9)
        panel._from.value = str(tmp_path / "nothing.ply")
        panel._try_to_add()
        assert "no such file" in panel._said.content and scene.backdrop is not None
    finally:
        server.stop()


def test_a_run_in_a_scene_is_not_edited_in_the_viewer(in_office: Path) -> None:
    from edit3dgs_ns.edit_training.job import EditJob
    from edit3dgs_ns.viewer.editing import Editing

    _, pipeline, _, _ = eval_setup(in_office, test_mode="test")
    viewer = SimpleNamespace(
        pipeline=pipeline, log_filename=in_office.parent / "log", train_lock=None, trainer=None
    )
    anything: Any = None
    editing = Editing(anything, viewer, anything, {}, lambda: None)  # type: ignore[arg-type]
    assert "edit the avatar in its own run" in editing.edit(EditJob("Make him look older", "demo"))
