"""Training of the reference models, on Lightning: progress, validation, checkpoints, resume, results.

A run lives in one folder: ``config.json`` (what was asked), ``checkpoints/last.ckpt`` and ``best.ckpt``,
``metrics.csv`` (each epoch), ``results.json`` (at the end). Each file is replaced whole, so that a killed run leaves
none half-written. Order of the data and random numbers of an epoch follow from the seed and the number of the epoch: a
run that is resumed after epoch n goes on as if it had never stopped.
"""

from __future__ import annotations

import logging
import os
import signal
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ._keep import EpochShuffle, check_resumable, epoch_seed, keeper, write_json
from ._tasks import TASKS, RunConfig, random_rotations
from .data.ragged import as_is
from .errors import DataError, GroupError
from .matrix_group import MatrixGroup

__all__ = ["RunConfig", "TASKS", "random_rotations", "train"]


def _lightning():
    try:
        import lightning.pytorch as pl
    except ImportError as e:
        raise ImportError("training needs Lightning: pip install 'emkernel[train]'") from e
    return pl


def _module(pl, group: MatrixGroup, config: RunConfig, network: nn.Module, scale: float):
    task = TASKS[config.task]

    class Training(pl.LightningModule):
        def __init__(self):
            super().__init__()
            self.network = network

        def on_train_epoch_start(self):
            torch.manual_seed(epoch_seed(config.seed, self.current_epoch, 1 + self.global_rank))

        def training_step(self, batch, _):
            batch = task.augment(batch, config, None)
            loss = task.loss(self.network(batch), batch) / scale
            self.log("loss", loss, prog_bar=True, on_step=True, on_epoch=True, batch_size=batch.num_graphs)
            return loss

        def validation_step(self, batch, index):
            batch = task.augment(batch, config, 10_000 + index)
            total, count = task.error(self.network(batch), batch)
            self.log(
                task.metric, total.double().float() / count, prog_bar=True, batch_size=count, sync_dist=True
            )

        test_step = validation_step

        def configure_optimizers(self):
            optimiser = torch.optim.AdamW(self.parameters(), config.lr, weight_decay=config.weight_decay)
            steps = self.trainer.estimated_stepping_batches
            warm = max(1, min(100, steps // 20))

            def rate(step: int) -> float:
                cosine = 0.5 * (1 + torch.cos(torch.tensor(torch.pi * min(step / max(steps, 1), 1.0))).item())
                return min(1.0, (step + 1) / warm) * cosine + 1e-4

            schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, rate)
            return {"optimizer": optimiser, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

        def on_save_checkpoint(self, checkpoint):
            checkpoint["emkernel"] = {
                "group": group.digest,
                "group_name": group.name,
                "config": asdict(config),
            }

        def on_load_checkpoint(self, checkpoint):
            checkpoint["callbacks"].pop("Timer", None)  # max_time counts from the resumption

    return Training()


def train(
    group: MatrixGroup,
    config: RunConfig,
    out: str | os.PathLike,
    *,
    resume: bool = False,
    progress: bool = True,
    callbacks: tuple = (),
    **trainer,
) -> dict[str, Any]:
    """Train the reference network of a task for a group, and return what stands in ``results.json``.

    Args:
        group: symmetry of the network.
        config: what to do.
        out: folder of the run; made if needed.
        resume: continue from the last checkpoint in ``out``.
        progress: show a progress bar.
        callbacks: further Lightning callbacks.
        **trainer: further arguments of Lightning's Trainer (accelerator, devices, precision, max_time, ...).

    Raises:
        DataError: the data cannot be read.
        GroupError: a group that does not act on the space of the data, or a checkpoint of another group.
        ValueError: a checkpoint of another network, or a setting that makes no sense.
        FileExistsError: ``out`` holds a run and ``resume`` is false.
        FileNotFoundError: ``resume`` and there is no checkpoint in ``out``.
        ImportError: Lightning is not installed.
        KeyboardInterrupt: the run was stopped; ``resume`` goes on after the last whole epoch.
    """
    pl = _lightning()
    out = Path(out)
    task = TASKS[config.task]
    last = out / "checkpoints" / "last.ckpt"
    # a run stopped in its first epoch has a folder and no checkpoint yet: it starts over
    resume = resume and (last.exists() or not (out / "config.json").exists())
    if resume:
        check_resumable(last, group, config)
    elif last.exists() or (out / "results.json").exists():
        raise FileExistsError(f"{out} holds a run already: resume it, or choose another folder")
    if group.d != 3:
        raise GroupError(f"{group.name} acts on {group.d} dimensions, the data of {config.task} lie in 3")
    data = task.load(config)
    for part in ("train", "val"):
        if part not in data:
            raise DataError(
                f"{config.root} has no items for {'training' if part == 'train' else 'validation'}"
            )
    items = len(data["train"]) if config.n_train is None else min(config.n_train, len(data["train"]))
    # what is not trained on is not seen: neither by the normalisation of the target nor by the baseline
    training = data["train"] = data["train"].subset(range(items))
    pl.seed_everything(config.seed, verbose=False)
    started = time.time()
    network = task.build(group, config, training)
    built = time.time() - started
    loaders = [
        torch.utils.data.DataLoader(
            training,
            config.batch_size,
            sampler=EpochShuffle(items, config.seed),
            collate_fn=as_is,
            drop_last=items >= config.batch_size,
            generator=torch.Generator(),
        ),
        torch.utils.data.DataLoader(
            data["val"], 4 * config.batch_size, collate_fn=as_is, generator=torch.Generator()
        ),
    ]
    module = _module(pl, group, config, network, task.scale(config, training))
    kept = keeper(pl, out, task.metric, task.higher)
    watch = [kept, *callbacks]
    if config.average:
        watch.append(pl.callbacks.EMAWeightAveraging(decay=config.average))
    if progress:
        watch.append(pl.callbacks.TQDMProgressBar(refresh_rate=10))
    with _quiet():
        try:
            runner = pl.Trainer(
                **{
                    "max_epochs": config.epochs,
                    "gradient_clip_val": config.clip,
                    "num_sanity_val_steps": 0,
                    "callbacks": watch,
                    "enable_progress_bar": progress,
                    "enable_model_summary": False,
                    "logger": False,
                    "default_root_dir": out,
                }
                | trainer
            )
        except (pl.utilities.exceptions.MisconfigurationException, TypeError) as e:
            raise ValueError(str(e)) from e
        (out / "checkpoints").mkdir(parents=True, exist_ok=True)
        if runner.is_global_zero:
            write_json(
                out / "config.json", {"group": group.name, "group_digest": group.digest, **asdict(config)}
            )
        _fit(runner, module, loaders, str(last) if resume else None)
    if not kept.rows:
        raise ValueError(
            f"{items} training items make no batch of {config.batch_size} on each of {runner.world_size} devices"
        )
    best = kept.best or {}
    results = {
        "task": config.task,
        "group": group.name,
        "metric": task.metric,
        "unit": task.unit(config),
        "value": _number(kept.rows[-1][task.metric]),
        "best": best.get(task.metric),
        "epochs": len(kept.rows),
        "seconds_training": sum(row["seconds"] for row in kept.rows),
        "seconds_building": built,
        "parameters": sum(p.numel() for p in network.parameters()),
        "training_items": items,
        "checkpoint": "checkpoints/best.ckpt" if best else None,
        **_baseline(config, data),
    }
    if runner.is_global_zero:
        write_json(out / "results.json", results)
    return results


def _number(value: float) -> float | None:
    return None if value != value else value


def _fit(runner, module, loaders: list, checkpoint: str | None) -> None:
    """Fit; however Lightning words an interrupt, it leaves here as KeyboardInterrupt."""
    handler = signal.getsignal(signal.SIGINT)
    try:
        runner.fit(module, *loaders, ckpt_path=checkpoint, **_trusting(runner))
    except SystemExit as e:
        if not runner.interrupted:
            raise
        raise KeyboardInterrupt from e
    finally:
        if signal.getsignal(signal.SIGINT) is not handler:
            signal.signal(signal.SIGINT, handler)  # Lightning ignores it from the first one on
    if runner.interrupted:
        raise KeyboardInterrupt


@contextmanager
def _quiet() -> Iterator[None]:
    """Without Lightning's notes on hardware, workers and other products."""
    loggers = [logging.getLogger(f"lightning.{name}") for name in ("pytorch", "fabric")]
    levels = [log.level for log in loggers]
    with warnings.catch_warnings():
        for text in (".*does not have many workers", ".*LeafSpec", ".*sync_dist=True"):
            warnings.filterwarnings("ignore", text)
        try:
            for log in loggers:
                log.setLevel(logging.WARNING)
            yield
        finally:
            for log, level in zip(loggers, levels):
                log.setLevel(level)


def _trusting(runner) -> dict:
    """Checkpoints of this run's own folder hold plain containers and tensors; recent Lightning asks how to load."""
    import inspect

    return {"weights_only": True} if "weights_only" in inspect.signature(runner.fit).parameters else {}


def _baseline(config: RunConfig, data) -> dict[str, float]:
    """The metric of a predictor that does not look at the structure."""
    train, val = data["train"], data["val"]
    if config.task == "nbody":
        return {"baseline": float(torch.as_tensor(val.y).norm(dim=1).mean())}
    if config.task == "qm9":
        y, z = torch.as_tensor(train.y), torch.as_tensor(val.y)
        return {"baseline": float((z - y.median()).abs().mean())}
    label = torch.as_tensor(train.label)
    return {"baseline": float((torch.as_tensor(val.label) == label.bincount().argmax()).float().mean())}
