"""Recording: a sound or a spectrogram and its STFT, as one value. Audio files, the STFT and its inverse.

Everything here works block by block, so memory does not grow with the length of the recording.
"""

import contextlib
import functools
import logging
import os
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

import utils
from piano import blocks, files, results
from piano.basis import load_description
from utils import InputError

log = logging.getLogger(__name__)

# Of sounds that soundfile reads too, beside the names of its formats, or ffmpeg.
MORE_SUFFIXES = {".aif", ".aifc", ".oga", ".opus", ".snd", ".m4a", ".aac", ".mp4"}
SAMPLES = 2**18  # that are read or written at a time
MP3_FRAME = 1152  # samples; to within one, the length of an MP3 is a guess where no header tells it
FRAMES = 128  # that are transformed or masked at a time
SOFTEST = 1e-31  # largest sample of a sound, and its inverse: squares of what lies beyond have no single precision
CANCELLED = 1e-4  # share of the loudest channel's energy, -40 dB, below which a mix has lost the sound


def is_sound(path):
    """Whether ``path`` is to be read as a sound, and not as a spectrogram: its content tells, or else its name."""
    found = files.kind(path)
    return found in (files.SOUND, files.FOREIGN) or (found is None and Path(path).suffix.lower() != ".npy")


def audio_files(folder):
    """Paths of the audio files in ``folder``, by content or by name, sorted; hidden files are left out."""
    import soundfile  # takes its time to import

    suffixes = MORE_SUFFIXES | {f".{name.lower()}" for name in soundfile.available_formats() if name != "RAW"}
    return [
        path
        for path in sorted(Path(folder).iterdir())
        if path.name[0] != "." and (path.suffix.lower() in suffixes or files.kind(path) in (files.SOUND, files.FOREIGN))
    ]


def inputs_in(folder, spectrograms=True):
    """Paths of the sounds in ``folder``, and of the ``.npy`` files; those that a run has left there are none."""
    left = results.left_in(folder)
    arrays = [path for path in folder.glob("[!.]*.npy") if files.kind(path) == files.ARRAY] if spectrograms else []
    found = sorted(set(audio_files(folder)) | set(arrays))
    return [path for path in found if path.name not in left]


def duration(path):
    """Length of an audio file in s."""
    import soundfile

    return soundfile.info(path).duration


def read_blocks(path, sr, folder, told=False):
    """Yield an audio file block by block, mixed down to mono and resampled to ``sr`` Hz.

    Where the channels cancel in the mix, the loudest is taken. Of that and of damage stderr is told, unless it was
    ``told`` before. ``folder`` is for what ffmpeg decodes, see :func:`files.opened`.

    Yields
    ------
    np.ndarray [shape=(n,), float32]

    Raises
    ------
    InputError
        If the file cannot be read, holds no samples, or a sample is not finite.
    """
    import soundfile
    import soxr

    files.check_kind(path, "a sound file", files.SOUND, files.FOREIGN)
    n_samples, chatter = 0, []
    try:
        check_wav_length(path)
        with files.opened(path, folder) as file:
            loudest = _loudest_where_cancelled(file)
        if loudest is not None and not told:
            log.warning(f"{path}: its channels cancel in the mix, channel {loudest + 1} is taken alone")
        with files.opened(path, folder) as file:
            resampler = soxr.ResampleStream(file.samplerate, sr, 1, dtype="float32")
            for block in _channels(file, chatter):
                if not np.isfinite(block).all():
                    raise InputError(f"{path}: got samples that are not finite, expected a sound")
                y = block.mean(axis=1) if loudest is None else block[:, loudest]
                n_samples += len(y)
                yield y if file.samplerate == sr else resampler.resample_chunk(y)
            if file.samplerate != sr:
                yield resampler.resample_chunk(np.zeros(0, np.float32), last=True)
            if file.frames > n_samples + (MP3_FRAME if file.format == "MP3" else 0):
                expected = f"the {file.frames} of its header (is it damaged, or cut short?)"
                raise InputError(f"{path}: got {n_samples} samples, expected {expected}")
    except (OSError, UnicodeError, soundfile.SoundFileError) as error:
        raise InputError(f"{path}: cannot be read as audio ({error}), expected a sound file") from None
    if n_samples == 0:
        raise InputError(f"{path}: got no samples, expected a sound")
    if not told and any(map(files.DAMAGE.search, chatter)):
        files.tell_damage(path)


def _channels(file, chatter):
    """Yield what a sound file holds, block by block [shape=(n, channels), float32]; not every kind can seek."""
    while True:
        with files.without_chatter() if file.format == "MP3" else contextlib.nullcontext([]) as said:
            block = file.read(SAMPLES, dtype="float32", always_2d=True)
        chatter += said
        if not len(block):
            return
        yield block


def _loudest_where_cancelled(file):
    """Index of the loudest channel of a sound file whose channels cancel in the mix; None of any other."""
    if file.channels == 1:
        return None
    mix, energy = 0.0, np.zeros(file.channels)
    for block in _channels(file, []):
        with np.errstate(invalid="ignore"):  # what is not finite is told of when it is read
            mix += np.sum(block.mean(axis=1, dtype=np.float64) ** 2)
        energy += np.sum(block.astype(np.float64) ** 2, axis=0)
    return int(energy.argmax()) if mix < CANCELLED * energy.max() else None


def check_wav_length(path):
    """Raise :class:`InputError` if a WAV file is shorter than its header says; libsndfile does not notice."""
    with open(path, "rb") as file:
        header = file.read(12)
    expected, n_bytes = int.from_bytes(header[4:8], "little") + 8, Path(path).stat().st_size
    is_wav = header[:4] == b"RIFF" and header[8:] == b"WAVE"
    if is_wav and n_bytes + 1 < expected < 2**32 - 2**16:  # a header written to a pipe knows no length
        raise InputError(f"{path}: got {n_bytes} bytes, expected the {expected} of its header (is the file cut short?)")


def load(path, sr):
    """Read a whole audio file into memory; see :func:`read_blocks`."""
    with tempfile.TemporaryDirectory() as folder:
        return np.concatenate(list(read_blocks(path, sr, folder)))


def transpose(y, sr, semitones):
    """A sound as it is when its pitch is so many semitones higher: resampled, so it lasts less long too."""
    import soxr

    return soxr.resample(y, sr * 2 ** (semitones / 12), sr) if semitones else y


def load_mapped(path, sr, folder, told=False):
    """Copy an audio file's samples into ``folder``, and return them as a memory map [shape=(n,), float32].

    See :func:`read_blocks`.
    """
    copy = Path(folder) / f"{sr}.f32"
    with open(copy, "wb") as file:
        for block in read_blocks(path, sr, folder, told):
            file.write(block.tobytes())
    if copy.stat().st_size == 0:
        raise InputError(f"{path}: got a sound that is shorter than one sample at {sr} Hz, expected a longer one")
    return np.memmap(copy, np.float32, "r")


def hann(n_fft):
    """Periodic Hann window, librosa's default."""
    return (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(n_fft) / n_fft)).astype(np.float32)


def stft_blocks(y, *, n_fft=2048, hop=512):
    """Yield the STFT of ``y`` block by block: the same as ``librosa.stft``, frames centred.

    Parameters
    ----------
    y : np.ndarray [shape=(n,), float]
        May be a memory map.
    n_fft, hop : int
        In samples.

    Yields
    ------
    np.ndarray [shape=(n_fft // 2 + 1, frames), complex64]
        ``1 + n // hop`` frames in all, at most ``FRAMES`` at a time.
    """
    from scipy.fft import rfft

    n_frames, window = 1 + len(y) // hop, hann(n_fft)
    for frames in blocks.frame_slices(n_frames, FRAMES):
        first, last = frames.start * hop - n_fft // 2, (frames.stop - 1) * hop + n_fft - n_fft // 2
        samples = blocks.read_frames(y, slice(max(first, 0), last)).astype(np.float32, copy=False)
        before = max(-first, 0)
        samples = np.pad(samples, (before, last - first - before - len(samples)))
        cut = np.lib.stride_tricks.sliding_window_view(samples, n_fft)[::hop]
        yield rfft(cut * window, axis=1, workers=blocks.available_cores()).T


def stft(y, *, n_fft=2048, hop=512):
    """Complex spectrogram [shape=(n_fft // 2 + 1, M), complex64] of a mono signal, Hann window, centred frames."""
    return np.concatenate(list(stft_blocks(y, n_fft=n_fft, hop=hop)), axis=1)


@dataclass(frozen=True)
class Recording:
    """An opened sound or spectrogram, and its STFT.

    Attributes
    ----------
    path : Path
        Of the input.
    Y : utils.Spectrogram
        A memory map, complex64 of a sound.
    y : np.ndarray [shape=(n,), float32] or None
        Mono sound, a memory map; None for a spectrogram, see :func:`with_sound`.
    y_sr : int or None
        Sampling rate of y in Hz.
    sr, n_fft, hop : int or None
        Of the transform: sampling rate in Hz, STFT length and hop length in samples.
    folder : Path
        For working copies, which are as long as the recording.
    own_sr, channels : int or None
        Of the sound file: its sampling rate in Hz, and its channels, which are mixed.
    """

    path: Path
    Y: utils.Spectrogram
    y: np.ndarray | None
    y_sr: int | None
    sr: int | None
    n_fft: int
    hop: int
    folder: Path
    own_sr: int | None = None
    channels: int | None = None


def open_recording(path, basis, folder):
    """Open a spectrogram, or compute that of an audio file with the STFT of the basis.

    Parameters
    ----------
    path : str or Path
        Of a ``.npy`` file or an audio file, whatever its name.
    basis : Basis
        An audio file needs its ``sr``.
    folder : str or Path
        For working copies.

    Returns
    -------
    Recording

    Raises
    ------
    InputError
        If the file is neither a spectrogram nor a sound, if it is a sound and the sampling rate is not known, or
        if its spectrogram has another number of bins than the basis.
    """
    files.check_kind(path, "a spectrogram (.npy) or a sound", files.ARRAY, files.SOUND, files.FOREIGN)
    if not is_sound(path):
        Y, y, own = utils.load_spectrogram(path), None, (None, None)
        if any(os.path.samefile(path, file) for file in basis.files) or _is_described(path, Y.shape):
            raise InputError(f"{path}: got a basis, expected a spectrogram (.npy) or a sound")
    else:
        if basis.sr is None:
            raise InputError(f"{path}: got a sound, expected fixed_basis.json beside the basis (or --sr) to go with it")
        y = load_mapped(path, basis.sr, folder)
        _check_level(y, path)
        Y = _mapped_stft(y, basis.n_fft, basis.hop, folder)
        with files.opened(path, folder) as file:
            own = file.samplerate, file.channels
    utils.check_bins(Y, basis.H, path, basis.files[0])
    return Recording(path, Y, y, basis.sr, basis.sr, basis.n_fft, basis.hop, folder, *own)


def _check_level(y, path):
    parts = blocks.frame_slices(len(y), SAMPLES)
    peak = max(float(np.abs(blocks.read_frames(y, part)).max()) for part in parts)
    if peak and not SOFTEST < peak < 1 / SOFTEST:
        raise InputError(f"{path}: got samples of {peak:.1g} at most, expected about 1 (is it damaged?)")


def _is_described(path, shape):
    """Whether what describes a basis lies beside a ``.npy`` file."""
    with contextlib.suppress(InputError):
        return load_description(path, shape) is not None
    return False


def _mapped_stft(y, n_fft, hop, folder):
    copy = Path(folder) / "spec.npy"
    with utils.frame_writer(copy, (n_fft // 2 + 1, 1 + len(y) // hop), np.complex64) as write:
        for block in stft_blocks(y, n_fft=n_fft, hop=hop):
            write(block)
    return utils.load_spectrogram(copy)


def with_sound(recording, *, native=False):
    """The recording, with the sound that its stems must add up to.

    For a spectrogram this is its inverse STFT. ``native`` keeps a sound file at its own sampling rate.
    """
    if recording.y is None:
        return replace(recording, y=_sound_of(recording))
    if not native:
        return recording
    return replace(recording, y=sound_at(recording, recording.own_sr), y_sr=recording.own_sr)


def sound_at(recording, sr):
    """Mono sound of a recording of a sound file at ``sr`` Hz [shape=(n,), float32]; may be a memory map."""
    if sr == recording.y_sr:
        return recording.y
    if sr > recording.y_sr:
        return load_mapped(recording.path, sr, recording.folder, told=True)
    return _lowered(recording, sr)


def _lowered(recording, sr):
    """The sound at a lower rate, resampled from what is there: no reading and decoding again."""
    import soxr

    resampler, copy = soxr.ResampleStream(recording.y_sr, sr, 1, dtype="float32"), Path(recording.folder) / f"{sr}.f32"
    with open(copy, "wb") as file:
        for samples in blocks.frame_slices(len(recording.y), SAMPLES):
            file.write(resampler.resample_chunk(blocks.read_frames(recording.y, samples)).tobytes())
        file.write(resampler.resample_chunk(np.zeros(0, np.float32), last=True).tobytes())
    return np.memmap(copy, np.float32, "r") if copy.stat().st_size else np.zeros(0, np.float32)


def _sound_of(recording):
    Y = recording.Y
    inverse = InverseSTFT(Y.shape[1], (Y.shape[1] - 1) * recording.hop, n_fft=recording.n_fft, hop=recording.hop)
    copy = Path(recording.folder) / "sound.f32"
    with open(copy, "wb") as file:
        for _, block in blocks.frame_blocks(Y.Y, FRAMES):
            file.write(inverse.add(block).astype(np.float32).tobytes())
        file.write(inverse.finish().astype(np.float32).tobytes())
    return np.memmap(copy, np.float32, "r") if copy.stat().st_size else np.zeros(0, np.float32)


def istft(X, length, *, n_fft=2048, hop=512):
    """The signal of ``length`` samples whose :func:`stft` is closest to ``X``."""
    inverse = InverseSTFT(X.shape[1], length, n_fft=n_fft, hop=hop)
    return np.concatenate([inverse.add(X), inverse.finish()])


class InverseSTFT:
    """Turns a spectrogram into sound block by block, as ``librosa.istft`` does in one go.

    Parameters
    ----------
    n_frames, n_samples : int
        Number of frames in all, and length of the sound.
    n_fft, hop : int
        Of the transform, in samples.
    """

    def __init__(self, n_frames, n_samples, *, n_fft, hop):
        self.n_frames, self.n_samples, self.n_fft, self.hop = n_frames, n_samples, n_fft, hop
        self.window = hann(n_fft)
        self.n_hops = -(-n_fft // hop)  # that a frame reaches over
        self.carried = np.zeros((self.n_hops, hop), np.float32)  # what later frames add to
        self.first = 0  # hop of that

    def add(self, X):
        """The next samples, from the next block of frames X [shape=(K, frames), complex]; silence takes no time.

        Returns
        -------
        np.ndarray [shape=(n,), float]
            All calls together, with :meth:`finish`, give ``n_samples``.
        """
        from scipy.fft import irfft

        n_frames = X.shape[1]
        total = np.zeros((n_frames + self.n_hops, self.hop), X.real.dtype)
        sounding = np.flatnonzero(X.any(axis=0))
        if len(sounding):
            first, last = sounding[0], sounding[-1] + 1
            frames = irfft(np.ascontiguousarray(X[:, first:last].T), self.n_fft, axis=1)
            frames *= self.window
            for i, part in enumerate(_by_hops(frames, self.hop)):
                total[first + i : last + i] += part
        total[: self.n_hops] += self.carried
        self.carried = total[n_frames:].copy()
        return self._finished(total[:n_frames])

    def finish(self):
        """The last samples."""
        return self._finished(self.carried)

    def _finished(self, total):
        """The next hops, divided by the sum of the squared windows, cut to the length of the sound."""
        total /= _squared_windows(self.first, len(total), self.n_frames, self.n_fft, self.hop)
        start = self.n_fft // 2 - self.first * self.hop  # of the sound
        self.first += len(total)
        return total.ravel()[max(0, start) : max(0, start + self.n_samples)]


def _by_hops(frames, hop):
    """Parts of frames [shape=(frames, n_fft)], one hop after another, (hops, frames, hop)."""
    n_hops = -(-frames.shape[1] // hop)
    if n_hops * hop > frames.shape[1]:
        frames = np.pad(frames, ((0, 0), (0, n_hops * hop - frames.shape[1])))
    return frames.reshape(len(frames), n_hops, hop).transpose(1, 0, 2)


@functools.lru_cache(maxsize=4)  # all notes of a block ask for the same
def _squared_windows(first, n, n_frames, n_fft, hop):
    """Sum of the squared windows of all frames, in ``n`` hops from ``first`` on, (n, hop); never zero."""
    total, frame = np.zeros((n, hop), np.float32), first + np.arange(n)
    for i, (squares,) in enumerate(_by_hops(hann(n_fft)[None] ** 2, hop)):
        total[(frame >= i) & (frame - i < n_frames)] += squares
    return np.maximum(total, np.finfo(np.float32).tiny)
