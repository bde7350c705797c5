"""Pictures: the basis and the piano roll of the activations."""

import sys

import numpy as np

DB_RANGE = 60  # dB below the loudest that a picture of spectra shows
ROLL_DB_RANGE = 40  # and a piano roll: below it lies what leaks between notes
COLOURS = "magma_r"  # perceptually even, and white where nothing sounds
LOWEST_HZ = 27.5  # A0, where a log-frequency axis begins


def decibels(magnitude, span=DB_RANGE):
    """Magnitudes in dB relative to the largest, no lower than ``-span``; all at the bottom for silence."""
    peak = magnitude.max() or 1.0
    return 20 * np.log10(np.maximum(magnitude / peak, 10 ** (-span / 20)))


def note_ticks(names):
    """Positions and names of the white keys among ``names``: what is drawn beside a note axis."""
    ticks = [(i, name) for i, name in enumerate(names) if "#" not in name]
    return [i for i, _ in ticks], [name for _, name in ticks]


def plot_activation(path, U, info=None):
    """Draw activations as a piano roll: notes against seconds, or components against frames without ``info``.

    Parameters
    ----------
    path : str or Path
        Of the PNG file.
    U : np.ndarray [shape=(L, M), float, >= 0]
    info : dict, optional
        Description of the basis, see :func:`notes.load_basis_info`; states of one note are summed.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 6), dpi=100)
    axes = figure.add_axes((0.08, 0.09, 0.80, 0.84))
    n_frames = U.shape[1]
    if info:
        U, names = sum_states(U, info)
        seconds = n_frames * info["hop"] / info["sr"]
        axes.set_yticks(*note_ticks(names), fontsize=7)
        axes.set(xlabel="Time (s)", ylabel="Note")
    else:
        seconds = n_frames
        axes.set(xlabel="Frame", ylabel="Component")
    image = axes.imshow(
        decibels(thin(U), ROLL_DB_RANGE),
        cmap=COLOURS,
        vmin=-ROLL_DB_RANGE,
        vmax=0,
        aspect="auto",
        origin="lower",
        interpolation="nearest",
        extent=(0, seconds, -0.5, len(U) - 0.5),
    )
    axes.set_title("Activations")
    figure.colorbar(image, cax=figure.add_axes((0.90, 0.09, 0.02, 0.84)), label="Activation (dB below the loudest)")
    figure.savefig(path)


def thin(U, width=2000):
    """At most about ``width`` columns, each the loudest of those it stands for: a picture has no more pixels."""
    step = -(-U.shape[1] // width)
    return np.maximum.reduceat(U, np.arange(0, U.shape[1], step), axis=1)


def sum_states(U, info):
    """Sum the rows of U that belong to one note; returns them and the notes' names, in order of pitch."""
    names = [column["note"] for column in info["columns"]]
    starts = [i for i, name in enumerate(names) if i == 0 or name != names[i - 1]]
    return np.add.reduceat(U, starts, axis=0), [names[i] for i in starts]


def plot_basis(path, H, info):
    """Draw a basis: frequency on a logarithmic axis against notes, each spectrum in dB below its own peak.

    Parameters
    ----------
    path : str or Path
        Of the PNG file.
    H : np.ndarray [shape=(K, L), float, >= 0]
    info : dict
        Description of the basis, see :func:`notes.load_basis_info`.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 6), dpi=100)
    axes = figure.add_axes((0.09, 0.11, 0.79, 0.82))
    frequencies = np.arange(1, len(H)) * info["sr"] / info["n_fft"]  # a logarithmic axis has no 0 Hz
    dB = np.column_stack([decibels(column) for column in H[1:].T])
    image = axes.pcolormesh(
        np.arange(H.shape[1]), frequencies, dB, cmap=COLOURS, vmin=-DB_RANGE, vmax=0, shading="nearest", rasterized=True
    )
    axes.set_yscale("log")
    axes.set_ylim(LOWEST_HZ, frequencies[-1])
    octaves = LOWEST_HZ * 2.0 ** np.arange(1, np.log2(frequencies[-1] / LOWEST_HZ))
    axes.set_yticks(octaves, [f"{f:g}" for f in octaves])
    axes.minorticks_off()
    axes.set_xticks(*note_ticks([column["note"] for column in info["columns"]]), fontsize=7, rotation=90)
    axes.set(xlabel="Note", ylabel="Frequency (Hz)", title="Fixed basis")
    figure.colorbar(image, cax=figure.add_axes((0.90, 0.11, 0.02, 0.82)), label="Magnitude (dB below the peak)")
    figure.savefig(path)


def show(paths):
    """Open pictures in windows; where there is no display, say so on stderr."""
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
