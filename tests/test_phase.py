"""Notes smoothed through time: recovered phases, sums, and what a change of the mixture does to them."""

import numpy as np
import pytest

import oracle
import utils
from helpers import level
from piano import adapt, phase, recording, separate
from piano.basis import Basis

SR, N_FFT, HOP = 22050, 2048, 512


def test_two_notes_a_semitone_apart_come_apart():
    """Damped partials, with a basis of which every column is one frame of one note: H U is exactly |X|."""
    rng, sounds, t = np.random.default_rng(1), [], np.arange(3 * SR // 2) / SR
    for onset, f0 in ((0.1, utils.note_frequency(60)), (0.4, utils.note_frequency(61))):
        n, s = np.arange(1, 7)[:, None], t - onset
        partials = np.exp(-2 * n * s) * np.cos(2 * np.pi * n * f0 * s + rng.uniform(0, 2 * np.pi, n.shape)) / n
        sounds.append(np.where(s >= 0, partials.sum(axis=0), 0))
    X = np.stack([recording.stft(s, n_fft=N_FFT, hop=HOP) for s in sounds]).astype(np.complex128)  # (2, K, M)
    _, K, M = X.shape
    H, U = np.abs(X).transpose(1, 0, 2).reshape(K, 2 * M) + 1e-9, np.tile(np.eye(M), (2, 1))
    rotation = np.stack([phase.measure_rotation(x) for x in X], axis=1)
    _, smoothed = phase.smoothed_notes(X.sum(axis=0), H, U, rotation, np.repeat([0, 1], M))
    wiener = np.abs(X) ** 2 / (np.abs(X) ** 2).sum(axis=0).clip(1e-30) * X.sum(axis=0)
    for s, *estimates in zip(sounds, smoothed, wiener, strict=True):
        left, of_mask = (level(s - recording.istft(x, len(s), n_fft=N_FFT, hop=HOP), s) for x in estimates)
        assert left < -25
        assert left < of_mask - 3


def small_problem(rng, n_notes, n_frames=30, K=3):
    """Spectrogram, basis, activations and rotations with nothing special about them, one column a note."""
    H, U = rng.random((K, n_notes)) + 0.01, rng.random((n_notes, n_frames)) ** 3
    rotation = rng.random((K, n_notes)) * np.exp(2j * np.pi * rng.random((K, n_notes)))
    Y = rng.standard_normal((K, n_frames)) + 1j * rng.standard_normal((K, n_frames))
    return Y, H, U, rotation


def dense_smoother(Y, H, U, rotation, n_tracked):
    """``C_n (sum_n C_n + N)^(-1) Y`` with whole covariance matrices over frames, bin by bin, and N's share."""
    X = np.empty((H.shape[1], *Y.shape), complex)
    for k in range(len(Y)):
        C = []
        weakest_first = np.argsort([np.sum((H[k, n] * U[n]) ** 2) for n in range(len(U))])
        for n, u in enumerate(U):
            a = H[k, n] * u
            rho = min(abs(rotation[k, n]), phase.COHERENCE) * (n in weakest_first[len(U) - n_tracked :])
            step = rho * np.exp(1j * np.angle(rotation[k, n])) * np.minimum(1, a[1:] / a[:-1])
            covariance = np.diag(a**2).astype(complex)
            for m in range(len(a)):
                for later in range(m + 1, len(a)):
                    covariance[later, m] = np.prod(step[m:later]) * a[m] ** 2
                    covariance[m, later] = covariance[later, m].conj()
            C.append(covariance)
        unexplained = np.maximum(0, np.abs(Y[k]) - H[k] @ U) ** 2
        z = np.linalg.solve(sum(C) + np.diag(unexplained), Y[k])
        share = np.array([np.diag(covariance).real for covariance in C])
        X[:, k] = [covariance @ z for covariance in C] + share / share.sum(axis=0) * unexplained * z
    return X


@pytest.mark.parametrize("coherence", [1, 0])  # without any it is the Wiener mask
@pytest.mark.parametrize("n_notes", [1, phase.N_TRACKED, phase.N_TRACKED + 4])
def test_smoothed_notes_are_the_mean_given_the_mixture(rng, n_notes, coherence):
    Y, H, U, rotation = small_problem(rng, n_notes)
    rotation *= coherence
    _, X = phase.smoothed_notes(Y, H, U, rotation, np.arange(n_notes))
    expected = dense_smoother(Y, H, U, rotation, phase.N_TRACKED if coherence else 0)
    assert pytest.approx(expected, rel=1e-5, abs=1e-5) == X


def test_a_phase_is_that_of_the_note_however_soft_it_is(rng):
    Y, H, U, rotation = small_problem(rng, 3)
    Y[0], H[0], U[1] = 1e-9 * Y[0], 1e-9 * H[0], 1e-9 * U[1]
    X, unit = (phase.smoothed_notes(Y, H, U, rotation, np.arange(3), to_unit=to_unit)[1] for to_unit in (False, True))
    X = X.astype(complex)
    assert 0 < np.median(np.abs(X[1, 0])) < 1e-19  # whose square has no single precision
    np.testing.assert_allclose(unit, X / np.abs(X), atol=1e-6)


def test_a_bin_that_stays_faint_is_masked(rng):
    Y, H, U, rotation = small_problem(rng, 3)
    for i, loudest in enumerate((0.9 * phase.MASKED, 1.1 * phase.MASKED, 1)):
        Y[i] *= 1e-3 * loudest / np.abs(Y[i]).max()  # a soft passage is held against itself
    smoothed, masked = (phase.smoothed_notes(Y, H, U, r, np.arange(3))[1] for r in (rotation, 0 * rotation))
    np.testing.assert_array_equal(smoothed[:, 0], masked[:, 0])
    assert level(np.abs(smoothed[:, 1] - masked[:, 1]), np.abs(smoothed[:, 1])) > -20


def test_a_rotation_is_measured_from_the_loudest_frame_down_to_a_hundredth_of_its_magnitude():
    """Bin 0 falls by 5 dB a frame; bin 1 sounds late, and turns the other way where all is below -40 dB."""
    m = np.arange(16)
    level = np.minimum(1, 10 ** (-(5 * m - 1) / 20))  # none is at -40 dB itself
    Y = np.zeros((2, 16), complex)
    Y[0] = level * np.exp(0.3j * m)
    Y[1] = 0.05 * level * np.exp(1j * np.where(m < 9, m, -m)) * (m >= 5)
    Y = np.concatenate([[[0.1], [-0.01]], Y], axis=1)  # before the loudest
    r = phase.measure_rotation(Y)
    assert np.angle(r) == pytest.approx([0.3, 1.0], abs=1e-5)
    x = np.abs(Y[1, 6:10]) ** 2  # bin 1's frames from -24 to -39 dB; the one before them is silent
    assert abs(r[1]) == pytest.approx(np.sqrt(x[:-1] * x[1:]).sum() / np.sqrt(x.sum() * x[:-1].sum()), rel=1e-5)


def turns(Y, H, U):
    """How the Wiener masks of one note for each column turn, where there is no noise."""
    Y, H, U = utils.spectrogram(Y), np.pad(H, ((0, 0), (0, 1))), np.pad(U, ((0, 1), (0, 0)))
    return phase._turns((Y.at(slice(None)), U / Y.unit, (0, Y.shape[1])), H=H, note_of=np.arange(len(U)))


@pytest.mark.parametrize("strength", [1e-9, phase.TRUSTED, 1e9])
def test_another_pianos_rotation_is_between_what_its_notes_show_and_the_templates(rng, strength):
    K, m = 9, np.arange(40)
    omega, template = rng.uniform(-3, 3, 2 * K), 0.9 * np.exp(1j * rng.uniform(-3, 3, 2 * K))
    H, U = np.zeros((2 * K, 2)), np.tile(0.9**m, (2, 1))
    H[:K, 0] = H[K:, 1] = rng.random(K) + 0.1  # no bin in common
    Y = 1e-3 * (H @ U) * np.exp(1j * omega[:, None] * m)
    found = phase.adapted_rotation(turns(Y, H, U), np.stack([template] * 2, axis=1), strength)
    share = strength**2 / (phase.TRUSTED**2 + strength**2)
    expected = (1 - share) * np.exp(1j * omega) + share * template
    assert found[:K, 0] == pytest.approx(expected[:K], abs=1e-5)
    assert found[K:, 1] == pytest.approx(expected[K:], abs=1e-5)


def test_where_phases_do_not_go_on_the_smoother_is_the_wiener_filter(rng):
    K, M, N = 1024, 120, 3
    H, U = rng.random((K, N)) ** 3 + 1e-3, 0.95 ** np.arange(M) * rng.uniform(0.5, 1, (N, 1))
    notes = [H[:, [n]] * U[n] * np.exp(2j * np.pi * rng.random((K, M))) for n in range(N)]
    Y = sum(notes).astype(np.complex64)
    steady = 0.97 * np.exp(2j * np.pi * rng.random((K, N)))
    rotation = phase.adapted_rotation(turns(Y, H, U), steady.astype(np.complex64), 1.0)
    _, smoothed = phase.smoothed_notes(Y, H, U, rotation, np.arange(N))
    A = H.T[:, :, None] ** 2 * U[:, None] ** 2
    for s, x, of_mask in zip(notes, smoothed, A / A.sum(axis=0) * Y, strict=True):
        assert level(np.abs(s - x), np.abs(s)) == pytest.approx(level(np.abs(s - of_mask), np.abs(s)), abs=0.05)


def held_sweep(Y, H, U, P, weight, p):
    """Kameoka's sweep with P held, every array whole."""
    beta, X = oracle.shares(H, U), oracle.components(Y, H, U, P)
    above = np.einsum("kl,lkm->lm", H, (X * P.conj()).real / beta)
    return np.maximum(0, above) / (np.einsum("kl,lkm->lm", H**2, 1 / beta) + weight * p * U ** (p - 2))


def decomposed(Y, piano, n_iter, **options):
    """Parts of a complex NMF on phases of smoothed notes, and their U, F and P of every column, whole."""
    piano, start = phase.start(Y, piano)
    parts = list(utils.complex_nmf_blocks(Y, piano.H, n_iter, phase_init=start, **options))
    return parts, *(np.concatenate(x, axis=-1) for x in zip(*((p.U, p.F, p.P[p.row]) for p in parts), strict=True))


def test_activations_are_refined_by_sweeps_with_phases_held(rng):
    n_iter = 8
    H, U = rng.random((12, 3)) + 0.1, rng.random((3, 70)) + 0.1
    Y = H @ U * np.exp(2j * np.pi * rng.random((12, 70)))
    rotation = 0.9 * np.exp(1j * rng.random((12, 3)))
    piano = Basis(H, columns=[{"note": note} for note in ("C4", "C4", "D4")], rotation=rotation)
    parts, U, F, P = decomposed(Y, piano, n_iter, sparsity=0.1)
    assert np.abs(P) == pytest.approx(1, abs=1e-6)
    assert np.array_equal(P[0], P[1])

    weight = utils.sparsity_weight(np.sum(np.abs(Y) ** 2), 70, 3, 1.2, 0.1)
    expected = utils.nmf(Y, adapt.with_noise(H), phase.N_SWEEPS, loss=0.5, solver="cd")[0][:-1]
    expected[expected < utils.SILENT * expected.max(axis=0)] = 1e-30  # never exactly zero, for the oracle's sake
    errors, costs, P = [], [], P.astype(complex)
    for _ in range(n_iter):
        expected = np.maximum(held_sweep(Y, H, expected, P, weight, 1.2), 1e-30)
        model = oracle.model(H, expected, P)
        errors.append(np.sum(np.abs(Y - model) ** 2))
        costs.append(oracle.objective(Y, H, expected, P, weight, 1.2))
    assert pytest.approx(expected, rel=1e-5, abs=1e-6) == U
    assert pytest.approx(model, rel=1e-5, abs=1e-6) == F
    assert parts[-1].error == pytest.approx(errors, rel=1e-6)
    assert parts[-1].cost == pytest.approx(costs, rel=1e-6)
    assert (np.diff(parts[-1].cost) <= 1e-12 * costs[0]).all()


def slow_problem(rng, M, K=6, rho=0.9):
    """Spectrogram of three notes whose activations drift, and the basis that fits them, with rotations."""
    H, U = rng.random((K, 3)) + 0.01, np.abs(np.cumsum(rng.standard_normal((3, M)), axis=1)) + 0.1
    noise = rng.standard_normal((2, 3, K, M))
    Y = (H.T[:, :, None] * U[:, None] * (noise[0] + 1j * noise[1])).sum(axis=0)
    return Y, Basis(H, rotation=rho * np.exp(1j * rng.uniform(-3, 3, (K, 3))))


def test_nothing_is_smoothed_again_for_a_second_run(rng, monkeypatch):
    Y, piano = slow_problem(rng, 5 * phase.BLOCK // 2)
    cost = decomposed(Y, piano, 20)[0][-1].cost
    calls, smooth = [], phase.smoothed_notes
    monkeypatch.setattr(phase, "smoothed_notes", lambda *args, **to: calls.append(args) or smooth(*args, **to))
    piano, start = phase.start(Y, piano)
    with utils.kept(start, Y) as start:
        for n in (20, 11):
            *_, last = utils.complex_nmf_blocks(Y, piano.H, n, phase_init=start)
            assert np.array_equal(last.cost, cost[:n])
    assert len(calls) == 3  # as many as there are blocks


def test_a_block_hears_16_frames_on_both_sides(rng):
    K, rho = 6, 0.8
    M = 4 * phase.BLOCK
    H, U = rng.random((K, 3)) + 0.1, rng.random((3, M)) + 0.5
    rotation = rho * np.exp(1j * rng.uniform(-3, 3, (K, 3)))
    Y = H @ U * np.exp(2j * np.pi * rng.random((K, M)))
    _, whole = phase.smoothed_notes(Y, H, U, rotation, np.arange(3))
    frames, u, limits = phase._with_context(utils.spectrogram(Y), U, slice(phase.BLOCK, 2 * phase.BLOCK))
    _, X = phase.smoothed_notes(Y[:, frames.frames], H, u, rotation, np.arange(3), limits)
    whole = whole[:, :, phase.BLOCK : 2 * phase.BLOCK]
    error = np.linalg.norm((X - whole)[:, :, [0, -1]]) / np.linalg.norm(whole[:, :, [0, -1]])
    assert error < rho**16  # what is d frames away is told of by rho^d at most


def heard_notes(Y, piano, parts):
    """Every note of a basis as it is heard [shape=(notes, K, M)]."""
    each = (separate.component_notes(Y[:, part.frames], piano, part) for part in parts)
    return np.concatenate([np.stack(list(map(of_note, piano.notes))) for of_note in each], axis=-1)


def test_the_sound_follows_the_sweeps_and_the_penalty(rng):
    """What is heard is X = H U P + beta (Y - F) of the U and P that are saved; of what F leaves noise has a share."""
    Y, piano = slow_problem(rng, 90)
    heard = []
    for n_iter, options in ((1, {}), (30, {}), (30, {"sparsity": 1.0})):
        parts, U, F, P = decomposed(Y, piano, n_iter, **options)
        X = heard_notes(Y, piano, parts)
        HU = piano.H.T[:, :, None] * U[:, None]
        noise = np.concatenate([p.noise for p in parts], axis=1)
        assert (noise[0] > 0).any()
        assert np.array_equal(noise, np.broadcast_to(noise[0], noise.shape))  # it is white
        expected = HU * P + HU / (HU.sum(axis=0) + noise) * (Y - F)
        np.testing.assert_allclose(X, expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())
        heard.append(X)
    assert all(np.abs(X - heard[1]).max() > 1e-2 * np.abs(heard[1]).max() for X in (heard[0], heard[2]))


def test_white_noise_is_found_and_left_to_the_residual(rng):
    K, M, N, sigma = 512, 90, 3, 0.02
    H, U = rng.random((K, N)) ** 12 + 1e-5, 0.97 ** np.arange(M) * rng.uniform(0.5, 1, (N, 1))
    omega = rng.uniform(-3, 3, (K, N))
    notes = [H[:, [n]] * U[n] * np.exp(1j * (omega[:, [n]] * np.arange(M) + rng.uniform(0, 6))) for n in range(N)]
    noise = sigma / np.sqrt(2) * (rng.standard_normal((K, M)) + 1j * rng.standard_normal((K, M)))
    Y, piano = sum(notes) + noise, Basis(H, rotation=0.98 * np.exp(1j * omega))
    parts, *_ = decomposed(Y, piano, 20)
    found = np.concatenate([part.noise for part in parts], axis=1)
    whole = sigma * np.sqrt(np.pi) / 2  # what |noise| is on average; notes explain some of it
    assert 0.8 * whole < found.mean() < whole

    def error(parts):
        return np.linalg.norm(heard_notes(Y, piano, parts) - notes, axis=(1, 2))

    assert (error(parts) < 0.7 * error([part._replace(noise=0.0) for part in parts])).all()


def test_noise_is_as_loud_as_nmf_finds_it_and_no_list_holds_it_back(rng):
    Y, piano = slow_problem(rng, 70)
    unlisted, quiet = np.full((3, 70), adapt.UNLISTED), 0.5
    adapted, start = phase.start(Y, piano, strength=1.0, prior=(unlisted, quiet))
    parts = utils.complex_nmf_blocks(Y, adapted.H, 1, phase_init=start)
    found = np.concatenate([part.noise for part in parts], axis=1)
    options = {"loss": 0.5, "solver": "cd", "prior": (np.concatenate([unlisted, np.zeros((1, 70))]), quiet)}
    U, _ = utils.nmf(Y, adapt.with_noise(piano.H), phase.N_SWEEPS, **options)
    level = np.where(U[-1] < utils.SILENT * U.max(axis=0), 0, U[-1])
    assert 0 < np.count_nonzero(level) < len(level)
    np.testing.assert_allclose(found, np.broadcast_to(level * piano.H.mean(), Y.shape), rtol=1e-6)


@pytest.mark.parametrize("rho", [0, 0.8])
def test_what_blocks_tell_is_that_of_their_notes_where_those_are_heard(rng, rho):
    """Wiener masks tell of turns, where they do not grow louder, and smoothed notes of energies."""
    K, L, M, note_of = 9, 5, 30, np.array([1, 0, 1, 2, 3])  # the last is noise
    H, U = rng.random((K, L)), rng.random((L, M)) * (rng.random((L, M)) < 0.7)
    U[0], U[3] = rng.uniform(0.5, 1, M), 0  # note 2 is silent
    H[2:4, 1] = H[2:4, 0] * [0.1, 1e-3]  # note 0 seldom has half of the energy of a bin, nor a thousandth of another's
    Y = utils.spectrogram(rng.standard_normal((K, M)) + 1j * rng.standard_normal((K, M)))
    rotation = rho * utils.unit_phase(rng.standard_normal((K, 4)) + 1j)
    job = Y.at(slice(None)), U, (0, M)
    told, energies = (
        phase._turns(job, H=H, note_of=note_of),
        phase._energies(job, H=H, rotation=rotation, note_of=note_of),
    )
    A = np.stack([H[:, note_of == n] @ U[note_of == n] for n in range(4)])
    share = A**2 / np.sum(A**2, axis=0)
    heard = share > phase.HEARD
    assert not heard[0, 3].all()
    assert heard[0, :3].any(axis=1).all()

    masked = share * Y.Y / Y.unit
    falls = (A[..., 1:] <= A[..., :-1]) & heard[..., 1:]
    now, before = np.where(falls, masked[..., 1:], 0), np.where(falls, masked[..., :-1], 0)
    turn = now * before.conj()
    expected = np.sum([turn.real, turn.imag, np.abs(now) ** 2, np.abs(before) ** 2], axis=-1)
    single = {"rtol": 1e-5, "atol": 1e-6}  # of what is summed there
    np.testing.assert_allclose(told, expected[:, :-1], **single)
    assert not told[:, 2].any()

    X = np.zeros(A.shape, complex)
    X[[0, 1, 3]] = phase.smoothed_notes(Y.Y / Y.unit, H, U, rotation, note_of)[1]
    for l, n in enumerate(note_of):
        variance = np.abs(X[n]) ** 2 / np.maximum(A[n], 1e-30) + (1 - rho**2) * A[n] * (1 - share[n])
        np.testing.assert_allclose(energies[0, l], np.sum(heard[n] * variance * U[l], axis=1), **single)
        np.testing.assert_allclose(energies[1, l], np.sum(heard[n] * A[n] * U[l], axis=1), **single)


def test_nothing_that_blocks_tell_is_subnormal(rng):
    """Where a note cancels another, next to nothing is left of both: here of one that is alone."""
    level = 10.0 ** np.repeat([0, -10, -21], 2)  # of each bin
    Y = utils.spectrogram((level[:, None] * np.exp(1j * rng.random((6, 12)))).astype(np.complex64))
    job, H = (Y.at(slice(None)), np.ones((2, 12), np.float32) * [[1], [0]], (0, 12)), np.ones((6, 2), np.float32)
    note_of = np.arange(2)
    told = phase._turns(job, H=H, note_of=note_of)
    for sums in (told, phase._energies(job, H=H, rotation=np.zeros((6, 2), complex), note_of=note_of)):
        assert not np.any((sums != 0) & (np.abs(sums) < np.finfo(np.float32).tiny))


def test_spectra_get_the_energies_that_are_found_and_stay_as_loud(rng):
    H, U = rng.random((6, 3)) + 0.1, rng.random((3, 5))
    expected = rng.random((6, 3)) + 0.5
    factor = rng.uniform(0.5, 2, (6, 3))
    changed, louder = phase.with_energies(H, U, factor**2 * expected, expected)
    np.testing.assert_allclose(changed.sum(axis=0), H.sum(axis=0))
    for l in range(3):
        np.testing.assert_allclose(np.outer(changed[:, l], louder[l]), np.outer(H[:, l] * factor[:, l], U[l]))
    same, U_same = phase.with_energies(H, U, 0 * expected, 0 * expected)  # of notes that are never heard
    np.testing.assert_allclose(same, H)
    np.testing.assert_allclose(U_same, U)


def test_rotations_of_a_long_recording_are_measured_in_blocks_spread_over_it(rng):
    """Noise fills the blocks that are not looked at, and leaves the rotations as they are."""
    n_blocks, omega = 3 * phase.N_BLOCKS, 0.7
    M = n_blocks * phase.BLOCK
    H = np.array([[1.0], [0.1], [0.5], [0.2]])
    Y = np.exp(1j * omega * np.arange(M)) * H
    looked_at = np.linspace(0, n_blocks - 1, phase.N_BLOCKS).round().astype(int)
    left_out = ~np.isin(np.arange(M) // phase.BLOCK, looked_at)
    Y[:, left_out] = rng.standard_normal((4, left_out.sum()))
    piano, _ = phase.start(Y, Basis(H, rotation=np.full((4, 1), 0.5 + 0j)), strength=1e-9)
    assert np.angle(piano.rotation) == pytest.approx(omega, abs=1e-3)


def test_notes_that_are_silent_in_a_block_are_left_out_and_change_no_other(rng):
    K, M, note_of = 7, 40, np.array([0, 1, 1, 2])
    H, U = rng.random((K, 4)) + 0.1, rng.random((4, M)) + 0.1
    U[1:3] = 0
    rotation = 0.9 * np.exp(1j * rng.uniform(-3, 3, (K, 3)))
    Y = rng.standard_normal((K, M)) + 1j * rng.standard_normal((K, M))
    notes, X = phase.smoothed_notes(Y, H, U, rotation, note_of)
    _, sounding = phase.smoothed_notes(Y, H[:, [0, 3]], U[[0, 3]], rotation[:, [0, 2]], np.arange(2))
    assert notes.tolist() == [0, 2]
    np.testing.assert_allclose(X, sounding, rtol=1e-5, atol=1e-6)
    _, part = phase.smoothed_notes(Y, H, U, rotation, note_of, (10, 25))
    np.testing.assert_allclose(part, X[:, :, 10:25], rtol=1e-6)
    _, silent = phase.smoothed_notes(Y, H, 0 * U, rotation, note_of)
    np.testing.assert_allclose(silent.sum(axis=0), Y, rtol=1e-5)  # what none explains is shared out all the same
