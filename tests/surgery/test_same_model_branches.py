"""Branches, loops, arguments and results of a forward stay as their author wrote them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from equivalence import LOG, Call, Case, Net, Table, batch, claims, written
from torch import Tensor, nn
from torch.nn import functional as F

BRANCHES, ARGUMENTS = Table(), Table()


@BRANCHES("relu")
class IsATensor(Net):
    def forward(self, x: Any) -> Tensor:
        if isinstance(x, Tensor):
            x = F.normalize(x, dim=-1)
        return self.b(F.relu(self.a(x)))


@BRANCHES("relu")
class TensorOrList(Net):
    """The parent hands a list on, as the feature pyramids of detectors do."""

    class Head(Net):
        def forward(self, x: Any) -> Any:
            if isinstance(x, list | tuple):
                return [self.forward(each) for each in x]
            return self.b(F.relu(self.a(x)))

    def __init__(self) -> None:
        super().__init__()
        self.head = self.Head()

    def forward(self, x: Tensor) -> Any:
        return self.head([self.a(x), self.b(x), (x, x + 1)])


@BRANCHES("relu", "tanh", "relu", inputs=lambda i: ((batch(i, *((4, 6), (2, 3, 6), (6,))[i]),), {}))
class ByShape(Net):
    def forward(self, x: Tensor) -> Tensor:
        if x.dim() == 3:
            n, t, c = x.shape
            return self.b(F.relu(self.a(x.reshape(n * t, c)))).view(n, t, -1)
        return torch.tanh(self.a(x)) if x.size(-1) == len(x) else self.b(F.relu(self.a(x)) * x.shape[0])


def of_two_dtypes(index: int) -> Call:
    return (batch(index).to((torch.float32, torch.float64)[index % 2]),), {}


@BRANCHES("relu", inputs=of_two_dtypes)
class ByDtypeAndDevice(Net):
    def forward(self, x: Tensor) -> Tensor:
        if x.dtype == torch.float64 or x.device.type != "cpu":
            x = x.to(self.a.weight)
        return self.b(F.relu(self.a(x)))


@BRANCHES("relu", "tanh")
class ByData(Net):
    def forward(self, x: Tensor) -> Tensor:
        return self.b(F.relu(self.a(x))) if x.mean() > 0 else self.b(torch.tanh(self.a(x)))


@BRANCHES("relu", "relu", learns=False)
class ByItem(Net):
    def forward(self, x: Tensor) -> Tensor:
        h = F.relu(self.a(x))
        if h.max().item() > 1.5 and not torch.isnan(h).any():
            h = F.relu(h - 1)
        return self.b(h)


@BRANCHES("relu", learns=False)
class OnlyWhenTraining(Net):
    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return self.b(self.a(x))
        return self.b(F.relu(self.a(x)))


@BRANCHES("relu", "tanh", learns=False)
class AnotherActivationInEval(Net):
    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x)
        h = F.relu(h) if self.training else torch.tanh(h)
        return self.b(h)


@BRANCHES("relu")
class ByTheState(Net):
    def forward(self, x: Tensor) -> Tensor:
        scale = 1.0 if torch.is_grad_enabled() else 0.5
        if torch.jit.is_scripting() or torch.compiler.is_compiling() or not x.requires_grad:
            scale = 3.0
        return self.b(F.relu(self.a(x)) * scale)


@BRANCHES("relu")
class WhileLoop(Net):
    def forward(self, x: Tensor) -> Tensor:
        steps = 0
        while x.norm() > 1 and steps < 5:
            x = F.relu(self.a(x)) * 0.5
            steps += 1
        else:
            steps = -steps
        return self.b(x) + steps


@BRANCHES("relu")
class BreakAndContinue(Net):
    def forward(self, x: Tensor) -> Tensor:
        for i in range(6):
            if i == 1:
                continue
            x = F.relu(self.a(x)) + 0.1 * i
            if x.sum() < 10:
                break
        else:
            x = -x
        return self.b(x)


@BRANCHES("relu", "tanh")
class TryAndExcept(Net):
    def forward(self, x: Tensor) -> Tensor:
        try:
            if x.mean() < 0:
                raise ValueError("negative")
            h = F.relu(self.a(x))
        except ValueError as error:
            h = torch.tanh(self.a(x)) + len(str(error))
        finally:
            LOG.append("finally")
        return self.b(h)


@BRANCHES("relu", raises=True, learns=False)
class Raises(Net):
    def forward(self, x: Tensor) -> Tensor:
        h = F.relu(self.a(x))
        if x.mean() < 0:
            raise ValueError(f"mean of {tuple(h.shape)} is negative")
        return self.b(h)


@BRANCHES("relu", "tanh")
class ShortCircuit(Net):
    skip: Callable[[Tensor], Tensor] | None = None

    def forward(self, x: Tensor) -> Tensor:
        h = (self.skip and self.skip(x)) or F.relu(self.a(x))
        return self.b(torch.tanh(h) if 0 < h.shape[0] <= 4 < 5 else h)


@BRANCHES("relu")
class EarlyReturns(Net):
    def forward(self, x: Tensor, deep: bool = True) -> Tensor:
        if x.numel() == 0:
            return x
        h = F.relu(self.a(x))
        if not deep:
            return h
        return self.b(h)


@BRANCHES("relu")
class FrozenByAFlag(Net):
    """A branch that this model does not take uses a child that it does not have."""

    def __init__(self, gate: bool = False) -> None:
        super().__init__()
        self.gate = nn.Linear(6, 6) if gate else None

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu(self.a(x))
        return self.b(h if self.gate is None else h * self.gate(h))


class Masked(nn.Module):
    """A parent that hands optional arguments to its block."""

    def __init__(self, kind: Any, call: Callable[[Any, Tensor], Any]) -> None:
        super().__init__()
        self.block, self.call = kind(), call

    def forward(self, x: Tensor) -> Any:
        return self.call(self.block, x)


def called(call: Callable[[Any, Tensor], Any]) -> Any:
    return lambda kind: Masked(kind, call)


@ARGUMENTS("gelu", make=called(lambda block, x: block(x, mask=(x > 0).float())))
class OptionalMask(Net):
    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        h = self.b(F.gelu(self.a(x)))
        return x + (h if mask is None else h * mask)


@ARGUMENTS("relu", make=called(lambda block, x: block(x, None, x, x + 1, scale=3, shift=x)))
class StarArguments(Net):
    def forward(self, x: Tensor, *rest: Tensor | None, scale: float = 1.0, **named: Tensor) -> Tensor:
        h = F.relu(self.a(x)) * scale
        for each in (*rest, *named.values()):
            h = h if each is None else h + each
        return self.b(h)


@ARGUMENTS("relu", make=called(lambda block, x: (block(x, scale=2.0), block(x))))
class KeywordOnly(Net):
    def forward(self, x: Tensor, /, *, scale: float = 0.5) -> Tensor:
        return self.b(F.relu(self.a(x)) * scale)


def with_mutable_default() -> nn.Module:
    return written(
        """
class Remembers(Net):
    def forward(self, x, seen=[]):
        seen.append(float(x.detach().sum()))
        return self.b(F.relu(self.a(x))), len(seen), list(seen)[-2:]
"""
    ).Remembers()


def forget() -> None:
    with_mutable_default().forward.__defaults__[0].clear()


ARGUMENTS.add("MutableDefault", with_mutable_default, "relu", reset=forget)


SCALE = torch.tensor(2.0)


@ARGUMENTS("relu")
class DefaultIsATensor(Net):
    def forward(self, x: Tensor, scale: Tensor = SCALE) -> Tensor:
        return self.b(F.relu(self.a(x)) * scale)


def dictionary(index: int) -> Call:
    return ({"image": batch(index), "label": torch.tensor([1, 2]), "name": "row"},), {}


@ARGUMENTS("relu", inputs=dictionary)
class TakesADictionary(Net):
    def forward(self, inputs: dict[str, Any]) -> dict[str, Any]:
        inputs["features"] = F.relu(self.a(inputs["image"]))
        return {**inputs, "logits": self.b(inputs["features"]), "nothing": None}


@ARGUMENTS("relu", inputs=lambda i: ((torch.tensor([[1, 2, 0], [3, 3, i]]),), {}))
class TakesTokens(Net):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(5, 6, padding_idx=0)

    def forward(self, tokens: Tensor) -> Tensor:
        mask = (tokens != 0).unsqueeze(-1)
        return self.b(F.relu(self.a(self.table(tokens))) * mask).sum(1)


@dataclass
class Output:
    logits: Tensor
    hidden: list[Tensor]
    loss: Tensor | None = None


class Pair(NamedTuple):
    first: Tensor
    second: Any


@ARGUMENTS("relu")
class ReturnsARecord(Net):
    def forward(self, x: Tensor) -> Output:
        h = F.relu(self.a(x))
        return Output(self.b(h), [x, h])


@ARGUMENTS("relu")
class ReturnsNestedTuples(Net):
    def forward(self, x: Tensor) -> Any:
        h = F.relu(self.a(x))
        return Pair(h, (h, {"x": x, "n": len(x), "both": [h, None]})), self.b(h), "done", h.shape


@ARGUMENTS("relu", learns=False, moves=False)
class ReturnsNothing(Net):
    def forward(self, x: Tensor) -> None:
        LOG.append(self.b(F.relu(self.a(x))).detach())


@ARGUMENTS("relu")
class LossInForward(Net):
    def forward(self, x: Tensor, target: Tensor | None = None) -> tuple[Tensor, Tensor]:
        target = torch.arange(len(x)) if target is None else target
        logits = self.b(F.relu(self.a(x)))
        return F.cross_entropy(logits, target), logits.softmax(-1)


@ARGUMENTS("relu", make=called(lambda block, x: [y * 2 for y in block(x)]))
class IsAGenerator(Net):
    def forward(self, x: Tensor) -> Iterator[Tensor]:
        for row in x:
            yield self.b(F.relu(self.a(row)))


@BRANCHES.parametrize()
@claims
def test_branches(case: Case, claim: Callable[[Case], None]) -> None:
    claim(case)


@ARGUMENTS.parametrize()
@claims
def test_arguments_and_results(case: Case, claim: Callable[[Case], None]) -> None:
    claim(case)


def test_how_many_cases_there_are() -> None:
    assert [
        len(table.cases)
        for table in (
            BRANCHES,
            ARGUMENTS,
        )
    ] == [16, 12]
