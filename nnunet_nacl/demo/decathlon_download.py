"""Downloads a task of the Medical Segmentation Decathlon, checks its MD5 and unpacks it."""

from __future__ import annotations

import hashlib
import os
import shutil
import ssl
import tarfile
import urllib.error
import urllib.request
from http.client import HTTPException
from pathlib import Path, PurePosixPath

from tqdm import tqdm

from nnunet_nacl.errors import UserError
from nnunet_nacl.files import checksum

BASE_URL = "https://msd-for-monai.s3-us-west-2.amazonaws.com"
"""The Decathlon's public mirror, as MONAI's DecathlonDataset names it."""

BASE_URL_VARIABLE = "NNUNET_NACL_DECATHLON_URL"
"""Environment variable that names another mirror."""

# As published in MONAI's monai/apps/datasets.py (class DecathlonDataset, Apache-2.0).
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

_CHUNK_BYTES = 1 << 20
_TIMEOUT_S = 60.0  # longest wait for an answer


def download_task(task: str, folder: Path) -> Path:
    """Downloads and unpacks one Decathlon task, unless it is there already.

    What an interrupted download has left is continued. The archive is unpacked only if its MD5 is right, and removed
    afterwards; the task's folder appears when it is complete.

    Args:
        task: Name of the task, such as `Task04_Hippocampus`.
        folder: Where the task's folder is to be.

    Returns:
        The task's folder.

    Raises:
        UserError: If there is no such task, the server cannot be reached, the download breaks off, the MD5 is wrong or
            the archive holds something that it should not.
    """
    if task not in MD5:
        raise UserError(f"there is no Decathlon task {task!r}; choose one of {', '.join(MD5)}")
    target = folder / task
    if (target / "dataset.json").is_file():
        return target
    if target.exists():
        raise UserError(f"{target} exists but holds no dataset.json; remove it to download the task")
    base_url = (os.environ.get(BASE_URL_VARIABLE) or BASE_URL).rstrip("/")
    folder.mkdir(parents=True, exist_ok=True)
    archive = folder / f"{task}.tar.part"
    _fetch_checked(f"{base_url}/{task}.tar", archive, MD5[task])
    _unpack(archive, target)
    archive.unlink()
    return target


def _fetch_checked(url: str, archive: Path, md5: str) -> None:
    # What an earlier run has left may be of another version, or damaged: then once more from the start.
    for _ in range(2 if archive.is_file() and archive.stat().st_size > 0 else 1):
        _fetch(url, archive)
        received = checksum(archive, hashlib.md5(usedforsecurity=False))
        if received == md5:
            return
        archive.unlink()
    raise UserError(
        f"{url} has the MD5 {received}, but {md5} is published: the download was damaged or the file "
        "is not the Decathlon's. It was removed; run again to download it anew"
    )


def _fetch(url: str, archive: Path) -> None:
    """Fetches url into archive, continuing what is there if the server can."""
    have = archive.stat().st_size if archive.is_file() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as response:
            if response.status != 206:
                have = 0
            length = response.headers.get("Content-Length")
            total = have + int(length) if length is not None else None
            units = {"unit": "B", "unit_scale": True, "unit_divisor": 1024, "desc": archive.name.removesuffix(".part")}
            bar = tqdm(total=total, initial=have, **units)
            with open(archive, "ab" if have else "wb") as file, bar:
                while chunk := response.read(_CHUNK_BYTES):
                    file.write(chunk)
                    bar.update(len(chunk))
    except urllib.error.HTTPError as error:
        if error.code == 416:  # nothing left to send: complete, or not what it was; the MD5 tells
            return
        raise UserError(
            f"{url} answered {error.code} {error.reason}; if the mirror has moved, name another with the "
            f"environment variable {BASE_URL_VARIABLE}"
        ) from error
    except (urllib.error.URLError, HTTPException, ConnectionError, TimeoutError, ssl.SSLError) as error:
        reason = getattr(error, "reason", None) or error
        raise UserError(
            f"cannot download {url} ({reason}). Is this computer offline? Run again later to continue; "
            "`--data TASK_FOLDER` takes a task that is already here, and without --data or --download "
            "the demo makes its own data"
        ) from error
    if total is not None and archive.stat().st_size < total:
        raise UserError(
            f"the connection to {url} broke off after {archive.stat().st_size} of {total} bytes; "
            "run again to continue from there"
        )


def _unpack(archive: Path, target: Path) -> None:
    """Unpacks the regular files under the task's own folder; anything outside it is refused."""
    unfinished = target.with_name(f".{target.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    try:
        with tarfile.open(archive) as tar:
            for member in tar:
                parts = PurePosixPath(member.name).parts
                if not parts or parts[-1].startswith("._") or member.isdir():  # ._: AppleDouble companions
                    continue
                outside = parts[0] != target.name or ".." in parts or "\\" in member.name or ":" in member.name
                if outside or not member.isreg():
                    why = "lies outside of its folder" if outside else "is neither a file nor a folder"
                    raise UserError(f"the archive of {target.name} holds {member.name!r}, which {why}: not unpacked")
                path = unfinished.joinpath(*parts[1:])
                path.parent.mkdir(parents=True, exist_ok=True)
                source = tar.extractfile(member)
                assert source is not None  # it is a regular file
                with source, open(path, "wb") as file:
                    shutil.copyfileobj(source, file, _CHUNK_BYTES)
        if not (unfinished / "dataset.json").is_file():
            raise UserError(f"the archive of {target.name} holds no {target.name}/dataset.json: not unpacked")
        os.replace(unfinished, target)
    except tarfile.TarError as error:
        raise UserError(f"the archive of {target.name} cannot be read: {error}") from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
