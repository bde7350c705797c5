"""Stems, the sound of each note: masks, the components of a complex NMF, and the files.

Everything here works block by block, so memory does not grow with the length of the recording.
"""

import functools
import logging
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np

import utils
from piano import blocks, pitch
from piano.recording import FRAMES, SAMPLES, InverseSTFT
from utils import finite

log = logging.getLogger(__name__)

EXACT_DB = -400.0  # what a difference is below that is none: rounding stays above
INAUDIBLE_DB = -96.0  # what a difference is below that nobody hears: the steps of 16 bit
COARSE_DB = -40.0  # of a sum, relative to the recording: more is heard
UNHEARD_DB = 40.0  # a note this much softer than listed has no sound of its own: leakage of others is as loud


def file_name(basis, note, kind="flac"):
    """Name of the stem of a note, one of the keys of ``basis.notes``: stems are in order of pitch by name."""
    if basis.columns is None:
        return f"component_{note:03d}.{kind}"
    return f"{note:03d}_{pitch.note_name(note).replace('#', 's')}.{kind}"


def doubt_unheard(notes, writer):
    """The listed notes, with no confidence in those of whose stem nothing is heard where they are listed.

    That is where its peak there lies ``UNHEARD_DB`` below what the list says, both relative to the loudest note. A note
    without a stem stays as it is.

    Parameters
    ----------
    notes : list of Note
    writer : StemWriter
        Whose stems are written.
    """
    import soundfile

    peaks, sr = {}, writer.recording.y_sr
    for midi, name in writer.names.items():
        with soundfile.SoundFile(writer.folder / name) as stem:
            for i, note in enumerate(notes):
                if note.midi == midi:
                    stem.seek(min(int(note.onset * sr), stem.frames))
                    peaks[i] = np.abs(stem.read(int((note.offset - note.onset) * sr))).max(initial=0)
    loudest = max(peaks.values(), default=0)
    least = [loudest * 10 ** ((note.level_db - UNHEARD_DB) / 20) for note in notes]
    unheard = {i for i, peak in peaks.items() if peak <= least[i] and loudest}  # of silence alone nothing is known
    return [note._replace(confidence=0.0) if i in unheard else note for i, note in enumerate(notes)]


def possible_notes(basis, listed, stems):
    """Keys of ``basis.notes`` that may get a stem, as far as is known without activations: the listed ones, or all."""
    return sorted({note.midi for note in listed}) if listed is not None and stems != "all" else list(basis.notes)


def wanted_notes(U, basis, listed, stems, top_db):
    """Keys of ``basis.notes`` that get a stem: the listed pitches, or without a list, or for ``all``, what is loud."""
    follow = listed is not None and stems != "all"
    return possible_notes(basis, listed, stems) if follow else sounding_notes(U, basis, top_db)


def sounding_notes(U, basis, top_db):
    """Notes whose activation peaks at most ``top_db`` dB below the loudest note's; none in silence."""
    peaks = {note: float(U[l].sum(axis=0).max()) for note, l in basis.notes.items()}
    threshold = max(peaks.values()) * 10 ** (-top_db / 20)
    return [note for note, peak in peaks.items() if peak > 0 and peak >= threshold]


def masked_notes(Y, basis, U, wanted, *, mask="wiener"):
    """Yield each note's share of the mixture, block by block.

    ``ratio``: ``X_n = (sum_{l in n} H_kl U_lm / S_km) Y_km``; ``wiener``: the shares of squared magnitudes,
    ``X_n = A_n^2 / (sum_n A_n^2) Y_km`` with ``A_n = sum_{l in n} H_kl U_lm``. All notes add up to Y where the model is
    not zero; there, none has a share.

    Parameters
    ----------
    Y : np.ndarray [shape=(K, M), complex] or utils.Spectrogram
        Mixture; may be a memory map.
    basis : Basis
    U : np.ndarray [shape=(L, M)]
        Activations.
    wanted : collection
        Notes to yield, keys of ``basis.notes``.
    mask : {"wiener", "ratio"}

    Yields
    ------
    list of np.ndarray [shape=(K, frames), complex]
        The wanted notes of one block of frames, in the order of ``basis.notes``.
    """
    U = U / (U.max() or 1) / basis.H.max()  # squares of very soft or loud models stay finite
    for frames, block in blocks.frame_blocks(utils.spectrogram(Y).Y, FRAMES):
        yield _shares(block, basis, U[:, frames], wanted, {"ratio": 1, "wiener": 2}[mask])


def _shares(Y, basis, U, wanted, power):
    """The wanted notes of one block. Each is worked out only in the frames in which it sounds."""
    Y = np.ascontiguousarray(Y.T)  # (frames, K)

    def magnitudes(l):
        frames = np.flatnonzero(U[l].any(axis=0))
        return frames, (U[l][:, frames].T @ basis.H[:, l].T) ** power

    A = dict(zip(basis.notes, blocks.in_threads(magnitudes, basis.notes.values()), strict=True))
    total = np.zeros(Y.shape, U.dtype)
    for frames, a in A.values():
        total[frames] += a

    def of_note(note):
        X, (frames, a) = np.zeros_like(Y), A[note]
        S = total[frames]
        share = np.divide(a, S, out=np.zeros_like(a), where=S > 0)  # 0 / 0 is 0; no level makes it more than one
        X[frames] = share * Y[frames]
        return X.T

    return blocks.in_threads(of_note, [note for note in basis.notes if note in wanted])


def component_notes(Y, basis, part, wanted):
    """Notes of a complex NMF, ``sum_{l in n} X_l`` with ``X = H U P + beta (Y - F)``, of one block of frames.

    beta is H U / S, so that X = H U (P + (Y - F) / S).

    Parameters
    ----------
    Y : np.ndarray [shape=(K, frames), complex]
        Mixture.
    basis : Basis
    part : utils.Part
        From :func:`utils.complex_nmf_blocks`, with phases.
    wanted : collection
        Notes to give, of the keys of ``basis.notes``.

    Returns
    -------
    list of np.ndarray [shape=(K, frames), complex]
        In the order of ``basis.notes``; all notes add up to Y, where any note sounds.
    """
    Y, F, U, H = Y.T, part.F.T, part.U.T, basis.H.T  # frame first, as transforms want it
    with blocks.one_blas_thread():
        S = U @ H
    R = np.divide(Y - F, S, out=np.zeros_like(F), where=utils.floor_of(S.dtype) * S.max(initial=0) < S)

    def of_note(columns):
        X = np.zeros_like(R)
        for row in np.unique(part.row[columns]):  # the states of a note may share a phase
            l = [l for l in columns if part.row[l] == row and U[:, l].any()]
            if l:
                X += (U[:, l] @ H[l]) * (part.P[row].T + R)
        return X.T

    return blocks.in_threads(of_note, [l for note, l in basis.notes.items() if note in wanted])


class StemWriter:
    """Writes the sound of each note into a file of its own, block by block.

    Use it as a context: call :meth:`write` inside, and :meth:`add_residual` afterwards.

    Parameters
    ----------
    folder : Path
        Made for the stems.
    basis : Basis
    notes : list
        Keys of ``basis.notes`` that get a stem.
    recording : Recording
        Stems and residual add up to its sound, and have its sampling rate ``y_sr``.
    kind, subtype : str
        File format and sample format, as soundfile names them.

    Attributes
    ----------
    names : dict
        File name of each note.
    residual : str
        File name of what is left. Where the format cannot hold that, as samples exceed one or are far too soft for its
        steps, it becomes ``residual.wav``, in floating point.
    clipped : dict
        Number of clipped samples of each file that has any. Only fixed-point formats clip.
    """

    def __init__(self, folder, basis, notes, recording, kind="flac", subtype="PCM_24"):
        self.folder, self.recording, self.subtype = Path(folder), recording, subtype
        self.names, self.residual = {note: file_name(basis, note, kind) for note in notes}, f"residual.{kind}"
        self.clipped, self.n_written = {}, {}  # by file name; a FLAC file that is being written does not tell
        self.sums = Path(recording.folder) / "sum.f64"  # of the stems as they were written
        n_samples = -(-len(recording.y) * recording.sr // recording.y_sr)  # of the sound at the transform's rate
        size = {"n_fft": recording.n_fft, "hop": recording.hop}
        self.inverse = {note: InverseSTFT(recording.Y.shape[1], n_samples, **size) for note in notes}

    def __enter__(self):
        import soxr

        self.folder.mkdir()
        with ExitStack() as stack, _disk_errors():
            self.files = {note: stack.enter_context(self._create(name)) for note, name in self.names.items()}
            self.stack = stack.pop_all()
        rates = self.recording.sr, self.recording.y_sr
        resampled = rates[0] != rates[1]
        self.resamplers = {note: soxr.ResampleStream(*rates, 1, dtype="float32") for note in self.names if resampled}
        return self

    def write(self, spectra):
        """Write the next block of frames: np.ndarray [shape=(K, frames)], one for each name."""
        self._in_threads(lambda note, X: self._write_samples(note, self.inverse[note].add(X)), spectra)

    def __exit__(self, kind, *_):
        self.stack.callback(self.resamplers.clear)  # soxr complains, at length, of those that live to Python's end
        with self.stack, _disk_errors():
            if kind is None:
                self._in_threads(lambda note: self._write_samples(note, self.inverse[note].finish(), last=True))

    def _in_threads(self, function, *arguments):
        with _disk_errors():
            blocks.in_threads(lambda job: function(*job), zip(self.names, *arguments, strict=True))

    def finish(self, kept, listed, told=True):
        """:meth:`add_residual`, say what comes of it where that is to be told, and return :func:`doubt_unheard`."""
        null = self.add_residual(kept)
        if told:
            self._tell(null)
        return listed if listed is None else doubt_unheard(listed, self)

    def _tell(self, null):
        for name, count in self.clipped.items():
            rest = f"what they lack is in {self.residual} (--format wav --subtype FLOAT never clips)"
            log.warning(f"{self.recording.path}: {count} samples of {name} clipped; {rest}")
        if null is None:
            added_up = "They are silent, as the recording is."
        elif null < EXACT_DB:
            added_up = "Added up, they are the recording."
        else:
            unheard = ", which nobody hears" if null < INAUDIBLE_DB else ""
            added_up = f"Added up, they are the recording, but for a difference {-null:.0f} dB softer than it{unheard}."
        log.info(f"{len(self.names)} stems and a residual. {added_up}")

    def add_residual(self, kept):
        """Delete all stems but those in ``kept``, write the residual, and check what they add up to.

        Parameters
        ----------
        kept : collection
            Notes. All other stems become part of the residual, which is the recording less the stems as written.

        Returns
        -------
        float or None
            Energy of ``y - residual - sum of stems``, in dB relative to that of y; None where y is silent or empty.
        """
        for note in set(self.names) - set(kept):
            self._drop(self.names.pop(note))
        stems = [self.folder / name for name in self.names.values()]
        with _disk_errors():
            null = self._write_residual(stems)
            if self.residual in self.clipped or (null is not None and null > COARSE_DB):
                self._drop(self.residual)  # whatever the stems lack, the sum must be right
                self.residual, self.subtype = "residual.wav", "FLOAT"
                null = self._write_residual(stems)
            self.sums.unlink()
            for path in (*stems, self.folder / self.residual):
                erase_time(path)
        return null

    def _write_residual(self, stems):
        """Write what is left of the recording; see :meth:`add_residual` for what is returned."""
        with self._create(self.residual) as residual, open(self.sums, "wb") as sums:
            for block, total in _totals(self.recording.y, stems):
                self._put(residual, (block - total).astype(np.float32))
                sums.write(total.tobytes())
        error = energy = 0.0
        with open(self.sums, "rb") as sums:
            for block, total in _totals(self.recording.y, [self.folder / self.residual]):
                total += np.frombuffer(sums.read(total.nbytes))
                error, energy = error + np.sum((block - total) ** 2), energy + np.sum(block**2)
        return 10 * np.log10(max(error / energy, np.finfo(np.float64).tiny)) if energy else None

    def _drop(self, name):
        (self.folder / name).unlink()
        self.clipped.pop(name, None)
        self.n_written.pop(name, None)

    def _create(self, name):
        import soundfile

        return soundfile.SoundFile(self.folder / name, "w", self.recording.y_sr, 1, self.subtype)

    def _write_samples(self, note, samples, *, last=False):
        samples = samples.astype(np.float32, copy=False)
        if self.resamplers:
            samples = self.resamplers[note].resample_chunk(samples, last)
        self._put(self.files[note], samples)

    def _put(self, file, samples):
        name = Path(file.name).name
        if self.subtype not in ("FLOAT", "DOUBLE") and (n := int((np.abs(samples) > 1).sum())):
            self.clipped[name] = self.clipped.get(name, 0) + n
        samples = samples[: len(self.recording.y) - self.n_written.get(name, 0)]
        self.n_written[name] = self.n_written.get(name, 0) + len(samples)
        file.write(finite(samples, name))


def _totals(y, paths):
    """Yield each block of the recording, and the sum of the sounds in ``paths`` there."""
    import soundfile

    with ExitStack() as stack:
        sounds = [stack.enter_context(soundfile.SoundFile(path)) for path in paths]
        for start in range(0, len(y), SAMPLES):
            block = blocks.read_frames(y, slice(start, start + SAMPLES)).astype(np.float64)
            read = functools.partial(soundfile.SoundFile.read, frames=len(block), fill_value=0)
            yield block, sum(blocks.in_threads(read, sounds), np.zeros(len(block)))


@contextmanager
def _disk_errors():
    """Context that turns soundfile's errors into OSError: here they mean a full disk."""
    import soundfile

    try:
        yield
    except soundfile.SoundFileError as error:
        raise OSError(f"stems cannot be written ({error})") from None


def erase_time(path):
    """Zero the time of writing in a WAV file; libsndfile puts it into the PEAK chunk of floating-point ones."""
    with open(path, "r+b") as file:
        chunk = file.read(256).find(b"PEAK")  # name, size, version, time, of four bytes each
        if chunk >= 0:
            file.seek(chunk + 12)
            file.write(bytes(4))
