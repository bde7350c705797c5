"""Speed and memory: the suite against straightforward implementations, in one run and in ratios.

    python benchmarks/speed.py
    python benchmarks/speed.py --only sweep nmf
    python benchmarks/speed.py --only solvers    # also draws images/solvers.png

Tables: growth with the length of the recording and with the size of the basis, as whole processes; a sweep of
complex NMF with moving phases; fixed-basis NMF of a recording; its iterations early and late, in sound, a fade and
silence; smoothed phases and adaptation; a whole short run; how soon solvers come near the least cost; and whole
commands by stage, on one core and on two. Rivals take turns, so that what else the machine is doing hits all of them,
and ratios are medians over the rounds. About half an hour on two cores, a third of it for the commands.

On n cores a stage takes T(n) = s + p / n, s being its serial part and p what all cores share. From one core and two
come s = 2 T(2) - T(1) and p = 2 (T(1) - T(2)), where s is taken for at least 0 and at most T(1). Stages add up to
what the command would take on four cores and on eight.
"""

import argparse
import functools
import inspect
import itertools
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import warnings
from collections import deque
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import stages  # noqa: E402

import make_init_H  # noqa: E402
import oracle  # noqa: E402
import utils  # noqa: E402
from piano import adapt, phase, recording  # noqa: E402

K, L, M = 1025, 61, 474  # ten seconds of sound at the default STFT
LOSSES = ("frobenius", "kullback-leibler", "itakura-saito")
SR = 22050  # Hz
FRAMES_A_MINUTE = 60 * SR // 512
COMMANDS = {  # options of make_init_H.py, script, and arguments after the sound, the iterations and the basis
    "CNMF.py, recommended": (
        ("--states", "2", "--n-fft", "8192", "--keys", "A0", "C8"),
        "CNMF.py",
        ("--stems",),
    ),
    "NMF.py --loss kullback-leibler --stems": ((), "NMF.py", ("--loss", "kullback-leibler", "--stems")),
}
BARE_IMPORTS = "import numpy, scipy.fft, soundfile; from matplotlib.figure import Figure"
LEAST_GAP = 1e-7  # that is drawn: what is below is rounding
GAPS = 1e-1, 1e-2, 1e-3, 1e-4  # of the cost from the least one, relative
STYLES = {  # of a solver in the figure: colour, marker, line
    "utils.nmf, mu": ("#1d1147", "o", "-"),
    "utils.nmf, cd": ("#832681", "s", "-"),
    "scikit-learn, mu": ("#c43c75", "^", "--"),
    "scikit-learn, cd": ("#f1605d", "D", "--"),
}


def random_problem(rng, n_components=L, n_frames=M):
    """A spectrogram and a basis with nothing special about them: (K, M) complex64 and (K, L) float32."""
    H = rng.random((K, n_components), dtype=np.float32)
    Y = rng.standard_normal((2, K, n_frames), dtype=np.float32)
    return (Y[0] + 1j * Y[1]).astype(np.complex64), H / H.sum(axis=0)


def single_precision_sweep(Y, H, U, P, weight, p):
    """The paper's sweep in NumPy, one component after another, so that beta and X never exist as a whole."""
    S = H @ U
    F = np.zeros_like(Y)
    for l in range(len(U)):
        F += np.outer(H[:, l], U[l]) * P[l]
    residual = Y - F
    U_next = np.empty_like(U)
    for l in range(len(U)):
        HU = np.outer(H[:, l], U[l])
        beta = HU / S
        X = HU * P[l] + beta * residual
        magnitude = np.abs(X)
        P[l] = X / magnitude
        U_next[l] = (H[:, l] @ (magnitude / beta)) / (H[:, l] ** 2 @ (1 / beta) + weight * p * U[l] ** (p - 2))
    return U_next, P


def seconds(function, *args, **kwargs):
    start = time.perf_counter()
    function(*args, **kwargs)
    return time.perf_counter() - start


def take_turns(rivals, rounds):
    """Seconds [shape=(rounds, rivals)] of each rival, one after another in every round, after one warm-up."""
    for rival in rivals:
        rival()
    return np.array([[seconds(rival) for rival in rivals] for _ in range(rounds)])


def print_table(title, header, rows):
    print(f"\n### {title}\n\n| {' | '.join(header)} |\n|{'---|' * len(header)}")
    for row in rows:
        print(f"| {' | '.join(row)} |", flush=True)


def compare_sweeps(rng, rounds=11, n_iter=200):
    Y, H = random_problem(rng)
    U = np.full((L, M), 0.1, np.float32)
    P = np.exp(2j * np.pi * rng.random((L, K, M), dtype=np.float32))
    weight, p = np.float32(1e-5), np.float32(1.2)
    double = [array.astype(np.result_type(array, np.float64)) for array in (Y, H, U, P)]
    names = (
        "this suite, single precision",
        "this suite, double precision",
        "(a) einsum, double precision",
        "(b) NumPy loop over l, single precision",
        "(d) one in-place multiplication of the tensor",
    )
    rivals = (
        lambda: list(utils.complex_nmf_blocks(Y, H, n_iter, phase_init=utils.random_phases())),
        lambda: list(utils.complex_nmf_blocks(double[0], H, n_iter, phase_init=utils.random_phases())),
        lambda: oracle.complex_sweep(*double, 1e-5, 1.2),
        lambda: single_precision_sweep(Y, H, U, P, weight, p),
        lambda: np.multiply(P, np.complex64(1j), out=P),
    )
    times = take_turns(rivals, rounds) / [n_iter, n_iter, 1, 1, 1]
    ratios = np.median(times / times[:, :1], axis=0)
    rows = [
        (name, f"{1e3 * t:.2f}", f"{L * K * M / t / os.cpu_count():.2g}", f"{ratio:.1f}")
        for name, t, ratio in zip(names, np.median(times, axis=0), ratios, strict=True)
    ]
    title = f"One sweep, K = {K}, L = {L}, M = {M}; the suite's is a 200th of a whole run of 200"
    print_table(title, ("", "ms", "elements / s / core", "times the suite's"), rows)


def sinusoidal(Y, piano, n_iter):
    """Complex NMF on the phases of smoothed notes."""
    piano, start = phase.start(Y, piano)
    return list(utils.complex_nmf_blocks(Y, piano.H, n_iter, phase_init=start))


def chorale(n_frames, n_components=60):
    """A recording of so many frames, the chorale over and over, and a basis for it: that of the templates.

    Beyond 60 columns there are the templates' once more, shifted by three bins, as if there were more notes.
    """
    import separation

    y = recording.load(ROOT / "examples" / "chorale" / "matched" / "mixture.flac", separation.SR)
    Y = recording.stft(np.resize(y, 512 * (n_frames - 1)))
    H = separation.learn_basis(2048, 1).H
    more = np.roll(H[:, : n_components - 60], 3, axis=0)
    return Y, np.concatenate([H, more], axis=1)


def compare_nmf(rounds=5, n_iter=200, n_frames=1643):
    """Beside scikit-learn's mu, and the processor's peak: two products of K L M an iteration, on all cores."""
    rows, square = [], np.ones((4096, 4096), np.float32)
    for n_components, loss in itertools.product((60, 88), LOSSES):
        Y, H = chorale(n_frames, n_components)
        V = np.abs(Y)
        V += V.max() * utils.DIVERGENCE_FLOOR * (loss == "itakura-saito")  # it refuses zeros

        rival = functools.partial(scikit_learn, V, H, loss, "mu", n_iter)
        rivals = (lambda V=V, H=H, loss=loss: utils.nmf(V, H, n_iter, loss=loss), rival, lambda: square @ square)
        times = take_turns(rivals, rounds)
        ours, theirs, _ = np.median(times, axis=0)
        peak = V.size * n_components * 2 * n_iter / len(square) ** 3
        share = "" if loss == "frobenius" else f"{np.median(peak * times[:, 2] / times[:, 0]):.0%}"
        ratio = np.median(times[:, 1] / times[:, 0])
        rows.append(
            (
                f"{n_components}",
                loss,
                f"{1e3 * ours / n_iter:.2f}",
                f"{1e3 * theirs / n_iter:.2f}",
                f"{ratio:.1f}",
                share,
            )
        )
    header = ("L", "loss", "utils.nmf, ms", "scikit-learn, mu, ms", "times as fast", "of the peak")
    print_table(f"An iteration of {n_iter}, K = 1025, M = {n_frames}, with the cost curve", header, rows)


def compare_late(rounds=2, n_frames=512):
    """Processor time of an iteration, early and late, in sound, in a fade by 400 dB, and in silence."""
    Y, H = chorale(n_frames)
    faded = (Y * np.geomspace(1, 1e-20, n_frames)).astype(np.complex64)
    silent = np.zeros_like(Y)
    silent[:, :8] = Y[:, :8]  # or there would be nothing to do at all
    work = {loss: functools.partial(utils.nmf, loss=loss) for loss in LOSSES}
    work["complex, mixture phase"] = lambda Y, H, n: deque(utils.complex_nmf_blocks(Y, H, n, with_phase=False), 0)
    work["complex, random phases, 64 frames"] = lambda Y, H, n: deque(
        utils.complex_nmf_blocks(Y[:, -64:], H, n, phase_init=utils.random_phases(), with_phase=False), 0
    )
    rows = []
    for name, function in work.items():
        function(Y, H, 1)  # compiles
        cells = []
        for y in (Y, faded, silent):
            times = np.array(
                [[processor_seconds(function, y, H, n) for n in (10, 50, 400, 500)] for _ in range(rounds)]
            )
            at_10, at_50, at_400, at_500 = np.min(times, axis=0)  # what else runs only adds to it
            cells += [(at_50 - at_10) / 40, (at_500 - at_400) / 100]
        rows.append((name, *(f"{1e3 * max(t, 0):.2f}" for t in cells)))
    title = f"Milliseconds of the processor for an iteration, 10 to 50 (early) and 400 to 500 (late), {n_frames} frames"
    header = ("", *(f"{y}, {when}" for y in ("sound", "fade", "silence") for when in ("early", "late")))
    print_table(title, header, rows)


def processor_seconds(function, *args):
    start = time.process_time()
    function(*args)
    return time.process_time() - start


def compare_smoothing(rounds=3, n_iter=200):
    """What sinusoidal phases and adaptation cost beside the Kullback-Leibler NMF that they start from."""
    import separation

    y = recording.load(ROOT / "examples" / "chorale" / "matched" / "mixture.flac", separation.SR)
    rows = []
    for n_fft, states in ((2048, 1), (8192, 2)):
        Y = recording.stft(y, n_fft=n_fft, hop=n_fft // 4)
        piano = separation.learn_basis(n_fft, states)
        H = piano.H
        rivals = {
            "NMF, Kullback-Leibler": lambda Y=Y, H=H: utils.nmf(Y, H, n_iter, loss="kullback-leibler"),
            "sinusoidal phases, NMF included": lambda Y=Y, piano=piano: sinusoidal(Y, piano, n_iter),
            "adaptation": lambda Y=Y, piano=piano: adapt.adapt_basis(Y, piano),
        }
        times = take_turns(rivals.values(), rounds)
        ratios = np.median(times / times[:, :1], axis=0)
        for name, t, ratio in zip(rivals, np.median(times, axis=0), ratios, strict=True):
            rows.append((name, f"{n_fft}", f"{states}", f"{t:.2f}", f"{ratio:.2f}"))
    title = f"{len(y) / separation.SR:.0f} s of sound, {n_iter} iterations"
    print_table(title, ("", "n_fft", "states", "s", "times NMF"), rows)


def compare_start(rounds=7):
    """A whole run of NMF.py, two pictures drawn, against the bare imports that it cannot do without."""
    with tempfile.TemporaryDirectory() as folder:
        rng = np.random.default_rng(0)
        Y, H = random_problem(rng, 60, 450)
        np.save(f"{folder}/spec.npy", Y)
        np.save(f"{folder}/basis.npy", H)
        imports = [sys.executable, "-c", "import numpy; from matplotlib.figure import Figure"]
        script = [sys.executable, ROOT / "NMF.py", "spec.npy", "200", "basis.npy", "--quiet"]
        rivals = [
            lambda command=command: subprocess.run(command, cwd=folder, check=True) for command in (script, imports)
        ]
        times = take_turns(rivals, rounds)
    rows = [
        (
            "python NMF.py spec.npy 200 basis.npy",
            f"{np.median(times[:, 0]):.2f}",
            f"{np.median(times[:, 0] / times[:, 1]):.2f}",
        ),
        ("import numpy; from matplotlib.figure import Figure", f"{np.median(times[:, 1]):.2f}", "1"),
    ]
    print_table("A whole process, 1025 x 450, 60 columns", ("", "s", "times the imports"), rows)


def run_process(folder, n_frames, n_components, n_iter, *options):
    """Seconds and peak memory in MB of CNMF.py from random phases, as a whole process."""
    rng = np.random.default_rng(0)
    _, H = random_problem(rng, n_components, 1)
    np.save(folder / "basis.npy", H)
    with utils.frame_writer(folder / "spec.npy", (K, n_frames), np.complex64) as write:
        for start in range(0, n_frames, 512):
            write(random_problem(rng, 1, min(512, n_frames - start))[0])
    command = ["CNMF.py", "spec.npy", n_iter, "basis.npy", "--phase-init", "random", "--quiet", *options]
    start = time.perf_counter()
    process = subprocess.Popen([sys.executable, ROOT / command[0], *map(str, command[1:])], cwd=folder)
    _, status, usage = os.wait4(process.pid, 0)
    elapsed = time.perf_counter() - start
    if status:
        raise SystemExit(f"{command} failed")
    return elapsed, usage.ru_maxrss / 1e3


def show_growth(rounds=3, n_iter=20):
    cases = [(minutes, 60, ("--no-phase",)) for minutes in (1, 2, 5, 10, 20)]
    cases += [(5, 60, ()), (1, 120, ("--no-phase",)), (1, 180, ("--no-phase",))]
    elapsed, memory = np.zeros((2, rounds, len(cases)))
    with tempfile.TemporaryDirectory() as folder:
        run_process(Path(folder), 100, 60, 1)  # compiles
        for i, (j, (minutes, n_components, options)) in itertools.product(range(rounds), enumerate(cases)):
            n_frames = minutes * FRAMES_A_MINUTE
            elapsed[i, j], memory[i, j] = run_process(Path(folder), n_frames, n_components, n_iter, *options)
    t = np.median(elapsed, axis=0)
    minutes = np.array([case[0] for case in cases[:5]])
    slope, start = np.polyfit(minutes, t[:5], 1, w=1 / t[:5])
    line = [f"{ratio:.2f}" for ratio in t[:5] / (start + slope * minutes)] + [""] * 3
    rows = [
        (f"{case[0]}", f"{case[1]}", "no" if case[2] else "yes", f"{t[j]:.1f}", line[j], f"{memory[:, j].max():.0f}")
        for j, case in enumerate(cases)
    ]
    title = f"Growth: CNMF.py with {n_iter} sweeps from random phases, whole processes"
    of_line = f"times {start:.1f} s + {slope:.2f} s a minute"
    print_table(title, ("minutes of sound", "L", "phases written", "s", of_line, "peak MB"), rows)


# --- Whole commands, by stage -------------------------------------------------------------------------


def compare_commands(rounds=3, lengths=(0.2, 2, 10)):
    """From a sound to notes, stems and pictures, on one core and on two, beside bare imports."""
    rows = list(itertools.product(COMMANDS, lengths, (1, 2)))
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        for minutes in lengths:
            write_examples(folder / f"{minutes}.flac", minutes)
        for command, (learning, *_) in COMMANDS.items():
            learn = [str(ROOT / "basis_wav_piano"), "-o", str(basis_folder(folder, command)), "--quiet"]
            make_init_H.main([*learn, *learning])
            run_command(folder, command, lengths[0], 2)  # compiles
        runs, imports = [], []  # of each round
        for _ in range(rounds):
            runs.append({row: run_command(folder, *row) for row in rows})
            bare = [sys.executable, "-c", BARE_IMPORTS]
            imports.append({cores: run_pinned(bare, cores, folder)[0] for cores in (1, 2)})
    print_stages(runs, imports)
    print_cores(runs)


def basis_folder(folder, command):
    return folder / f"basis{list(COMMANDS).index(command)}"


def write_examples(path, minutes):
    """The three examples one after another, over and over."""
    import soundfile

    sounds = [recording.load(file, SR) for file in sorted((ROOT / "examples").glob("*/matched/mixture.flac"))]
    soundfile.write(path, np.resize(np.concatenate(sounds), round(60 * SR * minutes)), SR)


def run_command(folder, command, minutes, cores):
    """Seconds by stage of a whole process, which add up to all that it took, and seconds of the processor."""
    _, script, options = COMMANDS[command]
    basis = str(basis_folder(folder, command) / "fixed_basis.npy")
    arguments = [f"{minutes}.flac", "200", basis, *options, "-o", "out"]
    shutil.rmtree(folder / "out", ignore_errors=True)  # or the command would look at what it takes the place of
    child = [sys.executable, ROOT / "benchmarks" / "stages.py", str(time.monotonic()), "stages.json", script]
    elapsed, processor = run_pinned([*child, *arguments, "--quiet"], cores, folder)
    seconds = json.loads((folder / "stages.json").read_text(encoding="utf-8"))
    seconds[stages.END] = elapsed - sum(seconds.values())
    return seconds, processor


def run_pinned(command, cores, folder):
    """Seconds that a process takes on so many cores, and seconds of the processor."""
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(allowed)[:cores])  # a process has those of the thread that starts it
    start = time.monotonic()
    try:
        process = subprocess.Popen(command, cwd=folder)
    finally:
        os.sched_setaffinity(0, allowed)
    _, status, usage = os.wait4(process.pid, 0)
    elapsed = time.monotonic() - start
    if status:
        raise SystemExit(f"{command} failed")
    return elapsed, usage.ru_utime + usage.ru_stime


def print_stages(runs, imports):
    """Print the run with the median time of each row, and the median of its ratio to bare imports."""
    rows = []
    for row in runs[0]:
        command, minutes, cores = row
        seconds, processor = median_run(runs, row)
        ratio = np.median([whole(r[row]) / alone[cores] for r, alone in zip(runs, imports, strict=True)])
        cells = [f"{sum(seconds.values()):.1f}", f"{60 * minutes / sum(seconds.values()):.1f}", f"{processor:.1f}"]
        cells.append(f"{ratio:.1f}" if minutes < 1 else "")
        rows.append((command, f"{minutes}", f"{cores}", *cells, *(f"{seconds[name]:.2f}" for name in stages.STAGES)))
    header = ("", "minutes", "cores", "s", "times faster than the sound", "processor, s", "times bare imports")
    print_table(f"Whole commands, seconds by stage, the median of {len(runs)}", (*header, *stages.STAGES), rows)
    alone = (f"{np.median([of_round[cores] for of_round in imports]):.2f} s on {cores}" for cores in (1, 2))
    print(f"\nBare imports, `{BARE_IMPORTS}`: {', '.join(alone)}.")


def print_cores(runs):
    """Print what a second core gives, and what four and eight would give."""
    rows = []
    for command, minutes in dict.fromkeys(row[:2] for row in runs[0]):
        one, two = (
            np.array(list(median_run(runs, (command, minutes, cores))[0].values())) for cores in (1, 2)
        )  # seconds [shape=(stages,)]
        measured = np.median([whole(r[command, minutes, 1]) / whole(r[command, minutes, 2]) for r in runs])
        cells = [f"{sum(one):.1f}", f"{measured:.2f}", f"{sum(serial_and_shared(one, two)[0]) / sum(one):.0%}"]
        for n in (4, 8):
            cells.append(f"{sum(on_cores(one, two, n)):.1f} ({sum(one) / sum(on_cores(one, two, n)):.1f})")
        rows.append((command, f"{minutes}", *cells))
    header = ("", "minutes", "one core, s", "one core / two", "serial", "four by calculation, s (times)", "eight")
    print_table("Whole commands on more cores", header, rows)


def whole(run):
    """Seconds of all stages of a run."""
    return sum(run[0].values())


def median_run(runs, row):
    """The run of a row that took the median time."""
    return sorted((of_round[row] for of_round in runs), key=whole)[len(runs) // 2]


def serial_and_shared(one, two):
    """Seconds of each stage that more cores leave as they are, and those that they share, from one core and two."""
    serial = np.clip(2 * two - one, 0, one)
    return serial, one - serial


def on_cores(one, two, n):
    """Seconds of each stage on n cores."""
    serial, shared = serial_and_shared(one, two)
    return serial + shared / n


# --- Solvers ------------------------------------------------------------------------------------------


def compare_solvers(rounds=3, n_iters=(1, 2, 5, 10, 20, 50, 100, 200, 500), n_frames=474):
    """Cost against time of utils.nmf and of scikit-learn, with the basis fixed, on the chorale; draws a figure."""
    Y, H = chorale(n_frames)
    V = np.abs(Y)
    curves, rows = {}, []  # by loss and solver: seconds and relative gap [shape=(len(n_iters),)]
    for loss in ("frobenius", "kullback-leibler"):
        solvers = solvers_of(loss, V, H)
        seconds, cost = np.zeros((2, len(solvers), len(n_iters)))
        for solve in solvers.values():
            solve(1)  # compiles
        for j, n in enumerate(n_iters):
            times = np.zeros((rounds, len(solvers)))
            for i, (k, solve) in itertools.product(range(rounds), enumerate(solvers.values())):
                start = time.perf_counter()
                U = solve(n)
                times[i, k] = time.perf_counter() - start
                cost[k, j] = cost_of(V, H, U, loss)
            seconds[:, j] = np.median(times, axis=0)
        seconds = np.minimum.accumulate(seconds[:, ::-1], axis=1)[:, ::-1]  # fewer iterations never take longer
        best_solver = list(solvers.values())[int(cost[:, -1].argmin())]
        least = min(cost_of(V, H, best_solver(10 * n_iters[-1]), loss), cost.min())
        for name, t, d in zip(solvers, seconds, cost, strict=True):
            gap = d / least - 1
            curves[loss, name] = t, gap
            rows.append((loss, name, *(time_to(t, gap, wanted) for wanted in GAPS), f"{t[-1]:.2f}", f"{gap[-1]:.1e}"))
    header = ("loss", "solver", *(f"s to {gap:g}" for gap in GAPS), f"s for {n_iters[-1]} iterations", "gap then")
    print_table(
        f"Solvers, gap of the cost from the least, K = {len(V)}, L = {H.shape[1]}, M = {n_frames}", header, rows
    )
    draw_solvers(ROOT / "images" / "solvers.png", curves)


def solvers_of(loss, V, H):
    """Functions from a number of iterations to activations, by name."""
    known = inspect.signature(utils.nmf).parameters
    ours = {"utils.nmf, mu": {}}
    if "solver" in known:
        ours["utils.nmf, cd"] = {"solver": "cd"}
    solvers = {
        name: lambda n, options=options: utils.nmf(V, H, n, loss=loss, **options)[0] for name, options in ours.items()
    }
    theirs = {"scikit-learn, mu": "mu"} | ({"scikit-learn, cd": "cd"} if loss == "frobenius" else {})
    return solvers | {name: functools.partial(scikit_learn, V, H, loss, solver) for name, solver in theirs.items()}


def scikit_learn(V, H, loss, solver, n_iter):
    """Activations of scikit-learn, which starts from a constant with mu, and from zero with cd."""
    from sklearn.decomposition import non_negative_factorization

    options = {"n_components": H.shape[1], "update_H": False, "solver": solver, "beta_loss": loss, "tol": 0}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it stops before it has converged
        W, *_ = non_negative_factorization(V.T, H=np.ascontiguousarray(H.T), max_iter=n_iter, **options)
    return W.T


def cost_of(V, H, U, loss):
    """Divergence of V from H U, in double precision."""
    V, S = V.astype(np.float64), H.astype(np.float64) @ U.astype(np.float64)
    if loss == "frobenius":
        return np.sum((V - S) ** 2) / 2
    sounding = V > 0
    S = np.maximum(S, np.finfo(np.float32).tiny)
    return np.sum(V[sounding] * np.log(V[sounding] / S[sounding])) + np.sum(S - V)


def time_to(seconds, gap, wanted):
    """Seconds until the gap is that small, "" where it never is; between points, a line through the logarithms."""
    reached = np.flatnonzero(gap <= wanted)
    if not len(reached):
        return ""
    j = reached[0]
    if j == 0:
        return f"< {seconds[0]:.2g}"
    return f"{np.exp(np.interp(-np.log(wanted), -np.log(gap[j - 1 : j + 1]), np.log(seconds[j - 1 : j + 1]))):.2g}"


def draw_solvers(path, curves):
    """Draw the gap against time, a panel for each loss; ``curves`` are by loss and solver."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import NullFormatter

    losses = list(dict.fromkeys(loss for loss, _ in curves))
    figure = Figure(figsize=(9, 4), layout="constrained")
    for axes, loss in zip(
        figure.subplots(1, len(losses), sharex=True, sharey=True, squeeze=False)[0], losses, strict=True
    ):
        for (of_loss, name), (seconds, gap) in curves.items():
            if of_loss == loss:
                colour, marker, line = STYLES[name]
                shown = gap > LEAST_GAP
                axes.loglog(seconds[shown], gap[shown], line, color=colour, marker=marker, markersize=5, label=name)
        axes.set_title(loss.title())
        axes.set_xlabel("time in s")
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.grid(alpha=0.3)
    figure.axes[0].set_ylabel("(cost - least cost) / least cost")
    handles = {
        label: handle for axes in figure.axes for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    figure.legend(handles.values(), handles, loc="outside upper center", ncols=len(handles), frameon=False)
    figure.savefig(path, dpi=150)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = {
        "growth": show_growth,  # first: a process starts with the peak memory of the one that starts it
        "sweep": lambda: compare_sweeps(np.random.default_rng(0)),
        "nmf": compare_nmf,
        "late": compare_late,
        "smoothing": compare_smoothing,
        "start": compare_start,
        "solvers": compare_solvers,
        "commands": compare_commands,
    }
    parser.add_argument("--only", nargs="+", choices=parts, default=parts, help="tables to make (default: all)")
    only = parser.parse_args().only
    for part in parts:
        if part in only:
            parts[part]()


if __name__ == "__main__":
    main()
