"""Reads JSON files, with an error that names the file where that fails, and checks that they hold what is expected."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from nnunet_nacl.errors import UserError

__all__ = ["NUMBER", "Optional", "first_line", "mismatch", "one_line", "read_dict", "read_json"]

NUMBER = (int, float, type(None))
"""In a pattern: a number, or null where it is undefined."""


class Optional:
    """In a pattern: a key that may be missing; what it holds must look like ``pattern`` where it is there."""

    def __init__(self, pattern: Any) -> None:
        self.pattern = pattern


def read_json(path: Path) -> Any:
    """The content of a JSON file.

    Raises:
        UserError: It is missing, unreadable or not JSON.
    """
    try:
        with open(path, encoding="utf-8") as file:
            return json.load(file)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file.") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}).") from None
    except ValueError as error:  # covers bad JSON and bad UTF-8
        raise UserError(f"{path}: not a JSON file ({first_line(error)}); restore it.") from None
    except RecursionError:
        raise UserError(
            f"{path}: not a JSON file of nnU-Net or this package (nested too deeply); restore it."
        ) from None


def read_dict(path: Path) -> dict[str, Any]:
    """The content of a JSON file that holds an object; UserError where ``read_json`` raises it or it is none."""
    content = read_json(path)
    if not isinstance(content, dict):
        raise UserError(f"{path}: expected a JSON object, got {type(content).__name__}; give nnU-Net's own file.")
    return content


def mismatch(value: Any, pattern: Any, place: str = "") -> str:
    """Where a JSON value does not look like a pattern, in words; empty if it does.

    Args:
        value: As it was read.
        pattern: A type or a tuple of types; a list whose one entry is the pattern of all items; a dict of patterns by
            key, or of one pattern for all values under the key ``"*"``. Keys beside those named may be there.
            ``Optional(pattern)`` is for keys that may be missing.
        place: Where the value stands in its file.
    """
    if isinstance(pattern, Optional):
        return mismatch(value, pattern.pattern, place)
    kind: Any = type(pattern) if isinstance(pattern, (dict, list)) else pattern
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        return f"{place or 'the whole'} is {type(value).__name__}"
    if isinstance(pattern, list):
        found = (mismatch(item, pattern[0], f"{place}[{i}]") for i, item in enumerate(value))
    elif isinstance(pattern, dict) and "*" in pattern:
        found = (mismatch(item, pattern["*"], f"{place}[{key!r}]") for key, item in value.items())
    elif isinstance(pattern, dict):
        for key, inner in pattern.items():
            if key not in value and not isinstance(inner, Optional):
                return f"{place or 'it'} has no {key!r}"
        found = (mismatch(value[key], pattern[key], f"{place}.{key}".strip(".")) for key in pattern if key in value)
    else:
        return ""
    return next((text for text in found if text), "")


def one_line(text: str) -> str:
    """The text with line breaks and whatever else cannot be printed escaped: file names may hold anything."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def first_line(error: BaseException) -> str:
    """The first line of an error that says something; SimpleITK's begin with a place in its own source."""
    lines = [line for line in str(error).strip().splitlines() if not line.startswith("Exception thrown in SimpleITK")]
    return lines[0].removeprefix("sitk::ERROR: ") if lines else type(error).__name__
