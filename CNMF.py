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
import logging
import os
import signal
import sys
from contextlib import ExitStack

if __name__ == "__main__" and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends the imports without a traceback; then cli.run has it

import numpy as np

import utils
from piano import adapt, basis, blocks, cli, figures, listen, notes, phase, results, scores, separate
from piano.recording import open_recording

log = logging.getLogger("piano")
DEFAULTS = {"phase_init": "mixture", "adapt": "none", "phase": True}
SEPARATING = {"phase_init": "sinusoidal", "adapt": "auto", "phase": False}  # with stems or a page: what is best there


def parse_args(parser, argv):
    write, compute = cli.add_decomposition(parser)
    compute.add_argument(
        "--phase-init",
        choices=("mixture", "random", "sinusoidal"),
        help="start of the phases: the mixture's, where they stay; uniformly random; or those of notes that are "
        "smoothed through time, which are held (default: mixture; with --stems or --listen: sinusoidal)",
    )
    compute.add_argument(
        "--sparsity",
        type=cli.not_negative,
        default=1e-5,
        metavar="S",
        help="weight of the sparsity penalty, free of gain and length (default: %(default)s)",
    )
    write.add_argument(
        "--phase",
        action=argparse.BooleanOptionalAction,
        help="write phase_calc.npy, L x K x M numbers, or leave it out (default: write it; with --stems or --listen: "
        "leave it out)",
    )
    return cli.parse_decomposition(parser, argv)


def set_defaults(args):
    """Set what the user left open; returns what is to be told of it, where the basis has no rotations."""
    defaults, missing = SEPARATING if cli.sounds_wanted(args) else DEFAULTS, None
    rotation = basis.rotation_path(args.basis)
    if args.phase_init is None and defaults["phase_init"] == "sinusoidal" and not os.path.exists(rotation):
        args.phase_init = "mixture"
        missing = f"no {rotation.name}: notes get the phases of the recording (--phase-init mixture)"
    for name, default in defaults.items():
        if getattr(args, name) is None:
            setattr(args, name, default)
    return missing


def main(argv=None):
    parser = cli.parser(__doc__, __file__)
    args = parse_args(parser, argv)
    try:
        cli.find_inputs(args)
        missing = set_defaults(args)
        templates = basis.load(args.basis, args.sr, with_rotation=args.phase_init == "sinusoidal")
        cli.check_stems(args, templates)
    except utils.InputError as error:
        parser.error(str(error))
    cli.for_each_input(parser, args, functools.partial(decompose, templates=templates, missing=missing, args=args))


def decompose(path, out_dir, *, templates, missing, args, map):
    """Take one recording apart, and write the results into ``out_dir``."""
    own = ["learning_curve_CNMF.png", "reconst.npy", *(["phase_calc.npy"] if args.phase else [])]
    with (
        cli.reserved_folder(out_dir, path, templates, args, own) as workspace,
        cli.stages(path, templates, args) as stage,
        ExitStack() as files,
    ):
        stage(cli.READING)
        recording = open_recording(path, templates, workspace)
        utils.check_complex(recording.Y, path)
        L = templates.H.shape[1]
        cli.check_length(out_dir, recording, (), L, args)
        if missing:
            log.info(missing)
        listed, alignment = scores.listed_notes(recording, templates, args.score, progress=stage(cli.LISTING), map=map)
        wanted = separate.possible_notes(templates, listed, args.stems)
        cli.check_length(out_dir, recording, wanted, L, args)
        piano, strength, prior = adapt.adapt_basis(
            recording.Y, templates, args.adapt, listed, seed=args.seed, progress=stage(cli.ADAPTING)
        )
        stops, n_iter, energy = (args.thr, args.tol), args.n_iter, 2 * utils.cost_scale(recording.Y)
        passes = 1 if stops == (None, None) else 2  # they look at the whole file: the first pass finds its curve
        if args.phase_init == "mixture":
            start = utils.mixture_phases()
        elif args.phase_init == "random":
            start = utils.random_phases(args.seed)
        else:
            told = {"map": map, "progress": stage(cli.PHASES)}
            piano, start = phase.start(recording.Y, piano, args.seed, strength, prior, **told)
            if passes == 2:
                start = files.enter_context(
                    utils.kept(start, recording.Y, workspace, functools.partial(blocks.each, **told))
                )
        update = stage(cli.APART)
        each = functools.partial(blocks.each, map=map, progress=lambda n, total: update(n, passes * total))
        fit = functools.partial(utils.complex_nmf_blocks, recording.Y, piano.H, phase_init=start, each=each)
        if passes == 2:
            for part in fit(n_iter, sparsity=args.sparsity, with_phase=False):
                error, cost = part.error, part.cost
            del part  # a block of F
            n_iter, _ = utils.stopping_iteration(cost, utils.normalised(error, energy), *stops)
        parts = fit(n_iter, sparsity=args.sparsity, with_phase=args.phase or cli.sounds_wanted(args))
        with results.output_folder(workspace) as folder:
            U, error, cost, writer = write_parts(folder, parts, recording, piano, wanted, listed, args)
            stage(cli.WRITING)
            if listed is None and piano.columns:
                listed = notes.find_notes(U, piano)
            if cli.sounds_wanted(args):
                kept = separate.wanted_notes(U, piano, listed, args.stems, args.top_db)
                listed = writer.finish(kept, listed, told=bool(args.stems))
            basis.save(folder / "basis_calc.npy", basis.Basis(piano.H) if strength is None else piano)
            results.save_arrays(folder, activation_calc=U, cost=cost)
            error = utils.normalised(error, energy)
            _, reason = utils.stopping_iteration(cost, error, *stops)
            utils.plot_learning_curve(folder / "learning_curve_CNMF.png", utils.normalised(cost, energy), reason)
            figures.plot_activation(folder / "activation.png", U, piano, listed or (), alignment)
            if args.notes or recording.y is not None:
                if listed is not None:
                    notes.write_notes(folder, listed, recording)
                F = utils.load_spectrogram(folder / "reconst.npy").Y
                model = functools.partial(blocks.read_frames, F)
                figures.plot_spectrogram(folder / "spectrogram.png", recording.Y, model, piano)
            if args.listen:
                again = cli.command_again(args)
                listen.write_page_of(folder, U, piano, listed, writer, span=args.listen_range, command=again)
            ending = {"iterations": len(cost), "stopped_by": reason, "normalised_error": float(error[-1])}
            start = args.phase_init if cli.sounds_wanted(args) else None  # otherwise the command tells
            cli.write_record(folder, recording, piano, args, adapted_with=strength, phase_init=start, **ending)
    cli.say_how_it_ended(out_dir, args, strength=strength, **ending)


def write_parts(folder, parts, recording, piano, wanted, listed, args):
    """Write reconst.npy, phase_calc.npy and the sound of the wanted notes, as their blocks come.

    Returns U, the error and the cost after each iteration, and the writer of the stems, or None.
    """
    Y, dtype = recording.Y, recording.Y.dtype
    U = np.empty((piano.H.shape[1], Y.shape[1]), dtype.type().real.dtype)
    writer = None
    with ExitStack() as files:
        write_F = files.enter_context(utils.frame_writer(folder / "reconst.npy", Y.shape, dtype))
        if args.phase:
            write_P = files.enter_context(utils.frame_writer(folder / "phase_calc.npy", (len(U), *Y.shape), dtype))
        if cli.sounds_wanted(args):
            writer = files.enter_context(cli.stem_writer(folder, recording, piano, wanted, listed, args))
        for part in parts:
            U[:, part.frames] = part.U
            write_F(part.F)
            if args.phase:
                write_P(part.P[part.row])
            if writer:
                mixture = blocks.read_frames(Y.Y, part.frames)
                writer.write(separate.component_notes(mixture, piano, part, wanted))
            error, cost = part.error, part.cost
            del part  # or its phases would be kept while the next ones are worked out
    return U, error, cost, writer


if __name__ == "__main__":
    sys.exit(cli.run(main))
