"""Look for a file that ends in anything but an InputError; `make fuzz` runs this for two minutes.

The first byte says which reader gets the rest: a spectrogram, a basis, its description, or a sound. It starts from
small valid files of each kind, so that it gets past their headers.
"""

import io
import itertools
import json
import os
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

import atheris
import numpy as np
import soundfile

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

with atheris.instrument_imports(include=["utils", "piano", "numpy.lib._format_impl", "json"]):
    import utils
    from piano import basis, recording

FOLDER = Path(os.environ.get("FUZZ_FOLDER", ""))
READERS = {
    "spec.npy": utils.load_spectrogram,
    "basis.npy": utils.load_basis,
    "basis.json": lambda path: basis.load_description(path.with_suffix(".npy"), (9, 2)),
    "sound.wav": lambda path: recording.load(path, 22050),
}


def read(data):
    """Put ``data`` into a file and read it, or be refused."""
    with suppress(utils.InputError):
        read_valid(data)


def read_valid(data):
    """Put ``data`` into a file and read it."""
    name, reader = list(READERS.items())[data[0] % len(READERS) if data else 0]
    path = FOLDER / name
    path.write_bytes(data[1:])
    reader(path)


def valid_files():
    """Yield the contents of small valid files, each with the byte before it that names its reader."""
    rng = np.random.default_rng(0)
    for dtype, order in itertools.product(("f2", "<f4", ">f8", "<c8", ">c16"), "CF"):
        file = io.BytesIO()
        np.save(file, np.asarray(rng.random((9, 2)), dtype, order=order))
        yield bytes([0]) + file.getvalue()
        if "c" not in dtype:
            yield bytes([1]) + file.getvalue()
    column = {"file": "C4.wav", "note": "C4", "f0": 261.6}
    info = {"sr": 22050, "n_fft": 16, "hop": 4, "columns": [column, column | {"note": "C#4", "f0": 277.2}]}
    yield bytes([2]) + json.dumps(info).encode()
    sounds = (("WAV", "PCM_16"), ("WAV", "FLOAT"), ("WAV", "PCM_24"), ("FLAC", None), ("OGG", None), ("AIFF", None))
    for (kind, subtype), channels in itertools.product(sounds, (1, 2)):
        file = io.BytesIO()
        soundfile.write(file, 0.1 * rng.standard_normal((300, channels)), 22050, format=kind, subtype=subtype)
        yield bytes([3]) + file.getvalue()


if __name__ == "__main__":
    if "FUZZ_FOLDER" not in os.environ:  # libFuzzer ends its process where it stands: what cleans up is another one
        with tempfile.TemporaryDirectory() as folder:
            environment = os.environ | {"FUZZ_FOLDER": folder}
            sys.exit(subprocess.run([sys.executable, *sys.argv], env=environment, check=False).returncode)
    corpus = FOLDER / "corpus"
    corpus.mkdir()
    for i, data in enumerate(valid_files()):
        read_valid(data)
        (corpus / str(i)).write_bytes(data)
    atheris.Setup([*sys.argv, str(corpus)], read)
    atheris.Fuzz()
