"""The record of a case: what was measured of it, and a key of everything that this depends on, in
one file.

The key holds digests of the contents of files, wherever they lie and whenever they were written,
and settings.
"""

from __future__ import annotations

import io
import json
import os
import zipfile
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pandas as pd
from pydantic import BeforeValidator, Field, InstanceOf, NonNegativeInt, TypeAdapter
from typing_extensions import TypedDict

from nnunet_nacl.cases.case import MASKS
from nnunet_nacl.cases.file_key import FileKey, file_key
from nnunet_nacl.cases.findings import StructureFindings
from nnunet_nacl.cases.sample import Sample
from nnunet_nacl.errors import UserError, first_line, some
from nnunet_nacl.files import regular_only, replacing, to_json_text
from nnunet_nacl.json_files import decode
from nnunet_nacl.json_types import Number, Size
from nnunet_nacl.metrics.binning import BinStats
from nnunet_nacl.metrics.calibration_error import mask_metrics
from nnunet_nacl.quality.recall import THRESHOLDS

RECORDS = "records"
"""Folder of the records: nnU-Net takes every ``*.npz`` beside segmentations for a prediction."""

FORMAT = 3
"""Raise it when a number changes for the same files, or the file holds something else."""

WITH_TRUTH = (
    "TP",
    "FP",
    "FN",
    "TN",
    "Dice",
    "IoU",
    "HD95_mm",
    "HD95_voxels",
    "ASSD_mm",
    "true_volume",
    "true_pieces",
)
"""Columns that need a ground truth: voxel counts, overlap, distances, and what the truth has of the
structure."""

_COUNTS = ["pieces", "TP", "FP", "FN", "TN", "true_pieces"]
_SHARES = [
    "predicted_dice",
    "network_dice",
    "members_dice",
    "max_probability",
    "largest_piece",
    "Dice",
    "IoU",
]
_ALWAYS = {*_SHARES[:5], "pieces", "volume", "predicted_volume", "network_volume"}
_SUMS = tuple(field.name for field in fields(BinStats))
_MOST_BYTES = 1 << 28  # of all arrays together: a small file can promise more than memory holds
_MOST_HEADER_BYTES, _MOST_HEADER_VALUES = 1 << 24, 1 << 19
"""Of JSON, which takes many times as much in memory; of 120 structures of 100 components each it is
3 MB, 90,000."""
_MOST_MEMBERS = 1000  # networks whose mean a segmentation is
_Count = Annotated[float, Field(ge=0, multiple_of=1, allow_inf_nan=False)]


class Key(TypedDict):
    """What a record depends on: files by name, None for one that never was, such as deleted
    probabilities; settings."""

    files: dict[InstanceOf[str], FileKey | None]
    settings: dict[str, Any]


class _Scan(TypedDict, total=False):
    unit: Literal["ml", "mm2", "pixels"]
    voxel_volume: Size
    entropy: Number
    confidence: Number
    mutual_information: Number
    n_members: _Count
    n_changed_voxels: _Count
    largest_label: _Count


class _MadeBy(TypedDict, total=False):
    checkpoint: str
    checkpoints: dict[str, str]
    model_files: dict[str, str]
    step_size: Annotated[float, Field(gt=0, le=1)]
    mirroring: bool


class _Table(TypedDict):
    keys: Annotated[list[str], Field(min_length=1)]
    names: list[str]
    columns: dict[str, list[Size]]


def _as(kind: Any) -> BeforeValidator:
    return BeforeValidator(TypeAdapter(kind).validate_python)


_OF_TRUTH = {*WITH_TRUTH, "n_changed_voxels", "largest_label"}
_ALWAYS |= _Scan.__annotations__.keys() - _OF_TRUTH


@dataclass(frozen=True, eq=False)
class CaseRecord:
    """All that is kept of a case: in memory, and in its file.

    Attributes:
        case: Its name.
        structures: A row for each structure, by nnU-Net's key; columns as :func:`table` says.
        scan: Values of the case as a whole, by column of that table.
        bins: By mask, sums for its calibration; empty without a ground truth.
        addable: What :func:`~nnunet_nacl.quality.recall.count_addable` gives; None without a ground
            truth.
        sample: Voxels that stand for the case; None without a ground truth.
        findings: Connected components of the structures that were asked for.
        differences: How its image differs from the training's, in words.
        profile: (F,) what the scan looks like, see :mod:`nnunet_nacl.nnunet.profile`; empty where
            no image was read.
        place: Where the network is least certain, in words; empty where there is no picture.
        picture: Base64 PNG through that place; empty where there is none.
        size: Width and height of the picture in pixels.
        image: File of its first channel, of a DICOM series its first; empty where it is not known.
        pictures: JSON of the pictures of the scan's page; empty where there are none, and in a
            record that was read.
        files: By place in the output folder, what was written of the case.
        made_by: How its probabilities were made, as far as it is known: ``checkpoint`` (SHA-256; of
            several ``checkpoints``, by fold), ``model_files`` (SHA-256 of what lies beside it, such
            as plans.json), ``step_size`` and ``mirroring``.
        key: What it depends on.
    """

    case: InstanceOf[str]
    structures: InstanceOf[pd.DataFrame]
    scan: Annotated[dict[str, Any], _as(_Scan)]
    bins: dict[str, BinStats] = field(default_factory=dict)
    addable: InstanceOf[np.ndarray] | None = None
    sample: InstanceOf[Sample] | None = None
    findings: tuple[StructureFindings, ...] = ()
    differences: tuple[str, ...] = ()
    profile: tuple[Number, ...] = ()
    place: str = ""
    picture: str = ""
    size: tuple[NonNegativeInt, NonNegativeInt] = (0, 0)
    image: InstanceOf[str] = ""
    pictures: bytes = b""
    files: dict[InstanceOf[str], FileKey] = field(default_factory=dict)
    made_by: Annotated[dict[str, Any], _as(_MadeBy)] = field(default_factory=dict)
    key: Key = field(default_factory=lambda: Key(files={}, settings={}))

    def save(self, path: Path) -> None:
        """Write the file under a temporary name, then rename it; UserError where that is not
        possible."""
        apart = ("structures", "bins", "addable", "sample", "pictures")
        header = {
            "format": FORMAT,
            "keys": list(self.structures.index),
            "names": list(self.structures["name"]),
            "columns": self.structures.drop(columns="name").astype(float).to_dict("list"),
            **{
                field.name: getattr(self, field.name)
                for field in fields(self)
                if field.name not in apart
            },
            "findings": list(map(asdict, self.findings)),
        }
        arrays: dict[str, Any] = {"header": np.frombuffer(to_json_text(header).encode(), np.uint8)}
        if self.bins:
            arrays |= {
                f"bins_{name}": np.stack([getattr(self.bins[mask], name) for mask in MASKS])
                for name in _SUMS
            }
            arrays["addable"] = self.addable
        if self.sample is not None:
            arrays |= {
                f"sample_{name}": np.asarray(values) for name, values in vars(self.sample).items()
            }
        if self.pictures:
            arrays["pictures"] = np.frombuffer(self.pictures, np.uint8)
        with replacing(path) as temporary, open(temporary, "xb") as file:
            np.savez_compressed(file, **arrays)


def read_record(path: Path) -> CaseRecord:
    """Inverse of :meth:`CaseRecord.save`.

    Raises:
        UserError: The file is missing, broken or of another version, or its numbers do not belong
            together.
    """
    try:
        arrays = _read_arrays(path, lambda name: name != "pictures")
        header = _read_header(arrays["header"])
        if header["format"] != FORMAT:
            raise ValueError(f"format {header['format']}, not {FORMAT}")
        rows = decode(_Table, header, path)
        _check_columns(rows)
        structures = pd.DataFrame(rows["columns"], index=rows["keys"])
        structures.insert(0, "name", rows["names"])
        kept: dict[str, Any] = header | {"structures": structures}
        if "Dice" in structures:
            sums = [arrays[f"bins_{name}"] for name in _SUMS]
            kept["bins"] = {
                mask: BinStats(*values) for mask, *values in zip(MASKS, *sums, strict=True)
            }
            kept["addable"] = arrays["addable"]
        if "sample_log_odds" in arrays:
            drawn: dict[str, Any] = {
                name[7:]: array for name, array in arrays.items() if name[:7] == "sample_"
            }
            kept["sample"] = Sample(**drawn | {"regions": bool(drawn["regions"])})
        record = decode(CaseRecord, kept, path)
        _check(record)
        return record
    except Exception as error:  # zipfile, zlib and NumPy raise anything on broken bytes
        raise UserError(
            f"{path}: not a record of this version of nnunet_nacl ({first_line(error)})."
        ) from None


def _read_header(content: np.ndarray) -> dict[str, Any]:
    text = content.tobytes()
    if text.count(b",") > _MOST_HEADER_VALUES:
        raise ValueError("its header is too large")
    return json.loads(text)


def _check_columns(table: _Table) -> None:
    """ValueError where columns are not those of a record: a small file can ask for a frame of a
    million."""
    of_members = [name for name in table["columns"] if name.startswith("volume ")]
    others = table["columns"].keys() - of_members
    if others - _ALWAYS - _OF_TRUTH or len(of_members) > _MOST_MEMBERS:
        raise ValueError("its columns are not those of this version")
    if any(len(values) != len(table["keys"]) for values in table["columns"].values()):
        raise ValueError("a column has not as many values as there are structures")


def _check(record: CaseRecord) -> None:
    """ValueError where the numbers of a record do not belong together."""
    table, bins, addable, sample = record.structures, record.bins, record.addable, record.sample
    num, found = (
        len(table),
        {name for name in (*table, *record.scan) if name[:7] != "volume "} - {"name"},
    )
    if not table.index.is_unique or found != (_ALWAYS | _OF_TRUTH if bins else _ALWAYS):
        raise ValueError("its columns are not those of this version")
    if (table.reindex(columns=_SHARES) > 1 + 1e-6).any(axis=None):
        raise ValueError("a share is above 1")
    if (table[_COUNTS if bins else _COUNTS[:1]] % 1 != 0).any(axis=None):
        raise ValueError("a count is no whole number")
    if bins and (len(bins["all"].count), bins["all"].num_classes) not in ((1, num + 1), (num, num)):
        raise ValueError("the sums are not of its structures")
    if addable is not None and (
        addable.shape != (2, num, len(THRESHOLDS))
        or addable.dtype != np.int64
        or (addable < 0).any()
        or (addable[0] > addable[1]).any()
        or (addable[0].sum(axis=1) > table.FN).any()
    ):
        raise ValueError("no counts of the voxels that may be added")
    if sample and (
        not bins or (sample.num_structures, sample.regions) != (num, bins["all"].num_classes == num)
    ):
        raise ValueError("the sample is not of its structures")


def read_pictures(path: Path) -> dict[str, Any]:
    """The pictures in a record's file, see :attr:`CaseRecord.pictures`; none where it is damaged or
    has none."""
    try:
        return json.loads(_read_pictures_text(path))
    except ValueError:
        return {}


def save_again(record: CaseRecord, path: Path) -> None:
    """Write a record that was read from this file anew, such as with another key; its pictures stay
    as they are."""
    replace(record, pictures=_read_pictures_text(path)).save(path)


def _read_pictures_text(path: Path) -> bytes:
    """JSON of the pictures in a record's file; empty where it is damaged or has none."""
    try:
        return _read_arrays(path, "pictures".__eq__)["pictures"].tobytes()
    except Exception:  # zipfile, zlib and NumPy raise anything on broken bytes
        return b""


def _read_arrays(path: Path, wanted: Callable[[str], bool]) -> dict[str, np.ndarray]:
    """Arrays of numbers in an npz file, by name; what is no finite number, or not as large as it
    says, is an error."""
    arrays = dict[str, np.ndarray]()
    with open(path, "rb", opener=regular_only) as file, zipfile.ZipFile(file) as archive:
        members = {member.filename.removesuffix(".npy"): member for member in archive.infolist()}
        members = {name: member for name, member in members.items() if wanted(name)}
        if sum(member.file_size for member in members.values()) > _MOST_BYTES:
            raise ValueError("its arrays are too large")
        if "header" in members and members["header"].file_size > _MOST_HEADER_BYTES:
            raise ValueError("its header is too large")
        for name, member in members.items():
            array: Any = np.load(io.BytesIO(archive.read(member)), allow_pickle=False)
            if array.dtype.kind not in "buif":
                raise ValueError(f"{name} is no array of numbers")
            if not np.isfinite(array).all() or (name.startswith("bins_") and (array < 0).any()):
                raise ValueError(f"{name} holds a number that is not finite, or below 0")
            arrays[name] = array
    return arrays


def record_path(folder: Path, case: str) -> Path:
    """Where the record of a case lies in a folder of records."""
    return folder / f"{case}.npz"


def find_record(folder: Path, case: str) -> CaseRecord | None:
    """The record of a case in a folder of records; None where there is none that this version can
    read."""
    try:
        record = read_record(record_path(folder, case))
    except UserError:
        return None
    return record if record.case == case else None


def read_header(path: Path) -> dict[str, Any]:
    """What a record of any version says in words and single numbers; it raises anything where the
    file is none."""
    header = _read_header(_read_arrays(path, "header".__eq__)["header"])
    if not {"format", "case"} <= header.keys():
        raise ValueError("the header is not that of a record")
    return header


def is_record(path: Path) -> bool:
    """Whether a file is a record, by its format: of any version, and also one that was damaged."""
    try:
        read_header(path)
    except (zipfile.BadZipFile, zlib.error, EOFError):
        # cut short, but hardly before the first name in it
        with open(path, "rb", opener=regular_only) as file:
            start = file.read(40)
        return start[:4] == b"PK\3\4" and start[30:] == b"header.npy"
    except Exception:  # NumPy and JSON raise anything on the files of others
        return False
    return True


def check_records(folder: Path, cases: Iterable[str]) -> None:
    """UserError, before any work, where the record of a case would replace a file that is no
    record."""
    paths = [record_path(folder, case) for case in cases]
    others = [str(path) for path in paths if not is_replaceable_record(path)]
    if others:
        raise UserError(
            f"{some(others)}: not written by nnunet_nacl, and would be lost; move it away."
        )


def is_replaceable_record(path: Path) -> bool:
    """Whether no file of others lies where a record goes: nothing at all, an empty file, or a
    record."""
    if not os.path.lexists(path):
        return True
    return path.is_file() and (path.stat().st_size == 0 or is_record(path))


def make_key(
    files: Mapping[str, Path | None], settings: Mapping[str, Any], earlier: Key | None = None
) -> Key:
    """The key of a case as it is now, of files by name and JSON values; OSError where a file cannot
    be read.

    A file that is gone counts as it did in the key of an ``earlier`` record: deleted probabilities
    are no reason to measure again.
    """
    before = earlier["files"] if earlier else {}
    keys: dict[str, FileKey | None] = {}
    for name, path in files.items():
        try:
            keys[name] = None if path is None else file_key(path, before.get(name))
        except FileNotFoundError:
            keys[name] = before.get(name)
    return {"files": keys, "settings": dict(settings)}


def same_contents(first: Key, second: Key) -> bool:
    """Whether two keys are of the same settings and the same contents of files."""
    first_files, second_files = (
        {name: file and (file["size"], file["digest"]) for name, file in key["files"].items()}
        for key in (first, second)
    )
    return first["settings"] == second["settings"] and first_files == second_files


def table(records: Iterable[CaseRecord]) -> pd.DataFrame:
    """The one table that every command reads: a row for each case and structure, NaN where a value
    is not defined.

    Columns: ``case``, ``key`` and ``name`` of the structure; those of :data:`WITH_TRUTH`;
    ``volume`` and ``pieces`` of its segmentation and the share of the ``largest_piece``; by the
    probabilities (under the map, where there is one) ``predicted_dice``, ``predicted_volume`` and
    ``max_probability``; by the network's own ``network_volume``, and ``network_dice``, the largest
    expected Dice of any set of voxels; ``members_dice`` where several networks predicted. Then, the
    same in all rows of a case, what its ``scan`` has: ``unit`` of volumes, ``voxel_volume``,
    ``entropy`` and ``confidence`` over the segmented structures, and so on.
    """
    if not (records := list(records)):
        return pd.DataFrame(columns=["case", "key", "name", *WITH_TRUTH])
    rows = [record.structures.assign(**record.scan) for record in records]
    return pd.concat(
        rows, keys=[record.case for record in records], names=["case", "key"]
    ).reset_index()


def scores(records: Iterable[CaseRecord]) -> pd.DataFrame:
    """A row for each case with its calibration: columns ``ECE:foreground``, ``NLL:all``,
    ``n_voxels:all`` and so on."""
    rows = {}
    for record in records:
        by_mask = {mask: mask_metrics(record.bins[mask]).items() for mask in MASKS}
        rows[record.case] = {
            f"{metric}:{mask}": value for mask, found in by_mask.items() for metric, value in found
        }
    return pd.DataFrame.from_dict(rows, orient="index")
