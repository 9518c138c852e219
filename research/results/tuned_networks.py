"""Tuned networks (`nnunet_nacl tune`) on cases in no fold and of other scanners, each with a map of
its own, and what a list makes of them (part `tuned`).

Unlike part `decisions`, which leaves out a part of the validation cases for each choice, biases are
those of all validation cases, as a user has them, and the networks are the files that `tune` wrote.
Where `tune` keeps argmax, the bias that part `decisions` found on all validation cases is given as
a threshold of one's own, to see whether it carries over to other cases and scanners.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd
from calibration_rows import effect_rows
from cases import Aim, Cases, Learned, measure_images, read_cases
from decisions import BIAS, LEFT_OUT, TUNED, case_values, common_folds, difference_rows, value_rows
from losses import REFERENCE
from rows import Row, put, results, statistic_row
from scans import COLUMNS, PREDICTED, auroc, flagged_to_find, list_rows, orders_of
from study import MAP, RAW, Study

import nnunet_nacl
from nnunet_nacl.calibration.tune import TuneResult
from nnunet_nacl.cases.measure import under
from nnunet_nacl.estimators.decision import threshold_of_bias
from nnunet_nacl.nnunet.held_out_cases import ValidationOfModel
from nnunet_nacl.nnunet.records import Work
from nnunet_nacl.nnunet.trained_model import TrainedModel
from nnunet_nacl.settings import FINAL, NetworkSettings
from nnunet_nacl.settings import TUNED as TUNED_CHECKPOINT

CHECKPOINTS = {RAW: FINAL, TUNED: TUNED_CHECKPOINT}
"""By method, as results.csv calls it."""
TUNED_MAP = f"{TUNED}, {MAP}"


def cases_of_study(kind: str) -> str:
    """Cases, as results.csv calls them: those of these trainings, beside those of others."""
    return f"{kind}, tuned networks"


@dataclass(frozen=True, eq=False)
class MeasuredNetwork:
    """One loss, as trained or tuned.

    Attributes:
        folds: Its validation cases, by single networks.
        images: By kind the cases in no fold and of other scanners, by the ensemble.
    """

    folds: Cases
    images: dict[str, Cases]


def tuned_rows(study: Study, *, schedule: str, losses: Sequence[str]) -> None:
    """Part `tuned`: every loss as trained and tuned, without and with a map, and less nnU-Net's own
    loss in the same cases.

    Args:
        study: Whose networks.
        schedule: Behind the loss in the trainers' names.
        losses: The losses that are compared; nnU-Net's own is the reference.
    """
    folds = common_folds(study, schedule, losses)
    values: dict[tuple[str, str, str], pd.DataFrame] = {}
    for loss in losses:
        trainer = f"{loss}_{schedule}"
        result = tune(study, trainer, folds)
        keys = {
            "dataset": study.name,
            "trainer": trainer,
            "configuration": study.configuration,
            "training": f"folds {' '.join(folds)}",
        }
        for name, bias in result.biases.items():
            row = {"quantity": BIAS, "structure": result.model.labels.structures[name]}
            put([row | {"value": bias}], **keys, cases=cases_of_study("folds"), method=TUNED)
        for method in (RAW, TUNED) if result.changes_labels else (RAW,):
            network = measure_network(study, trainer, folds, method)
            learned = network.folds.learn(list(network.folds.records))
            with_map = {RAW: MAP, TUNED: TUNED_MAP}[method]
            for kind, cases in network.images.items():
                as_predicted = list(cases.records.values())
                under_map = [under(record, learned.map) for record in as_predicted]
                values[loss, method, kind] = case_values(as_predicted)
                values[loss, with_map, kind] = case_values(under_map)
                of_kind = {**keys, "cases": cases_of_study(kind)}
                rows = effect_rows(method, as_predicted, study.patient)
                rows += effect_rows(with_map, under_map, study.patient)
                put(rows, **of_kind)
                put(list_quantities(cases, learned, study.bad), **of_kind, method=method)
        for (of_loss, method, kind), table in values.items():
            if of_loss != loss:
                continue
            of_kind = {**keys, "cases": cases_of_study(kind)}
            put(value_rows(table, study), **of_kind, method=method)
            for other_loss, other in comparisons(loss, method):
                reference = values.get((other_loss, other, kind))
                if reference is not None:
                    title = f"{method} less {other_loss} {other}"
                    put(difference_rows(table, reference, study), **of_kind, method=title)


def comparisons(loss: str, method: str) -> Iterator[tuple[str, str]]:
    """What a method of a loss is compared with: itself as trained, and nnU-Net's own loss."""
    if method == TUNED:
        yield loss, RAW
    if method == TUNED_MAP:
        yield loss, MAP
    if loss != REFERENCE:
        other = {TUNED: RAW, TUNED_MAP: MAP}.get(method, method)
        yield from dict.fromkeys([(REFERENCE, other), (REFERENCE, method)])


def tune(study: Study, trainer: str, folds: Sequence[str]) -> TuneResult:
    """Learn the biases of a trainer's folds, and write the networks; where argmax is as good, those
    of the biases that are not clearly better."""
    patients = study.task / "patients.json"
    result = nnunet_nacl.tune(
        study.model(trainer),
        folds=folds,
        groups=str(patients) if patients.is_file() else None,
        device="cpu",
    )
    if not result.changes_labels:
        thresholds = thresholds_of_decisions(study, trainer, result.model.labels.structures)
        result = nnunet_nacl.tune(
            study.model(trainer), folds=folds, thresholds=thresholds, device="cpu"
        )
    result.write()
    return result


def thresholds_of_decisions(
    study: Study, trainer: str, structures: Mapping[str, str]
) -> dict[str, float]:
    """By nnU-Net's key, those of the biases that part `decisions` found on all validation cases."""
    table = results()
    rows = table[
        (table.dataset == study.name)
        & (table.trainer == trainer)
        & (table.cases == LEFT_OUT)
        & (table.quantity == BIAS)
    ].set_index("structure")
    return {key: threshold_of_bias(rows.value[name]) for key, name in structures.items()}


def measure_network(
    study: Study, trainer: str, folds: Sequence[str], method: str
) -> MeasuredNetwork:
    """The records of all cases of the networks as trained, or tuned; each with a sample."""
    checkpoint = CHECKPOINTS[method]
    model = TrainedModel.open(study.model(trainer), folds, checkpoint)
    network = NetworkSettings(device="cpu", checkpoint=checkpoint, folds=folds)
    validation = ValidationOfModel(model, network)
    work = Work(settings=validation.kept_settings, with_sample=True)
    held_out = validation.measure(work, 1)
    if held_out.problems:
        raise ValueError(f"{len(held_out.problems)} cases were not measured: {held_out.problems}")
    images = {}
    for image_set in study.image_sets():
        records = study.work / "tuned" / trainer / method / image_set.kind
        measure_images(
            model,
            work,
            records,
            images=image_set.images,
            truth=image_set.truth,
            cases=image_set.cases,
        )
        images[image_set.kind] = read_cases(records, study.patient)
    return MeasuredNetwork(Cases(dict(held_out.records), study.patient), images)


def list_quantities(cases: Cases, learned: Learned, limit: float) -> Iterator[Row]:
    """How a list finds scans with a Dice below a limit: by flags, and in the order by predicted
    Dice."""
    aim = f"-find 0.9 -bad {limit:g}"
    judged = cases.judge(list(cases.records), learned, {aim: Aim(bad=limit, find=0.9)})
    rows = judged[["case", "patient", *COLUMNS, aim]].rename(columns=COLUMNS)
    for row in list_rows(rows):
        row.pop("method")
        yield row
    orders = orders_of(rows)
    trust = orders[PREDICTED].to_numpy()
    bad = (orders.Dice < limit).to_numpy()
    for name, statistic in (("AUROC", auroc), ("flagged to find 0.9", flagged_to_find)):
        yield statistic_row(statistic, orders.patient, trust, bad, quantity=name)
