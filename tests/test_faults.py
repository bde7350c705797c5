"""Killed runs, full disks and two runs at once: earlier results stay, or new ones take their place as a whole."""

import resource
import subprocess
import sys
import time

import numpy as np
import pytest

import CNMF
import NMF
from helpers import contents, python

pytestmark = pytest.mark.same_everywhere("kills processes")

K, L, M = 129, 3, 60


@pytest.fixture
def files(tmp_path, monkeypatch, rng):
    """A current directory with spec.npy, complex128, basis.npy without a description, and earlier results in out/."""
    monkeypatch.chdir(tmp_path)
    np.save("basis.npy", rng.random((K, L)))
    np.save("spec.npy", rng.standard_normal((K, M)) + 1j * rng.standard_normal((K, M)))
    CNMF.main(["spec.npy", "2", "basis.npy", "--sr", "8000", "-o", "out", "--stems", "--phase"])
    return tmp_path


@pytest.mark.parametrize(
    ("script", "arguments", "largest"),
    [
        ("CNMF.py", [], "out/phase_calc.npy"),
        ("CNMF.py", ["--no-phase"], "out/reconst.npy"),
        ("NMF.py", ["--stems", "--format", "wav"], None),
        ("NMF.py", [], "out/learning_curve_CNMF.png"),
    ],
)
def test_a_disk_that_fills_up_is_one_line_and_status_1(files, root, script, arguments, largest):
    if largest is None:  # a stem; its header is on the disk, its samples are not
        np.save("spec.npy", np.load("spec.npy")[:, :20].repeat(20, axis=1).astype(np.complex64))
        n_bytes = 4 * 64 * 400
    else:
        n_bytes = (files / largest).stat().st_size
    before = contents(files)
    done = python(
        *(root / script, "spec.npy", "3", "basis.npy", "--sr", "8000", "-o", "out", *arguments),
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes // 2, n_bytes // 2)),
    )
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"{script}: error: ")
    assert any(words in line for words in ("File too large", "is the disk full?"))
    assert contents(files) == before
    assert not list(files.glob("out/.*"))


def test_two_runs_into_one_folder_do_not_mix(files, root, refused):
    before = contents(files)
    long_run = ["spec.npy", "1000000", "basis.npy", "--phase-init", "random", "-o", "out"]
    with subprocess.Popen([sys.executable, root / "CNMF.py", *long_run], stderr=subprocess.PIPE) as first:
        while first.poll() is None and not list(files.glob("out/.part-*/results")):
            time.sleep(0.02)
        line = refused(NMF, "spec.npy", "3", "basis.npy", "-o", "out")
        assert line == "NMF.py: error: out: got a folder that another run is writing to, expected one of its own"
        assert first.poll() is None
        assert list(files.glob("out/.part-*/results"))
        assert {name: found for name, found in contents(files).items() if "/." not in name} == before
        first.kill()
    NMF.main(["spec.npy", "3", "basis.npy", "-o", "out"])
    assert not list(files.glob("out/.*"))
