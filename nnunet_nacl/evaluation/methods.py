"""Reads the models and folders that are to be compared from the command line, and gives each a short label."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, count
from pathlib import Path

from nnunet_nacl.calibration.log_odds_map import LogOddsMap
from nnunet_nacl.calibrator.map_file import MAP_FILE
from nnunet_nacl.errors import UserError
from nnunet_nacl.methods import METHODS, PREFIX, STOCK_METHOD
from nnunet_nacl.nnunet import places
from nnunet_nacl.nnunet.prediction_folder import PredictionFolder

_DEFAULT = " (default)"
DEFAULT_LABEL = f"Dice + CE{_DEFAULT}"
"""Of nnU-Net's own loss."""
CALIBRATED = "+calibrated"
"""What may follow a trainer's name: its predictions are compared as their calibration map leaves them."""
_METHOD = re.compile(rf"{PREFIX}(?:(Dice)?({'|'.join(METHODS)})(?=_|$)|$)")


@dataclass(frozen=True)
class Method:
    """One model or folder of a comparison."""

    name: str  # unique among those compared: the trainer's class name, or the path as it was given
    label: str  # what people read, unique too
    trainer: str | None = None  # the class name; None for predictions, whatever made them
    path: Path | None = None  # of the model or the predictions; None finds the model in nnUNet_results
    calibrated: bool = False  # a model's predictions are compared as its calibration map leaves them
    ranked: bool = True  # it takes part in tests, and can be called best; not if it knows the truth
    folders: Mapping[str, PredictionFolder] = field(default_factory=dict)  # by fold that they validate, or ""
    maps: Mapping[str, LogOddsMap] = field(default_factory=dict)  # by case, of a calibrated one

    @property
    def is_model(self) -> bool:
        """Whether the validation folders of a trained model are compared."""
        return self.trainer is not None

    @property
    def source(self) -> str:
        """What no two may share, but for the map."""
        return os.path.realpath(self.path) if self.path else self.trainer or ""

    @property
    def first(self) -> PredictionFolder:
        """Its folder, or that of the first fold."""
        return next(iter(self.folders.values()))

    @property
    def map_path(self) -> Path:
        """Where a model's own map lies."""
        return self.first.folder.parents[1] / MAP_FILE

    def cases(self) -> dict[str, list[str]]:
        """By fold, names of the cases that can be measured, or were."""
        return {fold: one.names for fold, one in self.folders.items()}


@dataclass(frozen=True)
class Options:
    """How what is compared is found and measured; the first three are of models by name."""

    plans: str = "nnUNetPlans"
    configuration: str = ""
    folds: Sequence[str] | None = None  # None takes those that are present for all
    references: Path | None = None  # this and the next two: of folders given by path; None finds nnU-Net's own
    dataset_json: Path | None = None
    plans_json: Path | None = None
    allow_missing: bool = False  # compare, with a note, on what is common to all, where folds or cases are missing
    allow_training_cases: bool = False  # compare, with a note, cases on which a network was trained
    groups: str | None = None  # which cases are of one patient, as `-groups` says; None: as the models' maps say
    n_bootstrap: int = 10_000
    seed: int = 0
    num_processes: int = 1


def read_methods(arguments: Sequence[tuple[str, str]], unranked: Sequence[str] = ()) -> list[Method]:
    """What a command line names, pairs of flag and value, in their order, each with a label of its own.

    After ``-tr`` stands a trainer's name or the path of a model folder (one that holds ``fold_X``), either with
    ``+calibrated`` behind it; after ``-i`` a folder of predictions; ``LABEL=`` may stand before each. ``unranked`` are
    labels of what is only compared with. UserError for fewer than two, one twice, a path that is not what the flag asks
    for, a label twice, or if none is left to rank.
    """
    methods = [_read(flag, argument) for flag, argument in arguments]
    if len(methods) < 2:
        listed = ", ".join(argument for _, argument in arguments) or "none"
        raise UserError(
            f"a comparison needs at least two trainers or folders, got {listed}; name another with -tr or -i, or use "
            "`nnunet_nacl evaluate` for one."
        )
    for i, method in enumerate(methods):
        if any((method.source, method.calibrated) == (other.source, other.calibrated) for other in methods[:i]):
            raise UserError(f"{arguments[i][0]} names {method.name} twice; name each trainer or folder once.")
        if method.label and any(method.label == other.label for other in methods[:i]):
            raise UserError(f"the label {method.label!r} is given twice; labels must differ.")
    named = {method.source: method.trainer for method in methods if method.trainer}
    titles = dict(zip(named, short_labels(list(named.values()))))
    taken, alone = {method.label for method in methods}, len({method.source for method in methods}) == 1
    for i, method in enumerate(methods):
        label = titles.get(method.source) or Path(method.source).name
        if alone:  # then its map is all that differs
            label = "calibrated" if method.calibrated else "as trained"
        elif method.calibrated:
            label = f"{label.replace(_DEFAULT, '')}, calibrated"
        label = method.label or _different(label, taken)
        methods[i] = replace(method, label=label, ranked=label not in unranked)
    labels = [method.label for method in methods]
    if unknown := [label for label in unranked if label not in labels]:
        raise UserError(f"-unranked {unknown[0]}: not among those compared: {'; '.join(labels)}.")
    if not any(method.ranked for method in methods):
        raise UserError("-unranked names all that is compared; leave one to test.")
    return methods


def _read(flag: str, argument: str) -> Method:
    """Its label is empty where none is given."""
    label, separator, rest = argument.partition("=")
    if not separator or Path(argument).exists():
        label, rest = "", argument
    label, name = " ".join(label.split()), rest.strip()
    if not name or (rest != argument and not label):
        forms = "NAME, LABEL=NAME or LABEL=FOLDER" if flag == "-tr" else "FOLDER or LABEL=FOLDER"
        raise UserError(f"{flag} {argument!r}: expected {forms}.")
    if flag == "-i":
        if not Path(name).is_dir():
            raise UserError(f"-i {name}: no such folder; give a folder of predictions.")
        return Method(name.rstrip(os.sep) or name, label, path=Path(name))
    given, calibrated = name.removesuffix(CALIBRATED), name.endswith(CALIBRATED)
    path, name = Path(given), given.rstrip(os.sep) + CALIBRATED * calibrated
    if not (os.sep in given or (path.is_dir() and places.fold_folders(path))):
        return Method(name, label, given, calibrated=calibrated)
    parts = path.resolve().name.split("__")
    if not path.is_dir() or len(parts) != 3 or not places.fold_folders(path):
        raise UserError(
            f"{path} is no model folder; give one named TRAINER__PLANS__CONFIGURATION that holds fold_0, ..., a "
            "trainer's name, or -i for predictions."
        )
    return Method(name, label, parts[0], path, calibrated)


def short_labels(trainers: Sequence[str]) -> list[str]:
    """Labels for people, by class name: the loss, and the tokens in which the trainers differ.

    ``nnUNetTrainer`` and the tokens that all trainers share are left out; ``DiceX`` is shown as ``Dice + X`` and
    nnU-Net's own loss as ``Dice + CE (default)``; other packages' names as they are; equal labels get a number.
    """
    matches = [_METHOD.match(trainer) for trainer in trainers]
    tokens = [trainer.split("_")[1:] if match else [] for trainer, match in zip(trainers, matches)]
    shared = set.intersection(*map(set, tokens)) if matches and all(matches) else set()
    labels, taken = [], set[str]()
    for trainer, match, words in zip(trainers, matches, tokens):
        if match is None:
            labels.append(trainer.removeprefix(PREFIX).strip("_") or trainer)
            continue
        dice, method = match[1] or trainer == PREFIX, match[2] or STOCK_METHOD
        is_default = dice and method == STOCK_METHOD and "anneal" not in words
        method = DEFAULT_LABEL if is_default else f"{'Dice + ' if dice else ''}{method}"
        labels.append(" ".join([method, *(token for token in words if token not in shared)]))
    return [_different(label, taken) for label in labels]


def _different(label: str, taken: set[str]) -> str:
    """The label, with a number where it is taken; then it is taken, too."""
    numbered = (f"{label} ({number})" for number in count(2))
    label = next(candidate for candidate in chain([label], numbered) if candidate not in taken)
    taken.add(label)
    return label
