"""A node's image onto its board: built, uploaded, and the board greeted afterwards."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from coordinator.connection import Found, greet, rates_of
from coordinator.emulation import write_shards
from coordinator.errors import FirmwareMismatch
from coordinator.federation import NodeSpec
from coordinator.images import Held, images_held, upload_image
from coordinator.link.errors import LinkError
from coordinator.link.ports import list_ports, open_port
from coordinator.results import Inputs
from coordinator.roster import check, keyring, node_uid

BOOT_SECONDS = 15.0  # within which a board answers after it was flashed: a boot loader waits, USB comes back
AGAIN_SECONDS = 0.5

Say = Callable[[str], None]


@dataclass(frozen=True)
class Flashed:
    """A board that was flashed and answers as its node."""

    node: str
    board: str
    port: str  # where it answers now
    uid: str
    tier: str
    samples: int


class Flasher:
    """Flashes nodes of one federation."""

    def __init__(self, inputs: Inputs, folder: Path, say: Say, workspace: Path | None = None) -> None:
        """`folder` is for the shards, `workspace` where PlatformIO builds; `say` is told what is going on."""
        self._inputs = inputs
        self._keys = keyring(inputs.federation)
        self._say = say
        self._workspace = workspace
        self.held = images_held(inputs.federation, inputs.plans)
        self._shards = write_shards(inputs.federation, folder, self.held)

    async def flash(self, spec: NodeSpec, port: str) -> Flashed:
        """Build a node's image, upload it through `port` and see that it answers.

        Raises PortError before it builds, if the port is none or busy, ToolchainError, and for a board that does not
        answer as it should LinkError and FirmwareMismatch.
        """
        await asyncio.to_thread(_try_port, port)
        federation, plan = self._inputs.federation, self._inputs.plans[spec.kind]
        tier = plan.sub_model.tier.name
        before = {each.name for each in list_ports()}
        held = self.held.get(spec.name, Held(0))
        what = f"{held.samples} samples" + (f" and {held.proxy} proxy images" if held.proxy else "")
        self._say(f"{spec.name}: building {spec.board}, tier {tier}, {what}, for {port} …")
        await asyncio.to_thread(
            upload_image, federation, spec, self._shards[spec.name], port, self._workspace
        )  # fmt: skip
        self._say(f"{spec.name}: uploaded; waiting for it to answer …")
        found = await self._answer(spec, port, before)
        await found.session.close()
        check(found, plan, federation.path, spec)
        # a stream or a sensor brings what the image has not
        samples = held.samples if spec.source == "flash" else found.hello.samples
        if (found.uid, found.hello.samples) != (node_uid(spec), samples):
            raise FirmwareMismatch(
                f"{found.port}: {found.uid} with {found.hello.samples} samples answers; expected {node_uid(spec)} with "
                f"{samples}: the board still runs what it ran before; is {port} its own port?"
            )
        return Flashed(spec.name, spec.board, found.port, found.uid, tier, found.hello.samples)

    async def _answer(self, spec: NodeSpec, port: str, before: set[str]) -> Found:
        """Greet the board, over and over while it boots; one with USB of its own may come back under another name."""
        rates = rates_of([self._inputs.plans[spec.kind].board])
        until = time.monotonic() + BOOT_SECONDS
        while True:
            new = [each.name for each in list_ports() if each.name not in before]
            for name in (port, *new):
                try:
                    return await greet(name, rates, keys=self._keys)
                except LinkError:
                    if time.monotonic() > until and name == (port, *new)[-1]:
                        raise
            await asyncio.sleep(AGAIN_SECONDS)


def _try_port(name: str) -> None:
    """Open and close a device: a tool that uploads would take it from a coordinator at work, and says less of what is
    wrong. Raises PortError."""
    if name.startswith("/"):  # the tool may know other names
        open_port(name, 115200).close()
