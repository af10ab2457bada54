from threading import Event, get_ident

import pytest

from cfseg.io.behind import WriteBehind


def test_pieces_go_on_beside_the_next_and_in_their_order() -> None:
    behind, may_end, done = WriteBehind(), Event(), []

    def first() -> None:
        assert may_end.wait(10)
        done.append(("first", get_ident()))

    behind.hand_over(first, 7)
    assert done == []  # it goes on; here is time for something else
    assert behind.held_bytes == 7
    may_end.set()
    behind.hand_over(lambda: done.append(("second", get_ident())))
    assert done[0][0] == "first"  # handing over waits for the one before
    behind.wait()
    assert [name for name, _ in done] == ["first", "second"]
    assert get_ident() not in {thread for _, thread in done}
    assert behind.held_bytes == 0
    behind.wait()  # nothing is left to wait for


def test_a_stop_while_waiting_loses_no_piece(monkeypatch) -> None:
    behind, may_end, done = WriteBehind(), Event(), []
    behind.hand_over(lambda: (may_end.wait(10), done.append("first")))
    last = behind._last
    real = last.join

    def stopped() -> None:
        monkeypatch.setattr(last, "join", real)
        raise KeyboardInterrupt

    monkeypatch.setattr(last, "join", stopped)
    # The new thread joins as ever; the main one meets the signal.
    monkeypatch.setattr("cfseg.io.behind._after", lambda before, work: (real(), work()))
    with pytest.raises(KeyboardInterrupt):
        behind.hand_over(lambda: done.append("second"))
    may_end.set()
    behind.wait()
    assert done == ["first", "second"]
