"""Writes a small stripped program of Go's form, for the corpus of fuzz_elf: two functions, a call inlined into a call inlined into the first, and the moduledata
by which the trees of inlined calls are found.

    python3 tests/fuzz/make_go_elf.py tests/fuzz/corpus/elf/go.elf"""
import struct
import sys

TEXT, RODATA, TABLE, DATA = 0x401000, 0x402000, 0x403000, 0x404000
FUNCTION_BYTES = 32


def varint(number):
    out = b""
    while number >= 0x80:
        out += bytes([number & 0x7F | 0x80])
        number >>= 7
    return out + bytes([number])


def values(*pairs):
    """(value, bytes of code that have it)..."""
    out, last = b"", -1
    for value, code in pairs:
        delta = value - last
        out += varint(delta * 2 if delta >= 0 else -delta * 2 - 1) + varint(code)
        last = value
    return out + b"\0"


class Pool(bytearray):
    def put(self, what):
        at = len(self)
        self.extend(what)
        return at


def function(start, name, pools, inlined):
    """Its record: the fixed part, three kinds of values, four of data."""
    _, pctab = pools
    sp, file = pctab.put(values((0, 4), (24, FUNCTION_BYTES - 4))), pctab.put(values((0, FUNCTION_BYTES)))
    line = pctab.put(values((start + 10, 8), (start + 20, 8), (start + 12, FUNCTION_BYTES - 16)))
    index = pctab.put(values((-1, 8), (1, 8), (0, 8), (-1, FUNCTION_BYTES - 24))) if inlined else 0
    fixed = struct.pack("<IiiIIIIIIiBBBB", start, name, 0, 0, sp, file, line, 3, 0, start + 9, 0, 0, 0, 4)
    return fixed + struct.pack("<3I", 0, 0, index) + struct.pack("<4I", *[0xFFFFFFFF] * 3, 0 if inlined else 0xFFFFFFFF)


def table():
    names, pctab = Pool(b"\0"), Pool(b"\0")
    outer, inner, innermost, other = (names.put(text + b"\0") for text in (b"main.outer", b"main.inner", b"main.innermost", b"main.other"))
    records = [function(0, outer, (names, pctab), True), function(FUNCTION_BYTES, other, (names, pctab), False)]
    files, units = b"/src/main.go\0", struct.pack("<I", 0)
    entries = 2 * 8 + 4
    functab = struct.pack("<5I", 0, entries, FUNCTION_BYTES, entries + len(records[0]), 2 * FUNCTION_BYTES)
    pieces, at, offsets = [bytes(names), units, files, bytes(pctab), functab + b"".join(records)], 72, []
    for i, piece in enumerate(pieces):
        offsets.append(at)
        pieces[i] = piece + b"\0" * (-len(piece) % 8)
        at += len(pieces[i])
    header = struct.pack("<IBBBB", 0xFFFFFFF1, 0, 0, 1, 8) + struct.pack("<8Q", 2, 1, TEXT, *offsets)
    # name, the call in the function that holds it, start line
    trees = struct.pack("<B3xiii", 0, inner, 4, 30) + struct.pack("<B3xiii", 0, innermost, 16, 40)
    return header + b"".join(pieces), trees, offsets[0]


def main():
    pclntab, trees, names_at = table()
    module = [0] * 42
    module[0], module[1], module[22], module[40] = TABLE, TABLE + names_at, TEXT, RODATA
    contents = [
        (".text", 6, TEXT, b"\x90" * (2 * FUNCTION_BYTES)),
        (".rodata", 2, RODATA, trees),
        (".gopclntab", 2, TABLE, pclntab),
        (".noptrdata", 3, DATA, struct.pack("<42Q", *module)),
        (".go.buildinfo", 3, DATA + 0x400, b"\xff Go buildinf:\x08\2".ljust(32, b"\0")),
    ]
    names, headers, segments, body = b"\0", [b"\0" * 64], b"", b""
    at = 64 + 56 * len(contents)
    for name, flags, address, data in contents:
        offset = at + len(body)
        segments += struct.pack("<IIQQQQQQ", 1, 4 | (flags & 4) >> 2 | (flags & 1) << 1, offset, address, address, len(data), len(data), 1)
        headers.append(struct.pack("<IIQQQQIIQQ", len(names), 1, flags, address, offset, len(data), 0, 0, 8, 0))
        names += name.encode() + b"\0"
        body += data + b"\0" * (-len(data) % 8)
    headers.append(struct.pack("<IIQQQQIIQQ", len(names), 3, 0, 0, at + len(body), len(names) + 10, 0, 0, 1, 0))
    body += names + b".shstrtab\0"
    body += b"\0" * (-len(body) % 8)
    head = b"\x7fELF\2\1\1".ljust(16, b"\0") + struct.pack(
        "<HHIQQQIHHHHHH", 2, 62, 1, TEXT, 64, at + len(body), 0, 64, 56, len(contents), 64, len(headers), len(headers) - 1)  # fmt: skip
    with open(sys.argv[1], "wb") as out:
        out.write(head + segments + body + b"".join(headers))


if __name__ == "__main__":
    main()
