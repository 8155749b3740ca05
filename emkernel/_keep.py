"""What a training run keeps on disk, so that it can be killed at any moment and go on as if it had never stopped."""

from __future__ import annotations

import json
import logging
import os
import pickle
import shutil
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import torch

from .errors import DataError, GroupError
from .matrix_group import MatrixGroup

__all__ = ["EpochShuffle", "check_resumable", "epoch_seed", "keeper", "write_json"]

log = logging.getLogger("emkernel.train")


class EpochShuffle(torch.utils.data.Sampler[int]):
    """All of n items in an order that the seed and the epoch decide, whatever was drawn before."""

    def __init__(self, n: int, seed: int):
        self.n, self.seed, self.epoch = n, seed, 0

    def set_epoch(self, epoch: int) -> None:
        """Called by Lightning before each epoch."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(epoch_seed(self.seed, self.epoch))
        return iter(torch.randperm(self.n, generator=generator).tolist())

    def __len__(self) -> int:
        return self.n


def epoch_seed(seed: int, epoch: int, rank: int = 0) -> int:
    """A seed for the random numbers of one epoch in one process."""
    return (seed * 1_000_003 + epoch * 1009 + rank) % 2**63


def keeper(pl, out: Path, metric: str, higher: bool):
    """The Lightning callback that writes checkpoints and metrics."""

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

        def on_train_epoch_start(self, trainer, module):
            self.began = time.time()

        def on_train_epoch_end(self, trainer, module):
            found = {k: float(v) for k, v in trainer.callback_metrics.items()}
            self.rows.append(
                {
                    "epoch": trainer.current_epoch,
                    "loss": found.get("loss_epoch", float("nan")),
                    metric: found.get(metric, float("nan")),
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
                os.replace(part, out / "checkpoints" / "last.ckpt")
                lines = [
                    ",".join(self.rows[0]),
                    *(",".join(f"{v:.7g}" for v in row.values()) for row in self.rows),
                ]
                write_text(out / "metrics.csv", "\n".join(lines) + "\n")

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
    for name in sorted(now.keys() - {"root", "epochs"}):
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
    part.write_text(text, encoding="utf-8")
    os.replace(part, path)
