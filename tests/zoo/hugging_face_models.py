"""Families of Hugging Face's transformers, with tiny configurations and random weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn


def tokens() -> dict[str, Tensor]:
    """Two sequences of nine tokens; the second ends with padding."""
    generator = torch.Generator().manual_seed(1)
    mask = torch.ones(2, 9, dtype=torch.long)
    mask[1, 6:] = 0
    return {"input_ids": torch.randint(5, 60, (2, 9), generator=generator), "attention_mask": mask}


def causal_tokens() -> dict[str, Any]:
    """Tokens for a decoder, which would else return its cache, an object."""
    return tokens() | {"use_cache": False}


def pairs() -> dict[str, Any]:
    """Tokens for an encoder and for a decoder."""
    return tokens() | {"decoder_input_ids": tokens()["input_ids"][:, :5], "use_cache": False}


def image(side: int = 32) -> dict[str, Tensor]:
    """Two images of noise."""
    return {"pixel_values": torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(1))}


def image_and_tokens() -> dict[str, Tensor]:
    """Two images and two captions."""
    return tokens() | image()


def spectrum() -> dict[str, Any]:
    """Mel features of two clips, and tokens for the decoder."""
    features = torch.randn(2, 16, 40, generator=torch.Generator().manual_seed(1))
    return {"input_features": features, "decoder_input_ids": tokens()["input_ids"][:, :5], "use_cache": False}


def sound() -> dict[str, Tensor]:
    """Two waveforms."""
    return {"input_values": torch.randn(2, 800, generator=torch.Generator().manual_seed(1))}


@dataclass(frozen=True, kw_only=True)
class Family:
    """A class of transformers and the settings of its configuration; the other fields as in ImageModel."""

    model: str
    settings: Mapping[str, Any]
    inputs: Callable[[], Mapping[str, Any]] = tokens
    parts: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    sites: int | None = None
    other_gates: int = 0
    unreached: int = 0
    reclassified: int = 0
    refusal: str | None = None


def build(name: str, family: Family) -> nn.Module:
    """The model with random weights of a fixed seed."""
    import transformers

    torch.manual_seed(0)
    model_class = getattr(transformers, family.model)
    return model_class(model_class.config_class(**family.settings, **family.parts))


_HIDDEN = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
_TEXT: dict[str, Any] = _HIDDEN | {"vocab_size": 64, "max_position_embeddings": 32}
_LLAMA: dict[str, Any] = _TEXT | {"num_key_value_heads": 2, "head_dim": 8}
_IMAGE: dict[str, Any] = _HIDDEN | {"image_size": 32, "patch_size": 8}
_SEQ2SEQ: dict[str, Any] = {
    "vocab_size": 64,
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "max_position_embeddings": 32,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 48,
    "encoder_layerdrop": 0.3,
    "decoder_layerdrop": 0.3,
}

FAMILIES = {
    "albert": Family(model="AlbertForMaskedLM", settings=_TEXT | {"embedding_size": 16}),
    "bart": Family(model="BartForConditionalGeneration", settings=_SEQ2SEQ, inputs=pairs),
    "bert": Family(model="BertForSequenceClassification", settings=_TEXT, sites=3),
    "bloom": Family(
        model="BloomForCausalLM",
        settings={"vocab_size": 64, "hidden_size": 32, "n_layer": 2, "n_head": 4},
        inputs=causal_tokens,
    ),
    "clip": Family(
        model="CLIPModel",
        settings={"projection_dim": 16},
        parts={"text_config": _TEXT | {"eos_token_id": 2}, "vision_config": _IMAGE},
        inputs=image_and_tokens,
    ),
    "convnext": Family(
        model="ConvNextForImageClassification",
        settings={"hidden_sizes": [8, 16, 32, 48], "depths": [1, 1, 2, 1]},
        inputs=lambda: image(64),
        sites=5,
    ),
    "deberta": Family(
        model="DebertaV2ForMaskedLM", settings=_TEXT | {"relative_attention": True, "pos_att_type": ["p2c", "c2p"]}
    ),
    "distilbert": Family(
        model="DistilBertForSequenceClassification",
        settings={"vocab_size": 64, "dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 48},
    ),
    "electra": Family(model="ElectraForPreTraining", settings=_TEXT | {"embedding_size": 16}),
    "falcon": Family(
        model="FalconForCausalLM",
        settings={"vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4},
        inputs=causal_tokens,
    ),
    "gemma": Family(model="GemmaForCausalLM", settings=_LLAMA, inputs=causal_tokens),
    "gpt2": Family(
        model="GPT2LMHeadModel",
        settings={"vocab_size": 64, "n_positions": 32, "n_embd": 32, "n_layer": 2, "n_head": 4},
        inputs=causal_tokens,
        sites=2,
    ),
    "gpt_neox": Family(model="GPTNeoXForCausalLM", settings=_TEXT, inputs=causal_tokens),
    "llama": Family(model="LlamaForCausalLM", settings=_LLAMA, inputs=causal_tokens, sites=2),
    "mamba": Family(
        model="MambaForCausalLM",
        settings={"vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 2, "state_size": 8},
        inputs=causal_tokens,
        other_gates=2,  # of the step size
        unreached=2,  # of other kernels
        refusal=r"ACT2FN\[activation\] is looked up in a table in each pass",
    ),
    "mixtral": Family(
        model="MixtralForCausalLM",
        settings=_LLAMA | {"num_local_experts": 4, "num_experts_per_tok": 2},
        inputs=causal_tokens,
    ),
    "mobilevit": Family(
        model="MobileViTForImageClassification",
        settings={"hidden_sizes": [16, 24, 32], "neck_hidden_sizes": [8, 8, 16, 16, 16, 24, 64], "image_size": 64},
        inputs=lambda: image(64),
    ),
    "opt": Family(
        model="OPTForCausalLM",
        settings={
            "vocab_size": 64,
            "hidden_size": 32,
            "ffn_dim": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "max_position_embeddings": 32,
            "word_embed_proj_dim": 32,
            "layerdrop": 0.3,
        },
        inputs=causal_tokens,
    ),
    "qwen2": Family(model="Qwen2ForCausalLM", settings=_LLAMA, inputs=causal_tokens),
    "regnet": Family(
        model="RegNetForImageClassification",
        settings={"embedding_size": 8, "hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 1, 1], "groups_width": 8},
        inputs=lambda: image(64),
    ),
    "resnet": Family(
        model="ResNetForImageClassification",
        settings={"embedding_size": 8, "hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 1, 1]},
        inputs=lambda: image(64),
    ),
    "roberta": Family(model="RobertaForMaskedLM", settings=_TEXT),
    "segformer": Family(
        model="SegformerForSemanticSegmentation",
        settings={
            "hidden_sizes": [8, 16, 24, 32],
            "depths": [1, 1, 1, 1],
            "num_attention_heads": [1, 2, 2, 4],
            "decoder_hidden_size": 16,
        },
        inputs=lambda: image(64),
    ),
    "swin": Family(
        model="SwinForImageClassification",
        settings={"image_size": 32, "embed_dim": 8, "depths": [1, 2], "num_heads": [1, 2], "window_size": 4},
        inputs=image,
    ),
    "t5": Family(
        model="T5ForConditionalGeneration",
        settings={
            "vocab_size": 64,
            "d_model": 32,
            "d_kv": 8,
            "d_ff": 48,
            "num_layers": 2,
            "num_heads": 4,
            "feed_forward_proj": "gated-gelu",
        },
        inputs=pairs,
    ),
    "vit": Family(model="ViTForImageClassification", settings=_IMAGE, inputs=image),
    "wav2vec2": Family(
        model="Wav2Vec2ForCTC",
        settings=_HIDDEN
        | {
            "vocab_size": 16,
            "conv_dim": (16, 16),
            "conv_kernel": (8, 3),
            "conv_stride": (5, 2),
            "num_feat_extract_layers": 2,
            "num_conv_pos_embeddings": 8,
            "num_conv_pos_embedding_groups": 2,
            "mask_time_prob": 0.0,
            "layerdrop": 0.3,
        },
        inputs=sound,
    ),
    "whisper": Family(
        model="WhisperForConditionalGeneration",
        settings={key: value for key, value in _SEQ2SEQ.items() if key != "max_position_embeddings"}
        | {
            "num_mel_bins": 16,
            "max_source_positions": 20,
            "max_target_positions": 16,
            "pad_token_id": 0,
            "bos_token_id": 1,
            "eos_token_id": 2,
            "decoder_start_token_id": 3,
        },
        inputs=spectrum,
    ),
    "xlnet": Family(
        model="XLNetLMHeadModel",
        settings={"vocab_size": 64, "d_model": 32, "n_layer": 2, "n_head": 4, "d_inner": 48},
        inputs=lambda: {"input_ids": tokens()["input_ids"], "use_mems": False},
    ),
}
