"""Dask: one worker against none, two workers against one, and what would limit a thousand.

    python benchmarks/scaling.py
    python benchmarks/scaling.py --only CNMF --rounds 1

Takes 20 minutes of sound apart without Dask on one core, with one worker and with two, each of one thread, as
whole processes that take turns; ratios are medians over the rounds. What a second core is worth at all is told by two
runs without Dask at once: they would take as long as one alone, if cores shared nothing. Beside the seconds
on the clock, which whatever else the machine does makes longer, stand those of processor time. From that time and
from the bytes of a block follows what a cluster of 1 000 workers and 200 hours of sound would wait for. The table
goes to benchmarks/README.md. About three quarters of an hour on two idle cores.
"""

import argparse
import functools
import json
import math
import os
import pickle
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

import separation  # noqa: E402  after the path to it
import speed  # noqa: E402

import utils  # noqa: E402
from piano import cluster  # noqa: E402

K, L = speed.K, 60
FRAMES_AN_HOUR = 60 * speed.FRAMES_A_MINUTE
N_WARM = 2048  # frames that warm up
HOURS, N_WORKERS = 200, 1000
BEGIN, END = "<!-- scaling: begin -->", "<!-- scaling: end -->"
RUNS = {
    "NMF": ("NMF.py", "130", "--loss", "kullback-leibler"),
    "CNMF": ("CNMF.py", "15", "--phase-init", "random", "--no-phase"),
}


@contextmanager
def workers(folder, n):
    """A scheduler and ``n`` workers of one thread; yields its address and the processes."""
    folder.mkdir()
    dask, file = Path(sys.executable).with_name("dask"), folder / "scheduler.json"
    processes = []
    with open(folder / "log", "w") as log:

        def start(*command):
            arguments = [dask, *command, "--host", "127.0.0.1", "--no-dashboard"]
            processes.append(subprocess.Popen(arguments, cwd=folder, stderr=log))

        try:
            start("scheduler", "--port", "0", "--scheduler-file", file)
            while not (file.exists() and file.read_text()):
                time.sleep(0.1)
            address = json.loads(file.read_text())["address"]
            for _ in range(n):
                start("worker", address, "--nthreads", "1", "--no-nanny")
            yield address, processes
        finally:
            for process in processes:
                process.kill()
                process.wait()


def processor_seconds(process):
    """Processor time that a running process has taken so far."""
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def run(folder, arguments, spec, *options, cores=(None,), n_iter=None):
    """Run a script, once on each of ``cores`` at once; returns its seconds on the clock and of processor time."""
    script, full, *rest = arguments
    command = [sys.executable, ROOT / script, spec, n_iter or full, "basis.npy", "--quiet", *rest, *options]
    start = time.perf_counter()
    processes = [
        subprocess.Popen(
            [*command, *(["-o", f"core {core}"] if core is not None else [])],
            cwd=folder,
            preexec_fn=functools.partial(os.sched_setaffinity, 0, {core}) if core is not None else None,
        )
        for core in cores
    ]
    ends = [os.wait4(process.pid, 0) for process in processes]
    if any(status for _, status, _ in ends):
        raise SystemExit(f"{command} failed")
    usage = ends[0][2]
    return time.perf_counter() - start, usage.ru_utime + usage.ru_stime


def measure(folder, arguments, clusters, rounds):
    """Seconds of each round, and of processor time of each process.

    Returns
    -------
    elapsed : np.ndarray [shape=(rounds, 4)]
        On the clock, without Dask, with one worker, with two, and of two runs without Dask at once.
    taken : np.ndarray [shape=(rounds, 4)]
        Of processor time: without Dask; of the client, the scheduler and the one worker.
    start : np.ndarray [shape=(4,)]
        Of processor time for ``N_WARM`` frames: mostly imports and pictures, which come once.
    """

    def with_one(spec):
        address, processes = clusters[0]
        before = [processor_seconds(process) for process in processes]
        seconds, client = run(folder, arguments, spec, "--dask", address)
        scheduler, worker = (processor_seconds(process) - t for process, t in zip(processes, before, strict=True))
        return seconds, (client, scheduler, worker)

    for address, _ in clusters:  # code is compiled and files are read before anything counts
        run(folder, arguments, "warm.npy", "--dask", address, n_iter="2")
    _, alone = run(folder, arguments, "warm.npy")
    start = np.array([alone, *with_one("warm.npy")[1]])
    elapsed, taken = np.zeros((2, rounds, 4))
    cores = sorted(os.sched_getaffinity(0))[:2]
    for i in range(rounds):
        elapsed[i, 0], taken[i, 0] = run(folder, arguments, "spec.npy", cores=cores[:1])
        elapsed[i, 1], taken[i, 1:] = with_one("spec.npy")
        elapsed[i, 2], _ = run(folder, arguments, "spec.npy", "--dask", clusters[1][0])
        elapsed[i, 3], _ = run(folder, arguments, "spec.npy", cores=cores)
        print(f"{arguments[0]}: {elapsed[i].round(1)} s, processor time {taken[i].round(1)} s", file=sys.stderr)
    return elapsed, taken, start


def block_of(name, folder):
    """Frames of one block, bytes of its job where the workers see the file and where not, and of its result."""
    size = utils.NMF_BLOCK if name == "NMF" else 4 * utils.PHASE_BLOCK_BYTES // (K * L * 8)
    frames = utils.load_spectrogram(folder / "spec.npy").at(slice(0, size))
    U, F, start = (4 * L * size, 8 * K * size, 4 * L * size)
    curves = 8 * int(RUNS[name][1]) * (1 if name == "NMF" else 2 * size)
    more = start if name == "NMF" else 0
    job = [len(pickle.dumps(cluster._portable(frames, shared), protocol=4)) + more for shared in (True, False)]
    return size, *job, U + curves + (0 if name == "NMF" else F)


def limits(name, seconds, n_frames, folder):
    """What a cluster would wait for: rows of (what, hours of it, workers that it can keep busy).

    ``seconds`` of processor time the client, the scheduler and the workers take for ``n_frames``.
    """
    size, named, sent, result = block_of(name, folder)
    wanted = math.ceil(HOURS * FRAMES_AN_HOUR / size)
    per_block = dict(zip(("client", "scheduler", "worker"), seconds * size / n_frames, strict=True))
    rows = [(f"{N_WORKERS} workers, {1e3 * per_block['worker']:.0f} ms a block", per_block["worker"] / N_WORKERS)]
    rows += [(f"the {who}, {1e3 * per_block[who]:.1f} ms a block", per_block[who]) for who in ("client", "scheduler")]
    for way, n_bytes in (("files that workers see", named + result), ("frames that are sent", sent + result)):
        rows.append((f"a network of 1 Gbit/s, {way}, {n_bytes / 1e6:.2f} MB a block", n_bytes / 125e6))
    return [(what, f"{wanted * t / 3600:.2f}", f"{per_block['worker'] / t:.0f}") for what, t in rows]


def table(header, rows):
    return "\n".join(f"| {' | '.join(row)} |" for row in (header, ["---"] * len(header), *rows))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=RUNS, default=list(RUNS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--minutes", type=int, default=20, help="of sound (default: %(default)s)")
    args = parser.parse_args()
    n_frames = args.minutes * speed.FRAMES_A_MINUTE
    times, waits = [], []
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        folder = Path(folder)
        rng = np.random.default_rng(0)
        np.save(folder / "basis.npy", speed.random_problem(rng, L, 1)[1])
        for name, length in (("warm.npy", N_WARM), ("spec.npy", n_frames)):
            with utils.frame_writer(folder / name, (K, length), np.complex64) as write:
                for start in range(0, length, 512):
                    write(speed.random_problem(rng, 1, min(512, length - start))[0])
        clusters = [stack.enter_context(workers(folder / f"workers {n}", n)) for n in (1, 2)]
        for name in args.only:
            elapsed, taken, start = measure(folder, RUNS[name], clusters, args.rounds)
            ratios = (
                elapsed[:, 1] / elapsed[:, 0],
                elapsed[:, 1] / elapsed[:, 2],
                2 * elapsed[:, 0] / elapsed[:, 3],
                taken[:, 1:].sum(axis=1) / taken[:, 0],
            )
            overhead, gain, at_most, more = (np.median(ratio) for ratio in ratios)
            seconds = np.median(taken, axis=0)
            script, n_iter, *options = RUNS[name]
            times.append(
                [
                    f"`{script}`, {n_iter} iterations, `{' '.join(options)}`",
                    *(f"{t:.0f}" for t in np.median(elapsed, axis=0)[:3]),
                    f"{overhead:.2f}",
                    f"{gain:.2f}",
                    f"{at_most:.2f}",
                    f"{seconds[0]:.0f}",
                    " + ".join(f"{t:.1f}" for t in seconds[1:]),
                    f"{more:.2f}",
                ]
            )
            rest = limits(name, (seconds - start)[1:], n_frames - N_WARM, folder)
            waits += [[f"`{script}`", *row] for row in rest]
    header = ["", "no Dask, one core, s", "1 worker, s", "2 workers, s", "1 worker / no Dask", "1 worker / 2 workers"]
    header += ["two cores / one core, no Dask", "processor time, no Dask, s"]
    header += ["client + scheduler + 1 worker, s", "all three / no Dask"]
    text = (
        f"{args.minutes} minutes of sound, {n_frames} frames, K = {K}, L = {L}; rounds: {args.rounds}; "
        f"{os.cpu_count()} cores, and a load average at the end of {os.getloadavg()[1]:.1f}.\n\n"
        f"{table(header, times)}\n\n{HOURS} hours of sound on {N_WORKERS} workers:\n\n"
        f"{table(['', 'what would be waited for', 'hours', 'workers that it keeps busy'], waits)}"
    )
    separation.put_between_markers(ROOT / "benchmarks" / "README.md", text, BEGIN, END)
    print(text)


if __name__ == "__main__":
    main()
