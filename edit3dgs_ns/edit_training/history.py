"""The record of a run's edits, `edit_history.json` in its folder."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from edit3dgs_ns.errors import UserError
from edit3dgs_ns.files import write_durably
from edit3dgs_ns.untrusted import parse_json

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
        """Go on with the history of the run that is resumed.

        Raises:
            ValueError: that file is damaged.
        """
        if not other.is_file():
            return
        try:
            batches = parse_json(other.read_text(encoding="utf-8")).get("batches", [])
            kept = [b for b in batches if isinstance(b, dict) and isinstance(b.get("round"), int)]
            replace(self, batches=kept)._content()  # can be gone on with
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise UserError(
                f"{other} is damaged ({type(error).__name__}: {str(error)[:200]}). Move it away: the run goes on, without the "
                "record of its earlier rounds."
            ) from error
        self.batches = kept

    def add(self, batch: dict[str, Any]) -> None:
        """A round is done; an earlier record of the same round is replaced."""
        self.batches = sorted(
            [b for b in self.batches if b["round"] != batch["round"]] + [batch], key=lambda b: b["round"]
        )
        self.save()

    def has(self, number: int) -> bool:
        """Whether a round is recorded."""
        return any(batch["round"] == number for batch in self.batches)

    def note(self, number: int, more: dict[str, Any]) -> None:
        """Adds to the record of a round."""
        for batch in self.batches:
            if batch["round"] == number:
                batch.update(more)
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

    @property
    def expression(self) -> dict[str, Any] | None:
        """What the edit added to the resting expression; None for nothing."""
        records = [b["expression"] for b in self.batches if b.get("expression", {}).get("accepted")]
        return {"offset": records[-1]["offset"], "scale": 1.0} if records else None

    def save(self) -> None:
        """Write the file."""
        write_durably(self.path, (json.dumps(self._content(), indent=1) + "\n").encode())

    def _content(self) -> dict[str, Any]:
        return {
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
            **({} if self.expression is None else {"expression": self.expression}),
            "editor": self.editor,
            "batches": self.batches,
        }


def _edited(batch: dict[str, Any]) -> list[int]:
    """The views of a round that have an edit."""
    without = {entry["view"] for entry in batch.get("judged", {}).get("left_out", [])}
    return [view for view in batch["views"] if view not in without]
