"""Keys that are played and have no template: they are named, and no others are."""

import numpy as np
import pytest
import soundfile

import NMF
from piano import basis, events, notes, recording

pytestmark = [
    pytest.mark.same_everywhere("names of keys; the list is in test_events"),
    pytest.mark.usefixtures("unrendered"),
]


@pytest.fixture(scope="module")
def octave(learnt):
    """The basis of C4 to B4 alone."""
    whole = basis.load(learnt / "fixed_basis.npy")
    kept = [l for l, midi in enumerate(whole.templates) if 60 <= midi < 72]
    columns = [whole.columns[l] for l in kept]
    rotation = np.zeros((len(whole.H), len(kept)), np.complex64)
    return basis.Basis(whole.H[:, kept], *whole.stft.values(), columns, rotation, whole.patterns[kept])


def played(templates, midis):
    """One note after another, each for a second, at the rate of the list."""
    y = [recording.load(templates[midi - 36], events.SR)[: events.SR] for midi in midis]
    return np.concatenate([*y, np.zeros(events.SR, np.float32)])


def test_none_is_named_in_an_example(learnt, root):
    y = recording.load(root / "examples" / "invention" / "mismatched" / "mixture.flac", events.SR)
    assert notes.played_beyond(y, basis.load(learnt / "fixed_basis.npy")) == []


def test_a_run_says_so_in_a_line_and_a_quiet_one_does_not(tmp_path, octave, templates, capsys):
    basis.save(tmp_path / "fixed_basis.npy", octave)
    soundfile.write(tmp_path / "song.wav", played(templates, [60, 57, 64, 75, 67, 57, 75, 72]), events.SR)
    command = [str(tmp_path / "song.wav"), "3", str(tmp_path / "fixed_basis.npy"), "-o", str(tmp_path / "out")]
    line = "A3, C5, D#5: played, but no key of the basis (make_init_H.py --keys A0 C8 gives it all keys)"
    NMF.main(command)
    assert line in capsys.readouterr().err.splitlines()
    NMF.main([*command, "--quiet"])
    assert capsys.readouterr().err == ""
