"""Detects calls that torch transforms (vmap, jvp, export, ...): a hand-written gradient would be lost or wrong there.

Every kernel then computes in plain torch. Knows torch only.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

_PLAIN_TENSORS = (Tensor, nn.Parameter, nn.Buffer)

# torch has no public function for any of these. `getattr` with a default, as private names may go away; without the
# first two no call is safe (see unsafe_reason).
_FUNCTIONAL = getattr(torch._C, "_are_functorch_transforms_active", None)
_MODES = getattr(torch._C, "_len_torch_dispatch_stack", None)
_WILL_EXECUTE = getattr(torch._C, "_will_engine_execute_node", None)
# Without these two, the first operation on such a tensor raises an error: nothing is computed wrongly.
_LEGACY = getattr(getattr(torch._C, "_functorch", None), "is_legacy_batchedtensor", lambda tensor: False)
_LAZY_ZERO = getattr(Tensor, "_is_zerotensor", lambda tensor: False)


def unsafe_reason() -> str | None:
    """Return why only plain torch is safe with this version of torch; None where the other kernels are safe too."""
    if _FUNCTIONAL is None or _MODES is None:
        return f"torch {torch.__version__} does not report when it transforms a call"
    return None


def is_transformed(*tensors: Tensor) -> bool:
    """Whether torch records or transforms the operations of this call, rather than only computing numbers.

    True while a model is exported or traced; under vmap, grad, jvp and the like (torch.func); in forward mode; under a
    dispatch mode; and for a tensor that is not a plain one (fake, meta, distributed, sparse, a lazy negative).
    """
    if _FUNCTIONAL is None or _MODES is None:
        return True
    if torch.compiler.is_exporting():
        return True
    if _FUNCTIONAL():
        return True
    # Private: torch offers no way to ask whether a `dual_level` block is open. -1 outside of all blocks.
    level = getattr(forward_ad, "_current_level", 0)
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


def is_transformed_backward(*tensors: Tensor) -> bool:
    """Like `is_transformed`, for a backward pass: also batched gradients (`is_grads_batched`) and lazy zeros."""
    return is_transformed(*tensors) or any(_LEGACY(tensor) or _LAZY_ZERO(tensor) for tensor in tensors)


def needs_gradient(tensor: Tensor) -> bool:
    """Whether the running backward pass computes a gradient for `tensor`: `torch.autograd.grad` may skip it.

    True where torch does not report it.
    """
    if not tensor.requires_grad:
        return False
    if _WILL_EXECUTE is None:
        return True
    try:
        return bool(_WILL_EXECUTE(torch.autograd.graph.get_gradient_edge(tensor).node))
    except RuntimeError:
        return True


def separate_variables(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Views of the tensors as separate variables: the gradient of one excludes what flows into it through another.

    In a backward pass, x may have been computed from the same weights that it is mixed with.
    """
    return tuple(tensor.view_as(tensor) for tensor in tensors)
