"""Where a request comes from, as far as that can be known."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence

__all__ = ["Proxies", "network"]

#: An IPv6 address with its port and zone is shorter.
MAX_ADDRESS_CHARS = 80
#: Whoever has one IPv6 address has all of its /64.
_IPV6_PREFIX = 64

_Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def network(address: str) -> str:
    """What counts as one address: itself, or the /64 of an IPv6 address."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address[:MAX_ADDRESS_CHARS]
    mapped = getattr(parsed, "ipv4_mapped", None)
    if mapped is not None:
        return str(mapped)
    if parsed.version == 4:
        return str(parsed)
    return str(ipaddress.ip_network((parsed, _IPV6_PREFIX), strict=False))


class Proxies:
    """The proxies whose ``X-Forwarded-For`` is believed.

    Args:
        trusted: Addresses and networks; ``*`` for whoever connects.

    Raises:
        ValueError: One is neither an address nor a network.
    """

    def __init__(self, trusted: Sequence[str] = ()) -> None:
        self._all = "*" in trusted
        self._networks: list[_Network] = [
            ipaddress.ip_network(text.strip(), strict=False)
            for text in trusted
            if text.strip() not in ("", "*")
        ]

    def trusts(self, address: str) -> bool:
        """Whether an address is a proxy's."""
        if self._all or not self._networks:
            return self._all
        try:
            parsed = ipaddress.ip_address(address.partition("%")[0])
        except ValueError:
            return False
        parsed = getattr(parsed, "ipv4_mapped", None) or parsed
        return any(parsed in known for known in self._networks)

    def client(self, peer: str, forwarded: Sequence[str]) -> str:
        """The address of a client, by ``network``.

        Only what a trusted proxy wrote is believed: the last entry that is not itself a proxy's. With
        ``*`` it is the last entry: no client can choose that one.

        Args:
            peer: Who is connected.
            forwarded: The values of ``X-Forwarded-For``, in their order.
        """
        found = peer
        entries = [entry.strip() for entry in ",".join(forwarded).split(",")]
        while entries and self.trusts(found):
            entry = entries.pop()
            if not entry:
                break
            found = entry
            if self._all:
                break
        return network(found)
