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

    `options`: of the library's constructor. `sites`, `gates`: how many it has, counted by hand or from the paper; None:
    not counted. `refusal`: a pattern of the reason for which relax refuses it unless `partial`; None: it does not.
    `group`: models of one group run one after the other, because two of them would not fit into memory.
    """

    side: int = 64
    batch: int = 2
    options: Mapping[str, Any] = field(default_factory=dict)
    sites: int | None = None
    gates: int | None = None
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


# 64 pixels are enough for most; a transformer's constructor takes the size of the image
TORCHVISION = {
    "alexnet": ImageModel(),
    **{f"convnext_{size}": ImageModel() for size in ("tiny", "small", "base", "large")},
    **{f"densenet{depth}": ImageModel() for depth in (121, 161, 169, 201)},
    **{f"efficientnet_b{size}": ImageModel() for size in range(8)},
    **{f"efficientnet_v2_{size}": ImageModel() for size in "sml"},
    "googlenet": ImageModel(options={"init_weights": False}),
    # the auxiliary head, which acts in train mode, needs the full size
    "inception_v3": ImageModel(side=299, options={"init_weights": False}),
    "maxvit_t": ImageModel(side=224, batch=1),  # windows of 7 x 7 at a stride of 32
    **{f"mnasnet{width}": ImageModel() for width in ("0_5", "0_75", "1_0", "1_3")},
    **{f"mobilenet_{version}": ImageModel() for version in ("v2", "v3_small", "v3_large")},
    **{
        f"regnet_{kind}_{size}": ImageModel()
        for kind in "xy"
        for size in ("400mf", "800mf", "1_6gf", "3_2gf", "8gf", "16gf", "32gf")
    },
    "regnet_y_128gf": ImageModel(group="memory"),
    **{f"resnet{depth}": ImageModel() for depth in (18, 34, 50, 101, 152)},
    **{f"resnext{kind}": ImageModel() for kind in ("50_32x4d", "101_32x8d", "101_64x4d")},
    **{f"wide_resnet{depth}_2": ImageModel() for depth in (50, 101)},
    **{f"shufflenet_v2_x{width}": ImageModel() for width in ("0_5", "1_0", "1_5", "2_0")},
    **{f"squeezenet1_{version}": ImageModel() for version in (0, 1)},
    **{f"swin_{size}": ImageModel() for size in "tsb"},
    **{f"swin_v2_{size}": ImageModel() for size in "tsb"},
    **{f"vgg{depth}{norm}": ImageModel(side=32) for depth in (11, 13, 16, 19) for norm in ("", "_bn")},
    **{f"vit_{kind}": ImageModel(options={"image_size": 64}) for kind in ("b_16", "b_32", "l_16", "l_32")},
    "vit_h_14": ImageModel(side=28, options={"image_size": 28}, group="memory"),
}

_AT_64: dict[str, Any] = {"options": {"img_size": 64}}

# one model per family of timm, the smallest
TIMM = {
    "bat_resnext26ts": ImageModel(side=256),
    "beit_base_patch16_224": ImageModel(**_AT_64),
    "botnet26t_256": ImageModel(side=256),
    "caformer_s18": ImageModel(),
    "cait_xxs24_224": ImageModel(**_AT_64),
    "coat_tiny": ImageModel(**_AT_64),
    "coatnet_nano_rw_224": ImageModel(**_AT_64),
    "convit_tiny": ImageModel(**_AT_64),
    "convmixer_768_32": ImageModel(),
    "convnextv2_atto": ImageModel(),
    "cpubone_b0_bfrobust": ImageModel(side=224),
    "crossvit_tiny_240": ImageModel(side=240),
    "cs3darknet_s": ImageModel(),
    "csatv2": ImageModel(side=256),
    "cspnext_tiny": ImageModel(),
    "cspresnet50": ImageModel(),
    "davit_tiny": ImageModel(),
    "deit3_small_patch16_224": ImageModel(**_AT_64),
    "densenet121": ImageModel(),
    "dla34": ImageModel(),
    "dm_nfnet_f0": ImageModel(),
    "dpn48b": ImageModel(),
    "eca_botnext26ts_256": ImageModel(side=256),
    "edgenext_xx_small": ImageModel(),
    "efficientformer_l1": ImageModel(side=224),
    "efficientformerv2_s0": ImageModel(side=224),
    "efficientnet_b0": ImageModel(),
    "efficientvim_m1": ImageModel(side=224),
    "efficientvit_b0": ImageModel(),
    "efficientvit_m0": ImageModel(side=224),
    "ese_vovnet19b_dw": ImageModel(),
    "eva02_tiny_patch14_224": ImageModel(side=56, options={"img_size": 56}),
    "fasternet_t0": ImageModel(),
    "fastvit_t8": ImageModel(),
    "fbnetv3_b": ImageModel(),
    "focalnet_tiny_srf": ImageModel(),
    "gcvit_xxtiny": ImageModel(side=224),
    "gemma4_vit_167m": ImageModel(side=224, batch=1),
    "ghostnet_050": ImageModel(),
    "ghostnetv2_100": ImageModel(),
    "gmlp_s16_224": ImageModel(**_AT_64),
    "halonet26t": ImageModel(side=256),
    "hardcorenas_a": ImageModel(),
    "hgnetv2_b0": ImageModel(),
    "hiera_tiny_224": ImageModel(side=224),
    "hieradet_small": ImageModel(side=224),
    "hrnet_w18_small": ImageModel(),
    "iformer_m": ImageModel(side=224),
    "inception_next_atto": ImageModel(),
    "inception_resnet_v2": ImageModel(side=96),
    "inception_v3": ImageModel(side=96),
    "inception_v4": ImageModel(side=96),
    "lambda_resnet26t": ImageModel(side=256),
    "lcnet_050": ImageModel(),
    "lcnetv2_small": ImageModel(),
    "legacy_seresnet18": ImageModel(),
    "legacy_xception": ImageModel(),
    "levit_128s": ImageModel(side=224),
    "lowformer_b0": ImageModel(side=224),
    "mambaout_femto": ImageModel(),
    "maxvit_rmlp_pico_rw_256": ImageModel(side=256),
    "mixer_s32_224": ImageModel(**_AT_64),
    "mixnet_s": ImageModel(),
    "mobilenetv3_small_050": ImageModel(),
    "mobilenetv4_conv_small": ImageModel(),
    "mobilenetv5_base": ImageModel(side=224, batch=1),
    "mobileone_s0": ImageModel(),
    "mobilevit_xxs": ImageModel(),
    "mobilevitv2_050": ImageModel(),
    "mvitv2_tiny": ImageModel(**_AT_64),
    "naflexvit_base_patch16_gap": ImageModel(),
    "nasnetalarge": ImageModel(side=96),
    "nest_tiny": ImageModel(side=224),
    "nextvit_small": ImageModel(),
    "nf_resnet26": ImageModel(),
    "nfnet_f0": ImageModel(),
    "pit_ti_224": ImageModel(**_AT_64),
    "pnasnet5large": ImageModel(side=96),
    "poolformer_s12": ImageModel(),
    "poolformerv2_s12": ImageModel(),
    "pvt_v2_b0": ImageModel(),
    "qwen3_vit_88m": ImageModel(side=224, batch=1),
    "rdnet_tiny": ImageModel(),
    "regnety_002": ImageModel(),
    "repghostnet_050": ImageModel(),
    "repvgg_a0": ImageModel(),
    "repvit_m0_9": ImageModel(),
    "res2net50_26w_4s": ImageModel(),
    "resmlp_12_224": ImageModel(**_AT_64),
    "resnest14d": ImageModel(),
    "resnet10t": ImageModel(),
    "resnetv2_50": ImageModel(),
    "rexnet_100": ImageModel(),
    "samvit_base_patch16_224": ImageModel(**_AT_64),
    "selecsls42b": ImageModel(),
    "sequencer2d_s": ImageModel(),
    "seresnet18": ImageModel(),
    "shvit_s1": ImageModel(),
    "skresnet18": ImageModel(),
    "starnet_s1": ImageModel(),
    "swiftformer_xs": ImageModel(),
    "swin_tiny_patch4_window7_224": ImageModel(side=224),
    "swinv2_cr_tiny_224": ImageModel(side=224),
    "swinv2_tiny_window8_256": ImageModel(side=256),
    "tf_efficientnetv2_b0": ImageModel(),
    "tiny_vit_5m_224": ImageModel(side=224),
    "tinynet_e": ImageModel(),
    "tnt_s_patch16_224": ImageModel(**_AT_64),
    "tresnet_m": ImageModel(),
    "twins_svt_small": ImageModel(side=224),
    "vgg11": ImageModel(),
    "visformer_tiny": ImageModel(side=224),
    "vit_base_r26_s32_224": ImageModel(**_AT_64),
    "vit_relpos_small_patch16_224": ImageModel(**_AT_64),
    "vit_tiny_patch16_224": ImageModel(**_AT_64),
    "vitamin_small_224": ImageModel(side=224),
    "volo_d1_224": ImageModel(side=224),
    "xception41": ImageModel(),
    "xcit_nano_12_p16_224": ImageModel(side=224),
}
