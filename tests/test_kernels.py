"""Which tests run under every kernel of BLAS: all that do not say why not."""

import os
import subprocess
import sys

import pytest
from threadpoolctl import threadpool_info

import kernels

pytestmark = pytest.mark.same_everywhere("looks at which tests are run")
PLAIN = "import pytest\ndef test_plain(): pass\n@pytest.mark.same_everywhere{}\ndef test_marked(): pass\n"


def collected(folder, root, mark):
    """Tests of a new file, beside conftest.py, that would be run under every kernel."""
    (folder / "conftest.py").write_bytes((root / "tests" / "conftest.py").read_bytes())
    (folder / "test_new.py").write_text(PLAIN.format(mark))
    options = [
        "--collect-only",
        "-q",
        "-n0",
        "-p",
        "no:cacheprovider",
        f"-c{root / 'pyproject.toml'}",
        f"--rootdir={root}",
    ]
    command = [sys.executable, "-m", "pytest", *options, *kernels.NUMBERS, folder / "test_new.py"]
    return subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)


def test_a_new_file_is_run_unless_it_says_why_not(tmp_path, root):
    done = collected(tmp_path, root, '("because")')
    assert done.returncode == 0, done.stdout + done.stderr
    assert "test_plain" in done.stdout
    assert "test_marked" not in done.stdout


def test_a_mark_without_a_reason_is_refused(tmp_path, root):
    done = collected(tmp_path, root, "")
    assert done.returncode != 0
    assert "test_marked: got same_everywhere without a reason, expected one" in done.stdout + done.stderr


def test_the_kernel_is_the_one_that_blas_takes():
    architectures = {library.get("architecture") for library in threadpool_info() if library["user_api"] == "blas"}
    assert kernels.kernel(os.environ) == " ".join(architectures)


def test_a_kernel_that_cannot_be_run_is_none(tmp_path):
    (tmp_path / "numpy.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGILL)\n")
    assert kernels.kernel(os.environ | {"PYTHONPATH": str(tmp_path)}) == ""
