"""Numbers in prose of what the package costs; see claims.py."""

from __future__ import annotations


def cost(name: str, row: str, column: str, words: str = "") -> str:
    """A cell of a benchmark's table."""
    return f"performance performance/{name} | {row} | {column} | {words}"


def note(expression: str) -> str:
    """A number in the other lines of the benchmarks."""
    return f"text: docs/results/study/performance/notes.csv | {expression}"


def larger(row: str, column: str, after: str) -> str:
    """By voxels, from the export of 192^3 voxels to that of a larger scan."""
    measured = cost("export_size", f"118 classes, 192^3 voxels & {row}", column)
    return f"= ([[{measured}]] {after}) * 512 * 512 * 600 / 192 ** 3"


ITERATION = r"ratios \*\*([\d.]+)\*\*", r"quartiles ([\d.]+) to 1", r"quartiles [\d.]+ to ([\d.]+)"
EXPORT = r"Logits (\d+) x 200", r"Logits 14 x (\d+) x", r"Logits 14 x 200 x (\d+) x", r"Logits 14 x 200 x 384 x (\d+)"

COSTS: dict[str, list[tuple[str, ...]]] = {
    "docs/reference/performance.md": [
        (
            "one case with {} classes ({} x {} x {})",
            *map(note, EXPORT),
        ),
        ("export ({} times the", cost("export", "measured on the way*", "peak memory / probabilities")),
        (
            "takes {} s of CPU time in place of {} s",
            cost("export", "measured on the way*", "CPU s"),
            cost("export", "nnU-Net's export alone", "CPU s"),
        ),
        ("leaves {} MB", note(r"goal: at most 0\.5\); ([\d.]+) MB")),
        ("One case with {} classes,", note(r"(\d+) classes, 128\^3")),
        ("beyond the {} GB", cost("commands", "libraries alone", "peak memory (GB)")),
        (
            "about {} GiB and {} minutes of CPU",
            larger("nnU-Net's export", "peak GiB", "- 0.4"),
            larger("nnU-Net's export", "CPU s", "/ 60"),
        ),
        (
            "and {} GiB and {} minutes in",
            larger("predict's", "peak GiB", "- 0.4"),
            larger("predict's", "CPU s", "/ 60"),
        ),
        ("cases of {}^{} voxels, from", note(r"5 cases of (\d+)\^3"), note(r"5 cases of 96\^(\d)")),
        (
            "takes {} times that of nnU-Net's loss (quartiles {} to {}; 2D, {} million parameters, {} and {} ms)",
            *map(note, ITERATION),
            note(r"with ([\d.]+) million"),
            cost("training_iteration_4_2d_small", "nnUNetTrainerNACL", "median ms per iteration"),
            cost("training_iteration_4_2d_small", "nnUNetTrainer", "median ms per iteration"),
        ),
        (
            "takes {} ms of a validation step",
            cost("training_calibration_4_2d_small", "the observer in it", "median ms"),
        ),
    ],
    "docs/tutorial.md": [
        (
            "of {} of the {} training cases and {} new scans",
            "performance/tutorial.csv | cases | | step == 'training cases'",
            "performance/tutorial.csv | cases | | step == 'training cases of Task04'",
            "performance/tutorial.csv | cases | | step == 'predict'",
        ),
        ("optimiser for {} iterations", "= 100 * 50"),
        ("epochs, {} minutes a fold", "performance/tutorial.csv | minutes | | step == 'training of a fold'"),
        ("in {} s of CPU time: the demo", "performance/tutorial.csv | `CPU s` | | step == 'calibrate'"),
        ("*{} cases, each under", "performance/tutorial.csv | cases | | step == 'calibrate'"),
        ("It takes {} s of CPU time a scan", "performance/tutorial.csv | `CPU s a scan` | | step == 'predict'"),
    ],
}
