"""Studies: the claims of the paper, each checked by training networks that differ in one thing, from several seeds.

A study lives in one folder: ``runs/ARM/seedN``, an ordinary run of :mod:`emkernel.train` each, and of all of them
``NAME.csv``, ``NAME.md`` and ``NAME.png``. A study that was stopped goes on where it was: runs that have their
``results.json`` are not run again, one that was interrupted is resumed. Every run has one thread and a seed of its own,
so that its numbers do not depend on how many run at a time.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import asdict, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

from ._designs import DESIGNS, Arm, Request, Study
from ._keep import write_text
from ._study_report import Row, draw, markdown, summarise, table
from ._tasks import TASKS, RunConfig
from .matrix_group import MatrixGroup
from .models import match_channels
from .train import train

__all__ = ["DESIGNS", "Arm", "Request", "Study", "design", "match", "run_study"]

CLOSE = 0.1  # sizes that differ by less are left as they are


def design(name: str, request: Request) -> Study:
    """The study of this name.

    Args:
        name: "groups", "attributes", "qm9", "symmetry" or "samples".
        request: at which size, on which data.

    Raises:
        ValueError: no such study, or a setting that makes no sense.
        DataError: no data are given to a study that needs some.
    """
    if name not in DESIGNS:
        raise ValueError(f"no study is called {name!r}; there are {', '.join(DESIGNS)}")
    return DESIGNS[name](request)


def match(study: Study) -> Study:
    """The study, with channels by which each network has as many weights, within 10 %, as the first implicit one.

    So the paper, section 5.1: what is tuned is the implicit kernel, and the channels of the other follow. A study whose
    sizes are not to be matched is left as it was; that there are data for every network is checked all the same.

    Raises:
        ValueError: no number of channels comes so close.
        DataError: the data cannot be read, or lack a target.
    """
    data: dict[str, Any] = {}
    for arm in study.arms:
        if arm.config.target not in data:
            data[arm.config.target] = TASKS[arm.config.task].load(arm.config)["train"]
    if not study.matched:
        return study

    def network(arm: Arm, channels: int | None = None) -> torch.nn.Module:
        config = arm.config if channels is None else _widened(arm.config, channels)
        return TASKS[config.task].build(arm.group, config, data[config.target])

    with torch.random.fork_rng(devices=[]):
        sizes = [sum(p.numel() for p in network(arm).parameters()) for arm in study.arms]
        target = next(n for arm, n in zip(study.arms, sizes) if arm.config.model.get("kernel") != "fixed")
        arms = []
        for arm, size in zip(study.arms, sizes):
            if abs(size - target) > CLOSE * target:
                channels = match_channels(lambda c, arm=arm: network(arm, c), target)
                arm = replace(arm, config=_widened(arm.config, channels))
            arms.append(arm)
    return replace(study, arms=tuple(arms))


def _widened(config: RunConfig, channels: int) -> RunConfig:
    """The run with so many channels in the last layer, and in proportion in those before, where they have their own."""
    before = config.model["channels"]
    if isinstance(before, int):
        after: int | tuple[int, ...] = channels
    else:
        after = tuple(max(1, round(c * channels / before[-1])) for c in before)
    return replace(config, model=config.model | {"channels": after})


def run_study(
    study: Study,
    out: str | os.PathLike,
    *,
    seeds: int = 5,
    jobs: int = 1,
    say: Callable[[str], None] = lambda line: None,
    **trainer,
) -> list[Row]:
    """Train every network of a study from every seed, as far as that is not done, and write table and figure.

    Args:
        study: what to do, of :func:`design`.
        out: folder of the study; made if needed.
        seeds: train from the seeds 0 to seeds - 1.
        jobs: runs at a time, each in a process of its own if more than one.
        say: is told of every run that ends.
        **trainer: further arguments of Lightning's Trainer (accelerator, devices, precision, ...).

    Returns:
        A row for each network: mean, deviation and comparison of its last validation.

    Raises:
        ValueError: networks that cannot be matched; a folder with runs of other settings.
        KeyboardInterrupt: the study was stopped; the same call goes on.
        Exception: what :func:`emkernel.train.train` raises.

    Example:
        >>> study = design("symmetry", Request(size="quick"))  # doctest: +SKIP
        >>> print(markdown(study, run_study(study, "runs/symmetry", seeds=2)))  # doctest: +SKIP
    """
    if seeds < 1 or jobs < 1:
        raise ValueError(f"seeds and jobs must be at least 1, got {seeds} and {jobs}")
    out = Path(out)
    study = match(study)
    runs = [
        (arm, seed, replace(arm.config, seed=seed), out / "runs" / arm.name / f"seed{seed}")
        for seed in range(seeds)
        for arm in study.arms
    ]
    todo = [run for run in runs if not _is_done(*run[2:], run[0].group)]
    say(f"{len(runs)} runs, {len(runs) - len(todo)} of them done before")
    for arm, seed, folder in _each(todo, jobs, trainer):
        results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
        say(f"{arm.name}, seed {seed}: {_said(results)}")
        _write(study, out, seeds)
    rows = _write(study, out, seeds)
    draw(study, rows, out / f"{study.name}.png")
    return rows


def _said(results: dict[str, Any]) -> str:
    value = results["value"]
    reached = "undefined" if value is None else f"{value:.4f}"
    return f"{results['metric']} {reached} {results['unit']}".rstrip() + f", {results['seconds_training']:.0f} s"


def _is_done(config: RunConfig, folder: Path, group: MatrixGroup) -> bool:
    """Whether a run is finished; raises where the folder holds another."""
    kept = folder / "config.json"
    if not kept.exists():
        return False
    before = json.loads(kept.read_text(encoding="utf-8"))
    now = json.loads(json.dumps({"group": group.name, "group_digest": group.digest, **asdict(config)}))
    for name in sorted(now.keys() - {"root"}):
        if before.get(name) != now[name]:
            raise ValueError(
                f"{folder} holds a run with {name} = {before.get(name)!r}, and now it would be {now[name]!r}: choose "
                "another --out, or ask for the same as before"
            )
    return (folder / "results.json").exists()


def _each(todo: list, jobs: int, trainer: dict) -> Iterator[tuple[Arm, int, Path]]:
    """Do the runs, and give back each that ends."""
    if jobs == 1:
        for arm, seed, config, folder in todo:
            _run(arm.group, config, folder, trainer)
            yield arm, seed, folder
        return
    # spawned: a process that is forked after jax was used may hang
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        pending = {
            pool.submit(_run, arm.group, config, folder, trainer): (arm, seed, folder)
            for arm, seed, config, folder in todo
        }
        try:
            for done in as_completed(pending):
                done.result()
                yield pending[done]
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise


def _run(group: MatrixGroup, config: RunConfig, folder: Path, trainer: dict) -> None:
    # what a network reached is read off once, at its end: nothing is chosen by the validation part
    trainer = {"check_val_every_n_epoch": config.epochs} | trainer
    with _one_thread():
        train(group, config, folder, resume=(folder / "config.json").exists(), progress=False, **trainer)


@contextmanager
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _write(study: Study, out: Path, seeds: int) -> list[Row]:
    """Tables of the runs that are done."""
    results = {}
    for arm in study.arms:
        found = {}
        for seed in range(seeds):
            file = out / "runs" / arm.name / f"seed{seed}" / "results.json"
            if file.exists():
                found[seed] = json.loads(file.read_text(encoding="utf-8"))
        results[arm.name] = found
    rows = summarise(study, results)
    write_text(out / f"{study.name}.csv", table(rows))
    write_text(out / f"{study.name}.md", markdown(study, rows))
    return rows
