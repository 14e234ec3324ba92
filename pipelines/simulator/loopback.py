"""An ASGI application served on loopback while a context lasts: what the simulated gateway and the
simulated Stripe stand on. What they answer does not belong here.
"""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
from starlette.types import ASGIApp


def server(application: ASGIApp) -> uvicorn.Server:
    """A quiet HTTP server that ends within a second."""
    return uvicorn.Server(
        uvicorn.Config(
            application,
            loop="asyncio",
            http="h11",
            ws="none",
            lifespan="off",
            log_level="critical",
            timeout_graceful_shutdown=1,
        )
    )


@contextmanager
def serving(application: ASGIApp, listening: socket.socket) -> Iterator[None]:
    """Serves on a socket that listens, in a thread. Raises OSError where it does not start."""
    # else head and body of an answer come 40 ms apart: asyncio sees to it only where a socket says
    # that it is TCP's
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    running = server(application)
    thread = threading.Thread(target=running.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    while not running.started:
        if not thread.is_alive():
            raise OSError(f"The server at {listening.getsockname()} did not start.")
        time.sleep(0.005)
    try:
        yield
    finally:
        running.should_exit = True
        thread.join()
