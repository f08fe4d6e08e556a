"""What the state of an avatar in a checkpoint has to be, whoever wrote it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from edit3dgs_ns.errors import UserError
from edit3dgs_ns.splats.rig import OFFSET_BUFFERS, POSE_PARAMETERS

_WIDTHS = {"means": (3,), "scales": (3,), "quats": (4,), "features_dc": (3,), "opacities": (1,)}
"""Of the Gaussians' parameters, after the first axis."""
_GAUSSIANS, _POSE = "gauss_params.", "head.pose."
_LARGEST = 1e6
"""No number of an avatar is near this; squares of much larger ones are infinite."""
_LARGEST_SCALE = 40.0
"""Of the logarithms of scales: exp(40) times a triangle is no Gaussian any more."""


def check_avatar_numbers(state: Mapping[str, Any], where: str, num_faces: int | None = None) -> None:
    """Raises a UserError when Gaussians or head have not the shapes of an avatar's, or numbers that cannot be drawn.

    Args:
        state: of the model; it has Gaussians that are bound to a head.
        where: the file, for the message.
        num_faces: of the head, where it is known.
    """
    problem = _problem(state, num_faces)
    if problem is not None:
        raise UserError(
            f"{where} holds an avatar that cannot be drawn: {problem}. The training diverged, or the file is damaged or of "
            "another version: take an earlier checkpoint."
        )


def _problem(state: Mapping[str, Any], num_faces: int | None) -> str | None:
    needed = [
        *(f"{_GAUSSIANS}{name}" for name in (*_WIDTHS, "features_rest")),
        "binding",
        "head.shape",
        "head.static_offset",
    ]
    needed += [f"{_POSE}{name}" for name in POSE_PARAMETERS]
    missing = [name for name in needed if name not in state]
    if missing:
        return f"it has no {', '.join(missing)}"
    for name, value in state.items():
        if not isinstance(value, Tensor):
            return f"{name} is no tensor"
        if name.startswith((_GAUSSIANS, "head.", "appearance.")) and value.dtype != torch.float32:
            return f"{name} has numbers of the type {value.dtype} instead of {torch.float32}"
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            return f"{name} has {int((~torch.isfinite(value)).sum())} numbers that are not finite"
        largest = float(value.abs().max()) if value.is_floating_point() and value.numel() else 0.0
        if largest > (_LARGEST_SCALE if name == f"{_GAUSSIANS}scales" else _LARGEST):
            return f"{name} has numbers as large as {largest:.3g}"
    return _wrong_shape(state) or _wrong_binding(state["binding"], num_faces) or _wrong_degree(state)


def _wrong_shape(state: Mapping[str, Tensor]) -> str | None:
    binding, rest = state["binding"], state[f"{_GAUSSIANS}features_rest"]
    count = len(binding) if binding.ndim == 1 else 0
    if not count:
        return f"binding has the shape {tuple(binding.shape)}"
    shapes: dict[str, tuple[int, ...]] = {
        f"{_GAUSSIANS}{name}": (count, *width) for name, width in _WIDTHS.items()
    }
    coefficients = rest.shape[1] if rest.ndim == 3 else 0
    shapes[f"{_GAUSSIANS}features_rest"] = (count, coefficients if coefficients in (0, 3, 8, 15) else 15, 3)
    frames = len(state[f"{_POSE}expr"]) if state[f"{_POSE}expr"].ndim == 2 else 0
    for name in POSE_PARAMETERS:
        width = {"eyes_pose": 6}.get(name, 3)
        found = state[f"{_POSE}{name}"]
        if (
            not frames
            or found.ndim != 2
            or len(found) != frames
            or (name != "expr" and found.shape[1] != width)
        ):
            return f"{_POSE}{name} has the shape {tuple(found.shape)}"
    for name, shape in shapes.items():
        if tuple(state[name].shape) != shape:
            return f"{name} has the shape {tuple(state[name].shape)} instead of {shape}"
    if state["head.shape"].ndim != 1:
        return f"head.shape has the shape {tuple(state['head.shape'].shape)}"
    for name, ndim in zip(OFFSET_BUFFERS, (1, 1, 0), strict=True):
        buffer = state.get(f"head.{name}")
        if buffer is not None and (buffer.ndim != ndim or (name == "jaw_offset" and len(buffer) != 3)):
            return f"head.{name} has the shape {tuple(buffer.shape)}"
    return _wrong_appearance(state, count)


def _wrong_appearance(state: Mapping[str, Tensor], count: int) -> str | None:
    # Late: with it comes Numba, which no configuration of a method may load.
    from edit3dgs_ns.splats.relighting import NUM_TERMS

    basis = state.get("appearance.code_basis", torch.zeros(0, 0))
    if basis.ndim != 2:
        return f"appearance.code_basis has the shape {tuple(basis.shape)}"
    rank = basis.shape[1]
    offsets: dict[str, tuple[int, ...]] = {
        f"{_GAUSSIANS}{name}": (count, rank, 3) for name in ("expression_means", "expression_colors")
    }
    light: dict[str, tuple[int, ...]] = {
        "appearance.light": (NUM_TERMS, 3),
        "appearance.code_mean": (len(basis),),
    }
    for name, shape in (offsets | light).items():
        is_used = name in state and (rank or name == "appearance.light")
        if is_used and tuple(state[name].shape) != shape:
            return f"{name} has the shape {tuple(state[name].shape)} instead of {shape}"
    return None


def _wrong_binding(binding: Tensor, num_faces: int | None) -> str | None:
    if binding.is_floating_point() or binding.is_complex() or binding.dtype == torch.bool:
        return f"binding has numbers of the type {binding.dtype}"
    least, most = int(binding.min()), int(binding.max())
    if least < 0 or (num_faces is not None and most >= num_faces):
        faces = "" if num_faces is None else f"; the head has the faces 0 to {num_faces - 1}"
        return f"Gaussians are bound to the faces {least} to {most}{faces}"
    return None


def _wrong_degree(state: Mapping[str, Tensor]) -> str | None:
    degree = state.get("sh_degree_reached")
    if degree is None:  # of an older version
        return None
    is_one = degree.numel() == 1 and not degree.is_complex()
    return None if is_one and 0 <= int(degree) <= 3 else f"sh_degree_reached is {str(degree)[:60]}"
