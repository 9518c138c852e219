"""Downloads a task of the Medical Segmentation Decathlon, checks its MD5 and unpacks it."""

from __future__ import annotations

import hashlib
import os
import shutil
import tarfile
import urllib.request
from http.client import HTTPException
from pathlib import Path, PurePosixPath

from tqdm import tqdm

from nnunet_nacl.errors import UserError
from nnunet_nacl.files import checksum, temporary_folder

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


def download_task(task: str, folder: Path) -> Path:
    """Downloads and unpacks one Decathlon task into a folder, unless it is there already; gives the task's folder.

    What an interrupted download has left is continued. The archive is unpacked only if its MD5 is right, and removed
    afterwards; the task's folder appears when it is complete.

    Raises:
        UserError: There is no such task, the server cannot be reached, the download breaks off, or the MD5 is wrong.
    """
    if task not in MD5:
        raise UserError(f"there is no Decathlon task {task!r}; choose one of {', '.join(MD5)}")
    target, archive = folder / task, folder / f"{task}.tar.part"
    if (target / "dataset.json").is_file():
        return target
    if target.exists():
        raise UserError(f"{target} exists but holds no dataset.json; remove it to download the task")
    folder.mkdir(parents=True, exist_ok=True)
    url = f"{(os.environ.get(BASE_URL_VARIABLE) or BASE_URL).rstrip('/')}/{task}.tar"
    _fetch(url, archive)
    received = checksum(archive, hashlib.md5(usedforsecurity=False))
    if received != MD5[task]:  # what an earlier run has left may be of another version, or damaged
        archive.unlink()
        raise UserError(
            f"{url} has the MD5 {received}, but {MD5[task]} is published: the download was damaged or the file is not "
            "the Decathlon's. It was removed; run again to download it anew"
        )
    with tarfile.open(archive) as tar, temporary_folder(folder) as unpacked:
        tar.extractall(unpacked, members=[member for member in tar if _is_of_task(member, task)])
        os.replace(unpacked / task, target)
    archive.unlink()
    return target


def _is_of_task(member: tarfile.TarInfo, task: str) -> bool:
    """A regular file in the task's folder, but for the companions (._*) that macOS makes."""
    parts = PurePosixPath(member.name).parts
    return member.isreg() and parts[0] == task and ".." not in parts and not parts[-1].startswith("._")


def _fetch(url: str, archive: Path) -> None:
    """Fetches url into archive, continuing what is there if the server can."""
    have = archive.stat().st_size if archive.is_file() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    look = {"unit": "B", "unit_scale": True, "unit_divisor": 1024, "desc": archive.name.removesuffix(".part")}
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            have = have if response.status == 206 else 0
            total = have + int(response.headers.get("Content-Length") or 0)
            bar = tqdm.wrapattr(response, "read", total=total, initial=have, **look)
            with open(archive, "ab" if have else "wb") as file, bar as body:
                shutil.copyfileobj(body, file)
        if archive.stat().st_size < total:
            raise HTTPException(f"the connection broke off after {archive.stat().st_size} of {total} bytes")
    except (OSError, HTTPException) as error:
        if getattr(error, "code", None) == 416:  # nothing left to send: complete, or not what it was; the MD5 tells
            return
        raise UserError(
            f"cannot download {url} ({error}); run again to continue. Is this computer offline? {BASE_URL_VARIABLE} "
            "names another mirror, `--data TASK_FOLDER` takes a task that is already here, and without --data or "
            "--download the demo makes its own data"
        ) from error
