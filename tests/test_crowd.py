"""Twenty processes that share one cold store, on disks that fill up and turn read-only: each has the right answers."""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from test_store import KEYS, answer, entries, files

from emkernel.solver._entry import unseal
from emkernel.solver.store import Store

pytestmark = pytest.mark.slow
FORK = pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="no fork on this system")

# a few groups with numpy for their solver, in an order of the process's own; a digest of every constant of a layer
SOLVE = """
import importlib.util, hashlib, json, os, random, sys
find_spec = importlib.util.find_spec
importlib.util.find_spec = lambda name, *a: None if name in ("emlp", "jax") else find_spec(name, *a)
import torch
from emkernel import Scalar, V, equivariant_basis, groups, nn
torch.set_num_threads(1)
names = sys.argv[2:]
random.Random(int(sys.argv[1])).shuffle(names)
found = {}
for name in names:
    G = groups.get(name)
    rep = (2 * Scalar + V)(G)
    conv = nn.PointConv(rep, rep, width=2, hidden=4)
    digest = hashlib.sha256(equivariant_basis((V**2)(G), V(G)).tobytes())
    for key, value in conv.state_dict().items():
        if value.dtype == torch.float64:
            digest.update(key.encode() + value.numpy().tobytes())
    found[name] = digest.hexdigest()
print(json.dumps(found))
"""
SHARED, OWN = ["Cnv(5)", "Oh", "D4"], ["C6", "D3", "T", "Td", "O2z", "D6"]


def solver(folder, number, names):
    environment = {
        "EMKERNEL_STORE": str(folder), "EMKERNEL_SHIPPED": "0", "PYTHONHASHSEED": str(number), "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    return subprocess.Popen(
        [sys.executable, "-c", SOLVE, str(number), *names], env=os.environ | environment, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def finish(process):
    out, err = process.communicate(timeout=900)
    assert process.returncode == 0, err[-3000:]
    return json.loads(out.splitlines()[-1])


def nothing_half(folder):
    assert files(folder, "*.tmp") == []
    for path in entries(folder):
        unseal(path.stem, path.read_bytes())


def test_twenty_cold_processes_solve_the_same_and_different_things(tmp_path):
    alone = finish(solver(":memory:", 99, SHARED + OWN))
    crowd = [solver(tmp_path, n, [*SHARED, OWN[n % len(OWN)]]) for n in range(20)]
    for process in crowd:
        for name, digest in finish(process).items():
            assert digest == alone[name], name
    nothing_half(tmp_path)
    count = len(entries(tmp_path))
    # warm, and one of them killed in the middle of a cold one
    killed = [solver(tmp_path, n, ["Ico", "Th"]) for n in range(4)]
    for n, process in enumerate(killed):
        time.sleep(0.5 + n)
        process.send_signal(signal.SIGKILL)
        process.communicate()
    again = finish(solver(tmp_path, 7, SHARED + OWN))
    assert again == alone and len(entries(tmp_path)) >= count
    for path in entries(tmp_path):
        unseal(path.stem, path.read_bytes())


def busy(folder, seed, seconds):
    """Put and get at random through a store of this process, and a new one now and then."""
    logging.disable()
    rng, end, kept = np.random.default_rng(seed), time.monotonic() + seconds, Store(folder)
    while time.monotonic() < end:
        i = int(rng.integers(len(KEYS)))
        if rng.random() < 0.3:
            kept = Store(folder)
        if rng.random() < 0.5:
            kept.put(KEYS[i], answer(i))
            got = kept.get(KEYS[i])
            assert got is not None
        else:
            got = kept.get(KEYS[i])
        assert got is None or all(np.array_equal(got[n], a) for n, a in answer(i).items())


@pytest.fixture
def disk(tmp_path):
    """A file system of 24 kB, and how to mount it anew."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def mount(options):
        return subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", str(folder)], capture_output=True)

    if sys.platform != "linux" or mount("size=24k").returncode:
        pytest.skip("needs the right to mount a file system")
    yield folder, lambda how: subprocess.run(["mount", "-o", f"remount,{how}", str(folder)], check=True)
    subprocess.run(["umount", "-l", str(folder)], check=True)


@FORK
@pytest.mark.filterwarnings("ignore:.*fork")
def test_twenty_processes_on_a_disk_that_fills_up_and_turns_read_only(disk):
    folder, remount = disk
    fork = multiprocessing.get_context("fork")
    crowd = [fork.Process(target=busy, args=(folder / "store", seed, 6.0)) for seed in range(20)]
    for process in crowd:
        process.start()
    for how in ("ro", "rw,size=400k", "ro", "rw,size=24k"):
        time.sleep(1.2)
        subprocess.run(["mount", "-o", f"remount,{how}", str(folder)], capture_output=True)  # busy while it is written
    for process in crowd:
        process.join(60)
    assert [process.exitcode for process in crowd] == [0] * 20
    subprocess.run(["mount", "-o", "remount,rw,size=4m", str(folder)], check=True)
    nothing_half(folder)
    kept = Store(folder / "store")
    kept.put(KEYS[0], answer(0))
    assert Path(kept._path(KEYS[0])).exists(), "it is written again once there is room"


@FORK
@pytest.mark.filterwarnings("ignore:.*fork")
def test_writers_killed_on_a_full_disk_leave_nothing_that_stays(disk):
    folder, remount = disk
    fork, rng = multiprocessing.get_context("fork"), np.random.default_rng(0)
    for seed in range(25):
        process = fork.Process(target=busy, args=(folder / "store", seed, 60.0))
        process.start()
        time.sleep(rng.uniform(0.02, 0.2))
        process.kill()
        process.join()
    for path in entries(folder):
        i = KEYS.index(path.stem)
        np.testing.assert_array_equal(unseal(path.stem, path.read_bytes())["basis"], answer(i)["basis"])
    remount("size=4m")
    left = files(folder, "*.tmp")
    for path in left:
        os.utime(path, (0, 0))
    Store(folder / "store").put(KEYS[1], answer(1))
    assert files(folder, "*.tmp") == []
