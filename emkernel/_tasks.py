"""The tasks that the reference networks are trained on: data, network, loss and metric of each."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn

import emkernel

from .batch import GraphBatch
from .errors import DataError
from .matrix_group import MatrixGroup
from .models import MoleculeNet, ParticleNet, ShapeNet
from .nn import Gate, OrbitELU

__all__ = ["RunConfig", "TASKS", "Task", "random_rotations"]


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
        model: arguments of the network, such as channels, degree, layers; nonlinearity is "gate" or "orbit".
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
        metric: name of the metric.
        unit: RunConfig -> its unit.
        scale: (RunConfig, training set) -> typical size of the target, by which the loss is divided.
        higher: whether more of the metric is better.
        augment: (batch, training, seed) -> batch.
    """

    defaults: dict[str, Any]
    load: Callable[[RunConfig], dict]
    build: Callable[[MatrixGroup, RunConfig, Any], nn.Module]
    loss: Callable[[torch.Tensor, GraphBatch], torch.Tensor]
    error: Callable[[torch.Tensor, GraphBatch], tuple[torch.Tensor, int]]
    metric: str
    unit: Callable[[RunConfig], str] = lambda config: ""
    scale: Callable[[RunConfig, Any], float] = lambda config, data: 1.0
    higher: bool = False
    augment: Callable[[GraphBatch, RunConfig, int | None], GraphBatch] = lambda batch, config, seed: batch


# ---- the tasks --------------------------------------------------------------------------------------------------


def random_rotations(n: int, kind: str = "so3", generator: torch.Generator | None = None) -> torch.Tensor:
    """(n, 3, 3) rotations, uniform in SO(3) (from unit quaternions) or about the z axis."""
    if kind == "z":
        t = 2 * torch.pi * torch.rand(n, generator=generator)
        zero, one = torch.zeros(n), torch.ones(n)
        return torch.stack([t.cos(), -t.sin(), zero, t.sin(), t.cos(), zero, zero, zero, one], 1).reshape(
            n, 3, 3
        )
    if kind != "so3":
        raise ValueError(f"rotations must be 'so3', 'z' or 'none', got {kind!r}")
    q = torch.randn(n, 4, generator=generator)
    w, x, y, z = (q / q.norm(dim=1, keepdim=True)).unbind(1)
    rows = [
        1 - 2 * (y * y + z * z),
        2 * (x * y - w * z),
        2 * (x * z + w * y),
        2 * (x * y + w * z),
        1 - 2 * (x * x + z * z),
        2 * (y * z - w * x),
        2 * (x * z - w * y),
        2 * (y * z + w * x),
        1 - 2 * (x * x + y * y),
    ]
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

    size = {} if config.n_train is None else {"n_train": config.n_train}
    return load_nbody(seed=config.seed, field=config.field, **size)


def _load_qm9(config: RunConfig) -> dict:
    from .data.qm9 import load_qm9

    return load_qm9(_needs_root(config), config.target, seed=config.seed)


def _load_modelnet(config: RunConfig) -> dict:
    from .data.modelnet import load_modelnet

    return load_modelnet(_needs_root(config), seed=config.seed)


def network_options(group: MatrixGroup, config: RunConfig, **defaults) -> dict[str, Any]:
    """Arguments of the network: those of the run before the defaults, and the nonlinearity that a name stands for."""
    options = defaults | config.model
    name = options.pop("nonlinearity", "gate")
    if name not in ("gate", "orbit"):
        raise ValueError(f"nonlinearity must be 'gate' or 'orbit', got {name!r}")
    if name == "gate" or not group.is_compact:
        return options | {"nonlinearity": Gate if name == "gate" else OrbitELU}
    # functions on the orbit of a vector, for O(3) the sphere: there every field that the kernel's polynomials make is
    # a function, as no more fixes a vector in general position than fixes them
    vector = np.random.default_rng(0).standard_normal(group.d)
    return options | {"nonlinearity": partial(OrbitELU, subgroup=emkernel.groups.Stabiliser(group, tensors=[vector]))}


def _build_molecules(group: MatrixGroup, config: RunConfig, data) -> nn.Module:
    """With a head that suits the target: extensive ones are sums over atoms, to which those of each element add."""
    y, n = data.y.double(), data.ptr.diff()
    if config.target == "mu":
        options: dict[str, Any] = {"target": "dipole"}
    elif config.target == "r2":
        owner = torch.arange(len(n)).repeat_interleave(n)
        centre = torch.zeros(len(n), 3).index_add_(0, owner, data.pos) / n[:, None]
        options = {"target": "extent", "scale": float(y.sum() / (data.pos - centre[owner]).square().sum())}
    elif config.target in ("homo", "lumo", "gap"):
        options = {"target": "mean", "shift": float(y.mean()), "scale": _spread(y)}
    else:
        types = nn.functional.one_hot(data.x["z"].long(), 5).double()
        counts = torch.zeros(len(n), 5, dtype=y.dtype)
        counts.index_add_(0, torch.arange(len(n)).repeat_interleave(n), types)
        shift = torch.linalg.lstsq(counts, y[:, None], driver="gelsd").solution[:, 0]
        scale = _spread(y, counts @ shift) / float(n.double().mean()) ** 0.5
        options = {"target": "sum", "shift": shift.tolist(), "scale": scale}
    return MoleculeNet(group, **network_options(group, config, **options))


def _spread(y: torch.Tensor, known: torch.Tensor | float = 0.0) -> float:
    """The standard deviation of what is not known, or one where that is rounding."""
    spread = float((y - known).std(correction=0))
    return spread if spread > 1e-6 * float(y.abs().max()) else 1.0


def _qm9_unit(config: RunConfig) -> str:
    from .data.qm9 import QM9_TARGETS

    return QM9_TARGETS[config.target].unit


def _mean_distance(prediction: torch.Tensor, batch: GraphBatch):
    return (prediction - batch.y).norm(dim=1).sum(), len(batch.y)


TASKS: dict[str, Task] = {
    "nbody": Task(
        defaults={"epochs": 30, "batch_size": 64, "lr": 3e-3},
        load=_load_nbody,
        build=lambda group, config, data: ParticleNet(
            group, **network_options(group, config, scale=float(data.y.std()))
        ),
        loss=lambda prediction, batch: (prediction - batch.y).square().mean(),
        error=_mean_distance,
        metric="distance",
        unit=lambda config: "length",
    ),
    "qm9": Task(
        defaults={"epochs": 30, "batch_size": 64, "lr": 2e-3},
        load=_load_qm9,
        build=_build_molecules,
        loss=lambda prediction, batch: (prediction - batch.y).abs().mean(),
        error=lambda prediction, batch: ((prediction - batch.y).abs().sum(), len(batch.y)),
        metric="mae",
        unit=_qm9_unit,
        scale=lambda config, data: 1.0 if config.target == "mu" else _spread(data.y.double()),
    ),
    "modelnet": Task(
        defaults={"epochs": 40, "batch_size": 16, "lr": 3e-3, "weight_decay": 1e-2, "clip": 5.0},
        load=_load_modelnet,
        build=lambda group, config, data: ShapeNet(
            group, len(data.classes), **network_options(group, config, normals=data.normal is not None)
        ),
        loss=lambda prediction, batch: nn.functional.cross_entropy(prediction, batch.y, label_smoothing=0.1),
        error=lambda prediction, batch: ((prediction.argmax(1) == batch.y).sum(), len(batch.y)),
        metric="accuracy",
        higher=True,
        augment=_augment_shapes,
    ),
}
