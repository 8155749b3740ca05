"""The arguments of the command line, each with its help."""

from __future__ import annotations

import argparse
from difflib import get_close_matches

import emkernel

from . import _help

__all__ = ["NETWORK", "parser"]

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


class Parser(argparse.ArgumentParser):
    """A parser that says what an unknown option is close to, and takes none that is cut short."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs, allow_abbrev=False)

    def parse_args(self, args=None, namespace=None):
        """As of argparse; an unknown option is blamed on its command."""
        found, unknown = self.parse_known_args(args, namespace)
        if unknown:
            (commands,) = (a for a in self._actions if isinstance(a, argparse._SubParsersAction))
            command = commands.choices[found.command]
            known = [name for name in command._option_string_actions if name.startswith("--")]
            text = f"unrecognized arguments: {' '.join(unknown)}"
            for word in (word.partition("=")[0] for word in unknown if word.startswith("-")):
                near = get_close_matches("--" + word.strip("-"), known, n=2)
                text += f"; close to {word}: {', '.join(near)}" if near else ""
            command.error(text)
        return found


def parser() -> argparse.ArgumentParser:
    """The parser of ``emkernel``, with one for each command."""
    main = Parser(
        prog="emkernel",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description=_help.MAIN,
        epilog=_help.MAIN_END,
    )
    main.add_argument("--version", action="version", version=f"emkernel {emkernel.__version__}")
    commands = main.add_subparsers(
        title="commands",
        dest="command",
        required=True,
        metavar="{groups,check,train,study}",
        help="each has its own --help",
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
    check.add_argument("--order", type=_count(1), metavar="N", help="the number of elements it must have")
    check.add_argument("--dimension", type=_count(0), metavar="N", help="the dimension its Lie algebra must have")
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
    machine.add_argument("--compile", action="store_true", help="by torch.compile: takes a minute, pays on a GPU")
    machine.add_argument("--tensorboard", action="store_true", help="also write events for TensorBoard")
    _study_options(commands)
    for command in commands.choices.values():
        say = command.add_argument_group("what is said meanwhile, on standard error").add_argument
        say("-v", "--verbose", action="count", default=0, help="log what took long, and each epoch; -vv all")
        say("-q", "--quiet", action="store_true", help="no line of progress and no warnings, errors alone")
        say("--no-progress", action="store_true", help="no line of progress; where there is no terminal there is none")
    return main


def _study_options(commands) -> None:
    study = commands.add_parser(
        "study",
        help="check a claim: networks that differ in one thing, trained from several seeds",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description=_help.STUDY,
        epilog=_help.STUDY_END,
    )
    study.add_argument("name", choices=("groups", "attributes", "qm9", "symmetry", "samples"), help="see above")
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
    study.add_argument("--accelerator", default="auto", help="cpu, gpu, ... (default auto)")
    study.add_argument("--precision", default="32-true", help="32-true, bf16-mixed, ... (default 32-true)")


def _count(least: int):
    def number(text: str) -> int:
        if (n := int(text)) < least:
            raise argparse.ArgumentTypeError(f"{n} is less than {least}")
        return n

    number.__name__ = "whole number"
    return number


def _integers(text: str):
    numbers = tuple(int(part) for part in text.split(","))
    return numbers[0] if len(numbers) == 1 else numbers


def _floats(text: str) -> tuple[float, ...]:
    return tuple(float(part) for part in text.split(","))


def _names(text: str) -> tuple[str, ...]:
    return () if text == "none" else tuple(text.split(","))
