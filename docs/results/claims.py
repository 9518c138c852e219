"""Numbers in prose that were measured: page -> (text, source of each `{}`) (number_sources.py).

A text stands in its page once, over two lines perhaps. Constants have theirs in constants.py.
"""

from __future__ import annotations

from claims_of_costs import COSTS, cost, note
from claims_of_models import (
    ALL,
    EMIDEC,
    HIPPOCAMPUS,
    LOSSES,
    LOSSES_AGAIN,
    NAMES,
    decided,
    dilated,
    flag,
    form,
    held,
    loss,
    near,
)
from claims_of_results import FOUND_AGAIN, RESULTS
from constants import CONSTANTS


def masks(mask: str) -> str:
    """ECE of the simulation."""
    return f"figures/calibration_masks.csv | ECE | | mask == '{mask}'"


DECIDED = [
    (value, words, f"`true volume` {there}")
    for there, decided_labels, networks_labels in (
        ("== 0", "`decided volume` > 0", "volume > 0"),
        ("> 0", "`decided volume` == 0", "volume == 0"),
    )
    for value, words in ((decided_labels, "sum"), ("volume", "count"), (networks_labels, "sum"))
]
"""Invented, of absent ones, invented by nnU-Net; missed, of those there, missed by nnU-Net."""

MEASURED: dict[str, list[tuple[str, ...]]] = {
    "README.md": [
        (
            "from {} to {} on EMIDEC, from {} to {} on the hippocampus, not clearly on ACDC ({}, {}), "
            "and not on DRIVE ({}, {};",
            *(form(of, row, "ECE predicted") for of in NAMES for row in ("as trained", "map")),
        ),
        ("trained again, found {}.", FOUND_AGAIN),
        (
            "held for {} (EMIDEC), {} (hippocampus), {} (ACDC) and {} (DRIVE)",
            *(held(of) for of in NAMES),
        ),
        (
            "structures fell from {} to {}, near",
            near(EMIDEC, "NLL near", "as trained"),
            near(EMIDEC, "NLL near", "with the map"),
        ),
        (
            "it rose from {} to {}",
            near(EMIDEC, "NLL dilated", "as trained"),
            near(EMIDEC, "NLL dilated", "with the map"),
        ),
        (
            "took {} s of CPU time and {} GB of memory for {} small",
            cost("commands", "calibrate, *", "CPU s"),
            cost("commands", "calibrate, *", "peak memory (GB)"),
            r"text: docs/results/study/performance/commands.csv | calibrate, (\d+) cases",
        ),
        (
            "export of {}^{} voxels with {} classes takes {} times",
            note(r"118 classes, (\d+)\^3 voxels; its probabilities .float32. are 3\.11"),
            note(r"118 classes, 192\^(\d) voxels"),
            note(r"(\d+) classes, 192\^3 voxels"),
            "performance/export_size.csv | `CPU s`.iloc[1] / `CPU s`.iloc[0] | | of == '118 classes, 192^3 voxels'",
        ),
    ],
    "docs/explanation/conditional-calibration.md": [
        ("Five networks, {} fold cases,", f"{EMIDEC}/folds/scans.csv | case.nunique()"),
        (
            "less CMSop's is {} (EMIDEC, folds), and less CDC's {} or, fitted as fiducio does by default, {}.",
            *(f"peers {EMIDEC} | EMIDEC, folds, NLL all | {peer}" for peer in ("CMSop", "CDC", "CDC_Adam")),
        ),
        (
            "fold cases is {} with CMSop, {} with CDC, {} with a temperature, {} with the map",
            *(dilated(name) for name in ("CMSop", "CDC", "temperature", "map")),
        ),
    ],
    "docs/explanation/l1-penalty.md": [
        ("On {} hippocampus", "Dataset004_Hippocampus/NACL_100epochs_50iters_fold_0/folds/scans.csv | case.nunique()"),
        ("an ECE `all` of {}, CE of {};", loss("NACL", "ECE all"), loss("CE", "ECE all")),
        (
            "`foreground` NACL has {}, CE {} and nnU-Net's loss {}",
            *(loss(name, "ECE foreground") for name in ("NACL", "CE", "DiceCE")),
        ),
        ("The cap explains {} of the error", "= 0.1 / 3"),
        (
            "surroundings keep {}, edges {}",
            "figures/l1_penalty.csv | probability | | m == 5 and `voxels from edge` == 7.5",
            "figures/l1_penalty.csv | probability | | m == 5 and `voxels from edge` == 0.5",
        ),
    ],
    "docs/explanation/masks.md": [
        ("ECE is {} on `all`, {} on `predicted`, {} on `near`", masks("all"), masks("predicted"), masks("near")),
        (
            "{} on `dilated` and `boundary`, {} on `foreground` and {} on `union`",
            masks("dilated"),
            masks("foreground"),
            masks("union"),
        ),
        (
            "`all` of {} by the average of logits and of {} by that of",
            form(EMIDEC, "as trained", "NLL all"),
            form(EMIDEC, "ensemble", "NLL all"),
        ),
        ("brings the former to {}.", form(EMIDEC, "map", "NLL all")),
    ],
    "docs/how-to/calibrate.md": [
        (
            "image by {} %, ten by {} % and {} by {} %",
            f"needed {EMIDEC} | EMIDEC, auto | 5 | negated",
            f"needed {EMIDEC} | EMIDEC, auto | 10 | negated",
            "code: cases_needed: SIZES[-1]",
            f"needed {EMIDEC} | EMIDEC, auto | 30 | negated",
        ),
    ],
    "docs/how-to/choose-a-loss.md": [
        (
            "less well (Dice {}, {} by SGD; {}, {} by Adam)",
            *(
                f"losses {LOSSES} | EMIDEC, {optimiser}, aug* > {name} | Dice infarct"
                for optimiser in ("SGD", "Adam")
                for name in ("CE", "Dice + CE (stock)")
            ),
        ),
        (
            "infarct in {} iterations of SGD, poorly by Adam (Dice {}), and",
            "= 100 * 50",
            f"losses {LOSSES} | EMIDEC, Adam, aug* > NACL | Dice infarct",
        ),
        (
            "as well as nnU-Net's loss ({}/{}, {}/{})",
            *(
                f"losses {LOSSES} {LOSSES_AGAIN} | EMIDEC, Adam, no aug* > {name}* | Dice infarct | {which}"
                for name in ("NACL", "Dice + CE (stock)")
                for which in "12"
            ),
        ),
    ],
    "docs/how-to/decide.md": [
        (
            "them in {} of {} healthy hearts (nnU-Net's in {}) and miss {} of {} (nnU-Net's {});",
            *(decided(*part, "folds") for part in DECIDED),
        ),
        (
            "in no fold {} of {} ({}) and {} of {} ({}).",
            *(decided(*part, "average") for part in DECIDED),
        ),
        (
            "there goes from {} to {}, of averages from {} to {}.",
            *(
                decided(column, "mean", "`true volume` > 0", networks)
                for networks in ("folds", "average")
                for column in ("Dice", "`decided Dice`")
            ),
        ),
    ],
    "docs/how-to/predict.md": [
        (
            "flags found {} of the bad scans of EMIDEC's fold cases and {} of the hippocampus', and flagged {} and {}",
            *(flag(of, column) for column in ("found of the bad", "flagged") for of in (EMIDEC, HIPPOCAMPUS)),
        ),
        ("A page has at most {} MB", r"text: nnunet_nacl/show/scan_pictures.py | page[^\n]* ([\d.]+) MB"),
        ("(EMIDEC: {}, and", "performance/pages.csv | `page MB` | | data == 'EMIDEC'"),
        (
            "It took {} % of the CPU time of `predict` there, {} % on",
            "performance/pages.csv | `page % of CPU time` | | data == 'EMIDEC'",
            "performance/pages.csv | `page % of CPU time` | | data == 'virtual brains'",
        ),
        (
            "off by {} to {}, and intervals",
            *(f"forms {ALL} | *, average, outer* > map | expected Dice off | {word}" for word in ("least", "most")),
        ),
        (
            "held for {} to {} of the Dice",
            f"= min({', '.join(f'[[{held(of)}]]' for of in NAMES)})",
            f"= max({', '.join(f'[[{held(of)}]]' for of in NAMES)})",
        ),
    ],
    "docs/how-to/watch-training.md": [
        (
            "takes at most {} % of an epoch",
            cost("training_calibration_4_2d_small_2", "*", "share of the epoch, median", "most"),
        ),
    ],
}

PARTS = (MEASURED, RESULTS, COSTS, CONSTANTS)
CLAIMS = {
    page: [claim for part in PARTS for claim in part.get(page, [])]
    for page in dict.fromkeys(page for part in PARTS for page in part)
}
"""All of them."""
