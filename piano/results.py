"""Where results go: all of them or none, from one run at a time, beside a record of what made them.

A run works in a hidden folder, ``.part-...``, inside the folder that its results are for. When all are complete, what
they replace goes, ``run.json`` first, and then they are moved to their places, ``run.json`` last. So a run that is
killed in that millisecond leaves some results of one run and no ``run.json``, never a mix of two runs. What a killed
run leaves of ``.part-...`` the next one deletes.

Nothing of the user's goes. A run takes the place of a file, or deletes it, only where ``run.json`` lists it and it is
byte for byte as that run left it; anything else is refused, unless the user says ``--overwrite``. An input of the run
never goes. This is looked at before the work, and again before results take their places.
"""

import hashlib
import importlib.metadata
import json
import os
import platform
import re
import secrets
import shutil
import unicodedata
from contextlib import contextmanager, suppress
from pathlib import Path

from piano import blocks
from utils import InputError

VERSION = "1.0.0"
RECORD = "run.json"
STEMS = "stems"  # the only output that is a folder
ROOT = Path(__file__).resolve().parents[1]  # of the suite
NOBODYS = {".DS_Store", "Thumbs.db", "desktop.ini"}  # that looking at a folder leaves in it


@contextmanager
def reserved_folder(path, names=(), *, script=None, inputs=(), overwrite=False):
    """Make a folder for results and keep other runs out of it; tidy up what a run that was killed left there.

    Yields a folder for working copies, which is deleted at the end, and in it one for the results, which take their
    places at the end. Whatever ends the block early, nothing under a final name has been touched.

    ``names`` are what the run of ``script`` is going to write, ``inputs`` the files that it or a run beside it reads,
    which may be missing; ``overwrite`` lets files go that no run left there. Raises :class:`InputError` if ``path``
    cannot be a folder that is written to, another run is at work there, or results would take the place of an input
    or of something of the user's.
    """
    path, made, lock = Path(path), [], None
    part = path / f".part-{secrets.token_hex(8)}"  # named before it is made: a kill in between leaves nothing
    folder = part / "results"
    try:
        try:
            made = [folder for folder in (path, *path.parents) if not folder.exists()]
            path.mkdir(parents=True, exist_ok=True)
            lock = _lock(path)
            if lock is not None:
                for left in path.glob(f".part-{'[0-9a-f]' * 16}"):
                    shutil.rmtree(left)
            places = {_place(file) for file in inputs if os.path.exists(file)}
            _going(path, names, script, places, overwrite)
            folder.mkdir(parents=True)
        except BlockingIOError:
            raise InputError(f"{path}: got a folder that another run is writing to, expected one of its own") from None
        except OSError as error:
            raise InputError(f"{path}: cannot be written to ({error.strerror}), expected an output folder") from None
        yield part, folder
        if names := os.listdir(folder):
            going = _going(path, names, script, places, overwrite)
            try:
                _hand_over(folder, path, going)
            except BaseException:  # a signal must not end it half way
                _hand_over(folder, path, going)
                raise
    finally:
        shutil.rmtree(part, ignore_errors=True)
        for folder in made:  # goes only where it is empty
            with suppress(OSError):
                folder.rmdir()
        if lock is not None:
            os.close(lock)


def _lock(path):
    """A descriptor of the folder ``path`` that one run at a time can have; None where there is no such thing.

    Raises BlockingIOError if another run has it.
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


def _hand_over(folder, path, going):
    """Move the results in ``folder`` to their places in ``path``, once what goes is gone; stopped, it can go on."""
    going.sort(key=lambda name: name == RECORD)
    while going:
        (path / going[-1]).unlink(missing_ok=True)
        with suppress(OSError):  # a folder goes where it is empty now
            (path / going[-1]).parent.rmdir()
        going.pop()
    for entry in sorted(folder.iterdir(), key=lambda entry: (entry.name == RECORD, entry.name)):
        if entry.is_dir():  # what is left there is nobody's
            shutil.rmtree(path / entry.name, ignore_errors=True)
        entry.replace(path / entry.name)


# --- What goes when results come --------------------------------------------------------------------


def _going(path, names, script, places, overwrite):
    """Names of all files that go from ``path`` when ``script`` has written ``names``, relative to it.

    They are replaced; or they are an earlier run's of the same script that this one does not write, and outdated.
    ``places`` are those of the inputs. Raises :class:`InputError` if one is an input; or is not as a run left it,
    unless ``overwrite``; or a folder lies where a file is to go, or the other way about.
    """
    runs = _earlier_runs(path / RECORD)
    left = {name: digest for run in runs for name, digest in run["outputs"].items()}
    if runs:
        left[RECORD] = _digest(path / RECORD)
    going = []
    for name in names:
        target = path / name
        if os.path.lexists(target) and target.is_dir() != (name == STEMS):
            got, expected = ("a folder", "a file") if target.is_dir() else ("a file", "a folder")
            raise InputError(f"{target}: got {got}, expected {expected} to write or to replace")
        for file in _files(target):
            _check_no_input(file, places)
            going.append(file.relative_to(path).as_posix())
            if not overwrite and (going[-1] not in left or _digest(file) != left[going[-1]]):
                raise InputError(
                    f"{file}: got a file that no earlier run left here like this, expected only results to replace "
                    "(move it, choose another -o DIR, or --overwrite)"
                )
    own = next((run["outputs"] for run in runs if run["script"] == script), {})
    outdated = {name.split("/")[0] for name in own} - set(names)
    for file in (file for entry in path.iterdir() if entry.name in outdated for file in _files(entry)):
        name = file.relative_to(path).as_posix()
        if name in own and _digest(file) == own[name]:
            _check_no_input(file, places)
            going.append(name)
    return going


def _files(path):
    """What there is to lose at ``path``: itself, or if it is a folder all files in it; links are not followed."""
    if path.is_dir() and not path.is_symlink():
        return [file for entry in sorted(path.iterdir()) for file in _files(entry)]
    return [path] if os.path.lexists(path) and path.name not in NOBODYS else []


def _check_no_input(file, places):
    if os.path.exists(file) and _place(file) in places:
        raise InputError(f"{file}: got an input where results go, expected it elsewhere (choose another -o DIR)")


def _place(path):
    """Which file ``path`` is, all links resolved; another hard link is another one, as its file stays."""
    status = os.stat(path)
    return status.st_dev, status.st_ino, folded(os.path.realpath(path))


def folded(name):
    """The same for all names that some file system takes for one: those that differ in case or Unicode form only."""
    return unicodedata.normalize("NFC", str(name)).casefold()


def _digest(path):
    """SHA-256 of a file; None of a link, and of what cannot be read: no run leaves such a thing."""
    try:
        return None if path.is_symlink() or not path.is_file() else _sha256(path)
    except OSError:
        return None


# --- The record -------------------------------------------------------------------------------------


def without_folders(words):
    """Words of a command, of absolute paths the last part only: what is written tells of no place."""

    def placeless(word):
        option, equals, value = word.partition("=")
        if option.startswith("-") and equals:  # --score=/home/me/song.csv
            return option + equals + placeless(value)
        return Path(word).name if os.path.isabs(word) else word

    return list(map(placeless, words))


def write_record(folder, script, command, inputs, *, seed, stft, **ending):
    """Write ``run.json``, which says what made the results in ``folder``; the last thing to be written there.

    The same run gives the same bytes: it holds no time and no place. ``command`` are the arguments of ``script``,
    ``inputs`` the files that were read, ``stft`` is that of the basis, and ``ending`` says how the run ended.
    """
    paths = list(_files(folder))
    names = [path.relative_to(folder).as_posix() for path in paths]
    outputs = dict(zip(names, blocks.in_threads(_sha256, paths), strict=True))
    earlier = []
    for run in _earlier_runs(folder.parents[1] / RECORD):
        left = {name: digest for name, digest in run["outputs"].items() if not (folder / name.split("/")[0]).exists()}
        if run["script"] != script and left:
            earlier.append(run | {"outputs": left})
    record = {
        "script": script,
        "version": VERSION,
        "command": [script, *without_folders(command)],
        "seed": seed,
        "inputs": [{"file": Path(path).name, "sha256": _sha256(path)} for path in inputs],
        "stft": stft,
        **ending,
        "libraries": {"python": platform.python_version(), **{name: _version(name) for name in _libraries()}},
        "outputs": outputs,  # from each file's name to its SHA-256
        "earlier": earlier,  # runs of other scripts that some of the files beside these are still from
    }
    (folder / RECORD).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def left_in(folder):
    """Names of the files that runs have left in ``folder``, as its ``run.json`` tells."""
    return {name for run in _earlier_runs(Path(folder) / RECORD) for name in run["outputs"]}


def _earlier_runs(path):
    """What the ``run.json`` at ``path`` tells of itself and of runs before it; nothing if it is not one of ours."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        runs = [record, *record.pop("earlier")]
        for run in runs:
            if not isinstance(run["script"], str) or not all(isinstance(it, str) for it in run["outputs"].values()):
                return []
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return []
    return runs


def _sha256(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def suite():
    """The modules that the scripts run: a dict from relative path to bytes."""
    paths = [ROOT / "utils.py", *sorted((ROOT / "piano").glob("*.py"))]
    return {path.relative_to(ROOT).as_posix(): path.read_bytes() for path in paths}


def _libraries():
    """Names of what ``requirements.txt`` asks for."""
    asked = ROOT / "requirements.txt"
    return re.findall(r"^\w[\w.-]*", asked.read_text(encoding="utf-8"), re.MULTILINE) if asked.exists() else []


def _version(name):
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def check_space(path, parts):
    """Raise :class:`InputError` unless the disk that ``path`` is or will be on has room for all ``parts``.

    ``parts`` has the number of bytes of each thing that will be written, by its name.
    """
    path = Path(path).absolute()
    while not path.exists():
        path = path.parent
    free, n_bytes = shutil.disk_usage(path).free, sum(parts.values())
    if n_bytes > free:
        most = max(parts, key=parts.get)
        raise InputError(
            f"{path}: got {size_in_words(free)} of free space, expected {size_in_words(n_bytes)}, "
            f"of which {size_in_words(parts[most])} are for {most}"
        )


def size_in_words(n_bytes):
    """A number of bytes, in MB or GB."""
    return f"{n_bytes / 1e9:.1f} GB" if n_bytes >= 1e9 else f"{n_bytes / 1e6:.1f} MB"


def results_size(path):
    """Number of bytes of what the last run left in the folder ``path``."""
    names = [RECORD, *json.loads((Path(path) / RECORD).read_text(encoding="utf-8"))["outputs"]]
    return sum((Path(path) / name).stat().st_size for name in names)
