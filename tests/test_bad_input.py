"""What a user can get wrong: status 2, one line that names it, and nothing written."""

import json
import shutil

import numpy as np
import pytest
import soundfile

import CNMF
import make_init_H
import NMF

K, L, M = 9, 2, 6
SR = 22050
BOTH, BASIS = (NMF, CNMF), (make_init_H,)


def spectrogram(rng):
    return (rng.standard_normal((K, M)) + 1j * rng.standard_normal((K, M))).astype(np.complex64)


def changed(array, index, value):
    array[index] = value
    return array


def cut(path, n_bytes):
    path.write_bytes(path.read_bytes()[:-n_bytes])


def save(name, make):
    """A preparation that saves ``make(rng)`` as ``name``."""
    return lambda folder, rng: np.save(folder / name, make(rng), allow_pickle=True)


def sound(name, make, **options):
    """A preparation that adds the template ``name`` with the samples ``make(rng)``."""
    return lambda folder, rng: soundfile.write(folder / "notes" / name, make(rng), SR, **options)


def noise(rng):
    return 0.1 * rng.standard_normal(2 * SR)


RUN = ["spec.npy", "3", "basis.npy"]
# what is wrong: (scripts, arguments, preparation of the folder, what the line on stderr holds)
TABLE = {
    # the spectrogram
    "missing": (BOTH, ["none.npy", "3", "basis.npy"], None, "none.npy: no such file"),
    "folder": (BOTH, ["notes", "3", "basis.npy"], None, "notes: got a folder"),
    "empty file": (BOTH, RUN, lambda folder, _: (folder / "spec.npy").write_bytes(b""), "spec.npy: got no readable"),
    "truncated": (
        BOTH,
        RUN,
        lambda folder, _: cut(folder / "spec.npy", 8),
        "spec.npy: got 424 bytes of data, expected",
    ),
    "header alone": (BOTH, RUN, lambda folder, _: cut(folder / "spec.npy", 432), "spec.npy: got 0 bytes of data"),
    "pickled": (BOTH, RUN, save("spec.npy", lambda rng: np.array([[{}]])), "spec.npy: got an array of object"),
    "1-D": (BOTH, RUN, save("spec.npy", lambda rng: np.ones(K) + 0j), "spec.npy: got an array of shape (9,)"),
    "3-D": (
        BOTH,
        RUN,
        save("spec.npy", lambda rng: np.ones((1, K, M)) + 0j),
        "spec.npy: got an array of shape (1, 9, 6)",
    ),
    "no frames": (
        BOTH,
        RUN,
        save("spec.npy", lambda rng: np.ones((K, 0)) + 0j),
        "spec.npy: got an array of shape (9, 0)",
    ),
    "NaN": (
        BOTH,
        RUN,
        save("spec.npy", lambda rng: changed(spectrogram(rng), (3, 5), np.nan)),
        "spec.npy: got (nan+0j) in bin 3 of frame 5, expected finite values",
    ),
    "infinite": (
        BOTH,
        RUN,
        save("spec.npy", lambda rng: changed(spectrogram(rng), (8, 0), np.inf)),
        "spec.npy: got (inf+0j) in bin 8 of frame 0, expected finite values",
    ),
    "negative": (
        (NMF,),
        RUN,
        save("spec.npy", lambda rng: -np.ones((K, M))),
        "spec.npy: got values down to -1, expected magnitudes >= 0 (is it in dB?)",
    ),
    "real for complex NMF": (
        (CNMF,),
        RUN,
        save("spec.npy", lambda rng: np.ones((K, M))),
        "spec.npy: got real values (float64), expected a complex spectrogram",
    ),
    # the basis
    "missing basis": (BOTH, ["spec.npy", "3", "none.npy"], None, "none.npy: no such file"),
    "text as basis": (BOTH, ["spec.npy", "3", "basis.json"], None, "basis.json: got no readable .npy header"),
    "empty basis file": (BOTH, RUN, lambda folder, _: (folder / "basis.npy").write_bytes(b""), "basis.npy: got no"),
    "truncated basis": (BOTH, RUN, lambda folder, _: cut(folder / "basis.npy", 1), "basis.npy: got 71 bytes of data"),
    "pickled basis": (
        BOTH,
        RUN,
        save("basis.npy", lambda rng: np.array([[None]])),
        "basis.npy: got an array of object",
    ),
    "1-D basis": (BOTH, RUN, save("basis.npy", lambda rng: np.ones(K)), "basis.npy: got an array of shape (9,)"),
    "no columns": (
        BOTH,
        RUN,
        save("basis.npy", lambda rng: np.ones((K, 0))),
        "basis.npy: got an array of shape (9, 0)",
    ),
    "complex basis": (
        BOTH,
        RUN,
        save("basis.npy", lambda rng: np.ones((K, L)) + 0j),
        "basis.npy: got complex128 values",
    ),
    "NaN in basis": (
        BOTH,
        RUN,
        save("basis.npy", lambda rng: changed(np.ones((K, L)), (4, 1), np.nan)),
        "basis.npy: got nan in bin 4 of column 1, expected finite values",
    ),
    "basis in dB": (
        BOTH,
        RUN,
        save("basis.npy", lambda rng: -60 * rng.random((K, L)) - 20 * np.eye(K, L)),
        "expected values >= 0 (is it in dB?)",
    ),
    "zero column": (
        BOTH,
        RUN,
        save("basis.npy", lambda rng: np.ones((K, L)) * [1, 0]),
        "basis.npy: got only zeros in column 1",
    ),
    "other bins": (
        BOTH,
        RUN,
        save("spec.npy", lambda rng: np.ones((1025, 4), complex)),
        "spec.npy: got 1025 bins (n_fft 2048), expected the 9 bins (n_fft 16) of basis.npy",
    ),
    "other description": (
        BOTH,
        RUN,
        lambda folder, _: (folder / "basis.json").write_text('{"sr": 1, "n_fft": 16, "hop": 1, "columns": []}'),
        "basis.json: got a description of a basis of shape (9, 0), expected (9, 2)",
    ),
    "no description": (BOTH, RUN, lambda folder, _: (folder / "basis.json").write_text("{"), "basis.json: got no desc"),
    # numbers
    **{
        f"{text} iterations": (BOTH, ["spec.npy", text, "basis.npy"], None, f"N_ITER: got '{text}', expected a")
        for text in ("0", "-3", "2.5", "1e3", "many", "nan", "")
    },
    **{
        f"{option} {text}": (BOTH, [*RUN, f"{option}={text}"], None, f"got '{text}', expected a")
        for option in ("-thr", "--tol", "--seed")
        for text in ("-1", "nan", "inf", "-inf", "small")
    },
    "-thr negative apart": (BOTH, [*RUN, "-thr", "-1e-4"], None, "-thr: "),
    "seed 1.5": (BOTH, [*RUN, "--seed", "1.5"], None, "--seed: got '1.5', expected a whole number"),
    "sparsity": ((CNMF,), [*RUN, "--sparsity", "-1"], None, "--sparsity: got '-1', expected"),
    "phases": ((CNMF,), [*RUN, "--phase-init", "zero"], None, "--phase-init: invalid choice: 'zero'"),
    "nothing": ((*BOTH, make_init_H), [], None, "the following arguments are required"),
    "too much": ((make_init_H,), ["templates", "x"], None, "unrecognized arguments: x"),
    "order": (BOTH, [*RUN, "x"], None, "N_ITER: got 'basis.npy', expected a whole number"),
    # the output folder
    "file for folder": (BOTH, [*RUN, "-o", "mine.txt"], None, "mine.txt: cannot be written to"),
    "folder for file": (
        BOTH,
        [*RUN, "-o", "blocked"],
        lambda folder, _: (folder / "blocked" / "cost.npy").mkdir(parents=True),
        "blocked/cost.npy: got a folder, expected a file",
    ),
    # templates
    "no folder": (BASIS, ["none"], None, "none: no such folder, expected a folder of single-note audio files"),
    "file as folder": (BASIS, ["mine.txt"], None, "mine.txt: no such folder"),
    "no audio": (BASIS, ["blank"], lambda folder, _: (folder / "blank").mkdir(), "blank: got no audio files"),
    "noise": (BASIS, ["notes"], sound("pf10.wav", noise), "pf10.wav: got a sound without a pitch and a name without"),
    "silence": (BASIS, ["notes"], sound("C3.wav", lambda rng: np.zeros(SR)), "C3.wav: got silence, expected one note"),
    "measured silence": (BASIS, ["notes"], sound("x.wav", lambda rng: np.zeros(SR)), "x.wav: got silence"),
    "too short": (BASIS, ["notes"], sound("x.wav", lambda rng: noise(rng)[:500]), "x.wav: got a sound without a pitch"),
    "no samples": (BASIS, ["notes"], sound("C3.wav", lambda rng: np.zeros(0)), "C3.wav: got no samples"),
    "NaN samples": (
        BASIS,
        ["notes"],
        sound("C3.wav", lambda rng: np.full(SR, np.nan), subtype="FLOAT"),
        "C3.wav: got samples that are not finite",
    ),
    "no sound file": (
        BASIS,
        ["notes"],
        lambda folder, _: (folder / "notes" / "C3.wav").write_text("la"),
        "C3.wav: cannot be read as audio",
    ),
    "truncated sound": (
        BASIS,
        ["notes"],
        lambda folder, _: (folder / "notes" / "C3.flac").write_bytes(b"fLaC\0\0\0\x22"),
        "C3.flac: cannot be read as audio",
    ),
    "note above Nyquist": (
        BASIS,
        ["notes", "--c3", "6000"],
        None,
        "notes/C4.wav: fundamental frequency: got 12000 Hz, expected between",
    ),
    **{
        f"{option} {text}": (BASIS, ["notes", option, text], None, f"{option}")
        for option, text in (
            ("--sr", "0"),
            ("--sr", "50"),
            ("--n-fft", "1023"),
            ("--n-fft", "many"),
            ("--hop-length", "4096"),
            ("--hop-length", "0.5"),
            ("--n-iter", "0"),
            ("--states", "0"),
            ("--c3", "-130"),
            ("--n-peaks", "0"),
            ("--damping", "nan"),
            ("--variance", "inf"),
        )
    },
}
CASES = [
    pytest.param(script, *rest, id=f"{script.__name__} {name}")
    for name, (scripts, *rest) in TABLE.items()
    for script in scripts
]


def contents(folder):
    """Every path below ``folder`` with its bytes, None for a folder."""
    return {str(path): None if path.is_dir() else path.read_bytes() for path in sorted(folder.rglob("*"))}


@pytest.fixture
def folder(tmp_path, monkeypatch, rng, templates):
    """A current directory with good inputs and with older results."""
    monkeypatch.chdir(tmp_path)
    np.save("spec.npy", spectrogram(rng))
    np.save("basis.npy", rng.random((K, L)).astype(np.float32))
    columns = [{"file": f"{note}.wav", "note": note, "f0": 1.0} for note in ("C4", "D4")]
    (tmp_path / "basis.json").write_text(json.dumps({"sr": SR, "n_fft": 16, "hop": 4, "columns": columns}))
    (tmp_path / "notes").mkdir()
    shutil.copyfile(templates[60 - 36], tmp_path / "notes" / "C4.wav")
    for name in ("mine.txt", "cost.npy", "fixed_basis.npy", "learning_curve_NMF.png"):
        (tmp_path / name).write_text("old")
    return tmp_path


@pytest.mark.parametrize(("script", "arguments", "prepare", "message"), CASES)
def test_bad_input(folder, rng, capsys, script, arguments, prepare, message):
    if prepare:
        prepare(folder, rng)
    before = contents(folder)
    with pytest.raises(SystemExit) as end:
        script.main(arguments)
    said = capsys.readouterr()
    assert end.value.code == 2
    assert said.out == ""
    (line,) = said.err.splitlines()
    assert "error: " in line
    assert message in line
    assert contents(folder) == before


def test_the_inputs_that_the_table_spoils_are_good(folder, capsys):
    for script in BOTH:
        script.main(RUN)
    make_init_H.main(["notes"])
    assert len(capsys.readouterr().err.splitlines()) == 3
