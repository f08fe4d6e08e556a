"""The 52 ARKit actions as expression directions that fit this head's eyeballs and joints."""

from __future__ import annotations

import numpy as np

from tools.data.open_head.assemble import Head
from tools.data.open_head.directions import ARKIT_ACTIONS
from tools.data.open_head.source import Targets

# Actions of the lids that must clear the eyeball, alone and together.
LID_ACTIONS = (
    ("eyeBlink",),
    ("eyeLookDown",),
    ("eyeSquint",),
    ("cheekSquint",),
    ("eyeSquint", "cheekSquint"),
    ("eyeWide",),
)
LID_CLEARANCE = 0.0005  # metres between a moved lid and the eyeball


def expression_fields(head: Head, targets: Targets) -> list[np.ndarray]:
    """(V, 3) displacement in metres of each action of ``ARKIT_ACTIONS``.

    ``jawOpen`` is zero: the jaw joint opens the mouth. The eyeballs take part in no action (gaze is
    ``eyes_pose``), so ``eyeLook*`` moves the lids alone.
    """
    eyeballs = head.vertices_of("eye_left") | head.vertices_of("eye_right")
    fields = {}
    for name in ARKIT_ACTIONS:
        fields[name] = head.field(targets.face_unit(name))
        fields[name][eyeballs] = 0
        if name.startswith("eye"):
            # Some of these targets also pull at the hidden inside of the nose, past the midline.
            outward = head.vertices[:, 0] * (1 if name.endswith("Left") else -1)
            fields[name] *= np.clip(outward / 0.004, 0, 1)[:, None]
    fields["jawOpen"][:] = 0
    for side in ("Left", "Right"):
        for actions in LID_ACTIONS:
            _clear_eyeball(head, [fields[name + side] for name in actions], f"eye_{side.lower()}")
    return [fields[name] for name in ARKIT_ACTIONS]


def _clear_eyeball(head: Head, fields: list[np.ndarray], eye: str) -> None:
    """Changes the fields in place so that their sum leaves no skin inside the eyeball that was outside at
    rest."""
    ball = head.vertices[head.vertices_of(eye)]
    centre = 0.5 * (ball.min(0) + ball.max(0))
    radius = np.linalg.norm(ball - centre, axis=1).max()
    rest = np.linalg.norm(head.vertices - centre, axis=1)
    moved = head.vertices + sum(fields)
    distance = np.linalg.norm(moved - centre, axis=1)
    island = head.islands_of_vertices()
    near = (rest >= radius) & (rest < 2.5 * radius) & (island == "skin") & (moved[:, 2] > centre[2])
    inside = np.flatnonzero(near & (distance < radius + LID_CLEARANCE))
    push = (
        (radius + LID_CLEARANCE - distance[inside, None]) * (moved[inside] - centre) / distance[inside, None]
    )
    # A vertex that no action moves and that lies close at rest is none of these actions' business.
    push *= (np.linalg.norm(sum(fields)[inside], axis=1) > 1e-4)[:, None]
    for field in fields:
        field[inside] += push / len(fields)
