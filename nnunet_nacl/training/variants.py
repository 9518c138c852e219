"""The settings that a trainer's name can hold, each with the token that sets it."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, fields, replace
from typing import Any

from nnunet_nacl.methods import METHODS, PREFIX

_NUMBERS = {"<x>": r"(?:0|[1-9][0-9]*)(?:p[0-9]*[1-9])?", "<n>": r"[1-9][0-9]*"}


@dataclass(frozen=True)
class Token:
    """One part of a trainer's name; it sets the attribute of :class:`Variant` at which it stands.

    Attributes:
        form: How it is written: ``<x>`` stands for a number with ``p`` for the decimal point, ``<n>`` for a positive
            integer, ``|`` between words of which one is chosen.
        meaning: What it does.
        default: Value without the token, where all methods have it and it is no default of a loss.
        from_plans: Without the token nnU-Net's plans decide, and not the default of the loss.
        of_dice: True where it says nothing without a Dice term, False where it says nothing with one.
        field: The attribute of :class:`Variant`.
    """

    form: str
    meaning: str
    default: float | None = None
    from_plans: bool = False
    of_dice: bool | None = None
    field: str = ""

    @property
    def pattern(self) -> str:
        """Regular expression of the token, whose group is the value."""
        form = self.form if "<" in self.form else f"({self.form})"
        for holder, number in _NUMBERS.items():
            form = form.replace(holder, f"({number})")
        return form.replace("(", f"(?P<{self.field}>", 1)

    def read(self, text: str) -> Any:
        """The value of the attribute, from what the group of the pattern holds."""
        if "<" in self.form:
            return int(text) if "<n>" in self.form else float(text.replace("p", "."))
        return text if "|" in self.form else True

    def write(self, value: Any) -> str:
        """The token of a value."""
        if isinstance(value, str):
            return value
        number = str(value) if isinstance(value, int) else f"{value:.10f}".rstrip("0").rstrip(".")
        return re.sub("<.>", number.replace(".", "p"), self.form)

    @property
    def methods(self) -> tuple[str, ...]:
        """Which methods know it; all if empty."""
        return tuple(method.name for method in METHODS.values() if self.field in method.tokens)

    @property
    def defaults(self) -> dict[str, float]:
        """Number per method; not to be spelled out, since leaving the token out says the same."""
        if self.from_plans or "<" not in self.form:
            return {}
        if self.default is not None:
            return dict.fromkeys(METHODS, self.default)
        return {name: METHODS[name].defaults[METHODS[name].tokens[self.field]] for name in self.methods}

    def fits(self, method: str, dice: bool | None = None) -> bool:
        """Whether trainers of ``method`` know this token, with a Dice term or without if ``dice`` says it."""
        return (not self.methods or method in self.methods) and (None in (dice, self.of_dice) or dice == self.of_dice)


def _token(form: str, meaning: str, **others: Any) -> Any:
    absent = None if "<" in form or "|" in form else False
    return field(default=absent, metadata={"token": Token(form, meaning, **others)})


@dataclass(frozen=True)
class Variant:
    """Settings that a trainer's name stands for. None and False mean the method's, or nnU-Net's, default.

    The attributes after the first two are the tokens of the names, in their order there.

    Attributes:
        method: One of ``METHODS``.
        dice: nnU-Net's soft Dice term is added.
    """

    method: str
    dice: bool = False
    anneal: bool = _token(
        "anneal",
        "the Dice term's weight falls linearly from 1 to 0 over the first half of the epochs (only after Dice)",
        of_dice=True,
    )
    penalty_weight: float | None = _token("lambda<x>", "weight lambda of the penalty")
    kernel_size: int | None = _token(
        "k<n>",
        "neighbourhood of n voxels (odd) along every axis but those whose first convolution in the plans has size 1 "
        "(default: 3)",
        from_plans=True,
    )
    prior: str | None = _token(
        "gaussian|svls",
        "neighbours weighted by a Gaussian, or by one whose centre weighs as much as all others together "
        "(default: all weigh the same)",
    )
    sigma: float | None = _token("sigma<x>", "width of those weights in voxels")
    l2: bool = _token("l2", "squared penalty (default: absolute)")
    softmax: bool = _token("softmax", "penalty on probabilities (default: on logits)")
    sum: bool = _token(
        "sum", "penalty summed over classes, as in the paper's formula (default: their mean, as in its code)"
    )
    gamma: float | None = _token("gamma<x>", "focusing exponent")
    alpha: float | None = _token("alpha<x>", "smoothing (LS, at most 1) or weight of the entropy (ECP)")
    scale: float | None = _token("m<x>", "MbLS: margin m; NACL: scale m of the prior, |m tau - l|")
    plainstart: bool = _token(
        "plainstart",
        "the first weights are nnU-Net's (only without Dice, where biases else start at the logarithms of the classes' "
        "frequencies)",
        of_dice=False,
    )
    epochs: int | None = _token("<n>epochs", "number of epochs", default=1000)
    iterations: int | None = _token(
        "<n>iters",
        "training iterations per epoch; a tenth as many, at least one, are validation iterations",
        default=250,
    )
    adam: bool = _token(
        "adam",
        "the paper's optimiser: Adam at 1e-3, from half-way on 1e-4, without weight decay (default: nnU-Net's SGD)",
    )
    train_percent: float | None = _token(
        "train<x>",
        "train on x % of the fold's training cases; smaller shares are parts of larger ones, validation is unchanged",
        default=100,
    )
    noda: bool = _token("noda", "no data augmentation, and no mirroring in prediction, as in nnU-Net's NoDA trainer")
    seed: int | None = _token(
        "seed<n>", "a replicate under its own name: random numbers are seeded with n (default: not seeded)"
    )

    @property
    def spelled(self) -> list[tuple[Token, Any]]:
        """The tokens of its name with their values: what is set, and is no default."""
        values = [(token, getattr(self, token.field)) for token in TOKENS]
        return [(t, v) for t, v in values if v is not None and v is not False and v != t.defaults.get(self.method)]

    @property
    def meaning(self) -> str:
        """What its loss is, in words."""
        text = METHODS[self.method].meaning
        if self.dice:
            text += ", plus nnU-Net's soft Dice term" + (" with a falling weight" if self.anneal else "")
        return text

    @property
    def name(self) -> str:
        """The trainer's name; :func:`~nnunet_nacl.training.grammar.parse` knows whether there is such a trainer."""
        tokens = [token.write(value) for token, value in self.spelled]
        return "_".join([f"{PREFIX}{'Dice' if self.dice else ''}{self.method}", *tokens])


TOKENS = tuple(
    replace(entry.metadata["token"], field=entry.name) for entry in fields(Variant) if "token" in entry.metadata
)

STOCK = Variant("CE", dice=True)
"""nnU-Net's own loss: the trainer without tokens is nnU-Net's."""


def loss_settings(variant: Variant) -> dict[str, Any]:
    """The settings of the loss that a name spells out; the loss's own defaults hold for the others."""
    names = METHODS[variant.method].tokens
    of_loss = [(token.field, value) for token, value in variant.spelled if token.field in names]
    return {names[token]: token if value is True else value for token, value in of_loss}  # l2 is the value itself
