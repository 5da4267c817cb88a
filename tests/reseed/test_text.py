from __future__ import annotations

from reseed.text import one_line, visible

ATTACK = "[red]x[/red]\x1b[2J\x9b1m\r\u202egnp.\u2066\x00end"


def test_what_a_terminal_would_obey_is_shown() -> None:
    assert visible(ATTACK) == "[red]x[/red]\\x1b[2J\\x9b1m\\r\\u202egnp.\\u2066\\x00end"
    assert visible("a\tb\nc — “é” 字 👩‍🚀") == "a\tb\nc — “é” 字 👩‍🚀"


def test_a_label_is_one_line_of_at_most_so_many_characters() -> None:
    assert one_line(ATTACK) == "[red]x[/red] [2J 1m gnp. end"
    assert one_line("a\n\n\tb\u2028c") == "a b c"
    assert one_line("one two three", 8) == "one two…"
    assert one_line("one two", 7) == "one two"
