"""`outputs/trust.json`: several campaigns write their part of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from edit3dgs_ns.files import write_durably

OUTPUT = Path(__file__).resolve().parents[2] / "outputs" / "trust.json"


def merge(part: str, figures: dict[str, Any], path: Path = OUTPUT) -> None:
    """Writes one campaign's figures and keeps those of the others."""
    content = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    write_durably(path, (json.dumps(content | {part: figures}, indent=1) + "\n").encode())
