"""sprofctl table: what a process publishes in its barrier-lock table, decoded and judged. A right writer, however busy, is found right; each thing that a
writer can do wrong is found once, by its name, at its place, with what to do."""
import json
import os
import re
import shutil
import signal
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import harness
from harness import Case, Daemon, Target

SOURCE = Path(__file__).resolve().parent.parent.parent
GREENRT = harness.TARGETS / "greenrt" / "greenrt"
ALICE = 64001

# Each defect of bad_table: (code of the finding, where it is, words of what is wrong). The severity is checked against FINDING_TABLE.
DEFECTS = {
    "private": ("private-memory", "mapping 0x", "private memory"),
    "anonymous": ("private-memory", "mapping 0x", "a table in private memory"),
    "wrong-name": ("wrong-name", "mapping 0x", "/memfd:sprof"),
    "offset": ("wrong-name", "mapping 0x", "not at offset 0"),
    "no-memfd": ("no-memfd", "mapping 0x", "no memfd"),
    "other-table": ("other-table", "mapping 0x", "lowest address"),
    "short": ("invalid", "header", "F_SEAL_SHRINK"),
    "shrinkable": ("shrinkable", "mapping", "seals are 0x0"),
    "unsealed": ("unsealed", "mapping", "0x2"),
    "not-locked": ("not-locked", "mapping", "although its flags say"),
    "not-resident": ("not-resident", "mapping", "1 of 5 pages"),
    "inherited": ("inherited", "mapping", "inherit"),
    "magic": ("unsettled", "header", "magic is 0"),
    "abi": ("invalid", "header", "abi is 2"),
    "ranges-locked": ("unsettled", "header", "range_end"),
    "no-starttime": ("no-starttime", "header", "proc_starttime is 0"),
    "tgid": ("foreign-process", "header", "another|this one is"),
    "starttime": ("foreign-process", "header", "begun at"),
    "unaligned": ("unaligned", "off_range", "record size, 32"),
    "overlapping": ("overlapping", "off_", "ends at"),
    "range-empty": ("range-empty", "range 1", "not below hi"),
    "range-not-code": ("range-not-code", "range 1", "executable"),
    "range-kind": ("range-kind", "range 1", "99"),
    "ranges-overlap": ("ranges-overlap", "range 1", "range 0"),
    "entry-nowhere": ("entry-nowhere", "range 1", r"lo \+1000"),
    "cfa-register": ("cfa-register", "range 1", "is 2"),
    "cfa-offset": ("cfa-offset", "range 1", "is 12"),
    "cfa-at-entry": ("cfa-at-entry", "range 0", "cfa_offset 8"),
    "fp-offset": ("fp-offset", "range 1", "is 8"),
    "thread-probe": ("thread-probe", "thread PID", "no probe"),
    "thread-beyond": ("thread-beyond", "thread PID", "n_probe is 0"),
    "thread-twice": ("thread-twice", "thread PID", "slot"),
    "thread-dead": ("thread-dead", "thread ", "not there any more"),
    "thread-reused": ("thread-reused", "thread PID", "starttime"),
    "seq-odd": ("seq-odd", "thread PID", "odd, at 3"),
    "ref-range": ("ref-range", "thread PID", "user refers to stack 16"),
    "ref-stale": ("ref-stale", "thread PID", "user refers to generation 7 of stack 1"),
    "ref-unused": ("ref-stale", "thread PID", "user refers to stack 3, not in use"),
    "owner": ("owner", "thread PID", "stack 1, whose owner_tid is 0"),
    "context-stack": ("context-stack", "thread PID", "foreign_context.*none"),
    "context-sp": ("context-sp", "thread PID", "foreign_context.*stack 1"),
    "context-pc": ("context-pc", "thread PID", "foreign_context.*not executable"),
    "context-trampoline": ("context-trampoline", "thread PID", "foreign_context.*trampoline"),
    "context-half": ("context-half", "thread PID", "libcall_context"),
    "context-unused": ("context-unused", "thread PID", "foreign_depth is 0"),
    "context-jump": ("context-sp", "thread PID", "jump_context.*stack 1"),
    "stack-bounds": ("stack-bounds", "stack 2", "not below hi"),
    "stack-self": ("stack-self", "stack 2", r"\(9, 1\)"),
    "stack-cap": ("stack-cap", "stack 2", "65537"),
    "stack-array": ("stack-array", "stack 2", "off_barrier"),
    "stack-array-unaligned": ("unaligned", "stack 2", "off_barrier"),
    "stack-n": ("stack-n", "stack 0", "n is 17, and cap 16"),
    "stack-pos": ("stack-pos", "stack 0", "pos is 1, and n 0"),
    "stacks-overlap": ("stacks-overlap", "stack ", "overlap"),
    "barriers-overlap": ("overlapping", "stack ", "overlap"),
    "stack-unmapped": ("stack-unmapped", "stack 0", "not readable"),
    "owner-unknown": ("owner-unknown", "stack 2", "owner_tid is 1"),
    "lock-held": ("lock-held", "stack 2", "version 5"),
    "resumer-ref": ("resumer-ref", "stack 1", "generation 9 of stack 2"),
    "resumer-context": ("context-sp", "stack 1", "resumer_context.*stack 2"),
    "resumer-cycle": ("resumer-cycle", "stack ", "leads back"),
    "slot-outside": ("slot-outside", "stack 1 barrier 2", "slot"),
    "slot-alignment": ("slot-alignment", "stack 1 barrier 1", "slot"),
    "slot-order": ("slot-order", "stack 1", "barrier 1"),
    "slot-word": ("slot-word", "stack 1 barrier 1", "but its original pc"),
    "original-pc": ("original-pc", "stack 1 barrier 1", "0x1234"),
    "original-trampoline": ("original-trampoline", "stack 1 barrier 1", "in a trampoline"),
}  # fmt: skip
# What may come with it, since it follows from it.
ALSO = {
    "stack-cap": {"stack-array"},
    "ref-stale": {"context-sp"},
    "stack-array": {"overlapping"},
    "not-locked": {"not-resident"},
    "not-resident": {"not-locked"},
    "stack-self": {"resumer-ref"},
    "stack-bounds": {"context-sp"},
}
# Provoked by processes that are no bad_table, or (the last two) in tests/unit/test_table_judge.c, since no process does it reliably.
ELSEWHERE = {"no-table", "pid-namespace", "time-namespace", "threads-missing", "stack-restless", "left-out"}
SEVERITIES = {"error": 2, "warning": 1, "note": 0}


def finding_table():
    """{code: severity} as the source has it."""
    text = (SOURCE / "daemon/collect/table_findings.h").read_text()
    return {code.lower().replace("_", "-"): severity.lower() for code, severity in re.findall(r"\bX\((\w+), (ERROR|WARNING|NOTE),", text)}  # fmt: skip


def codes(table):
    return {f["code"] for f in table["findings"]}


def serious(table):
    """What is no note. That a lock is held or a change under way for 50 ms is said truly of a thread that was given no CPU for so long."""
    return [f for f in table["findings"] if f["severity"] != "note" and f["code"] not in ("lock-held", "seq-odd")]


class Table(Case):
    @classmethod
    def setUpClass(cls):
        cls.daemon = Daemon(cls, config="[daemon]\nsocket_mode = 0666\n")

    def table(self, pid):
        return self.daemon.json(f"/v1/targets/{pid}/table")

    def bad(self, defect):
        return Target(self, "bad_table", defect)


class RightWriters(Table):
    def test_one_that_rests(self):
        for defect in ("none", "stacks-touch", "slot-passed", "ref-left-behind", "later", "thread-tick"):
            with self.subTest(defect):
                table = self.table(self.bad(defect).pid)
                self.assertEqual(table["findings"], [])
                self.assertEqual((table["state"], table["abi"], table["errors"]), ("valid", 1, 0))

    def test_decoded(self):
        target = self.bad("none")
        t = self.table(target.pid)
        self.assertEqual((t["tgid"], t["cap_thread"], t["cap_stack"], t["cap_range"]), (target.pid, 32, 16, 64))
        self.assertEqual((t["pages"], t["resident_pages"], t["locked"], t["seals"] & 7), (5, 5, True, 7))
        self.assertEqual([r["kind_name"] for r in t["ranges"]], ["trampoline", "trampoline"])
        self.assertEqual({r["entry"] for r in t["ranges"]}, {t["ranges"][0]["lo"]})
        self.assertTrue(all(r["file"].endswith("bad_table") for r in t["ranges"]), t["ranges"])
        (thread,) = t["threads"]
        self.assertEqual((thread["tid"], thread["host_tid"], thread["alive"], thread["stable"]), (target.pid, target.pid, True, True))  # fmt: skip
        self.assertEqual((thread["comm"], thread["slot"], thread["seq"]), ("bad_table", target.pid % 32, 2))
        self.assertEqual(thread["user"], {"state": "stack", "index": 1, "gen": 1})
        self.assertEqual(thread["libcall"]["state"], "none")
        self.assertIsNone(thread["jump_context"])
        self.assertEqual(thread["foreign_context"]["sp"], t["stacks"][1]["hi"] - 1024)
        user = t["stacks"][1]
        self.assertEqual([s["index"] for s in t["stacks"]], [0, 1, 2])
        self.assertEqual((user["lock"], user["owner_tid"], user["pos"], user["n"], user["cap"]), ("free", target.pid, 0, 3, 16))  # fmt: skip
        self.assertEqual(user["resumer"], {"state": "stack", "index": 2, "gen": 1})
        for i, barrier in enumerate(user["barriers"]):
            self.assertEqual(barrier["slot"], user["hi"] - 512 + 64 * i)
            self.assertEqual((barrier["slot_read"], barrier["in_slot"]), (True, t["ranges"][0]["entry"]))

    def test_one_that_never_rests(self):
        """greenrt's collector moves stacks and installs barriers all the while, its threads switch: none of that is a mistake."""
        runs = (["--barriers=every", "--threads=2", "--pause-us=0"], ["--barriers=doubling", "--hold-us=300", "--pause-us=0"])
        for args in runs:
            target = Target(self, "greenrt", *args, "--seconds=60", path=GREENRT)
            attached = args is runs[0]
            if attached:
                self.daemon.attach(target.pid, 999)
            harness.wait_for(lambda pid=target.pid: len(self.table(pid)["threads"]) == 2, 20, "both threads")
            seen, barriers, judged = [], 0, 0
            for _ in range(8):
                table = self.table(target.pid)
                self.assertEqual(table["state"], "valid")
                seen += serious(table)
                barriers += sum(len(s["barriers"]) for s in table["stacks"])
                judged += sum(t["stable"] for t in table["threads"])
                self.assertEqual((len(table["threads"]), len(table["stacks"])), (2, 10))
            self.assertEqual(seen, [])
            self.assertGreater(barriers, 8, "nothing was there to be judged")
            self.assertGreater(judged, 4, "no thread was ever judged")
            self.assertEqual(codes(table), {"threads-missing"})  # main and the collector
            truth = target.finish()
            self.assertGreater(truth["moves"] + truth["barriers_installed"], 100)

    def test_for_people(self):
        target = Target(self, "greenrt", "--seconds=60", path=GREENRT)
        out = self.daemon.ok("table", target.pid)
        lines = out.splitlines()
        self.assertRegex(lines[0], rf"^{target.pid} \(greenrt\): a valid barrier-lock table: 0 errors, 0 warnings, 1 note$")
        self.assertLessEqual(max(map(len, lines)), 120, max(lines, key=len))
        for word in ("findings", "ranges", "threads", "stacks", "trampoline", "sets-sp", "seals: seal shrink grow"):
            self.assertIn(word, out)

    def test_json_and_protobuf(self):
        target = self.bad("none")
        self.assertEqual(json.loads(self.daemon.ok("table", target.pid, "--json"))["state"], "valid")
        path = f"/v1/targets/{target.pid}/table"
        status, headers, body = self.daemon.http("GET", path, headers={"Accept": "application/x-protobuf"})
        self.assertEqual((status, headers["content-type"]), (200, "application/x-protobuf"))
        self.assertIn(b"bad_table", body)

    def test_namespaces(self):
        """In a pid namespace the table has the numbers of inside; in a time namespace starttimes differ by a constant."""
        for args, code in ((["--pid", "--fork", "--mount-proc"], "pid-namespace"), (["--time", "--boottime=100000", "--fork"], "time-namespace")):  # fmt: skip
            with self.subTest(code):
                outer = subprocess.Popen(["unshare", "--kill-child", *args, GREENRT, "--seconds=60"], stdout=subprocess.PIPE)
                self.addCleanup(harness.end, outer)
                ready = json.loads(outer.stdout.readline())["ready"]
                (pid,) = harness.children_of(outer.pid)
                table = self.table(pid)
                self.assertEqual(codes(table), {code, "threads-missing"}, table["findings"])
                self.assertEqual((table["tgid"], table["errors"], table["warnings"]), (ready, 0, 0))
                self.assertEqual(pid == ready, code == "time-namespace")
                self.assertEqual({t["alive"] for t in table["threads"]}, {True})
                if code == "pid-namespace":
                    self.assertTrue(all(t["host_tid"] > t["tid"] for t in table["threads"]), table["threads"])


class WrongWriters(Table):
    def judge(self, defect):
        target = self.bad(defect)
        return target, self.table(target.pid)

    def test_each_defect_is_found(self):
        severities = finding_table()
        self.assertEqual({code for code, _, _ in DEFECTS.values()} | ELSEWHERE, set(severities), "a finding is provoked nowhere")
        targets = {defect: self.bad(defect) for defect in DEFECTS}
        with ThreadPoolExecutor(4) as pool:
            tables = dict(zip(targets, pool.map(lambda t: self.table(t.pid), targets.values())))
        for defect, (code, where, what) in DEFECTS.items():
            with self.subTest(defect):
                table = tables[defect]
                found = [f for f in table["findings"] if f["code"] == code]
                self.assertTrue(found, f"not found: {table['findings']}")
                where = where.replace("PID", str(targets[defect].pid))
                match = [f for f in found if f["where"].startswith(where) and re.search(what, f["what"])]
                self.assertTrue(match, found)
                self.assertEqual(match[0]["severity"], severities[code])
                self.assertRegex(match[0]["todo"], r"\w{3}")
                others = codes(table) - {code} - ALSO.get(defect, set())
                self.assertEqual(others, set(), table["findings"])
                count = sum(f["severity"] == "error" for f in table["findings"])
                self.assertEqual(table["errors"], count)

    def test_exit_codes_and_words(self):
        for defect, exit_code in (("slot-word", 1), ("abi", 1), ("not-locked", 0), ("no-starttime", 0)):
            with self.subTest(defect):
                target = self.bad(defect)
                done = self.daemon.ctl("table", target.pid)
                self.assertEqual(done.returncode, exit_code, done.stdout + done.stderr)
                self.assertLessEqual(max(map(len, done.stdout.splitlines())), 120)
                self.assertIn(f"[{DEFECTS[defect][0]}", done.stdout)
                if exit_code:
                    self.assert_refused(done, "cannot be relied on|errors above", str(target.pid))
                done = self.daemon.ctl("table", target.pid, "--json")
                self.assertEqual(done.returncode, exit_code)
                self.assertEqual(json.loads(done.stdout)["pid"], target.pid)

    def test_no_table(self):
        target = Target(self, "spin")
        table = self.table(target.pid)
        self.assertEqual((table["state"], codes(table), table["errors"]), ("none", {"no-table"}, 1))
        done = self.daemon.ctl("table", target.pid)
        self.assertEqual(done.returncode, 1)
        self.assertIn("memfd_create", done.stdout)

    def test_children(self):
        """A vfork child shares the table, a forked one may inherit it: both are told that it is not theirs."""
        for how in ("vfork", "inherited"):
            with self.subTest(how):
                target = self.bad(how)
                child = target.ready["child"]
                self.addCleanup(lambda pid=child: os.path.exists(f"/proc/{pid}") and os.kill(pid, signal.SIGKILL))
                table = self.table(child)
                self.assertEqual(table["foreign_process"], True)
                self.assertEqual([f["code"] for f in table["findings"] if f["severity"] == "error"], ["foreign-process"])
                self.assertIn(str(target.pid), table["findings"][0]["what"])
                own = self.table(target.pid)
                self.assertEqual(own["foreign_process"], False)
                self.assertEqual(own["errors"], 0)

    def test_a_table_that_comes_and_goes(self):
        """A process that ends while it is looked at is told to have ended."""
        target = self.bad("none")
        done = []
        asking = threading.Thread(target=lambda: done.append(self.daemon.http("GET", f"/v1/targets/{target.pid}/table")))
        asking.start()
        harness.time.sleep(0.02)
        target.process.kill()
        target.process.wait()
        asking.join()
        self.assertIn(done[0][0], (200, 404), done)


class Service(Case):
    def test_with_the_capabilities_of_the_service(self):
        """As systemd runs it: a user of its own, and six capabilities."""
        directory = harness.tempfile.mkdtemp(prefix="sprof-test.")
        self.addCleanup(shutil.rmtree, directory, ignore_errors=True)
        os.chown(directory, harness.NOBODY, harness.NOBODY)
        self.addCleanup(harness.PARANOID.write_text, harness.PARANOID.read_text())
        harness.PARANOID.write_text("2")
        capabilities = ",".join(f"+{c}" for c in "bpf perfmon sys_ptrace dac_read_search checkpoint_restore syslog".split())
        prefix = [*harness.as_user(harness.NOBODY), f"--inh-caps={capabilities}", f"--ambient-caps={capabilities}", "--bounding-set=-all," + capabilities]
        daemon = Daemon(self, prefix=prefix, directory=directory)
        target = Target(self, "bad_table", "unsealed")
        table = daemon.json(f"/v1/targets/{target.pid}/table")
        self.assertEqual(codes(table), {"unsealed"}, table["findings"])
        self.assertEqual((table["pages"], table["resident_pages"], table["locked"], table["seals"]), (5, 5, True, 2))


class Access(Table):
    """The right to ask is that of attaching."""

    def copy(self, name):
        directory = harness.tempfile.mkdtemp(prefix="sprof-test.")
        self.addCleanup(shutil.rmtree, directory)
        os.chmod(directory, 0o755)
        return shutil.copy(harness.TARGETS / name, directory)

    def test_ones_own(self):
        target = Target(self, "bad_table", "none", user=ALICE, path=self.copy("bad_table"))
        done = self.daemon.ctl("table", target.pid, user=ALICE)
        self.assertIn("a valid barrier-lock table", done.stdout)

    def test_not_somebody_elses(self):
        target = self.bad("none")
        self.assert_refused(self.daemon.ctl("table", target.pid, user=ALICE), "not wholly yours")
        # Also when it is attached.
        self.daemon.attach(target.pid)
        self.assert_refused(self.daemon.ctl("table", target.pid, user=ALICE), "not wholly yours")

    def test_one_look_at_a_time(self):
        """A process can make who reads its memory wait: that costs nobody more than one thread."""
        target = self.bad("none")
        with ThreadPoolExecutor(8) as pool:
            statuses = list(pool.map(lambda _: self.daemon.http("GET", f"/v1/targets/{target.pid}/table")[0], range(8)))
        self.assertEqual(set(statuses), {200, 409}, statuses)
        self.assertEqual(self.table(target.pid)["state"], "valid")

    def test_no_process(self):
        self.assert_refused(self.daemon.ctl("table", 4194304), "no process 4194304")
        self.assert_refused(self.daemon.ctl("table", 2), "kernel thread")


if __name__ == "__main__":
    harness.main()
