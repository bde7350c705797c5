"""Which tests run under every kernel of BLAS: all that do not say why not."""

import os
from types import SimpleNamespace

import pytest
from threadpoolctl import threadpool_info

import conftest
import kernels
from helpers import python

pytestmark = pytest.mark.same_everywhere("looks at which tests are run")
NEW = """
import pytest
def test_plain(): pass
@pytest.mark.same_everywhere("because")
def test_marked(): pass
"""


def test_a_new_file_is_run_unless_it_says_why_not(tmp_path, root):
    (tmp_path / "test_new.py").write_text(NEW)
    options = ["--collect-only", "-q", "-n0", "-p", "no:cacheprovider", f"-c{root / 'pyproject.toml'}"]
    done = python("-m", "pytest", *options, *kernels.NUMBERS, tmp_path / "test_new.py", cwd=root)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "test_plain" in done.stdout
    assert "test_marked" not in done.stdout
    marked = SimpleNamespace(nodeid="test_marked", iter_markers=lambda name: [getattr(pytest.mark, name).mark])
    with pytest.raises(pytest.UsageError, match="test_marked: got same_everywhere without a reason, expected one"):
        conftest.pytest_collection_modifyitems([marked])


def test_the_kernel_is_the_one_that_blas_takes_and_none_where_it_cannot_be_run(tmp_path):
    libraries = [library for library in threadpool_info() if library["user_api"] == "blas"]
    of_numpy = {library.get("architecture") for library in libraries if f"{os.sep}scipy" not in library["filepath"]}
    assert kernels.kernel(os.environ) == " ".join(of_numpy)
    (tmp_path / "numpy.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGILL)\n")
    assert kernels.kernel(os.environ | {"PYTHONPATH": str(tmp_path)}) == ""
