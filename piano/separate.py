"""Stems, the sound of each note: masks, the components of a complex NMF, and the files.

Everything here works block by block, so memory does not grow with the length of the recording.
"""

import logging
from collections import deque
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np

import utils
from piano import blocks, pitch
from piano.recording import FRAMES, SAMPLES, InverseSTFT
from utils import finite

log = logging.getLogger(__name__)

UNHEARD_DB = 40.0  # a note this much softer than listed has no sound of its own: leakage of others is as loud
STEPS = 2**23  # of a sample between 0 and 1 in 24 bit, which stems in FLAC have
PEAK_SAMPLES = 256  # of a stem, of which the largest is kept, 12 ms: as near as a clip's end need be
AT_ONCE = 8  # stems that are held as sound at a time
# Where a key is struck, see quiet_before. Chosen among 40 settings on nine pieces, and all but the first two among 100
# more on twenty. Times in s.
EARLIEST_S, LATEST_S = 0.01, 0.035  # before the listed onset, and after it, that a key may be struck
HAMMER_S = 0.007  # before a strike and after it, that tell it
RISE_S = 0.004  # that a stem fades in, half of it before the strike
SOFTER = 0.02  # of the energy of a strike: what is 17 dB softer is leakage of others


def file_name(basis, note, kind="flac"):
    """Name of the stem of a note, one of the keys of ``basis.notes``: stems are in order of pitch by name."""
    if basis.columns is None:
        return f"component_{note:03d}.{kind}"
    return f"{note:03d}_{pitch.note_name(note).replace('#', 's')}.{kind}"


def doubt_unheard(notes, writer):
    """The listed notes, with no confidence in those of whose stem nothing is heard where they are listed.

    That is where its peak there lies ``UNHEARD_DB`` below what the list says, both relative to the loudest note. A note
    without a stem stays as it is. ``notes`` is a list of :class:`notes.Note`, and ``writer`` the :class:`StemWriter`
    whose stems are written.
    """
    peaks, rate = {}, writer.recording.y_sr / PEAK_SAMPLES
    for i, note in enumerate(notes):
        if note.midi in writer.names:
            heard = writer.peaks[note.midi][int(note.onset * rate) : int(note.offset * rate) + 1]
            peaks[i] = heard.max(initial=0)
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


def masked_notes(Y, basis, U, *, mask="wiener"):
    """Yield what gives each note's share of the mixture, block by block.

    With the mask ``ratio`` that is ``X_n = (sum_{l in n} H_kl U_lm / S_km) Y_km``. With ``wiener`` it is the share of
    squared magnitudes, ``X_n = A_n^2 / (sum_n A_n^2) Y_km`` with ``A_n = sum_{l in n} H_kl U_lm``. All notes add up to
    Y where the model is not zero; where it is, none has a share.

    Y [shape=(K, M), complex] is the mixture, and may be a memory map or a :class:`utils.Spectrogram`. U [shape=(L, M)]
    are the activations. Yields, for each block of frames, a function of a note, one of the keys of ``basis.notes``,
    that returns its share [shape=(K, frames), complex].
    """
    U = U / (U.max() or 1) / basis.H.max()  # squares of very soft or loud models stay finite
    for frames, block in blocks.frame_blocks(utils.spectrogram(Y).Y, FRAMES):
        yield _shares(block, basis, U[:, frames], {"ratio": 1, "wiener": 2}[mask])


def _shares(Y, basis, U, power):
    """The notes of one block. Each is worked out only in the frames in which it sounds."""
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

    return of_note


def component_notes(Y, basis, part):
    """Notes of a complex NMF, ``sum_{l in n} X_l`` with ``X = H U P + beta (Y - F)``, of one block of frames.

    beta is H U / (S + noise), so that X = H U (P + (Y - F) / (S + noise)). Y [shape=(K, frames), complex] is the
    mixture, ``part`` the :class:`utils.Part` of :func:`utils.complex_nmf_blocks`, with phases. Returns a function of a
    note, one of the keys of ``basis.notes``, that returns its spectrogram [shape=(K, frames), complex]: all notes at
    once would take as much memory as their phases. Where any note sounds, all add up to Y but for the share of noise.
    """
    Y, F, U, H = Y.T, part.F.T, part.U.T, basis.H.T  # frame first, as transforms want it
    with blocks.one_blas_thread():
        S = U @ H
    S += np.transpose(part.noise)
    R = np.divide(Y - F, S, out=np.zeros_like(F), where=utils.floor_of(S.dtype) * S.max(initial=0) < S)

    def of_note(note):
        columns, X = basis.notes[note], np.zeros(R.shape, R.dtype)  # whose memory is touched only where it is written
        for row in np.unique(part.row[columns]):  # the states of a note may share a phase
            l = [l for l in columns if part.row[l] == row]
            m = np.flatnonzero(U[:, l].any(axis=1))
            if len(m):
                m = slice(m[0], m[-1] + 1)  # frames in which it sounds
                x = part.P[row].T[m] + R[m]
                x *= U[m, l] @ H[l]
                X[m] += x
        return X.T

    return of_note


def quiet_before(stems, i, onset, n_fft, sr):
    """Silence stem i in the half window before a strike, where its key was silent before that; in place.

    No mask can part what one window sees of a note that begins in its middle, so a stem would sound before it is
    struck. What is taken from it is the others', see :func:`share_out`.

    ``stems`` [shape=(notes, n), float] are whole, or what of them lies within ``n_fft`` and .1 s of the onset; i is a
    row of them. ``onset`` is the sample of the listed onset, ``n_fft`` the length of the transform, and ``sr`` the
    sampling rate in Hz.
    """
    y, reach = stems[i], n_fft // 2
    struck = find_strike(y, onset, sr)
    quiet = max(0, struck - reach)
    ends = quiet, struck + reach // 2
    was, comes = (np.sum(np.square(y[max(0, end - reach // 2) : end], dtype=np.float64)) for end in ends)
    rise = np.sin(np.linspace(0, np.pi / 2, max(2, round(RISE_S * sr)), endpoint=False)) ** 2
    if struck < len(rise) // 2 or was > SOFTER * comes:  # the recording begins with it, or its key sounded before
        return
    whole = min(len(y), struck + len(rise) // 2)  # from there on all of it is heard
    gain = np.append(np.zeros(whole - quiet), rise)[len(rise) :]
    if quiet:  # what sounded before dies away
        n = min(len(rise), len(gain))
        gain[:n] = np.maximum(gain[:n], 1 - rise[:n])
    taken = y[quiet:whole] * (1 - gain).astype(y.dtype)
    y[quiet:whole] -= taken
    share_out(taken, stems[:, quiet:whole], i, len(rise))


def find_strike(y, onset, sr):
    """Sample near a listed onset at which a stem is struck; 0 where it is silent there.

    That is where the energy of the second difference, in which hammers stand out, grows most. What is ``SOFTER`` than
    the strike counts as silence: in a chord the hammers of the other notes leak into each stem, ms before or after.

    ``y`` [shape=(n,), float] is the stem, ``onset`` the sample of the listed onset, ``sr`` the sampling rate in Hz.
    """
    attack, earliest = round(HAMMER_S * sr), max(0, onset - round(EARLIEST_S * sr))
    start = max(0, earliest - attack)
    part = y[start : onset + round(LATEST_S * sr) + attack]
    difference = np.diff(part, 2, prepend=(*part[:1], *part[:1]))
    energy = np.append(0, np.cumsum(difference.astype(np.float64) ** 2))
    m = np.arange(earliest - start, len(part) - attack)
    before, after = energy[m] - energy[np.maximum(m - attack, 0)], energy[m + attack] - energy[m]
    return start + int(m[np.argmax(after / (before + SOFTER * after.max()))]) if after.any() else 0


def share_out(taken, stems, i, around):
    """Add what was taken from stem i to the others, by how much they are like it, and how loud each is there; in place.

    So none that is silent before its own strike gets any. ``taken`` [shape=(n,), float] is of the same samples as
    ``stems`` [shape=(notes, n), float]; loudness is the mean over ``around`` samples. Where all others are silent, it
    is lost: the residual has it.
    """
    from scipy.ndimage import uniform_filter1d

    norm = np.linalg.norm(stems, axis=1)
    alike = np.divide(np.abs(stems @ taken), norm, out=np.zeros_like(norm), where=norm > 0)
    alike[i] = 0
    shares = alike[:, None] * uniform_filter1d(np.abs(stems), around, axis=1)
    total = shares.sum(axis=0)
    stems += shares * np.divide(taken, total, out=np.zeros_like(taken), where=total > 1e-6 * np.abs(taken))


def fresh_onsets(listed, sr):
    """Onsets of the listed notes whose key does not sound before: a dict from MIDI number to samples, in order."""
    onsets, ends = {}, {}
    for note in sorted(listed, key=lambda note: note.onset):
        if note.midi not in ends or ends[note.midi] + 0.1 < note.onset:  # a key still sounds for .1 s
            onsets.setdefault(note.midi, []).append(round(note.onset * sr))
        ends[note.midi] = max(note.offset, ends.get(note.midi, 0.0))
    return onsets


class Strikes:
    """Passes stems on block by block, :func:`quiet_before` each strike.

    ``onsets`` has a list for each stem, of int, in samples. For ``n_fft`` and ``sr`` see :func:`quiet_before`.
    """

    def __init__(self, onsets, n_fft, sr):
        self.onsets = deque(sorted((onset, i) for i, of_stem in enumerate(onsets) for onset in of_stem))
        self.stems = np.zeros((len(onsets), 0), np.float32)  # memory for them
        self.held = self.stems  # the part of it that a strike may still change
        self.n_fft, self.sr, self.first = n_fft, sr, 0  # sample that is held

    def add(self, samples, last=False):
        """The next samples that no strike will change [shape=(notes, n), float32], from the next ones of each stem.

        They lie in memory that is written anew at the next call: to ask for it takes as long as the work.
        """
        n_held, reach = self.held.shape[1], self.n_fft + self.sr // 10
        n_known = n_held + len(samples[0])
        if n_known > self.stems.shape[1]:
            self.stems = np.empty((len(samples), n_known), np.float32)
        stems = self.stems[:, :n_known]
        stems[:, :n_held] = self.held
        for stem, new in zip(stems, samples, strict=True):
            stem[n_held:] = new
        while self.onsets and (last or self.onsets[0][0] + reach <= self.first + n_known):
            onset, i = self.onsets.popleft()
            quiet_before(stems, i, onset - self.first, self.n_fft, self.sr)
        n = n_known if last else max(0, n_known - 2 * reach)
        self.held, self.first = stems[:, n:], self.first + n
        return stems[:, :n]


class StemWriter:
    """Writes the sound of each note into a file of its own, block by block, and at last what is left.

    Use it as a context: call :meth:`write` inside, and :meth:`finish` afterwards.

    ``folder`` is made for the stems. ``notes`` is a list of the keys of ``basis.notes`` that get one. Stems and
    residual add up to the sound of the recording, and have its sampling rate ``y_sr``. ``kind`` is "flac", 24 bit, or
    "wav", floating point. Before each :class:`notes.Note` of ``listed`` its key is :func:`quiet_before`.

    ``names`` is a dict with the file name of each note. ``peaks`` is one with the largest magnitude of each
    ``PEAK_SAMPLES`` of each stem, once all is written. ``residual`` is the file name of what is left. Where FLAC cannot
    hold that, as samples exceed one or are far too soft for its steps, it becomes ``residual.wav``. ``clipped`` is a
    dict with the number of clipped samples of each file that has any; floating point has none.
    """

    def __init__(self, folder, basis, notes, recording, kind="flac", listed=()):
        self.folder, self.recording = Path(folder), recording
        self.names, self.residual = {note: file_name(basis, note, kind) for note in notes}, f"residual.{kind}"
        self.peaks, self.clipped, self.n_written = {note: [] for note in notes}, {}, 0
        self.sums = Path(recording.folder) / "sum.f64"  # of the stems as they are written
        n_samples = -(-len(recording.y) * recording.sr // recording.y_sr)  # of the sound at the transform's rate
        size = {"n_fft": recording.n_fft, "hop": recording.hop}
        self.inverse = {note: InverseSTFT(recording.Y.shape[1], n_samples, **size) for note in notes}
        struck = fresh_onsets(listed, recording.sr)
        self.strikes = Strikes([struck.get(note, ()) for note in notes], recording.n_fft, recording.sr)

    def __enter__(self):
        import soxr

        self.folder.mkdir()
        with ExitStack() as stack, _disk_errors():
            self.files = {note: stack.enter_context(self._create(name)) for note, name in self.names.items()}
            self.total = stack.enter_context(open(self.sums, "wb"))
            self.stack = stack.pop_all()
        rates = self.recording.sr, self.recording.y_sr
        resampled = rates[0] != rates[1]
        self.resamplers = {note: soxr.ResampleStream(*rates, 1, dtype="float32") for note in self.names if resampled}
        return self

    def write(self, of_note):
        """Write the next block of frames; ``of_note`` returns that of a note, np.ndarray [shape=(K, frames)]."""
        self._write(lambda note: self.inverse[note].add(of_note(note)))

    def __exit__(self, kind, *_):
        self.stack.callback(self.resamplers.clear)  # soxr complains, at length, of those that live to Python's end
        with self.stack:
            if kind is None:
                self._write(lambda note: self.inverse[note].finish(), last=True)
                self.peaks = {note: np.concatenate(peaks) for note, peaks in self.peaks.items()}

    def _write(self, samples_of, last=False):
        """Write the next samples of all stems, and their sum."""
        if not self.names:
            return
        stems = self.strikes.add(blocks.in_threads(samples_of, self.names), last)

        def of_note(job):
            note, samples = job
            if self.resamplers:
                samples = self.resamplers[note].resample_chunk(samples, last)
            written = self._put(self.files[note], samples[: len(self.recording.y) - self.n_written])
            self._keep_peaks(self.peaks[note], np.abs(written))
            return written

        total, jobs = np.float64(0), list(zip(self.names, stems, strict=True))  # in double precision they are added up
        with _disk_errors():
            for first in range(0, len(jobs), AT_ONCE):
                total = sum(blocks.in_threads(of_note, jobs[first : first + AT_ONCE]), total)  # in order, on any cores
            self.total.write(total.astype(np.float64).tobytes())
        self.n_written += len(total)

    def _keep_peaks(self, kept, magnitudes):
        if len(magnitudes):
            begun = self.n_written % PEAK_SAMPLES  # of the last peak
            peaks = np.maximum.reduceat(magnitudes, np.arange(-begun, len(magnitudes), PEAK_SAMPLES).clip(0))
            if begun:
                kept[-1][-1] = max(kept[-1][-1], peaks[0])
            kept.append(peaks[bool(begun) :].astype(np.float32))

    def finish(self, kept, listed, told=True):
        """:meth:`add_residual`, say what comes of it where that is to be told, and return :func:`doubt_unheard`."""
        null = self.add_residual(kept)
        if told:
            self._tell(null)
        return listed if listed is None else doubt_unheard(listed, self)

    def _tell(self, null):
        for name, count in self.clipped.items():
            rest = f"what they lack is in {self.residual} (--format wav never clips)"
            log.warning(f"{self.recording.path}: {count} samples of {name} clipped; {rest}")
        if null is None:
            added_up = "They are silent, as the recording is."
        elif null < -400:  # dB; rounding stays above
            added_up = "Added up, they are the recording."
        else:
            unheard = ", which nobody hears" if null < -96 else ""  # dB, the steps of 16 bit
            added_up = f"Added up, they are the recording, but for a difference {-null:.0f} dB softer than it{unheard}."
        log.info(f"{len(self.names)} stems and a residual. {added_up}")

    def add_residual(self, kept):
        """Delete all stems but those of the notes in ``kept``, and write the residual.

        That is the recording less the stems as written, so all other stems become part of it. Returns the energy of
        ``y - residual - sum of stems``, in dB relative to that of y; None where y is silent or empty.
        """
        dropped = [self.folder / self.names.pop(note) for note in set(self.names) - set(kept)]
        with _disk_errors():
            null = self._write_residual(dropped)
            if self.residual in self.clipped or (null is not None and null > -40):  # dB; that is heard
                (self.folder / self.residual).unlink()  # whatever the stems lack, the sum must be right
                self.clipped.pop(self.residual, None)
                self.residual = "residual.wav"
                null = self._write_residual(dropped)
            self.sums.unlink()
            for path in dropped:
                path.unlink()
                self.clipped.pop(path.name, None)
            for name in (*self.names.values(), self.residual):
                erase_time(self.folder / name)
        return null

    def _write_residual(self, dropped):
        """Write what is left of the recording; see :meth:`add_residual` for what is returned."""
        import soundfile

        error = energy = 0.0
        with ExitStack() as stack:
            residual = stack.enter_context(self._create(self.residual))
            sums = stack.enter_context(open(self.sums, "rb"))
            sounds = [stack.enter_context(soundfile.SoundFile(path)) for path in dropped]
            for samples in blocks.frame_slices(len(self.recording.y), SAMPLES):
                y = blocks.read_frames(self.recording.y, samples).astype(np.float64)
                total = np.frombuffer(sums.read(8 * len(y)))
                left = y - np.pad(total, (0, len(y) - len(total)))
                left += sum(sound.read(len(y), fill_value=0) for sound in sounds)
                written = self._put(residual, left.astype(np.float32))
                error, energy = error + np.sum((left - written) ** 2), energy + np.sum(y**2)
        return 10 * np.log10(max(error / energy, np.finfo(np.float64).tiny)) if energy else None

    def _create(self, name):
        import soundfile

        subtype = "PCM_24" if name.endswith("flac") else "FLOAT"
        return soundfile.SoundFile(self.folder / name, "w", self.recording.y_sr, 1, subtype)

    def _put(self, file, samples):
        """Write samples; returns them as they are in the file."""
        name = Path(file.name).name
        if file.subtype == "FLOAT":
            file.write(finite(samples, name))
            return samples
        steps = finite(samples, name) * np.float32(STEPS)  # single precision holds every step
        if n := np.count_nonzero(np.abs(samples) > 1):
            self.clipped[name] = self.clipped.get(name, 0) + n
        np.clip(np.rint(steps, out=steps), -STEPS, STEPS - 1, out=steps)
        file.write(steps.astype(np.int32) << 8)  # of 32 bits, of which it keeps the upper 24
        return steps / np.float32(STEPS)


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
