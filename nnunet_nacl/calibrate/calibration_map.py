"""The content of calibration_map.json. The same types are used in memory, for the file and for its JSON schema.

A file that was made by hand may lack whatever has a default. Keys may be added within a version.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import FiniteFloat, NonNegativeInt
from torch import Tensor
from typing_extensions import NotRequired, Self, TypedDict

import nnunet_nacl
from nnunet_nacl.calibrate.effect import CertainBackground, Change, certain_background
from nnunet_nacl.calibrate.stored_map import StoredMap, loaded_map, stored_map
from nnunet_nacl.case.case import EvaluationSettings
from nnunet_nacl.case.sample import sample_arrays
from nnunet_nacl.errors import UserError
from nnunet_nacl.files import to_json_text, write_atomically
from nnunet_nacl.json_files import decode, encode, read_dict
from nnunet_nacl.json_types import Number, doc
from nnunet_nacl.numbers.binning import check_chunk
from nnunet_nacl.numbers.crossfit import CrossFit, FormScore, choose, cross_fit, parts_of
from nnunet_nacl.numbers.fitting import FORMS, Voxels, case_loss
from nnunet_nacl.numbers.learned_quality import LearnedQuality
from nnunet_nacl.numbers.log_odds_map import LogOddsMap
from nnunet_nacl.numbers.overlap import Detected
from nnunet_nacl.numbers.presence import LearnedPresence
from nnunet_nacl.numbers.recall import LearnedRecall
from nnunet_nacl.numbers.unlike import CalibrationProfiles
from nnunet_nacl.numbers.voxel_uncertainty import label_confidence

SCHEMA_VERSION = 6
FEWEST_CASES = 5
"""To fit a map to."""
SCOPE = "for patients like these: scanner, protocol, disease and networks as in the calibration set"


class NamedStructure(TypedDict):
    """A structure."""

    key: Annotated[str, doc("nnU-Net's key.")]
    name: Annotated[str, doc("Its name.")]


class Inference(TypedDict):
    """How the cases were predicted; empty where it is not known."""

    step_size: NotRequired[Annotated[FiniteFloat, doc("Step of the sliding window, as a share of the patch.")]]
    mirroring: NotRequired[Annotated[bool, doc("Whether mirrored copies were predicted, too.")]]


@dataclass(frozen=True)
class CalibrationSet:
    """What a map was fitted to.

    Attributes:
        n_cases: Cases.
        n_patients: Patients that they are of.
        sha256: Of the cases' names and the checkpoints' SHA-256, both sorted, a line each: maps with the same one were
            fitted to cases of the same names by the same networks. It says nothing about what the cases hold.
    """

    n_cases: NonNegativeInt
    n_patients: NonNegativeInt
    sha256: str

    @classmethod
    def of(
        cls, cases: Collection[str], groups: Mapping[str, str] | None, networks: Mapping[str, str]
    ) -> CalibrationSet:
        """Describe cases, the patient of each, and the SHA-256 of the networks by fold, as far as it is known."""
        text = "\n".join([*sorted(cases), *sorted(networks.values())])
        patients = {groups[case] for case in cases} if groups else cases
        digest = hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()
        return cls(len(cases), len(patients), digest)


@dataclass(frozen=True, eq=False)
class MapPart:
    """A part of the cross-fit."""

    cases: Annotated[list[str], doc("Cases of the part.")]
    map: Annotated[StoredMap, doc("The map that was fitted without them.")]


@dataclass(frozen=True, eq=False)
class MapQuality:
    """How promised Dice and volume relate to the true ones."""

    unit: Annotated[str, doc("Unit of the volumes: ml, mm2 or pixels.")] = ""
    n_cases: Annotated[NonNegativeInt, doc("Cases that it was learned from.")] = 0
    n_patients: Annotated[NonNegativeInt, doc("Patients that they are of.")] = 0
    why_not: Annotated[str, doc("Why nothing was learned; else empty.")] = ""
    learned: Annotated[LearnedQuality | None, doc("Of Dice and volume of nnU-Net's labels; null if nothing was.")] = (
        None
    )
    presence: Annotated[LearnedPresence | None, doc("What was learned about which structures are present.")] = None
    recall: Annotated[dict[str, LearnedRecall], doc("By structure, what labels miss at each threshold.")] = field(
        default_factory=dict
    )
    profiles: Annotated[CalibrationProfiles | None, doc("How the scans look; null if there were no images.")] = None


@dataclass(frozen=True, eq=False)
class Probabilities:
    """Probabilities that know whether a map was applied to them.

    Attributes:
        array: (K, *spatial) float32 class probabilities, background first and summing to 1, or (R, *spatial) regions.
        calibrated: Whether a map was applied.
    """

    array: np.ndarray
    calibrated: bool


@dataclass(frozen=True, eq=False)
class Fitted:
    """How the map was fitted, and what it changes on cases that the fit has not seen."""

    n_cases: Annotated[NonNegativeInt | None, doc("Cases of the calibration set; null if it is not known.")] = None
    groups: Annotated[dict[str, str], doc("Patient of each case; a case that is missing is its own patient.")] = field(
        default_factory=dict
    )
    forms: Annotated[list[FormScore], doc("Each form and ridge that was tried.")] = field(default_factory=list)
    nll: Annotated[Number, doc("Negative log likelihood of a voxel under the map, mean over cases, nats.")] = math.nan
    cross_fit: Annotated[
        dict[str, MapPart], doc("Parts of the cases, each with the map that was fitted to the rest.")
    ] = field(default_factory=dict)
    effect: Annotated[dict[str, Change], doc("By value, such as `NLL all` or `pooled ECE predicted`.")] = field(
        default_factory=dict
    )
    detected: Annotated[dict[str, Detected], doc("By structure.")] = field(default_factory=dict)
    certain_background: Annotated[CertainBackground, doc("Shares that no map changes.")] = CertainBackground(
        math.nan, math.nan
    )

    @property
    def part_of(self) -> dict[str, str]:
        """Part of each case that the map was fitted to."""
        return {case: name for name, part in self.cross_fit.items() for case in part.cases}


@dataclass(frozen=True, eq=False)
class Origin:
    """Where the cases come from, and for whom the map holds."""

    source: Annotated[str, doc("Model folder, or folder of predictions.")] = ""
    folds: Annotated[list[str], doc("Folds whose validation cases they are.")] = field(default_factory=list)
    checkpoint_sha256: Annotated[dict[str, str], doc("SHA-256 of each fold's checkpoint, as far as it is known.")] = (
        field(default_factory=dict)
    )
    inference: Annotated[Inference, doc("How the cases were predicted.")] = field(default_factory=Inference)
    settings: Annotated[EvaluationSettings, doc("What was measured before and after.")] = EvaluationSettings()
    calibration_set: Annotated[CalibrationSet | None, doc("Its size and hash.")] = None
    scope: Annotated[str, doc("For whom the map holds.")] = ""
    versions: Annotated[dict[str, str], doc("Versions of the packages that made it.")] = field(default_factory=dict)
    notes: Annotated[list[str], doc("Caveats.")] = field(default_factory=list)
    problems: Annotated[dict[str, str], doc("By case why it could not be used.")] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class CalibrationMap:
    """calibration_map.json: a map of probabilities, what it was fitted to, what it changes, and for whom it holds.

    A map that was made by hand has no more than ``schema_version``, ``structures``, ``regions``, ``form`` and ``maps``.

    Attributes:
        schema_version: Version of this format.
        structures: In the order of the channels, without the background.
        regions: Whether channels are sigmoid regions.
        form: Of the map in use: temperature, shift, conditional, or given, a model's map that own cases left as it is.
        maps: By form.
        labels: Names of the rows of a map.
        generated_by: Package and version.
        fitted: How it was fitted, and what it changes.
        quality: What was learned about Dice and volumes; null where nothing was.
        origin: Where the cases come from, and for whom it holds.

    Raises:
        ValueError: A map is none, or of other structures, or something was learned of others.
    """

    schema_version: int
    structures: list[NamedStructure]
    regions: bool
    form: str
    maps: dict[str, StoredMap]
    labels: list[str] = field(default_factory=list)
    generated_by: str = ""
    fitted: Fitted = field(default_factory=Fitted)
    quality: MapQuality | None = None
    origin: Origin = field(default_factory=Origin)

    def __post_init__(self) -> None:
        if self.form not in self.maps:
            raise ValueError(f"it has no map of the form {self.form}, but {', '.join(self.maps)}")
        stored = {f"maps.{form}": each for form, each in self.maps.items()}
        stored |= {f"fitted.cross_fit.{name}.map": part.map for name, part in self.fitted.cross_fit.items()}
        for name, each in stored.items():
            if (num := len((each["slopes"] or [[]])[0])) != len(self.structures):  # tables of many take much memory
                raise ValueError(f"{name}: {num} slopes for {len(self.structures)} structures")
            try:
                loaded_map(each, self.regions)
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from None
        quality = self.quality or MapQuality()
        tables: dict[str, Collection[str]] = {"fitted.detected": self.fitted.detected, "quality.recall": quality.recall}
        if presence := quality.presence:
            for name in ("present", "listed", "checks", "why_not"):
                tables[f"quality.presence.{name}"] = getattr(presence, name)
        if learned := self.learned:
            for name in ("dice", "volume"):
                tables[f"quality.learned.{name}"] = getattr(learned, name)
                tables[f"quality.learned.checks.{name}"] = learned.checks.get(name, {})
            tables["quality.learned.scores.score"] = learned.scores.score
        for name, table in tables.items():
            if set(table) - self.names.keys() or ("learned" in name and len(table) < len(self.names)):
                here, there = ", ".join(self.names), ", ".join(table)
                raise ValueError(f"{name}: it is of the structures {there or 'none'}, the map is of {here}")

    @classmethod
    def fit(
        cls,
        probabilities: Sequence[np.ndarray],
        labels: Sequence[np.ndarray],
        *,
        groups: Sequence[Hashable] | None = None,
        names: Sequence[str] | None = None,
        form: str = "auto",
        regions: bool = False,
    ) -> CalibrationMap:
        """Fit a map to cases that the network was not trained on, as `calibrate` does; every case weighs the same.

        What `calibrate` learns beyond the map (predicted Dice, volumes, presence, flags) needs files of a model: use
        :func:`~nnunet_nacl.calibrate.workflow.calibrate_model`. Voxels without a structure above 1e-6 are left
        out, and large cases enter by a weighted sample of their voxels.

        Args:
            probabilities: Arrays or tensors, at least five: (K, *spatial) of each case, background first, summing to
                1; or (R, *spatial) of regions.
            labels: (*spatial) true class of each voxel, 0 to K - 1; or (R, *spatial) whether it is in each region.
            groups: Patient of each case, who is left out as a whole where forms are compared; None: each its own.
            names: Of the structures, without the background.
            form: One of :data:`~nnunet_nacl.numbers.fitting.FORMS`, or ``auto``.
            regions: Whether these are sigmoid regions.

        Raises:
            ValueError: These are no probabilities (logits, perhaps), shapes, names or the form do not fit, a case is
                certain background throughout, or there are fewer than five cases or two patients.

        Example:
            >>> import numpy as np
            >>> rng = np.random.default_rng(0)
            >>> labels = [rng.integers(0, 2, (8, 8, 8)) for _ in range(6)]
            >>> guesses = [np.where(rng.random(truth.shape) < 0.8, truth, 1 - truth) for truth in labels]
            >>> probabilities = [np.stack([0.99 - 0.98 * guess, 0.01 + 0.98 * guess]) for guess in guesses]
            >>> calibration = CalibrationMap.fit(probabilities, labels, form="temperature")
            >>> bool(0.7 < calibration.transform(probabilities[0]).max() < 0.9)  # right in 80 % of the voxels
            True
        """
        if len(probabilities) != len(labels) or groups is not None and len(groups) != len(labels):
            raise ValueError(f"one label map, and group, is needed for each of {len(probabilities)} cases.")
        if len(labels) < FEWEST_CASES:
            raise ValueError(f"{len(labels)} cases are too few to calibrate, it takes {FEWEST_CASES}.")
        if form not in ("auto", *FORMS):
            raise ValueError(f"the form must be auto, {', '.join(FORMS)}, got {form!r}.")
        arrays = [_checked(array, regions) for array in probabilities]
        channels = {len(array) for array in arrays}
        if len(channels) > 1 or names is not None and len(names) != min(channels) - (not regions):
            counts = ", ".join(map(str, sorted(channels)))
            wrong = f"got {counts} channels" + ("" if names is None else f" and {len(names)} names")
            raise ValueError(f"all cases need the same channels, and names one for each structure; {wrong}.")
        voxels = [sample_arrays(p, np.asarray(y), regions).voxels() for p, y in zip(arrays, labels)]
        patients = [str(group) for group in (range(len(labels)) if groups is None else groups)]
        parts, cases = parts_of(patients), [f"case {i}" for i in range(len(labels))]
        tried = cross_fit(voxels, parts, groups=patients)
        keys = [str(i + (not regions)) for i in range(len(tried[0].map.offsets[0]))]
        structures = dict(zip(keys, names or [f"structure {key}" for key in keys]))
        rows = ["out", "in"] if regions else ["background", *(names or keys)]
        of_groups = dict(zip(cases, patients)) if groups is not None else {}
        return cls.of_fits(tried, choose(tried, form), structures, rows, voxels, dict(zip(cases, parts)), of_groups)

    @classmethod
    def of_maps(cls, maps: Mapping[str, LogOddsMap], form: str, structures: Mapping[str, str], **further: Any) -> Self:
        """What applies maps, and nothing else unless it is given.

        Args:
            maps: By form.
            form: Of the map in use.
            structures: Name of each structure by nnU-Net's key, in order.
            **further: Attributes.
        """
        rows: list[NamedStructure] = [{"key": key, "name": name} for key, name in structures.items()]
        stored = {name: stored_map(calibration) for name, calibration in maps.items()}
        return cls(SCHEMA_VERSION, rows, maps[form].regions, form, stored, **further)

    @classmethod
    def of_fits(
        cls,
        tried: Sequence[CrossFit],
        chosen: CrossFit,
        structures: Mapping[str, str],
        labels: Sequence[str],
        voxels: Sequence[Voxels],
        parts: Mapping[str, str],
        groups: Mapping[str, str],
    ) -> Self:
        """What fits gave: of each form the best, with its ridge.

        Args:
            tried: All fits.
            chosen: That in use.
            structures: Name of each structure by nnU-Net's key, in order.
            labels: Names of the rows of a map.
            voxels: Of each case.
            parts: Part of each case in the cross-fit.
            groups: Patient of each case; empty where each is its own.
        """
        fits = {name: choose(tried, name) for name in dict.fromkeys(fit.score.form for fit in tried)}
        fits[chosen.score.form] = chosen
        part_maps = {
            part: MapPart([case for case, its in parts.items() if its == part], stored_map(fitted))
            for part, fitted in chosen.part_maps.items()
        }
        made = cls.of_maps(
            {name: fit.map for name, fit in fits.items()},
            chosen.score.form,
            structures,
            labels=list(labels),
            generated_by=f"nnunet_nacl {nnunet_nacl.__version__}",
            fitted=Fitted(
                len(parts),
                dict(groups),
                [fit.score for fit in tried],
                float(np.mean([case_loss(case, chosen.map) for case in voxels])),
                part_maps,
                certain_background=certain_background(voxels),
            ),
            origin=Origin(scope=SCOPE),
        )
        for name, fit in fits.items():
            made.maps[name]["ridge"] = fit.score.ridge
        return made

    def transform(self, probabilities: np.ndarray | Tensor | Probabilities, form: str | None = None) -> np.ndarray:
        """The calibrated probabilities of a case.

        Their most probable class is not always nnU-Net's label, which a map leaves as it is: take labels from the
        network's own probabilities, and :meth:`confidence` for how probably they are right. Whether a plain array was
        calibrated before nobody can know: calibrate it once.

        Args:
            probabilities: (K, *spatial) or (R, *spatial), as the network's softmax or sigmoid gives them.
            form: None for the map in use.

        Returns:
            A new array of the same shape; float32, or float64 if that was given.

        Raises:
            ValueError: These are no probabilities, their channels are not those of the map, or they say that they are
                calibrated.
        """
        if isinstance(probabilities, Probabilities):
            if probabilities.calibrated:
                raise ValueError("these probabilities are calibrated already; a second map would be wrong.")
            probabilities = probabilities.array
        return self.calibration(form)(_checked(probabilities, self.regions))

    def confidence(self, probabilities: np.ndarray | Tensor, form: str | None = None) -> np.ndarray:
        """(*spatial) calibrated probability that nnU-Net's label of a voxel is right.

        For regions that of the least certain one. Arguments and errors are those of :meth:`transform`.
        """
        probs = _checked(probabilities, self.regions)
        labels = probs > 0.5 if self.regions else probs.argmax(0)
        return label_confidence(self.transform(probs, form), labels, regions=self.regions)

    @classmethod
    def load(cls, path: str | PathLike) -> CalibrationMap:
        """What a file holds; UserError if it is missing, is no such file, is damaged, or is of another schema."""
        path = Path(path)
        content = read_dict(path)
        if (version := content.get("schema_version")) != SCHEMA_VERSION:
            raise UserError(
                f"{path}: schema version {version!r}, this version of nnunet_nacl reads {SCHEMA_VERSION}; run "
                "nnunet_nacl calibrate again, or remove it."
            )
        fix = "calibrate again, or give its calibration_map.json"
        return decode(cls, content, f"{path}: not a map of `nnunet_nacl calibrate`", fix=fix)

    def save(self, path: str | PathLike) -> None:
        """Write the file, under a temporary name first; UserError where that is not possible."""
        write_atomically(Path(path), to_json_text(encode(self)))

    def calibration(self, form: str | None = None) -> LogOddsMap:
        """The map of a form, None for the one in use; KeyError where there is none such."""
        return loaded_map(self.maps[form or self.form], self.regions)

    @property
    def part_maps(self) -> dict[str, LogOddsMap]:
        """By case that the map was fitted to, the map that was fitted to the other parts."""
        maps = {name: loaded_map(part.map, self.regions) for name, part in self.fitted.cross_fit.items()}
        return {case: maps[name] for case, name in self.fitted.part_of.items()}

    @property
    def names(self) -> dict[str, str]:
        """Name of each structure by nnU-Net's key, in order."""
        return {row["key"]: row["name"] for row in self.structures}

    @property
    def learned(self) -> LearnedQuality | None:
        """What was learned about Dice and volumes; None for nothing."""
        return self.quality.learned if self.quality else None


def _checked(probabilities: np.ndarray | Tensor, regions: bool) -> np.ndarray:
    """An array of probabilities; ValueError for what is none, such as logits."""
    given: Any = probabilities.detach().cpu() if isinstance(probabilities, Tensor) else probabilities
    array = np.asarray(given)
    if array.ndim < 2 or array.dtype.kind != "f":
        raise ValueError(f"probabilities must be floating point, (K, *spatial), got {array.dtype} {array.shape}.")
    try:
        check_chunk(torch.from_numpy(np.ascontiguousarray(array)).flatten(1), regions)
    except ValueError as error:
        low, high = float(array.min(initial=0)), float(array.max(initial=0))
        looks = "these look like logits: apply softmax (regions: sigmoid) first. " if low < 0 or high > 1.001 else ""
        raise ValueError(f"{looks}{error}") from None
    return array


class UsedMap(TypedDict):
    """The calibration map that was applied."""

    file: Annotated[str, doc("The map's file.")]
    sha256: Annotated[str, doc("SHA-256 of the file.")]
    form: Annotated[str, doc("temperature, shift, conditional or given; empty for one that was made by hand.")]
    calibration_set: Annotated[CalibrationSet | None, doc("What it was fitted to; null where that is not known.")]
    effect: Annotated[dict[str, Change], doc("NLL and ECE before and after, on cases that its fit has not seen.")]
    scope: Annotated[str, doc("For whom it holds.")]
