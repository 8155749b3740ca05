"""The command line: ``emkernel groups``, ``emkernel check``, ``emkernel train``."""

from __future__ import annotations

import argparse
import ast
import inspect
import logging
import re
import runpy
import shlex
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from difflib import get_close_matches
from pathlib import Path

import numpy as np

import emkernel

from . import _help
from ._progress import LineHandler, hidden
from .errors import DataError, GroupError, RepError, SolverError
from .matrix_group import MatrixGroup

__all__ = ["load_group", "main"]

# options of the networks that have a flag of their own
NETWORK = {
    "nbody": ("channels", "degree", "layers", "kernel", "width", "hidden", "nonlinearity", "attributes"),
    "qm9": ("channels", "degree", "layers", "kernel", "width", "hidden", "nonlinearity", "attributes", "radius"),
    "dielectric": (
        "channels", "degree", "layers", "kernel", "width", "hidden", "nonlinearity", "attributes", "radius",
    ),
    "modelnet": (
        "channels", "degree", "kernel", "width", "hidden", "nonlinearity", "points", "neighbours", "cutoffs",
        "invariant",
    ),
}  # fmt: skip


def load_group(spec: str) -> MatrixGroup:
    """A group by name: of the catalogue ("O3", "C(7)"), or "file.py:NAME", a MatrixGroup or a function that makes one.

    Args:
        spec: the name.

    Raises:
        GroupError: no such name, file or object, or not a group.
    """
    file = re.fullmatch(r"(.*\.py)(?::(.*))?", spec, re.DOTALL)
    if file is None:
        return emkernel.groups.get(spec)
    path, name = Path(file[1]), file[2]
    if not path.is_file():
        raise GroupError(f"{path} is not a file; expected my_group.py:NAME or the name of a catalogue group")
    try:
        content = runpy.run_path(str(path), run_name=path.stem)
    except GroupError:
        raise
    except (Exception, SystemExit) as e:
        raise GroupError(f"{path} does not run: {_blame(e, path)}{type(e).__name__}: {e}") from e
    found = [k for k, v in content.items() if isinstance(v, MatrixGroup)]
    if not name and len(found) == 1:
        name = found[0]
    makers = [k for k, v in content.items() if inspect.isfunction(v) and v.__module__ == path.stem]
    if name not in content:
        near = get_close_matches(name or "", [k for k in content if not k.startswith("_")], n=3)
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


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="emkernel",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description=_help.MAIN,
        epilog=_help.MAIN_END,
    )
    parser.add_argument("--version", action="version", version=f"emkernel {emkernel.__version__}")
    commands = parser.add_subparsers(
        title="commands",
        dest="command",
        required=True,
        metavar="{groups,check,train}",
        help="emkernel COMMAND --help says more",
    )
    commands.add_parser(
        "groups",
        help="list the groups that have a name",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description=_help.GROUPS,
        epilog=_help.GROUPS_END,
    )
    check = commands.add_parser(
        "check",
        help="show what a group is and check all that is built on it",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description=_help.CHECK,
        epilog=_help.CHECK_END,
    )
    check.add_argument("group", help="a name of the catalogue, a family as 'C(7)', or my_group.py:NAME")
    check.add_argument("--order", type=int, metavar="N", help="the number of elements it must have")
    check.add_argument("--dimension", type=int, metavar="N", help="the dimension its Lie algebra must have")
    check.add_argument(
        "--form",
        action="append",
        metavar="F",
        help="a matrix F that it must preserve, h^T F h = F: 'diag(1, -1)' or '[[0, 1], [-1, 0]]'; may be repeated",
    )
    check.add_argument(
        "--degree", type=int, default=2, metavar="K",
        help="split the tensor powers of V up to this one into irreducibles (default 2)",
    )  # fmt: skip
    check.add_argument(
        "--quick", action="store_true", help="only what the group is: no equivariant maps, couplings or layers"
    )
    check.add_argument("--html", metavar="FILE", help="also write a page that shows the group: orbit, kernel, errors")
    run = commands.add_parser(
        "train",
        help="train a reference network that is equivariant under a group",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description=_help.TRAIN,
        epilog=_help.TRAIN_END,
    )
    run.add_argument("task", choices=("nbody", "qm9", "modelnet", "dielectric"), help="see above")
    run.add_argument(
        "--group", help="a name of the catalogue, or my_group.py:NAME (default O2z for nbody, O3 otherwise)"
    )
    run.add_argument("--root", help="file or folder of the data (not for nbody)")
    run.add_argument("--out", help="folder of the run (default runs/TASK-GROUP)")
    run.add_argument("--resume", action="store_true", help="go on with the run in --out after its last whole epoch")
    run.add_argument(
        "--target", help="of qm9: mu, alpha, homo, lumo, gap, ... (default mu); of dielectric: electronic or total"
    )
    run.add_argument(
        "--field", default="electric", choices=("electric", "magnetic", "none"),
        help="of nbody, along z (default electric); each has a symmetry of its own: O2z, SO2zInv, O3",
    )  # fmt: skip
    run.add_argument(
        "--rotations", default="so3", choices=("so3", "z", "none"),
        help="of modelnet: shapes are turned at random, in training and validation (default so3)",
    )  # fmt: skip
    learning = run.add_argument_group("learning", "AdamW; where nothing is said each task has its own default")
    for name, kind, text in (
        ("epochs", int, "passes over the training data"),
        ("batch-size", int, "items in each step"),
        ("lr", float, "the highest learning rate, after warming up and before the cosine to zero"),
        ("n-train", int, "use only so many training items"),
        ("average", float, "validate a moving average of the weights with this decay; 0 for none"),
        ("patience", int, "stop after so many epochs without improvement"),
    ):
        learning.add_argument(f"--{name}", type=kind, help=text)
    learning.add_argument("--seed", type=int, default=0, help="of weights, order and augmentation (default 0)")
    network = run.add_argument_group("network")
    for name, kind, text in (
        ("channels", _integers, "copies of each irreducible in a field; of modelnet one number a layer, as 16,32,64"),
        ("degree", int, "fields carry the irreducibles of the polynomials of an edge up to this degree"),
        ("layers", int, "number of convolutions (not of modelnet)"),
        ("kernel", str, "implicit, a network of the edge; or fixed, the baseline in a fixed steerable basis"),
        ("width", int, "channels of each irreducible inside the implicit kernel"),
        ("hidden", int, "width of the multilayer perceptron inside the implicit kernel"),
        ("nonlinearity", str, "gate, or orbit: the quotient ELU on functions on the orbit of a vector"),
        ("attributes", _names, "seen by the kernel: charges,velocities; of qm9 bonds,atoms; of crystals atoms; none"),
        ("radius", float, "join atoms closer than this, in angstrom: of qm9 instead of bonded ones; of dielectric (5)"),
        ("points", _integers, "of modelnet: a,b,c points that each layer keeps"),
        ("neighbours", _integers, "of modelnet: nearest points that each layer joins, k or a,b,c"),
        ("cutoffs", _floats, "of modelnet: a,b,c length scale of each layer"),
    ):
        network.add_argument(f"--{name}", type=kind, help=text)
    network.add_argument(
        "--invariant", action="store_true", default=None, help="of modelnet: the last layer returns invariants"
    )
    machine = run.add_argument_group("machine", "as of Lightning's Trainer")
    machine.add_argument("--max-time", metavar="DD:HH:MM:SS", help="stop after this time; --resume goes on")
    machine.add_argument("--accelerator", default="auto", help="cpu, gpu, ... (default auto)")
    machine.add_argument("--devices", default="auto", help="how many, or which (default auto)")
    machine.add_argument("--precision", default="32-true", help="32-true, 64-true, bf16-mixed, ... (default 32-true)")
    machine.add_argument("--tensorboard", action="store_true", help="also write events for TensorBoard")
    for command in commands.choices.values():
        say = command.add_argument_group("what is said meanwhile, on standard error").add_argument
        say("-v", "--verbose", action="count", default=0, help="log what took long, and each epoch; -vv all")
        say("-q", "--quiet", action="store_true", help="no line of progress and no warnings, errors alone")
        say("--no-progress", action="store_true", help="no line of progress; where there is no terminal there is none")
    return parser


def _integers(text: str):
    numbers = tuple(int(part) for part in text.split(","))
    return numbers[0] if len(numbers) == 1 else numbers


def _floats(text: str) -> tuple[float, ...]:
    return tuple(float(part) for part in text.split(","))


def _names(text: str) -> tuple[str, ...]:
    return () if text == "none" else tuple(text.split(","))


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
    args = _parser().parse_args(argv)
    args.words = ["emkernel", *(sys.argv[1:] if argv is None else argv)]
    try:
        with _voice(args):
            return {"groups": lambda _: _groups(), "check": _check, "train": _train}[args.command](args)
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
