"""The grammar of trainer names, ``nnUNetTrainer[Dice]METHOD(_token)*``: reads them and explains
itself.

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
from nnunet_nacl.registration.tokens import MAX_NAME_LENGTH, TOKENS, Token, TokenValue, Variant
from nnunet_nacl.registration.wrong_names import (
    explain_unread,
    find_bad_value,
    find_needless_part,
    suggest_name,
)

_METHOD_PATTERN = re.compile(rf"{PREFIX}(Dice)?({'|'.join(METHODS)})(?=_|\Z)")


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
    problem = explain_unread(unread_part) if unread_part is not None else None
    if problem is None:
        problem = find_bad_value(variant)
    if problem is None:
        problem = find_needless_part(parts, variant)
    if problem is None:
        return variant
    message = f"trainer name {name!r}: {problem}.\n{grammar(method)}"
    advice = suggest_name(variant, parts, tokens)
    if advice is not None:
        message = f"{message}\n{advice}"
    raise ValueError(message)


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
    methods = (method,) if method is not None else token.methods
    defaults = {name: token.default_for(name) for name in methods}
    numbers = {name: f"{number:g}" for name, number in defaults.items() if number is not None}
    words = ""
    if len(set(numbers.values())) == 1:
        words = f" (default {next(iter(numbers.values()))})"
    elif numbers:
        by_method = [f"{name} {number}" for name, number in numbers.items()]
        words = f" (default {', '.join(by_method)})"
    if method is None and token.attribute is None:
        words += f" [{', '.join(methods)}]"
    return words
