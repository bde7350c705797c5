"""Draw the figures of README.md and docs/ again, from the templates and the chorale.

    python tools/draw_images.py

Learns the basis, takes the chorale apart with the three commands at their defaults, and writes into images/:

    piano_roll.png               activations of NMF.py, and over them the notes that were played
    gmm_and_learnt.png           where the spectrum of a note starts, and what is learnt from its template
    fixed_basis_spectrogram.png  as make_init_H.py draws it
    learning_curve_NMF.png       as NMF.py draws it
    learning_curve_CNMF.png      as CNMF.py draws it
    listen.png                   listen.html of the chorale, by the recommended command, as Chromium shows it

The same input gives the same bytes. images/ changes only when all six are drawn.
"""

import argparse
import shutil
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import CNMF
import make_init_H
import NMF
import utils
from piano import figures, notes, recording, results
from piano.basis import load

ROOT = Path(__file__).resolve().parents[1]
CHORALE = ROOT / "examples" / "chorale"
N_ITER = "200"
NOTE = "C3"  # low enough for its harmonics to stand apart
HIGHEST_HZ = 3500  # of its spectrum that is shown; above it the template has faded
DPI = 150  # sharp in a browser, and still small
START_COLOUR, LEARNT_COLOUR = "#f4a261", "#3b0f70"


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.parse_args(argv)
    with results.reserved_folder(ROOT / "images", overwrite=True) as (folder, images):
        spec, path = folder / "spec.npy", folder / "fixed_basis.npy"
        np.save(spec, recording.stft(recording.load(CHORALE / "matched" / "mixture.flac", 22050)))
        make_init_H.main([str(ROOT / "basis_wav_piano"), "-o", str(folder)])
        NMF.main([str(spec), N_ITER, str(path), "-o", str(folder)])
        U = np.load(folder / "activation_calc.npy")
        CNMF.main([str(spec), N_ITER, str(path), "--no-phase", "-o", str(folder)])

        piano = load(path)
        draw_piano_roll(images / "piano_roll.png", U, piano, notes.read_score(CHORALE / "notes.csv"))
        draw_start_and_learnt(images / "gmm_and_learnt.png", piano, NOTE)
        for name in ("fixed_basis_spectrogram", "learning_curve_NMF", "learning_curve_CNMF"):
            shutil.copy(folder / f"{name}.png", images)
        CNMF.main([str(CHORALE / "matched" / "mixture.flac"), "--listen", "-o", str(folder / "page")])
        photograph(folder / "page" / "listen.html", images / "listen.png")


def photograph(page, path):
    """Save what a browser shows of a page to listen to, the pointer on one of its notes."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        window = browser.new_page(viewport={"width": 1280, "height": 905})
        window.goto(page.as_uri())
        window.evaluate("listen.ready")
        left, top = window.evaluate(
            """() => {
                const note = listen.page.notes[20], box = document.getElementById("picture").getBoundingClientRect();
                return [box.left + listen.xOf((note.onset + note.offset) / 2), box.top + listen.rowTop(note.midi) + 5];
            }"""
        )
        window.mouse.move(left, top)
        window.screenshot(path=path)
        browser.close()


def draw_piano_roll(path, U, basis, played):
    """Draw activations, and over them the outline of every note that was played."""
    with utils.picture(path, dpi=DPI) as figure:
        (axes,) = figures.draw_activation(figure, U, basis, played)
        axes.set_title("A chorale taken apart: activation of each note", loc="left")
        axes.get_legend().get_texts()[0].set_text("key held down, as played")


def draw_start_and_learnt(path, basis, name):
    """Draw the harmonic Gaussian mixture of one note, and over it the spectrum learnt from its template."""
    column = [column["note"] for column in basis.columns].index(name)
    f0 = basis.columns[column]["f0"]
    start = utils.harmonic_gmm(f0, sr=basis.sr, n_fft=basis.n_fft)
    frequencies = np.arange(len(basis.H)) * basis.sr / basis.n_fft
    span = 2 * figures.DB_RANGE  # curves leave the picture rather than run along its edge

    with utils.picture(path, (9, 4.5), dpi=DPI) as figure:
        axes = figure.add_axes((0.08, 0.13, 0.89, 0.76))
        axes.fill_between(
            frequencies,
            figures.decibels(start, span),
            -span,
            step="mid",
            color=START_COLOUR,
            alpha=0.6,
            linewidth=0,
            label=f"start: harmonic Gaussian mixture at {f0:.2f} Hz",
        )
        axes.plot(
            frequencies,
            figures.decibels(basis.H[:, column], span),
            color=LEARNT_COLOUR,
            linewidth=1.3,
            label="learnt from the template",
        )
        axes.set(xlim=(0, HIGHEST_HZ), ylim=(-figures.DB_RANGE, 2))
        axes.set(xlabel="Frequency (Hz)", ylabel="Magnitude (dB below the peak)", title=f"Spectrum of {name}")
        axes.grid(alpha=0.3)
        axes.legend(loc="upper right", framealpha=1)


if __name__ == "__main__":
    sys.exit(main())
