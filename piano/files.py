"""Files: what one is by its content, and how a sound is opened, by soundfile or with the help of ffmpeg."""

import codecs
import contextlib
import functools
import logging
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

from utils import InputError, check_file

log = logging.getLogger(__name__)

ARRAY, SOUND, FOREIGN = "a NumPy array (.npy)", "a sound", "a sound that only ffmpeg reads"
SOUNDS = SOUND, FOREIGN
BEGINNINGS = {  # of a file's bytes; the first that fits tells what it is
    ARRAY: rb"\x93NUMPY",
    FOREIGN: rb"....ftyp|\xff[\xf0\xf1\xf8\xf9]|ADIF|\x1aE\xdf\xa3|0&\xb2u\x8ef\xcf|\x0bw|#!AMR|wvpk|RIFF....AVI |FLV",
    SOUND: rb"(RIFF|RIFX|RF64)....WAVE|riff\.\x91|fLaC|OggS|FORM....AIF|\.snd|caff|ID3|\xff[\xe2-\xfd]|NIST_1A|PVF1",
    "a MIDI file": rb"MThd",
    "a PDF document": rb"%PDF",
    "a ZIP archive": rb"PK\x03\x04|PK\x05\x06",
    "a compressed file": rb"\x1f\x8b|BZh|\xfd7zXZ|7z\xbc\xaf|Rar!",
    "a picture": rb"\x89PNG|\xff\xd8|GIF8|RIFF....WEBP",
    "an HTML page": rb"(?i)(\xef\xbb\xbf)?\s*<(!doctype|html)",
    "text": rb"\xff\xfe|\xfe\xff",
}
DAMAGE = re.compile(rb"error:|Illegal Audio-MPEG-Header")  # what it says of damage, among what it says

_alone = threading.Lock()  # of those who turn stderr elsewhere


def kind(path):
    """What a file is by its content: a key of ``BEGINNINGS``, "text", "an empty file", or None where nothing tells."""
    try:
        if not Path(path).is_file():  # a pipe might be waited for, for ever
            return None
        with open(path, "rb") as file:
            beginning = file.read(512)
    except (OSError, ValueError):
        return None
    if not beginning:
        return "an empty file"
    for name, pattern in BEGINNINGS.items():
        if re.match(pattern, beginning, re.DOTALL):
            return name
    with contextlib.suppress(UnicodeDecodeError):
        if not re.search(r"[\x00-\x08\x0e-\x1f\x7f]", codecs.getincrementaldecoder("utf-8")().decode(beginning)):
            return "text"
    return None


def check_kind(path, expected, *kinds):
    """Raise :class:`InputError` unless ``path`` is an ordinary file that is, or may be, one of ``kinds``."""
    check_file(path, expected)
    found = kind(path)
    if found not in (None, *kinds):
        raise InputError(f"{path}: got {found}, expected {expected}")


def opened(path, folder):
    """Open a sound file with soundfile. What it cannot read, ffmpeg decodes first, into ``folder``, where that is kept.

    Raises :class:`InputError` if ffmpeg is needed and is not there, or cannot read the file either.
    """
    import soundfile

    try:
        with without_chatter():
            return soundfile.SoundFile(path)
    except soundfile.SoundFileError as error:
        return soundfile.SoundFile(_decoded(path, Path(folder), error))


def _decoded(path, folder, error):
    """Path of what ffmpeg makes of a sound: its rate and channels, in floats, even beyond 4 GiB."""
    copy, program, foreign = folder / "decoded.wav", shutil.which("ffmpeg"), kind(path) == FOREIGN
    if copy.exists():
        return copy
    if program is None and foreign:
        convert = shlex.join(["ffmpeg", "-i", str(path), Path(path).with_suffix(".wav").name])
        raise InputError(f"{path}: got {FOREIGN}, expected that program here, or another format ({convert})")
    if program is None:
        raise error
    source = ["-protocol_whitelist", "file", "-i", f"file:{path}", "-vn", "-sn", "-dn"]  # a playlist names no address
    target = ["-c:a", "pcm_f32le", "-rf64", "auto", "-f", "wav", copy]
    with tempfile.TemporaryFile() as said:
        command = [program, "-nostdin", "-v", "error", *source, *target]
        status = subprocess.run(command, stdout=said, stderr=said, check=False).returncode
        said.seek(0)
        lines = said.read(2**16).decode(errors="replace").splitlines()
    if status and foreign:
        reason = lines[-1].rpartition(": ")[2] if lines else f"status {status}"
        raise InputError(f"{path}: cannot be read as audio (ffmpeg: {reason}), expected a sound file")
    if status:
        raise error
    if lines:
        tell_damage(path)
    return copy


@functools.cache
def tell_damage(path):
    """Say, once, that a file is damaged."""
    log.warning(f"{path}: damaged at some places; what can be read is used")


@contextlib.contextmanager
def without_chatter():
    """Keep from stderr what a C library writes there. Yields a list that holds it at the end, as bytes.

    libmpg123 says on descriptor 2 what it thinks of an MP3 file.
    """
    said = []
    if sys.__stderr__ is None:  # it is closed, and what has its number now may be anything
        yield said
        return
    with _alone, tempfile.TemporaryFile() as file:
        stderr = os.dup(2)
        try:
            os.dup2(file.fileno(), 2)
            yield said
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
            file.seek(0)
            said.append(file.read())
