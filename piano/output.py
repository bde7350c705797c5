"""What NMF.py and CNMF.py write of a recording: the model, stems, notes, pictures, the page and the record."""

import contextlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

import utils
from piano import basis, figures, listen, notes, results, separate
from piano.recording import Recording, with_sound
from utils import InputError

SAMPLE_BYTES = {"flac": 0.5, "wav": 4}  # of a stem, by its format; of FLAC, .3 were measured on piano


class Wanted(NamedTuple):
    """What the user wants to have; most of it is an option."""

    curve: str  # name of the picture of the learning curve
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
        """Names of the files and folders that are written."""
        found = ["basis_calc.npy", "activation_calc.npy", "cost.npy", self.curve, "activation.png", results.RECORD]
        found += ["reconst.npy"] * self.model + ["phase_calc.npy"] * self.phase
        found += basis.names("basis_calc.npy")[1:] if adapted else []
        if self.notes:
            found += ["spectrogram.png", *(notes.FILES if piano.columns else [])]
        return found + [listen.FILE] * self.listen + [results.STEMS] * bool(self.stems)


class Fit(NamedTuple):
    """A recording taken apart."""

    U: np.ndarray  # (L, M)
    cost: np.ndarray  # after each iteration
    error: np.ndarray  # normalised, after each iteration
    curve: np.ndarray  # normalised cost
    model: Callable  # of a slice of frames, see :func:`figures.plot_spectrogram`


@dataclass(frozen=True)
class Output:
    """Where the results of a recording go, and which are wanted."""

    folder: Path  # of :func:`results.reserved_folder`
    recording: Recording
    wanted: Wanted
    run: dict  # what :func:`results.write_record` tells of the run

    def check(self, piano, keys=()):
        """Raise :class:`InputError` where what is wanted cannot be had of this recording, or the disk has no room.

        ``keys`` are the notes that may have stems, none where the list is still to tell.
        """
        recording, wanted = self.recording, self.wanted
        Y, n, sr = recording.Y, (recording.Y.shape[1] - 1) * recording.hop, recording.sr
        if recording.y is not None and wanted.native_sr:
            n, sr = round(len(recording.y) * recording.own_sr / sr), recording.own_sr
        if wanted.sound or wanted.model:
            utils.check_complex(Y, recording.path)
        if wanted.sound and recording.y is None and not n:
            raise InputError(f"{recording.path}: got a single frame, expected more of them to make a sound")
        if wanted.listen:
            listen.check_span(wanted.listen_range, n, sr)
        n_bytes, n_columns = math.prod(Y.shape) * Y.dtype.itemsize, piano.H.shape[1]
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

    def write(self, piano, fit, listed, alignment, stems, ending):
        """Write all but what came block by block: basis, activations, notes, pictures, page, and at last the record.

        ``piano`` is a :class:`basis.Basis`, ``fit`` a :class:`Fit`, ``listed`` a list of :class:`notes.Note` or None,
        ``alignment`` a :class:`scores.Alignment` or None, ``stems`` a :class:`separate.StemWriter`, which gets its
        residual, or None, and ``ending`` a dict of how the run ended.
        """
        folder, recording, wanted, U = self.folder, self.recording, self.wanted, fit.U
        if stems:
            kept = separate.wanted_notes(U, piano, listed, wanted.stems, wanted.top_db)
            listed = stems.finish(kept, listed, told=bool(wanted.stems))
        basis.save(folder / "basis_calc.npy", piano if "adapted_with" in ending else basis.Basis(piano.H))
        utils.save(folder / "activation_calc.npy", U)
        utils.save(folder / "cost.npy", fit.cost)
        utils.plot_learning_curve(folder / wanted.curve, fit.curve, ending["stopped_by"])
        figures.plot_activation(folder / "activation.png", U, piano, listed or (), alignment)
        if wanted.notes:
            if listed is not None:
                notes.write_notes(folder, listed, recording)
            figures.plot_spectrogram(folder / "spectrogram.png", recording.Y, fit.model, piano)
        if wanted.listen:
            listen.write_page_of(folder, U, piano, listed, stems, span=wanted.listen_range, command=wanted.again)
        results.write_record(folder, **self.run, stft=piano.stft, **ending)
