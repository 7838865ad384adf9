"""Where a hand-written gradient would be lost or wrong: there every kernel computes in plain torch."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

_PLAIN_TENSORS = (Tensor, nn.Parameter, nn.Buffer)

# torch tells these two in private only.
_FUNCTIONAL = getattr(torch._C, "_are_functorch_transforms_active", None)
_MODES = getattr(torch._C, "_len_torch_dispatch_stack", None)
_ASKED_FOR = getattr(torch._C, "_will_engine_execute_node", None)
# Without these two such a tensor is refused by the first operation: no harm but the error.
_LEGACY = getattr(getattr(torch._C, "_functorch", None), "is_legacy_batchedtensor", lambda tensor: False)
_LAZY_ZERO = getattr(Tensor, "_is_zerotensor", lambda tensor: False)


def blind() -> str | None:
    """Why nothing but plain torch is safe here, if so: this torch does not tell when it transforms a call."""
    if _FUNCTIONAL is None or _MODES is None:
        return f"torch {torch.__version__} does not tell when it transforms a call"
    return None


def transformed(*tensors: Tensor) -> bool:
    """Whether torch looks at the operations themselves, or runs them for more than the numbers.

    That is: while a model is exported or traced; under vmap, grad, jvp and the like (torch.func); in forward mode;
    under a dispatch mode or for a tensor that is not plainly one (fake, meta, distributed, sparse, a lazy negative).
    """
    if _FUNCTIONAL is None or _MODES is None:
        return True
    if torch.compiler.is_exporting():
        return True
    if _FUNCTIONAL():
        return True
    level = getattr(forward_ad, "_current_level", 0)  # of the open `dual_level` blocks, from -1
    if torch.compiler.is_compiling():
        return level >= 0
    if torch.jit.is_tracing() or _MODES() > 0:
        return True
    for tensor in tensors:
        if (
            type(tensor) not in _PLAIN_TENSORS
            or tensor.is_meta
            or tensor.layout is not torch.strided
            or tensor.is_neg()
            or (level >= 0 and forward_ad.unpack_dual(tensor).tangent is not None)
        ):
            return True
    return False


def transformed_back(*tensors: Tensor) -> bool:
    """The same of a backward pass, which has its own ways: batched gradients (`is_grads_batched`) and lazy zeros."""
    return transformed(*tensors) or any(_LEGACY(tensor) or _LAZY_ZERO(tensor) for tensor in tensors)


def asked_for(tensor: Tensor) -> bool:
    """Whether the backward pass that runs goes on to `tensor`: `torch.autograd.grad` may be asked for others only.

    True where torch does not tell.
    """
    if not tensor.requires_grad:
        return False
    if _ASKED_FOR is None:
        return True
    try:
        return bool(_ASKED_FOR(torch.autograd.graph.get_gradient_edge(tensor).node))
    except RuntimeError:
        return True


def partial(*tensors: Tensor) -> tuple[Tensor, ...]:
    """The same tensors as variables of their own: a gradient of one is not what reaches it through another.

    In a backward pass x may have been computed from the very weights that it is mixed by.
    """
    return tuple(tensor.view_as(tensor) for tensor in tensors)
