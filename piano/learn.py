"""Learning: from recordings of single notes, or of music, to the basis of a piano; and the suite's own basis."""

import atexit
import hashlib
import json
import logging
import os
import shutil
import tempfile
from pathlib import Path
from typing import NamedTuple

import numpy as np

import utils
from piano import adapt, basis, blocks, events, kernels, notes, phase, pitch, recording, results
from utils import InputError

log = logging.getLogger(__name__)

TEMPLATES = results.ROOT / "basis_wav_piano"  # the suite's own
KEYS, OPTIONS = (pitch.PIANO[0], pitch.PIANO[-1]), {"n_fft": 8192, "states": 2}  # all 88, and what separates best
# What the recommended command compiles, in the order in which it is needed.
DESCENT = {kernels.descend_bins: kernels.types(kernels.descend_bins, np.float32)}
KERNELS = events.KERNELS | DESCENT | phase.KERNELS
CACHE = "piano-note-by-note"  # name of the suite's folder among the user's caches


class Template(NamedTuple):
    """The recording of one note, and the key that it stands for."""

    path: Path
    midi: int
    f0: float  # Hz
    transposed: int = 0  # semitones up from its own key, where that is another one


def learn_basis(templates, *, sr=22050, n_fft=2048, hop=None, states=1, n_iter=50, **peaks):
    """Learn the basis of a piano from the recordings of its notes.

    ``templates`` are those of :func:`find_templates`, in order of pitch, and get as many columns each as there are
    ``states``. ``sr`` is in Hz, ``n_fft`` and ``hop`` in samples, ``n_iter`` are the NMF iterations for each template,
    and ``n_peaks``, ``damping`` and ``variance`` those of its start, see :func:`utils.harmonic_gmm`.

    Returns the :class:`basis.Basis` and a list of the normalised error of each template. Raises :class:`InputError` if
    a template is too high for ``sr``.
    """
    hop = hop or basis.default_hop(n_fft)
    learnt = []
    for template in templates:
        try:
            start = utils.harmonic_gmm(template.f0, sr=sr, n_fft=n_fft, **peaks)
        except InputError as error:
            raise InputError(f"{template.path}: {error}") from None
        learnt.append(learn_note(template, np.repeat(start[:, None], states, axis=1), n_iter, sr, hop))
    columns, spectra, rotations, patterns, error = zip(*learnt, strict=True)
    columns = [column for column in columns for _ in range(states)]
    H, rotation = np.column_stack(spectra).astype(np.float32), np.column_stack(rotations).repeat(states, axis=1)
    return basis.Basis(H, sr, n_fft, hop, columns, rotation, np.stack(patterns)), list(error)


def find_templates(files, sr=22050, c3=utils.C3_HZ, keys=None):
    """A template for each file, and with ``keys`` for each key that has none, in order of pitch.

    Each of the files, paths, has one note; its name or its sound tells which, see :func:`pitch.notes_of_folder`. They
    are listened to at ``sr`` Hz; C3 has ``c3`` Hz. ``keys`` are the MIDI numbers of the lowest and the highest key;
    others have no template. Raises :class:`InputError` if a file is no recording of one note.
    """
    notes = pitch.notes_of_folder(files, lambda path: recording.load(path, sr), sr, c3)
    for path in files:
        check_one_note(path, sr, c3)
    own = sorted((Template(path, *note) for path, note in zip(files, notes, strict=True)), key=lambda note: note.midi)
    low, high = keys or (own[0].midi, own[-1].midi)
    templates = [template for template in own if low <= template.midi <= high]
    for midi in sorted(set(range(low, high + 1)) - {template.midi for template in own}) if keys else ():
        near = min(own, key=lambda template: abs(template.midi - midi))
        shift = midi - near.midi
        templates.append(Template(near.path, midi, near.f0 * 2 ** (shift / 12), shift))
    return sorted(templates, key=lambda template: template.f0)


def check_one_note(path, sr, c3=utils.C3_HZ):
    """Raise :class:`InputError` where a recording is silent, or with what is heard, where other notes begin in it.

    A note is loudest at its beginning, in all its partials. What comes later and is louder is another's, but for beats.
    """
    from scipy.ndimage import maximum_filter1d, uniform_filter1d

    y = recording.load(path, sr)
    if not y.any():
        raise InputError(f"{path}: got silence, expected one note")
    hop = max(1, round(0.046 * sr))  # s; windows are four times as long, and the mean of five is taken
    energy = uniform_filter1d(np.abs(recording.stft(y, n_fft=4 * hop, hop=hop), dtype=np.float64) ** 2, 5, axis=1)
    energy = np.maximum(energy, 0)  # the mean is a running sum
    total = energy.sum(axis=0)
    first = max(0, int(np.argmax(total > 0.1 * total.max())) - 2)
    later = first + round(0.5 * sr / hop)  # s; from then on, a note only dies away
    most = maximum_filter1d(energy[:, first:later].max(axis=1), 5)  # bins beside a partial may take turns
    new = np.maximum(np.sqrt(energy[:, later:]) - np.sqrt(most)[:, None], 0).sum(axis=0)
    if new.sum() > 0.08 * np.sqrt(energy).sum():  # of 328 notes of four pianos at most .044, of 16 pieces .143
        start = (later + int(np.argmax(new))) * hop
        heard = [pitch.measure_f0(part, sr) for part in (y[:start], y[start:])]
        names = [f0 and pitch.note_name(pitch.nearest_key(pitch.semitones(f0, c3))) for f0 in heard]
        got = f"{names[0] or 'one'}, and at {start / sr:.1f} s {names[1] or 'another'}"
        raise InputError(f"{path}: got more than one note ({got}), expected a recording of one")


def learn_note(template, start, n_iter, sr, hop):
    """Learn one note from its template and initial spectra [shape=(K, states)].

    Returns its column (a dict, see :class:`basis.Basis`), its spectra [shape=(K, states)], rotation [shape=(K,)] and
    pattern [shape=(T, bands)], and the normalised error of the fit.
    """
    path, midi, f0, shift = template
    y = recording.transpose(recording.load(path, sr), sr, shift)
    Y = recording.stft(y, n_fft=2 * (len(start) - 1), hop=hop)
    spectra = utils.learn_spectra(np.abs(Y), start, n_iter)
    utils.check_basis(spectra, path)
    error = utils.nmf(Y, spectra, n_iter)[1][-1] / utils.cost_scale(Y)
    column = {"file": path.name, "note": pitch.note_name(midi), "f0": round(f0, 3)}
    if shift:
        column["transposed"] = shift
    sound = recording.transpose(recording.load(path, events.SR), events.SR, shift)
    pattern = events.learn_pattern(sound).astype(np.float16)
    return column, spectra, phase.measure_rotation(Y), pattern, error


def learn_together(paths, templates, strength="auto", *, smooth, seed=0, stage, map=None):
    """The basis of a piano that several recordings have in common, learnt from all as if they were one.

    For ``paths``, of sounds, see :func:`recording.joined`. The basis has spectra, rotations and patterns as far as the
    templates, a :class:`basis.Basis` that it starts from, have them; they come back if no recording can be read.
    ``strength`` and ``seed`` are as for :func:`adapt.adapt_basis`, for ``map`` see :func:`blocks.each`, and ``stage``
    gives the ``progress`` of each of the stages "listing", "adapting" and "phases", of which the last is there if the
    notes are to be smoothed, ``smooth``.
    """
    with tempfile.TemporaryDirectory(prefix=CACHE, ignore_cleanup_errors=True) as folder:
        path = recording.joined(paths, templates.sr, folder)
        if path is None:
            return templates
        sound = recording.open_recording(path, templates, folder)
        listed, piano = None, templates
        if templates.patterns is not None:
            y = recording.sound_at(sound, events.SR)
            listed, piano = notes.listed(y, templates, progress=stage("listing"), map=map)
        options = {"seed": seed, "progress": stage("adapting")}
        piano, strength, prior = adapt.adapt_basis(sound.Y, piano, strength, listed, **options)
        if smooth:
            piano, _ = phase.start(sound.Y, piano, seed, strength, prior, progress=stage("phases"), map=map)
    return piano


# --- The suite's own basis --------------------------------------------------------------------------


def suite_basis():
    """Path of the basis of the suite's own templates, learnt once and kept among the user's caches.

    The name of its folder tells templates, options and code apart, so it is learnt anew where one of them is another.
    Two runs that learn it at once write the same bytes. Where nothing can be kept, it lies in a temporary folder that
    goes when the run ends. Raises :class:`InputError` if there are no templates.
    """
    import platformdirs

    files = recording.audio_files(TEMPLATES) if TEMPLATES.is_dir() else []
    if not files:
        raise InputError(f"{TEMPLATES}: got no templates, expected those that the suite comes with (or name a BASIS)")
    folder = platformdirs.user_cache_path(CACHE, appauthor=False) / _fingerprint(files)
    if _is_whole(folder):
        return folder / "fixed_basis.npy"
    log.info(f"learning the {len(files)} notes of {TEMPLATES.name}; only the first run does that ...")
    blocks.compile_elsewhere(__name__)  # or the run would wait for that as well
    learnt, _ = learn_basis(find_templates(files, keys=KEYS), **OPTIONS)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _save(folder, learnt)
    except OSError as error:
        log.warning(f"{folder}: cannot be written to ({error.strerror}), so the next run learns the notes again")
        folder = Path(tempfile.mkdtemp(prefix=CACHE))
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        _save(folder, learnt)
    return folder / "fixed_basis.npy"


def _fingerprint(files):
    """A name for what is learnt from ``files`` by this very code."""
    digest = hashlib.sha256(json.dumps([results.VERSION, KEYS, OPTIONS]).encode())
    for name, content in (results.suite() | {path.name: path.read_bytes() for path in files}).items():
        digest.update(name.encode() + content)
    return digest.hexdigest()[:16]


def _is_whole(folder):
    try:
        learnt = basis.load(folder / "fixed_basis.npy", with_rotation=True)
    except InputError:
        return False
    return learnt.rotation is not None and learnt.patterns is not None


def _save(folder, learnt):
    """Save a basis so that none of its files is ever seen half written."""
    with tempfile.TemporaryDirectory(prefix=".part-", dir=folder) as part:
        basis.save(Path(part) / "fixed_basis.npy", learnt)
        for path in Path(part).iterdir():
            os.replace(path, folder / path.name)
