"""The grammar of trainer names, ``nnUNetTrainer[Dice]METHOD(_token)*``: its tokens, reading and
writing.

nnU-Net finds the class of a trained model by its name, so the name has to hold every setting. One
setting has one spelling: tokens come in a fixed order, defaults are not spelled out, and numbers
have no superfluous zeros (``p`` is the decimal point). The methods stand in
:mod:`nnunet_nacl.methods`. PyTorch is not imported.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from nnunet_nacl.methods import METHODS, PREFIX, STOCK_NAME

TokenValue = float | int | str
"""The number of a token that has one, else its word."""

MAX_NAME_LENGTH = 128
"""A result folder is named after trainer, plans and configuration, within the 255 bytes of file
systems."""

_NUMBER_PATTERNS = {"<x>": "((?:0|[1-9][0-9]*)(?:p[0-9]*[1-9])?)", "<n>": "([1-9][0-9]*)"}
_METHOD_PATTERN = re.compile(rf"{PREFIX}(Dice)?({'|'.join(METHODS)})(?=_|\Z)")
_PAPERS_NETWORKS = ("unet", "attunet", "unetpp", "transunet")


@dataclass(frozen=True)
class Token:
    """One part of a trainer's name: it sets an attribute of the trainer's class, or a setting of
    its loss.

    Attributes:
        form: How it is written: ``<x>`` a number, ``<n>`` a positive integer, ``|`` between words
            to choose from.
        meaning: What it does.
        attribute: The attribute of :class:`~nnunet_nacl_trainers.base.CalibrationTrainer` that it
            sets; None for a setting of the loss, whose name the table of methods has.
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
        row = METHODS[method]
        default = row.defaults[row.settings_by_token[self.form]]
        assert not isinstance(default, str)  # a number sets it
        return default

    def read(self, text: str) -> TokenValue | None:
        """The value of a part of a name; None if it is not this token, or written with needless
        zeros."""
        if not self.has_number:
            return text if text in self.words else None
        pattern = self.form
        for placeholder, number in _NUMBER_PATTERNS.items():
            pattern = pattern.replace(placeholder, number)
        match = re.fullmatch(pattern, text)
        if match is None:
            return None
        return int(match[1]) if self.is_integer else float(match[1].replace("p", "."))

    def write(self, value: TokenValue) -> str:
        """The part of a name that stands for a value."""
        if isinstance(value, str):
            return value
        number = str(value) if isinstance(value, int) else f"{value:.10f}".rstrip("0").rstrip(".")
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
    def named_trainer(self) -> str:
        """The trainer whose settings the tokens change."""
        return f"{PREFIX}{'Dice' if self.with_dice else ''}{self.method}"

    @property
    def name(self) -> str:
        """The trainer's name; :func:`parse` knows whether there is such a trainer."""
        parts = [token.write(self.values[token.form]) for token in _tokens_of(self)]
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
        for token in _tokens_of(self):
            if token.attribute is None:
                continue
            if token.has_number:
                attributes[token.attribute] = self.values[token.form]
            else:
                attributes[token.attribute] = token.attribute_value
        return attributes


def _tokens_of(variant: Variant) -> list[Token]:
    """The tokens of its name, in their order."""
    return [token for token in TOKENS if token.form in variant.values]


def parse(name: str) -> Variant | None:
    """The settings that a trainer's name stands for; None if it names none of our methods.

    Raises:
        ValueError: The method is ours, but a token is unknown, misplaced, repeated, a default, not
            for this method or out of range, or the name is too long. The message holds the grammar;
            its last line, where there is one, the name that was probably meant.

    """
    match = _METHOD_PATTERN.match(name)
    if match is None:
        return None
    method = match[2]
    with_dice = match[1] is not None
    if name == STOCK_NAME:
        raise ValueError(
            f"{name} would be nnU-Net's own {PREFIX}: use that name. {name}_<token> has other"
            " schedules."
        )
    if len(name) > MAX_NAME_LENGTH:
        raise ValueError(
            f"trainer name of {len(name)} characters; at most {MAX_NAME_LENGTH} are allowed, since "
            f"nnU-Net makes folder names of it: {name}"
        )
    parts = name.split("_")[1:]
    tokens = [token for token in TOKENS if token.fits(method, with_dice)]
    values, unread_part = _read_in_order(parts, tokens)
    variant = Variant(method, with_dice, values)
    problem = _find_bad_value(variant)
    if unread_part is not None:
        problem = _explain_unread(unread_part)
    elif problem is None:
        problem = _find_needless_part(parts, variant)
    if problem is None:
        return variant
    message = f"trainer name {name!r}: {problem}.\n{grammar(method)}"
    advice = _suggest_name(variant, parts, tokens)
    raise ValueError(message if advice is None else f"{message}\n{advice}")


def _read_in_order(
    parts: Sequence[str], tokens: Iterable[Token]
) -> tuple[dict[str, TokenValue], str | None]:
    """Values by form of the parts of a name, up to the first that is no token at its place, which
    is returned too."""
    values: dict[str, TokenValue] = {}
    remaining_tokens = iter(tokens)
    for part in parts:
        for token in remaining_tokens:
            value = token.read(part)
            if value is not None:
                values[token.form] = value
                break
        else:
            return values, part
    return values, None


def _explain_unread(part: str) -> str:
    problem = f"{part!r} is no token of it, or stands twice or in the wrong place"
    if part in _PAPERS_NETWORKS:
        problem += (
            "; `pip install ./research/paper` in the sources of nnunet_nacl has trainers of that"
            " network"
        )
    return problem


def _find_bad_value(variant: Variant) -> str | None:
    """What is wrong with the values of a variant, with its token in front."""
    settings = variant.loss_settings
    attributes = variant.class_attributes
    kernel_size = settings.get("kernel_size")
    if isinstance(kernel_size, int) and kernel_size % 2 == 0:
        return f"'k{kernel_size}': a neighbourhood needs a centre, so its size must be odd"
    if settings.get("sigma") == 0:
        return "'sigma0': a width must be greater than 0"
    if variant.method == "NACL" and "sigma" in settings and "prior" not in settings:
        return "'sigma' needs 'gaussian' or 'svls' before it: the mean prior has no width"
    smoothing = settings.get("smoothing")
    if isinstance(smoothing, float) and smoothing > 1:
        return "'alpha': a smoothing must not exceed 1"
    train_percent = attributes.get("train_percent")
    if isinstance(train_percent, float) and not 0 < train_percent <= 100:
        return "'train': must lie between 0 and 100"
    if variant.values.get("lambda<x>") == 0 and len(settings) > 1:
        return "'lambda0': there is no penalty for the other tokens to change"
    if "augmentation" in attributes and "mirroring" in attributes:
        return "'nomirror': with 'noda' there is no mirroring either"
    return None


def _find_needless_part(parts: Sequence[str], variant: Variant) -> str | None:
    """The part of a name that says what holds anyway, or says a number otherwise than it is
    read."""
    for part, token in zip(parts, _tokens_of(variant)):
        value = variant.values[token.form]
        if value == token.default_for(variant.method):
            return f"{part!r} is the default, which names leave out"
        if token.write(value) != part:
            return f"{part!r} has too many digits: it is taken for {token.write(value)}"
    return None


def _suggest_name(variant: Variant, parts: Sequence[str], tokens: Sequence[Token]) -> str | None:
    """One line with the name that was probably meant by the parts; None if that cannot be told."""
    values: dict[str, TokenValue] = {}
    defaults = []
    for part in parts:
        guess = _guess_token(part, tokens)
        if guess is None:
            return None
        token, value = guess
        if values.get(token.form, value) != value:
            return None  # two values of one token
        if value == token.default_for(variant.method):
            defaults.append(token.describe(value))
        else:
            values[token.form] = value
    meant = Variant(variant.method, variant.with_dice, values)
    if _find_bad_value(meant) is not None or len(meant.name) > MAX_NAME_LENGTH:
        return None
    name = PREFIX if meant.name == STOCK_NAME else meant.name
    if not defaults:
        return f"Did you mean {name}?"
    are = "is the default" if len(defaults) == 1 else "are defaults"
    return f"{' and '.join(defaults)} {are} and left out of names: use {name}"


def _guess_token(part: str, tokens: Sequence[Token]) -> tuple[Token, TokenValue] | None:
    """The token that a part of a name probably means, and its value: ``lambda0.20`` is lambda,
    0.2."""
    for token in tokens:
        value = token.read(part.lower())
        if value is not None:
            return token, value
    match = re.fullmatch(r"([a-z]*)([0-9]*(?:[.,p][0-9]+)?)([a-z]*)", part.lower())
    if match is None:
        return None
    number = match[2].replace("p", ".").replace(",", ".")
    tokens_by_word: dict[str, Token] = {}
    for token in tokens:
        if token.has_number == bool(number):
            tokens_by_word |= dict.fromkeys(token.words, token)
    closest = difflib.get_close_matches(match[1] + match[3], tokens_by_word, n=1, cutoff=0.7)
    if not closest:
        return None
    token = tokens_by_word[closest[0]]
    if not token.has_number:
        return token, closest[0]
    value = token.read(token.write(float(number)))
    return None if value is None else (token, value)


def grammar(method: str | None = None) -> str:
    """The grammar as text for people, of one method or of all."""
    head = f"{PREFIX}[Dice]{method or 'METHOD'}(_token)*"
    if method is None:
        head += f", METHOD one of {', '.join(METHODS)}"
    lines = [head, "Tokens in this order, 'p' for the decimal point, defaults left out:"]
    for token in TOKENS:
        if method is None or token.fits(method):
            lines.append(f"  {token.form:<14} {token.meaning}{_defaults_in_words(token, method)}")
    lines.append(f"Example: {PREFIX}NACL_lambda0p2_k5_gaussian_sigma2_l2_100epochs_adam")
    return "\n".join(lines)


def _defaults_in_words(token: Token, method: str | None) -> str:
    """What the grammar adds to the meaning of a token: its default by method, and for all methods
    which have it."""
    methods = token.methods if method is None else (method,)
    defaults = {name: token.default_for(name) for name in methods}
    numbers = {name: f"{number:g}" for name, number in defaults.items() if number is not None}
    words = ""
    if len(set(numbers.values())) == 1:
        words = f" (default {next(iter(numbers.values()))})"
    elif numbers:
        words = f" (default {', '.join(f'{name} {number}' for name, number in numbers.items())})"
    if method is None and token.attribute is None:
        words += f" [{', '.join(methods)}]"
    return words
