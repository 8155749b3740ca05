"""Equivariance of functions and modules: f(g·x) against ρ(g) f(x) on group elements."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import nn

from ._conditioning import GOOD, condition, draw, tolerance
from ._larger import of_kernels
from ._reports import LOOSEST, SEED, TOLERANCE, Check, EquivarianceReport
from .errors import RepError, SolverError
from .group_element import GroupElement, numpy_generator
from .matrix_group import MatrixGroup
from .nn import Bilinear, GridConv, InvariantPool, Invariants, PointConv
from .nn.steerable import SteerableKernel
from .rep import Rep, V
from .solver.irreps import irrep_table

SPREAD = 20.0  # sampled elements stretch vectors by at most this much, where the group has enough such

# ---- a function -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Trial:
    """The deviation at one group element: where it is worst, and the largest output."""

    element: str
    error: float
    size: float
    place: str = ""


def equivariance_error(
    fn: Callable,
    args: Sequence,
    reps_in: Sequence,
    rep_out,
    n: int = 4,
    *,
    generator: torch.Generator | np.random.Generator | int | None = None,
) -> float:
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
        >>> vector = V(groups.Oh())
        >>> ek.equivariance_error(nn.Linear(vector, vector), [torch.randn(5, 3)], [vector], vector) < 1e-5
        True
    """
    elements = sample_elements(group_of(args, reps_in, rep_out), n, generator)
    return max((t.error for t in _trials(fn, args, reps_in, rep_out, elements)), default=0.0)


def group_of(args, reps_in, rep_out) -> MatrixGroup:
    """The one group of all the representations of a call.

    Raises:
        RepError: none, several, or not as many representations as arguments.
    """
    if isinstance(reps_in, Rep) or len(args) != len(reps_in):
        raise RepError(
            f"reps_in must name one Rep or None for each of the {len(args)} arguments, got {reps_in!r}"
        )
    reps = reps_of(reps_in, rep_out)
    if not reps:
        raise RepError("no representation is given, so no group to be equivariant under")
    if any(not isinstance(r, Rep | tuple | list | None) or r == [] for r in (*reps_in, rep_out)):
        raise RepError(f"expected a Rep or None, or tuples of these, got {[*reps_in, rep_out]!r:.200}")
    for rep in reps:
        if not isinstance(rep, Rep):
            raise RepError(f"expected a Rep or None, got {type(rep).__name__}")
        group, first = rep._require_bound(), reps[0]._require_bound()
        if group.digest != first.digest:
            raise RepError(f"{reps[0]} belongs to {first.name}, {rep} to {group.name}; expected one group")
    return first


def reps_of(reps_in, rep_out) -> list[Rep]:
    """The representations of a call, in tuples or not."""
    return [r for r in _flat([*reps_in, rep_out]) if r is not None]


def _flat(values) -> list:
    return [w for v in values for w in (_flat(v) if isinstance(v, (tuple, list)) else [v])]


def sample_elements(group: MatrixGroup, n: int, generator=None) -> list[tuple[str, GroupElement]]:
    """The discrete generators, and n sampled elements of moderate spread |g| |g^-1|, neither large nor near 1.

    Both are seen in the coordinates that layers compute in, so that units or a crooked basis do not matter.
    """
    if n < 1:
        raise ValueError(f"n must be at least 1, got {n}")
    h = group.generators
    g = group.sample(4 * n, numpy_generator(SEED if generator is None else generator))
    basis, lengths = _coordinates(group)
    rates = group._rates
    if len(rates):
        shortest = 0.12 / np.sqrt(max(1, len(rates) / 3)) / lengths
        g = replace(g, coefs=g.coefs * np.maximum(1, shortest / np.where(rates > 0, rates, np.inf)))
    seen = basis @ np.stack([g.matrix, g.inverse.matrix]) @ np.linalg.inv(basis)
    spread = np.nan_to_num(np.linalg.norm(seen, axis=(2, 3)).prod(0) / group.d, nan=np.inf)
    best = np.argsort(np.where(spread <= SPREAD, 0, spread), kind="stable")[:n]
    return [(f"discrete_generators[{i}]", h[i]) for i in range(len(h))] + [
        (f"sampled element {k} (det {np.linalg.det(g[i].matrix):.2g})", g[i]) for k, i in enumerate(best)
    ]


def _coordinates(group: MatrixGroup) -> tuple[np.ndarray, np.ndarray]:
    """The change of basis (d, d) to coordinates where generators are small, and their norms there."""
    basis = group.orthogonal_basis
    if basis is None:
        try:
            basis = irrep_table(group).coordinates.basis
        except SolverError:
            basis = np.eye(group.d)
    lengths = [np.linalg.norm(basis @ A @ np.linalg.inv(basis), 2) for A in group.lie_algebra]
    return basis, np.array([n or np.inf for n in lengths])


def _act(rep, g: GroupElement, value, cast: bool = True):
    if rep is None or value is None:
        return value
    if isinstance(value, (tuple, list)):
        reps = rep if isinstance(rep, (tuple, list)) else [rep] * len(value)
        if len(reps) != len(value):
            raise RepError(f"an argument is a tuple of {len(value)}, its representations one of {len(reps)}")
        return tuple(_act(r, g, v, cast) for r, v in zip(reps, value))
    if not isinstance(value, torch.Tensor) or not (value.is_floating_point() or not cast):
        raise TypeError(
            f"{rep} acts on floating tensors, got "
            f"{value.dtype if isinstance(value, torch.Tensor) else type(value).__name__}"
        )
    if not value.ndim or value.shape[-1] != rep.size:
        raise RepError(
            f"a tensor of shape {tuple(value.shape)} cannot carry {rep}; expected (..., {rep.size})"
        )
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
            raise TypeError(
                f"fn returned {[type(y).__name__ for y in out]}; expected a real tensor or a tuple of them"
            )
        return out

    plain = run(args)
    reps = (
        rep_out
        if isinstance(rep_out, (tuple, list))
        else [rep_out] * (1 if rep_out is not None else len(plain))
    )
    if len(reps) != len(plain):
        raise RepError(f"fn returned {len(plain)} tensors, rep_out names {len(reps)} representations")
    trials = []
    for name, g in elements:
        moved = run([_act(rep, g, a) for rep, a in zip(reps_in, args)])
        trials += (
            [_compare(name, rep, a, b, g) for rep, a, b in zip(reps, moved, plain)]
            if len(moved) == len(plain)
            else [_Trial(name, np.inf, np.inf, "the number of outputs changes")]
        )
    return trials


def _compare(name: str, rep: Rep | None, moved: torch.Tensor, plain: torch.Tensor, g: GroupElement) -> _Trial:
    if moved.shape != plain.shape:
        return _Trial(
            name, np.inf, np.inf, f"the shape changes from {tuple(plain.shape)} to {tuple(moved.shape)}"
        )
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


# ---- a module ---------------------------------------------------------------------------------------------


def check_equivariance(
    module: Callable,
    args: Sequence | None = None,
    reps_in: Sequence | None = None,
    rep_out=None,
    *,
    n: int = 4,
    tol: float | Mapping[torch.dtype, float] | None = None,
) -> EquivarianceReport:
    """:func:`equivariance_error` of copies of a module in float64 and float32; of a function as it is.

    A warning says where the kernels of a module, by their degree and fields, are those of a larger continuous group.

    Args:
        module: a layer that declares its representations (``rep_in``, ``rep_out``), a module with a method
            ``equivariance_example(generator) -> (args, reps_in, rep_out)``, or any callable with these given.
        args: its arguments; by default random features, on a random graph with a loop and an isolated node.
        reps_in, rep_out: as for :func:`equivariance_error`; by default what the module declares.
        n: sampled group elements.
        tol: largest error, by default 1e-10 in float64 and 1e-5 in float32 (for a module it is never less there), times
            the condition number of the basis in which the representations are written, and at most 1e-2; or one for
            each dtype to check.

    Raises:
        TypeError: the module does not say what it maps, and nor does the call.

    Example:
        >>> vector = V(groups.Oh())
        >>> ek.check_equivariance(nn.PointConv(vector, vector)).passed
        True
    """
    generator = torch.Generator().manual_seed(SEED)
    drawn = None
    if reps_in is None:
        drawn, reps_in, rep_out = _example(module, generator)
    elif args is None:
        drawn = [None if r is None else draw(6, r, generator) for r in reps_in]
    if args is None:
        held = [*module.parameters(), *module.buffers()] if isinstance(module, nn.Module) else []
        args = _to(drawn, held[0].device if held else None)
    group = group_of(args, reps_in, rep_out)
    if not isinstance(tol, Mapping):
        dtype = torch.float64 if isinstance(module, nn.Module) else dtype_of(args)
        reps = reps_of(reps_in, rep_out)
        tol = {dtype: tolerance(dtype, reps) if tol is None else tol}
        if isinstance(module, nn.Module):
            tol[torch.float32] = max(tol[dtype], tolerance(torch.float32, reps))
    checks: list[Check] = []
    warnings: list[str] = []
    for dtype, allowed in tol.items():
        fn = copy.deepcopy(module).to(dtype) if isinstance(module, nn.Module) else module
        fn = _Flattened(fn) if isinstance(fn, SteerableKernel) else fn
        report = report_equivariance(fn, _to(args, dtype), reps_in, rep_out, n=n, tol=allowed, dtype=dtype)
        checks += report.checks
        warnings += [w for w in report.warnings if w not in warnings]
    if isinstance(module, nn.Module) and all(c.passed for c in checks):
        text = of_kernels([m for m in module.modules() if isinstance(m, SteerableKernel)])
        warnings += [text] if text else []
    return EquivarianceReport(f"{_name(module)} under {group.name}", tuple(checks), tuple(warnings))


def dtype_of(args: Sequence) -> torch.dtype:
    """The least precise floating dtype among the arguments."""
    found = {a.dtype for a in _flat(args) if isinstance(a, torch.Tensor) and a.is_floating_point()}
    return max(found & set(TOLERANCE), key=TOLERANCE.__getitem__, default=torch.float64)


class _Flattened(nn.Module):
    """A kernel with its matrices flattened row by row: the layout of rep_in >> rep_out."""

    def __init__(self, kernel: SteerableKernel):
        super().__init__()
        self.kernel = kernel

    def forward(self, *args):
        return self.kernel(*args).flatten(-2)


def report_equivariance(
    fn: Callable,
    args: Sequence,
    reps_in: Sequence,
    rep_out,
    *,
    n: int,
    tol: float,
    dtype: torch.dtype,
    generator=None,
) -> EquivarianceReport:
    """One line on :func:`equivariance_error`, with where it is worst and what would make it small."""
    group = group_of(args, reps_in, rep_out)
    elements = sample_elements(group, n, generator)
    trials = _trials(fn, args, reps_in, rep_out, elements)
    worst, size = max(trials, key=lambda t: t.error), max(t.size for t in trials)
    note = f"worst at {worst.element}" + (f", {worst.place}" if worst.place else "")
    reps = reps_of(reps_in, rep_out)
    kappa = max(condition(r) for r in reps)
    if kappa > GOOD and tol == tolerance(dtype, reps):
        note += f"; the basis, of condition {kappa:.0f}, counts in the tolerance"
    check = Check(f"equivariant in {str(dtype).removeprefix('torch.')}", worst.error, tol, note, dtype)
    warnings = []
    if not check.passed:
        bad = list(dict.fromkeys(t.element for t in trials if not t.error <= tol))
        good = [name for name, _ in elements if name not in bad]
        warnings.append(f"violated at {', '.join(bad)}" + (f"; not at {', '.join(good)}" if good else ""))
        if kappa > GOOD and kappa * TOLERANCE[dtype] > LOOSEST:
            warnings.append(
                f"{str(dtype).removeprefix('torch.')} has too few digits for a basis of condition {kappa:.0e}: compute "
                "with more, or in coordinates that are closer to orthogonal"
            )
        warnings += _suggestions(fn, args, reps_in, rep_out, elements, tol)
    elif not size:
        warnings.append("the output vanishes: this would pass whatever the function is")
    if 0 < size < 100 * torch.finfo(dtype).eps:
        warnings.append(f"the output is no larger than {size:.0e}: it may be rounding alone")
    return EquivarianceReport(f"{_name(fn)} under {group.name}", (check,), tuple(warnings))


def _suggestions(fn, args, reps_in, rep_out, elements: list, tol: float) -> list[str]:
    """Other declarations of single arguments under which the function is equivariant."""
    known = reps_of(reps_in, rep_out)
    known = list(dict.fromkeys([*known, V(known[0].group)]))
    out = []
    for k, (arg, rep) in enumerate(zip(args, reps_in)):
        moves = isinstance(arg, torch.Tensor) and arg.is_floating_point() and arg.ndim > 0
        for other in [None] if rep is not None else [r for r in known if moves and r.size == arg.shape[-1]]:
            changed = [*reps_in[:k], other, *reps_in[k + 1 :]]
            if all(t.error <= tol for t in _trials(fn, args, changed, rep_out, elements)):
                out.append(
                    f"it passes when argument {k} is {'not moved' if other is None else f'moved as {other}'}"
                )
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


def _example(module, generator: torch.Generator) -> tuple:
    """(args, reps_in, rep_out) of a module that says what it maps."""
    if hasattr(module, "equivariance_example"):
        return module.equivariance_example(generator)
    if isinstance(module, (PointConv, SteerableKernel)):
        kernel = module.kernel if isinstance(module, PointConv) else module
        rep_in, rep_out, edge_rep, rows = kernel.rep_in, kernel.rep_out, kernel.edge_rep, 20
        attr = None if edge_rep is None else draw(rows, edge_rep, generator)
        position = V(rep_in._require_bound())
        points = kernel.embed.cutoff / 2 * draw(rows, position, generator)
        if module is kernel:
            return (points, attr), (position, edge_rep), rep_in >> rep_out
        # nodes 0 to 6 are joined at random, with a loop at 0; nobody meets node 7
        edges = torch.randint(0, 7, (2, rows), generator=generator)
        edges[:, 0] = 0
        return (
            (draw(8, rep_in, generator), points[:8], edges, attr),
            (rep_in, position, None, edge_rep),
            rep_out,
        )
    if isinstance(module, GridConv):
        raise TypeError(
            f"{_name(module)} is exactly equivariant under what maps its grid to itself only: see "
            "checks.grid_equivariance_error(conv), or check conv.kernel"
        )
    if isinstance(module, Bilinear):
        reps = (module.rep_left, module.rep_right)
        return tuple(draw(6, r, generator) for r in reps), reps, module.rep_out
    if isinstance(module, (Invariants, InvariantPool)):
        return (draw(6, module.rep, generator),), (module.rep,), None
    source, target = getattr(module, "rep_in", None), getattr(module, "rep_out", None)
    if isinstance(source, Rep) and isinstance(target, Rep):
        return (draw(6, source, generator),), (source,), target
    raise TypeError(
        f"{_name(module)} does not say how its arguments and output transform: pass args, reps_in and "
        "rep_out, or give it a method equivariance_example(generator) -> (args, reps_in, rep_out)"
    )
