"""Reads checkpoints: the one place where a pickle that others made is opened."""

from __future__ import annotations

import pickle
import re
import zipfile
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from typing_extensions import NotRequired, TypedDict

from nnunet_nacl.errors import UserError, describe
from nnunet_nacl.files import regular_only
from nnunet_nacl.json_files import decode, first_line

TRUSTED: ContextVar[bool] = ContextVar("TRUSTED", default=False)
"""Whether checkpoints may hold and plans may name anything, as the user said with --trust_checkpoint."""

IF_TRUSTED = "If you know who made it, pass --trust_checkpoint; else do not use it."

CAN_HOLD_CODE = "a model can hold code, which nnU-Net's own commands run: take models from people that you trust"


class _InitArgs(TypedDict):
    configuration: str


class _Checkpoint(TypedDict):
    network_weights: dict[str, Any]
    trainer_name: str
    init_args: _InitArgs
    inference_allowed_mirroring_axes: NotRequired[tuple[int, ...] | None]


def read_checkpoint(path: Path, *, mmap: bool = False) -> dict[str, Any]:
    """The content of a checkpoint of nnU-Net, on the CPU.

    Unless checkpoints are trusted, one that holds more than tensors, plain values and NumPy's numbers is refused:
    nnU-Net itself, which may be given the file afterwards, loads and runs whatever it finds.

    Args:
        path: The file.
        mmap: Leave the weights on the disk, for those who want the rest alone.

    Raises:
        UserError: It is missing, unreadable, damaged, no checkpoint of nnU-Net, or holds more than that.
    """
    import torch

    try:
        open(path, "rb", opener=regular_only).close()
    except FileNotFoundError:
        raise UserError(f"{path}: no such checkpoint; finish the training, or name another with -chk.") from None
    except OSError as error:
        raise UserError(describe(error, path)) from None
    mmap = mmap and zipfile.is_zipfile(path)  # PyTorch's form before 1.6 is none, and is read as a whole
    try:
        with torch.serialization.safe_globals([(made, name) for name, made in NUMBERS_OF_NUMPY.items()]):
            content = torch.load(path, map_location="cpu", weights_only=not TRUSTED.get(), mmap=mmap)
    except Exception as error:  # torch raises anything on broken bytes
        if "Weights only load failed" in str(error) and zipfile.is_zipfile(path):
            problem = next((line for line in str(error).splitlines() if "GLOBAL" in line or "Unsupported" in line), "")
            problem = problem.rpartition("WeightsUnpickler error:")[2].strip() or "more than these is in it"
            raise UserError(
                f"{path}: cannot be read as a checkpoint of weights and numbers alone ({problem}): it can hold code. "
                f"{IF_TRUSTED}"
            ) from None
        raise UserError(f"{path}: cannot be read as a checkpoint ({first_line(error)}); restore it.") from None
    decode(_Checkpoint, content, f"{path}: not a checkpoint of nnU-Net", fix="give one that nnUNetv2_train wrote")
    return content


class _Number:
    """Stands for numpy.dtype while a pickle is read.

    NumPy's own believes whatever flags and fields a pickle gives it, and takes bytes of the file for addresses.
    """

    def __init__(self, name: str, *options: bool) -> None:
        self.name, self.order = name, "="

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.order = state[1]
        if state != (3, self.order, None, None, None, -1, -1, 0):
            raise pickle.UnpicklingError("Unsupported state of numpy.dtype")


def _scalar(number: _Number, data: bytes) -> Any:
    """Stands for NumPy's ``scalar``: a bool, a whole or a floating-point number."""
    import numpy as np

    kind = f"{number.order}{number.name}"
    if not re.fullmatch("[<>|=](b1|[iu][1248]|f[248])", kind):
        raise pickle.UnpicklingError(f"Unsupported numpy.dtype {kind!r}")
    return np.frombuffer(data, kind, 1)[0]


NUMBERS_OF_NUMPY: dict[str, Any] = {"numpy.dtype": _Number}
NUMBERS_OF_NUMPY |= {f"numpy.{core}.multiarray.scalar": _scalar for core in ("core", "_core")}
"""What stands for the names by which pickles of NumPy 1 and 2 make numbers."""
