"""The step of every strategy that gives alpha a hypergradient and `w` a gradient, in turn."""

from __future__ import annotations

from nasact.bilevel.hypergradients import Hypergradient, HypergradientFunction
from nasact.bilevel.inner import InnerStep, inner_step
from nasact.bilevel.problem import Batch, SupernetProblem, gradients, trainable_weights
from nasact.bilevel.strategies.state import (
    SearchState,
    StepReport,
    forward,
    move_alpha,
    move_weights,
    require_finite,
    train_mode,
)
from nasact.bilevel.twice import second_derivatives_told


def alpha_gradient(
    state: SearchState, train: Batch, val: Batch, hypergradient: HypergradientFunction, *, looks_ahead: bool
) -> Hypergradient:
    """`hypergradient` of the supernet on these batches; parameters, buffers and optimisers stay as they are.

    Both losses run in train mode (batch statistics, dropout), as DARTS was published.
    """
    train_mode(state.supernet)
    problem = SupernetProblem.draw(state.supernet, state.loss, train, val)
    inner = inner_step(state.weight_optimiser, trainable_weights(state.supernet)) if looks_ahead else InnerStep(())
    with second_derivatives_told():
        return hypergradient(problem, problem.w, problem.alpha, inner)


def alternate(state: SearchState, train: Batch, hypergradient: Hypergradient) -> StepReport:
    """Alpha along its hypergradient, then `w` along its gradient on the training batch, with the new alpha."""
    require_finite(hypergradient.train_loss, "training", state)
    require_finite(hypergradient.val_loss, "validation", state)
    move_alpha(state, hypergradient.alpha)
    report = weight_step(state, train)
    return StepReport(train_loss=report.train_loss, val_loss=hypergradient.val_loss.item())


def weight_step(state: SearchState, train: Batch) -> StepReport:
    """`w` along its gradient on the training batch; alpha rests. A whole step of any strategy's warm-up."""
    train_mode(state.supernet)
    loss = forward(state, train)
    require_finite(loss, "training", state)
    move_weights(state, gradients(loss, trainable_weights(state.supernet)))
    state.step += 1
    return StepReport(train_loss=loss.item(), val_loss=None)
