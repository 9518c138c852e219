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
    fenced = [(fence[1], fence[2]) for fence in _FENCE.finditer(text)]
    indented = []
    for block in _INDENTED.findall(_FENCE.sub("", text)):
        if block.strip():
            code = re.sub("^ {4}", "", block, flags=re.MULTILINE)
            indented.append(("", code))
    return fenced + indented
