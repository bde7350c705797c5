"""Notes: their names, their fundamentals, and the description that lies beside a basis."""

import json
import math
import operator
import re
from pathlib import Path

import numpy as np

from utils import C3_HZ, C3_MIDI, InputError

NAMES = ("C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B")
SEMITONE = {"C": 0, "D": 2, "E": 4, "F": 5, "G": 7, "A": 9, "B": 11}
ACCIDENTAL = {"": 0, "#": 1, "s": 1, "♯": 1, "b": -1, "♭": -1}
NOTE = re.compile(r"(?<![A-Za-z0-9])([A-Ga-g])([#s♯b♭]?)(-1|\d)(?![A-Za-z0-9])")
MIDI_NUMBER = re.compile(r"^(\d{2,3})(?=[ _.-])|(?<=[ _.-])(\d{2,3})$")
PIANO = range(21, 109)  # A0 to C8
LOWEST_HZ, HIGHEST_HZ = 27.5, 4186.0  # A0 and C8
PITCHED_SHARE = 0.5  # of the frames that a template's pitch is measured on


def note_name(midi):
    """Scientific name of MIDI note ``midi``, sharps only: 60 is C4."""
    return f"{NAMES[midi % 12]}{midi // 12 - 1}"


def midi_of_name(stem):
    """MIDI number that a file name without its suffix carries, or None.

    A note name (``036_C2``, ``C#4``, ``Db3``, ``Cs2``) standing by itself comes first, then a MIDI number of
    the piano's range with a separator (``036_soft``, ``piano-60``). ``pf10`` carries neither.
    """
    if match := NOTE.search(stem):
        letter, accidental, octave = match.groups()
        return 12 * (int(octave) + 1) + SEMITONE[letter.upper()] + ACCIDENTAL[accidental]
    if match := MIDI_NUMBER.search(stem):
        midi = int(match.group(1) or match.group(2))
        return midi if midi in PIANO else None
    return None


def nearest_midi(f0, c3=C3_HZ):
    """MIDI number of the note nearest to ``f0`` Hz."""
    return round(C3_MIDI + 12 * math.log2(f0 / c3))


def measure_f0(y, sr):
    """Fundamental frequency in Hz of a single note, or None where most of it has no pitch.

    The median over the voiced frames of pYIN (M. Mauch and S. Dixon, ICASSP 2014), on the second after the
    loudest sample, or the last one. Less than two periods of A0 have no pitch.

    Parameters
    ----------
    y : np.ndarray [shape=(n,), float]
    sr : int
        Sampling rate in Hz.
    """
    import librosa

    start = max(0, min(int(np.argmax(np.abs(y))), len(y) - sr))
    y = y[start : start + sr]
    window = 2 ** math.ceil(math.log2(2 * sr / LOWEST_HZ))  # two periods; with more, bass notes come out an octave low
    if len(y) < window:
        return None
    f0, voiced, _ = librosa.pyin(y, fmin=LOWEST_HZ, fmax=min(HIGHEST_HZ, 0.45 * sr), sr=sr, frame_length=window)
    return float(np.median(f0[voiced])) if voiced.mean() >= PITCHED_SHARE else None


def load_basis_info(basis, shape):
    """Read the description that make_init_H.py writes beside a basis (``.json`` in place of ``.npy``).

    Parameters
    ----------
    basis : str or Path
        Of the basis.
    shape : tuple
        (K, L) of the basis, which the description must fit.

    Returns
    -------
    dict or None
        ``sr`` in Hz, ``n_fft`` and ``hop`` in samples, ``window``, and ``columns``: for each column its
        ``file``, ``note`` and ``f0`` in Hz. None where there is no such file.

    Raises
    ------
    InputError
        If the file is there but is no description of this basis.
    """
    path = Path(basis).with_suffix(".json")
    if not path.exists():
        return None
    try:
        info = json.loads(path.read_text(encoding="utf-8"))
        sr, n_fft, hop = (operator.index(info[key]) for key in ("sr", "n_fft", "hop"))
        names = [midi_of_name(str(column["note"])) for column in info["columns"]]
        valid = min(sr, n_fft, hop) > 0 and None not in names
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        valid = False
    if not valid:
        raise InputError(f"{path}: got no description of a basis, expected sr, n_fft, hop and columns with notes")
    described = (n_fft // 2 + 1, len(names))
    if described != tuple(shape):
        raise InputError(f"{path}: got a description of a basis of shape {described}, expected {tuple(shape)}")
    return info
