"""Sites are found and replaced in models that apply their activations in every way that torch allows."""

from __future__ import annotations

import io
import pickle
from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from nasact.errors import SurgeryError
from nasact.supernet import Genotype, find_sites, relax


class Functional(nn.Module):
    """relu as a function, a method, a method in place; tanh from torch; an attribute that holds a function."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 6)
        self.activation = F.gelu

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.a(x))
        x = torch.tanh(self.b(x)).relu()
        x = F.leaky_relu(self.c(x), negative_slope=0.2)
        return self.activation(x)


class Reused(nn.Module):
    """One module called three times."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(6, 6), nn.Linear(6, 6)
        self.act = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.b(self.act(self.a(x)))) + self.act(x.clone())


class InPlace(nn.Module):
    """In-place activations whose overwritten input is read again."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(6, 6), nn.Linear(6, 6)
        self.act = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x)
        y = self.b(self.act(x))
        z = x + y
        z.sigmoid_()
        return z + x


class TrainEval(nn.Module):
    """A functional dropout that depends on the mode, and an early return that depends on the mode."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(6, 6)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.a(x))
        x = F.dropout(x, 0.5, self.training)
        if self.training:
            return x * 2
        return x


class Optional(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(6, 6)

    def forward(self, x: Tensor, mask: Tensor | None = None, scale: float = 1.0) -> Tensor:
        x = F.relu(self.a(x)) * scale
        if mask is not None:
            x = x * mask
        return x


class DataDependent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(6, 6)
        self.act = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.a(x))
        if x.sum() > 0:
            x = F.relu(x - 1)
        return x


class DataDependentModulesOnly(DataDependent):
    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.a(x))
        return x if x.sum() > 0 else -x


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(6, 6, batch_first=True)
        self.head = nn.Linear(6, 6)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.head(self.lstm(x.unsqueeze(1))[0][:, -1]))


class Listed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(6, 6), nn.Linear(6, 6)])
        self.acts = nn.ModuleList([nn.ReLU(), nn.Tanh()])
        self.unused = nn.ELU()

    def forward(self, x: Tensor) -> Tensor:
        for layer, act in zip(self.layers, self.acts, strict=True):
            x = act(layer(x))
        return x


def shared_by_parents() -> nn.Module:
    act = nn.ReLU()
    return nn.Sequential(nn.Sequential(nn.Linear(6, 6), act), nn.Sequential(nn.Linear(6, 6), act), nn.Linear(6, 6), act)


def slopes() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 6), nn.LeakyReLU(0.3), nn.PReLU(6))


def transformer() -> nn.Module:
    layer = nn.TransformerEncoderLayer(6, 2, 12, dropout=0.0, batch_first=True, activation="gelu")
    return nn.Sequential(nn.Unflatten(1, (1, 6)), layer, nn.Flatten())


MODELS: dict[str, tuple[Any, list[tuple[str, str]]]] = {
    "functional": (
        Functional,
        [("relu", "relu"), ("tanh", "tanh"), ("relu_1", "relu"), ("leaky_relu", "original"), ("gelu", "gelu")],
    ),
    "reused": (Reused, [("act", "relu"), ("act_1", "relu"), ("act_2", "relu")]),
    "in_place": (InPlace, [("act", "relu"), ("sigmoid_", "sigmoid")]),
    "train_eval": (TrainEval, [("relu", "relu")]),
    "optional": (Optional, [("relu", "relu")]),
    "modules_only": (DataDependentModulesOnly, [("act", "relu")]),
    "listed": (Listed, [("acts.0", "relu"), ("acts.1", "tanh")]),
    "shared": (shared_by_parents, [("0.1", "relu"), ("1.1", "relu"), ("3", "relu")]),
    "transformer": (transformer, [("1.activation", "gelu")]),
    "slope": (slopes, [("1", "original"), ("2", "original")]),
    "root": (nn.Tanh, [("root", "tanh")]),
}  # fmt: skip


@pytest.fixture(params=MODELS, name="case")
def _model_and_sites(request: pytest.FixtureRequest) -> tuple[nn.Module, list[tuple[str, str]]]:
    torch.manual_seed(0)
    make, expected = MODELS[request.param]
    return make(), expected


def assert_equal_in_both_modes(model: nn.Module, other: nn.Module, x: Tensor) -> None:
    for training in (True, False):
        model.train(training)
        other.train(training)
        torch.manual_seed(3)
        expected = model(x.clone())
        torch.manual_seed(3)
        torch.testing.assert_close(other(x.clone()), expected, rtol=0, atol=0)


def test_sites_are_found_in_the_order_of_the_forward(case: tuple[nn.Module, list[tuple[str, str]]]) -> None:
    model, expected = case
    assert [(site.name, site.function) for site in find_sites(model).sites] == expected


def test_the_supernet_starts_as_the_model(case: tuple[nn.Module, list[tuple[str, str]]]) -> None:
    model, expected = case
    before = deepcopy(model.state_dict())
    supernet = relax(model, "basic", normaliser="affine", init="original", kernel="reference")
    assert len(supernet.arch_parameters()) == len(expected)
    assert_equal_in_both_modes(model, supernet, torch.randn(5, 6))
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])


def test_every_alpha_has_a_gradient(case: tuple[nn.Module, list[tuple[str, str]]]) -> None:
    model, expected = case
    supernet = relax(model, ["relu", "tanh", "sin"])
    supernet(torch.randn(5, 6) + 1).pow(2).sum().backward()
    for alpha in supernet.arch_parameters():
        assert alpha.grad is not None
        assert (alpha.grad != 0).any()
    assert len(supernet.arch_parameters()) == len(expected)


def test_the_genotype_of_the_model_s_own_functions_gives_the_model(
    case: tuple[nn.Module, list[tuple[str, str]]],
) -> None:
    model, _ = case
    assert_equal_in_both_modes(model, Genotype.original(model).apply(model), torch.randn(5, 6))


def test_derived_models_can_be_copied_and_pickled_and_keep_their_class(
    case: tuple[nn.Module, list[tuple[str, str]]],
) -> None:
    model, _ = case
    net = Genotype.uniform(model, "softsign").apply(model)
    x = torch.randn(5, 6)
    buffer = io.BytesIO()
    torch.save(net, buffer)
    buffer.seek(0)
    for copied in (deepcopy(net), pickle.loads(pickle.dumps(net)), torch.load(buffer, weights_only=False)):
        assert_equal_in_both_modes(net, copied, x)
    if not isinstance(model, nn.Tanh):
        assert isinstance(net, type(model))
    assert not any(torch.equal(a, b) for a, b in [(net.eval()(x), model.eval()(x))])


def test_both_branches_of_data_dependent_code_have_sites() -> None:
    model = DataDependent()
    assert [site.name for site in find_sites(model).sites] == ["act", "relu"]
    supernet = relax(model, normaliser="affine", init="original", kernel="reference")
    for sign in (1, -1):
        x = sign * torch.randn(5, 6).abs()
        assert torch.equal(supernet(x), model(x))


def test_recurrent_layers_are_reported_as_unreachable() -> None:
    with pytest.raises(SurgeryError, match=r"'lstm': nn.LSTM computes its gates inside one fused kernel"):
        relax(Recurrent())
    supernet = relax(Recurrent(), exclude=("lstm",))
    assert list(supernet.mixtures()) == ["relu"]


@fx.wrap
def hidden_relu(x: Tensor) -> Tensor:
    return F.relu(x)


def helper(x: Tensor) -> Tensor:
    return F.relu(x)


class Hidden(nn.Module):
    def __init__(self, function: Any) -> None:
        super().__init__()
        self.a = nn.Linear(6, 6)
        self.act = nn.Tanh()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.function(self.a(x)))


class HiddenInHelper(nn.Module):
    """A forward that cannot be traced, with an activation behind two calls."""

    def __init__(self) -> None:
        super().__init__()
        self.act = nn.Tanh()

    def forward(self, x: Tensor) -> Tensor:
        if float(x.sum()) > 0:
            x = self.deeper(x)
        return self.act(x)

    def deeper(self, x: Tensor) -> Tensor:
        return helper(x)


class PreActivation(nn.Module):
    """A block whose body overwrites the input that the shortcut reads: the shortcut carries relu(x)."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        x = x * 1
        out = self.body(x)
        return out + x


def test_a_child_that_overwrites_an_input_writes_its_result_back() -> None:
    overwriting = nn.Sequential(nn.Sequential(nn.ReLU(inplace=True), nn.Linear(6, 6)))
    x = torch.randn(5, 6)
    for body in (overwriting, nn.Sequential(nn.ReLU(), nn.Linear(6, 6))):
        model = PreActivation(body)
        supernet = relax(model, normaliser="affine", init="original", kernel="reference")
        assert torch.equal(supernet(x), model(x))
        net = Genotype.uniform(model, "tanh").apply(model)
        carried = x.tanh() if body is overwriting else x
        torch.testing.assert_close(
            net(x), carried + body[-1][-1](x.tanh()) if body is overwriting else carried + body[1](x.tanh())
        )


def test_activations_behind_helper_functions_are_found() -> None:
    for model in (Hidden(helper), Hidden(hidden_relu), HiddenInHelper()):
        assert [site.name for site in find_sites(model).sites] == ["relu", "act"]


def test_scripted_parts_are_unreachable() -> None:
    with pytest.warns(FutureWarning):
        scripted = torch.jit.script(nn.Sequential(nn.Linear(6, 6), nn.ReLU()))
    with pytest.raises(SurgeryError, match="TorchScript"):
        relax(nn.Sequential(scripted, nn.Tanh()))


def test_optional_arguments_stay_optional() -> None:
    model = Optional()
    supernet = relax(model, normaliser="affine", init="original", kernel="reference")
    x, mask = torch.randn(5, 6), torch.rand(5, 6)
    for arguments in ({}, {"mask": None}, {"mask": mask}, {"mask": mask, "scale": 2.0}):
        assert torch.equal(supernet(x, **arguments), model(x, **arguments))


def test_device_dtype_mode_hooks_and_requires_grad_are_kept() -> None:
    calls: list[str] = []
    model = nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 2)).double().eval()
    model[0].weight.requires_grad_(False)
    model[1].register_forward_hook(lambda *_: calls.append("act"))
    model[0].register_forward_hook(lambda *_: calls.append("linear"))
    model.register_forward_pre_hook(lambda *_: calls.append("root"))
    supernet = relax(model, init="original", normaliser="affine")
    assert not supernet.training
    assert not any(module.training for module in supernet.modules())
    assert all(p.dtype == torch.float64 for p in supernet.parameters())
    supernet(torch.randn(3, 6, dtype=torch.float64))
    assert calls == ["root", "linear", "act"]
    assert len(supernet.weight_parameters()) == 3
    calls.clear()
    net = Genotype.uniform(model, "tanh").apply(model)
    net(torch.randn(3, 6, dtype=torch.float64))
    assert calls == ["root", "linear", "act"]
    assert isinstance(net[1], nn.Tanh)
    assert not net[1].training


def test_the_mixtures_are_on_the_device_of_the_model() -> None:
    model = nn.Sequential(nn.Linear(6, 6, device="meta"), nn.ReLU())
    assert {p.device.type for p in relax(model).parameters()} == {"meta"}


def test_inplace_surgery_changes_the_given_object() -> None:
    model = nn.Sequential(nn.Linear(6, 6), nn.ReLU())
    assert relax(model, inplace=True).model is model


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"include": ("layr*",)}, "site pattern 'layr*' matches no site"),
        ({"exclude": ("*",)}, "has no activation site to search left"),
    ],
)
def test_patterns_that_match_no_site_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(SurgeryError) as caught:
        relax(Functional(), **options)
    assert message in str(caught.value)


def test_patterns_choose_sites() -> None:
    assert list(relax(Functional(), include=("relu*",), exclude=("relu_1",)).mixtures()) == ["relu"]
    both = Genotype.uniform(Functional(), "tanh", include=("relu*",))
    assert list(both.sites) == ["relu", "relu_1"]


def test_a_model_without_any_site_is_refused() -> None:
    with pytest.raises(SurgeryError, match="Linear has no activation site to search"):
        relax(nn.Linear(3, 3))
