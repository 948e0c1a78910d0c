import subprocess
from pathlib import Path

import pytest

from deploy.errors import InstallError
from deploy.native.install import system
from deploy.native.install.install import RabbitInstall
from deploy.native.ports import Ports
from deploy.native.servers import rabbit
from deploy.native.site import Site


@pytest.fixture
def install(tmp_path: Path) -> RabbitInstall:
    (tmp_path / "chroot/etc").mkdir(parents=True)
    (tmp_path / "chroot/etc/passwd").write_text(
        "root:x:0:0::/root:/bin/sh\nrabbitmq:x:100:102::/var/lib:/bin/sh\n"
    )
    return RabbitInstall(chroot=tmp_path / "chroot", version="4.3.6")


def _node_command(tmp_path: Path, install: RabbitInstall) -> list[str]:
    site = Site.open(tmp_path / "instance", Ports(25000))
    return rabbit._inside(site, install, "rabbitmq-server")


def test_a_normal_user_runs_rabbitmq_in_a_user_namespace(
    tmp_path: Path, install: RabbitInstall, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)

    command = _node_command(tmp_path, install)

    assert command[:3] == ["unshare", "--user", "--map-root-user"]
    assert "--userspec" not in command[-1]
    assert "sudo" not in " ".join(command)


def test_root_runs_rabbitmq_as_the_user_of_its_directory(
    tmp_path: Path, install: RabbitInstall, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 0)

    command = _node_command(tmp_path, install)

    assert "--user" not in command
    assert "--userspec=100:102" in command[-1]


def test_refused_namespaces_are_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    refusal = "unshare: unshare failed: Operation not permitted\n"
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: subprocess.CompletedProcess([], 1, stdout=refusal))

    with pytest.raises(InstallError, match=r"^RabbitMQ needs unprivileged user namespaces, and [^\n]*permitted"):
        system.require_namespaces("RabbitMQ")


def test_a_package_that_apt_does_not_find_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = "sudo: unable to resolve host\nReading package lists...\nE: Unable to locate package maven\n"
    monkeypatch.setenv("TANDEM_CACHE", str(tmp_path))
    monkeypatch.setattr(
        system, "_apt_get", lambda *words: subprocess.CompletedProcess(words, 100 * (words[0] == "install"), said)
    )

    with pytest.raises(InstallError, match=r"could not install redis maven: Unable to locate package maven \("):
        system.apt_install(["redis", "maven"])

    assert (tmp_path / "apt.log").read_text() == said + said
