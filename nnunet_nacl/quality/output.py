"""The output folder: what of each case lies where, and which cases an earlier run has finished."""

from __future__ import annotations

import contextlib
import json
import os
import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nnunet_nacl.errors import UserError
from nnunet_nacl.evaluation.prediction_folder import PredictionFolder
from nnunet_nacl.files import to_json_text, write_atomically
from nnunet_nacl.quality.case import ComputedCase, compute_case
from nnunet_nacl.quality.images import TEMPORARY_PREFIX, to_dtype, write_image
from nnunet_nacl.quality.members import MemberCase
from nnunet_nacl.quality.review import CaseReview

__all__ = ["OutputFolder", "MapSettings"]

_RECORD = "review.json"
_COMPUTATION = 1  # raise it when a number or a map changes for the same files


@dataclass(frozen=True)
class MapSettings:
    """Which images are written: names of maps, their type, and whether the probabilities are written too."""

    maps: tuple[str, ...]
    dtype: str = "uint8"
    probabilities: bool = False


@dataclass(frozen=True)
class OutputFolder:
    """Where the maps go: ``path/CASE/CASE_MAP`` with the data set's file ending.

    Beside them lies ``review.json``, the case's row and what it came from. It is written last and removed before
    anything else is, so a case with that file is complete.
    """

    path: Path
    members: tuple[PredictionFolder, ...]
    settings: MapSettings

    @classmethod
    def open(
        cls, path: str | os.PathLike, members: Sequence[PredictionFolder], settings: MapSettings, cases: Sequence[str]
    ) -> OutputFolder:
        """Make the folder.

        Raises:
            UserError: It is an input folder, lies in one or holds images, or cannot be written to. nnU-Net takes every
                image of a folder for a case, so maps must not get there.
        """
        path = Path(path)
        resolved = path.resolve()
        for member in members:
            folder = member.folder.resolve()
            if resolved == folder or folder in resolved.parents:
                raise UserError(
                    f"{path} is or lies in the folder of predictions {member.folder}, where nnU-Net takes every image "
                    "for a case; choose another -o."
                )
            if folder.parent == resolved and folder.name in cases:
                raise UserError(f"{path} would mix the maps of {folder.name} with {member.folder}; choose another -o.")
        if path.exists() and not path.is_dir():
            raise UserError(f"{path} is a file; give -o a folder.")
        if path.is_dir():
            for entry in os.scandir(path):
                if entry.is_file() and entry.name.endswith((".npz", members[0].file_ending)):
                    raise UserError(f"{path} holds images or predictions ({entry.name}); choose another -o.")
        try:
            path.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=path):
                pass
        except OSError as error:
            raise UserError(f"{path}: no file can be written there ({error.strerror}); choose another -o.") from None
        return cls(path, tuple(members), settings)

    def finished(self, case: MemberCase) -> CaseReview | None:
        """The row of a case that was finished from the same files with the same settings, if its images are there."""
        record = self._read_record(case)
        try:
            if record["signature"] != self._signature(case):
                return None
            for name, size in record["files"].items():
                if (self.path / case.case / name).stat().st_size != size:
                    return None
            return CaseReview.from_json(record["review"])
        except (KeyError, TypeError, ValueError, AttributeError, OSError):
            return None  # never finished, from another version, or edited: do it again

    def process(self, case: MemberCase) -> CaseReview:
        """Compute a case and write everything of it.

        Raises:
            UserError: A file cannot be read, does not fit or cannot be written; the message names it.
        """
        signature = self._signature(case)
        folder = self.path / case.case
        self._clean(folder, case)
        computed = compute_case(self.members, case, self.settings.maps)
        files = {}
        for name, array in self._images(computed).items():
            path = folder / f"{case.case}_{name}{self.members[0].file_ending}"
            for written in write_image(array, path, computed.properties):
                files[written.name] = written.stat().st_size
        record = {"signature": signature, "files": files, "review": computed.review.to_json()}
        write_atomically(folder / _RECORD, to_json_text(record))
        return computed.review

    def _images(self, computed: ComputedCase) -> dict[str, Any]:
        labels, settings = self.members[0].labels, self.settings
        images = {name: to_dtype(values, settings.dtype) for name, values in computed.maps.items()}
        images["segmentation"] = computed.segmentation.astype("uint8" if max(labels.known) < 256 else "uint16")
        if settings.probabilities:
            for channel, name in enumerate(labels.names):
                plain = re.sub(r"[^A-Za-z0-9.-]+", "-", name).strip("-.")
                images[f"probability_{channel}_{plain}"] = to_dtype(computed.probs[channel], settings.dtype)
        return images

    def _clean(self, folder: Path, case: MemberCase) -> None:
        """Remove what an earlier run wrote: maps of other predictions must not lie beside the new ones.

        Nor in their place, if the new ones cannot be made.
        """
        record = self._read_record(case)
        (folder / _RECORD).unlink(missing_ok=True)
        if not folder.is_dir():
            return
        for name in record.get("files", {}) if isinstance(record.get("files"), dict) else ():
            if Path(name).name == name and name.startswith(f"{case.case}_"):
                (folder / name).unlink(missing_ok=True)
        for leftover in folder.glob(f"{TEMPORARY_PREFIX}*"):
            leftover.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # the user's own files may be there
            folder.rmdir()

    def _read_record(self, case: MemberCase) -> dict[str, Any]:
        try:
            record = json.loads((self.path / case.case / _RECORD).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return record if isinstance(record, dict) else {}

    def _signature(self, case: MemberCase) -> dict[str, Any]:
        """What the images depend on: files by path, size and time, the labels, and the settings."""

        def stamp(path: Path | None) -> list:
            if path is None:
                return []
            status = path.stat()
            return [str(path.resolve()), status.st_size, status.st_mtime_ns]

        labels = self.members[0].labels
        return {
            "computation": _COMPUTATION,
            "settings": [list(self.settings.maps), self.settings.dtype, self.settings.probabilities],
            "labels": [[name, list(v) if isinstance(v, tuple) else v] for name, v in zip(labels.names, labels.values)],
            "inputs": [[stamp(files.probabilities), stamp(files.segmentation)] for files in case.files],
        }
