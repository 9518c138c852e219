"""`evaluate`: measures segmentation and calibration of predictions against the ground truth."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from os import PathLike
from pathlib import Path

import pandas as pd

from nnunet_nacl.calibrator.calibrator import Calibrator
from nnunet_nacl.calibrator.map_file import read_applied_map_digest
from nnunet_nacl.cases.case import EvaluationSettings
from nnunet_nacl.cases.groups import detected_in
from nnunet_nacl.cases.record import scores
from nnunet_nacl.commands.python_function import python_function
from nnunet_nacl.errors import UserError
from nnunet_nacl.evaluation.calibration_report import FILE_NAME, PredictedQuality
from nnunet_nacl.evaluation.components import (
    fragmented_structures,
    read_findings,
    summarize_components,
)
from nnunet_nacl.evaluation.evaluation import Evaluation
from nnunet_nacl.evaluation.values import values_csv
from nnunet_nacl.files import check_ours, check_writable, checksum, write_atomically
from nnunet_nacl.json_files import read_dict
from nnunet_nacl.metrics.binning import DEFAULT_N_BINS
from nnunet_nacl.metrics.overlap import Detected
from nnunet_nacl.nnunet.dataset import Dataset
from nnunet_nacl.nnunet.held_out import HeldOut, measure_folders
from nnunet_nacl.nnunet.places import FINAL, predicted_folder
from nnunet_nacl.nnunet.predicted import on_present_device
from nnunet_nacl.nnunet.prediction_folder import PredictionFolder, find_fold_folders
from nnunet_nacl.nnunet.records import Work
from nnunet_nacl.nnunet.trained_model import TrainedModel
from nnunet_nacl.nnunet.validation import measure_validation
from nnunet_nacl.quality.bad_limits import check_bad, read_bad
from nnunet_nacl.quality.presence import LearnedPresence, learn_presence
from nnunet_nacl.quality.quality_report import QualityReport, quality_report
from nnunet_nacl.settings import BadSpec, NetworkSettings

_LOG = logging.getLogger(__name__)


@python_function
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
        predictions: Folder of segmentations with their probabilities (npz), as nnU-Net saves them.
        labels: Folder with their ground truth; None: nnU-Net's own, in ``nnUNet_preprocessed``.
        model: In place of ``predictions``, nnU-Net's model folder, TRAINER__PLANS__CONFIGURATION:
            its validation cases are measured.
        folds: Of the model; None: every numbered fold that has a validation, or ``all``.
        predict: Predict the model's validation cases first, as nnU-Net does, into folders of their
            own.
        checkpoint: Of the folds, for ``predict``.
        device: For ``predict``: ``cuda``, ``mps``, ``cpu``, or ``auto``, the first of these that
            there is.
        step_size: For ``predict``, of the sliding window, as a share of the patch.
        mirroring: For ``predict``, predict mirrored copies too.
        calibration_map: calibration_map.json that the probabilities of ``predictions`` are taken
            through; how good its predicted Dice is is then measured, too.
        n_bins: Bins of the confidence.
        dilation_mm: Radius of the masks ``dilated`` and ``near``; None: 2 mm, or the median voxel
            in the plane where that is wider.
        boundary_mm: Reach of the mask ``boundary`` to either side of a surface; None: likewise.
        bad: The Dice below which a structure, and so its case, is bad: one of all structures, or by
            name.
        structures: Names of those that count for ``bad``; None: all, or those that it names.
        findings: Names of the structures whose connected components, such as lesions, are counted
            in :attr:`EvaluationResult.components`; an empty list: all; None: those that have
            several in the truth of some case.
        chill: Accept that cases of the ground truth have no prediction.
        dataset_json: dataset.json of ``predictions``; None: in their folder or up to two levels
            above.
        plans_json: plans.json, likewise.
        output: File that :meth:`EvaluationResult.write` writes, which must end with .json; that it
            can be written is checked before the work. None: calibration.json beside what is
            measured.
        csv: Whether a table of all values will be written beside it.
        num_processes: Cases at the same time.
        trust_checkpoint: Load all that checkpoints hold, and call what plans.json names, which can
            run code.

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
    _check_arguments(predictions, model, predict, calibration_map)
    check_bad(bad, structures=structures)
    network = NetworkSettings(device=device, step_size=step_size, mirroring=mirroring)
    if model is None:
        opened = _open_folder(
            Path(predictions or ""), labels, dataset_json, plans_json, calibration_map
        )
    elif predict:
        opened = _open_model(Path(model), folds, checkpoint)
    else:
        opened = _open_folds(Path(model), folds)
    settings = _evaluation_settings(opened.dataset, n_bins, dilation_mm, boundary_mm)
    structure_names = opened.dataset.labels.structures
    bad_below = read_bad(bad, structure_names, structures) if bad is not None else None
    component_structures = read_findings(opened.dataset.labels, findings)
    report = _check_output(Path(output or opened.default_output), opened.folders, csv)

    held_out = _measure(opened, settings, network, chill, num_processes)

    records = list(held_out.records.values())
    evaluation = Evaluation(records, opened.dataset.labels, settings, held_out.problems)
    return EvaluationResult(
        evaluation=evaluation,
        by_fold=_evaluations_by_fold(held_out),
        name=opened.name,
        folder=opened.folders[0],
        calibrator=opened.calibrator,
        bad=bad_below,
        findings=component_structures,
        output=report,
        csv=csv,
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
        findings: nnU-Net's keys of the structures whose components are counted; None: of those that
            have several in the truth of some case.
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

        See :func:`~nnunet_nacl.evaluation.components.summarize_components`.
        """
        table = self.evaluation.table
        structures = self.findings
        if structures is None:
            structures = fragmented_structures(table)
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
        :func:`~nnunet_nacl.quality.quality_report.quality_report`."""
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
        map_sha256 = read_applied_map_digest(self.folder).get("map_sha256")
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


def _check_arguments(
    predictions: object, model: object, predict: bool, calibration_map: object
) -> None:
    if (predictions is None) == (model is None):
        raise UserError(
            "name a folder of predictions, or a model whose validation cases are measured."
        )
    if predict and model is None:
        raise UserError("predict=True needs a model, whose validation cases are predicted.")
    if calibration_map is not None and model is not None:
        raise UserError("calibration_map goes with a folder of predictions, not with a model.")


@dataclass(frozen=True, kw_only=True)
class _Opened:
    """What is measured.

    Attributes:
        dataset: Labels, plans and reader.
        name: What it is called.
        folders: Of the predictions of each fold, or the one.
        by_fold: The same, opened; empty where they have to be predicted first.
        to_predict: The model that predicts them.
        calibrator: The map that they are taken through.
        default_output: The report.
    """

    dataset: Dataset
    name: str
    folders: Sequence[Path]
    by_fold: Mapping[str, PredictionFolder] = field(default_factory=dict)
    to_predict: TrainedModel | None = None
    calibrator: Calibrator = Calibrator()

    @property
    def default_output(self) -> Path:
        """Beside the predictions; of several folds in the model's folder; through a map in a folder
        of its own."""
        first = self.folders[0]
        # beside what was measured of the predictions as they are
        if self.calibrator.log_odds_map is not None:
            return first / "calibrated" / FILE_NAME
        if len(self.folders) == 1:
            return first / FILE_NAME
        of_checkpoint = first.name.removeprefix("validation")  # where this package predicted them
        return first.parent.parent / FILE_NAME.replace(".", f"{of_checkpoint}.")


def _open_folder(
    predictions: Path,
    labels: str | PathLike | None,
    dataset_json: str | PathLike | None,
    plans_json: str | PathLike | None,
    calibration_map: str | PathLike | None,
) -> _Opened:
    """A folder of predictions, with the cases that its ground truth has, and its map."""
    folder = PredictionFolder.open(predictions, labels, dataset_json=dataset_json, plans=plans_json)
    folder = folder.with_expected()
    name = str(folder.folder)
    calibrator = Calibrator()
    if calibration_map is not None:
        calibrator = Calibrator.of_folder(Path(calibration_map), folder)
        name = f"{name} through {calibration_map}"
        for note in (*calibrator.notes, *calibrator.missing):
            _LOG.info("note: %s", note)
    return _Opened(
        dataset=folder.dataset,
        name=name,
        folders=[folder.folder],
        by_fold={"": folder},
        calibrator=calibrator,
    )


def _open_folds(model: Path, folds: Sequence[str | int] | None) -> _Opened:
    """The validation folders of a model's folds."""
    by_fold = find_fold_folders(model, folds)
    first = next(iter(by_fold.values()))
    folders = [folder.folder for folder in by_fold.values()]
    return _Opened(
        dataset=first.dataset, name=_name_of(model, by_fold), folders=folders, by_fold=by_fold
    )


def _open_model(model: Path, folds: Sequence[str | int] | None, checkpoint: str) -> _Opened:
    """A model that predicts the validation cases of its folds first."""
    trained = TrainedModel.open(model, folds, checkpoint)
    folders = [
        predicted_folder(model / f"fold_{fold}", trained.checkpoint) for fold in trained.folds
    ]
    return _Opened(
        dataset=trained.dataset,
        name=_name_of(model, trained.folds),
        folders=folders,
        to_predict=trained,
    )


def _name_of(model: Path, folds: Iterable[str]) -> str:
    return f"{model.parent.name}, {model.name}, fold {' '.join(folds)}"


def _evaluation_settings(
    dataset: Dataset, n_bins: int, dilation_mm: float | None, boundary_mm: float | None
) -> EvaluationSettings:
    """What is measured: what was asked for, else the default of the data set."""
    default = dataset.settings
    try:
        return EvaluationSettings(
            n_bins=n_bins,
            dilation_mm=default.dilation_mm if dilation_mm is None else dilation_mm,
            boundary_mm=default.boundary_mm if boundary_mm is None else boundary_mm,
        )
    except ValueError as error:
        raise UserError(str(error)) from None


def _check_output(report: Path, folders: Sequence[Path], csv: bool) -> Path:
    """The report's file; UserError, before hours of work, where no report or table can be written.

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
                f"{path}: not a calibration.json, and would be lost; remove it or choose"
                " another [[output]]."
            )
    return report


def _measure(
    opened: _Opened,
    settings: EvaluationSettings,
    network: NetworkSettings,
    chill: bool,
    num_processes: int,
) -> HeldOut:
    """The records of all cases, which are predicted first if that is asked for."""
    model = opened.to_predict
    if model is None:
        work = Work(opened.calibrator.log_odds_map, settings)
        return measure_folders(
            opened.by_fold, work, jobs=num_processes, chill=chill, title="measuring"
        )
    work = Work(settings=settings, with_sample=True)  # which `calibrate` needs
    network = on_present_device(network)
    held_out = measure_validation(model, network, work, jobs=num_processes, anew=True)
    for folder in held_out.folders.values():
        if not folder.is_empty:
            # such as cases that others left
            held_out.problems = folder.problems | held_out.problems
    return held_out


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
