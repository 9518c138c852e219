"""The time left: from guesses first, then from what was measured."""

from __future__ import annotations

import sys

import pytest

from nnunet_nacl.demo.progress import ProgressBar, Work, remaining_seconds


def test_guesses_add_up_over_waves_and_the_slowest_job_counts():
    waves = [[[Work("a", 10, 2.0)], [Work("a", 10, 1.0), Work("b", 1, 5.0)]], [[Work("a", 1, 3.0)]]]
    assert remaining_seconds(waves) == 20 + 3


def test_what_was_measured_replaces_the_guess_of_its_kind():
    done, later, other = Work("epoch", 10, 1.0), Work("epoch", 4, 2.0), Work("validation", 1, 7.0)
    done.start(now=100.0)
    done.reach(5, now=115.0)  # three times as long as guessed
    assert remaining_seconds([[[done]], [[later]], [[other]]]) == pytest.approx(5 * 3 + 4 * 6 + 7)


def test_what_an_earlier_run_did_is_not_timed():
    work = Work("epoch", 10, 1.0)
    work.skip(6)
    work.start(now=0.0)
    work.reach(8, now=4.0)
    assert (work.measured, work.seconds) == (2, 4.0)
    assert remaining_seconds([[[work]]]) == pytest.approx(4.0)


def test_progress_never_goes_back_nor_beyond_the_end():
    work = Work("epoch", 10, 1.0)
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
    with ProgressBar([[[Work("epoch", 600, 1.0)]]]) as bar:
        bar.describe("training")
        bar.write("$ nnUNetv2_train")
    captured = capsys.readouterr()
    assert captured.out == "$ nnUNetv2_train\n"
    assert "about 10 min left" in captured.err and "training" in captured.err


def test_it_can_be_silent(capsys):
    with ProgressBar([[[Work("epoch", 600, 1.0)]]], show=False) as bar:
        bar.describe("training")
        bar.write("a line")
    assert capsys.readouterr() == ("a line\n", "")
