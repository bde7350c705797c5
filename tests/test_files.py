"""What a file is by its content, how sounds are read, those that need ffmpeg, and damaged ones."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest
import soundfile

import NMF
from helpers import environment, save_basis, started, tone, wait_for
from piano import files, recording
from piano.basis import Basis

pytestmark = [pytest.mark.same_everywhere("reads and refuses files; no numbers"), pytest.mark.usefixtures("drawn")]

SR = 22050
FFMPEG = shutil.which("ffmpeg")
needs_ffmpeg = pytest.mark.skipif(FFMPEG is None, reason="there is no ffmpeg here")


@pytest.fixture
def folder(tmp_path, monkeypatch, rng):
    """A current directory with a sound and a basis that fits sounds at 22.05 kHz."""
    monkeypatch.chdir(tmp_path)
    soundfile.write("tone.wav", tone(2), SR, subtype="FLOAT")
    save_basis("basis.npy", rng.random((9, 2)), ["C4", "D4"])
    return tmp_path


def converted(name, *options):
    """``tone.wav`` as ffmpeg writes it under another name."""
    subprocess.run([FFMPEG, "-v", "error", "-y", "-i", "tone.wav", *options, name], check=True)
    return name


def test_what_is_no_sound_is_called_what_it_is(folder, refused):
    for content, name in {
        b"": "an empty file",
        b"%PDF-1.7\n%\xe2\xe3\xcf\xd3": "a PDF document",
        b"PK\x03\x04\x14\0\0\0": "a ZIP archive",
        b"MThd\0\0\0\x06": "a MIDI file",
        b"\x89PNG\r\n\x1a\n": "a picture",
        b"\n<!DOCTYPE html>\n<html>": "an HTML page",
        b"\x1f\x8b\x08\0": "a compressed file",
        "Übung für Klavier\n".encode(): "text",
        "Übung".encode("utf-16"): "text",
        b"a" * 511 + "ü".encode(): "text",  # cut within a letter
    }.items():
        for path, arguments, expected in (
            ("x.wav", ["x.wav", "3", "basis.npy"], "a spectrogram (.npy) or a sound"),
            ("x.npy", ["tone.wav", "3", "x.npy"], "a basis, .npy"),
        ):
            (folder / path).write_bytes(content)
            assert refused(NMF, *arguments, "-o", "out") == f"NMF.py: error: {path}: got {name}, expected {expected}"


def test_a_file_is_what_it_holds_whatever_its_name(folder, rng):
    np.save("spec.npy", rng.random((9, 6)))
    for name, new in (("tone.wav", "tone"), ("tone", "tone.npy"), ("spec.npy", "spec.wav")):
        (folder / name).rename(new)
        NMF.main([new, "3", "basis.npy", "-o", f"of {new}", "--quiet"])
        assert (folder / f"of {new}" / "spectrogram.png").exists() == ("tone" in new)


def test_audio_files_are_found_in_order_and_other_files_passed_over(tmp_path):
    for name in ("b.wav", "a.FLAC", "d.ogg", "c.aif", ".hidden.wav", "notes.txt", "basis.npy", "wav"):
        (tmp_path / name).touch()
    assert [path.name for path in recording.audio_files(tmp_path)] == ["a.FLAC", "b.wav", "c.aif", "d.ogg"]


FORMATS = [
    *(("WAV", "PCM_16", 2**-15), ("WAV", "PCM_U8", 2**-7), ("FLAC", "PCM_24", 2**-23), ("OGG", "VORBIS", 0.05)),
    *((name, None, 2**-15) for name in ("AIFF", "AU", "CAF", "RF64", "W64", "NIST")),
]


@pytest.mark.parametrize(("form", "subtype", "tolerance"), FORMATS)
def test_any_format_is_read_as_the_same_sound(tmp_path, form, subtype, tolerance):
    soundfile.write(tmp_path / "a", tone(), SR, format=form, subtype=subtype)
    y = recording.load(tmp_path / "a", SR)
    assert (files.kind(tmp_path / "a"), y.dtype) == (files.SOUND, np.float32)
    np.testing.assert_allclose(y, tone(), atol=tolerance)


@pytest.mark.parametrize("file_sr", [8000, 44100, 96000])
def test_other_rates_are_resampled(tmp_path, file_sr):
    soundfile.write(tmp_path / "a.wav", tone(sr=file_sr), file_sr, subtype="DOUBLE")
    y = recording.load(tmp_path / "a.wav", SR)
    assert len(y) == SR
    middle = slice(SR // 10, -SR // 10)  # the filter rings at the ends
    np.testing.assert_allclose(y[middle], tone()[middle], atol=1e-3)


def test_transposing_an_octave_doubles_the_frequency_and_halves_the_length():
    up = recording.transpose(tone().astype(np.float32), SR, 12)
    assert len(up) == SR // 2
    assert np.argmax(np.abs(np.fft.rfft(up))) * SR / len(up) == pytest.approx(880, abs=2)


def test_a_lower_rate_is_resampled_from_what_is_there(tmp_path):
    soundfile.write(tmp_path / "a.wav", tone(seconds=20), SR, subtype="FLOAT")
    basis = Basis(np.ones((129, 1)), SR, 256, 64, files=("basis.npy",))
    opened = recording.open_recording(tmp_path / "a.wav", basis, tmp_path)
    (tmp_path / "a.wav").unlink()  # it is not read again
    y = recording.sound_at(opened, 16000)
    assert len(y) == 20 * 16000
    middle = slice(1600, -1600)
    np.testing.assert_allclose(y[middle], tone(sr=16000, seconds=20)[middle], atol=1e-3)
    assert recording.sound_at(opened, SR) is opened.y


def test_what_is_too_soft_to_be_a_sound_is_not_joined(tmp_path):
    for name, gain in (("a.wav", 0.1), ("b.wav", 1e-39)):
        soundfile.write(tmp_path / name, gain * tone(), SR, subtype="FLOAT")
    y, _ = soundfile.read(recording.joined([tmp_path / "a.wav", tmp_path / "b.wav"], SR, tmp_path))
    assert len(y) == 2 * SR  # and a second of silence
    assert np.sqrt(np.mean(y[:SR] ** 2)) == pytest.approx(0.1, rel=1e-3)


@pytest.mark.parametrize("n", [2, 12])
def test_however_many_are_joined_they_are_as_long_in_all_and_all_are_there(tmp_path, monkeypatch, n):
    monkeypatch.setattr(recording, "JOINED_S", 6)
    monkeypatch.setattr(recording, "PIECE_S", 1)
    for i in range(n):
        soundfile.write(tmp_path / f"{i}.wav", tone(seconds=8), SR)
    y, _ = soundfile.read(recording.joined([tmp_path / f"{i}.wav" for i in range(n)], SR, tmp_path))
    sounds = np.pad(np.convolve(y**2, np.ones(99), "same") > 0, 1)
    assert np.count_nonzero(np.diff(sounds.astype(int)) > 0) == max(n, 6)
    assert sounds.sum() / SR == pytest.approx(6, rel=0.05)


@needs_ffmpeg
@pytest.mark.parametrize("name", ["x.m4a", "x.wma", "x.mka", "x.wav"])
def test_ffmpeg_reads_what_soundfile_cannot(folder, capfd, name):
    form = ["-c:a", "aac", "-f", "adts"] if name == "x.wav" else []
    y = recording.load(converted(name, *form), SR)
    lag = np.argmax(np.correlate(y[: SR // 2], tone(2)[: SR // 4])[:3000])
    middle = slice(SR // 2, SR)
    np.testing.assert_allclose(y[lag:][middle], tone(2)[middle], atol=0.05)  # of a lossy codec
    assert capfd.readouterr() == ("", "")


@needs_ffmpeg
def test_nothing_is_lost_on_the_way_from_ffmpeg(folder, rng):
    """Rate, channels and all 24 bits: ALAC is lossless."""
    y = np.round(rng.uniform(-0.9, 0.9, (48000, 2)) * 2**23) / 2**23
    soundfile.write("tone.wav", y, 48000, subtype="PCM_24")
    with files.opened(converted("x.m4a", "-c:a", "alac"), folder) as file:
        assert (file.samplerate, file.channels) == (48000, 2)
        np.testing.assert_array_equal(file.read(), y)


@needs_ffmpeg
def test_an_m4a_is_taken_apart_at_its_own_rate(folder):
    soundfile.write("tone.wav", tone(2, sr=48000), 48000)
    options = ["--stems", "--native-sr", "--format", "wav", "-o", "out", "--quiet"]
    NMF.main([converted("x.m4a"), "3", "basis.npy", *options])
    assert soundfile.info("out/stems/residual.wav").samplerate == 48000
    assert not list(folder.rglob("decoded*"))


@needs_ffmpeg
def test_a_broken_m4a_is_told_in_one_line(folder, refused):
    content = (folder / converted("x.m4a")).read_bytes()
    (folder / "x.m4a").write_bytes(content[: len(content) // 2])  # what tells where things are stands at the end
    line = refused(NMF, "x.m4a", "3", "basis.npy", "-o", "out")
    assert line.startswith("NMF.py: error: x.m4a: cannot be read as audio (ffmpeg: ")
    assert not (folder / "out").exists()


@needs_ffmpeg
def test_without_ffmpeg_the_line_names_the_command_that_converts(folder, monkeypatch, refused):
    (folder / converted("x.m4a")).rename("my song.m4a")
    monkeypatch.setenv("PATH", str(folder / "empty"))
    line = refused(NMF, "my song.m4a", "3", "basis.npy", "-o", "out")
    assert "my song.m4a: got a sound that only ffmpeg reads" in line
    assert "(ffmpeg -i 'my song.m4a' 'my song.wav')" in line


@needs_ffmpeg
def test_ctrl_c_ends_ffmpeg_too(folder, root):
    soundfile.write("tone.wav", tone(60, sr=8000), 8000)
    minute = (folder / converted("x.aac", "-b:a", "16k")).read_bytes()
    (folder / "x.aac").write_bytes(200 * minute)  # which takes ffmpeg some seconds
    with started(root / "NMF.py", "x.aac", "3", "basis.npy", "-o", "out") as process:
        at_work = wait_for(lambda: list(folder.glob("out/.part-*/decoded.wav")))
        process.send_signal(signal.SIGINT)
        assert process.communicate()[1] == "interrupted; nothing incomplete is left\n"
    assert process.returncode == 130
    assert not (folder / "out").exists()
    children = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    assert str(at_work[0].relative_to(folder)) not in children


def damaged_mp3(path, rng):
    """An MP3 of the tone, whose frames keep their headers and lose some of what is in them."""
    soundfile.write(path, tone(8), SR, format="MP3")
    content = bytearray(path.read_bytes())
    starts = [i for i in range(3000, len(content) - 400) if content[i] == 0xFF and content[i + 1] & 0xF6 == 0xF2]
    for start in starts[::5]:
        content[start + 60 : start + 70] = rng.bytes(10).replace(b"\xff", b"\0")
    path.write_bytes(content)


def test_a_damaged_mp3_gives_one_remark_and_a_whole_one_none(folder, rng, capfd):
    damaged_mp3(folder / "x.mp3", rng)
    soundfile.read("x.mp3")
    assert "libmpg123" in capfd.readouterr().err  # what is to be kept away is there
    for remark in ("x.mp3: damaged at some places; what can be read is used\n", ""):  # once, however often it is read
        assert len(recording.load("x.mp3", SR)) == 8 * SR
        assert capfd.readouterr().err == remark
    os.write(2, b"still here")
    assert capfd.readouterr().err == "still here"
    soundfile.write("x.mp3", tone(8), SR, format="MP3")
    recording.load("x.mp3", SR)
    assert capfd.readouterr() == ("", "")


def test_stderr_comes_back_after_an_error_and_may_be_closed(folder, rng, capfd):
    with contextlib.suppress(ZeroDivisionError), files.without_chatter() as said:
        os.write(2, b"chatter")
        raise ZeroDivisionError
    assert said == [b"chatter"]
    os.write(2, b"said")
    assert capfd.readouterr().err == "said"
    damaged_mp3(folder / "x.mp3", rng)
    code = "from piano import recording; print(len(recording.load('x.mp3', 22050)))"
    command = ["sh", "-c", 'exec "$0" -c "$1" 2>&-', sys.executable, code]
    assert int(subprocess.run(command, env=environment(), stdout=-1, check=True).stdout) == 8 * SR
