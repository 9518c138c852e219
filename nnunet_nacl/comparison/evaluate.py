"""`evaluate`: measures segmentation and calibration of predictions against the ground truth."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from os import PathLike
from pathlib import Path

import pandas as pd

from nnunet_nacl.calibration.calibrator import Calibrator
from nnunet_nacl.calibration.map_file import read_applied_map_digest
from nnunet_nacl.calibration.quality_report import QualityReport, quality_report
from nnunet_nacl.cases.case import EvaluationSettings
from nnunet_nacl.cases.groups import detected_in
from nnunet_nacl.cases.record import scores
from nnunet_nacl.comparison.calibration_report import FILE_NAME, PredictedQuality
from nnunet_nacl.comparison.evaluation import Evaluation, values_csv
from nnunet_nacl.comparison.structure_metrics import (
    lesion_structures,
    read_findings,
    summarize_components,
)
from nnunet_nacl.estimators.bad_limits import check_bad, read_bad
from nnunet_nacl.estimators.presence import LearnedPresence, learn_presence
from nnunet_nacl.metrics.binning import DEFAULT_N_BINS
from nnunet_nacl.metrics.overlap import Detected
from nnunet_nacl.nnunet.dataset import Dataset
from nnunet_nacl.nnunet.held_out import HeldOut
from nnunet_nacl.nnunet.held_out_cases import HeldOutCases, SavedCases, ValidationOfModel
from nnunet_nacl.nnunet.predicted import on_present_device
from nnunet_nacl.nnunet.prediction_folder import PredictionFolder
from nnunet_nacl.nnunet.records import Work
from nnunet_nacl.nnunet.trained_model import TrainedModel
from nnunet_nacl.nnunet.trust import trusting
from nnunet_nacl.settings import (
    FINAL,
    BadSpec,
    GivenCases,
    MeasureSettings,
    NetworkSettings,
    settings_of,
)
from nnunet_nacl.utilities.errors import UserError
from nnunet_nacl.utilities.files import check_ours, check_writable, checksum, write_atomically
from nnunet_nacl.utilities.json_files import read_dict

_LOG = logging.getLogger(__name__)


def evaluate(
    predictions: str | PathLike | None = None,
    labels: str | PathLike | None = None,
    *,
    model: str | PathLike | None = None,
    folds: Sequence[str | int] | None = None,
    predict: bool = False,
    checkpoint: str = FINAL,
    device: str = "auto",
    step_size: float = 0.5,
    mirroring: bool = True,
    calibration_map: str | PathLike | None = None,
    n_bins: int = DEFAULT_N_BINS,
    dilation_mm: float | None = None,
    boundary_mm: float | None = None,
    bad: BadSpec | None = None,
    structures: Sequence[str] | None = None,
    findings: Sequence[str] | None = None,
    chill: bool = False,
    dataset_json: str | PathLike | None = None,
    plans_json: str | PathLike | None = None,
    output: str | PathLike | None = None,
    csv: bool = False,
    num_processes: int = 1,
    trust_checkpoint: bool = False,
) -> EvaluationResult:
    """Measure how well predictions segment, and how far their confidence can be trusted.

    The predictions are those of a folder, or a trained model's own for its validation cases. What
    an earlier run has measured is read from ``records/`` beside the predictions, where all that is
    measured is kept. Nothing is printed; progress bars go to stderr.

    Args:
        predictions, labels, model, dataset_json, plans_json: Where the cases come from, see
            :class:`~nnunet_nacl.settings.GivenCases`: a folder of predictions, or a model, whose
            validation cases are measured.
        folds: Of the model; None: every numbered fold that has a validation, or ``all``.
        checkpoint, device, step_size, mirroring, trust_checkpoint: How networks predict where
            ``predict`` asks for it, see :class:`~nnunet_nacl.settings.NetworkSettings`.
        predict, calibration_map, n_bins, dilation_mm, boundary_mm, bad, structures, findings,
            chill, output, csv, num_processes: What is measured, see
            :class:`~nnunet_nacl.settings.MeasureSettings`.

    Returns:
        The numbers, and which cases failed; :meth:`EvaluationResult.write` writes them.

    Raises:
        UserError: What was given does not fit or cannot be read, or not a single case could be
            measured.

    Examples:
        >>> result = evaluate(predictions, labels)
        >>> table = result.table  # a row for each case and structure
        >>> bool(table.groupby("name").Dice.mean().min() > 0.9)
        True
        >>> list(result.scores.index)[:1]  # a row for each case: ECE:predicted, NLL:all and so on
        ['case_00']
        >>> bool(result.calibration.loc["pooled", "predicted"].ECE < 0.2)
        True
        >>> result.failed
        {}
        >>> [path.name for path in result.write()]
        ['calibration.json']
    """
    arguments = locals()
    return evaluate_cases(
        settings_of(GivenCases, arguments),
        settings_of(NetworkSettings, arguments),
        settings_of(MeasureSettings, arguments),
    )


def evaluate_cases(
    given: GivenCases, network: NetworkSettings, measures: MeasureSettings
) -> EvaluationResult:
    """The recipe of :func:`evaluate`, with its settings collected."""
    _check_given(given, measures)
    check_bad(measures.bad, structures=measures.structures)
    with trusting(network.trust_checkpoint):
        cases, calibrator = _choose_cases(given, network, measures)
        labels = cases.dataset.labels
        settings = _evaluation_settings(cases.dataset, measures)
        bad = read_bad(measures.bad, labels.structures, measures.structures)
        component_structures = read_findings(labels, measures.findings)
        report = Path(measures.output or _default_report(cases, calibrator))
        _check_output(report, cases.folders, measures.csv)

        work = Work(
            calibrator.log_odds_map,
            settings,
            with_sample=measures.predict,  # which `calibrate` needs
            apart="" if calibrator.log_odds_map is None else "calibrated",
        )
        held_out = cases.measure(work, measures.num_processes)

    records = list(held_out.records.values())
    return EvaluationResult(
        evaluation=Evaluation(records, labels, settings, held_out.problems),
        by_fold=_evaluations_by_fold(held_out),
        name=cases.name,
        folder=cases.folders[0],
        calibrator=calibrator,
        bad=bad,
        findings=component_structures,
        output=report,
        csv=measures.csv,
    )


@dataclass(frozen=True, eq=False, kw_only=True)
class EvaluationResult:
    """What :func:`evaluate` has measured.

    Attributes:
        evaluation: All cases, with the content of calibration.json.
        by_fold: Of several folds, the cases of each by the folder of its predictions; else empty.
        name: Of the predictions: their folder, or data set, model and folds.
        folder: Of the predictions, or of those of the first fold.
        calibrator: The map that was given, and what it has learned.
        bad: By nnU-Net's key of each structure that counts, the Dice below which it is bad; None:
            nothing is bad.
        findings: nnU-Net's keys of the structures whose components are counted; None: of the
            lesions, see :func:`~nnunet_nacl.comparison.structure_metrics.lesion_structures`.
        output: Where :meth:`write` writes the report.
        csv: Whether it writes a table of all values beside it.
    """

    evaluation: Evaluation
    by_fold: Mapping[Path, Evaluation]
    name: str
    folder: Path
    calibrator: Calibrator
    bad: Mapping[str, float] | None
    findings: Sequence[str] | None
    output: Path
    csv: bool

    @cached_property
    def table(self) -> pd.DataFrame:
        """A row for each case and structure, see :func:`~nnunet_nacl.cases.record.table`.

        Where a map was given that has learned it, with ``predicted_dice_low`` and
        ``predicted_dice_high``, the ends of the 90 % interval.
        """
        table = self.evaluation.table
        if self.calibrator.quality.learned is not None:
            table = self.calibrator.quality.learned.predict_dice(table)
        return table

    @cached_property
    def components(self) -> pd.DataFrame:
        """Connected components, a row for each structure where they are counted, by nnU-Net's key.

        See :func:`~nnunet_nacl.comparison.structure_metrics.summarize_components`.
        """
        table = self.evaluation.table
        lesions = lesion_structures(table)
        structures = lesions if self.findings is None else self.findings
        return summarize_components(table, structures)

    @cached_property
    def scores(self) -> pd.DataFrame:
        """A row for each case with its calibration: columns ``ECE:foreground``, ``NLL:all`` and so
        on."""
        return scores(self.evaluation.records)

    @cached_property
    def calibration(self) -> pd.DataFrame:
        """Scores by aggregate (``mean`` over cases, ``pooled`` over voxels) and mask."""
        aggregates = self.evaluation.calibration
        by_aggregate = {
            name: pd.DataFrame.from_dict(masks, orient="index")
            for name, masks in aggregates.items()
        }
        return pd.concat(by_aggregate, names=["aggregate", "mask"])

    @cached_property
    def quality(self) -> QualityReport:
        """How far predicted Dice agrees with Dice, see
        :func:`~nnunet_nacl.calibration.quality_report.quality_report`."""
        return quality_report(self.table, self.bad)

    @cached_property
    def detected(self) -> dict[str, Detected]:
        """By nnU-Net's key of each structure, in how many cases it is found, missed and
        invented."""
        return detected_in(self.evaluation.table)

    @cached_property
    def presence(self) -> LearnedPresence:
        """How far it can be told that a structure is in a scan."""
        groups = {}
        if (
            self.calibrator.quality.learned is not None
            and self.calibrator.calibration_map is not None
        ):
            groups = self.calibrator.calibration_map.fitted.groups
        return learn_presence(self.table, groups)

    @property
    def caveats(self) -> list[str]:
        """What must be said beside the predicted Dice of a map."""
        return self.calibrator.caveats(self.evaluation.table.case)

    @property
    def failed(self) -> dict[str, str]:
        """By name, why a case, or a whole fold, could not be evaluated."""
        return self.evaluation.problems

    def write(self) -> list[Path]:
        """Write calibration.json (of several folds also that of each), and the table of all values
        if it is wanted.

        Returns:
            The report of all cases, and the table.

        Raises:
            UserError: A file cannot be written.
        """
        for folder, of_fold in self.by_fold.items():
            of_fold.write(folder / FILE_NAME)
        map_sha256 = read_applied_map_digest(self.folder)
        self.evaluation.write(self.output, map_sha256, self._predicted_quality())
        written = [self.output]
        if self.csv:
            table = self.output.with_suffix(".csv")
            write_atomically(table, values_csv(self.evaluation))
            written.append(table)
        return written

    def _predicted_quality(self) -> PredictedQuality | None:
        """What calibration.json says of the map's predicted Dice; None where no map predicts it."""
        if self.calibrator.quality.learned is None or self.calibrator.path is None:
            return None
        map_sha256 = checksum(self.calibrator.path)
        return PredictedQuality(map_sha256=map_sha256, notes=self.caveats, **self.quality)


def _check_given(given: GivenCases, measures: MeasureSettings) -> None:
    """UserError for what does not go together."""
    if (given.predictions is None) == (given.model is None):
        raise UserError(
            "name a folder of predictions, or a model whose validation cases are measured."
        )
    if measures.predict and given.model is None:
        raise UserError("predict=True needs a model, whose validation cases are predicted.")
    if measures.calibration_map is not None and given.model is not None:
        raise UserError("calibration_map goes with a folder of predictions, not with a model.")


def _choose_cases(
    given: GivenCases, network: NetworkSettings, measures: MeasureSettings
) -> tuple[HeldOutCases, Calibrator]:
    """A folder of predictions and the map that they are taken through, or a model's validation
    cases."""
    if given.model is None:
        return _open_predictions(given, measures)
    if measures.predict:
        model = TrainedModel.open(Path(given.model), network.folds, network.checkpoint)
        return ValidationOfModel(model, on_present_device(network), anew=True), Calibrator()
    cases = SavedCases.of_validation(
        Path(given.model), network.folds, network.checkpoint, measures.chill
    )
    return cases, Calibrator()


def _open_predictions(
    given: GivenCases, measures: MeasureSettings
) -> tuple[SavedCases, Calibrator]:
    """A folder of predictions, with the cases that its ground truth has, and its map."""
    folder = PredictionFolder.open(
        given.predictions or "",
        given.labels,
        dataset_json=given.dataset_json,
        plans=given.plans_json,
        need_probabilities=True,
    ).with_expected()
    name = str(folder.folder)
    calibrator = Calibrator()
    if measures.calibration_map is not None:
        calibrator = Calibrator.of_folder(Path(measures.calibration_map), folder)
        name = f"{name} through {measures.calibration_map}"
        for note in (*calibrator.notes, *calibrator.missing):
            _LOG.info("note: %s", note)
    return SavedCases(name, {"": folder}, measures.chill), calibrator


def _default_report(cases: HeldOutCases, calibrator: Calibrator) -> Path:
    """Beside the predictions; of several folds in the model's folder; through a map in a folder of
    its own."""
    first = cases.folders[0]
    # beside what was measured of the predictions as they are
    if calibrator.log_odds_map is not None:
        return first / "calibrated" / FILE_NAME
    if len(cases.folders) == 1:
        return first / FILE_NAME
    of_checkpoint = first.name.removeprefix("validation")  # where this package predicted them
    return first.parent.parent / FILE_NAME.replace(".", f"{of_checkpoint}.")


def _evaluation_settings(dataset: Dataset, measures: MeasureSettings) -> EvaluationSettings:
    """What is measured: what was asked for, else the default of the data set."""
    default = dataset.settings
    dilation_mm = measures.dilation_mm
    boundary_mm = measures.boundary_mm
    try:
        return EvaluationSettings(
            n_bins=measures.n_bins,
            dilation_mm=default.dilation_mm if dilation_mm is None else dilation_mm,
            boundary_mm=default.boundary_mm if boundary_mm is None else boundary_mm,
        )
    except ValueError as error:
        argument, _, problem = str(error).partition(" ")
        raise UserError(f"[[{argument}]] {problem}") from None


def _check_output(report: Path, folders: Sequence[Path], csv: bool) -> None:
    """UserError, before hours of work, where no report or table can be written.

    Of several folds each ``folders`` gets a report, too.
    """
    if report.suffix != ".json":
        raise UserError(f"{report}: the output file must end with .json.")
    files = [report]
    if csv:
        files.append(report.with_suffix(".csv"))
    for path in files:
        check_writable(path)
    reports = [report]
    if len(folders) > 1:
        reports += [folder / FILE_NAME for folder in folders]
    check_ours([*files, *reports])
    for path in reports:
        if path.is_file() and path.stat().st_size and "metric_per_case" not in read_dict(path):
            raise UserError(
                f"{path}: not a calibration.json, and would be lost; move it away, or choose"
                " another [[output]]."
            )


def _evaluations_by_fold(held_out: HeldOut) -> dict[Path, Evaluation]:
    """Of several folds the evaluation of each that has a case, by the folder of its predictions."""
    if len(held_out.folders) == 1:
        return {}
    evaluations = {}
    for fold, folder in held_out.folders.items():
        records = [
            record for case, record in held_out.records.items() if held_out.fold[case] == fold
        ]
        if records:
            evaluations[folder.folder] = Evaluation(records, held_out.labels, held_out.settings, {})
    return evaluations
