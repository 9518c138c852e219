"""Reads and writes checkpoints: the one place where a pickle that others made is opened."""

from __future__ import annotations

import errno
import os
import zipfile
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from nnunet_nacl.errors import UserError
from nnunet_nacl.json_files import first_line

TRUSTED: ContextVar[bool] = ContextVar("TRUSTED", default=False)
"""Whether checkpoints may hold anything, as the user said with --trust_checkpoint."""

CAN_HOLD_CODE = "a checkpoint can hold code, which runs when nnU-Net loads it: take models from people that you trust"


def read_checkpoint(path: Path, *, mmap: bool = False) -> dict[str, Any]:
    """The content of a checkpoint of nnU-Net, on the CPU.

    Unless checkpoints are trusted, one that holds more than tensors, plain values and NumPy's numbers is refused:
    nnU-Net itself, which may be given the file afterwards, loads and runs whatever it finds.

    Args:
        path: The file.
        mmap: Leave the weights on the disk, for those who want the rest alone.

    Raises:
        UserError: It is missing, damaged, no checkpoint of nnU-Net, or holds more than that.
    """
    import torch

    trusted = TRUSTED.get()
    try:
        with torch.serialization.safe_globals(_numbers_of_numpy()):
            content = torch.load(path, map_location="cpu", weights_only=not trusted, mmap=mmap)
    except FileNotFoundError:
        raise UserError(f"{path}: no such checkpoint; finish the training, or name another with -chk.") from None
    except Exception as error:  # torch raises anything on broken bytes
        if "Weights only load failed" in str(error) and zipfile.is_zipfile(path):
            problem = next((line for line in str(error).splitlines() if "GLOBAL" in line or "Unsupported" in line), "")
            problem = problem.partition("WeightsUnpickler error:")[2].strip() or "more than these is in it"
            raise UserError(
                f"{path}: cannot be read as a checkpoint of weights and numbers alone ({problem}): it can hold code. "
                "If you know who made it, pass --trust_checkpoint; else do not use it."
            ) from None
        raise UserError(f"{path}: cannot be read as a checkpoint ({first_line(error)}); restore it.") from None
    if not isinstance(content, dict) or not {"network_weights", "trainer_name", "init_args"} <= content.keys():
        raise UserError(f"{path}: not a checkpoint of nnU-Net; give one that nnUNetv2_train wrote.")
    return content


def _numbers_of_numpy() -> list[Any]:
    """What the log in nnU-Net's checkpoints needs, under the names of NumPy 1 and 2."""
    import numpy as np

    scalar = np.float64(0).__reduce__()[0]
    kinds = [getattr(np.dtypes, name) for name in np.dtypes.__all__]
    names = ("numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar")
    return [np.dtype, *kinds, *((scalar, name) for name in names)]


def write_checkpoint(content: dict[str, Any], path: Path) -> None:
    """Write a new file, to the disk; OSError where that is not possible, in place of torch's RuntimeError."""
    import torch

    try:
        with open(path, "xb") as file:
            torch.save(content, file)
            os.fsync(file.fileno())
    except RuntimeError as error:
        raise OSError(errno.ENOSPC, first_line(error)) from None
