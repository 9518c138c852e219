"""What can be said about a page by reading it: nesting, ids, references, and what it would load."""

from __future__ import annotations

import re
from html.parser import HTMLParser

VOID = {"meta", "img", "br", "link", "hr", "input", "wbr"}
CLOSES_P = {
    "p",
    "div",
    "ul",
    "ol",
    "dl",
    "table",
    "section",
    "h2",
    "h3",
    "h4",
    "figure",
    "pre",
    "article",
}


class Page(HTMLParser):
    """Attributes: ``elements`` (name, attributes) in order, ``texts`` of headings, ``faults`` found
    while reading."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.faults: list[str] = []
        self.headings: list[tuple[int, str]] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(text)
        self.close()
        if self._open:
            self.faults.append(f"left open: {self._open}")

    def handle_starttag(self, tag, attrs) -> None:
        names = [name for name, _ in attrs]
        if len(set(names)) != len(names):
            self.faults.append(f"{tag} has an attribute twice: {names}")
        if "p" in self._open and tag in CLOSES_P:
            self.faults.append(f"{tag} inside p")
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if re.fullmatch("h[1-6]", tag):
            self.headings.append((int(tag[1]), ""))
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag) -> None:
        if not self._open or self._open.pop() != tag:
            self.faults.append(f"unexpected </{tag}> at {self.getpos()}")

    def handle_data(self, data) -> None:
        if self._open and self._open[-1] in ("script", "style"):
            return
        self.text += data
        if any(re.fullmatch("h[1-6]", tag) for tag in self._open):
            level, text = self.headings[-1]
            self.headings[-1] = (level, text + data)

    def all(self, tag: str) -> list[dict[str, str]]:
        """Attributes of every element of that name."""
        return [attributes for name, attributes in self.elements if name == tag]
