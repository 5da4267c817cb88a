from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import fields, is_dataclass, replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest
from jinja2 import UndefinedError
from report_samples import sample, variant

from reseed.reporting import html as html_module
from reseed.reporting.html import html_report
from reseed.reporting.verdict import verdict_lines
from reseed.results import Results

ROOT = Path(__file__).resolve().parents[3]
VOID = {"meta", "br"}


class Page(HTMLParser):
    """Reads a page, checks that every element is closed, keeps its text, tags and attributes."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.attributes: list[tuple[str, str]] = []
        self.texts: list[str] = []
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if data.strip():
            self.texts.append(data.strip())


def test_page_shows_question_verdict_numbers_and_pictures(results: Results) -> None:
    page = html_report(results)
    texts = Page(page).texts
    assert results.question in texts
    assert set(verdict_lines(results)) <= set(texts)
    for number in ["0.7104", "0.7251", "0.7187", "0.7181 ± 0.0074", "0.7342", "0.6512", "0.6830", "5,400", "204"]:
        assert number in texts
    assert "model/iteration-10/2f3a9c0d21be" in texts
    assert page.count("<svg") == 5
    assert "prefers-color-scheme: dark" in page


def test_page_fetches_nothing(results: Results) -> None:
    page = Page(html_report(results))
    assert not page.tags & {"script", "link", "img", "iframe", "a", "base", "form"}
    assert all(value.startswith("#") for name, value in page.attributes if name in {"href", "xlink:href", "src"})
    assert not any(name.startswith("on") for name, _ in page.attributes)
    assert "@import" not in html_report(results)
    assert set(re.findall(r"url\((.)", html_report(results))) <= {"#"}
    links = set(re.findall(r'https?://[^"]+', html_report(results)))
    assert links <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}  # names, not addresses


def test_pictures_share_no_id(results: Results) -> None:
    ids = [value for name, value in Page(html_report(results)).attributes if name == "id"]
    assert len(ids) == len(set(ids))


EVIL = "<script>alert('&\"')</script>\x1b[31m\x1b]0;title\x07\x9b2J\r\n\u202e{{ 7 * 7 }}{% raw %}\x00</style>"
TOLD = "<script>alert('&\"')</script> [31m ]0;title 2J {{ 7 * 7 }}{% raw %} </style>"  # on one line, nothing to obey


def everywhere(value: Any, text: str) -> Any:
    """A record with every text in it, however deep, replaced."""
    if isinstance(value, str):
        return text
    if isinstance(value, tuple):
        return tuple(everywhere(one, text) for one in value)
    if isinstance(value, dict):
        return {everywhere(key, text): everywhere(one, text) for key, one in value.items()}
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{f.name: everywhere(getattr(value, f.name), text) for f in fields(value)})
    return value


def test_text_of_strangers_stays_text_in_every_field(results: Results) -> None:
    html = html_report(everywhere(results, EVIL))
    page = Page(html)
    assert not page.tags & {"script", "a", "b", "img"}
    assert {c for c in html if not c.isprintable()} == {"\n"}
    assert html.count("</style>") == 1 + html.count("<svg"), "the page's own style and one in each picture"
    # title, name, question; a line and three members for each of two variants; the reason for dropping
    assert page.texts.count(TOLD) >= 3 + 2 + 6 + 6 + 1
    assert page.texts.count(f"constant “{TOLD}”") == 2
    assert any(TOLD in text and text.startswith("Problem ") for text in page.texts)
    assert any(text.startswith(f"{TOLD} − {TOLD}: +0.0151 ") for text in page.texts), "the verdict"


def test_a_name_that_the_template_misspells_is_an_error() -> None:
    environment = html_module._template().environment
    with pytest.raises(UndefinedError, match="questoin"):
        environment.from_string("{{ results.questoin }}").render(results=sample())


def test_an_installed_copy_finds_its_template(tmp_path: Path) -> None:
    """Built as pip builds it, unpacked, and used from elsewhere."""
    project, wheels, site = tmp_path / "project", tmp_path / "wheels", tmp_path / "site"
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        project.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, project)
    shutil.copytree(ROOT / "reseed", project / "reseed", ignore=shutil.ignore_patterns("__pycache__"))
    wheels.mkdir()
    build = f"from setuptools.build_meta import build_wheel; build_wheel({str(wheels)!r})"
    subprocess.run([sys.executable, "-c", build], cwd=project, check=True, capture_output=True)
    (wheel,) = wheels.glob("*.whl")
    with ZipFile(wheel) as archive:
        archive.extractall(site)
    code = "import reseed.reporting.html as html; print(html.__file__); print(html._template().name)"
    free = {**os.environ, "PYTHONPATH": str(site)}
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], cwd=tmp_path, env=free, check=True, capture_output=True, text=True
    )
    assert done.stdout.splitlines() == [str(site / "reseed/reporting/html.py"), "report.html"]


def test_verdict_s_colour_is_that_of_its_word(results: Results) -> None:
    page = html_report(results)
    assert page.count('<p class="verdict better">') == 4
    assert page.count('<p class="verdict noise">') == 1
    older = html_report(replace(results, comparisons=()))
    assert '<p class="verdict unknown">No verdict: an older version' in older
    assert "Comparisons" not in Page(older).texts


def test_groups_that_decide_are_shown_as_texts(results: Results) -> None:
    page = html_report(results)
    assert "Make it <rhyme>" in Page(page).texts
    assert "Make it <rhyme>" not in page


def test_one_seed_has_no_std(results: Results) -> None:
    page = html_report(replace(results, variants=(variant("a", [0.7], 0.7),)))
    assert "One seed shows no spread" in page
    assert not re.search(r"\d ± ", page)


def test_bytes_repeat(results: Results) -> None:
    assert html_report(results) == html_report(results)


def test_one_group_decides_nothing(results: Results) -> None:
    alone = tuple(replace(found, influence=()) for found in results.comparisons)
    assert "that decide" in html_report(results)
    assert "that decide" not in html_report(replace(results, comparisons=alone))
