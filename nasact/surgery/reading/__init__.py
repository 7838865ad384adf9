"""Reads the code of a model without running it: which expressions apply activations, to what, and for what."""
