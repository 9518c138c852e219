"""What must be known of a Decathlon task, checked before nnU-Net reads it."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from typing_extensions import TypedDict

from nnunet_nacl.errors import UserError
from nnunet_nacl.json_files import decode, read_dict

_NAME = re.compile(r"Task([0-9]{1,3})_([A-Za-z0-9.-]+)")
_FOLDERS = ("imagesTr", "labelsTr", "imagesTs")
_FOLDS = 5


class _Description(TypedDict):
    labels: dict[str, Any]
    modality: dict[str, Any]
    training: list[Any]
    test: list[Any]


@dataclass(frozen=True)
class Task:
    """A Decathlon task.

    Attributes:
        folder: Its folder.
        id: nnU-Net's dataset id.
        dataset: nnU-Net's name, `DatasetNNN_Name`.
        probabilities: Folder of the labels' true probabilities, where they are known.
    """

    folder: Path
    id: int
    dataset: str
    probabilities: Path | None


def read_task(folder: str | os.PathLike) -> Task:
    """Reads and checks a task folder.

    Args:
        folder: Named `TaskNN_Name`, with imagesTr, labelsTr, imagesTs and dataset.json.

    Raises:
        UserError: If nnUNetv2_convert_MSD_dataset would not take it; the message says what is missing.
    """
    folder = Path(os.path.abspath(folder))  # a link keeps its own name
    if not folder.is_dir():
        raise UserError(f"there is no task folder {folder}")
    name = _NAME.fullmatch(folder.name)
    if name is None:
        raise UserError(
            "a Decathlon task's folder is named TaskNN_Name, of letters, digits, '-' and '.' with one underscore, such "
            f"as Task04_Hippocampus; received {folder.name!r}: rename it, or give a link of such a name"
        )
    missing = [part for part in _FOLDERS if not (folder / part).is_dir()]
    if missing:
        raise UserError(f"{folder} is not a Decathlon task: it has no folder {', '.join(missing)}")
    content = read_dict(folder / "dataset.json")
    decode(_Description, content, f"{folder / 'dataset.json'} is not as in the Decathlon", fix="restore it")
    num_training = sum(1 for path in (folder / "labelsTr").glob("*.nii.gz") if not path.name.startswith((".", "_")))
    if num_training < _FOLDS:
        raise UserError(
            f"{folder / 'labelsTr'} holds {num_training} cases; nnU-Net's {_FOLDS} folds need at least {_FOLDS}"
        )
    probabilities = folder / "probabilitiesTr"
    known = probabilities if probabilities.is_dir() else None
    return Task(folder, int(name[1]), f"Dataset{int(name[1]):03d}_{name[2]}", known)
