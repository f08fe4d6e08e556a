"""Drawn Gaussians keep the picture, their faces and the budget."""

from __future__ import annotations

import pytest
import torch

from edit3dgs_ns.splats.binding import quat_to_rotmat, rotmat_to_quat
from edit3dgs_ns.splats.mcmc import BoundMcmcStrategy
from tests.splats.test_strategy import Scene


class DrawnScene(Scene):
    """The scene of test_strategy with this strategy."""

    def __init__(self, per_face: int = 2, **options: float):
        super().__init__(per_face)
        self.strategy = BoundMcmcStrategy(
            refine_start_iter=0,
            refine_every=10,
            **{"noise": 0.0, **options},  # type: ignore[arg-type]
        )


def test_the_budget_is_reached_round_by_round_and_children_keep_the_face() -> None:
    scene = DrawnScene(max_gaussians=40, growth=0.25)
    counts = []
    for step in range(10, 60, 10):
        scene.step(step, torch.zeros(len(scene.params["means"])))
        scene.check()
        counts.append(len(scene.params["means"]))
    assert counts == [30, 37, 40, 40, 40]


def test_transparent_ones_move_but_a_face_keeps_its_last() -> None:
    scene = DrawnScene(max_gaussians=24)
    scene.params["opacities"].data[:] = -20.0
    scene.params["opacities"].data[:6] = 2.0  # of faces 0 to 5
    scene.step(10, torch.zeros(24))
    scene.check()  # every face has one
    opacities = torch.sigmoid(scene.params["opacities"]).flatten()
    assert (
        len(opacities) == 24 - 6
    )  # six faces had an opaque one and lost the other; six kept one: only 6 could be drawn from
    assert int((opacities > 0.1).sum()) == 12


def test_two_halves_look_like_the_whole() -> None:
    """Equation 9: the opacity of both together, integrated along a line through them, is that of the one before."""
    scene = DrawnScene(max_gaussians=10**6, growth=1.0)
    before = torch.linspace(0.1, 0.9, 24)
    scene.params["opacities"].data[:] = torch.logit(before)[:, None]
    scale = scene.params["scales"][0, 0].exp().item()
    scene.step(10, torch.zeros(24))
    assert len(scene.params["means"]) == 48
    x = torch.linspace(-40, 40, 200_001, dtype=torch.float64)
    for row in (0, 11, 23):
        opacity = torch.sigmoid(scene.params["opacities"][row]).item()
        width = scene.params["scales"][row, 0].exp().item()
        one = before[row].item() * torch.exp(-0.5 * (x / scale) ** 2)
        half = opacity * torch.exp(-0.5 * (x / width) ** 2)
        both = 1 - (1 - half) ** 2
        assert torch.trapezoid(both, x).item() == pytest.approx(torch.trapezoid(one, x).item(), rel=1e-3)


def test_only_transparent_ones_are_shaken() -> None:
    scene = DrawnScene(noise=1e4, max_gaussians=24)
    scene.optimizers["means"].param_groups[0]["lr"] = 1e-3
    scene.params["opacities"].data[:12], scene.params["opacities"].data[12:] = 0.0, -6.0
    before = scene.params["means"].detach().clone()
    scene.strategy._shake(scene.params, 1e-3)
    moved = (scene.params["means"].detach() - before).norm(dim=1)
    assert moved[:12].max() < 1e-6 and moved[12:].min() > 1e-4


def test_quat_to_rotmat_is_the_inverse() -> None:
    quats = torch.nn.functional.normalize(torch.randn(50, 4), dim=-1)
    back = rotmat_to_quat(quat_to_rotmat(3 * quats))
    torch.testing.assert_close(back * back[:, :1].sign(), quats * quats[:, :1].sign(), atol=1e-5, rtol=0)
