"""Texts that others wrote (rows, models' answers, names in a store), made fit for a terminal, a log and a page."""

from __future__ import annotations

import unicodedata


def one_line(text: str, limit: int | None = None) -> str:
    """The text on one line without control characters, cut to `limit` characters with an ellipsis: for a label or a cell."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return line if limit is None or len(line) <= limit else line[: limit - 1].rstrip() + "…"


def visible(text: str) -> str:
    """The text with its control characters as codes, which a terminal would obey; lines and tabs stay: for a message.

    Those that turn the direction of writing are codes too: they show a text other than the one that is there.
    """
    return "".join(c.encode("unicode_escape", "backslashreplace").decode() if obeyed(c) else c for c in text)


def obeyed(character: str) -> bool:
    """True for what does something where it should be seen."""
    kind = unicodedata.category(character)
    turns = character in "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
    return character not in "\n\t" and (kind in ("Cc", "Cs", "Zl", "Zp") or turns)
