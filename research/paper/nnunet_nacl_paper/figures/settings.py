"""Methods of a comparison that differ in one setting, told by their trainers' names."""

from __future__ import annotations

import re
from collections.abc import Mapping

HYPER = {
    "lambda": {"NACL": 0.1, "MbLS": 0.1},
    "gamma": {"Focal": 3.0},
    "alpha": {"LS": 0.1, "ECP": 0.1},
    "m": {"MbLS": 5.0, "NACL": 1.0},
    "sigma": {"SVLS": 2.0, "NACL": 1.0},
}
"""Token of a number in a trainer's name -> its value by method where the name does not say it."""

_METHOD = re.compile(r"nnUNetTrainer(?:Dice)?([A-Za-z]*)")
_NETWORK = re.compile("_(unet|attunet|unetpp|transunet)(?=_|$)")


def by_number(
    trainers: Mapping[str, str], token: str, defaults: Mapping[str, float]
) -> dict[str, dict[float, str]]:
    """Methods that differ in one number only.

    Args:
        trainers: Class by name.
        token: What stands before the number in a trainer's name, such as ``lambda`` or ``train``.
        defaults: Its value by method where a name does not have it; a method that is not there does
            not know it.

    Returns:
        What they share -> value, rising -> name; groups of at least two values.
    """
    number = re.compile(rf"_{token}(\d+(?:p\d+)?)(?=_|$)")
    groups: dict[str, dict[float, str]] = {}
    for name, trainer in trainers.items():
        method = _METHOD.match(trainer)
        found = number.search(trainer)
        if method is None or method[1] not in defaults:
            continue
        if (
            token == "sigma"
            and method[1] == "NACL"
            and not re.search("_(gaussian|svls)(_|$)", trainer)
        ):
            continue  # the mean prior has no width
        value = float(found[1].replace("p", ".")) if found else defaults[method[1]]
        groups.setdefault(number.sub("", trainer), {})[value] = name
    return {
        shared: dict(sorted(values.items()))
        for shared, values in groups.items()
        if len(values) >= 2
    }


def by_network(trainers: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """Methods that differ in the network only: what they share -> network (``nnU-Net's`` for the
    plans') -> name."""
    groups: dict[str, dict[str, str]] = {}
    for name, trainer in trainers.items():
        found = _NETWORK.search(trainer)
        groups.setdefault(_NETWORK.sub("", trainer), {})[found[1] if found else "nnU-Net's"] = name
    return {
        shared: dict(sorted(networks.items()))
        for shared, networks in groups.items()
        if len(networks) >= 2
    }


def short(names: list[str]) -> list[str]:
    """The names without ``nnUNetTrainer`` and the tokens that all share: ``nnUNetTrainerNACL_adam``
    -> ``NACL``."""
    split = [name.removeprefix("nnUNetTrainer").split("_") for name in names]
    shared = set.intersection(*map(set, (tokens[1:] for tokens in split)))
    return [
        " ".join([first, *(token for token in tokens if token not in shared)])
        for first, *tokens in split
    ]
