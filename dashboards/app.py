"""`create_app`: the Dash app, one page a file of `pages/`; a page needs no registration.

A page module holds `PATH`, `TITLE`, `layout(results_dir)` and `register(app, results_dir)`. Dash's own page
registry is not used: it is global to the process, and its module names depend on the working directory.
"""

import importlib
import ipaddress
import pkgutil
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from urllib.parse import urlsplit

from dash import Dash, Input, Output, dcc, html
from dash.development.base_component import Component
from flask import abort, request

_HERE = Path(__file__).resolve().parent


def create_app(results_dir: Path) -> Dash:
    """The app over `results_dir`; the caller runs it, bound to 127.0.0.1.

    It serves every script and style itself, and answers only requests that name this machine.
    """
    app = Dash(
        __name__,
        title="mvit-search",
        update_title="",
        assets_folder=str(_HERE / "assets"),
        serve_locally=True,
        # Pages bring components of their own after the first layout.
        suppress_callback_exceptions=True,
    )
    app.server.before_request(_refuse_other_hosts)
    pages = load_pages()
    for page in pages.values():
        page.register(app, results_dir)
    app.layout = _layout(pages)
    _register_navigation(app, pages, results_dir)
    return app


def load_pages() -> dict[str, ModuleType]:
    """Every module of `pages/` by its path, the front page (`/`) first."""
    package = f"{__package__}.pages"
    names = sorted(module.name for module in pkgutil.iter_modules([str(_HERE / "pages")]))
    modules = [importlib.import_module(f"{package}.{name}") for name in names]
    return {page.PATH: page for page in sorted(modules, key=lambda page: page.PATH)}


def _layout(pages: dict[str, ModuleType]) -> Callable[[], Component]:
    def layout() -> Component:
        links = [dcc.Link(page.TITLE, href=path) for path, page in pages.items()]
        bar = html.Div([html.Span("mvit-search", className="brand"), html.Nav(links)])
        return html.Div([
            dcc.Location(id="location", refresh=False),
            html.Header(bar, className="bar"),
            html.Main(id="page"),
        ])  # fmt: skip

    return layout


def _register_navigation(app: Dash, pages: dict[str, ModuleType], results_dir: Path) -> None:
    @app.callback(Output("page", "children"), Input("location", "pathname"))
    def show(pathname: str | None) -> Component:
        page = pages.get(pathname or "/")
        if page is None:
            return html.P("There is no such page.", className="notice")
        return page.layout(results_dir)  # type: ignore[no-any-return]


def _refuse_other_hosts() -> None:
    """A web page elsewhere can point its own name at 127.0.0.1; such a request names that host."""
    host = urlsplit(f"//{request.host}").hostname or ""
    if host == "localhost":
        return
    try:
        if ipaddress.ip_address(host).is_loopback:
            return
    except ValueError:
        pass
    abort(403)
