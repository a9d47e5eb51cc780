"""The rules of the house: import order, no torch where none is needed, content found from every install."""

import ast
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from mvit_search._files import bundled
from tests.latency.packages import save, tiny_model

ROOT = Path(__file__).resolve().parents[1]
TABLE = ROOT / "results" / "reference" / "digits_proxy" / "table.csv"
PACKAGE = ROOT / "mvit_search"

# docs/architecture.md, "The house": each may import what has a lower rank; equal ranks never import each other.
RANKS = {
    "errors": 0, "__init__": 0, "_quantities": 1, "_files": 1, "architecture": 2, "space": 3, "profile": 4,
    "latency": 4, "data": 4, "records": 5, "proxy": 6, "search": 7, "ranking": 8, "analysis": 9,
    "export": 9, "cli": 10,
}  # fmt: skip
TORCH_FREE_FILES = (
    "architecture/config.py",
    "architecture/presets.py",
    "architecture/ops.py",
    "architecture/layouts.py",
    "architecture/tasks.py",
    "architecture/published.py",
    "architecture/__init__.py",
)
TORCH_FILES = (
    "blocks", "network", "training_ops", "weights", "task_networks", "checkpoints", "neural_engine", "random_weights",
)  # fmt: skip


def imports(path: Path) -> list[str]:
    """Modules that a file imports anywhere in it, absolute names."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found += [f"{node.module}.{alias.name}" for alias in node.names]
    return found


def part(module: str) -> str:
    """`mvit_search.space.loading` -> `space`; `mvit_search.__version__` -> `__init__`; others fail the look-up."""
    name = module.split(".")[1] if "." in module else "__init__"
    return "__init__" if name == "__version__" else name


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_point_to_the_left(path):
    relative = path.relative_to(PACKAGE)
    own = relative.parts[0] if len(relative.parts) > 1 else relative.stem
    assert own in RANKS, f"{own} has no place in the import order"
    for module in imports(path):
        if module.split(".")[0] == "mvit_search" and part(module) != own:
            assert RANKS[part(module)] < RANKS[own], f"{relative} imports {module}"


def test_dashboards_import_the_analysis_and_what_stands_left_of_it():
    for path in (ROOT / "dashboards").rglob("*.py"):
        used = {part(module) for module in imports(path) if module.startswith("mvit_search")}
        assert "cli" not in used, path
        assert not any(module.split(".")[0] == "torch" for module in imports(path)), path


@pytest.mark.parametrize("name", TORCH_FREE_FILES)
def test_the_description_of_a_network_never_imports_its_torch_files(name):
    torch_files = {f"mvit_search.architecture.{stem}" for stem in TORCH_FILES}
    for module in imports(PACKAGE / name):
        assert module.split(".")[0] != "torch"
        assert not any(module.startswith(file) for file in torch_files)


def run_python(code: str, cwd: Path) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-c", code], cwd=cwd, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize(
    "code",
    [
        "import mvit_search",
        "import mvit_search.analysis",
        "import mvit_search.records, mvit_search.space, mvit_search.profile, mvit_search.latency, mvit_search.data",
    ],
)
def test_importing_loads_no_torch(code, tmp_path):
    done = run_python(f"{code}\nimport sys\nassert 'torch' not in sys.modules, 'torch'", tmp_path)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["profile", "mobilevit-s"],
        ["profile", "mobilevit-xs", "--task", "detection", "--layers", "--html", "page.html"],
        ["space", "list"],
        ["space", "show", "mobilevit"],
        ["space", "sample", "mobilevit-mini"],
        ["space", "check", "mobilevit-patch", "--budget", "6M"],
        ["front", "demo"],
        ["latency", "mobilevit-s"],
        ["latency", "mobilevit-s", "--explain", "--html", "page.html"],
        ["latency", "net.mlpackage", "--explain"],
        ["run", "--budget", "6M", "--target", "iphone12", "--trials", "4", "--table", f"{TABLE}#17px-899img-8ep"],
    ],
    ids=lambda arguments: " ".join(arguments).replace(str(ROOT), ""),
)
def test_commands_that_train_nothing_load_no_torch(arguments, demo_run):
    code = (
        f"import sys; sys.argv = ['mvit-search', *{arguments!r}]\nfrom mvit_search.cli import main\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert not end.code, end.code\n"
        "heavy = {'torch', 'coremltools', 'sklearn'} & sys.modules.keys()\nassert not heavy, heavy"
    )
    folder = demo_run.path.parents[1]
    save(tiny_model(), folder / "net.mlpackage")
    done = run_python(code, folder)
    assert done.returncode == 0, done.stderr


def test_content_is_found_in_a_checkout():
    assert (bundled("search_spaces") / "mobilevit.yaml").is_file()
    assert (bundled("dashboards") / "app.py").is_file()


@pytest.mark.slow
def test_content_is_found_in_a_wheel(tmp_path):
    """Build the wheel, unpack it away from the checkout, and use it from there."""
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), str(ROOT)]
    done = subprocess.run(build, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    site = tmp_path / "site"
    zipfile.ZipFile(wheel).extractall(site)
    assert (site / "mvit_search/_bundled/search_spaces/mobilevit.yaml").is_file()
    assert (site / "mvit_search/_bundled/dashboards/app.py").is_file()
    assert (site / "mvit_search/latency/targets/iphone12.json").is_file()
    assert (site / "mvit_search/py.typed").is_file()
    assert (site / "mvit_search/analysis/report.css").is_file()
    assert (site / "mvit_search/analysis/profile_page.css").is_file()
    assert (site / "mvit_search/_bundled/dashboards/assets/style.css").is_file()
    code = (
        f"import sys; sys.path.insert(0, {str(site)!r})\n"
        "import mvit_search; assert mvit_search.__file__.startswith(sys.path[0]), mvit_search.__file__\n"
        "from mvit_search.space import load_space; assert load_space('mobilevit').size() >= 10**12\n"
        "from mvit_search.latency import load_target; load_target('iphone12')\n"
        "from mvit_search.cli.dashboard import _dashboards; from pathlib import Path\n"
        "app = _dashboards().app; assert app.__file__.startswith(sys.path[0]); app.create_app(Path('.'))\n"
    )
    done = run_python(code, tmp_path)
    assert done.returncode == 0, done.stderr


def test_every_python_file_of_the_package_is_shorter_than_two_ideas():
    long = {str(p.relative_to(ROOT)): n for p in PACKAGE.rglob("*.py") if (n := len(p.read_text().splitlines())) > 400}
    assert not long
