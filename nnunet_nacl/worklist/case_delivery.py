"""Measures one case, draws its pictures and writes all its files into the output folder."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_nacl.calibrator.calibrator import Calibrator
from nnunet_nacl.cases.case import Case
from nnunet_nacl.cases.findings import finding_channels
from nnunet_nacl.cases.measure import measure
from nnunet_nacl.cases.ownership import OwnedFiles, files_of_case
from nnunet_nacl.cases.record import RECORDS, CaseRecord
from nnunet_nacl.cases.views import FRACTIONAL, Views, choose_maps, names_of_images, plain_name
from nnunet_nacl.dicom.output import DicomMaker, Reported
from nnunet_nacl.files import to_json_text
from nnunet_nacl.json_files import encode
from nnunet_nacl.nnunet.dataset import Dataset
from nnunet_nacl.nnunet.output import places_of_case, write_case
from nnunet_nacl.nnunet.records import Work
from nnunet_nacl.settings import ListSettings
from nnunet_nacl.worklist.list_tables import structure_columns
from nnunet_nacl.worklist.options import read_aims
from nnunet_nacl.worklist.pictures import MOST_PLACES, draw_scan
from nnunet_nacl.worklist.review_list import Aims, ReviewList, review_list


@dataclass(frozen=True, kw_only=True)
class CaseDelivery(Work):
    """What is measured of a case and written of it; can be pickled.

    Attributes:
        output: Folder to write to.
        dataset: Its labels, writer and plans.
        calibrator: The map, and what it has learned.
        aims: Of the list.
        maps: As :func:`~nnunet_nacl.cases.views.choose_maps` gives them.
        probabilities: Save the probabilities too (npz and pkl).
        findings: Channels of the structures whose components are listed.
        pictures: Draw the pictures of the scan's page.
        dicom: Writes DICOM objects; None for images of other formats.
    """

    output: Path
    dataset: Dataset
    calibrator: Calibrator = Calibrator()
    aims: Aims = Aims()
    maps: tuple[str, ...] = ()
    probabilities: bool = False
    findings: tuple[int, ...] = ()
    pictures: bool = True
    dicom: DicomMaker | None = None

    @property
    def key(self) -> dict[str, Any]:
        """Settings that a record depends on, beside the files and networks of its case."""
        map_digest = self.calibration.digest if self.calibration is not None else None
        thresholds = self.aims.sensitive.thresholds if self.aims.sensitive is not None else None
        return {
            "map": map_digest,
            "maps": list(self.maps),
            "sensitive": thresholds,
            "save_probabilities": self.probabilities,
            "findings": list(self.findings),
            "pictures": self.pictures,
            "picture_of": "structure",  # earlier versions drew one place of the whole scan
            "dicom": self._report_key,
        }

    @cached_property
    def _report_key(self) -> list[Any] | None:
        """What a DICOM report shows beside measured numbers: codes, flags, all that was learned."""
        if self.dicom is None:
            return None
        learned = ""
        if self.calibrator.quality.learned is not None:
            learned = to_json_text(encode(self.calibrator.quality))
        digest = hashlib.sha256(learned.encode()).hexdigest()
        return [encode(dict(self.dicom.codes)), encode(self.aims.flags), self.aims.unlike, digest]

    def make_record(self, case: Case) -> CaseRecord:
        """The record of a case, once all its files are written.

        Raises:
            UserError: A file cannot be written.
        """
        limits: Sequence[float] = ()
        if self.aims.sensitive is not None:
            limits = self.aims.sensitive.limits(list(case.labels.structures.values()))
        views = Views.of(case, self.maps, limits)
        record = measure(case, self.calibration, views, findings=self.findings)
        listed = review_list([record], self.calibrator, self.aims)
        names = listed.structures_to_look_at(case.name)[:MOST_PLACES]
        places = views.least_certain_places(case, names, self.calibration)
        record = draw_scan(record, case, views, places, self.dataset, with_page=self.pictures)
        files = self.files_of(case.name)
        write_case(
            self.dataset,
            case,
            files,
            maps=views.images,
            sensitive=self._sensitive_labels(case, views.sensitive),
            probabilities=self._saved_probabilities(case),
        )
        if self.dicom is not None:
            report = self._report(listed)
            is_fractional = FRACTIONAL in self.maps
            self.dicom.write(case, report, case.images, files, views.images, is_fractional)
        return replace(record, files=files.written)

    def files_of(self, case: str) -> OwnedFiles:
        """The files of a case in the output folder, of which is known whether we wrote them."""
        return files_of_case(
            self.output, self.output / RECORDS, case, replace_others=self.replace_others
        )

    def places(self, case: str) -> list[str]:
        """Where files of a case are written, or those of an earlier segmentation removed."""
        images = names_of_images(self.dataset.labels, self.maps)
        places = places_of_case(self.dataset, case, images, self._sensitive_files(case))
        if self.dicom is not None:
            places += self.dicom.file_names(case, images, FRACTIONAL in self.maps)
        return places

    def _report(self, listed: ReviewList) -> Reported:
        """What the list of one scan says of it, none of which depends on others."""
        columns = structure_columns(listed.structures)
        if self.calibrator.quality.learned is None:  # then no Dice is reported
            columns = columns.loc[:, ~columns.columns.str.contains("dice")]
        scan = listed.scans.iloc[0]
        is_supported = not scan.unlike if not math.isnan(scan.unlike_p) else None
        return Reported(
            structures=columns.to_dict("records"),
            is_flagged=bool(scan.is_flagged),
            reasons=list(scan.reasons),
            is_supported=is_supported,
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
        if not self.probabilities:
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


def plan_delivery(
    wanted: ListSettings,
    dataset: Dataset,
    calibrator: Calibrator,
    output: Path,
    *,
    num_networks: int | None,
    dicom: DicomMaker | None = None,
) -> CaseDelivery:
    """What the options ask of each case, and of the list.

    Args:
        wanted: What is asked for.
        dataset: Its labels, writer and plans.
        calibrator: The map, and what it has learned.
        output: Folder to write to.
        num_networks: How many are averaged; None where nobody knows, as of saved predictions.
        dicom: Writes DICOM objects; None for images of other formats.

    Raises:
        UserError: The options do not fit, or nothing is known of what they ask for.
    """
    maps: tuple[str, ...] = (
        choose_maps(wanted.maps, num_networks or 1) if wanted.maps is not None else ()
    )
    return CaseDelivery(
        calibration=calibrator.log_odds_map,
        output=output,
        dataset=dataset,
        calibrator=calibrator,
        aims=read_aims(wanted, dataset.labels.structures, calibrator, num_networks),
        maps=maps,
        probabilities=wanted.save_probabilities,
        findings=finding_channels(
            dataset.labels, wanted.findings, calibrator.quality.with_findings
        ),
        pictures=wanted.pages != "none",
        dicom=dicom,
    )
