"""Names of notes, their pitch in a recording, and the notes of a folder."""

import functools
from pathlib import Path

import numpy as np
import pytest
import soundfile

import utils
from helpers import TEMPLATES, frequency
from piano import pitch

pytestmark = pytest.mark.same_everywhere("Fourier transforms, which take no BLAS")

SR = 22050
KEYS = list(range(21, 109))


def cents(f0, expected):
    return 1200 * np.log2(f0 / expected)


def rigaud(midi):
    """Mean inharmonicity B of a piano's string."""
    return np.exp(0.0926 * midi - 13.64) + np.exp(-0.0847 * midi - 5.82)


def string(f1, B, sr=SR, seconds=1.0, partials=range(1, 61)):
    """A struck string: partials ``n F sqrt(1 + B n^2)``, of which the first is ``f1`` Hz, that die away.

    Their levels fall by 12 dB an octave above 1 kHz, their time constants with the root of their frequency.
    """
    n = np.array(partials)
    f = f1 / np.sqrt(1 + B) * n * np.sqrt(1 + B * n**2)
    n, f = n[f < sr / 2], f[f < sr / 2]
    z = 2j * np.pi * f - 0.2 * np.sqrt(f)  # 1/s
    length, step = int(seconds * sr), 256  # exp(z t) is exp(z s) exp(z r), with s in steps and r within one
    s, r = np.exp(np.outer(np.arange(0, length, step) / sr, z)), np.exp(np.outer(z, np.arange(step) / sr))
    return (s * np.exp(1j * n) / (1 + (f / 1000) ** 2) @ r).imag.ravel()[:length]


@functools.cache
def note(midi):
    """Half a second of a key, which may lie between two."""
    return string(frequency(midi), rigaud(midi), seconds=0.5)


def knock(rng, sr=SR, seconds=1.0, last=0.02):
    """Noise below 1 kHz that dies away within ``last`` s, e-folded, over a little noise that stays."""
    t = np.arange(int(seconds * sr)) / sr
    X = np.fft.rfft(rng.standard_normal(len(t)))
    X[np.fft.rfftfreq(len(t), 1 / sr) > 1000] = 0
    y = np.fft.irfft(X, len(t)) * np.exp(-t / last)
    return y / np.abs(y).max() + 1e-3 * rng.standard_normal(len(t))


# --- Names ------------------------------------------------------------------------------------------


NAMES = {  # a piano's keys, and names that carry none or more than one
    None: "048 pf10 pf60 pf_10 take_1 1000_soft MAPS_ISOL_NO_M_S0_M21_AkPnBcht piano H4 mp3 loud2 C42 C4v ABC4",
    0: "C-1",
    21: "A0 A0v1",
    27: "D#1v4",
    36: "036_C2",
    37: "037_Cs2",
    48: "048_soft 048.soft",
    49: "Db3",
    54: "Grand-F#3-p",
    58: "Bb3 bb3 A#3_mf_2",
    59: "b3 Cb4",
    60: "B#3 Piano.mf.C4 Piano.pp.C4 C4-loud C4v10 60-soft piano_60 piano-060 piano_060_ff 060_velocity_100",
    61: "C#4",
    68: "A♭4",
    69: "a4",
    72: "48_C5",  # the name of a note comes before a number
    78: "F♯5",
    108: "C8",
}


@pytest.mark.parametrize("midi", NAMES)
def test_a_note_is_read_from_a_name_that_carries_one(midi):
    assert {stem: pitch.midi_of_name(stem) for stem in NAMES[midi].split()} == dict.fromkeys(NAMES[midi].split(), midi)
    assert (pitch.midi_of_name(""), pitch.midi_of_name("grand C4 soft")) == (None, 60)


def test_names_and_numbers_of_notes_are_each_others_inverse():
    assert [pitch.note_name(midi) for midi in (0, 21, 60, 61, 70, 108)] == ["C-1", "A0", "C4", "C#4", "A#4", "C8"]
    assert [pitch.midi_of_name(pitch.note_name(midi)) for midi in range(128)] == list(range(128))


def test_the_nearest_note_is_less_than_half_a_semitone_away():
    for f0, c3, midi in ((440, 130.81, 69), (451, 130.81, 69), (454, 130.81, 70), (27.5, 130.81, 21), (454, 135, 69)):
        assert pitch.nearest_key(pitch.semitones(f0, c3)) == midi
    assert [pitch.nearest_key(pitch.semitones(f)) for f in frequency(KEYS)] == KEYS
    real = {96: 21, 99: 31, 102: 40, 105: 54, 107: 57, 108: 99, 21: -40, 24: -30}  # cents, of grands and uprights
    for midi, away in real.items():
        assert pitch.nearest_key(pitch.semitones(frequency(midi) * 2 ** (away / 1200))) == midi


# --- The fundamental of one note --------------------------------------------------------------------


def without_low_partials(lowest):
    return lambda f1, B, _: string(f1, B, partials=range(max(1, round(lowest / f1)), 60))


def under_a_knock(f1, B, rng):
    y = string(f1, B, partials=[1])
    return y / np.abs(y).max() + 4 * knock(rng)


def in_noise(f1, B, rng):
    y = string(f1, B)
    return y + 0.1 * np.sqrt(np.mean(y[: SR // 2] ** 2)) * rng.standard_normal(len(y))


STRINGS = {  # keys, by how many cents they are out of tune, their sound, and by how many what is measured may be off
    "supple": (KEYS[::4], 0, lambda f1, B, _: string(f1, 0.4 * B), 3),
    "of average stiffness": (KEYS[2::2], 0, lambda f1, B, _: string(f1, B), 3),
    "stiff": (KEYS[1::4], 0, lambda f1, B, _: string(f1, 2.5 * B), 3),
    "flat": (range(21, 97, 6), -45, lambda f1, B, _: string(f1, B), 8),  # 0.1 Hz at A0
    "sharp": (range(21, 97, 6), 45, lambda f1, B, _: string(f1, B), 8),
    "of a stretched top octave": (range(97, 109), 60, lambda f1, B, _: string(f1, B, seconds=0.5), 4),
    "a third of a second long": (KEYS[::6], 0, lambda f1, B, _: string(f1, B, seconds=0.3), 40),
    "without partials below 80 Hz": (range(21, 48, 2), 0, without_low_partials(80), 15),
    "without partials below 250 Hz": (range(21, 48, 2), 0, without_low_partials(250), 15),
    "under a knock that is louder": (range(90, 109), 0, under_a_knock, 10),
    "in noise": (range(21, 109, 4), 0, in_noise, 15),
}


@pytest.mark.parametrize(("keys", "tuning", "sound", "most"), STRINGS.values(), ids=STRINGS)
def test_the_first_partial_of_a_string_is_measured(rng, keys, tuning, sound, most):
    off = {}
    for midi in keys:
        f1 = frequency(midi) * 2 ** (tuning / 1200)
        f0 = pitch.measure_f0(sound(f1, rigaud(midi), rng), SR)
        off[midi] = np.inf if f0 is None else abs(cents(f0, f1))
    assert {midi: away for midi, away in off.items() if away > most} == {}


def test_strings_without_stiffness_at_any_rate():
    rates = {55.3: 44100, 82.4: 22050, 261.6: 8000, 220.0: 96000, 110.0: 1000, 1975.5: 48000, 3900: 8000}
    for f1, sr in rates.items():
        assert cents(pitch.measure_f0(string(f1, 0.0, sr), sr), f1) == pytest.approx(0, abs=4), sr


@pytest.mark.parametrize("seconds", [0.3, 1.0, 3.0])
def test_noise_knocks_silence_a_moment_and_a_click_have_no_pitch(rng, seconds):
    for colour in (0, 0.5, 1):
        for _ in range(3):
            X = np.fft.rfft(rng.standard_normal(int(seconds * SR)))
            y = np.fft.irfft(X / np.arange(1, len(X) + 1) ** colour)
            assert pitch.measure_f0(y.astype(np.float32), SR) is None
    assert [pitch.measure_f0(knock(rng), SR) for _ in range(4)] == 4 * [None]
    for y in (np.zeros(SR), np.zeros(0), np.full(SR, 0.3), string(440, 0)[: SR // 15], np.eye(1, SR, 1000)[0]):
        assert pitch.measure_f0(y, SR) is None


# --- The notes of a folder --------------------------------------------------------------------------


def notes_of(sounds, c3=utils.C3_HZ, sr=SR):
    """MIDI numbers of a folder: a dict from a file's stem to the key that it sounds like, or to its samples."""

    def load(path):
        sound = sounds[path.stem]
        return sound if isinstance(sound, np.ndarray) else note(sound)

    return [midi for midi, _ in pitch.notes_of_folder([Path(f"{stem}.wav") for stem in sounds], load, sr, c3)]


OF_NAMES = "{name}v10", "Piano.pp.{name}", "Model D4 {name}", "piano_{midi:03d}_ff", "{midi}", "60_velocity_{midi}"


@pytest.mark.parametrize("pattern", [*OF_NAMES, "MAPS_ISOL_NO_M_S0_M{midi}_ENSTDkCl", "{midi:03d}_velocity_100"])
def test_a_folder_is_read_from_its_names(pattern):
    keys = [21, 40, 57, 60, 73, 99, 108]
    stems = [pattern.format(midi=midi, name=pitch.note_name(midi)) for midi in keys]
    assert notes_of(dict(zip(stems, keys, strict=True))) == keys


@pytest.mark.parametrize(("pattern", "away"), [("note_{}", 0), ("{:03d}", 0.45)])
def test_files_counted_from_one_are_measured_as_a_whole_and_may_be_out_of_tune(pattern, away):
    assert notes_of({pattern.format(midi - 20): midi + away for midi in KEYS[:40]}) == KEYS[:40]


def test_names_are_believed_where_they_are_those_of_notes():
    for sounds, keys in (
        ({"C4": 61, "take 1": 70, "take 2": 75}, [60, 70, 75]),  # a name is believed, other files are measured
        ({f"note_{number}": number + 10 for number in range(30, 40)}, list(range(40, 50))),  # numbers are no keys
        ({"C4v1": 60, "C4v2": 60, "C4v3": 60}, [60, 60, 60]),  # layers of one key
        ({f"Model D4 {n}": 50 + 3 * n for n in range(1, 8)}, list(range(53, 74, 3))),  # the name of the folder
    ):
        assert notes_of(sounds) == keys


@pytest.mark.parametrize(("layers", "step"), [(1, 1), (1, 3), (1, -2), (2, 1), (3, 5)])
def test_a_file_without_a_pitch_gets_that_of_its_place(rng, layers, step):
    keys = [60 + step * (i // layers) for i in range(12)]
    sounds = {f"take{i}": key for i, key in enumerate(keys)}
    sounds["take7"] = knock(rng)
    sounds["take3"] = string(2 * frequency(keys[3]), rigaud(keys[3] + 12))  # measured an octave off
    assert notes_of(sounds) == keys


def test_nothing_is_forced_where_steps_are_uneven():
    for keys in (
        [60, 62, 64, 65, 67, 69, 71, 72, 74, 76, 77, 79],  # white ones
        [*range(40, 60), 61, 62],  # a key is missing
        [*range(40, 44)],
    ):
        assert notes_of({f"take{i}": key for i, key in enumerate(keys)}) == keys


def test_a_measured_note_comes_with_its_fundamental_and_a_named_one_with_that_of_its_name_in_any_tuning():
    [(_, measured)] = pitch.notes_of_folder([Path("a.wav")], lambda _: string(450.0, 3e-4), SR)
    assert cents(measured, 450) == pytest.approx(0, abs=3)
    [(midi, named)] = pitch.notes_of_folder([Path("A4.wav")], lambda _: string(450.0, 3e-4), SR, 131.0)
    assert (midi, named) == (69, utils.note_frequency(69, 131.0))
    assert notes_of({"a": 65, "b": 70}, c3=utils.C3_HZ * 2 ** (5 / 12)) == [60, 65]


def test_the_templates_are_known_without_their_names():
    sounds = {f"pf{midi - 36}": soundfile.read(path)[0] for midi, path in TEMPLATES.items() if midi % 2}
    assert notes_of(sounds) == list(range(37, 96, 2))


def test_the_peak_of_a_parabola_lies_where_algebra_has_it():
    x, at = np.array([-1.0, 0.0, 1.0]), np.array([-0.5, 0.0, 0.3, 0.5])
    peak = pitch.parabola_peak(*(-3 * (x[:, None] - at) ** 2 + 7))
    np.testing.assert_allclose(peak, at, atol=1e-12)
    found = [pitch.parabola_peak(*values) for values in ((3.0, 2.0, 1.0), (1e300, 2e300, 3e300), (0.0, 0.0, 0.0))]
    assert found == [-1, 1, 0]  # a slope ends at its upper end, and what is flat stays in the middle
