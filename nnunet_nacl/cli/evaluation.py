"""Measures what `nnunet_nacl evaluate` was asked to, and shows it: tables for the terminal, and a CSV file."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Iterator, Mapping
from dataclasses import replace
from operator import itemgetter
from pathlib import Path
from typing import Any

from nnunet_nacl.calibration.log_odds_map import LogOddsMap
from nnunet_nacl.calibrator.map_file import map_of
from nnunet_nacl.calibrator.predicted_quality import QualityOfMap, check_same_networks, open_map
from nnunet_nacl.cases.case import MASK_NOTES, EvaluationSettings
from nnunet_nacl.cases.groups import detected_in
from nnunet_nacl.cli.options import bad_of, model_of, network_of, number_of_processes, report_problems
from nnunet_nacl.errors import UserError, one_line
from nnunet_nacl.evaluation.evaluation import FILE_NAME, Evaluation
from nnunet_nacl.evaluation.tables import detected_text, presence_text, quality_text
from nnunet_nacl.files import CsvColumn, check_ours, check_writable, checksum, to_csv_text, write_atomically
from nnunet_nacl.json_files import read_dict
from nnunet_nacl.metrics.calibration_error import MASK_METRICS
from nnunet_nacl.nnunet.held_out import measure_folders, measure_validation, open_predicted
from nnunet_nacl.nnunet.prediction_folder import PredictionFolder, find_fold_folders
from nnunet_nacl.nnunet.records import Work
from nnunet_nacl.nnunet.trained_model import TrainedModel
from nnunet_nacl.quality.learned_quality import quality_report
from nnunet_nacl.quality.presence import learn_presence
from nnunet_nacl.reports.tables import ten_worst, text_of

VALUE_COLUMNS = (
    CsvColumn("scope", "text", "`case`, `mean` over the cases where the metric is defined, or `pooled` over voxels."),
    CsvColumn("case", "name", "Empty for `mean` and `pooled`."),
    CsvColumn("structure", "key", "nnU-Net's key of the structure; empty for scores of all classes or regions."),
    CsvColumn("mask", "name", "Voxels that a calibration score was measured on; empty for other metrics."),
    CsvColumn("metric", "name", "As in calibration.json."),
    CsvColumn("value", "of the metric", "Empty if it is undefined."),
)
_SCORES = [name for name, metric in MASK_METRICS.items() if metric.printed]


def evaluate(args: argparse.Namespace) -> int:
    """Measures, prints and writes; exit status 1 if something could not be evaluated."""
    processes, calibration, quality, unpredicted = number_of_processes(args.np), None, None, dict[str, str]()
    if args.d is not None:
        folders, title, unpredicted = _of_model(args, processes)
    else:
        folders, title, calibration, quality = _of_folder(args)
    opened = next(iter(folders.values()))
    first, settings, bad = opened.folder, _settings(args, opened), bad_of(args, opened.labels.structures)
    output = first / FILE_NAME
    if len(folders) > 1:  # named after the checkpoint where `--predict` made the predictions
        output = first.parent.parent / FILE_NAME.replace(".", f"{first.name.removeprefix('validation')}.")
    output = Path(args.o or output)
    if output.suffix != ".json":
        raise UserError(f"{output}: the output file must end with .json.")
    written = [output, *([output.with_suffix(".csv")] if args.csv else [])]
    for path in written:
        check_writable(path)
    of_folds = [folder.folder / FILE_NAME for folder in folders.values()] if len(folders) > 1 else []
    check_ours([*written, *of_folds])
    for path in (output, *of_folds):
        if path.is_file() and path.stat().st_size and "metric_per_case" not in read_dict(path):
            raise UserError(f"{path}: not a calibration.json, and would be lost; remove it or choose another -o.")
    work = Work(calibration, settings)
    measured = measure_folders(folders, work, jobs=processes, chill=args.chill, title="measure")
    measured.problems |= unpredicted
    records, labels = list(measured.records.values()), opened.labels
    evaluation = Evaluation(records, labels, settings, measured.problems)
    for fold, folder in folders.items() if len(folders) > 1 else ():
        of_fold = [record for record in records if measured.fold[record.case] == fold]
        if of_fold:
            Evaluation(of_fold, labels, settings, {}).write(folder.folder / FILE_NAME)
    print(_table_text(evaluation, one_line(f"{title}: {len(records)} cases")))
    evaluation.write(output, **map_of(first) | _report_quality(evaluation, quality, bad))
    for path in written[1:]:
        write_atomically(path, _csv_text(evaluation))
    print(f"\nwritten: {', '.join(map(str, written))}")
    report_problems("evaluate", evaluation.problems, "could not be evaluated")
    return 1 if evaluation.problems else 0


def _settings(args: argparse.Namespace, folder: PredictionFolder) -> EvaluationSettings:
    """What is measured: what the options say, else the default of the data set."""
    asked = {"n_bins": args.bins, "dilation_mm": args.dilated, "boundary_mm": args.boundary}
    try:
        return replace(folder.settings, **{name: value for name, value in asked.items() if value is not None})
    except ValueError as error:
        raise UserError(str(error)) from None


def _of_model(args: argparse.Namespace, processes: int) -> tuple[dict[str, PredictionFolder], str, dict[str, str]]:
    """The validation folders of a model by fold, predicted first if this was asked for, what they are called, and why
    cases could not be predicted."""
    model, problems = model_of(args), dict[str, str]()
    if args.predict:
        opened, network = TrainedModel.open(model, args.f, args.chk), network_of(args)
        work = Work(settings=_settings(args, opened.opened), with_sample=True)
        problems = measure_validation(opened, network, work, jobs=processes, anew=True).problems
        folders = {fold: open_predicted(opened, fold) for fold in opened.folds}
    else:
        folders = find_fold_folders(model, args.f)
    return folders, f"{model.parent.name}, {model.name}, fold {' '.join(folders)}", problems


def _of_folder(
    args: argparse.Namespace,
) -> tuple[dict[str, PredictionFolder], str, LogOddsMap | None, QualityOfMap | None]:
    """A folder of predictions; what it is called, the map of -map, and what this has learned of Dice."""
    folder = PredictionFolder.open(args.i, args.gt, dataset_json=args.djfile, plans=args.pfile)
    expected = {"": folder.with_expected()}
    if not args.map:
        return expected, str(folder.folder), None, None
    if note := check_same_networks(Path(args.map), folder):
        logging.getLogger(__name__).info("note: %s", note)
    calibration, quality, why_not = open_map(Path(args.map), folder)
    if why_not:
        logging.getLogger(__name__).info("note: %s", why_not)
    if calibration is not None:  # beside what was measured of the predictions as they are
        args.o = args.o or str(args.i / "calibrated" / "calibration.json")
    return expected, f"{folder.folder} through {args.map}", calibration, quality


def _report_quality(
    evaluation: Evaluation, quality: QualityOfMap | None, bad: Mapping[str, float] | None
) -> dict[str, Any]:
    """Prints what is found, how far predicted Dice holds, and what is in the scans; the middle one for the document."""
    rows, notes, patients = evaluation.table, [], {}
    texts = [detected_text(detected_in(rows), evaluation.names)]
    if quality:
        notes, patients = quality.caveats(rows.case), quality.record.fitted.groups
        rows = quality.learned.predict_dice(rows)
    texts += [quality_text(rows, bad), presence_text(learn_presence(rows, patients), evaluation.names)]
    print(*(f"\n{text}" for text in texts if text), *(f"note: {note}" for note in notes), sep="\n")
    if not quality:
        return {}
    report = {"map_sha256": checksum(quality.path), "notes": notes}
    return {"predicted_quality": report | quality_report(rows, bad)}


def _table_text(evaluation: Evaluation, title: str) -> str:
    """Segmentation of the structures, then calibration by mask: mean over cases, and pooled."""
    means, names = evaluation.mean, evaluation.names
    counts = evaluation.table.groupby("key")[["Dice", "HD95_mm"]].count()
    rows: list[dict[str, Any]] = [
        {"structure": f"{key} {name}", **_segmentation(means[key])}
        | {"cases": counts.Dice[key], "with distances": counts.HD95_mm[key]}
        for key, name in names.items()
    ]
    shown, more = ten_worst(rows, "structure", itemgetter("Dice"))
    mean = {"structure": "mean", **_segmentation(evaluation.foreground_mean), "cases": "", "with distances": ""}
    lines = [title, text_of([*shown, mean], decimals=4), *more]
    if any(cases for by_key in evaluation.undefined.values() for cases in by_key.values()):
        lines.append(
            "Cases without a value (absent, missed or invented) are in no mean; `undefined` in the report names them."
        )
    for which, heading, count in (("mean", "mean over cases", "n_cases"), ("pooled", "pooled voxels", "n_voxels")):
        by_mask = [
            {"mask": mask, **{score: values[score] for score in _SCORES}, count[2:]: f"{values[count]:,}"}
            for mask, values in evaluation.calibration[which].items()
        ]
        lines += ["", f"calibration, {heading}", text_of(by_mask, decimals=4)]
    lines += ["", *(f"  {mask}: {note.format(**vars(evaluation.settings))}" for mask, note in MASK_NOTES.items())]
    if changed := sum(record.scan["n_changed_voxels"] > 0 for record in evaluation.records):
        lines.append(
            f"\nIn {changed} of {len(evaluation.records)} cases the segmentation differs from what the probabilities "
            "say (postprocessed, or an npz left from an earlier run?): Dice and confidence are the segmentation's."
        )
    return "\n".join(lines)


def _segmentation(mean: Mapping[str, float]) -> dict[str, float]:
    return {"Dice": mean["Dice"], "HD95 mm": mean["HD95_mm"], "ASSD mm": mean["ASSD_mm"]}


def _csv_text(evaluation: Evaluation) -> str:
    """A line for each value, empty if undefined."""
    scopes: list[tuple[str, str, dict[str, Any], dict[str, Any]]] = [
        *(("case", case["case"], case["metrics"], case["calibration"]) for case in evaluation.cases),
        ("mean", "", evaluation.mean, evaluation.calibration["mean"]),
        ("pooled", "", {}, evaluation.calibration["pooled"]),
    ]
    return to_csv_text([column.name for column in VALUE_COLUMNS], (row for scope in scopes for row in _rows(*scope)))


def _rows(scope: str, case: str, structures: dict[str, Any], masks: dict[str, Any]) -> Iterator[tuple]:
    for key, values in {**structures, "": {"calibration": masks}}.items():
        for metric, value in values.items():
            if metric == "calibration":
                for mask, scores in value.items():
                    yield from ((scope, case, key, mask, name, score) for name, score in scores.items())
            elif not isinstance(value, dict):
                yield scope, case, key, "", metric, value
