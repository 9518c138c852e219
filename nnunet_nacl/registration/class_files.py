"""Finds the file that holds a class, by reading the files and without importing any."""

from __future__ import annotations

import ast
import os
import pkgutil
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from nnunet_nacl.registration import ENVIRONMENT_VARIABLE, TRAINERS_PACKAGE, bridge_folder


def find_class_file(name: str, folder: Path) -> Path | None:
    """The file in which nnU-Net would find a class when it searches a folder; None if there is
    none.

    A file that only imports the class counts where no other file defines it.

    """
    importing_file = None
    for path in _module_files(folder):
        statements = _statements(path)
        if name in _defined_classes(statements):
            return path
        if importing_file is None and name in _imported_names(statements):
            importing_file = path
    return importing_file


def find_nnunets_class_file(name: str) -> Path | None:
    """The file of nnU-Net's own trainer of that name; None if it has none, or is not installed."""
    spec = find_spec("nnunetv2")
    if spec is None or spec.submodule_search_locations is None:
        return None
    for location in spec.submodule_search_locations:
        path = find_class_file(name, Path(location, "training", "nnUNetTrainer"))
        if path is not None:
            return path
    return None


def find_users_class_file(name: str, *, behind_bridge: bool = False) -> Path | None:
    """The file of a class in a folder of ``nnUNet_extTrainer``, the bridge folder apart; None if
    there is none.

    ``behind_bridge`` looks only into the folders that nnU-Net searches after the bridge folder.

    """
    for folder in _users_folders(behind_bridge=behind_bridge):
        path = find_class_file(name, folder)
        if path is not None:
            return path
    return None


def find_users_trainers() -> dict[str, Path]:
    """By name the file of each trainer in a folder of ``nnUNet_extTrainer``, in nnU-Net's order.

    A class counts as a trainer by what the file says: its name, or that of a class that it changes,
    holds "Trainer". The first of a name counts.

    """
    trainers: dict[str, Path] = {}
    for folder in _users_folders():
        for path in _module_files(folder):
            for statement in _statements(path):
                if isinstance(statement, ast.ClassDef) and _is_trainer(statement):
                    trainers.setdefault(statement.name, path)
    return trainers


def _is_trainer(definition: ast.ClassDef) -> bool:
    names = [definition.name, *map(ast.unparse, definition.bases)]
    return any("Trainer" in name for name in names)


def _users_folders(*, behind_bridge: bool = False) -> Iterator[Path]:
    """The folders of ``nnUNet_extTrainer`` that exist, the bridge folder apart, or those behind
    it."""
    folders = os.environ.get(ENVIRONMENT_VARIABLE, "").split(os.pathsep)
    if behind_bridge and bridge_folder() in folders:
        folders = folders[folders.index(bridge_folder()) + 1 :]
    for folder in folders:
        if folder.strip() and folder != bridge_folder() and os.path.isdir(folder):
            yield Path(folder)


def our_trainers_folder() -> Path | None:
    """The folder of this package's trainers; None if it is not installed."""
    spec = find_spec(TRAINERS_PACKAGE)
    if spec is None or spec.origin is None:
        return None
    return Path(spec.origin).parent


def _module_files(folder: Path) -> Iterator[Path]:
    """The files that nnU-Net imports when it searches a folder, in its order: modules first, then
    packages."""
    modules = list(pkgutil.iter_modules([str(folder)]))
    for module in modules:
        path = folder / f"{module.name}.py"
        if not module.ispkg and path.is_file():
            yield path
    for module in modules:
        if module.ispkg:
            yield from _module_files(folder / module.name)


def _statements(path: Path) -> list[ast.stmt]:
    """Those at the top of a module; none where it cannot be read."""
    try:
        return ast.parse(path.read_bytes()).body
    except (OSError, SyntaxError, ValueError):  # nnU-Net's own import of it says what is wrong
        return []


def _defined_classes(statements: list[ast.stmt]) -> set[str]:
    """Names of the classes at the top of a module."""
    return {statement.name for statement in statements if isinstance(statement, ast.ClassDef)}


def _imported_names(statements: list[ast.stmt]) -> set[str]:
    """Names that ``from ... import`` binds at the top of a module."""
    names = set()
    for statement in statements:
        if isinstance(statement, ast.ImportFrom):
            names |= {alias.asname or alias.name for alias in statement.names}
    return names
