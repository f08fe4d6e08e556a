"""The CPU rasterizer against the slow, obvious one of `reference`, values and gradients; and its properties."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import numba
import pytest
import torch
from torch import Tensor

from tests.splats.reference import dense_render
from tests.splats.scenes import Scene, make_scene


def assert_same(scene: Scene, rtol: float, atol: float, **options: Any) -> None:
    """Images, alphas, extra channels and all gradients of a random loss agree with the reference."""
    mine, theirs = scene.leaves(), scene.leaves()
    trained = [k for k in ("backgrounds", "extra") if k in options]
    mine_options, their_options = dict(options), dict(options)
    for key in trained:
        mine_options[key] = options[key].clone().requires_grad_()
        their_options[key] = options[key].clone().requires_grad_()
    got, expected = mine.render(**mine_options), dense_render(theirs, **their_options)
    assert torch.equal(got[2]["radii"], expected[2]["radii"])
    outputs = [(got[0], expected[0]), (got[1], expected[1])]
    if "extra" in options:
        outputs.append((got[2]["extra"], expected[2]["extra"]))
    g = torch.Generator().manual_seed(1)
    losses = [torch.zeros((), dtype=scene.means.dtype)] * 2
    for a, b in outputs:
        torch.testing.assert_close(a, b, rtol=rtol, atol=atol)
        weight = torch.randn(a.shape, generator=g, dtype=torch.float64).to(a.dtype)
        losses = [losses[0] + (weight * a).sum(), losses[1] + (weight * b).sum()]
    losses[0].backward()
    losses[1].backward()
    pairs = {
        name: (leaf.grad, theirs.differentiable[name].grad) for name, leaf in mine.differentiable.items()
    }
    pairs |= {key: (mine_options[key].grad, their_options[key].grad) for key in trained}
    for name, (a, b) in pairs.items():
        if b is None:  # depth alone does not see the colours
            assert a is None or not a.any(), name
            continue
        if (
            name == "viewmats"
        ):  # the last row is 0 0 0 1; the camera's place is the inverse's or R^T t: both are right
            a, b = a[:, :3], b[:, :3]
        scale = b.abs().max().clamp(min=1e-12)
        torch.testing.assert_close(
            a / scale, b / scale, rtol=rtol, atol=atol, msg=lambda m, n=name: f"{n}: {m}"
        )


# --------------------------------------------------------------------------------------- values and gradients
SHAPES_AND_MODES = [
    ({}, {}),
    ({"cameras": 3, "bases": 16}, {"sh_degree": 3, "backgrounds": (3, 3)}),
    ({"bases": 9}, {"sh_degree": 1, "render_mode": "RGB+D"}),
    (
        {"bases": 16, "cameras": 2},
        {"sh_degree": 2, "render_mode": "RGB+ED", "extra": (40, 2), "backgrounds": (2, 3)},
    ),
    ({"size": 0.02}, {"rasterize_mode": "antialiased", "render_mode": "ED"}),
    ({}, {"render_mode": "D", "extra": (40, 5)}),
    ({"channels": 1}, {"backgrounds": (1, 1)}),
    ({"channels": 7}, {"backgrounds": (1, 7)}),
    ({"size": 0.4, "count": 90}, {"backgrounds": (1, 3)}),  # opaque: pixels end early
    ({"width": 16, "height": 8}, {}),
    ({"width": 1, "height": 1}, {}),
    ({"width": 65, "height": 3}, {"near_plane": 1.2, "far_plane": 1.6, "radius_clip": 4.0, "eps2d": 0.1}),
]


def with_tensors(options: dict[str, Any], dtype: torch.dtype) -> dict[str, Any]:
    g = torch.Generator().manual_seed(5)
    return {
        key: torch.rand(value, generator=g, dtype=torch.float64).to(dtype)
        if isinstance(value, tuple)
        else value
        for key, value in options.items()
    }


@pytest.mark.parametrize(("shape", "options"), SHAPES_AND_MODES)
def test_float64_values_and_gradients_match_the_reference(shape, options):
    assert_same(make_scene(**shape), rtol=1e-7, atol=1e-8, **with_tensors(options, torch.float64))


@pytest.mark.parametrize(("shape", "options"), SHAPES_AND_MODES)
def test_float32_values_and_gradients_match_the_reference(shape, options):
    options = with_tensors(options, torch.float32)
    assert_same(make_scene(**shape, dtype=torch.float32), rtol=1e-3, atol=1e-4, **options)


def test_gradients_match_finite_differences():
    """Few, broad Gaussians: between the cut-off, the clamp and the end of a pixel the image is smooth."""
    scene = make_scene(count=4, width=7, height=5, size=0.5, bases=4)
    scene = replace(scene, means=0.1 * scene.means, opacities=0.2 + 0.5 * scene.opacities).leaves()
    extra = torch.rand(4, 2, dtype=torch.float64, requires_grad=True)
    backgrounds = torch.rand(1, 3, dtype=torch.float64, requires_grad=True)
    names = list(scene.differentiable)

    def render(*tensors: Tensor) -> tuple[Tensor, ...]:
        *first, extra, backgrounds = tensors
        changed = replace(scene, **dict(zip(names, first, strict=True)))
        options = {"sh_degree": 1, "render_mode": "RGB+ED", "rasterize_mode": "antialiased"}
        image, alphas, info = changed.render(**options, extra=extra, backgrounds=backgrounds)
        return image, alphas, info["extra"]

    assert torch.autograd.gradcheck(render, (*scene.differentiable.values(), extra, backgrounds), atol=1e-6)


def test_absgrad_adds_up_the_absolute_gradients_of_the_pixels():
    scene = make_scene(count=6, width=9, height=5, size=0.1).leaves()
    weight = torch.randn(5, 9, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    def means2d_after(rows: slice, columns: slice, absgrad: bool) -> Tensor:
        image, _, info = scene.render(absgrad=absgrad)
        info["means2d"].retain_grad()
        (image[0, rows, columns] * weight[rows, columns]).sum().backward()
        return info["means2d"]

    whole = means2d_after(slice(None), slice(None), absgrad=True)
    pixels = [
        means2d_after(slice(y, y + 1), slice(x, x + 1), absgrad=False).grad
        for y in range(5)
        for x in range(9)
    ]
    torch.testing.assert_close(whole.grad, torch.stack(pixels).sum(0))
    torch.testing.assert_close(whole.absgrad, torch.stack(pixels).abs().sum(0))


# ------------------------------------------------------------------------------------------------- properties
def outputs_and_gradients(scene: Scene, **options: Any) -> list[Tensor]:
    scene = scene.leaves()
    image, alphas, info = scene.render(**options)
    (image.sin().sum() + alphas.square().sum()).backward()
    return [image, alphas, info["means2d"], *(leaf.grad for leaf in scene.differentiable.values())]


@pytest.mark.skipif(numba.config.NUMBA_NUM_THREADS < 2, reason="needs two threads")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_same_bits_with_one_thread_and_with_several(dtype):
    scene = make_scene(count=3000, width=130, height=70, cameras=2, bases=16, size=0.03, dtype=dtype)
    before = numba.get_num_threads()
    results = []
    try:
        for threads in (1, numba.config.NUMBA_NUM_THREADS, 1):
            numba.set_num_threads(threads)
            results.append(outputs_and_gradients(scene, sh_degree=3, absgrad=True))
    finally:
        numba.set_num_threads(before)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_several_cameras_in_one_call_equal_one_call_each():
    scene = make_scene(cameras=3, bases=16, dtype=torch.float32)
    together, alphas, info = scene.render(sh_degree=3)
    for c in range(3):
        alone = replace(scene, viewmats=scene.viewmats[c : c + 1], Ks=scene.Ks[c : c + 1])
        image, alpha, alone_info = alone.render(sh_degree=3)
        assert torch.equal(image[0], together[c])
        assert torch.equal(alpha[0], alphas[c])
        assert torch.equal(alone_info["radii"][0], info["radii"][c])


def test_colors_may_differ_from_camera_to_camera():
    scene = make_scene(cameras=2, dtype=torch.float32)
    per_camera = torch.stack([scene.colors, 1 - scene.colors])
    image = replace(scene, colors=per_camera).render()[0]
    for c in range(2):
        assert torch.equal(image[c], replace(scene, colors=per_camera[c]).render()[0][c])


def test_order_of_the_gaussians_does_not_matter():
    scene = make_scene(count=200, dtype=torch.float32)
    shuffle = torch.randperm(200, generator=torch.Generator().manual_seed(0))
    names = ("means", "quats", "scales", "opacities", "colors")
    shuffled = replace(scene, **{name: getattr(scene, name)[shuffle] for name in names})
    assert torch.equal(scene.render()[0], shuffled.render()[0])


def nothing_to_see(**changes: Any) -> Scene:
    return replace(make_scene(count=5, dtype=torch.float32), **changes)


@pytest.mark.parametrize(
    "scene",
    [
        make_scene(count=0, dtype=torch.float32),
        nothing_to_see(means=torch.tensor([0.4, 0.2, 2.8]).expand(5, 3)),  # behind the camera
        nothing_to_see(means=torch.tensor([50.0, 0, 0]).expand(5, 3)),  # beside the image
        nothing_to_see(opacities=torch.full((5,), 0.0039)),  # below 1/255
        nothing_to_see(means=torch.full((5, 3), float("nan"))),
        nothing_to_see(scales=torch.full((5, 3), float("inf"))),
        nothing_to_see(quats=torch.zeros(5, 4)),
        nothing_to_see(opacities=torch.full((5,), float("nan"))),
    ],
    ids=["empty", "behind", "beside", "faint", "nan place", "infinite", "no rotation", "nan opacity"],
)
def test_nothing_to_see_leaves_the_background_and_zero_gradients(scene):
    background = torch.tensor([[0.2, 0.5, 0.9]])
    scene = scene.leaves()
    image, alphas, info = scene.render(backgrounds=background, absgrad=True)
    assert torch.equal(image, background.expand_as(image))
    assert not alphas.any()
    image.sum().backward()
    assert not scene.means.grad.any() and not scene.colors.grad.any()
    assert info["means2d"].shape == (1, len(scene.means), 2)


def test_huge_gaussians_cover_everything():
    for size in (1e2, 1e6, 1e12):
        scene = make_scene(count=3, dtype=torch.float32)
        scene = replace(
            scene, scales=torch.full((3, 3), size), opacities=torch.full((3,), 0.5), means=0.01 * scene.means
        )
        _, alphas, info = scene.render()
        if (info["radii"] > 0).all():  # beyond float32's range they are culled
            torch.testing.assert_close(alphas, torch.full_like(alphas, 1 - 0.5**3), atol=1e-3, rtol=0)
        else:
            assert size > 1e6 and not alphas.any()


def test_expected_depth_of_a_wall_is_its_distance():
    grid = torch.linspace(-1, 1, 41)
    x, y = (a.reshape(-1) for a in torch.meshgrid(grid, grid, indexing="ij"))
    n = len(x)
    viewmat = torch.eye(4)
    viewmat[2, 3] = 2.0
    K = torch.tensor([[40.0, 0, 16], [0, 40, 12], [0, 0, 1]])
    wall = Scene(
        torch.stack([x, y, torch.zeros(n)], -1), torch.tensor([1.0, 0, 0, 0]).expand(n, 4),
        torch.full((n, 3), 0.05), torch.full((n,), 0.9), torch.ones(n, 3), viewmat[None], K[None], 32, 24,
    )  # fmt: skip
    image, alphas, _ = wall.render(render_mode="RGB+ED")
    assert alphas.min() > 0.99
    torch.testing.assert_close(image[..., 3], torch.full((1, 24, 32), 2.0), atol=1e-4, rtol=0)


# -------------------------------------------------------------------------------------------------- contracts
def test_info_serves_gsplats_densification_strategy():
    gsplat_strategy = pytest.importorskip("gsplat.strategy")
    scene = make_scene(count=30, bases=4, dtype=torch.float32)
    parameters = torch.nn.ParameterDict(
        {"means": scene.means, "quats": scene.quats, "scales": scene.scales.log(),
         "opacities": scene.opacities.logit(), "sh": scene.colors}
    )  # fmt: skip
    optimizers = {name: torch.optim.Adam([parameter]) for name, parameter in parameters.items()}
    for absgrad in (False, True):
        strategy = gsplat_strategy.DefaultStrategy(absgrad=absgrad)
        state = strategy.initialize_state()
        moving = replace(
            scene, means=parameters["means"], quats=parameters["quats"], scales=parameters["scales"].exp(),
            opacities=parameters["opacities"].sigmoid(), colors=parameters["sh"],
        )  # fmt: skip
        image, _, info = moving.render(sh_degree=1, absgrad=absgrad)
        strategy.step_pre_backward(parameters, optimizers, state, 1, info)
        image.square().sum().backward()
        strategy.step_post_backward(parameters, optimizers, state, 1, info, packed=False)
        assert torch.equal(state["count"] > 0, info["radii"][0] > 0)
        drawn = info["radii"][0] > 0
        assert (state["grad2d"][drawn] > 0).float().mean() > 0.8


def test_parameters_that_need_no_gradient_get_none():
    scene = make_scene(dtype=torch.float32)
    colors = scene.colors.clone().requires_grad_()
    replace(scene, colors=colors).render()[0].sum().backward()
    assert colors.grad.any()
    with torch.no_grad():
        assert not scene.leaves().render()[0].requires_grad


@pytest.mark.parametrize(
    ("changes", "options", "message"),
    [
        ({"quats": torch.zeros(40, 3)}, {}, r"quats has shape \(40, 3\); expected \(40, 4\)"),
        ({"opacities": torch.zeros(40, 1)}, {}, "opacities has shape"),
        (
            {"scales": torch.zeros(40, 3, dtype=torch.float64)},
            {},
            "scales is torch.float64, means is torch.float32",
        ),
        ({"means": torch.zeros(40, 3, dtype=torch.int64)}, {}, "means is torch.int64"),
        ({"colors": torch.zeros(39, 3)}, {}, "colors has shape"),
        ({}, {"sh_degree": 3}, r"expected \(40, K, 3\) with K >= 16 for SH degree 3"),
        ({}, {"sh_degree": 4}, "sh_degree is 4; expected 0 to 3"),
        ({}, {"backgrounds": torch.zeros(1, 4)}, "backgrounds has 4 channels; expected 3"),
        ({}, {"backgrounds": torch.zeros(2, 3)}, "backgrounds has shape"),
        ({}, {"extra": torch.zeros(3, 2)}, "extra has shape"),
        ({"width": 0}, {}, "image size is 0 x 29"),
        ({}, {"render_mode": "rgb"}, "render_mode is 'rgb'; expected one of RGB, D"),
        ({}, {"rasterize_mode": "mip"}, "rasterize_mode is 'mip'; expected one of classic"),
    ],
)
def test_wrong_arguments_are_named(changes, options, message):
    with pytest.raises(ValueError, match=message):
        replace(make_scene(dtype=torch.float32), **changes).render(**options)


def test_kernels_compile_without_a_place_for_a_cache(monkeypatch):
    from edit3dgs_ns.splats import jit

    real = numba.njit

    def njit(cache: bool, **options: Any) -> Any:
        if cache:
            raise RuntimeError("cannot cache function: no locator available")
        return real(cache=False, **options)

    monkeypatch.setattr(jit.numba, "njit", njit)
    assert jit.kernel()(lambda x: x + 1)(2) == 3


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize(("shape", "options"), SHAPES_AND_MODES)
def test_gsplat_on_cuda_draws_the_same(shape, options):
    """Values and gradients of both back ends. gsplat's own float32 atomics set the tolerance."""
    scene = make_scene(**shape, dtype=torch.float32)
    options = with_tensors(options, torch.float32)
    results = []
    for device in ("cpu", "cuda"):
        moved = replace(
            scene, **{f.name: getattr(scene, f.name).to(device) for f in fields(scene)[:7]}
        ).leaves()
        there = {k: v.to(device) if isinstance(v, Tensor) else v for k, v in options.items()}
        image, alphas, info = moved.render(**there)
        outputs = [image, alphas, *([info["extra"]] if "extra" in info else [])]
        sum(output.sin().sum() for output in outputs).backward()
        gradients = [leaf.grad for name, leaf in moved.differentiable.items() if name != "viewmats"]
        results.append([x.cpu() for x in [*outputs, *(g for g in gradients if g is not None)]])
    for mine, theirs in zip(*results, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-2, atol=1e-3 * max(1.0, float(theirs.abs().max())))


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("rasterize_mode", ["classic", "antialiased"])
def test_gsplat_on_cuda_gives_the_same_absolute_gradients(rasterize_mode):
    """What densification reads of `info`: image gradients, and their absolute sums over the pixels."""
    scene = make_scene(dtype=torch.float32, cameras=2)
    results = []
    for device in ("cpu", "cuda"):
        moved = replace(
            scene, **{f.name: getattr(scene, f.name).to(device) for f in fields(scene)[:7]}
        ).leaves()
        image, _, info = moved.render(rasterize_mode=rasterize_mode, absgrad=True)
        info["means2d"].retain_grad()
        image.sin().sum().backward()
        results.append([x.cpu() for x in (info["means2d"].grad, info["means2d"].absgrad)])
    for mine, theirs in zip(*results, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-2, atol=1e-3 * max(1.0, float(theirs.abs().max())))
