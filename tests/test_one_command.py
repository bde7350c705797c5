"""A sound and nothing else: the suite's own basis, learnt once; folders as inputs; where each input's results go."""

import logging
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile

import CNMF
import make_init_H
import NMF
from helpers import TEMPLATES, contents, copy_basis, names, record, started, struck
from piano import basis, blocks, cli, learn

pytestmark = [pytest.mark.same_everywhere("the command line, and a folder of caches"), pytest.mark.usefixtures("drawn")]

SR = 22050


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A current directory with a short sound, and a home of its own."""
    monkeypatch.chdir(tmp_path)
    for name in ("HOME", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.setenv(name, str(tmp_path / "home"))
    soundfile.write("song.wav", struck(60, seconds=1), SR)
    return tmp_path


@pytest.fixture(scope="module")
def two_templates(tmp_path_factory):
    """Folder of the first second of two templates, and in ``basis`` what is learnt from them with a short window."""
    few = tmp_path_factory.mktemp("few")
    for midi in (57, 60):
        soundfile.write(few / TEMPLATES[midi].name, struck(midi, seconds=1), SR)
    make_init_H.main([str(few), "--n-fft", "512", "-o", str(few / "basis"), "--quiet"])
    return few


@pytest.fixture
def few_templates(monkeypatch, two_templates, tmp_path_factory):
    """Two templates in place of the suite's 60, which are learnt in a moment."""
    few = tmp_path_factory.mktemp("few")
    for path in two_templates.glob("*.wav"):
        shutil.copy(path, few)
    monkeypatch.setattr(learn, "TEMPLATES", few)
    monkeypatch.setattr(learn, "KEYS", (57, 60))
    monkeypatch.setattr(learn, "OPTIONS", {"n_fft": 2048, "states": 1})
    monkeypatch.setattr(blocks, "compile_elsewhere", lambda module: None)  # it would take a core from the test
    return few


def test_words_are_told_apart():
    parser = cli.parser("", "NMF.py")
    cli.add_decomposition(parser)
    for words, expected in (
        ("spec.npy 20 fixed_basis.npy", (["spec.npy"], 20, "fixed_basis.npy")),
        ("a.npy b.wav 20 H.npy", (["a.npy", "b.wav"], 20, "H.npy")),
        ("a.wav 20 H.dat", (["a.wav"], 20, "H.dat")),
        ("a.wav --stems 20 H.npy", (["a.wav"], 20, "H.npy")),
        ("--stems a.wav --listen 20 -thr 1e-4 H.npy", (["a.wav"], 20, "H.npy")),
        ("a.wav", (["a.wav"], 200, None)),
        ("a.wav b.wav c.wav", (["a.wav", "b.wav", "c.wav"], 200, None)),
        ("a.wav b.wav 20", (["a.wav", "b.wav"], 20, None)),
        ("a.wav --listen 20", (["a.wav"], 20, None)),
        ("20", (["20"], 200, None)),
    ):
        args = cli.parse_decomposition(parser, words.split())
        assert (args.inputs, args.n_iter, args.basis) == expected, words


def test_it_is_what_make_init_h_learns_from_the_suites_templates(folder, root, two_templates, monkeypatch, caplog):
    """Here of two of them, and for six of all 88 keys."""
    assert (root / "basis_wav_piano", (21, 108)) == (learn.TEMPLATES, learn.KEYS)
    monkeypatch.setattr(learn, "TEMPLATES", two_templates)
    monkeypatch.setattr(learn, "KEYS", (56, 61))
    compiled = []
    monkeypatch.setattr(blocks, "compile_elsewhere", compiled.append)
    caplog.set_level("INFO")
    logging.getLogger("piano").propagate = True  # a command before may have turned it to the terminal
    logging.getLogger("piano").setLevel("INFO")
    path = learn.suite_basis()
    assert f"learning the 2 notes of {two_templates.name}; only the first run does that ..." in caplog.messages
    caplog.clear()
    assert learn.suite_basis() == path
    assert not caplog.messages
    assert compiled == ["piano.learn"]  # once, while it learnt
    make_init_H.main(f"{two_templates} --states 2 --n-fft 8192 --keys G#3 C#4 -o out --quiet".split())
    assert contents(path.parent).items() <= contents(folder / "out").items()
    assert list(basis.load(path).notes) == list(range(56, 62))


def test_a_sound_is_all_that_is_needed(folder, few_templates, monkeypatch):
    """What the first run compiles is compiled while it learns."""
    used, compiled = set(), blocks.compiled
    monkeypatch.setattr(blocks, "compiled", lambda *kernel: used.add(kernel) or compiled(*kernel))
    CNMF.main(["song.wav", "--stems", "-o", "out", "--quiet"])
    assert used == set(learn.KERNELS.items())
    (kept,) = folder.glob("home/**/fixed_basis.npy")
    CNMF.main(["song.wav", "200", str(kept), "--stems", "-o", "named", "--quiet"])
    out, named = (contents(folder / name) for name in ("out", "named"))
    assert out.pop("run.json") != named.pop("run.json")
    assert out == named
    assert record("out")["inputs"] == record("named")["inputs"]  # the basis with its SHA-256
    assert record("out")["command"] == ["CNMF.py", "song.wav", "--stems"]


def test_it_is_learnt_anew_where_anything_differs_and_made_again_where_spoilt(folder, few_templates, monkeypatch):
    paths = [learn.suite_basis()]
    whole = contents(paths[0].parent)
    spoilt = [*((name, Path.unlink) for name in whole), ("fixed_basis.npy", lambda file: os.truncate(file, 9))]
    for name, spoil in spoilt:
        spoil(paths[0].parent / name)
        assert learn.suite_basis() == paths[0]
        assert contents(paths[0].parent) == whole
    (few_templates / "060_C4.wav").unlink()
    paths.append(learn.suite_basis())
    monkeypatch.setitem(learn.OPTIONS, "states", 2)
    paths.append(learn.suite_basis())
    monkeypatch.setattr(learn.results, "VERSION", "99")
    paths.append(learn.suite_basis())
    assert len(set(paths)) == 4
    assert [basis.load(path).H.shape[1] for path in paths] == [4, 4, 8, 8]


def with_two(code, two_templates, **changes):
    """Python on some code, in which the suite has two templates."""
    few = f"learn.TEMPLATES, learn.KEYS, learn.OPTIONS = Path({str(two_templates)!r}), (57, 60), {{'n_fft': 2048}}"
    return started("-c", f"from pathlib import Path; from piano import learn; {few}; {code}", **changes)


def test_two_first_runs_at_once_both_end_well(folder, two_templates):
    """Real processes; each asks for the same basis while the other learns it."""
    code = "print(learn.suite_basis())"
    with with_two(code, two_templates) as one, with_two(code, two_templates) as other:
        paths = {run.communicate()[0].strip() for run in (one, other)}
    assert [one.returncode, other.returncode] == [0, 0]
    (kept,) = folder.glob("home/**/fixed_basis.npy")
    assert paths == {str(kept)}
    assert len(names(kept.parent)) == 4
    assert basis.load(kept, with_rotation=True).patterns is not None


def test_where_nothing_can_be_kept_the_run_goes_on(folder, two_templates):
    (folder / "home").write_text("a file, where a folder of caches should be")
    (folder / "tmp").mkdir()
    code = "from piano import basis; print(*basis.load(learn.suite_basis()).notes)"
    with with_two(code, two_templates, TMPDIR="tmp") as run:
        out, said = run.communicate()
    assert (run.returncode, out) == (0, "57 58 59 60\n")
    assert "cannot be written to" in said
    assert "so the next run learns the notes again" in said
    assert names("tmp") == []


def test_a_checkout_without_templates_is_told(folder, monkeypatch, refused):
    monkeypatch.setattr(learn, "TEMPLATES", folder / "gone")
    assert "gone: got no templates, expected those that the suite comes with" in refused(NMF, "song.wav")


def results(folder):
    """Names of the folders below that hold the results of a run."""
    return sorted(path.parent.relative_to(folder).as_posix() for path in folder.rglob("run.json"))


def test_a_folder_stands_for_what_is_in_it(folder, rng, few_templates, two_templates, refused):
    """A sound with an unknown suffix and a spectrogram, not other things, a run's results, or the basis."""
    songs = folder / "songs"
    songs.mkdir()
    copy_basis(two_templates / "basis", songs)
    (folder / "song.wav").rename(songs / "first.dat")
    for name in ("notes.txt", ".hidden.wav", "cover.png"):
        (songs / name).write_text("la")
    command = ["3", "songs/fixed_basis.npy", "--quiet", "-o"]
    NMF.main(["songs/first.dat", *command, "songs", "--stems"])  # leaves sounds
    np.save(songs / "second.npy", rng.random((257, 9)))
    for _ in range(2):
        NMF.main(["songs", *command, "songs"])
        assert results(songs) == [".", "first", "second"]
    NMF.main(["songs", "3", "-o", "sounds", "--quiet"])  # nothing else: all its sounds
    assert results(folder / "sounds") == ["first"]
    (songs / "broken.wav").write_bytes(b"RIFF\0\0\0\0WAVE")
    assert "broken.wav: cannot be read as audio" in refused(NMF, "songs", *command, "rest")
    assert results(folder / "rest") == ["first", "second"]


def test_results_stay_inside_dir_whatever_the_name(folder, two_templates, rng):
    (folder / "in").mkdir()
    inputs = [f"in/{name}" for name in ("....", " song .wav", ".part-00.wav", "other.npy")]
    for name in inputs:
        with open(name, "wb") as file:
            np.save(file, rng.random((257, 9)))
    before = names(folder)
    NMF.main([*inputs, "3", str(two_templates / "basis/fixed_basis.npy"), "-o", "deep/out", "--quiet"])
    assert names(folder) == sorted([*before, "deep"])
    assert results(folder) == [f"deep/out/{name}" for name in ("other", "part-00", "recording", "song")]
    assert (names("deep"), len(names("deep/out"))) == (["out"], 4)
