"""What NMF.py and CNMF.py write beyond their arrays: the note list, and the sound of each note."""

from pathlib import Path

from piano import cli, figures, notes, outputs, phase, recording, stems
from utils import InputError


def check_options(args, params):
    """Raise :class:`InputError` where the options for stems cannot be met."""
    if not args.stems:
        return
    import soundfile  # only stems need it

    if params is None:
        raise InputError("--stems: got no sampling rate, expected fixed_basis.json beside the basis or --sr")
    if not soundfile.check_format("WAV", args.subtype):
        known = ", ".join(sorted(soundfile.available_subtypes("WAV")))
        raise InputError(f"--subtype: got {args.subtype!r}, expected one of {known}")


def reserved_folder(out_dir, path, args, info, names):
    """:func:`outputs.reserved_folder` for all that a run writes: ``names``, its script's own, and what is asked for."""
    names = ["basis_calc.npy", "activation_calc.npy", "cost.npy", "activation.png", outputs.RECORD, *names]
    if args.notes or recording.is_audio(path):
        names += ["spectrogram.png", *([] if info is None else ["notes.csv", "notes.mid"])]
    if args.stems:
        names.append(outputs.STEMS)
    inputs = [*args.inputs, *basis_files(args)]
    return outputs.reserved_folder(out_dir, names, script=args.script, inputs=inputs, overwrite=args.overwrite)


def basis_files(args):
    """Files of the basis that a run reads."""
    description = Path(args.basis).with_suffix(".json")
    rotation = [phase.rotation_path(args.basis)] if vars(args).get("phase_init") == "sinusoidal" else []
    return [args.basis, *([description] if description.exists() else []), *rotation]


def write_notes(folder, Y, U, model, info):
    """Write notes.csv and notes.mid, where the notes are known, and spectrogram.png.

    ``model(frames)`` returns the magnitude model of a slice of frames.
    """
    if info is not None:
        found = notes.find_notes(U, info)
        notes.write_notes_csv(folder / "notes.csv", found)
        notes.write_midi(folder / "notes.mid", found)
    figures.plot_spectrogram(folder / "spectrogram.png", Y, model, info)


def adapted_basis(Y, H, args, map):
    """Basis for a recording, as ``--adapt`` says, and the strength with which it was adapted, or None."""
    if args.adapt is None:
        return H, None
    from piano import adapt

    progress = cli.progress_bar("frame", args.quiet)
    H, strength = adapt.adapt_basis(Y, H, args.adapt, seed=args.seed, progress=progress, map=map)
    cli.report(f"basis adapted with S = {strength:.3g}", args.quiet)
    return H, strength


def write_stems(folder, path, Y, y, files, blocks, sounding, params, args, workspace):
    """Write stems/ into ``folder``, and say what adding them up again gives.

    ``files``, ``blocks`` and ``sounding`` are those of :func:`stems.write_stems`; ``y`` is the sound of ``path`` at
    the rate of ``params``, or None where ``path`` is a spectrogram.
    """
    import soundfile

    y_sr = params["sr"]
    if y is None:
        y = recording.sound_of(Y, params, workspace)
    elif args.native_sr:
        y_sr = recording.sample_rate(path)
        y = recording.load_mapped(path, y_sr, workspace, told=True)
    try:
        null, clipped = stems.write_stems(
            folder / "stems", y, files, blocks, Y.shape[1], sounding, **params, y_sr=y_sr, subtype=args.subtype
        )
    except soundfile.SoundFileError as error:
        raise OSError(f"stems cannot be written ({error})") from None
    for name, count in clipped.items():
        cli.report(f"{path}: {count} samples of {name} clipped; --subtype FLOAT never does")
    n_stems = len(list((folder / "stems").iterdir())) - 1
    sum_of_all = (
        "all silent or empty, as the recording is" if null is None else f"which sum to the recording to {null:.0f} dB"
    )
    cli.report(f"{n_stems} stems and a residual, {sum_of_all}", args.quiet)


def write_record(folder, path, params, args, cost, reason, error, strength):
    """Write run.json: what NMF.py or CNMF.py read, was told, and came to; see :func:`outputs.write_record`."""
    ending = {"iterations": len(cost), "stopped_by": reason, "normalised_error": float(error[-1])}
    if strength is not None:
        ending = {"adapted_with": strength, **ending}
    inputs = [path, *basis_files(args)]
    outputs.write_record(folder, args.script, args.command, inputs, seed=args.seed, stft=params, **ending)
