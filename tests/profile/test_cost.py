import math
import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mvit_search.architecture import PRESETS, ConvStage, MobileViTConfig, operators
from mvit_search.architecture.network import MobileViT
from mvit_search.architecture.rows import KINDS, VIEWS, bytes_read, bytes_written
from mvit_search.profile import cost, layer_rows
from mvit_search.profile.memory import peak_elements
from mvit_search.profile.verify import verify
from tests.random_configs import random_config


@pytest.mark.parametrize(
    ("name", "params", "macs"),
    [
        ("mobilevit-xxs", 1_272_024, 407_364_096),
        ("mobilevit-xs", 2_317_848, 1_025_911_808),
        ("mobilevit-s", 5_578_632, 2_000_831_488),
    ],
)
def test_presets_cost_what_the_published_networks_do(name, params, macs):
    found = cost(PRESETS[name])
    assert (found.params, found.macs) == (params, macs)


@pytest.mark.parametrize("name", PRESETS)
def test_presets_pass_the_cross_check(name):
    assert verify(PRESETS[name]).ok


@pytest.mark.parametrize("seed", range(10))
def test_shapes_are_those_of_the_modules(seed):
    """Every convolution, linear and norm of the built network hands on the shape its row says."""
    config = random_config(random.Random(1000 + seed))
    model = MobileViT(config, 7).eval()
    seen: list[tuple[int, ...]] = []

    def note(_module, _inputs, output):
        # Tokens fold the batch of one into their first axis; maps and logits carry it apart.
        seen.append(tuple(output.shape) if output.ndim == 3 else tuple(output.shape[1:]))

    for module in model.modules():
        if isinstance(module, (torch.nn.Conv2d, torch.nn.Linear, torch.nn.LayerNorm)):
            module.register_forward_hook(note)
    model(torch.zeros(1, 3, *config.image_size))
    rows = [op for op in operators(config, 7) if op.kind in ("conv", "linear", "layer_norm")]
    assert [op.shape for op in rows] == seen


def test_table_8_of_the_paper():
    """MobileViT-XS at 224 px, fp16: 784/294/98/31/37 KiB, rounded there."""
    table = cost(PRESETS["mobilevit-xs"].with_image_size(224)).memory_by_stride_kib
    assert table == {2: 784.0, 4: 294.0, 8: 98.0, 16: 30.625, 32: 36.75}


def test_peak_memory_of_a_chain_by_hand():
    """Stem and one residual block at 32 px: the peak is where the block's input, and both hidden maps, are alive."""
    config = MobileViTConfig(
        image_size=(32, 32), stem_channels=8, stages=(ConvStage(out_channels=8, expand_ratio=4, stride=1),)
    )
    entry, hidden = 8 * 16 * 16, 32 * 16 * 16
    assert cost(config).peak_activation_bytes == 2 * (entry + 2 * hidden)


@given(st.randoms(use_true_random=False))
@settings(max_examples=30, deadline=None)
def test_peak_memory_equals_a_simulation_that_frees_tensors(rng):
    config = random_config(rng)
    assert cost(config).peak_activation_bytes == 2 * _simulate(operators(config))


def _simulate(ops):
    """Reference: run the table with reference-counted buffers."""
    readers = {index: sum(op.inputs.count(index) for op in ops) for index in range(-1, len(ops))}
    root = {-1: -1}
    sizes = {-1: 3 * ops[0].in_shape[1] * ops[0].in_shape[2]}
    references = {-1: readers[-1]}
    alive, peak = sizes[-1], sizes[-1]
    for index, op in enumerate(ops):
        if op.kind in VIEWS:
            root[index] = root[op.inputs[0]]
            references[root[index]] += readers[index]
        else:
            root[index], sizes[index], references[index] = index, op.elements, readers[index]
            alive += op.elements
            peak = max(peak, alive)
        for source in op.inputs:
            references[root[source]] -= 1
        for buffer in [b for b, count in references.items() if count == 0]:
            alive -= sizes[buffer]
            del references[buffer]
    return peak


@given(st.randoms(use_true_random=False))
@settings(max_examples=30, deadline=None)
def test_the_table_is_a_graph_in_order_and_blocks_partition_it(rng):
    config = random_config(rng)
    ops = operators(config)
    for index, op in enumerate(ops):
        assert op.kind in KINDS
        assert all(-1 <= source < index for source in op.inputs)
        assert op.in_shape == (ops[op.inputs[0]].shape if op.inputs[0] >= 0 else (3, *config.image_size))
        if op.kind == "reshape":
            assert op.elements == ops[op.inputs[0]].elements
    rows = layer_rows(ops)
    assert sum(row.params for row in rows) == cost(config).params
    assert sum(row.macs for row in rows) == cost(config).macs
    assert sum(row.operators for row in rows) == len(ops)
    assert len({row.name for row in rows}) == len(rows)


@given(st.randoms(use_true_random=False))
@settings(max_examples=60, deadline=None)
def test_costs_summed_part_by_part_are_those_of_the_whole_table(rng):
    config = random_config(rng)
    found, ops = cost(config), operators(config)
    assert found.params == sum(op.params for op in ops)
    assert found.macs == sum(op.macs for op in ops)
    assert found.weight_bytes == 2 * sum(op.weights for op in ops)
    assert found.peak_activation_bytes == 2 * peak_elements(ops, (3 * math.prod(config.image_size),), (False,))
    by_stride = {}
    for op in ops:
        if op.block_output:
            by_stride[op.stride] = max(by_stride.get(op.stride, 0), 2 * op.elements / 1024)
    assert found.memory_by_stride_kib == dict(sorted(by_stride.items()))


def test_bytes_moved_by_hand():
    """The stem at 32 px: image 3x32x32 and weights in, 8x16x16 out, then an activation over that map."""
    config = MobileViTConfig(image_size=(32, 32), stem_channels=8, stages=(ConvStage(out_channels=8),))
    ops = operators(config)
    assert bytes_read(ops[1]) == 2 * (3 * 32 * 32 + 3 * 8 * 9 + 8)
    assert bytes_written(ops[1]) == 2 * 8 * 16 * 16
    stem = layer_rows(ops)[0]
    assert stem.moved_bytes == bytes_read(ops[1]) + bytes_written(ops[1]) + 2 * (2 * 8 * 16 * 16)
    reshapes = [op for op in operators(PRESETS["mobilevit-xs"]) if op.kind == "reshape"]
    assert all(bytes_read(op) == bytes_written(op) == 0 for op in reshapes)


def test_weights_are_params_less_one_number_per_folded_channel():
    config = PRESETS["mobilevit-s"]
    norms = sum(m.num_features for m in MobileViT(config).modules() if isinstance(m, torch.nn.BatchNorm2d))
    found = cost(config)
    assert found.weight_bytes == 2 * (found.params - norms)
