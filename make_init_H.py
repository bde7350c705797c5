"""Learn a basis, one spectrum per piano note, from a folder of single-note recordings.

    python make_init_H.py basis_wav_piano
    python make_init_H.py my_templates --states 3 -o results

Each note starts from a harmonic Gaussian mixture at its fundamental frequency and is then fitted to its
recording by NMF. The fundamental is that of the note name or MIDI number in the file's name (036_C2.wav,
C#4.flac, piano-60.wav), otherwise it is measured. Columns are ordered by pitch.

Writes fixed_basis.npy (K, L), fixed_basis_rotation.npy (K, L), fixed_basis_patterns.npy, fixed_basis.json,
fixed_basis_spectrogram.png and run.json.
"""

import argparse
import signal
import sys
from pathlib import Path

if __name__ == "__main__" and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends the imports without a traceback; then cli.run has it

from tqdm import tqdm

import utils
from piano import basis, cli, figures, learn, pitch, recording, results

LOWEST_SR = 1000  # Hz; below it few notes can be measured
OUTPUTS = [*basis.names("fixed_basis.npy"), "fixed_basis_spectrogram.png", results.RECORD]
LARGEST_N_FFT = 2**20  # samples, 48 s at 22 050 Hz


def parse_args(parser, argv):
    number, count = cli.number(float, above=0), cli.number(int, above=0)
    for name, kind, default, text in (
        ("--sr", count, 22050, "sampling rate in Hz; other rates are resampled"),
        ("--n-fft", count, 2048, "STFT length in samples"),
        ("--hop-length", count, None, "samples between frames (default: a quarter of --n-fft)"),
        ("--n-iter", count, 50, "NMF iterations for each note"),
        ("--states", count, 1, "columns for each note, attack to decay"),
        ("--c3", number, utils.C3_HZ, "frequency of C3 in Hz"),
        ("--n-peaks", count, 50, "harmonics of the initial spectrum"),
        ("--damping", number, 0.9, "weight of a harmonic relative to the one below"),
        ("--variance", number, 1.0, "variance of each harmonic's peak in Hz^2"),
    ):
        text = text if default is None else f"{text} (default: %(default)s)"
        parser.add_argument(name, type=kind, default=default, metavar="X", help=text)
    text = (
        "have a column for every key of this range, such as A0 C8: one without a template gets the nearest one's, "
        "transposed (default: the keys that have one)"
    )
    parser.add_argument("--keys", nargs=2, type=key, metavar=("LOW", "HIGH"), help=text)
    parser.add_argument("templates", type=Path, metavar="DIR", help="folder of single-note audio files")
    cli.add_output(parser)
    args = cli.parse(parser, argv)
    if not LOWEST_SR <= args.sr <= basis.HIGHEST_SR:
        parser.error(f"--sr: got {args.sr}, expected {LOWEST_SR} to {basis.HIGHEST_SR} Hz")
    if args.n_fft % 2 or args.n_fft > LARGEST_N_FFT:
        parser.error(f"--n-fft: got {args.n_fft}, expected an even number, at most {LARGEST_N_FFT}")
    args.hop_length = args.hop_length or basis.default_hop(args.n_fft)
    if args.keys and args.keys[0] > args.keys[1]:
        low, high = map(pitch.note_name, args.keys)
        parser.error(f"--keys: got {low} {high}, expected the lower key first: {high} {low}")
    if args.hop_length > args.n_fft:
        parser.error(f"--hop-length: got {args.hop_length}, expected at most --n-fft, {args.n_fft}")
    return args


def key(text):
    """An argparse type for keys of the piano: a note name or a MIDI number."""
    midi = int(text) if text.isdecimal() else pitch.midi_of_name(text)
    if midi not in pitch.PIANO:
        raise argparse.ArgumentTypeError(f"got {text!r}, expected a key from A0 to C8")
    return midi


def main(argv=None):
    parser = cli.parser(__doc__, __file__)
    args = parse_args(parser, argv)
    try:
        if not args.templates.is_dir():
            raise utils.InputError(f"{args.templates}: no such folder, expected a folder of single-note audio files")
        files = recording.audio_files(args.templates)
        if not files:
            raise utils.InputError(f"{args.templates}: got no audio files, expected one for each note")
        reserved = {"script": args.script, "inputs": files, "overwrite": args.overwrite}
        with results.reserved_folder(args.out_dir, OUTPUTS, **reserved) as (_, folder):
            templates = learn.find_templates(files, args.sr, args.c3, args.keys)
            bar = tqdm(templates, desc="Templates", unit="note", disable=args.quiet or None, delay=2)
            names = "sr", "n_fft", "n_iter", "states", "n_peaks", "damping", "variance"
            options = {name: getattr(args, name) for name in names}
            learnt_basis, error = learn.learn_basis(bar, hop=args.hop_length, **options)
            basis.save(folder / "fixed_basis.npy", learnt_basis)
            figures.plot_basis(folder / "fixed_basis_spectrogram.png", learnt_basis)
            error = [round(error, 6) for error in error]  # of each note, in order of pitch
            ending = {"iterations": args.n_iter, "stopped_by": "number of iterations", "normalised_error": error}
            results.write_record(folder, args.script, args.command, files, seed=None, stft=learnt_basis.stft, **ending)
    except utils.InputError as error:
        parser.error(str(error))
    names, n_columns = [pitch.note_name(midi) for midi in learnt_basis.notes], len(learnt_basis.columns)
    filled = len({column["note"] for column in learnt_basis.columns if "transposed" in column})
    transposed = f", {filled} of them transposed from the nearest" if filled else ""
    cli.log.info(f"{len(names)} notes, {names[0]} to {names[-1]}, {n_columns} columns{transposed}")
    cli.say_where(args.out_dir, "fixed_basis_spectrogram.png")


if __name__ == "__main__":
    sys.exit(cli.run(main))
