"""The grammar of trainer names, ``nnUNetTrainer[Dice]METHOD(_token)*``: reads them, says what is
wrong with a name and which was probably meant, and explains itself.

nnU-Net finds the class of a trained model by its name, so the name has to hold every setting. One
setting has one spelling: tokens come in a fixed order, defaults are not spelled out, and numbers
have no superfluous zeros (``p`` is the decimal point). The methods stand in
:mod:`nnunet_nacl.methods`, the tokens in :mod:`nnunet_nacl.registration.tokens`. PyTorch is not
imported.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from nnunet_nacl.methods import METHODS, PREFIX, STOCK_NAME
from nnunet_nacl.registration.suggestions import (
    describe_defaults,
    explain_part,
    guess_variant,
    spell,
)
from nnunet_nacl.registration.tokens import MAX_NAME_LENGTH, TOKENS, Token, TokenValue, Variant

_PAPERS_NETWORKS = ("unet", "attunet", "unetpp", "transunet")

_METHOD_PATTERN = re.compile(rf"{PREFIX}(Dice)?({'|'.join(METHODS)})(?=_|\Z)")


def parse(name: str) -> Variant | None:
    """The settings that a trainer's name stands for; None if it names none of our methods.

    Raises:
        ValueError: The method is ours, but a token is unknown, misplaced, repeated, a default, not
            for this method or out of range, or the name is too long. The message is one line, and
            ends in the name that was probably meant, or the command that prints the grammar.

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
    problem = None
    if unread_part is not None:
        problem = _explain_unread(unread_part, variant)
    if problem is None:
        problem = _find_bad_value(variant)
    if problem is None:
        problem = _find_needless_part(parts, variant)
    if problem is None:
        return variant
    raise ValueError(f"trainer name {name!r}: {_with_advice(problem, variant, parts)}")


def _read_in_order(
    parts: Sequence[str], tokens: Iterable[Token]
) -> tuple[dict[str, TokenValue], str | None]:
    """Values by form of the parts of a name, up to the first that is no token at its place, which
    is returned too."""
    values: dict[str, TokenValue] = {}
    # One iterator for all parts: a part is looked for behind the token of the part before it, so
    # that a token that was passed over cannot follow.
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


def _explain_unread(part: str, variant: Variant) -> str:
    """What is wrong with a part of a name that is no token where it stands."""
    problem = explain_part(part, variant.method, variant.with_dice)
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
    """The part of a name that says what holds anyway, or says a number otherwise than it is read.

    All parts must have been read: they then stand in the order of the variant's tokens.
    """
    for part, token in zip(parts, variant.tokens):
        value = variant.values[token.form]
        if value == token.default_for(variant.method):
            return f"{part!r} is the default, which names leave out"
        if token.write(value) != part:
            return f"{part!r} has too many digits: it is taken for {token.write(value)}"
    return None


def _with_advice(problem: str, variant: Variant, parts: Sequence[str]) -> str:
    """What is wrong with the parts of a name, and what to type."""
    guess = guess_variant(variant.method, variant.with_dice, parts)
    if guess is not None:
        meant, defaults = describe_defaults(guess)
        if _find_bad_value(meant) is None and len(meant.name) <= MAX_NAME_LENGTH:
            if not defaults:
                return f"{problem}; did you mean {spell(meant)}?"
            verb_phrase = "is the default" if len(defaults) == 1 else "are defaults"
            listed = " and ".join(defaults)
            return f"{listed} {verb_phrase}, which names leave out; type {spell(meant)}"
    return f"{problem}; `nnunet_nacl trainers` has the grammar"


def grammar() -> str:
    """The grammar as text for people."""
    lines = [
        f"{PREFIX}[Dice]METHOD(_token)*, METHOD one of {', '.join(METHODS)}",
        "Tokens in this order, 'p' for the decimal point, defaults left out:",
    ]
    for token in TOKENS:
        lines.append(f"  {token.form:<14} {token.meaning}{_defaults_in_words(token)}")
    lines.append(f"Example: {PREFIX}NACL_lambda0p2_k5_gaussian_sigma2_l2_100epochs_adam")
    return "\n".join(lines)


def _defaults_in_words(token: Token) -> str:
    """What the grammar adds to the meaning of a token: its default by method, and which methods
    have it."""
    defaults = {name: token.default_for(name) for name in token.methods}
    numbers = {name: f"{number:g}" for name, number in defaults.items() if number is not None}
    words = ""
    if len(set(numbers.values())) == 1:
        words = f" (default {next(iter(numbers.values()))})"
    elif numbers:
        by_method = [f"{name} {number}" for name, number in numbers.items()]
        words = f" (default {', '.join(by_method)})"
    if token.attribute is None:
        words += f" [{', '.join(token.methods)}]"
    return words
