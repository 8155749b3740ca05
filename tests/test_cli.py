"""The command line: what it prints, its exit status, and one line about whatever was wrong."""

import argparse
import logging
import re
import shlex
import subprocess
import sys
import textwrap

import pytest

import emkernel
from emkernel import _help
from emkernel._parser import parser
from emkernel.cli import load_group, main
from emkernel.errors import GroupError

GROUP_FILE = """
import numpy as np
import emkernel as ek

half = np.diag([-1.0, -1.0, 1.0])
{body}
"""


@pytest.fixture
def run(capsys):
    """(exit status, standard output, standard error) of a command."""

    def call(*argv):
        try:
            status = main([str(a) for a in argv])
        except SystemExit as e:
            status = e.code
        done = capsys.readouterr()
        return status, done.out, done.err

    return call


@pytest.fixture
def refused(run):
    """The one line with which a command refuses its input."""

    def call(*argv):
        status, out, err = run(*argv)
        assert status == 2 and out == ""
        assert err.startswith("emkernel: ") and err.count("\n") == 1 and "Traceback" not in err
        return err

    return call


@pytest.fixture
def group_file(tmp_path):
    def write(body, name="my_group.py"):
        path = tmp_path / name
        path.write_text(GROUP_FILE.format(body=body), encoding="utf-8")
        return path

    return write


# ---- groups ---------------------------------------------------------------------------------------------------


def test_groups_lists_the_catalogue(run):
    status, out, err = run("groups")
    assert status == 0 and err == ""
    rows = {line.split()[0]: line.split() for line in out.split("\n\n")[0].splitlines()[1:]}
    assert set(rows) == set(emkernel.groups.catalogue())
    assert rows["Oh"][1:3] == ["3", "48"] and rows["Lorentz"][1:3] == ["4", "infinite"]


# ---- check ----------------------------------------------------------------------------------------------------


def test_check_of_a_group_with_a_name(run):
    status, out, err = run("check", "Oh", "--order", "48", "--degree", "1")
    assert status == 0 and err == ""
    assert "order 48" in out and "FAIL" not in out and "passed" in out


@pytest.mark.parametrize(
    ("body", "name"),
    [
        ("G = ek.MatrixGroup('half turn', [half])", ":G"),
        ("G = ek.MatrixGroup('half turn', [half])", ""),
        ("def G():\n    return ek.MatrixGroup('half turn', [half])", ":G"),
        ("from functools import partial\nG = partial(ek.MatrixGroup, 'half turn', [half])", ":G"),
    ],
)
def test_check_of_a_group_in_a_file(run, group_file, body, name):
    status, out, _ = run("check", f"{group_file(body)}{name}", "--degree", "1")
    assert status == 0 and "half turn" in out and "order 2" in out


def test_nothing_is_left_beside_the_file(group_file):
    path = group_file("G = ek.MatrixGroup('half turn', [half])")
    assert load_group(f"{path}:G").order == 2
    assert [p.name for p in path.parent.iterdir()] == ["my_group.py"]


def test_a_file_that_was_changed_is_read_again(group_file):
    path = group_file("G = ek.MatrixGroup('a', [half])")
    assert load_group(f"{path}:G").name == "a"
    assert load_group(f"{group_file('G = ek.MatrixGroup(chr(98), [half])')}:G").name == "b"


@pytest.mark.parametrize("expected", [("--order", "24"), ("--dimension", "1"), ("--form", "diag(1,2,3)")])
def test_a_failing_check_has_status_one(run, expected):
    status, out, _ = run("check", "C3z", "--degree", "1", "--quick", *expected)
    assert status == 1 and "FAIL" in out


@pytest.mark.parametrize("form", ["diag(1, -1,-1,-1.0)", " [[2,0,0,0],[0,-2,0,0],[0,0,-2,0],(0,0,0,-2e0)] "])
def test_check_of_a_form(run, form):
    status, out, _ = run("check", "Lorentz", "--quick", "--form", form, "--form", form)
    assert status == 0 and out.count("the stated form is invariant") == 2
    assert "PointConv" not in out and "PointConv" in run("check", "C2z", "--degree", "1")[1]


@pytest.mark.parametrize(
    "form",
    ["", "1", "diag()", "diag(1, x)", "[[1, 2]]", "[[1, 2], [3]]", "diag([1, 2])", "[[1, 2j], [0, 1]]",
     "__import__('os').getcwd()", "[[1e999, 0], [0, 1]]", "[" * 300, "diag(1) + 1", "[['1', 0], [0, None]]"],
)  # fmt: skip
def test_a_form_that_is_none(refused, form):
    assert "expected a square matrix" in refused("check", "C2", f"--form={form}")


def test_a_form_of_another_size(refused):
    assert "acts on 2 dimensions" in refused("check", "C2", "--form", "diag(1, 1, 1)")


def test_check_says_what_it_does_not_do(run):
    status, out, _ = run("check", "Borel2", "--degree", "1")
    assert status == 0 and "not done: irreducibles: Borel(2) is not known to be" in out


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("oh", "Oh"),
        ("Lorenz", "Lorentz"),
        ("C5v", "Cnv(5)"),
        ("C(0)", "C"),
        ("C(2,3)", "takes 1 number"),
        ("", "no group is called"),
        ("Wreth", "Wreath"),
        ("Wreath", "Wreath makes a group from others"),
        ("Direct(C4, C4)", "call emkernel.groups.Direct in a file"),
        ("nowhere.py:G", "nowhere.py is not a file"),
        ("nowhere.py", "nowhere.py is not a file"),
    ],
)
def test_a_name_that_is_nobodys(refused, name, words):
    assert words in refused("check", name)


@pytest.mark.parametrize(
    ("body", "name", "words"),
    [
        ("group = = 3", "G", ["SyntaxError", "line 6"]),
        ("\nG = ek.MatrixGroup('g', [half[0]])", "G", ["discrete_generators[0]", "(3,)"]),
        ("G = ek.MatrixGroup('singular', [half * [1, 1, 0]])", "G", ["singular", "not invertible"]),
        ("def G():\n    return ek.MatrixGroup('singular', [0 * half])", "G", ["not invertible"]),
        ("\nG = ek.MatrxGroup('g', [half])", "G", ["line 7", "AttributeError", "MatrxGroup"]),
        ("def G():\n    return 1 / 0", "G", ["G()", "line 7", "ZeroDivisionError"]),
        ("import no_such_package", "G", ["ModuleNotFoundError", "no_such_package"]),
        ("my_group = ek.MatrixGroup('g', [half])", "mygroup", ["no 'mygroup'", "close to it: my_group"]),
        ("a = ek.MatrixGroup('a', [half]); b = ek.MatrixGroup('b', [-half])", "", ["say which", "a, b"]),
        ("", "", ["holds no MatrixGroup"]),
        ("def right(): ...\ndef left(): ...\nfrom numpy import diag", "", ["its functions are right, left"]),
        ("G = [half]", "G", ["list", "expected a MatrixGroup"]),
        ("def G():\n    return half", "G", ["expected a MatrixGroup or a function that returns one"]),
        ("def G(n):\n    return n", "G", ["TypeError", "argument"]),
    ],
)  # fmt: skip
def test_a_file_that_gives_no_group(refused, group_file, body, name, words):
    err = refused("check", f"{group_file(body)}:{name}")
    for word in words:
        assert word in err


def test_a_generator_with_few_digits_is_refused(refused, group_file):
    path = group_file("G = ek.MatrixGroup('fifth', [[[0.30902, -0.95106], [0.95106, 0.30902]]])")
    err = refused("check", f"{path}:G")
    assert "order 5" in err and "polished" in err


def test_load_group_raises_group_errors(group_file):
    with pytest.raises(GroupError, match="does not run"):
        load_group(f"{group_file('1 / 0')}:G")


def subcommands(parser):
    """Name -> parser."""
    (action,) = (a for a in parser._actions if isinstance(a, argparse._SubParsersAction))
    return action.choices


# ---- the parser -----------------------------------------------------------------------------------------------


HELP = {name: p.format_help() for name, p in [("", parser()), *subcommands(parser()).items()]}
COMMAND = re.compile(r"^ +(emkernel .*)$", re.MULTILINE)


@pytest.mark.parametrize("command", HELP)
def test_help_teaches(run, command):
    """Every command says what it does and shows commands to copy, each of which the parser understands."""
    status, out, _ = run(*command.split(), "--help")
    assert status == 0 and out == HELP[command]
    examples = [shlex.split(line, comments=True) for line in COMMAND.findall(out)]
    assert len(examples) >= 4 and any(e[1:2] == command.split() or not command for e in examples)
    for program, *argv in examples:
        assert program == "emkernel"
        if "--help" not in argv:
            parser().parse_args(argv)


def test_a_newcomer_meets_every_command_in_the_help():
    commands = {shlex.split(line, comments=True)[1] for line in COMMAND.findall(HELP[""])}
    assert commands == set(HELP) - {""}


@pytest.mark.parametrize("text", [v for name, v in vars(_help).items() if name.isupper()])
def test_the_help_fits_a_terminal(text):
    assert max(map(len, text.splitlines())) < 82


@pytest.mark.parametrize("command", HELP)
def test_every_option_is_explained(command):
    for action in (subcommands(parser()) | {"": parser()})[command]._actions:
        assert action.help, action.option_strings


def test_groups_that_the_help_names_exist():
    for line in COMMAND.findall("".join(HELP.values())):
        argv = shlex.split(line, comments=True)
        named = argv[2:3] if argv[1] == "check" else argv[argv.index("--group") + 1 :][:1] if "--group" in argv else []
        for name in named:
            if not name.startswith("my_group.py"):
                assert emkernel.groups.get(name)


def test_the_group_file_of_the_help_is_one(tmp_path):
    lines = HELP[""].split("1. Define a group")[1].split("discrete_generators are")[0].splitlines()
    path = tmp_path / "my_group.py"
    path.write_text(textwrap.dedent("\n".join(line for line in lines if line.startswith("     "))), encoding="utf-8")
    assert load_group(f"{path}:G").order == 10


# ---- what is said meanwhile -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("flags", "expected"), [((), "careful"), (("-v",), "careful told"),
                                                 (("-vv",), "careful told all"), (("--quiet",), "")])  # fmt: skip
def test_records_are_printed_as_asked_for(run, monkeypatch, flags, expected):
    def talk(_):
        for name, level in (("careful", logging.WARNING), ("told", logging.INFO), ("all", logging.DEBUG)):
            logging.getLogger("emkernel.anything").log(level, name)
        raise GroupError("none")

    monkeypatch.setattr("emkernel.cli.load_group", talk)
    status, out, err = run("check", "Oh", *flags)
    assert (status, out) == (2, "") and err.split() == [*expected.split(), *["emkernel:", "GroupError:", "none"]]
    log = logging.getLogger("emkernel")
    assert [type(h) for h in log.handlers] == [logging.NullHandler] and log.propagate and log.level == logging.NOTSET


def test_without_a_terminal_there_is_no_progress(run, tmp_path, monkeypatch):
    pytest.importorskip("lightning.pytorch")
    monkeypatch.setattr("emkernel._progress.PATIENCE", 0.0)
    argv = ("nbody", "--group", "C2z", "--channels", 2, "--layers", 1, "--n-train", 16, "--epochs", 1, "--hidden", 8)
    status, out, err = run("train", *argv, "--out", tmp_path / "run")
    assert status == 0 and err == "" and out.count("\n") == 1


# ---- other usage ----------------------------------------------------------------------------------------------


def test_version(run):
    assert run("--version")[:2] == (0, f"emkernel {emkernel.__version__}\n")


@pytest.mark.parametrize(
    "argv", [(), ("learn",), ("check",), ("train", "mnist"), ("check", "Oh", "--degree", "two")]
)
def test_usage_errors(run, argv):
    status, out, err = run(*argv)
    assert status == 2 and out == "" and "usage: emkernel" in err and "Traceback" not in err


@pytest.mark.parametrize(
    ("argv", "word"),
    [
        (["check", "O3", "--ordr", "48"], "close to --ordr: --order"),
        (["check", "O3", "-order", "48"], "close to -order: --order"),
        (["train", "nbody", "--epoch", "2", "--chanels", "4"], "to --epoch: --epochs; close to --chanels: --channels"),
        (["check", "O3", "--order", "0"], "argument --order: 0 is less than 1"),
        (["check", "O3", "--dimension", "-1"], "argument --dimension: -1 is less than 0"),
        (["train", "modelnet", "--neighbors=3"], "close to --neighbors: --neighbours"),
    ],
)
def test_a_mistyped_option_is_close_to_one(argv, word, capsys):
    with pytest.raises(SystemExit) as stop:
        main(argv)
    assert stop.value.code == 2 and word in capsys.readouterr().err


def test_degree_zero(refused):
    assert "degree" in refused("check", "C2z", "--degree", "0")


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (("nbody", "--radius", "2"), "--radius does not apply to nbody"),
        (("modelnet", "--layers", "2"), "--layers does not apply to modelnet"),
        (("nbody", "--channels", "2,3"), "--channels"),
        (("modelnet", "--channels", "2"), "--channels"),
        (("nbody", "--epochs", "0"), "epochs must be at least 1"),
        (("nbody", "--batch-size", "-1"), "batch_size must be at least 1"),
        (("nbody", "--n-train", "0"), "n_train must be at least 1"),
        (("nbody", "--kernel", "fxied"), "kernel must be one of ('implicit', 'fixed'), got 'fxied'"),
        (("nbody", "--kernel", "fixed", "--hidden", "8"), "--hidden given, but only the implicit kernel"),
        (("nbody", "--group", "C4"), "acts on 2 dimensions"),
        (("nbody", "--group", "O4"), "no group is called 'O4'"),
    ],
)
def test_training_options_that_make_no_sense(refused, tmp_path, argv, words):
    assert words in refused("train", *argv, "--out", tmp_path / "run", "--no-progress")
    assert not (tmp_path / "run").exists()


def test_an_interrupt_is_no_traceback(run, monkeypatch):
    def interrupt(_):
        raise KeyboardInterrupt

    monkeypatch.setattr("emkernel.cli.load_group", interrupt)
    assert run("check", "Oh") == (130, "", "emkernel: interrupted\n")


def test_as_a_command(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "emkernel.cli", "check", "O4"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=120,
    )
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("emkernel: GroupError: no group is called 'O4'; close to it:")


def test_a_group_that_is_none_is_blamed_on_its_line_and_blocks_itself_alone(tmp_path):
    file = tmp_path / "groups.py"
    flat = "ek.MatrixGroup('flat', [[[0, 0], [0, 0]]])"
    file.write_text(
        f"import emkernel as ek\nG = ek.groups.Oh()\nH: object = {flat}\nboth = [G, H]\nH = {flat}\n"
        f"F = ek.groups.Th()\nK = {flat}\nK = ek.groups.T()\nprint(end='')\n"
    )
    assert load_group(f"{file}:G").order == 48 and load_group(f"{file}:F").order == 24 and load_group(f"{file}:K")
    for name, line in (("H", 5), ("both", 3)):
        with pytest.raises(GroupError, match=rf"groups.py: line {line}: flat: .* is not invertible"):
            load_group(f"{file}:{name}")
    with pytest.raises(GroupError, match=r"groups.py: line 5: flat: .* is not invertible"):
        load_group(str(file))  # which of them is not said
    for rest, line in ((flat, 10), ("print(H)", 5)):
        file.write_text(file.read_text() + rest + "\n")
        with pytest.raises(GroupError, match=rf"groups.py: line {line}: flat"):
            load_group(f"{file}:G")
        file.write_text(file.read_text().removesuffix(rest + "\n"))
    assert "groups" not in sys.modules


def test_a_file_of_groups_runs_as_a_module(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(
        "from __future__ import annotations\nfrom dataclasses import dataclass\nimport emkernel as ek\n"
        "@dataclass\nclass Axis:\n    order: Undefined\n    def group(self) -> Undefined:\n"
        "        return ek.groups.get(f'Cz({self.order})')\n"
        "axis = Axis(5)\ndef G(): return axis.group()\n"
    )
    assert load_group(f"{file}:G").order == 5


def test_a_bare_name_may_be_one_of_a_file(refused):
    assert "no group is called 'mine'" in (line := refused("check", "mine")) and "FILE.py:mine" in line
    assert "FILE.py" not in refused("check", "C(2,3)")


def test_a_group_that_is_left_out_is_named(run, tmp_path):
    file = tmp_path / "groups.py"
    file.write_text("import emkernel as ek\nH = ek.MatrixGroup('flat', [[[0, 0], [0, 0]]])\nG = ek.groups.get('Cs')\n")
    status, _, err = run("check", f"{file}:G", "--quick")
    assert status == 0 and "groups.py: H is no group, and left out: line 2: flat: " in err


def test_a_file_imports_its_neighbours(tmp_path, monkeypatch):
    (tmp_path / "matrices_beside.py").write_text("import numpy as np\nflip = np.diag([1, -1])\n")
    file = tmp_path / "groups.py"
    file.write_text("import emkernel as ek\nfrom matrices_beside import flip\nG = ek.MatrixGroup('G', [flip])\n")
    before = list(sys.path)
    assert load_group(f"{file}:G").order == 2
    assert sys.path == before
    sys.modules.pop("matrices_beside")


def test_only_groups_and_functions_are_proposed(tmp_path):
    file = tmp_path / "groups.py"
    file.write_text("import numpy as np\nimport emkernel as ek\nG = ek.groups.get('Cs')\n")
    with pytest.raises(GroupError, match=r"defines no 'nope'; its groups are G$"):
        load_group(f"{file}:nope")
