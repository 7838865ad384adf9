"""Data flow of one forward pass: what each tensor is computed from, and what the results of sites are used for.

A `DataFlow` receives every call of a torch function with its result, and knows torch only. It keeps all tensors of the
pass alive, because it knows them by their id.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import ModuleType
from typing import Any, Literal

import torch
from torch import Tensor, nn

Use = Literal["product", "output", "other"]
"""The first use of a site's result: a factor of a product with other data, the model's output, or anything else."""

Source = Literal["data", "parameter", "size"]
"""What a tensor depends on: the example's tensors, else parameters and buffers, else only sizes and constants."""


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Functions whose result holds the values of their first argument (a tensor or a list of tensors), moved, cast,
# resampled linearly, or set to zero in places.
_FOLLOWED = _names(
    "view view_as reshape reshape_as flatten unflatten ravel expand expand_as broadcast_to broadcast_tensors permute "
    "transpose t T mT H mH adjoint swapaxes swapdims swap_axes swap_dims movedim moveaxis chunk split split_with_sizes "
    "tensor_split hsplit vsplit dsplit unsafe_chunk unsafe_split unbind getitem select narrow narrow_copy index_select "
    "take_along_dim gather unfold as_strided diagonal to float half bfloat16 double type type_as cpu cuda contiguous "
    "clone detach alias data requires_grad squeeze unsqueeze repeat repeat_interleave tile roll flip dropout dropout1d "
    "dropout2d dropout3d feature_dropout cat concat concatenate stack hstack vstack dstack pad interpolate upsample "
    "masked_fill atleast_1d atleast_2d atleast_3d pixel_shuffle pixel_unshuffle neg negative positive "
    "conj resolve_conj resolve_neg real as_tensor lift_fresh pin_memory"
)
_PRODUCTS = _names("mul multiply rmul imul")
_QUOTIENTS = _names("div divide true_divide truediv itruediv idiv")
_SUMS = _names("add radd iadd sub subtract isub rsub")
_MATRIX_PRODUCTS = _names("matmul rmatmul mm bmm mv dot vdot inner outer ger kron tensordot einsum")
# functions of (summand, factor, factor)
_FUSED_PRODUCTS = _names("addcmul baddbmm addbmm addmm addmv addr")
# functions that take shape, dtype or device from their arguments, but no value
_NEW_TENSORS = _names(
    "zeros_like ones_like empty_like full_like rand_like randn_like randint_like "
    "new_zeros new_ones new_empty new_full new_tensor new_empty_strided"
)
# functions of which only the first argument gives values
_FIRST_ARGUMENT_ONLY = _names("view_as reshape_as expand_as type_as to")
# in-place functions that do not read their target
_OVERWRITES = _names("zero fill copy normal uniform bernoulli exponential random constant trunc_normal")
_IN_PLACE_OPERATORS = _names("__setitem__ __iadd__ __isub__ __imul__ __itruediv__ __idiv__ __ipow__ __ifloordiv__")
_LEAVES_TORCH = _names("numpy tolist item float array")
_ENTERS_TORCH = _names("tensor as_tensor asarray scalar_tensor full")


@dataclasses.dataclass(frozen=True, eq=False)
class Call:
    """A call of a torch function or tensor method. `name`: without underscores, "mul" for `mul_`, "T" for `x.T`."""

    name: str
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    in_place: bool

    def argument(self, position: int, *keywords: str) -> Any:
        """The argument at `position`, or with the first of the keywords that the call has; None if it has none."""
        if position < len(self.args):
            return self.args[position]
        return next((self.kwargs[key] for key in keywords if key in self.kwargs), None)


def torch_call(function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Call:
    """The call that a torch function mode sees as (function, args, kwargs)."""
    name = str(getattr(function, "__name__", ""))
    if name == "__get__":  # an attribute of a tensor, such as x.T
        name = str(getattr(getattr(function, "__self__", None), "__name__", ""))
    name = name.partition(".")[0]  # an overload of an operator, such as "relu.default"
    in_place = name in _IN_PLACE_OPERATORS or (name.endswith("_") and not name.endswith("__"))
    return Call(name.strip("_"), args, kwargs, in_place)


def tensors_in(value: object, *, in_objects: bool = False) -> Iterator[Tensor]:
    """All tensors in nested tuples, lists, sets and mappings; `in_objects`: also in the attributes of plain objects."""
    seen: dict[int, object] = {}  # by id, with the object itself: the id of an object that is gone can occur again
    stack = [value]
    while stack:
        each = stack.pop()
        if isinstance(each, Tensor):
            yield each
            continue
        if id(each) in seen:
            continue
        if isinstance(each, Mapping):
            stack.extend(reversed(list(each.values())))
        elif isinstance(each, tuple | list | set | frozenset):
            stack.extend(reversed(list(each)))
        elif not (in_objects and hasattr(each, "__dict__")) or isinstance(each, ModuleType) or callable(each):
            continue
        else:
            stack.extend(vars(each).values())
        seen[id(each)] = each


def _storage(tensor: Tensor) -> int:
    """The address of a tensor's memory; 0 if it has none of its own (empty, meta, or wrapped by a transform)."""
    try:
        return tensor.untyped_storage().data_ptr()
    except (RuntimeError, NotImplementedError):
        return 0


def is_zero(tensor: Tensor) -> bool:
    """Whether all values of `tensor` are known to be zero."""
    try:
        return tensor.numel() > 0 and not bool(tensor.any())
    except (RuntimeError, NotImplementedError):  # values that cannot be read: meta tensors, transforms
        return False


@dataclasses.dataclass(frozen=True)
class _Origin:
    """What the values of a tensor depend on. `scales`: they are parameters, buffers or constants, unchanged."""

    from_data: bool
    from_parameters: bool
    scales: bool


_DATA = _Origin(from_data=True, from_parameters=False, scales=False)
_PARAMETER = _Origin(from_data=False, from_parameters=True, scales=True)
_CONSTANT = _Origin(from_data=False, from_parameters=False, scales=True)


def _joined(origins: Iterable[_Origin]) -> _Origin:
    """The origin of values that depend on several tensors; of a constant if there is none."""
    each = list(origins)
    return _Origin(
        from_data=any(origin.from_data for origin in each),
        from_parameters=any(origin.from_parameters for origin in each),
        scales=all(origin.scales for origin in each),
    )


@dataclasses.dataclass(eq=False)
class _Value:
    """What is known of a tensor. `sites`: whose results it holds. `base`, `views`: tensors that share its memory."""

    tensor: Tensor
    origin: _Origin
    sites: frozenset[str]
    storage: int
    base: _Value | None = None
    views: list[_Value] = dataclasses.field(default_factory=list)

    def overlapping(self) -> Iterator[_Value]:
        """The tensors that this one is a view of, and the views of it; not the other views of the same base."""
        base = self.base
        while base is not None:
            yield base
            base = base.base
        below = list(self.views)
        while below:
            each = below.pop()
            yield each
            below.extend(each.views)


class DataFlow:
    """The tensors of one forward pass of `model`; `constants`: tensors that are neither data nor registered."""

    def __init__(self, model: nn.Module, example: object, constants: Iterable[Tensor] = ()) -> None:
        self.uses: dict[str, set[Use]] = {}
        self._values: dict[int, _Value] = {}
        self._by_storage: dict[int, _Value] = {}
        self._data_left_torch = False
        for tensor in constants:
            self._add(tensor, _CONSTANT)
        for tensor in (*model.parameters(), *model.buffers()):
            self._add(tensor, _PARAMETER)
        for tensor in tensors_in(example, in_objects=True):
            self._add(tensor, _DATA)

    def source(self, tensor: Tensor) -> Source:
        """What `tensor` depends on."""
        origin = self._value(tensor).origin
        if origin.from_data:
            return "data"
        return "parameter" if origin.from_parameters else "size"

    def enter_site(self, x: Tensor) -> None:
        """Record that a site received `x`."""
        self._use(x, "other")

    def leave_site(self, site: str, x: Tensor, result: Tensor) -> None:
        """Record that `site` computed `result` from `x`."""
        self.uses.setdefault(site, set())
        origin = dataclasses.replace(self._value(x).origin, scales=False)
        self._add(result, origin, frozenset((site,)))

    def leave_model(self, result: object) -> None:
        """Record that the model returned `result`."""
        for tensor in tensors_in(result, in_objects=True):
            self._use(tensor, "output")

    def observe(self, call: Call, result: object) -> None:
        """Record a call of a torch function that has returned `result`."""
        inputs = [self._value(tensor) for tensor in tensors_in((call.args, call.kwargs))]
        outputs = list(tensors_in(result))
        target = call.argument(0) if call.in_place else None
        if isinstance(target, Tensor):
            outputs.append(target)
        if not outputs:
            left = call.name in _LEAVES_TORCH and any(value.origin.from_data for value in inputs)
            self._data_left_torch = self._data_left_torch or left
            return
        is_test = all(tensor.dtype == torch.bool for tensor in outputs)
        carried = any(value.sites for value in inputs)
        sites = self._followed(call) if carried and not is_test and call.name not in _NEW_TENSORS else frozenset()
        origin = self._origin(call, inputs)
        for tensor in outputs:
            value = self._values.get(id(tensor))
            if value is None:
                self._add(tensor, origin, sites, inputs)
            else:
                self._write(value, origin, sites, partial=call.name == "setitem")

    def _add(
        self, tensor: Tensor, origin: _Origin, sites: frozenset[str] = frozenset(), inputs: Sequence[_Value] = ()
    ) -> None:
        storage = _storage(tensor)
        value = _Value(tensor, origin, sites, storage)
        value.base = next((each for each in inputs if storage and each.storage == storage), None)
        if value.base is not None:
            value.base.views.append(value)
        self._values[id(tensor)] = value
        if storage:
            self._by_storage[storage] = value

    def _value(self, tensor: Tensor) -> _Value:
        """What is known of `tensor`; a tensor that no call has made takes what is known of its memory, else is data."""
        value = self._values.get(id(tensor))
        if value is not None:
            return value
        same = self._by_storage.get(_storage(tensor))
        if same is None:
            self._add(tensor, _DATA)
        else:
            self._add(tensor, same.origin, same.sites, [same])
        return self._values[id(tensor)]

    def _write(self, value: _Value, origin: _Origin, sites: frozenset[str], *, partial: bool = False) -> None:
        """Record new values in a tensor, and in the tensors that share its memory."""
        value.origin = origin
        value.sites = value.sites | sites if partial else sites
        for other in value.overlapping():
            other.origin = _joined((other.origin, origin))
            covered = not partial and other.tensor.numel() <= value.tensor.numel()
            other.sites = sites if covered else other.sites | sites

    def _origin(self, call: Call, inputs: list[_Value]) -> _Origin:
        """The origin of a call's result."""
        scales = call.name in _FOLLOWED | _PRODUCTS
        if call.name in _NEW_TENSORS:
            inputs = []
        elif call.in_place and call.name in _OVERWRITES:
            source = call.argument(1, "src", "other", "value")
            inputs = [self._value(source)] if isinstance(source, Tensor) else []
        elif call.name in _FIRST_ARGUMENT_ONLY:
            inputs = inputs[:1]
        elif not inputs and call.name in _ENTERS_TORCH and self._data_left_torch:
            return _DATA
        origin = _joined(value.origin for value in inputs)
        return origin if scales else dataclasses.replace(origin, scales=not inputs)

    def _sites(self, value: object) -> frozenset[str]:
        """The sites whose results are in a tensor, or in a list of tensors."""
        return frozenset[str]().union(*(self._value(tensor).sites for tensor in tensors_in(value)))

    def _use(self, value: object, use: Use) -> None:
        for site in self._sites(value):
            self.uses.setdefault(site, set()).add(use)

    def _scales(self, value: object) -> bool:
        """Whether a product with `value` only scales or masks the other factor."""
        if not isinstance(value, Tensor) or not (value.is_floating_point() or value.is_complex()):
            return True
        origin = self._value(value).origin
        if origin.from_data:
            return False
        if origin.from_parameters:
            return origin.scales or value.dim() == 0
        return value.dim() == 0 or not is_zero(value)  # zeros are the initial state of a recurrent cell

    def _followed(self, call: Call) -> frozenset[str]:
        """The sites whose results the call's own result holds; other results that the call reads have been used."""
        first = call.argument(0, "input", "tensors", "self")
        second = call.argument(1, "other", "mat2", "vec", "vec2", "tensor2")
        if call.name in _FOLLOWED:
            return self._sites(first)
        if call.in_place and call.name in _OVERWRITES:
            return self._sites(call.argument(1, "src", "other", "value"))
        if call.name == "setitem":
            return self._sites(call.argument(2))
        if call.name == "where":
            return self._sites((call.argument(1, "input", "self"), call.argument(2, "other")))
        if call.name in _PRODUCTS | _SUMS | _QUOTIENTS:
            return self._followed_arithmetic(call, first, second)
        if call.name in _MATRIX_PRODUCTS:
            self._use_factors(list(tensors_in((call.args, call.kwargs))))
        elif call.name in _FUSED_PRODUCTS:
            self._use(first, "other")
            self._use_factors(list(tensors_in((call.args[1:], {k: v for k, v in call.kwargs.items() if k != "input"}))))
        elif call.name == "lerp":
            # start + weight * (end - start)
            self._use_factors(list(tensors_in((call.args, call.kwargs))))
        elif call.name == "scaled_dot_product_attention":
            self._use((call.args, call.kwargs), "product")
        else:
            self._use((call.args, call.kwargs), "other")
        return frozenset()

    def _followed_arithmetic(self, call: Call, first: object, second: object) -> frozenset[str]:
        """As `_followed`, for a sum, a product or a quotient: a result that is scaled or shifted is followed."""
        followed: frozenset[str] = frozenset()
        for mine, other in ((first, second), (second, first)):
            if call.name in _SUMS:
                follow, product = not isinstance(other, Tensor), False
            elif call.name in _QUOTIENTS:
                follow, product = mine is first and self._scales(other), False
            else:
                follow, product = self._scales(other), mine is not other
            if follow:
                followed |= self._sites(mine)
            else:
                self._use(mine, "product" if product else "other")
        return followed

    def _use_factors(self, factors: list[Tensor]) -> None:
        """Record the use of each factor: a product if another factor depends on data, else (a linear layer) other."""
        for index, factor in enumerate(factors):
            others = [each for position, each in enumerate(factors) if position != index]
            self._use(factor, "product" if any(self._value(each).origin.from_data for each in others) else "other")
