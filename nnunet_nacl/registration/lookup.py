"""Finds the class of a trainer by its name, for the module that nnU-Net imports.

Whoever registered a name as an entry point is asked first (we before others), then the grammar of
our names. What is returned is the class that Python imports from ``nnunet_nacl_trainers``, never a
copy, so that it compares and pickles.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import Distribution, EntryPoint, distributions

from nnunet_nacl.methods import PREFIX, STOCK_NAME
from nnunet_nacl.registration import ENTRY_POINT_GROUP, ENVIRONMENT_VARIABLE, TRAINERS_PACKAGE
from nnunet_nacl.registration.class_files import find_users_class_file
from nnunet_nacl.registration.grammar import parse
from nnunet_nacl.registration.suggestions import (
    describe_defaults,
    guess_trainer,
    guess_variant,
)


@dataclass(frozen=True)
class RegisteredTrainer:
    """One entry point: what `-tr` takes, where its class is (`package.module:class`), and by whom,
    with the version."""

    name: str
    value: str
    package: str

    @property
    def is_ours(self) -> bool:
        """Whether it is one of this package's own trainers."""
        module = self.value.split(":")[0]
        return module.split(".")[0] == TRAINERS_PACKAGE

    def load(self) -> type:
        """The class; ImportError where it cannot be imported, whatever the reason.

        nnU-Net takes an AttributeError for "no such trainer", which would hide that a package is
        broken.
        """
        try:
            return EntryPoint(self.name, self.value, ENTRY_POINT_GROUP).load()
        except Exception as error:
            raise ImportError(
                f"trainer {self.name!r} is registered by {self.package} as {self.value!r}, which "
                f"cannot be imported: {type(error).__name__}: {error}. Repair or reinstall that "
                "package."
            ) from error


def resolve(name: str) -> type:
    """The trainer class of a name that `-tr` was given, or that a checkpoint recorded.

    Raises:
        AttributeError: No such name: nnU-Net's search goes on.
        ValueError: The method is one of ours, a token of the name is not; or the name is close to
        one that there is, and in no folder that nnU-Net searches next. The message ends in what to
        type, and is the last that nnU-Net prints.
        ImportError: The name is known, but its package cannot be imported.

    """
    trainers = registered_trainers()
    for trainer in trainers:
        if trainer.name == name:
            return trainer.load()
    try:
        is_ours = parse(name) is not None
    except ValueError:
        if find_users_class_file(name, behind_bridge=True) is None:
            raise
        is_ours = False  # nnU-Net finds the user's class in a folder that it searches after ours
    if is_ours:
        return _load_from_grammar(name)
    similar = suggest(name, [trainer.name for trainer in trainers])
    if similar is not None and find_users_class_file(name, behind_bridge=True) is None:
        raise ValueError(
            f"there is no trainer {name} in nnU-Net, an installed package or a folder of"
            f" {ENVIRONMENT_VARIABLE}; did you mean {similar}?"
        )
    raise AttributeError(f"no installed package provides a trainer named {name!r}")


def _load_from_grammar(name: str) -> type:
    try:
        from nnunet_nacl_trainers import get_trainer

        trainer = get_trainer(name)
    except Exception as error:
        raise ImportError(
            f"trainer {name!r} belongs to nnunet_nacl, which cannot make it: "
            f"{type(error).__name__}: {error}. Run `nnunet_nacl doctor`."
        ) from error
    assert trainer is not None  # the grammar has read the name
    return trainer


def suggest(name: str, known_names: Sequence[str]) -> str | None:
    """The known trainer that a mistyped name most likely means, with the tokens that follow it, or
    None."""
    base, _, tokens = name.partition("_")
    trainer = guess_trainer(base, known_names)
    if trainer is None:
        return None
    suggested = trainer
    if tokens:
        try:
            variant = parse(f"{trainer}_{tokens}")
        except ValueError:
            loss = trainer.removeprefix(PREFIX)
            method = loss.removeprefix("Dice")
            guess = guess_variant(method, method != loss, tokens.split("_"))
            variant = None if guess is None else describe_defaults(guess)[0]
        if variant is not None:
            suggested = variant.name
    return PREFIX if suggested == STOCK_NAME else suggested


def registered_trainers() -> list[RegisteredTrainer]:
    """All registered trainers by name, ours first; of several with one name only the first is
    given.

    Distributions are read in turn: a broken one (after an interrupted uninstall) would otherwise
    hide the others.
    """
    registered: list[RegisteredTrainer] = []
    for distribution in distributions():
        try:
            registered += _trainers_of(distribution)
        except Exception:
            # unreadable metadata are pip's matter: what that distribution registers is unknown
            continue
    trainers: dict[str, RegisteredTrainer] = {}
    for trainer in sorted(registered, key=lambda trainer: not trainer.is_ours):
        trainers.setdefault(trainer.name, trainer)
    return list(trainers.values())


def _trainers_of(distribution: Distribution) -> list[RegisteredTrainer]:
    all_points = distribution.entry_points
    entry_points = [point for point in all_points if point.group == ENTRY_POINT_GROUP]
    if not entry_points:
        return []
    package = f"{distribution.metadata['Name']} {distribution.version}"
    return [RegisteredTrainer(point.name, point.value, package) for point in entry_points]
