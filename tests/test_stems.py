"""Sounds in, sounds out: what comes out adds up to what went in."""

import csv
import json
import re
import shutil
from pathlib import Path

import librosa
import numpy as np
import pytest
import soundfile
from matplotlib.image import imread

import CNMF
import make_init_H
import NMF
import utils
from piano import notes, pitch, recording, stems
from piano.basis import Basis

SR = 22050


@pytest.fixture(scope="module")
def chord(root):
    """A second and a half of the chorale [shape=(n,)], and where it comes from."""
    y, _ = soundfile.read(root / "examples" / "chorale" / "matched" / "mixture.flac", dtype="float32")
    return y[: 3 * SR // 2]


@pytest.fixture
def folder(tmp_path, monkeypatch, learnt, chord):
    """Working folder with a basis, its description, and ``chord.wav``."""
    monkeypatch.chdir(tmp_path)
    for name in ("fixed_basis.npy", "fixed_basis.json"):
        (tmp_path / name).write_bytes((learnt / name).read_bytes())
    soundfile.write("chord.wav", chord, SR, subtype="FLOAT")
    return tmp_path


def read_stems(folder):
    """All stems [shape=(n_files, n)] of a folder, by name, with their sampling rate."""
    sounds = {path.name: soundfile.read(path, dtype="float64") for path in sorted(folder.glob("*.wav"))}
    (sr,) = {sr for _, sr in sounds.values()}
    return {name: y for name, (y, _) in sounds.items()}, sr


def null(y, stems):
    """Energy of what is left of ``y`` when all stems are taken away, in dB relative to y."""
    rest = y - sum(stems.values())
    return 10 * np.log10((np.sum(rest**2) + 1e-300) / np.sum(y**2))


COMMANDS = {
    "wiener": (NMF, []),
    "ratio": (NMF, ["--mask", "ratio"]),
    "kullback-leibler": (NMF, ["--loss", "kullback-leibler"]),
    "itakura-saito": (NMF, ["--loss", "itakura-saito"]),
    "mixture phase": (CNMF, ["--phase-init", "mixture", "--adapt", "none"]),
    "random phase": (CNMF, ["--phase-init", "random", "--adapt", "none"]),
    "sinusoidal phase of an adapted basis": (CNMF, []),
}


@pytest.mark.parametrize(("script", "options"), COMMANDS.values(), ids=COMMANDS)
def test_stems_and_residual_sum_to_the_sound(folder, learnt, chord, capsys, script, options):
    shutil.copyfile(learnt / "fixed_basis_rotation.npy", folder / "fixed_basis_rotation.npy")
    script.main(["chord.wav", "10", "fixed_basis.npy", "--stems", "all", *options])
    stems, sr = read_stems(folder / "stems")
    assert sr == SR
    assert "residual.wav" in stems
    assert 5 < len(stems) <= 61
    assert null(chord.astype(np.float64), stems) < -120
    assert "stems and a residual. Added up, they differ from the recording by -" in capsys.readouterr().err
    assert soundfile.info(folder / "stems" / "residual.wav").subtype == "FLOAT"
    assert {"notes.csv", "notes.mid", "notes.wav", "spectrogram.png"} <= {path.name for path in folder.iterdir()}


def test_a_stem_is_the_inverse_transform_of_the_masked_mixture(folder, chord):
    NMF.main(["chord.wav", "20", "fixed_basis.npy", "--stems", "all", "--top-db", "200"])
    stems, _ = read_stems(folder / "stems")
    Y = librosa.stft(chord)
    H, U = (np.load(folder / name).astype(np.float64) for name in ("fixed_basis.npy", "activation_calc.npy"))
    power = np.einsum("kl,lm->lkm", H, U) ** 2
    info = json.loads((folder / "fixed_basis.json").read_text())
    for l, column in enumerate(info["columns"]):
        name = f"{pitch.midi_of_name(column['note']):03d}_{column['note'].replace('#', 's')}.wav"
        if name in stems:
            share = power[l] / np.maximum(power.sum(axis=0), 1e-300)  # the first frame may be silent
            expected = librosa.istft(share * Y, length=len(chord))
            np.testing.assert_allclose(stems[name], expected, atol=2e-6)
    assert len(stems) > 20


def test_quiet_notes_are_left_in_the_residual(folder):
    NMF.main(["chord.wav", "20", "fixed_basis.npy", "--stems", "all", "--top-db", "12"])
    U, names = np.load("activation_calc.npy"), [path.name for path in sorted((folder / "stems").glob("0*.wav"))]
    peaks = 20 * np.log10(np.maximum(U.max(axis=1) / U.max(), 1e-20))
    assert [int(name[:3]) for name in names] == [36 + l for l in np.flatnonzero(peaks >= -12)]


@pytest.mark.parametrize("script", [NMF, CNMF])
def test_states_of_a_note_are_one_stem(folder, chord, script):
    H = np.repeat(np.load("fixed_basis.npy"), 2, axis=1)
    info = json.loads((folder / "fixed_basis.json").read_text())
    info["columns"] = [column for column in info["columns"] for _ in range(2)]
    np.save("two.npy", H)
    (folder / "two.json").write_text(json.dumps(info))
    script.main(["chord.wav", "5", "two.npy", "--stems", "all", "--top-db", "300"])
    stems, _ = read_stems(folder / "stems")
    assert len(stems) <= 61
    assert null(chord.astype(np.float64), stems) < -120


@pytest.mark.parametrize("n", [44100, 44101])  # the last sample of an odd number is half a sample at 22050 Hz
def test_stems_at_the_rate_of_a_stereo_recording(folder, rng, n):
    y = 0.1 * rng.standard_normal((n, 2))
    soundfile.write("stereo.flac", y, 44100, subtype="PCM_24")
    NMF.main(["stereo.flac", "3", "fixed_basis.npy", "--stems", "--native-sr"])
    stems, sr = read_stems(folder / "stems")
    assert sr == 44100
    assert {len(stem) for stem in stems.values()} == {n}
    assert null(soundfile.read("stereo.flac")[0].mean(axis=1), stems) < -120


def test_a_complex_spectrogram_has_stems_too(folder, chord):
    Y = librosa.stft(chord)
    np.save("spec.npy", Y)
    NMF.main(["spec.npy", "5", "fixed_basis.npy", "--stems"])
    stems, _ = read_stems(folder / "stems")
    assert null(librosa.istft(Y).astype(np.float64), stems) < -100  # two inverse transforms in single precision
    assert not (folder / "notes.csv").exists()


def test_without_a_description_stems_are_numbered(folder, chord):
    (folder / "fixed_basis.json").unlink()
    NMF.main(["chord.wav", "5", "fixed_basis.npy", "--stems", "--sr", "22050"])
    stems, _ = read_stems(folder / "stems")
    assert all(name.startswith("component_") for name in stems if name != "residual.wav")
    assert null(chord.astype(np.float64), stems) < -120


def test_clipping_is_told(folder, capsys):
    t = np.arange(SR) / SR
    soundfile.write("loud.wav", 3 * np.sin(2 * np.pi * 262 * t), SR, subtype="FLOAT")
    NMF.main(["loud.wav", "20", "fixed_basis.npy", "--stems", "--subtype", "PCM_16", "--quiet"])
    said = capsys.readouterr().err
    assert "samples of 060_C4.wav clipped" in said
    NMF.main(["loud.wav", "20", "fixed_basis.npy", "--stems", "--quiet"])
    assert capsys.readouterr().err == ""


def test_every_clipped_sample_is_counted_above_and_below(folder, capsys):
    t = np.arange(SR) / SR
    soundfile.write("loud.wav", 3 * np.sin(2 * np.pi * 262 * t), SR, subtype="FLOAT")
    NMF.main(["loud.wav", "20", "fixed_basis.npy", "--stems", "--quiet"])
    stem = read_stems(folder / "stems")[0]["060_C4.wav"]
    above, below = (stem > 1).sum(), (stem < -1).sum()
    assert min(above, below) > 100
    NMF.main(["loud.wav", "20", "fixed_basis.npy", "--stems", "--subtype", "PCM_16", "--quiet"])
    assert f"{above + below} samples of 060_C4.wav clipped" in capsys.readouterr().err


@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24"])
def test_what_adding_the_stems_up_gives_is_told_in_db(folder, chord, capsys, subtype):
    soft = 0.3 * chord  # between the steps of the file's samples
    soundfile.write("soft.wav", soft, SR, subtype="FLOAT")
    NMF.main(["soft.wav", "10", "fixed_basis.npy", "--stems", "--subtype", subtype])
    told = re.search(r"differ from the recording by (\S+) dB", capsys.readouterr().err)
    stems, _ = read_stems(folder / "stems")
    assert float(told[1]) == pytest.approx(null(soft.astype(np.float64), stems), abs=0.51)  # it is told in whole dB


def test_silence_is_all_residual(folder):
    soundfile.write("silence.wav", np.zeros(5000), SR)
    NMF.main(["silence.wav", "3", "fixed_basis.npy", "--stems"])
    stems, _ = read_stems(folder / "stems")
    assert list(stems) == ["residual.wav"]
    assert not stems["residual.wav"].any()


def test_old_stems_do_not_stay_among_new_ones(folder):
    NMF.main(["chord.wav", "3", "fixed_basis.npy", "--stems", "all", "--top-db", "60"])
    many = len(list((folder / "stems").iterdir()))
    NMF.main(["chord.wav", "3", "fixed_basis.npy", "--stems", "all", "--top-db", "1"])
    assert len(list((folder / "stems").iterdir())) < many
    assert not list(folder.glob(".part-*"))


def test_one_bad_file_does_not_stop_a_corpus(folder, chord, capsys):
    soundfile.write("other.flac", chord[:SR], SR)
    (folder / "bad.wav").write_bytes(b"RIFF of no use")
    with pytest.raises(SystemExit) as end:
        NMF.main(["chord.wav", "bad.wav", "other.flac", "3", "fixed_basis.npy", "-o", "out", "--quiet"])
    assert end.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "bad.wav: cannot be read as audio" in line
    assert {path.name for path in (folder / "out").iterdir()} == {"chord", "other"}
    assert np.load("out/other/activation_calc.npy").shape == (60, 1 + SR // 512)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["spec.npy", "3", "other.npy", "--stems"], "--stems: got no sampling rate, expected fixed_basis.json"),
        (["chord.wav", "3", "other.npy"], "chord.wav: got a sound, expected fixed_basis.json beside the basis"),
        (["chord.wav", "3", "fixed_basis.npy", "--sr", "44100"], "--sr: got 44100 Hz, expected the 22050 Hz"),
        (["chord.wav", "3", "fixed_basis.npy", "--stems", "--subtype", "MP3"], "--subtype: got 'MP3', expected one of"),
        (["real.npy", "3", "fixed_basis.npy", "--stems"], "real.npy: got real values"),
        (["chord.wav", "x/chord.flac", "3", "fixed_basis.npy"], "two inputs called chord"),
        (["none.wav", "3", "fixed_basis.npy"], "none.wav: no such file"),
    ],
)
def test_bad_input(folder, chord, capsys, arguments, message):
    np.save("spec.npy", librosa.stft(chord))
    np.save("real.npy", np.abs(librosa.stft(chord)))
    np.save("other.npy", np.load("fixed_basis.npy"))
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    with pytest.raises(SystemExit) as end:
        NMF.main(arguments)
    assert end.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


def test_notes_of_every_kind_sum_to_the_mixture(rng):
    K, L, M = 33, 6, 300
    H, U = rng.random((K, L)), rng.random((L, M))
    Y = rng.standard_normal((K, M)) + 1j * rng.standard_normal((K, M))
    columns = [{"note": note} for note in ("C4", "C4", "D4", "E4", "E4", "E4")]
    piano = Basis(H / H.sum(axis=0), columns=columns)
    components = (
        stems.component_notes(Y[:, frames], piano, U, P, F, piano.notes)
        for frames, U, P, F, *_ in utils.complex_nmf_blocks(Y, piano.H, 3, phase_init="random", block=70)
    )
    for pieces in (
        stems.masked_notes(Y, piano, U, piano.notes, mask="ratio"),
        stems.masked_notes(Y, piano, U, piano.notes, mask="wiener"),
        components,
    ):
        total = np.concatenate([sum(piece) for piece in pieces], axis=1)
        np.testing.assert_allclose(total, Y, atol=1e-12)


@pytest.mark.parametrize(("n", "n_fft", "hop"), [(50000, 2048, 512), (3001, 1024, 300), (70000, 4096, 1024)])
def test_transforms_by_blocks_are_those_of_librosa(rng, n, n_fft, hop):
    y = rng.standard_normal(n).astype(np.float32)
    Y = librosa.stft(y, n_fft=n_fft, hop_length=hop)
    np.testing.assert_allclose(recording.stft(y, n_fft=n_fft, hop=hop), Y, atol=1e-4)
    X = Y * rng.random(Y.shape)  # no signal has this transform
    inverse = recording.InverseSTFT(X.shape[1], n, n_fft=n_fft, hop=hop)
    pieces = [inverse.add(X[:, i : i + 37]) for i in range(0, X.shape[1], 37)]
    sound = np.concatenate([*pieces, inverse.finish()])
    expected = librosa.istft(X, n_fft=n_fft, hop_length=hop, length=n)
    np.testing.assert_allclose(sound, expected, atol=1e-5)


def test_silence_between_frames_is_transformed_back_as_silence(rng):
    n_fft, hop, n = 256, 64, 64 * 99
    X = np.zeros((n_fft // 2 + 1, 100), np.complex64)
    X[:, 31:45] = rng.standard_normal((n_fft // 2 + 1, 14)) + 1j * rng.standard_normal((n_fft // 2 + 1, 14))
    X[[0, -1]] = X[[0, -1]].real
    inverse = recording.InverseSTFT(100, n, n_fft=n_fft, hop=hop)
    sound = np.concatenate([*(inverse.add(X[:, i : i + 20]) for i in range(0, 100, 20)), inverse.finish()])
    expected = librosa.istft(X, n_fft=n_fft, hop_length=hop, length=n)
    np.testing.assert_allclose(sound, expected, atol=1e-5 * np.abs(expected).max())
    reach = slice(31 * hop - n_fft // 2, 44 * hop + n_fft // 2)
    sound[reach] = 0
    assert not sound.any()


def test_a_note_is_masked_where_it_sounds_and_silent_elsewhere(rng):
    H, U = rng.random((9, 3)), rng.random((3, 200))
    U[1, 50:] = 0
    Y = rng.standard_normal((9, 200)) + 1j * rng.standard_normal((9, 200))
    blocks = list(stems.masked_notes(Y, Basis(H), U, [0, 1]))
    found = [np.concatenate(parts, axis=1) for parts in zip(*blocks, strict=True)]
    A = (H[:, :, None] * U) ** 2
    expected = A / A.sum(axis=1, keepdims=True) * Y[:, None]
    np.testing.assert_allclose(found, expected[:, :2].transpose(1, 0, 2), atol=1e-12)
    assert not found[1][:, 50:].any()


def test_files_are_named_after_notes_only():
    piano = Basis(np.ones((3, 3)), columns=[{"note": "C#4"}, {"note": "C#4"}, {"note": "Db5"}])
    names = {stems.file_name(piano, note): columns for note, columns in piano.notes.items()}
    assert names == {"061_Cs4.wav": [0, 1], "073_Cs5.wav": [2]}


# --- The notes of the list ---


@pytest.fixture
def with_patterns(folder, learnt):
    """The working folder, with the patterns that the event model needs."""
    shutil.copyfile(learnt / "fixed_basis_patterns.npy", folder / "fixed_basis_patterns.npy")
    return folder


def listed_pitches(folder):
    with open(folder / "notes.csv", newline="", encoding="utf-8") as file:
        return {int(row["midi"]) for row in csv.DictReader(file)}


@pytest.mark.parametrize(("script", "options"), [(NMF, []), (CNMF, []), (CNMF, ["--phase-init", "random"])])
def test_stems_are_the_listed_notes_and_the_rest_is_residual(with_patterns, chord, script, options):
    script.main(["chord.wav", "5", "fixed_basis.npy", "--stems", "--quiet", *options])
    stems, _ = read_stems(with_patterns / "stems")
    assert {int(name[:3]) for name in stems if name != "residual.wav"} == listed_pitches(with_patterns)
    assert len(stems) > 5
    assert null(chord.astype(np.float64), stems) < -120


def test_the_list_is_that_of_the_recording_whatever_takes_it_apart(with_patterns, learnt, templates):
    """Other scripts, losses and transforms; the notes are those of notes.csv."""
    make_init_H.main([str(templates[0].parent), "--n-fft", "4096", "--states", "2", "-o", "other", "--quiet"])
    runs = [
        (NMF, "fixed_basis.npy", []),
        (NMF, "fixed_basis.npy", ["--loss", "kullback-leibler"]),
        (CNMF, "fixed_basis.npy", ["--no-phase"]),
        (NMF, "other/fixed_basis.npy", []),
    ]
    lists = []
    for i, (script, basis, options) in enumerate(runs):
        script.main(["chord.wav", "3", basis, "--quiet", "-o", f"run{i}", *options])
        lists.append([Path(f"run{i}/{name}").read_bytes() for name in ("notes.csv", "notes.mid", "notes.wav")])
    assert lists[0][0].count(b"\n") > 4
    assert lists == [lists[0]] * len(runs)


def test_a_basis_without_patterns_says_so_and_lists_by_activations(folder, capsys):
    NMF.main(["chord.wav", "5", "fixed_basis.npy", "--stems"])
    assert "notes are listed by activations alone" in capsys.readouterr().err
    stems, _ = read_stems(folder / "stems")
    assert {int(name[:3]) for name in stems if name != "residual.wav"} == listed_pitches(folder)


@pytest.mark.parametrize(("subtype", "expected"), [(None, "PCM_24"), ("PCM_16", "PCM_16")])
def test_stems_as_flac(with_patterns, chord, subtype, expected):
    options = ["--subtype", subtype] if subtype else []
    NMF.main(["chord.wav", "5", "fixed_basis.npy", "--stems", "--format", "flac", "--quiet", *options])
    paths = sorted((with_patterns / "stems").iterdir())
    assert {path.suffix for path in paths} == {".flac"}
    assert {soundfile.info(path).subtype for path in paths} == {expected}
    total = sum(soundfile.read(path)[0] for path in paths)
    assert np.abs(total - chord).max() < len(paths) * 2.0 ** (-15 if subtype else -23)


def test_stems_without_a_value_may_stand_before_the_recording(with_patterns):
    NMF.main(["--stems", "chord.wav", "3", "fixed_basis.npy", "--quiet"])
    assert (with_patterns / "stems" / "residual.wav").exists()


def test_a_page_needs_no_stems(with_patterns, capsys):
    NMF.main(["chord.wav", "3", "fixed_basis.npy", "--listen", "--listen-range", "0.2", "1.1"])
    said = capsys.readouterr().err.splitlines()
    assert said[-1] == f"results are in {with_patterns}: open listen.html"
    assert not (with_patterns / "stems").exists()
    assert b"chord.wav" in (with_patterns / "listen.html").read_bytes()


def test_a_list_that_goes_in_comes_out_as_it_was(with_patterns, capsys):
    """Its confidences too; with a note that nobody played, one that is listed twice, and one beyond the end."""
    NMF.main(["chord.wav", "3", "fixed_basis.npy", "--quiet", "-o", "first"])
    rows = Path("first/notes.csv").read_text().splitlines()
    silent = min(set(range(60, 84)) - {note.midi for note in notes.read_score("first/notes.csv")})
    added = [f",{silent},,0.7,0.9,0,1", rows[1], "B4,71,493,60,61,0,1"]
    Path("edited.csv").write_text("\n".join([*rows, *added]) + "\n")
    NMF.main(["chord.wav", "3", "fixed_basis.npy", "--score", "edited.csv", "--stems", "-o", "second"])
    said = capsys.readouterr().err
    assert "edited.csv: 1 notes are listed twice and count once" in said
    assert "edited.csv: 1 notes begin after the recording and are left out" in said
    assert f"{len(rows) - 1} of the {len(rows)} notes of edited.csv were heard; all are listed" in said
    NMF.main(["chord.wav", "3", "fixed_basis.npy", "--score", "second/notes.csv", "--quiet", "-o", "third"])
    first, second, third = (notes.read_score(f"{run}/notes.csv") for run in ("first", "second", "third"))
    [unheard] = [note for note in second if note.midi == silent]
    assert (unheard.onset, unheard.offset) == (0.7, 0.9)
    assert unheard.confidence < notes.DOUBTFUL
    assert silent in {int(path.name[:3]) for path in Path("second/stems").glob("0*")}
    kept = [note[:2] + note[3:5] + note[6:] for note in first]
    assert [note[:2] + note[3:5] + note[6:] for note in second if note is not unheard] == kept
    assert [note[:5] + note[6:] for note in third] == [note[:5] + note[6:] for note in second]


def test_a_score_in_its_own_time_is_aligned_and_drawn(with_patterns, capsys):
    NMF.main(["chord.wav", "3", "fixed_basis.npy", "--quiet", "-o", "first"])
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
    tall, plain = (imread(f"{run}/activation.png").shape for run in ("second", "first"))
    assert tall[0] > plain[0]
    assert tall[1] == plain[1]


def test_keys_beyond_the_basis_are_named(with_patterns, capsys):
    Path("score.csv").write_text("onset,note\n0.05,B4\n0.1,A0\n0.05,E3\n")
    NMF.main(["chord.wav", "3", "fixed_basis.npy", "--score", "score.csv"])
    assert "score.csv: A0 lie beyond the keys of the basis and are left to the residual" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["chord.wav", "--score", ""], "argument --score: got '', expected the name of a file"),
        (["chord.wav", "--score", "none.mid"], "none.mid: no such file, expected a list of notes"),
        (["chord.wav", "--score", "empty.mid"], "empty.mid: got a list without a note"),
        (["chord.wav", "--score", "bass.csv"], "bass.csv: got no note that the basis has a key for"),
        (["chord.wav", "--score", "other.csv"], "notes heard for sure where the score has them"),
        (["spec.npy", "--score", "other.csv"], "--score: got no sound with patterns of notes"),
        (["chord.wav", "--listen-range", "0", "1"], "--listen-range: got it without --listen"),
        (["chord.wav", "--listen", "--listen-range", "2", "1"], "--listen-range: got 2 to 1 s, expected a part"),
        (["chord.wav", "--stems", "--format", "flac", "--subtype", "FLOAT"], "--subtype: got 'FLOAT', expected one of"),
    ],
)
def test_bad_scores_and_pages(with_patterns, chord, capsys, arguments, message):
    np.save("spec.npy", librosa.stft(chord))
    notes.write_midi("empty.mid", [])
    Path("bass.csv").write_text("onset,note\n0,A0\n")
    rows = [f"{0.02 * i:.2f},{midi}" for i, midi in enumerate((37, 49, 58, 70, 80, 85, 92, 94))]
    Path("other.csv").write_text("onset,midi\n" + "\n".join(rows) + "\n")
    before = {path: path.stat().st_mtime_ns for path in with_patterns.rglob("*")}
    recording, *options = arguments
    with pytest.raises(SystemExit) as end:
        NMF.main([recording, "3", "fixed_basis.npy", "--quiet", *options])
    assert end.value.code == 2
    assert message in capsys.readouterr().err.splitlines()[-1]
    assert {path: path.stat().st_mtime_ns for path in with_patterns.rglob("*")} == before
