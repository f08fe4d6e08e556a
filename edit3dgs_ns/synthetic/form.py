"""What an edit adds to a person's geometry, or takes from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Form:
    """Changes of a person's own form; the default changes nothing."""

    beard: Literal["none", "short", "full"] = "none"
    """A beard of locks that grow from the skin and move with the jaw."""
    glasses: Literal["none", "clear", "dark"] = "none"
    """Frames without lenses, or with dark ones; rigid with the skull."""
    hat: bool = False
    """A knitted hat, rigid with the skull; it presses the hair below it."""
    hair: Literal["own", "bald", "long"] = "own"
    """The person's own cut, none, or long hair that falls onto the shoulders."""
    nose: float = 0.0
    """0 the own nose, 1 a much bigger one."""
    ears: float = 0.0
    """0 the own ears, 1 ears drawn out to points."""
    age: float = 0.0
    """0 the own age, 1 about eighty years: slack skin with fine creases, thin lips, receding hair."""


PLAIN = Form()
"""A person's own form."""
