"""Mistakes in a recipe or profile as messages: all at once, each with its key, the value seen and the nearest name."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

from pydantic import BaseModel, ValidationError

from reseed.credentials import without_credentials


def mistake_list(where: str, lines: Sequence[str]) -> str:
    """One message for several mistakes, a line each."""
    return "\n  ".join([f"{where}: {len(lines)} mistake{'s' if len(lines) > 1 else ''}", *lines])


def mistakes(error: ValidationError, model: type[BaseModel]) -> list[str]:
    """A validation error as lines: key, what is wrong, the value seen, and the nearest valid name."""
    lines = []
    for mistake in error.errors():
        place = tuple(str(part) for part in mistake["loc"])
        key = ".".join(place)
        message = mistake["msg"].removeprefix("Value error, ")
        if mistake["type"] == "extra_forbidden":
            known = field_names(model, place[:-1])
            lines.append(f"{key}: unknown key{nearest(place[-1], known)}; known here: {', '.join(known)}")
        elif mistake["type"] == "missing":
            lines.append(f"{key}: missing")
        elif not place:
            lines += message.splitlines()  # from the model's own validators, which begin each line with a key
        else:
            seen = (
                ""
                if isinstance(mistake["input"], dict | BaseModel)
                else f", saw {without_credentials(repr(mistake['input']))}"
            )
            lines.append(f"{key}: {message}{seen}")
    return lines


def field_names(model: type[BaseModel], place: tuple[str, ...]) -> list[str]:
    """The valid keys at a place inside a model."""
    for part in place:
        annotation = model.model_fields[part].annotation if part in model.model_fields else None
        options = [annotation, *getattr(annotation, "__args__", ())]
        model = next((o for o in options if isinstance(o, type) and issubclass(o, BaseModel)), model)
    return list(model.model_fields)


def nearest(name: str, known: list[str]) -> str:
    """` (did you mean 'x'?)`, or an empty text if nothing is near."""
    close = difflib.get_close_matches(name, known, n=1)
    return f" (did you mean '{close[0]}'?)" if close else ""


def first_line(error: BaseException) -> str:
    """The first line of an error's text."""
    return str(error).strip().split("\n")[0][:200]
