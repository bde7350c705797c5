"""What the benchmarks measure and the tools fit, on signals and numbers whose figures are known."""

import json
import re
import sys
import time
from pathlib import Path

import fit_list
import numpy as np
import play_notes
import pytest
import separation
import soundfile
import stages
import transcription

from helpers import copy_basis, level, python, tone
from piano import events, notes, phase, recording
from piano.notes import Note

pytestmark = pytest.mark.same_everywhere("compares tables that are stored")


@pytest.fixture
def stems(rng):
    """Two notes, half a second each, by MIDI number: a spectrum apart, noise besides."""
    sounds = {69: tone(0.5), 81: tone(0.5, 880)}
    return {note: (2 * s + 1e-3 * rng.standard_normal(len(s))).astype(np.float32) for note, s in sounds.items()}


def test_sdr_is_that_of_the_definition_and_bss_eval_forgives_a_gain_and_finds_interference(rng):
    s, other = rng.standard_normal((2, 8000))
    assert separation.sdr(s, 0.9 * s) == pytest.approx(20)
    assert separation.sdr(s, 0 * s) == pytest.approx(0)
    pytest.importorskip("fast_bss_eval")
    other *= np.sqrt(np.sum(s**2) / np.sum(other**2))
    sdr, sir, sar = separation.bss_eval(s, 0.5 * s + 0.05 * other, s + other)
    assert [sdr, sir] == pytest.approx([20, 20], abs=0.7)  # 512 taps find a little of s in any other 8000 samples
    assert sar > 40


def test_medians_are_read_back_as_they_were_written(rng):
    keys = [("chorale", "matched"), ("chorale", "mismatched"), ("prelude", "matched")]
    scores = {key: [rng.uniform(-5, 20, (4, 3)) for _ in separation.SETTINGS] for key in keys}
    medians = separation.read_medians(f"{separation.tables(scores)}\n\n<!-- end -->\n\n| another | table |\n")
    for i, row in enumerate(medians.values()):
        assert row == {", ".join(key): round(np.median(scores[key][i][0]), 1) for key in keys}


def played(*notes_of_keys):
    return [Note("", midi, 0.0, onset, onset + 0.2, 0.0) for midi, onset in notes_of_keys]


@pytest.fixture
def case(stems):
    """Two notes of one loudness, whose templates are their own spectra, in two states."""
    spectra = [np.abs(recording.stft(s, n_fft=8192, hop=2048)) for s in stems.values()]
    H = np.stack([part.sum(axis=1) for A in spectra for part in (A[:, :3], A[:, 3:])], axis=1)
    columns = [{"note": name} for name in ("A4", "A4", "A5", "A5")]
    basis = separation.Basis(H / H.sum(axis=0), 22050, 8192, 2048, columns, np.full(H.shape, 0.9, np.complex64))
    return separation.Case("scale", "sines", "matched", sum(stems.values()), stems, basis, played((69, 0), (81, 0)))


def test_the_error_is_what_is_missing_and_what_comes_from_elsewhere(stems):
    kept, missing, shares = separation.what_is_wrong(69, 0.5 * stems[69] + 0.1 * stems[81], stems)
    assert kept == pytest.approx(0.5, abs=1e-3)
    assert missing == pytest.approx(0.25 / 0.26, abs=1e-3)
    assert shares[81] == pytest.approx(0.01 / 0.26, abs=1e-3)
    assert missing + sum(shares.values()) == pytest.approx(1)
    assert shares[69] == pytest.approx(0, abs=1e-3)


def test_a_stem_is_held_against_itself_before_a_strike(rng):
    s = rng.standard_normal(separation.SR)
    onset, n = separation.SR // 2, round(separation.STRIKE_S * separation.SR)
    truth, stem = np.where(np.arange(len(s)) < onset, 0, s), np.where(np.arange(len(s)) < onset, 0.01 * s, s)
    struck = played((60, 0.05), (60, 0.5), (60, 0.7))  # too early, fresh, while it sounds
    case = separation.Case("", "", "real", truth, {60: truth}, None, struck)
    expected = 10 * np.log10(1e-4 * np.sum(s[onset - n : onset] ** 2) / np.sum(s[onset : onset + n] ** 2))
    np.testing.assert_allclose(separation.before_strikes(case, stem[None]), [expected])


def test_noise_lies_below_a_recording_and_in_no_stem(case):
    noisy = separation.noisy(case, 20)
    assert separation.sdr(case.y, noisy.y) == pytest.approx(20, abs=0.01)
    assert noisy.stems is case.stems


def test_lists_in_a_row_are_one_recording():
    lists = {name: played((60, onset)) for name, onset in (("a", 1.0), ("b", 2.0), ("c", 3.0))}
    joined = separation.in_a_row(lists, 2)
    assert joined == {"a": played((60, 1.0), (60, separation.SECONDS + 2.0)), "c": played((60, 3.0))}


def test_every_part_can_be_left_out_or_be_the_truth(case, monkeypatch):
    monkeypatch.setattr(separation, "listed", lambda *_: case.played)
    monkeypatch.setattr(separation.adapt, "N_FREE", 1)  # it is not asked how good they are
    whole = phase.with_energies
    means = separation.measure_left_out(case)
    assert list(means) == list(separation.left_out())
    assert np.isfinite(list(means.values())).all()
    assert phase.with_energies is whole  # all is as before
    means = separation.measure_parts(case)
    assert len(means) == len(separation.PARTS)
    assert means[-1] > max(10, means[0] - 1)  # a model that knows all


def test_a_command_is_timed_by_stage(root, learnt, tmp_path):
    np.save(tmp_path / "spec.npy", np.ones((1025, 8), np.complex64))
    script = root / "benchmarks" / "stages.py", str(time.monotonic()), tmp_path / "stages.json"
    command = ["NMF.py", tmp_path / "spec.npy", "2", learnt / "fixed_basis.npy", "--stems", "--quiet", "-o", tmp_path]
    assert python(*script, *command).returncode == 0
    seconds = json.loads((tmp_path / "stages.json").read_text(encoding="utf-8"))
    assert list(seconds) == list(stages.STAGES)
    assert min(seconds[name] for name in ("imports", "reading", "NMF", "sound", "pictures", "rest")) > 0


PEER = """
ICASSP_2022_MODEL_PATH = "model"
class inference:
    Model = str
    def predict(path, model):
        print("this is no list")
        return None, None, [(0.5, 1.0, 60, 0.9, [0])]
"""


def test_a_peer_is_judged_beside_the_event_model(tmp_path, monkeypatch, capsys):
    soundfile.write(tmp_path / "piece.wav", np.zeros(44100), 22050)
    (tmp_path / "piece.csv").write_text("onset,offset,midi\n0.5,1.0,60\n1.0,1.5,64\n", encoding="utf-8")
    heard = [Note("", 60, 0.0, 0.5, 1.0, 0.0), Note("", 64, 0.0, 1.0, 1.5, 0.0)]
    for name, value in (("learn", None), ("event_model", heard)):
        monkeypatch.setattr(transcription, name, lambda *_, value=value: value)
    monkeypatch.setattr(transcription, "METHODS", {"event model": transcription.event_model})
    with pytest.raises(SystemExit):
        transcription.main([str(tmp_path), "--peer", "no-such-python"])
    assert "--peer no-such-python: got no list of basic-pitch: " in capsys.readouterr().err.splitlines()[-1]

    (tmp_path / "basic_pitch.py").write_text(PEER, encoding="utf-8")
    (tmp_path / "basic_pitch-9.dist-info").mkdir()
    (tmp_path / "basic_pitch-9.dist-info" / "METADATA").write_text("Name: basic-pitch\nVersion: 9\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    transcription.main([str(tmp_path), "--peer", sys.executable])
    printed = capsys.readouterr().out
    assert "| event model, all (1), mean | 1.000 | 1.000 | 1.000 |" in printed
    assert "| basic-pitch 9, all (1), mean | 1.000 | 0.500 | 0.667 |" in printed  # one of two notes
    assert "event model / basic-pitch 9: F 50 1.50, time " in printed


def test_a_room_and_noise_are_as_loud_and_long_as_they_are_told():
    y = np.zeros(2 * play_notes.SR)
    y[0] = 1  # what is added in a room is then its tail
    tail = play_notes.added(y, (0.5, 6), np.inf, np.random.default_rng(0))
    assert tail @ tail == pytest.approx(10**-0.6)
    early, late = (tail[n : n + 1000] for n in (1000, 1000 + play_notes.SR // 4))
    assert level(early, late) == pytest.approx(30, abs=1)  # half the time
    noise = play_notes.added(y, (1, np.inf), 20, np.random.default_rng(0))
    assert noise @ noise == pytest.approx(0.01)
    assert not play_notes.added(y, (1, np.inf), np.inf, np.random.default_rng(0)).any()


def test_an_event_is_right_where_a_note_of_its_key_is_left():
    """The second is softer than the first, which has the note; the third has no note near; the last another key."""
    onset, level, pattern = np.array([1.01, 0.99, 2.2, 3.0]), np.array([2.0, 1.0, 1.0, 1.0]), np.array([0, 0, 0, 1])
    found = events.Found(pattern, onset, onset, level, np.zeros(4), np.full(4, -1), 1000)
    truth = np.array([(1.0, 1.5, 60), (2.1, 2.5, 60), (3.0, 3.5, 60)])
    np.testing.assert_allclose(fit_list.delays(found, np.array([60, 64]), truth), [0.01, np.nan, np.nan, np.nan])


def test_weights_are_the_ones_that_labels_were_drawn_by(rng, monkeypatch):
    w = np.array([1.5, -1.0, 0.5, 0.0, 2.0, -0.5, 0.3])
    x = np.column_stack([rng.standard_normal((40_000, 6)), np.ones(40_000)])
    delay = np.where(rng.random(len(x)) < 1 / (1 + np.exp(-x @ w)), 0.0, np.nan)
    monkeypatch.setattr(events, "evidence", lambda found, midi: x)
    heard = fit_list.Heard("", None, 1.0, None, None, None, delay)
    np.testing.assert_allclose(fit_list.fitted([heard]), w, atol=0.1)  # five standard errors


def test_it_prints_lines_that_the_code_has(tmp_path, root, learnt, monkeypatch, capsys):
    """The lines of the product are set in the form that the tool prints, from two pieces of six seconds."""
    for piece in ("chorale", "prelude"):
        y = recording.load(root / "examples" / piece / "matched" / "mixture.flac", events.SR)
        soundfile.write(tmp_path / f"{piece}.flac", y[: 6 * events.SR], events.SR)
        played = notes.read_score(root / "examples" / piece / "notes.csv")
        notes.write_notes_csv(tmp_path / f"{piece}.csv", [note for note in played if note.offset < 6])

    def learnt_before(arguments):
        assert [Path(arguments[0]).name, *arguments[-2:]] == ["basis_wav_piano", "A0", "C8"]
        copy_basis(learnt, arguments[arguments.index("-o") + 1])

    monkeypatch.setattr(fit_list.transcription.make_init_H, "main", learnt_before)
    fit_list.main([str(tmp_path)])
    printed = capsys.readouterr().out
    F = [float(value) for value in re.split(r" [|/] ", re.search(r"basis_wav_piano \(2\) \| (.*) \|", printed)[1])]
    assert len(F) == 6
    assert min(F[2:]) > 0.9  # fitted to all, and now; without the piece there is one to learn from
    shares = [float(share) for share in re.search(r"\| now \| (.*) \|", printed)[1].split(" | ")]
    assert shares[0] < 0.2 < 0.9 < shares[9]  # of what is hardly, and of what is surely a note
    code = (root / "piano" / "events.py").read_text()
    for line in printed.splitlines()[-4:]:
        name, values = line.split(" = ")
        here = re.search(rf"^{name} = ([-\d., ]+?)(  #.*)?$", code, re.MULTILINE)[1]
        assert re.findall(r"\.\d+", re.sub(r"\d", "0", here)) == re.findall(r"\.\d+", re.sub(r"\d", "0", values))
