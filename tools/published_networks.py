"""Write the operator rows of published networks, from public definitions in timm and torchvision.

    python tools/published_networks.py --packages DIR            build what DIR lacks, then write the file
    python tools/published_networks.py --packages DIR --only deit

Each network is built with random weights, re-parameterised as for inference, converted to an ML program (fp16, batch 1,
iOS 15) and read back with `mvit_search.latency.mil`. Only numbers are kept: kinds, shapes and counts of operators. DIR
keeps the converted programs, whose weights are cut off. Needs the extra `timm`; all of it takes about half an hour.
"""

import argparse
import json
import logging
import shutil
import sys
import tempfile
import warnings
from collections import Counter
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from mvit_search._files import write_atomically  # noqa: E402
from mvit_search.latency.mil import read_program  # noqa: E402
from mvit_search.latency.networks import COLUMNS, PUBLISHED_NETWORKS, row_of  # noqa: E402
from tests.timm_import import make_torchvision_importable  # noqa: E402

FEATURES = "+features"
"""Ends the name of a network without its classifier, as detectors and segmenters use it."""


class Wanted(NamedTuple):
    """A network and the resolutions that latencies are published at, the usual one first."""

    model: str
    variant: str
    definition: str
    sizes: tuple[int, ...]


# Model and variant as the published table has them; `~` marks a variant that was inferred from its accuracy. The
# definition is timm's name, or torchvision's after `tv.`; a size of 512 or more is a backbone without classifier.
_TABLE = """\
ConvMixer|768 (label)|convmixer_768_32|224
ConvNeXt|~B|convnext_base|224
ConvNeXt|~S|convnext_small|224
ConvNeXt|~T|convnext_tiny|224
DeiT|Base|deit_base_patch16_224|224
DeiT|Small|deit_small_patch16_224|224
DeiT|~B|deit_base_patch16_224|224
DeiT|~S|deit_small_patch16_224|224
EfficientFormerV2|L|efficientformerv2_l|224,512
EfficientFormerV2|S0|efficientformerv2_s0|224
EfficientFormerV2|S1|efficientformerv2_s1|224
EfficientFormerV2|S2|efficientformerv2_s2|224,512
EfficientFormer|L1|efficientformer_l1|224
EfficientFormer|L3|efficientformer_l3|224
EfficientFormer|L7|efficientformer_l7|224
EfficientNetV2|~S|efficientnetv2_s|384
EfficientNet|B0|efficientnet_b0|224,512
EfficientNet|B1|efficientnet_b1|240
EfficientNet|B3|efficientnet_b3|300
EfficientNet|~B1|efficientnet_b1|240
EfficientNet|~B3|efficientnet_b3|300
EfficientNet|~B4|efficientnet_b4|380
EfficientNet|~B5|efficientnet_b5|456
EfficientViT (MIT)|B1-r224|efficientvit_b1|224
EfficientViT (MIT)|B1-r288|efficientvit_b1|288
EfficientViT (MIT)|B2-r256|efficientvit_b2|256
EfficientViT (MIT)|B3-r224|efficientvit_b3|224
FastViT|MA36|fastvit_ma36|256
FastViT|SA12|fastvit_sa12|256,512
FastViT|SA24|fastvit_sa24|256,512
FastViT|SA36|fastvit_sa36|256
FastViT|T8|fastvit_t8|256
FastViT|~MA36@384|fastvit_ma36|384
FastViT|~SA36@384|fastvit_sa36|384
FasterNet|T0|fasternet_t0|224
FasterNet|T1|fasternet_t1|224
GhostNetV3|1.0x|ghostnetv3_100|224
GhostNetV3|1.3x|ghostnetv3_130|224
GhostNetV3|1.6x|ghostnetv3_160|224
GhostNet|0.5x|ghostnet_050|224
GhostNet|1.0x|ghostnet_100|224
LeViT|256|levit_256|224
LowFormer|B0|lowformer_b0|224
LowFormer|B1.5|lowformer_b15|224
LowFormer|B1|lowformer_b1|224
LowFormer|E1|lowformer_e1|224
LowFormer|E2|lowformer_e2|224
LowFormer|E3|lowformer_e3|224
MNASNet|A1|semnasnet_100|224
MixNet|S|mixnet_s|224
MobileCLIP|MobileCLIP-S1 image encoder (MCi1)|fastvit_mci1|256
MobileCLIP|MobileCLIP/2-B image encoder (ViT-B/16)|vit_base_mci_224|224
MobileCLIP|MobileCLIP/2-S2 image encoder (MCi2)|fastvit_mci2|256
MobileCLIP|MobileCLIP/2-S3 image encoder|fastvit_mci3|256
MobileCLIP|MobileCLIP/2-S4 image encoder|fastvit_mci4|256
MobileCLIP|MobileCLIP/MobileCLIP2-S0 image encoder (MCi0)|fastvit_mci0|256
MobileNetV1|1.0|mobilenetv1_100|224
MobileNetV2|0.5|mobilenetv2_050|224
MobileNetV2|1.0|mobilenetv2_100|224
MobileNetV2|1.4|mobilenetv2_140|224
MobileNetV3|Large 0.75|mobilenetv3_large_075|224
MobileNetV3|Large|mobilenetv3_large_100|224
MobileNetV3|Small 0.75|mobilenetv3_small_075|224
MobileNetV3|Small|mobilenetv3_small_100|224
MobileNetV4|Conv-L|mobilenetv4_conv_large|384
MobileNetV4|Conv-M|mobilenetv4_conv_medium|256
MobileNetV4|Conv-S|mobilenetv4_conv_small|224
MobileNetV4|Hybrid-M|mobilenetv4_hybrid_medium|256
MobileOne|S0|mobileone_s0|224
MobileOne|S1|mobileone_s1|224
MobileOne|S2|mobileone_s2|224
MobileOne|S3|mobileone_s3|224
MobileOne|S4|mobileone_s4|224
NFNet|~F0|dm_nfnet_f0|256
NFNet|~F1|dm_nfnet_f1|320
Next-ViT|L|nextvit_large|224,384
Next-ViT|S|nextvit_small|224,384
PVTv2|B1|pvt_v2_b1|512
PoolFormer|S12|poolformer_s12|224,512
PoolFormer|S24|poolformer_s24|224,512
PoolFormer|S36|poolformer_s36|224
PoolFormer|~M36|poolformer_m36|224
PoolFormer|~M48|poolformer_m48|224
RSB-ResNet|~101|resnet101|224
RSB-ResNet|~152|resnet152|224
RSB-ResNet|~50|resnet50|224
RegNetY|~16GF|regnety_160|224
RepViT|M0.9|repvit_m0_9|224
RepViT|M1.0|repvit_m1_0|224
RepViT|M1.1|repvit_m1_1|224,512
RepViT|M1.5|repvit_m1_5|224,512
RepViT|M2.3|repvit_m2_3|224,512
ResNet|18|resnet18|224,512
ResNet|50|resnet50|224,512
SHViT|S2|shvit_s2|224
SHViT|S4|shvit_s4|256,224
ShuffleNetV2|1.0x|tv.shufflenet_v2_x1_0|224
ShuffleNetV2|1.5x|tv.shufflenet_v2_x1_5|224
ShuffleNetV2|2.0x|tv.shufflenet_v2_x2_0|224
StarNet|050|starnet_s050|224
StarNet|100|starnet_s100|224
StarNet|150|starnet_s150|224
StarNet|S1|starnet_s1|224
StarNet|S2|starnet_s2|224
StarNet|S3|starnet_s3|224
StarNet|S4|starnet_s4|224
SwiftFormer|L1|swiftformer_l1|224
SwiftFormer|L3|swiftformer_l3|224
SwiftFormer|S|swiftformer_s|224
SwiftFormer|XS|swiftformer_xs|224
iFormer|L2|iformer_l2|512
iFormer|M|iformer_m|224,512
iFormer|T|iformer_t|224
"""
WANTED = tuple(
    Wanted(model, variant, definition, tuple(map(int, sizes.split(","))))
    for model, variant, definition, sizes in (line.split("|") for line in _TABLE.splitlines())
)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--packages", type=Path, required=True, help="folder of converted programs")
    parser.add_argument("--only", default="", help="build only networks whose name contains this")
    arguments = parser.parse_args()
    arguments.packages.mkdir(parents=True, exist_ok=True)
    entries: dict[str, dict[str, Any]] = {}
    for wanted in WANTED:
        for size in wanted.sizes:
            name = f"{wanted.definition}{FEATURES if size >= 512 else ''}@{size}"
            package = arguments.packages / f"{name}.mlpackage"
            if not package.exists() and arguments.only in name:
                _convert(wanted.definition, size, package)
            if package.exists():
                entry = entries.setdefault(name, _entry(name, wanted, package))
                entry["published_as"].append([wanted.model, wanted.variant])
    _write(list(entries.values()))
    print(f"wrote {PUBLISHED_NETWORKS.name}: {len(entries)} networks")


def _entry(name: str, wanted: Wanted, package: Path) -> dict[str, Any]:
    program = read_program(package)
    if program.unknown:
        print(f"{name}: unknown operators {program.unknown}")
    counted = Counter(map(row_of, program.ops))
    library = "torchvision" if wanted.definition.startswith("tv.") else "timm"
    return {
        "name": name,
        "published_as": [],
        "definition": f"{library} {version(library)} {wanted.definition.removeprefix('tv.')}",
        "image_size": program.image_size,
        "rows": [[count, *row] for row, count in counted.items()],
    }


def _write(entries: list[dict[str, Any]]) -> None:
    """One line a network: the file stays small, and a change shows in one line."""
    lines = ",\n".join(json.dumps(entry, separators=(",", ":")) for entry in entries)
    head = json.dumps({"columns": COLUMNS})[:-1]
    write_atomically(PUBLISHED_NETWORKS, f'{head}, "networks": [\n{lines}\n]}}\n')


def _convert(definition: str, size: int, package: Path) -> None:
    """Build, convert, save; a network that cannot be is told and skipped."""
    make_torchvision_importable()
    warnings.simplefilter("ignore")
    logging.getLogger("coremltools").setLevel(logging.ERROR)
    import coremltools as ct
    import torch

    try:
        network = _network(definition, size)
        shape = (1, 3, size, size)
        with torch.inference_mode():
            traced = torch.jit.trace(network, torch.zeros(shape), check_trace=False)
        model = ct.convert(
            traced, inputs=[ct.TensorType(name="image", shape=shape)], convert_to="mlprogram",
            minimum_deployment_target=ct.target.iOS15, compute_precision=ct.precision.FLOAT16, skip_model_load=True,
        )  # fmt: skip
    except (RuntimeError, NotImplementedError, ValueError, TypeError, AssertionError) as error:
        print(f"{definition} at {size}: left out ({' '.join(str(error).split())[:120]})")
        return
    with tempfile.TemporaryDirectory(dir=package.parent) as folder:
        written = Path(folder) / package.name
        model.save(str(written))
        weights = written / "Data/com.apple.CoreML/weights/weight.bin"
        if weights.exists():
            weights.write_bytes(b"")
        shutil.move(written, package)
    print(f"{definition} at {size}: converted")


def _network(definition: str, size: int) -> Any:
    """The network ready for inference, with numbers in every weight, so that no operator is dropped as an identity."""
    import timm
    import torch
    import torchvision
    from timm.utils.model import reparameterize_model

    torch.manual_seed(0)
    if definition.startswith("tv."):
        network = getattr(torchvision.models, definition.removeprefix("tv."))()
    else:
        try:
            network = timm.create_model(definition, pretrained=False, img_size=size)
        except TypeError:
            network = timm.create_model(definition, pretrained=False)
    network = reparameterize_model(network.eval())
    if hasattr(network, "fuse"):
        network.fuse()
    _randomise(network)
    return _without_classifier(network) if size >= 512 else network


def _randomise(network: Any) -> None:
    import torch
    from torch import nn

    with torch.no_grad():
        for module in network.modules():
            if getattr(module, "running_mean", None) is not None:
                module.running_mean.uniform_(-0.5, 0.5)
                module.running_var.uniform_(0.5, 1.5)
            if isinstance(module, (nn.Conv2d, nn.Linear)) and module.bias is not None:
                module.bias.uniform_(-0.5, 0.5)
        for parameter in network.parameters():
            # Scales and shifts start as ones and zeros.
            if parameter.numel() == max(parameter.shape, default=1) and parameter.min() == parameter.max():
                parameter.uniform_(0.2, 0.8)


def _without_classifier(network: Any) -> Any:
    from torch import Tensor, nn

    class Features(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, images: Tensor) -> Tensor:
            return self.network.forward_features(images)

    return Features().eval()


if __name__ == "__main__":
    main()
