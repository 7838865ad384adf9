"""Sites that a reading finds, and what is known about the value of an expression without running it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from torch import fx, nn

from nasact.surgery.channels import Channels
from nasact.surgery.torch_activations import activation_of_function, is_activation


class _Unknown:
    """The type of UNKNOWN."""

    def __repr__(self) -> str:
        return "UNKNOWN"


UNKNOWN = _Unknown()


@dataclass(eq=False)
class FoundSite:
    """One place where an activation is applied.

    `owner`: the module whose code applies it, or that holds it. `base`: the name from which the key is made; `key`: the
    attribute of `owner` for the site's module (for a call: chosen when all sites are known). `path`: of `owner`.
    `original`: the model's own activation as a module, out of place. `uses`: what its result is first used for.
    `write_back`: the result must be written to the input, because the original works in place. `copies_input`,
    `copies_output`: the input or the result is overwritten later, and a function may need it for its gradient.
    `note`: why it is no activation although it could be replaced; "" otherwise. `exact`: the catalogue function gives
    the bits of the original. `shares`: the site whose module the call uses as long as this site is not replaced.
    `first_call`: of a child, the call that keeps its attribute. `node`: the call in the graph of a torch.fx module.
    """

    owner: nn.Module
    path: str
    base: str
    original: nn.Module
    function: str
    detail: str
    kind: Literal["module", "call", "attribute"]
    place: str
    key: str = ""
    channels: Channels | None = None
    uses: set[str] = field(default_factory=set)
    parameter: bool = False
    taken: bool = True
    write_back: bool = False
    copies_input: bool = False
    copies_output: bool = False
    note: str = ""
    exact: bool = True
    shares: FoundSite | None = None
    first_call: tuple[int, int, tuple[int, ...]] | None = None
    node: fx.Node | None = None

    @property
    def name(self) -> str:
        """The name of the site."""
        return f"{self.path}.{self.key}" if self.path else self.key


@dataclass(frozen=True, eq=False)
class Slot:
    """The attribute `key` of `parent` that holds a child. `name`: how the reading module addresses it, with dots."""

    parent: nn.Module
    key: str
    name: str


@dataclass(eq=False)
class Storage:
    """A tensor that the function has made.

    `bound`: a name refers to it; `shared`: so does something else. `made_by`: the site whose result it is;
    `read_by`: the sites whose argument it is.
    """

    shared: bool = False
    bound: bool = False
    made_by: FoundSite | None = None
    read_by: list[FoundSite] = field(default_factory=list)


@dataclass(frozen=True)
class Value:
    """An abstract value.

    `known`: the object itself, or UNKNOWN. `setting`: it is a number held by an object, which may change at run time.
    `slot`: where a known child is held. `items`: the values of a tuple or list. `results`: the sites whose results it
    is, reshaped or scaled at most. `channels`: of a tensor. `storage`: of a tensor that was made here. `parameter`: it
    depends on parameters, buffers and constants only; `is_weight`: it is one of the parameters or buffers. `size`: it
    is made of the sizes of tensors.
    `applies`: an activation that it may be, of several objects. `in_use`: False for a member of a loop that a setting
    of the model excludes at present. `layers`: the items are a slice of a container of modules.
    """

    known: Any = UNKNOWN
    setting: bool = False
    slot: Slot | None = None
    items: tuple[Value, ...] | None = None
    results: frozenset[FoundSite] = field(default_factory=frozenset)
    channels: Channels | None = None
    storage: Storage | None = None
    parameter: bool = False
    is_weight: bool = False
    size: bool = False
    in_use: bool = True
    applies: str = ""
    layers: bool = False

    @property
    def is_known(self) -> bool:
        return self.known is not UNKNOWN

    @property
    def is_number(self) -> bool:
        """Whether it is a known number, or an unknown one that is made of sizes."""
        return self.size or isinstance(self.known, int | float)

    def every_result(self) -> frozenset[FoundSite]:
        """The sites whose results it is or contains."""
        return self.results.union(*(item.every_result() for item in self.items or ()))

    def reshaped(self) -> Value:
        """The value of a view of it: the same results, and memory that is shared."""
        if self.storage is not None:
            self.storage.shared = True
        return Value(
            results=self.every_result(), parameter=self.parameter, is_weight=self.is_weight, size=self.size
        )  # fmt: skip


ANYTHING = Value()


def tensor(**fields: Any) -> Value:
    """The value of a tensor that an operation has just made."""
    return Value(storage=Storage(), **fields)


def constant(value: Any, *, setting: bool = False) -> Value:
    """The value of a known object. A number that an object holds is a `setting`."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return Value(known=value, setting=setting and is_number, parameter=True)


def overwrite(value: Value) -> None:
    """Record that a tensor is overwritten: the sites that read it or made it must not need it any more."""
    if value.storage is None:
        for site in value.every_result():  # it may be the result itself, as dropout returns it in eval mode
            site.copies_output = True
    else:
        if value.storage.made_by is not None:
            value.storage.made_by.copies_output = True
        for site in value.storage.read_by:
            site.copies_input = True


def join(values: Iterable[Value]) -> Value:
    """What holds whichever of the values it is."""
    every = list(values)
    if not every:
        return ANYTHING
    first = every[0]
    if all(value is first for value in every):
        return first
    storages = {id(value.storage): value.storage for value in every}
    for storage in storages.values():
        if storage is not None and len(storages) > 1:
            storage.shared = True
    known = first.known if all(value.known is first.known for value in every) else UNKNOWN
    applies = next((name for value in every if (name := applied_by_value(value))), "") if known is UNKNOWN else ""
    lengths = {len(value.items) if value.items is not None else -1 for value in every}
    items = None
    if len(lengths) == 1 and first.items is not None:
        items = tuple(join(group) for group in zip(*(value.items or () for value in every), strict=True))
    return Value(
        known=known,
        setting=any(value.setting for value in every),
        slot=first.slot if known is not UNKNOWN else None,
        items=items,
        results=frozenset().union(*(value.results for value in every)),
        channels=first.channels if all(value.channels == first.channels for value in every) else None,
        storage=first.storage if len(storages) == 1 else None,
        parameter=all(value.parameter for value in every),
        is_weight=all(value.is_weight for value in every),
        size=all(value.size for value in every),
        applies=applies,
    )


def applied_by_value(value: Value) -> str:
    """The activation that a value is or may be, if it is called; "" for none."""
    held = value.known
    if isinstance(held, nn.Module):
        return type(held).__name__ if is_activation(held) else ""
    return value.applies or activation_of_function(held) or ""


def without_object(value: Value) -> Value:
    """The value where the object may be another one: in a loop that assigns the name again."""
    return replace(value, known=UNKNOWN, slot=None, items=None, parameter=False, is_weight=False, channels=None)
