"""The whole way from templates to separated notes, on a real recording with the truth beside it."""

import json

import numpy as np
import pytest
import soundfile

import NMF
from piano import pitch, recording

pytestmark = pytest.mark.same_everywhere("sounds that are stored, and a median in dB far from its bound")

SR = 22050
LSB = 2.0**-15  # of 16-bit samples
EXAMPLES = ["matched", "mismatched"]


def read_example(folder):
    """The mixture, and the stems by MIDI note."""
    mixture, sr = soundfile.read(folder / "mixture.flac")
    assert sr == SR
    return mixture, {pitch.midi_of_name(path.stem): soundfile.read(path)[0] for path in (folder / "stems").iterdir()}


@pytest.fixture(scope="module")
def separated(tmp_path_factory, root, learnt):
    """SDR in dB of every note of the matched example, by name."""
    folder = tmp_path_factory.mktemp("separation")
    mixture, stems = read_example(root / "examples" / "chorale" / "matched")
    Y = recording.stft(mixture.astype(np.float32))
    np.save(folder / "spec.npy", Y)
    NMF.main([str(folder / "spec.npy"), "200", str(learnt / "fixed_basis.npy"), "-o", str(folder)])
    H, U = (np.load(folder / f"{name}.npy").astype(np.float64) for name in ("basis_calc", "activation_calc"))
    columns = json.loads((learnt / "fixed_basis.json").read_text("utf-8"))["columns"]
    model = H @ U
    model[model == 0] = np.inf  # silent frames: no note has a share in them
    sdr = {}
    for l, column in enumerate(columns):
        midi = pitch.midi_of_name(column["note"])
        if midi in stems:
            estimate = recording.istft(np.outer(H[:, l], U[l]) / model * Y, len(mixture))
            s = stems.pop(midi)
            sdr[column["note"]] = 10 * np.log10(np.sum(s**2) / np.sum((s - estimate) ** 2))
    assert not stems  # every note that sounds has a column
    return sdr


def test_the_median_note_is_separated_by_at_least_6_db(separated):
    table = ", ".join(f"{note} {sdr:.1f}" for note, sdr in separated.items())
    assert np.median(list(separated.values())) >= 6, f"SDR of each note in dB: {table}"


@pytest.mark.parametrize("example", EXAMPLES)
def test_the_mixture_is_the_sum_of_its_stems(root, example):
    mixture, stems = read_example(root / "examples" / "chorale" / example)
    assert {len(stem) for stem in stems.values()} == {len(mixture)}
    most = (len(stems) + 1) / 2 * LSB  # every file is rounded by at most half a step
    assert np.abs(mixture - sum(stems.values())).max() <= most
    assert np.abs(mixture).max() < 1 - LSB  # nothing clips
