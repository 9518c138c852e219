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


def method_of(trainer: str) -> str:
    """The method in a trainer's name, such as ``NACL``; empty where it has none."""
    match = _METHOD.match(trainer)
    return "" if match is None else match[1]


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
        method = method_of(trainer)
        if method not in defaults:
            continue
        has_mean_prior = method == "NACL" and not re.search("_(gaussian|svls)(_|$)", trainer)
        if token == "sigma" and has_mean_prior:  # which has no width
            continue
        value = defaults[method]
        in_name = number.search(trainer)
        if in_name is not None:
            value = float(in_name[1].replace("p", "."))
        groups.setdefault(number.sub("", trainer), {})[value] = name
    return {
        shared: dict(sorted(values.items()))
        for shared, values in groups.items()
        if len(values) >= 2
    }


def by_network(trainers: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """Methods that differ in the network only.

    Returns:
        What they share -> network (``nnU-Net's`` for the plans') -> name.
    """
    groups: dict[str, dict[str, str]] = {}
    for name, trainer in trainers.items():
        in_name = _NETWORK.search(trainer)
        network = "nnU-Net's" if in_name is None else in_name[1]
        groups.setdefault(_NETWORK.sub("", trainer), {})[network] = name
    return {
        shared: dict(sorted(networks.items()))
        for shared, networks in groups.items()
        if len(networks) >= 2
    }


def short(names: list[str]) -> list[str]:
    """The names without ``nnUNetTrainer`` and the tokens that all share.

    A single ``nnUNetTrainerNACL_adam`` becomes ``NACL``.
    """
    split = [name.removeprefix("nnUNetTrainer").split("_") for name in names]
    shared = set.intersection(*[set(tokens) for _, *tokens in split])
    shortened = []
    for method, *tokens in split:
        own = [token for token in tokens if token not in shared]
        shortened.append(" ".join([method, *own]))
    return shortened
