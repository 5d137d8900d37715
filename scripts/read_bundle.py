#!/usr/bin/env python3
"""Reads a .kfr bundle by docs/FORMAT.md alone: proof that the page is complete, and a start for other languages.

    read_bundle.py FILE [--rows]

Prints a JSON line for the file header, one for each block, and with --rows one for each row. Needs Python 3.9 and, for
decompression, the `zstandard` module, Python 3.14's own, or the `zstd` program.
"""

import json
import struct
import subprocess
import sys

FILE_MAGIC = b"KFR\0\r\n\x1a\n"
BLOCK_MAGIC = b"\x8bKfrBlk\x1c"
TRAILER_MAGIC = b"\x8bKfrEnd\x1d"
FILE_HEADER, BLOCK_HEADER, TRAILER = 512, 96, 32
MAX_RAW = 64 << 20
KINDS = {1: "manifest", 2: "data", 3: "sockets", 4: "states", 5: "tcp", 6: "process_events", 7: "processes", 8: "host",
         9: "anchors", 10: "ledger", 11: "kube", 12: "symbols", 13: "sources", 14: "containers", 15: "logs",
         16: "log_counts", 17: "conntrack", 65535: "index"}

CRC_TABLE = []
for index in range(256):
    crc = index
    for _ in range(8):
        crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    CRC_TABLE.append(crc)


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ CRC_TABLE[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF


def decompress(frame, length):
    try:
        import zstandard
        return zstandard.ZstdDecompressor().decompress(frame, max_output_size=length)
    except ImportError:
        pass
    try:
        from compression import zstd
        return zstd.decompress(frame)
    except ImportError:
        return subprocess.run(["zstd", "-dc"], input=frame, capture_output=True, check=True).stdout


class Malformed(Exception):
    pass


# File header, blocks, footer


def file_header(data):
    if data[:8] != FILE_MAGIC or len(data) < 20:
        return None
    major, minor, length, crc = struct.unpack_from("<HHII", data, 8)
    if length < 20 or length > len(data) or crc32c(data[:16] + bytes(4) + data[20:length]) != crc:
        return None
    if major > 0:
        sys.exit(f"format {major}.{minor} is newer than 0.1, which this script reads")
    created, clock_ns, clock, redaction, encryption, node = struct.unpack_from("<QQHHHH", data, 72)
    return {"format": f"{major}.{minor}", "bundle_id": data[24:40], "derived_from": data[40:56], "boot_id": data[56:72],
            "created_realtime_ns": created, "created_clock_ns": clock_ns, "clock": clock, "redaction": redaction,
            "encryption": encryption, "node": data[96:96 + node].decode("utf-8", "replace")}


def block_header(data, at, bundle_id):
    if data[at:at + 8] != BLOCK_MAGIC or at + BLOCK_HEADER > len(data):
        return None
    length, kind, crc = struct.unpack_from("<HHI", data, at + 8)
    header = data[at:at + length]
    if not BLOCK_HEADER <= length <= 512 or len(header) != length:
        return None
    if crc32c(bundle_id + header[:12] + bytes(4) + header[16:]) != crc:
        return None
    names = ["sequence", "schema", "flags", "stream", "rows", "first_row", "min_time_ns", "max_time_ns",
             "compressed_len", "raw_len", "payload_crc"]
    block = dict(zip(names, struct.unpack_from("<QHHIIIQQIII", header, 32)))
    block.update(kind=kind, origin=header[16:32], offset=at, header_len=length)
    block["end"] = at + length + block["compressed_len"]
    return block


def payload(data, block):
    frame = data[block["offset"] + block["header_len"]:block["end"]]
    if len(frame) != block["compressed_len"] or crc32c(frame) != block["payload_crc"]:
        raise Malformed("checksum")
    if block["raw_len"] > MAX_RAW or block["flags"] & 0xFF00:
        raise Malformed("not readable by this version")
    raw = decompress(frame, block["raw_len"])
    if len(raw) != block["raw_len"]:
        raise Malformed("size")
    return raw


def index(data, header):
    """The blocks by the footer, or None if it is missing or can't be trusted."""
    at = len(data) - TRAILER
    trailer = data[at:]
    if at < 0 or trailer[:8] != TRAILER_MAGIC:
        return None
    start, length, crc = struct.unpack_from("<QQI", trailer, 8)
    if crc32c(header["bundle_id"] + trailer[:24] + bytes(4) + trailer[28:]) != crc or length != len(data):
        return None
    block = block_header(data, start, header["bundle_id"])
    if not block or block["kind"] != 65535 or block["end"] != at - FILE_HEADER:
        return None
    try:
        rows = columns(payload(data, block), block)
    except Malformed:
        return None
    at, blocks = 1024, []
    for row in rows:
        found = block_header(data, at, header["bundle_id"])
        wanted = {name: value for name, value in row.items() if name not in ("rows_in_block", "row_number")}
        wanted["rows"] = row["rows_in_block"]
        if row["offset"] != at:
            return None
        if found is None:
            # The header is damaged: the index stands in, and the payload's checksum tells.
            found = dict(wanted, end=at + row["header_len"] + row["compressed_len"])
        elif any(found[name] != value for name, value in wanted.items()):
            return None
        blocks.append(found)
        at = found["end"]
    return blocks if at == start else None


def scan(data, header):
    """The blocks without the footer, and the damaged regions."""
    blocks, damage, seen, at, follows = [], [], set(), 1024, False

    def search(at):
        while (at := data.find(BLOCK_MAGIC, at)) >= 0:
            block = block_header(data, at, header["bundle_id"])
            if block and (block["origin"], block["sequence"], block["first_row"]) not in seen:
                return at
            at += 1
        return len(data)

    while at < len(data):
        block = block_header(data, at, header["bundle_id"])
        if block and block["end"] <= len(data):
            if block["kind"] == 65535:
                at = min(block["end"] + FILE_HEADER + TRAILER, len(data))
                continue
            blocks.append(block)
            seen.add((block["origin"], block["sequence"], block["first_row"]))
            at, follows = block["end"], True
            continue
        if follows:
            before = blocks[-1]
            start = before["offset"] + before["header_len"]
            if crc32c(data[start:before["end"]]) != before["payload_crc"]:
                blocks.pop()
                next_at = search(start)
                damage.append((before["offset"], min(next_at, before["end"])))
                if next_at < before["end"]:
                    at, follows = next_at, False
                    continue
        next_at = search(at + (block["header_len"] if block else 1))
        damage.append((at, next_at))
        at, follows = next_at, False
    return blocks, damage


# MessagePack


def unpack(data, at=0, depth=0):
    """One value, and where it ends."""
    if depth > 32:
        raise Malformed("nesting")
    try:
        return unpack_checked(data, at, depth)
    except (IndexError, struct.error) as error:
        raise Malformed("MessagePack") from error


def unpack_checked(data, at, depth):
    marker = data[at]
    at += 1

    def number(form):
        return struct.unpack_from(form, data, at)[0], at + struct.calcsize(form)

    def run(length, at):
        if at + length > len(data):
            raise Malformed("MessagePack")
        return data[at:at + length], at + length

    def items(count, at):
        if count > len(data):
            raise Malformed("MessagePack")
        values = []
        for _ in range(count):
            value, at = unpack(data, at, depth + 1)
            values.append(value)
        return values, at

    def pairs(count, at):
        values, at = items(2 * count, at)
        return {key if isinstance(key, (str, int)) else repr(key): value
                for key, value in zip(values[::2], values[1::2])}, at

    if marker <= 0x7F:
        return marker, at
    if marker <= 0x8F:
        return pairs(marker & 15, at)
    if marker <= 0x9F:
        return items(marker & 15, at)
    if marker <= 0xBF:
        text, at = run(marker & 31, at)
        return text.decode("utf-8", "replace"), at
    if marker >= 0xE0:
        return marker - 256, at
    simple = {0xC0: None, 0xC2: False, 0xC3: True}
    if marker in simple:
        return simple[marker], at
    forms = {0xCA: ">f", 0xCB: ">d", 0xCC: ">B", 0xCD: ">H", 0xCE: ">I", 0xCF: ">Q", 0xD0: ">b", 0xD1: ">h",
             0xD2: ">i", 0xD3: ">q"}
    if marker in forms:
        return number(forms[marker])
    if 0xC4 <= marker <= 0xC6:
        length, at = number((">B", ">H", ">I")[marker - 0xC4])
        return run(length, at)
    if 0xC7 <= marker <= 0xC9:
        length, at = number((">B", ">H", ">I")[marker - 0xC7])
        return run(length + 1, at)
    if 0xD4 <= marker <= 0xD8:
        return run(1 + (1 << marker - 0xD4), at)
    if 0xD9 <= marker <= 0xDB:
        length, at = number((">B", ">H", ">I")[marker - 0xD9])
        text, at = run(length, at)
        return text.decode("utf-8", "replace"), at
    if marker in (0xDC, 0xDD):
        count, at = number(">H" if marker == 0xDC else ">I")
        return items(count, at)
    if marker in (0xDE, 0xDF):
        count, at = number(">H" if marker == 0xDE else ">I")
        return pairs(count, at)
    raise Malformed("MessagePack")


# Columns

U64 = 1 << 64
ROWS = {
    3: "time_ns:64 sequence:64 cpu:16 thread:32 process:32 socket:64 netns:64 cgroup:64 peer:64 inode:64 opened_ns:64 "
       "local_address:[16] remote_address:[16] local_port:16 remote_port:16 family:16 socket_type:16 protocol:16 role:8 "
       "state:8 sent_sequence:32 received_sequence:32 first_sent_sequence:32 first_received_sequence:32 offset_kind:8 "
       "seen_by:8 path_length:16 comm:[16] path:[108]",
    4: "time_ns:64 sequence:64 cpu:16 thread:32 process:32 socket:64 netns:64 cgroup:64 bytes_acknowledged:64 "
       "bytes_received:64 local_address:[16] remote_address:[16] asked_address:[16] local_port:16 remote_port:16 "
       "asked_port:16 asked_family:16 family:16 old_state:8 new_state:8 sent_sequence:32 received_sequence:32 rtt_us:32 "
       "rtt_min_us:32 retransmits:32 error:32",
    5: "time_ns:64 sequence:64 cpu:16 socket:64 netns:64 local_address:[16] remote_address:[16] local_port:16 "
       "remote_port:16 family:16 what:8 state:8",
    6: "time_ns:64 sequence:64 cpu:16 thread:32 process:32 cgroup:64 start_ns:64 parent:32 namespace_process:32 "
       "exit_status:32 what:8 arguments_length:16 comm:[16] arguments:[256]",
    9: "boottime_ns:64 realtime_ns:64 monotonic_ns:64 uncertainty_ns:64",
    65535: "offset:64 origin:[16] sequence:64 kind:16 schema:16 flags:16 stream:32 rows_in_block:32 first_row:32 "
           "min_time_ns:64 max_time_ns:64 header_len:16 compressed_len:32 raw_len:32 payload_crc:32",
}


def varints(column, count):
    if column is None:
        return [0] * count
    values, value, shift = [], 0, 0
    for byte in column:
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            values.append(value)
            value = shift = 0
        elif shift > 63:
            raise Malformed("varint")
    if shift or len(values) != count or any(value >= U64 for value in values):
        raise Malformed("column")
    return values


def zigzags(column, count):
    return [value >> 1 ^ -(value & 1) for value in varints(column, count)]


def cells(column, kind, count):
    if kind.startswith("["):
        size = int(kind[1:-1])
        if column is None:
            return [bytes(size)] * count
        if len(column) != size * count:
            raise Malformed("column")
        return [column[at * size:(at + 1) * size] for at in range(count)]
    if kind == "8":
        if column is not None and len(column) != count:
            raise Malformed("column")
        return list(column or bytes(count))
    return within(column, count, int(kind), [0] * count)


def within(column, count, bits, groups, starts=None):
    """Differences from the row before of the same group."""
    last, values = dict(starts or {}), []
    for group, difference in zip(groups, zigzags(column, count)):
        last[group] = (last.get(group, 0) + difference) % U64
        values.append(last[group])
    if any(value >> bits for value in values):
        raise Malformed("column")
    return values


def count_of(content, name, most, default=0):
    count = content.get(name, default)
    if not isinstance(count, int) or not 0 <= count <= most:
        raise Malformed(name)
    return count


def columns(raw, block):
    content, end = unpack(raw)
    if not isinstance(content, dict) or end != len(raw):
        raise Malformed("no map of columns")
    count = count_of(content, "rows", min(len(raw), 1 << 20))
    table = data_columns(content, count) if block["kind"] == 2 else {}
    for entry in ROWS.get(block["kind"], "").split():
        name, kind = entry.split(":")
        table[name] = cells(content.get(name), kind, count)
    number, numbers = block["first_row"] - 1, []
    for difference in zigzags(content.get("row"), count):
        number += 1 + difference
        numbers.append(number)
    table["row_number"] = numbers
    return [dict(zip(table, values)) for values in zip(*table.values())]


def data_columns(content, count):
    get = content.get
    flows = count_of(content, "flows", count, min(count, 1))
    sockets, processes = cells(get("flow_socket"), "64", flows), cells(get("flow_process"), "32", flows)
    directions, offset_kinds = cells(get("flow_direction"), "8", flows), cells(get("flow_offset_kind"), "8", flows)
    flow = varints(get("flow"), count)
    if any(number >= flows for number in flow):
        raise Malformed("flow")
    cpu = within(get("cpu"), count, 16, flow)
    lengths, cuts = varints(get("length"), count), varints(get("cut"), count)
    offsets, expected = [], {}
    for number, length, difference in zip(flow, lengths, zigzags(get("offset"), count)):
        offset = (expected.get(number, 0) + difference) % U64
        offsets.append(offset)
        expected[number] = offset + (1 if offset_kinds[number] == 2 else length)
    kept = [(length - cut) % (1 << 32) for length, cut in zip(lengths, cuts)]
    arena, start, starts, sizes = get("payload") or b"", 0, [], [0] * flows
    for number, size in zip(flow, kept):
        sizes[number] += size
    for size in sizes:
        starts.append(start)
        start += size
    if start != len(arena):
        raise Malformed("payload")
    payloads = []
    for number, size in zip(flow, kept):
        payloads.append(arena[starts[number]:starts[number] + size])
        starts[number] += size
    peers = count_of(content, "peers", count)
    peer_table = [None] + list(zip(cells(get("peer_family"), "16", peers), cells(get("peer_address"), "[16]", peers),
                                   cells(get("peer_port"), "16", peers)))
    peer = varints(get("peer"), count)
    if any(number > peers for number in peer):
        raise Malformed("peer")
    return {
        "time_ns": cells(get("time_ns"), "64", count), "sequence": within(get("sequence"), count, 64, cpu), "cpu": cpu,
        "thread": within(get("thread"), count, 32, flow, enumerate(processes)),
        "process": [processes[number] for number in flow], "socket": [sockets[number] for number in flow],
        "offset": offsets, "length": lengths, "age_ns": varints(get("age_ns"), count),
        "direction": [directions[number] for number in flow],
        "offset_kind": [offset_kinds[number] for number in flow], "missing": cells(get("missing"), "8", count),
        "peer": [peer_table[number] for number in peer], "payload": payloads,
    }


def rows(raw, block):
    if block["kind"] in ROWS or block["kind"] == 2:
        return columns(raw, block)
    if block["kind"] not in KINDS:
        return []
    content, _ = unpack(raw)
    return content if isinstance(content, list) else []


def show(**values):
    print(json.dumps(values, default=bytes.hex, sort_keys=True))


def main():
    with open(sys.argv[1], "rb") as file:
        data = file.read()
    copies = [data[:512], data[512:1024], data[max(0, len(data) - 544):][:512]]
    header = next((found for found in map(file_header, copies) if found), None)
    if header is None:
        sys.exit("no KFR bundle, or every copy of its file header is damaged")
    show(**header)
    blocks, damage = index(data, header), []
    if blocks is None:
        blocks, damage = scan(data, header)
    bad = 0
    for block in blocks:
        name = f"{block['origin'][:4].hex()}.{block['sequence']}"
        try:
            content = rows(payload(data, block), block)
        except Malformed as error:
            bad += 1
            show(block=name, error=str(error))
            continue
        show(block=name, kind=KINDS.get(block["kind"], block["kind"]), rows=block["rows"], offset=block["offset"])
        if "--rows" in sys.argv:
            for number, row in enumerate(content, block["first_row"]):
                number = row.pop("row_number", number) if isinstance(row, dict) else number
                show(address=f"{name}:{number}", row=row)
    show(blocks=len(blocks) - bad, bad=bad, damage=damage)


if __name__ == "__main__":
    main()
