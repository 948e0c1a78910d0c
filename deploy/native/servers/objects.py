"""The object storage: S3Proxy, an S3 whose objects are files, from the jars of Maven Central."""

import shutil

from deploy.native.install.install import Installed, require_installed
from deploy.native.program import Program
from deploy.native.servers.server import Server
from deploy.native.site import Site, write_secret
from deploy.topology import ServerName

ACCESS_KEY = "tandem-services"
BUCKET = "tandem"
SETTINGS = """\
s3proxy.authorization=aws-v2-or-v4
s3proxy.endpoint=http://127.0.0.1:{port}
s3proxy.identity={identity}
s3proxy.credential={credential}
s3proxy.v4-max-non-chunked-request-size={bytes_max}
jclouds.provider=filesystem-nio2
jclouds.identity=unused
jclouds.credential=unused
"""
HEAP = "192m"
REQUEST_BYTES_MAX = 32 * 2**20
"""It holds what it checks the signature of. Its own default, said because objects are as large as that."""
_PROBE = "tandem-ready"
# Without a configuration of its own it logs every request.
_LOGGING = """\
<configuration>
  <appender name="STDOUT" class="ch.qos.logback.core.ConsoleAppender">
    <encoder><pattern>%d{ISO8601} %-5level %logger{20} %msg%n</pattern></encoder>
  </appender>
  <root level="WARN"><appender-ref ref="STDOUT"/></root>
</configuration>
"""


class ObjectStorage(Server):
    """One bucket, which is a directory."""

    name: ServerName = "objects"
    title = "the object storage"

    def port(self, site: Site, _node: int = 1) -> int:
        """As the instance's ports say."""
        return site.ports.objects

    def url(self, site: Site, _node: int = 1) -> str:
        """Without its keys, for which URLs have no place: `settings` has them."""
        return f"http://127.0.0.1:{site.ports.objects}"

    def settings(self, site: Site) -> dict[str, str]:
        """What the services must be told to use it, as TANDEM_… variables."""
        return {
            "TANDEM_OBJECT_STORE_URL": self.url(site),
            "TANDEM_OBJECT_STORE_BUCKET": BUCKET,
            "TANDEM_OBJECT_STORE_ACCESS_KEY": ACCESS_KEY,
            "TANDEM_OBJECT_STORE_SECRET_KEY": site.password,
        }

    def prepare(self, site: Site, installed: Installed) -> list[Program]:
        """Make the bucket, write the settings and say how to run it."""
        install, place = require_installed(installed.objects, self.title), site.data("objects")
        (place / "buckets" / BUCKET).mkdir(parents=True, exist_ok=True)
        settings, logging, scratch = place / "s3proxy.conf", place / "logback.xml", place / "tmp"
        values = {
            "port": site.ports.objects,
            "identity": ACCESS_KEY,
            "credential": site.password,
            "bytes_max": REQUEST_BYTES_MAX,
        }
        write_secret(settings, SETTINGS.format(**values))
        logging.write_text(_LOGGING)
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir()
        # Compiled with less effort it starts in half the CPU, and it has little to do.
        thrift = ["-XX:-UsePerfData", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", f"-Xmx{HEAP}"]
        jvm = [str(install.java), f"-Djava.io.tmpdir={scratch}", *thrift]
        # The directory is said here: in a file of properties a path would want its escapes. Objects in one that is
        # relative to where it runs are stored, and never listed.
        jvm += [f"-Djclouds.filesystem.basedir={place / 'buckets'}"]
        jvm += [f"-Dlogback.configurationFile={logging}", "-cp", f"{install.lib}/*"]
        command = [*jvm, "org.gaul.s3proxy.Main", "--properties", str(settings)]
        return [Program("objects", command, directory=place, stop_timeout_s=10)]

    async def probe(self, site: Site, _node: int = 1) -> None:
        """Raise unless an object is stored and read back."""
        # Here, because it brings a client that `make status` of an instance without it can spare.
        from shared.outside.circuit_breaker import CircuitBreaker
        from shared.outside.objects import Bucket, ObjectStore

        bucket = Bucket(
            url=self.url(site), name=BUCKET, access_key=ACCESS_KEY, secret_key=site.password, timeout_s=5
        )
        await ObjectStore(bucket, CircuitBreaker(self.name)).put_verified(_PROBE, b"ready")
