"""The notes of a piano recording: NMF whose components are whole struck notes [2]_.

    S(m, k) = B(m) w(k) + sum_e c_e(t) P_l(e)(t, k),   t = m - m0_e

k = frequency bin (K), m = frame (M), l = pattern (L), t = frame of a pattern (T), e = event, a note that is struck (E).
V (M, K) are the features of the recording. P (L, T, K) are spectrotemporal templates, here called patterns: the
features of one note from shortly before its onset on. B is a free background. The fit minimises the Kullback-Leibler
divergence of V from S under one condition: c_e never grows, as no string grows louder unless it is struck. The M-step
under that condition is an isotonic regression [1]_.

All sounds are mono and sampled at ``SR``. A long recording is cut into segments that overlap; whatever holds for the
whole recording (how its piano differs from the templates, how loud it is) is added up over segments in order.

References
----------
.. [1] Barlow, Bartholomew, Bremner, Brunk, "Statistical Inference under Order Restrictions", Wiley, 1972.
.. [2] Ewert, Sandler, "Piano transcription in the studio using an extensible alternating directions framework",
   IEEE/ACM TASLP 24 (11), 2016.
"""

import functools
import itertools
import math
from itertools import pairwise
from typing import NamedTuple

import numpy as np

import utils
from piano import blocks, pitch

# Set by hand on the ten pieces of benchmarks/README.md, where no other reason stands beside it.
SR = 16000  # Hz, of every sound here: what a piano has above 8 kHz tells no notes apart
N_FFT, HOP = 4096, 256  # samples: a quarter of a second tells bass notes apart; a frame is 16 ms
SHORT = 1024  # samples of a second window, which sees strikes and dampers sharply; tells keys apart in the treble only
POWER = 0.8  # of the magnitudes: between loudness and amplitude, so that soft partials count
LEAD, LENGTH = 8, 108  # frames of a pattern: before the onset (half a window), and altogether
HEAD = N_FFT // HOP  # frames at the start of an event with one factor: the windows that see the onset
ZONES = np.searchsorted([HEAD, 2 * HEAD, 4 * HEAD], np.arange(LENGTH), side="right")  # of a pattern's frames
LOUD_AT = LEAD + 4  # frame of a pattern that tells whether its event is heard
LONGEST = 360  # frames of an event, 5.8 s; the last frame of a pattern repeats
SEGMENT_S = 30.0  # s, fitted at a time
CORE_FRAMES, CORE_EVENTS = 256, 64  # that one core works on at a time: what is quickest
FLOOR = 1e-30  # of denominators, in any unit
INAUDIBLE = 0.003  # of the mean frame; an event is zero where it is softer
TINY = 1e-7  # of the mean feature: the background is never less, so that no model is zero

# The list. The first four are what this prints, to .01, of the ten pieces and examples/, on both bases:
# python tools/fit_list.py MAPS examples --basis MAPS_NOTES basis_wav_piano
WEIGHTS = 2.87, 0.17, -0.29, 5.49  # of :func:`evidence`
FIRST_WEIGHTS = 3.26, 0.31, -0.71, 5.40  # the same while the patterns are still the templates'
DELAY_S = 0.008  # s from the strike of a key until :func:`find_onset` sees it, in the first folder
LEAST_GAIN = 0.1  # nats for a unit of mass: a recording whose median listed note gains less is noise
DOUBT = 0.25  # of a confidence, what is left where an event gains too little; below LIKELY, so nothing is learnt
LISTED = 0.5  # confidence from which a note is listed, or heard: then it is right more often than wrong
LIKELY = 0.3  # the same for patterns to be learnt from it: what has no part there is learnt as another's overtones
CANDIDATE_LEVEL = 0.02  # of the robust maximum of all onset strengths: a local maximum above it is a candidate
# While a piano is learnt: CANDIDATE_LEVEL, and of how many segments one is heard. Each round begins with the patterns
# of the last, so that the last alone need hear all.
ROUNDS = (0.12, 2), (0.08, 2), (0.08, 1)
MISTUNED_CENTS = np.arange(-40, 41, 10)  # by which a recording may be out of tune with the patterns
# A note ends where it has lost three tenths in so many frames, and goes on to lose nearly half: one that beats loses
# less. Chosen among 2600 settings, on the ten pieces, examples/ and twenty that were played.
BEFORE, AFTER = 5, 10  # frames
FALL_S = 0.045  # s, that a note has been falling by then
SAME_S = 0.048  # s, three frames; two segments' onsets of one note differ by less
SOONEST = 6  # frames, a tenth of a second: no key is struck again sooner
FAINT = 0.03  # of :func:`tenth`, where keys that are struck again are looked for: what is softer is dropped

# Notes of a score.
MOVED_S = 0.05  # s, by which a given note may be moved: what mir_eval still counts as the same onset
KEPT_S = 0.01  # s, by which it must be moved to be moved at all: a list that is right is hardly nearer than that
UNSURE = 0.7  # confidence, at most, of a note of a score that gains more than half of LEAST_GAIN, but not all of it
SILENT_DB = 40 * math.log10(1 / 127)  # of a note that is not heard: MIDI's least velocity


class Event(NamedTuple):
    """A note that was struck."""

    midi: int
    onset: float  # s
    offset: float  # s
    level_db: float  # of its loudest frame, relative to the loudest event
    confidence: float  # 0 to 1; from LISTED on the note is listed, or heard


class Struck(NamedTuple):
    """Events of one segment under fit, in order of ``first``."""

    note: np.ndarray  # (E,) int64, pattern
    first: np.ndarray  # (E,) int64, frame of the pattern's frame 0; the onset is LEAD later
    length: np.ndarray  # (E,) int64, frames
    c: np.ndarray  # (E, LONGEST) float32
    given: np.ndarray  # (E,) int64, number of the note that was given, -1 where none was


class Patterns(NamedTuple):
    """Patterns under fit."""

    P: np.ndarray  # (L, T, K) float32
    mass: np.ndarray  # (L, T) float32, sum_k P


# --- Features and patterns ---------------------------------------------------------------------------


@functools.cache
def bin_groups(n_fft=N_FFT):
    """First bin of each group of bins that is summed, and one past the last bin: narrow in the bass, wider above."""
    width = SR / n_fft
    edges, stop = [math.ceil(25 / width)], int(7900 / width)  # Hz: below A0, and where resampling begins to cut
    while edges[-1] < stop:
        edges.append(edges[-1] + max(1, round(edges[-1] * width / 600)))  # a bin for each 600 Hz of its frequency
    return np.array(edges[:-1]), edges[-1]


@functools.cache
def sizes():
    """Number of bins in each group of the long window, and in each of the short one."""
    return tuple(np.diff(edges, append=stop) for edges, stop in map(bin_groups, (N_FFT, SHORT)))


def pattern_shape():
    """Shape of a pattern, (LENGTH, K)."""
    return LENGTH, sum(map(len, sizes()))


def long_window(P):
    """Those features of P [shape=(..., K)] that are the long window's, which tell keys apart."""
    return P[..., : len(sizes()[0])]


@functools.cache
def shape():
    """Spectrum of the background, (K,), mean one: that of white noise, whose features grow with a group of bins."""
    size = np.concatenate(sizes()).astype(np.float32)
    return size / size.mean()


def features(y, every=1):
    """Features of a sound: STFT magnitudes to the power ``POWER``, summed over groups of bins, of two windows.

    ``y`` [shape=(n,), float] is mono at ``SR``. Returns [shape=(M, K), float32, >= 0]. Frame m is centred on sample
    ``m * HOP``; there are ``1 + n // HOP`` frames. Only one frame of ``every`` is worked out.
    """
    n_frames = 1 + len(y) // HOP
    V = np.empty((-(-n_frames // every), pattern_shape()[1]), np.float32)
    n_long = len(sizes()[0])
    # Features of the short window count twice: together they are then two fifths of those of the long one.
    for n_fft, weight, place in ((N_FFT, 1, slice(n_long)), (SHORT, 2, slice(n_long, None))):
        window = np.hanning(n_fft + 1)[:-1].astype(np.float32)
        window *= np.float32(weight ** (1 / POWER))
        padded = np.zeros(n_fft + n_frames * HOP, np.float32)
        padded[n_fft // 2 : n_fft // 2 + len(y)] = y
        frames = np.lib.stride_tricks.sliding_window_view(padded, n_fft)[: n_frames * HOP : every * HOP]
        transform = functools.partial(transform_frames, frames, window, bin_groups(n_fft), V[:, place])
        shared(transform, len(V), 128)
    return V


def transform_frames(frames, window, groups, V, m):
    """Features V of frames m, in place."""
    import scipy.fft

    edges, stop = groups
    magnitude = np.abs(scipy.fft.rfft(frames[m] * window, axis=1)[:, :stop])
    V[m] = np.add.reduceat(magnitude**POWER, edges, axis=1)


def learn_pattern(y):
    """Features of a template around its onset: what a note looks like once it is struck.

    What sounds before the onset is silenced, and its mean features are subtracted. A frame whose window reaches past
    the end of the template is replaced by the last one that does not.

    ``y`` [shape=(n,), float] is one note, mono at ``SR``. Returns [shape=(LENGTH, K), float16, >= 0]. Frame ``LEAD`` is
    centred on the onset; the loudest frame sums to one thousand, which half precision holds well. Raises
    :class:`utils.InputError` if ``y`` is silent.
    """
    peak = float(np.abs(y).max(initial=0))
    if not peak > 0:
        raise utils.InputError("template: got silence, expected one note")
    y = (np.asarray(y) / peak).astype(np.float32)
    onset = find_onset(y)
    n_fade = min(SR // 100, onset)
    fade = y[onset - n_fade : onset] * np.linspace(0, 1, n_fade, endpoint=False, dtype=np.float32)
    before = LEAD * HOP  # samples, in front of which only zeros would follow
    V = features(np.concatenate([np.zeros(before - n_fade, np.float32), fade, y[onset:]]))
    if onset > N_FFT:  # enough to tell its noise
        half = N_FFT // (2 * HOP)
        V -= features(y[:onset])[half:-half].mean(axis=0)
        np.maximum(V, 0, out=V)
    whole = 1 + (before + len(y) - onset - N_FFT // 2) // HOP  # frames whose window lies within the template
    n = min(max(whole, LEAD + 1), len(V), LENGTH)
    P = np.concatenate([V[:n], np.repeat(V[n - 1 : n], LENGTH - n, axis=0)])
    return (P * (1000 / P.sum(axis=1).max())).astype(np.float16)


def find_onset(y):
    """Sample at which the RMS of 64 samples first reaches -20 dB of its maximum."""
    n = len(y) // 64
    if n == 0:
        return 0
    rms = np.sqrt((y[: 64 * n].reshape(n, 64).astype(np.float64) ** 2).mean(axis=1))
    return 64 * int(np.argmax(rms >= 0.1 * rms.max()))


# --- Where a note may have been struck -----------------------------------------------------------------


def onset_strengths(V, P):
    """Onset strength of each pattern at each frame, (L, M): how much it rises in a KL-NMF, one spectrum per pattern.

    That is its mean activation over frames m + 1 to m + 6 minus that over m - 3 to m - 1, in units of the features.
    """
    pairs = np.arange(0, len(sizes()[0]), 2)
    U, _ = activations(*(np.add.reduceat(long_window(X), pairs, axis=1) for X in (V, spectra(P))), 30)
    return rises(U.T, 6).astype(np.float32)


def rises(A, after):
    """How much each row of A rises at each frame m: its mean over m + 1 to m + after minus that over m - 3 to m - 1."""
    total = np.pad(np.cumsum(np.pad(A, ((0, 0), (3, after))), axis=1, dtype=np.float64), ((0, 0), (1, 0)))
    m = np.arange(A.shape[1]) + 3
    rise = (total[:, m + after + 1] - total[:, m + 1]) / after - (total[:, m] - total[:, m - 3]) / 3
    return np.maximum(rise, 0)


def spectra(P):
    """Mean spectrum of each pattern in its first half second, (L, K) float32."""
    return P[:, LEAD : LEAD + 32].astype(np.float32).mean(axis=1)


def activations(V, W, n_iter):
    """Activations of spectra W (L, K) in V (M, K), after so many steps of a KL-NMF, and the divergence that is left."""
    W = W / np.maximum(W.sum(axis=1, keepdims=True), np.float32(FLOOR))
    tiny = np.float32(TINY * V.mean())
    U = np.repeat(V.sum(axis=1, keepdims=True) / len(W), len(W), axis=1)

    def update(m):
        v = V[m].T
        *_, S = itertools.islice(utils.kullback_leibler(v, W.T, U[m].T, tiny), n_iter)
        return float((v * np.log((v + tiny) / S) - v + S).sum(dtype=np.float64))

    return U, sum(shared(update, len(V), CORE_FRAMES))


def candidates(d, level):
    """Patterns and frames of the local maxima of onset strengths d over +-2 frames that lie above ``level``.

    There are none in the last half window: where a sound is cut off, there is a click.
    """
    from scipy.ndimage import maximum_filter1d

    found = (d == maximum_filter1d(d, 5, axis=1, mode="constant")) & (d > level)
    found[:, -LEAD:] = False
    return np.nonzero(found)


def robust_maximum(d):
    """The onset strength that is exceeded in one frame of fifty."""
    return float(np.sort(d.max(axis=0))[-max(1, d.shape[1] // 50)])


# --- The fit -------------------------------------------------------------------------------------------


def strike(note, frame, c0, n_frames, given=-1):
    """Events of patterns ``note`` with onsets at frames ``frame`` and factors ``c0``, in order."""
    order = np.lexsort((note, frame))
    first = frame[order].astype(np.int64) - LEAD
    c = np.repeat(c0[order].astype(np.float32)[:, None], LONGEST, axis=1)
    given = np.broadcast_to(given, note.shape)[order]
    return Struck(note[order].astype(np.int64), first, np.minimum(LONGEST, n_frames - first), c, given)


def select(struck, which):
    """Those events of which a mask or an order is given."""
    return Struck(*(field[which] for field in struck))


def factor(struck):
    """Factor of each event at its onset, (E,)."""
    return struck.c[np.arange(len(struck.c)), np.maximum(0, -struck.first)]


def level(struck, patterns):
    """Loudness of each event, (E,): that of the loudest frame of its pattern, in units of the features."""
    return factor(struck) * patterns.mass.max(axis=1)[struck.note]


def shared(function, n, size):
    """Call a function on slices of n frames or events, on all cores; the slices are the same on any number of them."""
    parts = blocks.frame_slices(n, size)
    return blocks.in_threads(function, parts) if blocks.available_cores() > 1 else [function(part) for part in parts]


def step(V, B, patterns, struck, N=None):
    """Background and events, improved by one EM step.

    With R = V / S, ``B <- B mean_k w R``; c_e becomes the non-increasing sequence, constant over the head, that is
    closest to ``c_e sum_k R P / sum_k P`` in the sense of the divergence. N (n, L, Z, K), where it is there, is to
    count ``sum c P R`` of each pattern and zone over each ``CORE_FRAMES`` frames.
    """
    P, mass = patterns
    num, c, back, S = np.zeros_like(struck.c), struck.c.copy(), np.empty_like(B), np.empty((0, 0), np.float32)
    none = np.empty((0, 0, 0), np.float32)
    sweep, pool = kernel(_expect), kernel(_pool)

    def expect(m):
        counts = none if N is None else N[m.start // CORE_FRAMES]
        sweep(V, B, shape(), P, ZONES, *struck[:4], m.start, m.stop, S, num, back, counts)

    def maximise(e):
        pool(c[e], num[e], mass, struck.note[e], struck.first[e], struck.length[e], len(V), INAUDIBLE * V.shape[1])

    shared(expect, len(V), CORE_FRAMES)
    shared(maximise, len(c), CORE_EVENTS)
    return np.maximum(B * back, np.float32(TINY * V.mean())), struck._replace(c=c)


def model(V, B, patterns, struck):
    """S of the equation above, (M, K) float32."""
    S, (num, back, N) = np.empty_like(V), (np.empty((0,) * n, np.float32) for n in (2, 1, 3))
    sweep = kernel(_expect)

    def expect(m):
        sweep(V, B, shape(), patterns.P, ZONES, *struck[:4], m.start, m.stop, S, num, back, N)

    shared(expect, len(V), CORE_FRAMES)
    return S


def counted(struck, P, n_frames):
    """D = sum c P of each pattern and zone over the frames of a segment, (L, Z, K)."""
    t = np.arange(LONGEST)
    sounds = (t >= -struck.first[:, None]) & (t < np.minimum(struck.length, n_frames - struck.first)[:, None])
    c = np.where(sounds, struck.c, np.float32(0))
    T = P.shape[1]
    c = np.concatenate([c[:, : T - 1], c[:, T - 1 :].sum(axis=1, keepdims=True)], axis=1)
    of = (np.arange(len(P))[:, None] == struck.note).astype(np.float32)
    return by_zone(P, of @ c)


def by_zone(P, c=None):
    """Sums over the frames of each zone, (L, Z, K), of patterns P (L, T, K), times c (L, T) where it is told."""
    c = np.ones(P.shape[:2], P.dtype) if c is None else c
    edges = np.flatnonzero(np.diff(ZONES[: P.shape[1]], prepend=-1, append=-1))
    return np.concatenate([c[:, None, start:stop] @ P[:, start:stop] for start, stop in pairwise(edges)], axis=1)


def steps(V, B, patterns, struck, n):
    """Events and background after ``n`` EM steps."""
    for _ in range(n):
        B, struck = step(V, B, patterns, struck)
    return B, struck


def under_fit(P):
    """:class:`Patterns` of P."""
    return Patterns(P, P.sum(axis=2))


def cut(struck):
    """Events without the tails that have fallen below a hundredth of their beginning."""
    alive = struck.c > 0.01 * factor(struck)[:, None]
    end = LONGEST - np.argmax(alive[:, ::-1], axis=1)
    return struck._replace(length=np.minimum(struck.length, np.maximum(end, HEAD)))


def adaptation(P, N, D, n_patterns):
    """Gain of each pattern, zone and bin, (L, Z, K), that moves the patterns towards the piano of the recording.

    One smooth gain for all notes, G(z, k) = sum N / sum D over a quarter of an octave or so, takes up the microphones,
    and in each zone how the room sounds on; then each note has ``kappa`` pseudo-counts against its own N and D, over
    all zones, and again in each: the mass of all N over ``n_patterns``, of which these are those that sound.

    P, N and D are (L, Z, K): sums over zones of the patterns, of ``c P R`` and of ``c P``, see :func:`step`.
    """
    mass = float(N.sum(dtype=np.float64))
    if not mass > 0:
        return np.ones_like(N)
    smooth = functools.partial(smooth_ratio, prior=1e-3 * mass / N.shape[2])
    gain = smooth(N.sum(axis=(0, 1)), D.sum(axis=(0, 1)))
    gain = gain * np.stack([smooth(n, d * gain) for n, d in zip(N.sum(axis=0), D.sum(axis=0), strict=True)])
    kappa = np.float32(mass / n_patterns)
    for axes in ((1,), ()):
        n, d, prior = (x.sum(axis=axes, keepdims=True) for x in (N, D * gain, P * gain))
        prior *= kappa / np.maximum(prior.sum(axis=2, keepdims=True), np.float32(FLOOR))
        prior += np.float32(1e-9 * mass / N.size)
        gain = gain * (n + prior) / (d + prior)
    return gain


def smooth_ratio(n, d, prior):
    """Ratio of n to d (K,), each smoothed over neighbouring groups of bins, with ``prior`` counts."""
    window = np.hanning(19)[1:-1]  # groups of bins
    n, d = (np.convolve(counts, window / window.sum(), "same") + prior for counts in (n, d))
    return (n / d).astype(np.float32)


def move(V, B, patterns, struck, bounds, reach=3):
    """Move each event by up to ``reach`` frames to where the divergence of its head is least, the others held.

    ``bounds`` is of :func:`bounds_of`. Returns the events in order of onset, and the fraction of a frame (E,) by which
    the least divergence lies after each onset, from a parabola.
    """
    if len(struck.note) == 0:
        return struck, np.zeros(0)
    gain = likelihood_gains(V, model(V, B, patterns, struck), patterns, struck, reach)
    best, e = np.argmax(gain, axis=1), np.arange(len(gain))
    i = np.clip(best, 1, 2 * reach - 1)
    fraction = np.where(best == i, pitch.parabola_peak(gain[e, i - 1], gain[e, i], gain[e, i + 1]), 0.0)
    first = np.clip(struck.first + best - reach, *(np.clip(bounds[struck.given], 0, len(V) - 1).T - LEAD))
    struck = struck._replace(first=first, length=np.minimum(struck.length, len(V) - first))
    order = np.lexsort((struck.note, struck.first))
    return select(struck, order), fraction[order]


def likelihood_gains(V, S, patterns, struck, reach=0):
    """Log-likelihood in nats that each head gains, moved by ``-reach`` to ``reach`` frames, (E, 2 reach + 1)."""
    gain = np.zeros((len(struck.note), 2 * reach + 1))
    gains = kernel(_gains)
    shared(lambda e: gains(V, S, patterns.P, *select(struck, e)[:4], reach, gain[e]), len(gain), CORE_EVENTS)
    return gain


def tenth(A, n_frames):
    """A level that few events exceed, whatever the length: about the tenth largest in half a minute."""
    return np.sort(A)[-min(len(A), max(1, round(n_frames / 190)))] if len(A) else 0.0


# --- Compiled ---------------------------------------------------------------------------------------------


def _expect(V, B, w, P, zones, note, first, length, c, begin, end, S, num, back, N):
    """E-step of the frames from begin to end; what has no room is left out: S, or all the others, or N.

    With R = V / S: num = sum_k R P of every event and frame, back = mean_k w R, N += sum c P R by pattern and zone.
    Where patterns repeat their last frame, all events of one are a single row. Rows are read four at a time, so that S
    and R are seldom loaded and stored. Three kernels, one for each job, would gather the same rows and take three times
    as long to compile.
    """
    E, T, K = len(note), P.shape[1], P.shape[2]
    R = np.empty(K, np.float32)
    active, row_of = np.empty(E, np.int64), np.empty(E, np.int64)
    l, t = np.zeros(E + 3, np.int64), np.zeros(E + 3, np.int64)  # of each row: pattern, its frame,
    g, dot = np.zeros(E + 3, np.float32), np.zeros(E + 3, np.float32)  # factor, sum_k R P
    last_row, last_seen = np.empty(len(P), np.int64), np.full(len(P), -1)  # of each pattern's last frame
    n_active, coming = 0, 0
    for m in range(begin, end):
        while coming < E and first[coming] <= m:
            active[n_active] = coming
            n_active += 1
            coming += 1
        i, n = 0, 0
        for a in range(n_active):
            e = active[a]
            at = m - first[e]
            if at < length[e]:
                active[i], row_of[i] = e, n
                if c[e, at] <= 0:
                    row_of[i] = -1
                elif at >= T - 1 and last_seen[note[e]] == m:
                    row_of[i] = last_row[note[e]]
                    g[row_of[i]] += c[e, at]
                else:
                    l[n], t[n], g[n] = note[e], min(at, T - 1), c[e, at]
                    if at >= T - 1:
                        last_row[note[e]], last_seen[note[e]] = n, m
                    n += 1
                i += 1
        n_active = i
        if n:
            for i in range(n, n + 3):
                l[i], t[i], g[i] = l[0], t[0], 0
        for k in range(K):  # arrays put in place of arrays would take two seconds more to compile
            R[k] = B[m] * w[k]
        for i in range(0, n, 4):
            p0, p1, p2, p3 = P[l[i], t[i]], P[l[i + 1], t[i + 1]], P[l[i + 2], t[i + 2]], P[l[i + 3], t[i + 3]]
            g0, g1, g2, g3 = g[i], g[i + 1], g[i + 2], g[i + 3]
            for k in range(K):
                R[k] += g0 * p0[k] + g1 * p1[k] + g2 * p2[k] + g3 * p3[k]
        if len(S):
            for k in range(K):
                S[m, k] = R[k]
        if not len(back):
            continue
        total = np.float32(0)
        for k in range(K):
            R[k] = V[m, k] / R[k]
            total += R[k] * w[k]
        back[m] = total / K
        for i in range(0, n, 4):
            p0, p1, p2, p3 = P[l[i], t[i]], P[l[i + 1], t[i + 1]], P[l[i + 2], t[i + 2]], P[l[i + 3], t[i + 3]]
            d0 = d1 = d2 = d3 = np.float32(0)
            for k in range(K):
                d0 += R[k] * p0[k]
                d1 += R[k] * p1[k]
                d2 += R[k] * p2[k]
                d3 += R[k] * p3[k]
            dot[i], dot[i + 1], dot[i + 2], dot[i + 3] = d0, d1, d2, d3
        if len(N):
            for i in range(n):
                counted, p, x = N[l[i], zones[t[i]]], P[l[i], t[i]], g[i]
                for k in range(K):
                    counted[k] += x * p[k] * R[k]
        for a in range(n_active):
            if row_of[a] >= 0:
                num[active[a], m - first[active[a]]] = dot[row_of[a]]


def _pool(c, num, den, note, first, length, n_frames, inaudible):
    """M-step of every event in place: pool adjacent violators of c num / den, weighted by den, the head one block."""
    T = den.shape[1]
    value, weight = np.empty(c.shape[1]), np.empty(c.shape[1])
    start = np.empty(c.shape[1] + 1, np.int64)
    for e in range(len(note)):
        begin, end = max(0, -first[e]), min(length[e], n_frames - first[e])
        n, t = 0, begin
        while t < end:
            start[n] = t
            x, w = 0.0, 0.0
            stop = max(t + 1, min(HEAD, end))
            while t < stop:
                x += c[e, t] * num[e, t]
                w += den[note[e], min(t, T - 1)]
                t += 1
            x = x / w if w > 0 else 0.0
            while n > 0 and value[n - 1] <= x:
                n -= 1
                x = (value[n] * weight[n] + x * w) / max(weight[n] + w, 1e-300)
                w += weight[n]
            value[n], weight[n] = x, w
            n += 1
        start[n] = end
        loud = den[note[e], LOUD_AT]
        for i in range(n):
            for t in range(start[i], start[i + 1]):
                c[e, t] = value[i] if value[i] * loud > inaudible else 0.0  # nothing becomes subnormal
        for t in range(begin):
            c[e, t] = c[e, begin]


def _gains(V, S, P, note, first, length, c, reach, gain):
    """Log-likelihood that each head gains, sum V log(S / rest) - cP, moved by -reach to reach frames, the others held.

    The rest, S - cP where the event is now, is never less than a hundred-thousandth of S. The logarithm is that of the
    mantissa m, between 2^-1/2 and 2^1/2, as a series in (m - 1) / (m + 1), and of the exponent, from the bits of the
    number: the compiler has several at once made of that, unlike of ``np.log``.
    """
    M, K = V.shape
    width = HEAD + 2 * reach
    one, two, log2 = np.float32(1), np.float32(2), np.float32(math.log(2))
    a3, a5, a7, a9 = np.float32(1 / 3), np.float32(1 / 5), np.float32(1 / 7), np.float32(1 / 9)
    over_rest = np.empty((width, K), np.float32)
    ratio, exponent = np.empty(K, np.float32), np.empty(K, np.float32)
    bits = ratio.view(np.int32)
    for e in range(len(note)):
        start, stop = max(0, first[e] - reach), min(M, first[e] - reach + width)
        for m in range(start, stop):
            at = m - first[e]
            g, p = np.float32(0), P[note[e], max(0, at)]
            if 0 <= at < length[e]:
                g = c[e, at]
            for k in range(K):
                over_rest[m - start, k] = one / max(S[m, k] - g * p[k], np.float32(1e-5) * S[m, k])
        g = c[e, max(0, -first[e])]
        for shift in range(2 * reach + 1):
            begin = first[e] + shift - reach
            total = 0.0
            for m in range(max(start, begin), stop):
                p = P[note[e], m - begin]
                for k in range(K):
                    ratio[k] = one + g * p[k] * over_rest[m - start, k]
                for k in range(K):
                    n = np.int32(np.int32(bits[k] - np.int32(0x3F3504F3)) >> np.int32(23))
                    bits[k] = np.int32(bits[k] - np.int32(n << np.int32(23)))
                    exponent[k] = n
                frame = np.float32(0)
                for k in range(K):
                    z = (ratio[k] - one) / (ratio[k] + one)
                    y = z * z
                    series = two * z * (one + y * (a3 + y * (a5 + y * (a7 + y * a9))))
                    frame += V[m, k] * (log2 * exponent[k] + series) - g * p[k]
                total += frame
            gain[e, shift] = total


KERNELS = {
    _expect: "void(f4[:, ::1], f4[::1], f4[::1], f4[:, :, ::1], i8[::1], i8[::1], i8[::1], i8[::1], f4[:, ::1], "
    "i8, i8, f4[:, ::1], f4[:, ::1], f4[::1], f4[:, :, ::1])",
    _pool: "void(f4[:, ::1], f4[:, ::1], f4[:, ::1], i8[::1], i8[::1], i8[::1], i8, f8)",
    _gains: "void(f4[:, ::1], f4[:, ::1], f4[:, :, ::1], i8[::1], i8[::1], i8[::1], f4[:, ::1], i8, f8[:, ::1])",
}


def kernel(function):
    """One of ``KERNELS``, compiled."""
    return blocks.compiled(function, KERNELS[function])


# --- Segments ------------------------------------------------------------------------------------------


class Found(NamedTuple):
    """Events before it is decided which of them are notes; all fields but the last are (E,)."""

    pattern: np.ndarray  # int
    onset: np.ndarray  # s
    offset: np.ndarray  # s
    level: np.ndarray  # loudness in units of the features
    gain: np.ndarray  # log-likelihood that the head gains, nats for each unit of its mass
    given: np.ndarray  # int, number of the note that was given, -1 where none was
    n_frames: int  # of the sound that was searched


class Given(NamedTuple):
    """Notes that are known to be played, (n,) each: candidates that are never dropped."""

    midi: np.ndarray  # int
    onset: np.ndarray  # s
    earliest: np.ndarray  # s; none is moved past the middle between two of one key
    latest: np.ndarray  # s


def given_notes(midi=(), onset=(), most=MOVED_S):
    """:class:`Given` of MIDI numbers and onsets in s, in any order; each is moved by ``most``, in s, at most."""
    midi, onset = np.array(midi, int), np.array(onset, float)
    earliest, latest = onset - most, onset + most
    order = np.lexsort((onset, midi))
    before, after = order[:-1], order[1:]
    again = midi[before] == midi[after]
    before, after = before[again], after[again]
    middle = (onset[before] + onset[after]) / 2
    latest[before] = np.minimum(latest[before], middle)
    earliest[after] = np.maximum(earliest[after], middle)
    return Given(midi, onset, earliest, latest)


def frame_of(onset, start):
    """Frame of a segment that begins at sample ``start``, in which an onset in s is seen."""
    return np.round((onset + DELAY_S) * (SR / HOP) - start // HOP).astype(int)


def bounds_of(given, cut_at):
    """First and last frame of a segment that each given note may be moved to, and in the last row any other event."""
    start, stop, *_ = cut_at
    free = start / SR - 1, stop / SR + 1  # anywhere
    return frame_of(np.append(np.stack([given.earliest, given.latest], axis=1), [free], axis=0), start)


def segments(n):
    """Cut n samples into segments: ``(start, stop, first, last)``, samples to fit and samples to list events of.

    Segments are ``SEGMENT_S`` long; a rest of less than half of that is joined to the last one.
    """
    size = round(SEGMENT_S * SR) // HOP * HOP
    starts = list(range(0, max(1, n - size // 2), size))
    for first, last in zip(starts, [*starts[1:], n], strict=True):
        start = max(0, first - 2 * SR // HOP * HOP)  # 2 s before, for what sounds on, and 3 s after, to hear it end
        yield start, min(n, last + 3 * SR // HOP * HOP), first, last


def parts(y, cuts):
    """Yield what the functions below take: the sound of each segment, and the segment."""
    for cut_at in cuts:
        yield np.array(blocks.read_frames(y, slice(cut_at[0], cut_at[1])), np.float32), cut_at


def scaled(y, every=1):
    """Features of a sound with a mean of one, and their mean; None and zero for silence."""
    V = features(y, every)
    mean = float(V.mean(dtype=np.float64))
    return (V / np.float32(mean), mean) if mean > 0 else (None, 0.0)


def transposed(P, cents):
    """Patterns [shape=(..., K)] that sound ``cents`` higher, by interpolation between groups of bins."""
    if cents == 0:
        return P
    moved = []
    for n_fft, P_window in zip((N_FFT, SHORT), np.split(P, [len(sizes()[0])], axis=-1), strict=True):
        edges, stop = bin_groups(n_fft)
        ends = np.append(edges, stop)
        size, centre = np.diff(ends).astype(np.float32), (ends[1:] + ends[:-1] - 1) / 2
        source = centre / 2 ** (cents / 1200)
        right = np.clip(np.searchsorted(centre, source), 1, len(centre) - 1)
        share = np.clip((source - centre[right - 1]) / (centre[right] - centre[right - 1]), 0, 1).astype(np.float32)
        density = P_window / size
        moved.append(((1 - share) * density[..., right - 1] + share * density[..., right]) * size)
    return np.ascontiguousarray(np.concatenate(moved, axis=-1))


def tune_segment(part, patterns):
    """Divergence left of a segment at each tuning of ``MISTUNED_CENTS``, from a KL-NMF of one frame in eight."""
    V, mean = scaled(part[0], 8)
    if V is None:
        return np.zeros(len(MISTUNED_CENTS))
    V, W = long_window(V), spectra(patterns)
    return mean * np.array([activations(V, long_window(transposed(W, cents)), 15)[1] for cents in MISTUNED_CENTS])


def first_fit(V, patterns, midi, given, start, share, pruning):
    """Background and events from the given notes and all candidates above ``share`` of the robust maximum.

    The weakest are dropped, but none that was given. ``start`` is the sample at which the segment begins; ``pruning``
    has pairs of EM steps and of the level, relative to :func:`tenth`, below which an event is dropped then.
    """
    d = onset_strengths(V, patterns.P)
    least = share * robust_maximum(d)
    note, frame, told = with_given(*candidates(d, least), midi, given, frame_of(given.onset, start), len(V))
    loud = patterns.mass.max(axis=1)
    c0 = np.maximum(d[note, frame], least) / max(float(d.max()), TINY) * V.sum(axis=1).max()
    B = (0.1 * V.mean(axis=1) + TINY * V.mean()).astype(np.float32)
    struck = strike(note, frame, c0 / np.maximum(loud[note], TINY), len(V), told)
    for n, least in pruning:
        B, struck = steps(V, B, patterns, struck, n)
        A = level(struck, patterns)
        struck = cut(select(struck, (least * tenth(A, len(V)) < A) | (struck.given >= 0)))
    return B, struck


def with_given(note, frame, midi, given, at, n_frames):
    """Patterns and frames of candidates, and after them of the notes given at frames ``at``; and which note each is.

    Within .2 s of a given note its key has no other candidate. A note has as many events as its key has patterns.
    """
    from scipy.ndimage import maximum_filter1d

    row, told = np.nonzero((midi[:, None] == given.midi) & (at >= 0) & (at < n_frames))
    taken = np.zeros((len(midi), n_frames), bool)
    taken[row, at[told]] = True
    taken = maximum_filter1d(taken, 2 * round(0.2 * SR / HOP) + 1, axis=1, mode="constant")
    free = ~taken[note, frame]
    told = np.append(np.full(free.sum(), -1), told)
    return np.append(note[free], row), np.append(frame[free], at[told[told >= 0]]), told


def count_segment(part, patterns, gain, midi, given, share):
    """How the piano of a segment differs from the patterns: counts N and D of :func:`adaptation`, [shape=(2, L, Z, K)].

    A short fit of the patterns with the ``gain`` that is known so far tells which events are notes, or may be; these
    alone are counted, while the patterns are adapted to the segment. ``share`` and the others are those of
    :func:`first_fit` and :func:`fit_segment`.
    """
    y, cut_at = part
    P = patterns.astype(np.float32)
    counts = np.zeros((2, *gain.shape), np.float32)
    V, mean = scaled(y)
    if V is None:
        return counts
    fit = under_fit(P * np.take(gain, ZONES, axis=1))
    B, struck = first_fit(V, fit, midi, given, cut_at[0], share, ((2, 0.01), (2, 0.02), (2, 0.03)))
    B, struck = steps(V, B, fit, struck, 3)
    struck, fraction = move(V, B, fit, struck, bounds_of(given, cut_at))
    B, struck = steps(V, B, fit, struck, 2)
    likely = confidences(describe(V, B, fit, struck, fraction), midi, FIRST_WEIGHTS) >= LIKELY
    struck = select(struck, likely | (struck.given >= 0))
    used, note = np.unique(struck.note, return_inverse=True)
    P, struck = P[used], struck._replace(note=note.reshape(-1))
    whole, gain = by_zone(P), gain[used]
    for _ in range(12):  # steps; 8 lose .004 of F, 40 win nothing
        D = counted(struck, P, len(V))
        N = np.zeros((-(-len(V) // CORE_FRAMES), *gain.shape), np.float32)
        Q = np.take(gain, ZONES, axis=1)
        Q *= P
        B, struck = step(V, B, under_fit(Q), struck, N)
        N = N.sum(axis=0)
        gain *= adaptation(whole * gain, N, D * gain, len(patterns))
        np.clip(gain, 1 / 3, 3, out=gain)  # 12 dB of amplitude: what moves a pattern farther is no piano
    D *= N.sum(dtype=np.float64) / max(D.sum(dtype=np.float64), 1e-30)
    counts[:, used] = N, D
    return counts * np.float32(mean)


def fit_segment(part, patterns, midi, given):
    """Events whose onset lies in a segment proper, as :class:`Found`; times are those of the recording.

    ``part`` is one of :func:`parts`, patterns are (L, T, K).
    """
    y, cut_at = part
    start, stop, first, last = cut_at
    V, mean = scaled(y)
    if V is None:
        return nothing((last - first) // HOP)
    patterns = under_fit(patterns.astype(np.float32))
    B, struck = first_fit(V, patterns, midi, given, start, CANDIDATE_LEVEL, ((3, 0.005), (3, 0.01), (5, 0.02)))
    bounds = bounds_of(given, cut_at)
    if not len(given.midi):  # nothing is added to a list that is given
        B, struck = with_struck_again(V, B, patterns, struck, midi, bounds[-1])
    B, struck, fraction = settled(V, B, patterns, struck, bounds, 3)
    heard = describe(V, B, patterns, struck, fraction)
    onset, offset, n_frames = heard.onset + start / SR, heard.offset + start / SR, (last - first) // HOP
    heard = heard._replace(onset=onset, offset=offset, level=heard.level * mean, n_frames=n_frames)
    place = np.where(heard.given >= 0, np.append(given.onset, 0)[heard.given], heard.onset)
    margin = np.where(heard.given >= 0, 0, SAME_S / 2)  # both segments may find a note between them
    earliest = first / SR - margin if first else -math.inf
    latest = last / SR + margin if stop > last else math.inf
    return pick(heard, (place >= earliest) & (place < latest))


def settled(V, B, patterns, struck, bounds, n):
    """Background, events and what the second of two moves tells; ``n`` EM steps before, between and after them."""
    for _ in range(2):
        B, struck = steps(V, B, patterns, struck, n)
        struck, fraction = move(V, B, patterns, struck, bounds)
    return *steps(V, B, patterns, struck, n), fraction


def with_struck_again(V, B, patterns, struck, midi, free):
    """Background and events, of which none is given, with those of keys that are struck again while they sound.

    The onset strengths of the long window hardly see those. Where a key grows louder in the short window, see
    :func:`free_loudness`, a strike is tried, all at once. What is then more likely than not a note is added to the
    events as they were: what is none has taken nothing from them. ``free`` is the last row of :func:`bounds_of`.
    """
    rise = rises(free_loudness(V, B, patterns, struck), 3)
    for note, first in zip(struck.note, struck.first, strict=True):
        rise[note, max(0, first + LEAD - SOONEST) : first + LEAD + SOONEST + 1] = 0
    note, frame = candidates(rise, FAINT * tenth(level(struck, patterns), len(V)))
    c0 = rise[note, frame] / patterns.mass.max(axis=1)[note]
    B_tried, tried = joined(V, B, patterns, struck, strike(note, frame, c0, len(V), np.arange(len(note))), 3)
    B_tried, tried, _ = settled(V, B_tried, patterns, tried, np.tile(free, (len(note) + 1, 1)), 2)
    sure = confidences(describe(V, B_tried, patterns, tried, 0.0), midi) >= LISTED
    keys, new = midi[tried.note], tried.given >= 0
    near = (keys[:, None] == keys) & (np.abs(tried.first[:, None] - tried.first) <= SOONEST)
    found = select(tried, new & sure & ~near[:, ~new].any(axis=1))
    return joined(V, B, patterns, struck, found._replace(given=np.full(len(found.note), -1)), 6)


def free_loudness(V, B, patterns, struck):
    """Loudness of each pattern at each frame, (L, M): that of ``c sum_k R P / sum_k P``, k in the short window.

    With R = V / S this is what the next c would be if it could grow.
    """
    n_long = len(sizes()[0])
    R, P = (V / model(V, B, patterns, struck))[:, n_long:], patterns.P[:, :, n_long:]
    mass, loud = np.maximum(P.sum(axis=2), np.float32(FLOOR)), patterns.mass.max(axis=1)
    A = np.zeros((len(P), len(V)))
    for note, first, length, c in zip(*struck[:4], strict=True):
        m = np.arange(max(0, first), min(len(V), first + length))
        t = np.minimum(m - first, P.shape[1] - 1)
        A[note, m] += loud[note] * c[m - first] * np.einsum("mk,mk->m", R[m], P[note, t]) / mass[note, t]
    return A


def joined(V, B, patterns, struck, more, n):
    """Background and events with some more of them, after ``n`` EM steps; what is then faint is dropped."""
    both = Struck(*(np.concatenate(pair) for pair in zip(struck, more, strict=True)))
    B, struck = steps(V, B, patterns, select(both, np.lexsort((both.note, both.first))), n)
    A = level(struck, patterns)
    return B, cut(select(struck, tenth(A, len(V)) * FAINT < A))


def describe(V, B, patterns, struck, fraction):
    """What is known of each event of a segment, as :class:`Found`; times are those of the segment."""
    gain = likelihood_gains(V, model(V, B, patterns, struck), patterns, struck)[:, 0]
    m = struck.first[:, None] + np.arange(HEAD)
    mass = (struck.c[:, :HEAD] * patterns.mass[struck.note, :HEAD]).sum(axis=1, where=(m >= 0) & (m < len(V)))
    A = level(struck, patterns).astype(np.float64)
    onset = (struck.first + LEAD + fraction) * HOP / SR - DELAY_S
    offset = np.maximum((struck.first + ends(struck)) * HOP / SR - FALL_S, onset + HOP / SR)
    return Found(struck.note, onset, offset, A, gain / np.maximum(mass, FLOOR), struck.given, len(V))


def ends(struck):
    """Frame of each event, (E,), in which it falls as those do whose key is up, or the one after its last."""
    c = np.where(np.arange(LONGEST) < struck.length[:, None], struck.c, 0)
    earlier, later = np.pad(c, ((0, 0), (BEFORE, 0)), "edge")[:, :-BEFORE], np.pad(c, ((0, 0), (0, AFTER)))[:, AFTER:]
    falls = (c < 0.7 * earlier) & (later < 0.55 * earlier) | (c < 0.1 * factor(struck)[:, None])
    return np.where(falls.any(axis=1), np.argmax(falls, axis=1), LONGEST)


def ended(heard, midi):
    """Events that end where their key is struck again; ghosts must be gone before, or they would end notes."""
    offset, keys = heard.offset.copy(), midi[heard.pattern]
    for key in np.unique(keys):
        e = np.flatnonzero(keys == key)
        e = e[np.argsort(heard.onset[e])]
        onset = np.append(heard.onset[e], np.inf)
        struck_again = np.searchsorted(onset, onset[:-1] + SAME_S, side="right").clip(max=len(e))
        offset[e] = np.minimum(offset[e], onset[struck_again])
    return heard._replace(offset=offset)


def pick(heard, which):
    """Those events of which a mask or an order is given."""
    return Found(*(field[which] for field in heard[:-1]), heard.n_frames)


def nothing(n_frames):
    """No events."""
    return Found(np.zeros(0, int), *(np.zeros(0) for _ in range(4)), np.zeros(0, int), n_frames)


# --- Recordings ----------------------------------------------------------------------------------------


def learn_piano(y, patterns, midi, given=None, *, map=None, progress=None):
    """Patterns of the piano that is heard in a recording, which the patterns of another are moved to.

    Its tuning comes first, then what is listed tells how its notes differ, in ``ROUNDS``, each with the patterns of the
    one before.

    Parameters
    ----------
    y : np.ndarray [shape=(n,), float]
        Mono, ``SR``; a memory map is read segment by segment, eight of them, spread over it.
    patterns : np.ndarray [shape=(L, T, K), float]
        Of :func:`learn_pattern`; a key may have several, of several velocities.
    midi : np.ndarray [shape=(L,), int]
        MIDI number of each pattern.
    given : Given, optional
        Notes that are known to be played.
    map : callable, optional
        What works on the segments elsewhere, see :func:`blocks.each`.
    progress : callable, optional
        Called with the number of samples done and of those to do, after each segment.

    Returns
    -------
    np.ndarray [shape=(L, T, K), float16]
    """
    midi, given = np.asarray(midi), given_notes() if given is None else given
    cuts = spread_segments(len(y))
    left = sum(each_segment(functools.partial(tune_segment, patterns=patterns), parts(y, cuts), map))
    best = int(np.argmin(left))
    if left[best] < 0.99 * left[len(MISTUNED_CENTS) // 2]:  # or else it is in tune
        patterns = transposed(patterns.astype(np.float32), int(MISTUNED_CENTS[best]))
    whole = by_zone(patterns.astype(np.float32))
    gain = np.ones_like(whole)
    for share, of in ROUNDS:
        count = functools.partial(count_segment, patterns=patterns, gain=gain, midi=midi, given=given, share=share)
        counts = sum(fitted(count, y, cuts[::of], map, progress), np.zeros((2, *gain.shape))).astype(np.float32)
        gain = adaptation(whole, *(counts / np.float32(max(counts[0].mean(), FLOOR))), len(patterns))
    return (patterns * np.take(gain, ZONES, axis=1)).astype(np.float16)


def spread_segments(n):
    """Eight :func:`segments` at most, spread over n samples: a piano is known after four minutes."""
    cuts = list(segments(n))
    return [cuts[i] for i in blocks.spread(len(cuts), 8)]


def fitted(function, y, cuts, map, progress):
    """Yield what a function tells of each segment; progress is that of learning the piano and listing its notes."""
    learnt = itertools.chain(*(spread_segments(len(y))[::of] for _, of in ROUNDS))
    total = sum(stop - start for start, stop, *_ in itertools.chain(segments(len(y)), learnt))
    for (start, stop, *_), found in zip(cuts, each_segment(function, parts(y, cuts), map), strict=True):
        yield found
        if progress:
            progress(stop - start, total)


def find_events(y, patterns, midi, *, map=None, progress=None):
    """List the notes that were struck in a recording of a piano.

    Parameters
    ----------
    y, midi, map, progress
        As for :func:`learn_piano`.
    patterns : np.ndarray [shape=(L, T, K), float]
        Of this piano: of :func:`learn_piano`, best of all.

    Returns
    -------
    list of Event
        In order of onset, then of pitch; empty for silence.
    """
    midi = np.asarray(midi)
    heard = all_events(y, patterns, midi, map=map, progress=progress)
    confidence = confidences(heard, midi)
    listed = confidence >= LISTED
    return events(ended(pick(heard, listed), midi), confidence[listed], midi)


def all_events(y, patterns, midi, *, map=None, progress=None):
    """What is found in a recording before it is decided which events are notes, as :class:`Found`."""
    return join(fit(y, patterns, midi, given_notes(), map, progress), midi)


def fit(y, patterns, midi, given, map, progress):
    """The events of all segments, as :class:`Found`."""
    each = functools.partial(fit_segment, patterns=patterns, midi=midi, given=given)
    found = list(fitted(each, y, list(segments(len(y))), map, progress))
    fields = zip(*(heard[:-1] for heard in found), strict=True)
    return Found(*(np.concatenate(field) for field in fields), sum(heard.n_frames for heard in found))


def each_segment(function, parts, map):
    """:func:`blocks.each` part of a recording, as many at once as there are cores, eight at most: each holds 60 MB."""
    if map is None:
        for each in KERNELS:
            kernel(each)  # before threads need it
    return blocks.each(function, parts, map, at_once=8)


def join(heard, midi):
    """Events of one note at one time as one: those of several velocities, or of two segments."""
    keys = midi[heard.pattern]
    order = np.lexsort((heard.onset, keys))
    heard, keys = pick(heard, order), keys[order]
    new = np.diff(keys, prepend=-1) != 0
    new |= np.diff(heard.onset, prepend=-math.inf) > SAME_S
    group = np.cumsum(new) - 1
    loudest = np.lexsort((-heard.level, group))
    _, place = np.unique(group[loudest], return_index=True)
    return pick(heard, loudest[place])


def confidences(heard, midi, weights=WEIGHTS):
    """How sure it is that each event is a note, 0 to 1, (E,): a logistic function of its :func:`evidence`.

    Where the median listed event gains less than ``LEAST_GAIN``, as in noise, all are worth ``DOUBT`` of that.
    """
    sure = 1 / (1 + np.exp(-evidence(heard, midi) @ weights))
    loud = heard.gain[sure >= LISTED]
    if len(loud) and np.median(loud) < LEAST_GAIN:  # noise is taken apart into many events that each say little
        sure *= DOUBT
    return sure


def evidence(heard, midi):
    """What tells notes from remains, (E, 4).

    It is the logarithms of each event's level, against that of the recording's loud notes, and of its likelihood gain;
    its key; and one. Its share of the sound, louder notes near it and notes that it may be an overtone of tell nothing
    more, once the patterns are the recording's own.
    """
    A = heard.level
    loud = max(tenth(A, heard.n_frames), FLOOR)
    key = (midi[heard.pattern] - 60) / 20
    return np.column_stack([np.log(A / loud + 1e-3), np.log(np.maximum(heard.gain, 0) + 0.02), key, np.ones(len(A))])


def events(heard, confidence, midi):
    """A list of :class:`Event` in order of onset, then of pitch."""
    level_db = 20 / POWER * np.log10(np.maximum(heard.level / heard.level.max(initial=1e-30), 1e-9))
    fields = midi[heard.pattern], np.maximum(heard.onset, 0), np.maximum(heard.offset, 0), level_db, confidence
    rows = [Event(*row) for row in zip(*(field.tolist() for field in fields), strict=True)]
    return sorted(rows, key=lambda event: (event.onset, event.midi))


def find_given(y, patterns, midi, given, *, map=None, progress=None):
    """Listen to notes that are known to be played: the same model, in which they are candidates that are never dropped.

    ``given`` is of :func:`given_notes`; all else is as for :func:`find_events`. Returns a list of :class:`Event`, one
    for each note, in their order. Its onset is moved only where it is heard elsewhere within its bounds, and by more
    than ``KEPT_S``. Its confidence is below ``LISTED`` where it is not heard.
    """
    midi = np.asarray(midi)
    heard = fit(y, patterns, midi, given, map, progress)
    least = 0.04 * tenth(heard.level, heard.n_frames)
    heard = pick(heard, heard.given >= 0)
    heard = ended(pick(heard, np.lexsort((heard.level, heard.given))), midi)  # the loudest pattern of a note comes last
    loudest = heard.level.max(initial=FLOOR)
    silent = zip(given.midi.tolist(), given.onset.tolist(), strict=True)
    rows = [Event(key, onset, onset, SILENT_DB, 0.0) for key, onset in silent]
    fields = heard.given, heard.onset, heard.offset, heard.level, heard.gain
    for i, onset, offset, A, explained in zip(*fields, strict=True):
        sure = A / (A + least + FLOOR)
        if explained <= LEAST_GAIN:
            sure *= UNSURE if explained > LEAST_GAIN / 2 else DOUBT
        if sure < LISTED or abs(onset - given.onset[i]) <= KEPT_S:
            onset = given.onset[i]
        onset = float(np.clip(onset, max(0.0, given.earliest[i]), given.latest[i]))
        level_db = max(SILENT_DB, 20 / POWER * math.log10(max(A / loudest, FLOOR)))
        rows[i] = Event(int(given.midi[i]), onset, max(onset, float(offset)), level_db, float(sure))
    return rows


def onsets(y, patterns, midi, *, map=None):
    """What may be struck in a recording, [shape=(3, n)]: onsets in s, MIDI numbers, strengths up to 1."""
    function = functools.partial(segment_onsets, patterns=patterns, midi=np.asarray(midi))
    return np.concatenate(list(each_segment(function, parts(y, list(segments(len(y)))), map)), axis=1)


def segment_onsets(part, patterns, midi):
    """The same of a segment proper, [shape=(3, n)]."""
    y, (start, _, first, last) = part
    V, _ = scaled(y)
    if V is None:
        return np.zeros((3, 0))
    d = onset_strengths(V, patterns.astype(np.float32))
    most = robust_maximum(d)
    note, frame = candidates(d, CANDIDATE_LEVEL * most)
    found = np.stack([(start + frame * HOP) / SR, midi[note], np.minimum(d[note, frame] / max(most, TINY), 1)])
    return found[:, (found[0] >= first / SR) & (found[0] < last / SR)]
