"""docs/notebook.ipynb: it runs from its first cell to its last, and is stored without what it prints."""

import base64
import csv
import io
import json
import re

import nbclient
import nbformat
import numpy as np
import pytest
import soundfile

pytestmark = pytest.mark.same_everywhere("compares words; what is computed, other files test")

PATH = "docs/notebook.ipynb"
ITS_VALUES = """
import json
off = np.abs(y - residual - sum(sounds.values())).max()
print(json.dumps({"listed": [(note.midi, note.onset) for note in listed], "stems": sorted(sounds), "off": float(off)}))
"""


@pytest.fixture
def notebook(root):
    return nbformat.read(root / PATH, as_version=4)


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def shown(notebook, kind):
    """All that the cells show of one MIME type."""
    return [o.data[kind] for cell in code_cells(notebook) for o in cell.outputs if kind in o.get("data", ())]


def test_nothing_that_it_prints_is_stored(notebook, root):
    nbformat.validate(notebook)
    assert all((cell.outputs, cell.execution_count) == ([], None) for cell in code_cells(notebook))
    assert (root / PATH).read_text(encoding="utf-8") == nbformat.writes(notebook) + "\n"  # as Jupyter saves it


def test_it_runs_in_any_folder(notebook, root, tmp_path, monkeypatch):
    for name in ("TMPDIR", "TEMP", "TMP", "IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_RUNTIME_DIR"):
        monkeypatch.setenv(name, str(tmp_path))
    chorale = root / "examples" / "chorale"
    notebook.cells.append(nbformat.v4.new_code_cell(ITS_VALUES))
    nbclient.execute(notebook, cwd=str(chorale), timeout=120)  # raises what a cell raises
    printed = [[output for output in cell.outputs if output.output_type == "stream"] for cell in code_cells(notebook)]
    assert {output.name for outputs in printed for output in outputs} == {"stdout"}
    *_, of_page, of_values = ("".join(output.text for output in outputs) for outputs in printed)  # may come in parts

    values = json.loads(of_values)
    with open(chorale / "notes.csv", newline="", encoding="utf-8") as file:
        played = [(int(row["midi"]), float(row["onset"])) for row in csv.DictReader(file)]
    right = [any(midi == key and abs(onset - at) < 0.05 for midi, onset in values["listed"]) for key, at in played]
    assert np.mean(right) > 0.9
    assert values["stems"] == sorted({midi for midi, _ in values["listed"]})
    assert values["off"] < 1e-6

    assert len(shown(notebook, "image/png")) == 1
    sounds = [re.search('base64,([^"]*)', html)[1] for html in shown(notebook, "text/html")]
    recording, _stem, _residual = (soundfile.read(io.BytesIO(base64.b64decode(sound)))[0] for sound in sounds)
    y, _ = soundfile.read(chorale / "matched" / "mixture.flac")
    np.testing.assert_allclose(recording, y, atol=2 / 2**15)  # as loud as it is, and not normalised

    (page,) = tmp_path.glob("piano-*/listen.html")
    assert page.as_uri() in of_page
    assert page.stat().st_size > 1e6
