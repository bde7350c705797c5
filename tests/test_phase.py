"""Notes smoothed through time: recovered phases, sums, and what a change of the mixture does to them."""

import numpy as np
import pytest

import utils
from piano import phase, recording
from piano.basis import Basis

SR, N_FFT, HOP = 22050, 2048, 512
SECONDS = 1.5


def damped_note(f0, decay, phases, onset=0.1, n_partials=6):
    """Damped partials of ``f0`` with phases of their own, from ``onset`` s on."""
    t = np.arange(int(SECONDS * SR)) / SR - onset
    partials = [
        np.exp(-decay * n * t) * np.cos(2 * np.pi * n * f0 * t + phases[n - 1]) / n for n in range(1, n_partials + 1)
    ]
    return np.where(t >= 0, sum(partials), 0.0)


@pytest.fixture(scope="module")
def problem():
    """Two notes a semitone apart: their spectra, and basis, activations and rotations that fit them exactly."""
    rng = np.random.default_rng(1)
    f0 = utils.note_frequency(60), utils.note_frequency(61)
    sounds = [damped_note(f, 2.0, rng.uniform(0, 2 * np.pi, 6), onset=0.1 + 0.3 * i) for i, f in enumerate(f0)]
    X = np.stack([recording.stft(s, n_fft=N_FFT, hop=HOP) for s in sounds]).astype(np.complex128)  # (2, K, M)
    rotation = np.stack([phase.measure_rotation(x) for x in X], axis=1)
    return sounds, X, rotation


def magnitudes_as_basis(X):
    """H and U whose every column is one frame of one note: H U is exactly |X|, note by note."""
    n_notes, K, M = X.shape
    H = np.abs(X).transpose(1, 0, 2).reshape(K, n_notes * M) + 1e-9
    U = np.tile(np.eye(M), (n_notes, 1))
    return H, U, np.repeat(np.arange(n_notes), M)


@pytest.fixture(scope="module")
def smoothed(problem):
    _, X, rotation = problem
    H, U, note_of = magnitudes_as_basis(X)
    return phase.smoothed_notes(X.sum(axis=0), H, U, rotation, note_of)


def test_phases_are_those_of_the_notes_where_they_hold_most_of_a_bin(problem, smoothed):
    _, X, _ = problem
    energy = np.abs(X) ** 2
    most = (energy > 0.5 * energy.sum(axis=0)) & (energy > 1e-6 * energy.max())
    error = np.abs(np.angle(smoothed * X.conj()))
    for n in range(2):
        assert most[n].sum() > 500
        assert np.quantile(error[n][most[n]], 0.9) < 0.05  # rad
        assert np.average(error[n][most[n]], weights=energy[n][most[n]]) < 0.01


def test_two_notes_a_semitone_apart_come_apart(problem, smoothed):
    sounds, X, _ = problem
    for n, s in enumerate(sounds):
        s_hat = recording.istft(smoothed[n], len(s), n_fft=N_FFT, hop=HOP)
        wiener = np.abs(X[n]) ** 2 / (np.abs(X) ** 2).sum(axis=0).clip(1e-30) * X.sum(axis=0)
        masked = recording.istft(wiener, len(s), n_fft=N_FFT, hop=HOP)
        sdr, of_mask = (10 * np.log10(np.sum(s**2) / np.sum((s - x) ** 2)) for x in (s_hat, masked))
        assert sdr > 25
        assert sdr > of_mask + 3


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
            rho = min(abs(rotation[k, n]), phase.COHERENCE) * (n in weakest_first[-n_tracked:])
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


@pytest.mark.parametrize("n_notes", [1, 2, phase.N_TRACKED, phase.N_TRACKED + 4])
def test_smoothed_notes_are_the_mean_given_the_mixture(rng, n_notes):
    Y, H, U, rotation = small_problem(rng, n_notes)
    X = phase.smoothed_notes(Y, H, U, rotation, np.arange(n_notes))
    assert pytest.approx(dense_smoother(Y, H, U, rotation, phase.N_TRACKED), rel=1e-5, abs=1e-5) == X


def test_states_of_a_note_are_one_note(rng):
    Y, H, U, rotation = small_problem(rng, 3)
    note_of = np.array([0, 1, 1])
    X = phase.smoothed_notes(Y, H, U, rotation[:, :2], note_of)
    A = np.stack([H[:, note_of == n] @ U[note_of == n] for n in range(2)])  # (2, K, M)
    for k in range(len(Y)):
        alone = phase.smoothed_notes(Y[k : k + 1], np.ones((1, 2)), A[:, k], rotation[k : k + 1, :2], np.arange(2))
        assert X[:, k] == pytest.approx(alone[:, 0], rel=1e-5, abs=1e-6)


def test_without_coherence_it_is_the_wiener_mask(rng):
    Y, H, U, rotation = small_problem(rng, 5)
    variance = (H.T[:, :, None] * U[:, None]) ** 2
    X = phase.smoothed_notes(Y, H, U, 0 * rotation, np.arange(5))  # whatever the model leaves unexplained
    assert pytest.approx(variance / variance.sum(axis=0) * Y, rel=1e-5, abs=1e-5) == X


def test_notes_sum_to_the_mixture_and_one_alone_is_all_of_it(rng):
    Y, H, U, rotation = small_problem(rng, 4)
    U[:, 5:9] = 0  # silence in the model, though not in the mixture
    X = phase.smoothed_notes(Y, H, U, rotation, np.arange(4))
    assert np.abs(X.sum(axis=0) - Y).max() < 1e-6 * np.abs(Y).max()
    U[1:] = 0
    X = phase.smoothed_notes(Y, H, U, rotation, np.arange(4))
    sounding = U[0] > 0.1
    assert X[0][:, sounding] == pytest.approx(Y[:, sounding], rel=1e-5)


def test_a_turned_mixture_has_turned_notes(rng):
    Y, H, U, rotation = small_problem(rng, 4)
    turn = np.exp(0.7j)
    X, turned = (phase.smoothed_notes(y, H, U, rotation, np.arange(4)) for y in (Y, turn * Y))
    assert turned == pytest.approx(turn * X, rel=1e-5, abs=1e-5)


def test_a_shift_by_whole_hops_shifts_the_notes(problem, smoothed):
    _, X, rotation = problem
    H, U, note_of = magnitudes_as_basis(X)
    quiet = pytest.approx(0, abs=1e-3 * np.abs(X).max())
    shift = 2
    assert np.abs(X[:, :, :shift]).max() == quiet
    later = phase.smoothed_notes(X.sum(axis=0)[:, shift:], H, U[:, shift:], rotation, note_of)
    assert np.abs(later - smoothed[:, :, shift:]).max() < 1e-3 * np.abs(X).max()


def test_rotation_is_measured_on_a_template():
    t = np.arange(SR) / SR
    f = 440.0
    r = phase.measure_rotation(recording.stft(np.exp(-t) * np.sin(2 * np.pi * f * t), n_fft=N_FFT, hop=HOP)[:, 2:-3])
    k = round(f * N_FFT / SR)
    advance = np.angle(np.exp(2j * np.pi * f * HOP / SR))
    for near in (k - 1, k, k + 1):
        assert np.angle(r[near]) == pytest.approx(advance, abs=0.01)
        assert abs(r[near]) == pytest.approx(1, abs=1e-3)
    noise = np.random.default_rng(0).standard_normal((4, 500)) + 0j
    assert np.abs(phase.measure_rotation(noise)).max() < 0.5


def test_a_template_of_one_loud_frame_has_no_rotation():
    Y = np.zeros((3, 5), complex)
    Y[:, 2] = 1
    assert not phase.measure_rotation(Y).any()


def test_a_rotation_is_measured_from_the_loudest_frame_down_to_a_hundredth_of_its_magnitude():
    """Bin 0 falls by 5 dB a frame; bin 1 sounds late, and turns the other way where all is below -40 dB."""
    m = np.arange(16)
    level = 10 ** (-(5 * m - 1) / 20)  # none is at -40 dB itself
    level[0] = 1
    Y = np.zeros((2, 16), complex)
    Y[0] = level * np.exp(0.3j * m)
    Y[1] = 0.05 * level * np.exp(1j * np.where(m < 9, m, -m)) * (m >= 5)
    Y = np.concatenate([[[0.1], [-0.01]], Y], axis=1)  # before the loudest
    r = phase.measure_rotation(Y)
    assert np.angle(r) == pytest.approx([0.3, 1.0], abs=1e-5)
    x = np.abs(Y[1, 6:10]) ** 2  # bin 1's frames from -24 to -39 dB; the one before them is silent
    assert abs(r[1]) == pytest.approx(np.sqrt(x[:-1] * x[1:]).sum() / np.sqrt(x.sum() * x[:-1].sum()), rel=1e-5)


@pytest.mark.parametrize("strength", [1e-9, phase.TRUSTED, 1e9])
def test_another_pianos_rotation_is_between_what_its_notes_show_and_the_templates(rng, strength):
    K, M = 9, 40
    omega, template = rng.uniform(-3, 3, (K, 2)), 0.9 * np.exp(1j * rng.uniform(-3, 3, (K, 2)))
    H, U = np.zeros((2 * K, 2)), np.zeros((2, M))
    H[:K, 0] = H[K:, 1] = rng.random(K) + 0.1  # no bin in common
    omega, template = np.concatenate([omega[:, 0], omega[:, 1]]), np.concatenate([template[:, 0], template[:, 1]])
    U[:] = 0.9 ** np.arange(M)
    Y = 1e-3 * (H @ U) * np.exp(1j * omega[:, None] * np.arange(M))
    found = phase.adapted_rotation(Y, Basis(H, rotation=np.stack([template] * 2, axis=1)), U, strength)
    share = strength**2 / (phase.TRUSTED**2 + strength**2)
    expected = (1 - share) * np.exp(1j * omega) + share * template
    assert found[:K, 0] == pytest.approx(expected[:K], abs=1e-5)
    assert found[K:, 1] == pytest.approx(expected[K:], abs=1e-5)


@pytest.mark.parametrize("strength", [3.0, 300.0])
def test_where_phases_do_not_go_on_the_smoother_is_the_wiener_filter(rng, strength):
    K, M, N = 1024, 120, 3
    H, U = rng.random((K, N)) ** 3 + 1e-3, 0.95 ** np.arange(M) * rng.uniform(0.5, 1, (N, 1))
    notes = [H[:, [n]] * U[n] * np.exp(2j * np.pi * rng.random((K, M))) for n in range(N)]
    Y = sum(notes).astype(np.complex64)
    steady = 0.97 * np.exp(2j * np.pi * rng.random((K, N)))
    basis = Basis(H, rotation=steady.astype(np.complex64))
    rotation = phase.adapted_rotation(Y, basis, U, strength)
    smoothed = phase.smoothed_notes(Y, H, U, rotation, np.arange(N))
    A = H.T[:, :, None] ** 2 * U[:, None] ** 2
    masked = A / A.sum(axis=0) * Y

    def sdr(X):
        return [
            10 * np.log10(np.sum(np.abs(s) ** 2) / np.sum(np.abs(s - x) ** 2)) for s, x in zip(notes, X, strict=True)
        ]

    assert sdr(smoothed) == pytest.approx(sdr(masked), abs=0.05)


def test_the_coherent_part_is_all_of_phases_that_go_on_and_none_of_others(rng):
    x = rng.random((64, 30))
    P1, P2 = x.sum(axis=1) ** 2, (x**2).sum(axis=1)
    assert phase.coherent_part(P1, P1, P2) == pytest.approx(1)
    assert phase.coherent_part(P2, P1, P2) == pytest.approx(0, abs=1e-12)
    assert (phase.coherent_part(0 * P1, P1, P2) == 0).all()
    assert (phase.coherent_part(0 * P1, 0 * P1, 0 * P2) == 0).all()


def held_sweep(Y, H, U, P, weight, p):
    """Kameoka's sweep with P held, every array whole."""
    HU = H.T[:, :, None] * U[:, None]  # (L, K, M)
    beta = HU / HU.sum(axis=0)
    X = HU * P + beta * (Y - (HU * P).sum(axis=0))
    above = np.einsum("kl,lkm->lm", H, (X * P.conj()).real / beta)
    return np.maximum(0, above) / (np.einsum("kl,lkm->lm", H**2, 1 / beta) + weight * p * U ** (p - 2))


def test_activations_are_refined_by_sweeps_with_phases_held(rng):
    n_iter = 8
    H = rng.random((12, 3)) + 0.1
    Y = rng.standard_normal((12, 70)) + 1j * rng.standard_normal((12, 70))
    rotation = 0.9 * np.exp(1j * rng.random((12, 3)))
    piano = Basis(H, columns=[{"note": note} for note in ("C4", "C4", "D4")], rotation=rotation)
    blocks = list(phase.sinusoidal_blocks(Y, piano, n_iter, sparsity=0.1))
    U, F, X = (np.concatenate([block[i] for block in blocks], axis=-1) for i in (1, 2, 5))
    *_, error, cost, _ = blocks[-1]
    P = phase.phases(X, piano, F.dtype)
    assert np.abs(P) == pytest.approx(1, abs=1e-6)
    assert np.array_equal(P[0], P[1])
    assert X.sum(axis=0) == pytest.approx(Y, abs=1e-5)

    weight = utils.sparsity_weight(utils.energy(Y), 70, 3, 1.2, 0.1)
    expected = utils.nmf(Y, H, n_iter, loss="kullback-leibler", solver="cd")[0]
    expected[expected < phase.SILENT * expected.max(axis=0)] = 1e-30  # never exactly zero, for the oracle's sake
    errors, costs = [], []
    for _ in range(n_iter):
        expected = np.maximum(held_sweep(Y, H, expected, P.astype(complex), weight, 1.2), 1e-30)
        model = (H.T[:, :, None] * expected[:, None] * P).sum(axis=0)
        errors.append(np.sum(np.abs(Y - model) ** 2))
        costs.append(errors[-1] + 2 * weight * np.sum(expected**1.2))
    assert pytest.approx(expected, rel=1e-5, abs=1e-6) == U
    assert pytest.approx(model, rel=1e-5, abs=1e-6) == F
    assert error == pytest.approx(errors, rel=1e-6)
    assert cost == pytest.approx(costs, rel=1e-6)
    assert (np.diff(cost) <= 1e-12 * cost[0]).all()


def test_blocks_are_near_the_whole_and_stops_are_global(rng):
    K, M = 6, 5 * phase.BLOCK // 2
    H, U = rng.random((K, 3)) + 0.01, np.abs(np.cumsum(rng.standard_normal((3, M)), axis=1)) + 0.1
    rotation = 0.9 * np.exp(1j * rng.random((K, 3)))
    noise = rng.standard_normal((2, 3, K, M))
    Y = (H.T[:, :, None] * U[:, None] * (noise[0] + 1j * noise[1])).sum(axis=0)
    piano = Basis(H, rotation=rotation)
    blocks = list(phase.sinusoidal_blocks(Y, piano, 20))
    X = np.concatenate([block[-1] for block in blocks], axis=-1)
    U = utils.nmf(Y, H, 20, loss="kullback-leibler", solver="cd")[0]
    whole = phase.smoothed_notes(Y, H, U, rotation, np.arange(3))
    assert np.sum(np.abs(X - whole) ** 2) < 1e-2 * np.sum(np.abs(whole) ** 2)

    cost = blocks[-1][-2]
    tol = (cost[9] - cost[10]) / cost[9] * 1.000001
    *_, stopped, _ = list(phase.sinusoidal_blocks(Y, piano, 20, tol=tol))[-1]
    assert len(stopped) == 11
    assert np.array_equal(stopped, cost[:11])


@pytest.mark.parametrize("scale", [1e-12, 1e12])
def test_the_level_does_not_matter(rng, scale):
    Y, H, _, rotation = small_problem(rng, 3, n_frames=20, K=8)
    piano = Basis(H, rotation=rotation)
    results = [next(iter(phase.sinusoidal_blocks(y, piano, 5))) for y in (Y, scale * Y)]
    for quantity, power in ((1, 1), (2, 1), (4, 2), (5, 1)):
        a, b = results[0][quantity], results[1][quantity]
        assert b / scale**power == pytest.approx(a, rel=1e-5, abs=float(1e-6 * np.abs(a).max()))


def test_silence_stays_silent(rng):
    H = rng.random((4, 2)) + 0.1
    piano = Basis(H, rotation=0j * H)
    (_, U, F, error, cost, X), *_ = phase.sinusoidal_blocks(np.zeros((4, 7), np.complex64), piano, 3)
    assert not any(array.any() for array in (U, F, error, cost, X))
    assert (phase.phases(X, piano, F.dtype) == 1).all()


def test_a_block_hears_16_frames_on_both_sides(rng):
    K, rho = 6, 0.8
    M = 4 * phase.BLOCK
    H, U = rng.random((K, 3)) + 0.1, rng.random((3, M)) + 0.5
    rotation = rho * np.exp(1j * rng.uniform(-3, 3, (K, 3)))
    Y = H @ U * np.exp(2j * np.pi * rng.random((K, M)))
    X = np.concatenate([block[-1] for block in phase.sinusoidal_blocks(Y, Basis(H, rotation=rotation), 10)], axis=-1)
    U = utils.nmf(Y, H, 10, loss="kullback-leibler", solver="cd")[0]
    whole = phase.smoothed_notes(Y, H, U, rotation, np.arange(3))
    edges = [m for border in range(phase.BLOCK, M, phase.BLOCK) for m in (border - 1, border)]
    error = np.linalg.norm((X - whole)[:, :, edges]) / np.linalg.norm(whole[:, :, edges])
    assert error < rho**16  # what is d frames away is told of by rho^d at most


def test_correlations_are_those_of_the_masked_notes_where_they_do_not_grow_louder(rng):
    K, L, M, note_of = 5, 4, 30, np.array([1, 0, 1, 2])
    H, U = rng.random((K, L)), rng.random((L, M)) * (rng.random((L, M)) < 0.7)
    U[3] = 0  # note 2 is silent
    Y = (rng.standard_normal((K, M)) + 1j * rng.standard_normal((K, M))) * 100
    sums = phase._correlations_block((lambda: Y, U), H=H, note_of=note_of, n_notes=3)
    a = np.stack([(H[:, note_of == n] @ U[note_of == n]) ** 2 for n in range(3)])
    X = a / np.maximum(a.sum(axis=0), 1e-300) * Y
    falls = (a[..., 1:] <= a[..., :-1]) & (a[..., 1:] > 0)
    now, before = np.where(falls, X[..., 1:], 0), np.where(falls, X[..., :-1], 0)
    turn = now * before.conj()
    expected = [turn, np.abs(now) ** 2, np.abs(before) ** 2, np.abs(turn), np.abs(turn) ** 2]
    np.testing.assert_allclose(sums, np.stack([x.sum(axis=2) for x in expected]), rtol=1e-10, atol=1e-9)
    assert not sums[:, 2].any()


def test_rotations_of_a_long_recording_are_measured_in_blocks_spread_over_it(rng):
    """Noise fills the blocks that are not looked at, and leaves the rotations as they are."""
    n_blocks, omega = 3 * phase.ROTATION_BLOCKS, 0.7
    M = n_blocks * phase.BLOCK
    H, U = np.ones((4, 1)), np.ones((1, M))
    Y = H @ U * np.exp(1j * omega * np.arange(M))
    looked_at = np.linspace(0, n_blocks - 1, phase.ROTATION_BLOCKS).round().astype(int)
    left_out = ~np.isin(np.arange(M) // phase.BLOCK, looked_at)
    Y[:, left_out] = rng.standard_normal((4, left_out.sum()))
    found = phase.adapted_rotation(Y, Basis(H, rotation=np.full((4, 1), 0.5)), U, 1e-9)
    assert found == pytest.approx(np.exp(1j * omega), abs=1e-5)


def test_notes_that_are_silent_in_a_block_are_left_out_and_change_no_other(rng):
    K, M, note_of = 7, 40, np.array([0, 1, 1, 2])
    H, U = rng.random((K, 4)) + 0.1, rng.random((4, M)) + 0.1
    U[1:3] = 0
    rotation = 0.9 * np.exp(1j * rng.uniform(-3, 3, (K, 3)))
    Y = rng.standard_normal((K, M)) + 1j * rng.standard_normal((K, M))
    X = phase.smoothed_notes(Y, H, U, rotation, note_of)
    sounding = phase.smoothed_notes(Y, H[:, [0, 3]], U[[0, 3]], rotation[:, [0, 2]], np.arange(2))
    assert not X[1].any()
    np.testing.assert_allclose(X[[0, 2]], sounding, rtol=1e-5, atol=1e-6)
    part = phase.smoothed_notes(Y, H, U, rotation, note_of, 4.0, (10, 25))
    np.testing.assert_allclose(part, 4 * X[:, :, 10:25], rtol=1e-6)
    silent = phase.smoothed_notes(Y, H, 0 * U, rotation, note_of)
    np.testing.assert_allclose(silent.sum(axis=0), Y, rtol=1e-5)  # what none explains is shared out all the same
