"""Files that people get wrong, and files that are meant to do harm: one line that says where, and quickly."""

import json
import os
import random
import re
import time
from itertools import pairwise
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from mvit_search._files import bundled
from mvit_search.errors import InputError
from mvit_search.space import SearchSpace, load_space, read_document, read_yaml, space_names

MINI = (bundled("search_spaces") / "mobilevit-mini.yaml").read_text()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("num_heads:", "num_head:", "stages.2.num_head: unknown key; did you mean 'num_heads'?"),
        ("{choices: [2, 4]}", "{choice: [2, 4]}", "stages.2.num_heads.choice: unknown key; did you mean 'choices'?"),
        ("{choices: [2, 4]}", "{choices: []}", "stages.2.num_heads.choices: must have at least 1 item"),
        ("{choices: [2, 4]}", "{choices: [2, 2]}", "choices must not repeat"),
        ("{choices: [2, 4]}", "{choices: [2, 5]}", "transformer_dim 32 must be divisible by num_heads 5"),
        ("{choices: [2, 4]}", "{low: 4, high: 2}", "high 2 must not be below low 4"),
        ("{choices: [2, 4]}", "{low: 2, high: 5, step: 2}", "step 2 must divide high - low = 3"),
        ("{choices: [2, 4]}", "{low: 2}", "stages.2.num_heads.high: is required"),
        ("{choices: [2, 4]}", "{low: 1, high: 100000}", "at most 1000 values"),
        ("{choices: [2, 4]}", "two", "num_heads 'two': input should be a valid integer"),
        ("activation: silu", "activation: gelu", "activation 'gelu'"),
        (
            "num_blocks:",
            "num_layers:",
            "stages.0.num_layers: a conv stage has no num_layers; it has kind, out_channels,",
        ),
        ("image_size: [64, 64]", "image_size: [64, 64, 64]", "mine.yaml:4: image_size: must be height and width"),
        ("stem_channels: 16", "stem_channels: 016", "016 starts with a zero; write 16, or quote it"),
        ("stem_channels: 16", "stem_channels: 08", "08 starts with a zero; write 8, or quote it"),
        ("stem_channels: 16", "stem_channels: 1:30", "1:30 is no plain number; write it in full, or quote it"),
        ("stem_channels: 16", "stem_channels: 1:30.5", "1:30.5 is no plain number"),
        ("stem_channels: 16", "stem_channels: 1" + "0" * 5000, "an integer of more than 18 digits"),
        ("stem_channels: 16", "stem_channels: 1e9", "must be a number between"),
        (
            "image_size: [64, 64]",
            "image_size: [64]",
            "image_size: must be height and width in pixels, as [256, 256], or one number",
        ),
        ("kind: conv", "kind: convolution", "kind 'convolution': must be 'conv' or 'mobilevit'"),
        ("stem_channels: 16", "stem_channels: 16\nstem_channels: 8", "the key 'stem_channels' is given twice"),
        ("stem_channels: 16", "stem_channels: [16", "is not valid YAML"),
        ("stem_channels: 16", "stem_channels: !!python/object/apply:os.system ['true']", "is not valid YAML"),
        (MINI, "", "must be a mapping"),
        (MINI, "- a\n- b\n", "must be a mapping"),
    ],
)
def test_a_broken_file_is_one_line_that_names_file_and_field(tmp_path, old, new, message):
    path = tmp_path / "mine.yaml"
    path.write_text(MINI.replace(old, new, 1))
    with pytest.raises(InputError) as caught:
        load_space(str(path))
    assert message in str(caught.value)
    assert "mine.yaml" in str(caught.value)
    assert "\n" not in str(caught.value)


COMPOUND = (bundled("search_spaces") / "mobilevit-compound.yaml").read_text()
PATCH = (bundled("search_spaces") / "mobilevit-patch.yaml").read_text()


@pytest.mark.parametrize(
    ("text", "old", "new", "message"),
    [
        (COMPOUND, "{knob: width, times: 32", "{knob: widht, times: 32", "unknown knob; did you mean 'width'?"),
        (COMPOUND, "knobs:", "knobs:\n  heads: {choices: [2, 4]}", "knobs.heads: nothing follows this knob"),
        (COMPOUND, "  width: ", "  activation: ", "'activation' is the name of a field"),
        (COMPOUND, "  width: ", "  my width: ", "letters, digits and underscores"),
        (COMPOUND, "times: 32, divisor: 8", "time: 32, divisor: 8", "stages.0.out_channels.time: unknown key"),
        (COMPOUND, "times: 32, divisor: 8", "times: 33", "stages.0.out_channels 13.2: input should be a valid integer"),
        (COMPOUND, "times: 32, divisor: 8", "times: 320000, divisor: 8", "less than or equal to 8192"),
        (COMPOUND, "{knob: width, times: 32", "{knob: width, times: -32", "-12.8: comes of width 0.4: must be above"),
        (COMPOUND, "times: 32", "field: stem_channels, times: 32", "a tie names one knob or one field"),
        (COMPOUND, "times: 2, divisor: 1", "table: {1.0: 2}", "num_layers.table: has no entry for the depth 0.5"),
        (COMPOUND, "divisor: 1}", "divisor: 1, table: {1: 1}}", "a table or a formula (times, plus, divisor)"),
        (COMPOUND, "num_heads: 4", "num_heads: 5", "num_heads: transformer_dim 56 must be divisible by num_heads 5"),
        (COMPOUND, "low: 160", "low: 0", "image_size 0: input should be greater than or equal to 16"),
        (COMPOUND, "low: 160", "low: 160, when: {width: 1.0}, otherwise: 256", "a knob is free: it has no condition"),
        (PATCH, "s: 32}}", "s: 32, l: 48}}", "stages.0.out_channels.table 'l': network never has that value"),
        (PATCH, "{field: patch_h}", "{field: patch_w}", "is tied in a circle: stages.2.patch_w -> stages.2.patch_w"),
        (PATCH, "{field: patch_h}", "{field: path_h}", "unknown field; did you mean 'patch_h'?"),
        (PATCH, "{field: patch_h}", "{field: stages.9.patch_h}", "unknown field; did you mean 'stages."),
        (PATCH, "table: {xxs: 16, xs: 32, s: 32}", "times: 2", "a formula follows numbers alone; use a table"),
        (PATCH, "num_layers: 2", "num_layers: {choices: [1], when: {netwrk: s}, otherwise: 2}", "mean 'network'"),
        (PATCH, "num_layers: 2", "num_layers: {choices: [1], when: {network: m}, otherwise: 2}", "network never has"),
        (PATCH, "num_layers: 2", "num_layers: {choices: [1], when: {network: s}}", "`when` and `otherwise` go"),
        (PATCH, "num_layers: 2", "num_layers: {low: 1, high: 3, when: {num_layers: 2}, otherwise: 2}", "in a circle"),
        (PATCH, "num_layers: 2", "num_layers: {choices: [.nan]}", "must be a number between"),
        (PATCH, "num_layers: 2", "num_layers: [1, 2]", "must be a number, a word, true or false"),
        (PATCH, "num_layers: 2", "num_layers: 123456789012345678901", "an integer of more than 18 digits"),
        (PATCH, "num_layers: 2", "num_layers: &a [*a]", "an alias stands inside of what it names"),
        (PATCH, "num_layers: 2", "num_layers: !!int [1]", "is not valid YAML"),
        (PATCH, "num_layers: 2", "num_layers: 65", "stages.2.num_layers 65: input should be less than or equal to 64"),
    ],
)  # fmt: skip
def test_a_broken_tie_or_condition_is_one_line(tmp_path, text, old, new, message):
    path = tmp_path / "mine.yaml"
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(InputError) as caught:
        load_space(str(path))
    assert message in str(caught.value)
    assert re.match(r"space mine\.yaml:\d+: |space '.*mine\.yaml:\d+:\d+': ", str(caught.value))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "line_of"),
    [
        ("num_heads: {choices: [2, 4]}", "num_head: {choices: [2, 4]}", "num_head:"),
        ("num_heads: {choices: [2, 4]}", "num_heads: {choices: [2, 5]}", "num_heads: {choices: [2, 5]}"),
        ("activation: silu", "activation: gelu", "activation: gelu"),
        ("    num_heads: {choices: [2, 4]}\n", "", "- kind: mobilevit"),
        ("image_size: [64, 64]", "image_size: [64]", "image_size:"),
    ],
)
def test_the_line_is_the_one_to_mend(tmp_path, old, new, line_of):
    path = tmp_path / "mine.yaml"
    path.write_text(MINI.replace(old, new, 1))
    lines = path.read_text().splitlines()
    expected = next(number for number, line in enumerate(lines, 1) if line_of in line)
    with pytest.raises(InputError, match=rf"mine\.yaml:{expected}: "):
        load_space(str(path))


def test_a_document_knows_its_lines(tmp_path):
    path = tmp_path / "any.yaml"
    path.write_text("a: 1\nb:\n  - c: 2\n    d: 3\n  - 4\n")
    document = read_document(path, "config")
    places = {"": 1, "a": 1, "b": 2, "b.0": 3, "b.0.d": 4, "b.1": 5, "b.0.missing": 3, "b.7": 2, "zzz": 1}
    assert {field: document.line_of(field) for field in places} == places
    assert read_yaml(path, "config") == {"a": 1, "b": [{"c": 2, "d": 3}, 4]}


def test_anchors_and_merge_keys_work(tmp_path):
    path = tmp_path / "mine.yaml"
    stage = MINI.split("  - kind: mobilevit")[1]
    path.write_text(MINI + "  - &wide\n    kind: mobilevit" + stage + "  - {<<: *wide, stride: 1}\n")
    space = load_space(str(path))
    assert space.spec.stages[5].stride.values() == (1,)
    assert space.spec.stages[5].out_channels == space.spec.stages[4].out_channels


def _doubling(first: str, each: str) -> str:
    names = "abcdefghijklmno"
    return f"a: &a {first}\n" + "".join(
        f"{new}: &{new} {each.format(','.join([f'*{old}'] * 9))}\n" for old, new in pairwise(names)
    )


_MANY = "  - kind: conv\n    out_channels: {low: 1, high: 1000}\n    num_blocks: {low: 1, high: 64}\n    stride: 1\n"
HARM = {
    "an alias bomb": _doubling("[1, 1]", "[{}]"),
    "a merge bomb": _doubling("{x: 1}", "{{<<: [{}]}}"),
    "megabytes": "a: " + "b" * 3_000_000,
    "deep lists": "[" * 60_000,
    "deep mappings": "{a: " * 15_000,
    "deep blocks": "- " * 30_000,
    "a long quote": '"' + "a" * 60_000,
    "many tags": "!" * 60_000,
    "many digits": "a: " + "9" * 60_000,
    "many hex digits": "a: 0x" + "f" * 60_000,
    "many keys": "".join(f"k{i}: 1\n" for i in range(6000)),
    "terminal codes": 'description: x\n"\\e[31m\\a": 1\n',
    "half a character": 'description: "\\ud800"\n',
    "a null byte": "description: \0\n",
    "a large space": MINI.replace("stages:\n", "stages:\n" + (_MANY + "    expand_ratio: 1\n") * 12),
    "too many stages": MINI.replace("stages:\n", "stages:\n" + (_MANY + "    expand_ratio: 1\n") * 14),
    "many combinations": MINI.replace("{choices: [32, 48, 64]}", "{low: 64, high: 6336, step: 64}")
    .replace("{choices: [2, 4]}", "{choices: [1, 2, 4, 8, 16, 32, 64]}")
    .replace("{choices: [1.0, 2.0]}", "{low: 1, high: 16}"),
    "knobs in conditions": COMPOUND.replace("knobs:", "knobs:\n  a: {low: 1, high: 500}\n  b: {low: 1, high: 500}")
    .replace("expand_ratio: 4", "expand_ratio: {choices: [2, 3], when: {a: 7, b: 9}, otherwise: 4}", 1),
}  # fmt: skip


@pytest.mark.parametrize("what", HARM)
def test_harm_is_refused_or_loaded_in_a_moment(tmp_path, what):
    path = tmp_path / "harm.yaml"
    path.write_text(HARM[what], encoding="utf-8")
    start = time.perf_counter()
    _is_a_space_or_one_line(path)
    # An idle machine needs at most 1.3 s.
    assert time.perf_counter() - start < 8


@pytest.mark.parametrize("path", ["/dev/zero", "/dev/null", "/", "\0.yaml/"])
def test_what_is_no_file(path):
    with pytest.raises(InputError, match=r"is not a file|is a folder|cannot be read|embedded null"):
        load_space(path if "/" in path else f"{path}/")


def _is_a_space_or_one_line(path: Path) -> None:
    try:
        space = load_space(str(path))
    except InputError as error:
        message = str(error)
    else:
        _works(space)
        return
    assert message.isprintable()
    assert len(message) < 1500


def _works(space: SearchSpace) -> None:
    rng = random.Random(0)
    for _ in range(2):
        params = space.draw(rng)
        assert space.params(space.config(params)) == params
        space.config(space.scaled(params, 0.5))
    assert space.size() >= 1
    assert space.smallest() in space
    assert len(space.digest()) == 64


def test_an_image_below_the_total_stride_names_file_and_line(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(MINI.replace("[64, 64]", "16").replace("stride: 1", "stride: 2"))
    with pytest.raises(InputError, match=r"mine\.yaml:4: image_size.*: is below the total stride .*, 32 px"):
        load_space(str(path))


def test_numbers_are_those_of_yaml_1_2(tmp_path):
    path = tmp_path / "any.yaml"
    path.write_text("[1e9, 1.6e1, -2E-3, .5e1, 10, 0, 0.5, 0x1f, '012', 1.5, .inf]")
    assert read_yaml(path, "config") == [1e9, 16.0, -0.002, 5.0, 10, 0, 0.5, 31, "012", 1.5, float("inf")]


@pytest.mark.parametrize("name", ["mine.json", "MINE.JSON", "MINE.YAML"])
def test_a_space_may_be_json_and_in_capitals(tmp_path, name):
    path = tmp_path / name
    path.write_text(json.dumps(yaml.safe_load(MINI), indent="\t" if name == "mine.json" else 1))
    assert load_space(str(path)).digest() == load_space("mobilevit-mini").digest()


def test_a_file_of_another_suffix_is_told_so(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("base.toml").touch()
    with pytest.raises(InputError, match=r"space 'base\.toml': must end in \.yaml, \.yml or \.json"):
        load_space("base.toml")


JSON_HARM = {
    "no JSON": ("{'a': 1}", r"harm\.json:1:2': is not valid JSON"),
    "a key twice": ('{"stages": 1, "stages": 2}', "is not valid JSON: the key 'stages' is given twice"),
    "many digits": (f'{{"a": {"9" * 9000}}}', "an integer of more than 18 digits$"),
    "deep": ("[" * 60_000, "is nested too deeply"),
    "megabytes": ('"' + "a" * 3_000_000 + '"', "is larger than 64 KiB"),
    "nothing": ("", "is not valid JSON"),
}


@pytest.mark.parametrize("what", JSON_HARM)
def test_json_is_read_as_carefully(tmp_path, what):
    path = tmp_path / "harm.json"
    text, message = JSON_HARM[what]
    path.write_text(text)
    with pytest.raises(InputError, match=message) as caught:
        read_document(path, "config")
    assert str(caught.value).isprintable()


def test_a_pipe_or_a_folder_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.json")
    (tmp_path / "folder.json").mkdir()
    with pytest.raises(InputError, match="is not a file"):
        read_document(tmp_path / "pipe.json", "config")
    with pytest.raises(InputError, match="is a folder, not a file"):
        read_document(tmp_path / "folder.json", "config")


@given(st.text(max_size=200))
@settings(max_examples=100)
def test_any_text_is_a_space_or_an_input_error(tmp_path_factory, text):
    path = tmp_path_factory.mktemp("space") / "any.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InputError):
        load_space(str(path))


TEXTS = [(bundled("search_spaces") / f"{name}.yaml").read_text() for name in space_names()]
TEXTS.append(
    MINI.replace(
        "num_heads: {choices: [2, 4]}",
        "attention: {choices: [softmax, separable]}\n"
        "    num_heads: {choices: [2, 4], when: {attention: softmax}, otherwise: 1}",
    )
)
SCALARS = [
    "0", "-1", "1e400", ".nan", ".inf", "null", "[]", "{}", "true", "9" * 5000, "!!int [1]", "!!float ''",
    "!!timestamp x", "!!python/object:os.x {}", "&a [*a]", "*a", "&a 3", "2020-99-99", "!!binary x", "!!set {a, b}",
    "? [a]", "{[1]: 2}", "{1: 2}", "{when: 3}", "{knob: width}", "{field: patch_h}", "{field: stages.0.stride}",
    "{choices: [1], when: {attention: softmax}, otherwise: 3}", "{low: 1, high: 9999999}", "{knob: [1]}",
    "{field: out_channels, times: 1e300}", "{field: out_channels, times: 0.5}", '"\\ud800"', "1:30:30", "<<", "=",
    "{choices: {a: b}}", "{low: 1, high: 4, when: {width: 0.4}, otherwise: 2}", "{knob: depth, table: {1: 2}}",
    "{knob: network, table: {xxs: 1, xs: 2, s: 1}}", "{field: num_heads, when: {stride: 2}, otherwise: 4}",
]  # fmt: skip
WORDS = ("choices", "low", "knob", "field", "times", "table", "when", "kind", "stages", "num_heads", "softmax")


@st.composite
def mutations(draw: st.DrawFn) -> str:
    """A file that ships, a few of its lines changed as people and accidents change them."""
    lines = draw(st.sampled_from(TEXTS)).split("\n")
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(lines) - 1))
        how = draw(st.sampled_from(("delete", "double", "scalar", "indent", "tag", "insert", "number", "word")))
        line = lines[at]
        if how == "delete" and len(lines) > 1:
            del lines[at]
        elif how == "double":
            lines.insert(draw(st.integers(0, len(lines))), line)
        elif how == "scalar" and ":" in line:
            lines[at] = f"{line.split(':', 1)[0]}: {draw(st.sampled_from(SCALARS))}"
        elif how == "indent":
            lines[at] = " " * draw(st.integers(0, 6)) + line.lstrip()
        elif how == "tag":
            lines[at] = line.replace(": ", ": " + draw(st.sampled_from(("!!int ", "&x ", "*x ", "!foo ", "!!seq "))), 1)
        elif how == "insert":
            cut = draw(st.integers(0, len(line)))
            lines[at] = line[:cut] + draw(st.sampled_from("[]{}:,#&*!|>'\"%@`-?\0\t\u2028é")) + line[cut:]
        elif how == "number" and (numbers := re.findall(r"\d+", line)):
            new = draw(st.sampled_from(("0", "1", "3", "17", "100000", "-5", "1.5", "8192", "64")))
            lines[at] = line.replace(draw(st.sampled_from(numbers)), new, 1)
        elif how == "word":
            lines[at] = line.replace(draw(st.sampled_from(WORDS)), draw(st.sampled_from((*WORDS, "choises", "x"))), 1)
    return "\n".join(lines)


@given(mutations())
@example(COMPOUND.replace("divisor: 8", "divisor: 32"))
@settings(max_examples=250, suppress_health_check=[HealthCheck.too_slow])
def test_a_changed_file_is_a_space_or_one_line(tmp_path_factory, text):
    path = tmp_path_factory.getbasetemp() / "changed.yaml"
    path.write_text(text, encoding="utf-8")
    start = time.perf_counter()
    _is_a_space_or_one_line(path)
    assert time.perf_counter() - start < 5
