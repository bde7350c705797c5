"""Adapting a basis: what holds it back, and what lets it go."""

import numpy as np
import pytest
from scipy.stats import entropy

import oracle
import utils
from piano import adapt


@pytest.fixture
def problem(rng):
    """A basis, another piano's version of it, and a spectrogram of that."""
    H = rng.random((20, 4)) ** 4 + 1e-4
    H /= H.sum(axis=0)
    other = H * rng.uniform(0.3, 3, H.shape)
    other /= other.sum(axis=0)
    U = rng.random((4, 300)) ** 6
    U[3] = 0  # a note that is never played
    return H, other, U


def kl(V, S):
    return np.sum(V * np.log(V / S) - V + S)


def test_a_strong_prior_keeps_the_templates(problem):
    H, other, U = problem
    adapted, strength = adapt.adapt_basis(other @ U, H, 1e12)
    assert strength == 1e12
    assert adapted == pytest.approx(H, rel=1e-9)
    firmest, strength = adapt.adapt_basis(other @ U, H, 1e308)  # without a warning
    assert strength == adapt.FIRMEST
    assert np.array_equal(firmest, adapted)


def test_a_weak_prior_finds_the_other_piano(problem):
    H, other, U = problem
    V = other @ U
    adapted, _ = adapt.adapt_basis(V, H, 1e-3)
    fits = [kl(V, basis @ utils.nmf(V, basis, 200, loss="kullback-leibler")[0]) for basis in (H, adapted)]
    assert fits[1] < 0.05 * fits[0]
    assert adapt.divergence(other[:, :3], adapted[:, :3]) < 0.1 * adapt.divergence(other[:, :3], H[:, :3])


def test_a_note_that_is_never_played_keeps_its_template(problem):
    H, other, U = problem
    adapted, _ = adapt.adapt_basis(other @ U, H, 1.0)
    assert adapted[:, 3] == pytest.approx(H[:, 3], rel=0.05)
    assert np.abs(adapted[:, :3] / H[:, :3] - 1).max() > 0.5


def test_columns_keep_their_sums_and_the_input_its_values(problem):
    H, other, U = problem
    H = H * [1.0, 2.0, 0.5, 3.0]
    before, V = H.copy(), other @ U
    adapted, _ = adapt.adapt_basis(V, H)
    assert adapted.sum(axis=0) == pytest.approx(H.sum(axis=0), rel=1e-9)
    assert np.array_equal(H, before)
    assert adapted.dtype == H.dtype
    for gain in (1e-6, 1e6):
        assert adapt.adapt_basis(gain * V, H)[0] == pytest.approx(adapted, rel=1e-6)


def test_auto_trusts_templates_as_far_as_the_recording_bears_them_out(problem):
    H, other, U = problem
    between = np.sqrt(H * other)
    between /= between.sum(axis=0)
    strengths = [adapt.adapt_basis(basis @ U, H)[1] for basis in (H, between, other)]
    assert strengths[0] > 100 * strengths[1]
    assert strengths[1] > 2 * strengths[2]
    assert adapt.adapt_basis(H @ U, H)[0][:, :3] == pytest.approx(H[:, :3], rel=0.02)


def test_every_sweep_lowers_the_objective(problem, monkeypatch):
    H, other, U = problem
    V, S = other @ U, 0.3
    prior = S * V.sum() / (10 * H.shape[1]) * H
    costs = []
    for n in range(1, 8):
        monkeypatch.setattr(adapt, "N_SWEEPS", n)
        adapted, _ = adapt.adapt_basis(V, H, S)
        best = utils.nmf(V, adapted, 2000, loss="kullback-leibler")[0]  # so that only the basis tells
        costs.append(kl(V, adapted @ best) - np.sum(prior * np.log(adapted)))
    assert (np.diff(costs) < 1e-6 * abs(costs[0])).all()


def test_blocks_change_nothing_but_rounding(problem, monkeypatch):
    H, other, U = problem
    V = other @ U
    whole = adapt.adapt_basis(V, H, 1.0)[0]
    monkeypatch.setattr(utils, "NMF_BLOCK", 7)
    assert adapt.adapt_basis(V, H, 1.0)[0] == pytest.approx(whole, rel=1e-6)


def test_silence_leaves_the_basis(problem):
    H, *_ = problem
    adapted, strength = adapt.adapt_basis(np.zeros((20, 5)), H)
    assert np.array_equal(adapted, H)
    assert strength == adapt.FIRMEST


def test_a_basis_is_adapted_by_sweeps_of_the_paper_whatever_its_columns_sum_to(problem):
    H, other, U = problem
    V, level, strength = other @ U + 1e-6, np.array([1.0, 2.0, 0.5, 3.0]), 0.3
    U, _ = utils.nmf(V, H * level, adapt.N_SWEEPS, loss="kullback-leibler")
    U = U * level[:, None] + 1e-300  # of a note at zero, no quotient of zeros
    expected, prior = H, strength * V.sum() / (10 * H.shape[1]) * H
    for _ in range(adapt.N_SWEEPS):
        expected, U = oracle.adaptation_sweep(V, expected, U, prior)
    adapted, _ = adapt.adapt_basis(V, H * level, strength)
    np.testing.assert_allclose(adapted, expected * level, rtol=1e-6)


def test_the_strength_is_one_over_the_divergence_averaged_by_loudness(problem):
    H, other, U = problem
    N = other * [5.0, 1.0, 0.1, 0.0]
    each = entropy(other, H)  # sum_k p log(p / q) of every column
    expected = (5 * each[0] + each[1] + 0.1 * each[2]) / 6.1
    assert adapt.divergence(N, H) == pytest.approx(expected, rel=1e-12)

    V = other @ U + 1e-6
    U, _ = utils.nmf(V, H, adapt.N_SWEEPS, loss="kullback-leibler")
    N = H * ((V / (H @ U)) @ U.T)
    _, strength = adapt.adapt_basis(V, H)
    assert strength == pytest.approx(1 / np.average(entropy(N, H), weights=N.sum(axis=0)), rel=1e-6)
