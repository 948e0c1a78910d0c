"""What the client's errors mean to us: one table, in which a test looks up every exception class of the client.

A process that starts refuses what will not pass (`ConfigurationError`): a wrong password, a right that it has not.
One that runs waits all the same: somebody may give the right back, and until then its events are in the outbox or
in the topic.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from typing import Final

from aiokafka import errors as kafka

from shared.errors import ConfigurationError, EventTooLargeError, PermanentError, TandemError, UnavailableError

LOST = (kafka.KafkaError, ConnectionError, OSError, TimeoutError)
"""What aiokafka raises when the cluster is away or refuses."""

ERRORS: Final[Mapping[type[Exception], type[TandemError]]] = {
    **dict.fromkeys(
        (
            kafka.KafkaError,
            # the client has no connection, or not the newest news
            kafka.NoBrokersAvailable,
            kafka.NodeNotReadyError,
            kafka.KafkaProtocolError,
            kafka.CorrelationIdError,
            kafka.Cancelled,
            kafka.TooManyInFlightRequests,
            kafka.StaleMetadata,
            kafka.MetadataEmptyBrokerList,
            kafka.KafkaUnavailableError,
            kafka.KafkaTimeoutError,
            kafka.KafkaConnectionError,
            kafka.QuotaViolationError,
            kafka.ConsumerStoppedError,
            # a server starts, stops, or hands something over to another one
            kafka.BrokerResponseError,
            kafka.NoError,
            kafka.UnknownError,
            kafka.UnknownTopicOrPartitionError,
            kafka.LeaderNotAvailableError,
            kafka.NotLeaderForPartitionError,
            kafka.RequestTimedOutError,
            kafka.BrokerNotAvailableError,
            kafka.ReplicaNotAvailableError,
            kafka.StaleControllerEpochError,
            kafka.StaleLeaderEpochCodeError,
            kafka.NotControllerError,
            kafka.NotEnoughReplicasError,
            kafka.NotEnoughReplicasAfterAppendError,
            kafka.InvalidReplicationFactorError,  # as long as too few nodes are up
            kafka.KafkaStorageError,
            kafka.LogDirNotFound,
            kafka.ListenerNotFound,
            kafka.ReassignmentInProgress,
            kafka.OperationNotAttempted,
            kafka.TopicAlreadyExistsError,  # another process was faster
            # a consumer reads on, or its group changes
            kafka.IllegalStateError,
            kafka.CommitFailedError,
            kafka.OffsetOutOfRangeError,
            kafka.CorruptRecordException,
            kafka.InvalidFetchRequestError,
            kafka.FetchSessionIdNotFound,
            kafka.InvalidFetchSessionEpoch,
            kafka.GroupLoadInProgressError,
            kafka.GroupCoordinatorNotAvailableError,
            kafka.NotCoordinatorForGroupError,
            kafka.IllegalGenerationError,
            kafka.InconsistentGroupProtocolError,  # members of an older version are still there
            kafka.UnknownMemberIdError,
            kafka.MemberIdRequired,
            kafka.RebalanceInProgressError,
            kafka.NonEmptyGroup,
            kafka.GroupIdNotFound,
            # the producer is replaced
            kafka.ProducerClosed,
            kafka.ProducerFenced,
            kafka.OutOfOrderSequenceNumber,
            kafka.DuplicateSequenceNumber,
            kafka.InvalidProducerEpoch,
            kafka.InvalidProducerIdMapping,
            kafka.UnknownProducerId,
            kafka.InvalidTxnState,
            kafka.ConcurrentTransactions,
            kafka.TransactionCoordinatorFenced,
        ),
        UnavailableError,
    ),
    **dict.fromkeys((kafka.MessageSizeTooLargeError, kafka.RecordListTooLargeError), EventTooLargeError),
    **dict.fromkeys(
        (
            kafka.UnsupportedCodecError,
            kafka.RecordTooLargeError,
            kafka.InvalidTimestampError,
            kafka.OffsetMetadataTooLargeError,
            kafka.InvalidCommitOffsetSizeError,
        ),
        PermanentError,
    ),
    **dict.fromkeys(
        (
            # who we are
            kafka.AuthenticationMethodNotSupported,
            kafka.AuthenticationFailedError,
            kafka.SaslAuthenticationFailed,
            kafka.UnsupportedSaslMechanismError,
            kafka.IllegalSaslStateError,
            kafka.SecurityDisabled,
            kafka.InvalidPrincipalType,
            kafka.DelegationTokenAuthDisabled,
            kafka.DelegationTokenNotFound,
            kafka.DelegationTokenOwnerMismatch,
            kafka.DelegationTokenRequestNotAllowed,
            kafka.DelegationTokenAuthorizationFailed,
            kafka.DelegationTokenExpired,
            # what we may
            kafka.TopicAuthorizationFailedError,
            kafka.GroupAuthorizationFailedError,
            kafka.ClusterAuthorizationFailedError,
            kafka.TransactionalIdAuthorizationFailed,
            kafka.PolicyViolationError,
            # what we ask for
            kafka.IllegalArgumentError,
            kafka.IllegalOperation,
            kafka.KafkaConfigurationError,
            kafka.NoOffsetForPartitionError,
            kafka.UnrecognizedBrokerVersion,
            kafka.IncompatibleBrokerVersion,
            kafka.UnsupportedVersionError,
            kafka.UnsupportedForMessageFormatError,
            kafka.InvalidTopicError,
            kafka.InvalidRequiredAcksError,
            kafka.InvalidGroupIdError,
            kafka.InvalidSessionTimeoutError,
            kafka.InvalidTransactionTimeout,
            kafka.InvalidPartitionsError,
            kafka.InvalidReplicationAssignmentError,
            kafka.InvalidConfigurationError,
            kafka.InvalidRequestError,
        ),
        ConfigurationError,
    ),
}


def meaning(error: BaseException) -> type[TandemError]:
    """Our class for the client's error, or for the network's."""
    return next((ERRORS[kind] for kind in type(error).__mro__ if kind in ERRORS), UnavailableError)


def refusal(error: BaseException) -> TandemError:
    """Our error for one that a process meets while it starts."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return ConfigurationError(f"Kafka's certificate is not accepted: {error.verify_message}")
    return (
        ConfigurationError(f"Kafka refuses: {error}") if meaning(error) is ConfigurationError else failure(error)
    )


def failure(error: BaseException) -> TandemError:
    """Our error for one that a running process meets."""
    kind = meaning(error)
    return UnavailableError(f"Kafka: {error!r}") if kind is ConfigurationError else kind(f"Kafka: {error!r}")
