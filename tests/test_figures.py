"""The picture of a spectrogram beside its model: what is on it, of anything from one frame to a long file."""

import dataclasses

import numpy as np
import pytest

import utils
from piano import figures
from piano.basis import Basis

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
    lowest, highest = (figures.LOWEST_HZ if basis.sr else 0.5), (n_bins - 0.5) * width
    return lowest * (highest / lowest) ** ((row + 0.5) / figures.PIXELS[0]) / width


def test_three_panels_share_their_axes(tmp_path, drawn, rng):
    Y = rng.random((K, M))
    panels, _ = draw(tmp_path, drawn, Y, lambda frames: Y[:, frames], DESCRIBED)
    assert [axes.get_title("left").split(":")[0] for axes in panels] == ["Observed", "Modelled", "Difference"]
    extents = [axes.images[0].get_extent() for axes in panels]
    assert extents == [extents[0]] * 3
    hop = DESCRIBED.hop / DESCRIBED.sr
    assert extents[0][:2] == pytest.approx((-hop / 2, (M - 0.5) * hop))
    assert 2 ** np.array(extents[0][2:]) == pytest.approx([figures.LOWEST_HZ, (K - 0.5) * 8000 / 256])
    for axes in panels:
        assert axes.get_ylabel() == "Frequency (Hz)"
        hertz = [float(label.get_text()) for label in axes.get_yticklabels()]
        assert hertz == pytest.approx([27.5 * 2**n for n in range(1, 8)])
        np.testing.assert_allclose(axes.get_yticks(), np.log2(hertz))
    assert panels[-1].get_xlabel() == "Time (s)"
    bars = [axes.get_ylabel() for axes in drawn["spectrogram.png"].axes if axes not in panels]
    assert len(bars) == 2
    assert all("dB" in label for label in bars)


def test_without_a_description_the_axes_are_bins_and_frames(tmp_path, drawn, rng):
    Y = rng.random((K, M))
    panels, _ = draw(tmp_path, drawn, Y, lambda frames: Y[:, frames])
    assert panels[-1].get_xlabel() == "Frame"
    assert {axes.get_ylabel() for axes in panels} == {"Bin"}
    extent = panels[0].images[0].get_extent()
    np.testing.assert_allclose(extent, (-0.5, M - 0.5, np.log2(0.5), np.log2(K - 0.5)))
    assert [label.get_text() for label in panels[0].get_yticklabels()] == [str(2**n) for n in range(8)]


@pytest.mark.parametrize("basis", [DESCRIBED, PLAIN], ids=["described", "plain"])
@pytest.mark.parametrize("k", [1, 2, 5, 40, 128])
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
    panels, (observed, modelled, difference) = draw(
        tmp_path, drawn, Y, lambda frames: gain[frames] * Y[:, frames], DESCRIBED
    )
    np.testing.assert_allclose(observed, 20 * np.log10(0.5), atol=1e-6)  # the loudest of both is 0 dB
    np.testing.assert_allclose(modelled, np.tile(20 * np.log10(gain / 2), (len(modelled), 1)), atol=1e-6)
    np.testing.assert_allclose(difference, modelled - observed, atol=ROUNDING_DB)
    low, high = panels[2].images[0].get_clim()
    assert low == -high < 0


def test_a_long_file_is_drawn_by_its_loudest_from_blocks(tmp_path, drawn, rng):
    n_frames = 3 * figures.PIXELS[1] + 5
    Y, F = (rng.random((K, n_frames)).astype(np.float32) for _ in range(2))
    np.save(tmp_path / "Y.npy", np.asfortranarray(Y))
    asked = []

    def model(frames):
        asked.append(frames)
        return F[:, frames]

    Y_map = np.load(tmp_path / "Y.npy", mmap_mode="r")
    _, (observed, modelled, _) = draw(tmp_path, drawn, Y_map, model)
    assert [frames.start for frames in asked[1:]] == [frames.stop for frames in asked[:-1]]
    assert (asked[0].start, asked[-1].stop) == (0, n_frames)
    assert max(frames.stop - frames.start for frames in asked) < 2 * utils.EUCLIDEAN_BLOCK
    assert observed.shape[1] <= figures.PIXELS[1]
    for shown, S in ((observed, Y), (modelled, F)):
        columns = np.stack([S[:, m : m + 4].max(axis=1) for m in range(0, n_frames, 4)], axis=1)
        dB = np.maximum(20 * np.log10(columns / max(Y[1:].max(), F[1:].max())), -figures.DB_RANGE)
        np.testing.assert_allclose(shown[0], dB[1], atol=ROUNDING_DB)  # the lowest row is bin 1
        assert shown.max(axis=0) == pytest.approx(
            dB[1:].max(axis=0), abs=ROUNDING_DB
        )  # no bin but that of 0 Hz is lost


@pytest.mark.parametrize("basis", [DESCRIBED, PLAIN], ids=["described", "plain"])
def test_silence_is_drawn(tmp_path, drawn, basis):
    Y = np.zeros((K, M), np.complex64)
    _, (observed, modelled, difference) = draw(tmp_path, drawn, Y, lambda frames: Y.real[:, frames], basis)
    np.testing.assert_allclose(observed, -figures.DB_RANGE, atol=ROUNDING_DB)
    np.testing.assert_allclose(modelled, -figures.DB_RANGE, atol=ROUNDING_DB)
    np.testing.assert_allclose(difference, 0, atol=ROUNDING_DB)


@pytest.mark.parametrize("shape", [(1, 1), (2, 1), (3, 2), (1025, 1)])
@pytest.mark.parametrize("basis", [DESCRIBED, PLAIN], ids=["described", "plain"])
def test_the_smallest_spectrograms_are_drawn(tmp_path, drawn, shape, basis):
    basis = dataclasses.replace(basis, n_fft=max(2 * shape[0] - 2, 2))
    Y = np.ones(shape)
    _, panels = draw(tmp_path, drawn, Y, lambda frames: Y[:, frames], basis)
    assert {panel.shape for panel in panels} == {(figures.PIXELS[0], shape[1])}
    np.testing.assert_allclose(panels, 0, atol=ROUNDING_DB)  # all is as loud as the loudest
