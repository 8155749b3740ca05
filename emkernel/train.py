"""Training of the reference models, on Lightning: progress, validation, checkpoints, resume, results.

A run lives in one folder: ``config.json`` (what was asked), ``checkpoints/last.ckpt`` and ``best.ckpt``,
``metrics.csv`` (each epoch), ``results.json`` (at the end). Each file is replaced whole, so that a killed run leaves
none half-written. Order of the data and random numbers of an epoch follow from the seed and the number of the epoch: a
run that is resumed after epoch n goes on as if it had never stopped.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import signal
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ._keep import EpochShuffle, check_resumable, epoch_seed, keeper, write_json
from .batch import GraphBatch
from .data.ragged import as_is
from .errors import DataError, GroupError
from .matrix_group import MatrixGroup
from .models import MoleculeNet, ParticleNet, ShapeNet

__all__ = ["RunConfig", "TASKS", "random_rotations", "train"]


@dataclass(frozen=True)
class RunConfig:
    """What a training run is asked to do.

    Attributes:
        task: "nbody", "qm9" or "modelnet".
        root: file or folder of the data; none for nbody.
        target: property of QM9.
        epochs, batch_size, lr, weight_decay, clip: the optimisation (AdamW, linear warm-up, cosine to zero).
        seed: of initialisation, data order and augmentation.
        field: of nbody, "electric", "magnetic" or "none".
        n_train: use only so many training items.
        rotations: of modelnet, in training and validation: "so3", "z" or "none".
        model: arguments of the network, such as channels, degree, layers.
        average: decay of the exponential moving average of the weights that is validated; 0 for none.
    """

    task: str
    root: str | None = None
    target: str = "mu"
    epochs: int = 30
    batch_size: int = 64
    lr: float = 2e-3
    weight_decay: float = 1e-5
    clip: float = 10.0
    seed: int = 0
    field: str = "electric"
    n_train: int | None = None
    rotations: str = "so3"
    average: float = 0.0
    model: dict[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        if self.task not in TASKS:
            raise ValueError(f"task must be one of {sorted(TASKS)}, got {self.task!r}")
        for name in ("epochs", "batch_size", "n_train"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")


@dataclass(frozen=True)
class Task:
    """One learning problem: its data, network, loss and validation metric.

    Attributes:
        defaults: of the RunConfig.
        load: RunConfig -> data sets by split.
        build: (group, RunConfig, training set) -> network.
        loss: (prediction, batch) -> scalar to minimise.
        error: (prediction, batch) -> (sum, count) of the validation metric.
        metric, unit: name and unit of the metric.
        higher: whether more of it is better.
        augment: (batch, training, seed) -> batch.
    """

    defaults: dict[str, Any]
    load: Callable[[RunConfig], dict]
    build: Callable[[MatrixGroup, RunConfig, Any], nn.Module]
    loss: Callable[[torch.Tensor, GraphBatch], torch.Tensor]
    error: Callable[[torch.Tensor, GraphBatch], tuple[torch.Tensor, int]]
    metric: str
    unit: str = ""
    higher: bool = False
    augment: Callable[[GraphBatch, RunConfig, int | None], GraphBatch] = lambda batch, config, seed: batch


# ---- the tasks --------------------------------------------------------------------------------------------------


def random_rotations(n: int, kind: str = "so3", generator: torch.Generator | None = None) -> torch.Tensor:
    """(n, 3, 3) rotations, uniform in SO(3) (from unit quaternions) or about the z axis."""
    if kind == "z":
        t = 2 * torch.pi * torch.rand(n, generator=generator)
        zero, one = torch.zeros(n), torch.ones(n)
        return torch.stack([t.cos(), -t.sin(), zero, t.sin(), t.cos(), zero, zero, zero, one], 1).reshape(n, 3, 3)
    if kind != "so3":
        raise ValueError(f"rotations must be 'so3', 'z' or 'none', got {kind!r}")
    q = torch.randn(n, 4, generator=generator)
    w, x, y, z = (q / q.norm(dim=1, keepdim=True)).unbind(1)
    rows = [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y),
            2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x),
            2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)]
    return torch.stack(rows, 1).reshape(n, 3, 3)


def _augment_shapes(batch: GraphBatch, config: RunConfig, seed: int | None) -> GraphBatch:
    """Random rotations always (fixed ones in validation, where a seed is given); scale and jitter in training."""
    generator = None if seed is None else torch.Generator().manual_seed(seed)
    pos, x = batch.pos, batch.x
    if config.rotations != "none":
        R = random_rotations(batch.num_graphs, config.rotations, generator).to(pos)[batch.batch]
        pos = torch.einsum("nij,nj->ni", R, pos)
        x = {name: torch.einsum("nij,nj->ni", R, v) for name, v in x.items()}
    if seed is None:
        scale = 0.85 + 0.3 * torch.rand(batch.num_graphs, 1, device=pos.device, dtype=pos.dtype)
        pos = pos * scale[batch.batch] + 0.005 * torch.randn_like(pos)
    return replace(batch, pos=pos, x=x)


def _needs_root(config: RunConfig) -> str:
    if config.root is None:
        raise DataError(f"{config.task} needs --root: the file or folder that holds the data")
    return config.root


def _load_nbody(config: RunConfig) -> dict:
    from .data.nbody import load_nbody

    return load_nbody(seed=config.seed, field=config.field)


def _load_qm9(config: RunConfig) -> dict:
    from .data.qm9 import load_qm9

    return load_qm9(_needs_root(config), config.target, seed=config.seed)


def _load_modelnet(config: RunConfig) -> dict:
    from .data.modelnet import load_modelnet

    return load_modelnet(_needs_root(config), seed=config.seed)


def _build_molecules(group: MatrixGroup, config: RunConfig, data) -> nn.Module:
    if config.target == "mu":
        return MoleculeNet(group, **{"target": "dipole"} | config.model)
    y = torch.as_tensor(data.y, dtype=torch.float64)
    return MoleculeNet(group, **{"target": "mean", "shift": float(y.mean()), "scale": float(y.std())} | config.model)


def _mean_distance(prediction: torch.Tensor, batch: GraphBatch):
    return (prediction - batch.y).norm(dim=1).sum(), len(batch.y)


TASKS: dict[str, Task] = {
    "nbody": Task(
        defaults={"epochs": 30, "batch_size": 64, "lr": 3e-3},
        load=_load_nbody,
        build=lambda group, config, data: ParticleNet(group, **{"scale": float(data.y.std())} | config.model),
        loss=lambda prediction, batch: (prediction - batch.y).square().mean(),
        error=_mean_distance, metric="distance", unit="length"),
    "qm9": Task(
        defaults={"epochs": 30, "batch_size": 64, "lr": 2e-3},
        load=_load_qm9, build=_build_molecules,
        loss=lambda prediction, batch: (prediction - batch.y).abs().mean(),
        error=lambda prediction, batch: ((prediction - batch.y).abs().sum(), len(batch.y)), metric="mae"),
    "modelnet": Task(
        defaults={"epochs": 40, "batch_size": 16, "lr": 3e-3, "weight_decay": 1e-2, "clip": 5.0},
        load=_load_modelnet,
        build=lambda group, config, data: ShapeNet(
            group, len(data.classes), **{"normals": data.normal is not None} | config.model),
        loss=lambda prediction, batch: nn.functional.cross_entropy(prediction, batch.y, label_smoothing=0.1),
        error=lambda prediction, batch: ((prediction.argmax(1) == batch.y).sum(), len(batch.y)), metric="accuracy",
        higher=True, augment=_augment_shapes),
}


# ---- the run ----------------------------------------------------------------------------------------------------


def _lightning():
    try:
        import lightning.pytorch as pl
    except ImportError as e:
        raise ImportError("training needs Lightning: pip install 'emkernel[train]'") from e
    return pl


def _module(pl, group: MatrixGroup, config: RunConfig, network: nn.Module):
    task = TASKS[config.task]

    class Training(pl.LightningModule):
        def __init__(self):
            super().__init__()
            self.network = network

        def on_train_epoch_start(self):
            torch.manual_seed(epoch_seed(config.seed, self.current_epoch, 1 + self.global_rank))

        def training_step(self, batch, _):
            batch = task.augment(batch, config, None)
            loss = task.loss(self.network(batch), batch)
            self.log("loss", loss, prog_bar=True, on_step=True, on_epoch=True, batch_size=batch.num_graphs)
            return loss

        def validation_step(self, batch, index):
            batch = task.augment(batch, config, 10_000 + index)
            total, count = task.error(self.network(batch), batch)
            self.log(task.metric, total.double().float() / count, prog_bar=True, batch_size=count, sync_dist=True)

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
            checkpoint["emkernel"] = {"group": group.digest, "group_name": group.name, "config": asdict(config)}

        def on_load_checkpoint(self, checkpoint):
            checkpoint["callbacks"].pop("Timer", None)  # max_time counts from the resumption

    return Training()


def train(group: MatrixGroup, config: RunConfig, out: str | os.PathLike, *, resume: bool = False, progress: bool = True,
          callbacks: tuple = (), **trainer) -> dict[str, Any]:
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
    if resume:
        check_resumable(last, group, config)
    elif last.exists() or (out / "results.json").exists():
        raise FileExistsError(f"{out} holds a run already: resume it, or choose another folder")
    if group.d != 3:
        raise GroupError(f"{group.name} acts on {group.d} dimensions, the data of {config.task} lie in 3")
    data = task.load(config)
    for part in ("train", "val"):
        if part not in data:
            raise DataError(f"{config.root} has no items for {'training' if part == 'train' else 'validation'}")
    training = data["train"]
    pl.seed_everything(config.seed, verbose=False)
    started = time.time()
    network = task.build(group, config, training)
    built = time.time() - started
    for p in network.parameters():
        p.requires_grad_(p.numel() > 0)  # an empty one has no gradient, which several devices would wait for
    items = len(training) if config.n_train is None else min(config.n_train, len(training))
    subset = training if items == len(training) else torch.utils.data.Subset(training, range(items))
    loaders = [
        torch.utils.data.DataLoader(
            subset, config.batch_size, sampler=EpochShuffle(items, config.seed), collate_fn=as_is,
            drop_last=items >= config.batch_size, generator=torch.Generator()),
        torch.utils.data.DataLoader(
            data["val"], 4 * config.batch_size, collate_fn=as_is, generator=torch.Generator())]
    module = _module(pl, group, config, network)
    kept = keeper(pl, out, task.metric, task.higher)
    watch = [kept, *callbacks]
    if config.average:
        watch.append(pl.callbacks.EMAWeightAveraging(decay=config.average))
    if progress:
        watch.append(pl.callbacks.TQDMProgressBar(refresh_rate=10))
    with _quiet():
        try:
            runner = pl.Trainer(**{
                "max_epochs": config.epochs, "gradient_clip_val": config.clip, "num_sanity_val_steps": 0,
                "callbacks": watch, "enable_progress_bar": progress, "enable_model_summary": False, "logger": False,
                "default_root_dir": out} | trainer)
        except pl.utilities.exceptions.MisconfigurationException as e:
            raise ValueError(str(e)) from e
        (out / "checkpoints").mkdir(parents=True, exist_ok=True)
        if runner.is_global_zero:
            write_json(out / "config.json", {"group": group.name, "group_digest": group.digest, **asdict(config)})
        _fit(runner, module, loaders, str(last) if resume else None)
    best = kept.best or {}
    results = {
        "task": config.task, "group": group.name, "metric": task.metric, "unit": task.unit,
        "value": _number(kept.rows[-1][task.metric]), "best": best.get(task.metric),
        "epochs": len(kept.rows), "seconds_training": sum(row["seconds"] for row in kept.rows),
        "seconds_building": built, "parameters": sum(p.numel() for p in network.parameters()), "training_items": items,
        "checkpoint": "checkpoints/best.ckpt" if best else None, **_baseline(config, data)}
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
