"""Complex NMF with the basis held fixed, against the sweep as it stands in the paper, tensor by tensor."""

import numpy as np
import pytest

import oracle
import utils

STARTS = {"mixture": utils.mixture_phases(), "random": utils.random_phases()}
K, L, M = 33, 5, 12


def complex_spectrogram(rng, K=K, M=M):
    return rng.standard_normal((K, M)) + 1j * rng.standard_normal((K, M))


@pytest.fixture
def small(rng):
    """A double-precision spectrogram that the model cannot explain, and a basis."""
    return complex_spectrogram(rng), rng.random((K, L)) ** 2 + 1e-3


def weight(Y, L, p=1.2, sparsity=1e-5):
    return sparsity * (np.sum(np.abs(Y) ** 2) / (Y.shape[1] * L)) ** (1 - p / 2)


def flat_start(Y, H):
    return np.tile(np.abs(Y).sum(axis=0) / H.sum(), (H.shape[1], 1))


@pytest.mark.parametrize("sparsity", [0.0, 1e-5, 0.3, 10.0])  # the last lets the distance rise for the penalty's sake
def test_pinned_sweeps_are_sparse_euclidean_updates_of_the_magnitudes(small, sparsity):
    Y, H = small
    V, lam, U = np.abs(Y), weight(Y, L, sparsity=sparsity), flat_start(Y, H)
    costs = []
    for _ in range(600):  # long after rounding would have left the saddle
        U = U * (H.T @ V) / (H.T @ H @ U + lam * 1.2 * U**0.2)
        costs.append(np.sum((V - H @ U) ** 2) + 2 * lam * np.sum(U**1.2))
    got_U, P, F, cost = utils.complex_nmf(Y, H, 600, sparsity=sparsity)
    np.testing.assert_allclose(got_U, U, rtol=1e-7, atol=1e-12)
    np.testing.assert_allclose(cost, costs, rtol=1e-9)
    np.testing.assert_allclose(P, np.tile(Y / V, (L, 1, 1)), atol=1e-15)
    np.testing.assert_allclose(F, H @ U * Y / V, atol=1e-7)


@pytest.mark.parametrize(
    ("shape", "p", "sparsity"),
    [
        *(((K, L, M), *penalty) for penalty in ((1, 0.1), (1.2, 1e-5), (1.8, 0.1))),
        *((shape, 1.2, 1e-5) for shape in ((1, 1, 1), (16, 1, 3), (17, 2, 1), (15, 3, 2))),  # edges of vectors
    ],
)
def test_sweeps_from_random_phases_are_those_of_the_paper(rng, shape, p, sparsity):
    K, L, M = shape
    Y, H = complex_spectrogram(rng, K, M), rng.random((K, L)) ** 2 + 1e-3
    P = np.stack([utils._random_phases(0, m, (L, K), Y.dtype) for m in range(M)], axis=-1)
    U, lam, costs = flat_start(Y, H), weight(Y, L, p, sparsity), []
    for _ in range(20):
        U, P = oracle.complex_sweep(Y, H, U, P, lam, p)
        costs.append(oracle.objective(Y, H, U, P, lam, p))
    got_U, got_P, F, cost = utils.complex_nmf(Y, H, 20, p=p, sparsity=sparsity, phase_init=STARTS["random"])
    np.testing.assert_allclose(got_U, U, rtol=1e-9)
    np.testing.assert_allclose(got_P, P, atol=1e-9)
    np.testing.assert_allclose(F, oracle.model(H, U, P), atol=1e-9)
    np.testing.assert_allclose(cost, costs, rtol=1e-9, atol=1e-12)


def test_random_phases_are_uniform_and_follow_the_seed():
    phases = np.stack([utils._random_phases(7, m, (60, 20), np.complex128) for m in range(30)])
    assert abs(phases.mean()) < 4 / np.sqrt(phases.size)
    assert abs((phases**2).mean()) < 4 / np.sqrt(phases.size)
    assert len(np.unique(phases)) == phases.size  # no frame repeats another
    np.testing.assert_array_equal(utils._random_phases(7, 3, (60, 20), np.complex128), phases[3])
    assert not np.isclose(utils._random_phases(8, 3, (60, 20), np.complex128), phases[3]).any()


@pytest.mark.parametrize("dtype", [np.complex64, np.complex128])
def test_neither_the_size_nor_the_order_of_blocks_nor_a_file_changes_a_bit(rng, tmp_path, dtype):
    Y, H = complex_spectrogram(rng, K, 23).astype(dtype), rng.random((K, L)).astype(np.float32)
    whole = utils.complex_nmf(Y, H, 15, phase_init=STARTS["random"])
    np.save(tmp_path / "C.npy", Y)
    np.save(tmp_path / "F.npy", np.asfortranarray(Y))
    mapped = [utils.load_spectrogram(tmp_path / name) for name in ("C.npy", "F.npy")]
    for read, n_frames in ((Y, 1), (Y, 7), (Y, 23), (Y, 100), (mapped[0], 2), (mapped[1], 5)):
        again = utils.complex_nmf(read, H, 15, phase_init=utils.random_phases(n_frames=n_frames))
        for a, b in zip(whole, again, strict=True):
            assert a.tobytes("F") == b.tobytes("F")
    for a, b in zip(whole, utils.complex_nmf(Y, H, 15, phase_init=utils.random_phases(seed=1)), strict=True):
        assert a.tobytes("F") != b.tobytes("F")
    unweighted = utils.complex_nmf(Y, H, 15, phase_init=STARTS["random"], sparsity=0)
    alone = utils.complex_nmf(Y[:, :5], H, 15, phase_init=STARTS["random"], sparsity=0)
    for a, b in zip(unweighted[:3], alone[:3], strict=True):  # the first frames, without those that follow
        assert a[..., :5].tobytes() == b.tobytes()


@pytest.mark.parametrize("phase_init", STARTS.values(), ids=STARTS)
@pytest.mark.parametrize(
    ("dtype", "gain", "rtol", "atol"),
    [
        *((np.complex128, gain, 1e-9, 1e-9) for gain in (1e-25, 1e25)),
        *((np.complex64, gain, 1e-4, 1e-5) for gain in (1e-30, 1e30)),
    ],
)
def test_a_gain_on_the_recording_is_a_gain_on_the_activations(small, phase_init, dtype, gain, rtol, atol):
    Y, H = small
    options = {"sparsity": 0.05, "phase_init": phase_init}  # a weight that is felt
    expected = utils.complex_nmf(Y, H, 10, **options)
    U, P, F, cost = utils.complex_nmf((gain * Y).astype(dtype), H, 10, **options)
    if dtype == np.complex128 or phase_init is STARTS["mixture"]:  # or else other random numbers are drawn
        for found, wanted in zip((U / gain, P, F / gain, cost / gain**2), expected, strict=True):
            np.testing.assert_allclose(found, wanted, rtol=rtol, atol=atol)
    assert np.isfinite(cost).all()
    np.testing.assert_allclose(F, oracle.model(H, U.astype(np.float64), P), atol=rtol * gain)
    assert (np.diff(cost) <= 1e-5 * cost[0]).all()


def test_bins_next_to_the_smallest_numbers_have_phases_too(small):
    Y, H = (array.copy() for array in small)
    levels = np.geomspace(1e-24, 1e-14, 12)  # what the kernel adds to |Q|, 1e-19 in single precision, lies among them
    Y[:12], H[:12] = Y[:12] * levels[:, None], H[:12] * levels[:, None]
    _, P, _, cost = utils.complex_nmf(Y.astype(np.complex64), H.astype(np.float32), 20, phase_init=STARTS["random"])
    np.testing.assert_allclose(np.abs(P), 1, atol=1e-6)
    assert (np.diff(cost) <= 1e-6 * cost[0]).all()


@pytest.mark.parametrize("phase_init", STARTS.values(), ids=STARTS)
def test_activations_out_of_reach_of_the_precision_are_refused(small, phase_init):
    Y, H = (array.astype(dtype) for array, dtype in zip(small, (np.complex64, np.float32), strict=True))
    for y, h in ((1e-5 * Y, 1e37 * H / H.max()), (1e25 * Y, 1e-25 * H)):
        for solve, options in ((utils.complex_nmf, {"phase_init": phase_init}), (utils.nmf, {})):
            with pytest.raises(utils.InputError, match="too far from 1 for float32"):
                solve(y.astype(Y.dtype), h.astype(H.dtype), 2, **options)
    H[:, 2] *= 1e-25
    with pytest.raises(utils.InputError, match="below 1e-19 of the largest in column 2"):
        utils.complex_nmf(Y, H, 2, phase_init=STARTS["random"])
