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
from dataclasses import dataclass, replace

import numpy as np

import utils
from piano import pitch

N_SWEEPS = 40  # with the basis fixed at first, and with it free at last; more are no better, see benchmarks/README.md
N_ROUNDS, N_BETWEEN = 8, 8  # of estimating the factors, and sweeps after each
FIRMEST = 1e12  # the largest strength: the templates then stay as they are, to rounding
UNLISTED = 1.0  # gamma where a note is not listed
QUIET = 0.02  # of the mean frame: what is as loud as that is held back half as much
BEFORE_S, AFTER_S = 0.1, 0.5  # of a listed note that may sound too: half a window, and strings that die away
CENTS = np.arange(-24.0, 25, 2)
TUNED_WITH = 1.0  # semitones that a key's tuning is shared over
N_PARTIALS = 40  # of a note; what lies above is taken for the last
COMMON, SHARED, OWN = 0.5, 0.5, 0.5  # standard deviations of the three parts of g, in nepers
OCTAVES, KEYS = 0.2, 4.0  # that the common gain, and a partial's factors, are smooth over
LEVEL = 2.0  # standard deviation of a gain of the whole note, which U takes up
OBSERVED = 300.0  # counts that the average note is worth to g
HEARD = 3e-3  # of the most counts of a note: what has less says nothing of g
CONVERGED = 0.01  # nepers, a tenth of a decibel: another round follows
N_NEWTON = 12  # steps of Newton's method at most


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
        frames = (note.onset - BEFORE_S <= t) & (t <= note.offset + AFTER_S)
        for l in basis.notes.get(note.midi, ()):
            rate[l, frames] = np.minimum(rate[l, frames], UNLISTED * (1 - note.confidence))
    return rate


def adapt_basis(Y, basis, strength="auto", notes=None, *, seed=0, progress=None, map=map):
    """Fit a basis to a recording, a sweep over the whole of it at a time.

    ``auto`` lets the recording choose: S = 1 / D, where D is the Kullback-Leibler divergence of ``N / sum_k N`` from
    T, averaged over the columns by how much they sound. Dirichlet's prior
    of strength s has columns at an average distance in proportion to 1 / s, so the templates are trusted as far as
    the recording bears them out.

    Parameters
    ----------
    Y : np.ndarray [shape=(K, M), float or complex]
        Spectrogram, linear amplitude; may be a memory map.
    basis : Basis
        Where its columns are not described, the templates are neither tuned nor given factors.
    strength : float or "auto"
        S > 0; above ``FIRMEST`` it is taken for that.
    notes : list, optional
        What is played, see :func:`listed_rate`.
    seed, progress, map
        As for :func:`utils.nmf`.

    Returns
    -------
    basis : Basis
        Adapted, its rotations tuned along; columns sum to what they summed to.
    strength : float
        S.
    prior : np.ndarray [shape=(L, M), float32] or None
        Rate of the prior of the activations as it has turned out, for :func:`utils.nmf`; None without ``notes``.

    Raises
    ------
    InputError
        As from :func:`utils.nmf`.
    """
    H, level = basis.H, basis.H.sum(axis=0)
    described = basis.columns and basis.sr
    n_sweeps = 2 * N_SWEEPS + (2 * N_SWEEPS + N_ROUNDS * N_BETWEEN if described else 0)
    strength = strength if strength == "auto" else float(min(strength, FIRMEST))

    def count(n, _=None):
        if progress:
            progress(n, n_sweeps * Y.shape[1])

    rate = listed_rate(notes, basis, Y.shape[1]) if notes else None
    U, _ = utils.nmf(Y, H, N_SWEEPS, loss="kullback-leibler", seed=seed, progress=count, map=map)
    if not U.any():
        return basis, FIRMEST if strength == "auto" else strength, rate
    scale = utils.power_of_two(U.max())
    U *= (level / scale).astype(U.dtype)[:, None]
    utils.zero_below(U)
    quiet = QUIET * float(U.sum(axis=0).mean())
    fit = _Fit(Y, U, rate, scale, quiet, count, map)
    T = H.astype(np.float64) / level
    N = fit.counts(T)
    if described:
        cents, T, N = _tuned(fit, T, N, basis)
        T, N = _with_factors(fit, T, N, basis)
        basis = replace(basis, rotation=turned(basis, cents))
    if strength == "auto":
        strength = 1 / max(divergence(N, T), 1 / FIRMEST)
    pseudo_counts = strength * N.sum() / (10 * H.shape[1]) * T
    adapted = T
    for _ in range(N_SWEEPS):
        adapted = normalised(fit.sweep(adapted) + pseudo_counts)
    prior = None if rate is None else eased(rate, fit.U, quiet)
    return replace(basis, H=(adapted * level).astype(H.dtype)), strength, prior


@dataclass
class _Fit:
    """A recording and its activations, in units of ``scale``, which sweeps update; their prior; what to call."""

    Y: np.ndarray
    U: np.ndarray
    rate: np.ndarray | None
    scale: float
    quiet: float
    count: object
    map: object

    def counts(self, H, *, fixed=True):
        """N [shape=(K, L)]; where the activations are not ``fixed``, they have been updated before."""
        H = utils.zero_below(H.astype(self.U.dtype))
        blocks = list(utils.frame_slices(self.Y.shape[1], utils.NMF_BLOCK))
        work = functools.partial(_sweep_block, H=H, scale=self.scale, fixed=fixed, quiet=self.quiet)
        N = 0.0
        for frames, (U, N_block) in zip(blocks, self.map(work, map(self._job, blocks)), strict=True):
            self.U[:, frames] = U
            N = N + N_block.astype(np.float64)
            if not fixed:
                self.count(frames.stop - frames.start)
        return N

    def _job(self, frames):
        rate = None if self.rate is None else self.rate[:, frames]
        return functools.partial(utils.read_frames, self.Y, frames), self.U[:, frames], rate

    def sweep(self, H, n=1):
        """N after ``n`` updates of the activations."""
        for _ in range(n):
            N = self.counts(H, fixed=False)
        return N


def _sweep_block(job, *, H, scale, fixed, quiet):
    """U, updated unless ``fixed``, and N of one block; ``job`` is a function that reads it, its U, and its rates.

    Silent frames, whose activations are zero, cost nothing.
    """
    read, U, rate = job
    Y, U, floor = read(), U.copy(), utils.floor_of(H.dtype)
    sounding = np.flatnonzero(Y.any(axis=0))

    def ratio(V, u):
        S = H @ u
        S += floor
        return np.divide(V, S, out=S)

    def part(frames):
        frames = sounding[frames]
        V = np.ascontiguousarray(np.abs(Y[:, frames]), H.dtype)  # in the order of H U, or dividing takes far longer
        V /= H.dtype.type(scale)
        utils.zero_below(V)
        u = U[:, frames]
        if not fixed:
            u *= H.T @ ratio(V, u)
            if rate is not None:
                u /= 1 + eased(rate[:, frames], u, quiet)
            U[:, frames] = utils.zero_below(u)
        return ratio(V, u) @ u.T

    with utils.one_blas_thread():
        N = utils.in_threads(part, utils.frame_slices(len(sounding), utils.DIVERGENCE_BLOCK))
    return U, H * sum(N)


def eased(rate, U, quiet):
    """Rate of the prior at U: ``gamma / (1 + U / quiet)``, the slope of ``gamma quiet log(1 + U / quiet)``."""
    return rate / (1 + U / np.float32(quiet))


def normalised(H):
    """Columns that sum to 1."""
    return H / H.sum(axis=0)


# --- Tuning -------------------------------------------------------------------------------------------


def _tuned(fit, H0, N, basis):
    """Cents of each note, templates tuned by them, and N after sweeps with those; done twice, for N changes."""
    for _ in range(2):
        cents = tuning(N, H0, basis)
        T = warped(H0, cents, basis)
        N = fit.sweep(T, N_SWEEPS)
    return cents, T, N


def tuning(N, H0, basis):
    """Cents that each note is above its template [shape=(notes,)].

    Maximises ``sum_k N_kl log H0_l(k / 2^(c / 1200))`` on a grid, and by a parabola between, for each note together
    with its neighbours, weighted by ``exp(-(d / TUNED_WITH)^2 / 2)`` at d semitones.
    """
    notes = list(basis.notes.values())
    likelihood = np.empty((len(notes), len(CENTS)))
    for j, cents in enumerate(CENTS):
        T = warped(H0, np.full(len(notes), cents), basis)
        of_columns = np.sum(N * np.log(np.maximum(T, np.finfo(np.float32).tiny)), axis=0)
        likelihood[:, j] = [of_columns[l].sum() for l in notes]
    distance = np.subtract.outer(list(basis.notes), list(basis.notes))
    likelihood = np.exp(-((distance / TUNED_WITH) ** 2) / 2) @ likelihood
    best = np.clip(likelihood.argmax(axis=1), 1, len(CENTS) - 2)
    before, at, after = (likelihood[np.arange(len(notes)), best + step] for step in (-1, 0, 1))
    bend = np.minimum(before - 2 * at + after, -np.finfo(np.float64).tiny)
    return CENTS[best] + (CENTS[1] - CENTS[0]) * np.clip((before - after) / (2 * bend), -1, 1)


def warped(H0, cents, basis):
    """Templates, each ``H0_l(k / 2^(c_l / 1200))``, linear between bins, and normalised."""
    return normalised(np.maximum(_moved(H0, cents, basis), np.finfo(np.float32).tiny))


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
    bins, moved = np.arange(len(columns)), np.empty(columns.shape, np.result_type(columns, np.float64))
    for c, columns_of_note in zip(cents, basis.notes.values(), strict=True):
        for l in columns_of_note:
            moved[:, l] = np.interp(bins / 2 ** (c / 1200), bins, columns[:, l])
    return moved


# --- Factors of partials ------------------------------------------------------------------------------


def _with_factors(fit, T0, N, basis):
    """Templates with the factors of their partials, and N after sweeps with those."""
    partial_of = partials(basis)
    T, g = T0, np.zeros((len(basis.notes), N_PARTIALS))
    listed = np.ones(len(basis.notes), bool)
    if fit.rate is not None:
        listed = np.array([fit.rate[l].min() < UNLISTED for l in basis.notes.values()])
    for _ in range(N_ROUNDS):
        g = factors(N, T0 * fit.U.sum(axis=1, dtype=np.float64), partial_of, basis, g, listed)
        T = T0.copy()
        for j, l in enumerate(basis.notes.values()):
            T[:, l] *= np.exp(g[j, partial_of[:, j]])[:, None]
        T = normalised(T)
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


def factors(N, expected, partial_of, basis, start, listed):
    """Log factors g of the partials [shape=(notes, N_PARTIALS)], by Newton's method, see the top of this module.

    Parameters
    ----------
    N, expected : np.ndarray [shape=(K, L)]
        Counts, and what they would be with g = 0.
    partial_of : np.ndarray [shape=(K, notes), int]
        From :func:`partials`.
    basis : Basis
    start : np.ndarray [shape=(notes, N_PARTIALS)]
        Where the method starts.
    listed : np.ndarray [shape=(notes,), bool]
        Notes that are played as far as is known; the others only follow.
    """

    def by_partial(counts):
        columns = zip(partial_of.T, basis.notes.values(), strict=True)
        return np.stack([np.bincount(p, counts[:, l].sum(axis=1), N_PARTIALS) for p, l in columns])

    N, D = by_partial(N), by_partial(expected)
    heard = listed & (N.sum(axis=1) > HEARD * N.sum(axis=1).max())
    unit = OBSERVED * heard.sum() / N.sum()
    f = partial_frequencies(basis)
    exists = f < basis.sr / 2
    note, n = np.nonzero(exists)
    octave, key = np.log2(f[exists]), np.array(list(basis.notes))[note]
    told = heard[note]
    N, D = unit * N[exists][told], unit * D[exists][told]

    def likeness(x, width):
        return np.exp(-((np.subtract.outer(x, x[told]) / width) ** 2) / 2)

    same_note, same_partial = (np.equal.outer(x, x[told]) for x in (note, n))
    covariance = COMMON**2 * likeness(octave, OCTAVES) + SHARED**2 * same_partial * likeness(key, KEYS)
    covariance += OWN**2 * (same_note & same_partial) + LEVEL**2 * same_note
    K, g = covariance[told], start[exists][told]
    for _ in range(N_NEWTON):  # Rasmussen and Williams, Gaussian Processes for Machine Learning, algorithm 3.1
        mean = D * np.exp(g)
        root = np.sqrt(mean)
        b = mean * g + N - mean
        B = np.eye(len(g)) + root[:, None] * K * root
        a = b - root * np.linalg.solve(B, root * (K @ b))  # of numpy, whose BLAS has one thread here
        step = np.clip(K @ a - g, -1, 1)
        g += step
        if np.abs(step).max() < CONVERGED:
            break
    found = np.zeros(exists.shape)
    found[exists] = covariance @ a
    return found


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
