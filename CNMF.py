"""Decompose a complex spectrogram with a basis that is held fixed, by Kameoka's complex NMF.

    python CNMF.py spec.npy 200 fixed_basis.npy -thr 1e-4
    python CNMF.py spec.npy 50 fixed_basis.npy --phase-init random --no-phase -o results

Writes basis_calc.npy (K, L), activation_calc.npy (L, M), phase_calc.npy (L, K, M), reconst.npy (K, M),
cost.npy (one value an iteration), learning_curve_CNMF.png and activation.png.
"""

import sys
from contextlib import ExitStack

import numpy as np

import figures
import notes
import options
import utils


def parse_args(parser, argv):
    options.add_decomposition(parser)
    parser.add_argument(
        "--phase-init",
        choices=("mixture", "random"),
        default="mixture",
        help="start of the phases: the mixture's, where they stay, or uniformly random (default: %(default)s)",
    )
    parser.add_argument(
        "--sparsity",
        type=options.not_negative,
        default=1e-5,
        metavar="S",
        help="weight of the sparsity penalty, free of gain and length (default: %(default)s)",
    )
    parser.add_argument("--no-phase", action="store_true", help="do not write phase_calc.npy, L x K x M numbers")
    return parser.parse_args(argv)


def main(argv=None):
    parser = options.parser(__doc__)
    args = parse_args(parser, argv)
    try:
        Y, H = utils.load_spectrogram(args.spectrogram), utils.load_basis(args.basis)
        utils.check_complex(Y, args.spectrogram)
        utils.check_bins(Y, H, args.spectrogram, args.basis)
        info = notes.load_basis_info(args.basis, H.shape)
        blocks = utils.complex_nmf_blocks(
            Y,
            H,
            args.n_iter,
            sparsity=args.sparsity,
            phase_init=args.phase_init,
            seed=args.seed,
            thr=args.thr,
            tol=args.tol,
            progress=options.progress_bar("frame", args.quiet),
        )
        n_components = 1 if args.no_phase else 1 + H.shape[1]
        utils.check_space(args.out_dir, n_components * Y.size * Y.itemsize, "--no-phase leaves out the largest file")
        if args.phase_init != "mixture" and not args.quiet:
            options.announce_compilation()
        with utils.output_folder(args.out_dir) as folder:
            U, error, cost = write_components(folder, blocks, Y, H, with_phase=not args.no_phase)
            for name, array in {"basis_calc": H, "activation_calc": U, "cost": cost}.items():
                np.save(folder / f"{name}.npy", array)
            energy = utils.energy(Y)
            error = utils.normalised(error, energy)
            _, reason = utils.stopping_iteration(cost, error, args.thr, args.tol)
            utils.plot_learning_curve(folder / "learning_curve_CNMF.png", utils.normalised(cost, energy), reason)
            figures.plot_activation(folder / "activation.png", U, info)
    except utils.InputError as error:
        parser.error(str(error))
    options.report(f"{len(cost)} iterations, stopped by the {reason}; normalised error {error[-1]:.4g}", args.quiet)
    if args.show:
        figures.show(args.out_dir / name for name in ("learning_curve_CNMF.png", "activation.png"))


def write_components(folder, blocks, Y, H, *, with_phase):
    """Write reconst.npy and phase_calc.npy block by block; return U and the curves of the whole file."""
    dtype = Y.dtype.newbyteorder("=")
    U_blocks = []
    with ExitStack() as files:
        write_F = files.enter_context(utils.frame_writer(folder / "reconst.npy", Y.shape, dtype))
        if with_phase:
            shape = (H.shape[1], *Y.shape)
            write_P = files.enter_context(utils.frame_writer(folder / "phase_calc.npy", shape, dtype))
        for _, U, P, F, error, cost in blocks:
            curves = error, cost  # the last block's are the whole file's
            U_blocks.append(U)
            write_F(F)
            if with_phase:
                write_P(P)
    return np.concatenate(U_blocks, axis=1), *curves


if __name__ == "__main__":
    sys.exit(options.run(main))
