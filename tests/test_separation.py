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


@pytest.mark.parametrize("example", EXAMPLES)
def test_every_stem_holds_the_notes_of_the_list_and_no_other(root, example):
    _, stems = read_example(root / "examples" / "chorale" / example)
    onset, duration, midi, _ = np.loadtxt(root / "examples" / "chorale" / "notes.csv", delimiter=",", skiprows=1).T
    assert sorted(stems) == sorted({int(m) for m in midi})
    for m, stem in stems.items():
        first = np.flatnonzero(np.abs(stem) > 1e-2 * np.abs(stem).max())[0] / SR
        assert first == pytest.approx(onset[midi == m].min(), abs=0.03)
        sounding = np.zeros(len(stem), bool)
        for start, length in zip(onset[midi == m], duration[midi == m], strict=True):
            sounding[round(start * SR) : round((start + length + 0.5) * SR)] = True
        assert np.sum(stem[~sounding] ** 2) < 1e-4 * np.sum(stem**2)


def test_the_templates_are_sixty_whole_notes(templates):
    assert [pitch.midi_of_name(path.stem) for path in templates] == list(range(36, 96))
    for path in templates:
        y, sr = soundfile.read(path, always_2d=True)
        assert (sr, y.shape, soundfile.info(path).subtype) == (SR, (round(2.5 * SR), 1), "PCM_16")
        peak = np.abs(y).max()
        assert peak < 1 - LSB
        assert np.flatnonzero(np.abs(y) > 1e-2 * peak)[0] < 0.01 * SR, path.name  # begins with its onset
