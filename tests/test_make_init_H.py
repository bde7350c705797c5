"""make_init_H.py: the basis learnt from a folder of notes."""

import json
import re
import shutil

import numpy as np
import pytest
import soundfile

import make_init_H
import utils
from helpers import TEMPLATES, frequency
from piano import basis, cli, learn, pitch, recording

pytestmark = pytest.mark.same_everywhere("commands; what they compute is in test_utils_basis")

SR, N_FFT = 22050, 2048
MIDI = range(36, 96)  # C2 to B6


def strongest_series(spectrum, sr=SR, n_fft=N_FFT):
    """MIDI note of the piano whose partials hold the most: ``sum_n 0.9^(n-1) max |H| within one bin of n f0``."""
    k = np.arange(len(spectrum))

    def strength(midi):
        f0 = frequency(midi)
        partials = f0 * np.arange(1, min(50, int(sr / 2 / f0)) + 1)
        near = np.abs(k - partials[:, None] * n_fft / sr) <= 1  # (N, K)
        return 0.9 ** np.arange(len(partials)) @ np.where(near, spectrum, 0).max(axis=1)

    return max(pitch.PIANO, key=strength)


def load(folder):
    return np.load(folder / "fixed_basis.npy"), json.loads((folder / "fixed_basis.json").read_text("utf-8"))


def test_every_column_of_the_piano_basis_has_its_strongest_partials_at_its_pitch(learnt):
    H, info = load(learnt)
    assert (H.shape, H.dtype) == ((1025, 60), np.float32)
    assert (H >= 0).all()
    np.testing.assert_allclose(H.sum(axis=0, dtype=np.float64), 1, atol=1e-6)
    assert [strongest_series(h) for h in H.T] == list(MIDI)
    assert (info["sr"], info["n_fft"], info["hop"], info["window"]) == (22050, 2048, 512, "hann")
    assert [column["note"] for column in info["columns"]] == [pitch.note_name(midi) for midi in MIDI]
    assert [column["file"] for column in info["columns"]] == [path.name for path in TEMPLATES.values()]
    f0 = [130.81 * 2 ** ((midi - 48) / 12) for midi in MIDI]
    np.testing.assert_allclose([column["f0"] for column in info["columns"]], f0, atol=6e-4)


def test_basis_at_another_rate_and_window_length(tmp_path):
    shutil.copyfile(TEMPLATES[60], tmp_path / "C4.wav")
    options = "--sr", "16000", "--n-fft", "4096", "--hop-length", "256", "--n-peaks", "20"
    make_init_H.main([str(tmp_path), "-o", str(tmp_path), *options])
    H, info = load(tmp_path)
    assert H.shape == (2049, 1)
    assert strongest_series(H[:, 0], 16000, 4096) == 60
    assert (info["sr"], info["n_fft"], info["hop"]) == (16000, 4096, 256)


def test_frames_are_a_quarter_of_the_window_apart():
    for n_fft, hop in ((8192, 2048), (1022, 255), (200, 50), (2, 1)):
        assert make_init_H.parse_args(cli.parser("", "x.py"), ["notes", "--n-fft", str(n_fft)]).hop_length == hop


def test_three_states_of_a_note_stand_side_by_side_from_attack_to_decay(tmp_path):
    for midi, name in ((60, "take1.wav"), (48, "take2.wav")):  # by ear, and in order of pitch
        shutil.copyfile(TEMPLATES[midi], tmp_path / name)
    make_init_H.main([str(tmp_path), "-o", str(tmp_path), "--states", "3"])
    H, info = load(tmp_path)
    assert H.shape == (1025, 6)
    np.testing.assert_allclose(H.sum(axis=0, dtype=np.float64), 1, atol=1e-6)
    assert [column["note"] for column in info["columns"]] == ["C3"] * 3 + ["C4"] * 3
    for columns, midi in ((slice(0, 3), 48), (slice(3, 6), 60)):
        U, _ = utils.nmf(np.abs(recording.stft(recording.load(TEMPLATES[midi], SR))), H[:, columns], 500)
        centres = (U * np.arange(U.shape[1])).sum(axis=1) / U.sum(axis=1)
        assert (np.diff(centres) > 0).all()
        assert strongest_series(H[:, columns].sum(axis=1)) == midi


def test_keys_without_a_template_get_the_nearest_ones(tmp_path, capsys):
    for midi in (57, 60, 72):
        shutil.copyfile(TEMPLATES[midi], tmp_path / TEMPLATES[midi].name)
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


def test_several_templates_of_a_key_are_one_note_of_several_columns(tmp_path):
    y, sr = soundfile.read(TEMPLATES[60])
    for name in ("C4v1", "C4v2", "D4v1"):
        soundfile.write(tmp_path / f"{name}.wav", y, sr)
    make_init_H.main([str(tmp_path), "-o", str(tmp_path)])
    assert basis.load(tmp_path / "fixed_basis.npy").notes == {60: [0, 1], 62: [2]}


def test_one_note_that_follows_another_is_refused_with_what_is_heard(tmp_path, refused):
    (first, sr), (second, _) = (soundfile.read(TEMPLATES[midi]) for midi in (60, 67))
    gap = 3 * sr // 2  # the first has died away by half
    y = np.concatenate([np.pad(first[:gap], (0, max(0, gap - len(first)))), second])
    soundfile.write(tmp_path / "C4.wav", y, sr)
    line = refused(make_init_H, str(tmp_path), "-o", str(tmp_path / "out"))
    assert re.search(r"C4\.wav: got more than one note \(C4, and at 1\.\d s G4\)", line)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("sr", [8000, 44100])  # make_init_H.py has taken them for single notes at 22050
def test_single_notes_are_single_notes(sr):
    for path in list(TEMPLATES.values())[::5]:
        learn.check_one_note(path, sr)
