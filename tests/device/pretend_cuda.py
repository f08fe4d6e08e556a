"""Pretend that this machine has a CUDA device: torch's `FakeTensorMode`, with values.

`FakeTensorMode` knows of every tensor which device it would be on, and raises `FakeTensorDeviceMismatchError`
where an operation mixes devices: on any machine, with or without CUDA. Fake tensors have no values though, so that
code which looks at one (`int(mask.sum())`, `means[visible]`, `.cpu().numpy()`) cannot run. Here every fake tensor
carries its value along, computed on the CPU. All code runs as it is, and what it computes on the pretended
device can be compared with what it computes on the CPU.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensor,
    FakeTensorDeviceMismatchError,
    FakeTensorMode,
    unset_fake_temporarily,
)
from torch.utils._pytree import tree_leaves, tree_map

_MOVES = {torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default}
"""Operations that go from one device to another on purpose."""
_INDEXING = {torch.ops.aten.index, torch.ops.aten.index_put, torch.ops.aten.index_put_}
_FEW = 64
"""CUDA tensors may be indexed by CPU tensors, at the price of a copy. A Python list of up to so many indices may."""
_VALUE = "value_on_cpu"


@contextmanager
def pretend_cuda() -> Iterator[None]:
    """Inside of it `torch.device("cuda")` is there.

    >>> with pretend_cuda():
    ...     scale = torch.full((3,), 2.0, device="cuda")
    ...     print((scale * torch.ones(3, device="cuda")).sum().item())  # 6.0
    ...     scale * torch.ones(3)  # FakeTensorDeviceMismatchError
    """
    with (
        patch.object(FakeTensor, "numpy", _numpy),
        patch.object(FakeTensor, "data", _data),
        patch.object(Tensor, "backward", _backward),
        patch.object(Tensor, "__deepcopy__", _deepcopy),
        patch.object(torch, "save", _save),
        patch.object(torch, "load", _load),
        _FakeModeWithValues(),
    ):
        yield


class _FakeModeWithValues(FakeTensorMode):
    def __init__(self) -> None:
        super().__init__(allow_non_fake_inputs=True)
        self._inside = False

    def dispatch(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """One operation: torch's fake one for shape and device, and the same on the values."""
        kwargs = kwargs or {}
        if self._inside:  # one of the operations that torch takes this one apart into
            return super().dispatch(func, types, args, kwargs)
        device = _shared_device(func, (args, kwargs))
        self._inside = True
        try:
            out = super().dispatch(func, types, args, kwargs)
            looks_at_values = False
        except (DataDependentOutputException, DynamicOutputShapeException):
            looks_at_values = True
        finally:
            self._inside = False
            self.fake_tensor_converter.meta_converter.tensor_memo.clear()  # weak references forbid `Module.to`
        with torch.no_grad():
            values = func(*tree_map(self._on_cpu, args), **self._kwargs_on_cpu(kwargs))
        if looks_at_values:
            return tree_map(lambda value: self._fake(value, device), values)
        for fake, value in zip(tree_leaves(out), tree_leaves(values), strict=True):
            if isinstance(fake, FakeTensor):
                assert fake.shape == value.shape, (func, fake.shape, value.shape)
                setattr(fake, _VALUE, value)
        return out

    def _on_cpu(self, argument: Any) -> Any:
        if isinstance(argument, FakeTensor):
            return value_of(argument)
        if isinstance(argument, Tensor):
            return argument.detach()
        return torch.device("cpu") if isinstance(argument, torch.device) else argument

    def _kwargs_on_cpu(self, kwargs: dict[str, Any]) -> dict[str, Any]:
        kept = {name: value for name, value in kwargs.items() if name != "pin_memory"}
        return {name: tree_map(self._on_cpu, value) for name, value in kept.items()}

    def _fake(self, value: Any, device: torch.device | None) -> Any:
        if not isinstance(value, Tensor):
            return value
        with self:
            fake = torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device=device or "cpu")
        setattr(fake, _VALUE, value)
        return fake


def _numpy(tensor: FakeTensor, *, force: bool = False) -> np.ndarray:
    """`Tensor.numpy()`: like torch's, for CPU tensors only."""
    if tensor.device.type != "cpu":
        raise TypeError(f"can't convert {tensor.device} device type tensor to numpy. Use Tensor.cpu() first.")
    with unset_fake_temporarily():
        return value_of(tensor).numpy(force=force)


def _set_data(tensor: FakeTensor, other: Tensor) -> None:
    """`tensor.data = other`, which no dispatcher sees either."""
    Tensor.data.__set__(tensor, other)
    tensor.fake_device = other.device
    setattr(tensor, _VALUE, value_of(other))


_data = property(Tensor.data.__get__, _set_data)


def _deepcopy(tensor: Tensor, memo: dict[int, Any]) -> Tensor:
    """torch's copies storages, which fake tensors have none of."""
    assert tensor.is_leaf
    return memo.setdefault(id(tensor), tensor.detach().clone().requires_grad_(tensor.requires_grad))


_torch_save, _torch_load = torch.save, torch.load


def _save(content: Any, *args: Any, **options: Any) -> None:
    """`torch.save`: files hold values."""
    with unset_fake_temporarily():
        values = tree_map(lambda x: value_of(x) if isinstance(x, Tensor) else x, content)
        _torch_save(values, *args, **options)


def _load(*args: Any, **options: Any) -> Any:
    with unset_fake_temporarily():
        return _torch_load(*args, **options)


def _backward(root: Tensor) -> None:
    """`Tensor.backward()` of a number. torch's own engine wants a CUDA context for nodes on CUDA, fake or not, so
    the graph is walked here; what the nodes compute is torch's. Hooks are not run."""
    waiting = _uses(root.grad_fn)
    gradients: dict[Any, list[Tensor | None]] = {root.grad_fn: [torch.ones_like(root)]}
    ready = [root.grad_fn]
    with torch.no_grad():
        while ready:
            node = ready.pop()
            given = gradients.pop(node, None)
            out = _call(node, given) if given is not None else (None,) * len(node.next_functions)
            for (target, place), gradient in zip(node.next_functions, out, strict=False):
                if target is None:
                    continue
                if gradient is not None:
                    slots = gradients.setdefault(target, [None] * len(target._input_metadata))
                    gradient = _as_announced(gradient, target._input_metadata[place])
                    slots[place] = gradient if slots[place] is None else slots[place] + gradient
                waiting[target] -= 1
                if waiting[target] == 0:
                    ready.append(target)


def _call(node: Any, gradients: list[Tensor | None]) -> tuple[Tensor | None, ...]:
    # Written in Python: wants zeros for None. Its arguments that are no tensors must be the last.
    if isinstance(node, torch.autograd.function.BackwardCFunction):
        announced = zip(gradients, node._input_metadata, strict=True)
        out = node.apply(
            *(torch.zeros(m.shape, dtype=m.dtype, device=m.device) if g is None else g for g, m in announced)
        )
    else:
        out = node(*gradients)
    return out if isinstance(out, tuple) else (out,)


def _uses(root: Any) -> dict[Any, int]:
    """How many edges of the graph lead to each node."""
    uses: dict[Any, int] = {root: 0}
    stack = [root]
    while stack:
        for target, _ in stack.pop().next_functions:
            if target is not None:
                if target not in uses:
                    uses[target] = 0
                    stack.append(target)
                uses[target] += 1
    return uses


def _as_announced(gradient: Tensor, announced: Any) -> Tensor:
    """A gradient as the engine hands it to the node: summed over what was broadcast, and checked."""
    if gradient.device != announced.device:
        raise FakeTensorDeviceMismatchError("backward", announced.device, gradient.device)
    return gradient.sum_to_size(announced.shape).to(announced.dtype)


def value_of(tensor: Tensor) -> Tensor:
    """The value of a tensor on the pretended device, on the CPU; it shares memory with what it is the value of."""
    return getattr(tensor, _VALUE) if isinstance(tensor, FakeTensor) else tensor.detach()


def _shared_device(func: Any, arguments: tuple[tuple[Any, ...], dict[str, Any]]) -> torch.device | None:
    """The device that an operation runs on.

    Raises:
        FakeTensorDeviceMismatchError: its tensors are on two. As in torch, a CPU tensor that is a single number goes
            with any device; stricter than torch, indices must be where the indexed tensor is.
    """
    args, _ = arguments
    tensors = [x for x in tree_leaves(arguments) if isinstance(x, Tensor)]
    if not tensors or func in _MOVES:
        return None
    if func.overloadpacket in _INDEXING and args[0].device.type == "cuda":
        indices = {id(i) for i in args[1] if i is not None and i.numel() <= _FEW}
        tensors = [t for t in tensors if id(t) not in indices]
    devices = dict.fromkeys(t.device for t in tensors if t.device.type != "cpu" or t.ndim > 0)
    if len(devices) > 1:
        raise FakeTensorDeviceMismatchError(func, *list(devices)[:2])
    return next(iter(devices), torch.device("cpu"))
