"""README.md: its commands and its Python run, its figures are those of the tables; what pages name is there."""

import importlib
import inspect
import re
import subprocess
import sys

import numpy as np
import pytest
import separation
import soundfile

from helpers import ROOT

pytestmark = pytest.mark.same_everywhere("compares words; what is computed, other files test")


README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_three_commands_and_the_python_run_in_the_folder_of_the_code(root, tmp_path):
    """All blocks that name their language, from top to bottom, as a reader of a new copy would type them."""
    for path in (*root.glob("*.py"), *(root / name for name in ("piano", "basis_wav_piano", "examples"))):
        (tmp_path / path.name).symlink_to(path)
    for language, block in re.findall(r"```(python|sh)\n(.*?)```", README, re.DOTALL):
        lines = [[*line.split(), "--quiet"] for line in block.splitlines()] if language == "sh" else [["python", "-"]]
        for _python, *words in lines:
            typed = block if language == "python" else None
            subprocess.run([sys.executable, *words], cwd=tmp_path, input=typed, text=True, check=True)

    Y, P = np.load(tmp_path / "spec.npy"), np.load(tmp_path / "phase_calc.npy", mmap_mode="r")
    assert P.shape == (60, *Y.shape)
    assert f"{P.nbytes / 1e6:.0f} MB" in README
    left = {path.name for path in tmp_path.iterdir()}
    assert {"cost.npy", "learning_curve_NMF.png", "reconst.npy", "learning_curve_CNMF.png"} <= left
    sound, sr = soundfile.read(tmp_path / "C4.wav")
    true, _ = soundfile.read(root / "examples" / "chorale" / "matched" / "stems" / "060_C4.flac")
    assert sr == 22050
    assert np.corrcoef(sound, true)[0, 1] > 0.9  # 10 dB are a tenth of the energy wrong


def test_its_six_rows_are_those_of_the_benchmark():
    medians = separation.read_medians(separation.PAGE.read_text(encoding="utf-8"))
    rows = {
        "`CNMF.py`, recommended": tuple(map(str, separation.RECOMMENDED)),
        "`NMF.py --solver mu`": ("NMF, Euclidean, Wiener mask", "1", "2048"),
        "`NMF.py --solver mu --loss kullback-leibler`": ("NMF, KL, Wiener mask", "1", "2048"),
        "the model of the paper alone, H U Y/abs(Y)": ("CNMF, mixture phase: H U Y/abs(Y)", "1", "2048"),
        "`CNMF.py --phase-init random`": ("CNMF, random start: X", "1", "2048"),
        "ideal Wiener mask (knows the true sounds)": ("oracle: true Wiener mask", "", "2048"),
    }
    for name, row in rows.items():
        cells = " | ".join(f"{value:.1f}" for value in medians[row].values())
        assert f"| {name} | {cells} |" in README
    assert f"all {len(medians)} settings" in " ".join(README.split())


def pages():
    return [*ROOT.glob("*.md"), *ROOT.glob("[!.]*/*.md")]


def test_links_lead_somewhere():
    for page in pages():
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def is_there(dotted, modules, home=None):
    """Whether a name is that of a module, or of what is in it; without one, of what is in ``home`` or its classes."""
    first, *names = dotted.split(".")
    if first in modules:
        places = [importlib.import_module(modules[first])]
    else:
        places, names = [home, *(value for value in vars(home).values() if inspect.isclass(value))], [first, *names]
    for name in names:
        known = [place for place in places if hasattr(place, name) or name in getattr(place, "__annotations__", ())]
        places = [getattr(place, name, None) for place in known]
    return bool(places)


def test_code_that_pages_and_docstrings_name_is_there(root):
    paths = [*root.glob("*.py"), *root.glob("piano/*.py")]
    modules = {path.stem: ".".join(path.relative_to(root).with_suffix("").parts) for path in paths}
    of_code = rf"`((?:{'|'.join(modules)})\.(?!(?:py|csv|mid|wav|html|js)`)\w+(?:\.\w+)*)`"
    for page in pages():
        for name in re.findall(of_code, page.read_text(encoding="utf-8")):
            assert is_there(name, modules), (page.name, name)
    for path in paths:
        text, home = path.read_text(encoding="utf-8"), importlib.import_module(modules[path.stem])
        for name in re.findall(r":(?:func|class|meth|mod|attr):`([\w.]+)`|``([A-Z][A-Z_]+)``", text):
            name = "".join(name)
            assert is_there(name, modules, home), (path.name, name)
