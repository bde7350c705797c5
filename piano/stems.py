"""From the spectra of notes to their sound: masks, the components of a complex NMF, and the stems on disk.

Everything here goes through a recording by blocks, so that memory does not grow with its length.
"""

from contextlib import ExitStack
from pathlib import Path

import numpy as np

import utils
from piano import pitch
from piano.basis import columns_of_notes
from piano.recording import FRAMES, SAMPLES, overlap_add


def note_columns(H, info):
    """Columns of the basis that make up each stem: a dict from file name, which sorts by pitch, to columns."""
    if info is None:
        return {f"component_{l:03d}.wav": [l] for l in range(H.shape[1])}
    names = {midi: pitch.note_name(midi).replace("#", "s") for midi in columns_of_notes(info)}
    return {f"{midi:03d}_{names[midi]}.wav": columns for midi, columns in columns_of_notes(info).items()}


def sounding_notes(U, columns, top_db):
    """Keys of ``columns`` whose activation peaks at most ``top_db`` dB below the loudest one's; none in silence."""
    peaks = {name: float(U[l].sum(axis=0).max()) for name, l in columns.items()}
    threshold = max(peaks.values()) * 10 ** (-top_db / 20)
    return [name for name, peak in peaks.items() if peak > 0 and peak >= threshold]


def masked_notes(Y, H, U, columns, wanted, *, mask="wiener"):
    """Yield each note's share of the mixture, block by block.

    ``ratio``: ``X_n = (sum_{l in n} H_kl U_lm / S_km) Y_km``; ``wiener``: the shares of squared magnitudes,
    ``X_n = A_n^2 / (sum_n A_n^2) Y_km`` with ``A_n = sum_{l in n} H_kl U_lm``. All notes together are Y.

    Parameters
    ----------
    Y : np.ndarray [shape=(K, M), complex]
        Mixture; may be a memory map.
    H, U : np.ndarray [shape=(K, L)], [shape=(L, M)]
        Basis and activations.
    columns : dict
        Columns of each note, see :func:`basis.columns_of_notes`.
    wanted : collection
        Notes to yield, of the keys of ``columns``.
    mask : {"wiener", "ratio"}

    Yields
    ------
    iterator of np.ndarray [shape=(K, frames), complex]
        The wanted notes of one block of frames, in the order of ``columns``.
    """
    power = {"ratio": 1, "wiener": 2}[mask]

    U = U / (U.max() or 1)  # so that squares of very quiet or loud models stay finite

    def split(Y, U):
        A = {note: (H[:, l] @ U[l]) ** power for note, l in columns.items()}
        total = np.maximum(sum(A.values()), np.finfo(U.dtype).tiny)
        return (A[note] / total * Y for note in columns if note in wanted)

    for frames, Y_block in utils.frame_blocks(Y, FRAMES):
        yield split(Y_block, U[:, frames])


def component_notes(Y, H, blocks, columns):
    """Yield the notes of a complex NMF, ``sum_{l in n} X_l`` with ``X = H U P + beta (Y - F)``, block by block.

    Parameters
    ----------
    Y, H : np.ndarray [shape=(K, M), complex], [shape=(K, L)]
        Mixture and basis.
    blocks : iterable
        What :func:`utils.complex_nmf_blocks` yields.
    columns : dict
        Columns of each note, see :func:`basis.columns_of_notes`.

    Yields
    ------
    iterator of np.ndarray [shape=(K, frames), complex]
        The notes of one block of frames, in the order of ``columns``; all notes together are Y.
    """

    def split(Y, U, P, F):
        S, residual = np.maximum(H @ U, np.finfo(U.dtype).tiny), Y - F
        for note in columns.values():
            A = [np.outer(H[:, l], U[l]) for l in note]
            yield sum(a * P[l] + a / S * residual for l, a in zip(note, A, strict=True))  # a / S is never above one

    for frames, U, P, F, *_ in blocks:
        yield split(utils.read_frames(Y, frames), U, P, F)


def erase_time(path):
    """Zero the time of writing, which libsndfile puts into the PEAK chunk of a WAV file of floating-point samples."""
    with open(path, "r+b") as file:
        chunk = file.read(256).find(b"PEAK")  # name, size, version, time, of four bytes each
        if chunk >= 0:
            file.seek(chunk + 12)
            file.write(bytes(4))


def write_stems(folder, y, files, blocks, n_frames, sounding, *, n_fft, hop, sr, y_sr, subtype):
    """Write the sound of each note, and what is left of the recording: together they are the recording.

    Notes come as spectrograms, block by block, and go straight to disk. Those that turn out not to sound are
    removed again, and so become part of ``residual.wav``, which is the recording less the stems as written.

    Parameters
    ----------
    folder : Path
        Made for the stems.
    y : np.ndarray [shape=(n,), float]
        Recording, mono; may be a memory map.
    files : list of str
        File name of each note.
    blocks : iterable
        Spectrograms of the notes, see :func:`masked_notes` and :func:`component_notes`.
    n_frames : int
        Of the spectrograms.
    sounding : callable
        Called when all blocks have been written; returns the files to keep.
    n_fft, hop, sr : int
        Of the transform, in samples, samples and Hz.
    y_sr : int
        Sampling rate of y in Hz, and of the files.
    subtype : str
        Sample format of the WAV files, as soundfile names it.

    Returns
    -------
    null : float or None
        Energy of ``y - residual - sum of stems``, read back from the files, in dB relative to that of y; None where y
        is silent or empty.
    clipped : dict
        Number of samples beyond full scale for each file where ``subtype`` had to clip some.
    """
    import soundfile
    import soxr

    folder.mkdir()
    n_samples = -(-len(y) * sr // y_sr)  # of the recording at the transform's rate
    clipped = {}

    def write(file, samples):
        if subtype not in ("FLOAT", "DOUBLE") and (n := int((np.abs(samples) > 1).sum())):
            name = Path(file.name).name
            clipped[name] = clipped.get(name, 0) + n
        file.write(samples[: len(y) - file.tell()])

    def create(name):
        return soundfile.SoundFile(folder / name, "w", y_sr, 1, subtype, format="WAV")

    with ExitStack() as stack:
        stems = [stack.enter_context(create(name)) for name in files]
        resamplers = [soxr.ResampleStream(sr, y_sr, 1, dtype="float32") for _ in files]
        for pieces in overlap_add(blocks, n_frames, n_samples, n_fft=n_fft, hop=hop) if files else ():
            for stem, resampler, piece in zip(stems, resamplers, pieces, strict=True):
                piece = piece.astype(np.float32)
                write(stem, piece if sr == y_sr else resampler.resample_chunk(piece))
        if sr != y_sr:
            for stem, resampler in zip(stems, resamplers, strict=True):
                write(stem, resampler.resample_chunk(np.zeros(0, np.float32), last=True))
    kept = [folder / name for name in sounding()]
    for name in files:
        if folder / name not in kept:
            (folder / name).unlink()
            clipped.pop(name, None)

    def totals(paths):
        """Blocks of the recording, and of the sum of the sounds in ``paths``."""
        with ExitStack() as stack:
            sounds = [stack.enter_context(soundfile.SoundFile(path)) for path in paths]
            for start in range(0, len(y), SAMPLES):
                block = utils.read_frames(y, slice(start, start + SAMPLES)).astype(np.float64)
                yield block, sum((sound.read(len(block), fill_value=0) for sound in sounds), np.zeros(len(block)))

    with create("residual.wav") as residual:
        for block, total in totals(kept):
            write(residual, (block - total).astype(np.float32))
    error = energy = 0.0
    for block, total in totals([*kept, folder / "residual.wav"]):
        error, energy = error + np.sum((block - total) ** 2), energy + np.sum(block**2)
    for path in (*kept, folder / "residual.wav"):
        erase_time(path)
    floor = np.finfo(np.float64).tiny
    return 10 * np.log10((error + floor) / (energy + floor)) if energy else None, clipped
