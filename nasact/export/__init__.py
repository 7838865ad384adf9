"""Export of a derived network to a file that needs no nasact: ONNX, torch.export's pt2, or safetensors with plain code.

Every export is reloaded in a fresh process that has no nasact and compared before it is called done. Knows modules and
tensors only, not where they come from.
"""

from nasact.export.export import FORMATS, Exported, export_network

__all__ = ["FORMATS", "Exported", "export_network"]
