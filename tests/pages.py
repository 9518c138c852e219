"""The README and the pages of docs/ as tests read them: links and blocks of code."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
_INDENTED = re.compile(r"(?:^(?: {4,}.*)?\n)+", re.MULTILINE)


def name(page: Path) -> str:
    """A page as it is called in a test's name."""
    return page.relative_to(ROOT).as_posix()


def blocks(text: str) -> list[tuple[str, str]]:
    """(language, code) of each block: fenced, or indented by four spaces (language '')."""
    found = [(fence[1], fence[2]) for fence in _FENCE.finditer(text)]
    rest = _FENCE.sub("", text)
    return found + [
        ("", re.sub("^ {4}", "", one, flags=re.MULTILINE))
        for one in _INDENTED.findall(rest)
        if one.strip()
    ]
