"""What this machine and a Mac tell of themselves."""

import platform
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest

from mvit_search.latency import machine
from mvit_search.latency.apple.seam import Host


def test_this_machine_has_a_name_and_a_system() -> None:
    assert machine.processor().rpartition(" (")[0]
    assert machine.processor().endswith(("core)", "cores)"))
    assert machine.system().split()[0] in ("Linux", "macOS", "Windows")


@pytest.mark.parametrize(
    ("content", "name"),
    [("processor\t: 0\nmodel name\t: A Processor 9\n", "A Processor 9"), ("Features: fp\n", platform.machine())],
)
def test_name_of_a_processor_on_linux(
    content: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    (tmp_path / "cpuinfo").write_text(content)
    monkeypatch.setattr(platform, "system", lambda: "Linux")
    monkeypatch.setattr(machine, "_CPUINFO", tmp_path / "cpuinfo")
    assert machine._processor_name() == name
    monkeypatch.setattr(machine, "_CPUINFO", tmp_path / "missing")
    assert machine._processor_name()


def test_a_mac_tells_its_chip_and_model(monkeypatch: pytest.MonkeyPatch) -> None:
    facts = {"machdep.cpu.brand_string": "Apple M3\n", "hw.model": "Mac15,3\n"}
    monkeypatch.setattr(platform, "system", lambda: "Darwin")
    monkeypatch.setattr(platform, "mac_ver", lambda: ("15.1.1", ("", "", ""), "arm64"))
    monkeypatch.setattr(subprocess, "run", lambda command, **_: SimpleNamespace(stdout=facts[command[-1]]))
    monkeypatch.setattr(machine, "processor", machine.processor.__wrapped__)
    here = Host.here()
    assert here.version == (15, 1, 1)
    assert here.words == machine.system() == "macOS 15.1.1"
    assert here.chip.startswith("Apple M3 (")
    assert here.chip.endswith(") in Mac15,3")


def test_system_without_sysctl_tells_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: object, **__: object) -> None:
        raise FileNotFoundError("sysctl")

    monkeypatch.setattr(subprocess, "run", missing)
    assert machine.sysctl("hw.model") == ""
