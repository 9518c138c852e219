"""`nnunet_nacl trainers`: lists the trainers, explains their names, and says how others are named."""

from __future__ import annotations

import argparse

from nnunet_nacl.errors import UserError
from nnunet_nacl.methods import METHODS, NAMED_TRAINERS, PREFIX
from nnunet_nacl.registration.grammar import TOKENS, grammar, parse
from nnunet_nacl.registration.lookup import registered_trainers, suggest

HELP = "list the trainers and the grammar of their names, or explain one name"


def configure(parser: argparse.ArgumentParser) -> None:
    """Its arguments."""
    parser.description = (
        "Without a name: the trainers that stand ready, their losses, and the tokens from which other names are made.\n"
        "A name made of tokens needs no file and no registration: give it to nnUNetv2_train -tr.\n"
        "With a name: what it means, and the command that trains it."
    )
    parser.epilog = (
        "examples:\n  nnunet_nacl trainers\n  nnunet_nacl trainers nnUNetTrainerDiceNACL_anneal_lambda0p2_250epochs"
    )
    parser.add_argument("name", nargs="?", metavar="NAME", help="a trainer's name")


def run(args: argparse.Namespace) -> int:
    """Print the list, or explain the name."""
    print(_overview() if args.name is None else _explain(args.name))
    return 0


def _overview() -> str:
    lines = ["Trainers for nnUNetv2_train -tr (l logits, p softmax, y label, tau class shares among neighbours):", ""]
    for name, method in METHODS.items():
        lines += [f"  {PREFIX}{name:<6} {method.meaning}", f"  {'':<{len(PREFIX) + 6}} {method.formula}"]
    lines += [
        "",
        "The same with nnU-Net's soft Dice term added:",
        *(f"  {name}" for name in NAMED_TRAINERS if name.startswith(f"{PREFIX}Dice")),
        f"nnU-Net's own {PREFIX} is Dice + CE; with tokens it is called {PREFIX}DiceCE_<token>.",
        "",
        "Class labels, regions and ignore label, 2d to 3d_cascade_fullres; nnU-Net's schedule and optimiser unless a",
        "token says otherwise. Fine-tuning: nnUNetv2_train ... -pretrained_weights CHECKPOINT, as for any trainer.",
        "",
        grammar(),
    ]
    foreign = sorted(trainer.name for trainer in registered_trainers() if not trainer.is_ours)
    if foreign:
        lines += ["", "Registered by other packages:", *(f"  {name}" for name in foreign)]
    return "\n".join(lines)


def _explain(name: str) -> str:
    registered = {trainer.name: trainer for trainer in registered_trainers()}
    if name in registered and not registered[name].is_ours:
        return f"{name}: registered by {registered[name].package}; see there."
    if name == PREFIX:
        return f"{name}: nnU-Net's own trainer, Dice + CE. Other schedules of it: {PREFIX}DiceCE_<token>."
    try:
        variant = parse(name)
    except ValueError as error:
        raise UserError(str(error)) from error
    if variant is None:
        meant = suggest(name, list(registered))
        hint = f"did you mean {meant}?" if meant else "`nnunet_nacl trainers` lists them."
        raise UserError(f"{name} is none of these trainers; {hint}")
    formula = METHODS[variant.method].formula + (" + Dice" if variant.dice else "")
    lines = [f"{name}: {variant.meaning}", f"  loss, but for its tokens: {formula}"]
    for token in (token for token in TOKENS if token.fits(variant.method, variant.dice)):
        value = getattr(variant, token.field)
        default = token.defaults.get(variant.method)
        if value in (None, False):
            shown, end = ("-", " (not set)") if default is None else (f"{default:g}", " (default)")
        else:
            shown, end = "yes" if value is True else value if isinstance(value, str) else f"{value:g}", ""
        lines.append(f"  {token.form:<14} {shown:<8} {token.meaning}{end}")
    return "\n".join([*lines, "", "Train it:", f"  nnUNetv2_train DATASET CONFIGURATION FOLD -tr {name} --npz"])
