"""The paper's six data sets: how each challenge lays out its files, and the paper's preparation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from nnunet_nacl_paper.datasets.layouts import Layout
from nnunet_nacl_paper.datasets.preparation import (
    CentreCrop,
    Orient,
    ResampleTo,
    ResizeInPlane,
    Step,
    TrimEmptySlices,
)

_NATIVE = 10  # added to a number: the data set as the challenge has it


@dataclass(frozen=True)
class Challenge:
    """One data set.

    Attributes:
        name: On the command line.
        title: As the challenge is called.
        dataset: In the name of nnU-Net's data set.
        number: Of nnU-Net's data set; as the challenge has it, 10 more.
        layouts: Where its files lie.
        case: Template of a case's name.
        channels: Modality of each channel, as nnU-Net knows it ("CT" is normalised in its own way).
        values: Label of the challenge -> ours. Any other label is an error.
        labels: Structure -> our labels, in nnU-Net's form.
        sizes: Patients for training, validation and test in the paper.
        steps: The paper's preparation.
        reference: To cite.
        volumes: Volumes of each 4D image, in the order of the channels; 1 for images in 3D.
        regions_class_order: nnU-Net's, where labels are regions.
        leave_one_out: Every patient outside the test is the validation of one fold.
        deviations: What is not as in the paper, or not said there.
    """

    name: str
    title: str
    dataset: str
    number: int
    layouts: tuple[Layout, ...]
    case: str
    channels: tuple[str, ...]
    values: Mapping[int, int]
    labels: Mapping[str, int | tuple[int, ...]]
    sizes: tuple[int, int, int]
    steps: tuple[Step, ...]
    reference: str
    volumes: int = 1
    regions_class_order: tuple[int, ...] | None = None
    leave_one_out: bool = False
    deviations: tuple[str, ...] = field(default=())

    @property
    def preparation(self) -> str:
        """The steps, in words."""
        return ", ".join(map(str, self.steps)) or "as distributed"

    def dataset_name(self, native: bool, number: int | None = None) -> str:
        """nnU-Net's name of the data set.

        Args:
            native: As the challenge has it, without the paper's preparation.
            number: Another number than the default.
        """
        if number is None:
            number = self.number + _NATIVE if native else self.number
        name = self.dataset if native else f"{self.dataset}Paper"
        return f"Dataset{number:03d}_{name}"


_PATIENT_FRAME = {"patient": (r"patient\d{3}", "patient001"), "frame": (r"\d{2}", "01")}
_FLARE_CASE = {"patient": (r"train_\d{3,4}", "train_000")}
_MERGED = "the paper does not say what becomes of cerebellum and brain stem (7, 8): here background"

CHALLENGES = {
    challenge.name: challenge
    for challenge in (
        Challenge(
            name="acdc",
            title="ACDC",
            dataset="ACDC",
            number=701,
            layouts=(
                Layout(
                    _PATIENT_FRAME,
                    ["{patient}/{patient}_frame{frame}"],
                    "{patient}/{patient}_frame{frame}_gt",
                    ["", "training", "database/training"],
                ),
            ),
            case="{patient}_frame{frame}",
            channels=("cineMRI",),
            values={0: 0, 1: 1, 2: 2, 3: 3},
            labels={"background": 0, "RV": 1, "MYO": 2, "LV": 3},
            sizes=(70, 10, 20),
            steps=(ResizeInPlane(224, 224),),
            reference="Bernard et al., IEEE TMI 37 (2018)",
            deviations=(
                (
                    "the challenge's folder 'testing' (50 patients, added later) is not used, as in"
                    " the paper"
                ),
            ),
        ),
        Challenge(
            name="brats19",
            title="BraTS 2019",
            dataset="BraTS19",
            number=702,
            layouts=(
                Layout(
                    {
                        "grade": ("HGG|LGG", "HGG"),
                        "patient": (r"BraTS19_\w+?", "BraTS19_CBICA_AAB"),
                        "scan": (r"\d+", "1"),
                    },
                    [
                        f"{{grade}}/{{patient}}_{{scan}}/{{patient}}_{{scan}}_{m}"
                        for m in ("flair", "t1", "t1ce", "t2")
                    ],
                    "{grade}/{patient}_{scan}/{patient}_{scan}_seg",
                    ["", "MICCAI_BraTS_2019_Data_Training"],
                ),
            ),
            case="{patient}_{scan}",
            channels=("FLAIR", "T1", "T1ce", "T2"),
            # nested as nnU-Net's regions need them: oedema, core, enhancing
            values={0: 0, 2: 1, 1: 2, 4: 3},
            labels={
                "background": 0,
                "whole tumor": (1, 2, 3),
                "tumor core": (2, 3),
                "enhancing tumor": (3,),
            },
            sizes=(235, 35, 65),
            steps=(ResampleTo((1.0, 1.0, 1.0)), TrimEmptySlices()),
            reference="Menze et al., IEEE TMI 34 (2015); Bakas et al., Scientific Data 4 (2017)",
            regions_class_order=(1, 2, 3),
            deviations=(
                (
                    "the paper resamples to a spacing that it does not say: the challenge's own 1"
                    " mm is kept"
                ),
                (
                    "of slices without tumour only those without brain are cut off: nnU-Net"
                    " evaluates whole volumes"
                ),
            ),
        ),
        Challenge(
            name="flare21",
            title="FLARE 2021",
            dataset="FLARE21",
            number=703,
            layouts=(
                Layout(
                    _FLARE_CASE,
                    ["TrainingImg/{patient}_0000"],
                    "TrainingMask/{patient}",
                    ["", "FLARE21"],
                ),
                Layout(
                    _FLARE_CASE,
                    ["TrainImage/{patient}_0000"],
                    "TrainMask/{patient}",
                    ["", "Subtask1"],
                ),
            ),
            case="{patient}",
            channels=("CT",),
            values={0: 0, 1: 1, 2: 2, 3: 3, 4: 4},
            labels={"background": 0, "liver": 1, "kidney": 2, "spleen": 3, "pancreas": 4},
            sizes=(240, 40, 80),
            steps=(Orient(), ResampleTo((5.0, 2.0, 2.0)), CentreCrop((30, 192, 192))),
            reference="Ma et al., Medical Image Analysis 82 (2022)",
            deviations=(
                (
                    "the paper does not say to which spacing it resamples: 5 x 2 x 2 mm here, with"
                    " which its crop of 30 x 192 x 192 spans 15 x 38 x 38 cm"
                ),
                "the challenge has 361 cases, the paper 360: the one more is for training",
            ),
        ),
        Challenge(
            name="prostate",
            title="PROSTATE (Decathlon Task05)",
            dataset="Prostate",
            number=704,
            layouts=(
                Layout(
                    {"patient": (r"prostate_\d{2}", "prostate_00")},
                    ["imagesTr/{patient}"] * 2,
                    "labelsTr/{patient}",
                    ["", "Task05_Prostate"],
                ),
            ),
            case="{patient}",
            channels=("T2", "ADC"),
            values={0: 0, 1: 1, 2: 2},
            labels={"background": 0, "PZ": 1, "TZ": 2},
            sizes=(22, 3, 7),
            steps=(),
            reference="Antonelli et al., Nature Communications 13 (2022)",
            volumes=2,
            deviations=(
                (
                    "the paper does not say how spacings that differ are treated: nnU-Net resamples"
                    " to their median"
                ),
            ),
        ),
        Challenge(
            name="kits19",
            title="KiTS 2019",
            dataset="KiTS19",
            number=705,
            layouts=(
                Layout(
                    # from 210 on: the unlabelled test set
                    {"patient": (r"case_00(?:[01]\d\d|20\d)", "case_00000")},
                    ["{patient}/imaging"],
                    "{patient}/segmentation",
                    ["", "data"],
                ),
            ),
            case="{patient}",
            channels=("CT",),
            values={0: 0, 1: 1, 2: 2},
            labels={"background": 0, "kidney": 1, "tumor": 2},
            sizes=(150, 25, 35),
            steps=(Orient(), ResampleTo((3.22, 1.62, 1.62)), CentreCrop((80, 160, 160))),
            reference="Heller et al., arXiv 1904.00445 (2019)",
            deviations=(
                "the paper's split (150 / 25 / 40) adds up to 215 of 210 cases: 150 / 25 / 35 here",
            ),
        ),
        Challenge(
            name="mrbrains18",
            title="MRBrainS18",
            dataset="MRBrainS18",
            number=706,
            layouts=(
                Layout(
                    {"patient": (r"\d{1,3}", "1")},
                    ["{patient}/pre/reg_T1", "{patient}/pre/reg_IR", "{patient}/pre/FLAIR"],
                    "{patient}/segm",
                    ["", "training"],
                ),
            ),
            case="subject_{patient}",
            channels=("T1", "T1-IR", "T2-FLAIR"),
            values={0: 0, 1: 1, 2: 1, 3: 2, 4: 2, 5: 3, 6: 3, 7: 0, 8: 0, 9: 4, 10: 4},
            labels={"background": 0, "GM": 1, "WM": 2, "CSF": 3, "ignore": 4},
            sizes=(4, 1, 2),
            steps=(),
            reference="Kuijf et al., DataverseNL, doi 10.34894/E0U32Q",
            leave_one_out=True,
            deviations=(
                f"{_MERGED}; infarction and other lesions (9, 10) are ignored, as in the challenge",
                "leave one out: five folds of the five patients that are not for testing",
            ),
        ),
    )
}
"""By name on the command line."""
