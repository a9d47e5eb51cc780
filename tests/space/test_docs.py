"""Every example of docs/spaces.md loads as it stands there."""

import random
import re
from pathlib import Path

import pytest
import yaml

from mvit_search.space import SearchSpace, load_space, space_names
from mvit_search.space.schema import SpaceSpec

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "spaces.md").read_text()
EXAMPLES = re.findall(r"^```yaml\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
WHOLE, PARTS = EXAMPLES[0], EXAMPLES[1:]


def test_the_whole_file_loads(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(WHOLE)
    space = load_space(str(path))
    assert space.config(space.draw(random.Random(0))) in space


@pytest.mark.parametrize("example", PARTS)
def test_a_part_works_in_place_of_what_the_whole_file_says(example):
    """Top-level keys stand at the top, all others in the last stage, which is stage 2 here."""
    data, part = yaml.safe_load(WHOLE), yaml.safe_load(example)
    data["stages"].insert(0, {**data["stages"][0], "stride": 1})
    for key, value in part.items():
        (data if key in ("knobs", "image_size") else data["stages"][2])[key] = value
    if "num_heads" not in part:
        data["stages"][2]["num_heads"] = 4
    space = SearchSpace("example", SpaceSpec.model_validate(data))
    for seed in range(5):
        params = space.draw(random.Random(seed))
        assert space.params(space.config(params)) == params


def test_the_table_lists_every_space_with_its_size():
    rows = dict(re.findall(r"^\| `([a-z0-9-]+)` \| ([0-9.,e]+) \|", PAGE, re.MULTILINE))
    assert set(rows) == set(space_names())
    for name, size in rows.items():
        assert float(size.replace(",", "")) == pytest.approx(load_space(name).size(), rel=0.02)
