"""The description that lies beside a basis: what its columns are, and the transform that it was made for."""

import json
import math
import operator
from pathlib import Path

from piano.outputs import check_handed_over
from piano.pitch import NOTE, midi_of_name
from utils import InputError

HIGHEST_SR = 10**6  # Hz; a file that asks for more would fill the disk


def load_basis_info(basis, shape):
    """Read the description that make_init_H.py writes beside a basis (``.json`` in place of ``.npy``).

    Parameters
    ----------
    basis : str or Path
        Of the basis.
    shape : tuple
        (K, L) of the basis, which the description must fit.

    Returns
    -------
    dict or None
        ``sr`` in Hz, ``n_fft`` and ``hop`` in samples, ``window``, and ``columns``: for each column its
        ``file``, ``note`` and ``f0`` in Hz. None where there is no such file.

    Raises
    ------
    InputError
        If the file is there but is no description of this basis, or a killed run has left only one of the two.
    """
    check_handed_over(basis)
    path = Path(basis).with_suffix(".json")
    if not path.exists():
        return None
    try:
        info = json.loads(path.read_text(encoding="utf-8"))
        sr, n_fft, hop = (operator.index(info[key]) for key in ("sr", "n_fft", "hop"))
        names = [NOTE.fullmatch(column["note"]) for column in info["columns"]]
        audible = all(0 < float(column["f0"]) < math.inf for column in info["columns"])
        valid = min(sr, hop) > 0 and sr <= HIGHEST_SR and hop <= n_fft and None not in names and audible
    except (OSError, ValueError, TypeError, KeyError, OverflowError, RecursionError):
        valid = False
    if not valid:
        raise InputError(
            f"{path}: got no description of a basis, expected sr, n_fft, hop and columns with notes and f0"
        )
    described = (n_fft // 2 + 1, len(names))
    if described != tuple(shape):
        raise InputError(f"{path}: got a description of a basis of shape {described}, expected {tuple(shape)}")
    return info


def columns_of_notes(info):
    """Columns of the basis that belong to each note: a dict from MIDI number to a list, in order of pitch."""
    columns = {}
    for l, column in enumerate(info["columns"]):
        columns.setdefault(midi_of_name(column["note"]), []).append(l)
    return dict(sorted(columns.items()))


def transform(info, sr, n_bins):
    """Parameters of the STFT that a basis was made for.

    Parameters
    ----------
    info : dict or None
        Description of the basis, see :func:`load_basis_info`.
    sr : int or None
        Sampling rate in Hz that the user named.
    n_bins : int
        Number K of bins of the basis.

    Returns
    -------
    dict or None
        ``sr`` in Hz, ``n_fft`` and ``hop`` in samples: those of the description; with ``sr`` alone, the n_fft that
        K implies and a quarter of it, librosa's default; None with neither.

    Raises
    ------
    InputError
        If the description names another ``sr``, or it is out of reason.
    """
    if info is not None:
        if sr not in (None, info["sr"]):
            raise InputError(f"--sr: got {sr} Hz, expected the {info['sr']} Hz that the basis was made for")
        return {key: info[key] for key in ("sr", "n_fft", "hop")}
    if sr is not None and sr > HIGHEST_SR:
        raise InputError(f"--sr: got {sr} Hz, expected at most {HIGHEST_SR} Hz")
    n_fft = 2 * (n_bins - 1)
    return {"sr": sr, "n_fft": n_fft, "hop": max(n_fft // 4, 1)} if sr else None
