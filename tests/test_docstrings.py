"""Every public name says what it is, what it takes and what it raises, with an example; every example runs.

An example takes for granted what PRELUDE imports, and nothing else.
"""

import ast
import dataclasses
import doctest
import importlib
import inspect
import pkgutil
import re
import textwrap

import pytest
import torch

import emkernel
import emkernel.groups

PRELUDE = """
import numpy as np
import torch
import emkernel as ek
from emkernel import Scalar, T, V, groups, nn
"""
PUBLIC = ["", "checks", "cli", "data", "errors", "figures", "graph", "groups", "models", "nn", "plots", "studies",
          "testing", "train"]  # fmt: skip
# groups are all called alike and their laws have tests; reports, figures and runs are seen in a few examples
EXAMPLES = [m for m in PUBLIC if m not in ("checks", "cli", "figures", "groups", "plots", "studies", "train")]


def modules():
    names = [m.name for m in pkgutil.walk_packages(emkernel.__path__, "emkernel.")]
    names += [m.name for m in pkgutil.iter_modules(emkernel.groups.__path__, "emkernel.groups.")]
    return [m for m in dict.fromkeys(names) if not m.endswith(("_triton", "__main__"))]


def examples():
    """Name -> examples of every docstring that has some; a name is met where it is defined."""
    finder, found = doctest.DocTestFinder(exclude_empty=True), {}
    for name in ["emkernel", *modules()]:
        for test in finder.find(importlib.import_module(name)):
            if test.examples:
                found[test.name] = test
    return found


def public(names):
    """Qualified name -> object, for what the modules list in ``__all__``."""
    found = {}
    for module in (importlib.import_module(f"emkernel.{name}".strip(".")) for name in names):
        for name in module.__all__:
            value = getattr(module, name)
            if inspect.isfunction(value) or inspect.isclass(value):
                found[f"{value.__module__}.{value.__qualname__}"] = value
    return found


def members(cls):
    """Public methods and properties that a class defines itself."""
    for name, value in vars(cls).items():
        value = value.__func__ if isinstance(value, (classmethod, staticmethod)) else value
        value = value.fget if isinstance(value, property) else getattr(value, "func", value)
        if inspect.isfunction(value) and not name.startswith("_"):
            yield name, value


def parameters(thing):
    """The parameters that a caller gives."""
    try:
        found = inspect.signature(thing).parameters
    except ValueError:  # a class of C
        return []
    return [p for p in found if p not in ("self", "cls") and not p.startswith("_")]


def raised(function):
    """The names of the exceptions that the body of a function raises itself."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and isinstance(node.exc.func, ast.Name):
            found.add(node.exc.func.id)
    return found - {"AssertionError", "NotImplementedError", "AttributeError"}


def lacking(name, thing, doc, known=None):
    """What the docstring of a public name leaves out."""
    if not doc:
        return [f"{name} has no docstring"]
    args = re.search(r"^(?:Args|Attributes|Shapes):\n((?:[ ]+.*\n?|\n)+)", doc, re.MULTILINE)
    said = args[1] if args else doc
    if dataclasses.is_dataclass(thing):  # what it adds to its base
        known = [name for name in inspect.get_annotations(thing) if not name.startswith("_")]
    known = parameters(thing) if known is None else known
    missing = [f"{name} does not say what {p} is" for p in known if not re.search(rf"(?<![A-Za-z]){p}(?!\w)", said)]
    if len(known) > 2 and not args:
        missing.append(f"{name} takes {len(known)} arguments and has no Args")
    if dataclasses.is_dataclass(thing):
        function = vars(thing).get("__post_init__")
    else:
        function = thing.__init__ if inspect.isclass(thing) else thing
    raises = re.search(r"^Raises:\n((?:[ ]+.*\n?)+)", doc, re.MULTILINE)
    for error in sorted(raised(function)) if inspect.isfunction(function) else ():
        if not raises or error not in raises[1]:
            missing.append(f"{name} does not say when it raises {error}")
    return missing


def lacking_member(name, cls, member, function):
    """The same of a method or property; what goes in and out of a layer stands in the Shapes of its class."""
    if member in ("forward", "extra_repr") and issubclass(cls, torch.nn.Module):
        doc = inspect.cleandoc(cls.__doc__)
        return lacking(name, function, doc, ()) + ([] if "Shapes:" in doc else [f"{name} has no Shapes"])
    known = parameters(function)
    return lacking(name, function, inspect.getdoc(getattr(cls, member)) or "", known if len(known) > 1 else ())


# ---- examples -----------------------------------------------------------------------------------------------------

FOUND = examples()


@pytest.mark.parametrize("name", FOUND)
def test_the_example_runs(name, monkeypatch):
    monkeypatch.setenv("EMKERNEL_SHIPPED", "1")  # as for a reader
    test = FOUND[name]
    if "import emlp" in test.docstring:
        pytest.importorskip("emlp")
    test.globs = {"__name__": "example"}
    exec(PRELUDE, test.globs)
    said: list[str] = []
    with torch.random.fork_rng():
        torch.manual_seed(0)
        runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS, verbose=False)
        result = runner.run(test, out=said.append)
    assert result.failed == 0, "".join(said)


@pytest.mark.parametrize("name", public(EXAMPLES))
def test_it_has_an_example(name):
    thing = public(EXAMPLES)[name]
    assert ">>>" in (thing.__doc__ or ""), f"{name} shows no example"


# ---- what is said -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", public(PUBLIC))
def test_it_says_what_it_is(name):
    thing = public(PUBLIC)[name]
    missing = lacking(name, thing, thing.__doc__ and inspect.cleandoc(thing.__doc__))
    if inspect.isclass(thing):
        for member, function in members(thing):
            missing += lacking_member(f"{name}.{member}", thing, member, function)
    assert not missing, "\n".join(missing)


@pytest.mark.parametrize("module", modules())
def test_every_module_says_what_it_holds(module):
    assert importlib.import_module(module).__doc__


# ---- the checks above can fail ------------------------------------------------------------------------------------


def bad(x, y, z):
    """Adds x and y."""
    if z:
        raise ValueError("z")


def test_what_is_left_out_is_seen():
    assert lacking("bad", bad, bad.__doc__) == [
        "bad does not say what z is",
        "bad takes 3 arguments and has no Args",
        "bad does not say when it raises ValueError",
    ]
    assert lacking("none", lambda: 0, None) == ["none has no docstring"]
    good = "Adds.\n\nArgs:\n    x, y: numbers.\n    z: must be false.\n\nRaises:\n    ValueError: z is true."
    assert lacking("good", bad, good) == []
