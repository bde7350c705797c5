"""Kill runs of every command at random moments, and look what they leave.

    python benchmarks/faults.py
    python benchmarks/faults.py --kills 200 --seed 1

Each run writes into a folder that holds an earlier run's results, which have another seed and more files, and gets
SIGKILL at a random moment of its life. What then lies there under its final name must be the results of the earlier
run, byte by byte, or those of this run, or else run.json must be gone. The next run must leave its own results and no
hidden file.
"""

import argparse
import contextlib
import hashlib
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import soundfile

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import CNMF
import make_init_H
import NMF
from piano import cli, recording

ROOT = Path(__file__).resolve().parents[1]
CHORALE = ROOT / "examples" / "chorale" / "matched" / "mixture.flac"
SCRIPTS = {f"{script.__name__}.py": script for script in (make_init_H, NMF, CNMF)}
N_NOTES = 2  # templates of the basis that is learnt over and over
SECONDS = 1  # of each of them, and of the chorale
MOVING = ["--phase-init", "random"]
COMMANDS = {  # arguments of the earlier run, and of the one that is killed
    "make_init_H.py": (["notes", "--states", "2"], ["notes", "--n-iter", "20"]),
    "NMF.py": (["spec.npy", "20", "fixed_basis.npy", "--stems"], ["spec.npy", "30", "fixed_basis.npy", "--notes"]),
    "CNMF.py": (
        ["spec.npy", "3", "fixed_basis.npy", *MOVING, "--adapt", "none", "--phase", "--stems"],
        ["spec.npy", "4", "fixed_basis.npy", *MOVING, "--notes", "--no-phase"],
    ),
}


def prepare(folder):
    """Put templates, a basis and a spectrogram into ``folder``."""
    (folder / "notes").mkdir()
    for template in sorted((ROOT / "basis_wav_piano").glob("*.wav"))[24 : 24 + N_NOTES]:
        y, sr = soundfile.read(template)
        soundfile.write(folder / "notes" / template.name, y[: SECONDS * sr], sr)
    y = recording.load(CHORALE, 22050)[: SECONDS * 22050]
    np.save(folder / "spec.npy", recording.stft(y))
    run(folder, "make_init_H.py", ["notes"], folder)


def start(cwd, script, arguments, out):
    """Start a command as a process of its own, all modules imported: the moments of its life are those of its work."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.chdir(cwd)
            status = cli.run(lambda: SCRIPTS[script].main([*arguments, "--quiet", "-o", str(out)]))
        except SystemExit as end:
            status = end.code
        finally:
            os._exit(status or 0)
    return child


def run(cwd, script, arguments, out):
    """Run a command to its end; returns how many seconds it took."""
    began = time.perf_counter()
    status = os.waitstatus_to_exitcode(os.waitpid(start(cwd, script, arguments, out), 0)[1])
    if status:
        raise RuntimeError(f"{script} ended with {status}")
    return time.perf_counter() - began


def digests(folder):
    """SHA-256 of every file below ``folder`` whose path holds no hidden name."""
    paths = [path.relative_to(folder) for path in sorted(folder.rglob("*")) if path.is_file()]
    return {
        str(path): hashlib.sha256((folder / path).read_bytes()).hexdigest()
        for path in paths
        if not any(part.startswith(".") for part in path.parts)
    }


def campaign(folder, script, n_kills, rng):
    """Kill ``script`` ``n_kills`` times; returns how many runs left the earlier, the new, and half results.

    Raises
    ------
    RuntimeError
        If one left anything else, or the run after it did not clean up.
    """
    earlier, later = COMMANDS[script]
    with contextlib.chdir(folder):  # in this process, which then has imported and compiled everything
        SCRIPTS[script].main([*earlier, "--quiet", "-o", f"{script} earlier"])
    shutil.copytree(folder / f"{script} earlier", folder / f"{script} later")
    seconds = run(folder, script, later, folder / f"{script} later")
    whole = {"earlier": digests(folder / f"{script} earlier"), "new": digests(folder / f"{script} later")}
    found = {"earlier": 0, "new": 0, "half": 0}
    for i in range(n_kills):
        out = folder / f"{script} {i}"
        shutil.copytree(folder / f"{script} earlier", out)
        child = start(folder, script, later, out)
        time.sleep(rng.uniform(0, 1.1) * seconds)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        left = digests(out)
        state = next((name for name, files in whole.items() if left == files), "half")
        if state == "half" and "run.json" in left:
            raise RuntimeError(f"{script}: a kill left files of two runs beside a run.json in {out}")
        found[state] += 1
        run(folder, script, later, out)
        if digests(out) != whole["new"] or any(path.name.startswith(".") for path in out.iterdir()):
            raise RuntimeError(f"{script}: the run after a kill left {sorted(map(str, out.iterdir()))}")
        shutil.rmtree(out)
    return found


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50, help="of each command (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments (default: %(default)s)")
    args = parser.parse_args(argv)
    print(
        "| command | kills | left the earlier results | the new ones | half, and no run.json |\n|---|---|---|---|---|"
    )
    with tempfile.TemporaryDirectory() as folder:
        prepare(Path(folder))
        for script in COMMANDS:
            found = campaign(Path(folder), script, args.kills, random.Random(args.seed))
            print(f"| `{script}` | {args.kills} | {found['earlier']} | {found['new']} | {found['half']} |", flush=True)


if __name__ == "__main__":
    sys.exit(main())
