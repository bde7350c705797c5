"""The tool that fits the list's numbers again, on recordings of which the truth is known."""

import re

import numpy as np
import pytest
import soundfile

from helpers import python
from piano import events, notes, recording

pytestmark = pytest.mark.same_everywhere("what it fits are weights to two decimals")


@pytest.fixture
def tool(root, benchmark, monkeypatch):
    monkeypatch.syspath_prepend(str(root / "tools"))
    import fit_list

    return fit_list


def found_at(onset, level, pattern):
    n = len(onset)
    rest = np.zeros(n), np.full(n, -1)
    return events.Found(np.array(pattern), np.array(onset), np.array(onset), np.array(level), *rest, 1000)


def test_an_event_is_right_where_a_note_of_its_key_is_left(tool):
    """The second is softer than the first, which has the note; the third has no note near; the last another key."""
    found = found_at([1.01, 0.99, 2.2, 3.0], [2.0, 1.0, 1.0, 1.0], [0, 0, 0, 1])
    truth = np.array([(1.0, 1.5, 60), (2.1, 2.5, 60), (3.0, 3.5, 60)])
    np.testing.assert_allclose(tool.delays(found, np.array([60, 64]), truth), [0.01, np.nan, np.nan, np.nan])


def test_weights_are_the_ones_that_labels_were_drawn_by(tool, rng, monkeypatch):
    w = np.array([1.5, -1.0, 0.5, 0.0, 2.0, -0.5, 0.3])
    x = np.column_stack([rng.standard_normal((40_000, 6)), np.ones(40_000)])
    delay = np.where(rng.random(len(x)) < 1 / (1 + np.exp(-x @ w)), 0.0, np.nan)
    monkeypatch.setattr(events, "evidence", lambda found, midi: x)
    heard = tool.Heard("", None, 1.0, None, None, None, delay)
    np.testing.assert_allclose(tool.fitted([heard]), w, atol=0.1)  # five standard errors


def test_it_prints_lines_that_the_code_has(tmp_path, root):
    """The lines of the product are set in the form that the tool prints, from two pieces of six seconds."""
    for piece in ("chorale", "prelude"):
        y = recording.load(root / "examples" / piece / "matched" / "mixture.flac", events.SR)
        soundfile.write(tmp_path / f"{piece}.flac", y[: 6 * events.SR], events.SR)
        played = notes.read_score(root / "examples" / piece / "notes.csv")
        notes.write_notes_csv(tmp_path / f"{piece}.csv", [note for note in played if note.offset < 6])
    printed = python(root / "tools" / "fit_list.py", tmp_path).stdout
    cells = re.search(r"basis_wav_piano \(2\) \| (.*) \|", printed)[1]
    F = [float(value) for value in re.split(r" [|/] ", cells)]
    assert len(F) == 6
    assert min(F[2:]) > 0.9  # fitted to all, and now; without the piece there is one to learn from
    code = (root / "piano" / "events.py").read_text()
    for line in printed.splitlines()[-4:]:
        name, values = line.split(" = ")
        here = re.search(rf"^{name} = ([-\d., ]+?)(  #.*)?$", code, re.MULTILINE)[1]
        assert re.findall(r"\.\d+", re.sub(r"\d", "0", here)) == re.findall(r"\.\d+", re.sub(r"\d", "0", values))
