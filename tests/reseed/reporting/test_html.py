from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser

from report_samples import variant

from reseed.records import ConstantResult, Interval, Results
from reseed.reporting.html import html_report
from reseed.reporting.tables import verdict

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
    assert verdict(results) in texts
    for number in ["0.7104", "0.7251", "0.7187", "0.7181 ± 0.0074", "0.7342", "0.6512", "0.6830", "5,400", "204"]:
        assert number in texts
    assert "model/iteration-10/2f3a9c0d21be" in texts
    assert page.count("<svg") == 2
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


def test_texts_are_escaped(results: Results) -> None:
    evil = "<script>alert('&\"')</script>"
    first = replace(results.variants[0], name=evil)
    members = tuple(replace(m, artifact=evil) for m in first.members)
    odd = replace(
        results,
        experiment=evil,
        question=evil,
        problem=evil,
        metric=evil,
        variants=(replace(first, members=members), results.variants[1]),
        constants=(ConstantResult(evil, 0.9),),
        dataset=replace(results.dataset, dropped={evil: 3}) if results.dataset else None,
    )
    page = html_report(odd)
    assert "<script" not in page
    assert Page(page).texts.count(evil) >= 8


def test_verdict_s_colour_needs_more_than_the_untrained_model(results: Results) -> None:
    assert '<p class="verdict better">' in html_report(results)
    assert '<p class="verdict noise">' in html_report(replace(results, gain=Interval(0.01, 0.02)))
    assert '<p class="verdict unknown">' in html_report(replace(results, gain=None))
    constant = replace(results, constants=(ConstantResult("Improve the text", 0.8),))
    assert '<p class="verdict worse">' in html_report(constant)


def test_one_seed_has_no_std(results: Results) -> None:
    page = html_report(replace(results, variants=(variant("a", [0.7], 0.7),)))
    assert "One seed shows no spread" in page
    assert not re.search(r"\d ± ", page)


def test_bytes_repeat(results: Results) -> None:
    assert html_report(results) == html_report(results)
