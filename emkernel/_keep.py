"""What a training run keeps on disk, so that it can be killed at any moment and go on as if it had never stopped."""

from __future__ import annotations

import json
import logging
import os
import pickle
import shutil
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path

import torch

from .errors import DataError, GroupError
from .matrix_group import MatrixGroup

__all__ = [
    "EpochShuffle",
    "InTurn",
    "check_resumable",
    "check_writable",
    "epoch_seed",
    "keeper",
    "write_json",
    "write_text",
]

log = logging.getLogger("emkernel.train")


class EpochShuffle(torch.utils.data.Sampler[list[int]]):
    """Batches of n items, each item once, in an order that the seed and the epoch decide, whatever was drawn before.

    There are as few batches as hold ``size`` items at most, of sizes that differ by at most one. Of several processes
    each gets its part of every batch: together they see what one alone would.
    """

    def __init__(self, n: int, size: int, seed: int):
        self.n, self.size, self.seed, self.epoch = n, size, seed, 0

    def set_epoch(self, epoch: int) -> None:
        """Called by Lightning before each epoch."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[list[int]]:
        generator = torch.Generator().manual_seed(epoch_seed(self.seed, self.epoch))
        rank, world = processes()
        for batch in torch.randperm(self.n, generator=generator).tensor_split(len(self)):
            yield batch[rank::world].tolist()

    def __len__(self) -> int:
        return -(-self.n // self.size)

    def weight(self, index: int) -> float:
        """Of the mean over this process's part of a batch, so that the mean over processes is that over the batch."""
        rank, world = processes()
        whole = self.n // len(self) + (index < self.n % len(self))
        return len(range(rank, whole, world)) * world / whole


class InTurn(torch.utils.data.Sampler[list[int]]):
    """Batches of ``size`` of n items in their order, dealt to the processes in turn.

    All processes get equally many, as they meet in every batch: some repeat one, which has no number.
    """

    def __init__(self, n: int, size: int):
        self.n, self.size = n, size
        self._batches = -(-n // size)

    def __iter__(self) -> Iterator[list[int]]:
        rank, world = processes()
        for k in range(rank, len(self) * world, world):
            first = k % self._batches * self.size
            yield list(range(first, min(first + self.size, self.n)))

    def __len__(self) -> int:
        return -(-self._batches // processes()[1])

    def number(self, index: int) -> int | None:
        """Which of all batches is this process's batch ``index``."""
        rank, world = processes()
        k = rank + index * world
        return k if k < self._batches else None


def processes() -> tuple[int, int]:
    """Rank of this process, and how many train together."""
    together = torch.distributed.is_available() and torch.distributed.is_initialized()
    return (torch.distributed.get_rank(), torch.distributed.get_world_size()) if together else (0, 1)


def epoch_seed(seed: int, epoch: int, rank: int = 0) -> int:
    """A seed for the random numbers of one epoch in one process."""
    return (seed * 1_000_003 + epoch * 1009 + rank) % 2**63


def keeper(pl, out: Path, metric: str, others: Iterable[str], higher: bool, patience: int | None):
    """The Lightning callback that writes checkpoints and metrics, and stops a run that improves no more."""

    class Keeper(pl.callbacks.Checkpoint):
        """After each epoch: metrics.csv, last.ckpt, and best.ckpt where the metric improved."""

        def __init__(self):
            self.rows: list[dict[str, float]] = []
            self.began = time.time()

        @property
        def best(self) -> dict[str, float] | None:
            known = [row for row in self.rows if row[metric] == row[metric]]
            pick = max if higher else min
            return pick(known, key=lambda row: row[metric]) if known else None

        def _stop(self, trainer):
            """Whether ``patience`` epochs were in vain; also asked when a run goes on that had stopped."""
            since = len(self.rows) - 1 - self.rows.index(self.best) if self.best else len(self.rows)
            if patience is not None and since >= patience:
                trainer.should_stop = True

        def on_train_start(self, trainer, module):
            self._stop(trainer)

        def on_train_epoch_start(self, trainer, module):
            self.began = time.time()

        def on_train_epoch_end(self, trainer, module):
            found = {k: float(v) for k, v in trainer.callback_metrics.items()}
            self.rows.append(
                {
                    "epoch": trainer.current_epoch,
                    "loss": found.get("loss_epoch", float("nan")),
                    **{name: found.get(name, float("nan")) for name in (metric, *others)},
                    "lr": trainer.optimizers[0].param_groups[0]["lr"],
                    "seconds": time.time() - self.began,
                }
            )
            log.info(
                "epoch %d of %s: %s",
                trainer.current_epoch + 1,
                trainer.max_epochs,
                ", ".join(f"{k} {v:.4g}" for k, v in self.rows[-1].items() if k != "epoch"),
            )
            part = out / "checkpoints" / "last.ckpt.part"
            trainer.save_checkpoint(part)
            if trainer.is_global_zero:
                if self.best is self.rows[-1]:
                    shutil.copyfile(part, out / "checkpoints" / "best.ckpt.part")
                    os.replace(out / "checkpoints" / "best.ckpt.part", out / "checkpoints" / "best.ckpt")
                lines = [
                    ",".join(self.rows[0]),
                    *(",".join(f"{v:.7g}" for v in row.values()) for row in self.rows),
                ]
                write_text(out / "metrics.csv", "\n".join(lines) + "\n")
                # the last, as a run that is killed before this does the epoch again, and with it all of the above
                os.replace(part, out / "checkpoints" / "last.ckpt")
            self._stop(trainer)

        def state_dict(self):
            return {"rows": self.rows}

        def load_state_dict(self, state):
            self.rows = list(state["rows"])

    return Keeper()


def check_resumable(last: Path, group: MatrixGroup, config) -> None:
    """Raise unless the checkpoint is whole and belongs to this group, task and network."""
    try:
        kept = torch.load(last, map_location="cpu", weights_only=True)["emkernel"]
    except FileNotFoundError:
        raise FileNotFoundError(f"nothing to resume: {last} does not exist") from None
    except (RuntimeError, OSError, EOFError, KeyError, TypeError, pickle.UnpicklingError) as e:
        raise DataError(f"{last} is damaged, or no checkpoint of a training run ({type(e).__name__})") from e
    if kept["group"] != group.digest:
        raise GroupError(
            f"the checkpoint was trained with the group {kept['group_name']}, not with {group.name}: "
            "their generators differ"
        )
    before, now = kept["config"], asdict(config)
    for name in sorted(now.keys() - {"root", "epochs", "patience"}):
        if before.get(name) != now[name]:
            raise ValueError(
                f"the run was begun with {name} = {before.get(name)!r}, it cannot go on with {now[name]!r}"
            )


def write_json(path: Path, content: dict) -> None:
    """Write a JSON file whole or not at all."""
    write_text(path, json.dumps(content, indent=2, allow_nan=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    part = path.with_name(path.name + ".part")
    try:
        part.write_text(text, encoding="utf-8")
        os.replace(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def check_writable(path: Path) -> None:
    """Raise an OSError, before any work is done, unless a file can be written there."""
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder, expected the name of a file to write")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"{path.parent}, where {path.name} should be written, is not a folder")
    if not os.access(path.parent, os.W_OK):
        raise PermissionError(f"{path.parent} is a folder in which nothing may be written")
