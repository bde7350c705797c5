"""The command line that the scripts share: options and their checks, progress, and how a run ends."""

import argparse
import contextlib
import functools
import gc
import itertools
import math
import os
import signal
import sys
import threading
from pathlib import Path

from piano import figures, notes, outputs, pitch, scores, stems
from piano.basis import patterns_path
from piano.recording import is_audio, sound_at, with_sound
from utils import InputError, one_blas_thread

STEMS = "listed", "all"
SUBTYPES = {"wav": "FLOAT", "flac": "PCM_24"}  # of each format of stems, the one that loses least
EXACT_DB = -400.0  # what a difference is below that is none: rounding stays above
LARGEST = 2**31 - 1  # of whole numbers; numpy refuses far larger ones with a traceback


def parser(doc, file):
    """An argument parser for the script ``file``. Its help is the docstring; its errors are one line, status 2."""
    parser = argparse.ArgumentParser(
        Path(file).name, description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {outputs.VERSION}")
    parser.error = lambda message: parser.exit(2, f"{parser.prog}: error: {' '.join(message.split())}\n")
    return parser


def parse(parser, argv):
    """Parse ``argv``. ``command`` holds the arguments of ``script`` without those that change no result."""
    argv = sys.argv[1:] if argv is None else argv
    args = parser.parse_args([_with_its_default(*words) for words in itertools.pairwise([*argv, ""])])
    silent = argparse.ArgumentParser(add_help=False)
    add_output(silent)
    silent.add_argument("--dask")
    args.script, (_, args.command) = parser.prog, silent.parse_known_args(argv)
    return args


def _with_its_default(word, following):
    """``--stems`` with the value it has when none follows; argparse would take a recording after it for one."""
    return "--stems=listed" if word == "--stems" and following not in STEMS else word


def add_output(parser):
    """Add the options of where results go and of what is shown and said."""
    parser.add_argument(
        "-o",
        "--out-dir",
        type=Path,
        default=Path(),
        metavar="DIR",
        help="folder for the results, made if it is not there (default: the current one)",
    )
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="let results take the place of files that no run left there, or that were changed since; never of inputs",
    )
    parser.add_argument("--show", action="store_true", help="open the pictures in windows as well")
    parser.add_argument("--quiet", action="store_true", help="no progress bar and no remarks, only errors")


def add_decomposition(parser):
    """Add the options of NMF.py and CNMF.py: input, iterations, basis, when to stop, what is known of the recording."""
    parser.add_argument(
        "inputs",
        metavar="SPEC",
        nargs="+",
        help="spectrogram (.npy, shape (K, M), linear amplitude) or sound (wav, flac, mp3, ...); with several, "
        "DIR holds a folder for each",
    )
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
    parser.add_argument(
        "--adapt",
        type=strength,
        metavar="S",
        help="adapt the basis to the recording first; S > 0 is how firmly its templates hold it back, auto chooses it, "
        "none leaves the basis as it is (default: none; of CNMF.py with --stems or --listen: auto)",
    )
    parser.add_argument(
        "--score",
        type=named,
        metavar="FILE",
        help="list of the notes that are played: a table like notes.csv, whose notes are all kept and moved by 50 ms "
        "at most, or MIDI (.mid), which is first matched with the recording, whatever its tempo",
    )
    parser.add_argument(
        "--sr",
        type=positive(int),
        metavar="HZ",
        help="sampling rate of the basis, where no .json beside it tells",
    )
    parser.add_argument(
        "--dask",
        metavar="ADDRESS",
        help="have the work done by the workers of the Dask scheduler at ADDRESS, such as tcp://host:8786, or by one "
        "on each core of this machine (local)",
    )
    parser.add_argument("--seed", type=seed, default=0, help="of the random start (default: %(default)s)")
    add_results(parser)
    add_output(parser)


def add_results(parser):
    """Add the options of what NMF.py and CNMF.py write: the notes, their stems, and the page."""
    parser.add_argument(
        "--notes",
        action="store_true",
        help="write notes.csv, notes.mid, notes.wav and spectrogram.png as well, which a sound always gets",
    )
    parser.add_argument(
        "--stems",
        nargs="?",
        const="listed",
        choices=STEMS,
        help="write the sound of each pitch, stems/060_C4.wav and so on, and what is left, residual.wav: of those that "
        "are listed in notes.csv (the default), or of all that are loud enough, see --top-db",
    )
    parser.add_argument(
        "--top-db",
        type=not_negative,
        default=30.0,
        metavar="DB",
        help="where stems do not follow the list: a note whose peak lies further below the loudest note's has none and "
        "is left in the residual (default: %(default)s)",
    )
    parser.add_argument(
        "--format", choices=tuple(SUBTYPES), default="wav", help="of the stems' files (default: %(default)s)"
    )
    parser.add_argument(
        "--subtype",
        help="sample format of the stems, as soundfile names it (default: "
        + ", ".join(f"{subtype} for {kind}" for kind, subtype in SUBTYPES.items())
        + ")",
    )
    parser.add_argument(
        "--native-sr", action="store_true", help="write stems at the input's sampling rate, not at the basis'"
    )
    parser.add_argument(
        "--listen",
        action="store_true",
        help="write listen.html, a page that plays the recording, each listed note and the residual",
    )
    parser.add_argument(
        "--listen-range",
        nargs=2,
        type=not_negative,
        metavar=("A", "B"),
        help="part of the recording that listen.html holds, in s (default: all of it)",
    )


def positive(kind):
    """An argparse type for finite numbers above zero, of ``kind`` int or float; whole ones up to ``LARGEST``."""

    def convert(text):
        value = _number(text, kind)
        if not value > 0:
            raise argparse.ArgumentTypeError(f"got {text!r}, expected a number above 0")
        if kind is int and value > LARGEST:
            raise argparse.ArgumentTypeError(f"got {text!r}, expected a number of at most {LARGEST}")
        return value

    return convert


def not_negative(text):
    """An argparse type for finite numbers >= 0."""
    value = _number(text, float)
    if value < 0:
        raise argparse.ArgumentTypeError(f"got {text!r}, expected a number of at least 0")
    return value


def named(text):
    """An argparse type for names of files."""
    if not text:
        raise argparse.ArgumentTypeError("got '', expected the name of a file")
    return text


def strength(text):
    """An argparse type for the strength of a prior: "auto", "none" or a finite number above zero."""
    return text if text in ("auto", "none") else positive(float)(text)


def seed(text):
    """An argparse type for seeds: whole numbers of 64 bits."""
    value = _number(text, int)
    if not 0 <= value < 2**64:
        raise argparse.ArgumentTypeError(f"got {text!r}, expected a whole number from 0 to 2^64 - 1")
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


def check_stems(args, basis):
    """Raise :class:`InputError` where the options for stems and for the page cannot be met."""
    if args.listen_range and not args.listen:
        raise InputError("--listen-range: got it without --listen, expected both")
    if args.listen and basis.columns is None:
        raise InputError("--listen: got a basis without notes, expected fixed_basis.json beside it")
    if not sounds_wanted(args):
        return
    import soundfile  # only sounds need it

    if basis.sr is None:
        raise InputError("--stems: got no sampling rate, expected fixed_basis.json beside the basis or --sr")
    if args.subtype and not soundfile.check_format(args.format.upper(), args.subtype):
        known = ", ".join(sorted(set(soundfile.available_subtypes(args.format.upper()))))
        raise InputError(f"--subtype: got {args.subtype!r}, expected one of {known}")


def sounds_wanted(args):
    """Whether notes are to be turned into sound: for stems, or for the page."""
    return bool(args.stems or args.listen)


def for_each_input(parser, args, work):
    """Call ``work(path, folder, map=...)`` for each input. A bad one is reported at the end, after the others.

    ``map`` runs the work on blocks of frames: the builtin, or with ``--dask`` the cluster's.
    """
    folders = [args.out_dir / Path(path).stem for path in args.inputs] if len(args.inputs) > 1 else [args.out_dir]
    names = [outputs.folded(folder) for folder in folders]
    for folder, name in zip(folders, names, strict=True):
        if names.count(name) > 1:
            parser.error(f"SPEC: got two inputs called {folder.name}, expected different names for their folders")
    try:
        with _maps(args.dask) as (map_blocks, map_inputs):
            complaint = functools.partial(_complaint, functools.partial(work, map=map_blocks))
            errors = list(filter(None, map_inputs(complaint, zip(args.inputs, folders, strict=True))))
    except InputError as error:
        errors = [str(error)]
    if errors:
        parser.exit(2, "".join(f"{parser.prog}: error: {' '.join(error.split())}\n" for error in errors))


def _maps(address):
    """Context of the two maps of :func:`cluster.connected`; without a cluster, the builtin twice."""
    if address is None:
        return contextlib.nullcontext((map, map))
    from piano import cluster

    return cluster.connected(address)


def _complaint(work, job):
    """The message of what was wrong with an input, or None."""
    try:
        work(*job)
    except InputError as error:
        return str(error)


def reserved_folder(out_dir, path, basis, args, own):
    """:func:`outputs.reserved_folder` for all that a run writes: ``own``, its script's, and what is asked for."""
    names = ["basis_calc.npy", "activation_calc.npy", "cost.npy", "activation.png", outputs.RECORD, *own]
    if args.notes or is_audio(path):
        names += ["spectrogram.png", *(outputs.NOTES if basis.columns else [])]
    names += [outputs.PAGE] if args.listen else []
    names += [outputs.STEMS] if args.stems else []
    inputs = [*args.inputs, *basis.files, *([args.score] if args.score else [])]
    return outputs.reserved_folder(out_dir, names, script=args.script, inputs=inputs, overwrite=args.overwrite)


def adapted_basis(recording, basis, listed, args):
    """The basis, adapted if ``--adapt`` says so, the strength that held it back, and the prior of the activations."""
    if args.adapt in (None, "none"):
        return basis, None, None
    from piano import adapt

    if not args.quiet:
        announce_compilation()
    options = {"seed": args.seed, "progress": progress_bar("frame", args.quiet)}
    adapted, strength, prior = adapt.adapt_basis(recording.Y, basis, args.adapt, listed, **options)
    report(f"basis adapted with S = {strength:.3g}", args.quiet)
    return adapted, strength, prior


def listed_notes(recording, basis, args, map):
    """Notes of a sound by the event model, or as ``--score`` has them, and how that was aligned with the sound.

    The notes are None where only activations can tell, the alignment where there is none.
    """
    score, patterns = read_score(args, basis) if args.score else None, patterns_path(args.basis).name
    if recording.y is None or basis.patterns is None:
        if score is not None:
            raise InputError(f"--score: got no sound with patterns of notes, expected a sound and {patterns}")
        if recording.y is not None and basis.columns:
            report(
                f"notes are listed by activations alone; for a better list make_init_H.py learns {patterns}", args.quiet
            )
        return None, None
    if not args.quiet:
        announce_compilation()
    progress, alignment = progress_bar("sample", args.quiet), None
    sound = sound_at(recording, notes.EVENT_SR)
    if score is not None and notes.is_midi(args.score):
        score, alignment = scores.align(score, sound, basis, map=map)
        report(f"{args.score}: {alignment.in_words()}", args.quiet)
    elif score is not None:
        score = within(score, len(sound) / notes.EVENT_SR, args)
    found = notes.listed(sound, basis, score, progress=progress, map=map)
    if score is not None:
        heard = sum(note.confidence >= notes.HEARD for note in found)
        report(f"{heard} of the {len(found)} notes of {args.score} were heard; all are listed", args.quiet)
    return found, alignment


def read_score(args, basis):
    """Notes of a score that the basis has keys for; those beyond are named, and left to the residual."""
    path = args.score
    listed = notes.read_score(path)
    score = notes.without_repeats(listed)
    if len(score) < len(listed):
        report(f"{path}: {len(listed) - len(score)} notes are listed twice and count once", args.quiet)
    beyond = sorted({note.midi for note in score} - set(basis.notes))
    if beyond:
        names = ", ".join(pitch.note_name(midi) for midi in beyond)
        report(f"{path}: {names} lie beyond the keys of the basis and are left to the residual", args.quiet)
    kept = [note for note in score if note.midi not in beyond]
    if not kept:
        raise InputError(f"{path}: got no note that the basis has a key for, expected a score of this piano")
    return kept


def within(score, seconds, args):
    """Notes of a score that begin before the recording ends."""
    kept = [note for note in score if note.onset < seconds]
    if not kept:
        raise InputError(f"{args.score}: got no note before {seconds:.2f} s, where the recording ends")
    if len(kept) < len(score):
        report(f"{args.score}: {len(score) - len(kept)} notes begin after the recording and are left out", args.quiet)
    return kept


def possible_stems(basis, listed, args):
    """Keys of ``basis.notes`` that may get a stem, as far as can be told before the activations are known."""
    return sorted({note.midi for note in listed}) if _follows_list(listed, args) else list(basis.notes)


def notes_with_stems(U, basis, listed, args):
    """Keys of ``basis.notes`` that get a stem: the listed pitches, or all that are loud enough."""
    possible = possible_stems(basis, listed, args)
    return possible if _follows_list(listed, args) else stems.sounding_notes(U, basis, args.top_db)


def _follows_list(listed, args):
    return listed is not None and args.stems != "all"


def stem_writer(folder, recording, basis, notes, args):
    """A :class:`stems.StemWriter` for the stems of ``notes``, as the options have it.

    Where only the page wants them, they go into the working folder and not among the results.
    """
    kind, folder = (args.format, folder) if args.stems else ("wav", recording.folder)
    subtype = args.subtype if args.stems and args.subtype else SUBTYPES[kind]
    names = {note: stems.file_name(basis, note, kind) for note in notes}
    sounding = with_sound(recording, native=args.native_sr)
    return stems.StemWriter(folder / outputs.STEMS, names, f"residual.{kind}", sounding, subtype)


def finish_stems(writer, notes, args):
    """Keep the stems of ``notes``, write the residual, and say what adding them up again gives."""
    null = writer.add_residual(notes)
    for name, count in writer.clipped.items():
        report(f"{writer.recording.path}: {count} samples of {name} clipped; --format wav --subtype FLOAT never does")
    if null is None:
        added_up = "They are silent, as the recording is."
    elif null < EXACT_DB:
        added_up = "Added up, they are the recording."
    else:
        added_up = f"Added up, they differ from the recording by {null:.0f} dB."
    report(f"{len(notes)} stems and a residual. {added_up}", args.quiet)


def write_page(folder, U, basis, listed, writer, args):
    """Write ``listen.html`` from the stems."""
    from piano import listen

    recording = writer.recording
    rows, _ = notes.sum_states(U, basis)
    page = listen.write_page(
        folder / outputs.PAGE,
        listen.Sound(Path(recording.path).name, recording.y, recording.y_sr),
        [note for note in listed if note.midi in writer.names],
        {note: writer.folder / name for note, name in writer.names.items()},
        listen.Roll(rows, list(basis.notes), basis.hop / basis.sr),
        span=args.listen_range,
    )
    report(listen.in_words(page), args.quiet)


def write_record(folder, recording, basis, args, **ending):
    """Write ``run.json`` for a recording, see :func:`outputs.write_record`."""
    ending = {name: value for name, value in ending.items() if value is not None}
    inputs = [recording.path, *basis.files, *([args.score] if args.score else [])]
    outputs.write_record(folder, args.script, args.command, inputs, seed=args.seed, stft=basis.stft, **ending)


def say_how_it_ended(out_dir, args, *, iterations, stopped_by, normalised_error):
    """Say how a decomposition ended and where its results are, and show its pictures if that is asked for."""
    report(f"{iterations} iterations, stopped by the {stopped_by}; normalised error {normalised_error:.4g}", args.quiet)
    say_where(out_dir, outputs.PAGE if args.listen else "activation.png", args.quiet)
    if args.show:
        figures.show(out_dir / name for name in (f"learning_curve_{Path(args.script).stem}.png", "activation.png"))


def say_where(out_dir, first, quiet):
    """Say where the results are, and which of them to open first."""
    report(f"results are in {Path(out_dir).resolve()}: open {first}", quiet)


def progress_bar(unit, quiet):
    """A function ``update(n, total)`` that draws a progress bar on stderr after two seconds.

    It draws nothing if stderr is no terminal, or if ``quiet`` is set.
    """
    if quiet or not sys.stderr.isatty():
        return lambda n, total: None
    from tqdm import tqdm

    return functools.partial(_advance, tqdm(unit=unit, unit_scale=True, delay=2, dynamic_ncols=True))


def _advance(bar, n, total):
    bar.total = total
    bar.update(n)
    if bar.n >= total:
        bar.close()


@functools.cache
def announce_compilation():
    """Say on stderr when code is being compiled: that takes some seconds, once on each machine."""
    from numba.core import event

    class Announcer(event.Listener):
        def on_start(self, _):
            report("compiling for this machine; only the first run does that ...")
            event.unregister("numba:compile", self)

        def on_end(self, _):
            pass

    event.register("numba:compile", Announcer())


def report(message, quiet=False):
    """Print a message on stderr, unless ``quiet``."""
    if not quiet:
        print(message, file=sys.stderr)


def _catch_interrupts():
    """Have Ctrl-C raise KeyboardInterrupt; returns a list that is empty until it has."""
    interrupted = []

    def interrupt(signum, frame):
        interrupted.append(signum)
        sys.unraisablehook = again  # what is cut short, such as an import, may complain as it goes
        raise KeyboardInterrupt

    def again(unraisable):  # it was raised where nobody can catch it, such as where LLVM calls back
        if unraisable.exc_type is KeyboardInterrupt:
            threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()

    if signal.getsignal(signal.SIGINT) != signal.SIG_IGN:  # as it is in the background
        signal.signal(signal.SIGINT, interrupt)
    return interrupted


def run(main):
    """Run a script: Ctrl-C ends it with status 130, a plain kill with 143, a full disk with one line and 1.

    All three unwind the script, so no unfinished file is left. BLAS gets one thread. With more, it would add up in
    another order, and results would depend on the number of cores.
    """

    def terminate(signum, frame):
        raise SystemExit(128 + signum)

    signal.signal(signal.SIGTERM, terminate)
    interrupted = _catch_interrupts()
    try:
        with one_blas_thread():
            return main()
    except (Exception, KeyboardInterrupt) as error:
        if interrupted or isinstance(error, KeyboardInterrupt):  # an import may make another error of it
            report("interrupted; nothing incomplete is left")
            return 128 + signal.SIGINT
        if not isinstance(error, (OSError, MemoryError)):
            raise
        lost = isinstance(error, ConnectionError)
        hint = " (is the disk full?)" if isinstance(error, OSError) and error.errno is None and not lost else ""
        report(f"{Path(sys.argv[0]).name}: error: {error}{hint}")
        return 1
    finally:
        gc.freeze()  # or Python would look through all that was imported once more before it ends, for .2 s
