"""Separation quality: how near the suite's ways of taking a recording apart come to the true sound of each note.

    python benchmarks/separation.py
    python benchmarks/separation.py --draw    # measures nothing, draws the chart again from the tables
    python benchmarks/separation.py --pianos FOLDER    # real pianos; prints a table, writes nothing

Every setting takes every example of examples/ apart, on the piano of the templates (matched) and on another one
(mismatched). Prints the tables, writes them into benchmarks/README.md between its markers, and draws
images/separation.png from them. About twenty minutes on two cores.

With --pianos the examples are played on each piano of FOLDER, which has recordings of its notes in a folder for each
layer of velocity, see tools/play_notes.py. Its basis is the suite's, and then one of its own softest layer.
Only what is recommended, what comes next and an oracle are measured. About ten minutes on one core for two pianos.

Only pitches that occur in a piece are scored, and four figures in dB tell of each, s being its true sound, s_hat
what the setting gives and y the recording:

SDR   10 log10(sum s^2 / sum (s - s_hat)^2), which forgives nothing
SDR*, SIR, SAR   BSS Eval (E. Vincent, R. Gribonval and C. Fevotte, IEEE TASLP 2006) by fast_bss_eval, of the pair
      s_hat, y - s_hat against the pair s, y - s: what a filter of 512 taps (23 ms) can make of s counts as the note,
      what such filters can make of y - s besides as interference, and the rest as artefacts; SDR* is the note
      against both, SIR against interference, SAR the two of them against artefacts
"""

import argparse
import itertools
import re
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soxr
from tqdm import tqdm

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tools")]

import play_notes  # noqa: E402

import make_init_H  # noqa: E402
import utils  # noqa: E402
from piano import adapt, notes, phase, pitch, recording  # noqa: E402
from piano.basis import Basis, load  # noqa: E402
from piano.stems import component_notes, masked_notes  # noqa: E402

SR = 22050
N_FFT = 2048  # samples, where a setting does not say otherwise; frames are a quarter of it apart
N_ITER = 200
PIANOS = "matched", "mismatched"
MAIN_EXAMPLE = "chorale"  # the one with all four figures, and the one in the chart
FIGURES = "SDR", "SDR*", "SIR", "SAR"
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
    told: str | None = None  # the list of notes that ``separate`` is given besides: "listed" by the suite, or "true"


# --- Ways of taking a recording apart -----------------------------------------------------------------


def model_parts(Y, basis, truth, *, phase_init):
    """``sum_{l in n} H U P`` of a complex NMF; from the mixture phase, P = Y/|Y|, this is the plain model."""
    for _, U, P, *_ in utils.complex_nmf_blocks(Y, basis.H, N_ITER, phase_init=phase_init):
        yield (sum(np.outer(basis.H[:, l], U[l]) * P[l] for l in basis.notes[note]) for note in truth)


def components(Y, basis, truth, *, phase_init):
    """``sum_{l in n} X``, the parts of the model and their shares of what it leaves."""
    for frames, U, P, F, *_ in utils.complex_nmf_blocks(Y, basis.H, N_ITER, phase_init=phase_init):
        yield component_notes(Y[:, frames], basis, U, P, F, truth)


def masked(Y, basis, truth, played=None, *, loss, mask, strength=None):
    """The notes' shares of Y by NMF."""
    prior = None
    if strength is not None:
        basis, _, prior = adapt.adapt_basis(Y, basis, strength, played)
    return masked_notes(Y, basis, utils.nmf(Y, basis.H, N_ITER, loss=loss, prior=prior)[0], truth, mask=mask)


def smoothed(Y, basis, truth, played=None, *, strength=None):
    """The notes smoothed through time, with sinusoidal phases."""
    prior = None
    if strength is not None:
        basis, strength, prior = adapt.adapt_basis(Y, basis, strength, played)
    wanted = [list(basis.notes).index(note) for note in truth]
    for *_, X in phase.sinusoidal_blocks(Y, basis, N_ITER, strength=strength, prior=prior):
        yield X[wanted]


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
        ones = np.ones((len(truth), 1), A.dtype)
        yield from masked_notes(Y[:, m : m + 1], Basis(A), ones, range(len(truth)), mask=mask)


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


PLAIN = Setting("CNMF, mixture phase: H U Y/abs(Y)", 1, partial(model_parts, phase_init="mixture"))
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
        Setting(f"CNMF, random start: {part}", states, partial(separate, phase_init="random"))
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
ON_PIANOS = {  # rows of the table of real pianos
    "recommended": RECOMMENDED,
    "recommended, told the true notes": ("CNMF, sinusoidal, adapted, true notes", 2, 8192),
    "runner-up: KL, Wiener mask": ("NMF, KL, Wiener mask", 2, 8192),
    "oracle: true Wiener mask": ("true Wiener mask", None, N_FFT),
}
CHART = {  # bars of the chart, two for each: name, states and n_fft of a row of the table
    "CNMF.py, random phases": ("CNMF, random start: X", "1", "2048"),
    "complex NMF, plain model": (PLAIN.name, "1", "2048"),
    "NMF.py, defaults": ("NMF, Euclidean, Wiener mask", "1", "2048"),
    "CNMF.py, recommended": tuple(map(str, RECOMMENDED)),
    "ideal Wiener mask (knows the truth)": ("oracle: true Wiener mask", "", "2048"),
}


# --- What is measured ---------------------------------------------------------------------------------


def learn_basis(n_fft, states, templates=ROOT / "basis_wav_piano"):
    """Learn a :class:`Basis` from templates."""
    with tempfile.TemporaryDirectory() as folder:
        options = {"--n-fft": n_fft, "--hop-length": n_fft // 4, "--states": states, "-o": folder}
        make_init_H.main([str(templates), "--quiet", *(str(word) for option in options.items() for word in option)])
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
    return notes.listed(soxr.resample(y, SR, notes.EVENT_SR), basis)


def separate(setting, y, stems, basis, true_notes=None):
    """What a setting takes the notes of ``stems`` for [shape=(notes, n)]."""
    transform = {"n_fft": setting.n_fft, "hop": setting.n_fft // 4}
    Y, truth = recording.stft(y, **transform), {note: recording.stft(s, **transform) for note, s in stems.items()}
    inverse = recording.InverseSTFT(Y.shape[1], len(y), **transform)
    played = [] if setting.told is None else [listed(y, basis) if setting.told == "listed" else true_notes]
    pieces = [inverse.add(spectra) for spectra in setting.separate(Y, basis, truth, *played)]
    return np.concatenate([*pieces, inverse.finish()], axis=1)


def sdr(s, s_hat):
    """10 log10(sum s^2 / sum (s - s_hat)^2) in dB."""
    s, s_hat = s.astype(np.float64), s_hat.astype(np.float64)
    return 10 * np.log10(np.sum(s**2) / np.sum((s - s_hat) ** 2))


def bss_eval(s, s_hat, y):
    """SDR*, SIR and SAR in dB of one note, the rest of the recording being the other source."""
    import fast_bss_eval

    pairs = (np.stack([sound, y - sound]).astype(np.float64) for sound in (s, s_hat))
    scores = fast_bss_eval.bss_eval_sources(*pairs, compute_permutation=False, use_cg_iter=SOLVER_ITERATIONS)
    return [float(score[0]) for score in scores]


def measure(setting, y, stems, basis, true_notes=None, *, with_bss_eval=False):
    """Figures of every note [shape=(1 or 4, notes)], in dB."""
    rows = []
    for s, s_hat in zip(stems.values(), separate(setting, y, stems, basis, true_notes), strict=True):
        rows.append([sdr(s, s_hat), *(bss_eval(s, s_hat, y) if with_bss_eval else ())])
    return np.transpose(rows)


# --- What is written ----------------------------------------------------------------------------------


def table(header, cells):
    """Markdown of a table with one row for each setting; ``cells(i)`` are those of setting i."""
    rows = [["", "states", "n_fft", *header]]
    for i, setting in enumerate(SETTINGS):
        name = f"oracle: {setting.name}" if setting.oracle else setting.name
        rows.append([name, str(setting.states or ""), str(setting.n_fft), *cells(i)])
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([lines[0], f"|{'---|' * len(rows[0])}", *lines[1:]])


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
    chosen = next(i for i, s in enumerate(SETTINGS) if (s.name, s.states, s.n_fft) == RECOMMENDED)
    plain = SETTINGS.index(PLAIN)
    rows = [["", "recommended", "KL and Wiener mask, at its best", "plain model"]]
    for key, values in scores.items():

        def cell(i, values=values):
            return f"{np.mean(values[i][0]):.2f} / {np.median(values[i][0]):.2f}"

        rivals = [i for i, s in enumerate(SETTINGS) if s.name == RIVAL]
        best = max(rivals, key=lambda i, values=values: np.mean(values[i][0]))
        rows.append([", ".join(key), cell(chosen), f"{cell(best)} ({chart_label(SETTINGS[best])})", cell(plain)])
    lines = [f"| {' | '.join(row)} |" for row in rows]
    name, states, n_fft = RECOMMENDED
    return "\n".join(
        [
            f"**Recommended: {name}, {states} states, n_fft {n_fft}.** Mean and median SDR over the notes, in dB:",
            "",
            lines[0],
            "|---|---|---|---|",
            *lines[1:],
        ]
    )


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
    parser.add_argument("--pianos", metavar="FOLDER", type=Path, help="measure real pianos instead, see above")
    args = parser.parse_args(argv)
    if args.pianos:
        print(f"\n{pianos_table(measure_pianos(args.pianos))}")
        return
    if not args.draw:
        text = tables(measure_all())
        print(f"\n{text}")
        put_between_markers(PAGE, text)
    draw(ROOT / "images" / "separation.png", read_medians(PAGE.read_text(encoding="utf-8")))


def example_names():
    return sorted(path.name for path in (ROOT / "examples").iterdir() if path.is_dir())


def measure_pianos(folder):
    """SDR of every note [shape=(notes,)] by ``(row of ON_PIANOS, example, piano, basis)``."""
    rows = {name: next(s for s in SETTINGS if (s.name, s.states, s.n_fft) == row) for name, row in ON_PIANOS.items()}
    _, states, n_fft = RECOMMENDED
    suites, scores = learn_basis(n_fft, states), {}
    for piano in tqdm(sorted(path for path in folder.iterdir() if path.is_dir()), "Pianos"):
        layers = play_notes.read_layers(piano)
        bases = {"the suite's": suites, "its own": basis_of_layer(n_fft, states, layers[0])}
        for example in example_names():
            played = notes.read_score(ROOT / "examples" / example / "notes.csv")
            stems = play_notes.play(played, layers)
            gain = play_notes.PEAK / np.abs(sum(stems.values())).max()
            stems = {midi: (gain * s).astype(np.float32) for midi, s in stems.items()}
            for (name, setting), (whose, basis) in itertools.product(rows.items(), bases.items()):
                figures = measure(setting, sum(stems.values()), stems, basis, played)
                scores[name, example, piano.name, whose] = figures[0]
    return scores


def basis_of_layer(n_fft, states, layer):
    """Learn a basis from recordings of notes by MIDI number; those between are transposed, as the pieces have them."""
    import soundfile

    with tempfile.TemporaryDirectory() as folder:
        for path in recording.audio_files(ROOT / "basis_wav_piano"):
            midi = pitch.midi_of_name(path.stem)
            near = min(layer, key=lambda other, midi=midi: abs(other - midi))
            y = recording.transpose(layer[near], SR, midi - near)[: soundfile.info(path).frames]
            soundfile.write(Path(folder, path.name), y, SR, subtype="FLOAT")
        return learn_basis(n_fft, states, Path(folder))


def pianos_table(scores):
    """Mean / median SDR of every piece, and over them; the worst piece has the least mean."""
    pieces = list(dict.fromkeys(key[1:] for key in scores))
    lines = [f"| mean / median SDR in dB | {' | '.join(ON_PIANOS)} |", f"|{'---|' * (len(ON_PIANOS) + 1)}"]
    for piece in pieces:
        cells = [f"{np.mean(scores[name, *piece]):.2f} / {np.median(scores[name, *piece]):.2f}" for name in ON_PIANOS]
        lines.append(f"| {piece[0]}, {piece[1]}, basis: {piece[2]} | {' | '.join(cells)} |")
    for whose in dict.fromkeys(piece[2] for piece in pieces):
        cells = []
        for name in ON_PIANOS:
            of_pieces = [(np.mean(s), np.median(s)) for key, s in scores.items() if (key[0], key[3]) == (name, whose)]
            mean, median = np.mean(of_pieces, axis=0)
            cells.append(f"{mean:.2f} / {median:.2f}, worst {np.min(of_pieces, axis=0)[0]:.2f}")
        lines.append(f"| **all, basis: {whose}** | {' | '.join(cells)} |")
    return "\n".join(lines)


def measure_all():
    """Figures of every setting, by example and piano."""
    needed = sorted({(setting.n_fft, setting.states) for setting in SETTINGS if setting.states})
    bases = {key: learn_basis(*key) for key in tqdm(needed, "Bases")}
    scores = {}
    for key in itertools.product(example_names(), PIANOS):
        y, stems = read_piece(ROOT.joinpath("examples", *key))
        played, with_bss_eval = notes.read_score(ROOT / "examples" / key[0] / "notes.csv"), key[0] == MAIN_EXAMPLE
        scores[key] = [
            measure(setting, y, stems, bases.get((setting.n_fft, setting.states)), played, with_bss_eval=with_bss_eval)
            for setting in tqdm(SETTINGS, " ".join(key))
        ]
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
