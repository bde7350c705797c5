"""The core shared by make_init_H.py, NMF.py and CNMF.py.

It holds four things, in the order in which data flows: the harmonic-Gaussian-mixture basis, NMF with the
basis held fixed, Kameoka's complex NMF with the basis held fixed, and reading and writing.

Symbols, everywhere in this suite (k = frequency bin, l = basis vector, m = frame):

====  ===================  ==========================================================
Y     (K, M)               observed spectrogram, linear amplitude
H     (K, L) >= 0          fixed basis, one column per note (or state of a note)
U     (L, M) >= 0          activations
P     (L, K, M), |P| = 1   phase of each component as e^{j phi}
S     (K, M)               magnitude model, H U
F     (K, M) complex       complex model, sum_l H_kl U_lm P_lkm
beta  (L, K, M)            share of each component, H_kl U_lm / S_km
X     (L, K, M) complex    components, H U P + beta (Y - F); they sum to Y
====  ===================  ==========================================================

Because H is fixed, no frame depends on another: everything here works through blocks of frames.

References
----------
.. [1] D. D. Lee and H. S. Seung, "Algorithms for non-negative matrix factorization", NIPS 2000.
.. [2] H. Kameoka, N. Ono, K. Kashino and S. Sagayama, "Complex NMF: a new sparse representation for
       acoustic signals", ICASSP 2009.
.. [3] C. Fevotte and J. Idier, "Algorithms for nonnegative matrix factorization with the beta-divergence",
       Neural Computation 23(9), 2011.
.. [4] A. Cichocki and A.-H. Phan, "Fast local algorithms for large scale nonnegative matrix and tensor
       factorizations", IEICE Transactions on Fundamentals E92-A(3), 2009.
.. [5] C.-J. Hsieh and I. S. Dhillon, "Fast coordinate descent methods with variable selection for non-negative
       matrix factorization", KDD 2011.
"""

from __future__ import annotations

import functools
import math
import pickle
import tempfile
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from piano import blocks, kernels

C3_MIDI, C3_HZ = 48, 130.81  # C3 and its fundamental; every other note lies whole semitones away
DIVERGENCE_FLOOR = 1e-7  # 140 dB below the loudest; what silence is taken for by divergences that it makes infinite
SILENT = 1e-4  # of the loudest activation in a frame, 80 dB below it: where phases are held, what is less is zero
NMF_BLOCK = 1024  # frames, which go to all cores
EUCLIDEAN_BLOCK = 512  # frames of one core: smaller products take BLAS longer a frame, larger ones leave its cache
DIVERGENCE_BLOCK = 64  # frames of one core where S is needed as a whole, for the same reasons
PHASE_BLOCK_BYTES = 2**26  # of one block of frames; the peak memory is a few times this where phases are wanted


class InputError(ValueError):
    """A file or a value that the user can put right; the message names what, got and expected."""


def floor_of(dtype):
    """What is below it is zero wherever the loudest is about one: the root of the smallest normal number.

    No product of two numbers that are not below it is subnormal; subnormal ones cost some processors a hundred times
    the normal, and multiplicative updates would decay into them. It is -380 dB in single precision.
    """
    return np.sqrt(np.finfo(dtype).tiny)


def zero_below(x):
    """Set what is below the floor in real ``x``, in place, to zero; returns ``x``."""
    np.copyto(x, 0, where=np.abs(x) < floor_of(x.dtype))
    return x


# --- Basis ------------------------------------------------------------------------------------------


def note_frequency(midi, c3=C3_HZ):
    """Fundamental frequency in Hz of MIDI note ``midi``, whole semitones away from C3 at ``c3`` Hz."""
    return c3 * 2.0 ** ((midi - C3_MIDI) / 12)


def harmonic_gmm(f0, *, sr=22050, n_fft=2048, n_peaks=50, damping=0.9, variance=1.0):
    """Initial spectrum of a note: a Gaussian mixture with one peak per harmonic, integrated over each bin.

    ``p(f) = sum_{n=1..N} damping^(n-1) N(f; n f0, variance)``. A peak 1 Hz wide is far narrower than a bin
    (10.8 Hz at the defaults), so a bin gets the *integral* of p over its width, not p at its centre.

    Parameters
    ----------
    f0 : float
        Fundamental frequency in Hz, below Nyquist.
    sr, n_fft : int
        Sampling rate in Hz and STFT length in samples; ``K = n_fft // 2 + 1``.
    n_peaks : int
        Number of harmonics N; those above Nyquist are dropped.
    damping : float
        Weight of each harmonic relative to the one below it, > 0.
    variance : float
        Variance of each peak in Hz^2, > 0.

    Returns
    -------
    np.ndarray [shape=(K,), float64, > 0]
        Sums to 1; every bin holds at least about 1e-8, for multiplicative updates never leave zero.

    Raises
    ------
    InputError
        If ``f0`` is not between 0 and Nyquist, or ``variance`` so large that no bin gets any mass.
    """
    from scipy.special import ndtr  # only learning a basis needs scipy

    if not 0 < f0 < sr / 2:
        raise InputError(f"fundamental frequency: got {f0:g} Hz, expected between 0 and Nyquist, {sr / 2:g} Hz")
    n = np.arange(1, min(n_peaks, math.ceil(sr / 2 / f0)) + 1)
    n = n[n * f0 < sr / 2]
    edges = (np.arange(n_fft // 2 + 2) - 0.5) * sr / n_fft
    mass = np.diff(ndtr((edges[:, None] - n * f0) / math.sqrt(variance)), axis=0)  # (K, N)
    p = mass @ damping ** (n - (n[-1] if damping > 1 else 1.0))  # the largest weight is 1, whatever the damping
    if not p.any():
        raise InputError(f"variance: got {variance:g} Hz^2, expected peaks narrower than that")
    p = p / p.sum() + 1e-8
    return p / p.sum()


def learn_spectra(Y, H, n_iter):
    """Learn the spectra of one note from its template, by Euclidean NMF with H and U both free [1]_.

    ``U <- U * (H^T Y) / (H^T H U)``, then ``H <- H * (Y U^T) / (H U U^T)``. The states of a note start in time order,
    each active where its share of the sound is (attack first), and come back in that order.

    Parameters
    ----------
    Y : np.ndarray [shape=(K, M), float, >= 0]
        Magnitude spectrogram of one note, not all zero.
    H : np.ndarray [shape=(K, R), float, > 0]
        Initial spectra, one column per state. What is returned has the same shape, and columns that sum to 1.
    n_iter : int
        Number of sweeps.
    """
    Y = np.asarray(Y, dtype=np.float64)
    Y = Y / Y.max()  # spectra that sum to 1 do not know how loud they were
    H = np.array(H, dtype=np.float64)
    loudness, n_states = Y.sum(axis=0), H.shape[1]
    # Frame m belongs to the state in whose share of the total magnitude its own middle falls.
    state = ((np.cumsum(loudness) - loudness / 2) / loudness.sum() * n_states).astype(int)
    U = loudness * np.where(state == np.arange(n_states)[:, None], 1.0, 0.1)  # (R, M)
    floor = floor_of(U.dtype)
    for _ in range(n_iter):
        U *= (H.T @ Y) / np.maximum(H.T @ H @ U, floor)
        zero_below(U)
        H *= (Y @ U.T) / np.maximum(H @ (U @ U.T), floor)
        zero_below(H)
    order = np.argsort((U * np.arange(U.shape[1])).sum(axis=1) / np.maximum(U.sum(axis=1), floor))
    H = H[:, order]
    return H / H.sum(axis=0)


# --- NMF --------------------------------------------------------------------------------------------


def nmf(Y, H, n_iter, *, loss="frobenius", solver="mu", seed=0, prior=None, each=blocks.each):
    """Fit activations to a magnitude spectrogram with ``H`` held fixed.

    Minimises D(|Y|, H U) by multiplicative updates [1]_ [3]_ or by coordinate descent [4]_ [5]_, which never raise it,
    from a start of ``|N(0, 1)|`` scaled to the loudness of each frame. Works in the precision of Y, block by block.

    Parameters
    ----------
    Y : np.ndarray [shape=(K, M), float or complex] or Spectrogram
        Linear amplitude (not dB), taken by magnitude. A memory map is read by blocks.
    H : np.ndarray [shape=(K, L), float, >= 0]
        Basis; no column may be zero.
    n_iter : int
        Number of iterations, >= 1.
    loss : {"frobenius", "kullback-leibler", "itakura-saito"} or 0.5
        Divergence D, in scikit-learn's words; ``frobenius`` is ``1/2 ||Y - H U||^2``. 0.5 is the beta-divergence
        half-way between the two others, ``2 sum (V^(1/2) - S^(1/2))^2 / S^(1/2)`` [3]_, each frame in a unit of its
        own: the loudest bins, where a spectrum errs most, count less than by Kullback and Leibler's. It and
        ``itakura-saito`` are infinite for silence, and add ``DIVERGENCE_FLOOR``, of that unit or of the loudest bin,
        to V = |Y| and to S = H U.
    solver : {"mu", "cd"}
        Multiplicative updates, or coordinate descent, which comes far closer to the minimum in the same time, and
        leaves a frame alone once it is there; ``itakura-saito`` has no ``cd``, and 0.5 no ``mu``.
    seed : int
        Of the random start.
    prior : tuple, optional
        ``gamma, quiet``, np.ndarray [shape=(L, M), float, >= 0] and float, for ``kullback-leibler`` and 0.5: with
        a_lm = U_lm sum_k H_kl, adds ``sum_lm gamma_lm quiet log(1 + a_lm / quiet)`` to D. So a note that is soft
        beside ``quiet`` must explain 1 + gamma times what it adds, and a loud one hardly more than that. Of 0.5 that is
        what it adds in the weights that bins have there, S^(-1/2), and ``cost`` has no such part.
    each : callable
        Works on the blocks: :func:`blocks.each`, with its ``map`` and ``progress`` if they are wanted.

    Returns
    -------
    U : np.ndarray [shape=(L, M), dtype of |Y|, >= 0]
        Activations.
    cost : np.ndarray [shape=(n_iter,), float64]
        D after each iteration; never rises.

    Raises
    ------
    InputError
        If shapes disagree, or a value is negative, zero for a whole column, or not finite; if the loss has no such
        solver, or no prior.
    """
    Y, H, scale = _in_units(Y, H)
    if (loss, solver) not in UPDATES:
        solvers = [of_loss for name, of_loss in UPDATES if name == loss]
        raise InputError(f"solver: got {solver} with {loss}, expected {' or '.join(solvers) or 'another loss'}")
    if prior is not None and loss not in ("kullback-leibler", 0.5):
        raise InputError(f"prior: got one with {loss}, expected kullback-leibler or 0.5")
    slices, rng = list(blocks.frame_slices(Y.shape[1], NMF_BLOCK)), np.random.default_rng(seed)

    def jobs():
        for frames in slices:
            start = np.abs(rng.standard_normal((frames.stop - frames.start, H.shape[1]), dtype=np.float32))
            told = prior and (prior[0][:, frames].astype(H.dtype), H.dtype.type(prior[1] / Y.unit))
            yield Y.at(frames), start.T.astype(H.dtype), told

    work = functools.partial(_nmf_block, H=H, G=gram(H).astype(H.dtype), loss=loss, solver=solver, n_iter=n_iter)
    U, cost = np.empty((H.shape[1], Y.shape[1]), H.dtype), np.zeros(n_iter)
    degree = {"frobenius": 2, "itakura-saito": 0}.get(loss, 1)  # D grows with that power of the gain
    for frames, (U_block, divergence) in zip(slices, each(work, jobs(), n_jobs=len(slices)), strict=True):
        U[:, frames] = U_block * H.dtype.type(scale)
        cost = blocks.add_frames(cost, divergence * Y.unit**degree)
    return U, cost


def _nmf_block(job, *, H, G, loss, solver, n_iter):
    """Fit one block: ``job`` is its frames, the start, (L, M), whose loudness is not set yet, and its prior.

    Frames go to all cores, in parts whose size does not depend on their number; silent ones are zero and cost nothing.
    Returns U and the divergence of each part after each iteration, (n_iter, parts).
    """
    frames, start, prior = job
    Y = frames.read()
    sounding = np.flatnonzero(Y.any(axis=0))
    U, stop = np.zeros(start.shape, H.dtype), np.zeros(1, bool)
    updates = UPDATES[loss, solver]

    def part(m):
        m = sounding[m]
        V = zero_below(np.ascontiguousarray(np.abs(Y[:, m]), H.dtype))
        u = start[:, m]
        u *= V.sum(axis=0) / (H.sum(axis=0) @ u)
        told = prior and (prior[0][:, m], prior[1])
        U[:, m], divergence, *_ = updates(V, H, u, n_iter, stop, G=G, prior=told)
        return divergence[:, None]

    if solver == "cd":  # here, and not by a thread
        kernels.compiled(kernels.descend_gram if loss == "frobenius" else kernels.descend_bins, H.dtype)
    size = EUCLIDEAN_BLOCK if loss == "frobenius" else DIVERGENCE_BLOCK
    divergence = blocks.in_threads(part, blocks.frame_slices(len(sounding), size), stop)
    return U, np.hstack([np.zeros((n_iter, 1)), *divergence])


def cost_scale(Y, loss="frobenius"):
    """What a cost is divided by to be free of gain and length.

    ``frobenius``: ``1/2 sum |Y|^2``, the cost of the empty model; ``kullback-leibler``: ``sum |Y|``;
    ``itakura-saito``, free of gain as it is: the number of bins, K M.
    """
    Y = spectrogram(Y)
    if loss == "frobenius":
        return Y.energy * Y.unit**2 / 2
    return float(Y.loudness.sum() * Y.unit if loss == "kullback-leibler" else math.prod(Y.shape))


# The updates of one block, V = |Y|, all with one signature. They return U and the divergence after each iteration,
# (n_iter,), work in the precision of V, whose largest value should be about one, and soon end once ``stop[0]`` is set.


def _euclidean_updates(V, H, U, n_iter, stop, *, G, sparse=(0.0, 1.0), **_):
    """``U <- U * (H^T V) / (H^T H U + weight p U^(p-1))`` lowers ``1/2 sum (V - H U)^2`` [1]_, and a penalty.

    ``H^T V`` and ``G = H^T H`` never change, so an iteration is one (L, L) by (L, M) product, and the distance
    comes from the same matrices: with ``E = H^T V - G U``, a step from U to U' lowers it by exactly
    ``1/2 sum (U' - U) * (E + E')``. ``sparse`` is weight and p; returns ``sum U^p`` after each iteration as well.
    """
    floor, (weight, p) = floor_of(V.dtype), sparse
    A = zero_below(H.T @ V)  # (L, M)
    U = np.maximum(U, floor, order="C")  # every array in one order: strides would double the time
    GU = G @ U
    E = A - GU
    U_next = np.empty_like(U)
    decrease, penalty = np.zeros((2, n_iter))
    for i in blocks.until(stop, n_iter):
        if weight:
            GU += weight * p * U ** (p - 1)
        np.divide(A, GU, out=U_next)
        U_next *= U
        U_next += floor  # adds nothing to an activation that counts, and is quicker than a maximum
        step = np.subtract(U_next, U, out=U)
        decrease[i] = np.vdot(step, E) / 2
        np.matmul(G, U_next, out=GU)
        np.subtract(A, GU, out=E)
        decrease[i] += np.vdot(step, E) / 2
        U, U_next = U_next, step
        if weight:
            penalty[i] = (U**p).sum()
    U[floor >= U] = 0
    if not weight:  # Lee and Seung's theorem [1]_; of a step that changes nothing, rounding may say otherwise
        np.maximum(decrease, 0, out=decrease)
    return U, _distances(V, H, U, decrease), penalty


def _distances(V, H, U, decrease):
    """``1/2 sum (V - H U)^2`` after each iteration, the last summed from the residual and the others counted back.

    So none loses its digits to cancellation, however close the fit.
    """
    residual = H @ U
    residual -= V
    residual = residual.astype(np.float64, copy=False)
    if np.vdot(residual, residual) < 1e-3 * np.vdot(V, V):  # a small difference of large numbers in single precision
        residual = V - H.astype(np.float64) @ U
    return np.vdot(residual, residual) / 2 + np.append(np.cumsum(decrease[:0:-1])[::-1], 0)


def _euclidean_descent(V, H, U, n_iter, stop, *, G, **_):
    """Each activation in turn goes to its minimum: ``U_l <- max(0, U_l + E_l / G_ll)``, ``E = H^T V - G U`` [4]_."""
    A = np.ascontiguousarray((H.T @ V).T)  # (M, L)
    U = np.array(U.T, order="C")
    decrease = np.zeros(n_iter)
    kernels.compiled(kernels.descend_gram, U.dtype)(A, G, U, decrease, stop)
    return U.T, _distances(V, H, U.T, decrease)


def kullback_leibler(V, H, U, floor, prior=None):
    """Update U in place each time it is asked to, and yield ``S = H U + floor``.

    ``U <- U * (H^T (V / S)) / (H^T 1)`` lowers the Kullback-Leibler divergence ``sum V log(V/S) - V + S`` [1]_. With a
    prior, ``gamma`` [shape=(L, M)] and ``quiet``, U is divided by ``1 + gamma / (1 + a / quiet)`` besides, see
    :func:`nmf`.

    V [shape=(K, M), float, >= 0] are magnitudes, the largest of them about one. H [shape=(K, L), float, >= 0] is the
    basis; no column may be zero. U [shape=(L, M), float, >= 0] is where activations start; what is zero stays so.
    ``floor`` is that of S, > 0, so that nothing is divided by zero. Yields S of the updated U
    [shape=(K, M), float, > 0]; the next one takes its place.
    """
    column_sums = H.sum(axis=0)[:, None]
    S, ratio, factor = np.empty_like(V), np.empty_like(V), np.empty_like(U)
    np.matmul(H, U, out=S)
    S += floor
    while True:
        np.divide(V, S, out=ratio)
        kullback_leibler_step(U, np.matmul(H.T, ratio, out=factor), column_sums, prior)
        np.matmul(H, U, out=S)
        S += floor
        yield S


def kullback_leibler_step(U, factor, column_sums, prior=None):
    """The update of :func:`kullback_leibler` alone, for whoever has ``V / S`` already.

    U [shape=(L, M), float, >= 0] is updated in place. ``factor`` [shape=(L, M), float, >= 0] is ``H^T (V / S)``, and is
    written over. ``column_sums`` [shape=(L, 1), float, > 0] are those of H; ``prior`` is as there. Where bins have
    weights W [shape=(K, M)], they are ``H^T (W V / S)`` and ``H^T W`` [shape=(L, M)].
    """
    factor /= column_sums
    U *= factor
    if prior is not None:
        U /= 1 + prior[0] / (1 + U * (column_sums / prior[1]))
    zero_below(U)


def _kullback_leibler_updates(V, H, U, n_iter, stop, *, prior=None, **_):
    """:func:`kullback_leibler`, with its divergence."""
    floor, column_sums = floor_of(V.dtype), H.sum(axis=0)
    of_V = np.sum(V * np.log(np.maximum(V, floor)), dtype=np.float64) - V.sum(dtype=np.float64)
    divergence, log_S = np.zeros(n_iter), np.empty_like(V)
    for i, S in zip(blocks.until(stop, n_iter), kullback_leibler(V, H, U, floor, prior), strict=False):
        log_likelihood = np.einsum("km,km->k", V, np.log(S, out=log_S)).sum(dtype=np.float64)
        divergence[i] = of_V - log_likelihood + column_sums @ U.sum(axis=1, dtype=np.float64)
        if prior is not None:
            divergence[i] += _penalty(U, column_sums, *prior).sum()
    return U, divergence


def _penalty(U, column_sums, rate, quiet):
    """The prior's part of the divergence, of each frame, see :func:`nmf`."""
    return np.sum(quiet * rate * np.log1p(U * (column_sums[:, None] / quiet)), axis=0, dtype=np.float64)


def _descent(V, H, U, n_iter, stop, *, prior=None, half=False, **_):
    """Each activation in turn goes towards its minimum, and never past it.

    With a = sum_k H S^(1-1/q), b = sum_k H V S^(-1/q) and c = sum_k H^2 V S^(-1/q-1) the divergence has the slope a - b
    along U_l, where q = 1 for Kullback and Leibler's, and 2/3 for 0.5, which is ``half`` of it. What is put in place of
    the slope at U_l + x agrees with it in value and slope, is no steeper on the way, and so reaches zero no later::

        U <- U + ((b / a)^q - 1) b / c     where b >= a, for a - b (1 + x c / b)^(-1/q)
        U <- U (c U / (c U + a - b))^q     where b < a, for a - b - c U ((1 + x / U)^(-1/q) - 1)

    With q = 1, Newton's step is (b - a) / c [5]_, and the multiplicative update is the first with U in place of b / c
    >= U. With a prior, a grows by ``gamma a / (1 + U a / quiet)``.
    """
    column_sums, floor, of_V = H.sum(axis=0), floor_of(V.dtype), 0.0
    rate, quiet = (np.zeros_like(U), V.dtype.type(1)) if prior is None else prior
    unit = frame_units(V)
    V, U, Ht, rate = (np.array(array.T, order="C") for array in (V / unit, U / unit, H, rate))  # frame first
    quiet = quiet / unit
    if half:
        floor = V.dtype.type(DIVERGENCE_FLOOR)
        V += floor
    else:
        of_V = np.sum(V * np.log(np.maximum(V, floor)) - V, axis=1, dtype=np.float64)
    kernel = kernels.compiled(kernels.descend_bins, V.dtype)
    S, of_frame, divergence = np.empty_like(V), np.zeros(len(V)), np.zeros(n_iter)
    state = np.full(len(V), kernels.ALL)
    for i in blocks.until(stop, n_iter):
        m = np.flatnonzero(state != kernels.DONE)
        kernel(V, Ht, column_sums, rate, quiet, half, floor, S, U, state, i)
        if half:
            root = np.sqrt(S[m])
            of_frame[m] = 2 * np.sum((np.sqrt(V[m]) - root) ** 2 / root, axis=1, dtype=np.float64)
        else:
            log_likelihood = np.sum(V[m] * np.log(S[m]), axis=1, dtype=np.float64)
            of_frame[m] = of_V[m] - log_likelihood + U[m].astype(np.float64) @ column_sums
        if prior is not None and not half:
            of_frame[m] += _penalty(U[m].T, column_sums, rate[m].T, quiet[m])
        divergence[i:] = of_frame @ unit
        if (state == kernels.DONE).all():
            break
    return U.T * unit, divergence


def frame_units(V):
    """Unit of each frame [shape=(M,), float] of V [shape=(K, M), float, >= 0]: its mean bin, weighted by itself.

    It is the power of two just above that, so that dividing by it is free of rounding; 1 for silence.
    """
    loud = np.square(V).sum(axis=0) / np.maximum(V.sum(axis=0), floor_of(V.dtype))
    return power_of_two(loud).astype(V.dtype)


def _itakura_saito_updates(V, H, U, n_iter, stop, **_):
    """``U <- U * ((H^T (V / S^2)) / (H^T (1 / S)))^(1/2)`` lowers ``sum V/S - log(V/S) - 1`` with S = H U [3]_.

    The exponent keeps it monotone. V and S both stand on ``DIVERGENCE_FLOOR``: the divergence of silence is infinite.
    """
    floor = V.dtype.type(DIVERGENCE_FLOOR)
    V = V + floor
    of_V = np.log(V).sum(dtype=np.float64) + V.size
    divergence = np.zeros(n_iter)
    Ht = np.ascontiguousarray(H.T)
    H = np.column_stack([H, np.full(len(H), floor)])  # S = H U + floor as one product
    U_and_1 = np.vstack([U, np.ones_like(U[:1])])
    U = U_and_1[:-1]
    inverse = 1 / (H @ U_and_1)  # of S
    ratio = V * inverse
    above, below = np.empty((2, *U.shape), U.dtype)
    for i in blocks.until(stop, n_iter):
        ratio *= inverse
        np.matmul(Ht, ratio, out=above)
        np.matmul(Ht, inverse, out=below)
        above /= below
        U *= np.sqrt(above, out=above)
        zero_below(U)
        np.matmul(H, U_and_1, out=inverse)
        np.divide(1, inverse, out=inverse)
        np.multiply(V, inverse, out=ratio)
        divergence[i] = ratio.sum(axis=1).sum(dtype=np.float64) - _sum_log(inverse) - of_V
    return U, divergence


def _sum_log(x):
    """``sum log x``, of products of four: a logarithm takes longer. x lies within a billion times one, either way."""
    n = len(x) // 4 * 4
    return sum(np.log(part).sum(dtype=np.float64) for part in (x[:n].reshape(4, -1).prod(axis=0), x[n:]))


UPDATES = {
    ("frobenius", "mu"): _euclidean_updates,
    ("frobenius", "cd"): _euclidean_descent,
    ("kullback-leibler", "mu"): _kullback_leibler_updates,
    ("kullback-leibler", "cd"): _descent,
    (0.5, "cd"): functools.partial(_descent, half=True),
    ("itakura-saito", "mu"): _itakura_saito_updates,
}


# --- Complex NMF ------------------------------------------------------------------------------------


class Part(NamedTuple):
    """A block of frames of a complex NMF."""

    U: np.ndarray  # (L, frames)
    P: np.ndarray | None  # (R, K, frames), the phases that components have; None where they were not asked for
    row: np.ndarray  # (L,) int: component l has the phase P[row[l]]
    F: np.ndarray  # (K, frames)
    error: np.ndarray  # (n_iter,) sum |Y - F|^2 after each sweep, over all frames so far; of sweeps (n_iter, frames)
    cost: np.ndarray  # (n_iter,) the whole objective, the same way
    frames: slice | None = None
    noise: np.ndarray | float = 0.0  # (K, frames), magnitude of what has no phase and no part of F, see phase.start


class Start(NamedTuple):
    """Where the phases of a complex NMF start, and whether they move; :func:`phase.start` is one more."""

    n_frames: int | None  # of a block; None: as many as ``PHASE_BLOCK_BYTES`` hold
    job: Callable  # of a slice of frames: what ``begin`` takes; both can be pickled
    begin: Callable  # of that: what ``sweeps`` takes besides Y
    sweeps: Callable  # such as :func:`held_sweeps`: a :class:`Part` in the units of Y and H


def mixture_phases():
    """Start from ``P = Y/|Y|``, where phases are pinned: it is a fixed point of the sweep."""
    return Start(EUCLIDEAN_BLOCK, _itself, _itself, _pinned_sweeps)


def random_phases(seed=0, n_frames=None):
    """Start from uniformly random phases, which move, in blocks of ``n_frames``; no number depends on their size."""
    return Start(n_frames, _itself, _itself, functools.partial(_moving_sweeps, seed=seed))


@contextmanager
def kept(start, Y, folder=None, each=blocks.each):
    """Context of a start that is worked out once, and lies in a temporary file in ``folder``, for several runs.

    ``start`` is a :class:`Start`, Y a :class:`Spectrogram`, ``each`` as for :func:`nmf`. The file has K M 8 bytes for
    each phase that sounds, in single precision.
    """
    slices, place = list(blocks.frame_slices(Y.shape[1], start.n_frames or EUCLIDEAN_BLOCK)), {}
    with tempfile.TemporaryFile(dir=folder) as file:
        begun = each(start.begin, (start.job(frames) for frames in slices), n_jobs=len(slices))
        for frames, part in zip(slices, begun, strict=True):
            place[frames.start] = file.tell()
            pickle.dump(part, file)

        def job(frames):
            file.seek(place[frames.start])
            return pickle.load(file)

        yield start._replace(job=job, begin=_itself)


def complex_nmf(Y, H, n_iter, **options):
    """:func:`complex_nmf_blocks` all in memory: U, P [shape=(L, K, M)], F and the cost after each sweep."""
    parts = list(complex_nmf_blocks(Y, H, n_iter, **options))
    arrays = zip(*((part.U, part.P[part.row], part.F) for part in parts), strict=True)
    return *(np.concatenate(array, axis=-1) for array in arrays), parts[-1].cost


def complex_nmf_blocks(Y, H, n_iter, *, phase_init=None, p=1.2, sparsity=1e-5, with_phase=True, each=blocks.each):
    """Kameoka's complex NMF [2]_ with ``H`` held fixed, one block of frames after another.

    Minimises ``sum |Y - F|^2 + 2 lambda sum U^p`` with ``lambda = sparsity_weight(...)``, computed once for the whole
    file. Memory does not grow with the number of frames. Activations start flat, at ``sum_k |Y_km| / sum_kl H_kl``,
    unless the start has others.

    Parameters
    ----------
    Y : np.ndarray [shape=(K, M), complex] or Spectrogram
        A memory map is read by blocks. complex64 is worked on in single precision where phases move, everything
        else in double precision.
    H : np.ndarray [shape=(K, L), float, >= 0]
        Basis; no column may be zero.
    n_iter : int
        Number of sweeps, >= 1.
    phase_init : Start
        Where the phases come from, and whether they move; by default :func:`mixture_phases`.
    p : float
        Exponent of the sparsity penalty, 0 < p < 2.
    sparsity : float
        Scale-free weight s of the penalty, >= 0.
    with_phase : bool
        Whether parts have P.
    each : callable
        As for :func:`nmf`.

    Yields
    ------
    Part
        In order of frames; ``error`` and ``cost`` of the last one are the file's.

    Raises
    ------
    InputError
        If Y is not complex, shapes disagree, or a value is negative, zero for a whole column, or not finite.
    """
    check_complex(Y)
    Y, H, scale = _in_units(Y, H)
    start = phase_init or mixture_phases()
    # The weight in the units of Y and H: sparsity_weight grows with the gain as the first term over the second does
    weight = sparsity_weight(Y.energy, Y.shape[1], H.shape[1], p, sparsity) * (scale / Y.unit) ** p
    sweeps = functools.partial(start.sweeps, H=H, G=gram(H), n_iter=n_iter, weight=weight, p=p)
    work = functools.partial(_swept, begin=start.begin, sweeps=sweeps, with_phase=with_phase)
    most = max(blocks.available_cores(), PHASE_BLOCK_BYTES // (H.size * Y.dtype.itemsize))
    slices = list(blocks.frame_slices(Y.shape[1], start.n_frames or most))

    def parts():
        error = cost = np.zeros(n_iter)
        results = iter(each(work, ((Y.at(frames), start.job(frames)) for frames in slices), n_jobs=len(slices)))
        for frames in slices:
            part = next(results)
            error, cost = (
                blocks.add_frames(total, of_frame * Y.unit**2)
                for total, of_frame in ((error, part.error), (cost, part.cost))
            )
            U, F = part.U * part.U.dtype.type(scale), part.F * H.dtype.type(Y.unit)
            noise = part.noise * H.dtype.type(Y.unit)
            part = part._replace(U=U, F=F, error=error, cost=cost, frames=frames, noise=noise)
            yield part
            del part, U, F, noise  # they are large, and nobody needs them while the next ones are worked out

    return parts()  # a generator of its own, so that bad input is refused here and now


def _itself(job):
    return job


def _swept(job, *, begin, sweeps, with_phase):
    """The :class:`Part` of one block, wherever it is worked out."""
    frames, told = job
    part = sweeps(frames.read(), begin(told))
    return part if with_phase else part._replace(P=None)


def sparsity_weight(energy, n_frames, n_components, p, sparsity):
    """Weight of the sparsity penalty, ``lambda = s (sum |Y|^2 / (M L))^(1 - p/2)``.

    The paper's weight [2]_, ``1e-5 sum |Y|^2 / L^(1 - p/2)``, grows with the gain and the length of the
    recording. This one is free of both: scaling Y by c scales U by c, and repeating Y repeats U.
    """
    return sparsity * (energy / (n_frames * n_components)) ** (1 - p / 2)


def _pinned_sweeps(Y, _, H, G, n_iter, weight, p):
    """Sweeps of one block from the mixture phase [shape=(K, frames)], in double precision.

    With ``P = Y/|Y|`` and beta = H U / S, X stays a positive multiple of Y/|Y|: no phase moves, |X|/beta is
    |Y|, and the sweep *is* the sparse Euclidean update on |Y|. The phases are pinned there: where S > |Y|
    the point is a saddle, which rounding errors left to themselves leave after some hundred sweeps.
    """
    H, sounding = H.astype(np.float64), np.flatnonzero(Y.any(axis=0))  # silent frames cost nothing
    V = zero_below(np.abs(Y[:, sounding]).astype(np.float64))
    start = np.broadcast_to(V.sum(axis=0) / H.sum(), (H.shape[1], len(sounding)))
    u, distance, penalty = _euclidean_updates(V, H, start, n_iter, np.zeros(1, bool), G=G, sparse=(weight, p))
    phase = unit_phase(Y)
    U, F = np.zeros((H.shape[1], Y.shape[1]), phase.real.dtype), np.zeros_like(phase)
    U[:, sounding] = zero_below(u.astype(U.dtype))
    F[:, sounding] = (H @ u) * phase[:, sounding]
    error, penalty = 2 * distance[:, None], penalty[:, None]
    return Part(U, phase[None], np.zeros(len(U), int), F, error, error + 2 * weight * penalty)


def _moving_sweeps(Y, frames, H, G, n_iter, weight, p, seed):
    """Sweeps of one block from random phases, in the precision of Y; its frames go to all cores."""
    rows, G = np.ascontiguousarray(H.T), G.astype(H.dtype)
    Yt = np.array(Y.T, order="C")  # (frames, K), a copy: the caller's array is never changed
    zero_below(Yt.view(H.dtype))
    U = np.repeat(np.abs(Yt).sum(axis=1, keepdims=True) / rows.sum(), len(rows), axis=1)
    P, F = np.empty((len(Yt), *rows.shape), Y.dtype), np.empty_like(Yt)
    error, penalty = np.empty((2, len(Yt), n_iter))
    kernel = kernels.compiled(kernels.sweep_frames, H.dtype)

    def part(m):
        for i in range(m.start, m.stop):
            P[i] = _random_phases(seed, frames.start + i, rows.shape, Y.dtype) if Yt[i].any() else 1
        weights = H.dtype.type(weight), H.dtype.type(p)
        kernel(Yt[m], rows, G, U[m], P[m], F[m], error[m], penalty[m], *weights, stop)

    stop, size = np.zeros(1, bool), min(8, -(-len(Yt) // blocks.available_cores()))  # so that cores end together
    blocks.in_threads(part, blocks.frame_slices(len(Yt), size), stop)
    cost = error + 2 * weight * penalty
    return Part(U.T, P.transpose(1, 2, 0), np.arange(len(rows)), F.T, error.T, cost.T)


def held_sweeps(Y, begun, H, G, n_iter, weight, p):
    """Sweeps of one block with its phases held, in double precision.

    ``U <- U max(0, sum_k H Re(X conj(P)) / beta) / (H^T S + weight p U^(p-1))``. In each frame, with D_l = H_l P_l,
    A = Re(D^H Y) and B = Re(D^H D), the sum over k is H^T S + A - B U, and |Y - F|^2 is |Y|^2 - 2 A U + U B U: no sweep
    needs the bins. ``begun`` has U, P, row and noise of the :class:`Part`; what is ``SILENT`` in a frame is left out.
    """
    U, P, row, noise = begun
    active = [np.flatnonzero(u > SILENT * u.max()) for u in U.T]
    n = max(map(len, active))
    u, A = np.zeros((2, len(active), n))
    BC = np.zeros((len(active), 2, n, n))  # B, and G between the active components
    rows, refined, floor = np.ascontiguousarray(H.T), np.zeros_like(U), floor_of(np.float64)
    F = np.empty(Y.T.shape, Y.dtype)  # frame first, as P lies in memory

    def model(m):
        """Real and imaginary parts of each D in turn [shape=(active, 2 K)]."""
        D = rows[active[m]] * P[row[active[m]], :, m]
        return D.view(D.real.dtype)

    def gather(m):
        l, D, y = slice(len(active[m])), model(m), np.ascontiguousarray(Y[:, m])
        u[m, l], A[m, l] = U[active[m], m], D @ y.view(y.real.dtype)
        BC[m, :, l, l] = D @ D.T, G[np.ix_(active[m], active[m])]

    def scatter(m):
        refined[active[m], m] = u[m, : len(active[m])]
        F[m] = (refined[active[m], m] @ model(m)).view(Y.dtype)

    def products(x):
        """B x, G x and x^(p-1) [shape=(frames, n)]."""
        Bx, Gx = np.matmul(BC, x[:, None, :, None])[..., 0].transpose(1, 0, 2)
        return Bx, Gx, np.maximum(x, floor) ** (p - 1)

    blocks.in_threads(gather, range(len(active)))
    error, penalty = np.zeros((2, n_iter, len(active)))
    energy = np.sum(np.abs(Y) ** 2, axis=0, dtype=np.float64)
    Bu, S, slope = products(u)
    for i in range(n_iter):  # by one core, for what is done here is next to nothing
        u *= np.maximum(S + A - Bu, 0) / (S + weight * p * slope + floor)
        Bu, S, slope = products(zero_below(u))
        error[i] = np.maximum(energy - np.sum(u * (2 * A - Bu), axis=1), 0)
        penalty[i] = np.sum(u * slope, axis=1)
    blocks.in_threads(scatter, range(len(active)))
    return Part(zero_below(refined), P, row, F.T, error, error + 2 * weight * penalty, noise=noise)


def gram(H):
    """``H^T H`` [shape=(L, L)] in double precision."""
    H = H.astype(np.float64)
    with blocks.one_blas_thread():
        return H.T @ H


def unit_phase(Y):
    """``Y / |Y|``, and 1 where Y is zero, or too small for its phase to be known."""
    magnitude = np.abs(Y)
    return np.divide(Y, magnitude, out=np.ones_like(Y), where=magnitude >= np.finfo(magnitude.dtype).tiny)


def _random_phases(seed, m, shape, dtype):
    """Uniform phases of frame ``m``, of shape (L, K)."""
    rng = np.random.default_rng((seed, m))
    P = np.empty(shape, dtype)
    angle = rng.random(shape, dtype=P.real.dtype)
    angle *= 2 * np.pi
    np.cos(angle, out=P.real)
    np.sin(angle, out=P.imag)
    return P


def _in_units(Y, H):
    """Y and H, checked, H in the precision of |Y| with its largest value about one, and the unit of activations.

    That must be a normal number, as squares of Y must be.
    """
    check_basis(H)
    Y = spectrogram(Y)
    check_bins(Y, H)
    H, level = levelled(H, np.result_type(np.empty(0, Y.dtype).real, np.float32))
    scale, limits = Y.unit / level, np.finfo(H.dtype)
    if not (float(limits.tiny) <= scale <= float(limits.max) and 1e-150 < Y.unit < 1e150):
        raise InputError(f"spectrogram and basis: got values too far from 1 for {H.dtype}, expected a moderate level")
    return Y, H, scale


def levelled(H, dtype):
    """A basis whose largest value is about one, and the power of two that it was divided by for that.

    Raises :class:`InputError` if a column is so much quieter than another that it would be zero.
    """
    level = float(power_of_two(H.max()))
    H = zero_below((H / level).astype(dtype))
    if not H.any(axis=0).all():
        l = int(np.flatnonzero(~H.any(axis=0))[0])
        raise InputError(f"basis: got values below {floor_of(dtype):.0e} of the largest in column {l}, expected more")
    return H, level


def power_of_two(peak):
    """The power of two just above each ``peak``: the unit in which updates work, free of rounding; 1 for silence."""
    peak = np.asarray(peak)
    return np.ldexp(1.0, np.frexp(np.where(peak < np.finfo(peak.dtype).tiny, 0, peak))[1])


# --- Reading and writing ----------------------------------------------------------------------------


def stopping_iteration(cost, normalised_error, thr=None, tol=None):
    """Where a run with this curve ends, and why: ``(n_done, "threshold" | "tolerance" | "number of iterations")``.

    ``thr``: the first iteration whose normalised error is below it; ``tol``: the first that lowers the cost by
    less than this fraction; whichever comes first. The last iteration otherwise.
    """
    stops = [(len(cost), "number of iterations")]
    if tol is not None:
        stops += [(int(i) + 2, "tolerance") for i in np.flatnonzero(cost[:-1] - cost[1:] < tol * cost[:-1])[:1]]
    if thr is not None:
        stops += [(int(i) + 1, "threshold") for i in np.flatnonzero(normalised_error < thr)[:1]]
    return min(reversed(stops), key=lambda stop: stop[0])  # of two reasons at one iteration, the last of these


def normalised(error, scale):
    """``error / scale``, the share of the energy that is not explained; 0 for a silent file."""
    return error / scale if scale else np.zeros_like(error)


def check_basis(H, name="basis"):
    """Raise :class:`InputError` unless H is a basis: 2-D, finite, >= 0, with no column of zeros."""
    if H.ndim != 2 or H.size == 0 or H.dtype.kind != "f":
        raise InputError(f"{name}: got {H.dtype} values of shape {H.shape}, expected real values of shape (K, L)")
    if not np.isfinite(H).all():
        k, l = np.argwhere(~np.isfinite(H))[0]
        raise InputError(f"{name}: got {H[k, l]} in bin {k} of column {l}, expected finite values")
    if (H < 0).any():
        raise InputError(f"{name}: got values down to {H.min():g}, expected values >= 0 (is it in dB?)")
    if not (H > 0).any(axis=0).all():
        l = int(np.flatnonzero(~(H > 0).any(axis=0))[0])
        raise InputError(f"{name}: got only zeros in column {l}, expected a spectrum in every column")


@dataclass(frozen=True)
class Spectrogram:
    """A checked spectrogram, read by blocks of frames in a unit in which its peak is at most one."""

    Y: np.ndarray  # (K, M), complex or real >= 0, as it came; may be a memory map
    unit: float  # a power of two, so that dividing by it is free of rounding
    loudness: np.ndarray  # (M,) sum_k |Y| of each frame, in that unit
    energy: float  # sum |Y|^2, in the square of that unit

    @property
    def shape(self):
        """(K, M)."""
        return self.Y.shape

    @property
    def dtype(self):
        """Of Y, in the machine's byte order."""
        return self.Y.dtype.newbyteorder("=")

    def at(self, frames):
        """A slice of frames, or an array of their numbers, to be read where they are wanted."""
        return blocks.Frames(self.Y, frames, self.unit)


def spectrogram(Y, name="spectrogram"):
    """A :class:`Spectrogram` of Y, which is read once; one that is checked comes back as it is.

    Raises :class:`InputError` unless Y is 2-D, not empty, finite, and complex or real >= 0.
    """
    if isinstance(Y, Spectrogram):
        return Y
    if Y.ndim != 2 or Y.size == 0 or Y.dtype.kind not in "fc":
        raise InputError(
            f"{name}: got {Y.dtype} values of shape {Y.shape}, expected real or complex values of shape (K, M)"
        )
    units, loudness, energy = [], [], []
    for frames, block in blocks.frame_blocks(Y, EUCLIDEAN_BLOCK):
        if not np.isfinite(block).all():
            k, m = np.argwhere(~np.isfinite(block))[0]
            raise InputError(
                f"{name}: got {block[k, m]} in bin {k} of frame {frames.start + m}, expected finite values"
            )
        if block.dtype.kind == "f" and (block < 0).any():
            raise InputError(f"{name}: got values down to {block.min():g}, expected magnitudes >= 0 (is it in dB?)")
        V = np.abs(block)
        units.append(float(power_of_two(V.max())))
        V /= V.dtype.type(units[-1])
        loudness.append(V.sum(axis=0, dtype=np.float64))
        energy.append(float(np.square(V, dtype=np.float64).sum()))
    unit, relative = max(units), np.array(units) / max(units)
    loudness = np.concatenate([sums * part for sums, part in zip(loudness, relative, strict=True)])
    return Spectrogram(Y, unit, loudness, float(np.sum(energy * relative**2)))


def check_complex(Y, name="spectrogram"):
    """Raise :class:`InputError` unless Y is complex."""
    if Y.dtype.kind != "c":
        raise InputError(f"{name}: got real values ({Y.dtype}), expected a complex spectrogram (librosa.stft's output)")


def check_bins(Y, H, name="spectrogram", basis_name="basis"):
    """Raise :class:`InputError` unless Y and H have the same number of bins."""
    if Y.shape[0] != len(H):
        raise InputError(
            f"{name}: got {Y.shape[0]} bins (n_fft {2 * Y.shape[0] - 2}), "
            f"expected the {len(H)} bins (n_fft {2 * len(H) - 2}) of {basis_name}"
        )


def load_spectrogram(path):
    """Open a ``.npy`` file, which must be whole, as a :class:`Spectrogram` of a read-only memory map."""
    return spectrogram(open_npy(path), path)


def load_basis(path):
    """Read a basis [shape=(K, L), float, >= 0] from a ``.npy`` file, which must be whole."""
    H = np.array(open_npy(path))
    check_basis(H, path)
    return H


def check_file(path, expected):
    """Raise :class:`InputError` unless ``path`` is an ordinary file; one that is not could be waited for, for ever."""
    path = Path(path)
    try:
        if not path.exists():
            raise InputError(f"{path}: no such file, expected {expected}")
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}), expected {expected}") from None
    if not path.is_file():
        raise InputError(f"{path}: got a folder or a special file, expected {expected}")


def open_npy(path, ndim=2):
    """Map a float or complex ``.npy`` file of ``ndim`` axes, once its header has been held against the file's size.

    Raises :class:`InputError` if it is none, or is not whole.
    """
    check_file(path, "a .npy file")
    try:
        with open(path, "rb") as file:
            first_version = np.lib.format.read_magic(file) == (1, 0)
            read = np.lib.format.read_array_header_1_0 if first_version else np.lib.format.read_array_header_2_0
            shape, _, dtype = read(file)
            n_bytes = Path(path).stat().st_size - file.tell()
        if dtype.kind not in "fc" or dtype.itemsize > (16 if dtype.kind == "c" else 8):
            raise InputError(f"{path}: got an array of {dtype}, expected float or complex numbers")
        if len(shape) != ndim or min(shape) < 1:
            axes = "two axes, (bins, columns), neither empty" if ndim == 2 else f"{ndim} axes, none empty"
            raise InputError(f"{path}: got an array of shape {shape}, expected {axes}")
        expected = math.prod(shape) * dtype.itemsize
        if n_bytes != expected:
            raise InputError(f"{path}: got {n_bytes} bytes of data, expected {expected} (is the file cut short?)")
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except InputError:
        raise
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}), expected a .npy file") from None
    except Exception:
        raise InputError(f"{path}: got no readable .npy header, expected a file written by np.save") from None


def finite(x, path):
    """``x``, a part of what is written to ``path``. Every writer asks here: what is not finite is never written."""
    if not np.isfinite(x).all():
        name = Path(path).name
        raise InputError(f"{name}: got results that are not finite, expected a recording and basis of a moderate level")
    return x


def save(path, array):
    """Write an array to ``path``, a ``.npy`` file; raises :class:`InputError` if it is not finite."""
    np.save(path, finite(array, path))


@contextmanager
def frame_writer(path, shape, dtype):
    """Write an array of ``shape`` whose last axis is frames as one ordinary ``.npy``, block after block.

    Yields a function that appends a block. Fortran order keeps each frame together on disk.
    """
    with open(path, "wb") as file:
        header = {"descr": np.lib.format.dtype_to_descr(np.dtype(dtype)), "fortran_order": True, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        yield lambda block: file.write(np.ascontiguousarray(finite(block, path).T, dtype).data)


@contextmanager
def picture(path, inches=None, dpi=100):
    """Yield a figure of width and height ``inches``, which is saved to ``path``: every picture is drawn in here.

    So a user's matplotlibrc, which may want what is not installed, changes none of them.
    """
    import matplotlib
    from matplotlib.figure import Figure  # pyplot would take as long to import as the whole run

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        figure = Figure(figsize=inches, dpi=dpi)
        yield figure
        figure.savefig(path)


def plot_learning_curve(path, cost, reason):
    """Draw the normalised cost after each iteration on a logarithmic axis, and mark the stop with its ``reason``.

    A cost of 1 means that nothing is explained. For the reasons see :func:`stopping_iteration`.
    """
    with picture(path, (7, 4)) as figure:
        axes = figure.add_axes((0.17, 0.14, 0.79, 0.76))
        iterations = np.arange(1, len(cost) + 1)
        line = "o-" if len(cost) <= 40 else "-"  # so many points have room beside each other
        axes.plot(iterations, cost, line, color="#31688e", linewidth=2, markersize=5)
        stop = f"stopped at {len(cost)} by the {reason}: {cost[-1]:.3g}"
        axes.plot(iterations[-1], cost[-1], "D", color="#c0392b", markersize=8, label=stop)  # told apart by shape too
        above = {"bbox_to_anchor": (1, 1), "borderaxespad": 0.2, "handletextpad": 0.6, "handlelength": 1}
        axes.legend(loc="lower right", frameon=False, fontsize=8, labelcolor="#c0392b", **above)
        axes.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
        if cost.min() > 0:
            axes.set_yscale("log")
        axes.set(xlabel="Iteration", ylabel="Normalised cost")
        axes.set_title(f"Learning curve, {Path(path).stem.split('_')[-1]}", loc="left", fontsize=11)
        axes.grid(True, which="both", alpha=0.3)
