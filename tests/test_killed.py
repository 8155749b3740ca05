"""Training runs killed at random moments, many times over, end as a run that nobody touched."""

from __future__ import annotations

import csv
import json
import multiprocessing
import os
import signal
import time
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from emkernel import groups
from emkernel.train import RunConfig, train

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="no fork on this system"),
    pytest.mark.filterwarnings("ignore:.*fork"),
]

KILLS = 40
CONFIG = RunConfig(
    "nbody", epochs=8, batch_size=20, n_train=100, model={"channels": 2, "layers": 1, "width": 2, "hidden": 8}
)


@dataclass
class Count:
    """What happened to a run: how often it was killed, and how often while a file was being written."""

    kills: int = 0
    writing: int = 0
    epochs: int = 0


def child(out, config):
    os.environ["EMKERNEL_SHIPPED"] = "1"  # a forked process may not solve
    torch.set_num_threads(1)
    train(groups.O2z(), config, out, resume=(out / "config.json").exists(), progress=False)


def begin(out, config):
    # forked from a process that has imported everything and computed nothing
    process = multiprocessing.get_context("fork").Process(target=child, args=(out, config))
    process.start()
    return process


def kill_somewhere(process, out, rng, seconds):
    """Kill after a random time; every other time at the first moment after that at which a file is being written."""
    end, wait = time.monotonic() + rng.uniform(0, seconds), rng.random() < 0.5
    while process.is_alive() and time.monotonic() < end:
        time.sleep(1e-3)
    if wait:
        while process.is_alive() and not parts(out):
            time.sleep(1e-4)
        time.sleep(rng.uniform(0, 2e-3))
    process.kill()
    process.join()


def parts(out):
    return [p for folder in (out, out / "checkpoints") if folder.exists() for p in folder.glob("*.part")]


def load(out, name):
    return torch.load(out / "checkpoints" / f"{name}.ckpt", weights_only=True)


def rows(out):
    with open(out / "metrics.csv", newline="") as file:
        return [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(file)]


def tensors(content, path=""):
    """Every number of a checkpoint by its place in it, times of the clock left out."""
    if isinstance(content, dict):
        for key in content:
            if key not in ("seconds", "pytorch-lightning_version"):
                yield from tensors(content[key], f"{path}/{key}")
    elif isinstance(content, (list, tuple)):
        for i, value in enumerate(content):
            yield from tensors(value, f"{path}/{i}")
    else:
        yield path, content


def assert_same(a, b):
    a, b = dict(tensors(a)), dict(tensors(b))
    assert a.keys() == b.keys()
    for path in a:
        same = torch.equal(a[path], b[path]) if torch.is_tensor(a[path]) else a[path] == b[path]
        assert same or a[path] != a[path], path


def check_between(out, count):
    """What a killed run leaves can be read, and no epoch that was finished is lost."""
    if (out / "checkpoints" / "last.ckpt").exists():
        done = load(out, "last")["epoch"] + 1
        assert done >= count.epochs, f"{count.epochs} epochs were finished, {done} are left"
        count.epochs = done
        load(out, "best")
    if (out / "metrics.csv").exists():
        assert [int(r["epoch"]) for r in rows(out)] == list(range(len(rows(out))))


def check_end(whole, out):
    for name in ("last", "best"):
        assert_same(load(whole, name), load(out, name))
    assert rows(whole) == rows(out)
    a, b = (json.loads((x / "results.json").read_text()) for x in (whole, out))
    clocks = {"seconds_training", "seconds_building"}
    assert {k: v for k, v in a.items() if k not in clocks} == {k: v for k, v in b.items() if k not in clocks}
    assert parts(out) == []


@pytest.mark.parametrize("average", [0.0, 0.9])
def test_runs_killed_anywhere_lose_nothing(tmp_path, average):
    config = RunConfig(**(vars(CONFIG) | {"average": average}))
    whole = tmp_path / "whole"
    started = time.monotonic()
    process = begin(whole, config)
    process.join()
    assert process.exitcode == 0
    seconds = time.monotonic() - started

    rng, runs, kills, writing = np.random.default_rng(int(10 * average)), 0, 0, 0
    while kills < KILLS // 2:
        out, count = tmp_path / f"run{runs}", Count()
        while True:
            process = begin(out, config)
            # about two kills for each run, more where it has many epochs to go
            if rng.random() < 0.2:
                process.join()
            else:
                kill_somewhere(process, out, rng, seconds)
            if process.exitcode == 0:
                break
            assert process.exitcode == -signal.SIGKILL
            count.kills += 1
            count.writing += bool(parts(out))
            check_between(out, count)
        check_end(whole, out)
        runs, kills, writing = runs + 1, kills + count.kills, writing + count.writing
        print(f"average {average}: {kills} kills, {writing} of them while writing, {runs} runs", flush=True)
    assert writing
