"""Decompose a complex spectrogram, or a sound, with a basis that is held fixed, by Kameoka's complex NMF.

    python CNMF.py spec.npy 200 fixed_basis.npy -thr 1e-4
    python CNMF.py song.flac 200 fixed_basis.npy --phase-init sinusoidal --adapt auto --no-phase --stems -o song

Writes basis_calc.npy (K, L), activation_calc.npy (L, M), phase_calc.npy (L, K, M), reconst.npy (K, M),
cost.npy (one value an iteration), learning_curve_CNMF.png, activation.png and run.json; for a sound notes.csv,
notes.mid and spectrogram.png as well.
"""

import functools
import signal
import sys
from contextlib import ExitStack

if __name__ == "__main__" and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends the imports without a traceback; then cli.run has it

import numpy as np

import utils
from piano import basis, cli, figures, notes, outputs, phase, stems
from piano.recording import open_recording


def parse_args(parser, argv):
    cli.add_decomposition(parser)
    parser.add_argument(
        "--phase-init",
        choices=("mixture", "random", "sinusoidal"),
        default="mixture",
        help="start of the phases: the mixture's, where they stay; uniformly random; or those of notes that are "
        "smoothed through time, which are held (default: %(default)s)",
    )
    parser.add_argument(
        "--sparsity",
        type=cli.not_negative,
        default=1e-5,
        metavar="S",
        help="weight of the sparsity penalty, free of gain and length (default: %(default)s)",
    )
    parser.add_argument("--no-phase", action="store_true", help="do not write phase_calc.npy, L x K x M numbers")
    return cli.parse(parser, argv)


def main(argv=None):
    parser = cli.parser(__doc__, __file__)
    args = parse_args(parser, argv)
    try:
        templates = basis.load(args.basis, args.sr, with_rotation=args.phase_init == "sinusoidal")
        cli.check_stems(args, templates)
    except utils.InputError as error:
        parser.error(str(error))
    if args.phase_init != "mixture" and not args.quiet and not args.dask:
        cli.announce_compilation()
    cli.for_each_input(parser, args, functools.partial(decompose, templates=templates, args=args))


def decompose(path, out_dir, *, templates, args, map):
    """Take one recording apart, and write the results into ``out_dir``."""
    own = ["learning_curve_CNMF.png", "reconst.npy", *([] if args.no_phase else ["phase_calc.npy"])]
    with cli.reserved_folder(out_dir, path, templates, args, own) as workspace:
        recording = open_recording(path, templates, workspace)
        utils.check_complex(recording.Y, path)
        n_tensors = 1 if args.no_phase else 1 + templates.H.shape[1]
        n_bytes = n_tensors * recording.Y.size * recording.Y.itemsize
        outputs.check_space(out_dir, n_bytes, "--no-phase leaves out the largest file")
        piano, strength = cli.adapted_basis(recording, templates, args, map)
        blocks = component_blocks(recording.Y, piano, strength, args, map)
        with outputs.output_folder(workspace) as folder:
            U, error, cost, writer = write_components(folder, blocks, recording, piano, args)
            outputs.save_arrays(folder, basis_calc=piano.H, activation_calc=U, cost=cost)
            energy = utils.energy(recording.Y)
            error = utils.normalised(error, energy)
            _, reason = utils.stopping_iteration(cost, error, args.thr, args.tol)
            utils.plot_learning_curve(folder / "learning_curve_CNMF.png", utils.normalised(cost, energy), reason)
            figures.plot_activation(folder / "activation.png", U, piano)
            if args.notes or recording.y is not None:
                notes.write_notes(folder, U, piano)
                F = utils.load_spectrogram(folder / "reconst.npy")
                model = functools.partial(utils.read_frames, F)
                figures.plot_spectrogram(folder / "spectrogram.png", recording.Y, model, piano)
            if args.stems:
                cli.finish_stems(writer, piano, stems.sounding_notes(U, piano, args.top_db), args)
            ending = {"iterations": len(cost), "stopped_by": reason, "normalised_error": float(error[-1])}
            cli.write_record(folder, recording, piano, args, adapted_with=strength, **ending)
    cli.report(f"{len(cost)} iterations, stopped by the {reason}; normalised error {error[-1]:.4g}", args.quiet)
    if args.show:
        figures.show(out_dir / name for name in ("learning_curve_CNMF.png", "activation.png"))


def component_blocks(Y, piano, strength, args, map):
    """Yield ``frames, U, F, error, cost, P, X`` for each block. P, and X, the notes, may be None if not wanted."""
    options = {"sparsity": args.sparsity, "seed": args.seed, "thr": args.thr, "tol": args.tol, "map": map}
    options["progress"] = cli.progress_bar("frame", args.quiet)
    if args.phase_init == "sinusoidal":
        for *model, X in phase.sinusoidal_blocks(Y, piano, args.n_iter, strength=strength, **options):
            yield *model, None if args.no_phase else phase.phases(X, piano, Y.dtype), X
        return
    options |= {"phase_init": args.phase_init, "with_phase": not args.no_phase or args.stems}
    for frames, U, P, F, error, cost in utils.complex_nmf_blocks(Y, piano.H, args.n_iter, **options):
        X = stems.component_notes(utils.read_frames(Y, frames), piano, U, P, F) if args.stems else None
        yield frames, U, F, error, cost, P, X


def write_components(folder, blocks, recording, piano, args):
    """Write reconst.npy, phase_calc.npy and the sound of all notes, block by block.

    Returns U, the error and the cost after each iteration, and the writer of the stems, or None.
    """
    Y, dtype = recording.Y, recording.Y.dtype.newbyteorder("=")
    U = np.empty((piano.H.shape[1], Y.shape[1]), dtype.type().real.dtype)
    writer = None
    with ExitStack() as files:
        write_F = files.enter_context(utils.frame_writer(folder / "reconst.npy", Y.shape, dtype))
        if not args.no_phase:
            write_P = files.enter_context(utils.frame_writer(folder / "phase_calc.npy", (len(U), *Y.shape), dtype))
        if args.stems:
            writer = files.enter_context(cli.stem_writer(folder, recording, piano, piano.notes, args))
        for block in blocks:
            frames, U_block, F, error, cost, P, X = block
            U[:, frames] = U_block
            write_F(F)
            if not args.no_phase:
                write_P(P)
            if args.stems:
                writer.write(X)
    return U, error, cost, writer


if __name__ == "__main__":
    sys.exit(cli.run(main))
