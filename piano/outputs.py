"""Where results go: all of them or none, from one run at a time, beside a record of what made them.

A run works in a hidden folder, ``.part-...``, inside the folder that its results are for. When all are complete, that
part of it which holds them is renamed to ``.done-...``, and from there they take their places one by one; ``run.json``
is taken away first and comes last. A run that is killed in between leaves ``.done-...``, and no ``run.json``; the next
one into this folder ends what it began. ``.part-...`` of a run that is no longer alive is deleted.
"""

import hashlib
import importlib.metadata
import json
import os
import platform
import secrets
import shutil
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np

from utils import InputError

VERSION = "1.0.0"
LIBRARIES = ("numpy", "scipy", "librosa", "numba", "soundfile", "soxr", "matplotlib", "mido", "threadpoolctl")
RECORD = "run.json"
OUTDATED = ".outdated.json"  # names of an earlier run's results that go when these come
HEX = "[0-9a-f]" * 16
# What a run writes or not, as it is told; where it does not, that of the same script's run before it goes.
OPTIONAL = {"phase_calc.npy", "notes.csv", "notes.mid", "spectrogram.png", "stems"}


@contextmanager
def reserved_folder(path):
    """Make a folder for results and keep other runs out of it; tidy up what a run that was killed left there.

    Yields the hidden folder to work in, which is deleted at the end. Whatever ends the block early, nothing under a
    final name has been touched.

    Raises
    ------
    InputError
        If ``path`` cannot be a folder that is written to, or another run is at work there.
    """
    path = Path(path)
    made = [folder for folder in (path, *path.parents) if not folder.exists()]
    part = path / f".part-{secrets.token_hex(8)}"  # named before it is made: a kill in between leaves nothing
    lock = None
    try:
        try:
            path.mkdir(parents=True, exist_ok=True)
            lock = _lock(path)
            if lock is not None:
                _tidy(path)
            part.mkdir()
        except BlockingIOError:
            raise InputError(f"{path}: got a folder that another run is writing to, expected one of its own") from None
        except OSError as error:
            raise InputError(f"{path}: cannot be written to ({error.strerror}), expected an output folder") from None
        yield part
    finally:
        shutil.rmtree(part, ignore_errors=True)
        for folder in made:  # goes only where it is empty
            with suppress(OSError):
                folder.rmdir()
        if lock is not None:
            os.close(lock)


@contextmanager
def output_folder(workspace):
    """Collect results in a folder inside that of :func:`reserved_folder`, and give them their places at the end.

    Yields the folder to write to.

    Raises
    ------
    InputError
        If a folder lies where a file is to go, or the other way about.
    """
    folder = workspace / "results"
    folder.mkdir()
    yield folder
    path = workspace.parent
    for output in sorted(folder.iterdir()):
        target = path / output.name
        if target.exists() and target.is_dir() != output.is_dir():
            got, expected = ("a folder", "a file") if target.is_dir() else ("a file", "a folder")
            raise InputError(f"{target}: got {got}, expected {expected} to write or to replace")
    done = path / workspace.name.replace(".part-", ".done-")
    folder.rename(done)
    try:
        _hand_over(done, path)
    except BaseException:  # half way, a signal must not end it; its files are those of two runs
        _hand_over(done, path)
        raise


def check_handed_over(path):
    """Raise :class:`InputError` where the file ``path`` may not fit those beside it: a run was killed half way."""
    if any(Path(path).parent.glob(f".done-{HEX}")):
        raise InputError(f"{path}: got results that a run half put in place, expected whole ones (make them again)")


def _lock(path):
    """A descriptor of the folder ``path`` that one run at a time can have; None where there is no such thing.

    Raises
    ------
    BlockingIOError
        If another run has it.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        return None
    descriptor = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        if isinstance(error, BlockingIOError):
            raise
        return None  # a file system without locks
    return descriptor


def _tidy(path):
    """End what killed runs began in ``path``, and delete what they did not complete."""
    for done in sorted(path.glob(f".done-{HEX}")):
        _hand_over(done, path)
    for part in path.glob(f".part-{HEX}"):
        shutil.rmtree(part)


def _hand_over(done, path):
    """Move what is in ``done`` to its places in ``path``; may be stopped anywhere and done once more."""
    if not done.exists():
        return
    aside = done / ".aside"  # a folder is never mixed with that of an earlier run
    aside.mkdir(exist_ok=True)
    outputs = sorted((output for output in done.iterdir() if output.name[0] != "."), key=lambda o: o.name == RECORD)
    if (done / RECORD) in outputs:
        (path / RECORD).unlink(missing_ok=True)
        for name in json.loads((done / OUTDATED).read_text()):
            with suppress(FileNotFoundError):
                (path / name).rename(aside / name)
    for output in outputs:
        target = path / output.name
        if target.is_dir():
            target.rename(aside / output.name)
        os.replace(output, target)
    shutil.rmtree(done)


def save_arrays(folder, **arrays):
    """Write each array into ``folder`` as a ``.npy`` file of its name."""
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)


def write_record(folder, script, command, inputs, *, seed, stft, **ending):
    """Write ``run.json``, which says what made the results in ``folder``; the last thing to be written there.

    The same run gives the same bytes: it holds no time, no place, and of absolute paths the last part only.

    Parameters
    ----------
    folder : Path
        See :func:`output_folder`.
    script : str
        Name of the script.
    command : list of str
        Its arguments.
    inputs : list of str or Path
        Files that were read.
    seed : int or None
    stft : dict or None
        ``sr`` in Hz, ``n_fft`` and ``hop`` in samples, where they are known.
    **ending
        How the run ended.
    """
    outputs = sorted(path.name for path in folder.iterdir())
    earlier, outdated = [], set()
    for run in _earlier_runs(folder.parents[1] / RECORD):
        if run["script"] == script:
            outdated |= OPTIONAL & set(run["outputs"]) - set(outputs)
        elif left := [name for name in run["outputs"] if name not in outputs]:
            earlier.append(run | {"outputs": left})
    (folder / OUTDATED).write_text(json.dumps(sorted(outdated)))
    record = {
        "script": script,
        "version": VERSION,
        "command": [script, *(Path(text).name if os.path.isabs(text) else text for text in command)],
        "seed": seed,
        "inputs": [{"file": Path(path).name, "sha256": _sha256(path)} for path in inputs],
        "stft": stft and {key: stft[key] for key in ("sr", "n_fft", "hop")} | {"window": "hann"},
        **ending,
        "libraries": {"python": platform.python_version(), **{name: _version(name) for name in LIBRARIES}},
        "outputs": outputs,
        "earlier": earlier,  # runs of other scripts that some of the files beside these are still from
    }
    (folder / RECORD).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def _earlier_runs(path):
    """What the ``run.json`` at ``path`` tells of itself and of runs before it; nothing if it is not one of ours."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        runs = [record, *record.pop("earlier")]
        for run in runs:
            if not isinstance(run["script"], str) or not all(isinstance(name, str) for name in run["outputs"]):
                return []
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return []
    return runs


def _sha256(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _version(name):
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def check_space(path, n_bytes, way_out):
    """Raise :class:`InputError` unless the disk that ``path`` is or will be on has room for ``n_bytes``."""
    path = Path(path).absolute()
    while not path.exists():
        path = path.parent
    free = shutil.disk_usage(path).free
    if n_bytes > free:
        got, expected = f"{free / 1e9:.1f} GB of free space", f"{n_bytes / 1e9:.1f} GB for the results"
        raise InputError(f"{path}: got {got}, expected {expected} ({way_out})")
