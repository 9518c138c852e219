"""Numerals of pages that are taken from nothing, files that no table reads, and pages that are not looked at.

Every exception is used: what nothing needs any more is an error, so that none lets a measured value through.
"""

from __future__ import annotations

ANY = "*"

EXCEPTIONS: list[tuple[str, str, str]] = [
    # Page, or any; regular expression (a blank is any white space); reason
    (ANY, r"\b[23]D\b", "dimensions of an image"),
    (ANY, r"^##+ \d\. |^\d\. \*\*|\bstep 2\b", "numbers of headings and of steps"),
    (ANY, r"\b2[0-9]{3}\.[0-9]{5}\b", "arXiv's number of a paper"),
    (ANY, r"(?:et al\.,?|ICLR|JMLR|Medical Image Analysis(?: 101,)?) 20[0-9]{2}\b", "volume and year of a paper"),
    (ANY, r"\b(?:eq\.|fig\.|figure|table) [0-9]+\b", "number of an equation, figure or table of a paper"),
    (ANY, r"Apache-2\.0|CC-BY-SA 4\.0", "name of a licence"),
    (ANY, r"SHA-256", "name of an algorithm"),
    (
        ANY,
        r"\b9[05] % (?:bootstrap\b|intervals?\b)|\*\*interval \(90 %\)|nominal (?:90 %|0\.90)",
        "level of an interval",
    ),
    (
        ANY,
        r"\b[Ee]xit status(?: of all commands)?: 0[^.]*\.|\bexit status 1\b",
        "exit status: the tests of the commands",
    ),
    (
        ANY,
        r"(?:confidence of|probability of|says|voxels at|\bat) 0\.9\b",
        "an example of a confidence, of which nine in ten are right",
    ),
    ("docs/results/protocol.md", r"nnunetv2 2\.8", "version that trained the networks"),
    ("README.md", r"10 minutes on two cores", "about; nothing is concluded from it"),
    ("docs/glossary.md", r"Dice of 0 \||: 0 none, 1 all|\b2 (?:\\\||Σ p)", "definition of Dice"),
    ("docs/explanation/conditional-calibration.md", r"class 0 is the background", "nnU-Net's number of a class"),
    ("docs/explanation/conditional-calibration.md", r"right in 40 %", "an example of a statement"),
    ("docs/explanation/l1-penalty.md", r"shares 0\.|rest at 0,|range of 4 to 5|m = 1\)", "terms of the derivation"),
    ("docs/explanation/l1-penalty.md", r"for K = 3 and lambda = 0\.1|With lambda = 0\.1,", "the derivation's example"),
    ("docs/explanation/l1-penalty.md", r"with (?:3 classes|14\.)|, 0\.980 with 5 and", "the derivation's example"),
    ("docs/explanation/l1-penalty.md", r"\(K = 3\)|with m = 5 and K = 3,", "the derivation's example"),
    (
        "docs/explanation/masks.md",
        r"probability is 0\.3, and let|confidence of 0\.7, and drops",
        "an example, of ten voxels",
    ),
    ("docs/explanation/masks.md", r"are 10 and 0\.", "an example of logits"),
    ("docs/explanation/masks.md", r"Dice of 1 and a distance of 0|a distance of 0:", "the authors' values"),
    ("docs/how-to/a-flagged-scan.md", r"ten drawn of 100,", "an example"),
    ("docs/how-to/a-flagged-scan.md", r"bound \(95 %, one-sided\)", "level of a bound"),
    ("docs/how-to/a-flagged-scan.md", r"segments from 1 when", "Slicer's number of the first segment"),
    ("docs/how-to/calibrate.md", r"below 0\. `NLL near`", "no change"),
    ("docs/how-to/calibrate.md", r"less than 1 MB", "tests/calibration"),
    ("docs/how-to/choose-a-loss.md", r"falls to 0 by|`nnUNet_n_proc_DA` 0 or 1", "settings"),
    ("docs/how-to/choose-a-loss.md", r"\(1e-3, from half-way 1e-4\)", "the paper's optimiser"),
    ("docs/how-to/choose-a-loss.md", r"1000 epochs of 250 iterations", "nnU-Net's schedule"),
    ("docs/how-to/compare.md", r"10,000 and 0 \||channel 0 \|", "defaults: number 0 of a seed and a channel"),
    ("docs/how-to/decide.md", r"P E > 1 - P|and 1 - P where|= 2 sum_", "terms of a formula"),
    ("docs/how-to/decide.md", r"0\.4 for a structure with an expected Dice of 0\.8", "an example: the half"),
    ("docs/how-to/dicom.md", r"SEG, 8 bits|TID 1500|at byte 128 ", "DICOM's numbers"),
    ("docs/how-to/losses-in-python.md", r"labels of 0 and 1 in|\(batch, 1, x, y, z\)", "labels, shape of an array"),
    ("docs/how-to/many-trainings.md", r"`cuda`, 1, 1", "defaults: workflow/Snakefile"),
    ("docs/how-to/predict.md", r"between 0 and 1\.|range 0 to 1 in|z = 1\.", "range of a map, shape of an array"),
    ("docs/how-to/predict.md", r"counts as 0 \|", "definition of Dice"),
    ("docs/how-to/predict.md", r"0 certain, 1 all|: 0 a tie|: 0 they agree, 1 each", "ends of the range of a map"),
    ("docs/how-to/predict.md", r"0\.4 means right in 40 %", "an example"),
    ("docs/how-to/predict.md", r"about 90 % have their", "level of an interval"),
    (
        "docs/how-to/predict.md",
        r"is below 0\.7\.|0\.95 nineteen|severities 1 to 3|\(fold 0\)",
        "settings of an example",
    ),
    ("docs/how-to/predict.md", r"0\.5th to 99\.5th", "nnU-Net's percentiles"),
    ("docs/how-to/reliability.md", r"ECE of 0\.", "the smallest ECE that there is"),
    ("docs/how-to/share-a-model.md", r"within 1e-4 \(tested", "tests/integration: tolerance of the comparison"),
    ("docs/reference/files.md", r"\| (?:number, )?-?[01] to [12](?:, text)? \|", "range of a value by its definition"),
    ("docs/reference/files.md", r"UTF-8|draft 2020-12", "names of standards"),
    ("docs/reference/files.md", r"version 1 is refused|1 is checked first", "numbers before the first that counts"),
    ("docs/reference/files.md", r"clipped at 2\^-126 \| 0 to 87\.3", "smallest float32: log 2^126 is 87.3"),
    (
        "docs/reference/files.md",
        r"\]; 0 lies in|\(1 \+ |log\(1 \+ |softmax\(0,|of 1 - \(|\| 2 sum_seg",
        "terms of a formula",
    ),
    (
        "docs/reference/files.md",
        r"above 2\^|within 1e-9|less than \.0001",
        "base of a power, and tolerances of tests/metrics and tests/calibration",
    ),
    ("docs/reference/files.md", r"the 95th percentile", "definition of HD95"),
    ("docs/reference/files.md", r"at least 80 %", "theorem: 1 - 2 alpha"),
    ("docs/reference/losses.md", r"`\[\.\.\.\]` 1 where|= 0 each is|gives 0\.", "values of a formula"),
    (
        "docs/reference/losses.md",
        r"\((?:B, 1|B, R), \*spatial\)|of 0 and 1, or R \+ 1 channels whose last is 1",
        "arrays",
    ),
    (
        "docs/reference/losses.md",
        r"all 1 \||d² / 2 sigma²|tau sums to (?:less than )?1 |class 0\b",
        "terms of formulas",
    ),
    ("docs/reference/losses.md", r"1 - alpha / 2 and alpha / 2", "terms of a formula"),
    ("docs/reference/losses.md", r"use 1 along axes whose first convolution has size 1", "sizes of convolutions"),
    (
        "docs/reference/losses.md",
        r"\(sigma 1,|sigma \| 2 \| 1 \||margin \| 5 \| 10 by default; 5 in",
        "values of the paper",
    ),
    ("docs/reference/losses.md", r"Python 3\.15 and newer", "PEP 829"),
    ("docs/reference/statistics.md", r"2\.5th and 97\.5th", "ends of a 95 % interval"),
    ("docs/reference/statistics.md", r"mean 1 - Dice", "term of a formula"),
    ("docs/reference/performance.md", r"512 x 512 x 600", "an example of a scan"),
    ("docs/tutorial.md", r"Say 0\.8\.|at most 5 % may be", "settings of an example"),
]

FILES: dict[str, str] = {
    "*_seed2/calibration_map.json": "the map behind the values; no page has anything of it",
    "bins.csv": "figures_calibration.py draws them",
    "raters.csv": "figures_calibration.py draws them",
    "*_fold_0/folds/findings.csv": "measured with the rest; no page has findings of a single fold",
}
"""Files in study/ that no table or claim reads, by a pattern of the end of their paths -> the script that does."""

NOT_YET: list[str] = []
"""Pages whose numbers in prose have no claims yet; their tables are checked."""
