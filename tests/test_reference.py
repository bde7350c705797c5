"""docs/reference.md: its options are those of -h, its files are those that a run leaves."""

import argparse
import importlib
import re

import pytest
import soundfile

from helpers import struck
from piano import cli

pytestmark = [pytest.mark.same_everywhere("compares words"), pytest.mark.usefixtures("drawn")]

COMMON = "Options of all commands"
SECTIONS = {
    "make_init_H": (COMMON, "make_init_H.py"),
    "NMF": (COMMON, "NMF.py and CNMF.py", "NMF.py only"),
    "CNMF": (COMMON, "NMF.py and CNMF.py", "CNMF.py only"),
}
OPTION = re.compile(r"(?<![\w-])--?[A-Za-z][\w-]*")
CODE = re.compile(r"`([^`]+)`")


@pytest.fixture(scope="module")
def tables(root):
    """Rows of the table in each section, by heading."""
    text = (root / "docs" / "reference.md").read_text(encoding="utf-8")
    found = {}
    for section in re.split(r"^##+ ", text, flags=re.MULTILINE)[1:]:
        heading, _, body = section.partition("\n")
        rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in body.splitlines() if line.startswith("|")]
        found[heading] = rows[2:]
    return found


@pytest.mark.parametrize("script", SECTIONS)
def test_every_option_is_told_with_its_default(script, tables):
    rows = {tuple(OPTION.findall(row[0])): row for heading in SECTIONS[script] for row in tables[heading]}
    parser = cli.parser("", f"{script}.py")
    importlib.import_module(script).parse_args(parser, ["x"])
    actions = {tuple(action.option_strings): action for action in parser._actions if action.option_strings}
    assert sorted(rows) == sorted(actions)
    for names, action in actions.items():
        _, default, meaning = rows[names]
        has_default = not (action.default is None or action.default is False or action.default == argparse.SUPPRESS)
        assert CODE.findall(default) == ([str(action.default)] if has_default else []), names
        assert set(action.choices or ()) <= set(CODE.findall(meaning)), names


def files_told(tables, *headings):
    return {name for heading in headings for row in tables[heading] for name in CODE.findall(row[0])}


def files_left(folder):
    """Files in a folder; the stem of any note counts as that of C4."""
    names = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return {re.sub(r"\d{3}_[A-G]s?\d\.", "060_C4.", name) for name in names}


def test_every_file_of_the_basis_is_told(tables, few):
    assert files_left(few) == files_told(tables, "Files of make_init_H.py")


@pytest.mark.parametrize("script", ["NMF", "CNMF"])
def test_every_file_of_a_run_is_told(script, tables, few, tmp_path):
    soundfile.write(tmp_path / "short.wav", struck(76), 22050)
    command = [str(tmp_path / "short.wav"), "3", str(few / "fixed_basis.npy"), "--stems", "--listen", "--quiet"]
    command += ["--phase"] if script == "CNMF" else []
    importlib.import_module(script).main([*command, "-o", str(tmp_path / "out")])
    told = files_told(tables, "Files of NMF.py")
    if script == "CNMF":
        told = (told | files_told(tables, "Files of CNMF.py")) - {"learning_curve_NMF.png"}
    assert files_left(tmp_path / "out") == told
