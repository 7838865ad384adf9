"""Export of a derived network to a file that needs no nasact: ONNX, torch.export's pt2, safetensors with plain code.

Every export is reloaded in a new process without nasact and compared with the network before it is reported as done.
Knows modules and tensors; must not know studies.
"""

from nasact.export.export import FORMATS, ExportResult, export_network

__all__ = ["FORMATS", "ExportResult", "export_network"]
