"""A Dask cluster of real processes: the same bytes as without one, and clean ends when parts of it fall away."""

import functools
import json
import math
import os
import pickle
import re
import shutil
import signal
import socket
import subprocess
import threading
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest
import soundfile

import CNMF
import NMF
import utils
from helpers import contents, copy_basis, names, python, started, struck, wait_for
from piano import cluster

distributed = pytest.importorskip("distributed")
pytestmark = pytest.mark.same_everywhere("starts schedulers and workers, for work that other files test")

K, L, M = 513, 60, 1200  # three blocks where phases stay, three in short.npy where they move
N_ITER = "200"  # of a run that something happens to
DASK = "-P", "-m", "dask"


@contextmanager
def scheduler(folder):
    """A Dask scheduler on a free port of this machine, without the suite; yields its process and its address."""
    file = folder / "scheduler.json"
    arguments = "--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--scheduler-file", file
    with started(*DASK, "scheduler", *arguments, cwd=folder, stderr=subprocess.DEVNULL, PYTHONPATH="") as process:
        yield process, json.loads(wait_for(lambda: file.exists() and file.read_text()))["address"]


@contextmanager
def worker(address, folder, *options, **changes):
    """A Dask worker with one thread in a folder of its own, which is not that of the suite; yields its process."""
    folder.mkdir()
    options = "--nthreads", "1", "--no-dashboard", "--local-directory", folder, *options
    with started(*DASK, "worker", address, *options, cwd=folder, stderr=subprocess.DEVNULL, **changes) as process:
        yield process


def wait_for_workers(address, n):
    with distributed.Client(address, set_as_default=False) as client:
        client.wait_for_workers(n, timeout=300)


@pytest.fixture(scope="module")
def files(tmp_path_factory, few):
    """Folder with three bases, with a sound, and with spectrograms, one of them spoilt."""
    folder = tmp_path_factory.mktemp("files")
    copy_basis(few, folder)
    soundfile.write(folder / "sound.flac", struck(72, 76), 22050)
    rng = np.random.default_rng(7)
    H = rng.random((K, L), dtype=np.float32)
    Y = (H @ rng.random((L, M), dtype=np.float32)) * np.exp(2j * np.pi * rng.random((K, M)))
    np.save(folder / "basis.npy", H / H.sum(axis=0))
    np.save(folder / "few.npy", H[:, :3] / H[:, :3].sum(axis=0))
    np.save(folder / "few_rotation.npy", (0.9 * np.exp(1j * rng.random((K, 3)))).astype(np.complex64))
    np.save(folder / "spec.npy", Y.astype(np.complex64))
    np.save(folder / "long.npy", np.tile(Y, 4).astype(np.complex64))
    np.save(folder / "short.npy", np.asfortranarray(Y[:, :300].astype(np.complex64)))
    np.save(folder / "spoilt.npy", np.where(np.arange(M) == 1000, np.nan, Y).astype(np.complex64))
    return folder


@pytest.fixture(scope="module")
def dask(tmp_path_factory):
    """Address of a scheduler with two workers that have the suite."""
    folder = tmp_path_factory.mktemp("cluster")
    with (
        scheduler(folder) as (_, address),
        worker(address, folder / "one", "--no-nanny"),
        worker(address, folder / "two", "--no-nanny"),
    ):
        wait_for_workers(address, 2)
        yield address


def assert_same(*folders):
    """Two runs wrote the same bytes, but for the command in run.json, which names the cluster."""
    command = rb'"command": \[[^]]*\]'
    one, other = ({name: re.sub(command, b"", data) for name, data in contents(run).items()} for run in folders)
    assert len(one) >= 5
    assert [name for name in one.keys() | other.keys() if one.get(name) != other.get(name)] == []


FEW = "CNMF.py short.npy 3 few.npy --stems --sr 22050"
RUNS = {
    "random phases, stems": f"{FEW} --phase-init random --adapt none --phase",
    "sinusoidal phases of an adapted basis": FEW,
    "a sound and its notes, on this machine": "NMF.py sound.flac 3 fixed_basis.npy --stems --quiet --dask local",
    "one of three spoilt": "CNMF.py spec.npy spoilt.npy short.npy 9 basis.npy -thr 0.01 --no-phase --quiet",
}


@pytest.mark.parametrize("words", RUNS.values(), ids=RUNS)
def test_the_same_bytes_as_without(root, files, dask, tmp_path, words):
    (script, *plain), local = (part.split() for part in words.partition(" --dask ")[::2])
    ended = {}
    for where, options in (("alone", []), ("spread", ["--dask", *(local or [dask])])):
        done = python(root / script, *plain, *options, "-o", tmp_path / where, cwd=files)
        said = [line for line in done.stderr.splitlines() if not line.startswith(("compiling", "results are in"))]
        ended[where] = done.returncode, said
    assert ended["spread"] == ended["alone"]
    assert_same(tmp_path / "alone", tmp_path / "spread")
    status, said = ended["spread"]
    assert status == (2 if "spoilt" in words else 0)
    if status:
        (line,) = said
        assert line.startswith("CNMF.py: error: spoilt.npy: got (nan")
        assert names(tmp_path / "spread") == ["short", "spec"]


@contextmanager
def under_way(root, files, tmp_path, address):
    """A run that has written its first block of ten; yields its process and its folder."""
    out = tmp_path / "spread"
    command = root / "CNMF.py", "long.npy", N_ITER, "basis.npy", "--no-phase", "--dask", address, "-o", out
    with started(*command, cwd=files) as process:
        models = functools.partial(out.glob, ".part-*/results/reconst.npy")
        wait_for(lambda: process.poll() is not None or any(path.stat().st_size > 1e6 for path in models()))
        assert process.poll() is None
        yield process, out


def test_a_killed_worker_costs_only_time(root, files, dask, tmp_path, monkeypatch):
    monkeypatch.chdir(files)
    with (
        distributed.Client(dask, set_as_default=False) as client,
        worker(dask, tmp_path / "third", "--no-nanny", "--name", "third") as third,
    ):
        client.wait_for_workers(3, timeout=300)
        addresses = {told["name"]: address for address, told in client.scheduler_info()["workers"].items()}
        with under_way(root, files, tmp_path, dask) as (process, out):
            assert wait_for(lambda: process.poll() is not None or client.processing()[addresses["third"]]) is not True
            third.kill()
            _, said = process.communicate(timeout=120)
            assert (process.returncode, len(said.splitlines())) == (0, 2), said
    CNMF.main(["long.npy", N_ITER, "basis.npy", "--no-phase", "-o", str(tmp_path / "alone")])
    assert_same(out, tmp_path / "alone")


def test_a_worker_needs_no_copy_and_a_lost_scheduler_ends_the_run(root, files, tmp_path, monkeypatch):
    """The worker has its own idea of the suite and of spec.npy, and does not see where that lies here."""
    monkeypatch.chdir(files)
    (tmp_path / "old" / "piano").mkdir(parents=True)
    for name in ("piano/__init__.py", "piano/cluster.py", "utils.py"):
        (tmp_path / "old" / name).write_text("EUCLIDEAN_BLOCK = 100\n")
    command = ["/proc/self/cwd/spec.npy", "5", "basis.npy", "--loss", "itakura-saito", "--seed", "5", "--quiet", "-o"]
    NMF.main([*command, str(tmp_path / "alone")])
    with scheduler(tmp_path) as (lost, address), worker(address, tmp_path / "it", PYTHONPATH=tmp_path / "old"):
        wait_for_workers(address, 1)
        np.save(tmp_path / "it" / "spec.npy", np.ones((K, M), np.complex64))
        NMF.main([*command, str(tmp_path / "given"), "--dask", address])
        assert_same(tmp_path / "alone", tmp_path / "given")
        with under_way(root, files, tmp_path, address) as (process, out):
            os.killpg(lost.pid, signal.SIGKILL)
            _, said = process.communicate(timeout=60)
    assert (process.returncode, said) == (1, f"CNMF.py: error: --dask: lost the scheduler at {address}\n")
    assert not out.exists()


def test_other_packages_than_the_workers_are_named_before_the_work(root, files, dask, tmp_path):
    (tmp_path / "numba-0.0.1.dist-info").mkdir()
    (tmp_path / "numba-0.0.1.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: numba\nVersion: 0.0.1\n")
    command = root / "NMF.py", "none.npy", "5", "basis.npy", "-o", tmp_path / "out", "--dask", dask
    done = python(*command, cwd=files, PYTHONPATH=tmp_path)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    got = f"NMF.py: error: --dask: got numba {cluster.environment()['numba']} on worker tcp://127.0.0.1:"
    assert line.startswith(got)
    assert line.endswith(", expected 0.0.1, as on this machine")
    assert not (tmp_path / "out").exists()


def test_without_dask_it_is_said_what_to_install(files, tmp_path):
    code = """if True:
        import sys
        sys.modules["dask"] = sys.modules["distributed"] = None
        import CNMF
        CNMF.main([*sys.argv[1:], "--quiet"])
        CNMF.main([*sys.argv[1:], "--dask", "local"])
    """
    done = python("-c", code, "spec.npy", "5", "basis.npy", "--no-phase", "-o", tmp_path / "out", cwd=files)
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert "pip install -r requirements/dask.txt" in done.stderr
    assert (tmp_path / "out" / "run.json").exists()  # of the first


def test_few_blocks_are_under_way_at_once(dask):
    asked = []

    def jobs():
        for i in range(40):
            asked.append(i)
            yield i, i

    with cluster.connected(dask) as (map_blocks, _):
        found = map_blocks(math.prod, jobs())
        assert asked == []
        for i, product in enumerate(found):
            assert product == i**2
            assert len(asked) <= i + 1 + 2 + 2 * 2  # two workers of one thread each
        assert len(asked) == 40


def test_a_worker_that_joined_late_is_held_to_the_same_versions(dask):
    def work(*args):
        from piano import cluster

        return cluster._work(*args)

    expected = cluster.environment()
    payload, job = pickle.dumps(math.prod), pickle.dumps((6, 7))
    with cluster.connected(dask), distributed.Client(dask, set_as_default=False) as client:
        assert client.submit(work, payload, job, expected).result() == (True, 42)
        future = client.submit(work, payload, job, expected | {"numba": "0.0.1"})
        with pytest.raises(utils.InputError, match=r"got numba .* on worker tcp://.*, expected 0\.0\.1"):
            future.result()


def test_frames_are_sent_by_name_where_they_lie_in_a_file(files, tmp_path):
    shutil.copy(files / "spec.npy", tmp_path)
    Y = utils.load_spectrogram(tmp_path / "spec.npy")
    job = Y.at(slice(100, 600)), (Y.at(np.arange(7)), 0.5)
    by_name, by_value = (pickle.dumps(cluster._portable(job, shared)) for shared in (True, False))
    assert len(by_name) < 2000
    assert 8 * K * 507 < len(by_value) < 8 * K * 507 + 2000
    for sent in (by_name, by_value):
        frames, (first, number) = pickle.loads(sent)
        np.testing.assert_array_equal(frames.read(), Y.Y[:, 100:600] / np.float32(Y.unit))
        np.testing.assert_array_equal(first.read(), Y.Y[:, :7] / np.float32(Y.unit))
        assert number == 0.5
    for see_otherwise in (lambda path: np.save(path, np.ones((K, M), np.complex64)), Path.unlink):
        see_otherwise(tmp_path / "spec.npy")  # another file of that name, and none
        with pytest.raises(cluster._UnseenError):
            pickle.loads(by_name)[0].read()


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (None, "Connection refused|no answer|Timed out"),  # nobody listens
        (b"", "no answer in 1 s"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "what answers there is no Dask scheduler"),
    ],
)
def test_what_is_no_scheduler_is_named(files, tmp_path, monkeypatch, refused, said, reason):
    def answer():
        connection, _ = server.accept()
        with connection, suppress(OSError):
            connection.sendall(said)
            while connection.recv(4096):  # until the other side ends
                pass

    monkeypatch.chdir(files)
    if not said:  # nothing ever will be
        monkeypatch.setattr(cluster, "SECONDS", 1)
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"tcp://127.0.0.1:{server.getsockname()[1]}"
        if said is None:
            server.close()
        else:
            threading.Thread(target=answer, daemon=True).start()
        line = refused(NMF, "spec.npy", "5", "basis.npy", "-o", str(tmp_path / "out"), "--dask", address)
    assert re.search(rf"got no scheduler at {address} \(.*({reason})", line)
    assert not (tmp_path / "out").exists()


def test_an_interrupt_of_a_terminal_ends_local_workers_in_one_line(root, files, tmp_path):
    """A terminal sends it to the command and its workers alike."""
    with under_way(root, files, tmp_path, "local") as (process, out):
        os.killpg(process.pid, signal.SIGINT)
        _, said = process.communicate(timeout=60)
    assert (process.returncode, said) == (130, "interrupted; nothing incomplete is left\n")
    assert not out.exists()
