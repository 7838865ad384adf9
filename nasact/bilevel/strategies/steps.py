"""The steps that strategies share: alternating, simultaneous, or of only the weights; and alpha's hypergradient."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from nasact.bilevel.differentiable_optimiser import InnerStep, inner_step
from nasact.bilevel.double_backward import explain_missing_second_derivative
from nasact.bilevel.hypergradients.base import Hypergradient, HypergradientFunction
from nasact.bilevel.problem import Batch, Buffers, Problem, SupernetProblem, Tensors, gradients, trainable_weights
from nasact.bilevel.strategies.base import StepReport
from nasact.bilevel.strategies.perturbed_step import perturbed_mixture_weights
from nasact.bilevel.strategies.state import SearchState
from nasact.bilevel.strategies.updates import forward, move_alpha, move_weights, require_finite, train_mode


def alpha_gradient(
    state: SearchState, train: Batch, val: Batch, hypergradient: HypergradientFunction, *, looks_ahead: bool
) -> Hypergradient:
    """Return `hypergradient` of the supernet on these batches; parameters, buffers and optimisers do not change.

    `looks_ahead`: whether the function needs the weight optimiser's inner step. Both losses run in train mode (batch
    statistics, dropout), as in the published DARTS.
    """
    train_mode(state.supernet)
    problem = problem_of(state, train, val)
    return _hypergradient(state, problem, problem, hypergradient, looks_ahead=looks_ahead)


def problem_of(state: SearchState, train: Batch, val: Batch) -> SupernetProblem:
    """Return the two losses of the search on these batches, with its regularisers."""
    return SupernetProblem.draw(state.supernet, state.loss, train, val, state.regularisers, state.progress)


def _hypergradient(
    state: SearchState,
    supernet: SupernetProblem,
    problem: Problem,
    hypergradient: HypergradientFunction,
    *,
    looks_ahead: bool,
) -> Hypergradient:
    inner = inner_step(state.weight_optimiser, trainable_weights(state.supernet)) if looks_ahead else InnerStep(())
    with explain_missing_second_derivative():
        return hypergradient(problem, supernet.w, supernet.alpha, inner)


def alternating_step(state: SearchState, train: Batch, hypergradient: Hypergradient) -> StepReport:
    """Update alpha with its hypergradient, then `w` with its gradient on the training batch at the new alpha."""
    require_finite(hypergradient.train_loss, "training", state)
    require_finite(hypergradient.val_loss, "validation", state)
    move_alpha(state, hypergradient.alpha)
    report = weight_step(state, train)
    return StepReport(train_loss=report.train_loss, val_loss=hypergradient.val_loss.item())


@dataclass
class _RecordingProblem:
    """A problem that records the buffers after its first training pass."""

    problem: SupernetProblem
    buffers: Buffers | None = None

    def train_loss(self, w: Tensors, alpha: Tensors) -> Tensor:
        loss, buffers = self.problem.train_pass(w, alpha)
        if self.buffers is None:
            self.buffers = buffers
        return loss

    def val_loss(self, w: Tensors, alpha: Tensors) -> Tensor:
        return self.problem.val_loss(w, alpha)


def simultaneous_step(state: SearchState, train: Batch, val: Batch, hypergradient: HypergradientFunction) -> StepReport:
    """Update alpha with its hypergradient and `w` with the gradient of the look-ahead, which is at the old alpha.

    One pass over the training batch is used for both: its dropout masks, its batch statistics, its loss.
    """
    train_mode(state.supernet)
    problem = problem_of(state, train, val)
    recording = _RecordingProblem(problem)
    found = _hypergradient(state, problem, recording, hypergradient, looks_ahead=True)
    assert found.train_loss is not None
    assert found.weights is not None
    assert recording.buffers is not None
    require_finite(found.train_loss, "training", state)
    require_finite(found.val_loss, "validation", state)
    move_alpha(state, found.alpha)
    move_weights(state, found.weights)
    for buffer, value_after_pass in recording.buffers:
        buffer.copy_(value_after_pass)
    state.step += 1
    return StepReport(train_loss=found.train_loss.item(), val_loss=found.val_loss.item())


def weight_step(state: SearchState, train: Batch) -> StepReport:
    """Update `w` with its gradient on the training batch; alpha is not updated. The whole step during a warm-up."""
    train_mode(state.supernet)
    with perturbed_mixture_weights(state, train):
        loss = forward(state, train)
        require_finite(loss, "training", state)
        found = gradients(loss, trainable_weights(state.supernet))
    move_weights(state, found)
    state.step += 1
    return StepReport(train_loss=loss.item(), val_loss=None)


def weights_only_step(state: SearchState, train: Batch) -> StepReport:
    """Take a `weight_step`, then project betas, which are weights, to their bounds."""
    report = weight_step(state, train)
    state.supernet.project_()
    return report
