"""Take a recording of a piano apart into its notes: Kameoka's complex NMF, with a basis that is held fixed.

    python CNMF.py spec.npy 200 fixed_basis.npy -thr 1e-4
    python CNMF.py song.m4a --stems --listen -o song

Writes basis_calc.npy (K, L), activation_calc.npy (L, M), phase_calc.npy (L, K, M), reconst.npy (K, M),
cost.npy (one value an iteration), learning_curve_CNMF.png, activation.png and run.json; for a sound notes.csv,
notes.mid, notes.wav and spectrogram.png as well; with --stems and --listen stems/ and listen.html. With either,
what separates best is the default: --phase-init sinusoidal --adapt auto --no-phase.
"""

import argparse
import functools
import os
import signal
import sys
from contextlib import ExitStack

if __name__ == "__main__" and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends the imports without a traceback; then cli.run has it

import numpy as np

import utils
from piano import adapt, basis, blocks, cli, notes, output, phase, scores, separate


def parse_args(parser, argv):
    write, compute = cli.add_decomposition(parser)
    text = (
        "start of the phases: the mixture's, where they stay; uniformly random; or those of notes that are smoothed "
        "through time, which are held (default: mixture; with --stems or --listen: sinusoidal)"
    )
    compute.add_argument("--phase-init", choices=("mixture", "random", "sinusoidal"), help=text)
    text = "weight of the sparsity penalty, free of gain and length (default: %(default)s)"
    compute.add_argument("--sparsity", type=cli.number(float, least=0), default=1e-5, metavar="S", help=text)
    text = (
        "write phase_calc.npy, L x K x M numbers, or leave it out (default: write it; with --stems or --listen: leave "
        "it out)"
    )
    write.add_argument("--phase", action=argparse.BooleanOptionalAction, help=text)
    return cli.parse_decomposition(parser, argv)


def defaults(args):
    """What is taken where the user names nothing; with stems or a page it is what separates best."""
    if not (args.stems or args.listen):
        return {"phase_init": "mixture", "adapt": "none", "phase": True}
    best = {"phase_init": "sinusoidal", "adapt": "auto", "phase": False}
    if args.basis and not os.path.exists(rotation := basis.beside(args.basis, basis.ROTATION)):
        best["phase_init"] = "mixture"
        if args.phase_init is None:
            best["remark"] = f"no {rotation.name}: notes get the phases of the recording (--phase-init mixture)"
    return best


def main(argv=None):
    parser = cli.parser(__doc__, __file__)
    args = parse_args(parser, argv)
    args, templates = cli.prepared(parser, args, defaults(args))
    cli.for_each_input(parser, args, templates, functools.partial(decompose, args=args))


def decompose(path, out_dir, *, templates, args, map):
    """Take one recording apart, and write the results into ``out_dir``."""
    with cli.opened(path, out_dir, templates, args) as (out, stage), ExitStack() as files:
        sound, Y = out.recording, out.recording.Y
        options = {"learn": not args.same_piano, "progress": stage("listing"), "map": map}
        listed, alignment, templates = scores.listed_notes(sound, templates, args.score, **options)
        wanted = separate.possible_notes(templates, listed, args.stems)
        out.check(templates, wanted)
        options = {"seed": args.seed, "progress": stage("adapting")}
        piano, strength, prior = adapt.adapt_basis(Y, templates, args.adapt, listed, **options)
        passes = 1 if args.thr is args.tol is None else 2  # what stops a run looks at the whole file, in a first pass
        if args.phase_init == "sinusoidal":
            told = {"map": map, "progress": stage("phases")}
            piano, start = phase.start(Y, piano, args.seed, strength, prior, **told)
            if passes == 2:
                each = functools.partial(blocks.each, **told)
                start = files.enter_context(utils.kept(start, Y, sound.folder, each))
        else:
            start = utils.random_phases(args.seed) if args.phase_init == "random" else utils.mixture_phases()
        update, energy, n_iter = stage("apart"), 2 * utils.cost_scale(Y), args.n_iter
        each = functools.partial(blocks.each, map=map, progress=lambda n, total: update(n, passes * total))
        options = {"phase_init": start, "sparsity": args.sparsity, "each": each}
        fit = functools.partial(utils.complex_nmf_blocks, Y, piano.H, **options)
        if passes == 2:
            for part in fit(n_iter, with_phase=False):
                error, cost = utils.normalised(part.error, energy), part.cost
            n_iter, _ = utils.stopping_iteration(cost, error, args.thr, args.tol)
            del part  # a block of F
        parts = fit(n_iter, with_phase=args.phase or out.wanted.sound)
        U, error, cost, stems = write_parts(out, parts, piano, wanted, listed)
        stage("writing")
        found = notes.find_notes(U, piano) if listed is None else listed
        error, curve = (utils.normalised(x, energy) for x in (error, cost))
        F = np.load(out.folder / "reconst.npy", mmap_mode="r")
        fit = output.Fit(U, cost, error, curve, functools.partial(blocks.read_frames, F))
        ending = cli.ending(fit, strength, args)
        out.write(piano, fit, found, alignment, stems, ending)
    cli.say_how_it_ended(out_dir, args, ending)


def write_parts(out, parts, piano, wanted, listed):
    """Write reconst.npy, phase_calc.npy and the sound of the wanted notes, as their blocks come.

    Returns U, the error and the cost after each iteration, and the writer of the stems, or None.
    """
    Y, dtype, folder = out.recording.Y, out.recording.Y.dtype, out.folder
    U = np.empty((piano.H.shape[1], Y.shape[1]), dtype.type().real.dtype)
    with ExitStack() as files:
        write_F = files.enter_context(utils.frame_writer(folder / "reconst.npy", Y.shape, dtype))
        if out.wanted.phase:
            write_P = files.enter_context(utils.frame_writer(folder / "phase_calc.npy", (len(U), *Y.shape), dtype))
        stems = files.enter_context(out.stems(piano, wanted, listed))
        for part in parts:
            U[:, part.frames] = part.U
            write_F(part.F)
            if out.wanted.phase:
                write_P(part.P[part.row])
            if stems:
                mixture = blocks.read_frames(Y.Y, part.frames)
                stems.write(separate.component_notes(mixture, piano, part))
            error, cost = part.error, part.cost
            del part  # or its phases would be kept while the next ones are worked out
    return U, error, cost, stems


if __name__ == "__main__":
    sys.exit(cli.run(main))
