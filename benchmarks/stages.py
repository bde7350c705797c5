"""Run a command of the suite, and tell how long each of its stages took. benchmarks/speed.py starts it.

    python benchmarks/stages.py START RESULT SCRIPT ARGUMENT...

START is time.monotonic() of when the process was started, so that the start of Python counts as well. RESULT is a
file: seconds by stage, as JSON; they add up to the time from START until the command is done. One stage runs at a
time: what a stage calls of another one, such as adaptation of NMF, or any of them of imports, counts for that alone.
"""

import builtins
import contextlib
import functools
import importlib
import inspect
import json
import pkgutil
import sys
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
IMPORTS, REST, END = "imports", "rest", "end of Python"  # the last is for whoever waits for the process
FUNCTIONS = {  # of each stage, besides
    "reading": ("piano.recording.load_mapped", "piano.basis.load"),
    "transform": ("piano.recording._mapped_stft",),
    "notes": ("piano.notes.listed", "piano.notes.find_notes", "piano.notes.write_notes"),
    "adaptation": ("piano.adapt.adapt_basis",),
    "NMF": ("utils.nmf",),
    "phases": ("piano.phase.start",),
    "complex NMF": ("utils.complex_nmf_blocks",),
    "sound": (
        "piano.separate.masked_notes",
        "piano.separate:StemWriter.write",
        "piano.separate:StemWriter.add_residual",
    ),
    "pictures": ("utils.plot_learning_curve", "piano.figures.plot_activation", "piano.figures.plot_spectrogram"),
}
STAGES = IMPORTS, *FUNCTIONS, REST, END
SUITE = "piano", "utils", "NMF", "CNMF"  # modules that have names for these functions


class Clock:
    """Seconds by stage since ``start``; begins in the stage ``first``. Only the main thread changes stages."""

    def __init__(self, start, first, now=time.monotonic):
        self.seconds = dict.fromkeys(STAGES, 0.0)
        self.running, self.since, self.now = [first], start, now

    def tick(self):
        """Book the time until now on the stage that runs."""
        now = self.now()
        self.seconds[self.running[-1]] += now - self.since
        self.since = now

    @contextlib.contextmanager
    def stage(self, name):
        """Context of a stage; afterwards the one before goes on."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        self.tick()
        self.running.append(name)
        try:
            yield
        finally:
            self.tick()
            self.running.pop()

    def timed(self, function, name):
        """The function, as that stage; the steps of a generator, too, but not what happens between them."""

        @functools.wraps(function)
        def wrapper(*args, **kwargs):
            with self.stage(name):
                result = function(*args, **kwargs)
            return self.timed_steps(result, name) if inspect.isgenerator(result) else result

        return wrapper

    def timed_steps(self, steps, name):
        done = object()
        while True:
            with self.stage(name):
                step = next(steps, done)
            if step is done:
                return
            yield step


def main():
    start, result, script, *arguments = sys.argv[1:]
    clock = Clock(float(start), IMPORTS)
    sys.path.insert(0, str(ROOT))
    sys.argv = [script, *arguments]
    command = importlib.import_module(Path(script).stem)
    for name, paths in FUNCTIONS.items():
        for path in paths:
            replace(path, functools.partial(clock.timed, name=name))
    clock.tick()
    clock.running = [REST]
    builtins.__import__ = timed_import(clock)
    from piano import cli

    status = cli.run(command.main)
    clock.tick()
    Path(result).write_text(json.dumps(clock.seconds), encoding="utf-8")
    return status


def replace(path, change):
    """Put ``change(function)`` in the place of a function, wherever the suite has a name for it.

    Raises
    ------
    AttributeError, ImportError
        If there is none at ``path``.
    """
    place, _, name = path.rpartition(".")
    owner = pkgutil.resolve_name(place)
    function = getattr(owner, name)
    changed = change(function)
    setattr(owner, name, changed)
    for imported, module in list(sys.modules.items()):
        if imported.partition(".")[0] in SUITE:
            for other in [other for other, value in vars(module).items() if value is function]:
                setattr(module, other, changed)


def timed_import(clock, original=builtins.__import__):
    """``__import__`` that is a stage of its own where a module is not there yet."""

    def timed(name, *args, **kwargs):
        if name in sys.modules or clock.running[-1] == IMPORTS:
            return original(name, *args, **kwargs)
        with clock.stage(IMPORTS):
            return original(name, *args, **kwargs)

    return timed


if __name__ == "__main__":
    sys.exit(main())
