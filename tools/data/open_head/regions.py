"""Named sets of faces and vertices: from the parts, from what MakeHuman's targets move, and from places on
the face."""

from __future__ import annotations

import numpy as np

from tools.data.open_head.assemble import EYES_AT, Head
from tools.data.open_head.source import Targets


def _moved(head: Head, targets: Targets, names: list[str], share: float) -> np.ndarray:
    """Boolean (V,): skin vertices that some target moves by more than ``share`` of its largest motion."""
    out = np.zeros(len(head.vertices), bool)
    skin = head.vertices_of("skin")
    for name in names:
        field = targets.face_unit(name.removeprefix("unit:")) if name.startswith("unit:") else targets(name)
        size = np.linalg.norm(head.field(field), axis=1) * skin
        out |= size > share * size.max()
    return out


# MakeHuman's lips are this many rings of quads, counted from the inside of the mouth.
LIP_RINGS = 8


def _rings_around(faces: np.ndarray, start: np.ndarray, within: np.ndarray, rings: int) -> np.ndarray:
    """Boolean (F,): faces of ``within`` that all of their vertices reach from ``start`` in at most ``rings``
    steps."""
    reached = np.zeros(faces.max() + 1, bool)
    reached[faces[start]] = True
    for _ in range(rings):
        reached[faces[within & reached[faces].any(1)]] = True
    return within & reached[faces].all(1)


def _brows(v: np.ndarray, eye_x: float) -> np.ndarray:
    """Arcs above the eyes, in the frontal plane (metres)."""
    along = (np.abs(v[:, 0]) - 0.010) / 0.043  # 0 at the inner end, 1 at the outer end
    height = EYES_AT[1] + 0.0155 + 0.0085 * np.sin(np.pi * np.clip(along, 0, 1) * 0.80) - 0.003 * along
    half = 0.0055 - 0.0025 * np.clip(along, 0, 1)
    return (along > 0) & (along < 1) & (np.abs(v[:, 1] - height) < half) & (v[:, 2] > 0.02)


def _scalp(v: np.ndarray) -> np.ndarray:
    """Above and behind the hairline (metres): forehead, temples, around the ears, nape."""
    forehead = 0.098 - 9.0 * v[:, 0] ** 2
    front = v[:, 1] > forehead
    behind_temple = (v[:, 2] < -0.012) & (v[:, 1] > 0.030)
    behind_ear = (v[:, 2] < -0.050) & (v[:, 1] > -0.035 - 0.25 * (v[:, 2] + 0.10))
    return front | behind_temple | behind_ear


def regions(head: Head, targets: Targets) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Vertex and face index sets by name.

    Face sets split the mesh where that makes sense (a face of the skin is in at most one of ``scalp``,
    ``ears``, ``nose``, ``lips``, ``brows``, ``eyelids``, ``neck``, ``face``); unions such as ``skin`` and
    ``eyes`` come on top. A vertex set holds the vertices of the face set of the same name.
    """
    v, f = head.vertices, head.faces
    island = head.islands
    middle = v[f].mean(1)
    on_skin = island == "skin"

    def faces_of(vertex_mask: np.ndarray) -> np.ndarray:
        return (vertex_mask[f].sum(1) >= 2) & on_skin

    def is_part(*names: str) -> np.ndarray:
        return np.isin(island, names)

    lids = faces_of(_moved(head, targets, ["unit:eyeBlinkLeft", "unit:eyeBlinkRight"], 0.22)) | is_part(
        "socket"
    )
    lids &= middle[:, 1] < EYES_AT[1] + 0.014
    lips = _rings_around(f, island == "mouth", on_skin, LIP_RINGS)
    nose = faces_of(_moved(head, targets, ["nose/nose-scale-depth-incr", "nose/nose-volume-incr"], 0.28))
    ears = faces_of(
        _moved(
            head,
            targets,
            [f"ears/{side}-ear-{what}-incr" for side in "lr" for what in ("wing", "lobe")],
            0.06,
        )
    )
    skin = on_skin | is_part("socket")
    out: dict[str, np.ndarray] = {}
    rest = skin.copy()
    for name, mask in (
        ("eyelids", lids),
        ("lips", lips),
        ("ears", ears),
        ("nose", nose),
        ("brows", _brows(middle, head.vertices[head.vertices_of("eye_left"), 0].mean())),
        ("scalp", _scalp(middle)),
    ):
        out[name] = mask & rest
        rest &= ~mask
    jaw_line = -0.068 + 0.35 * np.clip(0.05 - middle[:, 2], 0, 0.11)
    out["neck"] = rest & (middle[:, 1] < jaw_line)
    out["face"] = rest & ~out["neck"]
    out["skin"] = skin
    out["bust_cap"] = is_part("bust_cap")
    out["mouth"] = is_part("mouth")
    out["eye_left"], out["eye_right"] = is_part("eye_left"), is_part("eye_right")
    out["eyes"] = is_part("eye_left", "eye_right")
    out["iris"], out["pupil"] = head.tagged_faces("iris"), head.tagged_faces("pupil")
    gums = head.tagged_faces("gums")
    out["teeth_upper"], out["teeth_lower"] = is_part("teeth_upper") & ~gums, is_part("teeth_lower") & ~gums
    out["teeth"], out["gums"] = out["teeth_upper"] | out["teeth_lower"], gums
    out["tongue"] = is_part("tongue")
    face_sets = {name: np.flatnonzero(mask) for name, mask in sorted(out.items())}
    vertex_sets = {name: np.unique(f[rows]) for name, rows in face_sets.items()}
    return vertex_sets, face_sets
