"""The pictures of a spectrogram and of activations: what is on them, of anything from one frame to a long file."""

import dataclasses
import itertools
from collections import namedtuple

import numpy as np
import pytest
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure

import NMF
import utils
from helpers import python, save_basis
from oracle import luminance
from piano import figures, pitch
from piano.basis import Basis

pytestmark = pytest.mark.same_everywhere("pictures of given numbers")

K, M = 129, 50
DESCRIBED = Basis(np.ones((K, 1)), sr=8000, n_fft=256, hop=64, columns=[{"note": "C4"}])
PLAIN = Basis(np.ones((K, 1)))
ROUNDING_DB = 1e-4  # a few units in the last place of log10 between processors are 4e-6 dB here


def draw(folder, drawn, Y, model, basis=PLAIN):
    """Axes of the three panels, and what they show."""
    figures.plot_spectrogram(folder / "spectrogram.png", Y, model, basis)
    assert (folder / "spectrogram.png").read_bytes().startswith(b"\x89PNG")
    panels = [axes for axes in drawn["spectrogram.png"].axes if axes.images]
    return panels, [np.asarray(axes.images[0].get_array()) for axes in panels]


def bin_of_row(row, basis, n_bins=K):
    """Bin in the middle of a row of a panel."""
    width = basis.sr / basis.n_fft if basis.sr else 1
    lowest, highest = (figures.A0_HZ if basis.sr else 0.5), (n_bins - 0.5) * width
    return lowest * (highest / lowest) ** ((row + 0.5) / figures.PIXELS[0]) / width


def test_three_panels_share_their_axes(tmp_path, drawn, rng):
    Y = rng.random((K, M))
    panels, _ = draw(tmp_path, drawn, Y, lambda frames: Y[:, frames], DESCRIBED)
    drawn["spectrogram.png"].canvas.print_figure(tmp_path / "spectrogram.png")
    assert (tmp_path / "spectrogram.png").stat().st_size > 10_000
    assert [axes.get_title("left").split(":")[0] for axes in panels] == ["Observed", "Modelled", "Difference"]
    extents = [axes.images[0].get_extent() for axes in panels]
    assert extents == [extents[0]] * 3
    hop = DESCRIBED.hop / DESCRIBED.sr
    assert extents[0][:2] == pytest.approx((-hop / 2, (M - 0.5) * hop))
    assert 2 ** np.array(extents[0][2:]) == pytest.approx([figures.A0_HZ, (K - 0.5) * 8000 / 256])
    for axes in panels:
        assert axes.get_ylabel() == "Frequency (Hz)"
        hertz = [float(label.get_text()) for label in axes.get_yticklabels()]
        assert hertz == pytest.approx([27.5 * 2**n for n in range(1, 8)])
        np.testing.assert_allclose(axes.get_yticks(), np.log2(hertz))
    assert panels[-1].get_xlabel() == "Time (s)"
    bars = [axes.get_ylabel() for axes in drawn["spectrogram.png"].axes if axes not in panels]
    assert ["dB" in label for label in bars] == [True, True]
    panels, _ = draw(tmp_path, drawn, Y, lambda frames: Y[:, frames])  # without a description: bins and frames
    assert panels[-1].get_xlabel() == "Frame"
    assert {axes.get_ylabel() for axes in panels} == {"Bin"}
    np.testing.assert_allclose(panels[0].images[0].get_extent(), (-0.5, M - 0.5, np.log2(0.5), np.log2(K - 0.5)))
    assert [label.get_text() for label in panels[0].get_yticklabels()] == [str(2**n) for n in range(8)]


@pytest.mark.parametrize(("basis", "k"), [(DESCRIBED, 1), (DESCRIBED, 40), (DESCRIBED, 128), (PLAIN, 40)])
def test_a_tone_is_at_its_frequency(tmp_path, drawn, basis, k):
    Y = np.zeros((K, M), np.complex64)
    Y[k] = 1j
    _, (observed, *_) = draw(tmp_path, drawn, Y, lambda frames: Y[:, frames], basis)
    loud = np.flatnonzero(np.isclose(observed, 0, atol=ROUNDING_DB).all(axis=1))
    assert len(loud)
    np.testing.assert_allclose(np.delete(observed, loud, axis=0), -figures.DB_RANGE, atol=ROUNDING_DB)
    width = bin_of_row(loud[0] + 0.5, basis) - bin_of_row(loud[0] - 0.5, basis)  # of a row, in bins
    assert np.abs(bin_of_row(loud, basis) - k).max() <= 0.5 + width


def test_the_difference_is_the_model_over_the_observed_in_db(tmp_path, drawn, rng):
    Y = np.exp(1j * rng.random((K, M)))
    gain = np.where(np.arange(M) < M // 2, 2.0, 0.5)
    F = gain * Y
    panels, (observed, modelled, difference) = draw(tmp_path, drawn, Y, lambda frames: F[:, frames], DESCRIBED)
    np.testing.assert_allclose(observed, 20 * np.log10(0.5), atol=1e-6)  # the loudest of both is 0 dB
    np.testing.assert_allclose(modelled, np.tile(20 * np.log10(gain / 2), (len(modelled), 1)), atol=1e-6)
    np.testing.assert_allclose(difference, modelled - observed, atol=ROUNDING_DB)
    low, high = panels[2].images[0].get_clim()
    assert low == -high < 0


def test_a_long_file_is_drawn_by_its_loudest_from_blocks(tmp_path, drawn, rng):
    n_frames = 3 * figures.PIXELS[1] + 5
    Y, F = (rng.random((K, n_frames)).astype(np.float32) for _ in range(2))
    np.save(tmp_path / "Y.npy", np.asfortranarray(Y))
    asked, Y_map = [], np.load(tmp_path / "Y.npy", mmap_mode="r")
    _, (observed, modelled, _) = draw(tmp_path, drawn, Y_map, lambda frames: asked.append(frames) or F[:, frames])
    assert [frames.start for frames in asked[1:]] == [frames.stop for frames in asked[:-1]]
    assert (asked[0].start, asked[-1].stop) == (0, n_frames)
    assert max(frames.stop - frames.start for frames in asked) < 2 * utils.EUCLIDEAN_BLOCK
    assert observed.shape[1] <= figures.PIXELS[1]
    for shown, S in ((observed, Y), (modelled, F)):
        columns = np.stack([S[:, m : m + 4].max(axis=1) for m in range(0, n_frames, 4)], axis=1)
        dB = np.maximum(20 * np.log10(columns / max(Y[1:].max(), F[1:].max())), -figures.DB_RANGE)
        np.testing.assert_allclose(shown[0], dB[1], atol=ROUNDING_DB)  # the lowest row is bin 1
        loudest = dB[1:].max(axis=0)  # no bin but that of 0 Hz is lost
        assert shown.max(axis=0) == pytest.approx(loudest, abs=ROUNDING_DB)


@pytest.mark.parametrize(("shape", "level", "dB"), [((1, 1), 0, -figures.DB_RANGE), ((2, 1), 1, 0), ((1025, 1), 1, 0)])
def test_the_smallest_spectrograms_and_silence_are_drawn(tmp_path, drawn, shape, level, dB):
    basis = PLAIN if shape[0] == 2 else dataclasses.replace(DESCRIBED, n_fft=max(2 * shape[0] - 2, 2))
    Y = np.full(shape, level, np.float32)
    _, panels = draw(tmp_path, drawn, Y, lambda frames: Y[:, frames], basis)
    drawn["spectrogram.png"].draw_without_rendering()
    assert {panel.shape for panel in panels} == {(figures.PIXELS[0], shape[1])}
    np.testing.assert_allclose(panels[:2], dB, atol=ROUNDING_DB)  # all is as loud as the loudest
    np.testing.assert_allclose(panels[2], 0, atol=ROUNDING_DB)


# --- Piano roll ---


KEYS = [pitch.note_name(midi) for midi in range(36, 97)]
FRAME = 0.02  # s
Listed = namedtuple("Listed", ["midi", "onset", "offset", "confidence"], defaults=[1.0])  # what is needed of a note
PIANO = Basis(np.ones((K, len(KEYS))), sr=8000, n_fft=256, hop=160, columns=[{"note": name} for name in KEYS])
UNNAMED = Basis(PIANO.H)


def outlines(axes):
    """The two artists of a row: outlines of the listed notes that are sure, and of doubtful ones."""
    return [artist for artist in axes.collections if isinstance(artist, PolyCollection)]


def outlined(axes):
    """Left, right and MIDI number of every box in a row, and whether it is dashed, from left to right."""
    boxes = []
    for collection, dashed in zip(outlines(axes), (False, True), strict=True):
        for box in collection.get_paths():
            (left, low), (right, high) = box.vertices.min(axis=0), box.vertices.max(axis=0)
            assert high - low == 1
            boxes.append((left, right, 36 + (low + high) / 2, dashed))
    return sorted(boxes)


def energy(axes):
    """Activations that a row shows, in dB, the middles of its columns in s and the MIDI numbers of its rows."""
    (image,) = axes.images
    left, right, low, high = image.get_extent()
    dB = np.asarray(image.get_array())
    times = left + (np.arange(dB.shape[1]) + 0.5) * (right - left) / dB.shape[1]
    return dB, times, 36 + np.arange(low + 0.5, high)


def test_listed_notes_are_outlined_where_their_energy_is():
    U = np.zeros((len(KEYS), 500))
    U[60 - 36, 100:150] = 1
    listed = [Listed(60, 99.5 * FRAME, 149.5 * FRAME), Listed(64, 3.0, 4.0, 0.7), Listed(67, 5.0, 6.0, 0.75)]
    (axes,) = figures.draw_activation(Figure(dpi=100), U, PIANO, listed)
    np.testing.assert_allclose(outlined(axes), [(1.99, 2.99, 60, 0), (3, 4, 64, 1), (5, 6, 67, 0)])
    dB, times, midi = energy(axes)
    loud = dB > -1
    np.testing.assert_array_equal(loud, (midi[:, None] == 60) & (times > 1.99) & (times < 2.99))
    sure, doubtful = outlines(axes)
    assert sure.get_linestyle() != doubtful.get_linestyle()
    assert (sure.get_linewidth(), len(sure.get_facecolor())) == ([figures.OUTLINE["linewidth"]], 0)
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["listed note", "doubtful note"]


@pytest.mark.parametrize("seconds", [41, 65, 599.3, 1150, 36000])
def test_the_rows_of_a_page_share_a_recording(seconds):
    n_frames = round(seconds / FRAME)
    starts, stops = np.transpose(figures.row_spans(n_frames, FRAME, figures.ROW_S))
    assert starts[0] == 0
    np.testing.assert_array_equal(starts[1:], stops[:-1])
    assert starts[-1] < (n_frames - 0.5) * FRAME <= stops[-1] < n_frames * FRAME + len(stops)  # none is nearly empty
    (length,) = set(stops - starts)
    assert 20 <= length <= max(figures.ROW_S, seconds / figures.MOST_ROWS + 1)
    assert 1 < len(stops) <= figures.MOST_ROWS


def test_nothing_is_lost_between_the_rows_of_a_page(rng):
    U = 0.02 * rng.random((len(KEYS), 30000), np.float32)  # ten minutes
    clicks = np.arange(7, 30000, 311)
    U[rng.integers(len(KEYS), size=len(clicks)), clicks] = 1
    listed = [Listed(36 + int(U[:, m].argmax()), (m - 0.5) * FRAME, (m + 0.5) * FRAME) for m in clicks]
    listed.append(Listed(60, 35.0, 85.0))
    rows = figures.draw_activation(Figure(dpi=100), U, PIANO, listed)
    assert len(rows) == 15
    found = []
    for axes in rows:
        dB, times, midi = energy(axes)
        assert times[0] <= axes.get_xlim()[0] + FRAME
        assert times[-1] >= min(axes.get_xlim()[1], 29999 * FRAME) - FRAME
        found += [(midi[i], times[j]) for i, j in np.argwhere(dB > -1) if np.diff(np.sign(axes.get_xlim() - times[j]))]
    found.sort(key=lambda place: place[1])
    np.testing.assert_allclose([time for _, time in found], clicks * FRAME, atol=1.5 * FRAME)
    assert [int(midi) for midi, _ in found] == [note.midi for note in listed[:-1]]
    held = [[box for box in outlined(axes) if box[1] - box[0] > 1] for axes in rows]
    assert [len(boxes) for boxes in held] == [1, 1, 1] + [0] * 12  # a note goes on from row to row
    short = {round(left / FRAME + 0.5) for axes in rows for left, right, *_ in outlined(axes) if right - left < 1}
    assert short == set(clicks.tolist())


def test_a_page_is_labelled_as_a_player_shows_time_and_has_one_scale():
    figure, U = Figure(dpi=100), np.full((len(KEYS), 8000), 0.1, np.float32)
    U[24, 3000] = 1
    rows = figures.draw_activation(figure, U, PIANO)
    assert [energy(axes)[0].max() for axes in rows] == pytest.approx([-20, 0, -20, -20], abs=ROUNDING_DB)
    figure.draw_without_rendering()
    for axes, first in ((rows[0], 0), (rows[1], 40)):
        seconds = [tick for tick in axes.get_xticks() if first <= tick <= first + 40]
        assert seconds == list(range(first, first + 41, 5))
    assert rows[-1].get_xlabel() == "Time (min:s)"
    assert [figures.minutes(seconds) for seconds in (0, 83, 3599, 3600)] == ["0:00", "1:23", "59:59", "60:00"]
    assert all(upper.y0 > lower.y1 for upper, lower in itertools.pairwise([axes.get_tightbbox() for axes in rows]))
    for axes in rows:
        names = [label.get_window_extent() for label in axes.get_yticklabels()]
        assert all(lower.y1 <= upper.y0 + 1 for lower, upper in itertools.pairwise(names))
        assert {label.get_text() for label in axes.get_yticklabels()} >= {f"C{octave}" for octave in range(2, 7)}


def test_the_part_of_the_keyboard_that_matters_is_shown():
    U = np.zeros((len(KEYS), 50))
    U[[0, 60 - 36, 72 - 36]] = np.array([[0.1], [1.0], [0.5]])  # C2 is 20 dB below C4
    inside, above = [Listed(62, 0, 1)], [Listed(62, 0, 1), Listed(90, 0, 1)]
    for listed, expected in (([], (36, 74)), (inside, (58, 74)), (above, (58, 92))):
        (axes,) = figures.draw_activation(Figure(dpi=100), U, PIANO, listed)
        low, high = axes.get_ylim()
        assert (36 + low + 0.5, 36 + high - 0.5) == expected


@pytest.mark.parametrize(
    ("basis", "n_frames", "level"), [(PIANO, 1, 0), (PIANO, 10000, 1), (UNNAMED, 2, 1), (UNNAMED, 10000, 0)]
)
def test_any_number_of_frames_is_drawn_of_any_basis(tmp_path, drawn, basis, n_frames, level):
    U = np.full((len(KEYS), n_frames), level, np.float32)
    figures.plot_activation(tmp_path / "activation.png", U, basis, [Listed(60, 0.0, 0.01)])
    if n_frames == 1:
        drawn["activation.png"].draw_without_rendering()
    *rows, bar = drawn["activation.png"].axes
    assert "dB" in bar.get_ylabel()
    assert len(rows) == (1 if n_frames < 1000 else 5)
    for axes in rows:
        np.testing.assert_allclose(energy(axes)[0], 0 if level else -figures.ROLL_DB_RANGE, atol=ROUNDING_DB)
    labels = ("Time (s)" if len(rows) == 1 else "Time (min:s)", "Note") if basis is PIANO else ("Frame", "Component")
    assert (rows[-1].get_xlabel(), rows[0].get_ylabel()) == labels
    assert len(outlined(rows[0])) == (basis is PIANO)


def test_colours_tell_loud_from_soft_without_their_hue(tmp_path, drawn, rng):
    """Darker is louder in the piano roll, and outlines show on the loudest; lighter is louder in differences."""
    levels = np.linspace(0, 1, 256)
    (axes,) = figures.draw_activation(Figure(dpi=100), rng.random((len(KEYS), 50)), PIANO)
    roll = luminance(axes.images[0].get_cmap()(levels))
    assert roll[0] == pytest.approx(1)
    assert (np.diff(roll) <= 1e-3).all()
    assert (roll[-1] + 0.05) / (luminance([0, 0, 0]) + 0.05) >= 3  # WCAG 2, of what is drawn
    assert figures.OUTLINE["edgecolor"] == figures.DASHED["edgecolor"] == "black"
    Y = rng.random((K, M))
    panels, _ = draw(tmp_path, drawn, Y, lambda frames: Y[:, frames])
    assert (np.diff(luminance(panels[2].images[0].get_cmap()(levels))) > 0).all()


def test_notes_are_named_as_far_apart_as_there_is_room():
    assert figures.note_ticks(KEYS, 61)[1] == KEYS
    for most, letters in ((60, "CDEGA"), (31, "CDEGA"), (30, "CEG"), (21, "CEG"), (20, "C"), (5, "C")):
        ticks, labels = figures.note_ticks(KEYS, most)
        assert labels == [name for name in KEYS if name[:-1] in letters]
        assert [KEYS[int(tick)] for tick in ticks] == labels


def test_a_users_matplotlibrc_changes_no_picture(tmp_path, root, rng):
    """One that wants TeX, which may not be there, and other colours, sizes and margins."""
    save_basis(tmp_path / "basis.npy", rng.random((K, 2)), ["C4", "D4"])
    np.save(tmp_path / "spec.npy", rng.random((K, 20), np.float32))
    settings = "text.usetex: True\nlines.linewidth: 9\naxes.facecolor: red\nsavefig.dpi: 30\nsavefig.bbox: tight\n"
    (tmp_path / "matplotlibrc").write_text(settings)
    arguments = [str(tmp_path / "spec.npy"), "3", str(tmp_path / "basis.npy"), "--notes", "--quiet", "-o"]
    NMF.main([*arguments, str(tmp_path / "plain")])
    command = root / "NMF.py", *arguments, tmp_path / "users"
    assert python(*command, MATPLOTLIBRC=tmp_path / "matplotlibrc").returncode == 0
    pictures = [{path.name: path.read_bytes() for path in tmp_path.glob(f"{run}/*.png")} for run in ("plain", "users")]
    assert len(pictures[0]) == 3
    assert pictures[0] == pictures[1]
