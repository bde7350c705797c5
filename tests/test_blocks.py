"""Work in pieces: one thread of BLAS in each of them, whoever does it, and the cores shared out."""

import functools
import multiprocessing
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

import utils
from piano import blocks

counted = pytest.mark.same_everywhere("counts threads and jobs")


def blas_threads(_=None):
    return {library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"}


@pytest.fixture
def three_threads():
    """Context in which BLAS may use three threads."""
    with threadpool_limits(3, user_api="blas"):
        if blas_threads() != {3}:
            pytest.skip("this BLAS does not let its threads be counted")
        yield


@counted
@pytest.mark.parametrize("workers", ["this thread", "this machine", "threads", "processes"])
def test_every_piece_has_one_thread_of_blas_whoever_does_it(workers, three_threads):
    spawn = multiprocessing.get_context("spawn")
    with ThreadPoolExecutor(2) as threads, ProcessPoolExecutor(1, mp_context=spawn) as processes:
        given = {"this thread": map, "this machine": None, "threads": threads.map, "processes": processes.map}[workers]
        assert list(blocks.each(blas_threads, range(4), given, at_once=2)) == [{1}] * 4
        assert blas_threads() == {3}


@counted
def test_the_last_to_leave_lifts_the_limit(three_threads):
    first, second = blocks.one_blas_thread(), blocks.one_blas_thread()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert blas_threads() == {1}
    second.__exit__(None, None, None)
    assert blas_threads() == {3}


@pytest.mark.parametrize(("solve", "n_frames"), [(utils.nmf, 1100), (utils.complex_nmf, 520)])  # two blocks
def test_a_map_of_ones_own_gives_the_same_bytes(solve, n_frames, rng, three_threads):
    """With three threads OpenBLAS adds up these products in another order on most processors."""
    H, Y = rng.random((513, 20)), (rng.random((513, n_frames)) + 0j).astype(np.complex64)
    expected = solve(Y, H, 3)
    with ThreadPoolExecutor(2) as threads:
        for given in (map, threads.map):
            each = functools.partial(blocks.each, map=given)
            for found, wanted in zip(solve(Y, H, 3, each=each), expected, strict=True):
                np.testing.assert_array_equal(found, wanted)


@counted
def test_jobs_are_fetched_as_they_are_done_and_come_in_order(monkeypatch):
    monkeypatch.setattr(blocks, "available_cores", lambda: blocks.core_limit.get() or 3)
    fetched = []
    jobs = (fetched.append(i) or i for i in range(8))
    done = blocks.each(lambda i: (time.sleep(0.01 * (8 - i)), i)[1], jobs, at_once=8)
    assert next(done) == 0
    assert fetched == [0, 1, 2]
    assert list(done) == list(range(1, 8))


@counted
def test_cores_without_a_job_of_their_own_help_with_the_others(monkeypatch):
    monkeypatch.setattr(blocks, "available_cores", lambda: blocks.core_limit.get() or 4)
    assert list(blocks.each(lambda _: blocks.available_cores(), range(5), at_once=8)) == [1, 1, 1, 1, 4]
