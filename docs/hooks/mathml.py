"""MkDocs hook: formulas become MathML when the site is built, so that pages need neither scripts nor a network to show them."""

from __future__ import annotations

import html
import re
from typing import Any

from latex2mathml.converter import convert

_FORMULA = re.compile(r'<(span|div) class="arithmatex">\\([(\[])(.*?)\\[)\]]</\1>', re.DOTALL)
"""What pymdownx.arithmatex writes: `\\(...\\)` in a line of text, `\\[...\\]` on a line of its own."""


def on_page_content(content: str, **_: Any) -> str:
    """Returns the page's HTML with MathML in place of LaTeX."""
    return _FORMULA.sub(_mathml, content)


def _mathml(match: re.Match[str]) -> str:
    tag, bracket, latex = match.groups()
    display = "block" if bracket == "[" else "inline"
    return f'<{tag} class="formula">{convert(html.unescape(latex), display=display)}</{tag}>'
