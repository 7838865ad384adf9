"""A whole study: data, outer loop, best trial, comparison, final network, result. Every stage continues where it was.

Joins the rooms below; computes nothing itself. Prints nothing: whoever wants to see it work passes callbacks.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nasact.compare import Comparison, compare, site_options
from nasact.errors import StoreError, StudyError
from nasact.files import json_ready, write_json
from nasact.monitors import build_monitors, require_site
from nasact.outer.callbacks import Callbacks, NullCallbacks
from nasact.outer.data import load_study_data
from nasact.outer.dispatcher import Listener
from nasact.outer.engines import ENGINES
from nasact.outer.preview import require_monitors
from nasact.outer.provenance import Origin, origin
from nasact.outer.records import TrialRecord, best_of
from nasact.outer.store import StudyDirectory
from nasact.outer.study_view import trial_documents
from nasact.outer.trained_network import load_network, save_network
from nasact.report.result import Provenance, result_document
from nasact.report.statistics import mean
from nasact.report.tables import comparison_table
from nasact.study import Study, TrialSpec
from nasact.study_model import build_study_model
from nasact.supernet import find_sites
from nasact.tasks import Data
from nasact.tracking import NullTracker, StudyInfo, Tracker
from nasact.tracking.tracker import RunIds
from nasact.trial import Report, TrialResult, begin_supernet, run_trial


@dataclass(frozen=True, kw_only=True)
class StudyResult:
    """Everything a finished study has to show. `document` is the plain form that `result.json` holds."""

    study: Study
    spec: TrialSpec
    directory: Path
    records: list[TrialRecord]
    best: TrialRecord
    trial: TrialResult
    comparison: Comparison
    data: Data
    model_file: Path | None
    model_uri: str | None
    run_ids: RunIds
    document: dict[str, Any]


def run_study(
    study: Study,
    *,
    root: Path = Path(),
    data_dir: Path | None = None,
    download: bool = False,
    tracker: Tracker | None = None,
    events: Callbacks | None = None,
    fresh: bool = False,
    workers: int = 1,
) -> StudyResult:
    """Run `study` in `root`/runs/<name>, or continue it there; only what has not been computed yet is computed.

    `workers`: processes that train the networks of the comparison. KeyboardInterrupt leaves a state that the same call
    continues.
    """
    started = time.perf_counter()
    with StudyDirectory.open_for(study, root, fresh=fresh) as store:
        chosen = tracker or NullTracker()
        listener = Listener(study, events or NullCallbacks(), chosen)
        made = origin(study.spec.seed)
        data = load_study_data(study.spec, data_dir=data_dir, download=download)
        listener.tracking_started(
            StudyInfo(name=study.spec.name, fingerprint=study.fingerprint(), yaml=study.to_yaml(), tags=made.tags())
        )
        status = "failed"
        try:
            listener.original_functions = _original_functions(study.spec, data)
            _require_monitors(study.spec, data, listener.original_functions)
            result = _Stages(study, store, data, listener, made, chosen.tracking_uri, workers).run(started)
            status = "complete"
        except KeyboardInterrupt:
            status = "interrupted"
            raise
        finally:
            listener.tracking_finished(status)
        return result


@dataclass(frozen=True)
class _Stages:
    study: Study
    store: StudyDirectory
    data: Data
    listener: Listener
    origin: Origin
    tracking_uri: str | None
    workers: int

    def run(self, started: float) -> StudyResult:
        engine = ENGINES.get(self.study.spec.outer.engine)
        records = engine.run(self.study, self.store, self._run_trial, self.listener)
        best = best_of(records, self.study.spec.name)
        spec = self.study.fill(best.params)
        trial = self._finished(spec)
        if trial.genotype is None:
            raise StudyError(f"trial {best.number}: complete, but without a genotype")
        comparison = compare(
            spec,
            self.data,
            trial.genotype,
            directory=self.store.compare,
            progress=self.listener.compare_progress,
            workers=self.workers,
        )
        write_json(self.store.comparison_file, comparison.to_dict())
        table = str(comparison_table(comparison.to_dict()))
        texts = {"comparison.txt": table, "genotype.json": trial.genotype.to_json()}
        self.listener.comparison_finished(comparison, _metrics(comparison, trial), texts)
        model_file = self._save(spec, trial, comparison)
        model_uri = self._track_model(model_file)
        run_ids = self.listener.run_ids()
        document = self._document(records, trial, comparison, run_ids, model_file, time.perf_counter() - started)
        self.store.write_result(document)
        return StudyResult(
            study=self.study,
            spec=spec,
            directory=self.store.path,
            records=records,
            best=best,
            trial=trial,
            comparison=comparison,
            data=self.data,
            model_file=model_file,
            model_uri=model_uri,
            run_ids=run_ids,
            document=document,
        )

    def _run_trial(self, spec: TrialSpec, directory: Path) -> Generator[Report, bool | None, TrialResult]:
        return run_trial(spec, self.data, directory=directory)

    def _finished(self, spec: TrialSpec) -> TrialResult:
        """The result of a trial that is complete: read from its directory, or made again if somebody removed it."""
        reports = self._run_trial(spec, self.store.trial_directory(spec.key()))
        while True:
            try:
                next(reports)
            except StopIteration as stop:
                result: TrialResult = stop.value
                return result

    def _save(self, spec: TrialSpec, trial: TrialResult, comparison: Comparison) -> Path | None:
        if comparison.model_path is None or trial.genotype is None:
            self.listener.message("the derived network diverged in the comparison: there is no model.pt")
            return None
        return save_network(self.store, spec, self.data, trial.genotype, Path(comparison.model_path))

    def _track_model(self, model_file: Path | None) -> str | None:
        if model_file is None:
            return None
        return self.listener.model(load_network(self.store).module, self.data.train.x[:3])

    def _document(
        self,
        records: Sequence[TrialRecord],
        trial: TrialResult,
        comparison: Comparison,
        run_ids: RunIds,
        model_file: Path | None,
        seconds: float,
    ) -> dict[str, Any]:
        made = self.origin
        document = result_document(
            study={
                "name": self.study.spec.name,
                "fingerprint": self.study.fingerprint(),
                "directory": str(self.store.path),
                "tree": self.study.tree,
            },
            trials=trial_documents(self.store, records),
            provenance=Provenance(**made.to_dict(), seconds=seconds),
            genotype=None if trial.genotype is None else trial.genotype.to_dict(),
            comparison=comparison.to_dict(),
            exports={} if model_file is None else {"torch": str(model_file)},
            mlflow={"tracking_uri": self.tracking_uri, **run_ids},
        )
        return self._as_before(document) or document

    def _as_before(self, document: dict[str, Any]) -> dict[str, Any] | None:
        """The earlier result where this one says the same: to look again must not change who computed it, and when."""
        with contextlib.suppress(StoreError):
            before = self.store.read_result()
            if before is not None and before | {"provenance": None} == json_ready(document) | {"provenance": None}:
                return before
        return None


def _original_functions(spec: TrialSpec, data: Data) -> Mapping[str, str]:
    """The model's own function by site; also the moment at which a model without any site is refused."""
    return {
        site.name: site.function for site in find_sites(build_study_model(spec, data), **site_options(spec, data)).sites
    }


def _require_monitors(spec: TrialSpec, data: Data, sites: Iterable[str]) -> None:
    """StudyError where the monitors of the study cannot do what it asks of them: before its first trial."""
    require_site(spec.outer.prune_by, sites)
    if any(monitor.needs_precheck for monitor in build_monitors(spec.search.monitors)):
        require_monitors(spec, begin_supernet(spec, data), data)


def _metrics(comparison: Comparison, trial: TrialResult) -> dict[str, float]:
    """A few clean numbers for a tracker's charts."""
    accuracies = {
        f"test_accuracy/{name}": mean(variant.test_accuracies) for name, variant in comparison.variants.items()
    }
    return accuracies | {name: trial.metrics[name] for name in ("gap", "derived_val_accuracy") if name in trial.metrics}
