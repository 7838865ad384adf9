"""`l2`: the squares of the kernels of convolutions and dense layers, without biases, norms and betas."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from nasact.bilevel.regularisers.base import REGULARISERS, LossName, RegulariserContext, SearchSetting
from nasact.options import require_positive


@dataclass(frozen=True, kw_only=True)
class L2:
    """`coefficient` times the sum of squares of every kernel, as in Keras.

    The gradient is 2 coefficient W: twice that of `weight_decay` with the same value.
    """

    name: ClassVar[str] = "l2"
    source: ClassVar[str] = "paper 001, section 4.2.1 (kernel regularisation with a factor of 0.001)"
    formula: ClassVar[str] = "coefficient sum_l |W_l|^2, over kernels only"
    target_loss: ClassVar[LossName] = "training"

    coefficient: float = 1e-3

    def __post_init__(self) -> None:
        require_positive("coefficient", self.coefficient)

    def refusal(self, setting: SearchSetting) -> str | None:
        return None

    def __call__(self, context: RegulariserContext) -> Tensor:
        if not context.kernels:
            return torch.zeros(())
        return self.coefficient * torch.stack([kernel.square().sum() for kernel in context.kernels.values()]).sum()


REGULARISERS.register("l2", L2)
