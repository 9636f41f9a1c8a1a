"""An MCP server of the tests: over stdio, or with a port as its argument over streamable HTTP."""

import asyncio
import os
import subprocess
import sys
import uuid

from fastmcp import Context, FastMCP
from fastmcp.exceptions import ToolError
from fastmcp.utilities.types import Image

ME = uuid.uuid4().hex

server = FastMCP("demo", instructions="Does as it is told.")


@server.tool(annotations={"readOnlyHint": True, "title": "Sum"})
def add(a: int, b: int) -> int:
    """Adds two numbers."""
    return a + b


@server.tool(output_schema=None)
def whole(name: str = "nobody") -> str:
    """Says JSON as text, and nothing structured."""
    return '{"name": "%s", "number": 1.50}' % name


@server.tool(output_schema=None)
def greet(name: str) -> str:
    """Says plain text."""
    return f"Hello, {name}"


@server.tool
def fail(why: str) -> str:
    """Fails with this reason."""
    raise ToolError(why)


@server.tool
async def steps(context: Context) -> str:
    """Tells how far it is."""
    for step in (1, 2):
        await context.report_progress(step, 4, f"step {step}")
        await context.info(f"did {step}")
    return "done"


@server.tool
def large(count: int) -> str:
    """Says that many letters."""
    return "x" * count


@server.tool
async def hang(seconds: float = 60.0, mark: str = "") -> str:
    """Takes its time, and tells in a file when it begins and when it is cancelled."""
    try:
        note(mark, "began")
        await asyncio.sleep(seconds)
    except asyncio.CancelledError:
        note(mark, "cancelled")
        raise
    return "awake"


@server.tool
def die() -> str:
    """Ends the server before it answers."""
    os._exit(3)


@server.tool
def about() -> dict:
    """Tells which server this is."""
    return {"me": ME, "pid": os.getpid(), "folder": os.getcwd(), "env": dict(os.environ)}


@server.tool
def child() -> dict:
    """Leaves a process that outlives the call."""
    return {"pid": subprocess.Popen(["sleep", "600"], start_new_session=True).pid}


@server.tool
def say(line: str) -> str:
    """Prints to standard error."""
    print(line, file=sys.stderr, flush=True)
    return "said"


@server.tool
def picture() -> Image:
    """Gives what is no text."""
    return Image(data=b"\x89PNG", format="png")


@server.tool(name="files/read")
def read() -> str:
    """Has a name that no tool of the service can have."""
    return ""


def note(mark: str, word: str) -> None:
    if mark:
        with open(mark, "a", encoding="utf-8") as file:
            file.write(word + "\n")


if len(sys.argv) > 1 and sys.argv[1].isdigit():
    server.run(transport="http", host="127.0.0.1", port=int(sys.argv[1]), show_banner=False)
else:
    server.run(show_banner=False)
