"""Ctrl-C and its like, and full disks: one line, and earlier results stay or nothing is left."""

import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import CNMF
from helpers import contents, names, python, started, wait_for

pytestmark = pytest.mark.same_everywhere("kills processes")

NEVER = "1000000"  # iterations
MESSAGE = "interrupted; nothing incomplete is left\n"


@pytest.fixture(scope="module")
def files(tmp_path_factory, root):
    folder = tmp_path_factory.mktemp("interrupted")
    rng = np.random.default_rng(1)
    np.save(folder / "basis.npy", rng.random((65, 8)).astype(np.float32))
    np.save(folder / "basis_rotation.npy", (0.9 * np.exp(1j * rng.random((65, 8)))).astype(np.complex64))
    np.save(folder / "spec.npy", rng.standard_normal((2, 65, 2000)).view(np.complex128)[0].astype(np.complex64))
    return folder


TOLD_OF_LOOPS = """
import threading
import utils
from piano import blocks, cli
def told(function):
    def timed(*args, **options):
        timer = threading.Timer(0.5, open, [{begun!r}, "w"])  # only the loop that is meant takes as long
        timer.start()
        try:
            return function(*args, **options)
        finally:
            timer.cancel()
    return timed
def in_threads(function, parts, stop=None, original=blocks.in_threads):
    return original(told(function), parts, stop)
blocks.in_threads, utils.held_sweeps = in_threads, told(utils.held_sweeps)
import {script}
raise SystemExit(cli.run({script}.main))
"""


@pytest.mark.parametrize(
    "command",
    [
        f"NMF.py spec.npy {NEVER} basis.npy",
        f"NMF.py spec.npy {NEVER} basis.npy --loss itakura-saito --adapt 1",
        "CNMF.py spec.npy 200000 basis.npy --no-phase --phase-init random",
        "CNMF.py spec.npy 200000 basis.npy --no-phase --phase-init sinusoidal",
    ],
)
def test_every_loop_heeds_it(files, tmp_path, command):
    script, *arguments = command.split()
    begun, out = tmp_path / "begun", tmp_path / "new" / "out"
    code = TOLD_OF_LOOPS.format(script=script.removesuffix(".py"), begun=str(begun))
    with started("-c", code, *arguments, "-o", out, "--quiet", cwd=files) as process:
        wait_for(lambda: begun.exists() or process.poll() is not None)
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=60)[1] == MESSAGE
        assert process.returncode == 130
        assert names(tmp_path) == ["begun"]


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs /proc")
@pytest.mark.parametrize(("script", "delay"), [("NMF.py", 0), ("CNMF.py", 0.1), ("make_init_H.py", 0)])
def test_imports_end_without_a_traceback(files, root, tmp_path, script, delay):
    arguments = ["spec.npy", NEVER, "basis.npy"] if script != "make_init_H.py" else [str(root / "basis_wav_piano")]
    with started(root / script, *arguments, "-o", tmp_path, "--quiet", cwd=files) as process:
        maps = Path(f"/proc/{process.pid}/maps")
        wait_for(lambda: process.poll() is not None or "numpy" in maps.read_text())  # what a script imports first
        time.sleep(delay)
        process.send_signal(signal.SIGINT)
        message = process.communicate(timeout=60)[1]
    assert (process.returncode, message) in ((-signal.SIGINT, ""), (130, MESSAGE))
    assert names(tmp_path) == []


SWALLOWERS = {
    "SIGINT": "ctypes.CFUNCTYPE(None)(come)()",  # as LLVM does when a kernel is loaded
    "SIGTERM": "type('Swallower', (), {'__del__': lambda self: come()})()",
    "SIGHUP": "try:\n    come()\nexcept BaseException:\n    pass",
}


def run_script(main, before="", cwd=None):
    """Run the lines of a ``main`` as the scripts run theirs; returns its status, and what it said."""
    lines = "".join(f"    {line}\n" for line in main.splitlines())
    start = "import ctypes, os, signal, sys, time\nsignal.signal(signal.SIGHUP, signal.SIG_DFL)\n"  # not as by nohup
    start += f"{before}\nfrom piano import cli\n"
    done = python("-c", f"{start}def main():\n{lines}sys.exit(cli.run(main))", cwd=cwd)
    return done.returncode, done.stdout, done.stderr


def ended_by(name):
    return 128 + getattr(signal, name), "", MESSAGE if name == "SIGINT" else ""


@pytest.mark.parametrize(("name", "swallower"), SWALLOWERS.items(), ids=SWALLOWERS)
def test_it_is_raised_again_where_it_was_swallowed(name, swallower):
    come = f"come = lambda: os.kill(os.getpid(), signal.{name})"
    assert run_script(f"{come}\n{swallower}\ntime.sleep(10)") == ended_by(name)


def test_nothing_cuts_short_what_is_tidied_up():
    """Neither the same signal once more nor a second one."""
    come = "os.kill(os.getpid(), signal.SIGINT)"
    tidy = "for _ in range(5):\n        time.sleep(0.1)\n    os.kill(os.getpid(), signal.SIGTERM)\n    print('tidy')"
    status, _, said = ended_by("SIGINT")
    assert run_script(f"try:\n    {come}\n    time.sleep(10)\nfinally:\n    {tidy}") == (status, "tidy\n", said)


def test_an_import_cannot_swallow_it(tmp_path):
    """Modules that Cython made begin like this."""
    module = "import os, signal\ntry:\n    os.kill(os.getpid(), signal.SIGINT)\nexcept BaseException:\n    pass\n"
    (tmp_path / "swallows.py").write_text(module)
    assert run_script("import swallows\ntime.sleep(60)", cwd=tmp_path) == ended_by("SIGINT")


def test_where_it_is_ignored_it_stays_so():
    """As nohup has it, and a job in the background."""
    ignored = "for it in (signal.SIGINT, signal.SIGHUP): signal.signal(it, signal.SIG_IGN)"
    come = "for it in (signal.SIGINT, signal.SIGHUP): os.kill(os.getpid(), it)"
    assert run_script(come, before=ignored) == (0, "", "")


@pytest.mark.parametrize("streams", ["2>/dev/full", "<&- >&- 2>&-", "2>&1 | true"])
def test_nobody_who_listens_is_no_reason_to_fail(files, root, tmp_path, streams):
    run = f'"{sys.executable}" "{root / "NMF.py"}" spec.npy 3 basis.npy -o "{tmp_path}"'
    subprocess.run(["bash", "-c", f"{run} {streams}; exit ${{PIPESTATUS[0]}}"], cwd=files, check=True, timeout=100)
    assert np.load(tmp_path / "cost.npy").shape == (3,)
    assert (tmp_path / "run.json").exists()


@pytest.fixture(scope="module")
def left(tmp_path_factory):
    """A folder with spec.npy, complex128, basis.npy without a description, and earlier results in out/."""
    folder, rng = tmp_path_factory.mktemp("left"), np.random.default_rng(2)
    np.save(folder / "basis.npy", rng.random((129, 3)))
    np.save(folder / "spec.npy", rng.standard_normal((129, 60)) + 1j * rng.standard_normal((129, 60)))
    inputs = str(folder / "spec.npy"), "2", str(folder / "basis.npy")
    CNMF.main([*inputs, "--sr", "8000", "-o", str(folder / "out"), "--stems", "--phase", "--adapt", "none"])
    return folder


@pytest.mark.parametrize(
    ("script", "arguments", "largest"),
    [
        ("CNMF.py", [], "out/phase_calc.npy"),
        ("NMF.py", ["--stems", "--format", "wav"], None),
        ("NMF.py", [], "out/learning_curve_CNMF.png"),
    ],
)
def test_a_disk_that_fills_up_is_one_line_and_status_1(left, root, tmp_path, monkeypatch, script, arguments, largest):
    monkeypatch.chdir(tmp_path)
    earlier = shutil.copytree(left, tmp_path, dirs_exist_ok=True)
    if largest is None:  # a stem; its header is on the disk, its samples are not
        np.save("spec.npy", np.load("spec.npy")[:, :20].repeat(20, axis=1).astype(np.complex64))
    n_bytes = 4 * 64 * 400 if largest is None else (earlier / largest).stat().st_size
    before = contents(earlier)
    done = python(
        *(root / script, "spec.npy", "3", "basis.npy", "--sr", "8000", "-o", "out", *arguments),
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes // 2, n_bytes // 2)),
    )
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert re.match(rf"{script}: error: .*(File too large|is the disk full\?)", line)
    assert contents(earlier) == before
    assert not list(earlier.glob("out/.*"))
