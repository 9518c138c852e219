"""Writes the results of a DICOM series as objects: segmentations (SEG) and a structured report (SR, TID 1500)."""

from __future__ import annotations

import io
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from typing_extensions import NotRequired, TypedDict

import nnunet_nacl
from nnunet_nacl.case.case import Case
from nnunet_nacl.case.geometry import Geometry
from nnunet_nacl.dicom.series import affine_of_series, read_headers
from nnunet_nacl.errors import UserError, first_line, one_line
from nnunet_nacl.files import replacing
from nnunet_nacl.images import quiet
from nnunet_nacl.json_files import decode, read_dict

DICOM = "dicom"
"""Folder of the objects, all of a run in one, ready to be sent."""
SCHEME = "99NNUNETNACL"
"""Private coding scheme: there is no standard code for what is predicted of a segmentation."""

_MAKER = "nnunet_nacl"
_ON_GRID = 0.1  # voxels
_EXAMPLE = '{"liver": {"code": "10200004", "meaning": "Liver", "category": "AnatomicalStructure"}}'
_REPORTED = {
    "predicted_dice": ("DICE", "Predicted Dice"),
    "predicted_dice_low": ("DICE_LOW", "Predicted Dice, lower end of the 90 % interval"),
    "predicted_dice_high": ("DICE_HIGH", "Predicted Dice, upper end of the 90 % interval"),
    "present_probability": ("PRESENCE", "Probability that the structure is present"),
}
"""Columns of structures.csv that the report has beside the volume: code and meaning."""


class StructureCode(TypedDict):
    """What a structure is, in a coding scheme; SNOMED CT (SCT) unless it says another."""

    code: str
    meaning: str
    category: str
    scheme: NotRequired[str]


def read_codes(path: Path, structures: Sequence[str]) -> dict[str, StructureCode]:
    """Codes of structures by name, from a JSON file; UserError for one without, or with what DICOM does not know."""
    from pydicom.sr.codedict import codes

    content = read_dict(path)
    if missing := [name for name in structures if name not in content]:
        raise UserError(f"{path} has no code for {', '.join(missing)}; add each by its name, such as {_EXAMPLE}.")
    read = decode(dict[str, StructureCode], {name: content[name] for name in structures}, path, fix=f"as in {_EXAMPLE}")
    categories = codes.cid7150.dir()
    for name, code in read.items():
        if code["category"] not in categories:
            raise UserError(f"{path}: {name} has the category {code['category']!r}; there are {', '.join(categories)}.")
        texts = ((code["code"], 16), (code.get("scheme", "SCT"), 16), (code["meaning"], 64), (name[:64], 64))
        for value, most in texts:
            if not 0 < len(value.strip()) <= most or not value.isprintable() or "\\" in value:
                raise UserError(
                    f"{path}: {one_line(name)} has {value!r}, which DICOM wants to have 1 to {most} printable "
                    "characters, and no backslash."
                )
    return read


@dataclass(frozen=True)
class DicomMaker:
    """Writes the objects of cases; can be pickled."""

    codes: Mapping[str, StructureCode]  # by structure, in their order
    model: str  # whose segmentations they are
    serial: str  # SHA-256 that tells the networks, at most 64 characters

    def check(self, files: Sequence[Path]) -> None:
        """UserError, before the networks run, where no object can refer to a series: its date of birth may be none."""
        headers = read_headers(files)
        try:
            with quiet():
                pixels = np.zeros((1, headers[0].Rows, headers[0].Columns), np.uint16)
                segmentation = self._segmentation(pixels, "BINARY", "segmentation", headers[:1], 1)
                report = self._report([{}] * len(self.codes), segmentation, headers[:1])
                for made in (segmentation, report):
                    made.save_as(io.BytesIO(), enforce_file_format=True)
        except Exception as error:  # highdicom and pydicom raise anything of values that they cannot write
            raise UserError(
                f"{files[0]}: no DICOM object can be made with its header ({first_line(error)}); correct what it says "
                "of the patient, the study or the series."
            ) from None

    def write(
        self,
        case: Case,
        structures: Sequence[Mapping[str, Any]],
        files: Sequence[Path],
        output: Path,
        probabilities: Sequence[np.ndarray] = (),
        calibrated: bool = False,
    ) -> tuple[Path, ...]:
        """Write the objects of a case, ``dicom/CASE_....dcm`` in the folder of the run; what was written.

        Of each structure, ``structures`` has columns of structures.csv, NaN where one is not reported, and
        ``probabilities``, if any, are (*spatial), written as 8 bits, 255 is 1. UserError where the series is no longer
        what was predicted, or a file cannot be written.
        """
        labels, headers = case.labels, read_headers(files)
        turned = _to_slices(case.geometry, case.segmentation.shape, headers)
        regions = [turned(region) for region in labels.channels_of(case.segmentation)] if labels.regions else []
        pixels = np.stack(regions, -1) if regions else turned(case.segmentation)
        with quiet():
            segmentation = self._segmentation(pixels.astype(np.uint16), "BINARY", "segmentation", headers, 1)
            written = {"segmentation": segmentation}
            if len(probabilities):
                fractions = np.stack([turned(values) for values in probabilities], -1)
                content = "calibrated probabilities" if calibrated else "probabilities"
                written["probabilities"] = self._segmentation(fractions, "FRACTIONAL", content, headers, 2)
            written["report"] = self._report(structures, segmentation, headers)
        paths = {name: output / DICOM / f"{case.name}_{name}.dcm" for name in written}
        for name, path in paths.items():
            with replacing(path) as temporary:
                written[name].save_as(temporary, enforce_file_format=True)
        return tuple(paths.values())

    def _segmentation(self, pixels: np.ndarray, kind: str, content: str, headers: Sequence[Any], n: int) -> Any:
        import highdicom as hd
        from pydicom.sr.codedict import codes

        intelligence = codes.cid7162.ArtificialIntelligence
        made = hd.AlgorithmIdentificationSequence(self.model[:64], intelligence, nnunet_nacl.__version__)
        automatic = hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC
        described = []
        for number, (name, code) in enumerate(self.codes.items(), 1):
            category = getattr(codes.cid7150, code["category"])
            described += [hd.seg.SegmentDescription(number, name[:64], category, _coded(code), automatic, made)]
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

    def _report(self, structures: Sequence[Mapping[str, Any]], segmentation: Any, headers: Sequence[Any]) -> Any:
        import highdicom as hd
        from highdicom import sr
        from pydicom.sr.codedict import codes

        names = _MAKER, _MAKER, self.model[:64]
        device = sr.DeviceObserverIdentifyingAttributes(hd.UID(), *names, serial_number=self.serial)
        context = sr.ObservationContext(observer_device_context=sr.ObserverContext(codes.DCM.Device, device))
        series, groups = sr.SourceSeriesForSegmentation(headers[0].SeriesInstanceUID), []
        for number, ((name, code), row) in enumerate(zip(self.codes.items(), structures), 1):
            uids = segmentation.SOPClassUID, segmentation.SOPInstanceUID
            groups += [
                sr.VolumetricROIMeasurementsAndQualitativeEvaluations(
                    sr.TrackingIdentifier(hd.UID(), name),
                    referenced_segment=sr.ReferencedSegment(*uids, number, source_series=series),
                    finding_type=_coded(code),
                    measurements=_measurements(row),
                )
            ]
        procedure = sr.CodedConcept("363679005", "SCT", "Imaging procedure")
        report = sr.MeasurementReport(context, procedure, groups, codes.cid7021.ImagingMeasurementReport)
        images, described = [segmentation, *headers], f"{_MAKER}: measurements"
        identity = _identity(headers, 3)
        return sr.ComprehensiveSR(images, report, series_description=described, is_complete=True, **identity)


def _coded(code: StructureCode) -> Any:
    from highdicom.sr import CodedConcept

    return CodedConcept(code["code"], code.get("scheme", "SCT"), code["meaning"])


def _measurements(row: Mapping[str, Any]) -> list[Any]:
    """What the report says of a structure."""
    from highdicom.sr import CodedConcept, Measurement
    from pydicom.sr.codedict import codes

    concepts = {"volume_ml": (codes.SCT.Volume, CodedConcept("ml", "UCUM", "milliliter"))}
    for column, (code, meaning) in _REPORTED.items():
        concepts[column] = CodedConcept(code, SCHEME, meaning), codes.UCUM.NoUnits
    values = {column: float(row.get(column, math.nan)) for column in concepts}
    return [Measurement(concepts[name][0], x, concepts[name][1]) for name, x in values.items() if math.isfinite(x)]


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
    """What brings arrays of nnU-Net's readers, which may turn images, to a series' slices; UserError off their grid."""
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
