"""What can go wrong while Tandem is installed, started or stopped.

Every error is one sentence that names the thing (server, port, package, setting) and fits on a
terminal; the command line prints it as it is and exits 1.
"""


class DeployError(Exception):
    """The runtime cannot do what was asked; the message is meant for a person."""


class InstallError(DeployError):
    """Something that Tandem needs could not be installed."""


class StartError(DeployError):
    """A server or a service did not come up; the message ends with its last log lines."""


class PortTakenError(DeployError):
    """A port that is needed is in use by another process."""
