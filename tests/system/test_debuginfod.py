"""Debug files from a debuginfod server, by way of sprofd-fetch: a small server of this test's own, which does as it should, and all else."""
import hashlib
import http.server
import os
import socket
import subprocess
import threading
import time
from pathlib import Path

import harness
from harness import Case, Daemon, Target
from test_names import build_id

FETCH = harness._program("SPROFD_FETCH", "sprofd-fetch")
HERE, NOWHERE, FAILED = 1, 2, 3
MIB = 1 << 20


class Handler(http.server.BaseHTTPRequestHandler):
    """answers maps a build id to what is done for it."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_GET(self):
        self.server.asked.append(self.path)
        id = self.path.split("/")[-2] if self.path.endswith("/debuginfo") else self.path.strip("/")
        answer = self.server.answers.get(id)
        try:
            if callable(answer):
                answer(self)
            elif answer is None:
                self.send_error(404)
            else:
                self.whole(answer)
        except OSError:
            pass  # it hung up, as it should at times
        self.close_connection = True

    def whole(self, content):
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def redirect(self, to):
        self.send_response(302)
        self.send_header("Location", to)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def endless(self):
        """Without a length: until somebody hangs up."""
        self.send_response(200)
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(b"\x7fELF")
        while True:
            self.wfile.write(bytes(1 << 16))

    def boast(self):
        self.send_response(200)
        self.send_header("Content-Length", str(1 << 50))
        self.end_headers()
        self.wfile.write(b"\x7fELF")

    def drip(self):
        self.send_response(200)
        self.send_header("Content-Length", "1000000")
        self.end_headers()
        for byte in b"\x7fELF" + bytes(1000):
            self.wfile.write(bytes([byte]))
            time.sleep(0.2)

    def cut(self):
        self.send_response(200)
        self.send_header("Content-Length", "100000")
        self.end_headers()
        self.wfile.write(b"\x7fELF" + bytes(1000))

    def headers_without_end(self):
        self.wfile.write(b"HTTP/1.1 200 OK\r\n")
        while True:
            self.wfile.write(b"X-More: " + b"x" * 1000 + b"\r\n")


class Server:
    def __init__(self, test):
        self.http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.http.answers, self.http.asked = {}, []
        self.answers, self.asked = self.http.answers, self.http.asked
        self.url = f"http://127.0.0.1:{self.http.server_port}"
        thread = threading.Thread(target=self.http.serve_forever)
        thread.start()
        test.addCleanup(thread.join)
        test.addCleanup(self.http.server_close)
        test.addCleanup(self.http.shutdown)


class Fetch:
    """A private sprofd-fetch."""

    def __init__(self, test, directory):
        self.cache, self.path = directory / "cache", directory / "fetch.sock"
        self.cache.mkdir()
        self.process = subprocess.Popen([FETCH, f"--socket={self.path}", f"--cache={self.cache}"])
        test.addCleanup(harness.end, self.process)
        harness.wait_for(self.listens, what="sprofd-fetch's socket")

    def listens(self):
        """Not yet when the socket is there: it is bound a moment before."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as client:
            return client.connect_ex(str(self.path)) == 0

    def files(self):
        return sorted(path.name for path in self.cache.iterdir())


def varint(n):
    out = b""
    while n >= 0x80:
        out += bytes([n & 0x7F | 0x80])
        n >>= 7
    return out + bytes([n])


def request(id, *urls, seconds=10, file_max=MIB, cache_max=64 * MIB):
    text = lambda field, value: bytes([field << 3 | 2]) + varint(len(value)) + value.encode()
    number = lambda field, value: bytes([field << 3]) + varint(value)
    return text(1, id) + b"".join(text(2, url) for url in urls) + number(3, seconds) + number(4, file_max) + number(5, cache_max)


class Protocol(Case):
    """sprofd-fetch alone, spoken to as sprofd speaks to it."""

    def setUp(self):
        self.server = Server(self)
        self.directory = Path(self.make_directory())
        self.fetch = Fetch(self, self.directory)
        self.socket = self.connect()

    def make_directory(self):
        import tempfile

        directory = tempfile.TemporaryDirectory(prefix="sprof-fetch.")
        self.addCleanup(directory.cleanup)
        return directory.name

    def connect(self):
        client = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        client.settimeout(30)
        client.connect(str(self.fetch.path))
        self.addCleanup(client.close)
        return client

    def reply(self):
        packet = self.socket.recv(8192)
        length = packet[1]
        id, rest = packet[2 : 2 + length].decode(), packet[2 + length :]
        self.assertEqual(rest[0], 2 << 3)
        return id, rest[1], rest[4:].decode() if len(rest) > 2 else ""

    def ask(self, id, *urls, **more):
        self.socket.send(request(id, *(urls or (self.server.url,)), **more))
        answered, state, why = self.reply()
        self.assertEqual(answered, id)
        return state, why

    def id(self, text):
        return hashlib.sha1(text.encode()).hexdigest()

    def test_a_file_is_fetched_once(self):
        id, content = self.id("good"), b"\x7fELF" + os.urandom(100000)
        self.server.answers[id] = content
        for _ in range(2):
            self.assertEqual(self.ask(id), (HERE, ""))
        self.assertEqual(self.server.asked, [f"/buildid/{id}/debuginfo"])
        self.assertEqual((self.fetch.cache / f"{id}.debug").read_bytes(), content)

    def test_nobody_has_it(self):
        id = self.id("nowhere")
        for _ in range(3):
            self.assertEqual(self.ask(id)[0], NOWHERE)
        self.assertEqual(len(self.server.asked), 1, "it is remembered")
        self.assertEqual(self.fetch.files(), [])

    def test_the_second_server_has_it(self):
        id, other = self.id("second"), Server(self)
        other.answers[id] = b"\x7fELF and more"
        self.assertEqual(self.ask(id, "http://127.0.0.1:1", self.server.url, other.url + "/"), (HERE, ""))

    def test_hostile_servers(self):
        deeds = {
            "endless": (Handler.endless, "max_mib"),
            "boast": (Handler.boast, "max_mib"),
            "large": (b"\x7fELF" + bytes(MIB), "max_mib"),
            "cut": (Handler.cut, ""),
            "page": (b"<html>welcome</html>", "no ELF file"),
            "empty": (b"", "no ELF file"),
            "three": (b"\x7fEL", "no ELF file"),
            "headers": (Handler.headers_without_end, ""),
            "error": (lambda h: h.send_error(500), ""),
            "loop": (lambda h: h.redirect(h.path), ""),
            "file": (lambda h: h.redirect("file:///bin/true"), ""),
            "ftp": (lambda h: h.redirect("ftp://127.0.0.1/bin/true"), ""),
        }  # fmt: skip
        for name, (deed, expected) in deeds.items():
            with self.subTest(name=name):
                id = self.id(name)
                self.server.answers[id] = deed
                state, why = self.ask(id)
                self.assertEqual(state, FAILED, why)
                self.assertIn(expected, why)
        self.assertEqual(self.fetch.files(), [])
        # And after all that it works.
        self.test_a_file_is_fetched_once_more()

    def test_a_file_is_fetched_once_more(self):
        id = self.id("moved")
        self.server.answers["elsewhere"] = b"\x7fELF" + bytes(MIB - 4)  # the largest that may be
        self.server.answers[id] = lambda h: h.redirect("/elsewhere")
        self.assertEqual(self.ask(id), (HERE, ""))

    def test_a_slow_server(self):
        slow, quick = self.id("slow"), self.id("quick")
        self.server.answers[slow] = Handler.drip
        self.server.answers[quick] = b"\x7fELF quick"
        begin = time.monotonic()
        self.socket.send(request(slow, self.server.url, seconds=3))
        self.assertEqual(self.ask(quick), (HERE, ""), "others do not wait for it")
        self.assertLess(time.monotonic() - begin, 3)
        self.assertEqual(self.reply()[:2], (slow, FAILED))
        self.assertLess(time.monotonic() - begin, 10)
        self.assertEqual(self.fetch.files(), [f"{quick}.debug"])

    def test_the_cache_keeps_within_its_size(self):
        ids = [self.id(f"file {i}") for i in range(6)]
        for id in ids:
            self.server.answers[id] = b"\x7fELF" + os.urandom(400_000)
        (self.fetch.cache / "somebody's file").write_text("not ours")
        for id in ids:
            self.assertEqual(self.ask(id, cache_max=MIB), (HERE, ""))
            self.assertEqual(self.ask(ids[0], cache_max=MIB), (HERE, ""), "what is used stays")
            sizes = [(self.fetch.cache / name).stat().st_size for name in self.fetch.files()]
            self.assertLessEqual(sum(sizes), MIB + 100)
        self.assertEqual(self.fetch.files(), sorted([f"{ids[0]}.debug", f"{ids[-1]}.debug", "somebody's file"]))
        self.assertEqual(self.server.asked.count(f"/buildid/{ids[0]}/debuginfo"), 1)

    def test_a_place_that_is_taken(self):
        id = self.id("taken")
        self.server.answers[id] = b"\x7fELF"
        (self.fetch.cache / f"{id}.debug").mkdir()
        state, why = self.ask(id)
        self.assertEqual(state, FAILED)
        self.assertIn("cannot be written", why)
        self.assertEqual(self.fetch.files(), [f"{id}.debug"])

    def test_malformed_requests(self):
        good = self.id("good")
        self.server.answers[good] = b"\x7fELF good"
        for packet in (b"\xff" * 64, request("../../etc/passwd", self.server.url), request("ABCDEF0123", self.server.url),
                       request("abc", self.server.url), request("a" * 130, self.server.url), request(good), request(good, ""),
                       request(good, "x" * 600), request(good, *["http://127.0.0.1:1"] * 9), request(good, self.server.url, seconds=0),
                       request(good, self.server.url, seconds=601), request(good, self.server.url, file_max=0)):  # fmt: skip
            client = self.connect()
            client.send(packet)
            self.assertEqual(client.recv(100), b"", packet[:40])
        state, why = self.ask(self.id("scheme"), "file:///bin/true?")
        self.assertEqual(state, FAILED, why)
        self.assertEqual(self.ask(good), (HERE, ""))
        self.assertEqual(self.fetch.files(), [f"{good}.debug"])


class Names(Case):
    """The way from the server to the profile."""

    def setUp(self):
        self.server = Server(self)
        self.directory = Path(Protocol.make_directory(self))
        self.fetch = Fetch(self, self.directory)
        self.program = self.directory / "spin"
        self.debug = self.directory / "debug"
        subprocess.run(["objcopy", "--only-keep-debug", harness.TARGETS / "spin", self.debug], check=True)
        subprocess.run(["objcopy", "--strip-all", harness.TARGETS / "spin", self.program], check=True)
        self.id = build_id(self.program)

    def start(self, urls=True):
        config = (f"[debuginfod]\nsocket = {self.fetch.path}\ncache_dir = {self.fetch.cache}\n" + (f"urls = {self.server.url}\n" if urls else ""))
        self.daemon = Daemon(self, config=config)
        self.target = Target(self, "spin", path=self.program)
        self.daemon.attach(self.target.pid, 999)
        harness.let_run(self.target.pid, 0.5)

    def lines(self):
        """Of a_heavy, in one pull more."""
        profile = self.daemon.pull(self.target.pid)
        return {line for s in profile.samples for l in s.locations for f, line in l.lines if f.name == "a_heavy"}

    def test_a_stripped_program(self):
        self.server.answers[self.id] = self.debug.read_bytes()
        self.start()
        lines = harness.wait_for(self.lines, 30, "the debug file")
        self.assertTrue(all(line > 0 for line in lines), lines)
        self.assertEqual(self.server.asked.count(f"/buildid/{self.id}/debuginfo"), 1)

    def test_off_by_default(self):
        self.server.answers[self.id] = self.debug.read_bytes()
        self.start(urls=False)
        self.assertEqual(self.lines(), set())
        self.assertEqual(self.server.asked, [])

    def test_another_programs_debug_file(self):
        self.server.answers[self.id] = (harness.TARGETS / "spin_fixed").read_bytes()
        self.start()
        harness.wait_for(lambda: f"{self.id}.debug" in self.fetch.files() or self.lines(), 30, "the wrong file")
        for _ in range(3):
            self.assertEqual(self.lines(), set())
            time.sleep(1)

    def test_a_server_that_is_slow_at_first(self):
        """The pull does not wait for it; a later one has the names."""
        go_on = threading.Event()
        self.addCleanup(go_on.set)
        content = self.debug.read_bytes()
        self.server.answers[self.id] = lambda handler: (go_on.wait(60), handler.whole(content))
        self.start()
        begin = time.monotonic()
        self.assertEqual(self.lines(), set())
        self.assertLess(time.monotonic() - begin, 15)
        go_on.set()
        self.assertTrue(harness.wait_for(self.lines, 30, "the debug file"))

    def test_without_sprofd_fetch(self):
        self.fetch.process.kill()
        self.start()
        self.assertEqual(self.lines(), set())
        self.assertTrue(self.daemon.pull(self.target.pid).samples)


if __name__ == "__main__":
    harness.main()
