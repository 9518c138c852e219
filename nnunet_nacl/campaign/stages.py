"""What the job of each stage does: nnU-Net's commands and this package's, each left out where its result is there.

Each function gets the campaign, the parts of the job's name, and ``run``, which runs a command line and raises if it
fails. Killed anywhere and called again, a stage goes on: trainings by ``--c``, measurements by what they keep.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

from nnunet_nacl.campaign.grid import Grid
from nnunet_nacl.campaign.slimming import drop_optimiser_state, drop_probabilities
from nnunet_nacl.cases.fold_state import fold_state, is_validated
from nnunet_nacl.errors import UserError
from nnunet_nacl.files import to_json_text, write_atomically
from nnunet_nacl.registration.grammar import parse

__all__ = ["PERFORM", "comparison_command"]

Run = Callable[..., None]
_NNUNETS_FOLDS = 5


def _prepare(campaign: dict[str, Any], run: Run, dataset: str) -> None:
    """A raw data set from a challenge's folder or a Decathlon task."""
    entry = Grid(campaign).dataset(dataset)
    if entry["source"] == "challenge":
        run("nnunet_nacl", "prepare", *entry["prepare"], "-np", campaign["processes"])
    elif not (_root("raw") / dataset / "dataset.json").is_file():
        run("nnUNetv2_convert_MSD_dataset", "-i", entry["folder"], "-np", campaign["processes"])


def _preprocess(campaign: dict[str, Any], run: Run, dataset: str, configuration: str) -> None:
    """Plans, unless there are some, and the preprocessed cases of a configuration, unless they are there."""
    number, processes = _number(dataset), campaign["processes"]
    folder = _root("preprocessed") / dataset
    plans = folder / f"{campaign['plans']}.json"
    if not plans.is_file():
        if campaign["plans"] != "nnUNetPlans":
            raise UserError(f"{plans}: no such plans; make them with nnUNetv2_plan_experiment.")
        run("nnUNetv2_extract_fingerprint", "-d", number, "-np", processes, "--verify_dataset_integrity")
        run("nnUNetv2_plan_experiment", "-d", number)
    if campaign.get("after_planning"):
        places = {"{plans_folder}": str(folder), "{here}": campaign["here"]}
        run(*(_replaced(part, places) for part in shlex.split(campaign["after_planning"])))
    _fix_split(campaign, dataset, folder)
    if not _is_preprocessed(folder, plans, configuration, dataset):
        run(
            "nnUNetv2_preprocess", "-d", number, "-plans_name", campaign["plans"], "-c", configuration, "-np", processes
        )


def _replaced(text: str, places: dict[str, str]) -> str:
    for name, place in places.items():
        text = text.replace(name, place)
    return text


def _fix_split(campaign: dict[str, Any], dataset: str, folder: Path) -> None:
    """The folds that lie beside a Decathlon task, or nnU-Net's own, unless there are some.

    nnU-Net's first training makes them, and another that begins meanwhile reads a file that is half written.
    """
    from nnunetv2.utilities.crossval_split import generate_crossval_split
    from nnunetv2.utilities.utils import get_filenames_of_train_images_and_targets

    source = Path(Grid(campaign).dataset(dataset).get("folder", os.devnull)) / "splits_final.json"
    splits = folder / source.name
    if splits.exists():
        return
    if source.is_file():
        write_atomically(splits, source.read_text(encoding="utf-8"))
        return
    cases = sorted(get_filenames_of_train_images_and_targets(str(_root("raw") / dataset)))
    if len(cases) >= _NNUNETS_FOLDS:  # of fewer nnU-Net trains fold `all` only, without a split
        write_atomically(splits, to_json_text(generate_crossval_split(cases, n_splits=_NNUNETS_FOLDS)))


def _is_preprocessed(folder: Path, plans: Path, configuration: str, dataset: str) -> bool:
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
    from nnunetv2.utilities.utils import get_filenames_of_train_images_and_targets

    manager = PlansManager(str(plans))
    if configuration not in manager.available_configurations:
        known = ", ".join(sorted(manager.available_configurations))
        raise UserError(f"{plans} has no configuration {configuration}; there are {known}.")
    data = folder / manager.get_configuration(configuration).data_identifier
    made = {path.stem for path in data.glob("*.pkl")}
    return made >= set(get_filenames_of_train_images_and_targets(str(_root("raw") / dataset)))


def _train(campaign: dict[str, Any], run: Run, dataset: str, configuration: str, trainer: str, fold: str) -> None:
    """A fold, trained, validated and measured; with ``--c`` where a run before has left a checkpoint."""
    probabilities = Grid(campaign).needs_probabilities
    folder = _model(campaign, dataset, configuration, trainer) / fold
    number = fold.removeprefix("fold_")
    command = ["nnUNetv2_train", _number(dataset), configuration, number, "-tr", trainer, "-p", campaign["plans"]]
    command += ["-device", campaign["device"], *(["--npz"] if probabilities else [])]
    state = fold_state(folder)
    if state != "trained":
        run(*command, *(["--c"] if state == "continue" else []))
    elif not is_validated(folder / "validation", probabilities=probabilities):
        run(*command, "--val")
    if campaign["keep"] == "documents":
        drop_optimiser_state(folder)
    if parse(trainer) is None:  # our own trainers measure while they validate
        model = ["-d", _number(dataset), "-c", configuration, "-tr", trainer, "-p", campaign["plans"], "-f", number]
        predict = [] if probabilities else ["--predict", "-device", campaign["device"]]
        run("nnunet_nacl", "evaluate", *model, "-np", campaign["processes"], *predict)


def _calibrate(campaign: dict[str, Any], run: Run, dataset: str, configuration: str, trainer: str) -> None:
    """A map of all the folds of a model."""
    model = ["-d", _number(dataset), "-c", configuration, "-tr", trainer, "-p", campaign["plans"]]
    run("nnunet_nacl", "calibrate", *model, "-f", *_folds(campaign, dataset), "-np", campaign["processes"])


def _evaluate(campaign: dict[str, Any], run: Run, dataset: str, configuration: str, trainer: str) -> None:
    """The documents of what is compared beside the validation: calibrated, decided, or of the test cases."""
    model = _model(campaign, dataset, configuration, trainer)
    if campaign["cases"] == "test":
        _evaluate_test_cases(campaign, run, dataset, configuration, trainer)
    else:
        _evaluate_treated(campaign, dataset, configuration, trainer)
    if campaign["keep"] == "documents":
        drop_probabilities(model)


def _evaluate_treated(campaign: dict[str, Any], dataset: str, configuration: str, trainer: str) -> None:
    from nnunet_nacl.comparison.entries import read_entries
    from nnunet_nacl.comparison.resolution import Options, locate, read_documents

    entries = read_entries([("-tr", name) for name in _entries(campaign, [trainer])])
    folds, processes = _folds(campaign, dataset), campaign["processes"]
    options = Options(campaign["plans"], configuration, folds, num_processes=processes)
    read_documents(locate(dataset, entries, options))


def _evaluate_test_cases(campaign: dict[str, Any], run: Run, dataset: str, configuration: str, trainer: str) -> None:
    from nnunet_nacl.comparison.test_cases import FOLDER, folder_of_test_cases
    from nnunet_nacl.documents.map_file import MAP_FILE

    raw, model = _root("raw") / dataset, _model(campaign, dataset, configuration, trainer)
    if not (raw / "labelsTs").is_dir():
        raise UserError(f"{raw} has no labelsTs: `cases: test` needs labelled test cases; use `cases: validation`.")
    plain, processes = folder_of_test_cases(model, ()), campaign["processes"]
    predict = ["-i", raw / "imagesTs", "-o", plain, "-d", _number(dataset), "-c", configuration, "-tr", trainer]
    predict += ["-p", campaign["plans"], "-f", *_folds(campaign, dataset), "-device", campaign["device"]]
    run("nnUNetv2_predict", *predict, "--save_probabilities", "--continue_prediction", "-npp", 1, "-nps", processes)
    made = {(): plain}
    for treatment in [tuple(name.split("+")) for name in sorted(campaign["treatments"], key=len)]:
        folder = made[treatment] = folder_of_test_cases(model, treatment)
        source = plain
        if "calibrated" in treatment:
            source = folder if treatment == ("calibrated",) else model / f"{FOLDER}_calibrated"
            run("nnunet_nacl", "apply", "-i", plain, "-map", model / MAP_FILE, "-o", source, "-np", processes)
        if "decided" in treatment:
            run("nnunet_nacl", "decide", "-i", source, "-o", folder, "--probabilities", "-np", processes)
    for folder in made.values():
        run("nnunet_nacl", "evaluate", raw / "labelsTs", folder, "-np", processes)


def _compare(campaign: dict[str, Any], run: Run, configuration: str, comparison: str) -> None:
    """Tables and figures of one comparison, over all data sets."""
    grid = Grid(campaign)
    trainers = grid.compared(configuration, comparison)
    run(*comparison_command(campaign, grid.datasets, configuration, trainers, _comparison(configuration, comparison)))


def _page(campaign: dict[str, Any], run: Run, configuration: str, comparison: str) -> None:
    """The page of a comparison; what is missing on it is in the log."""
    run("nnunet_nacl", "report", "-o", _comparison(configuration, comparison), allowed=(0, 1))


PERFORM: dict[str, Callable[..., None]] = {
    "prepare": _prepare,
    "preprocess": _preprocess,
    "train": _train,
    "calibrate": _calibrate,
    "evaluate": _evaluate,
    "compare": _compare,
    "page": _page,
}
"""By stage."""


def comparison_command(
    campaign: dict[str, Any], datasets: list[str], configuration: str, trainers: list[str], output: Path
) -> tuple[str, ...]:
    """The command that compares trainers, as they are and as the campaign treats them."""
    command = ["nnunet_nacl", "compare", "-c", configuration, "-p", campaign["plans"], "-d", *datasets]
    command += ["-np", str(campaign["processes"]), "-tr", *_entries(campaign, trainers), "--paper-figures"]
    return (*command, *(["--test"] if campaign["cases"] == "test" else []), "-o", str(output))


def _entries(campaign: dict[str, Any], trainers: list[str]) -> list[str]:
    """Each trainer as it is, then with what is done to its predictions, as `nnunet_nacl compare -tr` takes them."""
    return [f"{t}{treatment}" for treatment in ("", *(f"+{t}" for t in campaign["treatments"])) for t in trainers]


def _comparison(configuration: str, comparison: str) -> Path:
    return Path("comparison") / configuration / comparison


def _folds(campaign: dict[str, Any], dataset: str) -> list[str]:
    return [str(fold) for fold in Grid(campaign).dataset(dataset)["folds"]]


def _root(name: str) -> Path:
    return Path(os.environ[f"nnUNet_{name}"])


def _number(dataset: str) -> str:
    return str(int(dataset.removeprefix("Dataset").partition("_")[0]))


def _model(campaign: dict[str, Any], dataset: str, configuration: str, trainer: str) -> Path:
    return _root("results") / dataset / f"{trainer}__{campaign['plans']}__{configuration}"
