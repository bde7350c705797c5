"""Command-line options that the scripts share."""

import argparse
import math
import signal
import sys
from pathlib import Path


def parser(doc):
    """An argument parser whose help is the script's docstring, and whose errors are one line and status 2."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.error = lambda message: parser.exit(2, f"{parser.prog}: error: {' '.join(message.split())}\n")
    return parser


def add_output(parser):
    """Add ``-o`` and ``--show``."""
    parser.add_argument(
        "-o",
        "--out-dir",
        type=Path,
        default=Path(),
        metavar="DIR",
        help="folder for the results, made if it is not there (default: the current one)",
    )
    parser.add_argument("--show", action="store_true", help="open the pictures in windows as well")
    parser.add_argument("--quiet", action="store_true", help="no progress bar and no remarks, only errors")


def add_decomposition(parser):
    """Add what NMF.py and CNMF.py have in common: spectrogram, iterations, basis and when to stop."""
    parser.add_argument("spectrogram", metavar="SPEC", help="spectrogram, .npy, shape (K, M), linear amplitude")
    parser.add_argument("n_iter", metavar="N_ITER", type=positive(int), help="number of iterations, at most")
    parser.add_argument("basis", metavar="BASIS", help="basis, .npy, shape (K, L), written by make_init_H.py")
    parser.add_argument(
        "-thr",
        type=not_negative,
        metavar="T",
        help="stop when the normalised error, sum |Y - model|^2 / sum |Y|^2, is below T (default: never)",
    )
    parser.add_argument(
        "--tol",
        type=not_negative,
        metavar="T",
        help="stop when an iteration lowers the cost by less than this fraction of it (default: never)",
    )
    parser.add_argument("--seed", type=seed, default=0, help="of the random start (default: %(default)s)")
    add_output(parser)


def positive(kind):
    """An argparse type for finite numbers above zero, of ``kind`` int or float."""

    def convert(text):
        value = _number(text, kind)
        if not value > 0:
            raise argparse.ArgumentTypeError(f"got {text!r}, expected a number above 0")
        return value

    return convert


def not_negative(text):
    """An argparse type for finite numbers >= 0."""
    value = _number(text, float)
    if value < 0:
        raise argparse.ArgumentTypeError(f"got {text!r}, expected a number of at least 0")
    return value


def seed(text):
    """An argparse type for seeds: whole numbers >= 0."""
    value = _number(text, int)
    if value < 0:
        raise argparse.ArgumentTypeError(f"got {text!r}, expected a whole number of at least 0")
    return value


def _number(text, kind):
    try:
        value = kind(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        expected = "a whole number" if kind is int else "a finite number"
        raise argparse.ArgumentTypeError(f"got {text!r}, expected {expected}")
    return value


def progress_bar(unit, quiet):
    """A function ``update(n, total)`` that draws a progress bar on stderr once two seconds have passed.

    It draws nothing where stderr is no terminal, or ``quiet`` is set.
    """
    if quiet or not sys.stderr.isatty():
        return lambda n, total: None
    from tqdm import tqdm

    bar = tqdm(unit=unit, unit_scale=True, delay=2, dynamic_ncols=True)

    def update(n, total):
        bar.total = total
        bar.update(n)
        if bar.n >= total:
            bar.close()

    return update


def announce_compilation():
    """Say on stderr when code is being compiled, which takes some seconds, once on each machine."""
    from numba.core import event

    class Announcer(event.Listener):
        def on_start(self, _):
            report("compiling for this machine; only the first run does that ...")
            event.unregister("numba:compile", self)

        def on_end(self, _):
            pass

    event.register("numba:compile", Announcer())


def report(message, quiet=False):
    """Say on stderr what happened, unless ``quiet``."""
    if not quiet:
        print(message, file=sys.stderr)


def run(main):
    """Run a script: Ctrl-C ends it with status 130, a plain kill with 143, a full disk with one line and 1.

    All three unwind the script, which leaves no unfinished file behind.
    """

    def terminate(signum, frame):
        raise SystemExit(128 + signum)

    signal.signal(signal.SIGTERM, terminate)
    try:
        return main()
    except KeyboardInterrupt:
        report("interrupted; nothing was written")
        return 128 + signal.SIGINT
    except OSError as error:
        report(f"{Path(sys.argv[0]).name}: error: {error}")
        return 1
