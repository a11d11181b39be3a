"""Addresses of servers, and the proxies that lead to them."""

from __future__ import annotations

import ipaddress
from urllib.parse import SplitResult, unquote, urlsplit

from edge_mrl.errors import UsageError

__all__ = ["host_and_port", "proxy_for", "proxy_headers", "server_address"]


def server_address(text: str, *, insecure: bool = False) -> str:
    """A server's address in its normal form: scheme, host, port, and a path before /v1 if it has one.

    Args:
        text: What the user typed, with or without "https://".
        insecure: Allow http:// to other machines.

    Raises:
        UsageError: The text is not an address, or the token would travel unencrypted over a network.
    """
    url = urlsplit(text if "://" in text else f"https://{text}")
    try:
        port = url.port
    except ValueError as error:
        raise UsageError(f"server {text!r}: {error}") from error
    host = url.hostname
    if url.scheme not in ("http", "https") or not host:
        raise UsageError(f"server {text!r}: expected https://HOST[:PORT]")
    if url.username is not None or url.query or url.fragment:
        raise UsageError(f"server {text!r}: expected no user, query or fragment")
    if url.scheme == "http" and not insecure and not _is_loopback(host):
        raise UsageError(
            f"server {text!r}: over http:// anybody on the network can read token and vectors; use "
            "https://, or --insecure if you trust the network"
        )
    name = f"[{host}]" if ":" in host else host
    at = "" if port is None else f":{port}"
    return f"{url.scheme}://{name}{at}{url.path.rstrip('/')}"


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def host_and_port(url: SplitResult) -> tuple[str, int]:
    """Where an address leads: host and port, by default that of its scheme."""
    default = 443 if url.scheme == "https" else 80
    return url.hostname or "", url.port or default


def proxy_for(url: SplitResult) -> SplitResult | None:
    """The proxy for a server, by HTTPS_PROXY, HTTP_PROXY and NO_PROXY; None for a direct connection.

    Raises:
        UsageError: The proxy's address is not http://HOST:PORT.
    """
    from urllib import request

    bypass = request.proxy_bypass_environment  # type: ignore[attr-defined]  # its stub lacks it

    host, port = host_and_port(url)
    proxies = request.getproxies_environment()
    found = proxies.get(url.scheme) or proxies.get("all")
    # A proxy on another machine cannot reach this machine's loopback.
    if not found or _is_loopback(host) or bypass(f"{host}:{port}", proxies):
        return None
    proxy = urlsplit(found if "://" in found else f"http://{found}")
    if proxy.scheme != "http" or not proxy.hostname:
        raise UsageError(f"the proxy {proxy.scheme}://{proxy.hostname}: expected http://HOST:PORT")
    return proxy


def proxy_headers(proxy: SplitResult) -> dict[str, str]:
    """The headers that a proxy is sent: the user and password of its address, if it has them."""
    if proxy.username is None:
        return {}
    import base64

    pair = f"{unquote(proxy.username)}:{unquote(proxy.password or '')}"
    return {"Proxy-Authorization": f"Basic {base64.b64encode(pair.encode()).decode()}"}
