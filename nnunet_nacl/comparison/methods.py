"""Reads the models and folders that are to be compared, and gives each a short label."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from nnunet_nacl.calibration.calibration_map import CalibrationMap
from nnunet_nacl.calibration.calibrator import Calibrator
from nnunet_nacl.calibration.map_file import map_file_of
from nnunet_nacl.estimators.log_odds_map import LogOddsMap
from nnunet_nacl.methods import METHODS, PREFIX, STOCK_METHOD
from nnunet_nacl.nnunet import folders
from nnunet_nacl.nnunet.prediction_folder import PredictionFolder
from nnunet_nacl.settings import FINAL, TUNED
from nnunet_nacl.utilities.errors import UserError

_DEFAULT = " (default)"
DEFAULT_LABEL = f"Dice + CE{_DEFAULT}"
"""Of nnU-Net's own loss."""
CALIBRATED = "+calibrated"
"""What may follow a trainer's name: its predictions are compared as their calibration map leaves
them."""
TUNED_NETWORK = "+tuned"
"""What may follow a trainer's name: its networks are those that `nnunet_nacl tune` wrote."""
# the loss in the name of a trainer of this package, or of nnU-Net's own trainer
_METHOD = re.compile(rf"{PREFIX}(?:(Dice)?({'|'.join(METHODS)})(?=_|$)|$)")


@dataclass(frozen=True)
class ComparedMethod:
    """One model or folder of predictions of a comparison.

    Attributes:
        name: Unique among those compared: the trainer's class name, or the path as it was given.
        label: What people read, unique too; empty before :func:`label_methods` has found one.
        trainer: The class name of a model's trainer; None for predictions, whatever made them.
        path: Of the model or the predictions; None finds the model in ``nnUNet_results``.
        checkpoint: Of a model, whose validation cases are compared.
        calibrated: A model's predictions are compared as its calibration map leaves them.
        ranked: It takes part in tests, and can be called best; not if it knows the truth.
        folders: The predictions, by the fold that they validate, or ``""``.
        calibration_map: Of a calibrated one, what calibrates it.
        maps: Of a calibrated one, by case the map that has not seen it.
        calibrator: Of a folder that `nnunet_nacl review -map` calibrated, that map.
    """

    name: str
    label: str
    trainer: str | None = None
    path: Path | None = None
    checkpoint: str = FINAL
    calibrated: bool = False
    ranked: bool = True
    folders: Mapping[str, PredictionFolder] = field(default_factory=dict)
    calibration_map: CalibrationMap | None = None
    maps: Mapping[str, LogOddsMap] = field(default_factory=dict)
    calibrator: Calibrator = Calibrator()

    @property
    def is_model(self) -> bool:
        """Whether the validation folders of a trained model are compared."""
        return self.trainer is not None

    @property
    def argument(self) -> str:
        """The argument that names it, as a mark of a message."""
        return _argument_of(self.is_model)

    @property
    def source(self) -> str:
        """What no two may share, but for checkpoint and map."""
        if self.path is None:
            return self.trainer or ""
        return os.path.realpath(self.path)

    @property
    def first(self) -> PredictionFolder:
        """Its folder, or that of the first fold."""
        return next(iter(self.folders.values()))

    @property
    def map_path(self) -> Path:
        """Where a model's own map lies."""
        return self.first.folder.parents[1] / map_file_of(self.checkpoint)

    @property
    def state(self) -> str:
        """Whether it is tuned or calibrated, or ``as trained``."""
        states = ["tuned"] if self.checkpoint == TUNED else []
        if self.calibrated:
            states.append("calibrated")
        return ", ".join(states) or "as trained"

    def cases(self) -> dict[str, list[str]]:
        """By fold, names of the cases that can be measured, or were."""
        return {fold: folder.names for fold, folder in self.folders.items()}


def label_methods(
    methods: Sequence[ComparedMethod], unranked: Sequence[str] = ()
) -> list[ComparedMethod]:
    """The methods in their order, each with a label of its own.

    Args:
        methods: As :func:`read_method` gives them.
        unranked: Labels of what is only compared with, and not tested.

    Raises:
        UserError: There are fewer than two, one is named twice, a label is given twice, or none is
            left to rank.
    """
    _check_methods_differ(methods)
    trainers = {method.source: method.trainer for method in methods if method.trainer}
    labels_of_trainers = dict(zip(trainers, short_labels(list(trainers.values()))))
    is_one_source = len({method.source for method in methods}) == 1
    taken = {method.label for method in methods}
    labelled = []
    for method in methods:
        label = method.label
        if not label:
            label = labels_of_trainers.get(method.source) or Path(method.source).name
            if is_one_source:  # then its checkpoint or map is all that differs
                label = method.state
            elif method.state != "as trained":
                label = f"{label.replace(_DEFAULT, '')}, {method.state}"
            label = _different(label, taken)
        labelled.append(replace(method, label=label, ranked=label not in unranked))
    _check_ranking(labelled, unranked)
    return labelled


def _check_methods_differ(methods: Sequence[ComparedMethod]) -> None:
    if len(methods) < 2:
        listed = ", ".join(method.name for method in methods) or "none"
        raise UserError(
            f"a comparison needs at least two trainers or folders, got {listed}; name another with"
            " [[methods:models]] or [[methods:folders]], or use `nnunet_nacl evaluate` for one."
        )
    sources = set[tuple[str, str]]()
    labels = set[str]()
    for method in methods:
        source = (method.source, method.state)
        if source in sources:
            raise UserError(
                f"{method.argument} names {method.name} twice; name each trainer or folder once."
            )
        if method.label and method.label in labels:
            raise UserError(f"the label {method.label!r} is given twice; labels must differ.")
        sources.add(source)
        labels.add(method.label)


def _check_ranking(methods: Sequence[ComparedMethod], unranked: Sequence[str]) -> None:
    labels = [method.label for method in methods]
    for label in unranked:
        if label not in labels:
            raise UserError(f"[[unranked]] {label}: not among those compared: {'; '.join(labels)}.")
    if not any(method.ranked for method in methods):
        raise UserError("[[unranked]] names all that is compared; leave one to test.")


def read_method(text: str, is_model: bool | None = None) -> ComparedMethod:
    """What a text names: a trainer, a model's folder or a folder of predictions.

    ``LABEL=`` may stand before it. A trainer's name or the path of a model folder (one that holds
    ``fold_X``) may have ``+tuned``, ``+calibrated`` or both behind it.

    Args:
        text: As it was given.
        is_model: Whether it is a trainer or model, not a folder of predictions; None: a folder that
            is no model's is one of predictions, all else a trainer or model.

    Raises:
        UserError: The text names nothing, or a path that is not what was asked for.
    """
    label, name = _split_label(text)
    if is_model is None:
        is_model = not _is_folder_of_predictions(Path(name))
    if not name:
        forms = "NAME, LABEL=NAME or LABEL=FOLDER" if is_model else "FOLDER or LABEL=FOLDER"
        raise UserError(f"{_argument_of(is_model)} {text!r}: expected {forms}.")
    if is_model:
        return _read_model(name, label)
    if not Path(name).is_dir():
        raise UserError(
            f"[[methods:folders]] {name}: no such folder; give a folder of predictions."
        )
    return ComparedMethod(name.rstrip(os.sep) or name, label, path=Path(name))


def _argument_of(is_model: bool) -> str:
    return "[[methods:models]]" if is_model else "[[methods:folders]]"


def _is_folder_of_predictions(path: Path) -> bool:
    return path.is_dir() and not folders.fold_folders(path)


def _split_label(text: str) -> tuple[str, str]:
    """The label, empty without one, and what it is of; both empty where ``=`` has no label."""
    label, separator, rest = text.partition("=")
    if not separator or Path(text).exists():
        return "", text.strip()
    label = " ".join(label.split())
    return (label, rest.strip()) if label else ("", "")


def _read_model(name: str, label: str) -> ComparedMethod:
    calibrated = name.endswith(CALIBRATED)
    given = name.removesuffix(CALIBRATED)
    checkpoint = TUNED if given.endswith(TUNED_NETWORK) else FINAL
    given = given.removesuffix(TUNED_NETWORK)
    path = Path(given)
    name = given.rstrip(os.sep) + name[len(given) :]
    is_path = os.sep in given or (path.is_dir() and bool(folders.fold_folders(path)))
    if not is_path:
        return ComparedMethod(
            name, label, trainer=given, checkpoint=checkpoint, calibrated=calibrated
        )
    parts = path.resolve().name.split("__")
    if not path.is_dir() or len(parts) != 3 or not folders.fold_folders(path):
        raise UserError(
            f"{path} is no model folder; give one named TRAINER__PLANS__CONFIGURATION that holds"
            " fold_0, ..., a trainer's name, or [[methods:folders]] for predictions."
        )
    return ComparedMethod(
        name, label, trainer=parts[0], path=path, checkpoint=checkpoint, calibrated=calibrated
    )


def short_labels(trainers: Sequence[str]) -> list[str]:
    """Labels for people, by class name: the loss, and the tokens in which the trainers differ.

    ``nnUNetTrainer`` and the tokens that all trainers share are left out; ``DiceX`` is shown as
    ``Dice + X`` and nnU-Net's own loss as ``Dice + CE (default)``; other packages' names as they
    are; equal labels get a number.
    """
    tokens_of_ours = [set(trainer.split("_")[1:]) for trainer in trainers if _METHOD.match(trainer)]
    shared = set[str]()
    if trainers and len(tokens_of_ours) == len(trainers):
        shared = set.intersection(*tokens_of_ours)
    taken = set[str]()
    return [_different(_short_label(trainer, shared), taken) for trainer in trainers]


def _short_label(trainer: str, shared_tokens: Collection[str]) -> str:
    match = _METHOD.match(trainer)
    if match is None:  # another package's
        return trainer.removeprefix(PREFIX).strip("_") or trainer
    tokens = trainer.split("_")[1:]
    with_dice = bool(match[1]) or trainer == PREFIX
    loss = match[2] or STOCK_METHOD
    if with_dice and loss == STOCK_METHOD and "anneal" not in tokens:
        loss = DEFAULT_LABEL
    elif with_dice:
        loss = f"Dice + {loss}"
    return " ".join([loss, *(token for token in tokens if token not in shared_tokens)])


def _different(label: str, taken: set[str]) -> str:
    """The label, with a number where it is taken; then it is taken, too."""
    different = label
    number = 1
    while different in taken:
        number += 1
        different = f"{label} ({number})"
    taken.add(different)
    return different
