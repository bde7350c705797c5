"""The progress bar, as a terminal shows it."""

import os
import pty
import re
import subprocess
import sys
import termios
from contextlib import suppress

import numpy as np
import pytest
import soundfile

from helpers import struck

pytestmark = pytest.mark.same_everywhere("what a terminal shows")


def on_terminal(root, script, arguments):
    """What a command writes on a terminal of its own."""
    ours, its = pty.openpty()
    termios.tcsetwinsize(its, (24, 100))
    at_once = f"cli.BAR_AFTER_S = cli.TICK_S = 0.001; raise SystemExit(cli.run({script}.main))"
    command = [sys.executable, "-c", f"from piano import cli; import {script}; {at_once}", *map(str, arguments)]
    with subprocess.Popen(command, cwd=root, stdin=its, stdout=its, stderr=its) as process, open(ours, "rb", 0) as file:
        os.close(its)
        told = b""
        with suppress(OSError):  # Linux's way of saying that the other end is closed
            while part := file.read(4096):
                told += part
    assert process.returncode == 0
    return told.decode()


NAMES = "Reading the recording", "Finding the notes", "Following the notes", "Taking it apart", "Writing the results"


def test_one_bar_with_named_stages_is_gone_at_the_end(root, few, tmp_path):
    """Of a sound: a spectrogram is read before a bar is drawn. Stages that this run does not have do not count."""
    soundfile.write(tmp_path / "short.wav", struck(76), 22050)
    options = "--listen", "--adapt", "none", "-o", tmp_path / "out"
    told = on_terminal(root, "CNMF", [tmp_path / "short.wav", "20", few / "fixed_basis.npy", *options])
    shown = re.findall(r"\[(\d)/(\d)\] ([A-Z][a-z ]+[a-z]) +(\d+)%", told)
    stages = list(dict.fromkeys((int(i), int(n), name) for i, n, name, _ in shown))
    assert stages == [(i, len(NAMES), name) for i, name in enumerate(NAMES, 1)]
    shares = [int(share) for *_, share in shown]
    assert shares == sorted(shares)
    screen = [line.rpartition("\r")[2] for line in told.replace("\r\n", "\n").split("\n")]  # what stays on each line
    assert not any("%|" in line for line in screen)
    assert screen[-2].startswith("results are in ")


def test_with_quiet_there_is_no_bar(root, few, tmp_path):
    np.save(tmp_path / "spec.npy", np.ones((1025, 20)))
    arguments = [tmp_path / "spec.npy", "200", few / "fixed_basis.npy", "--quiet", "-o", tmp_path / "out"]
    assert on_terminal(root, "NMF", arguments) == ""
