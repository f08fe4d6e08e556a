"""Relighting: exact on SH colours, neutral at first, and able to follow diffuse light on a turning surface."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from edit3dgs_ns.splats.cpu_rasterizer import spherical_harmonics
from edit3dgs_ns.splats.relighting import NUM_TERMS, apply_gain, light_gain, normal_terms


def unit_vectors(count: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    generator = torch.Generator().manual_seed(count)
    return F.normalize(torch.randn(count, 3, generator=generator, dtype=dtype), dim=-1)


def test_without_training_nothing_changes() -> None:
    gain = light_gain(torch.zeros(NUM_TERMS, 3).double(), unit_vectors(20), unit_vectors(20).flip(0))
    assert (gain == 1).all()
    colors = torch.randn(20, 16, 3)
    torch.testing.assert_close(apply_gain(colors, gain.float(), torch.arange(20)), colors)


def test_a_head_at_rest_looks_as_it_is_whatever_the_light() -> None:
    normals = unit_vectors(20)
    torch.testing.assert_close(
        light_gain(torch.randn(NUM_TERMS, 3).double(), normals, normals), torch.ones(20, 3).double()
    )


def test_colours_become_exactly_gain_times_as_bright_from_every_side() -> None:
    torch.manual_seed(0)
    colors, gain = 0.1 * torch.randn(30, 16, 3), torch.rand(8, 3) + 0.5
    binding = torch.randint(0, 8, (30,))
    means, cameras = torch.randn(30, 3), 3 * torch.randn(2, 3)
    seen = torch.ones(2, 30, dtype=torch.int32)

    def shown(coefficients: torch.Tensor) -> torch.Tensor:
        return spherical_harmonics(coefficients, means, cameras, seen, 3)

    assert (shown(colors) > 0.01).all()  # nothing is clamped at black
    torch.testing.assert_close(shown(apply_gain(colors, gain, binding)), gain[binding] * shown(colors))


def test_it_can_follow_diffuse_light_on_a_turning_surface() -> None:
    """Two lamps and a sky, as irradiance of random normals before and after turns of up to 40 degrees."""
    before = unit_vectors(4000)
    after = F.normalize(before + 0.5 * unit_vectors(4001)[:4000], dim=-1)
    lamps = F.normalize(torch.tensor([[0.5, 0.6, 0.7], [-0.7, 0.1, 0.6]]).double(), dim=-1)

    def irradiance(normals: torch.Tensor) -> torch.Tensor:
        return (
            0.5 + 0.2 * normals[:, 1] + (normals @ lamps.T).clamp_min(0) @ torch.tensor([0.6, 0.3]).double()
        )

    truth = irradiance(after) / irradiance(before)
    light = torch.linalg.lstsq(normal_terms(after) - normal_terms(before), truth.log()[:, None]).solution
    found = light_gain(light.expand(-1, 3), after, before)[:, 0]
    error, unlit = (found / truth).log().std(), truth.log().std()
    assert unlit > 0.15 and error < 0.4 * unlit


def test_gradients_of_the_gain() -> None:
    torch.manual_seed(2)
    light = (0.3 * torch.randn(NUM_TERMS, 3, dtype=torch.float64)).requires_grad_()
    normals = unit_vectors(5).requires_grad_()
    assert torch.autograd.gradcheck(lambda a, b: light_gain(a, b, unit_vectors(6)[:5]), (light, normals))
