"""What a claim of the README is, and how it is held against what was measured.

A claim is a piece of the README's text with names in braces in place of its figures. So the text stays in one place, the README;
whoever changes a sentence with a figure there is told to change it here too.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

NUMBER = r"([+\-−]?\d[\d,]*(?:\.\d+)?)"
"""A figure as the README writes it: 87,000 or 0.0123."""

Verdict = Literal["holds", "differs", "not measured", "not in the README"]


@dataclass(frozen=True)
class Figure:
    """Where the measured value of a figure is, and how near the README has to be."""

    file: str
    """JSON file below the folder of the results."""
    value: Callable[[Any], float]
    """Finds it in the file's content. KeyError, IndexError, TypeError: it has not been measured."""
    kind: Literal["about", "at least", "at most"] = "about"
    """Whether the README gives the value itself or a bound of it."""
    tolerance: float = 0.0
    """Of a value: how far the README may be off, beyond its rounding."""
    share: float = 0.0
    """The same as a share of what is written, for times."""

    def holds(self, written: float, rounding: float, measured: float) -> bool:
        """Whether what is written is what was measured."""
        if self.kind == "at least":
            return measured >= written
        if self.kind == "at most":
            return measured <= written
        return abs(measured - written) <= self.tolerance + self.share * written + rounding + 1e-9


@dataclass(frozen=True)
class Claim:
    """A piece of the README with figures."""

    text: str
    """With `{name}` for each of them. White space counts as one blank, so that lines may be wrapped anywhere."""
    figures: Mapping[str, Figure]

    @property
    def pattern(self) -> re.Pattern[str]:
        """Finds it in the README; a group for every figure, in order."""
        parts = re.split(r"\{(\w+)\}", self.text)
        escaped = [NUMBER if place % 2 else _spaced(part) for place, part in enumerate(parts)]
        return re.compile("".join(escaped))

    @property
    def names(self) -> list[str]:
        """Of its figures, in order."""
        return re.findall(r"\{(\w+)\}", self.text)


@dataclass(frozen=True)
class Checked:
    """One figure of the README."""

    text: str
    name: str
    verdict: Verdict
    written: str = ""
    measured: float | None = None


def check(readme: str, claims: Sequence[Claim], content: Mapping[str, Any]) -> list[Checked]:
    """Hold every figure of the claims against what was measured.

    Args:
        readme: its whole text.
        claims: what is in it.
        content: of the JSON files, by name; a file that is not there is not in it.

    Raises:
        ValueError: a claim names other figures than it has, or fits two places of the README.
    """
    found = []
    for claim in claims:
        if sorted(claim.names) != sorted(claim.figures):
            raise ValueError(f"figures {sorted(claim.figures)} do not fit the names in {claim.text!r}")
        places = list(claim.pattern.finditer(readme))
        if len(places) > 1:
            raise ValueError(f"the README says {claim.text!r} in {len(places)} places: take a longer piece")
        for number, name in enumerate(claim.names):
            figure = claim.figures[name]
            measured = _measured(figure, content)
            if not places:
                found.append(Checked(claim.text, name, "not in the README", measured=measured))
                continue
            written = places[0].group(number + 1)
            found.append(Checked(claim.text, name, _verdict(figure, written, measured), written, measured))
    return found


def without_claim(readme: str, claims: Sequence[Claim], others: Sequence[str]) -> list[str]:
    """Figures with a unit that no claim holds: they would never be measured again.

    Args:
        readme: its whole text.
        claims: what is measured.
        others: pieces of the README whose figures are no measurements (what to install, what a format has).
    """
    text = re.sub(r"(?ms)^```.*?^```", lambda code: " " * len(code.group()), readme)
    held = [place.span() for claim in claims for place in claim.pattern.finditer(readme)]
    held += [place.span() for other in others for place in re.finditer(_spaced(other), readme)]
    unit = r"\s*(?:dB|%|[GMk]B|ms\b|seconds?\b|minutes?\b|frames a second|times\b|\|)"
    return [
        _around(readme, place)
        for place in re.finditer(rf"(?<![\w.`]){NUMBER}(?={unit})", text)
        if not any(start <= place.start() < end for start, end in held)
    ]


def _spaced(text: str) -> str:
    """A regular expression of a text in which any white space matches any other."""
    return r"\s+".join(re.escape(word) for word in re.split(r"\s+", text))


def _measured(figure: Figure, content: Mapping[str, Any]) -> float | None:
    try:
        value = figure.value(content[figure.file])
    except (KeyError, IndexError, TypeError):
        return None
    return None if value is None else float(value)


def _verdict(figure: Figure, written: str, measured: float | None) -> Verdict:
    if measured is None:
        return "not measured"
    digits = len(written.partition(".")[2])
    value = float(written.replace(",", "").replace("−", "-"))
    return "holds" if figure.holds(value, 0.5 * 10.0**-digits, measured) else "differs"


def _around(text: str, place: re.Match[str]) -> str:
    start, end = max(0, place.start() - 40), place.end() + 25
    return " ".join(text[start:end].split())
