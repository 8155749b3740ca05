"""Building a PointConv for O(3) from scalars, vectors and rank-2 tensors to the same, 16 copies each: cold,
with an empty store, and again from the store; each in a fresh process, imports counted apart.

    python benchmarks/build.py
"""

import os
import subprocess
import sys
import tempfile

CODE = """
import time; start = time.perf_counter()
import torch; torched = time.perf_counter()
import emkernel as ek; imported = time.perf_counter()
G = ek.groups.O(3)
rep = (16 * ek.Scalar + 16 * ek.V + 16 * ek.V**2)(G)
conv = ek.nn.PointConv(rep, rep); built = time.perf_counter()
import sys
print(torched - start, imported - torched, built - imported, "jax" in sys.modules)
"""


def main():
    print(f"{'store':8} {'import torch':>13} {'emkernel':>9} {'build':>9}  jax imported")
    with tempfile.TemporaryDirectory() as folder:
        for name in ("cold", "warm"):
            out = subprocess.run(
                [sys.executable, "-c", CODE],
                capture_output=True,
                text=True,
                check=True,
                env=os.environ | {"EMKERNEL_STORE": folder, "EMKERNEL_SHIPPED": "0"},
            ).stdout.split()
            torch, own, build = map(float, out[:3])
            print(f"{name:8} {torch:11.2f} s {own:7.2f} s {build:7.2f} s  {out[3]}")


if __name__ == "__main__":
    main()
