"""The demo's result: a table, a figure of reliability diagrams and what they do and do not say."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from nnunet_nacl.demo.names import schedule_of, titles
from nnunet_nacl.demo.reading import read_table
from nnunet_nacl.demo.task import Task
from nnunet_nacl.demo.training import Training
from nnunet_nacl.evaluation.evaluate import evaluate_case, evaluate_folder
from nnunet_nacl.evaluation.prediction_folder import PredictionFolder
from nnunet_nacl.evaluation.results import Evaluation
from nnunet_nacl.figures.reliability import draw_reliability

__all__ = ["ORACLE", "Row", "format_table", "summarize", "true_probabilities"]

ORACLE = "true probabilities"


@dataclass(frozen=True)
class Row:
    """A line of the table.

    Attributes:
        title: Short name.
        trainer: Trainer name; empty for the true probabilities.
        evaluation: All validation cases of all folds.
    """

    title: str
    trainer: str
    evaluation: Evaluation


def summarize(
    trainings: Sequence[Training],
    references: Path,
    task: Task,
    folder: Path,
    on_progress: Callable[[float], None] = lambda done: None,
) -> str:
    """Evaluates the trainings and writes reliability.png, table.csv and summary.txt.

    Args:
        trainings: Finished trainings; the folds of a trainer are put together.
        references: Ground truth in nnU-Net's format.
        task: The task, with the folder of the true probabilities where they are known.
        folder: Where the files go.
        on_progress: Called with the number of trainings evaluated.

    Returns:
        The text of summary.txt.

    Raises:
        UserError: If predictions cannot be read.
    """
    evaluations: dict[str, Evaluation] = {}
    for done, training in enumerate(trainings, start=1):
        one = evaluate_folder(PredictionFolder.open(training.validation_folder, references))
        earlier = evaluations.get(training.trainer)
        evaluations[training.trainer] = one if earlier is None else _together(earlier, one)
        on_progress(done)
    short = titles(list(evaluations))
    rows = [Row(short[trainer], trainer, evaluation) for trainer, evaluation in evaluations.items()]
    if task.probabilities is not None:
        rows.append(
            Row(
                ORACLE,
                "",
                true_probabilities(task.probabilities, trainings[0].validation_folder, references, rows[0].evaluation),
            )
        )
    configuration, folds = trainings[0].configuration, sorted({training.fold for training in trainings})
    cases = len(rows[0].evaluation.cases)
    what = f"{task.dataset}, {configuration}, fold{'s' if len(folds) > 1 else ''} {', '.join(folds)}, {cases} cases"
    folder.mkdir(parents=True, exist_ok=True)
    figure = draw_reliability(
        {row.title: row.evaluation.pooled["foreground"] for row in rows},
        folder / "reliability.png",
        title="Reliability on the foreground",
        subtitle=f"{what}; all voxels pooled",
    )
    _write(folder / "table.csv", _as_csv(rows))
    text = "\n".join(
        [
            f"{what}, mean over cases:",
            "",
            format_table(rows),
            "",
            *read_table(rows, len(folds), len({schedule_of(row.trainer) for row in rows if row.trainer}) == 1),
            "",
            f"Figure          {figure}",
            f"Table           {folder / 'table.csv'}",
            *(
                f"{row.title:<15} {training.model_folder}"
                for row in rows
                for training in trainings
                if training.trainer == row.trainer and training.fold == folds[0]
            ),
        ]
    )
    _write(folder / "summary.txt", text + "\n")
    return text


def true_probabilities(probabilities: Path, predictions: Path, references: Path, of: Evaluation) -> Evaluation:
    """Evaluates the true probabilities as if a network had predicted them.

    Args:
        probabilities: Folder with an npz file per case.
        predictions: Any validation folder of the dataset, for its labels.
        references: Ground truth.
        of: Evaluation that says which cases.
    """
    folder = replace(PredictionFolder.open(predictions, references), folder=probabilities)
    wanted = {case.case for case in of.cases}
    found, problems = folder.cases(chill=True)
    cases = [evaluate_case(folder, files, of.settings) for files in found if files.case in wanted]
    return replace(of, cases=cases, problems={case: text for case, text in problems.items() if case in wanted})


def format_table(rows: Sequence[Row]) -> str:
    """The table as text."""
    width = max(len(row.title) for row in rows)
    lines = [f"{'':<{width}}    DSC    ECE foreground    ECE whole image"]
    for row in rows:
        evaluation = row.evaluation
        lines.append(
            f"{row.title:<{width}}  {evaluation.mean_dice():.3f}    {evaluation.mean_ece('foreground'):^14.3f}"
            f"    {evaluation.mean_ece('all'):^15.3f}".rstrip()
        )
    return "\n".join(lines)


def _together(one: Evaluation, other: Evaluation) -> Evaluation:
    return replace(one, cases=[*one.cases, *other.cases], problems={**one.problems, **other.problems})


def _as_csv(rows: Sequence[Row]) -> str:
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(
        ["title", "trainer", "cases", "DSC", "ECE_foreground", "ECE_all", "ECE_foreground_pooled", "ECE_all_pooled"]
    )
    for row in rows:
        evaluation = row.evaluation
        numbers = [
            evaluation.mean_dice(),
            evaluation.mean_ece("foreground"),
            evaluation.mean_ece("all"),
            evaluation.pooled_ece("foreground"),
            evaluation.pooled_ece("all"),
        ]
        writer.writerow([row.title, row.trainer, len(evaluation.cases), *(f"{number:.6f}" for number in numbers)])
    return file.getvalue()


def _write(path: Path, text: str) -> None:
    unfinished = path.with_name(f".{path.name}.unfinished")
    unfinished.write_text(text, encoding="utf-8")
    os.replace(unfinished, path)
