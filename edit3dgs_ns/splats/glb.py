"""Gaussians as a glTF 2.0 binary file (.glb) by KHR_gaussian_splatting, with the head's skinned mesh in a scene of its own.

Khronos' extension (release candidate of 2026): a primitive of points with linear scales, xyzw rotations, opacities in [0, 1] and
3D Gaussian Splatting's spherical harmonics, one attribute for each coefficient. Programs that do not know it show coloured points
(COLOR_0). Scene 0, which viewers open, holds the Gaussians; scene 1 the mesh, which would hide them there.
"""

from __future__ import annotations

import json
import math
import struct
from pathlib import Path
from typing import Any

import numpy as np

from edit3dgs_ns.files import write_atomically
from edit3dgs_ns.splats.head_rig import JOINT_NAMES, HeadRig
from edit3dgs_ns.splats.ply import MIN_LOG_SCALE
from edit3dgs_ns.splats.spherical_harmonics import DEGREE_0
from edit3dgs_ns.splats.world_splats import WorldSplats

EXTENSION = "KHR_gaussian_splatting"
_UNSIGNED_BYTE, _UNSIGNED_INT, _FLOAT = 5121, 5125, 5126
_ATTRIBUTES, _INDICES = 34962, 34963
_POINTS = 0
_TYPES = {1: "SCALAR", 3: "VEC3", 4: "VEC4", 16: "MAT4"}
_COMPONENTS = {
    np.dtype(np.uint8): _UNSIGNED_BYTE,
    np.dtype(np.uint32): _UNSIGNED_INT,
    np.dtype(np.float32): _FLOAT,
}


def write_glb(path: Path, splats: WorldSplats, rig: HeadRig) -> None:
    """Writes the file, atomically.

    Args:
        path: the file.
        splats: in the head's world: metres, y up, the face looks along +z, as glTF has it.
        rig: the head at the same pose.
    """
    file = _Glb()
    gaussians, head = _gaussians(file, splats), _head(file, rig)
    first = 2  # number of the root joint's node
    nodes = [{"name": "gaussians", "mesh": 0}, {"name": "head", "mesh": 1, "skin": 0}, *_joints(rig, first)]
    binding = np.tile(np.eye(4), (len(rig.joints), 1, 1))
    binding[:, :3, 3] = -rig.joints
    matrices = binding.transpose(0, 2, 1).reshape(-1, 16)  # glTF's matrices are column-major
    skin = {
        "joints": [first + joint for joint in range(len(rig.joints))],
        "skeleton": first,
        "inverseBindMatrices": file.add(matrices.astype(np.float32), None),
    }
    content = {
        "asset": {"version": "2.0", "generator": "Edit3DGS"},
        "extensionsUsed": [EXTENSION],
        "scene": 0,
        "scenes": [{"name": "avatar", "nodes": [0]}, {"name": "rig", "nodes": [1, first]}],
        "nodes": nodes,
        "meshes": [gaussians, head],
        "skins": [skin],
        "materials": [{"name": "head", "pbrMetallicRoughness": {"metallicFactor": 0.0}}],
    }
    write_atomically(path, file.packed(content))


class _Glb:
    """Collects the arrays of a file."""

    def __init__(self) -> None:
        self._data: list[bytes] = []
        self._views: list[dict[str, int]] = []
        self._accessors: list[dict[str, Any]] = []
        self._size = 0

    def add(self, values: np.ndarray, target: int | None = _ATTRIBUTES, **properties: Any) -> int:
        """The number of a new accessor; its type and component type are the array's."""
        data = np.ascontiguousarray(values).tobytes()
        assert len(data) % 4 == 0, "glTF aligns to four bytes"
        view = {"buffer": 0, "byteOffset": self._size, "byteLength": len(data)}
        self._views.append(view if target is None else view | {"target": target})
        self._data.append(data)
        self._size += len(data)
        width = 1 if values.ndim == 1 else values.shape[1]
        self._accessors.append(
            {
                "bufferView": len(self._views) - 1,
                "componentType": _COMPONENTS[values.dtype],
                "count": len(values),
                "type": _TYPES[width],
                **properties,
            }
        )
        return len(self._accessors) - 1

    def positions(self, values: np.ndarray) -> int:
        """The same for places, whose bounds glTF asks for."""
        values = values.astype(np.float32)
        return self.add(values, min=values.min(axis=0).tolist(), max=values.max(axis=0).tolist())

    def packed(self, content: dict[str, Any]) -> bytes:
        """The file."""
        buffers = [{"byteLength": self._size}]
        content = content | {
            "buffers": buffers,
            "bufferViews": self._views,
            "accessors": self._accessors,
        }
        text = json.dumps(content, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 4)
        length = 12 + 8 + len(text) + 8 + self._size
        header = struct.pack("<4sII", b"glTF", 2, length) + struct.pack("<I4s", len(text), b"JSON")
        return b"".join([header, text, struct.pack("<I4s", self._size, b"BIN\0"), *self._data])


def _gaussians(file: _Glb, splats: WorldSplats) -> dict[str, Any]:
    """The mesh of points."""
    g = splats.gaussians
    means, quats, scales, opacities, colors = (
        tensor.detach().cpu().float().numpy()
        for tensor in (g.means, g.quats, g.scales, splats.opacities, splats.colors)
    )
    quats = quats / np.linalg.norm(quats, axis=1, keepdims=True)
    attributes = {
        "POSITION": file.positions(means),
        "COLOR_0": file.add(_plain_colors(colors[:, 0], opacities), normalized=True),
        f"{EXTENSION}:ROTATION": file.add(np.roll(quats, -1, axis=1)),
        f"{EXTENSION}:SCALE": file.add(np.maximum(scales, np.float32(math.exp(MIN_LOG_SCALE)))),
        f"{EXTENSION}:OPACITY": file.add(opacities),
    }
    for degree in range(splats.sh_degree + 1):
        for order in range(2 * degree + 1):
            name = f"{EXTENSION}:SH_DEGREE_{degree}_COEF_{order}"
            attributes[name] = file.add(colors[:, degree**2 + order])
    extension = {
        "kernel": "ellipse",
        "colorSpace": "srgb_rec709_display",
        "projection": "perspective",
        "sortingMethod": "cameraDistance",
    }
    primitive = {"mode": _POINTS, "attributes": attributes, "extensions": {EXTENSION: extension}}
    return {"name": "gaussians", "primitives": [primitive]}


def _plain_colors(constant: np.ndarray, opacities: np.ndarray) -> np.ndarray:
    """COLOR_0 of the points: glTF's vertex colours are linear, those of Gaussians as on the display (sRGB)."""
    shown = np.clip(0.5 + DEGREE_0 * constant, 0, 1)
    linear = np.where(shown <= 0.04045, shown / 12.92, ((shown + 0.055) / 1.055) ** 2.4)
    return np.rint(255 * np.concatenate([linear, opacities[:, None]], axis=1)).astype(np.uint8)


def _head(file: _Glb, rig: HeadRig) -> dict[str, Any]:
    """The mesh of the head."""
    primitive = {
        "attributes": {
            "POSITION": file.positions(rig.vertices),
            "JOINTS_0": file.add(rig.joint_indices.astype(np.uint8)),
            "WEIGHTS_0": file.add(rig.joint_weights.astype(np.float32)),
        },
        "indices": file.add(rig.faces.astype(np.uint32).reshape(-1), _INDICES),
        "material": 0,
        "targets": [{"POSITION": file.positions(target)} for target in rig.targets],
    }
    return {
        "name": "head",
        "primitives": [primitive],
        "weights": rig.target_values.tolist(),
        "extras": {"targetNames": list(rig.target_names)},
    }


def _joints(rig: HeadRig, first: int) -> list[dict[str, Any]]:
    nodes = []
    for joint, parent in enumerate(rig.parents):
        base = -rig.translation if parent < 0 else rig.joints[parent]
        node: dict[str, Any] = {
            "name": JOINT_NAMES[joint],
            "translation": (rig.joints[joint] - base).tolist(),
            "rotation": np.roll(rig.rotations[joint], -1).tolist(),
        }
        if children := [first + child for child, above in enumerate(rig.parents) if above == joint]:
            node["children"] = children
        nodes.append(node)
    return nodes
