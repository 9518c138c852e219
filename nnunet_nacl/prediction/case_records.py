"""One small file a case says that the case is finished, what came of it, and what it was made from.

It is written last and removed before anything else of the case is, so a case that has one is complete; a segmentation
without one, cut off perhaps, is never trusted.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nnunet_nacl.documents.review_list import FinishedCase
from nnunet_nacl.errors import UserError
from nnunet_nacl.files import stamp, to_json_text, write_atomically
from nnunet_nacl.json_files import decode, encode, read_dict
from nnunet_nacl.prediction.input_cases import InputCase

__all__ = ["RECORDS", "CaseRecords"]

RECORDS = "review"
_COMPUTATION = 1  # raise it when another segmentation or number comes from the same files


@dataclass(frozen=True)
class CaseRecords:
    """The records in an output folder.

    Attributes:
        output: The folder.
        settings: What every segmentation depends on beside its images, in JSON values.
    """

    output: Path
    settings: dict[str, Any]

    def finished(self, case: InputCase) -> FinishedCase | None:
        """A case that was finished from the same files with the same settings, if all that was written is there."""
        record = self._read(case.case)
        try:
            if record["signature"] != self._signature(case):
                return None
            for name, written in record["written"].items():
                if stamp(self.output / name)[1:] != written:
                    return None
            return decode(FinishedCase, record["finished"], self._path(case.case))
        except (KeyError, TypeError, AttributeError, OSError, UserError):
            return None  # never finished, from another version, or edited

    def problem(self, case: str) -> str:
        """Why a case could not be done, as an earlier run or another part found; empty if nothing is known."""
        return str(self._read(case).get("problem", ""))

    def forget(self, case: str) -> None:
        """Before a case is done again."""
        self._path(case).unlink(missing_ok=True)

    def remember(self, case: InputCase, finished: FinishedCase, written: Sequence[Path]) -> None:
        """Say that a case is finished.

        Args:
            case: Its input.
            finished: What came of it.
            written: The files of it.
        """
        record = {
            "case": case.case,
            "signature": self._signature(case),
            "written": {str(path.relative_to(self.output)): stamp(path)[1:] for path in written},
            "finished": encode(finished),
        }
        write_atomically(self._path(case.case), to_json_text(record))

    def remember_problem(self, case: str, problem: str) -> None:
        """Say why a case could not be done; where even that cannot be written, the run still ends with the problem."""
        with contextlib.suppress(UserError, UnicodeError):
            write_atomically(self._path(case), to_json_text({"case": case, "problem": problem}))

    def _path(self, case: str) -> Path:
        return self.output / RECORDS / f"{case}.json"

    def _read(self, case: str) -> dict[str, Any]:
        try:
            return read_dict(self._path(case))
        except UserError:
            return {}

    def _signature(self, case: InputCase) -> dict[str, Any]:
        inputs = [stamp(path) for path in (*case.images, case.previous)]
        return {"computation": _COMPUTATION, "settings": self.settings, "inputs": inputs}
