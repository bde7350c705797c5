"""Adapt a basis to the piano of a recording, while its own templates hold it back.

Another piano is the templates' with its keys tuned otherwise and its partials weaker or louder, and then it is itself.
So the model of a recording's magnitudes V, K bins by M frames, is

    V ~ Poisson(H U),   H_l ~ Dirichlet(S c T_l),   T_l = normalise(e^(g_l) H0_l(k / 2^(c_l / 1200))),

with H0_l the template, c_l the tuning of its key in cents and g_ln the log factor of its n-th partial, in all states.
The logarithm of the joint probability is maximised in two steps, by Kullback-Leibler NMF: c, g and U with H = T,
which is S without end; then H and U with T as it is. N = H * ((V / HU) U^T) being what the recording says of a column,

    c_l <- argmax sum_k N_kl log T_kl,   for each key with its neighbours
    g <- argmax sum_ln (N_ln g_ln - D_ln e^(g_ln)) - g^T K^(-1) g / 2,   D being what is expected where g = 0
    H <- normalise(N + S c T),   c = sum V / (10 L)
    U <- U * (H^T (V / HU)) / (1 + gamma / (1 + U / quiet))

These are pseudo-counts: a note heard often is itself soon, and one that is never played keeps its tuned template. K is
the covariance of a Gaussian process: g is a gain common to all notes, smooth over frequency, that is, microphone and
room; one for each partial, smooth over the keys, that is, hammers and voicing; and what each partial has of its own.

The last line has the list of notes in it: log p(U) = -gamma quiet log(1 + U / quiet), where gamma is ``UNLISTED``
(1 - p) and p the confidence of the list that a note sounds, zero where it is not listed. There a note must explain more
than it costs. But what is loud costs little, for lists miss notes.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

import utils
from piano import blocks, pitch

# Set by hand on the pieces of benchmarks/separation.py, where no other reason stands beside it.
N_TUNED = 10  # sweeps after each tuning
N_ROUNDS, N_BETWEEN = 16, 4  # steps towards the factors, and sweeps after each
N_FREE = 40  # sweeps with the basis free at last; more are no better, see benchmarks/README.md
ADAPTED_FRAMES = 512  # at most, spread over the recording: a piano is known after so many
SAME_COLUMNS, CORE_FRAMES = 32, 128  # frames with one set of columns that sound, and frames of one core
FIRMEST = 1e12  # the largest strength: the templates then stay as they are, to rounding
UNLISTED = 1.0  # gamma where a note is not listed
QUIET = 0.02  # of the mean frame that is heard: what is as loud as that is held back half as much
KEY_CENTS = np.arange(-24.0, 25, 2)  # by which a key may be out of tune with its template
N_PARTIALS = 40  # of a note; what lies above is taken for the last
COMMON, SHARED = 0.5, 0.5  # standard deviations of the first two parts of g, in nepers
TELLING = 3e-3  # of the most counts of a note: what has less says nothing of c and g


def listed_rate(notes, basis, n_frames):
    """Rate gamma of the prior of the activations [shape=(L, M), float32], from a list of notes.

    Parameters
    ----------
    notes : list
        With ``midi``, ``onset`` and ``offset`` in s, and ``confidence``.
    basis : Basis
        With a known sampling rate.
    n_frames : int
    """
    rate = np.full((basis.H.shape[1], n_frames), UNLISTED, np.float32)
    t = np.arange(n_frames) * basis.hop / basis.sr
    for note in notes:
        frames = (note.onset - 0.1 <= t) & (t <= note.offset + 0.5)  # s: half a window, and strings that die away
        for l in basis.notes.get(note.midi, ()):
            rate[l, frames] = np.minimum(rate[l, frames], UNLISTED * (1 - note.confidence))
    return rate


def adapt_basis(Y, basis, strength="auto", notes=None, *, seed=0, progress=None):
    """Fit a basis to a recording, or to ``ADAPTED_FRAMES`` frames that are spread over it.

    ``auto`` lets the recording choose: S = 1 / D, where D is the Kullback-Leibler divergence of ``N / sum_k N`` from
    T, averaged over the columns by how much they sound. Dirichlet's prior
    of strength s has columns at an average distance in proportion to 1 / s, so the templates are trusted as far as
    the recording bears them out.

    Parameters
    ----------
    Y : np.ndarray [shape=(K, M), float or complex] or utils.Spectrogram
        Linear amplitude; may be a memory map.
    basis : Basis
        Where its columns are not described, the templates are neither tuned nor given factors.
    strength : float, "auto" or "none"
        S > 0; above ``FIRMEST`` it is taken for that. None of these changes nothing.
    notes : list, optional
        What is played, see :func:`listed_rate`.
    seed : int
        Of the random start.
    progress : callable, optional
        Called with the number of frames just swept, and of all that will be.

    Returns
    -------
    basis : Basis
        Adapted, its rotations tuned along; columns sum to what they summed to.
    strength : float or None
        S, where the basis was adapted.
    prior : tuple or None
        Of the activations, for :func:`utils.nmf`; None without ``notes``, and for silence.

    Raises
    ------
    InputError
        As from :func:`utils.nmf`.
    """
    if strength in (None, "none"):
        return basis, None, None
    utils.check_basis(basis.H)
    Y = utils.spectrogram(Y)
    utils.check_bins(Y, basis.H)
    H, level = basis.H, basis.H.sum(axis=0)
    described = basis.columns and basis.sr
    n_sweeps = 1 + N_FREE + (2 * N_TUNED + N_ROUNDS * N_BETWEEN if described else 0)
    strength = strength if strength == "auto" else float(min(strength, FIRMEST))
    heard = np.flatnonzero(Y.loudness > 1e-3 * Y.loudness.max())
    quiet = QUIET * float(Y.loudness[heard].sum()) / max(len(heard), 1)
    rate = listed_rate(notes, basis, Y.shape[1]) if notes else None
    prior = None if rate is None else (rate, quiet * Y.unit)
    if not len(heard):
        return basis, FIRMEST if strength == "auto" else strength, None

    frames = heard[blocks.spread(len(heard), ADAPTED_FRAMES)]
    T = H.astype(np.float64) / level
    fit = _started(Y, T, frames, rate, quiet, seed)
    fit.count = functools.partial(progress, len(frames), n_sweeps * len(frames)) if progress else lambda: None
    N = fit.sweep(T)
    if described:
        cents, T, N = _tuned(fit, T, N, basis)
        T, N = _with_factors(fit, T, N, basis)
        basis = replace(basis, rotation=turned(basis, cents))
    if strength == "auto":
        strength = 1 / max(divergence(N, T), 1 / FIRMEST)
    pseudo_counts = strength * N.sum() / (10 * H.shape[1]) * T
    adapted = T
    for _ in range(N_FREE):
        adapted = summing_to_one(fit.sweep(adapted) + pseudo_counts)
    return replace(basis, H=(adapted * level).astype(H.dtype)), strength, prior


@dataclass
class _Fit:
    """Magnitudes of a recording (K, M), and activations, which sweeps update; their prior; what to call."""

    V: np.ndarray
    U: np.ndarray
    rate: np.ndarray | None
    quiet: float
    count: Callable = None

    def sweep(self, T, n=1):
        """Update the activations ``n`` times; N [shape=(K, L)] is what the last update finds.

        In each block of frames only the columns that sound there take part.
        """
        rows = utils.zero_below(np.ascontiguousarray(T.T, self.U.dtype))  # (L, K)
        floor = utils.floor_of(rows.dtype)

        def block(frames, N):
            l = np.flatnonzero(self.U[:, frames].any(axis=1))
            V, u, t = np.ascontiguousarray(self.V[:, frames]), self.U[l, frames], rows[l]
            rate = None if self.rate is None else self.rate[l, frames]
            for _ in range(n):
                R = t.T @ u
                R += floor
                np.divide(V, R, out=R)
                before = u
                u = u * (t @ R)
                if rate is not None:
                    u /= 1 + eased(rate, before, self.quiet)
                utils.zero_below(u)
            self.U[l, frames] = u
            N[l] += before @ R.T

        def part(frames):
            N = np.zeros_like(rows)
            for first in range(frames.start, frames.stop, SAME_COLUMNS):
                block(slice(first, min(first + SAME_COLUMNS, frames.stop)), N)
            return N

        parts = blocks.in_threads(part, blocks.frame_slices(self.V.shape[1], CORE_FRAMES))
        N = sum(parts, np.zeros(rows.shape)) * rows
        for _ in range(n):
            self.count()
        return N.T


def _started(Y, T, frames, rate, quiet, seed):
    """The :class:`_Fit` of some frames; NMF of them tells what sounds."""
    V = np.abs(Y.at(frames).read())
    V = utils.zero_below(V.astype(np.result_type(V, np.float32), order="C"))
    U, _ = utils.nmf(V, T.astype(V.dtype), 12, loss="kullback-leibler", solver="cd", seed=seed)
    if rate is not None:
        rate = rate[:, frames]
    may_sound = 1 if rate is None else rate < UNLISTED
    U = np.maximum(U, U.dtype.type(0.01 * quiet) * may_sound)  # what is zero would stay so
    return _Fit(V, U.astype(V.dtype), rate, quiet)


def eased(rate, U, quiet):
    """Rate of the prior at U: ``gamma / (1 + U / quiet)``, the slope of ``gamma quiet log(1 + U / quiet)``."""
    return rate / (1 + U / np.float32(quiet))


def summing_to_one(H):
    """Columns that sum to 1."""
    return H / H.sum(axis=0)


# --- Tuning -------------------------------------------------------------------------------------------


def _tuned(fit, H0, N, basis):
    """Cents of each note, templates tuned by them, and N after sweeps with those; done twice, for N changes."""
    for _ in range(2):
        cents = tuning(N, H0, basis)
        T = warped(H0, cents, basis)
        N = fit.sweep(T, N_TUNED)
    return cents, T, N


def tuning(N, H0, basis):
    """Cents that each note is above its template [shape=(notes,)].

    Maximises ``sum_k N_kl log H0_l(k / 2^(c / 1200))`` on a grid, and by a parabola between, for each note together
    with its neighbours, weighted by ``exp(-d^2 / 2)`` at d semitones.
    """
    notes, total = list(basis.notes.values()), N.sum(axis=0)
    l = np.flatnonzero(total > TELLING * total.max())  # columns that say something
    of_columns, likelihood = np.zeros(H0.shape[1]), np.empty((len(notes), len(KEY_CENTS)))
    for j, cents in enumerate(KEY_CENTS):
        T = summing_to_one(np.maximum(_stretched(H0[:, l], cents), np.finfo(np.float32).tiny))
        of_columns[l] = np.sum(N[:, l] * np.log(T), axis=0)
        likelihood[:, j] = [of_columns[l].sum() for l in notes]
    distance = np.subtract.outer(list(basis.notes), list(basis.notes))
    likelihood = np.exp(-(distance**2) / 2) @ likelihood
    best = np.clip(likelihood.argmax(axis=1), 1, len(KEY_CENTS) - 2)
    before, at, after = (likelihood[np.arange(len(notes)), best + step] for step in (-1, 0, 1))
    return KEY_CENTS[best] + (KEY_CENTS[1] - KEY_CENTS[0]) * pitch.parabola_peak(before, at, after)


def warped(H0, cents, basis):
    """Templates, each ``H0_l(k / 2^(c_l / 1200))``, linear between bins, and normalised."""
    return summing_to_one(np.maximum(_moved(H0, cents, basis), np.finfo(np.float32).tiny))


def turned(basis, cents):
    """Rotations of the tuned templates: moved along, and turning faster as their partials are higher; or None."""
    if basis.rotation is None:
        return None
    f = np.arange(len(basis.H)) * basis.sr / basis.n_fft
    moved = _moved(basis.rotation, cents, basis)
    for c, l in zip(cents, basis.notes.values(), strict=True):
        moved[:, l] *= np.exp(2j * np.pi * basis.hop / basis.sr * f * (1 - 2 ** (-c / 1200)))[:, None]
    return moved.astype(np.complex64)


def _moved(columns, cents, basis):
    moved = np.empty(columns.shape, np.result_type(columns, np.float64))
    for c, l in zip(cents, basis.notes.values(), strict=True):
        moved[:, l] = _stretched(columns[:, l], c)
    return moved


def _stretched(columns, cents):
    """Columns at k / 2^(cents / 1200), linear between bins; beyond the last bin they are as there."""
    place = np.minimum(np.arange(len(columns)) / 2 ** (cents / 1200), len(columns) - 1)
    k = np.minimum(place.astype(int), len(columns) - 2)
    part = (place - k)[:, None]
    return columns[k] * (1 - part) + columns[k + 1] * part


# --- Factors of partials ------------------------------------------------------------------------------


def _with_factors(fit, T0, N, basis):
    """Templates with the factors of their partials, and N after sweeps with those."""
    partial_of = partials(basis)
    heard = by_partial(N, partial_of, basis).sum(axis=1)
    heard = heard > TELLING * heard.max()
    if fit.rate is not None:
        heard &= [fit.rate[l].min() < UNLISTED for l in basis.notes.values()]
    C = covariance(basis, heard)
    g = np.zeros((len(basis.notes), N_PARTIALS))
    for _ in range(N_ROUNDS):
        counts = (by_partial(each, partial_of, basis) for each in (N, T0 * fit.U.sum(axis=1, dtype=np.float64)))
        g = factors(*counts, basis, heard, C, g)
        T = T0.copy()
        for j, l in enumerate(basis.notes.values()):
            T[:, l] *= np.exp(g[j, partial_of[:, j]])[:, None]
        T = summing_to_one(T)
        N = fit.sweep(T, N_BETWEEN)
    return T, N


def partial_frequencies(basis):
    """Frequencies of the partials of each note [shape=(notes, N_PARTIALS), float], in Hz, of an average piano."""
    f1 = 440 * 2 ** ((np.array(list(basis.notes))[:, None] - 69) / 12)
    return pitch.partial(np.arange(1, N_PARTIALS + 1), f1, 0.0)


def partials(basis):
    """Partial, from 0, that each bin of each note belongs to [shape=(K, notes), int]: the nearest."""
    f = np.arange(len(basis.H)) * basis.sr / basis.n_fft
    return np.stack([np.searchsorted((p[1:] + p[:-1]) / 2, f) for p in partial_frequencies(basis)], axis=1)


def by_partial(counts, partial_of, basis):
    """Sums of counts [shape=(K, L)] over each partial's bins and each note's states [shape=(notes, N_PARTIALS)]."""
    columns = zip(partial_of.T, basis.notes.values(), strict=True)
    return np.stack([np.bincount(p, counts[:, l].sum(axis=1), N_PARTIALS) for p, l in columns])


def covariance(basis, heard):
    """Covariance K of the log factors, see the top [shape=(partials, partials that are heard)], note by note.

    Partials that exist lie below half the sampling rate. ``heard`` [shape=(notes,), bool] tells of the notes.
    """
    f = partial_frequencies(basis)
    note, n = np.nonzero(f < basis.sr / 2)
    octave, key, told = np.log2(f[note, n]), np.array(list(basis.notes))[note], heard[note]

    def likeness(x, width):
        return np.exp(-((np.subtract.outer(x, x[told]) / width) ** 2) / 2)

    same_note, same_partial = (np.equal.outer(x, x[told]) for x in (note, n))
    C = COMMON**2 * likeness(octave, 0.2) + SHARED**2 * same_partial * likeness(key, 4)  # octaves, semitones
    own, level = 0.5, 2.0  # nepers, of each partial, and of the whole note, which U takes up
    return C + own**2 * (same_note & same_partial) + level**2 * same_note


def factors(N, D, basis, heard, C, start):
    """Log factors g of the partials [shape=(notes, N_PARTIALS)], a step of Newton's method nearer to their best.

    See the top of this module, and Rasmussen and Williams, "Gaussian Processes for Machine Learning", algorithm 3.1.

    Parameters
    ----------
    N, D : np.ndarray [shape=(notes, N_PARTIALS)]
        Counts, and what they would be with g = 0.
    basis : Basis
    heard : np.ndarray [shape=(notes,), bool]
        Notes that are played as far as is known; the others only follow.
    C : np.ndarray
        From :func:`covariance`.
    start : np.ndarray [shape=(notes, N_PARTIALS)]
        Where the step starts; no factor moves by more than three nepers.
    """
    exists = partial_frequencies(basis) < basis.sr / 2
    told = heard[np.nonzero(exists)[0]]
    unit = 300 * heard.sum() / N.sum()  # counts that the average note is worth
    N, D = unit * N[exists][told], unit * D[exists][told]
    counted = np.maximum(N, D) > 0.5  # what has less says nothing
    N, D, g, C = N[counted], D[counted], start[exists][told][counted], C[:, counted]
    K = C[np.flatnonzero(told)[counted]]
    mean = D * np.exp(g)
    root = np.sqrt(mean)
    b = mean * g + N - mean
    B = np.eye(len(g)) + root[:, None] * K * root
    a = b - root * np.linalg.solve(B, root * (K @ b))  # of numpy, whose BLAS has one thread here
    found = np.zeros(exists.shape)
    found[exists] = C @ a
    return start + np.clip(found - start, -3, 3)


def divergence(N, template):
    """Kullback-Leibler divergence of the columns of N, as shares, from a template, averaged by their sums.

    Parameters
    ----------
    N : np.ndarray [shape=(K, L), float, >= 0]
        Not all zero; where it is above zero the template must be too.
    template : np.ndarray [shape=(K, L), float, >= 0]
        Columns sum to 1.

    Returns
    -------
    float
        In nats.
    """
    share = N / np.maximum(N.sum(axis=0), np.finfo(np.float64).tiny)
    ratio = np.divide(share, template, out=np.ones_like(share), where=share > 0)
    return float(np.sum(N.sum(axis=0) * np.sum(share * np.log(ratio), axis=0)) / N.sum())
