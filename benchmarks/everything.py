"""All benchmarks that depend on the machine, one after the other, in one command.

python benchmarks/everything.py --device cuda [--quick] [--python-e3nn PATH] [--python-cue PATH] [--python-escnn PATH]

Options that are not named here go to benchmarks/peers.py. Tables and plots go to docs/benchmarks, with the kind of
device in their names; a benchmark that fails is named at the end and does not stop the others.
"""

import argparse
import subprocess
import sys
from pathlib import Path

SCRIPTS = ("roofline", "training", "scaling", "peers")


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="small sizes, to runs/benchmarks")
    args, others = parser.parse_known_args()
    options = [f"--device={args.device}", f"--threads={args.threads}", *(["--quick"] if args.quick else [])]
    failed = []
    for script in SCRIPTS:
        file = Path(__file__).with_name(f"{script}.py")
        print(f"\n==== {script}\n", flush=True)
        if subprocess.run(
            [sys.executable, file, *options, *(others if script == "peers" else [])]
        ).returncode:
            failed.append(script)
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
