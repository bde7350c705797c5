"""The same input, seed and version give the same bytes, run.json and pictures included."""

import hashlib
import json
import os
import shutil

import numpy as np
import pytest
import soundfile

import CNMF
import make_init_H
from helpers import TEMPLATES, chorale, contents, copy_basis, names, python, record
from piano import recording, results

no_numbers = pytest.mark.same_everywhere("compares names and digests, or does what others do under every kernel")
K, L, M = 513, 20, 600  # enough for BLAS to share out


@pytest.fixture(scope="module")
def files(tmp_path_factory, root, learnt):
    folder = tmp_path_factory.mktemp("same")
    rng = np.random.default_rng(1)
    np.save(folder / "basis.npy", rng.random((K, L)).astype(np.float32))
    np.save(folder / "basis_rotation.npy", (0.9 * np.exp(1j * rng.random((K, L)))).astype(np.complex64))
    np.save(folder / "spec.npy", (rng.standard_normal((K, M)) + 1j * rng.standard_normal((K, M))).astype(np.complex64))
    (folder / "notes").mkdir()
    shutil.copy(TEMPLATES[60], folder / "notes" / "C4.wav")
    copy_basis(learnt, folder)
    soundfile.write(folder / "song.flac", chorale(1.5), 22050)
    return folder


WHOLE = "CNMF.py song.flac 9 fixed_basis.npy --stems --listen"  # under every kernel: all that a sound goes through
MORE = [
    "NMF.py spec.npy 4 basis.npy --notes --sr 22050 --stems",
    "make_init_H.py notes --states 2",
    "CNMF.py spec.npy 2 basis.npy --phase-init random --no-phase --seed 3",
]


@pytest.mark.parametrize("command", [WHOLE, *(pytest.param(words, marks=no_numbers) for words in MORE)])
def test_neither_cores_nor_the_compile_cache_change_a_byte(files, root, tmp_path, command):
    """Run from another folder, where no library may warn of anything."""
    script, *arguments = command.split()
    results = []
    own = {"NUMBA_CACHE_DIR": tmp_path / "cache"} if "--notes" in arguments else {}  # librosa's functions take long
    for out, cores, threads in (("cold", {min(os.sched_getaffinity(0))}, "1"), ("warm", None, "3")):
        done = python(
            *("-W", "error", root / script, *arguments, "-o", tmp_path / out, "--quiet"),
            cwd=files,
            preexec_fn=lambda cores=cores: cores and os.sched_setaffinity(0, cores),
            OPENBLAS_NUM_THREADS=threads,
            **own,
        )
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        results.append(contents(tmp_path / out))
    assert results[0] == results[1]
    assert "run.json" in results[0]


@no_numbers
def test_the_record_traces_a_result_to_its_inputs(files, tmp_path, monkeypatch):
    monkeypatch.chdir(files)
    arguments = [str(files / "spec.npy"), "9", "basis.npy", "--tol", "0.5", "--sr", "8000", "--seed", "5"]
    CNMF.main([*arguments, "-o", str(tmp_path), "--quiet"])
    text = (tmp_path / "run.json").read_text()
    got = json.loads(text)
    assert got["command"] == ["CNMF.py", "spec.npy", *arguments[1:]]
    assert not any(str(folder) in text for folder in (files, tmp_path))
    digests = {name: hashlib.sha256((files / name).read_bytes()).hexdigest() for name in ("spec.npy", "basis.npy")}
    assert got["inputs"] == [{"file": name, "sha256": digest} for name, digest in digests.items()]
    assert got["stft"] == {"sr": 8000, "n_fft": 1024, "hop": 256, "window": "hann"}
    assert (got["seed"], got["stopped_by"], got["earlier"]) == (5, "tolerance", [])
    assert (got["version"], got["libraries"]["numpy"]) == (results.VERSION, np.__version__)
    assert got["iterations"] == len(np.load(tmp_path / "cost.npy"))
    Y, F = np.load("spec.npy"), np.load(tmp_path / "reconst.npy")
    error = np.sum(np.abs(Y - F) ** 2) / np.sum(np.abs(Y) ** 2)
    assert got["normalised_error"] == pytest.approx(error, rel=1e-4)
    assert sorted([*got["outputs"], "run.json"]) == names(tmp_path)


@no_numbers
def test_the_record_of_a_basis_tells_how_well_each_note_fits(files, tmp_path):
    make_init_H.main([str(files / "notes"), "-o", str(tmp_path)])
    got = record(tmp_path)
    V = np.abs(recording.stft(recording.load(files / "notes" / "C4.wav", 22050))).astype(np.float64)
    largest = np.linalg.svd(V, compute_uv=False)[0]  # of all matrices of rank one, the nearest
    assert got["normalised_error"] == [pytest.approx(1 - largest**2 / np.sum(V**2), abs=1e-3)]
    assert got["command"] == ["make_init_H.py", "notes"]
