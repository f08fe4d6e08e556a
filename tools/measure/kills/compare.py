"""What has to be the same after a kill and what came after it, and what a kill may not leave under a final name."""

from __future__ import annotations

import hashlib
import json
import zipfile
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from tools.measure.checkout import make_tests_importable

_TIMES = ("seconds", "peak_memory_gb", "unet_evaluations")
"""Of a round: not what it made, but what that cost, of which a killed run has paid a part."""


def edits_in(folder: Path) -> dict[str, str]:
    """Edits that are stored in a folder of runs: those with a record, by name, with the checksum of the image."""
    found = {}
    for record in folder.glob("runs/*/edit3dgs/run/edits/*/[0-9]*.json"):
        image = record.with_suffix(".png")
        found[record.stem] = hashlib.sha256(image.read_bytes()).hexdigest()
    return found


def differences(one: Path, other: Path) -> list[str]:
    """What differs between two folders of finished work, in words; nothing if they are the same bit for bit."""
    make_tests_importable()
    from tests.edit_runs import differing_leaves

    found = []
    runs = [next(folder.glob("runs/*/edit3dgs/run")) for folder in (one, other)]
    checkpoints = [next(run.glob("nerfstudio_models/*.ckpt")) for run in runs]
    contents = [torch.load(path, weights_only=True) for path in checkpoints]
    found += [f"checkpoint: {name}" for name in differing_leaves(*contents)]
    if edits_in(one) != edits_in(other):
        found.append("edits")
    if _rounds(runs[0]) != _rounds(runs[1]):
        found.append("edit_history.json")
    if _versions(runs[0]) != _versions(runs[1]):
        found.append("history.json")
    for name in ("export/point_cloud.ply", "export/flame_param.npz", "avatar.html"):
        if (one / name).read_bytes() != (other / name).read_bytes() and not _same_arrays(
            one / name, other / name
        ):
            found.append(name)
    if _frames(one / "orbit.mp4") != _frames(other / "orbit.mp4"):
        found.append("orbit.mp4")
    return found


def torn(folder: Path) -> list[str]:
    """Files under a final name that cannot be read as what they are."""
    return [
        str(path.relative_to(folder))
        for path in sorted(folder.rglob("*"))
        if path.is_file() and _is_torn(path)
    ]


def _is_torn(path: Path) -> bool:
    if ".part" in path.name or any(part.endswith(".part") for part in path.parts):
        return False  # no final name
    try:
        if path.suffix == ".ckpt":
            torch.load(path, weights_only=True)
        elif path.suffix == ".npz":
            return zipfile.ZipFile(path).testzip() is not None
        elif path.suffix == ".png":
            Image.open(path).load()
        elif path.suffix == ".json":
            json.loads(path.read_text(encoding="utf-8"))
        elif path.suffix == ".mp4":
            return not _frames(path)
        elif path.suffix == ".html":
            return not path.read_text(encoding="utf-8").rstrip().endswith("</html>")
        elif path.suffix == ".ply":
            from edit3dgs_ns.splats.ply import read_bound_ply

            read_bound_ply(path)
    except Exception:  # whatever a reader says of what is no such file
        return True
    return False


def _rounds(run: Path) -> dict[str, Any]:
    content = json.loads((run / "edit_history.json").read_text())
    for table in (content, *content["batches"]):
        for name in _TIMES:
            table.pop(name, None)
    return dict(content)


def _versions(run: Path) -> list[Any]:
    content = json.loads((run / "history" / "history.json").read_text())
    versions = [(v["number"], v["parent"], v["prompt"], v["step"]) for v in content["versions"]]
    return [content["current"], content["pending"], *versions]


def _same_arrays(one: Path, other: Path) -> bool:
    """npz files hold the time at which they were written."""
    import numpy as np

    if one.suffix != ".npz":
        return False
    tables = [np.load(path) for path in (one, other)]
    return sorted(tables[0]) == sorted(tables[1]) and all(
        np.array_equal(tables[0][name], tables[1][name]) for name in tables[0]
    )


def _frames(path: Path) -> list[bytes]:
    import av

    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24").tobytes() for frame in container.decode(video=0)]
