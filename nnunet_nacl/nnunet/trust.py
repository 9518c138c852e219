"""Loads checkpoints without running code in them, and checks what plans name before it is called.

A checkpoint is read as weights and numbers alone. A name is looked up as nnU-Net does; what is
found must be of the kind that is meant, and come from where such things come from.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import pydoc
import re
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from functools import partial
from importlib import import_module
from pathlib import Path
from types import FunctionType
from typing import TYPE_CHECKING, Any

import numpy as np
from typing_extensions import NotRequired, TypedDict

from nnunet_nacl.registration import ENVIRONMENT_VARIABLE, TRAINERS_PACKAGE, bridge_folder
from nnunet_nacl.registration.lookup import registered_trainers
from nnunet_nacl.utilities.errors import UserError, describe, first_line, some
from nnunet_nacl.utilities.files import is_file_name, regular_only
from nnunet_nacl.utilities.images import quiet
from nnunet_nacl.utilities.json_files import decode

if TYPE_CHECKING:
    from nnunetv2.imageio.base_reader_writer import BaseReaderWriter
    from nnunetv2.utilities.label_handling.label_handling import LabelManager
    from nnunetv2.utilities.plans_handling.plans_handler import (
        ConfigurationManager,
        PlansManager,
    )

TRUSTED: ContextVar[bool] = ContextVar("TRUSTED", default=False)
"""Whether checkpoints may hold and plans may name anything, as the user said with
--trust_checkpoint."""


@contextlib.contextmanager
def trusting(is_trusted: bool) -> Iterator[None]:
    """Within it, checkpoints may hold and plans may name anything, if it is or was said so."""
    token = TRUSTED.set(is_trusted or TRUSTED.get())
    try:
        yield
    finally:
        TRUSTED.reset(token)


_IF_TRUSTED = (
    "it can run code. If you know who made it, pass [[trust_checkpoint=True]]; else do not use it."
)


class _InitArgs(TypedDict):
    configuration: str


class Checkpoint(TypedDict):
    """What is read of a checkpoint."""

    network_weights: dict[str, object]
    trainer_name: str
    init_args: _InitArgs
    inference_allowed_mirroring_axes: NotRequired[tuple[int, ...] | None]


def read_checkpoint(path: Path) -> Checkpoint:
    """The content of a checkpoint of nnU-Net, on the CPU.

    Its weights stay on the disk until they are used.

    Raises:
        UserError: It is damaged, none of nnU-Net's, or, unless trusted, holds more than tensors,
            plain values and numbers.
    """
    import torch

    is_zip = False
    try:
        open(path, "rb", opener=regular_only).close()
        # PyTorch's form before 1.6 is no archive, and is read as a whole
        is_zip = zipfile.is_zipfile(path)
        with torch.serialization.safe_globals(
            [(stand_in, name) for name, stand_in in _NUMBERS_OF_NUMPY.items()]
        ):
            content = torch.load(
                path, map_location="cpu", weights_only=not TRUSTED.get(), mmap=is_zip
            )
    except OSError as error:
        raise UserError(describe(error, path)) from None
    except Exception as error:  # torch raises anything on broken bytes
        if is_zip and "Weights only load failed" in str(error):
            problem = "it holds more"
            match = re.search("(?:Unsupported|GLOBAL).*", str(error))
            if match:
                problem = match[0]
            raise UserError(
                f"{path}: cannot be read as weights and numbers alone ({problem}): {_IF_TRUSTED}"
            ) from None
        raise UserError(
            f"{path}: cannot be read as a checkpoint ({first_line(error)}); restore it."
        ) from None
    decode(
        Checkpoint,
        content,
        f"{path}: not a checkpoint of nnU-Net",
        fix="give one that nnUNetv2_train wrote",
    )
    return content


class _Number:
    """Stands for numpy.dtype while a checkpoint is read; knows numbers alone.

    numpy.dtype itself believes all flags in a pickle, and by some of them takes bytes of the file
    for addresses.
    """

    def __init__(self, kind: str, *options: bool) -> None:
        self.kind = kind

    def __setstate__(self, state: tuple[object, ...]) -> None:
        # as NumPy pickles the type of a plain number: the version of this form, the byte order (as
        # in "<f8"), then no sub-array, names, fields, size, alignment and flags
        if state != (3, state[1], None, None, None, -1, -1, 0):
            raise pickle.UnpicklingError("Unsupported state of numpy.dtype")
        self.kind = f"{state[1]}{self.kind}"


def _scalar(number: _Number, data: bytes) -> np.generic:
    """Stands for NumPy's ``scalar``: a bool, a whole or a floating-point number."""
    if not re.fullmatch("[<>|=](b1|[iu][1248]|f[248])", number.kind):
        raise pickle.UnpicklingError(f"Unsupported numpy.dtype {number.kind!r}")
    return np.frombuffer(data, number.kind, 1)[0]


_NUMBERS_OF_NUMPY: dict[str, Callable[..., object]] = {
    "numpy.core.multiarray.scalar": _scalar,
    "numpy._core.multiarray.scalar": _scalar,
    "numpy.dtype": _Number,
}
"""What stands for the names by which NumPy 1 and 2 pickle numbers."""


def _is_layer(name: str) -> bool:
    """Whether a name is that of a network or layer in a package that is trusted with such.

    A name in such a package of which nothing is found passes, too: nnU-Net says what is wrong. The
    packages are torch.nn, nnU-Net's networks, this package, and packages that register trainers.
    """
    from torch import nn

    packages = ["torch.nn", "dynamic_network_architectures", "nnunet_nacl", TRAINERS_PACKAGE]
    for trainer in registered_trainers():
        packages.append(re.split("[.:]", trainer.value)[0])
    trusted = tuple(f"{package}." for package in packages)
    if not f"{name}.".startswith(trusted):  # before anything is imported
        return False
    found = pydoc.locate(name)
    if found is None:  # as nnU-Net's get_network_from_plans
        class_name = name.rpartition(".")[2]
        found = _search("dynamic_network_architectures.architectures", class_name)
    if found is None:
        return True
    if not isinstance(found, type) or not issubclass(found, nn.Module):
        return False
    return f"{found.__module__}.".startswith(trusted)


def _is_trainer(name: str) -> bool:
    """Whether a name is that of a trainer; UserError where nnU-Net finds no class of that name."""
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
    from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name

    try:
        # nnU-Net prints that it searches the folders of others, as if something were wrong
        with quiet():
            trainer = recursive_find_trainer_class_by_name(name)
        # nnU-Net asserts it too, but assertions can be left out
        return issubclass(trainer, nnUNetTrainer)
    except (AssertionError, TypeError):  # it is no class, or one of another kind
        return False
    except Exception as error:  # files of others are imported, which may raise anything
        why = "" if "Could not find" in str(error) else f" ({first_line(error)})"
        raise UserError(
            f"trainer {name}: found neither in nnU-Net, nor in an installed package, nor in"
            f" {_users_folders()}{why}; install the package that has it, or set"
            f" {ENVIRONMENT_VARIABLE} to the folder that holds it."
        ) from None


def _users_folders() -> str:
    """The folders in which nnU-Net looks for trainers, but for ours, in words."""
    value = os.environ.get(ENVIRONMENT_VARIABLE, "")
    folders = [folder for folder in value.split(os.pathsep) if folder not in ("", bridge_folder())]
    if not folders:
        return f"{ENVIRONMENT_VARIABLE}, which names no folder of yours"
    return f"the folders of {ENVIRONMENT_VARIABLE} ({some(folders)})"


def _is_of_nnunet(package: str, name: str) -> bool:
    """Whether a name is that of a class, or for resampling a function, of a package of nnU-Net.

    A name of which nothing is found passes, too: nnU-Net says what is wrong.
    """
    found = _search(f"nnunetv2.{package}", name)
    if found is None:
        return True
    kind = FunctionType if package.endswith("resampling") else type
    return isinstance(found, kind) and found.__module__.startswith(f"nnunetv2.{package}.")


def _search(package: str, name: str) -> object:
    """What has a name in a package, or in one inside it, as nnU-Net looks for it; None for none."""
    from nnunetv2.utilities.find_class_by_name import recursive_find_python_class

    return recursive_find_python_class(import_module(package).__path__[0], name, package)


_PACKAGES = {
    "label_manager": "utilities.label_handling",
    "image_reader_writer": "imageio",
    "overwrite_image_reader_writer": "imageio",
    "preprocessor_name": "preprocessing",
    "normalization_schemes": "preprocessing.normalization",
    "resampling_fn_data": "preprocessing.resampling",
    "resampling_fn_seg": "preprocessing.resampling",
    "resampling_fn_probabilities": "preprocessing.resampling",
}
# by key of a checkpoint, plans.json or dataset.json, whether what is named there belongs there
_JUDGES: dict[str, Callable[[str], bool]] = {
    "trainer_name": _is_trainer,
    # these become parts of paths, and must not lead to other folders, which may hold pickles
    **dict.fromkeys(("dataset_name", "data_identifier", "file_ending"), is_file_name),
    **{key: partial(_is_of_nnunet, package) for key, package in _PACKAGES.items()},
}


def check_names(
    content: Mapping[str, object], file: str, judges: Mapping[str, Callable[[str], bool]] = _JUDGES
) -> None:
    """UserError where a file that is not trusted names what does not belong there.

    Args:
        content: Of the file.
        file: In words, for the message.
        judges: By key whether what is named there belongs there.
    """
    if TRUSTED.get():
        return
    for key, belongs in judges.items():
        names = content.get(key)
        if not isinstance(names, list):
            names = [names]
        for name in names:
            if isinstance(name, str) and not belongs(name):
                raise UserError(
                    f"{file}: {key} is {name!r:.200}, which does not belong there: {_IF_TRUSTED}"
                )


def label_manager_of(
    plans: dict[str, Any], dataset_json: dict[str, Any], source: Path
) -> LabelManager:
    """nnU-Net's label manager of the files of a folder ``source``; UserError if it refuses."""
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    check_names(plans, f"plans.json of {source}")
    try:
        with quiet():
            return PlansManager(plans).get_label_manager(dataset_json)
    except Exception as error:  # nnU-Net raises anything from KeyError to AssertionError here
        raise UserError(
            f"dataset.json or plans.json of {source} is not nnU-Net's: {first_line(error)}"
        ) from error


def find_reader(
    plans: dict[str, Any], dataset_json: dict[str, Any], source: Path
) -> BaseReaderWriter:
    """nnU-Net's reader: that of the plans, as in its validation, else by the file ending.

    Raises:
        UserError: There is none.
    """
    from nnunetv2.imageio.reader_writer_registry import (
        determine_reader_writer_from_dataset_json,
        recursive_find_reader_writer_by_name,
    )

    with quiet():
        check_names(plans, f"plans.json of {source}")
        check_names(dataset_json, f"dataset.json of {source}")
        # plans of older versions name none, or one that is gone: the ending tells it
        with contextlib.suppress(KeyError, RuntimeError):
            return recursive_find_reader_writer_by_name(plans["image_reader_writer"])()
        try:
            return determine_reader_writer_from_dataset_json(dataset_json, verbose=False)()
        except RuntimeError as error:
            ending = dataset_json["file_ending"]
            raise UserError(
                f"No reader of nnU-Net takes {ending!r} files: {first_line(error)}"
            ) from None


def configuration_of(plans_manager: PlansManager, name: str, folder: Path) -> ConfigurationManager:
    """A configuration of nnU-Net's plans manager with all that it inherits.

    Raises:
        UserError: It names what does not belong there.
    """
    file = f"plans.json of {folder}"
    configuration = plans_manager.get_configuration(name)
    check_names(configuration.configuration, file)
    network = configuration.configuration["architecture"]
    check_names(network, file, {"network_class_name": _is_layer})
    # which nnUNetTrainerBN imports in any case
    imported = (*network.get("_kw_requires_import", ()), "conv_op")
    check_names(network.get("arch_kwargs", {}), file, dict.fromkeys(imported, _is_layer))
    if configuration.preprocessor_class is None:
        named = configuration.preprocessor_name
        raise UserError(f"{file}: nnU-Net has no preprocessor_name {named!r}; plan again.")
    return configuration
