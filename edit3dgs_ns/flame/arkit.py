"""ARKit's 52 face coefficients, as apps record them, for a head whose expressions have ARKit's names (the open head).

Read are the CSV files of Live Link Face (one row a frame, one column a coefficient: `Timecode, BlendShapeCount, EyeBlinkLeft, ...`)
and JSON: a list of objects, one a frame, from name to amount; or an object with such a list under "frames" and, if known, "fps".
Amounts are 0 to 1. Names are ARKit's in any spelling in use: `eyeBlinkLeft`, `EyeBlinkLeft`, `eyeBlink_L`.

Two things are joints of the head and no expressions: `jawOpen` turns the jaw, `eyeLook*` turn the eyeballs (and move the lids).
The rotations of head and eyes that Live Link Face adds (`HeadYaw`, ...) are not read: their unit and signs differ between
releases of the app, and with how the phone is held.
"""

from __future__ import annotations

import csv
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from edit3dgs_ns.errors import UserError
from edit3dgs_ns.flame.assets import FlameAssets
from edit3dgs_ns.flame.motion import FlameMotion
from edit3dgs_ns.untrusted import parse_json


def _sides(name: str) -> tuple[str, ...]:
    return (f"{name}Left", f"{name}Right")


ARKIT_NAMES: tuple[str, ...] = (
    *_sides("browDown"), "browInnerUp", *_sides("browOuterUp"), "cheekPuff", *_sides("cheekSquint"), *_sides("eyeBlink"),
    *_sides("eyeLookDown"), *_sides("eyeLookIn"), *_sides("eyeLookOut"), *_sides("eyeLookUp"), *_sides("eyeSquint"),
    *_sides("eyeWide"), "jawForward", "jawLeft", "jawOpen", "jawRight", "mouthClose", *_sides("mouthDimple"),
    *_sides("mouthFrown"), "mouthFunnel", "mouthLeft", *_sides("mouthLowerDown"), *_sides("mouthPress"), "mouthPucker",
    "mouthRight", "mouthRollLower", "mouthRollUpper", "mouthShrugLower", "mouthShrugUpper", *_sides("mouthSmile"),
    *_sides("mouthStretch"), *_sides("mouthUpperUp"), *_sides("noseSneer"), "tongueOut",
)  # fmt: skip
"""The coefficients of ARKit's ARFaceAnchor.BlendShapeLocation."""
JAW_OPEN = 0.34
"""Radians that the jaw turns at jawOpen 1: where the open head's mouthClose 1 brings the lips together again, as ARKit means it."""
GAZE = 0.5
"""Radians that an eye turns at eyeLook* 1; the open head's lids follow at the same rate."""
_LOST_COLUMN = "BlendShapeCount"
_NO_COEFFICIENTS = ("Timecode", _LOST_COLUMN)
_MOST = 1.5
"""Amounts beyond this are no ARKit amounts (percent, for example); up to here they are clipped to 1."""


@dataclass(frozen=True)
class ArkitRecording:
    """Amounts over time."""

    source: Path
    names: tuple[str, ...]
    """Those of ARKIT_NAMES that the file has."""
    amounts: Float[np.ndarray, "T names"]
    """0 to 1."""
    fps: float | None
    """Frames per second, where the file says it."""
    unused: tuple[str, ...]
    """Columns that are no coefficients."""
    filled: int
    """Frames without a face, filled in from those around them."""


def read_arkit(path: Path) -> ArkitRecording:
    """Reads a CSV or JSON recording.

    Raises:
        ValueError: it is damaged, has no frames, none of ARKit's coefficients, or amounts that are no numbers from 0 to 1.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path}: no text file ({error}). Expected CSV or JSON with ARKit coefficients."
        ) from error
    rows, fps = _csv_rows(path, text) if path.suffix.lower() == ".csv" else _json_rows(path, text)
    if not rows:
        raise UserError(f"{path}: has no frames. Expected one row (CSV) or object (JSON) for each.")
    columns = list(dict.fromkeys(name for row in rows for name in row))
    by_name = {arkit: name for name in columns if (arkit := _ARKIT_BY_KEY.get(_key(name))) is not None}
    names = tuple(name for name in ARKIT_NAMES if name in by_name)
    if not names:
        raise UserError(
            f"{path}: none of ARKit's 52 coefficients in it, such as jawOpen or eyeBlinkLeft; found {_few(columns)}."
        )
    unused = tuple(name for name in columns if name not in by_name.values() and name not in _NO_COEFFICIENTS)
    amounts, filled = _table(path, rows, [by_name[name] for name in names])
    return ArkitRecording(path, names, amounts, fps, unused, filled)


def arkit_motion(recording: ArkitRecording, head: FlameAssets) -> tuple[FlameMotion, tuple[str, ...]]:
    """The motion of a head from a recording, with neck and head still.

    Returns:
        The motion, without a shape of its own (zeros); and what was mapped to what, for the user.

    Raises:
        ValueError: the head's expressions have no names.
    """
    if head.expression_names is None:
        raise UserError(
            f"{recording.source}: ARKit coefficients need a head whose expressions have ARKit's names, as the embedded open head's "
            f"have; those of {head.source.name} have none. Track the recording's video with VHAP and give its tracked_flame_params."
        )
    amount = dict(zip(recording.names, recording.amounts.T, strict=True))
    frames = len(recording.amounts)
    motion = FlameMotion.zeros(frames, head.shapedirs.shape[2], len(head.expression_names))
    expressions = [name for name in recording.names if name in head.expression_names and name != "jawOpen"]
    for name in expressions:
        motion.expr[:, head.expression_index(name)] = torch.from_numpy(amount[name])
    motion.jaw_pose[:, 0] = torch.from_numpy(JAW_OPEN * amount.get("jawOpen", np.zeros(frames, np.float32)))
    motion.eyes_pose[:] = gaze_of(amount, frames)
    joints = sum(name == "jawOpen" or name.startswith("eyeLook") for name in recording.names)
    what = f"{len(expressions)} move expressions of the same name" + (
        f", {joints} the jaw and the eyes" if joints else ""
    )
    mapped = [
        name
        for name in recording.names
        if name in expressions or name == "jawOpen" or name.startswith("eyeLook")
    ]
    return motion, arkit_notes(recording, mapped, what)


def gaze_of(amount: Mapping[str, Float[np.ndarray, " T"]], frames: int) -> Float[Tensor, "T 6"]:
    """Rotations of the left and the right eye, axis-angle in radians, from the amounts of eyeLook*."""
    none = np.zeros(frames, np.float32)
    eyes = torch.zeros(frames, 6)
    for first, side, outward in ((0, "Left", 1.0), (3, "Right", -1.0)):
        look = {way: amount.get(f"eyeLook{way}{side}", none) for way in ("Up", "Down", "In", "Out")}
        eyes[:, first] = torch.from_numpy(GAZE * (look["Down"] - look["Up"]))
        eyes[:, first + 1] = torch.from_numpy(GAZE * outward * (look["Out"] - look["In"]))
    return eyes


def arkit_notes(recording: ArkitRecording, mapped: Sequence[str], what: str) -> tuple[str, ...]:
    """Messages for the user: what the coefficients do (`what`), and which are missing or have no effect."""
    lines = [f"{len(recording.names)} of ARKit's {len(ARKIT_NAMES)} coefficients: {what}"]
    missing = [name for name in ARKIT_NAMES if name not in recording.names]
    unmapped = [name for name in recording.names if name not in mapped]
    for said, names in (
        ("not in the file", missing),
        ("not on this head", unmapped),
        ("not used", recording.unused),
    ):
        if names:
            lines.append(f"{said}: {', '.join(names)}")
    if recording.filled:
        lines.append(f"{recording.filled} frames without a face are filled in from those around them")
    return tuple(lines)


# -- the two formats ------------------------------------------------------------------------------------------------------


def _csv_rows(path: Path, text: str) -> tuple[list[dict[str, Any]], float | None]:
    try:
        lines = list(csv.reader(text.splitlines()))
    except csv.Error as error:
        raise UserError(f"{path}: no readable CSV ({error}).") from error
    if not lines:
        return [], None
    header = [name.strip() for name in lines[0]]
    repeated = [name for name, count in Counter(header).items() if count > 1 and name]
    if repeated:
        raise UserError(f"{path}: the column {repeated[0]!r} is there twice.")
    rows = []
    for number, line in enumerate(lines[1:], start=2):
        if not any(value.strip() for value in line):
            continue
        if len(line) > len(header):
            raise UserError(f"{path}: line {number} has {len(line)} values for {len(header)} columns.")
        # Live Link Face writes short rows where it lost the face.
        values = [value.strip() for value in line] + [""] * (len(header) - len(line))
        rows.append(dict(zip(header, values, strict=True)))
    return rows, _fps_of_timecodes([row.get("Timecode", "") for row in rows])


def _json_rows(path: Path, text: str) -> tuple[list[dict[str, Any]], float | None]:
    try:
        content = parse_json(text)
    except ValueError as error:
        raise UserError(f"{path}: not valid JSON: {error}.") from error
    fps = None
    if isinstance(content, dict):
        fps, content = content.get("fps"), content.get("frames")
    if not isinstance(content, list) or not all(isinstance(row, dict) for row in content):
        raise UserError(
            f'{path}: expected a list of objects, one a frame, such as [{{"jawOpen": 0.1, ...}}, ...], or an object with such a '
            'list under "frames".'
        )
    if fps is not None and not (isinstance(fps, (int, float)) and math.isfinite(fps) and fps > 0):
        raise UserError(f'{path}: "fps" is {fps!r}, expected a positive number.')
    return content, fps


def _fps_of_timecodes(codes: Sequence[str]) -> float | None:
    """Frames in a whole second, from timecodes `hours:minutes:seconds:frame`; None where they span no whole second."""
    seconds = Counter(code.rpartition(":")[0] for code in codes if code.count(":") == 3)
    # The first and the last second are cut off.
    whole = list(seconds.values())[1:-1]
    return float(median(whole)) if whole else None


def _table(
    path: Path, rows: Sequence[Mapping[str, Any]], columns: Sequence[str]
) -> tuple[Float[np.ndarray, "T columns"], int]:
    """The amounts of all frames, and how many had none."""
    table = np.full((len(rows), len(columns)), np.nan)
    for frame, row in enumerate(rows):
        if str(row.get(_LOST_COLUMN, "")) == "0" or all(row.get(column, "") == "" for column in columns):
            continue
        for number, column in enumerate(columns):
            table[frame, number] = _amount(path, frame, column, row.get(column, ""))
    found = np.flatnonzero(~np.isnan(table).any(axis=1))
    if not len(found):
        raise UserError(f"{path}: no frame of {len(rows)} shows a face.")
    for number in range(len(columns)):
        table[:, number] = np.interp(np.arange(len(rows)), found, table[found, number])
    return table.clip(0, 1).astype(np.float32), len(rows) - len(found)


def _amount(path: Path, frame: int, column: str, value: Any) -> float:
    try:
        amount = float(value) if not isinstance(value, bool) else math.nan
    except (TypeError, ValueError):
        amount = math.nan
    if not (math.isfinite(amount) and -_MOST <= amount <= _MOST):
        raise UserError(f"{path}: frame {frame} has {value!r} for {column}, expected a number from 0 to 1.")
    return amount


def _key(name: str) -> str:
    """One spelling for all: `eyeBlinkLeft`, `EyeBlinkLeft`, `eyeBlink_L` -> `eyeblinkleft`."""
    for short, side in (("_L", "Left"), ("_R", "Right")):
        if name.endswith(short):
            name = name[: -len(short)] + side
    return name.replace("_", "").replace(" ", "").lower()


_ARKIT_BY_KEY = {_key(name): name for name in ARKIT_NAMES}


def _few(names: Sequence[str], most: int = 8) -> str:
    shown = ", ".join(names[:most]) or "nothing"
    return shown if len(names) <= most else f"{shown}, ... ({len(names)} in all)"
