"""`nnunet_nacl trainers`: lists the trainers, explains their names, and says how others are
named."""

from __future__ import annotations

import argparse
from pathlib import Path

from nnunet_nacl.methods import METHODS, NAMED_TRAINERS, PREFIX, STOCK_NAME
from nnunet_nacl.registration.class_files import (
    find_class_file,
    find_nnunets_class_file,
    find_users_class_file,
    our_trainers_folder,
)
from nnunet_nacl.registration.grammar import grammar, parse
from nnunet_nacl.registration.lookup import registered_trainers, suggest
from nnunet_nacl.registration.tokens import TOKENS, Token, Variant
from nnunet_nacl.utilities.errors import UserError

HELP = "list the trainers and the grammar of their names, or explain one name"


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the subcommand's arguments."""
    parser.description = (
        "Without a name: the trainers that stand ready, their losses, and the tokens from which"
        " other names are made.\nA name made of tokens needs no file and no registration: give it"
        " to nnUNetv2_train -tr.\nWith a name: what it means, the file of its class, and the"
        " command that trains it."
    )
    parser.epilog = (
        "examples:\n  nnunet_nacl trainers\n  nnunet_nacl trainers"
        " nnUNetTrainerDiceNACL_anneal_lambda0p2_250epochs"
    )
    parser.add_argument("name", nargs="?", metavar="NAME", help="a trainer's name")


def run(args: argparse.Namespace) -> int:
    """Prints the list, or explains the name."""
    if args.name is None:
        print(_describe_all())
    else:
        print(_explain(args.name))
    return 0


def _describe_all() -> str:
    lines = [
        (
            "Trainers for nnUNetv2_train -tr (l logits, p softmax, y label, tau class shares among"
            " neighbours):"
        ),
        "",
    ]
    indent = " " * (len(PREFIX) + 6)
    for name, method in METHODS.items():
        lines.append(f"  {PREFIX}{name:<6} {method.meaning}")
        lines.append(f"  {indent} {method.formula}")
        lines.append(f"  {indent} {_our_file(PREFIX + name)}")
    lines += ["", "The same with nnU-Net's soft Dice term added, in the same files:"]
    lines += [f"  {name}" for name in NAMED_TRAINERS if name.startswith(f"{PREFIX}Dice")]
    lines += [
        f"nnU-Net's own {PREFIX} is Dice + CE; with tokens it is called {STOCK_NAME}_<token>.",
        "",
        (
            "Class labels, regions and ignore label, 2d to 3d_cascade_fullres; nnU-Net's schedule"
            " and optimiser unless a"
        ),
        (
            "token says otherwise. Fine-tuning: nnUNetv2_train ... -pretrained_weights CHECKPOINT,"
            " as for any trainer."
        ),
        "",
        grammar(),
    ]
    foreign = sorted(trainer.name for trainer in registered_trainers() if not trainer.is_ours)
    if foreign:
        lines += ["", "Registered by other packages:", *(f"  {name}" for name in foreign)]
    return "\n".join(lines)


def _our_file(name: str) -> Path | None:
    """The file with the class of a trainer without tokens."""
    folder = our_trainers_folder()
    if folder is None:
        return None
    return find_class_file(name, folder)


def _explain(name: str) -> str:
    registered = {trainer.name: trainer for trainer in registered_trainers()}
    if name in registered and not registered[name].is_ours:
        trainer = registered[name]
        return f"{name}: registered by {trainer.package} as {trainer.value}; see there."
    if name == PREFIX:
        return (
            f"{name}: nnU-Net's own trainer, Dice + CE. Other schedules of it:"
            f" {STOCK_NAME}_<token>."
        )
    try:
        variant = parse(name)
    except ValueError as error:
        if find_users_class_file(name) is None:
            raise UserError(str(error)) from error
        variant = None
    if variant is None:
        return _explain_other(name, list(registered))
    return _explain_variant(name, variant)


def _explain_other(name: str, registered: list[str]) -> str:
    """What is known of a name that is no name of ours: a class of nnU-Net's or of the user's."""
    path = find_nnunets_class_file(name)
    if path is not None:
        return f"{name}: nnU-Net's own trainer, in {path}."
    path = find_users_class_file(name)
    if path is not None:
        return f"{name}: a class in {path}, a folder of nnUNet_extTrainer; see there."
    similar = suggest(name, registered)
    hint = (
        f"did you mean {similar}?" if similar is not None else "`nnunet_nacl trainers` lists them."
    )
    raise UserError(f"{name} is none of these trainers, and nnU-Net has none of that name; {hint}")


def _explain_variant(name: str, variant: Variant) -> str:
    formula = METHODS[variant.method].formula
    if variant.with_dice:
        formula += " + Dice"
    parent = variant.named_trainer
    what = f"subclass of {parent}" if variant.values else "class"
    lines = [
        f"{name}: {variant.meaning}",
        f"  {what} in {_our_file(parent)}",
        f"  loss, but for its tokens: {formula}",
    ]
    for token in TOKENS:
        if token.fits(variant.method, variant.with_dice):
            lines.append(_explain_token(token, variant))
    lines += ["", "Train it:", f"  nnUNetv2_train DATASET CONFIGURATION FOLD -tr {name}"]
    return "\n".join(lines)


def _explain_token(token: Token, variant: Variant) -> str:
    """A token of the grammar, and the value that the name, or its absence, gives it."""
    remark = ""
    value = variant.values.get(token.form)
    if value is None:
        value = token.default_for(variant.method)
        remark = " (default)"
    if value is None:
        text = "-"
        remark = " (not set)"
    elif not isinstance(value, str):
        text = f"{value:g}"
    elif len(token.words) > 1:
        text = value
    else:
        text = "yes"
    return f"  {token.form:<14} {text:<8} {token.meaning}{remark}"
