"""Take an hour of sound apart with CNMF.py, stems and all, and watch its memory.

    python benchmarks/soak.py
    python benchmarks/soak.py --minutes 10 --notes 60

The sound is the chorale, over and over. Linux only: the resident set is read from /proc once a second.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import soundfile

ROOT = Path(__file__).resolve().parents[1]
CHORALE = ROOT / "examples" / "chorale" / "matched" / "mixture.flac"
WARM_UP = 60  # s that a run may take to reach its working size
N_ITER = 5


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60, help="length of the sound (default: %(default)s)")
    parser.add_argument("--notes", type=int, default=20, help="of the basis, at most 60 (default: %(default)s)")
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        (folder / "notes").mkdir()
        templates = sorted((ROOT / "basis_wav_piano").glob("*.wav"))
        for i in np.linspace(0, len(templates) - 1, args.notes).astype(int):
            shutil.copy(templates[i], folder / "notes")
        command = [sys.executable, ROOT / "make_init_H.py", folder / "notes", "-o", folder, "--quiet"]
        subprocess.run(command, check=True)
        y, sr = soundfile.read(CHORALE, dtype="float32")
        with soundfile.SoundFile(folder / "sound.flac", "w", sr, 1) as sound:
            for _ in range(round(60 * args.minutes * sr / len(y))):
                sound.write(y)
        command = [sys.executable, ROOT / "CNMF.py", folder / "sound.flac", str(N_ITER), folder / "fixed_basis.npy"]
        began = time.monotonic()
        with subprocess.Popen(
            [*command, "--phase-init", "mixture", "--adapt", "none", "--no-phase", "--stems", "-o", folder / "out"]
        ) as process:
            memory = []  # MB, once a second
            while process.poll() is None:
                memory.append(resident(process.pid))
                time.sleep(1)
        seconds = time.monotonic() - began
        if process.returncode:
            sys.exit(process.returncode)
        size = sum(path.stat().st_size for path in (folder / "out").rglob("*.*") if path.is_file())
    steady = [megabytes for megabytes in memory[WARM_UP:] if megabytes]
    middle = float(np.median(steady))
    print("| sound | notes | iterations | run | results | memory, median after a minute | lowest | highest |")
    print("|---|---|---|---|---|---|---|---|")
    print(
        f"| {args.minutes:.0f} min | {args.notes} | {N_ITER} | {seconds:.0f} s | {size / 1e9:.1f} GB | {middle:.0f} MB "
        f"| {min(steady) / middle - 1:+.1%} | {max(steady) / middle - 1:+.1%} |"
    )
    print("every tenth second, MB:", *(f"{megabytes:.0f}" for megabytes in memory[::10]))


def resident(pid):
    """Resident set of a process in MB; 0 where it has just ended."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1e3 for line in status.splitlines() if line.startswith("VmRSS")), 0.0)


if __name__ == "__main__":
    sys.exit(main())
