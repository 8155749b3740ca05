"""The command line: ``emkernel groups``, ``emkernel check``, ``emkernel train``, ``emkernel study``."""

from __future__ import annotations

import argparse
import ast
import functools
import inspect
import logging
import re
import runpy
import sys
import traceback
from difflib import get_close_matches
from pathlib import Path

import numpy as np

import emkernel

from .errors import DataError, GroupError, RepError, SolverError
from .matrix_group import MatrixGroup

__all__ = ["load_group", "main"]

# options of the networks that have a flag of their own
NETWORK = {
    "nbody": ("channels", "degree", "layers", "kernel", "width", "hidden", "nonlinearity", "attributes"),
    "qm9": ("channels", "degree", "layers", "kernel", "width", "hidden", "nonlinearity", "attributes", "radius"),
    "modelnet": (
        "channels", "degree", "kernel", "width", "hidden", "nonlinearity", "points", "neighbours", "cutoffs",
        "invariant",
    ),
}  # fmt: skip


def load_group(spec: str) -> MatrixGroup:
    """A group from a catalogue name ("O3", "C(7)"), or "file.py:NAME": a MatrixGroup or a function that returns one.

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
    except Exception as e:
        raise GroupError(f"{path} does not run: {_blame(e, path)}{type(e).__name__}: {e}") from e
    found = [k for k, v in content.items() if isinstance(v, MatrixGroup)]
    if not name and len(found) == 1:
        name = found[0]
    if name not in content:
        near = get_close_matches(name or "", [k for k in content if not k.startswith("_")], n=3)
        hint = f"; close to it: {', '.join(near)}" if near else ""
        raise GroupError(
            (f"{path} defines no {name!r}{hint}; " if name else f"{path}: say which group, {path}:NAME; ")
            + (f"its groups are {', '.join(found)}" if found else "it holds no MatrixGroup")
        )
    group = content[name]
    if callable(group):
        try:
            group = group()
        except GroupError:
            raise
        except Exception as e:
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
        description="Steerable point convolutions for any matrix group given by its generators.",
        epilog="examples:\n  emkernel groups\n  emkernel check my_group.py:G\n  emkernel train nbody --group O2z\n"
        "  emkernel train qm9 --group O3 --root data/qm9 --epochs 40",
    )
    parser.add_argument("--version", action="version", version=f"emkernel {emkernel.__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="{groups,check,train,study}")
    commands.add_parser("groups", help="list the catalogue")
    check = commands.add_parser(
        "check",
        help="check a group: generators, irreducibles, couplings, equivariance",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="examples:\n  emkernel check Oh\n  emkernel check 'C(7)' --order 7\n"
        "  emkernel check my_group.py:G --degree 3\n"
        "  emkernel check Lorentz --dimension 6 --form 'diag(1, -1, -1, -1)'",
    )
    check.add_argument("group", help="catalogue name, or my_group.py:NAME")
    check.add_argument(
        "--degree", type=int, default=2, help="highest tensor power of V that is split (default 2)"
    )
    check.add_argument("--order", type=int, help="number of elements it should have")
    check.add_argument("--dimension", type=int, help="dimension its Lie algebra should have")
    check.add_argument(
        "--form",
        action="append",
        help="bilinear form that it should preserve, 'diag(1, -1)' or '[[0, 1], [-1, 0]]'; may be repeated",
    )
    check.add_argument(
        "--quick", action="store_true", help="only what the group is: no maps, couplings or layers"
    )
    run = commands.add_parser(
        "train", help="train a reference model", formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    run.add_argument("task", choices=("nbody", "qm9", "modelnet"))
    run.add_argument(
        "--group", default=None, help="catalogue name, or my_group.py:NAME (nbody: O2z, otherwise O3)"
    )
    run.add_argument("--root", help="file or folder of the data (not for nbody)")
    run.add_argument("--out", help="folder of the run (default runs/TASK-GROUP)")
    run.add_argument(
        "--resume", action="store_true", help="continue the run in --out from its last checkpoint"
    )
    run.add_argument("--target", default="mu", help="property of QM9")
    run.add_argument(
        "--field", default="electric", choices=("electric", "magnetic", "none"), help="of nbody, along z"
    )
    run.add_argument("--rotations", default="so3", choices=("so3", "z", "none"), help="of modelnet, random")
    for name, kind, text in (
        ("epochs", int, "passes over the training data"),
        ("batch-size", int, "items per step"),
        ("lr", float, "highest learning rate"),
        ("n-train", int, "use so many training items"),
        ("average", float, "decay of the moving average of the weights, 0 for none"),
    ):
        run.add_argument(f"--{name}", type=kind, help=text)
    run.add_argument("--seed", type=int, default=0)
    for name, kind, text in (
        ("channels", _integers, "copies of each irreducible; modelnet: a,b,c per layer"),
        ("degree", int, "highest irreducible kept"),
        ("layers", int, "convolutions (nbody, qm9)"),
        ("kernel", str, "implicit, or fixed: the baseline in a fixed basis"),
        ("width", int, "hidden channels of the implicit kernel"),
        ("hidden", int, "width of its MLP"),
        ("nonlinearity", str, "gate, or orbit: quotient ELU"),
        ("attributes", _names, "what the kernel sees: some of charges,velocities (nbody), bonds,atoms (qm9), or none"),
        ("radius", float, "of qm9: join atoms closer than this, in angstrom, not bonded ones"),
        ("points", _integers, "of modelnet: a,b,c points that each layer keeps"),
        ("neighbours", _integers, "of modelnet: nearest points that each layer joins, k or a,b,c"),
        ("cutoffs", _floats, "of modelnet: a,b,c length scale of each layer"),
    ):
        run.add_argument(f"--{name}", type=kind, help=text)
    run.add_argument(
        "--invariant", action="store_true", default=None, help="of modelnet: the last layer returns invariants"
    )
    run.add_argument("--max-time", help="stop after DD:HH:MM:SS")
    run.add_argument("--accelerator", default="auto")
    run.add_argument("--devices", default="auto")
    run.add_argument("--precision", default="32-true")
    run.add_argument("--no-progress", action="store_true")
    _study_options(commands)
    return parser


def _study_options(commands) -> None:
    study = commands.add_parser(
        "study",
        help="check a claim: networks that differ in one thing, trained from several seeds",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Train networks of equal size that differ in one thing, each from several seeds, and write a\n"
        "table (NAME.csv, NAME.md) and a figure (NAME.png). Stopped, the same command goes on where it was.",
        epilog="studies:\n"
        "  groups      implicit kernel against fixed basis, under each group, on rotated shapes (figure 3)\n"
        "  attributes  fixed basis, implicit kernel, with bonds, with atoms, with both, on QM9 (figure 4)\n"
        "  qm9         the implicit kernel on properties of QM9 (table 1)\n"
        "  symmetry    no symmetry, a part, the right one, one that is too large, on particles in a field\n"
        "  samples     error by the number of training systems, with the right symmetry and with none\n\n"
        "examples:\n  emkernel study symmetry --quick\n  emkernel study groups --root DATA --small --groups SO2z O2z\n"
        "  emkernel study attributes --root DATA --target homo --jobs 2\n",
    )
    study.add_argument("name", choices=("groups", "attributes", "qm9", "symmetry", "samples"))
    study.add_argument("--root", help="file or folder of the data (groups, attributes, qm9)")
    study.add_argument("--out", help="folder of the study (default runs/study-NAME)")
    size = study.add_mutually_exclusive_group()
    for name, text in (
        ("quick", "a few minutes on one core"),
        ("small", "an hour or so on one core; without either, the size for a machine with a GPU"),
    ):
        size.add_argument(f"--{name}", dest="size", action="store_const", const=name, default="full", help=text)
    study.add_argument("--seeds", type=int, default=5, help="runs of each network (default 5)")
    study.add_argument("--jobs", type=int, default=1, help="runs at a time, each with one thread (default 1)")
    study.add_argument("--groups", nargs="+", help="of groups: names, or my_group.py:NAME, not the paper's")
    study.add_argument("--target", nargs="+", help="of attributes and qm9: properties (default mu)")
    study.add_argument("--field", choices=("electric", "magnetic"), help="of symmetry and samples (default electric)")
    study.add_argument("--rotations", choices=("z", "so3"), help="of groups (default z, as in the paper)")
    for name, kind in (("epochs", int), ("n-train", int), ("batch-size", int), ("lr", float)):
        study.add_argument(f"--{name}", type=kind, help="of every run, instead of the study's own")
    study.add_argument("--accelerator", default="auto")
    study.add_argument("--precision", default="32-true")


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
    from .checks import check_group

    forms = [_form(text) for text in args.form or ()]
    group = load_group(args.group)
    for form in forms:
        if len(form) != group.d:
            raise ValueError(f"--form is a matrix of size {len(form)}, and {group.name} acts on {group.d} dimensions")
    report = check_group(
        group,
        order=args.order,
        dimension=args.dimension,
        form=np.array(forms) if forms else None,
        degree=args.degree,
        quick=args.quick,
    )
    print(report)
    return 0 if report.passed else 1


def _train(args) -> int:
    from .train import TASKS, RunConfig, train

    group = load_group(args.group or ("O2z" if args.task == "nbody" else "O3"))
    given = {name: getattr(args, name) for name in ("epochs", "batch_size", "lr", "n_train", "average")}
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


def main(argv: list[str] | None = None) -> int:
    """Run a command; returns the exit status: 0 done, 1 a check failed, 2 wrong input, 130 interrupted."""
    logging.basicConfig(format="%(message)s")
    args = _parser().parse_args(argv)
    try:
        return {"groups": lambda _: _groups(), "check": _check, "train": _train, "study": _study}[args.command](args)
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
