from __future__ import annotations

import base64
import re
from xml.etree.ElementTree import Element, fromstring

SVG = "{http://www.w3.org/2000/svg}"


def pictures_in(markdown: str) -> dict[str, Element]:
    """The SVG images of a Markdown text by their titles, parsed."""
    found = re.findall(r"^!\[([^\n]*?)\]\(data:image/svg\+xml;base64,([A-Za-z0-9+/=]+)\)$", markdown, re.MULTILINE)
    return {title: fromstring(base64.b64decode(data, validate=True)) for title, data in found}


def texts(svg: Element) -> list[str]:
    """The texts of an SVG, in their order."""
    return [element.text or "" for element in svg.iter(f"{SVG}text")]
