"""basis: what lies beside a basis, and what it must be."""

import json

import numpy as np
import pytest

import utils
from helpers import save_basis
from piano import basis, events

pytestmark = pytest.mark.same_everywhere("reads files, and refuses others")
PATTERNS = np.ones((2, *events.pattern_shape()), np.float16)


def description(**changes):
    columns = [{"note": "C4", "f0": 261.6}, {"note": "C#4", "f0": 277.2}]
    return {"sr": 22050, "n_fft": 8, "hop": 2, "window": "hann", "columns": columns} | changes


BAD = {
    "sr": [None, 0, "22050", 2**31, float("inf")],
    "hop": [None, "4", 9, float("nan")],  # n_fft is 8
    "n_fft": [-8],
    "columns": [None, "C4", [1, 2], [{"note": "C4"}, {"file": "b.wav"}]],
}
BAD_NOTES = "X", "../../x", "/etc/passwd", "C4\0", "C4\n", 60
BAD_F0 = None, "high", "262", 0, -1.0, float("nan"), float("inf"), 10**400
BAD_COLUMNS = [*({"note": note, "f0": 1.0} for note in BAD_NOTES), *({"note": "C4", "f0": f0} for f0 in BAD_F0)]
NO_DESCRIPTIONS = [
    *("", "{", "[]", "null", "[" * 100000, '"\udcff"'),
    json.dumps({"columns": description()["columns"]}),
    *(json.dumps(description(**{name: value})) for name, values in BAD.items() for value in values),
    *(json.dumps(description(columns=[{"note": "D4", "f0": 1.0}, column])) for column in BAD_COLUMNS),
]


@pytest.mark.parametrize("text", NO_DESCRIPTIONS, ids=range(len(NO_DESCRIPTIONS)))
def test_what_is_no_description_is_named(tmp_path, text):
    (tmp_path / "basis.json").write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(utils.InputError, match=r"basis.json: got no description of a basis, expected sr, n_fft, hop"):
        basis.load_description(tmp_path / "basis.npy", (5, 2))


def described(folder):
    """A basis on disk, of two templates of which the first has two states, with a description and patterns."""
    save_basis(folder / "basis.npy", np.ones((5, 3), np.float32), ["C4", "C4", "D4"])
    np.save(folder / "basis_patterns.npy", PATTERNS)
    return folder / "basis.npy"


def test_a_basis_is_read_with_all_that_lies_beside_it(tmp_path):
    path = described(tmp_path)
    piano = basis.load(path)
    assert (piano.sr, piano.n_fft, piano.hop) == (22050, 8, 2)
    assert piano.notes == {60: [0, 1], 62: [2]}
    assert piano.templates == [60, 62]
    assert piano.patterns.shape == PATTERNS.shape
    assert [file.name for file in piano.files] == ["basis.npy", "basis.json", "basis_patterns.npy"]
    (tmp_path / "basis_patterns.npy").unlink()
    (tmp_path / "basis.json").write_text(json.dumps(description(columns=3 * [{"note": "C4", "f0": 261.6}])))
    assert (basis.load(path).notes, basis.load(path).patterns) == ({60: [0, 1, 2]}, None)  # no file need be named


def test_what_are_no_patterns_of_the_basis_is_named(tmp_path):
    path = described(tmp_path)
    for patterns, message in (
        (np.concatenate([PATTERNS, PATTERNS]), "got float16 values of shape"),
        (PATTERNS[:, :3, :4], "expected patterns of shape"),
        (PATTERNS.astype(np.float32), "got float32 values"),
        (PATTERNS * np.float16(np.nan), "finite and >= 0"),
        (-PATTERNS, "finite and >= 0"),
        (b"no array", "got no readable .npy header"),
    ):
        if isinstance(patterns, bytes):
            (tmp_path / "basis_patterns.npy").write_bytes(patterns)
        else:
            np.save(tmp_path / "basis_patterns.npy", patterns)
        with pytest.raises(utils.InputError, match=f"basis_patterns.npy: .*{message}"):
            basis.load(path)
