"""Charged particles in a uniform field along z: a task whose symmetry is known exactly, made on the spot.

Particle i of unit mass and charge q_i = ±1 moves by

    d²x_i/dt² = Σ_j q_i q_j (x_i - x_j) / (|x_i - x_j|² + ε²)^{3/2} + q_i E ẑ + q_i v_i × B ẑ.

The interaction alone is symmetric under O(3). An electric field along z, a vector, leaves O(2): rotations
about z and reflections in planes that contain z. A magnetic field, a pseudo-vector, leaves SO(2), the
rotations about z, times the reflection z -> -z; vertical reflections turn it over. Translations remain
symmetries throughout.

Units: mass, charge and Coulomb constant are one; the unit of length is the spread of the initial positions.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from .._arguments import array_of, whole
from .ragged import RaggedGraphs

__all__ = ["NBodySystems", "evolve", "load_nbody", "nbody_energy", "simulate_nbody", "straight_line_error"]

Field = Literal["electric", "magnetic", "none"]
STRENGTH: dict[str, float] = {"electric": 1.0, "magnetic": 1.5, "none": 0.0}
SOFTENING = 0.3
STEPS, DT = 150, 0.01
_SYSTEMS_AT_ONCE = 256  # keeps the arrays of one step in the cache of a core


class NBodySystems(NamedTuple):
    """States of S systems of n particles before and after an evolution.

    Attributes:
        pos, vel: (S, n, 3) positions and velocities before.
        charge: (S, n).
        final_pos, final_vel: (S, n, 3) the same after. All float64.

    Example:
        >>> before = ek.data.simulate_nbody(2, 3, seed=0, steps=0)
        >>> np.array_equal(before.pos, before.final_pos)
        True
    """

    pos: np.ndarray
    vel: np.ndarray
    charge: np.ndarray
    final_pos: np.ndarray
    final_vel: np.ndarray


def simulate_nbody(
    n_systems: int,
    n_particles: int = 5,
    *,
    seed: int | np.random.SeedSequence,
    field: Field = "electric",
    strength: float | None = None,
    steps: int = STEPS,
    dt: float = DT,
    softening: float = SOFTENING,
) -> NBodySystems:
    """Draw initial states and evolve them for a time T = steps · dt.

    Positions are normal with standard deviation 1, velocities normal with 0.5, charges ±1 with equal odds. The
    first systems of a longer simulation are those of a shorter one with the same seed.

    Args:
        n_systems: S, number of independent systems.
        n_particles: n, particles in each.
        seed: the randomness of the initial states.
        field: which uniform field lies along z.
        strength: E or B in the units of the module; None for 1.0 (electric) and 1.5 (magnetic).
        steps: number of time steps.
        dt: length of a time step.
        softening: ε, the distance below which the interaction is weakened.

    Returns:
        The initial and final states.

    Raises:
        ValueError: for an unknown field or sizes that are not positive.

    Example:
        >>> ek.data.simulate_nbody(2, 3, seed=0).final_pos.shape
        (2, 3, 3)

    Source: the charged-particle task of Kipf et al., arXiv 1802.04687, with a field added.
    """
    n_systems, n_particles = whole(n_systems, "n_systems", 0), whole(n_particles, "n_particles")
    draws = np.random.default_rng(seed).standard_normal((n_systems, n_particles, 7))
    pos, vel = draws[..., :3].copy(), 0.5 * draws[..., 3:6]
    charge = np.where(draws[..., 6] < 0, -1.0, 1.0)
    final_pos, final_vel = evolve(
        pos, vel, charge, field=field, strength=strength, steps=steps, dt=dt, softening=softening
    )
    return NBodySystems(pos, vel, charge, final_pos, final_vel)


def evolve(
    pos: np.ndarray,
    vel: np.ndarray,
    charge: np.ndarray,
    *,
    field: Field = "electric",
    strength: float | None = None,
    steps: int = STEPS,
    dt: float = DT,
    softening: float = SOFTENING,
) -> tuple[np.ndarray, np.ndarray]:
    """Positions and velocities after ``steps`` steps of the leapfrog, with the gyration done exactly.

    One step is drift dt/2, kick dt/2, rotation of v about z by -q B dt, kick dt/2, drift dt/2: second order,
    reversible, volume-preserving, and equivariant under the symmetries of the field step by step.

    Args:
        pos: (S, n, 3) positions.
        vel: (S, n, 3) velocities.
        charge: (S, n) charges.
        field: which uniform field lies along z.
        strength: E or B; None for the default of ``simulate_nbody``.
        steps: number of time steps, negative ``dt`` runs backwards.
        dt: length of a time step.
        softening: ε > 0.

    Returns:
        Final positions and velocities, (S, n, 3) float64; the arguments are left as they are.

    Raises:
        ValueError: for wrong shapes or an unknown field.

    Example:
        >>> ek.data.evolve(np.zeros((1, 1, 3)), np.ones((1, 1, 3)), np.ones((1, 1)), field="none", steps=100)[0]
        array([[[1., 1., 1.]]])

    Source: Birdsall and Langdon, Plasma Physics via Computer Simulation (1985), chapter 4 (Boris rotation).
    """
    electric, magnetic = _field(field, strength)
    given = (("pos", pos), ("vel", vel), ("charge", charge))
    pos, vel, charge = (array_of(a, name).astype(np.float64) for name, a in given)
    if pos.ndim != 3 or pos.shape[2] != 3 or vel.shape != pos.shape or charge.shape != pos.shape[:2]:
        raise ValueError(
            f"pos, vel and charge have the shapes {pos.shape}, {vel.shape}, {charge.shape}, expected (S, n, 3), "
            "(S, n, 3) and (S, n)."
        )
    steps = whole(steps, "steps", 0)
    if not softening > 0:
        raise ValueError(f"softening={softening}, expected > 0.")
    final_pos, final_vel = np.empty_like(pos), np.empty_like(vel)
    for begin in range(0, len(pos), _SYSTEMS_AT_ONCE):
        part = slice(begin, begin + _SYSTEMS_AT_ONCE)
        # coordinates first, systems last: every operation then runs along memory
        x, v, q = (
            pos[part].transpose(2, 1, 0).copy(),
            vel[part].transpose(2, 1, 0).copy(),
            charge[part].T.copy(),
        )
        cos, sin = np.cos(q * magnetic * dt), np.sin(q * magnetic * dt)
        for _ in range(steps):
            x += (0.5 * dt) * v
            kick = (0.5 * dt) * _acceleration(x, q, softening)
            kick[2] += (0.5 * dt * electric) * q
            v += kick
            if magnetic:
                v[0], v[1] = cos * v[0] + sin * v[1], cos * v[1] - sin * v[0]
            v += kick
            x += (0.5 * dt) * v
        final_pos[part], final_vel[part] = x.transpose(2, 1, 0), v.transpose(2, 1, 0)
    return final_pos, final_vel


def nbody_energy(
    pos: np.ndarray,
    vel: np.ndarray,
    charge: np.ndarray,
    *,
    field: Field = "electric",
    strength: float | None = None,
    softening: float = SOFTENING,
) -> np.ndarray:
    """The conserved energy Σ|v|²/2 + Σ_{i<j} q_i q_j / (r_ij² + ε²)^{1/2} - Σ q_i E z_i of each system.

    Args:
        pos: (S, n, 3) positions.
        vel: (S, n, 3) velocities.
        charge: (S, n) charges.
        field: which uniform field lies along z; a magnetic one does no work.
        strength: E or B; None for the default of ``simulate_nbody``.
        softening: ε.

    Returns:
        (S,) energies.

    Example:
        >>> ek.data.nbody_energy(np.zeros((1, 1, 3)), np.ones((1, 1, 3)), np.ones((1, 1)))
        array([1.5])
    """
    electric, _ = _field(field, strength)
    i, j = np.triu_indices(pos.shape[1], 1)
    r2 = ((pos[:, i] - pos[:, j]) ** 2).sum(-1)
    potential = (charge[:, i] * charge[:, j] / np.sqrt(r2 + softening**2)).sum(-1)
    return 0.5 * (vel**2).sum((1, 2)) + potential - electric * (charge * pos[..., 2]).sum(-1)


def load_nbody(
    seed: int = 0,
    n_train: int = 3000,
    n_val: int = 500,
    n_test: int = 500,
    *,
    n_particles: int = 5,
    field: Field = "electric",
    strength: float | None = None,
    steps: int = STEPS,
    dt: float = DT,
) -> dict[str, RaggedGraphs]:
    """Data sets of charged particles: from positions, velocities and charges, tell where the particles go.

    The target is y_i = x_i(T) - x_i(0) - T v_i(0), the deviation from the straight line, per particle, in units
    of the initial spread; zero is what a model that sees no force predicts. All particles of a system are
    connected. The three parts have random streams of their own: validation and test do not depend on
    ``n_train``, and the first systems of a larger training set are those of a smaller one.

    Args:
        seed: the randomness of the initial states.
        n_train: systems for training.
        n_val: systems for validation.
        n_test: systems for the test.
        n_particles: particles in each system.
        field: "electric" (symmetry O(2) about z), "magnetic" (SO(2) about z) or "none" (O(3)).
        strength: E or B; None for the default of ``simulate_nbody``.
        steps: number of time steps; the horizon is T = steps · dt.
        dt: length of a time step.

    Returns:
        ``{"train", "val", "test"}``, each with ``x["vel"]`` (N, 3), ``x["charge"]`` (N, 1) and ``y`` (N, 3), float32.

    Raises:
        ValueError: for an unknown field or sizes that are not positive.

    Example:
        >>> ek.data.load_nbody(n_train=8, n_val=2, n_test=2)["train"]
        RaggedGraphs(8 graphs, 40 nodes, 160 edges)

    Source: the charged-particle task of Kipf et al., arXiv 1802.04687, with a field added.
    """
    sizes = {"train": n_train, "val": n_val, "test": n_test}
    parts = {}
    for (name, n), stream in zip(sizes.items(), np.random.SeedSequence(seed).spawn(3), strict=True):
        systems = simulate_nbody(
            n, n_particles, seed=stream, field=field, strength=strength, steps=steps, dt=dt
        )
        deviation = systems.final_pos - systems.pos - (steps * dt) * systems.vel
        i, j = (~np.eye(n_particles, dtype=bool)).nonzero()
        pairs = torch.from_numpy(np.stack([j, i]))
        parts[name] = RaggedGraphs(
            _rows(systems.pos, 3),
            torch.arange(n + 1) * n_particles,
            _rows(deviation, 3),
            x={"vel": _rows(systems.vel, 3), "charge": _rows(systems.charge, 1)},
            edges=pairs.repeat(1, n),
            edge_ptr=torch.arange(n + 1) * pairs.shape[1],
            node_target=True,
        )
    return parts


def straight_line_error(data: RaggedGraphs) -> float:
    """Mean squared error, per coordinate, of predicting that all particles go straight on.

    Args:
        data: one part of what ``load_nbody`` returns.

    Returns:
        mean of y² over particles and coordinates: the baseline that a model has to beat.

    Example:
        >>> ek.data.straight_line_error(ek.data.load_nbody(n_train=1, n_val=1, n_test=1, steps=0)["val"])
        0.0
    """
    return float(data.y.double().square().mean())


def _field(field: str, strength: float | None) -> tuple[float, float]:
    """E and B."""
    if field not in STRENGTH:
        raise ValueError(f"field is {field!r}, expected one of {', '.join(map(repr, STRENGTH))}.")
    value = STRENGTH[field] if strength is None else float(strength)
    if not math.isfinite(value):
        raise ValueError(f"strength is {value}, expected a finite number.")
    return (value if field == "electric" else 0.0), (value if field == "magnetic" else 0.0)


def _acceleration(x: np.ndarray, q: np.ndarray, softening: float) -> np.ndarray:
    """Coulomb accelerations (3, n, S) at positions (3, n, S), each pair once."""
    total = np.zeros_like(x)
    for i in range(x.shape[1] - 1):
        delta = x[:, i, None] - x[:, i + 1 :]
        r2 = delta[0] * delta[0] + delta[1] * delta[1] + delta[2] * delta[2] + softening * softening
        delta *= q[i] * q[i + 1 :] / (r2 * np.sqrt(r2))
        total[:, i] += delta.sum(1)
        total[:, i + 1 :] -= delta
    return total


def _rows(a: np.ndarray, width: int) -> Tensor:
    return torch.from_numpy(a.reshape(-1, width).astype(np.float32))
