"""A day's results as tables of Markdown."""

from __future__ import annotations

from typing import Any


def tables(day: dict[str, Any]) -> str:
    """Every section's table under its name."""
    parts = [f"{day['device']}, commit {day['commit']}, {day['date']}; the command was `{day['command']}`."]
    for name, section in day["sections"].items():
        parts.append(f"**{name}** ({section['seconds']:.0f} s): {section['about']}\n\n{table(section['rows'])}")
    return "\n\n".join(parts)


def table(rows: list[dict[str, Any]]) -> str:
    """A column for every number that a row has, what failed last."""
    names = list(dict.fromkeys(name for row in rows for name in row if name not in ("what", "failed")))
    names += ["failed"] if any("failed" in row for row in rows) else []
    lines = [f"| | {' | '.join(names)} |", f"| :-- |{' --: |' * len(names)}"]
    lines += [f"| {cell(row['what'])} | {' | '.join(cell(row.get(name)) for name in names)} |" for row in rows]
    return "\n".join(lines)


def cell(value: Any) -> str:
    """A number with four digits that count."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "**no**"
    return f"{value:.4g}" if isinstance(value, float) else str(value).replace("|", "/")
