"""Several recordings of one piano: what one of them tells of a key serves the others."""

import itertools

import librosa
import numpy as np
import pytest
import soundfile
from scipy.signal import butter, sosfilt

import CNMF
import make_init_H
import utils
from helpers import TEMPLATES, names, record
from piano import basis, recording

pytestmark = [pytest.mark.same_everywhere("far from what decides it"), pytest.mark.usefixtures("drawn")]
SR, KEYS = 22050, {"low": (48, 52, 55, 60), "high": (64, 67, 71, 74)}
DULL = butter(1, 700, fs=SR, output="sos")  # what makes another piano of the templates


@pytest.fixture(scope="module")
def pianos(tmp_path_factory):
    """A folder with two recordings of a dull piano, which have no key in common, and the bases of two pianos."""
    folder = tmp_path_factory.mktemp("pianos")
    for name, filtered in (("bright", lambda y: y), ("dull", lambda y: sosfilt(DULL, y).astype(np.float32))):
        (folder / name).mkdir()
        sounds = {midi: filtered(recording.load(TEMPLATES[midi], SR)) for midi in KEYS["low"] + KEYS["high"]}
        for midi, y in sounds.items():
            soundfile.write(folder / name / TEMPLATES[midi].name, y, SR, subtype="FLOAT")
        make_init_H.main([str(folder / name), "--n-fft", "4096", "--quiet", "-o", str(folder / f"{name}_basis")])
    for name, keys in KEYS.items():
        y = np.concatenate([sounds[key][:SR] for key in keys + keys[::-1]])
        soundfile.write(folder / f"{name}.wav", (0.5 if name == "low" else 0.05) * y / np.abs(y).max(), SR)
    return folder


def command(pianos, out, *options, inputs):
    """Arguments of a run that adapts the basis of the bright piano."""
    paths = [str(pianos / name) for name in (*inputs, "bright_basis/fixed_basis.npy")]
    return [*paths[:-1], "2", paths[-1], "--adapt", "auto", "--no-phase", "--quiet", *options, "-o", str(out)]


def unexplained(pianos, path, name):
    """Kullback-Leibler divergence that is left of a recording, its basis held fixed, of all its magnitudes."""
    V = np.abs(librosa.stft(recording.load(pianos / f"{name}.wav", SR), n_fft=4096))
    return utils.nmf(V, basis.load(path).H, 50, loss="kullback-leibler", solver="cd")[1][-1] / V.sum()


def patterns_apart(path, true, name):
    """How far patterns are from the true ones up to .5 s, whatever their level, for the keys of a recording."""
    l = [list(true.notes).index(key) for key in KEYS[name]]
    a, b = (each.patterns[l, :40].reshape(len(l), -1).astype(float) for each in (basis.load(path), true))
    return np.abs(a / a.sum(axis=1, keepdims=True) - b / b.sum(axis=1, keepdims=True)).sum()


def test_what_one_recording_tells_of_a_key_serves_the_others(pianos, tmp_path, refused):
    """What cannot be read is told of, and keeps nothing from the others."""
    (pianos / "broken.wav").write_bytes((pianos / "low.wav").read_bytes()[:5000])
    inputs = "broken.wav", "low.wav", "high.wav"
    assert "broken.wav: got 5000 bytes" in refused(CNMF, *command(pianos, tmp_path, "--same-piano", inputs=inputs))
    assert names(tmp_path) == ["high", "low"]
    CNMF.main(command(pianos, tmp_path / "alone", inputs=inputs[1:]))
    given, true = (pianos / f"{name}_basis" / "fixed_basis.npy" for name in ("bright", "dull"))
    for name, keys in itertools.product(KEYS, KEYS):  # half of the keys are never struck in this recording
        found, alone = (folder / name / "basis_calc.npy" for folder in (tmp_path, tmp_path / "alone"))
        left = unexplained(pianos, found, keys)
        assert left < 0.87 * unexplained(pianos, given, keys)  # .75 to .85
        if name != keys:
            assert left < 0.97 * unexplained(pianos, alone, keys)  # .92 and .95
        assert patterns_apart(found, basis.load(true), keys) < 0.26 * patterns_apart(given, basis.load(true), keys)
    assert [file["file"] for file in record(tmp_path / "high")["inputs"]][:3] == ["high.wav", "broken.wav", "low.wav"]


def test_what_no_piano_can_be_learnt_from_together(pianos, tmp_path, refused):
    for inputs, options, message in (
        (["low.wav"], (), "--same-piano: got a single SPEC, expected several sounds"),
        (["low.wav", "high.wav"], ("--adapt", "none"), "--same-piano: got --adapt none, expected several sounds"),
        (["low.wav", "dull_basis/fixed_basis.npy"], (), "fixed_basis.npy, a spectrogram, expected sounds alone"),
    ):
        assert message in refused(CNMF, *command(pianos, tmp_path, *options, "--same-piano", inputs=inputs))
        assert names(tmp_path) == []
