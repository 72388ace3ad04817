"""Runs inside gdb: stops a process again and again at any moment, and writes down what gdb makes of the stack of any of its threads, the registers, and the
stack itself.

    STOPS_PID=PID STOPS_N=100 STOPS_TO=FILE gdb -batch -nx -x gdb_stops.py

FILE.frames gets one line of addresses a stop, FILE what walk_stops reads. Of a core dump, FILE gets a line a thread: its number, and the addresses.

    STOPS_CORE=CORE STOPS_PROGRAM=PROGRAM STOPS_TO=FILE gdb -batch -nx -x gdb_stops.py"""
import os
import random
import signal
import struct
import threading

import gdb

REGISTERS = "rax rdx rcx rbx rsi rdi rbp rsp r8 r9 r10 r11 r12 r13 r14 r15 rip".split()
MASK = (1 << 64) - 1


def registers():
    frame = gdb.newest_frame()
    return [int(frame.read_register(name)) & MASK for name in REGISTERS]


def addresses():
    found, frame = [], gdb.newest_frame()
    while frame:
        if frame.type() not in (gdb.INLINE_FRAME, gdb.TAILCALL_FRAME):  # these are on no stack
            found.append(frame.pc())
        frame = frame.older()
    return found


def stack(pid, sp):
    for line in open(f"/proc/{pid}/maps"):
        start, end = (int(part, 16) for part in line.split()[0].split("-"))
        if start <= sp < end:
            begin = max(start, (sp - 128) & ~4095)
            with open(f"/proc/{pid}/mem", "rb") as memory:
                memory.seek(begin)
                return begin, memory.read(min(end - begin, 8 << 20))
    return sp & ~4095, b""


def stop(pid, after):
    """Lets it run on, and stops it with a signal that it does not get to see."""
    threading.Timer(after, os.kill, (pid, signal.SIGWINCH)).start()
    gdb.execute("continue", to_string=True)


def set_up():
    for setting in ("pagination off", "backtrace past-main on", "debuginfod enabled off", "auto-solib-add on", "confirm off", "print thread-events off"):
        try:
            gdb.execute(f"set {setting}")
        except gdb.error:
            pass


def of_core(core, program, to):
    gdb.execute(f"file {program}", to_string=True)
    gdb.execute(f"core-file {core}", to_string=True)
    with open(to, "w") as frames:
        for thread in gdb.selected_inferior().threads():
            thread.switch()
            frames.write(f"{thread.ptid[1]} " + " ".join(f"{pc:x}" for pc in addresses()) + "\n")


def of_process(pid, n, to):
    gdb.execute("handle all nostop noprint pass", to_string=True)
    gdb.execute("handle SIGWINCH stop print nopass", to_string=True)
    gdb.execute(f"attach {pid}", to_string=True)
    with open(to, "wb") as stops, open(to + ".frames", "w") as frames:
        for _ in range(n):
            stop(pid, random.uniform(0.001, 0.02))
            random.choice(gdb.selected_inferior().threads()).switch()
            values = registers()
            begin, memory = stack(pid, values[7])
            stops.write(struct.pack("<19Q", *values, begin, len(memory)) + memory)
            frames.write(" ".join(f"{pc:x}" for pc in addresses()) + "\n")
    gdb.execute("detach", to_string=True)


set_up()
if "STOPS_CORE" in os.environ:
    of_core(os.environ["STOPS_CORE"], os.environ["STOPS_PROGRAM"], os.environ["STOPS_TO"])
else:
    of_process(int(os.environ["STOPS_PID"]), int(os.environ["STOPS_N"]), os.environ["STOPS_TO"])
