"""Time and memory of a decision for Dice, beside an argmax and RankSEG's fastest solver, on one core.

    python benchmarks/decision.py [--small] [--core N] [--output benchmarks/new.md]

Synthetic softmax maps, 6 % foreground, as for the metrics. An argmax is NumPy's or PyTorch's over the same array,
whichever is faster. The goal: at most 3 argmaxes a round, extra memory at most one label map and two float arrays.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import rankseg
import torch
from metrics import PeakMemory, interleaved, make_case
from page import describe_machine, pin_to_one_core, table, write_section

from nnunet_nacl.calibration.decision import decide


def measure(classes: int, shape: tuple[int, int, int], rounds: int) -> list[str]:
    """One row of the table."""
    probs, _ = make_case(classes, shape)
    solver = rankseg.RankSEG(metric="dice", solver="RMA", output_mode="multiclass", safe_screening="auto")
    n_rounds = decide(probs).rounds
    seconds = interleaved(
        {
            "numpy": lambda: probs.numpy().argmax(0),
            "torch": lambda: probs.argmax(0),
            "start": lambda: decide(probs, max_rounds=0),
            "decide": lambda: decide(probs),
            "rankseg": lambda: solver.predict(probs[None]),
        },
        rounds,
    )
    memory = {}
    for name, function in (("decide", lambda: decide(probs)), ("rankseg", lambda: solver.predict(probs[None]))):
        with PeakMemory() as watched:
            function()
        memory[name] = watched.peak
    argmax = min(seconds["numpy"], seconds["torch"])
    image = 4 * probs[0].numel()  # bytes of one float array
    return [
        f"{classes} x {' x '.join(map(str, shape))}",
        f"{argmax:.3f} s",
        str(n_rounds),
        f"{(seconds['decide'] - seconds['start']) / n_rounds / argmax:.2f}",
        f"{seconds['decide']:.2f} s",
        f"{seconds['rankseg']:.2f} s",
        f"{memory['decide'] / image:.1f}",
        f"{memory['rankseg'] / image:.1f}",
    ]


def main() -> None:
    """Measures, prints, and writes the section."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="small arrays, for a quick look")
    parser.add_argument("--core", type=int, help="core to run on; default: the first")
    parser.add_argument("--output", type=Path, help="page whose section to rewrite")
    args = parser.parse_args()
    pin_to_one_core(args.core)
    torch.set_num_threads(1)
    sizes = [(3, (64, 64, 64)), (14, (64, 64, 64))] if args.small else [(3, (128, 256, 256)), (14, (256, 256, 256))]
    header = ["probabilities", "argmax", "rounds", "argmaxes a round", "decide", "RankSEG", "memory, decide", "RankSEG"]
    text = table(header, [measure(classes, shape, 5 if args.small else 2) for classes, shape in sizes])
    text += "\n\nMemory: the most that is taken beside the probabilities, in float arrays of the image's size."
    print(text)
    if args.output:
        intro = "One core: `python benchmarks/decision.py" + (" --small`." if args.small else "`.")
        section = f"## Decision for Dice\n\n{intro}\n\n{text}\n\nMachine: {describe_machine()}."
        write_section(args.output, "decision", section)


if __name__ == "__main__":
    main()
