"""What the site has beside docs/: start, files, changes, JSON schemas, and a demo's pages as
examples.

The examples are there if NNUNET_NACL_DEMO names the folder of a finished `nnunet_nacl demo`.
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = {
    "review": ("predictions/*/index.html", "the review list of four virtual brains"),
    "comparison": (
        "comparison/*/report.html",
        "the comparison of three losses, as trained and calibrated",
    ),
}
_LINK = re.compile(r"(!?)\[([^\]]*)\]\((?!https?://|#)([^)#]+)(#[^)]*)?\)")


def moved_into_docs(text: str) -> str:
    """Markdown of the root with its links as seen from docs/; a link to what the site lacks becomes
    the file's name."""

    def moved(found: re.Match) -> str:
        image, title, target, anchor = found.groups()
        if not target.startswith("docs/"):
            return f"{title} (`{target}`)" if title != target else f"`{target}`"
        return f"{image}[{title}]({target.removeprefix('docs/')}{anchor or ''})"

    return _LINK.sub(moved, text)


def examples(demo: Path) -> dict[str, tuple[Path, str]]:
    """Address in the site -> page of a demo, and what it is.

    Raises:
        PluginError: The demo has not made it.
    """
    found = {}
    for name, (pattern, what) in EXAMPLES.items():
        pages = sorted(demo.glob(pattern))
        if not pages:
            raise PluginError(
                f"NNUNET_NACL_DEMO={demo}: no {pattern} there; let `nnunet_nacl demo -o {demo}`"
                " finish"
            )
        found[f"examples/{name}.html"] = (pages[0], what)
    return found


def on_config(config: MkDocsConfig) -> None:
    """Called by mkdocs first.

    Raises:
        PluginError: The package is not there, from which the page of the Python API and the schemas
            are made.
    """
    try:
        import nnunet_nacl.evaluation.evaluation  # noqa: F401
    except ImportError as error:
        raise PluginError(
            f"the site is made from the installed package: pip install '.[docs]' ({error})"
        ) from None


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Called by mkdocs with the files of docs/."""
    sys.path.append(str(ROOT))
    from nnunet_nacl.files import to_json_text
    from tools.document_schemas import PUBLISHED, schema_of
    from tools.files_page import files_page

    texts = {
        name: moved_into_docs((ROOT / source).read_text(encoding="utf-8"))
        for name, source in (("index.md", "README.md"), ("changes.md", "CHANGELOG.md"))
    }
    if demo := os.environ.get("NNUNET_NACL_DEMO"):
        made = examples(Path(demo))
        texts["index.md"] += "\n## Examples\n\nPages of a demo: " + ", ".join(
            f"[{what}]({address})" for address, (_, what) in made.items()
        )
        for address, (page, _) in made.items():
            files.append(File.generated(config, address, abs_src_path=str(page)))
    texts["files.md"] = files_page()
    texts |= {f"schemas/{name}.schema.json": to_json_text(schema_of(name)) for name in PUBLISHED}
    for name, text in texts.items():
        files.append(File.generated(config, name, content=text))
    return files
