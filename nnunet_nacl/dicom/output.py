"""Writes the results of a DICOM series as objects: segmentation (SEG), parametric maps (PM), report
(SR, TID 1500)."""

from __future__ import annotations

import itertools
import math
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any

import numpy as np
from pydantic import StringConstraints
from typing_extensions import NotRequired, TypedDict

import nnunet_nacl
from nnunet_nacl.cases.case import Case
from nnunet_nacl.cases.geometry import Geometry
from nnunet_nacl.cases.ownership import OwnedFiles
from nnunet_nacl.dicom.series import affine_of_series, read_headers
from nnunet_nacl.errors import UserError, first_line
from nnunet_nacl.images import quiet
from nnunet_nacl.json_files import decode, read_dict

DICOM = "dicom"
"""Folder of the objects, all of a run in one, ready to be sent."""
SCHEME = "99NNUNETNACL"
"""Private coding scheme: there is no standard code for what is predicted of a segmentation."""

_MAKER = "nnunet_nacl"
_ON_GRID = 0.1  # voxels
_EXAMPLE = '{"liver": {"code": "10200004", "meaning": "Liver"}}'
_REPORTED = {
    "predicted_dice": ("DICE", "Predicted Dice"),
    "predicted_dice_low": ("DICE_LOW", "Predicted Dice, lower end of the 90 % interval"),
    "predicted_dice_high": ("DICE_HIGH", "Predicted Dice, upper end of the 90 % interval"),
    "present_probability": ("PRESENCE", "Probability that the structure is present"),
}
"""Columns of structures.csv that the report has beside the volume: code and meaning."""
_SUPPORT = {
    True: ("SUPPORTED", "Supported, the scan is like the calibration scans"),
    False: ("NOT_SUPPORTED", "Not supported, the scan is unlike the calibration scans"),
}
_MAPS = {
    "confidence": ("CONFIDENCE", "Confidence of the label"),
    "entropy": ("ENTROPY", "Entropy, 1 is the largest possible"),
    "mutual_information": (
        "MUTUAL_INFO",
        "Mutual information of the folds, 1 is the largest possible",
    ),
}
_PROBABILITY = "PROBABILITY", "Probability of the structure"
"""What the values of all other maps are: code and meaning."""


# and no backslash
_PRINTABLE: Any = {"strip_whitespace": True, "min_length": 1, "pattern": r"^[^\\\x00-\x1f]*$"}
_Short = Annotated[str, StringConstraints(max_length=16, **_PRINTABLE)]
_Long = Annotated[str, StringConstraints(max_length=64, **_PRINTABLE)]


class StructureCode(TypedDict):
    """What a structure is, an AnatomicalStructure in SNOMED CT (SCT) unless it says another
    category or scheme."""

    code: _Short
    meaning: _Long
    category: NotRequired[str]
    scheme: NotRequired[_Short]


def read_codes(path: Path, structures: Sequence[str]) -> dict[str, StructureCode]:
    """Codes of structures by name, from a JSON file; UserError for one without, or with what DICOM
    does not know."""
    from pydicom.sr.codedict import codes

    content = read_dict(path)
    if missing := [name for name in structures if name not in content]:
        raise UserError(
            f"{path} has no code for {', '.join(missing)}; add each by its name, such as"
            f" {_EXAMPLE}."
        )
    read = decode(
        dict[str, StructureCode],
        {name: content[name] for name in structures},
        path,
        fix=f"as in {_EXAMPLE}",
    )
    categories = codes.cid7150.dir()
    for name, code in read.items():
        if (category := code.setdefault("category", "AnatomicalStructure")) not in categories:
            raise UserError(
                f"{path}: {name} has the category {category!r}; there are {', '.join(categories)}."
            )
    return read


@dataclass(frozen=True)
class Reported:
    """What the report says of a scan.

    Attributes:
        structures: Columns of structures.csv, of each structure; NaN where one is not reported.
        is_flagged: Whether there is a reason to look.
        reasons: Those.
        is_supported: Whether the scan is like the calibration scans, so that intervals hold; None
            where nobody knows.
    """

    structures: Sequence[Mapping[str, Any]]
    is_flagged: bool = False
    reasons: Sequence[str] = ()
    is_supported: bool | None = None


@dataclass(frozen=True)
class DicomMaker:
    """Writes the objects of cases; can be pickled."""

    codes: Mapping[str, StructureCode]  # by structure, in their order
    model: str  # whose segmentations they are
    serial: str  # SHA-256 that tells the networks, at most 64 characters

    def places(self, case: str, maps: Iterable[str], is_fractional: bool) -> list[str]:
        """Where :meth:`write` writes the objects of a case."""
        objects = ["segmentation", "report"]
        if is_fractional:
            maps = [name for name in maps if name in _MAPS]
            objects.append("probabilities")
        return [_place(case, name) for name in (*objects, *maps)]

    def write(
        self,
        case: Case,
        reported: Reported,
        images: Sequence[Path],
        files: OwnedFiles,
        maps: Mapping[str, np.ndarray] = MappingProxyType({}),
        is_fractional: bool = False,
    ) -> None:
        """Write the objects of a case, :meth:`places` in the folder of the run, through what knows
        which are ours.

        Each of the (*spatial) ``maps`` becomes a parametric map of float32 in [0, 1]. If
        ``is_fractional``, the probabilities of the structures become one segmentation of 8 bits
        instead, 255 is 1. UserError where the series is no longer what was predicted, or a file
        cannot be written.
        """
        headers = read_headers(images)
        turned = _to_slices(case.geometry, case.segmentation.shape, headers)
        channels = case.labels.channels_of(case.segmentation)
        pixels = (
            np.stack([turned(region) for region in channels], -1)
            if case.labels.regions
            else turned(channels)
        )
        try:
            with quiet():
                made = {"segmentation": self._segmentation(pixels.astype(np.uint16), headers)}
                made["report"] = self._report(reported, made["segmentation"], headers)
                arrays = {name: turned(values) for name, values in maps.items()}
                if is_fractional:
                    fractions = [arrays.pop(name) for name in maps if name not in _MAPS][
                        -len(self.codes) :
                    ]
                    pixels = np.stack(fractions, -1)  # without the background's
                    made["probabilities"] = self._segmentation(
                        pixels, headers, "FRACTIONAL", "PROBABILITIES"
                    )
                made |= {name: self._map(name, values, headers) for name, values in arrays.items()}
                for name, each in made.items():
                    place = _place(case.name, name)
                    with files.staging(place) as work:
                        each.save_as(work / Path(place).name, enforce_file_format=True)
        except UserError:
            raise
        except Exception as error:
            # highdicom and pydicom raise anything of values that they cannot write
            raise UserError(
                f"{images[0]}: no DICOM object can be made with its header ({first_line(error)});"
                " correct what it says of the patient, the study or the series."
            ) from None

    def _segmentation(
        self,
        pixels: np.ndarray,
        headers: Sequence[Any],
        kind: str = "BINARY",
        label: str = "SEGMENTATION",
    ) -> Any:
        import highdicom as hd
        from pydicom.sr.codedict import codes

        intelligence = codes.cid7162.ArtificialIntelligence
        made = hd.AlgorithmIdentificationSequence(
            self.model[:64], intelligence, nnunet_nacl.__version__
        )
        automatic, series = (
            hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
            headers[0].SeriesInstanceUID,
        )
        described = []
        for number, (name, code) in enumerate(self.codes.items(), 1):
            category = getattr(codes.cid7150, code["category"])
            what = hd.sr.CodedConcept(code["code"], code.get("scheme", "SCT"), code["meaning"])
            uid = hd.UID.from_uuid(
                str(uuid.uuid5(uuid.NAMESPACE_OID, f"{series} {self.serial} {name}"))
            )
            options: dict[str, Any] = {"tracking_uid": uid, "tracking_id": name}
            described += [
                hd.seg.SegmentDescription(
                    number, name[:64], category, what, automatic, made, **options
                )
            ]
        return hd.seg.Segmentation(
            headers, pixels, kind, described, **self._common(headers, 1, label.lower(), label)
        )

    def _map(self, name: str, values: np.ndarray, headers: Sequence[Any]) -> Any:
        import highdicom as hd
        from pydicom.sr.codedict import codes

        (label, meaning), unit = _MAPS.get(name, _PROBABILITY), codes.UCUM.NoUnits
        quantity = {"slope": 1.0, "intercept": 0.0, "quantity_definition": _private(label, meaning)}
        made = hd.pm.ParametricMap(
            headers,
            np.clip(values, 0, 1).astype(np.float32),
            contains_recognizable_visual_features=False,
            real_world_value_mappings=[
                hd.pm.RealWorldValueMapping(label, name[:64], unit, (0.0, 1.0), **quantity)
            ],
            voi_lut_transformations=[hd.VOILUTTransformation(window_center=0.5, window_width=1.0)],
            **self._common(headers, 2, name, label),
        )
        known = [
            attribute
            for attribute in ("BodyPartExamined", "Laterality")
            if headers[0].get(attribute)
        ]
        # which must be there, and empty, where neither is known
        for attribute in known or ["Laterality"]:
            setattr(made, attribute, headers[0].get(attribute, ""))
        return made

    def _report(self, reported: Reported, segmentation: Any, headers: Sequence[Any]) -> Any:
        from highdicom import UID, sr
        from pydicom.sr.codedict import codes

        names = _MAKER, _MAKER, self.model[:64]
        device = sr.DeviceObserverIdentifyingAttributes(UID(), *names, serial_number=self.serial)
        context = sr.ObservationContext(
            observer_device_context=sr.ObserverContext(codes.DCM.Device, device)
        )
        series, groups = sr.SourceSeriesForSegmentation(headers[0].SeriesInstanceUID), []
        support, known = (
            _private("SUPPORT", "Whether predictions are supported"),
            reported.is_supported,
        )
        supports = (
            [] if known is None else [sr.QualitativeEvaluation(support, _private(*_SUPPORT[known]))]
        )
        for segment, row in zip(segmentation.SegmentSequence, reported.structures):
            uids = segmentation.SOPClassUID, segmentation.SOPInstanceUID
            groups += [
                sr.VolumetricROIMeasurementsAndQualitativeEvaluations(
                    sr.TrackingIdentifier(segment.tracking_uid, segment.tracking_id),
                    referenced_segment=sr.ReferencedSegment(
                        *uids, segment.segment_number, source_series=series
                    ),
                    finding_type=segment.segmented_property_type,
                    algorithm_id=sr.AlgorithmIdentification(
                        self.model[:64], nnunet_nacl.__version__
                    ),
                    measurements=_measurements(row),
                    qualitative_evaluations=supports,
                )
            ]
        procedure = sr.CodedConcept("363679005", "SCT", "Imaging procedure")
        report = sr.MeasurementReport(
            context, procedure, groups, codes.cid7021.ImagingMeasurementReport
        )
        flag, reason = _private("FLAG", "Flagged for review"), _private("REASON", "Reason to look")
        answer = codes.cid230.Yes if reported.is_flagged else codes.cid230.No
        texts = [sr.TextContentItem(reason, text, "CONTAINS") for text in reported.reasons]
        title = sr.CodedConcept("C0034375", "UMLS", "Qualitative Evaluations")
        scan = sr.ContainerContentItem(title, relationship_type="CONTAINS")
        scan.ContentSequence = sr.ContentSequence(
            [sr.CodeContentItem(flag, answer, "CONTAINS"), *texts]
        )
        report[0].ContentSequence.append(scan)
        images, common = [segmentation, *headers], self._common(headers, 3, "measurements")
        return sr.Comprehensive3DSR(images, report, is_complete=True, **common)

    def _common(
        self, headers: Sequence[Any], n: int, content: str, label: str = ""
    ) -> dict[str, Any]:
        """Of a new object in a series of its own, whose number follows from that of the images."""
        import highdicom as hd

        of_images = (
            {"content_label": label, "content_description": "research use only"} if label else {}
        )
        return of_images | {
            "series_instance_uid": hd.UID(),
            "sop_instance_uid": hd.UID(),
            "series_number": 100 * min(max(int(headers[0].get("SeriesNumber") or 0), 0), 10**6) + n,
            "instance_number": 1,
            "series_description": f"{_MAKER}: {content}"[:64],
            "specific_character_set": "ISO_IR 192",  # names of structures may need it
            "manufacturer": _MAKER,
            "manufacturer_model_name": _MAKER,
            "software_versions": nnunet_nacl.__version__,
            "device_serial_number": self.serial,
        }


def _place(case: str, name: str) -> str:
    return f"{DICOM}/{case}_{name}.dcm"


def _private(code: str, meaning: str) -> Any:
    from highdicom.sr import CodedConcept

    return CodedConcept(code, SCHEME, meaning)


def _measurements(row: Mapping[str, Any]) -> list[Any]:
    """What the report says of a structure."""
    from highdicom.sr import CodedConcept, Measurement
    from pydicom.sr.codedict import codes

    concepts = {"volume_ml": (codes.SCT.Volume, CodedConcept("ml", "UCUM", "milliliter"))}
    concepts |= {
        column: (_private(*what), codes.UCUM.NoUnits) for column, what in _REPORTED.items()
    }
    values = {column: float(row.get(column, math.nan)) for column in concepts}
    return [
        Measurement(concepts[name][0], x, concepts[name][1])
        for name, x in values.items()
        if math.isfinite(x)
    ]


def _to_slices(
    geometry: Geometry, shape: tuple[int, ...], headers: Sequence[Any]
) -> Callable[[np.ndarray], np.ndarray]:
    """What brings arrays of nnU-Net's readers, which may turn images, to a series' slices;
    UserError off their grid."""
    from nibabel.orientations import apply_orientation, inv_ornt_aff, io_orientation

    size = int(headers[0].Columns), int(headers[0].Rows), len(headers)
    affine: Any = geometry.affine  # not None: the readers of DICOM's images know where they lie
    # (x, y, z) of the series -> (x, y, z) of the array
    between = np.linalg.inv(affine) @ affine_of_series(headers)
    turns = io_orientation(np.linalg.inv(between))
    off = between - inv_ornt_aff(turns, shape[::-1])
    # an error of the steps grows
    corners = np.array([*itertools.product(*((0, n - 1) for n in size), [1])])
    turned = apply_orientation(np.empty(shape[::-1], bool), turns).shape
    if turned != size or np.abs(off @ corners.T).max() > _ON_GRID:
        raise UserError(
            "the segmentation is not on the grid of the DICOM images; predict this series again."
        )
    # arrays have the axes (z, y, x)
    return lambda array: apply_orientation(array.transpose(), turns).transpose()
