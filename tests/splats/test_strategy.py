"""Densification carries bindings, keeps optimizers attached, spares the last Gaussian of a face and respects the budget."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from edit3dgs_ns.splats.strategy import BoundStrategy, spare_last_of_face

FACES = 12


class Scene:
    """Bound Gaussians with their optimizers; feeds the strategy with chosen image gradients."""

    def __init__(self, per_face: int = 2, **strategy: Any):
        torch.manual_seed(0)
        count = FACES * per_face
        self.params = torch.nn.ParameterDict(
            {
                "means": torch.nn.Parameter(torch.randn(count, 3) * 0.1),
                "scales": torch.nn.Parameter(torch.full((count, 3), -1.0)),
                "quats": torch.nn.Parameter(torch.nn.functional.normalize(torch.randn(count, 4), dim=-1)),
                "opacities": torch.nn.Parameter(torch.zeros(count, 1)),
                # A tag that names the parent face, to follow Gaussians through every operation.
                "tag": torch.nn.Parameter((torch.arange(count) % FACES).float()[:, None]),
            }
        )
        self.optimizers = {k: torch.optim.Adam([p], lr=1e-8) for k, p in self.params.items()}
        defaults = {"refine_start_iter": 0, "refine_every": 10, "reset_every": 10**9, "grow_grad2d": 1e-3}
        self.strategy = BoundStrategy(**{**defaults, **strategy})
        self.state = self.strategy.initialize_state(
            binding=torch.arange(count) % FACES, face_sizes=torch.linspace(0.001, 0.01, FACES)
        )

    def step(self, step: int, gradients: torch.Tensor) -> None:
        """One training step in which every Gaussian is seen, with the given image gradients (N,)."""
        count = len(self.params["means"])
        for name, parameter in self.params.items():
            parameter.grad = torch.full_like(parameter, 0.5)
            self.optimizers[name].step()
        means2d = torch.zeros(1, count, 2, requires_grad=True)
        means2d.grad = torch.stack([gradients, torch.zeros(count)], dim=-1)[None] * 2 / 64
        info = {
            "means2d": means2d, "radii": torch.ones(1, count), "width": 64, "height": 64, "n_cameras": 1, "gaussian_ids": None
        }  # fmt: skip
        self.strategy.step_post_backward(self.params, self.optimizers, self.state, step, info)

    def check(self) -> None:
        """Everything has one row per Gaussian, optimizers hold the live parameters, tags agree with bindings."""
        count = len(self.params["means"])
        binding = self.state["binding"]
        assert len(binding) == count
        torch.testing.assert_close(self.params["tag"].round().long().flatten(), binding)
        for name, parameter in self.params.items():
            assert len(parameter) == count
            assert self.optimizers[name].param_groups[0]["params"][0] is parameter
            moments = self.optimizers[name].state[parameter]
            assert moments["exp_avg"].shape == parameter.shape
        assert set(binding.tolist()) == set(range(FACES))


def test_clones_inherit_the_face() -> None:
    scene = Scene(grow_scale3d=1.0)
    gradients = torch.zeros(24)
    gradients[[3, 7]] = 1.0
    scene.step(10, gradients)
    scene.check()
    assert scene.state["binding"].tolist()[24:] == [3, 7]
    torch.testing.assert_close(scene.params["means"][24:], scene.params["means"][[3, 7]])


def test_splits_inherit_the_face_and_are_drawn_in_local_coordinates() -> None:
    scene = Scene(per_face=400, grow_scale3d=0.0)
    scene.params["means"].data.zero_()
    before = torch.exp(scene.params["scales"][0, 0].detach()).item()
    scene.step(10, (torch.arange(FACES * 400) % FACES == 5).float())
    scene.check()
    children = scene.state["binding"] == 5
    assert int(children.sum()) == 800
    # Local offsets have the parent's local standard deviation, whatever the size of the face in metres.
    assert scene.params["means"][children].std().item() == pytest.approx(before, rel=0.05)
    torch.testing.assert_close(
        torch.exp(scene.params["scales"][children]), torch.full((800, 3), before / 1.6), rtol=1e-3, atol=0
    )


def test_size_threshold_is_in_world_units() -> None:
    """Same local scale everywhere: only the Gaussians on large faces are split, the others cloned."""
    scene = Scene(grow_scale3d=0.0025)
    world = torch.exp(torch.tensor(-1.0)) * torch.linspace(0.001, 0.01, FACES)
    scene.step(10, torch.ones(24))
    scene.check()
    kept_scale = torch.exp(scene.params["scales"].detach())[:, 0]
    divided = {
        face
        for face, scale in zip(scene.state["binding"].tolist(), kept_scale.tolist(), strict=True)
        if scale < 0.3
    }
    assert divided == set((world > 0.0025).nonzero().flatten().tolist())


def test_budget_takes_the_largest_gradients() -> None:
    scene = Scene(grow_scale3d=1.0, max_gaussians=27)
    gradients = torch.linspace(0.1, 1.0, 24)
    scene.step(10, gradients)
    scene.check()
    assert len(scene.params["means"]) == 27
    assert set(scene.state["binding"].tolist()[24:]) == {b % FACES for b in (21, 22, 23)}
    scene.step(20, torch.ones(27))
    assert len(scene.params["means"]) == 27


def test_a_face_keeps_its_most_opaque_gaussian() -> None:
    scene = Scene(per_face=3, grow_grad2d=1e9)
    scene.params["opacities"].data[:] = -20.0
    scene.params["opacities"].data[FACES + 4] = -19.0  # the best of face 4
    scene.params["opacities"].data[7] = 3.0  # face 7 has one that stays anyway
    scene.step(10, torch.zeros(36))
    scene.check()
    assert len(scene.params["means"]) == FACES
    by_face = dict(
        zip(scene.state["binding"].tolist(), scene.params["opacities"].flatten().tolist(), strict=True)
    )
    assert by_face[4] == pytest.approx(-19.0, abs=1e-3) and by_face[7] == pytest.approx(3.0, abs=1e-3)


def test_spare_last_of_face_against_a_loop() -> None:
    generator = torch.Generator().manual_seed(1)
    for _ in range(50):
        binding = torch.randint(0, 9, (30,), generator=generator)
        opacities = torch.rand(30, generator=generator)
        doomed = torch.rand(30, generator=generator) < 0.8
        expected = doomed.clone()
        for face in binding.unique():
            members = (binding == face).nonzero().flatten()
            if doomed[members].all():
                expected[members[opacities[members].argmax()]] = False
        torch.testing.assert_close(spare_last_of_face(doomed, binding, opacities), expected)


def test_opacities_are_not_reset_at_step_zero_but_later() -> None:
    scene = Scene(reset_every=20, grow_grad2d=1e9)
    scene.params["opacities"].data[:] = 2.0
    scene.step(0, torch.zeros(24))
    assert scene.params["opacities"].min() > 1.9
    scene.step(20, torch.zeros(24))
    scene.check()
    assert torch.sigmoid(scene.params["opacities"]).max().item() == pytest.approx(
        2 * scene.strategy.prune_opa, rel=1e-3
    )


def test_nothing_happens_after_the_last_densification() -> None:
    scene = Scene(refine_stop_iter=10)
    scene.step(10, torch.ones(24))
    scene.check()
    assert len(scene.params["means"]) == 24
