"""Basis: the spectra of a piano's notes, and their description, as one value. Reads and writes it."""

import functools
import itertools
import json
import math
import operator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

import utils
from piano import events, files
from piano.pitch import NOTE, midi_of_name
from utils import InputError

HIGHEST_SR = 10**6  # Hz; a file that asks for more would fill the disk
DESCRIPTION, ROTATION, PATTERNS = ".json", "_rotation.npy", "_patterns.npy"  # ends of what lies beside a basis


@dataclass(frozen=True)
class Basis:
    """The spectra of a piano's notes, and the STFT that they were learnt with; None is what is not known."""

    H: np.ndarray  # (K, L) float, >= 0: a spectrum in each column
    sr: int | None = None  # Hz
    n_fft: int | None = None  # samples
    hop: int | None = None  # samples
    columns: list | None = None  # of dict: the ``file``, the ``note`` and ``f0`` in Hz of each column
    rotation: np.ndarray | None = None  # (K, L) complex64: how bins turn in a hop, see phase.measure_rotation
    patterns: np.ndarray | None = None  # (N, T, bands) float16: N struck notes, see events.learn_pattern
    files: tuple = ()  # of Path, that it was read from

    @functools.cached_property
    def notes(self):
        """Columns of each note: a dict from MIDI number to a list, in order of pitch.

        Without a description every column counts as a note, and its number takes the place of the MIDI number.
        """
        if self.columns is None:
            return {l: [l] for l in range(self.H.shape[1])}
        notes = {}
        for l, column in enumerate(self.columns):
            notes.setdefault(midi_of_name(column["note"]), []).append(l)
        return dict(sorted(notes.items()))

    @functools.cached_property
    def note_of(self):
        """Place of each column's note [shape=(L,), int] among ``notes``."""
        note_of = np.empty(self.H.shape[1], int)
        for n, l in enumerate(self.notes.values()):
            note_of[l] = n
        return note_of

    @property
    def templates(self):
        """MIDI number of each template, in the order of the columns; the states of one stand side by side."""
        keys = [(column.get("file"), column["note"]) for column in self.columns]
        return [midi_of_name(note) for (_, note), _ in itertools.groupby(keys)]

    @property
    def stft(self):
        """Parameters of the STFT, as in ``run.json``; None if the sampling rate is not known."""
        return {"sr": self.sr, "n_fft": self.n_fft, "hop": self.hop, "window": "hann"} if self.sr else None


def load(path, sr=None, *, with_rotation=False):
    """Read the :class:`Basis` at ``path``, and what lies beside it; the rotations only if they are wanted.

    ``sr`` is the sampling rate in Hz that the user named, for a basis without a description. Then n_fft follows from
    K, and the hop length from n_fft, see :func:`default_hop`. Raises :class:`InputError` if a file is missing or
    invalid, or the description names another ``sr``.
    """
    files.check_kind(path, "a basis, .npy", files.ARRAY)
    H = utils.load_basis(path)
    info, paths = load_description(path, H.shape), [Path(path)]
    if info is not None:
        if sr not in (None, info["sr"]):
            raise InputError(f"--sr: got {sr} Hz, expected the {info['sr']} Hz that the basis was made for")
        paths.append(beside(path, DESCRIPTION))
    elif sr is not None and sr > HIGHEST_SR:
        raise InputError(f"--sr: got {sr} Hz, expected at most {HIGHEST_SR} Hz")
    else:
        n_fft = 2 * (len(H) - 1)
        info = {"sr": sr, "n_fft": n_fft, "hop": default_hop(n_fft), "columns": None}
    basis = Basis(H, info["sr"], info["n_fft"], info["hop"], info["columns"])
    if with_rotation and (rotation := beside(path, ROTATION)).exists():
        basis = replace(basis, rotation=_load_rotation(rotation, H.shape))
        paths.append(rotation)
    if basis.columns and (patterns := beside(path, PATTERNS)).exists():
        expected = (len(basis.templates), *events.pattern_shape())
        basis = replace(basis, patterns=_load_patterns(patterns, expected))
        paths.append(patterns)
    return replace(basis, files=tuple(paths))


def default_hop(n_fft):
    """Hop length in samples where none is named: a quarter of ``n_fft``, as in librosa."""
    return max(n_fft // 4, 1)


def save(path, basis):
    """Write a basis to ``path``, and beside it its description, rotations and patterns, as far as it has them."""
    arrays = {path: basis.H, beside(path, ROTATION): basis.rotation, beside(path, PATTERNS): basis.patterns}
    for place, array in arrays.items():
        if array is not None:
            utils.save(place, array)
    if basis.columns:
        info = basis.stft | {"columns": basis.columns}
        beside(path, DESCRIPTION).write_text(json.dumps(info, indent=1) + "\n", encoding="utf-8")


def names(path):
    """Names of all the files that :func:`save` writes."""
    return [Path(path).name, *(beside(path, end).name for end in (DESCRIPTION, ROTATION, PATTERNS))]


def beside(path, end):
    """Path of what lies beside a basis: ``fixed_basis_rotation.npy`` for ``fixed_basis.npy`` and ``ROTATION``."""
    return Path(path).parent / (Path(path).stem + end)  # of any path, even of one that names no file


def load_description(path, shape):
    """Description that lies beside a basis of (K, L) ``shape``, as :func:`save` writes it; None if there is none.

    Raises :class:`InputError` if the file does not describe this basis.
    """
    path = beside(path, DESCRIPTION)
    if not path.exists():
        return None
    try:
        info = json.loads(path.read_text(encoding="utf-8"))
        sr, n_fft, hop = (operator.index(info[key]) for key in ("sr", "n_fft", "hop"))
        names = [NOTE.fullmatch(column["note"]) for column in info["columns"]]
        audible = all(column["f0"] > 0 and math.isfinite(column["f0"]) for column in info["columns"])
        valid = min(sr, hop) > 0 and sr <= HIGHEST_SR and hop <= n_fft and None not in names and audible
    except (OSError, ValueError, TypeError, KeyError, OverflowError, RecursionError):
        valid = False
    if not valid:
        raise InputError(
            f"{path}: got no description of a basis, expected sr, n_fft, hop and columns with notes and f0"
        )
    described = (n_fft // 2 + 1, len(names))
    if described != tuple(shape):
        raise InputError(f"{path}: got a description of a basis of shape {described}, expected {tuple(shape)}")
    return info


def _load_rotation(path, shape):
    """Rotations [shape=(K, L), complex64]; raises :class:`InputError` if they are not those of the basis."""
    rotation = np.array(utils.load_spectrogram(path).Y)
    utils.check_complex(rotation, path)
    if rotation.shape != shape:
        raise InputError(f"{path}: got rotations of shape {rotation.shape}, expected {shape}, the basis'")
    if np.abs(rotation).max() > 1 + 1e-6:
        raise InputError(f"{path}: got rotations of up to {np.abs(rotation).max():g}, expected at most 1")
    return rotation.astype(np.complex64)


def _load_patterns(path, expected):
    """Patterns [float16, >= 0]; raises :class:`InputError` if they are not of the ``expected`` shape."""
    patterns = np.array(utils.open_npy(path, ndim=3))
    valid = patterns.dtype == np.float16 and np.isfinite(patterns).all() and (patterns >= 0).all()
    if not valid or patterns.shape != expected:
        raise InputError(
            f"{path}: got {patterns.dtype} values of shape {patterns.shape}, expected patterns of shape {expected}, "
            "finite and >= 0, of this basis' templates"
        )
    return patterns
