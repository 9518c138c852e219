"""What is compared: trainers by name or model folders by path, and the short labels that people read."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nnunet_nacl.errors import UserError
from nnunet_nacl.registration.grammar import PREFIX, TOKENS, Variant, parse

__all__ = ["STOCK_LABEL", "Trainer", "read_trainers", "short_labels", "variant_of"]

STOCK_LABEL = "CE+Dice (stock)"
_STOCK = Variant("CE", dice=True)


@dataclass(frozen=True)
class Trainer:
    """One method of a comparison.

    Attributes:
        name: Unique among those compared: the trainer's class name, or the path of its model folder as it was given.
        label: What people read, unique too.
        trainer: The class name.
        folder: The model folder where a path was given; None looks in nnUNet_results.
    """

    name: str
    label: str
    trainer: str
    folder: Path | None = None

    def to_json(self) -> dict[str, str]:
        """Plain values."""
        return {"name": self.name, "label": self.label, "trainer": self.trainer}


def read_trainers(arguments: Sequence[str]) -> list[Trainer]:
    """The trainers of a command line.

    Args:
        arguments: Each a trainer's name or the path of a model folder (one that holds ``fold_X``), with an optional
            ``LABEL=`` before it.

    Returns:
        The trainers in the same order, each with a label of its own.

    Raises:
        UserError: Fewer than two, one twice, a path that is no model folder, or a label twice.
    """
    given = [_read(argument) for argument in arguments]
    if len(given) < 2:
        raise UserError(
            f"a comparison needs at least two trainers, got {', '.join(arguments) or 'none'}; name another with -tr, "
            "or use `nnunet_nacl evaluate` for one."
        )
    names = [name for _, name, _, _ in given]
    places = [os.path.realpath(folder) if folder else name for _, name, _, folder in given]
    for i, place in enumerate(places):
        if place in places[:i]:
            raise UserError(f"-tr names {names[i]} twice; name each trainer once.")
    labels = [label for label, *_ in given]
    for i, label in enumerate(labels):
        if label and label in labels[:i]:
            raise UserError(f"-tr gives the label {label!r} twice; labels must differ.")
    made = _different(short_labels([trainer for _, _, trainer, _ in given]), labels)
    return [Trainer(name, made[i], trainer, folder) for i, (_, name, trainer, folder) in enumerate(given)]


def _read(argument: str) -> tuple[str, str, str, Path | None]:
    label, separator, rest = argument.partition("=")
    if not separator or Path(argument).is_dir():
        label, rest = "", argument
    if not rest.strip() or (rest != argument and not label.strip()):
        raise UserError(f"-tr {argument!r}: expected NAME, LABEL=NAME or LABEL=FOLDER.")
    label, rest = " ".join(label.split()), rest.strip()
    path = Path(rest)
    if not (os.sep in rest or (path.is_dir() and any(path.glob("fold_*")))):
        return label, rest, rest, None
    if not path.is_dir():
        raise UserError(f"{path}: no such folder; give a trainer's name or its model folder (it holds fold_0, ...).")
    resolved = path.resolve()
    if resolved.name.count("__") != 2 or not any(path.glob("fold_*")):
        raise UserError(
            f"{path} is no model folder; give one named TRAINER__PLANS__CONFIGURATION that holds fold_0, ..."
        )
    return label, rest.rstrip(os.sep), resolved.name.split("__")[0], path


def variant_of(trainer: str) -> Variant | None:
    """The settings that a trainer's name stands for, nnU-Net's own trainer included; None for others' trainers."""
    if trainer == PREFIX:
        return _STOCK
    try:
        return parse(trainer)
    except ValueError:  # a class of someone else that only looks like one of ours
        return None


def short_labels(trainers: Sequence[str]) -> list[str]:
    """Labels for people: the loss, and the settings in which the trainers differ.

    ``nnUNetTrainer`` and the tokens that all trainers share are left out; ``DiceX`` is shown as ``X+Dice`` and
    nnU-Net's own loss as ``CE+Dice (stock)``. Equal labels get a number.

    Args:
        trainers: Class names.
    """
    variants = [variant_of(trainer) for trainer in trainers]
    tokens = [dict(_tokens(variant)) if variant else {} for variant in variants]
    known = [entry for variant, entry in zip(variants, tokens) if variant]
    shared = {
        text for text in (known[0] if known else ()) if len(known) == len(trainers) and all(text in t for t in known)
    }
    labels = []
    for trainer, variant, entry in zip(trainers, variants, tokens):
        if variant is None:
            labels.append(trainer.removeprefix(PREFIX).strip("_") or trainer)
            continue
        stock = variant.dice and variant.method == "CE" and not variant.anneal
        method = STOCK_LABEL if stock else variant.method + ("+Dice" if variant.dice else "")
        labels.append(" ".join([method, *(shown for text, shown in entry.items() if text not in shared)]))
    return _different(labels, [""] * len(labels))


def _tokens(variant: Variant) -> list[tuple[str, str]]:
    """Each token that a name spells out, and how it is shown: ``lambda0p2`` as ``lambda=0.2``."""
    result = []
    for token in TOKENS:
        value = getattr(variant, token.field)
        if value is None or value is False or value == token.defaults.get(variant.method):
            continue
        number = f"{value:g}" if not isinstance(value, (str, bool)) else ""
        if not number:
            shown = value if isinstance(value, str) else token.form
        elif token.form.startswith("<"):
            shown = re.sub("<.>", number, token.form)
        else:
            shown = re.sub("<.>", f"={number}", token.form)
        if token.field == "train_percent":
            shown = f"{number} % of cases"
        result.append((f"{token.field}={value}", shown))
    return result


def _different(labels: Sequence[str], given: Sequence[str]) -> list[str]:
    """``given`` where there is one, else ``labels``, with a number where it occurs already."""
    result: list[str] = []
    taken = {label for label in given if label}
    for label, own in zip(labels, given):
        if own:
            result.append(own)
            continue
        candidate, number = label, 1
        while candidate in taken:
            number += 1
            candidate = f"{label} ({number})"
        taken.add(candidate)
        result.append(candidate)
    return result
