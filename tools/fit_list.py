"""Fit the numbers again that decide which events are listed, from recordings whose notes are known.

    python tools/fit_list.py FOLDER [FOLDER ...] --basis DIR [DIR ...]

FOLDER holds recordings beside their notes, as benchmarks/transcription.py takes them. DIR holds single notes, from
which a basis is learnt, its keys filled from A0 to C8. An event is right if a note of its key begins within 50 ms of
it: one event for a note, the loudest first. The weights are those of a logistic regression over all events, on all
bases.

Which events patterns are learnt from is decided by weights that are fitted to events of the templates as they are. Put
those into piano/events.py first, and run this again: the others follow from them. The others decide which strikes of a
key that sounds are events at all, so they are put in and fitted again until they stay as they are, to .01 or so.

F, at 50 ms, is that of lists by weights that were fitted without the piece (cross-validated), by those that were fitted
with all, and by those in piano/events.py now. Then comes how many of the events of each tenth of confidence are notes.
The last lines are for that file. The delay is the median of the first folder's listed notes: rendered ones have less
than a struck key.
"""

import argparse
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile
from scipy.optimize import minimize
from scipy.special import expit
from tqdm import tqdm

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

import transcription  # noqa: E402  after the path to it

from piano import events, recording  # noqa: E402

RIGHT_S = 0.05  # between an event and its note, as mir_eval has it


class Heard(NamedTuple):
    """A recording, heard on one basis."""

    group: str  # the names of the folder and of the basis
    piece: Path  # its truth: recordings that share one are one piece
    seconds: float
    truth: np.ndarray  # (n, 4), onset and offset in s, MIDI number, velocity
    midi: np.ndarray  # (L,), of the patterns
    found: events.Found
    delay: np.ndarray  # (E,), s, see delays


def hear(path, piano, group, learnt=True):
    """:class:`Heard` of the recording at ``path``, with the patterns of its own piano or with the templates'."""
    piece, midi = transcription.truth_of(path), np.array(piano.templates)
    truth, y = transcription.read_truth(piece), recording.load(path, events.SR)
    patterns = events.learn_piano(y, piano.patterns, midi) if learnt else piano.patterns
    found = events.all_events(y, patterns, midi)
    return Heard(group, piece, soundfile.info(path).duration, truth, midi, found, delays(found, midi, truth))


def delays(found, midi, truth):
    """Time in s from its note to each event that is right, NaN for the others, (E,)."""
    delay, left = np.full(len(found.onset), np.nan), np.ones(len(truth), bool)
    for e in np.argsort(-found.level, kind="stable"):
        away = found.onset[e] - truth[:, 0]
        near = np.flatnonzero(left & (truth[:, 2] == midi[found.pattern[e]]) & (np.abs(away) <= RIGHT_S))
        if len(near):
            i = near[np.argmin(np.abs(away[near]))]
            delay[e], left[i] = away[i], False
    return delay


def fitted(heard):
    """Weights of the most likely logistic function of the evidence, (4,)."""
    x = np.concatenate([events.evidence(one.found, one.midi) for one in heard])
    right = np.concatenate([np.isfinite(one.delay) for one in heard])

    def cost(w):
        z = x @ w
        return (np.logaddexp(0, z) - right * z).mean(), x.T @ (expit(z) - right) / len(z)

    return np.round(minimize(cost, np.zeros(x.shape[1]), jac=True, method="BFGS").x, 2)


def f_measure(one, weights):
    """F at 50 ms of the list by these weights."""
    listed, found = events.confidences(one.found, one.midi, weights) >= events.LISTED, one.found
    table = np.column_stack([found.onset, found.offset, one.midi[found.pattern]])[listed]
    return transcription.judge(table, one.truth, one.seconds)[2]


def print_table(heard, weights, without):
    """Mean and worst F of each group, by weights that are fitted without the piece, to all, and as they are now."""
    print("| F 50, mean / worst | cross-validated | fitted to all | now |\n|---|---|---|---|")
    for group in sorted({one.group for one in heard}):
        ours = [one for one in heard if one.group == group]
        F = np.array([[f_measure(one, w) for w in (without[one.piece], weights, events.WEIGHTS)] for one in ours])
        cells = " | ".join(f"{a:.3f} / {b:.3f}" for a, b in zip(F.mean(axis=0), F.min(axis=0), strict=True))
        print(f"| {group} ({len(F)}) | {cells} |")


def print_calibration(heard, without):
    """Share of notes among events of about that confidence, by weights fitted without the piece and as they are now."""
    right = np.concatenate([np.isfinite(one.delay) for one in heard])
    print("| confidence | " + " | ".join(f".{tenth}5" for tenth in range(10)) + " |\n|" + "---|" * 11)
    for name, weights_of in (("cross-validated", without.get), ("now", lambda piece: events.WEIGHTS)):
        sure = np.concatenate([events.confidences(one.found, one.midi, weights_of(one.piece)) for one in heard])
        tenth = np.minimum(sure * 10, 9).astype(int)
        share = np.bincount(tenth, right, 10) / np.maximum(np.bincount(tenth, minlength=10), 1)
        print(f"| {name} | " + " | ".join(f"{each:.2f}" for each in share) + " |")


def median_gain(found, midi, weights):
    """Median likelihood gain of what would be listed if no recording were doubted; 0 where nothing would be."""
    gain = found.gain[expit(events.evidence(found, midi) @ weights) >= events.LISTED]
    return float(np.median(gain)) if len(gain) else 0.0


def noise(piano):
    """Events of half a minute of white noise."""
    y = np.random.default_rng(0).standard_normal(30 * events.SR).astype(np.float32)
    midi = np.array(piano.templates)
    return events.all_events(y, events.learn_piano(y, piano.patterns, midi), midi)


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="+", metavar="FOLDER", help="recordings beside their notes")
    own = [ROOT / "basis_wav_piano"]
    parser.add_argument("--basis", type=Path, nargs="+", default=own, metavar="DIR", help="default: basis_wav_piano")
    args = parser.parse_args(argv)
    paths = {folder: transcription.recordings_in(folder) for folder in args.folder}
    if len({transcription.truth_of(path) for folder in paths.values() for path in folder}) < 2:
        parser.error(f"{args.folder[0]}: got fewer than two pieces, expected .wav or .flac beside .txt, .csv or .mid")
    heard, first, noises = [], [], []
    for basis in args.basis:
        piano = transcription.learn(basis, ("A0", "C8"))
        noises.append((noise(piano), np.array(piano.templates)))
        for folder in args.folder:
            group = f"{folder.name}, {basis.name}"
            for path in tqdm(paths[folder], group, disable=None):
                first.append(hear(path, piano, group, learnt=False))
                heard.append(hear(path, piano, group))
    weights, pieces = fitted(heard), {one.piece for one in heard}
    without = {piece: fitted([one for one in heard if one.piece != piece]) for piece in pieces}
    print_table(heard, weights, without)
    print_calibration(heard, without)
    ours = [one for one in heard if one.group.startswith(f"{args.folder[0].name}, ")]
    sure = [events.confidences(one.found, one.midi, weights) >= events.LISTED for one in ours]
    delay = np.concatenate([one.delay[which] for one, which in zip(ours, sure, strict=True)])
    most = max(median_gain(*one, weights) for one in noises)
    least = min(median_gain(one.found, one.midi, weights) for one in heard)
    print(f"median gain of noise {most:.3f}, of the recording that gains least {least:.3f}")
    for name, fit in (("FIRST_WEIGHTS", fitted(first)), ("WEIGHTS", weights)):
        print(f"{name} = {', '.join(f'{w:.2f}' for w in fit)}")
    print(f"DELAY_S = {events.DELAY_S + np.nanmedian(delay):.3f}")
    print(f"LEAST_GAIN = {np.sqrt(max(most, 0.01) * least):.1f}")  # as far above noise as below music, as a ratio


if __name__ == "__main__":
    main()
