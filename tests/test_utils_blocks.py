"""Compiled code: where it is kept, by whom, and for how long."""

import os

import pytest

from helpers import python, started

pytestmark = pytest.mark.same_everywhere("starts processes that keep compiled code")


@pytest.fixture
def own(tmp_path, root):
    """Of a process beside small.py with a kernel: its folder and variables, one of which says where code is kept."""
    small = "def kernel(x):\n    for i in range(len(x)):\n        x[i] += x.itemsize\n"
    (tmp_path / "small.py").write_text(f"{small}KERNELS = {{kernel: 'void(float64[::1])'}}\n")
    return {"cwd": tmp_path, "NUMBA_CACHE_DIR": tmp_path / "cache", "PYTHONPATH": f"{root}:{tmp_path}"}


def said(code, own):
    """All that Python says on some code."""
    done = python("-c", code, **own)
    return done.stdout + done.stderr


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
for ending, left in (('nbi', 0), ('nbc', 0.5)):
    (path,) = glob.glob(f'{folder}/*.{ending}')
    os.truncate(path, int(left * os.path.getsize(path)))
    again()
again()
for mode, owner in ((0o775, -1), (0o757, -1), (0o755, 1 if os.geteuid() == 0 else -1)):
    os.chmod(folder, mode)
    os.chown(folder, owner, -1)
    again()
"""


def test_two_first_runs_at_once_leave_a_cache_that_serves_both(tmp_path, own):
    first, second = (TWO_NUMBERS.format(dtype) for dtype in ("float32", "float64"))
    for _ in range(2):
        with started("-c", first, **own) as one, started("-c", second, **own) as other:
            assert [one.communicate(), other.communicate()] == [("[4. 4.]\n", ""), ("[8. 8.]\n", "")]
        assert len(list(tmp_path.rglob("*.nbc"))) == 2  # without a lock both may take the same name


def test_what_is_compiled_elsewhere_is_kept_and_ends_with_the_run(tmp_path, own):
    (tmp_path / "slow.py").write_text("import os, time\nopen(f'{os.getpid()}.pid', 'w')\ntime.sleep(600)\n")
    code = (
        "import glob, time, numpy as np, small; from piano import blocks; blocks.available_cores = lambda: 2\n"
        "blocks.compile_elsewhere('small'), blocks.compile_elsewhere('slow')\n"
        "while len(glob.glob('cache/*/*.nb[ic]') + glob.glob('*.pid')) < 3: time.sleep(0.05)\n"
        "print(sum(blocks.compiled(*small.KERNELS.popitem()).stats.cache_hits.values()))"
    )
    assert said(code, own) == "1\n"
    (slow,) = tmp_path.glob("*.pid")
    with pytest.raises(ProcessLookupError):
        os.kill(int(slow.stem), 0)


def test_damaged_compiled_code_is_made_anew_and_only_that_in_a_folder_of_ones_own_is_read(own):
    made, ours, others = (f"8.0 {found}\n" for found in ("0 FunctionCache", "1 FunctionCache", "0 NullCache"))
    last = others if os.geteuid() == 0 else ours  # only root can give a folder away
    assert said(AGAIN, own) == 3 * made + ours + ours + others + last


def test_no_place_to_keep_compiled_code_is_no_error(tmp_path, own):
    (tmp_path / "__pycache__").write_text("a file where the folder would be")
    nowhere = dict.fromkeys(("HOME", "XDG_CACHE_HOME", "NUMBA_CACHE_DIR"), str(tmp_path / "small.py"))
    assert said(TWO_NUMBERS.format("float64"), own | nowhere) == "[8. 8.]\n"
