"""The command line that the scripts share: options and their checks, progress, and how a run ends."""

import argparse
import contextlib
import ctypes
import gc
import logging
import math
import os
import shlex
import signal
import sys
import threading
from itertools import pairwise
from pathlib import Path

import utils
from piano import blocks, listen, output, results
from piano.basis import ROTATION, beside
from piano.basis import load as load_basis
from piano.basis import names as basis_names
from piano.files import ARRAY, SOUNDS, check_kind, kind
from piano.recording import inputs_in, is_sound, open_recording
from utils import InputError

log = logging.getLogger(__name__)
N_ITER = 200  # iterations, where the user names none
STAGES = {
    "reading": "Reading the recording",
    "listing": "Finding the notes",
    "adapting": "Adapting to the piano",
    "phases": "Following the notes",
    "apart": "Taking it apart",
    "writing": "Writing the results",
}
BAR_AFTER_S, TICK_S = 2, 0.2  # s until a bar is drawn, and from one drawing to the next
AGAIN_S = 0.1  # from one try to end a run that was told to, to the next
STOPS = {
    "number of iterations": "as many as were asked for",
    "threshold": "until the error was below -thr",
    "tolerance": "until one gained less than --tol",
}


def parser(doc, file):
    """An argument parser for the script ``file``. Its help is the docstring; its errors are one line, status 2."""
    style = {"usage": argparse.SUPPRESS, "formatter_class": argparse.RawDescriptionHelpFormatter, "allow_abbrev": False}
    parser = argparse.ArgumentParser(Path(file).name, description=doc, **style)
    parser.add_argument("--version", action="version", version=f"%(prog)s {results.VERSION}")
    parser.error = lambda message: parser.exit(2, f"{parser.prog}: error: {' '.join(message.split())}\n")
    return parser


def parse(parser, argv):
    """Parse ``argv``. ``command`` holds the arguments of ``script`` without those that change no result."""
    argv = sys.argv[1:] if argv is None else argv
    if not argv:
        what, how = parser.description.split("\n\n")[:2]
        parser.exit(2, f"{what}\n\n{how}\n\nAll options: python {parser.prog} -h\n")
    args = parser.parse_intermixed_args([_with_its_default(*words) for words in pairwise([*argv, ""])])
    silent = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    add_output(silent)
    silent.add_argument("--dask")
    args.script, (_, args.command) = parser.prog, silent.parse_known_args(argv)
    said = logging.getLogger("piano")
    said.handlers, said.propagate = [_Reporter()], False
    said.setLevel(logging.WARNING if args.quiet else logging.INFO)
    return args


def parse_decomposition(parser, argv):
    """:func:`parse` for NMF.py and CNMF.py, where N_ITER and BASIS may be left out.

    The last of three or more words is a BASIS if the one before it is a number, or if it is a ``.npy``. Otherwise the
    last word is N_ITER if it is a number. All the rest are SPECs.
    """
    args = parse(parser, argv)
    *before, last = args.inputs
    if len(before) > 1 and (_is_number(before[-1]) or last.lower().endswith(".npy")):
        *args.inputs, n_iter, args.basis = args.inputs
    elif before and _is_number(last):
        args.inputs, n_iter = before, last
    else:
        n_iter = str(N_ITER)
    try:  # a curve of costs has room for a million, in every part of a recording that is fitted at a time
        args.n_iter = number(int, above=0, most=10**6)(n_iter)
    except argparse.ArgumentTypeError as error:
        parser.error(f"argument N_ITER: {error}")
    return args


def _is_number(word):
    with contextlib.suppress(ValueError):
        return float(word) is not None
    return False


def prepared(parser, args, defaults):
    """The arguments by which the run goes, and the basis; what is wrong with them ends the run."""
    try:
        _check_needed(parser, args)
        args = _settled(args, defaults)
        basis = load_basis(args.basis, args.sr, with_rotation=_smooths(args) or args.adapt != "none")
        if _smooths(args) and basis.rotation is None:
            path = beside(args.basis, ROTATION)
            raise InputError(f"{path}: no such file, expected the rotations that make_init_H.py writes with a basis")
        if args.same_piano:
            _check_together(args)
        if args.listen and basis.columns is None:
            raise InputError("--listen: got a basis without notes, expected fixed_basis.json beside it")
        if (args.stems or args.listen) and basis.sr is None:
            raise InputError("--stems: got no sampling rate, expected fixed_basis.json beside the basis or --sr")
    except InputError as error:
        parser.error(str(error))
    return args, basis


def _smooths(args):
    """Whether notes are smoothed through time, which needs their rotations; NMF.py has no phases."""
    return getattr(args, "phase_init", None) == "sinusoidal"


def needs(action, *options):
    """Have an option refused where none of these is given, for it would change nothing."""
    action.needs = options


def _check_needed(parser, args):
    """Raise :class:`InputError` if an option is given without any of those that it :func:`needs`."""
    given = {word.partition("=")[0] for word in args.command}
    for action in parser._actions:
        needed = getattr(action, "needs", ())
        if needed and given.intersection(action.option_strings) and given.isdisjoint(needed):
            raise InputError(f"{action.option_strings[0]}: got it alone, expected {' or '.join(needed)} with it")


def _check_together(args):
    """Raise :class:`InputError` unless there are several sounds that a piano can be learnt from."""
    spectrogram = next((path for path in args.inputs if not is_sound(path)), None)
    if spectrogram:
        raise InputError(f"--same-piano: got {spectrogram}, a spectrogram, expected sounds alone")
    if len(args.inputs) == 1 or args.adapt == "none":
        got = "--adapt none" if len(args.inputs) > 1 else "a single SPEC"
        raise InputError(f"--same-piano: got {got}, expected several sounds, and --adapt (or --stems, --listen)")


def _settled(args, defaults):
    """The arguments with all inputs that the SPECs stand for, a basis, and the defaults of what was left open.

    The basis is the suite's own where none is named. ``several`` is whether each input gets a folder of its own, and a
    ``remark`` among the defaults is said of each.
    """
    several, basis = len(args.inputs) > 1 or os.path.isdir(args.inputs[0]), args.basis
    inputs = [path for word in args.inputs for path in _inputs(word, basis)]
    if basis is None:
        from piano import learn

        for path in inputs:
            if len(inputs) == 1 or kind(path) == ARRAY:  # others are told of when their turn comes
                check_kind(path, "a sound (a spectrogram needs N_ITER and BASIS, a BASIS an N_ITER before it)", *SOUNDS)
        basis = learn.suite_basis()
    given = {name: value for name, value in vars(args).items() if value is not None}
    found = {"inputs": inputs, "several": several, "basis": basis}
    return argparse.Namespace(**vars(args) | {"remark": None} | defaults | given | found)


def _inputs(word, basis):
    """The inputs that a SPEC stands for: itself, or in a folder all but the basis; spectrograms need one."""
    if not os.path.isdir(word):
        return [word]
    own = {Path(basis).with_name(name).resolve() for name in basis_names(basis)} if basis and Path(basis).name else ()
    try:
        found = [str(path) for path in inputs_in(Path(word), bool(basis)) if path.resolve() not in own]
    except OSError as error:
        raise InputError(f"{word}: cannot be read ({error.strerror}), expected a folder of sounds") from None
    if not found:
        raise InputError(f"{word}: got a folder without sounds, expected some in it")
    return found


def _with_its_default(word, following):
    """``--stems`` with the value it has when none follows; argparse would take a recording after it for one."""
    return "--stems=listed" if word == "--stems" and following not in ("listed", "all") else word


def add_output(parser):
    """Add the options of where results go and of what is shown and said; returns the group of what is written."""
    write = parser.add_argument_group("what to write")
    text = "folder for the results, made if it is not there (default: the current one)"
    write.add_argument("-o", "--out-dir", type=Path, default=Path(), metavar="DIR", help=text)
    text = "let results take the place of files that no run left there, or that were changed since; never of inputs"
    write.add_argument("--overwrite", action="store_true", help=text)
    parser.add_argument("--quiet", action="store_true", help="no progress bar and no remarks, only errors and warnings")
    return write


def add_decomposition(parser):
    """Add the arguments of NMF.py and CNMF.py; returns the groups of what is written and of how it is computed."""
    text = (
        "sound (wav, flac, mp3, m4a, ...), spectrogram (.npy, shape (K, M), linear amplitude), or folder of them; with "
        "several, DIR holds a folder for each"
    )
    parser.add_argument("inputs", metavar="SPEC", nargs="+", help=text)
    text = f"iterations, the rounds of fitting, at most (default: {N_ITER})"
    parser.add_argument("n_iter", metavar="N_ITER", nargs="?", help=text)
    text = (
        "basis, .npy, shape (K, L), written by make_init_H.py (default: of a sound, that of basis_wav_piano with "
        "--states 2 --n-fft 8192 --keys A0 C8, learnt once)"
    )
    parser.add_argument("basis", metavar="BASIS", nargs="?", help=text)
    write = add_output(parser)
    add_results(write, parser.add_argument_group("how to listen"))
    compute = parser.add_argument_group("how to compute")
    text = "stop when the normalised error, sum |Y - model|^2 / sum |Y|^2, is below T (default: never)"
    compute.add_argument("-thr", type=number(float, least=0), metavar="T", help=text)
    text = "stop when an iteration lowers the cost by less than this fraction of it (default: never)"
    compute.add_argument("--tol", type=number(float, least=0), metavar="T", help=text)
    text = (
        "adapt the basis to the recording first; S > 0 is how firmly its templates hold it back, auto chooses it, "
        "none leaves the basis as it is (default: none; of CNMF.py with --stems or --listen: auto)"
    )
    compute.add_argument("--adapt", type=strength, metavar="S", help=text)
    text = "learn the piano from all SPECs together, first of all: they are sounds of one piano in one room"
    compute.add_argument("--same-piano", action="store_true", help=text)
    text = (
        "list of the notes that are played: a table like notes.csv, whose notes are all kept and moved by 50 ms at "
        "most, or MIDI (.mid), which is first matched with the recording, whatever its tempo"
    )
    compute.add_argument("--score", type=named, metavar="FILE", help=text)
    text = "sampling rate of the basis, where no .json beside it tells"
    compute.add_argument("--sr", type=number(int, above=0), metavar="HZ", help=text)
    text = (
        "have the work done by the workers of the Dask scheduler at ADDRESS, such as tcp://host:8786, or by one on "
        "each core of this machine (local)"
    )
    compute.add_argument("--dask", metavar="ADDRESS", help=text)
    seed = number(int, least=0, most=2**64 - 1)
    compute.add_argument("--seed", type=seed, default=0, help="of the random start (default: %(default)s)")
    return write, compute


def add_results(write, listen):
    """Add the options of what NMF.py and CNMF.py write: the notes, their stems, and the page."""
    text = "write notes.csv, notes.mid, notes.wav and spectrogram.png as well, which a sound always gets"
    write.add_argument("--notes", action="store_true", help=text)
    text = (
        "write the sound of each pitch, stems/060_C4.flac and so on, and what is left, residual.flac: of those that "
        "are listed in notes.csv (the default), or of all that are loud enough, see --top-db"
    )
    write.add_argument("--stems", nargs="?", const="listed", choices=("listed", "all"), help=text)
    text = (
        "where stems do not follow the list: a note whose peak lies further below the loudest note's has none and is "
        "left in the residual (default: %(default)s)"
    )
    sound = "--stems", "--listen"
    needs(write.add_argument("--top-db", type=number(float, least=0), default=30.0, metavar="DB", help=text), *sound)
    text = "of stems: 24 bit, or floats (default: %(default)s)"
    formats = tuple(output.SAMPLE_BYTES)
    needs(write.add_argument("--format", choices=formats, default="flac", help=text), "--stems")
    text = "write stems, residual and page at the recording's own sampling rate, not at the basis'"
    needs(write.add_argument("--native-sr", action="store_true", help=text), *sound)
    text = "write listen.html, a page that plays the recording, each listed note and the residual"
    listen.add_argument("--listen", action="store_true", help=text)
    text = "part of the recording that listen.html holds, in s (default: all of it)"
    seconds = {"nargs": 2, "type": number(float, least=0), "metavar": ("A", "B")}
    needs(listen.add_argument("--listen-range", **seconds, help=text), "--listen")


def number(kind, *, above=None, least=None, most=None):
    """An argparse type for finite numbers of ``kind``, int or float, within these bounds."""
    if kind is int and most is None:
        most = 2**31 - 1  # NumPy refuses far larger ones with a traceback

    def convert(text):
        try:
            value = kind(text)
        except ValueError:
            value = math.nan
        if not -math.inf < value < math.inf:
            expected = f"a {'whole' if kind is int else 'finite'} number"
        elif above is not None and value <= above:
            expected = f"a number above {above}"
        elif least is not None and value < least:
            expected = f"a number of at least {least}"
        elif most is not None and value > most:
            expected = f"a number of at most {most}"
        else:
            return value
        raise argparse.ArgumentTypeError(f"got {text!r}, expected {expected}")

    return convert


def named(text):
    """An argparse type for names of files."""
    if not text:
        raise argparse.ArgumentTypeError("got '', expected the name of a file")
    return text


def strength(text):
    """An argparse type for the strength of a prior: "auto", "none" or a finite number above zero."""
    return text if text in ("auto", "none") else number(float, above=0)(text)


def for_each_input(parser, args, basis, work):
    """Call ``work(path, folder, templates=..., map=...)`` for each input. A bad one is reported at the end.

    ``map`` does the work on blocks of frames with ``--dask``: the cluster's; None without. The templates are the basis,
    or with ``--same-piano`` what is learnt from all inputs together.
    """
    folders = [args.out_dir / _folder_name(path) if args.several else args.out_dir for path in args.inputs]
    names = [results.folded(folder) for folder in folders]
    for folder, name in zip(folders, names, strict=True):
        if names.count(name) > 1:
            parser.error(f"SPEC: got two inputs called {folder.name}, expected different names for their folders")

    maps = contextlib.nullcontext((None, map))
    if args.dask is not None:
        from piano import cluster

        maps = cluster.connected(args.dask)

    def complaint(job):
        try:
            work(*job, templates=templates, map=map_blocks)
        except InputError as error:
            return str(error)

    try:
        with maps as (map_blocks, map_inputs):
            templates = _learnt_together(args, basis, map_blocks) if args.same_piano else basis
            errors = list(filter(None, map_inputs(complaint, zip(args.inputs, folders, strict=True))))
    except InputError as error:
        errors = [str(error)]
    if errors:
        parser.exit(2, "".join(f"{parser.prog}: error: {' '.join(error.split())}\n" for error in errors))


def _learnt_together(args, basis, map):
    from piano import learn

    log.info(f"learning the piano of {len(args.inputs)} recordings from all of them together ...")
    with stages(args.inputs[0], basis, args) as stage:
        options = {"smooth": _smooths(args), "seed": args.seed, "stage": stage, "map": map}
        return learn.learn_together(args.inputs, basis, args.adapt, **options)


def _folder_name(path):
    """Name of the folder for the results of an input: its own, without what would make it hidden or another's."""
    return Path(path).stem.strip(". ") or "recording"


@contextlib.contextmanager
def opened(path, out_dir, basis, args):
    """Context of a run on one recording. Yields its :class:`output.Output`, and ``stage`` of :func:`stages`."""
    is_complex = hasattr(args, "phase")
    options = "stems", "top_db", "native_sr", "listen", "listen_range"
    wanted = output.Wanted(
        curve=f"learning_curve_{Path(args.script).stem}.png",
        model=is_complex,
        phase=is_complex and args.phase,
        kept=is_complex and args.phase_init == "sinusoidal" and (args.thr, args.tol) != (None, None),
        notes=args.notes or is_sound(path),
        format=args.format if args.stems else "wav",  # which loses nothing
        again=_command_again(args),
        **{name: getattr(args, name) for name in options},
    )
    others = [*basis.files, *([args.score] if args.score else [])]
    read = [path, *(other for other in args.inputs if args.same_piano and other != path)]
    reserved = {"script": args.script, "inputs": [*args.inputs, *others], "overwrite": args.overwrite}
    run = {"script": args.script, "command": args.command, "inputs": [*read, *others], "seed": args.seed}
    with (
        results.reserved_folder(out_dir, wanted.names(basis, args.adapt != "none"), **reserved) as (working, folder),
        stages(path, basis, args) as stage,
    ):
        stage("reading")
        out = output.Output(folder, open_recording(path, basis, working), wanted, run)
        out.check(basis)
        if args.remark:
            log.info(args.remark)
        yield out, stage


def _command_again(args):
    """The command of this run with other results, to which ``--score`` can be added; None where it is of several."""
    if args.several:
        return None
    again = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    again.add_argument("--score")
    _, rest = again.parse_known_args(args.command)
    words = ["python", args.script, *results.without_folders(rest), "-o", f"{Path(args.inputs[0]).stem}_corrected"]
    return shlex.join(words)


def ending(fit, strength, args):
    """How a decomposition ended, as ``run.json`` tells it; ``strength`` is that of the adaptation."""
    _, reason = utils.stopping_iteration(fit.cost, fit.error, args.thr, args.tol)
    told = {"iterations": len(fit.cost), "stopped_by": reason, "normalised_error": float(fit.error[-1])}
    if hasattr(args, "phase_init") and (args.stems or args.listen):  # otherwise the command tells
        told = {"phase_init": args.phase_init} | told
    return told if strength is None else {"adapted_with": strength} | told


def say_how_it_ended(out_dir, args, ending):
    """Say how a decomposition ended and where its results are."""
    if "adapted_with" in ending:
        log.info(
            f"The basis was adapted to this piano (--adapt {ending['adapted_with']:.3g}; more stays closer to BASIS). "
            "basis_calc.npy is a BASIS for other recordings of it."
        )
    loss, error = getattr(args, "loss", "frobenius"), ending["normalised_error"]
    if loss == "frobenius":
        told = f"What the model leaves out has {100 * error:.2g} % of the recording's energy."
    else:
        told = f"The model's error is {error:.4g}, by --loss {loss}; 0 is the recording itself."
    log.info(f"{ending['iterations']} rounds of fitting (iterations), {STOPS[ending['stopped_by']]}. {told}")
    page = args.listen and (Path(out_dir) / listen.FILE).exists()
    say_where(out_dir, listen.FILE if page else "activation.png")


def say_where(out_dir, first):
    """Say where the results are, how large they are, and which of them to open first."""
    size = results.size_in_words(results.results_size(out_dir))
    log.info(f"results are in {Path(out_dir).resolve()} ({size}): open {first}")


@contextlib.contextmanager
def stages(path, basis, args):
    """Context of one progress bar on stderr for all stages of a run on ``path``.

    Yields ``stage(name)``, which begins the next of ``STAGES`` and gives its ``update(n, total)``. The bar is there
    after ``BAR_AFTER_S`` and gone at the end. It draws nothing if stderr is no terminal, or with ``--quiet``.
    """
    bar = None

    def stage(name):
        _give_back_memory()
        if bar is None or name not in names:  # this run has no such stage
            return lambda n, total: None
        bar.n = begun = names.index(name)
        bar.desc = f"[{begun + 1}/{len(names)}] {STAGES[name]}"
        if bar.last_print_t > bar.start_t:  # it is there: short stages are named too
            bar.refresh()

        def update(n, total):
            bar.n = min(bar.n + n / total, begun + 1)

        return update

    if args.quiet or not sys.stderr.isatty():
        yield stage
        return
    from tqdm import tqdm

    there = {
        "listing": is_sound(path) and basis.patterns is not None,
        "adapting": args.adapt != "none",
        "phases": _smooths(args),
    }
    names = [name for name in STAGES if there.get(name, True)]
    style = {"leave": False, "dynamic_ncols": True, "bar_format": "{desc} {percentage:3.0f}%|{bar}| {elapsed}"}
    bar = tqdm(total=len(names), delay=BAR_AFTER_S, mininterval=0, miniters=0, **style)
    ended = threading.Event()

    def tick():  # so that it moves where nothing is counted
        while not ended.wait(TICK_S):
            bar.update(0)

    ticking = threading.Thread(target=tick, daemon=True)
    ticking.start()
    try:
        yield stage
    finally:
        ended.set()
        ticking.join()
        bar.close()


def _give_back_memory():
    """Give the system what is free: the GNU C library keeps what large arrays leave, and later ones find no place."""
    with contextlib.suppress(OSError, AttributeError):  # another C library
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def report(message):
    """Print a message on stderr; where a progress bar is, in its place."""
    tqdm = sys.modules["tqdm"].tqdm if "tqdm" in sys.modules else None  # no bar without it
    with tqdm.get_lock() if tqdm else contextlib.nullcontext():
        for bar in list(getattr(tqdm, "_instances", ())):
            bar.clear(nolock=True)
        print(message, file=sys.stderr)


class _Reporter(logging.Handler):
    """What the suite has to say, on stderr."""

    def emit(self, record):
        report(record.getMessage())


@contextlib.contextmanager
def _heeded_signals(came):
    """Context in which a signal that asks the run to end raises KeyboardInterrupt, until that has left the context.

    Much swallows an exception: ``__del__``, what C calls back, as LLVM does for each kernel, an import by Cython. So a
    timer raises it again, but never while an exception is handled: that may be this one on its way, and nothing cuts
    short what is tidied up then. Signals are added to the list ``came``, the timer's too.
    """
    timed, before, over = hasattr(signal, "setitimer"), {}, []  # Windows has no such timer, and no SIGHUP

    def heed(signum, frame):
        if over:
            return
        came.append(signum)
        sys.unraisablehook = lambda unraisable: None  # what is cut short may complain as it goes
        if timed:
            signal.setitimer(signal.ITIMER_REAL, AGAIN_S)
            if sys.exception() or _is_importing(frame):
                return
        raise KeyboardInterrupt

    try:
        if timed:
            before[signal.SIGALRM] = signal.signal(signal.SIGALRM, heed)
        for signum in (getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)):
            if signal.getsignal(signum) != signal.SIG_IGN:  # as nohup has it, or a job in the background
                before[signum] = signal.signal(signum, heed)
        yield
    finally:
        over.append(True)
        if timed:
            signal.setitimer(signal.ITIMER_REAL, 0)
        for signum, handler in before.items():
            signal.signal(signum, handler)


def _is_importing(frame):
    while frame and not frame.f_code.co_filename.startswith("<frozen importlib"):
        frame = frame.f_back
    return frame is not None


class _Heedless:
    """A stream like ``stream``, but where that cannot be written to, what is written is lost and nothing ends."""

    def __init__(self, stream):
        self.stream = stream

    def __getattr__(self, name):
        return getattr(self.stream, name)

    def write(self, text):
        self._attempt(self.stream.write, text)

    def flush(self):
        self._attempt(self.stream.flush)

    def _attempt(self, function, *arguments):
        try:
            function(*arguments)
        except OSError:  # a full disk, a pipe that nobody reads, a terminal that is gone
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.stream.fileno())  # for what waits in its buffer too
            os.close(nowhere)


def _heedless_stderr():
    """Context in which stderr can be written to whatever it is; where it, stdin or stdout is closed, it is nowhere."""
    while (nowhere := os.open(os.devnull, os.O_RDWR)) <= 2:  # or a file of results would have its number
        pass
    os.close(nowhere)
    return contextlib.redirect_stderr(_Heedless(sys.stderr or open(2, "w", closefd=False)))


def run(main):
    """Run a script: Ctrl-C ends it with status 130, a plain kill with 143, a full disk with one line and 1.

    All three unwind the script, so no unfinished file is left; so does the terminal that is closed (129). BLAS gets one
    thread. With more, it would add up in another order, and results would depend on the number of cores.
    """
    came = []
    with _heedless_stderr():
        try:
            with _heeded_signals(came), blocks.one_blas_thread():
                return main()
        except (Exception, KeyboardInterrupt) as error:
            if came:  # an import may make another error of it
                if came[0] == signal.SIGINT:
                    report("interrupted; nothing incomplete is left")
                return 128 + came[0]
            if not isinstance(error, (OSError, MemoryError)):
                raise
            lost = isinstance(error, ConnectionError)
            hint = " (is the disk full?)" if isinstance(error, OSError) and error.errno is None and not lost else ""
            report(f"{Path(sys.argv[0]).name}: error: {error}{hint}")
            return 1
        finally:
            gc.freeze()  # or Python would look through all that was imported once more before it ends, for .2 s
