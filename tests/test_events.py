"""The event model on mixtures made of the templates, so that every note is known."""

import functools
import pickle
from itertools import pairwise

import numpy as np
import pytest
from scipy.optimize import isotonic_regression

from helpers import TEMPLATES
from piano import blocks, events, recording

SR = events.SR
far_off = pytest.mark.same_everywhere("far from what decides it; its steps run under every kernel")


@functools.cache
def template(midi):
    return recording.load(TEMPLATES[midi], SR).astype(np.float32)


@functools.cache
def pattern(midi):
    return events.learn_pattern(template(midi))


def patterns(keys=TEMPLATES):
    """Patterns of the keys, and their MIDI numbers."""
    return np.stack([pattern(midi) for midi in keys]), np.array(list(keys))


def mix(notes, seconds, release=0.08):
    """Sound of notes ``(onset, offset, midi, gain)``: the templates from their onset on, damped at the offset."""
    y = np.zeros(round(seconds * SR), np.float32)
    for onset, offset, midi, gain in notes:
        sound = template(midi)[events.find_onset(template(midi)) :]
        t = np.arange(len(sound)) / SR
        sound = gain * sound * np.exp(-np.maximum(t - (offset - onset), 0) / release)
        start = round(onset * SR)
        sound = sound[: len(y) - start]
        y[start : start + len(sound)] += sound
    return y


def listed(y, P=None, midi=None, **kwargs):
    """Notes of a sound, by all patterns where none are given."""
    P, midi = patterns() if P is None else (P, midi)
    return events.find_events(y, events.learn_piano(y, P, midi, **kwargs), midi, **kwargs)


def heard(y, given):
    P, midi = patterns({*given.midi.tolist(), *MIDDLE})
    return events.find_given(y, events.learn_piano(y, P, midi, given), midi, given)


def assert_heard(found, notes, tolerance=0.05, missing=0):
    """What is listed is just those notes, in any order within the tolerance, or all but ``missing`` of them."""
    left = list(found)
    for onset, _, midi, _ in notes:
        match = [event for event in left if event.midi == midi and abs(event.onset - onset) <= tolerance]
        assert match or missing, f"note {midi} at {onset} s is missing from {[(e.midi, e.onset) for e in found]}"
        left, missing = [event for event in left if event not in match[:1]], missing - (not match)
    assert not left, f"nobody played {[(event.midi, round(event.onset, 2)) for event in left]}"


MELODY = [(0.5 + 0.4 * i, 0.8 + 0.4 * i, midi, 0.5) for i, midi in enumerate((60, 62, 64, 65, 67, 72, 55, 48))]
MIDDLE = range(46, 76)  # keys, for what does not depend on how many more there are


def test_pattern_begins_at_the_onset_whatever_silence_is_before_it():
    y = template(60)[events.find_onset(template(60)) :]
    assert abs(events.find_onset(np.concatenate([np.zeros(7777, np.float32), y])) - 7777) <= 64
    exact = np.concatenate([np.zeros(64 * 120, np.float32), y])
    P, Q = (events.learn_pattern(sound).astype(float) for sound in (y, exact))
    assert np.abs(P - Q).sum() < 0.02 * P.sum()
    assert P[: events.LEAD - 2].sum() < 0.25 * P[events.LEAD : 2 * events.LEAD].sum()


def test_a_click_is_short_in_the_short_window():
    V = events.features(np.eye(1, SR, SR // 2, dtype=np.float32)[0])
    n_long = len(events.sizes()[0])
    for part, n_fft in ((V[:, :n_long], events.N_FFT), (V[:, n_long:], events.SHORT)):
        assert abs(np.count_nonzero(part.any(axis=1)) - n_fft / events.HOP) <= 1


def test_adaptation_is_what_was_counted_where_much_was(rng):
    """Each key's and zone's own ratio, as pseudo-counts vanish; and none where nothing was counted."""
    P, D, ratio = rng.uniform(0.5, 1, (3, 5, 4, 30)).astype(np.float32)
    np.testing.assert_allclose(events.adaptation(P, D * ratio, D, 10**9), ratio, rtol=1e-4)
    np.testing.assert_array_equal(events.adaptation(P, 0 * D, 0 * D, 5), np.ones_like(D))


def test_monotone_step_is_the_isotonic_regression(rng):
    """Against SciPy's, on one event whose head is one block."""
    n, T = 60, 40
    c, num = rng.uniform(0.5, 1, (1, n)).astype(np.float32), rng.uniform(0.1, 2, (1, n)).astype(np.float32)
    den = rng.uniform(0.5, 2, (1, T)).astype(np.float32)
    weight = den[0, np.minimum(np.arange(n), T - 1)].astype(float)
    z, h = (c * num)[0] / weight, events.HEAD
    z, w = [np.average(z[:h], weights=weight[:h]), *z[h:]], [weight[:h].sum(), *weight[h:]]
    expected = isotonic_regression(z, weights=w, increasing=False).x
    zero = np.zeros(1, np.int64)
    events._pool(c, num, den, zero, zero, np.array([n]), n, 0.0)
    np.testing.assert_allclose(c[0], np.concatenate([np.repeat(expected[0], h), expected[1:]]), rtol=1e-4)


@pytest.fixture
def known(rng, monkeypatch):
    """V, B, patterns, and events that overlap, begin before the first frame, repeat the last one, and end.

    Also the share c P of S of each, and its pattern in place [shape=(E, M, K)], and S.
    """
    monkeypatch.setattr(events, "shape", lambda: np.linspace(0.5, 1.5, 30, dtype=np.float32))
    V, B = rng.uniform(0.1, 1, (80, 30)).astype(np.float32), rng.uniform(0.1, 0.3, 80).astype(np.float32)
    patterns = events.under_fit(rng.uniform(0.1, 1, (3, 40, 30)).astype(np.float32))
    note, frame = np.array([0, 0, 1, 0, 2, 1, 2]), np.array([2, 10, 12, 14, 20, 30, 79])
    struck = events.strike(note, frame, rng.uniform(0.1, 0.3, len(note)), len(V))
    c = struck.c * 0.99 ** np.arange(events.LONGEST, dtype=np.float32)
    c[:, : events.HEAD] = c[:, :1]
    c[1, 25:] = 0
    struck = struck._replace(c=c, length=np.minimum(struck.length, [80, 80, 45, 80, 80, 80, 80]))
    share, pattern = np.zeros((2, len(note), *V.shape))
    for e, (l, first, length, c) in enumerate(zip(*struck[:4], strict=True)):
        for t in range(max(0, -first), min(length, len(V) - first)):
            pattern[e, first + t] = patterns.P[l, min(t, 39)]
            share[e, first + t] = c[t] * pattern[e, first + t]
    return V, B, patterns, struck, share, pattern, B[:, None] * events.shape() + share.sum(axis=0)


@pytest.mark.parametrize("frames", [256, 32, 7])
def test_expectation_is_its_equation(known, monkeypatch, frames):
    V, B, patterns, struck, share, pattern, S = known
    monkeypatch.setattr(events, "CORE_FRAMES", frames)
    monkeypatch.setattr(events, "INAUDIBLE", 0)
    np.testing.assert_allclose(events.model(V, B, patterns, struck), S, rtol=1e-5)
    one_hot = np.eye(3)[struck.note]
    t = np.arange(len(V)) - struck.first[:, None]
    zones = np.eye(events.ZONES[39] + 1)[events.ZONES[np.clip(t, 0, 39)]]
    expected = np.einsum("el,emz,emk->lzk", one_hot, zones, share)
    np.testing.assert_allclose(events.counted(struck, patterns.P, len(V)), expected, rtol=1e-5)
    N = np.zeros((-(-80 // frames), 3, zones.shape[2], 30), np.float32)
    improved, after = events.step(V, B, patterns, struck, N)
    np.testing.assert_allclose(N.sum(axis=0), np.einsum("el,emz,emk,mk->lzk", one_hot, zones, share, V / S), rtol=1e-5)
    np.testing.assert_allclose(improved, B * (events.shape() * V / S).mean(axis=1), rtol=1e-5)
    num, c = np.zeros_like(struck.c), struck.c.copy()
    for e, first in enumerate(struck.first):
        inside = slice(max(0, first), min(80, first + events.LONGEST))
        num[e, inside.start - first : inside.stop - first] = np.einsum("mk,mk->m", V / S, pattern[e])[inside]
    num *= c > 0
    events._pool(c, num, patterns.P.sum(axis=2), *struck[:3], len(V), 0.0)
    np.testing.assert_allclose(after.c, c, rtol=1e-4)


def test_free_loudness_is_one_step_of_each_frame_in_the_short_window(known, monkeypatch):
    V, B, patterns, struck, share, pattern, S = known
    monkeypatch.setattr(events, "sizes", lambda: (np.ones(20), np.ones(10)))
    steps = (share * V / S)[..., 20:].sum(axis=2) / np.maximum(pattern[..., 20:].sum(axis=2), 1e-30)
    expected = np.zeros((3, len(V)))
    np.add.at(expected, struck.note, steps * patterns.mass.max(axis=1)[struck.note, None])
    np.testing.assert_allclose(events.free_loudness(V, B, patterns, struck), expected, rtol=1e-4)


def test_what_an_event_gains_is_the_likelihood_less_that_without_it(known):
    (V, _, patterns, struck, share, _, S), reach = known, 3
    gain = events.likelihood_gains(V, S.astype(np.float32), patterns, struck, reach)
    for e, (l, first, _, c) in enumerate(zip(*struck[:4], strict=True)):
        rest = S - share[e]
        stop = min(len(V), first + events.HEAD + reach)
        for shift in range(-reach, reach + 1):
            m = np.arange(max(0, first - reach, first + shift), stop)
            x = c[max(0, -first)] * patterns.P[l, m - first - shift]
            expected = (V[m] * np.log((rest[m] + x) / rest[m]) - x).sum()
            assert gain[e, shift + reach] == pytest.approx(expected, rel=1e-4, abs=1e-4)


@pytest.mark.parametrize("ratio", [1e-6, 1e-3, 0.4142, 0.4143, 1.0, 30.0, 1e4])
def test_logarithm_of_what_is_gained(ratio):
    """One event and one bin: V log(1 + x / rest) - x."""
    P = np.full((1, events.HEAD, 1), ratio, np.float32)
    struck = events.strike(np.zeros(1, int), np.array([events.LEAD]), np.ones(1), events.HEAD)
    V = np.ones((events.HEAD, 1), np.float32)
    gain = events.likelihood_gains(V, V + P[0], events.under_fit(P), struck)
    assert gain[0, 0] / events.HEAD == pytest.approx(np.log1p(ratio) - ratio, rel=1e-3, abs=2e-7)


PLAYED = {
    "chords": [(1.0, 2.5, midi, 0.4) for midi in (48, 64, 67, 71)] + [(3.0, 4.0, midi, 0.4) for midi in (45, 60, 64)],
    "struck again": [(1.0, 1.6, 60, 0.5), (1.6, 2.2, 60, 0.5), (2.5, 3.0, 67, 0.5), (2.9, 3.5, 67, 0.5)],
    "with the pedal": [(0.5 + 0.3 * i, 4.5, midi, 0.4) for i, midi in enumerate((48, 55, 60, 64, 67, 72))],
    "octaves": [(1.0, 2.0, 48, 0.8), (2.5, 3.5, 55, 0.8), (1.0, 2.0, 60, 0.6), (2.5, 3.5, 67, 0.6)],
    "from end to end": [(0.0, 0.6, 60, 0.5), (0.2, 0.8, 67, 0.5), (1.5, 2.2, 64, 0.5), (4.1, 4.5, 55, 0.5)],
}


@far_off
@pytest.mark.parametrize("notes", PLAYED.values(), ids=PLAYED)
def test_what_is_played_is_listed(notes):
    found = listed(mix(notes, 4.5))
    assert_heard(found, notes)
    if notes is PLAYED["from end to end"]:  # offsets follow the damper
        assert [event.offset for event in found] == pytest.approx([offset for _, offset, *_ in notes], abs=0.055)


def test_a_note_ends_where_it_falls_fast_and_far_not_where_it_beats_or_dies_away():
    t = np.arange(events.LONGEST)
    c = np.stack(
        [
            0.96 ** np.maximum(t - 40, 0.0),  # a damper that hardly touches the string
            np.where(t < 40, 1, 0.6),  # strings that beat
            np.where(t < 40, 1, 0.5),
            0.93 ** np.maximum(t - 40, 0.0),
            np.where(t < 40, 1, np.where(t < 47, 0.6, 0.5)),
            0.8 ** np.maximum(t - 40, 0.0),
            np.where(t < 40, 0.985**t, 0.05),
            np.ones(len(t)),
        ]
    ).astype(np.float32)
    struck = events.Struck(np.zeros(8, int), np.zeros(8, int), np.array([*7 * [len(t)], 70]), c, np.full(8, -1))
    assert events.ends(struck)[1:].tolist() == [events.LONGEST, 40, 45, 40, 42, 40, 70]
    assert 40 + np.log(0.1) / np.log(0.96) < events.ends(struck)[0] < 100  # a tenth is left: nobody hears that


@far_off
def test_keys_struck_again_while_they_sound_are_listed():
    """Loud and soft in turn, under the pedal, with others sounding: of six strikes one may be missed."""
    strikes = [(1 + 0.15 * i, 4, 84, 0.3 if i % 2 else 0.5) for i in range(6)]
    notes = [(0.5, 4, midi, 0.4) for midi in (36, 48, 52, 55, 60)] + strikes
    assert_heard(listed(mix(notes, 4)), notes, missing=1)


@pytest.fixture(scope="module")
def fitted():
    """What :func:`events.with_struck_again` takes, of a key that is struck again while others sound."""
    strikes = [(1 + 0.15 * i, 4, 76, 0.3 if i % 2 else 0.5) for i in range(6)]
    y = mix([(0.5, 4, midi, 0.4) for midi in (48, 52, 55)] + strikes, 4.5)
    (P, midi), given, (V, _) = patterns(), events.given_notes(), events.scaled(y)
    fit = events.under_fit(P.astype(np.float32))
    B, struck = events.first_fit(V, fit, midi, given, 0, events.CANDIDATE_LEVEL, ((3, 0.005), (3, 0.01), (5, 0.02)))
    return V, B, fit, struck, midi, events.bounds_of(given, (0, len(y)))[-1]


def test_strikes_that_are_no_notes_take_nothing_from_the_others(fitted, monkeypatch):
    V, B, fit, struck, *_ = fitted
    monkeypatch.setattr(events, "confidences", lambda heard, midi: np.zeros(len(heard.onset)))
    found = events.with_struck_again(*fitted)
    none = events.joined(V, B, fit, struck, events.select(struck, slice(0)), 6)
    for one, other in zip((found[0], *found[1]), (none[0], *none[1]), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(("confidence", "learnt"), [(0.29, False), (0.31, True)])
def test_patterns_are_learnt_from_what_may_well_be_a_note(monkeypatch, confidence, learnt):
    """A note that is left out there would be learnt as overtones of another, and never be found."""
    y, (P, midi), given = mix([(0.5, 2, 48, 0.4), (0.5, 2, 60, 0.2)], 2), patterns(), events.given_notes()
    monkeypatch.setattr(events, "confidences", lambda heard, midi, _: np.full(len(heard.onset), confidence))
    gain = np.ones_like(events.by_zone(P.astype(np.float32)))
    N, D = events.count_segment((y, (0, len(y), 0, len(y))), P, gain, midi, given, events.ROUNDS[0][0])
    assert (N.any(), D.any()) == (learnt, learnt)
    assert not N[midi == 53].any()


def test_no_strike_is_tried_or_added_within_a_tenth_of_a_second_of_another(fitted, monkeypatch):
    told, joined = {}, events.joined
    monkeypatch.setattr(events, "joined", lambda *args: told.update({args[-1]: args[4]}) or joined(*args))
    monkeypatch.setattr(events, "confidences", lambda heard, _: told.update(heard=heard) or np.ones(len(heard.onset)))
    events.with_struck_again(*fitted)
    struck, heard, soonest = fitted[3], told["heard"], events.SOONEST * events.HOP / SR
    old, onset = heard.given < 0, (told[6].first + events.LEAD) * events.HOP / SR - events.DELAY_S
    assert len(told[3].note) > len(told[6].note) > 0
    away = np.abs(told[3].first[:, None] - struck.first)[told[3].note[:, None] == struck.note]
    assert away.min() > events.SOONEST
    away = np.abs(onset[:, None] - heard.onset[old])[told[6].note[:, None] == heard.pattern[old]]
    assert away.min() > soonest


def test_a_list_is_the_same_at_any_level():
    y = mix(MELODY, 4)
    soft, loud = listed(1e-4 * y), listed(30 * y)
    assert_heard(loud, MELODY)
    assert [event.midi for event in soft] == [event.midi for event in loud]
    np.testing.assert_allclose([e[1:4] for e in soft], [e[1:4] for e in loud], atol=0.02)


@far_off
def test_noise_becomes_no_notes_of_keys_that_nobody_plays(rng):
    """White noise 10 dB below a bass line, whose highest keys would learn it as long as the background is another."""
    keys = (48, 52, 55, 60, 57, 53, 50, 47, 48, 55, 52, 60, 62, 59, 55, 50) * 2
    line = [(0.3 + 0.4 * i, 0.65 + 0.4 * i, midi, 0.5) for i, midi in enumerate(keys)]
    y = mix(line, 14.0)
    noise = rng.standard_normal(len(y)).astype(np.float32)
    assert_heard(listed(y + noise * np.sqrt(0.1 * np.mean(y**2) / np.mean(noise**2))), line)


@pytest.mark.parametrize("sound", ["silence", "noise", "hum", "empty", "click"])
def test_what_is_no_piano_lists_nothing(sound, rng):
    y = {
        "silence": np.zeros(3 * SR),
        "noise": 0.1 * rng.standard_normal(3 * SR),
        "hum": 0.1 * np.sin(2 * np.pi * 50 * np.arange(3 * SR) / SR) + 1e-3 * rng.standard_normal(3 * SR),
        "empty": np.zeros(0),
        "click": np.eye(1, 3 * SR, 3 * SR // 2)[0],
    }[sound]
    assert listed(y.astype(np.float32)) == []


@far_off
@pytest.mark.parametrize("cents", [-30, 30])
def test_mistuned_piano(cents):
    y = recording.transpose(mix(MELODY, 4), SR, cents / 100)
    assert_heard(listed(y, *patterns(MIDDLE)), [(onset / 2 ** (cents / 1200), *rest) for onset, *rest in MELODY])


@far_off
def test_several_velocities_are_one_note():
    P, midi = patterns(MIDDLE)
    dull = P.astype(np.float32) * np.linspace(1, 0.3, P.shape[2], dtype=np.float32)
    assert_heard(listed(mix(MELODY, 4), np.concatenate([P, dull]), np.concatenate([midi, midi])), MELODY)


@pytest.mark.same_everywhere("whole numbers")
def test_segments_cover_a_recording_once():
    for n in (0, 1, SR, 44 * SR, 46 * SR, 500 * SR + 77):
        cuts = list(events.segments(n))
        assert (cuts[0][2], cuts[-1][3]) == (0, n)
        assert all(a[3] == b[2] for a, b in pairwise(cuts))
        assert all(start <= first <= last <= stop <= n for start, stop, first, last in cuts)


@far_off
def test_segments_hear_what_the_whole_does(monkeypatch):
    notes = [(0.4 + 0.4 * i, 0.7 + 0.4 * i, midi, 0.5) for i, midi in enumerate((60, 62, 64, 65, 67, 72, 55, 48) * 2)]
    monkeypatch.setattr(events, "SEGMENT_S", 2.5)
    assert_heard(listed(mix(notes, 7.3), *patterns(MIDDLE)), notes)


def test_neither_cores_nor_where_the_work_is_done_change_the_list(monkeypatch):
    monkeypatch.setattr(events, "SEGMENT_S", 1.0)
    y, done = mix(MELODY[:4], 2.5), []

    def elsewhere(function, items):
        return (pickle.loads(pickle.dumps(function))(item) for item in items)

    expected = listed(y, *patterns(range(58, 68)), map=elsewhere, progress=lambda *n: done.append(n))
    assert sum(n for n, _ in done) == done[-1][1]
    monkeypatch.setattr(blocks, "available_cores", lambda: blocks.core_limit.get() or 12)
    assert listed(y, *patterns(range(58, 68))) == expected


def told(notes):
    return events.given_notes([note[2] for note in notes], [note[0] for note in notes])


def test_given_notes_stay_where_they_are_right_and_else_are_moved_to_where_they_are_heard(monkeypatch):
    monkeypatch.setattr(events, "SEGMENT_S", 2.0)
    monkeypatch.setattr(events, "with_struck_again", None)  # nothing is added to a list that is given
    y, onsets = mix(MELODY, 4), np.array([onset for onset, *_ in MELODY])
    assert [event.onset for event in heard(y, told(MELODY))] == onsets.tolist()
    wrong = [(onset + away, None, *rest) for away, (onset, _, *rest) in zip([0.04, -0.04] * 4, MELODY, strict=True)]
    found = heard(y, told(wrong))
    assert [event.midi for event in found] == [note[2] for note in MELODY]
    assert all(event.confidence > 0.5 for event in found)
    np.testing.assert_allclose([event.onset for event in found], onsets, atol=0.02)


def test_no_given_note_is_lost_nor_far_from_where_it_was(rng):
    """One that nobody played, a soft one beside a loud one, one key three times in .12 s, a list half a second off."""
    soft = [(0.5, 2.0, 60, 0.5), (0.5, 2.0, 67, 0.5), (0.5, 2.0, 64, 0.005), (2.2, 2.6, 40, 0.5)]
    extra = [(1.7, 2.0, 78, 0.0), (2.3, 2.5, 40, 0.0), (2.25, 2.5, 40, 0.0)]
    for shift in (0, 0.5):
        given = [(onset + shift, None, midi, None) for onset, _, midi, _ in soft + extra]
        found = heard(mix(soft, 3.5), told(given))
        assert [event.midi for event in found] == [note[2] for note in given]
        onsets = np.array([event.onset for event in found])
        assert np.abs(onsets - [note[0] for note in given]).max() <= events.MOVED_S + 1e-9
        assert np.diff(onsets[[3, 6, 5]]).min() >= 0  # of one key, in their order
        if shift == 0:
            sure = [event.confidence > 0.5 for event in found]
            assert (sure[:2], sure[3:5]) == ([True, True], [True, False])


@pytest.mark.parametrize("seconds", [0, 3])
def test_given_notes_in_silence_are_kept_and_not_heard(seconds):
    found = heard(np.zeros(seconds * SR, np.float32), told(MELODY))
    assert [(event.onset, event.midi, event.confidence) for event in found] == [(n[0], n[2], 0) for n in MELODY]
