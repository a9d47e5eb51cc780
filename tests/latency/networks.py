"""A network small enough to be written and timed in a moment, and a protocol as short."""

from mvit_search.architecture import ConvStage, MobileViTConfig, MobileViTStage
from mvit_search.latency import TimingSettings

TINY = MobileViTConfig(
    image_size=(32, 32),
    stages=(ConvStage(out_channels=8), MobileViTStage(out_channels=16, transformer_dim=16, num_layers=1)),
)
SHORT = TimingSettings(warmup=1, min_runs=3, max_seconds=0)
