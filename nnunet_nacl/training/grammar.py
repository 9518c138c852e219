"""Trainer names: ``nnUNetTrainer[Dice]METHOD(_token)*``.

nnU-Net names result folders by a trainer's class name and finds the class again by that name at prediction, so the
name has to hold every setting. One setting has one spelling: tokens come in a fixed order, defaults are not spelled
out, and numbers have no superfluous zeros (``p`` is the decimal point). The methods stand in
:mod:`nnunet_nacl.methods`, the tokens in :mod:`nnunet_nacl.training.variants`; this module reads and writes
their names.
"""

from __future__ import annotations

import re

from nnunet_nacl.methods import METHODS, PREFIX, STOCK_NAME
from nnunet_nacl.training.variants import TOKENS, Variant

MAX_NAME_LENGTH = 128
"""A result folder is named after trainer, plans and configuration, within the 255 bytes of file systems.

`nnUNetv2_find_best_configuration` joins two such names into one folder: where ensembles of two trainers are wanted,
their names may have about 150 characters together.
"""

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
