"""The text of the CoreNet plugin; `corenet.py` fills in the `$names`."""

from string import Template

PLUGIN = Template('''\
"""$name: a MobileViT found by mvit-search, for training in CoreNet. It needs nothing from mvit-search.

Image classification with CoreNet's own parts: $params parameters with $num_classes classes, $macs
multiply-adds for one image of $height x $width px. mvit-search digest of the network:
$digest

1. In the CoreNet checkout, put this file where the model registry looks:

    mkdir -p corenet/internal/projects/$name/modeling/models/classification
    cp $name.py corenet/internal/projects/$name/modeling/models/classification/

2. CoreNet's commands read one list from `corenet.internal` as soon as that folder exists. Unless you have
   an `__init__.py` of your own there:

    echo 'KNOWN_WARNINGS_INTERNAL = []' > corenet/internal/__init__.py

3. Set `dataset.root_train` and `dataset.root_val` in $name.yaml, then:

    corenet-train --common.config-file $name.yaml --common.results-loc results

Dropout rates, normalisation and initialisation come from the recipe ($name.yaml); everything else that
shapes the network stands below and wins over the recipe.
"""

import copy

from torch import nn

from corenet.modeling.layers import ConvLayer2d, Dropout, GlobalPool, LinearLayer
from corenet.modeling.layers.normalization import register_norm_fn
from corenet.modeling.layers.normalization.layer_norm import LayerNorm
from corenet.modeling.models import MODEL_REGISTRY
from corenet.modeling.models.classification.mobilevit import MobileViT
from corenet.modeling.modules import InvertedResidual, MobileViTBlock

NAME = "$name"
ACTIVATION = "$activation"
STEM_CHANNELS = $stem_channels
# layer_1 to layer_5. A "mobilevit" layer is one inverted residual, then one MobileViT block.
STAGES = [
$stages
]
# The 1x1 convolution before pooling.
HEAD_CHANNELS = $head_channels


@register_norm_fn(name=f"token_layer_norm_{NAME}")
class TokenLayerNorm(LayerNorm):
    """Layer norm over the last axis, whatever the sizes.

    CoreNet's LayerNorm takes axis 1 for the channels when it is as long as the channels are many. Tokens
    come as (batch * pixels, patches, channels), so it would normalise over the patches at image sizes
    that give as many patches as `transformer_dim`.
    """

    def forward(self, x):
        return nn.LayerNorm.forward(self, x)


@MODEL_REGISTRY.register(name=NAME, type="classification")
class SearchedMobileViT(MobileViT):
    """MobileViT with the values above; CoreNet's training, checkpoint and export code sees a MobileViT."""

    def __init__(self, opts, *args, **kwargs):
        # MobileViT's own constructor knows three networks by name and one stem, so it is passed over:
        # what it sets up is set up here.
        super(MobileViT, self).__init__(opts, *args, **kwargs)
        opts = copy.copy(opts)
        setattr(opts, "model.activation.name", ACTIVATION)

        self.conv_1 = ConvLayer2d(opts, 3, STEM_CHANNELS, kernel_size=3, stride=2)
        self.model_conf_dict = {"conv1": {"in": 3, "out": STEM_CHANNELS}}
        channels = STEM_CHANNELS
        dilate = {4: self.dilate_l4, 5: self.dilate_l5}
        for number, stage in enumerate(STAGES, start=1):
            layer = self._searched_layer(opts, channels, stage, dilate.get(number, False))
            setattr(self, f"layer_{number}", layer)
            self.model_conf_dict[f"layer{number}"] = {"in": channels, "out": stage["out_channels"]}
            channels = stage["out_channels"]
        self.conv_1x1_exp = ConvLayer2d(opts, channels, HEAD_CHANNELS, kernel_size=1)
        self.model_conf_dict["exp_before_cls"] = {"in": channels, "out": HEAD_CHANNELS}
        self.classifier = nn.Sequential()
        self.classifier.add_module("global_pool", GlobalPool(pool_type="mean", keep_dim=False))
        dropout = getattr(opts, "model.classification.classifier_dropout")
        if 0.0 < dropout < 1.0:
            self.classifier.add_module("dropout", Dropout(p=dropout, inplace=True))
        self.classifier.add_module("fc", LinearLayer(HEAD_CHANNELS, self.n_classes, bias=True))
        self.check_model()
        self.reset_parameters(opts=opts)

    @classmethod
    def add_arguments(cls, parser):
        # The options under model.classification.mit are MobileViT's; it adds them itself.
        return parser

    def _searched_layer(self, opts, channels, stage, dilate):
        stride, dilation = stage["stride"], self.dilation
        if dilate and stride == 2:  # a backbone for segmentation keeps its resolution
            self.dilation *= 2
            stride = 1
        blocks = []
        for _ in range(stage.get("num_blocks", 1)):
            blocks.append(
                InvertedResidual(
                    opts,
                    in_channels=channels,
                    out_channels=stage["out_channels"],
                    stride=stride,
                    expand_ratio=stage["expand_ratio"],
                    dilation=dilation,
                )
            )
            channels, stride = stage["out_channels"], 1
        if stage["kind"] == "mobilevit":
            blocks.append(self._searched_block(opts, stage))
        return nn.Sequential(*blocks)

    @staticmethod
    def _searched_block(opts, stage):
        return MobileViTBlock(
            opts,
            in_channels=stage["out_channels"],
            transformer_dim=stage["transformer_dim"],
            ffn_dim=stage["ffn_dim"],
            n_transformer_blocks=stage["num_layers"],
            head_dim=stage["transformer_dim"] // stage["num_heads"],
            attn_dropout=getattr(opts, "model.classification.mit.attn_dropout"),
            dropout=getattr(opts, "model.classification.mit.dropout"),
            ffn_dropout=getattr(opts, "model.classification.mit.ffn_dropout"),
            patch_h=stage["patch_h"],
            patch_w=stage["patch_w"],
            transformer_norm_layer=f"token_layer_norm_{NAME}",
            conv_ksize=stage["conv_kernel_size"],
            no_fusion=not stage["fusion"],
        )
''')
