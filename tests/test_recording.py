"""Audio files and the short-time Fourier transform."""

import numpy as np
import pytest
import soundfile

from helpers import tone
from piano import recording
from piano.basis import Basis

pytestmark = pytest.mark.same_everywhere("files, and Fourier transforms, which take no BLAS")

SR = 22050


def test_audio_files_are_found_in_order_and_other_files_passed_over(tmp_path):
    for name in ("b.wav", "a.FLAC", "d.ogg", "c.aif", ".hidden.wav", "notes.txt", "basis.npy", "wav"):
        (tmp_path / name).touch()
    assert [path.name for path in recording.audio_files(tmp_path)] == ["a.FLAC", "b.wav", "c.aif", "d.ogg"]


FORMATS = {"PCM_16": ("wav", 2**-15), "PCM_U8": ("wav", 2**-7), "PCM_24": ("flac", 2**-23), "VORBIS": ("ogg", 0.05)}


@pytest.mark.parametrize("subtype", FORMATS)
def test_any_format_is_read_as_the_same_sound(tmp_path, subtype):
    ending, tolerance = FORMATS[subtype]
    soundfile.write(tmp_path / f"a.{ending}", tone(), SR, subtype=subtype)
    y = recording.load(tmp_path / f"a.{ending}", SR)
    assert y.dtype == np.float32
    np.testing.assert_allclose(y, tone(), atol=tolerance)


@pytest.mark.parametrize("file_sr", [8000, 44100, 96000])
def test_other_rates_are_resampled(tmp_path, file_sr):
    soundfile.write(tmp_path / "a.wav", tone(sr=file_sr), file_sr, subtype="DOUBLE")
    y = recording.load(tmp_path / "a.wav", SR)
    assert len(y) == SR
    middle = slice(SR // 10, -SR // 10)  # the filter rings at the ends
    np.testing.assert_allclose(y[middle], tone()[middle], atol=1e-3)


def test_transposing_an_octave_doubles_the_frequency_and_halves_the_length():
    up = recording.transpose(tone().astype(np.float32), SR, 12)
    assert len(up) == SR // 2
    assert np.argmax(np.abs(np.fft.rfft(up))) * SR / len(up) == pytest.approx(880, abs=2)


def test_a_lower_rate_is_resampled_from_what_is_there(tmp_path):
    soundfile.write(tmp_path / "a.wav", tone(seconds=20), SR, subtype="FLOAT")
    basis = Basis(np.ones((129, 1)), SR, 256, 64, files=("basis.npy",))
    opened = recording.open_recording(tmp_path / "a.wav", basis, tmp_path)
    (tmp_path / "a.wav").unlink()  # it is not read again
    y = recording.sound_at(opened, 16000)
    assert len(y) == 20 * 16000
    middle = slice(1600, -1600)
    np.testing.assert_allclose(y[middle], tone(sr=16000, seconds=20)[middle], atol=1e-3)
    assert recording.sound_at(opened, SR) is opened.y
