"""What the package imports: the public parts of nnunet_nacl, and what pyproject.toml requires;
nothing imports it."""

from __future__ import annotations

import ast
import re
import sys
from importlib import metadata
from pathlib import Path

PAPER = Path(__file__).parents[1]
PUBLIC = re.compile(r"nnunet_nacl\.(metrics|losses)(\.\w+)*|nnunet_nacl_trainers(\.base)?")


def imports(folder: Path) -> set[str]:
    """Modules that are imported anywhere in the code of a folder."""
    names = set()
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                names.add(node.module)
    return names


def test_of_nnunet_nacl_it_imports_what_is_public() -> None:
    inside = {
        name
        for name in imports(PAPER / "nnunet_nacl_paper")
        if re.match(r"nnunet_nacl(_trainers)?\b", name)
    }
    assert inside and all(PUBLIC.fullmatch(name) for name in inside), inside


def test_what_it_imports_it_requires() -> None:
    required = {
        re.match(r"[\w.-]+", line)[0].lower().replace("-", "_")
        for line in metadata.requires("nnunet_nacl_paper")
    }
    roots = {name.partition(".")[0] for name in imports(PAPER / "nnunet_nacl_paper")} - set(
        sys.stdlib_module_names
    )
    given = {"nnunet_nacl_paper", "nnunet_nacl_trainers"}
    assert {root.lower() for root in roots - given} <= required
