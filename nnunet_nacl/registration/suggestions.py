"""What a mistyped name of a trainer, or a part of it, probably means.

The tables say it by meaning; where they do not, the nearest name is taken. This is the only place
that guesses at names; :mod:`nnunet_nacl.registration.grammar` and
:mod:`nnunet_nacl.registration.lookup` say it in their errors.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from dataclasses import replace

from nnunet_nacl.methods import METHODS, PREFIX, STOCK_METHOD, STOCK_NAME
from nnunet_nacl.registration.tokens import TOKENS, Token, TokenValue, Variant

_TOKENS_BY_WORD = {
    "": ("lambda<x>", "alpha<x>", "gamma<x>", "sigma<x>"),  # a number alone
    "weight": ("lambda<x>", "alpha<x>"),
    "margin": ("m<x>",),
    "scale": ("m<x>",),
    "kernel": ("k<n>",),
    "size": ("k<n>",),
    "smoothing": ("alpha<x>",),
    "std": ("sigma<x>",),
    "e": ("<n>epochs",),
    "ep": ("<n>epochs",),
    "iterations": ("<n>iters",),
    "probs": ("softmax",),
    "squared": ("l2",),
    "percent": ("train<x>",),
    "noaug": ("noda",),
}
"""By what stands beside a number, or alone, forms of tokens: the first that the method has."""

_LOSSES_BY_WORD = {
    "dice": f"Dice{STOCK_METHOD}",
    "cedice": f"Dice{STOCK_METHOD}",
    "crossentropy": "CE",
    "labelsmoothing": "LS",
    "marginls": "MbLS",
    "margin": "MbLS",
    "entropy": "ECP",
    "confidencepenalty": "ECP",
}
"""By what stands behind ``nnUNetTrainer``, in small letters, the loss as names have it."""


def guess_variant(method: str, with_dice: bool, parts: Sequence[str]) -> Variant | None:
    """The variant whose tokens the parts of a name probably mean; None if that cannot be told.

    Defaults are in it, too. Tokens of other methods are left out; one that goes with a Dice term
    brings it.
    """
    values: dict[str, TokenValue] = {}
    for part in _join_numbers(parts):
        guess = guess_token(part, [token for token in TOKENS if token.fits(method)])
        if guess is None:
            if guess_token(part, TOKENS) is None:
                return None
            continue  # of other methods
        token, value = guess
        if token.with_dice is False and with_dice:
            continue
        if values.get(token.form, value) != value:
            return None  # two values of one token
        with_dice = with_dice or bool(token.with_dice)
        values[token.form] = value
    return Variant(method, with_dice, values)


def _join_numbers(parts: Sequence[str]) -> list[str]:
    """The parts, with ``lambda`` and ``0.2`` as one."""
    joined: list[str] = []
    for part in parts:
        if joined and joined[-1].isalpha() and re.fullmatch(r"[0-9][0-9.,p]*", part):
            joined[-1] += part
        else:
            joined.append(part)
    return joined


def guess_token(part: str, tokens: Sequence[Token]) -> tuple[Token, TokenValue] | None:
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
    guess = _guess_word(match[1] + match[3], bool(number), tokens)
    if guess is None:
        return None
    token, word = guess
    if not token.has_number:
        return token, word
    # Written and read again, the number is of the token's type; <n> refuses 2.5, and 0.
    value = token.read(token.write(float(number)))
    if value is None:
        return None
    return token, value


def _guess_word(word: str, has_number: bool, tokens: Sequence[Token]) -> tuple[Token, str] | None:
    """The token, with or without a number, that a word means, and its own word: by meaning, else
    the nearest."""
    tokens_by_word: dict[str, Token] = {}
    for token in tokens:
        if token.has_number == has_number:
            tokens_by_word |= dict.fromkeys(token.words, token)
    for form in _TOKENS_BY_WORD.get(word, ()):
        for own_word, token in tokens_by_word.items():
            if token.form == form:
                return token, own_word
    closest = difflib.get_close_matches(word, tokens_by_word, n=1, cutoff=0.7)
    if not closest:
        return None
    return tokens_by_word[closest[0]], closest[0]


def describe_defaults(variant: Variant) -> tuple[Variant, list[str]]:
    """A variant without the tokens that say what holds anyway, and these in words."""
    values = dict(variant.values)
    defaults = []
    for token in variant.tokens:
        if variant.values[token.form] == token.default_for(variant.method):
            defaults.append(token.describe(values.pop(token.form)))
    return replace(variant, values=values), defaults


def guess_trainer(name: str, known_names: Iterable[str]) -> str | None:
    """The trainer that a mistyped name, without its tokens, most likely means; None for none.

    Only what follows nnU-Net's common prefix is compared: `nnUNetTrainer_20epochs` resembles none
    of ours. Who puts letters before a known name, as in `nnUNetTrainerMyNACL`, has not mistyped it.
    nnU-Net's own trainer is named as the one of ours that takes its tokens.

    Args:
        name: The name, up to the first ``_``.
        known_names: Of all trainers that there are.
    """
    typed = name.lower().removeprefix(PREFIX.lower())
    names_by_ending = {}
    for known_name in known_names:
        ending = known_name.removeprefix(PREFIX).lower()
        is_extended = typed != ending and typed.endswith(ending)
        if known_name.startswith(PREFIX) and not is_extended:
            names_by_ending[ending] = known_name
    by_meaning = _LOSSES_BY_WORD.get(typed)
    if by_meaning is not None:
        return f"{PREFIX}{by_meaning}"
    method = typed.removesuffix("dice")
    if method != typed and f"dice{method}" in names_by_ending:
        return names_by_ending[f"dice{method}"]
    closest = difflib.get_close_matches(typed, names_by_ending, n=1, cutoff=0.7)
    if not closest:
        return None
    return names_by_ending[closest[0]]


def spell(variant: Variant) -> str:
    """The name to type: that of nnU-Net's own trainer where it would be that."""
    return PREFIX if variant.name == STOCK_NAME else variant.name


def explain_part(part: str, method: str, with_dice: bool) -> str:
    """What is wrong with a part of a name that is no token where it stands."""
    guess = guess_token(part, TOKENS)
    of_method = guess_token(part, [token for token in TOKENS if token.fits(method, with_dice)])
    if guess is not None and of_method is None:
        token, _ = guess
        word = token.words[0]
        if method not in token.methods:
            owners = [name for name in METHODS if name in token.methods]
            return f"{method} has no {word} ({', '.join(owners)} {_have(owners)})"
        if token.with_dice is not None and token.with_dice != with_dice:
            return f"{part!r} says nothing {'beside' if with_dice else 'without'} a Dice term"
    return f"{part!r} is no token of it, or stands twice or in the wrong place"


def _have(names: Sequence[str]) -> str:
    return "has" if len(names) == 1 else "have"
