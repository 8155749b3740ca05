"""The studies: which networks are compared, on what, and how long each is trained at each size."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import emkernel

from ._tasks import TASKS, RunConfig
from .errors import DataError
from .matrix_group import MatrixGroup

__all__ = ["DESIGNS", "PAPER_GROUPS", "SIZES", "Arm", "Request", "Study"]

SIZES = ("quick", "small", "full")
PAPER_GROUPS = ("Trivial(3)", "M", "Inv", "SO2z", "SO2zInv", "SO2zF", "O2z", "O2zInv", "SO(3)", "O(3)")
PAPER_QM9 = {
    "mu": 0.034, "alpha": 0.091, "gap": 0.048, "homo": 0.026, "lumo": 0.026, "Cv": 0.037, "r2": 1.493, "zpve": 0.00234,
    "U0": 0.032, "U": 0.035, "H": 0.039, "G": 0.030,
}  # fmt: skip


@dataclass(frozen=True)
class Arm:
    """One network of a study, and how it is trained.

    Attributes:
        name: of its folder.
        row, column: its place in the figure: the group of bars, or the point of a curve, and which bar or curve.
        group: its symmetry.
        config: its run; the seed is that of the first.
        against: name of the arm that it is compared with, if any.
    """

    name: str
    row: str
    column: str
    group: MatrixGroup
    config: RunConfig
    against: str | None = None


@dataclass(frozen=True)
class Study:
    """Networks that differ in one thing.

    Attributes:
        name: of the study, and of its files.
        question: what it asks, in a line.
        arms: the networks, in the order of the table.
        matched: give all as many weights, within 10 %, as the first implicit one has, by their channels (section 5.1).
        curves: rows are numbers and columns curves, rather than rows groups of bars.
        known: what the paper reports, by row.
    """

    name: str
    question: str
    arms: tuple[Arm, ...]
    matched: bool = True
    curves: bool = False
    known: dict[str, float] = dataclasses.field(default_factory=dict)


@dataclass(frozen=True)
class Request:
    """What is asked of a study.

    Attributes:
        root: file or folder of the data; the particles of ``symmetry`` and ``samples`` need none.
        size: "quick" (minutes on one core), "small" (an hour or more on one core) or "full" (for a GPU).
        groups: of ``groups``: symmetries to compare the kernels under, instead of the paper's.
        targets: of ``attributes`` (the first) and ``qm9``: properties.
        field: of ``symmetry`` and ``samples``: "electric" or "magnetic", along z.
        rotations: of ``groups``: "z", about z as in the paper, or "so3".
        training: fields of the RunConfig to be changed in all arms (epochs, n_train, batch_size, lr).

    Raises:
        ValueError: no such size.
    """

    root: str | None = None
    size: str = "full"
    groups: tuple[MatrixGroup, ...] = ()
    targets: tuple[str, ...] = ("mu",)
    field: str = "electric"
    rotations: str = "z"
    training: dict[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        if self.size not in SIZES:
            raise ValueError(f"size must be one of {', '.join(SIZES)}, got {self.size!r}")

    def run(self, task: str, sizes: dict[str, dict], model: dict, **more) -> RunConfig:
        """The run of a task at the size that is asked for.

        Args:
            task: of :data:`emkernel.train.TASKS`.
            sizes: fields of the RunConfig, and a "model", by size.
            model: further arguments of the network.
            **more: further fields.

        Raises:
            DataError: the task needs data, and no root is given.
        """
        if task != "nbody" and self.root is None:
            raise DataError(f"a study of {task} needs --root: the file or folder that holds the data")
        size = dict(sizes[self.size])
        model = size.pop("model", {}) | model
        fields = TASKS[task].defaults | size | more | self.training
        return RunConfig(task, root=self.root if task != "nbody" else None, model=model, **fields)


# ---- shapes ---------------------------------------------------------------------------------------------------------

IMPLICIT_SHAPES = {"width": 6, "hidden": 32, "radial": 16}
FIXED = {"kernel": "fixed", "rings": 3}
SHAPES = {
    "quick": {
        "epochs": 2,
        "n_train": 200,
        "model": {"channels": (4, 8), "points": (32, 8), "neighbours": (12, 12), "cutoffs": (0.5, 1.2), "degree": 1},
    },
    "small": {
        "epochs": 4,
        "lr": 6e-3,
        "model": {
            "channels": (4, 7, 14),
            "points": (96, 32, 8),
            "neighbours": (16, 16, 16),
            "cutoffs": (0.35, 0.8, 1.4),
            "degree": 2,
        },
    },
    "full": {"epochs": 60, "model": {"channels": (12, 16, 32), "degree": 2}},
}


def groups(request: Request) -> Study:
    """Figure 3: the implicit kernel against the fixed basis, under each group, on rotated shapes."""
    arms = []
    for group in request.groups or [emkernel.groups.get(name) for name in PAPER_GROUPS]:
        for column, model in (("implicit", IMPLICIT_SHAPES), ("fixed", FIXED)):
            config = request.run("modelnet", SHAPES, model, rotations=request.rotations)
            against = f"{group.name}-fixed" if column == "implicit" else None
            arms.append(Arm(f"{group.name}-{column}", group.name, column, group, config, against))
    return Study("groups", "Is an implicit kernel better than a fixed basis, under which group?", tuple(arms))


# ---- molecules ------------------------------------------------------------------------------------------------------

IMPLICIT_MOLECULES = {"width": 6, "radial": 16}
FIXED_MOLECULES = {"kernel": "fixed", "rings": 9}
FIXED_RATE = 2.0  # the fixed basis learns best at a higher rate
MOLECULES = {
    "quick": {"epochs": 2, "n_train": 500, "lr": 1e-2, "model": {"channels": 12, "layers": 2}},
    "small": {"epochs": 8, "n_train": 4000, "lr": 1e-2, "model": {"channels": 13, "layers": 3}},
    "full": {"epochs": 100, "model": {"channels": 48, "layers": 6}},
}


def attributes(request: Request) -> Study:
    """Figure 4: a fixed basis, the implicit kernel, and what bonds and atoms in it are worth."""
    kinds = {
        "fixed basis": FIXED_MOLECULES,
        "implicit": IMPLICIT_MOLECULES | {"attributes": ()},
        "with bonds": IMPLICIT_MOLECULES | {"attributes": ("bonds",)},
        "with atoms": IMPLICIT_MOLECULES | {"attributes": ("atoms",)},
        "with both": IMPLICIT_MOLECULES | {"attributes": ("bonds", "atoms")},
    }
    if len(request.targets) != 1:
        raise ValueError(f"the study of attributes is one of one target, got {', '.join(request.targets)}")
    target, group = request.targets[0], emkernel.groups.O(3)
    arms = []
    for row, model in kinds.items():
        config = request.run("qm9", MOLECULES, model, target=target)
        if row == "fixed basis" and "lr" not in request.training:
            config = replace(config, lr=FIXED_RATE * config.lr)
        name = row.replace(" ", "-")
        against = {"fixed basis": None, "implicit": "fixed-basis"}.get(row, "implicit")
        arms.append(Arm(name, row, target, group, config, against))
    return Study("attributes", f"What is the implicit kernel worth, and attributes in it, on {target}?", tuple(arms))


def qm9(request: Request) -> Study:
    """Table 1: the implicit kernel with bonds and atoms, for each target."""
    group = emkernel.groups.O(3)
    arms = tuple(
        Arm(target, target, "implicit", group, request.run("qm9", MOLECULES, IMPLICIT_MOLECULES, target=target))
        for target in request.targets
    )
    return Study("qm9", "How well are properties of molecules predicted?", arms, matched=False, known=PAPER_QM9)


# ---- particles ------------------------------------------------------------------------------------------------------

PARTICLES = {
    "quick": {"epochs": 15, "n_train": 150, "model": {"channels": 8, "layers": 2, "degree": 1, "width": 4}},
    "small": {"epochs": 40, "n_train": 500, "model": {"channels": 10, "layers": 2, "degree": 2, "width": 4}},
    "full": {"epochs": 100, "n_train": 3000, "model": {"channels": 16, "layers": 3, "degree": 2, "width": 8}},
}
SYSTEMS = {"quick": (50, 150), "small": (60, 120, 240, 480, 960), "full": (100, 300, 1000, 3000, 10_000, 30_000)}
STEPS = {"quick": 60, "small": 300, "full": 5000}


def _symmetries(field: str) -> dict[str, MatrixGroup]:
    known = emkernel.groups
    found = {"electric": (known.O2z(), known.Cnv(3)), "magnetic": (known.SO2zInv(), known.Cnh(3))}
    if field not in found:
        raise ValueError(f"field must be 'electric' or 'magnetic', got {field!r}")
    right, part = found[field]
    return {"right": right, "part": part, "none": known.Trivial(3), "too large": known.O(3)}


def symmetry(request: Request) -> Study:
    """What the right symmetry is worth, against none, a part of it and one that is not there."""
    arms = []
    for row, group in _symmetries(request.field).items():
        config = request.run("nbody", PARTICLES, {}, field=request.field, lr=1e-2)
        against = None if row == "none" else "none"
        arms.append(Arm(row.replace(" ", "-"), f"{row}: {group.name}", "error", group, config, against))
    question = f"Which symmetry is right for charged particles in a field that is {request.field}, along z?"
    return Study("symmetry", question, tuple(arms))


def samples(request: Request) -> Study:
    """How fast the error falls with the number of training systems, with and without the right symmetry."""
    if "n_train" in request.training:
        raise ValueError("n_train is what the study of samples varies: it cannot be given")
    size, known = request.size, _symmetries(request.field)
    arms = []
    for n in SYSTEMS[size]:
        for column, group in (("right", known["right"]), ("none", known["none"])):
            batch = min(50, n)
            # as many steps for each, whatever the number of systems
            plan = {"n_train": n, "batch_size": batch, "epochs": -(-STEPS[size] // (n // batch)), "lr": 1e-2}
            config = request.run("nbody", PARTICLES, {}, field=request.field, **plan)
            against = f"none-{n}" if column == "right" else None
            arms.append(Arm(f"{column}-{n}", str(n), f"{column}: {group.name}", group, config, against))
    return Study("samples", "What is the right symmetry worth, by the number of examples?", tuple(arms), curves=True)


DESIGNS: dict[str, Callable[[Request], Study]] = {
    "groups": groups,
    "attributes": attributes,
    "qm9": qm9,
    "symmetry": symmetry,
    "samples": samples,
}
