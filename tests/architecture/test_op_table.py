"""The operator table against the network it stands for: 200 random configs over every dimension.

Parameters are the built module's; MACs are fvcore's and those of torch's own counter, each found on its own.
"""

import random

import pytest

from mvit_search.architecture import MobileViTConfig
from mvit_search.profile.verify import verify
from tests.random_configs import random_config

COUNT = 200
OUTPUT_STRIDES = (None, 8, 16, 32)


def case(seed: int) -> tuple[MobileViTConfig, int, int | None]:
    """A config, a class count and an output stride."""
    rng = random.Random(seed)
    return random_config(rng, max_image=48), rng.randint(1, 20), rng.choice(OUTPUT_STRIDES)


@pytest.mark.parametrize("seed", range(COUNT))
def test_params_equal_the_module_and_macs_equal_fvcore_and_torch(seed: int) -> None:
    config, classes, output_stride = case(seed)
    found = verify(config, classes, output_stride=output_stride)
    assert found.params == found.params_module
    assert found.macs == found.macs_fvcore
    assert found.macs == found.macs_torch
    assert found.ok
