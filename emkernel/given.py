"""Representations by their images: given on the generators, or by a function of the matrix."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import InitVar, dataclass, field
from warnings import catch_warnings, simplefilter

import numpy as np
import scipy.linalg

from . import _compact
from ._arguments import array_of
from .errors import RepError
from .expressions import Rep
from .group_element import GroupElement
from .images import Images
from .lifting import gap, units
from .matrix_group import MatrixGroup, check_is_group
from .relations import BRACKETS, LOGARITHMS, relations

__all__ = ["GivenRep", "from_function"]

TOLERANCE = 1e-8  # relative; images with fewer digits belong to no representation
CAUSES = {
    BRACKETS: "Are the images in the order of the generators, and with all their digits?",
    LOGARITHMS: "A closed path in the group that does not close in the image belongs to a representation of a covering "
    "group, such as a spinor; here it has two values.",
}


@dataclass(frozen=True, eq=False, repr=False)
class GivenRep(Rep):
    """A representation given by its images of the generators.

    Args:
        group: the group.
        discrete: (M, n, n), the images of ``group.discrete_generators``.
        lie: (D, n, n), the images of ``group.lie_algebra``.
        name: for people.
        verify: whether to try the relations of the group on the images: equal products of discrete generators,
            brackets and conjugates of the Lie algebra, closed paths.

    Raises:
        RepError: the number of images or their shapes do not fit the group, or the images break one of its relations.

    Example:
        >>> C4 = ek.MatrixGroup("C4", [[[0, -1], [1, 0]]])
        >>> ek.GivenRep(C4, [[[-1.0]]], name="sign").rho(C4.generators[0])
        array([[-1.]])
    """

    group: MatrixGroup
    discrete: np.ndarray = field(default_factory=lambda: np.zeros((0, 0, 0)))
    lie: np.ndarray = field(default_factory=lambda: np.zeros((0, 0, 0)))
    name: str = "given"
    verify: InitVar[bool] = True

    def __post_init__(self, verify):
        G = self.group
        check_is_group(G)
        for what in ("discrete", "lie"):
            array = array_of(getattr(self, what), f"{self.name}: {what}", RepError, "biufc")
            object.__setattr__(self, what, np.atleast_1d(array))
        if np.iscomplexobj(self.discrete) or np.iscomplexobj(self.lie):
            raise RepError(
                f"{self.name}: images are real matrices, got complex ones; write X + iY as [[X, -Y], [Y, X]]"
            )
        discrete, lie = np.asarray(self.discrete, float), np.asarray(self.lie, float)
        n = (discrete if len(discrete) else lie).shape[-1]
        for what, m, many in (
            ("discrete", discrete, len(G.discrete_generators)),
            ("lie", lie, len(G.lie_algebra)),
        ):
            if len(m) != many or (many and m.shape != (many, n, n)):
                raise RepError(
                    f"{self.name}: {what} images have shape {m.shape}, expected ({many}, n, n): one for "
                    f"each generator of {G.name}"
                )
            if not np.isfinite(m).all():
                raise RepError(f"{self.name}: {what} images have entries that are not finite numbers")
        images = Images.of_content(discrete.reshape(-1, n, n), lie.reshape(-1, n, n))
        object.__setattr__(self, "images", images)
        if verify and type(self) is GivenRep:  # what the solver found it has verified itself
            _verify(G, images, self.name)

    @property
    def size(self):
        return self.images.size

    def _bind(self, group):
        self._require_same(group)
        return self

    def _rho(self, g, batch):
        if not isinstance(g, GroupElement):
            raise RepError(
                f"{self} is known on the generators only: pass the group element (the word), not its matrix"
            )
        return g.evaluate(self.images.discrete, self.images.lie)

    def _drho(self, A):
        basis = self.group.lie_algebra.reshape(len(self.group.lie_algebra), -1).T
        coefs, *_ = np.linalg.lstsq(basis, A.reshape(-1), rcond=None)
        if np.abs(basis @ coefs - A.reshape(-1)).max(initial=0) > 1e-8 * max(1.0, np.abs(A).max()):
            raise RepError(
                f"A is not a combination of the lie_algebra generators of {self.group.name}, on which alone "
                f"{self} is known"
            )
        return np.tensordot(coefs, self.images.lie, 1)

    def __eq__(self, other):
        return (
            isinstance(other, GivenRep)
            and self.group == other.group
            and self.images.digest == other.images.digest
        )

    def __hash__(self):
        return int(self.images.digest[:15], 16)

    def __str__(self):
        return self.name


def from_function(
    group: MatrixGroup,
    rho: Callable[[np.ndarray], np.ndarray],
    drho: Callable[[np.ndarray], np.ndarray] | None = None,
    *,
    name: str = "given",
) -> GivenRep:
    """The representation g -> rho(g), verified to be one: relations of the group, and values at random elements.

    Without ``drho``, dρ(A) = log ρ(exp(tA)) / t at a t where both are near 1, which is exact for a representation.

    Args:
        group: the group.
        rho: (d, d) matrix of a group element -> (n, n) real matrix.
        drho: (d, d) matrix of the Lie algebra -> (n, n) real matrix.
        name: for people.

    Returns:
        A GivenRep with these images on the generators.

    Raises:
        RepError: values that are not square matrices of one size, ρ is no homomorphism, or dρ not its derivative.

    Example:
        >>> O3 = groups.O(3)
        >>> ek.from_function(O3, lambda g: np.linalg.det(g) * g, name="pseudovector").size
        3
    """
    check_is_group(group)
    n = len(_value(rho, np.eye(group.d), name, "rho(1)"))
    discrete = [_value(rho, h, name, f"rho(h_{i})", n) for i, h in enumerate(group.discrete_generators)]
    lie = []
    for k, A in enumerate(group.lie_algebra):
        slope = _slope(rho, A, group._units, f"A_{k}", name, n)
        if drho is not None:
            stated = _value(drho, A, name, f"drho(A_{k})", n)
            if (
                error := np.abs(stated - slope).max(initial=0) / max(1.0, np.abs(slope).max(initial=0))
            ) > 1e-7:
                raise RepError(
                    f"{name}: drho(A_{k}) is not the derivative of rho along A_{k}; off by {error:.1e}"
                )
            slope = stated
        lie.append(slope)
    rep = GivenRep(group, np.array(discrete).reshape(-1, n, n), np.array(lie).reshape(-1, n, n), name)
    g = group.sample(8, 0)
    scale = units(rep.images)  # by which neither side has units
    pairs = [(_value(rho, m, name, "rho(g)", n), image) for m, image in zip(g.matrix, rep.rho(g))]
    error = max(gap(p * scale / scale[:, None], q * scale / scale[:, None]) for p, q in pairs)
    if not error < TOLERANCE * max(1.0, np.abs(g.matrix * group._units[:, None] / group._units).max()):
        raise RepError(
            f"{name} is no representation of {group.name}: at products of the generators rho differs from the "
            f"products of its values by {error:.1e}, so rho(g h) is not rho(g) rho(h)"
        )
    return rep


def _verify(G: MatrixGroup, images: Images, name: str) -> None:
    for relation in relations(G, images):
        if not relation.error <= max(TOLERANCE, min(1e3 * relation.rounding, 1e-3)):
            raise RepError(
                f"{name} is no representation of {G.name}: {relation.name} fails by {relation.error:.1e}, at "
                f"{relation.worst}. {CAUSES.get(relation.name, CAUSES[BRACKETS])} (verify=False skips this check.)"
            )


def _value(function, matrix, name: str, what: str, n: int | None = None) -> np.ndarray:
    value = np.asarray(function(np.array(matrix)))
    if np.iscomplexobj(value):
        raise RepError(f"{name}: {what} is complex; write X + iY as [[X, -Y], [Y, X]]")
    value = value.astype(float)
    if value.ndim != 2 or value.shape[0] != value.shape[1] or (n is not None and len(value) != n):
        size = "(n, n)" if n is None else f"({n}, {n}), as rho(1) has"
        raise RepError(f"{name}: {what} has shape {value.shape}, expected {size}")
    if not np.isfinite(value).all():
        raise RepError(f"{name}: {what} has entries that are not finite numbers")
    return value


def _slope(rho, A: np.ndarray, scaling: np.ndarray, what: str, name: str, n: int) -> np.ndarray:
    """log ρ(exp(tA)) / t for t = 2^-j / |A| where ρ(exp(tA)) is within 1/2 of 1, agreeing at t and t/2."""
    size = np.linalg.norm(A * scaling[:, None] / scaling, 2)
    if size == 0:
        return np.zeros((n, n))
    found, t = [], 1 / size
    for _ in range(40):
        # in balanced coordinates, where no unit is large, and back
        turn = scipy.linalg.expm(t * A * scaling[:, None] / scaling) * scaling / scaling[:, None]
        value = _value(rho, turn, name, f"rho(exp(t {what}))", n)
        image, step = np.ones(n), value - np.eye(n)
        if n:
            image = _compact.units(np.zeros((0, n, n)), step[None])
            image = image / _compact.balance([step * image[:, None] / image])
        near = value * image[:, None] / image
        if np.abs(near - np.eye(n)).sum(1).max(initial=0) < 0.5:
            with catch_warnings():
                simplefilter("ignore")  # two logarithms that agree are accurate
                log = scipy.linalg.logm(near).real if n else near
            found.append(log * image / image[:, None] / t)
        if len(found) == 2:
            break
        t /= 2
    if len(found) < 2:
        raise RepError(f"{name}: rho(exp(t {what})) does not tend to 1 with t: rho is not continuous there")
    first, second = (m * image[:, None] / image for m in found)
    scale = max(1.0, np.abs(first).max(initial=0))
    if np.abs(first - second).max(initial=0) > 1e-7 * scale:
        raise RepError(
            f"{name}: rho is no homomorphism along exp(t {what}): log rho(exp(t {what})) is not linear in t"
        )
    return np.where(np.abs(first) < 1e-12 * scale, 0.0, first) * image / image[:, None]
