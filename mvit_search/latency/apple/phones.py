"""Cabled iPhones: which are there, whether they can measure, and making one ready.

coremltools finds phones with Xcode's `devicectl`; what it drops (the model, whether the phone is real) is read from
the same program here.
"""

import asyncio
import contextlib
import io
import json
import os
import re
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from mvit_search.errors import InputError, WorkError
from mvit_search.latency.apple.seam import RemoteCoreMl

DEVICE_VARIABLE = "MVIT_SEARCH_DEVICE"
TEAM_VARIABLE = "MVIT_SEARCH_TEAM_ID"
PROFILE_VARIABLE = "MVIT_SEARCH_PROVISIONING_PROFILE"
BUNDLE_VARIABLE = "MVIT_SEARCH_BUNDLE_ID"
OLDEST_IOS = 17
"""What coremltools' model runner app is built for."""

_XCODE = "install Xcode 15 or newer, start it once, and run `sudo xcode-select -s /Applications/Xcode.app`"
_UUID = re.compile(r"[0-9A-F]{8}(-[0-9A-F]{4}){3}-[0-9A-F]{12}", re.IGNORECASE)
# coremltools puts these into a command line for a shell as they are.
_TEAM = re.compile(r"[A-Z0-9]{10}")
_BUNDLE = re.compile(r"[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)+")
_PLAIN_PATH = re.compile(r"[A-Za-z0-9._/+-]+")


@dataclass(frozen=True)
class PhoneSettings:
    """Which phone, and how the app that measures on it is signed.

    Attributes:
        device: identifier or UDID of the phone; None for the only one.
        team_id: Apple developer team, ten capitals and digits; Xcode then makes a provisioning profile.
        provisioning_profile: UUID of a profile to use instead; `bundle_id` must be the profile's.
        bundle_id: the app's identifier in place of coremltools' own.
        folder: where the app is built and kept, and messages are exchanged; None for a temporary one.

    Raises:
        InputError: a value that is not of that form.
    """

    device: str | None = None
    team_id: str | None = None
    provisioning_profile: str | None = None
    bundle_id: str | None = None
    folder: Path | None = None

    def __post_init__(self) -> None:
        _require_form("--team-id", self.team_id, _TEAM, "ten capital letters and digits, like A1B2C3D4E5")
        _require_form("--provisioning-profile", self.provisioning_profile, _UUID, "the UUID of a profile")
        _require_form("--bundle-id", self.bundle_id, _BUNDLE, "a reverse domain name, like com.example.runner")
        folder = None if self.folder is None else str(self.folder)
        _require_form("folder", folder, _PLAIN_PATH, "a path without spaces or signs that a shell reads")

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] = os.environ) -> "PhoneSettings":
        """Those of `MVIT_SEARCH_DEVICE`, `_TEAM_ID`, `_PROVISIONING_PROFILE` and `_BUNDLE_ID`, where set.

        Raises:
            InputError: a value that is not of its form.
        """
        return cls(
            device=environ.get(DEVICE_VARIABLE) or None,
            team_id=environ.get(TEAM_VARIABLE) or None,
            provisioning_profile=environ.get(PROFILE_VARIABLE) or None,
            bundle_id=environ.get(BUNDLE_VARIABLE) or None,
            folder=_kept_folder(environ),
        )


class Phone(NamedTuple):
    """An iPhone that Xcode knows of.

    Attributes:
        identifier: Xcode's, for `--device`.
        udid: the phone's own.
        model: `iPhone 14 Pro (iPhone15,2)`; `iPhone` where Xcode does not tell. Never the name its owner gave it.
        system: `iOS 17.5`.
        connected: whether it can be talked to now.
        developer_mode: `enabled`, `disabled` or empty.
        simulated: whether it is a simulator.
        device: coremltools' `remote_device.Device`.
    """

    identifier: str
    udid: str
    model: str
    system: str
    connected: bool
    developer_mode: str
    simulated: bool
    device: Any

    def document(self) -> dict[str, Any]:
        """The same for JSON."""
        document = self._asdict()
        del document["device"]
        return {**document, "obstacle": self.obstacle}

    @property
    def obstacle(self) -> str:
        """Why it cannot measure and what to do, in words; empty if it can."""
        if self.simulated:
            return "is a simulator, whose times are the Mac's; connect a phone"
        if not self.connected:
            return (
                "is not connected; plug it in, unlock it, trust this Mac, and run "
                f"`xcrun devicectl device info details --device {self.identifier}` once"
            )
        if self.developer_mode.lower() == "disabled":
            return "has developer mode off; turn it on under Settings > Privacy & Security"
        version = re.search(r"\d+", self.system)
        if version and int(version[0]) < OLDEST_IOS:
            return f"has {self.system}; coremltools' model runner needs iOS {OLDEST_IOS}"
        return ""


def devicectl_devices() -> list[dict[str, Any]]:
    """What Xcode's `devicectl` knows of devices; empty where it does not answer, for its facts only add to others."""
    with tempfile.TemporaryDirectory(prefix="mvit-search-") as folder:
        answer = Path(folder) / "devices.json"
        command = ["xcrun", "devicectl", "list", "devices", "--quiet", "--json-output", str(answer)]
        try:
            subprocess.run(command, capture_output=True, timeout=60, check=True)
            devices = json.loads(answer.read_text(encoding="utf-8"))["result"]["devices"]
        except (OSError, subprocess.SubprocessError, ValueError, KeyError, TypeError):
            return []
    return [device for device in devices if isinstance(device, dict)] if isinstance(devices, list) else []


def phones(remote: RemoteCoreMl, details: Callable[[], list[dict[str, Any]]] = devicectl_devices) -> list[Phone]:
    """Every iPhone that Xcode knows of, connected or not.

    Raises:
        InputError: Xcode's tools are not installed.
        WorkError: they failed.
    """
    try:
        devices = remote.device.get_devices()
    except ValueError as error:  # also json's; either way Xcode is not as it should be
        raise InputError("iphone", None, f"Xcode's device tools do not answer ({error})", _XCODE) from None
    except Exception as error:  # _DeviceCtlError, which is private
        raise WorkError(f"iphone: devicectl could not list devices ({_text(error)})") from error
    known = {str(found.get("identifier")): _section(found, "hardwareProperties") for found in details()}
    iphones = [device for device in devices if device.type == remote.device_type.IPHONE]
    return [_phone(device, known.get(device.identifier, {}), remote) for device in iphones]


def choose(found: list[Phone], wanted: str | None) -> Phone:
    """The phone of that identifier or UDID, or the only one that can measure.

    Raises:
        InputError: none, several, or one that cannot measure; with what to do.
    """
    if wanted is not None:
        found = [phone for phone in found if wanted in (phone.identifier, phone.udid)]
        if not found:
            raise InputError("--device", wanted, "is no iPhone that Xcode knows of", "see `mvit-search device list`")
    if not found:
        raise InputError("iphone", None, "no iPhone is connected", "plug one in, unlock it, and trust this Mac")
    able = [phone for phone in found if not phone.obstacle]
    if len(able) == 1:
        return able[0]
    if able:
        listed = ", ".join(f"{phone.identifier} ({phone.model})" for phone in able)
        raise InputError("iphone", None, f"several are connected: {listed}", f"set {DEVICE_VARIABLE} to one of them")
    rule, _, advice = found[0].obstacle.partition("; ")
    raise InputError("iphone", found[0].model, rule, advice)


def prepare(
    phone: Phone, settings: PhoneSettings, remote: RemoteCoreMl, *, folder: Path, clean: bool = False
) -> Any:  # fmt: skip
    """Build coremltools' model runner, install and start it on the phone; the device with its session.

    Building takes minutes the first time; the app is kept in `folder`.

    Raises:
        InputError: neither a team nor a provisioning profile is given, or Xcode is not installed.
        WorkError: the app could not be built or started.
    """
    if not settings.team_id and not settings.provisioning_profile:
        rule = "an app must be signed to run on a phone"
        advice = f"give --team-id, or set {TEAM_VARIABLE}; Xcode > Settings > Accounts shows it"
        raise InputError("--team-id", None, rule, advice)
    credentials = remote.credentials(
        development_team=settings.team_id,
        provisioning_profile_uuid=settings.provisioning_profile,
        bundle_identifier=settings.bundle_id,
    )
    work = phone.device.prepare_for_model_debugging(credentials=credentials, working_directory=folder, clean=clean)
    try:
        with quiet(), asyncio.Runner() as runner:
            return runner.run(work)
    except ValueError as error:
        raise InputError("iphone", phone.model, f"cannot be made ready ({error})", _XCODE) from None
    except Exception as error:  # private classes of coremltools; xcodebuild's own words are lost in them
        advice = "check the team, or build once in Xcode to see why"
        raise WorkError(f"iphone: the model runner could not be started ({_text(error)}); {advice}") from error


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """coremltools draws a progress bar for every message to a phone, with no way to turn it off."""
    with contextlib.redirect_stderr(io.StringIO()):
        yield


def _phone(device: Any, hardware: Mapping[str, Any], remote: RemoteCoreMl) -> Phone:
    marketing, product = hardware.get("marketingName"), hardware.get("productType")
    model = f"{marketing} ({product})" if marketing and product else str(product or marketing or "iPhone")
    # Phones have a UDID of their own; simulators have an UUID for one.
    simulated = hardware.get("reality", "physical") != "physical" or bool(_UUID.fullmatch(device.udid))
    return Phone(
        identifier=device.identifier,
        udid=device.udid,
        model=model,
        system=f"iOS {device.os_version}",
        connected=device.state == remote.device_state.CONNECTED,
        developer_mode=device.developer_mode_state,
        simulated=simulated,
        device=device,
    )


def _kept_folder(environ: Mapping[str, str]) -> Path | None:
    """Where the built app is kept between processes; None if a shell could not read that path."""
    folder = Path(environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mvit-search" / "model-runner"
    return folder if _PLAIN_PATH.fullmatch(str(folder)) else None


def _section(document: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    section = document.get(key)
    return section if isinstance(section, dict) else {}


def _require_form(field: str, value: str | None, form: re.Pattern[str], words: str) -> None:
    if value is not None and not form.fullmatch(value):
        raise InputError(field, value, f"must be {words}")


def _text(error: Exception) -> str:
    """An error's own message, which devicectl leaves as bytes, or not at all."""
    message = getattr(error, "message", None)
    if isinstance(message, bytes):
        return message.decode(errors="replace")
    return str(message or error)
