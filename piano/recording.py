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

SAMPLES = 2**18  # that are read or written at a time, 1 MB of them
JOINED_S, PIECE_S = 300, 30  # s, that a piano is learnt from: more frames gain no more, see benchmarks/README.md
FRAMES = 128  # that are transformed or masked at a time: 4 MB a note where n_fft is 8192


def is_sound(path):
    """Whether ``path`` is to be read as a sound, and not as a spectrogram: its content tells, or else its name."""
    found = files.kind(path)
    return found in files.SOUNDS or (found is None and Path(path).suffix.lower() != ".npy")


def audio_files(folder):
    """Paths of the audio files in ``folder``, by content or by name, sorted; hidden files are left out."""
    import soundfile  # takes its time to import

    more = {".aif", ".aifc", ".oga", ".opus", ".snd", ".m4a", ".aac", ".mp4"}  # beside the names of its formats
    suffixes = more | {f".{name.lower()}" for name in soundfile.available_formats() if name != "RAW"}
    return [
        path
        for path in sorted(Path(folder).iterdir())
        if path.name[0] != "." and (path.suffix.lower() in suffixes or files.kind(path) in files.SOUNDS)
    ]


def inputs_in(folder, spectrograms):
    """Paths of the sounds in ``folder``, and of ``spectrograms`` if wanted; what a run has left there is neither."""
    left = results.left_in(folder)
    arrays = [path for path in folder.glob("[!.]*.npy") if files.kind(path) == files.ARRAY] if spectrograms else []
    found = sorted(set(audio_files(folder)) | set(arrays))
    return [path for path in found if path.name not in left]


def read_blocks(path, sr, folder, told=False):
    """Yield an audio file block by block [shape=(n,), float32], mixed down to mono and resampled to ``sr`` Hz.

    Where the channels cancel in the mix, the loudest is taken. Of that and of damage stderr is told, unless it was
    ``told`` before. ``folder`` is for what ffmpeg decodes, see :func:`files.opened`. Raises :class:`InputError` if the
    file cannot be read, holds no samples, or a sample is not finite.
    """
    import soundfile

    files.check_kind(path, "a sound file", *files.SOUNDS)
    chatter = []
    try:
        check_wav_length(path)
        with files.opened(path, folder) as file:
            loudest = _loudest_where_cancelled(file)
        if loudest is not None and not told:
            log.warning(f"{path}: its channels cancel in the mix, channel {loudest + 1} is taken alone")
        with files.opened(path, folder) as file:
            yield from _resampled(_mono(path, file, loudest, chatter), file.samplerate, sr)
    except (OSError, UnicodeError, soundfile.SoundFileError) as error:
        raise InputError(f"{path}: cannot be read as audio ({error}), expected a sound file") from None
    if not told and any(map(files.DAMAGE.search, chatter)):
        files.tell_damage(path)


def _mono(path, file, loudest, chatter):
    """Yield the mix of a sound file, or one channel, block by block; see :func:`read_blocks`."""
    n_samples = 0
    for block in _channels(file, chatter):
        if not np.isfinite(block).all():
            raise InputError(f"{path}: got samples that are not finite, expected a sound")
        n_samples += len(block)
        yield block.mean(axis=1) if loudest is None else block[:, loudest]
    unsure = 1152 if file.format == "MP3" else 0  # a frame; where no header tells it, the length is a guess
    if file.frames > n_samples + unsure:
        expected = f"the {file.frames} of its header (is it damaged, or cut short?)"
        raise InputError(f"{path}: got {n_samples} samples, expected {expected}")
    if n_samples == 0:
        raise InputError(f"{path}: got no samples, expected a sound")


def _resampled(parts, rate, sr):
    """Yield a sound that comes part by part at ``rate`` Hz [shape=(n,), float32] at ``sr`` Hz."""
    import soxr

    if rate == sr:
        yield from parts
        return
    stream = soxr.ResampleStream(rate, sr, 1, dtype="float32")
    for part in parts:
        yield stream.resample_chunk(part)
    yield stream.resample_chunk(np.zeros(0, np.float32), last=True)


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
    return int(energy.argmax()) if mix < 1e-4 * energy.max() else None  # -40 dB: the mix has lost the sound


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
    """Copy an audio file's samples into ``folder``, and return them as a memory map; see :func:`read_blocks`."""
    y = _mapped(Path(folder) / f"{sr}.f32", read_blocks(path, sr, folder, told))
    if not len(y):
        raise InputError(f"{path}: got a sound that is shorter than one sample at {sr} Hz, expected a longer one")
    return y


def _mapped(path, parts):
    """A sound that comes part by part, written to a file, as a memory map [shape=(n,), float32]."""
    with open(path, "wb") as file:
        for part in parts:
            file.write(part.astype(np.float32, copy=False).tobytes())
    return np.memmap(path, np.float32, "r") if path.stat().st_size else np.zeros(0, np.float32)


def joined(paths, sr, folder):
    """Path of a sound file at ``sr`` Hz, in ``folder``, of several, one after another and all equally loud.

    They give ``JOINED_S`` in all at most, and each of them the same: pieces of ``PIECE_S``, shorter ones of very many
    files, spread from its beginning to its end. What cannot be read, or is silent, is left out; None if all are.
    """
    import soundfile

    path, seconds = Path(folder) / "joined.wav", JOINED_S / len(paths)  # of each
    size, most = int(min(PIECE_S, seconds) * sr), max(1, int(seconds / PIECE_S))
    with soundfile.SoundFile(path, "w", sr, 1, "FLOAT") as file:
        for source in paths:
            copies = tempfile.TemporaryDirectory(dir=folder, ignore_cleanup_errors=True)  # Windows keeps a mapped file
            with copies as part, contextlib.suppress(InputError):
                y = load_mapped(source, sr, part, told=True)
                rms = np.sqrt(sum(np.sum(np.square(each, dtype=np.float64)) for each in _parts(y)) / len(y))
                pieces = list(blocks.frame_slices(len(y), size))
                for i in blocks.spread(len(pieces), most) if _peak(y, source) else ():
                    file.write(np.append(y[pieces[i]] * np.float32(0.1 / rms), np.zeros(sr, np.float32)))
        n_samples = file.tell()
    return path if n_samples else None


def hann(n_fft):
    """Periodic Hann window, librosa's default."""
    return np.hanning(n_fft + 1)[:-1].astype(np.float32)


def stft_blocks(y, *, n_fft=2048, hop=512):
    """Yield the STFT of ``y`` block by block: the same as ``librosa.stft``, frames centred.

    ``y`` [shape=(n,), float] may be a memory map. There are ``1 + n // hop`` frames in all. Blocks are of ``FRAMES``
    frames at most [shape=(n_fft // 2 + 1, frames), complex64].
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
    """An opened sound or spectrogram, and its STFT; what no file tells of a spectrogram is None."""

    path: Path  # of the input
    Y: utils.Spectrogram  # a memory map, complex64 of a sound
    y: np.ndarray | None  # [shape=(n,), float32], mono sound, a memory map; None of a spectrogram, see with_sound
    y_sr: int | None  # Hz, of y
    sr: int | None  # Hz, of the transform
    n_fft: int  # samples
    hop: int  # samples
    folder: Path  # for working copies, which are as long as the recording
    peak: float | None = None  # largest magnitude of y
    own_sr: int | None = None  # Hz, of the sound file
    channels: int | None = None  # of the sound file, which are mixed


def open_recording(path, basis, folder):
    """The :class:`Recording` of a ``.npy`` file, or of an audio file with the STFT of a :class:`basis.Basis`.

    Content tells which it is. ``folder`` is for working copies. Raises :class:`InputError` if it is neither, if it is a
    sound and the basis has no ``sr``, or if its spectrogram has another number of bins than the basis.
    """
    files.check_kind(path, "a spectrogram (.npy) or a sound", files.ARRAY, *files.SOUNDS)
    if not is_sound(path):
        Y, y, known = utils.load_spectrogram(path), None, {}
        if any(os.path.samefile(path, file) for file in basis.files) or _is_described(path, Y.shape):
            raise InputError(f"{path}: got a basis, expected a spectrogram (.npy) or a sound")
    else:
        if basis.sr is None:
            raise InputError(f"{path}: got a sound, expected fixed_basis.json beside the basis (or --sr) to go with it")
        y = load_mapped(path, basis.sr, folder)
        peak = _peak(y, path)
        Y = _mapped_stft(y, basis.n_fft, basis.hop, folder)
        with files.opened(path, folder) as file:
            known = {"peak": peak, "own_sr": file.samplerate, "channels": file.channels}
    utils.check_bins(Y, basis.H, path, basis.files[0])
    return Recording(path, Y, y, basis.sr, basis.sr, basis.n_fft, basis.hop, folder, **known)


def _peak(y, path):
    """Largest magnitude of a sound; squares of what is far from 1 have no single precision."""
    peak = max(float(np.abs(part).max()) for part in _parts(y))
    if peak and not 1e-31 < peak < 1e31:
        raise InputError(f"{path}: got samples of {peak:.1g} at most, expected about 1 (is it damaged?)")
    return peak


def _parts(y):
    return (blocks.read_frames(y, part) for part in blocks.frame_slices(len(y), SAMPLES))


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
        Y, size = recording.Y, {"n_fft": recording.n_fft, "hop": recording.hop}
        inverse = InverseSTFT(Y.shape[1], (Y.shape[1] - 1) * recording.hop, **size)
        parts = inverse.of(block for _, block in blocks.frame_blocks(Y.Y, FRAMES))
        return replace(recording, y=_mapped(Path(recording.folder) / "sound.f32", parts))
    if not native or recording.own_sr == recording.y_sr:
        return recording
    y = load_mapped(recording.path, recording.own_sr, recording.folder, told=True)
    return replace(recording, y=y, y_sr=recording.own_sr)


def sound_at(recording, sr):
    """Mono sound of a recording of a sound file at ``sr`` Hz [shape=(n,), float32]; may be a memory map.

    A lower rate is resampled from what is there: no reading and decoding again.
    """
    if sr == recording.y_sr:
        return recording.y
    if sr > recording.y_sr:
        return load_mapped(recording.path, sr, recording.folder, told=True)
    return _mapped(Path(recording.folder) / f"{sr}.f32", _resampled(_parts(recording.y), recording.y_sr, sr))


def istft(X, length, *, n_fft=2048, hop=512):
    """The signal of ``length`` samples whose :func:`stft` is closest to ``X``."""
    return np.concatenate(list(InverseSTFT(X.shape[1], length, n_fft=n_fft, hop=hop).of([X])))


class InverseSTFT:
    """Turns ``n_frames`` of a spectrogram into ``n_samples`` of sound, block by block: as ``librosa.istft`` at once."""

    def __init__(self, n_frames, n_samples, *, n_fft, hop):
        self.n_frames, self.n_samples, self.n_fft, self.hop = n_frames, n_samples, n_fft, hop
        self.window = hann(n_fft)
        self.n_hops = -(-n_fft // hop)  # that a frame reaches over
        self.carried = np.zeros((self.n_hops, hop), np.float32)  # what later frames add to
        self.first = 0  # hop of that

    def of(self, spectra):
        """Yield the sound of all blocks of frames, part by part."""
        for X in spectra:
            yield self.add(X)
        yield self.finish()

    def add(self, X):
        """The next samples [shape=(n,)], from the next block of frames X [shape=(K, frames)]; silence takes no time.

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
