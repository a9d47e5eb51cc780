"""`mvit-search space` in a real process: what it prints, writes and refuses."""

import json
import subprocess
import sys

import pytest

from mvit_search._files import bundled
from mvit_search.space import load_space, space_names
from mvit_search.space.json_schema import space_schema

MINI = (bundled("search_spaces") / "mobilevit-mini.yaml").read_text()


def space(*arguments: str, cwd=None) -> subprocess.CompletedProcess:
    program = [sys.executable, "-c", "from mvit_search.cli import main; main()", "space", *arguments]
    return subprocess.run(program, cwd=cwd, capture_output=True, text=True, timeout=120)


def fails(message: str, *arguments: str, cwd=None) -> None:
    done = space(*arguments, cwd=cwd)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), done.stderr
    assert done.stderr.startswith("mvit-search: ")
    assert message in done.stderr


def test_list_names_every_space():
    documents = json.loads(space("list", "--json").stdout)
    assert [document["name"] for document in documents] == list(space_names())
    assert all(document["candidates"] > 100 and document["smallest_params"] > 100_000 for document in documents)
    printed = space("list").stdout
    assert "1.1e23" in printed
    assert "2,430" in printed


def test_show_estimates_cost_and_share(tmp_path):
    page = tmp_path / "space.html"
    arguments = ("show", "mobilevit-compound", "--budget", "3M", "--samples", "60", "--html", str(page), "--json")
    document = json.loads(space(*arguments).stdout)
    survey = document["survey"]
    assert survey["draws"] == 60
    for name in ("params", "macs", "latency_ms"):
        assert 0 < survey[name]["low"] <= survey[name]["median"] <= survey[name]["high"]
    share = survey["inside_budget"]
    assert share["low"] < share["share"] == share["inside"] / 60 < share["high"]
    assert all(source.startswith("predicted: iphone12") for source in survey["latency_sources"])
    assert document["image_sizes"][0] == [160, 160]
    assert document["presets"] == ["mobilevit-s"]
    assert "plotly" in page.read_text()
    assert json.loads(space(*arguments).stdout) == document


def test_show_for_people():
    printed = space("show", "mobilevit-patch", "--budget", "3M", "--samples", "50").stdout
    for text in ("network", "xxs, xs, s", "stages.4.patch_h", "192 candidates", "Inside 3.00M parameters: ", "of 50;"):
        assert text in printed
    assert "Latency is predicted: iphone12" in printed


def test_sample_writes_files_that_profile_takes(tmp_path):
    arguments = ("sample", "mobilevit-v2", "-n", "4", "--budget", "3M", "--seed", "7")
    drawn = json.loads(space(*arguments, "--out", str(tmp_path / "drawn"), "--json").stdout)
    assert len({one["digest"] for one in drawn}) == 4
    assert all(one["params"] <= 3_000_000 and one["latency"]["source"] for one in drawn)
    program = [sys.executable, "-c", "from mvit_search.cli import main; main()", "profile", drawn[2]["file"], "--json"]
    profile = json.loads(subprocess.run(program, capture_output=True, text=True, timeout=120).stdout)
    assert (profile["digest"], profile["macs"]) == (drawn[2]["digest"], drawn[2]["macs"])
    again = space(*arguments).stdout
    assert all(f"{one['params']:,}" in again for one in drawn)


def test_sample_of_a_small_space_gives_each_candidate_once(tmp_path):
    path = tmp_path / "tiny.yaml"
    path.write_text(
        "description: four\nimage_size: 64\nstem_channels: 16\nhead_expansion: 2\nactivation: silu\nstages:\n"
        "  - {kind: conv, out_channels: {choices: [16, 24]}, num_blocks: {low: 1, high: 2}, stride: 2,\n"
        "     expand_ratio: 2}\n"
    )
    done = space("sample", str(path), "-n", "9", cwd=tmp_path)
    assert "The space holds no more than these 4." in done.stdout
    assert load_space(str(path)).size() == 4


def test_sample_misses_nothing_of_a_space_that_can_be_listed():
    drawn = json.loads(space("sample", "mobilevit-mini", "-n", "10000", "--json").stdout)
    assert len({one["digest"] for one in drawn}) == len(drawn) == 1296


def test_sample_near_the_smallest_varies_what_costs_nothing():
    """The smallest of `mobilevit` has 284,376 parameters; heads and patches have none."""
    done = space("sample", "mobilevit", "-n", "20", "--budget", "285k", "--json")
    assert len({one["digest"] for one in json.loads(done.stdout)}) == 20


def test_sample_claims_no_more_than_it_knows(tmp_path):
    many = "[16, 17, 18, 19, 20, 21, 22, 23]"
    path = tmp_path / "wide.yaml"
    stage = f"  - {{kind: conv, out_channels: {{choices: {many}}}, num_blocks: 1, stride: 1, expand_ratio: 2}}\n"
    head = "description: wide\nimage_size: 64\nstem_channels: 16\nhead_expansion: 2\nactivation: silu\nstages:\n"
    path.write_text(head + stage * 6)
    smallest = json.loads(space("check", str(path), "--json").stdout)["smallest_params"]
    printed = space("sample", str(path), "-n", "5", "--budget", str(smallest)).stdout
    assert "No further distinct candidate in 200 draws" in printed


def test_an_assignment_holds_what_takes_part(tmp_path):
    text = MINI.replace(
        "num_heads: {choices: [2, 4]}",
        "attention: {choices: [softmax, separable]}\n"
        "    num_heads: {choices: [2, 4], when: {attention: softmax}, otherwise: 1}",
        1,
    )
    (tmp_path / "mine.yaml").write_text(text)
    drawn = json.loads(space("sample", "mine.yaml", "-n", "20", "--json", cwd=tmp_path).stdout)
    for one in drawn:
        stage, assignment = one["config"]["stages"][2], one["assignment"]
        assert assignment["stages.2.attention"] == stage["attention"]
        assert assignment.get("stages.2.num_heads", 1) == stage["num_heads"]
    assert len({len(one["assignment"]) for one in drawn}) == 2


def test_sample_replaces_files_only_if_told(tmp_path):
    arguments = ("sample", "mobilevit-mini", "-n", "2", "--out", "drawn")
    assert space(*arguments, cwd=tmp_path).returncode == 0
    before = (tmp_path / "drawn" / "mobilevit-mini-1.json").read_text()
    fails("--out 'drawn/mobilevit-mini-0.json': exists; choose", *arguments, "--seed", "1", cwd=tmp_path)
    assert (tmp_path / "drawn" / "mobilevit-mini-1.json").read_text() == before
    assert space(*arguments, "--seed", "1", "--force", cwd=tmp_path).returncode == 0
    assert (tmp_path / "drawn" / "mobilevit-mini-1.json").read_text() != before


def test_only_extrapolated_sizes_are_counted():
    """Of the six sizes one, 256, is fitted."""
    printed = space("show", "mobilevit-compound", "--samples", "100").stdout
    assert "likewise at 4 other image sizes." in printed


def test_check_and_schema(tmp_path):
    (tmp_path / "mine.yaml").write_text(MINI)
    done = space("check", "mine.yaml", "--budget", "200k", "--samples", "50", cwd=tmp_path)
    assert done.returncode == 0
    assert "mine.yaml: fine, 1,296 candidates" in done.stdout
    assert "Inside 200.0" in done.stdout or "Inside 200k" in done.stdout
    assert json.loads(space("schema").stdout) == space_schema()
    # The presets halve an image five times, this space four times.
    (tmp_path / "small.yaml").write_text(MINI.replace("[64, 64]", "16"))
    assert space("check", "small.yaml", cwd=tmp_path).returncode == 0


@pytest.mark.parametrize(
    ("message", "arguments"),
    [
        ("did you mean 'mobilevit", ("show", "mobilevit-patsch")),
        ("mine.yaml:25: stages.2.num_head: unknown key; did you mean 'num_heads'?", ("check", "mine.yaml")),
        ("mine.yaml:25: stages.2.num_head: unknown key", ("show", "mine.yaml")),
        ("--budget 'lots': is not a number above zero", ("check", "mobilevit", "--budget", "lots")),
        ("the smallest reachable is 284,376 parameters", ("check", "mobilevit", "--budget", "100k")),
        ("the smallest reachable is 284,376 parameters", ("sample", "mobilevit", "--budget", "100k")),
        ("did you mean 'iphone1", ("show", "mobilevit", "--target", "iphone21")),
        ("--target 'cpu-torch': measures", ("show", "mobilevit", "--target", "cpu")),
        ("--out 'mine.yaml/x': cannot be written", ("sample", "mobilevit-mini", "-n", "1", "--out", "mine.yaml/x")),
        ("--html 'mine.yaml/x': must end in .html", ("show", "mobilevit-mini", "--html", "mine.yaml/x")),
        ("--html 'no/x.html': is in a folder that does not exist", ("show", "mobilevit-mini", "--html", "no/x.html")),
        ("--target 'cpu-torch': measures", ("sample", "mobilevit", "--target", "cpu")),
        ("--out '': is no folder", ("sample", "mobilevit-mini", "--out", "")),
        ("add --budget", ("check", "mobilevit", "--samples", "50")),
        ("--num-classes", ("sample", "mobilevit", "--num-classes", "1000001")),
        ("--samples", ("show", "mobilevit", "--samples", "0")),
    ],
)
def test_bad_input_is_one_line(tmp_path, message, arguments):
    (tmp_path / "mine.yaml").write_text(MINI.replace("num_heads:", "num_head:", 1))
    fails(message, *arguments, cwd=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.yaml"]


def test_no_torch_is_loaded(tmp_path):
    code = (
        "import sys; sys.argv = ['mvit-search', 'space', 'show', 'mobilevit-mini', '--budget', '6M', '--samples', '20',"
        f" '--html', {str(tmp_path / 'x.html')!r}]\nfrom mvit_search.cli import main\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert not end.code, end.code\n"
        "heavy = {'torch', 'coremltools', 'sklearn', 'optuna'} & sys.modules.keys()\nassert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
