"""`mvit-search device serve` as a process: what it prints, what it refuses, and how it ends."""

import os
import re
import signal
import subprocess
import sys

import httpx
import pytest

from mvit_search.cli import main
from mvit_search.cli.device_serve import _announce, _token

COMMAND = (sys.executable, "-c", "from mvit_search.cli import main; main()", "device", "serve")


def clean_environment(**variables):
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MVIT_SEARCH_")}
    return {**kept, **variables}


@pytest.fixture
def refused(tmp_path, monkeypatch, capsys):
    """What is said of options that are refused, on one line."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("MVIT_SEARCH_")]:
        monkeypatch.delenv(name)

    def said(*options):
        arguments = ["mvit-search", "device", "serve", "--runtime", "cpu-torch", "--port", "0", "--no-cache", *options]
        monkeypatch.setattr(sys, "argv", arguments)
        with pytest.raises(SystemExit) as ended:
            main()
        assert ended.value.code == 2
        error = capsys.readouterr().err
        assert len(error.splitlines()) == 1
        return error

    return said


def test_it_serves_with_a_token_that_it_made_and_ends_on_ctrl_c(tmp_path):
    options = ("--runtime", "cpu-torch", "--port", "0", "--no-cache")
    process = subprocess.Popen(
        [*COMMAND, *options], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=clean_environment(),
    )  # fmt: skip
    try:
        first, _, export = (process.stdout.readline() for _ in range(3))
        port = re.fullmatch(r"measuring with cpu-torch on http://127\.0\.0\.1:(\d+) \(Ctrl-C stops\)\n", first)[1]
        token = export.strip().removeprefix("export MVIT_SEARCH_TOKEN=")
        assert len(token) == 43
        headers = {"Authorization": f"Bearer {token}"}
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client:
            assert client.get("/health").json() == {"status": "ok"}
            assert client.get("/version").status_code == 401
            version = client.get("/version", headers=headers).json()
        assert (version["runtime"], version["suffix"]) == ("cpu-torch", ".json")
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
    finally:
        process.kill()
    assert (process.returncode, out) == (0, "stopped\n")
    assert err == ""


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--max-upload", "many"), "--max-upload"),
        (("--runtime", "iphone12"), "unknown runtime"),
        (("--host", "192.0.2.1"), "cannot be listened on"),
        (("--token-file", "absent/token"), "cannot be written"),
        (("--root-path", "phone"), "--root-path"),
    ],
)
def test_what_cannot_be_served_is_told_in_a_line(refused, options, says):
    assert says in refused(*options)


def test_a_short_token_is_refused_and_not_shown(refused, monkeypatch):
    monkeypatch.setenv("MVIT_SEARCH_TOKEN", "hunter2")
    said = refused()
    assert "has 7 characters" in said
    assert "hunter2" not in said


def test_a_missing_extra_is_named(refused, monkeypatch):
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    monkeypatch.delitem(sys.modules, "mvit_search.latency.server.serving", raising=False)
    assert "pip install 'mvit-search[server]'" in refused()


def test_whoever_lets_other_machines_in_is_told_what_that_means(capsys):
    _announce("cpu-torch", "127.0.0.1", 1, None)
    assert capsys.readouterr().err == ""
    _announce("cpu-torch", "0.0.0.0", 1, None)
    assert "unencrypted" in capsys.readouterr().err


def test_the_token_file_is_made_once_and_kept(tmp_path, capsys):
    first, second = _token(tmp_path / "token"), _token(tmp_path / "token")
    assert first == second
    assert "new token written to" in capsys.readouterr().out
    (tmp_path / "token").chmod(0o644)
    assert _token(tmp_path / "token") == first
    assert "chmod 600" in capsys.readouterr().err
