"""What the benchmark of separation measures, on signals whose figures are known."""

import numpy as np
import pytest

from piano import phase, recording


@pytest.fixture(scope="module")
def separation(benchmark):
    return benchmark("separation")


@pytest.fixture
def stems(rng):
    """Two notes, half a second each, by MIDI number: a spectrum apart, noise besides."""
    n = np.arange(11025) / 22050
    sounds = {69: np.sin(2 * np.pi * 440 * n), 81: np.sin(2 * np.pi * 880 * n)}
    return {note: (s + 1e-3 * rng.standard_normal(len(n))).astype(np.float32) for note, s in sounds.items()}


def test_sdr_is_that_of_the_definition(separation, rng):
    s = rng.standard_normal(1000)
    assert separation.sdr(s, 0.9 * s) == pytest.approx(20)
    assert separation.sdr(s, 0 * s) == pytest.approx(0)


def test_bss_eval_forgives_a_gain_and_finds_interference(separation, rng):
    pytest.importorskip("fast_bss_eval")
    s, other = rng.standard_normal((2, 8000))
    other *= np.sqrt(np.sum(s**2) / np.sum(other**2))
    sdr, sir, sar = separation.bss_eval(s, 0.5 * s + 0.05 * other, s + other)
    assert [sdr, sir] == pytest.approx([20, 20], abs=0.7)  # 512 taps find a little of s in any other 8000 samples
    assert sar > 40


def test_oracles_take_the_notes_apart(separation, stems):
    y = sum(stems.values())
    for setting in separation.SETTINGS:
        if setting.states is None:
            estimates = separation.separate(setting, y, stems, None)
            for s, s_hat in zip(stems.values(), estimates, strict=True):
                assert separation.sdr(s, s_hat) > 20, setting.name


def test_masks_of_one_note_alone_give_it_back(separation, stems):
    s = stems[69]
    Y = recording.stft(s)
    H = np.abs(Y).sum(axis=1, keepdims=True)
    basis = separation.Basis(H / H.sum(), columns=[{"note": "A4"}], rotation=phase.measure_rotation(Y)[:, None])
    for setting in separation.SETTINGS:
        if setting.name.startswith(("NMF", "CNMF, sinusoidal")) and setting.n_fft == 2048:
            (s_hat,) = separation.separate(setting, s, {69: s}, basis)
            assert separation.sdr(s, s_hat) > 60, setting.name


def test_only_what_is_between_the_markers_is_replaced(separation, tmp_path):
    path = tmp_path / "README.md"
    path.write_text(f"before\n{separation.BEGIN}\nold\n{separation.END}\nafter\n", encoding="utf-8")
    for _ in range(2):
        separation.put_between_markers(path, "new \\1")
    expected = f"before\n{separation.BEGIN}\n\nnew \\1\n\n{separation.END}\nafter\n"
    assert path.read_text(encoding="utf-8") == expected
    path.write_text("none", encoding="utf-8")
    with pytest.raises(SystemExit, match="got 0 pairs of markers"):
        separation.put_between_markers(path, "new")


def test_the_chart_shows_at_most_ten_bars_of_the_table(separation, tmp_path, drawn):
    medians = separation.read_medians(separation.PAGE.read_text(encoding="utf-8"))
    assert len(medians) == len(separation.SETTINGS)
    separation.draw(tmp_path / "separation.png", medians)
    bars = [bar.get_width() for bar in drawn["separation.png"].axes[0].patches]
    expected = [medians[row][f"chorale, {piano}"] for piano in separation.PIANOS for row in separation.CHART.values()]
    assert bars == expected
    assert len(bars) <= 10


def test_medians_are_read_back_as_they_were_written(separation, rng):
    keys = [("chorale", "matched"), ("chorale", "mismatched"), ("prelude", "matched")]
    scores = {key: [rng.uniform(-5, 20, (4, 3)) for _ in separation.SETTINGS] for key in keys}
    medians = separation.read_medians(f"{separation.tables(scores)}\n\n<!-- end -->\n\n| another | table |\n")
    for i, row in enumerate(medians.values()):
        assert row == {", ".join(key): round(np.median(scores[key][i][0]), 1) for key in keys}
