"""The audit: it finds activations that no site covers, and what the results of sites are used for."""

from __future__ import annotations

import random
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from audited import Net, X, audit
from numpy.random import mtrand
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from nasact.errors import SurgeryError
from nasact.surgery.audit import Audit, Marker, MissedCall, markers, run_audit
from nasact.surgery.install import install
from nasact.surgery.sites import plan_surgery

REGISTRY = {"relu": F.relu, "silu": nn.SiLU()}


def places(result: Audit) -> list[tuple[str, str, str]]:
    return [(each.activation, each.function.rpartition(".")[2], each.module) for each in result.missed]


# ---- activations that no site covers


def by_getattr(net: Net, x: Tensor) -> Tensor:
    return getattr(F, "re" + "lu")(net.linear(x))


def by_registry(net: Net, x: Tensor) -> Tensor:
    return REGISTRY["relu"](net.linear(x))


def by_module_in_registry(net: Net, x: Tensor) -> Tensor:
    return REGISTRY["silu"](net.linear(x))


def by_module_made_in_forward(net: Net, x: Tensor) -> Tensor:
    return nn.Mish()(net.linear(x))


def by_method_in_place(net: Net, x: Tensor) -> Tensor:
    return net.linear(x).clone().sigmoid_()


def by_special(net: Net, x: Tensor) -> Tensor:
    return torch.special.expit(net.linear(x))


def by_operator(net: Net, x: Tensor) -> Tensor:
    return torch.ops.aten.silu(net.linear(x))


def by_overload(net: Net, x: Tensor) -> Tensor:
    return torch.ops.aten.tanh.default(net.linear(x))


def by_prelu(net: Net, x: Tensor) -> Tensor:
    return F.prelu(net.linear(x), torch.full((1,), 0.1))


def by_rrelu(net: Net, x: Tensor) -> Tensor:
    return F.rrelu(net.linear(x), training=net.training)


def by_threshold(net: Net, x: Tensor) -> Tensor:
    return F.threshold(net.linear(x), 0.1, 0.0)


def by_logsigmoid(net: Net, x: Tensor) -> Tensor:
    return F.logsigmoid(net.linear(x))


def by_map(net: Net, x: Tensor) -> Tensor:
    return torch.cat(list(map(F.relu6, net.linear(x).unbind())))


def by_clamp(net: Net, x: Tensor) -> Tensor:
    return net.linear(x).clamp(min=0)


def by_clamp_min(net: Net, x: Tensor) -> Tensor:
    return net.linear(x).clone().clamp_min_(0.0)


def by_clip(net: Net, x: Tensor) -> Tensor:
    return torch.clip(net.linear(x), 0, 6)


def by_maximum(net: Net, x: Tensor) -> Tensor:
    return torch.maximum(torch.zeros(()), net.linear(x))


def by_max(net: Net, x: Tensor) -> Tensor:
    h = net.linear(x)
    return torch.max(h, 0.1 * h)


def by_where(net: Net, x: Tensor) -> Tensor:
    h = net.linear(x)
    return torch.where(h < 0, 0.0, h)


def by_masked_fill(net: Net, x: Tensor) -> Tensor:
    h = net.linear(x)
    return h.masked_fill(h < 0, 0)


def by_assignment(net: Net, x: Tensor) -> Tensor:
    h = net.linear(x).clone()
    h[h < 0] = 0
    return h


def by_product_with_a_mask(net: Net, x: Tensor) -> Tensor:
    h = net.linear(x)
    return h * (h > 0)


SPELLINGS = {
    by_getattr: "relu",
    by_registry: "relu",
    by_module_in_registry: "silu",
    by_module_made_in_forward: "mish",
    by_method_in_place: "sigmoid",
    by_special: "sigmoid",
    by_operator: "silu",
    by_overload: "tanh",
    by_prelu: "prelu",
    by_rrelu: "rrelu",
    by_threshold: "threshold",
    by_logsigmoid: "logsigmoid",
    by_map: "relu6",
    by_clamp: "relu",
    by_clamp_min: "relu",
    by_clip: "relu6",
    by_maximum: "relu",
    by_max: "leaky_relu",
    by_where: "relu",
    by_masked_fill: "relu",
    by_assignment: "relu",
    by_product_with_a_mask: "relu",
}


@pytest.mark.parametrize("function", SPELLINGS, ids=lambda function: function.__name__)
def test_an_activation_outside_of_every_site_is_missed_however_it_is_spelt(function: Callable[..., Any]) -> None:
    assert len(SPELLINGS) >= 22
    torch.manual_seed(0)
    result = audit(Net(function))
    first_line = function.__code__.co_firstlineno
    (missed,) = result.missed
    assert (missed.activation, missed.file, missed.function) == (SPELLINGS[function], __file__, function.__name__)
    assert first_line < missed.line <= first_line + 4
    assert (missed.module, missed.argument, result.train_error) == ("", "data", "")


def no_activation(net: Net, x: Tensor) -> Tensor:
    h = net.linear(x)
    mask = torch.rand(h.shape) > 0.5
    h = torch.where(mask, h, 0.0) + h.masked_fill(mask, 0) + h * mask + h.clamp(-2, 2) + h.clamp(max=0)
    h = torch.maximum(h, h.mean()) + torch.where(h > 0, h, -h) + torch.where(h > 0, h, h)
    sizes = torch.tensor([3, -1]).clamp(min=0)
    return h[:, : int(sizes[0])] * net.linear.weight[:3, 0].clamp(min=0) * torch.tensor(-1.0).clamp(min=0)


def test_masks_clamps_and_clamps_of_sizes_and_weights_are_no_activations() -> None:
    assert audit(Net(no_activation)).missed == ()


def test_a_mask_of_few_values_that_looks_like_the_one_of_relu_is_no_activation() -> None:
    mask = torch.tensor([False, True])
    assert audit(Net(lambda net, x: torch.where(mask, x, 0.0) + 1), torch.tensor([-1.0, 1.0])).missed == ()


def test_the_two_calls_of_two_modules_are_two_places_and_repeated_calls_are_one() -> None:
    block = Net(by_getattr)
    result = audit(Net(lambda net, x: net.b(net.a(net.a(x))), a=block, b=deepcopy(block)))
    assert places(result) == [("relu", "by_getattr", "a"), ("relu", "by_getattr", "b")]


def test_a_module_of_torch_without_a_marker_is_missed_at_its_path() -> None:
    model = nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Sequential(nn.Tanh()))
    assert audit(model).missed == (MissedCall("relu", "", 0, "", "1"), MissedCall("tanh", "", 0, "", "2.0"))


def test_the_activation_of_an_encoder_layer_is_missed_and_fused_layers_have_none() -> None:
    layer = nn.TransformerEncoderLayer(6, 2, 8, batch_first=True, activation=lambda x: F.gelu(x) + 0)
    model = nn.Sequential(layer, nn.LSTM(6, 6, batch_first=True))
    (missed,) = audit(model, X.reshape(2, 2, 6)).missed
    assert (missed.activation, missed.module, Path(missed.file)) == ("gelu", "0", Path(__file__))


def hook(module: nn.Module, args: Any, output: Tensor) -> Tensor:
    return F.relu(output)


def test_an_activation_in_a_hook_is_missed_at_the_place_of_the_hook() -> None:
    model = Net(lambda net, x: net.linear(x))
    model.linear.register_forward_hook(hook)
    (missed,) = audit(model).missed
    assert missed == MissedCall("relu", __file__, hook.__code__.co_firstlineno + 1, "hook", "linear")


def test_an_activation_in_a_hook_of_a_site_is_missed() -> None:
    copied = nn.Sequential(nn.Tanh())
    marks = markers({"0": copied[0]})
    copied[0] = marks["0"]
    copied[0].register_forward_hook(hook)
    assert places(run_audit(copied, marks, X)) == [("relu", "hook", "0")]


class Sign(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return helper(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient


class NewStyleSign(torch.autograd.Function):
    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return torch.relu(x)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        return None


def helper(x: Tensor) -> Tensor:
    return torch.sigmoid(x)


def test_a_custom_autograd_function_belongs_to_its_backward_and_is_not_missed() -> None:
    def forward(net: Net, x: Tensor) -> Tensor:
        return helper(NewStyleSign.apply(Sign.apply(net.linear(x))))

    assert places(audit(Net(forward))) == [("sigmoid", "helper", "")]


@pytest.mark.parametrize("reentrant", [True, False])
def test_an_activation_in_a_checkpointed_function_is_missed(reentrant: bool) -> None:
    def forward(net: Net, x: Tensor) -> Tensor:
        h = net.linear(x)
        return checkpoint(lambda h: F.relu(h), h, use_reentrant=reentrant) if net.training else h

    assert places(audit(Net(forward))) == [("relu", "<lambda>", "")]


def test_an_activation_in_a_torchscript_function_is_missed() -> None:
    with pytest.warns(FutureWarning, match="script"):
        scripted = torch.jit.script(swish)
    assert places(audit(Net(lambda net, x: scripted(net.linear(x))))) == [("sigmoid", "<lambda>", "")]


def swish(x: Tensor) -> Tensor:
    return x * torch.sigmoid(x)


def test_a_compiled_function_is_missed_at_the_authors_line() -> None:
    compiled = torch.compile(helper, backend="eager")
    (missed,) = audit(Net(lambda net, x: compiled(net.linear(x)))).missed
    assert (missed.function, missed.line) == ("helper", helper.__code__.co_firstlineno + 1)


def test_an_activation_in_a_branch_of_torch_cond_is_missed() -> None:
    def forward(net: Net, x: Tensor) -> Tensor:
        h = net.linear(x)
        return torch.cond(h.sum() > 1e9, lambda h: h + 1, lambda h: helper(h) + 0, (h,))

    assert places(audit(Net(forward))) == [("sigmoid", "helper", "")]


def test_initialisation_inside_of_forward_is_no_activation() -> None:
    def forward(net: Net, x: Tensor) -> Tensor:
        weight = torch.empty(6, 6)
        nn.init.trunc_normal_(weight)
        return x @ weight

    assert audit(Net(forward)).missed == ()


# ---- sites: calls, shapes, arguments


def test_calls_and_shapes_of_both_passes_are_counted_and_unreached_sites_are_absent() -> None:
    def forward(net: Net, x: Tensor) -> Tensor:
        for _ in range(3):
            x = net.site_loop(x)
        return net.site_train(x[:2]) if net.training else x

    model = Net(forward, site_loop=nn.Tanh(), site_train=nn.ReLU(), site_never=nn.ReLU())
    result = audit(model)
    assert result.reached == {"site_loop": 6, "site_train": 1}
    assert result.shapes == {"site_loop": ((4, 6),) * 6, "site_train": ((2, 6),)}
    assert set(result.uses) == set(result.arguments) == {"site_loop", "site_train"}


# ---- what the audit leaves as it was


class Stateful(nn.Module):
    """It draws from every generator, changes buffers, and fails in train mode for one row."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.site, self.dropout = nn.BatchNorm1d(6), nn.ReLU(inplace=True), nn.Dropout()
        self.register_buffer("count", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.count += 1
        torch.set_grad_enabled(False)
        noise = random.random() + mtrand.rand() + mtrand.standard_normal() + torch.rand(())
        return self.dropout(self.norm(x)) + x.relu_() + noise


def test_the_model_the_example_the_modes_and_the_random_states_are_as_before() -> None:
    model = Stateful()
    model.norm.eval()
    before, example = deepcopy(model.state_dict()), X.clone()
    copied = deepcopy(model)
    marks = markers({"site": copied.site})
    copied.add_module("site", marks["site"])
    random.seed(1), mtrand.seed(1), torch.manual_seed(1)
    expected = (random.random(), mtrand.standard_normal(2).tolist(), torch.rand(2).tolist())
    random.seed(1), mtrand.seed(1), torch.manual_seed(1)
    result = run_audit(copied, marks, example)
    assert result.train_error == ""
    assert (random.random(), mtrand.standard_normal(2).tolist(), torch.rand(2).tolist()) == expected
    assert torch.is_grad_enabled()
    assert torch.equal(example, X)
    assert (copied.training, copied.norm.training, marks["site"].training) == (True, False, True)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert len(before) == 6
    assert all(parameter.grad is None for parameter in copied.parameters())
    assert marks["site"].observer is None


def test_a_train_pass_that_fails_is_left_out() -> None:
    result = audit(nn.Sequential(nn.BatchNorm1d(6), Net(lambda net, x: net.site(x), site=nn.ReLU())), X[:1])
    assert result.train_error.startswith("ValueError: Expected more than 1 value per channel")
    assert (result.reached, result.uses) == ({"1.site": 1}, {"1.site": {"output"}})


def test_a_model_that_does_not_run_on_the_example_is_an_error_of_one_line() -> None:
    with pytest.raises(SurgeryError) as raised:
        audit(nn.Sequential(nn.Linear(6, 6)), torch.zeros(2, 5))
    assert str(raised.value) == (
        "Sequential does not run on the example input: RuntimeError: mat1 and mat2 shapes cannot be multiplied "
        "(2x5 and 6x6). Check example_input: its shapes, dtypes and device, and a tuple or a dict for several arguments"
    )


def test_a_model_that_differentiates_in_its_forward_is_audited() -> None:
    def forces(net: Net, x: Tensor) -> Tensor:
        energy = net.site(net.linear(x)).square().sum()
        return torch.autograd.grad(energy, x, create_graph=True)[0]

    result = audit(Net(forces, site=nn.Softplus()), X.clone().requires_grad_())
    assert (result.reached, result.train_error) == ({"site": 2}, "")


@pytest.mark.parametrize("example", [(X, X[0]), {"x": X, "shift": X[0]}], ids=["tuple", "mapping"])
def test_an_example_of_several_arguments_is_positional_or_by_keyword(example: Any) -> None:
    result = audit(Net(lambda net, x, shift: net.site(net.linear(x) + shift), site=nn.ReLU()), example)
    assert result.arguments == {"site": frozenset({"data"})}


def test_a_marker_outside_of_an_audit_computes_the_original() -> None:
    assert torch.equal(Marker("site", nn.ELU(0.5))(X), F.elu(X, 0.5))


class Gated(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear, self.act = nn.Linear(6, 6), nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return F.silu(self.linear(self.act(x))) * torch.sigmoid(self.linear(x)) + 1


def test_all_sites_that_surgery_finds_are_reached_and_none_is_missed() -> None:
    model = nn.Sequential(Gated(), Gated())
    plan = plan_surgery(model, partial=True)
    marks = markers({name: location.original for name, (_, location) in plan.sites.items()})
    result = run_audit(install(plan, marks), marks, X)
    assert len(marks) >= 4
    assert set(result.reached) == set(marks)
    assert all(count == 2 for count in result.reached.values())
    assert {use for site in result.uses.values() for use in site} == {"product", "other"}
