"""The command line: ``emkernel groups``, ``emkernel check``, ``emkernel train``, ``emkernel study``."""

from __future__ import annotations

import ast
import functools
import inspect
import logging
import re
import shlex
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from difflib import get_close_matches
from pathlib import Path

import numpy as np

import emkernel

from ._group_file import run_file
from ._parser import NETWORK, parser
from ._progress import LineHandler, hidden
from .errors import DataError, GroupError, RepError, SolverError
from .matrix_group import MatrixGroup

__all__ = ["load_group", "main"]

log = logging.getLogger(__name__)


def load_group(spec: str) -> MatrixGroup:
    """A group by name: of the catalogue ("O3", "C(7)"), or "file.py:NAME", a MatrixGroup or a function that makes one.

    Args:
        spec: the name.

    Raises:
        GroupError: no such name, file or object, or not a group.
    """
    file = re.fullmatch(r"(.*\.py)(?::(.*))?", spec, re.DOTALL)
    if file is None:
        try:
            return emkernel.groups.get(spec)
        except GroupError as e:
            hint = f"; a group in a file of yours is FILE.py:{spec}" if spec.isidentifier() else ""
            raise GroupError(f"{e}{hint}") from None
    path, name = Path(file[1]), file[2]
    if not path.is_file():
        raise GroupError(f"{path} is not a file; expected my_group.py:NAME or the name of a catalogue group")
    try:
        content, refused = run_file(path)
    except GroupError as e:
        raise GroupError(f"{path}: {_blame(e, path)}{e}") from e
    except (Exception, SystemExit) as e:
        raise GroupError(f"{path} does not run: {_blame(e, path)}{type(e).__name__}: {e}") from e
    if error := refused.get(name) if name else next(iter(refused.values()), None):
        raise GroupError(f"{path}: {_blame(error, path)}{error}") from error
    for other, error in refused.items():
        log.warning("%s: %s is no group, and left out: %s%s", path, other, _blame(error, path), error)
    found = [k for k, v in content.items() if isinstance(v, MatrixGroup)]
    if not name and len(found) == 1:
        name = found[0]
    makers = [k for k, v in content.items() if inspect.isfunction(v) and v.__module__ == path.stem]
    if name not in content:
        near = get_close_matches(name or "", [*found, *makers], n=3)
        hint = f"; close to it: {', '.join(near)}" if near else ""
        raise GroupError(
            (f"{path} defines no {name!r}{hint}; " if name else f"{path}: say which group, {path}:NAME; ")
            + (f"its groups are {', '.join(found)}" if found else "it holds no MatrixGroup")
            + (f"; its functions are {', '.join(makers)}" if makers else "")
        )
    group = content[name]
    if callable(group):
        try:
            group = group()
        except GroupError:
            raise
        except (Exception, SystemExit) as e:
            raise GroupError(f"{name}() of {path} fails: {_blame(e, path)}{type(e).__name__}: {e}") from e
    if not isinstance(group, MatrixGroup):
        raise GroupError(
            f"{spec} is a {type(group).__name__}, expected a MatrixGroup or a function that returns one"
        )
    return group


def _blame(e: Exception, path: Path) -> str:
    """The line of the user's file where an exception came from."""
    lines = [frame.lineno for frame in traceback.extract_tb(e.__traceback__) if frame.filename == str(path)]
    return f"line {lines[-1]}: " if lines else ""


def _groups() -> int:
    groups = emkernel.groups
    symbols = {groups.point_group(hm).digest: (hm, names[0]) for hm, names in groups.point_groups().items()}
    print(f"{'name':12} {'d':>3} {'order':>20} {'dimension':>9}  symbols")
    for name, make in groups.catalogue().items():
        G = make()
        order = "infinite" if G.order is None else G.order
        both = "  ".join(symbols.get(G.digest, ()))
        print(f"{name:12} {G.d:>3} {order:>20} {len(G.lie_algebra):>9}  {both}".rstrip())
    print("\nfamilies, with whole numbers, as in 'C(7)':")
    for name, family in groups.families().items():
        text = (family.__doc__ or "").strip().splitlines()[0]
        print(f"  {name + '(' + ', '.join(inspect.signature(family).parameters) + ')':16} {text}")
    return 0


def _form(text: str) -> np.ndarray:
    """A square matrix from "diag(1, -1)" or "[[0, 1], [-1, 0]]": numbers alone, nothing is evaluated."""
    diagonal = re.fullmatch(r"\s*diag\s*\((.*)\)\s*", text, re.DOTALL)
    try:
        matrix = np.array(ast.literal_eval(f"[{diagonal[1]}]" if diagonal else text.strip()), float)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        matrix = np.zeros(0)
    matrix = np.diag(matrix) if diagonal and matrix.ndim == 1 else matrix
    if matrix.ndim != 2 or not matrix.size or len(matrix) != len(matrix.T) or not np.isfinite(matrix).all():
        raise ValueError(f"--form is {text!r}; expected a square matrix, as in 'diag(1, -1)' or '[[0, 1], [-1, 0]]'")
    return matrix


def _check(args) -> int:
    from ._keep import check_writable, write_text
    from .checks import check_group

    forms = [_form(text) for text in args.form or ()]
    group = load_group(args.group)
    for form in forms:
        if len(form) != group.d:
            raise ValueError(f"--form is a matrix of size {len(form)}, and {group.name} acts on {group.d} dimensions")
    if args.html is not None:
        check_writable(Path(args.html))
    report = check_group(
        group,
        order=args.order,
        dimension=args.dimension,
        form=np.array(forms) if forms else None,
        degree=args.degree,
        quick=args.quick,
    )
    print(report)
    if args.html is not None:
        from ._page import page

        write_text(Path(args.html), page(group, report, shlex.join(args.words), args.quick))
    return 0 if report.passed else 1


def _train(args) -> int:
    from .train import TASKS, RunConfig, train

    group = load_group(args.group or ("O2z" if args.task == "nbody" else "O3"))
    given = {name: getattr(args, name) for name in ("epochs", "batch_size", "lr", "n_train", "average", "patience")}
    flags = sorted({name for names in NETWORK.values() for name in names})
    model = {name: value for name in flags if (value := getattr(args, name)) is not None}
    for name in sorted(model.keys() - NETWORK[args.task]):
        known = ", ".join(f"--{n}" for n in NETWORK[args.task])
        raise ValueError(f"--{name} does not apply to {args.task}, whose network has {known}")
    if model.get("kernel") == "fixed" and (sizes := [f"--{n}" for n in ("width", "hidden") if n in model]):
        raise ValueError(f"{' and '.join(sizes)} given, but only the implicit kernel has such sizes, not the fixed one")
    if "channels" in model and isinstance(model["channels"], int) == (args.task == "modelnet"):
        raise ValueError(
            "--channels is one number for each layer of modelnet, as in 16,32,64; otherwise a single one"
        )
    config = RunConfig(
        args.task,
        root=args.root,
        target=args.target,
        field=args.field,
        rotations=args.rotations,
        seed=args.seed,
        model=model,
        **(TASKS[args.task].defaults | {k: v for k, v in given.items() if v is not None}),
    )
    out = Path(args.out or f"runs/{args.task}-{group.name}")
    trainer = {"accelerator": args.accelerator, "devices": args.devices, "precision": args.precision}
    trainer["compile"] = args.compile
    if args.tensorboard:
        trainer["logger"] = "tensorboard"
    if args.max_time:
        trainer["max_time"] = args.max_time
    try:
        results = train(group, config, out, resume=args.resume, progress=not args.no_progress, **trainer)
    except KeyboardInterrupt:
        kept = (out / "checkpoints" / "last.ckpt").exists()
        what = (
            f"continue after the last whole epoch with --resume --out {out}"
            if kept
            else "no epoch was finished yet"
        )
        print(f"emkernel: interrupted; {what}", file=sys.stderr)
        return 130
    from lightning.pytorch.utilities import rank_zero_only

    if rank_zero_only.rank:  # of several processes one speaks
        return 0
    value, best, blind = (_decimals(results[name]) for name in ("value", "best", "baseline"))
    metric = f"{results['metric']} {value} {results['unit']}".rstrip()
    print(
        f"{metric} on validation (best {best}, without looking at the structure {blind}) after "
        f"{results['epochs']} epochs, {results['seconds_training']:.0f} s; {out}/results.json"
    )
    return 0


def _study(args) -> int:
    from .studies import Request, design, markdown, run_study

    applies = {"groups": ("groups", "rotations"), "attributes": ("target",), "qm9": ("target",)}
    applies = applies.get(args.name, ("field",))
    for name in {"groups", "rotations", "target", "field"} - set(applies):
        if getattr(args, name) is not None:
            raise ValueError(f"--{name} does not apply to the study {args.name}, which has --{', --'.join(applies)}")
    asked = {name: getattr(args, name) for name in ("field", "rotations") if getattr(args, name) is not None}
    if args.groups:
        asked["groups"] = tuple(load_group(spec) for spec in args.groups)
    if args.target:
        asked["targets"] = tuple(args.target)
    training = {name: getattr(args, name) for name in ("epochs", "n_train", "batch_size", "lr")}
    training = {name: value for name, value in training.items() if value is not None}
    study = design(args.name, Request(root=args.root, size=args.size, training=training, **asked))
    out = Path(args.out or f"runs/study-{args.name}")
    trainer = {"accelerator": args.accelerator, "devices": 1, "precision": args.precision}
    say = functools.partial(print, file=sys.stderr, flush=True)
    try:
        rows = run_study(study, out, seeds=args.seeds, jobs=args.jobs, say=say, **trainer)
    except KeyboardInterrupt:
        print(f"emkernel: interrupted; the same command goes on, with what is in {out}", file=sys.stderr)
        return 130
    print(markdown(study, rows))
    print(f"{out / study.name}.csv, .md, .png")
    return 0


def _decimals(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.4f}"


@contextmanager
def _voice(args) -> Iterator[None]:
    """Records of logging on standard error, as many as were asked for, and the line of progress or none."""
    log, handler = logging.getLogger("emkernel"), LineHandler()
    level, propagate = log.level, log.propagate
    log.addHandler(handler)
    log.setLevel(logging.ERROR if args.quiet else (logging.WARNING, logging.INFO, logging.DEBUG)[min(args.verbose, 2)])
    log.propagate = False
    try:
        with hidden() if args.quiet or args.no_progress else nullcontext():
            yield
    finally:
        log.removeHandler(handler)
        log.setLevel(level)
        log.propagate = propagate


def main(argv: list[str] | None = None) -> int:
    """Run the command in ``argv``, by default that of the process.

    Returns:
        The exit status: 0 done, 1 a check failed, 2 wrong input, 130 interrupted.
    """
    args = parser().parse_args(argv)
    args.words = ["emkernel", *(sys.argv[1:] if argv is None else argv)]
    try:
        with _voice(args):
            commands = {"groups": lambda _: _groups(), "check": _check, "train": _train, "study": _study}
            return commands[args.command](args)
    except BrokenPipeError:
        return 0
    except (GroupError, RepError, DataError, SolverError, ValueError, OSError, ImportError) as e:
        print(f"emkernel: {type(e).__name__}: {' '.join(str(e).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("emkernel: interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
