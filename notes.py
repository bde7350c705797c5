"""Notes: their names, their fundamentals, the description that lies beside a basis, and the notes in activations."""

import csv
import json
import math
import operator
import re
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np

from outputs import check_handed_over
from utils import C3_HZ, C3_MIDI, InputError

NAMES = ("C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B")
SEMITONE = {"C": 0, "D": 2, "E": 4, "F": 5, "G": 7, "A": 9, "B": 11}
ACCIDENTAL = {"": 0, "#": 1, "s": 1, "♯": 1, "b": -1, "♭": -1}
NOTE = re.compile(r"(?<![A-Za-z0-9])([A-Ga-g])([#s♯b♭]?)(-1|\d)(?![A-Za-z0-9])")
MIDI_NUMBER = re.compile(r"^(\d{2,3})(?=[ _.-])|(?<=[ _.-])(\d{2,3})$")
PIANO = range(21, 109)  # A0 to C8
LOWEST_HZ, HIGHEST_HZ = 27.5, 4186.0  # A0 and C8
HIGHEST_SR = 10**6  # Hz; a file that asks for more would fill the disk
PITCHED_SHARE = 0.5  # of the frames that a template's pitch is measured on
THRESHOLD_DB = -20.0  # relative to the loudest activation; below it, notes that nobody played outnumber soft ones
ATTACK_DB = 6.0  # rise within one STFT window that is a new note: twice the activation; partials beat more slowly
SHORTEST_S = 0.1  # of a note; a hammer's knock, heard through a window of about as long, lasts no longer
MIDI_BEAT_MS = 500  # length of a beat, 120 a minute, and its number of ticks: nothing is known of the metre


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
        If the file is there but is no description of this basis, or a killed run has left only one of the two.
    """
    check_handed_over(basis)
    path = Path(basis).with_suffix(".json")
    if not path.exists():
        return None
    try:
        info = json.loads(path.read_text(encoding="utf-8"))
        sr, n_fft, hop = (operator.index(info[key]) for key in ("sr", "n_fft", "hop"))
        names = [NOTE.fullmatch(column["note"]) for column in info["columns"]]
        audible = all(0 < float(column["f0"]) < math.inf for column in info["columns"])
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


def columns_of_notes(info):
    """Columns of the basis that belong to each note: a dict from MIDI number to a list, in order of pitch."""
    columns = {}
    for l, column in enumerate(info["columns"]):
        columns.setdefault(midi_of_name(column["note"]), []).append(l)
    return dict(sorted(columns.items()))


class Note(NamedTuple):
    """A note that was played; the fields are the columns of ``notes.csv``."""

    note: str  # name
    midi: int
    f0: float  # Hz
    onset: float  # s
    offset: float  # s
    level_db: float  # of the peak, relative to the loudest activation


def sum_states(U, info):
    """Sum the rows of U that belong to one note; returns them and the notes' names, in order of pitch."""
    columns = list(columns_of_notes(info).values())
    return np.stack([U[states].sum(axis=0) for states in columns]), [info["columns"][l]["note"] for l, *_ in columns]


def find_notes(U, info, threshold=THRESHOLD_DB):
    """List the notes that activations tell of: what was played, when, and how loud.

    A note begins where its activation rises by ``ATTACK_DB`` or more within one STFT window, to above the
    threshold; while it sounds, that is the same key struck again. It ends where it falls below the threshold
    or is struck again, and is dropped when it is shorter than ``SHORTEST_S``.

    The onset is the moment at which the activation is halfway up: half of a window centred there hears the
    note. Columns of the basis sum to 1, so an activation is the summed magnitude of the note's spectrum, and
    levels of different notes can be compared.

    Parameters
    ----------
    U : np.ndarray [shape=(L, M), float, >= 0]
        Activations; frame m is centred on ``m * hop / sr`` seconds.
    info : dict
        Description of the basis, see :func:`load_basis_info`; states of one note are summed.
    threshold : float
        In dB relative to the loudest activation, < 0.

    Returns
    -------
    list of Note
        In order of onset, then of pitch; empty for silence.
    """
    U, _ = sum_states(U, info)
    loudest = U.max()
    if loudest == 0:
        return []
    frame = info["hop"] / info["sr"]  # s
    window = math.ceil(info["n_fft"] / info["hop"])  # frames that an attack is spread over
    notes = []
    for (midi, (state, *_)), u in zip(columns_of_notes(info).items(), U, strict=True):
        column = info["columns"][state]
        u = u.astype(np.float64) / loudest
        struck = attacks(u, window, threshold)
        for (_, onset, peak), (foot, offset, _) in pairwise([*struck, (len(u), len(u) - 1, None)]):
            quiet = np.flatnonzero(u[peak + 1 : foot] < 10 ** (threshold / 20))
            if len(quiet):
                foot = offset = peak + 1 + int(quiet[0])
            if (offset - onset) * frame >= SHORTEST_S:
                level = 20 * math.log10(u[peak:foot].max())
                notes.append(Note(column["note"], midi, column["f0"], onset * frame, offset * frame, level))
    return sorted(notes, key=lambda note: (note.onset, note.midi))


def attacks(u, window, threshold=THRESHOLD_DB):
    """Where one note is struck: foot, onset and peak of each attack, in frames; see :func:`find_notes`.

    Parameters
    ----------
    u : np.ndarray [shape=(M,), float, >= 0]
        Activation of the note, relative to that of the loudest.
    window : int
        STFT window in frames.
    threshold : float
        In dB.

    Returns
    -------
    list of (int, float, int)
        The onset is interpolated between frames; each foot comes after the peak before it.
    """
    u = np.concatenate([np.zeros(window), u])  # nothing sounds before the first frame
    level = np.maximum(u, 10 ** ((threshold - ATTACK_DB) / 20))  # so whatever rises enough is above the threshold
    lowest = np.lib.stride_tricks.sliding_window_view(level, window)[:-1].min(axis=1)  # in the window before a frame
    rises = level[window:] >= lowest * 10 ** (ATTACK_DB / 20)
    bounds = np.flatnonzero(np.diff(rises, prepend=False, append=False)) + window
    found, stop = [], 0
    for start, next_stop in bounds.reshape(-1, 2).tolist():  # frames on the rise, one attack
        first = max(start - window, stop)
        stop = next_stop
        foot = first + int(np.argmin(u[first:start]))
        peak = start + int(np.argmax(u[start:stop]))
        half = (u[foot] + u[peak]) / 2
        m = foot + int(np.argmax(u[foot:stop] >= half))
        onset = m - (u[m] - half) / (u[m] - u[m - 1])
        found.append((foot - window, max(0.0, float(onset) - window), peak - window))
    return found


def write_notes_csv(path, notes):
    """Write a list of notes as a table: name, MIDI number, f0 in Hz, onset and offset in s, peak level in dB.

    Parameters
    ----------
    path : str or Path
        Of the CSV file, whose header is that of :class:`Note`'s fields.
    notes : list of Note
        See :func:`find_notes`.
    """
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(Note._fields)
        for note in notes:
            times_and_level = f"{note.onset:.3f}", f"{note.offset:.3f}", f"{note.level_db:.1f}"
            writer.writerow([note.note, note.midi, f"{note.f0:.3f}", *times_and_level])


def write_midi(path, notes):
    """Write a list of notes as a standard MIDI file: one track, piano, ticks of a millisecond.

    The velocity is the one that the SoundFont and DLS standards play at the note's level,
    ``level_db = 40 log10(velocity / 127)``; the loudest note gets 127. The same notes give the same bytes.

    Parameters
    ----------
    path : str or Path
        Of the MIDI file.
    notes : list of Note
        See :func:`find_notes`. A note outside MIDI's range of 0 to 127 is left out.
    """
    import mido

    def tick(seconds):
        return round(1000 * seconds)

    events = []  # at one tick, a note ends before the next begins
    for note in notes:
        if 0 <= note.midi <= 127:
            velocity = min(max(round(127 * 10 ** (note.level_db / 40)), 1), 127)
            events.append((tick(note.offset), 0, "note_off", note.midi, 64))
            events.append((tick(note.onset), 1, "note_on", note.midi, velocity))
    tempo = mido.MetaMessage("set_tempo", tempo=1000 * MIDI_BEAT_MS)
    track = mido.MidiTrack([tempo, mido.Message("program_change", program=0)])
    now = 0
    for time, _, kind, midi, velocity in sorted(events):
        track.append(mido.Message(kind, note=midi, velocity=velocity, time=time - now))
        now = time
    mido.MidiFile(type=0, ticks_per_beat=MIDI_BEAT_MS, tracks=[track]).save(path)
