"""What the README and the examples show, runs."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import emkernel as ek
from emkernel._parser import parser
from emkernel.cli import load_group

ROOT = Path(__file__).resolve().parents[1]
BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)


def text(name):
    path = ROOT / name
    if not path.is_file():
        pytest.skip(f"{name} is not beside these tests")
    return path.read_text(encoding="utf-8")


def run_example(name, *flags, cwd):
    script = ROOT / "examples" / name
    if not script.is_file():
        pytest.skip("examples/ is not beside these tests")
    done = subprocess.run(
        [sys.executable, script, *flags], capture_output=True, text=True, timeout=900, cwd=cwd
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


def table(printed):
    """Error and number of parameters by group."""
    rows = re.findall(r"^(\S+) +(\d+\.\d+) +([\d,]+) +\d+\.\d", printed, re.MULTILINE)
    return {name: (float(error), int(many.replace(",", ""))) for name, error, many in rows}


# ---- README -----------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("error")
def test_the_code_of_the_readme_runs(tmp_path, monkeypatch, capsys):
    """Block after block in one namespace, as a reader would paste them."""
    pytest.importorskip("lightning.pytorch")
    monkeypatch.chdir(tmp_path)
    blocks, space = BLOCK.findall(text("README.md")), {}
    assert len(blocks) >= 6
    with torch.random.fork_rng():
        for i, block in enumerate(blocks):
            exec(compile(block, f"README.md, python block {i}", "exec"), space)
    printed = capsys.readouterr().out
    assert "FAIL" not in printed
    first, last = map(float, re.search(r"loss (\d+\.\d+) -> (\d+\.\d+)", printed).groups())
    assert last < 0.2 * first


def test_the_group_file_of_the_readme_is_one(tmp_path):
    block = next(b for b in BLOCK.findall(text("README.md")) if "def improper" in b)
    path = tmp_path / "my_group.py"
    path.write_text(block, encoding="utf-8")
    assert load_group(f"{path}:improper").order == 6
    assert load_group(f"{path}:cylinder").order is None and not load_group(f"{path}:boosts").is_compact


def test_the_commands_of_the_readme_are_understood():
    lines = [
        line.split("#")[0].split("&&")[-1]
        for line in text("README.md").splitlines()
        if line.startswith("    ")
    ]
    commands = [line.split() for line in lines if line.strip().startswith("emkernel ")]
    assert {c[1] for c in commands} == {"groups", "check", "train", "study"}
    for command in commands:
        parser().parse_args(command[1:])


def test_names_of_the_readme_exist():
    """Dotted names under ``ek.``, and files."""
    readme = text("README.md")
    for dotted in re.findall(r"\bek((?:\.[A-Za-z]\w*)+)", readme):
        found = ek
        for name in dotted[1:].split("."):
            found = getattr(found, name)
    for name in re.findall(r"^\| ((?:`[\w./]+`(?:, )?)+) \|", readme, re.MULTILINE):
        for path in re.findall(r"`([\w/]+(?:\.py|/))`", name):
            places = (Path(ek.__file__).parent / path, Path(ek.groups.__file__).parent.parent / path)
            assert any(place.exists() for place in places), path


# ---- quickstart -------------------------------------------------------------------------------------------------


def test_quickstart_in_short(tmp_path):
    printed = run_example("quickstart.py", "--epochs", "2", "--systems", "100", cwd=tmp_path)
    assert "order 10" in printed and "FAIL" not in printed
    found = table(printed)
    assert list(found) == ["Trivial(3)", "C5v", "O2z", "O(3)"] and "C5v" not in ek.groups.catalogue()
    sizes = [many for _, many in found.values()]
    assert max(sizes) < 1.2 * min(sizes)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_quickstart_says_what_symmetry_is_worth(tmp_path):
    printed = run_example("quickstart.py", cwd=tmp_path)
    error = {name: e for name, (e, _) in table(printed).items()}
    assert error["C5v"] < 0.9 * error["Trivial(3)"] and error["O2z"] < 0.9 * error["Trivial(3)"]
    assert error["O(3)"] > 2 * error["Trivial(3)"]
    assert re.search(r"C5v changed the error by -\d+ %", printed)


@pytest.mark.slow
def test_turned_images_are_recognised(tmp_path):
    printed = run_example("turned_images.py", cwd=tmp_path)
    found = {name: float(turned) for name, turned in re.findall(r"^(\w+) +[\d,]+ +\S+ +(\S+)$", printed, re.MULTILINE)}
    assert found["steerable"] > 0.8
    assert found["ordinary"] < 0.6


# ---- from PyTorch Geometric -------------------------------------------------------------------------------------


def test_pyg_classification_in_short(tmp_path):
    """Few lines differ; turning the shapes costs the original its accuracy, and the steerable network none."""
    pytest.importorskip("torch_geometric")
    printed = run_example("pyg_classification.py", "--quick", cwd=tmp_path)
    assert 1 <= len(re.findall(r"^\+", printed, re.MULTILINE)) <= 10
    found = dict(re.findall(r"^(\w+Net) +(\d\.\d+ +\d\.\d+) ", printed, re.MULTILINE))
    assert list(found) == ["PointNet", "SteerablePointNet"]
    (upright, turned), (steerable, steerable_turned) = (map(float, v.split()) for v in found.values())
    chance = 1 / 8
    assert min(upright, steerable) > chance + 0.1
    assert turned < upright - 0.1 and abs(steerable_turned - steerable) < 0.02
