"""Evaluates folders: what is known already, what has to be measured, and what is written."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from nnunet_nacl.cases.case_cache import CaseCache, problems_of_exports
from nnunet_nacl.cases.measure import evaluate_case, measure_all
from nnunet_nacl.cases.npz import RERUN
from nnunet_nacl.cases.prediction_folder import PredictionFolder
from nnunet_nacl.documents.document import to_document
from nnunet_nacl.documents.map_file import map_of
from nnunet_nacl.documents.results import Evaluation, EvaluationSettings
from nnunet_nacl.errors import UserError
from nnunet_nacl.files import to_json_text, write_atomically
from nnunet_nacl.json_files import one_line

__all__ = ["evaluate_case", "evaluate_folder"]


def evaluate_folder(
    folder: PredictionFolder | str | os.PathLike,
    reference_folder: str | os.PathLike | None = None,
    *,
    settings: EvaluationSettings = EvaluationSettings(),
    chill: bool = True,
    output: str | os.PathLike | None = None,
    num_processes: int = 1,
    progress: bool | str = False,
    cache: CaseCache | None = None,
) -> Evaluation:
    """Measure every case of a folder of predictions.

    Args:
        folder: A fold's ``validation`` folder, or the output folder of a prediction.
        reference_folder: Ground truth; None finds nnU-Net's own.
        settings: What is measured.
        chill: Do not report expected cases without prediction.
        output: Where to write calibration.json; an earlier one there spares the cases whose files did not change, and
            so do the cases that a killed run finished. None writes nothing.
        num_processes: Cases measured at the same time; 1 starts no process.
        progress: Show a progress bar on stderr; a text is its title.
        cache: Where finished cases are kept instead of beside ``output``; it is not cleared.

    Returns:
        The results, and the problems of the cases that could not be evaluated.

    Raises:
        UserError: The folder as a whole cannot be used, not a single case could be evaluated, or ``output`` cannot be
            written.
    """
    if not isinstance(folder, PredictionFolder):
        folder = PredictionFolder.open(folder, reference_folder)
    labels = folder.labels
    names = {labels.key(c): labels.names[c] for c in labels.foreground}
    channels = {labels.key(c): c for c in labels.foreground}
    own = None if output is None else CaseCache(Path(output))
    cache = cache or own
    found, problems = folder.cases(chill=chill, known=cache.cases if cache else ())
    told = problems_of_exports(folder.folder)
    problems |= {case: text for case, text in told.items() if case in problems}

    results, todo = {}, []
    for files in found:
        try:
            known, now = cache.get(files, labels, settings, channels) if cache else (None, {})
        except OSError as error:
            problems[files.case] = f"{error.filename or files.probabilities}: cannot be read ({error.strerror})."
            continue
        if known:
            results[files.case] = replace(known, signature=now, **files.places)
        else:
            todo.append((files, now))

    for (files, now), outcome in measure_all(folder, todo, settings, num_processes, progress, len(found)):
        if isinstance(outcome, str):
            problems[files.case] = outcome
            continue
        results[files.case] = replace(outcome, signature=now)
        if cache:
            cache.put(results[files.case], channels, labels.regions)
    problems |= {case: text for case, text in told.items() if case not in results}
    problems = {case: one_line(problem) for case, problem in sorted(problems.items())}
    if (
        not results and not told and not any(folder.folder.glob("*.npz"))
    ):  # once for all, rather than once for every case
        swapped = folder.reference_folder is not None and any(folder.reference_folder.glob("*.npz"))
        fix = f"those of {folder.reference_folder} have: give the ground truth first" if swapped else RERUN
        raise UserError(f"{folder.folder}: its predictions have no probabilities (there is no *.npz); {fix}.")
    if not results:
        listed = "".join(f"\n  {one_line(case)}: {problem}" for case, problem in problems.items())
        raise UserError(f"{folder.folder}: no case could be evaluated.{listed}")
    evaluation = Evaluation(
        names, channels, labels.regions, settings, [results[case] for case in sorted(results)], problems
    )
    if own and output is not None:
        write_atomically(Path(output), to_json_text(to_document(evaluation) | map_of(folder.folder)))
        own.clear()
    return evaluation
