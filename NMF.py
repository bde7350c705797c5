"""Take a recording of a piano apart into its notes: NMF of its magnitudes, with a basis that is held fixed.

    python NMF.py spec.npy 200 fixed_basis.npy
    python NMF.py song.mp3 --loss kullback-leibler --stems -o song

Writes basis_calc.npy (K, L), activation_calc.npy (L, M), cost.npy (one value an iteration),
learning_curve_NMF.png, activation.png and run.json; for a sound notes.csv, notes.mid,
notes.wav and spectrogram.png as well; with --stems and --listen stems/ and listen.html.
"""

import functools
import signal
import sys

if __name__ == "__main__" and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends the imports without a traceback; then cli.run has it

import utils
from piano import adapt, basis, blocks, cli, figures, listen, notes, results, scores, separate
from piano.recording import open_recording


def main(argv=None):
    parser = cli.parser(__doc__, __file__)
    _, compute = cli.add_decomposition(parser)
    compute.add_argument(
        "--loss",
        choices=("frobenius", "kullback-leibler", "itakura-saito"),
        default="frobenius",
        help="divergence that is minimised (default: %(default)s)",
    )
    compute.add_argument(
        "--solver",
        choices=("mu", "cd"),
        help="multiplicative updates, or coordinate descent, which needs far fewer iterations and is not for "
        "itakura-saito (default: mu; with --stems or --listen: cd where it can be)",
    )
    compute.add_argument(
        "--mask",
        choices=("wiener", "ratio"),
        default="wiener",
        help="a stem's share of the sound: of squared magnitudes or of magnitudes (default: %(default)s)",
    )
    args = cli.parse_decomposition(parser, argv)
    if args.solver == "cd" and args.loss == "itakura-saito":
        parser.error("--solver: got cd with --loss itakura-saito, expected mu")
    if args.solver is None:
        args.solver = "cd" if cli.sounds_wanted(args) and args.loss != "itakura-saito" else "mu"
    try:
        cli.find_inputs(args)
        templates = basis.load(args.basis, args.sr)
        cli.check_stems(args, templates)
    except utils.InputError as error:
        parser.error(str(error))
    cli.for_each_input(parser, args, functools.partial(decompose, templates=templates, args=args))


def decompose(path, out_dir, *, templates, args, map):
    """Take one recording apart, and write the results into ``out_dir``."""
    with (
        cli.reserved_folder(out_dir, path, templates, args, ["learning_curve_NMF.png"]) as workspace,
        cli.stages(path, templates, args) as stage,
    ):
        stage(cli.READING)
        recording = open_recording(path, templates, workspace)
        if cli.sounds_wanted(args):
            utils.check_complex(recording.Y, path)
        L = templates.H.shape[1]
        cli.check_length(out_dir, recording, (), L, args)
        listed, alignment = scores.listed_notes(recording, templates, args.score, progress=stage(cli.LISTING), map=map)
        cli.check_length(out_dir, recording, separate.possible_notes(templates, listed, args.stems), L, args)
        piano, strength, prior = adapt.adapt_basis(
            recording.Y, templates, args.adapt, listed, seed=args.seed, progress=stage(cli.ADAPTING)
        )
        if args.loss != "kullback-leibler":  # the prior is known for that loss alone
            prior = None
        each = functools.partial(blocks.each, map=map, progress=stage(cli.APART))
        options = {"loss": args.loss, "solver": args.solver, "seed": args.seed, "prior": prior, "each": each}
        scale = utils.cost_scale(recording.Y, args.loss)
        U, cost = utils.nmf(recording.Y, piano.H, args.n_iter, **options)
        n_done, reason = utils.stopping_iteration(cost, utils.normalised(cost, scale), args.thr, args.tol)
        if n_done < args.n_iter:  # what stops a run looks at the whole file, and no block knows that
            U, cost = utils.nmf(recording.Y, piano.H, n_done, **options)
        error = utils.normalised(cost, scale)
        stage(cli.WRITING)
        struck = listed
        if listed is None and piano.columns:
            listed = notes.find_notes(U, piano)
        with results.output_folder(workspace) as folder:
            if cli.sounds_wanted(args):
                wanted = separate.wanted_notes(U, piano, listed, args.stems, args.top_db)
                with cli.stem_writer(folder, recording, piano, wanted, struck, args) as writer:
                    for spectra in separate.masked_notes(recording.Y, piano, U, wanted, mask=args.mask):
                        writer.write(spectra)
                listed = writer.finish(wanted, listed, told=bool(args.stems))
            basis.save(folder / "basis_calc.npy", basis.Basis(piano.H) if strength is None else piano)
            results.save_arrays(folder, activation_calc=U, cost=cost)
            utils.plot_learning_curve(folder / "learning_curve_NMF.png", error, reason)
            figures.plot_activation(folder / "activation.png", U, piano, listed or (), alignment)
            if args.notes or recording.y is not None:
                if listed is not None:
                    notes.write_notes(folder, listed, recording)
                figures.plot_spectrogram(
                    folder / "spectrogram.png", recording.Y, lambda frames: piano.H @ U[:, frames], piano
                )
            if args.listen:
                again = cli.command_again(args)
                listen.write_page_of(folder, U, piano, listed, writer, span=args.listen_range, command=again)
            ending = {"iterations": len(cost), "stopped_by": reason, "normalised_error": float(error[-1])}
            cli.write_record(folder, recording, piano, args, adapted_with=strength, **ending)
    cli.say_how_it_ended(out_dir, args, strength=strength, **ending)


if __name__ == "__main__":
    sys.exit(cli.run(main))
