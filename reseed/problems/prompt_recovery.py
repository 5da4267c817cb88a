"""Prompt recovery: given a text and its rewrite, name the prompt that turned one into the other.

Metric: sharpened cosine similarity (SCS), `cos(e(answer), e(truth)) ** 3`, the mean over rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from reseed.records import Row

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from reseed.problems import Embed

QUOTES = {('"', '"'), ("'", "'"), ("“", "”")}
QUESTION = "The most likely prompt given to transform the original text into the rewritten text was:"

columns = ("original_text", "rewritten_text", "rewrite_prompt")
prompt_column = "rewrite_prompt"
metric = "scs"
higher_is_better = True


def request(source: str, instruction: str) -> str:
    """The contest host's prompt for Gemma: the rewrite prompt without its final full stop, then the text."""
    return f'{instruction.removesuffix(".")}: """{source}"""'


def row(source: str, instruction: str, answer: str) -> Row:
    """The answer as the rewritten text."""
    return {"original_text": source, "rewritten_text": answer.strip(), "rewrite_prompt": instruction}


def refuse(row: Row) -> str | None:
    """A blank field, or a rewrite that left the text as it was."""
    if not all(row[column].strip() for column in columns):
        return "empty"
    if " ".join(row["rewritten_text"].split()) == " ".join(row["original_text"].split()):
        return "unchanged"
    return None


def prompt(row: Row) -> str:
    """Both texts and the question."""
    return (
        f"Original text:\n{row['original_text'].strip()}\n\n"
        f"Rewritten text:\n{row['rewritten_text'].strip()}\n\n{QUESTION}"
    )


def completion(row: Row) -> str:
    """The prompt to be recovered, after a space."""
    return f" {row['rewrite_prompt'].strip()}"


def shorten(row: Row, keep: float) -> Row:
    """Keep the first words of both texts: the beginning says most about a text's style."""
    short = {}
    for column in ("original_text", "rewritten_text"):
        words = row[column].split()
        short[column] = " ".join(words[: max(1, int(len(words) * keep))])
    return {**row, **short}


def parse(text: str) -> str:
    """The first line that is not blank, without quotes around it."""
    for line in text.splitlines():
        answer = line.strip()
        if len(answer) > 1 and (answer[0], answer[-1]) in QUOTES:
            answer = answer[1:-1].strip()
        if answer.strip("\"'“”"):
            return answer
    return ""


def blend(answers: Sequence[str]) -> str:
    """All distinct answers joined, as in the contest's best notebooks."""
    return " ".join(dict.fromkeys(answer for answer in answers if answer))


def scores(answers: Sequence[str], rows: Sequence[Row], embed: Embed) -> NDArray[np.float64]:
    """The SCS of each row, shape (rows,). A blank answer counts as a lone full stop, as in the contest."""
    import numpy as np

    answered = embed([answer or "." for answer in answers]).astype(np.float64)
    wanted = embed([row["rewrite_prompt"] for row in rows]).astype(np.float64)
    return np.asarray((answered * wanted).sum(axis=1) ** 3)
