"""The time left: from guesses first, then from how fast the run has been."""

from __future__ import annotations

import sys

import pytest

from nnunet_nacl.demo.time_left import ProgressBar, Work, remaining_seconds


def test_guesses_add_up_over_waves_and_the_slowest_job_counts():
    waves = [[[Work(10, 2.0)], [Work(10, 1.0), Work(1, 5.0)]], [[Work(1, 3.0)]]]
    assert remaining_seconds(waves) == 20 + 3


def test_what_was_done_so_far_tells_how_fast_the_rest_goes():
    done, later = Work(10, 2.0), Work(1, 7.0)
    done.reach(5)  # 10 s of guessed work, in three times as long
    assert remaining_seconds([[[done]], [[later]]], elapsed_s=30.0) == pytest.approx(3 * (5 * 2 + 7))


def test_what_an_earlier_run_did_says_nothing_of_the_speed():
    work = Work(20, 5.0)
    work.skip(10)
    work.reach(12)
    assert remaining_seconds([[[work]]], elapsed_s=20.0) == pytest.approx(8 * 5.0 * 2)
    work.skip()
    assert (work.done, work.skipped) == (20, 18)


def test_progress_never_goes_back_nor_beyond_the_end():
    work = Work(10, 1.0)
    work.reach(4)
    work.reach(2)
    assert work.done == 4
    work.reach(99)
    assert work.done == 10


def test_nothing_left_is_no_time():
    assert remaining_seconds([]) == 0
    assert remaining_seconds([[[]], []]) == 0


@pytest.mark.parametrize("terminal", [False, True])
def test_the_bar_shows_the_time_left_and_keeps_lines_apart(capsys, monkeypatch, terminal):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal)
    with ProgressBar([[[Work(600, 1.0)]]]) as bar:
        bar.describe("training")
        bar.write("$ nnUNetv2_train")
    captured = capsys.readouterr()
    assert captured.out == "$ nnUNetv2_train\n"
    assert "about 10 min left" in captured.err and "training" in captured.err


def test_it_can_be_silent(capsys):
    with ProgressBar([[[Work(600, 1.0)]]], show=False) as bar:
        bar.describe("training")
        bar.write("a line")
    assert capsys.readouterr() == ("a line\n", "")
