"""`Run`: what a run of `predict` or `review` asks of its cases, and does with each."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_nacl.calibration.calibrator import Calibrator
from nnunet_nacl.cases.case import Case
from nnunet_nacl.cases.measure import measure
from nnunet_nacl.cases.ownership import OwnedFiles, files_of_case
from nnunet_nacl.cases.record import CaseRecord
from nnunet_nacl.cases.record_file import RECORDS
from nnunet_nacl.cases.views import FRACTIONAL, VoxelUncertainty, names_of_images, plain_name
from nnunet_nacl.dicom.output import DicomMaker, Reported
from nnunet_nacl.estimators.log_odds_map import LogOddsMap
from nnunet_nacl.nnunet.dataset import Dataset
from nnunet_nacl.nnunet.output import file_names_of_case, write_case
from nnunet_nacl.nnunet.records import Work
from nnunet_nacl.settings import Output, ScanSettings
from nnunet_nacl.utilities.files import to_json_text
from nnunet_nacl.utilities.json_files import encode
from nnunet_nacl.worklist.aims import Aims
from nnunet_nacl.worklist.judgement import JudgedScan, judge_scan, structures_by_need
from nnunet_nacl.worklist.list_files import structures_table
from nnunet_nacl.worklist.pictures import MOST_PLACES, draw_scan


@dataclass(frozen=True, kw_only=True)
class Run(Work):
    """A run of `predict` or `review`: what is asked, what is measured of a case and written of it,
    and what documents say. Can be pickled.

    Attributes:
        calibration, output, replace_others: As for :class:`~nnunet_nacl.nnunet.records.Work`, by
            the calibrator and the settings of the output.
        dataset: Its labels, writer and plans.
        calibrator: The map, and what it has learned.
        aims: What flags scans, which images and sensitive labels are written, and the findings.
        dicom: Writes DICOM objects; None for images of other formats.
        writing: The output folder, whether what is in it is done anew, and whether a progress bar
            is shown.
        reading: How scans are read, with how many processes, and which part of them this run does.
        source: Folder that the cases come from, which the output must not lie in.
        claim: Name and content of the file that tells whose the output folder is.
        document: What prediction.json says of cases, networks, map and settings.
        notes: What whoever uses the list must know.
        applied: What calibration_applied.json says; empty writes none.
        patients: To whom each case belongs; None: each is of a patient of its own.
        name: That marks are kept under; empty until it is known which cases there are.
        problems: By case why there is nothing of it.
    """

    calibration: LogOddsMap | None = field(init=False)
    output: Path = field(init=False)
    replace_others: bool = field(init=False)
    dataset: Dataset
    calibrator: Calibrator = Calibrator()
    aims: Aims = Aims()
    dicom: DicomMaker | None = None
    writing: Output
    reading: ScanSettings = ScanSettings()
    source: Path = Path()
    claim: tuple[str, Mapping[str, Any]] = ("", {})
    document: Mapping[str, Any] = field(default_factory=dict)
    notes: Sequence[str] = ()
    applied: Mapping[str, Any] = field(default_factory=dict)
    patients: Mapping[str, str] | None = None
    name: str = ""
    problems: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        # which a frozen class can set in no other way
        object.__setattr__(self, "calibration", self.calibrator.log_odds_map)
        object.__setattr__(self, "output", Path(self.writing.output))
        object.__setattr__(self, "replace_others", self.writing.overwrite)

    @property
    def title(self) -> str:
        """Of the list: the data set."""
        return str(self.dataset.name or self.dataset.folder.name)

    @property
    def key(self) -> dict[str, Any]:
        """Settings that a record depends on, beside the files and networks of its case."""
        map_digest = self.calibration.digest if self.calibration is not None else None
        thresholds = self.aims.sensitive.thresholds if self.aims.sensitive is not None else None
        return {
            "map": map_digest,
            "maps": list(self.aims.maps),
            "sensitive": thresholds,
            "save_probabilities": self.aims.wanted.save_probabilities,
            "findings": list(self.aims.findings),
            "pictures": self._draws_pages,
            "picture_of": "structure",  # earlier versions drew one place of the whole scan
            "dicom": self._report_key,
        }

    @property
    def _draws_pages(self) -> bool:
        return self.aims.wanted.pages != "none"

    @cached_property
    def _report_key(self) -> list[Any] | None:
        """What a DICOM report shows beside measured numbers: codes, flags, all that was learned."""
        if self.dicom is None:
            return None
        learned = ""
        if self.calibrator.quality.learned is not None:
            learned = to_json_text(encode(self.calibrator.quality))
        digest = hashlib.sha256(learned.encode()).hexdigest()
        codes = encode(dict(self.dicom.codes))
        return [codes, encode(self.aims.flags), self.aims.wanted.unlike, digest]

    def make_record(self, case: Case) -> CaseRecord:
        """Measure a case, write all its files, and give its record; runs in an exporter.

        Raises:
            UserError: A file cannot be written.
        """
        limits: Sequence[float] = ()
        if self.aims.sensitive is not None:
            limits = self.aims.sensitive.limits(list(case.labels.structures.values()))
        uncertainty = VoxelUncertainty.of(case, self.aims.maps, limits)
        record = measure(case, self.calibration, uncertainty, findings=self.aims.findings)
        judged = judge_scan(record, self.calibrator, self.aims)
        names = structures_by_need(judged.reasons, judged.structures)[:MOST_PLACES]
        places = uncertainty.least_certain_places(case, names, self.calibration)
        record = draw_scan(
            record, case, uncertainty, places, self.dataset, with_page=self._draws_pages
        )
        files = self.files_of(case.name)
        write_case(
            self.dataset,
            case,
            files,
            maps=uncertainty.images,
            sensitive=self._sensitive_labels(case, uncertainty.sensitive),
            probabilities=self._saved_probabilities(case),
        )
        if self.dicom is not None:
            report = self._report(judged)
            is_fractional = FRACTIONAL in self.aims.maps
            self.dicom.write(case, report, case.images, files, uncertainty.images, is_fractional)
        return replace(record, files=files.written)

    def files_of(self, case: str) -> OwnedFiles:
        """The files of a case in the output folder, of which is known whether we wrote them."""
        return files_of_case(
            self.output, self.output / RECORDS, case, replace_others=self.replace_others
        )

    def file_names(self, case: str) -> list[str]:
        """Where files of a case are written, or those of an earlier segmentation removed."""
        images = names_of_images(self.dataset.labels, self.aims.maps)
        file_names = file_names_of_case(self.dataset, case, images, self._sensitive_files(case))
        if self.dicom is not None:
            file_names += self.dicom.file_names(case, images, FRACTIONAL in self.aims.maps)
        return file_names

    def _report(self, judged: JudgedScan) -> Reported:
        """What a DICOM report says of a scan, none of which depends on others."""
        rows = structures_table(judged.structures)
        if self.calibrator.quality.learned is None:  # then no Dice is reported
            rows = rows.loc[:, ~rows.columns.str.contains("dice")]
        is_known = not math.isnan(judged.unlike_p)
        return Reported(
            structures=rows.to_dict("records"),
            is_flagged=bool(judged.reasons),
            reasons=[reason.text for reason in judged.reasons],
            is_supported=not judged.unlike if is_known else None,
        )

    def _sensitive_labels(self, case: Case, sensitive: np.ndarray | None) -> dict[str, np.ndarray]:
        """The sensitive labels by the name of their file, without its ending.

        Of classes that is one label map, of regions a mask for each that is not refused.
        """
        if sensitive is None:
            return {}
        if not case.labels.regions:
            return {case.name: sensitive}
        mask_of_region = dict(zip(case.labels.names, sensitive.astype(np.uint8)))
        file_of_region = self._sensitive_files(case.name)
        return {file: mask_of_region[region] for file, region in file_of_region.items()}

    def _sensitive_files(self, case: str) -> dict[str, str]:
        """Name of each file of sensitive labels, without its ending, and the region it is of.

        The file of a label map is of no region: an empty name.
        """
        if self.aims.sensitive is None:
            return {}
        labels = self.dataset.labels
        if not labels.regions:
            return {case: ""}
        regions = {}
        for region, file_name in zip(labels.names, _different_file_names(labels.names)):
            if region in self.aims.sensitive.thresholds:
                regions[f"{case}_{file_name}"] = region
        return regions

    def _saved_probabilities(self, case: Case) -> np.ndarray | Path | None:
        """The probabilities, or their file, that are saved with the segmentation; None for none.

        Those of networks are saved as nnUNetv2_predict does, without the map; those that were
        saved before, under the map.
        """
        if not self.aims.wanted.save_probabilities:
            return None
        if case.saved is None:
            return case.probabilities.whole(None)
        if self.calibration is None:
            return case.saved
        return case.probabilities.whole(self.calibration)


def _different_file_names(names: Sequence[str]) -> list[str]:
    """Names of structures as parts of file names.

    They get their number in front where two would be the same, or one empty.
    """
    plain_names = [plain_name(name) for name in names]
    file_names = []
    for i, name in enumerate(plain_names):
        if name and plain_names.count(name) == 1:
            file_names.append(name)
        else:
            file_names.append(f"{i}-{name}")
    return file_names
