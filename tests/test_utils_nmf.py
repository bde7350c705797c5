"""NMF with the basis held fixed, against the updates as they stand in the paper."""

import functools

import numpy as np
import pytest
from scipy.optimize import nnls
from scipy.stats import halfnorm, kstest

import oracle
import utils
from piano import blocks, kernels


@pytest.fixture
def small(rng):
    """A spectrogram that no activations explain, and a basis."""
    return rng.random((40, 30)), rng.random((40, 7))


def frobenius(V, S):
    return np.sum((V - S) ** 2) / 2


def kullback_leibler(V, S):
    return np.sum(np.where(V > 0, V * np.log(np.where(V > 0, V, 1) / S), 0) - V + S)


beta_half = functools.partial(oracle.half_divergence, floor=utils.DIVERGENCE_FLOOR)
half_descent = functools.partial(oracle.half_descent, floor=utils.DIVERGENCE_FLOOR)
itakura_saito_update = functools.partial(oracle.itakura_saito_update, floor=utils.DIVERGENCE_FLOOR)


def itakura_saito(V, S):
    V, S = V + utils.DIVERGENCE_FLOOR, S + utils.DIVERGENCE_FLOOR  # V's largest value lies between 1/2 and 1 here
    return np.sum(V / S - np.log(V / S) - 1)


UPDATES = [
    ("frobenius", "mu", False, oracle.nmf_update, frobenius),
    ("frobenius", "cd", False, None, frobenius),
    ("kullback-leibler", "mu", False, oracle.kullback_leibler_update, kullback_leibler),
    ("kullback-leibler", "mu", True, None, kullback_leibler),
    ("kullback-leibler", "cd", False, oracle.descent, kullback_leibler),
    ("kullback-leibler", "cd", True, oracle.descent, kullback_leibler),
    (0.5, "cd", False, half_descent, beta_half),
    (0.5, "cd", True, half_descent, beta_half),
    ("itakura-saito", "mu", False, itakura_saito_update, itakura_saito),
]


@pytest.mark.parametrize(("dtype", "rounding"), [(np.float32, 2e-6), (np.float64, 1e-11)])
@pytest.mark.parametrize(("loss", "solver", "prior", "update", "divergence"), UPDATES)
def test_every_iteration_is_that_of_the_paper_and_its_cost_the_divergence(
    rng, loss, solver, prior, update, divergence, dtype, rounding
):
    V, H = rng.random((40, 30)) * (rng.random((40, 30)) > 0.2), rng.random((40, 7))
    V, H = (array.astype(dtype) for array in (V * 0.9 / V.max(), H))
    prior = (2 * rng.random((7, 30)).astype(dtype), 0.3) if prior else None
    n_iter = 6 if solver == "cd" else 25  # after the sixth sweep what is zero is left out for a while
    run = functools.partial(utils.nmf, V, H, loss=loss, solver=solver, prior=prior)
    V, H = V.astype(float), H.astype(float)
    _, curve = run(60)
    assert np.diff(curve[:n_iter]).max() <= 0.1 * rounding * curve[0]
    assert curve[n_iter - 1] < 0.99 * curve[0]
    found = {n: run(n) for n in (*range(1, 26), 60)}
    for n, (U, cost) in found.items():
        penalty = oracle.log_penalty(H, U, *prior) if prior and loss != 0.5 else 0
        assert cost[-1] == pytest.approx(divergence(V, H @ U) + penalty, rel=rounding)
        np.testing.assert_allclose(cost, curve[:n], rtol=rounding)
    if update and dtype == np.float64:
        for n in range(2, n_iter + 1):
            expected = update(V, H, found[n - 1][0], *(prior or ()))
            np.testing.assert_allclose(found[n][0], expected, rtol=1e-9, atol=1e-15)


def test_activations_start_as_the_magnitudes_of_normal_numbers(rng):
    H = np.repeat(rng.random((20, 1)), 3000, axis=1)  # no update tells equal columns apart: U keeps its start's ratios
    U, cost = utils.nmf(rng.random((20, 3)), H, 2)
    for u in U.T:
        assert kstest(u / np.sqrt(np.mean(u**2)), halfnorm.cdf).pvalue > 0.01
    assert cost[0] == pytest.approx(cost[1], rel=1e-9)


def test_the_cost_keeps_its_digits_where_all_is_explained(rng):
    H = np.eye(12) + 0.1 * rng.random((12, 12))
    Y = H @ (rng.random((12, 50)) + 0.1)
    assert utils.nmf(Y, H, 300)[1][-1] < 1e-20 * np.sum(Y**2)
    for n in (1, 20, 60):  # on the way there 1/2 sum Y^2 - ... would lose all its digits
        U, cost = utils.nmf(Y, H, n)
        assert cost[-1] == pytest.approx(frobenius(Y, H @ U), rel=1e-6)


def test_the_seed_decides_every_bit(small):
    (U, cost), (again, cost_again), (other, _) = (utils.nmf(*small, 10, seed=seed) for seed in (5, 5, 6))
    assert U.tobytes() == again.tobytes() != other.tobytes()
    assert cost.tobytes() == cost_again.tobytes()


def test_a_gain_on_recording_or_basis_is_a_gain_on_the_activations(small):
    Y, H = small
    expected, expected_cost = utils.nmf(Y, H, 50)
    for gain, of_basis, dtype, rtol in (
        (1e-120, 1, np.float64, 1e-9),
        (1e120, 1, np.float64, 1e-9),
        (1e-36, 1, np.float32, 5e-3),  # squares of these leave float32's range
        (1e37, 1, np.float32, 5e-3),
        (1, 1e-12, np.float32, 5e-3),
        (1, 1e12, np.float32, 5e-3),
    ):
        U, cost = utils.nmf((gain * Y).astype(dtype), (of_basis * H).astype(dtype), 50)
        np.testing.assert_allclose(U.astype(float) / gain * of_basis, expected, rtol=rtol, atol=rtol / 50)
        np.testing.assert_allclose(cost / gain / gain, expected_cost, rtol=rtol / 50)


def test_frames_do_not_depend_on_each_other(rng):
    H = rng.random((20, 5))
    Y = rng.random((20, 2 * utils.EUCLIDEAN_BLOCK + 7))
    U, cost = utils.nmf(Y, H, 15)
    n = utils.EUCLIDEAN_BLOCK + 3
    first, first_cost = utils.nmf(Y[:, :n], H, 15)
    np.testing.assert_allclose(first, U[:, :n], rtol=1e-10)
    assert cost[-1] == pytest.approx(frobenius(Y, H @ U), rel=1e-11)
    assert first_cost[-1] == pytest.approx(frobenius(Y[:, :n], H @ U[:, :n]), rel=1e-11)


@pytest.mark.same_everywhere("compares messages")
def test_arrays_of_another_shape_and_what_a_loss_cannot_have_are_named(small):
    """What else is wrong with arrays, a command tells of its files: see test_bad_input."""
    V, H, ones = *small, np.ones(5)
    prior = {"prior": (np.ones((7, 30)), 1.0)}
    for Y, basis, options, message in (
        (ones, np.ones((5, 2)), {}, r"spectrogram: got float64 values of shape \(5,\)"),
        (np.ones((5, 3)), ones, {}, r"basis: got float64 values of shape \(5,\)"),
        (V, H, {"loss": "itakura-saito", "solver": "cd"}, "solver: got cd with itakura-saito, expected mu"),
        (V, H, {"loss": 0.5}, "solver: got mu with 0.5, expected cd"),
        (V, H, {"loss": "hinge"}, "solver: got mu with hinge, expected another loss"),
        (V, H, {"loss": "itakura-saito"} | prior, "prior: got one with itakura-saito, expected kullback-leibler"),
        (V, H, prior, "prior: got one with frobenius, expected kullback-leibler"),
    ):
        with pytest.raises(utils.InputError, match=message):
            utils.nmf(Y, basis, 1, **options)


@pytest.mark.filterwarnings("ignore:Maximum number of iterations")
@pytest.mark.parametrize("loss", ["frobenius", "kullback-leibler"])
def test_the_minimum_is_scikit_learns(rng, loss):
    from sklearn.decomposition import non_negative_factorization

    V, H = rng.random((40, 6)) + 0.1, rng.random((40, 4))
    H /= H.sum(axis=0)
    U, _ = utils.nmf(V, H, 20000, loss=loss)
    options = {"update_H": False, "solver": "mu", "beta_loss": loss, "max_iter": 20000, "tol": 0}
    W, *_ = non_negative_factorization(V.T, H=np.ascontiguousarray(H.T), n_components=4, **options)
    np.testing.assert_allclose(U, W.T, atol=1e-4 * W.max())


# --- Coordinate descent ---------------------------------------------------------------------------------


def spectra_and_sounds(kind, seed, K=40, L=8, M=30):
    """A basis and a spectrogram that are hard in their own way, in double precision."""
    rng = np.random.default_rng(seed)
    H, V = rng.random((K, L)), rng.exponential(size=(K, M)) ** 2
    if kind == "spiky":
        H = H**12 + 1e-9
    elif kind == "nearly collinear":
        H = H[:, :1] + 1e-3 * H
    elif kind == "overlapping notes":
        H = H**6 + 1e-12
        V = (H @ rng.random((L, M)) ** 6) * rng.uniform(0.5, 2, (K, M))
    elif kind == "silent frames":
        V[:, ::3] = 0
    elif kind == "zeros":
        V *= rng.random(V.shape) > 0.6
        H *= rng.random(H.shape) > 0.5
        H[0] += 0.01
    return H, V


KINDS = ["plain", "spiky", "nearly collinear", "overlapping notes", "silent frames", "zeros"]
SINGLE_AND_DOUBLE = [*((kind, np.float32) for kind in KINDS), ("overlapping notes", np.float64), ("zeros", np.float64)]


def never_rises(cost, dtype):
    return np.diff(cost).max() <= (1e-7 if dtype == np.float32 else 1e-12) * cost[0]


@pytest.mark.parametrize(("kind", "dtype"), SINGLE_AND_DOUBLE)
def test_euclidean_descent_ends_at_the_least_squares_of_every_frame(kind, dtype):
    tolerance = 1e-4 if dtype == np.float32 else 1e-6
    H, V = spectra_and_sounds(kind, 1)
    U, cost = utils.nmf(V.astype(dtype), H.astype(dtype), 20000, solver="cd")
    assert never_rises(cost, dtype)
    expected, residuals = map(np.array, zip(*(nnls(H, v) for v in V.T), strict=True))
    assert cost[-1] == pytest.approx(np.sum(residuals**2) / 2, rel=tolerance)
    if kind != "nearly collinear":  # there very different activations do nearly as well
        np.testing.assert_allclose(U.T, expected, atol=100 * tolerance * expected.max())


@pytest.mark.parametrize("beta", [1, 0.5])
@pytest.mark.parametrize(("kind", "dtype"), SINGLE_AND_DOUBLE)
def test_the_other_descents_end_where_no_activation_can_lower_the_divergence(kind, dtype, beta):
    H, V = spectra_and_sounds(kind, 2)
    H /= H.sum(axis=0)
    loss, divergence = ("kullback-leibler", kullback_leibler) if beta == 1 else (beta, beta_half)
    U, cost = utils.nmf(V.astype(dtype), H.astype(dtype), 3000, loss=loss, solver="cd")
    assert never_rises(cost, dtype)
    sounding = V.any(axis=0)
    U, V = U[:, sounding].astype(float), V[:, sounding]
    assert cost[-1] == pytest.approx(divergence(V, H @ U + 1e-300), rel=1e-6)
    unit, floor = (oracle.frame_unit(V), utils.DIVERGENCE_FLOOR) if beta < 1 else (1, 1e-300)
    v, S = V / unit + floor * (beta < 1), H @ U / unit + floor  # zero where a bin of V is, and no note has anything
    slope = 1 - H.T @ (v * S ** (beta - 2)) / (H.T @ S ** (beta - 1))
    assert slope.min() > -1e-3  # of 1, the slope of the model's part: at rest is what moves by 1e-5 of the largest
    assert np.abs(slope * U).max() < 1e-3 * U.max()
    if beta == 1:
        _, reference = utils.nmf(V, H, 5000, loss=loss)
        assert cost[-1] < reference[-1] * (1 + 1e-6)


def test_a_frame_that_is_done_is_left_and_zeros_are_left_out_of_the_others(rng):
    H, U = rng.random((12, 4)), rng.random((4, 3))
    V = H @ U
    U[1] = 0
    swept, state = np.array(U.T), np.array([kernels.DONE, kernels.NONZERO, kernels.ALL])
    floor, sums, nothing = utils.floor_of(V.dtype), H.sum(axis=0), np.zeros_like(V.T)
    kernels.descend_bins(V.T, H.T, sums, 0 * swept, np.ones(3), False, floor, nothing, swept, state, 0)
    swept = swept.T
    np.testing.assert_array_equal(swept[:, 0], U[:, 0])
    rest = [0, 2, 3]
    assert swept[1, 1] == 0
    np.testing.assert_allclose(swept[rest, 1:2], oracle.descent(V[:, 1:2], H[:, rest], U[rest, 1:2]), rtol=1e-10)
    np.testing.assert_allclose(swept[:, 2:], oracle.descent(V[:, 2:], H, U[:, 2:]), rtol=1e-10)
    assert swept[1, 2] > 0
    assert state.tolist() == [kernels.DONE, kernels.NONZERO, kernels.ALL]


@pytest.mark.parametrize("loss", ["frobenius", "kullback-leibler", 0.5])
def test_a_frame_at_rest_stays_as_it_is(loss):
    H, V = (array.astype(np.float32) for array in spectra_and_sounds("plain", 4))
    (few, curve), (many, longer) = (utils.nmf(V, H, n, loss=loss, solver="cd") for n in (500, 5000))
    np.testing.assert_array_equal(few, many)
    np.testing.assert_allclose(longer[:500], curve, rtol=1e-12)
    assert (longer[500:] == longer[500]).all()


@pytest.mark.parametrize("solver", ["mu", "cd"])
def test_a_prior_without_end_to_its_quiet_is_exponential(rng, solver):
    v, h, gamma = rng.random((12, 9)), 2 * rng.random((12, 1)), rng.random((1, 9))
    U, _ = utils.nmf(v, h, 300, loss="kullback-leibler", solver=solver, prior=(gamma, 1e6))
    np.testing.assert_allclose(U, v.sum(axis=0) / ((1 + gamma) * h.sum()), rtol=1e-5)  # a is 1e-6 of quiet


@pytest.mark.parametrize(("most", "quiet"), [(0.05, 0.02), (1.0, 1e6)])
def test_both_solvers_end_at_one_minimum_where_the_prior_leaves_one(rng, most, quiet):
    H, V = spectra_and_sounds("plain", 5)
    options = {"loss": "kullback-leibler", "prior": (most * rng.random((8, 30)), quiet * V.sum(axis=0).mean())}
    U, cost = utils.nmf(V, H, 1000, solver="cd", **options)
    expected, reference = utils.nmf(V, H, 5000, **options)
    assert cost[-1] == pytest.approx(reference[-1], rel=1e-6)
    np.testing.assert_allclose(U, expected, atol=2e-3 * expected.max())
    without, _ = utils.nmf(V, H, 1000, loss="kullback-leibler", solver="cd")
    assert U.sum() < without.sum()


@pytest.mark.parametrize("loss", ["frobenius", "kullback-leibler", 0.5])
def test_blocks_and_cores_change_no_bit_of_a_descent(rng, monkeypatch, loss):
    H, V = (array.astype(np.float32) for array in spectra_and_sounds("plain", 6, M=300))
    prior = None if loss == "frobenius" else (rng.random((8, 300)).astype(np.float32), 0.5)
    run = functools.partial(utils.nmf, V, H, 25, loss=loss, solver="cd", prior=prior)
    U, cost = run()
    for cores in (1, 3):
        monkeypatch.setattr(blocks, "available_cores", lambda cores=cores: blocks.core_limit.get() or cores)
        for got, expected in zip(run(), (U, cost), strict=True):
            np.testing.assert_array_equal(got, expected)
    monkeypatch.setattr(utils, "NMF_BLOCK", 128)
    np.testing.assert_array_equal(run()[0], U)
    monkeypatch.setattr(utils, "DIVERGENCE_BLOCK", 32)
    monkeypatch.setattr(utils, "EUCLIDEAN_BLOCK", 32)
    again, again_cost = run()
    np.testing.assert_array_equal(again, U)
    np.testing.assert_allclose(again_cost, cost, rtol=1e-6)  # added up part by part
