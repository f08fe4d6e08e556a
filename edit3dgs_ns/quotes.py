"""Typographic quotes on a command line: shells know straight quotes alone, and take what stands between others apart.

They come from text processors and web pages, where a command was copied from.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from edit3dgs_ns.errors import UserError

TEXT_OPTIONS = ("--prompt", "--source-caption", "--target-caption", "--title")
"""Options whose values are sentences."""
OPENING = "“”„‟«»‹›‘‚"
"""Without the apostrophe ’, with which a word can begin: ’80s."""
CLOSING = "“”«»‹›‘’"


def check_quotes(program: str, arguments: Sequence[str]) -> None:
    """Raises a ValueError for a text between typographic quotes; the message shows the command with straight ones.

    Args:
        program: what was called, for the message.
        arguments: the words after it, as the shell has split them.
    """
    words = [part for word in arguments for part in _split_option(word)]
    corrected: list[str] = []
    found: list[tuple[str, str]] = []
    position = 0
    while position < len(words):
        corrected.append(words[position])
        position += 1
        if corrected[-1] in TEXT_OPTIONS and position < len(words) and words[position][:1] in tuple(OPENING):
            end = _end_of_text(words, position)
            text = " ".join(words[position:end])
            found.append((corrected[-1], text))
            corrected.append(text.strip(OPENING + CLOSING))
            position = end
    if found:
        option, text = found[0]
        raise UserError(
            f"{option} {text}: these quotes are typographic ({text[0]} {text[-1]}), which a shell does not know: it takes the "
            f"words between them apart. With straight quotes: {program} {shlex.join(corrected)}"
        )


def stop_ns_train() -> None:
    """Ends this process with a message if it is an `ns-train edit3dgs` with a prompt between typographic quotes.

    Nerfstudio parses its command line, and would say of the words between them that it does not know them.
    """
    if Path(sys.argv[0]).stem != "ns-train" or sys.argv[1:2] != ["edit3dgs"]:
        return
    try:
        check_quotes("ns-train", sys.argv[1:])
    except UserError as error:
        from edit3dgs_ns.console import print_error

        print_error(str(error))
        sys.exit(2)


def _split_option(word: str) -> list[str]:
    option, equals, value = word.partition("=")
    return [option, value] if equals and option in TEXT_OPTIONS else [word]


def _end_of_text(words: Sequence[str], start: int) -> int:
    """The position after the word that closes the text; without one, after the last word before another option."""
    for position in range(start, len(words)):
        if words[position].startswith("--") and position > start:
            return position
        closes = words[position][-1:] in tuple(CLOSING)
        if closes and (position > start or len(words[position]) > 1):
            return position + 1
    return len(words)
