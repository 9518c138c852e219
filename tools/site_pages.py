"""What the site has beside docs/: start, files, changes, JSON schemas, and a demo's pages as
examples.

The examples are there if NNUNET_NACL_DEMO names the folder of a finished `nnunet_nacl demo`.
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import NamedTuple

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = {
    "review": ("predictions/*/index.html", "the review list of eight virtual brains"),
    "comparison": (
        "comparison/*/report.html",
        "the comparison of two losses, as trained and calibrated",
    ),
}
_SHORT_CODE = re.compile(r"(?<!</span>)<code>([^<\n]{1,30})</code>")
_LINK = re.compile(r"(!?)\[([^\]]*)\]\((?!https?://|#)([^)#]+)(#[^)]*)?\)")


def move_into_docs(name: str) -> str:
    """Markdown of a file of the root with its links as seen from docs/; a link to what the site
    lacks becomes the file's name."""
    return _LINK.sub(_move_link, (ROOT / name).read_text(encoding="utf-8"))


def _move_link(link: re.Match) -> str:
    image, title, target, anchor = link.groups()
    if target.startswith("docs/"):
        return f"{image}[{title}]({target.removeprefix('docs/')}{anchor or ''})"
    if title == target:
        return f"`{target}`"
    return f"{title} (`{target}`)"


class Example(NamedTuple):
    """A page of a demo.

    Attributes:
        address: In the site.
        page: The file.
        about: What it shows.
    """

    address: str
    page: Path
    about: str


def find_examples(demo: Path) -> list[Example]:
    """Pages of a demo that the site shows.

    Raises:
        PluginError: The demo has not made one.
    """
    examples = []
    for name, (pattern, about) in EXAMPLES.items():
        pages = sorted(demo.glob(pattern))
        if not pages:
            raise PluginError(
                f"NNUNET_NACL_DEMO={demo}: no {pattern} there; let `nnunet_nacl demo -o {demo}`"
                " finish"
            )
        examples.append(Example(f"examples/{name}.html", pages[0], about))
    return examples


def on_config(config: MkDocsConfig) -> None:
    """Called by mkdocs first.

    Raises:
        PluginError: The package is not there, from which the page of the Python API and the schemas
            are made.
    """
    try:
        import nnunet_nacl.comparison.evaluation  # noqa: F401
    except ImportError as error:
        raise PluginError(
            f"the site is made from the installed package: pip install '.[docs]' ({error})"
        ) from None


def on_page_content(html: str, **_: object) -> str:
    """Called by mkdocs with the text of a page: short inline code gets the class that keeps it in
    one line (docs/stylesheets/site.css)."""
    return _SHORT_CODE.sub(r'<code class="short">\1</code>', html)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Called by mkdocs with the files of docs/."""
    sys.path.append(str(ROOT))
    from nnunet_nacl.utilities.files import to_json_text
    from tools.document_schemas import PUBLISHED, schema_of
    from tools.files_page import files_page

    texts = {
        "index.md": move_into_docs("README.md"),
        "changes.md": move_into_docs("CHANGELOG.md"),
        "files.md": files_page(),
    }
    for name in PUBLISHED:
        texts[f"schemas/{name}.schema.json"] = to_json_text(schema_of(name))
    demo = os.environ.get("NNUNET_NACL_DEMO")
    if demo:
        examples = find_examples(Path(demo))
        links = [f"[{example.about}]({example.address})" for example in examples]
        texts["index.md"] += f"\n## Examples\n\nPages of a demo: {', '.join(links)}"
        for example in examples:
            page = str(example.page)
            files.append(File.generated(config, example.address, abs_src_path=page))
    for name, text in texts.items():
        files.append(File.generated(config, name, content=text))
    return files
