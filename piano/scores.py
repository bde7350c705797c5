"""The list of notes of a recording: found, or given in its time, or in a time of its own.

A score in a time of its own is matched with a recording by dynamic time warping [1]_ of what is struck.

Both are lists of onsets. Each is turned into features: the keys that were struck of late, and their pitch classes. The
path through both that differs least is found twice: roughly over all of it, then finely in windows along the first.

References
----------
.. [1] Ewert, Müller, Grosche, "High resolution audio synchronization using chroma onset features", ICASSP 2009.
"""

import logging
import math
from typing import NamedTuple

import numpy as np

from piano import events, notes, pitch
from piano.basis import PATTERNS, beside
from piano.recording import sound_at
from utils import InputError

log = logging.getLogger(__name__)

FINE_S = events.HOP / events.SR  # of a frame of the fine path
MOST_CELLS = 10_000_000  # of the rough path's matrix, 200 MB: its frames are longer where both are long
WINDOW_S, MARGIN_S = 10.0, 1.0  # of the fine path, and what it sees before and after it
LEAST_MATCHED = 0.7  # of a score; of the right one .86 and more, of another piece, or a semitone off, .6 at most
ROWS = 132  # eleven octaves, MIDI's 128


class Onsets(NamedTuple):
    """What is struck, (n,) each."""

    time: np.ndarray  # s
    midi: np.ndarray  # int
    strength: np.ndarray  # 0 to 1


class Alignment(NamedTuple):
    """Where a score lies in a recording."""

    score: np.ndarray  # (n,) onsets in the score, s
    recording: np.ndarray  # (n,) the same in the recording, s; nan where it does not reach

    def in_words(self):
        """What is told of it: where it begins, its tempo, and what is missing."""
        inside = np.isfinite(self.recording)
        score, recording = self.score[inside], self.recording[inside]
        tempo = np.ptp(score) / max(np.ptp(recording), FINE_S)
        missing = f"; {np.sum(~inside)} notes lie beyond the recording" if not inside.all() else ""
        begins = f"{score[0]:.2f} s of the score is {recording[0]:.2f} s of the recording"
        return f"{begins}, played at {tempo:.2f} of its tempo{missing}"


def listed_notes(recording, basis, path=None, *, learn=True, progress=None, map=None):
    """Notes of a sound by the event model, or as a list has them that is given.

    ``path`` is that of the list: a table, which is believed, see :func:`notes.believed`; or MIDI, which is matched
    first. ``learn``, ``progress`` and ``map`` are as for :func:`notes.listed`.

    Returns a list of :class:`notes.Note` in order of onset, then of pitch, None where only activations can tell; the
    :class:`Alignment` of MIDI, or None; and the basis with the patterns of this piano. Raises :class:`InputError` if
    the list cannot be read, is none of this recording, or the basis has no patterns to hear it by.
    """
    score, patterns = read_given(path, basis) if path else None, beside(basis.files[0], PATTERNS).name
    if recording.y is None or basis.patterns is None:
        if score is not None:
            raise InputError(f"--score: got no sound with patterns of notes, expected a sound and {patterns}")
        if recording.y is not None and basis.columns:
            log.info(f"notes are listed by activations alone; for a better list make_init_H.py learns {patterns}")
        return None, None, basis
    y, alignment = sound_at(recording, events.SR), None
    if score is not None and notes.is_midi(path):
        score, alignment = align(score, y, basis, map=map)
        log.info(f"{path}: {alignment.in_words()}")
    elif score is not None:
        score = within(score, len(y) / events.SR, path)
    told = score is None and log.isEnabledFor(logging.INFO)  # or the search, which takes its time, is left out
    beyond = notes.played_beyond(y, basis, map=map) if told else []
    found, basis = notes.listed(y, basis, score, learn=learn, progress=progress, map=map)
    if score is not None:
        heard = sum(note.confidence >= events.LISTED for note in found)
        log.info(f"{heard} of the {len(found)} notes of {path} were heard; all are listed")
        return found, alignment, basis
    if beyond:
        log.info(f"{names_of(beyond)}: played, but no key of the basis (make_init_H.py --keys A0 C8 gives it all keys)")
    if not found and recording.Y.energy:
        why = "what is heard is no nearer to this piano's notes than noise is (much noise, clipping, a glitch?)"
        log.info(f"{recording.path}: no notes are listed: {why}")
    return found, None, basis


def names_of(keys):
    """Names of keys, in a sentence."""
    return ", ".join(map(pitch.note_name, keys))


def read_given(path, basis):
    """Notes of a list that the basis has keys for, each once; those beyond are named, and left to the residual."""
    listed = notes.read_score(path)
    score = notes.without_repeats(listed)
    if len(score) < len(listed):
        log.info(f"{path}: {len(listed) - len(score)} notes are listed twice and count once")
    beyond = sorted({note.midi for note in score} - set(basis.notes))
    if beyond:
        log.info(f"{path}: {names_of(beyond)} lie beyond the keys of the basis and are left to the residual")
    kept = [note for note in score if note.midi not in beyond]
    if not kept:
        raise InputError(f"{path}: got no note that the basis has a key for, expected a score of this piano")
    return kept


def within(score, seconds, path):
    """Notes of a list that begin before the recording ends."""
    kept = [note for note in score if note.onset < seconds]
    if not kept:
        raise InputError(f"{path}: got no note before {seconds:.2f} s, where the recording ends")
    if len(kept) < len(score):
        log.info(f"{path}: {len(score) - len(kept)} notes begin after the recording and are left out")
    return kept


def align(score, y, basis, *, map=None):
    """Place the notes of a score, in any tempo, in a recording.

    Returns those that the recording ``y`` [shape=(n,), mono at ``events.SR`` Hz] reaches, in its time, and the
    :class:`Alignment`. The score is in order of onset; the basis has patterns; for ``map`` see
    :func:`events.find_events`. Raises :class:`InputError` if less than ``LEAST_MATCHED`` of the notes is struck where
    they are placed.
    """
    time, midi, strength = events.onsets(y, basis.patterns, basis.templates, map=map)
    heard = Onsets(time, midi.astype(int), strength)
    onsets, keys = np.array([note.onset for note in score]), np.array([note.midi for note in score])
    told = Onsets(onsets, keys, np.ones(len(score)))
    at = place(told, heard)
    if matched(told.time, told, heard) >= 0.97 * matched(at, told, heard):  # it is in the time of the recording
        at = np.where(told.time < len(y) / events.SR, told.time, np.nan)
    share = matched(at, told, heard)
    if share < LEAST_MATCHED:
        raise InputError(
            f"--score: {share:.0%} of its notes were struck, expected a score of this recording{hint(told, heard)}"
        )
    alignment = Alignment(told.time, at)
    inside = np.isfinite(at)
    knots, first = np.unique(told.time[inside], return_index=True)
    places = at[inside][first]
    last = max(note.offset for note in score) + 1
    tempo = np.ptp(places) / np.ptp(knots) if len(knots) > 1 else 1.0
    knots, places = np.append(knots, last), np.append(places, places[-1] + tempo * (last - knots[-1]))
    return [
        note._replace(onset=float(onset), offset=max(float(onset), float(np.interp(note.offset, knots, places))))
        for note, onset in zip(score, at, strict=True)
        if np.isfinite(onset)
    ], alignment


def hint(told, heard):
    """What to say of a score that fits when it is transposed; nothing where it does not."""
    shares = {}
    for semitones in range(-6, 7):
        moved = told._replace(midi=np.clip(told.midi + semitones, 0, 127))
        shares[semitones] = matched(place(moved, heard), moved, heard)
    best, share = max(shares.items(), key=lambda item: item[1])
    if best == 0 or share < LEAST_MATCHED:
        return ""
    return f"; transposed by {best:+d} semitone{'s' * (abs(best) > 1)}, {share:.0%} would be"


def matched(at, told, heard):
    """Share of the notes of a score whose key is struck in the recording where they are placed."""
    inside = np.isfinite(at)
    near = np.abs(nearest(at, told, heard)[inside]) <= 0.064  # s
    return float(near.mean()) if inside.any() else 0.0


def nearest(at, told, heard):
    """How much later than at ``at`` the key of each note is struck, (n,) in s, where it is struck nearest."""
    later, early = np.full(len(at), np.inf), 0.02  # s, by which onsets are seen too early: median over ten pieces
    for key in np.unique(told.midi):
        notes = told.midi == key
        struck = np.concatenate([[-np.inf], np.sort(heard.time[heard.midi == key]) + early, [np.inf]])
        i = np.searchsorted(struck, at[notes]).clip(1, len(struck) - 1)
        before, after = struck[i - 1] - at[notes], struck[i] - at[notes]
        later[notes] = np.where(-before < after, before, after)
    return later


def place(told, heard):
    """Where in the recording the notes of a score lie, (n,) in s; nan for those before or after what was recorded."""
    ends = told.time.max() + MARGIN_S, heard.time.max(initial=0) + MARGIN_S
    frame = max(0.19, math.sqrt(ends[0] * ends[1] / MOST_CELLS))  # s
    rough = path(told, heard, (0, ends[0]), (0, ends[1]), frame, decay=0.3)
    at = np.interp(told.time, *rough)
    window = (told.time // WINDOW_S).astype(int)
    for i in np.unique(window):
        span = np.array([i * WINDOW_S - MARGIN_S, (i + 1) * WINDOW_S + MARGIN_S])
        within = np.interp(span, *rough) + 2 * frame * np.array([-1, 1])
        fine = path(told, heard, span, within, FINE_S, decay=0.15)  # s, fitted to ten pieces played with rubato
        notes = (window == i) & (told.time >= fine[0][0]) & (told.time <= fine[0][-1])
        at[notes] = np.interp(told.time[notes], *fine)
    tempo = np.ptp(rough[1]) / max(np.ptp(rough[0]), frame)
    for i, beyond in ((0, told.time < rough[0][0] - frame), (-1, told.time > rough[0][-1] + frame)):
        at[beyond] = rough[1][i] + tempo * (told.time[beyond] - rough[0][i])
    outside = (at < -frame) | (at > ends[1] + frame)  # what the path left out, and what there was no time for
    later = nearest(at, told, heard)
    chord = np.cumsum(np.diff(told.time, prepend=told.time[0]) > 0.03)  # s
    for notes in (chord == i for i in range(chord[-1] + 1)):  # each is moved to where its keys are struck nearby
        if len(struck := later[notes][np.abs(later[notes]) <= 0.2]):
            at[notes] += np.median(struck)
    at = np.maximum.accumulate(np.maximum(at, 0))
    at[outside] = np.nan
    return at


def path(told, heard, told_span, heard_span, frame, decay):
    """Times in a score and the times in a recording that they are matched with, both ascending.

    Either may begin or end before the other: beside the frames of each there is one that stands for what is missing.
    """
    from librosa.sequence import dtw

    A, B = features(told, *told_span, frame, decay), features(heard, *heard_span, frame, decay)
    _, steps = dtw(C=np.pad(1 - A.T @ B, 1, constant_values=0.4))  # keys that agree cost 0, others 1
    m, n = steps[::-1].T - 1
    inside = (m >= 0) & (m < A.shape[1]) & (n >= 0) & (n < B.shape[1])
    m, n = m[inside], n[inside]
    if not len(m):
        return np.zeros(1), np.zeros(1)
    score, first, count = np.unique(m, return_index=True, return_counts=True)
    recording, group = np.unique((n[first] + n[first + count - 1]) / 2, return_inverse=True)  # the middle of a rest
    score = np.bincount(group, score) / np.bincount(group)
    return told_span[0] + frame * (score + 0.5), heard_span[0] + frame * (recording + 0.5)


def features(onsets, start, stop, frame, decay):
    """Keys and pitch classes that are struck in each frame, dying away, [shape=(ROWS + 12, M)]; norm at most 1."""
    X = np.full((ROWS, max(1, math.ceil((stop - start) / frame))), -np.inf)
    inside = (onsets.time >= start) & (onsets.time < stop)
    m = ((onsets.time[inside] - start) / frame).astype(int).clip(max=X.shape[1] - 1)
    np.maximum.at(X, (onsets.midi[inside], m), np.log(onsets.strength[inside]))
    decayed = np.arange(X.shape[1]) * frame / decay
    X = np.exp(np.maximum.accumulate(X + decayed, axis=1) - decayed)
    both = X, X.reshape(-1, 12, X.shape[1]).sum(axis=0)
    return np.concatenate([part / np.maximum(np.linalg.norm(part, axis=0), 0.1) for part in both]) / math.sqrt(2)
