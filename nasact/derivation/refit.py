"""`refit`: magnitude chooses the functions, then the pruned supernet trains the scale of each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from nasact.derivation.base import DERIVATIONS, CostEstimate, DerivationContext, Derived
from nasact.options import require_at_least, require_positive
from nasact.supernet.fixed_weights import FixedWeightSupernet
from nasact.supernet.top_k import TopK, build_genotype, derive_weights
from nasact.training.batches import batches
from nasact.training.loop import begin_fit, fit
from nasact.training.metrics import eval_mode, evaluate, require_finite
from nasact.training.seeds import derive_seed


@dataclass(frozen=True, kw_only=True)
class Refit:
    """Prune the supernet to the `top_k` heaviest functions, then train network weights and mixture weights in turn.

    Each round trains network weights and betas for one epoch on training data (a new optimiser of the search's kind),
    then the kept mixture weights for one epoch on validation data (Adam with `lr`, in eval mode: BatchNorm takes no
    statistics from validation data). The kept weights are unconstrained, so that with k = 1 each is the scale of its
    function; the genotype therefore has normaliser `free`. The result is the round with the lowest validation loss, or
    the pruned network before the first round.
    """

    source: ClassVar[str] = "the retraining of arXiv:1806.09055 and paper 001, of mixture weights too"
    summary: ClassVar[str] = "magnitude, then refits the kept weights (their scale too) on validation data"
    cost: ClassVar[str] = "`epochs` of the supernet over training and validation data"
    levels: ClassVar[tuple[str, ...]] = ()

    epochs: int = 5
    lr: float = 1e-2

    def __post_init__(self) -> None:
        require_at_least("epochs", self.epochs)
        require_positive("lr", self.lr)

    def estimate_cost(self, sites: Sequence[tuple[int, int]]) -> CostEstimate:
        return CostEstimate(supernet_epochs=self.epochs, mixture_epochs=self.epochs, validations=self.epochs + 1)

    def derive(self, context: DerivationContext, top_k: TopK) -> Derived:
        pruned = derive_weights(context.supernet, top_k)
        fixed = FixedWeightSupernet.copy_of(context.supernet)
        for name, mixture in fixed.mixtures.items():
            mixture.set_weights(pruned[name])
        fit_state = begin_fit(fixed.network, context.optimiser, seed=derive_seed(context.seed, "refit"))
        scale_optimiser = torch.optim.Adam(
            [mixture.weights for mixture in fixed.mixtures.values()], lr=self.lr, weight_decay=0.0
        )
        before = best = evaluate(fixed.network, context.val, loss=context.loss, place="derive, pruned network")
        genotype = build_genotype(fixed.banks(), pruned, normaliser="free", top_k=top_k)
        for epoch in range(self.epochs):
            for _ in fit(
                fit_state,
                context.train,
                epochs=epoch + 1,
                batch_size=context.batch_size,
                loss=context.loss,
                phase="derive, refitting,",
            ):
                pass
            self._fit_scales(fixed, scale_optimiser, pruned, context, epoch)
            place = f"derive, refitting, epoch {epoch + 1}"
            validation = evaluate(fixed.network, context.val, loss=context.loss, place=place)
            if validation.loss < best.loss:
                best = validation
                weights = {
                    name: mixture.weights.detach().double().cpu().clone() for name, mixture in fixed.mixtures.items()
                }
                genotype = build_genotype(fixed.banks(), weights, normaliser="free", top_k=top_k)
        metrics = {"val_loss_pruned": before.loss, "val_loss_refitted": best.loss}
        return Derived(genotype, {"networks": 0, "epochs": self.epochs, **metrics})

    def _fit_scales(
        self,
        fixed: FixedWeightSupernet,
        optimiser: torch.optim.Optimizer,
        pruned: dict[str, Tensor],
        context: DerivationContext,
        epoch: int,
    ) -> None:
        """Train the kept mixture weights for one epoch over the validation data; pruned weights stay zero."""
        mixtures = fixed.mixtures
        kept = {name: (pruned[name] != 0).to(mixture.weights) for name, mixture in mixtures.items()}
        parameters = [mixture.weights.requires_grad_(True) for mixture in mixtures.values()]
        try:
            with eval_mode(fixed.network):
                for batch in batches(
                    context.val, context.batch_size, seed=context.seed, phase="refit.val", epoch=epoch
                ):
                    loss = context.loss(fixed.network(batch.x), batch.y)
                    require_finite(loss.item(), f"derive, refitting, epoch {epoch + 1}, validation loss")
                    gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
                    for (name, mixture), gradient in zip(mixtures.items(), gradients, strict=True):
                        mixture.weights.grad = None if gradient is None else gradient * kept[name]
                    optimiser.step()
        finally:
            for parameter in parameters:
                parameter.requires_grad_(False)
                parameter.grad = None


DERIVATIONS.register("refit", Refit)
