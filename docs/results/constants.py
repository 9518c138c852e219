"""Numbers in prose that are constants, defaults or arithmetic; see claims.py."""

from __future__ import annotations

LEVEL = "code: nnunet_nacl.calibration.dice_estimate: 100 * (1 - DEFAULT_ALPHA)"
DILATED, BOUNDARY = "option: evaluate -dilated", "option: evaluate -boundary"
BAD = "code: nnunet_nacl.calibration.flags: DEFAULT_BAD"
UNLIKE = "code: nnunet_nacl.calibration.unlike: "
CLIP, CERTAIN = (f"code: nnunet_nacl.calibration.log_odds: {name}" for name in ("CLIP", "CERTAIN"))
PYTHON = r"text: setup.py | python_requires=.>=([\d.]+)"
ALPHA = "code: nnunet_nacl.comparison.comparison: ALPHA"


def loss(name: str, argument: str) -> str:
    """A default of a loss."""
    return f"code: nnunet_nacl.losses.{name}: DEFAULTS['{argument}']"


def version(document: str) -> str:
    """Schema version of a document."""
    return f"code: nnunet_nacl.documents.{document}: SCHEMA_VERSION"


def cap(classes: int) -> str:
    """The largest probability under the penalty."""
    return f"= 1 - 0.1 / {classes}"


CONSTANTS: dict[str, list[tuple[str, ...]]] = {
    "README.md": [
        ("![Python: {} or newer]", PYTHON),
        ("![nnU-Net: {} or newer]", r"text: setup.py | nnunetv2>=([\d.]+)"),
        ("Python {} or newer and [PyTorch]", PYTHON),
    ],
    "docs/glossary.md": [("odder than {} % of the calibration", f"{UNLIKE}100 * (1 - DEFAULT_UNLIKE)")],
    "docs/explanation/conditional-calibration.md": [
        ("clipped to ±{}, two labels", CLIP),
        ("has a probability above {}, and those outside", CERTAIN),
        ("with a probability above {} in a thousandth", "code: nnunet_nacl.calibration.fitting: LIKELY"),
        ("Within {} mm of the *predicted*", DILATED),
        ("within {} mm of the *true*", DILATED),
    ],
    "docs/explanation/l1-penalty.md": [
        ("This is {} for K = 3", "= log((3 - 1) * (1 - 0.1 / 3) / (0.1 / 3))"),
        ("may reach {} with 3 classes, {} with 5 and {} with 14", cap(3), cap(5), cap(14)),
        ("Under `sum` it is {} for any K", "= 1 - 0.1"),
        ("caps `p_y` at {} for any", "= 1 - 0.03"),
    ],
    "docs/explanation/masks.md": [
        ("| within {} mm of the true foreground |", DILATED),
        ("| within {} mm of a surface", BOUNDARY),
        ("| within {} mm of the prediction", DILATED),
        ("confidence into {} bins", "option: evaluate -bins"),
        (
            "probabilities, {} and {}, is {}.",
            "= 1 / (1 + exp(-10))",
            "= 1 / (1 + exp(-0))",
            "= (1 / (1 + exp(-10)) + 0.5) / 2",
        ),
        ("of their logits is {}, a probability of {}", "= (10 + 0) / 2", "= 1 / (1 + exp(-5))"),
    ],
    "docs/how-to/a-flagged-scan.md": [
        ("all good, {} may be bad", "code: nnunet_nacl.review.outcome: 100 * unseen_bad(100, 100, 10, 0)[1]")
    ],
    "docs/how-to/compare.md": [
        ("structure is below | {} |", BAD),
        ("and their seed | {} and", "option: compare -bootstrap"),
    ],
    "docs/how-to/decide.md": [("best of at most {} rounds", "code: nnunet_nacl.calibration.decision: MAX_ROUNDS")],
    "docs/how-to/evaluate.md": [
        ("cores, at most {} |", r"text: nnunet_nacl/cli/options.py | min\(cpu_count\(\), (\d+)\)"),
        ("at most {} | {} |", "code: nnunet_nacl.metrics.binning: MAX_N_BINS", "option: evaluate -bins"),
        ("at most {} mm | {} mm |", "code: nnunet_nacl.documents.results: LARGEST_RADIUS_MM", DILATED),
        ("structure is below | {} |", BAD),
    ],
    "docs/how-to/many-trainings.md": [
        ("(Python {} or newer)", r"text: setup.py | snakemake.*python_version >= .([\d.]+)")
    ],
    "docs/how-to/predict.md": [
        (
            "above {} MB {} scans a page",
            "code: nnunet_nacl.show.review_page: LARGEST_PAGE / 1e6",
            "code: nnunet_nacl.show.review_page: ROWS_OF_A_PAGE",
        ),
        ("Each page has up to {} slices", "code: nnunet_nacl.show.scan_pictures: MOST_SLICES"),
        ("than {} % of theirs", f"{UNLIKE}100 * (1 - DEFAULT_UNLIKE)"),
        ("a probability of {} or more to be", "code: nnunet_nacl.review.row: LIKELY"),
        ("of two folds is below {} |", "code: nnunet_nacl.review.reasons: LOWEST_MEMBERS_DICE"),
        ("more than {} % beyond the training", "code: nnunet_nacl.prediction.training_range: 100 * (_SLACK - 1)"),
        ("this share is flagged | {} |", "code: nnunet_nacl.calibration.flags: DEFAULT_FIND"),
        (
            "stores at most {} numbers",
            "code: nnunet_nacl.prediction.profile: len(_OF_CHANNEL) * MOST_CHANNELS + 2 * MOST_STRUCTURES + 6",
        ),
        ("At {} (`-unlike`)", f"{UNLIKE}DEFAULT_UNLIKE"),
        ("It takes {} calibration patients, and the images", f"{UNLIKE}1 / DEFAULT_UNLIKE - 1"),
        ("A batch of {} scans or more", f"{UNLIKE}FEWEST_TO_COMPARE"),
        ("more than {} times as large as the largest", "code: nnunet_nacl.prediction.preprocessed_case: MOST_TIMES"),
    ],
    "docs/how-to/reliability.md": [
        ("fewer than {} voxels", "code: nnunet_nacl.show.reliability: FEW_VOXELS"),
        ("one of {} equal bins", "option: evaluate -bins"),
    ],
    "docs/reference/files.md": [
        ("this package's trainers. Schema version {}.", version("document")),
        ("(at most {}, the largest first)", "code: nnunet_nacl.runs.components: MOST_FINDINGS"),
        ("background above 2^{} probabilities", "code: nnunet_nacl.metrics.counting: EXACT_BELOW.bit_length() - 1"),
        ("Written by `calibrate`. Schema version {};", version("calibration_map")),
        ("no structure exceeds {}:", CERTAIN),
        ("in against out), clipped at {},", CLIP),
        ("Voxels below {} and", CERTAIN),
        ("`alpha` ({})", "code: nnunet_nacl.calibration.dice_estimate: DEFAULT_ALPHA"),
        ("Schema version {}, written by `predict`", version("prediction_json")),
        ("Schema version {}, written with `-decide`", version("decision_json")),
        ("Schema version {}, written by [`review -back`]", version("outcome_json")),
        ("Written by `compare`. Schema version {}.", version("comparison_file")),
    ],
    "docs/reference/losses.md": [
        ("`smoothing` alpha {} |", loss("label_smoothing", "smoothing")),
        ("`sigma` {}, `kernel_size` {}, `padding` replicate", loss("svls", "sigma"), loss("svls", "kernel_size")),
        (
            "`penalty_weight` lambda {}, `kernel_size` {}, `prior` mean, `sigma` {},",
            loss("nacl", "penalty_weight"),
            loss("nacl", "kernel_size"),
            loss("nacl", "sigma"),
        ),
        ("`prior_scale` m {} |", loss("nacl", "prior_scale")),
        ("`penalty_weight` lambda {}, `margin` m {},", loss("mbls", "penalty_weight"), loss("mbls", "margin")),
        ("`gamma` {} |", loss("focal", "gamma")),
        ("`penalty_weight` alpha {}, `reduction`", loss("ecp", "penalty_weight")),
        ("elsewhere {} or what the name says", loss("nacl", "kernel_size")),
        ("{} (token `sigma1`)", loss("svls", "sigma")),
        ("{} (token `m10`)", loss("mbls", "margin")),
    ],
    "docs/reference/statistics.md": [
        ("p (Holm) is below {};", ALPHA),
        (
            "With fewer than {} patients no test is made, because p could not reach {}:",
            "code: nnunet_nacl.comparison.statistics: FEWEST_FOR_A_TEST",
            ALPHA,
        ),
        (
            "at which {}, {} and {} % of the true parts",
            *(f"code: nnunet_nacl.show.case_tables: 100 * float(_SHARES[{i}])" for i in range(3)),
        ),
    ],
}
