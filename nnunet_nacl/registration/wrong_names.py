"""What is wrong with a trainer's name that begins as one of ours, and which name was probably
meant."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence

from nnunet_nacl.methods import PREFIX, STOCK_NAME
from nnunet_nacl.registration.tokens import MAX_NAME_LENGTH, Token, TokenValue, Variant

_PAPERS_NETWORKS = ("unet", "attunet", "unetpp", "transunet")


def explain_unread(part: str) -> str:
    """What is wrong with a part of a name that is no token where it stands."""
    problem = f"{part!r} is no token of it, or stands twice or in the wrong place"
    if part in _PAPERS_NETWORKS:
        problem += (
            "; `pip install ./research/paper` in the sources of nnunet_nacl has trainers of that"
            " network"
        )
    return problem


def find_bad_value(variant: Variant) -> str | None:
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


def find_needless_part(parts: Sequence[str], variant: Variant) -> str | None:
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


def suggest_name(variant: Variant, parts: Sequence[str], tokens: Sequence[Token]) -> str | None:
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
    if find_bad_value(meant) is not None or len(meant.name) > MAX_NAME_LENGTH:
        return None
    name = meant.name
    if name == STOCK_NAME:
        name = PREFIX
    if not defaults:
        return f"Did you mean {name}?"
    verb_phrase = "is the default" if len(defaults) == 1 else "are defaults"
    return f"{' and '.join(defaults)} {verb_phrase} and left out of names: use {name}"


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
    # Written and read again, the number is of the token's type; <n> refuses 2.5, and 0.
    value = token.read(token.write(float(number)))
    if value is None:
        return None
    return token, value
