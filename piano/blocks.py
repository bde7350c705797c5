"""How work is cut and shared: slices of frames, threads, compiled kernels, one thread of BLAS."""

import atexit
import functools
import itertools
import logging
import mmap
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path

import numpy as np

log = logging.getLogger(__name__)
core_limit = ContextVar("core_limit", default=None)  # of whoever works on other blocks at the same time


# --- Slices of frames -----------------------------------------------------------------------------


def read_frames(Y, frames):
    """A slice of frames of a spectrogram, in the machine's byte order; not to be changed.

    A memory map is opened anew and copied from: pages that were read once would count as resident memory for as
    long as their map lives. Y may be a sound as well, [shape=(n,)].
    """
    dtype = Y.dtype.newbyteorder("=")
    if not (isinstance(Y, np.memmap) and isinstance(Y.base, mmap.mmap)):  # a view of a map does not know where it is
        return np.asarray(Y[..., frames], dtype)
    return np.array(np.memmap(*mapped_again(Y))[..., frames], dtype)


def mapped_again(Y):
    """Arguments of :class:`np.memmap` that map what the memory map Y maps."""
    return str(Y.filename), Y.dtype, "r", Y.offset, Y.shape, "F" if Y.flags.f_contiguous else "C"


@dataclass(frozen=True)
class Frames:
    """Frames of a spectrogram that are read where they are worked on, in a unit; can be sent there."""

    Y: np.ndarray  # (K, M), may be a memory map
    frames: slice | np.ndarray
    unit: float = 1.0

    def read(self):
        """Y[:, frames] / unit."""
        block = read_frames(self.Y, self.frames)
        return block if self.unit == 1 else block / block.real.dtype.type(self.unit)


def frame_blocks(Y, size):
    """Yield ``(frames, Y[:, frames])`` for consecutive slices of ``size`` frames."""
    for frames in frame_slices(Y.shape[1], size):
        yield frames, read_frames(Y, frames)


def frame_slices(n_frames, size):
    """Yield consecutive slices of ``size`` frames, the last one shorter."""
    for start in range(0, n_frames, size):
        yield slice(start, min(start + size, n_frames))


def spread(n, most):
    """Which of n frames or blocks are looked at where ``most`` are enough: evenly spread from the first to the last."""
    return np.unique(np.linspace(0, n - 1, most).round().astype(int))


def add_frames(total, values):
    """Add ``values`` [shape=(n, M)] to ``total`` [shape=(n,)] frame by frame: the same sum for any block size."""
    return np.add.accumulate(np.column_stack([total, values]), axis=1)[:, -1]


# --- Threads --------------------------------------------------------------------------------------


def until(stop, n):
    """``range(n)``, which ends early once ``stop[0]`` is set."""
    return itertools.takewhile(lambda _: not stop[0], range(n))


def in_threads(function, parts, stop=None):
    """``[function(part) for part in parts]`` on all cores; an interrupt ends it after the parts that are under way.

    ``stop`` [shape=(1,), bool] is set at the end, and tells parts that take long that nobody waits for them any more.
    """
    with one_blas_thread(), ThreadPoolExecutor(available_cores()) as pool:
        try:
            return list(pool.map(functools.partial(_held_to_one_thread, function), parts))
        finally:
            if stop is not None:
                stop[:] = True


def available_cores():
    """Number of processor cores that the work on a block may use: ``core_limit``, or all that this process may."""
    if core_limit.get():
        return core_limit.get()
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def each(function, jobs, map=None, at_once=1, *, n_jobs=None, progress=None):
    """Call a function on each job: every piece of work goes this way, and has one thread of BLAS wherever it is done.

    ``map`` does the work elsewhere, like the builtin one, in order; it gets no more than it can pickle. Without it,
    ``at_once`` threads of this process at most share the cores, and each job finds its share in
    :func:`available_cores`. ``progress`` is called with 1 and ``n_jobs``, how many there are, whenever one is done.
    Returns an iterable of the results, in the order of the jobs.
    """
    work = functools.partial(_held_to_one_thread, function)
    results = _here(work, jobs, at_once) if map is None else map(work, jobs)
    return results if progress is None else _told(results, n_jobs, progress)


def _told(results, n_jobs, progress):
    for result in results:
        progress(1, n_jobs)
        yield result
        del result  # it may be large, and nobody needs it while the next one is worked out


def _held_to_one_thread(function, job):
    with one_blas_thread():
        return function(job)


def _here(work, jobs, at_once):
    n_cores, jobs = available_cores(), iter(jobs)
    while batch := list(itertools.islice(jobs, min(n_cores, at_once))):
        if len(batch) == 1:
            yield work(*batch)
            continue
        share = -(-n_cores // len(batch))
        with ThreadPoolExecutor(len(batch), initializer=core_limit.set, initargs=(share,)) as pool:
            yield from pool.map(work, batch)


@contextmanager
def one_blas_thread():
    """Context in which BLAS uses one thread: sums come out the same everywhere, and small products soonest.

    The number is the whole process', so the last to leave puts it back, whoever came first.
    """
    libraries = _libraries("scipy.linalg" in sys.modules)  # which brings a BLAS of its own
    with _turn:
        _before.append(_before[0] if _before else [library.num_threads for library in libraries])
        _set_threads(libraries, [1] * len(libraries))
    try:
        yield
    finally:
        with _turn:
            before = _before.pop()
            if not _before:
                _set_threads(libraries, before)


_before, _turn = [], threading.Lock()  # the numbers of threads before, as often as one thread is held to


def _set_threads(libraries, numbers):
    for library, n in zip(libraries, numbers, strict=True):  # threadpoolctl 3.7 lets only the first thread do that
        getattr(library, "_real_set_num_threads", library.set_num_threads)(n)


@functools.cache
def _libraries(_):
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController().select(user_api="blas").lib_controllers


# --- Compiled kernels -----------------------------------------------------------------------------


def compile_elsewhere(module):
    """Compile a module's kernels, each with its types, in a process beside this one that does not outlive it."""
    if available_cores() == 1:
        return
    code = f"import {module} as m; from piano import blocks; [blocks.compiled(*item) for item in m.KERNELS.items()]"
    nowhere = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL)
    paths = os.pathsep.join(path or os.curdir for path in sys.path)
    with suppress(OSError):
        process = subprocess.Popen(
            [sys.executable, "-c", code],
            env=os.environ | {"PYTHONPATH": paths},
            process_group=0,  # Ctrl-C is for the run to tell of
            **nowhere,
        )
        atexit.register(process.wait)
        atexit.register(process.kill)


@functools.cache
def compiled(kernel, types):
    """``kernel`` as machine code for arguments of ``types``, kept on disk where there is a directory to keep it in.

    It is compiled here, for Ctrl-C would have to wait for a thread that does so. No-NaN and no-infinity assumptions
    stay off; sums may be reordered, the same way on every run.
    """
    import numba  # not every run needs it, and it takes longer to import than NMF.py to run

    _announce_compilation()

    options = {"nogil": True, "error_model": "numpy", "fastmath": {"reassoc", "contract", "arcp", "afn", "nsz"}}
    with suppress(RuntimeError):  # no writable cache directory
        function = numba.njit(cache=True, **options)(kernel)  # reads nothing before it is compiled
        if is_private(function.stats.cache_path):
            with _alone_with(Path(function.stats.cache_path) / f"{kernel.__name__}.lock"):
                try:
                    function.compile(types)
                except Exception:  # what is kept is damaged: a disk was full, say
                    function._cache.flush()
                    function.compile(types)
            function.disable_compile()
            return function
    return numba.njit(types, **options)(kernel)


@functools.cache
def _announce_compilation():
    """Say when code is being compiled: that takes some seconds, once on each machine."""
    from numba.core import event

    class Announcer(event.Listener):
        def on_start(self, _):
            log.info("compiling for this machine; only the first run does that ...")
            event.unregister("numba:compile", self)

        def on_end(self, _):
            pass

    event.register("numba:compile", Announcer())


@contextmanager
def _alone_with(path):
    """Context that one process is in at a time: numba's files get mixed up where two keep one kernel at once."""
    with open(path, "w") as file:
        with suppress(ImportError, OSError):  # Windows, or a file system without locks
            from fcntl import LOCK_EX, flock

            flock(file, LOCK_EX)
        yield


def is_private(folder):
    """Whether ``folder`` is this user's, and not for all to write to: they might leave code there to be run."""
    if not hasattr(os, "getuid"):  # Windows
        return True
    status = os.stat(folder)
    return status.st_uid == os.getuid() and not status.st_mode & 0o002
