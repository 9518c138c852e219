"""`tune`: learns where to cut, and writes the network that cuts there."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from nnunet_nacl.calibration.effect import Change, changes, changes_of_means
from nnunet_nacl.calibration.map_file import map_file_of
from nnunet_nacl.cases.case import Case, Labels
from nnunet_nacl.cases.groups import read_groups
from nnunet_nacl.cases.measure import measure
from nnunet_nacl.cases.record import CaseRecord, scores, table
from nnunet_nacl.estimators.bad_limits import find_key
from nnunet_nacl.estimators.decision import (
    SampledVoxels,
    bias_of_threshold,
    choose_biases,
    threshold_of_bias,
)
from nnunet_nacl.estimators.log_odds_map import LogOddsMap
from nnunet_nacl.metrics.groups import assign_cross_fit_folds
from nnunet_nacl.nnunet.decision_layer import find_decision_layer
from nnunet_nacl.nnunet.held_out import HeldOut
from nnunet_nacl.nnunet.held_out_cases import HeldOutCases, ImagesOfModel, ValidationOfModel
from nnunet_nacl.nnunet.predicted import on_present_device
from nnunet_nacl.nnunet.records import Work
from nnunet_nacl.nnunet.trained_model import TrainedModel
from nnunet_nacl.nnunet.trust import trusting
from nnunet_nacl.nnunet.tuned import Decision, check_replaceable, write_tuned
from nnunet_nacl.settings import (
    FINAL,
    TUNED,
    GivenCases,
    NetworkSettings,
    TuneSettings,
    settings_of,
)
from nnunet_nacl.utilities.errors import UserError, list_problems
from nnunet_nacl.utilities.files import check_folder, checksum

METRICS = ("dice", "present")
FEWEST_PATIENTS = 10
"""With fewer, what is chosen on some says too little of the others."""
ALL = ""
"""Key of what is of all structures together."""


def tune(
    model: str | PathLike,
    images: str | PathLike | None = None,
    labels: str | PathLike | None = None,
    *,
    structures: Sequence[str] | None = None,
    thresholds: Mapping[str, float] | Sequence[str] | None = None,
    metric: str = "dice",
    groups: str | None = None,
    folds: Sequence[str | int] | None = None,
    checkpoint: str = FINAL,
    device: str = "auto",
    step_size: float = 0.5,
    mirroring: bool = True,
    any_age: bool = False,
    training_cases: bool = False,
    num_processes: int = 1,
    trust_checkpoint: bool = False,
) -> TuneResult:
    """Learn for each structure the bias of its logit that gives the highest mean Dice.

    Labels are nnU-Net's argmax, which fits networks that were trained with a Dice term. Others have
    to be told where to cut. The biases are chosen on cases that the networks were not trained on:
    a model's validation cases, or images of one's own. What they change is measured on cases of
    other patients than those that they were chosen on, and a structure whose Dice does not rise
    clearly (the 95 % interval of the difference reaches 0) keeps nnU-Net's argmax.

    :meth:`TuneResult.write` adds the biases to the last segmentation layer of the networks: as
    checkpoint_tuned.pth beside the final checkpoint, which every command of nnU-Net and of this
    package takes (``-chk checkpoint_tuned.pth``). A bias decalibrates: calibrate that checkpoint.

    Args:
        model: nnU-Net's model folder, TRAINER__PLANS__CONFIGURATION.
        images: Images of one's own with their ground truth ``labels``, which all folds predict
            together; None: the model's validation cases.
        labels: Folder with the ground truth of ``images``.
        structures, thresholds, metric, groups, any_age, training_cases, num_processes: What is
            chosen, and on which cases, see :class:`~nnunet_nacl.settings.TuneSettings`.
        folds, checkpoint, device, step_size, mirroring, trust_checkpoint: Which networks are tuned,
            and how they predict, see :class:`~nnunet_nacl.settings.NetworkSettings`.

    Returns:
        The biases and what they change.

    Raises:
        UserError: What was given does not fit; no segmentation layer is known, or adding to its
            bias does not shift the logits by as much; there are too few patients; or a
            checkpoint_tuned.pth lies there that `tune` did not write.

    Examples:
        >>> result = tune(model_folder, thresholds={"1": 0.25}, device="cpu")  # no cases needed
        >>> round(result.biases["1"], 2)  # added to the logit of the structure
        1.1
        >>> sorted({path.name for path in result.write()})
        ['checkpoint_tuned.pth']
    """
    arguments = locals()
    return tune_networks(
        settings_of(GivenCases, arguments),
        settings_of(NetworkSettings, arguments),
        settings_of(TuneSettings, arguments),
    )


def tune_networks(given: GivenCases, network: NetworkSettings, wanted: TuneSettings) -> TuneResult:
    """The recipe of :func:`tune`, with its settings collected."""
    _check_given(given, network, wanted)
    with trusting(network.trust_checkpoint):
        model = TrainedModel.open(Path(given.model or ""), network.folds, network.checkpoint)
        fold_folders = [model.folder / f"fold_{fold}" for fold in model.folds]
        check_replaceable(fold_folders)
        network = on_present_device(network)
        layer = find_decision_layer(model, network)
        if wanted.thresholds is not None:
            return TuneResult(model, layer, read_thresholds(wanted.thresholds, model.labels))

        candidates = _channels_of(wanted, model.labels)
        cases = _choose_cases(given, network, wanted, model)
        names, problems = cases.find()
        if names:  # else whoever measures them says what is wrong
            _read_patients(wanted, names, problems)
        work = Work(settings=cases.kept_settings, with_sample=True)
        held_out = cases.measure(work, wanted.num_processes)
        patients = _read_patients(wanted, list(held_out.records), held_out.problems)
        while True:
            chosen = choose(held_out, patients, candidates, only_present=wanted.metric == "present")
            decided = DecidedWork(settings=work.settings, biases=chosen.of_case)
            after = cases.measure(decided, wanted.num_processes)
            effect = measure_effect(held_out, after, patients, wanted.metric)
            better = [index for index in candidates if _is_better(effect, model.labels, index)]
            if better in (candidates, []):
                break
            candidates = better  # the others keep argmax, which changes what is left to these
    biases = chosen.of_all if better else np.zeros(len(model.labels.structures))
    return TuneResult(
        model,
        layer,
        dict(zip(model.labels.structures, biases.tolist())),
        biases_of_parts=chosen.of_part,
        effect=effect,
        cases=list(held_out.records),
        n_patients=len(set(patients.values())),
        metric=wanted.metric,
        failed=held_out.problems | after.problems,
    )


@dataclass(frozen=True, eq=False)
class TuneResult:
    """What :func:`tune` has learned.

    Attributes:
        model: The model.
        layer: Name of the layer whose bias carries the decision.
        biases: By nnU-Net's key, what is added to the structure's logit; 0 where argmax is as good.
        biases_of_parts: (parts, structures) those that were chosen without each part of the cases;
            empty for own thresholds.
        effect: By nnU-Net's key of each structure, what its bias changes of ``Dice``, ``HD95_mm``,
            ``missed`` (share of the cases with the structure in which nothing was segmented),
            ``invented`` (share of those without it in which something was) and ``volume`` (of the
            true one); by the empty key ``Dice``, of a case's mean over structures, ``NLL all`` and
            ``NLL predicted``. Dice is the mean of the cases where it is defined, as nnU-Net's; all
            else is of the cases where it is defined before and after. Each case with biases that
            were chosen without its patient's part; empty for own thresholds.
        cases: Names of those that were chosen on.
        n_patients: How many patients they are; each case is one where nothing else was said.
        metric: ``dice`` or ``present``; empty for own thresholds.
        failed: By name, why other cases could not be used.
    """

    model: TrainedModel
    layer: str
    biases: Mapping[str, float]
    biases_of_parts: np.ndarray = field(default_factory=lambda: np.zeros((0, 0)))
    effect: Mapping[str, Mapping[str, Change]] = field(default_factory=dict)
    cases: Sequence[str] = ()
    n_patients: int = 0
    metric: str = ""
    failed: Mapping[str, str] = field(default_factory=dict)

    @property
    def thresholds(self) -> dict[str, float]:
        """By nnU-Net's key, the probability against the background at which a structure is cut."""
        return {key: threshold_of_bias(bias) for key, bias in self.biases.items()}

    @property
    def earlier_networks(self) -> list[Path]:
        """Tuned networks that an earlier run wrote, which stay where no structure gets a bias."""
        folds = [self.model.folder / f"fold_{fold}" / TUNED for fold in self.model.folds]
        return [path for path in folds if path.is_file()]

    @property
    def changes_labels(self) -> bool:
        """Whether a structure got a bias."""
        return any(self.biases.values())

    def write(self) -> list[Path]:
        """Write checkpoint_tuned.pth and tuned.json into the folder of each fold.

        Returns:
            The checkpoints; none where argmax is as good for every structure.

        Raises:
            UserError: A file cannot be written.
        """
        if not self.changes_labels:
            return []
        own_map = self.model.folder / map_file_of(self.model.checkpoint)
        about = {
            "map_sha256": checksum(own_map) if own_map.is_file() else "",
            "thresholds": self.thresholds,
            "metric": self.metric,
            "cases": list(self.cases),
            "changes": self._changes(),
        }
        first_channel = self.model.labels.foreground[0]
        decision = Decision(self.layer, self.biases, first_channel, about)
        return [
            write_tuned(self.model.folder / f"fold_{fold}", self.model.checkpoint, decision)
            for fold in self.model.folds
        ]

    def _changes(self) -> list[dict[str, Any]]:
        rows = []
        for key, values in self.effect.items():
            for name, change in values.items():
                interval = asdict(change.difference)
                row = {"structure": key, "value": name, "difference": interval.pop("mean")}
                means = {"before": change.before.mean, "after": change.after.mean}
                rows.append(row | means | interval)
        return rows


@dataclass(frozen=True)
class DecidedWork(Work):
    """Cases are measured with the labels that biases decide, each with its own.

    Attributes:
        biases: By case, what is added to the logit of each structure.
    """

    biases: Mapping[str, Sequence[float]] = field(default_factory=dict)
    apart: str = "tuned"

    @property
    def key(self) -> dict[str, object]:
        """Also the biases of all cases: a record does not know which part its case is in."""
        return super().key | {"biases": {case: list(of) for case, of in self.biases.items()}}

    def make_record(self, case: Case) -> CaseRecord:
        """The record of a case with other labels and probabilities."""
        decision = decision_map(self.biases[case.name], case.labels.regions)
        return measure(decide(case, decision), decision, settings=self.settings)


def decision_map(biases: Sequence[float], regions: bool) -> LogOddsMap:
    """The biases as a map of log-odds: a slope of 1, and an offset for each structure."""
    num_structures = len(biases)
    if regions:
        slopes = np.tile([1.0, 0.0], (num_structures, 1))
    else:
        slopes = np.eye(num_structures, num_structures + 1)
    return LogOddsMap(np.column_stack([slopes, biases])[None], regions)


def decide(case: Case, decision: LogOddsMap) -> Case:
    """A case with the labels that its probabilities give under a decision."""
    segmentation = np.zeros_like(case.segmentation)
    for where in case.probabilities.crop_layers():
        probs, _ = case.probabilities.under(decision, where)
        segmentation[where] = case.labels.label_map(probs)
    return replace(case, segmentation=segmentation)


def measure_effect(
    before: HeldOut, after: HeldOut, patients: Mapping[str, str], metric: str
) -> dict[str, dict[str, Change]]:
    """What other labels change, see :attr:`TuneResult.effect`, of the cases that both have."""
    cases = [case for case in before.records if case in after.records]
    if not cases:
        raise UserError(f"no case could be measured again.{list_problems(after.problems)}")
    of_case = [patients[case] for case in cases]
    records_before = [before.records[case] for case in cases]
    records_after = [after.records[case] for case in cases]
    values_before = _values_by_structure(records_before, metric)
    values_after = _values_by_structure(records_after, metric)
    effect: dict[str, dict[str, Change]] = {}
    for key in before.labels.structures:
        of_key_before = values_before.xs(key)
        of_key_after = values_after.xs(key)
        dice = changes_of_means(of_key_before[["Dice"]], of_key_after[["Dice"]], of_case)
        others = of_key_before.columns.drop("Dice")
        effect[key] = dice | changes(of_key_before[others], of_key_after[others], of_case)
    effect[ALL] = changes_of_means(
        values_before[["Dice"]].groupby("case", sort=False).mean(),
        values_after[["Dice"]].groupby("case", sort=False).mean(),
        of_case,
    )
    effect[ALL] |= changes(_scores_of(records_before), _scores_of(records_after), of_case)
    return effect


def _values_by_structure(records: Sequence[CaseRecord], metric: str) -> pd.DataFrame:
    """Rows by structure and case: see :attr:`TuneResult.effect`; NaN where a value is of no
    meaning."""
    rows = table(records).set_index(["key", "case"])
    is_present = rows.true_volume > 0
    is_segmented = rows.volume > 0
    return pd.DataFrame(
        {
            "Dice": rows.Dice if metric == "dice" else rows.Dice.where(is_present),
            "HD95_mm": rows.HD95_mm,
            "missed": (~is_segmented).astype(float).where(is_present),
            "invented": is_segmented.astype(float).where(~is_present),
            "volume": (rows.volume / rows.true_volume).where(is_present),
        }
    )


def _scores_of(records: Sequence[CaseRecord]) -> pd.DataFrame:
    by_case = scores(records)
    return pd.DataFrame({f"NLL {mask}": by_case[f"NLL:{mask}"] for mask in ("all", "predicted")})


@dataclass(frozen=True, eq=False)
class ChosenBiases:
    """What was chosen for each structure.

    Attributes:
        of_all: (structures,) on all cases.
        of_part: (parts, structures) on the cases of all other parts.
        of_case: By case, those of its part.
    """

    of_all: np.ndarray
    of_part: np.ndarray
    of_case: Mapping[str, Sequence[float]]


def choose(
    held_out: HeldOut,
    patients: Mapping[str, str],
    candidates: Sequence[int],
    *,
    only_present: bool = False,
) -> ChosenBiases:
    """Choose biases on all cases, and without each part of their patients.

    Args:
        held_out: The cases; each record has a sample.
        patients: Of each case.
        candidates: Indices of the structures that may get a bias.
        only_present: As of :func:`~nnunet_nacl.estimators.decision.choose_biases`.
    """
    names = list(held_out.records)
    voxels = {name: sampled_voxels(record) for name, record in held_out.records.items()}
    parts = assign_cross_fit_folds([patients[name] for name in names])
    of_part = {}
    for part in sorted(set(parts)):
        others = [voxels[name] for name, of_name in zip(names, parts) if of_name != part]
        of_part[part] = choose_biases(others, candidates, only_present=only_present)
    of_case = {name: of_part[part].tolist() for name, part in zip(names, parts)}
    of_all = choose_biases(list(voxels.values()), candidates, only_present=only_present)
    return ChosenBiases(of_all, np.stack(list(of_part.values())), of_case)


def sampled_voxels(record: CaseRecord) -> SampledVoxels:
    """What a choice of biases needs of a case, by its record with a sample."""
    if record.sample is None:
        raise UserError(f"{record.name}: its record has no sample; remove it, and run again.")
    sample = record.sample
    target = sample.unpacked(sample.target)
    if not sample.regions:
        target = np.arange(1, sample.num_structures + 1)[:, None] == target
    rows = record.structures
    hits = rows.TP.to_numpy()
    return SampledVoxels(
        odds=sample.log_odds.astype(np.float64),
        is_true=target.astype(bool),
        weights=sample.weights,
        true=hits + rows.FN.to_numpy(),
        hits=hits,
        segmented=hits + rows.FP.to_numpy(),
        regions=sample.regions,
    )


def _is_better(effect: Mapping[str, Mapping[str, Change]], labels: Labels, structure: int) -> bool:
    """Whether the interval of the difference in a structure's Dice lies above 0."""
    key = list(labels.structures)[structure]
    return effect[key]["Dice"].difference.low > 0


def _check_given(given: GivenCases, network: NetworkSettings, wanted: TuneSettings) -> None:
    """UserError for what does not go together, before anything is opened."""
    if given.model is None:
        raise UserError("name the model that is to be tuned.")
    check_folder(Path(given.model), "the model, TRAINER__PLANS__CONFIGURATION")
    if network.checkpoint == TUNED:
        raise UserError(
            f"[[checkpoint]] {TUNED} is tuned already; name the network that it was made from, such"
            f" as {FINAL}."
        )
    if wanted.metric not in METRICS:
        raise UserError(f"[[metric]] is {' or '.join(METRICS)}, not {wanted.metric!r}.")
    if (given.images is None) != (given.labels is None):
        raise UserError("[[images]] and [[labels]] go together: images, and their ground truth.")
    is_measured = given.images or wanted.structures or wanted.groups or wanted.metric != "dice"
    if wanted.thresholds is not None and is_measured:
        raise UserError(
            "[[thresholds]]: nothing is measured, so leave out [[images]], [[labels]],"
            " [[structures]], [[groups]] and [[metric]]."
        )


def _choose_cases(
    given: GivenCases, network: NetworkSettings, wanted: TuneSettings, model: TrainedModel
) -> HeldOutCases:
    """A model's validation cases, or images that it predicts."""
    if given.images is None:
        return ValidationOfModel(model, network, any_age=wanted.any_age)
    map_file = model.folder / map_file_of(model.checkpoint)
    return ImagesOfModel(
        model,
        network,
        Path(given.images),
        Path(given.labels or ""),
        records=map_file.with_name(f"{map_file.stem}_records"),  # those of `calibrate`
        training_cases=wanted.training_cases,
    )


def _read_patients(
    wanted: TuneSettings, names: Sequence[str], problems: Mapping[str, str]
) -> dict[str, str]:
    """The patient of each case; UserError where there are too few, with why there are no more."""
    patients = read_groups(wanted.groups, names)
    n_patients = len(set(patients.values()))
    if n_patients < FEWEST_PATIENTS:
        raise UserError(
            f"a decision is learned from {FEWEST_PATIENTS} patients at least, and the"
            f" {len(names)} cases are of {n_patients} ([[groups]] says whose a case is);"
            f" add folds or cases, or give [[thresholds]].{list_problems(problems)}"
        )
    return patients


def _channels_of(wanted: TuneSettings, labels: Labels) -> list[int]:
    """Indices among the structures of those that may get a bias."""
    structures = labels.structures
    names = structures if wanted.structures is None else wanted.structures
    keys = {find_key(name, structures, "structures") for name in names}
    return [index for index, key in enumerate(structures) if key in keys]


def read_thresholds(
    thresholds: Mapping[str, float] | Sequence[str], labels: Labels
) -> dict[str, float]:
    """By nnU-Net's key, the bias that cuts at the user's threshold; 0 where none is given.

    UserError for an unknown structure, or what is no probability.
    """
    if isinstance(thresholds, Mapping):
        pairs = [(name, str(value)) for name, value in thresholds.items()]
    else:
        pairs = [(name, value) for name, _, value in (text.rpartition("=") for text in thresholds)]
    biases = dict.fromkeys(labels.structures, 0.0)
    named = set[str]()
    for name, text in pairs:
        if not name:
            raise UserError(
                f"[[thresholds]] {text}: STRUCTURE=P is expected, such as"
                f" {next(iter(labels.structures.values()))}=0.3."
            )
        key = find_key(name, labels.structures, "thresholds")
        if key in named:
            raise UserError(f"[[thresholds]] {name}: it is given twice; give one value.")
        named.add(key)
        try:
            threshold = float(text)
        except ValueError:
            threshold = math.nan
        if not 0 < threshold < 1:
            raise UserError(
                f"[[thresholds]] {name}: a probability above 0 and below 1 is expected, such as"
                f" {name}=0.3, got {text!r}."
            )
        biases[key] = bias_of_threshold(threshold)
    return biases
