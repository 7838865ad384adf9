"""The study's `model.pt`: the derived network as trained for the comparison, with all that is needed to rebuild it."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from nasact.errors import NasactError, StoreError, error_line
from nasact.files import write_atomically
from nasact.outer.store import StudyDirectory
from nasact.study import Study, TrialSpec
from nasact.study_model import build_study_model
from nasact.supernet import Genotype
from nasact.tasks import Data

SCHEMA = 1


@dataclass(frozen=True)
class SavedShape:
    """The shape of the task as stored in `model.pt`, so that the model is built without loading data."""

    input_shape: tuple[int, ...]
    classes: int


@dataclass(frozen=True, kw_only=True)
class TrainedNetwork:
    """A derived network with its weights, in eval mode, and what it was built from."""

    module: nn.Module
    genotype: Genotype
    spec: TrialSpec
    input_shape: tuple[int, ...]
    classes: int


def save_network(store: StudyDirectory, spec: TrialSpec, data: Data, genotype: Genotype, weights: Path) -> Path:
    """Write `model.pt` with the state dict that the comparison saved in the file `weights`; return its path."""
    buffer = io.BytesIO()
    torch.save(
        {
            "schema": SCHEMA,
            "spec": spec.to_tree(),
            "genotype": genotype.to_json(),
            "input_shape": list(data.input_shape),
            "classes": data.classes,
            "state": torch.load(weights, weights_only=True),
        },
        buffer,
    )
    write_atomically(store.model_file, buffer.getvalue())
    return store.model_file


def load_network(store: StudyDirectory) -> TrainedNetwork:
    """The network in `model.pt`; StoreError if there is none yet, or if the file does not fit the study's model."""
    path = store.model_file
    if not path.exists():
        raise StoreError(f"{path}: there is no network yet: run `nasact search {store.name}` to its end")
    try:
        document = torch.load(path, weights_only=True)
        if document["schema"] != SCHEMA:
            raise StoreError(f"{path}: unknown schema {document['schema']}, expected {SCHEMA}")
        spec = Study.from_tree(document["spec"]).spec
        genotype = Genotype.from_json(document["genotype"])
        input_shape, classes = tuple(document["input_shape"]), int(document["classes"])
        state = document["state"]
    except NasactError:
        raise
    except Exception as error:
        # for other files torch raises errors of pickle, zip and its own
        raise StoreError(f"{path}: cannot be read ({error_line(error, 200)}); remove it and run again") from error
    module = genotype.apply(build_study_model(spec, SavedShape(input_shape, classes)))
    try:
        module.load_state_dict(state)
    except RuntimeError as error:
        last_line = str(error).strip().splitlines()[-1].strip()
        raise StoreError(f"{path}: no longer fits model {spec.task.model.name!r} ({last_line})") from error
    return TrainedNetwork(module=module.eval(), genotype=genotype, spec=spec, input_shape=input_shape, classes=classes)
