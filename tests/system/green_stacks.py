"""Judges the stacks of greenrt by the names on them (tests/targets/greenrt/work.c): n_0_3_1 is called by n_0_3 or by itself and by nobody else,
and a whole stack ends in n_0, which green_work, green_main and green_first called in turn."""
from collections import Counter

from pprof_file import frame_names

ROOT = ["n_0", "green_work", "green_main", "green_first"]
# The trampoline lies right behind green_restore, which calls nobody: seen as a caller it is a trampoline's entry.
NEVER = ("green_trampoline",)
NEVER_A_CALLER = ("green_trampoline", "green_restore")
LOCKED = ("foreign_locked", "user_locked", "system_only")


def may_call(caller, callee):
    return caller == callee or caller == callee.rsplit("_", 1)[0]


def user_frames(sample):
    """One name for each frame: of the function that has it, not of those that were inlined into it."""
    return tuple(frame_names(x)[-1] for x in sample.locations if not (x.mapping and x.mapping.filename.startswith("[kernel")))


def judge(stack):
    """What a stack is, or what is wrong with it (illegal: ..., trampoline). unframed: by frame pointers alone the caller of a leaf is missed while
    the leaf has not made its frame record yet, or has given it up; with it, the stack is right. cut: right as far as it goes."""
    verdict = judge_frames(stack)
    if verdict.startswith("illegal") and stack[0].startswith("n_0"):
        caller = stack[0].rsplit("_", 1)[0] if stack[0] != "n_0" else "green_work"
        if judge_frames((stack[0], caller, *stack[1:])) == "whole":
            return "unframed"
    return verdict


def judge_frames(stack):
    if not stack:
        return "kernel"
    if any(name in NEVER for name in stack) or any(name in NEVER_A_CALLER for name in stack[1:]):
        return "trampoline"
    nodes = [name for name in stack if name.startswith("n_0")]
    for callee, caller in zip(nodes, nodes[1:]):
        if not may_call(caller, callee):
            return f"illegal: {caller} calls {callee}"
    if list(stack[-4:]) == ROOT:
        return "whole"
    if len(stack) == 2 and stack[1] in ("[System]", "[GC]"):
        return "two_frames"
    if any(name in stack for name in ("green_schedule", "work")):
        return "scheduler" if not nodes else f"illegal: {nodes[-1]} on the scheduler's stack"
    if list(stack[-3:]) == ROOT[1:] or list(stack[-2:]) == ROOT[2:] or stack[-1] == ROOT[3]:
        return "whole" if not nodes else f"illegal: root {nodes[-1]}"  # between two rounds
    if not nodes and "green_first" not in stack:
        return "runtime"
    if len(nodes) == 1 and stack[-1] in ("green_on_system", "green_here"):
        return "native"
    return "cut"


class Stacks:
    """The samples of greenrt's workers in one or more profiles: kinds by judge(), leaves by function; all: those of other threads too."""

    def __init__(self, workers=()):
        self.workers = set(workers)
        self.kinds, self.leaves = Counter(), Counter()
        self.total = self.all = 0

    def add(self, profile):
        counts = Counter()
        for sample in profile.samples:
            if int(sample.labels["tid"]) in self.workers:
                counts[user_frames(sample)] += sample.values[0]
        for stack, count in counts.items():
            self.kinds[judge(stack)] += count
            if stack and stack[0].startswith("n_0"):
                self.leaves[stack[0]] += count
        self.total += sum(counts.values())
        self.all += profile.count()
        return self

    def merge(self, other):
        self.kinds.update(other.kinds)
        self.leaves.update(other.leaves)
        self.total += other.total
        self.all += other.all

    def wrong(self):
        return {kind: n for kind, n in self.kinds.items() if kind.startswith(("illegal", "trampoline"))}

    def share(self, function):
        total = sum(self.leaves.values())
        return self.leaves[function] / total if total else 0

    def describe(self):
        wrong = sum(self.wrong().values())
        trampolines = self.kinds["trampoline"]
        percent = {kind: f"{100 * self.kinds[kind] / self.total:.2f} %" for kind in ("whole", "scheduler", "runtime", "two_frames", "native", "unframed", "cut")}
        return (f"{self.total} samples of green threads: {percent}, wrong {100 * wrong / self.total:.3f} %, "
                f"of them with a trampoline on the stack {100 * trampolines / self.total:.3f} %")  # fmt: skip
