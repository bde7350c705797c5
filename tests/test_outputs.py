"""Results come all together or not at all, one run at a time, and say what made them."""

import hashlib
import json
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import utils
from piano import outputs


def write(path, contents, script="A.py"):
    """Hand ``contents``, a dict from names to texts, over to ``path``, with a record."""
    with outputs.reserved_folder(path) as workspace, outputs.output_folder(workspace) as folder:
        for name, text in contents.items():
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_text(text)
        outputs.write_record(folder, script, sorted(contents), [], seed=0, stft=None)


def texts(folder):
    """Every file below ``folder`` that is not hidden, with its text."""
    paths = [path.relative_to(folder) for path in sorted(folder.rglob("*")) if path.is_file()]
    return {str(path): (folder / path).read_text() for path in paths if not str(path).startswith(".")}


def hidden(folder):
    return [path.name for path in folder.iterdir() if path.name.startswith(".")]


def record(folder):
    return json.loads((folder / "run.json").read_text())


def test_outputs_appear_together_and_replace_what_was_there(tmp_path):
    (tmp_path / "a").write_text("old")
    (tmp_path / "other").write_text("kept")
    with outputs.reserved_folder(tmp_path) as workspace, outputs.output_folder(workspace) as folder:
        (folder / "a").write_text("new")
        (folder / "b").write_text("new")
        assert (tmp_path / "a").read_text() == "old"
        assert not (tmp_path / "b").exists()
        assert folder.parents[1] == tmp_path  # a rename within one file system is all or nothing
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"a": "new", "b": "new", "other": "kept"}


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, utils.InputError])
@pytest.mark.parametrize("existed", [True, False])
def test_a_run_that_fails_leaves_nothing(tmp_path, error, existed):
    target = tmp_path / "results"
    if existed:
        target.mkdir()
        (target / "a").write_text("old")

    def fail():
        with outputs.reserved_folder(target) as workspace, outputs.output_folder(workspace) as folder:
            (folder / "a").write_text("half")
            raise error

    with pytest.raises(error):
        fail()
    assert target.exists() == existed
    if existed:
        assert [(path.name, path.read_text()) for path in target.iterdir()] == [("a", "old")]


def test_a_folder_in_the_place_of_an_output_stops_all_outputs(tmp_path):
    (tmp_path / "b").mkdir()
    (tmp_path / "a").write_text("old")

    def attempt():
        with outputs.reserved_folder(tmp_path) as workspace, outputs.output_folder(workspace) as folder:
            (folder / "a").write_text("new")
            (folder / "b").write_text("new")

    with pytest.raises(utils.InputError, match="b: got a folder"):
        attempt()
    assert (tmp_path / "a").read_text() == "old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


def test_outputs_can_be_read_by_whom_the_umask_lets(tmp_path):
    with outputs.reserved_folder(tmp_path / "new") as workspace, outputs.output_folder(workspace) as folder:
        np.save(folder / "a.npy", np.ones(3))
    (tmp_path / "plain").write_text("")
    mode = stat.S_IMODE((tmp_path / "plain").stat().st_mode)
    assert stat.S_IMODE((tmp_path / "new" / "a.npy").stat().st_mode) == mode


def test_results_that_the_disk_has_no_room_for_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(outputs.shutil, "disk_usage", lambda path: SimpleNamespace(free=5 * 10**9))
    outputs.check_space(tmp_path / "new" / "folder", 5 * 10**9, "less")
    with pytest.raises(utils.InputError, match=r"got 5.0 GB of free space, expected 7.5 GB for the results \(less\)"):
        outputs.check_space(tmp_path / "new" / "folder", 75 * 10**8, "less")
    assert not (tmp_path / "new").exists()


def test_folders_made_on_the_way_go_with_a_run_that_fails(tmp_path):
    with pytest.raises(RuntimeError), outputs.reserved_folder(tmp_path / "a" / "b"):
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


# --- One run at a time ---


def test_a_folder_that_a_run_is_writing_to_is_refused_and_left_alone(tmp_path):
    with outputs.reserved_folder(tmp_path) as workspace, outputs.output_folder(workspace) as folder:
        (folder / "a").write_text("first")
        with pytest.raises(utils.InputError, match="another run is writing to"):
            write(tmp_path, {"a": "second"})
        outputs.write_record(folder, "A.py", [], [], seed=0, stft=None)
    assert texts(tmp_path)["a"] == "first"
    assert hidden(tmp_path) == []
    write(tmp_path, {"a": "second"})
    assert texts(tmp_path)["a"] == "second"


def test_what_a_killed_run_left_is_deleted_and_what_looks_like_it_is_not(tmp_path):
    code = (
        "import os, signal, sys\n"
        "from piano import outputs\n"
        "with outputs.reserved_folder(sys.argv[1]) as w, outputs.output_folder(w) as folder:\n"
        "    (folder / 'a').write_text('half')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    (tmp_path / ".part-of my own").mkdir()
    root = Path(outputs.__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", code, tmp_path], cwd=root, check=False)
    assert done.returncode == -signal.SIGKILL
    assert len(hidden(tmp_path)) == 2
    write(tmp_path, {"b": "whole"})
    assert hidden(tmp_path) == [".part-of my own"]
    assert set(texts(tmp_path)) == {"b", "run.json"}


# --- A kill while results are handed over ---

OLD = {"a": "old", "b": "old", "phase_calc.npy": "old", "stems/x": "old", "stems/y": "old"}
NEW = {"a": "new", "c": "new", "stems/x": "new"}
KILLED_AT_STEP = """
import os, signal, sys
sys.path.insert(0, {tests!r})
import test_outputs
steps = int(sys.argv[2])
def count(event, arguments):
    global steps
    if event in ("os.rename", "os.remove", "os.rmdir", "os.mkdir"):
        steps -= 1
        if steps < 0:
            os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(count)
test_outputs.write(test_outputs.Path(sys.argv[1]), test_outputs.NEW)
"""


def test_a_kill_at_any_step_leaves_one_runs_results_or_says_so(tmp_path):
    whole = {}
    for name, contents in (("old", [OLD]), ("new", [OLD, NEW])):
        for content in contents:
            write(tmp_path / name, content)
        whole[name] = texts(tmp_path / name)
    assert set(whole["new"]) == {"a", "b", "c", "stems/x", "run.json"}  # b is nobody's option: it may be the user's
    code = KILLED_AT_STEP.format(tests=str(Path(__file__).parent))
    seen = []
    for step in range(100):
        folder = tmp_path / str(step)
        write(folder, OLD)
        root = Path(outputs.__file__).parents[1]
        status = subprocess.run([sys.executable, "-c", code, folder, str(step)], cwd=root, check=False).returncode
        assert status in (0, -signal.SIGKILL)
        left = texts(folder)
        state = next((name for name in whole if left == whole[name]), "between")
        half = any(name.startswith(".done-") for name in hidden(folder))
        if state == "between":
            assert "run.json" not in left
            assert half
            with pytest.raises(utils.InputError, match="half put in place"):
                outputs.check_handed_over(folder / "a")
        with outputs.reserved_folder(folder):  # what the next run does first
            assert texts(folder) == whole["new" if half or state == "new" else "old"]
        assert hidden(folder) == []
        seen.append(state)
        if status == 0:
            break
    assert status == 0
    assert sorted(seen, key=["old", "between", "new"].index) == seen
    assert seen.count("between") > 3


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_a_signal_does_not_stop_the_handing_over_half_way(tmp_path, monkeypatch, error):
    write(tmp_path, OLD)
    replace, calls = os.replace, []

    def interrupted(source, target):
        calls.append(source)
        if len(calls) == 2:
            raise error
        replace(source, target)

    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(error):
        write(tmp_path, NEW)
    assert set(texts(tmp_path)) == {"a", "b", "c", "stems/x", "run.json"}
    assert {text for name, text in texts(tmp_path).items() if name not in ("run.json", "b")} == {"new"}
    assert hidden(tmp_path) == []


# --- run.json ---


def test_an_option_that_is_not_asked_for_again_takes_its_result_with_it(tmp_path):
    (tmp_path / "notes.csv").write_text("mine")  # nobody's run.json tells of it
    write(tmp_path, OLD)
    write(tmp_path, NEW, script="B.py")
    assert set(texts(tmp_path)) == {"a", "b", "c", "phase_calc.npy", "stems/x", "notes.csv", "run.json"}
    (earlier,) = record(tmp_path)["earlier"]
    assert (earlier["script"], earlier["outputs"]) == ("A.py", ["b", "phase_calc.npy"])
    write(tmp_path, {"a": "third"})
    assert set(texts(tmp_path)) == {"a", "b", "c", "stems/x", "notes.csv", "run.json"}
    (earlier,) = record(tmp_path)["earlier"]
    assert (earlier["script"], earlier["outputs"]) == ("B.py", ["c", "stems"])


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        "[" * 10**5,
        '{"script": "A.py", "outputs": "stems", "earlier": []}',
        '{"script": "A.py", "outputs": [["stems"]], "earlier": []}',
        '{"script": "A.py", "outputs": ["../mine", "mine", "/etc/passwd", ".", "a"], "earlier": []}',
        '{"script": "A.py", "outputs": ["mine"], "earlier": [1]}',
        '{"script": {}, "outputs": ["mine"], "earlier": []}',
        b"\xff\xfe",
    ],
)
def test_a_strangers_record_removes_nothing(tmp_path, text):
    folder = tmp_path / "results"
    write(folder, {})
    for name in ("results/mine", "mine", "results/notes.csv"):
        (tmp_path / name).write_text("mine")
    (folder / "stems").mkdir()
    (folder / "run.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    write(folder, {"a": "new"})
    assert (folder / "stems").is_dir()
    assert (folder / "mine").exists()
    assert (folder / "notes.csv").exists()
    assert (tmp_path / "mine").exists()
    assert record(folder)["earlier"] == []


def test_a_record_holds_no_path_of_this_machine_and_the_inputs_digests(tmp_path):
    np.save(tmp_path / "spec.npy", np.ones(3))
    inputs = [tmp_path / "spec.npy"]
    with outputs.reserved_folder(tmp_path / "out") as workspace, outputs.output_folder(workspace) as folder:
        (folder / "cost.npy").write_text("")
        stft = {"sr": 8000, "n_fft": 64, "hop": 16, "window": "hann"}
        command = [str(tmp_path / "spec.npy"), "3", "sub/basis.npy"]
        outputs.write_record(folder, "A.py", command, inputs, seed=7, stft=stft, stopped_by="threshold")
    text = (tmp_path / "out" / "run.json").read_text()
    assert str(tmp_path) not in text
    got = json.loads(text)
    digest = hashlib.sha256((tmp_path / "spec.npy").read_bytes()).hexdigest()
    assert got["inputs"] == [{"file": "spec.npy", "sha256": digest}]
    assert got["command"] == ["A.py", "spec.npy", "3", "sub/basis.npy"]
    assert (got["version"], got["seed"], got["stft"]) == (outputs.VERSION, 7, stft)
    assert (got["stopped_by"], got["outputs"], got["earlier"]) == ("threshold", ["cost.npy"], [])
    assert got["libraries"]["numpy"] == np.__version__
