"""Phases that the notes of a piano could have: complex NMF whose phases follow from one frame to the next.

In every bin, a partial that sounds goes on turning at its own rate while it dies away. So each note n is taken there
for a random process with the variance that NMF gives it and the rotation that its template shows,

    x_m = r_m x_(m-1) + w_m,   r_m = rho min(1, a_m / a_(m-1)) e^(j omega),   E|w_m|^2 = a_m^2 - |r_m|^2 a_(m-1)^2,

with a_m = sum_l H_kl U_lm over the note's states, and rho and omega the size and the angle of the template's rotation.
What goes on keeps its phase; what newly appears has any. The notes add up to the mixture, Y_m = sum_n x_m, and what is
wanted is their mean given all of Y: X_n = C_n (sum_n C_n)^(-1) Y with the covariances C_n over frames. That is the
Wiener filter, and its mask where rho = 0. The Kalman filter and the smoother of Bryson and Frazier [2]_ work it out
frame by frame, with all correlations between notes; no bin depends on another.

Where |Y| is above sum_n a_n, the model cannot tell why. The excess is taken for noise, so that it says nothing of other
frames, and is shared out by the notes' variances.

References
----------
.. [1] R. Badeau and M. D. Plumbley, "Multichannel high-resolution NMF for modeling convolutive mixtures of
       non-stationary signals in the time-frequency domain", IEEE/ACM TASLP 22(11), 2014: notes as such processes.
.. [2] G. J. Bierman, "Fixed interval smoothing with discrete measurements", Int. J. Control 18(1), 1973.
"""

import functools

import numpy as np

import utils
from piano import blocks

BLOCK, CONTEXT = 64, 16  # frames smoothed at a time, and frames before and after that they are smoothed with
ROTATION_BLOCKS = 10  # at most, spread over the recording, that rotations are measured in
N_TRACKED = 6  # notes of a bin, the strongest of a block, that keep a phase there; the rest are Wiener-filtered
COHERENCE = 0.985  # the largest rho: a template is steadier than the same note in a recording
SILENT = 1e-4  # of the loudest activation in a frame, 80 dB below it: where phases are held, what is less is zero
TEMPLATE_DB = -40.0  # frames of a template, relative to its loudest, that its rotation is measured on
EXPONENT = 1.2  # p of the sparsity penalty, Kameoka's
STRONGEST = 1e6  # above which the recording's count for nothing
TRUSTED = 20.0  # strength of adaptation at which the templates' rotations count as much as the recording's


def measure_rotation(Y):
    """How a note's spectrum turns from one frame to the next, measured on its template.

    ``r_k = sum_m Y_m conj(Y_(m-1)) / sqrt(sum_m |Y_m|^2 sum_m |Y_(m-1)|^2)``, from the loudest frame on, down to
    ``TEMPLATE_DB``: the phase advance per hop omega and how reliable it is, rho, in one complex number.

    Parameters
    ----------
    Y : np.ndarray [shape=(K, M), complex]
        Spectrogram of one note.

    Returns
    -------
    np.ndarray [shape=(K,), complex64]
        ``rho e^(j omega)``, 0 <= rho <= 1.
    """
    loudness = np.sum(np.abs(Y) ** 2, axis=0)
    first = int(np.argmax(loudness))
    quiet = np.flatnonzero(loudness[first:] < loudness[first] * 10 ** (TEMPLATE_DB / 10))
    Y = Y[:, first : first + quiet[0] if len(quiet) else None].astype(np.complex128)
    return _rotation(*_correlations(Y)).astype(np.complex64)


def _correlations(X):
    """``sum_m X_m conj(X_(m-1))``, ``sum_m |X_m|^2`` and ``sum_m |X_(m-1)|^2`` over the frames, the last axis."""
    now, before = X[..., 1:], X[..., :-1]
    return np.stack([np.sum(a * b.conj(), axis=-1) for a, b in ((now, before), (now, now), (before, before))])


def _rotation(cross, now, before):
    size = np.maximum(np.sqrt(now.real * before.real), np.abs(cross))  # the same, but for rounding: at most 1 comes out
    return cross / np.maximum(size, np.finfo(np.float64).tiny)


def adapted_rotation(Y, basis, U, strength, *, map=map):
    """Rotations of another piano: the templates' own, corrected by what the recording's notes show.

    The notes are taken from the recording by Wiener masks, and their rotations r' measured as a template's are, where
    they do not grow louder: what is struck has a phase of its own, and would hide how steadily it goes on. Then

        r <- q^2 (r' + t r) / (1 + t),   t = (strength / TRUSTED)^2,

    so that the templates are trusted where they fit, and nothing where the recording's phases do not go on: q is the
    part of r' that is no chance, see :func:`coherent_part`.

    Parameters
    ----------
    Y : np.ndarray [shape=(K, M), complex]
        Recording.
    basis : Basis
        With the rotations of the templates.
    U : np.ndarray [shape=(L, M)]
        Activations.
    strength : float
        With which the basis keeps to its templates, see :func:`adapt.adapt_basis`.
    map : callable
        As for :func:`utils.nmf`.

    Returns
    -------
    np.ndarray [shape=(K, L), complex64]
    """
    U = U / (U.max() or 1)
    notes = list(basis.notes.values())
    work = functools.partial(_correlations_block, H=basis.H, note_of=note_of_columns(basis), n_notes=len(notes))
    slices = list(blocks.frame_slices(Y.shape[1], BLOCK))
    spread = np.unique(np.linspace(0, len(slices) - 1, ROTATION_BLOCKS).round().astype(int))
    jobs = ((functools.partial(blocks.read_frames, Y, slices[i]), U[:, slices[i]]) for i in spread)
    total = sum(map(work, jobs))
    trust = (min(strength, STRONGEST) / TRUSTED) ** 2
    adapted = np.empty(basis.rotation.shape, np.complex64)
    for l, (cross, now, before, sizes, squares) in zip(notes, total.transpose(1, 0, 2), strict=True):
        q = coherent_part(np.abs(cross) ** 2, sizes.real**2, squares.real)
        found = q**2 * _rotation(cross, now, before)
        adapted[:, l] = (found[:, None] + (q**2 * trust)[:, None] * basis.rotation[:, l]) / (1 + trust)
    return adapted


def coherent_part(found, most, chance):
    """Part of a measured coherence that is no chance [shape=(K,)], between 0 and 1; one value for each octave of bins.

    With c = sum_m x_m conj(x_(m-1)) in each bin, phases without order have E|c|^2 = P2 = sum_m |x_m x_(m-1)|^2, and
    those that go on |c|^2 = P1 = (sum_m |x_m x_(m-1)|)^2. So (sum_k |c|^2 - P2) / sum_k (P1 - P2) is how coherent the
    notes are, and sum_k |c|^2 / sum_k P1 is what they look like.

    Parameters
    ----------
    found, most, chance : np.ndarray [shape=(K,), float, >= 0]
        |c|^2, P1 and P2.
    """
    octave = np.frexp(np.arange(len(found)))[1]
    found, most, chance = (np.bincount(octave, values) for values in (found, most, chance))
    heard = (found > chance) & (most > chance)
    ratio = (found - chance) / np.where(heard, most - chance, 1) * most / np.where(heard, found, 1)
    return np.where(heard, np.minimum(ratio, 1), 0)[octave]


def _correlations_block(job, *, H, note_of, n_notes):
    """Sums of one block for :func:`adapted_rotation`, (5, notes, K); see :func:`_correlate_bins`."""
    read, U = job
    Y = read()
    sums, columns = np.zeros((5, n_notes, len(H)), np.complex128), np.flatnonzero(U.any(axis=1))
    if not Y.any() or not len(columns):
        return sums
    scale = float(utils.power_of_two(np.abs(Y).max()))
    notes, note_of = np.unique(note_of[columns], return_inverse=True)
    Y = np.array(Y / scale, np.complex128, order="C")
    H, U = (np.array(array, np.float64, order="C") for array in (H[:, columns], U[columns]))
    kernel = blocks.compiled(_correlate_bins, CORRELATE_TYPES)

    def correlate(bins):
        kernel(Y[bins], H[bins], U, note_of, notes, sums[:, :, bins])

    blocks.in_threads(correlate, blocks.frame_slices(len(Y), 32))
    return sums * scale ** np.array([2, 2, 2, 2, 4]).reshape(-1, 1, 1)


CORRELATE_TYPES = (
    "void(complex128[:, ::1], float64[:, ::1], float64[:, ::1], int64[::1], int64[::1], complex128[:, :, :])"
)


def _correlate_bins(Y, H, U, note_of, notes, sums):
    """Correlations of ``notes`` in some bins, where they do not grow louder; numba compiles this.

    With the note x, its Wiener mask times Y, ``sums`` get ``sum_m x_m conj(x_(m-1))``, ``sum_m |x_m|^2``,
    ``sum_m |x_(m-1)|^2``, ``sum_m |x_m x_(m-1)|`` and the sum of its squares.
    """
    n_bins, n_frames = Y.shape
    a, total = np.zeros((len(notes), n_frames)), np.zeros(n_frames)
    for k in range(n_bins):
        y = Y[k]
        a[:], total[:] = 0.0, np.finfo(np.float64).tiny
        for l in range(len(note_of)):
            a_n, h = a[note_of[l]], H[k, l]
            for m in range(n_frames):
                a_n[m] += h * U[l, m]
        for n in range(len(notes)):
            for m in range(n_frames):
                a[n, m] *= a[n, m]
                total[m] += a[n, m]
        for n in range(len(notes)):
            cross, now, before, sizes, squares = 0j, 0.0, 0.0, 0.0, 0.0
            for m in range(1, n_frames):
                if 0.0 < a[n, m] <= a[n, m - 1]:
                    x, x_before = a[n, m] / total[m] * y[m], a[n, m - 1] / total[m - 1] * y[m - 1]
                    turn = x * np.conj(x_before)
                    square = turn.real**2 + turn.imag**2
                    cross += turn
                    now += x.real**2 + x.imag**2
                    before += x_before.real**2 + x_before.imag**2
                    sizes += np.sqrt(square)
                    squares += square
            sums[0, notes[n], k], sums[1, notes[n], k], sums[2, notes[n], k] = cross, now, before
            sums[3, notes[n], k], sums[4, notes[n], k] = sizes, squares


def sinusoidal_blocks(
    Y, basis, n_iter, *, sparsity=1e-5, seed=0, strength=None, prior=None, thr=None, tol=None, progress=None, map=map
):
    """Complex NMF whose phases are those of smoothed notes, one block of frames after another.

    1. NMF with the Kullback-Leibler divergence, ``n_iter`` sweeps of coordinate descent at most, tells how much of each
       note there is.
    2. Every note is smoothed through time in every bin, see the top of this module. P is its phase.
    3. Activations are refined with P held, by ``n_iter`` sweeps of Kameoka's complex NMF: X = H U P + beta (Y - F),
       ``U <- U max(0, sum_k H Re(X conj(P)) / beta) / (H^T S + weight p U^(p-1))``, which lowers its objective.

    Frames are smoothed ``BLOCK`` at a time, with ``CONTEXT`` more on both sides, so that memory does not grow with
    the recording. The objective, ``thr`` and ``tol`` are those of :func:`utils.complex_nmf_blocks`, and so is
    what is not told here.

    Parameters
    ----------
    Y : np.ndarray [shape=(K, M), complex]
        Spectrogram; may be a memory map.
    basis : Basis
        With rotations of at most 1; that of a note's first column counts.
    n_iter : int
        Sweeps of NMF, and of complex NMF.
    strength : float, optional
        With which the basis was adapted, see :func:`adapted_rotation`; None where it was not.
    prior : tuple, optional
        Of the activations in the first step, see :func:`utils.nmf`.

    Yields
    ------
    frames, U, F, error, cost
        As from :func:`utils.complex_nmf_blocks`.
    X : np.ndarray [shape=(notes, K, frames), complex64]
        The smoothed notes; they sum to Y. For P, see :func:`phases`.

    Raises
    ------
    InputError
        As from :func:`utils.complex_nmf_blocks`.
    """
    H, n_frames = basis.H, Y.shape[1]
    utils.check_basis(H)
    utils.check_spectrogram(Y)
    utils.check_complex(Y)
    utils.check_bins(Y, H)
    E = utils.energy(Y)
    weight = utils.sparsity_weight(E, n_frames, H.shape[1], EXPONENT, sparsity)
    passes = 1 if thr is None and tol is None else 2

    def count(n, _=None):
        if progress:
            progress(n, (1 + passes) * n_frames)

    def run(U, rotation, n_iter, results):
        work = functools.partial(
            _sinusoidal_block,
            H=H,
            rotation=rotation[:, [l[0] for l in basis.notes.values()]],
            note_of=note_of_columns(basis),
            n_iter=n_iter,
            weight=weight,
            results=results,
        )
        slices = list(blocks.frame_slices(n_frames, BLOCK))
        jobs = (_with_context(Y, U, block) for block in slices)
        return utils.curves_so_far(slices, map(work, jobs), n_iter, weight, count)

    def solved():
        options = {"loss": "kullback-leibler", "solver": "cd", "seed": seed, "prior": prior}
        U, _ = utils.nmf(Y, H, n_iter, **options, progress=count, map=map)
        turn = basis.rotation if strength is None else adapted_rotation(Y, basis, U, strength, map=map)
        n_done = n_iter if passes == 1 else utils.last_sweep(run(U, turn, n_iter, "curves"), E, thr, tol)
        for frames, (U_block, F, X), error, cost in run(U, turn, n_done, "model"):
            yield frames, U_block, F, error, cost, X

    return solved()  # a generator of its own, so that bad input is refused here and now


def _with_context(Y, U, block):
    """Job for one block of frames: what reads it with its context, U for that, and the block's limits there."""
    wide = slice(max(block.start - CONTEXT, 0), min(block.stop + CONTEXT, Y.shape[1]))
    return functools.partial(blocks.read_frames, Y, wide), U[:, wide], block.start - wide.start, block.stop - wide.start


def note_of_columns(basis):
    """Place of each column's note [shape=(L,), int] among ``basis.notes``."""
    note_of = np.empty(basis.H.shape[1], int)
    for n, l in enumerate(basis.notes.values()):
        note_of[l] = n
    return note_of


def phases(X, basis, dtype):
    """Phase of every column [shape=(L, K, frames), dtype]: that of its note in X [shape=(notes, K, frames)]."""
    return utils.unit_phase(X.astype(dtype, copy=False))[note_of_columns(basis)]


def _sinusoidal_block(job, *, H, rotation, note_of, n_iter, weight, results):
    """Smooth one block and refine its activations; ``job`` reads it with its context, U for it, and its limits there.

    Returns the error and the penalty of each frame [shape=(n_iter, frames)], and unless ``results`` is "curves", U,
    F and X.
    """
    read, U, first, last = job
    Y = read()
    scale = utils.power_of_two(np.abs(Y).max())
    Y, U = Y / Y.real.dtype.type(scale), U / scale
    X = smoothed_notes(Y, H, U, rotation, note_of, scale, (first, last))
    Y, U = Y[:, first:last], U[:, first:last]
    refined, F = np.zeros_like(U), np.zeros_like(Y)
    error, penalty = np.zeros((2, U.shape[1], n_iter))
    stop = np.zeros(1, bool)
    kernel = blocks.compiled(_held_sweeps, HELD_TYPES)
    lam = weight * scale ** (EXPONENT - 2)
    rows, n_bins = np.ascontiguousarray(H.T, Y.real.dtype), len(H)

    def refine(m):
        y = np.concatenate([Y[:, m].real, Y[:, m].imag])
        error[m] = np.sum(y**2, dtype=np.float64)
        active = np.flatnonzero(U[:, m] > SILENT * U[:, m].max())
        if len(active):
            h, phase = rows[active], utils.unit_phase(X[note_of[active], :, m])
            D = np.concatenate([h * phase.real, h * phase.imag], axis=1)  # (active, 2K): F is u @ D
            u = U[active, m]
            A, B, G = ((a @ b.T).astype(np.float64) for a, b in ((D, y), (D, D), (h, h)))
            kernel(A, B, G, u, lam, EXPONENT, error[m], penalty[m], stop)
            refined[active, m] = u
            f = u.astype(D.dtype) @ D
            F[:, m] = f[:n_bins] + 1j * f[n_bins:]

    with blocks.one_blas_thread():
        blocks.in_threads(refine, range(U.shape[1]), stop)
    curves = error.T * scale**2, penalty.T * scale**EXPONENT
    if results == "curves":
        return curves
    refined = utils.zero_below(refined.astype(Y.real.dtype)) * Y.real.dtype.type(scale)
    return (*curves, refined, F * Y.dtype.type(scale), X)


HELD_TYPES = (
    "void(float64[::1], float64[:, ::1], float64[:, ::1], float64[::1], float64, float64, float64[::1], float64[::1], "
    "boolean[::1])"
)


def _held_sweeps(A, B, G, u, weight, p, error, penalty, stop):
    """Sweeps of one frame with its phases held; numba compiles this.

    With D_l = H_l P_l, the parts of the model: A = Re(D^H Y) and B = Re(D^H D), so that |Y - F|^2 = |Y|^2 - 2 A u +
    u B u; G = H^T H, so that H^T S = G u. u is updated in place; ``error``, which comes with |Y|^2, and ``penalty``
    are filled in; once ``stop[0]`` is set it returns.
    """
    tiny = np.finfo(np.float64).tiny
    floor = np.sqrt(tiny)  # utils.floor_of
    for i in range(len(error)):
        if stop[0]:
            return
        above, below = A - B @ u, G @ u
        for l in range(len(u)):
            if u[l] > 0:
                numerator = max(0.0, below[l] + above[l])
                u[l] = u[l] * numerator / (below[l] + weight * p * u[l] ** (p - 1) + tiny)
                if u[l] < floor:
                    u[l] = 0.0
        error[i] = max(0.0, error[i] - np.sum(u * (2 * A - B @ u)))
        for l in range(len(u)):
            penalty[i] += u[l] ** p if u[l] > 0 else 0.0


def smoothed_notes(Y, H, U, rotation, note_of, scale=1.0, limits=None):
    """Mean of every note given the whole mixture, see the top of this module.

    Parameters
    ----------
    Y : np.ndarray [shape=(K, M), complex]
        Mixture, at a magnitude of about one.
    H, U : np.ndarray [shape=(K, L)], [shape=(L, M)]
        Basis and activations.
    rotation : np.ndarray [shape=(K, N), complex]
        Of each note, at most 1.
    note_of : np.ndarray [shape=(L,), int]
        Note that each column belongs to, from 0 to N - 1.
    scale : float
        Of the result.
    limits : tuple, optional
        First frame that is wanted, and the one after the last.

    Returns
    -------
    np.ndarray [shape=(N, K, frames), complex64]
        They sum to ``scale * Y``.
    """
    first, last = limits or (0, Y.shape[1])
    X = np.zeros((rotation.shape[1], last - first, len(Y)), np.complex64).transpose(0, 2, 1)  # as transforms want it
    columns = np.flatnonzero(U.any(axis=1)) if U.any() else np.arange(len(U))  # the others would only take their time
    notes, note_of = np.unique(note_of[columns], return_inverse=True)
    H, U, rotation = H[:, columns], U[columns], rotation[:, notes]
    size = np.abs(rotation).astype(np.float64)
    rotation = rotation * (np.minimum(size, COHERENCE) / np.maximum(size, np.finfo(np.float64).tiny))
    Y, H, rotation = (np.array(array, np.result_type(array, np.float64), order="C") for array in (Y, H, rotation))
    U = np.array(U, np.float64, order="C")
    kernel = blocks.compiled(_smooth_bins, SMOOTH_TYPES)

    def smooth(bins):
        kernel(Y[bins], H[bins], U, rotation[bins], note_of, notes, N_TRACKED, scale, first, X[:, bins])

    blocks.in_threads(smooth, blocks.frame_slices(len(Y), 32))
    return X


SMOOTH_TYPES = (
    "void(complex128[:, ::1], float64[:, ::1], float64[:, ::1], complex128[:, ::1], int64[::1], int64[::1], int64, "
    "float64, int64, complex64[:, :, :])"
)


def _smooth_bins(Y, H, U, rotation, note_of, notes, n_tracked, scale, first, X):
    """Smooth ``notes``, those that sound, in some bins; numba compiles this. Their rows of X are written in place.

    x is the state, the strongest notes, and V its covariance. An innovation e of variance s moves x by g e with
    g = V 1 / s; back in time, z = (sum_n C_n)^(-1) Y comes from them, and X_n = C_n z from its sums ahead and behind.
    """
    n_notes, (n_bins, n_frames), last = len(notes), Y.shape, first + X.shape[2]
    n = min(n_tracked, n_notes)
    r, g, ahead = np.zeros((3, n_frames, n), np.complex128)
    innovation, z = np.zeros((2, n_frames), np.complex128)
    model, total, rest = np.zeros((3, n_frames))
    variance, energy = np.zeros((n_notes, n_frames)), np.zeros(n_notes)
    tile = np.zeros((n_notes, n_bins, last - first), np.complex64)  # of X, whose frames lie far apart
    tracked = np.zeros(n, np.int64)
    s_before = 0.0
    for k in range(n_bins):
        if not Y[k].any():
            continue
        variance[:], model[:], total[:] = 0.0, 0.0, 0.0
        for l in range(len(note_of)):
            a, h = variance[note_of[l]], H[k, l]
            for m in range(n_frames):
                a[m] += h * U[l, m]
        for note in range(n_notes):
            a = variance[note]
            sum_of_note = 0.0
            for m in range(n_frames):
                model[m] += a[m]
                a[m] *= a[m]
                sum_of_note += a[m]
            energy[note] = sum_of_note
        least = 1e-12 * energy.sum() / n_frames + 1e-200  # keeps what is divided by from zero
        for note in range(n_notes):
            a = variance[note]
            for m in range(n_frames):
                a[m] += least
                total[m] += a[m]
        rest[:] = total
        for i in range(n):
            tracked[i] = np.argmax(energy)
            energy[tracked[i]] = -1.0
            rest -= variance[tracked[i]]
        rest[:] = np.maximum(rest, 0.0)

        x, V = np.zeros(n, np.complex128), np.zeros((n, n), np.complex128)
        for m in range(n_frames):
            s, e = rest[m] + max(0.0, np.abs(Y[k, m]) - model[m]) ** 2, Y[k, m]
            for i in range(n):  # what the frame before has told of V, how V goes on, and V 1, in one pass
                now, before = variance[tracked[i], m], variance[tracked[i], max(m - 1, 0)]
                r[m, i] = rotation[k, tracked[i]] * min(1.0, np.sqrt(now / before)) if m else 0.0
                x[i] *= r[m, i]
                e -= x[i]
                g[m, i] = 0.0
                for j in range(i):
                    if m:
                        V[i, j] -= g[m - 1, i] * np.conj(g[m - 1, j]) * s_before
                    V[i, j] *= r[m, i] * np.conj(r[m, j])
                    g[m, i] += V[i, j]
                    g[m, j] += np.conj(V[i, j])
                kept = r[m, i].real ** 2 + r[m, i].imag ** 2
                told = (g[m - 1, i].real ** 2 + g[m - 1, i].imag ** 2) * s_before if m else 0.0
                V[i, i] = kept * (V[i, i].real - told) + now - kept * before
                g[m, i] += V[i, i]
            for i in range(n):
                s += g[m, i].real
            innovation[m] = e / s
            for i in range(n):
                x[i] += g[m, i] * innovation[m]
                g[m, i] /= s
            s_before = s

        x[:] = 0.0
        for m in range(n_frames - 1, -1, -1):  # x is now the sum of z ahead, turned back to this frame
            z[m] = innovation[m]
            for i in range(n):
                z[m] -= np.conj(g[m, i]) * x[i]
            for i in range(n):
                ahead[m, i] = x[i] + z[m]
                x[i] = np.conj(r[m, i]) * ahead[m, i]

        x[:] = 0.0
        for m in range(n_frames):  # x is now what the frames before give, turned on to this one
            left = Y[k, m] - rest[m] * z[m]
            for i in range(n):
                x[i] *= r[m, i]
                ahead[m, i] = x[i] + variance[tracked[i], m] * ahead[m, i]
                x[i] += variance[tracked[i], m] * z[m]
                left -= ahead[m, i]
            z[m] += left / total[m]  # the noise's part, and rounding, shared out, so that the notes sum to Y
            for i in range(n):
                ahead[m, i] += variance[tracked[i], m] * left / total[m]
        for i in range(n_notes):
            a, x_k = variance[i], tile[i, k]
            for m in range(first, last):
                x_k[m - first] = scale * a[m] * z[m]
        for i in range(n):
            for m in range(first, last):
                tile[tracked[i], k, m - first] = scale * ahead[m, i]
    for i in range(n_notes):
        for m in range(last - first):
            for k in range(n_bins):
                X[notes[i], k, m] = tile[i, k, m]
