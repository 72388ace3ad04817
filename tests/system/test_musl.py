"""Programs of another C library, musl, as Debian has it: linked against its shared object, and statically. It has neither unwind information nor frame pointers
of its own, so a stack that is in it ends there and says so; of the program's own code it has all, and who of musl's has called it."""
import subprocess

import harness
from harness import Daemon
from pprof_file import frame_name

SOURCE = """
#include <pthread.h>
static volatile unsigned long sink;
__attribute__((noinline)) static void burn(void) { for (int i = 0; i < 100000; i++) sink += i; }
__attribute__((noinline)) static void frame(int left) { if (left > 1) frame(left - 1); else burn(); __asm__ volatile(""); }
__attribute__((noinline)) static void spin(void) { for (;;) frame(20); }
static void *thread(void *unused) { spin(); return unused; }
int main(void) { pthread_t other; pthread_create(&other, 0, thread, 0); spin(); }
"""


class Musl(harness.Case):
    def build(self, *options):
        source, program = self.daemon.directory / "spin.c", self.daemon.directory / "spin"
        source.write_text(SOURCE)
        subprocess.run(["musl-gcc", "-O2", "-fomit-frame-pointer", *options, source, "-o", program], check=True)
        return program

    def judge(self, *options):
        self.daemon = Daemon(self)
        process = subprocess.Popen([self.build(*options)])
        self.addCleanup(harness.end, process)
        harness.let_run(process.pid, 0.1)
        self.daemon.attach(process.pid, 1999)
        harness.let_run(process.pid, 1)
        profile = self.daemon.pull(process.pid, 2)
        self.assertGreater(profile.count(), 200)
        wrong, threads = [], set()
        for sample in profile.samples:
            stack, end = [frame_name(x) for x in sample.locations if not (x.mapping and x.mapping.filename.startswith("[kernel"))], sample.labels.get("stack_end")
            own = stack[stack.index("spin") :] if "spin" in stack else []
            beginning = ["frame"] * 20 + ["spin"] if stack[0] == "burn" else ["spin"]
            threads.update(own[1:2])
            # thread's caller has a frame pointer of zero, as it is told to have where threads begin; that of main has used the register for something else.
            right = len(own) == 3 and (own[1], end) in (("thread", None), ("main", "no_unwind_info")) and stack[stack[0] == "burn" :][: len(beginning)] == beginning
            if not right and stack[:1] != ["frame"]:
                wrong.append((end, stack))
        self.assertEqual(threads, {"main", "thread"})
        self.assertLessEqual(len(wrong), 0.001 * profile.count(), wrong[:3])

    def test_static(self):
        self.judge("-static")

    def test_shared(self):
        self.judge()


if __name__ == "__main__":
    harness.main()
