"""A page to listen to: the recording, each note from its own stem, the rest and the transcription, in one file.

The page works offline: its sounds are coded inside it. Stems are silent most of the time, so only clips of them are
coded. The residual is not coded: the page subtracts the decoded clips from the decoded recording. So clips and residual
add up to the recording to rounding, whatever the coding has lost.
"""

import base64
import hashlib
import io
import json
import logging
import re
from pathlib import Path
from typing import NamedTuple

import numpy as np

from piano import blocks, figures, notes, pitch
from piano.notes import TONE
from piano.separate import PEAK_SAMPLES  # clips begin and end on whole ones, and fade within one
from utils import InputError

log = logging.getLogger(__name__)

FILE = "listen.html"
FLAC_LIMIT = 40e6  # bytes of a page; above it, sounds are MP3
PAGE_LIMIT = 120e6  # bytes of any page; browsers take a while to read so much
DECODED_LIMIT = 1e9  # bytes of decoded sound that a browser must hold
MP3_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)  # Hz, all that the format has
FLOOR_DB = -60.0  # below the peak of the recording; a stem that is softer is not heard beside it
SCRIPTS = "state", "list", "sound", "stretch", "drawing", "editing", "controls"  # joined in this order


class Sound(NamedTuple):
    """A recording, as the page plays it."""

    title: str
    y: np.ndarray  # [shape=(n,), float], mono; may be mapped from a file
    sr: int  # Hz
    inside: str = ""  # what of the recording this is: rate and channels, in words


class Stem(NamedTuple):
    """The sound of one pitch in a file, mono, of the recording's rate and length."""

    path: Path
    peaks: np.ndarray  # (blocks,) largest magnitude of each ``PEAK_SAMPLES``


class Roll(NamedTuple):
    """Activations, as the page draws them."""

    U: np.ndarray  # [shape=(rows, M), float, >= 0], linear amplitude
    midi: list  # MIDI number of each row
    frame: float  # from one frame to the next, s; frame m is centred on m * frame


class Page(NamedTuple):
    """What :func:`write_page` wrote."""

    code: str  # FLAC or MP3
    n_bytes: int
    n_notes: int
    longest: float  # s; how much of a recording like this one page holds


def write_page_of(folder, U, basis, listed, writer, *, span=None, command=None):
    """Write ``listen.html`` of a decomposition; say so where it is too much for a page, and leave it out.

    ``writer`` is the :class:`separate.StemWriter` whose stems are written; for the rest see :func:`write_page`.
    """
    recording = writer.recording
    try:
        page = write_page(
            folder / FILE,
            Sound(Path(recording.path).name, recording.y, recording.y_sr, _inside(recording)),
            listed,
            {note: Stem(writer.folder / name, writer.peaks[note]) for note, name in writer.names.items()},
            Roll(notes.sum_states(U, basis), list(basis.notes), basis.hop / basis.sr),
            span=span,
            command=command,
        )
    except InputError as error:  # only when all is coded is it known how much it is; the rest took long to make
        log.warning(f"left out {error}")
        return
    log.info(
        f"listen.html: {page.n_notes} notes, {page.code} inside, {page.n_bytes / 1e6:.1f} MB; "
        f"such a page can hold {figures.minutes(int(page.longest))} min of this recording"
    )


def _inside(recording):
    """What the page's sound is, and what the recording is where that is something else."""
    inside = f"mono, {recording.y_sr / 1000:g} kHz"
    if recording.own_sr is None:
        return f"The sound of this page is the spectrogram's: {inside}."
    if (recording.channels, recording.own_sr) == (1, recording.y_sr):
        return f"The sound of this page is the recording's: {inside}."
    channels = "1 channel" if recording.channels == 1 else f"{recording.channels} channels, which are mixed"
    return f"The sound of this page is {inside}; the recording has {recording.own_sr / 1000:g} kHz and {channels}."


def write_page(path, sound, notes, stems, roll, *, span=None, command=None):
    """Write the page to listen to; the same input gives the same bytes.

    ``stems`` has the sound of each listed pitch, by its MIDI number, an array [shape=(n,), float] or a :class:`Stem`;
    notes without one are shown as doubtful. The :class:`Roll` is drawn behind the notes, whose times are from the
    beginning of the :class:`Sound`. ``span`` is the part of it to show, in s, all of it by default. ``command`` makes
    the page again, and is shown with ``--score`` and the name of the corrected list added.

    Raises :class:`InputError` if ``span`` lies outside the recording, or is longer than a page can be, and says how
    long it can be; ValueError if a stem has another rate or length.
    """
    title, y, sr, inside = sound
    first, last = check_span(span, len(y), sr)
    start, stop = first / sr, last / sr
    listed = [note for note in notes if note.offset > start and note.onset < stop]
    pitches = sorted({note.midi for note in listed} & set(stems))
    for midi in pitches:
        _check_stem(midi, stems[midi], len(y), sr)

    rows = [_note(note) for note in notes]
    key, base = _digest(np.ascontiguousarray(y, np.float32)), _digest(json.dumps(rows).encode())
    y = np.asarray(y[first:last], np.float32)
    floor = float(np.abs(y).max(initial=0)) * 10 ** (FLOOR_DB / 20)
    clips = {}
    for midi in pitches:
        struck = [(note.onset - start, note.offset - start) for note in listed if note.midi == midi]
        peaks = _peaks(stems[midi])[first // PEAK_SAMPLES : -(-last // PEAK_SAMPLES)]
        clips[midi] = find_clips(peaks, floor, struck, len(y), sr)
    decoded = 4 * (2 * len(y) + sum(stop - start for clip in clips.values() for start, stop in clip))
    _check_length(decoded, DECODED_LIMIT, len(y) / sr)

    code = "FLAC"
    sounds = _coded(y, sr, stems, clips, first, code)
    n_coded = _size(sounds)
    if n_coded > FLAC_LIMIT and sr in MP3_RATES:
        code = "MP3"
        sounds = _coded(y, sr, stems, clips, first, code)
    _check_length(_size(sounds), PAGE_LIMIT, len(y) / sr)

    html = _html(
        {
            "title": title,
            "code": code,
            "inside": inside,
            "rate": sr,
            "length": len(y),
            "offset": start,
            "recording": sounds[0],
            "pitches": sounds[1:],
            "list": rows,
            "key": key,
            "base": base,
            "command": command,
            "roll": _picture(roll, pitches, start, stop),
            "tone": TONE,
        }
    )
    Path(path).write_bytes(html)
    least = n_coded * (0.45 if sr in MP3_RATES else 1)  # bytes; of the size of FLAC, MP3 measured on piano
    longest = len(y) / sr * min(PAGE_LIMIT / least, DECODED_LIMIT / decoded)
    return Page(code, len(html), len(listed), longest)


# --- Clips ------------------------------------------------------------------------------------------


def find_clips(peaks, floor, struck, n_samples, sr):
    """Where a stem sounds, from one silent place to the next: a list of (first sample, one after the last).

    ``peaks`` are the largest magnitudes of its blocks of ``PEAK_SAMPLES``, and those of silence stay below ``floor``.
    Notes ``struck``, pairs of onset and offset in s, are never cut out. A silent block for a fade at either end is
    included. The stem has ``n_samples`` at ``sr`` Hz.
    """
    loud = peaks > floor
    for onset, offset in struck:
        loud[max(int(onset * sr / PEAK_SAMPLES), 0) : int(offset * sr / PEAK_SAMPLES) + 1] = True
    bounds = np.flatnonzero(np.diff(loud, prepend=False, append=False)).reshape(-1, 2)
    clips = []
    for first, last in (bounds + np.array([-1, 1])).tolist():
        if clips and first - clips[-1][1] < 0.3 * sr / PEAK_SAMPLES:  # s; clips that are nearer are one
            clips[-1][1] = last
        else:
            clips.append([first, last])
    return [(max(first * PEAK_SAMPLES, 0), min(last * PEAK_SAMPLES, n_samples)) for first, last in clips]


def cut(stem, clips):
    """Clips of a stem [float32], one after another; each fades in and out, except at the ends of the stem."""
    fade = np.sin(np.linspace(0, np.pi / 2, PEAK_SAMPLES, dtype=np.float32)) ** 2
    pieces = [np.zeros(0, np.float32)]
    for start, stop in clips:
        piece = stem[start:stop].copy()
        if start > 0:
            piece[:PEAK_SAMPLES] *= fade[: len(piece)]
        if stop < len(stem):
            piece[-PEAK_SAMPLES:] *= fade[::-1][-len(piece) :]
        pieces.append(piece)
    return np.concatenate(pieces)


def _peaks(stem):
    """Largest magnitude of each ``PEAK_SAMPLES`` of a stem, [shape=(blocks,)]; the last may be of fewer."""
    if isinstance(stem, Stem):
        return stem.peaks
    return figures.loudest_of(np.abs(stem), PEAK_SAMPLES) if len(stem) else np.abs(stem)


def _samples(stem, first, n):
    """``n`` samples of a stem from ``first`` on, [shape=(n,), float32]."""
    if not isinstance(stem, Stem):
        return stem[first : first + n].astype(np.float32)
    import soundfile

    return soundfile.read(stem.path, n, first, dtype="float32")[0]


# --- Sounds -----------------------------------------------------------------------------------------


def _coded(y, sr, stems, clips, first, code):
    """The recording and the clips of each pitch, as the page reads them: a list of dicts."""

    def of_pitch(midi):
        sound = _sound(cut(_samples(stems[midi], first, len(y)), clips[midi]), sr, code)
        spans = [[start, stop - start] for start, stop in clips[midi]]
        return {"midi": midi, "name": pitch.note_name(midi), "clips": spans, **sound}

    return [_sound(y, sr, code), *blocks.in_threads(of_pitch, clips)]


def _sound(x, sr, code):
    """A coded sound, and the gain that undoes its scaling to full range: soft stems keep all of their 16 bits."""
    import soundfile

    peak = float(np.abs(x).max(initial=0)) or 1.0
    if code == "FLAC":
        # a decoder divides integers by 2^15, while libsndfile multiplies floats by 2^15 - 1: so round here
        scaled, gain = np.rint(x * (32767 / peak)).astype(np.int16), peak * 32768 / 32767
        kind = {"subtype": "PCM_16"}
    else:  # it comes out a little louder or softer; of two frames of silence at the end Firefox drops some
        scaled, gain = np.pad(x * np.float32(0.9 / peak), (0, 2304)), peak / 0.9
        kind = {"subtype": "MPEG_LAYER_III", "bitrate_mode": "VARIABLE", "compression_level": 0.1}  # 0 is best
    file = io.BytesIO()
    soundfile.write(file, scaled, sr, format=code, **kind)
    return {"gain": gain, "length": len(x), "data": _base64(file.getvalue())}


def _size(sounds):
    return sum(len(sound["data"]) for sound in sounds)


def _base64(data):
    return base64.b64encode(data).decode("ascii")


# --- Notes and picture ------------------------------------------------------------------------------


def _note(note):
    """A note as the page reads it; times are from the recording's beginning."""
    doubtful = note.confidence < notes.DOUBTFUL
    return [note.midi, round(float(note.f0), 3), *notes.rounded(note)[3:7], int(doubtful)]


def _picture(roll, pitches, start, stop):
    """The roll between two times, in s, as a greyscale PNG of dB, one row a semitone, low notes at the bottom."""
    frames = slice(max(int(start / roll.frame), 0), int(stop / roll.frame) + 2)
    U, step = figures.thin(np.asarray(roll.U)[:, frames], 2**14)  # browsers refuse pictures with more columns
    span = figures.ROLL_DB_RANGE
    levels = np.rint((figures.decibels(U, span) / span + 1) * 255).astype(np.uint8)
    shown = sorted({midi for midi, row in zip(roll.midi, levels, strict=True) if row.any()} | set(pitches))
    shown = shown or sorted(roll.midi)
    picture, rows = np.zeros((shown[-1] - shown[0] + 1, levels.shape[1]), np.uint8), shown[-1] - np.array(roll.midi)
    inside = (rows >= 0) & (rows < len(picture))
    np.maximum.at(picture, rows[inside], levels[inside])
    return {
        "png": "data:image/png;base64," + _base64(_png(picture)),
        "lowest": shown[0],
        "rows": len(picture),
        "start": (frames.start - 0.5) * roll.frame - start,  # left edge of the first column, s
        "column": step * roll.frame,  # s
        "range": span,  # dB
        "colours": ["#" + "".join(f"{round(255 * c):02x}" for c in colour[:3]) for colour in figures.colours().colors],
    }


def _png(pixels):
    """A PNG of grey pixels [shape=(height, width), uint8], without a software's name in it."""
    from matplotlib.image import imsave

    file = io.BytesIO()
    imsave(file, pixels, cmap="gray", vmin=0, vmax=255, format="png", metadata={"Software": None})
    return file.getvalue()


# --- HTML -------------------------------------------------------------------------------------------


def _html(page):
    """The page's bytes: its parts and the data joined, and a policy that admits nothing else."""
    script = "".join(_part(f"{name}.js") for name in SCRIPTS)
    style = _part("page.css")
    policy = (
        f"default-src 'none'; script-src 'sha256-{_digest(script.encode())}'; "
        f"style-src 'sha256-{_digest(style.encode())}'; img-src data:; base-uri 'none'; form-action 'none'"
    )
    data = json.dumps(page, separators=(",", ":")).replace("<", "\\u003c")  # no text can end the element that it is in
    parts = {"policy": policy, "style": style, "data": data, "script": script}
    return re.sub("{{(.*?)}}", lambda mark: parts[mark[1]], _part("page.html")).encode()


def _part(name):
    return Path(__file__).with_name("page").joinpath(name).read_text(encoding="utf-8")


def _digest(data):
    return _base64(hashlib.sha256(data).digest())


# --- Checks -----------------------------------------------------------------------------------------


def check_span(span, n_samples, sr):
    """First sample of the part to show, the first of ``PEAK_SAMPLES``, and the one after its last.

    Raises :class:`InputError` where the part lies outside the recording, is shorter than a sample, or too long.
    """
    seconds = n_samples / sr
    start, stop = span or (0, seconds)
    if span and not round(start * sr) < min(round(stop * sr), n_samples):
        part = f"a part of the recording's 0 to {seconds:.1f} s"
        raise InputError(f"--listen-range: got {start:g} to {stop:g} s, expected {part}")
    first, last = round(start * sr) // PEAK_SAMPLES * PEAK_SAMPLES, min(round(stop * sr), n_samples)
    _check_length(8 * (last - first), DECODED_LIMIT, (last - first) / sr)
    return first, last


def _check_stem(midi, stem, n_samples, sr):
    got = (len(stem), 1, sr)
    if isinstance(stem, Stem):
        import soundfile

        info = soundfile.info(stem.path)
        got = info.frames, info.channels, info.samplerate
    if got != (n_samples, 1, sr):
        raise ValueError(
            f"stem of {pitch.note_name(midi)}: got {got}, expected {n_samples} samples, 1 channel, {sr} Hz"
        )


def _check_length(got, limit, seconds):
    if got > limit:
        raise InputError(
            f"listen.html: got {seconds:.0f} s, expected at most {int(seconds * limit / got)} s of this recording "
            "(--listen-range A B takes a part)"
        )
