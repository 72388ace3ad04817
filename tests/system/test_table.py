"""The barrier-lock table as the reader's rules have it (docs/BARRIER-TABLE.md, section 9): each scene of tests/targets/table_scenes holds one
thread in one state, and every sample of it must show exactly the stack, and the reason for its end, that the rules give."""
import os
import select
import signal
import subprocess
from pathlib import Path

import harness
from harness import Case, Daemon, Target, number
from pprof_file import frame_names

HZ = 3989
SAMPLES = 250
EXACT = 0.99  # of the samples: the others are of the thread's way to its place

A = ["scene_a_leaf", "scene_a_mid", "scene_a_root", "scene_stack_top"]
B = ["scene_b_leaf", "scene_b_mid", "scene_b_root", "scene_stack_top"]
C = ["scene_c_leaf", "scene_c_mid", "scene_c_root", "scene_stack_top"]
SYSTEM = ["scene_system_leaf", "scene_system_mid", "scene_system_root", "scene_native_top"]
NATIVE = ["scene_native_leaf", "scene_native_mid", "scene_native_root", "scene_native_top"]
INTO_USER = ["scene_native_leaf", "scene_native_mid", "scene_a_leaf", "scene_a_mid", "scene_a_root", "scene_stack_top"]

# scene: (stack, its end). [System] and so on are functions of that name.
STILL = {
    "user": (A, "table_root"),
    "user_barriers": (A, "table_root"),
    "user_one_barrier": (A, "table_root"),
    "user_after_a_return": (A, "table_root"),
    "user_locked": (["scene_a_leaf", "[System]"], "user_locked"),
    "user_locked_gc": (["scene_a_leaf", "[GC]"], "user_locked"),
    # code in no file is what its mapping is called, whether the runtime has told of it or not
    "user_locked_anonymous_code": (["[anon]", "[System]"], "user_locked"),
    "user_locked_managed_code": (["[anon]", "[System]"], "user_locked"),
    # 12: by the address of the slot, and nothing else
    "wrong_slot": (["scene_a_leaf", "scene_a_mid"], "barrier_mismatch"),
    "unknown_barrier": (["scene_a_leaf", "scene_a_mid"], "barrier_mismatch"),
    # 1: hi is inside
    "sp_is_hi": (["scene_alone", *B], "table_root"),
    "sp_above_hi": (["scene_alone"], "outermost"),
    "sp_is_lo": (["scene_alone", *B], "table_root"),
    "sp_below_lo": (["scene_alone"], "outermost"),
    # 13, 14: in the trampoline, wherever its sp is; no frame is the trampoline's
    "trampoline_entry": (A[1:], "table_root"),
    "trampoline_entry_advanced": (A[1:], "table_root"),
    "trampoline_pushed": (A[1:], "table_root"),
    "trampoline_pushed_advanced": (A[1:], "table_root"),
    "trampoline_fp_saved": (A[1:], "table_root"),
    "trampoline_own_fp": (A[1:], "table_root"),
    "trampoline_helper": (["scene_helper", *A[1:]], "table_root"),
    "trampoline_helper_advanced": (["scene_helper", *A[1:]], "table_root"),
    "trampoline_unknown_slot": (["[ExternalCode]", "[System]"], "barrier_mismatch"),
    "trampoline_locked": (["[ExternalCode]", "[System]"], "user_locked"),
    # 4, 5, 15
    "system_alone": (SYSTEM, "outermost"),
    "jump": (SYSTEM + A, "table_root"),
    "guard": (SYSTEM, "system_only"),
    # 2, 3
    "foreign": (SYSTEM + A, "table_root"),
    "foreign_of_b": (SYSTEM + B, "table_root"),
    "foreign_own_slot": (SYSTEM + A, "table_root"),
    "foreign_same_stack": (["scene_native_top", *A], "table_root"),
    "foreign_same_chain": (["scene_native_leaf", "scene_native_root", *A], "table_root"),
    "foreign_outside": (SYSTEM, "stack_not_trusted"),
    "foreign_stale": (SYSTEM, "stack_not_trusted"),
    "t1": (SYSTEM, "foreign_locked"),
    "t2_foreign": (SYSTEM, "foreign_locked"),
    "t3_foreign": (SYSTEM + B, "table_root"),
    # 8, 9: the leaf stands before a walk from elsewhere
    "t2_libcall": (["scene_switch", "[System]"], "sets_sp"),
    "t3_libcall": (["scene_a_leaf", *B], "table_root"),
    "t4": (["scene_switch", *A], "table_root"),
    "libcall_unused": (A, "table_root"),
    "libcall": (["scene_switch", *B], "table_root"),
    "switching": (["scene_switch", "[System]"], "sets_sp"),
    # 11
    "callback": (A, "table_root"),
    "callback_locked": (["scene_a_leaf", "[System]"], "user_locked"),
    "version_odd": (["scene_a_leaf", "[System]"], "table_switching"),
    "version_odd_barriers": (["scene_a_leaf", "[System]"], "table_switching"),
    # fibers
    "resumers": (C + B + A, "table_root"),
    "resumers_locked": (C, "resumer_locked"),
    "resumers_jump": (SYSTEM + B + A, "table_root"),
    "resumers_foreign": (SYSTEM + B + A, "table_root"),
    "resumer_stale": (C, "stack_not_trusted"),
    "resumer_of_another": (C, "stack_not_trusted"),
    # stacks that nobody told of; from one into a known one
    "native": (NATIVE, "outermost"),
    "native_into_user": (INTO_USER, "table_root"),
    "native_into_user_locked": (INTO_USER[:3], "system_only"),
    "above_into_user": (INTO_USER, "table_root"),
    # records that are not the thread's; 7
    "no_record": (A, "table_root"),
    "no_record_barriers": (["scene_a_leaf", "scene_a_mid"], "barrier_mismatch"),
    "earlier_thread": (NATIVE, "outermost"),
    "a_tick_apart": (A, "table_root"),
    "fourth_probe": (A, "table_root"),
    "user_of_another": (["scene_a_leaf", "[System]"], "stack_not_trusted"),
    "jump_to_anothers": (SYSTEM, "stack_not_trusted"),
    "foreign_of_another": (SYSTEM, "stack_not_trusted"),
    "libcall_of_another": (["scene_switch", "[System]"], "stack_not_trusted"),
    "user_stale": (["scene_a_leaf", "[System]"], "stack_not_trusted"),
}
# Part 1 and part 2, after SIGUSR1. Before a table is there a walk ends as in any program.
IN_TWO_PARTS = {
    "published_late": ((A, "outermost"), (A, "table_root")),
    "replaced": ((A, "table_root"), (B, "table_root")),
    "taken_away": ((A, "table_root"), (B, "outermost")),
    "ranges_replaced": ((A, "table_root"), (A, "table_root")),
    "exec": ((A, "table_root"), (C + B + A, "table_root")),
}
HANDLER = ["scene_handler_leaf", "on_usr2"]


def user_stack(sample):
    return [name for x in sample.locations if not (x.mapping and x.mapping.filename.startswith("[kernel"))
            for name in frame_names(x)]  # fmt: skip


def ends_of(target):
    return {end["name"]: number(end, "count") for end in target.get("stack_ends", [])}


class Scene(Target):
    def __init__(self, test, name, **more):
        super().__init__(test, "table_scenes/table_scenes", name, **more)


class Table(Case):
    @classmethod
    def setUpClass(cls):
        cls.daemon = Daemon(cls)

    def wait_for_unwind_tables(self, pid):
        """Until then walks go by frame pointers, and say so in their end."""
        seen = [-1]

        def calm():
            harness.let_run(pid, 0.02)
            now = ends_of(self.daemon.target(pid)).get("tables_not_ready", 0)
            before, seen[0] = seen[0], now
            return now == before

        harness.wait_for(calm, 20, "unwind tables")

    def sample(self, pid, hz=HZ):
        """Attaches, and returns ({user stack: count}, {end: count}) of SAMPLES samples or more."""
        self.daemon.attach(pid, hz)
        self.wait_for_unwind_tables(pid)
        stacks, ends = self.look(pid)
        harness.let_run(pid, SAMPLES / hz * 1.2)
        self.daemon.ok("detach", pid)
        target = self.daemon.settle(pid)
        self.assert_conserved(target)
        all_stacks, all_ends = self.stacks(self.daemon.pull(pid)), ends_of(target)
        self.assertEqual(sum(all_ends.values()), sum(all_stacks.values()))
        return self.grown(all_stacks, stacks), self.grown(all_ends, ends)

    @staticmethod
    def grown(new, old):
        return {key: new[key] - old.get(key, 0) for key in new if new[key] > old.get(key, 0)}

    def stacks(self, profile, tid=None):
        stacks = {}
        for s in profile.samples:
            if tid not in (None, int(s.labels["tid"])):
                continue
            key = tuple(user_stack(s))
            stacks[key] = stacks.get(key, 0) + s.values[0]
        return stacks

    def assert_no_trampoline(self, stacks):
        for stack in stacks:
            self.assertFalse([name for name in stack if "trampoline" in name], f"a trampoline leaves the profiler: {stack}")

    def assert_all(self, stacks, ends, stack, end):
        total = sum(stacks.values())
        self.assert_no_trampoline(stacks)
        self.assertGreaterEqual(total, 0.9 * SAMPLES)
        self.assertGreaterEqual(stacks.get(tuple(stack), 0), EXACT * total, f"not {stack}, {end}: {stacks}, {ends}")
        self.assertGreaterEqual(ends.get(end, 0), EXACT * sum(ends.values()), f"not {end}: {ends}, {stacks}")

    def check(self, name):
        scene = Scene(self, name)
        self.assert_all(*self.sample(scene.pid), *STILL[name])

    def test_no_scene_is_forgotten(self):
        listed = subprocess.run([harness.TARGETS / "table_scenes/table_scenes"], capture_output=True, text=True, check=True).stdout.split()
        source = Path(__file__).read_text()
        self.assertEqual([name for name in listed if f'"{name}"' not in source], [])

    def test_not_resident(self):
        """A daemon that looks at the table brings its pages back for a moment, in which they can be read."""
        scene = Scene(self, "not_resident")
        self.daemon.attach(scene.pid, HZ)
        harness.let_run(scene.pid, 0.2)
        self.daemon.ok("detach", scene.pid)
        ends = ends_of(self.daemon.settle(scene.pid))
        stacks = self.stacks(self.daemon.pull(scene.pid), scene.ready["tid"])
        away, back = stacks.pop(("scene_a_leaf", "[System]"), 0), stacks.pop(tuple(A), 0)
        self.assertEqual(stacks, {})
        self.assertGreater(away, 0.9 * (away + back), ends)
        self.assertGreaterEqual(ends.get("table_not_resident", 0), away)

    def test_ten_thousand(self):
        """Each with a record of its own."""
        scene = Scene(self, "ten_thousand")
        harness.wait_for(lambda: self.daemon.ctl("attach", scene.pid, f"--frequency={HZ}").returncode == 0, 60, "10,000 threads armed")
        harness.let_run(scene.pid, SAMPLES / HZ * 1.2)
        self.daemon.ok("detach", scene.pid)
        ends = ends_of(self.daemon.settle(scene.pid))
        self.assert_all(self.stacks(self.daemon.pull(scene.pid)), ends, A, "table_root")

    def test_a_loop_of_resumers(self):
        """Ends, with a name; what it shows is right as far as it goes."""
        stacks, ends = self.sample(Scene(self, "resumer_loop").pid)
        (stack, count) = max(stacks.items(), key=lambda item: item[1])
        self.assertGreaterEqual(count, EXACT * sum(stacks.values()))
        self.assertEqual(list(stack), ((C + B) * len(stack))[: len(stack)])
        self.assertGreaterEqual(len(stack), 2 * len(C))
        self.assertGreaterEqual(ends.get("too_many_stacks", 0), EXACT * sum(ends.values()), ends)

    def assert_never_mixed(self, name, before, wholes, must_change):
        """Each stack is `before` and then nothing, or one of wholes. Both happen, or nothing was tried."""
        scene = Scene(self, name)
        self.daemon.attach(scene.pid, HZ)
        harness.let_run(scene.pid, 0.8)
        self.daemon.ok("detach", scene.pid)
        ends = ends_of(self.daemon.settle(scene.pid))
        stacks = self.stacks(self.daemon.pull(scene.pid), scene.ready["tid"])
        whole = [stacks.pop(tuple(stack), 0) for stack in wholes]
        cut = sum(stacks.pop(tuple(stack), 0) for stack in before)
        self.assertEqual(stacks, {}, f"stacks that never were; {ends}")
        for stack, count in zip(wholes, whole):
            self.assertGreater(count, 0, f"never seen: {stack[-2:]}; {ends}, {whole}, {cut}")
        self.assertGreater(cut, 0, f"nothing was refused: {ends}")
        for end in must_change:
            self.assertGreater(ends.get(end, 0), 0, ends)

    def deep(self, function):
        return ["scene_caller", *[function] * 39, "scene_stack_top"]

    def wholes(self, before=()):
        return [[*before, *self.deep("scene_first")], [*before, *self.deep("scene_second")]]

    def test_t5_the_reference_changes(self):
        """What is re-checked is what was taken: while the reference is to b, a changes."""
        switching = ["scene_system_leaf", "[System]"]
        self.assert_never_mixed("t5", [SYSTEM, switching], [*self.wholes(SYSTEM), SYSTEM + self.deep("scene_b_mid")], ["stack_changed"])

    def test_a_foreign_stack_changes(self):
        self.assert_never_mixed("foreign_changes", [SYSTEM], self.wholes(SYSTEM), ["foreign_locked", "stack_changed"])

    def test_a_stack_that_is_jumped_to_changes(self):
        """16: back to the jump."""
        self.assert_never_mixed("jump_changes", [SYSTEM], self.wholes(SYSTEM), ["system_only", "stack_changed"])

    def test_the_user_stack_changes(self):
        wholes = [["scene_a_leaf", *whole[1:]] for whole in self.wholes()]
        self.assert_never_mixed("user_changes", [["scene_a_leaf", "[System]"]], wholes, ["user_locked", "stack_changed"])

    def test_a_resumer_changes(self):
        self.assert_never_mixed("resumer_changes", [C], self.wholes(C), ["stack_changed"])

    def look(self, pid):
        ends = ends_of(self.daemon.settle(pid, gone=False))
        return self.stacks(self.daemon.pull(pid)), ends

    def assert_mostly(self, stack, end, before, after):
        """Of what came in between."""
        self.assert_no_trampoline({k for k in after[0] if after[0][k] > before[0].get(k, 0)})
        for key, old, new in ((tuple(stack), before[0], after[0]), (end, before[1], after[1])):
            grown = self.grown(new, old)
            self.assertGreater(sum(grown.values()), SAMPLES)
            self.assertGreaterEqual(grown.get(key, 0), EXACT * sum(grown.values()), f"not {key}: {grown}")

    def check_parts(self, name):
        first, second = IN_TWO_PARTS[name]
        scene = Scene(self, name)
        self.daemon.attach(scene.pid, HZ)
        self.wait_for_unwind_tables(scene.pid)
        before = self.look(scene.pid)
        harness.let_run(scene.pid, 0.1)
        self.assert_mostly(*first, before, self.look(scene.pid))
        scene.signal(signal.SIGUSR1)
        scene.line()
        harness.let_run(scene.pid, 0.3)  # what has changed is seen by and by
        self.wait_for_unwind_tables(scene.pid)
        before = self.look(scene.pid)
        harness.let_run(scene.pid, 0.1)
        self.assert_mostly(*second, before, self.look(scene.pid))

    def test_ranges_are_never_old(self):
        """From the moment on that they change no sample is walked by those of before."""
        scene = Scene(self, "ranges_replaced")
        self.daemon.attach(scene.pid, HZ)
        harness.let_run(scene.pid, 0.1)
        scene.signal(signal.SIGUSR1)
        scene.line()
        harness.let_run(scene.pid, 0.3)
        ends = ends_of(self.daemon.settle(scene.pid, gone=False))
        self.assert_no_trampoline(self.stacks(self.daemon.pull(scene.pid)))
        self.assertGreater(ends.get("table_changed", 0), 0, f"nothing was seen of the change: {ends}")

    def test_exec_of_a_program_without_table(self):
        """It is native at once, before a daemon has learned of it: here one that is stopped meanwhile. (While the kernel takes down the memory
        of the program before, the thread has the new one's memory and still the old one's identity: a millisecond or two.)"""
        scene = Scene(self, "exec_native")
        self.daemon.attach(scene.pid, HZ)
        harness.let_run(scene.pid, 0.1)
        os.kill(self.daemon.pid(), signal.SIGSTOP)
        try:
            scene.signal(signal.SIGUSR1)
            scene.line()
            harness.let_run(scene.pid, 0.2)
        finally:
            os.kill(self.daemon.pid(), signal.SIGCONT)
        ends = ends_of(self.daemon.settle(scene.pid, gone=False))
        self.assertGreater(ends.get("table_root", 0), SAMPLES, f"before: {ends}")
        self.assertGreater(ends.get("outermost", 0) + ends.get("tables_not_ready", 0) + ends.get("root", 0), SAMPLES, f"after: {ends}")
        self.assertLess(ends.get("table_not_resident", 0), 50, ends)

    def test_fork(self):
        """The child has a copy of the table, and is profiled as itself."""
        child = Scene(self, "fork_child").ready["child"]
        self.assert_all(*self.sample(child), A, "table_root")

    def test_vfork(self):
        """The child is not the process whose table it sees: up to the first trampoline, and no further."""
        child = Scene(self, "vfork_child").ready["child"]
        self.assert_all(*self.sample(child), ["scene_a_leaf", "scene_a_mid"], "table_foreign_process")

    def in_namespaces(self, *options):
        process = subprocess.Popen(
            ["unshare", *options, "--fork", "--kill-child", harness.TARGETS / "table_scenes/table_scenes", "user_barriers"],
            stdout=subprocess.PIPE)  # fmt: skip
        self.addCleanup(harness.end, process)
        self.assertTrue(select.select([process.stdout], [], [], 10)[0])
        self.assertIn(b"ready", process.stdout.readline())
        (child,) = harness.children_of(process.pid)
        return child

    def test_in_a_pid_namespace(self):
        self.assert_all(*self.sample(self.in_namespaces("--pid")), A, "table_root")

    def test_in_a_time_namespace(self):
        """Where the process takes the machine's start for another time than the profiler."""
        self.assert_all(*self.sample(self.in_namespaces("--pid", "--time", "--boottime=86400")), A, "table_root")

    def check_signal(self, name, wholes, end):
        scene = Scene(self, name)
        scene.signal(signal.SIGUSR1)
        self.assertEqual(scene.line(), {"part": 2})
        stacks, ends = self.sample(scene.pid)
        # glibc names the function that a handler returns to or not (then it is told by where it begins); it stands between the handler and what was interrupted.
        found = {}
        for stack, count in stacks.items():
            key = tuple(name for name in stack if "restore_rt" not in name and not name.endswith("+unnamed") and "+0x" not in name)
            found[key] = found.get(key, 0) + count
        self.assertGreaterEqual(sum(found.get(tuple(whole), 0) for whole in wholes), EXACT * sum(found.values()), f"{stacks}, {ends}")
        self.assertGreaterEqual(ends.get(end, 0), EXACT * sum(ends.values()), ends)

    def test_signal_on_a_stack_below(self):
        self.check_signal("signal_below", [HANDLER + A[1:], HANDLER + A], "table_root")

    def test_signal_on_a_stack_above(self):
        self.check_signal("signal_above", [HANDLER + A[1:], HANDLER + A], "table_root")

    def test_signal_over_a_held_stack(self):
        self.check_signal("signal_locked", [HANDLER], "system_only")


def add_tests(names, check):
    for name in names:
        setattr(Table, f"test_{name}", lambda self, name=name: getattr(self, check)(name))


add_tests(STILL, "check")
add_tests(IN_TWO_PARTS, "check_parts")

if __name__ == "__main__":
    harness.main()
