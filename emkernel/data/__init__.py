"""Data sets: QM9 molecules, ModelNet point clouds, charged particles, crystals; and batches of graphs of any size."""

from ..batch import GraphBatch
from .dielectric import DIELECTRIC_TARGETS, load_dielectric
from .modelnet import load_modelnet, sample_mesh
from .nbody import NBodySystems, evolve, load_nbody, nbody_energy, simulate_nbody, straight_line_error
from .qm9 import ATOM_CLASSES, BOND_CLASSES, QM9_TARGETS, load_qm9
from .ragged import PointClouds, RaggedGraphs, as_is

__all__ = [
    "ATOM_CLASSES",
    "BOND_CLASSES",
    "DIELECTRIC_TARGETS",
    "QM9_TARGETS",
    "GraphBatch",
    "NBodySystems",
    "PointClouds",
    "RaggedGraphs",
    "as_is",
    "evolve",
    "load_dielectric",
    "load_modelnet",
    "load_nbody",
    "load_qm9",
    "nbody_energy",
    "sample_mesh",
    "simulate_nbody",
    "straight_line_error",
]
