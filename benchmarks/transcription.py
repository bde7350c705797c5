"""How well the notes of piano recordings are found, judged by mir_eval.

    python benchmarks/transcription.py FOLDER
    python benchmarks/transcription.py MAPS/ENSTDkCl/MUS --basis MAPS/ENSTDkCl/ISOL/NO

FOLDER holds recordings (wav or flac), each beside its notes: ``.txt`` as MAPS has it (OnsetTime, OffsetTime, MidiPitch,
separated by tabs), ``.csv`` (onset, offset or duration, midi) or ``.mid``. The basis is learnt from the folder of
single notes after --basis, by default ``basis_wav_piano`` with its keys filled. Rows are the event model's, and those
of activations, for comparison: means over all recordings, over close (``...Cl``) and room microphones (``...Am``), and
the worst. ``F line`` is F at 50 ms after a line through the piece's delays, where its truth drifts; ``F offset`` counts
a note if its offset is right as well, within 20 % of its length or 50 ms; ``F frame`` is that of frames of 10 ms. ``R
soft``, ``R again`` and ``R short`` are, along the line, the recall of velocities below 45, of keys struck again within
.3 s and of what lasts less than .15 s; ``in 25 ms`` is the share of right notes that lie so near the line. Time is that
of one core for a second of sound. --peer has basic-pitch hear the same recordings, with its defaults; the last
line is then what the event model's means are to its own.
"""

import argparse
import csv
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import soundfile
from tqdm import tqdm

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import make_init_H  # noqa: E402  after the path to it
import utils  # noqa: E402
from piano import basis, events, notes, recording  # noqa: E402

N_ITER = 60  # of the activations
FRAME_S = 0.01  # of the frame measure
TOLERANCES_S = 0.05, 0.1
FAR_S = 0.15  # between a note and what is found of it, for the line
SOFT, AGAIN_S, BRIEF_S, NEAR_S = 45, 0.3, 0.15, 0.025  # MIDI velocity, s
SHORTEST_S = 0.01  # an interval that mir_eval takes
COLUMNS = "P 50", "R 50", "F 50", "F 100", "F line", "F offset", "F frame", "R soft", "R again", "R short"
COLUMNS += "in 25 ms", "time"
PEER = """
import json, os, sys, time
if hasattr(os, "sched_setaffinity"):  # one core, as ours
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
from importlib.metadata import version
from basic_pitch import ICASSP_2022_MODEL_PATH, inference
model, lists = inference.Model(ICASSP_2022_MODEL_PATH), []
inference.predict(sys.argv[1], model)  # what is compiled is compiled
for path in sys.argv[1:]:
    began = time.process_time()
    found = inference.predict(path, model)[2]
    lists.append([[[float(value) for value in note[:3]] for note in found], time.process_time() - began])
print(json.dumps({"basic-pitch " + version("basic-pitch"): lists}))
"""


def event_model(path, piano):
    """The list that NMF.py and CNMF.py write."""
    return notes.listed(recording.load(path, events.SR), piano)[0]


def activations(path, piano, loss):
    """The list that activations tell of."""
    Y = recording.stft(recording.load(path, piano.sr), n_fft=piano.n_fft, hop=piano.hop)
    return notes.find_notes(utils.nmf(Y, piano.H, N_ITER, loss=loss)[0], piano)


METHODS = {
    "event model": event_model,
    "activations, KL": lambda path, piano: activations(path, piano, "kullback-leibler"),
    "activations, Euclidean": lambda path, piano: activations(path, piano, "frobenius"),
}


def timed(find, recordings, piano):
    """Onset, offset and MIDI number of the notes of each recording, and seconds of the processor."""
    for path in recordings:
        began = time.process_time()
        found = [(note.onset, note.offset, note.midi) for note in find(path, piano)]
        yield found, time.process_time() - began


def heard_by_peer(python, recordings):
    """What :func:`timed` gives, of basic-pitch in another interpreter: a dict of one entry, by name and version."""
    try:
        done = subprocess.run([python, "-c", PEER, *recordings], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        why = getattr(error, "stderr", "").strip() or str(error)
        raise utils.InputError(f"--peer {python}: got no list of basic-pitch: {why.splitlines()[-1]}") from error
    return json.loads(done.stdout.splitlines()[-1])


def read_truth(path):
    """Notes of a truth file [shape=(n, 4)]: onset and offset in s, MIDI number, velocity or NaN."""
    if path.suffix != ".txt":
        rows = [(*note[3:5], note.midi, 127 * 10 ** (note.level_db / 40)) for note in notes.read_score(path)]
        return np.array(rows)
    with open(path, newline="", encoding="utf-8-sig") as file:
        rows = [row for row in csv.DictReader(file, delimiter="\t") if row.get("MidiPitch")]
    names = "OnsetTime", "OffsetTime", "MidiPitch"
    return np.array([[*(float(row[name]) for name in names), np.nan] for row in rows])


def truth_of(path):
    """The truth beside a recording, or where examples/ has it, or None."""
    beside = [path.with_suffix(suffix) for suffix in (".txt", ".csv", ".mid")]
    return next((file for file in (*beside, path.parent.parent / "notes.csv") if file.is_file()), None)


def recordings_in(folder):
    """Recordings in a folder that have a truth."""
    paths = [path for path in sorted(folder.rglob("*")) if path.suffix in (".wav", ".flac")]
    return [path for path in paths if path.parent.name != "stems" and truth_of(path)]


def learn(folder, keys):
    """Basis of the single notes in a folder."""
    with tempfile.TemporaryDirectory() as out:
        make_init_H.main([str(folder), "--quiet", "-o", out, *(["--keys", *keys] if keys else [])])
        return basis.load(Path(out) / "fixed_basis.npy")


def intervals(notes):
    """Intervals and frequencies as mir_eval takes them."""
    notes = np.asarray(notes, float)
    onset = np.maximum(notes[:, 0], 0)
    return np.column_stack([onset, np.maximum(notes[:, 1], onset + SHORTEST_S)]), utils.note_frequency(notes[:, 2])


def roll(notes, seconds):
    """Whether each key sounds in each frame, (128, n)."""
    sounding = np.zeros((128, max(1, round(seconds / FRAME_S))), bool)
    for onset, offset, midi, *_ in notes:
        sounding[int(midi), round(max(0, onset) / FRAME_S) : round(offset / FRAME_S)] = True
    return sounding


def along_the_line(found, truth):
    """Onsets found, less a line through the delays of what is near a note of the truth."""
    from mir_eval.transcription import match_notes

    pairs = match_notes(*intervals(truth), *intervals(found), onset_tolerance=FAR_S, offset_ratio=None)
    if len(pairs) < 10:
        return found
    onset, delay = (np.array([(truth[i, 0], found[j, 0] - truth[i, 0]) for i, j in pairs])).T
    near = np.ones(len(onset), bool)
    for _ in range(4):  # those far off are other notes
        line = np.polynomial.Polynomial.fit(onset[near], delay[near], 1)
        off = np.abs(delay - line(onset))
        near = off <= max(0.02, 2 * np.median(off))
    return found - line(found[:, :1]) * [1, 1, 0]


def struck_again(truth):
    """Whether the key of each note was struck less than ``AGAIN_S`` before."""
    since = truth[:, None, 0] - truth[:, 0]
    return ((since > 0) & (since < AGAIN_S) & (truth[:, None, 2] == truth[:, 2])).any(axis=1)


def judge(found, truth, seconds):
    """Measures of a list of notes, in the order of ``COLUMNS``; NaN is the recall of nothing."""
    from mir_eval.transcription import match_notes, precision_recall_f1_overlap

    if not len(found):
        return [0.0] * (len(COLUMNS) - 1)
    found = np.asarray(found, float)
    reference, estimate = intervals(truth), intervals(found)
    first, second = (
        precision_recall_f1_overlap(*reference, *estimate, onset_tolerance=tolerance, offset_ratio=None)[:3]
        for tolerance in TOLERANCES_S
    )
    with_offset = precision_recall_f1_overlap(*reference, *estimate)[2]
    straight = along_the_line(found, truth)
    pairs = match_notes(*reference, *intervals(straight), offset_ratio=None)
    right = np.isin(np.arange(len(truth)), [i for i, _ in pairs])
    near = np.mean([abs(straight[j, 0] - truth[i, 0]) <= NEAR_S for i, j in pairs]) if pairs else np.nan
    line = 2 * right.sum() / (len(truth) + len(found))
    a, b = roll(found, seconds), roll(truth, seconds)
    frame = 2 * (a & b).sum() / max(1, a.sum() + b.sum())
    kinds = truth[:, 3] < SOFT, struck_again(truth), truth[:, 1] - truth[:, 0] < BRIEF_S
    parts = [right[which].mean() if which.any() else np.nan for which in kinds]
    return [*first, second[2], line, with_offset, frame, *parts, near]


def print_rows(title, rows):
    """Mean and worst row of a table."""
    rows = np.array(rows)
    known = np.isfinite(rows).any(axis=0)
    mean, least = (np.where(known, of(np.where(known, rows, 0), axis=0), np.nan) for of in (np.nanmean, np.nanmin))
    for name, row in (("mean", mean), ("worst", [*least[:-1], rows[:, -1].max()])):
        print(f"| {title} ({len(rows)}), {name} | " + " | ".join(f"{value:.3f}" for value in row) + " |")


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="recordings beside their notes")
    parser.add_argument("--basis", type=Path, default=ROOT / "basis_wav_piano", metavar="DIR", help="single notes")
    parser.add_argument("--keys", nargs=2, default=("A0", "C8"), metavar=("LOW", "HIGH"), help="default: A0 C8")
    parser.add_argument("--each", action="store_true", help="a row for each recording as well")
    parser.add_argument("--peer", metavar="PYTHON", help="hear with basic-pitch, too: a Python that can import it")
    args = parser.parse_args(argv)
    recordings = recordings_in(args.folder)
    if not recordings:
        parser.error(f"{args.folder}: got no recording beside its notes, expected .wav or .flac and .txt, .csv or .mid")
    try:
        peer = heard_by_peer(args.peer, recordings) if args.peer else {}
    except utils.InputError as error:
        parser.error(str(error))
    piano = learn(args.basis, args.keys)
    event_model(recordings[0], piano)  # what is compiled is compiled
    means = {}
    print("| | " + " | ".join(COLUMNS) + " |\n|" + "---|" * (len(COLUMNS) + 1))
    for method, heard in ({name: timed(find, recordings, piano) for name, find in METHODS.items()} | peer).items():
        table = {}
        for path, (found, took) in zip(recordings, tqdm(heard, method, len(recordings), disable=None), strict=True):
            seconds = soundfile.info(path).duration
            table[path] = [*judge(found, read_truth(truth_of(path)), seconds), took / seconds]
            if args.each:
                name = path.relative_to(args.folder).with_suffix("")
                print(f"| {method}, {name} | " + " | ".join(f"{value:.3f}" for value in table[path]) + " |")
        for title, ending in (("all", ""), ("close", "Cl"), ("room", "Am")):
            if rows := [row for path, row in table.items() if path.stem.endswith(ending)]:
                print_rows(f"{method}, {title}", rows)
        means[method] = np.mean(list(table.values()), axis=0)
    for name in peer:
        F, seconds = (means["event model"] / means[name])[[COLUMNS.index("F 50"), COLUMNS.index("time")]]
        print(f"event model / {name}: F 50 {F:.2f}, time {seconds:.2f}")


if __name__ == "__main__":
    main()
