"""Pictures: the basis, the piano roll, and the spectrogram beside its model."""

import math

import numpy as np

import utils
from piano import blocks
from piano.notes import DOUBTFUL, sum_states

# By eye, all of them.
DB_RANGE, ROLL_DB_RANGE = 60, 40  # dB below the loudest that is shown of spectra; of a piano roll, less: notes leak
A0_HZ = 27.5  # where a log-frequency axis begins
PIXELS = 240, 700  # rows, and columns at most, of a panel of spectrograms, which has a few more: none gets lost
IMAGE = {"aspect": "auto", "origin": "lower", "interpolation": "nearest"}
OUTLINE = {"facecolor": "none", "edgecolor": "black", "linewidth": 0.9}  # points
DASHED = OUTLINE | {"linestyle": (0, (1.6, 1.6))}  # dashes and gaps, in line widths
ROW_S, MOST_ROWS = 40, 30  # s of a row of a piano roll, and rows of a page, see row_spans
TOP_INCHES, BELOW_INCHES = 0.45, 0.5  # above all rows, and below each


def decibels(magnitude, span=DB_RANGE, peak=None):
    """Magnitudes in dB relative to ``peak``, by default the largest, cut at ``-span``; silence is all ``-span``."""
    peak = peak or magnitude.max() or 1.0
    return 20 * np.log10(np.maximum(magnitude / peak, 10 ** (-span / 20)))


def colours(darkest=1.0):
    """Colour map of the pictures: perceptually even, darker where it is louder, and white where nothing sounds.

    It ends ``darkest`` of the way to black; black lines show on a map that ends before it.
    """
    from matplotlib import colormaps
    from matplotlib.colors import ListedColormap

    table = colormaps["magma_r"](np.linspace(0, darkest, 256))
    table[:32, :3] += (1 - table[:32, :3]) * np.linspace(1, 0, 32)[:, None]  # its pale yellow end fades out
    return ListedColormap(table)


def note_ticks(names, most=40):
    """Positions and labels for an axis of notes: every note where there is room, else a few of each octave.

    A note of several states, side by side, is labelled once, in the middle. ``most`` labels have room, were they all
    side by side.
    """
    columns = {}
    for i, name in enumerate(names):
        columns.setdefault(name, []).append(i)
    if len(columns) > most:
        letters = "CDEGA" if len(columns) <= 2 * most else "CEG" if len(columns) <= 3 * most else "C"  # 2, 3, 12 apart
        columns = {name: places for name, places in columns.items() if name.rstrip("-0123456789") in letters}
    return [np.mean(places) for places in columns.values()], list(columns)


# --- Piano roll --------------------------------------------------------------------------------------


def plot_activation(path, U, basis, notes=(), alignment=None):
    """Draw activations as a piano roll, and the outlines of listed notes over it, as a PNG.

    A long recording takes several rows, one below the other as on a page of music. Where the basis has no
    description, the picture is of components against frames, and has no outlines.

    ``U`` [shape=(L, M), float, >= 0] are the activations; states of one note are summed. Doubtful notes are dashed, and
    those that are not in the basis have no row and are left out. A :class:`scores.Alignment` is drawn below.
    """
    with utils.picture(path) as figure:
        rows = draw_activation(figure, U, basis, notes)
        if alignment is not None:
            add_alignment(figure, alignment, (rows[0].get_xlim()[0], rows[-1].get_xlim()[1]))


def add_alignment(figure, alignment, span):
    """Draw below a figure, whose times begin and end at ``span``, when the notes of a score are played."""
    width, height = figure.get_size_inches()
    added = 2.5  # inches
    grown = height + added
    for axes in figure.axes:
        x, y, w, h = axes.get_position().bounds
        axes.set_position((x, (y * height + added) / grown, w, h * height / grown))
    figure.set_size_inches(width, grown)
    below = BELOW_INCHES / grown
    axes = figure.add_axes((0.7 / width, below, 1 - 1.8 / width, (added - TOP_INCHES) / grown - below))
    axes.plot(alignment.recording, alignment.score, "o", color="black", markersize=2)
    axes.set_title("Where the score is played", loc="left")
    axes.set(xlim=span, xlabel="Time (s)", ylabel="In the score (s)")
    axes.grid(color="0.75", linewidth=0.5)


def draw_activation(figure, U, basis, notes=()):
    """Draw what :func:`plot_activation` saves; returns a list of the axes of its rows, to be drawn on further."""
    frame, longest = (basis.hop / basis.sr, ROW_S) if basis.columns else (1, 2000)
    spans = row_spans(U.shape[1], frame, longest)
    width, key_height = (13, 0.07) if len(spans) > 1 else (9, 0.14)  # inches, of the page and of a semitone
    parts = [roll(U, basis, frame, span, width=int(80 * width)) for span in spans]
    loudest = np.max([image.max(axis=1) for image, _, _ in parts], axis=0)
    boxes, doubtful = outlines(notes, basis)
    keys = shown_keys(loudest, boxes) if basis.columns else slice(0, len(loudest))

    height = np.clip((keys.stop - keys.start) * key_height, 2, 5)
    page = TOP_INCHES + len(spans) * (height + BELOW_INCHES)
    figure.set_size_inches(width, page)
    style = IMAGE | {"cmap": colours(0.5), "vmin": -ROLL_DB_RANGE, "vmax": 0}  # black outlines show on its darkest
    rows, ends = [], (keys.start - 0.5, keys.stop - 0.5)
    for i, (span, (image, left, right)) in enumerate(zip(spans, parts, strict=True)):
        bottom = page - TOP_INCHES - height - i * (height + BELOW_INCHES)
        axes = figure.add_axes((0.7 / width, bottom / page, 1 - 1.8 / width, height / page))
        dB = decibels(image[keys], ROLL_DB_RANGE, loudest.max())
        energy = axes.imshow(dB, **style, extent=(left, right, *ends))
        axes.set(xlim=span, ylim=ends, facecolor="0.88")  # grey: no recording
        within = (boxes[:, 2, 0] >= span[0]) & (boxes[:, 0, 0] <= span[1])
        draw_outlines(axes, boxes[within], doubtful[within])
        rows.append(axes)
    rows[0].set_title("Activations", loc="left")
    label_times(rows, described=bool(basis.columns))
    label_keys(rows, basis, keys, most=height / 0.13)  # inches of a name
    add_legend(rows[0], doubtful)
    bar = figure.add_axes((1 - 0.9 / width, 1 - (TOP_INCHES + height) / page, 0.18 / width, height / page))
    figure.colorbar(energy, cax=bar).set_label("Activation (dB below the loudest)", fontsize=8)
    return rows


def row_spans(n_frames, frame, longest):
    """Where each row of a page begins and ends: in whole seconds, or frames, of which each row has as many.

    Frame m is centred on ``m * frame``. A row is ``longest`` where ``MOST_ROWS`` of them are enough. One row fits the
    recording; the last of several may go on beyond its end.
    """
    end = (n_frames - 0.5) * frame
    if end <= longest:
        return [(-frame / 2, end)]
    length = max(longest, math.ceil(end / MOST_ROWS))
    length = math.ceil(end / math.ceil(end / length))  # none is left with a few seconds only
    return [(start, start + length) for start in range(0, math.ceil(end), length)]


def roll(U, basis, frame, span, width):
    """What a row shows: an image with a row for each note, and where it begins and ends; see :func:`thin`."""
    first = max(0, math.floor(span[0] / frame + 0.5))
    U = U[:, first : math.ceil(span[1] / frame + 0.5)]
    image, step = thin(sum_states(U, basis) if basis.columns else U, width)
    left = (first - 0.5) * frame
    return image, left, left + step * image.shape[1] * frame


def thin(U, width):
    """At most ``width`` columns, each the loudest of as many as it stands for, and that number; the last of fewer."""
    step = -(-U.shape[1] // width)
    return loudest_of(U, step), step


def loudest_of(U, step):
    """The loudest of every ``step`` columns, or samples; the last of them may be of fewer."""
    return np.maximum.reduceat(U, np.arange(0, U.shape[-1], step), axis=-1)


def outlines(notes, basis):
    """Corners of the listed notes in a piano roll, and which of them are doubtful [shape=(N,), bool].

    A corner [shape=(N, 4, 2)] is a time in s and a row, from the lower left one clockwise. Row i is the basis' i-th
    note; without a description it has none.
    """
    row = {midi: i for i, midi in enumerate(basis.notes)} if basis.columns else {}
    notes = [note for note in notes if note.midi in row]
    edges = np.array([(note.onset, note.offset, row[note.midi] - 0.5, row[note.midi] + 0.5) for note in notes])
    boxes = edges.reshape(-1, 4)[:, [[0, 2], [0, 3], [1, 3], [1, 2]]]
    return boxes, np.array([note.confidence < DOUBTFUL for note in notes], bool)


def shown_keys(loudest, boxes):
    """The part of the keyboard that matters: listed notes, what is as loud as one, and two more on either side.

    Where no note is listed, it is all that sounds, and all of the keyboard for silence. ``loudest`` [shape=(notes,)] is
    the largest activation of each note; for ``boxes`` see :func:`outlines`.
    """
    least_dB = -12 if len(boxes) else -ROLL_DB_RANGE  # noise of hammers stays below
    loud = np.flatnonzero((loudest > 0) & (loudest >= loudest.max() * 10 ** (least_dB / 20)))
    rows = np.concatenate([loud, boxes[:, :2, 1].mean(axis=1).astype(int)])
    if not len(rows):
        return slice(0, len(loudest))
    return slice(max(0, rows.min() - 2), min(len(loudest), rows.max() + 3))


def draw_outlines(axes, boxes, doubtful):
    """Outline notes, see :func:`outlines`; all of them are two artists, so many cost little."""
    from matplotlib.collections import PolyCollection

    left, right = axes.get_xlim()
    for which, style in ((~doubtful, OUTLINE), (doubtful, DASHED)):
        width = style["linewidth"] * min(1.0, ROW_S / (right - left))
        axes.add_collection(PolyCollection(boxes[which], **style | {"linewidth": max(0.4, width)}), autolim=False)


def label_times(rows, described):
    """Write seconds on the axis of a single row, minutes and seconds on those of a page, or frames."""
    from matplotlib.ticker import FuncFormatter, MultipleLocator

    rows[-1].set_xlabel("Frame" if not described else "Time (s)" if len(rows) == 1 else "Time (min:s)")
    start, stop = rows[0].get_xlim()
    steps = 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1800, 3600  # s
    apart = next((step for step in steps if (stop - start) / step <= 10), steps[-1])
    for axes in rows:
        if described and len(rows) > 1:
            axes.xaxis.set_major_locator(MultipleLocator(apart))
            axes.xaxis.set_major_formatter(FuncFormatter(minutes))
        elif not described:
            axes.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)


def label_keys(rows, basis, keys, most):
    """Name the notes beside each row of a page, ``most`` of them at most, and draw a line below each C."""
    if not basis.columns:
        for axes in rows:
            axes.set_ylabel("Component")
            axes.yaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
        return
    names = [basis.columns[l]["note"] for l, *_ in basis.notes.values()][keys]
    ticks, labels = note_ticks(names, most)
    octaves = [keys.start + i - 0.5 for i, name in enumerate(names) if i and name.rstrip("-0123456789") == "C"]
    for axes in rows:
        axes.set_ylabel("Note")
        axes.set_yticks(np.add(ticks, keys.start), labels, fontsize=8)
        axes.hlines(octaves, *axes.get_xlim(), color="0.75", linewidth=0.6, zorder=0.5)


def minutes(seconds, _=None):
    """Seconds as a player shows them: 83 is 1:23."""
    return f"{seconds // 60:.0f}:{seconds % 60:02.0f}"


def add_legend(axes, doubtful):
    """Tell above a piano roll what its outlines are."""
    from matplotlib.patches import Patch

    told = ((~doubtful, OUTLINE, "listed note"), (doubtful, DASHED, "doubtful note"))
    if handles := [Patch(**style, label=label) for which, style, label in told if which.any()]:
        place = {"loc": "lower right", "bbox_to_anchor": (1, 1), "borderaxespad": 0.2}
        axes.legend(handles=handles, ncols=2, frameon=False, fontsize=9, **place)


# --- Basis and spectrogram ---------------------------------------------------------------------------


def plot_basis(path, basis):
    """Draw a basis as a PNG: frequency on a logarithmic axis against notes, each spectrum in dB below its own peak."""
    with utils.picture(path, (9, 6)) as figure:
        axes = figure.add_axes((0.09, 0.11, 0.79, 0.82))
        H = basis.H
        edges = (np.arange(1, len(H) + 1) - 0.5) * basis.sr / basis.n_fft  # Hz; a logarithmic axis has no 0 Hz
        dB = np.column_stack([decibels(column) for column in H[1:].T])
        image = axes.pcolormesh(np.arange(H.shape[1] + 1) - 0.5, edges, dB, cmap=colours(), vmin=-DB_RANGE, vmax=0)
        axes.set_yscale("log")
        axes.set_ylim(A0_HZ, edges[-1])
        octaves = A0_HZ * 2.0 ** np.arange(1, np.log2(edges[-1] / A0_HZ))
        axes.set_yticks(octaves, [f"{f:g}" for f in octaves])
        axes.minorticks_off()
        axes.set_xticks(*note_ticks([column["note"] for column in basis.columns]), fontsize=8, rotation=90)
        axes.set(xlabel="Note", ylabel="Frequency (Hz)", title="Fixed basis")
        figure.colorbar(image, cax=figure.add_axes((0.90, 0.11, 0.02, 0.82)), label="Magnitude (dB below the peak)")


def plot_spectrogram(path, Y, model, basis):
    """Draw the recording's spectrogram, the model's, and their difference, frequency on a logarithmic axis.

    It works block by block, and keeps only the loudest value of each pixel. ``Y`` [shape=(K, M), float >= 0 or complex]
    may be a memory map. ``model`` gives that of a slice of frames [shape=(K, frames)], for instance
    ``lambda frames: H @ U[:, frames]``. Without a description of the basis, axes are in bins and frames.
    """
    n_bins, n_frames = Y.shape
    frame, bin_width, lowest = 1, 1, 0.5
    if basis.columns:
        frame, bin_width, lowest = basis.hop / basis.sr, basis.sr / basis.n_fft, A0_HZ
    highest = (n_bins - 0.5) * bin_width
    edges = np.geomspace(min(lowest, highest / 2), highest, PIXELS[0] + 1)
    observed, modelled = loudest_on_pixels(Y, model, (edges[:-1] / bin_width + 0.5).astype(int))
    peak = max(observed.max(), modelled.max())
    observed, modelled = decibels(observed, peak=peak), decibels(modelled, peak=peak)

    extent = -frame / 2, (n_frames - 0.5) * frame, *np.log2(edges[[0, -1]])  # frame m is centred on m hops
    magnitude = IMAGE | {"cmap": colours(), "vmin": -DB_RANGE, "vmax": 0, "extent": extent}
    difference = magnitude | {"cmap": "cividis", "vmin": -20, "vmax": 20}  # ten times too much, a tenth
    octaves = lowest * 2.0 ** np.arange(1, np.log2(highest / lowest))
    panels = (
        ("Observed", observed, magnitude, 0.695),
        ("Modelled", modelled, magnitude, 0.380),
        ("Difference: light where the model is too loud, dark where too soft", modelled - observed, difference, 0.065),
    )
    with utils.picture(path, (9, 9)) as figure:
        for title, dB, style, bottom in panels:
            axes = figure.add_axes((0.09, bottom, 0.79, 0.27))
            image = axes.imshow(dB, **style)
            axes.set_yticks(np.log2(octaves), [f"{f:g}" for f in octaves], fontsize=8)
            axes.set_ylabel("Frequency (Hz)" if basis.columns else "Bin")
            axes.set_title(title, loc="left", fontsize=11)
            axes.tick_params(labelbottom=style is difference)
            if title == "Modelled":
                bar = figure.add_axes((0.90, bottom, 0.02, 0.585))  # of the panel above as well
                figure.colorbar(image, cax=bar, label="Magnitude (dB below the loudest)")
        axes.set_xlabel("Time (s)" if basis.columns else "Frame")
        figure.colorbar(image, cax=figure.add_axes((0.90, bottom, 0.02, 0.27)), label="Modelled over observed (dB)")


def loudest_on_pixels(Y, model, rows):
    """Magnitudes of Y and of its model on each pixel: the loudest of the bins and frames that share it.

    Row i begins at bin ``rows[i]``. Rows that begin at the same bin all show that bin.
    """
    step = -(-Y.shape[1] // PIXELS[1])
    columns = [], []
    for frames, block in blocks.frame_blocks(utils.spectrogram(Y).Y, step * -(-utils.EUCLIDEAN_BLOCK // step)):
        for kept, values in zip(columns, (block, model(frames)), strict=True):
            kept.append(loudest_of(np.maximum.reduceat(np.abs(values), rows, axis=0), step))
    return [np.concatenate(kept, axis=1) for kept in columns]
