"""Sources of numbers that several pages have of the models of the protocol (number_sources.py)."""

from __future__ import annotations

STOCK = "DiceCE_100epochs_50iters"
EMIDEC, HIPPOCAMPUS, ACDC, DRIVE = (
    f"{name}/{STOCK}" for name in ("Dataset028_EMIDEC", "Dataset004_Hippocampus", "Dataset027_ACDC", "Dataset030_DRIVE")
)
NAMES = {EMIDEC: "EMIDEC", HIPPOCAMPUS: "Hippocampus", ACDC: "ACDC", DRIVE: "DRIVE"}
ALL = " ".join(NAMES)
IN_3D = "Dataset004_Hippocampus/DiceCE_50epochs_50iters_3d_small_fold_0_1_2"
INFARCT = "structure == 'infarct' and "
LOSSES = "Dataset028_EMIDEC/{DiceCE,CE,NACL}_100epochs_50iters{,_adam,_adam_noda}_fold_0"
LOSSES_AGAIN = "Dataset028_EMIDEC/{DiceCE,CE,NACL}_100epochs_50iters_adam_noda_seed2_fold_0"


def form(folder: str, row: str, column: str, networks: str = "average, outer") -> str:
    """A mean of a form of the map."""
    return f"forms {ALL} | {NAMES[folder]}, {networks}* > {row} | {column}"


def held(folder: str) -> str:
    """Share of the intervals of Dice that hold, of averages on outer cases."""
    return f"code: tables_list: held('{folder}')"


def flag(folder: str, column: str) -> str:
    """Of fold cases."""
    return f"flags {ALL} | {NAMES[folder]}, folds, -find 0.9 | {column}"


def decided(value: str, words: str, condition: str, networks: str) -> str:
    """Infarcts of EMIDEC: of fold cases, or of the average of five networks on outer cases."""
    place, whose = ("outer", "network == 'average' and ") if networks == "average" else ("folds", "")
    return f"{EMIDEC}/{place}/structures.csv | {value} | {words} | {whose}{INFARCT}{condition}"


def near(folder: str, name: str, column: str) -> str:
    """A mean over fold cases."""
    return f"masks {folder} | {NAMES[folder]}, {name} | {column}"


def dilated(name: str) -> str:
    """NLL of a form near the true structures, fold cases of EMIDEC."""
    return f"{EMIDEC}/folds/forms.csv | `NLL dilated` | mean | form == '{name}'"


def loss(name: str, column: str) -> str:
    """Of a network of the hippocampus, as trained."""
    path = f"Dataset004_Hippocampus/{name}_100epochs_50iters_fold_0/folds/forms.csv"
    return f"{path} | `{column}` | mean | form == 'as trained'"
