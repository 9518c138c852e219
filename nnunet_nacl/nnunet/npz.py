"""Reads nnU-Net's probabilities from npz files, with the fastest inflater at hand.

Nearly all the time of an evaluation goes into decompressing them. `imagecodecs`, which nnU-Net brings along, inflates
them in about half the time that NumPy's reader takes. Shape and type are checked before anything is inflated: a small
file can promise more than memory holds.
"""

from __future__ import annotations

import copy
import zipfile
import zlib
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_nacl.case.labels import Labels
from nnunet_nacl.errors import UserError, describe, first_line
from nnunet_nacl.files import regular_only

imagecodecs: Any = None
with suppress(ImportError):  # nnU-Net may drop it one day; NumPy can read the files too
    import imagecodecs

RERUN = (
    "predict these cases again: nnUNetv2_predict with --save_probabilities; the validation cases of a model by "
    "`nnunet_nacl evaluate ... --predict`, or nnU-Net with --npz"
)
_NAME = "probabilities"
_MOST_AT_ONCE = 1 << 28  # compressed bytes that may lie in memory beside the array; of more, a few are read at a time


def read_probabilities(path: Path, labels: Labels, spatial: tuple[int, ...], beside: str) -> np.ndarray:
    """(K, *spatial) probabilities of an npz file, its checksum verified, in a type that the metrics take.

    Args:
        path: The file.
        labels: What its channels are.
        spatial: The shape that belongs to it.
        beside: Where that shape comes from, in words.

    Raises:
        UserError: The file is missing, cut off or corrupt, or its array is of another shape or no floating point.
    """
    expected = (len(labels.values), *spatial)
    try:
        with open(path, "rb", opener=regular_only) as file, zipfile.ZipFile(file) as archive:
            if f"{_NAME}.npy" not in archive.namelist():
                keys = ", ".join(repr(key.removesuffix(".npy")) for key in archive.namelist()) or "nothing"
                raise UserError(f"{path}: no array {_NAME!r} in this file, it holds {keys}; {RERUN}.")
            member = archive.getinfo(f"{_NAME}.npy")
            with archive.open(member) as stream:
                if (version := np.lib.format.read_magic(stream)) != (1, 0):
                    raise ValueError(f"unknown npy version {version}")
                shape, fortran_order, dtype = np.lib.format.read_array_header_1_0(stream)
                start = stream.tell()
            if dtype.hasobject:
                raise ValueError("holds Python objects")
            if shape != expected:
                kind = "regions" if labels.regions else "classes"
                raise UserError(
                    f"{path}: probabilities of shape {shape}, but {expected[0]} {kind} of "
                    f"dataset.json and the {beside} ask for {expected}; {RERUN}."
                )
            if dtype.kind != "f":
                raise UserError(f"{path}: probabilities must be floating point, got {dtype}; {RERUN}.")
            if member.file_size != start + np.prod(shape, dtype=object) * dtype.itemsize:
                raise ValueError("the directory promises another size than the array has")
            content = _inflate(archive, member)
    except (UserError, MemoryError):
        raise
    except FileNotFoundError:
        raise UserError(f"{path} is missing; {RERUN}.") from None
    except Exception as error:  # zip, zlib, npy and imagecodecs each raise their own kinds on broken bytes
        if isinstance(error, OSError) and error.filename is not None:  # it cannot be opened
            raise UserError(describe(error)) from None
        raise UserError(f"{path}: truncated or corrupt ({first_line(error)}); {RERUN}.") from error
    probs = content[start:].view(dtype).reshape(shape, order="F" if fortran_order else "C")
    if dtype not in (np.float16, np.float32, np.float64) or not dtype.isnative:
        probs = probs.astype(np.float64)
    return probs


def array_checksum(path: Path) -> int | None:
    """CRC-32 of the probabilities in an npz file, from the file's directory: the array is not read.

    None if there is no such array or the file is broken, as reading it will say.
    """
    try:
        with open(path, "rb", opener=regular_only) as file, zipfile.ZipFile(file) as archive:
            return archive.getinfo(f"{_NAME}.npy").CRC
    except Exception:  # zipfile raises many kinds on broken bytes
        return None


def _inflate(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> np.ndarray:
    """The bytes of a member, its checksum verified."""
    content, done = np.empty(member.file_size, dtype=np.uint8), 0
    if imagecodecs is None or member.compress_type != zipfile.ZIP_DEFLATED or member.compress_size > _MOST_AT_ONCE:
        with archive.open(member) as stream:
            while part := stream.read(1 << 18):
                content[done : done + len(part)] = np.frombuffer(part, np.uint8)
                done += len(part)
        if done != len(content):
            raise EOFError("the file ends before the array")
        return content
    stored: Any = copy.copy(member)  # as if it were not compressed: its bytes as they lie in the file
    stored.compress_type, stored.file_size, stored.CRC = zipfile.ZIP_STORED, member.compress_size, None
    imagecodecs.deflate_decode(archive.read(stored), raw=True, out=content)
    checksum: Any = getattr(imagecodecs, "deflate_crc32", zlib.crc32)  # several times as fast as zlib's
    if checksum(content) != member.CRC:
        raise ValueError("wrong checksum")
    return content
