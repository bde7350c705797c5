"""What a user can get wrong: status 2, one line that names it, and nothing written."""

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import soundfile

import CNMF
import make_init_H
import NMF
from piano import results
from piano.recording import SAMPLES, load

pytestmark = pytest.mark.same_everywhere("compares messages")

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


def header(shape, descr="<c8", n_bytes=64):
    """A preparation that writes a spec.npy of 100 bytes or so whose header claims ``shape``."""

    def write(folder, _):
        with open(folder / "spec.npy", "wb") as file:
            np.lib.format.write_array_header_1_0(file, {"descr": descr, "fortran_order": False, "shape": shape})
            file.write(bytes(n_bytes))

    return write


def code(folder, _):
    text = b"{'descr': '<f8', 'fortran_order': False, 'shape': (__import__('os').mkdir('run'), 1)}\n"
    (folder / "spec.npy").write_bytes(b"\x93NUMPY\1\0" + len(text).to_bytes(2, "little") + text)


def named(name, make):
    """A preparation that saves ``make(rng)`` under a name that may be bytes."""

    def write(folder, rng):
        with open(os.path.join(os.fsencode(folder), os.fsencode(name)), "wb") as file:
            np.save(file, make(rng))

    return write


def recording(name, make, sr=SR, **options):
    """A preparation that writes the samples ``make(rng)`` as ``name``, beside the basis."""
    return lambda folder, rng: soundfile.write(folder / name, make(rng), sr, **options)


def cut_recording(name, n_bytes, **options):
    """The same of two seconds of noise, cut to the first ``n_bytes``."""

    def write(folder, rng):
        soundfile.write(folder / name, noise(rng), SR, **options)
        (folder / name).write_bytes((folder / name).read_bytes()[:n_bytes])

    return write


def mine(name):
    """A preparation that puts a file of the user's into a folder of his own."""

    def write(folder, _):
        (folder / name).parent.mkdir(parents=True)
        (folder / name).write_text("mine")

    return write


def earlier_stems(folder, _):
    """A preparation that has an earlier run make stems of ``x.wav`` in ``own``."""
    soundfile.write(folder / "x.wav", 0.5 * np.sin(np.arange(4000)), SR)
    NMF.main(["x.wav", "3", "basis.npy", "--stems", "--quiet", "-o", "own"])


def described(column=(), **changes):
    """A preparation that changes the description of the basis; ``column`` changes its first column."""

    def write(folder, _):
        info = json.loads((folder / "basis.json").read_text())
        info["columns"][0] |= dict(column)
        (folder / "basis.json").write_text(json.dumps(info | changes))

    return write


RUN = ["spec.npy", "3", "basis.npy"]
NOT_OURS = "got a file that no earlier run left here like this"
HELD = "got an input where results go, expected it elsewhere"
NO_DESCRIPTION = "basis.json: got no description"
# what is wrong: (scripts, arguments, preparation of the folder, what the line on stderr holds)
TABLE = {
    # the spectrogram
    "missing": (BOTH, ["none.npy", "3", "basis.npy"], None, "none.npy: no such file"),
    "empty folder": (
        BOTH,
        ["empty", "3", "basis.npy"],
        lambda folder, _: ((folder / "empty").mkdir(), (folder / "empty" / "notes.txt").write_text("la")),
        "empty: got a folder without sounds",
    ),
    "empty file": (BOTH, RUN, lambda folder, _: (folder / "spec.npy").write_bytes(b""), "spec.npy: got an empty file"),
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
    "structured": (
        BOTH,
        RUN,
        save("spec.npy", lambda rng: np.ones((K, M), [("a", float)])),
        "spec.npy: got an array of",
    ),
    "whole numbers": (BOTH, RUN, save("spec.npy", lambda rng: np.ones((K, M), int)), "spec.npy: got an array of int64"),
    "truth values": (BOTH, RUN, save("spec.npy", lambda rng: np.ones((K, M), bool)), "spec.npy: got an array of bool"),
    "0-D": (BOTH, RUN, save("spec.npy", lambda rng: np.array(1j)), "spec.npy: got an array of shape ()"),
    "no bins": (
        BOTH,
        RUN,
        save("spec.npy", lambda rng: np.ones((0, M)) + 0j),
        "got an array of shape (0, 6)",
    ),
    "npz": (
        BOTH,
        ["spec.npz", "3", "basis.npy"],
        lambda folder, rng: np.savez(folder / "spec.npz", Y=spectrogram(rng)),
        "spec.npz: got a ZIP archive",
    ),
    "2^60 values claimed": (BOTH, RUN, header((2**30, 2**30)), f"got 64 bytes of data, expected {2**63}"),
    "more than 2^64 claimed": (BOTH, RUN, header((2**62, 2**62)), "got 64 bytes of data, expected"),
    "1 GB claimed": (BOTH, RUN, header((K, 10**9 // K)), "got 64 bytes of data, expected 7999999"),
    "code in the header": (BOTH, RUN, code, "spec.npy: got no readable .npy header"),
    "pipe": (
        BOTH,
        ["p.npy", "3", "basis.npy"],
        lambda folder, _: os.mkfifo(folder / "p.npy"),
        "p.npy: got a folder or",
    ),
    "audio pipe": (BOTH, ["p.wav", "3", "basis.npy"], lambda folder, _: os.mkfifo(folder / "p.wav"), "p.wav: got a f"),
    "dangling link": (
        BOTH,
        ["l.npy", "3", "basis.npy"],
        lambda folder, _: (folder / "l.npy").symlink_to("nowhere"),
        "l.npy: no such file",
    ),
    "link to itself": (
        BOTH,
        ["l.npy", "3", "basis.npy"],
        lambda folder, _: (folder / "l.npy").symlink_to("l.npy"),
        "l.npy: no such file",
    ),
    "long name": (BOTH, ["x" * 300 + ".npy", "3", "basis.npy"], None, "xxx.npy: cannot be read (File name too long)"),
    "name with NUL": (BOTH, ["a\0b.npy", "3", "basis.npy"], None, "b.npy: no such file"),
    "name with a space": (
        BOTH,
        ["a b.npy", "3", "basis.npy"],
        named("a b.npy", lambda rng: np.ones(3)),
        "a b.npy: got an array of shape (3,)",
    ),
    "name with a newline": (
        BOTH,
        ["a\nb.npy", "3", "basis.npy"],
        named("a\nb.npy", lambda rng: np.ones(3)),
        "a b.npy: got an array of shape (3,)",
    ),
    # a recording
    "missing recording": (BOTH, ["none.wav", "3", "basis.npy"], None, "none.wav: no such file"),
    "folder as recording": (
        BOTH,
        ["x.wav", "3", "basis.npy"],
        lambda folder, _: (folder / "x.wav").mkdir(),
        "x.wav: got a folder without sounds",
    ),
    "recording cut in its header": (
        BOTH,
        ["x.wav", "3", "basis.npy"],
        cut_recording("x.wav", 30),
        "x.wav: got 30 bytes, expected the 88244 of its header",
    ),
    "recording cut in its data": (
        BOTH,
        ["x.wav", "3", "basis.npy"],
        cut_recording("x.wav", 5000),
        "x.wav: got 5000 bytes, expected the 88244 of its header (is the file cut short?)",
    ),
    "FLAC cut in its header": (
        BOTH,
        ["x.flac", "3", "basis.npy"],
        cut_recording("x.flac", 30),
        "cannot be read as audio",
    ),
    "FLAC cut in its data": (BOTH, ["x.flac", "3", "basis.npy"], cut_recording("x.flac", 20000), "x.flac: "),
    "recording without samples": (
        BOTH,
        ["x.wav", "3", "basis.npy"],
        recording("x.wav", lambda rng: np.zeros(0)),
        "x.wav: got no samples",
    ),
    "shorter than a sample": (
        BOTH,
        ["x.wav", "3", "basis.npy"],
        recording("x.wav", lambda rng: np.ones(1), sr=192000),
        "x.wav: got a sound that is shorter than one sample at 22050 Hz",
    ),
    "NaN in a recording": (
        BOTH,
        ["x.wav", "3", "basis.npy"],
        recording("x.wav", lambda rng: np.full(SR, np.nan), subtype="FLOAT"),
        "x.wav: got samples that are not finite",
    ),
    "recording without a description": (
        BOTH,
        ["x.wav", "3", "bare.npy"],
        lambda folder, rng: (recording("x.wav", noise)(folder, rng), np.save(folder / "bare.npy", np.ones((K, L)))),
        "x.wav: got a sound, expected fixed_basis.json beside the basis",
    ),
    # the basis
    "missing basis": (BOTH, ["spec.npy", "3", "none.npy"], None, "none.npy: no such file"),
    "text as basis": (BOTH, ["spec.npy", "3", "basis.json"], None, "basis.json: got text, expected a basis, .npy"),
    "empty basis file": (BOTH, RUN, lambda folder, _: (folder / "basis.npy").write_bytes(b""), "basis.npy: got an"),
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
    **{
        f"description {name}": (BOTH, RUN, described(**changes), NO_DESCRIPTION)
        for name, changes in {
            "without a rate": {"sr": None},
            "of rate 0": {"sr": 0},
            "of rate 2 GHz": {"sr": 2**31},
            "of rate 1e999": {"sr": float("inf")},
            "hop beyond n_fft": {"hop": 17},
            "hop of text": {"hop": "4"},
            "columns of text": {"columns": "C4"},
            "note up the tree": {"column": {"note": "../../x"}},
            "absolute note": {"column": {"note": "/etc/passwd"}},
            "note with NUL": {"column": {"note": "C4\0"}},
            "note with newline": {"column": {"note": "C4\n"}},
            "note of a number": {"column": {"note": 60}},
            "f0 negative": {"column": {"f0": -1}},
            "f0 of 400 digits": {"column": {"f0": 10**400}},
        }.items()
    },
    "description nested deeply": (
        BOTH,
        RUN,
        lambda folder, _: (folder / "basis.json").write_text("[" * 10**5),
        NO_DESCRIPTION,
    ),
    "description that is no UTF-8": (
        BOTH,
        RUN,
        lambda folder, _: (folder / "basis.json").write_bytes(b"\xff"),
        NO_DESCRIPTION,
    ),
    "description is a folder": (
        BOTH,
        RUN,
        lambda folder, _: ((folder / "basis.json").unlink(), (folder / "basis.json").mkdir()),
        NO_DESCRIPTION,
    ),
    # numbers
    **{
        f"{text} iterations": (BOTH, ["spec.npy", text, "basis.npy"], None, f"N_ITER: got '{text}', expected a")
        for text in ("0", "-3", "2.5", "1e3", "many", "nan", "", "1000001", str(2**31), str(10**20))
    },
    **{
        f"{option} {text}": (BOTH, [*RUN, f"{option}={text}"], None, f"got '{text}', expected a")
        for option in ("-thr", "--tol", "--seed")
        for text in ("-1", "nan", "inf", "-inf", "small")
    },
    "stems without a rate": (
        BOTH,
        ["spec.npy", "3", "bare.npy", "--stems"],
        lambda folder, _: np.save(folder / "bare.npy", np.ones((K, L))),
        "--stems: got no sampling rate",
    ),
    "another rate": (BOTH, [*RUN, "--sr", "8000"], None, "--sr: got 8000 Hz, expected the 22050 Hz"),
    "rate of 2 GHz": (
        BOTH,
        ["spec.npy", "3", "bare.npy", "--sr", "2000000000"],
        lambda folder, _: np.save(folder / "bare.npy", np.ones((K, L))),
        "--sr: got 2000000000 Hz, expected at most",
    ),
    "--top-db": (BOTH, [*RUN, "--top-db", "-1"], None, "--top-db: got '-1', expected"),
    "unknown loss": ((NMF,), [*RUN, "--loss", "l1"], None, "--loss: invalid choice: 'l1'"),
    "unknown mask": ((NMF,), [*RUN, "--mask", "hard"], None, "--mask: invalid choice: 'hard'"),
    "two inputs of one name": (BOTH, ["spec.npy", *RUN], None, "SPEC: got two inputs called spec"),
    "two inputs of one name but for case": (BOTH, ["x/Spec.wav", *RUN], None, "SPEC: got two inputs called Spec"),
    "two inputs of one name but for its form": (
        BOTH,
        ["Caf\u00e9.wav", "cafe\u0301.npy", *RUN[1:]],
        None,
        "SPEC: got two inputs called Caf\u00e9",
    ),
    "-thr negative apart": (BOTH, [*RUN, "-thr", "-1e-4"], None, "-thr: "),
    "seed 1.5": (BOTH, [*RUN, "--seed", "1.5"], None, "--seed: got '1.5', expected a whole number"),
    "sparsity": ((CNMF,), [*RUN, "--sparsity", "-1"], None, "--sparsity: got '-1', expected"),
    "phases": ((CNMF,), [*RUN, "--phase-init", "zero"], None, "--phase-init: invalid choice: 'zero'"),
    "no rotations": (
        (CNMF,),
        [*RUN, "--phase-init", "sinusoidal"],
        None,
        "basis_rotation.npy: no such file, expected the rotations",
    ),
    **{
        f"rotations {name}": (
            (CNMF,),
            [*RUN, "--phase-init", "sinusoidal"],
            save("basis_rotation.npy", lambda rng, change=change: change(np.exp(1j * rng.random((K, L))))),
            f"basis_rotation.npy: got {message}",
        )
        for name, change, message in (
            ("too few", lambda r: r[:, 1:], f"rotations of shape ({K}, {L - 1}), expected ({K}, {L})"),
            ("too large", lambda r: 2 * r, "rotations of up to 2, expected at most 1"),
            ("real", lambda r: np.abs(r), "real values"),
            ("not finite", lambda r: r * np.nan, "(nan"),
        )
    },
    **{
        f"adapt {text}": (BOTH, [*RUN, "--adapt", text], None, f"--adapt: got '{text}', expected")
        for text in ("0", "-1", "nan", "inf", "much")
    },
    "too much": ((make_init_H,), ["templates", "x"], None, "unrecognized arguments: x"),
    "order": (BOTH, [*RUN, "x.npy"], None, "N_ITER: got 'basis.npy', expected a whole number"),
    "keys": (BASIS, ["notes", "--keys", "C8", "A0"], None, "--keys: got C8 A0, expected the lower key first: A0 C8"),
    **{
        f"only {' '.join(words)}": (
            BOTH,
            words,
            None,
            f"{named}: got a NumPy array (.npy), expected a sound (a spectrogram",
        )
        for *words, named in (
            ("spec.npy", "spec.npy"),
            ("spec.npy", "50", "spec.npy"),
            ("spec.npy", "basis.npy", "spec.npy"),
        )
    },
    "one frame to be heard": (
        BOTH,
        ["one.npy", *RUN[1:], "--stems"],
        save("one.npy", lambda rng: np.ones((K, 1)) + 0j),
        "one.npy: got a single frame, expected more of them to make a sound",
    ),
    "a folder and nothing else": (
        BOTH,
        ["empty"],
        lambda folder, _: (folder / "empty").mkdir(),
        "empty: got a folder wi",
    ),
    "a missing sound and nothing else": (BOTH, ["x.m4a"], None, "x.m4a: no such file, expected a sound"),
    "no iterations": (BOTH, ["x.m4a", "0"], None, "N_ITER: got '0', expected a number above 0"),
    "N_ITER forgotten": (BOTH, ["x.wav", "y.wav", "basis.npy"], None, "N_ITER: got 'y.wav', expected a whole number"),
    # the output folder
    "file for folder": (BOTH, [*RUN, "-o", "mine.txt"], None, "mine.txt: cannot be written to"),
    "folder for file": (
        BOTH,
        [*RUN, "-o", "blocked"],
        lambda folder, _: (folder / "blocked" / "cost.npy").mkdir(parents=True),
        "blocked/cost.npy: got a folder, expected a file",
    ),
    "long output folder": (BOTH, [*RUN, "-o", "x" * 300], None, "xxx: cannot be written to (File name too long)"),
    "long output folder for a basis": (
        BASIS,
        ["notes", "-o", "x" * 300],
        None,
        "xxx: cannot be written to (File name too long)",
    ),
    # what is the user's
    **{
        f"own {name}": (BOTH, [*RUN, "-o", "own"], mine(f"own/{name}"), f"own/{name}: {NOT_OURS}")
        for name in ("basis_calc.npy", "activation_calc.npy", "cost.npy", "activation.png", "run.json")
    },
    "own phases": ((CNMF,), [*RUN, "-o", "own"], mine("own/phase_calc.npy"), f"own/phase_calc.npy: {NOT_OURS}"),
    "own stems": (BOTH, [*RUN, "--stems", "-o", "own"], mine("own/stems/vocals.wav"), f"stems/vocals.wav: {NOT_OURS}"),
    "own list of notes": (
        BOTH,
        ["x.wav", *RUN[1:], "-o", "own"],
        lambda folder, rng: (recording("x.wav", noise)(folder, rng), mine("own/notes.csv")(folder, rng)),
        f"own/notes.csv: {NOT_OURS}",
    ),
    "own basis": (BASIS, ["notes", "-o", "own"], mine("own/fixed_basis.npy"), f"own/fixed_basis.npy: {NOT_OURS}"),
    "own file among stems": (
        BOTH,
        ["x.wav", *RUN[1:], "--stems", "-o", "own"],
        lambda folder, rng: (earlier_stems(folder, rng), (folder / "own" / "stems" / "vocals.wav").write_text("mine")),
        f"own/stems/vocals.wav: {NOT_OURS}",
    ),
    **{
        f"{name}{' '.join(options)}": (
            scripts,
            ["own/stems/residual.flac", *RUN[1:], "-o", "own", *options],
            earlier_stems,
            f"own/stems/residual.flac: {HELD}",
        )
        for name, scripts, options in (
            ("input among stems ", BOTH, ["--stems"]),
            ("input among stems ", BOTH, ["--stems", "--overwrite"]),
            ("input among stems that go ", (NMF,), ["--overwrite"]),  # stems of NMF.py go when its next run has none
        )
    },
    "basis that is an output": (
        BOTH,
        ["spec.npy", "3", "own/basis_calc.npy", "--overwrite", "-o", "own"],
        lambda folder, rng: ((folder / "own").mkdir(), shutil.copy("basis.npy", "own/basis_calc.npy")),
        f"own/basis_calc.npy: {HELD}",
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
        "C3.wav: got text, expected a sound file",
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
            ("--sr", "2000000000"),
            ("--n-fft", "1000000000"),
            ("--n-fft", "1023"),
            ("--n-fft", "many"),
            ("--hop-length", "4096"),
            ("--hop-length", "0.5"),
            ("--n-iter", "0"),
            ("--states", "0"),
            ("--states", str(10**20)),
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
    """Every path below ``folder`` with its bytes, None for what is no file."""
    return {str(path): path.read_bytes() if path.is_file() else None for path in sorted(folder.rglob("*"))}


@pytest.fixture
def folder(tmp_path, monkeypatch, rng, templates):
    """A current directory with good inputs and with results of an earlier run."""
    monkeypatch.chdir(tmp_path)
    np.save("spec.npy", spectrogram(rng))
    np.save("basis.npy", rng.random((K, L)).astype(np.float32))
    columns = [{"file": f"{note}.wav", "note": note, "f0": 1.0} for note in ("C4", "D4")]
    (tmp_path / "basis.json").write_text(json.dumps({"sr": SR, "n_fft": 16, "hop": 4, "columns": columns}))
    (tmp_path / "notes").mkdir()
    shutil.copyfile(templates[60 - 36], tmp_path / "notes" / "C4.wav")
    (tmp_path / "mine.txt").write_text("mine")
    for script, name in (("make_init_H.py", "fixed_basis.npy"), ("NMF.py", "cost.npy")):
        with results.reserved_folder(tmp_path) as workspace, results.output_folder(workspace) as folder:
            (folder / name).write_text("old")
            results.write_record(folder, script, [], [], seed=0, stft=None)
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
    assert len(capsys.readouterr().err.splitlines()) == 6  # two lines each


@pytest.mark.parametrize(
    ("name", "make", "sr"),
    [
        ("one sample", lambda rng: np.ones(1), SR),
        ("8 channels", lambda rng: 0.1 * rng.standard_normal((4000, 8)), SR),
        ("8 kHz", lambda rng: 0.1 * rng.standard_normal(4000), 8000),
        ("192 kHz", lambda rng: 0.1 * rng.standard_normal(9000), 192000),
        ("DC", lambda rng: np.full(4000, 0.5), SR),
        ("silence", lambda rng: np.zeros(4000), SR),
        ("clipping", lambda rng: np.sign(rng.standard_normal(4000)), SR),
    ],
)
@pytest.mark.parametrize("script", BOTH)
def test_an_odd_recording_is_taken_apart_all_the_same(folder, rng, script, name, make, sr):
    soundfile.write(f"{name}.wav", make(rng), sr, subtype="FLOAT")
    script.main([f"{name}.wav", "3", "basis.npy", "--stems", "-o", "out", "--quiet"])
    assert np.isfinite(np.load("out/activation_calc.npy")).all()
    assert np.isfinite(np.load("out/cost.npy")).all()
    assert np.isfinite(soundfile.read("out/stems/residual.flac")[0]).all()


@pytest.mark.parametrize("dtype", ["<f4", ">f4", "<f8", ">f8", "<f2", "<c8", ">c8", "<c16", ">c16"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_any_byte_order_and_layout_give_the_same_activations(folder, rng, dtype, order):
    Y = np.asarray(rng.integers(1, 9, (K, M)), dtype, order=order)
    np.save("spec.npy", Y)
    NMF.main([*RUN, "-o", "got", "--quiet"])
    np.save("spec.npy", Y.real.astype(np.float64))
    NMF.main([*RUN, "-o", "expected", "--quiet"])
    got, expected = (np.load(f"{name}/activation_calc.npy") for name in ("got", "expected"))
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("spoil", "arguments", "message"),
    [
        ("spec.npy", RUN, "spec.npy: cannot be read (Permission denied)"),
        ("basis.npy", RUN, "basis.npy: cannot be read (Permission denied)"),
        ("basis.json", RUN, NO_DESCRIPTION),
        ("x.wav", ["x.wav", *RUN[1:]], "x.wav: cannot be read as audio"),
        ("out", [*RUN, "-o", "out"], "out: cannot be written to (Permission denied)"),
    ],
)
def test_what_may_not_be_read_or_written_is_named(folder, root, rng, spoil, arguments, message):
    listing = [path.name for path in folder.iterdir()]
    soundfile.write("x.wav", noise(rng), SR)
    (folder / "out").mkdir()
    if os.geteuid() == 0:  # who may read all
        folder.chmod(0o777)
        for path in list(folder.parents)[:-2]:
            path.chmod(path.stat().st_mode | 0o055)
    code = f"""if True:
        import os, sys
        import NMF
        NMF.main([*sys.argv[1:], "-o", "first", "--quiet"])  # imports what an ordinary user may not read
        os.chmod({spoil!r}, 0)
        if os.geteuid() == 0:
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
        NMF.main(sys.argv[1:])
    """
    command = [sys.executable, "-c", code, *arguments]
    environment = os.environ | {"PYTHONPATH": str(root)}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert message in line
    shutil.rmtree("first")
    (folder / spoil).chmod(0o755)
    assert sorted(path.name for path in folder.iterdir()) == sorted([*listing, "out", "x.wav"])
    assert not list((folder / "out").iterdir())


@pytest.mark.parametrize("script", BOTH)
def test_a_name_that_is_no_utf_8_is_told_in_a_sentence(folder, root, script):
    named(b"\xff.npy", lambda rng: np.ones(3))(folder, None)
    command = [sys.executable, root / f"{script.__name__}.py", b"\xff.npy", "3", "basis.npy"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert "\\udcff.npy: got an array of shape (3,)" in line


# --- What is not wrong after all ---


@pytest.mark.parametrize("options", [["--stems"], ["--stems", "--phase"], ["--notes"], ["--no-phase"], []])
@pytest.mark.parametrize("described", [True, False])
@pytest.mark.parametrize("name", ["spec.npy", "x.wav"])
@pytest.mark.parametrize("script", BOTH)
def test_what_a_run_will_write_is_known_before_it_works(folder, rng, monkeypatch, script, name, described, options):
    told, reserved_folder = [], results.reserved_folder

    def reserve(path, names, **rest):
        told.extend(names)
        return reserved_folder(path, names, **rest)

    monkeypatch.setattr(results, "reserved_folder", reserve)
    recording("x.wav", lambda rng: 0.5 * np.sin(np.arange(4000)))(folder, rng)
    if not described:
        (folder / "basis.json").unlink()
    if script is NMF:
        options = [option for option in options if "phase" not in option]
    script.main([name, *RUN[1:], "--sr", str(SR), "-o", "out", "--quiet", *options])
    assert sorted(told) == sorted(path.name for path in (folder / "out").iterdir())


def test_what_a_basis_is_written_to_is_known_before_the_work(folder):
    make_init_H.main(["notes", "-o", "out", "--quiet"])
    assert sorted(make_init_H.OUTPUTS) == sorted(path.name for path in (folder / "out").iterdir())


def test_all_commands_share_a_folder_and_run_there_again_and_again(folder):
    soundfile.write("x.wav", 0.5 * np.sin(np.arange(4000)), SR)
    for _ in range(2):
        make_init_H.main(["notes", "-o", "out", "--quiet"])
        for options in (["--stems"], []):
            for script in BOTH:
                script.main(["x.wav", *RUN[1:], "-o", "out", "--quiet", *options])
    record = json.loads((folder / "out" / "run.json").read_text())
    listed = [name for run in (record, *record["earlier"]) for name in run["outputs"]]
    assert sorted([*listed, "run.json"]) == sorted(path.name for path in (folder / "out").iterdir())


@pytest.mark.parametrize("script", BOTH)
def test_an_input_among_the_stems_of_another_never_goes(folder, rng, capsys, script):
    mine("spec/stems/x.wav")(folder, rng)
    soundfile.write("spec/stems/take.wav", noise(rng), SR)
    with pytest.raises(SystemExit) as end:
        script.main(["spec.npy", "spec/stems/take.wav", *RUN[1:], "--stems", "--overwrite", "--quiet"])
    assert end.value.code == 2
    assert f"error: spec/stems/take.wav: {HELD}" in capsys.readouterr().err
    assert sorted(path.name for path in (folder / "spec" / "stems").iterdir()) == ["take.wav", "x.wav"]
    assert (folder / "take" / "stems").is_dir()  # the other one is taken apart


@pytest.mark.parametrize("script", [*BOTH, make_init_H])
def test_overwrite_is_for_those_who_mean_it(folder, rng, script):
    name = "fixed_basis.npy" if script is make_init_H else "cost.npy"
    mine(f"own/{name}")(folder, rng)
    arguments = ["notes"] if script is make_init_H else RUN
    script.main([*arguments, "-o", "own", "--overwrite", "--quiet"])
    assert np.load(folder / "own" / name).size
    assert "--overwrite" not in json.loads((folder / "own" / "run.json").read_text())["command"]


def test_a_recording_without_a_way_back_is_read(folder):
    y = 0.5 * np.sin(np.arange(6400))
    soundfile.write("gsm.wav", y, SR, subtype="GSM610")
    expected, _ = soundfile.read("gsm.wav", frames=6400, dtype="float32")
    np.testing.assert_array_equal(load("gsm.wav", SR), expected)


@pytest.mark.parametrize("sr", [SR, 2 * SR])
@pytest.mark.parametrize("script", BOTH)
def test_channels_that_cancel_give_the_louder_one(folder, rng, capsys, script, sr):
    y = 0.1 * rng.standard_normal(3 * sr)
    soundfile.write("x.wav", np.column_stack([0.995 * y, -y]), sr, subtype="FLOAT")
    soundfile.write("right.wav", -y, sr, subtype="FLOAT")
    for name in ("x", "right"):
        script.main([f"{name}.wav", *RUN[1:], "--stems", "--native-sr", "--quiet", "-o", name])
    assert capsys.readouterr().err == "x.wav: its channels cancel in the mix, channel 2 is taken alone\n"
    for name in ("activation_calc.npy", "stems/residual.flac"):
        assert (folder / "x" / name).read_bytes() == (folder / "right" / name).read_bytes()


@pytest.mark.parametrize(
    "channels",
    [
        lambda y: [y, -0.97 * y],  # 36 dB down
        lambda y: [y, 0 * y],
        lambda y: [0 * y, 0 * y],
        lambda y: [y, -y * (np.arange(len(y)) < len(y) / 2)],  # over the whole file, not in each block
    ],
)
def test_the_mean_of_other_channels_is_taken(tmp_path, rng, capsys, channels):
    y = np.column_stack(channels(0.1 * rng.standard_normal(2 * SAMPLES))).astype(np.float32)
    soundfile.write(tmp_path / "x.wav", y, SR, subtype="FLOAT")
    np.testing.assert_array_equal(load(tmp_path / "x.wav", SR), y.mean(axis=1))
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("script", BOTH)
def test_stems_of_nothing_do_not_say_how_well_they_add_up(folder, rng, capsys, script):
    recording("x.wav", lambda rng: np.zeros(4000))(folder, rng)
    script.main(["x.wav", *RUN[1:], "--stems"])
    assert "and a residual. They are silent, as the recording is.\n" in capsys.readouterr().err


ATHERIS = """
import os
from contextlib import nullcontext

def instrument_imports(include):
    return nullcontext()

def Setup(arguments, read):
    print(len(os.listdir(arguments[-1])), "files to start from")

def Fuzz():
    os._exit(7)  # as libFuzzer ends
"""


def test_fuzzing_leaves_no_folder(tmp_path, root):
    (tmp_path / "atheris.py").write_text(ATHERIS)
    (tmp_path / "tmp").mkdir()
    environment = os.environ | {"PYTHONPATH": str(tmp_path), "TMPDIR": str(tmp_path / "tmp")}
    command = [sys.executable, root / "tests" / "fuzz_files.py"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert (done.returncode, done.stderr) == (7, "")
    assert not list((tmp_path / "tmp").iterdir())
