"""The networks of benchmarks.zoo: torchvision's and timm's by name, and what each takes."""

from collections.abc import Callable
from typing import Any

import torch
import torchvision
from torch import Tensor, nn

IMAGES = 3
# Pixels a side: the least that a network takes, or that leaves batch norm something to average.
SIZES = {
    "alexnet": 64,
    "vgg11_bn": 32,
    "resnet18": 64,
    "resnet50": 64,
    "squeezenet1_1": 64,
    "densenet121": 64,
    "googlenet": 64,
    "inception_v3": 299,
    "shufflenet_v2_x1_0": 64,
    "mobilenet_v2": 64,
    "mobilenet_v3_small": 64,
    "mnasnet1_0": 64,
    "efficientnet_b0": 64,
    "regnet_y_400mf": 64,
    "convnext_tiny": 64,
}
TIMM = {
    **dict.fromkeys(("resnet18", "resnet26d", "resnext50_32x4d", "seresnet50", "ecaresnet26t", "resnetaa50"), 64),
    **dict.fromkeys(("skresnet18", "gcresnext26ts", "res2net50_14w_8s", "densenet121", "dpn68", "dla34"), 64),
    **dict.fromkeys(("hrnet_w18_small", "vovnet39a", "ese_vovnet19b_dw", "cspresnet50", "cspdarknet53"), 64),
    **dict.fromkeys(("darknet53", "efficientnet_b0", "efficientnetv2_rw_t", "mixnet_s", "mobilenetv2_100"), 64),
    **dict.fromkeys(("mobilenetv3_small_100", "mobilenetv4_conv_small", "mnasnet_small", "fbnetc_100"), 64),
    **dict.fromkeys(("hardcorenas_a", "tinynet_a", "ghostnet_100", "rexnet_100", "lcnet_050", "regnetx_002"), 64),
    **dict.fromkeys(("regnety_002", "regnetz_b16", "nf_regnet_b0", "nfnet_l0", "repvgg_a0", "mobileone_s0"), 64),
    **dict.fromkeys(("inception_v3", "inception_v4", "inception_resnet_v2"), 128),
    **dict.fromkeys(("xception41", "convnext_atto", "convnextv2_atto", "convmixer_768_32", "edgenext_xx_small"), 64),
    **dict.fromkeys(("poolformer_s12", "selecsls42b", "tresnet_m"), 64),
    "levit_128s": 224,
}
OTHERS = (
    *("fcn_resnet50", "deeplabv3_resnet50", "deeplabv3_mobilenet_v3_large", "lraspp_mobilenet_v3_large"),
    *("fasterrcnn_resnet50_fpn", "fasterrcnn_mobilenet_v3_large_320_fpn", "maskrcnn_resnet50_fpn"),
    *("keypointrcnn_resnet50_fpn", "retinanet_resnet50_fpn", "fcos_resnet50_fpn", "ssd300_vgg16"),
    *("ssdlite320_mobilenet_v3_large", "r3d_18", "dcgan_discriminator"),
)


def network(name: str, **more: Any) -> nn.Module:
    """torchvision's, with random weights, ten classes, in training mode and double precision."""
    torch.manual_seed(0)
    if name in ("googlenet", "inception_v3"):
        more = {"init_weights": True, **more}
    return torchvision.models.get_model(name, weights=None, num_classes=10, **more).double()


def timms(name: str) -> nn.Module:
    """timm's, the same. Raises ImportError where timm is not installed."""
    import timm  # not among the requirements: for this alone

    torch.manual_seed(0)
    return timm.create_model(name, pretrained=False, num_classes=10).double().train()


def images(size: int, n: int = IMAGES) -> Tensor:
    return torch.randn(n, 3, size, size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def other(name: str) -> tuple[nn.Module, tuple[Any, ...]]:
    """A network of OTHERS, and its arguments in training."""
    if name == "dcgan_discriminator":
        torch.manual_seed(0)
        return discriminator().double(), (images(64),)
    if name == "r3d_18":
        return network(name), (images(32).unsqueeze(2).repeat(1, 1, 4, 1, 1),)
    model = network(name, weights_backbone=None)
    if name not in torchvision.models.list_models(module=torchvision.models.detection):
        return model, (images(64),)
    side = 300 if name == "ssd300_vgg16" else 128
    model.transform.min_size, model.transform.max_size, model.transform.fixed_size = (side,), side, None
    return model, (list(images(side, 2).sigmoid()), [_target(name, side), _target(name, side // 2)])


def _target(name: str, side: int) -> dict[str, Tensor]:
    """Two things in an image of 128 pixels a side, the second one of `side`."""
    boxes = torch.tensor([[10, 20, 90, 80], [0, 0, side, side]], dtype=torch.float64)
    target = {"boxes": boxes, "labels": torch.tensor([1, 1 if "keypoint" in name else 3])}
    if "mask" in name:
        target["masks"] = torch.zeros(2, 128, 128, dtype=torch.uint8)
        target["masks"][:, 30:60, 20:70] = 1
    if "keypoint" in name:
        target["keypoints"] = torch.cat([boxes[:, None, :2] + 5, torch.ones(2, 1, 1)], 2).repeat(1, 17, 1).float()
    return target


def discriminator(maps: int = 16) -> nn.Module:
    """DCGAN's: convolutions with stride 2, batch norm, leaky ReLU in place (Radford et al. 2016)."""

    def block(C: int, O: int) -> list[nn.Module]:
        return [nn.Conv2d(C, O, 4, 2, 1, bias=False), nn.BatchNorm2d(O), nn.LeakyReLU(0.2, inplace=True)]

    first = nn.Conv2d(3, maps, 4, 2, 1, bias=False), nn.LeakyReLU(0.2, inplace=True)
    blocks = *block(maps, 2 * maps), *block(2 * maps, 4 * maps), *block(4 * maps, 8 * maps)
    return nn.Sequential(*first, *blocks, nn.Conv2d(8 * maps, 1, 4, bias=False), nn.Sigmoid())


GROUPS: dict[str, tuple[Any, Callable[[str], tuple[nn.Module, tuple[Any, ...]]]]] = {
    "torchvision": (SIZES, lambda name: (network(name), (images(SIZES.get(name, 64)),))),
    "timm": (TIMM, lambda name: (timms(name), (images(TIMM.get(name, 64)),))),
    "others": (OTHERS, other),
}
