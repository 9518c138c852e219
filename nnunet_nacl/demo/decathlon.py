"""Tasks of the Medical Segmentation Decathlon: downloaded, and checked before nnU-Net reads them."""

from __future__ import annotations

import hashlib
import os
import re
import socket
import tarfile
from http.client import HTTPException
from pathlib import Path, PurePosixPath

from nnunet_nacl.errors import UserError
from nnunet_nacl.files import checksum, temporary_folder
from nnunet_nacl.json_files import read_dict

BASE_URL = "https://msd-for-monai.s3-us-west-2.amazonaws.com"
"""The Decathlon's public mirror; the environment variable BASE_URL_VARIABLE names another."""
BASE_URL_VARIABLE = "NNUNET_NACL_DECATHLON_URL"

# Mirror and MD5 as published in MONAI's monai/apps/datasets.py (class DecathlonDataset, Apache-2.0).
MD5 = {
    "Task01_BrainTumour": "240a19d752f0d9e9101544901065d872",
    "Task02_Heart": "06ee59366e1e5124267b774dbd654057",
    "Task03_Liver": "a90ec6c4aa7f6a3d087205e23d4e6397",
    "Task04_Hippocampus": "9d24dba78a72977dbd1d2e110310f31b",
    "Task05_Prostate": "35138f08b1efaef89d7424d2bcc928db",
    "Task06_Lung": "8afd997733c7fc0432f71255ba4e52dc",
    "Task07_Pancreas": "4f7080cfca169fa8066d17ce6eb061e4",
    "Task08_HepaticVessel": "641d79e80ec66453921d997fbf12a29c",
    "Task09_Spleen": "410d4a301da4e5b2f6f86ec3ddba524e",
    "Task10_Colon": "bad7a188931dc2f6acf72b08eb6202d0",
}


_FOLDS = 5


def dataset_of(task: Path) -> str:
    """nnU-Net's name of a task, `DatasetNNN_Name`.

    Args:
        task: Folder named `TaskNN_Name`, with imagesTr, labelsTr, imagesTs and dataset.json.

    Raises:
        UserError: If nnUNetv2_convert_MSD_dataset would not take it; the message says what is missing.
    """
    if not task.is_dir():
        raise UserError(f"there is no task folder {task}")
    name = re.fullmatch(r"Task([0-9]{1,3})_([A-Za-z0-9.-]+)", task.name)
    if name is None:
        raise UserError(
            "a Decathlon task's folder is named TaskNN_Name, of letters, digits, '-' and '.' with one underscore, such "
            f"as Task04_Hippocampus; received {task.name!r}: rename it, or give a link of such a name"
        )
    missing = [part for part in ("imagesTr", "labelsTr", "imagesTs") if not (task / part).is_dir()]
    if missing:
        raise UserError(f"{task} is not a Decathlon task: it has no folder {', '.join(missing)}")
    lacking = {"labels", "modality", "training", "test"} - read_dict(task / "dataset.json").keys()
    if lacking:
        raise UserError(f"{task / 'dataset.json'} is not as in the Decathlon: it has no {', '.join(sorted(lacking))}")
    num_training = sum(1 for path in (task / "labelsTr").glob("*.nii.gz") if not path.name.startswith((".", "_")))
    if num_training < _FOLDS:
        raise UserError(
            f"{task / 'labelsTr'} holds {num_training} cases; nnU-Net's {_FOLDS} folds need at least {_FOLDS}"
        )
    return f"Dataset{int(name[1]):03d}_{name[2]}"


def download_task(task: str, folder: Path) -> None:
    """Downloads and unpacks one Decathlon task into a folder, unless it is there already.

    The archive is unpacked only if its MD5 is right; the task's folder appears when it is complete.

    Raises:
        UserError: There is no such task, the server cannot be reached, or the MD5 is wrong, as after a download that
            broke off.
    """
    from torch.hub import download_url_to_file

    if task not in MD5:
        raise UserError(f"there is no Decathlon task {task!r}; choose one of {', '.join(MD5)}")
    target = folder / task
    if (target / "dataset.json").is_file():
        return
    if target.exists():
        raise UserError(f"{target} exists but holds no dataset.json; remove it to download the task")
    url = f"{(os.environ.get(BASE_URL_VARIABLE) or BASE_URL).rstrip('/')}/{task}.tar"
    with temporary_folder(folder) as unfinished:
        archive = unfinished / f"{task}.tar"
        socket.setdefaulttimeout(60)  # s; it has none of its own
        try:
            download_url_to_file(url, str(archive))
        except (OSError, HTTPException) as error:
            raise UserError(
                f"cannot download {url} ({error}). Is this computer offline? {BASE_URL_VARIABLE} names another mirror, "
                "`--data TASK_FOLDER` takes a task that is already here, and without --data or --download the demo "
                "makes its own data"
            ) from error
        received = checksum(archive, hashlib.md5(usedforsecurity=False))
        if received != MD5[task]:
            raise UserError(
                f"{url} has the MD5 {received}, but {MD5[task]} is published: the download was damaged or the file is "
                "not the Decathlon's. It was removed; run again to download it anew"
            )
        with tarfile.open(archive) as tar:
            tar.extractall(unfinished, members=[member for member in tar if _is_of_task(member, task)])
        os.replace(unfinished / task, target)


def _is_of_task(member: tarfile.TarInfo, task: str) -> bool:
    """A regular file in the task's folder, but for the companions (._*) that macOS makes."""
    parts = PurePosixPath(member.name).parts
    return member.isreg() and parts[0] == task and ".." not in parts and not parts[-1].startswith("._")
