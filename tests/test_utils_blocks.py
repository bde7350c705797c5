"""Moving phases in blocks of frames: the same numbers whatever the machine, and clean ends."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

import oracle
import utils

no_numbers = pytest.mark.same_everywhere("starts processes that keep compiled code, or are stopped")
K, L, M = 83, 5, 23  # no whole number of vectors, an odd number of components


@pytest.fixture
def problem(rng):
    H = rng.random((K, L)).astype(np.float32)
    Y = (rng.standard_normal((K, M)) + 1j * rng.standard_normal((K, M))).astype(np.complex64)
    return Y, H / H.sum(axis=0)


def run(Y, H, n_frames=None):
    return utils.complex_nmf(Y, H, 12, phase_init=utils.random_phases(n_frames=n_frames))


def test_threads_do_not_change_a_bit(problem, monkeypatch):
    results = []
    for cores in ({0}, {0, 1}, {0, 1, 2, 3, 4}):
        monkeypatch.setattr(os, "sched_getaffinity", lambda _, cores=cores: cores)
        results.append(run(*problem, 7))
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("order", ["C", "F"])
def test_a_file_read_by_blocks_gives_what_the_array_gives(problem, tmp_path, order):
    Y, H = problem
    np.save(tmp_path / "spec.npy", np.asarray(Y, order=order))
    mapped = utils.load_spectrogram(tmp_path / "spec.npy")
    assert isinstance(mapped.Y, np.memmap)
    for a, b in zip(run(Y, H), run(mapped, H, 5), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("shape", [(1, 1, 1), (16, 1, 3), (17, 2, 1), (15, 3, 2)])
def test_edges_of_rows_and_vectors(rng, shape):
    K, L, M = shape
    H = rng.random((K, L)) + 0.1
    Y = rng.standard_normal((K, M)) + 1j * rng.standard_normal((K, M))
    P = np.stack([utils._random_phases(0, m, (L, K), Y.dtype) for m in range(M)], axis=-1)
    U = np.repeat(np.abs(Y).sum(axis=0)[None] / H.sum(), L, axis=0)
    U, P = oracle.complex_sweep(Y, H, U, P, utils.sparsity_weight(np.sum(np.abs(Y) ** 2), M, L, 1.2, 1e-5), 1.2)
    got_U, got_P, *_ = utils.complex_nmf(Y, H, 1, phase_init=utils.random_phases())
    np.testing.assert_allclose(got_U, U, rtol=1e-10)
    np.testing.assert_allclose(got_P, P, atol=1e-10)


@pytest.fixture
def long_run(tmp_path, root, rng):
    """Start CNMF.py on so much sound that it will not end by itself; returns the process and its folder."""
    H = rng.random((513, 60)).astype(np.float32)
    np.save(tmp_path / "basis.npy", H)
    np.save(tmp_path / "spec.npy", (rng.standard_normal((513, 3000)) + 0j).astype(np.complex64))
    command = [sys.executable, root / "CNMF.py", "spec.npy", "100000", "basis.npy", "--phase-init", "random"]
    process = subprocess.Popen([*command, "--no-phase"], cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    while process.poll() is None and not list(tmp_path.glob(".part-*/results/reconst.npy")):
        time.sleep(0.05)
    yield process, tmp_path
    process.kill()
    process.wait()
    process.stderr.close()


@no_numbers
@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGKILL, -9)])
def test_a_run_that_is_stopped_leaves_nothing_under_a_final_name(long_run, number, status):
    process, folder = long_run
    process.send_signal(number)
    assert process.wait(timeout=120) == status
    left = {path.name for path in folder.iterdir() if not path.name.startswith(".part-")}
    assert left == {"basis.npy", "spec.npy"}
    if number != signal.SIGKILL:
        assert not list(folder.glob(".part-*"))


@pytest.fixture
def start_code(tmp_path, root):
    """A function that starts Python on some code, beside small.py with a kernel; compiled code is kept in a folder."""
    small = "def kernel(x):\n    for i in range(len(x)):\n        x[i] += x.itemsize\n"
    (tmp_path / "small.py").write_text(f"{small}KERNELS = {{kernel: 'void(float64[::1])'}}\n")
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path / "cache"), "PYTHONPATH": f"{root}:{tmp_path}"}
    options = {"cwd": tmp_path, "env": environment, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    return lambda code: subprocess.Popen([sys.executable, "-c", code], text=True, **options)


ONE_KERNEL = (
    "import numpy as np, small; from piano import blocks; x = np.zeros(1);"
    "f = blocks.compiled(small.kernel, 'void(float64[::1])'); f(x);"
    "print(x[0], sum(f.stats.cache_hits.values()), type(f._cache).__name__, f.stats.cache_path)"
)


@no_numbers
def test_two_first_runs_at_once_leave_a_cache_that_serves_both(tmp_path, start_code):
    code = (
        "import numpy as np, small; from piano import blocks; x = np.zeros(2, '{}');"
        "blocks.compiled(small.kernel, f'void({{x.dtype}}[::1])')(x); print(x)"
    )

    def both():
        processes = [start_code(code.format(dtype)) for dtype in ("float32", "float64")]
        return [process.communicate()[0] for process in processes]

    assert both() == ["[4. 4.]\n", "[8. 8.]\n"]
    assert len(list(tmp_path.rglob("*.nbc"))) == 2  # without a lock both may take the same name
    assert both() == ["[4. 4.]\n", "[8. 8.]\n"]


@no_numbers
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


@no_numbers
def test_damaged_compiled_code_is_made_anew(tmp_path, start_code):
    def result_and_hits():
        return start_code(ONE_KERNEL).communicate()[0].split()[:2]

    assert result_and_hits() == ["8.0", "0"]
    for ending, left in (("nbi", 0), ("nbc", 0.5)):
        (path,) = tmp_path.rglob(f"*.{ending}")
        os.truncate(path, int(left * path.stat().st_size))
        assert result_and_hits() == ["8.0", "0"]
    assert result_and_hits() == ["8.0", "1"]


@no_numbers
def test_no_place_to_keep_compiled_code_is_no_error(tmp_path, root, problem):
    Y, H = problem
    np.savez(tmp_path / "problem.npz", Y=Y, H=H)
    (tmp_path / "piano").mkdir()
    for name in ("utils.py", "piano/__init__.py", "piano/blocks.py", "piano/kernels.py"):
        (tmp_path / name).write_bytes((root / name).read_bytes())
    (tmp_path / "__pycache__").write_text("a file where the folder would be")
    code = (
        "import numpy, utils; f = numpy.load('problem.npz');"
        "numpy.save('U.npy', utils.complex_nmf(f['Y'], f['H'], 12, phase_init=utils.random_phases())[0])"
    )
    nowhere = dict.fromkeys(("HOME", "XDG_CACHE_HOME", "NUMBA_CACHE_DIR"), str(tmp_path / "problem.npz"))
    environment = {**os.environ, **nowhere, "PYTHONDONTWRITEBYTECODE": "1"}
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, check=True)
    np.testing.assert_array_equal(np.load(tmp_path / "U.npy"), run(Y, H)[0])


@no_numbers
def test_compiled_code_is_read_from_a_folder_of_ones_own_alone(start_code):
    def kind_and_folder():
        return start_code(ONE_KERNEL).communicate()[0].split()[2:]

    kind, folder = kind_and_folder()
    assert kind == "FunctionCache"
    for mode, owner, private in ((0o775, 0, True), (0o757, 0, False), (0o755, 1, False)):
        os.chmod(folder, mode)
        if owner and os.geteuid() != 0:
            continue  # only root can give a folder away
        os.chown(folder, owner or -1, -1)
        assert (kind_and_folder()[0] == "FunctionCache") == private
