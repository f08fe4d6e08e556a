"""What a claim of the documentation is, and how it is compared with what was measured.

A claim is a piece of the text of the README or of a page of docs/, with names in braces in place of its figures. The text itself
stays on its page; whoever changes a sentence with a figure there is told to change the claim too.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

NUMBER = r"([+\-−]?\d[\d,]*(?:\.\d+)?)"
"""A figure as the pages write it: 87,000 or 0.0123."""

Verdict = Literal["holds", "differs", "not measured", "not written"]


@dataclass(frozen=True)
class Figure:
    """Where the measured value of a figure is, and how near the written one has to be."""

    file: str
    """JSON file below the folder of the results."""
    value: Callable[[Any], float]
    """Finds it in the file's content. KeyError, IndexError, TypeError: it has not been measured."""
    kind: Literal["about", "at least", "at most"] = "about"
    """Whether the value itself is written or a bound of it."""
    tolerance: float = 0.0
    """Of a value: how far the written one may be off, beyond its rounding."""
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
    """A piece of text with figures, on one page or several."""

    text: str
    """With `{name}` for each of them. White space counts as one blank, so that lines may be wrapped anywhere."""
    figures: Mapping[str, Figure]

    @property
    def pattern(self) -> re.Pattern[str]:
        """Finds it on a page; a group for every figure, in order."""
        parts = re.split(r"\{(\w+)\}", self.text)
        escaped = [NUMBER if place % 2 else _spaced(part) for place, part in enumerate(parts)]
        return re.compile("".join(escaped))

    @property
    def names(self) -> list[str]:
        """Of its figures, in order."""
        return re.findall(r"\{(\w+)\}", self.text)


@dataclass(frozen=True)
class Checked:
    """One figure on one page."""

    page: str
    """Its name; empty where no page has the claim."""
    text: str
    name: str
    verdict: Verdict
    written: str = ""
    measured: float | None = None


def read_pages(root: Path) -> dict[str, str]:
    """Texts of the README and of the pages of docs/, by their paths below `root`."""
    paths = [root / "README.md", *sorted((root / "docs").glob("*.md"))]
    return {path.relative_to(root).as_posix(): path.read_text(encoding="utf-8") for path in paths}


def check(pages: Mapping[str, str], claims: Sequence[Claim], content: Mapping[str, Any]) -> list[Checked]:
    """Compares every figure of the claims, on every page that has it, with what was measured.

    Args:
        pages: their texts, by name.
        claims: each is on one page at least.
        content: of the JSON files, by name; a file that is not there is not in it.

    Raises:
        ValueError: a claim names other figures than it has, or fits two places of a page.
    """
    found = []
    for claim in claims:
        if sorted(claim.names) != sorted(claim.figures):
            raise ValueError(f"figures {sorted(claim.figures)} do not fit the names in {claim.text!r}")
        measured = {name: _measured(claim.figures[name], content) for name in claim.names}
        places = {name: place for name, text in pages.items() if (place := _only_place(claim, name, text))}
        for page, place in places.items():
            for written, (name, value) in zip(place.groups(), measured.items(), strict=True):
                verdict = _verdict(claim.figures[name], written, value)
                found.append(Checked(page, claim.text, name, verdict, written, value))
        if not places:
            found += [
                Checked("", claim.text, name, "not written", measured=value)
                for name, value in measured.items()
            ]
    return found


def _only_place(claim: Claim, page: str, text: str) -> re.Match[str] | None:
    places = list(claim.pattern.finditer(text))
    if len(places) > 1:
        raise ValueError(f"{page} says {claim.text!r} in {len(places)} places: take a longer piece")
    return places[0] if places else None


def without_claim(page: str, claims: Sequence[Claim], others: Sequence[str]) -> list[str]:
    """Figures with a unit that no claim holds: they would never be measured again.

    Args:
        page: its whole text.
        claims: what is measured.
        others: pieces of text whose figures are no measurements (what to install, what a format has).
    """
    text = re.sub(r"(?ms)^```.*?^```", lambda code: " " * len(code.group()), page)
    held = [place.span() for claim in claims for place in claim.pattern.finditer(page)]
    held += [place.span() for other in others for place in re.finditer(_spaced(other), page)]
    unit = r"\s*(?:dB|%|[GMk]B|ms\b|seconds?\b|minutes?\b|frames a second|times\b|\|)"
    return [
        _around(page, place)
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
