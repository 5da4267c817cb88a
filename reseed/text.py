"""Texts from outside (rows, models' answers, names in a store) made safe for terminals, logs and pages."""

from __future__ import annotations

import unicodedata


def one_line(text: str, limit: int | None = None) -> str:
    """The text on one line without control characters, cut to `limit` characters with an ellipsis, for a label or cell."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return line if limit is None or len(line) <= limit else line[: limit - 1].rstrip() + "…"


def visible(text: str) -> str:
    """The text for a message, with the control characters that a terminal would obey as codes; newlines and tabs stay.

    Characters that change the direction of writing become codes too: with them a text looks like another one.
    """
    return "".join(c.encode("unicode_escape", "backslashreplace").decode() if obeyed(c) else c for c in text)


def obeyed(character: str) -> bool:
    """True for a character that a terminal would act on instead of showing it."""
    kind = unicodedata.category(character)
    turns = character in "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
    return character not in "\n\t" and (kind in ("Cc", "Cs", "Zl", "Zp") or turns)
