"""Reads one array of an npz file, with the fastest inflater at hand.

Nearly all the time of an evaluation goes into decompressing nnU-Net's probabilities. `imagecodecs`, which nnU-Net
brings along, inflates them in about half the time that NumPy's reader takes.
"""

from __future__ import annotations

import io
import mmap
import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np

from nnunet_nacl.errors import UserError

try:
    import imagecodecs
except ImportError:  # nnU-Net may drop it one day; NumPy can read the files too
    imagecodecs = None

__all__ = ["read_array"]

_LOCAL_HEADER = struct.Struct("<4s22x2H")  # signature, ..., length of the name, length of the extra field
_MOST_INFLATION = 1040  # deflate cannot do more than 1032


def read_array(path: Path, name: str, *, hint: str = "write it again") -> np.ndarray:
    """Read the array ``name`` of an npz file, its checksum verified.

    Args:
        path: The file.
        name: Key of the array.
        hint: What the user can do if the file is broken.

    Returns:
        The array.

    Raises:
        UserError: The file is missing, cut off, corrupt, or has no such array.
    """
    try:
        with open(path, "rb") as file, zipfile.ZipFile(file) as archive:
            try:
                member = archive.getinfo(f"{name}.npy")
            except KeyError:
                keys = ", ".join(repr(key.removesuffix(".npy")) for key in archive.namelist()) or "nothing"
                raise UserError(f"{path}: no array {name!r} in this file, it holds {keys}; {hint}.") from None
            if imagecodecs is not None and member.compress_type == zipfile.ZIP_DEFLATED and member.file_size:
                return _inflate(file, member)
            with archive.open(member) as stream:
                content = stream.read()
            if len(content) != member.file_size:
                raise ValueError("the directory promises another size than the array has")
            return np.lib.format.read_array(io.BytesIO(content), allow_pickle=False)
    except UserError:
        raise
    except FileNotFoundError:
        raise UserError(f"{path} is missing; {hint}.") from None
    except PermissionError:
        raise UserError(f"{path}: no permission to read it; change its mode or owner.") from None
    except MemoryError:
        raise
    except Exception as error:  # zip, zlib, npy and imagecodecs each raise their own kinds on broken bytes
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"{path}: truncated or corrupt ({reason}); {hint}.") from error


def _inflate(file, member: zipfile.ZipInfo) -> np.ndarray:
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        signature, name_length, extra_length = _LOCAL_HEADER.unpack_from(mapped, member.header_offset)
        if signature != b"PK\x03\x04":
            raise ValueError("no local header where the directory says")
        start = member.header_offset + _LOCAL_HEADER.size + name_length + extra_length
        if start + member.compress_size > len(mapped):
            raise ValueError("the file ends before the array")
        with memoryview(mapped) as view, view[start : start + member.compress_size] as compressed:
            if member.file_size > _MOST_INFLATION * (member.compress_size + 1):
                raise ValueError("the directory promises more than so few bytes can hold")
            content = np.empty(member.file_size, dtype=np.uint8)
            imagecodecs.deflate_decode(compressed, raw=True, out=content)
    checksum = getattr(imagecodecs, "deflate_crc32", zlib.crc32)  # several times as fast as zlib's
    if checksum(content) != member.CRC:
        raise ValueError("wrong checksum")
    return _as_array(content)


def _as_array(content: np.ndarray) -> np.ndarray:
    header = io.BytesIO(content[:65536].tobytes())
    version = np.lib.format.read_magic(header)
    read_header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    if version not in read_header:
        raise ValueError(f"unknown npy version {version}")
    shape, fortran_order, dtype = read_header[version](header)
    if dtype.hasobject:
        raise ValueError("holds Python objects")
    array = content[header.tell() :].view(dtype)
    return array.reshape(shape, order="F" if fortran_order else "C")
