"""Adapt a basis to the piano of a recording, while its own templates hold it back.

Another piano is the templates' with its partials elsewhere and weaker or louder, and then it is itself. So the model of
a recording's magnitudes V, K bins by M frames, is

    V ~ Poisson(H U),   H_l ~ Dirichlet(S s T_l),   T_l = normalise(e^(g_l) H0_l(k / 2^(c_l / 1200))),

with H0_l the template, c_ln the cents by which its n-th partial lies higher and g_ln its log factor, in all states of a
note. The logarithm of the joint probability is maximised in two steps, by Kullback-Leibler NMF: c, g and U with H = T,
which is S without end; then H and U with T as it is, where V spreads more than Poisson's, see W below. With the counts
N = H * ((V / HU) U^T), what the recording says of a column, and D = H * (1 U^T), what is expected,

    c <- Newton's step for sum_kl N_kl log T_kl - c^T C^(-1) c / 2
    g <- Newton's step for sum_ln (N_ln g_ln - D_ln e^(g_ln)) - g^T K^(-1) g / 2
    H <- normalise(H * (N' + S s T) / (D' + S s H)),   s = sum V / (40 L)
    U <- U * (H^T (V / HU)) / (1 + gamma / (1 + U / quiet))

The first two go ``FARTHER``: N is worked out with T, and follows it. N' and D' are N and D where what a frame says of a
bin counts by the column's share of the notes in it. So a partial is learnt where it sounds alone: where notes share a
bin, magnitudes do not tell which of them is louder, and what a model shares out confirms that model. While H is free,
each bin also counts by W = (HU / unit)^(-1/2), in N', in D', and for U, whose sums are then H^T (W V / HU) and H^T W:
the divergence is that of 0.5, see :func:`utils.nmf`, for spectra err in proportion to what they tell. By the pseudo-
counts S s T a note that is heard often is itself soon, and one that is never played keeps its moved template. C and K
are covariances of Gaussian processes. c is the tuning and, in proportion to what it does to a partial, the logarithm of
the inharmonicity B of strings, both with a part that is common to all keys, one that is smooth over them [1]_, and one
of each key alone. g is smooth over the keys for each number of partial: hammers, voicing, microphone and room.

The last line has the list of notes in it: log p(U) = -gamma quiet log(1 + U / quiet), where gamma is ``UNLISTED``
(1 - p) and p the confidence of the list that a note sounds, zero where it is not listed. There a note must explain more
than it costs. But what is loud costs little, for lists miss notes.

H has one more column, which stays as it is and which no list holds back: white noise, as loud in each frame as it is
found. Without it soft notes learn the noise.

References
----------
.. [1] F. Rigaud, B. David and L. Daudet, "A parametric model and estimation techniques for the inharmonicity and
       tuning of the piano", JASA 133(5), 2013.
.. [2] R. Salakhutdinov and S. Roweis, "Adaptive overrelaxed bound optimization methods", ICML 2003.
"""

import functools
import itertools
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

import utils
from piano import blocks, pitch

# Set by hand on the pieces of benchmarks/separation.py, where no other reason stands beside it.
N_STARTED = 4  # sweeps of coordinate descent at first; with 12 activations settle before their templates have moved
N_ROUNDS = 48  # steps towards c and g, with a sweep after each
FARTHER = 1.5  # times as far as Newton's step, for the counts follow the templates [2]_; 1.8 does not always converge
N_FREE = 20  # sweeps with the basis free at last; 30 and 45 are worth .01 dB more, see benchmarks/README.md
ADAPTED_FRAMES = 256  # at most, spread over the recording: all of two minutes are worth .01 dB more
SAME_COLUMNS, CORE_FRAMES = 32, 128  # frames with one set of columns that sound, and frames of one core
FIRMEST = 1e12  # the largest strength: the templates then stay as they are, to rounding
UNLISTED = 0.75  # gamma where a note is not listed; on 18 pieces, .7 is .07 dB better than 1
UNTOLD = 1e-10  # of the loudest, 200 dB below it: what is softer says nothing of a column's share
UNHEARD = 1e-7  # of a frame's loudest activation, 140 dB below it: what is softer is zero, and takes no more time
QUIET = 0.02  # of the mean frame that is heard: what is as loud as that is held back half as much
N_PARTIALS = 40  # of a note; what lies above is taken for the last
LEVEL, NEAR_KEYS = 0.8, 4.0  # standard deviation of g in nepers, and keys over which it is alike
# The same of c: what is common to all keys, smooth over EVEN_KEYS of them, and of each alone, in cents and nepers of B.
TUNING, STIFFNESS, EVEN_KEYS = (15.0, 5.0, 3.0), (0.3, 0.3, 0.2), 12.0
COUNTS = 300.0  # that the average note is worth, in the steps towards c and g


def listed_rate(notes, basis, n_frames):
    """Rate gamma of the prior of the activations [shape=(L, M), float32], from a list of notes.

    The notes have ``midi``, ``onset`` and ``offset`` in s, and ``confidence``. The basis has a known sampling rate. M
    is ``n_frames``.
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

    ``auto`` lets the recording choose: S = 1 / D, where D is the Kullback-Leibler divergence of ``N / sum_k N`` from T,
    averaged over the columns by how much they sound. Dirichlet's prior of strength s has columns at an average distance
    in proportion to 1 / s, so the templates are trusted as far as the recording bears them out.

    Parameters
    ----------
    Y : np.ndarray [shape=(K, M), float or complex] or utils.Spectrogram
        Linear amplitude; may be a memory map.
    basis : Basis
        Where its columns are not described, no partial is moved or given a factor.
    strength : float, "auto" or "none"
        S > 0; above ``FIRMEST`` it is taken for that. With "none" the basis comes back as it is.
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
        Of the activations, for :func:`utils.nmf`; None without ``notes``, and where nothing is heard of the basis.

    Raises
    ------
    InputError
        As from :func:`utils.nmf`.
    """
    if strength == "none":
        return basis, None, None
    utils.check_basis(basis.H)
    Y = utils.spectrogram(Y)
    utils.check_bins(Y, basis.H)
    H, level = basis.H, basis.H.sum(axis=0)
    described = basis.columns and basis.sr
    n_sweeps = 1 + N_FREE + (N_ROUNDS if described else 0)
    strength = strength if strength == "auto" else float(min(strength, FIRMEST))
    heard = np.flatnonzero(Y.loudness > 1e-3 * Y.loudness.max())
    quiet = QUIET * float(Y.loudness[heard].sum()) / max(len(heard), 1)
    rate = listed_rate(notes, basis, Y.shape[1]) if notes else None
    prior = None if rate is None else (rate, quiet * Y.unit)
    as_it_is = basis, FIRMEST if strength == "auto" else strength, None
    if not len(heard):
        return as_it_is

    frames = heard[blocks.spread(len(heard), ADAPTED_FRAMES)]
    T = np.asfortranarray(H, np.float64) / level  # each column in one piece, as all that is (K, L) here
    fit = _started(Y, T, frames, rate, quiet, seed)
    fit.count = functools.partial(progress, len(frames), n_sweeps * len(frames)) if progress else lambda: None
    N, D = fit.sweep(T)
    if not N.any():  # all that sounds lies where the basis has nothing
        return as_it_is
    if described:
        T, N, basis = _as_piano(fit, T, N, D, basis)
    if strength == "auto":
        strength = 1 / max(divergence(N, T), 1 / FIRMEST)
    pseudo_counts, adapted, tiny = strength * N.sum() / (40 * H.shape[1]), T, np.finfo(T.dtype).tiny
    for _ in range(N_FREE):
        N, D = fit.sweep(adapted, alone=True)
        heard_alone = (N + pseudo_counts * T) / np.maximum(D + pseudo_counts * adapted, tiny)
        adapted = summing_to_one(adapted * heard_alone)
    return replace(basis, H=(adapted * level).astype(H.dtype, order="C")), strength, prior


@dataclass
class _Fit:
    """A recording under fit: its magnitudes, activations that :meth:`sweep` updates, and their prior."""

    V: np.ndarray  # (K, M) float
    U: np.ndarray  # (L + 1, M) float; the last row is noise, see with_noise
    rate: np.ndarray | None  # (L + 1, M), gamma of the prior; None where there is none
    quiet: float  # of the prior
    unit: np.ndarray  # (M,) see utils.frame_units
    count: Callable = None  # called after each sweep

    def sweep(self, T, *, alone=False):
        """Update the activations; with those before, N is what the recording says of the columns, D what is expected.

        Both are (K, L). Where a column is to be heard ``alone``, its share and W weigh them, see the top. In each block
        of frames only the columns that sound there take part.
        """
        rows = utils.zero_below(np.ascontiguousarray(with_noise(T).T, self.U.dtype))  # (L + 1, K)
        floor, sums = utils.floor_of(rows.dtype), rows.sum(axis=1, keepdims=True)
        loud = self.U.sum(axis=1, keepdims=True)  # before they are updated

        def block(frames, counts):
            l = np.flatnonzero(self.U[:, frames].any(axis=1))
            V, u, t = np.ascontiguousarray(self.V[:, frames]), self.U[l, frames], rows[l]
            prior = None if self.rate is None else (self.rate[l, frames], self.quiet)
            S = t.T @ u
            if alone:  # t u of what notes have in a bin is the column's share; both t of t^2 u^2 come in at last
                share = 1 / np.maximum(S - np.outer(rows[-1], self.U[-1, frames]), UNTOLD)
                unit = self.unit[frames]
                S += utils.DIVERGENCE_FLOOR * unit
                W = np.sqrt(unit / S)
                R = W * (V + utils.DIVERGENCE_FLOOR * unit) / S
                counts[0, l] += u**2 @ (share * R).T
                counts[1, l] += u**2 @ (share * W).T
                utils.kullback_leibler_step(u, t @ R, t @ W, prior)
            else:
                S += floor
                R = V / S
                counts[0, l] += u @ R.T
                utils.kullback_leibler_step(u, t @ R, sums[l], prior)
            u[u < UNHEARD * u.max(axis=0, initial=0)] = 0
            self.U[l, frames] = u

        def part(frames):
            counts = np.zeros((1 + alone, *rows.shape), rows.dtype)
            for first in range(frames.start, frames.stop, SAME_COLUMNS):
                block(slice(first, min(first + SAME_COLUMNS, frames.stop)), counts)
            return counts

        counts = sum(blocks.in_threads(part, blocks.frame_slices(self.V.shape[1], CORE_FRAMES)))
        rows = rows.astype(np.float64)
        N, D = counts * rows**2 if alone else (counts[0] * rows, loud * rows)
        self.count()
        return N[:-1].T, D[:-1].T


def _started(Y, T, frames, rate, quiet, seed):
    """The :class:`_Fit` of some frames; NMF of them tells what sounds."""
    V = np.abs(Y.at(frames).read())
    V = utils.zero_below(V.astype(np.result_type(V, np.float32), order="C"))
    options = {"loss": "kullback-leibler", "solver": "cd", "seed": seed}
    U, _ = utils.nmf(V, with_noise(T).astype(V.dtype), N_STARTED, **options)
    if rate is not None:
        rate = np.pad(rate[:, frames], ((0, 1), (0, 0)))  # noise may sound anywhere
    may_sound = 1 if rate is None else rate < UNLISTED
    U = np.maximum(U, U.dtype.type(0.01 * quiet) * may_sound)  # what is zero would stay so
    return _Fit(V, U.astype(V.dtype), rate, quiet, utils.frame_units(V))


def with_noise(H):
    """Spectra [shape=(K, L), float], and a column more for white noise [shape=(K, L + 1)].

    White noise is as loud in each bin as in any other; the column's sum is the mean of those of H.
    """
    return np.column_stack([H, np.full(len(H), H.mean(), H.dtype)])


def summing_to_one(H):
    """Columns that sum to 1."""
    return H / H.sum(axis=0)


# --- The piano: where its partials are, and how loud they are -----------------------------------------


def _as_piano(fit, T0, N, D, basis):
    """Templates as the piano has them, N after sweeps with those, and the basis with its rotations moved along."""
    cell, T0 = cells(basis), np.maximum(T0, np.finfo(np.float32).tiny)
    heard = np.array([N[:, l].sum() for l in basis.notes.values()])
    heard = heard > 3e-3 * heard.max()  # what has fewer counts says nothing of c and g
    if fit.rate is not None:
        heard &= [fit.rate[l].min() < UNLISTED for l in basis.notes.values()]
    told = heard[:, None] & (partial_frequencies(basis) < basis.sr / 2)
    of_levels, of_cents = level_factor(basis), cents_factor(basis)
    g, cents, T, sources = np.zeros(told.shape), np.zeros(told.shape), T0, (np.log(T0), summed_twice(T0))
    for r in range(N_ROUNDS):
        n, d, n1, d1, n2 = by_partial(N, D, T, cell, basis, heard)
        unit = told * COUNTS * heard.sum() / max(n.sum(), np.finfo(n.dtype).tiny)
        ratio = np.divide(n, d, out=np.zeros_like(n), where=d > 0)
        likely = newton(cents.ravel(), (unit * (n1 - ratio * d1)).ravel(), (unit * n2).ravel(), of_cents)
        louder = newton(g.T, (unit * (n - d)).T, (unit * d).T, of_levels).T
        cents = cents + FARTHER * (likely.reshape(cents.shape) - cents)
        g = g + np.clip(FARTHER * (louder - g), -3, 3)
        wide = 30 * max(0, 1 - 2 * (r + 1) / N_ROUNDS)  # cents: at first templates meet partials that lie so far away
        T = shaped(sources, places(cents, basis), g, wide, cell, basis)
        N, D = fit.sweep(T)
    return T, N, replace(basis, rotation=turned(basis, places(cents, basis)))


def newton(x, slope, weight, A):
    """One step of Newton's method from x towards the most likely value of a Gaussian process, of mean zero.

    x [shape=(..., n)] is A z, where A [shape=(n, R)] is a factor of its covariance, A A^T, and z [shape=(..., R)] is
    standard normal. ``slope`` is the first derivative of the log-likelihood at x, and ``weight`` its second, negated;
    both have the shape of x. Where both are zero nothing is told, and x only follows the others.
    """
    told = weight.reshape(-1, len(A)).any(axis=0)  # the others take no time
    x, slope, weight, of_told = x[..., told], slope[..., told], weight[..., told], A[told]
    inverse = np.eye(A.shape[1]) + of_told.T @ (weight[..., None] * of_told)  # of what is left unknown of z
    z = np.linalg.solve(inverse, ((weight * x + slope) @ of_told)[..., None])
    return z[..., 0] @ A.T


def partial_frequencies(basis):
    """Frequencies of the partials of each note [shape=(notes, N_PARTIALS), float], in Hz, of an average piano."""
    f1 = 440 * 2 ** ((np.array(list(basis.notes))[:, None] - 69) / 12)
    return pitch.partial(np.arange(1, N_PARTIALS + 1), f1, 0.0)


def cells(basis):
    """Partial of each note that each bin belongs to [shape=(notes, K), int]: the nearest, counted from zero."""
    f = np.arange(len(basis.H)) * basis.sr / basis.n_fft
    return np.stack([np.searchsorted((p[1:] + p[:-1]) / 2, f) for p in partial_frequencies(basis)])


def by_partial(N, D, T, cell, basis, heard):
    """N, D, N s, D s and N s^2 summed over each partial's bins and states [shape=(5, notes, N_PARTIALS)].

    s is the slope of log T for each cent. N, D and T have shape (K, L), ``cell`` is of :func:`cells`. What is not
    ``heard`` [shape=(notes,), bool] is zero.
    """
    for_a_cent, sums = -np.log(2) / 1200 * np.arange(len(T)), np.zeros((5, len(cell), N_PARTIALS))  # in bins
    for i, l in itertools.compress(enumerate(basis.notes.values()), heard):
        n, d, slope = N.T[l], D.T[l], np.gradient(np.log(T.T[l]), axis=1) * for_a_cent
        of_bins = np.stack([x.sum(axis=0) for x in (n, d, n * slope, d * slope, n * slope**2)])
        first = np.flatnonzero(np.diff(cell[i], prepend=-1))  # bin of each partial that has any
        sums[:, i, cell[i, first]] = np.add.reduceat(of_bins, first, axis=1)
    return sums


def level_factor(basis):
    """Factor of the covariance of the log factors g, see the top, of one number of partial [shape=(notes, notes)]."""
    keys = np.array(list(basis.notes))
    return LEVEL * np.linalg.cholesky(np.exp(-np.abs(np.subtract.outer(keys, keys)) / NEAR_KEYS))


def cents_factor(basis):
    """Factor of the covariance of the cents c [shape=(notes N_PARTIALS, 2 notes)]."""
    keys, n = np.array(list(basis.notes)), np.arange(1, N_PARTIALS + 1)
    B = pitch.inharmonicity(440 * 2 ** ((keys[:, None] - 69) / 12), 0.0)
    stiff = 600 / np.log(2) * (B * n**2 / (1 + B * n**2) - B / (1 + B))  # cents that a neper of B is worth
    near = np.exp(-((np.subtract.outer(keys, keys) / EVEN_KEYS) ** 2) / 2)
    tuning, of_B = (
        np.linalg.cholesky(common**2 + smooth**2 * near + own**2 * np.eye(len(keys)))
        for common, smooth, own in (TUNING, STIFFNESS)
    )
    return np.hstack([tuning.repeat(len(n), axis=0), stiff.reshape(-1, 1) * of_B.repeat(len(n), axis=0)])


def places(cents, basis):
    """Bin of the template that each bin of a note is from [shape=(notes, K)]; between partials cents are linear."""
    k = np.arange(len(basis.H))
    partial = partial_frequencies(basis) * basis.n_fft / basis.sr
    higher = np.stack([np.interp(k, *of_note) for of_note in zip(partial, cents, strict=True)])
    return np.minimum(k / 2 ** (higher / 1200), len(k) - 1)


def shaped(sources, place, g, wide, cell, basis):
    """The templates T of the equation at the top [shape=(K, L)].

    ``sources`` are log T0 and T0 :func:`summed_twice`, ``place`` is of :func:`places` and ``cell`` of :func:`cells`.
    At those places T0 is averaged with the weights of a triangle that ends ``wide`` cents away.
    """
    (log_T0, total), factor = sources, np.exp(g)
    T = np.empty_like(log_T0)
    for i, note in enumerate(basis.note_of):
        at, of_bins = place[note], factor[note, cell[note]]
        if wide:
            side = np.maximum(at * (2 ** (wide / 1200) - 1), 1)
            high, here, low = (moved(total[:, i], each) for each in (at + side, at, at - side))
            T[:, i] = np.maximum(high - 2 * here + low, 0) / side**2 * of_bins
        else:
            T[:, i] = np.exp(moved(log_T0[:, i], at)) * of_bins
    return summing_to_one(np.maximum(T, np.finfo(np.float32).tiny, out=T))


def summed_twice(columns):
    """A sum whose second difference, over as many bins, is the average of the columns around a bin."""
    total = np.cumsum(np.cumsum(columns, axis=0), axis=0)
    return np.asfortranarray(np.vstack([0 * total[:1], total[:-1]]))


def moved(column, place):
    """A column at those places, linear between bins."""
    return np.interp(place, np.arange(len(column)), column)


def turned(basis, place):
    """Rotations of the moved templates: moved along, and turning faster as their partials are higher; or None."""
    if basis.rotation is None:
        return None
    rotation = np.empty_like(basis.rotation)
    for i, note in enumerate(basis.note_of):
        higher = np.arange(len(place[note])) - place[note]  # bins
        turn = np.exp(2j * np.pi * basis.hop / basis.n_fft * higher)
        rotation[:, i] = moved(basis.rotation[:, i], place[note]) * turn
    return rotation


def divergence(N, template):
    """Kullback-Leibler divergence, in nats, of the columns of N, as shares, from a template, averaged by their sums.

    N [shape=(K, L), float, >= 0] is not all zero. The template [shape=(K, L), float, >= 0] has columns that sum to 1,
    and is above zero where N is.
    """
    share = N / np.maximum(N.sum(axis=0), np.finfo(np.float64).tiny)
    ratio = np.divide(share, template, out=np.ones_like(share), where=share > 0)
    return float(np.sum(N.sum(axis=0) * np.sum(share * np.log(ratio), axis=0)) / N.sum())
