"""Numbers in prose that were measured: page -> (text, source of each `{}`) (number_sources.py).

A text stands in its page once, over two lines perhaps. Constants have theirs in constants.py.
"""

from __future__ import annotations

from claims_of_costs import COSTS, cost, note
from constants import CONSTANTS

EMIDEC, ACDC, HIPPOCAMPUS = (
    f"{name}/deployed_DiceCE" for name in ("Dataset028_EMIDEC", "Dataset027_ACDC", "Dataset004_Hippocampus")
)
THREE = f"{EMIDEC} {ACDC} {HIPPOCAMPUS}"
NEAR = "near folds Dataset028_EMIDEC/near_DiceCE_100epochs_50iters"
START = "Dataset028_EMIDEC/start"
HIPPOCAMPUS_START = "trainings Dataset004_Hippocampus/start/{DiceCE,CE}_100epochs_50iters"
INFARCT = "structure == 'infarct' and "
LOSSES = "Dataset004_Hippocampus/{}_40epochs_50iters_adam_noda.csv"
MEANS = "means single Dataset004_Hippocampus/{CE,NACL,DiceCE}_40epochs_50iters_adam_noda"


def form(folder: str, row: str, column: str, networks: str = "average") -> str:
    """A value of a form of the map, on outer cases."""
    return f"forms {networks} {folder}/outer/forms | {row} | {column}"


def peer(title: str) -> str:
    """NLL of the map less that of CMSop, the other way round."""
    return f"peers {THREE} | {title}, average, outer: * | CMSop | negated"


def promise(title: str, column: str, words: str = "") -> str:
    """Of averages on outer cases."""
    return f"promises {THREE} | {title}, average, outer | {column} | {words}"


def flag(title: str, column: str) -> str:
    """Of averages on outer cases."""
    return f"flags {THREE} | {title}, below *, average, outer & -find 0.9 | {column}"


def decided(loss: str, column: str, words: str, condition: str) -> str:
    """Infarcts of the fold cases with decided labels, in the study of the start."""
    return f"{START}/{loss}_100epochs_50iters/decided.csv | {column} | {words} | {INFARCT}{condition}"


def masks(mask: str) -> str:
    """ECE of the simulation."""
    return f"figures/calibration_masks.csv | ECE | | mask == '{mask}'"


MEASURED: dict[str, list[tuple[str, ...]]] = {
    "README.md": [
        (
            "voxels fell from {} to {} on EMIDEC",
            form(EMIDEC, "as trained", "predicted"),
            form(EMIDEC, "conditional", "predicted"),
        ),
        ("from {} to {} on ACDC", form(ACDC, "as trained", "predicted"), form(ACDC, "conditional", "predicted")),
        ("temperature reaches {},", form(EMIDEC, "temperature", "predicted")),
        ("CMSop {}.", form(EMIDEC, "CMSop", "predicted")),
        (
            "held for {} (EMIDEC), {} (ACDC) and {} (hippocampus)",
            *(promise(title, "Dice inside (n)") for title in ("EMIDEC", "ACDC", "Hippocampus")),
        ),
        ("structures fell from {} to {},", f"{NEAR} | NLL near | as trained", f"{NEAR} | NLL near | with the map"),
        ("it rose from {} to {}", f"{NEAR} | NLL dilated | as trained", f"{NEAR} | NLL dilated | with the map"),
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
        ("Two networks, {} fold cases,", "Dataset028_EMIDEC/near_DiceCE_100epochs_50iters.csv | case.nunique()"),
        (
            "`foreground` of {} against {} (EMIDEC), {} against {} (ACDC) and {} against {} (hippocampus)",
            form(EMIDEC, "CMSop", "ECE foreground"),
            form(EMIDEC, "conditional", "ECE foreground"),
            form(ACDC, "CMSop", "ECE foreground"),
            form(ACDC, "conditional", "ECE foreground"),
            form(HIPPOCAMPUS, "CMSop", "ECE foreground"),
            form(HIPPOCAMPUS, "matrix", "ECE foreground"),
        ),
        ("is higher by {}, {} and {}.", peer("EMIDEC"), peer("ACDC"), peer("Hippocampus")),
        (
            "on EMIDEC ({} to {})",
            form(EMIDEC, "as trained", "NLL dilated"),
            form(EMIDEC, "temperature", "NLL dilated"),
        ),
    ],
    "docs/explanation/l1-penalty.md": [
        ("Adam, {} iterations,", "= 40 * 50"),
        ("networks a loss, {} cases in", f"{LOSSES.format('CE')} | case.nunique()"),
        ("explains {} of it", "= 0.1 / 3"),
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
            form(EMIDEC, "as trained", "NLL all", "ensemble"),
        ),
        ("brings the former to {}.", form(EMIDEC, "conditional", "NLL all")),
    ],
    "docs/how-to/calibrate.md": [
        (
            "image by {} to {} %, 30 by {} to {} %",
            f"needed {THREE} | *, conditional | 5 | most negated",
            f"needed {THREE} | *, conditional | 5 | least negated",
            f"needed {THREE} | *, conditional | 30 | most negated",
            f"needed {THREE} | *, conditional | 30 | least negated",
        ),
    ],
    "docs/how-to/choose-a-loss.md": [
        (
            "for {} Dice (hippocampus) to {} (myocardium of EMIDEC)",
            f"losses {HIPPOCAMPUS}{{,_anneal}} | Hippocampus, average* > Dice + CE, annealed | change | negated",
            f"structures {EMIDEC}{{,_anneal}} | EMIDEC, folds* > normal myocardium, *annealed | change | negated",
        ),
        (
            "**CE** costs {} Dice on the hippocampus",
            f"= [[{HIPPOCAMPUS_START} | Dice + CE (stock) | Dice]] - [[{HIPPOCAMPUS_START} | CE | Dice]]",
        ),
        (
            "(missed {} of {}, Dice {}; nnU-Net's loss {})",
            decided("CE", "`argmax voxels` == 0", "sum", "true > 0"),
            decided("CE", "true", "count", "true > 0"),
            decided("CE", "`argmax Dice`", "mean", "true > 0"),
            decided("DiceCE", "`argmax Dice`", "mean", "true > 0"),
        ),
        ("found none in {} iterations, and one network found them in {}:", "= 100 * 50", "= 250 * 50"),
        (
            "missed {} of {} infarcts",
            *(
                f"structures {EMIDEC}{{,_anneal}} | EMIDEC, folds* > infarct, *annealed | missed | {which}"
                for which in "12"
            ),
        ),
        (
            "inventions fell from {} to {} of {} healthy hearts",
            decided("CE", "`argmax voxels` > 0", "sum", "true == 0"),
            decided("CE", "`decided voxels` > 0", "sum", "true == 0"),
            decided("CE", "true", "count", "true == 0"),
        ),
        (
            "infarcts rose from {} to {} of {}.",
            decided("CE", "`argmax voxels` == 0", "sum", "true > 0"),
            decided("CE", "`decided voxels` == 0", "sum", "true > 0"),
            decided("CE", "true", "count", "true > 0"),
        ),
    ],
    "docs/how-to/decide.md": [
        ("Dice rose by {} on EMIDEC", f"labels {EMIDEC} | EMIDEC, average, outer, Dice | change"),
    ],
    "docs/how-to/predict.md": [
        (
            "flags found {}, {} and {} of the bad scans, and {}, {} and {} of all",
            *(flag(title, "found of the bad") for title in ("EMIDEC", "ACDC", "Hippocampus")),
            *(flag(title, "flagged") for title in ("EMIDEC", "ACDC", "Hippocampus")),
        ),
        ("A page has at most {} MB", r"text: nnunet_nacl/show/scan_pictures.py | page[^\n]* ([\d.]+) MB"),
        ("(EMIDEC: {}, and", "performance/pages.csv | `page MB` | | data == 'EMIDEC'"),
        (
            "It took {} % of the CPU time of `predict` there, {} % on",
            "performance/pages.csv | `page % of CPU time` | | data == 'EMIDEC'",
            "performance/pages.csv | `page % of CPU time` | | data == 'virtual brains'",
        ),
        ("marked, and {} of the intervals", "unlike unlike | ACDC, end diastole * | of those not marked"),
        (
            "Of the {} scans without a shift {} were marked",
            "unlike unlike | *, not shifted, average | scans | sum",
            "code: unlike: sum(marked.sum() for kind, marked in shifts()[1] if kind == 'average')",
        ),
        (
            "off by {} to {}. Where",
            *(f"promises {THREE} | *, average, outer | expected Dice off by | {word}" for word in ("least", "most")),
        ),
        (
            "{} of {} Dice and {} of {} volumes",
            *(promise("EMIDEC", "Dice inside (n)", which) for which in "12"),
            *(promise("EMIDEC", "volume inside (n)", which) for which in "12"),
        ),
    ],
    "docs/how-to/watch-training.md": [
        (
            "takes at most {} % of an epoch",
            cost("training_calibration_4_2d_small_2", "*", "share of the epoch, median", "most"),
        ),
    ],
}

PARTS = (MEASURED, COSTS, CONSTANTS)
CLAIMS = {
    page: [claim for part in PARTS for claim in part.get(page, [])]
    for page in dict.fromkeys(page for part in PARTS for page in part)
}
"""All of them."""
