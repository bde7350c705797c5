"""What several test files share: random numbers, the recordings, and a basis that is learnt once."""

import functools
import importlib.metadata
import os
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

import make_init_H
from helpers import ROOT, TEMPLATES

if "PYTEST_XDIST_WORKER" in os.environ:  # beside the tests of another Python, or as on another processor
    version, processor = f"{sys.version_info[0]}.{sys.version_info[1]}", os.environ.get("NUMBA_CPU_NAME", "own")
    os.environ["NUMBA_CACHE_DIR"] = str(ROOT / ".pytest_cache" / "numba" / version / processor)

sys.path += [str(ROOT / "benchmarks"), str(ROOT / "tools")]  # whose scripts some tests import

threadpool_limits(1, user_api="blas")  # as each command has it; more would wait for each other's cores

importlib.metadata.version = functools.cache(importlib.metadata.version)  # every record of a run asks for ten

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # of a job in the background; the runs it starts inherit that
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_report_header():
    """The kernels that BLAS takes."""
    return f"BLAS: {', '.join(str(library.get('architecture')) for library in threadpool_info())}"


def pytest_collection_modifyitems(items):
    """A test that is not run under every kernel says why."""
    for item in items:
        for mark in item.iter_markers("same_everywhere"):
            if not mark.args:
                raise pytest.UsageError(f"{item.nodeid}: got same_everywhere without a reason, expected one")


@pytest.fixture
def rng():
    return np.random.default_rng(20090419)


@pytest.fixture(scope="session")
def root():
    """Folder of the scripts."""
    return ROOT


@pytest.fixture(scope="session")
def learnt(tmp_path_factory):
    """Folder that holds what ``make_init_H.py basis_wav_piano`` writes."""
    folder = tmp_path_factory.mktemp("learnt")
    make_init_H.main([str(ROOT / "basis_wav_piano"), "-o", str(folder)])
    return folder


@pytest.fixture(scope="session")
def few(tmp_path_factory):
    """Folder that holds the basis of four keys, C4, E4, C5 and E5: learnt, and gone through, much sooner than all."""
    notes, folder = tmp_path_factory.mktemp("notes"), tmp_path_factory.mktemp("few")
    for midi in (60, 64, 72, 76):
        (notes / TEMPLATES[midi].name).symlink_to(TEMPLATES[midi])
    make_init_H.main([str(notes), "-o", str(folder)])
    return folder


@pytest.fixture
def refused(capsys):
    """A function that runs a command, which must stop with status 2, and returns the line that it says."""

    def run(script, *arguments):
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            script.main(list(arguments))
        said = capsys.readouterr()
        assert (end.value.code, said.out) == (2, "")
        (line,) = said.err.splitlines()
        return line

    return run


@pytest.fixture
def drawn(monkeypatch):
    """Figures by the name of their file: drawn but not rendered, which takes longer than all else of a short run."""
    from matplotlib.figure import Figure

    figures = {}

    def record(figure, path):
        figures[Path(path).name] = figure
        Path(path).write_bytes(b"\x89PNG")

    monkeypatch.setattr(Figure, "savefig", record)
    return figures
