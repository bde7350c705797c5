"""The page to listen to: what goes into it, and what a real browser makes of it."""

import base64
import io
import json
import re
import shutil
from typing import NamedTuple

import numpy as np
import pytest
import soundfile

import utils
from piano import listen, pitch
from piano.notes import Note

pytestmark = pytest.mark.same_everywhere("compares sounds in a browser, which computes without BLAS")

SR = 22050
SECONDS = 4
FADE = 111  # samples; the page fades where it cuts into the recording
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
FLAGS += ["--disable-component-update", "--disable-sync"]
HOSTILE = "</script><img src=x onerror=\"document.title='got you'\">&amp;{{data}}\u2028.flac"


class DoubtedNote(NamedTuple):
    """A note as a list with confidences has it."""

    note: str
    midi: int
    f0: float
    onset: float
    offset: float
    level_db: float
    confidence: float


def a_note(midi, onset, offset, level_db=0.0, confidence=0.9):
    return DoubtedNote(pitch.note_name(midi), midi, 440 * 2 ** ((midi - 69) / 12), onset, offset, level_db, confidence)


def tone(note, n_samples):
    """A note that decays, as its stem: four partials from its onset to its offset."""
    t = np.arange(n_samples) / SR - note.onset
    inside = (t >= 0) & (t < note.offset - note.onset)
    partials = sum(0.5**n * np.sin(2 * np.pi * (n + 1) * note.f0 * t) for n in range(4))
    envelope = np.minimum(t / 0.005, 1) * np.exp(-t / 0.5) * np.minimum((note.offset - note.onset - t) / 0.05, 1)
    return (0.1 * 10 ** (note.level_db / 20) * np.where(inside, envelope * partials, 0)).astype(np.float32)


class Example(NamedTuple):
    """A recording with its notes and stems, ready for :func:`listen.write_page`."""

    y: np.ndarray
    sr: int
    notes: list
    stems: dict
    roll: listen.Roll


def write(path, example, title="a recording", span=None):
    sound = listen.Sound(title, example.y, example.sr)
    return listen.write_page(path, sound, example.notes, example.stems, example.roll, span=span)


def an_example(notes, seconds=SECONDS):
    """A recording whose stems are known: the notes, and noise that belongs to none of them."""
    n = seconds * SR
    stems = {note.midi: np.zeros(n, np.float32) for note in notes}
    midi = list(range(55, 80))
    U = np.zeros((len(midi), n // 512 + 1))
    for note in notes:
        stems[note.midi] += tone(note, n)
        U[note.midi - midi[0], int(note.onset * SR / 512) : int(note.offset * SR / 512)] = 10 ** (note.level_db / 20)
    noise = 0.003 * np.random.default_rng(1).standard_normal(n).astype(np.float32)
    return Example(sum(stems.values()) + noise, SR, notes, stems, listen.Roll(U, midi, 512 / SR))


NOTES = [
    a_note(60, 0.2, 1.0),
    a_note(64, 0.9, 1.9, -6),
    a_note(67, 1.0, 2.5, -3, confidence=0.2),
    a_note(60, 2.4, 3.3, -9),
    a_note(72, 2.6, 3.6, -6),
]


@pytest.fixture(scope="module")
def example():
    return an_example(NOTES)


@pytest.fixture(scope="module")
def written(example, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "listen.html"
    write(path, example, title="a recording")
    return path


def data_of(path):
    """What a page carries, read as a browser does: up to the next end of a script."""
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', path.read_text()).group(1))


def decoded(sound):
    """Samples of a sound of the page, integers divided by 2^15 as browsers do."""
    x, _ = soundfile.read(io.BytesIO(base64.b64decode(sound["data"])), dtype="int16")
    return x / 2**15 * sound["gain"]


def level(error, reference):
    """Level of an error in dB, relative to what it is an error of."""
    return 10 * np.log10(np.sum(np.square(error, dtype=float)) / np.sum(np.square(reference, dtype=float)) + 1e-30)


# --- Without a browser ------------------------------------------------------------------------------


def test_same_input_gives_the_same_bytes(example, written, tmp_path):
    write(tmp_path / "again.html", example, title="a recording")
    assert (tmp_path / "again.html").read_bytes() == written.read_bytes()


def test_stems_may_be_files(example, written, tmp_path):
    paths = {midi: tmp_path / f"{midi}.wav" for midi in example.stems}
    for midi, stem in example.stems.items():
        soundfile.write(paths[midi], stem, SR, subtype="FLOAT")
    write(tmp_path / "files.html", example._replace(stems=paths), title="a recording")
    assert (tmp_path / "files.html").read_bytes() == written.read_bytes()


def test_clips_are_where_a_stem_sounds():
    peaks = np.zeros(200)
    peaks[[50, 52, 100]] = 1  # the first two are nearer than GAP_S
    clips = listen.find_clips(peaks, 0.5, [(1.5, 1.6)], 200 * listen.BLOCK, SR)
    struck = int(1.5 * SR / listen.BLOCK), int(1.6 * SR / listen.BLOCK)
    expected = [(49, 54), (99, 102), (struck[0] - 1, struck[1] + 2)]
    assert clips == [(first * listen.BLOCK, last * listen.BLOCK) for first, last in expected]


@pytest.mark.parametrize("n_samples", [3 * listen.BLOCK, 2 * listen.BLOCK + 7, 1])
def test_what_sounds_from_end_to_end_is_one_clip_without_fades(n_samples, rng):
    stem = rng.standard_normal(n_samples).astype(np.float32)
    clips = listen.find_clips(np.ones(-(-n_samples // listen.BLOCK)), 0.5, [], n_samples, SR)
    assert clips == [(0, n_samples)]
    np.testing.assert_array_equal(listen.cut(stem, clips, n_samples), stem)


def test_clips_fade_where_nothing_sounds(example):
    stem = example.stems[60]
    sounds = np.flatnonzero(np.abs(stem) > 1e-4)
    for sound in data_of_clips(example)[60]:
        inside = sounds[(sounds >= sound[0]) & (sounds < sound[1])]
        assert sound[0] + listen.BLOCK <= inside[0] <= inside[-1] < sound[1] - listen.BLOCK


def data_of_clips(example):
    floor = np.abs(example.y).max() * 10 ** (listen.FLOOR_DB / 20)
    peaks = {midi: listen._peaks(stem, 0, len(stem)) for midi, stem in example.stems.items()}
    return {midi: listen.find_clips(peaks[midi], floor, [], len(example.y), SR) for midi in peaks}


def test_sounds_are_coded_to_sixteen_bits_of_their_own_peak(example, written):
    page = data_of(written)
    assert page["code"] == "FLAC"
    step = np.abs(example.y).max() / 32767
    assert np.abs(decoded(page["recording"]) - example.y).max() <= 0.51 * step
    for sound in page["pitches"]:
        stem = example.stems[sound["midi"]]
        clips = [(start, start + length) for start, length in sound["clips"]]
        expected = listen.cut(stem, clips, len(stem))
        assert sound["length"] == len(expected)
        assert np.abs(decoded(sound) - expected).max() <= 0.51 * np.abs(expected).max() / 32767


def test_most_of_a_stem_is_in_its_clips(example, written):
    for sound in data_of(written)["pitches"]:
        stem = example.stems[sound["midi"]].copy()
        for start, length in sound["clips"]:
            stem[start : start + length] = 0
        assert level(stem, example.stems[sound["midi"]]) < -60


def test_large_pages_are_mp3(example, tmp_path, monkeypatch):
    monkeypatch.setattr(listen, "FLAC_LIMIT", 1000)
    page = write(tmp_path / "listen.html", example, title="a recording")
    assert (page.code, page.n_notes) == ("MP3", len(NOTES))
    assert page.n_bytes == (tmp_path / "listen.html").stat().st_size
    data = data_of(tmp_path / "listen.html")
    assert data["code"] == "MP3"
    sound = data["recording"]
    x, _ = soundfile.read(io.BytesIO(base64.b64decode(sound["data"])))
    assert len(x) >= len(example.y) + 1152  # Firefox drops some of the last frame
    assert level(x[: len(example.y)] * sound["gain"] - example.y, example.y) < -20
    assert "MP3 inside" in listen.in_words(page)


@pytest.mark.parametrize("limit", ["PAGE_LIMIT", "DECODED_LIMIT"])
def test_too_long_a_recording_is_told_how_long_a_page_can_be(limit, example, tmp_path, monkeypatch):
    monkeypatch.setattr(listen, limit, 100_000)
    with pytest.raises(utils.InputError, match=r"got 4 s, expected at most \d s .*\(--listen-range A B takes a part\)"):
        write(tmp_path / "listen.html", example, title="a recording")
    assert not (tmp_path / "listen.html").exists()


def test_span_shows_a_part(example, tmp_path):
    path = tmp_path / "part.html"
    write(path, example, title="a part", span=(2.0, 3.0))
    page = data_of(path)
    assert (page["offset"], page["length"]) == (2, SR)
    heard = [(note["name"], note["onset"], note["offset"]) for note in page["notes"]]
    assert heard == [("G4", 0, 0.5), ("C4", 0.4, 1), ("C5", 0.6, 1)]
    np.testing.assert_allclose(decoded(page["recording"]), example.y[2 * SR : 3 * SR], atol=1e-5)
    assert all(0 <= start <= start + length <= SR for sound in page["pitches"] for start, length in sound["clips"])


@pytest.mark.parametrize("span", [(-1, 2), (2, 2), (3, 1), (4, 5), (float("nan"), 2), (3, 3.00001)])
def test_span_outside_the_recording_is_refused(span, example, tmp_path):
    with pytest.raises(utils.InputError, match=r"range: got .* expected a part of the recording's 0 to 4.0 s"):
        write(tmp_path / "listen.html", example, title="a recording", span=span)


def test_listed_pitch_needs_its_stem(example, tmp_path):
    short = {**example.stems, 64: example.stems[64][:-1]}
    with pytest.raises(ValueError, match="stem of E4: got "):
        write(tmp_path / "listen.html", example._replace(stems=short), title="a recording")
    del short[64]
    with pytest.raises(ValueError, match="stems: got none of E4"):
        write(tmp_path / "listen.html", example._replace(stems=short), title="a recording")


def test_a_plain_note_is_not_doubtful(example, tmp_path):
    plain = [Note(*note[:-1]) for note in NOTES]
    write(tmp_path / "listen.html", example._replace(notes=plain), title="a recording")
    assert not any(note["doubtful"] for note in data_of(tmp_path / "listen.html")["notes"])


def test_text_cannot_leave_its_element(example, tmp_path):
    write(tmp_path / "listen.html", example, title=HOSTILE)
    text = (tmp_path / "listen.html").read_text(encoding="utf-8")
    assert text.count("<img") == 0
    assert text.count("</script>") == 2
    assert data_of(tmp_path / "listen.html")["title"] == HOSTILE


def test_picture_is_a_png_of_decibels(example, written):
    from PIL import Image

    roll = data_of(written)["roll"]
    picture = np.array(Image.open(io.BytesIO(base64.b64decode(roll["png"].partition(",")[2]))))
    assert (roll["lowest"], roll["rows"]) == (60, 13)  # rows at either end in which nothing sounds are left out
    m = int(1.2 * SR / 512)
    assert picture[72 - 67, m] == round(255 * (1 - 3 / 40))  # 3 dB below the loudest, of 40
    assert picture[72 - 64, m] == round(255 * (1 - 6 / 40))
    assert picture[72 - 72, m] == 0


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
    """A function that opens a page and returns it; whatever it complains of, or asks for, fails the test."""
    said, contexts = [], []

    def open_page(path, *, width=1280, before=""):
        context = browser.new_context(viewport={"width": width, "height": 900})
        contexts.append(context)
        page = context.new_page()
        page.add_init_script(before)
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: request.url != path.as_uri() and said.append(request.url))
        page.goto(path.as_uri())
        page.evaluate("listen.ready")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert said == []


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


def wait_for(page, condition):
    """Wait until JavaScript is true; Playwright's own way needs `eval`, which the page's policy forbids."""
    for _ in range(500):
        if page.evaluate(f"Boolean({condition})"):
            return
        page.wait_for_timeout(20)
    pytest.fail(f"waited in vain for {condition}")


def clips_of(example, path, midi):
    """The stem of a pitch, without what its clips leave to the residual."""
    sound = next(sound for sound in data_of(path)["pitches"] if sound["midi"] == midi)
    stem = np.zeros_like(example.y)
    clips = [(start, start + length) for start, length in sound["clips"]]
    coded = listen.cut(example.stems[midi], clips, len(stem))
    for start, stop in clips:
        stem[start:stop], coded = coded[: stop - start], coded[stop - start :]
    return stem


def place_of(page, i):
    """Where on the screen the middle of note i lies."""
    return page.evaluate(
        """(i) => {
            const note = listen.page.notes[i], box = document.getElementById("picture").getBoundingClientRect();
            return [box.left + listen.xOf((note.onset + note.offset) / 2), box.top + listen.rowTop(note.midi) + 5];
        }""",
        i,
    )


def key(page, midi):
    return page.locator(f"#keyboard button[value='{midi}']")


def test_page_opens_from_disk_and_is_quiet(page):
    assert page.title() == "a recording \u00b7 note by note"
    assert page.locator("#play").is_enabled()
    assert page.locator("#message").text_content() == ""
    assert page.locator("#rows tr").count() == len(NOTES)
    assert page.locator("#rows tr", has_text="yes").count() == 1
    assert "FLAC inside" in page.locator("#summary").text_content()


def test_notes_and_residual_add_up_to_the_recording(page, example):
    notes, residual = heard(page, mode="notes"), heard(page, mode="residual")
    assert level(notes + residual - example.y, example.y) < -60
    assert level(heard(page, mode="recording") - example.y, example.y) < -60
    assert level(notes - sum(example.stems.values()), example.y) < -60
    assert level(residual, example.y) < -10  # it is the noise, not the recording


def test_mp3_page_adds_up_too(opened, example, tmp_path, monkeypatch):
    monkeypatch.setattr(listen, "FLAC_LIMIT", 1000)
    write(tmp_path / "listen.html", example, title="a recording")
    page = opened(tmp_path / "listen.html")
    recording, notes, residual = (heard(page, mode=mode) for mode in ("recording", "notes", "residual"))
    assert level(notes + residual - recording, recording) < -100
    assert level(recording - example.y, example.y) < -20  # in step: a sample of lag would leave more
    assert level(notes - sum(example.stems.values()), example.y) < -20


@pytest.mark.parametrize("i", [0, 2])
def test_click_on_a_note_plays_its_stem_and_nothing_else(i, page, example, written):
    page.mouse.click(*place_of(page, i))
    wait_for(page, "listen.playing()")
    from_, until, options = page.evaluate(
        """() => {
            const { rounds, heard } = listen.playing();
            const options = { mode: heard.mode, solo: [...heard.solo], muted: [...heard.muted], volume: heard.volume };
            return [rounds[0].from, rounds[0].until, options];
        }"""
    )
    note = NOTES[i]
    assert from_ <= note.onset <= note.offset <= until
    assert not any(other.midi == note.midi and from_ < other.onset < until for other in NOTES if other != note)
    expected = clips_of(example, written, note.midi)[round(from_ * SR) : round(until * SR)]
    sound = heard(page, **{"from": from_, "until": until}, **options)
    assert level((sound - expected)[FADE:-FADE], expected) < -60
    wait_for(page, "!listen.playing()")  # it ends by itself
    assert page.evaluate("listen.view.mode") == "recording"


def test_note_that_is_played_comes_out_of_the_loudspeaker(page):
    """The sound itself, as it leaves the page."""
    page.mouse.click(*place_of(page, 2))
    wait_for(page, "listen.playing()")
    page.evaluate(
        """() => {
            const { context, master } = listen.playing();
            window.ear = new AnalyserNode(context, { fftSize: 8192, smoothingTimeConstant: 0 });
            master.connect(ear);
        }"""
    )
    wait_for(page, f"listen.clockPosition() > {NOTES[2].onset + 0.5}")
    loudest = page.evaluate(
        """() => {
            const bins = new Float32Array(ear.frequencyBinCount);
            ear.getFloatFrequencyData(bins);
            const at = bins.indexOf(Math.max(...bins));
            return [bins[at], at * ear.context.sampleRate / ear.fftSize];
        }"""
    )
    assert loudest[0] > -60
    assert loudest[1] == pytest.approx(NOTES[2].f0, abs=5)


def test_digits_switch_what_is_heard(page, example):
    expected = [example.y, sum(example.stems.values()), example.y - sum(example.stems.values())]
    for digit, mode in enumerate(("recording", "notes", "residual", "transcription"), 1):
        page.keyboard.press(str(digit))
        pressed = page.locator("#modes [aria-pressed=true]")
        assert pressed.count() == 1
        assert pressed.get_attribute("value") == mode
        if mode != "transcription":
            assert level(heard(page) - expected[digit - 1], example.y) < -50


def test_transcription_has_the_pitches_of_the_list(page, example):
    sound = heard(page, mode="transcription")
    assert np.abs(sound).max() == pytest.approx(np.abs(example.y).max(), rel=0.7)
    assert np.abs(sound[: int(0.19 * SR)]).max() < 1e-6
    for note in NOTES:
        part = heard(page, mode="transcription", solo=[note.midi])[int(note.onset * SR) : int(note.offset * SR)]
        peak = np.argmax(np.abs(np.fft.rfft(part * np.hanning(len(part))))) * SR / len(part)
        assert peak == pytest.approx(note.f0, abs=3)


def test_solo_and_mute_of_keys(page, example, written):
    stems = {midi: clips_of(example, written, midi) for midi in example.stems}
    key(page, 64).click()
    assert page.evaluate("listen.view.mode") == "notes"
    assert level(heard(page) - stems[64], stems[64]) < -60
    key(page, 67).click(modifiers=["Shift"])
    assert level(heard(page) - stems[64] - stems[67], stems[64]) < -60
    assert key(page, 67).get_attribute("aria-pressed") == "true"
    page.keyboard.press("Escape")
    assert page.locator("#keyboard [aria-pressed=true]").count() == 0
    key(page, 60).click(modifiers=["Alt"])
    assert level(heard(page) - (stems[64] + stems[67] + stems[72]), example.y) < -60
    assert "muted" in key(page, 60).get_attribute("aria-label")
    page.keyboard.press("1")  # the recording without a note
    assert level(heard(page) - (example.y - stems[60]), example.y) < -60


def test_drag_loops(page, example):
    x, y = page.evaluate(
        """() => {
            const box = document.getElementById("picture").getBoundingClientRect();
            return [box.left + listen.xOf(1), box.top + 10];
        }"""
    )
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + 60, y)
    page.mouse.move(x + 120, y)
    page.mouse.up()
    loop = page.evaluate("listen.view.loop")
    assert loop["from"] == pytest.approx(1, abs=0.01)
    assert page.locator("#loop").get_attribute("aria-pressed") == "true"
    part = example.y[round(loop["from"] * SR) : round(loop["until"] * SR)]
    sound = heard(page, **loop, seconds=3 * len(part) / SR)
    rounds = sound.reshape(3, -1)
    assert level((rounds - part)[:, FADE:-FADE], rounds) < -60
    assert np.abs(rounds[:, [0, -1]]).max() < 0.01 * np.abs(part).max()  # and no click where they meet
    page.keyboard.press("Space")
    wait_for(
        page, "listen.playing()?.context.currentTime > listen.playing().rounds[1]?.clock + 0.1"
    )  # it has come round
    assert loop["from"] <= page.evaluate("listen.clockPosition()") <= loop["until"]
    page.keyboard.press("l")
    assert page.evaluate("listen.view.loop") is None


def test_space_plays_and_pauses_and_a_click_seeks(page):
    page.keyboard.press("Space")
    wait_for(page, "listen.clockPosition() > 0.2")
    assert page.locator("#play").text_content() == "Pause"
    page.locator("#modes button").nth(2).click()  # the mouse leaves the focus where it is
    page.keyboard.press("Space")
    assert page.evaluate("listen.playing()") is None
    x, y = page.evaluate(
        """() => {
            const box = document.getElementById("picture").getBoundingClientRect();
            return [box.left + listen.xOf(3.8), box.top + 60];
        }"""
    )
    page.mouse.click(x, y)
    assert page.evaluate("listen.clockPosition()") == pytest.approx(3.8, abs=0.02)
    page.keyboard.press("ArrowLeft")
    assert page.evaluate("listen.clockPosition()") == pytest.approx(2.8, abs=0.02)


def test_everything_can_be_done_with_the_keyboard(page):
    key(page, 72).focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    assert page.evaluate("[...listen.view.solo]") == [67]
    page.keyboard.press("m")
    assert page.evaluate("[[...listen.view.solo], [...listen.view.muted]]") == [[], [67]]
    scale = page.evaluate("listen.shown.scale")
    page.keyboard.press("+")
    assert page.evaluate("listen.shown.scale") == pytest.approx(1.5 * scale)
    page.keyboard.press("]")
    page.locator("#rows button").nth(1).focus()
    page.keyboard.press("Enter")
    wait_for(page, "listen.playing()?.heard.note === listen.page.notes[1]")


def test_hover_tells_what_lies_there(page):
    page.mouse.move(*place_of(page, 2))
    said = page.locator("#readout").text_content()
    assert said.startswith("G4, 0:01.00 to 0:02.50, \u22123.0 dB, doubtful")


def test_hostile_name_stays_text(opened, example, tmp_path):
    write(tmp_path / "listen.html", example, title=HOSTILE)
    page = opened(tmp_path / "listen.html")
    assert page.locator("#title").text_content() == HOSTILE
    assert page.locator("img").count() == 0
    assert page.title().startswith("</script>")


def test_recording_without_notes(opened, example, tmp_path):
    write(tmp_path / "listen.html", example._replace(notes=[], stems={}), title="noise")
    page = opened(tmp_path / "listen.html")
    assert "no notes" in page.locator("#summary").text_content()
    assert [button.is_enabled() for button in page.locator("#modes button").all()] == [True, False, True, False]
    page.keyboard.press("3")
    assert level(heard(page) - example.y, example.y) < -60


def test_silence(opened, tmp_path):
    silent = Example(np.zeros(100, np.float32), SR, [], {}, listen.Roll(np.zeros((3, 1)), [60, 61, 62], 0.02))
    write(tmp_path / "listen.html", silent, title="nothing")
    assert not heard(opened(tmp_path / "listen.html")).any()


@pytest.mark.parametrize(
    ("before", "expected"),
    [
        ("Object.defineProperty(navigator, 'userActivation', {value: {hasBeenActive: false}});", "Click Play"),
        ("Object.defineProperty(navigator, 'userActivation', {value: {hasBeenActive: true}});", "no sound device"),
    ],
)
def test_page_says_why_it_is_silent(before, expected, opened, written):
    never = "AudioContext.prototype.resume = () => new Promise(() => {});"
    suspended = "Object.defineProperty(AudioContext.prototype, 'state', {get: () => 'suspended'});"
    page = opened(written, before=before + never + suspended)
    page.keyboard.press("Space")
    wait_for(page, "document.getElementById('message').textContent")
    assert expected in page.locator("#message").text_content()
    assert page.evaluate("listen.playing()") is None


def test_browser_that_cannot_decode_is_told_of(opened, written):
    refuse = "OfflineAudioContext.prototype.decodeAudioData = () => Promise.reject(new Error('unknown content'));"
    page = opened(written, before=refuse)
    assert "cannot read the sounds in this page, which are FLAC" in page.locator("#message").text_content()
    assert page.locator("#play").is_disabled()


def test_page_may_ask_for_nothing(browser, written):
    context = browser.new_context()
    page = context.new_page()
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(written.as_uri())
    refused = page.evaluate("fetch('https://example.org/').then(() => false, () => true)")
    context.close()
    assert refused
    assert asked == [written.as_uri()]


@pytest.mark.parametrize("width", [1280, 400])
def test_page_is_accessible_and_fits(width, opened, written):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed")
    page = opened(written, width=width)
    key(page, 64).click()
    key(page, 60).click(modifiers=["Alt"])
    page.locator("details summary").click()
    page.mouse.move(0, 0)
    results = axe.Axe().run(page)
    assert [(found["id"], [node["html"] for node in found["nodes"]]) for found in results.response["violations"]] == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_three_minutes_of_sixty_pitches_load(opened, tmp_path):
    """Each pitch sounds for a tenth of the time; how long it takes is for a person to measure."""
    n, period = 180 * SR, 18 * SR
    struck = tone(a_note(57, 0, 1.8), period)
    played = np.tile(struck, 12)  # every 18 s; each pitch is heard .3 s after the one below it
    stems = {36 + i: played[period - i * period // 60 :][:n] for i in range(60)}
    notes = [a_note(36 + i % 60, 0.3 * i, min(0.3 * i + 1.8, 180)) for i in range(600)]
    roll = listen.Roll(np.random.default_rng(1).random((60, n // 512)), list(range(36, 96)), 512 / SR)
    listen.write_page(tmp_path / "listen.html", listen.Sound("long", sum(stems.values()), SR), notes, stems, roll)
    page = opened(tmp_path / "listen.html")
    assert page.locator("#play").is_enabled()
    assert page.locator("#keyboard button").count() == 60
