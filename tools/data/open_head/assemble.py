"""Putting the parts together into one mesh with weights, regions and directions, in metres."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import sparse
from scipy.sparse.csgraph import connected_components

from tools.data.open_head.parts import (
    Part,
    boundary_loop,
    cap_part,
    carry,
    clip_part,
    eyeball_part,
    selection_part,
    teeth_part,
)
from tools.data.open_head.source import BaseMesh

METRES = 0.1  # MakeHuman's unit is the decimetre
# Where the midpoint between the eyeballs goes: where FLAME's mean head has it, so that cameras and poses
# carry over.
EYES_AT = np.array([0.0, 0.034, 0.031])
# The bust: what lies inside this upright elliptic cylinder, which ends below in half an ellipsoid.
BUST_CENTRE, BUST_RADII = np.array([0.0, -0.085, -0.050]), np.array([0.138, 0.125, 0.165])
# The helpers stand for other teeth than ours: the upper row shows a little more, the lower row bites behind
# it, and the tongue lies lower and does not reach between the rows (decimetres).
SHIFTS = {
    "teeth_upper": (0.0, -0.042, 0.0),
    "teeth_lower": (0.0, -0.032, -0.034),
    "tongue": (0.0, -0.060, -0.085),
}
PART_NAMES = ("skin", "bust_cap", "eye_left", "eye_right", "teeth_upper", "teeth_lower", "tongue")


@dataclass(frozen=True)
class Head:
    """The assembled head and how it came from the base mesh."""

    parts: dict[str, Part]
    start: dict[str, int]  # first vertex of each part
    vertices: np.ndarray  # (V, 3) metres
    faces: np.ndarray  # (F, 3)
    uv: np.ndarray
    uv_faces: np.ndarray
    part_of_face: np.ndarray  # (F,) index into PART_NAMES
    islands: np.ndarray  # (F,) "skin", "mouth", "socket" or the part's name

    def field(self, base_field: np.ndarray) -> np.ndarray:
        """A displacement field of the base mesh (decimetres) on this head (metres)."""
        return METRES * np.concatenate([carry(p, base_field) for p in self.parts.values()])

    def scalar(self, base_values: np.ndarray) -> np.ndarray:
        """Values at base vertices -> values at this head's vertices."""
        return np.concatenate([p.operator @ base_values for p in self.parts.values()])

    def vertices_of(self, name: str) -> np.ndarray:
        """Boolean (V,): vertices of one part."""
        out = np.zeros(len(self.vertices), bool)
        out[self.start[name] : self.start[name] + len(self.parts[name])] = True
        return out

    def islands_of_vertices(self) -> np.ndarray:
        """(V,) island name of each vertex; a vertex between "skin" and another island counts as "skin"."""
        out = np.full(len(self.vertices), "", dtype=self.islands.dtype)
        for name in [*(n for n in np.unique(self.islands) if n != "skin"), "skin"]:
            out[self.faces[self.islands == name]] = name
        return out

    def tagged(self, tag: str) -> np.ndarray:
        """Boolean (V,): vertices with a part's tag."""
        n = [p.vertex_tags.get(tag, np.zeros(len(p), bool)) for p in self.parts.values()]
        return np.concatenate(n)

    def tagged_faces(self, tag: str) -> np.ndarray:
        """Boolean (F,): faces with a part's tag."""
        n = [p.face_tags.get(tag, np.zeros(len(p.faces), bool)) for p in self.parts.values()]
        return np.concatenate(n)


def uv_islands(mesh: BaseMesh) -> np.ndarray:
    """(Q,) number of the texture island of each body quad."""
    quads = mesh.texture_quads["body"]
    edges = np.concatenate([quads[:, [i, (i + 1) % 4]] for i in range(4)])
    n = len(mesh.texture)
    labels = connected_components(sparse.coo_matrix((np.ones(len(edges)), edges.T), shape=(n, n)))[1]
    return labels[quads[:, 0]]


def to_metres(base: np.ndarray, eye_middle: np.ndarray) -> np.ndarray:
    """Base positions (decimetres) in the head's frame (metres)."""
    return (base - eye_middle) * METRES + EYES_AT


def _name_islands(mesh: BaseMesh, base: np.ndarray) -> np.ndarray:
    """(Q,) "skin", "mouth" or "socket" for each body quad: which texture island it is on."""
    islands = uv_islands(mesh)
    quads = mesh.quads["body"]
    names = np.full(len(quads), "skin", dtype="U8")
    teeth = base[mesh.group_vertices("helper-upper-teeth")].mean(0)
    for number in np.unique(islands):
        here = islands == number
        middle = base[np.unique(quads[here])].mean(0)
        if here.sum() > 1000:
            continue  # head, torso, hands and feet
        if np.abs(middle - teeth).max() < 0.6 and abs(middle[0]) < 0.05:
            names[here] = "mouth"
        else:
            names[here] = "socket"
    return names


def assemble(mesh: BaseMesh, base: np.ndarray) -> Head:
    """Cuts, closes and completes the head.

    Args:
        mesh: MakeHuman's base mesh.
        base: (V, 3) its vertices in the template's shape (decimetres).
    """
    eyes = {side: mesh.group_vertices(f"helper-{side}-eye") for side in "lr"}
    eye_middle = 0.5 * (base[eyes["l"]].mean(0) + base[eyes["r"]].mean(0))
    names = _name_islands(mesh, base)
    quads, uv_quads = mesh.quads["body"], mesh.texture_quads["body"]
    # The back of the eye sockets is always hidden behind the eyeballs.
    hidden = (names == "socket") & (base[quads][:, :, 2].max(1) < eye_middle[2])
    near = (to_metres(base[quads], eye_middle)[:, :, 1].max(1) > -0.3) & ~hidden
    names = names[near]
    skin = selection_part(quads[near], uv_quads[near], mesh.texture, len(base))
    skin.face_tags.update({name: np.repeat(names == name, 2) for name in ("mouth", "socket")})

    at = to_metres(carry(skin, base), eye_middle)
    relative = (at - BUST_CENTRE) / BUST_RADII
    relative[:, 1] = np.minimum(relative[:, 1], 0)
    skin = clip_part(skin, 1 - np.linalg.norm(relative, axis=1))
    loop = boundary_loop(skin.faces, skin.vertex_tags["cut"])
    tongue = selection_part(
        mesh.quads["helper-tongue"], mesh.texture_quads["helper-tongue"], mesh.texture, len(base)
    )
    parts = {
        "skin": skin,
        "bust_cap": cap_part(skin, loop),
        "eye_left": eyeball_part(base, eyes["l"]),
        "eye_right": eyeball_part(base, eyes["r"]),
        "teeth_upper": teeth_part(base, mesh.group_vertices("helper-upper-teeth"), "upper"),
        "teeth_lower": teeth_part(base, mesh.group_vertices("helper-lower-teeth"), "lower"),
        "tongue": tongue,
    }
    for name, shift in SHIFTS.items():
        parts[name].offset = parts[name].offset + np.array(shift)
    start, uv_start, faces, uv_faces = {}, 0, [], []
    n = 0
    for name, part in parts.items():
        start[name] = n
        faces.append(part.faces + n)
        uv_faces.append(part.uv_faces + uv_start)
        n, uv_start = n + len(part), uv_start + len(part.uv)
    vertices = np.concatenate([to_metres(carry(p, base, constant=True), eye_middle) for p in parts.values()])
    part_of_face = np.repeat(np.arange(len(parts)), [len(p.faces) for p in parts.values()])
    islands = np.array(PART_NAMES)[part_of_face]
    for tag in ("mouth", "socket"):
        islands[: len(skin.faces)][skin.face_tags[tag]] = tag
    return Head(
        parts,
        start,
        vertices,
        np.concatenate(faces),
        np.concatenate([p.uv for p in parts.values()]),
        np.concatenate(uv_faces),
        part_of_face,
        islands,
    )
