"""A read-only view of a study that has been run or is running. Must not import torch, so that it is quick."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nasact.errors import StoreError, UnknownName
from nasact.files import read_json
from nasact.outer.engines import ENGINES, Engine
from nasact.outer.records import TrialRecord, best_so_far
from nasact.outer.store import StudyDirectory
from nasact.report.result import Provenance, result_document
from nasact.report.trials_table import collapse_text


@dataclass(frozen=True, kw_only=True)
class StudyView:
    """The study in plain forms, as `report` takes them.

    `tree`: the content of study.yaml. `trials`: the records with their results (`trial_documents`). `genotype`: of the
    best trial; `genotype`, `comparison` and `document` (result.json) are None until they have been computed.
    """

    name: str
    directory: Path
    tree: dict[str, Any]
    records: list[TrialRecord]
    trials: list[dict[str, Any]]
    genotype: dict[str, Any] | None
    comparison: dict[str, Any] | None
    document: dict[str, Any] | None

    @property
    def best(self) -> TrialRecord | None:
        return best_so_far(self.records)

    def to_document(self) -> dict[str, Any]:
        """The final result document if the study has ended, else one with the results so far."""
        if self.document is not None and len(self.document["trials"]["records"]) == len(self.records):
            return self.document
        return result_document(
            study={"name": self.name, "directory": str(self.directory), "tree": self.tree},
            trials=self.trials,
            provenance=Provenance(seed=int(self.tree.get("seed", 0))),
            genotype=self.genotype,
        )


def load_study_view(root: Path, name: str) -> StudyView:
    """The study called `name` under `root`; StoreError with near names if it has not been run there."""
    store = StudyDirectory.existing(root, name)
    tree = store.read_study_tree()
    records = _engine(store, tree).read(store)
    best = best_so_far(records)
    return StudyView(
        name=name,
        directory=store.path,
        tree=tree,
        records=records,
        trials=trial_documents(store, records),
        genotype=None if best is None else trial_document(store, best).get("genotype"),
        comparison=read_json(store.comparison_file) if store.comparison_file.exists() else None,
        document=store.read_result(),
    )


def _engine(store: StudyDirectory, tree: Mapping[str, Any]) -> Engine:
    """The engine that ran the study in the directory; StoreError if study.yaml names an unknown engine."""
    section = tree.get("outer")
    name = str(section.get("engine")) if isinstance(section, Mapping) else ""
    try:
        return ENGINES.get(name)
    except UnknownName as error:
        known = ", ".join(ENGINES.names())
        raise StoreError(f"{store.study_file}: outer.engine: {error} Expected one of: {known}") from None


def trial_documents(store: StudyDirectory, records: Sequence[TrialRecord]) -> list[dict[str, Any]]:
    """The records, each with the part of its trial's result that `report` shows: `metrics`, `collapse`, `left_out`."""
    documents = ((record, trial_document(store, record)) for record in records)
    return [
        {
            **record.to_dict(),
            "metrics": result.get("metrics") or {},
            "collapse": collapse_text(result["collapse"]) if result.get("collapse") else None,
            "left_out": _left_out(result),
        }
        for record, result in documents
    ]


def _left_out(result: Mapping[str, Any]) -> list[str]:
    """Candidates in the trial's search space that redundancy left out of its search."""
    searched = {name for bank in result.get("banks", {}).values() for name in bank}
    return [name for name in result["spec"]["search_space"] if name not in searched] if searched else []


def trial_document(store: StudyDirectory, record: TrialRecord) -> dict[str, Any]:
    """The plain result in a finished trial's directory; empty if there is none."""
    if record.key is None or not record.finished:
        return {}
    with contextlib.suppress(StoreError):
        result = read_json(store.trials / record.key / "result.json").get("result")
        # trials with the same configuration share a directory: the result may be that of another, pruned trial
        if isinstance(result, dict) and result.get("status") == record.status:
            return result
    return {}
