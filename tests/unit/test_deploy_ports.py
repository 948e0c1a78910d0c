import os
import socket
import subprocess
import sys

import pytest

from deploy.errors import DeployError, PortTakenError
from deploy.native import ports as ports_module
from deploy.native.ports import BLOCK_SIZE, Ports, is_free, require_free
from deploy.native.processes import port_beside
from deploy.topology import PROCESSES


def test_a_free_block_lies_below_the_ephemeral_ports() -> None:
    ports = Ports.free_block()

    assert ports.block >= 25000
    assert ports.block + BLOCK_SIZE <= 32768


def test_two_runs_never_get_the_same_block(monkeypatch: pytest.MonkeyPatch) -> None:
    # Not among those that other tests need at this time.
    elsewhere = range(14000, 24000, BLOCK_SIZE)
    monkeypatch.setattr(ports_module, "FREE_BLOCKS", elsewhere)
    blocks = [Ports.free_block().block for _ in range(5)]
    script = (
        f"from deploy.native import ports; ports.FREE_BLOCKS = {elsewhere}\n"
        "print([ports.Ports.free_block().block for _ in range(40)])"
    )
    other = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)

    theirs = [int(part) for part in other.stdout.strip(" []\n").split(",")]
    assert len(set(blocks)) == 5
    assert not set(blocks) & set(theirs)


def test_no_two_things_share_a_port() -> None:
    for ports in (Ports(25000), Ports.default()):
        servers = [ports.postgres, ports.redis, ports.rabbit, ports.rabbit_dist, ports.rabbit_epmd]
        servers += [ports.rabbit_management, ports.kafka, ports.kafka_controller]
        services = [
            ports.http(row.name, replica, number)
            for row in PROCESSES
            for replica in (1, 2, 3)
            for number in (0, 1)
        ]
        every = servers + services
        assert len(set(every)) == len(every)


def test_the_stack_has_the_services_on_the_ports_of_the_process_table() -> None:
    assert {row.name: Ports.default().http(row.name) for row in PROCESSES} == {
        row.name: row.http_port for row in PROCESSES
    }


def test_running_out_of_ports_is_an_error_that_names_the_process() -> None:
    with pytest.raises(DeployError, match="order-consumer"):
        Ports(25000).http("order-consumer", replica=40)


def test_one_more_process_has_a_port_that_none_of_the_others_has_in_whatever_order_they_ended() -> None:
    ports = Ports(25000)
    first, second, third = (ports.http("wallet", replica) for replica in (1, 2, 3))
    assert port_beside(ports, "wallet", 0, {first}) == second
    assert port_beside(ports, "wallet", 0, {first, second}) == third
    assert port_beside(ports, "wallet", 0, {first, third}) == second
    with pytest.raises(DeployError, match="wallet"):
        port_beside(ports, "wallet", 0, range(25000, 25000 + BLOCK_SIZE))


def test_a_taken_port_is_reported_with_its_purpose_and_its_holder() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]

        assert not is_free(port)
        with pytest.raises(PortTakenError, match=rf"port {port} \(PostgreSQL\) .* \(pid {os.getpid()}\)"):
            require_free({"PostgreSQL": port})


def test_ports_survive_being_written_down() -> None:
    ports = Ports.default()

    assert Ports.from_dict(ports.as_dict()) == ports


def test_three_nodes_and_the_proxies_have_ports_of_their_own() -> None:
    ports = Ports(25000, proxied=True, nodes=3)
    taken = [port for node in (1, 2, 3) for port in (*ports.rabbit_node(node), *ports.kafka_node(node))]
    taken += [ports.postgres, ports.redis, ports.rabbit_epmd, ports.kafka_behind_proxy]
    taken += [proxy for proxy, _ in ports.proxies.values()]
    taken += [
        ports.http(row.name, replica, number) for row in PROCESSES for replica in (1, 2) for number in (0, 1)
    ]
    assert len(set(taken)) == len(taken)
    assert all(25000 <= port < 25000 + BLOCK_SIZE for port in taken)


def test_the_number_of_nodes_survives_being_written_down() -> None:
    assert Ports.from_dict(Ports.default(nodes=3).as_dict()).nodes == 3
