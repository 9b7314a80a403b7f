"""Waits until a server takes connections at both of its addresses."""

import argparse
import os
import socket
import sys
import time

# Opening a large store takes a while; a server that needs longer has failed.
PATIENCE = 30.0


def connects(family, address):
    with socket.socket(family) as probe:
        return probe.connect_ex(address) == 0


def alive(pid):
    try:
        # A child that has ended stays until its parent asks; 0 signals only who is there.
        os.kill(pid, 0)
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def main():
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--pid", type=int, required=True)
    options.add_argument("--tcp", required=True)
    options.add_argument("--unix", required=True)
    wanted = options.parse_args()
    host, port = wanted.tcp.rsplit(":", 1)
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        if not alive(wanted.pid):
            sys.exit("the server ended before it took connections")
        if connects(socket.AF_INET, (host, int(port))) and connects(socket.AF_UNIX, wanted.unix):
            return
        time.sleep(0.02)
    sys.exit(f"the server took no connections within {PATIENCE:.0f} s")


main()
