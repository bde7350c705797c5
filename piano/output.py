"""What NMF.py and CNMF.py write of a recording beside their arrays: stems, notes, pictures and the page."""

import contextlib
import math
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import utils
from piano import basis, figures, listen, notes, results, separate
from piano.recording import Recording, with_sound
from utils import InputError

SAMPLE_BYTES = {"flac": 0.5, "wav": 4}  # of a stem, by its format; of FLAC, .3 were measured on piano


class Wanted(NamedTuple):
    """What the user wants to have; most of it is an option."""

    model: bool  # reconst.npy
    phase: bool  # phase_calc.npy
    kept: bool  # the phases that a first pass starts from, for the second
    notes: bool  # and the picture of the spectrogram
    stems: str | None  # of which pitches
    top_db: float
    format: str  # of the stems
    native_sr: bool
    listen: bool
    listen_range: tuple | None  # s
    again: str | None  # the command that does the same once more, for the page to show

    @property
    def sound(self):
        """Whether notes are to be turned into sound: for stems, or for the page."""
        return bool(self.stems or self.listen)

    def names(self, piano, adapted):
        """Names of the files and folders that :meth:`Output.write` and :meth:`Output.stems` leave."""
        found = ["basis_calc.npy", "activation_calc.npy", "cost.npy", "activation.png", results.RECORD]
        found += ["reconst.npy"] * self.model + ["phase_calc.npy"] * self.phase
        found += basis.names("basis_calc.npy")[1:] if adapted else []
        if self.notes:
            found += ["spectrogram.png", *(notes.FILES if piano.columns else [])]
        return found + [listen.FILE] * self.listen + [results.STEMS] * bool(self.stems)


@dataclass(frozen=True)
class Output:
    """Where the results of a recording go, and which are wanted."""

    folder: Path  # of :func:`results.reserved_folder`
    recording: Recording
    wanted: Wanted

    def check(self, n_columns, keys=()):
        """Raise :class:`InputError` where a recording is too short or long for its sounds, or too long for the disk.

        ``n_columns`` are those of the basis; ``keys``, the notes that may have stems, are empty where a list will tell.
        """
        recording, wanted = self.recording, self.wanted
        Y, n, sr = recording.Y, (recording.Y.shape[1] - 1) * recording.hop, recording.sr
        if recording.y is not None and wanted.native_sr:
            n, sr = round(len(recording.y) * recording.own_sr / sr), recording.own_sr
        if wanted.sound:
            utils.check_complex(Y, recording.path)
            if recording.y is None and not n:
                raise InputError(f"{recording.path}: got a single frame, expected more of them to make a sound")
        if wanted.listen:
            listen.check_span(wanted.listen_range, n, sr)
        n_bytes = math.prod(Y.shape) * Y.dtype.itemsize
        parts = {
            "activations": n_columns * Y.shape[1] * Y.dtype.itemsize,
            "reconst.npy": wanted.model * n_bytes,
            "phase_calc.npy, which --no-phase leaves out": wanted.phase * n_columns * n_bytes,
            "the phases, which are kept while -thr or --tol look at all": wanted.kept * len(keys) * n_bytes,
        }
        if recording.y is not None:
            parts["notes.wav and the copy that notes are found in"] = 6 * len(recording.y)
        if wanted.sound:
            parts["stems"] = int(n * SAMPLE_BYTES[wanted.format] * len(keys))
            parts["the residual and working copies"] = 16 * n
            parts["listen.html"] = 8 * wanted.listen * n  # of a sample of the recording 5 to 7 bytes were measured
        results.check_space(self.folder.parents[1], parts)

    def stems(self, piano, keys, listed):
        """Context of a :class:`separate.StemWriter`, or of None where no sound is wanted.

        Where only the page wants stems, they are no results, but working files, which lose nothing.
        """
        if not self.wanted.sound:
            return contextlib.nullcontext()
        folder = self.folder if self.wanted.stems else self.recording.folder
        sounding = with_sound(self.recording, native=self.wanted.native_sr)
        return separate.StemWriter(folder / results.STEMS, piano, keys, sounding, self.wanted.format, listed or ())

    def write(self, piano, U, model, listed, alignment, stems, adapted):
        """Write the basis, the list of notes, the pictures and the page; end the stems with their residual.

        Parameters
        ----------
        piano : Basis
        U : np.ndarray [shape=(L, M)]
        model : callable
            Of a slice of frames, see :func:`figures.plot_spectrogram`.
        listed : list of Note or None
        alignment : scores.Alignment or None
        stems : separate.StemWriter or None
        adapted : bool
            Whether the basis is another than the one that was read.
        """
        folder, recording, wanted = self.folder, self.recording, self.wanted
        if stems:
            kept = separate.wanted_notes(U, piano, listed, wanted.stems, wanted.top_db)
            listed = stems.finish(kept, listed, told=bool(wanted.stems))
        basis.save(folder / "basis_calc.npy", piano if adapted else basis.Basis(piano.H))
        figures.plot_activation(folder / "activation.png", U, piano, listed or (), alignment)
        if wanted.notes:
            if listed is not None:
                notes.write_notes(folder, listed, recording)
            figures.plot_spectrogram(folder / "spectrogram.png", recording.Y, model, piano)
        if wanted.listen:
            listen.write_page_of(folder, U, piano, listed, stems, span=wanted.listen_range, command=wanted.again)
