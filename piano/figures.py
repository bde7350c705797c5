"""Pictures: the basis, the piano roll, and the spectrogram beside its model."""

import sys

import numpy as np

import utils
from piano.notes import sum_states

DB_RANGE = 60  # dB below the loudest that pictures of spectra show
ROLL_DB_RANGE = 40  # and piano rolls; below it, notes leak into one another
LOWEST_HZ = 27.5  # A0, where a log-frequency axis begins
MOST_LABELS = 40  # notes that an axis has room to name
DIFFERENCE_DB = 20  # either way, in the picture of differences: from a tenth to ten times
PIXELS = 240, 700  # rows, and columns at most, of a panel; the panel itself has a few more, so none is lost
PENTATONIC = ("C", "D", "E", "G", "A")  # no two of them are neighbours, so their names never touch


def decibels(magnitude, span=DB_RANGE, peak=None):
    """Magnitudes in dB relative to ``peak``, by default the largest, cut at ``-span``; silence is all ``-span``."""
    peak = peak or magnitude.max() or 1.0
    return 20 * np.log10(np.maximum(magnitude / peak, 10 ** (-span / 20)))


def colours():
    """Colour map of all pictures: perceptually even, and white for silence."""
    from matplotlib import colormaps
    from matplotlib.colors import ListedColormap

    table = colormaps["magma_r"](np.linspace(0, 1, 256))
    table[:32, :3] += (1 - table[:32, :3]) * np.linspace(1, 0, 32)[:, None]  # its pale yellow end fades out
    return ListedColormap(table)


def note_ticks(names):
    """Positions and labels for an axis of notes: every note where there is room, else C, D, E, G and A.

    A note of several states, side by side, is labelled once, in the middle.
    """
    columns = {}
    for i, name in enumerate(names):
        columns.setdefault(name, []).append(i)
    if len(columns) > MOST_LABELS:
        columns = {name: places for name, places in columns.items() if name.rstrip("-0123456789") in PENTATONIC}
    return [np.mean(places) for places in columns.values()], list(columns)


def plot_activation(path, U, basis):
    """Draw activations as a piano roll: notes against seconds.

    Without a description of the basis, it is components against frames.

    Parameters
    ----------
    path : str or Path
        Of the PNG file.
    U : np.ndarray [shape=(L, M), float, >= 0]
    basis : Basis
        States of one note are summed.
    """
    figure, _ = activation_figure(U, basis)
    figure.savefig(path)


def activation_figure(U, basis):
    """The figure of :func:`plot_activation`, and the axes of its piano roll, so that one can draw on it."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 6), dpi=100)
    axes = figure.add_axes((0.08, 0.09, 0.80, 0.84))
    n_frames, frame = U.shape[1], 1
    if basis.columns:
        U, names = sum_states(U, basis)
        frame = basis.hop / basis.sr
        axes.set_yticks(*note_ticks(names), fontsize=8)
        axes.set(xlabel="Time (s)", ylabel="Note")
    else:
        axes.set(xlabel="Frame", ylabel="Component")
    image = axes.imshow(
        decibels(thin(U), ROLL_DB_RANGE),
        cmap=colours(),
        vmin=-ROLL_DB_RANGE,
        vmax=0,
        aspect="auto",
        origin="lower",
        interpolation="nearest",
        extent=(-frame / 2, (n_frames - 0.5) * frame, -0.5, len(U) - 0.5),  # frame m is centred on m hops
    )
    axes.set_title("Activations")
    figure.colorbar(image, cax=figure.add_axes((0.90, 0.09, 0.02, 0.84)), label="Activation (dB below the loudest)")
    return figure, axes


def thin(U, width=2000):
    """Reduce U to about ``width`` columns: a picture has no more pixels. Each is the loudest of its columns."""
    step = -(-U.shape[1] // width)
    return np.maximum.reduceat(U, np.arange(0, U.shape[1], step), axis=1)


def plot_basis(path, basis):
    """Draw a basis: frequency on a logarithmic axis against notes, each spectrum in dB below its own peak.

    Parameters
    ----------
    path : str or Path
        Of the PNG file.
    basis : Basis
        With a description.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 6), dpi=100)
    axes = figure.add_axes((0.09, 0.11, 0.79, 0.82))
    H = basis.H
    edges = (np.arange(1, len(H) + 1) - 0.5) * basis.sr / basis.n_fft  # Hz; a logarithmic axis has no 0 Hz
    dB = np.column_stack([decibels(column) for column in H[1:].T])
    image = axes.pcolormesh(np.arange(H.shape[1] + 1) - 0.5, edges, dB, cmap=colours(), vmin=-DB_RANGE, vmax=0)
    axes.set_yscale("log")
    axes.set_ylim(LOWEST_HZ, edges[-1])
    octaves = LOWEST_HZ * 2.0 ** np.arange(1, np.log2(edges[-1] / LOWEST_HZ))
    axes.set_yticks(octaves, [f"{f:g}" for f in octaves])
    axes.minorticks_off()
    axes.set_xticks(*note_ticks([column["note"] for column in basis.columns]), fontsize=8, rotation=90)
    axes.set(xlabel="Note", ylabel="Frequency (Hz)", title="Fixed basis")
    figure.colorbar(image, cax=figure.add_axes((0.90, 0.11, 0.02, 0.82)), label="Magnitude (dB below the peak)")
    figure.savefig(path)


def plot_spectrogram(path, Y, model, basis):
    """Draw the recording's spectrogram, the model's, and their difference, frequency on a logarithmic axis.

    It works block by block, and keeps only the loudest value of each pixel.

    Parameters
    ----------
    path : str or Path
        Of the PNG file.
    Y : np.ndarray [shape=(K, M), float >= 0 or complex]
        Observed spectrogram; may be a memory map.
    model : callable
        ``model(frames)`` is the model of a slice of frames [shape=(K, frames), float >= 0 or complex], for
        instance ``lambda frames: H @ U[:, frames]``.
    basis : Basis
        Without a description, axes are in bins and frames.
    """
    from matplotlib.figure import Figure

    n_bins, n_frames = Y.shape
    frame, bin_width, lowest = 1, 1, 0.5
    if basis.columns:
        frame, bin_width, lowest = basis.hop / basis.sr, basis.sr / basis.n_fft, LOWEST_HZ
    highest = (n_bins - 0.5) * bin_width
    edges = np.geomspace(min(lowest, highest / 2), highest, PIXELS[0] + 1)
    observed, modelled = loudest_on_pixels(Y, model, (edges[:-1] / bin_width + 0.5).astype(int))
    peak = max(observed.max(), modelled.max())
    observed, modelled = decibels(observed, peak=peak), decibels(modelled, peak=peak)

    figure = Figure(figsize=(9, 9), dpi=100)
    magnitude = {"cmap": colours(), "vmin": -DB_RANGE, "vmax": 0}
    difference = {"cmap": "RdBu_r", "vmin": -DIFFERENCE_DB, "vmax": DIFFERENCE_DB}
    octaves = lowest * 2.0 ** np.arange(1, np.log2(highest / lowest))
    panels = (
        ("Observed", observed, magnitude, 0.695),
        ("Modelled", modelled, magnitude, 0.380),
        ("Difference: red where the model is too loud, blue where too soft", modelled - observed, difference, 0.065),
    )
    for title, dB, colouring, bottom in panels:
        axes = figure.add_axes((0.09, bottom, 0.79, 0.27))
        image = axes.imshow(
            dB,
            **colouring,
            aspect="auto",
            origin="lower",
            interpolation="nearest",
            extent=(-frame / 2, (n_frames - 0.5) * frame, *np.log2(edges[[0, -1]])),  # frame m is centred on m hops
        )
        axes.set_yticks(np.log2(octaves), [f"{f:g}" for f in octaves], fontsize=8)
        axes.set_ylabel("Frequency (Hz)" if basis.columns else "Bin")
        axes.set_title(title, loc="left", fontsize=11)
        axes.tick_params(labelbottom=colouring is difference)
        if title == "Modelled":
            bar = figure.add_axes((0.90, bottom, 0.02, 0.585))  # of the panel above as well
            figure.colorbar(image, cax=bar, label="Magnitude (dB below the loudest)")
    axes.set_xlabel("Time (s)" if basis.columns else "Frame")
    figure.colorbar(image, cax=figure.add_axes((0.90, bottom, 0.02, 0.27)), label="Modelled over observed (dB)")
    figure.savefig(path)


def loudest_on_pixels(Y, model, rows):
    """Magnitudes of Y and of its model on each pixel: the loudest of the bins and frames that share it.

    Row i begins at bin ``rows[i]``. Rows that begin at the same bin all show that bin.
    """
    step = -(-Y.shape[1] // PIXELS[1])
    columns = [], []
    for frames, block in utils.frame_blocks(Y, step * -(-utils.EUCLIDEAN_BLOCK // step)):
        for kept, S in zip(columns, (block, model(frames)), strict=True):
            S = np.maximum.reduceat(np.abs(S), rows, axis=0)
            kept.append(np.maximum.reduceat(S, np.arange(0, S.shape[1], step), axis=1))
    return [np.concatenate(kept, axis=1) for kept in columns]


def show(paths):
    """Open pictures in windows; if there is no display, say so on stderr."""
    import matplotlib
    import matplotlib.pyplot as plt

    if matplotlib.get_backend().lower() == "agg":
        print("no display to show the pictures on; they are in the output folder", file=sys.stderr)
        return
    for path in paths:
        picture = plt.imread(path)
        figure = plt.figure(figsize=(picture.shape[1] / 100, picture.shape[0] / 100), dpi=100)
        figure.figimage(picture)
    plt.show()
