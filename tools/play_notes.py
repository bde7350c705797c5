"""Play a list of notes with recordings of single notes, so that the true sound of every pitch is known.

    python tools/play_notes.py examples/chorale/notes.csv my_piano -o played

LIST is a table like notes.csv or a MIDI file. FOLDER holds one recording a note, named after it; or folders of those,
one for each layer of velocity. Leaves mixture.flac, the sum of the stems, and stems/060_C4.flac and so on, as examples/
has them: mono, 22 050 Hz, 24 bit. --room and --noise come on top of that sum, and no stem has them.
"""

import argparse
import math
import sys
from pathlib import Path

import numpy as np
import soundfile
from scipy.signal import fftconvolve

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import utils  # noqa: E402  after the path to it
from piano import notes, pitch, recording, results  # noqa: E402

SR = 22050  # Hz
RELEASE_S = 0.15  # time constant of a damped string, s
TAIL_S = 1.0  # of sound after the last key is up
FARTHEST = 1  # semitones that a recording is transposed by
PEAK = 0.5  # of the mixture
VELOCITIES = 127


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("list", metavar="LIST", type=Path)
    parser.add_argument("folder", metavar="FOLDER", type=Path)
    parser.add_argument("-o", "--out-dir", type=Path, default=Path(), metavar="DIR", help="default: the current one")
    room = "a tail of noise, down by 60 dB after S seconds; the direct sound is DB above it"
    parser.add_argument("--room", nargs=2, type=float, default=(1, math.inf), metavar=("S", "DB"), help=room)
    parser.add_argument("--noise", type=float, default=math.inf, metavar="DB", help="white, DB below the rest")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of noise and room, default: 0")
    args = parser.parse_args(argv)
    if not args.room[0] > 0 or math.isnan(args.room[1] + args.noise):
        parser.error(f"--room, --noise: got {args.room} and {args.noise}, expected S above 0 s, and numbers of dB")
    try:
        played = notes.read_score(args.list)
        sounds = play(played, read_layers(args.folder))
        names = ["mixture.flac", results.STEMS]
        with results.reserved_folder(args.out_dir, names) as (_, folder):
            rng = np.random.default_rng(args.seed)
            write(folder, sounds, added(sum(sounds.values()), args.room, args.noise, rng))
    except utils.InputError as error:
        parser.error(str(error))


def read_layers(folder):
    """Recordings of single notes by MIDI number, one dict a layer of velocity, from soft to loud.

    Raises
    ------
    InputError
        If there are none.
    """
    if not Path(folder).is_dir():
        raise utils.InputError(f"{folder}: got no folder, expected one of recordings")
    folders = sorted(path for path in Path(folder).iterdir() if path.is_dir()) or [Path(folder)]
    layers = []
    for layer in folders:
        files = {pitch.midi_of_name(path.stem): path for path in recording.audio_files(layer)}
        layers.append({midi: trimmed(recording.load(path, SR)) for midi, path in files.items() if midi is not None})
    layers = [layer for layer in layers if layer]
    if not layers:
        raise utils.InputError(f"{folder}: got no recordings named after notes, expected some")
    return sorted(layers, key=lambda layer: np.median([np.abs(y).max() for y in layer.values()]))


def trimmed(y):
    """A recording from just before its note on: 5 ms before it first comes within 20 dB of its peak."""
    onset = int(np.argmax(np.abs(y) >= 0.1 * np.abs(y).max()))
    return y[max(onset - SR // 200, 0) :]


def play(played, layers):
    """True sound of every pitch [shape=(n,), float64]: a dict by MIDI number, of sounds of one length.

    A key's recording starts at the onset, and dies away with ``RELEASE_S`` once the key is up. The layer is that of the
    velocity, in equal parts; within a layer, velocity does not change the level.

    Raises
    ------
    InputError
        If a note is farther than ``FARTHEST`` from every recording.
    """
    n_samples = round((max(note.offset for note in played) + TAIL_S) * SR)
    sounds = {midi: np.zeros(n_samples) for midi in sorted({note.midi for note in played})}
    for note in played:
        velocity = VELOCITIES * 10 ** (note.level_db / 40)  # as notes.write_midi has it
        layer = layers[min(int(velocity / (VELOCITIES + 1) * len(layers)), len(layers) - 1)]
        near = min(layer, key=lambda midi, wanted=note.midi: abs(midi - wanted))
        if abs(near - note.midi) > FARTHEST:
            raise utils.InputError(
                f"{note.note}: got no recording nearer than {pitch.note_name(near)}, expected one within a semitone"
            )
        y = recording.transpose(layer[near], SR, note.midi - near).astype(np.float64)
        start, held = round(note.onset * SR), round((note.offset - note.onset) * SR)
        y = y[: n_samples - start].copy()
        y[held:] *= np.exp(-np.arange(len(y[held:])) / (RELEASE_S * SR))
        sounds[note.midi][start : start + len(y)] += y
    return sounds


def added(y, room, noise_db, rng):
    """What a made room and white noise add to a sound [shape=(n,)].

    The tail of the room is noise. Its time to -60 dB is in s, and the direct sound is so many dB above all of it.
    """
    tail, noise = rng.standard_normal((2, len(y)))
    seconds, direct_db = room
    tail *= 10 ** (-3 * np.arange(len(y)) / (seconds * SR))
    tail[0] = 0  # the direct sound's
    tail *= 10 ** (-direct_db / 20) / np.linalg.norm(tail)
    echo = fftconvolve(y, tail)[: len(y)]
    return echo + noise * 10 ** (-noise_db / 20) * np.linalg.norm(y + echo) / np.linalg.norm(noise)


def write(folder, sounds, more):
    """Write the stems, and their sum with ``more``, at a common gain."""
    gain = PEAK / np.abs(sum(sounds.values()) + more).max()
    (folder / results.STEMS).mkdir()
    total = gain * more
    for midi, y in sounds.items():
        path = folder / results.STEMS / f"{midi:03d}_{pitch.note_name(midi).replace('#', 's')}.flac"
        soundfile.write(path, gain * y, SR, subtype="PCM_24")
        total = total + soundfile.read(path)[0]
    soundfile.write(folder / "mixture.flac", total, SR, subtype="PCM_24")


if __name__ == "__main__":
    main()
