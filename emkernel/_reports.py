"""Reports of checks: lines of relative errors against their tolerances."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from .solver.irreps import Irrep

TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-5, torch.bfloat16: 5e-2, torch.float16: 1e-2}
EXACT = TOLERANCE[torch.float64]
SEED = 7  # of all that the checks sample, so that a report is the same every time


@dataclass(frozen=True)
class Check:
    """One line of a report: a relative error, or the amount by which a number is wrong, against its tolerance."""

    name: str
    error: float
    tol: float = EXACT
    note: str = ""
    dtype: torch.dtype = torch.float64

    @property
    def passed(self) -> bool:
        """Whether the error is within tolerance; never for one that is not a number."""
        return bool(self.error <= self.tol)

    def __str__(self) -> str:
        bound = f"{self.error:8.1e} <= {self.tol:.0e}" if self.tol else f"{self.error:8.3g} == 0    "
        bound = bound if self.passed else bound.replace("<=", "> ").replace("==", "!=")
        return f"{'ok  ' if self.passed else 'FAIL'} {bound}  {self.name}" + (
            f" ({self.note})" if self.note else ""
        )


@dataclass(frozen=True)
class _Report:
    """Checks with a title.

    Attributes:
        title: what was checked.
        checks: the lines.
        warnings: why a passed check may mean less than it seems.
    """

    title: str
    checks: tuple[Check, ...]
    warnings: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether every check passed."""
        return bool(self.checks) and all(c.passed for c in self.checks)

    @property
    def error(self) -> float:
        """The worst error of the checks in float64, and of all that failed."""
        return max((c.error for c in self.checks if c.dtype == torch.float64 or not c.passed), default=np.inf)

    @property
    def failures(self) -> tuple[Check, ...]:
        """The checks that did not pass."""
        return tuple(c for c in self.checks if not c.passed)

    def _body(self) -> list[str]:
        return []

    def __str__(self) -> str:
        lines = [
            self.title,
            *self._body(),
            *(str(c) for c in self.checks),
            *(f"warning: {w}" for w in self.warnings),
        ]
        verdict = "passed" if self.passed else f"FAILED {len(self.failures)} of {len(self.checks)} checks"
        return "\n  ".join(lines) + f"\n{verdict}; worst error {self.error:.1e}"


@dataclass(frozen=True)
class EquivarianceReport(_Report):
    """What :func:`check_equivariance` found."""


@dataclass(frozen=True)
class RepReport(_Report):
    """What :func:`check_rep` found."""


@dataclass(frozen=True)
class GroupReport(_Report):
    """What :func:`check_group` found.

    Attributes:
        facts: lines about the group.
        order: number of elements, None when infinite.
        dimension: of the Lie algebra that the generators generate.
        is_compact, completely_reducible: None where that could not be found out.
        multiplicities: (irreducible, its copies in V, V^2, ...) for those in V^⊗k, k <= degree.
    """

    facts: tuple[str, ...] = ()
    order: int | None = None
    dimension: int | None = None
    is_compact: bool | None = None
    completely_reducible: bool | None = None
    multiplicities: tuple[tuple[Irrep, tuple[int, ...]], ...] = ()

    def _body(self) -> list[str]:
        out = list(self.facts)
        if self.multiplicities:
            powers = ["V"] + [f"V^{k}" for k in range(2, 1 + len(self.multiplicities[0][1]))]
            out.append("piece   dim  type          " + "  ".join(f"in {p}" for p in powers))
            out += [
                f"{r.label:6} {r.size:4}  {r.type or 'unsplit':12}"
                + "".join(f"{m:>{5 + len(p)}}" for m, p in zip(copies, powers))
                for r, copies in self.multiplicities
            ]
        return out


class Sheet:
    """Lines as they are found; what raises becomes a red line with the text of the exception."""

    def __init__(self) -> None:
        self.checks: list[Check] = []

    def line(self, name: str, error: float, tol: float = EXACT, note: str = "") -> None:
        self.checks.append(Check(name, float(error) if np.isfinite(error) else np.inf, tol, note))

    def attempt(self, name: str, function: Callable[..., Any], *args, default: Any = None) -> Any:
        """function(*args), or a red line and the default."""
        try:
            return function(*args)
        except Exception as e:  # whatever is wrong with a group belongs in its report
            self.line(name, np.inf, note=f"{type(e).__name__}: {e}")
            return default
