"""Decompose a magnitude spectrogram with a basis that is held fixed, by multiplicative updates.

    python NMF.py spec.npy 200 fixed_basis.npy
    python NMF.py spec.npy 200 fixed_basis.npy -thr 1e-3 -o results

Writes basis_calc.npy (K, L), activation_calc.npy (L, M), cost.npy (one value an iteration),
learning_curve_NMF.png and activation.png.
"""

import sys

import numpy as np

import figures
import notes
import options
import utils


def main(argv=None):
    parser = options.parser(__doc__)
    options.add_decomposition(parser)
    args = parser.parse_args(argv)
    try:
        Y, H = utils.load_spectrogram(args.spectrogram), utils.load_basis(args.basis)
        utils.check_bins(Y, H, args.spectrogram, args.basis)
        info = notes.load_basis_info(args.basis, H.shape)
        progress = options.progress_bar("frame", args.quiet)
        U, cost = utils.nmf(Y, H, args.n_iter, seed=args.seed, thr=args.thr, tol=args.tol, progress=progress)
        error = utils.normalised(cost, utils.energy(Y) / 2)
        _, reason = utils.stopping_iteration(cost, error, args.thr, args.tol)
        with utils.output_folder(args.out_dir) as folder:
            for name, array in {"basis_calc": H, "activation_calc": U, "cost": cost}.items():
                np.save(folder / f"{name}.npy", array)
            utils.plot_learning_curve(folder / "learning_curve_NMF.png", error, reason)
            figures.plot_activation(folder / "activation.png", U, info)
    except utils.InputError as error:
        parser.error(str(error))
    options.report(f"{len(cost)} iterations, stopped by the {reason}; normalised error {error[-1]:.4g}", args.quiet)
    if args.show:
        figures.show(args.out_dir / name for name in ("learning_curve_NMF.png", "activation.png"))


if __name__ == "__main__":
    sys.exit(options.run(main))
