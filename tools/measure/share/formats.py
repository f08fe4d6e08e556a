"""A splat of one timestep from eight sides, drawn by Spark from the exported file, against our rasterizer.

Spark (MIT) reads PLY and spz by code that we did not write, and draws them with its own shaders. It is the library in our pages,
whose Gaussians come from our own shader instead.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float

from edit3dgs_ns.splats.rasterize import rasterize
from edit3dgs_ns.splats.views import viewmats_from_c2w
from edit3dgs_ns.splats.world_splats import WorldSplats
from tools.measure.pages.browser import PageLog, chromium, new_page, screenshot
from tools.measure.share.page import COVERED

SIDES = 8
SIZE = 384
"""Pixels of the square window."""
FIELD = 30.0
"""Degrees of view."""
DISTANCE = 0.9
"""Metres from the middle of the splat."""

_PAGE = """<!doctype html><style>*{margin:0}canvas{display:block}</style><canvas id="canvas"></canvas>
<script>%(library)s</script><script>
const bytes = Uint8Array.from(atob("%(data)s"), (c) => c.charCodeAt(0));
const renderer = new Splats.WebGLRenderer({ canvas: document.getElementById("canvas"), antialias: false });
renderer.setSize(%(size)d, %(size)d, false);
renderer.setClearColor(new Splats.Color(1, 1, 1), 1);
const scene = new Splats.Scene();
const spark = new Splats.SparkRenderer({ renderer, autoUpdate: false, accumExtSplats: true, enableLod: false, sortRadial: false,
  maxStdDev: 3, minAlpha: 1 / 255, preBlurAmount: 0.3, blurAmount: 0 });
const camera = new Splats.PerspectiveCamera(%(field)f, 1, 1, 1000);
const mesh = new Splats.SplatMesh({ fileBytes: bytes, fileName: "%(name)s", extSplats: true });
// In centimetres: Spark sorts by depth + 100 in float32.
mesh.scale.setScalar(100);
scene.add(spark, mesh);
async function look(position, target) {
  camera.position.fromArray(position.map((value) => 100 * value));
  camera.lookAt(...target.map((value) => 100 * value));
  camera.updateMatrixWorld();
  await spark.update({ scene, camera });
  await spark.update({ scene, camera });
  renderer.render(scene, camera);
}
mesh.initialized.then(() => { document.body.dataset.ready = mesh.numSplats; });
</script>"""


def agreement(path: Path, splats: WorldSplats, sides: int = SIDES) -> list[float]:
    """PSNR (dB) of a file against the splats that it was written from, over the covered pixels, from each side.

    Args:
        path: PLY or spz, y up.
        splats: drawn by our rasterizer.
        sides: evenly around the vertical axis.
    """
    places = list(_cameras(splats, sides))
    found = []
    for (position, target), seen in zip(places, _seen(path, places), strict=True):
        expected, alpha = _drawn(splats, position, target)
        covered = (alpha > COVERED) | (seen < 1 - COVERED).any(axis=-1)
        found.append(-10 * math.log10(float(np.square(seen - expected)[covered].mean())))
    return found


def _cameras(splats: WorldSplats, sides: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Places and the point that they look at."""
    means = splats.gaussians.means.detach().numpy()
    target = (means.min(axis=0) + means.max(axis=0)) / 2
    for side in range(sides):
        angle = 2 * math.pi * side / sides
        yield target + DISTANCE * np.array([math.sin(angle), 0.15, math.cos(angle)]), target


def _seen(
    path: Path, places: list[tuple[np.ndarray, np.ndarray]]
) -> Iterator[Float[np.ndarray, "height width 3"]]:
    library = (files("edit3dgs_ns.web") / "assets" / "splat_viewer.min.js").read_text(encoding="utf-8")
    data = base64.b64encode(path.read_bytes()).decode()
    words = {"library": library, "data": data, "name": path.name, "size": SIZE, "field": FIELD}
    with chromium() as browser:
        page = new_page(browser, (SIZE, SIZE), offline=True)
        log = PageLog(page)
        page.set_content(_PAGE % words)
        page.locator("body[data-ready]").wait_for()
        for position, target in places:
            page.evaluate(f"look({json.dumps(position.tolist())}, {json.dumps(target.tolist())})")
            yield screenshot(page) / 255
        assert not log.uncaught, log.uncaught


@torch.no_grad()
def _drawn(
    splats: WorldSplats, position: np.ndarray, target: np.ndarray
) -> tuple[Float[np.ndarray, "height width 3"], Float[np.ndarray, "height width"]]:
    back = (position - target) / np.linalg.norm(position - target)
    right = np.cross([0.0, 1.0, 0.0], back)
    right /= np.linalg.norm(right)
    c2w = torch.from_numpy(np.stack([right, np.cross(back, right), back, position], axis=1)).float()
    focal = SIZE / 2 / math.tan(math.radians(FIELD) / 2)
    K = torch.tensor([[focal, 0, SIZE / 2], [0, focal, SIZE / 2], [0, 0, 1.0]])
    image, alpha, _ = rasterize(
        *splats.tensors,
        viewmats_from_c2w(c2w[None]),
        K[None],
        SIZE,
        SIZE,
        sh_degree=splats.sh_degree,
        backgrounds=torch.ones(1, 3),
    )
    return image[0].clamp(0, 1).numpy(), alpha[0, ..., 0].numpy()
