"""What the job of each stage does: nnU-Net's commands and this package's, each left out where its result is there.

Each function gets the campaign and the parts of the job's name, and yields commands: the next is asked for when the one
before has ended well. Killed anywhere and called again, a stage goes on: trainings by ``--c``, measurements by what
they keep.
"""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from nnunet_nacl.campaign.grid import CampaignModel, Grid, dataset_number, done_file, nnunet_folder
from nnunet_nacl.campaign.shell_commands import Command, run_side_by_side
from nnunet_nacl.cases.checkpoint_files import read_checkpoint, write_checkpoint
from nnunet_nacl.cases.fold_names import fold_folders
from nnunet_nacl.cases.fold_state import fold_state, is_validated
from nnunet_nacl.comparison.entries import variant_of
from nnunet_nacl.errors import UserError
from nnunet_nacl.files import replacing, to_json_text, write_atomically

_NNUNETS_FOLDS = 5


def command(*arguments: object) -> Command:
    """A command line of these arguments."""
    return Command(tuple(map(str, arguments)))


def job_commands(campaign: dict[str, Any], job: str) -> Iterator[Command]:
    """The commands of a job; what it does in this process is done between them.

    Raises:
        UserError: Something is not there, or not as it should be.
    """
    stage, *parts = job.split("/")
    if stage in ("train", "calibrate", "evaluate"):
        return _STAGES[stage](CampaignModel(campaign, *parts[:3]), *parts[3:])
    return _STAGES[stage](campaign, *parts)


def _prepare(campaign: dict[str, Any], dataset: str) -> Iterator[Command]:
    """A raw data set from a Decathlon task."""
    entry = Grid(campaign).dataset(dataset)
    target, source = nnunet_folder(campaign, "raw", dataset), Path(entry["folder"])
    raw, origin = target.parent, target.with_name(f".{dataset}.source")
    made_from = raw / origin.read_text(encoding="utf-8") if origin.is_file() else None
    elsewhere = "take another nnUNet_raw (`nnunet_nacl demo`: another -o)"
    if made_from is not None and made_from.resolve() != source.resolve():
        raise UserError(f"{target} was made from {made_from}, not from {source}; {elsewhere}.")
    if (target / "dataset.json").is_file():  # nnU-Net writes it last
        return
    if target.exists():
        if made_from is None:
            raise UserError(f"{target} has no dataset.json and was not made here; {elsewhere}.")
        shutil.rmtree(target)  # a conversion that was broken off, which nnU-Net would not begin again
    together = source.is_relative_to(raw.parent)  # they may be moved
    write_atomically(origin, os.path.relpath(source, raw) if together else str(source))
    yield command("nnUNetv2_convert_MSD_dataset", "-i", source, "-np", campaign["processes"])


def _preprocess(campaign: dict[str, Any], dataset: str, configuration: str) -> Iterator[Command]:
    """Plans and folds, unless there are some, and the preprocessed cases of a configuration."""
    from nnunetv2.utilities.crossval_split import generate_crossval_split
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
    from nnunetv2.utilities.utils import get_filenames_of_train_images_and_targets

    number, processes, name = dataset_number(dataset), campaign["processes"], campaign["plans"]
    folder = nnunet_folder(campaign, "preprocessed", dataset)
    plans = folder / f"{name}.json"
    if not plans.is_file():
        if name != "nnUNetPlans":
            raise UserError(f"{plans}: no such plans; make them with nnUNetv2_plan_experiment.")
        yield command("nnUNetv2_extract_fingerprint", "-d", number, "-np", processes, "--verify_dataset_integrity")
        yield command("nnUNetv2_plan_experiment", "-d", number)
    if after_planning := campaign.get("after_planning"):
        words = (w.replace("{plans_folder}", str(folder)) for w in shlex.split(after_planning))
        yield command(*(word.replace("{here}", campaign["here"]) for word in words))
    cases = sorted(get_filenames_of_train_images_and_targets(str(nnunet_folder(campaign, "raw", dataset))))
    # nnU-Net's first training makes the folds, and another that begins meanwhile reads a file that is half written
    splits = folder / "splits_final.json"
    given = Path(Grid(campaign).dataset(dataset).get("folder", os.devnull)) / splits.name  # beside a Decathlon task
    if not splits.exists() and given.is_file():
        write_atomically(splits, given.read_text(encoding="utf-8"))
    elif (
        not splits.exists() and len(cases) >= _NNUNETS_FOLDS
    ):  # of fewer nnU-Net trains fold `all` only, without a split
        write_atomically(splits, to_json_text(generate_crossval_split(cases, n_splits=_NNUNETS_FOLDS)))
    manager = PlansManager(str(plans))
    planned = sorted(manager.available_configurations)
    if configuration not in planned:
        raise UserError(f"{plans} has no configuration {configuration}; there are {', '.join(planned)}.")
    data = folder / manager.get_configuration(configuration).data_identifier
    if not {path.stem for path in data.glob("*.pkl")} >= set(cases):
        yield command("nnUNetv2_preprocess", "-d", number, "-plans_name", name, "-c", configuration, "-np", processes)


def _train(model: CampaignModel, fold: str) -> Iterator[Command]:
    """A fold, trained, validated and measured; with ``--c`` where a run before has left a checkpoint."""
    campaign, trainer, folder = model.campaign, model.trainer, model.folder / fold
    probabilities = bool(campaign["treatments"])  # to calibrate, and to decide
    number, device = fold.removeprefix("fold_"), ["-device", campaign["device"]]
    train = ["nnUNetv2_train", dataset_number(model.dataset), model.configuration, number, "-tr", trainer]
    train += ["-p", campaign["plans"], *(["--npz"] if probabilities else []), *device]
    state = fold_state(folder)
    if state != "trained":
        yield command(*train, *(["--c"] if state == "continue" else []))
    elif not is_validated(folder / "validation", probabilities=probabilities):
        yield command(*train, "--val")
    if campaign["keep"] == "documents":
        drop_optimiser_state(folder)
    if variant_of(trainer) is None:  # our own trainers measure while they validate
        predict = [] if probabilities else ["--predict", *device]
        yield command("nnunet_nacl", "evaluate", *model.arguments(number), "-np", campaign["processes"], *predict)


def _calibrate(model: CampaignModel) -> Iterator[Command]:
    """A map of all the folds of a model."""
    if not model.is_calibrated:
        yield command("nnunet_nacl", "calibrate", *model.arguments(), "-np", model.campaign["processes"])


def _evaluate(model: CampaignModel) -> Iterator[Command]:
    """The documents of what is compared beside the validation: calibrated, decided, or of the test cases."""
    if model.campaign["cases"] == "test":
        yield from _evaluate_test_cases(model)
    else:
        _evaluate_treated(model)
    if model.campaign["keep"] == "documents":  # they hold what was measured of the probabilities
        kept = [folder for fold in fold_folders(model.folder).values() for folder in fold.glob("validation*")]
        for folder in (*kept, *model.folder.glob("test*")):
            for path in folder.glob("*.npz"):
                path.unlink()


def _evaluate_treated(model: CampaignModel) -> None:
    from nnunet_nacl.comparison.entries import read_entries
    from nnunet_nacl.comparison.resolution import Options, locate, read_documents

    campaign = model.campaign
    entries = read_entries([("-tr", name) for name in treated_entries(campaign, [model.trainer])])
    folds, processes = list(model.folds), campaign["processes"]
    options = Options(campaign["plans"], model.configuration, folds, num_processes=processes)
    read_documents(locate(model.dataset, entries, options))


def _evaluate_test_cases(model: CampaignModel) -> Iterator[Command]:
    from nnunet_nacl.comparison.trained_models import folder_of_test_cases
    from nnunet_nacl.documents.map_file import MAP_FILE

    campaign, processes = model.campaign, model.campaign["processes"]
    raw, plain = nnunet_folder(campaign, "raw", model.dataset), folder_of_test_cases(model.folder, ())
    if not (raw / "labelsTs").is_dir():
        raise UserError(f"{raw} has no labelsTs: `cases: test` needs labelled test cases; use `cases: validation`.")
    predict = ["-i", raw / "imagesTs", "-o", plain, *model.arguments(), "-device", campaign["device"]]
    predict += ["--save_probabilities", "--continue_prediction", "-npp", 1, "-nps", processes]
    yield command("nnUNetv2_predict", *predict)
    folders = [plain]
    for treatment in [tuple(name.split("+")) for name in sorted(campaign["treatments"], key=len)]:
        folders.append(folder_of_test_cases(model.folder, treatment))
        how = ["-map", model.folder / MAP_FILE] if "calibrated" in treatment else []
        how += ["-decide", "dice"] if "decided" in treatment else []
        review = ["review", "-i", plain, "-o", folders[-1], *how, "--save_probabilities", "-np", processes]
        yield command("nnunet_nacl", *review)
    for folder in folders:
        yield command("nnunet_nacl", "evaluate", raw / "labelsTs", folder, "-np", processes)


def _compare(campaign: dict[str, Any], configuration: str, comparison: str) -> Iterator[Command]:
    """Tables, figures and page of one comparison, over all data sets; what is missing on the page is in the log."""
    grid, output = Grid(campaign), Path("comparison") / configuration / comparison
    trainers = treated_entries(campaign, grid.compared(configuration, comparison))
    yield comparison_command(campaign, grid.datasets, configuration, trainers, output)


_STAGES: dict[str, Callable[..., Iterator[Command]]] = {"prepare": _prepare, "preprocess": _preprocess}
_STAGES |= {"train": _train, "calibrate": _calibrate, "evaluate": _evaluate, "compare": _compare}


def comparison_command(
    campaign: dict[str, Any], datasets: list[str], configuration: str, entries: list[str], output: Path, *more: str
) -> Command:
    """The command that compares entries, trainers as they are or treated, with further arguments."""
    numbers = ["-c", configuration, "-p", campaign["plans"], "-d", *datasets, "-np", campaign["processes"]]
    test = ["--test"] if campaign["cases"] == "test" else []
    return command("nnunet_nacl", "compare", *numbers, "-tr", *entries, *more, *test, "-o", output)


def treated_entries(campaign: dict[str, Any], trainers: list[str]) -> list[str]:
    """Each trainer as it is, then with what is done to its predictions, as `nnunet_nacl compare -tr` takes them."""
    return [f"{t}{treatment}" for treatment in ("", *(f"+{t}" for t in campaign["treatments"])) for t in trainers]


def drop_optimiser_state(fold_folder: Path) -> None:
    """The moments of the optimiser out of the final checkpoint, and the checkpoint of the best epoch.

    nnU-Net still loads the checkpoint, to predict and to validate. Its time stays, by which `nnunet_nacl calibrate`
    tells that the predictions are its own.

    Raises:
        UserError: It cannot be written, for want of space perhaps; the checkpoint stays as it was.
    """
    path = fold_folder / "checkpoint_final.pth"
    checkpoint = read_checkpoint(path)
    if (checkpoint.get("optimizer_state") or {}).get("state"):
        before = path.stat()
        checkpoint["optimizer_state"]["state"] = {}
        with replacing(path, fix="free some space") as temporary:
            write_checkpoint(checkpoint, temporary)
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    (fold_folder / "checkpoint_best.pth").unlink(missing_ok=True)


def compare_so_far(campaign: dict[str, Any], folder: Path) -> int:
    """A comparison with its page of each data set, configuration and seed, of the trainers that are finished there.

    They lie in ``so_far/`` of the campaign's folder, beside what the finished campaign compares.

    Returns:
        1 if there are not two trainers to compare anywhere, else 0.
    """
    grid = Grid(campaign)
    made = []
    for name, configuration, trainers in grid.comparisons():
        for dataset in grid.datasets:
            finished = [
                trainer
                for trainer in trainers
                if all((folder / done_file(job)).is_file() for job in grid.measured(dataset, configuration, trainer))
            ]
            print(f"{name}, {dataset}, {configuration}: {len(finished)} of {len(trainers)} trainers are finished")
            if len(finished) < 2:
                continue
            output = folder / "so_far" / configuration / f"{name}_{dataset}"
            log = folder / "logs" / "so_far" / configuration / f"{name}_{dataset}.log"
            entries = treated_entries(campaign, finished)
            compare = comparison_command(campaign, [dataset], configuration, entries, output)
            run_side_by_side([[replace(compare, log_file=log)]], {})
            made.append(output)
            print(f"  page: {output / 'report.html'}")
    return 0 if made else 1
