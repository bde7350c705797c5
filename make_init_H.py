"""Learn a basis, one spectrum per piano note, from a folder of single-note recordings.

    python make_init_H.py basis_wav_piano
    python make_init_H.py my_templates --states 3 -o results

Each note starts from a harmonic Gaussian mixture at its fundamental frequency and is then fitted to its
recording by NMF. The fundamental is that of the note name or MIDI number in the file's name (036_C2.wav,
C#4.flac, piano-60.wav), otherwise it is measured. Columns are ordered by pitch.

Writes fixed_basis.npy (K, L), fixed_basis.json, fixed_basis_spectrogram.png and run.json.
"""

import sys
from pathlib import Path

import numpy as np
from tqdm import tqdm

import utils
from piano import basis, cli, figures, outputs, phase, pitch, recording

LOWEST_SR = 1000  # Hz; below it few notes can be measured
LARGEST_N_FFT = 2**20  # samples, 48 s at 22 050 Hz


def parse_args(parser, argv):
    number, count = cli.positive(float), cli.positive(int)
    for name, kind, default, text in (
        ("--sr", count, 22050, "sampling rate in Hz; other rates are resampled"),
        ("--n-fft", count, 2048, "STFT length in samples"),
        ("--hop-length", count, 512, "samples between frames"),
        ("--n-iter", count, 50, "NMF iterations for each note"),
        ("--states", count, 1, "columns for each note, attack to decay"),
        ("--c3", number, utils.C3_HZ, "frequency of C3 in Hz"),
        ("--n-peaks", count, 50, "harmonics of the initial spectrum"),
        ("--damping", number, 0.9, "weight of a harmonic relative to the one below"),
        ("--variance", number, 1.0, "variance of each harmonic's peak in Hz^2"),
    ):
        parser.add_argument(name, type=kind, default=default, metavar="X", help=f"{text} (default: %(default)s)")
    parser.add_argument("templates", type=Path, metavar="DIR", help="folder of single-note audio files")
    cli.add_output(parser)
    args = cli.parse(parser, argv)
    if not LOWEST_SR <= args.sr <= basis.HIGHEST_SR:
        parser.error(f"--sr: got {args.sr}, expected {LOWEST_SR} to {basis.HIGHEST_SR} Hz")
    if args.n_fft % 2 or args.n_fft > LARGEST_N_FFT:
        parser.error(f"--n-fft: got {args.n_fft}, expected an even number, at most {LARGEST_N_FFT}")
    if args.hop_length > args.n_fft:
        parser.error(f"--hop-length: got {args.hop_length}, expected at most --n-fft, {args.n_fft}")
    return args


def main(argv=None):
    parser = cli.parser(__doc__, __file__)
    args = parse_args(parser, argv)
    try:
        if not args.templates.is_dir():
            raise utils.InputError(f"{args.templates}: no such folder, expected a folder of single-note audio files")
        files = recording.audio_files(args.templates)
        if not files:
            raise utils.InputError(f"{args.templates}: got no audio files, expected one for each note")
        with outputs.reserved_folder(args.out_dir) as workspace:
            bar = tqdm(files, "Templates", unit="note", disable=args.quiet or None, delay=2)
            learnt = sorted((learn_note(path, args) for path in bar), key=lambda note: note[0]["f0"])
            columns, spectra, rotations, error = zip(*learnt, strict=True)
            learnt_basis = basis.Basis(
                np.column_stack(spectra).astype(np.float32),
                args.sr,
                args.n_fft,
                args.hop_length,
                [column for column in columns for _ in range(args.states)],
                np.column_stack(rotations).repeat(args.states, axis=1),
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
    first, last, n_columns = columns[0]["note"], columns[-1]["note"], len(learnt_basis.columns)
    cli.report(f"{len(learnt)} notes, {first} to {last}, {n_columns} columns", args.quiet)
    if args.show:
        figures.show([args.out_dir / "fixed_basis_spectrogram.png"])


def learn_note(path, args):
    """Learn one note: its description, its spectra [shape=(K, states)], its rotation, and the remaining error."""
    y = recording.load(path, args.sr)
    if not y.any():
        raise utils.InputError(f"{path}: got silence, expected one note")
    midi = pitch.midi_of_name(path.stem)
    f0 = pitch.measure_f0(y, args.sr) if midi is None else utils.note_frequency(midi, args.c3)
    if f0 is None:
        raise utils.InputError(f"{path}: got a sound without a pitch and a name without a note, expected one note")
    if midi is None:
        midi = pitch.nearest_midi(f0, args.c3)
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
    return column, spectra, phase.measure_rotation(Y), error


if __name__ == "__main__":
    sys.exit(cli.run(main))
