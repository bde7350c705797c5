"""Nothing that is iterated becomes subnormal, and silence costs nothing."""

import numpy as np
import pytest

import utils
from piano import adapt, phase

LOSSES = ("frobenius", "kullback-leibler", "itakura-saito")
K, L, M = 129, 12, 96


def n_subnormal(*arrays):
    parts = [np.ascontiguousarray(array).ravel() for array in arrays]
    parts = [part.view(part.real.dtype) for part in parts]
    return sum(np.count_nonzero((part != 0) & (np.abs(part) < np.finfo(part.dtype).tiny)) for part in parts)


@pytest.fixture(scope="module", params=["sound", "fade", "silence"])
def spectrogram(request):
    """A sound in which most notes are silent, faded out by 400 dB, or cut off half way; real where the bin is."""
    rng = np.random.default_rng(3)
    H = basis()
    U = rng.exponential(size=(L, M)) * (rng.random((L, M)) < 0.2)
    Y = (H @ U) * np.exp(2j * np.pi * rng.random((K, M)))
    Y[[0, -1]] = np.abs(Y[[0, -1]])
    if request.param == "fade":
        Y *= np.geomspace(1, 1e-20, M)
    if request.param == "silence":
        Y[:, M // 2 :] = 0
    return Y.astype(np.complex64)


def basis():
    """Spectra with a narrow peak each, down to 1e-12 of it."""
    k, l = np.arange(K)[:, None], np.arange(L)
    H = np.exp(-((k - 10.0 * l - 5) ** 2) / 8) + 1e-12
    return (H / H.sum(axis=0)).astype(np.float32)


@pytest.mark.parametrize("loss", LOSSES)
def test_losses(spectrogram, loss):
    U, cost = utils.nmf(spectrogram, basis(), 500, loss=loss)
    assert n_subnormal(U, cost) == 0
    assert U.any(axis=0).sum() >= M // 3


@pytest.mark.parametrize(
    ("updates", "options"),
    [
        (utils._kullback_leibler_updates, {}),
        (utils._itakura_saito_updates, {}),
        (utils._euclidean_updates, {"weight": 1e-3, "p": 1.2}),
    ],
)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_what_an_update_leaves_alone_is_above_the_floor(updates, options, dtype):
    H, V = np.eye(3, dtype=dtype) + dtype(0.25), np.zeros((3, 4), dtype)
    V[0] = [1, 1e-3, 1e-6, 0]  # the other rows decay
    start = np.ones_like(V)
    G = (H.T @ H,) if updates is utils._euclidean_updates else ()
    U = updates(V, H, *G, start, 3000, np.zeros(1, bool), **options)[0]
    assert n_subnormal(U) == 0
    assert (U[U > 0] >= utils.floor_of(dtype)).all()


@pytest.mark.parametrize("phase_init", ["mixture", "random"])
def test_complex_nmf(spectrogram, phase_init):
    U, P, _, cost = utils.complex_nmf(spectrogram, basis(), 500, phase_init=phase_init)
    loud = np.abs(spectrogram).max(axis=0) > 1e-15  # below, the recording itself is next to the smallest numbers
    assert n_subnormal(U[:, loud], P, cost) == 0


def test_adaptation(spectrogram, monkeypatch):
    monkeypatch.setattr(adapt, "N_SWEEPS", 250)
    adapted, _ = adapt.adapt_basis(spectrogram, basis(), 1e-3)
    assert n_subnormal(adapted) == 0
    kept, sweep = [], adapt._sweep_block

    def watched(*args, **options):
        kept.append((options["H"], sweep(*args, **options)))
        return kept[-1][1]

    monkeypatch.setattr(adapt, "_sweep_block", watched)
    adapt.adapt_basis(spectrogram, basis(), 1e-3)
    assert n_subnormal(*(array for H, (U, N) in kept for array in (H, U, N))) == 0


def test_smoothing_and_refinement(spectrogram):
    columns, rotation = {l: [l] for l in range(L)}, np.full((K, L), 0.9 + 0.1j, np.complex64)
    for _, U, P, _, error, cost, X in phase.sinusoidal_blocks(spectrogram, basis(), rotation, columns, 500):
        assert [n_subnormal(x) for x in (U, P, error, cost, X)] == [0] * 5
    Y = np.ones((3, 2)), np.eye(2), np.eye(2)
    u, error, penalty = np.ones(2), np.ones(3000), np.zeros(3000)
    phase._held_sweeps(np.array([1.0, -0.9]), *Y[1:], u, 1e-5, 1.2, error, penalty, np.zeros(1, bool))
    assert n_subnormal(u, error, penalty) == 0
    assert u[1] == 0


def test_products_of_two_that_are_not_below_the_floor_are_normal():
    for dtype in (np.float32, np.float64):
        floor = utils.floor_of(dtype)
        assert floor.dtype == dtype
        assert floor * floor >= np.finfo(dtype).tiny
        x = np.array([floor, -floor, floor / 2, -floor / 2, 0, 1], dtype)
        assert utils.zero_below(x) is x
        assert x.tolist() == [floor, -floor, 0, 0, 0, 1]


@pytest.mark.parametrize("work", ["frobenius", "kullback-leibler", "itakura-saito", "mixture", "random", "adapt"])
def test_silent_frames_are_not_worked_on(work, monkeypatch):
    """The same numbers of columns go through the updates, whatever silence stands around them."""
    rng = np.random.default_rng(0)
    Y = rng.standard_normal((2, K, 40)).view(np.complex128)[0].astype(np.complex64)
    Y = np.abs(Y) + 1j * rng.standard_normal(Y.shape).astype(np.float32)
    padded = np.zeros((K, 3 * Y.shape[1]), np.complex64)
    padded[:, 40:60], padded[:, 90 : 90 + Y.shape[1] - 20] = Y[:, :20], Y[:, 20:]
    sounding = np.flatnonzero(padded.any(axis=0))
    if work in LOSSES:
        whole, alone = (utils.nmf(y, basis(), 20, loss=work)[0] for y in (padded, padded[:, sounding]))
        assert whole.shape == (L, padded.shape[1])
        widths = []
        name = {"frobenius": "_euclidean_updates", "kullback-leibler": "_kullback_leibler_updates"}.get(
            work, "_itakura_saito_updates"
        )
        update = getattr(utils, name)
        monkeypatch.setattr(utils, name, lambda V, *rest: widths.append(V.shape[1]) or update(V, *rest))
        utils.nmf(padded, basis(), 2, loss=work)
        assert sum(widths) == len(sounding)
    elif work == "adapt":
        whole = adapt.adapt_basis(padded, basis(), 1.0)[0].T
        alone = whole
    else:
        options = {"phase_init": work, "sparsity": 0}
        whole = utils.complex_nmf(padded, basis(), 20, **options)[0]
        alone = utils.complex_nmf(padded[:, sounding], basis(), 20, **options)[0]
        if work == "random":
            alone = whole[:, sounding]  # which draws its phases by the number of the frame
    if work in ("mixture", "random"):
        silent = np.setdiff1d(np.arange(padded.shape[1]), sounding)
        assert not whole[:, silent].any()
        assert alone == pytest.approx(whole[:, sounding], rel=1e-6, abs=1e-12)
