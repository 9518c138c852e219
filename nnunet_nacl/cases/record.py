"""The record of a case: all that was measured of it, in one file; and the tables of records.

A key holds everything that it depends on.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pandas as pd
from pydantic import Field, InstanceOf, NonNegativeInt
from typing_extensions import TypedDict

from nnunet_nacl.cases.case import MASKS, MadeBy
from nnunet_nacl.cases.findings import StructureFindings
from nnunet_nacl.cases.record_file import decode_header, is_replaceable_record, read_arrays
from nnunet_nacl.cases.record_key import FileKey, Key
from nnunet_nacl.cases.sample import Sample
from nnunet_nacl.cases.structure_values import ALWAYS, COUNTS, MEMBER_VOLUME, SHARES, WITH_TRUTH
from nnunet_nacl.estimators.recall import THRESHOLDS
from nnunet_nacl.metrics.binning import BinStats
from nnunet_nacl.metrics.calibration_error import mask_metrics
from nnunet_nacl.utilities.errors import UserError, describe, first_line, some
from nnunet_nacl.utilities.files import replacing, to_json_text
from nnunet_nacl.utilities.json_files import decode
from nnunet_nacl.utilities.json_types import Number, Size

FORMAT = 3
"""Raise it when a number changes for the same files, or the file holds something else."""

_MAX_NETWORKS = 1000  # whose mean a segmentation is
_SUMS = tuple(field.name for field in fields(BinStats))
_Count = Annotated[float, Field(ge=0, multiple_of=1, allow_inf_nan=False)]


class ScanValues(TypedDict, total=False):
    """Values of a case as a whole, as :func:`table` says; the last two need a ground truth."""

    unit: Literal["ml", "mm2", "pixels"]
    voxel_volume: Size
    entropy: Number
    confidence: Number
    mutual_information: Number
    n_members: _Count
    n_changed_voxels: _Count
    largest_label: _Count


_SCAN_WITH_TRUTH = frozenset({"n_changed_voxels", "largest_label"})
_SCAN_ALWAYS = ScanValues.__annotations__.keys() - _SCAN_WITH_TRUTH


class _StructureTable(TypedDict):
    """The table of structures as the header of a file holds it."""

    keys: Annotated[list[str], Field(min_length=1)]
    names: list[str]
    columns: dict[str, list[Size]]


@dataclass(frozen=True)
class PlacePicture:
    """A picture through the place where the network is least certain of a structure.

    Attributes:
        slice_name: Such as ``axial slice 3 of 20``; empty where the image has one slice.
        png: In base64; a ring marks the place.
        size: Width and height in pixels.
    """

    slice_name: str
    png: str
    size: tuple[NonNegativeInt, NonNegativeInt]


@dataclass(frozen=True, eq=False)
class CaseRecord:
    """All that is kept of a case: in memory, and in its file.

    Attributes:
        name: Of the case.
        structures: A row for each structure, by nnU-Net's key; columns as :func:`table` says.
        scan: Values of the case as a whole, by column of that table.
        bins: By mask, sums for its calibration; empty without a ground truth.
        addable: What :func:`~nnunet_nacl.estimators.recall.count_addable` gives; None without a
            ground truth.
        sample: Voxels that stand for the case; None without a ground truth.
        findings: Connected components of the structures that were asked for.
        differences: How its image differs from the training's, in words.
        profile: (F,) what the scan looks like, see :mod:`nnunet_nacl.nnunet.profile`; empty where
            no image was read.
        places: By name of a structure, the picture of its least certain place, those first that
            need a look most; empty where there is no image.
        image: File of its first channel, of a DICOM series its first; empty where it is not known.
        pictures: JSON of the pictures of the scan's page; empty where there are none, and in a
            record that was read.
        files: By place in the output folder, what was written of the case.
        made_by: How its probabilities were made, as far as it is known: ``checkpoint`` (SHA-256; of
            several ``checkpoints``, by fold), ``model_files`` (SHA-256 of what lies beside it, such
            as plans.json), ``step_size`` and ``mirroring``.
        key: What it depends on.
    """

    name: InstanceOf[str]
    structures: InstanceOf[pd.DataFrame]
    scan: ScanValues
    bins: dict[str, BinStats] = field(default_factory=dict)
    addable: InstanceOf[np.ndarray] | None = None
    sample: InstanceOf[Sample] | None = None
    findings: tuple[StructureFindings, ...] = ()
    differences: tuple[str, ...] = ()
    profile: tuple[Number, ...] = ()
    places: dict[str, PlacePicture] = field(default_factory=dict)
    image: InstanceOf[str] = ""
    pictures: bytes = b""
    files: dict[InstanceOf[str], FileKey] = field(default_factory=dict)
    made_by: MadeBy = field(default_factory=MadeBy)
    key: Key = field(default_factory=lambda: Key(files={}, settings={}))

    def save(self, path: Path) -> None:
        """Write the file under a temporary name, then rename it; UserError where that fails."""
        arrays = self._arrays()
        with replacing(path) as temporary, open(temporary, "xb") as file:
            np.savez_compressed(file, **arrays)  # type: ignore[arg-type]

    def _arrays(self) -> dict[str, np.ndarray]:
        """What the file holds, by name."""
        arrays = {"header": _as_bytes(to_json_text(self._header()).encode())}
        if self.bins:
            for name in _SUMS:
                arrays[f"bins_{name}"] = np.stack(
                    [getattr(self.bins[mask], name) for mask in MASKS]
                )
        if self.addable is not None:
            arrays["addable"] = self.addable
        if self.sample is not None:
            for name, values in vars(self.sample).items():
                arrays[f"sample_{name}"] = np.asarray(values)
        if self.pictures:
            arrays["pictures"] = _as_bytes(self.pictures)
        return arrays

    def _header(self) -> dict[str, object]:
        """What the file holds as JSON: all but what is an array of its own."""
        values = self.structures.drop(columns="name").astype(float)
        header: dict[str, object] = {
            "format": FORMAT,
            "keys": list(self.structures.index),
            "names": list(self.structures["name"]),
            "columns": values.to_dict("list"),
            "case": self.name,
        }
        for name in (attribute.name for attribute in fields(self)):
            if name not in ("name", "structures", "bins", "addable", "sample", "pictures"):
                header[name] = getattr(self, name)
        header["findings"] = [asdict(findings) for findings in self.findings]
        header["places"] = {name: asdict(picture) for name, picture in self.places.items()}
        return header


def _as_bytes(content: bytes) -> np.ndarray:
    return np.frombuffer(content, np.uint8)


def read_record(path: Path) -> CaseRecord:
    """Inverse of :meth:`CaseRecord.save`.

    Raises:
        UserError: The file is missing, broken or of another version, or its numbers do not belong
            together.
    """
    try:
        return _read_record(path)
    except Exception as error:  # zipfile, zlib and NumPy raise anything on broken bytes
        raise UserError(
            f"{path}: not a record of this version of nnunet_nacl ({first_line(error)})."
        ) from None


def _read_record(path: Path) -> CaseRecord:
    """As :func:`read_record`, but it raises anything."""
    arrays = read_arrays(path, lambda name: name != "pictures")
    header = decode_header(arrays["header"])
    if header["format"] != FORMAT:
        raise ValueError(f"format {header['format']}, not {FORMAT}")
    structures = _make_structures(decode(_StructureTable, header, path))
    values: dict[str, object] = {**header, "name": header["case"], "structures": structures}
    if "Dice" in structures:
        values["bins"] = _make_bins(arrays)
        values["addable"] = arrays["addable"]
    if "sample_log_odds" in arrays:
        values["sample"] = _make_sample(arrays)
    record = decode(CaseRecord, values, path)
    _check_record(record)
    return record


def _make_structures(table: _StructureTable) -> pd.DataFrame:
    """The frame of a table; ValueError for one that is not a record's.

    It is checked before, since a small file can ask for a frame of a million columns.
    """
    columns = table["columns"]
    of_networks = [name for name in columns if name.startswith(MEMBER_VOLUME)]
    others = columns.keys() - of_networks
    if not others <= ALWAYS.union(WITH_TRUTH) or len(of_networks) > _MAX_NETWORKS:
        raise ValueError("its columns are not those of this version")
    if any(len(values) != len(table["keys"]) for values in columns.values()):
        raise ValueError("a column has not as many values as there are structures")
    structures = pd.DataFrame(columns, index=table["keys"])
    structures.insert(0, "name", table["names"])
    return structures


def _make_bins(arrays: Mapping[str, np.ndarray]) -> dict[str, BinStats]:
    sums = {name: arrays[f"bins_{name}"] for name in _SUMS}
    if any(len(by_mask) != len(MASKS) for by_mask in sums.values()):
        raise ValueError("the sums are not of its masks")
    bins = {}
    for number, mask in enumerate(MASKS):
        sums_of_mask = {name: by_mask[number] for name, by_mask in sums.items()}
        bins[mask] = BinStats(**sums_of_mask)
    return bins


def _make_sample(arrays: Mapping[str, np.ndarray]) -> Sample:
    prefix = "sample_"
    values = {
        name.removeprefix(prefix): array
        for name, array in arrays.items()
        if name.startswith(prefix)
    }
    regions = bool(values.pop("regions"))
    return Sample(**values, regions=regions)


def _check_record(record: CaseRecord) -> None:
    """ValueError where the numbers of a record do not belong together."""
    structures = record.structures
    _check_columns(record)
    if (structures.filter(items=SHARES) > 1 + 1e-6).any(axis=None):
        raise ValueError("a share is above 1")
    if (structures.filter(items=COUNTS) % 1 != 0).any(axis=None):
        raise ValueError("a count is no whole number")
    if record.bins:
        n_tables = len(record.bins["all"].count)
        n_channels = record.bins["all"].num_classes
        n_structures = len(structures)
        # T and K of BinStats
        of_classes = (1, n_structures + 1)
        of_regions = (n_structures, n_structures)
        if (n_tables, n_channels) not in (of_classes, of_regions):
            raise ValueError("the sums are not of its structures")
    if record.addable is not None:
        _check_addable(record.addable, structures)
    if record.sample is not None:
        _check_sample(record.sample, record)


def _check_columns(record: CaseRecord) -> None:
    """ValueError where a record has not the columns of one with, or without, a ground truth."""
    columns = {name for name in record.structures if not name.startswith(MEMBER_VOLUME)}
    expected = {"name", *ALWAYS}
    expected_of_scan = set(_SCAN_ALWAYS)
    if record.bins:
        expected.update(WITH_TRUTH)
        expected_of_scan |= _SCAN_WITH_TRUTH
    is_unique = record.structures.index.is_unique
    if not is_unique or columns != expected or record.scan.keys() != expected_of_scan:
        raise ValueError("its columns are not those of this version")


def _check_addable(addable: np.ndarray, structures: pd.DataFrame) -> None:
    """ValueError where counts are not what ``count_addable`` gives for these structures."""
    is_possible = addable.shape == (2, len(structures), len(THRESHOLDS))
    is_possible &= addable.dtype == np.int64
    if is_possible:
        true_voxels, voxels = addable  # each (structures, thresholds)
        missed_voxels = structures["FN"]
        is_possible &= bool((addable >= 0).all() and (true_voxels <= voxels).all())
        is_possible &= bool((true_voxels.sum(axis=1) <= missed_voxels).all())
    if not is_possible:
        raise ValueError("no counts of the voxels that may be added")


def _check_sample(sample: Sample, record: CaseRecord) -> None:
    """ValueError where a sample is not of the structures, or the record is without a truth."""
    n_structures = len(record.structures)
    if record.bins and sample.num_structures == n_structures:
        has_regions = record.bins["all"].num_classes == n_structures
        if sample.regions == has_regions:
            return
    raise ValueError("the sample is not of its structures")


def read_pictures(path: Path) -> dict[str, Any]:
    """The pictures in a record's file, see :attr:`CaseRecord.pictures`; empty where it has none.

    Raises:
        UserError: The file is missing or damaged.
    """
    text = _read_pictures_text(path)
    if not text:
        return {}
    try:
        return json.loads(text)
    except ValueError as error:
        raise _damaged_pictures(path, error) from None


def save_again(record: CaseRecord, path: Path) -> None:
    """Write a record that was read from this file anew, such as with another key.

    Its pictures stay as they are. UserError where these are damaged, or the file cannot be written.
    """
    replace(record, pictures=_read_pictures_text(path)).save(path)


def _read_pictures_text(path: Path) -> bytes:
    """JSON of the pictures in a record's file; empty where it has none, UserError if damaged."""
    try:
        arrays = read_arrays(path, lambda name: name == "pictures")
    except OSError as error:
        raise UserError(describe(error, path)) from None
    except Exception as error:  # zipfile, zlib and NumPy raise anything on broken bytes
        raise _damaged_pictures(path, error) from None
    return arrays["pictures"].tobytes() if "pictures" in arrays else b""


def _damaged_pictures(path: Path, error: Exception) -> UserError:
    return UserError(
        f"{path}: its pictures cannot be read ({first_line(error)}); delete this file, and run"
        " again."
    )


def record_path(folder: Path, case: str) -> Path:
    """Where the record of a case lies in a folder of records."""
    return folder / f"{case}.npz"


def find_record(folder: Path, case: str) -> CaseRecord | None:
    """The record of a case in a folder of records; None without one that this version can read."""
    try:
        record = read_record(record_path(folder, case))
    except UserError:
        return None
    return record if record.name == case else None


def check_records(folder: Path, cases: Iterable[str]) -> None:
    """UserError, before any work, where the record of a case would replace a file that is no
    record."""
    paths = [record_path(folder, case) for case in cases]
    others = [str(path) for path in paths if not is_replaceable_record(path)]
    if others:
        raise UserError(
            f"{some(others)}: not written by nnunet_nacl, and would be lost; move it away."
        )


def table(records: Iterable[CaseRecord]) -> pd.DataFrame:
    """The one table that every command reads: a row for each case and structure.

    NaN where a value is not defined. Columns: ``case``, ``key`` and ``name`` of the structure;
    :data:`~nnunet_nacl.cases.structure_values.STRUCTURE_VALUES`, those that need a ground truth
    where there is one. Then, the same in all rows of a case, what its ``scan`` has: ``unit`` of
    volumes, ``voxel_volume``, ``entropy`` and ``confidence`` over the segmented structures, and so
    on.
    """
    rows_by_case = []
    cases = []
    for record in records:
        rows_by_case.append(record.structures.assign(**record.scan))
        cases.append(record.name)
    if not cases:
        return pd.DataFrame(columns=["case", "key", "name", *WITH_TRUTH])
    return pd.concat(rows_by_case, keys=cases, names=["case", "key"]).reset_index()


def scores(records: Iterable[CaseRecord]) -> pd.DataFrame:
    """A row for each case with its calibration.

    Columns are ``ECE:foreground``, ``NLL:all``, ``n_voxels:all`` and so on.
    """
    rows = {}
    for record in records:
        row = {}
        for mask in MASKS:
            for metric, value in mask_metrics(record.bins[mask]).items():
                row[f"{metric}:{mask}"] = value
        rows[record.name] = row
    return pd.DataFrame.from_dict(rows, orient="index")
