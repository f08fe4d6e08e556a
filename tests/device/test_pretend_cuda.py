"""The pretended device raises where CUDA would, and computes what the CPU computes."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorDeviceMismatchError, FakeTensorMode

from tests.device.pretend_cuda import pretend_cuda, value_of

MIXED: dict[str, Callable[[Tensor, Tensor], object]] = {
    "product": lambda there, here: there * here,
    "matrix product": lambda there, here: there[None] @ here[:, None],
    "concatenation": lambda there, here: torch.cat([there, here]),
    "in place": lambda there, here: there.add_(here),
    "choice": lambda there, here: torch.where(there > 0, there, here),
    "CPU tensor by CUDA mask": lambda there, here: here[there > 0],
    "CPU tensor by CUDA indices": lambda there, here: here[there.long() * 0],
    "CUDA tensor by CPU indices": lambda there, here: there[here.long() * 0],
    "gathering": lambda there, here: there.gather(0, here.long()),
}


@pytest.mark.parametrize("operation", MIXED.values(), ids=MIXED)
def test_mixing_devices_raises(operation):
    with pretend_cuda():
        there, here = torch.ones(100, device="cuda"), torch.ones(100)
        assert there.device == torch.device("cuda:0")
        operation(there, there.clone())
        with pytest.raises(FakeTensorDeviceMismatchError):
            operation(there, here)


def test_numpy_takes_cpu_tensors_only():
    with pretend_cuda():
        there = torch.ones(3, device="cuda")
        assert there.cpu().numpy().tolist() == [1, 1, 1]
        with pytest.raises(TypeError, match=r"Use Tensor\.cpu"):
            there.numpy()


def test_what_cuda_allows_is_allowed():
    with pretend_cuda():
        there = torch.arange(5.0, device="cuda")
        assert (there * torch.tensor(2.0)).tolist() == [0, 2, 4, 6, 8]
        assert there[[3, 1]].tolist() == [3, 1]
        there[[0, 1]] = 7.0
        assert there.cpu().numpy().tolist() == [7, 7, 2, 3, 4]
        there.copy_(torch.zeros(5))
        assert not there.any()


def test_values_that_decide_shapes_are_known():
    with pretend_cuda():
        there = torch.tensor([3, 0, 2, 0], device="cuda")
        assert int((there > 0).sum()) == 2 and float(there.max()) == 3 and bool(there[0])
        assert there[there > 0].tolist() == [3, 2] and there.nonzero().shape == (2, 1)
        assert torch.bincount(there).device.type == "cuda"
        copied = copy.deepcopy(there)
        copied += 1
        assert there.tolist() == [3, 0, 2, 0] and copied.tolist() == [4, 1, 3, 1]
        assert isinstance(torch._C._get_dispatch_mode(torch._C._TorchDispatchModeKey.FAKE), FakeTensorMode)


def test_a_network_learns_the_same_as_on_the_cpu():
    """With broadcasting, tensors used twice, and outputs that are not used."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 4, 3), nn.GroupNorm(2, 4), nn.SiLU(), nn.Flatten(), nn.Linear(4 * 36, 3)]
    network = nn.Sequential(*layers)
    images = torch.randn(2, 3, 8, 8)

    def train(network: nn.Module, images: Tensor) -> list[Tensor]:
        optimizer = torch.optim.Adam(network.parameters(), lr=0.1)
        for _ in range(3):
            optimizer.zero_grad()
            first, second, _ = network(images).unbind(-1)
            broadcast = second[:, None] + first.detach()[None]
            loss = (first * images[:, 0, 0, 0]).sum() + broadcast.square().mean() + first.max()
            loss.backward()
            optimizer.step()
        return list(network.parameters())

    expected = train(copy.deepcopy(network), images)
    with pretend_cuda():
        trained = train(copy.deepcopy(network).to("cuda"), images.to("cuda"))
        assert all(parameter.device.type == "cuda" for parameter in trained)
    for mine, theirs in zip(trained, expected, strict=True):
        torch.testing.assert_close(value_of(mine), theirs.detach(), rtol=1e-5, atol=1e-6)


def test_the_pretence_ends():
    with pretend_cuda():
        torch.zeros(2, device="cuda")
    assert type(torch.zeros(2)) is Tensor and torch.ones(2, requires_grad=True).sum().backward() is None
