"""Names of notes, their pitch in a recording, and the description beside a basis."""

import json

import numpy as np
import pytest

import notes

SR = 22050


def piano_like(f0, sr=SR, seconds=1.5, n_partials=20):
    """A decaying sum of the harmonics of ``f0`` Hz below Nyquist."""
    t = np.arange(int(seconds * sr)) / sr
    partials = f0 * np.arange(1, n_partials + 1)
    partials = partials[partials < sr / 2]
    return np.exp(-2 * t) * sum(0.8**n * np.sin(2 * np.pi * f * t + n) for n, f in enumerate(partials)) / 5


@pytest.mark.parametrize(
    ("stem", "midi"),
    [
        ("036_C2", 36),
        ("037_Cs2", 37),
        ("C#4", 61),
        ("Db3", 49),
        ("Bb3", 58),
        ("A♭4", 68),
        ("F♯5", 78),
        ("a4", 69),
        ("b3", 59),
        ("bb3", 58),
        ("Cb4", 59),
        ("B#3", 60),
        ("C-1", 0),
        ("A0", 21),
        ("C8", 108),
        ("Piano.mf.C4", 60),
        ("grand C4 soft", 60),
        ("C4-loud", 60),
        ("48_C5", 72),  # the name of a note comes before a number
        ("048", None),  # no separator
        ("048_soft", 48),
        ("048.soft", 48),
        ("60-soft", 60),
        ("piano_60", 60),
        ("piano-060", 60),
        ("pf10", None),
        ("pf60", None),
        ("pf_10", None),  # no key of a piano
        ("take_1", None),
        ("1000_soft", None),
        ("200_soft", None),
        ("piano", None),
        ("H4", None),
        ("mp3", None),
        ("loud2", None),
        ("C42", None),
        ("ABC4", None),
        ("", None),
    ],
)
def test_a_note_is_read_from_a_name_that_carries_one(stem, midi):
    assert notes.midi_of_name(stem) == midi


def test_names_and_numbers_of_notes_are_each_others_inverse():
    assert [notes.note_name(midi) for midi in (0, 21, 60, 61, 70, 108)] == ["C-1", "A0", "C4", "C#4", "A#4", "C8"]
    assert [notes.midi_of_name(notes.note_name(midi)) for midi in range(128)] == list(range(128))


@pytest.mark.parametrize(
    ("f0", "c3", "midi"), [(440, 130.81, 69), (451, 130.81, 69), (454, 130.81, 70), (27.5, 130.81, 21), (454, 135, 69)]
)
def test_the_nearest_note_is_less_than_half_a_semitone_away(f0, c3, midi):
    assert notes.nearest_midi(f0, c3) == midi


@pytest.mark.parametrize(("f0", "sr"), [(27.5, 22050), (65.4, 44100), (220.0, 16000), (1975.5, 22050)])
def test_the_pitch_of_a_note_is_measured(f0, sr):
    assert 1200 * np.log2(notes.measure_f0(piano_like(f0, sr), sr) / f0) == pytest.approx(0, abs=20)


def test_noise_has_no_pitch(rng):
    assert notes.measure_f0(rng.standard_normal(2 * SR).astype(np.float32), SR) is None


def description(**changes):
    columns = [{"file": "a.wav", "note": "C4", "f0": 261.6}, {"file": "b.wav", "note": "C#4", "f0": 277.2}]
    return {"sr": 22050, "n_fft": 8, "hop": 2, "window": "hann", "columns": columns} | changes


def test_a_description_is_found_beside_its_basis(tmp_path):
    assert notes.load_basis_info(tmp_path / "basis.npy", (5, 2)) is None
    (tmp_path / "basis.json").write_text(json.dumps(description()))
    assert notes.load_basis_info(tmp_path / "basis.npy", (5, 2)) == description()
    assert notes.load_basis_info(str(tmp_path / "basis.npy"), (5, 2)) == description()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        "7",
        "[" * 100000,
        '"\udcff"',
        json.dumps(description(sr=0)),
        json.dumps(description(sr="22050")),
        json.dumps(description(sr=float("inf"))),
        json.dumps(description(hop=float("nan"))),
        json.dumps(description(hop=None)),
        json.dumps(description(n_fft=-8)),
        json.dumps(description(columns=None)),
        json.dumps(description(columns=[1, 2])),
        json.dumps(description(columns=[{"note": "C4"}, {"note": "X"}])),
        json.dumps(description(columns=[{"note": "C4"}, {"file": "b.wav"}])),
        json.dumps({"columns": description()["columns"]}),
    ],
)
def test_what_is_no_description_is_named(tmp_path, text):
    (tmp_path / "basis.json").write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(notes.InputError, match=r"basis.json: got no description of a basis, expected sr, n_fft, hop"):
        notes.load_basis_info(tmp_path / "basis.npy", (5, 2))


@pytest.mark.parametrize("shape", [(5, 3), (6, 2)])
def test_the_description_of_another_basis_is_named(tmp_path, shape):
    (tmp_path / "basis.json").write_text(json.dumps(description()))
    with pytest.raises(notes.InputError, match=r"basis.json: got a description of a basis of shape \(5, 2\), expected"):
        notes.load_basis_info(tmp_path / "basis.npy", shape)
