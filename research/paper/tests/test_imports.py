"""The package imports the public parts of nnunet_nacl, and what pyproject.toml requires."""

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
    imported = imports(PAPER / "nnunet_nacl_paper")
    of_nnunet_nacl = [name for name in imported if re.match(r"nnunet_nacl(_trainers)?\b", name)]
    assert of_nnunet_nacl
    assert [name for name in of_nnunet_nacl if not PUBLIC.fullmatch(name)] == []


def test_what_it_imports_it_requires() -> None:
    required = set()
    for line in metadata.requires("nnunet_nacl_paper"):
        name = re.match(r"[\w.-]+", line)[0]
        required.add(name.lower().replace("-", "_"))
    packages = {name.partition(".")[0] for name in imports(PAPER / "nnunet_nacl_paper")}
    ours = {"nnunet_nacl_paper", "nnunet_nacl_trainers"}
    others = packages - ours - sys.stdlib_module_names
    assert {name.lower() for name in others} <= required
