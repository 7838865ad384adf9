"""Where a hand-written gradient would be lost or wrong: there every kernel computes in plain torch."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

_PLAIN_TENSORS = (Tensor, nn.Parameter, nn.Buffer)


def transformed(*tensors: Tensor) -> bool:
    """Whether torch looks at the operations themselves, or runs them for more than the numbers.

    That is: while a model is exported or traced; under vmap, grad, jvp and the like (torch.func); in forward mode;
    under a dispatch mode or for a tensor that is not plainly one (fake, meta, distributed, quantised).
    """
    if torch.compiler.is_exporting():
        return True
    if torch.compiler.is_compiling():
        return False
    if torch.jit.is_tracing() or torch._C._functorch.peek_interpreter_stack() is not None:
        return True
    if torch._C._len_torch_dispatch_stack() > 0:
        return True
    if any(type(tensor) not in _PLAIN_TENSORS or tensor.is_meta for tensor in tensors):
        return True
    # `_current_level` counts the open `dual_level` blocks, from -1
    return forward_ad._current_level >= 0 and any(
        forward_ad.unpack_dual(tensor).tangent is not None for tensor in tensors
    )
