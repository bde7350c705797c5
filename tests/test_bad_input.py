"""What a user can get wrong: status 2, one line that names it, and nothing written."""

import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile

import CNMF
import make_init_H
import NMF
from helpers import TEMPLATES, contents, names, python, record, save_basis
from piano import results
from piano.recording import SAMPLES, load

pytestmark = [pytest.mark.same_everywhere("compares messages"), pytest.mark.usefixtures("drawn")]

K, L, M = 9, 2, 6
SR = 22050
BOTH = NMF, CNMF
RUN = ["spec.npy", "3", "basis.npy"]
NOT_OURS = "got a file that no earlier run left here like this"
HELD = "got an input where results go, expected it elsewhere"


def ones(_):
    return np.ones((K, L))


def spectrogram(rng):
    return (rng.standard_normal((K, M)) + 1j * rng.standard_normal((K, M))).astype(np.complex64)


def changed(array, index, value):
    array[index] = value
    return array


# --- Preparations of the folder: functions of it and of random numbers ---


def saved(name, make):
    """Saves ``make(rng)`` as ``name``, into a folder of its own if it has one."""

    def write(folder, rng):
        (folder / name).parent.mkdir(exist_ok=True)
        np.save(folder / name, make(rng))

    return write


def sound(name, make=lambda rng: 0.1 * rng.standard_normal(2 * SR), sr=SR, n_bytes=None, **options):
    """Writes the samples ``make(rng)`` as ``name``, cut to the first ``n_bytes``."""

    def write(folder, rng):
        soundfile.write(folder / name, make(rng), sr, **options)
        (folder / name).write_bytes((folder / name).read_bytes()[:n_bytes])

    return write


def file(name, content):
    """Writes text or bytes as ``name``, into a folder of its own if it has one."""

    def write(folder, _):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())

    return write


def mine(name):
    return file(name, "mine")


def emptied(name):
    """Puts an empty folder where ``name`` is."""
    return lambda folder, _: ((folder / name).unlink(missing_ok=True), (folder / name).mkdir(parents=True))


def together(*preparations):
    return lambda folder, rng: [prepare(folder, rng) for prepare in preparations]


def earlier_stems(folder, _):
    """Has an earlier run make stems of ``x.wav`` in ``own``."""
    soundfile.write(folder / "x.wav", 0.5 * np.sin(np.arange(4000)), SR)
    NMF.main(["x.wav", "3", "basis.npy", "--stems", "--quiet", "-o", "own"])


SPEC = "spec.npy 3 basis.npy"
bare = saved("bare.npy", ones)  # a basis without a description

# --- What is wrong: scripts, arguments, preparation, and what the line on stderr holds ---

# of a command line alone; what the two scripts share is asked of one of them
WORDS = [
    *((NMF, f"spec.npy {n} basis.npy", f"N_ITER: got '{n}', expected a") for n in (0, 2.5, "nan", "many", 10**6 + 1)),
    *((NMF, f"{SPEC} --tol={text}", f"--tol: got '{text}', expected a") for text in ("-1", "nan", "-inf", "small")),
    *((CNMF, f"{SPEC} --seed={text}", f"--seed: got '{text}', expected a") for text in ("-1", "1.5", 2**64)),
    *((CNMF, f"{SPEC} --adapt {text}", f"--adapt: got '{text}', expected") for text in ("0", "inf", "x")),
    (NMF, f"{SPEC} -thr -1e-4", "-thr: "),
    (NMF, f"{SPEC} --top-db -1", "--top-db: got '-1', expected"),
    (NMF, f"{SPEC} --sr 8000", "--sr: got 8000 Hz, expected the 22050 Hz"),
    (NMF, f"{SPEC} --loss l1", "--loss: invalid choice: 'l1'"),
    (NMF, f"{SPEC} --mask hard", "--mask: invalid choice: 'hard'"),
    (CNMF, f"{SPEC} --phase-init zero", "--phase-init: invalid choice: 'zero'"),
    (NMF, f"{SPEC} --solver cd --loss itakura-saito", "got cd with --loss itakura-saito, expected mu"),
    (CNMF, f"{SPEC} --sparsity -1", "--sparsity: got '-1', expected"),
    (CNMF, f"{SPEC} --phase-init sinusoidal", "basis_rotation.npy: no such file, expected the rotations"),
    (BOTH, "none.wav 3 basis.npy", "none.wav: no such file, expected a spectrogram (.npy) or a sound"),
    (NMF, "spec.npy 3 none.npy", "none.npy: no such file, expected a basis, .npy"),
    (NMF, "notes 3 /", "/: got a folder or a special file, expected a basis, .npy"),
    (NMF, "basis.npy 3 basis.npy", "basis.npy: got a basis, expected a spectrogram (.npy) or a sound"),
    (NMF, "spec.npy 3 notes/C4.wav", "notes/C4.wav: got a sound, expected a basis, .npy"),
    (NMF, "spec.npy spec.npy 3 basis.npy", "SPEC: got two inputs called spec"),
    (NMF, "x/Spec.wav spec.npy 3 basis.npy", "SPEC: got two inputs called Spec"),  # alike but for case
    (NMF, "Caf\u00e9.wav cafe\u0301.npy 3 basis.npy", "SPEC: got two inputs called Caf\u00e9"),  # and for its form
    (NMF, "spec.npy 3 basis.npy x.npy", "N_ITER: got 'basis.npy', expected a whole number"),
    (NMF, "x.wav y.wav basis.npy", "N_ITER: got 'y.wav', expected a whole number"),
    (NMF, "spec.npy 50", "spec.npy: got a NumPy array (.npy), expected a sound (a spectrogram needs"),
    (NMF, "x.m4a", "x.m4a: no such file, expected a sound"),
    (NMF, f"{SPEC} --over", "unrecognized arguments: --over"),  # run.json would lose what is abbreviated
    (NMF, f"{SPEC} -o mine.txt", "mine.txt: cannot be written to"),
    (NMF, f"{SPEC} -o {'x' * 300}", "xxx: cannot be written to (File name too long)"),
    (NMF, f"{'x' * 300}.npy 3 basis.npy", "xxx.npy: cannot be read (File name too long)"),
    (NMF, "a\0b.npy 3 basis.npy", "b.npy: no such file"),
    (make_init_H, "templates x", "unrecognized arguments: x"),
    (make_init_H, "mine.txt", "mine.txt: no such folder, expected a folder of single-note audio files"),
    (make_init_H, "notes --keys C8 A0", "--keys: got C8 A0, expected the lower key first: A0 C8"),
    (make_init_H, "notes --c3 6000", "notes/C4.wav: fundamental frequency: got 12000 Hz, expected between"),
    *((make_init_H, f"notes --sr {text}", "--sr: got") for text in ("0", "50", "2000000000")),
    *((make_init_H, f"notes --n-fft {text}", "--n-fft: got") for text in ("1000000000", "1023", "many")),
    *((make_init_H, f"notes --hop-length {text}", "--hop-length: got") for text in ("4096", "0.5")),
    *((make_init_H, f"notes --states {text}", "--states: got") for text in ("0", 10**20)),
    *((make_init_H, f"notes --{n} -1", f"--{n}: got") for n in ("n-iter", "c3", "n-peaks", "damping", "variance")),
]

# of what a file holds; more of it is in test_utils_io, test_basis, test_files and test_pitch
ARRAYS = [
    ("spec.npy", BOTH, lambda rng: changed(spectrogram(rng), (3, 5), np.nan), "got (nan+0j) in bin 3 of frame 5, exp"),
    ("spec.npy", NMF, lambda rng: changed(spectrogram(rng), (8, 0), np.inf), "got (inf+0j) in bin 8 of frame 0, exp"),
    ("spec.npy", NMF, lambda rng: np.ones((1025, 4), complex), "got 1025 bins (n_fft 2048), expected the 9 bins (n_"),
    ("spec.npy", NMF, lambda rng: -np.ones((K, M)), "got values down to -1, expected magnitudes >= 0 (is it in dB?)"),
    ("spec.npy", CNMF, lambda rng: np.ones((K, M)), "got real values (float64), expected a complex spectrogram"),
    ("basis.npy", NMF, lambda rng: np.ones((K, L)) + 0j, "got complex128 values"),
    ("basis.npy", NMF, lambda rng: changed(np.ones((K, L)), (4, 1), np.nan), "got nan in bin 4 of column 1, exp"),
    ("basis.npy", NMF, lambda rng: -60 * np.eye(K, L), "got values down to -60, expected values >= 0 (is it in dB?)"),
    ("basis.npy", NMF, lambda rng: np.ones((K, L)) * [1, 0], "got only zeros in column 1"),
]
ROTATIONS = [  # what is saved in the place of rotations
    (lambda rng: np.ones((K, L - 1)) + 0j, f"rotations of shape ({K}, {L - 1}), expected ({K}, {L})"),
    (lambda rng: 2 * np.ones((K, L)) + 0j, "rotations of up to 2, expected at most 1"),
    (ones, "real values"),
    (lambda rng: np.full((K, L), np.nan + 0j), "(nan"),
]
OTHER = '{"sr": 1, "n_fft": 16, "hop": 1, "columns": []}'
X, OWN, STEMS = "x.wav 3 basis.npy", f"{SPEC} -o own", "own/stems/residual.flac 3 basis.npy -o own"
NOT_FINITE = sound("x.wav", lambda rng: np.full(SR, np.nan), subtype="FLOAT")
REST = [
    *((scripts, RUN, saved(name, make), f"{name}: {message}") for name, scripts, make, message in ARRAYS),
    *((CNMF, f"{SPEC} --phase-init sinusoidal", saved("basis_rotation.npy", make), said) for make, said in ROTATIONS),
    (NMF, RUN, emptied("basis.json"), "basis.json: got no description"),
    (NMF, RUN, file("basis.json", OTHER), "basis.json: got a description of a basis of shape (9, 0), expected (9, 2)"),
    (NMF, "p.wav 3 basis.npy", lambda folder, _: os.mkfifo(folder / "p.wav"), "p.wav: got a folder or"),
    (NMF, "l.npy 3 basis.npy", lambda folder, _: (folder / "l.npy").symlink_to("l.npy"), "l.npy: no such file"),
    (NMF, ["a\nb.npy", *RUN[1:]], saved("a\nb.npy", lambda _: np.ones(3)), "a b.npy: got an array of shape (3,)"),
    (NMF, ["spec.npy", "", "basis.npy"], None, "N_ITER: got '', expected a"),
    (NMF, "empty 3 basis.npy", file("empty/notes.txt", "la"), "empty: got a folder without sounds"),
    (NMF, "empty", emptied("empty"), "empty: got a folder without sounds"),
    (NMF, "spec.npy 3 bare.npy --stems", bare, "--stems: got no sampling rate, expected"),
    (NMF, "spec.npy 3 bare.npy --sr 2000000000", bare, "--sr: got 2000000000 Hz, expected at most"),
    (NMF, f"{SPEC} --stems", saved("spec.npy", lambda rng: np.ones((K, M))), "spec.npy: got real values"),
    (NMF, f"{SPEC} --stems", saved("spec.npy", lambda _: np.ones((K, 1)) + 0j), "spec.npy: got a single frame, exp"),
    # a recording
    (NMF, X, file("x.wav", bytes(range(128, 256))), "x.wav: cannot be read as audio"),
    (NMF, X, emptied("x.wav"), "x.wav: got a folder without sounds"),
    (BOTH, X, sound("x.wav", n_bytes=5000), "got 5000 bytes, expected the 88244 of its header (is the file cut short?"),
    (NMF, "x.flac 3 basis.npy", sound("x.flac", n_bytes=30), "cannot be read as audio"),
    (NMF, "x.flac 3 basis.npy", sound("x.flac", n_bytes=20000), "x.flac: "),
    (NMF, X, sound("x.wav", lambda rng: np.zeros(0)), "x.wav: got no samples"),
    (NMF, X, sound("x.wav", lambda rng: np.ones(1), 192000), "a sound that is shorter than one sample at 22050 Hz"),
    (NMF, X, NOT_FINITE, "x.wav: got samples that are not fin"),
    (NMF, "x.wav 3 bare.npy", together(sound("x.wav"), bare), "x.wav: got a sound, expected fixed_basis.json beside"),
    # the output folder, and what is the user's in it; more of it is in test_results
    (BOTH, OWN, mine("own/cost.npy"), f"own/cost.npy: {NOT_OURS}"),
    (make_init_H, "notes -o own", mine("own/fixed_basis.npy"), f"own/fixed_basis.npy: {NOT_OURS}"),
    (NMF, f"{X} --stems -o own", together(earlier_stems, mine("own/stems/x.wav")), f"own/stems/x.wav: {NOT_OURS}"),
    (CNMF, f"{STEMS} --stems --overwrite", earlier_stems, f"own/stems/residual.flac: {HELD}"),
    (NMF, f"{STEMS} --overwrite", earlier_stems, f"own/stems/residual.flac: {HELD}"),  # they go without --stems
    (NMF, "spec.npy 3 own/basis_calc.npy --overwrite -o own", saved("own/basis_calc.npy", ones), HELD),
    (CNMF, "own/reconst.npy 3 basis.npy --overwrite -o own", saved("own/reconst.npy", spectrogram), HELD),
    # templates
    (make_init_H, "blank", emptied("blank"), "blank: got no audio files"),
    (make_init_H, "notes", sound("notes/pf10.wav"), "pf10.wav: got a sound without a pitch and a name without a note"),
    (make_init_H, "notes --keys C5 C6", sound("notes/C3.wav", lambda rng: np.zeros(SR)), "C3.wav: got silence, exp"),
    (make_init_H, "notes", sound("notes/a.wav", lambda rng: np.zeros(SR)), "a.wav: got silence, expected one note"),
    (make_init_H, "notes", file("notes/C3.wav", "la"), "C3.wav: got text, expected a sound file"),
    (make_init_H, "notes", file("notes/C3.flac", b"fLaC\0\0\0\x22"), "C3.flac: cannot be read as audio"),
]
CASES = [
    pytest.param(script, words, prepare, said, id=f"{script.__name__} {said[:40]}")
    for scripts, words, prepare, said in [*((scripts, words, None, said) for scripts, words, said in WORDS), *REST]
    for script in (scripts if isinstance(scripts, tuple) else (scripts,))
]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A current directory with good inputs and with results of an earlier run."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(1)
    np.save("spec.npy", spectrogram(rng))
    save_basis("basis.npy", rng.random((K, L)).astype(np.float32), ["C4", "D4"])
    Path("notes").mkdir()
    shutil.copyfile(TEMPLATES[60], "notes/C4.wav")
    Path("mine.txt").write_text("mine")
    for script, name in (("make_init_H.py", "fixed_basis.npy"), ("NMF.py", "cost.npy")):
        with results.reserved_folder(tmp_path) as (_, folder):
            (folder / name).write_text("old")
            results.write_record(folder, script, [], [], seed=0, stft=None)
    return tmp_path


@pytest.mark.parametrize(("script", "arguments", "prepare", "message"), CASES)
def test_bad_input(folder, rng, refused, script, arguments, prepare, message):
    if prepare:
        prepare(folder, rng)
    before = sorted(folder.rglob("*")), contents(folder)
    line = refused(script, *(arguments.split(" ") if isinstance(arguments, str) else arguments))
    assert "error: " in line
    assert message in line
    assert (sorted(folder.rglob("*")), contents(folder)) == before


SQUARE = np.sign(np.random.default_rng(2).standard_normal((9000, 8)))  # clipped, of many channels


@pytest.mark.parametrize(
    ("script", "y", "sr"), [(NMF, np.ones(1), SR), (CNMF, np.ones(1), SR), (NMF, SQUARE, 192000)], ids=range(3)
)
def test_an_odd_recording_is_taken_apart_all_the_same(folder, script, y, sr):
    soundfile.write("x.wav", y, sr, subtype="FLOAT")
    script.main(["x.wav", "3", "basis.npy", "--stems", "-o", "out", "--quiet"])
    (residual,) = folder.glob("out/stems/residual.*")
    for result in (np.load("out/activation_calc.npy"), np.load("out/cost.npy"), soundfile.read(residual)[0]):
        assert np.isfinite(result).all()


FORBIDDEN = [  # what may not be read or written to, how it comes about, and what is said of it
    ("spec2.npy", ["spec2.npy", "3", "basis.npy"], "spec2.npy: cannot be read (Permission denied)"),
    ("basis2.npy", ["spec.npy", "3", "basis2.npy"], "basis2.npy: cannot be read (Permission denied)"),
    ("basis3.json", ["spec.npy", "3", "basis3.npy"], "basis3.json: got no description"),
    ("x.wav", ["x.wav", "3", "basis.npy"], "x.wav: cannot be read as audio"),
    ("spec\udcff.npy", ["spec\udcff.npy", *RUN[1:]], "spec\\udcff.npy: cannot be read (Perm"),  # its name is no UTF-8
    ("out", [*RUN, "-o", "out"], "out: cannot be written to (Permission denied)"),
]


def test_what_may_not_be_read_or_written_is_named(folder, rng):
    for name in ("spec2.npy", "spec\udcff.npy", "basis2.npy", "basis2.json", "basis3.npy", "basis3.json"):
        shutil.copy(re.sub("[23\udcff]", "", name), name)
    sound("x.wav")(folder, rng)
    (folder / "out").mkdir()
    listing = names(folder)
    if os.geteuid() == 0:  # who may read all
        folder.chmod(0o777)
        for path in list(folder.parents)[:-2]:
            path.chmod(path.stat().st_mode | 0o055)
    code = f"""if True:
        import os
        import soundfile, NMF  # which an ordinary user may not read
        for spoil, *_ in {FORBIDDEN}:
            os.chmod(spoil, 0)
        if os.geteuid() == 0:
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
        for _, arguments, _ in {FORBIDDEN}:
            try:
                NMF.main(arguments)
            except SystemExit as end:
                assert end.code == 2
    """
    done = python("-c", code)
    assert done.returncode == 0, done.stderr
    for line, (spoil, _, message) in zip(done.stderr.splitlines(), FORBIDDEN, strict=True):
        assert message in line
        (folder / spoil).chmod(0o755)
    assert names(folder) == listing
    assert names("out") == []


# --- What is not wrong after all ---


@pytest.mark.parametrize(
    ("name", "described", "options"),
    [
        ("x.wav", True, ["--stems", "--listen"]),
        ("x.wav", False, ["--stems", "--phase"]),
        ("spec.npy", True, []),
        ("spec.npy", False, ["--notes"]),
    ],
)
@pytest.mark.parametrize("script", BOTH)
def test_what_a_run_will_write_is_known_before_it_works(folder, rng, monkeypatch, script, name, described, options):
    told, hold = [], results.reserved_folder
    monkeypatch.setattr(results, "reserved_folder", lambda *args, **more: told.extend(args[1]) or hold(*args, **more))
    sound("x.wav", lambda rng: 0.5 * np.sin(np.arange(4000)))(folder, rng)
    if not described:
        (folder / "basis.json").unlink()
    options = [option for option in options if script is CNMF or option != "--phase"]
    script.main([name, *RUN[1:], "--sr", str(SR), "-o", "out", "--quiet", *options])
    assert set(names("out")) <= set(told)
    left_out = set(told) - set(names("out"))
    assert all(name.startswith("basis_calc") for name in left_out)  # what does not lie beside this basis


def test_all_commands_share_a_folder_and_run_there_again_and_again(folder):
    soundfile.write("x.wav", 0.5 * np.sin(np.arange(4000)), SR)
    for options in (["--stems"], []):
        make_init_H.main(["notes", "-o", "out", "--quiet"])
        for script in BOTH:
            script.main(["x.wav", *RUN[1:], "-o", "out", "--quiet", *options])
    listed = [name for run in (record("out"), *record("out")["earlier"]) for name in run["outputs"]]
    assert sorted([*listed, "run.json"]) == names("out")


def test_an_input_among_the_stems_of_another_never_goes(folder, rng, refused):
    together(mine("spec/stems/x.wav"), sound("spec/stems/take.wav"))(folder, rng)
    line = refused(NMF, "spec.npy", "spec/stems/take.wav", *RUN[1:], "--stems", "--overwrite", "--quiet")
    assert f"error: spec/stems/take.wav: {HELD}" in line
    assert names("spec/stems") == ["take.wav", "x.wav"]
    assert Path("take/stems").is_dir()  # the other one is taken apart


def test_overwrite_is_for_those_who_mean_it(folder, rng):
    for script, arguments, name in ((make_init_H, ["notes"], "fixed_basis.npy"), (NMF, RUN, "cost.npy")):
        mine(f"own/{name}")(folder, rng)
        script.main([*arguments, "-o", "own", "--overwrite", "--quiet"])
        assert np.load(folder / "own" / name).size
        assert "--overwrite" not in record("own")["command"]


def test_a_recording_without_a_way_back_is_read(folder):
    soundfile.write("gsm.wav", 0.5 * np.sin(np.arange(6400)), SR, subtype="GSM610")
    expected, _ = soundfile.read("gsm.wav", frames=6400, dtype="float32")
    np.testing.assert_array_equal(load("gsm.wav", SR), expected)


def test_channels_that_cancel_give_the_louder_one(folder, rng, capsys):
    y = 0.1 * rng.standard_normal(4000)
    soundfile.write("x.wav", np.column_stack([0.995 * y, -y]), 2 * SR, subtype="FLOAT")
    soundfile.write("right.wav", -y, 2 * SR, subtype="FLOAT")
    for name in ("x", "right"):
        NMF.main([f"{name}.wav", *RUN[1:], "--stems", "--native-sr", "--quiet", "-o", name])
    assert capsys.readouterr().err == "x.wav: its channels cancel in the mix, channel 2 is taken alone\n"
    for name in ("activation_calc.npy", "stems/residual.flac"):
        assert (folder / "x" / name).read_bytes() == (folder / "right" / name).read_bytes()


def test_the_mean_of_other_channels_is_taken(tmp_path, rng, capsys):
    y = 0.1 * rng.standard_normal(2 * SAMPLES)
    first = np.arange(len(y)) < len(y) / 2
    for channels in ([y, -0.97 * y], [0 * y, 0 * y], [y, -y * first]):  # 36 dB down; all the file, not each block
        mixed = np.column_stack(channels).astype(np.float32)
        soundfile.write(tmp_path / "x.wav", mixed, SR, subtype="FLOAT")
        np.testing.assert_array_equal(load(tmp_path / "x.wav", SR), mixed.mean(axis=1))
        assert capsys.readouterr().err == ""
