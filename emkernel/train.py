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
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from ._keep import EpochShuffle, InTurn, check_resumable, epoch_seed, keeper, write_json
from ._progress import clock, working
from ._tasks import TASKS, RunConfig, matrix_log, random_rotations
from .data.ragged import as_is
from .errors import DataError, GroupError
from .matrix_group import MatrixGroup

__all__ = ["RunConfig", "TASKS", "matrix_log", "random_rotations", "train"]

log = logging.getLogger(__name__)


def _preserves_lengths(group: MatrixGroup) -> bool:
    h, A = group.discrete_generators, group.lie_algebra
    unit = np.eye(group.d)
    return np.allclose(h.transpose(0, 2, 1) @ h, unit, atol=1e-6) and np.allclose(A, -A.transpose(0, 2, 1), atol=1e-6)


def _lightning():
    try:
        import lightning.pytorch as pl
    except ImportError as e:
        raise ImportError("training needs Lightning: pip install 'emkernel[train]'") from e
    return pl


def _module(pl, group: MatrixGroup, config: RunConfig, network: nn.Module, call, scale: float, order, turns):
    task = TASKS[config.task]
    errors = {task.metric: task.error, **task.others}

    class Training(pl.LightningModule):
        def __init__(self):
            super().__init__()
            self.network = network
            self.sums: dict[str, torch.Tensor] = {}

        def add(self, name, total, count):
            """To a mean over the items of all processes."""
            total = total.detach().double()
            self.sums[name] = self.sums.get(name, 0) + torch.stack([total, torch.full_like(total, count)])

        def log_means(self, names):
            for name in names:
                pair = self.sums.pop(name, torch.zeros(2, dtype=torch.float64, device=self.device))
                total, count = self.trainer.strategy.reduce(pair, reduce_op="sum")
                self.log(name, (total / count).float(), prog_bar=True)

        def on_train_epoch_start(self):
            torch.manual_seed(epoch_seed(config.seed, self.current_epoch, 1 + self.global_rank))

        def training_step(self, batch, index):
            batch = task.augment(batch, config, None)
            loss = task.loss(call(batch), batch) / scale
            self.log("loss", loss, prog_bar=True, on_step=True, on_epoch=False, batch_size=batch.num_graphs)
            self.add("loss_epoch", loss * batch.num_graphs, batch.num_graphs)
            return loss * order.weight(index)

        def on_train_epoch_end(self):
            self.log_means(["loss_epoch"])

        def validation_step(self, batch, index):
            number = turns.number(index)
            batch = task.augment(batch, config, 10_000 + (number or 0))
            prediction = call(batch)
            if number is not None:
                for name, error in errors.items():
                    self.add(name, *error(prediction, batch))

        def on_validation_epoch_end(self):
            self.log_means(errors)

        def configure_optimizers(self):
            fused = self.device.type == "cuda" or None  # a few launches instead of hundreds
            optimiser = torch.optim.AdamW(self.parameters(), config.lr, weight_decay=config.weight_decay, fused=fused)
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
    compile: bool = False,
    callbacks: tuple = (),
    **trainer,
) -> dict[str, Any]:
    """Train the reference network of a task for a group, and return what stands in ``results.json``.

    Args:
        group: symmetry of the network.
        config: what to do.
        out: folder of the run; made if needed.
        resume: continue from the last checkpoint in ``out``.
        progress: say on one line of a terminal how far the training is; nothing is printed where there is none.
        compile: run the network through torch.compile, which takes a minute or two and pays on a GPU. Rounding differs.
        callbacks: further Lightning callbacks.
        **trainer: further arguments of Lightning's Trainer (accelerator, devices, precision, max_time, logger, ...);
            logger="tensorboard" writes its events to ``out``. With several devices the gradients are those of one, and
            so is all but what is random in training (augmentation, dropout) and batch norms, of a part of the batch.

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
        raise FileExistsError(f"{out} holds a run already: resume it (--resume), or choose another folder (--out)")
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
    if items < len(data["train"]):
        data["train"] = data["train"].subset(range(items))
    training = data["train"]
    pl.seed_everything(config.seed, verbose=False)
    started = time.time()
    network = task.build(group, config, training)
    built = time.time() - started
    if not _preserves_lengths(group):
        log.warning(
            "%s does not preserve lengths in Cartesian coordinates, which the data of %s are in: a group that is "
            "written in other ones is not their symmetry",
            group.name,
            config.task,
        )
    order, turns = EpochShuffle(items, config.batch_size, config.seed), InTurn(len(data["val"]), 4 * config.batch_size)
    # no batch size: a sampler's item is the list of a batch
    loaders = [
        torch.utils.data.DataLoader(part, None, sampler=sampler, collate_fn=as_is, generator=torch.Generator())
        for part, sampler in ((training, order), (data["val"], turns))
    ]
    call = torch.compile(network, dynamic=True) if compile else network
    module = _module(pl, group, config, network, call, task.scale(config, training), order, turns)
    kept = keeper(pl, out, task.metric, task.others, task.higher, config.patience)
    watch = [kept, *callbacks]
    if config.average:
        watch.append(pl.callbacks.EMAWeightAveraging(decay=config.average))
    options = {
        "max_epochs": config.epochs,
        "gradient_clip_val": config.clip,
        "num_sanity_val_steps": 0,
        "callbacks": watch,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "logger": False,
        "default_root_dir": out,
        "use_distributed_sampler": False,
    } | trainer
    if options["logger"] == "tensorboard":
        options["logger"] = _tensorboard(pl, out)
    with _quiet(), working(f"training for {group.name}") as say:
        if progress:
            watch.append(_narrator(pl, say, task.metric))
        try:
            runner = pl.Trainer(**options)
            if runner.world_size > 1 and "strategy" not in trainer and _spares_weights(network, task, training[0]):
                runner = pl.Trainer(**options, strategy="ddp_find_unused_parameters_true")
        except (pl.utilities.exceptions.MisconfigurationException, TypeError) as e:
            raise ValueError(str(e)) from e
        if items // len(order) < runner.world_size:
            raise ValueError(
                f"{items} training items make no batch of {config.batch_size} on each of {runner.world_size} devices"
            )
        (out / "checkpoints").mkdir(parents=True, exist_ok=True)
        if runner.is_global_zero:
            write_json(
                out / "config.json", {"group": group.name, "group_digest": group.digest, **asdict(config)}
            )
        _fit(runner, module, loaders, str(last) if resume else None)
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
        **{name: _number(kept.rows[-1][name]) for name in task.others},
        **task.baseline(data),
    }
    if runner.is_global_zero:
        write_json(out / "results.json", results)
    return results


def _spares_weights(network: nn.Module, task, batch) -> bool:
    """Whether weights have no gradient, as those of fields that the last layer makes and the head does not read."""
    loss = task.loss(network.eval()(batch), batch)
    weights = [p for p in network.train().parameters() if p.requires_grad]
    return any(g is None for g in torch.autograd.grad(loss, weights, allow_unused=True))


def _tensorboard(pl, out: Path):
    try:
        return pl.loggers.TensorBoardLogger(out, name="", version="tensorboard")
    except ModuleNotFoundError as e:
        raise ImportError("events for TensorBoard need it: pip install tensorboard") from e


def _narrator(pl, say: Callable[[str], None], metric: str):
    """The Lightning callback that says how far a run is."""

    class Narrator(pl.callbacks.Callback):
        def on_train_start(self, trainer, module):
            self.began, self.first, self.next = time.monotonic(), trainer.global_step, 0.0

        def on_train_batch_end(self, trainer, module, outputs, batch, index):
            now = time.monotonic()
            if now < self.next or not trainer.is_global_zero:
                return
            self.next = now + 0.5  # the loss waits for the device
            found = {k: float(v) for k, v in trainer.callback_metrics.items() if k in ("loss", metric)}
            done, steps = trainer.global_step, trainer.estimated_stepping_batches
            text = f"epoch {trainer.current_epoch + 1} of {trainer.max_epochs}, step {index + 1} of "
            text += ", ".join([f"{trainer.num_training_batches}", *(f"{k} {v:.4g}" for k, v in found.items())])
            if done > self.first and steps < float("inf"):
                left = (now - self.began) / (done - self.first) * (steps - done)
                text += f"; about {clock(left)} left"
            say(text)

    return Narrator()


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
        for text in (".*does not have many workers", ".*LeafSpec", ".*sync_dist=True", ".*logging interval"):
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
