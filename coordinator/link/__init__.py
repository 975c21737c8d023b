"""The link's host side: frames and transfers without I/O, sessions on asyncio, ports on pyserial."""
