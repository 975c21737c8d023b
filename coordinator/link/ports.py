"""Serial ports, ptys and pyserial's URLs, without ever blocking the event loop. The only file that knows pyserial."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import queue
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from coordinator.link.channel import Port
from coordinator.link.errors import PortBusy, PortError

if TYPE_CHECKING:
    import serial

Opener = Callable[[str, int], Port]  # a port's name and its rate; raises PortError or PortBusy

_LIST = "`coordinator ports` lists what is there"
_READ = 65536
WAKE = 2.0  # seconds of silence after which DTR is raised


@dataclass(frozen=True)
class PortInfo:
    """A port of this machine; `usb` is "vid:pid" in lower-case hex, or empty if it is not on USB."""

    name: str
    description: str
    usb: str


def list_ports() -> list[PortInfo]:
    """Return the ports of this machine, those on USB first."""
    from serial.tools.list_ports import comports

    found = [
        PortInfo(
            port.device,
            port.description if port.description != "n/a" else "",
            f"{port.vid:04x}:{port.pid:04x}" if port.vid is not None and port.pid is not None else "",
        )
        for port in comports()
    ]
    return sorted(found, key=lambda port: (not port.usb, port.name))


def open_port(name: str, baud: int) -> Port:
    """Open a device, a pty, or a pyserial URL (socket://host:port, rfc2217://host:port).

    Does not reset the board where that can be avoided. Blocks while a network port connects. Raises PortError, or
    PortBusy, with the reason in words.
    """
    import serial

    try:
        # Set before opening: DTR and RTS reset most boards.
        handle = serial.serial_for_url(name, baud, timeout=0, do_not_open=True)
        handle.dtr = handle.rts = False
        if "://" not in name and os.name == "posix":
            handle.exclusive = True
        handle.open()
    except (serial.SerialException, OSError, ValueError) as error:
        raise (PortBusy if _is_busy(error) else PortError)(f"{name}: {_why(name, error)}") from None
    try:
        descriptor = handle.fileno()
    except (AttributeError, OSError):  # rfc2217, Windows
        return _ThreadedPort(name, handle)
    return _DescriptorPort(name, handle, descriptor)


def _is_whole(url: str) -> bool:
    """Whether a URL has a host and a port."""
    try:
        parts = urlsplit(url)
        return bool(parts.hostname and parts.port)
    except ValueError:  # a port beyond 65535, a bracket too many
        return False


def _is_busy(error: Exception) -> bool:
    return getattr(error, "errno", None) in (errno.EAGAIN, errno.EBUSY) or "exclusively lock" in str(error)


def _why(name: str, error: Exception) -> str:
    """Return what kept a port from opening, and what to do."""
    number = getattr(error, "errno", None)
    text = str(error)
    if isinstance(error, ValueError) and "://" in name:
        return f"not a URL that pyserial knows ({text}); expected socket://HOST:PORT or rfc2217://HOST:PORT"
    if "://" in name and not _is_whole(name):
        return "host or port is missing or wrong; expected socket://HOST:PORT or rfc2217://HOST:PORT"
    if "://" in name:
        return f"cannot connect ({text.rpartition(': ')[2]}); is its server running and the address right?"
    if number == errno.ENOENT or (number is None and not os.path.exists(name)):  # noqa: PTH110, a name is no path
        return f"there is no such port; {_LIST}"
    if _is_busy(error):
        return f"busy: another program has it open (a serial monitor?); close that, or choose another: {_LIST}"
    if number in (errno.EACCES, errno.EPERM):
        return (
            "not permitted; join the group that owns it with `sudo usermod -aG dialout $USER` and log in again "
            f"({_LIST})"
        )
    if number in (errno.ENOTTY, errno.EINVAL, errno.EISDIR) or "termios" in text or "Could not configure" in text:
        return f"not a serial port; {_LIST}"
    return f"{text}; {_LIST}"


class _OpenPort:
    """What ports have in common: who is told, and when."""

    def __init__(self, name: str, handle: serial.Serial) -> None:
        self.name = name
        self._handle = handle
        self._on_data: Callable[[bytes], None] | None = None
        self._on_lost: Callable[[str], None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._open = True
        self._heard = False  # anything at all

    def start(self, on_data: Callable[[bytes], None], on_lost: Callable[[str], None]) -> None:
        self._on_data, self._on_lost = on_data, on_lost
        self._loop = asyncio.get_running_loop()
        self._begin()
        self._loop.call_later(WAKE, self._wake)

    def _begin(self) -> None:
        """Begin to read."""

    def _wake(self) -> None:
        if self._open and not self._heard:
            _raise_dtr(self._handle)

    def _deliver(self, data: bytes) -> None:
        if self._open and self._on_data:
            self._heard = True
            self._on_data(data)

    def _vanish(self, reason: str | None) -> None:
        if self._open:
            self.close()
            if self._on_lost:
                self._on_lost(f"the port vanished ({reason or 'unknown reason'})")

    def close(self) -> None:
        if self._open:
            self._open = False
            self._end()
            _shut(self._handle)

    def _end(self) -> None:
        """Stop reading and writing."""


class _DescriptorPort(_OpenPort):
    """A port with a file descriptor: the event loop watches it; writes that would block wait in a buffer."""

    def __init__(self, name: str, handle: serial.Serial, descriptor: int) -> None:
        super().__init__(name, handle)
        self._descriptor = descriptor
        self._buffer = bytearray()
        self._tune()

    def _tune(self) -> None:
        if self.name.startswith("socket://"):
            with socket.socket(fileno=os.dup(self._descriptor)) as connection:
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return
        import fcntl
        import termios

        with contextlib.suppress(termios.error, OSError):
            modes = termios.tcgetattr(self._descriptor)
            modes[2] &= ~termios.HUPCL  # closing must not drop DTR, which resets the board
            # With VMIN 0 an empty read could mean either "nothing yet" or "gone"; with 1 it means gone.
            modes[6][termios.VMIN], modes[6][termios.VTIME] = 1, 0
            termios.tcsetattr(self._descriptor, termios.TCSANOW, modes)
            fcntl.ioctl(self._descriptor, termios.TIOCEXCL)  # also against programs that do not lock

    def _begin(self) -> None:
        asyncio.get_running_loop().add_reader(self._descriptor, self._readable)

    def _readable(self) -> None:
        try:
            data = os.read(self._descriptor, _READ)
        except BlockingIOError:
            return
        except OSError as error:
            self._vanish(error.strerror)
            return
        if data:
            self._deliver(data)
        else:
            self._vanish("the other end is gone")

    def write(self, data: bytes) -> None:
        if not self._open:
            return
        if self._buffer:
            self._buffer += data
            return
        sent = self._put(data)
        if sent < len(data) and self._loop:
            self._buffer += data[sent:]
            self._loop.add_writer(self._descriptor, self._writable)

    def _put(self, data: bytes | bytearray) -> int:
        try:
            return os.write(self._descriptor, data)
        except BlockingIOError:
            return 0
        except OSError as error:
            # Not at once: the caller is in the middle of something, and does not expect to be told it failed.
            if self._loop:
                self._loop.call_soon(self._vanish, error.strerror)
            return len(data)

    def _writable(self) -> None:
        del self._buffer[: self._put(self._buffer)]
        if not self._buffer and self._loop:
            self._loop.remove_writer(self._descriptor)

    def set_baud(self, baud: int) -> None:
        self._handle.baudrate = baud
        self._tune()

    def _end(self) -> None:
        if self._loop and not self._loop.is_closed():
            self._loop.remove_reader(self._descriptor)
            self._loop.remove_writer(self._descriptor)


class _ThreadedPort(_OpenPort):
    """A port without a descriptor: one thread reads, one writes."""

    def __init__(self, name: str, handle: serial.Serial) -> None:
        super().__init__(name, handle)
        self._outgoing: queue.SimpleQueue[bytes | int | None] = queue.SimpleQueue()  # int: a new baud rate

    def _begin(self) -> None:
        self._handle.timeout = 0.2  # how often the reader looks whether it should end
        for work in (self._read, self._write):
            threading.Thread(target=work, name=f"{work.__name__[1:]} {self.name}", daemon=True).start()

    def _read(self) -> None:
        while self._open:
            try:
                data = self._handle.read(1)
                if data:
                    data += self._handle.read(min(self._handle.in_waiting, _READ))
                elif not self._handle.is_open:
                    raise OSError("the other end is gone")
            except Exception as error:  # pyserial's handlers raise TypeError, OSError, … when closed under a reader
                self._tell(self._vanish, str(error))
                return
            if data:
                self._tell(self._deliver, data)

    def _write(self) -> None:
        while (data := self._outgoing.get()) is not None:
            try:
                if isinstance(data, int):
                    self._handle.baudrate = data
                else:
                    self._handle.write(data)
            except Exception as error:
                self._tell(self._vanish, str(error))
                return

    def _tell(self, call: Callable[..., None], value: object) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended
            if self._loop:
                self._loop.call_soon_threadsafe(call, value)

    def write(self, data: bytes) -> None:
        self._outgoing.put(data)

    def set_baud(self, baud: int) -> None:
        self._outgoing.put(baud)  # the server must confirm: not in the event loop

    def _end(self) -> None:
        self._outgoing.put(None)


def _raise_dtr(handle: serial.Serial) -> None:
    """Raise DTR: a board whose own USB is the port sends nothing while it is low, because nobody seems to listen.

    Others it may reset, which is why it is not done at once.
    """
    if "://" not in str(handle.port):
        with contextlib.suppress(OSError):  # a pty has none
            handle.dtr = True


def _shut(handle: serial.Serial) -> None:
    """Close a pyserial handle; those of networks sleep and join threads meanwhile, so a thread of ours does it."""

    def close() -> None:
        with contextlib.suppress(Exception):  # a device that is gone may refuse even this
            handle.close()

    if "://" in str(handle.port):
        threading.Thread(target=close, daemon=True).start()
    else:
        close()
