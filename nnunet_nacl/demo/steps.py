"""Runs a demo: each step is a command of nnU-Net's or of this package, and what was done is not
done again."""

from __future__ import annotations

import itertools
import json
import re
import shlex
import shutil
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from nnunet_nacl.comparison.output_folder import PAGE_NAME
from nnunet_nacl.demo.plan import DemoPlan
from nnunet_nacl.demo.processes import LoggedCommand, run_together
from nnunet_nacl.demo.small_configuration import add_small_configuration
from nnunet_nacl.demo.summary import measure_list, right_and_wrong
from nnunet_nacl.demo.virtual_brains import LABELS, write_virtual_brains
from nnunet_nacl.methods import PREFIX
from nnunet_nacl.registration.grammar import parse
from nnunet_nacl.utilities.errors import UserError, termination_as_interrupt
from nnunet_nacl.utilities.files import locked, write_atomically
from nnunet_nacl.utilities.json_files import read_json
from nnunet_nacl.worklist.list_files import PAGE as LIST_PAGE

MOST_SCANS = 10
"""More new scans are not predicted in passing."""
VIRTUAL_BRAINS_BATCH = 4
"""Slices in a batch of virtual brains."""

_EPOCH_ENDED = re.compile(r"^.*Epoch time: ", re.MULTILINE)
_TRAINING_DONE = "Training done."
"""What nnU-Net prints between training and validation."""
_CASE_PREDICTED = re.compile(r": predicting (\S+) *$", re.MULTILINE)
_EPOCHS_OF_NAME = re.compile(r"_(\d+)epochs")
_STOCK_EPOCHS = 1000

BEGIN = """\
Everything goes to {folder}; this takes {how_long}. Ctrl-C stops it: the same command goes on.
The commands are listed in {commands} there, and logs/ holds what they print.
Train: steps 1 and 2. Calibrate: steps 3 and 4. Check new scans: step 5.{tuning}"""
END = """\
The demo trained networks (steps 1 and 2), calibrated them (3 and 4) and checked new scans (5).
One short training per loss only shows the steps; do not rank losses by it."""
NEXT = """\
Next: `nnunet_nacl demo --data TASK_FOLDER` takes the same steps on a task of the Medical
Segmentation Decathlon, and docs/tutorial.md explains each."""


_FIRST_COMMAND = 'source "$(dirname "$0")/environment.sh"\n'


class Demo:
    """A demo that is run, or goes on where it was stopped."""

    def __init__(self, plan: DemoPlan) -> None:
        self.plan = plan
        self.commands_file = plan.folder / "commands.sh"
        self.environment_file = plan.folder / "environment.sh"

    def run(self) -> None:
        """Runs what is missing, and says which pages to open.

        Raises:
            UserError: Another demo runs in the folder, its data are of another origin, or a command
                failed.
        """
        plan = self.plan
        taken = f"another demo is running in {plan.folder}; wait for it, or give another [[output]]"
        with locked(plan.folder / ".lock", taken), termination_as_interrupt():
            self._check_scripts()
            self._announce()
            self._write_environment()
            self._prepare_data()
            self.train()
            calibrated = self._calibrate()
            comparison_page = self._compare(calibrated)
            list_page = self._predict(calibrated[0]) if calibrated else None
            self._tune(calibrated)
            print("Open in a browser:")
            if list_page is not None:
                print(f"  new scans, those to look at first: {list_page}")
            if comparison_page is not None:
                print(f"  comparison of the trainings: {comparison_page}")
            print(END)
            print(self._right_and_wrong(list_page))
            if plan.is_virtual:
                print(NEXT)

    def _announce(self) -> None:
        is_timed = self.plan.is_virtual and self.plan.device == "cpu"
        how_long = "at most ten minutes on two free cores" if is_timed else "a while"
        commands = self.commands_file.name
        tuning = " Where to cut: step 6." if any(map(_is_tuned, self.plan.trainers)) else ""
        folder = self.plan.folder
        print(BEGIN.format(folder=folder, how_long=how_long, commands=commands, tuning=tuning))

    def _check_scripts(self) -> None:
        """UserError where a script that the demo writes lies there, and is of others."""
        for path, begin in (
            (self.environment_file, "export nnUNet_"),
            (self.commands_file, _FIRST_COMMAND),
        ):
            if path.exists() and not path.read_text(encoding="utf-8", errors="replace").startswith(
                begin
            ):
                raise UserError(
                    f"{path} was not made by this demo, and would be lost; give another [[output]]"
                )

    def _write_environment(self) -> None:
        """Writes environment.sh, which names nnU-Net's folders to a shell."""
        roots = self.plan.roots.items()
        variables = " ".join(f"{name}={shlex.quote(str(root))}" for name, root in roots)
        write_atomically(self.environment_file, f"export {variables}\n")

    def _prepare_data(self) -> None:
        """Raw data, plans, folds and preprocessed cases."""
        plan = self.plan
        if plan.is_virtual:
            _print_step(
                1,
                "Train: data, virtual brains (a template, not patients); half of those that no"
                " network is trained on are noisy",
            )
        else:
            _print_step(1, f"Train: data, {plan.task}")
        if plan.is_virtual and not plan.task.exists():
            write_virtual_brains(plan.task)
        for root in plan.roots.values():
            root.mkdir(exist_ok=True)
        if plan.raw.exists() and not (plan.logs / "convert.log").is_file():
            raise UserError(f"{plan.raw} was not made by this demo; give another [[output]]")
        # nnU-Net writes dataset.json last, and begins no conversion again.
        if not (plan.raw / "dataset.json").is_file():
            shutil.rmtree(plan.raw, ignore_errors=True)
        processes = plan.num_processes
        number = int(plan.dataset.removeprefix("Dataset")[:3])
        self._run_if_not_done(
            "convert", "nnUNetv2_convert_MSD_dataset", "-i", plan.task, "-np", processes
        )
        self._run_if_not_done(
            "plan",
            "nnUNetv2_plan_and_preprocess",
            *("-d", number),
            *("-npfp", processes),
            "--no_pp",
            "--verify_dataset_integrity",
        )
        self._write_splits()
        parent = plan.parent_configuration
        preprocess = ("nnUNetv2_preprocess", "-d", number, "-c", parent, "-np", processes)
        self._run_if_not_done(f"preprocess_{parent}", *preprocess)
        if parent != plan.configuration:
            self._add_small_configuration()

    def _write_splits(self) -> None:
        """Writes the folds: nnU-Net's first training would, and another would read them half
        written."""
        from nnunetv2.utilities.crossval_split import generate_crossval_split

        path = self.plan.preprocessed / "splits_final.json"
        if path.exists():
            return
        # such as one that keeps a patient's scans together
        given = self.plan.task / "splits_final.json"
        if given.is_file():
            splits = read_json(given)
        else:
            labels = (self.plan.raw / "labelsTr").glob("*.nii.gz")
            cases = sorted(label.name.removesuffix(".nii.gz") for label in labels)
            splits = generate_crossval_split(cases, n_splits=5)
        write_atomically(path, json.dumps(splits, indent=4))

    def _add_small_configuration(self) -> None:
        """Adds the configuration that is trained to nnU-Net's plans, and lists a command that does
        the same."""
        plans_file = self.plan.preprocessed / "nnUNetPlans.json"
        parent = self.plan.parent_configuration
        largest_batch = VIRTUAL_BRAINS_BATCH if self.plan.is_virtual else None
        module = ["python", "-m", "nnunet_nacl.demo.small_configuration"]
        words = [*module, str(plans_file), parent]
        if largest_batch is not None:
            words.append(str(largest_batch))
        self._list_commands([words])
        add_small_configuration(plans_file, parent, largest_batch)

    def train(self) -> None:
        """Trains and validates what is not done yet."""
        plan = self.plan
        commands = []
        for fold, trainer in itertools.product(plan.folds, plan.trainers):
            folder = plan.results / f"{trainer}__nnUNetPlans__{plan.configuration}" / f"fold_{fold}"
            if (folder / "validation" / "summary.json").is_file():  # nnU-Net writes it last
                continue
            words = ["nnUNetv2_train", plan.dataset, plan.configuration, fold, "-tr", trainer]
            words += ["-device", plan.device]
            # nnU-Net's own trainers leave no records of validation cases, and tuning would predict
            # them once more
            if parse(trainer) is None or _is_tuned(trainer):
                words.append("--npz")
            if any(folder.glob("checkpoint_*.pth")):
                words.append("--c")
            commands.append((f"train_{trainer}_{plan.configuration}_fold_{fold}", words))
        losses = [_loss_name(trainer) for trainer in plan.trainers]
        at_once = plan.trainings_at_once
        _print_step(
            2,
            f"Train and validate {' and '.join(losses)}, {at_once} at the same time: this takes"
            " longest",
        )
        for start in range(0, len(commands), at_once):
            self._train_together(commands[start : start + at_once])

    def _train_together(self, named_commands: Sequence[tuple[str, list[str]]]) -> None:
        """Trains networks at the same time, with a bar over their epochs, then over the cases that
        they validate on."""
        commands = [self._make_logged(name, words) for name, words in named_commands]
        self._list_commands([list(command.words) for command in commands])
        before = [_count_epochs(command.log) for command in commands]  # of an earlier, stopped run
        epochs = sum(_number_of_epochs(command.words) for command in commands)
        num_cases = sum(self._count_validation_cases(command.words[3]) for command in commands)
        bars = [tqdm(total=epochs, initial=sum(before), desc="training", unit="epoch")]

        def show_progress() -> None:
            done = min(epochs, sum(_count_epochs(command.log) for command in commands))
            if len(bars) == 1:
                bars[0].update(done - bars[0].n)
                if done == epochs:
                    bars[0].close()
                    bars.append(tqdm(total=num_cases, desc="nnU-Net validates", unit="case"))
            if len(bars) == 2:
                validated = sum(_count_validated(command.log) for command in commands)
                bars[1].update(min(num_cases, validated) - bars[1].n)

        try:
            run_together(commands, self.plan.environment, show_progress)
        finally:
            bars[-1].close()
        for command in commands:
            _done_file(command.log).touch()

    def _count_validation_cases(self, fold: str) -> int:
        """Cases that nnU-Net validates a fold on; fold all validates on those it trains on."""
        splits = read_json(self.plan.preprocessed / "splits_final.json")
        if fold == "all":
            return len({*splits[0]["train"], *splits[0]["val"]})
        return len(splits[int(fold)]["val"])

    def _calibrate(self) -> list[str]:
        """Calibrates each model on its validation cases; the trainers of which that could be
        done."""
        _print_step(3, "Calibrate each model on its validation cases")
        calibrated = []
        for trainer in self.plan.trainers:
            name = self._log_of_calibration(trainer)
            try:
                self._run_if_not_done(
                    name, "nnunet_nacl", "calibrate", *self._model_options(trainer)
                )
            except UserError as error:
                # too few validation cases, perhaps: the comparison is still worth it
                print(f"{error.marked}\nIt goes on without it.")
                continue
            summary = self._read_log_from(name, "Where nnU-Net segments")
            print(f"   {trainer}:", *(line.strip() for line in summary[:1]))
            calibrated.append(trainer)
        return calibrated

    def _compare(self, calibrated: Sequence[str]) -> Path | None:
        """The page of the trainers, and of the same calibrated; None where there is one alone."""
        methods = [*self.plan.trainers, *(f"{trainer}+calibrated" for trainer in calibrated)]
        if len(methods) < 2:
            return None
        _print_step(4, "Compare them, as trained and calibrated")
        folder = self.plan.folder / "comparison" / f"{self.plan.dataset}__{self.plan.configuration}"
        first, *others = methods
        options = [*self._model_options(first), *others, "-o", folder, "-bad", self.plan.bad_dice]
        self._run("compare", "nnunet_nacl", "compare", *options)
        return folder / PAGE_NAME

    def _predict(self, trainer: str) -> Path | None:
        """Checks a few new scans with a calibrated model; the page, or None where there are none or
        too many."""
        plan = self.plan
        scans = plan.raw / "imagesTs"
        output = plan.folder / "predictions" / f"{plan.dataset}__{trainer}__{plan.configuration}"
        predict = ["nnunet_nacl", "predict", "-i", scans, "-o", output]
        predict += [*self._model_options(trainer), "-bad", plan.bad_dice, "-device", plan.device]
        num_scans = len(list(scans.glob("*_0000.*")))
        if not 0 < num_scans <= MOST_SCANS:
            command = shlex.join(str(word) for word in predict)
            _print_step(5, f"Check new scans when you like: {command}")
            return None
        _print_step(5, "Check new scans: predict them, and list those to look at first")
        self._run("predict", *predict)
        flagged = self._read_log_from("predict", r"\d+ of \d+ scans? ")[:1]
        first_scans = self._read_log_from("predict", "In brackets")[1:]
        for line in [*flagged, *first_scans]:
            print(f"   {line}")
        return output / LIST_PAGE

    def _tune(self, trainers: Sequence[str]) -> None:
        """Learns where to cut networks whose loss has no Dice term."""
        for trainer in filter(_is_tuned, trainers):
            _print_step(6, f"Where to cut: the best threshold of each structure for {trainer}")
            name = "_".join(["tune", trainer, self.plan.configuration, *self.plan.folds])
            options = [*self._model_options(trainer), "-device", self.plan.device]
            try:
                self._run_if_not_done(name, "nnunet_nacl", "tune", *options)
            except UserError as error:
                print(f"{error.marked}\nIt goes on without it.")  # too few cases, perhaps
                continue
            lines = self._read_log_from(name, "structure ")
            # behind the table: where each structure is cut, and what was written
            for line in itertools.dropwhile(lambda line: ": " not in line, lines):
                print(f"   {line}")

    def _right_and_wrong(self, list_page: Path | None) -> str:
        """Two sentences on the whole; of the new scans only where their truth is at hand."""
        changes = {}
        for trainer in self.plan.trainers:
            log = self._log_of_calibration(trainer)
            verdict = " ".join(self._read_log_from(log, "Where nnU-Net segments"))
            change = re.search(r"NLL [^(]*\(([^)]*)\)", verdict)
            if change is not None:
                changes[_loss_name(trainer)] = change[1]
        outcome = None
        if list_page is not None and self.plan.is_virtual:
            structures = {name: label for label, name in enumerate(LABELS)}
            labels = self.plan.task / "labelsTs"
            outcome = measure_list(list_page.parent, labels, structures, self.plan.bad_dice)
        return right_and_wrong(changes, outcome)

    def _log_of_calibration(self, trainer: str) -> str:
        return "_".join(["calibrate", trainer, self.plan.configuration, *self.plan.folds])

    def _model_options(self, trainer: str) -> list[str]:
        plan = self.plan
        return ["-d", plan.dataset, "-c", plan.configuration, "-f", *plan.folds, "-tr", trainer]

    def _make_logged(self, name: str, words: Sequence[object]) -> LoggedCommand:
        return LoggedCommand(tuple(str(word) for word in words), self.plan.logs / f"{name}.log")

    def _run_if_not_done(self, name: str, *words: object) -> None:
        """Runs a command, unless an earlier run of the demo has done it."""
        if not _done_file(self._make_logged(name, words).log).is_file():
            self._run(name, *words)

    def _run(self, name: str, *words: object) -> None:
        command = self._make_logged(name, words)
        self._list_commands([list(command.words)])
        run_together([command], self.plan.environment)
        _done_file(command.log).touch()

    def _list_commands(self, commands: Sequence[Sequence[str]]) -> None:
        """Adds commands to commands.sh, each once."""
        file = self.commands_file
        text = file.read_text(encoding="utf-8") if file.is_file() else _FIRST_COMMAND
        for words in commands:
            line = f"{shlex.join(words)}\n"
            if line not in text:
                text += line
        write_atomically(file, text)

    def _read_log_from(self, name: str, begin: str) -> list[str]:
        """The lines of a log from the last that matches ``begin`` to the next empty one; none where
        none matches."""
        log = self.plan.logs / f"{name}.log"
        if not log.is_file():  # of a model that could not be calibrated
            return []
        lines = log.read_text(errors="replace").splitlines()
        starts = [number for number, line in enumerate(lines) if re.match(begin, line)]
        if not starts:
            return []
        return list(itertools.takewhile(str.strip, lines[starts[-1] :]))


def _print_step(number: int, text: str) -> None:
    print(f"{number}. {text}", flush=True)


def _loss_name(trainer: str) -> str:
    return trainer.removeprefix(PREFIX).partition("_")[0]


def _is_tuned(trainer: str) -> bool:
    """Whether the trainer's loss has no Dice term to the end, so that argmax may not be the best
    cut."""
    variant = parse(trainer)
    return variant is not None and not variant.with_dice


def _done_file(log: Path) -> Path:
    """The file that says that the command of this log has ended well."""
    return log.with_suffix(".done")


def _count_epochs(log: Path) -> int:
    """Epochs that have ended by the log of a training; nnU-Net's own log is not needed for it."""
    if not log.is_file():
        return 0
    return len(_EPOCH_ENDED.findall(log.read_text(errors="replace")))


def _count_validated(log: Path) -> int:
    """Cases of the validation that runs, by the log of a training."""
    if not log.is_file():
        return 0
    _, _, validation = log.read_text(errors="replace").rpartition(_TRAINING_DONE)
    return len(_CASE_PREDICTED.findall(validation))


def _number_of_epochs(words: Sequence[str]) -> int:
    trainer = words[words.index("-tr") + 1]
    epochs = _EPOCHS_OF_NAME.search(trainer)
    return int(epochs[1]) if epochs else _STOCK_EPOCHS
