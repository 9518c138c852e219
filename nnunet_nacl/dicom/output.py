"""Writes the results of a DICOM series as objects.

They are a segmentation (SEG), parametric maps (PM) and a report (SR, TID 1500).
"""

from __future__ import annotations

import itertools
import math
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

import nnunet_nacl
from nnunet_nacl.cases.case import Case
from nnunet_nacl.cases.geometry import Geometry
from nnunet_nacl.cases.ownership import OwnedFiles
from nnunet_nacl.dicom.codes import StructureCode, private_code
from nnunet_nacl.dicom.series import affine_of_series, read_headers
from nnunet_nacl.utilities.errors import UserError, first_line
from nnunet_nacl.utilities.images import quiet

if TYPE_CHECKING:
    from highdicom import sr
    from highdicom.seg import Segmentation, SegmentDescription
    from pydicom import Dataset

DICOM = "dicom"
"""Folder of the objects, all of a run in one, ready to be sent."""

_MAKER = "nnunet_nacl"
_ON_GRID = 0.1  # voxels that a segmentation may lie off the slices' grid, for rounding
_MEASUREMENTS = {
    "predicted_dice": ("DICE", "Predicted Dice"),
    "predicted_dice_low": ("DICE_LOW", "Predicted Dice, lower end of the 90 % interval"),
    "predicted_dice_high": ("DICE_HIGH", "Predicted Dice, upper end of the 90 % interval"),
    "present_probability": ("PRESENCE", "Probability that the structure is present"),
}
"""Columns of structures.csv that the report has beside the volume: code and meaning."""
_SUPPORTED = ("SUPPORTED", "Supported, the scan is like the calibration scans")
_NOT_SUPPORTED = ("NOT_SUPPORTED", "Not supported, the scan is unlike the calibration scans")
_UNCERTAINTY_IMAGES = {
    "confidence": ("CONFIDENCE", "Confidence of the label"),
    "entropy": ("ENTROPY", "Entropy, 1 is the largest possible"),
    "mutual_information": (
        "MUTUAL_INFO",
        "Mutual information of the folds, 1 is the largest possible",
    ),
}
"""What the values of these images are: code and meaning."""
_PROBABILITY = ("PROBABILITY", "Probability of the structure")
"""What the values of all other images are."""


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
    """Writes the objects of cases; can be pickled.

    Attributes:
        codes: By structure, in their order.
        model: Whose segmentations they are.
        serial: SHA-256 that tells the networks, at most 64 characters.
    """

    codes: Mapping[str, StructureCode]
    model: str
    serial: str

    def file_names(self, case: str, maps: Iterable[str], is_fractional: bool) -> list[str]:
        """Where :meth:`write` writes the objects of a case, in the folder of the run."""
        objects = ["segmentation", "report"]
        if is_fractional:
            maps = [name for name in maps if name in _UNCERTAINTY_IMAGES]
            objects.append("probabilities")
        return [_file_name(case, name) for name in (*objects, *maps)]

    def write(
        self,
        case: Case,
        reported: Reported,
        images: Sequence[Path],
        files: OwnedFiles,
        maps: Mapping[str, np.ndarray] = MappingProxyType({}),
        is_fractional: bool = False,
    ) -> None:
        """Write the objects of a case.

        Args:
            case: The case.
            reported: What the report says of it.
            images: Files of its series.
            files: What knows which files in the folder of the run are ours.
            maps: (*spatial) images in [0, 1] by name; each becomes a parametric map of float32.
            is_fractional: Whether the probabilities of the structures among them become one
                segmentation of 8 bits instead, in which 255 is 1.

        Raises:
            UserError: The series is no longer what was predicted, or a file cannot be written.
        """
        headers = read_headers(images)
        to_slices = _find_turns(case.geometry, case.segmentation.shape, headers)
        segmentation = _segmentation_pixels(case, to_slices)
        slices_of_maps = {name: to_slices(values) for name, values in maps.items()}
        try:
            with quiet():
                objects = self._make_objects(
                    reported, headers, segmentation, slices_of_maps, is_fractional
                )
                for name, dataset in objects.items():
                    file_name = _file_name(case.name, name)
                    with files.staging(file_name) as work:
                        dataset.save_as(work / Path(file_name).name, enforce_file_format=True)
        except UserError:
            raise
        except Exception as error:
            # highdicom and pydicom raise anything of values that they cannot write
            raise UserError(
                f"{images[0]}: no DICOM object can be made with its header ({first_line(error)});"
                " correct what it says of the patient, the study or the series."
            ) from None

    def _make_objects(
        self,
        reported: Reported,
        headers: Sequence[Dataset],
        pixels: np.ndarray,
        maps: Mapping[str, np.ndarray],
        is_fractional: bool,
    ) -> dict[str, Dataset]:
        """Objects by name, in the order in which they are written."""
        segmentation = self._make_segmentation(pixels, headers, "BINARY", "SEGMENTATION")
        objects: dict[str, Dataset] = {
            "segmentation": segmentation,
            "report": self._make_report(reported, segmentation, headers),
        }
        probabilities = [name for name in maps if name not in _UNCERTAINTY_IMAGES]
        parametric = list(maps)
        if is_fractional:
            # in the order of the channels; of classes the background's is first, and left out
            structures = probabilities[-len(self.codes) :]
            fractions = np.stack([maps[name] for name in structures], -1)
            objects["probabilities"] = self._make_segmentation(
                fractions, headers, "FRACTIONAL", "PROBABILITIES"
            )
            parametric = [name for name in maps if name in _UNCERTAINTY_IMAGES]
        for name in parametric:
            objects[name] = self._make_map(name, maps[name], headers)
        return objects

    def _make_segmentation(
        self,
        pixels: np.ndarray,
        headers: Sequence[Dataset],
        kind: Literal["BINARY", "FRACTIONAL"],
        label: str,
    ) -> Segmentation:
        """Of (slice, row, column) classes, or of (slice, row, column, structure) values."""
        import highdicom as hd

        segments = []
        for number, name in enumerate(self.codes, 1):
            segments.append(self._describe_segment(number, name, headers[0].SeriesInstanceUID))
        attributes = self._attributes(headers, 1, label.lower(), label)
        return hd.seg.Segmentation(headers, pixels, kind, segments, **attributes)

    def _describe_segment(self, number: int, name: str, series: str) -> SegmentDescription:
        """The segment of a structure, which has the same identifier in each run."""
        import highdicom as hd
        from pydicom.sr.codedict import codes

        code = self.codes[name]
        identity = uuid.uuid5(uuid.NAMESPACE_OID, f"{series} {self.serial} {name}")
        return hd.seg.SegmentDescription(
            number,
            name[:64],
            getattr(codes.cid7150, code["category"]),
            hd.sr.CodedConcept(code["code"], code.get("scheme", "SCT"), code["meaning"]),
            hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
            hd.AlgorithmIdentificationSequence(
                self.model[:64],
                codes.cid7162.ArtificialIntelligence,
                nnunet_nacl.__version__,
            ),
            tracking_uid=hd.UID.from_uuid(str(identity)),
            tracking_id=name,
        )

    def _make_map(self, name: str, values: np.ndarray, headers: Sequence[Dataset]) -> Dataset:
        """The parametric map of (slice, row, column) values in [0, 1]."""
        import highdicom as hd
        from pydicom.sr.codedict import codes

        label, meaning = _UNCERTAINTY_IMAGES.get(name, _PROBABILITY)
        meaning_of_values = hd.pm.RealWorldValueMapping(
            label,
            name[:64],
            codes.UCUM.NoUnits,
            (0.0, 1.0),
            slope=1.0,
            intercept=0.0,
            quantity_definition=private_code(label, meaning),
        )
        parametric_map = hd.pm.ParametricMap(
            headers,
            np.clip(values, 0, 1).astype(np.float32),
            contains_recognizable_visual_features=False,
            real_world_value_mappings=[meaning_of_values],
            voi_lut_transformations=[hd.VOILUTTransformation(window_center=0.5, window_width=1.0)],
            **self._attributes(headers, 2, name, label),
        )
        known = [name for name in ("BodyPartExamined", "Laterality") if headers[0].get(name)]
        for attribute in known:
            setattr(parametric_map, attribute, headers[0].get(attribute))
        if not known:
            parametric_map.Laterality = ""  # which must be there, and empty, then
        return parametric_map

    def _make_report(
        self, reported: Reported, segmentation: Segmentation, headers: Sequence[Dataset]
    ) -> Dataset:
        """The report of a scan: measurements of each structure, then what is said of the scan."""
        from highdicom import UID, sr
        from pydicom.sr.codedict import codes

        device = sr.DeviceObserverIdentifyingAttributes(
            UID(), _MAKER, _MAKER, self.model[:64], serial_number=self.serial
        )
        report = sr.MeasurementReport(
            sr.ObservationContext(
                observer_device_context=sr.ObserverContext(codes.DCM.Device, device)
            ),
            sr.CodedConcept("363679005", "SCT", "Imaging procedure"),
            self._measurement_groups(reported, segmentation, headers[0].SeriesInstanceUID),
            codes.cid7021.ImagingMeasurementReport,
        )
        report[0].ContentSequence.append(_describe_scan(reported))
        return sr.Comprehensive3DSR(
            [segmentation, *headers],
            report,
            is_complete=True,
            **self._attributes(headers, 3, "measurements"),
        )

    def _measurement_groups(
        self, reported: Reported, segmentation: Segmentation, series: str
    ) -> list[sr.VolumetricROIMeasurementsAndQualitativeEvaluations]:
        from highdicom import sr

        evaluations = []
        if reported.is_supported is not None:
            answer = _SUPPORTED if reported.is_supported else _NOT_SUPPORTED
            question = private_code("SUPPORT", "Whether predictions are supported")
            evaluations.append(sr.QualitativeEvaluation(question, private_code(*answer)))
        source_series = sr.SourceSeriesForSegmentation(series)
        groups = []
        for segment, row in zip(segmentation.SegmentSequence, reported.structures):
            group = sr.VolumetricROIMeasurementsAndQualitativeEvaluations(
                sr.TrackingIdentifier(segment.tracking_uid, segment.tracking_id),
                referenced_segment=sr.ReferencedSegment(
                    segmentation.SOPClassUID,
                    segmentation.SOPInstanceUID,
                    segment.segment_number,
                    source_series=source_series,
                ),
                finding_type=segment.segmented_property_type,
                algorithm_id=sr.AlgorithmIdentification(self.model[:64], nnunet_nacl.__version__),
                measurements=_measurements(row),
                qualitative_evaluations=evaluations,
            )
            groups.append(group)
        return groups

    def _attributes(
        self, headers: Sequence[Dataset], number: int, content: str, label: str = ""
    ) -> dict[str, Any]:
        """Attributes of a new object in a series of its own.

        Args:
            headers: Of the images.
            number: What is added to 100 times the images' series number: 1 for segmentations, 2 for
                parametric maps, 3 for the report.
            content: What the object holds, in words.
            label: The same as a DICOM label; empty for objects that have none.
        """
        import highdicom as hd

        attributes: dict[str, Any] = {}
        if label:
            attributes["content_label"] = label
            attributes["content_description"] = "research use only"
        number_of_images = int(headers[0].get("SeriesNumber") or 0)
        return attributes | {
            "series_instance_uid": hd.UID(),
            "sop_instance_uid": hd.UID(),
            "series_number": 100 * min(max(number_of_images, 0), 10**6) + number,
            "instance_number": 1,
            "series_description": f"{_MAKER}: {content}"[:64],
            "specific_character_set": "ISO_IR 192",  # names of structures may need it
            "manufacturer": _MAKER,
            "manufacturer_model_name": _MAKER,
            "software_versions": nnunet_nacl.__version__,
            "device_serial_number": self.serial,
        }


def _file_name(case: str, name: str) -> str:
    return f"{DICOM}/{case}_{name}.dcm"


def _segmentation_pixels(case: Case, to_slices: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """(slice, row, column) classes, or (slice, row, column, region) whether a voxel is inside."""
    channels = case.labels.channels_of(case.segmentation)
    if case.labels.regions:
        pixels = np.stack([to_slices(region) for region in channels], -1)
    else:
        pixels = to_slices(channels)
    return pixels.astype(np.uint16)


def _describe_scan(reported: Reported) -> sr.ContainerContentItem:
    """Whether a scan is flagged, and the reasons."""
    from highdicom import sr
    from pydicom.sr.codedict import codes

    flag = private_code("FLAG", "Flagged for review")
    reason = private_code("REASON", "Reason to look")
    answer = codes.cid230.Yes if reported.is_flagged else codes.cid230.No
    items: list[sr.ContentItem] = [sr.CodeContentItem(flag, answer, "CONTAINS")]
    for text in reported.reasons:
        items.append(sr.TextContentItem(reason, text, "CONTAINS"))
    title = sr.CodedConcept("C0034375", "UMLS", "Qualitative Evaluations")
    scan = sr.ContainerContentItem(title, relationship_type="CONTAINS")
    scan.ContentSequence = sr.ContentSequence(items)
    return scan


def _measurements(row: Mapping[str, Any]) -> list[sr.Measurement]:
    """What the report says of a structure, by columns of structures.csv; nothing that is NaN."""
    from highdicom.sr import CodedConcept, Measurement
    from pydicom.sr.codedict import codes

    concepts = {"volume_ml": (codes.SCT.Volume, CodedConcept("ml", "UCUM", "milliliter"))}
    for column, (code, meaning) in _MEASUREMENTS.items():
        concepts[column] = (private_code(code, meaning), codes.UCUM.NoUnits)
    measurements = []
    for column, (concept, unit) in concepts.items():
        value = float(row.get(column, math.nan))
        if math.isfinite(value):
            measurements.append(Measurement(concept, value, unit))
    return measurements


def _find_turns(
    geometry: Geometry, shape: tuple[int, ...], headers: Sequence[Dataset]
) -> Callable[[np.ndarray], np.ndarray]:
    """What brings arrays of nnU-Net's readers, which may turn images, to a series' slices.

    Args:
        geometry: Of the arrays, which have the axes (z, y, x).
        shape: Of the arrays.
        headers: Of the slices, in order.

    Raises:
        UserError: The arrays are not on the grid of the slices.
    """
    from nibabel.orientations import apply_orientation, inv_ornt_aff, io_orientation

    if geometry.affine is None:
        raise ValueError("the readers of DICOM's images know where they lie")
    # (x, y, z) of the series -> (x, y, z) of the array
    to_array = np.linalg.inv(geometry.affine) @ affine_of_series(headers)
    turns = io_orientation(np.linalg.inv(to_array))
    difference = to_array - inv_ornt_aff(turns, shape[::-1])
    size = (int(headers[0].Columns), int(headers[0].Rows), len(headers))
    ends = [(0, length - 1) for length in size]
    # an error of the voxel spacing adds up from voxel to voxel: it is largest at a corner
    corners = np.array(list(itertools.product(*ends, [1])))
    difference_voxels = np.abs(difference @ corners.T).max()
    turned_shape = apply_orientation(np.empty(shape[::-1], bool), turns).shape
    if turned_shape != size or difference_voxels > _ON_GRID:
        raise UserError(
            "the segmentation is not on the grid of the DICOM images; predict this series again."
        )
    # arrays have the axes (z, y, x)
    return lambda array: apply_orientation(array.transpose(), turns).transpose()
