"""Compiled code: where it is kept, by whom, and for how long."""

import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.same_everywhere("starts processes that keep compiled code")


@pytest.fixture
def start_code(tmp_path, root):
    """A function that starts Python on some code, beside small.py with a kernel; compiled code is kept in a folder."""
    small = "def kernel(x):\n    for i in range(len(x)):\n        x[i] += x.itemsize\n"
    (tmp_path / "small.py").write_text(f"{small}KERNELS = {{kernel: 'void(float64[::1])'}}\n")
    own = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path / "cache"), "PYTHONPATH": f"{root}:{tmp_path}"}
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}

    def start(code, **environment):
        return subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path, env=own | environment, **streams)

    return start


TWO_NUMBERS = (
    "import numpy as np, small; from piano import blocks; x = np.zeros(2, '{}');"
    "blocks.compiled(small.kernel, f'void({{x.dtype}}[::1])')(x); print(x)"
)
AGAIN = """
import glob, os, numpy as np, small
from piano import blocks
def again():
    blocks.compiled.cache_clear()
    f, x = blocks.compiled(small.kernel, 'void(float64[::1])'), np.zeros(1)
    f(x)
    print(x[0], sum(f.stats.cache_hits.values()), type(f._cache).__name__)
    return f.stats.cache_path
folder = again()
"""
DAMAGE = """
for ending, left in (('nbi', 0), ('nbc', 0.5)):
    (path,) = glob.glob(f'{folder}/*.{ending}')
    os.truncate(path, int(left * os.path.getsize(path)))
    again()
again()
"""
STRANGERS = """
for mode, owner in ((0o775, -1), (0o757, -1), (0o755, 1 if os.geteuid() == 0 else -1)):
    os.chmod(folder, mode)
    os.chown(folder, owner, -1)
    again()
"""


def test_two_first_runs_at_once_leave_a_cache_that_serves_both(tmp_path, start_code):
    def both():
        processes = [start_code(TWO_NUMBERS.format(dtype)) for dtype in ("float32", "float64")]
        return [process.communicate()[0] for process in processes]

    assert both() == ["[4. 4.]\n", "[8. 8.]\n"]
    assert len(list(tmp_path.rglob("*.nbc"))) == 2  # without a lock both may take the same name
    assert both() == ["[4. 4.]\n", "[8. 8.]\n"]


def test_what_is_compiled_elsewhere_is_kept_and_ends_with_the_run(tmp_path, start_code):
    (tmp_path / "slow.py").write_text("import os, time\nopen(f'{os.getpid()}.pid', 'w')\ntime.sleep(600)\n")
    code = (
        "import glob, time, numpy as np, small; from piano import blocks; blocks.available_cores = lambda: 2\n"
        "blocks.compile_elsewhere('small'), blocks.compile_elsewhere('slow')\n"
        "while len(glob.glob('cache/*/*.nb[ic]') + glob.glob('*.pid')) < 3: time.sleep(0.05)\n"
        "print(sum(blocks.compiled(*small.KERNELS.popitem()).stats.cache_hits.values()))"
    )
    process = start_code(code)
    assert (process.communicate()[0], process.returncode) == ("1\n", 0)
    (slow,) = tmp_path.glob("*.pid")
    with pytest.raises(ProcessLookupError):
        os.kill(int(slow.stem), 0)


def test_damaged_compiled_code_is_made_anew(start_code):
    made, read = "8.0 0 FunctionCache\n", "8.0 1 FunctionCache\n"
    assert start_code(AGAIN + DAMAGE).communicate()[0] == 3 * made + read


def test_no_place_to_keep_compiled_code_is_no_error(tmp_path, start_code):
    (tmp_path / "__pycache__").write_text("a file where the folder would be")
    nowhere = dict.fromkeys(("HOME", "XDG_CACHE_HOME", "NUMBA_CACHE_DIR"), str(tmp_path / "small.py"))
    assert start_code(TWO_NUMBERS.format("float64"), **nowhere).communicate()[0] == "[8. 8.]\n"


def test_compiled_code_is_read_from_a_folder_of_ones_own_alone(start_code):
    made, ours, others = (f"8.0 {found}\n" for found in ("0 FunctionCache", "1 FunctionCache", "0 NullCache"))
    last = others if os.geteuid() == 0 else ours  # only root can give a folder away
    assert start_code(AGAIN + STRANGERS).communicate()[0] == made + ours + others + last
