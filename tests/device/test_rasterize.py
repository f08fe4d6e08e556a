"""The path of `rasterize` to gsplat, for what gsplat 1.4 promises; the drawing itself is compared where there is a GPU
(tests/splats/test_rasterize.py)."""

from __future__ import annotations

import inspect
from contextlib import nullcontext
from dataclasses import fields, replace

import gsplat
import pytest
import torch
from torch import Tensor

from edit3dgs_ns.splats.binding import WorldGaussians
from edit3dgs_ns.splats.rasterize import rasterize
from edit3dgs_ns.splats.similarity import Similarity
from edit3dgs_ns.splats.world_splats import Backdrop, WorldSplats
from tests.device.pretend_cuda import value_of
from tests.device.stand_in_gsplat import StandInGsplat
from tests.splats.test_rasterize import SHAPES_AND_MODES, make_scene, with_tensors


def on(device: str, scene):
    return replace(scene, **{f.name: getattr(scene, f.name).to(device) for f in fields(scene)[:7]})


@pytest.mark.parametrize(("shape", "options"), SHAPES_AND_MODES)
def test_gsplat_gets_what_it_needs_and_gives_what_is_promised(shape, options, cuda_with_gsplat):
    scene = make_scene(**shape, dtype=torch.float32)
    options = with_tensors(options, torch.float32)
    results = []
    for device in ("cpu", "cuda"):
        with cuda_with_gsplat() if device == "cuda" else nullcontext() as stand_in:
            moved = on(device, scene).leaves()
            there = {k: v.to(device) if isinstance(v, Tensor) else v for k, v in options.items()}
            image, alphas, info = moved.render(**there)
            outputs = [image, alphas, *([info["extra"]] if "extra" in info else [])]
            sum(output.sin().sum() for output in outputs).backward()
            gradients = [leaf.grad for leaf in moved.differentiable.values() if leaf.grad is not None]
            kept = [*outputs, *gradients, *(info[name] for name in ("means2d", "radii", "depths"))]
            assert {tensor.device.type for tensor in kept} == {device}
            assert stand_in is None or stand_in.calls == 1
            assert (info["n_cameras"], info["radii"].shape) == (len(scene.viewmats), info["depths"].shape)
        results.append([value_of(tensor) for tensor in kept])
    for mine, theirs in zip(*results, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5 * max(1.0, float(theirs.abs().max())))


def test_absolute_gradients_reach_the_densification(cuda_with_gsplat):
    scene = make_scene(dtype=torch.float32)
    drawn = []
    for device in ("cpu", "cuda"):
        with cuda_with_gsplat() if device == "cuda" else nullcontext():
            image, _, info = on(device, scene).leaves().render(absgrad=True)
            info["means2d"].retain_grad()
            image.square().sum().backward()
            drawn.append(value_of(info["means2d"].absgrad))
    expected, found = drawn
    torch.testing.assert_close(found, expected)
    assert found.any()


def test_a_tensor_left_on_the_cpu_is_named(cuda_with_gsplat):
    scene = make_scene(dtype=torch.float32)
    for field in fields(scene)[:7]:
        if field.name == "means":
            continue
        message = rf"^{field.name} is on cpu, means is on cuda"
        with cuda_with_gsplat(), pytest.raises(ValueError, match=message):
            replace(on("cuda", scene), **{field.name: getattr(scene, field.name)}).render()


@pytest.mark.parametrize("name", ["rasterization", "spherical_harmonics"])
def test_the_stand_in_takes_nothing_that_gsplat_does_not_take(name):
    real = inspect.signature(getattr(gsplat, name)).parameters
    mine = inspect.signature(getattr(StandInGsplat(), name)).parameters
    required = [p.name for p in mine.values() if p.default is p.empty]
    assert list(real)[: len(required)] == required
    for parameter in mine.values():
        assert parameter.name in real and parameter.default == real[parameter.name].default


def test_a_head_and_a_placed_scene_go_to_gsplat_in_one_call(cuda_with_gsplat):
    place = Similarity.from_parts((0.1, 0.0, -0.2), (20.0, -130.0, 65.0), 0.6)
    drawn = []
    for device in ("cpu", "cuda"):
        with cuda_with_gsplat() if device == "cuda" else nullcontext() as stand_in:
            head = on(device, make_scene(dtype=torch.float32, bases=4, seed=1))
            room = on("cpu", make_scene(dtype=torch.float32, bases=16, seed=2))
            backdrop = Backdrop(splats_of(room), place, "room.ply").to(device)
            joined = splats_of(head).joined(backdrop.placed)
            camera = (head.viewmats, head.Ks, head.width, head.height)
            image, _, _ = rasterize(*joined.tensors, *camera, sh_degree=joined.sh_degree)
            assert image.device.type == device and (stand_in is None or stand_in.calls == 1)
        drawn.append(value_of(image))
    torch.testing.assert_close(drawn[1], drawn[0], atol=1e-5, rtol=1e-4)


def splats_of(scene) -> WorldSplats:
    quats = torch.nn.functional.normalize(scene.quats, dim=-1)
    return WorldSplats(WorldGaussians(scene.means, quats, scene.scales), scene.opacities, scene.colors)
