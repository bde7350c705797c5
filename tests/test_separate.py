"""Sounds in, sounds out: what comes out adds up to what went in."""

import itertools
import re
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import librosa
import numpy as np
import pytest
import soundfile

import CNMF
import make_init_H
import NMF
import utils
from helpers import TEMPLATES, chorale, contents, data_of, level, python, with_keys
from piano import basis, listen, notes, recording, results, separate
from piano.basis import Basis

pytestmark = [pytest.mark.same_everywhere("what it computes, others test"), pytest.mark.usefixtures("drawn")]

SR = 22050
CHORD = chorale(1.5).astype(np.float32)


@pytest.fixture(scope="module")
def piano(tmp_path_factory, learnt):
    """Folder of a basis of C3 to C5."""
    folder = tmp_path_factory.mktemp("piano")
    whole = basis.load(learnt / "fixed_basis.npy", with_rotation=True)
    basis.save(folder / "fixed_basis.npy", with_keys(whole, range(48, 73)))
    return folder


@pytest.fixture
def folder(tmp_path, monkeypatch, piano):
    """Working folder with a basis, its description, and ``chord.wav``."""
    monkeypatch.chdir(tmp_path)
    for name in ("fixed_basis.npy", "fixed_basis.json"):
        shutil.copyfile(piano / name, name)
    soundfile.write("chord.wav", CHORD, SR, subtype="FLOAT")
    return tmp_path


@pytest.fixture
def with_patterns(folder, piano):
    """The working folder, with the patterns that the event model needs."""
    shutil.copyfile(piano / "fixed_basis_patterns.npy", folder / "fixed_basis_patterns.npy")
    return folder


def listed_pitches(folder):
    return {note.midi for note in notes.read_score(folder / "notes.csv")}


def read_stems(folder):
    """All stems [shape=(n_files, n)] of a folder, by name, with their sampling rate."""
    sounds = {path.name: soundfile.read(path, dtype="float64") for path in sorted(folder.iterdir())}
    (sr,) = {sr for _, sr in sounds.values()}
    return {name: y for name, (y, _) in sounds.items()}, sr


def null(y, stems):
    """Energy of what is left of ``y`` when all stems are taken away, in dB relative to y."""
    return level(y - sum(stems.values()), y)


@pytest.mark.parametrize("example", ["matched", "mismatched"])
def test_the_mixture_of_an_example_is_the_sum_of_its_stems(root, example):
    folder = root / "examples" / "chorale" / example
    (stems, sr), (mixture, rate) = read_stems(folder / "stems"), soundfile.read(folder / "mixture.flac")
    assert sr == rate == SR
    step = 2.0**-15  # of 16-bit samples, and every file is rounded by at most half of it
    assert np.abs(mixture - sum(stems.values())).max() <= (len(stems) + 1) / 2 * step
    assert np.abs(mixture).max() < 1 - step  # nothing clips


COMMANDS = {
    "wiener": (NMF, []),
    "ratio": (NMF, ["all", "--mask", "ratio", "--loss", "kullback-leibler"]),
    "random phase": (CNMF, ["--phase-init", "random", "--adapt", "none"]),
    "sinusoidal phase of an adapted basis": (CNMF, []),
}


@pytest.mark.parametrize(("script", "options"), COMMANDS.values(), ids=COMMANDS)
def test_stems_and_residual_sum_to_the_sound(with_patterns, piano, monkeypatch, script, options):
    """Stems are those of the list; with ``all``, of what is loud enough."""
    monkeypatch.setattr(notes, "played_beyond", None)  # a quiet run does not ask for what it would remark
    shutil.copyfile(piano / "fixed_basis_rotation.npy", "fixed_basis_rotation.npy")
    script.main(["--stems", *options, "chord.wav", "3", "fixed_basis.npy", "--quiet"])
    stems, sr = read_stems(with_patterns / "stems")
    assert sr == SR
    assert null(CHORD.astype(np.float64), stems) < -120
    assert {soundfile.info(path).subtype for path in (with_patterns / "stems").iterdir()} == {"PCM_24"}
    pitches = {int(name[:3]) for name in set(stems) - {"residual.flac"}}
    assert len(pitches) > 4
    assert "all" in options or pitches == listed_pitches(with_patterns)
    assert {"notes.csv", "notes.mid", "notes.wav", "spectrogram.png"} <= {path.name for path in Path().iterdir()}


def test_a_stem_is_the_inverse_transform_of_the_masked_mixture_and_quiet_notes_have_none(folder):
    """A note has two states, and an earlier run's stems do not stay."""
    Y, piano = recording.stft(CHORD), basis.load("fixed_basis.npy")
    H = np.stack([piano.H, piano.H**0.5], axis=2)  # (K, notes, states)
    columns = [column for column in piano.columns for _ in range(2)]
    basis.save("two.npy", replace(piano, H=H.reshape(len(H), -1), columns=columns))
    for mask, power, top_db in (("wiener", 2, 60), ("ratio", 1, 12)):
        NMF.main(["chord.wav", "5", "two.npy", "--stems", "all", "--top-db", str(top_db), "--mask", mask])
        stems, _ = read_stems(folder / "stems")
        U = np.load("activation_calc.npy").reshape(*H.shape[1:], -1)
        peaks = U.sum(axis=1).max(axis=1)
        peaks = 20 * np.log10(np.maximum(peaks / peaks.max(), 1e-20))
        loud = np.flatnonzero(peaks >= -top_db)
        assert [name[:3] for name in stems] == [*(f"{48 + l:03d}" for l in loud), "res"]
        A = np.einsum("kns,nsm->nkm", H.astype(np.float64), U) ** power
        total = np.maximum(A.sum(axis=0), 1e-300)  # the first frame may be silent
        for l, stem in zip(loud, stems.values(), strict=False):
            expected = recording.istft(A[l] / total * Y, len(CHORD))
            np.testing.assert_allclose(stem, expected, atol=2e-6)  # steps of 24 bit are 1e-7
    assert not list(folder.glob(".part-*"))


@pytest.mark.parametrize("rate", [44100, 16000])
def test_stems_at_the_rate_of_a_stereo_recording(folder, rng, rate):
    n = rate // 2 + 1  # the last sample of an odd number is half a sample at 22050 Hz
    soundfile.write("stereo.flac", 0.1 * rng.standard_normal((n, 2)), rate, subtype="PCM_24")
    NMF.main(["stereo.flac", "3", "fixed_basis.npy", "--stems", "--native-sr"])
    stems, sr = read_stems(folder / "stems")
    assert (sr, {len(stem) for stem in stems.values()}) == (rate, {n})
    assert null(soundfile.read("stereo.flac")[0].mean(axis=1), stems) < -120


def test_a_complex_spectrogram_has_stems_too(folder):
    np.save("spec.npy", Y := recording.stft(CHORD))
    NMF.main(["spec.npy", "5", "fixed_basis.npy", "--stems"])
    sound = recording.istft(Y, 512 * (Y.shape[1] - 1)).astype(np.float64)
    assert null(sound, read_stems(folder / "stems")[0]) < -100  # two inverse transforms in single precision
    assert not (folder / "notes.csv").exists()


@pytest.mark.parametrize("script", [NMF, CNMF])
def test_states_of_a_note_are_one_stem_and_without_a_description_stems_are_numbered(folder, script):
    piano = basis.load("fixed_basis.npy")
    H, columns = piano.H[:, ::3], [column for column in piano.columns[::3] for _ in range(2)]
    basis.save("two.npy", replace(piano, H=np.repeat(H, 2, axis=1), columns=columns))
    np.save("bare.npy", H)
    for name, pattern in (("two.npy", r"\d{3}_[A-G]s?\d\.flac"), ("bare.npy", r"component_\d{3}\.flac")):
        script.main(["chord.wav", "5", name, "--stems", "all", "--top-db", "300", "--sr", "22050"])
        stems, _ = read_stems(folder / "stems")
        assert null(CHORD.astype(np.float64), stems) < -120
        del stems["residual.flac"]
        assert all(re.fullmatch(pattern, name) for name in stems)
        assert len(stems) <= 10


def test_what_clipped_stems_lack_is_counted_and_in_the_residual(folder, capsys):
    loud = (4 * np.sin(2 * np.pi * 262 * np.arange(SR) / SR)).astype(np.float32)  # a C4 far beyond full scale
    soundfile.write("loud.wav", loud, SR, subtype="FLOAT")
    NMF.main(["loud.wav", "20", "fixed_basis.npy", "--stems", "--format", "wav", "--quiet", "-o", "floats"])
    assert capsys.readouterr().err == ""
    stem = soundfile.read("floats/stems/060_C4.wav")[0]
    above, below = (stem > 1).sum(), (stem < -1).sum()
    assert min(above, below) > 100
    NMF.main(["loud.wav", "20", "fixed_basis.npy", "--stems", "--quiet"])
    stems, _ = read_stems(folder / "stems")
    loudest = {name: np.abs(stem).max() for name, stem in stems.items()}
    assert loudest.pop("residual.wav") > 1
    assert max(loudest.values()) == pytest.approx(1, abs=1e-6)  # steps of 24 bit
    assert null(loud.astype(np.float64), stems) < -120
    assert f"{above + below} samples of 060_C4.flac clipped; what they lack is in residual." in capsys.readouterr().err


def test_what_adding_the_stems_up_gives_is_told_in_db_and_nothing_is_too_soft(folder, capsys):
    soundfile.write("soft.wav", 0.3 * CHORD, SR, subtype="FLOAT")  # between the steps of the file's samples
    soundfile.write("least.wav", 1e-20 * CHORD, SR, subtype="FLOAT")  # far too soft for FLAC
    for name, kind in (("soft", "flac"), ("soft", "wav"), ("chord", "flac"), ("least", "flac")):
        NMF.main([f"{name}.wav", "10", "fixed_basis.npy", "--stems", "--format", kind])
        left, said = null(soundfile.read(f"{name}.wav")[0], read_stems(folder / "stems")[0]), capsys.readouterr().err
        if name == "soft":
            told = re.search(r"a difference (\S+) dB softer", said)
            assert -float(told[1]) == pytest.approx(left, abs=0.51)  # it is told in whole dB
        assert name != "chord" or "stems and a residual. Added up, they are the recording." in said
    assert left < -120
    assert (folder / "stems" / "residual.wav").exists()


@pytest.mark.parametrize("script", [NMF, CNMF])
def test_silence_is_all_residual(folder, capsys, script):
    soundfile.write("silence.wav", np.zeros(5000), SR)
    script.main(["silence.wav", "3", "fixed_basis.npy", "--stems"])
    stems, _ = read_stems(folder / "stems")
    assert list(stems) == ["residual.flac"]
    assert not stems["residual.flac"].any()
    assert (np.load("activation_calc.npy") == 0).all()
    said = capsys.readouterr().err
    assert "and a residual. They are silent, as the recording is.\n" in said
    assert "leaves out has 0 % of the recording's energy" in said


@pytest.mark.parametrize(("n", "n_fft", "hop"), [(50000, 2048, 512), (3001, 1024, 300), (70000, 4096, 1024)])
def test_transforms_by_blocks_are_those_of_librosa_and_their_inverse(rng, n, n_fft, hop):
    y = rng.standard_normal(n).astype(np.float32)
    Y = librosa.stft(y, n_fft=n_fft, hop_length=hop)
    np.testing.assert_allclose(recording.stft(y, n_fft=n_fft, hop=hop), Y, atol=1e-4)
    X = Y * rng.random(Y.shape)  # no signal has this transform
    X[:, 31:35] = 0
    window, sums = np.hanning(n_fft + 1)[:-1], np.zeros((2, n + 2 * n_fft))
    for m, x in enumerate(X.T):  # the sound whose transform is nearest
        sums[:, m * hop : m * hop + n_fft] += window * np.fft.irfft(x), window**2
    expected = (sums[0] / np.maximum(sums[1], 1e-9))[n_fft // 2 : n_fft // 2 + n]
    inverse = recording.InverseSTFT(X.shape[1], n, n_fft=n_fft, hop=hop)
    pieces = [inverse.add(X[:, i : i + 37]) for i in range(0, X.shape[1], 37)]
    np.testing.assert_allclose(np.concatenate([*pieces, inverse.finish()]), expected, atol=1e-5)


@pytest.mark.parametrize("mask", ["wiener", "ratio"])
@pytest.mark.parametrize("gains", [(1, 1), (1e25, 1), (1e37, 1e-30), (1e-30, 1e30)])
def test_where_nothing_is_modelled_no_note_has_a_share(rng, mask, gains):
    """A basis that is zero from some bin on, and levels at both ends of single precision."""
    gain, level = np.float32(gains)
    H, U = rng.random((9, 3), np.float32) * level, rng.random((3, 20), np.float32) * gain
    H[6:], U[0] = 0, 0
    Y = ((rng.random((9, 20)) + 1) * gain).astype(np.complex64)
    (of_note,) = separate.masked_notes(Y, Basis(H), U, mask=mask)
    found = [of_note(note) for note in range(3)]
    assert np.isfinite(found).all()
    assert not np.any(found[0])
    total = np.sum(found, axis=0)
    np.testing.assert_allclose(total[:6], Y[:6], rtol=1e-5)
    assert not total[6:].any()


def test_what_is_not_finite_is_never_written(tmp_path):
    bad = np.array([[0, np.nan]], np.float32)
    with pytest.raises(utils.InputError, match=r"a\.npy: got results that are not finite"):
        utils.save(tmp_path / "a.npy", bad)
    with (
        pytest.raises(utils.InputError, match=r"b\.npy: got results"),
        utils.frame_writer(tmp_path / "b.npy", (1, 2), "f4") as write,
    ):
        write(bad)
    sound = recording.Recording("a", np.ones((1025, 4), np.complex64), np.ones(1536), 22050, 22050, 2048, 512, tmp_path)
    writer = separate.StemWriter(tmp_path / "stems", Basis(np.ones((1025, 1))), [0], sound, "wav")
    with pytest.raises(utils.InputError, match=r"component_000\.wav: got results"), writer:
        writer.write(lambda note: np.full((1025, 4), np.nan, np.complex64))
    with pytest.raises(utils.InputError, match="got results"):
        notes.write_sound(tmp_path / "d.wav", [notes.Note("C4", 60, 262.0, 0, 1, np.nan)], 9, 8000, 1.0)


# --- Before a key is struck ---


def struck_stem(rng, echo):
    """A stem of 8 kHz with what windows of 1024 smear before its strikes, and where those are."""
    y, strikes = np.zeros(16000), [4000, 11000]
    t = np.arange(2000) / 8000
    for strike in strikes:
        y[strike : strike + 2000] += np.sin(2 * np.pi * 440 * t) * np.exp(-t / 0.05)
        y[strike : strike + 20] += 0.3 * rng.standard_normal(20)  # the hammer
        y[strike - 512 : strike] += echo * np.sin(np.linspace(0, 30, 512)) * np.linspace(0, 1, 512)
    return (y + 1e-4 * rng.standard_normal(len(y))).astype(np.float32), strikes


def test_a_key_that_was_silent_is_silent_until_it_is_struck_and_one_that_rings_is_left_alone(rng):
    y, strikes = struck_stem(rng, 0.2)
    other = np.roll(y, 3000)
    stems = np.stack([y, np.zeros_like(y), other])
    for strike, late in zip(strikes, (80, -200), strict=True):  # samples; a list is as wrong as that
        separate.quiet_before(stems, 0, strike + late, 1024, 8000)
    for strike in strikes:
        assert np.abs(stems[0, strike - 400 : strike - 72]).max() < 1e-6  # an attack is 56 long, 16 fade before it
        np.testing.assert_array_equal(stems[0, strike + 16 : strike + 3000], y[strike + 16 : strike + 3000])
    assert not stems[1].any()  # what is unlike gets nothing
    np.testing.assert_allclose(stems.sum(axis=0), y + other, atol=1e-6)
    strike = strikes[0]
    y[:strike] += 0.12 * np.sin(2 * np.pi * 440 * np.arange(strike) / 8000).astype(np.float32)  # it rings
    stems = y[None].copy()
    separate.quiet_before(stems, 0, strike, 1024, 8000)
    np.testing.assert_array_equal(stems[0], y)


def test_a_stem_fades_in_around_its_strike_and_what_begins_with_the_recording_is_left_alone(rng):
    y = np.zeros(12000, np.float32)
    y[6000:] = rng.standard_normal(6000)  # the hammer lasts as long as what tells it
    for first in (0, 6000):
        stems = y[None, first:].copy()
        separate.quiet_before(stems, 0, 6000 - first, 1024, 8000)
        rise = np.sin(np.linspace(0, np.pi / 2, 32, endpoint=False)) ** 2  # 4 ms
        expected = y[first:].copy()
        if not first:
            expected[5984:6016] *= rise.astype(np.float32)
        np.testing.assert_allclose(stems[0], expected, atol=1e-6)


def test_of_a_chord_no_stem_gets_what_is_taken_from_another_before_it_is_struck_itself(rng):
    y, (strike, _) = struck_stem(rng, 0.2)
    y[strike - 60 : strike - 30] += 0.05 * rng.standard_normal(30).astype(np.float32)  # another hammer, 26 dB softer
    n = np.arange(len(y)) - strike + 512
    like, unlike = (0.3 * np.sin(turn * n).astype(np.float32) for turn in (30 / 511, 1))
    stems = np.stack([y, y, like, unlike])
    for i, late in ((0, -30), (1, 20)):
        separate.quiet_before(stems, i, strike + late, 1024, 8000)
    assert np.abs(stems[:2, strike - 400 : strike - 32]).max() < 1e-6
    got, got_unlike = np.sum((stems[2:] - [like, unlike]) ** 2, axis=1)
    assert got_unlike < 0.01 * got
    np.testing.assert_allclose(stems.sum(axis=0), 2 * y + like + unlike, atol=1e-5)


@pytest.mark.parametrize("size", [700, 5000, 16000])
def test_strikes_are_the_same_in_blocks_of_any_size(rng, size):
    y, strikes = struck_stem(rng, 0.2)
    stems = np.stack([y, np.roll(y, 500)])
    onsets = [strikes, [strike + 500 for strike in strikes]]
    passed = separate.Strikes(onsets, 1024, 8000)
    parts = [passed.add(stems[:, i : i + size]).copy() for i in range(0, len(y), size)]
    parts.append(passed.add(stems[:, :0], last=True))
    for onset, which in sorted((onset, which) for which, struck in enumerate(onsets) for onset in struck):
        separate.quiet_before(stems, which, onset, 1024, 8000)
    np.testing.assert_allclose(np.concatenate(parts, axis=1), stems, atol=1e-7)  # BLAS may add in another order


def test_strikes_at_the_ends_and_in_silence_do_no_harm():
    for stems in (np.zeros((2, 3000), np.float32), np.ones((1, 3000), np.float32), np.ones((2, 1), np.float32)):
        for onset in (0, 5, stems.shape[1] - 1, stems.shape[1] + 900):
            for sr in (8000, 100):
                separate.quiet_before(stems, 0, onset, 1024, sr)
            assert np.isfinite(stems).all()


def test_a_key_is_fresh_where_it_is_not_listed_before():
    note = notes.Note("C4", 60, 262.0, 0.0, 1.0, 0.0)
    again, later = note._replace(onset=1.05, offset=1.2), note._replace(onset=1.5, offset=2.0)
    other = note._replace(midi=62, onset=0.5)
    assert separate.fresh_onsets([later, other, note, again], 100) == {60: [0, 150], 62: [50]}


# --- The notes of the list ---


def test_the_list_is_that_of_the_recording_whatever_takes_it_apart(folder, learnt):
    """Other scripts, losses and transforms; the notes are those of notes.csv."""
    keys = 52, 59, 60, 64, 67, 69, 71
    (folder / "keys").mkdir()
    for midi in keys:
        shutil.copy(TEMPLATES[midi], "keys")
    make_init_H.main(["keys", "--n-fft", "4096", "--hop-length", "512", "--states", "2", "--quiet", "-o", "keys"])
    basis.save("few.npy", with_keys(basis.load(learnt / "fixed_basis.npy", with_rotation=True), keys))
    lists = []
    for script, name, options in ((NMF, "few.npy", ["--loss", "kullback-leibler"]), (CNMF, "keys/fixed_basis.npy", [])):
        script.main(["chord.wav", "3", name, "--quiet", "-o", "out", *options])
        lists.append([Path("out", name).read_bytes() for name in ("notes.csv", "notes.mid", "notes.wav")])
    assert lists[0][0].count(b"\n") > 4
    assert lists[0] == lists[1]


def test_a_basis_without_patterns_says_so_and_lists_by_activations(folder, capsys):
    NMF.main(["chord.wav", "5", "fixed_basis.npy", "--stems"])
    assert "notes are listed by activations alone" in capsys.readouterr().err
    assert {int(path.name[:3]) for path in (folder / "stems").glob("0*")} == listed_pitches(folder)


def test_what_is_wrong_with_the_level_of_a_sound_is_told_of_the_sound(with_patterns, refused):
    spoilt = 1e-40 * CHORD, np.where(np.arange(len(CHORD)) == 99, 1e38, CHORD)
    for y, script in itertools.product(spoilt, (NMF, CNMF)):
        soundfile.write("odd.wav", y, SR, subtype="FLOAT")
        line = refused(script, "odd.wav", "3", "fixed_basis.npy", "--listen", "-o", "out")
        assert re.search(r"error: odd\.wav: got samples of \d+e[+-]\d+ at most, expected about 1", line)
    assert not Path("out").exists()


def test_a_list_that_noise_empties_says_why(with_patterns, rng, capsys):
    soundfile.write("noise.wav", 0.1 * rng.standard_normal(SR // 2), SR)
    NMF.main(["noise.wav", "3", "fixed_basis.npy"])
    why = "noise.wav: no notes are listed: what is heard is no nearer to this piano's notes than noise is"
    assert why in capsys.readouterr().err
    assert Path("notes.csv").read_text().count("\n") == 1
    soundfile.write("silence.wav", np.zeros(SR), SR)
    NMF.main(["silence.wav", "3", "fixed_basis.npy"])
    assert "no notes" not in capsys.readouterr().err


@pytest.mark.parametrize(("script", "limit"), [(NMF, "DECODED_LIMIT"), (CNMF, "DECODED_LIMIT"), (NMF, "PAGE_LIMIT")])
def test_a_page_that_is_too_long_costs_nothing_else(folder, capsys, refused, monkeypatch, script, limit):
    """What the length tells is told before the work; if only the coded page tells, all else is kept."""
    at_once = limit == "DECODED_LIMIT"
    monkeypatch.setattr(listen, limit, 100_000 if at_once else 20_000)
    monkeypatch.setattr(listen, "FLAC_LIMIT", 0)
    monkeypatch.setattr(utils, "nmf", None if at_once else utils.nmf)  # the work is not begun
    command = ["chord.wav", "3", "fixed_basis.npy", "--stems", "--listen", "-o", "out"]
    if at_once:
        told = refused(script, *command)
        assert not Path("out").exists()
    else:
        script.main(command)
        assert {"notes.csv", "stems", "run.json"} <= {path.name for path in Path("out").iterdir()}
        assert not Path("out/listen.html").exists()
        said = capsys.readouterr().err.splitlines()
        (told,) = (line for line in said if "listen.html: got" in line)
        assert said[-1].endswith("open activation.png")
    assert "listen.html: got" in told
    assert "s of this recording (--listen-range A B takes a part)" in told


@pytest.mark.parametrize(("script", "options"), [(NMF, ["--stems", "--format", "wav"]), (CNMF, ["--listen"])])
def test_room_for_the_stems_is_looked_for_before_the_work(with_patterns, refused, monkeypatch, script, options):
    """Enough for arrays, but not for the sounds."""
    monkeypatch.setattr(results.shutil, "disk_usage", lambda path: SimpleNamespace(free=1_700_000))
    monkeypatch.setattr(utils, "nmf", None)
    line = refused(script, "chord.wav", "3", "fixed_basis.npy", "--quiet", *options)
    assert re.search(r"got 1\.7 MB of free space, expected .* MB, of which .* MB are for", line)


def test_the_page_says_what_its_sound_is(folder):
    soundfile.write("stereo.wav", np.column_stack([CHORD, 0.5 * CHORD]), 44100)
    mixed = "the recording has 44.1 kHz and 2 channels, which are mixed."
    for name, options, inside, rate in (
        ("chord", [], "The sound of this page is the recording's: mono, 22.05 kHz.", 22050),
        ("stereo", [], f"The sound of this page is mono, 22.05 kHz; {mixed}", 22050),
        ("stereo", ["--native-sr"], f"The sound of this page is mono, 44.1 kHz; {mixed}", 44100),
    ):
        NMF.main([f"{name}.wav", "3", "fixed_basis.npy", "--listen", "--quiet", "-o", "out", *options])
        page = data_of("out/listen.html")
        assert (page["inside"], page["rate"]) == (inside, rate)


def test_a_note_that_is_not_heard_in_its_stem_is_doubtful(tmp_path):
    """Levels of stems beside those of the list: 39 and 41 dB softer than listed, silent, and without a stem."""
    listed = [
        notes.Note("C4", 60, 262.0, 0.0, 0.5, 0.0),
        notes.Note("D4", 62, 294.0, 0.5, 1.0, -10.0),
        notes.Note("D4", 62, 294.0, 1.0, 1.5, -10.0),
        notes.Note("E4", 64, 330.0, 0.0, 1.5, -20.0),
        notes.Note("F4", 65, 349.0, 0.0, 1.5, -20.0),
    ]
    y = np.zeros(12000, np.float32)
    sound = recording.Recording("a", None, y, 8000, 8000, 8, 8, tmp_path)
    writer = SimpleNamespace(recording=sound, names={60: "60.wav", 62: "62.wav", 64: "64.wav"}, peaks={})
    levels = {60: [(0, 0.5)], 62: [(4000, 0.5 * 10 ** (-49 / 20)), (8000, 0.5 * 10 ** (-51 / 20))], 64: []}
    for midi, places in levels.items():
        stem = np.pad(y, (0, -len(y) % separate.PEAK_SAMPLES))
        for first, peak in places:
            stem[first + 100 : first + 200] = peak
        writer.peaks[midi] = stem.reshape(-1, separate.PEAK_SAMPLES).max(axis=1)
    doubted = [note._replace(confidence=sure) for note, sure in zip(listed, (1, 1, 0, 0, 1), strict=True)]
    assert separate.doubt_unheard(listed, writer) == doubted


@pytest.mark.parametrize("script", [NMF, CNMF])
def test_doubts_about_a_silent_stem_are_everywhere(with_patterns, drawn, monkeypatch, script):
    """A note on the list that nothing sounds of: for C5, the basis has a bin where the recording has nothing."""
    found = [notes.Note("C5", 72, 523.3, 0.2, 1.0, 0.0), notes.Note("E3", 52, 164.8, 0.0, 1.0, 0.0)]
    monkeypatch.setattr(notes, "listed", lambda y, basis, *_, **__: (found, basis))
    H = np.load("fixed_basis.npy")
    H[:, -1] = np.arange(len(H)) == len(H) - 1  # at the Nyquist frequency
    np.save("fixed_basis.npy", H)
    options = ["--adapt", "none"] if script is CNMF else []
    script.main(["chord.wav", "10", "fixed_basis.npy", "--listen", "--quiet", *options])
    assert {note.note: note.confidence for note in notes.read_score("notes.csv")} == {"C5": 0, "E3": 1}
    assert {midi: doubtful for midi, *_, doubtful in data_of("listen.html")["list"]} == {72: True, 52: False}
    legend = drawn["activation.png"].axes[0].get_legend().get_texts()
    assert [text.get_text() for text in legend] == ["listed note", "doubtful note"]


def test_a_list_that_goes_in_comes_out_as_it_was(with_patterns, capsys):
    """But for run.json. One of its notes nobody played, one is listed twice, others lie beyond its end or keys."""
    NMF.main(["chord.wav", "3", "fixed_basis.npy", "--quiet"])
    rows = Path("notes.csv").read_text().splitlines()
    silent = min(set(range(60, 72)) - listed_pitches(Path()))
    added = [f",{silent},,0.7,0.9,0,1", rows[1], "B4,71,493,60,61,0,1", "A0,21,27.5,0.1,0.2,0,1"]
    Path("edited.csv").write_text("\n".join([*rows, *added]) + "\n")
    NMF.main(["chord.wav", "3", "fixed_basis.npy", "--score", "edited.csv", "--stems", "-o", "second"])
    said = capsys.readouterr().err
    assert "edited.csv: 1 notes are listed twice and count once" in said
    assert "edited.csv: A0 lie beyond the keys of the basis and are left to the residual" in said
    assert "edited.csv: 1 notes begin after the recording and are left out" in said
    assert f"{len(rows) - 1} of the {len(rows)} notes of edited.csv were heard; all are listed" in said
    NMF.main(["chord.wav", "3", "fixed_basis.npy", "--score", "second/notes.csv", "--stems", "-o", "third"])
    second, third = (contents(Path(out)) for out in ("second", "third"))
    assert second.pop("run.json") != third.pop("run.json")  # which names the list
    assert second == third
    [unheard] = [note for note in notes.read_score("second/notes.csv") if note.midi == silent]
    assert (unheard.onset, unheard.offset) == (0.7, 0.9)
    assert unheard.confidence < notes.DOUBTFUL
    assert silent in {int(path.name[:3]) for path in Path("second/stems").glob("0*")}
    listed = Path("second/notes.csv").read_text().splitlines()
    assert [row for row in listed if row.split(",")[1] != str(silent)] == rows


def test_a_score_in_its_own_time_is_aligned_and_drawn(with_patterns, drawn, capsys):
    NMF.main(["chord.wav", "3", "fixed_basis.npy", "--quiet", "-o", "first"])
    plain = drawn["activation.png"].get_size_inches()
    first = notes.read_score("first/notes.csv")
    slower = [note._replace(onset=3 + 1.5 * note.onset, offset=3 + 1.5 * note.offset) for note in first]
    notes.write_midi("score.mid", slower)
    NMF.main(["chord.wav", "3", "fixed_basis.npy", "--score", "score.mid", "-o", "second"])
    said = capsys.readouterr().err
    assert f" of the {len(first)} notes of score.mid were heard; all are listed" in said
    assert "score.mid: 3." in said
    second = notes.read_score("second/notes.csv")
    first, second = (sorted((note.midi, note.onset) for note in found) for found in (first, second))
    assert np.max(np.abs(np.array(first) - second)) < 0.06
    wide, tall = drawn["activation.png"].get_size_inches()
    assert wide == plain[0]
    assert tall > plain[1]


def test_bad_scores_and_pages(with_patterns, refused):
    np.save("spec.npy", recording.stft(CHORD))
    Path("bass.csv").write_text("onset,note\n0,A0\n")
    rows = [f"{0.02 * i:.2f},{midi}" for i, midi in enumerate((49, 51, 56, 58, 61, 63, 68, 70))]
    Path("other.csv").write_text("onset,midi\n" + "\n".join(rows) + "\n")
    before = {path: path.stat().st_mtime_ns for path in with_patterns.rglob("*")}
    for arguments, message in (
        ("chord.wav --score=", "argument --score: got '', expected the name of a file"),
        ("chord.wav --score none.mid", "none.mid: no such file, expected a list of notes"),
        ("chord.wav --score bass.csv", "bass.csv: got no note that the basis has a key for"),
        ("chord.wav --score other.csv", "notes heard for sure where the score has them"),
        ("spec.npy --score other.csv", "--score: got no sound with patterns of notes"),
        ("chord.wav --listen-range 0 1", "--listen-range: got it alone, expected --listen with it"),
        ("chord.wav --listen --format wav", "--format: got it alone, expected --stems with it"),
        ("chord.wav --top-db 0", "--top-db: got it alone, expected --stems or --listen with it"),
        ("chord.wav --native-sr", "--native-sr: got it alone, expected --stems or --listen with it"),
        ("chord.wav --mask wiener", "--mask: got it alone, expected --stems or --listen with it"),
        ("chord.wav --listen --listen-range 2 1", "--listen-range: got 2 to 1 s, expected a part"),
        ("chord.wav --listen --listen-range 9 10", "expected a part of the recording's 0 to 1.5 s"),
        ("chord.wav --listen --listen-range 1.49999 9", "expected a part of the recording's 0 to 1.5 s"),
        ("chord.wav --listen --listen-range 1 1.00001", "--listen-range: got 1 to 1.00001 s, expected"),
    ):
        path, *options = arguments.split()
        assert message in refused(NMF, path, "3", "fixed_basis.npy", "--quiet", *options)
    assert {path: path.stat().st_mtime_ns for path in with_patterns.rglob("*")} == before


def test_a_run_at_the_recordings_rate_ends_without_a_word_of_soxr(tmp_path):
    code = """if True:
        import gc, numpy as np
        from piano import recording, separate
        from piano.basis import Basis
        from pathlib import Path
        Y, y = np.ones((5, 4), np.complex64), np.ones(48, np.float32)
        sound = recording.Recording('a', Y, y, 16000, 8000, 8, 8, Path())
        with separate.StemWriter(Path('stems'), Basis(np.ones((5, 1))), [0], sound, 'wav') as writer:
            writer.write(lambda note: Y)
        writer.itself = writer  # a cycle that nobody collects
        del writer
        gc.freeze()
    """
    done = python("-c", code, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
