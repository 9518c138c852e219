"""The Dice below which a site calls a structure, and so a scan, bad; and which shares it asks for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from numbers import Real

from nnunet_nacl.errors import UserError, some

_ALL = ""  # in place of a structure's name: all that are not named

BadSpec = float | Mapping[str, float] | Sequence[str]
"""One Dice for all structures, or by name or nnU-Net's key; a structure that is not among them does
not count."""


def check_bad(
    bad: BadSpec | None,
    *,
    structures: Sequence[str] | None = None,
    find: float | None = None,
    miss: float | None = None,
) -> None:
    """UserError where what goes with the Dice below which a scan is bad is given without that."""
    if bad is not None:
        return
    for option, value in {"find": find, "miss": miss, "structures": structures}.items():
        if value is not None:
            raise UserError(
                f"-{option} goes with -bad, the Dice below which a scan is bad, such as -bad 0.7."
            )


def read_bad(
    given: BadSpec, structures: Mapping[str, str], count: Sequence[str] | None = None
) -> dict[str, float]:
    """By nnU-Net's key of each structure that counts, the Dice below which it is bad, from what the
    user calls bad.

    Args:
        given: One Dice, or by name or key; or texts, such as ``0.7`` and ``Infarct=0.5``.
        structures: Name of each structure by nnU-Net's key, in order.
        count: Names or keys of the structures that count; None: all that ``given`` says something
            of.

    Raises:
        UserError: A text says no Dice, there is no such structure, one has two values or none, or a
            value is no Dice.
    """
    by_key: dict[str, float] = {}
    for name, value in _name_and_dice(given):
        key = name if name == _ALL else _key_of(name, structures, "-bad")
        if not 0 < value <= 1:  # neither is NaN
            raise UserError(f"-bad is a Dice, above 0 and up to 1, got {value:g}.")
        if key in by_key:
            named = structures.get(key, "all structures")
            raise UserError(f"-bad: {named} cannot have two values, {by_key[key]:g} and {value:g}.")
        by_key[key] = value

    counted = set(structures)
    if count is not None:
        counted = {_key_of(name, structures, "-structures") for name in count}
    result: dict[str, float] = {}
    without: list[str] = []
    for key, label in structures.items():
        if key in counted:
            limit = by_key.get(key, by_key.get(_ALL))
            if limit is None:
                without.append(label)
            else:
                result[key] = limit
    if count and without:
        raise UserError(
            f"-structures {some(without)}: -bad does not say below which Dice it is bad."
        )
    if not result:
        raise UserError("-bad names no Dice below which a structure is bad, such as 0.7.")
    return result


def _key_of(name: str, structures: Mapping[str, str], flag: str) -> str:
    """nnU-Net's key of a structure that has this name or key; UserError, which begins with the
    flag, for another."""
    if name in structures:
        return name
    for key, label in structures.items():
        if name == label:
            return key
    choices = ", ".join(f"{label} ({key})" for key, label in structures.items())
    raise UserError(f"{flag} {name}: there is no such structure; there are {choices}.")


def _name_and_dice(given: BadSpec) -> list[tuple[str, float]]:
    """Name of a structure, or ``_ALL``, and Dice, as they were given."""
    if isinstance(given, Real):  # NumPy's numbers are such, too
        return [(_ALL, float(given))]
    if isinstance(given, Mapping):
        by_name: list[tuple[str, float]] = []
        for name, value in given.items():
            if not isinstance(value, Real):
                raise UserError(f"-bad {name}: a Dice is expected, such as 0.7, got {value!r}.")
            by_name.append((name, float(value)))
        return by_name
    if isinstance(given, Sequence) and all(isinstance(text, str) for text in given):
        return [_parsed(text) for text in ([given] if isinstance(given, str) else given)]
    raise UserError(
        "-bad is a Dice, such as 0.7, or by structure, such as {'Infarct': 0.5}, got"
        f" {given!r:.80}."
    )


def _parsed(text: str) -> tuple[str, float]:
    name, equals, value = text.rpartition("=")
    try:
        return name, float(value if name or not equals else "")
    except ValueError:
        expected = "a Dice is expected, such as 0.7, or STRUCTURE=DICE, such as Infarct=0.5."
        raise UserError(f"-bad {text}: {expected}") from None


def share_of(value: float | None, flag: str) -> float | None:
    """The value of ``-find`` or ``-miss``; UserError where it is not above 0 and below 1."""
    if value is not None and not 0 < value < 1:
        raise UserError(f"{flag} is a share, above 0 and below 1, got {value:g}.")
    return value
