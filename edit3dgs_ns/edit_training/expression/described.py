"""Words for the expression that an edit has given, for lists of versions."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edit3dgs_ns.edit_training.versions import Version

_STRONGEST = 3
"""Parts of an expression that are named."""


def described_expression(version: Version) -> str:
    """What an edit added to the resting expression, its strongest parts: "mouthSmileLeft 0.90, ... x 0.5"."""
    expression = version.options.get("expression")
    offset = expression.get("offset") if isinstance(expression, dict) else None
    if not isinstance(expression, dict) or not isinstance(offset, dict):
        return ""
    numbers = {name: amount for name, amount in offset.items() if isinstance(amount, (int, float))}
    words = ", ".join(f"{name} {amount:.2f}" for name, amount in list(numbers.items())[:_STRONGEST])
    more = ", ..." if len(numbers) > _STRONGEST else ""
    scale = expression.get("scale", 1.0)
    return f"{words}{more}" + (f" x {scale:g}" if isinstance(scale, (int, float)) and scale != 1 else "")
