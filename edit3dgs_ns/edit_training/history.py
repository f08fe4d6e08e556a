"""The record of a run's edits, `edit_history.json` in its folder."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edit3dgs_ns.files import write_durably

HISTORY_FILE = "edit_history.json"


@dataclass
class History:
    """What a run has edited, kept as a file in its folder."""

    path: Path
    prompt: str
    rounds_planned: int
    base_steps: int
    editor: dict[str, Any]
    loss: str = ""
    """What the edits are fitted with."""
    converged_after: int | None = None
    """Rounds completed when the run converged; None if it has not."""
    batches: list[dict[str, Any]] = field(default_factory=list)
    finished: bool = False

    def read_batches(self, other: Path) -> None:
        """Go on with the history of the run that is resumed."""
        if other.is_file():
            batches = json.loads(other.read_text(encoding="utf-8")).get("batches", [])
            self.batches = [b for b in batches if isinstance(b, dict) and isinstance(b.get("round"), int)]

    def add(self, batch: dict[str, Any]) -> None:
        """A round is done; an earlier record of the same round is replaced."""
        self.batches = sorted(
            [b for b in self.batches if b["round"] != batch["round"]] + [batch], key=lambda b: b["round"]
        )
        self.save()

    def left_out(self, number: int) -> set[int]:
        """Views of a round of which no edit was accepted."""
        return {
            entry["view"]
            for batch in self.batches
            if batch["round"] == number
            for entry in batch.get("judged", {}).get("left_out", [])
        }

    def _judged(self) -> dict[str, Any]:
        """What the judge did in all rounds."""
        records = [b["judged"] for b in self.batches if "judged" in b]
        refused: Counter[str] = sum((Counter(record["refused"]) for record in records), Counter())
        return {
            "refused": dict(refused),
            "mended": sum(record["mended"] for record in records),
            "edited_again": sum(record["edited_again"] for record in records),
            "left_out": sum(len(record["left_out"]) for record in records),
        }

    def save(self) -> None:
        """Write the file."""
        content = {
            "prompt": self.prompt,
            "rounds": len(self.batches),
            "rounds_planned": self.rounds_planned,
            "edited_images": sum(len(_edited(b)) for b in self.batches),
            "distinct_images": len({view for b in self.batches for view in _edited(b)}),
            "base_steps": self.base_steps,
            "finished": self.finished,
            "converged_after": self.converged_after,
            "loss": self.loss,
            "seconds": round(sum(b.get("seconds", 0.0) for b in self.batches), 2),
            "unet_evaluations": sum(b.get("unet_evaluations", 0) for b in self.batches),
            "judged": self._judged(),
            "editor": self.editor,
            "batches": self.batches,
        }
        write_durably(self.path, (json.dumps(content, indent=1) + "\n").encode())


def _edited(batch: dict[str, Any]) -> list[int]:
    """The views of a round that have an edit."""
    without = {entry["view"] for entry in batch.get("judged", {}).get("left_out", [])}
    return [view for view in batch["views"] if view not in without]
