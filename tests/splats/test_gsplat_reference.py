"""Projection and spherical harmonics of the CPU rasterizer against gsplat's own PyTorch reference, values and gradients.

`gsplat.cuda._torch_impl` is what gsplat tests its CUDA kernels against; it runs on the CPU.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from gsplat.cuda._torch_impl import (
    _fully_fused_projection,
    _quat_scale_to_covar_preci,
    _spherical_harmonics,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from edit3dgs_ns.splats import cpu_rasterizer, gsplat_version
from edit3dgs_ns.splats.strategy import BoundStrategy
from tests.splats.scenes import Scene, make_scene

NEAR = 0.05
Values = dict[str, Tensor]


def project_ours(scene: Scene, eps2d: float) -> Values:
    names = ("means2d", "depths", "conics", "compensations", "radii")
    outputs = cpu_rasterizer.project(
        scene.means, scene.quats, scene.scales, scene.viewmats, scene.Ks, scene.width, scene.height,
        eps2d=eps2d, near_plane=NEAR, far_plane=1e10, radius_clip=0.0,
    )  # fmt: skip
    return dict(zip(names, outputs, strict=True))


def project_gsplat(scene: Scene, eps2d: float) -> Values:
    covariances, _ = _quat_scale_to_covar_preci(scene.quats, scene.scales, compute_preci=False)
    radii, means2d, depths, conics, compensations = _fully_fused_projection(
        scene.means, covariances, scene.viewmats, scene.Ks, scene.width, scene.height,
        eps2d=eps2d, near_plane=NEAR, calc_compensations=True,
    )  # fmt: skip
    return {
        "means2d": means2d, "depths": depths, "conics": conics, "compensations": compensations, "radii": radii,
    }  # fmt: skip


def gradients(scene: Scene, outputs: Values, visible: Tensor) -> Values:
    """Of a random linear function of all outputs at visible Gaussians; each weight scaled by its output's size."""
    g = torch.Generator().manual_seed(1)
    loss = torch.zeros((), dtype=torch.float64)
    for name in ("means2d", "depths", "conics", "compensations"):
        value = outputs[name]
        weight = torch.randn(value.shape, generator=g, dtype=torch.float64)
        mask = visible.reshape(*visible.shape, *[1] * (value.dim() - 2)).expand(value.shape)
        loss = loss + (weight * value)[mask].sum()
    leaves = {name: scene.differentiable[name] for name in ("means", "quats", "scales", "viewmats")}
    found = dict(zip(leaves, torch.autograd.grad(loss, list(leaves.values())), strict=True))
    found["viewmats"] = found["viewmats"][:, :3]  # the last row is 0 0 0 1
    return found


@st.composite
def scenes(draw: Any) -> Scene:
    """Needles, discs and balls around, beside and close to one to three cameras."""
    scene = make_scene(
        count=60,
        cameras=draw(st.integers(1, 3)),
        width=draw(st.integers(8, 80)),
        height=draw(st.integers(8, 80)),
        size=draw(st.sampled_from([0.003, 0.03, 0.2])),
        seed=draw(st.integers(0, 10_000)),
    )
    stretch = draw(st.sampled_from([(1.0, 1.0, 1.0), (20.0, 0.05, 0.05), (5.0, 5.0, 0.01)]))
    spread = draw(
        st.sampled_from([0.5, 3.0, 8.0])
    )  # from well inside to far beside the image and behind the camera
    off_centre = torch.tensor(draw(st.sampled_from([(0.0, 0.0), (15.0, -9.0), (-40.0, 30.0)])))
    Ks = scene.Ks.clone()
    Ks[:, :2, 2] += off_centre
    means = spread * scene.means
    if draw(st.booleans()):  # a third of them just before and behind the near plane of the first camera
        world_from_camera = torch.linalg.inv(scene.viewmats[0])
        in_camera = torch.cat([0.05 * means[:20, :2], NEAR + 0.05 * means[:20, 2:].tanh()], dim=-1)
        means[:20] = in_camera @ world_from_camera[:3, :3].T + world_from_camera[:3, 3]
    return replace(scene, means=means, scales=scene.scales * torch.tensor(stretch), Ks=Ks)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(scene=scenes(), eps2d=st.sampled_from([0.3, 0.1]))
def test_projection_values_and_gradients_match_gsplats_reference(scene: Scene, eps2d: float) -> None:
    ours, theirs = scene.leaves(), scene.leaves()
    found, expected = project_ours(ours, eps2d), project_gsplat(theirs, eps2d)
    assert torch.equal(found["radii"], expected["radii"])
    visible = expected["radii"] > 0
    for name in ("means2d", "depths", "conics", "compensations"):
        torch.testing.assert_close(
            found[name][visible],
            expected[name][visible],
            rtol=1e-7,
            atol=1e-9,
            msg=lambda m, n=name: f"{n}: {m}",
        )
    if visible.any():
        mine, reference = gradients(ours, found, visible), gradients(theirs, expected, visible)
        for name, gradient in reference.items():
            scale = gradient.abs().amax(dim=-1, keepdim=True).clamp_min(1e-9)
            torch.testing.assert_close(
                mine[name] / scale, gradient / scale, rtol=1e-6, atol=1e-6, msg=lambda m, n=name: f"{n}: {m}"
            )


@settings(max_examples=40, deadline=None, derandomize=True)
@given(degree=st.integers(0, 3), seed=st.integers(0, 10_000), cameras=st.integers(1, 3))
def test_spherical_harmonics_match_gsplats_reference(degree: int, seed: int, cameras: int) -> None:
    """As gsplat's `rasterization` calls them: max(0, SH + 1/2), directions from the camera's centre, not normalised."""
    g = torch.Generator().manual_seed(seed)
    means = 2 * torch.randn(50, 3, generator=g, dtype=torch.float64)
    coefficients = torch.randn(50, 16, 3, generator=g, dtype=torch.float64)
    centers = torch.randn(cameras, 3, generator=g, dtype=torch.float64)
    weight = torch.randn(cameras, 50, 3, generator=g, dtype=torch.float64)
    radii = torch.randint(0, 3, (cameras, 50), generator=g, dtype=torch.int32)

    leaves = [x.clone().requires_grad_() for x in (coefficients, means, centers)]
    found = cpu_rasterizer.spherical_harmonics(*leaves, radii, degree)
    mine = torch.autograd.grad((weight * found).sum(), leaves)

    leaves = [x.clone().requires_grad_() for x in (coefficients, means, centers)]
    directions = leaves[1] - leaves[2][:, None]
    values = _spherical_harmonics(degree, directions, leaves[0].expand(cameras, -1, -1, -1))
    expected = (values + 0.5).clamp_min(0) * (radii > 0)[..., None]
    reference = torch.autograd.grad((weight * expected).sum(), leaves, materialize_grads=True)

    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
    for a, b in zip(mine, reference, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("installed", ["1.5.3", "1.3.0", "1.40.0", "2.1.4+pt24cu124"])
def test_another_gsplat_is_refused_by_name(installed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gsplat_version, "version", lambda _: installed)
    gsplat_version.check_gsplat.cache_clear()
    try:
        with pytest.raises(
            ValueError, match=r'(?s)gsplat .* installed; expected 1\.4.*pip install "gsplat==1\.4'
        ) as error:
            BoundStrategy()
        assert installed in str(error.value)
    finally:
        gsplat_version.check_gsplat.cache_clear()


@pytest.mark.parametrize("installed", ["1.4.0", "1.4.0+pt24cu124", "1.4.1"])
def test_supported_releases_pass(installed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gsplat_version, "version", lambda _: installed)
    gsplat_version.check_gsplat.__wrapped__()
