"""A Python program whose stacks are known: each way of calling ends in burn(), which asks the interpreter for its callers (sys._getframe), and burns CPU
time. Says {"ready": PID}; when it is ended, for each stack of callers how much CPU time it had: {"stacks": [[[[function, line], ...], ns], ...],
"threads": {tid: ns}}. Innermost first, burn() left out.

    scenes.py [once|threads|SCENE ...]"""
import functools
import json
import os
import signal
import sys
import threading
import time

BURN_NS = 4_000_000
stacks, threads, over = {}, {}, False


def burn():
    begin_ns = time.thread_time_ns()
    key, frame = [], sys._getframe(1)
    while frame:
        key.append((frame.f_code.co_qualname, frame.f_lineno))
        frame = frame.f_back
    while time.thread_time_ns() < begin_ns + BURN_NS:
        pass
    key = tuple(key)
    stacks[key] = stacks.get(key, 0) + time.thread_time_ns() - begin_ns


def plain():
    burn()


class Thing:
    def __init__(self, at_once=True):
        if at_once:
            burn()

    def method(self):
        burn()

    def __lt__(self, other):
        burn()
        return True

    def __getattr__(self, name):
        burn()
        return name

    @property
    def value(self):
        return burn()

    @staticmethod
    def static():
        burn()


def closure():
    def inner():
        burn()

    inner()


def constructed():
    Thing()


def methods():
    thing = Thing(False)
    thing.method()
    thing.static()
    thing.value
    thing.anything


def from_c():
    sorted([2, 1], key=lambda x: burn() or x)
    list(map(lambda x: burn(), [1]))
    min(Thing(False), Thing(False))
    functools.partial(plain)()


def nested_from_c(depth=5):
    if depth:
        next(map(nested_from_c, [depth - 1]))
    else:
        burn()


def generator():
    yield burn()
    yield from inner_generator()


def inner_generator():
    yield burn()


def generators():
    for _ in generator():
        burn()
    sum(burn() or 1 for _ in range(1))


async def inner_coroutine():
    burn()


async def coroutine():
    await inner_coroutine()
    burn()


def coroutines():
    try:
        coroutine().send(None)
    except StopIteration:
        pass


def recursive(depth=60):
    if depth:
        recursive(depth - 1)
    else:
        burn()


def deep():
    recursive(700)


def comprehension():
    return [burn() for _ in range(1)]


def handler():
    try:
        raise ValueError
    except ValueError:
        burn()
    finally:
        burn()


def evaluated():
    """Code that is made, runs once, and is gone: its addresses are used again."""
    evaluated.n += 1
    exec(f"def made_{evaluated.n % 50}():\n    burn()\nmade_{evaluated.n % 50}()", {"burn": burn})


evaluated.n = 0


def named_in_many_scripts():
    ünï_名前()
    globals()["𐌰𐌱"]()


def ünï_名前():
    burn()


exec("def 𐌰𐌱():\n    burn()")

SCENES = [plain, closure, constructed, methods, from_c, nested_from_c, generators, coroutines, recursive, comprehension, handler, evaluated,
          named_in_many_scripts]  # fmt: skip
OTHERS = [deep]


def rotate(scenes):
    while not over:
        for scene in scenes:
            scene()


def own_loop():
    threads[threading.get_native_id()] = 0
    while not over:
        plain()
    threads[threading.get_native_id()] = time.thread_time_ns()


def run_threads():
    started = [threading.Thread(target=own_loop) for _ in range(4)]
    for thread in started:
        thread.start()
    for thread in started:
        thread.join()


def end(*_):
    global over
    over = True


def main():
    signal.signal(signal.SIGTERM, end)
    print(json.dumps({"ready": os.getpid()}), flush=True)
    if sys.argv[1:] == ["threads"]:
        run_threads()
    else:
        rotate([scene for scene in SCENES + OTHERS if scene.__name__ in sys.argv[1:]] or SCENES)
    print(json.dumps({"stacks": list(stacks.items()), "threads": threads}), flush=True)


if __name__ == "__main__":
    main()
