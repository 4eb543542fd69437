"""Two home networks, their routers and an internet between them, in network namespaces of this machine.

  node A -- router A --+-- the internet (STUN and TURN) --+-- router B -- node B
10.0.1.2    11.0.113.10          11.0.113.1              11.0.113.20   10.0.2.2
"""

from __future__ import annotations

import datetime
import os
import subprocess
import sys
import tempfile
from ipaddress import ip_address
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from . import netns
from .netns import Machine

__all__ = ["INTERNET", "INTERNET_TOO", "Lab", "reason_against"]

INTERNET: Final = "11.0.113.1"
"""Where the servers are. A range that counts as public, and leads nowhere from inside."""
INTERNET_TOO: Final = "11.0.113.2"
"""The same server at another address: a symmetric NAT shows another port there."""
_NEEDED: Final = ("ip", "nft", "turnserver")
_WAIT_FOR_TURN: Final = f"""
import socket, time
end = time.monotonic() + 10
while True:
    try:
        socket.create_connection(("{INTERNET}", 3478), 1).close()
        break
    except OSError:
        assert time.monotonic() < end
"""
_WAIT_FOR_NAT_PMP: Final = """
import socket, time
end = time.monotonic() + 10
with socket.socket(type=socket.SOCK_DGRAM) as router:
    router.settimeout(0.2)
    while True:
        try:
            router.sendto(bytes(2), ("10.0.1.1", 5351))
            router.recv(100)
            break
        except OSError:
            assert time.monotonic() < end
"""
_MINIUPNPD: Final = """
ext_ifname=wan
listening_ip=lan
http_port=0
enable_natpmp=yes
enable_upnp=yes
secure_mode=yes
upnp_table_name=filter
upnp_nat_table_name=nat
upnp_forward_chain=miniupnpd
upnp_nat_chain=prerouting_miniupnpd
upnp_nat_postrouting_chain=postrouting_miniupnpd
uuid=00000000-0000-0000-0000-000000000000
allow 1024-65535 0.0.0.0/0 1024-65535
deny 0-65535 0.0.0.0/0 0-65535
"""
_MINIUPNPD_CHAINS: Final = """
table inet filter {
    chain miniupnpd { }
    chain forward {
        type filter hook forward priority -10; policy accept;
        jump miniupnpd
    }
}
table inet nat {
    chain prerouting_miniupnpd { }
    chain postrouting_miniupnpd { }
    chain prerouting {
        type nat hook prerouting priority -100; policy accept;
        jump prerouting_miniupnpd
    }
    chain postrouting {
        type nat hook postrouting priority 101; policy accept;
        jump postrouting_miniupnpd
    }
}
"""


def _certify(host: str, certificate: Path, key: Path) -> None:
    """Write a certificate for an address, and its key. It is its own authority."""
    secret = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)])
    begins = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=1)
    made = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(secret.public_key())
    made = made.serial_number(1).not_valid_before(begins).not_valid_after(begins + datetime.timedelta(days=9))
    made = made.add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address(host))]), critical=False)
    signed = made.sign(secret, hashes.SHA256())
    certificate.write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    plain = serialization.NoEncryption()
    form = serialization.PrivateFormat.PKCS8
    key.write_bytes(secret.private_bytes(serialization.Encoding.PEM, form, plain))


def reason_against(*more: str) -> str:
    """Return why no lab can be built here, or with these commands besides, or an empty string."""
    return netns.reason_against((*_NEEDED, *more), "iproute2, nftables, coturn, miniupnpd")


class Lab:
    """The whole of it. `kinds` of the two routers: "cone" or "symmetric"; `no_udp` names the side that drops UDP.

    Several at once need different `marks`.
    """

    def __init__(self, kinds: tuple[str, str], *, no_udp: str = "", mark: str = "") -> None:
        self._name = f"mn{os.getpid()}{mark}"
        self._turn: subprocess.Popen[bytes] | None = None
        self._daemons: list[subprocess.Popen[bytes]] = []
        self._kinds = dict(zip("AB", kinds, strict=True))
        self._no_udp = no_udp
        self._folder = tempfile.TemporaryDirectory(prefix="musignet-lab-")

    def __enter__(self) -> Lab:
        try:
            self._build()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def inside(self, place: str) -> list[str]:
        """Return how a command is run at a place: "pub", "natA", "natB", "A" or "B"."""
        return ["ip", "netns", "exec", self._ns(place)]

    def machine(self, place: str) -> Machine:
        """Return a place as a machine of its own."""
        addresses = {"pub": INTERNET, "A": "10.0.1.2", "B": "10.0.2.2"}
        return Machine(self._ns(place), addresses[place])

    @property
    def authority(self) -> Path:
        """Whom the internet's TLS servers have their certificates from: the value of SSL_CERT_FILE."""
        return Path(self._folder.name) / "certificate.pem"

    def start_turn(self) -> None:
        """Start coturn on the internet, and wait until it listens: user u, password p, and TLS at port 5349."""
        folder = Path(self._folder.name)
        _certify(INTERNET, self.authority, folder / "key.pem")
        options = f"""-n --no-cli --listening-ip={INTERNET}
            --listening-ip={INTERNET_TOO} --relay-ip={INTERNET} --lt-cred-mech --user=u:p --realm=lab
            --no-dtls --cert={self.authority} --pkey={folder / "key.pem"}
            --userdb={folder / "turndb"} --pidfile={folder / "turn.pid"} --log-file=stdout"""
        command = [*self.inside("pub"), "turnserver", *options.split()]
        self._turn = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self._daemons.append(self._turn)
        self._run([*self.inside("pub"), sys.executable, "-c", _WAIT_FOR_TURN])

    def start_miniupnpd(self, side: str = "A") -> None:
        """Let the router of a side forward ports by UPnP and NAT-PMP."""
        folder = Path(self._folder.name)
        (folder / "miniupnpd.conf").write_text(_MINIUPNPD)
        self._run([*self.inside(f"nat{side}"), "nft", "-f", "-"], _MINIUPNPD_CHAINS)
        options = f"-d -f {folder / 'miniupnpd.conf'} -P {folder / 'miniupnpd.pid'}"
        command = [*self.inside(f"nat{side}"), "miniupnpd", *options.split()]
        self._daemons.append(subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
        self._run([*self.inside(side), sys.executable, "-c", _WAIT_FOR_NAT_PMP])

    def forward(self, side: str, port: int) -> None:
        """Let the router of a side forward a TCP port, as its owner would by hand. Its address is `outside(side)`."""
        rule = f'iifname "wan" tcp dport {port} dnat to 10.0.{"AB".index(side) + 1}.2'
        rules = f"add chain ip nat pre {{ type nat hook prerouting priority -100; }}\nadd rule ip nat pre {rule}\n"
        self._run([*self.inside(f"nat{side}"), "nft", "-f", "-"], rules)

    @staticmethod
    def outside(side: str) -> str:
        """Return where the internet sees a side."""
        return {"A": "11.0.113.10", "B": "11.0.113.20"}[side]

    def signal_turn(self, number: int) -> None:
        """Send coturn a signal: SIGSTOP makes it stall."""
        assert self._turn is not None
        self._turn.send_signal(number)

    def close(self) -> None:
        """Take everything down."""
        for process in self._daemons:
            process.kill()
            process.wait()
        for place in ("pub", "natA", "natB", "A", "B"):
            subprocess.run(["ip", "netns", "del", self._ns(place)], capture_output=True, check=False)
        self._folder.cleanup()

    # --- building -----------------------------------------------------------------------------------------------------

    def _ns(self, place: str) -> str:
        return f"{self._name}{place}"

    def _run(self, command: list[str], text: str = "") -> None:
        done = subprocess.run(command, input=text, text=True, capture_output=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)}: {done.stderr}")

    def _ip(self, place: str, command: str) -> None:
        self._run(["ip", "-n", self._ns(place), *command.split()])

    def _build(self) -> None:
        for place in ("pub", "natA", "natB", "A", "B"):
            self._run(["ip", "netns", "add", self._ns(place)])
            self._ip(place, "link set lo up")
        # coturn ends a session whose peer has no route: everything unknown falls into a hole.
        for command in ("link add br0 type bridge", f"addr add {INTERNET}/24 dev br0",
            f"addr add {INTERNET_TOO}/24 dev br0", "link set br0 up",
                        "link add sink type bridge", "link set sink up", "route add default dev sink"):  # fmt: skip
            self._ip("pub", command)
        self._home("A", 1, 10)
        self._home("B", 2, 20)

    def _home(self, side: str, network: int, outside: int) -> None:
        router = f"nat{side}"
        self._ip(router, f"link add wan type veth peer name p{side} netns {self._ns('pub')}")
        self._ip("pub", f"link set p{side} master br0 up")
        self._ip(router, f"link add lan type veth peer name eth0 netns {self._ns(side)}")
        for place, command in (
            (router, f"addr add 11.0.113.{outside}/24 dev wan"),
            (router, "link set wan up"),
            (router, f"route add default via {INTERNET}"),
            (router, f"addr add 10.0.{network}.1/24 dev lan"),
            (router, "link set lan up"),
            (side, f"addr add 10.0.{network}.2/24 dev eth0"),
            (side, "link set eth0 up"),
            (side, f"route add default via 10.0.{network}.1"),
        ):
            self._ip(place, command)
        self._run([*self.inside(router), "sysctl", "-qw", "net.ipv4.ip_forward=1"])
        self._run([*self.inside(router), "nft", "-f", "-"], self._rules(side))

    def _rules(self, side: str) -> str:
        ports = " random,fully-random" if self._kinds[side] == "symmetric" else ""
        blocked = "meta l4proto udp drop" if side in self._no_udp else ""
        return f"""
            table ip nat {{
                chain post {{
                    type nat hook postrouting priority 100;
                    oifname "wan" masquerade{ports}
                }}
            }}
            table ip filter {{
                chain forward {{
                    type filter hook forward priority 0; policy drop;
                    {blocked}
                    ct state established,related accept
                    iifname "lan" oifname "wan" accept
                    ct status dnat accept
                }}
                chain input {{
                    type filter hook input priority 0; policy accept;
                    iifname "wan" ct state new drop
                }}
            }}
        """
