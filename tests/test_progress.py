"""What is said while something takes long: one line on a terminal, nothing elsewhere, records of logging everywhere."""

import io
import logging
import time
from types import SimpleNamespace

import pytest
import torch

import emkernel as ek
from emkernel import _progress
from emkernel._progress import WIPE, hidden, working


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def terminal(monkeypatch):
    """Standard error as a terminal, and no patience."""
    monkeypatch.setattr(_progress, "PATIENCE", 0.0)
    monkeypatch.setattr(_progress, "TICK", 0.005)
    monkeypatch.setattr(_progress, "_line", _progress._Line())
    monkeypatch.setattr(_progress, "sys", SimpleNamespace(stderr=Terminal()))  # pytest puts its own into sys
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "60")
    return _progress.sys.stderr


def shown(terminal):
    """What stands on the terminal now."""
    return terminal.getvalue().split(WIPE)[-1]


def wait_for(condition):
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def test_the_outermost_and_the_innermost_task_are_named(terminal):
    with working("outer"):
        wait_for(lambda: shown(terminal) == "outer [0:00]")
        with working("between"), working("inner") as say:
            wait_for(lambda: shown(terminal) == "outer: inner [0:00]")
            say("2 of 3")
            wait_for(lambda: shown(terminal) == "outer: 2 of 3 [0:00]")
        wait_for(lambda: shown(terminal) == "outer [0:00]")
    assert shown(terminal) == "" and "\n" not in terminal.getvalue()


def test_the_line_fits_the_terminal(terminal):
    with working("x" * 100):
        wait_for(lambda: "x" in shown(terminal))
        assert len(shown(terminal)) == 59 and shown(terminal).endswith("x… [0:00]")


def test_an_error_leaves_no_line(terminal):
    with pytest.raises(ZeroDivisionError), working("division"):
        wait_for(lambda: "division" in shown(terminal))
        1 / 0  # noqa: B018
    assert shown(terminal) == ""


def test_what_is_over_soon_is_not_shown(terminal, monkeypatch):
    monkeypatch.setattr(_progress, "PATIENCE", 1e9)
    with working("short"):
        time.sleep(0.05)
    assert terminal.getvalue() == ""


def test_many_short_tasks_in_a_row_are_a_long_one(terminal, monkeypatch):
    monkeypatch.setattr(_progress, "PATIENCE", 0.1)

    def step():
        with working("step"):
            time.sleep(0.01)
        return "step" in terminal.getvalue()

    wait_for(step)


def test_nothing_is_shown_where_it_is_hidden(terminal):
    with hidden(), working("secret"):
        time.sleep(0.05)
    assert terminal.getvalue() == ""


def test_nothing_is_shown_where_there_is_no_terminal(terminal):
    _progress.sys.stderr = file = io.StringIO()
    with working("unseen"):
        time.sleep(0.05)
    assert file.getvalue() == ""
    _progress.sys.stderr = None
    with working("unseen"):
        time.sleep(0.05)


def test_a_terminal_that_goes_away_does_no_harm(terminal):
    with working("seen"):
        wait_for(lambda: "seen" in shown(terminal))
        terminal.close()
        time.sleep(0.05)


def test_what_took_long_is_logged(caplog, monkeypatch):
    caplog.set_level(logging.DEBUG, "emkernel")
    with working("short"):
        pass
    monkeypatch.setattr(_progress, "PATIENCE", 0.0)
    with working("long"):
        pass
    assert [(r.levelname, r.name, r.message[:6]) for r in caplog.records] == [
        ("DEBUG", "emkernel.progress", "short:"),
        ("INFO", "emkernel.progress", "long: "),
    ]


def test_solves_say_what_they_do(terminal, monkeypatch, tmp_path, caplog):
    monkeypatch.setenv("EMKERNEL_STORE", str(tmp_path))
    caplog.set_level(logging.DEBUG, "emkernel")
    c, s = 0.28, 0.96
    G = ek.MatrixGroup("unheard of", lie_algebra=[[[0, -s, 0], [s, 0, -c], [0, c, 0]]])
    ek.irreps(G, 2)
    assert "irreducibles of unheard of in products of 2 vectors" in caplog.text
    assert "solving intertwiners of dimensions" in caplog.text


def test_a_check_names_its_sections(terminal, monkeypatch):
    monkeypatch.setattr(_progress, "TICK", 0.0)
    ek.check_group(ek.groups.D(4))
    assert "checking D(4), " in terminal.getvalue() and shown(terminal) == ""


def test_a_clock():
    assert [_progress.clock(s) for s in (0, 61.9, 3723)] == ["0:00", "1:01", "1:02:03"]


@pytest.mark.parametrize("progress", [True, False])
def test_training_says_how_far_it_is(terminal, tmp_path, progress, caplog):
    pytest.importorskip("lightning.pytorch")
    from emkernel.train import RunConfig, train

    caplog.set_level(logging.INFO, "emkernel.train")
    config = RunConfig("nbody", epochs=2, n_train=16, batch_size=8, model={"channels": 2, "layers": 1, "width": 2})
    state = torch.random.get_rng_state()
    train(ek.groups.Cz(2), config, tmp_path / "run", progress=progress)
    torch.random.set_rng_state(state)
    said = terminal.getvalue()
    assert ("epoch 1 of 2, step 1 of 2" in said) == progress
    assert shown(terminal) == "" and "\n" not in said
    assert [r.message.split(":")[0] for r in caplog.records] == ["epoch 1 of 2", "epoch 2 of 2"]
