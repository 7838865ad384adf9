"""The steps of strategies that give alpha a hypergradient and `w` a gradient: in turn, or both at once."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from nasact.bilevel.differentiable_optimiser import InnerStep, inner_step
from nasact.bilevel.double_backward import explain_missing_second_derivative
from nasact.bilevel.hypergradients import Hypergradient, HypergradientFunction
from nasact.bilevel.problem import Batch, Buffers, Problem, SupernetProblem, Tensors, gradients, trainable_weights
from nasact.bilevel.strategies.perturbed_step import perturbed
from nasact.bilevel.strategies.state import (
    SearchState,
    StepReport,
    forward,
    move_alpha,
    move_weights,
    require_finite,
    train_mode,
)


def alpha_gradient(
    state: SearchState, train: Batch, val: Batch, hypergradient: HypergradientFunction, *, looks_ahead: bool
) -> Hypergradient:
    """`hypergradient` of the supernet on these batches; parameters, buffers and optimisers stay as they are.

    Both losses run in train mode (batch statistics, dropout), as DARTS was published.
    """
    train_mode(state.supernet)
    problem = problem_of(state, train, val)
    return _hypergradient(state, problem, problem, hypergradient, looks_ahead=looks_ahead)


def problem_of(state: SearchState, train: Batch, val: Batch) -> SupernetProblem:
    """The search's two losses on these batches, its regularisers among them."""
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


def alternate(state: SearchState, train: Batch, hypergradient: Hypergradient) -> StepReport:
    """Alpha along its hypergradient, then `w` along its gradient on the training batch, with the new alpha."""
    require_finite(hypergradient.train_loss, "training", state)
    require_finite(hypergradient.val_loss, "validation", state)
    move_alpha(state, hypergradient.alpha)
    report = weight_step(state, train)
    return StepReport(train_loss=report.train_loss, val_loss=hypergradient.val_loss.item())


@dataclass
class _Observed:
    """A problem whose first training pass leaves what it did to the buffers."""

    problem: SupernetProblem
    buffers: Buffers | None = None

    def train_loss(self, w: Tensors, alpha: Tensors) -> Tensor:
        loss, buffers = self.problem.train_pass(w, alpha)
        if self.buffers is None:
            self.buffers = buffers
        return loss

    def val_loss(self, w: Tensors, alpha: Tensors) -> Tensor:
        return self.problem.val_loss(w, alpha)


def at_once(state: SearchState, train: Batch, val: Batch, hypergradient: HypergradientFunction) -> StepReport:
    """Alpha along its hypergradient and `w` along the gradient that it was looked ahead with, at the old alpha.

    One pass over the training batch serves both: its masks, its batch statistics, its loss.
    """
    train_mode(state.supernet)
    problem = problem_of(state, train, val)
    observed = _Observed(problem)
    found = _hypergradient(state, problem, observed, hypergradient, looks_ahead=True)
    assert found.train_loss is not None
    assert found.weights is not None
    assert observed.buffers is not None
    require_finite(found.train_loss, "training", state)
    require_finite(found.val_loss, "validation", state)
    move_alpha(state, found.alpha)
    move_weights(state, found.weights)
    for buffer, after in observed.buffers:
        buffer.copy_(after)
    state.step += 1
    return StepReport(train_loss=found.train_loss.item(), val_loss=found.val_loss.item())


def weight_step(state: SearchState, train: Batch) -> StepReport:
    """`w` along its gradient on the training batch; alpha rests. A whole step of any strategy's warm-up."""
    train_mode(state.supernet)
    with perturbed(state, train):
        loss = forward(state, train)
        require_finite(loss, "training", state)
        found = gradients(loss, trainable_weights(state.supernet))
    move_weights(state, found)
    state.step += 1
    return StepReport(train_loss=loss.item(), val_loss=None)
