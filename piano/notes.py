"""The list of notes: by the event model, by activations, or from a score. A table, MIDI and sound, out and in."""

import csv
import io
import math
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np

import utils
from piano import blocks, events, pitch
from utils import InputError

FILES = "notes.csv", "notes.mid", "notes.wav"
# Of notes in activations.
THRESHOLD_DB = -20.0  # relative to the loudest activation; below it, more notes are false than soft
ATTACK_DB = 6.0  # a rise by this within one STFT window is a new note; partials that beat rise more slowly
SHORTEST_S = 0.1  # of a note; the knock of a hammer, seen through an STFT window, is no longer
PLACED = 0.99  # confidence at most of a note that this suite has placed: 1 is what a person says
DOUBTFUL = 0.75  # confidence below which a listed note is shown as doubtful: up to four in ten are then wrong
MIDI_BEAT_MS = 500  # length of a beat, 120 a minute, and its number of ticks: nothing is known of the metre
# Of a note that is made audible, here and on the page; times in s. Four partials, each half as loud as the one below,
# are enough to tell it from a beep. Middle C decays by e in 1.5 s, twice that two octaves down, roughly as on a piano.
TONE = {"partials": 4, "timbre": 0.5, "attack": 0.005, "release": 0.05, "decay": 1.5}
RENDERED = 2**16  # samples of it at a time


class Note(NamedTuple):
    """A note that was heard; the fields are the columns of ``notes.csv``."""

    note: str  # name
    midi: int
    f0: float  # Hz
    onset: float  # s
    offset: float  # s
    level_db: float  # of the peak, relative to the loudest note
    confidence: float = 1.0  # 0 to 1, which is a person's word; of activations always 1


def rounded(note):
    """A note as ``notes.csv`` has it: to the millisecond, a tenth of a dB and a hundredth of confidence."""
    onset, offset, level_db, confidence = map(float, note[3:7])
    places = {"onset": round(onset, 3), "offset": round(offset, 3), "level_db": round(level_db, 1)}
    return note._replace(confidence=round(confidence, 2), **places)


def in_order(notes):
    """Notes in order of onset, then of pitch."""
    return sorted(notes, key=lambda note: (note.onset, note.midi))


def sum_states(U, basis):
    """Sum the rows of U that belong to one note, in order of pitch."""
    return np.stack([U[states].sum(axis=0) for states in basis.notes.values()])


def listed(y, basis, score=None, *, learn=True, progress=None, map=None):
    """List the notes of a sound: what was played, when, and how loud, by the event model of :mod:`events`.

    ``y`` [shape=(n,), float32] is mono at ``events.SR`` Hz and may be a memory map; the basis has patterns. ``score``
    are notes that are known to be played, see :func:`believed`. Patterns are moved to the piano that is heard first,
    unless ``learn`` is False: of several recordings of it, they are already. ``progress`` and ``map`` are as for
    :func:`events.learn_piano`.

    Returns a list of :class:`Note` in order of onset, then of pitch, rounded as in ``notes.csv``, which is empty for
    silence and noise; and the basis with the patterns of this piano. Raises :class:`InputError` if the basis has no
    patterns, or little of the score is heard.
    """
    if basis.patterns is None:
        raise InputError("basis: got no patterns of struck notes, expected the ..._patterns.npy beside it")
    f0 = {note: basis.columns[l]["f0"] for note, (l, *_) in basis.notes.items()}
    midi, options = np.array(basis.templates), {"map": map, "progress": progress}
    given = given_by(score or [])
    if learn:
        basis = replace(basis, patterns=events.learn_piano(y, basis.patterns, midi, given, **options))
    if score is None:
        found = events.find_events(y, basis.patterns, midi, **options)
        score = [Note(pitch.note_name(event.midi), int(event.midi), 0.0, *event[1:]) for event in found]
    else:
        score = believed(score, events.find_given(y, basis.patterns, midi, given, **options))
    placed = [note._replace(f0=f0[note.midi], confidence=min(note.confidence, PLACED)) for note in score]
    return in_order(rounded(note) for note in placed), basis  # so this list, given back, gives the same results


def played_beyond(y, basis, *, map=None):
    """MIDI numbers of keys that are surely played in the first minute, and that the basis has no template of.

    Each is searched for by the nearest template's pattern, transposed; parameters are those of :func:`listed`.
    """
    own = np.array(basis.templates)
    missing = sorted(set(pitch.PIANO) - set(own))
    if not missing:
        return []
    patterns = basis.patterns.astype(np.float32)
    near = [int(np.argmin(np.abs(own - midi))) for midi in missing]
    moved = [events.transposed(patterns[i], 100 * (midi - own[i])) for i, midi in zip(near, missing, strict=True)]
    patterns, midi = np.concatenate([patterns, moved]), np.append(own, missing)
    y = blocks.read_frames(y, slice(0, 60 * events.SR))
    found = events.find_events(y, events.learn_piano(y, patterns, midi, map=map), midi, map=map)
    sure = 0.95  # 55 of 69 such keys in the ten pieces of benchmarks/README.md and on two grands; others .924 at most
    return sorted({int(event.midi) for event in found if event.confidence >= sure} & set(missing))


def given_by(score):
    """The notes of a score as :class:`events.Given`: those that this suite has placed, below confidence 1, stay there.

    Raises :class:`InputError` if it has more notes than hands can play.
    """
    onset, densest = np.sort([note.onset for note in score]), 100  # in a second: two glissandi reach 60
    crowded = np.flatnonzero(onset[densest:] - onset[:-densest] < 1)
    if len(crowded):
        start = onset[crowded[0]]
        count = np.searchsorted(onset, start + 1) - crowded[0]
        raise InputError(
            f"--score: got {count} notes in the second from {start:.1f} s on, expected at most {densest} in a second"
        )
    most = np.array([0 if note.confidence < 1 else events.MOVED_S for note in score])
    return events.given_notes([note.midi for note in score], [note.onset for note in score], most)


def believed(score, heard):
    """The notes of a score as they are heard in a recording: all of them, each about where the score has it.

    A note whose confidence is below 1 was placed by this suite, and stays as it is. The onset of any other is moved by
    at most ``events.MOVED_S``, and its level is measured. One that is not heard is kept where it is; its confidence is
    then at most 1/2. A note without an offset, or whose offset is its onset, ends where it is heard to end, and every
    note where its key is struck again. ``heard`` are the events of :func:`events.find_given`.

    Raises :class:`InputError` if little of the score is heard.
    """
    sure = sum(event.confidence > events.UNSURE for event in heard)
    if sure < 0.3 * len(score):  # of the score of another piece, up to .2 is heard by chance
        raise InputError(
            f"--score: got {sure} of {len(score)} notes heard for sure where the score has them, expected a score of "
            "this recording; one of another tempo can be matched if it is MIDI"
        )
    pairs = list(zip(score, heard, strict=True))
    louder = [
        note.level_db - event.level_db
        for note, event in pairs
        if note.confidence < 1 and event.confidence >= events.LISTED
    ]
    scale = float(np.median(louder)) if louder else 0.0  # both lists have levels relative to their own loudest note
    rows = []
    for note, event in pairs:
        if note.confidence == 1:
            confidence = PLACED if event.confidence >= events.LISTED else event.confidence
            level = min(event.level_db + scale, 0.0)
            note = note._replace(onset=event.onset, level_db=level, confidence=confidence)
        rows.append(note._replace(offset=note.offset if note.offset > note.onset else event.offset))
    rows.sort(key=lambda note: (note.midi, note.onset))
    for i, (note, following) in enumerate(pairwise([*rows, None])):
        end = following.onset if following and following.midi == note.midi else math.inf
        rows[i] = note._replace(offset=max(note.onset, min(note.offset, end)))
    return in_order(rows)


def find_notes(U, basis):
    """List the notes in the activations: which, when, and how loud.

    A note begins where its activation rises by ``ATTACK_DB`` or more within one STFT window, to above
    ``THRESHOLD_DB``. If it sounds already, the same key was struck again. It ends where it falls below the threshold
    or is struck again, and is dropped when it is shorter than ``SHORTEST_S``.

    The onset is the moment when the activation is halfway up: half of a window centred there holds the note.
    Columns of the basis sum to 1. So an activation is the summed magnitude of the note's spectrum, and levels of
    different notes can be compared. States of one note are summed.

    ``U`` [shape=(L, M), float, >= 0] are the activations; frame m is centred on ``m * hop / sr`` seconds. Returns a
    list of :class:`Note` in order of onset, then of pitch; empty for silence, None if the basis has no description.
    """
    if basis.columns is None:
        return None
    U = sum_states(U, basis)
    loudest = U.max()
    if loudest == 0:
        return []
    frame = basis.hop / basis.sr  # s
    window = math.ceil(basis.n_fft / basis.hop)  # frames that an attack is spread over
    notes = []
    for (midi, (state, *_)), u in zip(basis.notes.items(), U, strict=True):
        column = basis.columns[state]
        u = u.astype(np.float64) / loudest
        struck = attacks(u, window)
        for (_, onset, peak), (foot, offset, _) in pairwise([*struck, (len(u), len(u) - 1, None)]):
            quiet = np.flatnonzero(u[peak + 1 : foot] < 10 ** (THRESHOLD_DB / 20))
            if len(quiet):
                foot = offset = peak + 1 + int(quiet[0])
            if (offset - onset) * frame >= SHORTEST_S:
                level = 20 * math.log10(u[peak:foot].max())
                notes.append(Note(column["note"], midi, column["f0"], onset * frame, offset * frame, level))
    return in_order(notes)


def attacks(u, window):
    """Find where one note is struck: foot, onset and peak of each attack, in frames; see :func:`find_notes`.

    ``u`` [shape=(M,)] is relative to the loudest activation of all, ``window`` that of the STFT in frames. The onset is
    interpolated between frames; each foot comes after the peak before it.
    """
    u = np.concatenate([np.zeros(window), u])  # nothing sounds before the first frame
    level = np.maximum(u, 10 ** ((THRESHOLD_DB - ATTACK_DB) / 20))  # so that a rise ends above the threshold
    lowest = np.lib.stride_tricks.sliding_window_view(level, window)[:-1].min(axis=1)  # in the window before a frame
    rises = level[window:] >= lowest * 10 ** (ATTACK_DB / 20)
    bounds = np.flatnonzero(np.diff(rises, prepend=False, append=False)) + window
    found, stop = [], 0
    for start, next_stop in bounds.reshape(-1, 2).tolist():  # frames on the rise, one attack
        first = max(start - window, stop)
        stop = next_stop
        foot = first + int(np.argmin(u[first:start]))
        peak = start + int(np.argmax(u[start:stop]))
        half = (u[foot] + u[peak]) / 2
        m = foot + int(np.argmax(u[foot:stop] >= half))
        onset = m - (u[m] - half) / (u[m] - u[m - 1])
        found.append((foot - window, max(0.0, float(onset) - window), peak - window))
    return found


def write_notes(folder, notes, recording):
    """Write a list of notes as a table, MIDI and sound: ``FILES``."""
    table, midi, sound = (folder / name for name in FILES)
    write_notes_csv(table, notes)
    write_midi(midi, notes)
    if recording.y is None:
        n_samples, peak = (recording.Y.shape[1] - 1) * recording.hop, 0.5
    else:
        n_samples, peak = len(recording.y), recording.peak
    write_sound(sound, notes, n_samples, recording.sr, peak)


def write_notes_csv(path, notes):
    """Write a list of notes as a CSV table, whose header is the fields of :class:`Note`; times in s, levels in dB."""
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(Note._fields)
        for note in notes:
            times_and_level = f"{note.onset:.3f}", f"{note.offset:.3f}", f"{note.level_db:.1f}"
            writer.writerow([note.note, note.midi, f"{note.f0:.3f}", *times_and_level, f"{note.confidence:.2f}"])


def write_midi(path, notes):
    """Write a list of notes as a standard MIDI file: one track, a piano, a tick a millisecond.

    The velocity follows the level as in the SoundFont and DLS standards,
    ``level_db = 40 log10(velocity / 127)``. The loudest note gets 127. The same notes give the same bytes. A note
    outside MIDI's range of 0 to 127 is left out.
    """
    import mido

    messages = []  # at one tick, a note ends before the next begins, or after it began where it is that short
    for note in notes:
        if 0 <= note.midi <= 127:
            velocity = min(max(round(127 * 10 ** (note.level_db / 40)), 1), 127)
            onset, offset = round(1000 * note.onset), round(1000 * note.offset)
            messages.append((onset, 1, note.midi, "note_on", velocity))
            messages.append((offset, int(onset == offset), note.midi, "note_off", 64))
    tempo = mido.MetaMessage("set_tempo", tempo=1000 * MIDI_BEAT_MS)
    told = mido.MetaMessage("text", text="120 beats a minute are a convention: the tempo of the recording is not known")
    track = mido.MidiTrack([told, tempo, mido.Message("program_change", program=0)])
    now = 0
    for time, _, midi, kind, velocity in sorted(messages, key=lambda message: message[:3]):
        track.append(mido.Message(kind, note=midi, velocity=velocity, time=time - now))
        now = time
    mido.MidiFile(type=0, ticks_per_beat=MIDI_BEAT_MS, tracks=[track]).save(path)


# --- Lists that come in ------------------------------------------------------------------------------


def read_score(path):
    """Read a list of notes: a MIDI file, or a table as :func:`write_notes_csv` writes it, edited by hand or not.

    A table needs the columns ``onset`` in s and ``midi`` or ``note``; ``offset`` or ``duration`` in s, ``level_db`` or
    ``velocity``, and ``confidence`` are taken where they are there. Commas, semicolons or tabs part its cells; where
    commas do not, a number may have one.

    Returns a list of :class:`Note` in order of onset, then of pitch; f0 is that of a piano in tune, and where no offset
    is told, it is the onset. Raises :class:`InputError` if the file is missing, is no list of notes, lists none or too
    many, or two columns contradict each other.
    """
    utils.check_file(path, "a list of notes (.mid or .csv)")
    size, largest, most = Path(path).stat().st_size, 5_000_000, 100_000  # bytes and notes of six hours without rest
    if size > largest:
        raise InputError(f"{path}: got {size / 1e6:.1f} MB, expected a score of at most {largest / 1e6:g} MB")
    found = _read_midi(path) if is_midi(path) else _read_table(path)
    if not found:
        raise InputError(f"{path}: got a list without a note, expected a score")
    if len(found) > most:
        raise InputError(f"{path}: got {len(found)} notes, expected at most {most}")
    return in_order(found)


def is_midi(path):
    """Whether a score is a MIDI file, by its name. Its time is its own; that of a table is the recording's."""
    return Path(path).suffix.lower() in (".mid", ".midi")


def without_repeats(score):
    """The notes of a score, each once: two of one key at one time, to the millisecond, are one."""
    return in_order({(note.midi, round(note.onset, 3)): note for note in reversed(score)}.values())


def _read_midi(path):
    import mido

    try:
        file = mido.MidiFile(path, clip=True)
        if file.type == 2 and len(file.tracks) > 1:
            raise ValueError("its tracks are pieces of their own, type 2")
        tick, is_smpte = MIDI_BEAT_MS / 1000 / file.ticks_per_beat, file.ticks_per_beat < 0  # s
        if is_smpte:  # minus the frames of a second, and the ticks of a frame
            tick = -1 / math.prod(divmod(file.ticks_per_beat, 256))
        now, sounding, notes = 0.0, {}, []
        for message in mido.merge_tracks(file.tracks, skip_checks=True):
            now += message.time * tick
            if message.type == "set_tempo" and not is_smpte:
                tick = message.tempo * 1e-6 / file.ticks_per_beat
            if message.type not in ("note_on", "note_off") or message.channel == 9:  # the drums
                continue
            key = message.channel, message.note
            if key in sounding:  # a key that is struck again while it is down ends its note
                notes.append(_score_note(message.note, *sounding.pop(key), now))
            if message.type == "note_on" and message.velocity > 0:
                sounding[key] = now, _level_of(message.velocity)
        return notes + [_score_note(midi, *start, now) for (_, midi), start in sounding.items()]
    except Exception as error:  # mido has no error of its own: a broken file ends in one of many
        reason = str(error) or "it ends early"
        raise InputError(f"{path}: cannot be read as MIDI ({reason}), expected a score (.mid or .csv)") from None


def _read_table(path):
    data = Path(path).read_bytes()
    try:
        text = data.decode("utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")
    except UnicodeError as error:
        raise InputError(f"{path}: cannot be read as a table ({error}), expected a score (.mid or .csv)") from None
    first, *_ = lines = list(io.StringIO(text, newline="")) or [""]
    told = first.lower().startswith("sep=") and len(first.strip()) == 5  # as spreadsheets write it
    delimiter = first[4] if told else max(",;\t", key=first.count)
    reader = csv.reader(lines[told:], delimiter=delimiter, strict=True)
    rows, begin = [], 1
    try:
        for row in reader:
            rows.append((begin + told, [cell.strip() for cell in row]))
            begin = reader.line_num + 1
    except csv.Error as error:
        raise InputError(f"{path}: got a quote too many in line {begin + told} ({error}), expected a score") from None
    (_, header), *rows = rows or [(1, [])]
    header = [name.lower() for name in header]
    tables = [(line, cells, dict(zip(header, cells, strict=False))) for line, cells in rows if any(cells)]
    german = any(row.get("note", "").lower().startswith("h") for _, _, row in tables)
    notes = []
    for line, cells, row in tables:
        expected = "onset and offset in s and the midi number or the name of a note, under a header that names them"
        try:
            if any(cells[len(header) :]) or any("\n" in cell for cell in cells):
                raise InputError("as many cells as the header has, each on one line")
            notes.append(_row_note(row, german))
        except (KeyError, ValueError) as error:
            expected = str(error) if isinstance(error, InputError) else expected
            raise InputError(f"{path}: got {delimiter.join(cells)!r} in line {line}, expected {expected}") from None
    return notes


def _row_note(row, german):
    """The note that a row of a table, a dict from column to cell, tells of; ``german`` names have an H."""
    cell = {name: text.replace(",", ".") for name, text in row.items() if text}
    name = row.get("note") or cell["midi"].removesuffix(".0")
    midi = int(name) if name.isdecimal() else pitch.midi_as_written(name, german)
    if midi is None:
        raise InputError(
            "the name of one note, such as C4, F#3, Bb3 or H3" + (", but not B beside H" if german else "")
        )
    if float(cell.get("midi", midi)) != midi:
        raise InputError(f"one note in both columns: {pitch.note_name(midi)} is {midi}")
    onset = float(cell["onset"])
    offset = float(cell["offset"]) if "offset" in cell else onset + float(cell.get("duration", 0))
    level = float(cell["level_db"]) if "level_db" in cell else _level_of(float(cell.get("velocity", 127)))
    confidence = float(cell.get("confidence", 1))
    if midi not in range(128) or not 0 <= onset <= offset < math.inf or not math.isfinite(level):
        raise ValueError
    if not 0 <= confidence <= 1:
        raise InputError("a confidence of 0 to 1")
    return _score_note(midi, onset, level, offset, confidence)


def _score_note(midi, onset, level, offset, confidence=1.0):
    return Note(pitch.note_name(midi), midi, utils.note_frequency(midi), onset, offset, level, confidence)


def _level_of(velocity):
    """Level in dB of a MIDI velocity; see :func:`write_midi`."""
    return 40 * math.log10(max(velocity, 1) / 127)


# --- A list that is heard ----------------------------------------------------------------------------


def write_sound(path, notes, n_samples, sr, peak):
    """Write a list of notes as sound, a WAV file of 16 bit: each note a few sines that die away, at its own level.

    It tells the ear what the list says, and what it does not, beside the recording. A note sounds from its onset to its
    offset, see ``TONE``. ``n_samples``, ``sr`` and ``peak``, its largest sample, are those of the recording.
    """
    import soundfile

    loudest = max((np.abs(block).max() for block in _rendered(notes, n_samples, sr)), default=0.0)
    gain = min(peak, 1.0) / loudest if loudest else 0.0
    with soundfile.SoundFile(path, "w", sr, 1, "PCM_16", format="WAV") as file:
        for block in _rendered(notes, n_samples, sr):
            file.write(utils.finite(gain * block, path))


def _rendered(notes, n_samples, sr):
    """Yield the sound of a list of notes, ``RENDERED`` samples at a time."""
    first = np.array([round(note.onset * sr) for note in notes], int)
    last = np.array([round((note.offset + TONE["release"]) * sr) for note in notes], int)
    for start in range(0, n_samples, RENDERED):
        y = np.zeros(min(RENDERED, n_samples - start))
        for i in np.flatnonzero((first < start + len(y)) & (last > start)):
            begin, end = max(first[i], start), min(last[i], start + len(y))
            y[begin - start : end - start] += _tone(notes[i], begin, end, sr)
        yield y


def _tone(note, begin, end, sr):
    """Sound of a note at samples begin to end of the recording.

    A partial that dies away is exp(z t). With t = s + r, where s goes in long steps and r from sample to sample, it is
    exp(z s) exp(z r), and the sum over partials a product of two small matrices.
    """
    _, timbre, attack, release, decay = TONE.values()
    n = np.arange(1, TONE["partials"] + 1)
    n = n[n * note.f0 < 0.45 * sr]
    z = 2j * np.pi * note.f0 * n - 1 / (decay * 2 ** ((60 - note.midi) / 24))
    step = 256  # samples, about the square root of a note's
    s = np.exp(np.multiply.outer(np.arange(begin, end, step) / sr - note.onset, z)) * timbre ** (n - 1.0)
    r = np.exp(np.multiply.outer(z, np.arange(step) / sr))
    tones = np.concatenate([s.real, s.imag], axis=1) @ np.concatenate([r.imag, r.real])
    tones = 10 ** (note.level_db / 20) * tones.ravel()[: end - begin]
    rising = np.arange(begin, min(end, math.ceil((note.onset + attack) * sr))) / sr - note.onset
    tones[: len(rising)] *= np.clip(rising / attack, 0, 1)
    falling = note.offset + release - np.arange(max(begin, math.floor(note.offset * sr)), end) / sr
    tones[len(tones) - len(falling) :] *= np.clip(falling / release, 0, 1)
    return tones
