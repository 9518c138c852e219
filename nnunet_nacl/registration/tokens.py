"""The tokens of trainers' names, each an attribute of the trainer's class or a setting of its loss,
and what a name with tokens stands for."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from nnunet_nacl.methods import METHODS, PREFIX

TokenValue = float | int | str
"""The number of a token that has one, else its word."""

_NUMBER_PATTERNS = {"<x>": "((?:0|[1-9][0-9]*)(?:p[0-9]*[1-9])?)", "<n>": "([1-9][0-9]*)"}


@dataclass(frozen=True)
class Token:
    """One part of a trainer's name: it sets an attribute of the trainer's class, or a setting of
    its loss.

    Attributes:
        form: How it is written: ``<x>`` a number, ``<n>`` a positive integer, ``|`` between words
            to choose from.
        meaning: What it does.
        attribute: The attribute of :class:`~nnunet_nacl_trainers.base.CalibrationTrainer` that it
            sets; None for a setting of the loss, whose name the table of methods
            (:data:`nnunet_nacl.methods.METHODS`) has.
        attribute_value: What a word sets the attribute to; numbers set it to themselves.
        default: The number that holds without the token, for an attribute. For a loss the table of
            methods has it.
        from_plans: Without the token nnU-Net's plans decide, and not the default of the loss.
        with_dice: True where it says nothing without a Dice term, False where it says nothing with
            one.

    """

    form: str
    meaning: str
    attribute: str | None = None
    attribute_value: bool = True
    default: float | None = None
    from_plans: bool = False
    with_dice: bool | None = None

    @property
    def has_number(self) -> bool:
        """Whether a number is part of it."""
        return "<" in self.form

    @property
    def is_integer(self) -> bool:
        """Whether that number is a positive integer."""
        return "<n>" in self.form

    @property
    def words(self) -> list[str]:
        """Its words: one, or those to choose from."""
        return re.sub("<.>", "", self.form).split("|")

    @property
    def methods(self) -> tuple[str, ...]:
        """The methods whose loss has the setting; all of them for an attribute of the trainer."""
        if self.attribute is not None:
            return tuple(METHODS)
        methods = METHODS.values()
        return tuple(method.name for method in methods if self.form in method.settings_by_token)

    def fits(self, method: str, with_dice: bool | None = None) -> bool:
        """Whether names of ``method`` may have it; ``with_dice`` says with a Dice term or without,
        None either."""
        if method not in self.methods:
            return False
        return with_dice is None or self.with_dice is None or self.with_dice == with_dice

    def default_for(self, method: str) -> float | None:
        """The number that no name of a method spells out, since it holds without the token; None if
        there is none."""
        if not self.has_number or self.from_plans:
            return None
        if self.attribute is not None:
            return self.default
        method_row = METHODS[method]
        setting = method_row.settings_by_token[self.form]
        default = method_row.defaults[setting]
        assert not isinstance(default, str)  # a number sets it
        return default

    def read(self, text: str) -> TokenValue | None:
        """The value of a part of a name; None if it is not this token, or written with needless
        zeros."""
        if not self.has_number:
            if text in self.words:
                return text
            return None
        pattern = self.form
        for placeholder, number in _NUMBER_PATTERNS.items():
            pattern = pattern.replace(placeholder, number)
        match = re.fullmatch(pattern, text)
        if match is None:
            return None
        if self.is_integer:
            return int(match[1])
        return float(match[1].replace("p", "."))

    def write(self, value: TokenValue) -> str:
        """The part of a name that stands for a value."""
        if isinstance(value, str):
            return value
        number = f"{value:.10f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)
        return re.sub("<.>", number.replace(".", "p"), self.form)

    def describe(self, value: TokenValue) -> str:
        """A value in words, such as ``lambda 0.1`` or ``100 epochs``."""
        if isinstance(value, str):
            return value
        return re.sub("<.>", f" {value:g} ", self.form).strip()


TOKENS = (
    Token(
        "anneal",
        "the Dice term's weight falls linearly from 1 to 0 over the first half of the epochs (only"
        " after Dice)",
        attribute="anneal_dice",
        with_dice=True,
    ),
    Token("lambda<x>", "weight lambda of the penalty"),
    Token(
        "k<n>",
        "neighbourhood of n voxels (odd) along every axis but those whose first convolution in the"
        " plans has size 1 (default: 3)",
        from_plans=True,
    ),
    Token(
        "gaussian|svls",
        "neighbours weighted by a Gaussian, or by one whose centre weighs as much as all others"
        " together (default: all weigh the same)",
    ),
    Token("sigma<x>", "width of those weights in voxels"),
    Token("l2", "squared penalty (default: absolute)"),
    Token("softmax", "penalty on probabilities (default: on logits)"),
    Token(
        "sum",
        "penalty summed over classes, as in the paper's formula (default: their mean, as in its"
        " code)",
    ),
    Token("gamma<x>", "focusing exponent"),
    Token("alpha<x>", "smoothing (LS, at most 1) or weight of the entropy (ECP)"),
    Token("m<x>", "MbLS: margin m; NACL: scale m of the prior, |m tau - l|"),
    Token(
        "plainstart",
        "the first weights are nnU-Net's (only without Dice, where biases else start at the"
        " logarithms of the classes' frequencies)",
        attribute="start_at_class_frequencies",
        attribute_value=False,
        with_dice=False,
    ),
    Token("<n>epochs", "number of epochs", attribute="epochs", default=1000),
    Token(
        "<n>iters",
        "training iterations per epoch; a tenth as many, at least one, are validation iterations",
        attribute="iterations_per_epoch",
        default=250,
    ),
    Token(
        "adam",
        "the paper's optimiser: Adam at 1e-3, from half-way on 1e-4, without weight decay (default:"
        " nnU-Net's SGD)",
        attribute="use_adam",
    ),
    Token(
        "train<x>",
        "train on x % of the fold's training cases; smaller shares are parts of larger ones,"
        " validation is unchanged",
        attribute="train_percent",
        default=100,
    ),
    Token(
        "noda",
        "no data augmentation, and no mirroring in prediction, as in nnU-Net's NoDA trainer",
        attribute="augmentation",
        attribute_value=False,
    ),
    Token(
        "nomirror",
        "no mirroring in training and prediction, as in nnU-Net's NoMirroring trainer",
        attribute="mirroring",
        attribute_value=False,
    ),
    Token(
        "seed<n>",
        "a replicate under its own name: random numbers are seeded with n (default: not seeded)",
        attribute="seed",
    ),
)
"""All tokens, in the order that they have in names."""

MAX_NAME_LENGTH = 128
"""A result folder is named after trainer, plans and configuration, within the 255 bytes of file
systems."""


@dataclass(frozen=True)
class Variant:
    """What a trainer's name stands for.

    Attributes:
        method: One of ``METHODS``.
        with_dice: Whether nnU-Net's soft Dice term is added.
        values: Values of the tokens by their forms; what is absent has the method's, or nnU-Net's,
            default.

    """

    method: str
    with_dice: bool = False
    values: Mapping[str, TokenValue] = field(default_factory=dict)

    @property
    def tokens(self) -> list[Token]:
        """The tokens of its name, in their order."""
        return [token for token in TOKENS if token.form in self.values]

    @property
    def named_trainer(self) -> str:
        """The trainer whose settings the tokens change."""
        if self.with_dice:
            return f"{PREFIX}Dice{self.method}"
        return f"{PREFIX}{self.method}"

    @property
    def name(self) -> str:
        """The trainer's name; :func:`~nnunet_nacl.registration.grammar.parse` knows whether there
        is such a trainer."""
        parts = [token.write(self.values[token.form]) for token in self.tokens]
        return "_".join([self.named_trainer, *parts])

    @property
    def meaning(self) -> str:
        """What its loss is, in words."""
        meaning = METHODS[self.method].meaning
        if self.with_dice:
            meaning += ", plus nnU-Net's soft Dice term"
        if "anneal" in self.values:
            meaning += " with a falling weight"
        return meaning

    @property
    def loss_settings(self) -> dict[str, TokenValue]:
        """The settings of the loss that the name spells out; the loss's own defaults hold for the
        others."""
        names = METHODS[self.method].settings_by_token
        return {names[form]: value for form, value in self.values.items() if form in names}

    @property
    def class_attributes(self) -> dict[str, TokenValue]:
        """The attributes of the trainer's class that the name spells out."""
        attributes: dict[str, TokenValue] = {}
        for token in self.tokens:
            if token.attribute is None:
                continue
            if token.has_number:
                attributes[token.attribute] = self.values[token.form]
            else:
                attributes[token.attribute] = token.attribute_value
        return attributes
