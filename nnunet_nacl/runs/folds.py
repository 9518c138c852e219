"""Several folds of one model as one evaluation."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from nnunet_nacl.case.document import FILE_NAME, Evaluation, check_output
from nnunet_nacl.case.results import EvaluationSettings
from nnunet_nacl.errors import UserError
from nnunet_nacl.files import can_write
from nnunet_nacl.nnunet.prediction_folder import PredictionFolder
from nnunet_nacl.runs.evaluate import evaluate_folder, open_ledger
from nnunet_nacl.runs.ledger import Ledger


def merge(evaluations: Mapping[str, Evaluation]) -> Evaluation:
    """Put the cases of several folds together.

    Args:
        evaluations: By fold.

    Raises:
        UserError: They measured other things, a case occurs twice, or there is none.
    """
    if not evaluations:
        raise UserError("no fold to merge.")
    first, *others = evaluations.values()
    for other in others:
        if (other.structures, other.settings, other.regions) != (first.structures, first.settings, first.regions):
            raise UserError("the folds were evaluated with other labels or settings; evaluate them again together.")
    cases = [case for evaluation in evaluations.values() for case in evaluation.cases]
    names = [case.case for case in cases]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UserError(
            f"case {twice[0]} lies in more than one of the folds {', '.join(evaluations)}; "
            "fold_all and leftover predictions cannot be pooled with folds that hold the same cases."
        )
    problems = {case: text for evaluation in evaluations.values() for case, text in evaluation.problems.items()}
    return Evaluation(first.structures, first.regions, first.settings, problems, cases)


def default_output(folders: Mapping[str, PredictionFolder]) -> Path:
    """Where the calibration.json of folds goes: into the folder of a single one, or into the model folder.

    There it is named after the checkpoint where `--predict` made the predictions, beside that of the validations.
    """
    first = next(iter(folders.values())).folder
    if len(folders) == 1:
        return first / FILE_NAME
    return first.parent.parent / FILE_NAME.replace(".", f"{first.name.removeprefix('validation')}.")


def evaluate_folds(
    folders: Mapping[str, PredictionFolder],
    *,
    settings: EvaluationSettings = EvaluationSettings(),
    chill: bool = False,
    output: str | os.PathLike | None = None,
    num_processes: int = 1,
    progress: bool = False,
) -> tuple[Evaluation, Path, dict[str, str]]:
    """Evaluate the folds of a model.

    Every fold gets its own calibration.json in its validation folder; several folds together get one more in the
    model folder.

    Args:
        folders: Validation folders by fold, as ``find_fold_folders`` gives them; a single folder of predictions may
            have the empty name.
        settings: What is measured.
        chill: Do not report cases of the split that have no prediction.
        output: Where the result goes instead; the folds' own files are then written where that is possible.
        num_processes: Cases at the same time.
        progress: Show progress bars.

    Returns:
        All cases together, the path of the file, and what was wrong with whole folds.

    Raises:
        UserError: No fold could be evaluated, or the file cannot be written.
    """
    single, elsewhere = len(folders) == 1, output is not None
    output = Path(output) if output is not None else default_output(folders)
    check_output(output)
    done, failed = {}, {}
    common: Ledger | None = None
    for fold, folder in folders.items():
        own: Path | None = output if single else folder.folder / FILE_NAME
        if not single and elsewhere and not can_write(folder.folder):
            # a read-only model folder is no obstacle when the result goes elsewhere
            own, common = None, common or open_ledger(output)
        try:
            done[fold] = evaluate_folder(
                folder,
                settings=settings,
                chill=chill,
                output=own,
                num_processes=num_processes,
                progress=progress and (f"fold {fold}" if fold else True),
                ledger=None if own else common,
            )
        except UserError as error:
            failed[f"fold {fold}"] = str(error)
    if not done:
        raise UserError("\n".join(failed.values()))
    result = merge(done)
    if not single:
        result.write(output)
        if common:
            common.clear()
    return result, output, failed
