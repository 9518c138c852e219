"""The content of calibration_map.json. The same types are used in memory, for the file and for its
JSON schema.

A file that was made by hand may lack whatever has a default. Keys may be added within a version.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path

import numpy as np
from torch import Tensor
from typing_extensions import Self

import nnunet_nacl
from nnunet_nacl.calibration.map_parts import (
    SCOPE,
    Fitted,
    MapPart,
    MapQuality,
    NamedStructure,
    Origin,
    StoredMap,
    check_stored_map,
    check_table_size,
    is_affine,
    loaded_map,
    stored_map,
)
from nnunet_nacl.cases.sample import sample_arrays
from nnunet_nacl.estimators.crossfit import RIDGES, CrossFit, choose, cross_fit, score_forms
from nnunet_nacl.estimators.fitting import FORMS
from nnunet_nacl.estimators.learned_quality import LearnedQuality
from nnunet_nacl.estimators.log_odds_map import LogOddsMap
from nnunet_nacl.estimators.voxels import Voxels
from nnunet_nacl.metrics.groups import assign_cross_fit_folds
from nnunet_nacl.metrics.inputs import read_array, read_probabilities
from nnunet_nacl.metrics.voxel_uncertainty import label_confidence
from nnunet_nacl.utilities.errors import UserError, one_line, shorten, some
from nnunet_nacl.utilities.files import to_json_text, write_atomically
from nnunet_nacl.utilities.json_files import decode, encode, read_dict

SCHEMA_VERSION = 6
FEWEST_CASES = 5
"""To fit a map to."""


@dataclass(frozen=True, eq=False)
class Probabilities:
    """Probabilities that know whether a map was applied to them.

    Attributes:
        array: (K, *spatial) float32 class probabilities, background first and summing to 1, or (R,
            *spatial) regions.
        calibrated: Whether a map was applied.
    """

    array: np.ndarray
    calibrated: bool


@dataclass(frozen=True, eq=False, repr=False)
class CalibrationMap:
    """calibration_map.json: a map of probabilities, what it was fitted to, what it changes, and for
    whom it holds.

    A map that was made by hand has no more than ``schema_version``, ``structures``, ``regions``,
    ``form`` and ``maps``.

    Attributes:
        schema_version: Version of this format.
        structures: In the order of the channels, without the background.
        regions: Whether channels are sigmoid regions.
        form: Of the map in use: temperature, conditional, or given: the prior map as it is, such as
            that of the model's validation cases, against which the cases of one's own say nothing;
            earlier versions also fitted a shift.
        maps: By form.
        generated_by: Package and version.
        fitted: How it was fitted, and what it changes.
        quality: What was learned about Dice and volumes; null where nothing was.
        origin: Where the cases come from, and for whom it holds.

    Raises:
        ValueError: A map is malformed, or of other structures, or something was learned of others.
    """

    schema_version: int
    structures: list[NamedStructure]
    regions: bool
    form: str
    maps: dict[str, StoredMap]
    generated_by: str = ""
    fitted: Fitted = field(default_factory=Fitted)
    quality: MapQuality | None = None
    origin: Origin = field(default_factory=Origin)

    def __post_init__(self) -> None:
        self._check_maps()
        self._check_structures_of_tables()

    def __repr__(self) -> str:
        """In one line, whatever it holds."""
        kind = "regions" if self.regions else "classes"
        names = shorten(some(list(self.names.values())), 80)
        n_cases = len(self.fitted.part_of)
        return f"CalibrationMap(form={self.form!r}, {kind}={names!r}, cases={n_cases})"

    def _check_maps(self) -> None:
        if self.form not in self.maps:
            raise ValueError(f"it has no map of the form {self.form}, but {some(list(self.maps))}")
        map_by_key = {f"maps.{form}": stored for form, stored in self.maps.items()}
        for name, part in self.fitted.cross_fit.items():
            map_by_key[f"fitted.cross_fit.{name}.map"] = part.map
        for key, stored in map_by_key.items():
            try:
                check_stored_map(stored, len(self.structures), self.regions)
            except ValueError as error:
                raise ValueError(f"{key}: {error}") from None

    def _check_structures_of_tables(self) -> None:
        """ValueError where something was learned of structures that the map does not have, or not
        of all."""
        names = self.names
        if len(names) < len(self.structures):
            raise ValueError(f"two of its {len(self.structures)} structures have the same key")
        complete_tables = self._tables_of_all_structures()
        for key, table in (self._tables_of_some_structures() | complete_tables).items():
            is_incomplete = key in complete_tables and len(table) < len(names)
            if is_incomplete or set(table) - names.keys():
                of_table = some(list(table)) or "none"
                raise ValueError(
                    f"{key}: it is of the structures {of_table}, the map is of {some(list(names))}"
                )

    def _tables_of_some_structures(self) -> dict[str, Collection[str]]:
        """By key in the file, the keys of structures of what need not have all."""
        tables: dict[str, Collection[str]] = {"fitted.detected": self.fitted.detected}
        if self.quality is not None:
            tables["quality.recall"] = self.quality.recall
        if self.quality is not None and self.quality.presence is not None:
            for name, table in vars(self.quality.presence).items():
                if name != "voxel":
                    tables[f"quality.presence.{name}"] = table
        return tables

    def _tables_of_all_structures(self) -> dict[str, Collection[str]]:
        """By key in the file, the keys of structures of what must have all."""
        learned = self.learned
        if learned is None:
            return {}
        return {
            "quality.learned.dice": learned.dice,
            "quality.learned.volume": learned.volume,
            "quality.learned.scores.score": learned.scores.score,
            "quality.learned.checks.dice": learned.checks.get("dice", {}),
            "quality.learned.checks.volume": learned.checks.get("volume", {}),
        }

    @classmethod
    def fit(
        cls,
        probabilities: Iterable[np.ndarray],
        labels: Iterable[np.ndarray],
        *,
        groups: Iterable[Hashable] | None = None,
        names: Sequence[str] | None = None,
        form: str = "auto",
        regions: bool = False,
    ) -> CalibrationMap:
        """Fit a map to cases that the network was not trained on, as `calibrate` does; every case
        weighs the same.

        What `calibrate` learns beyond the map (predicted Dice, volumes, presence, flags) needs
        files of a model: use :func:`~nnunet_nacl.calibration.calibrate.calibrate`. Voxels without a
        structure above 1e-6 are left out, and large cases enter by a weighted sample of their
        voxels.

        Args:
            probabilities: Arrays or tensors, at least five: (K, *spatial) of each case, background
                first, summing to 1; or (R, *spatial) of regions.
            labels: (*spatial) true class of each voxel, 0 to K - 1; or (R, *spatial) whether it is
                in each region.
            groups: Patient of each case, who is left out as a whole where forms are compared; None:
                each its own.
            names: Of the structures, without the background.
            form: One of :data:`~nnunet_nacl.estimators.fitting.FORMS`, or ``auto``.
            regions: Whether these are sigmoid regions.

        Raises:
            ValueError: These are no probabilities (logits, perhaps), a label is no class (NaN,
                perhaps) or masked, shapes, names or the form do not fit, a case is certain
                background throughout, or there are fewer than five cases or two patients.

        Examples:
            >>> import numpy as np
            >>> rng = np.random.default_rng(0)
            >>> labels = [rng.integers(0, 2, (8, 8, 8)) for _ in range(6)]
            >>> probabilities = []
            >>> for truth in labels:
            ...     guess = np.where(rng.random(truth.shape) < 0.8, truth, 1 - truth)
            ...     probabilities.append(np.stack([0.99 - 0.98 * guess, 0.01 + 0.98 * guess]))
            >>> calibration = CalibrationMap.fit(probabilities, labels, form="temperature")
            >>> calibrated = calibration.transform(probabilities[0])
            >>> bool(0.7 < calibrated.max() < 0.9)  # right in 80 % of the voxels
            True
        """
        probabilities = list(probabilities)
        labels = list(labels)
        num_cases = len(labels)
        patient_of_case = None if groups is None else list(groups)
        if len(probabilities) != num_cases or len(patient_of_case or labels) != num_cases:
            raise ValueError(
                f"one label map, and group, is needed for each of {len(probabilities)} cases."
            )
        if num_cases < FEWEST_CASES:
            raise ValueError(
                f"{num_cases} cases are too few to calibrate, it takes {FEWEST_CASES}."
            )
        arrays = [read_probabilities(array, regions) for array in probabilities]
        label_arrays = [read_array(array, "labels") for array in labels]
        structures = _name_structures(arrays, names, regions)
        voxels = {}
        for number, (probs, truth) in enumerate(zip(arrays, label_arrays)):
            voxels[f"case {number}"] = sample_arrays(probs, truth, regions).voxels()
        patients = None
        if patient_of_case is not None:
            patients = dict(zip(voxels, map(str, patient_of_case)))
        return cls.fit_voxels(voxels, structures, form=form, patients=patients)[0]

    @classmethod
    def fit_voxels(
        cls,
        voxels: Mapping[str, Voxels],
        structures: Mapping[str, str],
        *,
        form: str = "auto",
        patients: Mapping[str, str] | None = None,
        folds: Mapping[str, str] | None = None,
        prior_map: LogOddsMap | None = None,
        progress: bool = False,
    ) -> tuple[Self, dict[str, LogOddsMap]]:
        """Fit maps of several forms to weighted voxels of cases, and choose one of them.

        Cases are divided into parts. Each map is fitted to all cases, and once for each part to the
        cases of all others: by these the forms are compared on cases that they have not seen.

        Args:
            voxels: By case.
            structures: Name of each structure by nnU-Net's key, in order.
            form: See :meth:`fit`.
            patients: Of each case; None: each case its own.
            folds: Of each case; None: there is one.
            prior_map: Map of the same structures, not fitted to these cases, towards which theirs
                is shrunk; None: their own temperature.
            progress: Show a bar on stderr.

        Returns:
            What is stored; and by case the map of the form in use that was fitted without its part.

        Raises:
            UserError: There is no such form, all cases are of one patient, or conditional maps of
                so many structures take too much memory.
        """
        check_form(form)
        cases = list(voxels)
        groups = [patients[case] if patients else case for case in cases]
        check_patients(groups)
        training_folds = [folds[case] for case in cases] if folds else None
        parts = assign_cross_fit_folds(groups, training_folds)
        regions = voxels[cases[0]].regions
        ridges = _choose_ridges(form, len(structures), regions, num_maps=len(set(parts)))
        fits = _cross_fit_with_bar(
            list(voxels.values()), parts, groups, prior_map, ridges, show_bar=progress
        )
        chosen = choose(fits, form)
        fit_of_form = {}
        for name in dict.fromkeys(fit.form for fit in fits):
            fit_of_form[name] = choose(fits, name)
        fit_of_form[chosen.form] = chosen
        map_parts = {}
        for part, log_odds_map in chosen.fold_maps.items():
            cases_of_part = [case for case, other in zip(cases, parts) if other == part]
            map_parts[part] = MapPart(cases=cases_of_part, map=stored_map(log_odds_map))
        calibration_map = cls.of_maps(
            {name: fit.map for name, fit in fit_of_form.items()},
            chosen.form,
            structures,
            ridges={name: fit.ridge for name, fit in fit_of_form.items()},
            generated_by=f"nnunet_nacl {nnunet_nacl.__version__}",
            fitted=Fitted(
                groups=dict(patients or {}), forms=score_forms(fits), cross_fit=map_parts
            ),
            origin=Origin(scope=SCOPE),
        )
        return calibration_map, {case: chosen.fold_maps[part] for case, part in zip(cases, parts)}

    @classmethod
    def of_maps(
        cls,
        maps: Mapping[str, LogOddsMap],
        form: str,
        structures: Mapping[str, str],
        *,
        ridges: Mapping[str, float] | None = None,
        generated_by: str = "",
        fitted: Fitted | None = None,
        quality: MapQuality | None = None,
        origin: Origin | None = None,
    ) -> Self:
        """What applies maps by form, perhaps fitted with a ridge each, and one of them in use;
        nothing is known of it unless it is given."""
        rows: list[NamedStructure] = [
            {"key": key, "name": name} for key, name in structures.items()
        ]
        return cls(
            schema_version=SCHEMA_VERSION,
            structures=rows,
            regions=maps[form].regions,
            form=form,
            maps={
                name: stored_map(fitted_map, (ridges or {}).get(name))
                for name, fitted_map in maps.items()
            },
            generated_by=generated_by,
            fitted=fitted or Fitted(),
            quality=quality,
            origin=origin or Origin(),
        )

    def transform(
        self, probabilities: np.ndarray | Tensor | Probabilities, form: str | None = None
    ) -> np.ndarray:
        """The calibrated probabilities of a case.

        Their most probable class is not always nnU-Net's label, which a map leaves as it is: take
        labels from the network's own probabilities, and :meth:`confidence` for how probably they
        are right. Whether a plain array was calibrated before nobody can know: calibrate it once.

        Args:
            probabilities: (K, *spatial) or (R, *spatial), as the network's softmax or sigmoid gives
                them.
            form: None for the map in use.

        Returns:
            A new array of the same shape; float32, or float64 if that was given.

        Raises:
            ValueError: These are no probabilities, their channels are not those of the map, or they
                say that they are calibrated.
        """
        if isinstance(probabilities, Probabilities):
            if probabilities.calibrated:
                raise ValueError(
                    "these probabilities are calibrated already; a second map would be wrong."
                )
            probabilities = probabilities.array
        probs = read_probabilities(probabilities, self.regions)
        num_channels = len(self.structures) if self.regions else len(self.structures) + 1
        if len(probs) != num_channels:  # which is seen before a table is made
            raise ValueError(
                f"this map is for {num_channels} channels, got probabilities of shape"
                f" {probs.shape}."
            )
        return self.calibration(form)(probs)

    def confidence(self, probabilities: np.ndarray | Tensor, form: str | None = None) -> np.ndarray:
        """(*spatial) calibrated probability that nnU-Net's label of a voxel is right.

        For regions that of the least certain one. Arguments and errors are those of
        :meth:`transform`.
        """
        probs = read_probabilities(probabilities, self.regions)
        labels = probs > 0.5 if self.regions else probs.argmax(0)
        return label_confidence(self.transform(probs, form), labels, regions=self.regions)

    @classmethod
    def load(cls, path: str | PathLike) -> CalibrationMap:
        """What a file holds; UserError if it is missing, is no such file, is damaged, or is of
        another schema."""
        path = Path(path)
        content = read_dict(path)
        version = content.get("schema_version")
        if version is None:
            raise UserError(
                f"{path} is no calibration map; give the calibration_map.json of this model, which"
                " `nnunet_nacl calibrate` writes."
            )
        if version != SCHEMA_VERSION:
            raise UserError(
                f"{path}: schema version {version!r:.20}, this version of nnunet_nacl reads"
                f" {SCHEMA_VERSION}; run `nnunet_nacl calibrate` again."
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
    def labels(self) -> list[str]:
        """Names of the rows of a map that differs by label."""
        return ["out", "in"] if self.regions else ["background", *self.names.values()]

    @property
    def part_maps(self) -> dict[str, LogOddsMap]:
        """By case that the map was fitted to, the map that was fitted to the other parts."""
        parts = self.fitted.cross_fit
        num_large_maps = sum(not is_affine(part.map) for part in parts.values())
        check_table_size(len(self.structures), self.regions, num_large_maps)
        maps = {name: loaded_map(part.map, self.regions) for name, part in parts.items()}
        return {case: maps[name] for case, name in self.fitted.part_of.items()}

    @property
    def names(self) -> dict[str, str]:
        """Name of each structure by nnU-Net's key, in order."""
        return {row["key"]: row["name"] for row in self.structures}

    @property
    def learned(self) -> LearnedQuality | None:
        """What was learned about Dice and volumes; None for nothing."""
        return None if self.quality is None else self.quality.learned


def check_form(form: str) -> None:
    """UserError where there is no such form of a map."""
    if form not in ("auto", *FORMS):
        raise UserError(f"the form must be auto, {', '.join(FORMS)}, got {form!r}.")


def check_patients(patients: Sequence[str]) -> None:
    """UserError where all cases, of which these are the patients, are of one."""
    if len(set(patients)) < 2:
        raise UserError(
            f"all cases belong to one patient, {one_line(patients[0])}: nothing is left to test"
            " on; give cases of others, or correct [[groups]]."
        )


def _name_structures(
    arrays: Sequence[np.ndarray], names: Sequence[str] | None, regions: bool
) -> dict[str, str]:
    """Name of each structure by its key, of the probabilities of all cases; ValueError where these
    have different channels, or other than the names."""
    num_channels = {len(array) for array in arrays}
    num_backgrounds = 0 if regions else 1
    num_structures = min(num_channels) - num_backgrounds
    if len(num_channels) > 1 or (names is not None and len(names) != num_structures):
        wrong = f"got {', '.join(map(str, sorted(num_channels)))} channels"
        if names is not None:
            wrong += f" and {len(names)} names"
        raise ValueError(
            f"all cases need the same channels, and names one for each structure; {wrong}."
        )
    keys = [str(number + num_backgrounds) for number in range(num_structures)]
    return dict(zip(keys, names or [f"structure {key}" for key in keys]))


def _choose_ridges(form: str, num_structures: int, regions: bool, num_maps: int) -> Sequence[float]:
    """Ridges of the conditional maps to try, none where a temperature is wanted and these take too
    much memory; UserError where they are wanted all the same."""
    try:
        check_table_size(num_structures, regions, num_maps)
    except UserError:
        if form != "temperature":
            raise
        return ()
    return RIDGES


def _cross_fit_with_bar(
    cases: Sequence[Voxels],
    parts: Sequence[str],
    groups: Sequence[str],
    prior_map: LogOddsMap | None,
    ridges: Sequence[float],
    *,
    show_bar: bool,
) -> list[CrossFit]:
    """See :func:`~nnunet_nacl.estimators.crossfit.cross_fit`; the bar goes on with each fit."""
    from tqdm import tqdm

    num_forms = (1 if prior_map is None else 2) + len(ridges)
    most_fits = (1 + len(set(parts))) * num_forms
    with tqdm(
        total=most_fits, desc="fitting", unit="fit", leave=False, disable=not show_bar
    ) as bar:
        return cross_fit(
            cases, parts, groups=groups, prior_map=prior_map, ridges=ridges, progress=bar.update
        )
