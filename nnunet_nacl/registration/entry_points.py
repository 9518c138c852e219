"""Trainers that installed packages register in the entry-point group `nnunetv2.trainers`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import EntryPoint, distributions
from typing import Any

from nnunet_nacl.registration import ENTRY_POINT_GROUP, TRAINERS_PACKAGE

__all__ = ["RegisteredTrainer", "registered_trainers"]


@dataclass(frozen=True)
class RegisteredTrainer:
    """One entry point.

    Attributes:
        name: Name of the trainer, what `-tr` takes.
        value: Where it is, as `package.module:class`.
        package: The distribution that registers it, with its version, for people.
    """

    name: str
    value: str
    package: str

    @property
    def is_ours(self) -> bool:
        """Whether it is one of this package's own trainers."""
        return self.value.split(":")[0].split(".")[0] == TRAINERS_PACKAGE

    def load(self) -> Any:
        """Imports and returns what the entry point names.

        Raises:
            ImportError: It cannot be imported, whatever the reason: nnU-Net takes an AttributeError for "no such
                trainer", which would hide that a package is broken.
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

    The distributions are read one by one, since one that is broken (an interrupted uninstall leaves such behind) would
    otherwise take all others with it.
    """
    trainers: dict[str, RegisteredTrainer] = {}
    for trainer in sorted(_entry_points(), key=lambda entry: not entry.is_ours):
        trainers.setdefault(trainer.name, trainer)
    return list(trainers.values())


def _entry_points() -> Iterator[RegisteredTrainer]:
    for distribution in distributions():
        try:
            entries = [entry for entry in distribution.entry_points if entry.group == ENTRY_POINT_GROUP]
            if entries:
                package = f"{distribution.metadata['Name']} {distribution.version}"
                yield from [RegisteredTrainer(entry.name, entry.value, package) for entry in entries]
        except Exception:  # unreadable metadata are pip's matter: whatever that distribution registers is unknown
            continue
