"""The three commands: what they write, and what they say."""

import re
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

import CNMF
import make_init_H
import NMF
import oracle
import utils
from helpers import TEMPLATES, names, python, record, save_basis
from helpers import contents as contents_of
from piano import adapt, cli, results
from piano.basis import load

pytestmark = pytest.mark.same_everywhere("compares names and words; what is computed, other files test")

K, L, M = 33, 3, 20
FILES = ["activation.png", "activation_calc.npy", "basis_calc.npy", "cost.npy", "run.json"]
NMF_FILES = sorted([*FILES, "learning_curve_NMF.png"])
CNMF_FILES = sorted([*FILES, "learning_curve_CNMF.png", "phase_calc.npy", "reconst.npy"])


@pytest.fixture
def files(tmp_path, monkeypatch, drawn, rng):
    """A current directory with spec.npy, complex64, and fixed_basis.npy with its description."""
    monkeypatch.chdir(tmp_path)
    H = rng.random((K, L)).astype(np.float32)
    Y = (H @ rng.random((L, M)) + 0.1 * rng.random((K, M))) * np.exp(2j * np.pi * rng.random((K, M)))
    np.save("spec.npy", Y.astype(np.complex64))
    save_basis("fixed_basis.npy", H / H.sum(axis=0), ["C4", "C#4", "D4"], sr=8000)
    return tmp_path


def array(folder, name):
    return np.load(folder / f"{name}.npy", allow_pickle=False)


# --- NMF.py ---


def test_nmf_writes_its_files(files):
    NMF.main(["spec.npy", "20", "fixed_basis.npy", "-o", "out"])
    out = files / "out"
    assert names(out) == NMF_FILES
    U, cost = array(out, "activation_calc"), array(out, "cost")
    assert (U.shape, U.dtype) == ((L, M), np.float32)
    assert (cost.shape, cost.dtype) == ((20,), np.float64)
    np.save("magnitude.npy", np.abs(np.load("spec.npy")))
    NMF.main(["magnitude.npy", "20", "fixed_basis.npy", "-o", "from magnitudes"])
    assert contents(files / "from magnitudes") == contents(out)


@pytest.mark.parametrize(
    ("script", "arguments", "reason"),
    [
        (NMF, [], "number of iterations"),
        (CNMF, ["-thr", "0.2"], "threshold"),
        (NMF, ["--tol", "0.2"], "tolerance"),
        (CNMF, ["-thr", "1e-9", "--tol", "1e-9"], "number of iterations"),
    ],
)
def test_a_command_says_what_ended_it_and_its_curve_ends_there(files, capsys, drawn, script, arguments, reason):
    script.main(["spec.npy", "30", "fixed_basis.npy", *arguments])
    cost = array(files, "cost")
    said, where = capsys.readouterr().err.strip().splitlines()
    size = sum(path.stat().st_size for path in map(files.joinpath, [*record(files)["outputs"], "run.json"]))
    assert where == f"results are in {files} ({size / 1e6:.1f} MB): open activation.png"
    assert said.startswith(f"{len(cost)} rounds of fitting (iterations), {cli.STOPS[reason]}. ")
    assert (len(cost) == 30) == (reason == "number of iterations")
    Y, H, U = (array(files, name) for name in ("spec", "fixed_basis", "activation_calc"))
    left = Y - array(files, "reconst") if script is CNMF else np.abs(Y) - H @ U
    error = np.sum(np.abs(left) ** 2) / np.sum(np.abs(Y) ** 2)
    told = re.search(r"leaves out has (\S+) % of the recording's energy", said)
    assert float(told[1]) / 100 == pytest.approx(error, rel=0.06)  # it is told in two digits
    if reason == "threshold":
        assert error < 0.2
    assert len(drawn[f"learning_curve_{script.__name__}.png"].axes[0].lines[0].get_xdata()) == len(cost)


@pytest.mark.parametrize("script", [make_init_H, NMF, CNMF])
def test_a_command_tells_how_it_is_used(capsys, monkeypatch, script):
    """Its help is its docstring, and what one looks for; without a word behind it, it shows an example."""
    with pytest.raises(SystemExit, match="0"):
        script.main(["--version"])
    assert capsys.readouterr().out == f"{script.__name__}.py {results.VERSION}\n"
    with pytest.raises(SystemExit, match="0"):
        script.main(["--help"])
    told = capsys.readouterr().out
    assert told.startswith(script.__doc__.strip())  # what one does comes first
    titles = ["what to write", *(["how to listen", "how to compute"] if script is not make_init_H else [])]
    assert titles == sorted(titles, key=lambda title: told.index(f"\n{title}:\n"))
    monkeypatch.setattr(sys, "argv", [script.__file__])
    with pytest.raises(SystemExit, match="2"):
        script.main()
    said = capsys.readouterr().err
    assert next(line for line in script.__doc__.splitlines() if line.startswith("    python")) in said
    assert f"python {Path(script.__file__).name} -h" in said


# --- CNMF.py ---


def write_rotation(rng):
    """What make_init_H.py writes beside fixed_basis.npy for sinusoidal phases."""
    np.save("fixed_basis_rotation.npy", (0.9 * np.exp(2j * np.pi * rng.random((K, L)))).astype(np.complex64))


@pytest.mark.parametrize(
    ("options", "dtype"),
    [([], np.complex64), (["--phase-init", "random"], ">c8"), (["--phase-init", "sinusoidal"], np.complex128)],
)
def test_cnmf_writes_its_files(files, rng, options, dtype):
    write_rotation(rng)
    Y = np.load("spec.npy").astype(dtype)
    np.save("spec.npy", Y)
    CNMF.main(["spec.npy", "20", "fixed_basis.npy", "-thr", "1e-9", "-o", "out", *options])
    out = files / "out"
    assert names(out) == CNMF_FILES
    assert {"phase_init", "adapted_with"}.isdisjoint(record(out))
    assert (out / "basis_calc.npy").read_bytes() == (files / "fixed_basis.npy").read_bytes()
    H, U, P, F, cost = (array(out, f"{n}") for n in ("basis_calc", "activation_calc", "phase_calc", "reconst", "cost"))
    native = Y.dtype.newbyteorder("=")
    assert (U.shape, U.dtype) == ((L, M), Y.real.dtype.newbyteorder("="))
    assert (P.shape, P.dtype) == ((L, K, M), native)
    assert (F.shape, F.dtype) == ((K, M), native)
    assert (cost.shape, cost.dtype) == ((20,), np.float64)
    np.testing.assert_allclose(np.abs(P), 1, atol=1e-6)
    np.testing.assert_allclose(oracle.model(H, U, P), F, atol=1e-5)
    penalty = 2e-5 * (np.sum(np.abs(Y) ** 2) / (M * L)) ** 0.4 * np.sum(U**1.2)  # of the sparsity that is the default
    assert cost[-1] == pytest.approx(np.sum(np.abs(Y - F) ** 2) + penalty, rel=1e-5)
    if not options:  # phases are the mixture's
        np.testing.assert_allclose(P, np.tile(Y / np.abs(Y), (L, 1, 1)), atol=1e-6)


def test_an_adapted_basis_is_a_basis_like_any_other(files, rng, capsys):
    write_rotation(rng)
    NMF.main(["spec.npy", "20", "fixed_basis.npy", "--adapt", "auto", "-o", "learnt"])
    NMF.main(["spec.npy", "20", "learnt/basis_calc.npy", "-o", "again"])
    for name in ("basis_calc.npy", "activation_calc.npy", "cost.npy"):
        assert (files / "learnt" / name).read_bytes() == (files / "again" / name).read_bytes(), name
    assert load(files / "learnt" / "basis_calc.npy", with_rotation=True).rotation is not None
    CNMF.main(["spec.npy", "5", "fixed_basis.npy", "--stems", "-o", "one"])
    assert "basis_calc.npy is a BASIS for other recordings of it" in capsys.readouterr().err
    CNMF.main(["spec.npy", "5", "one/basis_calc.npy", "--stems", "-o", "two"])
    first, second = (load(files / name / "basis_calc.npy") for name in ("one", "two"))
    assert (first.columns, first.stft) == (second.columns, second.stft)
    inputs = [entry["file"] for entry in record(files / "two")["inputs"]]
    assert inputs == ["spec.npy", "basis_calc.npy", "basis_calc.json", "basis_calc_rotation.npy"]
    CNMF.main(["spec.npy", "5", "fixed_basis.npy", "--stems", "--adapt", "none", "-o", "one"])
    assert not (files / "one" / "basis_calc.json").exists()
    assert (files / "one" / "basis_calc.npy").read_bytes() == (files / "fixed_basis.npy").read_bytes()


def contents(folder):
    """Bytes of each file of a run but run.json, which names the command; so does the page, in which it is left out."""
    found = {name: content for name, content in contents_of(folder).items() if name != "run.json"}
    return {name: re.sub(rb'"command":"[^"]*"', b"", content) for name, content in found.items()}


@pytest.mark.parametrize("wanted", [["--stems", "all", "--listen"], ["--listen"]], ids=" ".join)
def test_with_stems_or_a_page_what_separates_best_is_the_default(files, rng, capsys, wanted):
    write_rotation(rng)
    command = ["spec.npy", "5", "fixed_basis.npy", *wanted]
    CNMF.main([*command, "-o", "short"])
    said = capsys.readouterr().err
    assert "basis was adapted to this piano (--adapt " in said
    assert ("stems and a residual" in said) == ("--stems" in wanted)
    CNMF.main([*command, "-o", "long", "--phase-init", "sinusoidal", "--adapt", "auto", "--no-phase"])
    assert contents(files / "short") == contents(files / "long")
    assert "phase_calc.npy" not in names(files / "short")
    for told in map(record, ("short", "long")):
        assert told["phase_init"] == "sinusoidal"
        assert told["adapted_with"] > 0
        assert "fixed_basis_rotation.npy" in [entry["file"] for entry in told["inputs"]]
    assert record(files / "short")["command"] == ["CNMF.py", *command]


@pytest.mark.parametrize("phase_init", ["random", "sinusoidal"])
def test_what_is_asked_for_wins_over_the_defaults_of_stems(files, rng, phase_init):
    write_rotation(rng)
    command = ["spec.npy", "5", "fixed_basis.npy", "--phase-init", phase_init, "--adapt", "3"]
    CNMF.main([*command, "-o", "plain"])
    CNMF.main([*command, "--stems", "--phase", "-o", "stems"])
    plain, with_stems = contents(files / "plain"), contents(files / "stems")
    assert "phase_calc.npy" in plain
    assert {name: with_stems[name] for name in plain} == plain  # stems take nothing else apart
    assert (record("stems")["phase_init"], record("stems")["adapted_with"]) == (phase_init, 3)


def test_without_rotations_notes_get_the_phases_of_the_recording(files, capsys):
    command = ["spec.npy", "5", "fixed_basis.npy", "--stems", "--phase"]
    CNMF.main([*command, "-o", "out"])
    said = capsys.readouterr().err.splitlines()
    remark = "no fixed_basis_rotation.npy: notes get the phases of the recording (--phase-init mixture)"
    assert (said[0], said.count(remark)) == (remark, 1)
    Y, P = np.load("spec.npy"), array(files / "out", "phase_calc")
    np.testing.assert_allclose(P, np.tile(Y / np.abs(Y), (L, 1, 1)), atol=1e-6)
    assert record("out")["phase_init"] == "mixture"
    assert record("out")["adapted_with"] > 0
    CNMF.main([*command, "-o", "asked", "--phase-init", "mixture"])
    assert remark not in capsys.readouterr().err
    assert contents(files / "asked") == contents(files / "out")


def test_nmf_descends_by_coordinates_where_sounds_are_wanted_and_adapts_where_asked(files):
    for loss, options, solver in (
        ("frobenius", [], "mu"),
        ("kullback-leibler", ["--solver", "cd"], "cd"),
        ("frobenius", ["--stems"], "cd"),
        ("kullback-leibler", ["--listen", "--adapt", "none"], "cd"),
        ("itakura-saito", ["--stems"], "mu"),
        ("kullback-leibler", ["--stems", "--solver", "mu"], "mu"),
    ):
        NMF.main(["spec.npy", "5", "fixed_basis.npy", "--loss", loss, *options, "-o", "out"])
        U, cost = utils.nmf(np.load("spec.npy"), array(files, "fixed_basis"), 5, loss=loss, solver=solver)
        np.testing.assert_array_equal(array(files / "out", "activation_calc"), U, str(options))
        np.testing.assert_array_equal(array(files / "out", "cost"), cost)
        assert (files / "out" / "basis_calc.npy").read_bytes() == (files / "fixed_basis.npy").read_bytes()
        assert "adapted_with" not in record(files / "out")


@pytest.mark.parametrize("loss", ["frobenius", "kullback-leibler", "itakura-saito"])
def test_the_list_has_a_say_in_the_losses_that_know_a_prior(files, monkeypatch, loss):
    priors, nmf, prior = [], utils.nmf, (np.ones((L, M), np.float32), 0.1)
    monkeypatch.setattr(adapt, "adapt_basis", lambda Y, basis, *_, **__: (basis, 1.0, prior))
    monkeypatch.setattr(utils, "nmf", lambda *args, **options: priors.append(options["prior"]) or nmf(*args, **options))
    NMF.main(["spec.npy", "2", "fixed_basis.npy", "--adapt", "1", "--loss", loss])
    assert len(priors) == 1
    assert priors[0] is (prior if loss == "kullback-leibler" else None)


def test_the_sparsity_option_is_the_weight_of_the_penalty(files):
    for s in ("0", "0.01", "1"):
        CNMF.main(["spec.npy", "60", "fixed_basis.npy", "-o", s, "--sparsity", s, "--no-phase"])
    penalties = [np.sum(array(files / s, "activation_calc") ** 1.2) for s in ("0", "0.01", "1")]
    assert penalties[0] > penalties[1] > 1.2 * penalties[2]
    H, U, V = array(files, "fixed_basis"), array(files / "0", "activation_calc"), np.abs(np.load("spec.npy"))
    assert array(files / "0", "cost")[-1] == pytest.approx(np.sum((V - H @ U) ** 2), rel=1e-4)


# --- make_init_H.py ---


def test_the_basis_is_written_with_its_picture(tmp_path, monkeypatch, drawn, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notes").mkdir()
    for midi in (59, 60, 61):
        (tmp_path / "notes" / TEMPLATES[midi].name).symlink_to(TEMPLATES[midi])
    make_init_H.main(["notes"])
    assert names(tmp_path) == sorted([*make_init_H.OUTPUTS, "notes"])
    assert "3 notes, B3 to C#4, 3 columns" in capsys.readouterr().err
    axes, colour_bar = drawn["fixed_basis_spectrogram.png"].axes
    assert axes.get_yscale() == "log"
    assert "Hz" in axes.get_ylabel()
    assert "dB" in colour_bar.get_ylabel()
    assert [label.get_text() for label in axes.get_xticklabels()] == ["B3", "C4", "C#4"]


def test_the_start_can_be_set(tmp_path, monkeypatch, rng):
    monkeypatch.chdir(tmp_path)
    soundfile.write("C3.wav", 0.1 * rng.standard_normal(8000), 22050)
    calls = []
    monkeypatch.setattr(utils, "learn_spectra", lambda Y, H, n_iter: calls.append((H, n_iter)) or H)
    make_init_H.main([".", "--n-iter", "7", "--c3", "140", "--n-peaks", "2", "--damping", "0.25", "--variance", "9"])
    ((start, n_iter),) = calls
    assert n_iter == 7
    expected = utils.harmonic_gmm(140.0, n_peaks=2, damping=0.25, variance=9.0)
    np.testing.assert_array_equal(start[:, 0], expected)
    np.testing.assert_allclose(array(tmp_path, "fixed_basis")[:, 0], expected, rtol=1e-6)


def test_nmf_imports_nothing_that_it_does_not_need(files):
    program = (
        "import sys, NMF; NMF.main(['spec.npy', '2', 'fixed_basis.npy']); "
        "print({'librosa', 'numba', 'scipy', 'soundfile', 'tqdm', 'matplotlib.pyplot'} & set(sys.modules))"
    )
    assert python("-c", program, cwd=files).stdout == "set()\n"
