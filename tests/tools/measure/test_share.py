"""The measure of exported pages: a real page in a real browser against the rasterizer."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from edit3dgs_ns.commands import main as cli
from edit3dgs_ns.rendering.web_scene import avatar_of, web_scene
from edit3dgs_ns.runs.trained_run import TrainedRun
from edit3dgs_ns.splats.binding import WorldGaussians
from edit3dgs_ns.splats.ply import write_splat_ply
from edit3dgs_ns.splats.similarity import Similarity
from edit3dgs_ns.splats.world_splats import WorldSplats
from tools.measure.pages.browser import find_chromium
from tools.measure.share import __main__ as share
from tools.measure.share.__main__ import main
from tools.measure.share.formats import agreement
from tools.measure.share.page import measure_page, shots

AGREEMENT = 33.0
"""dB that an avatar in a page keeps at least."""


@pytest.fixture(scope="module")
def page(small_avatar: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("page") / "avatar.html"
    words = ["--load-config", str(small_avatar / "config.yml"), "--format", "html", "--output", str(output)]
    assert cli.run(["export", *words]) == 0
    return output


@pytest.mark.skipif(
    find_chromium() is None, reason="no Chromium on this machine (Debian: apt install chromium)"
)
def test_a_page_agrees_with_the_rasterizer(
    small_avatar: Path, page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "share.json"
    out.write_text('{"benchmark": {"validated": true}}')
    figures = {"ply": {"opened_by": "Spark", "agreement_db": 50.0}}
    monkeypatch.setattr(share, "format_figures", lambda config: figures)  # has a test of its own
    config = small_avatar / "config.yml"
    assert main([str(config), "--page", str(page), "--out", str(out), "--poses", "3"]) == 0
    written = json.loads(out.read_text())
    assert written["benchmark"] == {"validated": True} and written["page"]["poses"] == 3
    assert written["formats"] == figures
    assert AGREEMENT < written["page"]["worst_db"] <= written["page"]["mean_db"] < 80
    assert written["page"]["megabytes"] == pytest.approx(page.stat().st_size / 1e6, abs=0.01)
    # An avatar that stands two centimetres beside the page's is told from it.
    run = TrainedRun(config)
    other = avatar_of(run)
    with torch.no_grad():
        other.head.pose["translation"][:, 0] += 0.02
    assert min(measure_page(page, other, web_scene(run, fps=25.0), count=1).psnr) < AGREEMENT


@pytest.mark.skipif(
    find_chromium() is None, reason="no Chromium on this machine (Debian: apt install chromium)"
)
def test_a_baked_splat_agrees_with_another_renderer(tmp_path: Path) -> None:
    """Rotations, colours that depend on the view, opacities and sizes, read from the PLY by Spark."""
    generator = torch.Generator().manual_seed(4)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    count = 300
    gaussians = WorldGaussians(
        0.06 * normal(count, 3),
        torch.nn.functional.normalize(normal(count, 4), dim=1),
        (-4.8 + 0.6 * normal(count, 3)).exp(),
    )
    logits, colors = 1 + normal(count, 1), 0.1 * normal(count, 16, 3)
    colors[:, 0] = (
        -0.6 + 0.5 * normal(count, 3).tanh()
    )  # nothing is brighter than white, which a browser would cut
    write_splat_ply(tmp_path / "splat.ply", gaussians, logits, colors[:, 0], colors[:, 1:])
    splats = WorldSplats(gaussians, torch.sigmoid(logits[:, 0]), colors)
    # Large, half transparent blobs in a heap differ more than a head, which agrees to 42 dB.
    assert min(agreement(tmp_path / "splat.ply", splats, sides=3)) > 36
    upside_down = splats.moved(Similarity.from_parts(degrees=(0.0, 0.0, 180.0)))
    assert max(agreement(tmp_path / "splat.ply", upside_down, sides=1)) < 30


def test_shots_cover_motion_expressions_necks_and_sides(small_avatar: Path) -> None:
    camera = web_scene(TrainedRun(small_avatar / "config.yml"), fps=25.0).camera
    plan = shots(9, camera)
    assert len(plan) == 30 and {shot.frame for shot in plan} == set(range(9))
    held = {json.dumps(shot.held) for shot in plan if shot.held}
    assert len(held) == 10 and sum(shot.neck is not None for shot in plan) == 10
    assert sum(shot.side != (0.0, 0.0) for shot in plan) >= 10
    assert all(abs(shot.side[0]) < camera.reach[0] and abs(shot.side[1]) < camera.reach[1] for shot in plan)
