"""A slow reader of glTF 2.0 by its specification: splats of KHR_gaussian_splatting, and a mesh with morph targets and a skin.

Independent of `edit3dgs_ns.splats.glb`.
"""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

_WIDTHS = {"SCALAR": 1, "VEC3": 3, "VEC4": 4, "MAT4": 16}
_TYPES = {5121: np.uint8, 5125: np.uint32, 5126: np.float32}


class GltfFile:
    """A .glb with one buffer."""

    def __init__(self, path: Path):
        data = path.read_bytes()
        magic, version, length = struct.unpack_from("<4sII", data)
        assert (magic, version, length) == (b"glTF", 2, len(data))
        size, kind = struct.unpack_from("<I4s", data, 12)
        assert kind == b"JSON" and size % 4 == 0
        self.json: dict[str, Any] = json.loads(data[20 : 20 + size])
        binary, kind = struct.unpack_from("<I4s", data, 20 + size)
        assert kind == b"BIN\0" and binary % 4 == 0
        self._buffer = data[28 + size :]
        assert len(self._buffer) == binary == self.json["buffers"][0]["byteLength"]

    def array(self, accessor: int) -> np.ndarray:
        entry = self.json["accessors"][accessor]
        view = self.json["bufferViews"][entry["bufferView"]]
        assert view["byteOffset"] % 4 == 0
        data = self._buffer[view["byteOffset"] : view["byteOffset"] + view["byteLength"]]
        values = np.frombuffer(data, _TYPES[entry["componentType"]])
        return values.reshape(entry["count"], _WIDTHS[entry["type"]])


def read_gltf_splats(path: Path) -> dict[str, np.ndarray]:
    """Means, scales, quats (wxyz), opacities and colours (N, K, 3)."""
    file = GltfFile(path)
    assert "KHR_gaussian_splatting" in file.json["extensionsUsed"]
    (node,) = file.json["scenes"][file.json["scene"]]["nodes"]
    (primitive,) = file.json["meshes"][file.json["nodes"][node]["mesh"]]["primitives"]
    assert primitive["mode"] == 0
    extension = primitive["extensions"]["KHR_gaussian_splatting"]
    assert extension["kernel"] == "ellipse" and extension["colorSpace"] == "srgb_rec709_display"
    own = {
        name.removeprefix("KHR_gaussian_splatting:"): file.array(accessor)
        for name, accessor in primitive["attributes"].items()
    }
    colors = [
        own[f"SH_DEGREE_{d}_COEF_{n}"]
        for d in range(4)
        for n in range(2 * d + 1)
        if f"SH_DEGREE_{d}_COEF_0" in own
    ]
    return {
        "means": own["POSITION"],
        "scales": own["SCALE"],
        "quats": own["ROTATION"][:, [3, 0, 1, 2]],
        "opacities": own["OPACITY"][:, 0],
        "colors": np.stack(colors, axis=1),
    }


def posed_gltf_mesh(path: Path) -> np.ndarray:
    """Vertices of the skinned mesh, as the file's weights and joints place them."""
    file = GltfFile(path)
    nodes = file.json["nodes"]
    (node,) = (node for node in nodes if "skin" in node)
    mesh, skin = file.json["meshes"][node["mesh"]], file.json["skins"][node["skin"]]
    (primitive,) = mesh["primitives"]
    vertices = file.array(primitive["attributes"]["POSITION"]).astype(np.float64)
    for weight, target in zip(mesh["weights"], primitive["targets"], strict=True):
        vertices = vertices + weight * file.array(target["POSITION"])
    assert len(mesh["extras"]["targetNames"]) == len(mesh["weights"])
    parents = {child: number for number, entry in enumerate(nodes) for child in entry.get("children", [])}

    def world(number: int) -> np.ndarray:
        matrix = np.eye(4)
        matrix[:3, :3] = Rotation.from_quat(nodes[number]["rotation"]).as_matrix()
        matrix[:3, 3] = nodes[number]["translation"]
        return world(parents[number]) @ matrix if number in parents else matrix

    binding = file.array(skin["inverseBindMatrices"]).reshape(-1, 4, 4).transpose(0, 2, 1)
    matrices = np.stack([world(j) for j in skin["joints"]]) @ binding
    joints = file.array(primitive["attributes"]["JOINTS_0"])
    blended = np.einsum("vj,vjrc->vrc", file.array(primitive["attributes"]["WEIGHTS_0"]), matrices[joints])
    return np.einsum("vrc,vc->vr", blended[:, :3, :3], vertices) + blended[:, :3, 3]
