"""Adapt a basis to the piano of a recording, while its own templates hold it back.

Kullback-Leibler NMF in which every column of H has its template H0 as a Dirichlet prior, that is, pseudo-counts:

    H <- normalise(N + S c H0),   N = H * ((V / HU) U^T),   c = sum V / (10 L),

N being what the recording says of a column, S the strength of the prior and c a tenth of a column's average share of
the recording. A note that is never played keeps its template; with S -> infinity all of them do.
"""

import functools

import numpy as np

import utils

N_SWEEPS = 50  # with the basis fixed, and as many with it free; more are no better, see benchmarks/README.md
FIRMEST = 1e12  # the largest strength: the templates then stay as they are, to rounding


def adapt_basis(Y, H, strength="auto", *, seed=0, progress=None, map=map):
    """Fit a basis to a recording, a sweep over the whole of it at a time.

    ``auto`` lets the recording choose: S = 1 / D, where D is the Kullback-Leibler divergence of ``N / sum_k N`` from
    H0, averaged over the columns by how much they sound, after sweeps with H0 fixed. Dirichlet's prior
    of strength s has columns at an average distance in proportion to 1 / s, so the templates are trusted as far as
    the recording bears them out.

    Parameters
    ----------
    Y : np.ndarray [shape=(K, M), float or complex]
        Spectrogram, linear amplitude; may be a memory map.
    H : np.ndarray [shape=(K, L), float, >= 0]
        Basis.
    strength : float or "auto"
        S > 0; above ``FIRMEST`` it is taken for that.
    seed, progress, map
        As for :func:`utils.nmf`.

    Returns
    -------
    H : np.ndarray [shape=(K, L), float, >= 0]
        Adapted basis; columns sum to what they summed to.
    strength : float
        S.

    Raises
    ------
    InputError
        As from :func:`utils.nmf`.
    """
    n_frames, level = Y.shape[1], H.sum(axis=0)
    total = 2 * N_SWEEPS * n_frames
    strength = strength if strength == "auto" else float(min(strength, FIRMEST))

    def count(n, _):
        if progress:
            progress(n, total)

    U, _ = utils.nmf(Y, H, N_SWEEPS, loss="kullback-leibler", seed=seed, progress=count, map=map)
    if not U.any():
        return H, FIRMEST if strength == "auto" else strength
    scale = utils.power_of_two(U.max())
    U *= (level / scale).astype(U.dtype)[:, None]
    utils.zero_below(U)
    template = H.astype(np.float64) / level
    blocks = list(utils.frame_slices(n_frames, utils.NMF_BLOCK))

    def counts(basis, *, fixed):
        """N [shape=(K, L)]; where the basis is not fixed, U has been updated before."""
        work = functools.partial(_sweep_block, H=utils.zero_below(basis.astype(U.dtype)), scale=scale, fixed=fixed)
        jobs = ((functools.partial(utils.read_frames, Y, frames), U[:, frames]) for frames in blocks)
        N = 0.0
        for frames, (U_block, N_block) in zip(blocks, map(work, jobs), strict=True):
            U[:, frames] = U_block
            N = N + N_block.astype(np.float64)
            if not fixed:
                count(frames.stop - frames.start, None)
        return N

    N = counts(template, fixed=True)
    if strength == "auto":
        strength = 1 / max(divergence(N, template), 1 / FIRMEST)
    prior = strength * N.sum() / (10 * H.shape[1]) * template
    adapted = template
    for _ in range(N_SWEEPS):
        adapted = counts(adapted, fixed=False) + prior
        adapted /= adapted.sum(axis=0)
    return (adapted * level).astype(H.dtype), strength


def _sweep_block(job, *, H, scale, fixed):
    """U, updated unless ``fixed``, and N of one block; ``job`` is a function that reads it, and its U.

    Silent frames, whose activations are zero, cost nothing.
    """
    read, U = job
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
            U[:, frames] = utils.zero_below(u)
        return ratio(V, u) @ u.T

    with utils.one_blas_thread():
        N = utils.in_threads(part, utils.frame_slices(len(sounding), utils.DIVERGENCE_BLOCK))
    return U, H * sum(N)


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
