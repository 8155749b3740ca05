"""What is installed is what is on the disk, and imports point one way only."""

import ast
import configparser
import importlib
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

import emkernel
import emkernel.groups

ROOT = Path(__file__).resolve().parents[1]
SOURCES = {"emkernel": Path(emkernel.__file__).parent, "emkernel.groups": Path(emkernel.groups.__file__).parent}

# Low to high: a module imports only what stands before it, or beside it in its own folder. The longest name that
# fits a module gives its place. A private module (_x.py) has the place of whoever imports it.
LAYERS = [
    "errors", "group_element", "matrix_group", "images", "expressions", "lifting", "relations", "given", "subrep",
    "rep", "cayley", "finite_reps", "restriction",
    "solver.store", "solver.polish", "solver.reductive", "solver.coordinates", "solver.averaging", "solver.orbits",
    "solver.nullspace",
    "solver.splitting", "solver.irreps", "solver.coupling", "solver.forms", "solver.invariants", "solver.polynomials",
    "solver", "powers", "characters", "interop",
    "ops", "nn", "graph", "batch", "models", "checks", "testing", "figures", "plots", "data", "", "train",
    "studies", "cli",
]  # fmt: skip
SOLVER_ONLY = {"emlp", "jax", "jaxlib", "objax"}
NOT_WITH_IMPORT = {*SOLVER_ONLY, "torch_scatter", "torch_geometric", "lightning", "matplotlib", "h5py", "triton"}


def modules() -> dict[str, Path]:
    """Dotted name -> file, for everything in the package."""
    found = {}
    for package, folder in SOURCES.items():
        for path in sorted(folder.rglob("*.py")):
            parts = path.relative_to(folder).with_suffix("").parts
            found[".".join([package, *(p for p in parts if p != "__init__")])] = path
    return found


MODULES = modules()


def imports(module: str, source: str, is_package: bool = False) -> set[str]:
    """What a source file imports, at the top, in functions or by name, as far as it can be read off."""
    found = set()

    def visit(node):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            for child in node.orelse:
                visit(child)
            return
        if isinstance(node, ast.Import):
            found.update(a.name for a in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parent = module.split(".")
                parent = parent[: len(parent) - node.level + is_package]
                base = ".".join([*parent, *([node.module] if node.module else [])])
            for a in node.names:
                name = f"{base}.{a.name}"
                found.add(name if name in MODULES else base)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] in ("import_module", "__import__"):
            found.update(a.value for a in node.args[:1] if isinstance(a, ast.Constant))
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(ast.parse(source))
    return found


GRAPH = {m: imports(m, p.read_text(encoding="utf-8"), p.name == "__init__.py") for m, p in MODULES.items()}
INNER = [m for m in MODULES if m != "emkernel" and not m.startswith("emkernel.groups")]


def is_private(module: str) -> bool:
    return module.rpartition(".")[2].startswith("_")


def layer(module: str) -> int | None:
    """The place of a module in LAYERS, or None when it has none."""
    inner = module.removeprefix("emkernel").removeprefix(".")
    fitting = [name for name in LAYERS if inner == name or (name and inner.startswith(name + "."))]
    return LAYERS.index(max(fitting, key=len)) if fitting else None


def reached(module: str, graph: dict[str, set[str]]) -> set[str]:
    """The modules of emkernel that a module imports, directly or through private ones."""
    found, todo = set(), [module]
    while todo:
        for target in graph.get(todo.pop(), ()):
            if target.split(".")[0] == "emkernel" and target not in found:
                found.add(target)
                if is_private(target):
                    todo.append(target)
    return found


def upward(module: str, graph: dict[str, set[str]]) -> list[str]:
    """The imports of a module that point up."""
    public = [t for t in reached(module, graph) if not is_private(t)]
    return [t for t in public if layer(t) is None or layer(t) > layer(module)]


def setup() -> configparser.ConfigParser:
    parser = configparser.ConfigParser()
    if not parser.read(ROOT / "setup.cfg", encoding="utf-8"):
        pytest.skip("setup.cfg is not beside these tests")
    return parser


# ---- what is installed ----------------------------------------------------------------------------------------


def test_packages_listed_are_the_folders_on_disk():
    listed = setup()["options"]["packages"].split()
    if not (ROOT / "emkernel").is_dir():
        pytest.skip("the tests do not run from a source tree")
    disk = {".".join(["emkernel", *p.parent.relative_to(ROOT / "emkernel").parts])
            for p in (ROOT / "emkernel").rglob("*.py")}
    disk |= {".".join(["emkernel.groups", *p.parent.relative_to(ROOT / "groups").parts])
             for p in (ROOT / "groups").rglob("*.py")}
    assert listed == sorted(disk), "setup.cfg [options] packages is not what is on the disk"


def test_every_listed_package_can_be_imported_and_is_no_namespace():
    for package in setup()["options"]["packages"].split():
        assert importlib.import_module(package).__file__, f"{package} has no __init__.py"


def test_types_are_announced():
    assert (SOURCES["emkernel"] / "py.typed").is_file()


def test_one_version():
    assert emkernel.__version__ == metadata.version("emkernel") == setup()["metadata"]["version"]


def test_the_command_exists():
    (command,) = metadata.entry_points(group="console_scripts", name="emkernel")
    assert callable(command.load())


# ---- imports --------------------------------------------------------------------------------------------------


def test_every_module_has_a_layer():
    homeless = [m for m in INNER if layer(m) is None and not is_private(m)]
    assert not homeless, f"give {homeless} a place in LAYERS of tests/test_packaging.py and in the design"


@pytest.mark.parametrize("module", [m for m in INNER if not is_private(m)])
def test_imports_point_down(module):
    assert not upward(module, GRAPH)


def test_no_import_goes_round():
    """Inside one folder too; re-exports in an __init__ aside."""
    done, path = set(), []

    def visit(module):
        assert module not in path, " -> ".join([*path, module])
        if module in done or module not in GRAPH or MODULES[module].name == "__init__.py":
            return
        path.append(module)
        for target in sorted(GRAPH[module]):
            visit(target)
        done.add(path.pop())

    for module in GRAPH:
        visit(module)


def test_the_package_never_imports_the_catalogue():
    for module in INNER:
        assert not [t for t in GRAPH[module] if t.startswith("emkernel.groups")], module


def test_the_catalogue_imports_the_group_class_and_the_errors_only():
    allowed = {"emkernel.errors", "emkernel.matrix_group", "emkernel"}
    for module in (m for m in MODULES if m.startswith("emkernel.groups")):
        inner = {t for t in GRAPH[module] if t.split(".")[0] == "emkernel" and not t.startswith("emkernel.groups")}
        assert inner <= allowed, module


def test_only_the_nullspace_solver_imports_emlp_and_jax():
    users = {m for m in MODULES if {t.split(".")[0] for t in GRAPH[m]} & SOLVER_ONLY}
    assert users <= {"emkernel.solver.nullspace"}


def test_every_package_imported_is_declared():
    options, extras = setup()["options"], setup()["options.extras_require"]
    lines = "\n".join([options["install_requires"], *extras.values()]).splitlines()
    declared = {re.split(r"[^\w-]", line.strip())[0].lower().replace("-", "_") for line in lines}
    used = {t.split(".")[0].lower() for m in MODULES for t in GRAPH[m]} - sys.stdlib_module_names - {"emkernel"}
    used -= {"mpl_toolkits"}  # a part of matplotlib
    assert used <= declared


def test_import_is_light(tmp_path):
    code = f"import sys, emkernel; print(sorted(set(sys.modules) & {NOT_WITH_IMPORT!r}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"


# ---- the checks above can fail ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("module", "source"), [
    ("emkernel.errors", "from .rep import Rep"),
    ("emkernel.rep", "def f():\n    from emkernel.solver import nullspace"),
    ("emkernel.solver.store", "from . import nullspace"),
    ("emkernel.nn.conv", "from ..graph import knn_graph"),
    ("emkernel.ops.segment", "import importlib\nimportlib.import_module('emkernel.nn.conv')"),
    ("emkernel.nn.conv", "import emkernel"),
    ("emkernel.cli", "from emkernel import groups"),
])  # fmt: skip
def test_an_upward_import_is_seen(module, source):
    assert upward(module, {**GRAPH, module: imports(module, source)})


def test_an_upward_import_through_a_private_module_is_seen():
    graph = {"emkernel.rep": {"emkernel._piece"}, "emkernel._piece": {"emkernel.nn.conv"}}
    assert upward("emkernel.rep", graph) == ["emkernel.nn.conv"]


def test_imports_for_type_checkers_are_not_counted():
    source = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from .rep import Rep\nelse:\n    import os"
    assert imports("emkernel.errors", source) == {"typing", "os"}
