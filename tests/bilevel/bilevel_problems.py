"""Small bilevel problems for the tests of this folder: one in closed form, and a CNN with many special cases."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from types import SimpleNamespace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nasact.bilevel import Batch, Strategy, SupernetProblem
from nasact.bilevel.differentiable_optimiser import InnerStep, inner_step
from nasact.bilevel.hypergradients import Hypergradient
from nasact.mixture import NORMALISERS, Normaliser

SMOOTH = (torch.tanh, torch.sigmoid, F.silu)
KINKED = (torch.relu, torch.tanh, F.leaky_relu)

OPTIMISERS: dict[str, Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]] = {
    "sgd": lambda w: torch.optim.SGD(w, lr=0.1),
    "sgd_momentum": lambda w: torch.optim.SGD(w, lr=0.1, momentum=0.9, weight_decay=3e-3),
    "sgd_nesterov": lambda w: torch.optim.SGD(w, lr=0.1, momentum=0.8, nesterov=True, weight_decay=3e-3),
    "sgd_dampened": lambda w: torch.optim.SGD(w, lr=0.1, momentum=0.7, dampening=0.3, maximize=True),
    "adam": lambda w: torch.optim.Adam(w, lr=0.01, weight_decay=3e-3),
    "adam_amsgrad": lambda w: torch.optim.Adam(w, lr=0.01, betas=(0.8, 0.95), amsgrad=True),
    "adamw": lambda w: torch.optim.AdamW(w, lr=0.01, weight_decay=0.1),
}


class TinyMixture(nn.Module):
    def __init__(
        self, functions: tuple[Callable[[Tensor], Tensor], ...], uses_alpha: bool = True, normaliser: str = "softmax"
    ) -> None:
        super().__init__()
        self.functions = functions
        self.bank = SimpleNamespace(candidates=tuple)  # the functions are not in the catalogue
        self.uses_alpha = uses_alpha
        self.normaliser_name = normaliser
        alpha, self.temperature = 1e-2 * torch.randn(len(functions)), torch.tensor(1.0)
        if normaliser != "softmax":
            alpha = self.normaliser.inverse(torch.softmax(alpha, -1), self.temperature)
        self.alpha = nn.Parameter(alpha)

    @property
    def normaliser(self) -> Normaliser:
        return NORMALISERS.get(self.normaliser_name)

    def forward(self, x: Tensor) -> Tensor:
        alpha = self.alpha if self.uses_alpha else self.alpha.detach()
        p = self.normaliser.weights(alpha, self.temperature, self.training)
        return sum((weight * f(x) for weight, f in zip(p, self.functions, strict=True)), torch.zeros_like(x))


class TinySupernet(nn.Module):
    """Two convolutions with BatchNorm and dropout, each followed by a mixture.

    Special cases: tied weights, a module under two names, a weight that nothing uses.
    """

    def __init__(
        self,
        functions: tuple[Callable[[Tensor], Tensor], ...] = SMOOTH,
        *,
        dropout: float = 0.3,
        normaliser: str = "softmax",
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 4, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(4)
        self.act1 = TinyMixture(functions, normaliser=normaliser)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = nn.Conv2d(4, 4, 3)
        self.bn2 = nn.BatchNorm2d(4)
        self.act2 = TinyMixture(functions, normaliser=normaliser)
        self.hidden = nn.Linear(4, 4)
        self.head = nn.Linear(4, 3)
        self.head_twin = self.head
        self.tied = nn.Linear(4, 4)
        self.tied.weight = self.hidden.weight
        self.unused = nn.Parameter(torch.randn(2))
        self.projections = 0

    def forward(self, x: Tensor) -> Tensor:
        x = self.dropout(self.act1(self.bn1(self.conv1(x))))
        x = self.dropout(self.act2(self.bn2(self.conv2(x))))
        return self.head_twin(torch.tanh(self.tied(self.hidden(x.mean((-1, -2))))))

    def mixtures(self) -> dict[str, TinyMixture]:
        return {name: module for name, module in self.named_modules() if isinstance(module, TinyMixture)}

    def arch_parameters(self) -> list[nn.Parameter]:
        return [mixture.alpha for mixture in self.mixtures().values()]

    def weight_parameters(self) -> list[nn.Parameter]:
        alphas = {id(alpha) for alpha in self.arch_parameters()}
        return [parameter for parameter in self.parameters() if id(parameter) not in alphas]

    @torch.no_grad()
    def project_(self) -> None:
        self.projections += 1
        for mixture in self.mixtures().values():
            if mixture.normaliser.project is not None:
                mixture.alpha.copy_(mixture.normaliser.project(mixture.alpha))


def tiny_supernet(
    functions=SMOOTH, *, dtype=torch.float32, seed: int = 0, dropout: float = 0.3, normaliser: str = "softmax"
) -> TinySupernet:
    torch.manual_seed(seed)
    return TinySupernet(functions, dropout=dropout, normaliser=normaliser).to(dtype)


def normaliser_for(strategy: Strategy) -> str:
    """Return the default normaliser of the strategy."""
    return (*strategy.normalisers, "softmax")[0]


def batches(dtype=torch.float32, *, size: int = 16, seed: int = 7) -> tuple[Batch, Batch]:
    generator = torch.Generator().manual_seed(seed)

    def batch() -> Batch:
        x = torch.randn(size, 1, 7, 7, generator=generator, dtype=torch.float64).to(dtype)
        return Batch(x, torch.randint(3, (size,), generator=generator))

    return batch(), batch()


def take_weight_steps(
    supernet: TinySupernet, optimiser: torch.optim.Optimizer, train: Batch, *, steps: int = 3
) -> None:
    """Take real weight steps, so that the optimiser has state and the running statistics are not initial."""
    for _ in range(steps):
        optimiser.zero_grad()
        F.cross_entropy(supernet(train.x), train.y).backward()
        optimiser.step()
    supernet.zero_grad()


@dataclass(frozen=True)
class Case:
    problem: SupernetProblem
    supernet: TinySupernet
    optimiser: torch.optim.Optimizer
    inner: InnerStep

    def __call__(self, hypergradient: Callable[..., Hypergradient], **options: object) -> Hypergradient:
        return hypergradient(self.problem, self.problem.w, self.problem.alpha, self.inner, **options)


def cnn_case(
    optimiser: str = "sgd_momentum",
    *,
    functions=SMOOTH,
    dtype=torch.float64,
    warm: int = 3,
    seed: int = 0,
    size: int = 16,
) -> Case:
    supernet = tiny_supernet(functions, dtype=dtype, seed=seed)
    train, val = batches(dtype, size=size)
    weights = supernet.weight_parameters()
    weight_optimiser = OPTIMISERS[optimiser](weights)
    take_weight_steps(supernet, weight_optimiser, train, steps=warm)
    problem = SupernetProblem.draw(supernet, F.cross_entropy, train, val)
    return Case(problem, supernet, weight_optimiser, inner_step(weight_optimiser, weights))


@dataclass(frozen=True)
class Quadratic:
    """Ltr = w'Aw/2 - w'B alpha, Lval = |Cw - d|^2/2 + r |alpha|^2/2, with w in two tensors; solved in closed form."""

    A: Tensor
    B: Tensor
    C: Tensor
    d: Tensor
    r: float = 0.3

    @classmethod
    def draw(cls, seed: int = 0, n: int = 5, k: int = 3) -> Quadratic:
        g = torch.Generator().manual_seed(seed)
        root, B, C, d = (
            torch.randn(*shape, generator=g, dtype=torch.float64) for shape in ((n, n), (n, k), (4, n), (4,))
        )
        return cls(root @ root.T / n + torch.eye(n, dtype=torch.float64), B, C, d)

    def train_loss(self, w, alpha):
        w, alpha = torch.cat(w), torch.cat(alpha)
        return w @ self.A @ w / 2 - w @ self.B @ alpha

    def val_loss(self, w, alpha):
        w, alpha = torch.cat(w), torch.cat(alpha)
        return (self.C @ w - self.d).square().sum() / 2 + self.r * alpha.square().sum() / 2

    def exact_hypergradient(
        self, w: Tensor, alpha: Tensor, *, lr: float, momentum: float, decay: float, buffer: Tensor, steps: int
    ):
        """Return d Lval / d alpha after `steps` of SGD with momentum, in closed form."""
        jacobian, velocity = torch.zeros_like(self.B), torch.zeros_like(self.B)
        curvature = self.A + decay * torch.eye(len(w), dtype=w.dtype)
        for _ in range(steps):
            buffer = momentum * buffer + curvature @ w - self.B @ alpha
            velocity = momentum * velocity + curvature @ jacobian - self.B
            w, jacobian = w - lr * buffer, jacobian - lr * velocity
        return self.r * alpha + jacobian.T @ self.C.T @ (self.C @ w - self.d)


def relative_error(
    found: Iterable[Tensor], expected: Iterable[Tensor], *, relative_to: Iterable[Tensor] | None = None
) -> float:
    """Return the norm of the difference over the norm of `expected` (or of `relative_to`)."""
    found, expected = flat(found), flat(expected)
    return float((found - expected).norm() / flat(relative_to if relative_to is not None else (expected,)).norm())


def flat(tensors: Iterable[Tensor]) -> Tensor:
    return torch.cat([tensor.detach().double().flatten() for tensor in tensors])


def tensor_copies(supernet: nn.Module) -> dict[str, Tensor]:
    """Return copies of all parameters and buffers, by name."""
    return {name: t.detach().clone() for name, t in (*supernet.named_parameters(), *supernet.named_buffers())}
