"""Pitch: names and MIDI numbers of notes, the fundamental of a single note, and the notes of a folder of them.

A stiff string has partials ``f_n = n F sqrt(1 + B n^2)`` [1]_. B follows the key on every piano within a factor of a
few [2]_, so a note is found by comparing combs (f_1, B) with the lines of its spectrum.

References
----------
.. [1] H. Fletcher, "Normal vibration frequencies of a stiff piano string", JASA 36(1), 1964.
.. [2] F. Rigaud, B. David and L. Daudet, "A parametric model and estimation techniques for the inharmonicity and
       tuning of the piano", JASA 133(5), 2013.
"""

import functools
import itertools
import math
import re

import numpy as np

from piano import blocks
from utils import C3_HZ, C3_MIDI, InputError, note_frequency

NAMES = ("C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B")
ACCIDENTALS = {"": 0, "#": 1, "s": 1, "♯": 1, "b": -1, "♭": -1}  # semitones, as names of files have them
NOTE = re.compile(r"(?<![A-Za-z0-9])([A-Ga-g])([#s♯b♭]?)(-1|\d)(?![A-Za-uw-z0-9]|v(?!\d))")  # C4v10: velocity 10
PIANO = range(21, 109)  # MIDI numbers, A0 to C8

# What follows was set by hand; tests/test_pitch.py has the notes that must get their names.
# The lines of a spectrum. Cells are 1 Hz wide up to the knee and a constant ratio above it, as are errors of a comb.
LOWEST_HZ, KNEE_HZ, HIGHEST_HZ = 20.0, 400.0, 16000.0
CELL = 1 / KNEE_HZ  # of the natural logarithm, 4.3 cents
WINDOWS = ((0.0, 1.0), (500.0, 0.5), (2000.0, 0.2))  # from Hz, s: high notes die away soonest
LOG_B = np.linspace(-2.5, 1.7, 19)  # ln of B over Rigaud's mean
FIRST_PARTIALS = 32  # of a comb in the grid, and of those that its f_1 is fitted to
FEW = 5  # files, enough to be held against the numbers in their names, and too few to speak for one another


# --- Names ------------------------------------------------------------------------------------------


def note_name(midi):
    """Scientific name of MIDI note ``midi``, sharps only: 60 is C4."""
    return f"{NAMES[midi % 12]}{midi // 12 - 1}"


def _midi(letter, altered, octave):
    return 12 * (int(octave) + 1) + NAMES.index(letter.upper()) + altered


def note_names_in(stem):
    """MIDI numbers of the note names in a file name, those that stand by themselves or before a velocity."""
    return [_midi(letter, ACCIDENTALS[accidental], octave) for letter, accidental, octave in NOTE.findall(stem)]


def midi_of_name(stem):
    """MIDI number in a file name without its suffix, or None.

    A note name (``036_C2``, ``C#4``, ``Db3``, ``Cs2``, ``C4v10``) comes first, then a MIDI number of the piano's range
    with separators (``036_soft``, ``piano-60``, ``piano_060_ff``). ``pf10`` carries neither. Whether a number is meant
    as one, only a folder can tell; see :func:`notes_of_folder`.
    """
    numbers = re.finditer(r"^(\d{2,3})(?=[ _.-])|(?<=[ _.-])(\d{2,3})(?=[ _.-]|$)", stem)
    found = [*note_names_in(stem), *(midi for match in numbers if (midi := int(match.group())) in PIANO)]
    return found[0] if found else None


def midi_as_written(name, german=False):
    """MIDI number of the name of one note as people write it: C4, F#3, Cb4, Des4, H3; None for anything else.

    In German, H is what is B in English, and B is a semitone lower: with ``german`` B alone says neither. As and Es
    are flats in German and sharps in names of files, so they say nothing either.
    """
    match = re.fullmatch(r"([A-H])(##|x|#|♯|isis|is|s|bb|eses|b|♭|es|)(-1|\d)", name, re.IGNORECASE)
    if not match:
        return None
    letter, accidental, octave = match[1].upper(), match[2].lower(), match[3]
    if (german and letter == "B" and not accidental) or (accidental == "s" and letter in "AEH"):
        return None
    altered = ACCIDENTALS | {"##": 2, "x": 2, "isis": 2, "is": 1, "bb": -2, "eses": -2, "es": -1}
    return _midi("B" if letter == "H" else letter, altered[accidental], octave)


def stretch(midi):
    """Semitones by which a piano's tuning departs from equal temperament at key ``midi``.

    Tuners follow the partials: the first one is flat in the lowest octave and sharp in the highest (Railsback's curve).
    Real pianos measure +10 to +25 cents at C7 and +50 to +100 at C8. This is the near side of that, so that sounds
    in strict equal temperament keep their names too.
    """
    midi = np.asarray(midi, float)
    return 0.4 * np.exp((midi - 108) / 7) - 0.15 * np.exp((21 - midi) / 7)


def nearest_key(pitch):
    """MIDI number of the key of a piano that ``pitch``, in semitones of equal temperament, is nearest to."""
    keys = np.array(PIANO)
    return int(keys[np.argmin(np.abs(pitch - keys - stretch(keys)))])


def semitones(f0, c3=C3_HZ):
    """MIDI number of ``f0`` Hz in equal temperament, with its fraction."""
    return C3_MIDI + 12 * math.log2(f0 / c3)


# --- The fundamental of one note --------------------------------------------------------------------


def measure_f0(y, sr):
    """Frequency in Hz of the first partial of a single note of the piano, or None where there is no note.

    Of all combs ``f_n = n F sqrt(1 + B n^2)`` the most likely one. A comb's log-likelihood is the evidence at each of
    its partials, up to where the note ends, plus the prior of its B. A partial is worth up to five nats where a
    sharp strong line is found, and takes as many as 2.5 where there is none. So an octave too low pays for the partials
    between, an octave too high goes without them, and a weak or missing fundamental costs little. What is
    returned is ``f_1`` of a fit to the lines found.

    ``y`` [shape=(n,)] may have any level, and lasts at least two periods of A0; up to one second from the attack on is
    looked at. Notes above Nyquist are not found.
    """
    y = np.asarray(y, dtype=np.float64)
    if len(y) < 2 / 27.5 * sr or not y.any():
        return None
    spectra = note_spectra(y / np.abs(y).max(), sr)
    evidence = partial_evidence(*cell_lines(spectra, sr))
    likelihood, f1, log_b = max(refined(evidence, *comb) for comb in likely_combs(evidence))
    return fitted(spectra, evidence, f1, log_b) if likelihood >= 3 else None  # noise has 1.5, one sure line over 4


def note_spectra(y, sr):
    """Magnitude spectra of the beginning of a note through each of ``WINDOWS``; a list of (magnitudes, Hz per bin)."""
    import scipy.fft

    hop = max(1, round(0.01 * sr))
    energy = (y[: len(y) // hop * hop].reshape(-1, hop) ** 2).mean(axis=1)
    start = min(int(np.argmax(energy > 0.1 * energy.max())) * hop, max(0, len(y) - int(0.3 * sr)))
    y = y[start:] - y.mean()
    spectra = []
    for _, seconds in WINDOWS:
        x = y[: int(seconds * sr)]
        window = np.hanning(len(x) + 2)[1:-1]
        n_fft = scipy.fft.next_fast_len(int(max(4 * seconds, 2) * sr), real=True)
        spectra.append((np.abs(scipy.fft.rfft(x * window, n_fft)) / window.sum(), sr / n_fft))
    return spectra


@functools.cache
def cell_edges(nyquist):
    """Edges of the cells in Hz, up to ``nyquist``."""
    top = min(0.98 * nyquist, HIGHEST_HZ)
    n_above = math.ceil(math.log(top / KNEE_HZ) / CELL)
    return np.concatenate([np.arange(LOWEST_HZ, KNEE_HZ), KNEE_HZ * np.exp(CELL * np.arange(n_above + 1))])


def cell_of(f):
    """Number of the cell that holds ``f`` Hz."""
    above = np.log(np.maximum(f, KNEE_HZ) / KNEE_HZ) / CELL
    return (np.minimum(f, KNEE_HZ) - LOWEST_HZ + above).astype(np.int32)


def cell_lines(spectra, sr):
    """Level in dB of the largest bin in each cell, and its height in dB above the neighbours, both of shape (C,).

    Each cell is seen through the window of its frequency, and so are the neighbours that it is compared with.
    """
    from scipy.ndimage import percentile_filter

    edges, neighbours = cell_edges(sr / 2), 41  # cells, less than two partials of A0, of which the lower third counts
    lines = np.zeros((2, len(edges) - 1))
    for (low, _), (magnitude, width) in zip(WINDOWS, spectra, strict=True):
        first = max(0, np.searchsorted(edges, low) - neighbours // 2)
        bins = np.ceil(edges[first:] / width).astype(int)
        level = 20 * np.log10(np.maximum(np.maximum.reduceat(magnitude[: bins[-1]], bins[:-1]), 1e-12))
        level = np.maximum(level, level.max() - 80)
        height = level - percentile_filter(level, 30, neighbours, mode="nearest")
        inside = edges[first:-1] >= low
        lines[:, first:][:, inside] = level[inside], height[inside]
    return lines


def partial_evidence(level, height):
    """Evidence in nats that a partial lies in a cell, shape (C + 1,); the last one, beyond what is known, is zero.

    It grows with the height of a line above its neighbours, which takes noise and knocks away, and with its
    level among the strongest sharp lines, which takes away what rings along.
    """
    line_dB, sharp_dB = 9.0, 22.0  # above the neighbours: what noise reaches, and what no mode of wood and felt does
    most, least = 5.0, -2.5  # nats: a partial found for sure; one that is missing, as some are on every piano
    edges = cell_edges(HIGHEST_HZ / 0.98)[: len(level) + 1]
    centres = (edges[:-1] + edges[1:]) / 2
    sharp = level - np.maximum(sharp_dB - height, 0)
    tilt = 3 * np.log2(centres)  # dB an octave, of the levels that count as equally strong
    below = np.maximum.accumulate(sharp + tilt) - tilt
    above = np.maximum.accumulate((sharp - tilt)[::-1])[::-1] + tilt
    strength = sharp - np.maximum(below, above)  # dB, 0 for the strongest lines
    faint = least + (-0.5 - least) * np.clip((height - line_dB) / (sharp_dB - line_dB), 0, 1)  # of a sharp, faint line
    nats = np.minimum(height - line_dB, strength + 18) / 4  # dB, 4 a nat; what is 18 dB softer rings along
    nats = np.clip(nats, faint, most)
    padded = np.pad(nats, 1, constant_values=least)
    nats = np.maximum(nats, np.maximum(padded[:-2], padded[2:]) - 0.6)  # a line in the next cell is worth less
    nats -= 0.1  # what a partial costs: of two combs that explain the same, the one with fewer
    end = np.searchsorted(centres, max(2000, 10 * centres[np.argmax(sharp)]))  # Hz, where a comb ends
    return np.append(np.where(np.arange(len(nats)) < end, nats, 0), 0).astype(np.float32)


def inharmonicity(f1, log_b):
    """B of a string of ``f1`` Hz: Rigaud's mean over pianos times ``e^log_b``."""
    midi = 69 + 12 * np.log2(f1 / 440)
    return (np.exp(0.0926 * midi - 13.64) + np.exp(-0.0847 * midi - 5.82)) * np.exp(log_b)


def partial(n, f1, log_b):
    """Frequency in Hz of partial ``n`` of a string whose first one is ``f1``."""
    B = inharmonicity(f1, log_b)
    return n * f1 * np.sqrt((1 + B * n**2) / (1 + B))


@functools.cache
def comb_grid():
    """First partials (F,) in Hz, and the cells of all partials, shape (FIRST_PARTIALS, B, F), of combs of the piano."""
    f1 = 27.5 * 2 ** (np.arange(-70, 8800 + 115, 4) / 1200)  # from A0: C8 is tuned up to a semitone sharp
    cells = [cell_of(partial(n, f1, LOG_B[:, None])) for n in range(1, FIRST_PARTIALS + 1)]
    return f1, np.array(cells)


def log_likelihood(evidence, cells, log_b):
    """That of combs whose partials lie in ``cells``, shape (n, B, F): the best of all numbers of partials."""
    total = np.zeros(cells.shape[1:], np.float32)
    best = np.full(cells.shape[1:], -np.inf, np.float32)
    near = int(cell_of(500))  # Hz; a string sounds up to there at least, so no comb ends below
    for of_partial, of_next in itertools.pairwise([*cells, np.array(len(evidence))]):
        total += evidence.take(of_partial, mode="clip")
        np.maximum(best, total, out=best, where=of_next > near)
    return best - 0.5 * log_b**2


def likely_combs(evidence):
    """The ten most likely combs of the grid that are no neighbours, as pairs of f_1 and log_b."""
    f1, cells = comb_grid()
    likelihood = log_likelihood(evidence, cells, LOG_B[:, None])
    best = likelihood.max(axis=0)
    found = []
    for _ in range(10):
        i = int(np.argmax(best))
        found.append((f1[i], LOG_B[np.argmax(likelihood[:, i])]))
        best[max(0, i - 12) : i + 13] = -np.inf  # 48 cents either way
    return found


def refined(evidence, f1, log_b):
    """Log-likelihood, f_1 and log_b of the best comb near this one, all its partials counted."""
    n = np.arange(1, 2 * FIRST_PARTIALS + 1)[:, None, None]
    for cents, step in ((3, 0.12), (1, 0.04)):
        f1 = f1 * 2 ** (np.arange(-2, 3) * cents / 1200)
        log_b = log_b + np.arange(-3, 4)[:, None] * step
        likelihood = log_likelihood(evidence, cell_of(partial(n, f1, log_b)), log_b)
        j, i = np.unravel_index(np.argmax(likelihood), likelihood.shape)
        f1, log_b = f1[i], log_b[j, 0]
    return float(likelihood[j, i]), float(f1), float(log_b)


def fitted(spectra, evidence, f1, log_b):
    """First partial in Hz of the string that fits the lines of a comb best.

    ``(f_n / n)^2 = F^2 + F^2 B n^2`` is a line in n^2; errors of f_n are alike, so its points weigh n^2. With fewer
    than three lines, or a fit that leaves the comb, the lowest line and the comb's B decide.
    """
    n = np.arange(1, FIRST_PARTIALS + 1)
    expected = partial(n, f1, log_b)
    n = n[evidence.take(cell_of(expected), mode="clip") > 0]
    if not len(n):
        return f1
    lines = np.array([line_near(spectra, f) for f in partial(n, f1, log_b)])
    lowest = f1 * lines[0] / partial(n[0], f1, log_b)
    if len(n) < 3:
        return float(lowest)
    slope, offset = np.polyfit(n**2.0, (lines / n) ** 2, 1, w=n.astype(float))
    fit = math.sqrt(max(slope + offset, 0))
    return fit if abs(fit / f1 - 1) < 2 * CELL and slope >= 0 else float(lowest)


def line_near(spectra, f):
    """Frequency in Hz of the largest bin within a cell and a half of ``f``, to a fraction by a parabola in dB."""
    magnitude, width = spectra[np.searchsorted([low for low, _ in WINDOWS], f, side="right") - 1]
    reach = 1.5 * max(1.0, CELL * f)
    low, high = max(1, math.ceil((f - reach) / width)), min(len(magnitude) - 2, int((f + reach) / width))
    if low >= high:
        return f
    k = low + int(np.argmax(magnitude[low : high + 1]))
    a, b, c = np.log(np.maximum(magnitude[k - 1 : k + 2], 1e-30))
    return (k + (parabola_peak(a, b, c) if b >= max(a, c) else 0)) * width


def parabola_peak(before, at, after):
    """Where the parabola through three values one step apart is largest, in steps from the middle one, -1 to 1."""
    bend = np.minimum(before - 2 * at + after, -np.finfo(np.float64).tiny)
    return np.clip(0.5 * (before - after), bend, -bend) / bend  # clipped first: nothing overflows


# --- The notes of a folder --------------------------------------------------------------------------


def notes_of_folder(paths, load, sr, c3=C3_HZ):
    """Key and fundamental of every single-note recording in a folder.

    One rule holds for all files whose names carry no note name, so that a scale is never half read and half heard:

    1. A note name (``A#3_mf_2``) is that file's note. A note name that all files share says nothing, unless they
       sound like it.
    2. A number that stands in the same place of every other name, lies within the piano's range in all of them and
       is what a few of them sound like, is a MIDI number: ``piano_060_ff``, but not ``note_21`` ... ``note_88``
       of a scale from A0.
    3. Otherwise all of them are measured, and what stands out of even steps is put right, see :func:`in_steps`.

    The paths come in any order, and several may be of one key. ``load`` gives the samples of a path, mono, at ``sr``
    Hz, and is called for files that are listened to only; C3 has ``c3`` Hz. Returns a list of MIDI number and
    fundamental in Hz, measured or that of the name, in the order of the paths. Raises :class:`InputError` if a file has
    no pitch and neither its name nor its neighbours tell.
    """
    hear = functools.cache(functools.partial(fundamental, load=load, sr=sr))
    named = midis_by_name(paths, hear, c3)
    others = [path for path in paths if path not in named]
    midis = named | midis_by_number(others, hear, c3)
    notes = {path: (midi, note_frequency(midi, c3)) for path, midi in midis.items()}
    if len(notes) < len(set(paths)):
        notes |= notes_by_ear(others, hear, c3)
    return [notes[path] for path in paths]


def fundamental(path, load, sr):
    """Fundamental in Hz of the note in a file, None where it has no pitch."""
    y = load(path)
    if not y.any():
        raise InputError(f"{path}: got silence, expected one note")
    return measure_f0(y, sr)


def midis_by_name(paths, hear, c3):
    """MIDI number of each path whose name carries a note name: the first that differs from file to file, if any."""
    found = {path: midis for path in paths if (midis := note_names_in(path.stem))}
    columns = list(zip(*found.values(), strict=False))  # of the first, second ... name in each
    varied = [i for i, column in enumerate(columns) if len(set(column)) > 1]
    midis = {path: midis[varied[0] if varied else 0] for path, midis in found.items()}
    shared = len(midis) > 1 and not varied
    return {} if shared and contradicted(midis, hear, c3) else midis


def midis_by_number(paths, hear, c3):
    """MIDI number of each path, or an empty dict where no number of their names is one."""
    numbers = [[int(digits) for digits in re.findall(r"\d+", path.stem)] for path in paths]
    for column in zip(*numbers, strict=False):
        midis = dict(zip(paths, column, strict=True))
        in_range = all(midi in PIANO for midi in column)
        if in_range and (len(paths) == 1 or len(set(column)) > 1) and not contradicted(midis, hear, c3):
            return midis
    return {}


def contradicted(midis, hear, c3):
    """Whether most of a few files sound like other notes than they should, by more than a semitone.

    Of what has no pitch, only names that carry a number by itself are believed.
    """
    paths = list(midis)
    few = [paths[i] for i in blocks.spread(len(paths), FEW)]
    heard = {path: f0 for path in few if (f0 := hear(path)) is not None}
    if not heard:
        return any(midi_of_name(path.stem) is None for path in few)
    return sum(abs(semitones(f0, c3) - midis[path]) > 1.5 for path, f0 in heard.items()) * 2 > len(heard)


def notes_by_ear(paths, hear, c3):
    """MIDI number and measured fundamental of each path, put right by the others where they are in even steps."""
    paths = sorted(paths, key=natural_order)
    heard = [hear(path) for path in paths]
    pitches = [math.nan if f0 is None else semitones(f0, c3) for f0 in heard]
    notes = {}
    for path, f0, midi in zip(paths, heard, in_steps(common_tuning(pitches)), strict=True):
        if midi is None:
            raise InputError(f"{path}: got a sound without a pitch and a name without a note, expected one note")
        close = f0 is not None and abs(semitones(f0, c3) - midi) < 1.5
        notes[path] = midi, f0 if close else note_frequency(midi, c3)
    return notes


def natural_order(path):
    """Sorting key under which ``note2`` comes before ``note10``."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", path.stem)], path.name


def common_tuning(pitches):
    """Pitches in semitones, NaN where unknown, less what all of a folder are out of tune by: up to half a semitone."""
    pitches = np.array(pitches, float)
    known = pitches[np.isfinite(pitches)]
    if len(known) < FEW:
        return pitches
    away = known - stretch(known)
    mean = np.angle(np.exp(2j * np.pi * away).sum()) / (2 * np.pi)  # around a circle: +50 cents are -50
    return pitches - np.median((away - mean + 0.5) % 1 - 0.5) - mean


def in_steps(pitches):
    """Keys of files in natural order, None where unknown, those that stand out put right.

    If nearly all lie on ``a + b i``, with i counting files or groups of as many velocity layers, a file that has no
    pitch there, is between two keys, or is off by more than two semitones (as errors of measuring are) gets its key
    from the others. Neighbours that are off by the same are no error but a jump, and nothing is forced where
    the steps are uneven.
    """
    known = np.isfinite(pitches)
    midis = np.zeros(len(pitches), int)
    midis[known] = [nearest_key(pitch) for pitch in pitches[known]]
    line = even_steps(midis, known) if len(pitches) > FEW else None
    if line is None:
        return [int(midi) if heard else None for midi, heard in zip(midis, known, strict=True)]
    off = np.where(known, midis - line, 0)
    padded = np.pad(off, 1)
    jump = (off != 0) & ((off == padded[:-2]) | (off == padded[2:]))
    doubtful = ~known | (np.abs(pitches - stretch(line) - line) < 0.75) | (np.abs(off) > 2)
    return [int(midi) for midi in np.where(doubtful & ~jump, line, midis)]


def even_steps(midis, known):
    """Keys ``a + b (i // layers)`` that over 80 % of the files have, or None. Shape of ``midis``.

    There are up to 16 layers, and steps of up to an octave.
    """
    best, most = None, 0.8 * len(midis)
    for layers in range(1, 17):
        i = np.arange(len(midis)) // layers
        for b in range(-12, 13):
            values, counts = np.unique((midis - b * i)[known], return_counts=True)
            if b and len(counts) and counts.max() > most:
                line = values[np.argmax(counts)] + b * i
                if line.min() in PIANO and line.max() in PIANO:
                    best, most = line, counts.max()
    return best
