"""Scores matched with the examples, whose notes are known, lists that are given back, and keys without a template."""

import numpy as np
import pytest
import soundfile

import NMF
import utils
from helpers import struck, with_keys
from piano import basis, events, notes, recording, scores

pytestmark = pytest.mark.same_everywhere("far from what decides it")


@pytest.fixture(scope="module")
def piano(learnt):
    return basis.load(learnt / "fixed_basis.npy", with_rotation=True)


@pytest.fixture(scope="module")
def sound(root):
    return recording.load(root / "examples" / "chorale" / "mismatched" / "mixture.flac", events.SR).astype(np.float32)


@pytest.fixture(scope="module")
def played(root):
    return notes.read_score(root / "examples" / "chorale" / "notes.csv")


def retimed(score, time):
    return [note._replace(onset=float(time(note.onset)), offset=float(time(note.offset))) for note in score]


@pytest.mark.parametrize(("start", "slower", "rubato"), [(5, 0.5, 0), (1, 1.4, 0.3)])  # by half and back every six s
def test_a_score_in_any_tempo_is_placed(sound, played, piano, start, slower, rubato):
    given = retimed(played, lambda t: start + slower * t + rubato * np.sin(t))
    placed, alignment = scores.align(given, sound, piano)
    assert len(placed) == len(played)
    times = np.array([[(note.onset, note.offset) for note in listed] for listed in (placed, played)])
    assert np.mean(np.abs(times[0, :, 0] - times[1, :, 0]) < 0.05) > 0.9  # then each is moved by as much at most
    length = np.diff(times)[..., 0]
    assert np.median(length[0] / length[1]) == pytest.approx(1, abs=0.1)
    assert "of the recording, played at" in alignment.in_words()


def test_a_score_in_the_time_of_the_recording_stays_in_it(sound, played, piano):
    assert scores.align(played, sound, piano)[0] == played


def test_what_was_not_recorded_is_left_out(sound, played, piano):
    """The recording ends in the middle of the piece."""
    middle = len(sound) // 2
    placed, alignment = scores.align(retimed(played, lambda t: 1.3 * t), sound[:middle], piano)
    recorded = [note for note in played if note.onset < middle / events.SR]
    assert abs(len(placed) - len(recorded)) <= 8  # two chords
    assert f"{len(played) - len(placed)} notes lie beyond the recording" in alignment.in_words()


def test_a_score_a_semitone_off_is_told_and_not_moved(sound, played, piano):
    higher = [note._replace(midi=note.midi + 1) for note in played]
    with pytest.raises(utils.InputError, match=r"expected a score of this recording; transposed by -1 semitone, \d+%"):
        scores.align(higher, sound, piano)


@pytest.mark.parametrize("other", ["prelude", "invention"])
def test_a_score_of_another_piece_is_refused(root, sound, piano, other):
    score = notes.read_score(root / "examples" / other / "notes.csv")
    with pytest.raises(utils.InputError, match=r"--score: \d+% of its notes were struck, expected a score of this"):
        scores.align(score, sound, piano)


def test_the_matrix_of_a_long_recording_is_bounded(monkeypatch, rng):
    """Five minutes against as many, at a tenth of the bound; what is asked of librosa is counted."""
    import librosa.sequence

    cells, dtw = [], librosa.sequence.dtw
    monkeypatch.setattr(librosa.sequence, "dtw", lambda C: (cells.append(C.size), dtw(C=C))[1])
    monkeypatch.setattr(scores, "MOST_CELLS", scores.MOST_CELLS // 10)
    told = scores.Onsets(np.sort(rng.uniform(0, 300, 1200)), rng.integers(40, 80, 1200), np.ones(1200))
    at = scores.place(told, told)
    assert max(cells) < 1.1 * scores.MOST_CELLS
    assert np.mean(np.abs(at - told.time) < 0.05) > 0.95


def test_no_key_without_a_template_is_named_in_an_example(piano, root):
    y = recording.load(root / "examples" / "invention" / "mismatched" / "mixture.flac", events.SR)
    assert notes.played_beyond(y[: 6 * events.SR], piano) == []


@pytest.mark.usefixtures("drawn")
def test_keys_without_a_template_are_named_in_a_line(tmp_path, piano, capsys):
    basis.save(tmp_path / "fixed_basis.npy", with_keys(piano, range(60, 72)))
    soundfile.write(tmp_path / "song.wav", np.pad(struck(60, 57, 64, 75, 67, 72, seconds=1), (0, 22050)), 22050)
    NMF.main([str(tmp_path / "song.wav"), "3", str(tmp_path / "fixed_basis.npy"), "-o", str(tmp_path / "out")])
    line = "A3, C5, D#5: played, but no key of the basis (make_init_H.py --keys A0 C8 gives it all keys)"
    assert line in capsys.readouterr().err.splitlines()
