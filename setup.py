"""Packaging: metadata, the trainers' entry points, and the two startup files that let nnU-Net find
them."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

HERE = Path(__file__).resolve().parent

# The site module reads these two files from site-packages when Python starts. Up to Python 3.14 it
# executes the import line of the .pth file; from 3.15 on (PEP 829) the .start file takes precedence
# over a .pth file of the same name, whose import lines are then ignored. Both lead to the same
# function, and running it twice changes nothing. The line of the .pth file says nothing where the
# package is gone, such as the moved folder of an editable install: Python would print an error
# whenever it starts. It must be one line that begins with "import". A .start file has no room for
# such a guard.
STARTUP_FILES = {
    "nnunet_nacl.pth": (
        r'import os; exec("try:\n import nnunet_nacl.registration._startup\nexcept ImportError:\n'
        r' pass")'
        "\n"
    ),
    "nnunet_nacl.start": "nnunet_nacl.registration._startup:register\n",
}


def find_trainers() -> list[str]:
    """Names of the trainers: the classes `nnUNetTrainer...` in the files of trainers/, read without
    importing them.

    nnUNetTrainerDiceCE is none: its loss is that of nnU-Net's own trainer, and only names with
    tokens need it.
    """
    names = []
    for path in sorted((HERE / "trainers").glob("*.py")):
        for statement in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(statement, ast.ClassDef) and statement.name.startswith("nnUNetTrainer"):
                names.append(statement.name)
    names.remove("nnUNetTrainerDiceCE")
    return names


class BuildPyWithStartupFiles(build_py):
    """Puts the startup files at the top of site-packages, where no option of setuptools can put a
    file."""

    def run(self) -> None:
        super().run()
        for name, content in STARTUP_FILES.items():
            target = self._startup_folder() / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(content, encoding="utf-8")

    def get_outputs(self, include_bytecode: bool = True) -> list[str]:
        """Adds the startup files for a wheel; an editable wheel takes whatever lies in its
        folder."""
        outputs = super().get_outputs(include_bytecode)
        if not self._is_editable():
            outputs += [str(self._startup_folder() / name) for name in STARTUP_FILES]
        return outputs

    def _is_editable(self) -> bool:
        return bool(getattr(self, "editable_mode", False))

    def _startup_folder(self) -> Path:
        # In an editable build nothing is copied out of build_lib, but what lies in the folder of
        # the `install` command is packed into the editable wheel, so that pip records it and
        # removes it again.
        if self._is_editable():
            return Path(self.distribution.get_command_obj("install").install_lib)
        return Path(self.build_lib)


def read_version() -> str:
    """The version that nnunet_nacl/__init__.py states, read without importing it."""
    text = (HERE / "nnunet_nacl" / "__init__.py").read_text(encoding="utf-8")
    return re.search(r'^__version__ = "([^"]+)"$', text, re.MULTILINE).group(1)


def read_readme() -> str:
    """The README as a package index shows it, where relative links lead nowhere: places in the
    sources instead."""
    text = (HERE / "README.md").read_text(encoding="utf-8")
    relative = r"\((?!https?://|#)([^)]+)\)"
    text = re.sub(r"!\[([^\]]*)\]" + relative, r"*\1: `\2` of the source distribution.*", text)
    return re.sub(r"\[([^\]]+)\]" + relative, r"\1 (`\2`)", text)


# Lower bounds are the oldest versions that the tests were run with (Python 3.10), see
# tools/check_versions.sh; several come with nnU-Net, but are imported here too.
REQUIREMENTS = [
    "nnunetv2>=2.8,<3",
    "torch>=2.6",
    "numpy>=1.26",
    "scipy>=1.11",
    "pandas>=2.1",
    "matplotlib>=3.8",
    "SimpleITK>=2.3",
    "nibabel>=5.2",
    "scikit-learn>=1.3",
    "imagecodecs>=2024.1",
    "pillow>=10.2",
    "jinja2>=3.1",
    "pydantic>=2.10",
    "pydantic_core>=2.27",
    "markupsafe>=2.1",
    # It counts the cores that a process may use, within its affinity and its container's quota:
    # os.process_cpu_count needs Python 3.13 and knows no quota, nor does os.sched_getaffinity.
    # scikit-learn brings it.
    "joblib>=1.4",
    "filelock>=3.30",
    "tqdm>=4.66",
    "batchgenerators>=0.25.1",
    "batchgeneratorsv2>=0.3.2",
    "dynamic_network_architectures>=0.4.4",
    "typing_extensions>=4.8",
]

# nilearn brings the template of the virtual brains.
# nilearn 0.14 asks for packaging 26, Snakemake for an older one.
DEMO_REQUIREMENTS = ["nilearn>=0.10.4,<0.14"]

# Snakemake runs workflow/, of a clone or the source distribution. From 9.10 to 9.17 it may start
# more jobs than there are cores.
WORKFLOW_REQUIREMENTS = ['snakemake>=9.22; python_version >= "3.11"']

# pydicom reads DICOM series, highdicom writes segmentations and reports of them.
DICOM_REQUIREMENTS = ["highdicom>=0.28", "pydicom>=3"]

TEST_REQUIREMENTS = [
    "pytest>=7",
    "pytest-timeout>=2",
    "pytest-xdist>=3",
    "hypothesis>=6",
    "monai>=1.4",
    *WORKFLOW_REQUIREMENTS,
    *DICOM_REQUIREMENTS,
    "griffelib>=2",
    "jsonschema>=4.18",
    "pyyaml>=6",
    "scikit-image>=0.22",
    "tifffile>=2024.1",
    "torchmetrics>=1",
    "medpy",
    "playwright",
    "rankseg",
    "nbclient",
    "ipykernel",
    # The tests build this package themselves, without isolation, so that they need no network.
    "pip>=22.3",
    "setuptools>=64",
    "wheel",
]

# Version 2 of mkdocs reads no settings of the theme's; the pages are for the theme before. Ruff
# breaks signatures into lines for mkdocstrings: else they are cut.
DOCS_REQUIREMENTS = ["mkdocs>=1.6,<2", "mkdocs-material>=9.6", "mkdocstrings[python]>=1", "ruff"]

setup(
    name="nnunet_nacl",
    version=read_version(),
    description=(
        "Trustworthy confidence for nnU-Net v2: train with calibrating losses such as NACL,"
        " calibrate the models that you have, and check the new scans that need a human."
    ),
    long_description=read_readme(),
    long_description_content_type="text/markdown",
    author="The nnunet_nacl authors",
    license="Apache-2.0",
    license_files=["LICENSE", "NOTICE"],
    project_urls={
        "Paper": "https://doi.org/10.1016/j.media.2025.103501",
        "nnU-Net": "https://github.com/MIC-DKFZ/nnUNet",
    },
    keywords=[
        "nnU-Net",
        "medical image segmentation",
        "calibration",
        "loss function",
        "NACL",
        "uncertainty",
        "quality control",
    ],
    classifiers=[
        "Development Status :: 4 - Beta",
        "Environment :: Console",
        "Intended Audience :: Healthcare Industry",
        "Intended Audience :: Science/Research",
        "Operating System :: OS Independent",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3 :: Only",
        *(f"Programming Language :: Python :: 3.{minor}" for minor in range(10, 15)),
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Topic :: Scientific/Engineering :: Image Processing",
        "Topic :: Scientific/Engineering :: Medical Science Apps.",
        "Typing :: Typed",
    ],
    # `trainers` would be far too common a name in site-packages.
    packages=[*find_packages(include=["nnunet_nacl", "nnunet_nacl.*"]), "nnunet_nacl_trainers"],
    package_dir={"nnunet_nacl": "nnunet_nacl", "nnunet_nacl_trainers": "trainers"},
    # The bridge folder is no package: nnU-Net imports what lies in it as top-level modules.
    package_data={
        "nnunet_nacl": ["py.typed"],
        "nnunet_nacl_trainers": ["py.typed"],
        "nnunet_nacl.registration": ["_bridge/*.py"],
        "nnunet_nacl.utilities": ["templates/*"],
    },
    include_package_data=False,
    zip_safe=False,
    python_requires=">=3.10",
    install_requires=REQUIREMENTS,
    extras_require={
        "demo": DEMO_REQUIREMENTS,
        "workflow": WORKFLOW_REQUIREMENTS,
        "dicom": DICOM_REQUIREMENTS,
        "docs": DOCS_REQUIREMENTS,
        "test": TEST_REQUIREMENTS,
        "dev": [
            *TEST_REQUIREMENTS,
            *DEMO_REQUIREMENTS,
            *DOCS_REQUIREMENTS,
            "build",
            "mypy",
            "ruff",
        ],
    },
    entry_points={
        "console_scripts": ["nnunet_nacl = nnunet_nacl.cli.main:main"],
        "nnunetv2.trainers": [f"{name} = nnunet_nacl_trainers:{name}" for name in find_trainers()],
    },
    cmdclass={"build_py": BuildPyWithStartupFiles},
)
