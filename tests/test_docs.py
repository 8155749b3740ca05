"""The pages in docs/: every public name is in the reference, and the code of the tutorials runs."""

import configparser
import importlib
import inspect
import re
from pathlib import Path

import pytest
import torch
from test_docstrings import PUBLIC

import emkernel as ek

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
TUTORIALS = sorted(p.name for p in (DOCS / "tutorials").glob("*.md") if p.name != "index.md")
CELL = re.compile(r"^```\{code-cell\}\n(.*?)^```", re.MULTILINE | re.DOTALL)

pytestmark = pytest.mark.skipif(not DOCS.is_dir(), reason="docs/ is not beside these tests")


def documented():
    """The objects that the pages of the reference name."""
    found = {}
    for page in (DOCS / "reference").glob("*.md"):
        for name in re.findall(r"^\.\. auto(?:class|function):: ([\w.]+)", page.read_text("utf-8"), re.MULTILINE):
            module, _, attribute = name.rpartition(".")
            found[name] = getattr(importlib.import_module(module), attribute)
    return found


@pytest.mark.parametrize("module", [m for m in PUBLIC if m != "cli"])
def test_every_public_name_is_in_the_reference(module):
    """Under this or another of its names; singletons such as V, and folders, are told of in prose."""
    known = {id(thing) for thing in documented().values()}
    module = importlib.import_module(f"emkernel.{module}".strip("."))
    names = {n: getattr(module, n) for n in module.__all__}
    missing = [n for n, v in names.items() if (inspect.isclass(v) or inspect.isfunction(v)) and id(v) not in known]
    assert not missing


def test_the_reference_lists_no_name_twice():
    found = [id(thing) for thing in documented().values()]
    assert len(found) == len(set(found)) > 100


def test_four_tutorials():
    assert len(TUTORIALS) == 4
    listed = (DOCS / "tutorials" / "index.md").read_text("utf-8")
    assert all(re.search(rf"^{name.removesuffix('.md')}$", listed, re.MULTILINE) for name in TUTORIALS)


@pytest.mark.parametrize("name", TUTORIALS)
def test_a_tutorial_is_prose_with_code(name):
    page = (DOCS / "tutorials" / name).read_text("utf-8")
    cells = CELL.findall(page)
    assert len(cells) >= 5 and "file_format: mystnb" in page
    for i, cell in enumerate(cells):
        compile(cell, f"{name}, cell {i}", "exec")
    for dotted in re.findall(r"\bek((?:\.[A-Za-z]\w*)+)", page):
        thing = ek
        for part in dotted[1:].split("."):
            thing = getattr(thing, part)


@pytest.mark.slow
@pytest.mark.parametrize("name", TUTORIALS)
def test_a_tutorial_runs(name, tmp_path, monkeypatch):
    """Cell after cell in one namespace, as where the pages are built."""
    for module in ("matplotlib", *(("torch_geometric",) if name == "pyg.md" else ())):
        pytest.importorskip(module)
    if name == "molecules.md":
        pytest.importorskip("lightning.pytorch")
    monkeypatch.setenv("MPLBACKEND", "Agg")
    monkeypatch.chdir(tmp_path)
    space = {"__name__": "tutorial"}
    with torch.random.fork_rng():
        for i, cell in enumerate(CELL.findall((DOCS / "tutorials" / name).read_text("utf-8"))):
            exec(compile(cell, f"{name}, cell {i}", "exec"), space)


def test_what_the_pages_need_is_an_extra():
    parser = configparser.ConfigParser()
    if not parser.read(ROOT / "setup.cfg", encoding="utf-8"):
        pytest.skip("setup.cfg is not beside these tests")
    extra = parser["options.extras_require"]["docs"]
    for package in ("furo", "myst_nb", "sphinx", "sphinx-copybutton", "matplotlib", "torch_geometric", "lightning"):
        assert re.search(rf"^{package}\b", extra, re.MULTILINE), package
