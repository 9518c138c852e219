"""What is delivered of a DICOM series: segmentations (SEG) and a report (SR, TID 1500) that refer to its images."""

from __future__ import annotations

import io
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import nnunet_nacl
from nnunet_nacl.case.geometry import Geometry
from nnunet_nacl.dicom.codes import StructureCode
from nnunet_nacl.dicom.series import affine_of_series, read_headers
from nnunet_nacl.errors import UserError, first_line
from nnunet_nacl.files import replacing
from nnunet_nacl.nnunet.image_files import quiet
from nnunet_nacl.review.reviewed_case import ReviewedCase
from nnunet_nacl.review.row import CaseReview, StructureReview

DICOM = "dicom"
"""Folder of the objects, all of a run in one, ready to be sent."""
SCHEME = "99NNUNETNACL"
"""Private coding scheme: there is no standard code for what is predicted of a segmentation."""

_MAKER = "nnunet_nacl"
_ON_GRID = 0.1  # voxels


@dataclass(frozen=True)
class DicomMaker:
    """Writes the objects of cases; can be pickled.

    Attributes:
        codes: Of the structures, by name, in their order.
        model: Whose segmentations they are.
        serial: SHA-256 that tells the networks, at most 64 characters.
        probabilities: Write them, too: 8 bits, 255 is 1.
    """

    codes: Mapping[str, StructureCode]
    model: str
    serial: str
    probabilities: bool = False

    def check(self, files: Sequence[Path]) -> None:
        """Try whether objects can refer to the images of a series, before the networks run.

        Those of an empty segmentation of its first image are made and dropped.

        Args:
            files: The images, in the order of the slices.

        Raises:
            UserError: They cannot, such as for a date of birth that is none; the message names the first image.
        """
        headers = read_headers(files)
        try:
            with quiet():
                pixels = np.zeros((1, headers[0].Rows, headers[0].Columns), np.uint16)
                segmentation = self._segmentation(pixels, "BINARY", "segmentation", headers[:1], 1)
                report = self._report([[]] * len(self.codes), segmentation, headers[:1])
                for made in (segmentation, report):
                    made.save_as(io.BytesIO(), enforce_file_format=True)
        except Exception as error:  # highdicom and pydicom raise anything of values that they cannot write
            raise UserError(
                f"{files[0]}: no DICOM object can be made with its header ({first_line(error)}); correct what it says "
                "of the patient, the study or the series."
            ) from None

    def write(
        self, reviewed: ReviewedCase, files: Sequence[Path], completed: CaseReview | None, output: Path
    ) -> tuple[Path, ...]:
        """Write the objects of a case.

        Args:
            reviewed: The case; with the maps ``probabilities`` if they are to be written.
            files: The images of its series, in the order of the slices.
            completed: Its row with what a map has learned; None without one, then no Dice is reported.
            output: Folder of the run; the files get names ``dicom/CASE_....dcm`` in it.

        Returns:
            What was written.

        Raises:
            UserError: The series is no longer what was predicted, or a file cannot be written.
        """
        case, headers = reviewed.case, read_headers(files)
        turned = _to_slices(case.geometry, case.segmentation.shape, headers)
        channels = [turned(one) for one in case.labels.channels_of(case.segmentation)] if case.labels.regions else None
        labels = turned(case.segmentation) if channels is None else np.stack(channels, -1)
        source, written = case.probabilities, {}
        with quiet():
            segmentation = self._segmentation(labels.astype(np.uint16), "BINARY", "segmentation", headers, 1)
            written["segmentation"] = segmentation
            if self.probabilities:
                maps = [values for name, values in reviewed.maps.items() if name.startswith("probability_")]
                fractions = np.stack([turned(values) for values in maps[-len(case.labels.foreground) :]], -1)
                made = "probabilities" if source.network is source else "calibrated probabilities"
                written["probabilities"] = self._segmentation(fractions, "FRACTIONAL", made, headers, 2)
            rows = (completed or reviewed.finished.row).structures
            measured = [_measurements(row, completed is not None) for row in rows]
            written["report"] = self._report(measured, segmentation, headers)
        paths = {name: output / DICOM / f"{case.name}_{name}.dcm" for name in written}
        for name, path in paths.items():
            with replacing(path) as temporary:
                written[name].save_as(temporary, enforce_file_format=True)
        return tuple(paths.values())

    def _segmentation(self, pixels: np.ndarray, kind: str, content: str, headers: Sequence[Any], n: int) -> Any:
        import highdicom as hd
        from pydicom.sr.codedict import codes

        algorithm = hd.AlgorithmIdentificationSequence(
            self.model[:64], codes.cid7162.ArtificialIntelligence, nnunet_nacl.__version__
        )
        described = [
            hd.seg.SegmentDescription(
                number,
                name[:64],
                getattr(codes.cid7150, code["category"]),
                self._code(name),
                hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
                algorithm,
            )
            for number, (name, code) in enumerate(self.codes.items(), 1)
        ]
        return hd.seg.Segmentation(
            headers,
            pixels,
            kind,
            described,
            manufacturer_model_name=_MAKER,
            software_versions=nnunet_nacl.__version__,
            device_serial_number=self.serial,
            content_label="PROBABILITIES" if kind == "FRACTIONAL" else "SEGMENTATION",
            content_description=f"{content}, research use only",
            series_description=f"{_MAKER}: {content}",
            **_identity(headers, n),
        )

    def _report(self, measured: Sequence[list[Any]], segmentation: Any, headers: Sequence[Any]) -> Any:
        import highdicom as hd
        from highdicom import sr
        from pydicom.sr.codedict import codes

        device = sr.DeviceObserverIdentifyingAttributes(
            hd.UID(), _MAKER, _MAKER, self.model[:64], serial_number=self.serial
        )
        context = sr.ObservationContext(observer_device_context=sr.ObserverContext(codes.DCM.Device, device))
        series = sr.SourceSeriesForSegmentation(headers[0].SeriesInstanceUID)
        groups = [
            sr.VolumetricROIMeasurementsAndQualitativeEvaluations(
                sr.TrackingIdentifier(hd.UID(), name),
                referenced_segment=sr.ReferencedSegment(
                    segmentation.SOPClassUID, segmentation.SOPInstanceUID, i + 1, source_series=series
                ),
                finding_type=self._code(name),
                measurements=measurements,
            )
            for i, (name, measurements) in enumerate(zip(self.codes, measured))
        ]
        procedure = sr.CodedConcept("363679005", "SCT", "Imaging procedure")
        report = sr.MeasurementReport(context, procedure, groups, codes.cid7021.ImagingMeasurementReport)
        return sr.ComprehensiveSR(
            [segmentation, *headers],
            report,
            series_description=f"{_MAKER}: measurements",
            is_complete=True,
            **_identity(headers, 3),
        )

    def _code(self, structure: str) -> Any:
        from highdicom.sr import CodedConcept

        one = self.codes[structure]
        return CodedConcept(one["code"], one.get("scheme", "SCT"), one["meaning"])


def _measurements(row: StructureReview, calibrated: bool) -> list[Any]:
    """What the report says of a structure, as far as it is known."""
    from highdicom.sr import CodedConcept, Measurement
    from pydicom.sr.codedict import codes

    predicted = {
        ("DICE", "Predicted Dice"): row.predicted_dice if calibrated else math.nan,
        ("DICE_LOW", "Predicted Dice, lower end of the 90 % interval"): row.dice_interval[0],
        ("DICE_HIGH", "Predicted Dice, upper end of the 90 % interval"): row.dice_interval[1],
        ("PRESENCE", "Probability that the structure is present"): row.present,
    }
    known = ((CodedConcept(code, SCHEME, text), p) for (code, text), p in predicted.items() if math.isfinite(p))
    volume = Measurement(codes.SCT.Volume, row.volume, CodedConcept("ml", "UCUM", "milliliter"))
    return [volume, *(Measurement(name, p, codes.UCUM.NoUnits) for name, p in known)]


def _identity(headers: Sequence[Any], n: int) -> dict[str, Any]:
    """Of a new object in a series of its own, whose number follows from that of the images."""
    import highdicom as hd

    number = 100 * min(max(int(headers[0].get("SeriesNumber") or 0), 0), 10**6) + n
    uids = {"series_instance_uid": hd.UID(), "sop_instance_uid": hd.UID()}
    utf8 = {"specific_character_set": "ISO_IR 192"}  # names of structures may need it
    return {**uids, **utf8, "series_number": number, "instance_number": 1, "manufacturer": _MAKER}


def _to_slices(
    geometry: Geometry, shape: tuple[int, ...], headers: Sequence[Any]
) -> Callable[[np.ndarray], np.ndarray]:
    """What brings an array of one of nnU-Net's readers, which may turn images, to the slices of a series.

    Raises:
        UserError: An array of this shape does not lie where the images do.
    """
    from nibabel.orientations import apply_orientation, inv_ornt_aff, io_orientation

    size = int(headers[0].Columns), int(headers[0].Rows), len(headers)
    affine: Any = geometry.affine  # not None: the readers of DICOM's images know where they lie
    between = np.linalg.inv(affine) @ affine_of_series(headers)  # (x, y, z) of the series -> (x, y, z) of the array
    turns = io_orientation(np.linalg.inv(between))
    off = between - inv_ornt_aff(turns, shape[::-1])
    corners = np.array([*itertools.product(*((0, n - 1) for n in size), [1])])  # an error of the steps grows
    turned = apply_orientation(np.empty(shape[::-1], bool), turns).shape
    if turned != size or np.abs(off @ corners.T).max() > _ON_GRID:
        raise UserError("the segmentation is not on the grid of the DICOM images; predict this series again.")
    return lambda array: apply_orientation(array.transpose(), turns).transpose()  # arrays have the axes (z, y, x)
