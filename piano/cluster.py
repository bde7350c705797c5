"""Run the work on a Dask cluster.

``connected`` gives two stand-ins for the builtin ``map``. One sends blocks of frames to the workers. The other
keeps several recordings in hand in this process, so that no worker waits. Both yield results in the order of the
jobs, so results do not depend on which worker computed what.

Only this module uses Dask, and imports it only with ``--dask``.
"""

import asyncio
import functools
import hashlib
import importlib.metadata
import logging
import pickle
import platform
import signal
import threading
import warnings
from collections import deque
from concurrent.futures import CancelledError, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import NamedTuple

import numpy as np

from piano import blocks, results
from utils import InputError

PACKAGES = "numpy", "scipy", "numba", "llvmlite", "threadpoolctl", "distributed"  # the same versions everywhere
SECONDS = 10  # to wait for a scheduler, and for its first worker


class _UnseenError(Exception):
    """The worker does not see the file of the frames, or sees another one."""


@contextmanager
def connected(address):
    """Connect to a Dask scheduler, ``tcp://host:8786``; ``local`` starts one worker for each core of this machine.

    Yields two callables like the builtin ``map``. ``map_blocks(function, jobs)`` calls a picklable function on workers.
    Each job is a tuple; the worker reads :class:`blocks.Frames` in it itself, if it sees their file.
    ``map_inputs(function, jobs)`` calls the function in threads of this process. Both raise ConnectionError if the
    scheduler is lost. Raises :class:`InputError` if Dask is not installed, no scheduler or worker answers, or a worker
    has other versions than this process.
    """
    try:
        import dask
        import distributed
    except ImportError as error:
        raise InputError(
            f"--dask: got no Dask ({error}), expected it to be installed: pip install -r requirements/dask.txt"
        ) from None
    for name in logging.root.manager.loggerDict:
        if name.startswith("distributed"):
            logging.getLogger(name).setLevel(logging.CRITICAL)  # errors are reported in one line below
    dask.config.set({"distributed.admin.large-graph-warning-threshold": "1GB"})  # blocks are meant to be sent
    dask.config.set({"distributed.worker.profile.enabled": False, "distributed.admin.tick.interval": "1s"})  # for local
    turn = threading.Lock()  # this process works on one recording at a time; others wait for their blocks
    with ExitStack() as stack, warnings.catch_warnings():
        warnings.simplefilter("ignore", distributed.versions.VersionMismatchWarning)  # _check_workers reports it
        pool = ThreadPoolExecutor(8)  # recordings in hand; each has a working copy on this machine's disk
        stack.callback(pool.shutdown, cancel_futures=True)
        client = stack.enter_context(_client(address, distributed))
        _check_workers(client)

        def map_inputs(function, jobs):
            def in_turn(job):
                with turn:
                    return function(job)

            return pool.map(in_turn, jobs)

        yield functools.partial(_map_blocks, client, address, turn), map_inputs


@contextmanager
def _client(address, distributed):
    """A client of the scheduler at ``address``, which has at least one worker."""
    try:
        with ExitStack() as stack:
            if address == "local":
                with _interrupts_ignored():
                    cluster = distributed.LocalCluster(
                        n_workers=blocks.available_cores(),
                        threads_per_worker=1,
                        dashboard_address="127.0.0.1:0",
                        silence_logs=logging.CRITICAL,
                    )
                address = stack.enter_context(cluster)
            else:
                asyncio.run(_knock(address, distributed))
            client = distributed.Client(address, timeout=SECONDS, set_as_default=False)
            stack.callback(client.close, timeout=SECONDS)
            client.wait_for_workers(1, timeout=SECONDS)
            opened = stack.pop_all()
    except TimeoutError:
        raise InputError(
            f"--dask: got no worker at {address} in {SECONDS} s, expected one (start it with: dask worker {address})"
        ) from None
    except (OSError, ValueError, ImportError, TypeError) as error:  # the last: no certificate
        raise InputError(
            f"--dask: got no scheduler at {address} ({error}), expected one (start it with: dask scheduler)"
        ) from None
    with opened:
        yield client


async def _knock(address, distributed):
    """Raise an error unless a scheduler answers; a client would wait for one that says nothing for ever."""
    arguments = distributed.Security().get_connection_args("client")
    try:
        async with asyncio.timeout(SECONDS):
            comm = await distributed.comm.connect(address, timeout=SECONDS, **arguments)
    except TimeoutError:
        raise OSError(f"no answer in {SECONDS} s") from None
    except MemoryError:  # bytes of another protocol, read as a length
        raise OSError("what answers there is no Dask scheduler") from None
    comm.abort()


@contextmanager
def _interrupts_ignored():
    """Context in which processes are started that ignore Ctrl-C, which a terminal sends to all: this one ends them."""
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)


# --- Versions ---------------------------------------------------------------------------------------


@functools.cache
def environment():
    """What must be the same on every machine: a dict from name to version. The suite's version is a hash."""
    packages = {name: importlib.metadata.version(name) for name in PACKAGES}
    suite = hashlib.sha256(b"".join(results.suite().values())).hexdigest()[:12]
    return {"python": ".".join(platform.python_version_tuple()[:2])} | packages | {"this suite": suite}


def _check_versions(worker, got, expected):
    """Raise :class:`InputError` if a worker has other versions, ``got``, than the process that wants the work done."""
    for name, version in got.items():
        if version != expected.get(name):
            found = f"{name} {version}" if version else f"no {name}"
            raise InputError(
                f"--dask: got {found} on worker {worker}, expected {expected.get(name)}, as on this machine"
            )


def _check_workers(client):
    """Compare the versions of all workers with this process', and send them the suite if they lack it."""
    from distributed import WorkerPlugin

    class Suite(WorkerPlugin):  # sent as code, like the next: the worker need not have this module
        def __init__(self, modules):
            self.modules = modules

        def setup(self, worker):
            import importlib
            import sys
            from pathlib import Path

            for name, content in self.modules.items():
                path = Path(worker.local_directory, name)  # which a worker imports from
                path.parent.mkdir(exist_ok=True)
                path.write_bytes(content)
                sys.modules.pop(name.removesuffix(".py").removesuffix("/__init__").replace("/", "."), None)
            importlib.invalidate_caches()

    def suite():
        try:
            from piano import cluster

            return cluster.environment()["this suite"]
        except Exception:
            return None

    expected = environment()
    for worker, versions in client.get_versions(packages=PACKAGES)["workers"].items():
        got = {name: versions["packages"][name] for name in ("python", *PACKAGES)}
        _check_versions(worker, got | {"python": ".".join(got["python"].split(".")[:2])}, expected)
    if set(client.run(suite).values()) != {expected["this suite"]}:
        client.register_plugin(Suite(results.suite()), name="piano")
    for worker, got in client.run(suite).items():
        _check_versions(worker, {"this suite": got}, expected)


# --- Blocks -----------------------------------------------------------------------------------------


def _map_blocks(client, address, turn, function, jobs):
    """Yield ``function(job)`` of each job, computed by workers, in order; few are under way at once.

    The function, with the arrays bound to it, goes to the cluster once, and workers pass it on. It is a task of its
    own, not scattered data: so Dask can make it again if the worker that holds it is lost.
    """
    from distributed import KilledWorker
    from distributed.client import ClosedClientError
    from distributed.comm import CommClosedError

    def work(*args):  # sent as code: the scheduler looks at every task, and need not have the suite
        from piano import cluster

        return cluster._work(*args)

    def submit(job, *, shared, **options):
        job = pickle.dumps(_portable(job, shared), protocol=4)
        return client.submit(work, payload, job, environment(), pure=False, **options)

    def wanted():
        """How many blocks to have under way: two for each thread. Workers come and go."""
        try:
            return 2 + 2 * sum(client.nthreads().values())
        except OSError:  # not to be taken for an error of a job that reads a file
            raise CancelledError from None

    def result(job, future):
        nonlocal shared
        with _others_turn(turn):
            seen, block = future.result()
            if not seen:
                shared = False
                seen, block = submit(job, shared=False, priority=1).result()
        return block

    try:
        # Protocol 4 keeps arrays inside the pickle, so they come out aligned and writable, as they are here.
        payload = client.submit(bytes, pickle.dumps(function, protocol=4), pure=False)
        shared, pending, in_flight = True, deque(), 1
        for i, job in enumerate(jobs):
            if i % in_flight == 0:
                in_flight = wanted()
            pending.append((job, submit(job, shared=shared)))
            while len(pending) >= in_flight:
                yield result(*pending.popleft())
        while pending:
            yield result(*pending.popleft())
    except KilledWorker as error:
        raise ConnectionError(
            f"--dask: {error.allowed_failures + 1} workers of {address} ended at one block, the last of them "
            f"{error.last_worker.address}; did they run out of memory?"
        ) from None
    except ImportError as error:  # a worker that joined late, where none of the others had to be given the suite
        raise InputError(f"--dask: {error} on a worker, expected the same packages as on this machine") from None
    except (CancelledError, ClosedClientError, CommClosedError, TimeoutError):
        raise ConnectionError(f"--dask: lost the scheduler at {address}") from None


@contextmanager
def _others_turn(turn):
    """Context in which other recordings have their turn. Does nothing where there is none, as in learning together."""
    had = turn.locked()
    if had:
        turn.release()
    try:
        yield
    finally:
        if had:
            turn.acquire()


class _SharedFrames(NamedTuple):
    """Frames of a file that the worker may see; a hash of them tells it whether it does, and it reads no others."""

    mapped: tuple  # arguments of np.memmap
    frames: slice | np.ndarray
    unit: float
    digest: bytes

    def read(self):
        """As :meth:`blocks.Frames.read`; raises :class:`_UnseenError` where the frames are not those."""
        try:
            found = blocks.Frames(np.memmap(*self.mapped), self.frames, self.unit).read()
        except (OSError, ValueError):
            raise _UnseenError from None
        if _digest(found) != self.digest:
            raise _UnseenError
        return found


def _portable(item, shared):
    """What is sent in place of ``item``, a part of a job: the place of its frames in a file, or the frames alone."""
    if type(item) is tuple:
        return tuple(_portable(part, shared) for part in item)
    if not isinstance(item, blocks.Frames):
        return item
    Y, block = item.Y, item.read()
    if not (shared and isinstance(Y, np.memmap)):
        return blocks.Frames(block, slice(None))
    return _SharedFrames(blocks.mapped_again(Y), item.frames, item.unit, _digest(block))


def _digest(block):
    return hashlib.sha256(block.ravel(order="K").view(np.uint8)).digest()


def _work(payload, job, expected):
    """On the worker: ``(True, function(job))``, or ``(False, None)`` if it does not see the frames.

    Versions are compared again, as a worker may have joined since. Each of its threads takes one core.
    """
    from distributed import get_worker

    _check_versions(get_worker().address, environment(), expected)
    blocks.core_limit.set(1)
    try:
        return True, pickle.loads(payload)(pickle.loads(job))
    except _UnseenError:
        return False, None
