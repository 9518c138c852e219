"""Whether nnU-Net will find a trainer, asked before anything is run with it."""

from __future__ import annotations

import contextlib
import difflib
import io
import re
from collections.abc import Iterator

from nnunet_nacl.errors import UserError
from nnunet_nacl.methods import TOKENS
from nnunet_nacl.registration.entry_points import registered_trainers
from nnunet_nacl.registration.grammar import METHODS, PREFIX, parse
from nnunet_nacl.registration.health import check_nnunet
from nnunet_nacl.registration.lookup import suggest

__all__ = ["check_known", "nearest_name"]


def check_known(trainer: str) -> None:
    """UserError unless nnU-Net finds the trainer; names of our grammar it always does.

    Raises:
        ValueError: The method is one of ours, a token of the name is not; the message holds the grammar.
    """
    if trainer == PREFIX or parse(trainer) is not None:
        return
    check, find = check_nnunet()
    if find is None:
        raise UserError(f"nnU-Net: {check.found}; {check.fix}")
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            find(trainer)
    except Exception as error:  # whatever importing another package's trainer raises
        hint = nearest_name(trainer)
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0].partition(". ")[0]
        raise UserError(
            f"{trainer}: nnU-Net finds no such trainer ({reason})"
            + (f"; did you mean {hint}?" if hint else "; `nnunet_nacl trainers` lists those of this package")
        ) from error


def nearest_name(trainer: str) -> str | None:
    """The trainer that a mistyped name most likely means; None where nothing resembles it."""
    base, *tokens = trainer.split("_")
    method = base.removeprefix(PREFIX).removeprefix("Dice")
    if method not in METHODS:
        return suggest(trainer, [registered.name for registered in registered_trainers()])
    if base == f"{PREFIX}DiceCE" and not tokens:
        return PREFIX
    words = {re.sub("<.>", "", word): (i, word) for i, word in _words() if TOKENS[i].fits(method)}
    mended: dict[int, str] = {}
    for text in tokens:
        number = re.search(r"\d+(?:p\d+)?", text)
        found = difflib.get_close_matches(re.sub(r"\d+(?:p\d+)?", "", text), words, n=1, cutoff=0.6)
        if not found:
            return None
        index, word = words[found[0]]
        mended[index] = re.sub("<.>", number[0] if number else "", word)
    name = "_".join([base, *(mended[index] for index in sorted(mended))])
    with contextlib.suppress(ValueError):
        return name if parse(name) is not None else None
    return None


def _words() -> Iterator[tuple[int, str]]:
    """Each way to write a token, with the token's place."""
    for index, token in enumerate(TOKENS):
        for word in token.form.split("|"):
            yield index, word
