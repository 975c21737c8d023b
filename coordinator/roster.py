"""Who is there: ports opened, boards greeted, and matched to the nodes that the federation file lists.

Nodes are known by their unique id, never by their port.
"""

from __future__ import annotations

import asyncio
import hashlib
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import boards
from codegen.planner import Plan
from codegen.prebuild import firmware_hash
from codegen.protocol import ErrorCode, Hello, Kernel, Source
from coordinator.connection import NO_KEYS, Found, OnLine, greet, likely_ports, networked, rates_of
from coordinator.errors import FirmwareMismatch
from coordinator.events import Event, NodeConnected, NodeMissing, Observer, PortLog
from coordinator.federation import Federation, NodeSpec
from coordinator.keys import NodeKey, keyed_nodes, keys_folder, load_key
from coordinator.link.errors import AuthenticationError, LinkError, LinkTimeout, NodeError, PortError, ProtocolMismatch
from coordinator.link.ports import Opener, open_port
from coordinator.link.session import Session
from coordinator.nodes import LinkNode
from coordinator.search import REST, Search
from coordinator.shares import Share, deal

AUTO = "auto"


def named_uid(name: str) -> str:
    """Return the unique id of the node of this name, unless the federation file gives it one: its image and its twin
    have it. The first 8 bytes of BLAKE2s."""
    return hashlib.blake2s(name.encode(), digest_size=8).hexdigest()


def node_uid(spec: NodeSpec) -> str:
    """Return the unique id that is compiled into a node's image and given to its twin: 16 hexadecimal digits."""
    return spec.uid or named_uid(spec.name)


@dataclass
class Roster:
    """The nodes of a run that are there, and the ports that are none of them."""

    nodes: list[LinkNode]  # in the order of the file, ready for a round
    refused: dict[str, LinkError]  # ports, and why each is not used
    silent: list[str]  # with AUTO, ports where nobody answers, which are not refused
    _gate: _Gate
    _looking: asyncio.Task[list[LinkNode]] | None = None

    def latecomers(self) -> list[LinkNode]:
        """Return the nodes that were missing and have been found since, which are in `nodes` from now on; look for the
        others meanwhile. Raises what the observer raises."""
        if self._looking is not None and not self._looking.done():
            return []
        late = [] if self._looking is None else self._looking.result()
        order = [spec.name for spec in self._gate.federation.nodes()]
        self.nodes = sorted([*self.nodes, *late], key=lambda node: order.index(node.name))
        present = {node.name for node in self.nodes}
        missing = {node_uid(spec): spec for spec in self._gate.federation.nodes() if spec.name not in present}
        self._looking = asyncio.create_task(self._look(missing)) if missing else None
        return late

    async def _look(self, missing: Mapping[str, NodeSpec]) -> list[LinkNode]:
        """Look for nodes that are missing, given by their ids, until some may take part; return those."""
        while not (late := await self._joined(missing)):
            await asyncio.sleep(REST)  # opening a port may reset a board that is none of ours
        return late

    async def _joined(self, missing: Mapping[str, NodeSpec]) -> list[LinkNode]:
        search, late = self._gate.search, []
        for found in await search.look_once(missing):
            try:
                node = self._gate.node(missing[found.uid], found)
                error: Exception | None = await self._gate.opened(node)
            except (FirmwareMismatch, AuthenticationError) as refusal:
                error = refusal
            if error is None:
                late.append(node)
            else:
                search.refuse(found.port, str(error))
                await search.drop(found)
        return late

    async def close(self) -> None:
        """Close all ports."""
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.gather(self._looking, return_exceptions=True)
        await self._gate.search.close()
        await asyncio.gather(*(node.close() for node in self.nodes))


async def assemble(
    federation: Federation,
    plans: Mapping[str, Plan],
    ports: Sequence[str],
    observer: Observer,
    pace: float = 1.0,
    open_port: Opener = open_port,
    insecure: bool = False,
) -> Roster:
    """Return the federation's nodes that answer on `ports` (or AUTO).

    `plans` by kind of node; `pace` as for LinkNode; every port is opened by `open_port`; `insecure` lets nodes without
    a key answer through a network. Raises FirmwareMismatch for a board with another model, source of samples or
    firmware, ProtocolMismatch, LinkError for two boards of one id and if AUTO finds none, DataError for data that
    cannot be dealt out, KeyFileError.
    """
    keys = keyring(federation)
    rates = rates_of(plan.board for plan in plans.values())
    shares = _streamed(federation, plans)
    names = list(dict.fromkeys(ports))
    there: Callable[[], Sequence[str]] = likely_ports if names == [AUTO] else lambda: names
    found, refused = await find(there(), rates, lambda port, text: observer(PortLog(port, text)), open_port, keys)
    silent = [port for port, error in refused.items() if names == [AUTO] and isinstance(error, LinkTimeout)]
    refused = {port: error for port, error in refused.items() if port not in silent}
    if names == [AUTO] and not found:
        nobody = PortError("no port answers like a node; `coordinator ports` lists them, --ports names them")
        raise next(iter(refused.values()), nobody)
    search = Search(there, rates, observer, open_port, keys, pace)
    gate = _Gate(federation, plans, shares, observer, pace, search, keys, insecure)
    try:
        check_unique(found)
        matches, strangers = match(federation.nodes(), found)  # introductions() says who is missing
        nodes = []
        for spec, board in matches:
            if board is not None:
                try:
                    nodes.append(gate.node(spec, board))
                except AuthenticationError as error:  # who is not believed ends no run
                    refused[board.port] = error
        opened = await asyncio.gather(*map(gate.opened, nodes))
    except BaseException:
        await asyncio.gather(*(each.session.close() for each in found))
        raise
    refused |= {node.port: error for node, error in zip(nodes, opened, strict=True) if error is not None}
    refused |= {each.port: LinkError(stranger(each)) for each in strangers}
    search.said |= {port: str(error) for port, error in refused.items()}  # by runs.start
    search.said |= {each.port: each.uid for each in strangers}
    await asyncio.gather(*(search.drop(each) for each in found if each.port in refused))
    return Roster([node for node in nodes if node.port not in refused], refused, silent, gate)


@dataclass(frozen=True)
class _Gate:
    """Lets boards take part as nodes of the federation."""

    federation: Federation
    plans: Mapping[str, Plan]
    shares: Mapping[str, Share]
    observer: Observer
    pace: float
    search: Search  # for those that get lost, or were missing
    keys: Mapping[str, NodeKey]
    insecure: bool

    def node(self, spec: NodeSpec, board: Found) -> LinkNode:
        """Return the node of `spec`, yet to be opened. Raises FirmwareMismatch and AuthenticationError."""
        plan = self.plans[spec.kind]
        check = partial(self._check, spec)
        check(board)
        self.search.hold(board)
        way = _Way(board, self.search, plan.board.training.bauds, check)
        samples = self.shares.get(spec.name) if plan.source == "stream" else None
        return LinkNode(spec.name, plan, way, self.observer, self.pace, samples)

    def _check(self, spec: NodeSpec, found: Found) -> None:
        check_trust(found, spec, self.keys, self.insecure)
        check(found, self.plans[spec.kind], self.federation.path, spec)

    async def opened(self, node: LinkNode) -> LinkError | None:
        """Open a node; return why it cannot take part: one that has a key which is not here refuses everything."""
        try:
            await node.open()
        except NodeError as error:
            if error.code != ErrorCode.UNAUTHENTICATED:
                return LinkError(f"{node.port}: {error}")
            mend = flash_command(self.federation.path, node.name, node.port)
            return AuthenticationError(
                f"{node.port}: {node.name} was built with a key, and {keys_folder(self.federation)} has none for it; "
                f"put {node.name}.key back there, or `{mend}` builds it without"
            )
        except LinkError as error:
            return error
        return None


def _streamed(federation: Federation, plans: Mapping[str, Plan]) -> dict[str, Share]:
    """Return what each node is dealt if some have it streamed. Raises DataError."""
    streaming = [plan for plan in plans.values() if plan.source == "stream"]
    return deal(federation, streaming[0].sub_model.graph.classes) if streaming else {}


def introductions(federation: Federation, nodes: Sequence[LinkNode]) -> list[Event]:
    """Return what there is to tell of every node of the federation: who it is, or that it is missing."""
    present = {node.name: node for node in nodes}
    return [
        connected(present[spec.name], federation) if spec.name in present else NodeMissing(spec.name, spec.board)
        for spec in federation.nodes()
    ]


async def find(
    names: Sequence[str],
    rates: Sequence[int],
    on_line: OnLine,
    open_port: Opener = open_port,
    keys: Mapping[str, NodeKey] = NO_KEYS,
) -> tuple[list[Found], dict[str, LinkError]]:
    """Open all ports at once and greet who is there; return that, and why the other ports do not answer. Raises
    ProtocolMismatch."""
    answers = await asyncio.gather(
        *(greet(name, rates, open_port, keys, on_line) for name in names), return_exceptions=True
    )
    found = [answer for answer in answers if isinstance(answer, Found)]
    refused: dict[str, LinkError] = {}
    for name, answer in zip(names, answers, strict=True):
        if isinstance(answer, LinkError) and not isinstance(answer, ProtocolMismatch):
            refused[name] = answer
        elif isinstance(answer, BaseException):
            await asyncio.gather(*(each.session.close() for each in found))
            raise answer
    return found, refused


def check_unique(found: Sequence[Found]) -> None:
    """Raise LinkError if two ports lead to nodes of one id."""
    seen: dict[str, Found] = {}
    for each in found:
        if each.uid in seen:
            raise LinkError(
                f"{seen[each.uid].port} and {each.port}: both say they are {each.uid} ({each.hello.board}); "
                "unplug one, or give each twin a --uid of its own"
            )
        seen[each.uid] = each


def match(specs: Sequence[NodeSpec], found: Sequence[Found]) -> tuple[list[tuple[NodeSpec, Found | None]], list[Found]]:
    """Return who stands for each node of the file, and who for none.

    By unique id first (it follows from the node's name), then by board, the lowest id for the first node.
    """
    free = {each.uid: each for each in sorted(found, key=lambda each: each.uid)}
    chosen = {spec.name: free.pop(node_uid(spec), None) for spec in specs}
    for spec in specs:
        if chosen[spec.name] is None and spec.uid is None:
            uid = next((uid for uid, each in free.items() if each.hello.board == spec.board), None)
            chosen[spec.name] = None if uid is None else free.pop(uid)
    return [(spec, chosen[spec.name]) for spec in specs], list(free.values())


def keyring(federation: Federation) -> dict[str, NodeKey]:
    """Return the keys of the nodes that have one, by unique id. Raises KeyFileError."""
    files = keyed_nodes(federation)
    return {
        node_uid(spec): NodeKey(spec.name, load_key(files[spec.name]), flash_command(federation.path, spec.name))
        for spec in federation.nodes()
        if spec.name in files
    }


def check_trust(found: Found, spec: NodeSpec, keys: Mapping[str, NodeKey], insecure: bool) -> None:
    """Raise AuthenticationError if a node that has a key has not proved it, or if one without is reached through a
    network."""
    if found.session.authenticated:
        return
    key = keys.get(node_uid(spec))
    if key is not None:
        raise AuthenticationError(
            f"{found.port}: {found.uid} is no board of {spec.name}, which has a key; flash it with that: `{key.flash}`"
        )
    if networked(found.port) and not insecure:
        raise AuthenticationError(
            f"{found.port}: {spec.name} has no key, so anybody could answer there in its place; give it one with "
            f"`coordinator keys new {spec.name}` and flash it, or trust this network with --insecure"
        )


def check(found: Found, plan: Plan, federation: Path, spec: NodeSpec) -> None:
    """Raise FirmwareMismatch unless the board of a node runs firmware of this plan and these sources."""
    hello, mend = found.hello, rebuild_command(found.port, federation, spec)
    tier = plan.sub_model.tier.name
    if hello.board != plan.board.id:
        raise FirmwareMismatch(
            f"{found.port}: {found.uid} is built for {hello.board}, the federation file says {plan.board.id}; {mend}"
        )
    if hello.kernel != Kernel[plan.kernel.upper()]:
        names = {kernel.value: kernel.name.lower() for kernel in Kernel}
        raise FirmwareMismatch(
            f"{found.port}: its firmware trains in {names.get(hello.kernel, hello.kernel)}, this federation's plan for "
            f"{plan.board.id} in {plan.kernel}; {mend}"
        )
    if hello.source != Source[plan.source.upper()]:
        sources = {source.value: source.name.lower() for source in Source}
        raise FirmwareMismatch(
            f"{found.port}: its firmware was built for samples from {sources.get(hello.source, hello.source)}, the "
            f"federation file says {plan.source}; {mend}"
        )
    if hello.model != plan.model_hash or hello.parameters != plan.sub_model.graph.parameters:
        raise FirmwareMismatch(
            f"{found.port}: its firmware holds model {hello.model:08x} (tier {hello.tier}, {hello.parameters} "
            f"parameters), this federation's is {plan.model_hash:08x} (tier {tier}, "
            f"{plan.sub_model.graph.parameters}); {mend}"
        )
    if hello.proxy != plan.proxy:
        raise FirmwareMismatch(
            f"{found.port}: its firmware holds {hello.proxy} proxy images, this federation's plan for {plan.board.id} "
            f"{plan.proxy}; {mend}"
        )
    if hello.firmware != sources_hash():
        raise FirmwareMismatch(
            f"{found.port}: its firmware is {hello.firmware:08x}, built from other sources than these "
            f"({sources_hash():08x}); {mend}"
        )


@cache
def sources_hash() -> int:
    """Return the hash of the firmware's sources as they are now."""
    return firmware_hash(boards.PROJECT_ROOT)


def rebuild_command(port: str, federation: Path, spec: NodeSpec) -> str:
    """Return what to type to bring a board's, or its twin's, firmware up to date."""
    if port.startswith(("/dev/pts/", "socket://127.", "socket://localhost")):
        model = f"TIERFED_MODEL={shlex.quote(spec.model)} " if spec.model else ""
        build = f"TIERFED_FEDERATION={shlex.quote(str(federation))} {model}pio run -e native_{spec.board}"
        return f"rebuild it: `{build}` and start it again"
    return f"rebuild it: `{flash_command(federation, spec.name, port)}`"


def flash_command(federation: Path, node: str, port: str = "") -> str:
    """Return what to type to flash a node; nothing is uploaded through a URL, so it is left to find the board."""
    where = ["--port", port] if port and "://" not in port else []
    return shlex.join(["coordinator", "flash", node, *where, "--federation", str(federation)])


def stranger(found: Found) -> str:
    """Return the sentence about a board that no node of the file stands for."""
    return (
        f"{found.port}: {found.uid} is a {found.hello.board}, for which the federation file has no node left; "
        f'add [[nodes]] with board = "{found.hello.board}", or leave out this port'
    )


def connected(node: LinkNode, federation: Federation) -> NodeConnected:
    """Return the event that introduces a node."""
    hello = node.hello
    return NodeConnected(
        node=node.name,
        board=hello.board,
        tier=node.plan.sub_model.tier.name,
        uid=hello.uid.hex(),
        port=node.port,
        samples=sum(node.label_counts),
        batch=node.plan.batch,
        encoding=node.encoding(federation.link.encoding).name.lower(),
        model=f"{hello.model:08x}",
        firmware=f"{hello.firmware:08x}",
        labels=node.label_counts,
        proxy=hello.proxy,
    )


class _Way:
    """The way to a node: as it was found, then wherever it is found again. Satisfies contact.Connection."""

    def __init__(self, found: Found, search: Search, bauds: Sequence[int], check: Callable[[Found], None]) -> None:
        self._found: Found | None = found
        self._port, self._uid = found.port, found.uid
        self._search = search
        self._rates = list(dict.fromkeys([max(bauds), bauds[0]]))  # where a run leaves it, and where a reset does
        self.check = check

    async def find(self) -> Found:
        found, self._found = self._found, None
        if found is None:
            found = await self._search.find(self._uid, self._port, self._rates)
            try:
                self.check(found)
            except BaseException:
                await found.session.close()
                raise
            self._port = found.port
        return found

    async def greet(self, session: Session) -> Hello:
        return await self._search.greet(session, self._rates)

    def trouble(self) -> str:
        return self._search.trouble.get(self._port, "")
