"""Gaussians that are frozen stay where they are, bit for bit, and the others move as without them."""

import copy

import numpy as np
import pytest
import torch

from edit3dgs_ns.splats.frozen_gaussians import faces_near, freeze_gaussians

FROZEN = torch.tensor([True, False, True, False, False])


def _trained(steps: int):
    """Parameters and their optimizers after some steps: Adam is in full swing."""
    torch.manual_seed(0)
    parameters = {name: torch.nn.Parameter(torch.randn(5, 3)) for name in ("means", "scales")}
    optimizers = {name: torch.optim.Adam([p], lr=0.1, eps=1e-15) for name, p in parameters.items()}
    _train(parameters, optimizers, steps)
    return parameters, optimizers


def _train(parameters, optimizers, steps: int) -> None:
    for _ in range(steps):
        for optimizer in optimizers.values():
            optimizer.zero_grad()
        sum((p**4).sum() for p in parameters.values()).backward()
        for optimizer in optimizers.values():
            optimizer.step()


@pytest.mark.parametrize("before", [0, 5])
def test_frozen_rows_do_not_move_and_the_others_move_as_ever(before):
    parameters, optimizers = _trained(before)
    start = {name: p.detach().clone() for name, p in parameters.items()}
    free = copy.deepcopy((parameters, optimizers))
    for name, optimizer in free[1].items():  # a copied optimizer still points at the copied parameter
        assert optimizer.param_groups[0]["params"][0] is free[0][name]
    freeze_gaussians(parameters, optimizers, FROZEN)
    _train(parameters, optimizers, 7)
    _train(*free, 7)
    for name, p in parameters.items():
        assert torch.equal(p[FROZEN], start[name][FROZEN])
        assert torch.equal(p[~FROZEN], free[0][name][~FROZEN]) and not torch.equal(
            p[~FROZEN], start[name][~FROZEN]
        )
        state = optimizers[name].state[p]
        for moment in ("exp_avg", "exp_avg_sq"):
            assert not state[moment][FROZEN].any() and state[moment][~FROZEN].all()


def test_zeroed_gradients_alone_would_not_freeze_them():
    """Why Adam.s moments are cleared: they would move a row on."""
    parameters, optimizers = _trained(5)
    start = parameters["means"].detach().clone()
    parameters["means"].register_hook(lambda gradient: gradient.masked_fill(FROZEN[:, None], 0))
    _train(parameters, optimizers, 1)
    assert not torch.equal(parameters["means"][FROZEN], start[FROZEN])


def test_they_can_be_unfrozen():
    parameters, optimizers = _trained(0)
    for handle in freeze_gaussians(parameters, optimizers, FROZEN):
        handle.remove()
    start = parameters["means"].detach().clone()
    _train(parameters, optimizers, 1)
    assert not torch.equal(parameters["means"][FROZEN], start[FROZEN])


def test_the_border_of_a_region_in_metres():
    # A ribbon of squares of 1 cm, two triangles each, along x.
    x = np.arange(11) * 0.01
    vertices = np.concatenate([np.stack([x, 0 * x + y, 0 * x], axis=1) for y in (0.0, 0.01)])
    first = np.arange(10)
    faces = np.concatenate(
        [np.stack([first, first + 1, first + 11], 1), np.stack([first + 1, first + 12, first + 11], 1)]
    )
    middles = vertices[faces].mean(axis=1)[:, 0]
    region = middles < 0.02
    near = faces_near(vertices, faces, region, border=0.025)
    assert near[region].all() and not near[middles > middles[region].max() + 0.025].any()
    assert near[(middles > 0.02) & (middles < middles[region].max() + 0.02)].all()
    np.testing.assert_array_equal(faces_near(vertices, faces, region, border=0.0), region)
    nothing = np.zeros(len(faces), bool)
    assert not faces_near(vertices, faces, nothing, border=0.1).any()
