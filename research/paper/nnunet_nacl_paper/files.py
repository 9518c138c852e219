"""Errors, and files that are written whole or not at all."""

from __future__ import annotations

import contextlib
import gzip
import json
import math
import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

TEMPORARY = ".nnunet_nacl_paper.tmp"
"""In the names of files that are being written."""


class InputError(ValueError):
    """Something that the user gave cannot be used; the message names it and the fix."""


@contextlib.contextmanager
def replacing(path: Path, ending: str = "") -> Iterator[Path]:
    """A temporary name beside ``path``; what the block writes there replaces it at the end.

    Args:
        path: The file; missing folders are made.
        ending: Of the temporary name, for libraries that take the format from it.

    Raises:
        InputError: It cannot be written; nothing is left behind, whatever the block raised.
    """
    temporary = path.parent / f".{os.getpid()}_{path.name[:100]}{TEMPORARY}{ending}"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        raise InputError(
            f"{path}: cannot be written ({error.strerror or error}); free some space or change -o."
        ) from None
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def write_text(path: Path, text: str) -> None:
    """Write a text file; a killed run leaves the old one or the new one."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write a JSON document likewise; NaN becomes null, so that any JSON reader takes it."""
    write_text(path, json.dumps(_null_for_nan(value), indent=1) + "\n")


def _null_for_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _null_for_nan(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_null_for_nan(item) for item in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def read_json(path: Path, fix: str) -> Any:
    """The content of a JSON file.

    Raises:
        InputError: It cannot be read, or is no JSON; it ends with ``fix``, what to do about it.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"{path}: cannot be read as JSON ({reason}); {fix}.") from None


def why_broken(path: Path) -> str:
    """What is wrong with a NIfTI file, in words; empty if nothing is.

    SimpleITK reads a file that a full disk or a broken copy cut off as if all that is missing were
    background, and it does not notice when it writes one.

    Raises:
        OSError: The file cannot be opened.
    """
    import nibabel
    import numpy as np

    of_gzip = (OSError, EOFError, zlib.error)
    of_nibabel = (ValueError, nibabel.filebasedimages.ImageFileError)
    with open(path, "rb") as file:
        is_compressed = file.read(2) == b"\x1f\x8b"
    try:
        if is_compressed:
            with gzip.open(path) as file:  # verifies the checksum
                while file.read(1 << 20):
                    pass
        voxels = np.asanyarray(nibabel.load(path).dataobj)  # type: ignore[attr-defined]
    except (*of_gzip, *of_nibabel) as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        return f"truncated or corrupt: {reason}"
    if voxels.dtype.kind == "f" and not np.isfinite(voxels).all():
        return "it holds voxels that are NaN or infinite"
    return ""
