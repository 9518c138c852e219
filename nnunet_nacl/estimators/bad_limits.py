"""The Dice below which a site calls a structure, and so a scan, bad; and which shares it asks
for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from numbers import Real

from nnunet_nacl.settings import BadSpec
from nnunet_nacl.utilities.errors import UserError, some

_ALL = ""  # in place of a structure's name: all that are not named


def check_bad(
    bad: BadSpec | None,
    *,
    structures: Sequence[str] | None = None,
    find: float | None = None,
    miss: float | None = None,
) -> None:
    """UserError where something is given that makes sense only with ``bad``, but ``bad`` is not."""
    if bad is not None:
        return
    for argument, value in {"find": find, "miss": miss, "structures": structures}.items():
        if value is not None:
            raise UserError(
                f"[[{argument}]] goes with [[bad]], the Dice below which a scan is bad,"
                " such as [[bad=0.7]]."
            )


def check_share(value: float | None, argument: str) -> float | None:
    """The value of ``find`` or ``miss``; UserError where it is not above 0 and below 1."""
    if value is not None and not 0 < value < 1:
        raise UserError(f"[[{argument}]] is a share, above 0 and below 1, got {value:g}.")
    return value


def read_bad(
    given: BadSpec | None, structures: Mapping[str, str], count: Sequence[str] | None = None
) -> dict[str, float] | None:
    """By nnU-Net's key of each structure that counts, the Dice below which it is bad.

    Args:
        given: One Dice, or by name or key; or texts, such as ``0.7`` and ``Infarct=0.5``. None:
            nothing is called bad, and None is returned.
        structures: Name of each structure by nnU-Net's key, in order.
        count: Names or keys of the structures that count; None: all that ``given`` says something
            of.

    Raises:
        UserError: A text says no Dice, there is no such structure, one has two values or none, or a
            value is no Dice.
    """
    if given is None:
        return None
    limits = _limits_by_key(given, structures)
    named = structures if count is None else count
    counted = {find_key(name, structures, "structures") for name in named}
    bad: dict[str, float] = {}
    without_limit: list[str] = []
    for key, name in structures.items():
        if key not in counted:
            continue
        limit = limits.get(key, limits.get(_ALL))
        if limit is None:
            without_limit.append(name)
        else:
            bad[key] = limit
    if count and without_limit:
        raise UserError(
            f"[[structures]] {some(without_limit)}: [[bad]] does not say below which Dice"
            " it is bad."
        )
    if not bad:
        raise UserError("[[bad]] names no Dice below which a structure is bad, such as 0.7.")
    return bad


def _limits_by_key(given: BadSpec, structures: Mapping[str, str]) -> dict[str, float]:
    """The Dice that is given of each structure, by nnU-Net's key, or of ``_ALL``."""
    limits: dict[str, float] = {}
    for name, value in _names_and_dice(given):
        key = find_key(name, structures, "bad") if name != _ALL else name
        if not 0 < value <= 1:  # neither is NaN
            raise UserError(f"[[bad]] is a Dice, above 0 and up to 1, got {value:g}.")
        if key in limits:
            named = structures.get(key, "all structures")
            raise UserError(
                f"[[bad]]: {named} cannot have two values, {limits[key]:g} and {value:g}."
            )
        limits[key] = value
    return limits


def find_key(name: str, structures: Mapping[str, str], argument: str) -> str:
    """nnU-Net's key of a structure that has this name or key.

    UserError, which begins with the argument, for another.
    """
    if name in structures:
        return name
    for key, label in structures.items():
        if name == label:
            return key
    choices = ", ".join(f"{label} ({key})" for key, label in structures.items())
    raise UserError(f"[[{argument}]] {name}: there is no such structure; there are {choices}.")


def _names_and_dice(given: BadSpec) -> list[tuple[str, float]]:
    """Names of structures, or ``_ALL``, and Dice, as they were given."""
    if isinstance(given, Real):  # NumPy's numbers are such, too
        return [(_ALL, float(given))]
    if isinstance(given, Mapping):
        return [(name, _check_number(name, value)) for name, value in given.items()]
    if isinstance(given, str):
        return [_parse(given)]
    if isinstance(given, Sequence) and all(isinstance(text, str) for text in given):
        return [_parse(text) for text in given]
    raise UserError(
        "[[bad]] is a Dice, such as 0.7, or by structure, such as {'Infarct': 0.5}, got"
        f" {given!r:.80}."
    )


def _check_number(name: str, value: object) -> float:
    if not isinstance(value, Real):
        raise UserError(f"[[bad]] {name}: a Dice is expected, such as 0.7, got {value!r}.")
    return float(value)


def _parse(text: str) -> tuple[str, float]:
    """Name, or ``_ALL``, and Dice of a text such as ``Infarct=0.5`` or ``0.7``."""
    name, equals, value = text.rpartition("=")
    if equals and not name:
        value = ""  # which is no number
    try:
        return name, float(value)
    except ValueError:
        raise UserError(
            f"[[bad]] {text}: a Dice is expected, such as 0.7, or STRUCTURE=DICE, such as"
            " Infarct=0.5."
        ) from None
