"""Whatever the numbers, the factors are finite and not negative, and the cost never rises."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import audio
import utils

BOUNDED = settings(max_examples=40, deadline=None, derandomize=True)


@st.composite
def problems(draw, kind="fc"):
    """A spectrogram of any shape, precision and level, with zeros and silent frames, and a basis that fits it."""
    K, L, M = draw(st.integers(1, 20)), draw(st.integers(1, 6)), draw(st.integers(1, 12))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    dtype = np.dtype(draw(st.sampled_from([t for t in ("f4", "f8", "c8", "c16") if t[0] in kind])))
    Y = rng.standard_normal((K, M)) + 1j * rng.standard_normal((K, M))
    Y *= 10.0 ** draw(st.integers(-12, 12)) * (rng.random((K, M)) >= draw(st.sampled_from([0.0, 0.5, 0.99])))
    Y[:, rng.random(M) < draw(st.sampled_from([0.0, 0.3, 1.0]))] = 0
    Y = (Y if dtype.kind == "c" else np.abs(Y)).astype(dtype)
    H = rng.random((K, L)) * (rng.random((K, L)) < draw(st.sampled_from([0.2, 1.0])))
    H[rng.integers(K, size=L), np.arange(L)] += 0.5
    return Y, (H * 10.0 ** draw(st.integers(-6, 6))).astype(draw(st.sampled_from([np.float32, np.float64])))


def falls(cost, scale):
    """Whether a curve never rises, by more than rounding in single precision, of what there was to explain."""
    return (np.diff(cost) <= 1e-5 * max(scale, cost[0]) + np.finfo(float).tiny).all()


@pytest.mark.parametrize("loss", ["frobenius", "kullback-leibler", "itakura-saito"])
@BOUNDED
@given(problem=problems(), n_iter=st.integers(1, 12))
def test_nmf(loss, problem, n_iter):
    Y, H = problem
    before = Y.tobytes(), H.tobytes()
    U, cost = utils.nmf(Y, H, n_iter, loss=loss)
    assert U.shape == (H.shape[1], Y.shape[1])
    assert np.isfinite(U).all()
    assert (U >= 0).all()
    assert np.isfinite(cost).all()
    assert falls(cost, utils.cost_scale(Y, loss))
    assert (Y.tobytes(), H.tobytes()) == before


@pytest.mark.parametrize("phase_init", ["mixture", "random"])
@BOUNDED
@given(problem=problems(kind="c"), n_iter=st.integers(1, 12))
def test_complex_nmf(phase_init, problem, n_iter):
    Y, H = problem
    before = Y.tobytes(), H.tobytes()
    blocks = list(utils.complex_nmf_blocks(Y, H, n_iter, phase_init=phase_init))
    for _, U, P, F, _, cost in blocks:
        assert np.isfinite(U).all()
        assert (U >= 0).all()
        assert np.isfinite(F).all()
        np.testing.assert_allclose(np.abs(P), 1, atol=1e-3)
        assert falls(cost, utils.energy(Y))
    columns = {l: [l] for l in range(H.shape[1])}
    for (frames, U, *_), parts in zip(blocks, audio.component_notes(Y, H, blocks, columns), strict=True):
        total = sum(parts)
        sounding = H @ U > 1e-30  # where the model is silent, no note has a share
        np.testing.assert_allclose(total[sounding], Y[:, frames][sounding], atol=1e-3 * max(np.abs(Y).max(), 1e-300))
    assert (Y.tobytes(), H.tobytes()) == before
