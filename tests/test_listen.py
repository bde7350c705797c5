"""The page to listen to: what goes into it, and what a real browser makes of it."""

import base64
import io
import shlex
import shutil
from collections import namedtuple
from contextlib import ExitStack
from typing import NamedTuple

import mido
import numpy as np
import pytest
import soundfile

import NMF
from helpers import copy_basis, data_of, frequency, level, struck
from oracle import luminance
from piano import listen, notes, pitch
from piano.notes import Note

pytestmark = pytest.mark.same_everywhere("compares sounds in a browser, which computes without BLAS")

SR = 22050
SECONDS = 4
FADE = 111  # samples; the page fades where it cuts into the recording
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-component-update", "--disable-sync"]
FLAGS += ["--disable-background-networking"]
MODES = "recording", "notes", "residual", "transcription"
HOSTILE = "</script><img src=x onerror=\"document.title='got you'\">&amp;{{data}}\u2028.flac"


def a_note(midi, onset, offset, level_db=0.0, confidence=0.9):
    return Note(pitch.note_name(midi), midi, frequency(midi), onset, offset, level_db, confidence)


def sound_of(note, n_samples):
    """A note that decays, as its stem: four partials from its onset to its offset."""
    t = np.arange(n_samples) / SR - note.onset
    inside = (t >= 0) & (t < note.offset - note.onset)
    partials = sum(0.5**n * np.sin(2 * np.pi * (n + 1) * note.f0 * t) for n in range(4))
    envelope = np.minimum(t / 0.005, 1) * np.exp(-t / 0.5) * np.minimum((note.offset - note.onset - t) / 0.05, 1)
    return (0.1 * 10 ** (note.level_db / 20) * np.where(inside, envelope * partials, 0)).astype(np.float32)


Example = namedtuple("Example", ["y", "sr", "notes", "stems", "roll"])  # what :func:`listen.write_page` makes a page of


def write(path, example, title="a recording", **options):
    """Write a page; returns its path."""
    listen.write_page(path, listen.Sound(title, example.y, example.sr), *example[2:], **options)
    return path


def an_example(notes, seconds=SECONDS):
    """A recording whose stems are known: the notes, a soft A4 that was missed, and noise that belongs to none."""
    n = seconds * SR
    stems = {note.midi: np.zeros(n, np.float32) for note in notes}
    midi = list(range(55, 80))
    U = np.zeros((len(midi), n // 512 + 1))
    for note in notes:
        stems[note.midi] += sound_of(note, n)
        U[note.midi - midi[0], int(note.onset * SR / 512) : int(note.offset * SR / 512)] = 10 ** (note.level_db / 20)
    U[MISSED.midi - midi[0], int(MISSED.onset * SR / 512) : int(MISSED.offset * SR / 512)] = 0.1
    noise = 0.003 * np.random.default_rng(1).standard_normal(n).astype(np.float32)
    return Example(sum(stems.values()) + sound_of(MISSED, n) + noise, SR, notes, stems, listen.Roll(U, midi, 512 / SR))


NOTES = [
    a_note(60, 0.2, 1.0),
    a_note(64, 0.9, 1.9, -6),
    a_note(67, 1.0, 2.5, -3, confidence=0.2),
    a_note(60, 2.4, 3.3, -9),
    a_note(72, 2.6, 3.6, -6),
]
MISSED = a_note(69, 1.2, 1.8, -20)


EXAMPLE = an_example(NOTES)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    return write(tmp_path_factory.mktemp("page") / "listen.html", EXAMPLE)


def decoded(sound):
    """Samples of a sound of the page, integers divided by 2^15 as browsers do."""
    x, _ = soundfile.read(io.BytesIO(base64.b64decode(sound["data"])), dtype="int16")
    return x / 2**15 * sound["gain"]


def frequency_of(sound):
    """Hz of what is loudest in a sound."""
    return np.argmax(np.abs(np.fft.rfft(sound * np.hanning(len(sound)), 2**20))) * SR / 2**20


# --- Without a browser ------------------------------------------------------------------------------


def test_same_input_gives_the_same_bytes_be_its_stems_arrays_or_files(written, tmp_path):
    files = {}
    for midi, stem in EXAMPLE.stems.items():
        files[midi] = listen.Stem(tmp_path / f"{midi}.wav", listen._peaks(stem))
        soundfile.write(files[midi].path, stem, SR, subtype="FLOAT")
    for stems in (EXAMPLE.stems, files):
        write(tmp_path / "again.html", EXAMPLE._replace(stems=stems))
        assert (tmp_path / "again.html").read_bytes() == written.read_bytes()


def test_clips_are_where_a_stem_sounds_and_fade_but_at_its_ends(rng):
    n, peaks = listen.PEAK_SAMPLES, np.zeros(200)
    peaks[[50, 52, 100]] = 1  # the first two are so near that they are one
    struck = int(1.5 * SR / n), int(1.6 * SR / n)
    expected = [(49 * n, 54 * n), (99 * n, 102 * n), ((struck[0] - 1) * n, (struck[1] + 2) * n)]
    assert listen.find_clips(peaks, 0.5, [(1.5, 1.6)], 200 * n, SR) == expected
    fade = np.sin(np.linspace(0, np.pi / 2, n)) ** 2
    found = listen.cut(np.ones(9 * n, np.float32), [(2 * n, 6 * n)])
    np.testing.assert_allclose(found, np.concatenate([fade, np.ones(2 * n), fade[::-1]]), atol=1e-6)
    for n_samples in (3 * n, 2 * n + 7, 1):
        stem = rng.standard_normal(n_samples).astype(np.float32)
        clips = listen.find_clips(np.ones(-(-n_samples // n)), 0.5, [], n_samples, SR)
        assert clips == [(0, n_samples)]
        np.testing.assert_array_equal(listen.cut(stem, clips), stem)


def test_sounds_are_coded_to_sixteen_bits_of_their_own_peak_where_they_sound(written):
    page = data_of(written)
    assert page["code"] == "FLAC"
    step = np.abs(EXAMPLE.y).max() / 32767
    assert np.abs(decoded(page["recording"]) - EXAMPLE.y).max() <= 0.51 * step
    for sound in page["pitches"]:
        stem, rest = EXAMPLE.stems[sound["midi"]], EXAMPLE.stems[sound["midi"]].copy()
        clips = [(start, start + length) for start, length in sound["clips"]]
        expected = listen.cut(stem, clips)
        assert sound["length"] == len(expected)
        assert np.abs(decoded(sound) - expected).max() <= 0.51 * np.abs(expected).max() / 32767
        for start, stop in clips:
            ends = stem[start : start + listen.PEAK_SAMPLES], stem[stop - listen.PEAK_SAMPLES : stop]
            assert np.abs(ends).max() <= 1e-4  # it fades where nothing sounds
            rest[start:stop] = 0
        assert level(rest, stem) < -60


# --- In a browser -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def browser():
    sync_api = pytest.importorskip("playwright.sync_api", reason="the page is not tested: playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("the page is not tested in a browser: there is no chromium (on Debian: apt install chromium)")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def opened(browser):
    """A function that opens a file and returns its page; whatever that complains of, or asks for, fails the test."""
    with ExitStack() as contexts:
        said = []

        def open_page(path, *, width=1280, before="", touch=False, scheme="light"):
            look = {"viewport": {"width": width, "height": 900}, "has_touch": touch, "is_mobile": touch}
            page = contexts.enter_context(browser.new_context(**look, color_scheme=scheme)).new_page()
            page.add_init_script(before)
            page.on("console", lambda message: said.append(message.text))
            page.on("pageerror", lambda error: said.append(str(error)))
            page.on("request", lambda request: said.append(request.url))
            page.goto(path.as_uri())
            page.evaluate("listen.ready")
            return page

        yield open_page
    ours = "data:image/png;", "data:,", "blob:", "file:///", "about:"
    assert [text[:200] for text in said if not text.startswith(ours)] == []


@pytest.fixture
def page(opened, written):
    return opened(written)


def heard(page, **options):
    """What the page sounds like as it is set, or with other options, through the code that plays it."""
    text = page.evaluate(
        """async (options) => {
            const samples = await listen.render(options), bytes = new Uint8Array(samples.buffer);
            let text = "";
            for (let i = 0; i < bytes.length; i += 8192) text += String.fromCharCode(...bytes.subarray(i, i + 8192));
            return btoa(text);
        }""",
        options,
    )
    return np.frombuffer(base64.b64decode(text), np.float32)


def only(mode, gain=1):
    """Faders with one of them up."""
    return {"mix": {**dict.fromkeys(MODES, 0), mode: gain}}


def wait_for(page, condition):
    """Wait until JavaScript is true; Playwright's own way needs `eval`, which the page's policy forbids."""
    for _ in range(500):
        if page.evaluate(f"Boolean({condition})"):
            return
        page.wait_for_timeout(20)
    pytest.fail(f"waited in vain for {condition}")


@pytest.fixture(scope="module")
def stems(written):
    """The stem of each pitch, without what its clips leave to the residual."""
    found = {sound["midi"]: np.zeros_like(EXAMPLE.y) for sound in data_of(written)["pitches"]}
    for sound in data_of(written)["pitches"]:
        clips = [(start, start + length) for start, length in sound["clips"]]
        coded = listen.cut(EXAMPLE.stems[sound["midi"]], clips)
        for start, stop in clips:
            found[sound["midi"]][start:stop], coded = coded[: stop - start], coded[stop - start :]
    return found


def at(page, seconds, midi):
    """Where on the screen a time of a key's row lies; the row is brought into view."""
    return page.evaluate(
        """([seconds, midi]) => {
            const picture = document.getElementById("picture"), y = listen.rowTop(midi) + listen.shown.rowHeight / 2;
            let top = picture.getBoundingClientRect().top;
            if (top + y < 150 || top + y > innerHeight - 260) scrollBy(0, top + y - 330);
            const box = picture.getBoundingClientRect();
            return [box.left + listen.xOf(seconds), box.top + y];
        }""",
        [seconds, midi],
    )


def place_of(page, i):
    """Where on the screen the middle of note i lies."""
    return at(page, (NOTES[i].onset + NOTES[i].offset) / 2, NOTES[i].midi)


def on_ruler(page, seconds):
    box = page.locator("#ruler").bounding_box()
    return [box["x"] + page.evaluate(f"listen.xOf({seconds})"), box["y"] + 9]


def key(page, midi):
    return page.locator(f"#keys button[value='{midi}']")


def press(page, *names):
    for name in names:
        page.keyboard.press(name)


def drawn(page):
    """Wait until what was changed is drawn."""
    page.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")


class Hand(NamedTuple):
    """What a person acts with: a mouse, or a finger."""

    page: object
    touch: bool

    def click(self, x, y):
        if self.touch:
            self.page.touchscreen.tap(x, y)
        else:
            self.page.mouse.click(x, y)
        drawn(self.page)

    def press(self, name):
        button = self.page.locator(name if name.startswith("[") else f"#{name}")
        button.evaluate("(b) => { window.pressed = false; b.addEventListener('click', () => (pressed = true)); }")
        for _ in range(10):  # right after another touch, Chromium may take a tap for what ends that: tap again
            button.tap() if self.touch else button.click()
            drawn(self.page)
            if self.page.evaluate("window.pressed"):
                return
            self.page.wait_for_timeout(400)
        pytest.fail(f"pressed {name} in vain")

    def drag(self, start, end):
        middle = [(a + b) / 2 for a, b in zip(start, end, strict=True)]
        if self.touch:
            session = self.page.context.new_cdp_session(self.page)
            for kind, *points in (("touchStart", start), ("touchMove", middle), ("touchMove", end), ("touchEnd",)):
                points = [{"x": x, "y": y} for x, y in points]
                session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
            session.detach()
        else:
            self.page.mouse.move(*start)
            self.page.mouse.down()
            self.page.mouse.move(*middle)
            self.page.mouse.move(*end)
            self.page.mouse.up()
        drawn(self.page)


@pytest.fixture(params=["mouse", "touch"])
def hand(request, opened, written):
    touch = request.param == "touch"
    return Hand(opened(written, touch=touch, width=390 if touch else 1280), touch)


def the_list(page):
    """The notes of the page: name, onset, offset and confidence."""
    fields = "({ name, onset, offset, confidence }) => [name, onset, offset, confidence]"
    listed, first = page.evaluate(f"[listen.list.notes.map({fields}), listen.page.offset]")
    return [(name, round(first + start, 3), round(first + stop, 3), sure) for name, start, stop, sure in listed]


def row(note, **changed):
    """A note as :func:`the_list` has it."""
    note = note._replace(**changed)
    return pitch.note_name(note.midi), note.onset, note.offset, note.confidence


GIVEN = [row(note) for note in NOTES]


def without(i):
    return GIVEN[:i] + GIVEN[i + 1 :]


def selected(page):
    return page.evaluate("listen.shown.selected && [listen.shown.selected.name, listen.shown.selected.onset]")


def loop_of(page):
    return page.evaluate("[listen.view.loop.from, listen.view.loop.until]")


def downloaded(page, name, folder):
    """The file that a button gives."""
    with page.expect_download() as waiting:
        page.locator(f"#{name}").click()
    path = folder / waiting.value.suggested_filename
    waiting.value.save_as(path)
    return path


# --- ... what is heard


def test_page_opens_from_disk_and_is_quiet(page):
    assert page.title() == "a recording \u00b7 note by note"
    assert page.locator("#message").text_content() == ""
    assert page.locator("#rows tr").count() == len(NOTES)
    assert page.locator("#rows tr", has_text="doubtful").count() == 1
    assert "FLAC inside" in page.locator("#summary").text_content()
    page.mouse.move(*place_of(page, 2))
    assert page.locator("#readout").text_content().startswith("G4, 0:01.00 to 0:02.50, \u22123.0 dB, doubtful")
    page.mouse.move(*at(page, 1.5, 69))
    assert page.locator("#readout").text_content().startswith("A4, 0:01.50, \u221219.9 dB")  # in steps of the picture
    page.mouse.move(*at(page, 1.15, 69))
    assert page.locator("#readout").text_content().startswith("A4, 0:01.15, below \u221240.0 dB")


def test_notes_and_residual_add_up_to_the_recording(page):
    sounds = sum(EXAMPLE.stems.values())
    for digit, (mode, expected) in enumerate(zip(MODES, (EXAMPLE.y, sounds, EXAMPLE.y - sounds, None), strict=True), 1):
        press(page, str(digit))
        assert [button.get_attribute("value") for button in page.locator("#modes [aria-pressed=true]").all()] == [mode]
        assert expected is None or level(heard(page) - expected, EXAMPLE.y) < -66  # so what two add up to is to -60
    for mode, percent in (("recording", 50), ("notes", 0), ("residual", 100), ("transcription", 0)):
        page.locator(f"#mix-{mode}").fill(str(percent))
    assert page.locator("#modes [aria-pressed=true]").count() == 0
    assert level(heard(page) - (1.5 * EXAMPLE.y - sounds), EXAMPLE.y) < -60
    page.locator("#mix-notes").focus()
    press(page, "End")
    assert level(heard(page) - 1.5 * EXAMPLE.y, EXAMPLE.y) < -60


def test_large_page_is_mp3_and_adds_up_too(opened, tmp_path, monkeypatch):
    monkeypatch.setattr(listen, "FLAC_LIMIT", 1000)
    page = opened(write(tmp_path / "listen.html", EXAMPLE))
    assert "MP3 inside" in page.locator("#summary").text_content()
    recording, sounds, residual = (heard(page, **only(mode)) for mode in MODES[:3])
    assert level(sounds + residual - recording, recording) < -100
    assert level(recording - EXAMPLE.y, EXAMPLE.y) < -20  # in step: a sample of lag would leave more
    assert level(sounds - sum(EXAMPLE.stems.values()), EXAMPLE.y) < -20
    coded = io.BytesIO(base64.b64decode(data_of(tmp_path / "listen.html")["recording"]["data"]))
    assert soundfile.info(coded).frames >= len(EXAMPLE.y) + 1152  # Firefox drops some of the last frame


def assert_clip_is_heard(page, stem):
    """What plays now is a stem, and nothing else; returns from where to where."""
    wait_for(page, "listen.playing()")
    from_, until = page.evaluate("[listen.playing().rounds[0].from, listen.playing().rounds[0].until]")
    mix, solo = page.evaluate("[listen.playing().heard.mix, [...listen.playing().heard.solo]]")
    sound = heard(page, **{"from": from_, "until": until, "mix": mix, "solo": solo, "volume": 1, "speed": 1})
    expected = stem[round(from_ * SR) : round(until * SR)]
    assert level((sound - expected)[FADE:-FADE], expected) < -60
    return from_, until


def test_click_on_a_note_plays_its_stem_and_nothing_else_on_the_loudspeaker(page, stems):
    page.mouse.click(*place_of(page, 0))
    note = NOTES[0]
    from_, until = assert_clip_is_heard(page, stems[note.midi])
    assert from_ <= note.onset <= note.offset <= until
    assert not any(other.midi == note.midi and from_ < other.onset < until for other in NOTES if other != note)
    wait_for(page, "!listen.playing()")  # it ends by itself
    assert page.evaluate("listen.view.mix.recording") == 1

    page.mouse.click(*place_of(page, 2))
    wait_for(page, "listen.playing()")
    page.evaluate("window.ear = new AnalyserNode(listen.playing().context, { fftSize: 8192 }), 0")
    page.evaluate("listen.playing().master.connect(ear), 0")  # the sound itself, as it leaves the page
    wait_for(page, f"listen.clockPosition() > {NOTES[2].onset + 0.5}")
    bins = page.evaluate("ear.getFloatFrequencyData(window.bins = new Float32Array(4096)), [...bins]")
    assert max(bins) > -60
    assert np.argmax(bins) * page.evaluate("ear.context.sampleRate") / 8192 == pytest.approx(NOTES[2].f0, abs=5)


def test_a_piece_goes_on_after_a_note_that_was_clicked(page):
    press(page, "Space")
    wait_for(page, "listen.clockPosition() > 0.1")
    page.mouse.click(*place_of(page, 4))
    wait_for(page, "listen.playing()?.heard.note")
    assert 0.1 <= (back := page.evaluate("listen.playing().heard.after")) < 2
    wait_for(page, "listen.playing() && !listen.playing().heard.note")
    assert page.evaluate("listen.playing().rounds[0].from") == pytest.approx(back, abs=1 / SR)


def test_what_is_too_loud_is_rounded_and_not_cut(opened, tmp_path):
    loud = 0.9 / np.abs(EXAMPLE.y).max()
    stems = {midi: loud * stem for midi, stem in EXAMPLE.stems.items()}
    page = opened(write(tmp_path / "listen.html", EXAMPLE._replace(y=loud * EXAMPLE.y, stems=stems)))
    assert level(heard(page) - loud * EXAMPLE.y, EXAMPLE.y) < -60
    page.locator("#volume").fill("200")
    sound, twice = heard(page), 2 * loud * EXAMPLE.y
    assert 0.8 < np.abs(sound).max() < 1
    soft = np.abs(twice) < 0.79
    assert level((sound - twice)[soft], twice[soft]) < -60
    over = np.abs(twice) > 1
    assert over.any()
    assert len(np.unique(sound[over])) > 0.9 * over.sum()  # a peak keeps its shape
    press(page, "Space")
    wait_for(page, "!document.getElementById('limited').hidden")


def test_transcription_is_played_by_the_keys_of_the_recording(page):
    assert np.abs(heard(page, **only("transcription"))[: int(0.18 * SR)]).max() < 1e-6
    for note in (note for note in NOTES if note.confidence > 0.5):
        options = only("transcription") | {"solo": [note.midi]}
        part = heard(page, **options)[int(note.onset * SR) : int((note.offset - 0.1) * SR)]
        stem = EXAMPLE.stems[note.midi][int(note.onset * SR) : int((note.offset - 0.1) * SR)]
        # its loudest note is a key's own sound; the other C4 is that sound, at its own level
        assert level(part - stem, stem) < (-40 if note != NOTES[3] else -10)
    page.locator("#row").select_option("62")
    press(page, "Home")
    page.locator("#add").click()  # D4, which nobody played: the sound of a key nearby, transposed
    assert "another key of this piano" in page.locator("#message").text_content()
    part = heard(page, **only("transcription"), solo=[62], until=0.5)
    assert 1200 * np.log2(frequency_of(part) / (440 * 2 ** (-7 / 12))) == pytest.approx(0, abs=5)


def test_slower_sources_keep_their_pitch_and_stay_in_step(page):
    """All are stretched alike, so notes and residual are the recording at any speed."""
    page.locator("#speed").focus()
    press(page, *8 * ["ArrowLeft"])
    assert page.locator("#speed-text").text_content() == "60 %"
    guide = {"speed": 0.6, "from": 0.5, "until": 2.5}
    both = heard(page, **guide, mix={"recording": 0, "notes": 0.5, "residual": 0.5, "transcription": 0})
    recording = heard(page, **guide, **only("recording", 0.5))
    assert level(both - recording, recording) < -60
    part = {"from": 1.2, "until": 2.2, **only("notes"), "solo": [67]}
    slow, quick = heard(page, **part, speed=0.6), heard(page, **part, speed=1)
    assert len(slow) == pytest.approx(len(quick) / 0.6, abs=1)
    assert 1200 * np.log2(frequency_of(slow) / NOTES[2].f0) == pytest.approx(0, abs=5)
    assert np.sqrt(np.mean(slow**2)) == pytest.approx(np.sqrt(np.mean(quick**2)), rel=0.1)
    press(page, "Space")
    page.locator("body").click(position={"x": 5, "y": 5})
    press(page, "i")
    wait_for(page, "listen.playing()?.sources.size && listen.clockPosition() > 0.1")
    now = "listen.playing().context.currentTime"
    seconds, clock = page.evaluate(f"[listen.clockPosition(), {now}]")
    wait_for(page, f"{now} > {clock + 0.5}")
    later, clock_later = page.evaluate(f"[listen.clockPosition(), {now}]")
    assert (later - seconds) / (clock_later - clock) == pytest.approx(0.6, abs=0.15)  # the device's clock goes in steps


def test_slow_loop_comes_round(page):
    page.evaluate("listen.shown.position = 1")
    press(page, "<", "i", "ArrowRight", "ArrowLeft", *3 * ["Shift+ArrowRight"], "o")
    assert loop_of(page) == pytest.approx([1, 1.3], abs=1e-3)
    press(page, "Space")
    wait_for(page, "listen.playing()?.rounds[2]?.clock + 0.05 < listen.playing().context.currentTime")
    assert 1 <= page.evaluate("listen.clockPosition()") <= 1.3
    press(page, "l")
    assert page.evaluate("listen.view.loop") is None


# --- ... keys, loops and the view


def test_solo_and_mute_of_keys(hand, stems):
    page = hand.page
    hand.click(*at_key(page, 64))
    assert_clip_is_heard(page, stems[64])  # while nothing else plays, the key sounds
    assert page.evaluate("listen.view.mix.recording") == 1
    wait_for(page, "!listen.playing()")
    assert page.evaluate("listen.shown.position") == 0
    assert level(heard(page) - stems[64], stems[64]) < -60
    if not hand.touch:
        key(page, 67).click(modifiers=["Shift"])
        assert level(heard(page) - stems[64] - stems[67], stems[64]) < -60
        assert key(page, 67).get_attribute("aria-pressed") == "true"
    hand.press("all")
    assert page.locator("#keys [aria-pressed=true]").count() == 0
    hand.press("muting")
    hand.click(*at_key(page, 60))
    assert level(heard(page, **only("notes")) - (stems[64] + stems[67] + stems[72]), EXAMPLE.y) < -60
    assert "muted" in key(page, 60).get_attribute("aria-label")
    assert level(heard(page) - (EXAMPLE.y - stems[60]), EXAMPLE.y) < -60  # the recording without a note
    hand.press("all")
    hand.press("muting")
    hand.drag(at_key(page, 67), at_key(page, 63))  # a range
    assert page.evaluate("[...listen.view.solo].sort()") == [63, 64, 65, 66, 67]
    assert level(heard(page) - stems[64] - stems[67], stems[64]) < -60


def at_key(page, midi):
    """Where on the screen a key lies; it is brought into view."""
    at(page, 0, midi)
    box = key(page, midi).bounding_box()
    return [box["x"] + 30, box["y"] + box["height"] / 2]


def test_hands_part_where_the_grip_is(hand, stems):
    page = hand.page
    at(page, 0, 65)
    grip = page.locator("#split").bounding_box()
    edge = at_key(page, 66)[1] + page.evaluate("listen.shown.rowHeight") / 2
    hand.drag([grip["x"] + 10, page.locator("#split").bounding_box()["y"]], [grip["x"] + 10, edge])
    assert page.evaluate("listen.view.split") == 66
    pressed = "document.querySelector(\"[data-hand='{}']\").getAttribute('aria-pressed') === 'true'"
    hand.press("[data-hand='lower solo']")
    wait_for(page, pressed.format("lower solo"))
    assert level(heard(page) - stems[60] - stems[64], stems[60]) < -60
    hand.press("[data-hand='upper muted']")
    wait_for(page, pressed.format("upper muted"))
    assert level(heard(page) - (EXAMPLE.y - stems[67] - stems[72]), EXAMPLE.y) < -60
    page.locator("#split").focus()
    press(page, *2 * ["ArrowUp"])
    assert page.locator("#split").get_attribute("aria-valuetext") == "G#4"
    assert level(heard(page) - (EXAMPLE.y - stems[72]), EXAMPLE.y) < -60


def test_loop_by_hand_can_be_taken_away(hand, tmp_path):
    page = hand.page
    hand.drag(on_ruler(page, 1), on_ruler(page, 3.5))
    assert loop_of(page) == pytest.approx([1, 3.5], abs=0.03)
    hand.drag(on_ruler(page, 3.5), on_ruler(page, 2.5))  # its end
    assert loop_of(page) == pytest.approx([1, 2.5], abs=0.03)
    assert page.locator("#loop").get_attribute("aria-pressed") == "true"
    first, last = loop_of(page)
    part = EXAMPLE.y[round(first * SR) : round(last * SR)]
    rounds = heard(page, **{"from": first, "until": last}, seconds=3 * len(part) / SR).reshape(3, -1)
    assert level((rounds - part)[:, FADE:-FADE], rounds) < -60
    assert np.abs(rounds[:, [0, -1]]).max() < 0.01 * np.abs(part).max()  # and no click where they meet
    if not hand.touch:
        x, sr = soundfile.read(downloaded(page, "loop-wav", tmp_path))
        assert (sr, len(x)) == (SR, len(part))
        assert level((x - part)[FADE:-FADE], part) < -60
        file = mido.MidiFile(downloaded(page, "loop-midi", tmp_path))
        assert [message.note for message in file if message.type == "note_on"] == [64, 67, 60]
        assert file.length == pytest.approx(last - first, abs=2e-3)
    hand.click(*on_ruler(page, 2))
    assert page.evaluate("listen.clockPosition()") == pytest.approx(2, abs=0.03)
    hand.press("loop-a")
    assert loop_of(page)[0] == pytest.approx(2, abs=0.03)
    hand.press("play")
    wait_for(page, "listen.playing()?.context.currentTime > listen.playing().rounds[1]?.clock + 0.1")
    assert 2 - 0.03 <= page.evaluate("listen.clockPosition()") <= last
    hand.press("loop")
    assert page.evaluate("listen.view.loop") is None


def test_first_loop_is_not_all(opened, tmp_path):
    page = opened(write(tmp_path / "listen.html", an_example(NOTES, seconds=8)))
    page.mouse.click(*on_ruler(page, 4))
    press(page, "l")
    assert loop_of(page) == pytest.approx([2, 6], abs=0.05)
    press(page, "l", "+", "l")
    assert np.diff(loop_of(page)) == pytest.approx(8 / 1.5, abs=0.1)  # what is in view


def test_space_plays_and_pauses_and_a_click_seeks(page):
    press(page, "Space")
    wait_for(page, "listen.clockPosition() > 0.2")
    assert page.locator("#play").text_content() == "Pause"
    page.locator("#modes button").nth(2).click()  # the mouse leaves the focus where it is
    press(page, "Space")
    assert page.evaluate("listen.playing()") is None
    page.mouse.click(*at(page, 3.8, 64))
    assert page.evaluate("listen.clockPosition()") == pytest.approx(3.8, abs=0.02)
    press(page, "ArrowLeft")
    assert page.evaluate("listen.clockPosition()") == pytest.approx(2.8, abs=0.02)


def test_view_follows_until_it_is_scrolled_by_hand(page):
    press(page, *4 * ["+"])
    x_of_playhead, width = "listen.xOf(listen.clockPosition())", page.evaluate("roll.clientWidth")
    press(page, "End")
    assert 0 <= page.evaluate(x_of_playhead) <= width
    press(page, *4 * ["ArrowLeft"])  # a second, more than is in view
    assert 0 <= page.evaluate(x_of_playhead) <= width
    press(page, "Space")
    wait_for(page, "listen.clockPosition() > 0.1")
    page.mouse.move(*at(page, page.evaluate("listen.clockPosition()") + 0.1, 64))
    page.mouse.wheel(1500, 0)
    wait_for(page, "!listen.shown.follow")
    left, clock = page.evaluate("[roll.scrollLeft, listen.clockPosition()]")
    wait_for(page, f"listen.clockPosition() > {clock + 0.3}")
    assert page.evaluate("roll.scrollLeft") == left
    press(page, "v")
    assert 0 <= page.evaluate(x_of_playhead) <= width


def test_zoom_turns_about_pointer_or_playhead(page):
    page.mouse.click(*on_ruler(page, 3))
    before = page.evaluate("listen.xOf(3)")
    press(page, "+")
    assert page.evaluate("listen.xOf(3)") == pytest.approx(before, abs=1)
    x, y = at(page, 2.5, 64)
    scale = page.evaluate("listen.shown.scale")
    page.mouse.move(x, y)
    page.keyboard.down("Control")
    page.mouse.wheel(0, -100)
    page.keyboard.up("Control")
    wait_for(page, f"listen.shown.scale > {scale}")
    assert at(page, 2.5, 64)[0] == pytest.approx(x, abs=1)


COUNT_DRAWING = """
    window.strokes = 0;
    for (const name of ["stroke", "fill", "strokeRect", "fillRect", "drawImage", "clearRect", "fillText"]) {
        const draw = CanvasRenderingContext2D.prototype[name];
        CanvasRenderingContext2D.prototype[name] = function (...given) { strokes++; return draw.apply(this, given); };
    }
"""
UNTIL_STILL = """async () => {
    for (let before = -1, n = 0; before !== strokes && n < 100; n++) {
        before = strokes;
        for (let frame = 0; frame < 2; frame++) await new Promise(requestAnimationFrame);
    }
}"""


def test_layers_are_drawn_once(opened, written):
    """How long it takes is for a person to measure; what is drawn for each frame is counted."""
    page = opened(written, before=COUNT_DRAWING)
    press(page, "0", "Space")  # all in view
    wait_for(page, "listen.clockPosition() > 0.2")
    page.evaluate(UNTIL_STILL)
    assert page.evaluate("strokes") > 2 * len(NOTES)  # outline and head of each note
    page.evaluate("strokes = 0")
    clock = page.evaluate("listen.clockPosition()")
    wait_for(page, f"listen.clockPosition() > {clock + 0.5}")
    assert page.evaluate("strokes") == 0


def test_table_follows_and_can_be_sorted(page):
    page.mouse.click(*on_ruler(page, 1.5))
    assert page.locator("#rows tr[aria-current]").text_content().startswith("\u25b8 G4")
    page.locator("#heads button[value=confidence]").click()
    assert "0.20 doubtful" in page.locator("#rows tr").first.text_content()
    assert page.locator("th[aria-sort]").text_content() == "Confidence"
    page.locator("#heads button[value=level]").focus()
    press(page, "Enter")
    texts = page.locator("#rows td:nth-child(4)").all_text_contents()
    levels = [float(text.replace("\u2212", "-").split()[0]) for text in texts]
    assert levels == sorted(levels, reverse=True)
    page.mouse.click(*on_ruler(page, 2.7))
    assert page.locator("#rows tr[aria-current]").text_content().startswith("\u25b8 C5")


def test_everything_can_be_done_with_the_keyboard(page):
    key(page, 72).focus()
    press(page, *5 * ["ArrowDown"], "Enter")
    assert page.evaluate("[...listen.view.solo]") == [67]
    press(page, "Shift+ArrowDown")
    assert page.evaluate("[...listen.view.solo]") == [67, 66]
    press(page, "m")
    assert page.evaluate("[[...listen.view.solo], [...listen.view.muted]]") == [[67], [66]]
    page.locator("#rows button").nth(1).focus()
    press(page, "Enter")
    wait_for(page, "listen.playing()?.heard.note === listen.page.notes[1]")


# --- ... corrections


CHANGES = [  # the button and the key of a change, and what it makes of G4, which is doubtful and lasts from 1 to 2.5 s
    ("up", "ArrowUp", {"midi": 68}),
    ("down", "ArrowDown", {"midi": 66}),
    ("octave-up", "Shift+ArrowUp", {"midi": 79}),
    ("octave-down", "Shift+ArrowDown", {"midi": 55}),
    ("earlier10", ",", {"onset": 0.99, "offset": 2.49}),
    ("later10", ".", {"onset": 1.01, "offset": 2.51}),
    ("start-earlier", "q", {"onset": 0.99}),
    ("start-later", "w", {"onset": 1.01}),
    ("end-earlier", "e", {"offset": 2.49}),
    ("end-later", "r", {"offset": 2.51}),
    ("accept", "a", {}),
]


def test_list_is_corrected_with_buttons_and_keys(page):
    hand = Hand(page, touch=False)
    for name, expected in (("f", ["C4", 0.2]), ("f", ["E4", 0.9]), ("b", ["C4", 0.2]), ("d", ["G4", 1.0])):
        press(page, name)
        assert selected(page) == expected
    for button, name, changes in CHANGES:
        for act, given in ((hand.press, button), (page.keyboard.press, name)):
            act(given)
            assert row(NOTES[2], confidence=1, **changes) in the_list(page), given
            assert page.locator("#rows tr", has_text="doubtful").count() == 0
            press(page, "Control+z")
            assert the_list(page) == GIVEN
    halves = [row(NOTES[2], offset=1.75, confidence=1), row(NOTES[2], onset=1.75, confidence=1)]
    for act, cut, join in ((hand.press, "cut", "join"), (page.keyboard.press, "s", "j")):
        act(cut)  # in the middle: the playhead is at its beginning
        assert sorted(the_list(page)) == sorted([*without(2), *halves])
        act(join)
        assert sorted(the_list(page)) == sorted([*without(2), row(NOTES[2], confidence=1)])
        press(page, "Control+z", "Control+z")
    hand.press("close")
    assert selected(page) is None
    press(page, "f", "Delete", "f", "Backspace", "Control+Shift+z")  # nothing is there to be done again
    assert len(the_list(page)) == len(NOTES) - 2
    press(page, "Control+z", "Control+z")
    assert the_list(page) == GIVEN
    press(page, "Control+y", "Control+Shift+z")
    assert len(the_list(page)) == len(NOTES) - 2
    press(page, "Escape", "Home", "ArrowRight", *4 * ["Shift+ArrowRight"])
    key(page, 69).focus()
    press(page, "n")
    assert nearest(page, "A4") == pytest.approx((MISSED.onset, MISSED.offset), abs=2 * 512 / SR)


def test_notes_are_deleted_moved_and_stretched_by_hand_and_come_back(hand):
    page = hand.page
    hand.click(*place_of(page, 1))
    assert selected(page) == ["E4", 0.9]
    for name, expected in (("delete", without(1)), ("undo", GIVEN), ("redo", without(1)), ("undo", GIVEN)):
        hand.press(name)
        assert the_list(page) == expected
    assert selected(page) == ["E4", 0.9]
    scale, high = page.evaluate("[listen.shown.scale, listen.shown.rowHeight]")
    middle = middle_of(page, "")
    hand.drag(middle, [middle[0] + 20, middle[1] - high])
    moved = pytest.approx((0.9 + 20 / scale, 1.9 + 20 / scale), abs=2 / scale)
    assert nearest(page, "F4") == moved
    hand.press("undo")
    if not hand.touch:
        page.keyboard.down("Shift")
        hand.drag(middle, [middle[0] + 20, middle[1] - high])  # in time only
        page.keyboard.up("Shift")
        assert nearest(page, "E4") == moved
        hand.press("undo")
    x, y = middle_of(page, "[data-edge=right]")
    hand.drag([x, y], [x + 30, y])
    assert nearest(page, "E4") == pytest.approx((0.9, 1.9 + 30 / scale), abs=2 / scale)
    x, y = middle_of(page, "[data-edge=left]")
    hand.drag([x, y], [x + 10, y])
    assert nearest(page, "E4") == pytest.approx((0.9 + 10 / scale, 1.9 + 30 / scale), abs=2 / scale)
    assert len(the_list(page)) == len(NOTES)
    page.locator("#undo").click()
    page.locator("#undo").click()
    assert the_list(page) == GIVEN


def middle_of(page, part):
    box = page.locator(f"#selected {part}").bounding_box()
    return [box["x"] + box["width"] / 2, box["y"] + box["height"] / 2]


def nearest(page, name):
    return next(times for note, *times, _ in the_list(page) if note == name)


def test_notes_are_added_by_hand(hand):
    page = hand.page
    hand.press("pencil")
    hand.click(*at(page, 1.5, 69))  # on energy: the note is as long as that
    onset, offset = nearest(page, "A4")
    assert [onset, offset] == pytest.approx([MISSED.onset, MISSED.offset], abs=2 * 512 / SR)
    assert "at its partials only" in page.locator("#message").text_content()
    hand.drag(at(page, 0.5, 71), at(page, 1.5, 71))
    scale = page.evaluate("listen.shown.scale")
    assert nearest(page, "B4") == pytest.approx((0.5, 1.5), abs=3 / scale)
    assert "another key" in page.locator("#message").text_content()
    hand.press("pencil")
    assert len(the_list(page)) == len(NOTES) + 2
    assert {confidence for name, *_, confidence in the_list(page) if name in ("A4", "B4")} == {1}
    hand.press("undo")
    hand.press("undo")
    if not hand.touch:
        page.mouse.dblclick(*at(page, 1.5, 69))
        assert nearest(page, "A4") == [onset, offset]


def test_an_edited_note_is_heard_out_of_its_stem_and_an_added_one_says_what_it_is_heard_from(page, stems):
    page.mouse.click(*place_of(page, 0))
    press(page, *10 * ["w"])  # it begins later
    wait_for(page, "listen.playing()?.rounds[0].from > 0.25")
    from_, _ = assert_clip_is_heard(page, stems[60])
    assert from_ == pytest.approx(0.3 - 0.03, abs=1e-3)
    page.mouse.click(*place_of(page, 1))
    press(page, "Delete")
    page.mouse.dblclick(*place_of(page, 1))
    assert "You hear its stem" in page.locator("#message").text_content()
    assert nearest(page, "E4") == pytest.approx((0.9, 1.9), abs=2 * 512 / SR)
    page.mouse.dblclick(*at(page, 1.5, 69))
    wait_for(page, "listen.playing()?.heard.sounds")
    assert "the recording, at its partials only" in page.locator("#edit-source").text_content()
    render = "({ heard, rounds }) => listen.render({ ...heard, from: rounds[0].from, until: rounds[0].until })"
    sound = np.array(page.evaluate(f"({render})(listen.playing()).then((sound) => [...sound])"))
    assert frequency_of(sound) == pytest.approx(440, abs=2)
    missed = sound_of(MISSED, len(EXAMPLE.y))
    assert 0.3 < np.abs(sound).max() / np.abs(missed).max() < 3  # loud as it was, not as what lies beside it


def test_files_are_read_back_as_the_page_has_them(page, tmp_path):
    page.mouse.dblclick(*at(page, 1.5, 69))
    page.mouse.click(*place_of(page, 1))
    press(page, "Shift+ArrowUp", ".")
    page.mouse.click(*place_of(page, 0))
    press(page, "Delete")
    table = downloaded(page, "csv", tmp_path)
    assert table.name == "a_recording_corrected_notes.csv"
    read, midi = notes.read_score(table), downloaded(page, "midi", tmp_path)
    assert [(note.note, note.onset, note.offset, note.confidence) for note in read] == the_list(page)
    assert row(NOTES[1], midi=76, onset=0.91, offset=1.91, confidence=1) in the_list(page)
    assert [note.confidence for note in read] == [1, 0.2, 1, 0.9, 0.9]
    notes.write_midi(tmp_path / "same.mid", read)
    assert midi.read_bytes() == (tmp_path / "same.mid").read_bytes()


def test_a_page_of_a_part_has_all_notes_in_the_time_of_the_recording(opened, tmp_path):
    """The list that it gives is, but for what was changed, what notes.csv says."""
    listed = [a_note(60, 0.123456, 0.98765, -3.14159, 0.98765), *NOTES[1:]]
    path = write(tmp_path / "part.html", EXAMPLE._replace(notes=listed), title="a song.flac", span=(2.0, 3.0))
    data = data_of(path)
    first = 2 * SR // listen.PEAK_SAMPLES * listen.PEAK_SAMPLES  # whole ones, whose peaks are known
    assert (data["offset"], data["length"]) == (first / SR, 3 * SR - first)
    page = opened(path)
    assert np.abs(heard(page) - EXAMPLE.y[first : 3 * SR]).max() < 1e-5
    assert page.locator("#rows tr").count() == 3
    press(page, "f")
    assert selected(page)[0] == "C4"
    press(page, "w")
    table = downloaded(page, "csv", tmp_path)
    assert table.name == "a_song_corrected_notes.csv"
    listed[3] = listed[3]._replace(onset=2.41, confidence=1)
    notes.write_notes_csv(tmp_path / "notes.csv", listed)
    assert table.read_text() == (tmp_path / "notes.csv").read_text()


@pytest.mark.usefixtures("drawn")
def test_a_corrected_list_comes_back_by_the_command_that_the_page_shows(opened, few, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    copy_basis(few, tmp_path)
    soundfile.write("song.flac", struck(76, 72, 76), SR)
    NMF.main(["song.flac", "3", "fixed_basis.npy", "--listen", "-o", "first"])
    listed = notes.read_score("first/notes.csv")
    assert [note.note for note in listed] == ["E5", "C5", "E5"]
    assert "listen.html: 3 notes, FLAC inside, " in capsys.readouterr().err
    page = opened(tmp_path / "first" / "listen.html")
    wrong, late = listed[:2]
    page.mouse.click(*at(page, (wrong.onset + wrong.offset) / 2, wrong.midi))
    press(page, "Delete")
    page.mouse.click(*at(page, (late.onset + late.offset) / 2, late.midi))
    press(page, "Shift+ArrowDown")  # an octave
    table = downloaded(page, "csv", tmp_path)
    python, script, *words = shlex.split(page.locator("#command").input_value())
    assert (python, script, words[-2:]) == ("python", "NMF.py", ["--score", table.name])
    NMF.main([*words, "--quiet"])
    moved, kept = notes.read_score("song_corrected/notes.csv")
    assert (moved.note, moved.offset) == ("C4", late.offset)
    assert kept == listed[2]  # to every digit of the table


def test_page_shows_the_command_and_what_sound_is_inside(opened, tmp_path):
    command = "python CNMF.py 'a b.flac' 200 basis.npy --listen"
    sound = listen.Sound("a b.flac", EXAMPLE.y, SR, "mono at 22.05 kHz, of 44.1")
    listen.write_page(tmp_path / "listen.html", sound, *EXAMPLE[2:], command=command)
    page = opened(tmp_path / "listen.html")
    assert page.locator("#summary").text_content().endswith("FLAC inside \u00b7 mono at 22.05 kHz, of 44.1")
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    expected = f"{command} --score a_b_corrected_notes.csv"
    assert page.locator("#command").input_value() == expected
    page.locator("#copy").click()
    wait_for(page, "document.getElementById('message').textContent")
    assert page.evaluate("navigator.clipboard.readText()") == expected


def reloaded(page, holds):
    """Whether that holds once the page is loaded again; a browser under load hands on what it keeps a moment late."""
    for _ in range(5):
        page.reload()
        page.evaluate("listen.ready")
        if holds():
            return True
    return False


def test_a_reload_keeps_the_corrections_and_offers_those_of_another_list(opened, tmp_path):
    path = tmp_path / "listen.html"
    page = opened(write(path, EXAMPLE))
    press(page, "f", "Delete")
    assert "1 change. Kept in this browser" in page.locator("#kept").text_content()
    assert reloaded(page, lambda: the_list(page) == without(0))
    assert "your corrections of" in page.locator("#message").text_content()
    press(page, "Control+z")
    assert the_list(page) == GIVEN
    assert reloaded(page, lambda: page.evaluate("localStorage.length") == 0)
    assert page.locator("#message").text_content() == ""

    press(page, "f", "Delete")
    write(path, EXAMPLE._replace(notes=NOTES[:-1]))  # another run
    assert reloaded(page, lambda: "your corrections of another list" in page.locator("#earlier").text_content())
    assert the_list(page) == GIVEN[:-1]
    page.locator("#take-earlier").click()
    assert the_list(page) == without(0)
    page.locator("#undo").click()
    assert the_list(page) == GIVEN[:-1]


def test_a_row_can_be_opened_for_any_key(page):
    for midi in (21, 108, 90):
        page.locator("#row").select_option(str(midi))
        page.locator("#open").click()
    assert page.evaluate("[listen.shown.rows[0], listen.shown.rows.at(-1)]") == [108, 21]
    assert page.locator("#keys button").count() == 13 + 3
    page.locator("#add").click()
    assert nearest(page, "F#6") == [0, 0.5]


def test_a_listed_note_without_sound_in_its_stem_is_doubtful(opened, tmp_path):
    note = a_note(64, 2.8, 3.4)
    page = opened(write(tmp_path / "listen.html", EXAMPLE._replace(notes=[*NOTES, note])))  # E4's stem is silent there
    assert page.locator("#rows tr", has_text="silent").count() == 1
    page.mouse.click(*at(page, 3.1, 64))
    assert "no sound in its stem" in page.locator("#edit-text").text_content()
    press(page, "a")
    assert page.locator("#rows tr", has_text="silent").count() == 0
    without = {midi: stem for midi, stem in EXAMPLE.stems.items() if midi != 64}
    page = opened(write(tmp_path / "listen.html", EXAMPLE._replace(stems=without)))
    assert "silent" in page.locator("#rows tr", has_text="E4").text_content()
    assert len(the_list(page)) == len(NOTES)


# --- ... bad pages


def test_hostile_name_stays_text(opened, tmp_path):
    page = opened(path := write(tmp_path / "listen.html", EXAMPLE, title=HOSTILE, command=HOSTILE))
    text = path.read_text(encoding="utf-8")
    assert (text.count("<img"), text.count("</script>")) == (0, 2)
    assert page.locator("#title").text_content() == HOSTILE
    assert page.locator("img").count() == 0
    assert page.title().startswith("</script>")
    name = downloaded(page, "csv", tmp_path).name
    assert name == "script_img_src_x_onerror_document.title_got_you_amp_data_corrected_notes.csv"


def test_recording_without_notes(opened, tmp_path):
    page = opened(write(tmp_path / "listen.html", EXAMPLE._replace(notes=[], stems={}), title="noise"))
    assert "no notes" in page.locator("#summary").text_content()
    assert [button.is_enabled() for button in page.locator("#modes button").all()] == [True, False, True, False]
    press(page, "3")
    assert level(heard(page) - EXAMPLE.y, EXAMPLE.y) < -60
    press(page, "f", "d", "Delete", "s", "j", "a", "h", "Control+z")
    page.mouse.dblclick(*at(page, 1.5, 69))
    assert [name for name, *_ in the_list(page)] == ["A4"]
    assert page.locator("#only-transcription").is_enabled()
    sound = heard(page, **only("transcription"))  # no key of this piano is known: a plain tone
    assert frequency_of(sound) == pytest.approx(440, abs=1)


def test_silence(opened, tmp_path):
    silent = Example(np.zeros(100, np.float32), SR, [], {}, listen.Roll(np.zeros((3, 1)), [60, 61, 62], 0.02))
    page = opened(write(tmp_path / "listen.html", silent, title="nothing"))
    assert not heard(page).any()
    press(page, "Space", "+", "l", "n", "0", "End")
    assert len(heard(page, speed=0.5, **{"from": 0, "until": 100 / SR})) == 200


@pytest.mark.parametrize(("active", "expected"), [("false", "Click Play"), ("true", "no sound device")])
def test_page_says_why_it_is_silent(active, expected, opened, written):
    before = f"Object.defineProperty(navigator, 'userActivation', {{value: {{hasBeenActive: {active}}}}});"
    never = "AudioContext.prototype.resume = () => new Promise(() => {});"
    suspended = "Object.defineProperty(AudioContext.prototype, 'state', {get: () => 'suspended'});"
    page = opened(written, before=before + never + suspended)
    press(page, "Space")
    wait_for(page, "document.getElementById('message').textContent")
    assert expected in page.locator("#message").text_content()
    assert page.evaluate("listen.playing()") is None


def test_browser_that_neither_decodes_nor_keeps_is_told_of(opened, written):
    before = "OfflineAudioContext.prototype.decodeAudioData = () => Promise.reject(new Error('unknown content'));"
    before += "Object.defineProperty(window, 'localStorage', { get() { throw new DOMException('refused'); } });"
    page = opened(written, before=before)
    assert "cannot read the sounds in this page, which are FLAC" in page.locator("#message").text_content()
    assert page.locator("#play").is_disabled()
    press(page, "f", "Delete")
    assert the_list(page) == without(0)
    assert "does not keep them: download them" in page.locator("#kept").text_content()
    asked = []
    page.on("dialog", lambda dialog: (asked.append(dialog.type), dialog.accept()))
    page.reload()
    assert asked == ["beforeunload"]


def test_page_may_ask_for_nothing(browser, written):
    with browser.new_context() as context:
        page, asked = context.new_page(), []
        page.on("request", lambda request: asked.append(request.url))
        page.goto(written.as_uri())
        assert page.evaluate("fetch('https://example.org/').then(() => false, () => true)")
    assert asked == [written.as_uri()]


# --- ... looks


@pytest.mark.parametrize(("width", "scheme"), [(390, "light"), (1280, "dark")])
def test_page_fits_and_is_accessible(width, scheme, opened, written):
    touch = width == 390
    page = opened(written, width=width, scheme=scheme, touch=touch)
    page.set_viewport_size({"width": width, "height": 400})
    drawn(page)
    assert page.evaluate("listen.shown.rowHeight") >= (22 if touch else 12)
    page.evaluate("scrollTo(0, document.getElementById('readout').offsetTop - 150)")
    drawn(page)
    tools, ruler = page.locator("#tools").bounding_box(), page.locator("#ruler").bounding_box()
    assert tools["y"] == pytest.approx(0, abs=1)  # they stay in view
    assert ruler["y"] == pytest.approx(tools["height"], abs=2)
    key(page, 64).click()
    key(page, 60).click(modifiers=["Alt"])
    press(page, "l", "d", "Shift+ArrowUp")
    page.locator("details summary").click()
    for wide in (width,) if touch else (1920, width):
        page.set_viewport_size({"width": wide, "height": 900})
        drawn(page)
        assert page.evaluate("document.documentElement.scrollWidth") <= wide
        assert page.locator("#score").bounding_box()["width"] > 0.65 * wide
    page.mouse.move(0, 0)
    # contrasts of what is drawn: 3:1 for shapes, 4.5:1 for text, as WCAG asks; axe does not look into a canvas
    notes = [("note", "halo", 4.5), ("note", "paper", 4.5), ("edited", "halo", 3), ("edited", "paper", 3)]
    colour_of = """(names) => names.map((name) => {
        const paint = document.createElement("canvas").getContext("2d");
        paint.fillStyle = getComputedStyle(document.documentElement).getPropertyValue(`--${name}`);
        return paint.fillStyle;
    })"""
    for name, ground, least in [*notes, ("head", "paper", 3), ("soft", "ground", 4.5)]:
        colours = page.evaluate(colour_of, [name, ground])
        rgb = [[int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)] for colour in colours]
        dark, light = sorted(luminance(rgb) + 0.05)
        assert light / dark >= least, (name, ground)
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed")
    violations = axe.Axe().run(page).response["violations"]
    assert [(found["id"], [node["html"] for node in found["nodes"]]) for found in violations] == []
