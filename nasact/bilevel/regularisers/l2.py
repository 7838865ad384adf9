"""`l2`: the squares of the kernels, of convolutions and dense layers; biases, norms and betas are left alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from nasact.bilevel.regularisers.base import RegulariserContext, Setting
from nasact.options import require_positive


@dataclass(frozen=True, kw_only=True)
class L2:
    """`coefficient` times the sum of squares of every kernel, as Keras counts it.

    The gradient is 2 coefficient W: twice that of a `weight_decay` of the same number.
    """

    name: ClassVar[str] = "l2"
    source: ClassVar[str] = "paper 001, section 4.2.1 (kernel regularisation with a factor of 0.001)"
    formula: ClassVar[str] = "coefficient sum_l |W_l|^2, over kernels only"
    on: ClassVar[Literal["validation", "training"]] = "training"

    coefficient: float = 1e-3

    def __post_init__(self) -> None:
        require_positive("coefficient", self.coefficient)

    def refusal(self, setting: Setting) -> str | None:
        return None

    def __call__(self, context: RegulariserContext) -> Tensor:
        if not context.kernels:
            return torch.zeros(())
        return self.coefficient * torch.stack([kernel.square().sum() for kernel in context.kernels.values()]).sum()
