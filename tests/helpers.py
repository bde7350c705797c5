"""What several test files do: run Python, look at what a command left, and save a basis with its description."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import soundfile

ROOT = Path(__file__).resolve().parents[1]
TEMPLATES = {int(path.name[:3]): path for path in sorted((ROOT / "basis_wav_piano").glob("*.wav"))}  # by key
ELSEWHERE = "DISPLAY", "WAYLAND_DISPLAY", "MPLBACKEND"  # variables that a stranger's machine need not have


def environment(**changes):
    """Variables of a process that finds the suite whatever its folder is."""
    inherited = {name: value for name, value in os.environ.items() if name not in ELSEWHERE}
    return inherited | {"PYTHONPATH": str(ROOT)} | {name: str(value) for name, value in changes.items()}


def python(*arguments, cwd=None, preexec_fn=None, **changes):
    """Python on a script or on ``-c`` and code, run to its end; ``changes`` are of its environment."""
    command, own = [sys.executable, *arguments], environment(**changes)
    options = {"capture_output": True, "text": True, "timeout": 300, "check": False}
    return subprocess.run(command, cwd=cwd, env=own, preexec_fn=preexec_fn, **options)


@contextmanager
def started(*arguments, cwd=None, stderr=subprocess.PIPE, **changes):
    """Python on a script or on ``-c`` and code, under way; it is gone at the end, with what it started."""
    command, own = [sys.executable, *arguments], environment(**changes)
    streams = {"stdout": subprocess.PIPE, "stderr": stderr, "text": True}
    with subprocess.Popen(command, cwd=cwd, env=own, start_new_session=True, **streams) as process:
        try:
            yield process
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def wait_for(condition, seconds=300):
    """The first value of ``condition()`` that is true; other people may use this machine, too."""
    end = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < end, f"waited for {seconds} s"
        time.sleep(0.01)
    return value


def contents(folder):
    """Every file below a folder, hidden ones too, with its bytes."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def names(folder):
    """What lies in a folder, in order."""
    return sorted(path.name for path in Path(folder).iterdir())


def record(folder):
    """What ``run.json`` tells of a run."""
    return json.loads((Path(folder) / "run.json").read_text(encoding="utf-8"))


def data_of(path):
    """What a page carries, read as a browser does: up to the next end of a script."""
    text = Path(path).read_text(encoding="utf-8")
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', text).group(1))


def save_basis(path, H, notes, sr=22050, **stft):
    """Save spectra of ``notes``, and beside them the description of a basis."""
    n_fft = 2 * (len(H) - 1)
    columns = [{"file": f"{note}.wav", "note": note, "f0": 261.6} for note in notes]
    told = {"sr": sr, "n_fft": n_fft, "hop": n_fft // 4, "window": "hann", "columns": columns} | stft
    np.save(path, H)
    Path(path).with_suffix(".json").write_text(json.dumps(told))


def copy_basis(folder, other, name="fixed_basis"):
    """Copy a basis, with all that is stored beside it, into another folder."""
    for path in Path(folder).glob(f"{name}*"):
        shutil.copy(path, other)


def with_keys(basis, keys):
    """A basis of which every template has one column, with some of its keys alone."""
    l = [l for l, midi in enumerate(basis.templates) if midi in keys]
    arrays = {"H": basis.H[:, l], "rotation": basis.rotation[:, l], "patterns": basis.patterns[l]}
    return replace(basis, columns=[basis.columns[i] for i in l], **arrays)


def level(error, reference):
    """Level of an error in dB, relative to what it is an error of."""
    return 10 * np.log10(np.sum(np.square(error, dtype=float)) / np.sum(np.square(reference, dtype=float)) + 1e-30)


def chorale(seconds):
    """The first seconds of an example, at 22050 Hz [shape=(n,)]."""
    return soundfile.read(ROOT / "examples" / "chorale" / "matched" / "mixture.flac", frames=round(22050 * seconds))[0]


def frequency(midi):
    """Frequency of a key of a piano in tune, in Hz."""
    return 440 * 2 ** ((np.asarray(midi) - 69) / 12)


def tone(seconds=1.0, f=440.0, sr=22050):
    """A sine [shape=(n,)]."""
    return 0.5 * np.sin(2 * np.pi * f * np.arange(round(seconds * sr)) / sr)


def struck(*keys, seconds=0.7):
    """Keys of the suite's piano, one after another, at 22050 Hz [shape=(n,)]."""
    return np.concatenate([soundfile.read(TEMPLATES[midi], frames=round(22050 * seconds))[0] for midi in keys])
