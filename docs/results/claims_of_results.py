"""Numbers in the prose of the pages of results, as in claims.py."""

from __future__ import annotations

from claims_of_models import ACDC, ALL, DRIVE, EMIDEC, HIPPOCAMPUS, IN_3D, NAMES, form, held, near

FOLDS, AVERAGE = "folds", "average, outer"


def change(folder: str, networks: str) -> str:
    """Of NLL over the image by the map."""
    return f"changes {ALL} | {NAMES[folder]}, {networks}* | NLL all"


def expected(folder: str, row: str) -> str:
    """Error of expected Dice, of averages."""
    return form(folder, row, "expected Dice off")


LEFT_OUT = (
    f"= [[{HIPPOCAMPUS}/folds/scans.csv | case.nunique()]] - [[datasets {HIPPOCAMPUS} | Hippocampus, folds | scans]]"
)
BAD_ONES = f"orders {ALL} | Hippocampus, average, outer: the list | bad"
FLAGGED, FOUND = f"flags {ALL}", ", average, outer, -find 0.9 | found of the bad"
AGAIN = "Dataset004_Hippocampus/DiceCE_100epochs_50iters{,_seed2}"
FOUND_AGAIN = f"trainings {AGAIN} | Hippocampus, folds > -find 0.9, found of the bad | training 2"
STARTED = "Dataset028_EMIDEC/NACL_100epochs_50iters_fold_0"

RESULTS: dict[str, list[tuple[str, ...]]] = {
    "docs/results/calibration.md": [
        (
            "from {} (hippocampus), {} (ACDC), {} (EMIDEC) and {} (DRIVE) patients",
            *(f"maps {ALL} | {NAMES[of]}, folds | patients" for of in (HIPPOCAMPUS, ACDC, EMIDEC, DRIVE)),
        ),
    ],
    "docs/results/list.md": [
        ("training of the hippocampus ({};", FOUND_AGAIN),
        (
            "found all {} bad scans of ACDC, all {} of EMIDEC, {} of {} of the hippocampus",
            *(f"orders {ALL} | {NAMES[of]}, average, outer: the list | bad" for of in (ACDC, EMIDEC)),
            f"= [[{FLAGGED} | Hippocampus{FOUND}]] * [[{BAD_ONES}]]",
            BAD_ONES,
        ),
        (
            "aims at: {} of ACDC's, and in 3D, which taught it with {} bad scans, {} on fold cases and {} on",
            f"{FLAGGED} | ACDC, average, outer, -miss 0.05 | bad and not flagged",
            f"orders {IN_3D} | Hippocampus in 3D, folds: the list | bad",
            *(
                f"flags {IN_3D} | Hippocampus in 3D, {of}, -miss 0.05 | bad and not flagged"
                for of in ("folds", AVERAGE)
            ),
        ),
    ],
    "docs/results/protocol.md": [
        ("L-BFGS to {} voxels", "code: peers: VOXELS"),
        ("from all {} scans, {} of", f"{HIPPOCAMPUS}/folds/scans.csv | case.nunique()", LEFT_OUT),
    ],
    "docs/results/losses.md": [
        ("one fold with {} validation cases", f"{STARTED}/folds/scans.csv | case.nunique()"),
        ("2D networks, {} iterations", f"= [[{STARTED}/curves.csv | epoch.nunique() ]] * 50"),
        ("less than {} % of the loss's range", "code: losses_values: 100 * FLAT"),
    ],
    "docs/results/index.md": [
        (
            "fold cases: EMIDEC {}, hippocampus {}, ACDC {}, DRIVE {}; averages: {}, {}, {}, {} |",
            *(change(folder, networks) for networks in (FOLDS, AVERAGE) for folder in NAMES),
        ),
        (
            "averages: EMIDEC {} to {}, hippocampus {} to {}, ACDC {} to {}, DRIVE {} to {} |",
            *(expected(folder, row) for folder in NAMES for row in ("as trained", "map")),
        ),
        (
            "fold cases: EMIDEC {} to {} |",
            near(EMIDEC, "NLL dilated", "as trained"),
            near(EMIDEC, "NLL dilated", "with the map"),
        ),
        (
            "found {} (EMIDEC), {} (hippocampus), {} (ACDC); {} in the",
            *(f"flags {of} | {NAMES[of]}, folds, -find 0.9 | found of the bad" for of in (EMIDEC, HIPPOCAMPUS, ACDC)),
            FOUND_AGAIN,
        ),
        ("AURC of fold cases {} |", f"order_differences {EMIDEC} | EMIDEC, folds | entropy"),
        ("averages: EMIDEC {}, hippocampus {}, ACDC {}, DRIVE {} |", *(held(folder) for folder in NAMES)),
    ],
}
