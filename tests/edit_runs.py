"""Runs of `ns-train edit3dgs` within a test's process; their fixtures are in tests/conftest.py."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from edit3dgs_ns.editing.editor import EditRequest, EditResult

PROMPT = "Make him look older"


def train(config: Any) -> Any:
    """What `ns-train` does with a config; returns the trainer."""
    from nerfstudio.scripts.train import _set_random_seed
    from nerfstudio.utils import writer

    writer.EVENT_WRITERS.clear()
    writer.EVENT_STORAGE.clear()
    _set_random_seed(config.machine.seed)
    config.set_timestamp()
    config.save_config()
    trainer = config.setup(local_rank=0, world_size=1)
    trainer.setup()
    trainer.train()
    return trainer


def store_of(run: Path) -> Any:
    """The one store in a run's folder."""
    from edit3dgs_ns.editing.store import EditStore

    (folder,) = (run / "edits").iterdir()
    return EditStore(folder, json.loads((folder / "manifest.json").read_text())["settings"])


def history_of(run: Path) -> dict[str, Any]:
    """What the run has written about its edits."""
    return json.loads((run / "edit_history.json").read_text())


def checkpoint_of(run: Path) -> dict[str, Any]:
    """The content of its one checkpoint."""
    (path,) = (run / "nerfstudio_models").glob("*.ckpt")
    return torch.load(path, weights_only=True)


def same_run(one: Path, other: Path) -> None:
    """Both runs have stored the same edits and ended with the same weights and optimizers, bit for bit."""
    stores = store_of(one), store_of(other)
    assert stores[0].edits() == stores[1].edits()
    for key in stores[0].edits():
        np.testing.assert_array_equal(stores[0].get(key), stores[1].get(key), err_msg=str(key))
    ends = checkpoint_of(one), checkpoint_of(other)
    assert ends[0]["step"] == ends[1]["step"]
    parts = [{name: end[name] for name in ("pipeline", "optimizers")} for end in ends]
    assert not differing_leaves(*parts)
    measured = [
        [(b["views"], b["change"], b["correction"]) for b in history_of(run)["batches"]]
        for run in (one, other)
    ]
    assert measured[0] == measured[1]


def leaves_of(content: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """The values of nested dicts and lists, by where they are."""
    items = content.items() if isinstance(content, dict) else enumerate(content)
    for name, value in items:
        if isinstance(value, (dict, list, tuple)):
            yield from leaves_of(value, f"{path}/{name}")
        else:
            yield f"{path}/{name}", value


def differing_leaves(one: Any, other: Any) -> list[str]:
    """Where nested dicts and lists of tensors and values differ in any bit."""
    leaves = [dict(leaves_of(content)) for content in (one, other)]
    names = sorted({*leaves[0], *leaves[1]})
    return [name for name in names if not _equal(leaves[0].get(name), leaves[1].get(name))]


def _equal(one: Any, other: Any) -> bool:
    return torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other


class PulledPlug(BaseException):
    """Stands in for a crash: nobody catches it."""


class GreenEditor:
    """An editor whose result is known: everything but the white background turns green."""

    settings: ClassVar[dict[str, Any]] = {"editor": "green"}
    views_depend = False

    def unknown_instruction(self, prompt: str) -> None:
        """Knows every prompt."""

    def edit(self, request: EditRequest, progress: Any = None, finished: Any = None) -> EditResult:
        """Of the originals; the current renders do not matter."""
        green = np.array([0.3, 1.0, 0.3], np.float32)
        return EditResult(images=request.originals * green ** shows_head(request.originals))


def shows_head(images: np.ndarray) -> np.ndarray:
    """1 where images on white show something, with a last axis of 1."""
    return (images.min(axis=-1, keepdims=True) < 0.97).astype(np.float32)
