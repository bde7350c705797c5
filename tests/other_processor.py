"""Run the numeric tests once more, as a processor without this one's newer instructions would.

    python tests/other_processor.py
    python tests/other_processor.py Haswell

Sums come out in another order there, and logarithms a unit in the last place apart: what compares floats exactly
fails. numpy does without all that it can do without, numba compiles for any processor of the family, and OpenBLAS
takes the kernels of the core that is named, by default one that numpy's baseline was made for. These are read when a
process starts, so the tests run in processes of their own.
"""

import os
import platform
import subprocess
import sys
from pathlib import Path

from numpy._core._multiarray_umath import __cpu_dispatch__, __cpu_features__

ROOT = Path(__file__).resolve().parents[1]
OLD_CORES = {"x86_64": "Nehalem", "AMD64": "Nehalem", "aarch64": "ARMV8", "arm64": "ARMV8"}
MODULES = [
    *(
        "utils_basis",
        "utils_nmf",
        "utils_complex_nmf",
        "utils_blocks",
        "make_init_H",
        "recording",
        "notes",
        "phase",
        "adapt",
    ),
    *("figures", "properties"),
]
SLOW = ("without_note_names", "that_is_stopped", "compiled_code")  # and no more about numbers than the rest


def main():
    switched_off = [name for name in __cpu_dispatch__ if __cpu_features__[name]]  # numpy warns of what it does not know
    settings = {
        "NPY_DISABLE_CPU_FEATURES": " ".join(switched_off),
        "OPENBLAS_CORETYPE": sys.argv[1] if len(sys.argv) > 1 else OLD_CORES.get(platform.machine(), ""),
        "NUMBA_CPU_NAME": "generic",
    }
    print("Numeric tests once more, as on another processor than this one:")
    for name, value in settings.items():
        print(f"  {name}={value}")
    environment = os.environ | {name: value for name, value in settings.items() if value}
    print(f"  kernels of BLAS: {blas_core(environment)}; without these settings: {blas_core(os.environ)}", flush=True)
    files = [str(ROOT / "tests" / f"test_{module}.py") for module in MODULES]
    options = [
        "--numprocesses=auto",
        "--dist=loadfile",
        "--no-loadscope-reorder",
        "-k",
        f"not {' and not '.join(SLOW)}",
    ]
    return subprocess.run([sys.executable, "-m", "pytest", *options, *files], cwd=ROOT, env=environment).returncode


def blas_core(environment):
    """The processor whose kernels BLAS takes in a process of its own, where BLAS tells."""
    code = "import numpy, threadpoolctl; print(*{i.get('architecture') for i in threadpoolctl.threadpool_info()})"
    command = [sys.executable, "-c", code]
    return subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout.strip()


if __name__ == "__main__":
    sys.exit(main())
