"""Decompose a complex spectrogram, or a sound, with a basis that is held fixed, by Kameoka's complex NMF.

    python CNMF.py spec.npy 200 fixed_basis.npy -thr 1e-4
    python CNMF.py song.flac 200 fixed_basis.npy --phase-init sinusoidal --adapt auto --no-phase --stems -o song

Writes basis_calc.npy (K, L), activation_calc.npy (L, M), phase_calc.npy (L, K, M), reconst.npy (K, M),
cost.npy (one value an iteration), learning_curve_CNMF.png, activation.png and run.json; for a sound notes.csv,
notes.mid and spectrogram.png as well.
"""

import signal
import sys
from collections import deque
from contextlib import ExitStack
from functools import partial

if __name__ == "__main__" and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends the imports without a traceback; then cli.run has it

import numpy as np

import utils
from piano import basis, cli, figures, outputs, phase, recording, results, stems


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
        templates = utils.load_basis(args.basis)
        info = basis.load_basis_info(args.basis, templates.shape)
        params = basis.transform(info, args.sr, len(templates))
        if args.phase_init == "sinusoidal":
            rotation = phase.load_rotation(args.basis, templates.shape)
        results.check_options(args, params)
    except utils.InputError as error:
        parser.error(str(error))
    if args.phase_init != "mixture" and not args.quiet and not args.dask:
        cli.announce_compilation()

    def decompose(path, out_dir, map):
        with outputs.reserved_folder(out_dir) as workspace:
            Y, y = recording.open_spectrogram(path, params, workspace)
            utils.check_complex(Y, path)
            utils.check_bins(Y, templates, path, args.basis)
            n_tensors = 1 if args.no_phase else 1 + templates.shape[1]
            outputs.check_space(out_dir, n_tensors * Y.size * Y.itemsize, "--no-phase leaves out the largest file")
            H, strength = results.adapted_basis(Y, templates, args, map)
            columns = stems.note_columns(H, info)
            if args.phase_init == "sinusoidal":
                decomposition = partial(phase.sinusoidal_blocks, Y, H, rotation, columns, strength=strength)
            else:
                decomposition = partial(utils.complex_nmf_blocks, Y, H, phase_init=args.phase_init)
            blocks = decomposition(
                n_iter=args.n_iter,
                sparsity=args.sparsity,
                seed=args.seed,
                thr=args.thr,
                tol=args.tol,
                with_phase=not args.no_phase or (args.stems and args.phase_init != "sinusoidal"),
                progress=cli.progress_bar("frame", args.quiet),
                map=map,
            )
            with outputs.output_folder(workspace) as folder:
                U = np.empty((H.shape[1], Y.shape[1]), Y.real.dtype.newbyteorder("="))
                last = deque(maxlen=1)
                blocks = write_components(folder, blocks, U, last, Y, with_phase=not args.no_phase)
                if args.stems:
                    if args.phase_init == "sinusoidal":
                        parts = (X for *_, X in blocks)
                    else:
                        parts = stems.component_notes(Y, H, blocks, columns)

                    def sounding():
                        return stems.sounding_notes(U, columns, args.top_db)

                    results.write_stems(folder, path, Y, y, list(columns), parts, sounding, params, args, workspace)
                deque(blocks, maxlen=0)  # what is left of them: all, where no stems asked for any
                error, cost = last.pop()
                for name, array in {"basis_calc": H, "activation_calc": U, "cost": cost}.items():
                    np.save(folder / f"{name}.npy", array)
                energy = utils.energy(Y)
                error = utils.normalised(error, energy)
                _, reason = utils.stopping_iteration(cost, error, args.thr, args.tol)
                utils.plot_learning_curve(folder / "learning_curve_CNMF.png", utils.normalised(cost, energy), reason)
                figures.plot_activation(folder / "activation.png", U, info)
                if args.notes or y is not None:
                    F = utils.load_spectrogram(folder / "reconst.npy")
                    results.write_notes(folder, Y, U, lambda frames: utils.read_frames(F, frames), info)
                results.write_record(folder, path, params, args, cost, reason, error, strength)
        cli.report(f"{len(cost)} iterations, stopped by the {reason}; normalised error {error[-1]:.4g}", args.quiet)
        if args.show:
            figures.show(out_dir / name for name in ("learning_curve_CNMF.png", "activation.png"))

    cli.for_each_input(parser, args, decompose)


def write_components(folder, blocks, U, last, Y, *, with_phase):
    """Pass blocks on, while reconst.npy and phase_calc.npy are written, U is filled, and the curves go to ``last``."""
    dtype = Y.dtype.newbyteorder("=")
    with ExitStack() as files:
        write_F = files.enter_context(utils.frame_writer(folder / "reconst.npy", Y.shape, dtype))
        if with_phase:
            shape = (len(U), *Y.shape)
            write_P = files.enter_context(utils.frame_writer(folder / "phase_calc.npy", shape, dtype))
        for block in blocks:
            frames, U_block, P, F, error, cost, *_ = block
            U[:, frames] = U_block
            last.append((error, cost))
            write_F(F)
            if with_phase:
                write_P(P)
            yield block


if __name__ == "__main__":
    sys.exit(cli.run(main))
