"""ONE trial: search, derive, retrain from scratch on the training data, validate. Must not know Optuna, Ray or MLflow.

A trial yields reports; its caller may stop it after each of them. Everything it computes is a function of (spec, data).
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Generator, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from nasact import bilevel, derivation, monitors
from nasact.errors import Divergence, GenotypeError, MixtureError
from nasact.files import write_json
from nasact.results import Phase, Report, TrialResult, trial_metrics
from nasact.study import TrialSpec
from nasact.study_model import build_study_model
from nasact.supernet import Genotype
from nasact.supernet_setup import begin_supernet
from nasact.tasks import Data, Split, data_fingerprint
from nasact.tasks.split import digest
from nasact.training.checkpoint import Checkpoint
from nasact.training.loop import Epoch, FitState, SearchRun, WeightsOverTime, begin_fit, begin_search, fit, search
from nasact.training.metrics import evaluate
from nasact.training.schedule import build_schedule
from nasact.training.seeds import derive_seed
from nasact.trial_status import Status

logger = logging.getLogger(__name__)

SCHEMA = 1


def run_trial(
    spec: TrialSpec, data: Data, *, directory: Path | None = None
) -> Generator[Report, bool | None, TrialResult]:
    """Run the trial `spec` on `data` and yield a report after each epoch; `send(True)` stops it as pruned.

    With a `directory` the trial writes a checkpoint there after every epoch and continues from it. Reports of epochs
    that are already done are yielded again, so that reports and result equal those of an uninterrupted trial. A trial
    that has finished there returns its result without training. A trial that diverges ends as failed, with its reason.
    """
    finished = read_result(spec, data, directory)
    if finished is not None:
        yield from finished.reports()
        return finished
    trial = _Trial(spec, data, directory)
    trial.load_checkpoint()
    for report in tuple(trial.history):
        if (yield report):
            return trial.finish("pruned")
    try:
        if trial.genotype is None and (yield from _search_phase(trial)):
            return trial.finish("pruned")
        if (yield from _retrain_phase(trial)):
            return trial.finish("pruned")
    except (Divergence, GenotypeError, MixtureError) as error:
        return trial.finish("failed", str(error))
    return trial.finish("complete")


def run_to_end(spec: TrialSpec, data: Data, *, directory: Path | None = None) -> TrialResult:
    """Run the trial, or continue it, without stopping it; return its result and discard its reports."""
    reports = run_trial(spec, data, directory=directory)
    while True:
        try:
            next(reports)
        except StopIteration as end:
            result: TrialResult = end.value
            return result


def read_result(spec: TrialSpec, data: Data, directory: Path | None) -> TrialResult | None:
    """The result of the complete or failed trial in `directory`.

    None if there is no readable result, if it belongs to another trial, or if the trial was pruned (it can continue).
    """
    path = _result_path(directory)
    if path is None or not path.exists():
        return None
    try:
        document = json.loads(path.read_text())
        if document["schema"] != SCHEMA or document["key"] != trial_key(spec, data):
            return None
        result = TrialResult.from_dict(document["result"])
    except (ValueError, KeyError, TypeError, OSError, GenotypeError):
        logger.warning("%s: the result cannot be read: ignored", path)
        return None
    return None if result.status == "pruned" else result


def _result_path(directory: Path | None) -> Path | None:
    return None if directory is None else directory / "result.json"


def trial_key(spec: TrialSpec, data: Data) -> str:
    """Identifies a trial by everything that it is a function of: the parts of the spec that it reads, and the data."""
    return digest(spec.key(), data_fingerprint(data.train), data_fingerprint(data.val))


def derived_model(spec: TrialSpec, data: Data, genotype: Genotype, seed: int) -> nn.Module:
    """A fresh network of the study with the activations of `genotype`, its weights initialised by `seed`."""
    return genotype.apply(build_study_model(spec, data, seed=seed)).to(data.train.x.device)


def begin_retrain(spec: TrialSpec, data: Data, genotype: Genotype, *names: object) -> FitState:
    """A derived network before its first epoch. All its random numbers follow from `names` and the study's seed."""
    return _begin_retrain(spec, data, genotype, derive_seed(spec.seed, *names))


def _begin_retrain(spec: TrialSpec, data: Data, genotype: Genotype, seed: int) -> FitState:
    model = derived_model(spec, data, genotype, derive_seed(seed, "model"))
    return begin_fit(model, spec.retrain.optimiser or spec.search.optimiser, seed=seed)


def retrain_epochs(spec: TrialSpec, state: FitState, train: Split, phase: str) -> Iterator[Epoch]:
    """Train a derived network on `train` with the study's budget."""
    batch_size = spec.retrain.batch_size or spec.search.batch_size
    return fit(state, train, epochs=spec.retrain.epochs, batch_size=batch_size, phase=phase)


@dataclass
class _Trial:
    """A running trial: what it has computed so far, and the files that hold it."""

    spec: TrialSpec
    data: Data
    directory: Path | None
    history: list[Report] = field(default_factory=list)
    genotype: Genotype | None = None
    alpha_moved: float = 0.0
    derivation: dict[str, float] = field(default_factory=dict)
    weights_over_time: WeightsOverTime = field(default_factory=dict)
    banks: dict[str, list[str]] = field(default_factory=dict)
    state: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        search = self.spec.search
        self.suite = monitors.MonitorSuite(
            monitors=monitors.build_monitors(search.monitors),
            on_collapse=cast(monitors.OnCollapse, search.on_collapse),
            warmup=search.warmup,
            top_k=self.spec.derive.top_k,
        )
        self.key = trial_key(self.spec, self.data)
        self.checkpoint = None if self.directory is None else Checkpoint(self.directory / "checkpoint.pt", self.key)

    def load_checkpoint(self) -> None:
        """Continue from the last checkpoint, if there is one."""
        payload = self.checkpoint.load() if self.checkpoint else None
        if payload is not None:
            self.history = [Report(**report) for report in payload["history"]]
            self.genotype = Genotype.from_json(payload["genotype"]) if payload["genotype"] else None
            self.alpha_moved = payload["alpha_moved"]
            self.derivation = payload["derivation"]
            self.weights_over_time = payload["weights_over_time"]
            self.banks = payload["banks"]
            self.suite.best_epochs = payload["best_epochs"]
            self.state = payload["state"]

    def take_state(self) -> dict[str, Any] | None:
        """Return the state to continue the phase from, and forget it: the next phase starts without one (None)."""
        state, self.state = self.state, None
        return state

    def record(self, phase: Phase, epochs: int, epoch: Epoch, run: SearchRun | FitState) -> Report:
        """Add the report of an epoch to the history and save a checkpoint of the run after this epoch."""
        report = Report(phase=phase, epoch=epoch.epoch, epochs=epochs, metrics=epoch.metrics)
        self.history.append(report)
        self.save(run.state_dict())
        return report

    def save(self, state: dict[str, Any] | None) -> None:
        """Write a checkpoint. `state`: of the phase after its last epoch; None: the next phase has not started."""
        if self.checkpoint is not None:
            self.checkpoint.save(
                {
                    "history": [asdict(report) for report in self.history],
                    "genotype": self.genotype.to_json() if self.genotype else None,
                    "alpha_moved": self.alpha_moved,
                    "derivation": self.derivation,
                    "weights_over_time": self.weights_over_time,
                    "banks": self.banks,
                    "best_epochs": self.suite.best_epochs,
                    "state": state,
                }
            )

    def finish(self, status: Status, reason: str | None = None) -> TrialResult:
        """Build and write the result. The checkpoint is removed unless the trial was pruned and may continue."""
        collapse = self.suite.collapse_record(self.collapse(), derived=self.genotype is not None)
        result = TrialResult(
            status=status,
            reason=reason,
            genotype=self.genotype,
            metrics=trial_metrics(
                self.history, alpha_moved=self.alpha_moved, derivation=self.derivation, collapse=collapse
            ),
            history=[asdict(report) for report in self.history],
            weights_over_time=self.weights_over_time,
            banks=self.banks,
            spec=self.spec.to_tree(),
            collapse=collapse,
        )
        path = _result_path(self.directory)
        if path is not None:
            write_json(path, {"schema": SCHEMA, "key": self.key, "result": result.to_dict()})
        if self.checkpoint is not None and status != "pruned":
            self.checkpoint.remove()
        return result

    def collapse(self) -> monitors.Collapse | None:
        """The first collapse in the search so far. Depends on the metrics only, so that a continued trial agrees."""
        return self.suite.first_collapse(report for report in self.history if report.phase == "search")


def _search_phase(trial: _Trial) -> Generator[Report, bool | None, bool]:
    """Search and derive; True if the caller stopped the trial."""
    spec, data = trial.spec, trial.data
    run = _begin_search(spec, data)
    trial.banks = {site: list(mixture.names) for site, mixture in run.supernet.mixtures().items()}
    trial.suite.precheck(run.supernet, run.state.loss, data.val, run.seed)
    before = [alpha.detach().clone() for alpha in run.supernet.arch_parameters()]
    state = trial.take_state()
    if state is not None:
        run.load_state_dict(state)
    epochs = spec.search.epochs
    remaining = search(run, data.train, data.val, epochs=epochs, batch_size=spec.search.batch_size)
    while not trial.suite.ends_search(trial.collapse()) and (epoch := next(remaining, None)) is not None:
        trial.alpha_moved = _distance(before, run.supernet.arch_parameters())
        trial.weights_over_time = run.weights_over_time
        if (yield trial.record("search", epochs, trial.suite.measure(run, data.val, epoch), run)):
            return True
    if trial.suite.roll_back(run, trial.collapse()):
        trial.alpha_moved = _distance(before, run.supernet.arch_parameters())
        trial.weights_over_time = run.weights_over_time
    derived = _derive(spec, data, run)
    trial.genotype, trial.derivation = derived.genotype, derived.metrics
    trial.save(None)
    return False


def _derive(spec: TrialSpec, data: Data, run: SearchRun) -> derivation.Derived:
    """The genotype of a finished search. A function of the last epoch's state, so that it can be computed again."""
    context = derivation.DerivationContext(
        run=run,
        train=data.train,
        val=data.val,
        begin=lambda genotype, seed: _begin_retrain(spec, data, genotype, seed),
        optimiser=spec.search.optimiser,
        loss=run.state.loss,
        batch_size=spec.search.batch_size,
        fit_batch_size=spec.retrain.batch_size or spec.search.batch_size,
        seed=derive_seed(spec.seed, "derive"),
    )
    method = derivation.build(spec.derive.method.name, spec.derive.method.options)
    return derivation.derive_by(method, context, spec.derive.top_k)


def _begin_search(spec: TrialSpec, data: Data) -> SearchRun:
    options = spec.search
    strategy = bilevel.build(options.strategy.name, options.strategy.options)
    return begin_search(
        begin_supernet(spec, data, logger.warning),
        strategy,
        options.optimiser,
        seed=derive_seed(spec.seed, "search"),
        schedule=build_schedule(options.temperature),
        warmup=options.warmup,
        scale_alpha_lr=options.temperature.scale_alpha_lr,
        regularisers=bilevel.build_regularisers(options.regularisers),
    )


def _retrain_phase(trial: _Trial) -> Generator[Report, bool | None, bool]:
    """Retrain the derived network from scratch and validate it; True if the caller stopped the trial."""
    spec, data, genotype = trial.spec, trial.data, trial.genotype
    if genotype is None:
        raise GenotypeError("retrain: there is no genotype to retrain")
    fitting = begin_retrain(spec, data, genotype, "retrain")
    state = trial.take_state()
    if state is not None:
        fitting.load_state_dict(state)
    for epoch in retrain_epochs(spec, fitting, data.train, "retrain"):
        place = f"retrain epoch {epoch.epoch}, validation loss"
        started = time.perf_counter()
        with fitting.stream:
            derived = evaluate(fitting.model, data.val, place=place)
        seconds = epoch.metrics["seconds"] + time.perf_counter() - started
        metrics = {**epoch.metrics, "val_loss": derived.loss, "val_accuracy": derived.accuracy, "seconds": seconds}
        done = Epoch(epoch=epoch.epoch, metrics=metrics)
        if (yield trial.record("retrain", spec.retrain.epochs, done, fitting)):
            return True
    return False


def _distance(before: list[Tensor], after: list[nn.Parameter]) -> float:
    """Euclidean distance between two lists of tensors of the same shapes."""
    squares = [(new.detach() - old).double().square().sum() for old, new in zip(before, after, strict=True)]
    return float(torch.stack(squares).sum().sqrt()) if squares else 0.0
