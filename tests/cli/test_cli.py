"""The command line as a user meets it: a real process, exit codes, stdout and stderr."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from mvit_search.architecture import PRESETS


def cli(*arguments: str, cwd=None, timeout=120) -> subprocess.CompletedProcess:
    program = [sys.executable, "-c", "from mvit_search.cli import main; main()", *arguments]
    return subprocess.run(program, cwd=cwd, capture_output=True, text=True, timeout=timeout)


def fails(message: str, *arguments: str, cwd=None) -> None:
    """Exit code 2, one line on stderr that says `message`, nothing on stdout."""
    done = cli(*arguments, cwd=cwd)
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert message in done.stderr
    assert done.stderr.startswith("mvit-search: ")


QUICK = ("--space", "mobilevit-mini", "--epochs", "1", "--trials", "5", "--final-seeds", "1", "--threads", "1")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A real run on the built-in digits, and where it was made; candidate 0 is MobileViT-XXS."""
    cwd = tmp_path_factory.mktemp("cwd")
    done = cli("run", "--budget", "1.5M", "--target", "iphone12", "--name", "demo", "--json", *QUICK, cwd=cwd)
    assert done.returncode == 0, done.stderr
    return cwd, json.loads(done.stdout), done.stderr


@pytest.mark.slow
def test_run_keeps_the_contract(finished):
    cwd, document, progress = finished
    keys = {"run", "directory", "trained", "rejected", "duplicates", "hypervolume", "front", "baselines"}
    assert keys <= document.keys()
    assert document["trained"] == 5
    for point in document["front"]:
        assert {"ref", "params", "macs", "latency_ms", "top1", "top1_std", "config"} <= point.keys()
        assert 0 <= point["top1"] <= 1
        assert point["params"] <= 1_500_000
    assert progress.count("\n") == 5
    assert "[5/5]" in progress
    names = {path.name for path in (cwd / "results" / "demo").iterdir()}
    assert {"run.json", "study.journal", "front.json", "front.csv", "candidates.csv", "report.html"} <= names
    assert "plotly" in (cwd / "results" / "demo" / "report.html").read_text()


@pytest.mark.slow
def test_front_prints_what_run_did(finished):
    cwd, document, _ = finished
    assert json.loads(cli("front", "demo", "--json", cwd=cwd).stdout) == document
    table = cli("front", "demo", cwd=cwd).stdout
    for point in document["front"]:
        assert point["ref"] in table
    assert "MobileViT-XXS" in table
    assert "predicted: iphone12" in table


@pytest.mark.slow
def test_the_same_command_again_trains_nothing(finished):
    cwd, document, _ = finished
    done = cli("run", "--budget", "1.5M", "--target", "iphone12", "--name", "demo", "--json", *QUICK, cwd=cwd)
    assert json.loads(done.stdout) == document
    assert "top-1" not in done.stderr


@pytest.mark.slow
def test_profile_of_a_candidate_feeds_back(finished, tmp_path):
    cwd, document, _ = finished
    found = json.loads(cli("profile", "demo/best", "--json", cwd=cwd).stdout)
    best = max(document["front"], key=lambda point: point["top1"])
    assert found["config"] == best["config"]
    path = tmp_path / "edited.json"
    path.write_text(json.dumps(found["config"]))
    assert json.loads(cli("profile", str(path), "--json").stdout)["digest"] == found["digest"]


@pytest.mark.slow
def test_export_keeps_the_contract(finished, tmp_path):
    cwd, _, _ = finished
    done = cli("export", "demo/0", "--to", "corenet", "--out", str(tmp_path / "out"), "--json", cwd=cwd)
    document = json.loads(done.stdout)
    assert len(document["files"]) == 3
    assert all(os.path.getsize(path) > 0 for path in document["files"])
    assert document["checks"]["config_round_trip"] is True


@pytest.mark.slow
def test_a_run_that_is_killed_carries_on(tmp_path):
    arguments = ["run", "--budget", "1.5M", "--target", "iphone12", "--name", "killed", *QUICK, "--trials", "6"]
    program = [sys.executable, "-c", "from mvit_search.cli import main; main()", *arguments]
    process = subprocess.Popen(program, cwd=tmp_path, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    for line in process.stderr:
        if line.startswith("[3/6]"):
            break
    process.send_signal(signal.SIGKILL)
    process.wait(30)
    process.stderr.close()
    before = (tmp_path / "results/killed/candidates.csv").read_text().splitlines()
    done = cli("run", "--resume", "--name", "killed", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["trained"] == 6
    after = (tmp_path / "results/killed/candidates.csv").read_text().splitlines()
    assert after[: len(before)] == before
    assert "[3/6]" not in done.stderr


@pytest.mark.slow
def test_ctrl_c_keeps_everything_and_says_how_to_go_on(tmp_path):
    arguments = ["run", "--budget", "1.5M", "--target", "iphone12", "--name", "mine", *QUICK, "--trials", "50"]
    # A shell that runs the tests in the background makes them, and their children, ignore SIGINT.
    listen = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
    program = [sys.executable, "-c", f"{listen}\nfrom mvit_search.cli import main; main()", *arguments]
    with subprocess.Popen(
        program, cwd=tmp_path, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    ) as process:
        try:
            for line in process.stderr:
                if line.startswith("[2/50]"):
                    break
            time.sleep(0.2)
            process.send_signal(signal.SIGINT)
            _, rest = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 130
    assert "mvit-search run --resume --results-dir results --name mine" in rest
    assert "Traceback" not in rest
    front = json.loads((tmp_path / "results/mine/front.json").read_text())
    assert front["state"] == "stopped"
    assert front["trained"] >= 2
    assert (tmp_path / "results/mine/report.html").is_file()


@pytest.mark.parametrize("name", PRESETS)
def test_profile_keeps_the_contract(name):
    document = json.loads(cli("profile", name, "--image-size", "224", "--json").stdout)
    keys = {
        "name", "digest", "config", "params", "macs", "weight_bytes", "peak_activation_bytes", "memory_by_stride_kib",
        "latency", "layers",
    }  # fmt: skip
    assert keys <= document.keys()
    assert document["memory_by_stride_kib"].keys() == {"2", "4", "8", "16", "32"}
    assert {"ms", "low_ms", "high_ms", "source", "target"} <= document["latency"].keys()
    assert document["latency"]["source"].startswith("predicted: iphone12")
    assert document["config"]["image_size"] == [224, 224]


def test_profile_for_people():
    done = cli("profile", "mobilevit-xs", "--layers", "--verify")
    assert done.returncode == 0, done.stderr
    for text in ("2,317,848", "cross-check", "equal", "stages.4.block.transformer.2", "leave-one-out MAPE"):
        assert text in done.stdout


def test_space_commands():
    spaces = json.loads(cli("space", "list", "--json").stdout)
    assert {space["name"] for space in spaces} >= {"mobilevit", "mobilevit-mini"}
    assert "stages.2.transformer_dim" in cli("space", "show", "mobilevit").stdout
    assert cli("space", "check", "mobilevit-mini").returncode == 0


def test_help_and_version():
    assert "Pareto front" in cli("--help").stdout
    assert "--budget" in cli("run", "--help").stdout
    assert cli("--version").stdout.startswith("mvit-search 0.")


RUN = ("run", "--budget", "6M", "--target", "iphone12")


@pytest.mark.parametrize(
    ("message", "arguments"),
    [
        ("preset 'mobilevit-sx': unknown preset", ("profile", "mobilevit-sx")),
        ("did you mean 'mobilevit-", ("profile", "mobilevit-sx")),
        ("did you mean 'iphone12'", ("profile", "mobilevit-s", "--target", "iphone2")),
        ("config 'no.yaml': there is no such file", ("profile", "no.yaml")),
        ("--image-size", ("profile", "mobilevit-s", "--image-size", "4")),
        ("did you mean 'mobilevit'", (*RUN, "--space", "mobilevt")),
        ("did you mean 'iphone1", ("run", "--budget", "6M", "--target", "iphone21")),
        ("did you mean 'digits'", (*RUN, "--data", "digit")),
        ("did you mean 'random'", (*RUN, "--sampler", "randon")),
        ("--device 'cuda:99': is not available here", (*RUN, "--device", "cuda:99")),
        ("--device 'meta': must be cpu, cuda, cuda:N or mps", (*RUN, "--device", "meta")),
        ("--threads 1000000: must be at most", (*RUN, "--threads", "1000000")),
        ("--seed", (*RUN, "--seed", "99999999999999999999999")),
        ("space 'date.yaml': is not valid YAML", (*RUN, "--space", "date.yaml")),
        ("--budget 'six': is not a number above zero; write it like 6M", ("run", "--budget", "six", "--target", "cpu")),
        ("--budget '0': must be at least 1", ("run", "--budget", "0", "--target", "cpu")),
        ("the smallest reachable is 284,376 parameters", ("run", "--budget", "100k", "--target", "iphone12")),
        ("--budget: is required", ("run", "--target", "iphone12")),
        ("--target: is required", ("run", "--budget", "6M")),
        ("--time '5 parsecs'", (*RUN, "--time", "5 parsecs")),
        ("--name '../up'", (*RUN, "--name", "../up")),
        ("run 'never': unknown run", (*RUN, "--name", "never", "--resume")),
        ("run 'nothing': unknown run", ("front", "nothing")),
        ("run 'nothing': unknown run", ("report", "nothing")),
        ("destination 'cornet'", ("export", "mobilevit-s", "--to", "cornet", "--out", "x")),
        ("No such option", ("run", "--bugdet", "6M")),
        ("No such command", ("runn",)),
        ("Missing argument", ("profile",)),
        ("--results-dir 'nowhere': there is no such folder", ("dashboard", "--results-dir", "nowhere")),
        ("results folder", (*RUN, "--results-dir", "/proc/nowhere")),
        ("space 'bad.yaml:", (*RUN, "--space", "bad.yaml")),
        ("data", (*RUN, "--data", "empty")),
        ("one class", (*RUN, "--data", "oneclass")),
        ("broken.png", (*RUN, "--data", "corrupt")),
        ("val", (*RUN, "--data", "nosplit")),
    ],
    ids=lambda value: value[:40] if isinstance(value, str) else " ".join(value)[:60],
)
def test_bad_input_is_one_line_and_exit_code_2(tmp_path, message, arguments):
    _bad_things(tmp_path)
    before = sorted(path.name for path in tmp_path.rglob("*"))
    fails(message, *arguments, cwd=tmp_path)
    assert sorted(path.name for path in tmp_path.rglob("*")) == before


def _bad_things(folder):
    from PIL import Image

    (folder / "bad.yaml").write_text("description: [unclosed\n")
    (folder / "date.yaml").write_text("description: 2020-99-99\n")
    (folder / "empty").mkdir()
    for data, classes in (("oneclass", ("cat",)), ("corrupt", ("cat", "dog")), ("nosplit", ("train/cat", "train/dog"))):
        for name in classes:
            (folder / data / name).mkdir(parents=True)
            for index in range(40):
                Image.new("RGB", (8, 8), (index, 0, 0)).save(folder / data / name / f"{index}.png")
    # A few damaged pictures are skipped; so many are no data.
    for name in ("broken", *(f"broken{index}" for index in range(25))):
        (folder / "corrupt" / "cat" / f"{name}.png").write_bytes(b"\x89PNG\r\n\x1a\nnot an image")


def test_debug_shows_the_traceback():
    done = cli("profile", "nothing", "--debug")
    assert "Traceback" in done.stderr
    assert "UnknownNameError" in done.stderr


def test_a_reader_that_leaves_early_is_no_error():
    program = f"{sys.executable} -c 'from mvit_search.cli import main; main()' profile mobilevit-s --json | true"
    done = subprocess.run(["bash", "-o", "pipefail", "-c", program], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
