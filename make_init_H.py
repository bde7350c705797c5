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
import functools
import signal
import sys
from pathlib import Path
from typing import NamedTuple

if __name__ == "__main__" and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends the imports without a traceback; then cli.run has it

import numpy as np
from tqdm import tqdm

import utils
from piano import basis, cli, events, figures, outputs, phase, pitch, recording

LOWEST_SR = 1000  # Hz; below it few notes can be measured
OUTPUTS = [
    *("fixed_basis.npy", "fixed_basis.json", "fixed_basis_rotation.npy", "fixed_basis_patterns.npy"),
    "fixed_basis_spectrogram.png",
    outputs.RECORD,
]
LARGEST_N_FFT = 2**20  # samples, 48 s at 22 050 Hz


def parse_args(parser, argv):
    number, count = cli.positive(float), cli.positive(int)
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
    parser.add_argument(
        "--keys",
        nargs=2,
        type=key,
        metavar=("LOW", "HIGH"),
        help="have a column for every key of this range, such as A0 C8: one without a template gets the nearest one's, "
        "transposed (default: the keys that have one)",
    )
    parser.add_argument("templates", type=Path, metavar="DIR", help="folder of single-note audio files")
    cli.add_output(parser)
    args = cli.parse(parser, argv)
    if not LOWEST_SR <= args.sr <= basis.HIGHEST_SR:
        parser.error(f"--sr: got {args.sr}, expected {LOWEST_SR} to {basis.HIGHEST_SR} Hz")
    if args.n_fft % 2 or args.n_fft > LARGEST_N_FFT:
        parser.error(f"--n-fft: got {args.n_fft}, expected an even number, at most {LARGEST_N_FFT}")
    args.hop_length = args.hop_length or basis.default_hop(args.n_fft)
    if args.hop_length > args.n_fft:
        parser.error(f"--hop-length: got {args.hop_length}, expected at most --n-fft, {args.n_fft}")
    return args


def key(text):
    """An argparse type for keys of the piano: a note name or a MIDI number."""
    midi = int(text) if text.isdecimal() else pitch.midi_of_name(text)
    if midi not in pitch.PIANO:
        raise argparse.ArgumentTypeError(f"got {text!r}, expected a key from A0 to C8")
    return midi


class Template(NamedTuple):
    """The recording of one note, and the key that it stands for."""

    path: Path
    midi: int
    f0: float  # Hz
    transposed: int = 0  # semitones up from its own key, where that is another one


def main(argv=None):
    parser = cli.parser(__doc__, __file__)
    args = parse_args(parser, argv)
    try:
        if not args.templates.is_dir():
            raise utils.InputError(f"{args.templates}: no such folder, expected a folder of single-note audio files")
        files = recording.audio_files(args.templates)
        if not files:
            raise utils.InputError(f"{args.templates}: got no audio files, expected one for each note")
        with outputs.reserved_folder(
            args.out_dir, OUTPUTS, script=args.script, inputs=files, overwrite=args.overwrite
        ) as workspace:
            templates = find_templates(files, args)
            bar = tqdm(templates, "Templates", unit="note", disable=args.quiet or None, delay=2)
            learnt = [learn_note(template, args) for template in bar]
            columns, spectra, rotations, patterns, error = zip(*learnt, strict=True)
            learnt_basis = basis.Basis(
                np.column_stack(spectra).astype(np.float32),
                args.sr,
                args.n_fft,
                args.hop_length,
                [column for column in columns for _ in range(args.states)],
                np.column_stack(rotations).repeat(args.states, axis=1),
                np.stack(patterns),
            )
            with outputs.output_folder(workspace) as folder:
                basis.save(folder, learnt_basis)
                figures.plot_basis(folder / "fixed_basis_spectrogram.png", learnt_basis)
                error = [round(error, 6) for error in error]  # of each note, in order of pitch
                ending = {"iterations": args.n_iter, "stopped_by": "number of iterations", "normalised_error": error}
                outputs.write_record(
                    folder, args.script, args.command, files, seed=None, stft=learnt_basis.stft, **ending
                )
    except utils.InputError as error:
        parser.error(str(error))
    names, n_columns = list(dict.fromkeys(column["note"] for column in columns)), len(learnt_basis.columns)
    filled = sum("transposed" in column for column in columns)
    transposed = f", {filled} of them transposed from the nearest" if filled else ""
    cli.report(f"{len(names)} notes, {names[0]} to {names[-1]}, {n_columns} columns{transposed}", args.quiet)
    cli.say_where(args.out_dir, "fixed_basis_spectrogram.png", args.quiet)
    if args.show:
        figures.show([args.out_dir / "fixed_basis_spectrogram.png"])


def find_templates(files, args):
    """A template for each file, and with ``--keys`` for each key that has none, in order of pitch."""
    load = functools.partial(recording.load, sr=args.sr)
    notes = pitch.notes_of_folder(files, load, args.sr, args.c3)
    templates = [Template(path, *note) for path, note in zip(files, notes, strict=True)]
    if args.keys:
        low, high = args.keys
        own = sorted(templates, key=lambda template: template.midi)
        templates = [template for template in templates if low <= template.midi <= high]
        for midi in sorted(set(range(low, high + 1)) - {template.midi for template in own}):
            near = min(own, key=lambda template: abs(template.midi - midi))
            shift = midi - near.midi
            templates.append(Template(near.path, midi, near.f0 * 2 ** (shift / 12), shift))
    return sorted(templates, key=lambda template: template.f0)


def learn_note(template, args):
    """Description of the note in a template, its spectra [shape=(K, states)], rotation, pattern, and the error left."""
    path, midi, f0, shift = template
    y = recording.transpose(recording.load(path, args.sr), args.sr, shift)
    if not y.any():
        raise utils.InputError(f"{path}: got silence, expected one note")
    Y = recording.stft(y, n_fft=args.n_fft, hop=args.hop_length)
    try:
        start = utils.harmonic_gmm(
            f0, sr=args.sr, n_fft=args.n_fft, n_peaks=args.n_peaks, damping=args.damping, variance=args.variance
        )
    except utils.InputError as error:
        raise utils.InputError(f"{path}: {error}") from None
    spectra = utils.learn_spectra(np.abs(Y), np.repeat(start[:, None], args.states, axis=1), args.n_iter)
    utils.check_basis(spectra, path)
    error = utils.nmf(Y, spectra, args.n_iter)[1][-1] / utils.cost_scale(Y)
    column = {"file": path.name, "note": pitch.note_name(midi), "f0": round(f0, 3)}
    if shift:
        column["transposed"] = shift
    sound = recording.transpose(recording.load(path, events.SR), events.SR, shift)
    pattern = events.learn_pattern(sound).astype(np.float16)
    return column, spectra, phase.measure_rotation(Y), pattern, error


if __name__ == "__main__":
    sys.exit(cli.run(main))
