"""Look for a file that ends in anything but an InputError; `make fuzz` runs this for two minutes.

The first byte says which reader gets the rest: a spectrogram, a basis, its description, or a sound.
"""

import sys
import tempfile
from contextlib import suppress
from pathlib import Path

import atheris

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

with atheris.instrument_imports(include=["utils", "notes", "audio", "outputs", "numpy.lib._format_impl", "json"]):
    import audio
    import notes
    import utils

FOLDER = Path(tempfile.mkdtemp())
READERS = {
    "spec.npy": utils.load_spectrogram,
    "basis.npy": utils.load_basis,
    "basis.json": lambda path: notes.load_basis_info(path.with_suffix(".npy"), (9, 2)),
    "sound.wav": lambda path: sum(len(block) for block in audio.read_blocks(path, 22050)),
}


def read(data):
    """Put ``data`` into a file and read it."""
    name, reader = list(READERS.items())[data[0] % len(READERS) if data else 0]
    path = FOLDER / name
    path.write_bytes(data[1:])
    with suppress(utils.InputError):
        reader(path)


if __name__ == "__main__":
    atheris.Setup(sys.argv, read)
    atheris.Fuzz()
