"""Measures a case, draws its pictures and writes its files; runs in a worker process."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_nacl.case.case import Case
from nnunet_nacl.case.measure import Views, measure
from nnunet_nacl.case.probabilities import CalibratedProbabilities
from nnunet_nacl.case.record import CaseRecord, file_key, table
from nnunet_nacl.dicom.output import DicomMaker
from nnunet_nacl.json_files import encode
from nnunet_nacl.nnunet.output import write_case
from nnunet_nacl.nnunet.prediction_folder import PredictionFolder
from nnunet_nacl.nnunet.records import Work
from nnunet_nacl.review.list_files import structure_columns
from nnunet_nacl.review.pictures import draw_scan
from nnunet_nacl.review.predicted_quality import QualityOfMap
from nnunet_nacl.review.review_list import completed


@dataclass(frozen=True, kw_only=True)
class Delivery(Work):
    """Work on a case that is delivered; can be pickled.

    Attributes:
        output: Folder to write to.
        data: Labels, writer and plans of the data set.
        quality: What the map has learned; None where nothing is known.
        maps: Some of :data:`~nnunet_nacl.case.measure.MAPS`, or ``probabilities``.
        probabilities: Save the probabilities too (npz and pkl).
        findings: Channels of the structures whose components are listed.
        pictures: Draw the pictures of the scan's page.
        dicom: Writes DICOM objects; None for images of other formats.
    """

    output: Path
    data: PredictionFolder
    quality: QualityOfMap | None = None
    maps: tuple[str, ...] = ()
    probabilities: bool = False
    findings: tuple[int, ...] = ()
    pictures: bool = True
    dicom: DicomMaker | None = None

    @property
    def key(self) -> dict[str, Any]:
        """Settings that a record depends on, beside the files and networks of its case."""
        return {
            "map": self.calibration and self.calibration.to_json(),
            "maps": list(self.maps),
            "save_probabilities": self.probabilities,
            "findings": list(self.findings),
            "pictures": self.pictures,
            "codes": encode(dict(self.dicom.codes)) if self.dicom else {},
        }

    def accepts(self, record: CaseRecord) -> bool:
        """Always: what is asked for is in the key."""
        return True

    def __call__(self, case: Case) -> CaseRecord:
        """The record of a case, once all its files are written; UserError where one cannot be."""
        views = Views.of(case, self.maps)
        record = measure(case, self.calibration, views, findings=self.findings)
        record = draw_scan(record, case, views, self.data, with_page=self.pictures)
        options: dict[str, Any] = {"saved": case.saved, "probabilities": self._probabilities(case)}
        written = write_case(self.data, case, self.output, maps=views.maps, **options)
        if self.dicom is not None:
            columns = structure_columns(completed(table([record]), self.quality))
            if not self.quality:  # then no Dice is reported
                columns = columns.loc[:, ~columns.columns.str.contains("dice")]
            maps = [values for name, values in views.maps.items() if name.startswith("probability_")]
            fractions = maps[-len(case.labels.foreground) :]  # without the background's
            rows, is_calibrated = columns.to_dict("records"), self.calibration is not None
            written += self.dicom.write(case, rows, case.images, self.output, fractions, is_calibrated)
        return replace(record, files={str(path.relative_to(self.output)): file_key(path) for path in written})

    def _probabilities(self, case: Case) -> np.ndarray | Path | None:
        """What is saved: of networks their own, as nnUNetv2_predict does; of saved ones those under the map."""
        if not self.probabilities:
            return None
        if case.saved is None:
            return case.probabilities.whole()
        if self.calibration is None:
            return case.saved
        return CalibratedProbabilities(case.probabilities, self.calibration).whole()
