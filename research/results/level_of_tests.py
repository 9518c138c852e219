"""How often two tests reject at level .05, by simulated differences between two methods.

The sign-flip test of the mean gives the verdicts of `compare` and `calibrate`; Wilcoxon's stands
beside it in statistics.csv. Writes level_of_tests.csv; `render.py` puts it into docs/compare.md.

    python research/results/level_of_tests.py
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
from rows import write_csv

from nnunet_nacl.metrics.statistics import ALPHA, sign_flip_p, wilcoxon_p

FILE = "level_of_tests.csv"
N_PATIENTS = (12, 20, 40)
N_SIMULATIONS = 2000
"""Of each kind and number of patients: a share of .05 is known to .01 (two standard errors)."""

Draw = Callable[[np.random.Generator, int], np.ndarray]
"""Differences of so many patients."""


def draw_skewed(generator: np.random.Generator, n: int) -> np.ndarray:
    """Of mean 0 and a standard deviation of 2.16; a skewness of 6.2: most patients lie a little
    below 0, few far above."""
    return generator.lognormal(0, 1, n) - np.exp(0.5)


DIFFERENCES: dict[str, Draw] = {
    "mean 0, symmetric (normal)": lambda generator, n: generator.normal(0, 1, n),
    "mean 0, strongly skewed (log-normal)": draw_skewed,
    "mean 0.5 standard deviations, symmetric": lambda generator, n: generator.normal(0.5, 1, n),
    "median 0, mean above 0 (log-normal)": lambda generator, n: generator.lognormal(0, 1, n) - 1,
}
"""By what is true of them; of the first two a test should reject in .05."""


def count_rejections(draw: Draw, n_patients: int) -> dict[str, float]:
    """Share of the simulations in which each test rejects."""
    generator = np.random.default_rng([0, n_patients])
    rejected = []
    for _ in range(N_SIMULATIONS):
        differences = draw(generator, n_patients)
        p_values = (sign_flip_p(differences, seed=0), wilcoxon_p(differences))
        rejected.append([p < ALPHA for p in p_values])
    sign_flip, wilcoxon = np.mean(rejected, axis=0)
    return {"sign_flip": sign_flip, "wilcoxon": wilcoxon}


def main() -> None:
    """Simulate all kinds of differences, and write the shares."""
    rows = []
    for name, draw in DIFFERENCES.items():
        for n_patients in N_PATIENTS:
            shares = count_rejections(draw, n_patients)
            rows.append({"differences": name, "n_patients": n_patients, **shares})
            print(rows[-1], flush=True)
    write_csv(FILE, pd.DataFrame(rows))


if __name__ == "__main__":
    main()
