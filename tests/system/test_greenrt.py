"""The soak of the barrier-lock table: greenrt, a runtime whose collector hijacks return addresses and moves stacks all the while, sampled at
9,973 Hz (periodic samples are not independent draws, hence a prime). Each stack is judged by its names, each function's share by greenrt's own.

SPROF_SOAK_SECONDS sets the length (60; 10 with sanitizers, whose daemon is slow)."""
import math
import os
import statistics

import harness
from green_stacks import LOCKED, Stacks
from harness import SANITIZED, Case, Daemon, Target, number

HZ = 9973
BLOCK_S = 3
SECONDS = int(os.environ.get("SPROF_SOAK_SECONDS", 10 if SANITIZED else 60))
WARM_UP_S = 3 if SANITIZED else 1  # until the daemon has made the unwind tables of what greenrt has mapped
# What runs beside the loops that greenrt counts: calls, returns, barriers that are hit.
UNCOUNTED = 0.004


class Greenrt(Case):
    def run_greenrt(self, seconds, *options):
        """(stacks in all, [stacks of each block], greenrt's truth, the target's accounts)"""
        daemon = Daemon(self, "[memory]\nring_mib = 64\n" if SANITIZED else "")
        green = Target(self, "greenrt/greenrt", "--seconds=0", "--threads=2", "--stacks=8", *options)
        workers = green.ready["workers"]
        stacks, blocks = Stacks(), []
        daemon.attach(green.pid, HZ)
        harness.time.sleep(WARM_UP_S)
        for _ in range(max(1, seconds // BLOCK_S)):
            blocks.append(Stacks(workers).add(daemon.pull(green.pid, BLOCK_S)))
            stacks.merge(blocks[-1])
        daemon.ok("detach", green.pid)
        target = daemon.settle(green.pid)
        truth = green.finish()
        self.assertEqual(green.process.returncode, 0)
        self.assert_conserved(target)
        print(f"{' '.join(options)}: {stacks.describe()}; ends {self.ends(target)}; held {truth['held_share']:.4f}", flush=True)
        return stacks, blocks, truth, target

    @staticmethod
    def ends(target):
        return {end["name"]: number(end, "count") for end in target.get("stack_ends", [])}

    def assert_right(self, stacks, truth, target):
        self.assertEqual(stacks.wrong(), {}, stacks.describe())
        ends = self.ends(target)
        self.assertEqual(stacks.kinds["unframed"], 0, stacks.describe())
        self.assertLessEqual(stacks.kinds["cut"], ends.get("barrier_mismatch", 0), f"{stacks.describe()}; {ends}")
        # Of the threads that run green threads: no others have stacks that anybody locks.
        locked = sum(ends.get(end, 0) for end in LOCKED) / sum(ends.values()) * stacks.all / stacks.total
        resolved = stacks.kinds["whole"] + stacks.kinds["scheduler"]
        self.assertGreaterEqual(resolved, 0.99 * stacks.total * (1 - locked), f"{stacks.describe()}; {ends}")
        self.assert_near(locked, truth["held_share"], 0, 0.01, f"share of samples typed as locked ({ends})")
        lost = {name: count for name, count in harness.losses(target).items() if name != "aged_out"}
        self.assertEqual(lost, {})

    def assert_shares(self, blocks, truth):
        """Within what the blocks themselves vary by."""
        for function, share in truth["shares"].items():
            seen = [block.share(function) for block in blocks]
            room = 4 * statistics.stdev(seen) / math.sqrt(len(seen)) + UNCOUNTED
            self.assert_near(statistics.mean(seen), share, 0, room, f"share of {function} in {len(seen)} blocks")

    def test_soak(self):
        stacks, blocks, truth, target = self.run_greenrt(SECONDS, "--barriers=every")
        self.assert_right(stacks, truth, target)
        self.assertGreater(truth["barrier_hits"], 1000 * SECONDS)
        self.assertGreater(truth["growths"], SECONDS)
        whole = stacks.kinds["whole"] + stacks.kinds["scheduler"]
        self.assertGreaterEqual(whole, 0.99 * stacks.total, "with the pauses of the default collector")
        if len(blocks) >= 20:
            self.assert_shares(blocks, truth)

    def test_deep_stacks_and_doubling_barriers(self):
        stacks, _, truth, target = self.run_greenrt(4, "--barriers=doubling", "--depth=200", "--pause-us=100")
        self.assert_right(stacks, truth, target)

    def test_locks_that_are_held(self):
        """The share of samples that find the lock held is the share of time that it is."""
        stacks, _, truth, target = self.run_greenrt(6, "--barriers=every", "--hold-us=500", "--pause-us=50", "--stacks=3")
        self.assertGreater(truth["held_share"], 0.02)
        self.assert_right(stacks, truth, target)

    def test_without_table(self):
        """The same runtime, to a profiler that knows nothing of it."""
        stacks, _, truth, _ = self.run_greenrt(4, "--barriers=every", "--no-table")
        self.assertFalse(truth["published"])
        self.assertGreater(stacks.kinds["trampoline"], 0.005 * stacks.total)
        self.assertLess(stacks.kinds["whole"], 0.8 * stacks.total)


if __name__ == "__main__":
    harness.main()
