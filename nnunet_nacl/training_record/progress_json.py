"""The file calibration_progress.json: one line per epoch, rewritten as a whole each time."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from typing_extensions import TypedDict

import nnunet_nacl
from nnunet_nacl.errors import UserError
from nnunet_nacl.files import write_atomically
from nnunet_nacl.json_files import decode, read_dict

__all__ = ["FILE_NAME", "SCHEMA_VERSION", "TrainingRecord", "read_training_record"]

FILE_NAME = "calibration_progress.json"
SCHEMA_VERSION = 1


class _Epoch(TypedDict):
    epoch: int
    calibration: dict[str, Any]
    max_logit: dict[str, Any]
    mean_logits: list[Any] | None
    n_class_voxels: list[Any]


class _Record(TypedDict):
    regions: bool
    channels: list[Any]
    true_classes: list[Any]
    n_bins: int
    max_logit_bins: dict[str, Any]
    epochs: list[_Epoch]


class TrainingRecord:
    """The epochs of a training, in memory and in a file.

    Args:
        header: What holds for all epochs: ``regions``, ``channels``, ``true_classes``, ``n_bins``, ``max_logit_bins``
            and whatever names the training.

    Attributes:
        epochs: Entries of :meth:`EpochSums.entry <nnunet_nacl.training_record.epoch_sums.EpochSums.entry>`, ascending.
    """

    def __init__(self, header: dict[str, Any]) -> None:
        version = f"nnunet_nacl {nnunet_nacl.__version__}"
        self.header = {"schema_version": SCHEMA_VERSION, "generated_by": version, **header}
        self.epochs: list[dict[str, Any]] = []
        # Each epoch is turned into text once: with a thousand of them that would else take longer than the epoch may.
        self._lines: list[str] = []

    def append(self, entry: dict[str, Any]) -> None:
        """Add an epoch; one of the same number or a later one, of a training that was continued, is dropped."""
        line = json.dumps(entry, allow_nan=False)
        self.keep(lambda old: old["epoch"] < entry["epoch"])
        self.epochs.append(entry)
        self._lines.append(line)

    def keep(self, condition: Callable[[dict[str, Any]], bool]) -> None:
        """Drop the epochs for which the condition is false."""
        kept = [i for i, entry in enumerate(self.epochs) if condition(entry)]
        if len(kept) < len(self.epochs):
            self.epochs = [self.epochs[i] for i in kept]
            self._lines = [self._lines[i] for i in kept]

    def same_kind(self, header: dict[str, Any]) -> bool:
        """Whether epochs under another header can stand beside these: the same classes and bins."""
        keys = ("regions", "channels", "true_classes", "n_bins", "max_logit_bins")
        return all(self.header.get(key) == header.get(key) for key in keys)

    def to_dict(self) -> dict[str, Any]:
        """What :func:`read_training_record` gives back."""
        return {**self.header, "epochs": self.epochs}

    def write(self, path: str | os.PathLike) -> None:
        """Write the file atomically: whoever reads it finds the old one or the new one.

        Raises:
            UserError: It cannot be written.
        """
        head = json.dumps(self.header, indent=1, allow_nan=False)[:-2]  # without the closing brace
        lines = ",\n  ".join(self._lines)
        text = f'{head},\n "epochs": [\n  {lines}\n ]\n}}\n'
        write_atomically(Path(path), text, fix="free some space, or change the folder's permissions")


def read_training_record(path: str | os.PathLike) -> dict[str, Any]:
    """The content of a calibration_progress.json.

    Args:
        path: The file, or the fold folder that holds it.

    Returns:
        A dictionary; the epochs are under ``epochs``, ascending.

    Raises:
        UserError: It cannot be read, or is none of these files or of another version.
    """
    path = Path(path)
    if path.is_dir():
        path = path / FILE_NAME
    record = read_dict(path)
    version = record.get("schema_version")
    if version != SCHEMA_VERSION:
        raise UserError(
            f"{path}: expected schema_version {SCHEMA_VERSION}, got {version!r}; "
            "read it with the version of nnunet_nacl that wrote it."
        )
    decode(_Record, record, f"{path}: not the record of a training", fix=f"give the {FILE_NAME} of a fold folder")
    return record
