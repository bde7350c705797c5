"""What the benchmarks measure, on signals and numbers whose figures are known."""

import json
import subprocess
import sys
import time

import numpy as np
import pytest
import soundfile

from piano import phase, recording
from piano.notes import Note

pytestmark = pytest.mark.same_everywhere("compares tables that are stored")


@pytest.fixture(scope="module")
def separation(benchmark):
    return benchmark("separation")


@pytest.fixture
def stems(rng):
    """Two notes, half a second each, by MIDI number: a spectrum apart, noise besides."""
    n = np.arange(11025) / 22050
    sounds = {69: np.sin(2 * np.pi * 440 * n), 81: np.sin(2 * np.pi * 880 * n)}
    return {note: (s + 1e-3 * rng.standard_normal(len(n))).astype(np.float32) for note, s in sounds.items()}


def test_sdr_is_that_of_the_definition_and_bss_eval_forgives_a_gain_and_finds_interference(separation, rng):
    s, other = rng.standard_normal((2, 8000))
    assert separation.sdr(s, 0.9 * s) == pytest.approx(20)
    assert separation.sdr(s, 0 * s) == pytest.approx(0)
    pytest.importorskip("fast_bss_eval")
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


# --- Separation of all pianos -------------------------------------------------------------------------


def played(*notes_of_keys):
    return [Note("", midi, 0.0, onset, onset + 0.2, 0.0) for midi, onset in notes_of_keys]


@pytest.fixture
def case(separation, stems):
    """Two notes of one loudness, whose templates are their own spectra, in two states."""
    spectra = [np.abs(recording.stft(s, n_fft=8192, hop=2048)) for s in stems.values()]
    H = np.stack([part.sum(axis=1) for A in spectra for part in (A[:, :3], A[:, 3:])], axis=1)
    columns = [{"note": name} for name in ("A4", "A4", "A5", "A5")]
    rotation = np.full(H.shape, 0.9, np.complex64)
    basis = separation.Basis(H / H.sum(axis=0), 22050, 8192, 2048, columns, rotation)
    return separation.Case("scale", "sines", "matched", sum(stems.values()), stems, basis, played((69, 0), (81, 0)))


def test_the_error_is_what_is_missing_and_what_comes_from_elsewhere(separation, stems):
    kept, missing, shares = separation.what_is_wrong(69, 0.5 * stems[69] + 0.1 * stems[81], stems)
    assert kept == pytest.approx(0.5, abs=1e-3)
    assert missing == pytest.approx(0.25 / 0.26, abs=1e-3)
    assert shares[81] == pytest.approx(0.01 / 0.26, abs=1e-3)
    assert missing + sum(shares.values()) == pytest.approx(1)
    assert shares[69] == pytest.approx(0, abs=1e-3)


def test_of_a_silent_stem_all_is_missing(separation, stems):
    assert separation.what_is_wrong(69, 0 * stems[69], stems) == (0, 1, {69: 0, 81: 0})
    assert separation.bss_eval(stems[69], 0 * stems[69], sum(stems.values())) == [0, 0, 0]


def test_the_row_of_the_worst_stem_names_it_and_its_faults(separation, case):
    a, b = case.stems.values()
    row = separation.worst_stem(case, [a - b, b], [0.0, 99.0], played((69, 0.05), (69, 0.3), (81, 0)))
    assert row == ["A4", "0.0", "100%", "0%", "A5 (+12): 100%", "1 of 1 found, 1 false"]


def test_an_onset_in_the_list_is_taken_for_one_note_at_most(separation):
    truth = played((69, 0.0), (69, 0.08), (69, 1.0))
    assert separation.in_list(truth, played((69, 0.04), (69, 0.15))) == "2 of 3 found"
    assert separation.in_list(truth, played((69, 0.04), (69, 2.0))) == "1 of 3 found, 1 false"
    assert separation.in_list(truth, []) == "0 of 3 found"


def test_examples_are_cases_of_two_groups(separation, monkeypatch):
    monkeypatch.setattr(separation, "learn_basis", lambda *_: None)
    cases = separation.read_cases()
    assert {group: len(members) for group, members in separation.by_group(cases).items()} == {"matched": 3, "other": 3}
    for case in cases:
        assert {note.midi for note in case.played} == set(case.stems)


def test_tables_of_all_pianos_have_means_and_the_worst_piece(separation, case):
    scores = {name: np.array([[1.0, 2.0, 6.0]]) for name in separation.ON_PIANOS}
    scores["recommended"] = np.array([[3.0, 3.0, 9.0], [4.0, 4.0, 10.0], [0, 0, 0], [0, 0, 0]])
    worse = {name: figures - 2 for name, figures in scores.items()}
    other = case._replace(piece="fugue")
    text = separation.pianos_tables([(case, (scores, ["A4"] * 6)), (other, (worse, ["A5"] * 6))])
    assert "| scale, sines | 3.00 / 2.00 | 5.00 / 3.00 | 6.00 / 4.00 | 3.00 / 2.00 |" in text
    assert "| 4.00, worst 3.00 (fugue, sines) | 5.00, worst 4.00 (fugue, sines) |" in text
    assert "| fugue | sines | A5 |" in text


def test_every_part_can_be_left_out(separation, case, monkeypatch):
    monkeypatch.setattr(separation, "listed", lambda *_: case.played)
    means = separation.measure_left_out(case)
    assert list(means) == list(separation.left_out())
    assert np.isfinite(list(means.values())).all()
    assert phase.coherent_part(*np.ones((3, 8))).sum() == 0  # all is as before


def test_what_is_left_out_must_be_there_and_be_called(separation, stages):
    with pytest.raises(AttributeError, match="no_such_part"), separation.replaced({(phase, "no_such_part"): 1}):
        pass
    unused = separation.replaced({(phase, "coherent_part"): separation.without_chance})
    with pytest.raises(RuntimeError, match="coherent_part: got no call"), unused:
        pass
    with pytest.raises(AttributeError, match="no_such_function"):
        stages.replace("piano.notes.no_such_function", lambda function: function)


def test_the_table_of_what_is_left_out_has_the_largest_changes(separation, case):
    names = list(separation.left_out())
    first = dict.fromkeys(names, 10.0) | {"inharmonicity": 7.0}
    second = dict.fromkeys(names, 5.0) | {"inharmonicity": 6.0}
    table = separation.left_out_table([(case, first), (case._replace(piece="fugue", group="real"), second)])
    assert "| nothing | 10.00 | 5.00 |  |  |" in table
    assert "| inharmonicity | 7.00 | 6.00 | -3.00 (scale, sines) | +1.00 (fugue, sines) |" in table


def test_iterations_change_cost_and_sound_as_the_command_would(separation, case, tmp_path, drawn, monkeypatch):
    monkeypatch.setattr(separation, "listed", lambda *_: case.played)
    cost, means = separation.measure_iterations(case)
    assert len(cost) == separation.ITERATIONS[-1]
    assert (np.diff(cost) <= 1e-6 * cost[0]).all()
    whole = separation.setting_of(separation.RECOMMENDED)  # its 200 iterations, measured as elsewhere
    estimates = separation.separate(whole, case.y, case.stems, case.basis, {"listed": case.played})
    assert means[-1] == pytest.approx(np.mean(separation.figures(case.stems, estimates, case.y)[0]), abs=1e-3)

    results = [(case, (cost, means)), (case._replace(piece="fugue"), (cost / 2, means))]
    assert f"| fugue, sines | {cost[0] / 2:.4f} / {means[0]:.2f} |" in separation.iterations_table(results)
    separation.draw_iterations(tmp_path / "iterations.png", results)
    of_cost, of_sdr = drawn["iterations.png"].axes
    assert [len(axes.lines) for axes in (of_cost, of_sdr)] == [2, 2]
    assert of_sdr.lines[0].get_ydata().tolist() == means
    assert of_cost.lines[1].get_xydata()[-1].tolist() == [200, cost[-1] / 2]


# --- Speed --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def speed(benchmark):
    return benchmark("speed")


@pytest.fixture(scope="module")
def stages(benchmark):
    return benchmark("stages")


def test_a_command_is_timed_by_stage(stages, root, learnt, tmp_path):
    np.save(tmp_path / "spec.npy", np.ones((1025, 8), np.complex64))
    script = [sys.executable, root / "benchmarks" / "stages.py", str(time.monotonic()), tmp_path / "stages.json"]
    command = ["NMF.py", tmp_path / "spec.npy", "2", learnt / "fixed_basis.npy", "--stems", "--quiet", "-o", tmp_path]
    subprocess.run([*script, *command], check=True)
    seconds = json.loads((tmp_path / "stages.json").read_text(encoding="utf-8"))
    assert list(seconds) == list(stages.STAGES)
    assert min(seconds.values()) >= 0
    for name in ("imports", "reading", "NMF", "sound", "pictures", "rest"):
        assert seconds[name] > 0, name
    assert seconds["phases"] == 0
    assert seconds["adaptation"] < seconds["NMF"]  # it is asked, and has nothing to do


def test_more_cores_share_what_two_cores_share(speed):
    one, two = np.array([3.0, 4.0, 1.0, 2.0]), np.array([3.0, 2.0, 0.75, 2.5])  # the last is slower on two
    serial, shared = speed.serial_and_shared(one, two)
    assert serial.tolist() == [3, 0, 0.5, 2]
    assert shared.tolist() == [0, 4, 0.5, 0]
    assert speed.on_cores(one, two, 4).tolist() == [3, 1, 0.625, 2]


def test_the_cost_is_that_of_the_definition(speed):
    V, H, U = np.array([[2.0], [0.0]]), np.eye(2), np.array([[1.0], [3.0]])
    assert speed.cost_of(V, H, U, "frobenius") == pytest.approx((1 + 9) / 2)
    assert speed.cost_of(V, H, U, "kullback-leibler") == pytest.approx(2 * np.log(2) - 2 + 1 + 3)


def test_the_time_to_a_gap_lies_between_the_points(speed):
    seconds, gap = np.array([1.0, 4.0, 5.0]), np.array([1e-1, 1e-3, 0])
    assert speed.time_to(seconds, gap, 1e-2) == "2"  # halfway in logarithms
    assert speed.time_to(seconds, gap, 1e-3) == "4"
    assert speed.time_to(seconds, gap, 0.5) == "< 1"
    assert speed.time_to(seconds, gap[:1], 1e-2) == ""


def test_every_solver_lowers_the_cost_and_has_a_line(speed, rng, tmp_path, drawn):
    V, H = (rng.random(shape, dtype=np.float32) + 0.1 for shape in ((40, 30), (40, 4)))
    curves = {}
    for loss in ("frobenius", "kullback-leibler"):
        for name, solve in speed.solvers_of(loss, V, H).items():
            cost = np.array([speed.cost_of(V, H, solve(n), loss) for n in (1, 5, 25)])
            assert (np.diff(cost) <= 1e-6 * cost[0]).all(), name
            curves[loss, name] = np.array([1, 5, 25]), cost
    speed.draw_solvers(tmp_path / "solvers.png", curves)
    panels = drawn["solvers.png"].axes
    assert [axes.get_title() for axes in panels] == ["Frobenius", "Kullback-Leibler"]
    assert sum(len(axes.lines) for axes in panels) == len(curves)
    assert len({(line.get_color(), line.get_marker()) for line in panels[0].lines}) == len(panels[0].lines)


# --- Transcription ------------------------------------------------------------------------------------

PEER = """
ICASSP_2022_MODEL_PATH = "model"
class inference:
    Model = str
    def predict(path, model):
        print("this is no list")
        return None, None, [(0.5, 1.0, 60, 0.9, [0])]
"""


@pytest.fixture
def two_notes(tmp_path):
    """A folder with a recording of two seconds, beside its two notes."""
    soundfile.write(tmp_path / "piece.wav", np.zeros(44100), 22050)
    (tmp_path / "piece.csv").write_text("onset,offset,midi\n0.5,1.0,60\n1.0,1.5,64\n", encoding="utf-8")
    return tmp_path


def test_a_peer_is_judged_beside_the_event_model(benchmark, two_notes, monkeypatch, capsys):
    transcription = benchmark("transcription")
    heard = [Note("", 60, 0.0, 0.5, 1.0, 0.0), Note("", 64, 0.0, 1.0, 1.5, 0.0)]
    for name, value in (("learn", None), ("event_model", heard)):
        monkeypatch.setattr(transcription, name, lambda *_, value=value: value)
    monkeypatch.setattr(transcription, "METHODS", {"event model": transcription.event_model})
    with pytest.raises(SystemExit):
        transcription.main([str(two_notes), "--peer", "no-such-python"])
    assert "--peer no-such-python: got no list of basic-pitch: " in capsys.readouterr().err.splitlines()[-1]

    (two_notes / "basic_pitch.py").write_text(PEER, encoding="utf-8")
    (two_notes / "basic_pitch-9.dist-info").mkdir()
    (two_notes / "basic_pitch-9.dist-info" / "METADATA").write_text("Name: basic-pitch\nVersion: 9\n")
    monkeypatch.setenv("PYTHONPATH", str(two_notes))
    transcription.main([str(two_notes), "--peer", sys.executable])
    printed = capsys.readouterr().out
    assert "| event model, all (1), mean | 1.000 | 1.000 | 1.000 |" in printed
    assert "| basic-pitch 9, all (1), mean | 1.000 | 0.500 | 0.667 |" in printed  # one of two notes
    assert "event model / basic-pitch 9: F 50 1.50, time " in printed


def test_a_room_and_noise_are_as_loud_and_long_as_they_are_told(root, monkeypatch):
    monkeypatch.syspath_prepend(str(root / "tools"))
    import play_notes

    y = np.zeros(2 * play_notes.SR)
    y[0] = 1  # what is added in a room is then its tail
    tail = play_notes.added(y, (0.5, 6), np.inf, np.random.default_rng(0))
    assert tail @ tail == pytest.approx(10**-0.6)
    early, late = (np.linalg.norm(tail[n : n + 1000]) for n in (1000, 1000 + play_notes.SR // 4))
    assert 20 * np.log10(early / late) == pytest.approx(30, abs=1)  # half the time
    noise = play_notes.added(y, (1, np.inf), 20, np.random.default_rng(0))
    assert noise @ noise == pytest.approx(0.01)
    assert not play_notes.added(y, (1, np.inf), np.inf, np.random.default_rng(0)).any()
