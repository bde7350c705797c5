"""README.md: its Python runs, its figures are those of the tables, and its links lead somewhere."""

import re
import shutil
import sys

import numpy as np
import pytest

pytestmark = pytest.mark.same_everywhere("compares words; what is computed, other files test")


@pytest.fixture(scope="module")
def readme(root):
    return (root / "README.md").read_text(encoding="utf-8")


def test_the_python_block_runs(readme, root, learnt, tmp_path, monkeypatch):
    for name in ("fixed_basis.npy", "fixed_basis.json", "fixed_basis_patterns.npy"):
        shutil.copy(learnt / name, tmp_path)
    shutil.copy(root / "examples" / "chorale" / "matched" / "mixture.flac", tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(root), *sys.path])
    (code,) = re.findall(r"```python\n(.*?)```", readme, re.DOTALL)
    names = {}
    exec(compile(code, "README.md", "exec"), names)
    assert names["U"].shape == (60, names["Y"].shape[1])
    assert np.abs(names["sound"]).max() > 0.01
    assert len(names["sound"]) == len(names["y"])
    assert {"C4.wav", "heard.mid"} <= {path.name for path in tmp_path.iterdir()}


def test_its_six_rows_are_those_of_the_benchmark(readme, benchmark):
    separation = benchmark("separation")
    medians = separation.read_medians(separation.PAGE.read_text(encoding="utf-8"))
    rows = {
        "`CNMF.py`, recommended": tuple(map(str, separation.RECOMMENDED)),
        "`NMF.py`, defaults": ("NMF, Euclidean, Wiener mask", "1", "2048"),
        "`NMF.py --loss kullback-leibler`": ("NMF, KL, Wiener mask", "1", "2048"),
        "complex NMF, plain model": ("CNMF, mixture phase: H U Y/abs(Y)", "1", "2048"),
        "`CNMF.py --phase-init random`": ("CNMF, random start: X", "1", "2048"),
        "ideal Wiener mask (knows the true sounds)": ("oracle: true Wiener mask", "", "2048"),
    }
    for name, row in rows.items():
        cells = " | ".join(f"{value:.1f}" for value in medians[row].values())
        assert f"| {name} | {cells} |" in readme
    assert f"all {len(medians)}\nsettings" in readme


@pytest.mark.parametrize(
    "page",
    [
        "README.md",
        "CONTRIBUTING.md",
        "docs/reference.md",
        "docs/mathematics.md",
        "docs/cluster.md",
        "benchmarks/README.md",
    ],
)
def test_links_lead_somewhere(root, page):
    text = (root / page).read_text(encoding="utf-8")
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", text):
        assert (root / page).parent.joinpath(target).exists(), target
