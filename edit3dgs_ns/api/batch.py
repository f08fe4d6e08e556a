"""The edit of one batch of views: what the editor is asked for, and the fit to what it returns."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float

from edit3dgs_ns.capture.cameras import Camera
from edit3dgs_ns.flame.model import FlamePose
from edit3dgs_ns.splats.fitting import TargetView, fit_gaussians
from edit3dgs_ns.splats.rasterize import RasterizeMode
from edit3dgs_ns.splats.rig_maps import Cameras, canonical_maps
from edit3dgs_ns.splats.rigged_gaussians import RiggedGaussians
from edit3dgs_ns.splats.views import viewmats_from_c2w
from edit3dgs_ns.splats.world_splats import WorldSplats

Images = Float[np.ndarray, "views height width 3"]


def camera_matrices(cameras: Sequence[Camera], like: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """camera_from_world (views, 4, 4) with OpenCV axes, and intrinsics (views, 3, 3), on the device of `like`."""
    c2w = torch.from_numpy(np.stack([camera.c2w for camera in cameras])).to(like)
    return viewmats_from_c2w(c2w), torch.from_numpy(np.stack([camera.K for camera in cameras])).to(like)


def canonical_views(
    gaussians: RiggedGaussians, pose: FlamePose, cameras: Sequence[Camera], mode: RasterizeMode
) -> Images:
    """Rest position of what every pixel shows, metres; NaN where nothing certain."""
    viewmats, Ks = camera_matrices(cameras, gaussians.params["means"])
    seen = Cameras(viewmats, Ks, cameras[0].width, cameras[0].height, mode)
    places: np.ndarray = canonical_maps(gaussians.surface(pose), seen).cpu().numpy()
    return places


def fitted_to(
    images: Images,
    gaussians: RiggedGaussians,
    pose: FlamePose,
    cameras: Sequence[Camera],
    steps: int,
    *,
    mode: RasterizeMode,
    scene: WorldSplats | None,
    seed: int,
) -> RiggedGaussians:
    """The Gaussians fitted to images of one pose, for some steps of one view each."""
    viewmats, Ks = camera_matrices(cameras, gaussians.params["means"])
    views = [
        TargetView(torch.from_numpy(image).to(viewmats), pose, viewmat, K)
        for image, viewmat, K in zip(images, viewmats, Ks, strict=True)
    ]
    return fit_gaussians(gaussians, views, steps, rasterize_mode=mode, scene=scene, seed=seed)
