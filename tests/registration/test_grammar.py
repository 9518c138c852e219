"""Trainer names: one name for every variant, and an error with the grammar for everything that only looks like one."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import nnunetv2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nnunet_nacl.registration.grammar import MAX_NAME_LENGTH, METHODS, PREFIX, TOKENS, Variant, grammar, parse


@st.composite
def variants(draw: st.DrawFn) -> Variant:
    """Any variant that has a name; a setting that equals the default is left out, as the grammar wants it."""
    method = draw(st.sampled_from(list(METHODS)))
    dice = draw(st.booleans())
    numbers = st.integers(0, 99999).map(lambda number: number / 1000)
    values = {
        "penalty_weight": numbers,
        "kernel_size": st.integers(0, 5).map(lambda half: 2 * half + 1),
        "prior": st.sampled_from(["gaussian", "svls"]),
        "sigma": numbers.filter(bool),
        "gamma": numbers,
        "alpha": st.integers(0, 1000).map(lambda number: number / 1000),
        "scale": numbers,
        "epochs": st.integers(1, 5000),
        "iterations": st.integers(1, 5000),
        "train_percent": st.integers(1, 999).map(lambda number: number / 10),
        "seed": st.integers(1, 99999),
    }
    settings = {}
    for token in TOKENS:
        if not token.fits(method) or not draw(st.booleans()):
            continue
        value = draw(values.get(token.field, st.just(True)))
        if value != token.defaults.get(method):
            settings[token.field] = value
    settings.pop("plainstart" if dice else "anneal", None)
    if method == "NACL" and "prior" not in settings:
        settings.pop("sigma", None)
    if settings.get("penalty_weight") == 0:
        for field in set(METHODS[method].tokens) - {"penalty_weight"}:
            settings.pop(field, None)
    if method == "CE" and dice and not settings:
        settings["adam"] = True
    return Variant(method, dice, **settings)


@given(variants())
def test_every_variant_has_one_name_that_means_it(variant: Variant) -> None:
    assert len(variant.name) > MAX_NAME_LENGTH or parse(variant.name) == variant
    assert variant.name.isidentifier() and "__" not in variant.name


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("NACL", {}),
        (
            "NACL_lambda0p2_k5_gaussian_sigma2_l2_100epochs_adam",
            {"penalty_weight": 0.2, "kernel_size": 5, "sigma": 2.0}
            | {"prior": "gaussian", "l2": True, "epochs": 100, "adam": True},
        ),
        ("CE_50iters_train12p5_noda_seed2", {"iterations": 50, "train_percent": 12.5, "noda": True, "seed": 2}),
    ],
)
def test_names(name: str, settings: dict) -> None:
    variant = Variant(name.split("_")[0], **settings)
    assert parse(PREFIX + name) == variant and variant.name == PREFIX + name
    assert parse(f"{PREFIX}DiceCE_anneal_40epochs") == Variant("CE", dice=True, anneal=True, epochs=40)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("NACL_lambda0p2_lambda0p3", "'lambda0p3' is no token of it"),
        ("NACL_lambda0p20", "'lambda0p20' is no token of it"),
        ("NACL_adam\n", "'adam\\n' is no token of it"),
        ("CE_1\u0662epochs", "'1\u0662epochs' is no token of it"),
        ("NACL_lambda0p1", "'lambda0p1' is the default"),
        ("NACL_k4", "'k4': a neighbourhood needs a centre"),
        ("NACL_sigma2", "'sigma' needs 'gaussian' or 'svls'"),
        ("NACL_lambda0_k5", "'lambda0': there is no penalty"),
        ("NACL_lambda123456789012345678901234567890", "too many digits"),
    ],
)
def test_a_bad_token_is_an_error_with_the_grammar(name: str, reason: str) -> None:
    method = re.match("(?:Dice)?([A-Za-z]+)", name)[1].removeprefix("Dice")
    with pytest.raises(ValueError) as caught:
        parse(PREFIX + name)
    message = str(caught.value)
    assert reason in message
    assert repr(PREFIX + name) in message
    assert grammar(method) in message


def test_names_have_a_greatest_length_and_stock_has_its_own() -> None:
    with pytest.raises(ValueError, match="nnU-Net's own nnUNetTrainer: use that name"):
        parse("nnUNetTrainerDiceCE")
    with pytest.raises(ValueError, match="128"):
        parse("nnUNetTrainerNACL_lambda0p".ljust(MAX_NAME_LENGTH, "0") + "3")
    settings = {"penalty_weight": 0.25, "kernel_size": 5, "prior": "gaussian", "sigma": 1.5, "scale": 5.0}
    settings |= dict.fromkeys(("anneal", "l2", "softmax", "sum", "adam", "noda"), True)
    settings |= {"epochs": 10000, "iterations": 10000, "train_percent": 12.5, "seed": 10}
    longest_of_all = Variant("NACL", True, **settings)
    assert parse(longest_of_all.name) == longest_of_all and 100 < len(longest_of_all.name) <= MAX_NAME_LENGTH == 128


@pytest.mark.parametrize("name", ["", "nnUNetTrainer_250epochs", "nnUNetTrainerNACLs", "nnUNetTrainerNACL\n"])
def test_other_names_are_not_ours(name: str) -> None:
    assert parse(name) is None


def test_no_trainer_of_nnunet_is_taken_for_ours() -> None:
    names = set()  # of the classes that nnU-Net's own search can find, read from its files without importing them
    for path in Path(nnunetv2.__path__[0], "training").rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        names |= {node.name for node in ast.walk(tree) if isinstance(node, ast.ClassDef)}
    assert {"nnUNetTrainer", "nnUNetTrainerDiceCELoss_noSmooth"} <= names and len(names) > 80
    assert [name for name in names if parse(name) is not None] == []


def test_the_grammars_own_example_is_a_name() -> None:
    (example,) = re.findall(r"^Example: (.*)$", grammar(), re.MULTILINE)
    assert parse(example) is not None
