"""The grammar of trainer names, ``nnUNetTrainer[Dice]METHOD(_token)*``: its tokens, reading and writing.

nnU-Net finds the class of a trained model by its name, so the name has to hold every setting. One setting has one
spelling: tokens come in a fixed order, defaults are not spelled out, and numbers have no superfluous zeros (``p`` is
the decimal point). The methods stand in :mod:`nnunet_nacl.methods`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, fields, replace
from typing import Any

from nnunet_nacl.methods import METHODS, PREFIX, STOCK_NAME

_NUMBERS = {"<x>": r"(?:0|[1-9][0-9]*)(?:p[0-9]*[1-9])?", "<n>": r"[1-9][0-9]*"}


@dataclass(frozen=True)
class Token:
    """One part of a trainer's name; it sets the attribute of :class:`Variant` at which it stands.

    Attributes:
        form: How it is written: ``<x>`` a number, ``<n>`` a positive integer, ``|`` between words to choose from.
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
        """Number per method, which no name spells out: it is what leaving the token out says."""
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

    ``method`` is one of ``METHODS``, ``dice`` adds nnU-Net's soft Dice term; then come the tokens, in the names' order.
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
        """The trainer's name; :func:`~nnunet_nacl.registration.grammar.parse` knows whether there is such a trainer."""
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


MAX_NAME_LENGTH = 128
"""A result folder is named after trainer, plans and configuration, within the 255 bytes of file systems."""

_PAPERS_NETWORKS = ("unet", "attunet", "unetpp", "transunet")
_OURS = re.compile(rf"{PREFIX}(Dice)?({'|'.join(METHODS)})(?=_|\Z)")


def parse(name: str) -> Variant | None:
    """The settings that a trainer's name stands for; None if it names none of our methods.

    Raises:
        ValueError: The method is ours, but a token is unknown, misplaced, repeated, a default, not for this method or
            out of range, or the name is too long. The message holds the grammar.
    """
    ours = _OURS.match(name)
    if ours is None:
        return None
    dice, method = bool(ours[1]), ours[2]
    if name == STOCK_NAME:
        raise ValueError(f"{name} would be nnU-Net's own {PREFIX}: use that name. {name}_<token> has other schedules.")
    if len(name) > MAX_NAME_LENGTH:
        why = f"at most {MAX_NAME_LENGTH} are allowed, since nnU-Net makes folder names of it"
        raise ValueError(f"trainer name of {len(name)} characters; {why}: {name}")
    tokens = [token for token in TOKENS if token.fits(method, dice)]
    in_order = re.compile("".join(rf"(?:_{token.pattern}(?=_|\Z))?" for token in tokens))
    found = in_order.match(name, ours.end())
    assert found  # each token may be missing
    groups = found.groupdict()
    values = {token.field: token.read(groups[token.field]) for token in tokens if groups[token.field] is not None}
    variant = Variant(method, dice, **values)
    problem = _problem(variant)
    if rest := name[found.end() :]:
        text = rest.split("_")[1]
        problem = f"{text!r} is no token of it, or stands twice or in the wrong place"
        if text in _PAPERS_NETWORKS:
            problem += "; `pip install ./research/paper` in the sources of nnunet_nacl has trainers of that network"
    elif problem is None and variant.name != name:
        needless = next(text for text in name.split("_") if text not in variant.name.split("_"))
        problem = f"{needless!r} is the default, or has too many digits: it is taken for {variant.name}"
    if problem:
        raise ValueError(f"trainer name {name!r}: {problem}.\n{grammar(method)}")
    return variant


def _problem(variant: Variant) -> str | None:
    """What is wrong with the values of a variant, with its token in front."""
    of_penalty = set(METHODS[variant.method].tokens) - {"penalty_weight"}
    if variant.kernel_size is not None and variant.kernel_size % 2 == 0:
        return f"'k{variant.kernel_size}': a neighbourhood needs a centre, so its size must be odd"
    if variant.sigma == 0:
        return "'sigma0': a width must be greater than 0"
    if variant.method == "NACL" and variant.sigma is not None and variant.prior is None:
        return "'sigma' needs 'gaussian' or 'svls' before it: the mean prior has no width"
    if variant.method == "LS" and (variant.alpha or 0) > 1:
        return "'alpha': a smoothing must not exceed 1"
    if variant.train_percent is not None and not 0 < variant.train_percent < 100:
        return "'train': must lie between 0 and 100"
    if variant.penalty_weight == 0 and any(token.field in of_penalty for token, _ in variant.spelled):
        return "'lambda0': there is no penalty for the other tokens to change"
    return None


def grammar(method: str | None = None) -> str:
    """The grammar as text for people, of one method or of all."""
    of_all = "" if method else f", METHOD one of {', '.join(METHODS)}"
    lines = [f"{PREFIX}[Dice]{method or 'METHOD'}(_token)*{of_all}"]
    lines.append("Tokens in this order, 'p' for the decimal point, defaults left out:")
    for token in (token for token in TOKENS if method is None or token.fits(method)):
        defaults = {name: f"{value:g}" for name, value in token.defaults.items() if method in (None, name)}
        differ = len(set(defaults.values())) > 1
        shown = [f"{name} {value}" if differ else value for name, value in defaults.items()][: None if differ else 1]
        default = f" (default {', '.join(shown)})" if shown else ""
        methods = f" [{', '.join(token.methods)}]" if method is None and token.methods else ""
        lines.append(f"  {token.form:<14} {token.meaning}{default}{methods}")
    lines.append(f"Example: {PREFIX}NACL_lambda0p2_k5_gaussian_sigma2_l2_100epochs_adam")
    return "\n".join(lines)
