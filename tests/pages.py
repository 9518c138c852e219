"""The README and the pages of docs/ as tests read them: links, blocks of code, and the script that checks numbers."""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "docs" / "results"
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
        ("", re.sub("^ {4}", "", one, flags=re.MULTILINE)) for one in _INDENTED.findall(rest) if one.strip()
    ]


@contextmanager
def write_tables(root: Path) -> Iterator[Callable[..., int]]:
    """The main function of docs/results/write_tables.py of a repository, with modules that have read nothing yet."""
    folder = root / "docs" / "results"
    names = [path.stem for path in folder.glob("*.py")]

    def forget() -> None:
        for name in names:
            sys.modules.pop(name, None)

    forget()
    sys.path.insert(0, str(folder))
    importlib.invalidate_caches()
    try:
        main = importlib.import_module("write_tables").main
        yield lambda *arguments: main([str(argument) for argument in arguments])
    finally:
        sys.path.remove(str(folder))
        forget()


def slug(heading: str) -> str:
    """The anchor that GitHub and the site give to a heading."""
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
    return re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", text).strip().lower())


def anchors(text: str) -> set[str]:
    """All anchors of a page."""
    return {slug(found) for found in re.findall(r"^#+ (.*)$", _FENCE.sub("", text), re.MULTILINE)}
