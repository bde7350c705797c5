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
from piano import adapt, blocks, cli, notes, output, scores, separate


def parse_args(parser, argv):
    _, compute = cli.add_decomposition(parser)
    losses = "frobenius", "kullback-leibler", "itakura-saito"
    text = "divergence that is minimised (default: %(default)s)"
    compute.add_argument("--loss", choices=losses, default="frobenius", help=text)
    text = (
        "multiplicative updates, or coordinate descent, which needs far fewer iterations and is not for itakura-saito "
        "(default: mu; with --stems or --listen: cd where it can be)"
    )
    compute.add_argument("--solver", choices=("mu", "cd"), help=text)
    text = "a stem's share of the sound: of squared magnitudes or of magnitudes (default: %(default)s)"
    mask = compute.add_argument("--mask", choices=("wiener", "ratio"), default="wiener", help=text)
    cli.needs(mask, "--stems", "--listen")
    args = cli.parse_decomposition(parser, argv)
    if args.solver == "cd" and args.loss == "itakura-saito":
        parser.error("--solver: got cd with --loss itakura-saito, expected mu")
    return args


def defaults(args):
    """What is taken where the user names nothing."""
    descends = (args.stems or args.listen) and args.loss != "itakura-saito"
    return {"solver": "cd" if descends else "mu", "adapt": "none"}


def main(argv=None):
    parser = cli.parser(__doc__, __file__)
    args = parse_args(parser, argv)
    args, templates = cli.prepared(parser, args, defaults(args))
    cli.for_each_input(parser, args, templates, functools.partial(decompose, args=args))


def decompose(path, out_dir, *, templates, args, map):
    """Take one recording apart, and write the results into ``out_dir``."""
    with cli.opened(path, out_dir, templates, args) as (out, stage):
        sound, Y = out.recording, out.recording.Y
        options = {"learn": not args.same_piano, "progress": stage("listing"), "map": map}
        listed, alignment, templates = scores.listed_notes(sound, templates, args.score, **options)
        out.check(templates, separate.possible_notes(templates, listed, args.stems))
        options = {"seed": args.seed, "progress": stage("adapting")}
        piano, strength, prior = adapt.adapt_basis(Y, templates, args.adapt, listed, **options)
        options = {"loss": args.loss, "solver": args.solver, "seed": args.seed}
        options |= {"prior": prior if args.loss == "kullback-leibler" else None}  # it is known for that loss alone
        each = functools.partial(blocks.each, map=map, progress=stage("apart"))
        fit = functools.partial(utils.nmf, Y, piano.H, each=each, **options)
        U, cost = fit(args.n_iter)
        error = utils.normalised(cost, utils.cost_scale(Y, args.loss))
        n_done, _ = utils.stopping_iteration(cost, error, args.thr, args.tol)
        if n_done < args.n_iter:  # what stops a run looks at the whole file, which no block knows
            U, cost = fit(n_done)
            error = error[:n_done]
        stage("writing")
        found = notes.find_notes(U, piano) if listed is None else listed
        wanted = separate.wanted_notes(U, piano, found, args.stems, args.top_db)
        with out.stems(piano, wanted, listed) as stems:
            if stems:
                for of_note in separate.masked_notes(Y, piano, U, mask=args.mask):
                    stems.write(of_note)
        fit = output.Fit(U, cost, error, error, lambda frames: piano.H @ U[:, frames])
        ending = cli.ending(fit, strength, args)
        out.write(piano, fit, found, alignment, stems, ending)
    cli.say_how_it_ended(out_dir, args, ending)


if __name__ == "__main__":
    sys.exit(cli.run(main))
