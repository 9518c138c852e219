"""Reads the arrays and the header in the file of a record, which may be damaged or of others.

The file is an npz; one of its arrays is the header, the bytes of a JSON text.
"""

from __future__ import annotations

import io
import json
import os
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_nacl.utilities.files import regular_only

RECORDS = "records"
"""Folder of the records: nnU-Net takes every ``*.npz`` beside segmentations for a prediction."""

# of all arrays together: a small file can promise more than memory holds
_MAX_ARRAY_BYTES = 1 << 28
_MAX_HEADER_BYTES = 1 << 24  # 3 MB for 120 structures of 100 components each
_MAX_HEADER_VALUES = 1 << 19  # 90,000 for these: JSON takes many times as much in memory


def read_arrays(path: Path, is_wanted: Callable[[str], bool]) -> dict[str, np.ndarray]:
    """The arrays of numbers in an npz file whose names are wanted, by name.

    Raises:
        ValueError: An array is too large, holds no numbers, or one that is not finite.
        Exception: Of any kind, by zipfile, zlib and NumPy, where bytes are broken.
    """
    arrays: dict[str, np.ndarray] = {}
    with open(path, "rb", opener=regular_only) as file, zipfile.ZipFile(file) as archive:
        members: dict[str, zipfile.ZipInfo] = {}
        for member in archive.infolist():
            name = member.filename.removesuffix(".npy")
            if is_wanted(name):
                members[name] = member
        _check_sizes(members)
        for name, member in members.items():
            array: np.ndarray = np.load(io.BytesIO(archive.read(member)), allow_pickle=False)
            _check_numbers(name, array)
            arrays[name] = array
    return arrays


def _check_sizes(members: dict[str, zipfile.ZipInfo]) -> None:
    """ValueError, before anything is unpacked, where arrays are larger than those of a record."""
    if sum(member.file_size for member in members.values()) > _MAX_ARRAY_BYTES:
        raise ValueError("its arrays are too large")
    if "header" in members and members["header"].file_size > _MAX_HEADER_BYTES:
        raise ValueError("its header is too large")


def _check_numbers(name: str, array: np.ndarray) -> None:
    """ValueError where an array holds what no array of its name can hold."""
    if array.dtype.kind not in "buif":
        raise ValueError(f"{name} is no array of numbers")
    is_below_0 = name.startswith("bins_") and (array < 0).any()
    if not np.isfinite(array).all() or is_below_0:
        raise ValueError(f"{name} holds a number that is not finite, or below 0")


def decode_header(header: np.ndarray) -> dict[str, Any]:
    """The JSON values of the array ``header``; ValueError where it is too large, or is no JSON."""
    text = header.tobytes()
    if text.count(b",") > _MAX_HEADER_VALUES:
        raise ValueError("its header is too large")
    return json.loads(text)


def read_header(path: Path) -> dict[str, Any]:
    """What a record of any version says in words and single numbers.

    Raises:
        Exception: Of any kind, where the file is no record.
    """
    arrays = read_arrays(path, lambda name: name == "header")
    header = decode_header(arrays["header"])
    if not {"format", "case"} <= header.keys():
        raise ValueError("the header is not that of a record")
    return header


def is_record(path: Path) -> bool:
    """Whether a file is a record, by its format: of any version, and also one that was damaged."""
    try:
        read_header(path)
    except (zipfile.BadZipFile, zlib.error, EOFError):
        # Cut short, but hardly before the first name in it. A zip file begins with PK, 3, 4; its
        # first member has 30 bytes of numbers, then its name, which in a record is the header's.
        with open(path, "rb", opener=regular_only) as file:
            start = file.read(40)
        return start[:4] == b"PK\3\4" and start[30:] == b"header.npy"
    except Exception:  # NumPy and JSON raise anything on the files of others
        return False
    return True


def is_replaceable_record(path: Path) -> bool:
    """Whether a record may be written there: to no file, an empty one, or a record."""
    if not os.path.lexists(path):
        return True
    return path.is_file() and (path.stat().st_size == 0 or is_record(path))
