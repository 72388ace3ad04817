"""Many clients at once; a slow, silent or vanished one delays neither another nor the ring buffer."""
import json
import socket
import subprocess
import threading
import time

import harness
from harness import Case, Daemon, Profile, Target, losses, number


class Server(Case):
    def setUp(self):
        self.daemon = Daemon(self)

    def connect(self):
        client = socket.socket(socket.AF_UNIX)
        client.settimeout(30)
        client.connect(self.daemon.socket)
        self.addCleanup(client.close)
        return client

    def assert_nothing_lost(self, target):
        target.finish()
        t = self.daemon.settle(target.pid)
        self.assert_conserved(t)
        self.assertEqual(losses(t), {})
        return t

    def test_one_curl_does_the_whole_job(self):
        target = Target(self, "spin")
        path = self.daemon.directory / "curl.pb.gz"
        url = f"http://localhost/debug/pprof/profile?pid={target.pid}&seconds=2"
        with harness.CpuReadings(target.pid) as readings:
            subprocess.run(["curl", "-sS", "--fail", "--unix-socket", self.daemon.socket, "-o", path, url], check=True, timeout=60)
        profile = Profile.read(path).validate()
        least_ns, most_ns = readings.of(profile)
        self.assertGreater(profile.inclusive()["a_heavy"], 0.25 * least_ns * 99e-9 - 5)
        self.assertGreaterEqual(profile.duration_ns, 2e9)
        self.assertLess(profile.duration_ns, 2.04e9 + readings.widest_gap_ns())
        self.assertLess(profile.cpu_ns(), most_ns + 2e9 / 99)
        self.assertGreater(profile.cpu_ns(), 0.98 * least_ns - 2e9 / 99)
        # It was attached for those seconds only.
        live = [t for t in self.daemon.status().get("targets", []) if t["state"] == harness.LIVE]
        self.assertEqual(live, [])

    def test_headers_are_those_of_go(self):
        target = Target(self, "spin")
        self.daemon.attach(target.pid)
        status, headers, _ = self.daemon.http("GET", f"/debug/pprof/profile?pid={target.pid}", headers={"Accept": "*/*"})
        self.assertEqual(status, 200)
        self.assertEqual(headers["content-type"], "application/octet-stream")
        self.assertEqual(headers["content-disposition"], 'attachment; filename="profile"')
        status, headers, body = self.daemon.http("GET", "/debug/pprof/profile?pid=4194304", headers={"Accept": "*/*"})
        self.assertEqual(status, 404)
        self.assertEqual(headers["x-go-pprof"], "1")
        self.assertTrue(headers["content-type"].startswith("text/plain"))
        self.assertIn(b"4194304", body)
        status, headers, body = self.daemon.http("GET", "/debug/pprof/", headers={"Accept": "*/*"})
        self.assertEqual(status, 200)
        self.assertIn(str(target.pid).encode(), body)

    def test_control_by_http(self):
        target = Target(self, "spin")
        # Control bodies are protobuf: field 1 pid, field 2 frequency.
        packed = b"\x08" + varint(target.pid) + b"\x10" + varint(499)
        kind = {"Content-Type": "application/x-protobuf"}
        status, _, answer = self.daemon.http("POST", "/v1/targets", packed, kind)
        self.assertEqual(status, 200, answer)
        self.assertEqual(json.loads(answer)["frequency_hz"], 499)
        self.assertIn(target.pid, [t["pid"] for t in self.daemon.json("/v1/targets")["targets"]])
        status, _, answer = self.daemon.http("PATCH", f"/v1/targets/{target.pid}", b"\x08" + varint(999), kind)
        self.assertEqual(status, 200, answer)
        self.assertEqual(number(self.daemon.target(target.pid), "frequency_hz"), 999)
        status, headers, answer = self.daemon.http("GET", "/v1/status", headers={"Accept": "application/x-protobuf"})
        self.assertEqual((status, headers["content-type"]), (200, "application/x-protobuf"))
        self.assertIn(b"spin", answer)
        self.assertIn(self.daemon.http("DELETE", f"/v1/targets/{target.pid}")[0], (200, 204))
        self.assertEqual(self.daemon.target(target.pid)["state"], harness.DETACHED)
        status, headers, answer = self.daemon.http("GET", "/metrics")
        self.assertTrue(headers["content-type"].startswith("application/openmetrics-text"))
        self.assertTrue(answer.endswith(b"# EOF\n"))

    def test_twenty_clients(self):
        target = Target(self, "spin", "--threads=2")
        self.daemon.attach(target.pid, 10000)
        results, errors = [], []

        def client(i):
            try:
                if i % 2:
                    results.append(self.daemon.pull(target.pid, 1 + i % 3).count())
                else:
                    for _ in range(5):
                        self.assert_conserved(self.daemon.target(target.pid))
                        results.append(self.daemon.pull(target.pid).count())
            except Exception as error:  # an exception in a thread would be lost
                errors.append(f"client {i}: {error!r}")

        clients = [threading.Thread(target=client, args=(i,)) for i in range(20)]
        for thread in clients:
            thread.start()
        for thread in clients:
            thread.join(90)
        self.assertEqual(errors, [])
        self.assertEqual(len(results), 10 + 50)
        self.assertGreater(min(results), 0)
        self.assert_nothing_lost(target)

    def test_slow_silent_and_vanished_clients(self):
        target = Target(self, "spin", "--threads=2")
        self.daemon.attach(target.pid, 10000)
        silent = [self.connect() for _ in range(20)]
        half = [self.connect() for _ in range(20)]
        for client in half:
            client.sendall(b"GET /v1/status HTTP/1.1\r\nHost: x\r\nX-Unfinished: ")
        time.sleep(0.5)
        # Ask for profiles and statuses, and read nothing.
        slow = [self.connect() for _ in range(20)]
        for client in slow:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.sendall(b"GET /debug/pprof/profile?pid=%d HTTP/1.1\r\nHost: x\r\n\r\n" % target.pid)
        for i in range(20):  # gone in the middle of a pull
            client = self.connect()
            seconds = b"&seconds=1" if i % 2 else b""
            client.sendall(b"GET /debug/pprof/profile?pid=%d%s HTTP/1.1\r\nHost: x\r\n\r\n" % (target.pid, seconds))
            client.close()
        worst = 0
        for _ in range(20):
            start = time.monotonic()
            self.daemon.status()
            worst = max(worst, time.monotonic() - start)
            time.sleep(0.05)
        self.assertLess(worst, 0.5, "other clients delay a status")
        for client in slow[:3]:  # late, but whole
            answer = http_answer(client)
            self.assertGreater(Profile(answer).validate().count(), 1000)
        for client in half[:3]:
            client.sendall(b"1\r\n\r\n")
            self.assertIn(b'"version"', http_answer(client))
        with harness.CpuReadings(target.pid) as readings:
            profile = self.daemon.pull(target.pid, 1)
        late = number(self.daemon.target(target.pid), "late_periods")
        self.assertGreater(profile.count() + late, 0.95 * readings.of(profile)[0] * 10000e-9)
        self.assert_nothing_lost(target)
        self.assertIsNotNone(silent)

    def test_more_connections_than_allowed(self):
        daemon = Daemon(self, config="[limits]\nmax_connections = 20\n")
        held = []
        for _ in range(60):
            client = socket.socket(socket.AF_UNIX)
            self.addCleanup(client.close)
            client.connect(daemon.socket)
            held.append(client)
        time.sleep(0.3)
        for client in held:
            client.close()
        harness.wait_for(daemon.answers, 5, "an answer after the crowd is gone")

    def test_a_client_that_left_its_curl(self):
        """A process attached only for a pull is let go when its client goes away."""
        target = Target(self, "spin")
        client = self.connect()
        client.sendall(b"GET /debug/pprof/profile?pid=%d&seconds=60 HTTP/1.1\r\nHost: x\r\n\r\n" % target.pid)
        harness.wait_for(lambda: self.live(target.pid), 5, "the attach")
        client.close()
        harness.wait_for(lambda: not self.live(target.pid), 5, "the end of the attach")

    def live(self, pid):
        targets = self.daemon.status().get("targets", [])
        return [t for t in targets if t["pid"] == pid and t["state"] == harness.LIVE]

    def test_a_large_profile_does_not_stall_the_capture(self):
        """Many distinct stacks, pulled again and again, at 10 kHz."""
        target = Target(self, "deep", "--depth=400")
        script = "import json, random\ndef f(n): return f(n - 1) if n else json.dumps([random.random()] * 5)\nwhile True: f(random.randrange(200))"
        process = subprocess.Popen(["/usr/bin/python3", "-c", script])
        self.addCleanup(harness.end, process)
        self.daemon.attach(target.pid, 4999)
        self.daemon.attach(process.pid, 9999)
        for _ in range(6):
            time.sleep(0.3)
            self.daemon.pull_bytes(process.pid)
            self.daemon.pull_bytes(target.pid)
        self.assert_conserved(self.daemon.target(process.pid))
        self.assertEqual(losses(self.daemon.target(process.pid)).get("ring_full", 0), 0)
        self.assertEqual(losses(self.daemon.target(target.pid)).get("ring_full", 0), 0)

    def test_bad_http(self):
        """Nothing that a client sends ends the daemon or goes without an answer that is an error."""
        cases = [
            b"\x00\x01\x02\x03\r\n\r\n",
            b"GET\r\n\r\n",
            b"GET /v1/status HTTP/9.9\r\n\r\n",
            b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
            b"GET /v1/status HTTP/1.1\r\nHost: x\r\nX: " + b"y" * 200_000 + b"\r\n\r\n",
            b"GET /v1/status HTTP/1.1\r\n" + b"A: b\r\n" * 20_000 + b"\r\n",
            b"POST /v1/targets HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n",
            b"POST /v1/targets HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
            b"POST /v1/targets HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-protobuf\r\nContent-Length: 4\r\n\r\n\xff\xff\xff\xff",
            b"BREW /v1/targets HTTP/1.1\r\nHost: x\r\n\r\n",
        ]
        for case in cases:
            with self.subTest(case=case[:60]):
                client = self.connect()
                try:
                    client.sendall(case)
                    client.shutdown(socket.SHUT_WR)
                    answer = client.recv(65536)
                except (BrokenPipeError, ConnectionResetError):
                    answer = b""
                self.assertNotRegex(answer, rb"^HTTP/1.\d 2")
                self.assertTrue(self.daemon.answers())

    def test_bad_requests(self):
        target = Target(self, "spin")
        self.daemon.attach(target.pid)
        pid = target.pid
        protobuf = {"Content-Type": "application/x-protobuf"}
        cases = [
            ("GET", "/nothing", None, 404),
            ("GET", "/debug/pprof/profile", None, 400),
            ("GET", "/debug/pprof/profile?pid=", None, 400),
            ("GET", "/debug/pprof/profile?pid=abc", None, 400),
            ("GET", "/debug/pprof/profile?pid=-1", None, 400),
            ("GET", "/debug/pprof/profile?pid=0", None, 400),
            ("GET", "/debug/pprof/profile?pid=99999999999999999999", None, 400),
            ("GET", f"/debug/pprof/profile?pid={pid}&seconds=0", None, 400),
            ("GET", f"/debug/pprof/profile?pid={pid}&seconds=-5", None, 400),
            ("GET", f"/debug/pprof/profile?pid={pid}&seconds=1e3", None, 400),
            ("GET", f"/debug/pprof/profile?pid={pid}&seconds=999999999", None, 400),
            ("GET", f"/debug/pprof/profile?pid={pid}&pid={pid + 1}", None, 400),
            ("DELETE", "/v1/targets/4194304", None, 404),
            ("DELETE", "/v1/targets/x", None, (400, 404)),
            ("PATCH", f"/v1/targets/{pid}", b"\x08\x00", 400),
            ("PATCH", f"/v1/targets/{pid}", b"junk", 400),
            ("POST", "/v1/targets", b"", 400),
            ("POST", "/v1/targets", b"\x08\x01\x10" + varint(50_000_000), 400),
            ("POST", "/v1/targets", b"\x08" + varint(pid) + b"\x18\x63", 400),
            ("POST", "/v1/targets", b"\x08" + varint(pid) + b"\xf8\x06\x01", 400),  # a field that there is not
            ("GET", f"/debug/pprof/profile?pid={pid}&bogus=1", None, 400),
            ("PUT", "/v1/status", b"", (404, 405, 501)),
            ("POST", "/v1/status", b"", (404, 405)),
        ]
        for method, path, body, expected in cases:
            with self.subTest(method=method, path=path, body=body):
                status, _, answer = self.daemon.http(method, path, body, protobuf)
                self.assertIn(status, expected if isinstance(expected, tuple) else (expected,), answer)
                self.assertGreater(len(answer), 5, "an error without words")
        self.assertEqual(self.daemon.target(pid)["state"], harness.LIVE)


def varint(value):
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes(out + bytes([value]))


def http_answer(client):
    """The body of the answer that comes on a raw connection."""
    answer = harness.http.client.HTTPResponse(client)
    answer.begin()
    assert answer.status == 200, answer.status
    return answer.read()


if __name__ == "__main__":
    harness.main()
