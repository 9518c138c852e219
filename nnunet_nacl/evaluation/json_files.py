"""Reads the JSON files that nnU-Net wrote, with an error that names the file where that fails."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from nnunet_nacl.errors import UserError

__all__ = ["first_line", "one_line", "read_dict", "read_json"]


def read_json(path: Path) -> Any:
    try:
        with open(path, encoding="utf-8") as file:
            return json.load(file)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file.") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}).") from None
    except ValueError as error:  # covers bad JSON and bad UTF-8
        raise UserError(f"{path}: not a JSON file ({first_line(error)}); restore it.") from None


def read_dict(path: Path) -> dict[str, Any]:
    content = read_json(path)
    if not isinstance(content, dict):
        raise UserError(f"{path}: expected a JSON object, got {type(content).__name__}; give nnU-Net's own file.")
    return content


def one_line(text: str) -> str:
    """The text with line breaks and whatever else cannot be printed escaped: file names may hold anything."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def first_line(error: BaseException) -> str:
    """The first line of an error that says something; SimpleITK's begin with a place in its own source."""
    lines = [line for line in str(error).strip().splitlines() if not line.startswith("Exception thrown in SimpleITK")]
    return lines[0].removeprefix("sitk::ERROR: ") if lines else type(error).__name__
