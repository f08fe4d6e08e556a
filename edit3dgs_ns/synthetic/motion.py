"""Acted sequences: smooth expressions, speech-like jaw, gaze, blinks and neck over time.

Expressions are named after ARKit's facial actions, which are the open head's expression directions. Every
sequence is a function of its seed and of the time in seconds, so more frames
sample the same performance more densely.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edit3dgs_ns.errors import UserError
from edit3dgs_ns.flame.expression_offset import JAW_LIMIT
from edit3dgs_ns.synthetic.canonical import CanonicalHead
from edit3dgs_ns.synthetic.noise import smoothstep
from edit3dgs_ns.synthetic.posing import Frame


def both(**amounts: float) -> dict[str, float]:
    """Amounts of actions for the left and the right side alike."""
    return {f"{name}{side}": amount for name, amount in amounts.items() for side in ("Left", "Right")}


FACES: dict[str, dict[str, float]] = {
    "smile": {**both(mouthSmile=0.75, cheekSquint=0.45, eyeSquint=0.25)},
    "laugh": {
        **both(mouthSmile=0.9, cheekSquint=0.7, eyeSquint=0.4, mouthUpperUp=0.35, mouthLowerDown=0.25),
        "jaw": 0.20,
    },
    "surprise": {**both(browOuterUp=0.9, eyeWide=0.8), "browInnerUp": 0.9, "jaw": 0.24, "mouthFunnel": 0.15},
    "anger": {**both(browDown=0.9, eyeSquint=0.45, noseSneer=0.5, mouthPress=0.4), "mouthShrugLower": 0.25},
    "sadness": {**both(mouthFrown=0.85, browOuterUp=0.0), "browInnerUp": 0.9, "mouthShrugLower": 0.35},
    "disgust": {**both(noseSneer=0.9, mouthUpperUp=0.6, browDown=0.5, eyeSquint=0.4, mouthFrown=0.3)},
    "pucker": {"mouthPucker": 0.9, "mouthFunnel": 0.25},
    "cheeks": {"cheekPuff": 0.9, **both(mouthPress=0.3)},
    "smirk": {"mouthSmileLeft": 0.85, "mouthDimpleLeft": 0.5, "cheekSquintLeft": 0.4, "browOuterUpLeft": 0.5},
    "smirk_other": {
        "mouthSmileRight": 0.85,
        "mouthDimpleRight": 0.5,
        "cheekSquintRight": 0.4,
        "browOuterUpRight": 0.5,
    },
    "mouth_left": {"mouthLeft": 0.9},
    "mouth_right": {"mouthRight": 0.9},
    "teeth": {**both(mouthUpperUp=0.7, mouthLowerDown=0.7, mouthStretch=0.5), "jaw": 0.04},
    "open": {"jaw": 0.33},
    "wink": {"eyeBlinkLeft": 1.0, "cheekSquintLeft": 0.6, "mouthSmileLeft": 0.4},
    "shut": {**both(eyeBlink=1.0)},
    "stretch": {**both(mouthStretch=0.8, mouthDimple=0.4)},
}
"""Expressions by name: amounts of ARKit actions; "jaw" is the jaw joint's opening in radians."""


@dataclass(frozen=True)
class SequencePlan:
    """Plan of one sequence: expressions, speech and head movement.

    Attributes:
        name: the folder's name, as in NeRSemble.
        faces: keys of FACES, acted one after another.
        speech: strength of a speech-like movement of jaw and lips.
        sway: how much the head moves.
    """

    name: str
    faces: tuple[str, ...]
    speech: float = 0.0
    sway: float = 1.0


SEQUENCES: tuple[SequencePlan, ...] = (
    SequencePlan("EMO-1", ("smile", "surprise", "laugh", "anger", "open", "smirk")),
    SequencePlan(
        "EXP-5", ("pucker", "teeth", "mouth_left", "shut", "mouth_right", "cheeks", "open"), sway=0.7
    ),
    SequencePlan("SEN-01", ("smirk_other",), speech=1.0, sway=0.9),
    SequencePlan("EMO-4", ("disgust", "laugh", "sadness", "stretch", "surprise"), speech=0.25, sway=1.1),
)
"""The acted sequences; the last one is held out of training."""


def face(
    head: CanonicalHead,
    amounts: dict[str, float],
    *,
    jaw=0.0,
    gaze=(0.0, 0.0),
    neck=(0.0, 0.0, 0.0),
    rotation=(0.0, 0.0, 0.0),
    translation=(0.0, 0.0, 0.0),
) -> Frame:
    """A frame from amounts of named actions.

    Args:
        jaw: opening in radians.
        gaze: pitch (positive looks down) and yaw (positive to the subject's left) of both eyes, radians.

    Raises:
        ValueError: the head model does not name an action (FLAME's own expressions have no names).
    """
    names = head.assets.expression_names
    if names is None:
        raise UserError(
            f"{head.assets.source}: its expressions have no names, so none can be acted. Use the open head."
        )
    expr = np.zeros(len(names), np.float32)
    for name, amount in amounts.items():
        if name not in names:
            raise UserError(f"{head.assets.source}: no expression named {name}. Use the open head.")
        expr[names.index(name)] = np.clip(amount, 0.0, 1.0)
    pitch, yaw = float(gaze[0]), float(gaze[1])
    # The lids follow the eyes down and up.
    if "eyeLookDownLeft" in names:
        for side in ("Left", "Right"):
            expr[names.index(f"eyeLookDown{side}")] = np.clip(pitch / 0.5, 0.0, 1.0)
            expr[names.index(f"eyeLookUp{side}")] = np.clip(-pitch / 0.5, 0.0, 1.0)
    eye = np.array([pitch, yaw, 0.0])
    return Frame(
        expr,
        np.asarray(rotation, np.float32),
        np.asarray(neck, np.float32),
        np.array([jaw, 0.0, 0.0], np.float32),
        np.concatenate([eye, eye]).astype(np.float32),
        np.asarray(translation, np.float32),
    )


def act(head: CanonicalHead, plan: SequencePlan, count: int, seed: int) -> list[Frame]:
    """`count` frames of a sequence, evenly spaced over the performance (two seconds per expression)."""
    duration = max(2.0 * len(plan.faces), 3.0) if not plan.speech else 2.0 * len(plan.faces) + 4.0
    number = [ord(c) for c in plan.name]
    wave = _Waves(seed, number, duration / count)
    return [_moment(head, plan, (k + 0.5) / count * duration, duration, wave) for k in range(count)]


def _moment(head: CanonicalHead, plan: SequencePlan, time: float, duration: float, wave: _Waves) -> Frame:
    amounts: dict[str, float] = {}
    jaw = 0.0
    slot = duration / len(plan.faces)
    for k, name in enumerate(plan.faces):
        # Each expression swells, holds and fades; neighbours overlap a little.
        u = (time - k * slot) / slot
        weight = float(smoothstep(-0.15, 0.28, np.array(u)) * smoothstep(1.15, 0.72, np.array(u)))
        for action, amount in FACES[name].items():
            if action == "jaw":
                jaw += weight * amount
            else:
                amounts[action] = amounts.get(action, 0.0) + weight * amount
    if plan.speech:
        syllable = max(0.0, 0.45 + 0.75 * wave(3.1, time)) * max(0.0, 0.55 + 0.7 * wave(0.7, time))
        jaw += 0.17 * plan.speech * syllable
        for action, rate, gain in (
            ("mouthFunnel", 1.3, 0.5),
            ("mouthPucker", 1.1, 0.4),
            ("mouthStretchLeft", 1.7, 0.3),
            ("mouthStretchRight", 1.7, 0.3),
            ("mouthUpperUpLeft", 2.3, 0.3),
            ("mouthUpperUpRight", 2.3, 0.3),
            ("mouthLowerDownLeft", 2.0, 0.35),
            ("mouthLowerDownRight", 2.0, 0.35),
        ):
            amounts[action] = amounts.get(action, 0.0) + plan.speech * gain * max(
                0.0, wave(rate, time, action)
            )
        amounts["browInnerUp"] = amounts.get("browInnerUp", 0.0) + 0.3 * plan.speech * max(
            0.0, wave(0.5, time, "brow")
        )
    blink = _blink(time, wave)
    for side in ("Left", "Right"):
        amounts[f"eyeBlink{side}"] = max(amounts.get(f"eyeBlink{side}", 0.0), blink)
    gaze = (0.07 * wave(0.45, time, "pitch"), 0.17 * wave(0.4, time, "yaw"))
    s = plan.sway
    neck = (
        0.09 * s * wave(0.35, time, "nod"),
        0.16 * s * wave(0.28, time, "shake"),
        0.05 * s * wave(0.22, time, "tilt"),
    )
    rotation = (
        0.02 * s * wave(0.2, time, "rx"),
        0.04 * s * wave(0.17, time, "ry"),
        0.015 * s * wave(0.15, time, "rz"),
    )
    translation = (
        0.004 * s * wave(0.2, time, "tx"),
        0.003 * s * wave(0.25, time, "ty"),
        0.004 * s * wave(0.18, time, "tz"),
    )
    return face(
        head,
        amounts,
        jaw=min(jaw, JAW_LIMIT),
        gaze=gaze,
        neck=neck,
        rotation=rotation,
        translation=translation,
    )


class _Waves:
    """Smooth wandering signals in about [-1, 1]: three sines of unrelated rates with phases of their own.

    Sparse frames (`spacing` seconds apart) slow them down, so that neighbouring frames stay neighbours.
    """

    def __init__(self, seed: int, number: list[int], spacing: float):
        self._key = [seed, *number]
        self._fastest = 0.18 / spacing

    def __call__(self, rate: float, time: float, name: str = "") -> float:
        phase = np.random.default_rng([*self._key, *(ord(c) for c in name), int(rate * 1000)]).uniform(
            0, 2 * np.pi, 3
        )
        turns = 2 * np.pi * min(rate, self._fastest) * time * np.array([1.0, 0.618, 1.414])
        return float(np.sin(turns + phase) @ [0.55, 0.3, 0.25])

    def uniform(self, name: str) -> float:
        """A number in [0, 1) of the sequence's own."""
        return float(np.random.default_rng([*self._key, *(ord(c) for c in name)]).random())


def _blink(time: float, wave: _Waves) -> float:
    """A blink of 0.35 s every three seconds or so."""
    start = 1.2 + 1.0 * wave.uniform("blink")
    since = (time - start) % 3.1
    return (
        float(smoothstep(0.0, 0.12, np.array(since)) * smoothstep(0.38, 0.20, np.array(since)))
        if time > start
        else 0.0
    )
