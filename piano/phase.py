"""Phases that the notes of a piano could have: complex NMF whose phases follow from one frame to the next.

In every bin, a partial that sounds goes on turning at its own rate while it dies away. So each note n is taken there
for a random process with the variance that NMF gives it and the rotation that its template shows,

    x_m = r_m x_(m-1) + w_m,   r_m = rho min(1, a_m / a_(m-1)) e^(j omega),   E|w_m|^2 = a_m^2 - |r_m|^2 a_(m-1)^2,

with a_m = sum_l H_kl U_lm over the note's states, and rho and omega the size and the angle of the template's rotation.
What goes on keeps its phase; what newly appears has any. The notes add up to the mixture, Y_m = sum_n x_m, and what is
wanted is their mean given all of Y: X_n = C_n (sum_n C_n)^(-1) Y with the covariances C_n over frames. That is the
Wiener filter, and its mask where rho = 0. The Kalman filter and the smoother of Bryson and Frazier [2]_ work it out
frame by frame, with all correlations between the ``N_TRACKED`` strongest notes of a bin; the others are masked, as all
are in a bin that stays ``MASKED``.

Noise is one more source: white, as loud in each frame as NMF finds it, without rotation. So it has no phase and no part
of F, but a share of what F leaves: beta = H U / (H U + noise), and the residual gets the rest.

Where |Y| is above the sum of all a, the model cannot tell why. The excess says nothing of other frames, and is shared
out by the variances.

References
----------
.. [1] R. Badeau and M. D. Plumbley, "Multichannel high-resolution NMF for modeling convolutive mixtures of
       non-stationary signals in the time-frequency domain", IEEE/ACM TASLP 22(11), 2014: notes as such processes.
.. [2] G. J. Bierman, "Fixed interval smoothing with discrete measurements", Int. J. Control 18(1), 1973.
"""

import functools
from dataclasses import replace

import numpy as np

import utils
from piano import adapt, blocks

BLOCK, CONTEXT = 64, 8  # frames smoothed at a time, and frames before and after that they are smoothed with
N_BLOCKS = 24  # at most, spread over the recording, that rotations and energies are measured in: two minutes of it
N_SWEEPS = 10  # of NMF; 8 to 200 differ by .01 dB in the mean SDR of twenty-six pieces
N_TRACKED = 6  # notes of a bin, the strongest of a block, that keep a phase there; the rest are Wiener-filtered
MASKED = 1e-4  # of a block's loudest bin, 80 dB below it: a bin that stays softer there has masks alone
HEARD = 1e-3  # of the energy in a bin of a frame: where a note has less, it tells nothing of its rotation and energy
COHERENCE = 0.985  # the largest rho: a template is steadier than the same note in a recording
TRUSTED = 20.0  # strength of adaptation at which the templates' rotations count as much as the recording's


def measure_rotation(Y):
    """How a note's spectrum turns from one frame to the next, measured on its template.

    ``r_k = sum_m Y_m conj(Y_(m-1)) / sqrt(sum_m |Y_m|^2 sum_m |Y_(m-1)|^2)``, from the loudest frame on, down to
    -40 dB: the phase advance per hop omega and how reliable it is, rho, in one complex number. Y, (K, M) and complex,
    is the spectrogram of one note. Returns ``rho e^(j omega)`` [shape=(K,), complex64], where 0 <= rho <= 1.
    """
    loudness = np.sum(np.abs(Y) ** 2, axis=0)
    first = int(np.argmax(loudness))
    quiet = np.flatnonzero(loudness[first:] < 1e-4 * loudness[first])
    Y = Y[:, first : first + quiet[0] if len(quiet) else None].astype(np.complex128)
    energy, cross = np.abs(Y) ** 2, np.sum(Y[:, 1:] * Y[:, :-1].conj(), axis=1)
    return _rotation(cross, energy[:, 1:].sum(axis=1), energy[:, :-1].sum(axis=1)).astype(np.complex64)


def _rotation(cross, now, before):
    size = np.maximum(np.sqrt(now * before), np.abs(cross))  # the same, but for rounding: at most 1 comes out
    return cross / np.maximum(size, np.finfo(np.float64).tiny)


def adapted_rotation(turns, rotation, strength):
    """Rotations of another piano: the templates' own, corrected by what the recording's notes show.

    The rotations r' of notes are measured as a template's are, where they do not grow louder: what is struck has a
    phase of its own, and would hide how steadily it goes on. Then ``r <- (r' + t r) / (1 + t)`` with
    ``t = (strength / TRUSTED)^2``, so that the templates are trusted where they fit.

    ``turns`` [shape=(4, N, K)] are those of :func:`_turns`. ``rotation`` [shape=(K, N), complex] is that of the
    templates' notes. ``strength`` is that with which the basis keeps to its templates, see :func:`adapt.adapt_basis`.
    Returns [shape=(K, N), complex64].
    """
    trust = (min(strength, 1e6) / TRUSTED) ** 2  # of more, the recording's count for nothing
    re, im, now, before = turns.transpose(0, 2, 1)
    return ((_rotation(re + 1j * im, now, before) + trust * rotation) / (1 + trust)).astype(np.complex64)


def start(Y, basis, seed=0, strength=None, prior=None, *, progress=None, map=None):
    """Start a complex NMF at the phases of smoothed notes, which are held.

    1. NMF by coordinate descent tells how much of each note there is, and of noise: see :func:`activations`.
    2. Where the basis was adapted, its rotations and then its spectra are those of the recording's notes, too: see
       :func:`adapted_rotation` and :func:`with_energies`.
    3. Every note is smoothed through time in every bin, see the top of this module, ``BLOCK`` frames at a time, with
       ``CONTEXT`` more on both sides, so that memory does not grow with the recording. P is its phase.

    Parameters
    ----------
    Y : np.ndarray [shape=(K, M), complex] or utils.Spectrogram
        May be a memory map.
    basis : Basis
        With rotations of at most 1; that of a note's first column counts.
    seed : int
        Of the random start of NMF.
    strength : float, optional
        With which the basis was adapted, see :func:`adapt.adapt_basis`; None where it was not.
    prior : tuple, optional
        Of the activations in the first step, see :func:`utils.nmf`.
    progress, map : callable
        As for :func:`blocks.each`.

    Returns
    -------
    basis : Basis
    start : utils.Start
        For :func:`utils.complex_nmf_blocks` with the spectra of this basis.

    Raises
    ------
    InputError
        As from :func:`utils.nmf`.
    """
    Y = utils.spectrogram(Y)
    utils.check_complex(Y)
    U = activations(Y, basis, seed, prior, each=functools.partial(blocks.each, map=map, progress=progress))
    H, level = utils.levelled(adapt.with_noise(basis.H), U.dtype)
    U *= U.dtype.type(level / Y.unit)
    note_of, rotation = _notes_and_noise(basis)
    if strength is not None:
        slices = list(blocks.frame_slices(Y.shape[1], BLOCK))
        some = [_with_context(Y, U, slices[i]) for i in blocks.spread(len(slices), N_BLOCKS)]

        def told(function, **options):  # summed as they come: those of a block are large
            return sum(blocks.each(functools.partial(function, H=H, note_of=note_of, **options), some, map))

        rotation[:, :-1] = adapted_rotation(told(_turns), rotation[:, :-1], strength)
        energies = told(_energies, rotation=rotation)
        energies[0, -1] = energies[1, -1]  # noise stays white
        H, U = with_energies(H, U, *energies.transpose(0, 2, 1))
        rotation = rotation[:, basis.note_of]
        basis = replace(basis, H=(H[:, :-1] * level).astype(basis.H.dtype), rotation=rotation)
    return basis, held(Y, U * U.dtype.type(Y.unit / level), basis)


def activations(Y, basis, seed=0, prior=None, **options):
    """Activations of a basis, and in one row more of noise, which no prior holds back [shape=(L + 1, M), float, >= 0].

    By ``N_SWEEPS`` sweeps of NMF whose divergence is that of 0.5, see :func:`utils.nmf`, where options go; the other
    parameters are those of :func:`start`.
    """
    prior = prior and (np.pad(prior[0], ((0, 1), (0, 0))), prior[1])
    options |= {"loss": 0.5, "solver": "cd", "seed": seed, "prior": prior}
    U, _ = utils.nmf(Y, adapt.with_noise(basis.H), N_SWEEPS, **options)
    U[utils.SILENT * U.max(axis=0) > U] = 0  # and takes no more time; the sweeps to come would leave it out
    return U


def _notes_and_noise(basis):
    """Note that each column belongs to, and the notes' rotations (K, N); of noise too, the last of both."""
    rotation = basis.rotation[:, [l[0] for l in basis.notes.values()]]
    return np.append(basis.note_of, len(basis.notes)), np.pad(rotation, ((0, 0), (0, 1)))


def held(Y, U, basis):
    """The start whose phases are those of notes smoothed with this basis and these :func:`activations`."""
    Y, (H, level) = utils.spectrogram(Y), utils.levelled(adapt.with_noise(basis.H), U.dtype)
    note_of, rotation = _notes_and_noise(basis)
    begin = functools.partial(_smoothed_block, H=H, rotation=rotation, note_of=note_of)
    U = U * U.dtype.type(level / Y.unit)
    return utils.Start(BLOCK, functools.partial(_with_context, Y, U), begin, utils.held_sweeps)


def with_energies(H, U, energy, expected):
    """H with the notes' energies in each bin as they were found, and U so that H U is as loud as before.

    ``H <- H (sum_m U E|x|^2 / A / sum_m U A)^(1/2)``, which rests where E|x|^2 is A^2 throughout: the partials of two
    notes that share a bin come apart by their rotations, and magnitudes alone do not know how loud each one is.

    H is (K, L) and U (L, M). ``energy`` and ``expected`` [shape=(K, L), float, >= 0] are the two sums. A factor is
    between 0.1 and 10, and 1 where nothing is expected.
    """
    known = expected > expected.max() * np.finfo(H.dtype).eps
    factor = np.sqrt(np.divide(energy, expected, out=np.ones_like(energy), where=known))
    changed = H * np.clip(factor, 0.1, 10)
    louder = changed.sum(axis=0) / H.sum(axis=0)
    return (changed / louder).astype(H.dtype), U * louder[:, None].astype(U.dtype)


def _with_context(Y, U, frames):
    """What :func:`_smoothed_block` takes: the frames with their context, U for them, and the limits in them."""
    wide = slice(max(frames.start - CONTEXT, 0), min(frames.stop + CONTEXT, Y.shape[1]))
    return Y.at(wide), U[:, wide], (frames.start - wide.start, frames.stop - wide.start)


def _smoothed_block(job, *, H, rotation, note_of):
    """U, P, the rows of P and the noise of one block, see :class:`utils.Part`; silent notes have no phases."""
    frames, U, limits = job
    notes, P = smoothed_notes(frames.read(), H, U, rotation, note_of, limits, to_unit=True)
    U, noise, note_of = U[:-1, slice(*limits)], np.outer(H[:, -1], U[-1, slice(*limits)]), note_of[:-1]
    row = np.full(len(U), -1)  # of a silent note any phase will do, and noise has one
    row[np.isin(note_of, notes)] = np.searchsorted(notes, note_of[np.isin(note_of, notes)])
    return U, P, row, noise


def _turns(job, *, H, note_of):
    """Of each note but noise, how the Wiener mask of one block turns, where it does not grow louder.

    Returns sums over the frames [shape=(4, N, K), float32]: real and imaginary part of x_m conj(x_(m-1)), ``|x_m|^2``
    and ``|x_(m-1)|^2``. A frame counts in the bins where the note has ``HEARD`` of the energy or more.
    """
    frames, U, (first, last) = job
    Y = np.array(frames.read()[:, first:last].T, order="C")
    utils.zero_below(Y.view(Y.real.dtype))
    cross, energy = Y[1:] * Y[:-1].conj(), np.square(np.abs(Y))
    columns, amplitude, total = _amplitudes(U[:, first:last], H, note_of)
    turns = np.zeros((4, note_of[-1], len(H)), np.float32)

    def add(n):
        A = amplitude(n)
        share = A**2 / total
        falls = (A[1:] <= A[:-1]) & (share[1:] > HEARD)
        turn = np.einsum("mk,mk->k", cross, falls * share[1:] * share[:-1])
        x = energy * share**2
        turns[:, n] = turn.real, turn.imag, *(np.einsum("mk,mk->k", x[m], falls) for m in (slice(1, None), slice(-1)))

    blocks.in_threads(add, [n for n in columns if n < note_of[-1]])
    return turns


def _energies(job, *, H, rotation, note_of):
    """Of each column, ``sum_m U E|x|^2 / A`` and ``sum_m U A`` [shape=(2, L, K), float32], of the smoothed notes x.

    A = H U over the note's columns is what |x| was taken for. E|x|^2 is |X|^2 and the variance that is left: as much of
    a mask's, A^2 (1 - A^2 / sum A^2), as rho leaves open, 1 - rho^2. A frame counts as in :func:`_turns`.
    """
    frames, U, limits = job
    notes, X = smoothed_notes(frames.read(), H, U, rotation, note_of, limits)
    U = U[:, slice(*limits)]
    columns, amplitude, total = _amplitudes(U, H, note_of)
    energies, unsure = np.zeros((2, *H.T.shape), np.float32), 1 - np.abs(rotation.T) ** 2

    def add(n):
        x, A, l = X[np.searchsorted(notes, n)].T, amplitude(n), columns[n]
        utils.zero_below(x.view(x.real.dtype))
        share = A**2 / total
        heard = share > HEARD
        energy = np.divide(x.real**2 + x.imag**2, A, out=np.zeros_like(A), where=heard)
        energy += heard * unsure[n] * A * (1 - share)
        energies[:, l] = U[l] @ energy, U[l] @ (heard * A)

    blocks.in_threads(add, columns)
    return energies


def _amplitudes(U, H, note_of):
    """Columns of each note that sounds, a dict; a function of a note that returns A [shape=(frames, K)]; sum A^2."""
    U, rows = np.ascontiguousarray(U, np.float32), np.ascontiguousarray(H.T, np.float32)
    columns = {n: np.flatnonzero(note_of == n) for n in np.unique(note_of[U.any(axis=1)])}
    total = np.full((U.shape[1], len(H)), utils.floor_of(U.dtype) ** 2)

    def add_up(m):
        for l in columns.values():
            total[m] += (U[l, m].T @ rows[l]) ** 2

    blocks.in_threads(add_up, blocks.frame_slices(len(total), 8))
    return columns, lambda n: U[columns[n]].T @ rows[columns[n]], total


def smoothed_notes(Y, H, U, rotation, note_of, limits=None, to_unit=False):
    """Mean of every note that sounds given the whole mixture, see the top of this module.

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
    limits : tuple, optional
        First frame that is wanted, and the one after the last.
    to_unit : bool
        Whether only the phase is wanted: X / |X|, and 1 where Y is zero.

    Returns
    -------
    notes : np.ndarray [shape=(R,), int]
        Those with an activation, in order; where there is none, all.
    X : np.ndarray [shape=(R, K, frames), complex64]
        They sum to Y.
    """
    first, last = limits or (0, Y.shape[1])
    columns = np.flatnonzero(U.any(axis=1)) if U.any() else np.arange(len(U))  # the others would only take their time
    notes, of = np.unique(note_of[columns], return_inverse=True)
    X = np.zeros((len(notes), last - first, len(Y)), np.complex64).transpose(0, 2, 1)  # as transforms want it
    H, U, rotation = H[:, columns], U[columns], rotation[:, notes]
    size = np.abs(rotation).astype(np.float64)
    rotation = rotation * (np.minimum(size, COHERENCE) / np.maximum(size, np.finfo(np.float64).tiny))
    Y, H, rotation = (np.array(array, np.result_type(array, np.float64), order="C") for array in (Y, H, rotation))
    U = np.array(U, np.float64, order="C")
    kernel, n_tracked = blocks.compiled(_smooth_bins, KERNELS[_smooth_bins]), N_TRACKED if rotation.any() else 0
    faint = MASKED * np.abs(Y).max(initial=0)

    def smooth(bins):
        kernel(Y[bins], H[bins], U, rotation[bins], of, n_tracked, faint, first, to_unit, X[:, bins])

    blocks.in_threads(smooth, blocks.frame_slices(len(Y), 32))
    return notes, X


def _smooth_bins(Y, H, U, rotation, note_of, n_tracked, faint, first, to_unit, X):
    """Smooth all notes in some bins; numba compiles this. X is written in place.

    x is the state, the strongest notes, and V its covariance. An innovation e of variance s moves x by g e with
    g = V 1 / s; back in time, z = (sum_n C_n)^(-1) Y comes from them, and X_n = C_n z from its sums ahead and behind.
    """
    n_notes, (n_bins, n_frames), last = len(X), Y.shape, first + X.shape[2]
    n_tracked = min(n_tracked, n_notes)
    r, g = np.empty((n_frames, n_tracked), np.complex128), np.empty((n_frames, n_tracked), np.complex128)
    ahead, x = np.empty((n_frames, n_tracked + 1), np.complex128), np.zeros(n_tracked, np.complex128)
    V = np.zeros((n_tracked, n_tracked), np.complex128)
    innovation, z = np.empty(n_frames, np.complex128), np.empty(n_frames, np.complex128)
    size, model, total, rest = np.empty(n_frames), np.empty(n_frames), np.empty(n_frames), np.empty(n_frames)
    variance, energy = np.empty((n_notes, n_frames)), np.empty(n_notes)
    falls = np.zeros((n_tracked, n_frames))  # of each size to the next; zero in the first frame
    nothing = np.complex64(1 if to_unit else 0)
    tile = np.full((n_notes, n_bins, last - first), nothing)  # of X, whose frames lie far apart
    tracked, s_before = np.empty(n_tracked, np.int64), 0.0
    least_size, one = np.finfo(np.float32).tiny, np.complex128(1)
    for k in range(n_bins):
        peak = 0.0
        for m in range(n_frames):
            size[m] = np.sqrt(Y[k, m].real ** 2 + Y[k, m].imag ** 2)
            peak = max(peak, size[m])
            model[m] = total[m] = 0.0
        if peak == 0:
            continue
        n = n_tracked if peak > faint else 0
        for note in range(n_notes):
            for m in range(n_frames):
                variance[note, m] = 0.0
        for l in range(len(note_of)):
            a, h = variance[note_of[l]], H[k, l]
            for m in range(n_frames):
                a[m] += h * U[l, m]
        least = 1e-200  # keeps what is divided by from zero
        for note in range(n_notes):
            a = variance[note]
            sum_of_note = 0.0
            for m in range(n_frames):
                model[m] += a[m]
                a[m] *= a[m]
                sum_of_note += a[m]
            energy[note] = sum_of_note
            least += 1e-12 * sum_of_note / n_frames
        for note in range(n_notes):
            a = variance[note]
            for m in range(n_frames):
                a[m] += least
                total[m] += a[m]
        for m in range(n_frames):
            rest[m] = total[m]
        for i in range(n):
            loudest = 0
            for note in range(n_notes):
                if energy[note] > energy[loudest]:
                    loudest = note
            tracked[i], energy[loudest] = loudest, -1.0
            a, goes_on = variance[loudest], falls[i]
            for m in range(n_frames):
                rest[m] -= a[m]
            for m in range(1, n_frames):
                goes_on[m] = min(1.0, np.sqrt(a[m] / a[m - 1]))
        for m in range(n_frames):
            rest[m] = max(rest[m], 0.0)

        for m in range(n_frames):  # nothing is left of x and V of another bin, for r is zero in the first frame
            s, e = rest[m] + max(0.0, size[m] - model[m]) ** 2, Y[k, m]
            for i in range(n):  # what the frame before has told of V, how V goes on, and V 1, in one pass
                now, before = variance[tracked[i], m], variance[tracked[i], max(m - 1, 0)]
                r[m, i] = rotation[k, tracked[i]] * falls[i, m]
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

        for i in range(n):
            x[i] = 0.0
        for m in range(n_frames - 1, -1, -1):  # x is now the sum of z ahead, turned back to this frame
            z[m] = innovation[m]
            for i in range(n):
                z[m] -= np.conj(g[m, i]) * x[i]
            for i in range(n):
                ahead[m, i] = x[i] + z[m]
                x[i] = np.conj(r[m, i]) * ahead[m, i]

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
        for m in range(first, last if to_unit else first):  # a mask turns nothing: its phase is that of z
            ahead[m, n] = z[m] * total[m]
            for i in range(n + 1):
                x_i = ahead[m, i]
                length = np.sqrt(x_i.real**2 + x_i.imag**2)
                ahead[m, i] = x_i / length if length > least_size else one
        for i in range(n_notes):
            a, x_k = variance[i], tile[i, k]
            for m in range(first, last):
                x_k[m - first] = ahead[m, n] if to_unit else a[m] * z[m]
        for i in range(n):
            for m in range(first, last):
                tile[tracked[i], k, m - first] = ahead[m, i]
    for i in range(n_notes):
        for m in range(last - first):
            for k in range(n_bins):
                X[i, k, m] = tile[i, k, m]


KERNELS = {
    _smooth_bins: "void(complex128[:, ::1], float64[:, ::1], float64[:, ::1], complex128[:, ::1], int64[::1], int64, "
    "float64, int64, boolean, complex64[:, :, :])",
}
