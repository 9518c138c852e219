"""Evaluates folders: what is known already, what has to be measured, and what is written."""

from __future__ import annotations

import contextlib
import os
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from nnunet_nacl.calibrate.map_file import map_of
from nnunet_nacl.case.case import CaseFiles
from nnunet_nacl.case.document import Evaluation, NamedChannel, check_output
from nnunet_nacl.case.labels import Labels
from nnunet_nacl.case.measure import measure, sign
from nnunet_nacl.case.results import CaseResult, EvaluationSettings
from nnunet_nacl.errors import UserError, list_problems, one_line
from nnunet_nacl.files import check_writable, remove_leftovers
from nnunet_nacl.json_files import decode, encode
from nnunet_nacl.nnunet.image_files import RERUN
from nnunet_nacl.nnunet.prediction_folder import PredictionFolder
from nnunet_nacl.runs.ledger import Ledger, same_contents
from nnunet_nacl.runs.run import run
from nnunet_nacl.runs.sample_files import SAMPLES_FOLDER, find_sample, make_sample
from nnunet_nacl.runs.side_by_side import each_case


def evaluate_folder(
    folder: PredictionFolder | str | os.PathLike,
    reference_folder: str | os.PathLike | None = None,
    *,
    settings: EvaluationSettings = EvaluationSettings(),
    chill: bool = True,
    output: str | os.PathLike | None = None,
    num_processes: int = 1,
    progress: bool | str = False,
    ledger: Ledger | None = None,
    samples: bool = False,
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
        ledger: Where finished cases are kept instead of beside ``output``; it is not cleared.
        samples: Leave the sample of each case that is measured, too.

    Returns:
        The results, and the problems of the cases that could not be evaluated.

    Raises:
        UserError: The folder as a whole cannot be used, not a single case could be evaluated, or ``output`` cannot be
            written.
    """
    if not isinstance(folder, PredictionFolder):
        folder = PredictionFolder.open(folder, reference_folder)
    labels = folder.labels
    own = None if output is None else open_ledger(Path(output))
    remove_leftovers(folder.folder / SAMPLES_FOLDER)
    ledger = ledger or own or Ledger(None)
    found, problems = folder.cases(chill=chill, known=ledger.cases)
    exported = ledger.problems

    measured = partial(evaluate_case, folder, settings=settings, samples=samples)
    results, wrong = run(
        found,
        lambda todo: each_case(measured, todo, num_processes),
        ledger,
        sign=partial(sign, labels, settings),
        restore=partial(restore, labels, settings),
        entry_of=encode,
        signed=lambda result, signature: replace(result, signature=signature),
        title=progress if isinstance(progress, str) else "evaluate",
        progress=bool(progress),
    )
    problems |= {case: text for case, text in exported.items() if case in problems} | wrong
    problems |= {case: text for case, text in exported.items() if case not in results}
    problems = {one_line(case): one_line(problem) for case, problem in sorted(problems.items())}
    if not results and not exported and not any(folder.folder.glob("*.npz")):  # once, not once for every case
        swapped = folder.reference_folder is not None and any(folder.reference_folder.glob("*.npz"))
        fix = f"those of {folder.reference_folder} have: give the ground truth first" if swapped else RERUN
        raise UserError(f"{folder.folder}: its predictions have no probabilities (there is no *.npz); {fix}.")
    if not results:
        raise UserError(f"{folder.folder}: no case could be evaluated.{list_problems(problems)}")
    cases, map_sha256 = list(results.values()), map_of(folder.folder).get("map_sha256")
    evaluation = Evaluation(_structures(labels), labels.regions, settings, problems, cases, map_sha256)
    if own and output is not None:
        evaluation.write(Path(output))
        own.clear()
    return evaluation


def evaluate_case(
    folder: PredictionFolder,
    files: CaseFiles,
    settings: EvaluationSettings = EvaluationSettings(),
    *,
    samples: bool = False,
) -> CaseResult:
    """Measure everything of one case.

    Args:
        folder: Where it lies.
        files: Its files.
        settings: What is measured.
        samples: Leave its sample, too.

    Raises:
        UserError: A file cannot be read or does not fit; the message names it.
    """
    case = folder.load(files)
    result = measure(files, case, settings)
    if samples:
        with contextlib.suppress(OSError, ValueError):  # whoever needs the sample is told then
            if find_sample(files, folder.labels, settings) is None:
                make_sample(case, files, folder, settings, save=True)
    return result


def ledger_folder(output: Path) -> Path:
    """Where the finished cases lie until ``output``, a calibration.json, is written."""
    return output.with_name(output.name + ".partial")


def open_ledger(output: Path) -> Ledger:
    """The cases in an earlier calibration.json, and those that an unfinished run left beside it.

    Args:
        output: Path of calibration.json.

    Raises:
        UserError: ``output`` or the folder of finished cases cannot be written, or it is something else of the user's.
    """
    folder, entries = ledger_folder(output), check_output(output)
    if folder.exists():
        check_writable(folder / "case.json")
    return Ledger(folder, entries)


def save_case(output: Path, result: CaseResult) -> None:
    """Save one finished case for whoever writes ``output``; UserError where that is not possible."""
    Ledger(ledger_folder(output)).remember(result.case, encode(result))


def restore(labels: Labels, settings: EvaluationSettings, files: CaseFiles, entry: dict[str, Any]) -> CaseResult | None:
    """The result in a ledger's entry; None if it is damaged, so that it must be measured again."""
    try:
        result = decode(CaseResult, entry, "the entry of a case")
        result.check(_structures(labels), labels.regions, settings)
    except ValueError:
        return None
    return replace(result, **files.places)


def came_from(result: CaseResult, files: CaseFiles, labels: Labels, settings: EvaluationSettings) -> bool:
    """Whether a result came from the same contents of files, labels and settings; OSError if a file cannot be read."""
    return same_contents(result.signature, sign(labels, settings, files, result.signature))


def _structures(labels: Labels) -> dict[str, NamedChannel]:
    return {labels.key(channel): {"name": labels.names[channel], "channel": channel} for channel in labels.foreground}
