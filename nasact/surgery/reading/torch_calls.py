"""What functions and methods of torch do with their arguments, as far as sites, channels and aliases are concerned."""

from __future__ import annotations

from collections.abc import Sequence

from nasact.surgery.reading.frame import consume, keep
from nasact.surgery.reading.values import ANYTHING, Value, tensor

VIEWS = frozenset(
    {
        "view",
        "view_as",
        "reshape",
        "reshape_as",
        "flatten",
        "unflatten",
        "ravel",
        "expand",
        "expand_as",
        "squeeze",
        "unsqueeze",
        "transpose",
        "permute",
        "swapaxes",
        "swapdims",
        "movedim",
        "moveaxis",
        "t",
        "adjoint",
        "chunk",
        "split",
        "tensor_split",
        "unbind",
        "narrow",
        "select",
        "index_select",
        "diagonal",
        "detach",
        "to",
        "type",
        "type_as",
        "float",
        "half",
        "double",
        "bfloat16",
        "contiguous",
        "cpu",
        "cuda",
        "requires_grad_",
        "unfold",
        "rearrange",
        "repeat_interleave",
        "repeat",
        "tile",
        "broadcast_to",
        "roll",
        "flip",
        "atleast_1d",
        "atleast_2d",
        "squeeze_",
        "unsqueeze_",
        "split_with_sizes",
        "hsplit",
        "vsplit",
        "dsplit",
        "alias",
        "view_as_real",
        "gather",
        "take_along_dim",
    }
)
"""Operations whose result holds values of their first argument, possibly in the same memory."""
COPIES = frozenset(
    {
        "clone",
        "clamp",
        "clip",
        "nan_to_num",
        "masked_fill",
        "dropout",
        "dropout_",
        "dropout1d",
        "dropout2d",
        "dropout3d",
        "alpha_dropout",
        "pad",
        "interpolate",
    }
)
"""Operations whose result holds values of their first argument, or zeros, in memory of its own."""
PRODUCTS = frozenset(
    {
        "mul",
        "mul_",
        "multiply",
        "multiply_",
        "matmul",
        "mm",
        "bmm",
        "mv",
        "einsum",
        "baddbmm",
        "addcmul",
        "addcmul_",
        "tensordot",
        "dot",
        "inner",
        "lerp",
        "lerp_",
    }
)
"""Operations that multiply their tensors with one another."""
_LOSSES = frozenset({"binary_cross_entropy", "bce_loss"})
_SELECTIONS = frozenset({"topk", "sort", "argmax", "argsort", "log"})
_INDEXED = frozenset({"one_hot"})
_JOINS = frozenset({"cat", "concat", "concatenate", "stack", "hstack", "vstack"})
SCALINGS = frozenset({"add", "add_", "sub", "sub_", "rsub", "div", "div_", "true_divide", "neg", "mul", "mul_"})
"""Operations that keep a result what it is if the other operand is a number."""
SIZES = frozenset(
    {
        "size",
        "dim",
        "numel",
        "nelement",
        "stride",
        "ndimension",
        "is_floating_point",
        "is_contiguous",
        "get_device",
        "item",
    }
)
CONSTANTS = frozenset(
    {
        "zeros",
        "ones",
        "full",
        "empty",
        "arange",
        "linspace",
        "eye",
        "tensor",
        "as_tensor",
        "zeros_like",
        "ones_like",
        "full_like",
        "new_zeros",
        "new_ones",
        "new_full",
    }
)
CHANNEL_PRESERVING = frozenset(
    {
        "add",
        "sub",
        "mul",
        "div",
        "clone",
        "contiguous",
        "dropout",
        "dropout1d",
        "dropout2d",
        "dropout3d",
        "max_pool1d",
        "max_pool2d",
        "max_pool3d",
        "avg_pool1d",
        "avg_pool2d",
        "avg_pool3d",
        "adaptive_avg_pool2d",
        "adaptive_max_pool2d",
        "interpolate",
        "pad",
        "clamp",
        "add_",
        "mul_",
        "sub_",
    }
)


def torch_result(name: str, values: Sequence[Value]) -> Value:
    """The value of a call of torch's function or method `name`; `values`: of its arguments, the tensor first."""
    if name in SIZES:
        for value in values:
            consume(value, "other")
        return Value(size=True)
    every = list(values)
    if name in _LOSSES:
        consume(every[0], "output")
        return tensor()
    if name in _SELECTIONS and (len(every) == 1 or not every[1].results):
        return tensor(results=every[0].every_result())
    if name in _INDEXED:
        for value in every:
            consume(value, "index")
        return tensor()
    parameter = bool(every) and all(value.parameter or value.size for value in every)
    if not every or name in CONSTANTS:
        for value in every:
            consume(value, "other")
        return tensor(parameter=True)
    first, others = every[0], every[1:]
    if name in VIEWS or name in COPIES:
        for value in others:
            consume(value, "other")
        if name in COPIES:
            return tensor(results=first.every_result(), channels=first.channels, parameter=first.parameter)
        return first.reshaped()
    if name in _JOINS:
        for value in others:
            consume(value, "other")
        return tensor(results=first.every_result(), parameter=first.parameter)
    channels = None
    if name in CHANNEL_PRESERVING:
        channels = next((value.channels for value in every if value.channels is not None), None)
    if name in SCALINGS and others and all(value.is_number for value in others):
        if name.endswith("_"):
            return Value(results=first.every_result(), channels=channels, storage=first.storage)
        return tensor(results=first.every_result(), channels=channels, parameter=first.parameter)
    if name in SCALINGS and first.is_number and len(others) == 1:
        return tensor(results=others[0].every_result(), channels=channels, parameter=others[0].parameter)
    for value in every:
        factors = [other for other in every if other is not value and not other.is_number]
        is_product = name in PRODUCTS and any(not other.is_weight for other in factors)
        consume(value, "product" if is_product else "other")
        for item in value.items or ():
            keep(item)
    if name.endswith("_") and not name.endswith("__"):
        return Value(storage=first.storage, channels=channels)
    return tensor(channels=channels, parameter=parameter)


def method_result(name: str, base: Value, values: Sequence[Value], is_tensor_method: bool) -> Value:
    """The value of a method call on an object of which nothing is known but that it may be a tensor."""
    if is_tensor_method:
        return torch_result(name, (base, *values))
    for value in (base, *values):
        consume(value, "other")
        keep(value)
    return ANYTHING
