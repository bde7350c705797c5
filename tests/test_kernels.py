"""Which tests run under every kernel of BLAS: all that do not say why not."""

import os

import pytest
from threadpoolctl import threadpool_info

import kernels
from helpers import python

pytestmark = pytest.mark.same_everywhere("looks at which tests are run")
PLAIN = "import pytest\ndef test_plain(): pass\n@pytest.mark.same_everywhere{}\ndef test_marked(): pass\n"


def collected(folder, root, mark):
    """Tests of a new file, beside conftest.py, that would be run under every kernel."""
    (folder / "conftest.py").write_bytes((root / "tests" / "conftest.py").read_bytes())
    (folder / "test_new.py").write_text(PLAIN.format(mark))
    options = ["--collect-only", "-q", "-n0", "-p", "no:cacheprovider", f"-c{root / 'pyproject.toml'}"]
    done = python("-m", "pytest", *options, f"--rootdir={root}", *kernels.NUMBERS, folder / "test_new.py", cwd=root)
    return done.returncode, done.stdout + done.stderr


def test_a_new_file_is_run_unless_it_says_why_not(tmp_path, root):
    status, said = collected(tmp_path, root, '("because")')
    assert status == 0, said
    assert "test_plain" in said
    assert "test_marked" not in said
    status, said = collected(tmp_path, root, "")
    assert status != 0
    assert "test_marked: got same_everywhere without a reason, expected one" in said


def test_the_kernel_is_the_one_that_blas_takes():
    libraries = [library for library in threadpool_info() if library["user_api"] == "blas"]
    of_numpy = {library.get("architecture") for library in libraries if f"{os.sep}scipy" not in library["filepath"]}
    assert kernels.kernel(os.environ) == " ".join(of_numpy)


def test_a_kernel_that_cannot_be_run_is_none(tmp_path):
    (tmp_path / "numpy.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGILL)\n")
    assert kernels.kernel(os.environ | {"PYTHONPATH": str(tmp_path)}) == ""
