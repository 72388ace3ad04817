"""libsprof-preload in programs that nobody here wrote: PowerDNS Recursor (Boost.Context), qemu-img (makecontext, then siglongjmp), an example of
Boost.Coroutine whose coroutines resume one another. A fiber's frames are followed by those of whoever resumed it, down to _start. Who that can
be is known from the programs' sources."""
import os
import socket
import struct
import subprocess
import tempfile
import threading
import time
import unittest
from collections import Counter
from pathlib import Path

import harness
from green_stacks import user_frames
from harness import Case, Daemon, number

PRELOAD = harness.BUILD / "client/preload/libsprof-preload.so"
EXAMPLES = Path("/usr/share/doc/libboost1.74-doc/examples/libs")
HZ = 4000
SECONDS = 3
# In the middle of a switch, or of what the table says of it; and Boost's make_fcontext, which has no unwind information.
SWITCHING = ("sets_sp", "table_switching")
UNKNOWN = ("no_unwind_info", "bad_frame", "bad_return_address")


class Preload(Case):
    def start(self, argv, preload=True, **more):
        environment = {**os.environ, **({"LD_PRELOAD": str(PRELOAD)} if preload else {})}
        process = subprocess.Popen(
            list(map(str, argv)), env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **more)  # fmt: skip
        self.addCleanup(harness.end, process)
        return process

    def ends(self, daemon, pid):
        return {end["name"]: number(end, "count") for end in daemon.target(pid).get("stack_ends", [])}

    def profile(self, process, ready=lambda: True, seconds=SECONDS):
        """({user frames: samples}, {end: samples}) from when the unwind tables are there."""
        daemon = Daemon(self)
        harness.wait_for(ready, 30, f"{process.args} is not ready")
        harness.let_run(process.pid, 0.2)
        daemon.attach(process.pid, HZ)
        time.sleep(1)
        before = self.ends(daemon, process.pid)
        profile = daemon.pull(process.pid, seconds)
        after = self.ends(daemon, process.pid)
        self.table = daemon.ctl("table", process.pid)
        stacks = Counter()
        for sample in profile.samples:
            stacks[user_frames(sample)] += sample.values[0]
        self.assertIsNone(process.poll(), f"{process.args} has ended")
        return stacks, {end: n - before.get(end, 0) for end, n in after.items()}

    def assert_good_table(self):
        """As sprofctl table judges it, from outside, while the program runs."""
        self.assertEqual(self.table.returncode, 0, self.table.stdout[:4000])

    def assert_whole(self, what, stacks, start, at_most):
        """Of the stacks with the frame of a fiber's start all but that share go on to _start, and what chance may add to it (three standard deviations)."""
        fibers = Counter({stack: n for stack, n in stacks.items() if start in stack})
        total, whole = fibers.total(), sum(n for stack, n in fibers.items() if stack[-1] == "_start")
        print(f"{what}: {stacks.total()} samples, {total} in fibers, {100 * whole / max(1, total):.2f} % of them to _start", flush=True)
        self.assertGreater(total, 200, f"{what}: {stacks.most_common(5)}")
        self.assertLessEqual(total - whole, at_most * total + 3 * (at_most * total) ** 0.5)

    def assert_typed(self, what, stacks, ends):
        """What does not go to where its thread began says why."""
        rest = sum(n for stack, n in stacks.items() if stack and stack[-1] not in ("_start", "__clone3", "clone3", "start_thread"))
        typed = sum(n for end, n in ends.items() if end not in ("outermost", "none"))
        print(f"{what}: {rest} others; ends {ends}", flush=True)
        self.assertLessEqual(rest, 1.5 * typed + 5, f"{what}: {[s for s in stacks if s and s[-1] != '_start'][:5]}")

    def assert_cut_short(self, what, stacks, most):
        """That without it fibers are cut off from who resumed them: else this test would show nothing."""
        whole = sum(n for stack, n in stacks.items() if stack and stack[-1] == "_start") / stacks.total()
        print(f"{what} without: {100 * whole:.2f} % of {stacks.total()} samples to _start", flush=True)
        self.assertLess(whole, most)

    # --- qemu-img: coroutines are made by makecontext, entered by swapcontext once, by siglongjmp then ---

    QEMU = ("qemu-img", "bench", "-q", "-c", 2_000_000_000, "-d", 8, "-f", "raw", "null-co://")

    def test_qemu(self):
        stacks, ends = self.profile(self.start(self.QEMU))
        self.assert_good_table()
        self.assert_whole("qemu-img", stacks, "preload_start_context", 0.001)
        self.assert_typed("qemu-img", stacks, ends)
        for stack, n in stacks.items():
            if "preload_start_context" in stack:
                after = stack[stack.index("preload_start_context") + 1 :]
                self.assertEqual(after[:2], ("qemu_coroutine_switch", "qemu_aio_coroutine_enter"), f"{n} times {stack}")
                self.assertIn("main_loop_wait", after, f"{n} times {stack}")

    def test_qemu_without(self):
        """The same, without: where the coroutine came from is not known."""
        stacks, _ = self.profile(self.start(self.QEMU, preload=False), seconds=1)
        self.assert_cut_short("qemu-img", stacks, 0.95)

    # --- PowerDNS Recursor: a fiber of Boost.Context for each question ---

    def recursor(self, preload):
        directory = Path(tempfile.mkdtemp(prefix="sprof-pdns."))
        self.addCleanup(subprocess.run, ["rm", "-rf", directory], check=False)
        (directory / "zone").write_text(
            "$ORIGIN example.org.\n@ 3600 IN SOA ns a 1 2 3 4 5\n@ 3600 IN NS ns\nwww 3600 IN A 127.0.0.9\nalias 3600 IN CNAME www\n")
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        process = self.start(
            ["pdns_recursor", f"--config-dir={directory}", "--daemon=no", "--local-address=127.0.0.1", f"--local-port={port}",
             f"--socket-dir={directory}", f"--auth-zones=example.org={directory}/zone", "--threads=1", "--write-pid=no",
             "--disable-packetcache=yes", "--quiet=yes", "--security-poll-suffix="], preload)  # fmt: skip
        answers, over = [0], threading.Event()
        asker = threading.Thread(target=self.ask, args=(port, answers, over))
        self.addCleanup(asker.join)
        self.addCleanup(over.set)
        asker.start()
        return process, answers

    @staticmethod
    def ask(port, answers, over):
        """Names that do not exist, and an alias: nothing is known beforehand."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.connect(("127.0.0.1", port))
            client.settimeout(0.2)
            i = 0
            while not over.is_set():
                try:
                    for _ in range(20):
                        i += 1
                        name = f"n{i}.example.org" if i % 3 else "alias.example.org"
                        labels = b"".join(bytes([len(part)]) + part.encode() for part in name.split("."))
                        client.send(struct.pack(">6H", i & 0xFFFF, 0x100, 1, 0, 0, 0) + labels + b"\0" + struct.pack(">2H", 1, 1))
                    for _ in range(20):
                        client.recv(2000)
                        answers[0] += 1
                except OSError:
                    over.wait(0.05)

    def test_recursor(self):
        process, answers = self.recursor(preload=True)
        stacks, ends = self.profile(process, lambda: answers[0] > 1000)
        self.assert_good_table()
        self.assert_whole("pdns_recursor", stacks, "make_fcontext", 0.002)
        self.assert_typed("pdns_recursor", stacks, ends)

    def test_recursor_without(self):
        process, answers = self.recursor(preload=False)
        stacks, _ = self.profile(process, lambda: answers[0] > 1000, seconds=1)
        self.assert_cut_short("pdns_recursor", stacks, 0.7)

    # --- an example of Boost.Coroutine, in a loop: coroutines that resume one another ---

    MAIN = """#include <iostream>
    int example_main(int, char **);
    int main(int argc, char **argv) { std::cout.setstate(std::ios::failbit); for (;;) example_main(argc, argv); }"""
    # Who pulls from whom, or pushes to whom, in any of the example's chains; example_main makes and destroys them all.
    RESUMERS = {
        "readlines": {"tokenize", "trace"},
        "tokenize": {"only_words", "trace", "layout"},
        "only_words": {"trace", "layout"},
        "trace": set(),
        "layout": {"only_words"},
    }

    def build_example(self, name, *libraries):
        source = EXAMPLES / name
        if not source.is_file():
            self.skipTest(f"{source} is not there: install libboost1.74-doc")
        directory = Path(tempfile.mkdtemp(prefix="sprof-boost."))
        self.addCleanup(subprocess.run, ["rm", "-rf", directory], check=False)
        (directory / "main.cpp").write_text(self.MAIN)
        for what, options in ((source, ["-Dmain=example_main"]), (directory / "main.cpp", [])):
            subprocess.run(["g++", "-O1", "-w", *options, "-c", what, "-o", directory / f"{what.stem}.o"], check=True, capture_output=True)
        objects = [directory / f"{source.stem}.o", directory / "main.o"]
        subprocess.run(["g++", *objects, "-o", directory / "example", *(f"-l{library}" for library in libraries)], check=True)
        return directory / "example"

    def test_nested_coroutines(self):
        example = self.build_example("coroutine/example/asymmetric/chaining.cpp", "boost_coroutine", "boost_context")
        stacks, ends = self.profile(self.start([example]))
        self.assert_good_table()
        self.assert_typed("chaining", stacks, ends)
        depths = Counter()
        for stack, n in stacks.items():
            if stack and stack[-1] == "_start":
                depths[self.depth_of(stack)] += n
        switching = sum(ends.get(end, 0) for end in SWITCHING)
        print(f"chaining: samples by coroutines within coroutines {dict(depths)}; switching {switching}", flush=True)
        for depth, least in enumerate((20, 20, 20, 20, 1)):
            self.assertGreaterEqual(depths[depth], least, f"{depths}")
        unknown = sum(ends.get(end, 0) for end in UNKNOWN)
        self.assertGreaterEqual(depths.total() + switching + unknown, 0.99 * stacks.total())
        self.assertLess(unknown, 0.02 * stacks.total(), f"{ends}")

    def depth_of(self, stack):
        """How many coroutines wait for, or are, the one that runs. Each must have been resumed by one that may have."""
        names = [frame.split("(")[0] for frame in stack]
        chain = [name for name in names if name in self.RESUMERS or name == "example_main"]
        chain = [name for i, name in enumerate(chain) if i == 0 or name != chain[i - 1]]  # a function, and its part for exceptions
        for name, resumer in zip(chain, chain[1:]):
            self.assertIn(resumer, self.RESUMERS[name] | {"example_main"}, f"{stack}")
        depth = stack.count("make_fcontext")
        if "make_fcontext" in stack:
            self.assertEqual(chain[-1], "example_main", f"{stack}")
        self.assertLessEqual(len(chain) - 1, depth + 1, f"{stack}")
        return depth


if __name__ == "__main__":
    unittest.util._MAX_LENGTH = 4000
    harness.main()
