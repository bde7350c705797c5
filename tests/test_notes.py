"""notes: the notes in activations, and lists of notes that go out, come in and are heard."""

import dataclasses
import itertools

import mido
import numpy as np
import pytest
import soundfile
from mir_eval.transcription import precision_recall_f1_overlap

import utils
from helpers import level
from piano import basis, notes, pitch, recording

pytestmark = pytest.mark.same_everywhere("tables and MIDI")

# --- The notes in activations -----------------------------------------------------------------------

FRAME, WINDOW = 0.025, 4  # s, frames
THRESHOLD = 10 ** (notes.THRESHOLD_DB / 20)


def basis_of(*names):
    """A basis with these notes, whose frames are ``FRAME`` s apart and overlap by three quarters."""
    columns = [{"file": f"{name}.wav", "note": name, "f0": 100.0 + l} for l, name in enumerate(names)]
    return basis.Basis(np.ones((100 * WINDOW + 1, len(names))), sr=8000, n_fft=200 * WINDOW, hop=200, columns=columns)


def played(onset, offset, level=1.0, n_frames=200):
    """Activation of a key held from ``onset`` to ``offset`` in s, seen through a window of ``WINDOW`` frames."""
    fine = 100  # points in a frame
    t = (np.arange((n_frames + 2 * WINDOW) * fine) / fine - WINDOW) * FRAME
    window = np.hanning(WINDOW * fine + 2)[1:-1]
    seen = np.convolve((t >= onset) & (t < offset), window / window.sum(), "same")
    return level * np.maximum(seen[WINDOW * fine : -WINDOW * fine : fine], 0)


@pytest.mark.parametrize("onset", np.linspace(0.5, 0.5 + FRAME, 3))
@pytest.mark.parametrize("level", [1.0, 0.3])
def test_a_note_is_found_when_and_where_it_was_played(onset, level):
    """Between frames too; notes come in order of onset, and then of pitch."""
    U = np.stack([played(onset, 1.5, level), np.zeros(200), played(onset, 2.0), played(0.1, 3.0)])
    found = notes.find_notes(U, basis_of("C4", "Eb4", "G4", "A4"))
    assert [note.note for note in found] == ["A4", "C4", "G4"]
    note = found[1]
    assert note[:3] == ("C4", 60, 100.0)
    assert note.onset == pytest.approx(onset, abs=FRAME / 4)
    assert 1.5 <= note.offset <= 1.5 + FRAME * WINDOW / 2  # the last window that hears it, at most
    assert note.level_db == pytest.approx(20 * np.log10(level), abs=0.01)


def test_an_onset_is_the_moment_at_which_the_activation_is_halfway_up():
    u = np.repeat([0.0, 1, 4, 0], [10, 1, 19, 10])
    [note] = notes.find_notes(u[None], basis_of("C4"))
    assert note.onset == pytest.approx((10 + 1 / 3) * FRAME)  # between 1 and 4 lies 2
    assert note.offset == pytest.approx(30 * FRAME)
    [note] = notes.find_notes(np.ones((1, 100)), basis_of("C4"))  # what still sounds ends with the recording
    assert (note.onset, note.offset) == (0, 99 * FRAME)


def test_a_key_struck_again_while_it_sounds_is_another_note():
    first, second = played(0.5, 1.0, 0.4), played(1.0, 2.0)
    found = notes.find_notes((first + second)[None], basis_of("C4"))
    assert [note.onset for note in found] == pytest.approx([0.5, 1.0], abs=FRAME)
    assert found[0].offset == found[1].onset
    assert [note.level_db for note in found] == pytest.approx([20 * np.log10(0.4), 0], abs=0.1)


def test_only_an_attack_begins_a_note_and_a_moment_is_none():
    assert 3 * FRAME < notes.SHORTEST_S <= 6 * FRAME
    for u, count in (
        (np.repeat([10 ** (-(notes.ATTACK_DB - 1) / 20), 1], 50), 1),
        (np.repeat([10 ** (-(notes.ATTACK_DB + 1) / 20), 1], 50), 2),
        (10 ** np.linspace(-0.9, 0, 100), 1),  # a swell of 18 dB in 25 windows
        (np.repeat([0, 1, 0], [50, 3, 47]), 0),  # shorter than SHORTEST_S
        (np.repeat([0, 1, 0], [50, 6, 44]), 1),
        (np.zeros(100), 0),
        *((np.ones(n), 0) for n in range(1, 5)),
    ):
        assert len(notes.find_notes(u[None], basis_of("C4"))) == count, u


def test_a_note_dies_away_where_it_falls_below_the_threshold():
    u = 0.5 ** (np.arange(200) / 10)
    [note] = notes.find_notes(u[None], basis_of("C4"))
    assert note.onset == 0
    assert note.offset == pytest.approx(-10 * np.log2(THRESHOLD) * FRAME, abs=FRAME)
    for loudness, count in ((0.9 * THRESHOLD, 1), (1.1 * THRESHOLD, 2)):  # of the loudest note
        U = np.stack([played(0.5, 1.5), played(2.0, 3.0, loudness)])
        assert len(notes.find_notes(U, basis_of("C4", "D4"))) == count


def test_states_of_one_note_are_summed(rng):
    U = np.stack([played(0.3, 1.0, 0.5), played(0.5, 1.5)])
    share = rng.random(U.shape)
    states = np.stack([share * U, (1 - share) * U], axis=1).reshape(4, -1)
    expected = notes.find_notes(U, basis_of("C4", "D4"))
    found = notes.find_notes(states, basis_of("C4", "C4", "D4", "D4"))
    assert [(note.midi, note.f0) for note in found] == [(60, 100.0), (62, 102.0)]  # that of a note's first column
    np.testing.assert_allclose([note[3:] for note in found], [note[3:] for note in expected])


@pytest.mark.parametrize("n_fft", [200, 800, 6400])
def test_notes_of_one_key_never_overlap_and_do_not_depend_on_the_gain(rng, n_fft):
    U = 10 ** (-2 * rng.random((20, 500))) * (rng.random((20, 500)) < 0.8)
    piano = dataclasses.replace(basis_of(*(pitch.note_name(60 + l) for l in range(20))), n_fft=n_fft)
    found = notes.find_notes(U, piano)
    assert len(found) > 5
    for midi in range(60, 80):
        own = [note for note in found if note.midi == midi]
        assert all(note.offset - note.onset >= notes.SHORTEST_S - 1e-9 for note in own)
        assert all(0 >= note.level_db >= notes.THRESHOLD_DB - 1e-9 for note in own)
        assert all(a.offset <= b.onset for a, b in itertools.pairwise(own))
    for gain in (2.0**-40, 1e12):
        others = notes.find_notes(gain * U, piano)
        assert [note.midi for note in others] == [note.midi for note in found]
        np.testing.assert_allclose([note[3:] for note in others], [note[3:] for note in found], atol=1e-9)


def test_the_notes_of_the_chorale_are_found_and_apart(root, learnt):
    piano = basis.load(learnt / "fixed_basis.npy")
    Y = recording.stft(recording.load(root / "examples" / "chorale" / "matched" / "mixture.flac", piano.sr))
    U, _ = utils.nmf(Y, piano.H, 200)
    told = []
    for listed in (notes.read_score(root / "examples" / "chorale" / "notes.csv"), notes.find_notes(U, piano)):
        told.append(np.array([[note.onset, note.onset + 0.1] for note in listed]))
        told.append(np.array([utils.note_frequency(note.midi) for note in listed]))
    *_, f_measure, _ = precision_recall_f1_overlap(*told, offset_ratio=None)  # of onsets, to 50 ms
    assert f_measure >= 0.85  # half a dozen notes of 65 below what is reached
    H, model, sdr = piano.H.astype(np.float64), np.maximum(piano.H @ U, 1e-30), {}
    for path in (root / "examples" / "chorale" / "matched" / "stems").iterdir():
        l, s = int(path.stem[:3]) - 36, soundfile.read(path)[0]
        sdr[path.stem] = -level(recording.istft(np.outer(H[:, l], U[l]) / model * Y, len(s)) - s, s)
    assert np.median(list(sdr.values())) >= 6, sdr  # dB


# --- The files that list them -----------------------------------------------------------------------

SCALE = [
    notes.Note("C4", 60, 261.62, 0.0, 0.5004, 0.0),
    notes.Note("D#4", 63, 311.1266, 0.25, 1.0, -6.04, 0.62),
    notes.Note("C4", 60, 261.62, 0.5004, 1.25, -20.0),
]


def test_notes_are_listed_in_a_table(tmp_path):
    notes.write_notes_csv(tmp_path / "notes.csv", SCALE)
    header = b"note,midi,f0,onset,offset,level_db,confidence\n"
    rows = b"C4,60,261.620,0.000,0.500,0.0,1.00\nD#4,63,311.127,0.250,1.000,-6.0,0.62\n"
    rows += b"C4,60,261.620,0.500,1.250,-20.0,1.00\n"
    assert (tmp_path / "notes.csv").read_bytes() == header + rows
    notes.write_notes_csv(tmp_path / "notes.csv", [])
    assert (tmp_path / "notes.csv").read_bytes() == header


def read_midi(path):
    """Onset and offset in s, MIDI number and velocity of every note in a MIDI file; no note may hang or overlap."""
    now, sounding, found = 0.0, {}, []
    for message in mido.MidiFile(path):
        now += message.time
        if message.type == "note_on":
            assert message.note not in sounding
            sounding[message.note] = now, message.velocity
        elif message.type == "note_off":
            onset, velocity = sounding.pop(message.note)
            found.append((onset, now, message.note, velocity))
    assert not sounding
    return sorted(found)


def test_notes_are_written_as_midi_and_read_back(tmp_path):
    notes.write_midi(tmp_path / "notes.mid", SCALE)
    found = read_midi(tmp_path / "notes.mid")
    assert [midi for _, _, midi, _ in found] == [60, 63, 60]
    expected = [(note.onset, note.offset) for note in SCALE]
    np.testing.assert_allclose([times[:2] for times in found], expected, atol=1e-3)
    for note, (*_, velocity) in zip(SCALE, found, strict=True):  # 40 log10(v / 127) dB
        assert 40 * np.log10((velocity - 0.5) / 127) <= note.level_db <= 40 * np.log10((velocity + 0.5) / 127)
    assert found[0][3] == 127
    levels, step = [note.level_db for note in SCALE], 40 * np.log10(41 / 40)  # of a velocity, in dB, at -20 dB
    np.testing.assert_allclose([n.level_db for n in notes.read_score(tmp_path / "notes.mid")], levels, atol=step)
    content = (tmp_path / "notes.mid").read_bytes()
    assert content[:14] == b"MThd\0\0\0\6\0\0\0\1" + (500).to_bytes(2, "big")
    assert b"120 beats a minute are a convention: the tempo of the recording is not known" in content


def test_midi_holds_what_has_a_number_and_no_note_is_silent_or_sounds_on(tmp_path):
    short = SCALE[0]._replace(onset=1.0, offset=1.0002)  # it ends where it begins
    beyond, soft = short._replace(midi=128), short._replace(midi=62, offset=2.0, level_db=-200.0)
    notes.write_midi(tmp_path / "notes.mid", [short, beyond, soft])
    assert [(midi, velocity) for _, _, midi, velocity in read_midi(tmp_path / "notes.mid")] == [(60, 127), (62, 1)]
    assert [(note.onset, note.offset) for note in notes.read_score(tmp_path / "notes.mid")] == [(1, 1), (1, 2)]
    notes.write_midi(tmp_path / "none.mid", [])
    assert read_midi(tmp_path / "none.mid") == []
    with pytest.raises(utils.InputError, match=r"none\.mid: got a list without a note"):
        notes.read_score(tmp_path / "none.mid")


# --- Lists that come in, and a list that is heard ---------------------------------------------------


def test_a_table_edited_by_hand_is_read(tmp_path):
    table = "Note, Onset ,offset\n\nEb4, 1.5,2\nC4,0.25,\n ,,\n"
    (tmp_path / "score.csv").write_text("\ufeff" + table, encoding="utf-8")
    first, second = notes.read_score(tmp_path / "score.csv")
    assert (first.midi, first.onset, first.level_db) == (60, 0.25, 0)
    assert first.offset == first.onset  # it is not told
    assert (second.note, second.midi, second.onset, second.offset) == ("D#4", 63, 1.5, 2)
    assert second.f0 == pytest.approx(utils.note_frequency(63))
    (tmp_path / "score.csv").write_text("onset,duration,midi,velocity\n0.5,0.25,71,127\n")
    [note] = notes.read_score(tmp_path / "score.csv")
    assert (note.note, note.onset, note.offset, note.level_db) == ("B4", 0.5, 0.75, 0)


def test_midi_files_of_others_are_read(tmp_path):
    """Two tempi, a note off by a velocity of 0, a key struck while it is down, one never let go, and drums."""
    messages = [
        mido.Message("note_on", note=60, velocity=64, time=0),
        mido.Message("note_on", note=35, velocity=64, channel=9, time=0),
        mido.Message("note_on", note=60, velocity=64, time=480),
        mido.MetaMessage("set_tempo", tempo=1_000_000, time=0),
        mido.Message("note_on", note=60, velocity=0, time=480),
        mido.Message("note_on", note=67, velocity=127, time=0),
        mido.Message("program_change", program=1, time=240),
    ]
    mido.MidiFile(tracks=[mido.MidiTrack(), mido.MidiTrack(messages)]).save(tmp_path / "score.mid")
    found = [(note.midi, note.onset, note.offset) for note in notes.read_score(tmp_path / "score.mid")]
    np.testing.assert_allclose(found, [(60, 0, 0.5), (60, 0.5, 1.5), (67, 1.5, 2.0)])


NO_MIDI = "cannot be read as MIDI"
NO_SCORE = [
    ("score.mid", b"MThd\0\0\0\6\0\1\0\1\1\xe0MTrk\0\0\xff\xff\0\x90", NO_MIDI),
    ("score.csv", b"", "got a list without a note"),
    ("score.csv", b"onset,midi\n", "got a list without a note"),
    ("score.csv", b"\xff\xfe\x00", "cannot be read as a table"),
    ("score.csv", b"onset,midi\n1,H4\n", "got '1,H4' in line 2"),
    ("score.csv", b"onset,midi\n1,60\n-1,61\n", "got '-1,61' in line 3"),
    ("score.csv", b"onset,midi\n1,128\n", "got '1,128' in line 2"),
    ("score.csv", b"onset,offset,midi\n2,1,60\n", "got '2,1,60' in line 2"),
    ("score.csv", b"onset,note\nnan,C4\n", "got 'nan,C4' in line 2"),
    ("score.csv", b"1.0,60\n2.0,61\n", "expected onset and offset in s and the midi number"),
    ("none.csv", None, "no such file, expected a list of notes"),
    # what would lose notes
    ("score.csv", b"note,midi,onset\nC4,60,0\nD4,60,1\n", "'D4,60,1' in line 3, expected one note in both col.*: D4"),
    ("score.csv", b"note,onset\nC4 E4,0\n", "got 'C4 E4,0' in line 2, expected the name of one note"),
    ("score.csv", b"onset,note\n0,H3\n1,B3\n", "got '1,B3' in line 3, expected the name of one note.*not B beside H"),
    ("score.csv", b'note,onset\n"C4,0\nD4,1\nE4,2\n', "got a quote too many in line 2"),
    ("score.csv", b'note,onset\n"C4,0\n"D4,1\nE4,2\n', "got a quote too many in line 2"),
    ("score.csv", b'note,onset\n"C4\nD4",1\nE4,2\n', "in line 2, expected as many cells as the header has, each on"),
    ("score.csv", b"note,onset\nC4,0,5\n", "in line 2, expected as many cells as the header has"),
    ("score.csv", b"midi,onset\n60.5,0\n", "in line 2, expected the name of one note"),
    ("score.csv", b"midi,onset,confidence\n60,0,2\n", "in line 2, expected a confidence of 0 to 1"),
]


@pytest.mark.parametrize(("name", "content", "message"), NO_SCORE)
def test_what_is_no_score_is_named(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(utils.InputError, match=f"{name}: .*{message}"):
        notes.read_score(tmp_path / name)


TABLE = """note,midi,f0,onset,offset,level_db,confidence
C4,60,261.626,0.500,1.250,-3.0,0.62
Eb4,63,311.127,1.000,1.500,0.0,1
"""


def test_tables_as_spreadsheets_write_them(tmp_path):
    path = tmp_path / "score.csv"
    for data in (
        TABLE.encode("utf-8-sig"),
        TABLE.encode("utf-16"),
        TABLE.replace("\n", "\r\n").encode(),
        TABLE.replace(",", "\t").encode(),
        TABLE.replace(",", ";").replace(".", ",").encode(),
        b"sep=;\r\n" + TABLE.replace(",", ";").encode(),
        b"sep=,\n" + TABLE.encode(),
        TABLE.replace("0.500", '"0,500"').encode(),
    ):
        path.write_bytes(data)
        found = [(n.midi, n.onset, n.offset, n.level_db, n.confidence) for n in notes.read_score(path)]
        assert found == [(60, 0.5, 1.25, -3, 0.62), (63, 1, 1.5, 0, 1)], data


def test_names_as_people_write_them():
    for names, midi in (
        ("Cb4 B3 H3 Hb4", [59, 59, 59, 70]),
        ("B#3 E#4 Fb4 F##4 Bbb4 Cx4", [60, 65, 64, 67, 69, 62]),
        ("Des4 Cis4 Ees4 hb3 c♯4 D♭4 Cs4 C-1", [61, 61, 63, 58, 61, 61, 61, 0]),
        ("Es4 As4 C4v10 036_C2 C C10 C4/E4", [None] * 7),
    ):
        assert [pitch.midi_as_written(name) for name in names.split()] == midi


def scale_tracks():
    """Two tracks of the same four keys, half a second each at 120 beats a minute."""
    tracks = mido.MidiTrack(), mido.MidiTrack()
    for midi in (60, 62, 64, 65):
        for track in tracks:
            track += [mido.Message("note_on", note=midi, time=0), mido.Message("note_off", note=midi, time=480)]
    return tracks


@pytest.mark.parametrize(("kind", "n"), [(0, 1), (1, 2), (2, 1)])
def test_midi_of_every_type_is_read_and_what_is_doubled_counts_once(tmp_path, kind, n):
    mido.MidiFile(type=kind, tracks=scale_tracks()[:n]).save(tmp_path / "score.mid")
    found = notes.without_repeats(notes.read_score(tmp_path / "score.mid"))
    assert [(note.midi, note.onset) for note in found] == [(60, 0), (62, 0.5), (64, 1), (65, 1.5)]


def test_midi_in_frames_is_read_and_half_a_file_is_named(tmp_path):
    path = tmp_path / "score.mid"
    mido.MidiFile(tracks=scale_tracks()[:1]).save(path)
    data = bytearray(path.read_bytes())
    for n in range(len(data)):
        path.write_bytes(data[:n])
        with pytest.raises(utils.InputError, match=NO_MIDI):
            notes.read_score(path)
    data[12:14] = 0xE7, 40  # 25 frames a second, 40 ticks each: a tick is a millisecond
    path.write_bytes(data)
    found = [(note.midi, note.onset) for note in notes.read_score(path)]
    np.testing.assert_allclose(found, [(60, 0), (62, 0.48), (64, 0.96), (65, 1.44)])
    mido.MidiFile(type=2, tracks=scale_tracks()).save(path)
    with pytest.raises(utils.InputError, match=r"cannot be read as MIDI \(its tracks are pieces of their own"):
        notes.read_score(path)


def test_too_much_is_refused_before_the_work(tmp_path):
    (tmp_path / "large.csv").write_text("onset,midi\n" + "0.123,60\n" * 600_000)
    with pytest.raises(utils.InputError, match=r"got 5\.4 MB, expected a score of at most 5 MB"):
        notes.read_score(tmp_path / "large.csv")
    (tmp_path / "many.csv").write_text("onset,midi\n" + "1,60\n" * 100_001)
    with pytest.raises(utils.InputError, match="got 100001 notes, expected at most 100000"):
        notes.read_score(tmp_path / "many.csv")
    crowded = [notes.Note("C4", 60, 261.6, 5 + i / 200, 9, 0) for i in range(101)]
    with pytest.raises(utils.InputError, match=r"got 101 notes in the second from 5\.0 s on, expected at most 100"):
        notes.given_by(crowded)


@pytest.mark.parametrize("block", [notes.RENDERED, 1000])
def test_a_list_is_heard_as_sums_of_sines_under_envelopes_as_loud_as_its_notes(tmp_path, monkeypatch, block):
    monkeypatch.setattr(notes, "RENDERED", block)
    sr, y = 8000, np.zeros(20 * 8000)
    n_partials, timbre, rise, fall, dying = notes.TONE.values()
    lengths = (0.1003, 0.1003), (3.1003, 3.102), (6.0, 9.0)  # none, less than its attack, and long
    listed = [
        notes.Note("?", midi, utils.note_frequency(midi), onset + later, offset + later, level)
        for midi, later, level in ((21, 0, -6.0), (60, 0.5, 0.0), (105, 10, -12.0))
        for onset, offset in lengths
    ]
    for note in listed:
        first, last = round(note.onset * sr), round((note.offset + fall) * sr)
        t = np.arange(first, last) / sr - note.onset
        attack, release = np.clip(t / rise, 0, 1), np.clip((note.offset + fall - note.onset - t) / fall, 0, 1)
        decay = np.exp(-t / (dying * 2 ** ((60 - note.midi) / 24)))
        partials = [n for n in range(1, n_partials + 1) if n * note.f0 < 0.45 * sr]
        tones = sum(timbre ** (n - 1) * np.sin(2 * np.pi * n * note.f0 * t) for n in partials)
        y[first:last] += 10 ** (note.level_db / 20) * attack * release * decay * tones
    np.testing.assert_allclose(np.concatenate([*notes._rendered(listed, len(y), sr)]), y, atol=1e-9)
    for peak in (0.25, 3):  # of a recording, and 16 bit hold no more than 1
        notes.write_sound(tmp_path / "notes.wav", listed, len(y), sr, peak)
        found, got_sr = soundfile.read(tmp_path / "notes.wav")
        assert got_sr == sr
        np.testing.assert_allclose(found, min(peak, 1) / np.abs(y).max() * y, atol=2**-15)
