"""Trainer names: ``nnUNetTrainer[Dice]METHOD(_token)*``.

nnU-Net names result folders by a trainer's class name and finds the class again by that name at prediction, so the
name has to hold every setting. One setting has one spelling: tokens come in a fixed order, defaults are not spelled
out, and numbers have no superfluous zeros (``p`` is the decimal point). The methods stand in
:mod:`nnunet_nacl.methods`, the tokens in :mod:`nnunet_nacl.registration.variants`; this module reads and writes their
names. It needs no torch.
"""

from __future__ import annotations

import re
from typing import Any

from nnunet_nacl.methods import METHODS, PREFIX
from nnunet_nacl.registration.variants import STOCK, TOKENS, Token, Variant

MAX_NAME_LENGTH = 128
"""A result folder is named after trainer, plans and configuration, within the 255 bytes of file systems.

`nnUNetv2_find_best_configuration` joins two such names into one folder: where ensembles of two trainers are wanted,
their names may have about 150 characters together.
"""

_NUMBER = r"((?:0|[1-9][0-9]*)(?:p[0-9]*[1-9])?)"
_INTEGER = r"([1-9][0-9]*)"
_PAPERS_NETWORKS = ("unet", "attunet", "unetpp", "transunet")
_OURS = re.compile(rf"{PREFIX}(Dice)?({'|'.join(METHODS)})(?:_(.*))?", re.DOTALL)


def pattern(token: Token) -> str:
    """Regular expression of a token, whose group is the value."""
    if not token.is_number:
        return f"({token.form})"
    return token.form.replace("<x>", _NUMBER).replace("<n>", _INTEGER)


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
    if Variant(method, dice) == STOCK and rest is None:
        raise ValueError(
            f"{name} would be nnU-Net's own {PREFIX}: use that name. {name}_<token> exists for other schedules of it."
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
    if settings.get("plainstart") and dice:
        raise _error(name, "'plainstart' is how all trainers with a Dice term start: leave it out")
    if settings.get("penalty_weight") == 0 and len(settings.keys() & METHODS[method].tokens.keys()) > 1:
        raise _error(name, "with 'lambda0' there is no penalty for the other tokens to change")
    variant = Variant(method, dice, **settings)
    problem = METHODS[method].check(variant)
    if problem:
        raise _error(name, problem)
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
    for token, value in variant.spelled:
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
        match = re.fullmatch(pattern(token), text)
        if match is None:
            continue
        if not token.fits(method):
            raise _error(name, f"{text!r} is a token of {', '.join(token.methods)}, not of {method}")
        value = _value(token, match[1])
        problem = token.check(value)
        if problem:
            raise _error(name, f"{text!r}: {problem}")
        if value == token.defaults.get(method):
            raise _error(name, f"{text!r} is the default: leave it out")
        return index, value
    if text in _PAPERS_NETWORKS:
        raise ValueError(
            f"trainer name {name!r}: {text!r} is a network of the paper's experiments, whose trainers `pip install "
            "./paper` in the sources of nnunet_nacl registers."
        )
    raise _error(name, f"unknown token {text!r}" if text else "'_' twice in a row or at the end")


def _value(token: Token, text: str) -> Any:
    if "<n>" in token.form:
        return int(text)
    if token.is_number:
        return float(text.replace("p", "."))
    return text if "|" in token.form else True


def _error(name: str, problem: str) -> ValueError:
    match = _OURS.fullmatch(name)
    return ValueError(f"trainer name {name!r}: {problem}.\n{grammar(match[2] if match else None)}")
