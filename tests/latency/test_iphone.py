"""`iphone` and the `device` commands with fakes in the place of Xcode and a phone."""

import json
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from coremltools import ComputeUnit
from coremltools.models.ml_program.experimental.remote_device import DeviceState, DeviceType

from mvit_search.cli.device import app
from mvit_search.errors import InputError, WorkError
from mvit_search.latency import IPhoneRuntime, load_runtime
from mvit_search.latency.apple.phones import PhoneSettings, devicectl_devices
from mvit_search.latency.apple.seam import NEURAL_ENGINE, Host
from mvit_search.latency.runtime import Placement
from tests.latency.fake_apple import (
    LINUX,
    MAC,
    UDID,
    Behaviour,
    PhoneBehaviour,
    devicectl_details,
    fake_remote,
    phone_facts,
    write_package,
)
from tests.latency.networks import SHORT

TEAM = PhoneSettings(team_id="A1B2C3D4E5")
OTHER = "99999999-2222-3333-4444-555555555555"


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_package(tmp_path_factory.mktemp("iphone") / "network.mlpackage", "float16")


def behaviour(*devices: dict[str, Any], **model: Any) -> PhoneBehaviour:
    return PhoneBehaviour(Behaviour(**model), list(devices or (phone_facts(),)))


def runtime(
    phone: PhoneBehaviour, units: str = "all", settings: PhoneSettings = TEAM, host: Host = MAC,
    details: Callable[[], list[dict[str, Any]]] = devicectl_details,
) -> IPhoneRuntime:  # fmt: skip
    return IPhoneRuntime(
        units, timing=SHORT, settings=settings, host=host, remote=lambda: fake_remote(phone), details=details
    )


def test_the_phones_own_time_is_what_counts(package: Path) -> None:
    phone = behaviour(times_ms=(9.0, 1.5, 2.0, 2.5))
    measurement = runtime(phone).measure(package)
    assert (measurement.low_ms, measurement.p50_ms, measurement.high_ms) == (1.5, 2.0, 2.5)
    assert measurement.placement == (Placement(NEURAL_ENGINE, 4, 1.0, 1.0),)
    assert phone.loaded == 0


def test_protocol_names_the_phone_and_not_its_owner(package: Path) -> None:
    protocol = runtime(behaviour(), "ane").measure(package).protocol
    assert (protocol.device, protocol.system) == ("iPhone 14 Pro (iPhone15,2)", "iOS 17.5")
    assert (protocol.compute_units, protocol.precision, protocol.io) == ("CPU_AND_NE", "fp16", "float16 array")
    assert protocol.rule.endswith("one prediction every few seconds")
    assert "owner" not in protocol.words


def test_units_and_arrays_are_those_of_the_package(package: Path) -> None:
    phone = behaviour()
    runtime(phone, "gpu").measure(package)
    assert phone.model.units is ComputeUnit.CPU_AND_GPU
    assert phone.model.inputs is not None
    assert phone.model.inputs["image"].dtype == np.float16


def test_app_is_started_once_and_again_when_it_died(package: Path) -> None:
    phone = behaviour()
    measuring = runtime(phone)
    measuring.measure(package)
    measuring.measure(package)
    assert len(phone.prepared) == 1
    credentials, folder, clean = phone.prepared[0]
    assert (credentials.development_team, credentials.provisioning_profile_uuid) == ("A1B2C3D4E5", None)
    assert folder.is_dir()
    assert clean is False
    measuring.link._device.session.alive = False
    measuring.measure(package)
    assert len(phone.prepared) == 2


def test_pictures_are_refused_with_the_remedy(tmp_path: Path) -> None:
    path = write_package(tmp_path / "network.mlpackage", "image")
    message = "network.mlpackage: image: takes a picture, and .* arrays alone; convert it with arrays as inputs"
    with pytest.raises(InputError, match=message):
        runtime(behaviour()).measure(path)


def test_what_falls_off_the_neural_engine_is_noted(package: Path) -> None:
    measurement = runtime(behaviour(placed_on=("CPU",), costs=(None,))).measure(package)
    assert any("4 of 4 operators with 0 % of the estimated work" in note for note in measurement.notes)


def test_no_plan_spoils_no_measurement(package: Path) -> None:
    measurement = runtime(behaviour(plan_error=ValueError("unavailable"))).measure(package)
    assert measurement.placement == ()
    assert "which units ran it is unknown (unavailable)" in measurement.notes


def test_failures_on_the_phone_are_work_errors_and_unload_the_model(package: Path) -> None:
    phone = behaviour(predict_error=RuntimeError("lost"))
    with pytest.raises(WorkError, match=r"could not be measured on iPhone 14 Pro \(iPhone15,2\) \(lost\)"):
        runtime(phone).measure(package)
    assert phone.loaded == 0
    with pytest.raises(WorkError, match="the phone did not say how long"):
        runtime(behaviour(times_ms=(None,))).measure(package)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"state": DeviceState.DISCONNECTED}, "is not connected; plug it in, unlock it, trust this Mac"),
        ({"developer_mode_state": "disabled"}, "has developer mode off; turn it on under Settings"),
        ({"os_version": "16.7"}, "has iOS 16.7; coremltools' model runner needs iOS 17"),
        ({"udid": OTHER}, "is a simulator, whose times are the Mac's; connect a phone"),
        ({"type": DeviceType.IPAD}, "no iPhone is connected; plug one in"),
    ],
)
def test_phone_that_cannot_measure_says_why(changes: dict[str, Any], message: str) -> None:
    measuring = runtime(behaviour(phone_facts(**changes)))
    with pytest.raises(InputError, match=message):
        measuring.require_device()


def test_simulator_that_xcode_names_is_refused() -> None:
    measuring = runtime(behaviour(), details=lambda: devicectl_details(reality="virtual"))
    with pytest.raises(InputError, match="is a simulator"):
        measuring.require_device()


def test_of_several_phones_one_must_be_chosen() -> None:
    two = (phone_facts(), phone_facts(identifier=OTHER, udid="00008120-00000000000000FF", os_version="18.1"))
    with pytest.raises(InputError, match=rf"several are connected: .*{OTHER} \(iPhone\); set MVIT_SEARCH_DEVICE"):
        runtime(behaviour(*two)).require_device()
    chosen = runtime(behaviour(*two), settings=PhoneSettings(device=OTHER))
    assert chosen._phone(chosen.remote()).system == "iOS 18.1"
    by_udid = runtime(behaviour(*two), settings=PhoneSettings(device=UDID))
    assert by_udid._phone(by_udid.remote()).model.startswith("iPhone 14 Pro")
    with pytest.raises(InputError, match="--device 'other': is no iPhone that Xcode knows of"):
        runtime(behaviour(*two), settings=PhoneSettings(device="other")).require_device()
    one_able = (two[0] | {"state": DeviceState.UNAVAILABLE}, two[1])
    runtime(behaviour(*one_able)).require_device()


def test_an_app_must_be_signed(package: Path) -> None:
    with pytest.raises(InputError, match="--team-id: an app must be signed to run on a phone; give --team-id"):
        runtime(behaviour(), settings=PhoneSettings()).measure(package)


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (ValueError("The 'xcodebuild' command is required."), InputError, "cannot be made ready .*; install Xcode 15"),
        (OSError("signing failed"), WorkError, r"could not be started \(signing failed\); check the team"),
    ],
)
def test_app_that_does_not_start_says_why(error: Exception, kind: type, message: str, package: Path) -> None:
    phone = behaviour()
    phone.prepare_error = error
    with pytest.raises(kind, match=message):
        runtime(phone).measure(package)


def test_without_xcode_the_remedy_is_said() -> None:
    phone = behaviour()
    phone.list_error = ValueError("The 'devicectl' command is required.")
    with pytest.raises(InputError, match=r"device tools do not answer .*; install Xcode 15 or newer"):
        runtime(phone).require_device()
    failed = RuntimeError()
    failed.message = b"no service"  # type: ignore[attr-defined]
    phone.list_error = failed
    with pytest.raises(WorkError, match=r"devicectl could not list devices \(no service\)"):
        runtime(phone).require_device()


def test_other_systems_are_told_what_to_do(package: Path) -> None:
    elsewhere = runtime(behaviour(), host=LINUX)
    for act in (elsewhere.require_device, elsewhere.phones, elsewhere.prepare, lambda: elsewhere.measure(package)):
        with pytest.raises(InputError, match="iphone: needs macOS 14 or newer, and this is Linux; convert here"):
            act()


def test_identity_has_the_phone_and_its_system() -> None:
    older, newer = (runtime(behaviour(phone_facts(os_version=version))) for version in ("17.5", "18.1"))
    assert older.identity.startswith("iphone-coremltools-9.")
    assert older.identity != newer.identity


@pytest.mark.parametrize(
    ("setting", "value", "message"),
    [
        ("team_id", "a; rm -r x", "--team-id 'a; rm -r x': must be ten capital letters and digits"),
        ("provisioning_profile", "x y", "--provisioning-profile 'x y': must be the UUID of a profile"),
        ("bundle_id", "com.$(id)", "--bundle-id .*: must be a reverse domain name"),
        ("folder", Path("/with a space"), "folder .*: must be a path without spaces"),
    ],
)
def test_what_a_shell_would_read_is_refused(setting: str, value: Any, message: str) -> None:
    """coremltools puts these into a command line as they are."""
    with pytest.raises(InputError, match=message):
        PhoneSettings(**{setting: value})


def test_settings_of_the_environment() -> None:
    environ = {"MVIT_SEARCH_DEVICE": OTHER, "MVIT_SEARCH_TEAM_ID": "A1B2C3D4E5", "XDG_CACHE_HOME": "/cache"}
    settings = PhoneSettings.from_environment(environ)
    assert settings == PhoneSettings(OTHER, "A1B2C3D4E5", folder=Path("/cache/mvit-search/model-runner"))
    assert PhoneSettings.from_environment({"XDG_CACHE_HOME": "/my cache"}).folder is None


def test_details_of_devicectl(monkeypatch: pytest.MonkeyPatch) -> None:
    def answers(command: list[str], **_: object) -> None:
        Path(command[-1]).write_text(json.dumps({"result": {"devices": devicectl_details()}}))

    monkeypatch.setattr(subprocess, "run", answers)
    assert devicectl_devices() == devicectl_details()

    def fails(*_: object, **__: object) -> None:
        raise FileNotFoundError("xcrun")

    monkeypatch.setattr(subprocess, "run", fails)
    assert devicectl_devices() == []


def test_names_of_the_units() -> None:
    assert [load_runtime(name).name for name in ("iphone", "iphone:all", "iphone:ane")] == ["iphone"] * 2 + [
        "iphone:ane"
    ]


@pytest.fixture
def cabled(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> PhoneBehaviour:
    """The commands see the fake phone; their environment says nothing."""
    phone = behaviour(phone_facts(), phone_facts(identifier=OTHER, state=DeviceState.DISCONNECTED))
    made = partial(IPhoneRuntime, host=MAC, remote=lambda: fake_remote(phone), details=devicectl_details)
    monkeypatch.setattr("mvit_search.latency.IPhoneRuntime", made)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for name in ("DEVICE", "TEAM_ID", "PROVISIONING_PROFILE", "BUNDLE_ID"):
        monkeypatch.delenv(f"MVIT_SEARCH_{name}", raising=False)
    return phone


def test_device_list_and_prepare(cabled: PhoneBehaviour, capsys: pytest.CaptureFixture[str]) -> None:
    app(["list"], standalone_mode=False)
    shown = capsys.readouterr().out
    assert "iPhone 14 Pro (iPhone15,2)" in shown
    assert "ready to prepare" in shown
    assert "is not connected" in shown
    app(["list", "--json"], standalone_mode=False)
    first, second = json.loads(capsys.readouterr().out)
    assert (first["model"], first["connected"], first["obstacle"]) == ("iPhone 14 Pro (iPhone15,2)", True, "")
    assert second["obstacle"].startswith("is not connected")
    app(["prepare", "--team-id", "A1B2C3D4E5", "--clean"], standalone_mode=False)
    assert "is ready" in capsys.readouterr().out
    ((credentials, folder, clean),) = cabled.prepared
    assert (credentials.development_team, folder.name, clean) == ("A1B2C3D4E5", "model-runner", True)


@pytest.mark.skipif(Host.here().system == "Darwin", reason="this is a Mac")
def test_device_list_elsewhere_is_bad_input() -> None:
    program = [sys.executable, "-c", "from mvit_search.cli import main; main()", "device", "list"]
    done = subprocess.run(program, capture_output=True, text=True)
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("mvit-search: iphone: needs macOS 14 or newer")
