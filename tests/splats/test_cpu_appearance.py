"""Colours and means of a pose in one pass: as PyTorch's operations have them, with gradients, for everything that may be absent."""

from __future__ import annotations

import pytest
import torch

from edit3dgs_ns.splats.appearance import posed_colors, posed_means
from edit3dgs_ns.splats.relighting import GRAY, apply_gain

BINDING = torch.tensor([2, 0, 0, 4, 2, 2, 1])  # nothing on face 3


def inputs(dtype: torch.dtype = torch.float64) -> tuple[torch.Tensor, ...]:
    """dc, rest, offsets, gain; the code."""
    torch.manual_seed(2)
    shapes = (7, 3), (7, 15, 3), (7, 4, 3), (5, 3)
    return *(torch.randn(shape, dtype=dtype).requires_grad_() for shape in shapes), torch.randn(
        4, dtype=dtype
    )


@pytest.mark.parametrize("degree", [0, 2, 3])
@pytest.mark.parametrize("moved", [False, True])
@pytest.mark.parametrize("relit", [False, True])
def test_values_are_those_of_separate_operations(degree: int, moved: bool, relit: bool) -> None:
    dc, rest, offsets, gain, code = inputs(torch.float32)
    bases = (degree + 1) ** 2
    at_rest = dc + torch.einsum("nkc,k->nc", offsets, code) if moved else dc
    expected = torch.cat([at_rest[:, None], rest[:, : bases - 1]], dim=1)
    if relit:
        expected = apply_gain(expected, gain, BINDING)
    found = posed_colors(
        dc,
        rest,
        degree,
        offsets if moved else None,
        code if moved else None,
        gain if relit else None,
        BINDING,
    )
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("degree", [0, 1, 3])
@pytest.mark.parametrize("moved", [False, True])
@pytest.mark.parametrize("relit", [False, True])
def test_gradients(degree: int, moved: bool, relit: bool) -> None:
    dc, rest, offsets, gain, code = inputs()

    def colors(a: torch.Tensor, b: torch.Tensor, c: torch.Tensor, d: torch.Tensor) -> torch.Tensor:
        return posed_colors(
            a, b, degree, c if moved else None, code if moved else None, d if relit else None, BINDING
        )

    assert torch.autograd.gradcheck(colors, (dc, rest, offsets, gain))


def test_gradients_of_means() -> None:
    _, _, offsets, _, code = inputs()
    means = torch.randn(7, 3, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(lambda a, b: posed_means(a, b, code), (means, offsets))
    torch.testing.assert_close(
        posed_means(means, offsets, code), means + torch.einsum("nkc,k->nc", offsets, code)
    )


def test_black_stays_black_and_white_becomes_as_bright_as_the_gain() -> None:
    black, white = torch.full((1, 3), -GRAY), torch.full((1, 3), GRAY)
    gain, none = torch.tensor([[0.5, 1.0, 2.0]]), torch.zeros(1, 0, 3)
    for dc, brightness in ((black, torch.zeros(3)), (white, gain[0])):
        found = posed_colors(dc, none, 0, None, None, gain, torch.zeros(1, dtype=torch.long))
        torch.testing.assert_close(found[0, 0] / GRAY * 0.5 + 0.5, brightness)


def test_fewer_coefficients_than_the_degree_has_and_wrong_faces() -> None:
    dc, rest, _, gain, _ = inputs(torch.float32)
    assert posed_colors(dc, rest[:, :3], 3, None, None, gain, BINDING).shape == (7, 4, 3)
    with pytest.raises(IndexError, match="faces 0 to 4 of 3"):
        posed_colors(dc, rest, 3, None, None, gain[:3], BINDING)
