"""Audio files and the short-time Fourier transform."""

from pathlib import Path

import numpy as np

from utils import InputError

MORE_SUFFIXES = {".aif", ".aifc", ".oga", ".opus", ".snd"}  # that soundfile reads beside its formats' own names


def audio_files(folder):
    """Paths of the audio files in ``folder``, sorted by name; hidden files and other kinds are passed over."""
    import soundfile

    suffixes = MORE_SUFFIXES | {f".{name.lower()}" for name in soundfile.available_formats() if name != "RAW"}
    paths = sorted(Path(folder).iterdir())
    return [path for path in paths if path.suffix.lower() in suffixes and not path.name.startswith(".")]


def load(path, sr):
    """Read an audio file, mixed down to mono and resampled to ``sr`` Hz.

    Returns
    -------
    np.ndarray [shape=(n,), float32]

    Raises
    ------
    InputError
        If the file cannot be read, holds no samples, or a sample is not finite.
    """
    import librosa
    import soundfile

    try:
        y, file_sr = soundfile.read(path, dtype="float32", always_2d=True)
    except (OSError, UnicodeError, soundfile.SoundFileError) as error:
        raise InputError(f"{path}: cannot be read as audio ({error}), expected a sound file") from None
    if len(y) == 0:
        raise InputError(f"{path}: got no samples, expected a sound")
    if not np.isfinite(y).all():
        raise InputError(f"{path}: got samples that are not finite, expected a sound")
    y = y.mean(axis=1)
    return y if file_sr == sr else librosa.resample(y, orig_sr=file_sr, target_sr=sr)


def stft(y, *, n_fft=2048, hop=512):
    """Complex spectrogram [shape=(n_fft // 2 + 1, M), complex64] of a mono signal, Hann window, centred frames."""
    import librosa

    if len(y) < n_fft:  # librosa would warn; zeros beyond the end change no frame
        y = np.pad(y, (0, n_fft - len(y)))
    return librosa.stft(y, n_fft=n_fft, hop_length=hop)


def istft(X, length, *, n_fft=2048, hop=512):
    """Signal of ``length`` samples whose :func:`stft` is nearest to ``X``."""
    import librosa

    return librosa.istft(X, n_fft=n_fft, hop_length=hop, length=length)
