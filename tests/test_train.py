"""Training runs: what they leave on disk, and that they can be stopped, killed and resumed."""

import contextlib
import csv
import dataclasses
import json
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from test_data import box, compact_qm9, csv_text, sdf_text

import emkernel as ek
from emkernel import _keep
from emkernel.cli import main
from emkernel.data import RaggedGraphs, load_nbody
from emkernel.errors import DataError, GroupError
from emkernel.models import ParticleNet
from emkernel.nn import Gate, OrbitELU
from emkernel.train import TASKS, RunConfig, random_rotations, train

pl = pytest.importorskip("lightning.pytorch")

G = ek.MatrixGroup("half turn", [np.diag([-1.0, -1.0, 1.0])])
TINY = {"channels": 2, "layers": 1, "width": 2, "hidden": 8}
FLAGS = ("--channels", 2, "--layers", 1, "--width", 2, "--hidden", 8, "--no-progress")


def tiny(epochs=3, **more):
    """A run of seconds: four batches in each epoch."""
    return RunConfig("nbody", **{"epochs": epochs, "n_train": 32, "batch_size": 8, "model": TINY} | more)


@pytest.fixture
def roots(tmp_path):
    """Data of each task in a format in which they are distributed."""
    qm9, modelnet = tmp_path / "qm9", tmp_path / "modelnet"
    qm9.mkdir()
    (qm9 / "gdb9.sdf").write_text(sdf_text())
    (qm9 / "gdb9.sdf.csv").write_text(csv_text())
    for name, header in (("box", "OFF\n8 6 0\n"), ("chest", "OFF8 6 0\n")):
        for i in range(5):
            file = modelnet / name / "train" / f"{name}_{i}.off"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(box(header))
    return {"nbody": None, "qm9": str(qm9), "modelnet": str(modelnet)}


SHAPES = {"channels": (2, 2), "points": (32, 8), "neighbours": (6, 6), "cutoffs": (0.5, 1.0), "degree": 1}


def config_for(task, roots, **more):
    if task == "nbody":
        return tiny(**more)
    model = TINY if task == "qm9" else SHAPES | {"width": 2, "hidden": 8}
    return RunConfig(task, **{"root": roots[task], "epochs": 3, "batch_size": 4, "model": model} | more)


def read_json(path):
    def refuse(constant):
        raise AssertionError(f"{path} holds {constant}, which is not JSON")

    return json.loads(path.read_text(), parse_constant=refuse)


def rows(out):
    with open(out / "metrics.csv") as f:
        return [{k: float(v) for k, v in row.items()} for row in csv.DictReader(f)]


def checkpoint(out, name="last"):
    return torch.load(out / "checkpoints" / f"{name}.ckpt", weights_only=True)


def same_weights(a, b):
    a, b = checkpoint(a), checkpoint(b)
    assert a["state_dict"].keys() == b["state_dict"].keys()
    return all(torch.equal(w, b["state_dict"][k]) for k, w in a["state_dict"].items())


def without_times(table):
    return [{k: v for k, v in row.items() if k != "seconds"} for row in table]


def nothing_half_written(out):
    for path in out.rglob("*.json"):
        read_json(path)
    for path in out.rglob("*.ckpt"):
        torch.load(path, weights_only=True)


class At(pl.Callback):
    """Do something at the start of a batch of an epoch."""

    def __init__(self, epoch, batch, action):
        self.when, self.action = (epoch, batch), action

    def on_train_batch_start(self, trainer, module, batch, index):
        if (trainer.current_epoch, index) == self.when:
            self.action()


def interrupt():
    raise KeyboardInterrupt


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that nothing disturbed."""
    out = tmp_path_factory.mktemp("runs") / "whole"
    return out, train(G, tiny(), out, progress=False)


# ---- what a run leaves ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", ["nbody", "qm9", "modelnet"])
def test_a_run_leaves_its_results(task, roots, tmp_path):
    config, out = config_for(task, roots, epochs=2), tmp_path / "run"
    results = train(G, config, out, progress=False)
    assert results == read_json(out / "results.json")
    kept = read_json(out / "config.json")
    assert kept["group_digest"] == G.digest and kept["task"] == task and kept["epochs"] == 2
    table, metric = rows(out), results["metric"]
    assert [row["epoch"] for row in table] == [0, 1] and results["epochs"] == 2
    assert results["value"] == pytest.approx(table[-1][metric], rel=1e-5)
    pick = max if task == "modelnet" else min
    assert results["best"] == pytest.approx(pick(row[metric] for row in table), rel=1e-5)
    assert results["parameters"] > 0 and np.isfinite(results["baseline"])
    found = sorted(str(p.relative_to(out)) for p in out.rglob("*") if p.is_file())
    assert found == [
        "checkpoints/best.ckpt",
        "checkpoints/last.ckpt",
        "config.json",
        "metrics.csv",
        "results.json",
    ]


UNITS = {
    "mu": "D", "alpha": "bohr^3", "homo": "meV", "lumo": "meV", "gap": "meV", "r2": "bohr^2", "zpve": "meV",
    "U0": "meV", "U": "meV", "H": "meV", "G": "meV", "Cv": "cal/(mol K)",
}  # fmt: skip


@pytest.mark.parametrize("target", UNITS)
def test_every_target_of_qm9_is_trained_in_its_unit(target, roots, tmp_path):
    config = RunConfig("qm9", root=roots["qm9"], target=target, epochs=1, batch_size=4, model=TINY)
    results = train(G, config, tmp_path / "run", progress=False)
    assert results["unit"] == UNITS[target] and np.isfinite([results["value"], results["baseline"]]).all()


def molecules(n=40, seed=0):
    """Chains of 2 to 9 atoms, with quantities that add up over atoms, or over their squares."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(2, 10, n)
    z, pos = rng.integers(0, 5, sizes.sum()), rng.standard_normal((sizes.sum(), 3))
    ptr = torch.tensor([0, *sizes]).cumsum(0)
    data = RaggedGraphs(
        torch.tensor(pos, dtype=torch.float32),
        ptr,
        torch.zeros(n),
        x={"z": torch.tensor(z)},
        edges=torch.tensor([[a for k in sizes for a in range(k - 1)], [a + 1 for k in sizes for a in range(k - 1)]]),
        edge_ptr=torch.tensor([0, *(sizes - 1)]).cumsum(0),
        edge_attr={"bond": torch.ones(int((sizes - 1).sum()), dtype=torch.int64)},
        undirected=True,
    )
    owner = torch.arange(n).repeat_interleave(ptr.diff())
    return data, owner


def test_a_target_is_normalised_by_what_the_training_part_says_of_it():
    """Before any training what adds up over elements, or is an extent, is known; what remains is the network's."""
    data, owner = molecules()
    each = torch.tensor([-500.0, -38.0e3, -54.0e3, -75.0e3, -99.0e3])
    data.y = torch.zeros(len(data)).index_add(0, owner, each[data.x["z"].long()]) + torch.randn(len(data))
    config = RunConfig("qm9", target="U0", model=TINY)
    network = TASKS["qm9"].build(G, config, data)
    torch.nn.init.zeros_(network.head[-1].weight[0])
    torch.testing.assert_close(network(data[range(len(data))]), data.y, atol=5.0, rtol=0)
    assert 0.5 < TASKS["qm9"].scale(config, data) / float(data.y.std()) < 2
    centre = torch.zeros(len(data), 3).index_add(0, owner, data.pos) / data.ptr.diff()[:, None]
    data.y = 7 * torch.zeros(len(data)).index_add(0, owner, (data.pos - centre[owner]).square().sum(1))
    network = TASKS["qm9"].build(G, RunConfig("qm9", target="r2", model=TINY), data)
    torch.nn.init.zeros_(network.head[-1].weight[0])
    torch.testing.assert_close(network(data[range(len(data))]), data.y)


def test_what_is_not_trained_on_does_not_normalise(roots, tmp_path, monkeypatch):
    seen = []
    build = TASKS["nbody"].build
    task = dataclasses.replace(TASKS["nbody"], build=lambda *args: seen.append(args[2].y) or build(*args))
    task = dataclasses.replace(task, load=lambda config: load_nbody(n_train=64, n_val=4))
    monkeypatch.setitem(TASKS, "nbody", task)
    train(G, tiny(epochs=1, n_train=9), tmp_path / "run", progress=False)
    assert torch.equal(seen[0], load_nbody(n_train=9)["train"].y)


def test_the_best_checkpoint_is_the_network_with_the_best_error(whole):
    out, results = whole
    network = ParticleNet(G, **TINY)
    weights = checkpoint(out, "best")["state_dict"]
    network.load_state_dict({k.removeprefix("network."): w for k, w in weights.items()})
    data = load_nbody(n_train=1)["val"]
    batch = data[range(len(data))]
    with torch.no_grad():
        error = (network(batch) - batch.y).norm(dim=1).mean()
    assert float(error) == pytest.approx(results["best"], rel=1e-4)


def test_it_learns(tmp_path):
    config = RunConfig(
        "nbody", epochs=4, n_train=200, batch_size=20, lr=1e-2, model={"channels": 4, "layers": 1}
    )
    results = train(ek.groups.Cz(3), config, tmp_path / "run", progress=False)
    assert results["best"] < 0.75 * results["baseline"]


def test_one_seed_one_result(whole, tmp_path):
    out, _ = whole
    train(G, tiny(), tmp_path / "again", progress=False)
    train(G, tiny(seed=1), tmp_path / "other", progress=False)
    assert same_weights(out, tmp_path / "again")
    assert without_times(rows(out)) == without_times(rows(tmp_path / "again"))
    assert not same_weights(out, tmp_path / "other")


def test_a_run_that_diverges_still_writes_json(tmp_path):
    results = train(G, tiny(epochs=1, lr=1e30, clip=0.0), tmp_path / "run", progress=False)
    assert results["value"] is None and results["best"] is None and results["checkpoint"] is None
    assert read_json(tmp_path / "run" / "results.json") == results


def test_training_items(tmp_path):
    results = train(G, tiny(epochs=1, n_train=5), tmp_path / "run", progress=False)
    assert results["training_items"] == 5 and checkpoint(tmp_path / "run")["global_step"] == 1


def test_moving_average_of_the_weights(tmp_path):
    results = train(G, tiny(epochs=1, average=0.5), tmp_path / "run", progress=False)
    assert np.isfinite(results["value"])


# ---- switches ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("task", "flags", "holds"),
    [
        ("nbody", ("--attributes", "velocities"), lambda net: str(net.edge_rep) == "V"),
        ("nbody", ("--attributes", "charges"), lambda net: str(net.edge_rep) == "2Scalar"),
        ("nbody", ("--attributes", "none"), lambda net: net.edge_rep is None),
        ("nbody", (), lambda net: str(net.edge_rep) == "2Scalar + V" and isinstance(net.blocks[0].gate, Gate)),
        ("nbody", ("--kernel", "fixed"), lambda net: net.edge_rep is None),
        ("nbody", ("--nonlinearity", "orbit"), lambda net: isinstance(net.blocks[0].gate, OrbitELU)),
        ("qm9", ("--attributes", "none"), lambda net: net.edge_rep is None),
        ("qm9", ("--attributes", "bonds"), lambda net: str(net.edge_rep) == "5Scalar"),
        ("qm9", ("--attributes", "atoms"), lambda net: str(net.edge_rep) == "10Scalar"),
        ("qm9", ("--attributes", "atoms,bonds", "--radius", "2"), lambda net: str(net.edge_rep) == "15Scalar"),
        (
            "modelnet",
            ("--points", "32,8,4", "--neighbours", "6", "--cutoffs", "0.4,0.8,1.6", "--channels", "2,2,3",
             "--nonlinearity", "orbit", "--invariant"),
            lambda net: net.points == (32, 8, 4) and net.neighbours == (6, 6, 6) and str(net.pool.rep) == "3Scalar"
            and [b.conv.kernel.embed.cutoff for b in net.blocks] == [0.4, 0.8, 1.6]
            and all(isinstance(b.gate, OrbitELU) for b in net.blocks),
        ),
    ],
    ids=lambda value: ",".join(value) if isinstance(value, tuple) else None,
)  # fmt: skip
def test_the_network_is_chosen_on_the_command_line(cli, roots, tmp_path, monkeypatch, task, flags, holds):
    built = []
    build = TASKS[task].build
    monkeypatch.setitem(
        TASKS, task, dataclasses.replace(TASKS[task], build=lambda *args: built.append(build(*args)) or built[-1])
    )
    sizes = ["--width", 2, "--hidden", 8] if "fixed" not in flags else []
    sizes += ["--channels", 2, "--layers", 1] if task != "modelnet" else []
    root = ["--root", roots[task]] if roots[task] else ["--n-train", 8]
    status, _, err = cli(task, *root, *sizes, *flags, "--epochs", 1, "--batch-size", 4, "--no-progress", "--out",
                         tmp_path / "run")  # fmt: skip
    assert status == 0, err
    assert holds(built[0])


def test_switches_that_make_no_sense(refused, roots, tmp_path):
    out = ("--no-progress", "--out", tmp_path / "run", "--n-train", 8)
    assert "('charges', 'velocities'), as a sequence, got ('spins',)" in refused("nbody", "--attributes", "spins", *out)
    assert "fixed kernel sees no attributes" in refused("nbody", "--attributes", "charges", "--kernel", "fixed", *out)
    assert "'gate' or 'orbit', got 'relu'" in refused("nbody", "--nonlinearity", "relu", *out)
    assert "--points does not apply to nbody" in refused("nbody", "--points", "3,4", *out)
    assert "not compact" in refused("nbody", "--nonlinearity", "orbit", "--group", shear(tmp_path), *out)


def shear(folder):
    (folder / "shear.py").write_text(
        "import emkernel as ek\nG = ek.MatrixGroup('boosts', lie_algebra=[[[0, 1, 0], [1, 0, 0], [0, 0, 0]]])\n"
    )
    return f"{folder / 'shear.py'}:G"


# ---- stop and resume --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("task", "more"),
    [("nbody", {}), ("nbody", {"average": 0.9}), ("modelnet", {})],
    ids=["nbody", "average", "modelnet"],
)
@pytest.mark.parametrize("batch", [0, 1])
def test_a_resumed_run_ends_where_an_uninterrupted_one_does(task, more, batch, roots, tmp_path):
    """Also with augmentation and dropout; in the middle of an epoch as well as between two."""
    config = config_for(task, roots, **more)
    train(G, config, tmp_path / "whole", progress=False)
    stopped = tmp_path / "stopped"
    with pytest.raises(KeyboardInterrupt):
        train(G, config, stopped, progress=False, callbacks=(At(2, batch, interrupt),))
    assert len(rows(stopped)) == 2 and not (stopped / "results.json").exists()
    assert not same_weights(tmp_path / "whole", stopped)
    train(G, config, stopped, resume=True, progress=False)
    assert same_weights(tmp_path / "whole", stopped)
    assert without_times(rows(tmp_path / "whole")) == without_times(rows(stopped))
    a, b = read_json(tmp_path / "whole" / "results.json"), read_json(stopped / "results.json")
    assert (a["value"], a["best"], a["epochs"]) == (b["value"], b["best"], b["epochs"])


def test_the_last_checkpoint_is_of_the_last_epoch_not_of_the_best(tmp_path):
    class Worse(pl.Callback):
        def on_train_epoch_start(self, trainer, module):
            module.network.scale.fill_(1 + 100 * trainer.current_epoch)

    train(G, tiny(), tmp_path / "run", progress=False, callbacks=(Worse(),))
    assert checkpoint(tmp_path / "run", "best")["epoch"] == 0
    assert checkpoint(tmp_path / "run", "last")["epoch"] == 2


def test_more_epochs_for_a_finished_run(whole, tmp_path):
    out = tmp_path / "run"
    train(G, tiny(epochs=1), out, progress=False)
    results = train(G, tiny(epochs=2), out, resume=True, progress=False)
    assert results["epochs"] == 2 and [row["epoch"] for row in rows(out)] == [0, 1]
    assert train(G, tiny(epochs=2), out, resume=True, progress=False)["epochs"] == 2


KILLED = """
import os, signal, sys
sys.path.insert(0, {tests!r})
from test_train import G, At, tiny, train, _keep

def kill(*_):
    os.kill(os.getpid(), signal.SIGKILL)

if {where!r} == "writing":
    replace, count = os.replace, []
    def killed(source, target):
        count.append(str(target))
        if sum(t.endswith("last.ckpt") for t in count) == 2:
            open(source, "r+b").truncate(100)
            kill()
        replace(source, target)
    _keep.os.replace = killed
train(G, tiny(), {out!r}, progress=False, callbacks=(At(2, 1, kill),))
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs a system with SIGKILL")
@pytest.mark.parametrize(("where", "kept"), [("batch", 2), ("writing", 1)])
def test_a_killed_run_is_usable(where, kept, whole, tmp_path):
    out = tmp_path / "run"
    code = KILLED.format(tests=str(Path(__file__).parent), where=where, out=str(out))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.returncode == -signal.SIGKILL, done.stderr
    nothing_half_written(out)
    assert checkpoint(out)["epoch"] == kept - 1 and not (out / "results.json").exists()
    train(G, tiny(), out, resume=True, progress=False)
    assert same_weights(whole[0], out) and without_times(rows(whole[0])) == without_times(rows(out))


class Killed(BaseException):
    """Nothing in the library catches it, as nothing catches SIGKILL."""


def test_a_run_killed_at_any_file_loses_nothing(whole, tmp_path, monkeypatch):
    replaced, limit = [], 10**9
    replace = os.replace

    def counted(source, target):
        if len(replaced) == limit:
            raise Killed
        replaced.append(Path(target).name)
        replace(source, target)

    monkeypatch.setattr(_keep.os, "replace", counted)
    train(G, tiny(), tmp_path / "counted", progress=False)
    files = list(replaced)
    assert {"config.json", "best.ckpt", "metrics.csv", "last.ckpt", "results.json"} == set(files)
    # the last epoch, which nothing after it would write again, and the end
    for at in range(files.index("last.ckpt", files.index("last.ckpt") + 1) + 1, len(files)):
        out, limit = tmp_path / f"killed{at}", at
        replaced.clear()
        with pytest.raises(Killed):
            train(G, tiny(), out, progress=False)
        limit = 10**9
        train(G, tiny(), out, resume=True, progress=False)
        assert without_times(rows(whole[0])) == without_times(rows(out)), f"killed before {files[at]}"
        assert same_weights(whole[0], out) and (out / "results.json").exists()
        assert not list(out.rglob("*.part"))


def test_a_json_is_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "a.json"
    _keep.write_json(path, {"a": 1})
    with pytest.raises(ValueError):
        _keep.write_json(path, {"a": float("nan")})
    with pytest.raises(TypeError):
        _keep.write_json(path, {"a": object()})
    assert read_json(path) == {"a": 1} and os.listdir(tmp_path) == ["a.json"]


def test_the_order_of_an_epoch_follows_from_seed_and_epoch():
    def order(seed, epoch):
        sampler = _keep.EpochShuffle(50, 8, seed)
        sampler.set_epoch(epoch)
        torch.rand(3)
        return [item for batch in sampler for item in batch]

    assert sorted(order(0, 0)) == list(range(50)) and order(0, 3) == order(0, 3)
    assert len({tuple(order(s, e)) for s in range(3) for e in range(3)}) == 9


# ---- several processes ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("world", [1, 2, 3])
@pytest.mark.parametrize(("n", "size"), [(50, 8), (48, 8), (7, 8), (9, 8), (3, 3)])
def test_processes_share_every_batch(monkeypatch, world, n, size):
    def seen(make, of):
        found = []
        for rank in range(world):
            monkeypatch.setattr(_keep, "processes", lambda rank=rank: (rank, world))
            found.append(of(make()))
        return found

    alone = list(_keep.EpochShuffle(n, size, 5))
    parts = seen(lambda: _keep.EpochShuffle(n, size, 5), list)
    assert [len(batches) for batches in parts] == [len(alone)] * world == [-(-n // size)] * world
    for k, batch in enumerate(alone):
        assert len(batch) in (n // len(alone), -(-n // len(alone)))
        assert sorted(item for batches in parts for item in batches[k]) == sorted(batch)
    assert sorted(item for batch in alone for item in batch) == list(range(n))
    weights = seen(lambda: _keep.EpochShuffle(n, size, 5), lambda s: [s.weight(k) for k in range(len(s))])
    for k, batch in enumerate(alone):
        for rank in range(world):
            assert weights[rank][k] == pytest.approx(len(parts[rank][k]) * world / len(batch))


@pytest.mark.parametrize("world", [1, 2, 3])
@pytest.mark.parametrize(("n", "size"), [(50, 8), (48, 8), (7, 8), (1, 1)])
def test_processes_validate_every_item_once(monkeypatch, world, n, size):
    found, lengths = {}, set()
    for rank in range(world):
        monkeypatch.setattr(_keep, "processes", lambda rank=rank: (rank, world))
        turns = _keep.InTurn(n, size)
        batches = list(turns)
        lengths.add(len(batches))
        assert len(batches) == len(turns) and all(batches)
        for index, batch in enumerate(batches):
            if (number := turns.number(index)) is not None:
                assert number not in found
                found[number] = batch
    assert len(lengths) == 1
    assert [item for number in sorted(found) for item in found[number]] == list(range(n))


def two_processes(job, *args):
    """As a cluster starts them, but forked."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    torch.multiprocessing.start_processes(_process, (port, job, args), nprocs=2, start_method="fork")


def _process(rank, port, job, args):
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), LOCAL_RANK=str(rank), RANK=str(rank))
    os.environ.update(NODE_RANK="0", WORLD_SIZE="2")
    job(rank, *args)


def train_together(rank, config, out, stop=None, resume=False):
    seen = []

    class Seen(pl.Callback):
        def on_train_batch_start(self, trainer, module, batch, index):
            seen.extend(batch.pos[:: len(batch.pos) // batch.num_graphs, 0].tolist())

    watch = (Seen(), *([At(*stop, interrupt)] if stop else []))
    with pytest.raises(KeyboardInterrupt) if stop else contextlib.nullcontext():
        results = train(
            G, config, out, callbacks=watch, devices=2, accelerator="cpu", progress=False, resume=resume
        )
        torch.save((results, seen), f"{out}-{rank}.pt")


SHARED = tiny(n_train=21)  # batches of 7: one process has 4 of each, the other 3
TOGETHER = """
import sys
sys.path.insert(0, {tests!r})
import torch
from emkernel import _keep
from test_train import *

torch.set_num_threads(1)
two_processes(train_together, SHARED, {out!r} + "/both", (2, 1))
assert len(rows(Path({out!r} + "/both"))) == 2 and not os.path.exists({out!r} + "/both/results.json")
two_processes(train_together, SHARED, {out!r} + "/both", None, True)
two_processes(train_together, RunConfig("qm9", root={qm9!r}, **GAP), {out!r} + "/molecules")
_keep.EpochShuffle.weight = lambda self, index: 1.0
two_processes(train_together, SHARED, {out!r} + "/wrong")
assert "jax" not in sys.modules  # it does not survive a fork
"""
GAP = {"target": "gap", "epochs": 2, "batch_size": 4, "model": TINY}


@pytest.fixture(scope="module")
def together(tmp_path_factory):
    """Runs by one process and by two: the first was interrupted in the middle of an epoch, and resumed."""
    if not (hasattr(os, "fork") and torch.distributed.is_available()):
        pytest.skip("needs processes that are forked")
    out = tmp_path_factory.mktemp("together")
    (out / "qm9").mkdir()
    (out / "qm9" / "gdb9.sdf").write_text(sdf_text())
    (out / "qm9" / "gdb9.sdf.csv").write_text(csv_text())
    train(G, SHARED, out / "alone", progress=False)
    train(G, RunConfig("qm9", root=str(out / "qm9"), **GAP), out / "alone-molecules", progress=False)
    code = TOGETHER.format(tests=str(Path(__file__).parent), out=str(out), qm9=str(out / "qm9"))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return out


def test_two_processes_do_what_one_does(together):
    one, two = rows(together / "alone"), rows(together / "both")
    for name in ("loss", "distance", "lr"):
        assert [row[name] for row in one] == pytest.approx([row[name] for row in two], rel=1e-5), name
    mine, theirs = (checkpoint(together / run)["state_dict"] for run in ("alone", "both"))
    for name, w in mine.items():
        torch.testing.assert_close(theirs[name], w, rtol=1e-4, atol=1e-5, msg=name)
    # with other shares in the mean they would not
    assert abs(rows(together / "wrong")[-1]["distance"] - one[-1]["distance"]) > 1e-5 * one[-1]["distance"]


def test_two_processes_see_every_item_once_and_leave_one_run(together):
    found = sorted(p.name for p in (together / "both").rglob("*") if p.is_file())
    assert found == ["best.ckpt", "config.json", "last.ckpt", "metrics.csv", "results.json"]
    (first, seen), (second, others) = (torch.load(f"{together / 'both'}-{k}.pt", weights_only=False) for k in (0, 1))
    for name in first.keys() - {"seconds_training", "seconds_building"}:
        assert first[name] == second[name] == read_json(together / "both" / "results.json")[name]
    # in the epoch that was begun anew
    data = load_nbody(n_train=21)["train"]
    torch.testing.assert_close(torch.tensor(sorted(seen + others)), data.pos[::5, 0].sort().values)
    assert len(seen) == 12 and len(others) == 9


def test_two_processes_whose_last_fields_are_not_all_read(together):
    """The head of a mean reads invariants only; and there are fewer molecules to validate than processes."""
    one, two = (read_json(together / run / "results.json") for run in ("alone-molecules", "molecules"))
    assert two["value"] == pytest.approx(one["value"], rel=1e-5) and two["epochs"] == 2


def test_batches_too_small_for_the_processes(tmp_path):
    with pytest.raises(ValueError, match="4 training items make no batch of 1 on each of 2 devices"):
        train(G, tiny(n_train=4, batch_size=1), tmp_path / "run", progress=False, devices=2, accelerator="cpu")


# ---- stopping, logging, precision -------------------------------------------------------------------------------


class Flat(pl.Callback):
    """A network that is never better than in its second epoch."""

    def on_validation_epoch_start(self, trainer, module):
        module.network.scale.fill_({0: 3.0, 1: 1.0}.get(trainer.current_epoch, 2.0))


def test_a_run_that_improves_no_more_stops(tmp_path):
    config, out = tiny(epochs=9, patience=2), tmp_path / "run"
    results = train(G, config, out, progress=False, callbacks=(Flat(),))
    distances = [row["distance"] for row in rows(out)]
    assert results["epochs"] == 4 and min(distances) == distances[1] == pytest.approx(results["best"], rel=1e-6)
    assert train(G, config, out, resume=True, progress=False)["epochs"] == 4
    more = dataclasses.replace(config, patience=4)
    assert train(G, more, out, resume=True, progress=False, callbacks=(Flat(),))["epochs"] == 6


def test_half_precision_on_a_processor(whole, cli, tmp_path):
    flags = ("nbody", "--group", "C2z", "--epochs", 3, "--n-train", 32, "--batch-size", 8, "--lr", 2e-3, *FLAGS)
    status, _, err = cli(*flags, "--precision", "bf16-mixed", "--accelerator", "cpu", "--out", tmp_path / "run")
    assert status == 0, err
    mixed, full = rows(tmp_path / "run")[-1]["distance"], rows(whole[0])[-1]["distance"]
    assert mixed != full and mixed == pytest.approx(full, rel=0.05)
    assert all(w.dtype != torch.bfloat16 for w in checkpoint(tmp_path / "run")["state_dict"].values())


def test_events_for_tensorboard(refused, tmp_path, monkeypatch):
    monkeypatch.setattr(pl.loggers.tensorboard.TensorBoardLogger, "__init__", lambda *a, **k: missing())
    err = refused("nbody", *FLAGS, "--n-train", 8, "--tensorboard", "--out", tmp_path / "run")
    assert "pip install tensorboard" in err


def missing():
    raise ModuleNotFoundError("tensorboard")


# ---- refused ----------------------------------------------------------------------------------------------------


@pytest.fixture
def cli(capfd):
    def call(*argv):
        status = main(["train", *map(str, argv)])
        done = capfd.readouterr()
        return status, done.out, done.err

    return call


@pytest.fixture
def refused(cli):
    """The one line with which a run is refused."""

    def call(*argv):
        status, out, err = cli(*argv)
        assert status == 2 and out == "", (status, out, err)
        assert err.startswith("emkernel: ") and err.count("\n") == 1 and "Traceback" not in err
        return err

    return call


@pytest.fixture
def begun(tmp_path, cli):
    """A finished run of the command line, and the flags that made it."""
    flags = (
        "nbody",
        "--group",
        "C2z",
        "--epochs",
        1,
        "--n-train",
        16,
        "--batch-size",
        8,
        *FLAGS,
        "--out",
        tmp_path / "run",
    )
    status, out, err = cli(*flags)
    assert status == 0 and err == "" and re.fullmatch(r"distance \d.* after 1 epochs, .*results.json\n", out)
    return flags


def test_a_run_is_not_overwritten(begun, refused, cli, tmp_path):
    before = (tmp_path / "run" / "results.json").read_text()
    assert "holds a run already" in refused(*begun)
    assert (tmp_path / "run" / "results.json").read_text() == before
    status, out, _ = cli(*begun, "--epochs", 2, "--resume")
    assert status == 0 and "after 2 epochs" in out


def test_resuming_something_else_is_refused(begun, refused, tmp_path):
    before = {p: p.read_bytes() for p in (tmp_path / "run").rglob("*") if p.is_file()}
    err = refused(*begun, "--resume", "--group", "C3z")
    assert (
        err.startswith("emkernel: GroupError")
        and "group Cz(2), not with Cz(3): their generators differ" in err
    )
    assert "model = " in refused(*begun, "--resume", "--channels", 3)
    assert "seed = 0" in refused(*begun, "--resume", "--seed", 1)
    assert "field = 'electric'" in refused(*begun, "--resume", "--field", "magnetic")
    assert "nothing to resume" in refused(*begun, "--resume", "--out", tmp_path / "elsewhere")
    assert {p: p.read_bytes() for p in (tmp_path / "run").rglob("*") if p.is_file()} == before


def test_a_group_of_another_name_with_the_same_generators_is_the_same(tmp_path):
    train(G, tiny(epochs=1), tmp_path / "run", progress=False)
    twin = ek.MatrixGroup("twin", G.discrete_generators)
    assert train(twin, tiny(epochs=2), tmp_path / "run", resume=True, progress=False)["epochs"] == 2
    with pytest.raises(GroupError, match="trained with the group twin, not with Cz"):
        train(ek.groups.Cz(3), tiny(epochs=3), tmp_path / "run", resume=True, progress=False)


@pytest.mark.parametrize("damage", [lambda b: b[: len(b) // 2], lambda b: b"", lambda b: b"no checkpoint"])
def test_a_damaged_checkpoint(begun, refused, tmp_path, damage):
    last = tmp_path / "run" / "checkpoints" / "last.ckpt"
    last.write_bytes(damage(last.read_bytes()))
    assert "last.ckpt is damaged" in refused(*begun, "--epochs", 2, "--resume")


def test_data_that_cannot_be_read(refused, roots, tmp_path):
    out = ("--out", tmp_path / "run", "--no-progress")
    assert "qm9 needs --root" in refused("qm9", *out)
    assert "modelnet needs --root" in refused("modelnet", *out)
    assert "does not exist" in refused("qm9", "--root", tmp_path / "absent", *out)
    assert "holds no ModelNet" in refused("modelnet", "--root", tmp_path, *out)
    sdf = Path(roots["qm9"]) / "gdb9.sdf"
    sdf.write_text(sdf.read_text()[:-300])
    assert re.search(r"DataError: .*gdb9.sdf.*truncated", refused("qm9", "--root", roots["qm9"], *out))
    file = tmp_path / "qm9_mu.npz"
    np.savez(file, **compact_qm9())
    file.write_bytes(file.read_bytes()[:200])
    assert "qm9_mu.npz cannot be read" in refused("qm9", "--root", file, *out)
    assert "expected one of mu" in refused("qm9", "--root", roots["qm9"], "--target", "weight", *out)
    mesh = next(Path(roots["modelnet"]).glob("*/train/*.off"))
    mesh.write_text(mesh.read_text()[:60])
    assert mesh.name in refused("modelnet", "--root", roots["modelnet"], *out)
    assert not (tmp_path / "run").exists()


def test_data_without_a_validation_part(refused, tmp_path):
    np.savez(tmp_path / "qm9_mu.npz", **(compact_qm9() | {"split": np.array([0, 0, 2], np.uint8)}))
    err = refused("qm9", "--root", tmp_path, "--out", tmp_path / "run", *FLAGS)
    assert "has no items for validation" in err


@pytest.mark.parametrize(
    "flags",
    [("--devices", "none"), ("--accelerator", "abacus"), ("--precision", "12"), ("--max-time", "soon")],
)
def test_hardware_that_is_not_there(refused, tmp_path, flags):
    refused("nbody", "--group", "C2z", *FLAGS, "--out", tmp_path / "run", *flags)
    assert not (tmp_path / "run").exists()


def test_an_out_that_is_a_file(refused, tmp_path):
    (tmp_path / "run").write_text("")
    refused("nbody", "--group", "C2z", *FLAGS, "--out", tmp_path / "run")


def test_without_lightning(refused, monkeypatch, tmp_path):
    for name in [m for m in sys.modules if m.split(".")[0] == "lightning"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "lightning", None)
    with pytest.raises(ImportError, match=re.escape("pip install 'emkernel[train]'")):
        train(G, tiny(), tmp_path / "run")
    assert "training needs Lightning" in refused("nbody", *FLAGS, "--out", tmp_path / "run")


def test_what_makes_no_sense():
    with pytest.raises(ValueError, match="task must be one of"):
        RunConfig("mnist")
    with pytest.raises(ValueError, match="epochs must be at least 1, got 0"):
        RunConfig("nbody", epochs=0)
    with pytest.raises(GroupError, match="acts on 2 dimensions"):
        train(ek.groups.C(4), tiny(), "never")
    with pytest.raises(DataError, match="needs --root"):
        train(G, RunConfig("qm9"), "never")
    assert not Path("never").exists()


@pytest.mark.parametrize("change", [[[1, 0, 0], [0, 1, 0], [0, 0, 2]], np.eye(3)])
def test_a_group_in_other_coordinates_is_warned_of(change, tmp_path, caplog):
    C = np.array(change, float)
    h, A = ek.groups.O2z().discrete_generators, ek.groups.O2z().lie_algebra
    mix = C @ np.array([[1, 1, 0], [0, 1, 0], [0, 0, 1]]) if C[2, 2] == 2 else C
    G = ek.MatrixGroup("turned", mix @ h @ np.linalg.inv(mix), mix @ A @ np.linalg.inv(mix))
    with caplog.at_level("WARNING", "emkernel"):
        train(G, tiny(epochs=1), tmp_path / "run", progress=False)
    assert ("does not preserve lengths" in caplog.text) == (C[2, 2] == 2)


# ---- interrupted ------------------------------------------------------------------------------------------------


@pytest.fixture
def in_batch(monkeypatch):
    """Do something in the n-th training batch."""

    def install(n, action):
        forward, count = ParticleNet.forward, []

        def counted(self, batch):
            if self.training:
                count.append(1)
                if len(count) == n:
                    action()
            return forward(self, batch)

        monkeypatch.setattr(ParticleNet, "forward", counted)

    return install


@pytest.fixture
def heeding_interrupts():
    """SIGINT as in a terminal, also where the tests run in the background, which ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("heeding_interrupts")
@pytest.mark.parametrize(
    "action",
    [interrupt, lambda: signal.raise_signal(signal.SIGINT), lambda: signal.raise_signal(signal.SIGTERM)],
    ids=["exception", "SIGINT", "SIGTERM"],
)
def test_an_interrupt_says_how_to_continue(cli, in_batch, tmp_path, action):
    out, before = tmp_path / "run", [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)]
    flags = (
        "nbody",
        "--group",
        "C2z",
        "--epochs",
        2,
        "--n-train",
        16,
        "--batch-size",
        8,
        *FLAGS,
        "--out",
        out,
    )
    in_batch(4, action)
    status, printed, err = cli(*flags)
    assert status == 130 and printed == "" and "Traceback" not in err
    assert (
        err.strip()
        .splitlines()[-1]
        .endswith(f"continue after the last whole epoch with --resume --out {out}")
    )
    assert checkpoint(out)["epoch"] == 0 and not (out / "results.json").exists()
    assert [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)] == before
    status, printed, _ = cli(*flags, "--resume")
    assert status == 0 and "after 2 epochs" in printed


def test_an_interrupt_in_the_first_epoch_leaves_the_folder_free(cli, in_batch, tmp_path):
    flags = (
        "nbody",
        "--group",
        "C2z",
        "--epochs",
        1,
        "--n-train",
        16,
        "--batch-size",
        8,
        *FLAGS,
        "--out",
        tmp_path / "run",
    )
    in_batch(2, interrupt)
    status, _, err = cli(*flags)
    assert status == 130 and "no epoch was finished yet" in err
    assert cli(*flags)[0] == 0


def test_max_time_ends_a_run_and_counts_anew_when_it_is_resumed(tmp_path):
    out, limit = tmp_path / "run", {"seconds": 2}
    results = train(G, tiny(epochs=10_000), out, progress=False, max_time=limit)
    first = results["epochs"]
    assert 0 < first < 10_000
    assert (
        train(G, tiny(epochs=10_000), out, resume=True, progress=False, max_time=limit)["epochs"] > first + 1
    )


# ---- pieces -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["so3", "z"])
def test_random_rotations(kind):
    R = random_rotations(2000, kind, torch.Generator().manual_seed(0)).double()
    assert torch.allclose(R @ R.transpose(1, 2), torch.eye(3, dtype=R.dtype).expand_as(R), atol=1e-5)
    assert torch.allclose(torch.linalg.det(R), torch.ones(len(R), dtype=R.dtype), atol=1e-5)
    mean = R.mean(0)
    assert mean[:2].abs().max() < 0.05 and (mean[2, 2] == 1 if kind == "z" else mean[2, 2].abs() < 0.05)


def test_random_rotations_of_another_kind():
    with pytest.raises(ValueError, match="'so3', 'z' or 'none'"):
        random_rotations(1, "x")


@pytest.mark.slow
def test_two_processes(tmp_path):
    out = tmp_path / "run"
    command = [
        sys.executable,
        "-m",
        "emkernel.cli",
        "train",
        "nbody",
        "--group",
        "C2z",
        "--n-train",
        "64",
        *map(str, FLAGS),
    ]
    command += [
        "--epochs",
        "2",
        "--batch-size",
        "16",
        "--out",
        str(out),
        "--accelerator",
        "cpu",
        "--devices",
        "2",
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    nothing_half_written(out)
    assert read_json(out / "results.json")["epochs"] == 2 and rows(out)[-1]["lr"] < 1e-5
