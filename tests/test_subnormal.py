"""Nothing that is iterated becomes subnormal, and silence costs nothing."""

import numpy as np
import pytest

import utils
from piano import adapt, phase
from piano.basis import Basis

K, L, M = 129, 12, 96
H = np.exp(-((np.arange(K)[:, None] - 10.0 * np.arange(L) - 5) ** 2) / 8) + 1e-12  # a narrow peak in each column
H = (H / H.sum(axis=0)).astype(np.float32)


def n_subnormal(*arrays):
    parts = [np.ascontiguousarray(array).view(array.real.dtype) for array in arrays]
    return sum(np.count_nonzero((part != 0) & (np.abs(part) < np.finfo(part.dtype).tiny)) for part in parts)


@pytest.fixture(scope="module", params=["sound", "fade", "silence"])
def spectrogram(request):
    """A sound in which most notes are silent, faded out by 400 dB, or cut off half way; real where the bin is."""
    rng = np.random.default_rng(3)
    U = rng.exponential(size=(L, M)) * (rng.random((L, M)) < 0.2)
    Y = (H @ U) * np.exp(2j * np.pi * rng.random((K, M)))
    Y[[0, -1]] = np.abs(Y[[0, -1]])
    if request.param == "fade":
        Y *= np.geomspace(1, 1e-20, M)
    if request.param == "silence":
        Y[:, M // 2 :] = 0
    return Y.astype(np.complex64)


@pytest.mark.parametrize(("loss", "solver"), utils.UPDATES)
def test_losses(spectrogram, loss, solver):
    U, cost = utils.nmf(spectrogram, H, 500, loss=loss, solver=solver)
    assert n_subnormal(U, cost) == 0
    assert U.any(axis=0).sum() >= M // 3


@pytest.mark.parametrize("phases", [utils.mixture_phases, utils.random_phases])
def test_complex_nmf(spectrogram, phases):
    U, P, _, cost = utils.complex_nmf(spectrogram, H, 300, phase_init=phases())
    loud = np.abs(spectrogram).max(axis=0) > 1e-15  # below, the recording itself is next to the smallest numbers
    assert n_subnormal(U[:, loud], P, cost) == 0


def test_adaptation(spectrogram, monkeypatch):
    monkeypatch.setattr(adapt, "N_FREE", 250)
    kept, sweep = [], adapt._Fit.sweep

    def watched(fit, *options, **named):
        kept.append((fit.U.copy(), *sweep(fit, *options, **named)))
        return kept[-1][1:]

    monkeypatch.setattr(adapt._Fit, "sweep", watched)
    adapted, *_ = adapt.adapt_basis(spectrogram, Basis(H), 1e-3)
    assert n_subnormal(adapted.H, *(array.astype(np.float32) for arrays in kept for array in arrays)) == 0


def test_smoothing_and_refinement(spectrogram):
    piano = Basis(H, rotation=np.full((K, L), 0.9 + 0.1j, np.complex64))
    _, start = phase.start(spectrogram, piano)
    for part in utils.complex_nmf_blocks(spectrogram, piano.H, 500, phase_init=start):
        assert [n_subnormal(x) for x in (part.U, part.P, part.error, part.cost)] == [0] * 4


def test_an_activation_that_falls_for_ever_ends_at_zero():
    Y, H = np.array([[1.0], [-0.9]], complex), np.eye(2)  # the second activation falls by the same factor each time
    begun = np.ones((2, 1)), np.ones((1, 2, 1), complex), np.zeros(2, int), 0.0
    swept = utils.held_sweeps(Y, begun, H, H, 3000, 1e-5, 1.2)
    assert n_subnormal(swept.U, swept.error, swept.cost) == 0
    assert swept.U[1] == 0


@pytest.fixture
def padded(rng):
    """Spectrogram of 40 frames that sound, with silence before, between and behind them."""
    padded, sounding = np.zeros((K, 120), np.complex64), np.r_[40:60, 90:110]
    padded[:, sounding] = rng.standard_normal((K, 40)) + 1j * rng.standard_normal((K, 40))
    return padded, sounding


@pytest.mark.parametrize(("loss", "solver"), utils.UPDATES)
def test_silent_frames_do_not_go_through_the_updates(padded, loss, solver, monkeypatch):
    Y, sounding = padded
    widths, update = [], utils.UPDATES[loss, solver]
    watched = {(loss, solver): lambda V, *rest, **named: widths.append(V.shape[1]) or update(V, *rest, **named)}
    monkeypatch.setattr(utils, "UPDATES", utils.UPDATES | watched)
    U, _ = utils.nmf(Y, H, 5, loss=loss, solver=solver)
    assert sum(widths) == len(sounding)
    assert np.flatnonzero(U.any(axis=0)).tolist() == sounding.tolist()


@pytest.mark.parametrize("phases", [utils.mixture_phases, utils.random_phases])
def test_silent_frames_of_complex_nmf_are_zero_and_change_no_other(padded, phases):
    Y, sounding = padded
    U, *_ = utils.complex_nmf(Y, H, 20, phase_init=phases(), sparsity=0)
    assert np.flatnonzero(U.any(axis=0)).tolist() == sounding.tolist()
    if phases is utils.mixture_phases:  # random phases are drawn by the number of the frame
        alone, *_ = utils.complex_nmf(Y[:, sounding], H, 20, sparsity=0)
        assert alone == pytest.approx(U[:, sounding], rel=1e-6, abs=1e-12)
