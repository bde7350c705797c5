"""Decompose a magnitude spectrogram, or a sound, with a basis that is held fixed, by multiplicative updates.

    python NMF.py spec.npy 200 fixed_basis.npy
    python NMF.py song.mp3 200 fixed_basis.npy --loss kullback-leibler --stems -o song

Writes basis_calc.npy (K, L), activation_calc.npy (L, M), cost.npy (one value an iteration),
learning_curve_NMF.png, activation.png and run.json; for a sound notes.csv, notes.mid and spectrogram.png as well.
"""

import signal
import sys

if __name__ == "__main__" and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends the imports without a traceback; then cli.run has it

import numpy as np

import utils
from piano import basis, cli, figures, outputs, recording, results, stems


def main(argv=None):
    parser = cli.parser(__doc__, __file__)
    cli.add_decomposition(parser)
    parser.add_argument(
        "--loss",
        choices=("frobenius", "kullback-leibler", "itakura-saito"),
        default="frobenius",
        help="divergence that is minimised (default: %(default)s)",
    )
    parser.add_argument(
        "--mask",
        choices=("wiener", "ratio"),
        default="wiener",
        help="a stem's share of the sound: of squared magnitudes or of magnitudes (default: %(default)s)",
    )
    args = cli.parse(parser, argv)
    try:
        templates = utils.load_basis(args.basis)
        info = basis.load_basis_info(args.basis, templates.shape)
        params = basis.transform(info, args.sr, len(templates))
        results.check_options(args, params)
    except utils.InputError as error:
        parser.error(str(error))

    def decompose(path, out_dir, map):
        with outputs.reserved_folder(out_dir) as workspace:
            Y, y = recording.open_spectrogram(path, params, workspace)
            utils.check_bins(Y, templates, path, args.basis)
            if args.stems:
                utils.check_complex(Y, path)
            H, strength = results.adapted_basis(Y, templates, args, map)
            progress = cli.progress_bar("frame", args.quiet)
            U, cost = utils.nmf(
                Y,
                H,
                args.n_iter,
                loss=args.loss,
                seed=args.seed,
                thr=args.thr,
                tol=args.tol,
                progress=progress,
                map=map,
            )
            error = utils.normalised(cost, utils.cost_scale(Y, args.loss))
            _, reason = utils.stopping_iteration(cost, error, args.thr, args.tol)
            with outputs.output_folder(workspace) as folder:
                for name, array in {"basis_calc": H, "activation_calc": U, "cost": cost}.items():
                    np.save(folder / f"{name}.npy", array)
                utils.plot_learning_curve(folder / "learning_curve_NMF.png", error, reason)
                figures.plot_activation(folder / "activation.png", U, info)
                if args.notes or y is not None:
                    results.write_notes(folder, Y, U, lambda frames: H @ U[:, frames], info)
                if args.stems:
                    columns = stems.note_columns(H, info)
                    files = stems.sounding_notes(U, columns, args.top_db)
                    blocks = stems.masked_notes(Y, H, U, columns, files, mask=args.mask)
                    results.write_stems(folder, path, Y, y, files, blocks, lambda: files, params, args, workspace)
                results.write_record(folder, path, params, args, cost, reason, error, strength)
        cli.report(f"{len(cost)} iterations, stopped by the {reason}; normalised error {error[-1]:.4g}", args.quiet)
        if args.show:
            figures.show(out_dir / name for name in ("learning_curve_NMF.png", "activation.png"))

    cli.for_each_input(parser, args, decompose)


if __name__ == "__main__":
    sys.exit(cli.run(main))
