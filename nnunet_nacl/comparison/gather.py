"""Finds and evaluates what is compared, and makes sure that it can be: the same cases, structures and settings."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from nnunet_nacl.comparison.models import common_folds, find_models, other_configurations
from nnunet_nacl.comparison.trainers import Trainer
from nnunet_nacl.errors import UserError
from nnunet_nacl.evaluation.evaluate import evaluate_folder
from nnunet_nacl.evaluation.folds import FILE_NAME
from nnunet_nacl.evaluation.locate import find_fold_folders
from nnunet_nacl.evaluation.prediction_folder import PredictionFolder
from nnunet_nacl.evaluation.results import CaseResult, Evaluation, EvaluationSettings
from nnunet_nacl.files import can_write
from nnunet_nacl.json_files import read_dict

__all__ = ["Dataset", "gather", "some"]

_SHOWN = 8  # so many names of a list are shown


@dataclass(frozen=True)
class Dataset:
    """One data set as all trainers saw it.

    Attributes:
        name: nnU-Net's name.
        configuration: ``2d``, ``3d_fullres``, ...
        plans: Name of the plans.
        folds: The folds that are compared.
        regions: Whether the heads are sigmoid regions.
        structures: Names by nnU-Net's key.
        channels: Their probability channels.
        settings: Of the evaluation.
        cases: Names of the cases that all trainers have, in order.
        case_fold: Fold of each case.
        results: By trainer, one per case, in that order.
        model_folders: By trainer.
        left_out: By trainer, the cases that others have and it lacks.
        notes: What must be said beside every number.
    """

    name: str
    configuration: str
    plans: str
    folds: tuple[str, ...]
    regions: bool
    structures: dict[str, str]
    channels: dict[str, int]
    settings: EvaluationSettings
    cases: tuple[str, ...]
    case_fold: dict[str, str]
    results: dict[str, list[CaseResult]]
    model_folders: dict[str, Path]
    left_out: dict[str, list[str]]
    notes: list[str] = field(default_factory=list)

    @property
    def size(self) -> str:
        """``40 cases``, ``1 case``."""
        return f"{len(self.cases)} case{'s' * (len(self.cases) != 1)}"


def gather(
    dataset: str,
    trainers: Sequence[Trainer],
    *,
    plans: str,
    configuration: str,
    folds: Sequence[str] | None = None,
    allow_missing: bool = False,
    cache: Path,
    num_processes: int = 1,
    progress: bool = False,
) -> Dataset:
    """Evaluate all trainers on a data set.

    What ``calibration.json`` of a fold knows already is not measured again. A fold's folder that cannot be written
    keeps its results under ``cache``.

    Args:
        dataset: Name or number.
        trainers: Two or more.
        plans: Name of the plans.
        configuration: ``2d``, ``3d_fullres``, ...
        folds: Which; None takes those that are present for all trainers.
        allow_missing: Compare on what is common to all, with a note, where folds or cases are missing.
        cache: Folder for results that cannot lie in the model folders.
        num_processes: Cases measured at the same time.
        progress: Show progress bars.

    Raises:
        UserError: A model, fold or case is missing, or the trainers were not evaluated on the same thing.
    """
    name, models = find_models(dataset, trainers, plans, configuration)
    notes = other_configurations(trainers, plans, configuration)
    common = common_folds(name, models, folds, allow_missing, notes)
    folders = {trainer: find_fold_folders(model, common) for trainer, model in models.items()}
    for trainer in trainers:
        _check_dataset(trainer, name, folders[trainer.name])
    settings = _settings(folders)
    evaluations: dict[str, dict[str, Evaluation]] = {}
    for i, (trainer, found) in enumerate(folders.items()):
        resolved = models[trainer].resolve()
        place = cache / name / f"{resolved.name}-{hashlib.sha1(str(resolved).encode()).hexdigest()[:8]}"
        evaluations[trainer] = {
            fold: _evaluate(
                folder,
                settings[trainer, fold],
                place / f"fold_{fold}",
                num_processes,
                f"{trainers[i].label}, fold {fold}" if progress else False,
            )
            for fold, folder in found.items()
        }
    return _align(name, configuration, plans, common, models, evaluations, allow_missing, notes)


def _check_dataset(trainer: Trainer, name: str, folders: Mapping[str, PredictionFolder]) -> None:
    own = next(iter(folders.values())).plans.get("dataset_name")
    if trainer.folder is not None and own != name:
        raise UserError(f"{trainer.folder} was trained on {own}, not on {name}; compare models of the same data set.")


def _settings(folders: Mapping[str, Mapping[str, PredictionFolder]]) -> dict[tuple[str, str], EvaluationSettings]:
    """Settings of each trainer's folds: those of an earlier evaluation, so that a user's choice of masks is kept.

    Raises:
        UserError: Earlier evaluations measured different things.
    """
    earlier = {}
    for trainer, found in folders.items():
        for fold, folder in found.items():
            settings = _settings_in(folder.folder / FILE_NAME)
            if settings is not None:
                earlier[trainer, fold] = settings
    default = replace(next(iter(earlier.values()), EvaluationSettings()), paper=False)
    for (trainer, fold), settings in earlier.items():
        own, other = replace(settings, paper=False).to_json(), default.to_json()
        if own != other:
            differing = ", ".join(f"{key} {own[key]}, not {other[key]}" for key in own if own[key] != other[key])
            raise UserError(
                f"fold {fold} of {trainer} was evaluated with other settings ({differing}); run `nnunet_nacl "
                "evaluate` with the same options for all, or delete its calibration.json."
            )
    return {(trainer, fold): earlier.get((trainer, fold), default) for trainer, f in folders.items() for fold in f}


def _settings_in(path: Path) -> EvaluationSettings | None:
    if not path.is_file():
        return None
    try:
        return EvaluationSettings(**read_dict(path)["settings"])
    except (UserError, KeyError, TypeError, ValueError):
        return None  # damaged or of another version: the evaluation replaces it


def _evaluate(
    folder: PredictionFolder, settings: EvaluationSettings, place: Path, num_processes: int, progress: bool | str
) -> Evaluation:
    output = known = folder.folder / FILE_NAME
    if not can_write(folder.folder):
        output = place / FILE_NAME
        if known.is_file() and not output.is_file():
            output.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(known, output)
    return evaluate_folder(
        folder, settings=settings, chill=False, output=output, num_processes=num_processes, progress=progress
    )


def _align(
    name: str,
    configuration: str,
    plans: str,
    folds: Sequence[str],
    models: dict[str, Path],
    evaluations: dict[str, dict[str, Evaluation]],
    allow_missing: bool,
    notes: list[str],
) -> Dataset:
    """Put the trainers' cases side by side."""
    first = next(iter(next(iter(evaluations.values())).values()))
    for trainer, by_fold in evaluations.items():
        for fold, evaluation in by_fold.items():
            _check_same(trainer, fold, evaluation, first)
    cases = {trainer: _by_case(trainer, by_fold) for trainer, by_fold in evaluations.items()}
    problems = {
        trainer: {case: text for evaluation in by_fold.values() for case, text in evaluation.problems.items()}
        for trainer, by_fold in evaluations.items()
    }
    known = set().union(*cases.values(), *problems.values())
    left_out = {trainer: sorted(known - set(found)) for trainer, found in cases.items()}
    left_out = {trainer: missing for trainer, missing in left_out.items() if missing}
    common = sorted(known.difference(*left_out.values()))
    if left_out:
        listed = [
            f"{trainer} lacks {len(missing)} of {len(known)} cases: {some(missing)}"
            for trainer, missing in left_out.items()
        ]
        if not (allow_missing and common):
            why = [
                f"  {case}: {text.replace(', or pass --chill', '')}"
                for trainer in left_out
                for case, text in problems[trainer].items()
            ]
            why = why[:_SHOWN] + ([f"  ... and {len(why) - _SHOWN} more"] if len(why) > _SHOWN else [])
            mend = (
                "Predict them, or pass --allow-missing to compare on the cases that all have."
                if common
                else "No case is left to compare."
            )
            raise UserError(f"{name}: {'; '.join(listed)}. {mend}" + "".join(f"\n{line}" for line in why))
        notes.append(
            f"{name}: compared on the {len(common)} of {len(known)} cases that all trainers have. {'; '.join(listed)}."
        )
    reference, *others = cases
    for trainer in others:
        for case in common:
            _check_fold(case, reference, trainer, cases)
    return Dataset(
        name=name,
        configuration=configuration,
        plans=plans,
        folds=tuple(folds),
        regions=first.regions,
        structures=dict(first.names),
        channels=dict(first.channels),
        settings=first.settings,
        cases=tuple(common),
        case_fold={case: cases[reference][case][0] for case in common},
        results={trainer: [found[case][1] for case in common] for trainer, found in cases.items()},
        model_folders=models,
        left_out=left_out,
        notes=notes,
    )


def _check_same(trainer: str, fold: str, evaluation: Evaluation, first: Evaluation) -> None:
    where = f"{trainer}, fold {fold}"
    if (evaluation.names, evaluation.channels, evaluation.regions) != (first.names, first.channels, first.regions):
        raise UserError(
            f"{where} has the structures {_listed(evaluation)}, the first trainer {_listed(first)}; compare models of "
            "the same labels."
        )


def _listed(evaluation: Evaluation) -> str:
    return ", ".join(f"{key} {name}" for key, name in evaluation.names.items())


def _by_case(trainer: str, by_fold: Mapping[str, Evaluation]) -> dict[str, tuple[str, CaseResult]]:
    result: dict[str, tuple[str, CaseResult]] = {}
    for fold, evaluation in by_fold.items():
        for case in evaluation.cases:
            if case.case in result:
                raise UserError(
                    f"{trainer}: case {case.case} lies in fold {result[case.case][0]} and in fold {fold}; remove what "
                    "is left over from another split, or choose one fold with -f."
                )
            result[case.case] = (fold, case)
    return result


def _check_fold(
    case: str, reference: str, trainer: str, cases: Mapping[str, Mapping[str, tuple[str, CaseResult]]]
) -> None:
    first, second = cases[reference][case][0], cases[trainer][case][0]
    if first != second:
        raise UserError(
            f"case {case} lies in fold {first} of {reference}, but in fold {second} of {trainer}: they were trained on "
            "other splits and cannot be compared."
        )


def some(names: Sequence[str]) -> str:
    """The first few names, and how many more there are."""
    shown = ", ".join(names[:_SHOWN])
    return shown + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
