"""An interface without a network behind it, which answers echo requests: `tunnel.py tun|tap NAME`.

tun: packets without an Ethernet header. tap: with one, and answers that carry a VLAN tag with a priority and no number.
"""

import fcntl
import os
import struct
import sys

TUNSETIFF = 0x400454CA
MODES = {"tun": 0x0001, "tap": 0x0002}
NO_PACKET_INFORMATION = 0x1000


def add(checksum, difference):
    """The checksum of a message one word of which has grown by that."""
    total = (~checksum & 0xFFFF) + (difference & 0xFFFF)
    if difference < 0:
        total -= 1
    return ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF


def reply(packet):
    """To an echo request; None to anything else. Addresses change places, which no checksum sees."""
    if packet[0] >> 4 == 4:
        at, request, answer = (packet[0] & 15) * 4, 8, 0
        is_icmp, source, length = packet[9] == 1, 12, 4
    else:
        at, request, answer = 40, 128, 129
        is_icmp, source, length = packet[6] == 58, 8, 16
    if not is_icmp or packet[at] != request:
        return None
    middle = source + length
    packet[source : middle + length] = packet[middle : middle + length] + packet[source:middle]
    packet[at] = answer
    checksum = struct.unpack_from("!H", packet, at + 2)[0]
    struct.pack_into("!H", packet, at + 2, add(checksum, (answer - request) << 8))
    return packet


def main():
    mode, name = sys.argv[1:]
    interface = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(interface, TUNSETIFF, struct.pack("16sH22x", name.encode(), MODES[mode] | NO_PACKET_INFORMATION))
    print("ready", flush=True)
    while True:
        try:
            packet = bytearray(os.read(interface, 65536))
        except OSError:
            # It is down: no packets until it is up.
            continue
        header = b""
        if mode == "tap":
            header, packet = packet[:14], packet[14:]
            if header[12:] not in (b"\x08\x00", b"\x86\xdd"):
                continue
            header = header[6:12] + header[:6] + b"\x81\x00\xe0\x00" + header[12:]
        answer = reply(packet)
        if answer is not None:
            os.write(interface, header + answer)


main()
