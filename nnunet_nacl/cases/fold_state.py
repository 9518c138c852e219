"""How far nnU-Net has got with one fold of a model, by the files that it left."""

from __future__ import annotations

import io
import os
import zipfile
from pathlib import Path

from nnunet_nacl.errors import UserError
from nnunet_nacl.json_files import read_dict

_CHECKPOINTS = tuple(f"checkpoint_{name}.pth" for name in ("final", "latest", "best"))


def fold_state(fold_folder: Path) -> str:
    """`new`, `continue` (there is a checkpoint to resume from) or `trained`.

    A checkpoint that was cut off while it was written is renamed to ``.broken``, so that nnU-Net takes the one before.

    Raises:
        UserError: A checkpoint cannot be read.
    """
    for name in _CHECKPOINTS:
        checkpoint = fold_folder / name
        if checkpoint.is_file() and not zipfile.is_zipfile(checkpoint):
            try:  # is_zipfile says so of what cannot be read, too
                content = io.BytesIO(checkpoint.read_bytes())
            except OSError as error:
                raise UserError(
                    f"{checkpoint}: cannot be read ({error.strerror}); change its permissions, or restore it."
                ) from None
            if not zipfile.is_zipfile(content):
                os.replace(checkpoint, checkpoint.with_name(f"{name}.broken"))
    present = [name for name in _CHECKPOINTS if (fold_folder / name).is_file()]
    if not present:
        return "new"
    return "trained" if present[0] == _CHECKPOINTS[0] else "continue"


def is_validated(validation_folder: Path, *, probabilities: bool = False) -> bool:
    """Whether nnU-Net has validated to the end: it writes summary.json last.

    Args:
        validation_folder: Of the fold.
        probabilities: Each case must have its probabilities, too.
    """
    try:
        summary = read_dict(validation_folder / "summary.json")
        cases = [Path(case["prediction_file"]).name for case in summary["metric_per_case"]]
    except (UserError, KeyError, TypeError):
        return False
    if not probabilities:
        return bool(cases)
    return bool(cases) and all((validation_folder / f"{_stem(case)}.npz").is_file() for case in cases)


def _stem(file_name: str) -> str:
    return file_name.removesuffix(".gz").rsplit(".", 1)[0]
