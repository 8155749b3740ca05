"""Studies: statistics by hand, tables that say what the runs say, stopping and going on, equal sizes."""

import csv
import json
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from test_train import At, interrupt

import emkernel as ek
from emkernel._comparison import Comparison, compare, deviation
from emkernel._study_report import summarise
from emkernel.cli import main
from emkernel.errors import DataError
from emkernel.studies import DESIGNS, Request, design, match, run_study
from emkernel.train import RunConfig

# two soporifics on ten patients: Student, Biometrika 6 (1908)
SLEEP = [0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0], [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4]
FLAGS = ("--quick", "--epochs", 1, "--batch-size", 4, "--accelerator", "cpu")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A folder with twelve made-up molecules and twelve made-up shapes."""
    rng, folder = np.random.default_rng(0), tmp_path_factory.mktemp("data")
    split = np.array([0] * 8 + [1] * 4, np.uint8)
    atoms, bonds = 4, np.array([[0, 1], [1, 2], [2, 3]], np.uint8)
    molecules = {
        "ptr": np.arange(13, dtype=np.int32) * atoms,
        "z": rng.choice([1, 6, 7, 8], 12 * atoms).astype(np.uint8),
        "pos": rng.normal(size=(12 * atoms, 3)).astype(np.float32),
        "mu": rng.uniform(0, 5, 12).astype(np.float32),
        "homo": rng.uniform(-8, -5, 12).astype(np.float32),
        "bond_ptr": np.arange(13, dtype=np.int32) * len(bonds),
        "bonds": np.tile(bonds, (12, 1)),
        "bond_order": rng.integers(1, 4, 12 * len(bonds)).astype(np.uint8),
        "split": split,
    }
    np.savez(folder / "qm9_mu.npz", **molecules)
    normal = rng.normal(size=(12, 1024, 3))
    normal = np.round(127 * normal / np.linalg.norm(normal, axis=2, keepdims=True)).astype(np.int8)
    pos = rng.normal(size=(12, 1024, 3)).astype(np.float32)
    label = np.arange(12) % 2
    np.savez(folder / "shapes.npz", pos=pos, normal=normal, label=label, classes=np.array(["a", "b"]), split=split)
    return folder


@pytest.fixture
def study(capfd):
    """(exit status, standard output, standard error) of a command."""

    def call(*argv):
        status = main(["study", *map(str, argv)])
        done = capfd.readouterr()
        return status, done.out, done.err

    return call


def tiny(epochs=1):
    """Two networks, each trained in a second."""
    made = design("symmetry", Request(size="quick", training={"epochs": epochs, "n_train": 16, "batch_size": 8}))
    return replace(made, arms=(made.arms[0], made.arms[2]))


def rows(path):
    with open(path, encoding="utf-8") as f:
        return list(csv.DictReader(f))


def results(out, arm, seed):
    return json.loads((out / "runs" / arm / f"seed{seed}" / "results.json").read_text())


def without_times(table):
    return [{k: v for k, v in row.items() if k != "seconds"} for row in table]


# ---- statistics -------------------------------------------------------------------------------------------------


def test_sleep_of_ten_patients():
    """Welch: t = -1.8608 with 17.776 degrees of freedom; paired: t = -4.0621 with 9."""
    a, b = (dict(enumerate(sample)) for sample in SLEEP)
    found = compare(a, b)
    assert found.difference == pytest.approx(-1.58, abs=1e-12)
    assert found.welch == pytest.approx(0.07939, abs=5e-6) and found.paired == pytest.approx(0.002833, abs=5e-7)
    back = compare(b, a)
    assert (back.difference, back.welch, back.paired) == pytest.approx((1.58, found.welch, found.paired))
    assert deviation(SLEEP[0]) == pytest.approx(1.78901, abs=5e-6)


def test_two_values_each_by_hand():
    """t = -2 / (0.5 + 0.5)^(1/2) with 2 degrees of freedom, p = 1 - |t| / (t² + 2)^(1/2)."""
    assert compare({0: 1.0, 1: 3.0}, {0: 5.0, 1: 3.0}).welch == pytest.approx(1 - 2**0.5 / 2**0.5 / 2**0.5)


def test_pairs_are_those_of_one_seed():
    a, b = (dict(enumerate(sample)) for sample in SLEEP)
    shuffled = dict(reversed(b.items()))
    assert compare(a, shuffled) == compare(a, b)
    moved = {seed + 1: x for seed, x in b.items()}
    assert compare(a, moved).welch == compare(a, b).welch and compare(a, moved).paired != compare(a, b).paired
    assert compare(a, {9: 1.0}).paired is None and compare(a, {9: 1.0}).welch is None


def test_what_cannot_be_said_is_not_said():
    assert compare({}, {0: 1.0}) == compare({0: 1.0}, {}) == Comparison()
    assert compare({0: 1.0}, {0: 3.0}) == Comparison(-2.0)
    alike = {0: 1.0, 1: 1.0}
    assert compare(alike, alike) == Comparison(0.0)
    assert compare({0: 1.0, 1: 2.0}, {0: 2.0, 1: 3.0}).paired is None
    assert deviation([1.0]) is None


def test_a_run_that_diverged_is_left_out():
    made = tiny()
    blank = {"value": None, "parameters": 7, "unit": "m", "baseline": 1.0, "seconds_training": 1.0}
    mine, other = (arm.name for arm in made.arms)
    reached = {mine: {0: blank | {"value": 1.0}, 1: blank, 2: blank | {"value": 3.0}}, other: {0: blank}}
    first, second = summarise(made, reached)
    assert (first.n, first.mean, first.deviation) == (2, 2.0, pytest.approx(2**0.5))
    assert first.difference is None and first.welch is None and (second.n, second.mean) == (0, None)


# ---- every study ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "more", "arms"),
    [
        ("groups", ("--groups", "M"), ["M-implicit", "M-fixed"]),
        ("attributes", ("--n-train", 8), ["fixed-basis", "implicit", "with-bonds", "with-atoms", "with-both"]),
        ("qm9", ("--target", "mu", "homo"), ["mu", "homo"]),
        ("symmetry", ("--n-train", 16), ["right", "part", "none", "too-large"]),
        ("samples", ("--field", "magnetic"), ["right-50", "none-50", "right-150", "none-150"]),
    ],
)
def test_a_study_says_what_its_runs_say(name, more, arms, root, study, tmp_path):
    out = tmp_path / "study"
    where = ("--root", root) if name in ("groups", "attributes", "qm9") else ()
    status, printed, err = study(name, *where, *FLAGS, *more, "--seeds", 2, "--out", out)
    assert status == 0, err
    table = rows(out / f"{name}.csv")
    assert [row["arm"] for row in table] == arms
    for row in table:
        values = [results(out, row["arm"], seed)["value"] for seed in (0, 1)]
        assert row["n"] == "2" and float(row["mean"]) == pytest.approx(np.mean(values), rel=1e-5)
        assert float(row["deviation"]) == pytest.approx(np.std(values, ddof=1), rel=1e-4, abs=1e-6)
        assert int(row["parameters"]) == results(out, row["arm"], 0)["parameters"]
        if row["against"]:
            other = [results(out, row["against"], seed)["value"] for seed in (0, 1)]
            assert float(row["difference"]) == pytest.approx(np.mean(values) - np.mean(other), rel=1e-4, abs=1e-6)
    sizes = [int(row["parameters"]) for row in table]
    if name != "qm9":
        tuned = sizes["fixed" in arms[0]]
        assert all(abs(size - tuned) <= 0.1 * tuned for size in sizes), sizes
    page = (out / f"{name}.md").read_text()
    assert printed.startswith(page) and all(f"| {arm} |" in page for arm in arms)
    assert (out / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    assert not list(out.rglob("*.part"))


@pytest.mark.parametrize("size", ["quick", "small", "full"])
@pytest.mark.parametrize(
    ("name", "own"),
    [
        ("groups", {"kernel", "rings", "width", "hidden", "radial"}),
        ("attributes", {"kernel", "rings", "width", "hidden", "radial", "attributes", "lr"}),
        ("symmetry", set()),
        ("samples", set()),
    ],
)
def test_arms_differ_in_what_the_study_is_about(name, own, size, root):
    arms = {arm.name: arm for arm in design(name, Request(root=str(root), size=size)).arms}
    compared = [(arm, arms[arm.against]) for arm in arms.values() if arm.against]
    assert len(compared) >= len(arms) // 2
    for one, other in compared:
        a, b = (asdict(arm.config) | arm.config.model | {"model": None} for arm in (one, other))
        assert {key for key in a.keys() | b.keys() if a.get(key) != b.get(key)} <= own


def test_the_right_symmetry_wins(tmp_path):
    """A study that could not tell networks apart would be of no use."""
    made = design("symmetry", Request(size="quick", training={"epochs": 8}))
    made = replace(made, arms=tuple(arm for arm in made.arms if arm.name in ("right", "none")))
    right, none = run_study(made, tmp_path, seeds=3, accelerator="cpu")
    assert right.mean < 0.9 * none.mean and right.welch < 0.05 and right.paired < 0.05


# ---- stop and go on ---------------------------------------------------------------------------------------------


def test_a_study_that_was_stopped_goes_on(tmp_path):
    made = tiny(epochs=2)
    run_study(made, tmp_path / "whole", seeds=2, accelerator="cpu")
    out, said = tmp_path / "stopped", []
    with pytest.raises(KeyboardInterrupt):
        run_study(made, out, seeds=2, accelerator="cpu", callbacks=(At(1, 0, interrupt),))
    assert not list(out.rglob("results.json")) and len(list(out.rglob("last.ckpt"))) == 1
    run_study(made, out, seeds=1, accelerator="cpu")
    before = {p: p.stat().st_mtime_ns for p in out.rglob("results.json")}
    assert len(before) == 2
    run_study(made, out, seeds=2, accelerator="cpu", say=said.append)
    assert said[0] == "4 runs, 2 of them done before" and len(said) == 3
    assert before.items() <= {p: p.stat().st_mtime_ns for p in out.rglob("results.json")}.items()
    whole, stopped = (rows(tmp_path / folder / "symmetry.csv") for folder in ("whole", "stopped"))
    assert without_times(whole) == without_times(stopped) and whole[0]["n"] == "2"


def test_threads_do_not_change_the_numbers(tmp_path):
    before = torch.get_num_threads()
    found = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        try:
            run_study(tiny(), tmp_path / str(threads), seeds=1, accelerator="cpu")
            assert torch.get_num_threads() == threads
        finally:
            torch.set_num_threads(before)
        found.append(without_times(rows(tmp_path / str(threads) / "symmetry.csv")))
    assert found[0] == found[1]


@pytest.mark.slow
def test_processes_do_not_change_the_numbers(tmp_path):
    for jobs in (1, 2):
        run_study(tiny(), tmp_path / str(jobs), seeds=2, jobs=jobs, accelerator="cpu")
    one, many = (rows(tmp_path / jobs / "symmetry.csv") for jobs in ("1", "2"))
    assert without_times(one) == without_times(many)


def test_other_settings_in_the_same_folder_are_refused(tmp_path):
    run_study(tiny(), tmp_path, seeds=1, accelerator="cpu")
    before = (tmp_path / "symmetry.csv").read_bytes()
    with pytest.raises(ValueError, match="seed0 holds a run with epochs = 1, and now it would be 2"):
        run_study(tiny(epochs=2), tmp_path, seeds=1, accelerator="cpu")
    assert (tmp_path / "symmetry.csv").read_bytes() == before


# ---- sizes ------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("size", ["quick", "small", "full"])
@pytest.mark.parametrize("name", ["groups", "attributes", "symmetry", "samples"])
def test_networks_are_of_equal_size(name, size, root):
    from emkernel._tasks import TASKS

    made = match(design(name, Request(root=str(root), size=size, training={} if name == "samples" else {"n_train": 8})))
    data = TASKS[made.arms[0].config.task].load(made.arms[0].config)["train"]
    sizes = []
    for arm in made.arms:
        network = TASKS[arm.config.task].build(arm.group, arm.config, data)
        sizes.append(sum(p.numel() for p in network.parameters()))
    tuned = sizes["fixed" in made.arms[0].name]
    assert all(abs(n - tuned) <= 0.1 * tuned for n in sizes), dict(zip((a.name for a in made.arms), sizes))


def test_sizes_that_cannot_be_equal_are_an_error():
    made = tiny()
    right, none = made.arms
    least = replace(none, config=replace(none.config, model=none.config.model | {"channels": 1}))
    with pytest.raises(ValueError, match="no number of channels has"):
        match(replace(made, arms=(least, right)))


# ---- refused ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (("groups",), "needs --root"),
        (("attributes",), "needs --root"),
        (("attributes", "--root", "x", "--target", "mu", "homo"), "is one of one target, got mu, homo"),
        (("symmetry", "--target", "mu"), "--target does not apply to the study symmetry, which has --field"),
        (("qm9", "--root", "x", "--groups", "M"), "--groups does not apply"),
        (("samples", "--n-train", "5"), "n_train is what the study of samples varies"),
        (("symmetry", "--seeds", "0"), "seeds and jobs must be at least 1"),
        (("symmetry", "--epochs", "0"), "epochs must be at least 1"),
        (("groups", "--root", "x", "--groups", "Nobody"), "no group is called 'Nobody'"),
        (("qm9", "--root", "absent"), "does not exist"),
        (("groups", "--root", "absent"), "holds no ModelNet"),
    ],
)
def test_settings_that_make_no_sense(argv, words, study, tmp_path):
    status, out, err = study(*argv, "--out", tmp_path / "study")
    assert status == 2 and out == "" and words in err and err.startswith("emkernel: ") and err.count("\n") == 1
    assert not (tmp_path / "study").exists()


def test_a_name_that_no_study_has():
    with pytest.raises(ValueError, match="no study is called 'rotations'; there are groups, attributes"):
        design("rotations", Request())
    with pytest.raises(ValueError, match="size must be one of quick, small, full"):
        Request(size="large")
    with pytest.raises(ValueError, match="electric"):
        design("symmetry", Request(field="none"))
    with pytest.raises(DataError, match="needs --root"):
        design("qm9", Request())
    assert list(DESIGNS) == ["groups", "attributes", "qm9", "symmetry", "samples"]


def test_groups_of_ones_own(root):
    mine = ek.MatrixGroup("mine", [np.diag([1.0, 1.0, -1.0])])
    made = design("groups", Request(root=str(root), groups=(mine,), rotations="so3"))
    assert [arm.group for arm in made.arms] == [mine, mine]
    assert all(isinstance(arm.config, RunConfig) and arm.config.rotations == "so3" for arm in made.arms)
