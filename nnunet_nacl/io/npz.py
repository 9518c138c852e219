"""Reads nnU-Net's probabilities from npz files, with the fastest inflater at hand.

Nearly all the time of an evaluation goes into decompressing them. `imagecodecs`, which nnU-Net brings along, inflates
them in about half the time that NumPy's reader takes. Shape and type are checked before anything is inflated: a small
file can promise more than memory holds.
"""

from __future__ import annotations

import mmap
import struct
import zipfile
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import numpy as np

from nnunet_nacl.errors import UserError, describe
from nnunet_nacl.files import regular_only
from nnunet_nacl.io.labels import Labels

imagecodecs: Any = None
with suppress(ImportError):  # nnU-Net may drop it one day; NumPy can read the files too
    import imagecodecs

RERUN = (
    "predict these cases again: nnUNetv2_predict with --save_probabilities; the validation cases of a model by "
    "`nnunet_nacl evaluate ... --predict`, or nnU-Net with --npz"
)
_NAME = "probabilities"
_LOCAL_HEADER = struct.Struct("<4s22x2H")  # signature, ..., length of the name, length of the extra field


def read_probabilities(path: Path, labels: Labels, spatial: tuple[int, ...], beside: str) -> np.ndarray:
    """(K, *spatial) probabilities of an npz file, in a type that the metrics take.

    Args:
        path: The file.
        labels: What its channels are.
        spatial: The shape that belongs to it.
        beside: Where that shape comes from, in words.

    Raises:
        UserError: The file is missing or broken, or its array is of another shape or no floating point.
    """
    expected = (len(labels.values), *spatial)

    def check(shape: tuple[int, ...], dtype: np.dtype) -> None:
        if shape != expected:
            what = "regions" if labels.regions else "classes"
            raise UserError(
                f"{path}: probabilities of shape {shape}, but {expected[0]} {what} of "
                f"dataset.json and the {beside} ask for {expected}; {RERUN}."
            )
        if dtype.kind != "f":
            raise UserError(f"{path}: probabilities must be floating point, got {dtype}; {RERUN}.")

    probs = read_array(path, _NAME, hint=RERUN, check=check)
    if probs.dtype not in (np.float16, np.float32, np.float64) or not probs.dtype.isnative:
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


def read_array(
    path: Path,
    name: str,
    *,
    hint: str = "write it again",
    check: Callable[[tuple[int, ...], np.dtype], None] | None = None,
) -> np.ndarray:
    """Read the array ``name`` of an npz file, its checksum verified.

    Args:
        path: The file.
        name: Key of the array.
        hint: What the user can do if the file is broken.
        check: Gets shape and type before memory is taken for them, and raises UserError if they are not what is wanted.

    Returns:
        The array.

    Raises:
        UserError: The file is missing, cut off, corrupt, or has no such array; or ``check`` raised it.
    """
    try:
        with open(path, "rb", opener=regular_only) as file, zipfile.ZipFile(file) as archive:
            try:
                member = archive.getinfo(f"{name}.npy")
            except KeyError:
                keys = ", ".join(repr(key.removesuffix(".npy")) for key in archive.namelist()) or "nothing"
                raise UserError(f"{path}: no array {name!r} in this file, it holds {keys}; {hint}.") from None
            with archive.open(member) as stream:
                shape, fortran_order, dtype = _read_header(stream)
                start = stream.tell()
            if dtype.hasobject:
                raise ValueError("holds Python objects")
            if check is not None:
                check(shape, dtype)
            if member.file_size != start + np.prod(shape, dtype=object) * dtype.itemsize:
                raise ValueError("the directory promises another size than the array has")
            content = np.empty(member.file_size, dtype=np.uint8)
            if imagecodecs is not None and member.compress_type == zipfile.ZIP_DEFLATED:
                _inflate(file, member, content)
            else:
                with cast(zipfile.ZipExtFile, archive.open(member)) as stream:
                    if stream.readinto(content.data) != len(content):
                        raise EOFError("the file ends before the array")
        return content[start:].view(dtype).reshape(shape, order="F" if fortran_order else "C")
    except (UserError, MemoryError):
        raise
    except FileNotFoundError:
        raise UserError(f"{path} is missing; {hint}.") from None
    except Exception as error:  # zip, zlib, npy and imagecodecs each raise their own kinds on broken bytes
        if isinstance(error, OSError) and error.filename is not None:  # it cannot be opened
            raise UserError(describe(error)) from None
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"{path}: truncated or corrupt ({reason}); {hint}.") from error


def _read_header(stream) -> tuple[tuple[int, ...], bool, np.dtype]:
    version = np.lib.format.read_magic(stream)
    if version == (1, 0):
        return np.lib.format.read_array_header_1_0(stream)
    if version == (2, 0):
        return np.lib.format.read_array_header_2_0(stream)
    raise ValueError(f"unknown npy version {version}")


def _inflate(file, member: zipfile.ZipInfo, content: np.ndarray) -> None:
    """Fill ``content`` with the bytes of a deflated member, and verify its checksum."""
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        signature, name_length, extra_length = _LOCAL_HEADER.unpack_from(mapped, member.header_offset)
        if signature != b"PK\x03\x04":
            raise ValueError("no local header where the directory says")
        start = member.header_offset + _LOCAL_HEADER.size + name_length + extra_length
        if start + member.compress_size > len(mapped):
            raise ValueError("the file ends before the array")
        with memoryview(mapped) as view, view[start : start + member.compress_size] as compressed:
            imagecodecs.deflate_decode(compressed, raw=True, out=content)
    checksum: Any = getattr(imagecodecs, "deflate_crc32", zlib.crc32)  # several times as fast as zlib's
    if checksum(content) != member.CRC:
        raise ValueError("wrong checksum")
