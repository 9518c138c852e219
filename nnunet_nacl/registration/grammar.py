"""Trainer names: ``nnUNetTrainer[Dice]METHOD(_token)*``.

nnU-Net names result folders by a trainer's class name and finds the class again by that name at prediction, so the
name has to hold every setting. One setting has one spelling: tokens come in a fixed order, defaults are not spelled
out, and numbers have no superfluous zeros (``p`` is the decimal point). This module knows names only, no torch.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

__all__ = ["MAX_NAME_LENGTH", "METHODS", "PREFIX", "TOKENS", "Token", "Variant", "format_name", "grammar", "parse"]

PREFIX = "nnUNetTrainer"
METHODS = {
    "NACL": "cross-entropy plus a penalty that ties logits to the class shares of the neighbourhood",
    "SVLS": "cross-entropy against labels smoothed over the neighbourhood",
    "MbLS": "cross-entropy plus a penalty on logit differences beyond a margin",
    "LS": "cross-entropy with label smoothing",
    "Focal": "focal loss",
    "ECP": "cross-entropy less a multiple of the prediction's entropy",
    "CE": "plain cross-entropy",
}
MAX_NAME_LENGTH = 128
"""A result folder is named after trainer, plans and configuration, within the 255 bytes of file systems.

`nnUNetv2_find_best_configuration` joins two such names into one folder: where ensembles of two trainers are wanted,
their names may have about 150 characters together.
"""


@dataclass(frozen=True)
class Variant:
    """Settings that a trainer name stands for. None and False mean the method's, or nnU-Net's, default.

    Attributes:
        method: One of ``METHODS``.
        dice: nnU-Net's soft Dice term is added.
        anneal: The Dice term's weight falls linearly from 1 to 0 over the first half of the training.
        penalty_weight: lambda of NACL and MbLS.
        kernel_size: Neighbourhood in voxels, along every axis; None takes it from the plans.
        prior: ``gaussian`` or ``svls`` instead of NACL's ``mean``.
        sigma: Width of a weighted neighbourhood in voxels.
        l2: Squared instead of absolute penalty.
        softmax: Penalty on probabilities instead of logits.
        sum: Penalty summed over classes instead of averaged.
        gamma: Focal loss's exponent.
        alpha: Smoothing of LS, entropy weight of ECP.
        scale: m: MbLS's margin, or the factor of NACL's prior.
        epochs: Number of epochs.
        iterations: Training iterations per epoch; a tenth of it, at least one, are validation iterations.
        adam: The paper's optimiser instead of nnU-Net's.
        train_percent: Share of the fold's training cases that is used, in percent.
    """

    method: str
    dice: bool = False
    anneal: bool = False
    penalty_weight: float | None = None
    kernel_size: int | None = None
    prior: str | None = None
    sigma: float | None = None
    l2: bool = False
    softmax: bool = False
    sum: bool = False
    gamma: float | None = None
    alpha: float | None = None
    scale: float | None = None
    epochs: int | None = None
    iterations: int | None = None
    adam: bool = False
    train_percent: float | None = None


@dataclass(frozen=True)
class Token:
    """One part of a name.

    Attributes:
        form: How it is written, for people.
        pattern: Regular expression whose group is the value.
        field: The attribute of :class:`Variant` that it sets.
        meaning: What it does.
        defaults: Value per method; not to be spelled out, since leaving the token out says the same.
        methods: Which methods know it; all if empty.
        check: Says what is wrong with a value, or None.
    """

    form: str
    pattern: str
    field: str
    meaning: str
    defaults: dict[str, float]
    methods: tuple[str, ...] = ()
    check: Callable[[Any], str | None] = lambda value: None

    def fits(self, method: str) -> bool:
        """Whether ``method`` knows this token."""
        return not self.methods or method in self.methods


def _odd(value: int) -> str | None:
    return None if value % 2 else "a neighbourhood needs a centre, so its size must be odd"


def _positive(value: float) -> str | None:
    return None if value > 0 else "must be greater than 0"


def _percent(value: float) -> str | None:
    return None if 0 < value < 100 else "must lie between 0 and 100"


_NUMBER = r"((?:0|[1-9][0-9]*)(?:p[0-9]*[1-9])?)"
_INTEGER = r"([1-9][0-9]*)"

TOKENS = (
    Token(
        "anneal",
        "(anneal)",
        "anneal",
        "the Dice term's weight falls linearly from 1 to 0 over the first half of the epochs (only after Dice)",
        {},
    ),
    Token(
        "lambda<x>",
        "lambda" + _NUMBER,
        "penalty_weight",
        "weight lambda of the penalty",
        {"NACL": 0.1, "MbLS": 0.1},
        ("NACL", "MbLS"),
    ),
    Token(
        "k<n>",
        "k" + _INTEGER,
        "kernel_size",
        "neighbourhood of n voxels along every axis (default: 3, but 1 "
        "along axes whose first convolution in the plans has size 1)",
        {},
        ("NACL", "SVLS"),
        _odd,
    ),
    Token(
        "gaussian|svls",
        "(gaussian|svls)",
        "prior",
        "neighbours weighted by a Gaussian, or by one whose centre "
        "weighs as much as all others together (default: all weigh the same)",
        {},
        ("NACL",),
    ),
    Token(
        "sigma<x>",
        "sigma" + _NUMBER,
        "sigma",
        "width of those weights in voxels",
        {"NACL": 1, "SVLS": 2},
        ("NACL", "SVLS"),
        _positive,
    ),
    Token("l2", "(l2)", "l2", "squared penalty (default: absolute)", {}, ("NACL",)),
    Token("softmax", "(softmax)", "softmax", "penalty on probabilities (default: on logits)", {}, ("NACL",)),
    Token(
        "sum",
        "(sum)",
        "sum",
        "penalty summed over classes, as in the paper's formula (default: their mean, as in its code)",
        {},
        ("NACL", "MbLS", "ECP"),
    ),
    Token("gamma<x>", "gamma" + _NUMBER, "gamma", "focusing exponent", {"Focal": 3}, ("Focal",)),
    Token(
        "alpha<x>",
        "alpha" + _NUMBER,
        "alpha",
        "smoothing (LS, at most 1) or weight of the entropy (ECP)",
        {"LS": 0.1, "ECP": 0.1},
        ("LS", "ECP"),
    ),
    Token(
        "m<x>",
        "m" + _NUMBER,
        "scale",
        "MbLS: margin m; NACL: scale m of the prior, |m tau - l|",
        {"NACL": 1, "MbLS": 5},
        ("NACL", "MbLS"),
    ),
    Token("<n>epochs", _INTEGER + "epochs", "epochs", "number of epochs", dict.fromkeys(METHODS, 1000)),
    Token(
        "<n>iters",
        _INTEGER + "iters",
        "iterations",
        "training iterations per epoch; a tenth as many, at least one, are validation iterations",
        dict.fromkeys(METHODS, 250),
    ),
    Token(
        "adam",
        "(adam)",
        "adam",
        "the paper's optimiser: Adam at 1e-3, from half-way on 1e-4, without weight decay (default: nnU-Net's SGD)",
        {},
    ),
    Token(
        "train<x>",
        "train" + _NUMBER,
        "train_percent",
        "train on x % of the fold's training cases; smaller shares are parts of larger ones, validation is unchanged",
        dict.fromkeys(METHODS, 100),
        (),
        _percent,
    ),
)

_PENALTY_FIELDS = frozenset({"penalty_weight", "kernel_size", "prior", "sigma", "l2", "softmax", "sum", "scale"})
_OURS = re.compile(rf"{PREFIX}(Dice)?({'|'.join(METHODS)})(?:_(.*))?", re.DOTALL)


def parse(name: str) -> Variant | None:
    """Read a trainer name.

    Args:
        name: Class name as given to ``-tr``.

    Returns:
        Its settings, or None if it names none of our methods (nnU-Net's search then goes on).

    Raises:
        ValueError: The method is ours, but a token is unknown, misplaced, repeated, a default, not for this method or
            out of range, or the name is too long. The message holds the grammar.
    """
    match = _OURS.fullmatch(name)
    if match is None:
        return None
    dice, method, rest = bool(match[1]), match[2], match[3]
    if dice and method == "CE" and rest is None:
        raise ValueError(
            f"{name} would be nnU-Net's own {PREFIX}: use that name. {PREFIX}DiceCE_<token> exists for "
            "other schedules of it."
        )
    if len(name) > MAX_NAME_LENGTH:
        raise ValueError(
            f"trainer name of {len(name)} characters; at most {MAX_NAME_LENGTH} are allowed, since "
            f"nnU-Net makes folder names of it: {name}"
        )
    settings: dict[str, Any] = {}
    last = -1
    for text in [] if rest is None else rest.split("_"):
        index, value = _read_token(name, method, text)
        if index == last:
            raise _error(name, f"{TOKENS[index].form!r} occurs twice")
        if index < last:
            raise _error(name, f"{text!r} must come before {TOKENS[last].form!r}")
        last = index
        settings[TOKENS[index].field] = value
    if settings.get("anneal") and not dice:
        raise _error(name, f"'anneal' lowers the weight of the Dice term: use {PREFIX}Dice{method}_anneal")
    if method == "NACL" and "sigma" in settings and "prior" not in settings:
        raise _error(name, "'sigma' needs 'gaussian' or 'svls' before it: the mean prior has no width")
    if settings.get("penalty_weight") == 0 and len(_PENALTY_FIELDS & set(settings)) > 1:
        raise _error(name, "with 'lambda0' there is no penalty for the other tokens to change")
    variant = Variant(method, dice, **settings)
    if _spell(variant) != name:  # digits beyond a float's: another spelling would mean the same setting
        raise _error(name, f"a number has too many digits: it is taken for {_spell(variant)}")
    return variant


def format_name(variant: Variant) -> str:
    """The one name of a variant: the inverse of :func:`parse`.

    Raises:
        ValueError: No name stands for these settings.
    """
    name = _spell(variant)
    spelled = parse(name)
    for token in TOKENS:
        value = getattr(variant, token.field)
        if spelled is None or value not in (getattr(spelled, token.field), token.defaults.get(variant.method)):
            raise ValueError(f"no trainer name stands for {variant}")
    return name


def _spell(variant: Variant) -> str:
    parts = [f"{PREFIX}{'Dice' if variant.dice else ''}{variant.method}"]
    for token in TOKENS:
        value = getattr(variant, token.field)
        if value is None or value is False or value == token.defaults.get(variant.method):
            continue
        if value is True or isinstance(value, str):
            parts.append(value if isinstance(value, str) else token.form)
        else:
            number = str(value) if isinstance(value, int) else f"{value:.10f}".rstrip("0").rstrip(".")
            parts.append(re.sub("<.>", number.replace(".", "p"), token.form))
    return "_".join(parts)


def grammar(method: str | None = None) -> str:
    """The grammar as text for people, of one method or of all."""
    lines = [f"{PREFIX}[Dice]{method or 'METHOD'}(_token)*"]
    if method is None:
        lines[0] += f", METHOD one of {', '.join(METHODS)}"
    lines.append("Tokens in this order, 'p' for the decimal point, defaults left out:")
    for token in TOKENS:
        if method is not None and not token.fits(method):
            continue
        defaults = {name: value for name, value in token.defaults.items() if method in (None, name)}
        values = sorted(set(defaults.values()))
        default = ""
        if len(values) == 1:
            default = f" (default {values[0]:g})"
        elif values:
            default = " (default " + ", ".join(f"{name} {value:g}" for name, value in defaults.items()) + ")"
        known = f" [{', '.join(token.methods)}]" if method is None and token.methods else ""
        lines.append(f"  {token.form:<14} {token.meaning}{default}{known}")
    lines.append(f"Example: {PREFIX}NACL_lambda0p2_k5_gaussian_sigma2_l2_100epochs_adam")
    return "\n".join(lines)


def _read_token(name: str, method: str, text: str) -> tuple[int, Any]:
    for index, token in enumerate(TOKENS):
        match = re.fullmatch(token.pattern, text)
        if match is None:
            continue
        if not token.fits(method):
            raise _error(name, f"{text!r} is a token of {', '.join(token.methods)}, not of {method}")
        value = _value(token.field, match[1])
        problem = token.check(value)
        if method == "LS" and token.field == "alpha" and value > 1:
            problem = "a smoothing must not exceed 1"
        if problem:
            raise _error(name, f"{text!r}: {problem}")
        if value == token.defaults.get(method):
            raise _error(name, f"{text!r} is the default: leave it out")
        return index, value
    raise _error(name, f"unknown token {text!r}" if text else "'_' twice in a row or at the end")


def _value(field: str, text: str) -> Any:
    kind = next(entry.type for entry in fields(Variant) if entry.name == field)
    if kind == "bool":
        return True
    if kind.startswith("int"):
        return int(text)
    return float(text.replace("p", ".")) if kind.startswith("float") else text


def _error(name: str, problem: str) -> ValueError:
    match = _OURS.fullmatch(name)
    return ValueError(f"trainer name {name!r}: {problem}.\n{grammar(match[2] if match else None)}")
