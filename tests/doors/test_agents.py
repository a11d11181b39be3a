"""A store for agents, asked by the protocol's own client, in a process as an agent starts it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from edge_mrl import Document, Index
from edge_mrl.cli import main
from tests.support import children
from tests.support.bundles import TINY
from tests.support.listening import listening, request
from tests.support.processes import COMMAND

pytest.importorskip("mcp", reason="NOT TRIED: the package mcp is missing")

import anyio.from_thread
import httpx2
from mcp.client.client import Client
from mcp.client.stdio import StdioServerParameters, stdio_client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPError

pytestmark = [
    pytest.mark.test,
    # The SDK marks what it is about to change.
    pytest.mark.filterwarnings("ignore::mcp.shared.exceptions.MCPDeprecationWarning"),
]
READING = ["search", "get", "fetch", "status"]
ODD = "notes/we 100%2F/.. ä.md"
LONG = "Water the tomatoes. " * 4_000
TOKEN = "a-token-of-this-test"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("agents") / "s.db"
    with Index.open(path, TINY) as index:
        index.put(
            [
                Document("ferry", "The ferry leaves at dawn.", {"title": "Ferry", "lang": "en"}),
                Document(ODD, "A cat and a dog."),
                Document("long", LONG),
            ]
        )
    return path


class Agent:
    """The SDK's client, from a test that is no coroutine."""

    def __init__(self, client: Client, portal: anyio.from_thread.BlockingPortal) -> None:
        self.client, self._portal = client, portal

    def ask(self, method: str, *arguments: Any) -> Any:
        return self._portal.call(getattr(self.client, method), *arguments)

    def tool(self, name: str, **arguments: Any) -> Any:
        answer = self.ask("call_tool", name, arguments)
        assert not answer.is_error, answer.content[0].text
        assert json.loads(answer.content[0].text) == answer.structured_content
        return answer.structured_content

    def refused(self, name: str, **arguments: Any) -> str:
        answer = self.ask("call_tool", name, arguments)
        assert answer.is_error
        text: str = answer.content[0].text
        return text


@contextmanager
def agent(transport: Any) -> Iterator[Agent]:
    with anyio.from_thread.start_blocking_portal() as portal:
        client = Client(transport)
        with portal.wrap_async_context_manager(client):
            yield Agent(client, portal)


@asynccontextmanager
async def over_http(url: str, token: str) -> AsyncIterator[Any]:
    headers = {"Authorization": f"Bearer {token}"}
    async with (
        httpx2.AsyncClient(headers=headers) as client,
        streamable_http_client(url, http_client=client) as streams,
    ):
        yield streams


def started(store: Path, *options: str) -> Any:
    program, *rest = children.ending_with_us([*COMMAND, "mcp", "--store", str(store), *options])
    return stdio_client(StdioServerParameters(command=program, args=rest, env=children.mark()))


def test_an_agent_finds_and_reads(store: Path) -> None:
    with agent(started(store)) as one:
        assert one.client.server_info.name == "edge-mrl"
        assert "3 documents" in (one.client.instructions or "")
        tools = one.ask("list_tools").tools
        assert [tool.name for tool in tools] == READING
        assert all(tool.annotations.read_only_hint for tool in tools)
        assert all(tool.output_schema and tool.description for tool in tools)
        found = one.tool("search", query="ferry", k=1, filter={"lang": "en"})["results"]
        assert [hit["id"] for hit in found] == ["ferry"]
        assert found[0]["text"] == "The ferry leaves at dawn."
        assert one.tool("get", id="ferry", start=4, end=9)["text"] == "ferry"
        part = one.tool("fetch", id="long")
        assert (part["text"], part["next_start"]) == (LONG[:40_000], 40_000)
        assert one.tool("status")["documents"] == 3
        assert "no document 'nobody'" in one.refused("get", id="nobody")
        assert "expected at most 50" in one.refused("search", query="x", k=51)
        assert "Unknown tool" in one.refused("put", id="x", text="y")
        (template,) = one.ask("list_resource_templates").resource_templates
        assert template.uri_template == "edge-mrl://document/{id}"
        for hit in one.tool("search", query="cat dog", k=3, max_chars=40_000)["results"]:
            (read,) = one.ask("read_resource", hit["url"]).contents
            assert read.text.startswith(hit["text"][:20])
        (read,) = one.ask("read_resource", f"edge-mrl://document/{quote(ODD, safe='')}").contents
        assert read.text == "A cat and a dog."
        with pytest.raises(MCPError, match="no document"):
            one.ask("read_resource", "edge-mrl://document/..%2F..%2Fetc%2Fpasswd")


def test_an_agent_that_may_writes(store: Path, tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    with Index.open(path, TINY):
        pass
    with listening("mcp", "--store", path, "--http", "--write") as server:
        with agent(streamable_http_client(server.url)) as one:
            named = {tool.name: tool.annotations for tool in one.ask("list_tools").tools}
            assert list(named) == [*READING, "put", "delete"]
            assert not named["put"].read_only_hint
            assert named["delete"].destructive_hint
            assert one.tool("put", id="a", text="a bird")["outcome"] == "added"
            assert one.tool("search", query="a bird")["results"][0]["id"] == "a"
            assert one.tool("delete", ids=["a", "b"]) == {"deleted": 1}
            assert "64 bits" in one.refused("put", id="a", text="b", metadata={"n": 1 << 80})
        page = {"Accept": "application/json, text/event-stream", "Origin": "http://evil.example"}
        assert request(server.url, "POST", "/mcp", {}, **page).status == 403
        assert request(server.url, "POST", "/mcp", {}, Host="evil.example").status == 421
        assert request(server.url, "POST", "/mcp", b"x" * (5 << 20)).status == 413
        assert server.stop() == 0


@pytest.mark.nightly
def test_other_machines_need_a_token(store: Path) -> None:
    options = ("mcp", "--store", store, "--http", "--host", "0.0.0.0")
    with listening(*options) as server:
        assert len(server.said["token"]) >= 24
        assert "speaks no TLS" in server.log()
        url = server.url.replace("0.0.0.0", "127.0.0.1")
        assert request(url, "POST", "/mcp", {}).error["code"] == "invalid_api_key"
        with agent(over_http(url, server.said["token"])) as one:
            assert one.tool("status")["documents"] == 3


def messages(*calls: dict[str, Any]) -> bytes:
    return b"".join(json.dumps({"jsonrpc": "2.0", **call}).encode() + b"\n" for call in calls)


def test_nothing_but_messages_is_printed_and_it_ends_with_its_agent(store: Path) -> None:
    about = {
        "protocolVersion": "2025-06-18",
        "capabilities": {},
        "clientInfo": {"name": "t", "version": "1"},
    }
    asked = {"name": "search", "arguments": {"query": "ferry"}}
    sent = messages(
        {"id": 1, "method": "initialize", "params": about},
        {"method": "notifications/initialized"},
        {"id": 2, "method": "tools/call", "params": asked},
        {"id": 3, "method": "tools/call", "params": {"name": "search", "arguments": {}}},
    )
    with subprocess.Popen(
        [*COMMAND, "mcp", "--store", str(store)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(sent)
        process.stdin.flush()
        lines = [json.loads(process.stdout.readline()) for _ in range(3)]
        process.stdin.close()
        assert process.stdout.read() == b""
        assert process.wait(30) == 0
    assert {line["jsonrpc"] for line in lines} == {"2.0"}
    answers = {line["id"]: line["result"] for line in lines}
    assert answers[2]["structuredContent"]["results"][0]["id"] == "ferry"
    assert answers[3]["isError"]


def test_what_cannot_be_served_is_said(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for options, said in (
        (["--store", tmp_path / "none.db"], "no store"),
        (["--store", store, "--http", "--port", "70000"], "expected 0 to 65535"),
        (["--store", store, "--http", "--token-file", __file__], "is none"),
    ):
        assert main(["mcp", *map(str, options)]) == 2
        assert said in capsys.readouterr().err


def test_without_the_sdk_the_extra_is_named(store: Path) -> None:
    code = (
        "import sys; sys.modules['mcp'] = None\nfrom edge_mrl.cli import main\n"
        f"raise SystemExit(main(['mcp', '--store', {str(store)!r}]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert done.returncode == 3
    assert b'pip install "edge-mrl[mcp]"' in done.stderr
