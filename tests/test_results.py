"""Results come all together or not at all, one run at a time, and say what made them."""

import hashlib
import os
import signal
import stat
from pathlib import Path
from types import SimpleNamespace

import pytest

import utils
from helpers import names, python, record
from piano import results

pytestmark = pytest.mark.same_everywhere("compares names and bytes of files")


def write(path, contents, script="A.py", **options):
    """Hand ``contents``, a dict from names to texts, over to ``path``, with a record."""
    with results.reserved_folder(path, script=script, **options) as (_, folder):
        for name, text in contents.items():
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_text(text)
        results.write_record(folder, script, sorted(contents), [], seed=0, stft=None)


def texts(folder):
    """Every file below ``folder`` that is not hidden, with its text."""
    paths = [path.relative_to(folder) for path in sorted(folder.rglob("*")) if path.is_file()]
    return {str(path): (folder / path).read_text() for path in paths if not str(path).startswith(".")}


def hidden(folder):
    return [name for name in names(folder) if name.startswith(".")]


def files(folder):
    """Every path below ``folder`` with what is there: a text, the target of a link, or None for a folder."""
    paths = {str(path.relative_to(folder)): path for path in sorted(folder.rglob("*"))}
    return {
        name: os.readlink(path) if path.is_symlink() else path.read_text() if path.is_file() else None
        for name, path in paths.items()
    }


def test_a_command_that_is_written_tells_of_no_place():
    words = ["/home/me/song.wav", "--score=/home/a=b/song.csv", "--out-dir=a/b", "-5", "200", "c=/d"]
    expected = ["song.wav", "--score=song.csv", "--out-dir=a/b", "-5", "200", "c=/d"]
    assert results.without_folders(words) == expected


def test_outputs_appear_together_and_replace_what_was_there(tmp_path):
    (tmp_path / "a").write_text("old")
    (tmp_path / "other").write_text("kept")
    with results.reserved_folder(tmp_path, overwrite=True) as (_, folder):
        (folder / "a").write_text("new")
        (folder / "b").write_text("new")
        assert (tmp_path / "a").read_text() == "old"
        assert not (tmp_path / "b").exists()
        assert folder.parents[1] == tmp_path  # a rename within one file system is all or nothing
    assert files(tmp_path) == {"a": "new", "b": "new", "other": "kept"}
    mode = stat.S_IMODE((tmp_path / "other").stat().st_mode)
    assert stat.S_IMODE((tmp_path / "b").stat().st_mode) == mode  # as the umask has it


def test_results_that_the_disk_has_no_room_for_are_refused(tmp_path, monkeypatch):
    for free, message in (
        (5e9, r"5\.0 GB of free space, expected 7\.5 GB, of which 7\.0 GB are for a"),
        (2e6, r"2\.0 MB of free space, expected 3\.0 MB, of which 2\.8 MB are for a"),
    ):
        monkeypatch.setattr(results.shutil, "disk_usage", lambda path, free=free: SimpleNamespace(free=int(free)))
        results.check_space(tmp_path / "new" / "folder", {"a": free})
        with pytest.raises(utils.InputError, match=message):
            results.check_space(tmp_path / "new" / "folder", {"a": 1.4 * free, "b": 0.1 * free})


def test_a_folder_that_a_run_is_writing_to_is_refused_and_left_alone(tmp_path):
    with results.reserved_folder(tmp_path) as (_, folder):
        (folder / "a").write_text("first")
        with pytest.raises(utils.InputError, match="another run is writing to"):
            write(tmp_path, {"a": "second"})
    assert files(tmp_path) == {"a": "first"}
    write(tmp_path, {"a": "second"}, overwrite=True)


OLD = {"a": "old", "b": "old", "phase_calc.npy": "old", "stems/x": "old", "stems/y": "old"}
NEW = {"a": "new", "c": "new", "stems/x": "new"}
KILLED_AT_STEP = """
import functools, importlib.metadata, itertools, os, signal, sys
import test_results
importlib.metadata.version = functools.cache(importlib.metadata.version)
for step in itertools.count():
    folder = test_results.Path(sys.argv[1], str(step))
    test_results.write(folder, test_results.OLD)
    steps = step
    def count(event, arguments):
        global steps
        if event in ("os.rename", "os.remove", "os.rmdir", "os.mkdir"):
            steps -= 1
            if steps < 0:
                os.kill(os.getpid(), signal.SIGKILL)
    child = os.fork()
    if not child:
        sys.addaudithook(count)
        test_results.write(folder, test_results.NEW)
        os._exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    print(status)
    if status != -signal.SIGKILL:
        break
"""


def test_a_kill_at_any_step_leaves_one_runs_results_or_says_so(tmp_path):
    whole = {}
    for name, content in (("old", OLD), ("new", NEW)):
        write(tmp_path / "whole", content)
        whole[name] = texts(tmp_path / "whole")
    assert set(whole["new"]) == {*NEW, "run.json"}
    *killed, last = map(int, python("-c", KILLED_AT_STEP, tmp_path, cwd=Path(__file__).parent).stdout.split())
    assert (set(killed), last) == ({-signal.SIGKILL}, 0)
    seen = []
    for step in range(len(killed) + 1):
        folder = tmp_path / str(step)
        left = texts(folder)
        state = next((name for name in whole if left == whole[name]), "between")
        if state == "between":  # no mix: what is there is of one run
            assert "run.json" not in left
            assert len(set(left.values())) <= 1
        (folder / ".part-of my own").mkdir()
        with results.reserved_folder(folder):  # what the next run does first
            assert texts(folder) == left
        assert hidden(folder) == [".part-of my own"]
        seen.append(state)
    assert sorted(seen, key=["old", "between", "new"].index) == seen
    assert seen.count("between") > 3


def test_a_signal_does_not_stop_the_handing_over_half_way(tmp_path, monkeypatch):
    write(tmp_path, OLD)
    replace, calls = Path.replace, []

    def interrupted(source, target):
        calls.append(source)
        if len(calls) == 2:
            raise KeyboardInterrupt
        replace(source, target)

    monkeypatch.setattr(Path, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path, NEW)
    assert set(texts(tmp_path)) == {"a", "c", "stems/x", "run.json"}
    assert {text for name, text in texts(tmp_path).items() if name != "run.json"} == {"new"}
    assert hidden(tmp_path) == []


TOPS = {"a", "c", "stems", "run.json"}  # of NEW
REFUSED = "no earlier run left here like this"


def replaced_by_mine(name):
    return lambda folder: (folder / name).write_text("mine")


def linked(name, target):
    """A preparation that leaves a link in the place of ``name``, which is moved where it is there."""

    def link(folder):
        if (folder / name).exists():
            (folder / name).rename(folder / target)
        (folder / name).symlink_to(target)

    return link


MINES = {
    "a file that a run would replace": replaced_by_mine("c"),
    "a file in a folder that a run would replace": replaced_by_mine("stems/vocals.wav"),
    "a result that was changed": replaced_by_mine("a"),
    "a result in a folder that was changed": replaced_by_mine("stems/x"),
    "a record of something else": replaced_by_mine("run.json"),
    "a link": linked("c", "other"),
    "a dangling link": linked("c", "nowhere"),
    "a result that is kept elsewhere": linked("a", "elsewhere"),
    "a folder that is kept elsewhere": linked("stems", "elsewhere"),
    "no record": lambda folder: (folder / "run.json").unlink(),
}


@pytest.mark.parametrize("prepare", MINES.values(), ids=MINES)
def test_what_no_run_left_is_refused_before_the_work(tmp_path, prepare):
    write(tmp_path, OLD)
    (tmp_path / "other").write_text("mine")
    prepare(tmp_path)
    before = files(tmp_path)
    with pytest.raises(utils.InputError, match=REFUSED), results.reserved_folder(tmp_path, TOPS, script="A.py"):
        raise AssertionError("work began")
    assert files(tmp_path) == before
    with pytest.raises(utils.InputError, match=REFUSED):  # where the names were not told before
        write(tmp_path, NEW)
    assert files(tmp_path) == before
    write(tmp_path, NEW, names=TOPS, overwrite=True)
    assert {name: text for name, text in texts(tmp_path).items() if name in NEW} == NEW
    assert (tmp_path / "other").read_text() == "mine"  # what a link points to stays
    if (tmp_path / "elsewhere").is_dir():
        assert files(tmp_path / "elsewhere") == {"x": "old", "y": "old"}
    write(tmp_path, NEW, names=TOPS)  # from now on they are results


def test_a_file_that_appears_meanwhile_is_not_lost(tmp_path):
    def attempt(overwrite):
        with results.reserved_folder(tmp_path, TOPS, script="A.py", overwrite=overwrite) as (_, folder):
            (folder / "c").write_text("new")
            (tmp_path / "c").write_text("mine")

    write(tmp_path, OLD)
    with pytest.raises(utils.InputError, match=REFUSED):
        attempt(False)
    assert texts(tmp_path)["c"] == "mine"
    attempt(True)
    assert texts(tmp_path)["c"] == "new"
    assert hidden(tmp_path) == []


INPUTS = {
    "a result": ("a", "a"),
    "in a folder": ("stems/x", "stems/x"),
    "by another way": ("stems/../stems/x", "stems/x"),
    "through a link": ("link", "stems/x"),
    "in a folder through a link": ("folder/x", "stems/x"),
    "that an option takes along": ("phase_calc.npy", "phase_calc.npy"),
}


@pytest.mark.parametrize(("name", "lies"), INPUTS.values(), ids=INPUTS)
def test_an_input_never_goes(tmp_path, name, lies):
    write(tmp_path, OLD)
    (tmp_path / "link").symlink_to("stems/x")
    (tmp_path / "folder").symlink_to("stems")
    os.link(tmp_path / "a", tmp_path / "other name")  # another hard link of a result is no input among them
    before = files(tmp_path)
    inputs = [tmp_path / "none", tmp_path / "other name", tmp_path / name]
    for overwrite, told in ((False, TOPS), (False, ()), (True, TOPS), (True, ())):
        with pytest.raises(utils.InputError, match=f"{lies}: got an input where results go"):
            write(tmp_path, NEW, names=told, script="A.py", inputs=inputs, overwrite=overwrite)
        assert files(tmp_path) == before
    write(tmp_path, NEW, inputs=inputs[:2])
    assert (texts(tmp_path)["a"], texts(tmp_path)["other name"]) == ("new", "old")


def test_an_empty_folder_and_what_file_managers_leave_are_nothing(tmp_path):
    (tmp_path / "stems").mkdir()
    write(tmp_path, OLD)
    (tmp_path / "stems" / ".DS_Store").write_text("")
    write(tmp_path, NEW)
    assert names(tmp_path / "stems") == ["x"]


def test_a_file_never_takes_the_place_of_a_folder_nor_a_folder_that_of_a_file(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "stems").write_text("mine")
    before = files(tmp_path)
    for content, got in (({"a": "new"}, "a: got a folder"), ({"c": "new", "stems/x": "new"}, "stems: got a file")):
        top = next(reversed(content)).partition("/")[0]
        for told in ([top], ()):  # before the work, and where the names were not told before
            with pytest.raises(utils.InputError, match=got):
                write(tmp_path, content, names=told, overwrite=True)
            assert files(tmp_path) == before


def test_an_option_that_is_not_asked_for_again_takes_its_result_with_it(tmp_path):
    (tmp_path / "notes.csv").write_text("mine")  # nobody's run.json tells of it
    write(tmp_path, OLD)
    assert set(record(tmp_path)["outputs"]) == set(OLD)
    write(tmp_path, NEW, script="B.py")
    assert set(texts(tmp_path)) == {"a", "b", "c", "phase_calc.npy", "stems/x", "notes.csv", "run.json"}
    (earlier,) = record(tmp_path)["earlier"]
    assert (earlier["script"], list(earlier["outputs"])) == ("A.py", ["b", "phase_calc.npy"])
    write(tmp_path, {"a": "third"})
    assert set(texts(tmp_path)) == {"a", "c", "stems/x", "notes.csv", "run.json"}
    (earlier,) = record(tmp_path)["earlier"]
    assert (earlier["script"], list(earlier["outputs"])) == ("B.py", ["c", "stems/x"])
    write(tmp_path, {"a": "fourth"}, script="B.py")
    assert set(texts(tmp_path)) == {"a", "notes.csv", "run.json"}
    assert not (tmp_path / "stems").exists()


def test_what_the_user_changed_or_added_stays_where_an_option_is_not_asked_for_again(tmp_path):
    write(tmp_path, OLD | {"notes.csv": "old", "notes.mid": "old"})
    for name in ("notes.csv", "stems/x", "stems/vocals.wav"):
        (tmp_path / name).write_text("mine")
    write(tmp_path, {"a": "new"}, inputs=[tmp_path / "stems" / "vocals.wav"])
    left = texts(tmp_path)
    assert set(left) == {"a", "notes.csv", "stems/vocals.wav", "stems/x", "run.json"}
    assert {left[name] for name in ("notes.csv", "stems/vocals.wav", "stems/x")} == {"mine"}
    assert set(record(tmp_path)["outputs"]) == {"a"}


MINE = hashlib.sha256(b"mine").hexdigest()
ELSEWHERE = f'{{"stems/../../mine": "{MINE}", "../mine": "{MINE}", "/etc/passwd": "", ".": "", "": ""}}'
STRANGE = [
    *("", "[]", "{}", "[" * 10**5, b"\xff\xfe", '{"script": {}, "outputs": {"mine": ""}, "earlier": []}'),
    '{"script": "A.py", "outputs": ["notes.csv", "stems"], "earlier": []}',  # as runs once wrote it
    '{"script": "A.py", "outputs": {"notes.csv": null, "stems": 3}, "earlier": []}',
    f'{{"script": "A.py", "outputs": {ELSEWHERE}, "earlier": []}}',
    '{"script": "A.py", "outputs": {"mine": ""}, "earlier": [1]}',
]


@pytest.mark.parametrize("text", STRANGE)
def test_a_strangers_record_removes_nothing(tmp_path, text):
    folder = tmp_path / "results"
    (folder / "stems").mkdir(parents=True)
    names = ("results/mine", "mine", "results/notes.csv", "results/stems/x")
    for name in names:
        (tmp_path / name).write_text("mine")
    (folder / "run.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    write(folder, {"a": "new"}, overwrite=True)
    assert {(tmp_path / name).read_text() for name in names} == {"mine"}
    assert not [name for run in record(folder)["earlier"] for name in run["outputs"] if name.startswith("stems/x")]
