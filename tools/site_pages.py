"""Two pages of the site that lie outside of docs/: the README as its start, and the changes."""

from __future__ import annotations

import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
_LINK = re.compile(r"(!?)\[([^\]]*)\]\((?!https?://|#)([^)#]+)(#[^)]*)?\)")


def moved_into_docs(text: str) -> str:
    """Markdown of the root with its links as seen from docs/; a link to what the site lacks becomes the file's name."""

    def moved(found: re.Match) -> str:
        image, title, target, anchor = found.groups()
        if not target.startswith("docs/"):
            return f"{title} (`{target}`)" if title != target else f"`{target}`"
        return f"{image}[{title}]({target.removeprefix('docs/')}{anchor or ''})"

    return _LINK.sub(moved, text)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Called by mkdocs with the files of docs/."""
    for name, source in (("index.md", "README.md"), ("changes.md", "CHANGELOG.md")):
        text = moved_into_docs((ROOT / source).read_text(encoding="utf-8"))
        files.append(File.generated(config, name, content=text))
    return files
