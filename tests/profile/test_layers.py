"""The tables of blocks and operators, and the memory alive at each operator."""

import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mvit_search.architecture import PRESETS, ConvStage, MobileViTConfig, operators
from mvit_search.architecture.rows import bytes_read, bytes_written
from mvit_search.architecture.tasks import task_operators
from mvit_search.profile import cost, layer_rows
from mvit_search.profile.cost import cost_of_parts
from mvit_search.profile.layers import alive_bytes, block_name, op_rows
from tests.random_configs import random_config


@given(st.randoms(use_true_random=False))
@settings(max_examples=40, deadline=None)
def test_the_most_bytes_alive_are_the_peak_of_the_costs(rng):
    config = random_config(rng)
    alive = alive_bytes(operators(config), 3 * math.prod(config.image_size))
    assert max(alive) == cost(config).peak_activation_bytes
    assert all(count > 0 for count in alive)


@pytest.mark.parametrize("task", ["detection", "segmentation"])
def test_the_same_holds_of_a_head_that_reads_several_maps(task):
    from mvit_search.architecture.tasks import task_parts

    config = PRESETS["mobilevit-xxs"].with_image_size(320)
    alive = alive_bytes(task_operators(config, task), 3 * math.prod(config.image_size))
    assert max(alive) == cost_of_parts(task_parts(config, task)).peak_activation_bytes


def test_alive_bytes_of_a_chain_by_hand():
    """Stem and one block at 32 px: image, stem map, then hidden maps beside the block's input."""
    config = MobileViTConfig(image_size=(32, 32), stem_channels=8, stages=(ConvStage(out_channels=8),))
    image, stem, hidden = 3 * 32 * 32, 8 * 16 * 16, 32 * 16 * 16
    names = [op.name for op in operators(config)]
    alive = dict(zip(names, alive_bytes(operators(config), image), strict=True))
    assert alive["stem.cast"] == 2 * image
    assert alive["stem.conv"] == 2 * (image + stem)
    assert alive["stem.activation"] == 2 * (2 * stem)
    assert alive["stages.0.blocks.0.expand"] == 2 * (stem + hidden)
    assert alive["stages.0.blocks.0.depthwise"] == 2 * (stem + 2 * hidden)
    assert alive["stages.0.blocks.0.residual"] == 2 * (3 * stem)


@pytest.mark.parametrize("seed", range(20))
def test_blocks_partition_the_table_and_own_their_operators(seed):
    config = random_config(random.Random(seed))
    ops = operators(config)
    first = 0
    for row in layer_rows(ops):
        assert row.first_operator == first
        own = row.own_operators(ops)
        assert [op.name for op in own] == [op.name for op in ops[first : first + row.operators]]
        assert {block_name(op) for op in own} == {row.name}
        assert all(-1 <= source < index for index, op in enumerate(own) for source in op.inputs)
        assert row.output_bytes == 2 * own[-1].elements
        first += row.operators
    assert first == len(ops)


@pytest.mark.parametrize("name", PRESETS)
def test_operators_add_up_to_the_costs(name):
    ops = operators(PRESETS[name])
    rows = op_rows(ops)
    assert sum(row.params for row in rows) == cost(PRESETS[name]).params
    assert sum(row.macs for row in rows) == cost(PRESETS[name]).macs
    assert [row.read_bytes for row in rows] == [bytes_read(op) for op in ops]
    assert [row.written_bytes for row in rows] == [bytes_written(op) for op in ops]


def test_detail_says_kernel_groups_stride_and_dilation():
    config = PRESETS["mobilevit-xs"].with_image_size(512)
    detail = {row.name: row.detail for row in op_rows(task_operators(config, "segmentation"))}
    assert detail["stem.conv"] == "3x3 s2"
    assert detail["stages.0.blocks.0.expand"] == "1x1"
    assert detail["stages.0.blocks.0.depthwise"] == "3x3 depthwise"
    assert detail["stages.1.blocks.0.depthwise"] == "3x3 depthwise s2"
    assert detail["head.aspp.dilated.12"] == "3x3 d12"
    assert detail["stem.activation"] == ""


def test_blocks_of_every_head_have_names_of_their_own():
    config = PRESETS["mobilevit-s"].with_image_size(320)
    for task, some in (
        ("classification", {"head"}),
        ("detection", {"head.maps.64", "head.boxes.16", "head.boxes.pool", "head"}),
        ("segmentation", {"head.aspp", "head"}),
    ):
        names = [row.name for row in layer_rows(task_operators(config, task))]
        assert len(names) == len(set(names))
        assert some <= set(names)
