"""The record of a case: all that is kept of it, in one file that is written whole."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
from pydantic import Field, NonNegativeInt
from typing_extensions import TypedDict

from nnunet_nacl.case.findings import StructureFindings
from nnunet_nacl.case.key import FileKey, Key
from nnunet_nacl.case.sample import Sample
from nnunet_nacl.case.settings import MASKS
from nnunet_nacl.case.table import ALWAYS, WITH_TRUTH
from nnunet_nacl.errors import UserError, first_line
from nnunet_nacl.files import regular_only, replacing, to_json_text
from nnunet_nacl.json_files import Number, Size, decode, encode
from nnunet_nacl.numbers.binning import BinStats

RECORDS = "records"
"""Folder of the records: nnU-Net takes every ``*.npz`` beside segmentations for a prediction."""

FORMAT = 1
"""Raise it when a number changes for the same files, or the file holds something else."""

_SHARES = ("Dice", "IoU", "largest_piece", "predicted_dice", "max_probability", "network_dice", "members_dice")
_COUNTS, _COUNTED = ("TP", "FP", "FN", "TN", "true_pieces"), ("n_changed_voxels", "largest_label")
_SUMS = tuple(field.name for field in fields(BinStats))
_NO_KEY: Key = {"files": {}, "settings": {}}


@dataclass(frozen=True, eq=False)
class CaseRecord:
    """All that is kept of a case.

    Attributes:
        case: Its name.
        structures: A row for each structure, by nnU-Net's key; columns as :func:`nnunet_nacl.case.table.table` says.
        scan: Values of the case as a whole, by column of that table.
        bins: By mask, sums for its calibration; empty without a ground truth.
        sample: Voxels that stand for the case; None without a ground truth.
        findings: Connected components of the structures that were asked for.
        differences: How its image differs from the training's, in words.
        profile: (F,) what the scan looks like, see :mod:`nnunet_nacl.nnunet.profile`; empty where no image was read.
        place: Where the network is least certain, in words; empty where there is no picture.
        picture: Base64 PNG through that place; empty where there is none.
        size: Width and height of the picture in pixels.
        image: File of its first channel, of a DICOM series its first; empty where it is not known.
        pictures: JSON of the pictures of the scan's page; empty where there are none, and in a record that was read.
        files: By place in the output folder, what was written of the case.
        made_by: How its probabilities were made, as far as it is known, see :class:`MadeBy`.
        key: What it depends on.
    """

    case: str
    structures: pd.DataFrame
    scan: dict[str, Any]
    bins: dict[str, BinStats] = field(default_factory=dict)
    sample: Sample | None = None
    findings: tuple[StructureFindings, ...] = ()
    differences: tuple[str, ...] = ()
    profile: tuple[float, ...] = ()
    place: str = ""
    picture: str = ""
    size: tuple[int, int] = (0, 0)
    image: str = ""
    pictures: bytes = b""
    files: dict[str, FileKey] = field(default_factory=dict)
    made_by: dict[str, Any] = field(default_factory=dict)
    key: Key = field(default_factory=lambda: _NO_KEY)

    def save(self, path: Path) -> None:
        """Write the file under a temporary name, then rename it; UserError where that is not possible."""
        numbers = self.structures.drop(columns="name")
        scan = {name: value for name, value in self.scan.items() if name != "unit"}
        header = _Header(
            FORMAT,
            **{name: getattr(self, name) for name in _KEPT},
            keys=list(map(str, self.structures.index)),
            names=list(self.structures["name"]),
            columns={str(name): values.astype(float).tolist() for name, values in numbers.items()},
            scan=scan,
            unit=self.scan["unit"],
        )
        text = to_json_text(encode(header)).encode()
        arrays: dict[str, Any] = {"header": np.frombuffer(text, np.uint8)}
        if self.bins:
            arrays |= {f"bins_{name}": np.stack([getattr(self.bins[mask], name) for mask in MASKS]) for name in _SUMS}
        if self.sample is not None:
            arrays |= {f"sample_{name}": values for name, values in self.sample.arrays.items()}
        if self.pictures:
            arrays["pictures"] = np.frombuffer(self.pictures, np.uint8)
        with (
            replacing(path) as temporary,
            open(temporary, "xb") as file,
        ):
            np.savez_compressed(file, **arrays)


class MadeBy(TypedDict, total=False):
    """How probabilities were made.

    Attributes:
        checkpoint: SHA-256 of the network.
        checkpoints: By fold, those of several, whose mean they are.
        step_size: Of the sliding window, as a share of the patch.
        mirroring: Whether mirrored copies were predicted too.
    """

    checkpoint: str
    checkpoints: dict[str, str]
    step_size: Annotated[float, Field(gt=0, le=1)]
    mirroring: bool


@dataclass(frozen=True)
class _Header:
    """What the JSON text in a record's file holds."""

    format: int
    case: str
    keys: list[str]
    names: list[str]
    columns: dict[str, list[Size]]
    scan: dict[str, Number]
    unit: str
    findings: tuple[StructureFindings, ...]
    differences: tuple[str, ...]
    profile: tuple[Number, ...]
    place: str
    picture: str
    size: tuple[NonNegativeInt, NonNegativeInt]
    image: str
    files: dict[str, FileKey]
    made_by: MadeBy
    key: Key

    def __post_init__(self) -> None:
        if self.format != FORMAT:
            raise ValueError(f"format {self.format}, not {FORMAT}")
        lengths = {len(self.names), *map(len, self.columns.values())}
        if not self.keys or lengths != {len(self.keys)}:
            raise ValueError("columns must have a value for each structure")
        if lacking := [name for name in ALWAYS if name not in self.columns]:
            raise ValueError(f"columns: there is no {lacking[0]}")
        if large := [name for name in _SHARES if any(value > 1 + 1e-6 for value in self.columns.get(name, ()))]:
            raise ValueError(f"columns.{large[0]}: a value is above 1")


_KEPT = ("case", "findings", "differences", "profile", "place", "picture", "size", "image", "files", "made_by", "key")


def read_record(path: Path) -> CaseRecord:
    """Inverse of :meth:`CaseRecord.save`.

    Raises:
        UserError: The file is missing, broken or of another version, or its numbers do not belong together.
    """
    try:
        with open(path, "rb", opener=regular_only) as file, np.load(file, allow_pickle=False) as data:
            header = decode(_Header, json.loads(data["header"].tobytes()), path)
            bins, sample = dict[str, BinStats](), None
            if "bins_count" in data.files:
                sums = [data[f"bins_{name}"] for name in _SUMS]
                bins = {mask: BinStats(*values) for mask, *values in zip(MASKS, *sums, strict=True)}
            if "sample_log_odds" in data.files:
                drawn = {name.name: data[f"sample_{name.name}"] for name in fields(Sample)}
                sample = Sample(**drawn | {"regions": bool(drawn["regions"])})
            _check_truth(header, bins, sample)
    except Exception as error:  # zipfile, zlib and NumPy raise anything on broken bytes
        raise UserError(f"{path}: not a record of this version of nnunet_nacl ({first_line(error)}).") from None
    structures = pd.DataFrame(header.columns, index=header.keys)
    structures.insert(0, "name", header.names)
    kept = {name: getattr(header, name) for name in _KEPT}
    scan = {"unit": header.unit} | header.scan
    return CaseRecord(structures=structures, scan=scan, bins=bins, sample=sample, **kept)


def read_pictures(path: Path) -> dict[str, Any]:
    """The pictures in a record's file, see :attr:`CaseRecord.pictures`; none where it is damaged or has none."""
    try:
        with open(path, "rb", opener=regular_only) as file, np.load(file, allow_pickle=False) as data:
            return json.loads(data["pictures"].tobytes())
    except Exception:  # zipfile, zlib and NumPy raise anything on broken bytes
        return {}


def _check_truth(header: _Header, bins: dict[str, BinStats], sample: Sample | None) -> None:
    """ValueError where what was measured beside a truth is not whole, or of other structures."""
    num = len(header.keys)
    if sample is not None and (sample.num_structures != num or not bins):
        raise ValueError(f"a sample of {sample.num_structures} structures, not {num}")
    for mask, stats in bins.items():
        regions = sample.regions if sample is not None else stats.num_classes == num
        if (len(stats.count), stats.num_classes) != ((num, num) if regions else (1, num + 1)):
            raise ValueError(f"bins {mask}: not of {num} structures")
        if not all(np.isfinite(sums).all() and (sums >= 0).all() for sums in vars(stats).values()):
            raise ValueError(f"bins {mask}: a sum is below 0 or not finite")
    if bins:
        counts = [value for name in _COUNTS for value in header.columns.get(name, [math.nan])]
        counts += [header.scan.get(name, math.nan) for name in _COUNTED]
        if not set(WITH_TRUTH) <= header.columns.keys() or not np.isfinite(counts).all():
            raise ValueError("what was counted beside the ground truth is missing")


def record_path(folder: Path, case: str) -> Path:
    """Where the record of a case lies in a folder of records."""
    return folder / f"{case}.npz"


def find_record(folder: Path, case: str) -> CaseRecord | None:
    """The record of a case in a folder of records; None where there is none that this version can read."""
    try:
        record = read_record(record_path(folder, case))
    except UserError:
        return None
    return record if record.case == case else None
