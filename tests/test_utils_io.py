"""Reading and writing arrays, deciding where a run ends, and drawing its learning curve."""

import importlib
import io
import os

import numpy as np
import pytest

import utils
from piano import blocks

pytestmark = pytest.mark.same_everywhere("files, and numbers that are compared with one another")


def npy(array, **options):
    """Bytes of a ``.npy`` file."""
    file = io.BytesIO()
    np.lib.format.write_array(file, array, **options)
    return file.getvalue()


def header(shape):
    """Bytes of a ``.npy`` header that says ``shape``."""
    text = f"{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}}}\n".encode()
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text


class Trap:
    """Leaves a mark where it is unpickled."""

    def __reduce__(self):
        return os.mkdir, ("unpickled",)


WHOLE = npy(np.ones((5, 4), np.float32))
np.savez(NPZ := io.BytesIO(), a=np.ones((3, 2)))
NO_HEADER = "no readable .npy header"
UNREADABLE = {
    "nothing in it": (b"", NO_HEADER),
    "text": (b"0.5 0.25\n0.1 0.3\n", NO_HEADER),
    "npz": (NPZ.getvalue(), NO_HEADER),
    "pickled array": (npy(np.array([[Trap()]], dtype=object)), "an array of object"),
    "cut in the data": (WHOLE[:-1], "79 bytes of data, expected 80"),
    "more than the data": (WHOLE + b"\0", "81 bytes of data, expected 80"),
    "header of more than 2^64": (header("(2**62, 2**62)".replace("2**62", str(2**62))), "0 bytes of data, expected"),
    "header with code": (header("(__import__('os').mkdir('x'), 1)"), NO_HEADER),
    "header too deep": (header("(" * 9000 + ")" * 9000), NO_HEADER),
    "header cut short": (b"\x93NUMPY\x02\x00\xff\xff\xff\xff{'descr'", NO_HEADER),
    "negative shape": (header("(-2, -1)") + bytes(16), r"an array of shape \(-2, -1\)"),
    "unknown version": (WHOLE[:6] + b"\x09\x00" + WHOLE[8:], NO_HEADER),
    "1-D": (npy(np.ones(4)), r"an array of shape \(4,\), expected two axes"),
    "no bins": (npy(np.ones((0, 4))), r"an array of shape \(.*neither empty"),
    "whole numbers": (npy(np.ones((3, 2), int)), "an array of int64, expected float or complex"),
    "words": (npy(np.array([["a", "b"]])), "an array of <U1"),
    "long doubles": (npy(np.ones((3, 2), np.longdouble)), "an array of (float128|longdouble)"),
}


@pytest.mark.parametrize(("content", "message"), UNREADABLE.values(), ids=UNREADABLE)
def test_a_file_that_is_no_array_of_numbers_is_named(tmp_path, monkeypatch, content, message):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "array.npy"
    path.write_bytes(content)
    for load in (utils.load_spectrogram, utils.load_basis):
        with pytest.raises(utils.InputError, match=f"array.npy: got {message}") as error:
            load(path)
        assert "expected" in str(error.value)
    assert os.listdir(tmp_path) == ["array.npy"]  # nothing was unpickled or run


@pytest.mark.parametrize("dtype", ["<f4", ">f4", "<f8", ">f8", "<c8", ">c8", "<c16"])
@pytest.mark.parametrize(("order", "version"), [("C", (1, 0)), ("F", (1, 0)), ("C", (2, 0))])
@pytest.mark.filterwarnings("ignore:Stored array in format 2.0")
def test_a_spectrogram_is_read_as_it_was_saved(tmp_path, rng, dtype, order, version):
    Y = np.asarray(rng.random((6, 5)), dtype=dtype, order=order)
    (tmp_path / "Y.npy").write_bytes(npy(Y, version=version))
    got = utils.load_spectrogram(tmp_path / "Y.npy")
    assert got.dtype == Y.dtype.newbyteorder("=")
    np.testing.assert_array_equal(got.Y, Y)
    pieces = list(blocks.frame_blocks(got.Y, 2))
    assert [(frames.start, frames.stop) for frames, _ in pieces] == [(0, 2), (2, 4), (4, 5)]
    np.testing.assert_array_equal(np.concatenate([block for _, block in pieces], axis=1), Y)
    whole = np.abs(Y.astype(complex))
    assert got.energy * got.unit**2 == pytest.approx(np.sum(whole**2), rel=1e-12)
    assert got.loudness * got.unit == pytest.approx(whole.sum(axis=0), rel=1e-6)  # a float32 sum where Y is
    assert got.unit / 2 <= whole.max() <= got.unit
    np.testing.assert_array_equal(got.at(slice(1, 4)).read() * got.unit, Y[:, 1:4])


def test_the_level_of_a_spectrogram_is_that_of_all_its_blocks(rng):
    """A soft block counts by its own level, beside one that is a thousand times louder."""
    Y = rng.random((4, 2 * utils.EUCLIDEAN_BLOCK))
    Y[:, utils.EUCLIDEAN_BLOCK :] *= 1000
    got = utils.spectrogram(Y)
    assert got.energy * got.unit**2 == pytest.approx(np.sum(Y**2), rel=1e-12)
    np.testing.assert_allclose(got.loudness * got.unit, Y.sum(axis=0), rtol=1e-12)


CURVE = np.array([8.0, 4.0, 3.0, 2.9, 2.9, 1.0])


def test_a_run_ends_at_the_first_of_its_reasons():
    for thr, tol, expected in (
        (None, None, (6, "number of iterations")),
        (0.3, None, (4, "threshold")),  # 3 / 10 is not below 0.3
        (0.9, None, (1, "threshold")),
        (0.2, None, (6, "threshold")),  # also at the last iteration there is
        (0.05, None, (6, "number of iterations")),
        (None, 0.1, (4, "tolerance")),
        (None, 0.25, (4, "tolerance")),  # from 4 to 3 is a quarter, and not less than it
        (None, 0.0, (6, "number of iterations")),  # no decrease is less than none
        (0.3, 0.3, (3, "tolerance")),
        (0.5, 0.3, (2, "threshold")),
        (0.295, 0.05, (4, "threshold")),  # at one iteration
        (0.0, 0.0, (6, "number of iterations")),
    ):
        assert utils.stopping_iteration(CURVE, CURVE / 10, thr, tol) == expected, (thr, tol)


@pytest.mark.parametrize(
    ("command", "tol"),
    [("NMF --loss=kullback-leibler", 0.002), ("CNMF --no-phase", 0.002), ("CNMF --phase-init=random", 0.02)],
)
def test_a_run_that_is_stopped_is_one_of_fewer_iterations(tmp_path, monkeypatch, drawn, rng, command, tol):
    monkeypatch.chdir(tmp_path)
    np.save("spec.npy", rng.standard_normal((33, 12)) + 1j * rng.standard_normal((33, 12)))
    np.save("basis.npy", rng.random((33, 5)))
    script, option = command.split()
    main = importlib.import_module(script).main

    def run(n_iter, *options):
        main(["spec.npy", str(n_iter), "basis.npy", option, "-o", "out", "--quiet", *options])
        return [np.load(tmp_path / "out" / f"{name}.npy") for name in ("activation_calc", "cost")]

    U, cost = run(200, "--tol", str(tol))
    falls = (cost[:-1] - cost[1:]) / cost[:-1]
    assert len(falls) > 1
    assert falls[-1] < tol <= falls[:-1].min()
    for found, expected in zip(run(len(cost)), (U, cost), strict=True):
        np.testing.assert_array_equal(found, expected)


COSTS = [0.9, 0.3, 0.1], [0.7], 1 / np.arange(1.0, 41), 1 / np.arange(1.0, 42), [0.0, 0.0], [0.4, 0.0]


@pytest.mark.parametrize("cost", COSTS, ids=map(len, COSTS))
def test_the_learning_curve_is_drawn_with_its_stop(tmp_path, drawn, cost):
    utils.plot_learning_curve(tmp_path / "curve.png", np.array(cost), "threshold")
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")
    drawn["curve.png"].draw_without_rendering()
    (axes,) = drawn["curve.png"].axes
    curve, stop = axes.lines
    np.testing.assert_array_equal(curve.get_xydata(), np.column_stack([np.arange(1, len(cost) + 1), cost]))
    np.testing.assert_array_equal(stop.get_xydata(), [[len(cost), cost[-1]]])
    assert curve.get_marker() == ("o" if len(cost) <= 40 else "None")
    assert stop.get_marker() not in (curve.get_marker(), "None")
    assert all(tick == round(tick) for tick in axes.get_xticks())
    assert f"stopped at {len(cost)} by the threshold" in axes.get_legend().get_texts()[0].get_text()
    assert axes.get_yscale() == ("log" if np.all(cost) else "linear")
    assert axes.get_xlabel()
    assert axes.get_ylabel()
