"""Reads what is to be compared from the command line (models or folders), and gives each entry a short label."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain, count
from pathlib import Path

from nnunet_nacl.errors import UserError
from nnunet_nacl.methods import METHODS, PREFIX
from nnunet_nacl.nnunet.prediction_folder import fold_folders, fold_of
from nnunet_nacl.training.grammar import STOCK

STOCK_LABEL = "Dice + CE (stock)"
CALIBRATED = "+calibrated"
"""What may follow a trainer's name: its predictions are compared as their calibration map leaves them."""
_METHOD = re.compile(rf"{PREFIX}(?:(Dice)?({'|'.join(METHODS)})(?=_|$)|$)")


@dataclass(frozen=True)
class Entry:
    """One method of a comparison."""

    name: str  # unique among those compared: the trainer's class name, or the path as it was given
    label: str  # what people read, unique too
    trainer: str | None = None  # the class name; None for predictions, whatever made them
    path: Path | None = None  # of the model or the predictions; None finds the model in nnUNet_results
    calibrated: bool = False  # a model's predictions are compared as its calibration map leaves them
    ranked: bool = True  # it takes part in tests, and can be called best; not if it knows the truth

    @property
    def is_model(self) -> bool:
        """Whether the validation folders of a trained model are compared."""
        return self.trainer is not None


def read_entries(arguments: Sequence[tuple[str, str]], unranked: Sequence[str] = ()) -> list[Entry]:
    """The entries of a command line, pairs of flag and value, in their order, each with a label of its own.

    After ``-tr`` stands a trainer's name or the path of a model folder (one that holds ``fold_X``), either with
    ``+calibrated`` behind it; after ``-i`` a folder of predictions or its calibration.json; ``LABEL=`` may stand before
    each. ``unranked`` are names or labels of what is only compared with. UserError for fewer than two, one twice, a
    path that is not what the flag asks for, a label twice, or if none is left to rank.
    """
    entries = [_read(flag, argument) for flag, argument in arguments]
    if len(entries) < 2:
        listed = ", ".join(argument for _, argument in arguments) or "none"
        raise UserError(
            f"a comparison needs at least two trainers or folders, got {listed}; name another with -tr or -i, or use "
            "`nnunet_nacl evaluate` for one."
        )
    models = [os.path.realpath(entry.path) if entry.path else entry.name.removesuffix(CALIBRATED) for entry in entries]
    seen, labels = set(), set()
    for (flag, _), entry, model in zip(arguments, entries, models):
        if (model, entry.calibrated) in seen:
            raise UserError(f"{flag} names {entry.name} twice; name each trainer or folder once.")
        if entry.label and entry.label in labels:
            raise UserError(f"the label {entry.label!r} is given twice; labels must differ.")
        seen.add((model, entry.calibrated))
        labels.add(entry.label)
    titles = {model: entry.trainer or _title(Path(model)) for model, entry in zip(models, entries)}
    # a folder that is no trainer's has no settings, so it is not asked which of them all share
    trainers = [model for model, title in titles.items() if title.startswith(PREFIX)]
    titles |= zip(trainers, short_labels([titles[model] for model in trainers]))
    result = []
    for entry, model in zip(entries, models):
        label = titles[model]
        if len(titles) == 1:  # then its map is all that differs
            label = "calibrated" if entry.calibrated else "as trained"
        elif entry.calibrated:
            label = f"{label.replace(' (stock)', '')}, calibrated"
        result.append(replace(entry, label=entry.label or _different(label, labels)))
    return _ranked(result, unranked)


def _ranked(entries: list[Entry], unranked: Sequence[str]) -> list[Entry]:
    """The entries, those that are only to be compared with marked so."""
    names = {entry.label: entry.name for entry in entries} | {entry.name: entry.name for entry in entries}
    if unknown := [text for text in unranked if text not in names]:
        listed = ", ".join(f"{entry.name} ({entry.label})" for entry in entries)
        raise UserError(f"-unranked {unknown[0]}: not among those compared: {listed}.")
    without = {names[text] for text in unranked}
    if len(without) == len(entries):
        raise UserError("-unranked names every entry; leave one to test.")
    return [replace(entry, ranked=entry.name not in without) for entry in entries]


def _read(flag: str, argument: str) -> Entry:
    """The entry; its label is empty where none is given."""
    bare, calibrated = (argument, False) if flag == "-i" else _without_plus(argument)
    label, separator, rest = bare.partition("=")
    if not separator or Path(bare).exists():
        label, rest = "", bare
    if not rest.strip() or (rest != bare and not label.strip()):
        forms = "NAME, LABEL=NAME or LABEL=FOLDER" if flag == "-tr" else "PATH or LABEL=PATH"
        raise UserError(f"{flag} {bare!r}: expected {forms}.")
    label, rest = " ".join(label.split()), rest.strip()
    path, name = Path(rest), (rest.rstrip(os.sep) or rest) + CALIBRATED * calibrated
    if flag == "-i":
        if path.suffix == ".json" and path.is_file():  # calibration.json: the records lie beside it
            path = path.parent
        if not path.is_dir():
            raise UserError(f"-i {rest}: no such folder; give a folder of predictions, or its calibration.json.")
        return Entry(name, label, path=path)
    if not (os.sep in rest or (path.is_dir() and fold_folders(path))):
        return Entry(name, label, rest, calibrated=calibrated)
    if not path.is_dir():
        raise UserError(f"{path}: no such folder; give a trainer's name or its model folder (it holds fold_0, ...).")
    resolved = path.resolve()
    if resolved.name.count("__") != 2 or not fold_folders(path):
        raise UserError(
            f"{path} is no model folder; give one named TRAINER__PLANS__CONFIGURATION that holds fold_0, ..., or -i "
            "for predictions."
        )
    return Entry(name, label, resolved.name.split("__")[0], path, calibrated)


def _without_plus(argument: str) -> tuple[str, bool]:
    """A model without ``+calibrated``, and whether it had that."""
    before, plus, after = argument.rpartition("+")
    whole = any(text and Path(text).exists() for text in (argument, argument.partition("=")[2]))
    if not plus or whole or os.sep in after:  # a folder whose own name has a +
        return argument, False
    if plus + after != CALIBRATED:
        raise UserError(f"-tr {argument}: +{after} is not {CALIBRATED}; correct it.")
    return before, True


def _title(path: Path) -> str:
    """What tells a path from others: the trainer of a model's fold, else the folder's own name."""
    resolved = path.resolve()
    folders = [folder for folder in (resolved, *resolved.parents) if not folder.is_file()]
    names = [folder.name for folder in folders if folder.name != "validation" and fold_of(folder) is None]
    return names[0].split("__")[0] if names and names[0] else str(path)


def short_labels(trainers: Sequence[str]) -> list[str]:
    """Labels for people, by class name: the loss, and the tokens in which the trainers differ.

    ``nnUNetTrainer`` and the tokens that all trainers share are left out; ``DiceX`` is shown as ``Dice + X`` and
    nnU-Net's own loss as ``Dice + CE (stock)``. Other packages' names are shown as they are; equal labels get a number.
    """
    matches = [_METHOD.match(trainer) for trainer in trainers]
    tokens = [trainer.split("_")[1:] if match else [] for trainer, match in zip(trainers, matches)]
    shared = set.intersection(*map(set, tokens)) if matches and all(matches) else set()
    labels, taken = [], set[str]()
    for trainer, match, words in zip(trainers, matches, tokens):
        if match is None:
            labels.append(trainer.removeprefix(PREFIX).strip("_") or trainer)
            continue
        dice, method = match[1] or trainer == PREFIX, match[2] or STOCK.method
        stock = dice and method == STOCK.method and "anneal" not in words
        method = STOCK_LABEL if stock else f"{'Dice + ' if dice else ''}{method}"
        labels.append(" ".join([method, *(token for token in words if token not in shared)]))
    return [_different(label, taken) for label in labels]


def _different(label: str, taken: set[str]) -> str:
    """The label, with a number where it is taken; then it is taken, too."""
    numbered = (f"{label} ({number})" for number in count(2))
    label = next(candidate for candidate in chain([label], numbered) if candidate not in taken)
    taken.add(label)
    return label
