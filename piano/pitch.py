"""Pitch: names and MIDI numbers of notes, and the fundamental of a recorded note."""

import math
import re

import numpy as np

from utils import C3_HZ, C3_MIDI

NAMES = ("C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B")
SEMITONE = {"C": 0, "D": 2, "E": 4, "F": 5, "G": 7, "A": 9, "B": 11}
ACCIDENTAL = {"": 0, "#": 1, "s": 1, "♯": 1, "b": -1, "♭": -1}
NOTE = re.compile(r"(?<![A-Za-z0-9])([A-Ga-g])([#s♯b♭]?)(-1|\d)(?![A-Za-z0-9])")
MIDI_NUMBER = re.compile(r"^(\d{2,3})(?=[ _.-])|(?<=[ _.-])(\d{2,3})$")
PIANO = range(21, 109)  # A0 to C8
LOWEST_HZ, HIGHEST_HZ = 27.5, 4186.0  # A0 and C8
PITCHED_SHARE = 0.5  # of a template's frames that must be voiced


def note_name(midi):
    """Scientific name of MIDI note ``midi``, sharps only: 60 is C4."""
    return f"{NAMES[midi % 12]}{midi // 12 - 1}"


def midi_of_name(stem):
    """MIDI number in a file name without its suffix, or None.

    A note name (``036_C2``, ``C#4``, ``Db3``, ``Cs2``) that stands by itself comes first, then a MIDI number of
    a piano's key with a separator (``036_soft``, ``piano-60``). ``pf10`` has neither.
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
    """Fundamental frequency in Hz of a single note, or None if most of it has no pitch.

    It is the median over the voiced frames of pYIN (M. Mauch and S. Dixon, ICASSP 2014), in the second after the
    loudest sample, or in the last second. A sound shorter than two periods of A0 has no pitch.

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
