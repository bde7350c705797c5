"""Render the piano recordings of this project from a SoundFont.

    python tools/render_piano.py templates basis_wav_piano
    python tools/render_piano.py piece examples/chorale/notes.csv examples/chorale/matched

`templates` writes one WAV file per note, C2 to B6. `piece` reads a note list (columns onset, duration, midi,
velocity; seconds and MIDI numbers) and writes mixture.flac and stems/, one file per pitch, each pitch played alone.
The sound is fluidsynth's, without reverb or chorus, mixed to mono, 16 bit at 22 050 Hz; the same input
gives the same bytes. Needs the fluidsynth program, and numpy, mido, soundfile and soxr.
"""

import argparse
import csv
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import mido
import numpy as np
import soundfile
import soxr

RATE = 22050  # Hz, of every file written
RENDER_RATE = 2 * RATE  # Hz, as much as the SoundFonts' own samples have
LATENCY = 64  # frames at RENDER_RATE: fluidsynth starts to sound one audio block late
FULL_SCALE = 32768  # 16 bit PCM
NAMES = ("C", "Cs", "D", "Ds", "E", "F", "Fs", "G", "Gs", "A", "As", "B")  # s: sharp
TEMPLATES = range(36, 96)  # MIDI, C2 to B6
VELOCITY = 80  # MIDI, of every template
LENGTH, HELD, FADE = 2.5, 2.2, 0.02  # s: a template, the time its key is down, the fade that ends it without a click
MAX_LEAD = 0.005  # s: a template is to begin with its attack
TAIL = 1.0  # s, after the last key of a piece is released
MUSESCORE = "/usr/share/sounds/sf3/MuseScore_General_Full.sf3"
PACKAGES = {"MuseScore_General_Full.sf3": "musescore-general-soundfont", "FluidR3_GM.sf2": "fluid-soundfont-gm"}
# No settings of the user's own, no other SoundFont in place of one that cannot be read, no effects, the piano's samples
# alone, and enough voices that none is cut short.
OPTIONS = f"-n -i -q -f {os.devnull} -R 0 -C 0 -r {RENDER_RATE} -O float -T wav -o synth.default-soundfont="
OPTIONS += " -o synth.dynamic-sample-loading=1 -o synth.polyphony=4096"


def note_name(midi):
    """Return the file stem of a MIDI note number: 60 gives ``060_C4``, 61 gives ``061_Cs4``."""
    return f"{midi:03d}_{NAMES[midi % 12]}{midi // 12 - 1}"


def read_notes(path):
    """Read a note list.

    Returns
    -------
    list of tuple
        ``(onset, duration, midi, velocity)`` of each row; seconds, seconds, 0..127, 1..127.

    Raises
    ------
    ValueError
        If the header, a value or the list as a whole is unusable; the message names file and line.
    """
    with open(path, newline="", encoding="utf-8-sig", errors="replace") as file:
        rows = csv.reader(file)
        if next(rows, None) != ["onset", "duration", "midi", "velocity"]:
            raise ValueError(f"{path}: line 1: the header must be onset,duration,midi,velocity")
        notes, free = [], {}  # free: s, when each key is up again
        for row in rows:
            where = f"{path}: line {rows.line_num}"
            try:
                onset, duration, midi, velocity = (
                    kind(text) for kind, text in zip((float, float, int, int), row, strict=True)
                )
            except ValueError:
                raise ValueError(f"{where}: expected two numbers and two whole ones, got {','.join(row)!r}") from None
            if not (0 <= onset < 3600 and 0.001 <= duration < 3600 and 0 <= midi <= 127 and 1 <= velocity <= 127):
                raise ValueError(f"{where}: value out of range in {','.join(row)!r}")
            notes.append((onset, duration, midi, velocity))
    if not notes:
        raise ValueError(f"{path}: no notes")
    for onset, duration, midi, _ in sorted(notes):
        if onset < free.get(midi, 0) - 1e-6:
            raise ValueError(f"{path}: note {midi} at {onset:g} s is struck while its key is still down")
        free[midi] = onset + duration
    return notes


def to_midi(notes, length):
    """Return notes as a standard MIDI file object, one tick per millisecond, ``length`` seconds long."""
    events = []
    for onset, duration, midi, velocity in notes:
        events.append((round(1000 * onset), 1, midi, velocity))
        events.append((round(1000 * (onset + duration)), 0, midi, 0))
    track, now = mido.MidiTrack(), 0
    track.append(mido.MetaMessage("set_tempo", tempo=500000))
    track.append(mido.Message("program_change", program=0))
    for tick, on, midi, velocity in sorted(events):  # a key goes up before it goes down again
        track.append(mido.Message("note_on" if on else "note_off", note=midi, velocity=velocity, time=tick - now))
        now = tick
    track.append(mido.MetaMessage("end_of_track", time=max(0, round(1000 * length) - now)))
    return mido.MidiFile(type=0, ticks_per_beat=500, tracks=[track])


def render(notes, length, soundfont, gain):
    """Play notes on the SoundFont's first program, the grand piano.

    Parameters
    ----------
    notes : list of tuple
        ``(onset, duration, midi, velocity)``, as from `read_notes`.
    length : float
        Seconds; what sounds longer is cut.
    soundfont : str or Path
    gain : float
        Linear, 0..10.

    Returns
    -------
    np.ndarray [shape=(round(length * RATE),), float64]
        Mono, full scale at 1, not limited.

    Raises
    ------
    OSError
        If fluidsynth or the SoundFont is missing; the message names the Debian package.
    ValueError
        If the gain is out of range, fluidsynth fails or nothing sounds.
    """
    if not 0 < gain <= 10:
        raise ValueError(f"gain must be above 0 and at most 10, got {gain:g}")
    if shutil.which("fluidsynth") is None:
        raise OSError("fluidsynth not found: apt install fluidsynth")
    if not Path(soundfont).is_file():
        package = PACKAGES.get(Path(soundfont).name)
        raise OSError(f"{soundfont} not found" + (f": apt install {package}" if package else ""))
    with tempfile.TemporaryDirectory() as folder:
        midi, wav = Path(folder, "notes.mid"), Path(folder, "notes.wav")
        to_midi(notes, length).save(midi)
        command = ["fluidsynth", *OPTIONS.split(), "-g", str(gain), "-F", wav, soundfont, midi]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode or not wav.exists():
            reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
            raise ValueError(f"fluidsynth failed on {soundfont}: {reason}")
        stereo, _ = soundfile.read(wav, always_2d=True)
    played = stereo.mean(axis=1)[LATENCY:]
    if not played.any():
        raise ValueError(f"{soundfont}: nothing sounds; is it a SoundFont with a piano?")
    mono = np.zeros(2 * round(length * RATE))
    mono[: len(played)] = played[: len(mono)]
    return soxr.resample(mono, RENDER_RATE, RATE, quality="VHQ")


def quantise(y, name):
    """Round to 16 bit, without dither; ValueError, naming ``name``, where that would clip."""
    samples = np.rint(y * FULL_SCALE)
    peak = np.abs(samples).max()
    if peak >= FULL_SCALE:
        raise ValueError(f"{name} would clip (peak {20 * np.log10(peak / FULL_SCALE):+.1f} dBFS): lower --gain")
    return samples.astype(np.int16)


def render_templates(soundfont, gain):
    """Return every template as a dict, file stem to int16 samples [shape=(round(LENGTH * RATE),)]."""
    fade = np.cos(np.linspace(0, np.pi / 2, round(FADE * RATE))) ** 2
    templates = {}
    for midi in TEMPLATES:
        name = note_name(midi)
        y = render([(0.0, HELD, midi, VELOCITY)], LENGTH, soundfont, gain)
        y[-len(fade) :] *= fade
        lead = np.argmax(np.abs(y) > 1e-3 * np.abs(y).max()) / RATE  # s, below -60 dB of the peak
        if lead > MAX_LEAD:
            raise ValueError(f"{name} begins with {1000 * lead:.1f} ms of silence, over {1000 * MAX_LEAD:g} ms")
        templates[name] = quantise(y, name)
    return templates


def render_piece(notes, soundfont, gain):
    """Return a piece and its stems, all int16 of one length: mixture [shape=(N,)], dict of file stem to [shape=(N,)].

    The mixture is the sum of the stems before rounding. Played at once, the notes would miss that sum by up to some
    hundred steps of 16 bit, because fluidsynth hands a voice on from note to note with traces of its last state.
    """
    length = max(onset + duration for onset, duration, _, _ in notes) + TAIL
    stems = {}
    for midi in sorted({note[2] for note in notes}):
        stems[note_name(midi)] = render([note for note in notes if note[2] == midi], length, soundfont, gain)
    mixture = quantise(sum(stems.values()), "mixture")
    return mixture, {name: quantise(y, name) for name, y in stems.items()}


def write(path, samples):
    """Write int16 samples as audio, WAV or FLAC by suffix; the file appears whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    try:
        soundfile.write(part, samples, RATE, subtype="PCM_16", format=path.suffix[1:].upper())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def parse_args(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    modes = parser.add_subparsers(dest="mode", required=True, metavar="templates | piece")
    templates = modes.add_parser("templates", help="one WAV file per note, C2 to B6")
    piece = modes.add_parser("piece", help="the mixture of a note list, and its stems")
    piece.add_argument("notes", type=Path, help="CSV file with the columns onset,duration,midi,velocity")
    for mode, gain in (templates, 4.0), (piece, 2.1):
        mode.add_argument("out_dir", type=Path, help="folder to write to")
        mode.add_argument("--soundfont", default=MUSESCORE, help="SF2 or SF3 file (%(default)s)")
        mode.add_argument("--gain", type=float, default=gain, help="fluidsynth's linear gain, 0 to 10 (%(default)s)")
    return parser.parse_args(argv)


def main(argv=None):
    args = parse_args(argv)
    try:
        if args.mode == "templates":
            rendered = render_templates(args.soundfont, args.gain)
            files = {args.out_dir / f"{name}.wav": y for name, y in rendered.items()}
        else:
            mixture, stems = render_piece(read_notes(args.notes), args.soundfont, args.gain)
            files = {args.out_dir / "stems" / f"{name}.flac": y for name, y in stems.items()}
            files[args.out_dir / "mixture.flac"] = mixture
        stale = {old for path in files for old in path.parent.glob(f"*{path.suffix}")} - set(files)
        if stale:  # who reads a folder of stems must find these alone
            raise ValueError(f"{min(stale)} is not part of this rendering: remove it, or choose an empty folder")
        for path, samples in files.items():
            write(path, samples)
    except (OSError, ValueError) as error:
        print(f"render_piano.py: error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
