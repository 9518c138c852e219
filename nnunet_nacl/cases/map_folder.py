"""The output folder: what of each case lies where, and which cases an earlier run has finished."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nnunet_nacl.cases.ensemble import read_ensemble
from nnunet_nacl.cases.ensemble_members import MemberCase
from nnunet_nacl.cases.image_files import check_name
from nnunet_nacl.cases.map_images import to_dtype, write_image
from nnunet_nacl.cases.prediction_folder import PredictionFolder
from nnunet_nacl.cases.reviewed_case import ReviewedCase, review_case
from nnunet_nacl.documents.review_list import CaseReview
from nnunet_nacl.errors import UserError
from nnunet_nacl.files import remove_leftovers, stamp, to_json_text, write_atomically
from nnunet_nacl.json_files import decode, encode, read_dict

__all__ = ["REVIEW_FILE", "SETTINGS_FILE", "MapSettings", "OutputFolder"]

REVIEW_FILE = "review.csv"
SETTINGS_FILE = "uncertainty.json"

_RECORD = "review.json"
_COMPUTATION = 3  # raise it when a number or a map changes for the same files


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
        check_name(path)
        resolved = path.resolve()
        for member in members:
            member.check_output(path, REVIEW_FILE)
            folder = member.folder.resolve()
            if folder.parent == resolved and folder.name in cases:
                raise UserError(f"{path} would mix the maps of {folder.name} with {member.folder}; choose another -o.")
        for entry in os.scandir(path):
            if entry.is_file() and entry.name.endswith((".npz", members[0].file_ending)):
                raise UserError(f"{path} holds images or predictions ({entry.name}); choose another -o.")
        for folder in (path, *(path / case for case in cases)):
            remove_leftovers(folder)
        return cls(path, tuple(members), settings)

    def refusal(self, case: MemberCase) -> str:
        """Why a case can have no folder of its name beside the list, in words; empty if it can."""
        if case.case in ("", ".", "..") or case.case.casefold() in (REVIEW_FILE, SETTINGS_FILE):
            return (
                f"{case.files[0].probabilities}: no folder for maps can have the name {case.case!r}; rename the case."
            )
        return ""

    def finished(self, case: MemberCase) -> CaseReview | None:
        """The row of a case that was finished from the same files with the same settings, if its images are there."""
        record = self._read_record(case)
        try:
            if record["signature"] != self._signature(case):
                return None
            for name, size in record["files"].items():
                if (self.path / case.case / name).stat().st_size != size:
                    return None
            return decode(CaseReview, record["review"], case.case)
        except (KeyError, TypeError, ValueError, AttributeError, OSError):
            return None  # never finished, from another version, or edited: do it again

    def process(self, case: MemberCase) -> CaseReview:
        """Compute a case and write everything of it.

        Raises:
            UserError: A file cannot be read, does not fit or cannot be written; the message names it.
        """
        signature = self._signature(case)
        folder = self.path / case.case
        self._remove(case, self._read_record(case).get("files"))
        found, members = read_ensemble(self.members, case)
        try:
            computed = review_case(found, members=members, maps=self.settings.maps)
        except ValueError as error:
            raise UserError(f"{case.files[0].probabilities}: {error}; predict this case again.") from None
        files: dict[str, int] = {}
        try:
            for name, array in self._images(computed).items():
                path = folder / f"{case.case}_{name}{self.members[0].file_ending}"
                for written in write_image(array, path, found.geometry):
                    files[written.name] = written.stat().st_size
            record = {"signature": signature, "files": files, "review": encode(computed.row)}
            write_atomically(folder / _RECORD, to_json_text(record))
        except BaseException:
            self._remove(case, files)
            raise
        return computed.row

    def _images(self, computed: ReviewedCase) -> dict[str, Any]:
        labels, settings = self.members[0].labels, self.settings
        images = {name: to_dtype(values, settings.dtype) for name, values in computed.maps.items()}
        images["segmentation"] = computed.case.segmentation.astype("uint8" if max(labels.known) < 256 else "uint16")
        if settings.probabilities:
            probs = computed.case.probabilities.whole()
            for channel, name in enumerate(labels.names):
                plain = re.sub(r"[^A-Za-z0-9.-]+", "-", name).strip("-.")
                images[f"probability_{channel}_{plain}"] = to_dtype(probs[channel], settings.dtype)
        return images

    def _remove(self, case: MemberCase, files: Any) -> None:
        """Remove a case's images: those of other predictions must not lie beside the new ones.

        Nor in their place, if the new ones cannot be made.
        """
        folder = self.path / case.case
        (folder / _RECORD).unlink(missing_ok=True)
        for name in files if isinstance(files, dict) else ():
            if Path(name).name == name and name.startswith(f"{case.case}_"):
                (folder / name).unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # the user's own files may be there
            folder.rmdir()

    def _read_record(self, case: MemberCase) -> dict[str, Any]:
        try:
            return read_dict(self.path / case.case / _RECORD)
        except UserError:
            return {}

    def _signature(self, case: MemberCase) -> dict[str, Any]:
        """What the images depend on: files by path, size and time, the labels, and the settings."""
        labels = self.members[0].labels
        return {
            "computation": _COMPUTATION,
            "settings": [list(self.settings.maps), self.settings.dtype, self.settings.probabilities],
            "labels": [list(pair) for pair in zip(labels.names, labels.listed)],
            "inputs": [[stamp(files.probabilities), stamp(files.segmentation)] for files in case.files],
        }
