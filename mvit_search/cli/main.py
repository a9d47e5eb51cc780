"""The `mvit-search` program: commands, and how errors reach the user.

Modules of this package import nothing heavy at the top: `--help` must answer in under half a second.
"""

import sys
from typing import Annotated, NoReturn

import typer

from mvit_search import __version__
from mvit_search.cli import (
    calibrate,
    dashboard,
    device,
    export,
    front,
    latency,
    measure,
    profile,
    proxy_check,
    run,
    space,
    weights,
)  # fmt: skip
from mvit_search.cli.output import EXIT_INTERRUPTED, flush_stdout, say
from mvit_search.errors import InputError, MvitSearchError

EXIT_FAILED, EXIT_BAD_INPUT = 1, 2

app = typer.Typer(
    name="mvit-search",
    help="Search mobile vision transformers for a parameter budget and a phone.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("run")(run.run)
app.command("profile")(profile.profile)
app.command("latency")(latency.latency)
app.add_typer(space.app, name="space")
app.command("proxy-check")(proxy_check.proxy_check)
app.command("front")(front.front)
app.command("report")(front.report)
app.command("export")(export.export)
app.add_typer(weights.app, name="weights")
app.command("measure")(measure.measure)
app.command("calibrate")(calibrate.calibrate)
app.add_typer(device.app, name="device")
app.command("dashboard")(dashboard.dashboard)


def _version(asked: bool) -> None:
    if asked:
        say(f"mvit-search {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error; may stand anywhere.")] = False,
) -> None:
    """Search mobile vision transformers for a parameter budget and a phone."""


def main() -> NoReturn:
    """Entry point: exit code 0, 1 (failed work), 2 (bad input) or 130 (interrupted)."""
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    debug = len(arguments) < len(sys.argv) - 1
    try:
        code = _run(arguments)
    except MvitSearchError as error:
        if debug:
            raise
        _complain(str(error))
        sys.exit(EXIT_BAD_INPUT if isinstance(error, InputError) else EXIT_FAILED)
    except KeyboardInterrupt:
        _complain("interrupted")
        sys.exit(EXIT_INTERRUPTED)
    except Exception as error:
        # Typer's own usage errors (unknown option, missing argument) carry this method; anything else is a defect.
        describe = getattr(error, "format_message", None)
        if debug or describe is None:
            raise
        # Without arguments Typer has shown the help already, and complains of nothing.
        if message := " ".join(describe().split()):
            _complain(f"{message}{_given(error)}; see mvit-search --help")
        sys.exit(EXIT_BAD_INPUT)
    sys.exit(code if isinstance(code, int) else 0)


def _run(arguments: list[str]) -> object:
    try:
        return app(arguments, standalone_mode=False)
    except OSError:
        flush_stdout()  # if it is stdout that failed, under Typer's help, this says so in a line
        raise


def _given(error: Exception) -> str:
    """The value that Typer's complaint of a number leaves out; it keeps pydantic's error as the cause."""
    listed = getattr(error.__cause__, "errors", None)
    return f" (given {listed()[0]['input']!r})" if listed else ""


def _complain(message: str) -> None:
    print(f"mvit-search: {message}", file=sys.stderr)
