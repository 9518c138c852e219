"""Writing files so that a killed run leaves the old one or the new one, never half of it."""

from __future__ import annotations

import json
import math
import os
import tempfile
from pathlib import Path
from typing import Any

from nnunet_nacl.errors import UserError

__all__ = ["check_writable", "to_json_text", "write_atomically"]


def write_atomically(path: Path, text: str) -> None:
    """Write text under a temporary name beside ``path``, then rename it.

    Raises:
        UserError: There is no permission or no space.
    """
    path = Path(path)
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
        temporary = None
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror}); free space or choose another -o.") from None
    finally:
        if temporary is not None and os.path.exists(temporary):
            os.unlink(temporary)


def check_writable(path: Path) -> None:
    """Fail before hours of work rather than after them: UserError unless ``path`` can be written."""
    if path.is_dir():
        raise UserError(f"{path} is a folder; give -o a file name that ends with .json.")
    if path.suffix != ".json":
        raise UserError(f"{path}: the output file must end with .json.")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise UserError(f"{path.parent}: no file can be written there ({error.strerror}); choose another -o.") from None


def to_json_text(value: Any) -> str:
    """JSON with one entry a line but lists of numbers in one; NaN becomes null, so that any JSON reader takes it."""
    return _format(value, "") + "\n"


def _format(value: Any, indent: str) -> str:
    if isinstance(value, float) and not math.isfinite(value):
        return "null"
    inner = indent + "  "
    if isinstance(value, dict) and value:
        lines = (f"{inner}{json.dumps(str(key))}: {_format(item, inner)}" for key, item in value.items())
        return "{\n" + ",\n".join(lines) + f"\n{indent}}}"
    if isinstance(value, (list, tuple)) and value:
        if any(isinstance(item, dict) for item in value):
            return "[\n" + ",\n".join(inner + _format(item, inner) for item in value) + f"\n{indent}]"
        return "[" + ", ".join(_format(item, inner) for item in value) + "]"
    return json.dumps(value)
