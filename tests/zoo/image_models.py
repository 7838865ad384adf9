"""Image models of torchvision and timm: how each is built without a download, and what is known of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True)
class ImageModel:
    """A model and its input of shape (batch, 3, side, side).

    `options`: of the library's constructor. `sites`: their number, counted by hand; None: not counted. `other_gates`:
    gates outside of modules for squeeze and excitation. `unreached`: sites that no pass with one input calls.
    `reclassified`: sites that an example input shows to be gates, or functions of parameters alone. `refusal`: a
    pattern of the reason for which relax refuses it unless `partial`; None: it does not. `group`: models of one group
    run one after the other, because two of them would not fit into memory.
    """

    side: int = 64
    batch: int = 2
    options: Mapping[str, Any] = field(default_factory=dict)
    sites: int | None = None
    other_gates: int = 0
    unreached: int = 0
    reclassified: int = 0
    refusal: str | None = None
    group: str | None = None

    def inputs(self) -> tuple[Tensor]:
        """One batch of noise."""
        return (torch.randn(self.batch, 3, self.side, self.side, generator=torch.Generator().manual_seed(1)),)


def build(library: str, name: str, model: ImageModel) -> nn.Module:
    """The model with random weights of a fixed seed, for 10 classes."""
    torch.manual_seed(0)
    if library == "timm":
        import timm

        return timm.create_model(name, pretrained=False, num_classes=10, **model.options)
    import torchvision

    return torchvision.models.get_model(name, weights=None, num_classes=10, **model.options)


_REGNET_SIZES = ("400mf", "800mf", "1_6gf", "3_2gf", "8gf", "16gf", "32gf")
_REGNET_X = (22, 16, 18, 25, 23, 22, 23)
_REGNET_Y = (16, 14, 27, 21, 17, 18, 20)

# 64 pixels are enough for most; a transformer's constructor takes the size of the image
TORCHVISION = {
    "alexnet": ImageModel(sites=7),
    "convnext_tiny": ImageModel(sites=18),
    **{f"convnext_{size}": ImageModel(sites=36) for size in ("small", "base", "large")},
    **{f"densenet{depth}": ImageModel(sites=depth) for depth in (121, 161, 169, 201)},
    "efficientnet_b0": ImageModel(sites=49),
    **{f"efficientnet_b{size}": ImageModel() for size in range(1, 8)},
    **{f"efficientnet_v2_{size}": ImageModel() for size in "sml"},
    "googlenet": ImageModel(options={"init_weights": False}, sites=61),
    # the auxiliary head, which acts in train mode, needs the full size
    "inception_v3": ImageModel(side=299, options={"init_weights": False}, sites=96),
    "maxvit_t": ImageModel(side=224, batch=1),  # windows of 7 x 7 at a stride of 32
    **{f"mnasnet{width}": ImageModel(sites=35) for width in ("0_5", "0_75", "1_0", "1_3")},
    "mobilenet_v2": ImageModel(sites=35),
    "mobilenet_v3_small": ImageModel(sites=33),
    "mobilenet_v3_large": ImageModel(sites=40),
    # a stem, and blocks of three activations and, in kind y, of one in squeeze and excitation
    **{
        f"regnet_x_{size}": ImageModel(sites=1 + 3 * blocks)
        for size, blocks in zip(_REGNET_SIZES, _REGNET_X, strict=True)
    },
    **{
        f"regnet_y_{size}": ImageModel(sites=1 + 4 * blocks)
        for size, blocks in zip(_REGNET_SIZES, _REGNET_Y, strict=True)
    },
    "regnet_y_128gf": ImageModel(sites=1 + 4 * 27, group="memory"),
    # blocks of two or three layers, without the last layer
    **{f"resnet{depth}": ImageModel(sites=depth - 1) for depth in (18, 34, 50, 101, 152)},
    **{
        f"resnext{depth}_{kind}": ImageModel(sites=depth - 1)
        for depth, kind in ((50, "32x4d"), (101, "32x8d"), (101, "64x4d"))
    },
    **{f"wide_resnet{depth}_2": ImageModel(sites=depth - 1) for depth in (50, 101)},
    **{f"shufflenet_v2_x{width}": ImageModel(sites=37) for width in ("0_5", "1_0", "1_5", "2_0")},
    **{f"squeezenet1_{version}": ImageModel(sites=26) for version in (0, 1)},
    **{f"swin_{size}": ImageModel(sites=sites) for size, sites in (("t", 12), ("s", 24), ("b", 24))},
    # in each block, the bias of attention is a small network of a table of positions: relu and sigmoid
    **{f"swin_v2_{size}": ImageModel(reclassified=2 * blocks) for size, blocks in (("t", 12), ("s", 24), ("b", 24))},
    **{f"vgg{depth}{norm}": ImageModel(side=32, sites=depth - 1) for depth in (11, 13, 16, 19) for norm in ("", "_bn")},
    **{f"vit_b_{patch}": ImageModel(options={"image_size": 64}, sites=12) for patch in (16, 32)},
    **{f"vit_l_{patch}": ImageModel(options={"image_size": 64}, sites=24) for patch in (16, 32)},
    "vit_h_14": ImageModel(side=28, options={"image_size": 28}, sites=32, group="memory"),
}

_AT_64: dict[str, Any] = {"options": {"img_size": 64}}

# one model per family of timm, the smallest
TIMM = {
    "bat_resnext26ts": ImageModel(side=256),
    "beit_base_patch16_224": ImageModel(**_AT_64, sites=12),
    "botnet26t_256": ImageModel(side=256),
    "caformer_s18": ImageModel(),
    "cait_xxs24_224": ImageModel(**_AT_64),
    "coat_tiny": ImageModel(**_AT_64),
    "coatnet_nano_rw_224": ImageModel(**_AT_64),
    "convit_tiny": ImageModel(**_AT_64, sites=12),
    "convmixer_768_32": ImageModel(),
    "convnextv2_atto": ImageModel(sites=12),
    "cpubone_b0_bfrobust": ImageModel(side=224),
    "crossvit_tiny_240": ImageModel(side=240),
    "cs3darknet_s": ImageModel(),
    "csatv2": ImageModel(side=256),
    "cspnext_tiny": ImageModel(),
    "cspresnet50": ImageModel(),
    "davit_tiny": ImageModel(),
    "deit3_small_patch16_224": ImageModel(**_AT_64, sites=12),
    "densenet121": ImageModel(sites=121),
    "dla34": ImageModel(sites=33),
    "dm_nfnet_f0": ImageModel(sites=64),
    "dpn48b": ImageModel(),
    "eca_botnext26ts_256": ImageModel(side=256),
    "edgenext_xx_small": ImageModel(sites=12),
    "efficientformer_l1": ImageModel(side=224),
    "efficientformerv2_s0": ImageModel(side=224),
    "efficientnet_b0": ImageModel(sites=49),
    "efficientvim_m1": ImageModel(side=224),
    "efficientvit_b0": ImageModel(),
    "efficientvit_m0": ImageModel(side=224),
    "ese_vovnet19b_dw": ImageModel(),
    "eva02_tiny_patch14_224": ImageModel(side=56, options={"img_size": 56}, sites=12),
    "fasternet_t0": ImageModel(),
    "fastvit_t8": ImageModel(),
    "fbnetv3_b": ImageModel(),
    "focalnet_tiny_srf": ImageModel(),
    "gcvit_xxtiny": ImageModel(side=224),
    "gemma4_vit_167m": ImageModel(side=224, batch=1, unreached=1),
    "ghostnet_050": ImageModel(sites=42),
    "ghostnetv2_100": ImageModel(other_gates=14),
    "gmlp_s16_224": ImageModel(**_AT_64),
    "halonet26t": ImageModel(side=256),
    "hardcorenas_a": ImageModel(),
    "hgnetv2_b0": ImageModel(),
    "hiera_tiny_224": ImageModel(side=224, sites=12),
    "hieradet_small": ImageModel(side=224),
    "hrnet_w18_small": ImageModel(),
    "iformer_m": ImageModel(side=224, reclassified=6),
    "inception_next_atto": ImageModel(),
    "inception_resnet_v2": ImageModel(side=96),
    "inception_v3": ImageModel(side=96),
    "inception_v4": ImageModel(side=96),
    "lambda_resnet26t": ImageModel(side=256),
    "lcnet_050": ImageModel(),
    "lcnetv2_small": ImageModel(),
    "legacy_seresnet18": ImageModel(sites=33),
    "legacy_xception": ImageModel(),
    "levit_128s": ImageModel(side=224, sites=25),
    "lowformer_b0": ImageModel(side=224),
    "mambaout_femto": ImageModel(),
    "maxvit_rmlp_pico_rw_256": ImageModel(side=256, reclassified=22),
    "mixer_s32_224": ImageModel(**_AT_64, sites=16),
    "mixnet_s": ImageModel(),
    "mobilenetv3_small_050": ImageModel(sites=33),
    "mobilenetv4_conv_small": ImageModel(),
    "mobilenetv5_base": ImageModel(side=224, batch=1),
    "mobileone_s0": ImageModel(),
    "mobilevit_xxs": ImageModel(),
    "mobilevitv2_050": ImageModel(unreached=9),
    "mvitv2_tiny": ImageModel(**_AT_64),
    "naflexvit_base_patch16_gap": ImageModel(),
    "nasnetalarge": ImageModel(side=96),
    "nest_tiny": ImageModel(side=224),
    "nextvit_small": ImageModel(),
    "nf_resnet26": ImageModel(),
    "nfnet_f0": ImageModel(sites=64),
    "pit_ti_224": ImageModel(**_AT_64),
    "pnasnet5large": ImageModel(side=96),
    "poolformer_s12": ImageModel(sites=12),
    "poolformerv2_s12": ImageModel(),
    "pvt_v2_b0": ImageModel(sites=8),
    "qwen3_vit_88m": ImageModel(side=224, batch=1),
    "rdnet_tiny": ImageModel(),
    "regnety_002": ImageModel(sites=53),
    "repghostnet_050": ImageModel(),
    "repvgg_a0": ImageModel(),
    "repvit_m0_9": ImageModel(),
    "res2net50_26w_4s": ImageModel(),
    "resmlp_12_224": ImageModel(**_AT_64, sites=12),
    "resnest14d": ImageModel(),
    "resnet10t": ImageModel(sites=11),
    "resnetv2_50": ImageModel(sites=49),
    "rexnet_100": ImageModel(),
    "samvit_base_patch16_224": ImageModel(**_AT_64),
    "selecsls42b": ImageModel(),
    "sequencer2d_s": ImageModel(refusal=r"nn\.LSTM computes its gates inside one fused kernel", sites=18),
    "seresnet18": ImageModel(sites=25),
    "shvit_s1": ImageModel(),
    "skresnet18": ImageModel(),
    "starnet_s1": ImageModel(),
    "swiftformer_xs": ImageModel(),
    "swin_tiny_patch4_window7_224": ImageModel(side=224, sites=12),
    "swinv2_cr_tiny_224": ImageModel(side=224, reclassified=12),
    "swinv2_tiny_window8_256": ImageModel(side=256, reclassified=24),
    "tf_efficientnetv2_b0": ImageModel(sites=55),
    "tiny_vit_5m_224": ImageModel(side=224),
    "tinynet_e": ImageModel(),
    "tnt_s_patch16_224": ImageModel(**_AT_64),
    "tresnet_m": ImageModel(),
    "twins_svt_small": ImageModel(side=224, sites=18),
    "vgg11": ImageModel(sites=10),
    "visformer_tiny": ImageModel(side=224),
    "vit_base_r26_s32_224": ImageModel(**_AT_64),
    "vit_relpos_small_patch16_224": ImageModel(**_AT_64, reclassified=12),
    "vit_tiny_patch16_224": ImageModel(**_AT_64, sites=12),
    "vitamin_small_224": ImageModel(side=224),
    "volo_d1_224": ImageModel(side=224),
    "xception41": ImageModel(),
    "xcit_nano_12_p16_224": ImageModel(side=224),
}
