"""What a caller may call, with arguments that are right, and what might be passed in place of one of them."""

from __future__ import annotations

import traceback
from functools import cache
from pathlib import Path

import numpy as np
import torch

import emkernel as ek
from emkernel import Scalar, SolverError, V, groups, nn
from emkernel.data import PointClouds, RaggedGraphs, evolve, load_nbody, sample_mesh, simulate_nbody
from emkernel.graph import random_subset
from emkernel.models import MoleculeNet, ParticleNet, SteerableBlock
from emkernel.ops.segment import segment_reduce
from emkernel.train import RunConfig

PACKAGE = {str(Path(m.__file__).parent) for m in (ek, groups)}
C4, O3 = groups.C(4), groups.O(3)
R1, R2, R3 = (2 * Scalar + V)(C4), (Scalar + 2 * V)(C4), (Scalar + V)(C4)
EDGES, BATCH = torch.tensor([[0, 1, 2], [1, 2, 0]]), torch.tensor([0, 0, 1, 1])
SMALL = {"degree": 1, "width": 2, "hidden": 4, "layers": 1, "radial": 3, "cutoff": 1.0}
# arguments that are only asked whether they are true, and callables, which may do what they like
FLAGS = {"bias", "affine", "self_interaction", "bilinear", "loop", "undirected", "node_target", "check", "grouped"}


@cache
def junk():
    """Values of every kind; what is honestly too large to be computed is not among them."""
    nan, inf = float("nan"), float("inf")
    return (
        None, -1, 0, 1, 2, 3, 1.5, nan, inf, -inf, 1e30, 1e-30, 3j, -(2**62), "text", "", b"x", [], [[]], {}, (), set(),
        object(), True, {"a": 1}, range(3), slice(None), Ellipsis, len, float, np.float32(1.5), np.int64(3),
        np.eye(2), np.eye(3), np.eye(2) * 1j, np.eye(2, dtype=np.float16), np.eye(2)[None].astype(">f8"),
        np.zeros((0, 3, 3)), np.zeros((2, 3, 3)), np.full((1, 3, 3), nan), np.full((1, 2, 2), 1e30), np.full(3, 1e-30),
        np.array("a"), np.array([["a"]]), np.array([None, object()], object), np.zeros((1, 2, 2), bool), np.array(1.0),
        np.zeros((1, 2, 2), np.int8), np.zeros((1, 1, 1, 1)), [[1, 2], [3]], [np.eye(2), np.eye(3)], [["a"]],
        torch.eye(2), torch.eye(3), torch.zeros(0), torch.tensor(1), torch.zeros(3, dtype=torch.bool),
        torch.eye(2, device="meta"), torch.zeros(2, 5, dtype=torch.int64),
        torch.zeros(4, 2).to_sparse(),
        torch.zeros(5, 2, requires_grad=True), torch.zeros(2, 2, dtype=torch.complex64),
        torch.full((4, 2), nan),
        torch.zeros(4, dtype=torch.uint8), torch.zeros(4, 2, dtype=torch.float16),
        torch.tensor([[-1, 9, 0], [1, 2, 0]]),
        V, Scalar, 0 * V, V(C4), Scalar(O3), R1, C4, O3, ek.MatrixGroup, np.random.default_rng(0), torch.Generator(),
    )  # fmt: skip


def randn(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def made(build, **arguments):
    """A callable that is built when it is first called, and its arguments."""
    build = cache(build)
    return (lambda **given: build()(**given)), lambda: arguments


def particles(**changed):
    given = {"pos": randn(4, 3), "vel": randn(4, 3), "charge": randn(4, 1), "edge_index": EDGES}
    given |= changed
    x = {"vel": given["vel"], "charge": given["charge"]}
    return ek.GraphBatch(given["pos"], BATCH, 2, x, edge_index=given["edge_index"])


def molecules(**changed):
    given = {"pos": randn(4, 3), "batch": BATCH, "num_graphs": 2, "z": BATCH, "edge_index": EDGES, "bond": EDGES[0]}
    given |= changed
    return ek.GraphBatch(
        given["pos"], given["batch"], given["num_graphs"], {"z": given["z"]}, edge_index=given["edge_index"],
        edge_attr={"bond": given["bond"]},
    )  # fmt: skip


@cache
def particle_net():
    return ParticleNet(C4O3(), channels=1, layers=1, width=2, hidden=4)


@cache
def molecule_net():
    return MoleculeNet(C4O3(), channels=1, layers=1, width=2, hidden=4)


@cache
def C4O3():
    return groups.get("C2v")


X = {"x": randn(5, 4)}
CALLS = {
    # layers, and making them
    "Linear": (nn.Linear, lambda: {"rep_in": R1, "rep_out": R2, "bias": True}),
    "linear": made(lambda: nn.Linear(R1, R2), **X),
    "Bilinear": (nn.Bilinear, lambda: {"rep_left": R1, "rep_right": R1, "rep_out": R2, "width": 2}),
    "bilinear": made(lambda: nn.Bilinear(R1, R1, R2, 2), x=randn(5, 4), y=randn(5, 4)),
    "Gate": (nn.Gate, lambda: {"rep": R1}),
    "gate": made(lambda: nn.Gate(R1), **X),
    "Invariants": (nn.Invariants, lambda: {"rep": R1}),
    "invariants": made(lambda: nn.Invariants(R1), **X),
    "BatchNorm": (nn.BatchNorm, lambda: {"rep": R1, "affine": True}),
    "norm": made(lambda: nn.BatchNorm(R1), **X),
    "EMLP": (nn.EMLP, lambda: {"rep_in": R1, "rep_out": R2, "hidden": 4, "layers": 1}),
    "emlp": made(lambda: nn.EMLP(R1, R2, 4, 1), **X),
    "ImplicitKernel": (nn.ImplicitKernel, lambda: {"rep_in": R1, "rep_out": R2, "edge_rep": R3, **SMALL}),
    "kernel": made(lambda: nn.ImplicitKernel(R1, R2, R3, **SMALL), edge_vec=randn(3, 2), edge_attr=randn(3, 3)),
    "normalise": made(
        lambda: nn.ImplicitKernel(R1, R2, R3, **SMALL).normalise, edge_vec=randn(3, 2), edge_attr=randn(3, 3), std=1.0
    ),
    "FixedKernel": (
        nn.FixedKernel, lambda: {"rep_in": R1, "rep_out": R2, "edge_rep": None, "degree": 1, "rings": 2, "cutoff": 1.0},
    ),
    "fixed": made(lambda: nn.FixedKernel(R1, R2), edge_vec=randn(3, 2)),
    "InvariantPool": (nn.InvariantPool, lambda: {"rep": R1}),
    "pool": made(lambda: nn.InvariantPool(R1), x=randn(4, 4), batch=BATCH, num_graphs=2),
    "OrbitELU": (nn.OrbitELU, lambda: {"rep": R1, "subgroup": None, "samples": None}),
    "orbit": made(lambda: nn.OrbitELU(R1), **X),
    "orbit error": made(lambda: nn.OrbitELU(R1).error, trials=4, generator=None),
    "PointConv": (
        nn.PointConv,
        lambda: {"rep_in": R1, "rep_out": R2, "edge_rep": R3, "kernel": "implicit", "contraction": "auto",
                 "chunk": None, "aggr": "sum", "neighbours": 1.0, "backend": "auto", **SMALL},
    ),
    "conv": made(
        lambda: nn.PointConv(R1, R2, R3, **SMALL), x=randn(4, 4), pos=randn(4, 2), edge_index=EDGES,
        edge_attr=randn(3, 3), size=None,
    ),
    "conv of pairs": made(
        lambda: lambda a, b, c, d: nn.PointConv(R1, R2, **SMALL)((a, b), (c, d), EDGES[:, :2]),
        a=randn(4, 4), b=randn(3, 4), c=randn(4, 2), d=randn(3, 2),
    ),
    "SteerableBlock": (SteerableBlock, lambda: {"rep_in": R1, "rep_out": R1, "edge_rep": R3, **SMALL}),
    # graphs and data
    "segment_reduce": (
        segment_reduce,
        lambda: {"values": randn(5, 2), "index": torch.tensor([0, 1, 1, 2, 0]), "size": 3, "reduce": "sum"},
    ),
    "segment maxima": (
        lambda v, i, n: segment_reduce(v, i, n, "max"),
        lambda: {"v": randn(5, 2), "i": torch.tensor([0, 1, 1, 2, 0]), "n": 3},
    ),
    "knn_graph": (
        ek.knn_graph,
        lambda: {"pos": randn(4, 2), "k": 2, "batch": BATCH, "query": randn(4, 2), "query_batch": BATCH,
                 "metric": torch.eye(2)},
    ),
    "radius_graph": (ek.radius_graph, lambda: {"pos": randn(4, 2), "r": 1.0, "batch": BATCH, "metric": torch.eye(2)}),
    "interval_graph": (
        ek.interval_graph, lambda: {"pos": randn(4, 2), "r": 1.0, "form": torch.eye(2), "batch": BATCH, "loop": False},
    ),
    "random_subset": (random_subset, lambda: {"batch": BATCH, "n": 1, "generator": None}),
    "Neighbours.of": (ek.Neighbours.of, lambda: {"edge_index": EDGES, "num_sources": 4, "num_targets": 4}),
    "GraphBatch.to": (ek.GraphBatch(randn(4, 2), BATCH, 2).to, lambda: {"dtype": torch.float64}),
    "RaggedGraphs": (
        RaggedGraphs,
        lambda: {"pos": randn(5, 3), "ptr": torch.tensor([0, 2, 5]), "y": torch.zeros(2),
                 "edges": torch.tensor([[0, 1], [1, 0]]), "edge_ptr": torch.tensor([0, 1, 2])},
    ),
    "PointClouds": (
        PointClouds, lambda: {"pos": randn(4, 8, 3), "label": torch.zeros(4, dtype=torch.int64), "classes": ["a"]},
    ),
    "graphs[]": made(
        lambda: lambda index: RaggedGraphs(randn(5, 3), torch.tensor([0, 2, 5]), torch.zeros(2))[index], index=0
    ),
    "sample_mesh": (
        sample_mesh,
        lambda: {"vertices": np.eye(3), "triangles": np.array([[0, 1, 2]]), "n": 4, "rng": np.random.default_rng(0)},
    ),
    "simulate_nbody": (
        simulate_nbody, lambda: {"n_systems": 1, "n_particles": 2, "seed": 0, "field": "none", "steps": 2, "dt": 0.01},
    ),
    "evolve": (
        evolve,
        lambda: {"pos": np.zeros((1, 1, 3)), "vel": np.ones((1, 1, 3)), "charge": np.ones((1, 1)), "field": "none",
                 "steps": 2},
    ),
    "load_nbody": (load_nbody, lambda: {"seed": 0, "n_train": 2, "n_val": 1, "n_test": 1}),
    "RunConfig": (RunConfig, lambda: {"task": "nbody", "epochs": 1, "batch_size": 2, "n_train": 3}),
    "ParticleNet": made(lambda: lambda **g: particle_net()(particles(**g)), **vars(particles())["x"], pos=randn(4, 3),
                        edge_index=EDGES),
    "MoleculeNet": made(lambda: lambda **g: molecule_net()(molecules(**g)), pos=randn(4, 3), batch=BATCH, num_graphs=2,
                        z=BATCH, edge_index=EDGES, bond=EDGES[0]),
    "a network": made(particle_net, batch=particles()),
    # groups and representations
    "MatrixGroup": (
        ek.MatrixGroup,
        lambda: {"name": "g", "discrete_generators": [np.diag([1.0, -1])], "lie_algebra": [[[0, -1], [1, 0]]], "d": 2},
    ),
    "from_permutations": (ek.MatrixGroup.from_permutations, lambda: {"name": "g", "permutations": [[1, 2, 0]]}),
    "polished": (ek.MatrixGroup.polished, lambda: {"name": "g", "discrete_generators": [[[0, -1], [1, 0.0]]]}),
    "sample": (C4.sample, lambda: {"n": 2, "generator": None}),
    "bind": (V, lambda: {"group": C4}),
    "times": (lambda a: 2 * V * a, lambda: {"a": V}),
    "plus": (lambda a: V + a, lambda: {"a": V}),
    "plus, bound": (lambda a: V(C4) + a, lambda: {"a": V}),
    "maps": (lambda a: V >> a, lambda: {"a": V}),
    "power": (lambda a: V**a, lambda: {"a": 2}),
    "T": (ek.T, lambda: {"p": 1, "q": 1}),
    "rho": (lambda g: R1.rho(g), lambda: {"g": C4.generators[0]}),
    "drho": (lambda A: V(O3).drho(A), lambda: {"A": np.zeros((3, 3))}),
    "GivenRep": (ek.GivenRep, lambda: {"group": C4, "discrete": np.eye(1)[None], "name": "n"}),
    "from_function": (lambda group: ek.from_function(group, lambda g: g), lambda: {"group": C4}),
    "SubRep": (ek.SubRep, lambda: {"base": V(C4), "back": np.eye(2)}),
    "sym": (ek.sym, lambda: {"rep": V(C4), "k": 2}),
    "irreps": (ek.irreps, lambda: {"group": C4, "degree": 1}),
    "equivariant_basis": (ek.equivariant_basis, lambda: {"rep_in": V(C4), "rep_out": V(C4)}),
    "regular": (ek.regular, lambda: {"group": C4}),
    "molien": (ek.molien, lambda: {"rep": V(C4), "degree": 3}),
    "e3nn_rep": (ek.e3nn_rep, lambda: {"group": C4O3(), "irreps": "1x0e + 1x1o"}),
    "groups.get": (groups.get, lambda: {"name": "C4"}),
    "groups.C": (groups.C, lambda: {"n": 4}),
}  # fmt: skip


def good(name):
    return CALLS[name][1]()


def cases(name):
    return [(k, v) for k in good(name) if k not in FLAGS for v in junk()]


def answered(name):
    CALLS[name][0](**good(name))
    return True


def foreign(name, change):
    """What is wrong with what this call raises, or None where it answers or refuses.

    It refuses by an error of the right class that a line of this package raises, or that Python or numpy raise of
    themselves for a value or a type.
    """
    if set(change) & FLAGS:
        return None
    try:
        with np.errstate(all="ignore"):
            CALLS[name][0](**(good(name) | change))
    except (ValueError, TypeError, SolverError):
        return None
    except IndexError as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        if any(last.filename.startswith(folder) for folder in PACKAGE) and "raise" in (last.line or ""):
            return None
        return describe(error)
    except Exception as error:
        return describe(error)
    return None


def describe(error):
    where = traceback.extract_tb(error.__traceback__)[-3:]
    where = ", ".join(f"{Path(f.filename).name}:{f.lineno}" for f in where)
    return f"{type(error).__name__}: {error!s:.150} at {where}"
