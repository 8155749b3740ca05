"""Reports of checks: lines of relative errors against their tolerances."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import numpy as np
import torch

from .solver.irreps import Irrep

TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-5, torch.bfloat16: 5e-2, torch.float16: 1e-2}
EXACT = TOLERANCE[torch.float64]
LOOSEST = 1e-2  # no basis is so bad that a larger error would count as rounding
SEED = 7  # of all that the checks sample, so that a report is the same every time
WIDTH = 100


@dataclass(frozen=True)
class Check:
    """One line of a report: a relative error, or the amount by which a number is wrong, against its tolerance.

    Attributes:
        name: what was checked.
        error: how far off it is.
        tol: largest error that passes; 0 for a count.
        note: shown in brackets.
        dtype: in which it was computed.
    """

    name: str
    error: float
    tol: float = EXACT
    note: str = ""
    dtype: torch.dtype = torch.float64

    @property
    def passed(self) -> bool:
        """Whether the error is within tolerance; never for one that is not a number."""
        return bool(self.error <= self.tol)

    @property
    def bound(self) -> str:
        """The error beside its tolerance, or whether a number is exact."""
        if self.tol:
            return f"{self.error:8.1e} {'<=' if self.passed else '> '} {self.tol:.0e}"
        return "exact" if self.passed else f"off by {self.error:.3g}" if np.isfinite(self.error) else "wrong"

    def __str__(self) -> str:
        return f"{'ok  ' if self.passed else 'FAIL'} {self.bound:17}  {self.name}" + (
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
        """The worst error of the checks in float64, and of all that failed; in float32 where there is no other."""
        counted = [c.error for c in self.checks if c.dtype == torch.float64 or not c.passed]
        return max(counted or [c.error for c in self.checks], default=np.inf)

    @property
    def failures(self) -> tuple[Check, ...]:
        """The checks that did not pass."""
        return tuple(c for c in self.checks if not c.passed)

    @property
    def _verdict(self) -> str:
        verdict = "passed" if self.passed else f"FAILED {len(self.failures)} of {len(self.checks)} checks"
        return f"{verdict}; worst error {self.error:.1e}"

    def _body(self) -> list[str]:
        return [f"  {c}" for c in self.checks]

    def __str__(self) -> str:
        lines = [self.title, *self._body(), *(f"  warning: {w}" for w in self.warnings), self._verdict]
        text = "\n".join(lines)
        # where many lines lie between, what failed is said again at the end, where it is read
        return "\n".join([text, *(f"  {c}" for c in self.failures if text.count("\n") > 20)])


@dataclass(frozen=True)
class EquivarianceReport(_Report):
    """What :func:`check_equivariance` found."""


@dataclass(frozen=True)
class RepReport(_Report):
    """What :func:`check_rep` found."""


@dataclass(frozen=True)
class Section:
    """One part of the report on a group.

    Attributes:
        title: what it is about.
        facts: what was found.
        checks: what of it was checked.
        refused: what was not done, each with the reason.
        seconds: the time it took.
    """

    title: str
    facts: tuple[str, ...]
    checks: tuple[Check, ...]
    refused: tuple[str, ...]
    seconds: float

    def __str__(self) -> str:
        lines = [f"{self.title}  [{self.seconds:.2f} s]"]
        lines += ["  " + f if f.startswith(" ") else _wrapped(f, 2, 4) for f in self.facts]
        lines += [_wrapped(str(c), 2, 26) for c in self.checks]
        lines += [_wrapped(f"not done: {r}", 2, 4) for r in self.refused]
        return "\n".join(lines)


@dataclass(frozen=True)
class GroupReport(_Report):
    """What :func:`check_group` found.

    Attributes:
        sections: the report, part by part, each with the time that it took.
        order: number of elements, None when infinite.
        dimension: of the Lie algebra that the generators generate.
        is_compact, completely_reducible: None where that could not be found out.
        multiplicities: (irreducible, its copies in V, V^2, ...) for those in V^⊗k, k <= degree.
        irreps: all irreducibles of a small finite group, else None.
    """

    sections: tuple[Section, ...] = ()
    order: int | None = None
    dimension: int | None = None
    is_compact: bool | None = None
    completely_reducible: bool | None = None
    multiplicities: tuple[tuple[Irrep, tuple[int, ...]], ...] = ()
    irreps: tuple[Irrep, ...] | None = None

    @property
    def facts(self) -> tuple[str, ...]:
        """What was found, line by line."""
        return tuple(f for s in self.sections for f in s.facts)

    @property
    def refused(self) -> tuple[str, ...]:
        """What was not done, each with the reason: too large, or not to be had for such a group."""
        return tuple(r for s in self.sections for r in s.refused)

    @property
    def seconds(self) -> float:
        """The time it took."""
        return sum(s.seconds for s in self.sections)

    @property
    def _verdict(self) -> str:
        left = f"; {len(self.refused)} not done" if self.refused else ""
        return f"{super()._verdict}{left}; {self.seconds:.1f} s"

    def _body(self) -> list[str]:
        return [line for s in self.sections for line in ("", str(s))] + [""]


def _wrapped(text: str, first: int, rest: int) -> str:
    """Text of at most ``WIDTH`` columns, its first line and the following ones indented."""
    return textwrap.fill(
        text,
        WIDTH,
        initial_indent=" " * first,
        subsequent_indent=" " * rest,
        break_long_words=False,
        break_on_hyphens=False,
    )


class Sheet:
    """A report as it is written; what raises becomes a red line with the text of the exception, once for each text.

    Args:
        say: told the title of each section as it begins.
    """

    def __init__(self, say: Callable[[str], None] = lambda title: None) -> None:
        self._say = say
        self._raised: dict[str, str] = {}
        self.sections: list[Section] = []
        self._open("")

    def _open(self, title: str) -> None:
        self._title, self._start = title, perf_counter()
        self._facts: list[str] = []
        self._checks: list[Check] = []
        self._refused: list[str] = []
        self._likewise: dict[str, list[str]] = {}

    def section(self, title: str) -> None:
        """End the present section and begin another."""
        self.close()
        self._say(title)
        self._open(title)

    def close(self) -> None:
        """End the present section; one without content is dropped."""
        for first, names in self._likewise.items():
            self.refuse(f"{', '.join(dict.fromkeys(names))}: fails as {first} does")
        content = tuple(self._facts), tuple(self._checks), tuple(self._refused)
        if any(content):
            self.sections.append(Section(self._title, *content, perf_counter() - self._start))
        self._open("")

    @property
    def checks(self) -> tuple[Check, ...]:
        """The checks of all sections that ended."""
        return tuple(c for s in self.sections for c in s.checks)

    def fact(self, text: str) -> None:
        """Something that was found; kept as it is, not wrapped, where it begins with a space."""
        self._facts.append(text)

    def refuse(self, text: str) -> None:
        """Something that is not done, and why."""
        self._refused.append(text)

    def line(self, name: str, error: float, tol: float = EXACT, note: str = "") -> None:
        """A check in float64, or of a count."""
        self.add(Check(name, float(error) if np.isfinite(error) else np.inf, tol, note))

    def add(self, check: Check) -> None:
        """A check."""
        self._checks.append(check)

    def attempt(self, name: str, function: Callable[..., Any], *args, default: Any = None) -> Any:
        """function(*args), or a red line and the default; what raises like something before it is not done."""
        try:
            return function(*args)
        except Exception as e:  # whatever is wrong with a group belongs in its report
            text = f"{type(e).__name__}: {e}"
            if text in self._raised:
                self._likewise.setdefault(self._raised[text], []).append(name)
            else:
                self._raised[text] = name
                self.line(name, np.inf, note=text)
            return default
