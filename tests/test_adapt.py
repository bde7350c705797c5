"""Adapting a basis: what holds it back, and what lets it go."""

import sys
from dataclasses import replace

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.stats import entropy

import oracle
import utils
from helpers import frequency
from piano import adapt, pitch
from piano.basis import Basis
from piano.notes import Note

SR, N_FFT, HOP = 22050, 8192, 2048
F = np.arange(N_FFT // 2 + 1) * SR / N_FFT  # Hz, of the bins
KEYS = np.arange(48, 76, 3)  # MIDI numbers of a small piano


@pytest.fixture
def problem(rng):
    """A basis, another piano's version of it, and a spectrogram of that."""
    H = rng.random((20, 4)) ** 4 + 1e-4
    H /= H.sum(axis=0)
    other = H * rng.uniform(0.3, 3, H.shape)
    other /= other.sum(axis=0)
    U = rng.random((4, 120)) ** 6
    U[3] = 0  # a note that is never played
    return H, other, U


def adapted_to(V, H, *args):
    """The spectra of a basis that is not described, adapted, and the strength."""
    basis, strength, _ = adapt.adapt_basis(V, Basis(H), *args)
    return basis.H, strength


def spectra(cents=0.0, log_gain=lambda n, f: 0.0 * f, log_b=0.0):
    """Spectra of ``KEYS`` [shape=(K, notes)]: partials in the shape of a window, each with its gain."""
    H, ratio = np.full((len(F), len(KEYS)), 1e-6), np.broadcast_to(2 ** (np.asarray(cents) / 1200), KEYS.shape)
    log_b = np.broadcast_to(log_b, KEYS.shape)
    for l, midi in enumerate(KEYS):
        for n in range(1, 31):
            f = pitch.partial(n, frequency(midi), log_b[l])
            if f < 9000:
                level = 0.85**n * np.exp(log_gain(n, f))
                H[:, l] += level * np.exp(-(((F - f * ratio[l]) / 4) ** 2) / 2)
    return H / H.sum(axis=0)


def described(H):
    columns = [{"file": "", "note": pitch.note_name(midi), "f0": frequency(midi)} for midi in KEYS]
    return Basis(H, SR, N_FFT, HOP, columns)


def struck(places, n_frames):
    """Activations of ``KEYS``, and the notes that they are; ``places`` are key, first frame, length and level."""
    U, notes = np.zeros((len(KEYS), n_frames)), []
    for l, start, length, level in places:
        U[l, start : start + length] = level * 0.93 ** np.arange(length)
        name, midi = pitch.note_name(KEYS[l]), int(KEYS[l])
        notes.append(Note(name, midi, 0.0, start * HOP / SR, (start + length) * HOP / SR, -6.0))
    return U, notes


@pytest.fixture
def played(rng):
    """All keys three times each, in every order."""
    starts = [(l, start) for l in range(len(KEYS)) for start in 80 * np.arange(3) + rng.integers(0, 50, 3)]
    return struck([(l, start, 25, rng.uniform(0.3, 1)) for l, start in starts], 240)


def partial_levels(H):
    """Level in dB of each key's partials below 4 kHz that carry sound: a list of arrays."""
    found = []
    for h, midi in zip(H.T, KEYS, strict=True):
        f = pitch.partial(np.arange(1, 31), frequency(midi), 0.0)
        found.append(20 * np.log10([h[np.abs(F - x) < 14].sum() for x in f[f < 4000]]))
    return found


def test_a_basis_is_adapted_by_sweeps_of_the_paper_whatever_its_columns_sum_to(problem):
    """Of itself, the strength is one over the divergence of what is counted, averaged by loudness."""
    H, other, U = problem
    V, level = other @ U + 1e-6, np.array([1.0, 2.0, 0.5, 3.0])
    V_heard = V[:, V.sum(axis=0) > 1e-3 * V.sum(axis=0).max()]
    whole = adapt.with_noise(H)  # of which noise stays as it is
    start, _ = utils.nmf(V_heard, whole, adapt.N_STARTED, loss="kullback-leibler", solver="cd")
    start = np.maximum(start, 0.01 * adapt.QUIET * V_heard.sum() / V_heard.shape[1])
    N = H * ((V_heard / (whole @ start)) @ start[:-1].T)
    start = oracle.kullback_leibler_update(V_heard, whole, start)
    of_itself = 1 / np.average(entropy(N, H), weights=N.sum(axis=0))  # entropy is sum_k p log(p / q) of each column
    for asked, strength in ((0.3, 0.3), ("auto", of_itself), (1e308, adapt.FIRMEST)):
        expected, U, prior = H, start, strength * N.sum() / (40 * H.shape[1]) * H
        for _ in range(adapt.N_FREE):
            padded = np.pad(prior, ((0, 0), (0, 1)))
            whole, U = oracle.adaptation_sweep(V_heard, adapt.with_noise(expected), U, padded, utils.DIVERGENCE_FLOOR)
            expected = whole[:, :-1]
        adapted, found = adapted_to(V, H * level, asked)
        assert found == pytest.approx(strength, rel=1e-6)
        np.testing.assert_allclose(adapted, expected * level, rtol=1e-6, atol=10 * adapt.UNHEARD)  # that is left out
    np.testing.assert_allclose(adapted, H * level, rtol=1e-9)  # the firmest keep the templates


# --- Another piano than the templates' ------------------------------------------------------------------


@pytest.fixture
def strings_apart(monkeypatch):
    """``KEYS`` of which none has a partial where another has one, each played alone: activations and notes."""
    monkeypatch.setattr(sys.modules[__name__], "KEYS", np.array([46, 53, 57, 63, 70]))
    return struck([(l, 24 * l, 20, 1.0) for l in range(len(KEYS))], 24 * len(KEYS))


def strings(H, cents=0):
    """First partial in Hz and B of each key, of a line through the places of its partials, as Fletcher has them.

    They are looked for around those of a piano that is so many cents sharp.
    """
    found = []
    for l, midi in enumerate(KEYS):
        n, f1 = np.arange(1, 13), frequency(midi) * 2 ** (cents / 1200)
        n, places = n[pitch.partial(n, f1, 0.2) < 6000], []
        for low, high in zip(pitch.partial(n, f1, -0.4) * 0.985, pitch.partial(n, f1, 0.8) * 1.015, strict=True):
            k = np.searchsorted(F, low)
            k += np.argmax(H[k : np.searchsorted(F, high), l])
            places.append((k + pitch.parabola_peak(*np.log(H[k - 1 : k + 2, l]))) * SR / N_FFT)
        slope, offset = np.polyfit(n**2, (np.array(places) / n) ** 2, 1, w=n)
        found.append((np.sqrt(offset + slope), slope / offset))
    return np.transpose(found)


def test_tuning_and_inharmonicity_of_every_key_are_found(rng, strings_apart):
    U, notes = strings_apart
    cents, log_b = 8 + rng.uniform(-8, 8, len(KEYS)), 0.25 + 0.2 * np.sin(KEYS / 5)  # as pianos differ
    true = spectra(cents, log_b=log_b)
    adapted, *_ = adapt.adapt_basis((true @ U).astype(np.float32), described(spectra()), "auto", notes)
    (f1, B), (expected_f1, expected_B) = strings(adapted.H), strings(true)
    assert 1200 * np.log2(f1 / expected_f1) == pytest.approx(0, abs=1)
    np.testing.assert_allclose(B, expected_B, rtol=0.1)
    np.testing.assert_allclose(expected_B, pitch.inharmonicity(frequency(KEYS), log_b), rtol=0.03)


@pytest.mark.parametrize("cents", [-50, 60])  # at the last, templates that are not averaged miss partials
def test_a_piano_that_is_out_of_tune_is_met(strings_apart, cents):
    U, notes = strings_apart
    true = spectra(cents)
    adapted, *_ = adapt.adapt_basis((true @ U).astype(np.float32), described(spectra()), "auto", notes)
    (f1, _), (expected, _) = strings(adapted.H, cents), strings(true, cents)
    assert 1200 * np.log2(f1 / expected) == pytest.approx(0, abs=2)


def test_a_key_that_is_not_played_is_tuned_as_the_others_are(strings_apart):
    U, notes = strings_apart
    true, silent = spectra(9.0), 2
    U[silent], notes = 0, [note for note in notes if note.midi != KEYS[silent]]
    adapted, *_ = adapt.adapt_basis((true @ U).astype(np.float32), described(spectra()), adapt.FIRMEST, notes)
    assert 1200 * np.log2(strings(adapted.H)[0] / strings(true)[0])[silent] == pytest.approx(0, abs=2)


def test_a_piano_tuned_otherwise_is_found_with_its_rotations(strings_apart):
    U, notes = strings_apart
    H = spectra()
    turn = np.exp(2j * np.pi * HOP / SR * frequency(KEYS)) * np.ones((len(F), 1))
    basis = replace(described(H), rotation=turn.astype(np.complex64))
    adapted, *_ = adapt.adapt_basis((spectra(9.0) @ U).astype(np.float32), basis, "auto", notes)
    fits = [adapt.divergence(spectra(9.0), np.maximum(found, 1e-9)) for found in (H, adapted.H)]
    assert fits[1] < 0.1 * fits[0]
    for l, f in enumerate(frequency(KEYS) * 2 ** (9 / 1200)):  # as the first partial does, which is now higher
        turn = np.exp(2j * np.pi * HOP / SR * f)
        assert abs(np.angle(adapted.rotation[round(f * N_FFT / SR), l] / turn)) < 0.4


def test_a_gain_common_to_all_notes_is_found_in_noise(played):
    """Without a column for noise, partials that are 20 dB below the loudest of their note are 25 dB off."""
    U, notes = played
    true = spectra(log_gain=lambda n, f: 0.5 * np.sin(f / 500))
    V = true @ U
    adapted, *_ = adapt.adapt_basis((V + 0.6 * V.mean()).astype(np.float32), described(spectra()), "auto", notes)
    for found, expected in zip(partial_levels(adapted.H), partial_levels(true), strict=True):
        sounds = expected > expected.max() - 20
        assert found[sounds] == pytest.approx(expected[sounds], abs=1.5)  # the faintest; all others to half of it


def test_a_note_that_the_list_misses_is_kept_out_of_the_others(played):
    U, notes = played
    basis, missed = described(spectra()), 5  # every partial of D#4 is one of D#3's too
    V, own = (basis.H @ U).astype(np.float32), np.outer(basis.H[:, missed], U[missed])
    adapted, _, prior = adapt.adapt_basis(V, basis, "auto", [note for note in notes if note.midi != KEYS[missed]])
    A = adapted.H[:, None] * utils.nmf(V, adapted.H, 30, loss="kullback-leibler", prior=prior)[0].T
    mask = A[:, :, missed] ** 2 / np.maximum(np.sum(A**2, axis=2), 1e-30)  # of a Wiener filter
    assert 1 - np.sum(((1 - mask) * own) ** 2) / np.sum(own**2) > 0.86  # of its energy


def test_no_more_frames_are_looked_at_than_asked_for_and_those_lie_evenly(problem, monkeypatch):
    H, other, U = problem
    V = other @ U + 1e-6
    V /= V.sum(axis=0)  # all frames are heard, and the mean one is as loud as each
    V[:, ::3] = 0
    heard = np.flatnonzero(V.any(axis=0))
    monkeypatch.setattr(adapt, "ADAPTED_FRAMES", 50)
    seen = []
    found, *_ = adapt.adapt_basis(V, Basis(H), 1.0, progress=lambda n, of: seen.append((n, of)))
    assert set(seen) == {(50, 50 * len(seen))}
    chosen = heard[np.linspace(0, len(heard) - 1, 50).round().astype(int)]
    np.testing.assert_allclose(found.H, adapted_to(V[:, chosen], H, 1.0)[0], rtol=1e-9)


def test_the_rate_of_the_prior_is_as_the_list_is_sure():
    basis = described(spectra())
    note = Note("C3", 48, 0.0, 2.0, 3.0, -6.0, 0.75)
    rate = adapt.listed_rate([note, note._replace(midi=49), note._replace(onset=2.5, confidence=1.0)], basis, 60)
    t = np.arange(60) * HOP / SR
    assert (rate[0, (t >= 2.5 - 0.1) & (t <= 3 + 0.5)] == 0).all()
    assert rate[0, (t >= 2 - 0.1) & (t < 2.4)] == pytest.approx(adapt.UNLISTED / 4)
    assert rate[0, t < 1.8] == pytest.approx(adapt.UNLISTED)
    assert rate[1:] == pytest.approx(adapt.UNLISTED)


# --- Sweeps and factors ----------------------------------------------------------------------------------


@pytest.mark.parametrize("part", [7, adapt.CORE_FRAMES])
def test_a_sweep_leaves_out_what_does_not_sound_and_gives_what_the_columns_have(rng, monkeypatch, part):
    H, U, rate, quiet = rng.random((20, 6)), rng.random((7, 50)), rng.random((7, 50)), 0.25
    U[2], U[4, 20:], U[:, 30:35], U[-1] = 0, 0, 0, 0  # the last is noise
    U[3, 40] = 1e-9  # of one
    V = H @ rng.random((6, 50))
    monkeypatch.setattr(adapt, "SAME_COLUMNS", 5)
    monkeypatch.setattr(adapt, "CORE_FRAMES", part)
    fit = adapt._Fit(V, U.copy(), rate, quiet, np.ones(50), lambda: None)
    N, D = fit.sweep(H)
    assert not fit.U[-1].any()
    U, rate, found = U[:-1], rate[:-1], fit.U[:-1]
    level, R = H.sum(axis=0)[:, None], V / np.maximum(H @ U, utils.floor_of(V.dtype))
    expected = U * (H.T @ R) / level
    expected[3, 40] = 0  # nobody hears it
    np.testing.assert_allclose(found, expected / (1 + rate / (1 + expected * level / quiet)), rtol=1e-9)
    np.testing.assert_allclose(N, H * (R @ U.T), rtol=1e-9)
    np.testing.assert_allclose(D, H * U.sum(axis=1), rtol=1e-9)
    assert (N[:, 2] == 0).all()


def test_the_prior_is_of_the_list_and_of_the_mean_frame_that_is_heard(strings_apart, monkeypatch):
    U, notes = strings_apart
    monkeypatch.setattr(adapt, "N_ROUNDS", 1)
    monkeypatch.setattr(adapt, "N_FREE", 1)
    V, basis = np.pad(spectra() @ U, ((0, 0), (0, 40))), described(spectra())
    _, _, (rate, quiet) = adapt.adapt_basis(V, basis, 1.0, notes)
    loudness = V.sum(axis=0)
    heard = loudness > 1e-3 * loudness.max()
    assert quiet == pytest.approx(adapt.QUIET * loudness[heard].mean(), rel=1e-9)
    np.testing.assert_array_equal(rate, adapt.listed_rate(notes, basis, V.shape[1]))
    assert adapt.adapt_basis(V, basis, 1.0)[2] is None


def test_factors_are_those_of_the_equations_covariances(monkeypatch):
    monkeypatch.setattr(adapt, "N_PARTIALS", 7)
    basis = described(spectra())
    keys, f = np.array(list(basis.notes)), adapt.partial_frequencies(basis)
    apart, near = np.subtract.outer(keys, keys), np.exp(-((np.subtract.outer(keys, keys) / 12) ** 2) / 2)
    partials = [(key, n) for key in range(len(keys)) for n in range(7)]
    C = np.zeros((len(partials), len(partials)))

    def parts(of, key, other):
        return of[0] ** 2 + of[1] ** 2 * near[key, other] + of[2] ** 2 * (key == other)

    def stiffness(key, n):  # derivative of the n-th partial's cents to the logarithm of B, f_1 being as it is
        higher, lower = (np.log2(pitch.partial(n + 1, f[key, 0], log_b)) for log_b in (1e-5, -1e-5))
        return 1200 * (higher - lower) / 2e-5

    for i, (key, n) in enumerate(partials):
        for j, (other, m) in enumerate(partials):
            C[i, j] = parts(adapt.TUNING, key, other)
            C[i, j] += parts(adapt.STIFFNESS, key, other) * stiffness(key, n) * stiffness(other, m)
    for A, expected in (
        (adapt.level_factor(basis), adapt.LEVEL**2 * np.exp(-abs(apart) / 4)),
        (adapt.cents_factor(basis), C),
    ):
        np.testing.assert_allclose(A @ A.T, expected, rtol=1e-6)  # of a numerical derivative


def test_steps_end_at_the_most_likely_values(rng):
    told = rng.random((3, 12)) < 0.7
    A = rng.normal(0, 0.5, (12, 15))
    D = rng.uniform(3, 30, told.shape) * told
    N, x = D * np.exp(rng.normal(0, 0.7, D.shape)), np.zeros(told.shape)
    for _ in range(60):
        x = adapt.newton(x, N - D * np.exp(x), D * np.exp(x), A)
    for found, n, d, which in zip(x, N, D, told, strict=True):  # each row by itself
        C = A @ A.T
        inverse = np.linalg.inv(C[np.ix_(which, which)])

        def cost(y, n=n[which], d=d[which], inverse=inverse):
            return np.sum(d * np.exp(y) - n * y) + y @ inverse @ y / 2, d * np.exp(y) - n + inverse @ y

        options = {"maxiter": 5000, "ftol": 1e-15, "gtol": 1e-9}
        best = minimize(cost, np.zeros(which.sum()), jac=True, method="L-BFGS-B", options=options).x
        np.testing.assert_allclose(found[which], best, atol=1e-5)
        np.testing.assert_allclose(found, C[:, which] @ inverse @ best, atol=1e-5)  # the others follow
