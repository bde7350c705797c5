"""Separation quality: how near the suite's ways of taking a recording apart come to the true sound of each note.

    python benchmarks/separation.py
    python benchmarks/separation.py --draw    # measures nothing, draws the chart again from the tables
    python benchmarks/separation.py --pianos FOLDER    # rendered and real pianos; prints tables, writes nothing
    python benchmarks/separation.py --pianos FOLDER --lists LISTS    # real performances on them besides
    python benchmarks/separation.py --pianos FOLDER --lists LISTS --in-a-row 5    # the same, five lists a recording
    python benchmarks/separation.py --pianos FOLDER --leave-out    # the same, without each part of the method in turn
    python benchmarks/separation.py --pianos FOLDER --parts    # the same, with parts of the truth in turn
    python benchmarks/separation.py --pianos FOLDER --same-piano    # each piano learnt from all of its pieces
    python benchmarks/separation.py --pianos FOLDER --noise 20    # the same, in white noise 20 dB below each recording
    python benchmarks/separation.py --iterations    # what N_ITER does to the cost and to the sound

Every setting takes every example of examples/ apart, on the piano of the templates (matched) and on another one
(mismatched). Prints the tables, writes them into benchmarks/README.md between its markers, and draws
images/separation.png from them. About twenty minutes on two cores.

With --pianos the examples are played on each piano of FOLDER, too, which has recordings of its notes in a folder for
each layer of velocity, see tools/play_notes.py. Its basis is the suite's, and then one of its own softest layer.
Only what is recommended, what comes next and an oracle are measured. A second table has means over the pieces of each
group, and a third what is wrong with the worst stem, measured against the truth:

in it      a = sum s s_hat / sum s^2, how much of the note is in its stem
missing    share of the error's energy that is (1 - a) s, true sound that is not there
most from  the note that most of the rest, a s - s_hat, is like, how many semitones away it is, and its share of the
           error's energy: in every bin of the spectrogram the rest is shared out by the energies of the true sounds
list       how many of the note's onsets the list has, within 0.1 s, and how many others

With --lists the first 20 s of each list of notes of a folder, such as the truths of MAPS, are played on each piano,
too, by all layers but the softest: the basis of that is then another layer's. A piano of one layer has none. With
--in-a-row N, N lists after one another are one recording: what a piece of some minutes tells of its piano.

With --parts the model of the recommended setting gets the true rotations, spectra (the two columns that are best for
each note by Kullback-Leibler NMF), activations (the best with its columns) and what goes together: what each part of
the estimation costs.

With --same-piano, each piano is learnt from all of its pieces together before each of them is taken apart: mean and
worst SDR, and mean F of the lists at 50 ms.

With --iterations the recommended setting is stopped after 1, 2, 5, ... 200 iterations; this prints a table and draws
images/iterations.png, of the examples and, with --pianos, of the real pianos too.

With --leave-out, parts of the recommended setting are left out one at a time, and the tables say what each is worth:
mean SDR, and the piece that loses most. With two pianos that is some fifty minutes of one core. --examples adds pieces
on other pianos, in a folder laid out as examples/ is.

Only pitches that occur in a piece are scored, and four figures in dB tell of each, s being its true sound, s_hat
what the setting gives and y the recording:

SDR   10 log10(sum s^2 / sum (s - s_hat)^2), which forgives nothing
SDR*, SIR, SAR   BSS Eval (E. Vincent, R. Gribonval and C. Fevotte, IEEE TASLP 2006) by fast_bss_eval, of the pair
      s_hat, y - s_hat against the pair s, y - s: what a filter of 512 taps (23 ms) can make of s counts as the note,
      what such filters can make of y - s besides as interference, and the rest as artefacts; SDR* is the note
      against both, SIR against interference, SAR the two of them against artefacts; a silent stem has 0 dB, as of SDR
"""

import argparse
import contextlib
import itertools
import multiprocessing
import re
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple
from unittest import mock

import numpy as np
import soundfile
import soxr
from threadpoolctl import threadpool_limits
from tqdm import tqdm

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tools")]

import play_notes  # noqa: E402
import transcription  # noqa: E402

import make_init_H  # noqa: E402
import utils  # noqa: E402
from piano import adapt, blocks, events, learn, notes, phase, pitch, recording  # noqa: E402
from piano import separate as stems_of  # noqa: E402
from piano.basis import Basis, load  # noqa: E402
from piano.separate import Strikes, component_notes, fresh_onsets, masked_notes  # noqa: E402

SR = 22050
N_FFT = 2048  # samples, where a setting does not say otherwise; frames are a quarter of it apart
N_ITER = 200
PIANOS = "matched", "mismatched"
MAIN_EXAMPLE = "chorale"  # the one with all four figures, and the one in the chart
FIGURES = "SDR", "SDR*", "SIR", "SAR"
SILENT = 1e-6  # energy of a stem, relative to that of its note
SOLVER_ITERATIONS = 100  # medians are then within 0.1 dB of an exact solution, which NumPy 2 keeps fast_bss_eval from
BEGIN, END = "<!-- separation: begin -->", "<!-- separation: end -->"  # around what this writes into a page
FIGURES_HEADING = f"### The {MAIN_EXAMPLE}: median / mean over its notes, in dB"
SDR_HEADING = "### All three pieces: median / mean SDR over the notes, in dB"
PAGE = ROOT / "benchmarks" / "README.md"
COLOURS = {"matched": "#3b0f70", "mismatched": "#f4a261"}


class Setting(NamedTuple):
    """A way of taking a recording apart."""

    name: str
    states: int | None  # columns of the basis for each note; None for an oracle that needs no basis
    separate: Callable  # from Y, a Basis, true spectrograms to blocks of spectrograms of those notes
    n_fft: int = N_FFT
    oracle: bool = False
    told: str | None = None  # which list of notes ``separate`` is given besides: "listed" by the suite, or "true"


# --- Ways of taking a recording apart -----------------------------------------------------------------


def model_parts(Y, basis, truth, *, start):
    """``sum_{l in n} H U P`` of a complex NMF; from the mixture phase, P = Y/|Y|, this is the plain model."""
    for part in utils.complex_nmf_blocks(Y, basis.H, N_ITER, phase_init=start):
        yield (
            sum(np.outer(basis.H[:, l], part.U[l]) * part.P[part.row[l]] for l in basis.notes[note]) for note in truth
        )


def components(Y, basis, truth, _=None, *, start, n_iter=N_ITER):
    """``sum_{l in n} X``, the parts of the model and their shares of what it leaves."""
    for part in utils.complex_nmf_blocks(Y, basis.H, n_iter, phase_init=start):
        yield blocks.in_threads(component_notes(Y[:, part.frames], basis, part), truth)


def masked(Y, basis, truth, played=None, *, loss, mask, strength=None):
    """The notes' shares of Y by NMF."""
    prior = None
    if strength is not None:
        basis, _, prior = adapt.adapt_basis(Y, basis, strength, played)
    U, _ = utils.nmf(Y, basis.H, N_ITER, loss=loss, prior=prior)
    for of_note in masked_notes(Y, basis, U, mask=mask):
        yield blocks.in_threads(of_note, truth)


def smoothed(Y, basis, truth, played=None, *, strength=None):
    """``sum_{l in n} X`` from the phases of smoothed notes, which are held."""
    basis, start = started(Y, basis, played, strength)
    yield from components(Y, basis, truth, start=start)


def started(Y, basis, played=None, strength=None):
    """The basis, adapted where there is a ``strength``, and the phases of smoothed notes."""
    prior = None
    if strength is not None:
        basis, strength, prior = adapt.adapt_basis(Y, basis, strength, played)
    return phase.start(Y, basis, strength=strength, prior=prior)


def model_with_true_phases(Y, basis, truth, *, loss):
    """NMF's magnitude model of each note, with the phases of its true spectrogram."""
    U, _ = utils.nmf(Y, basis.H, N_ITER, loss=loss)
    parts = {note: basis.H[:, basis.notes[note]] @ U[basis.notes[note]] for note in truth}
    yield [parts[note] * utils.unit_phase(X) for note, X in truth.items()]


def true_magnitudes(Y, basis, truth):
    yield [np.abs(X) * utils.unit_phase(Y) for X in truth.values()]


def true_masks(Y, basis, truth, *, mask):
    """The notes' shares of Y by their true magnitudes: every note its own basis, one frame at a time."""
    for m in range(Y.shape[1]):
        A = np.stack([np.abs(X[:, m]) for X in truth.values()], axis=1)  # (K, notes)
        A = np.maximum(A, np.finfo(A.dtype).tiny)  # of silence all have the same share
        ones = np.ones((len(truth), 1), A.dtype)
        (of_note,) = masked_notes(Y[:, m : m + 1], Basis(A), ones, mask=mask)
        yield list(map(of_note, range(len(truth))))


LOSSES = {"Euclidean": "frobenius", "KL": "kullback-leibler", "IS": "itakura-saito"}


def nmf_settings(names, states, n_fft=N_FFT, strength=None):
    adapted = ", adapted" if strength else ""
    return [
        Setting(
            f"NMF, {name}, {mask} mask{adapted}",
            n,
            partial(masked, loss=LOSSES[name], mask=mask.lower(), strength=strength),
            n_fft,
        )
        for name, mask, n in itertools.product(names, ("ratio", "Wiener"), states)
    ]


def smoothed_settings(states, n_fft, strength=None, told=None):
    name = f"CNMF, sinusoidal{', adapted' if strength else ''}{f', {told} notes' if told else ''}"
    return [Setting(name, n, partial(smoothed, strength=strength), n_fft, told=told) for n in states]


PLAIN = Setting("CNMF, mixture phase: H U Y/abs(Y)", 1, partial(model_parts, start=utils.mixture_phases()))
SETTINGS = [
    PLAIN,
    PLAIN._replace(states=3),
    *nmf_settings(["Euclidean"], (1, 3)),
    *nmf_settings(["KL"], (1, 2, 3)),
    *nmf_settings(["IS"], (1, 3)),
    *nmf_settings(["KL"], (1, 2, 3), 4096),
    *nmf_settings(["KL"], (1, 2, 3), 8192),
    *nmf_settings(["KL"], (2,), 8192, "auto"),
    *smoothed_settings((1, 2, 3), 2048),
    *smoothed_settings((2, 3), 4096),
    *smoothed_settings((2, 3), 8192),
    *smoothed_settings((2,), 2048, "auto"),
    *smoothed_settings((2,), 4096, "auto"),
    *smoothed_settings((1, 2, 3), 8192, "auto"),
    *smoothed_settings((2,), 8192, "auto", "listed"),
    *smoothed_settings((2,), 8192, "auto", "true"),
    *(
        Setting(f"CNMF, random start: {part}", states, partial(separate, start=utils.random_phases()))
        for (part, separate), states in itertools.product({"H U P": model_parts, "X": components}.items(), (1, 3))
    ),
    Setting("true magnitudes, mixture phase", None, true_magnitudes, oracle=True),
    Setting("true ratio mask", None, partial(true_masks, mask="ratio"), oracle=True),
    Setting("true Wiener mask", None, partial(true_masks, mask="wiener"), oracle=True),
    *(
        Setting("KL model, true phases", n, partial(model_with_true_phases, loss=LOSSES["KL"]), oracle=True)
        for n in (1, 3)
    ),
]
RECOMMENDED = "CNMF, sinusoidal, adapted, listed notes", 2, 8192  # name, states, n_fft
RIVAL = "NMF, KL, Wiener mask"  # with the basis as it is, and the states and the n_fft that suit it best
ON_PIANOS = {  # columns of the table of all pianos
    "KL and Wiener mask": ("NMF, KL, Wiener mask", 2, 8192),
    "recommended": RECOMMENDED,
    "recommended, told the true notes": ("CNMF, sinusoidal, adapted, true notes", 2, 8192),
    "oracle: true Wiener mask": ("true Wiener mask", None, N_FFT),
}
WITH_BSS_EVAL = "recommended", "oracle: true Wiener mask"  # columns that come with SDR*, too
GROUPS = {  # of pieces on pianos
    "matched": "the templates' own piano",
    "other": "other SoundFonts",
    "real": "real pianos",
    "own": "real pianos, basis of their own softest layer",
    "performed": "real pianos, real performances",
    "performed, own": "real pianos, real performances, basis of another layer",
}
SECONDS = 20  # of a performance
STRIKE_S, LEAST_EARLY = 0.1, -35  # s before a strike and after it, and dB of the one to the other that are too much
TEMPLATE_S = 2.5  # of a layer's notes, as long as the suite's templates
ITERATIONS = 1, 2, 5, 10, 20, 50, 100, 200  # after which the recommended setting is listened to
PROCESSES = 2
PARTS = "", "rotations", "spectra", "activations", "spectra, activations", "spectra, activations, rotations"
TRUTH_SWEEPS = 60  # of NMF towards the true spectra
TOLERANCE_S = 0.1  # between the onset of a note in the truth and in the list
CHART = {  # bars of the chart, two for each: name, states and n_fft of a row of the table
    "CNMF.py, random phases": ("CNMF, random start: X", "1", "2048"),
    "complex NMF, plain model": (PLAIN.name, "1", "2048"),
    "NMF.py --solver mu": ("NMF, Euclidean, Wiener mask", "1", "2048"),
    "CNMF.py, recommended": tuple(map(str, RECOMMENDED)),
    "ideal Wiener mask (knows the truth)": ("oracle: true Wiener mask", "", "2048"),
}


# --- What is measured ---------------------------------------------------------------------------------


def learn_basis(n_fft, states, templates=ROOT / "basis_wav_piano", *options):
    """Learn a :class:`Basis` from templates, with more options for make_init_H.py."""
    with tempfile.TemporaryDirectory() as folder:
        options = ["--n-fft", n_fft, "--hop-length", n_fft // 4, "--states", states, "-o", folder, *options]
        make_init_H.main([str(templates), "--quiet", *map(str, options)])
        return load(Path(folder) / "fixed_basis.npy", with_rotation=True)


def read_piece(folder):
    """A recording [shape=(n,)], and by MIDI number, in order of pitch, the true sounds of its notes."""
    files = recording.audio_files(folder / "stems")
    stems = {pitch.midi_of_name(path.stem): recording.load(path, SR) for path in files}
    return recording.load(folder / "mixture.flac", SR), stems


def listed(y, basis):
    """The notes of a recording as the suite lists them; None where the basis has no patterns."""
    if basis.patterns is None:
        return None
    return notes.listed(soxr.resample(y, SR, events.SR), basis)[0]


def separate(setting, y, stems, basis, told=None):
    """What a setting takes the notes of ``stems`` for [shape=(notes, n)]; ``told`` has lists of notes by name."""
    transform = {"n_fft": setting.n_fft, "hop": setting.n_fft // 4}
    Y, truth = recording.stft(y, **transform), {note: recording.stft(s, **transform) for note, s in stems.items()}
    played = [told[setting.told]] if setting.told else []
    parts = zip(*map(list, setting.separate(Y, basis, truth, *played)), strict=True)
    estimates = np.stack([recording.istft(np.concatenate(pieces, axis=1), len(y), **transform) for pieces in parts])
    return silenced(estimates, stems, played[0], setting.n_fft) if played and played[0] else estimates


def silenced(estimates, stems, listed, n_fft):
    """Estimates that are silent before their keys are struck, as stems are written."""
    struck = fresh_onsets(listed, SR)
    return Strikes([struck.get(note, ()) for note in stems], n_fft, SR).add(estimates, last=True)


def sdr(s, s_hat):
    """10 log10(sum s^2 / sum (s - s_hat)^2) in dB."""
    s, s_hat = s.astype(np.float64), s_hat.astype(np.float64)
    return 10 * np.log10(np.sum(s**2) / np.sum((s - s_hat) ** 2))


def bss_eval(s, s_hat, y):
    """SDR*, SIR and SAR in dB of one note, the rest of the recording being the other source."""
    import fast_bss_eval

    if np.sum(s_hat**2) < SILENT * np.sum(s**2):
        return [0.0] * 3
    pairs = (np.stack([sound, y - sound]).astype(np.float64) for sound in (s, s_hat))
    scores = fast_bss_eval.bss_eval_sources(*pairs, compute_permutation=False, use_cg_iter=SOLVER_ITERATIONS)
    return [float(score[0]) for score in scores]


def figures(stems, estimates, y, *, with_bss_eval=False):
    """Figures of every note [shape=(1 or 4, notes)], in dB."""
    rows = []
    for s, s_hat in zip(stems.values(), estimates, strict=True):
        rows.append([sdr(s, s_hat), *(bss_eval(s, s_hat, y) if with_bss_eval else ())])
    return np.transpose(rows)


def setting_of(row):
    """The setting of that name, states and n_fft."""
    return next(s for s in SETTINGS if (s.name, s.states, s.n_fft) == row)


# --- What is written ----------------------------------------------------------------------------------


def markdown(header, rows):
    """A table."""
    header, *lines = (f"| {' | '.join(row)} |" for row in (header, *rows))
    return "\n".join([header, f"|{'---|' * (header.count(' | ') + 1)}", *lines])


def table(header, cells):
    """A table with one row for each setting; ``cells(i)`` are those of setting i."""
    rows = []
    for i, setting in enumerate(SETTINGS):
        name = f"oracle: {setting.name}" if setting.oracle else setting.name
        rows.append([name, str(setting.states or ""), str(setting.n_fft), *cells(i)])
    return markdown(["", "states", "n_fft", *header], rows)


def figures_table(scores):
    """Median and mean over the notes of the main example, of the four figures on both pianos."""
    header = [f"{figure}, {piano}" for piano in PIANOS for figure in FIGURES]
    return table(
        header,
        lambda i: [
            f"{np.median(values):.1f} / {np.mean(values):.1f}"
            for piano in PIANOS
            for values in scores[MAIN_EXAMPLE, piano][i]
        ],
    )


def sdr_table(scores):
    """Median and mean SDR of every example on both pianos."""
    header = [f"{example}, {piano}" for example, piano in scores]
    return table(header, lambda i: [f"{np.median(s[i][0]):.1f} / {np.mean(s[i][0]):.1f}" for s in scores.values()])


def recommendation(scores):
    """What the recommended setting has on every example, in mean and median SDR, beside what else there is."""
    chosen, plain = SETTINGS.index(setting_of(RECOMMENDED)), SETTINGS.index(PLAIN)
    rows = []
    for key, values in scores.items():

        def cell(i, values=values):
            return f"{np.mean(values[i][0]):.2f} / {np.median(values[i][0]):.2f}"

        rivals = [i for i, s in enumerate(SETTINGS) if s.name == RIVAL]
        best = max(rivals, key=lambda i, values=values: np.mean(values[i][0]))
        rows.append([", ".join(key), cell(chosen), f"{cell(best)} ({chart_label(SETTINGS[best])})", cell(plain)])
    name, states, n_fft = RECOMMENDED
    said = f"**Recommended: {name}, {states} states, n_fft {n_fft}.** Mean and median SDR over the notes, in dB:"
    return f"{said}\n\n{markdown(['', 'recommended', 'KL and Wiener mask, at its best', 'plain model'], rows)}"


def read_medians(page):
    """Median SDR of each row of :func:`sdr_table` in a page: ``(name, states, n_fft)`` to ``{column: dB}``."""
    lines = page[page.index(SDR_HEADING) :].splitlines()
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines if line.startswith("|")]
    header, _, *rows = itertools.takewhile(lambda row: len(row) == len(rows[0]), rows)
    return {
        tuple(row[:3]): {name: float(cell.split("/")[0]) for name, cell in zip(header[3:], row[3:], strict=True)}
        for row in rows
    }


def draw(path, medians):
    """Draw the settings of ``CHART`` on both pianos of the main example, from :func:`read_medians`."""
    from matplotlib.figure import Figure

    places = np.arange(len(CHART))
    figure = Figure(figsize=(8, 3.6), layout="constrained")
    axes = figure.subplots()
    for piano, shift, label in zip(PIANOS, (-0.2, 0.2), ("the templates' piano", "another piano"), strict=True):
        values = [medians[row][f"{MAIN_EXAMPLE}, {piano}"] for row in CHART.values()]
        bars = axes.barh(places + shift, values, height=0.38, color=COLOURS[piano], label=label)
        axes.bar_label(bars, fmt="%.1f", padding=2, fontsize=9)
    axes.set_yticks(places, list(CHART))
    axes.invert_yaxis()
    axes.margins(x=0.1)
    axes.grid(axis="x", alpha=0.3)
    axes.set_axisbelow(True)
    axes.set_xlabel(f"SDR in dB, median over the notes of the {MAIN_EXAMPLE}; more is better")
    figure.legend(loc="outside upper right", ncols=2, frameon=False)
    figure.savefig(path, dpi=150)


def chart_label(setting):
    states = {None: "", 1: ", 1 state"}.get(setting.states, f", {setting.states} states")
    return setting.name + states + (f", n_fft {setting.n_fft}" if setting.n_fft != N_FFT else "")


def put_between_markers(path, text, begin=BEGIN, end=END):
    """Replace what stands between the markers of ``path``."""
    after, n = re.subn(
        rf"({begin}\n).*?({end})",
        lambda match: f"{match[1]}\n{text}\n\n{match[2]}",
        path.read_text(encoding="utf-8"),
        flags=re.DOTALL,
    )
    if n != 1:
        raise SystemExit(f"{path}: got {n} pairs of markers, expected one, {begin} and {end}")
    path.write_text(after, encoding="utf-8")


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--draw", action="store_true", help="only draw the chart, from the tables in benchmarks/README.md"
    )
    parser.add_argument("--pianos", metavar="FOLDER", type=Path, help="measure real pianos besides, see above")
    parser.add_argument("--examples", metavar="FOLDER", type=Path, help="with the above, more pieces, see above")
    parser.add_argument("--lists", metavar="LISTS", type=Path, help="with --pianos, what is performed, see above")
    parser.add_argument("--in-a-row", metavar="N", type=int, default=1, help="lists of a recording, see above")
    parser.add_argument("--noise", metavar="DB", type=float, help="white noise DB below each recording, see above")
    parser.add_argument("--parts", action="store_true", help="replace parts of the estimation by the truth, see above")
    parser.add_argument("--leave-out", action="store_true", help="leave out parts of what is recommended, see above")
    parser.add_argument("--same-piano", action="store_true", help="learn from several pieces together, see above")
    parser.add_argument("--iterations", action="store_true", help="stop what is recommended early, see above")
    args = parser.parse_args(argv)
    if args.iterations:
        results = over_cases(measure_iterations, read_cases(args.pianos, args.examples, args.lists, args.in_a_row))
        print(f"\n{iterations_table(results)}")
        draw_iterations(ROOT / "images" / "iterations.png", results)
        return
    if args.pianos or args.examples or args.leave_out or args.parts or args.noise is not None:
        cases = read_cases(args.pianos, args.examples, args.lists, args.in_a_row)
        cases = cases if args.noise is None else [noisy(case, args.noise) for case in cases]
        measure, text = (measure_left_out, left_out_table) if args.leave_out else (measure_case, pianos_tables)
        measure, text = (measure_parts, parts_table) if args.parts else (measure, text)
        if args.same_piano:
            measure, text, cases = measure_learnt, learnt_table, list(learnt_together(cases))
        print(f"\n{text(over_cases(measure, cases))}")
        return
    if not args.draw:
        text = tables(measure_all())
        print(f"\n{text}")
        put_between_markers(PAGE, text)
    draw(ROOT / "images" / "separation.png", read_medians(PAGE.read_text(encoding="utf-8")))


def example_names():
    return sorted(path.name for path in (ROOT / "examples").iterdir() if path.is_dir())


# --- All pianos ---------------------------------------------------------------------------------------


class Case(NamedTuple):
    """A piece on a piano, the true sound of every pitch, and the basis that it is taken apart with."""

    piece: str
    piano: str
    group: str  # one of GROUPS
    y: np.ndarray
    stems: dict
    basis: Basis
    played: list

    @property
    def name(self):
        return f"{self.piece}, {self.piano}{', own basis' if self.group.endswith('own') else ''}"


def read_cases(pianos=None, examples=None, lists=None, n=1):
    """Every piece of examples/ and of a folder like it as they are; each of examples/, and n lists, on each piano."""
    _, states, n_fft = RECOMMENDED
    suites, cases = learn_basis(n_fft, states, ROOT / "basis_wav_piano", "--keys", "A0", "C8"), []
    for folder in filter(None, (ROOT / "examples", examples)):
        for path in sorted(folder.glob("*/*/mixture.flac")):
            piece, piano = path.parts[-3:-1]
            played, group = notes.read_score(folder / piece / "notes.csv"), "matched" if piano == "matched" else "other"
            cases.append(Case(piece, piano, group, *read_piece(path.parent), suites, played))
    examples = {piece: notes.read_score(ROOT / "examples" / piece / "notes.csv") for piece in example_names()}
    for piano in sorted(path for path in pianos.iterdir() if path.is_dir()) if pianos else ():
        layers = play_notes.read_layers(piano)
        bases = {"": suites} | ({"own": basis_of_layer(n_fft, states, layers[0])} if layers[1:] else {})
        for kind, basis in bases.items():
            for piece, played in examples.items():
                cases.append(played_case(piece, piano.name, kind or "real", layers, basis, played))
            for piece, played in in_a_row(performances(lists, layers), n).items() if lists else ():
                group = ", ".join(filter(None, ("performed", kind)))
                cases.append(played_case(piece, piano.name, group, layers[1:] or layers, basis, played))
    if len({case.name for case in cases}) < len(cases):
        raise SystemExit("got two pieces with one name on pianos with one name, expected different ones")
    return cases


def performances(lists, layers):
    """The first ``SECONDS`` of each list of a folder, by name, without the notes that a layer lacks."""
    found = {}
    for path in sorted(lists.glob("*.csv")):
        played = [note for note in notes.read_score(path) if note.onset < SECONDS and near(note, layers)]
        found[path.stem] = [note._replace(offset=min(note.offset, SECONDS)) for note in played]
    return found


def in_a_row(performances, n):
    """So many performances after one another as one, in order, by the name of the first."""
    found, names = {}, list(performances)
    for first, *others in (names[i : i + n] for i in range(0, len(names), n)):
        found[first] = [
            note._replace(onset=note.onset + later, offset=note.offset + later)
            for later, name in zip(itertools.count(0, SECONDS), (first, *others), strict=False)
            for note in performances[name]
        ]
    return found


def near(note, layers):
    """Whether every layer has a recording near enough to play a note with."""
    return all(min(abs(midi - note.midi) for midi in layer) <= play_notes.FARTHEST for layer in layers)


def played_case(piece, piano, group, layers, basis, played):
    """A :class:`Case` of a list that is played."""
    stems = play_notes.play(played, layers)
    gain = play_notes.PEAK / np.abs(sum(stems.values())).max()
    stems = {midi: (gain * s).astype(np.float32) for midi, s in stems.items()}
    return Case(piece, piano, group, sum(stems.values()), stems, basis, played)


def noisy(case, noise_db):
    """A :class:`Case` in white noise that is so many dB below it."""
    noise = play_notes.added(case.y, (1, np.inf), noise_db, np.random.default_rng(0))
    return case._replace(y=(case.y + noise).astype(np.float32))


def over_cases(function, cases):
    """``(case, function(case))`` of each, in a few processes that use one core each."""
    context = multiprocessing.get_context("spawn")  # a fork would have threads of BLAS that do not run
    with ProcessPoolExecutor(PROCESSES, context, use_one_core) as pool:
        pool.submit(compile_kernels, cases[0]).result()  # or both processes would write numba's cache
        return list(zip(cases, tqdm(pool.map(function, cases), "Pieces", len(cases)), strict=True))


def use_one_core():
    blocks.core_limit.set(1)
    threadpool_limits(1, user_api="blas")


def compile_kernels(case):
    """Take the first two seconds apart."""
    start = {midi: s[: 2 * SR] for midi, s in case.stems.items()}
    separate(setting_of(RECOMMENDED), case.y[: 2 * SR], start, case.basis, lists(case))


def lists(case):
    return {"true": case.played, "listed": listed(case.y, case.basis)}


def measure_case(case):
    """Figures of every note by column of ``ON_PIANOS``, the row of the table of worst stems, and what strikes tell."""
    told, scores = lists(case), {}
    for name, row in ON_PIANOS.items():
        estimates = separate(setting_of(row), case.y, case.stems, case.basis, told)
        scores[name] = figures(case.stems, estimates, case.y, with_bss_eval=name in WITH_BSS_EVAL)
        if name == "recommended":
            worst = worst_stem(case, estimates, scores[name][0], told["listed"])
            early = before_strikes(case, estimates)
    return scores, worst, early


def before_strikes(case, estimates):
    """How loud stems are in the ``STRIKE_S`` before a note is struck, in dB of the same time after, each strike.

    Of those before which the true sound is silent, and so should the stem be.
    """
    n, level = round(STRIKE_S * SR), []
    for note in case.played:
        i, onset = list(case.stems).index(note.midi), round(note.onset * SR)
        truth, stem = case.stems[note.midi], estimates[i]
        if onset >= n and not truth[onset - n : onset].any():
            before, after = (np.sum(np.square(stem[m : m + n], dtype=np.float64)) for m in (onset - n, onset))
            if after:  # what has no stem there has no attack
                level.append(10 * np.log10(max(before / after, 1e-12)))
    return np.array(level)


def worst_stem(case, estimates, sdrs, found):
    """Name and SDR of the stem with the least, and what is wrong with it, as cells of a table."""
    i = int(np.argmin(sdrs))
    midi = list(case.stems)[i]
    kept, missing, shares = what_is_wrong(midi, estimates[i], case.stems)
    most = max(shares.keys() - {midi}, key=shares.get)
    return [
        pitch.note_name(midi),
        f"{sdrs[i]:.1f}",
        f"{kept:.0%}",
        f"{missing:.0%}",
        f"{pitch.note_name(most)} ({most - midi:+d}): {shares[most]:.0%}",
        in_list(*([note for note in score if note.midi == midi] for score in (case.played, found))),
    ]


def what_is_wrong(midi, s_hat, stems):
    """How much of a note is in its stem, and shares of the error's energy: what is missing, and what is like each note.

    Returns a, the share of (1 - a) s, and the shares of the rest by MIDI number, see the top of this module. All
    shares together are 1.
    """
    sounds = {note: s.astype(np.float64) for note, s in stems.items()}
    s = sounds[midi]
    kept = np.sum(s * s_hat) / np.sum(s**2)
    missing = (1 - kept) ** 2 * np.sum(s**2) / np.sum((s - s_hat) ** 2)
    transform = {"n_fft": RECOMMENDED[-1], "hop": RECOMMENDED[-1] // 4}
    rest, *powers = (np.abs(recording.stft(x, **transform)) ** 2 for x in (kept * s - s_hat, *sounds.values()))
    total = sum(powers)
    of_unit = rest / np.maximum(total, SILENT**2 * total.max())
    shares = np.array([np.sum(of_unit * power, dtype=np.float64) for power in powers])
    shares *= (1 - missing) / max(shares.sum(), np.finfo(np.float64).tiny)
    return kept, missing, dict(zip(sounds, shares, strict=True))


def in_list(played, found):
    """How many onsets of one key were found, and what else was listed; each is taken for one note at most."""
    left = [note.onset for note in found]
    for note in played:  # in order of onset, and so is what is left
        near = [onset for onset in left if abs(onset - note.onset) <= TOLERANCE_S]
        if near:
            left.remove(near[0])
    n_found = len(found) - len(left)
    return f"{n_found} of {len(played)} found" + (f", {len(left)} false" if left else "")


def pianos_tables(results):
    """Tables of every piece, of the means over the pieces of each group, and of the worst stems."""
    header = [f"{name}: {figure}" for name in ON_PIANOS for figure in FIGURES[: 1 + (name in WITH_BSS_EVAL)]]
    values = {case.name: means_and_medians(scores) for case, (scores, *_) in results}
    rows = [[name, *(f"{mean:.2f} / {median:.2f}" for mean, median in cells)] for name, cells in values.items()]
    summary = []
    for group, members in by_group([case for case, _ in results]).items():
        of_pieces = np.array([values[case.name] for case in members])  # (pieces, figures, 2)
        worst = [members[i].name for i in of_pieces[:, :, 0].argmin(axis=0)]
        cells = [
            f"{np.mean(x):.2f}, worst {np.min(x):.2f} ({name})"
            for x, name in zip(of_pieces[:, :, 0].T, worst, strict=True)
        ]
        early = np.concatenate([levels for case, (*_, levels) in results if case.group == group])
        cells.append(f"{np.median(early):.0f} dB, {np.mean(early > LEAST_EARLY):.0%} of {len(early)}")
        summary.append([f"{GROUPS[group]} ({len(members)})", *cells])
    worst = [[*case.name.split(", ", 1), *row] for case, (_, row, _) in results]
    parts = [
        "### Each piece: mean / median over its notes, in dB",
        markdown(["", *header], rows),
        "### Means over the pieces of their means, in dB",
        markdown(["", *header, f"recommended: before a strike, and above {LEAST_EARLY} dB"], summary),
        "### The worst stem of each piece, as recommended",
        markdown(["piece", "piano", "worst stem", "SDR", "in it", "missing", "most from", "list"], worst),
    ]
    return "\n\n".join(parts)


def means_and_medians(scores):
    """Over the notes, of each column of figures [shape=(columns, 2)]."""
    rows = [row for name in ON_PIANOS for row in scores[name][:2]]  # SDR, and SDR* where it was measured
    return np.array([(np.mean(row), np.median(row)) for row in rows])


def by_group(cases):
    """The cases of each group that has any, by its name."""
    groups = {group: [case for case in cases if case.group == group] for group in GROUPS}
    return {group: members for group, members in groups.items() if members}


# --- One piano, learnt from several pieces --------------------------------------------------------------


def learnt_together(cases):
    """Each case as it is, and with the basis that all cases of its piano tell together."""
    for (piano, group), members in itertools.groupby(cases, key=lambda case: (case.piano, case.group)):
        members = list(members)
        yield from (case._replace(group=f"{piano}, {group}: alone") for case in members)
        with tempfile.TemporaryDirectory() as folder:
            paths = [Path(folder, f"{i}.wav") for i in range(len(members))]
            for path, case in zip(paths, members, strict=True):
                soundfile.write(path, case.y, SR, subtype="FLOAT")
            basis = learn.learn_together(paths, members[0].basis, smooth=True, stage=lambda name: None)
        group = f"{piano}, {group}: {len(members)} together, {sum(len(case.y) for case in members) / SR / 60:.1f} min"
        yield from (case._replace(group=group, basis=basis) for case in members)


def measure_learnt(case):
    """Mean SDR of a piece as recommended, and F of its list."""
    y = soxr.resample(case.y, SR, events.SR)
    found, _ = notes.listed(y, case.basis, learn=case.group.endswith("alone"))
    estimates = separate(setting_of(RECOMMENDED), case.y, case.stems, case.basis, {"listed": found})
    table, truth = (np.array([(n.onset, n.offset, n.midi, 0) for n in some]) for some in (found, case.played))
    F = transcription.judge(table[:, :3], truth, len(case.y) / SR)[2]
    return float(np.mean(figures(case.stems, estimates, case.y)[0])), F


def learnt_table(results):
    """Mean and worst SDR, and F, of each group."""
    rows = []
    for group, members in itertools.groupby(results, key=lambda result: result[0].group):
        sdr, F = np.array([values for _, values in members]).T
        rows.append([group, f"{sdr.mean():.2f}", f"{sdr.min():.2f}", f"{F.mean():.3f}"])
    return markdown(["learnt from", "mean SDR", "worst", "mean F"], rows)


# --- Parts of the estimation ----------------------------------------------------------------------------


def measure_parts(case):
    """Mean SDR in dB with each of ``PARTS`` replaced by the truth."""
    whole, played, means = setting_of(RECOMMENDED), listed(case.y, case.basis), []
    transform = {"n_fft": whole.n_fft, "hop": whole.n_fft // 4}
    Y, truth = (recording.stft(case.y, **transform), {n: recording.stft(s, **transform) for n, s in case.stems.items()})
    basis, strength, prior = adapt.adapt_basis(Y, case.basis, "auto", played)
    basis, _ = phase.start(Y, basis, strength=strength, prior=prior)
    for parts in PARTS:
        model, U = with_truth(Y, basis, truth, prior, parts)
        setting = whole._replace(separate=partial(components, start=phase.held(Y, U, model)))
        estimates = separate(setting, case.y, case.stems, model, {"listed": played})
        means.append(float(np.mean(figures(case.stems, estimates, case.y)[0])))
    return means


def with_truth(Y, basis, truth, prior, parts):
    """The basis, and activations for it, with parts of them as the true notes have them."""
    H, rotation = basis.H.copy(), basis.rotation.copy()
    for note, X in truth.items():
        l = basis.notes[note]
        if "spectra" in parts:
            H[:, l] = best_fit(np.abs(X), H[:, l], with_spectra=True)[0]
        if "rotations" in parts:
            cross, energy = np.sum(X[:, 1:] * X[:, :-1].conj(), axis=1), np.abs(X) ** 2
            now, before = energy[:, 1:].sum(axis=1), energy[:, :-1].sum(axis=1)
            rotation[:, l] = phase._rotation(cross, now, before)[:, None]
    U = phase.activations(Y, replace(basis, H=H), prior=prior)
    if "activations" in parts:
        U[:] = 0  # there is no noise
        for note, X in truth.items():
            U[basis.notes[note]] = best_fit(np.abs(X), H[:, basis.notes[note]])[1]
    return replace(basis, H=H, rotation=rotation), U


def best_fit(V, H, with_spectra=False):
    """H and U after ``TRUTH_SWEEPS`` sweeps of Kullback-Leibler NMF, of which H may be held."""
    H, level = H / H.sum(axis=0), H.sum(axis=0)
    U = utils.nmf(V, H, TRUTH_SWEEPS, loss=LOSSES["KL"])[0]
    for _ in range(TRUTH_SWEEPS if with_spectra else 0):
        R = V / np.maximum(H @ U, np.finfo(np.float32).tiny)
        H, U = H * (R @ U.T), U * (H.T @ R)
        H /= np.maximum(H.sum(axis=0), np.finfo(np.float32).tiny)
    return H * level, U / level[:, None]


def parts_table(results):
    """Mean SDR over the pieces of each group."""
    groups, means = by_group([case for case, _ in results]), {case.name: values for case, values in results}
    rows = [[parts or "nothing"] for parts in PARTS]
    for members, (i, row) in itertools.product(groups.values(), enumerate(rows)):
        row.append(f"{np.mean([means[case.name][i] for case in members]):.2f}")
    return markdown(["as in the truth", *(f"{GROUPS[group]} ({len(groups[group])})" for group in groups)], rows)


# --- Iterations ---------------------------------------------------------------------------------------


def measure_iterations(case):
    """Normalised cost after each iteration as recommended, and mean SDR in dB after each of ``ITERATIONS``."""
    whole = setting_of(RECOMMENDED)
    Y = recording.stft(case.y, n_fft=whole.n_fft, hop=whole.n_fft // 4)
    basis, start = started(Y, case.basis, listed(case.y, case.basis), "auto")
    slices = blocks.frame_slices(Y.shape[1], start.n_frames)
    begun = {frames.start: start.begin(start.job(frames)) for frames in slices}  # once for all
    start = start._replace(job=lambda frames: begun[frames.start], begin=lambda begun: begun)
    *_, last = utils.complex_nmf_blocks(Y, basis.H, ITERATIONS[-1], phase_init=start)
    means = []
    for n_iter in ITERATIONS:
        stopped = whole._replace(separate=partial(components, start=start, n_iter=n_iter), told=None)
        estimates = separate(stopped, case.y, case.stems, basis)
        means.append(float(np.mean(figures(case.stems, estimates, case.y)[0])))
    return utils.normalised(last.cost, 2 * utils.cost_scale(Y)), means


def iterations_table(results):
    """Normalised cost and mean SDR of every piece after each of ``ITERATIONS``."""
    rows = [
        [case.name, *(f"{cost[n - 1]:.4f} / {mean:.2f}" for n, mean in zip(ITERATIONS, means, strict=True))]
        for case, (cost, means) in results
    ]
    return markdown(["normalised cost / mean SDR, dB", *map(str, ITERATIONS)], rows)


def draw_iterations(path, results):
    """Draw both against the iterations, one line for each piece."""
    from matplotlib.figure import Figure

    pieces = list(dict.fromkeys(case.piece for case, _ in results))
    figure = Figure(figsize=(9, 4), layout="constrained")
    of_cost, of_sdr = figure.subplots(1, 2)
    for case, (cost, means) in results:
        style = {"marker": "osD^v"[pieces.index(case.piece) % 5], "markersize": 5, "linewidth": 1.5}
        style |= {"color": COLOURS.get(case.group, COLOURS["mismatched"])}
        of_cost.plot(ITERATIONS, cost[np.array(ITERATIONS) - 1], label=case.name, **style)
        of_sdr.plot(ITERATIONS, means, **style)
    of_cost.set_title("Normalised cost", loc="left", fontsize=11)
    of_sdr.set_title("SDR in dB, mean over the notes", loc="left", fontsize=11)
    for axes in (of_cost, of_sdr):
        axes.set(xscale="log", xlabel="Iterations (N_ITER)", ylim=(0, 1.05 * axes.dataLim.y1))
        axes.set_xticks(ITERATIONS, map(str, ITERATIONS))
        axes.minorticks_off()
        axes.grid(alpha=0.3)
    figure.legend(loc="outside upper center", ncols=3, frameon=False)
    figure.savefig(path, dpi=150)


# --- Parts left out -----------------------------------------------------------------------------------


def no_places(basis):
    return np.zeros((len(basis.notes) * adapt.N_PARTIALS, 1))


def no_factors(basis):
    return np.zeros((len(basis.notes), 1))


def as_masked(*_):
    """In the place of :func:`separate.quiet_before`."""


def templates_rotation(turns, rotation, strength):
    return rotation


def without_prior(Y, basis, *, original=phase.start, **options):
    return original(Y, basis, **options | {"prior": None})


def without_energies(H, U, energy, expected):
    return H, U


def every_frame(fit, T, *, alone=False, original=adapt._Fit.sweep):
    return original(fit, T)


def noise_of_one_bin(H):
    return np.column_stack([H, np.eye(len(H), dtype=H.dtype)[-1]])


def left_out():
    """Rows of the table: a setting each, and what is put in the place of attributes of modules meanwhile."""
    whole = setting_of(RECOMMENDED)
    with_strength = {s: whole._replace(separate=partial(smoothed, strength=s)) for s in (None, 20.0, adapt.FIRMEST)}
    return {
        "nothing": (whole, {}),
        "the list of notes": (whole._replace(told="none"), {}),
        "the list, in the last decomposition": (whole, {(phase, "start"): without_prior}),
        "energies of smoothed notes": (whole, {(phase, "with_energies"): without_energies}),
        "noise": (whole, {(adapt, "with_noise"): noise_of_one_bin}),
        "learning partials where they sound alone": (whole, {(adapt._Fit, "sweep"): every_frame}),
        "silence before a strike": (whole, {(stems_of, "quiet_before"): as_masked}),
        "places of partials": (whole, {(adapt, "cents_factor"): no_places}),
        "inharmonicity": (whole, {(adapt, "STIFFNESS"): (0, 0, 1e-6)}),
        "factors of partials": (whole, {(adapt, "level_factor"): no_factors}),
        "what keys tell of each other's factors": (whole, {(adapt, "NEAR_KEYS"): 0.01}),
        "each note's own deviation, and its rotation": (with_strength[adapt.FIRMEST], {}),
        "rotations of the recording": (whole, {(phase, "adapted_rotation"): templates_rotation}),
        "strength chosen by the recording: always 20": (with_strength[20.0], {}),
        "easing of the prior for loud notes": (whole, {(adapt, "QUIET"): 1e9}),
        "smoothing: KL and Wiener mask": (
            whole._replace(separate=partial(masked, loss=LOSSES["KL"], mask="wiener", strength="auto")),
            {},
        ),
        "adaptation": (with_strength[None], {}),
    }


@contextlib.contextmanager
def replaced(attributes):
    """Context in which attributes of modules, ``{(module, name): value}``, are others.

    Raises
    ------
    AttributeError, TypeError
        If a module has no such attribute, or calls a function otherwise than it is defined.
    RuntimeError
        If a function in the place of another was never called.
    """
    with contextlib.ExitStack() as stack:
        functions = []
        for (module, name), value in attributes.items():
            if callable(value):
                patch = mock.patch.object(module, name, autospec=True, side_effect=value)
                functions.append((name, stack.enter_context(patch)))
            else:
                stack.enter_context(mock.patch.object(module, name, value))
        yield
        for name, function in functions:
            if not function.called:
                raise RuntimeError(f"{name}: got no call, expected one")


def measure_left_out(case):
    """Mean SDR of a piece by row of :func:`left_out`."""
    told, means = lists(case) | {"none": None}, {}
    for name, (setting, attributes) in left_out().items():
        with replaced(attributes):
            estimates = separate(setting, case.y, case.stems, case.basis, told)
        means[name] = float(np.mean(figures(case.stems, estimates, case.y)[0]))
    return means


def left_out_table(results):
    """Mean SDR over the pieces of each group, and what the piece loses and gains that does so most."""
    groups, means = by_group([case for case, _ in results]), {case.name: values for case, values in results}
    rows = []
    for name in left_out():
        cells = [f"{np.mean([means[case.name][name] for case in members]):.2f}" for members in groups.values()]
        change = {case: values[name] - values["nothing"] for case, values in means.items()}
        extremes = [f"{change[case]:+.2f} ({case})" for case in (find(change, key=change.get) for find in (min, max))]
        rows.append([name, *cells, *(extremes if name != "nothing" else ["", ""])])
    header = [f"{GROUPS[group]} ({len(members)})" for group, members in groups.items()]
    return markdown(["left out", *header, "worst change of a piece", "best"], rows)


def basis_of_layer(n_fft, states, layer):
    """Learn a basis of all keys from recordings of notes by MIDI number; those between are transposed."""
    with tempfile.TemporaryDirectory() as folder:
        for midi in pitch.PIANO:
            near = min(layer, key=lambda other, midi=midi: abs(other - midi))
            y = recording.transpose(layer[near], SR, midi - near)[: round(TEMPLATE_S * SR)]
            soundfile.write(Path(folder, f"{pitch.note_name(midi)}.wav"), y, SR, subtype="FLOAT")
        return learn_basis(n_fft, states, Path(folder))


def measure_all():
    """Figures of every setting, by example and piano."""
    needed = sorted({(setting.n_fft, setting.states) for setting in SETTINGS if setting.states})
    bases = {key: learn_basis(*key) for key in tqdm(needed, "Bases")}
    scores = {}
    for key in itertools.product(example_names(), PIANOS):
        y, stems = read_piece(ROOT.joinpath("examples", *key))
        told = {"true": notes.read_score(ROOT / "examples" / key[0] / "notes.csv")}
        told["listed"] = listed(y, bases[RECOMMENDED[:0:-1]])
        scores[key] = []
        for setting in tqdm(SETTINGS, " ".join(key)):
            estimates = separate(setting, y, stems, bases.get((setting.n_fft, setting.states)), told)
            scores[key].append(figures(stems, estimates, y, with_bss_eval=key[0] == MAIN_EXAMPLE))
    return scores


def tables(scores):
    """What stands between the markers of benchmarks/README.md."""
    parts = [
        *("### The recommended setting", recommendation(scores)),
        *(FIGURES_HEADING, figures_table(scores)),
        *(SDR_HEADING, sdr_table(scores)),
    ]
    return "\n\n".join(parts)


if __name__ == "__main__":
    main()
