"""The losses of a supernet are pure functions: they do not change the module and repeat their dropout masks."""

from __future__ import annotations

import pytest
import torch
from bilevel_problems import batches, cnn_case, relative_error, tensor_copies, tiny_supernet
from torch import nn
from torch.nn import functional as F

from nasact.bilevel import HYPERGRADIENTS, Batch, SupernetProblem, build
from nasact.bilevel.differentiable_optimiser import inner_step
from nasact.bilevel.randomness import devices_of, random_state, seeded, set_random_state
from nasact.bilevel.snapshot import same_bits
from nasact.errors import ModelError


def test_the_loss_equals_that_of_the_real_module_with_the_same_seed() -> None:
    supernet = tiny_supernet()
    train, val = batches()
    problem = SupernetProblem.draw(supernet, F.cross_entropy, train, val)
    pure = problem.train_loss(problem.w, problem.alpha)
    with seeded(problem.train_seed, [torch.device("cpu")]):
        real = F.cross_entropy(supernet(train.x), train.y)
    assert same_bits(pure, real.detach())


def test_calls_change_nothing_and_repeat_to_the_bit_in_any_order() -> None:
    problem = cnn_case().problem
    before, random = tensor_copies(problem.supernet), torch.get_rng_state()
    train, val = (problem.train_loss, problem.val_loss)
    first = [loss(problem.w, problem.alpha) for loss in (train, val, train)]
    torch.rand(3)
    again = [loss(problem.w, problem.alpha) for loss in (val, train)]
    assert same_bits(first[0], first[2])
    assert same_bits(first[0], again[1])
    assert same_bits(first[1], again[0])
    assert all(same_bits(tensor, before[name]) for name, tensor in tensor_copies(problem.supernet).items())
    torch.set_rng_state(random)


class RecordsMasks(nn.Dropout):
    def __init__(self) -> None:
        super().__init__(0.5)
        self.masks: list[torch.Tensor] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mask = super().forward(torch.ones_like(x))
        self.masks.append(mask.detach())
        return x * mask


@pytest.mark.parametrize("name", HYPERGRADIENTS.names())
def test_all_passes_on_one_batch_use_the_same_dropout_masks(name: str) -> None:
    case = cnn_case()
    case.supernet.dropout = RecordsMasks()
    case(HYPERGRADIENTS.get(name))
    first_layer = case.supernet.dropout.masks[::2]  # one module, applied twice per pass
    passes = {"first_order": 1, "finite_difference": 4}.get(name, 2)
    assert len(first_layer) == passes
    on_training = [first_layer[0], *first_layer[2:]] if passes > 1 else []
    assert all(torch.equal(mask, on_training[0]) for mask in on_training)
    if passes > 1:
        assert not torch.equal(first_layer[0], first_layer[1]), "validation draws other masks"


def test_two_problems_draw_different_masks_and_the_global_seed_determines_them() -> None:
    supernet, (train, val) = tiny_supernet(), batches()
    torch.manual_seed(5)
    one, two = (SupernetProblem.draw(supernet, F.cross_entropy, train, val) for _ in range(2))
    torch.manual_seed(5)
    again = SupernetProblem.draw(supernet, F.cross_entropy, train, val)
    assert (one.train_seed, one.val_seed) == (again.train_seed, again.val_seed)
    assert len({one.train_seed, one.val_seed, two.train_seed, two.val_seed}) == 4


def test_a_module_under_two_names_and_tied_weights_keep_their_parameters() -> None:
    """torch.func.functional_call with tie_weights leaves a wrong tensor in a module that has two names."""
    supernet, (train, val) = tiny_supernet(), batches()
    before = {name: id(parameter) for name, parameter in supernet.named_parameters(remove_duplicate=False)}
    problem = SupernetProblem.draw(supernet, F.cross_entropy, train, val)
    problem.train_loss(problem.w, problem.alpha)
    assert {name: id(p) for name, p in supernet.named_parameters(remove_duplicate=False)} == before
    assert isinstance(supernet.head.weight, nn.Parameter)


def test_tied_weight_gets_the_sum_of_both_gradients() -> None:
    supernet, (train, val) = tiny_supernet(dropout=0.0), batches()
    problem = SupernetProblem.draw(supernet, F.cross_entropy, train, val)
    w = tuple(weight.clone().requires_grad_() for weight in problem.w)
    pure = torch.autograd.grad(problem.train_loss(w, problem.alpha), w, allow_unused=True)
    F.cross_entropy(supernet(train.x), train.y).backward()
    assert len(pure) == 13
    for grad, parameter in zip(pure, supernet.weight_parameters(), strict=True):
        assert (grad is None) == (parameter.grad is None)
        if grad is not None and parameter.grad is not None:
            torch.testing.assert_close(grad, parameter.grad)


class Recurrent(nn.Module):
    """An LSTM has a second list of its weights, which a functional call must replace too."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(7, 4)
        self.alpha = nn.Parameter(torch.zeros(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        p = torch.softmax(self.alpha, -1)
        out = self.lstm(x.flatten(1, 2).movedim(1, 0))[0][-1]
        return p[0] * torch.tanh(out) + p[1] * out

    def arch_parameters(self) -> list[nn.Parameter]:
        return [self.alpha]

    def weight_parameters(self) -> list[nn.Parameter]:
        return list(self.lstm.parameters())


def test_a_recurrent_network_is_differentiated_exactly_too() -> None:
    torch.manual_seed(0)
    supernet = Recurrent().double()
    train, val = batches(torch.float64)
    optimiser = torch.optim.SGD(supernet.weight_parameters(), lr=0.5)
    problem = SupernetProblem.draw(supernet, F.cross_entropy, train, val)
    inner = inner_step(optimiser, supernet.weight_parameters())
    found = {name: h(problem, problem.w, problem.alpha, inner).alpha for name, h in HYPERGRADIENTS.items()}
    assert relative_error(found["second_order"], found["unrolled"]) < 1e-12
    assert relative_error(found["second_order"], found["first_order"]) > 1e-4


class OnceOnly(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.sin()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):
        return grad * ctx.saved_tensors[0].cos()


class Once(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return OnceOnly.apply(x)


def test_the_error_for_a_model_without_second_derivatives_names_strategies_that_work() -> None:
    supernet = tiny_supernet()
    supernet.dropout = Once()
    for name, options, works in (
        ("darts", {"order": 2}, False),
        ("unrolled", {}, False),
        ("darts", {"order": 1}, True),
        ("darts", {"mixed": "finite_difference"}, True),
        ("joint", {}, True),
    ):
        strategy = build(name, options)
        state = strategy.init(supernet, torch.optim.Adam(supernet.weight_parameters()), F.cross_entropy)
        if works:
            strategy.step(state, *batches())
            continue
        with pytest.raises(ModelError, match=r"without a second derivative.*order 1") as caught:
            strategy.step(state, *batches())
        assert "\n" not in str(caught.value)


def test_a_loss_that_is_not_a_scalar_is_refused() -> None:
    supernet, (train, val) = tiny_supernet(), batches()
    problem = SupernetProblem.draw(supernet, lambda out, y: F.cross_entropy(out, y, reduction="none"), train, val)
    with pytest.raises(ModelError, match=r"the loss must be a scalar, but got a tensor of shape \(16,\)"):
        problem.train_loss(problem.w, problem.alpha)


def test_seeded_restores_the_generators_even_after_an_error() -> None:
    devices = devices_of((torch.zeros(1),))
    before = random_state(devices)

    def interrupted() -> None:
        with seeded(1, devices):
            torch.rand(4)
            raise RuntimeError("inside")

    with pytest.raises(RuntimeError, match="inside"):
        interrupted()
    assert torch.equal(random_state(devices)[0], before[0])
    drawn = torch.rand(2)
    set_random_state(devices, before)
    assert torch.equal(torch.rand(2), drawn)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_dropout_masks_repeat_on_cuda_and_its_generator_is_restored() -> None:
    supernet = tiny_supernet(dropout=0.5).cuda()
    train, val = (Batch(b.x.cuda(), b.y.cuda()) for b in batches())
    problem = SupernetProblem.draw(supernet, F.cross_entropy, train, val)
    before = torch.cuda.get_rng_state()
    losses = [problem.train_loss(problem.w, problem.alpha) for _ in range(2)]
    assert losses[0].item() == losses[1].item()
    assert torch.equal(torch.cuda.get_rng_state(), before)
