"""`mvit-search device`: phones on a cable, made ready to measure on."""

from typing import Annotated

import typer

from mvit_search.cli import device_serve
from mvit_search.cli.arguments import JsonOption
from mvit_search.cli.output import print_json, print_table, say

app = typer.Typer(no_args_is_help=True, help="List and prepare cabled iPhones; serve measurements to other machines.")


@app.command("list")
def list_devices(json: JsonOption = False) -> None:
    """List the iPhones that Xcode knows of, and what keeps each from measuring. Needs a Mac."""
    from mvit_search.latency import IPhoneRuntime

    found = IPhoneRuntime().phones()
    if json:
        print_json([phone.document() for phone in found])
        return
    if not found:
        say("Xcode knows of no iPhone; plug one in, unlock it, and trust this Mac.")
        return
    rows = [(phone.identifier, phone.model, phone.system, phone.obstacle or "ready to prepare") for phone in found]
    columns = ("identifier", "model", "system", "state")
    print_table("iPhones", columns, rows, left=columns)


@app.command("prepare")
def prepare(
    device: Annotated[
        str | None, typer.Option("--device", metavar="ID", help="Identifier or UDID, if several are connected.")
    ] = None,
    team_id: Annotated[
        str | None, typer.Option("--team-id", help="Apple developer team that signs the app.  [MVIT_SEARCH_TEAM_ID]")
    ] = None,
    provisioning_profile: Annotated[
        str | None,
        typer.Option(
            "--provisioning-profile", metavar="UUID",
            help="Profile to sign with instead.  [MVIT_SEARCH_PROVISIONING_PROFILE]",
        ),
    ] = None,
    bundle_id: Annotated[
        str | None, typer.Option("--bundle-id", help="The app's identifier, for a profile.  [MVIT_SEARCH_BUNDLE_ID]")
    ] = None,
    clean: Annotated[bool, typer.Option("--clean", help="Build the app anew.")] = False,
    json: JsonOption = False,
) -> None:  # fmt: skip
    """Build coremltools' model runner, install it on a cabled iPhone and start it once. Needs a Mac with Xcode."""
    from mvit_search.latency import IPhoneRuntime
    from mvit_search.latency.apple.phones import PhoneSettings

    environment = PhoneSettings.from_environment()
    settings = PhoneSettings(
        device=device or environment.device,
        team_id=team_id or environment.team_id,
        provisioning_profile=provisioning_profile or environment.provisioning_profile,
        bundle_id=bundle_id or environment.bundle_id,
        folder=environment.folder,
    )
    runtime = IPhoneRuntime(settings=settings)
    runtime.require_device()
    if not json:
        say("Building and starting coremltools' model runner; the first time takes minutes.")
    phone = runtime.prepare(clean=clean)
    if json:
        print_json(phone.document())
        return
    say(f"{phone.model} ({phone.system}) is ready: try `mvit-search profile mobilevit-xs --target iphone`")


# Further commands of `device`, each from its own file `device_<name>.py`, are registered below.
app.command("serve")(device_serve.serve)
