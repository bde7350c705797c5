"""What it is worth to put the list of notes right: stems and list before and after, and how many clicks that is.

    python benchmarks/corrections.py LISTS PIANO [PIANO ...]

LISTS is a folder of lists of notes, such as the truths of MAPS (onset, offset, midi, velocity), PIANO one of recordings
of single notes, see tools/play_notes.py. The first 20 s of each list are played on each piano, so that the true sound
of every pitch is known, and taken apart as recommended. Then the list is corrected by the truth, the loudest mistakes
first: none, one, ten, and all. A wrong note is deleted with two clicks, on it and on Delete; a missing one is added
with one, a double click. The corrected list goes back in as ``--score`` does it. Prints a table of means over the
pieces, and the worst piece: F of onsets at 50 ms, and SDR over all true pitches. About half a minute a piece.
"""

import argparse
from pathlib import Path

import numpy as np
import separation
import soxr

from piano import events, notes

NEAR_S = 0.05
CORRECTED = 0, 1, 10, None  # mistakes; None: all of them
CLICKS = {"delete": 2, "add": 1}


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("lists", type=Path, metavar="LISTS")
    parser.add_argument("pianos", type=Path, nargs="+", metavar="PIANO")
    args = parser.parse_args(argv)
    results = separation.over_cases(measure, read_cases(args.lists, args.pianos))
    print(f"\n{table([rows for _, rows in results])}")


def read_cases(lists, pianos):
    """A :class:`separation.Case` of each list on each piano; notes that a piano lacks are left out of the list."""
    cases = []
    templates = separation.ROOT / "basis_wav_piano"
    basis = separation.learn_basis(8192, 2, templates, "--keys", "A0", "C8")
    for piano in pianos:
        layers = separation.play_notes.read_layers(piano)
        for piece, played in separation.performances(lists, layers).items():
            cases.append(separation.played_case(piece, piano.name, "real", layers, basis, played))
    return cases


def measure(case):
    """For each number of corrections ``(clicks, F, mean SDR)``."""
    y = soxr.resample(case.y, separation.SR, events.SR)
    found = notes.listed(y, case.basis)[0]
    wrong, missing = mistakes(found, case.played)
    todo = sorted([("delete", n) for n in wrong] + [("add", n) for n in missing], key=lambda it: -it[1].level_db)
    rows = []
    for n in CORRECTED:
        done = todo[:n]
        gone = {id(note) for kind, note in done if kind == "delete"}
        kept = [note for note in found if id(note) not in gone]
        score = kept + [note._replace(confidence=1.0) for kind, note in done if kind == "add"]
        listed = notes.listed(y, case.basis, score)[0] if done else found
        told = {"listed": listed}
        estimates = separation.separate(
            separation.setting_of(separation.RECOMMENDED), case.y, case.stems, case.basis, told
        )
        left = mistakes(listed, case.played)
        right = len(listed) - len(left[0])
        F = 2 * right / max(len(listed) + len(case.played), 1)
        sdr = float(np.mean(separation.figures(case.stems, estimates, case.y)[0]))
        rows.append((sum(CLICKS[kind] for kind, _ in done), F, sdr))
    return rows


def mistakes(found, played):
    """Notes that are listed and not played, and those that are played and not listed."""
    left, missing = list(found), []
    for note in sorted(played, key=lambda note: note.onset):
        same = [other for other in left if other.midi == note.midi and abs(other.onset - note.onset) <= NEAR_S]
        if same:
            left.remove(min(same, key=lambda other: abs(other.onset - note.onset)))
        else:
            missing.append(note)
    return left, missing


def table(rows):
    """Markdown; ``rows`` are those of each piece."""
    values = np.array(rows)  # (pieces, corrections, 3)
    lines = []
    for i, n in enumerate(CORRECTED):
        clicks, F, sdr = values[:, i].T
        lines.append(
            ["all" if n is None else str(n), f"{clicks.mean():.0f}"]
            + [f"{x.mean():.{d}f}, {x.min():.{d}f}" for x, d in ((F, 3), (sdr, 2))]
            + [f"{(sdr - values[:, 0, 2]).min():+.2f}"]
        )
    return separation.markdown(
        ["mistakes put right", "clicks", "F, worst piece", "SDR, worst piece", "least gain in SDR"], lines
    )


if __name__ == "__main__":
    main()
