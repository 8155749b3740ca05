"""Is it equivariant? Checks of groups, representations, functions and layers, with reports to read.

Errors are relative to the larger of the two sides of the equation, so that they mean the same under a boost as under a
rotation. What a check compares with is found another way than by the code it checks: dimensions from characters or
singular values of the user's own generators, relations by multiplying matrices.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any
from warnings import catch_warnings, simplefilter

import numpy as np
import scipy.linalg
import torch
from scipy.spatial import cKDTree
from torch import nn

from .errors import GroupError, RepError
from .matrix_group import GroupElement, MatrixGroup, numpy_generator
from .nn import Bilinear, ImplicitKernel, InvariantPool, Invariants, PointConv
from .rep import Images, Rep, Scalar, SumRep, V
from .solver.coupling import couplings, equivariant_basis
from .solver.irreps import Irrep, irrep_table, irreps

__all__ = [
    "TOLERANCE", "Check", "EquivarianceReport", "GroupReport", "RepReport", "check_equivariance", "check_group",
    "check_rep", "equivariance_error",
]

TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-5, torch.bfloat16: 5e-2, torch.float16: 1e-2}
EXACT = TOLERANCE[torch.float64]
SEED = 7
SPREAD = 20.0  # sampled elements stretch and shrink vectors by at most this much, where the group has enough such
WORDS = 16
BALL = 500  # elements of a discrete group whose products are compared
LISTED = 20_000  # largest finite group whose characters are averaged
UNKNOWNS = 400  # largest nullspace problem that is solved again for its dimension
TRIPLES = 60

# ---- reports ----------------------------------------------------------------------------------------------------


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
        return f"{'ok  ' if self.passed else 'FAIL'} {bound}  {self.name}" + (f" ({self.note})" if self.note else "")


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
        lines = [self.title, *self._body(), *(str(c) for c in self.checks), *(f"warning: {w}" for w in self.warnings)]
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
            out += [f"{r.label:6} {r.size:4}  {r.type or 'unsplit':12}" + "".join(f"{m:>{5 + len(p)}}" for m, p in zip(
                copies, powers)) for r, copies in self.multiplicities]
        return out


class _Sheet:
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


# ---- equivariance of a function ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Trial:
    """The deviation at one group element: where it is worst, and the largest output."""

    element: str
    error: float
    size: float
    place: str = ""


def equivariance_error(fn: Callable, args: Sequence, reps_in: Sequence, rep_out, n: int = 4, *,
                       generator: torch.Generator | np.random.Generator | int | None = None) -> float:
    """max_g |f(g·args) - ρ_out(g) f(args)| / max(|f(g·args)|, |ρ_out(g) f(args)|), with |·| the largest entry.

    g runs over the discrete generators and n sampled elements, chosen to spread vectors moderately where the group is
    not compact. It acts in float64; arguments are cast to their dtype after that. Modules run on a copy, buffers (the
    running averages) and the random state are as before, and f sees the same random numbers on both sides. Gradients
    are recorded only if an argument requires them.

    Args:
        fn: a function or module, returning a tensor or a tuple of them.
        args: its arguments; tensors (..., rep.size), (source, target) tuples of them, or anything that is not moved.
        reps_in: for each argument its bound representation, a tuple of them for a tuple, or None: not moved.
        rep_out: bound representation of the output, None for one that must not change; a tuple for several outputs.
        n: sampled elements.
        generator: source of the sample; by default a fixed one, so that the result is too.

    Returns:
        The error; 0 for outputs that vanish identically, inf for those that are not finite or change shape.

    Raises:
        RepError: representations that are missing, unbound, of two groups, or do not fit the tensors.

    Example:
        >>> equivariance_error(Linear(V(G), V(G)), [torch.randn(5, G.d)], [V(G)], V(G)) < 1e-5
        True
    """
    elements = _elements(_group_of(args, reps_in, rep_out), n, generator)
    return max((t.error for t in _trials(fn, args, reps_in, rep_out, elements)), default=0.0)


def _group_of(args, reps_in, rep_out) -> MatrixGroup:
    if isinstance(reps_in, Rep) or len(args) != len(reps_in):
        raise RepError(f"reps_in must name one Rep or None for each of the {len(args)} arguments, got {reps_in!r}")
    reps = [r for r in _flat([*reps_in, rep_out]) if r is not None]
    if not reps:
        raise RepError("no representation is given, so no group to be equivariant under")
    for rep in reps:
        if not isinstance(rep, Rep):
            raise RepError(f"expected a Rep or None, got {type(rep).__name__}")
        group, first = rep._require_bound(), reps[0]._require_bound()
        if group.digest != first.digest:
            raise RepError(f"{reps[0]} belongs to {first.name}, {rep} to {group.name}; expected one group")
    return first


def _flat(values) -> list:
    return [w for v in values for w in (_flat(v) if isinstance(v, (tuple, list)) else [v])]


def _elements(group: MatrixGroup, n: int, generator=None) -> list[tuple[str, GroupElement]]:
    """The discrete generators, and n sampled elements of moderate spread |g| |g^-1|."""
    if n < 1:
        raise ValueError(f"n must be at least 1, got {n}")
    h = _generators(group)
    g = group.sample(4 * n, numpy_generator(SEED if generator is None else generator))
    spread = np.linalg.norm(g.matrix, axis=(1, 2)) * np.linalg.norm(g.inverse.matrix, axis=(1, 2)) / group.d
    spread = np.nan_to_num(spread, nan=np.inf)
    best = np.argsort(np.where(spread <= SPREAD, 0, spread), kind="stable")[:n]
    return [(f"discrete_generators[{i}]", h[i]) for i in range(len(h))] + [
        (f"sampled element {k} (det {np.linalg.det(g[i].matrix):.2g})", g[i]) for k, i in enumerate(best)]


def _generators(group: MatrixGroup) -> GroupElement:
    many = len(group.discrete_generators)
    one = np.ones((many, 1), int)
    return GroupElement(group, np.zeros((many, 1, len(group.lie_algebra))), np.arange(many)[:, None], one)


def _act(rep, g: GroupElement, value, cast: bool = True):
    if rep is None or value is None:
        return value
    if isinstance(value, (tuple, list)):
        reps = rep if isinstance(rep, (tuple, list)) else [rep] * len(value)
        if len(reps) != len(value):
            raise RepError(f"an argument is a tuple of {len(value)}, its representations one of {len(reps)}")
        return tuple(_act(r, g, v, cast) for r, v in zip(reps, value))
    if not isinstance(value, torch.Tensor) or not (value.is_floating_point() or not cast):
        raise TypeError(f"{rep} acts on floating tensors, got "
                        f"{value.dtype if isinstance(value, torch.Tensor) else type(value).__name__}")
    if not value.ndim or value.shape[-1] != rep.size:
        raise RepError(f"a tensor of shape {tuple(value.shape)} cannot carry {rep}; expected (..., {rep.size})")
    moved = value.detach().to("cpu", torch.float64) @ torch.as_tensor(rep.rho(g)).T
    return moved.to(value.device, value.dtype).requires_grad_(value.requires_grad) if cast else moved


def _trials(fn, args, reps_in, rep_out, elements) -> list[_Trial]:
    fn = copy.deepcopy(fn) if isinstance(fn, nn.Module) else fn
    grad = any(isinstance(a, torch.Tensor) and a.requires_grad for a in _flat(args))

    def run(values) -> tuple:
        with _undisturbed(), torch.set_grad_enabled(grad):
            out = fn(*values)
        out = tuple(out) if isinstance(out, (tuple, list)) else (out,)
        if not all(isinstance(y, torch.Tensor) and not y.is_complex() for y in out):
            raise TypeError(f"fn returned {[type(y).__name__ for y in out]}; expected a real tensor or a tuple of them")
        return out

    plain = run(args)
    reps = rep_out if isinstance(rep_out, (tuple, list)) else [rep_out] * (1 if rep_out is not None else len(plain))
    if len(reps) != len(plain):
        raise RepError(f"fn returned {len(plain)} tensors, rep_out names {len(reps)} representations")
    trials = []
    for name, g in elements:
        moved = run([_act(rep, g, a) for rep, a in zip(reps_in, args)])
        trials += [_compare(name, rep, a, b, g) for rep, a, b in zip(reps, moved, plain)] if len(moved) == len(plain) \
            else [_Trial(name, np.inf, np.inf, "the number of outputs changes")]
    return trials


def _compare(name: str, rep: Rep | None, moved: torch.Tensor, plain: torch.Tensor, g: GroupElement) -> _Trial:
    if moved.shape != plain.shape:
        return _Trial(name, np.inf, np.inf, f"the shape changes from {tuple(plain.shape)} to {tuple(moved.shape)}")
    left = moved.detach().to("cpu", torch.float64)
    right = _act(rep, g, plain, cast=False).detach().to("cpu", torch.float64)
    if not left.numel():
        return _Trial(name, 0.0, 0.0)
    if not (left.isfinite().all() and right.isfinite().all()):
        return _Trial(name, np.inf, np.inf, "the output is not finite")
    difference, size = (left - right).abs(), max(left.abs().max().item(), right.abs().max().item())
    if not size:
        return _Trial(name, 0.0, 0.0)
    place = ""
    if rep is not None and len(rep.terms) > 1:
        at = int(difference.reshape(-1, rep.size).amax(0).argmax())
        place = next(f"output term {t}" for _, t, where in rep.slices if where.start <= at < where.stop)
    return _Trial(name, difference.max().item() / size, size, place)


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Buffers of every module that runs, and torch's random state, are as before on exit; the seed inside is fixed."""
    kept: dict[int, list] = {}

    def keep(module: nn.Module, _) -> None:
        for m in module.modules():
            if id(m) not in kept:
                kept[id(m)] = [(m, k, b, b.detach().clone()) for k, b in m._buffers.items() if b is not None]

    cuda = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []
    handle = nn.modules.module.register_module_forward_pre_hook(keep)
    try:
        with torch.random.fork_rng(devices=cuda):
            torch.default_generator.manual_seed(SEED)
            for device in cuda:
                with torch.cuda.device(device):
                    torch.cuda.manual_seed(SEED)
            yield
    finally:
        handle.remove()
        with torch.no_grad():
            for module, name, buffer, value in (entry for entries in kept.values() for entry in entries):
                buffer.copy_(value)
                module._buffers[name] = buffer


# ---- equivariance of a module -----------------------------------------------------------------------------------


def check_equivariance(module: Callable, args: Sequence | None = None, reps_in: Sequence | None = None,
                       rep_out=None, *, n: int = 4,
                       tol: float | Mapping[torch.dtype, float] | None = None) -> EquivarianceReport:
    """:func:`equivariance_error` of copies of a module in float64 and float32; of a function as it is.

    Args:
        module: a layer that declares its representations (``rep_in``, ``rep_out``), a module with a method
            ``equivariance_example(generator) -> (args, reps_in, rep_out)``, or any callable with these given.
        args: its arguments; by default random features, on a random graph with a loop and an isolated node.
        reps_in, rep_out: as for :func:`equivariance_error`; by default what the module declares.
        n: sampled group elements.
        tol: largest error, by default 1e-10 in float64 and 1e-5 in float32 (for a module it is never less there); or
            one for each dtype to check.

    Raises:
        TypeError: the module does not say what it maps, and nor does the call.

    Example:
        >>> print(check_equivariance(PointConv(V(G), V(G))))
    """
    generator = torch.Generator().manual_seed(SEED)
    drawn = None
    if reps_in is None:
        drawn, reps_in, rep_out = _example(module, generator)
    elif args is None:
        drawn = [None if r is None else _draw(6, r, generator) for r in reps_in]
    if args is None:
        held = [*module.parameters(), *module.buffers()] if isinstance(module, nn.Module) else []
        args = _to(drawn, held[0].device if held else None)
    group = _group_of(args, reps_in, rep_out)
    if not isinstance(tol, Mapping):
        dtype = torch.float64 if isinstance(module, nn.Module) else dtype_of(args)
        tol = {dtype: TOLERANCE[dtype] if tol is None else tol}
        if isinstance(module, nn.Module):
            tol[torch.float32] = max(tol[dtype], TOLERANCE[torch.float32])
    checks: list[Check] = []
    warnings: list[str] = []
    for dtype, allowed in tol.items():
        fn = copy.deepcopy(module).to(dtype) if isinstance(module, nn.Module) else module
        fn = _Flattened(fn) if isinstance(fn, ImplicitKernel) else fn
        report = report_equivariance(fn, _to(args, dtype), reps_in, rep_out, n=n, tol=allowed, dtype=dtype)
        checks += report.checks
        warnings += [w for w in report.warnings if w not in warnings]
    return EquivarianceReport(f"{_name(module)} under {group.name}", tuple(checks), tuple(warnings))


def dtype_of(args: Sequence) -> torch.dtype:
    """The least precise floating dtype among the arguments."""
    found = {a.dtype for a in _flat(args) if isinstance(a, torch.Tensor) and a.is_floating_point()}
    return max(found & set(TOLERANCE), key=TOLERANCE.__getitem__, default=torch.float64)


class _Flattened(nn.Module):
    """A kernel with its matrices flattened row by row: the layout of rep_in >> rep_out."""

    def __init__(self, kernel: ImplicitKernel):
        super().__init__()
        self.kernel = kernel

    def forward(self, *args):
        return self.kernel(*args).flatten(-2)


def report_equivariance(fn: Callable, args: Sequence, reps_in: Sequence, rep_out, *, n: int, tol: float,
                        dtype: torch.dtype, generator=None) -> EquivarianceReport:
    """One line on :func:`equivariance_error`, with where it is worst and what would make it small."""
    group = _group_of(args, reps_in, rep_out)
    elements = _elements(group, n, generator)
    trials = _trials(fn, args, reps_in, rep_out, elements)
    worst, size = max(trials, key=lambda t: t.error), max(t.size for t in trials)
    note = f"worst at {worst.element}" + (f", {worst.place}" if worst.place else "")
    check = Check(f"equivariant in {str(dtype).removeprefix('torch.')}", worst.error, tol, note, dtype)
    warnings = []
    if not check.passed:
        bad = list(dict.fromkeys(t.element for t in trials if not t.error <= tol))
        good = [name for name, _ in elements if name not in bad]
        warnings.append(f"violated at {', '.join(bad)}" + (f"; not at {', '.join(good)}" if good else ""))
        warnings += _suggestions(fn, args, reps_in, rep_out, elements, tol)
    elif not size:
        warnings.append("the output vanishes: this would pass whatever the function is")
    if 0 < size < 100 * torch.finfo(dtype).eps:
        warnings.append(f"the output is no larger than {size:.0e}: it may be rounding alone")
    return EquivarianceReport(f"{_name(fn)} under {group.name}", (check,), tuple(warnings))


def _suggestions(fn, args, reps_in, rep_out, elements: list, tol: float) -> list[str]:
    """Other declarations of single arguments under which the function is equivariant."""
    known = [r for r in _flat([*reps_in, rep_out]) if r is not None]
    known = list(dict.fromkeys([*known, V(known[0].group)]))
    out = []
    for k, (arg, rep) in enumerate(zip(args, reps_in)):
        moves = isinstance(arg, torch.Tensor) and arg.is_floating_point() and arg.ndim > 0
        for other in ([None] if rep is not None else [r for r in known if moves and r.size == arg.shape[-1]]):
            changed = [*reps_in[:k], other, *reps_in[k + 1:]]
            if all(t.error <= tol for t in _trials(fn, args, changed, rep_out, elements)):
                out.append(f"it passes when argument {k} is {'not moved' if other is None else f'moved as {other}'}")
    return out


def _to(value, where: torch.dtype | torch.device | None):
    """Tensors, also in tuples, moved to a device, or those of floating type to a dtype."""
    if isinstance(value, (tuple, list)):
        return tuple(_to(v, where) for v in value)
    moves = isinstance(value, torch.Tensor) and (value.is_floating_point() or isinstance(where, torch.device))
    return value.to(where) if moves and where is not None else value


def _name(module) -> str:
    if isinstance(module, nn.Module):
        text = module.extra_repr()
        return f"{type(module).__name__}({text})" if text else type(module).__name__
    return getattr(module, "__name__", str(module))


def _draw(rows: int, rep: Rep, generator: torch.Generator) -> torch.Tensor:
    return torch.randn(rows, rep.size, generator=generator, dtype=torch.float64)


def _example(module, generator: torch.Generator) -> tuple:
    """(args, reps_in, rep_out) of a module that says what it maps."""
    if hasattr(module, "equivariance_example"):
        return module.equivariance_example(generator)
    if isinstance(module, (PointConv, ImplicitKernel)):
        kernel = module.kernel if isinstance(module, PointConv) else module
        rep_in, rep_out, edge_rep, rows = kernel.rep_in, kernel.rep_out, kernel.edge_rep, 20
        attr = None if edge_rep is None else _draw(rows, edge_rep, generator)
        position = V(rep_in._require_bound())
        points = kernel.embed.cutoff / 2 * _draw(rows, position, generator)
        if module is kernel:
            return (points, attr), (position, edge_rep), rep_in >> rep_out
        # nodes 0 to 6 are joined at random, with a loop at 0; nobody meets node 7
        edges = torch.randint(0, 7, (2, rows), generator=generator)
        edges[:, 0] = 0
        return (_draw(8, rep_in, generator), points[:8], edges, attr), (rep_in, position, None, edge_rep), rep_out
    if isinstance(module, Bilinear):
        reps = (module.rep_left, module.rep_right)
        return tuple(_draw(6, r, generator) for r in reps), reps, module.rep_out
    if isinstance(module, (Invariants, InvariantPool)):
        return (_draw(6, module.rep, generator),), (module.rep,), None
    source, target = getattr(module, "rep_in", None), getattr(module, "rep_out", None)
    if isinstance(source, Rep) and isinstance(target, Rep):
        return (_draw(6, source, generator),), (source,), target
    raise TypeError(f"{_name(module)} does not say how its arguments and output transform: pass args, reps_in and "
                    "rep_out, or give it a method equivariance_example(generator) -> (args, reps_in, rep_out)")


# ---- representations --------------------------------------------------------------------------------------------


def check_rep(rep: Rep, *, tol: float = EXACT) -> RepReport:
    """Whether the images of the generators extend to a representation of the group.

    On words in the generators ρ(gh) = ρ(g)ρ(h) holds for any images at all. What is checked is that images depend on
    the element and not on the word: equal products of discrete generators have equal images (all products of a group of
    up to some hundred elements), linear relations between brackets and conjugates of the Lie algebra generators hold
    between their images, and ρ(g) = exp(dρ(log g)) for words g whose logarithm lies in the Lie algebra, which tells a
    spinor from a tensor.

    Args:
        rep: a bound representation.
        tol: largest relative error.

    Raises:
        RepError: not a bound representation.

    Example:
        >>> check_rep((V**2)(G)).passed
        True
    """
    if not isinstance(rep, Rep):
        raise RepError(f"expected a Rep, got {type(rep).__name__}")
    group = rep._require_bound()
    sheet = _Sheet()
    sheet.attempt(f"{rep} is a representation", _relations, sheet, rep, tol)
    return RepReport(f"{rep} of {group.name}: dimension {rep.size}", tuple(sheet.checks))


def _relations(sheet: _Sheet, rep: Rep, tol: float = EXACT) -> None:
    G, images = rep._require_bound(), _images(rep)
    g, h = G.sample(WORDS, SEED), G.sample(WORDS, SEED + 1)
    if len(images.discrete):
        error, count, closed = _products(G, images)
        for r, q in zip(images.discrete, G._orders):
            error = max(error, _gap(np.linalg.matrix_power(r, q), np.eye(rep.size)) if q else 0.0)
        sheet.line("equal products of discrete generators have equal images", error, tol,
                   f"all {count} elements" if closed else f"{count} of more elements")
    if len(images.lie):
        error, algebra, lifted = _lift(G, images)
        sheet.line("images of brackets and conjugates of the Lie algebra", error, tol, f"dimension {len(algebra)}")
        error, count = _logarithms(g @ h, images, algebra, lifted)
        sheet.line("ρ(g) = exp(dρ(log g))", error, tol, f"{count} of {WORDS} words have a logarithm")
        error, coefs = 0.0, np.random.default_rng(SEED).standard_normal((3, len(images.lie))) * G._rates / 2
        for A, c in zip(np.tensordot(coefs, G.lie_algebra, 1), coefs):
            path = GroupElement(G, c[None], np.zeros(1, int), np.zeros(1, int))
            error = max([error, *(_gap(_of_matrix(t, path), scipy.linalg.expm(t.drho(A))) for _, t in rep.terms)])
        sheet.line("dρ is the derivative of ρ: ρ(exp A) = exp(dρ(A))", error, tol)
    error = 0.0
    for _, t in rep.terms:
        a, b, back = t.rho(g), t.rho(h), _of_matrix(t, g.inverse)
        size = max(1.0, np.abs(a).max())
        error = max(error, np.abs(_of_matrix(t, g @ h) - a @ b).max() / (size * max(1.0, np.abs(b).max())),
                    np.abs(back @ a - np.eye(t.size)).max() / (size * max(1.0, np.abs(back).max())))
    sheet.line("ρ(gh) = ρ(g)ρ(h) and ρ(g^-1)ρ(g) = 1", error, tol)


def _images(rep: Rep) -> Images:
    """The images of the generators, as words where the representation does not know them from matrices."""
    try:
        return rep.images
    except RepError:
        G = rep._require_bound()
        lie = np.array([rep.drho(A) for A in G.lie_algebra]).reshape(-1, rep.size, rep.size)
        return Images.of_content(rep.rho(_generators(G)), lie)


def _of_matrix(rep: Rep, g: GroupElement) -> np.ndarray:
    """ρ of the matrix alone where that is known, else of the word."""
    try:
        return rep.rho(g.matrix)
    except RepError:
        return rep.rho(g)


def _gap(a: np.ndarray, b: np.ndarray) -> float:
    error = np.abs(a - b).max(initial=0) / max(1.0, np.abs(a).max(initial=0), np.abs(b).max(initial=0))
    return float(error) if np.isfinite(error) else np.inf


def _products(G: MatrixGroup, images: Images) -> tuple[float, int, bool]:
    """(how much images of equal products differ, number of different products met, whether these are all)."""
    d, n = G.d, images.size
    moves = list(zip(G.discrete_generators, images.discrete))
    moves += [(np.linalg.inv(h), np.linalg.inv(r)) for (h, r), q in zip(moves, G._orders) if q is None]
    points, values, error = np.eye(d)[None], np.eye(n)[None], 0.0
    front, closed, limit = slice(0, 1), True, int(min(BALL, max(50, 5e6 / n**2)))
    while moves and len(points[front]):
        p = np.concatenate([h @ points[front] for h, _ in moves])
        v = np.concatenate([r @ values[front] for _, r in moves])
        small = np.abs(p).max((1, 2)) < 1e3
        closed, p, v = closed and bool(small.all()), p[small], v[small]
        known, both, images_of = len(points), np.concatenate([points, p]), np.concatenate([values, v])
        near = cKDTree(both.reshape(len(both), -1)).query_ball_point(p.reshape(len(p), -1), 1e-8)
        first = np.array([min(k) for k in near], int)
        error = max([error, *(_gap(x, images_of[k]) for x, k in zip(v, first))])
        fresh = np.unique(first[first >= known])
        points, values = np.concatenate([points, both[fresh]]), np.concatenate([values, images_of[fresh]])
        front = slice(known, None)
        if len(points) > limit:
            return error, len(points), False
    return error, len(points), closed


def _lift(G: MatrixGroup, images: Images) -> tuple[float, np.ndarray, np.ndarray]:
    """The Lie algebra that the generators generate in V (orthonormal) and, by the same operations, in the image.

    Whatever combination vanishes in V must vanish in the image; the error is by how much it does not.
    """
    d, n, error = G.d, images.size, 0.0
    algebra, lifted = np.zeros((0, d * d)), np.zeros((0, n * n))
    moves = [(h, np.linalg.inv(h), r, np.linalg.inv(r)) for h, r in zip(G.discrete_generators, images.discrete)]
    norms = [float(np.linalg.norm(A)) or 1.0 for A in G.lie_algebra]
    todo = [(A / s, R / s) for A, R, s in zip(G.lie_algebra, images.lie, norms)]
    while todo:
        fresh = []
        for A, R in todo:
            a, r = A.reshape(-1), R.reshape(-1)
            for _ in range(2):
                c = algebra @ a
                a, r = a - c @ algebra, r - c @ lifted
            rest = np.linalg.norm(a)
            if rest <= 1e-7 * max(float(np.linalg.norm(A)), 1e-3):
                error = max(error, float(np.abs(r).max() / max(1.0, np.abs(R).max())))
                continue
            algebra, lifted = np.concatenate([algebra, a[None] / rest]), np.concatenate([lifted, r[None] / rest])
            fresh.append((a.reshape(d, d) / rest, r.reshape(n, n) / rest))
        todo = [(h @ A @ h_1, s @ R @ s_1) for A, R in fresh for h, h_1, s, s_1 in moves]
        todo += [(A @ B - B @ A, R @ S - S @ R) for A, R in fresh
                 for B, S in zip(algebra.reshape(-1, d, d), lifted.reshape(-1, n, n))]
    return error, algebra, lifted


def _logarithms(words: GroupElement, images: Images, algebra: np.ndarray, lifted: np.ndarray) -> tuple[float, int]:
    """(deviation of exp(dρ(log g)) from ρ(g), how many of the words have a logarithm in the algebra)."""
    error, count = 0.0, 0
    for matrix, image in zip(words.matrix, words.evaluate(images.discrete, images.lie)):
        if not np.isfinite(matrix).all() or np.linalg.cond(matrix) > 1e6:
            continue
        with catch_warnings():
            simplefilter("ignore")  # an inaccurate logarithm is recognised below, and not used
            log = scipy.linalg.logm(matrix)
        c = algebra @ log.real.reshape(-1)
        if np.abs(log.reshape(-1) - c @ algebra).max() < 1e-9 and _gap(scipy.linalg.expm(log.real), matrix) < 1e-12:
            count += 1
            error = max(error, _gap(scipy.linalg.expm((c @ lifted).reshape(images.size, -1)), image))
    return error, count


# ---- groups -----------------------------------------------------------------------------------------------------


def check_group(G: MatrixGroup, *, order: int | None = None, dimension: int | None = None,
                form: np.ndarray | None = None, degree: int = 2) -> GroupReport:
    """Whether everything that is built on a group is right: elements, representations, bases, couplings, layers.

    Generators describe some group whatever they are; that it is the one that was meant shows only against what is known
    of it: its order, the dimension of its Lie algebra, or a bilinear form that it preserves.

    Args:
        G: any matrix group; what goes wrong with it becomes a red line, not an exception.
        order: the number of elements it should have.
        dimension: of the Lie algebra it should have.
        form: (d, d) matrix F with h^T F h = F and A^T F + F A = 0, or several of them.
        degree: highest tensor power of V that is split into irreducibles.

    Raises:
        GroupError: the form is not a (d, d) matrix, or the first argument not a group.

    Example:
        >>> print(check_group(groups.Th(), order=24))
    """
    if not isinstance(G, MatrixGroup):
        raise GroupError(f"expected a MatrixGroup, got {type(G).__name__}")
    forms = np.zeros((0, G.d, G.d)) if form is None else np.asarray(form, float)
    if forms.shape[-2:] != (G.d, G.d):
        raise GroupError(f"form has shape {forms.shape}, expected ({G.d}, {G.d})")
    if degree < 1:
        raise ValueError(f"degree must be at least 1, got {degree}")
    sheet = _Sheet()
    size, compact = sheet.attempt("order and compactness", lambda: (G.order, G.is_compact), default=(None, None))
    algebra, splits = sheet.attempt("Lie algebra", _algebra, G, default=(None, None))
    for F in forms.reshape(-1, G.d, G.d):
        sheet.line("the stated form is invariant", _form_defect(G, F))
    if compact:
        sheet.line("the positive form is invariant", _form_defect(G, G.invariant_form))
    if order is not None:
        sheet.line(f"order {order}", np.inf if size is None else abs(size - order), 0, f"found {size or 'infinite'}")
    if dimension is not None:
        wrong = np.inf if algebra is None else abs(algebra - dimension)
        sheet.line(f"Lie algebra of dimension {dimension}", wrong, 0, f"found {algebra}")
    sheet.attempt("elements", _check_elements, sheet, G)
    pieces = sheet.attempt("irreducible representations", _pieces, G, degree, default=[])
    multiplicities = sheet.attempt("multiplicities", _multiplicities, G, pieces, degree, default=())
    powers = [V(G), *([(V**2)(G)] if degree > 1 else [])]
    all_reps = SumRep(tuple((1, r) for r in [*powers, V.T(G), *pieces]), G)
    sheet.attempt("representations", _relations, sheet, all_reps)
    for rep in powers:
        sheet.attempt(f"splitting {rep}", _check_splitting, sheet, rep)
    facts = [f"{f'finite, order {size}' if size else 'infinite'}; Lie algebra of dimension {algebra}; "
             f"{'compact' if compact else 'not compact'}; "
             + ("completely reducible" if splits else "not certified completely reducible: representations stay whole")]
    facts += sheet.attempt("invariant forms", _invariant_forms, G, default=[])
    count = sheet.attempt("counting", _Count, G)
    if count is not None:
        pairs = [(V(G), V.T(G)), (Scalar(G), powers[-1]), *((a, b) for a in powers for b in powers if a.size <= b.size)]
        for a, b in pairs:
            sheet.attempt(f"Hom({a}, {b})", _check_basis, sheet, a, b, count)
        facts += sheet.attempt("couplings", _check_couplings, sheet, G, pieces, count, default=[])
    sheet.checks += sheet.attempt("PointConv", _check_layer, G, degree, default=[])
    many, lie = len(G.discrete_generators), len(G.lie_algebra)
    title = f"{G.name}: d = {G.d}, {many} discrete and {lie} Lie algebra generators"
    return GroupReport(title, tuple(sheet.checks), (), tuple(facts), size, algebra, compact, splits, multiplicities)


def _algebra(G: MatrixGroup) -> tuple[int, bool]:
    coordinates = irrep_table(G).coordinates
    return len(coordinates.lie_closure), coordinates.completely_reducible


def _form_defect(G: MatrixGroup, F: np.ndarray | None) -> float:
    assert F is not None
    size = max(np.abs(F).max(), 1e-300)
    defects = [np.abs(h.T @ F @ h - F).max() / (size * max(1.0, np.abs(h).max() ** 2)) for h in G.discrete_generators]
    defects += [np.abs(A.T @ F + F @ A).max() / (size * np.abs(A).max()) for A in G.lie_algebra if np.any(A)]
    return max(defects, default=0.0)


def _check_elements(sheet: _Sheet, G: MatrixGroup) -> None:
    elements = [g for _, g in _elements(G, WORDS)]
    g, back = (np.stack([m.matrix for m in ms]) for ms in (elements, [e.inverse for e in elements]))
    size = np.abs(g).max((1, 2)) * np.abs(back).max((1, 2))
    error = max((np.abs(x - np.eye(G.d)).max((1, 2)) / size).max() for x in (g @ back, back @ g))
    sheet.line("elements have inverses", error)
    if G.order is not None and G.order <= BALL:
        _, count, closed = _products(G, V(G).images)
        sheet.line("as many products of generators as the order", abs(count - G.order) if closed else np.inf, 0)


def _pieces(G: MatrixGroup, degree: int) -> list[Irrep]:
    table = irrep_table(G)
    if table.coordinates.completely_reducible:
        return irreps(G, degree)
    found = [part[0] for k in range(1, degree + 1) for part in table.decompose((V**k)(G)).parts]
    return list(dict.fromkeys([table.trivial, *found]))


def _multiplicities(G: MatrixGroup, pieces: list[Irrep], degree: int) -> tuple:
    found = [irrep_table(G).decompose((V**k)(G)).multiplicities for k in range(1, degree + 1)]
    return tuple((r, tuple(m.get(r.label, 0) for m in found)) for r in pieces)


def _invariant_forms(G: MatrixGroup) -> list[str]:
    forms = equivariant_basis(V(G), V.T(G))
    symmetric = (forms + forms.transpose(0, 2, 1)).reshape(-1, G.d * G.d)
    many = int(np.linalg.matrix_rank(symmetric, tol=1e-8)) if len(forms) else 0
    text = f"invariant bilinear forms of V: {many} symmetric, {len(forms) - many} antisymmetric"
    if many == len(forms) == 1:
        w = np.linalg.eigvalsh(symmetric.reshape(G.d, G.d))
        signs = sorted([int((w > 1e-8).sum()), int((w < -1e-8).sum())])
        text += f", of signature {tuple(signs) if signs[0] else (signs[1], 0)}"
    return [text]


def _check_splitting(sheet: _Sheet, rep: Rep) -> None:
    G = rep._require_bound()
    parts = irrep_table(G).decompose(rep).parts
    to = np.concatenate([p[1].reshape(-1, rep.size) for p in parts])
    back = np.concatenate([p[2].transpose(1, 0, 2).reshape(rep.size, -1) for p in parts], 1)
    blocks = SumRep(tuple((len(p[1]), p[0]) for p in parts), G)
    error = np.abs(to @ back - np.eye(rep.size)).max() if to.shape == (rep.size, rep.size) else np.inf
    for _, g in _elements(G, WORDS):
        full = rep.rho(g)
        error = max(error, np.abs(to @ full @ back - blocks.rho(g)).max() / max(1.0, np.abs(full).max()))
    text = " + ".join((f"{len(m)}x" if len(m) > 1 else "") + r.label for r, m, _ in parts)
    sheet.line(f"{rep} = {text} on unseen elements", error)


class _Count:
    """dim Hom(a, b) by characters of all elements, or by the singular values of the user's generators."""

    def __init__(self, G: MatrixGroup):
        self.elements = G.elements(LISTED) if (G.order or LISTED + 1) <= LISTED else None
        self._characters: dict[Rep, np.ndarray] = {}

    def __call__(self, a: Rep, b: Rep) -> int | None:
        if self.elements is not None:
            mean = float(np.mean(self._character(a) * self._character(b)))
            if abs(mean - round(mean)) > 1e-6:
                raise GroupError(f"the characters of {a} and {b} have the product {mean}, not a whole number")
            return round(mean)
        if a.size * b.size > UNKNOWNS:
            return None
        blocks = [np.zeros((1, a.size * b.size))]
        for p, q in zip(_orthogonal(a), _orthogonal(b)):
            block = np.kron(q, np.eye(a.size)) - np.kron(np.eye(b.size), p.T)
            blocks.append(block / max(1e-300, np.linalg.norm(p, 2), np.linalg.norm(q, 2)))
        s = np.linalg.svd(np.concatenate(blocks), compute_uv=False)
        s = s / max(1.0, s[0])
        clear = not ((s > 1e-10) & (s < 1e-6)).any()
        return a.size * b.size - int((s > 1e-8).sum()) if clear else None

    def _character(self, rep: Rep) -> np.ndarray:
        if rep not in self._characters:
            self._characters[rep] = np.trace(rep.rho(self.elements), axis1=1, axis2=2)
        return self._characters[rep]


def _orthogonal(rep: Rep) -> np.ndarray:
    """Images of all generators, (M + D, n, n), in a basis where a compact group is orthogonal."""
    images = _images(rep)
    basis = None
    if rep._require_bound().is_compact:
        basis = MatrixGroup(str(rep), images.discrete, images.lie, d=rep.size, trust_digits=True).orthogonal_basis
    basis = np.eye(rep.size) if basis is None else basis
    return basis @ np.concatenate([images.discrete, images.lie]) @ np.linalg.inv(basis)


def _check_basis(sheet: _Sheet, a: Rep, b: Rep, count: _Count) -> None:
    basis, expected = equivariant_basis(a, b), count(a, b)
    error = _intertwining(basis, a, b)
    flat = basis.reshape(-1, a.size * b.size)
    error = max(error, np.abs(flat @ flat.T - np.eye(len(flat))).max(initial=0))
    sheet.line(f"equivariant_basis({a}, {b}) is equivariant and orthonormal", error)
    if expected is not None:
        sheet.line(f"equivariant_basis({a}, {b}) is complete", abs(len(basis) - expected), 0,
                   f"{len(basis)} maps, {expected} by an independent count")


def _intertwining(maps: np.ndarray, a: Rep, b: Rep) -> float:
    """Largest violation of W a(g) = b(g) W by maps (r, b.size, a.size) on elements they were not solved on."""
    error = 0.0
    for _, g in _elements(a._require_bound(), 6):
        before, after = a.rho(g), b.rho(g)
        size = max(1.0, np.abs(before).max(), np.abs(after).max())
        error = max(error, np.abs(maps @ before - after @ maps).max(initial=0) / size)
    return error


def _check_couplings(sheet: _Sheet, G: MatrixGroup, pieces: list[Irrep], count: _Count) -> list[str]:
    table = irrep_table(G)
    first = [p[0] for p in table.decompose(V(G)).parts]
    triples = [(a, b, c) for a in first for b in pieces for c in pieces if not (a.is_trivial or b.is_trivial)]
    triples.sort(key=lambda t: t[0].size * t[1].size * t[2].size)
    error, wrong, found, counted = 0.0, 0, 0, 0
    for a, b, c in triples[:TRIPLES]:
        C = couplings(table, a, b, c)
        maps, joint = C.reshape(len(C), c.size, a.size * b.size), a * b
        error, found = max(error, _intertwining(maps, joint, c)), found + len(C)
        expected = count(joint, c)
        if expected is not None:
            wrong, counted = wrong + abs(len(C) - expected), counted + 1
    many = min(TRIPLES, len(triples))
    sheet.line("couplings a ⊗ b -> c, a in V, on unseen elements", error, note=f"{found} in {many} triples")
    if counted:
        sheet.line("couplings a ⊗ b -> c, a in V, are complete", wrong, 0, f"{counted} triples counted independently")
    return [f"couplings with a piece of V: {found} in {many}" + (f" of {len(triples)}" if len(triples) > many else "")
            + " triples of nontrivial pieces"]


def _check_layer(G: MatrixGroup, degree: int) -> list[Check]:
    field = (2 * Scalar + V)(G)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(SEED)
        layer = PointConv(field, field, edge_rep=(Scalar + V)(G), degree=min(degree, 2), width=2, hidden=8)
    report = check_equivariance(layer)
    return [replace(c, name=f"PointConv({field} -> {field}) is {c.name}") for c in report.checks]
