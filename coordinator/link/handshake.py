"""Host and node prove to each other that they have the node's key."""

from __future__ import annotations

import secrets
from typing import Protocol, TypeVar

from codegen.protocol import NONCE_BYTES, Authenticate, Challenge, Hello, HelloRequest, Message, Proof, Status
from coordinator.link.authentication import equal, host_mac, node_mac, session_key
from coordinator.link.errors import AuthenticationError, NodeError

M = TypeVar("M", bound=Message)

PROOFS = 3  # that a node is asked for: between two messages a sensor may capture a sample, which HELLO counts


class Asking(Protocol):
    """What this needs of a session."""

    name: str

    async def request(self, message: Message, reply: type[M]) -> M:
        """Send `message` until `reply` comes."""


async def prove(session: Asking, key: bytes, hello: Hello) -> tuple[Hello, bytes]:
    """Have the node prove that it has `key` and that `hello` is its own, and then prove to it to have the key as well.

    Returns the HELLO that was proved, which may be a newer one, and the session's key. Raises AuthenticationError.
    """
    claim = f"{session.name}: it says that it is {hello.uid.hex()}"
    for _ in range(PROOFS):
        nonce = secrets.token_bytes(NONCE_BYTES)
        try:
            proof = await session.request(Challenge(nonce), Proof)
            if equal(proof.mac, node_mac(key, nonce, proof.nonce, hello.encode())):
                await session.request(Authenticate(host_mac(key, nonce, proof.nonce)), Status)
                return hello, session_key(key, nonce, proof.nonce)
        except NodeError as error:
            raise AuthenticationError(f"{claim}, and does not prove it ({error})") from None
        before, hello = hello, await session.request(HelloRequest(), Hello)
        if hello == before:
            break
    raise AuthenticationError(f"{claim}, and its proof is wrong")
