"""Plain torch code of a network: its torch.export graph as one Python function of its named tensors."""

from __future__ import annotations

import re
from typing import Any

from torch import Tensor
from torch.export import ExportedProgram

from nasact.errors import ExportError

_TEMPLATE = '''"""{title}

Plain torch: needs torch and safetensors, nothing else.

    from {module} import load
    network = load("{weights}")
    logits = network(inputs)        # inputs: float32 {shape}, any batch size
"""

import torch
from safetensors.torch import load_file
from torch import device, inf, nan  # noqa: F401

PARAMETERS = {parameters}
BUFFERS = {buffers}


class Network(torch.nn.Module):
    """The derived network, in inference mode."""

    def __init__(self, tensors):
        super().__init__()
        for key, name in PARAMETERS.items():
            self.register_parameter(key, torch.nn.Parameter(tensors[name]))
        for key, name in BUFFERS.items():
            self.register_buffer(key, tensors[name])

    def forward(self, {inputs}):
        return _forward(self, {arguments})[0]


def load(path):
    return Network(load_file(path)).eval()


{code}
'''


def plain_source(program: ExportedProgram, *, title: str, module: str, weights: str) -> tuple[str, dict[str, Tensor]]:
    """Source text of a module with a function `load(path)`, and the tensors that it loads, by name."""
    graph = program.graph_module.graph
    submodules = [node.target for node in graph.nodes if node.op in ("get_attr", "call_module")]
    if submodules:
        raise ExportError(f"safetensors: the network's graph holds parts without plain code: {submodules[0]!r}")
    parameters: dict[str, str] = {}
    buffers: dict[str, str] = {}
    inputs: list[str] = []
    arguments: list[str] = []
    tensors: dict[str, Tensor] = {}
    state: dict[str, Any] = {**program.state_dict, **program.constants}
    for spec in program.graph_signature.input_specs:
        name = spec.arg.name
        if spec.target is None:
            inputs.append(name)
            arguments.append(name)
            continue
        (parameters if spec.kind.name == "PARAMETER" else buffers)[name] = spec.target
        arguments.append(f"self.{name}")
        tensors[spec.target] = state[spec.target].detach().contiguous().clone()
    code = graph.python_code("self")
    used = sorted(name for name in code.globals if re.search(rf"\b{name}\b", code.src))
    unknown = [name for name in used if name not in ("torch", "device", "inf", "nan")]
    if unknown:
        raise ExportError(f"safetensors: the network's code refers to {unknown[0]!r}, which is not part of torch")
    source = _TEMPLATE.format(
        title=title,
        module=module,
        weights=weights,
        shape=_input_shape(program),
        parameters=_literal(parameters),
        buffers=_literal(buffers),
        inputs=", ".join(inputs),
        arguments=", ".join(arguments),
        code=code.src.strip().replace("def forward(", "def _forward(", 1),
    )
    return source, tensors


def _input_shape(program: ExportedProgram) -> str:
    placeholder = next(
        node for node in program.graph.nodes if node.op == "placeholder" and node.name == _input(program)
    )
    return "(N, " + ", ".join(str(size) for size in placeholder.meta["val"].shape[1:]) + ")"


def _input(program: ExportedProgram) -> str:
    return next(str(spec.arg.name) for spec in program.graph_signature.input_specs if spec.target is None)


def _literal(names: dict[str, str]) -> str:
    return "{\n" + "".join(f"    {key!r}: {value!r},\n" for key, value in names.items()) + "}" if names else "{}"
