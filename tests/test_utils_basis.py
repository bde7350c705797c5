"""utils: the harmonic Gaussian mixture, and the spectra learnt from it."""

import numpy as np
import pytest
from scipy.integrate import quad

import oracle
import utils

SR, N_FFT = 22050, 2048


def gaussian(f, mean, variance):
    return np.exp(-((f - mean) ** 2) / (2 * variance)) / np.sqrt(2 * np.pi * variance)


SHORT = {"sr": 8000, "n_fft": 256, "n_peaks": 3, "damping": 0.5, "variance": 25.0}
LOW = {"sr": 1000, "n_fft": 64, "n_peaks": 4, "damping": 1.5, "variance": 400.0}


@pytest.mark.parametrize(("f0", "options"), [(27.5, {}), (1975.5, {}), (440.0, SHORT), (15.0, LOW)])
def test_every_bin_of_the_mixture_holds_the_integral_of_its_peaks(f0, options):
    given = {"sr": SR, "n_fft": N_FFT, "n_peaks": 50, "damping": 0.9, "variance": 1.0} | options
    width, n_bins = given["sr"] / given["n_fft"], given["n_fft"] // 2 + 1
    mass, reach = np.zeros(n_bins), 9 * given["variance"] ** 0.5  # beyond it a peak holds less than 1e-18
    for n in range(1, given["n_peaks"] + 1):
        if n * f0 >= given["sr"] / 2:
            break
        for k in range(n_bins):
            low, high = max((k - 0.5) * width, n * f0 - reach), min((k + 0.5) * width, n * f0 + reach)
            if low < high:
                density = (gaussian, low, high, (n * f0, given["variance"]))
                mass[k] += given["damping"] ** (n - 1) * quad(*density, epsabs=1e-14, epsrel=1e-12)[0]
    expected = (mass / mass.sum() + 1e-8) / (1 + n_bins * 1e-8)
    np.testing.assert_allclose(utils.harmonic_gmm(f0, **options), expected, rtol=1e-9, atol=1e-15)


def test_peaks_above_nyquist_are_dropped_and_a_fundamental_there_is_refused():
    just_above = (SR / 2 + 2) / 2  # the second peak lies inside the last bin, but above Nyquist
    assert utils.harmonic_gmm(just_above)[-1] == pytest.approx(1e-8, rel=2e-5)
    for f0 in (0.0, -1.0, 11025.0, np.nan, np.inf):
        with pytest.raises(utils.InputError, match=r"fundamental frequency: got .* between 0 and Nyquist, 11025"):
            utils.harmonic_gmm(f0)


def test_a_state_starts_active_in_its_share_of_the_sound_and_a_tenth_as_active_elsewhere(rng):
    Y, H = rng.random((30, 6)), np.repeat(rng.random((30, 1)) + 0.1, 3, axis=1)
    Y /= Y.sum(axis=0)  # all frames as loud, so a third of them is a third of the sound
    U = np.repeat(0.1 + 0.9 * np.eye(3), 2, axis=1)
    learnt = utils.learn_spectra(Y, H, 3)
    for _ in range(3):
        U = oracle.nmf_update(Y, H, U)
        H = oracle.nmf_update(Y.T, U.T, H.T).T
    np.testing.assert_allclose(learnt, H / H.sum(axis=0), rtol=1e-10)


@pytest.mark.parametrize("seed", [1, 2])
def test_states_that_changed_places_while_learning_come_in_order_of_time(seed):
    rng = np.random.default_rng(seed)
    Y, start = rng.random((15, 12)) ** 3, rng.random((15, 1)).repeat(3, axis=1) + 0.01
    U, _ = utils.nmf(Y, utils.learn_spectra(Y, start, 200), 100, solver="cd")
    assert (np.diff(U @ np.arange(12) / U.sum(axis=1)) > 0).all()


def test_any_damping_and_variance_is_a_spectrum_or_refused():
    for options in ({"damping": 1e308}, {"damping": 1e-308}, {"variance": 1e-308}, {"variance": 1e12}):
        p = utils.harmonic_gmm(440.0, **options)
        assert p.sum() == pytest.approx(1)
        assert (p > 0).all()
    top = utils.harmonic_gmm(440.0, damping=1e308)
    assert np.argmax(top) == round(25 * 440 * N_FFT / SR)  # the last harmonic below Nyquist has all the weight
    with pytest.raises(utils.InputError, match=r"variance: got 1e\+308 Hz\^2"):
        utils.harmonic_gmm(440.0, variance=1e308)
