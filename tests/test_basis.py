"""The harmonic Gaussian mixture and the basis learnt from it."""

import json
import shutil

import librosa
import numpy as np
import pytest
import soundfile
from scipy.integrate import quad

import make_init_H
import oracle
import utils
from piano import basis, recording

SR, N_FFT = 22050, 2048
NAMES = ("C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B")
NOTES = [f"{name}{octave}" for octave in range(2, 7) for name in NAMES]  # C2 to B6
MIDI = range(36, 96)
PIANO = range(21, 109)


def gaussian(f, mean, variance):
    return np.exp(-((f - mean) ** 2) / (2 * variance)) / np.sqrt(2 * np.pi * variance)


def strongest_series(spectrum, sr=SR, n_fft=N_FFT):
    """MIDI note of the piano whose partials hold the most: ``sum_n 0.9^(n-1) max |H| within one bin of n f0``."""
    k = np.arange(len(spectrum))

    def strength(midi):
        f0 = 440 * 2 ** ((midi - 69) / 12)
        partials = f0 * np.arange(1, min(50, int(sr / 2 / f0)) + 1)
        near = np.abs(k - partials[:, None] * n_fft / sr) <= 1  # (N, K)
        return 0.9 ** np.arange(len(partials)) @ np.where(near, spectrum, 0).max(axis=1)

    return max(PIANO, key=strength)


def load(folder):
    return np.load(folder / "fixed_basis.npy"), json.loads((folder / "fixed_basis.json").read_text("utf-8"))


def test_notes_are_whole_semitones_away_from_c3():
    assert utils.note_frequency(48) == 130.81
    assert utils.note_frequency(36) == 130.81 / 2
    assert utils.note_frequency(69) == pytest.approx(440, abs=0.01)
    assert utils.note_frequency(49) / utils.note_frequency(48) == pytest.approx(2 ** (1 / 12), rel=1e-14)


@pytest.mark.parametrize(
    ("f0", "options"),
    [
        (130.81, {}),
        (1975.5, {}),
        (440.0, {"sr": 8000, "n_fft": 256, "n_peaks": 3, "damping": 0.5, "variance": 25.0}),
        (15.0, {"sr": 1000, "n_fft": 64, "n_peaks": 4, "damping": 1.5, "variance": 400.0}),
    ],
)
def test_every_bin_of_the_mixture_holds_the_integral_of_its_peaks(f0, options):
    given = {"sr": SR, "n_fft": N_FFT, "n_peaks": 50, "damping": 0.9, "variance": 1.0} | options
    width = given["sr"] / given["n_fft"]
    n_bins = given["n_fft"] // 2 + 1
    mass = np.zeros(n_bins)
    for n in range(1, given["n_peaks"] + 1):
        if n * f0 >= given["sr"] / 2:
            break
        reach = 9 * given["variance"] ** 0.5  # beyond it a peak holds less than 1e-18
        for k in range(n_bins):
            low, high = max((k - 0.5) * width, n * f0 - reach), min((k + 0.5) * width, n * f0 + reach)
            if low < high:
                density = (gaussian, low, high, (n * f0, given["variance"]))
                mass[k] += given["damping"] ** (n - 1) * quad(*density, epsabs=1e-14, epsrel=1e-12)[0]
    expected = (mass / mass.sum() + 1e-8) / (1 + n_bins * 1e-8)
    np.testing.assert_allclose(utils.harmonic_gmm(f0, **options), expected, rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize("f0", [utils.note_frequency(midi) for midi in (21, 36, 60, 95, 108)])
def test_mixture_sums_to_one_and_no_bin_is_below_the_floor(f0):
    p = utils.harmonic_gmm(f0)
    assert p.shape == (1025,)
    assert p.sum() == pytest.approx(1, abs=1e-14)
    assert p.min() == pytest.approx(1e-8, rel=2e-5)


def test_peaks_above_nyquist_are_dropped():
    np.testing.assert_array_equal(utils.harmonic_gmm(3000.0), utils.harmonic_gmm(3000.0, n_peaks=3))
    just_above = (SR / 2 + 2) / 2  # the second peak lies inside the last bin, but above Nyquist
    assert utils.harmonic_gmm(just_above)[-1] == pytest.approx(1e-8, rel=2e-5)


@pytest.mark.parametrize("f0", [0.0, -1.0, 11025.0, np.nan, np.inf])
def test_a_fundamental_outside_the_spectrum_is_refused(f0):
    with pytest.raises(utils.InputError, match=r"fundamental frequency: got .* expected between 0 and Nyquist, 11025"):
        utils.harmonic_gmm(f0)


def test_learning_a_spectrum_that_only_fades_finds_it_in_one_sweep(rng):
    h, u = rng.random(40) + 0.01, rng.random(12) + 0.01
    start = rng.random((40, 1)) + 0.1
    given = start.copy()
    np.testing.assert_allclose(utils.learn_spectra(np.outer(h, u), start, 1)[:, 0], h / h.sum(), rtol=1e-12)
    np.testing.assert_array_equal(start, given)


def test_learning_never_raises_the_distance(rng):
    Y, start = rng.random((30, 20)), rng.random((30, 1)) + 0.1

    def best_distance(H):  # the U that fits one column is a projection
        return oracle.distance(Y, H, H.T @ Y / (H.T @ H))

    distances = [best_distance(utils.learn_spectra(Y, start, n)) for n in range(1, 30)]
    assert (np.diff(distances) <= 1e-12 * distances[0]).all()
    s = np.linalg.svd(Y, compute_uv=False)
    assert best_distance(utils.learn_spectra(Y, start, 200)) == pytest.approx(np.sum(s[1:] ** 2) / 2, rel=1e-9)


def test_a_state_starts_active_in_its_share_of_the_sound_and_a_tenth_as_active_elsewhere(rng):
    Y, H = rng.random((30, 6)), np.repeat(rng.random((30, 1)) + 0.1, 3, axis=1)
    Y /= Y.sum(axis=0)  # all frames as loud, so a third of them is a third of the sound
    U = np.repeat(0.1 + 0.9 * np.eye(3), 2, axis=1)
    learnt = utils.learn_spectra(Y, H, 3)
    for _ in range(3):
        U = oracle.nmf_update(Y, H, U)
        H = oracle.nmf_update(Y.T, U.T, H.T).T
    np.testing.assert_allclose(learnt, H / H.sum(axis=0), rtol=1e-10)


@pytest.mark.parametrize("gain", [1e-150, 1e-30, 1e30])
def test_the_level_of_a_template_is_free(rng, gain):
    Y, start = rng.random((20, 12)), rng.random((20, 2)) + 0.1
    np.testing.assert_allclose(utils.learn_spectra(gain * Y, start, 20), utils.learn_spectra(Y, start, 20), rtol=1e-9)


@pytest.mark.parametrize("swapped", [False, True])
def test_states_come_in_order_of_time(rng, swapped):
    attack, decay = rng.random((2, 30)) * np.repeat(np.eye(2), 15, axis=1)  # nothing in common
    if swapped:
        attack, decay = decay, attack
    Y = np.column_stack([np.outer(attack, [6, 4, 2]), np.outer(decay, [3, 3, 2, 2, 1, 1])])
    H = utils.learn_spectra(Y, np.ones((30, 2)), 300)
    np.testing.assert_allclose(H[:, 0], attack / attack.sum(), atol=1e-6)
    np.testing.assert_allclose(H[:, 1], decay / decay.sum(), atol=1e-6)


@pytest.mark.parametrize("seed", range(8))
def test_states_that_changed_places_while_learning_come_in_order_of_time(seed):
    rng = np.random.default_rng(seed)
    Y, start = rng.random((15, 12)) ** 3, rng.random((15, 1)).repeat(3, axis=1) + 0.01
    U, _ = utils.nmf(Y, utils.learn_spectra(Y, start, 2000), 5000)
    assert (np.diff(U @ np.arange(12) / U.sum(axis=1)) > 0).all()


def test_every_column_of_the_piano_basis_has_its_strongest_partials_at_its_pitch(learnt, templates):
    H, info = load(learnt)
    assert H.shape == (1025, 60)
    assert H.dtype == np.float32
    assert (H >= 0).all()
    np.testing.assert_allclose(H.sum(axis=0, dtype=np.float64), 1, atol=1e-6)
    assert [strongest_series(h) for h in H.T] == list(MIDI)
    assert (info["sr"], info["n_fft"], info["hop"], info["window"]) == (22050, 2048, 512, "hann")
    assert [column["note"] for column in info["columns"]] == NOTES
    assert [column["file"] for column in info["columns"]] == [path.name for path in templates]
    f0 = [130.81 * 2 ** ((midi - 48) / 12) for midi in MIDI]
    np.testing.assert_allclose([column["f0"] for column in info["columns"]], f0, atol=6e-4)


def test_templates_without_note_names_are_measured_and_ordered_by_pitch(templates, tmp_path, rng):
    files = [f"pf{number}.wav" for number in rng.permutation(len(templates))]  # in the order of pitch
    for template, file in zip(templates, files, strict=True):
        shutil.copyfile(template, tmp_path / file)
    make_init_H.main([str(tmp_path), "-o", str(tmp_path)])
    H, info = load(tmp_path)
    assert [column["note"] for column in info["columns"]] == NOTES
    assert [column["file"] for column in info["columns"]] == files
    cents = [1200 * np.log2(c["f0"] / utils.note_frequency(m)) for c, m in zip(info["columns"], MIDI, strict=True)]
    assert np.abs(cents).max() < 30
    assert [strongest_series(h) for h in H.T] == list(MIDI)
    np.testing.assert_allclose(H.sum(axis=0, dtype=np.float64), 1, atol=1e-6)


def learn_one(folder, y, sr, name="C4.wav", *options, **subtype):
    """Spectra learnt from ``y`` as the only template of a new folder."""
    folder.mkdir()
    soundfile.write(folder / name, y, sr, **subtype)
    make_init_H.main([str(folder), "-o", str(folder), *options])
    return np.load(folder / "fixed_basis.npy")


def test_stereo_flac_and_other_rates_give_the_same_note(templates, tmp_path, learnt):
    y, sr = soundfile.read(templates[60 - 36])
    expected = np.load(learnt / "fixed_basis.npy")[:, [60 - 36]]
    one_side = np.column_stack([y, np.zeros_like(y)])  # mixed down it is y / 2, and a column forgets the gain
    np.testing.assert_array_equal(learn_one(tmp_path / "flac", y, sr, "C4.flac"), expected)
    stereo = learn_one(tmp_path / "stereo", one_side, sr, subtype="DOUBLE")
    np.testing.assert_allclose(stereo, expected, rtol=1e-4, atol=1e-9)
    fast = learn_one(tmp_path / "fast", librosa.resample(y, orig_sr=sr, target_sr=48000), 48000, subtype="DOUBLE")
    assert strongest_series(fast[:, 0]) == 60
    assert np.abs(fast - expected).sum() < 0.02  # of a spectrum that sums to 1


def test_basis_at_another_rate_and_window_length(templates, tmp_path):
    y, sr = soundfile.read(templates[60 - 36])
    options = ("--sr", "16000", "--n-fft", "4096", "--hop-length", "256", "--n-peaks", "20")
    H = learn_one(tmp_path / "other", y, sr, "C4.wav", *options)
    _, info = load(tmp_path / "other")
    assert H.shape == (2049, 1)
    assert strongest_series(H[:, 0], 16000, 4096) == 60
    assert (info["sr"], info["n_fft"], info["hop"]) == (16000, 4096, 256)


def test_three_states_of_a_note_stand_side_by_side_from_attack_to_decay(templates, tmp_path):
    for midi in (48, 60):
        shutil.copyfile(templates[midi - 36], tmp_path / templates[midi - 36].name)
    make_init_H.main([str(tmp_path), "-o", str(tmp_path), "--states", "3"])
    H, info = load(tmp_path)
    assert H.shape == (1025, 6)
    np.testing.assert_allclose(H.sum(axis=0, dtype=np.float64), 1, atol=1e-6)
    assert [column["note"] for column in info["columns"]] == ["C3"] * 3 + ["C4"] * 3
    for columns, midi in ((slice(0, 3), 48), (slice(3, 6), 60)):
        Y = np.abs(recording.stft(recording.load(templates[midi - 36], SR)))
        U, _ = utils.nmf(Y, H[:, columns], 500)
        centres = (U * np.arange(U.shape[1])).sum(axis=1) / U.sum(axis=1)
        assert (np.diff(centres) > 0).all()
        assert strongest_series(H[:, columns].sum(axis=1)) == midi


def test_keys_without_a_template_get_the_nearest_ones(templates, tmp_path, capsys):
    for midi in (57, 60, 72):
        shutil.copyfile(templates[midi - 36], tmp_path / templates[midi - 36].name)
    make_init_H.main([str(tmp_path), "-o", str(tmp_path), "--keys", "G#3", "61"])
    assert "6 notes, G#3 to C#4, 6 columns, 4 of them transposed from the nearest" in capsys.readouterr().err
    H, info = load(tmp_path)
    assert [strongest_series(h) for h in H.T] == list(range(56, 62))
    strongest = H.argmax(axis=0) * SR / N_FFT  # Hz
    moved = strongest[[1, 1, 1, 4, 4, 4]] * 2 ** (np.array([-1, 0, 1, -1, 0, 1]) / 12)
    np.testing.assert_allclose(strongest, moved, atol=SR / N_FFT)
    assert [column["note"] for column in info["columns"]] == ["G#3", "A3", "A#3", "B3", "C4", "C#4"]
    assert [column.get("transposed") for column in info["columns"]] == [-1, None, 1, -1, None, 1]
    assert [column["file"][:3] for column in info["columns"]] == ["057", "057", "057", "060", "060", "060"]
    f0 = utils.note_frequency(np.arange(56, 62))
    np.testing.assert_allclose([column["f0"] for column in info["columns"]], f0, atol=1e-3)


def test_several_templates_of_a_key_are_one_note_of_several_columns(templates, tmp_path):
    y, sr = soundfile.read(templates[60 - 36])
    for name in ("C4v1", "C4v2", "D4v1"):
        soundfile.write(tmp_path / f"{name}.wav", y, sr)
    make_init_H.main([str(tmp_path), "-o", str(tmp_path)])
    assert basis.load(tmp_path / "fixed_basis.npy").notes == {60: [0, 1], 62: [2]}


def test_any_damping_and_variance_is_a_spectrum_or_refused():
    for options in ({"damping": 1e308}, {"damping": 1e-308}, {"variance": 1e-308}, {"variance": 1e12}):
        p = utils.harmonic_gmm(440.0, **options)
        assert p.sum() == pytest.approx(1)
        assert (p > 0).all()
    top = utils.harmonic_gmm(440.0, damping=1e308)
    assert np.argmax(top) == round(25 * 440 * N_FFT / SR)  # the last harmonic below Nyquist has all the weight
    with pytest.raises(utils.InputError, match=r"variance: got 1e\+308 Hz\^2"):
        utils.harmonic_gmm(440.0, variance=1e308)
