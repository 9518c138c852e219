"""What the job of each stage does: nnU-Net's commands and this package's, each left out where its result is there.

Each function gets the campaign and the parts of the job's name, and yields commands: the next is asked for when the one
before has ended well. Killed anywhere and called again, a stage goes on: trainings by ``--c``, measurements by what
they keep.
"""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from nnunet_nacl.campaign.grid import Grid
from nnunet_nacl.campaign.shell_commands import Command
from nnunet_nacl.campaign.slimming import drop_optimiser_state, drop_probabilities
from nnunet_nacl.cases.fold_state import fold_state, is_validated
from nnunet_nacl.errors import UserError
from nnunet_nacl.files import to_json_text, write_atomically
from nnunet_nacl.json_files import read_dict
from nnunet_nacl.registration.grammar import parse

__all__ = [
    "command",
    "comparison_command",
    "is_calibrated",
    "job_commands",
    "model_arguments",
    "model_folder",
    "page_command",
    "review_commands",
    "treated_entries",
]

_NNUNETS_FOLDS = 5


def command(*arguments: object, allowed: Sequence[int] = (0,)) -> Command:
    """A command line of these arguments."""
    return Command(tuple(map(str, arguments)), allowed=allowed)


def job_commands(campaign: dict[str, Any], job: str) -> Iterator[Command]:
    """The commands of a job; what it does in this process is done between them.

    Raises:
        UserError: Something is not there, or not as it should be.
    """
    stage, *parts = job.split("/")
    return _STAGES[stage](campaign, *parts)


def _prepare(campaign: dict[str, Any], dataset: str) -> Iterator[Command]:
    """A raw data set from a challenge's folder or a Decathlon task."""
    entry = Grid(campaign).dataset(dataset)
    if entry["source"] == "challenge":
        yield command("nnunet_nacl", "prepare", *entry["prepare"], "-np", campaign["processes"])
        return
    raw, folder = _root(campaign, "raw"), Path(entry["folder"])
    target, origin = raw / dataset, raw / f".{dataset}.source"
    known = raw / origin.read_text(encoding="utf-8") if origin.is_file() else None
    if known is not None and known.resolve() != folder.resolve():
        raise UserError(
            f"{target} was made from {known}, not from {folder}; take another nnUNet_raw (demo: another -o)."
        )
    if (target / "dataset.json").is_file():  # nnU-Net writes it last
        return
    if target.exists():
        if known is None:
            raise UserError(f"{target} has no dataset.json and was not made here; take another nnUNet_raw (demo: -o).")
        shutil.rmtree(target)  # a conversion that was broken off, which nnU-Net would not begin again
    # relative if they lie together: they can be moved
    near = folder.is_relative_to(raw.parent)
    write_atomically(origin, os.path.relpath(folder, raw) if near else str(folder))
    yield command("nnUNetv2_convert_MSD_dataset", "-i", folder, "-np", campaign["processes"])


def _preprocess(campaign: dict[str, Any], dataset: str, configuration: str) -> Iterator[Command]:
    """Plans, unless there are some, and the preprocessed cases of a configuration, unless they are there."""
    number, processes, name = _number(dataset), campaign["processes"], campaign["plans"]
    folder = _root(campaign, "preprocessed") / dataset
    plans = folder / f"{name}.json"
    if not plans.is_file():
        if name != "nnUNetPlans":
            raise UserError(f"{plans}: no such plans; make them with nnUNetv2_plan_experiment.")
        yield command("nnUNetv2_extract_fingerprint", "-d", number, "-np", processes, "--verify_dataset_integrity")
        yield command("nnUNetv2_plan_experiment", "-d", number)
    if campaign.get("after_planning"):
        places = {"{plans_folder}": str(folder), "{here}": campaign["here"]}
        yield command(*(_replaced(part, places) for part in shlex.split(campaign["after_planning"])))
    _fix_split(campaign, dataset, folder)
    if not _is_preprocessed(campaign, plans, configuration, dataset):
        yield command("nnUNetv2_preprocess", "-d", number, "-plans_name", name, "-c", configuration, "-np", processes)


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
    cases = sorted(get_filenames_of_train_images_and_targets(str(_root(campaign, "raw") / dataset)))
    if len(cases) >= _NNUNETS_FOLDS:  # of fewer nnU-Net trains fold `all` only, without a split
        write_atomically(splits, to_json_text(generate_crossval_split(cases, n_splits=_NNUNETS_FOLDS)))


def _is_preprocessed(campaign: dict[str, Any], plans: Path, configuration: str, dataset: str) -> bool:
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
    from nnunetv2.utilities.utils import get_filenames_of_train_images_and_targets

    manager = PlansManager(str(plans))
    if configuration not in manager.available_configurations:
        known = ", ".join(sorted(manager.available_configurations))
        raise UserError(f"{plans} has no configuration {configuration}; there are {known}.")
    data = plans.parent / manager.get_configuration(configuration).data_identifier
    made = {path.stem for path in data.glob("*.pkl")}
    return made >= set(get_filenames_of_train_images_and_targets(str(_root(campaign, "raw") / dataset)))


def _train(campaign: dict[str, Any], dataset: str, configuration: str, trainer: str, fold: str) -> Iterator[Command]:
    """A fold, trained, validated and measured; with ``--c`` where a run before has left a checkpoint."""
    probabilities = Grid(campaign).needs_probabilities
    folder = model_folder(campaign, dataset, configuration, trainer) / fold
    number = fold.removeprefix("fold_")
    train = ["nnUNetv2_train", _number(dataset), configuration, number, "-tr", trainer, "-p", campaign["plans"]]
    train += [*(["--npz"] if probabilities else []), "-device", campaign["device"]]
    state = fold_state(folder)
    if state != "trained":
        yield command(*train, *(["--c"] if state == "continue" else []))
    elif not is_validated(folder / "validation", probabilities=probabilities):
        yield command(*train, "--val")
    if campaign["keep"] == "documents":
        drop_optimiser_state(folder)
    if parse(trainer) is None:  # our own trainers measure while they validate
        model = model_arguments(campaign, dataset, configuration, trainer, [number])
        predict = [] if probabilities else ["--predict", "-device", campaign["device"]]
        yield command("nnunet_nacl", "evaluate", *model, "-np", campaign["processes"], *predict)


def _calibrate(campaign: dict[str, Any], dataset: str, configuration: str, trainer: str) -> Iterator[Command]:
    """A map of all the folds of a model."""
    if not is_calibrated(campaign, dataset, configuration, trainer):
        model = model_arguments(campaign, dataset, configuration, trainer)
        yield command("nnunet_nacl", "calibrate", *model, "-np", campaign["processes"])


def is_calibrated(campaign: dict[str, Any], dataset: str, configuration: str, trainer: str) -> bool:
    """Whether `nnunet_nacl calibrate`, which writes the map last, was run on all the folds once they were validated."""
    from nnunet_nacl.cases.checkpoints import CALIBRATED
    from nnunet_nacl.documents.map_file import MAP_FILE

    model = model_folder(campaign, dataset, configuration, trainer)
    folds = {fold: model / f"fold_{fold}" for fold in _folds(campaign, dataset)}
    try:
        validated = max((fold / "validation" / "summary.json").stat().st_mtime_ns for fold in folds.values())
        is_newer = (model / MAP_FILE).stat().st_mtime_ns > validated
        is_whole = all((fold / CALIBRATED).is_file() for fold in folds.values())
        return is_newer and is_whole and read_dict(model / MAP_FILE).get("folds") == sorted(folds)
    except (UserError, OSError):
        return False


def _evaluate(campaign: dict[str, Any], dataset: str, configuration: str, trainer: str) -> Iterator[Command]:
    """The documents of what is compared beside the validation: calibrated, decided, or of the test cases."""
    if campaign["cases"] == "test":
        yield from _evaluate_test_cases(campaign, dataset, configuration, trainer)
    else:
        _evaluate_treated(campaign, dataset, configuration, trainer)
    if campaign["keep"] == "documents":
        drop_probabilities(model_folder(campaign, dataset, configuration, trainer))


def _evaluate_treated(campaign: dict[str, Any], dataset: str, configuration: str, trainer: str) -> None:
    from nnunet_nacl.comparison.entries import read_entries
    from nnunet_nacl.comparison.resolution import Options, locate, read_documents

    entries = read_entries([("-tr", name) for name in treated_entries(campaign, [trainer])])
    folds, processes = _folds(campaign, dataset), campaign["processes"]
    options = Options(campaign["plans"], configuration, folds, num_processes=processes)
    read_documents(locate(dataset, entries, options))


def _evaluate_test_cases(campaign: dict[str, Any], dataset: str, configuration: str, trainer: str) -> Iterator[Command]:
    from nnunet_nacl.comparison.test_cases import folder_of_test_cases
    from nnunet_nacl.documents.map_file import MAP_FILE

    raw, model = _root(campaign, "raw") / dataset, model_folder(campaign, dataset, configuration, trainer)
    if not (raw / "labelsTs").is_dir():
        raise UserError(f"{raw} has no labelsTs: `cases: test` needs labelled test cases; use `cases: validation`.")
    plain, processes = folder_of_test_cases(model, ()), campaign["processes"]
    predict = ["-i", raw / "imagesTs", "-o", plain, *model_arguments(campaign, dataset, configuration, trainer)]
    predict += ["-device", campaign["device"], "--save_probabilities", "--continue_prediction"]
    yield command("nnUNetv2_predict", *predict, "-npp", 1, "-nps", processes)
    folders = [plain]
    for treatment in [tuple(name.split("+")) for name in sorted(campaign["treatments"], key=len)]:
        folders.append(folder_of_test_cases(model, treatment))
        calibration_map = model / MAP_FILE if "calibrated" in treatment else None
        decides, more = "decided" in treatment, ["-np", str(processes)]
        yield from review_commands(plain, folders[-1], calibration_map, decides, *more, probabilities=True)
    for folder in folders:
        yield command("nnunet_nacl", "evaluate", raw / "labelsTs", folder, "-np", processes)


def review_commands(
    predictions: Path,
    output: Path,
    calibration_map: Path | None,
    decides: bool,
    *more: str,
    probabilities: bool = False,
) -> Iterator[Command]:
    """Predictions that are calibrated, decided for Dice, or both, in another folder.

    Args:
        predictions: With probabilities.
        output: The other folder.
        calibration_map: None leaves the probabilities as they are.
        decides: Whether segmentations are decided for Dice.
        more: Further arguments.
        probabilities: Whether those of the output are saved.
    """
    if calibration_map is not None:
        calibrated = output.with_name(f"{predictions.name}_calibrated") if decides else output
        yield command("nnunet_nacl", "apply", "-i", predictions, "-map", calibration_map, "-o", calibrated, *more)
        predictions = calibrated
    if decides:
        save = ["--probabilities"] if probabilities else []
        yield command("nnunet_nacl", "decide", "-i", predictions, "-o", output, *save, *more)


def _compare(campaign: dict[str, Any], configuration: str, comparison: str) -> Iterator[Command]:
    """Tables and figures of one comparison, over all data sets."""
    grid, output = Grid(campaign), Path("comparison") / configuration / comparison
    trainers = treated_entries(campaign, grid.compared(configuration, comparison))
    yield comparison_command(campaign, grid.datasets, configuration, trainers, output, "--paper-figures")


def _page(campaign: dict[str, Any], configuration: str, comparison: str) -> Iterator[Command]:
    """The page of a comparison; what is missing on it is in the log."""
    yield page_command(Path("comparison") / configuration / comparison)


_STAGES: dict[str, Callable[..., Iterator[Command]]] = {
    "prepare": _prepare,
    "preprocess": _preprocess,
    "train": _train,
    "calibrate": _calibrate,
    "evaluate": _evaluate,
    "compare": _compare,
    "page": _page,
}


def comparison_command(
    campaign: dict[str, Any], datasets: list[str], configuration: str, entries: list[str], output: Path, *more: str
) -> Command:
    """The command that compares entries, trainers as they are or treated, with further arguments."""
    numbers = ["-c", configuration, "-p", campaign["plans"], "-d", *datasets, "-np", campaign["processes"]]
    test = ["--test"] if campaign["cases"] == "test" else []
    return command("nnunet_nacl", "compare", *numbers, "-tr", *entries, *more, *test, "-o", output)


def page_command(comparison: Path) -> Command:
    """The command that writes the page of a comparison, whose exit status 1 says that something is missing on it."""
    return command("nnunet_nacl", "report", "-o", comparison, allowed=(0, 1))


def treated_entries(campaign: dict[str, Any], trainers: list[str]) -> list[str]:
    """Each trainer as it is, then with what is done to its predictions, as `nnunet_nacl compare -tr` takes them."""
    return [f"{t}{treatment}" for treatment in ("", *(f"+{t}" for t in campaign["treatments"])) for t in trainers]


def model_arguments(
    campaign: dict[str, Any], dataset: str, configuration: str, trainer: str, folds: list[str] | None = None
) -> list[str]:
    """A model on a command line, with all its folds unless some are given."""
    folds = _folds(campaign, dataset) if folds is None else folds
    return ["-d", _number(dataset), "-c", configuration, "-f", *folds, "-tr", trainer, "-p", campaign["plans"]]


def _folds(campaign: dict[str, Any], dataset: str) -> list[str]:
    return [str(fold) for fold in Grid(campaign).dataset(dataset)["folds"]]


def _root(campaign: dict[str, Any], name: str) -> Path:
    return Path(campaign["environment"][f"nnUNet_{name}"])


def _number(dataset: str) -> str:
    return str(int(dataset.removeprefix("Dataset").partition("_")[0]))


def model_folder(campaign: dict[str, Any], dataset: str, configuration: str, trainer: str) -> Path:
    """Where nnU-Net keeps a model."""
    return _root(campaign, "results") / dataset / f"{trainer}__{campaign['plans']}__{configuration}"
