"""Copies a model so that the copy computes the same and shares nothing with it, or refuses with the reason.

`copy.deepcopy` alone fails on tensors with a history, separates parameters that share memory, loses the hooks and
attributes of parameters, and leaves functions that remember modules bound to the original.
"""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from nasact.errors import SurgeryError, error_line
from nasact.surgery.object_graph import Place, contents, tensor_hooks
from nasact.surgery.remembered import address, refusal

Memo = dict[int, Any]
"""By id of an object: its copy. As in `copy.deepcopy`."""


def check_model(model: object) -> None:
    """Raise SurgeryError for what is no model, or a model in a state or wrapper that surgery cannot work on.

    These are lazy modules that have not run, modules wrapped by `torch.compile`, and modules wrapped for distributed
    training, which would not know the parameters that surgery adds.
    """
    if not isinstance(model, nn.Module):
        if isinstance(model, type):
            raise SurgeryError(
                f"expected a model (an nn.Module), but got the class {model.__name__}: pass an instance of it"
            )
        raise SurgeryError(f"expected a torch.nn.Module, but got {type(model).__name__}")
    for path, module in model.named_modules():
        where, kind = repr(path) if path else "the model", type(module)
        values = (*module.parameters(recurse=False), *module.buffers(recurse=False))
        if any(is_lazy(value) for value in values):
            raise SurgeryError(
                f"{where}: it is a lazy module ({kind.__name__}) whose shapes are not known yet: run one batch through "
                "the model first"
            )
        origins = {base.__module__ for base in kind.__mro__}
        if any(origin.startswith("torch._dynamo") for origin in origins):
            advice = "pass the model before torch.compile" if not path else "use its method compile() instead"
            raise SurgeryError(f"{where}: it is wrapped by torch.compile: {advice}, or compile the result")
        if kind is nn.parallel.DistributedDataParallel or any(o.startswith("torch.distributed.fsdp") for o in origins):
            raise SurgeryError(
                f"{where}: it is wrapped for distributed training ({kind.__name__}): pass the model before it is "
                "wrapped, and wrap the result"
            )


def copy_model(model: nn.Module) -> nn.Module:
    """Return a copy of `model` that computes the same values and gradients with parameters and buffers of its own.

    As `copy.deepcopy`, with a class's own `__deepcopy__`, but also: tensors with a history (old-style `weight_norm`,
    pruning, cached activations) are copied without it, or as views of the copied parameter if they are views of one;
    parameters that share memory still do; attributes and gradient hooks of parameters are kept. Parameters of the copy
    have no `.grad`. Modules compiled in place by their `compile()` are copied without their compiled code.

    Raises SurgeryError, in one line that names the module: what `check_model` refuses, a function that remembers a
    module of the original (in a hook, in an attribute, as a forward on the instance), and what cannot be copied.
    """
    check_model(model)
    original = list(contents(model))
    tensors = [value for _, value in original if isinstance(value, Tensor)]
    memo: Memo = {}
    _copy_shared_memory(tensors, memo)
    for tensor in tensors:
        if not tensor.is_leaf and id(tensor) not in memo:
            memo[id(tensor)] = tensor.detach().clone()
    try:
        copied: nn.Module = copy.deepcopy(model, memo)
        for tensor in tensors:
            _copy_attributes(tensor, memo)
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # whatever an object in the model raises when it is copied
        raise SurgeryError(_describe_failure(model, original, error)) from error
    if copied is model:
        name = type(model).__name__
        raise SurgeryError(f"the model cannot be copied: {name}.__deepcopy__ returns it itself: pass inplace=True")
    reason = refusal(original, copied)
    if reason is not None:
        raise SurgeryError(reason)
    return copied


def _copy_shared_memory(tensors: Sequence[Tensor], memo: Memo) -> None:
    """Copy the tensors that share memory with a parameter, so that their copies share memory too."""
    groups: dict[int, list[Tensor]] = defaultdict(list)
    for tensor in tensors:
        if _is_plain(tensor) and address(tensor):
            groups[address(tensor)].append(tensor)
    for group in groups.values():
        if len(group) > 1 and any(isinstance(tensor, nn.Parameter) for tensor in group):
            storage = group[0].untyped_storage().clone()
            for tensor in group:
                if tensor.is_leaf:
                    seen = torch.empty(0, dtype=tensor.dtype, device=tensor.device)
                    seen.set_(storage, tensor.storage_offset(), tensor.size(), tensor.stride())
                    is_parameter = isinstance(tensor, nn.Parameter)
                    memo[id(tensor)] = nn.Parameter(seen, False) if is_parameter else seen
                    memo[id(tensor)].requires_grad_(tensor.requires_grad)
            for tensor in group:
                base = _variable(tensor)
                if base is not None and id(base) in memo and base.dtype == tensor.dtype:
                    place = tensor.size(), tensor.stride(), tensor.storage_offset()
                    with torch.enable_grad():
                        memo[id(tensor)] = memo[id(base)].as_strided(*place)


def _is_plain(tensor: Tensor) -> bool:
    """Whether a tensor is determined by its memory, dtype, size, strides and offset."""
    lazy = tensor.is_conj() or tensor.is_neg()
    return (
        type(tensor) in (Tensor, nn.Parameter) and tensor.layout is torch.strided and not (lazy or tensor.is_quantized)
    )


def _variable(tensor: Tensor) -> Tensor | None:
    """The leaf from which a tensor was computed in a chain of operations on one tensor; None for a leaf itself."""
    function = tensor.grad_fn
    while function is not None and function.next_functions:
        function = function.next_functions[0][0]
    variable = getattr(function, "variable", None)
    return variable if isinstance(variable, Tensor) else None


def _copy_attributes(tensor: Tensor, memo: Memo) -> None:
    """Give the copy of a tensor the attributes and gradient hooks, which deepcopy loses for parameters."""
    copied = memo.get(id(tensor))
    if not isinstance(copied, Tensor) or copied is tensor:
        return
    for name, value in vars(tensor).items():
        if name not in vars(copied):
            setattr(copied, name, copy.deepcopy(value, memo))
    if copied.requires_grad and not any(tensor_hooks(copied).values()):
        hooks, after_accumulation = tensor_hooks(tensor).values()
        for hook in hooks:
            copied.register_hook(copy.deepcopy(hook, memo))
        for hook in after_accumulation:
            copied.register_post_accumulate_grad_hook(copy.deepcopy(hook, memo))


def _describe_failure(model: nn.Module, original: Sequence[tuple[Place, Any]], error: Exception) -> str:
    """Which attribute could not be copied, and why."""
    kept: Memo = {id(value): value for _, value in original if isinstance(value, nn.Module | Tensor)}
    reason = f"({error_line(error, limit=160)})"
    for path, module in model.named_modules():
        for key, value in vars(module).items():
            try:
                copy.deepcopy(value, kept)
            except Exception:  # as above
                where = repr(path) if path else "the model"
                return f"{where}: its attribute {key!r} cannot be copied {reason}: remove it, or pass inplace=True"
    return f"{type(model).__name__} cannot be copied {reason}: pass inplace=True"
