import threading

from lab.cloud.tasks import Tasks


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def wait_for(tasks, key):
    tasks._running[key].result(2)


def test_one_piece_of_work_at_a_time():
    tasks, started, go_on = Tasks(lambda *_: None), [], threading.Event()

    def work():
        started.append(1)
        go_on.wait(2)

    tasks.submit("i-1", work)
    tasks.submit("i-1", work)
    go_on.set()
    wait_for(tasks, "i-1")
    tasks.close(wait=True)
    assert started == [1]


def test_a_failure_is_logged_once_and_tried_again_later():
    clock, log, tries = Clock(), [], []
    tasks = Tasks(lambda key, text: log.append((key, text)), clock)

    def fail():
        tries.append(clock.now)
        raise OSError("no engine")

    for clock.now in (0.0, 0.3, 0.6, 0.9, 1.7, 2.0):
        tasks.submit("i-1", fail)
        wait_for(tasks, "i-1")
    assert tries == [0.0, 0.6, 1.7]
    assert log == [("i-1", "no engine")]
    assert tasks.error("i-1") == "no engine"
    clock.now = 60.0
    tasks.submit("i-1", lambda: None)
    wait_for(tasks, "i-1")
    assert log[1:] == [("i-1", "works again")]
    assert tasks.error("i-1") is None
    tasks.close(wait=True)


def test_one_object_does_not_hold_up_another():
    tasks = Tasks(lambda *_: None)
    done: list[str] = []

    def fail():
        raise OSError

    tasks.submit("i-1", fail)
    tasks.submit("i-2", done.append, "i-2")
    wait_for(tasks, "i-2")
    tasks.close(wait=True)
    assert done == ["i-2"]
