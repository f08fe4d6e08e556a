"""Which values of the panel's elements are taken from a page: those that the element itself would allow.

A page can be any program: that a slider ends at 2048 or that a list has three entries is known to viser's page alone, unless the
server looks as well.
"""

from __future__ import annotations

import math
import re
import unicodedata
from typing import Any

from viser import _messages
from viser._gui_handles import GuiDropdownHandle, _GuiInputHandle

LONGEST_TEXT = 4000
LONGEST_NAME = 200
LARGEST_UPLOAD = 2 * 2**30
"""Bytes of a file that is sent; it is held in memory."""
_TOLERANCE = 1e-6
"""Of limits, relative: numbers become float32 and decimal text on their way."""
_NAME = re.compile(r"[\w(][\w .,()+=-]*")
_PATH = re.compile(r"[\w /\\:.,()+=@~-]*")
_FORMS = {
    "Render name": (_NAME, "letters, digits, spaces, dots and dashes: it becomes the name of a file"),
    "Output Directory": (_PATH, "a path: it becomes part of a command"),
}
"""Texts of Nerfstudio's panels that become names of files and parts of commands, by their labels."""


def refusal(handle: _GuiInputHandle[Any], limits: Any, updates: dict[str, Any]) -> str | None:
    """Why an update is not taken; None if it is.

    Args:
        handle: the element.
        limits: the message that made it, which holds its range.
        updates: as the page sent them: new values by property.
    """
    state = handle._impl
    if set(updates) != {"value"}:
        return "a page sets values only"
    if state.disabled or not state.visible:
        return "it cannot be used now"
    return _refused_value(handle, limits, updates["value"])


def refused_upload(name: str, parts: int, size: int) -> str | None:
    """Why a file is not taken; None if it is.

    Args:
        name: that the browser says, without folders.
        parts: in how many messages it comes.
        size: bytes.
    """
    if not (0 < len(name) <= LONGEST_NAME) or _has_controls(name) or re.search(r"[/\\:]|^\.", name):
        return f"{name[:40]!a} is no name of a file"
    if not (0 < size <= LARGEST_UPLOAD and 0 < parts <= size):
        return f"a file of {size} bytes: at most {LARGEST_UPLOAD} are taken"
    return None


def _refused_value(handle: _GuiInputHandle[Any], limits: Any, value: Any) -> str | None:
    if handle._impl.is_button:
        is_upload = isinstance(limits, _messages.GuiAddUploadButtonMessage)
        return "files are sent in parts" if is_upload else None if value is True else "a button is pressed"
    if isinstance(handle, GuiDropdownHandle):
        return _refused_choice(value, handle.options)
    if isinstance(limits, _messages.GuiAddButtonGroupMessage):
        return _refused_choice(value, limits.options)
    current = handle._impl.value
    if isinstance(current, bool):
        return None if isinstance(value, bool) else "yes or no"
    if isinstance(current, str):
        return _refused_text(handle._impl.label, value)
    if isinstance(current, tuple):
        return _refused_vector(limits, value, len(current))
    return _refused_number(value, getattr(limits, "min", None), getattr(limits, "max", None))


def _refused_choice(value: Any, options: Any) -> str | None:
    return None if isinstance(value, str) and value in options else "it is none of the choices"


def _refused_text(label: str, value: Any) -> str | None:
    if not isinstance(value, str):
        return "it is no text"
    if len(value) > LONGEST_TEXT or _has_controls(value):
        return f"at most {LONGEST_TEXT} characters, none of which controls a terminal"
    form, words = _FORMS.get(label, (None, ""))
    if form is not None and not (form.fullmatch(value) and (form is not _NAME or len(value) <= LONGEST_NAME)):
        return words
    return None


def _refused_vector(limits: Any, value: Any, length: int) -> str | None:
    if not (isinstance(value, (tuple, list)) and len(value) == length):
        return f"{length} numbers"
    is_color = isinstance(limits, (_messages.GuiAddRgbMessage, _messages.GuiAddRgbaMessage))
    low, high = (0, 255) if is_color else (getattr(limits, "min", None), getattr(limits, "max", None))
    for place, entry in enumerate(value):
        ends = [end[place] if isinstance(end, (tuple, list)) else end for end in (low, high)]
        if reason := _refused_number(entry, *ends):
            return reason
    return None


def _refused_number(value: Any, low: float | None, high: float | None) -> str | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        return "it is no number"
    slack = _TOLERANCE * max(abs(low or 0), abs(high or 0), 1)
    if (low is not None and value < low - slack) or (high is not None and value > high + slack):
        return f"it is not in [{low}, {high}]"
    return None


def _has_controls(text: str) -> bool:
    return any(unicodedata.category(letter) in ("Cc", "Cs", "Zl", "Zp") for letter in text)
