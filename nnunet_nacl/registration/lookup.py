"""Finds the class of a trainer by its name, for the module that nnU-Net imports.

Whoever registered a name as an entry point is asked first (we before others), then the grammar of our names. What is
returned is the class that Python imports from `nnunet_nacl_trainers`, never a copy, so that it compares and pickles.
"""

from __future__ import annotations

import difflib
import logging
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import EntryPoint, distributions
from typing import Any

from nnunet_nacl.methods import PREFIX
from nnunet_nacl.registration import ENTRY_POINT_GROUP, TRAINERS_PACKAGE
from nnunet_nacl.registration.grammar import parse

_hinted: set[str] = set()


def resolve(name: str) -> type:
    """The trainer class of a name that `-tr` was given, or that a checkpoint recorded.

    Raises:
        AttributeError: No such name: nnU-Net's search goes on. Of one that is close, standard error says so once.
        ValueError: The method is one of ours, a token of the name is not; the message holds the grammar.
        ImportError: The name is known, but its package cannot be imported.
    """
    trainers = registered_trainers()
    for trainer in trainers:
        if trainer.name == name:
            return trainer.load()
    if parse(name) is not None:
        try:
            return getattr(import_module(TRAINERS_PACKAGE), name)
        except Exception as error:
            raise ImportError(
                f"trainer {name!r} belongs to nnunet_nacl, which cannot make it: {type(error).__name__}: {error}. "
                "Run `nnunet_nacl doctor`."
            ) from error
    message = f"no installed package provides a trainer named {name!r}"
    meant = suggest(name, [trainer.name for trainer in trainers])
    if meant is not None and name not in _hinted:
        _hinted.add(name)
        logging.getLogger(__name__).warning("nnunet_nacl: %s; did you mean %r?", message, meant)
    raise AttributeError(message)


def suggest(name: str, names: list[str]) -> str | None:
    """The known trainer that a mistyped name most likely means, with the tokens that follow it, or None.

    Only what follows nnU-Net's common prefix is compared: `nnUNetTrainer_20epochs` resembles none of ours.
    """
    base, underscore, tokens = name.partition("_")
    tails = {trainer.removeprefix(PREFIX).lower(): trainer for trainer in names if trainer.startswith(PREFIX)}
    close = difflib.get_close_matches(base.lower().removeprefix(PREFIX.lower()), tails, n=1, cutoff=0.7)
    if not close:
        return None
    trainer = tails[close[0]]
    try:
        return trainer + underscore + tokens if parse(trainer + underscore + tokens) else trainer
    except ValueError:
        return trainer


@dataclass(frozen=True)
class RegisteredTrainer:
    """One entry point: what `-tr` takes, where its class is (`package.module:class`), and by whom, with the version."""

    name: str
    value: str
    package: str

    @property
    def is_ours(self) -> bool:
        """Whether it is one of this package's own trainers."""
        return self.value.split(":")[0].split(".")[0] == TRAINERS_PACKAGE

    def load(self) -> Any:
        """The class; ImportError where it cannot be imported, whatever the reason.

        nnU-Net takes an AttributeError for "no such trainer", which would hide that a package is broken.
        """
        try:
            return EntryPoint(self.name, self.value, ENTRY_POINT_GROUP).load()
        except Exception as error:
            raise ImportError(
                f"trainer {self.name!r} is registered by {self.package} as {self.value!r}, which cannot be imported: "
                f"{type(error).__name__}: {error}. Repair or reinstall that package."
            ) from error


def registered_trainers() -> list[RegisteredTrainer]:
    """All registered trainers by name, ours first; of several with one name only the first is given.

    Distributions are read in turn: a broken one (after an interrupted uninstall) would otherwise hide the others.
    """
    found: list[RegisteredTrainer] = []
    for distribution in distributions():
        try:
            entries = [entry for entry in distribution.entry_points if entry.group == ENTRY_POINT_GROUP]
            package = f"{distribution.metadata['Name']} {distribution.version}" if entries else ""
        except Exception:  # unreadable metadata are pip's matter: whatever that distribution registers is unknown
            continue
        found += [RegisteredTrainer(entry.name, entry.value, package) for entry in entries]
    trainers: dict[str, RegisteredTrainer] = {}
    for trainer in sorted(found, key=lambda trainer: not trainer.is_ours):
        trainers.setdefault(trainer.name, trainer)
    return list(trainers.values())
