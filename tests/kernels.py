"""Run the tests of numbers once more under every other kernel of BLAS that this machine can run.

    python tests/kernels.py
    python tests/kernels.py Haswell

Sums come out in another order on another kind of processor, and logarithms a unit in the last place apart: what
compares floats exactly fails. OpenBLAS takes the kernels of the core that is named. Under the oldest of them numpy does
without all the instructions that it can do without as well, and numba compiles for any processor of the family. These
are read when a process starts, so the tests run in processes of their own.

Which tests these are: all but those with the mark ``same_everywhere``, which says why.
"""

import os
import platform
import subprocess
import sys
from pathlib import Path

from numpy._core._multiarray_umath import __cpu_dispatch__, __cpu_features__

ROOT = Path(__file__).resolve().parents[1]
KERNELS = {"x86": ("Nehalem", "Haswell", "Zen", "SkylakeX"), "arm": ("ARMV8", "NEOVERSEN1", "NEOVERSEV1")}  # by age
FAMILY = {"x86_64": "x86", "AMD64": "x86", "aarch64": "arm", "arm64": "arm"}
NUMBERS = ("-m", "not same_everywhere")
MULTIPLY = """
import numpy, threadpoolctl
for dtype in "fdFD":
    for n in (3, 64, 300):
        a = numpy.ones((n, n), dtype)
        assert (a @ a == n).all() and (a @ a[0] == n).all() and numpy.vdot(a, a) == n * n
print(*{library.get("architecture") for library in threadpoolctl.threadpool_info() if library["user_api"] == "blas"})
"""


def main():
    names = sys.argv[1:] or KERNELS.get(FAMILY.get(platform.machine()), ())
    done, status = [] if sys.argv[1:] else [kernel(os.environ)], 0
    for name in names:
        set_to = settings(name, as_oldest=name == names[0] and not sys.argv[1:])
        found = kernel(os.environ | set_to)
        if not found:
            print(f"{name}: left out, this processor does not have its instructions", flush=True)
        elif found in done and len(set_to) == 1:
            print(f"{name}: nothing to do, BLAS takes the kernels of {found}", flush=True)
        else:
            print("Tests of numbers:", *(f"{key}={value}" for key, value in set_to.items()), flush=True)
            status |= run(*NUMBERS, environment=os.environ | set_to)
            done.append(found)
    print(f"Kernels of BLAS that the tests of numbers ran with: {', '.join(dict.fromkeys(done))}")
    return status


def settings(name, as_oldest):
    """Environment in which BLAS takes the kernels of that name."""
    if not as_oldest:
        return {"OPENBLAS_CORETYPE": name}
    switched_off = [feature for feature in __cpu_dispatch__ if __cpu_features__[feature]]  # of others numpy warns
    return {"OPENBLAS_CORETYPE": name, "NPY_DISABLE_CPU_FEATURES": " ".join(switched_off), "NUMBA_CPU_NAME": "generic"}


def kernel(environment):
    """The kernels that BLAS multiplies with in a process of its own; "" where that does not end well."""
    command = [sys.executable, "-c", MULTIPLY]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    return "" if done.returncode else done.stdout.strip()


def run(*options, environment):
    """Exit status of pytest."""
    command = [sys.executable, "-m", "pytest", "--numprocesses=auto", "--dist=loadfile", "--no-loadscope-reorder"]
    return subprocess.run([*command, *options], cwd=ROOT, env=environment, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
